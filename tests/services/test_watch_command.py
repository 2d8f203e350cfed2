"""`phidias watch` and `phidias events` as a user has them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pystac
import pytest
from phidias_probe import scenes

PROBE = Path(__file__).parents[1] / "packages" / "probe"


@pytest.fixture
def folder(environment, tmp_path):
    environment["PYTHONPATH"] += os.pathsep + str(PROBE)
    place = tmp_path / "in"
    place.mkdir()
    return place


def arrive(folder, name):
    scenes.rows().to_parquet(folder / f".{name}")
    os.replace(folder / f".{name}", folder / name)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_an_alert_is_out_within_a_minute_of_a_files_arrival_and_a_signal_ends_the_watch(
    start, folder, tmp_path, command
):
    (tmp_path / "hooks.yaml").write_text(
        f"cap: {{folder: {tmp_path}/alerts, sender: lab@example.org}}\n"
        "webhook: {url: 'http://127.0.0.1:1/', secret: {environment: HOOK_SECRET}}\n"
    )
    words = ("--chain", "probe.events", "--above", "16", "--hooks", tmp_path / "hooks.yaml")
    process = start("watch", folder, *words, HOOK_SECRET="s3cret")
    said = []
    listener = threading.Thread(target=lambda: said.extend(iter(process.stderr.readline, "")))
    listener.start()
    until(lambda: any(line.startswith(f"Watching {folder} with probe.events") for line in said))
    arrive(folder, "a.parquet")
    arrived = time.monotonic()
    until(lambda: len(list(tmp_path.glob("alerts/*.xml"))) == 3)
    assert time.monotonic() - arrived < 60
    # The webhook fails meanwhile, which is said and stops nothing.
    until(lambda: any("The hook webhook failed at the event" in line for line in said))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    listener.join()
    assert said[-1] == "Stopped by SIGTERM.\n"
    assert "s3cret" not in "".join(said)
    out = process.stdout.read()
    assert out.startswith(f"done     {folder}/a.parquet  3 events  ")

    table = command("events", "--kind", "warmth")
    assert table.stdout.count("a.parquet") == 3
    ids = [path.stem for path in tmp_path.glob("alerts/*.xml")]
    assert all(name in table.stdout for name in ids)
    assert command("events", "--region=0,0,1,1").stdout.startswith("There is no such event.")
    done = command("events", "--period", "2010-01-01T18:00/2010-01-02", "--output", "e.geojson")
    assert done.stdout == "Wrote 2 events into e.geojson\n"
    features = json.loads((tmp_path / "e.geojson").read_text())["features"]
    for feature in features:
        pystac.Item.from_dict(feature).validate()
    assert len(json.loads(command("events", "--json").stdout)["features"]) == 3
    assert command("events", "--output", "e.parquet").returncode == 0
    assert b"geo" in pq.read_schema(tmp_path / "e.parquet").metadata
    assert command("events", "--output", "e.csv").returncode == 0
    assert (tmp_path / "e.csv").read_text().count("POINT (") == 3

    for words, sentence in (
        (("--output", "e.csv"), "exists already"),
        (("--output", "e.xls"), "not written as 'e.xls'"),
        (("--output", "no/e.csv"), "does not exist. Make it"),
        (("--region", "0,10,1,-10"), "south below north"),
        (("--period", "soon"), "Parameter 'time'"),
    ):
        refused = command("events", *words)
        assert refused.returncode in (2, 4)
        assert sentence in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert (tmp_path / "e.csv").read_text().count("POINT (") == 3
    assert not list(tmp_path.glob(".e.*"))


def test_once_does_what_is_there_and_tells_scripts_of_what_was_refused(command, folder):
    (folder / "a.parquet").write_text("no table")
    (folder / "b.txt").write_text("another matter")
    with open(os.fsencode(folder) + b"/\xff.parquet", "w") as file:
        file.write("a name that is no text")
    done = command(
        "watch", folder, "--chain=probe.events", "--once", "--settle", "0.1", "--pattern", "*.parquet", "--json"
    )
    assert done.returncode == 3, done.stderr
    told = sorted(map(json.loads, done.stdout.splitlines()), key=lambda one: one["file"])
    assert [one["state"] for one in told] == ["refused"] * 2
    assert told[0]["file"] == f"{folder}/a.parquet"
    assert "Done: 0 files, 0 events, 2 files refused." in done.stderr
    again = command(
        "watch", folder, "--chain=probe.events", "--once", "--settle", "0.1", "--pattern", "*.parquet", "-q"
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_help_tells_the_parameters_of_the_chain(command, folder):
    assert "--chain CHAIN" in command("watch", "--help").stdout
    shown = command("watch", "--chain", "probe.events", "--help").stdout
    assert "FOLDER --chain probe.events [OPTIONS]" in shown
    assert "Temperature above which a row is warm" in shown
    assert "--keep-runs N" in shown


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "Name the chain"),
        (("in",), 2, "Name the chain"),
        (("--chain", "probe.events"), 3, "Name the folder"),
        (("nowhere", "--chain", "probe.events"), 3, "nowhere is no folder"),
        (("in", "--chain", "probe.event"), 2, "Did you mean 'probe.events'"),
        (("in", "--chain", "probe.events", "--above", "hot"), 2, "above"),
        (("in", "--chain", "probe.events", "--abov", "1"), 2, "Did you mean '--above'"),
        (("in", "--chain", "probe.events", "--files-are", "row"), 2, "Did you mean 'rows'"),
        (("in", "--chain", "probe.events", "--at-once", "0"), 2, "--at-once"),
        (("in", "--chain", "probe.events", "--hooks", "no.yaml"), 2, "The hooks file no.yaml cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(command, folder, words, code, sentence):
    done = command("watch", *words)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
