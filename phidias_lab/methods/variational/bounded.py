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
    low = np.broadcast_to(-np.inf if least is None else np.asarray(least, float), sea.shape)[sea]
    high = np.broadcast_to(np.inf if greatest is None else np.asarray(greatest, float), sea.shape)[sea]
    if not (low < high).all():
        raise InputError("A lower bound of the analysis is not below the upper one. Give bounds that leave room.")
    first = found = analyse(mask, *arguments, constraints=constraints, error=error, **options)
    held = np.zeros(low.size, int)
    for _ in range(TRIES):
        field = found.field[sea]
        beyond = np.where(field < low, -1, np.where(field > high, 1, 0))
        if np.array_equal(beyond, held):
            within = found.field.copy()
            within[sea] = np.clip(field, low, high)
            return replace(found, field=within, error_variance=first.error_variance, cost=first.cost)
        held = beyond
        at = np.flatnonzero(held)
        rows = sparse.csr_array((np.ones(at.size), (np.arange(at.size), at)), shape=(at.size, held.size))
        bounds = (rows, HELD, np.where(held < 0, low, high)[at])
        found = analyse(mask, *arguments, constraints=[*constraints, bounds] if at.size else constraints, **options)
    raise InputError(
        f"The bounds of the analysis still change the nodes they hold after {TRIES} analyses. Give wider bounds, or a "
        "transform that keeps them."
    )
