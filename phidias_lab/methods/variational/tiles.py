"""A grid that outgrows the memory, solved in tiles that overlap.

The system of the whole grid, A x = b, is never built. A tile solves the rows of its window, a core and a halo around it,

    A_ww x_w = b_w - A_wr x_r

with the values x_r of the ring beyond the window that the last pass gave the tiles there (0 at first), and keeps the values
of its core. That is the overlapping Schwarz iteration (Schwarz 1870; Dolean, Jolivet and Nataf 2015, sect. 1.2,
doi:10.1137/1.9781611974065): what it leaves wrong at the ring reaches the core as the covariance decays over the halo, so
each pass takes off that factor, and its end is the solution of the whole system: no seam is left to be smoothed.

The error variance, the diagonal of A^-1, takes no iteration. The inverse of A_ww is below it by what the ring would add,
which is of the order of the square of that decay (Schur complement of the ring).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from phidias_lab.methods import progress
from phidias_lab.methods.variational import solvers, variance
from phidias_lab.methods.variational.system import System

HALO = {2: 10.0, 3: 11.0}
"""Correlation lengths between the core of a tile and its ring, by the number of dimensions. The covariance is 2e-4 there, in
the plane with the order 2 of the norm and in space with the order 3 (`norm.kernel`), so the error variance is right to some
1e-7, and each pass leaves some 1e-3 at most of what was wrong."""
LEAST_HALO = 12
"""Nodes that a halo has at least. Where the length is near the spacing or below, the covariance falls from node to node and
not as the kernel does, by a factor of about (spacing / length)^2 where that is large."""
CONSISTENT = 1e-7
"""Passes end when what is still to come is below this part of the greatest value of the field."""
PASSES = 30
"""More are never needed with that halo; an iteration that goes on for so long does not converge."""


def ring(reach: int) -> int:
    """How many nodes beyond a window a tile must know for the rows of the window to be those of the whole grid.

    A row reaches so many nodes; the outermost nodes of a part have the metrics of an edge, so one more.
    """
    return reach + 1


def solve(system: System, window: np.ndarray, around: np.ndarray, solver: str = "auto") -> np.ndarray:
    """The field of a tile's window for the values around it; on the ring it is as given.

    system : of the window and its ring.
    window : the nodes that are solved, in the shape of the grid.
    around : values of the same shape; what the window holds does not matter.
    """
    matrix, inside = system.matrix, window[system.grid.mask]
    field = np.where(inside, 0.0, np.nan_to_num(around[system.grid.mask]))
    own = sparse.csr_array(matrix[inside][:, inside])
    right = (system.right - matrix @ field)[inside]
    if right.any():
        factor = solvers.factorise(own, _places(system, window), solver, progress.begin())
        field[inside] = solvers.solve(factor, own, right)
    return system.grid.on_grid(field)


def error_variance(system: System, window: np.ndarray, *, prior: bool = False) -> np.ndarray:
    """The error variance relative to the background's at the nodes of a window, NaN elsewhere; with `prior` that of the
    background itself, which the norm gives it."""
    matrix, inside = system.prior if prior else system.matrix, window[system.grid.mask]
    found = np.full(inside.size, np.nan)
    if inside.any():
        own = sparse.csr_array(matrix[inside][:, inside])
        found[inside] = variance.diagonal_of(own, _places(system, window))
    return system.grid.on_grid(found)


def to_come(change: float, before: float) -> float:
    """What is still wrong after a pass that changed the field by so much, where the pass before changed it by `before`.

    Passes converge linearly: with the factor q = change / before, what is to come is change (q + q^2 + ...).
    """
    if change == 0:
        return 0.0
    q = change / before if before else 1.0
    return change * q / (1 - q) if q < 1 else np.inf


def _places(system: System, window: np.ndarray) -> solvers.Places:
    return solvers.Places(replace(system.grid, mask=system.grid.mask & window), system.places.reach)
