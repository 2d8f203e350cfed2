"""An analysis that stays between bounds: inequality constraints by an active set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from phidias_lab.errors import InputError
from phidias_lab.methods.variational.analysis import Analysis, analyse

HELD = 1e-8
"""Variance, relative to the background's, with which a node is held at a bound: so small that it hardly gives way."""
TRIES = 30
"""Analyses after which the nodes at bounds should have settled; a handful is usual."""


def analyse_within(mask, *arguments, least=None, greatest=None, constraints=(), error=None, **options) -> Analysis:
    """`analyse`, with a field that is nowhere below `least` or above `greatest` (numbers or arrays of the mask's shape, as
    anomalies; infinite or None where there is no bound).

    A node beyond a bound gets the bound as a datum of hardly any variance, and loses it when the analysis draws it back
    inside by itself, until no node changes. So does DIVAnd (inequality constraint); it is the primal-dual active set method
    of Hintermueller, Ito and Kunisch (2003, doi:10.1137/S1052623401383558), whose end is the field of least cost within the
    bounds. Error variance and cost are those of the analysis without bounds, whose error is no smaller.
    """
    sea = np.asarray(mask, bool)
    low, high = _bounds(sea, least, greatest)
    first = analyse(mask, *arguments, constraints=constraints, error=error, **options)
    found, _ = _settled(first, sea, (mask, *arguments), low, high, constraints, options)
    within = found.field.copy()
    within[sea] = np.clip(found.field[sea], low, high)
    return replace(found, field=within, error_variance=first.error_variance, cost=first.cost)


def held(mask, *arguments, least=None, greatest=None, constraints=(), **options) -> list:
    """The constraints under which `analyse` gives the field of `analyse_within`: those given, and the nodes at bounds."""
    sea = np.asarray(mask, bool)
    low, high = _bounds(sea, least, greatest)
    first = analyse(mask, *arguments, constraints=constraints, **options)
    return _settled(first, sea, (mask, *arguments), low, high, constraints, options)[1]


def _bounds(sea: np.ndarray, least, greatest) -> tuple[np.ndarray, np.ndarray]:
    low = np.broadcast_to(-np.inf if least is None else np.asarray(least, float), sea.shape)[sea]
    high = np.broadcast_to(np.inf if greatest is None else np.asarray(greatest, float), sea.shape)[sea]
    if not (low < high).all():
        raise InputError("A lower bound of the analysis is not below the upper one. Give bounds that leave room.")
    return low, high


def _settled(first: Analysis, sea, arguments, low, high, constraints, options) -> tuple[Analysis, list]:
    """The analysis whose nodes at bounds do not change any more, and its constraints."""
    found, asked = first, list(constraints)
    before = np.zeros(low.size, int)
    for _ in range(TRIES):
        field = found.field[sea]
        beyond = np.where(field < low, -1, np.where(field > high, 1, 0))
        if np.array_equal(beyond, before):
            return found, asked
        before = beyond
        at = np.flatnonzero(beyond)
        rows = sparse.csr_array((np.ones(at.size), (np.arange(at.size), at)), shape=(at.size, beyond.size))
        bounds = (rows, HELD, np.where(beyond < 0, low, high)[at])
        asked = [*constraints, bounds] if at.size else list(constraints)
        found = analyse(*arguments, constraints=asked, **options)
    raise InputError(
        f"The bounds of the analysis still change the nodes they hold after {TRIES} analyses. Give wider bounds, or a "
        "transform that keeps them."
    )
