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
PARAMETERS = {"learning_size": 6000, "components": 12, "row_strata": 1, "brightness_strata": 2}


def granule(orbit: int = 1, scanlines: int = 150, events: tuple[spectra.Event, ...] = ()) -> spectra.Scene:
    """Scanlines northwards from the equator, in sunlight."""
    start = spectra.EPOCH + np.timedelta64(int(DETECTOR.period * orbit * 1e9), "ns")
    return spectra.Scene(DETECTOR, start, scanlines, events=events)


@cache
def _learnt() -> tuple[xr.Dataset, xr.Dataset]:
    from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis

    cube = spectra.cube([granule(1), granule(2)]).load()
    return cube, ScreeningBasis(**PARAMETERS)(spectra=cube)


def screening_basis() -> dict[str, Any]:
    """Two granules to learn from."""
    return {"inputs": {"spectra": spectra.cube([granule(1), granule(2)])}, "parameters": PARAMETERS}


def screening() -> dict[str, Any]:
    """A granule with a fire and a gas that is in no dictionary, and a basis of two others."""
    plain = granule(1, 120)
    fire = spectra.Event("fire", "fire", *plain.place(30, 20), 6.0, length=150.0, width=25.0)
    other = spectra.Event("unknown", "unknown", *plain.place(90, 45), 2.0, length=150.0, width=25.0)
    cube = spectra.cube(granule(1, 120, (fire, other)))
    return {"inputs": {"spectra": cube, "basis": _learnt()[1]}, "parameters": {}}
