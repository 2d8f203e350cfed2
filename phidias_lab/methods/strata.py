"""Strata: parts of the data that are treated alike, and what is kept of each of them in one pass.

A stratum is a combination of classes of some quantities (rows of the swath, solar zenith angle, brightness, surface, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from phidias_lab.errors import InputError

#: With more strata, each holds too little to learn from, and a table of them is no longer read.
MOST = 64


class Axis(NamedTuple):
    """One quantity that strata are made of: classes between rising `edges`, or named whole numbers.

    A class holds its lower edge; the last one holds its upper edge too.
    """

    name: str
    edges: Sequence[float] = ()
    labels: Mapping[int, str] | None = None
    units: str = ""

    def classes(self) -> list[str]:
        if self.labels is not None:
            return [f"{self.name} {label}" for label in self.labels.values()]
        after = f" {self.units}" if self.units else ""
        pairs = zip(self.edges[:-1], self.edges[1:], strict=True)
        return [f"{self.name} {low:g} to {high:g}{after}" for low, high in pairs]

    def of(self, values: np.ndarray) -> np.ndarray:
        """The class of each value, -1 where it is in none."""
        values = np.asarray(values)
        if self.labels is not None:
            known = np.array(sorted(self.labels))
            order = np.array([list(self.labels).index(value) for value in known])
            at = np.minimum(np.searchsorted(known, values), known.size - 1)
            return np.where(known[at] == values, order[at], -1)
        edges = np.asarray(self.edges, float)
        found = np.searchsorted(edges, values, "right") - 1
        found = np.where(values == edges[-1], edges.size - 2, found)
        return np.where(found < edges.size - 1, found, -1)  # NaN is sorted behind the last edge


def names(axes: Sequence[Axis]) -> list[str]:
    """The names of the strata in the order of their numbers; an InputError where the axes make no usable strata."""
    for axis in axes:
        bad = len(axis.edges) < 2 or not (np.diff(axis.edges) > 0).all() if axis.labels is None else not axis.labels
        if bad:
            raise InputError(
                f"The stratum axis {axis.name!r} has no classes. Give at least two rising edges, or labels of whole numbers."
            )
    made = [""]
    many = math.prod(len(axis.classes()) for axis in axes)
    if many > MOST:
        raise InputError(
            f"The axes {', '.join(axis.name for axis in axes)} make {many} strata, and at most {MOST} are told apart. "
            "Take fewer axes or wider classes."
        )
    for axis in axes:
        made = [f"{before}, {new}" if before else new for before in made for new in axis.classes()]
    return made


def assign(axes: Sequence[Axis], *values: np.ndarray) -> np.ndarray:
    """The number of the stratum of each place (the last axis varies fastest), -1 where a value is in no class."""
    names(axes)
    stratum, outside = np.zeros((), np.int64), np.zeros((), bool)
    for axis, column in zip(axes, values, strict=True):
        found = axis.of(column)
        stratum = stratum * len(axis.classes()) + found
        outside = outside | (found < 0)
    return np.where(outside, -1, stratum).astype(np.int32)


class Smallest:
    """Of each stratum the rows with the smallest keys, at most so many.

    Which rows these are does not depend on the order in which they come, nor on how they are shared out among several of
    these that are merged later. Rows are columns of the same length: first the key, then as many others as tell equal keys
    apart (`keys` in all), then what is only carried along.
    """

    def __init__(self, shares: np.ndarray, columns: Sequence[type], keys: int, unique: bool = False):
        self.shares = np.asarray(shares, np.int64)
        self.keys, self.unique = keys, unique
        self.stratum = np.empty(0, np.int64)
        self.columns = [np.empty(0, kind) for kind in columns]
        self.full = np.zeros(self.shares.size, bool)
        self.limit = np.zeros(self.shares.size, columns[0])  # the largest key kept, where the share is used up
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._many = 0

    def admits(self, stratum: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The rows that may be kept; of the others it is known already that they are not."""
        small = (key <= self.limit[stratum]) | ~self.full[stratum]
        return np.flatnonzero(small & (stratum >= 0) & (self.shares[stratum] > 0))

    def add(self, stratum: np.ndarray, *columns: np.ndarray) -> None:
        self._waiting.append((stratum, *columns))
        self._many += stratum.size
        # Sorting now and then costs less than sorting what is kept at each call.
        if self._many > max(20_000, self.shares.sum() // 4):
            self.settle()

    def settle(self) -> None:
        """Sort in what has come."""
        if not self._waiting:
            return
        parts = [(self.stratum, *self.columns), *self._waiting]
        stratum, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._waiting, self._many = [], 0
        order = np.lexsort((*reversed(columns[: self.keys]), stratum))
        if self.unique:
            same = np.diff(stratum[order]) == 0
            for column in columns[: self.keys]:
                same &= column[order[1:]] == column[order[:-1]]
            order = order[~np.r_[False, same][: order.size]]
        sizes = np.bincount(stratum[order], minlength=self.shares.size)
        rank = np.arange(order.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = order[rank < self.shares[stratum[order]]]
        self.stratum, self.columns = stratum[order], [column[order] for column in columns]
        kept = np.minimum(sizes, self.shares)
        self.full = (kept == self.shares) & (kept > 0)
        self.limit[self.full] = self.columns[0][(np.cumsum(kept) - 1)[self.full]]

    def number(self) -> np.ndarray:
        """How many rows are kept of each stratum."""
        self.settle()
        return np.bincount(self.stratum, minlength=self.shares.size)
