"""The fit of the empirical covariance: bins against plain loops, and lengths of data drawn from the kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import covariance_fit, kernel


def plane(seed, *, count=300, length=0.15, noise=0.3):
    """Values of a field with the kernel of the plane, at random places in the unit square."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (count, 2))
    distance = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    root = np.linalg.cholesky(kernel(distance / length, 2, 2) + 1e-10 * np.eye(count))
    return points, 5.0 + 2.0 * (root @ rng.standard_normal(count) + math.sqrt(noise) * rng.standard_normal(count))


def casts(seed, *, number=60, length=120.0, noise=0.2):
    """Casts that are independent of each other, about a mean profile that falls by ten."""
    rng = np.random.default_rng(seed)
    depth = np.array([2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 800], float)
    distance = np.abs(depth[:, None] - depth[None, :]) / length
    root = np.linalg.cholesky((1 + distance) * np.exp(-distance) + 1e-10 * np.eye(depth.size))
    anomaly = (root @ rng.standard_normal((depth.size, number))).T
    values = 10 * np.exp(-depth / 300) + 2 * (anomaly + math.sqrt(noise) * rng.standard_normal(anomaly.shape))
    return np.tile(depth, number), values.ravel(), np.repeat(np.arange(number), depth.size)


def test_a_bin_holds_the_mean_product_of_the_pairs_that_far_apart():
    points, values = plane(0, count=120)
    found = covariance_fit.fit(points, values, (2, 2))
    anomaly, bins = values - values.mean(), {}
    pairs = [(i, j) for i in range(120) for j in range(i)]
    distances = [math.dist(points[i], points[j]) for i, j in pairs]
    width = np.mean(distances) / max(min(80, int(120**2 * np.mean(distances) / (20 * max(distances)))), 5)
    for (i, j), distance in zip(pairs, distances, strict=True):
        bins.setdefault(int(distance / width), []).append((distance, anomaly[i] * anomaly[j]))
    expected = np.array([np.mean(bins[k], axis=0) for k in sorted(bins)])
    np.testing.assert_allclose(found.distance, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(found.covariance, expected[:, 1], rtol=1e-9, atol=1e-12)
    assert found.pairs.sum() == 120 * 119 / 2


def test_the_length_of_a_plane_is_recovered():
    """The logarithm scatters by 0.46 and is 0.2 low at 300 observations (60 seeds; L is a seventh of the square): the mean
    of 16 is then within 0.2 +- 0.23 with 95 %, and three in four intervals of 95 % miss with a probability below 1e-3."""
    found = [covariance_fit.fit(*plane(seed), (2, 2)) for seed in range(16)]
    lengths = np.log([each.length.value for each in found])
    assert -0.45 < lengths.mean() - math.log(0.15) < 0.1
    assert sum(each.length.low <= 0.15 <= each.length.high for each in found) >= 12
    assert sum(each.noise.low <= 0.3 <= each.noise.high for each in found) >= 12


def test_the_length_of_casts_is_recovered_below_any_mean_profile():
    """The logarithm scatters by 0.2 here, so the mean of 8 lies within 0.15 of the truth with 95 %."""
    found = []
    for seed in range(8):
        depth, values, cast = casts(seed)
        found.append(covariance_fit.fit(depth[:, None], values, (1, 2), group=cast, level=depth))
    lengths = np.log([each.length.value for each in found])
    assert abs(lengths.mean() - math.log(120)) < 0.15
    assert sum(each.length.low <= 120 <= each.length.high for each in found) >= 7
    depth, values, cast = casts(3)
    steep = covariance_fit.fit(depth[:, None], values + 50 * np.exp(-depth / 50), (1, 2), group=cast, level=depth)
    assert steep.length.value == pytest.approx(found[3].length.value, rel=1e-6)


def test_the_fitted_covariance_has_no_mean_over_all_pairs_as_the_data_have_none():
    points, values = plane(1)
    found = covariance_fit.fit(points, values, (2, 2))
    taken = found.variance * kernel(found.distance / found.length.value, 2, 2) - found.fitted
    assert np.ptp(taken) < 1e-9 * found.variance
    whole = 2 * (found.pairs * found.fitted).sum() + 300 * (found.variance - taken[0])
    assert abs(whole) < 1e-9 * found.variance * 300**2
    anomaly = values - values.mean()
    assert 2 * (found.pairs * found.covariance).sum() + anomaly @ anomaly == pytest.approx(0, abs=1e-6)


def test_errors_of_bins_are_those_of_repeated_draws():
    """The root mean square deviation of the bins from the true covariance, over many data sets, is the error given."""
    found = [covariance_fit.fit(*plane(seed), (2, 2)) for seed in range(16)]
    near = slice(0, 40)  # half of the mean distance
    squares = np.mean([(each.covariance - _true(each))[near] ** 2 for each in found])
    errors = np.mean([each.error[near] ** 2 for each in found])
    assert math.sqrt(squares / errors) == pytest.approx(1, abs=0.35)


def _true(found) -> np.ndarray:
    """The covariance of the plane with the mean of a sample taken away, of variance 4."""
    shape = kernel(found.distance / 0.15, 2, 2)
    total = 2 * found.pairs.sum() + 300
    return 4 * (shape - (2 * (shape * found.pairs).sum() + 300) / total) - 4 * 0.3 / 300


def test_few_values_noise_alone_and_equal_values_give_a_sentence_and_no_number():
    points, values = plane(0)
    with pytest.raises(InputError, match="19 observations are too few"):
        covariance_fit.fit(points[:19], values[:19], (2, 2))
    with pytest.raises(InputError, match="as those of noise alone would"):
        covariance_fit.fit(points, np.random.default_rng(1).standard_normal(300), (2, 2))
    with pytest.raises(InputError, match="all values are the same"):
        covariance_fit.fit(points, np.full(300, 3.0), (2, 2))
    with pytest.raises(InputError, match="0 pairs of values are too few"):
        covariance_fit.fit(points, values, (2, 2), group=np.arange(300), level=np.zeros(300))


def test_of_many_values_some_are_taken_and_always_the_same(monkeypatch):
    monkeypatch.setattr(covariance_fit, "MOST", 200)
    one, again = (covariance_fit.fit(*plane(0), (2, 2)) for _ in range(2))
    assert one.pairs.sum() == 200 * 199 / 2
    assert one.length == again.length
