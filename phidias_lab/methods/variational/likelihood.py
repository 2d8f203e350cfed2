"""Correlation lengths and noise from the observations themselves, by the marginal likelihood.

If the anomaly has the covariance s2 B and the observations the errors s2 R, then with A = B^-1 + H' R^-1 H and J the
minimum of the cost function of the analysis,

    -2 log p(y) = n log(2 pi s2) + log|R| + log|A| - log|B^-1| + J / s2                          (*)

(Rue and Held 2005, section 2.3; Lindgren et al. 2011, doi:10.1111/j.1467-9868.2011.00777.x).  The variance that makes
it least is s2 = J / n.  With that, the derivative by a parameter t of the matrices is

    n dJ / J + d log|R| + tr(A^-1 dA) - tr(B dB^-1),           dJ = y' dR^-1 y - 2 x' db + x' dA x,   b = H' R^-1 y

The traces need the inverses only where dA and dB^-1 have entries, which is what the selected inverses hold.  So the
gradient is exact and costs about as much as the value.  The matrices themselves are smooth functions of the lengths
(polynomials, but for the stretched edges), whose derivative central differences of fourth order give to about 1e-11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, sparse, stats

from phidias_lab.methods.variational.parameters import BOUND, Estimate, Family, Parameter, told, undecided
from phidias_lab.methods.variational.system import System

_STEP = 2e-3
"""Step of the differences of the matrices, in the logarithm of a length."""


class Likelihood(Family):
    """-2 log p of observations as a function of log factors of the lengths (per group of dimensions) and of the noise."""

    def value(self, logs: np.ndarray) -> float:
        """-2 log p, by two factorisations."""
        self.evaluations += 1
        here = self.build(logs)
        whole, prior = self.factor("whole", here.matrix, here.places), self.factor("prior", here.prior, here.places)
        misfit = here.values - here.interpolation @ whole.solve(here.right)
        determinants = whole.log_determinant - prior.log_determinant
        return _value(here, float(here.values @ (here.weight @ misfit))) + determinants

    def __call__(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """The value and its gradient."""
        self.evaluations += 1
        here = self.build(logs)
        count = here.values.size
        whole, prior = self.factor("whole", here.matrix, here.places), self.factor("prior", here.prior, here.places)
        x = whole.solve(here.right)
        misfit = here.values - here.interpolation @ x
        cost = float(here.values @ (here.weight @ misfit))
        value = _value(here, cost) + whole.log_determinant - prior.log_determinant
        inverse, background = whole.selected_inverse().matrix(), prior.selected_inverse().matrix()
        gradient = np.empty(len(logs))
        for i in range(len(self.groups)):
            d_prior, d_gain, d_right = self._derivative(logs, i)
            d_whole = d_prior + d_gain
            d_cost = float(x @ (d_whole @ x) - 2 * x @ d_right)
            gradient[i] = count * d_cost / cost + inverse.multiply(d_whole).sum() - background.multiply(d_prior).sum()
        gain = here.gain
        gradient[-1] = count * (1 - float(misfit @ (here.weight @ misfit)) / cost) - inverse.multiply(gain).sum()
        return value, gradient

    def _derivative(self, logs: np.ndarray, i: int) -> tuple[sparse.csr_array, sparse.csr_array, np.ndarray]:
        step = np.zeros(len(logs))
        step[i] = _STEP
        total: list = [0, 0, 0]
        for times, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
            there = self.build(logs + times * step)
            for k, part in enumerate((there.prior, there.gain, there.right)):
                total[k] = total[k] + part * (weight / _STEP)
        return tuple(total)

    def of_noise(self) -> float:
        """-2 log p of the values if they were nothing but noise, for the variance of it that is most probable."""
        here = self.build(np.zeros(self.size))
        return _value(here, float(here.values @ (here.weight @ here.values)))

    def variance(self, logs: np.ndarray) -> float:
        """The background variance for these parameters."""
        here = self.build(logs)
        x = self.factor("whole", here.matrix, here.places).solve(here.right)
        return float(here.values @ (here.weight @ (here.values - here.interpolation @ x))) / here.values.size


def estimate(
    *arguments,
    length,
    noise,
    groups: Sequence[Sequence[int]],
    progress: Callable[[str], None] | None = None,
    **options,
) -> Estimate:
    """The lengths and the noise that make the observations most probable, from a first guess of both.

    Refuses where the observations do not tell: too few, or a length whose interval has no end.
    """
    likelihood = Likelihood(*arguments, length=length, noise=noise, groups=groups, **options)
    likelihood.check_number()
    size = likelihood.size
    found = optimize.minimize(
        told(likelihood, progress, "likelihood", likelihood),
        np.zeros(size),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * size,
        options={"ftol": 1e-10},
    )
    if np.any(np.abs(found.x) >= BOUND - 1e-6):
        raise undecided("the most probable value lies outside what was looked at")
    if likelihood.of_noise() - found.fun < stats.chi2.ppf(0.95, size):
        raise undecided("values far apart and close together differ alike, as those of noise alone would")
    deviation = _deviations(likelihood, found.x)
    return Estimate(
        tuple(Parameter.of_logarithm(x, d) for x, d in zip(found.x[:-1], deviation[:-1], strict=True)),
        Parameter.of_logarithm(found.x[-1], deviation[-1], likelihood.scale()),
        likelihood.variance(found.x),
        found.x,
        float(found.fun),
        likelihood.evaluations,
    )


def _deviations(likelihood: Likelihood, logs: np.ndarray) -> np.ndarray:
    """Standard deviations of the logarithms, from the curvature of the likelihood (half that of -2 log p)."""
    size, step = len(logs), 0.02
    curvature = np.empty((size, size))
    for i in range(size):
        moved = np.zeros(size)
        moved[i] = step
        curvature[i] = (likelihood(logs + moved)[1] - likelihood(logs - moved)[1]) / (2 * step)
    information = (curvature + curvature.T) / 4
    try:
        covariance = np.linalg.inv(np.linalg.cholesky(information))
    except np.linalg.LinAlgError:
        raise undecided("the likelihood has no maximum to speak of") from None
    deviation = np.sqrt((covariance**2).sum(axis=0))
    if deviation[:-1].max() > math.log(10):
        raise undecided("the interval spans more than four powers of ten")
    return deviation


def _value(here: System, cost: float) -> float:
    """(*) without the determinants of the matrices over the grid, with the variance that makes it least."""
    count = here.values.size
    return count * math.log(2 * math.pi * cost / count) + count + _log_determinant_of_errors(here)


def _log_determinant_of_errors(here: System) -> float:
    """log|R|, from the weights R^-1."""
    weight = here.weight
    if (weight.nnz == weight.shape[0]) and (weight.diagonal() > 0).all():
        return -float(np.log(weight.diagonal()).sum())
    _, blocks = sparse.csgraph.connected_components(weight, directed=False)
    order = np.argsort(blocks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)
    return -sum(float(np.linalg.slogdet(weight[each][:, each].toarray())[1]) for each in members)
