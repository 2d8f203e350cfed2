"""A gridding in tiles beside one in one piece: time, peak memory and difference; and one that does not fit at all.

    python benchmarks/ocean_tiles.py 600x600 1200x1200 --memory 4

Each runs alone in a process that may map so many GiB (RLIMIT_AS, what `ulimit -v` sets). In one piece the larger grid ends
there; in tiles, which the chain chooses by itself from the memory that is left, it does not. Synthetic observations, one for
every 200 nodes, correlation length of ten nodes, field and exact error. A table is printed and a JSON file is written to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import _alone
import numpy as np
import pandas as pd
import xarray as xr

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STEP = 0.02
"""Degrees between nodes; the latitudes end at the equator."""
LENGTH = 22e3


def problem(shape: tuple[int, int]) -> tuple[pd.DataFrame, xr.Dataset]:
    """A synthetic sea with a coast and an island, and observations of a smooth field."""
    rows, columns = shape
    latitude, longitude = STEP * (np.arange(rows) - rows), STEP * np.arange(columns)
    mask = np.ones((1, rows, columns), np.int8)
    mask[:, : rows // 8, : columns // 3] = 0
    mask[:, rows // 2 : rows // 2 + rows // 10, columns // 2 : columns // 2 + columns // 20] = 0
    coords = {"depth": [0.0], "latitude": latitude, "longitude": longitude}
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "longitude": rng.uniform(longitude[0], longitude[-1], rows * columns // 200),
            "latitude": rng.uniform(latitude[0], latitude[-1], rows * columns // 200),
            "depth": 0.0,
            "time": pd.Timestamp("2010-01-15"),
        }
    )
    table["temperature"] = (
        15 + np.sin(2 * table["longitude"]) * np.cos(table["latitude"]) + 0.2 * rng.standard_normal(len(table))
    )
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    return table, xr.Dataset({"mask": (("depth", "latitude", "longitude"), mask)}, coords)


def measure(shape: tuple[int, int], way: str, memory: float | None, folder: Path) -> dict:
    """One gridding in this process, its pieces written to a folder as a run's are."""
    from phidias_lab.chains.ocean.gridding import Gridding
    from phidias_lab.compute import pieces
    from phidias_lab.methods.variational import solvers

    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    table, domain = problem(shape)
    inputs = {"observations": table, "domain": domain}
    whole = solvers.memory("multifrontal", [n + 2 for n in shape])
    answer = {"grid": list(shape), "way": way, "whole_gib": whole / 2**30, "free_gib": solvers.free_memory() / 2**30}
    tile = {"one": max(shape) + 2, "tiles": 0, "cut": math.ceil(max(shape) / 3)}[way]
    start = time.perf_counter()
    try:
        chain = Gridding(length=LENGTH, noise=0.2, tile=tile).resolved(inputs)
        said: list[str] = []
        chain.report = lambda _, message="": said.append(message)
        chain.keep = lambda name, cube: pieces.finish(cube, folder / name, lambda *_: None, 2)[0]
        result, _ = pieces.finish(chain.run(**inputs), folder / "result", lambda *_: None, 2)
        answer |= {"said": said[0], "agreed": next((line for line in said if "agree" in line), "")}
        answer["checks"] = {
            name: float(np.nansum(result[name].astype("f8").values)) for name in ("analysis", "analysis_error")
        }
        np.save(folder / "analysis.npy", result["analysis"].values)
        np.save(folder / "error.npy", result["analysis_error"].values)
    except MemoryError:
        answer["ended"] = "out of memory"
    answer["seconds"] = time.perf_counter() - start
    answer["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return answer


def in_own_process(shape: tuple[int, int], way: str, memory: float | None, folder: Path) -> dict:
    folder.mkdir()
    given = ["x".join(map(str, shape)), "--job", way, "--folder", folder]
    given += [] if memory is None else ["--memory", memory]
    # Two tiles are solved at a time, one on each core.
    return _alone.in_own_process(__file__, *given, OPENBLAS_NUM_THREADS="1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "grids", nargs="*", type=lambda text: tuple(map(int, text.split("x"))), default=[(600, 600), (1200, 1200)]
    )
    parser.add_argument("--memory", type=float, default=None, help="GiB that the last grid may take; default 4")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--job", choices=["one", "tiles", "cut"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(options.grids[0], options.job, options.memory, options.folder)))
        return
    *small, large = options.grids
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in small:
            here = [Path(folder, f"{'x'.join(map(str, shape))}-{way}") for way in ("one", "cut")]
            one, cut = (in_own_process(shape, way, None, path) for way, path in zip(("one", "cut"), here, strict=True))
            for name in ("analysis", "error"):
                first, second = (np.load(path / f"{name}.npy") for path in here)
                cut[f"{name}_difference"] = float(
                    np.nanmax(np.abs(first - second)) / np.nanstd(np.load(here[0] / "analysis.npy"))
                )
            cut["times_the_time"] = cut["seconds"] / one["seconds"]
            runs += [one, cut]
        runs += [
            in_own_process(large, way, options.memory or 4.0, Path(folder, f"large-{way}")) for way in ("one", "tiles")
        ]
    print(f"{'grid':>12} {'way':>6} {'seconds':>8} {'peak GiB':>9} {'whole GiB':>10} {'difference':>11} {'error':>8}")
    for run in runs:
        apart = [run.get(f"{name}_difference", math.nan) for name in ("analysis", "error")]
        print(
            f"{'x'.join(map(str, run['grid'])):>12} {run['way']:>6} {run['seconds']:8.1f} {run['peak_gib']:9.2f} "
            f"{run['whole_gib']:10.2f} {apart[0]:11.1e} {apart[1]:8.1e} {run.get('ended', run.get('agreed', ''))}"
        )
        if "tiles" in run.get("said", ""):
            print(" " * 13 + run["said"])
    options.results.mkdir(parents=True, exist_ok=True)
    report = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), "runs": runs}
    (options.results / "ocean_tiles.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
