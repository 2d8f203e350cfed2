"""The chains of the probe package."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

from phidias_lab import Chain, Input, Resources, Var, count, flag, number, text, variable
from phidias_lab.errors import OutsideError

_GRID = ("time", "latitude", "longitude")


def _note(folder: str, piece: int) -> None:
    """Leave one mark per computation of a piece, so that a test can count them."""
    if folder:
        handle = os.open(Path(folder) / f"piece-{piece}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(handle, b"x")
        os.close(handle)


def _noted(folder: str) -> int:
    """How many marks there are; pieces are computed in any order, so a gate goes by their number."""
    return sum(p.stat().st_size for p in Path(folder).glob("piece-*")) if folder else 0


def _cube(pieces: int, compute, cells: int = 4) -> xr.Dataset:
    """A synthetic cube with one lazy piece per time step."""
    parts = [da.from_delayed(dask.delayed(compute, pure=False)(i), (1, 2, cells), "float64") for i in range(pieces)]
    attributes = {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"}
    return xr.Dataset(
        {"value": (_GRID, da.concatenate(parts))},
        coords={
            "time": ("time", np.datetime64("2010-01-01", "ns") + np.arange(pieces) * np.timedelta64(1, "D")),
            "latitude": ("latitude", [40.0, 41.0], attributes),
            "longitude": (
                "longitude",
                -10.0 + 0.001 * np.arange(cells),
                {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"},
            ),
        },
    )


class Cube(Chain):
    """Multiply a synthetic field by a factor."""

    title = "Field times a factor"
    kind = "cube"
    scene = "phidias_probe.scenes:cube"
    inputs = {"field": Input("cube", doc="any field", dims=_GRID)}
    outputs = {
        "scaled": Var("{measured.units}", long_name="{measured} times the factor", dims=_GRID),
        "mean": Var("{measured.units}", long_name="mean of {measured} over the area", dims=("time",)),
    }
    resources = Resources(cores=2)

    factor = number(1.0, bounds=(-100, 100), doc="Factor the field is multiplied by")
    measured = variable("temperature", of="field", doc="Variable of the field that is multiplied")

    def run(self, field):
        scaled = field[self.measured] * self.factor
        return xr.Dataset({"scaled": scaled, "mean": scaled.mean(("latitude", "longitude"))})


class Table(Chain):
    """Add an offset to the temperature column of a table."""

    title = "Table plus an offset"
    kind = "table"
    scene = "phidias_probe.scenes:table"
    inputs = {"rows": Input("table", doc="observations", variables={"temperature": Var("degree_Celsius")})}
    outputs = {"shifted": Var("degree_Celsius", long_name="temperature plus the offset")}

    offset = number(0.0, bounds=(-100, 100), units="degree_Celsius", doc="Offset that is added")

    def run(self, rows):
        return rows.assign(shifted=rows["temperature"] + self.offset)


class Slow(Chain):
    """Sleep for each piece."""

    title = "Slow cube"
    outputs = {"value": Var("1", long_name="number of the piece", dims=_GRID)}
    pieces = count(4, bounds=(1, 100000), doc="Number of pieces", scale="log")
    seconds = number(0.2, bounds=(0, 60), units="s", doc="Seconds each piece takes")
    cells = count(4, bounds=(1, 10000000), doc="Cells along longitude", scale="log")
    marks = text("", doc="Folder in which each computed piece leaves a mark")
    gate = text("", doc="File that pieces wait for once `free` of them left their mark")
    free = count(2, bounds=(0, 1000), doc="Number of pieces that wait for no gate")

    def run(self):
        def compute(i):
            time.sleep(self.seconds)
            while self.gate and _noted(self.marks) >= self.free and not Path(self.gate).exists():
                time.sleep(0.02)
            _note(self.marks, i)
            return np.random.default_rng(i).normal(size=(1, 2, self.cells))

        return _cube(self.pieces, compute, self.cells)


class Crash(Chain):
    """Raise an error."""

    title = "Crashing cube"
    outputs = {"value": Var("1", long_name="nothing")}
    leave = flag(False, doc="Leave the interpreter instead of raising")

    def run(self):
        if self.leave:
            raise SystemExit("enough")
        raise ZeroDivisionError("the probe divides by zero")


class Killed(Chain):
    """Kill the own process at one piece, once."""

    title = "Killed cube"
    outputs = {"value": Var("1", long_name="a number", dims=_GRID)}
    pieces = count(6, bounds=(1, 100), doc="Number of pieces")
    at = count(3, bounds=(0, 100), doc="Pieces begun before the one at which the process is killed")
    marks = text("", doc="Folder in which each computed piece leaves a mark")

    def run(self):
        def compute(i):
            _note(self.marks, i)
            died = Path(self.marks) / "died"
            begun = len(list(Path(self.marks).glob("piece-*"))) if self.marks else 0
            if begun > self.at and not died.exists():
                died.touch()
                time.sleep(0.5)  # pieces run in any order and side by side: those before this one are stored by now
                os.kill(os.getpid(), signal.SIGKILL)
            return np.random.default_rng(i).normal(size=(1, 2, 4))

        return _cube(self.pieces, compute)


class Hungry(Chain):
    """Ask for more memory than there is."""

    title = "Hungry cube"
    outputs = {"value": Var("1", long_name="nothing")}

    def run(self):
        raise MemoryError("Unable to allocate 9 EiB")


class Random(Chain):
    """Seeded random numbers."""

    title = "Random cube"
    outputs = {"value": Var("1", long_name="a random number", dims=_GRID)}
    seed = count(0, bounds=(0, 2**31), doc="Seed of the random numbers")

    def run(self):
        return _cube(3, lambda i: np.random.default_rng([self.seed, i]).normal(size=(1, 2, 4)))


class Events(Chain):
    """Tell the rows of a table that are warm as events."""

    title = "Warm rows"
    kind = "table"
    scene = "phidias_probe.scenes:table"
    inputs = {
        "rows": Input("table", doc="observations", variables={"temperature": Var("degree_Celsius")}),
        "more": Input("table", doc="other observations", optional=True),
    }
    outputs = {"temperature": Var("degree_Celsius", long_name="temperature of the warm rows")}

    above = number(15.0, bounds=(-100, 100), units="degree_Celsius", doc="Temperature above which a row is warm")
    marks = text("", doc="Folder in which each run leaves a mark when its work ends")
    gate = text("", doc="File that the work waits for")
    fault = text("", doc="What goes wrong: raise, events, full, outside, warn, or nothing")

    def run(self, rows, more):
        rows = rows.compute() if hasattr(rows, "compute") else rows
        while self.gate and not Path(self.gate).exists():
            time.sleep(0.02)
        if self.fault == "raise":
            raise ZeroDivisionError("the probe divides by zero")
        if self.fault == "outside":
            raise OutsideError("The input 'rows' has no row in the region.")
        if self.fault == "full" and not (Path(self.marks) / "room").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        found = rows[rows["temperature"] > self.above].reset_index(drop=True)
        self.counted("rows", len(rows), {"cold": len(rows) - len(found)})
        if self.fault == "warn":
            self.warn(f"{len(found)} rows are warm.")
        found.attrs = rows.attrs
        if self.marks:
            named = os.getpid()
            (Path(self.marks) / f"run-{named}-{time.monotonic_ns()}").touch()
        return found

    def events(self, result):
        if self.fault == "events":
            raise ZeroDivisionError("the probe tells nonsense")
        return result[["time", "longitude", "latitude", "temperature"]].assign(kind="warmth", quality=0.5)
