"""Outliers among observations of a smooth field, against dense matrices and with a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.variational import outliers, system


def field_problem(seed=0, count=300):
    random = np.random.default_rng(seed)
    line = np.linspace(0, 1, 31)
    places = random.uniform(0.02, 0.98, (2, count))
    values = np.sin(5 * places[0]) * np.cos(4 * places[1]) + 0.05 * random.standard_normal(count)
    return {
        "mask": np.ones((31, 31), bool),
        "metrics": [np.full((31, 31), 30.0)] * 2,
        "coords": [line, line],
        "obs_coords": list(places),
        "values": values,
        "length": [0.2, 0.2],
    }


def test_without_outliers_it_is_the_leave_one_out_residual_of_a_dense_covariance():
    p = field_problem(count=60)
    found = outliers.judge(**p, noise=0.1, limit=100.0)
    centred = p["values"] - np.median(p["values"])
    built = system.build(**{**p, "values": centred}, noise=np.full(60, 0.1))
    rows = built.interpolation.toarray()
    inverse = np.linalg.inv(rows @ np.linalg.inv(built.prior.toarray()) @ rows.T + 0.1 * np.eye(60))
    residual = inverse @ centred / inverse.diagonal()
    z = residual * np.sqrt(inverse.diagonal())
    np.testing.assert_allclose(found.z, z / (1.4826 * np.median(np.abs(z))), rtol=1e-8)
    np.testing.assert_allclose(found.expected, p["values"] - residual, rtol=1e-8)


def test_outliers_are_found_and_their_neighbours_are_spared():
    p = field_problem()
    wrong = np.random.default_rng(1).choice(300, 12, replace=False)
    # Each outlier has a true observation close beside it.
    for k, row in enumerate(wrong):
        beside = (row + 1) % 300
        if beside not in wrong:
            for line in p["obs_coords"]:
                line[beside] = np.clip(line[row] + 0.005, 0.02, 0.98)
            x, y = (line[beside] for line in p["obs_coords"])
            p["values"][beside] = np.sin(5 * x) * np.cos(4 * y)
        p["values"][row] += 3.0 * (-1) ** k
    found = outliers.judge(**p, noise=0.1, limit=6.0)
    assert set(np.flatnonzero(np.abs(found.z) > 6)) == set(wrong)
    truth = np.sin(5 * p["obs_coords"][0]) * np.cos(4 * p["obs_coords"][1])
    assert np.abs(found.expected - truth)[wrong].max() < 0.4


def test_what_lies_outside_the_grid_is_not_judged():
    p = field_problem(count=50)
    p["obs_coords"][0][:5] = 2.0
    found = outliers.judge(**p, noise=0.1, limit=6.0)
    assert np.isnan(found.z[:5]).all()
    assert np.isfinite(found.z[5:]).all()
    p["obs_coords"][0][:] = 2.0
    assert np.isnan(outliers.judge(**p, noise=0.1, limit=6.0).z).all()


def test_the_variance_of_one_that_is_left_out_is_that_of_the_analysis_of_the_rest():
    p = field_problem(count=60)
    p["values"][7] += 4.0
    found = outliers.judge(**p, noise=0.1, limit=30.0)  # so high that no neighbour is left out with it
    assert np.flatnonzero(np.abs(found.z) > 30).tolist() == [7]
    centred = p["values"] - np.median(p["values"])
    built = system.build(**{**p, "values": centred}, noise=np.full(60, 0.1))
    rows = built.interpolation.toarray()
    covariance = rows @ np.linalg.inv(built.prior.toarray()) @ rows.T + 0.1 * np.eye(60)
    others = np.arange(60) != 7
    inverse = np.linalg.inv(covariance[np.ix_(others, others)])
    weights = inverse @ covariance[others, 7]
    expected = weights @ centred[others]
    deviation = np.sqrt(covariance[7, 7] - weights @ covariance[others, 7])
    left = inverse @ centred[others] / np.sqrt(inverse.diagonal())
    scale = 1.4826 * np.median(np.abs(left))
    assert found.z[7] == pytest.approx((centred[7] - expected) / deviation / scale, rel=1e-8)
    assert found.expected[7] == pytest.approx(expected + np.median(p["values"]), rel=1e-8)
    np.testing.assert_allclose(found.z[others], left / scale, rtol=1e-8)
