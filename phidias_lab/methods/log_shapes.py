"""The logarithm of spectra less its mean over the channels, which takes out what all channels share, such as the albedo.

Where channels are missing the mean is one over the others, which shifts the spectrum by a constant; a basis of such spectra
therefore has a constant among its components. The factors of a reflectance that all channels share are left out from the
start: with the Sun's distance d and zenith angle theta, pi I d^2 / (cos(theta) E) has the shape of I / E.
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: Every so many channels tell how bright a spectrum is.
_STEP = 8


def log_shape(radiance: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """ln I less the reference, less the mean over the channels (..., m); NaN where there is none.

    The reference, such as ln E, is one for all spectra, one for each, or one for each row of spectra (lines, rows, m).
    """
    radiance = np.ascontiguousarray(radiance, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(radiance)
    flat = y.reshape(-1, y.shape[-1])
    if flat.size:
        _loops()[0](flat, _two(np.zeros(y.shape[-1]) if reference is None else reference))
    return y


def brightness(radiance: np.ndarray) -> np.ndarray:
    """ln of the mean radiance (...) of some channels of spectra; NaN where it has none."""
    radiance = np.ascontiguousarray(radiance, np.float32)
    found = np.full(radiance.shape[:-1], np.nan, np.float32)
    if radiance.size:
        _loops()[1](radiance.reshape(-1, radiance.shape[-1]), found.reshape(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(found, out=found)


def scaled(y: np.ndarray, middle: np.ndarray, factor: np.ndarray, about: np.ndarray) -> None:
    """y becomes (y - middle) factor + about, with middle and about as the reference above and a factor for each spectrum."""
    if y.size:
        factor = np.ascontiguousarray(factor, np.float32).reshape(-1)
        _loops()[2](y.reshape(-1, y.shape[-1]), _two(middle), factor, _two(about))


def _two(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).reshape(-1, values.shape[-1])


@cache
def _loops():
    """The loops, compiled when they are first asked for."""
    import numba

    # Sums may be taken in any order; missing values are still told from others.
    compiled = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})

    @compiled
    def centre(y, reference):
        for i in range(y.shape[0]):
            row, mine = y[i], reference[i % reference.shape[0]]
            total, number = np.float32(0), np.float32(0)
            for j in range(row.size):
                value = row[j] - mine[j]
                there = abs(value) < np.inf
                total += value if there else np.float32(0)
                number += np.float32(1) if there else np.float32(0)
                row[j] = value if there else np.float32(np.nan)
            if number > 0:
                mean = total / number
                for j in range(row.size):
                    row[j] -= mean

    @compiled
    def bright(radiance, found):
        for i in range(radiance.shape[0]):
            row = radiance[i]
            total, number = np.float32(0), 0
            for j in range(0, row.size, _STEP):
                if abs(row[j]) < np.inf:
                    total += row[j]
                    number += 1
            if number:
                found[i] = total / np.float32(number)

    @compiled
    def scale(y, middle, factor, about):
        for i in range(y.shape[0]):
            row, from_, to = y[i], middle[i % middle.shape[0]], about[i % about.shape[0]]
            for j in range(row.size):
                row[j] = (row[j] - from_[j]) * factor[i] + to[j]

    return centre, bright, scale
