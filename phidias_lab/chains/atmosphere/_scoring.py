"""Scores of all pixels of a cube of spectra: lazy, block by block."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr

from phidias_lab.chains.atmosphere import _spectra
from phidias_lab.chains.atmosphere._basis import COMBINED, Learnt
from phidias_lab.errors import InputError
from phidias_lab.methods import alarms, screening

#: What decides which pixels are screened.
PLACES = ("latitude", "longitude", "solar_zenith_angle", "ground_pixel_quality")


#: A channel is hit by a particle where its residual is so many deviations from the mean of its neighbours'. Spectra of a
#: response of several channels have no such lines of one; 6 sqrt(1.5) deviations of noise come once in 10^9 channels.
_HIT = 6 * 1.5**0.5
#: Below this share more than usual, what is left of a spectrum is not searched for hits.
_SUSPECT = 1.1
#: The extrema of so many channels are looked up one by one; of more all are.
_MANY = 60


class Pixels(NamedTuple):
    """Of a block (lines, rows): which pixels are screened, and which lie in the South Atlantic anomaly."""

    good: np.ndarray
    anomaly: np.ndarray


class Rows:
    """For each granule what its rows need to be scored; granules with the same wavelengths share it."""

    def __init__(
        self, spectra: xr.Dataset, basis: screening.Basis, dead: np.ndarray, stripe: np.ndarray, radiances: bool
    ):
        self.spectra, self.basis, self.radiances = spectra, basis, radiances
        # What is known of the detector holds for this detector only.
        same = dead.shape == (spectra.sizes["ground_pixel"], spectra.sizes["spectral_channel"])
        self.dead, self.stripe = (dead, stripe) if same else (None, None)
        self._lights: dict[int, _spectra.Light] = {}
        self._scorers: dict[bytes, Any] = {}

    def light(self, granule: int) -> _spectra.Light:
        if granule not in self._lights:
            # Granules come in order, so those before are not needed any more.
            self._lights = {granule: _spectra.light(self.spectra, granule, self.radiances, self.basis, self.stripe)}
        return self._lights[granule]

    def scorer(self, granule: int) -> Any:
        """A `screening.Scorer`, as a delayed task that all blocks of the granule share."""
        wavelength = self.light(granule).wavelength
        grid = self.basis.wavelength
        if wavelength.max() < grid[0] or wavelength.min() > grid[-1]:
            raise InputError(
                f"The spectra of {_spectra.names(self.spectra)[granule]} cover {wavelength.min():.0f} to "
                f"{wavelength.max():.0f} nm, and the basis {grid[0]:.0f} to {grid[-1]:.0f} nm. Give a basis of their band."
            )
        key = wavelength.tobytes()
        if key not in self._scorers:
            self._scorers[key] = dask.delayed(_ready, pure=False)(uuid.uuid4().hex, self.basis, wavelength, self.dead)
        return self._scorers[key]


_lock, _scorers = threading.Lock(), OrderedDict()


def _ready(name: str, *of: Any) -> screening.Scorer:
    """A scorer that each process makes once; the two of most recent use are kept."""
    with _lock:
        if name not in _scorers:
            _scorers[name] = screening.Scorer(*of)
        _scorers.move_to_end(name)
        while len(_scorers) > 2:
            _scorers.popitem(last=False)
        return _scorers[name]


def lazy(
    spectra: xr.Dataset,
    rows: Rows,
    score: Callable[..., dict[str, np.ndarray]],
    outputs: dict[str, tuple[tuple[str, ...], dict[str, int], type]],
    good: Callable[[xr.Dataset], np.ndarray],
) -> xr.Dataset:
    """What `score(radiance, pixels, light, scorer)` gives of each block, put together.

    `outputs` says of each variable its dimensions, the length of those that are none of the pixels', and its type; the
    first is `block` or `scanline`. Blocks without a good pixel are not read.
    """
    parts: dict[str, list[Any]] = {name: [] for name in outputs}
    radiance = spectra["radiance"]
    width = spectra.sizes["ground_pixel"]
    for block, places in _spectra.iterate(spectra, PLACES):
        wanted = Pixels(good(places), _spectra.in_anomaly(places))
        lines = wanted.good.shape[0]
        found = None
        if wanted.good.any():
            values = radiance.isel(scanline=block.lines).data
            if hasattr(values, "rechunk"):
                values = values.rechunk(-1).to_delayed(optimize_graph=False).item()
            light = rows.light(block.granule)
            found = dask.delayed(score, pure=False)(values, wanted, light, rows.scorer(block.granule))
        for name, (dims, sizes, kind) in outputs.items():
            known = {"block": 1, "scanline": lines, "ground_pixel": width, **sizes}
            shape = tuple(known[dim] for dim in dims)
            empty = np.nan if np.dtype(kind).kind == "f" else -1
            parts[name].append(
                da.full(shape, empty, dtype=kind, chunks=shape)
                if found is None
                else da.from_delayed(found[name], shape, kind)
            )
    made = {}
    for name, (dims, _, _) in outputs.items():
        axis = next(i for i, dim in enumerate(dims) if dim in ("block", "scanline"))
        made[name] = (dims, da.concatenate(parts[name], axis=axis))
    return xr.Dataset(made)


def scores(
    radiance: np.ndarray, pixels: Pixels, light: _spectra.Light, scorer: screening.Scorer, level: _spectra.Level
) -> tuple[screening.Scores, screening.Extrema, np.ndarray]:
    """The scores of a block and how bright its pixels are; channels that particles hit are taken for missing."""
    y, brightness = _spectra.shapes(radiance, light.sun)
    y[~pixels.good] = np.nan
    y = level.even(y, light.mean, brightness, light.stripe)
    found, extrema = scorer.score(y, cores=1)
    line, row = np.nonzero(found.unexplained > _SUSPECT)
    hit = hits(scorer.residual(y[line, row], found.components[line, row], row, without_gases=True))
    changed = hit.any(axis=1)
    line, row, hit = line[changed], row[changed], hit[changed]
    if line.size:
        y[line, row] = np.where(hit, np.nan, y[line, row])
        _again(scorer, y, line, row, found)
        extrema = _without(scorer, y, line, row, found, extrema)
    return found, extrema, brightness


def _again(scorer, y: np.ndarray, line: np.ndarray, row: np.ndarray, found: screening.Scores) -> None:
    """Score some spectra of a block once more."""
    for mine, other in zip(found, some(scorer, y[line, row], row), strict=True):
        mine[line, row] = other


def some(scorer: screening.Scorer, y: np.ndarray, row: np.ndarray) -> screening.Scores:
    """Scores of spectra (p, m) of given rows: those of each row stand one below the other in a block."""
    if scorer.rows == 1:
        found, _ = scorer.score(y[:, None], cores=1)
        return screening.Scores(*(values[:, 0] for values in found))
    order = np.argsort(row, kind="stable")
    place = np.empty(row.size, int)
    place[order] = np.arange(row.size) - np.searchsorted(row[order], row[order])
    block = np.full((place.max(initial=-1) + 1, scorer.rows, scorer.m), np.nan, np.float32)
    block[place, row] = y
    found, _ = scorer.score(block, cores=1)
    return screening.Scores(*(values[place, row] for values in found))


def _without(scorer, y, line, row, found: screening.Scores, extrema: screening.Extrema) -> screening.Extrema:
    """Extrema of a block some spectra of which have changed: of the channels in which one of these had them."""
    changed = line * y.shape[1] + row
    values = [np.array(values) for values in extrema]
    if np.isin(values[2:], changed).sum() > _MANY:
        return scorer.score(y, cores=1)[1]
    for value, at, best in ((values[0], values[2], np.nanargmax), (values[1], values[3], np.nanargmin)):
        for channel in np.flatnonzero(np.isin(at, changed)):
            r = scorer.channel(y, found.components, channel)
            value[channel], at[channel] = np.nan, -1
            if np.isfinite(r).any():
                at[channel] = best(r)
                value[channel] = r.flat[at[channel]]
    return screening.Extrema(*values)


def hits(residual: np.ndarray) -> np.ndarray:
    """Which channels (..., m) of residuals without gases, whose lines may be strong, stand out alone."""
    filled = np.nan_to_num(residual)
    apart = np.zeros_like(filled)
    apart[..., 1:-1] = filled[..., 1:-1] - (filled[..., :-2] + filled[..., 2:]) / 2
    # What is beside a hit stands apart from it too, the other way and half as far.
    return (np.abs(apart) > _HIT) & (np.abs(filled) > _HIT / 2)


def snr(found: np.ndarray, usual: tuple[np.ndarray, np.ndarray], stratum: np.ndarray) -> np.ndarray:
    """SNRs (..., gas) of middle 0 and unit variance in usual spectra of each stratum."""
    middle, deviation = (values.T.astype(np.float32)[stratum] for values in usual)
    return np.where(stratum[..., None] < 0, np.nan, (found - middle) / deviation)


def judged(detectors: np.ndarray, stratum: np.ndarray, learnt: Learnt) -> np.ndarray:
    """The false-alarm rate of all detectors (..., detector) together."""
    each = np.stack(
        [learnt.rates[name].false_alarm_rate(detectors[..., i], stratum) for i, name in enumerate(learnt.detectors)],
        axis=-1,
    )
    together = learnt.rates[COMBINED].false_alarm_rate(alarms.combined(each), stratum)
    return np.where(stratum < 0, np.nan, together)
