"""Small synthetic scenes on which the chains of spectra are asked their questions."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

from phidias_lab.testing.scenes import spectra

#: A detector of few rows, and few scanlines of a summer's day.
DETECTOR = dataclasses.replace(spectra.TROPOMI_BAND_7, rows=64)
PARAMETERS = {"learning_size": 10_000, "components": 25, "row_strata": 1, "brightness_strata": 2}


def granule(
    orbit: float = 1, scanlines: int = 150, events: tuple[spectra.Event, ...] = (), of: spectra.Instrument = DETECTOR
) -> spectra.Scene:
    """Scanlines northwards, in sunlight: from the equator for a whole number of orbits, and before or after it for parts."""
    start = spectra.EPOCH + np.timedelta64(int(of.period * orbit * 1e9), "ns")
    return spectra.Scene(of, start, scanlines, events=events)


def spread(of: spectra.Instrument = DETECTOR, granules: int = 16, scanlines: int = 20) -> list[spectra.Scene]:
    """Short granules from all over two days, what is usual in them differs."""
    return [granule(1 + 2 * n + 0.16 * (n % 3 - 1), scanlines, of=of) for n in range(granules)]


@cache
def _learnt() -> tuple[xr.Dataset, xr.Dataset]:
    from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis

    cube = spectra.cube(spread()).load()
    return cube, ScreeningBasis(**PARAMETERS)(spectra=cube)


def screening_basis() -> dict[str, Any]:
    """Short granules to learn from."""
    return {"inputs": {"spectra": spectra.cube(spread())}, "parameters": PARAMETERS}


def screening() -> dict[str, Any]:
    """A granule with a fire and a gas that is in no dictionary, and a basis of others."""
    plain = granule(1, 120)
    fire = spectra.Event("fire", "fire", *plain.place(30, 20), 6.0, length=150.0, width=25.0)
    other = spectra.Event("unknown", "unknown", *plain.place(90, 45), 2.0, length=150.0, width=25.0)
    cube = spectra.cube(granule(1, 120, (fire, other)))
    return {"inputs": {"spectra": cube, "basis": _learnt()[1]}, "parameters": {}}
