"""ocean.correlation: what is known of the data is found in them, and what they do not tell is not told."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.chains.ocean.correlation import METHODS, Correlation, for_gridding
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError
from phidias_lab.methods.variational import EARTH_RADIUS
from phidias_lab.services.commands.following import print_said
from phidias_lab.testing.scenes import ocean

SCENE = ocean.gridding()
QUICK = {"method": "likelihood", "profiles": False, "trend": "plane"}


def estimated(observations=None, domain=None, **parameters) -> xr.Dataset:
    given = {"observations": observations, "domain": domain}
    inputs = {name: SCENE["inputs"][name] if value is None else value for name, value in given.items()}
    return Correlation(**{**SCENE["parameters"], **parameters})(**inputs)


def rows(result: xr.Dataset) -> dict[str, xr.Dataset]:
    return {str(name): result.isel(estimate=k) for k, name in enumerate(result["estimate_name"].values)}


def counts(result: xr.Dataset, what: str) -> dict:
    return json.loads(result.attrs["phidias_said"])["counts"][what]


@pytest.fixture(scope="module")
def whole() -> xr.Dataset:
    return estimated(trend="plane")


def test_the_truth_of_the_scene_lies_in_the_intervals_of_every_method(whole):
    found = rows(whole)
    for words in METHODS.values():
        for name, true in (("length", 200e3), ("noise", ocean.NOISE_TO_SIGNAL)):
            row = found[f"{words}, all"]
            assert row[f"{name}_low"] <= true <= row[f"{name}_high"], (words, name)
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"], (words, name)
    surface = found["likelihood, 0 m"]
    assert 0.5 < surface["background_deviation"] < 2, "the scene has 1"
    assert (
        surface["observations_used"] + found["likelihood, 50 m"]["observations_used"] == counts(whole, "values")["used"]
    )


def test_profiles_are_least_at_the_estimate_and_reach_the_limit_at_the_interval(whole):
    names = whole["profile_name"].values.astype(str).tolist()
    k = names.index("likelihood, 0 m")
    ratio, length = whole["likelihood_ratio"][k].values, whole["profile_length"][k].values
    row = rows(whole)["likelihood, 0 m"]
    assert length[ratio.argmin()] == pytest.approx(float(row["length"]))
    # The interval comes from the curvature at the least value, the limit from the curve itself: skewed, but no stranger.
    below = np.interp(np.log(float(row["length_low"])), np.log(length), ratio)
    above = np.interp(np.log(float(row["length_high"])), np.log(length), ratio)
    assert 2 < below < 9
    assert 1 < above < 6


def test_bins_and_their_fit_come_with_the_covariance(whole):
    assert whole["fit_name"].values.tolist() == ["horizontal, 0 m", "horizontal, 50 m"]
    near = whole.isel(fit=0).sel(bin=slice(0, 30))
    apart = (near["covariance"] - near["fitted_covariance"]) / near["covariance_error"]
    assert float(np.sqrt((apart**2).mean())) < 1.5
    assert whole["covariance"].attrs["units"] == "(degree_Celsius)2"


def test_the_result_is_what_gridding_takes(whole, capsys):
    asked = for_gridding(whole)
    assert asked == {
        "length": float(rows(whole)["likelihood, all"]["length"]),
        "noise": float(rows(whole)["likelihood, all"]["noise"]),
        "background": "plane",  # which was taken away
    }
    assert Gridding(variable="temperature", **asked).length == asked["length"]
    assert for_gridding(whole, "cross_validation")["length"] != asked["length"]
    (sentence,) = (line for line in whole.attrs["comment"].splitlines() if line.startswith("By likelihood, all: "))
    options = f"--length {asked['length']:.0f} --noise {asked['noise']:.3g} --background plane"
    assert sentence.endswith(f"phidias run ocean.gridding {options}")
    print_said(json.loads(whole.attrs["phidias_said"]))
    assert f"Found    {sentence}\n" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no estimate by 'guess'. It has covariance, cross_validation, likelihood"):
        for_gridding(whole, "guess")


def test_each_level_and_window_is_estimated_by_itself():
    result = estimated(**QUICK, depths=[0], windows="seasonal", period=["2012-03-01", "2012-08-31"])
    assert result["estimate_name"].values.tolist() == [
        "likelihood, 0 m, 2012-03-01 to 2012-05-31",
        "likelihood, 0 m, 2012-06-01 to 2012-08-31",
        "likelihood, all",
    ]
    one, other, both = (result.isel(estimate=k) for k in range(3))
    alone = estimated(**QUICK, depths=[0], period=["2012-03-01", "2012-05-31"])
    assert alone["estimate_name"].values.tolist() == ["likelihood, 0 m"]
    assert float(alone["length"][0]) == pytest.approx(float(one["length"]), rel=1e-9)
    assert min(one["length"], other["length"]) < both["length"] < max(one["length"], other["length"])
    widths = [float(np.log(each["length_high"] / each["length_low"])) for each in (one, other, both)]
    assert min(widths[:2]) <= widths[2] <= max(widths[:2]), "parts that may err together are not more certain together"


def test_what_observations_do_not_tell_has_a_sentence_and_no_number():
    table = SCENE["inputs"]["observations"]
    few = pd.concat([table[table["depth"] == 0], table[table["depth"] == 50].iloc[:19]])
    few.attrs = table.attrs
    result = estimated(few, **QUICK)
    deep = rows(result)["likelihood, 50 m"]
    for name in ("length", "length_low", "noise", "noise_high", "background_deviation"):
        assert np.isnan(deep[name]), name
    assert any(
        w.startswith("Likelihood, 50 m: ") and "too few to estimate" in w
        for w in json.loads(result.attrs["phidias_said"])["warnings"]
    )
    assert rows(result)["likelihood, all"]["length"] == pytest.approx(float(rows(result)["likelihood, 0 m"]["length"]))
    with pytest.raises(InputError, match="too few to estimate a correlation length"):
        estimated(few, **QUICK, depths=[50])
    flat = table.assign(temperature=np.float32(7.0))
    flat.attrs = table.attrs
    with pytest.raises(InputError, match="all values are the same"):
        estimated(flat, **QUICK)


def test_an_outlier_is_left_out_counted_and_changes_nothing():
    table = SCENE["inputs"]["observations"].copy()
    good = table["temperature_qc"] == 1
    clean = table[good].reset_index(drop=True)
    clean.attrs = table.attrs
    spoilt = clean.copy()
    spoilt.attrs = table.attrs
    row = spoilt.index[spoilt["depth"] == 0][5]
    spoilt.loc[row, "temperature"] += np.float32(12)
    without = clean.drop(index=row)
    without.attrs = table.attrs
    found, expected = estimated(spoilt, **QUICK, depths=[0]), estimated(without, **QUICK, depths=[0])
    assert counts(found, "values")["left_out"] == {"outlier": 1}
    assert float(found["length"][0]) == pytest.approx(float(expected["length"][0]), rel=1e-9)


def test_a_slope_is_a_long_correlation_unless_a_plane_is_taken_away():
    table = SCENE["inputs"]["observations"]
    steep = table.assign(
        temperature=table["temperature"] - np.float32(0.5) * (table["latitude"] - 44).astype("float32")
    )
    steep.attrs = table.attrs
    plane = [estimated(t, **QUICK, depths=[0]) for t in (table, steep)]
    assert float(plane[0]["length"][0]) == pytest.approx(float(plane[1]["length"][0]), rel=1e-3)
    asked = {**QUICK, "trend": "mean"}
    slopes = [float(estimated(t, **asked, depths=[0])["length"][0]) for t in (table, steep)]
    assert min(slopes) > 1.5 * float(plane[0]["length"][0])


def test_a_length_below_two_steps_of_the_domain_is_said():
    domain = SCENE["inputs"]["domain"]
    coarse = domain.isel(latitude=slice(None, None, 5), longitude=slice(None, None, 4))
    result = estimated(domain=coarse, **QUICK, depths=[0])
    said = json.loads(result.attrs["phidias_said"])["warnings"]
    assert float(result["length"][0]) < 2 * 2.0 * 111.2e3
    assert any("is less than 2 steps of the domain (222 km)" in sentence for sentence in said)


def columns_of_casts(seed=0, casts=70, length=150e3, vertical=40.0, noise=0.2):
    """Casts on five levels whose anomalies have the kernel of space, (1 + r) exp(-r) with r in both lengths."""
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-8, -2, casts), rng.uniform(44, 49, casts)
    depth = np.array([0.0, 20.0, 40.0, 60.0, 80.0])
    x = np.deg2rad(lon) * EARTH_RADIUS * np.cos(np.deg2rad(46.5)) / length
    place = np.column_stack([x, np.deg2rad(lat) * EARTH_RADIUS / length])
    place = np.column_stack([np.repeat(place, 5, axis=0), np.tile(depth / vertical, casts)])
    r = np.sqrt(((place[:, None] - place[None]) ** 2).sum(axis=2))
    root = np.linalg.cholesky((1 + r) * np.exp(-r) + 1e-9 * np.eye(len(r)))
    values = root @ rng.standard_normal(len(r)) + np.sqrt(noise) * rng.standard_normal(len(r))
    times = pd.Timestamp("2012-06-01") + pd.to_timedelta(rng.uniform(0, 29, casts), unit="D")
    table = pd.DataFrame(
        {
            "longitude": np.repeat(lon, 5),
            "latitude": np.repeat(lat, 5),
            "depth": np.tile(depth, casts),
            "time": np.repeat(times, 5),
            "temperature": values + 15 - 0.1 * np.tile(depth, casts),
        }
    )
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    lines = {"depth": depth, "latitude": np.arange(43.0, 50.1, 0.7), "longitude": np.arange(-9.5, -0.4, 1.0)}
    shape = tuple(line.size for line in lines.values())
    return table, xr.Dataset({"mask": (tuple(lines), np.ones(shape, np.int8))}, coords=lines)


def test_a_vertical_length_is_found_beside_the_horizontal_one():
    table, domain = columns_of_casts()
    asked = {"vertical_length": 60.0, "profiles": False, "length": 200e3, "noise": 0.5}
    for method in ("likelihood", "covariance"):
        result = estimated(table, domain, **asked, method=method)
        row = rows(result)[f"{METHODS[method]}, 0–80 m"]
        assert row["vertical_length_low"] <= 40 <= row["vertical_length_high"], method
        assert row["length_low"] <= 150e3 <= row["length_high"], method
        assert set(for_gridding(result, method)) == {"length", "noise", "vertical_length"}
    assert result["fit_name"].values.tolist() == ["vertical, 0–80 m", "horizontal, 0–80 m"]
