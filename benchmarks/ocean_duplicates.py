"""Duplicates among observations whose copies are known: how many are found, how many are false, seconds and memory.

    python benchmarks/ocean_duplicates.py 200000
    python benchmarks/ocean_duplicates.py 10000000

A synthetic archive of profiles (with standard levels and dense ones, in stratified and in mixed water), repeated casts at
fixed stations, moorings that sample every ten minutes, and ferries that sample every minute. One cast in twenty was
delivered once more, by a second archive: place, time, depth and value anywhere within the tolerances or rounded as archives
do, under another platform's name or, for profiles and half of the moorings, under its own. The ferries' lines were delivered
whole. Found is the share of the copies that are marked, false the share of all other observations that are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import _alone
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
YEARS, SHARE = 20, 0.05


def _casts(random, count: int, levels: np.ndarray, lon, lat, seconds, ship, gradient) -> dict[str, np.ndarray]:
    """Every cast at each of its levels: temperature and salinity with the waves and the noise of real water."""
    many = len(levels)
    depth = np.tile(levels, count)
    slope = np.repeat(gradient, many)
    waves = np.repeat(random.normal(0, 0.3, count), many) + random.normal(0, 0.01, count * many)
    temperature = 18 - slope * depth + slope * waves * 10 + random.normal(0, 0.004, count * many)
    salinity = 35 + 0.2 * np.sin(depth / 60) * (slope > 0.005) + random.normal(0, 0.004, count * many)
    return {
        "longitude": np.repeat(lon, many),
        "latitude": np.repeat(lat, many),
        "depth": depth,
        "seconds": np.repeat(seconds, many),
        "temperature": temperature,
        "salinity": salinity,
        "platform": np.repeat(ship, many),
        "cast": np.repeat(np.arange(count), many),
    }


def synthetic_archive(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of about `size` observations in random order of casts, and `copy_of` (-1 for an original)."""
    random = np.random.default_rng(seed)
    span = YEARS * 365 * 86400.0
    parts, cast, platform_number = [], 0, 0

    def add(part):
        nonlocal cast, platform_number
        part["cast"] += cast
        part["platform"] += platform_number
        cast, platform_number = part["cast"].max() + 1, part["platform"].max() + 1
        parts.append(part)

    def free(count):
        return random.uniform(-180, 180, count).round(4), random.uniform(-75, 75, count).round(4)

    def minutes(count):
        return np.floor(random.uniform(0, span, count) / 60) * 60

    standard = np.array(
        [0, 10, 20, 30, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000, 1200.0]
    )
    count = int(0.3 * size / standard.size) + 1
    mixed = np.where(random.random(count) < 0.1, 0.0, random.uniform(0.005, 0.05, count))
    add(_casts(random, count, standard, *free(count), minutes(count), random.integers(0, 60, count), mixed))
    dense = np.arange(1, 201) * 0.5
    count = int(0.3 * size / dense.size) + 1
    add(
        _casts(
            random,
            count,
            dense,
            *free(count),
            minutes(count),
            random.integers(0, 20, count),
            random.uniform(0.005, 0.1, count),
        )
    )
    # Fixed stations: thirty casts of one ship, a minute to some hours after each other.
    stations = int(0.1 * size / standard.size / 30) + 1
    lon, lat = (np.repeat(part, 30) for part in free(stations))
    gaps = random.choice([60.0, 120.0, 600.0, 3600.0, 6 * 3600.0], (stations, 30))
    when = (minutes(stations)[:, None] + np.cumsum(gaps, axis=1)).ravel()
    gradient = np.repeat(random.uniform(0.01, 0.05, stations), 30)
    add(_casts(random, stations * 30, standard, lon, lat, when, np.repeat(np.arange(stations), 30), gradient))
    # Moorings: every ten minutes at four depths.
    samples = 2000
    count = int(0.15 * size / 4 / samples) + 1
    lon, lat = (np.repeat(part, samples) for part in free(count))
    when = (minutes(count)[:, None] + 600.0 * np.arange(samples)).ravel()
    moored = np.array([10.0, 30.0, 60.0, 100.0])
    add(
        _casts(
            random,
            count * samples,
            moored,
            lon,
            lat,
            when,
            np.repeat(np.arange(count), samples),
            np.full(count * samples, 0.02),
        )
    )
    moorings = len(parts) - 1
    # Ferries: every minute at four metres, 300 m further each time.
    samples = 1000
    count = int(0.15 * size / samples) + 1
    lon, lat = free(count)
    step = np.arange(samples)
    lon = (lon[:, None] + 0.003 * step).ravel().round(4)
    lat = (lat[:, None] + 0.001 * step * np.where(lat > 0, -1, 1)[:, None]).ravel().round(4)
    when = (minutes(count)[:, None] + 60.0 * step).ravel()
    line = np.repeat(np.arange(count), samples)
    part = _casts(random, count * samples, np.array([4.0]), lon, lat, when, line, np.zeros(count * samples))
    part["temperature"] += 3 * np.sin(part["longitude"] * 5)
    add(part)
    originals = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    kind = np.repeat(np.arange(len(parts)), [p["cast"].size for p in parts])
    unit = np.where(kind == len(parts) - 1, cast + originals["platform"], originals["cast"])  # whole lines of ferries
    twice = random.random(unit.max() + 1) < SHARE
    again = np.flatnonzero(twice[unit])
    named = random.random(unit.max() + 1) < 0.5
    own = named[unit[again]] & (kind[again] < moorings + 1)
    rounds = (random.random(unit.max() + 1) < 0.5)[unit[again]]
    copy = {name: column[again].copy() for name, column in originals.items()}
    for name, most in (("longitude", 0.006), ("latitude", 0.006), ("seconds", 90.0)):
        shift = random.uniform(-most, most, unit.max() + 1)[unit[again]]
        coarse = np.round(copy[name], 2) if most < 1 else copy[name] + 60.0 * np.sign(shift)
        copy[name] = np.where(rounds, coarse, copy[name] + shift)
    for name, most in (("depth", 0.1), ("temperature", 0.006), ("salinity", 0.006)):
        decimals = 1 if name == "depth" else 2
        copy[name] = np.where(
            rounds, np.round(copy[name], decimals), copy[name] + random.uniform(-most, most, again.size)
        )
    copy["platform"] = np.where(own, copy["platform"], copy["platform"] + platform_number)
    copy["cast"] = copy["cast"] + cast
    columns = {name: np.concatenate([originals[name], copy[name]]) for name in originals}
    columns["copy_of"] = np.concatenate([np.full(unit.size, -1), again])
    # Casts come in any order, as from a lake that is sorted by place.
    order = np.argsort(random.permutation(columns["cast"].max() + 1)[columns["cast"]], kind="stable")
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    columns = {name: column[order] for name, column in columns.items()}
    columns["copy_of"] = np.where(columns["copy_of"] < 0, -1, place[columns["copy_of"]])
    return columns


def measure(size: int) -> dict:
    """One size in this process."""
    from phidias_lab.methods import duplicates

    archive = synthetic_archive(size)
    before = _peak()
    start, start_cpu = time.perf_counter(), time.process_time()
    values = [archive["temperature"], archive["salinity"]]
    places = [archive[name] for name in ("longitude", "latitude", "depth", "seconds")]
    found = duplicates.find(*places, values, archive["platform"], archive["cast"])
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    marked, copy_of = found.of >= 0, archive["copy_of"]
    # Whichever of the two is marked, the pair is found; both or neither would be wrong.
    copies = np.flatnonzero(copy_of >= 0)
    pair = marked[copies].astype(int) + marked[copy_of[copies]]
    others = np.ones(copy_of.size, bool)
    others[copies] = others[copy_of[copies]] = False
    return {
        "size": int(copy_of.size),
        "copies": int(copies.size),
        "found": float((pair == 1).mean()),
        "false": float((marked[others].sum() + (pair == 2).sum()) / (copy_of.size - copies.size)),
        "findings": int(found.number.size),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": _peak(),
        "more_mib": _peak() - before,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(size: int) -> dict:
    return _alone.in_own_process(__file__, size, "--alone")


def table(results: list[dict]) -> str:
    rows = [
        f"{'size':>9} {'copies':>8} {'found %':>8} {'false %':>8} {'findings':>9} {'seconds':>8} "
        f"{'CPU s':>7} {'peak MiB':>9}"
    ]
    for run in results:
        rows.append(
            f"{run['size']:>9} {run['copies']:>8} {100 * run['found']:8.3f} {100 * run['false']:8.4f} "
            f"{run['findings']:>9} {run['seconds']:8.2f} {run['cpu_seconds']:7.2f} {run['peak_mib']:9.0f}"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> dict:
    """Measure sizes such as 10000000, each in a process of its own; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[200_000, 1_000_000], help="observations")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        answer = measure(options.sizes[0])
        print(json.dumps(answer))
        return answer
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "results": [in_own_process(size) for size in options.sizes],
    }
    print(table(report["results"]))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "ocean_duplicates.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
