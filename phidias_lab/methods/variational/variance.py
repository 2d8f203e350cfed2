"""The exact error variance: the diagonal of the inverse of the system.

Our own factor gives it by selected inversion, for about the price of the factorisation.  The factors of other packages
only solve, so there it takes a solve per node: exact too, and slow.
"""

from __future__ import annotations

import numpy as np

from phidias_lab.methods.variational.multifrontal import Multifrontal
from phidias_lab.methods.variational.solvers import Factor

BLOCK_BYTES = 64 * 2**20
"""Memory of one block of right-hand sides; the solution takes as much again."""


def inverse_diagonal(factor: Factor, size: int) -> np.ndarray:
    """Diagonal of the inverse of the factorised matrix."""
    if isinstance(factor, Multifrontal):
        return factor.selected_inverse().diagonal
    return _by_solves(factor, size)


def _by_solves(factor: Factor, size: int) -> np.ndarray:
    """One solve per node, in blocks of bounded memory."""
    width = int(np.clip(BLOCK_BYTES // (8 * size), 1, 256))
    diagonal = np.empty(size)
    for start in range(0, size, width):
        nodes = np.arange(start, min(start + width, size))
        columns = np.arange(nodes.size)
        unit = np.zeros((size, nodes.size), order="F")
        unit[nodes, columns] = 1
        diagonal[nodes] = factor.solve(unit)[nodes, columns]
    return diagonal
