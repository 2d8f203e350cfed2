"""Who imports whom, what an import brings in, and that the chains are where their ids say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess:
    """import-linter on the package in a folder, by the contracts of our pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_every_layer_imports_only_what_stands_below_it():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("methods/new.py", "import phidias_lab.contract.chain", "A layer imports"),
        ("contract/new.py", "import phidias_lab.lake.catalog", "A layer imports"),
        ("chains/ocean/new.py", "import phidias_lab.products.cf", "A layer imports"),
        ("compute/new.py", "import phidias_lab.flow", "A layer imports"),
        ("widgets/new.py", "import phidias_lab.services.command_line", "A layer imports"),
        ("testing/scenes/new.py", "import phidias_lab.chains.ocean.gridding", "A layer imports"),
        ("errors.py", "import phidias_lab.settings", "A layer imports"),
        ("services/new.py", "import panel", "Panel and its family"),
        ("products/new.py", "def f():\n    import hvplot.xarray", "Panel and its family"),
        ("chains/ocean/new.py", "import datashader", "Panel and its family"),
        ("flow.py", "import intake", "intake stands only"),
        ("services/new.py", "from dask_jobqueue import SLURMCluster", "dask_jobqueue stands only"),
        ("methods/new.py", "import torch", "torch stands only"),
        ("methods/new.py", "import cupy", "cupy stands only"),
        ("compute/new.py", "def f():\n    import cupyx.scipy.sparse", "cupy stands only"),
        ("services/new.py", "import param", "param stands only"),
        ("lake/new.py", "import pystac_client", "pystac_client stands only"),
    ],
)
def test_an_import_in_the_wrong_direction_is_named(tmp_path, module, line, contract):
    shutil.copytree(
        ROOT / "phidias_lab", tmp_path / "phidias_lab", ignore=shutil.ignore_patterns("__pycache__", "*.npz")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "phidias_lab" / module, "a") as stream:
        stream.write(f"\n\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(row.startswith(contract) and "BROKEN" in row for row in done.stdout.splitlines()), done.stdout
    offender = "phidias_lab." + module.removesuffix(".py").replace("/", ".")
    assert f"{offender} -> " in done.stdout


def modules_after(code: str) -> set[str]:
    """What a fresh process has imported after this code."""
    said = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(json.loads(said.splitlines()[-1]))


HEAVY = {
    "array_api_compat",
    "bokeh",
    "cupy",
    "dask",
    "datashader",
    "holoviews",
    "hvplot",
    "intake",
    "netCDF4",
    "numba",
    "pandas",
    "panel",
}
HEAVY |= {"pyarrow", "rasterio", "scipy", "sklearn", "torch", "xarray", "zarr"}


@pytest.mark.parametrize("code", ["import phidias_lab", "import phidias_lab; phidias_lab.chains()"])
def test_importing_the_package_and_listing_its_chains_brings_in_nothing_heavy(code):
    found = modules_after(code)
    assert "phidias_lab" in found
    assert found & HEAVY == set()
    assert [name for name in found if name.startswith("phidias_lab.chains")] == []


def test_the_command_line_shows_its_help_without_screens_and_chains():
    code = "from phidias_lab.services import command_line\nassert command_line.main(['--help']) == 0"
    found = modules_after(code)
    assert found & {"panel", "holoviews", "datashader", "torch", "sklearn"} == set()
    assert [name for name in found if name.startswith("phidias_lab.chains.")] == []


def test_the_compiler_is_brought_in_by_the_first_scorer_only():
    assert "numba" not in modules_after("from phidias_lab.methods import screening")
    code = """
import numpy as np
from phidias_lab.methods import pca, screening
y = np.random.default_rng(0).standard_normal((99, 20))
screening.Scorer(screening.learn(pca.Moments(20).add(y), np.arange(20.0), np.ones(20), 2))
"""
    assert "numba" in modules_after(code)


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["entry-points"]["phidias_lab.chains"]


def addresses(folder: Path) -> dict[str, str]:
    """id -> module of every chain below a folder, as the path says it."""
    found = {}
    for path in sorted((folder / "phidias_lab" / "chains").rglob("*.py")):
        if not path.name.startswith("_"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[2:])] = ".".join(parts)
    return found


def test_every_module_of_chains_is_declared_and_its_id_is_its_path():
    modules = {chain_id: target.partition(":")[0] for chain_id, target in declared().items()}
    assert modules == addresses(ROOT)
    assert "ocean.gridding" in modules


@pytest.mark.parametrize("chain_id", sorted(declared()))
def test_a_declared_chain_is_a_class_of_its_own_module(chain_id):
    from phidias_lab.contract import registry

    found = registry.chain(chain_id)
    assert found.id == chain_id
    assert found.__module__ == f"phidias_lab.chains.{chain_id}"
