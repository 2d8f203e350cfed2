"""The exact error variance: the diagonal of the inverse of the system."""

from __future__ import annotations

import numpy as np

from phidias_lab.methods.variational.solvers import Factor

BLOCK_BYTES = 64 * 2**20
"""Memory of one block of right-hand sides; the solution takes as much again."""


def inverse_diagonal(factor: Factor, size: int) -> np.ndarray:
    """Diagonal of the inverse of the factorised matrix, one solve per node, in blocks of bounded memory."""
    width = int(np.clip(BLOCK_BYTES // (8 * size), 1, 256))
    diagonal = np.empty(size)
    for start in range(0, size, width):
        nodes = np.arange(start, min(start + width, size))
        columns = np.arange(nodes.size)
        unit = np.zeros((size, nodes.size), order="F")
        unit[nodes, columns] = 1
        diagonal[nodes] = factor.solve(unit)[nodes, columns]
    return diagonal
