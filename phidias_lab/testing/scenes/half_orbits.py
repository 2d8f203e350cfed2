"""The spectra of the demo lake: three half orbits over Africa and Europe, of few and large pixels. Synthetic.

Two of them are of one day, for learning; in the third, of the next day, four things happen at known places. Pixels are 54 km
wide and 56 km long, so that a half orbit stays small, and what happens is as large as that asks for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phidias_lab.testing.scenes import spectra
from phidias_lab.testing.scenes.spectra import Event, Scene

INSTRUMENT = replace(spectra.TROPOMI_BAND_7, rows=48, line_time=8.4)
#: From 60 degrees south to 80 degrees north, in sunlight at the beginning of May.
SCANLINES = 280
#: What atmosphere.screening_basis is asked for; the many classes of whole orbits would hold too few of these spectra.
LEARNT = {"learning_size": 8000, "components": 20, "row_strata": 1, "brightness_strata": 4}


def _half_orbit(orbit: int, seed: int) -> Scene:
    start = spectra.EPOCH + np.timedelta64(int((orbit - 60 / 360) * INSTRUMENT.period * 1e9), "ns")
    return Scene(INSTRUMENT, start, SCANLINES, seed)


def learning(seed: int) -> list[Scene]:
    """Two half orbits in which nothing happens."""
    return [_half_orbit(6, seed), _half_orbit(7, seed)]


def happening(seed: int) -> Scene:
    """A half orbit of the next day: a large fire, pollution of weeks, a gas that no dictionary knows, and flares."""
    plain = _half_orbit(21, seed)
    events = (
        Event("fire", "fire", *plain.place(112, 20), 5.0, length=280.0, width=50.0, direction=300.0),
        Event("pollution", "fire", *plain.place(225, 30), 2.0, length=280.0, width=60.0, direction=80.0),
        Event("unknown gas", "unknown", *plain.place(165, 30), 2.0, length=260.0, width=45.0, direction=60.0),
        Event("flare", "flare", *plain.place(185, 12), 30.0, width=45.0),
    )
    return replace(plain, events=events)
