"""The command line as a user has it: a process of its own, a home of its own, and a third party's package installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

TOY = '''
"""A third party's chain without inputs: a sine, in pieces that take as long as one asks."""

import time

import phidias_lab
from phidias_lab import Chain, Resources, Var, choice, count, number, text
from phidias_lab.errors import InputError


class Waves(Chain):
    """A sine along x, made piece by piece."""

    title = "Toy waves"
    version = "2.0"
    outputs = {"height": Var(units="m", long_name="height of the surface", dims=("x",))}
    resources = Resources(cores=1, memory="1GiB")

    amplitude = number(2.0, bounds=(0.5, 40.0), units="m", doc="Height of a crest above the mean")
    pieces = count(2, bounds=(1, 200), doc="Into how many pieces the work is cut")
    shape = choice("sine", ["sine", "square"], doc="Form of the wave")
    wait = number(0.0, bounds=(0.0, 60.0), units="s", doc="How long each piece takes", level="expert")
    fail = choice("no", ["no", "defect", "input"], doc="Whether and how the chain fails", level="expert")
    title_text = text("", doc="A remark")
    title_ = text("", doc="Another remark")

    def run(self):
        import dask.array as da
        import numpy as np
        import xarray as xr

        if self.fail == "input":
            raise InputError("The wind has no sails. Give it some.")
        if self.fail == "defect":
            raise RuntimeError("the toy was told to fail")
        amplitude, wait, square = self.amplitude, self.wait, self.shape == "square"

        def piece(block_info=None):
            start, stop = block_info[None]["array-location"][0]
            time.sleep(wait)
            wave = np.sin(2 * np.pi * np.arange(start, stop) / 16)
            return amplitude * (np.sign(wave) if square else wave)

        height = da.map_blocks(piece, chunks=((8,) * self.pieces,), dtype="float64")
        return xr.Dataset({"height": ("x", height)}, coords={"x": np.arange(8.0 * self.pieces)})


class Talking(Chain):
    """A chain that says what it left out."""

    title = "Toy talk"
    outputs = {"height": Var(units="m")}

    def run(self):
        import numpy as np
        import xarray as xr

        self.counted("crests", 8, {"too low": 2, "broken": 1, "lost": 0})
        self.warn("The sea is calm.")
        return xr.Dataset({"height": ("x", np.zeros(3))})


class Odd(Chain):
    """A chain with a defect of its own."""

    outputs = {"height": Var(units="m")}

    @classmethod
    def describe(cls):
        return 1 / 0
'''

ENTRY_POINTS = """
[phidias_lab.chains]
toy.waves = toy_waves:Waves
toy.odd = toy_waves:Odd
toy.talking = toy_waves:Talking
toy.broken = toy_broken:Nothing
"""


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder that holds an installed package 'toy-waves' with one chain that works and one that cannot be imported."""
    site = tmp_path_factory.mktemp("site")
    (site / "toy_waves.py").write_text(textwrap.dedent(TOY))
    (site / "toy_broken.py").write_text("import a_module_that_nobody_has\n")
    metadata = site / "toy_waves-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-waves\nVersion: 2.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture
def environment(tmp_path, toy):
    """Environment variables of a user who has just installed the lab."""
    return variables(tmp_path, toy)


def variables(folder, toy):
    home = folder / "home"
    home.mkdir()
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PHIDIAS_", "JUPYTER", "XDG_", "COLUMNS"))}
    return {
        **kept,
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(toy)]),
        "PHIDIAS_RUNS": str(folder / "runs"),
        "PHIDIAS_LAKE": str(folder / "lake"),
        "COLUMNS": "200",
    }


@pytest.fixture
def inside(environment, toy, tmp_path, monkeypatch):
    """This process as the user's: commands may be called as functions."""
    for name in ("HOME", "PHIDIAS_RUNS", "PHIDIAS_LAKE"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.syspath_prepend(toy)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(commands, environment, tmp_path):
    """``command("run", "toy.waves")`` runs phidias to its end."""

    def run(*words, timeout=60, **more):
        return commands.run(*words, environment={**environment, **more}, folder=tmp_path, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def run_once(tmp_path_factory, toy):
    """A runs folder that holds one run that is done, and what `phidias run --json` said of it."""
    folder = tmp_path_factory.mktemp("once")
    done = subprocess.run(
        [sys.executable, "-m", "phidias_lab", "run", "toy.waves", "--json", "--title", "A [first] run"],
        capture_output=True,
        text=True,
        env=variables(folder, toy),
        check=True,
    )
    return folder / "runs", json.loads(done.stdout)


@pytest.fixture
def run(run_once, environment):
    """A run that is done, in this test's own runs folder."""
    runs, facts = run_once
    shutil.copytree(runs, environment["PHIDIAS_RUNS"])
    moved = {name: facts[name].replace(str(runs), environment["PHIDIAS_RUNS"]) for name in ("folder", "product")}
    return {**facts, **moved}


@pytest.fixture
def start(environment, tmp_path):
    """``start("lab")`` begins a phidias process; it is gone, with its children, when the test ends."""
    import psutil

    begun = []

    def begin(*words, **more):
        process = subprocess.Popen(
            [sys.executable, "-m", "phidias_lab", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **more},
            cwd=tmp_path,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in children:
                child.kill()
        process.stdout.close()
        process.stderr.close()
