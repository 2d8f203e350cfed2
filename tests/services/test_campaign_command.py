"""`phidias campaign` as a user has it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from phidias_probe import scenes

PROBE = Path(__file__).parents[1] / "packages" / "probe"


@pytest.fixture
def folder(environment, tmp_path):
    environment["PYTHONPATH"] += os.pathsep + str(PROBE)
    place = tmp_path / "in"
    place.mkdir()
    scenes.rows().to_parquet(place / "a.parquet")
    return place


def test_it_is_told_before_what_will_be_done_and_after_what_was(command, folder, tmp_path):
    (folder / "b.parquet").write_text("no table")
    words = ("campaign", "in", "--chain=probe.events", "--pattern", "*.parquet", "--above", "16")
    dry = command(*words, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines()[1:] == [
        "Before   0 done, 0 skipped, 0 refused",
        dry.stdout.splitlines()[2],
        "Time     unknown until the first file is done",
    ]
    assert dry.stdout.startswith("Files    2, 4.")
    assert json.loads(command("runs", "list", "--json").stdout) == []
    done = command(*words, "--report", "report.md")
    assert done.returncode == 3, done.stderr
    assert "Files    2: 1 done, 1 refused\n" in done.stdout
    assert "Events   3: 3 warmth\n" in done.stdout
    assert "Report   report.md\n" in done.stdout
    assert f"Refused  {folder}/b.parquet cannot be read" in done.stdout
    assert f"refused  {folder}/b.parquet" in done.stderr
    assert "Time     unknown" in done.stderr
    assert (tmp_path / "report.md").read_text().startswith("# Campaign of probe.events 1.0\n")
    again = command(*words, "--json", "-q")
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["files"]["done"] == 1
    left = json.loads(command(*words, "--dry-run", "--json").stdout)
    assert (left["left"], left["done"], left["refused"]) == (0, 1, 1)
    assert json.loads(command(*words, "--dry-run", "--retry", "--json").stdout)["left"] == 1


def test_ctrl_c_stops_it_with_its_runs(start, folder, tmp_path, command):
    process = start("campaign", folder, "--chain", "probe.events", "--gate", tmp_path / "gate")
    end = time.monotonic() + 60
    while '"running"' not in command("runs", "list", "--json").stdout:
        assert time.monotonic() < end, "it did not begin"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    said = process.stderr.read()
    assert "Stopped with 0 of 1 files, 0 events. The same words go on with what is left.\n" in said
    assert said.endswith("Cancelled.\n")
    (run,) = json.loads(command("runs", "list", "--json").stdout)
    assert run["status"] == "cancelled"


def test_help_tells_the_parameters_of_the_chain(command, folder):
    assert "--chain CHAIN" in command("campaign", "--help").stdout
    shown = command("campaign", "--chain", "probe.events", "--help").stdout
    assert "phidias campaign FOLDER --chain probe.events [OPTIONS]" in shown
    assert "Temperature above which a row is warm" in shown
    assert "--dry-run" in shown


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("in",), 2, "Name the chain, as in 'phidias campaign FOLDER"),
        (("--chain", "probe.events"), 3, "Name the folder, as in 'phidias campaign"),
        (("nowhere", "--chain", "probe.events"), 3, "nowhere is no folder"),
        (("in", "--chain", "probe.event"), 2, "Did you mean 'probe.events'"),
        (("in", "--chain", "probe.events", "--abov", "1"), 2, "Did you mean '--above'"),
        (("in", "--chain", "probe.events", "--period", "soon"), 2, "Parameter 'time'"),
        (("in", "--chain", "probe.events", "--pattern", "*.nc"), 3, "There is no file called '*.nc'"),
        (("in", "--chain", "probe.events", "--period", "1999-01-01/1999-12-31"), 3, "they reach from 2010-01-01T00:00"),
        (("in", "--chain", "probe.events", "--workers", "0"), 2, "--workers"),
        (("in", "--chain", "probe.events", "--on", "moon"), 2, "no place 'moon'"),
        (("in", "--chain", "probe.events", "--report", "r.pdf"), 4, "Let its name end in .md or .json"),
        (("in", "--chain", "probe.events", "--report", "no/r.md"), 4, "Choose another place"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(command, folder, words, code, sentence):
    done = command("campaign", *words)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
