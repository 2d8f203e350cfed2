"""Match-ups of observations with a swath, beside a k-d tree and a loop over days: seconds, memory and the same answer.

    python benchmarks/ocean_match_ups.py 100000 1000000

Every program runs alone in a process of its own, and what it finds is compared. As many observations as samples, all over
the globe within four days (an imager with pixels of 25 km takes about a million samples in that time); radius 25 km, window
12 hours, the nearest sample counts. The peers are what one would write with scipy: one tree of all samples, the pairs
filtered by time afterwards; and a tree for each day. The last column is how far the seconds are from the time in which this
machine copies what must be read and written at the least. Seconds of different machines or hours cannot be compared, only
the ratios of one run.
"""

from __future__ import annotations

import argparse
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
RADIUS, WINDOW, DAYS = 25e3, 12 * 3600.0, 4


def synthetic_problem(size: int, seed: int = 0):
    """Observations, samples and the samples' values; a tenth of these are missing, as under clouds."""
    from phidias_lab.methods.match_ups import Places

    random = np.random.default_rng(seed)

    def places():
        latitude = np.rad2deg(np.arcsin(random.uniform(-1, 1, size)))
        return Places(random.uniform(-180, 180, size), latitude, random.uniform(0, DAYS * 86400.0, size))

    values = random.normal(35, 1, size)
    values[random.random(size) < 0.1] = np.nan
    return places(), places(), values


def ours(observations, samples, values) -> np.ndarray:
    from phidias_lab.methods import match_ups

    pairs = match_ups.scattered(observations, samples, RADIUS, WINDOW)
    return match_ups.nearest(pairs, values, observations.time.size).value


def _points(places) -> np.ndarray:
    lon, lat = np.deg2rad(places.longitude), np.deg2rad(places.latitude)
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _by_tree(here, time_here, there, time_there, values) -> np.ndarray:
    """The value of the nearest sample within radius and window, by one tree and lists of neighbours."""
    from scipy.spatial import cKDTree

    from phidias_lab.methods.match_ups import EARTH_RADIUS

    chord = 2 * np.sin(RADIUS / EARTH_RADIUS / 2)
    near = cKDTree(there).query_ball_point(here, chord, workers=2)
    counts = np.fromiter(map(len, near), np.int64, len(near))
    sample = np.concatenate([np.asarray(found, np.int64) for found in near]) if len(near) else np.empty(0, np.int64)
    row = np.repeat(np.arange(len(here)), counts)
    keep = (np.abs(time_there[sample] - time_here[row]) <= WINDOW) & np.isfinite(values[sample])
    row, sample = row[keep], sample[keep]
    distance = np.square(there[sample] - here[row]).sum(axis=1)
    order = np.lexsort((sample, distance, row))
    row, sample = row[order], sample[order]
    first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if row.size else []
    found = np.full(len(here), np.nan)
    found[row[first]] = values[sample[first]]
    return found


def one_tree(observations, samples, values) -> np.ndarray:
    return _by_tree(_points(observations), observations.time, _points(samples), samples.time, values)


def tree_per_day(observations, samples, values) -> np.ndarray:
    here, there = _points(observations), _points(samples)
    found = np.full(len(here), np.nan)
    for day in range(DAYS):
        start, end = day * 86400.0, (day + 1) * 86400.0
        some = np.flatnonzero((observations.time >= start) & (observations.time < end))
        near = np.flatnonzero((samples.time >= start - WINDOW) & (samples.time <= end + WINDOW))
        found[some] = _by_tree(here[some], observations.time[some], there[near], samples.time[near], values[near])
    return found


PROGRAMS = {"ours": ours, "one tree": one_tree, "tree per day": tree_per_day}


def copy_rate(size: int = 64 * 2**20, repeats: int = 5) -> float:
    """Bytes per second of the best of some copies: what is read and what is written both count."""
    block, target, best = np.ones(size // 8), np.empty(size // 8), math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, block)
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def measure(program: str, size: int, answer: Path) -> dict:
    """One program in this process; what it finds goes to a file."""
    problem = synthetic_problem(size)
    for module in ("scipy.spatial", "phidias_lab.methods.match_ups"):
        __import__(module)
    before = _peak()
    start, start_cpu = time.perf_counter(), time.process_time()
    found = PROGRAMS[program](*problem)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    np.save(answer, found)
    # Three numbers of each place, a value of each sample, a value of each observation.
    least = (2 * 3 + 2) * 8 * size / copy_rate()
    return {
        "program": program,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "more_mib": _peak() - before,
        "limit_seconds": least,
        "times_the_limit": seconds / least,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(program: str, size: int, answer: Path) -> dict:
    return _alone.in_own_process(__file__, size, "--only", program, "--answer", answer)


def compare(size: int, repeats: int) -> dict:
    """All programs on one problem, the fastest of some repeats each; they must find the same."""
    runs, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for program in PROGRAMS:
            answer = Path(folder, f"{program}.npy")
            tries = [in_own_process(program, size, answer) for _ in range(repeats)]
            runs.append(min(tries, key=lambda run: run["seconds"]))
            found[program] = np.load(answer)
    for run in runs:
        run["times_the_time_of_ours"] = run["seconds"] / runs[0]["seconds"]
        run["times_the_memory_of_ours"] = run["more_mib"] / max(runs[0]["more_mib"], 1e-3)
        run["same_answer"] = bool(np.array_equal(found[run["program"]], found["ours"], equal_nan=True))
    return {"size": size, "match_ups": int(np.isfinite(found["ours"]).sum()), "runs": runs}


def table(results: list[dict]) -> str:
    rows = [
        f"{'size':>9} {'match-ups':>9} {'program':>13} {'seconds':>8} {'CPU s':>7} {'MiB more':>9} {'time/ours':>10} "
        f"{'memory/ours':>12} {'time/limit':>11} {'same':>5}"
    ]
    for result in results:
        for run in result["runs"]:
            rows.append(
                f"{result['size']:>9} {result['match_ups']:>9} {run['program']:>13} {run['seconds']:8.2f} "
                f"{run['cpu_seconds']:7.2f} {run['more_mib']:9.0f} {run['times_the_time_of_ours']:10.1f} "
                f"{run['times_the_memory_of_ours']:12.1f} {run['times_the_limit']:11.0f} {run['same_answer']!s:>5}"
            )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> dict:
    """Run the comparison for sizes such as 1000000; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000, 1_000_000], help="observations, and samples")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest of so many runs counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--only", choices=list(PROGRAMS), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        answer = measure(options.only, options.sizes[0], options.answer)
        print(json.dumps(answer))
        return answer
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "results": [compare(size, options.repeats) for size in options.sizes],
    }
    print(table(report["results"]))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "ocean_match_ups.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
