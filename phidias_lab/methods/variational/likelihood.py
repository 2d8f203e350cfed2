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
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, stats

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import solvers, system
from phidias_lab.methods.variational.multifrontal import Multifrontal, Structure
from phidias_lab.methods.variational.system import System

FEWEST = 20
"""With fewer observations no length is estimated: their sampling error alone exceeds a factor of two."""
_STEP = 2e-3
"""Step of the differences of the matrices, in the logarithm of a length."""
_DECADES = 1.5
"""How far from its first guess a parameter is looked for, in powers of ten."""


@dataclass(frozen=True)
class Parameter:
    """An estimated quantity: its value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What the observations tell.

    factors : per group of dimensions, what its lengths are multiplied by.
    noise : error variance over background variance; for given noise per observation, what all are multiplied by.
    variance : the background variance, in the squared units of the values.
    likelihood : -2 log of the likelihood there.
    """

    factors: tuple[Parameter, ...]
    noise: Parameter
    variance: float
    likelihood: float
    evaluations: int


class Likelihood:
    """-2 log p of observations as a function of log factors of the lengths (per group of dimensions) and of the noise.

    The arguments are those of `analyse`.  A group of dimensions shares one factor: [[0, 1]] for an isotropic plane,
    [[0], [1, 2]] for the depth apart from the plane.
    """

    def __init__(self, *arguments, length, noise, groups: Sequence[Sequence[int]], **options):
        self.arguments, self.options = arguments, options
        self.noise = noise
        self.groups = [list(group) for group in groups]
        ndim = np.ndim(arguments[0])
        several = isinstance(length, list | tuple)
        self.lengths = list(length) if several else [length] * ndim
        self.evaluations = 0
        self._structures: dict[str, Structure] = {}

    def build(self, logs: np.ndarray) -> System:
        """The system for the logarithms of the factors, the noise last."""
        lengths = list(self.lengths)
        for group, log in zip(self.groups, logs[:-1], strict=True):
            for dimension in group:
                lengths[dimension] = np.multiply(lengths[dimension], math.exp(log))
        noise = np.multiply(self.noise, math.exp(logs[-1]))
        return system.build(*self.arguments, lengths, noise, **self.options)

    def _factor(self, name: str, matrix: sparse.csr_array, places: solvers.Places) -> Multifrontal:
        known = self._structures.get(name)
        try:
            factor = Multifrontal(matrix, places.nodes, places.reach, structure=known)
        except np.linalg.LinAlgError as error:
            raise solvers.singular() from error
        self._structures[name] = factor.structure
        return factor

    def __call__(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """The value and its gradient."""
        self.evaluations += 1
        here = self.build(logs)
        count = here.values.size
        whole, prior = self._factor("whole", here.matrix, here.places), self._factor("prior", here.prior, here.places)
        x = whole.solve(here.right)
        misfit = here.values - here.interpolation @ x
        cost = float(here.values @ (here.weight @ misfit))
        value = count * math.log(2 * math.pi * cost / count) + count + _log_determinant_of_errors(here)
        value += whole.log_determinant - prior.log_determinant
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
        here = self.build(np.zeros(len(self.groups) + 1))
        count, cost = here.values.size, float(here.values @ (here.weight @ here.values))
        return count * math.log(2 * math.pi * cost / count) + count + _log_determinant_of_errors(here)

    def variance(self, logs: np.ndarray) -> float:
        """The background variance for these parameters."""
        here = self.build(logs)
        x = self._factor("whole", here.matrix, here.places).solve(here.right)
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
    size = len(likelihood.groups) + 1
    count = likelihood.build(np.zeros(size)).values.size
    if count < FEWEST:
        raise InputError(
            f"{count} observations are too few to estimate a correlation length; at least {FEWEST} are needed. Give the "
            "length yourself, or widen the region, the depths or the period."
        )
    bound = _DECADES * math.log(10)

    def told(logs: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = likelihood(logs)
        if progress is not None:
            progress(f"likelihood {value:.2f} after {likelihood.evaluations} evaluations")
        return value, gradient

    found = optimize.minimize(
        told, np.zeros(size), jac=True, method="L-BFGS-B", bounds=[(-bound, bound)] * size, options={"ftol": 1e-10}
    )
    if np.any(np.abs(found.x) >= bound - 1e-6):
        raise _undecided("the most probable value lies outside what was looked at")
    if likelihood.of_noise() - found.fun < stats.chi2.ppf(0.95, size):
        raise _undecided("values far apart and close together differ alike, as those of noise alone would")
    deviation = _deviations(likelihood, found.x)
    reach = stats.norm.ppf(0.975) * deviation
    best = [
        Parameter(math.exp(x), math.exp(x - more), math.exp(x + more)) for x, more in zip(found.x, reach, strict=True)
    ]
    return Estimate(
        tuple(best[:-1]),
        _scaled(best[-1], noise),
        likelihood.variance(found.x),
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
        raise _undecided("the likelihood has no maximum to speak of") from None
    deviation = np.sqrt((covariance**2).sum(axis=0))
    if deviation[:-1].max() > math.log(10):
        raise _undecided("the interval spans more than four powers of ten")
    return deviation


def _scaled(parameter: Parameter, noise) -> Parameter:
    scale = float(noise) if np.ndim(noise) == 0 else 1.0
    return Parameter(parameter.value * scale, parameter.low * scale, parameter.high * scale)


def _log_determinant_of_errors(here: System) -> float:
    """log|R|, from the weights R^-1."""
    weight = here.weight
    if (weight.nnz == weight.shape[0]) and (weight.diagonal() > 0).all():
        return -float(np.log(weight.diagonal()).sum())
    _, blocks = sparse.csgraph.connected_components(weight, directed=False)
    order = np.argsort(blocks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)
    return -sum(float(np.linalg.slogdet(weight[each][:, each].toarray())[1]) for each in members)


def _undecided(why: str) -> InputError:
    return InputError(
        f"These observations do not tell the correlation length: {why}. Give the length yourself, use more observations, "
        "or begin from another first guess."
    )
