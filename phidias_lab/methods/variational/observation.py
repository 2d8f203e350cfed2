"""The observation operator: multilinear interpolation from the sea nodes to the observations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from phidias_lab.errors import InputError
from phidias_lab.methods.variational.edges import Edges
from phidias_lab.methods.variational.grid import Grid

SNAP = 50 * np.finfo(float).eps
"""Relative rounding within which an observation just outside the grid belongs to its edge."""


@dataclass(frozen=True)
class Place:
    """Where the observations lie along one dimension: the cell, the weight of its upper node, and whether inside."""

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    inside: np.ndarray


def grid_lines(coords, grid: Grid) -> list[np.ndarray]:
    """The coordinate of each dimension as a vector, from vectors or from arrays of the mask's shape."""
    coords = list(coords)
    if len(coords) != grid.ndim:
        raise InputError(
            f"{len(coords)} coordinates were given for a mask of {grid.ndim} dimensions. "
            f"Give a list with one array per dimension."
        )
    lines = []
    for i, values in enumerate(coords):
        values = np.asarray(values, float)
        size = grid.mask.shape[i]
        if values.shape == grid.mask.shape:
            line = values[tuple(slice(None) if j == i else 0 for j in range(grid.ndim))]
            along = line.reshape([-1 if j == i else 1 for j in range(grid.ndim)])
            step = np.abs(np.diff(line)).min() if size > 1 else 1.0
            if not (np.abs(values - along) <= 1e-6 * step).all():
                raise InputError(
                    f"The coordinate of dimension {i} changes along other dimensions too (or is not finite). "
                    f"Observations can be located only where each coordinate depends on its own dimension."
                )
        elif values.shape == (size,):
            line = values
        else:
            raise InputError(
                f"The coordinate of dimension {i} has the shape {values.shape}, but the mask has {grid.mask.shape}. "
                f"Give a vector of {size} values or an array of the mask's shape."
            )
        steps = np.diff(line)
        if not np.isfinite(line).all() or not ((steps > 0).all() or (steps < 0).all()):
            raise InputError(
                f"The coordinate of dimension {i} neither rises nor falls throughout. Sort the grid along it."
            )
        period = grid.periods[i]
        if period and abs(line[-1] - line[0]) >= period:
            raise InputError(
                f"The coordinate of the cyclic dimension {i} spans {abs(line[-1] - line[0]):g}, not less than its "
                f"period {period:g}. Leave out the node that repeats the first one."
            )
        lines.append(line)
    return lines


def _place(line: np.ndarray, positions: np.ndarray, period: float, first=None, last=None) -> Place:
    """Cells of a monotonic line; `first` and `last` replace the coordinates of the end nodes, per observation."""
    size = line.size
    if line[-1] < line[0]:
        first, last = (None if end is None else -end for end in (first, last))
        line, positions = -line, -positions
    if period:
        # One virtual node repeats the first, so that the cell across the seam is a cell like any other.
        line = np.append(line, line[0] + period)
        positions = line[0] + np.mod(positions - line[0], period)
    first = np.broadcast_to(line[0] if first is None else first, positions.shape)
    last = np.broadcast_to(line[-1] if last is None else last, positions.shape)
    tolerance = SNAP * np.maximum(np.abs(first), np.abs(last))
    inside = (positions >= first - tolerance) & (positions <= last + tolerance)
    lower = np.clip(np.searchsorted(line[1:-1], positions, side="right"), 0, max(line.size - 2, 0))
    upper = np.minimum(lower + 1, line.size - 1)
    below = np.where(lower == 0, first, line[lower])
    above = np.where(upper == line.size - 1, last, line[upper])
    width = np.where(above > below, above - below, 1.0)
    weight = np.clip((positions - below) / width, 0, 1)
    return Place(lower % size, upper % size, weight, inside)


def _corners(places: list[Place]):
    """Every corner of the observations' cells: its node per dimension and its multilinear weight."""
    for sides in itertools.product((False, True), repeat=len(places)):
        nodes = tuple(place.upper if up else place.lower for place, up in zip(places, sides, strict=True))
        weight = np.ones(1)
        for place, up in zip(places, sides, strict=True):
            weight = weight * (place.weight if up else 1 - place.weight)
        yield nodes, weight


def _edge_at(edge: np.ndarray, places: list[Place]) -> np.ndarray:
    """A moved edge coordinate, which may vary along the other dimensions, at the observations."""
    return np.asarray(sum(weight * edge[nodes] for nodes, weight in _corners(places)))


def operator(
    grid: Grid, lines: list[np.ndarray], positions: list[np.ndarray], edges: Edges, *, renormalise: bool
) -> tuple[sparse.csr_array, np.ndarray]:
    """The matrix H from sea nodes to observations, and which observations it can use.

    Corners on land have no weight.  With `renormalise` the weights that remain are scaled to sum 1; without, an
    observation next to land sees a damped field (the convention of octave-divand).  Rows of observations outside the
    grid, or with no sea corner, are empty.
    """
    plain = [_place(*each) for each in zip(lines, positions, grid.periods, strict=True)]
    places = []
    for i, place in enumerate(plain):
        if i in edges:
            others = plain[:i] + plain[i + 1 :]
            first, last = (_edge_at(edge, others) for edge in edges[i])
            place = _place(lines[i], positions[i], 0.0, first, last)
        places.append(place)
    inside = np.logical_and.reduce([place.inside for place in places])
    count = positions[0].size
    rows, columns, weights = [], [], []
    for nodes, weight in _corners(places):
        number = grid.number[nodes]
        keep = inside & (number >= 0) & (weight > 0)
        rows.append(np.flatnonzero(keep))
        columns.append(number[keep])
        weights.append(weight[keep])
    rows, columns, weights = (np.concatenate(each) for each in (rows, columns, weights))
    total = np.bincount(rows, weights, minlength=count)
    used = total > SNAP
    if renormalise:
        weights = weights / total[rows]
    keep = used[rows]
    matrix = sparse.csr_array((weights[keep], (rows[keep], columns[keep])), shape=(count, grid.nodes))
    return matrix, used
