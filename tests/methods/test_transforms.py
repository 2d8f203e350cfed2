"""Transforms and what becomes of a Gaussian when it is transformed back, against scipy's distributions and integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from phidias_lab.errors import InputError
from phidias_lab.methods.transforms import KNOTS, PROBABILITY, Log, Logit, anamorphosis

MEAN, DEVIATION = np.array([-3.0, 0.0, 1.2, 2.0]), np.array([0.1, 0.5, 1.0, 1.5])
SAMPLE = np.random.default_rng(1).gamma(2.0, 3.0, 800)


@pytest.mark.parametrize("transform", [Log(), Log(-2.0), Logit(), Logit(-5.0, 40.0), anamorphosis(SAMPLE)])
def test_forth_and_back_is_where_one_was_and_bounds_hold(transform):
    low = getattr(transform, "least", SAMPLE.min())
    high = getattr(transform, "greatest", SAMPLE.max())
    inside = np.linspace(low, high, 102)[1:-1]
    np.testing.assert_allclose(transform.inverse(transform.forward(inside)), inside, rtol=1e-10)
    assert (np.diff(transform.forward(inside)) > 0).all()
    back = transform.inverse(np.linspace(-30, 30, 500))
    assert low <= back.min()
    assert isinstance(transform, Log) or back.max() <= high


@pytest.mark.parametrize("least", [0.0, 3.0])
def test_the_back_transformed_logarithm_is_the_lognormal_distribution(least):
    known = stats.lognorm(s=DEVIATION, scale=np.exp(MEAN), loc=least)
    mean, deviation = Log(least).moments(MEAN, DEVIATION)
    np.testing.assert_allclose(mean, known.mean(), rtol=1e-12)
    np.testing.assert_allclose(deviation, known.std(), rtol=1e-12)
    np.testing.assert_allclose(Log(least).inverse(MEAN), known.median(), rtol=1e-12)
    np.testing.assert_allclose(Log(least).interval(MEAN, DEVIATION), known.interval(PROBABILITY), rtol=1e-12)


@pytest.mark.parametrize(
    ("transform", "within"), [(Logit(0.0, 1.0), 1e-10), (Logit(-2.0, 38.0), 1e-10), (anamorphosis(SAMPLE), 1e-3)]
)
def test_moments_without_a_formula_are_those_of_an_integral(transform, within):
    found = np.array(transform.moments(MEAN, DEVIATION))
    for k, (m, s) in enumerate(zip(MEAN, DEVIATION, strict=True)):
        z = np.linspace(-9, 9, 40_001)
        weight, value = stats.norm.pdf(z), transform.inverse(m + s * z)
        mean = integrate.simpson(weight * value, x=z)
        deviation = np.sqrt(integrate.simpson(weight * (value - mean) ** 2, x=z))
        np.testing.assert_allclose(found[:, k], [mean, deviation], rtol=within, atol=within * deviation)


def test_a_certain_value_has_no_spread_and_an_unknown_one_no_moments():
    for transform in (Log(), Logit(), anamorphosis(SAMPLE)):
        mean, deviation = transform.moments(np.array([0.3, 0.3]), np.array([0.0, np.nan]))
        assert mean[0] == pytest.approx(transform.inverse(np.array([0.3]))[0])
        assert deviation[0] == pytest.approx(0, abs=1e-12)
        assert np.isnan([mean[1], deviation[1]]).all()


def test_scores_of_ranks_are_gaussian_whatever_the_sample_was():
    scores = anamorphosis(SAMPLE).forward(SAMPLE)
    assert np.mean(scores) == pytest.approx(0, abs=1e-3)
    assert np.std(scores) == pytest.approx(1, abs=0.01)
    assert stats.kstest(scores, "norm").statistic < 2 / SAMPLE.size
    other = anamorphosis(np.exp(SAMPLE)).forward(np.exp(SAMPLE))
    np.testing.assert_allclose(other, scores, rtol=1e-9)


def test_equal_values_share_their_rank_and_many_values_have_few_knots():
    values = np.repeat(np.arange(40.0), 7)
    made = anamorphosis(values)
    np.testing.assert_allclose(made.scores, -made.scores[::-1], atol=1e-12)
    many = np.random.default_rng(2).normal(size=20_000)
    made = anamorphosis(many)
    assert made.values.size == KNOTS
    assert (made.values[0], made.values[-1]) == (many.min(), many.max())
    assert np.abs(made.forward(many) - stats.norm.ppf((stats.rankdata(many) - 0.375) / 20_000.25)).max() < 0.2


def test_too_few_values_tell_no_shape():
    with pytest.raises(InputError, match="needs 20 different values; there are 3"):
        anamorphosis(np.array([1.0, 2, 3] * 50))
