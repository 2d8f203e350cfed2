"""A run as a script or notebook: it holds the whole order, and nothing of the order becomes code."""

from __future__ import annotations

import ast
import json

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab.contract import Order
from phidias_lab.errors import ParameterError
from phidias_lab.products import export

LITERALS = ("chain", "version", "parameters", "inputs")
NASTY = [
    "quote \" and ' and \\",
    "new\nline\rand\r\nmore\u2028and\u2029",
    '"""\nimport os\n"""',
    "'''; import os; '''",
    "{braces} {{}} %s %(a)s",
    "# comment\nimport os",
    "```\n<script>alert(1)</script>",
    "\x00\x1b[31m",
    "end\\",
]


def orders_with(text: str) -> Order:
    return Order(
        chain=text,
        version=text,
        parameters={text: text, "list": [text, 1.5, None, True], "nested": {"type": "Polygon", text: [[0, 1]]}},
        inputs={text: {"entry": text, "parameters": {text: text}}, "b": {"file": text}},
        title=text,
    )


def rebuilt(source: str) -> dict:
    """The order document that the source builds, found without running it."""
    tree = ast.parse(source)
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id in LITERALS:
            values[node.targets[0].id] = ast.literal_eval(node.value)
    return {"phidias_order": 1, **{k: values[k] for k in LITERALS}}


def skeleton(source: str) -> list[str]:
    """The statements of a source without the values that are assigned."""
    kept = []
    for node in ast.parse(source).body:
        literal = isinstance(node, ast.Assign) and node.targets[0].id in LITERALS
        kept.append(node.targets[0].id if literal else ast.dump(node))
    return kept


def notebook_source(text: str) -> str:
    return "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code")


@pytest.mark.parametrize("make", [export.script, lambda o: notebook_source(export.notebook(o))])
def test_the_export_builds_the_very_order(make, order):
    document = order.document()
    assert rebuilt(make(order)) == document


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("make", [export.script, lambda o: notebook_source(export.notebook(o))])
def test_nothing_of_an_order_becomes_code(make, text):
    order = orders_with(text)
    source = make(order)
    assert skeleton(source) == skeleton(make(orders_with("plain")))
    wanted = {k: v for k, v in order.document().items() if k != "title"}
    assert rebuilt(source) == wanted


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30))
def test_no_text_breaks_out_of_a_script_or_notebook(text):
    plain = orders_with("plain")
    assert skeleton(export.script(orders_with(text))) == skeleton(export.script(plain))
    notebook = export.notebook(orders_with(text))
    assert skeleton(notebook_source(notebook)) == skeleton(notebook_source(export.notebook(plain)))
    nbformat.validate(nbformat.reads(notebook, as_version=4))


@pytest.mark.parametrize("text", NASTY)
def test_a_title_stays_one_heading_without_markup(text):
    cell = json.loads(export.notebook(orders_with(text)))["cells"][0]
    lines = "".join(cell["source"]).split("\n")
    assert len(lines) == 4
    assert "<" not in "".join(lines)
    assert not any(line.lstrip().startswith("`") for line in lines)


def test_the_notebook_is_valid_and_has_a_parameters_cell(order):
    text = export.notebook(order)
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    assert "parameters = {'length': 100000.0}" in cell.source
    assert export.notebook(order) == text


def test_the_script_says_what_it_needs(order):
    head = export.script(order).split("import")[0]
    assert "Chain ocean.analysis, version 1.2." in head
    assert "Needs phidias_lab 0.1.0" in head
    assert "catalogue entry ocean.observations: it must be in your lake" in export.script(order)


def test_data_that_were_in_memory_are_read_from_the_run(order, tmp_path):
    order = order.with_(inputs={"observations": {"stored": "observations.parquet", "sha256": "abcd"}})
    source = export.script(order, inputs_folder=tmp_path)
    assert rebuilt(source)["inputs"] == {"observations": {"file": str(tmp_path / "observations.parquet")}}
    assert "sha256 abcd" in source
    with pytest.raises(ParameterError, match="'observations' was given in memory"):
        export.notebook(order)


def test_long_parameters_are_laid_out_to_be_read(order):
    order = order.with_(parameters={f"parameter_{n}": float(n) for n in range(12)})
    assert max(map(len, export.script(order).split("\n"))) <= 120
