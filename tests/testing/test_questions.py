"""The questions find fault: a chain that is wrong in one way fails the question that asks for it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from phidias_lab.contract import registry
from phidias_lab.errors import PhidiasError
from phidias_lab.testing import questions

CODE = """
import os
import sys
import numpy as np
import xarray as xr
from phidias_lab import Chain, Input, Var, count, number, variable

{top}

def scene():
    field = xr.Dataset(
        {{
            "t": (("x",), np.arange(4.0), {{"units": "K", "standard_name": "sea_water_temperature"}}),
            "bare": (("x",), np.ones(4)),
        }},
        coords={{"x": ("x", np.arange(4.0), {{"units": "m", "long_name": "distance"}})}},
    )
    return {{"inputs": {{"field": field}}, "parameters": {{}}}}


class Wrong(Chain):
    {doc}

    title = {title!r}
    version = {version!r}
    scene = __name__ + ":scene"
    inputs = {{"field": Input("cube", dims=("x",))}}
    outputs = {outputs}
    factor = {factor}
    measured = variable({measured!r}, of="field", doc="What is multiplied")

{body}
    def run(self, field):
        {run}
        return xr.Dataset({{"out": result}})
"""

RIGHT = {
    "top": "",
    "doc": '"""A chain with nothing wrong."""',
    "title": "A toy",
    "version": "1.0",
    "outputs": '{"out": Var("{measured.units}", "{measured.standard_name}", "a multiple", dims=("x",))}',
    "factor": 'number(2.0, bounds=(-10, 10), doc="The factor")',
    "measured": "t",
    "body": "",
    "run": "result = field[self.measured] * self.factor",
}

WRONG = {
    "no title": ("is_described_completely", {"title": " "}, "has no title"),
    "no version": ("is_described_completely", {"version": "new"}, "no version number"),
    "no docstring": ("is_described_completely", {"doc": "pass"}, "no docstring"),
    "no outputs": ("is_described_completely", {"outputs": "{}"}, "declares no outputs"),
    "no bounds": ("is_described_completely", {"factor": 'number(2.0, doc="The factor")'}, "no bounds"),
    "decades on a linear scale": (
        "is_described_completely",
        {"factor": 'number(2.0, bounds=(0.001, 1000), doc="The factor")'},
        "spans decades",
    ),
    "a schema that its default does not fit": (
        "has_a_valid_schema_that_its_defaults_fit",
        {
            "body": "    @classmethod\n    def schema(cls):\n        return {'properties': {'factor': {'type': 'string'}}}\n"
        },
        "is not of type 'string'",
    ),
    "a schema that is none": (
        "has_a_valid_schema_that_its_defaults_fit",
        {"body": "    @classmethod\n    def schema(cls):\n        return {'type': 'thing'}\n"},
        "not valid under any|is not one of",
    ),
    "any parameter is taken": (
        "has_a_valid_schema_that_its_defaults_fit",
        {"body": "    def __init__(self, **given):\n        super().__init__()\n"},
        "accepts a bad value of 'no_such_parameter'",
    ),
    "any value is taken": (
        "refuses_bad_values_by_name",
        {"body": "    def __init__(self, **given):\n        super().__init__()\n"},
        "accepts a bad value of 'factor'",
    ),
    "a refusal that names nothing": (
        "refuses_bad_values_by_name",
        {
            "top": "from phidias_lab.errors import ParameterError",
            "body": "    def __init__(self, **given):\n        if given:\n            raise ParameterError('no')\n",
        },
        "without naming it",
    ),
    "no command line": (
        "gives_its_defaults_to_the_command_line",
        {"top": "if 'phidias_lab.services.command_line' in sys.modules: raise ImportError('not here')"},
        "cannot be imported",
    ),
    "other defaults than declared": (
        "gives_its_defaults_to_the_form",
        {"body": "    @property\n    def parameters(self):\n        return {'factor': 3.0, 'measured': 't'}\n"},
        "does not start from the declared defaults",
    ),
    "no units": ("gives_the_declared_outputs_with_units", {"measured": "bare"}, "has no units"),
    "other outputs": (
        "gives_the_declared_outputs_with_units",
        {"outputs": '{"other": Var("1")}'},
        "did not return the declared output 'other'",
    ),
    "chunks matter": (
        "gives_the_same_for_chunked_and_whole_input",
        {"run": "result = field[self.measured] * len(field.chunks.get('x', ()))"},
        "whole and chunked: out differs",
    ),
    "values of the input change": (
        "leaves_its_input_unchanged",
        {"run": "result = field[self.measured] * 2; field['bare'].values[:] = 0"},
        "input 'field' after the run: bare differs",
    ),
    "attributes of the input change": (
        "leaves_its_input_unchanged",
        {"run": "result = field[self.measured] * 2; field['bare'].attrs['units'] = 'm'"},
        "changes the attributes of its input 'field'",
    ),
    "chance without a seed": (
        "makes_a_product_that_runs_again_to_the_same_bytes",
        {"run": "result = field[self.measured] * int.from_bytes(os.urandom(4), 'big')"},
        "does not repeat itself",
    ),
    "units that are none": (
        "makes_a_product_with_a_valid_record",
        {"outputs": '{"out": Var("bananas", "sea_water_temperature", "a multiple")}'},
        "high-priority findings: .*bananas",
    ),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install the chain `toy.wrong`, for worker processes too."""
    place = tmp_path / "package"
    info = place / "toy_wrong-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-wrong\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[phidias_lab.chains]\ntoy.wrong = toy_wrong:Wrong\n")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ["PYTHONPATH"]]))

    def install(changes: dict[str, str]) -> None:
        (place / "toy_wrong.py").write_text(CODE.format(**{**RIGHT, **changes}))
        shutil.rmtree(place / "__pycache__", ignore_errors=True)
        monkeypatch.delitem(sys.modules, "toy_wrong", raising=False)

    return install


IN_THIS_PROCESS = [q for q in questions.QUESTIONS if "makes_a_product" not in q and "command_line" not in q]


@pytest.mark.parametrize("question", IN_THIS_PROCESS)
def test_a_right_chain_answers(question, install, tmp_path):
    install({})
    questions.ask(question, "toy.wrong", tmp_path)


@pytest.mark.parametrize("fault", WRONG)
def test_a_chain_that_is_wrong_in_one_way_is_found_out(fault, install, tmp_path: Path):
    import jsonschema

    question, changes, said = WRONG[fault]
    install(changes)
    complaint = (AssertionError, PhidiasError, jsonschema.ValidationError, jsonschema.SchemaError)
    with pytest.raises(complaint, match=said):
        questions.ask(question, "toy.wrong", tmp_path)


def test_every_question_is_seen_to_find_fault():
    assert {question for question, _, _ in WRONG.values()} == set(questions.QUESTIONS)


def test_a_chain_without_a_scene_is_asked_for_one():
    with pytest.raises(AssertionError, match=r"probe.slow\.scene must name a function"):
        questions.scene(registry.chain("probe.slow"))
