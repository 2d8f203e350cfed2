"""Observations that the others around them contradict: exact leave-one-out residuals, in robust standard deviations.

An outlier spoils what is expected of its neighbours, so there are two looks. The first leaves each observation out in turn
(`cross_validation`). Those that stand out are then left out together, and what the rest says of them and of all others
decides.  The residual of one that is left out is y_i - h_i x, its variance R_ii + h_i P h_i', with x and P those of the
analysis of the rest; P is needed at the corners of one cell, where the selected inverse has it.  The background variance is
not known; the scale of the residuals comes from themselves, by the median of |z| (1.4826 times that is the standard
deviation of a Gaussian: Rousseeuw and Croux 1993, doi:10.1080/01621459.1993.10476408).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from phidias_lab.methods.variational import system
from phidias_lab.methods.variational.cross_validation import leave_one_out
from phidias_lab.methods.variational.multifrontal import Multifrontal

ROBUST = 1.4826


class Judged(NamedTuple):
    """Per observation; NaN where it lies outside the grid or on land."""

    z: np.ndarray  # robust standard deviations from what is expected
    expected: np.ndarray  # by the others


def judge(mask, metrics, coords, obs_coords, values, length, noise: float, limit: float, *, cyclic=()) -> Judged:
    """Judge each observation by the others; the arguments are those of `analyse`, and `limit` is what stands out."""
    values = np.asarray(values, float)
    z, expected = np.full((2, values.size), np.nan)

    def look(centred, apart):
        each = np.where(apart, np.inf, noise)
        found = system.build(mask, metrics, coords, obs_coords, centred, length, each, cyclic=cyclic)
        factor = Multifrontal(found.matrix, found.places.nodes, found.places.reach)
        return found, factor.solve(found.right), factor.selected_inverse()

    centre = float(np.median(values))
    first, field, inverse = look(values - centre, np.zeros(values.size, bool))
    used = first.used
    if used.sum() < 2:
        return Judged(z, expected)
    left = leave_one_out(first, field, inverse)
    z[used], expected[used] = _scaled(left.standardised), values[used] - left.residual
    apart = used & (np.abs(np.nan_to_num(z)) > limit)
    if not apart.any() or apart.sum() > used.sum() / 2:
        return Judged(z, expected)
    rest, field, inverse = look(values - centre, apart)
    left = leave_one_out(rest, field, inverse)
    rows = first.interpolation[apart[used]]
    residual = values[apart] - centre - rows @ field
    variance = noise + np.asarray((rows @ inverse.matrix()).multiply(rows).sum(axis=1)).ravel()
    raw = np.full(values.size, np.nan)
    raw[rest.used], raw[apart] = left.standardised, residual / np.sqrt(variance)
    expected[rest.used], expected[apart] = values[rest.used] - left.residual, values[apart] - residual
    z[used] = raw[used] / _scale(left.standardised)
    return Judged(z, expected)


def _scale(residuals: np.ndarray) -> float:
    return max(ROBUST * float(np.median(np.abs(residuals))), np.finfo(float).tiny)


def _scaled(residuals: np.ndarray) -> np.ndarray:
    return residuals / _scale(residuals)
