"""Variational gridding beside octave-divand: wall time and peak memory, as ratios, in one run on one machine.

    python benchmarks/ocean_gridding.py 100x100 300x300 500x500

Every program runs alone in a process of its own, so that its peak memory is its own.  Times on different machines, or
on one machine at different hours, cannot be compared: only the ratios of one run can.  The last columns say how far the
factorisation is from a physical limit: the time its floating-point operations would take at the rate this machine
reaches in a dense matrix product.  A table is printed and a JSON file is written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import _alone
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def octave():
    """The module that runs octave-divand; it stands with the tests, which need it too."""
    path = ROOT / "tests" / "methods" / "variational" / "octave.py"
    spec = importlib.util.spec_from_file_location("octave", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def synthetic_problem(shape: tuple[int, ...], *, seed: int = 0) -> dict:
    """A synthetic basin with an island and an observation for every 50 nodes; arguments of `analyse`.

    Observations keep two cells from the island, where the two programs weigh them differently.
    """
    rng = np.random.default_rng(seed)
    count = max(50, math.prod(shape) // 50)
    positions = rng.uniform(0.01, 0.99, (len(shape), count))
    mask = np.ones(shape, bool)
    mask[tuple(slice(int(0.6 * size), int(0.7 * size)) for size in shape)] = False
    beside = np.logical_and.reduce(
        [(x > 0.6 - 2 / (size - 1)) & (x < 0.7 + 2 / (size - 1)) for x, size in zip(positions, shape, strict=True)]
    )
    positions = positions[:, ~beside]
    values = np.sin(2 * np.pi * positions).prod(axis=0) + 0.1 * rng.standard_normal(positions.shape[1])
    return {
        "mask": mask,
        "metrics": [float(size - 1) for size in shape],
        "coords": [np.linspace(0, 1, size) for size in shape],
        "obs_coords": list(positions),
        "values": values,
        "length": 0.1,
        "noise": 0.1,
    }


def measure_ours(shape: tuple[int, ...], solver: str, field: Path) -> dict:
    """One analysis in this process: seconds of the call and peak memory of the process; the field goes to a file."""
    from phidias_lab.methods.variational import analyse

    problem = synthetic_problem(shape)
    start = time.perf_counter()
    result = analyse(**problem, renormalise=False, solver=solver)
    seconds = time.perf_counter() - start
    np.save(field, result.field)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"solver": result.solver, "seconds": seconds, "peak_mib": peak}


def measure_octave(shape: tuple[int, ...], field: Path) -> dict:
    """One analysis by octave-divand, measured in its process (without its start and its reading of files)."""
    result = octave().divand(**synthetic_problem(shape))
    np.save(field, result["field"])
    return {"solver": "octave-divand", "seconds": result["seconds"], "peak_mib": result["peak_mib"]}


def measure_factor(shape: tuple[int, ...]) -> dict:
    """The factorisation by scipy alone: its seconds, its operations, and the seconds these need at the matmul rate."""
    from phidias_lab.methods.variational import grid, norm, observation, solvers

    problem = synthetic_problem(shape)
    sea = grid.build(problem["mask"], problem["metrics"], problem["length"], ())
    system = norm.precision(sea, norm.coefficients(None, len(shape)))
    lines = observation.grid_lines(problem["coords"], sea)
    interpolation, _ = observation.operator(sea, lines, problem["obs_coords"], {}, renormalise=False)
    system = system + interpolation.T @ interpolation / problem["noise"]
    start = time.perf_counter()
    factor = solvers.SuperLU(system)
    seconds = time.perf_counter() - start
    # A column of L with k entries (diagonal included) costs about k^2 operations in a Cholesky factorisation.
    in_column = np.diff(factor.lu.L.indptr).astype(float)
    operations = float((in_column**2).sum())
    rate = matmul_rate()
    return {
        "nodes": sea.nodes,
        "factor_seconds": seconds,
        "nnz_l": int(in_column.sum()),
        "operations": operations,
        "matmul_per_second": rate,
        "limit_seconds": operations / rate,
        "times_the_limit": seconds / (operations / rate),
    }


def matmul_rate(size: int = 2000, repeats: int = 5) -> float:
    """Floating-point operations per second of the best of some dense products, on all cores numpy takes."""
    a = np.random.default_rng(0).standard_normal((size, size))
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def in_own_process(job: str, shape: tuple[int, ...], solver: str, field: Path) -> dict:
    """One of the measurements above in a fresh Python."""
    given = ("--job", job, "--solver", solver, "--field", field)
    return _alone.in_own_process(__file__, *given, "x".join(map(str, shape)))


def compare(shape: tuple[int, ...], solvers: tuple[str, ...], *, repeats: int = 1) -> dict:
    """All programs on one problem: the fastest of some repeats each, with ratios to octave-divand where it is here."""
    runs, fields = [], {}
    with tempfile.TemporaryDirectory() as folder:
        programs = [("ours", solver) for solver in solvers]
        if octave().installed():
            programs.append(("octave", "octave-divand"))
        for job, solver in programs:
            field = Path(folder, f"{solver}.npy")
            tries = [in_own_process(job, shape, solver, field) for _ in range(repeats)]
            runs.append(min(tries, key=lambda each: each["seconds"]))
            fields[runs[-1]["solver"]] = np.load(field)
        factor = in_own_process("factor", shape, "splu", Path(folder, "none.npy"))
    peer = next((run for run in runs if run["solver"] == "octave-divand"), None)
    if peer:
        reference = fields["octave-divand"]
        for run in runs:
            run["times_faster"] = peer["seconds"] / run["seconds"]
            run["share_of_memory"] = run["peak_mib"] / peer["peak_mib"]
            apart = np.nanmax(np.abs(fields[run["solver"]] - reference))
            run["difference"] = float(apart / np.nanmax(np.abs(reference)))
    return {
        "grid": list(shape),
        "observations": len(synthetic_problem(shape)["values"]),
        "runs": runs,
        "factor": factor,
    }


def table(results: list[dict]) -> str:
    """The comparison as text."""
    head = (
        f"{'grid':>12} {'program':>14} {'seconds':>8} {'MiB':>6} {'times faster':>12} {'memory':>7} {'difference':>10}"
    )
    rows = [head]
    for result in results:
        grid = "x".join(map(str, result["grid"]))
        for run in result["runs"]:
            ratios = (
                f"{run['times_faster']:12.2f} {run['share_of_memory']:6.0%} {run['difference']:11.1e}"
                if "times_faster" in run
                else f"{'-':>12} {'-':>7} {'-':>10}"
            )
            rows.append(f"{grid:>12} {run['solver']:>14} {run['seconds']:8.2f} {run['peak_mib']:6.0f} {ratios}")
        factor = result["factor"]
        rows.append(
            f"{grid:>12}   splu factor {factor['factor_seconds']:.2f} s, {factor['operations'] / 1e9:.1f} Gflop, limit "
            f"{factor['limit_seconds']:.2f} s at {factor['matmul_per_second'] / 1e9:.0f} Gflop/s: "
            f"{factor['times_the_limit']:.1f} times the limit"
        )
    return "\n".join(rows)


def shape_of(text: str) -> tuple[int, ...]:
    """'300x200' as (300, 200)."""
    return tuple(int(size) for size in text.split("x"))


def main(arguments: list[str] | None = None) -> dict:
    """Run the comparison on grids such as 100x100; returns what it wrote."""
    from phidias_lab.methods.variational import solvers

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grids", nargs="*", type=shape_of, default=[(100, 100), (300, 300)], help="such as 300x300")
    parser.add_argument("--solvers", nargs="+", default=None, help="default: all that are installed")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest of so many runs counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--job", choices=["ours", "octave", "factor"], help=argparse.SUPPRESS)
    parser.add_argument("--solver", default="splu", help=argparse.SUPPRESS)
    parser.add_argument("--field", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        (shape,) = options.grids
        jobs = {
            "ours": lambda: measure_ours(shape, options.solver, options.field),
            "octave": lambda: measure_octave(shape, options.field),
            "factor": lambda: measure_factor(shape),
        }
        answer = jobs[options.job]()
        print(json.dumps(answer))
        return answer
    chosen = tuple(options.solvers or solvers.available())
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "results": [compare(shape, chosen, repeats=options.repeats) for shape in options.grids],
    }
    print(table(report["results"]))
    if not octave().installed():
        print("octave-divand is not installed, so nothing stands beside ours; 'make test SYSTEM=1' installs it.")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "ocean_gridding.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
