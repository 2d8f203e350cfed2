"""One observation in open water: the analysis is the covariance that the norm means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate, special

from phidias_lab.errors import ParameterError
from phidias_lab.methods.variational import analyse, kernel
from phidias_lab.methods.variational.norm import binomial, coefficients, normalisation


def covariance_column(ndim: int, order: int, size: int, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Numerical covariance with the origin on a closed grid of unit length, and the analytical one with its images."""
    line = np.arange(size) * period / size
    noise = 0.5
    field = analyse(
        np.ones((size,) * ndim, bool),
        [size / period] * ndim,
        [line] * ndim,
        [[0.0]] * ndim,
        [1.0],
        1.0,
        noise,
        alpha=binomial(order),
        cyclic=[period] * ndim,
    ).field
    at_origin = field.flat[0]
    numerical = field * (noise * at_origin / (1 - at_origin) + noise)
    axes = np.meshgrid(*[line] * ndim, indexing="ij")
    analytical = sum(
        kernel(np.sqrt(sum((x - k * period) ** 2 for x, k in zip(axes, image, strict=True))), ndim, order)
        for image in itertools.product(range(-4, 6), repeat=ndim)
    )
    return numerical, analytical


# Period in correlation lengths, and numbers of nodes per dimension, from coarse to fine.
@pytest.mark.parametrize(
    ("ndim", "order", "period", "sizes"),
    [
        (1, 1, 10, (80, 160)),
        (1, 2, 12, (72, 144)),
        (1, 3, 16, (96, 192)),
        (2, 2, 6, (30, 60)),
        (2, 3, 6, (30, 60)),
        (3, 3, 4, (10, 16)),
    ],
)
def test_one_observation_spreads_as_the_matern_kernel_with_second_order_in_the_spacing(ndim, order, period, sizes):
    errors = []
    for size in sizes:
        numerical, analytical = covariance_column(ndim, order, size, period)
        errors.append(np.abs(numerical - analytical).max())
    convergence = np.log(errors[0] / errors[1]) / np.log(sizes[1] / sizes[0])
    # Differences over faces are second order.  At nu = 1 the kernel goes as r^2 log r at the origin, hence a logarithm.
    spacing, logarithmic = period / sizes[1], order - ndim / 2 == 1
    assert convergence > (1.5 if logarithmic else 1.9)
    assert errors[1] < spacing**2 / 2 * (1 - np.log(spacing) if logarithmic else 1)


@pytest.mark.parametrize(("ndim", "order"), [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (4, 3), (3, 4)])
def test_the_normalisation_is_the_integral_over_all_wave_numbers(ndim, order):
    # Variance of (1 - laplacian)^m x = noise: integral of 1/(1 + k^2)^m over wave number space, over (2 pi)^n.
    sphere = 2 * np.pi ** (ndim / 2) / special.gamma(ndim / 2)
    value, _ = integrate.quad(lambda k: k ** (ndim - 1) / (1 + k * k) ** order, 0, np.inf)
    assert normalisation(ndim, binomial(order)) == pytest.approx((2 * np.pi) ** ndim / (sphere * value), rel=1e-6)


def test_the_kernel_takes_its_known_closed_forms():
    r = np.array([0, 1e-3, 0.5, 1, 4, 30])
    np.testing.assert_allclose(kernel(r, 1, 2), (1 + r) * np.exp(-r), rtol=1e-12)
    np.testing.assert_allclose(kernel(r, 3, 3), (1 + r) * np.exp(-r), rtol=1e-12)
    np.testing.assert_allclose(kernel(r, 1, 1), np.exp(-r), rtol=1e-12)
    np.testing.assert_allclose(kernel(r[1:], 2, 2), r[1:] * special.k1(r[1:]), rtol=1e-12)
    assert kernel(1.0, 2, 2) == pytest.approx(0.6019072301972346, rel=1e-14)


@pytest.mark.parametrize(("ndim", "row"), [(1, [1, 2, 1]), (2, [1, 2, 1]), (3, [1, 3, 3, 1]), (4, [1, 3, 3, 1])])
def test_the_default_norm_has_the_smallest_order_above_half_the_dimensions_plus_one(ndim, row):
    assert coefficients(None, ndim).tolist() == row


def test_a_norm_of_too_low_order_has_no_kernel_and_says_so():
    with pytest.raises(ParameterError, match="order above 1"):
        kernel(1.0, 2, 1)
    with pytest.raises(ParameterError, match=r"no finite variance.*order above 1"):
        coefficients([1, 1], 2)
