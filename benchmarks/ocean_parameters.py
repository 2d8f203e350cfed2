"""Correlation length and noise that are estimated: how often the intervals hold the truth, and whether errors are honest.

    python benchmarks/ocean_parameters.py --seeds 100 --months 2012-02 2012-05 2012-08 2012-11

Two tables. In the first, 300 observations are drawn from the kernel itself in a square seven lengths wide, as often as
there are seeds; each of three methods estimates length and noise, and the true ones lie in its intervals of 95 % or not.
In the second, the demo lake's observations of a month are cut into folds: length and noise are estimated without a fold,
the rest is gridded with them, and the observations of the fold are compared with the map. Their errors, each over the
standard deviation that map and noise together claim, have the variance 1 if the claim is honest. Observations that the demo
lake knows to be copies or outliers take no part, since a quality control would have taken them out before.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LENGTH, NOISE, COUNT = 0.15, 0.3, 300


def drawn(seed: int) -> tuple:
    """Arguments of an estimate: values with the kernel's covariance, in the middle of a grid that reaches further."""
    from phidias_lab.methods.variational import kernel

    random = np.random.default_rng(seed)
    places = random.uniform(0, 1, (2, COUNT))
    distance = np.hypot(*(each[:, np.newaxis] - each for each in places))
    root = np.linalg.cholesky(kernel(distance / LENGTH, 2, 2) + 1e-10 * np.eye(COUNT))
    values = 2.0 * (root @ random.standard_normal(COUNT) + math.sqrt(NOISE) * random.standard_normal(COUNT))
    line = np.linspace(-0.4, 1.4, 31)
    return np.ones((31, 31), bool), [1 / (line[1] - line[0])] * 2, [line, line], list(places), values


def _on_the_grid(estimate: Callable) -> Callable:
    def method(given: tuple):
        # The first guess is not the truth.
        found = estimate(*given, length=0.1, noise=0.5, groups=[[0, 1]])
        (factor,) = found.factors
        return [0.1 * each for each in (factor.low, factor.value, factor.high)], found.noise

    return method


def _by_covariance(given: tuple):
    from phidias_lab.methods.variational import covariance_fit

    found = covariance_fit.fit(np.array(given[3]).T, given[4], (2, 2))
    return [found.length.low, found.length.value, found.length.high], found.noise


def coverage(seeds: int) -> list[dict]:
    """Per method how many draws were decided, and in how many of all draws the intervals held the truth."""
    from phidias_lab.errors import InputError
    from phidias_lab.methods.variational import cross_validation, likelihood

    methods = {
        "likelihood": _on_the_grid(likelihood.estimate),
        "cross-validation": _on_the_grid(cross_validation.estimate),
        "covariance": _by_covariance,
    }
    found = []
    for name, method in methods.items():
        lengths, hits, noises = [], 0, 0
        for seed in range(seeds):
            try:
                (low, value, high), noise = method(drawn(seed))
            except InputError:
                continue
            lengths.append(value)
            hits += low <= LENGTH <= high
            noises += noise.low <= NOISE <= noise.high
        logs = np.log(np.array(lengths) / LENGTH)
        found.append(
            {
                "method": name,
                "seeds": seeds,
                "decided": len(lengths),
                "length_held": int(hits),
                "noise_held": int(noises),
                "median_over_truth": float(np.exp(np.median(logs))),
                "scatter_of_logarithm": float(np.std(logs)),
            }
        )
    return found


def held_back(observations: Any, domain: Any, folds: int, **asked: Any) -> np.ndarray:
    """Errors of the map at observations that it was made without, over the deviations claimed for them."""
    import xarray as xr

    from phidias_lab.chains.ocean.correlation import Correlation, for_gridding
    from phidias_lab.chains.ocean.gridding import Gridding

    fold = np.random.default_rng(1).permutation(len(observations)) % folds
    found = []
    for each in range(folds):
        kept, other = observations[fold != each].reset_index(drop=True), observations[fold == each]
        kept.attrs = observations.attrs
        inputs = {"observations": kept, "domain": domain}
        told = for_gridding(Correlation(method="likelihood", profiles=False, **asked)(**inputs))
        grid = Gridding(**asked, **told)(**inputs).compute().squeeze(["time", "depth"])
        at = {name: xr.DataArray(other[name].to_numpy(float), dims="here") for name in ("longitude", "latitude")}
        variance = (grid["analysis_error"] ** 2).interp(at) + told["noise"] * grid["background_deviation"] ** 2
        apart = other[asked["variable"]].to_numpy(float) - grid["analysis"].interp(at)
        found.append((apart / np.sqrt(variance)).dropna("here").values)
    return np.concatenate(found)


def calibration(months: list[str], folds: int, variable: str = "temperature", depth: float = 10.0) -> dict:
    """`held_back` for months of the demo lake's North-East Atlantic."""
    import pandas as pd

    import phidias_lab

    ocean = phidias_lab.open_catalog().ocean
    domain, truth = ocean.north_east_atlantic.to_dask().load(), ocean.observations_truth.read()
    truth = truth.set_index("observation_id")
    parts = []
    for month in months:
        start = pd.Timestamp(f"{month}-01")
        days = [str(day.date()) for day in (start, start + pd.offsets.MonthEnd())]
        rows = ocean.observations(region="-30,35,2,60", time="/".join(days), variable=variable).read()
        known = truth.loc[rows["observation_id"]]
        clean = (known["duplicate_of"] < 0) & ~known[f"{variable}_outlier"]
        near = rows["depth"].between(depth - 5, depth + 5, inclusive="left") & rows[f"{variable}_qc"].isin([1, 2])
        some = rows[near & clean.to_numpy()].reset_index(drop=True)
        some.attrs = rows.attrs
        parts.append(held_back(some, domain, folds, variable=variable, depths=[depth], period=days))
    every = np.concatenate(parts)
    return {
        "months": months,
        "folds": folds,
        "held_back": int(every.size),
        "variance": float(np.mean(every**2)),
        "variance_by_month": [float(np.mean(part**2)) for part in parts],
        "within_two": float(np.mean(np.abs(every) < 1.96)),
    }


def table(report: dict) -> str:
    lines = [f"{'method':>17} {'seeds':>6} {'decided':>8} {'length held':>12} {'noise held':>11} {'median/truth':>13}"]
    for row in report["coverage"]:
        lines.append(
            f"{row['method']:>17} {row['seeds']:>6} {row['decided']:>8} {row['length_held']:>12} {row['noise_held']:>11} "
            f"{row['median_over_truth']:13.2f}"
        )
    found = report["calibration"]
    if found:
        lines.append(
            f"{found['held_back']} observations held back: variance of standardised errors {found['variance']:.3f} "
            f"(by month {', '.join(f'{v:.2f}' for v in found['variance_by_month'])}); {found['within_two']:.1%} within 1.96"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict:
    """Run both; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="draws of the first table")
    parser.add_argument(
        "--months",
        nargs="*",
        default=["2012-02", "2012-05", "2012-08", "2012-11"],
        help="months of the demo lake for the second; none leaves it out",
    )
    parser.add_argument("--folds", type=int, default=4, help="parts into which a month's observations are cut")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "coverage": coverage(options.seeds),
        "calibration": calibration(options.months, options.folds) if options.months else None,
    }
    print(table(report))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "ocean_parameters.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
