"""`phidias runs`, `rerun` and `export` on runs that really ran."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.runs import age


def test_runs_are_listed_and_shown_with_order_and_measures(run, command):
    listed = command("runs")
    assert run["run"] in listed.stdout
    assert "A [first] run" in listed.stdout
    shown = command("runs", "show", run["run"][-6:])
    for word in (run["run"], "toy.waves 2.0", "done", "amplitude = 2.0", run["checksums"]["height"][:12]):
        assert word in shown.stdout
    assert json.loads(command("runs", "list", "--json", "--state", "failed").stdout) == []
    assert json.loads(command("runs", "list", "--json", "--chain", "toy.waves").stdout)[0]["id"] == run["run"]


def test_a_cancelled_run_is_resumed_to_its_end(start, command):
    begun = json.loads(command("run", "toy.waves", "--detach", "--json", "--pieces", "40", "--wait", "0.2").stdout)
    assert "is cancelled" in command("runs", "cancel", begun["run"]).stdout
    refused = command("runs", "cancel", begun["run"])
    assert refused.returncode == 2
    assert "nothing to cancel" in refused.stderr
    command("runs", "resume", "last", "--detach")
    assert json.loads(command("runs", "show", "last", "--json").stdout)["status"] in ("waiting", "running")
    assert command("runs", "cancel", "last").returncode == 0


def test_removing_and_pruning_tell_the_space_they_free(run, command):
    command("run", "toy.waves", "--fail", "defect", "--quiet")
    dry = command("runs", "prune", "--dry-run")
    assert "Removing 1 run would free" in dry.stdout
    unasked = command("runs", "prune")
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    pruned = command("runs", "prune", "--yes")
    assert "Removed 1 run: " in pruned.stdout
    assert [r["id"] for r in json.loads(command("runs", "list", "--json").stdout)] == [run["run"]]
    assert "nothing is removed" in command("runs", "prune", "--keep", "1", "--yes").stdout
    assert "freed" in command("runs", "remove", run["run"]).stdout
    assert not Path(run["folder"]).exists()


@pytest.mark.parametrize(("text", "hours"), [("30d", 720), ("12h", 12), ("2w", 336), ("60m", 1)])
def test_an_age_is_written_with_its_unit(text, hours):
    assert age(text).total_seconds() == hours * 3600


@pytest.mark.parametrize("text", ["30", "d", "-3d", "1.5h", "3 years"])
def test_an_age_without_a_known_unit_is_refused(text):
    with pytest.raises(ParameterError, match="as in 30d"):
        age(text)


def test_a_product_run_again_is_identical(run, command):
    done = command("rerun", run["run"])
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout
    said = json.loads(command("rerun", Path(run["folder"]) / "product", "--json", "--quiet").stdout)
    assert said["identical"] is True
    assert said["run"] != run["run"]


def test_a_product_copied_elsewhere_runs_again_from_itself(run, command, tmp_path):
    shutil.copytree(Path(run["folder"]) / "product", tmp_path / "given")
    shutil.copy(run["product"], tmp_path / "alone.nc")
    shutil.rmtree(run["folder"])
    for place in ("given", "alone.nc"):
        done = command("rerun", tmp_path / place)
        assert done.returncode == 0, done.stderr
        assert "identical" in done.stdout


def test_a_product_run_again_with_another_parameter_differs_and_says_how_much(run, command):
    done = command("rerun", run["run"], "--amplitude", "3")
    assert done.returncode == 7
    assert "height: largest difference 0.5 of its largest magnitude" in done.stdout
    assert "x: identical" in done.stdout


def test_a_last_bit_that_differs_is_the_same_numbers(run, command):
    done = command("rerun", run["run"], "--amplitude", "2.00000000000001", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["identical"] is False
    assert said["same_numbers"] is True
    assert 0 < said["differences"]["height"] < 1e-13


def test_a_run_is_exported_as_a_script_that_does_the_same_and_as_a_notebook(run, command, environment, tmp_path):
    script = tmp_path / "exported.py"
    assert command("export", run["run"], "--as", "script", "--output", script).returncode == 0
    done = subprocess.run([sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(command("runs", "show", "last", "--json").stdout)
    assert said["id"] != run["run"]
    assert said["checksums"] == run["checksums"]
    assert json.loads(command("export", "last", "--as", "notebook").stdout)["nbformat"] == 4
    for empty in ("", " "):
        nothing = command("export", "last", "--as", "script", "--output", empty)
        assert nothing.returncode == 2
        assert "--output was given an empty text" in nothing.stderr
    for words, said in (
        (["script", "--attribute", "license=CC0", "--output", tmp_path / "b.py"], "a script has none"),
        (["seadatanet", "--attribute", "license=", "--output", tmp_path / "b.nc"], "as in license=CC-BY-4.0"),
        (["seadatanet", "--output", tmp_path / "b.nc"], "Give a run of ocean.gridding"),
        (["seadatanet"], "Add --output FILE"),
        (["l1b"], "Add --output FOLDER"),
        (["l1b", "--output", tmp_path / "b.d"], "This product holds no selected spectra"),
        (["seadata"], "Did you mean 'seadatanet'"),
    ):
        refused = command("export", "last", "--as", *words)
        assert refused.returncode in (2, 3)
        assert said in refused.stderr
    assert not list(tmp_path.glob("b.*"))
    again = command("export", "last", "--as", "script", "--output", script)
    assert again.returncode == 4
    assert "--overwrite" in again.stderr


def test_a_gridded_field_is_exported_for_a_data_centre(command, tmp_path):
    places = {"longitude": [1.0, 2.0, 2.5], "latitude": [41.0, 42.0, 41.5], "depth": 0.0}
    table = pd.DataFrame({**places, "time": pd.Timestamp("2010-01-10"), "temperature": [10.0, 11.0, 12.0]})
    table.to_csv(tmp_path / "table.csv", index=False)
    grid = {"depth": [0.0], "latitude": [40.0, 41.0, 42.0, 43.0], "longitude": [0.0, 1.0, 2.0, 3.0]}
    mask = xr.DataArray(np.ones((1, 4, 4), np.int8), grid, tuple(grid))
    xr.Dataset({"mask": mask}).to_netcdf(tmp_path / "domain.nc")
    inputs = [w for n in ("observations=table.csv", "domain=domain.nc") for w in ("--input", n)]
    done = command("run", "ocean.gridding", *inputs, "--quiet")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "field.nc"
    done = command(
        "export", "last", "--as", "seadatanet", "--output", file, "--attribute", "institution=A centre = ours"
    )
    assert (done.returncode, done.stdout) == (0, f"Wrote {file}\n")
    assert "without the observations" not in done.stderr
    with xr.open_dataset(file) as field:
        assert field.attrs["institution"] == "A centre = ours"
        assert sorted(field["obslon"].values.tolist()) == [1.0, 2.0, 2.5]
    (tmp_path / "table.csv").unlink()
    done = command("export", "last", "--as", "seadatanet", "--output", file, "--overwrite")
    assert done.returncode == 0
    assert "The file is without the observations" in done.stderr


def test_an_exported_notebook_makes_the_same_product(run, command, environment, tmp_path, monkeypatch):
    file = tmp_path / "exported.ipynb"
    assert command("export", run["run"], "--as", "notebook", "--output", file).returncode == 0
    for name in ("HOME", "PYTHONPATH", "PHIDIAS_RUNS", "PHIDIAS_LAKE"):
        monkeypatch.setenv(name, environment[name])
    notebook = nbformat.read(file, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = json.loads(command("runs", "show", "last", "--json").stdout)
    assert (said["status"], said["id"] != run["run"]) == ("done", True)
    assert said["checksums"] == run["checksums"]
    shown = notebook.cells[-1].outputs[0]["data"]["text/plain"]
    assert all(checksum in shown for checksum in run["checksums"].values())


def test_last_is_the_newest_run_that_is_done_where_a_product_is_meant(run, command):
    assert command("run", "toy.waves", "--fail", "defect", "--quiet").returncode == 5
    failed = json.loads(command("runs", "show", "last", "--json").stdout)
    assert failed["status"] == "failed"
    shown = command("runs", "show", "last")
    assert f"The last run is {failed['id']}." in shown.stderr
    assert "Toy waves, fail" not in shown.stdout
    again = command("rerun", "last")
    assert again.returncode == 0, again.stderr
    assert f"The last run that is done is {run['run']}; the newest, {failed['id']}, is failed." in again.stderr
    script = command("export", "last", "--as", "script")
    assert script.returncode == 0
    assert "The last run that is done is " in script.stderr
    assert "defect" not in script.stdout
    wrong = command("runs", "show", "lsat")
    assert wrong.returncode == 2
    assert "Did you mean 'last'" in wrong.stderr


def test_runs_without_a_title_are_listed_with_one_that_tells_them_apart(command):
    assert command("run", "toy.waves", "--amplitude", "3", "--quiet").returncode == 0
    assert "Toy waves, amplitude 3.0" in command("runs").stdout
