"""The exact error variance: the diagonal of the inverse of the system; and a background of the same variance everywhere.

Our own factor gives the diagonal by selected inversion, for about the price of the factorisation.  The factors of other
packages only solve, so there it takes a solve per node: exact too, and slow.

Beside a wall the norm means more variance than 1: no flux through the wall mirrors the covariance there (Lindgren et al.
2011, sect. 2.3 and A.4, doi:10.1111/j.1467-9868.2011.00777.x), two to three times in the plane.  With the diagonal S_ii of
the inverse S of the norm's matrix, and D = diag(S_ii^-1/2), the covariance

    B = D S D                                  B^-1 = D^-1 S^-1 D^-1

has the variance 1 at every node and the correlations of S: what an observation says across a strait or around a cape is
as before, only its scale beside the coast is that of the open sea.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from phidias_lab.methods import progress
from phidias_lab.methods.variational.multifrontal import Multifrontal
from phidias_lab.methods.variational.solvers import Factor, Places, Progress, factorise

FACTOR = 0.25
"""What the factorisation takes of the time of both, where the diagonal of the inverse is wanted too."""
BLOCK_BYTES = 64 * 2**20
"""Memory of one block of right-hand sides; the solution takes as much again."""


def inverse_diagonal(factor: Factor, size: int, tell: Progress | None = None) -> np.ndarray:
    """Diagonal of the inverse of the factorised matrix."""
    if isinstance(factor, Multifrontal):
        return factor.selected_inverse(tell).diagonal
    return _by_solves(factor, size, tell)


def diagonal_of(matrix: sparse.csr_array, places: Places) -> np.ndarray:
    """Diagonal of the inverse of a matrix over the nodes of a grid."""
    tell = progress.begin()
    # Ours by name, whatever solves the analysis: the factors of others do not tell the diagonal of the inverse.
    factor = factorise(matrix, places, "multifrontal", progress.part(tell, 0.0, FACTOR))
    return inverse_diagonal(factor, matrix.shape[0], progress.part(tell, FACTOR, 1.0))


def scaled(precision: sparse.csr_array, deviation: np.ndarray) -> sparse.csr_array:
    """The inverse of a covariance whose values are divided by their standard deviations; as symmetric as it was."""
    entries = precision.tocoo()
    row, column = entries.coords
    data = entries.data * (deviation[row] * deviation[column])
    return sparse.csr_array((data, (row, column)), shape=precision.shape)


def _by_solves(factor: Factor, size: int, tell: Progress | None) -> np.ndarray:
    """One solve per node, in blocks of bounded memory."""
    width = int(np.clip(BLOCK_BYTES // (8 * size), 1, 256))
    diagonal = np.empty(size)
    for start in range(0, size, width):
        nodes = np.arange(start, min(start + width, size))
        columns = np.arange(nodes.size)
        unit = np.zeros((size, nodes.size), order="F")
        unit[nodes, columns] = 1
        diagonal[nodes] = factor.solve(unit)[nodes, columns]
        if tell is not None:
            tell((start + nodes.size) / size)
    return diagonal
