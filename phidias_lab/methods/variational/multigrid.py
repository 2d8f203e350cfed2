"""Coarser and coarser versions of the system, for the iterative solver: a geometric multigrid by B-splines.

A function on a coarser grid is a sum of B-splines; its values on the finer grid follow from the refinement equation of
these splines, and the coarser system is what the finer one says about such functions (Galerkin: P' A P).  Three things
differ from a textbook:

- The splines have the order m of the norm.  A norm of order m measures m derivatives, and with splines of less smoothness
  (the usual linear interpolation) every kink costs energy that grows from grid to grid.  The condition on the orders of
  transfer and operator is in Donatelli (2010, Numer. Linear Algebra Appl. 17, 179-197).
- A spline whose support is cut by land into several areas becomes a function for each of them.  Waters on both sides of
  an isthmus, which the fine system does not connect, are then not connected on the coarse grids either.
- A dimension is coarsened while its correlation length, in cells, is at least half of the longest; for others the smoothing
  by neighbours has no effect that a coarser grid could make use of.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.sparse import csgraph

from phidias_lab.methods.variational.grid import Grid

SMALLEST = 1000
"""A system of so few unknowns is inverted as a whole: 8 MB, and less time than a coarser grid would take."""
FEWEST = 4
"""Splines overlap the edge, so a dimension with so few cells gets no smaller."""
SHIFT = 1e-12
"""Splines that only one node sees are the same function twice: this part of the diagonal makes their system regular."""


@dataclass(frozen=True)
class Level:
    """One version of the system: its matrix, and the values of the next coarser functions (None on the coarsest)."""

    matrix: sparse.csr_array
    refine: sparse.csr_array | None


@dataclass(frozen=True)
class _Mesh:
    """Where the unknowns of a level lie: indices per dimension, neighbours along them, cells, lengths in cells."""

    places: np.ndarray
    neighbours: sparse.csr_array
    cells: tuple[int, ...]
    cyclic: tuple[bool, ...]
    reach: np.ndarray


def hierarchy(matrix: sparse.csr_array, grid: Grid, order: int) -> tuple[list[Level], sparse.csr_array | None]:
    """All levels from the finest on, and the inverse of the coarsest matrix (None where it would be too large).

    A coarsest system that is not positive definite is numpy's LinAlgError.
    """
    mesh, levels = _finest(grid), []
    while matrix.shape[0] > SMALLEST:
        coarsened = _coarsened(mesh)
        if not any(coarsened):
            break
        refine, coarser = _coarser(mesh, coarsened, order)
        if refine.shape[1] > 0.9 * refine.shape[0]:
            break
        levels.append(Level(matrix, refine))
        matrix, mesh = sparse.csr_array(refine.T @ (matrix @ refine)), coarser
    levels.append(Level(matrix, None))
    return levels, _inverse(matrix)


def _finest(grid: Grid) -> _Mesh:
    lower, upper = (np.concatenate(side) for side in zip(*(grid.faces(i) for i in range(grid.ndim)), strict=True))
    reach = [
        math.sqrt(np.mean((grid.lengths[i] * grid.metrics[i])[grid.mask] ** 2)) if i in grid.active else 0.0
        for i in range(grid.ndim)
    ]
    return _Mesh(
        np.stack(np.nonzero(grid.mask)),
        _graph(np.r_[lower, upper], np.r_[upper, lower], grid.nodes),
        grid.mask.shape,
        tuple(period > 0 for period in grid.periods),
        np.array(reach),
    )


def _graph(rows: np.ndarray, columns: np.ndarray, size: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(rows.size, np.float32), (rows, columns)), shape=(size, size))


def _coarsened(mesh: _Mesh) -> list[bool]:
    can = [reach > 0 and cells > FEWEST for reach, cells in zip(mesh.reach, mesh.cells, strict=True)]
    longest = max((reach for reach, possible in zip(mesh.reach, can, strict=True) if possible), default=0.0)
    return [possible and 2 * reach >= longest for reach, possible in zip(mesh.reach, can, strict=True)]


def _coarser(mesh: _Mesh, coarsened: list[bool], order: int) -> tuple[sparse.csr_array, _Mesh]:
    """The values of the coarser functions at the finer unknowns, and the mesh of the coarser functions."""
    columns = [
        _spline(places, order, (cells + 1) // 2 if cyclic else None) if halve else [(places, None)]
        for places, cells, cyclic, halve in zip(mesh.places, mesh.cells, mesh.cyclic, coarsened, strict=True)
    ]
    rows, found, values = [], [], []
    for choice in itertools.product(*columns):
        weight = np.prod([w for _, w in choice if w is not None], axis=0)
        row = np.flatnonzero(weight)
        rows.append(row)
        found.append(np.stack([place[row] for place, _ in choice]))
        values.append(weight[row])
    rows, found, values = np.concatenate(rows), np.concatenate(found, axis=1), np.concatenate(values)
    lowest = found.min(axis=1)
    extent = found.max(axis=1) - lowest + 1
    number = np.ravel_multi_index(tuple(found - lowest[:, None]), extent)
    numbers, column = np.unique(number, return_inverse=True)
    refine = sparse.csr_array((values, (rows, column)), shape=(mesh.places.shape[1], numbers.size))
    refine, origin = _split(refine, mesh)
    places = np.stack(np.unravel_index(numbers[origin], extent)) + lowest[:, None]
    cells = [
        ((n + 1) // 2 if halve else n) if cyclic else int(size)
        for n, size, cyclic, halve in zip(mesh.cells, extent, mesh.cyclic, coarsened, strict=True)
    ]
    reach = np.where(coarsened, mesh.reach / 2, mesh.reach)
    neighbours = _neighbours(refine, mesh, places, cells)
    return refine, _Mesh(places, neighbours, tuple(cells), mesh.cyclic, reach)


def _spline(places: np.ndarray, order: int, period: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The coarser B-splines that each place sees along one dimension, with their values there (0 where it sees none).

    Refinement equation: the spline of order p at c is the sum over j of binomial(p + 1, j) / 2^p times the finer spline at
    2c - (p + 1) // 2 + j.
    """
    seen = []
    for j in range(order + 2):
        twice = places + (order + 1) // 2 - j
        weight = np.where(twice % 2 == 0, math.comb(order + 1, j) / 2.0**order, 0.0)
        seen.append((twice // 2 if period is None else twice // 2 % period, weight))
    return seen


def _split(refine: sparse.csr_array, mesh: _Mesh) -> tuple[sparse.csr_array, np.ndarray]:
    """A column for each connected area in the support of a column, and the column that each came from."""
    fine, coarse = refine.shape
    entries = refine.tocoo()
    full = 2 * len(mesh.cells)
    cut = np.diff(mesh.neighbours.indptr) < full  # beside land or an edge
    suspect = np.zeros(coarse, bool)
    suspect[entries.col[cut[entries.row]]] = True
    chosen = np.flatnonzero(suspect[entries.col])
    key = entries.col[chosen].astype(np.int64) * fine + entries.row[chosen]
    order = np.argsort(key)
    chosen, key = chosen[order], key[order]
    row, column = entries.row[chosen], entries.col[chosen].astype(np.int64)
    # Two entries of a column are connected where their rows are neighbours.
    start = mesh.neighbours.indptr[row].astype(np.int64)
    count = mesh.neighbours.indptr[row + 1] - start
    source = np.repeat(np.arange(row.size), count)
    within = np.arange(source.size) - np.repeat(np.cumsum(count) - count, count)
    other = column[source] * fine + mesh.neighbours.indices[start[source] + within]
    target = np.minimum(np.searchsorted(key, other), max(key.size - 1, 0))
    there = key[target] == other if key.size else np.zeros(0, bool)
    graph = _graph(source[there], target[there], row.size)
    areas, label = csgraph.connected_components(graph, directed=False)
    whole = np.flatnonzero(~suspect)
    renumbered = np.empty(coarse, np.int64)
    renumbered[whole] = np.arange(whole.size)
    columns = renumbered[entries.col]
    columns[chosen] = whole.size + label
    origin = np.empty(whole.size + areas, np.int64)
    origin[: whole.size] = whole
    origin[whole.size + label] = column
    return sparse.csr_array((entries.data, (entries.row, columns)), shape=(fine, origin.size)), origin


def _neighbours(refine: sparse.csr_array, mesh: _Mesh, places: np.ndarray, cells: list[int]) -> sparse.csr_array:
    """Which coarser functions are one step apart and meet: they share an unknown, or see two that are neighbours."""
    seen = sparse.csr_array((np.ones(refine.nnz, np.float32), refine.indices, refine.indptr), shape=refine.shape)
    near = mesh.neighbours + sparse.eye_array(refine.shape[0], dtype=np.float32)
    meeting = (seen.T @ (near @ seen)).tocoo()
    steps = np.zeros(meeting.nnz, np.int64)
    for along, size, cyclic in zip(places, cells, mesh.cyclic, strict=True):
        step = np.abs(along[meeting.row] - along[meeting.col])
        steps += np.minimum(step, size - step) if cyclic else step
    beside = steps == 1
    return _graph(meeting.row[beside], meeting.col[beside], places.shape[1])


def _inverse(matrix: sparse.csr_array) -> sparse.csr_array | None:
    """The inverse of the coarsest system, area by area; sparse, since areas have nothing to do with each other."""
    size = matrix.shape[0]
    _, label = csgraph.connected_components(matrix, directed=False)
    if (np.bincount(label).astype(float) ** 2).sum() > 4 * SMALLEST**2:
        return None
    order = np.argsort(label, kind="stable")
    rows, columns, entries = [], [], []
    for members in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        block = matrix[members][:, members].toarray()
        if not (np.diag(block) > 0).all():
            raise np.linalg.LinAlgError("The coarsest system is not positive definite.")
        scale = 1 / np.sqrt(np.diag(block))
        block = (block + block.T) / 2 * scale[:, None] * scale + SHIFT * np.eye(members.size)
        block = linalg.cho_solve(linalg.cho_factor(block), np.diag(scale)) * scale[:, None]
        rows.append(np.repeat(members, members.size))
        columns.append(np.tile(members, members.size))
        entries.append(((block + block.T) / 2).ravel())
    return sparse.csr_array(
        (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
    )
