"""What can go wrong from outside: each time a sentence that says what to do, an exit code, and nothing half-written.

All through the command line, as processes of their own, because that is where a traceback would be seen.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

QUICK = ["--depths", "0", "--period", "2012-01/2012-01", "--error", "none", "--region", "-20,40,-10,50"]


@pytest.fixture
def phidias(commands):
    """``phidias("run", "ocean.gridding", PHIDIAS_RUNS=folder)``: the finished process."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        variables = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", **environment}
        return commands.run(*words, environment=variables, folder=Path.cwd(), timeout=120)

    return run


def runs_folder() -> Path:
    return Path(os.environ["PHIDIAS_RUNS"])


def refused(done: subprocess.CompletedProcess, *said: str, code: int | None = None) -> None:
    """A sentence on stderr, an exit code, no traceback, no product and nothing that was being written."""
    assert done.returncode != 0, done.stdout
    if code is not None:
        assert done.returncode == code, done.stderr
    for part in said:
        assert part in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    left = [p for p in runs_folder().rglob("*") if p.name.startswith("product")] if runs_folder().exists() else []
    assert left == []


def refused_at_once(done: subprocess.CompletedProcess, *said: str, code: int | None = None) -> None:
    """As `refused`, and no run was recorded."""
    refused(done, *said, code=code)
    assert "failed:" not in done.stderr
    assert not runs_folder().exists()


def without_values(folder: Path) -> None:
    """Spoil all values of a lake but leave its metadata, coordinates and sizes as they are."""
    import pyarrow.parquet as pq

    for part in (p for p in folder.rglob("*.parquet") if p.is_file()):
        end = pq.ParquetFile(part).metadata.serialized_size + 8
        content = part.read_bytes()
        part.write_bytes(b"PAR1" + bytes(len(content) - end - 4) + content[-end:])
    for array in folder.glob("ocean/*.zarr/*/c"):
        if array.parent.name not in ("time", "depth", "latitude", "longitude"):
            for chunk in (p for p in array.rglob("*") if p.is_file()):
                chunk.write_bytes(bytes(chunk.stat().st_size))


@pytest.fixture
def own_lake(demo_lake, tmp_path, monkeypatch) -> Path:
    """A copy of the demo lake that a test may damage."""
    target = tmp_path / "own-lake"
    shutil.copytree(demo_lake, target)
    monkeypatch.setenv("PHIDIAS_LAKE", str(target))
    return target


def table(path: Path, **columns) -> Path:
    rng = np.random.default_rng(0)
    number = 50
    data = pd.DataFrame(
        {
            "longitude": rng.uniform(-20, -10, number),
            "latitude": rng.uniform(40, 50, number),
            "depth": 4.0,
            "time": pd.Timestamp("2012-01-15"),
            "temperature": rng.normal(12, 1, number),
        }
    ).assign(**columns)
    data = data[[c for c in data if c not in [k for k, v in columns.items() if v is None]]]
    data.to_csv(path, index=False)
    return path


def test_an_unknown_chain_is_answered_with_the_nearest_name(phidias):
    refused(phidias("run", "ocean.griding"), "ocean.griding", "Did you mean 'ocean.gridding'", code=2)


def test_an_unknown_parameter_is_answered_with_the_nearest_name(phidias):
    refused(phidias("run", "ocean.gridding", "--lenght", "5"), "--lenght", "--length", code=2)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--length", "-5", "1000 to 2e+06 m"),
        ("--length", "far", "'far'"),
        ("--noise", "nan", "finite number"),
        ("--noise", "inf", "finite number"),
        ("--windows", "weekly", "'monthly'"),
        ("--depths", "10,0", "rising order"),
        ("--period", "2012-02-01/2012-01-01", "the end 2012-01-01 lies before the start"),
        ("--period", "yesterday/today", "written like"),
        ("--region", "1,2,3", "west,south,east,north"),
        ("--region", "0,50,10,40", "south below north"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_would(phidias, demo_lake, option, value, expected):
    name = option.removeprefix("--")
    refused_at_once(phidias("run", "ocean.gridding", f"{option}={value}"), name, expected, code=2)


def test_a_period_without_data_says_so(phidias, demo_lake):
    done = phidias("run", "ocean.gridding", "--period", "1950-01-01/1950-12-31")
    refused_at_once(done, "No observation of 'temperature'", "Choose another period", code=3)


def test_a_region_outside_the_domain_says_where_the_domain_is(phidias, demo_lake):
    refused_at_once(
        phidias("run", "ocean.gridding", "--region", "100,10,110,20"), "which spans -30 to 2 degrees east", code=3
    )


def test_a_variable_that_is_not_there_is_answered_with_the_nearest_name(phidias, demo_lake):
    refused_at_once(phidias("run", "ocean.gridding", "--variable", "temprature"), "Did you mean 'temperature'", code=3)


def test_a_table_without_a_needed_column_names_it(phidias, demo_lake, tmp_path):
    path = table(tmp_path / "mine.csv", depth=None)
    refused_at_once(phidias("run", "ocean.gridding", "--input", f"observations={path}"), "no column 'depth'", code=3)


def test_a_table_with_text_where_numbers_belong_is_refused(phidias, demo_lake, tmp_path):
    path = table(tmp_path / "mine.csv", longitude="west")
    done = phidias("run", "ocean.gridding", "--input", f"observations={path}", *QUICK)
    refused_at_once(done, "'longitude'", "numbers in degrees_east are needed", code=3)


def test_units_that_cannot_be_converted_are_refused(phidias, demo_lake, tmp_path):
    from phidias_lab.lake import memory

    data = pd.read_csv(table(tmp_path / "mine.csv"), parse_dates=["time"])
    data.attrs["columns"] = {"depth": {"units": "kg"}}
    path = memory.store(data, tmp_path, "mine")
    done = phidias("run", "ocean.gridding", "--input", f"observations={path}", *QUICK)
    refused_at_once(done, "'depth'", "'kg'", "'m'", code=3)


def test_units_that_can_be_converted_are(phidias, demo_lake, tmp_path):
    from phidias_lab.lake import memory

    data = pd.read_csv(table(tmp_path / "mine.csv"), parse_dates=["time"])
    data = data.assign(depth=data["depth"] / 1000)
    data.attrs["columns"] = {"depth": {"units": "km"}}
    path = memory.store(data, tmp_path, "mine")
    done = phidias("run", "ocean.gridding", "--input", f"observations={path}", *QUICK)
    assert done.returncode == 0, done.stderr


def test_a_table_where_a_cube_belongs_is_refused(phidias, demo_lake):
    done = phidias("run", "ocean.gridding", "--input", "domain=ocean.observations")
    refused_at_once(done, "'domain'", "cube", code=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--period", "1950-01-01/1950-12-31"], "No observation of 'temperature'"),
        (["--input", "domain=ocean.baltic", "--region", "100,10,110,20"], "which spans"),
        (["--depths", "3"], "3 m, which is no level of the domain. Its levels are 0, "),
        (["--variable", "temprature"], "Did you mean 'temperature'"),
        (["--input", "domain=ocean.observations"], "must be a cube"),
    ],
)
def test_what_metadata_tell_is_refused_without_a_look_at_the_values(phidias, own_lake, words, said):
    without_values(own_lake)
    refused_at_once(phidias("run", "ocean.gridding", *words), said, code=3)


def test_observations_far_from_the_domain_are_refused_at_once(phidias, demo_lake, tmp_path):
    from phidias_lab.lake import memory

    for name, change in {"longitude": 90.0, "latitude": -80.0, "depth": 11000.0}.items():
        data = pd.read_csv(table(tmp_path / "mine.csv", **{name: change}), parse_dates=["time"])
        path = memory.store(data, tmp_path, f"far_{name}")
        done = phidias("run", "ocean.gridding", "--input", f"observations={path}")
        refused_at_once(done, "No observation of 'temperature'", code=3)


def test_a_csv_table_is_not_read_to_its_end_before_the_run_is_recorded(phidias, demo_lake, tmp_path):
    path = table(tmp_path / "mine.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines + lines[1:] * 40 + ["1,2,3,4,5,6,7,8,9"]))
    done = phidias("run", "ocean.gridding", "--input", f"observations={path}", *QUICK)
    refused(done, "cannot be read as CSV", code=3)
    assert len(list(runs_folder().iterdir())) == 1


def test_an_entry_whose_file_is_missing_says_how_to_get_it(phidias, tmp_path):
    done = phidias("run", "ocean.gridding", *QUICK, PHIDIAS_LAKE=str(tmp_path / "nowhere"))
    refused_at_once(done, "does not exist", "phidias lake build-demo", code=3)


def test_a_file_that_does_not_exist_is_refused_at_once(phidias, demo_lake):
    done = phidias("run", "ocean.gridding", "--input", "observations=/no/such/file.csv")
    refused_at_once(done, "/no/such/file.csv", "does not exist", code=3)
    assert not runs_folder().exists()


def test_a_truncated_table_is_refused(phidias, own_lake):
    parts = (own_lake / "ocean" / "observations.parquet").rglob("*.parquet")
    part = max(parts, key=lambda p: p.stat().st_size)
    part.write_bytes(part.read_bytes()[:-1000])
    refused_at_once(phidias("run", "ocean.gridding", *QUICK), part.name, "bytes instead of", code=3)


def test_a_changed_byte_in_a_cube_is_found(phidias, own_lake):
    chunks = [p for p in (own_lake / "ocean" / "north_east_atlantic.zarr" / "mask").rglob("*") if p.is_file()]
    chunk = max((p for p in chunks if p.name != "zarr.json"), key=lambda p: p.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(bytes(content))
    refused(phidias("run", "ocean.gridding", *QUICK), "damaged", code=3)


def test_a_lake_that_cannot_be_written_says_so(phidias, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = phidias("lake", "build-demo", PHIDIAS_LAKE=str(tmp_path / "file" / "lake"))
    refused(done, str(tmp_path / "file"), code=4)


def test_runs_that_cannot_be_written_say_so(phidias, demo_lake, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = phidias("run", "ocean.gridding", *QUICK, PHIDIAS_RUNS=str(tmp_path / "file" / "runs"))
    refused(done, "PHIDIAS_RUNS", code=4)


def test_a_full_disk_while_writing_is_said_and_leaves_no_half_product(phidias, demo_lake, small_disk, monkeypatch):
    monkeypatch.setenv("PHIDIAS_RUNS", str(small_disk / "runs"))
    (small_disk / "filling").write_bytes(b"\0" * 3672 * 1024)
    # Nine levels of the whole domain take about 0.7 MiB in finished pieces; that much is not left.
    done = phidias("run", "ocean.gridding", "--period", "2012-01/2012-01", "--error", "none", "--format", "zarr")
    refused(done, "cannot be written", "Free some space", code=4)
    listed = json.loads(phidias("runs", "list", "--json").stdout)
    assert [r["status"] for r in listed] == ["failed"]


def test_two_runs_never_write_the_same_product(phidias, demo_lake, tmp_path):
    target = tmp_path / "map.nc"
    slow = ["--period", "2012-01-01/2012-12-31", "--windows", "monthly", "--output", str(target)]
    command = [sys.executable, "-m", "phidias_lab", "run", "ocean.gridding", *slow]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".map.nc.claimed")) and time.monotonic() < end:
            time.sleep(0.05)
        done = phidias("run", "ocean.gridding", *QUICK, "--output", str(target))
        refused(done, "Another run", "map.nc", "choose another output path", code=4)
    finally:
        first.send_signal(2)
        first.wait(60)
    assert [p.name for p in tmp_path.iterdir() if "map.nc" in p.name] == []


def test_an_output_that_exists_is_not_replaced_unasked(phidias, demo_lake, tmp_path):
    target = tmp_path / "map.nc"
    target.write_text("mine")
    refused(phidias("run", "ocean.gridding", *QUICK, "--output", str(target)), "exists already", code=4)
    assert target.read_text() == "mine"
    done = phidias("run", "ocean.gridding", *QUICK, "--output", str(target), "--overwrite")
    assert done.returncode == 0, done.stderr
    assert target.read_bytes()[1:4] == b"HDF"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "JSON object"),
        ('{"chain": "ocean.gridding", "version": "0.1"}', "asks for version '0.1'"),
        ('{"chain": "ocean.gridding", "parameters": {"length": NaN}}', "NaN"),
        ('{"chain": "ocean.gridding", "parametres": {}}', "Did you mean 'parameters'"),
        ('{"chain": "ocean.gridding", "inputs": {"observation": "ocean.observations"}}', "Did you mean 'observations'"),
        ('{"phidias_order": 99, "chain": "ocean.gridding"}', "form 99"),
    ],
)
def test_an_order_file_that_is_no_good_says_why(phidias, tmp_path, content, said):
    path = tmp_path / "order.json"
    path.write_text(content)
    refused(phidias("run", "--order", str(path)), said, code=2)


def test_a_traceback_is_shown_only_on_request(phidias, demo_lake):
    done = phidias("--debug", "run", "ocean.griding")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "Did you mean 'ocean.gridding'" in done.stderr
