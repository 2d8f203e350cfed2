"""How much of what an ideal observer sees in spectra the chains of screening find, and how often they are wrong.

    python benchmarks/atmosphere_detection.py --small
    python benchmarks/atmosphere_detection.py

Synthetic granules of TROPOMI's band 7 in sunlight, of a detector with fewer rows and a swath as much narrower. A basis is
learnt from granules of some days and asked about granules of later days:

- area under the curve for CO +25 %, in all pixels whose spectra have a signal-to-noise ratio of 100, of the SNR of CO and of
  all detectors together, beside the matched filter that knows the generator's covariance and natural variability and is
  asked about the same pixels;
- share of such pixels found at a false-alarm rate of 1e-4 for CO +100 %;
- false alarms in clean pixels at requested rates, in each stratum and in all, and events in clean granules;
- what is lost where one spectrum in a hundred that were learnt from is of a plume;
- events of a pixel that the ideal observer sees with a ratio of 8: kept, named, and at what share of the data.

Intervals are of 95 %, from the spread between granules, whose pixels depend on each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import special

from phidias_lab.chains.atmosphere import _basis, _spectra
from phidias_lab.chains.atmosphere.screening import UNKNOWN, Screening
from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis
from phidias_lab.methods import log_shapes
from phidias_lab.methods.formats import l1b
from phidias_lab.testing.scenes import spectra as scenes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BAND = scenes.TROPOMI_BAND_7
LINES, AT_ONCE = 64, 16  # scanlines of a granule, granules screened at once
BRIGHT = 100.0  # signal-to-noise ratio of the spectra that detection is asked for
WEAK, STRONG = 0.25, 1.0  # more CO, in standard columns
SEEN = 8.0  # ratio at which the ideal observer sees the best pixel of an event
SHARE = 0.01  # of plumes among the spectra learnt from, and of data that may be kept
#: Kinds of events, and between which strengths they are.
EVENTS = {"fire": (1.0, 6.0), "leak": (0.6, 3.0), "unknown": (0.1, 0.6)}
#: What a chain should call them.
NAMES = {"fire": "CO", "leak": "CH4", "unknown": "unknown"}


@dataclasses.dataclass(frozen=True)
class Sizes:
    rows: int  # of the detector
    granules: int  # to learn from
    learning_size: int  # spectra of the learning set
    clean: int  # granules to look for false alarms in
    raised: int  # of these are looked at with more CO as well
    event_granules: int
    observed: int  # spectra of each of four rows that the ideal observer learns, and is asked about


SMALL = Sizes(rows=16, granules=120, learning_size=20_000, clean=128, raised=32, event_granules=96, observed=1500)
FULL = Sizes(rows=48, granules=320, learning_size=100_000, clean=768, raised=96, event_granules=240, observed=2000)


# Granules ---------------------------------------------------------------------------------------------------------------


def detector(rows: int) -> scenes.Instrument:
    return dataclasses.replace(BAND, rows=rows, swath=BAND.swath * rows / BAND.rows)


def granules(of: scenes.Instrument, number: int, first_orbit: int) -> list[scenes.Scene]:
    """Granules of neighbouring orbits, three of each, spread over its sunlit half."""
    found = []
    for i in range(number):
        phase = (i * 0.6180339887 % 1 - 0.5) * 0.4  # of an orbit, from the equator: within 72 degrees of latitude
        line = (first_orbit + i // 3 + phase) * of.period / of.line_time
        line = round(line / scenes.TILE) * scenes.TILE
        found.append(scenes.Scene(of, scenes.EPOCH + line * np.timedelta64(of.line_ns, "ns"), LINES))
    return found


def everywhere(of: scenes.Scene, enhancement: float) -> scenes.Scene:
    """The granule with more CO in all pixels alike: a plume that is wider than the Earth."""
    return dataclasses.replace(of, events=(scenes.Event("all", "fire", 0.0, 0.0, enhancement, width=1e7),))


def made(parts: Sequence[scenes.Scene], noise: bool = False) -> tuple[xr.Dataset, dict[str, np.ndarray]]:
    """The cube of granules with its radiances in memory, and the truth."""
    cube = scenes.cube(parts)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = list(pool.map(lambda scene: scene.block(), parts))
    names = ("radiance", "radiance_noise") if noise else ("radiance",)
    bad = [(measured["spectral_channel_quality"] & l1b.BAD_CHANNEL) > 0 for measured, _ in blocks]
    for name in names:
        for (measured, _), gone in zip(blocks, bad, strict=True):
            measured[name][gone] = np.nan
        values = np.concatenate([measured[name] for measured, _ in blocks])
        cube = cube.assign({name: (cube[name].dims, values, cube[name].attrs)})
    cube = cube if noise else cube.drop_vars("radiance_noise")
    truth = {
        name: np.concatenate([t[name] for _, t in blocks]) for name in ("event", "signal_to_noise", "enhancement_CO")
    }
    return cube, truth


def stored(parts: Sequence[scenes.Scene], folder: Path) -> tuple[xr.Dataset, np.ndarray]:
    """The cube of many granules with its radiances in files, and how much CO was added."""
    import dask.array as da

    cube, added = scenes.cube(parts), []
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, cube[name].shape)
        for name in ("radiance", "radiance_noise")
    }
    for start in range(0, len(parts), AT_ONCE):
        some, truth = made(parts[start : start + AT_ONCE], noise=True)
        lines = slice(start * LINES, start * LINES + some.sizes["scanline"])
        for name, array in arrays.items():
            array[lines] = some[name].values
        added.append(truth["enhancement_CO"])
    chunks = (LINES, -1, -1)
    lazy = {n: (cube[n].dims, da.from_array(a, chunks, name=False), cube[n].attrs) for n, a in arrays.items()}
    return cube.assign(lazy), np.concatenate(added)


def with_plumes(parts: Sequence[scenes.Scene], share: float) -> list[scenes.Scene]:
    """Granules with fires until so many of their pixels lie in plumes of at least a quarter of a column more."""
    random, found = np.random.default_rng(7), []
    wanted = share * LINES * parts[0].instrument.rows * len(parts)
    for part in parts:
        places = part._ground(part.first + np.arange(LINES))[1]["centre"]
        events: list[scenes.Event] = []
        while wanted > 0 and not events:
            lon, lat = part.place(int(random.integers(LINES)), int(random.integers(part.instrument.rows)))
            event = scenes.Event(
                f"plume {len(found)}", "fire", lon, lat, 0.5 * 8 ** random.random(), random.uniform(60, 200),
                random.uniform(12, 30), random.uniform(0, 360),
            )  # fmt: skip
            inside = int((event.at(places) >= 0.25).sum())
            if inside:
                events.append(event)
                wanted -= inside
        found.append(dataclasses.replace(part, events=tuple(events)))
    return found


def with_events(parts: Sequence[scenes.Scene], each: int = 1) -> list[scenes.Scene]:
    """Granules with small events, the kinds in turn."""
    random, found, number = np.random.default_rng(8), [], 0
    for part in parts:
        events = []
        for _ in range(each):
            kind = list(EVENTS)[number % len(EVENTS)]
            low, high = EVENTS[kind]
            lon, lat = part.place(int(random.integers(8, LINES - 8)), int(random.integers(2, part.instrument.rows - 2)))
            strength = low * (high / low) ** random.random()
            shape = random.uniform(25, 60), random.uniform(8, 15), random.uniform(0, 360)
            events.append(scenes.Event(f"{kind} {number}", kind, lon, lat, strength, *shape))
            number += 1
        found.append(dataclasses.replace(part, events=tuple(events)))
    return found


# What the chains say ----------------------------------------------------------------------------------------------------


def learn(cube: xr.Dataset, learning_size: int) -> xr.Dataset:
    return ScreeningBasis(learning_size=learning_size)(spectra=cube)


@dataclasses.dataclass
class Screened:
    """Pixels (granule, line, row) and events of some granules."""

    rate: np.ndarray
    co: np.ndarray
    co_rate: np.ndarray
    stratum: np.ndarray
    bright: np.ndarray
    result: xr.Dataset


def screen(cube: xr.Dataset, truth: dict[str, np.ndarray], basis: xr.Dataset, learnt: _basis.Learnt) -> Screened:
    result = Screening()(spectra=cube, basis=basis)
    rate = result["false_alarm_rate"].values
    stratum = learnt.strata.of(log_shapes.brightness(cube["radiance"].values), _spectra.in_anomaly(cube))
    stratum = np.where(np.isfinite(rate), stratum, -1)
    co = result["snr"].sel(gas="CO").values
    cut = (-1, LINES, rate.shape[1])
    each = {
        "rate": rate,
        "co": co,
        "co_rate": learnt.rates["CO"].false_alarm_rate(co, stratum),
        "stratum": stratum,
        "bright": np.isfinite(rate) & (truth["signal_to_noise"] >= BRIGHT),
    }
    return Screened(**{name: values.reshape(cut) for name, values in each.items()}, result=result)


class Rates:
    """Numbers of alarms and of pixels per granule, and their ratio with an interval."""

    def __init__(self):
        self.alarms: list[int] = []
        self.pixels: list[int] = []

    def add(self, alarm: np.ndarray, pixel: np.ndarray) -> None:
        """Of granules: arrays (granule, line, row)."""
        self.alarms += (alarm & pixel).sum(axis=(1, 2)).tolist()
        self.pixels += pixel.sum(axis=(1, 2)).tolist()

    def told(self) -> dict[str, float]:
        """The ratio and its standard error between granules (Cochran 1977, Sampling techniques, eq. 6.9)."""
        a, n = np.array(self.alarms, float), np.array(self.pixels, float)
        a, n = a[n > 0], n[n > 0]
        rate = a.sum() / max(n.sum(), 1)
        error = np.sqrt(np.square(a - rate * n).sum() * n.size / max(n.size - 1, 1)) / max(n.sum(), 1)
        return {"rate": rate, "low": max(rate - 1.96 * error, 0), "high": rate + 1.96 * error, "pixels": int(n.sum())}


def auc(null: np.ndarray, event: np.ndarray) -> float:
    """The share of pairs of which the one with the enhancement has the larger score; ties count half."""
    values = np.sort(null)
    below = np.searchsorted(values, event, "left") + np.searchsorted(values, event, "right")
    return float(below.mean() / (2 * values.size))


# Measurements -----------------------------------------------------------------------------------------------------------


def measure(sizes: Sizes, scratch: Path, say=lambda words: print(words, file=sys.stderr, flush=True)) -> dict:
    of, clock, seconds = detector(sizes.rows), time.perf_counter(), {}

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = round(time.perf_counter() - clock, 1), time.perf_counter()
        say(f"{name}: {seconds[name]} s, {_peak():.0f} MiB")

    learning = granules(of, sizes.granules, 1)
    report: dict = {}
    bases = {}
    for name, parts in (("clean", learning), ("plumes", with_plumes(learning, SHARE))):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            cube, added = stored(parts, Path(folder))
            lap(f"{name} granules to learn from")
            bases[name] = learn(cube, sizes.learning_size)
            lap(f"learning from {name} granules")
        if name == "plumes":
            report["plumes_learnt_from"] = float((added >= 0.25).mean())
    learnt = {name: _basis.of_dataset(basis) for name, basis in bases.items()}
    report["learnt"] = {
        "spectra": learnt["clean"].basis.spectra,
        "components": len(learnt["clean"].basis.values),
        "factors": learnt["clean"].basis.factors.shape[1],
        "scored": int(learnt["clean"].rates[_basis.COMBINED].together.number),
    }
    clean = granules(of, sizes.clean, learning[-1].orbit + 2)
    report["pixels"] = in_clean_pixels(clean, sizes.raised, bases, learnt, lap)
    report["ideal"] = ideal(clean[: sizes.raised], sizes.observed)
    lap("ideal observer")
    parts = with_events(granules(of, sizes.event_granules, clean[-1].orbit + 2))
    report["events"] = in_events(parts, sizes.observed, bases["clean"], learnt["clean"], lap)
    return report | {"seconds": seconds, "peak_mib": _peak()}


def in_clean_pixels(clean, raised: int, bases: dict, learnt: dict, lap) -> dict:
    """False alarms of all granules, and detection in the first ones with more CO."""
    names = learnt["clean"].strata.names
    strata = {name: Rates() for name in names}
    pooled = {"1e-3": Rates(), "1e-4": Rates()}
    alone = {name: Rates() for name in ("CO 1e-4",)}
    objects = Rates()
    kinds: dict[str, int] = {}
    scores: dict[tuple, list] = {}
    first = "clean"
    for start in range(0, len(clean), AT_ONCE):
        parts = clean[start : start + AT_ONCE]
        cases = {"none": parts}
        if start < raised:
            cases |= {"weak": [everywhere(p, WEAK) for p in parts], "strong": [everywhere(p, STRONG) for p in parts]}
        for case, some in cases.items():
            cube, truth = made(some)
            for which in bases if start < raised else [first]:
                got = screen(cube, truth, bases[which], learnt[which])
                if start < raised:
                    b = got.bright
                    granule = np.broadcast_to(np.arange(len(b))[:, None, None] + start, b.shape)[b]
                    scores.setdefault((which, case), []).append(
                        np.stack([got.co[b], -np.log10(got.rate[b]), -np.log10(got.co_rate[b]), granule])
                    )
                if case == "none" and which == first:
                    for s, name in enumerate(names):
                        strata[name].add(got.rate <= 1e-3, got.stratum == s)
                    for text, rates in pooled.items():
                        rates.add(got.rate <= float(text), got.stratum >= 0)
                    alone["CO 1e-4"].add(got.co_rate <= 1e-4, got.stratum >= 0)
                    event = got.result["event"].values.reshape(got.rate.shape)
                    found = [np.unique(e[e > 0]).size for e in event]
                    objects.alarms += found
                    objects.pixels += (got.stratum >= 0).sum(axis=(1, 2)).tolist()
                    for kind in got.result["event_class"].values:
                        name = ["unknown", *map(str, got.result["gas"].values)][int(kind) - UNKNOWN]
                        kinds[name] = kinds.get(name, 0) + 1
    lap("clean granules and those with more CO")
    joined = {key: np.concatenate(parts, axis=1) for key, parts in scores.items()}
    detection = {}
    for which in bases:
        null, weak, strong = (joined[which, case] for case in ("none", "weak", "strong"))
        detection[which] = {
            "auc_co": auc(null[0], weak[0]),
            "auc_combined": auc(null[1], weak[1]),
            "probability_combined": float((strong[1] >= 4).mean()),
            "probability_co": float((strong[2] >= 4).mean()),
            "false_combined": float((null[1] >= 4).mean()),
            "false_co": float((null[2] >= 4).mean()),
            "pixels": null.shape[1],
            "auc_error": _auc_error(null, weak),
        }
    return {
        "detection": detection,
        "strata_1e-3": {name: rates.told() for name, rates in strata.items()},
        "pooled": {text: rates.told() for text, rates in pooled.items()},
        "co_alone": {text: rates.told() for text, rates in alone.items()},
        "events_in_clean": objects.told() | {"kinds": kinds},
        "tails": {
            name: {"shape": curve.tail.shape, "fit": curve.tail.fit, "number": curve.number}
            for name, curve in zip(
                [*names, "all"],
                [*learnt["clean"].rates[_basis.COMBINED].curves, learnt["clean"].rates[_basis.COMBINED].together],
                strict=True,
            )
            if curve
        },
    }


def _auc_error(null: np.ndarray, weak: np.ndarray) -> float:
    """Half the 95 % interval of the area for CO: groups of granules one after the other left out (Tukey's jackknife)."""
    group = [values[3].astype(int) % 8 for values in (null, weak)]
    left = [auc(null[0][group[0] != k], weak[0][group[1] != k]) for k in range(8)]
    return float(1.96 * np.sqrt(7 / 8 * np.square(np.array(left) - np.mean(left)).sum()))


def ideal(parts: Sequence[scenes.Scene], observed: int) -> dict:
    rows = np.unique(np.linspace(0, parts[0].instrument.rows - 1, 4).round().astype(int))
    observer = scenes.Observer(parts, rows=rows, spectra=observed, least_signal_to_noise=BRIGHT)
    weak, strong = (observer.detect("CO", enhancement, scenes=parts) for enhancement in (WEAK, STRONG))
    least = special.ndtri(1 - 1e-4)
    return {
        "auc": weak.auc,
        "expected_auc": weak.expected_auc,
        "probability": float((strong.event > least).mean()),
        "deviation": float(weak.null.std()),
        "median_ratio_weak": float(np.median(weak.signal_to_noise)),
        "pixels": int(weak.null.size),
    }


def ratios(parts: Sequence[scenes.Scene], observed: int) -> np.ndarray:
    """With which ratio (granule, line, row) the ideal observer sees what events add."""
    rows = np.arange(parts[0].instrument.rows)
    found = np.zeros((len(parts), LINES, rows.size), np.float32)
    for some in np.array_split(rows, -(-rows.size // 12)):
        observer = scenes.Observer([dataclasses.replace(p, events=()) for p in parts], rows=some, spectra=observed)
        for one, part in zip(found, parts, strict=True):
            one[:, some] = observer.signal_to_noise(part)
    return found


def in_events(parts: Sequence[scenes.Scene], observed: int, basis: xr.Dataset, learnt: _basis.Learnt, lap) -> dict:
    """What became of each event, and the share of the data that was kept."""
    of = parts[0].instrument
    told, kept, screened, inside, false = [], 0, 0, 0, 0
    ratio = ratios(parts, observed)
    lap("ideal observer of events")
    for start in range(0, len(parts), AT_ONCE):
        cube, truth = made(parts[start : start + AT_ONCE])
        got = screen(cube, truth, basis, learnt)
        event = got.result["event"].values.reshape(got.rate.shape)
        true = truth["event"].reshape(got.rate.shape)
        called = dict(
            zip(got.result["event_number"].values.tolist(), got.result["event_class"].values.tolist(), strict=True)
        )
        names = ["unknown", *map(str, got.result["gas"].values)]
        picked = np.zeros(event.shape, bool).reshape(-1, of.rows)
        picked[got.result["selected_scanline"].values, got.result["selected_ground_pixel"].values] = True
        picked = picked.reshape(event.shape)
        kept, screened = kept + int(picked.sum()), screened + int((got.stratum >= 0).sum())
        inside += int((true > 0).sum())
        for number in called:
            false += not (true[event == number] > 0).any()
        for i, part in enumerate(parts[start : start + AT_ONCE]):
            for n, one in enumerate(part.events, 1):
                mine = true[i] == n
                if not mine.any() or not (got.stratum[i][mine] >= 0).any():
                    continue
                q = np.where(mine, ratio[start + i], 0)
                bright = np.where(got.stratum[i] >= 0, q, 0)
                met = np.bincount(event[i][mine & picked[i]])
                found = int(met.argmax()) if met[1:].any() else 0
                told.append(
                    {
                        "kind": one.kind,
                        "ratio": float(bright.max()),
                        "pixels": int((q >= 4).sum()),
                        "kept": bool((picked[i] & mine).any()),
                        "called": names[called[found] - UNKNOWN] if found in called else "",
                        "best_rate": float(np.nanmin(np.where(mine, got.rate[i], np.nan))),
                    }
                )
    lap("granules with events")
    return {"told": told, "kept": kept, "screened": screened, "in_events": inside, "false": false} | _summary(told)


def _summary(told: list[dict]) -> dict:
    seen = [one for one in told if one["ratio"] >= SEEN]

    def share(some: list[dict], test) -> dict:
        """With the interval of Wilson (1927, J. Am. Stat. Assoc. 22, 209-212)."""
        n, z = len(some), 1.96
        if not n:
            return {"share": float("nan"), "low": 0.0, "high": 1.0, "of": 0}
        p = sum(map(test, some)) / n
        middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return {
            "share": p,
            "low": (middle - half) / (1 + z * z / n),
            "high": (middle + half) / (1 + z * z / n),
            "of": n,
        }

    gases = [one for one in seen if NAMES[one["kind"]] != "unknown"]
    other = [one for one in seen if NAMES[one["kind"]] == "unknown"]
    table = {kind: {} for kind in EVENTS}
    for one in seen:
        called = one["called"] or "not found"
        table[one["kind"]][called] = table[one["kind"]].get(called, 0) + 1
    return {
        "kept_events": share(seen, lambda one: one["kept"]),
        "right_gas": share(gases, lambda one: one["called"] == NAMES[one["kind"]]),
        "unknown": share(other, lambda one: one["called"] == "unknown"),
        "right_gas_of_found": share([o for o in gases if o["called"]], lambda one: one["called"] == NAMES[one["kind"]]),
        "unknown_of_found": share([o for o in other if o["called"]], lambda one: one["called"] == "unknown"),
        "confusion": table,
    }


# ------------------------------------------------------------------------------------------------------------------------


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def goals(report: dict) -> Iterator[tuple[str, str, str, bool | None]]:
    """Each goal, what was measured, and whether it is met; None where there are too few pixels to tell."""
    pixels, best, events = report["pixels"], report["ideal"], report["events"]
    clean, plumes = pixels["detection"]["clean"], pixels["detection"]["plumes"]
    less = best["auc"] - clean["auc_co"]
    yield (
        "CO +25 %: area less than ideal",
        "<= 0.03",
        f"{less:.3f} ({clean['auc_co']:.3f} of {best['auc']:.3f})",
        less <= 0.03,
    )
    yield (
        "  the same, all detectors together",
        "",
        f"{best['auc'] - clean['auc_combined']:.3f} ({clean['auc_combined']:.3f})",
        None,
    )
    yield (
        "CO +100 %: found at 1e-4",
        ">= 0.9",
        f"{clean['probability_combined']:.3f} (CO alone {clean['probability_co']:.3f}, ideal {best['probability']:.3f})",
        clean["probability_combined"] >= 0.9,
    )
    loss = clean["probability_combined"] - plumes["probability_combined"]
    yield (
        f"loss with {100 * report['plumes_learnt_from']:.1f} % plumes learnt",
        "<= 0.05",
        f"{loss:.3f} (area {clean['auc_co'] - plumes['auc_co']:.3f})",
        max(loss, clean["auc_co"] - plumes["auc_co"]) <= 0.05,
    )
    for name, told in pixels["strata_1e-3"].items():
        enough = told["pixels"] >= 100_000
        ratio = told["rate"] / 1e-3
        yield (
            f"false alarms at 1e-3: {name}",
            "1/1.5 to 1.5",
            f"{ratio:.2f} ({told['low'] / 1e-3:.2f} to {told['high'] / 1e-3:.2f}, {told['pixels']} pixels)",
            (1 / 1.5 <= ratio <= 1.5) if enough else None,
        )
    for text, told in pixels["pooled"].items():
        ratio = told["rate"] / float(text)
        enough = told["pixels"] >= 2_000_000 or text == "1e-3"
        yield (
            f"false alarms at {text}: all",
            "1/1.5 to 1.5",
            f"{ratio:.2f} ({told['low'] / float(text):.2f} to {told['high'] / float(text):.2f}, {told['pixels']} pixels)",
            (1 / 1.5 <= ratio <= 1.5) if enough else None,
        )
    objects = pixels["events_in_clean"]
    yield (
        "events in a million clean pixels",
        "",
        f"{1e6 * objects['rate']:.1f} ({1e6 * objects['low']:.1f} to {1e6 * objects['high']:.1f}) {objects['kinds']}",
        None,
    )
    for name, least, words in (
        ("kept_events", 0.98, "events kept"),
        ("right_gas", 0.95, "gases named rightly"),
        ("unknown", 0.90, "unknown called unknown"),
    ):
        told = events[name]
        yield (
            f"{words} (ratio >= {SEEN:g})",
            f">= {least:g}",
            f"{told['share']:.3f} ({told['low']:.3f} to {told['high']:.3f}, {told['of']} events)",
            told["share"] >= least if told["of"] else None,
        )
    kept = events["kept"] / events["screened"]
    inside = events["in_events"] / events["screened"]
    yield "data kept", "<= 1 %", f"{100 * kept:.3f} % ({100 * inside:.2f} % lie in events)", kept <= SHARE


def table(report: dict) -> str:
    learnt = report["learnt"]
    rows = [
        f"{learnt['components']} components, {learnt['factors']} factors learnt from {learnt['spectra']} spectra, false "
        f"alarms from {learnt['scored']}; tail: generalised Pareto, shape "
        + ", ".join(f"{tail['shape']:.2f}" for tail in report["pixels"]["tails"].values())
    ]
    for goal, wanted, figure, met in goals(report):
        rows.append(f"{goal:<56} {wanted:>12}  {figure:<48} {'' if met is None else 'met' if met else 'NOT MET'}")
    rows.append(
        f"called, of ratio >= {SEEN:g}: {report['events']['confusion']}; false events {report['events']['false']}"
    )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> dict:
    """Measure, print the table of goals and write the report; returns it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes for some minutes, too few pixels for some goals")
    for field in dataclasses.fields(Sizes):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=int, help=f"{getattr(FULL, field.name)}, small {getattr(SMALL, field.name)}")
    parser.add_argument("--scratch", type=Path, help="folder for spectra to learn from, some GB for some minutes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Sizes)}
    sizes = dataclasses.replace(
        SMALL if options.small else FULL, **{name: value for name, value in given.items() if value is not None}
    )
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "sizes": dataclasses.asdict(sizes),
        **measure(sizes, options.scratch),
    }
    print(table(report))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "atmosphere_detection.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
