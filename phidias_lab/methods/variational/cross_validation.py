"""What the other observations say at the place of each observation: exact leave-one-out, for all of them at once.

With K = H B H' + R the covariance of the observations, leaving observation i out gives the residual and its variance

    y_i - y^(-i) = (K^-1 y)_i / (K^-1)_ii            variance = 1 / (K^-1)_ii

(Dubrule 1983, doi:10.1007/BF01033232; Rasmussen and Williams 2006, eq. 5.12), and by the formula of Woodbury
K^-1 = R^-1 - R^-1 H P H' R^-1, where P is the error covariance of the analysis.  The entries of P that its diagonal needs
couple corners of one cell, or of observations with correlated errors: the system has entries there, so the selected
inverse holds them.  With uncorrelated errors this is the r_i / (1 - A_ii) of DIVAnd, which samples A_ii.

Length and noise by cross-validation are those that make the values most probable, each given all others: the score

    mean of log(s2 v_i) + r_i^2 / (s2 v_i)           r_i, v_i: residual and variance above, s2 = mean of r_i^2 / v_i

is least (Rasmussen and Williams 2006, eq. 5.10 and 5.11).  The mean square of the residuals alone, which DIVA makes least,
hardly tells length from noise: along the ridge where the length grows as the noise falls, the predictions stay the same
(in the limit a spline), and only what they say of their own error changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from phidias_lab.methods.variational.multifrontal import Selected
from phidias_lab.methods.variational.parameters import BOUND, Estimate, Family, Parameter, told, undecided
from phidias_lab.methods.variational.system import System

_DRAWS, _STEP = 200, 0.1
"""Samples of the estimated covariance from which the uncertainty is taken, and the step of its differences."""


@dataclass(frozen=True)
class LeftOut:
    """Per observation in use: its value less what the others say there, and the variance of that difference.

    residual : in the units of the values.
    variance : relative to the background variance, like the noise, which is part of it.
    """

    residual: np.ndarray
    variance: np.ndarray

    @property
    def standardised(self) -> np.ndarray:
        """Residuals over their standard deviation, for a background variance of 1."""
        return self.residual / np.sqrt(self.variance)


def leave_one_out(system: System, field: np.ndarray, inverse: Selected) -> LeftOut:
    """Leave each observation out in turn, given the analysis at the sea nodes and the selected inverse of its matrix."""
    weighted = system.weight @ system.interpolation
    explained = (weighted @ inverse.matrix()).multiply(weighted).sum(axis=1)
    precision = system.weight.diagonal() - np.asarray(explained).ravel()
    misfit = system.weight @ (system.values - system.interpolation @ field)
    return LeftOut(misfit / precision, 1 / precision)


class Score(Family):
    """The score above as a function of log factors of the lengths (per group of dimensions) and of the noise."""

    def left_out(self, logs: np.ndarray, values: np.ndarray | None = None) -> LeftOut:
        """Leave each observation out in turn; `values` may hold columns of other values at the same places."""
        self.evaluations += 1
        here = self.build(logs)
        factor = self.factor("whole", here.matrix, here.places)
        field = factor.solve(here.right)
        found = leave_one_out(here, field, factor.selected_inverse())
        if values is None:
            return found
        weighted = here.weight @ values
        misfit = here.weight @ (values - here.interpolation @ factor.solve(here.interpolation.T @ weighted))
        return LeftOut(misfit * found.variance[:, None], found.variance[:, None])

    def value(self, logs: np.ndarray) -> float:
        return float(_score(self.left_out(logs)))

    def draws(self, logs: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
        """Columns of values at the places of the observations, drawn from the covariance that these parameters mean."""
        here = self.build(logs)
        random = np.random.default_rng(seed)
        fields = self.factor("prior", here.prior, here.places).colour(
            random.standard_normal((here.prior.shape[0], number))
        )
        white = random.standard_normal((here.values.size, number))
        if here.weight.nnz == here.values.size:
            errors = white / np.sqrt(here.weight.diagonal())[:, None]
        else:  # with R^-1 = L L', L'^-1 times white noise has the covariance R
            errors = linalg.solve_triangular(np.linalg.cholesky(here.weight.toarray()).T, white)
        return here.interpolation @ fields + errors


def _score(left_out: LeftOut) -> np.ndarray:
    scale = np.mean(left_out.residual**2 / left_out.variance, axis=0)
    return np.log(scale) + np.mean(np.log(left_out.variance), axis=0) + 1.0


def estimate(
    *arguments,
    length,
    noise,
    groups: Sequence[Sequence[int]],
    progress: Callable[[str], None] | None = None,
    **options,
) -> Estimate:
    """The lengths and the noise with which the observations predict each other best, from a first guess of both.

    The uncertainty is that of an estimate by any smooth score (Godambe 1960; Varin et al. 2011, Statistica Sinica 21,
    5-42, sect. 2.2): G^-1 = H^-1 J H^-1, with H the mean curvature of the score and J the covariance of its slopes, both
    from samples of the covariance that was estimated.  Refuses where the observations do not tell.
    """
    score = Score(*arguments, length=length, noise=noise, groups=groups, **options)
    score.check_number()
    size = score.size
    start = np.vstack([np.zeros(size), 0.5 * np.eye(size)])
    found = optimize.minimize(
        told(score.value, progress, "cross-validation", score),
        start[0],
        method="Nelder-Mead",
        bounds=[(-BOUND, BOUND)] * size,
        options={"initial_simplex": start, "xatol": 0.02, "fatol": 1e-6, "maxfev": 150 * size},
    )
    if np.any(np.abs(found.x) >= BOUND - 0.02):
        raise undecided("the best prediction lies outside what was looked at")
    best = score.left_out(found.x)
    if _score(best) > _alone(score, found.x) - 1 / best.residual.size:
        raise undecided("values are predicted by their neighbours no better than by none")
    deviation = _deviations(score, found.x)
    return Estimate(
        tuple(Parameter.of_logarithm(x, d) for x, d in zip(found.x[:-1], deviation[:-1], strict=True)),
        Parameter.of_logarithm(found.x[-1], deviation[-1], score.scale()),
        float(np.mean(best.residual**2 / best.variance)),
        found.x,
        float(found.fun),
        score.evaluations,
    )


def _alone(score: Score, logs: np.ndarray) -> float:
    """The score of values that are nothing but noise: each predicted as 0."""
    here = score.build(logs)
    return float(_score(LeftOut(here.values, 1 / here.weight.diagonal())))


def _deviations(score: Score, logs: np.ndarray) -> np.ndarray:
    """Standard deviations of the logarithms, by samples."""
    size = len(logs)
    values = score.draws(logs, _DRAWS)

    def at(*steps: tuple[int, int]) -> np.ndarray:
        moved = np.array(logs, float)
        for i, times in steps:
            moved[i] += times * _STEP
        return _score(score.left_out(moved, values))

    middle, up, down = at(), [at((i, 1)) for i in range(size)], [at((i, -1)) for i in range(size)]
    slopes = np.array([(up[i] - down[i]) / (2 * _STEP) for i in range(size)])
    curvature = np.empty((size, size))
    for i in range(size):
        curvature[i, i] = np.mean(up[i] - 2 * middle + down[i]) / _STEP**2
        for j in range(i):
            both = at((i, 1), (j, 1)) - up[i] - up[j] + 2 * middle - down[i] - down[j] + at((i, -1), (j, -1))
            curvature[i, j] = curvature[j, i] = np.mean(both) / (2 * _STEP**2)
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        raise undecided("the score has no minimum to speak of")
    inverse = np.linalg.inv(curvature)
    deviation = np.sqrt(np.diag(inverse @ np.cov(slopes) @ inverse))
    if deviation[:-1].max() > math.log(10):
        raise undecided("the interval spans more than four powers of ten")
    return deviation
