"""Every notebook of the folder runs from top to bottom on the demo lake, offline, and keeps to the house rules."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def cells(path: Path, kind: str) -> list:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


def lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / "notebooks").as_posix())
def notebook(request) -> Path:
    return request.param


def test_there_are_notebooks():
    assert ROOT / "notebooks" / "start_here.ipynb" in NOTEBOOKS


def test_a_notebook_runs_from_top_to_bottom(notebook, demo_lake, tmp_path):
    document = nbformat.read(notebook, as_version=4)
    NotebookClient(
        document, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    pictures = [
        o
        for c in document.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "text/html" in o.get("data", {}) or "application/vnd.holoviews_exec.v0+json" in o.get("data", {})
    ]
    assert pictures, "a notebook shows what it made"
    assert not any(p.suffix in (".nc", ".zarr") for p in tmp_path.iterdir()), "a notebook leaves products with its runs"


def test_a_notebook_checks_its_results_with_numbers(notebook):
    checks = [c for c in cells(notebook, "code") if "assert " in c.source]
    assert len(checks) >= 2, "each result has a check cell"
    assert not any("assert True" in c.source for c in checks)


def test_a_notebook_carries_no_outputs_made_by_hand(notebook):
    assert all(not c.outputs and c.execution_count is None for c in cells(notebook, "code"))


def test_a_notebook_names_its_data_by_the_catalogue(notebook):
    source = "\n".join(c.source for c in cells(notebook, "code"))
    for path_like in ("open_dataset(", "read_csv(", "read_parquet(", "open_zarr(", "/home/", "http://", "https://"):
        assert path_like not in source
    assert "if testing" not in source.lower()


def test_a_notebook_ends_with_the_ways_out(notebook):
    headings = [
        line.lstrip("# ").strip()
        for c in cells(notebook, "markdown")
        for line in c.source.splitlines()
        if line.startswith("##")
    ]
    assert headings[-2:] == ["The same run elsewhere", "What next"]
    first = cells(notebook, "markdown")[0].source
    assert first.startswith("# ")
    for row in ("**Goal**", "**Data**", "**Needs**"):
        assert row in first
    assert "synthetic" in first


def test_the_first_map_comes_within_ten_lines_and_three_cells(notebook):
    code = cells(notebook, "code")
    position = next(i for i, c in enumerate(code) if "view(" in c.source)
    assert position < 3
    before = [line for c in code[: position + 1] for line in lines(c.source)]
    assert len(before) <= 10


def test_a_chain_has_a_notebook_of_its_own_name_with_its_parameters(notebook):
    from phidias_lab.contract import registry

    for chain_id in registry.chains():
        if registry.provider(chain_id) != "phidias-lab":
            continue
        path = ROOT / "notebooks" / (chain_id.replace(".", "/") + ".ipynb")
        assert path in NOTEBOOKS, f"{chain_id} has no notebook"
        tagged = [c for c in cells(path, "code") if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1
        names = [line.split("=")[0].strip() for line in lines(tagged[0].source)]
        declared = registry.chain(chain_id).declared()
        assert names
        assert all(name in declared for name in names)


def test_a_notebook_is_stored_in_a_form_that_diffs_well(notebook):
    document = json.loads(notebook.read_text())
    assert document["nbformat"] == 4
    assert all(isinstance(c["source"], list) for c in document["cells"])
    assert all(c["id"].startswith("cell-") for c in document["cells"])
