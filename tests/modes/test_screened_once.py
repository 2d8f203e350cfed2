"""Spectra are screened on the flow and on demand: killed and started again, each file once, its events in the table once."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

import phidias_lab
from phidias_lab import settings
from phidias_lab.chains.atmosphere import _scenes
from phidias_lab.chains.atmosphere.screening import Screening
from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis
from phidias_lab.compute import runs
from phidias_lab.lake import catalog
from phidias_lab.methods.formats import l1b
from phidias_lab.products.l1b import write
from phidias_lab.testing.scenes import spectra

#: A detector of a few rows, so that a basis is learnt in seconds.
DETECTOR = dataclasses.replace(spectra.TROPOMI_BAND_7, rows=8)
DAY = "2018-05-01"
LONG = 120


def put(folder, orbit: int, scanlines: int = 60, fire: bool = True):
    """A granule in the real layout, put there by a rename."""
    start = spectra.EPOCH + np.timedelta64(int(DETECTOR.period * orbit * 1e9), "ns")
    scene = spectra.Scene(DETECTOR, start, scanlines)
    if fire:
        event = spectra.Event("fire", "fire", *scene.place(30, 4), 6.0, length=100.0, width=25.0)
        scene = dataclasses.replace(scene, events=(event,))
    write(spectra.granule(scene), folder / f".{orbit}")
    path = folder / spectra.name(scene)
    os.replace(folder / f".{orbit}", path)
    return path


def put_sun(folder):
    start = spectra.EPOCH.astype("M8[s]")
    name = l1b.Name("TEST", "IR_SIR", start - np.timedelta64(1, "D"), start, 1, 1, "000000", start)
    write(spectra.irradiance(spectra.Scene(DETECTOR, spectra.EPOCH, 1)), folder / str(name))


@pytest.fixture
def files(tmp_path):
    """A folder with two granules and the light of the sun, and a basis that was learnt from two others."""
    for name in ("learn", "in"):
        (tmp_path / name).mkdir()
        put_sun(tmp_path / name)
    for orbit in (1, 2):
        put(tmp_path / "learn", orbit, 200, fire=False)
        put(tmp_path / "in", orbit + 2)
    cube = catalog.open_file(tmp_path / "learn")[0]
    chain = ScreeningBasis(**{**_scenes.PARAMETERS, "learning_size": 1200})
    chain(spectra=cube).to_netcdf(tmp_path / "basis.nc")
    return tmp_path


def kinds_in(path, basis) -> Counter:
    """What the chain finds when it is called by hand."""
    chain = Screening()
    result = chain(spectra=catalog.open_file(path)[0], basis=catalog.open_file(basis)[0])
    return Counter(chain.events(result)["kind"])


def kinds_of(path) -> Counter:
    table = phidias_lab.events(chain="atmosphere.screening")
    return Counter(table["kind"][table["source"] == path.name])


def until(condition, seconds=LONG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def phidias(*words):
    words = [sys.executable, "-m", "phidias_lab", *map(str, words)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def entries() -> list[dict]:
    return [json.loads(path.read_text()) for path in settings.runs_root().glob(".watch/*/entries/*.json")]


def running() -> list:
    return [run for run in phidias_lab.runs() if run.status == runs.RUNNING]


def test_files_are_screened_once_on_demand_and_as_they_arrive_whatever_is_killed(files):
    folder, basis = files / "in", files / "basis.nc"
    there = sorted(folder.glob("*_RA_*"))
    expected = {path: kinds_in(path, basis) for path in there}
    assert all(found["CO"] for found in expected.values())
    words = ("--chain", "atmosphere.screening", "--input", f"basis={basis}")

    first = phidias("campaign", folder, *words, "--period", f"{DAY}/{DAY}")
    until(running)
    kill(first)
    os.kill(running()[0].record["worker"]["pid"], signal.SIGKILL)
    how = {"inputs": {"basis": basis}, "period": f"{DAY}/{DAY}"}
    campaign = phidias_lab.campaign(folder, "atmosphere.screening", **how).wait(LONG)
    assert list(campaign.table()["state"]) == ["done", "done"]  # the light of the sun is no file of its own
    assert sorted(campaign.table()["run"]) == sorted(run.id for run in phidias_lab.runs())
    assert {path: kinds_of(path) for path in there} == expected
    report = campaign.report()
    assert report["synthetic"]
    assert Counter(report["events"]) == sum(expected.values(), Counter())
    assert report["counts"]["spectra"]["total"] == 2 * 60 * DETECTOR.rows
    kept = report["counts"]["spectra that are kept"]
    assert 0 < kept["used"] < 0.1 * kept["total"]
    how["parameters"] = {"region": [-1, -85, 1, -84]}
    nowhere = phidias_lab.campaign(folder, "atmosphere.screening", **how).wait(LONG)
    assert list(nowhere.table()["state"]) == ["skipped", "skipped"]
    assert len(phidias_lab.runs()) == 2  # which is seen before a run begins

    watching = phidias("watch", folder, *words)
    until(lambda: len(list(settings.runs_root().glob(".watch/*/owners/*"))) == 1)
    arrived = time.monotonic()
    late = put(folder, 5)
    until(running)
    kill(watching)
    watching = phidias("watch", folder, *words, "--once")
    until(lambda: kinds_of(late))
    assert time.monotonic() - arrived < 60
    assert watching.wait(LONG) == 0
    assert kinds_of(late) == kinds_in(late, basis)
    assert len(phidias_lab.runs()) == len({entry["run"] for entry in entries() if "run" in entry}) == 3
    assert {path: kinds_of(path) for path in there} == expected
