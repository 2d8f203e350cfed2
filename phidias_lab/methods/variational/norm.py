"""The norm of the anomaly: which covariance it means, and its matrix, the inverse of the background covariance B.

    x' B^-1 x = (1/c) integral sum_k alpha_k |(L grad)^k x|^2

With the binomial alpha the operator is (1/c)(1 - div L^2 grad)^m, whose Green's function is a Matern covariance of
order nu = m - n/2 (Whittle 1954; Lindgren et al. 2011, doi:10.1111/j.1467-9868.2011.00777.x).  The constant c makes the
background variance 1 far from coasts and edges (Barth et al. 2014, doi:10.5194/gmd-7-225-2014).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse, special

from phidias_lab.errors import ParameterError
from phidias_lab.methods.variational.grid import Grid, average


def binomial(m: int) -> np.ndarray:
    """Coefficients of (1 - div L^2 grad)^m."""
    return np.array([math.comb(m, k) for k in range(m + 1)], float)


def coefficients(alpha, ndim: int) -> np.ndarray:
    """The coefficients alpha of the norm in `ndim` correlated dimensions: checked, or the default where None.

    The default order m = ceil(1 + n/2) is the smallest for which the covariance is continuous with margin.
    """
    if alpha is None:
        return binomial(math.ceil(1 + ndim / 2))
    alpha = np.asarray(alpha, float)
    if alpha.ndim != 1 or not alpha.size or not np.isfinite(alpha).all() or (alpha < 0).any() or not alpha.any():
        raise ParameterError(
            f"alpha is {alpha.tolist()}. Give the coefficients of the norm as a list of numbers from 0 up, not all 0."
        )
    alpha = np.trim_zeros(alpha, "b")
    if ndim and alpha.size - 1 <= ndim / 2:
        raise ParameterError(
            f"alpha has the order {alpha.size - 1}, which gives no finite variance in {ndim} correlated dimensions. "
            f"Extend it to an order above {ndim / 2:g}, for example {binomial(math.ceil(1 + ndim / 2)).tolist()}."
        )
    return alpha


def kernel(r, ndim: int, order: int) -> np.ndarray:
    """Correlation at the distance r (in correlation lengths) for the binomial norm of an order in unbounded space.

    K(r) = 2/Gamma(nu) (r/2)^nu K_nu(r) with nu = order - ndim/2 and K_nu the modified Bessel function.
    """
    nu = order - ndim / 2
    if nu <= 0:
        raise ParameterError(
            f"A norm of order {order} has no kernel in {ndim} dimensions. Use an order above {ndim / 2:g}."
        )
    r = np.abs(np.asarray(r, float))
    near = r == 0
    safe = np.where(near, 1.0, r)
    return np.where(near, 1.0, 2 / special.gamma(nu) * (safe / 2) ** nu * special.kv(nu, safe))


def normalisation(ndim: int, alpha: np.ndarray) -> float:
    """The factor mu by which the norm is divided, besides the correlation lengths, to have unit variance.

    Exact for the binomial alpha: mu = (4 pi)^(n/2) Gamma(m)/Gamma(m - n/2).  For other coefficients it is DIVAnd's
    convention, kept so that a noise ratio means the same there and here.
    """
    m = alpha.size - 1
    reference = binomial(m)
    if ndim == 0:
        return float(alpha.sum() / reference.sum()) if alpha.size else 1.0
    mu = (4 * math.pi) ** (ndim / 2) * math.gamma(m) / math.gamma(m - ndim / 2)
    if np.array_equal(alpha, reference):
        return mu
    mu *= float(alpha.sum()) / 2**m
    return mu / 2 if np.array_equal(alpha[1:], reference[1:]) else mu


def stiffness(grid: Grid, weights: dict[int, np.ndarray]) -> sparse.csr_array:
    """The matrix of sum over faces of weight (x_upper - x_lower)^2, on sea nodes."""
    rows, columns, entries = [], [], []
    for i, weight in weights.items():
        lower, upper = grid.faces(i)
        rows += [lower, upper, lower, upper]
        columns += [lower, upper, upper, lower]
        entries += [weight, weight, -weight, -weight]
    shape = (grid.nodes, grid.nodes)
    if not rows:
        return sparse.csr_array(shape)
    return sparse.csr_array((np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def precision(grid: Grid, alpha: np.ndarray) -> sparse.csr_array:
    """B^-1 on the sea nodes: the matrix of the norm, symmetric and positive (semi-definite where alpha_0 = 0).

    `volume` and `slope` discretise the integrals of x^2 and |L grad x|^2; `diffusion` is div L^2 grad.  The term of
    order 2q (2q+1) is the first (second) of them applied to the q-th power of the diffusion.
    """
    pm = grid.sea_metrics
    inverse_volume = np.prod([pm[i] for i in grid.active], axis=0) if grid.active else np.ones(grid.nodes)
    volume = sparse.diags_array(1 / inverse_volume)
    slope_weights, flux_weights = {}, {}
    for i in grid.active:
        lower, upper = grid.faces(i)
        bar = [average(each, lower, upper) for each in pm]
        squared_length = average(grid.lengths[i][grid.mask] ** 2, lower, upper)
        across = np.prod([bar[j] for j in grid.active if j != i], axis=0)
        slope_weights[i] = bar[i] * squared_length / across
        # Decoupled dimensions have no part in the volumes, but their spacing still shapes the area of a face.
        flux_weights[i] = bar[i] * squared_length / np.prod([bar[j] for j in range(grid.ndim) if j != i], axis=0)
    slope = stiffness(grid, slope_weights)
    flux = slope if len(grid.active) == grid.ndim else stiffness(grid, flux_weights)
    diffusion = sparse.diags_array(-np.prod(pm, axis=0)) @ flux
    power = None
    total = alpha[0] * volume
    for k in range(1, alpha.size):
        if k % 2 == 0:
            power = diffusion if power is None else diffusion @ power
        if alpha[k]:
            term = volume if k % 2 == 0 else slope
            total = total + alpha[k] * (term if power is None else power.T @ (term @ power))
    scale = normalisation(len(grid.active), alpha) * math.prod(grid.mean_lengths[i] for i in grid.active)
    return sparse.csr_array(total) / scale
