"""ocean.gridding of transformed values: what comes back, with which error, and that bounds hold."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from kernel import kernel_covariance
from scipy import special, stats

from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.contract.data import error_terms
from phidias_lab.errors import InputError, ParameterError

LON, LAT = np.arange(-12.0, -3.9, 0.5), np.arange(44.0, 50.1, 0.5)
DOMAIN = xr.Dataset(
    {"mask": (("depth", "latitude", "longitude"), np.ones((1, LAT.size, LON.size), np.int8))},
    coords={"depth": [0.0], "latitude": LAT, "longitude": LON},
)


def observations(values=None, number=150, seed=2) -> pd.DataFrame:
    """Observations of a tracer; without values those of a smooth Gaussian field with noise."""
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(LON[0], LON[-1], number), rng.uniform(LAT[0], LAT[-1], number)
    gaussian = np.sin(lon) + 0.3 * rng.standard_normal(number)
    time = pd.Timestamp("2010-06-01") + pd.to_timedelta(np.arange(number), unit="h")
    places = {"longitude": lon, "latitude": lat, "depth": 0.0, "time": time}
    return pd.DataFrame({**places, "tracer": gaussian if values is None else values(gaussian)})


def grid(table, **parameters):
    asked = {"variable": "tracer", "noise": 0.2, "length": 80e3, **parameters}
    return Gridding(**asked)(observations=table, domain=DOMAIN).compute()


@pytest.fixture(scope="module")
def plain() -> xr.Dataset:
    return grid(observations())


def test_the_analysis_says_which_variables_tell_of_its_error(plain):
    terms = error_terms(plain["analysis"].attrs)
    assert terms == {"standard_error": "analysis_error", "background_deviation": "background_deviation"}
    table = observations(np.exp)
    known = error_terms(grid(table, transform="log")["analysis"].attrs)
    assert known == {
        **terms,
        "relative_variance": "relative_error",
        "lower_95": "analysis_lower",
        "upper_95": "analysis_upper",
    }
    without = grid(table, error="none")["analysis"].attrs
    assert error_terms(without) == {"background_deviation": "background_deviation"}


@pytest.mark.parametrize("least", [0.0, 5.0])
def test_the_analysis_of_logarithms_comes_back_as_a_lognormal_distribution(plain, least):
    m, s = plain["analysis"].values, plain["analysis_error"].values
    known = stats.lognorm(s=s, scale=np.exp(m), loc=least)
    table = observations(lambda g: np.exp(g) + least)
    result = grid(table, transform="log", transform_bounds=[least])
    np.testing.assert_allclose(result["analysis"], known.median(), rtol=1e-9)
    np.testing.assert_allclose(result["analysis_error"], known.std(), rtol=1e-9)
    np.testing.assert_allclose(result["analysis_lower"], known.ppf(0.025), rtol=1e-9)
    np.testing.assert_allclose(result["analysis_upper"], known.ppf(0.975), rtol=1e-9)
    relative = (plain["analysis_error"] / plain["background_deviation"]) ** 2
    np.testing.assert_allclose(result["relative_error"], relative, rtol=1e-9)
    mean = grid(table, transform="log", transform_bounds=[least], back_transform="mean")
    np.testing.assert_allclose(mean["analysis"], known.mean(), rtol=1e-9)
    np.testing.assert_allclose(mean["analysis_error"], known.std(), rtol=1e-9)
    around = stats.lognorm(s=plain["background_deviation"].values, scale=np.exp(plain["background"].values), loc=least)
    np.testing.assert_allclose(result["background"], around.median(), rtol=1e-9)
    np.testing.assert_allclose(mean["background"], around.mean(), rtol=1e-9)
    np.testing.assert_allclose(mean["background_deviation"], around.std(), rtol=1e-9)
    assert mean["analysis"].attrs["comment"].startswith("mean of the distribution")


def test_a_fraction_stays_between_its_bounds_and_its_error_is_that_of_the_logit(plain):
    result = grid(observations(lambda g: 100 * special.expit(4 * g)), transform="logit", transform_bounds=[0, 100])
    np.testing.assert_allclose(result["analysis"], 100 * special.expit(4 * plain["analysis"]), rtol=1e-9)
    for name in ("analysis", "analysis_lower", "analysis_upper"):
        assert float(result[name].min()) >= 0
        assert float(result[name].max()) <= 100
    without = grid(observations(lambda g: 100 * special.expit(4 * g)))
    assert float((without["analysis"] + 1.96 * without["analysis_error"]).max()) > 100
    m, s = (plain[name].values[0, 0, 3, 4] for name in ("analysis", "analysis_error"))
    draws = 100 * special.expit(4 * (m + s * np.random.default_rng(0).standard_normal(200_000)))
    found = float(result["analysis_error"].values[0, 0, 3, 4])
    assert found == pytest.approx(draws.std(), rel=0.01)


def test_the_gaussian_anamorphosis_finds_the_shape_by_itself(plain):
    one, other = (grid(observations(shape), transform="gaussian") for shape in (lambda g: g, lambda g: np.exp(2 * g)))
    # Ranks know nothing of the shape, so both analyse the same numbers; between two knots the curves differ a little.
    np.testing.assert_allclose(np.log(other["analysis"]) / 2, one["analysis"], atol=0.02)
    np.testing.assert_allclose(other["relative_error"], one["relative_error"], rtol=1e-12)
    assert float(abs(one["analysis"] - plain["analysis"]).max()) < 0.3
    seen = observations(lambda g: np.exp(2 * g))["tracer"]
    for name in ("analysis", "analysis_lower", "analysis_upper"):
        assert seen.min() <= float(other[name].min()) <= float(other[name].max()) <= seen.max()


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # Truth and observations drawn from the statistics that the chain assumes of the logarithm; 20 draws of 50 nodes each.
    rng, length, noise, number = np.random.default_rng(7), 80e3, 0.2, 120
    lon2, lat2 = np.meshgrid(LON, LAT)
    inner = (lon2 > -11) & (lon2 < -5) & (lat2 > 45) & (lat2 < 49)
    held = []
    for _ in range(20):
        lon, lat = rng.uniform(LON[0], LON[-1], number), rng.uniform(LAT[0], LAT[-1], number)
        places = np.r_[lon, lon2[inner]], np.r_[lat, lat2[inner]]
        covariance = kernel_covariance(places, places, length)
        draw = np.linalg.cholesky(covariance + 1e-8 * np.eye(len(covariance))) @ rng.standard_normal(len(covariance))
        table = observations(number=number).assign(longitude=lon, latitude=lat)
        table["tracer"] = np.exp(draw[:number] + np.sqrt(noise) * rng.standard_normal(number))
        result = grid(table, transform="log", length=length, noise=noise, drop_duplicates=False)
        low, high = (result[name].values[0, 0][inner] for name in ("analysis_lower", "analysis_upper"))
        truth = np.exp(draw[number:])
        held.append(np.mean((truth > low) & (truth < high)))
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_values_that_a_transform_does_not_know_are_left_out_and_counted():
    table = observations(np.exp)
    table.loc[:4, "tracer"] = [0.0, -1.0, 0.0, 0.0, 0.0]
    counts = json.loads(grid(table, transform="log").attrs["phidias_said"])["counts"]["observations"]
    assert counts["left_out"] == {"beyond the bounds of the transform": 5}
    assert counts["used"] == 145


def test_a_previous_field_is_transformed_with_the_values():
    previous = xr.Dataset({"tracer": (("latitude", "longitude"), np.full((LAT.size, LON.size), 7.0))}, DOMAIN.coords)
    table = observations(np.exp)
    table = table[table["longitude"] < -9]
    chain = Gridding(variable="tracer", length=50e3, noise=0.2, transform="log", background="previous")
    result = chain(observations=table, domain=DOMAIN, previous=previous).compute()
    np.testing.assert_allclose(result["background_field"], 7.0)
    np.testing.assert_allclose(result["analysis"].sel(longitude=slice(-5, -4)), 7.0, rtol=0.05)
    assert float(result["analysis"].sel(longitude=slice(-12, -10)).mean()) < 4
    with pytest.raises(InputError, match="at or beyond the bounds of the transform"):
        chain(observations=table, domain=DOMAIN, previous=previous * 0).compute()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"transform": "log", "transform_bounds": [0, 1]}, "given 0, 1; the transform 'log' needs one bound"),
        ({"transform": "logit", "transform_bounds": [0]}, "needs two bounds"),
        ({"transform_bounds": [0]}, "the transform 'none' needs no bounds"),
        ({"transform": "log", "back_transform": "mean", "error": "none"}, "depends on its error"),
        ({"transform": "log", "transform_bounds": [50]}, "Give the 'transform_bounds'"),
    ],
)
def test_transforms_that_cannot_be_are_refused_in_a_sentence(parameters, said):
    with pytest.raises((InputError, ParameterError), match=said):
        grid(observations(np.exp), **parameters)
