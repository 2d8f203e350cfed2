"""Beside coasts and edges the background has the variance it has elsewhere: against dense algebra, and by itself."""

from __future__ import annotations

import dense
import numpy as np
import pytest

from phidias_lab.errors import ParameterError
from phidias_lab.methods.variational import analyse, background_deviation, system
from phidias_lab.methods.variational.likelihood import Likelihood
from phidias_lab.methods.variational.norm import coefficients, normalisation

NOTHING = {"values": np.zeros(0), "noise": 1.0}


def unobserved(p, **options):
    ndim = p["mask"].ndim
    return analyse(**{**p, **NOTHING, "obs_coords": [np.zeros(0)] * ndim}, error="exact", **options).error_variance


def dense_unit_covariance(p):
    """Of `dense`'s background, written by hand: B_ij / sqrt(B_ii B_jj)."""
    lengths = [np.broadcast_to(length, p["mask"].shape) for length in p["length"]]
    alpha = coefficients(None, p["mask"].ndim)
    cyclic = p.get("cyclic", [0.0] * p["mask"].ndim)
    mu = normalisation(p["mask"].ndim, alpha)
    prior, number = dense.background_precision(p["mask"], p["metrics"], lengths, alpha, mu, cyclic)
    covariance = np.linalg.inv(prior)
    return covariance / np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal())), number


@pytest.mark.parametrize("shape", [(17,), (9, 8), (5, 4, 5)], ids=str)
def test_field_and_error_are_those_of_the_dense_covariance_with_variance_one(problem, shape):
    p = problem(shape, count=10)
    covariance, number = dense_unit_covariance(p)
    cyclic = [0.0] * len(shape)
    rows = [dense.interpolation(p["mask"], number, p["coords"], x, cyclic) for x in zip(*p["obs_coords"], strict=True)]
    operator = np.array(rows)
    gain = covariance @ operator.T @ np.linalg.inv(operator @ covariance @ operator.T + np.diag(p["noise"]))
    found = analyse(**p, unit_variance=True, error="exact")
    np.testing.assert_allclose(found.field[p["mask"]], gain @ p["values"], rtol=1e-9, atol=1e-11)
    posterior = np.diag(covariance - gain @ operator @ covariance)
    np.testing.assert_allclose(found.error_variance[p["mask"]], posterior, rtol=1e-9)


@pytest.mark.parametrize("stretch", [0.0, 1.0])
@pytest.mark.parametrize("solver", ["multifrontal", "splu"])
def test_the_background_variance_is_one_everywhere_beside_the_coast_too(problem, stretch, solver):
    p = problem((19, 16))
    plain = unobserved(p, edge_stretch=stretch)
    assert np.nanmax(plain) > 1.3, "without the correction there is a wall effect to correct"
    even = unobserved(p, edge_stretch=stretch, unit_variance=True, solver=solver)
    np.testing.assert_allclose(even[p["mask"]], 1.0, rtol=1e-10)


def test_the_deviation_of_a_grid_serves_all_its_analyses(problem):
    p = problem((9, 8), cyclic=True)
    grid = [p[name] for name in ("mask", "metrics", "coords")]
    deviation = background_deviation(*grid, p["length"], cyclic=p["cyclic"], edge_stretch=0.5)
    options = {"edge_stretch": 0.5, "error": "exact"}
    np.testing.assert_allclose(deviation**2, unobserved(p, edge_stretch=0.5), rtol=1e-10)
    one, other = (analyse(**p, unit_variance=each, **options) for each in (True, deviation))
    assert np.array_equal(one.field, other.field, equal_nan=True)
    assert np.array_equal(one.error_variance, other.error_variance, equal_nan=True)


def test_far_from_walls_nothing_changes():
    """In the middle of a basin eight lengths wide the norm gives the variance 1 by itself."""
    line = np.linspace(-4, 4, 41)
    grid = (np.ones((41, 41), bool), [1 / 0.2] * 2, [line, line], [np.array([0.1]), np.array([-0.1])])
    plain, even = (analyse(*grid, [1.0], 1.0, 0.5, unit_variance=each).field[20, 20] for each in (False, True))
    assert even == pytest.approx(plain, rel=0.02)


def test_observations_speak_no_further_around_a_wall_than_before(problem):
    """The correlations are those of the norm: the response to one observation, divided by its own, keeps its ratios."""
    p = problem((9, 8))
    plain = np.linalg.inv(system.build(**p).prior.toarray())
    even = np.linalg.inv(system.build(**p, unit_variance=True).prior.toarray())
    deviation = np.sqrt(plain.diagonal())
    np.testing.assert_allclose(even * np.outer(deviation, deviation), plain, rtol=1e-9, atol=1e-12)


def test_the_likelihood_of_an_even_background_has_its_slope(problem):
    p = problem((9, 8), count=20)
    given = [p[name] for name in ("mask", "metrics", "coords", "obs_coords", "values")]
    likelihood = Likelihood(*given, length=p["length"], noise=p["noise"], groups=[[0, 1]], unit_variance=True)
    logs = np.array([0.2, -0.1])
    value, gradient = likelihood(logs)
    assert value == pytest.approx(likelihood.value(logs), rel=1e-12)
    for i in range(2):
        step = np.zeros(2)
        step[i] = 1e-3
        slope = sum(
            weight * likelihood.value(logs + times * step) for times, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1))
        ) / (12 * 1e-3)
        assert gradient[i] == pytest.approx(slope, rel=1e-7, abs=1e-6)
    for other in (logs, logs + np.array([0.3, 0.0]), logs):
        diagonal = np.linalg.inv(likelihood.build(other).prior.toarray()).diagonal()
        np.testing.assert_allclose(diagonal, 1.0, rtol=1e-9)


def test_a_norm_without_its_first_term_has_no_variance_to_make_one(problem):
    with pytest.raises(ParameterError, match="alpha starts with 0, so the background has no variance"):
        analyse(**problem((9, 8)), alpha=[0, 2, 1], unit_variance=True)
