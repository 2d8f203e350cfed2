"""The iterative solver of ocean.gridding on the processor and on a GPU, beside a direct solver, in one run on one machine.

    python benchmarks/gpu.py                          # the sizes below, some minutes
    python benchmarks/gpu.py 300x300 --direct 1000    # the direct solver only up to 1000 nodes

It needs numpy, scipy, threadpoolctl and packaging; for a GPU cupy or torch, with array-api-compat.  What is missing is left
out with a sentence.  All programs solve the same system; its assembly is in no time.  "setup" is the factorisation, or the
coarser systems (made on the processor) with their way to the device; "solve" is the fastest of some solutions, from a
right-hand side on the processor to a field there.  "faster" compares both with numpy, "in solve" the solution alone; splu
solves fast once its factor is there.  "limit" is the share of the device's memory rate that a solve reaches: the bytes that
its steps move by the seconds, over the rate of a plain copy on the same device; small grids stay in the cache of a
processor, which is faster.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib import util
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from ocean_gridding import RESULTS, shape_of, synthetic_problem  # noqa: E402

from phidias_lab.errors import PhidiasError  # noqa: E402
from phidias_lab.methods import arrays  # noqa: E402
from phidias_lab.methods.variational import grid, norm, observation, solvers  # noqa: E402
from phidias_lab.methods.variational.iterative import Iterative  # noqa: E402

SIZES = [(300, 300), (500, 500), (1000, 1000), (30, 30, 15), (60, 60, 20)]
#: Up to so many nodes the direct solver is run too: in the plane, and in space, where its factor fills up.
DIRECT = {2: 300_000, 3: 20_000}
#: Columns of the inverse solved together, as for the error variance.
COLUMNS = 16


def system_of(shape: tuple[int, ...]):
    """The matrix, the right-hand side and the grid of a synthetic problem."""
    problem = synthetic_problem(shape)
    sea = grid.build(problem["mask"], problem["metrics"], problem["length"], ())
    lines = observation.grid_lines(problem["coords"], sea)
    interpolation, used = observation.operator(sea, lines, problem["obs_coords"], {}, renormalise=True)
    weighted = interpolation[used].T / problem["noise"]
    matrix = norm.precision(sea, norm.coefficients(None, len(shape))) + weighted @ interpolation[used]
    return matrix.tocsr(), weighted @ problem["values"][used], sea


def places() -> list[arrays.Place]:
    """The processor with numpy, and the GPU with each library that can use it; the reason is printed where none can."""
    found = [arrays.on("cpu")]
    if not arrays.visible_gpus():
        return found
    if util.find_spec("array_api_compat") is None:
        print(
            "array-api-compat is missing here, so cupy and torch are left out. To carry it: where packages can be had,\n"
            "    python3 -m pip download --no-deps -d wheels array-api-compat\n"
            "and here  python3 -m pip install --no-index --no-deps --target site wheels/*.whl  with PYTHONPATH=site."
        )
        return found
    for library in arrays.ON_GPU:
        try:
            found.append(arrays.on("cuda", library))
        except PhidiasError as error:
            print(f"{library}: {error}")
    return found


def copy_rate(place: arrays.Place, size: int = 2**25, repeats: int = 5) -> float:
    """Bytes per second that a plain copy reads and writes on a device, the best of some."""
    with place.active():
        source = place.put(np.ones(size))
        best = math.inf
        for _ in range(repeats + 1):
            place.wait()
            start = time.perf_counter()
            copied = place.xp.asarray(source, copy=True)
            place.wait()
            best = min(best, time.perf_counter() - start)
            del copied
    return 16 * size / best


def timed(act, repeats: int):
    """What an act gives, and the seconds of its fastest repetition; the first one, which loads kernels, does not count."""
    if repeats > 1:
        act()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = act()
        best = min(best, time.perf_counter() - start)
    return result, best


def direct(matrix, right: np.ndarray) -> tuple[dict, np.ndarray]:
    start = time.perf_counter()
    factor = solvers.SuperLU(matrix)
    setup = time.perf_counter() - start
    field, seconds = timed(lambda: factor.solve(right), 1)
    return {"program": "splu", "setup": setup, "solve": seconds}, field


def iterative(matrix, right: np.ndarray, sea, place: arrays.Place, rate: float, repeats: int):
    """One row of the table, the field and some columns of the inverse."""
    start = time.perf_counter()
    made = Iterative(matrix, sea, place)
    with place.active():
        place.wait()
    setup = time.perf_counter() - start
    field, seconds = timed(lambda: made.solve(right), repeats)
    steps, moved = made.steps, made.steps * made.bytes_per_step
    row = {"program": place.library, "device": place.device, "setup": setup, "solve": seconds, "steps": steps}
    return {**row, "bytes": moved, "limit": moved / seconds / rate}, field, made


def compare(shape: tuple[int, ...], where: list[arrays.Place], rates: list[float], limit: int, repeats: int) -> dict:
    start = time.perf_counter()
    matrix, right, sea = system_of(shape)
    assembly = time.perf_counter() - start
    rows, fields = [], []
    if matrix.shape[0] <= limit:
        row, field = direct(matrix, right)
        rows.append(row)
        fields.append(field)
    columns, failed = None, []
    for place, rate in zip(where, rates, strict=True):
        try:
            row, field, made = iterative(matrix, right, sea, place, rate, repeats if place.device == "cuda" else 1)
        except Exception:  # noqa: BLE001 - a library that fails does not cost the figures of the others
            print(f"{place.library} failed:\n{traceback.format_exc()}")
            failed.append(place.library)
            continue
        if shape == SIZES[0]:
            unit = np.zeros((sea.nodes, COLUMNS))
            unit[np.linspace(0, sea.nodes - 1, COLUMNS).astype(int), np.arange(COLUMNS)] = 1
            found, row["columns"] = timed(lambda made=made, unit=unit: made.solve(unit), 1 + (place.device == "cuda"))
            columns = found if columns is None else columns
            row["columns_difference"] = float(np.abs(found - columns).max() / np.abs(columns).max())
        rows.append(row)
        fields.append(field)
    for row, field in zip(rows, fields, strict=True):
        row["difference"] = float(np.abs(field - fields[0]).max() / np.abs(fields[0]).max())
    base = next(row for row in rows if row["program"] == "numpy")
    for row in rows:
        row["times_faster"] = (base["setup"] + base["solve"]) / (row["setup"] + row["solve"])
        row["solve_times_faster"] = base["solve"] / row["solve"]
    facts = {"grid": list(shape), "nodes": sea.nodes, "entries": matrix.nnz, "assembly": assembly}
    return {**facts, "rows": rows, "failed": failed}


HEAD = (
    f"{'grid':>10} {'nodes':>8} {'':>6} {'setup s':>8} {'solve s':>9} {'steps':>5} {'faster':>8} {'in solve':>8} "
    f"{'limit':>6} {'difference':>10}"
)


def table(result: dict) -> str:
    lines = []
    for row in result["rows"]:
        steps = f"{row['steps']:5d}" if "steps" in row else f"{'-':>5}"
        share = f"{row['limit']:6.0%}" if "limit" in row else f"{'-':>6}"
        lines.append(
            f"{'x'.join(map(str, result['grid'])):>10} {result['nodes']:>8} {row['program']:>6} {row['setup']:8.2f} "
            f"{row['solve']:9.4f} {steps} {row['times_faster']:8.1f} {row['solve_times_faster']:8.1f} "
            f"{share} {row['difference']:10.1e}"
        )
        if "columns" in row:
            lines.append(
                f"{'':>10} {COLUMNS} columns of the inverse: {row['columns']:.3f} s, "
                f"difference {row['columns_difference']:.1e}"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict:
    """Run the comparison on grids such as 300x300; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grids", nargs="*", type=shape_of, default=SIZES, help="such as 300x300 or 60x60x20")
    parser.add_argument("--direct", type=int, default=None, help="most nodes for the direct solver")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many solutions on a GPU counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    print(arrays.on("auto").sentence)
    where = places()
    rates = [copy_rate(place) for place in where]
    for place, rate in zip(where, rates, strict=True):
        print(f"{place.library:>6}: {place.sentence} A copy moves {rate / 1e9:.0f} GB/s.")
    print(HEAD)
    results = []
    for shape in options.grids:
        most = options.direct if options.direct is not None else DIRECT.get(len(shape), 10_000)
        results.append(compare(shape, where, rates, most, options.repeats))
        print(table(results[-1]), flush=True)
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "places": [
            {"library": p.library, "device": p.device, "said": p.sentence, "copy_bytes_per_second": r}
            for p, r in zip(where, rates, strict=True)
        ],
        "results": results,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "gpu.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    sys.exit(any(result["failed"] for result in main()["results"]))
