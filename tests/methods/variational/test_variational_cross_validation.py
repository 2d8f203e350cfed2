"""Leave-one-out for all observations at once, against leaving each one out."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.variational import analyse, system
from phidias_lab.methods.variational.cross_validation import leave_one_out
from phidias_lab.methods.variational.multifrontal import Multifrontal


def all_at_once(p):
    found = system.build(**p)
    factor = Multifrontal(found.matrix, found.places.nodes, found.places.reach)
    return found, leave_one_out(found, factor.solve(found.right), factor.selected_inverse())


@pytest.mark.parametrize("shape", [(17,), (9, 8), (5, 4, 5)], ids=str)
def test_each_observation_is_predicted_as_by_an_analysis_of_the_others(problem, shape):
    p = problem(shape, count=10)
    found, left_out = all_at_once(p)
    for i in range(10):
        noise = p["noise"].copy()
        noise[i] = np.inf
        others = analyse(**{**p, "noise": noise}, error="exact")
        row = found.interpolation[[i]]
        field = others.field[p["mask"]]
        assert left_out.residual[i] == pytest.approx((p["values"][i] - row @ field)[0], rel=1e-9)
        assert left_out.variance[i] > p["noise"][i]


def test_the_variance_is_that_of_the_prediction_and_the_noise(problem):
    """Of a dense covariance of the observations: 1 / (K^-1)_ii."""
    p = problem((9, 8), count=10)
    found, left_out = all_at_once(p)
    interpolation = found.interpolation.toarray()
    covariance = interpolation @ np.linalg.inv(found.prior.toarray()) @ interpolation.T + np.diag(p["noise"])
    np.testing.assert_allclose(left_out.variance, 1 / np.linalg.inv(covariance).diagonal(), rtol=1e-9)
    np.testing.assert_allclose(left_out.standardised, left_out.residual / np.sqrt(left_out.variance), rtol=1e-12)


def test_correlated_errors_are_left_out_with_what_they_tell_of_each_other(problem):
    p = problem((9, 8), count=10)
    correlation = np.eye(10)
    correlation[:4, :4] += 0.6 * (1 - np.eye(4))
    p["noise"] = correlation * np.sqrt(np.outer(p["noise"], p["noise"]))
    found, left_out = all_at_once(p)
    interpolation = found.interpolation.toarray()
    covariance = interpolation @ np.linalg.inv(found.prior.toarray()) @ interpolation.T + p["noise"]
    inverse = np.linalg.inv(covariance)
    np.testing.assert_allclose(left_out.residual, (inverse @ p["values"]) / inverse.diagonal(), rtol=1e-8)
    np.testing.assert_allclose(left_out.variance, 1 / inverse.diagonal(), rtol=1e-8)
