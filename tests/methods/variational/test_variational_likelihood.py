"""The marginal likelihood against that of a dense Gaussian, and what it estimates on data drawn from the kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from samples import drawn
from scipy import stats

from phidias_lab.errors import InputError
from phidias_lab.methods.variational.likelihood import Likelihood, estimate


def arguments(p):
    given = [p[name] for name in ("mask", "metrics", "coords", "obs_coords", "values")]
    rest = {name: p[name] for name in ("length", "noise", "cyclic") if name in p}
    return given, rest


@pytest.mark.parametrize("shape", [(17,), (9, 8), (5, 4, 5)], ids=str)
@pytest.mark.parametrize("noise", ["each", "correlated"])
def test_the_likelihood_is_that_of_the_dense_covariance_of_the_observations(problem, shape, noise):
    p = problem(shape, count=14)
    if noise == "correlated":
        p["noise"] = np.diag(p["noise"]) + 0.05
    given, rest = arguments(p)
    likelihood = Likelihood(*given, **rest, groups=[list(range(len(shape)))])
    logs = np.array([0.2, -0.3])
    value, _ = likelihood(logs)
    here = likelihood.build(logs)
    interpolation = here.interpolation.toarray()
    covariance = interpolation @ np.linalg.inv(here.prior.toarray()) @ interpolation.T
    covariance = covariance + np.linalg.inv(here.weight.toarray())
    scale = here.values @ np.linalg.solve(covariance, here.values) / here.values.size
    expected = -2 * stats.multivariate_normal(cov=scale * covariance).logpdf(here.values)
    assert value == pytest.approx(expected, rel=1e-9)
    assert likelihood.variance(logs) == pytest.approx(scale, rel=1e-9)


@pytest.mark.parametrize("stretch", [0.0, 1.0])
def test_the_gradient_is_the_slope_of_the_likelihood_by_every_parameter(problem, stretch):
    p = problem((9, 8, 7), count=20)
    given, rest = arguments(p)
    likelihood = Likelihood(*given, **rest, groups=[[0], [1, 2]], edge_stretch=stretch)
    logs = np.array([0.2, -0.1, 0.3])
    _, gradient = likelihood(logs)
    for i in range(3):
        step = np.zeros(3)
        step[i] = 1e-3
        slope = sum(
            weight * likelihood(logs + times * step)[0] for times, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1))
        ) / (12 * 1e-3)
        assert gradient[i] == pytest.approx(slope, rel=1e-7, abs=1e-6)


def test_length_noise_and_variance_are_found_within_their_intervals():
    """Ten draws: with intervals of 95 %, seven hits or fewer have a probability of 1.2 %, below eight of one in 80."""
    length = noise = 0
    levels = []
    for seed in range(10):
        found = estimate(*drawn(seed, count=200), length=0.1, noise=0.5, groups=[[0, 1]])
        (factor,) = found.factors
        length += factor.low * 0.1 <= 0.15 <= factor.high * 0.1
        noise += found.noise.low <= 0.3 <= found.noise.high
        levels.append(math.log(found.noise.value))
        assert 1 < found.variance < 16
    assert length >= 8
    assert noise >= 8
    # Each interval spans a factor of two and a half both ways, so the mean of ten is known to 15 %; three times that.
    assert math.exp(sum(levels) / 10) == pytest.approx(0.3, rel=0.5)


def test_an_anisotropic_field_has_two_lengths():
    mask, metrics, coords, places, values = drawn(3, count=400)
    # The same field on a plane that is pulled to three times its height.
    stretched = (mask, [metrics[0] / 3, metrics[1]], [coords[0] * 3, coords[1]], [places[0] * 3, places[1]], values)
    found = estimate(*stretched, length=0.2, noise=0.5, groups=[[0], [1]])
    first, second = found.factors
    assert first.value / second.value == pytest.approx(3, rel=0.35)
    assert first.low / second.high < 3 < first.high / second.low


def test_too_few_observations_give_a_sentence_and_no_number():
    mask, metrics, coords, places, values = drawn(0, count=200)
    with pytest.raises(InputError, match=r"19 observations are too few .* at least 20"):
        estimate(
            mask, metrics, coords, [each[:19] for each in places], values[:19], length=0.1, noise=0.5, groups=[[0, 1]]
        )


def test_noise_alone_tells_no_length():
    mask, metrics, coords, places, values = drawn(0, count=60)
    noise = np.random.default_rng(1).standard_normal(values.size)
    with pytest.raises(InputError, match="do not tell the correlation length"):
        estimate(mask, metrics, coords, places, noise, length=0.1, noise=0.5, groups=[[0, 1]])
