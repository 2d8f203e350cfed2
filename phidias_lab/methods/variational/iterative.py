"""The iterative solver: conjugate gradients on the same matrix, preconditioned by a multigrid cycle.

The system has the condition of a bi- or tri-Laplacian: for a correlation length of 50 cells about 10^8, so plain conjugate
gradients need thousands of steps.  With a cycle of `multigrid` as preconditioner they need 10 to 30, about the same on every
grid, and memory for little more than twice the matrix.  All of it is products with sparse matrices and sums of vectors, so
the same code runs on the processor and on a GPU (`methods.arrays`).

When is the field good enough?  With A the system, r = b - A x the residual of the field x and e its error, A e = r::

    |e_i| = |u_i' e| <= sqrt(u_i' A^-1 u_i) sqrt(e' A e) = sqrt(P_ii) sqrt(r' A^-1 r)        (Cauchy-Schwarz)
    r' A^-1 r <= r' M r / theta

where P = A^-1 is the error covariance of the analysis, P_ii at most about 1 (relative to the background), M the
preconditioner and theta the smallest eigenvalue of M A.  So sqrt(r' M r / theta) bounds the error of the field at every
node, in the units of the field and in parts of the analysis' own error.  The steps yield theta: it is the smallest
eigenvalue of their Lanczos matrix (Golub and Meurant 2010, Matrices, Moments and Quadrature with Applications, chapter 12),
which settles before the residual does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from phidias_lab.errors import InputError
from phidias_lab.methods import arrays
from phidias_lab.methods.variational import multigrid, norm
from phidias_lab.methods.variational.grid import Grid

TOLERANCE = 1e-8
"""Bound of the error at any node in parts of the largest value: far below what observations tell, far above rounding."""
MOST = 1000
"""Steps after which something is wrong: ordinary problems need 10 to 50, contrived ones some hundreds."""
AGAIN = 5
"""How often the steps start anew from a residual computed afresh, to be rid of their own rounding."""


@dataclass(frozen=True)
class _Level:
    """A level where it is computed: its matrix, smoothing steps, and the ways to and from the coarser level."""

    matrix: object
    scaling: object
    refine: object
    restrict: object


class Iterative:
    """The system, ready to be solved; `place` is where. What the Factor of a direct solver is, without a factor."""

    name = "iterative"

    def __init__(self, matrix: sparse.csr_array, grid: Grid, place: arrays.Place | None = None):
        self.place = place or arrays.on("auto")
        order = norm.coefficients(None, len(grid.active)).size - 1
        # The range of eigenvalues that one level must smooth grows with the power of the Laplacian.
        self.degree = 2 * order
        try:
            levels, inverse = multigrid.hierarchy(matrix, grid, order)
        except np.linalg.LinAlgError as error:
            raise singular() from error
        self.steps = 0
        self.bytes_per_step = _bytes(levels, inverse, self.degree)
        with self.place.active():
            put, sparse_ = self.place.put, self.place.matrix
            self.inverse = None if inverse is None else sparse_(inverse)
            self.levels = [
                _Level(
                    sparse_(level.matrix),
                    put(1 / (abs(level.matrix) @ np.ones(level.matrix.shape[0]))),
                    None if level.refine is None else sparse_(level.refine),
                    None if level.refine is None else sparse_(sparse.csr_array(level.refine.T)),
                )
                for level in levels
            ]

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve for one right-hand side or for a block of them (columns), each to the tolerance."""
        with self.place.active():
            return self.place.get(self._solve(self.place.put(np.ascontiguousarray(right, float))))

    def _solve(self, right):
        xp, matrix = self.place.xp, self.levels[0].matrix
        field, residual = xp.zeros_like(right), right
        theta, self.steps = 1.0, 0
        for _ in range(AGAIN):
            towards = self._cycle(residual)
            rest = self._dot(residual, towards)
            size = self._largest(field)
            if (np.sqrt(rest / theta) <= TOLERANCE * size).all():
                return field
            direction, scales, ratios = towards, [], []
            while self.steps < MOST:
                self.steps += 1
                product = matrix @ direction
                curvature = self._dot(direction, product)
                if not ((curvature > 0) | (rest == 0)).all():  # also where one of them is NaN
                    raise singular()
                scale = np.where(rest > 0, rest / np.where(curvature > 0, curvature, 1.0), 0.0)
                field = field + self._scalars(scale) * direction
                residual = residual - self._scalars(scale) * product
                towards = self._cycle(residual)
                before, rest = rest, self._dot(residual, towards)
                scales.append(scale)
                ratios.append(np.where(before > 0, rest / np.where(before > 0, before, 1.0), 0.0))
                # The bound is at least sqrt(rest), so the eigenvalue is needed only near the end.
                wanted = 0.5 * TOLERANCE * self._largest(field)
                if (np.sqrt(rest) <= wanted).all():
                    theta = min(theta, _smallest(scales, ratios))
                    if (np.sqrt(rest / theta) <= wanted).all():
                        break
                direction = towards + self._scalars(ratios[-1]) * direction
            residual = right - matrix @ field
        bound = float(np.max(np.sqrt(np.abs(rest) / theta) / np.where(size > 0, size, 1.0)))
        raise InputError(
            f"After {self.steps} steps of the iterative solver the field may still be wrong by {bound:.1g} of its largest "
            f"value, and {TOLERANCE:g} is wanted. Choose the solver 'auto', or look for correlation lengths of very many "
            "grid cells, lengths that differ very much from place to place, or noise close to 0."
        )

    def _cycle(self, right, number: int = 0):
        """One V-cycle: an approximate solution, symmetric in its input, from all levels from this one on."""
        level = self.levels[number]
        if number + 1 == len(self.levels):
            return self._smooth(level, None, right)[0] if self.inverse is None else self.inverse @ right
        solution, residual = self._smooth(level, None, right)
        solution = solution + level.refine @ self._cycle(level.restrict @ residual, number + 1)
        return self._smooth(level, solution, right - level.matrix @ solution, again=False)[0]

    def _smooth(self, level: _Level, solution, residual, again: bool = True):
        """Chebyshev steps of the fourth kind (Lottes 2023, doi:10.1002/nla.2518, algorithm of section 3) from a solution.

        They damp all of (0, 1], more the higher, and ask for no bound but the upper one; that is 1 here, because each row
        is scaled by the sum of its absolute values (Baker et al. 2011, doi:10.1137/100798806).  `again` asks for the
        residual after the last step too.
        """
        scaling = level.scaling if residual.ndim == 1 else level.scaling[:, None]
        step = (4 / 3) * scaling * residual
        for k in range(1, self.degree + 1):
            if k > 1:
                step *= (2 * k - 3) / (2 * k + 1)
                step += (8 * k - 4) / (2 * k + 1) * scaling * residual
            solution = self.place.xp.asarray(step, copy=True) if solution is None else solution + step
            if again or k < self.degree:
                residual = residual - level.matrix @ step
        return solution, residual

    def _dot(self, a, b) -> np.ndarray:
        return self.place.get(self.place.xp.sum(a * b, axis=0))

    def _largest(self, values) -> np.ndarray:
        return self.place.get(self.place.xp.max(self.place.xp.abs(values), axis=0))

    def _scalars(self, values: np.ndarray):
        """One number, or one for each column, to multiply with."""
        return float(values) if values.ndim == 0 else self.place.put(values)


def _smallest(scales: list[np.ndarray], ratios: list[np.ndarray]) -> float:
    """Smallest eigenvalue of the Lanczos matrices of the steps, over all right-hand sides."""
    alpha, beta = np.array(scales).reshape(len(scales), -1), np.array(ratios).reshape(len(ratios), -1)
    found = []
    for a, b in zip(alpha.T, beta.T, strict=True):
        steps = int((a > 0).sum())  # a column that is solved exactly makes no more steps
        if not steps:
            continue
        a, b = a[:steps], b[: steps - 1]
        diagonal, beside = 1 / a + np.r_[0.0, b / a[:-1]], np.sqrt(b) / a[:-1]
        found += list(linalg.eigh_tridiagonal(diagonal, beside, True, "i", (0, 0)))
    smallest = min(found, default=1.0)
    return smallest if smallest > 0 else math.ulp(1.0)


def _bytes(levels: list[multigrid.Level], inverse: sparse.csr_array | None, degree: int) -> int:
    """Bytes that one step moves: each matrix and vector whenever it is read or written.

    A matrix entry is a value and a column, 8 + 4 bytes; a step of smoothing reads and writes 8 vectors beside its product.
    """

    def product(matrix: sparse.csr_array) -> int:
        return 12 * matrix.nnz + 4 * matrix.shape[0] + 8 * sum(matrix.shape)

    total = product(levels[0].matrix) + 8 * 12 * levels[0].matrix.shape[0]
    for level in levels[:-1]:
        smoothing = 2 * degree * (product(level.matrix) + 8 * 8 * level.matrix.shape[0])
        total += smoothing + 2 * product(level.refine)
    return total + (2 * degree * product(levels[-1].matrix) if inverse is None else product(inverse))


def singular() -> InputError:
    """What is said of a system that no solver can solve."""
    return InputError(
        "The system has no unique solution to working precision. Look for correlation lengths of very many grid cells, "
        "noise close to 0, or a norm without its first coefficient on a sea area without observations."
    )
