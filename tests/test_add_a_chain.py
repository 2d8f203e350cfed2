"""docs/do/add-a-chain.md is followed word by word, in a folder outside the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "do" / "add-a-chain.md"
BLOCK = re.compile(r"^```\{code-block\} (\w+)\n:caption: ([^\n]+)\n\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> dict[str, str]:
    """The blocks of the page: caption -> text."""
    return {caption: text for _, caption, text in BLOCK.findall(PAGE.read_text())}


@pytest.fixture(scope="module")
def commands(page) -> list[list[str]]:
    lines = page["in the folder of the package"].splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [line[2:].split() for line in lines]


@pytest.fixture(scope="module")
def package(page, tmp_path_factory) -> Path:
    """The files of the page, written down."""
    folder = tmp_path_factory.mktemp("phidias-toy")
    for caption, text in page.items():
        if "." in Path(caption).name and " " not in caption:
            (folder / caption).parent.mkdir(parents=True, exist_ok=True)
            (folder / caption).write_text(text)
    assert {p.name for p in folder.rglob("*.*")} == {"pyproject.toml", "__init__.py", "anomaly.py", "test_anomaly.py"}
    return folder


@pytest.fixture(scope="module")
def installed(package, tmp_path_factory) -> dict[str, str]:
    """The package installed by pip beside the environment; the environment variables with which it is seen."""
    place = tmp_path_factory.mktemp("installed")
    # --target and PYTHONPATH stand for an environment of its own; what the package needs is there already.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(place), str(package)], check=True)
    kept = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    home = tmp_path_factory.mktemp("home")
    folders = {"PHIDIAS_LAKE": str(home / "lake"), "PHIDIAS_RUNS": str(home / "runs"), "XDG_DATA_HOME": str(home)}
    return {**os.environ, **folders, "PYTHONPATH": os.pathsep.join([str(place), *kept])}


@pytest.fixture
def do(installed, package):
    """Run a command of the page as a user does, with the package installed."""
    programs = {"phidias": ["-m", "phidias_lab"], "python": []}

    def run(words: list[str], **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *programs[words[0]], *words[1:]],
            cwd=package,
            env={**installed, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_the_page_installs_lists_describes_runs_and_tests(commands):
    assert [words[:2] for words in commands] == [
        ["pip", "install"],
        ["phidias", "chains"],
        ["phidias", "describe"],
        ["phidias", "run"],
        ["python", "-m"],
    ]


def test_the_page_says_how_to_get_what_its_tests_need():
    import tomllib

    extras = tomllib.loads((PAGE.parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = " ".join(PAGE.read_text().split())
    for extra in re.findall(r"pip install [^`]*\[(\w+)\]", page):
        assert any(need.startswith("pytest") for need in extras[extra])
        assert not any(need.startswith("pytest") for need in extras["lab"])
    assert "pip install -c constraints.txt -e '.[dev]'" in page
    assert "pip install 'phidias-lab[dev]'" in page


def test_the_new_chain_is_listed_beside_ours(do, commands):
    listed = do(commands[1])
    assert "toy.anomaly" in listed
    assert "ocean.gridding" in listed


def test_the_new_chain_is_listed_without_being_imported(installed):
    code = "import phidias_lab, sys; assert 'toy.anomaly' in phidias_lab.chains(); print('phidias_toy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_new_chain_is_described_by_its_declaration(do, commands):
    described = json.loads(do([*commands[2], "--json"]))
    assert described["parameters"]["coverage"]["default"] == 0.5
    assert described["outputs"].keys() == {"anomaly", "mean"}
    assert "Least share of the times" in do(commands[2])


def test_the_new_chain_has_a_form_and_the_form_its_defaults(installed):
    code = (
        "import json, phidias_lab; from phidias_lab.widgets.form import Form;"
        "print(json.dumps(Form(phidias_lab.chain('toy.anomaly')).values))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"variable": "temperature", "coverage": 0.5}


def test_the_new_chain_runs_on_the_demo_lake(do, commands, package, demo_lake_folder):
    import numpy as np
    import xarray as xr

    do(commands[3], PHIDIAS_LAKE=str(demo_lake_folder))
    with xr.open_dataset(package / "anomaly.nc") as result:
        assert result["anomaly"].attrs["units"] == result["mean"].attrs["units"]
        anomaly = result["anomaly"].mean("time").values
        assert np.isfinite(anomaly).any()
        np.testing.assert_allclose(anomaly[np.isfinite(anomaly)], 0, atol=1e-5)


def test_the_new_chain_answers_the_questions_of_every_chain_and_passes_its_own_tests(do, commands):
    said = do([*commands[4], "-q", "-p", "no:cacheprovider"])
    passed = int(re.search(r"(\d+) passed", said)[1])
    from phidias_lab.testing import questions

    assert passed == len(questions.QUESTIONS) + 2


def test_the_new_chain_has_a_page_in_the_documentation(installed, tmp_path):
    docs = PAGE.parents[1]
    code = "import pathlib, sys, generated; generated.write(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**installed, "PYTHONPATH": installed["PYTHONPATH"] + os.pathsep + str(docs)},
        check=True,
    )
    text = (tmp_path / "chains" / "toy.anomaly.md").read_text()
    assert "Least share of the times that must have a value" in text
    assert "[toy.anomaly](toy.anomaly.md)" in (tmp_path / "chains" / "index.md").read_text()
