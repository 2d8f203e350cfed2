"""Nested dissection of the nodes of a grid: in which order to eliminate them, and which of them together.

A set of nodes is cut by a layer, the separator, that is as thick as the matrix reaches; what lies on its two sides is
not coupled, is cut in the same way, and is eliminated before it (George 1973, doi:10.1137/0710032).  The grid tells
where to cut, so no graph has to be partitioned.  Each separator, and each set that is small enough not to be cut, is a
front: its nodes are eliminated together by dense algebra.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAF = 64
"""Sets of at most so many nodes are not cut: smaller ones cost more in calls than they save in operations."""
_BALANCE = 0.8
"""A cut may be this much less even than the most even one, for the sake of a smaller separator."""


@dataclass(frozen=True)
class Dissection:
    """The fronts in the order of their elimination, children before their parent.

    order : the nodes in the order of their elimination.
    start : front i eliminates the nodes order[start[i]:start[i + 1]].
    parent : the front above each front, -1 at the top.
    """

    order: np.ndarray
    start: np.ndarray
    parent: np.ndarray


def dissect(places: np.ndarray, reach: np.ndarray, far: tuple[np.ndarray, np.ndarray] | None = None) -> Dissection:
    """Dissect nodes whose places on the grid are rows of whole numbers.

    Nodes farther apart than `reach` along any dimension are not coupled, but for the pairs in `far`, whose lower one is
    taken into the separator where they would lie on different sides (a closed dimension, a constraint between places).
    """
    count, _ = places.shape
    order, start, parent = np.empty(count, np.int64), [0], []
    side = np.zeros(count, np.int8)

    def cut(nodes: np.ndarray, far) -> int:
        """Dissects a set, its parts first; returns the number of its front."""
        parts = _cut(nodes, places, reach) if nodes.size > LEAF else None
        if parts is not None and far is not None:
            parts = _without_far(parts, far, side)
        children = []
        if parts is not None:
            left, nodes, right = parts
            children = [cut(part, _within(part, far, side)) for part in (left, right)]
            nodes = nodes[_along(places[nodes])]
        front = len(parent)
        order[start[-1] : start[-1] + nodes.size] = nodes
        start.append(start[-1] + nodes.size)
        parent.append(-1)
        for child in children:
            parent[child] = front
        return front

    cut(np.arange(count), far)
    return Dissection(order, np.array(start), np.array(parent))


@dataclass(frozen=True)
class Cost:
    """What a factor over a box of nodes, all of them at sea, takes: bytes of it, and floating-point operations."""

    bytes: float = 0.0
    operations: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.operations + other.operations)


def cost(shape: Sequence[int], reach: Sequence[int]) -> Cost:
    """The cost of the factor over a box, from its size alone; land and what is closed or far make it differ."""

    @functools.cache
    def of(box: tuple[int, ...], open_: tuple[tuple[bool, bool], ...]) -> Cost:
        """Of a box, of which some sides touch separators that are eliminated later."""
        grown = math.prod(n + r * sum(sides) for n, r, sides in zip(box, reach, open_, strict=True))
        nodes, parts = math.prod(box), []
        axis = max(range(len(box)), key=lambda i: box[i] / reach[i])
        if nodes > LEAF and box[axis] >= reach[axis] + 2:
            first = (box[axis] - reach[axis]) // 2
            sides = open_[axis]
            for length, touching in ((first, (sides[0], True)), (box[axis] - reach[axis] - first, (True, sides[1]))):
                parts.append(of((*box[:axis], length, *box[axis + 1 :]), (*open_[:axis], touching, *open_[axis + 1 :])))
            nodes = nodes // box[axis] * reach[axis]
        boundary = grown - math.prod(box)
        own = Cost(8.0 * nodes * (nodes + boundary), nodes**3 / 3 + nodes**2 * boundary + nodes * boundary**2)
        return sum(parts, own)

    return of(tuple(int(n) for n in shape), tuple((False, False) for _ in shape))


def _cut(nodes: np.ndarray, places: np.ndarray, reach: np.ndarray):
    """The two sides of a set and the layer between them, across its longest dimension; None where none fits."""
    here = places[nodes]
    first = here.min(axis=0)
    extent = here.max(axis=0) - first + 1
    axis = int(np.argmax(extent / reach))
    thick = int(reach[axis])
    if extent[axis] < thick + 2:
        return None
    layer = here[:, axis] - first[axis]
    below = np.concatenate([[0], np.cumsum(np.bincount(layer, minlength=extent[axis]))])
    at = np.arange(1, extent[axis] - thick)
    between = below[at + thick] - below[at]
    smaller = np.minimum(below[at], nodes.size - below[at + thick])
    even = smaller >= _BALANCE * smaller.max()
    best = int(at[even][np.lexsort((-smaller[even], between[even]))[0]])
    lower, upper = layer < best, layer >= best + thick
    return nodes[lower], nodes[~(lower | upper)], nodes[upper]


def _without_far(parts, far, side: np.ndarray):
    """The same cut with the lower node of every far pair across it moved into the separator."""
    left, between, right = parts
    side[left], side[between], side[right] = 1, 0, 2
    one, other = far
    across = side[one] * side[other] == 2
    moved = np.unique(np.where(side[one] == 1, one, other)[across])
    side[moved] = 0
    left = left[side[left] == 1]
    return (left, np.concatenate([between, moved]), right) if left.size else None


def _within(nodes: np.ndarray, far, side: np.ndarray):
    """The far pairs both of whose nodes are in a set."""
    if far is None:
        return None
    one, other = far
    side[nodes] = 3
    inside = (side[one] == 3) & (side[other] == 3)
    side[nodes] = 0
    return (one[inside], other[inside]) if inside.any() else None


def _along(places: np.ndarray) -> np.ndarray:
    """The order of a separator's nodes along its longest dimension: what touches a part of it is then one run."""
    if not places.size:  # land between the sides
        return np.zeros(0, np.intp)
    extent = np.ptp(places, axis=0)
    return np.lexsort([places[:, axis] for axis in np.argsort(extent, kind="stable")])
