"""ocean.gridding from a background: a profile, an earlier product, a file of another."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import phidias_lab
from phidias_lab.chains.ocean import _levels
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError, ParameterError

LON, LAT, DEPTH = np.arange(-12.0, -3.9, 1.0), np.arange(44.0, 50.1, 1.0), np.array([0.0, 50.0, 100.0])
DOMAIN = xr.Dataset(
    {"mask": (("depth", "latitude", "longitude"), np.ones((3, LAT.size, LON.size), np.int8))},
    coords={"depth": DEPTH, "latitude": LAT, "longitude": LON},
)


def observations(value, number=300, seed=4) -> pd.DataFrame:
    """`number` observations of value(longitude, latitude, depth, time) in 2010."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "longitude": rng.uniform(LON[0], LON[-1], number),
            "latitude": rng.uniform(LAT[0], LAT[-1], number),
            "depth": rng.uniform(0, 100, number),
            "time": pd.Timestamp("2010-01-01") + pd.to_timedelta(rng.uniform(0, 364, number), unit="D"),
        }
    )
    table["temperature"] = value(*(table[c] for c in ("longitude", "latitude", "depth", "time")))
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    return table


def grid(table, previous=None, **parameters):
    inputs = {} if previous is None else {"previous": previous}
    asked = {"error": "none", "noise": 1.0, **parameters}
    return Gridding(**asked)(observations=table, domain=DOMAIN, **inputs).compute()


def cube(value, time=None, **attributes) -> xr.Dataset:
    """A field of value(longitude, latitude, depth, day of the year) on a grid of its own."""
    lines = {
        "depth": np.array([0.0, 30.0, 120.0]),
        "latitude": np.arange(43.0, 51.1, 0.5),
        "longitude": np.arange(347.0, 357.6, 0.5),
    }
    z, y, x = np.meshgrid(*lines.values(), indexing="ij")
    days = [0.0] if time is None else pd.DatetimeIndex(time).day_of_year
    values = np.stack([value(x - 360, y, z, day) for day in days])
    told = {"units": "degree_Celsius", "standard_name": "sea_water_temperature", **attributes}
    made = xr.Dataset(
        {"temperature": (("time", *lines), values, told)}, coords={"time": [0] if time is None else time, **lines}
    )
    return made.isel(time=0, drop=True) if time is None else made


def test_the_analysis_of_what_the_background_knows_already_is_the_background():
    def value(longitude, latitude, depth, _):
        return 10 + 0.5 * longitude + 0.2 * latitude - 0.05 * depth

    result = grid(observations(value), cube(value), background="previous")
    expected = value(*np.meshgrid(LON, LAT), DEPTH[:, None, None], 0)
    np.testing.assert_allclose(result["analysis"].values[0], expected, rtol=1e-6)
    np.testing.assert_allclose(result["background_field"].values[0], expected, rtol=1e-6)
    assert "background" not in result
    # A coarse mean knows nothing of the slopes, and an analysis that trusts its data little cannot draw them.
    without = grid(observations(value))
    assert float(abs(without["analysis"].values[0] - expected).mean()) > 0.05


def test_far_from_observations_the_analysis_returns_to_the_previous_field():
    table = observations(lambda x, y, z, t: 20.0 + 0 * x)
    table = table[table["longitude"] < -9]
    table.attrs = observations(lambda x, y, z, t: x).attrs
    result = grid(table, cube(lambda x, y, z, _: 12.0 + y / 100), background="previous", length=50e3, noise=0.1)
    np.testing.assert_allclose(
        result["analysis"].sel(longitude=-4), result["background_field"].sel(longitude=-4), atol=0.05
    )
    assert float(result["analysis"].sel(longitude=slice(-12, -10)).mean()) > 18


def test_a_profile_takes_the_mean_of_each_level_and_the_slope_between_them():
    table = observations(lambda x, y, z, t: 20 - 0.1 * z, number=1000)
    alone = {kind: grid(table, background=kind) for kind in ("profile", "mean")}
    cells = [table["depth"] < 25, (table["depth"] >= 25) & (table["depth"] < 75), table["depth"] >= 75]
    means = [table["temperature"][c].mean() for c in cells]
    np.testing.assert_allclose(alone["profile"]["background"].values[0], means, rtol=1e-12)
    # In the middle level nothing is left that the depths of the observations could feign; a mean leaves it all.
    spread = {kind: float(result["analysis"].sel(depth=50).std()) for kind, result in alone.items()}
    assert spread["profile"] < 1e-9 < 0.01 < spread["mean"]
    # Levels that are analysed together return to the mean of each, and not of all.
    few = observations(lambda x, y, z, t: 20 - 0.1 * z, number=40)
    asked = {"vertical_length": 60.0, "length": 50e3, "noise": 100.0}
    tied = {kind: grid(few, background=kind, **asked) for kind in ("profile", "mean")}
    of_levels = {kind: result["analysis"].mean(["time", "latitude", "longitude"]) for kind, result in tied.items()}
    np.testing.assert_allclose(of_levels["profile"], tied["profile"]["background"].values[0], atol=0.05)
    np.testing.assert_allclose(of_levels["profile"], [18.75, 15, 11.25], atol=1)
    assert np.ptp(of_levels["mean"].values) < 1


def test_what_a_curved_profile_leaves_at_each_level_has_no_mean():
    table = observations(lambda x, y, z, t: 10 + 8 * np.exp(-z / 20) + 0 * x, number=500)
    chain = Gridding(vertical_length=60.0)
    plan = chain._plan(DOMAIN, DEPTH)
    rows = table.assign(temperature_qc=1)
    profile = _levels.mean_profile(plan, [(slice(0, 3), rows, np.ones(len(rows), bool))])
    level = _levels.level_of(plan, slice(0, 3), rows)
    left = rows["temperature"] - profile.at(rows["depth"].to_numpy(), level)
    np.testing.assert_allclose(left.groupby(level).mean(), 0, atol=1e-12)
    assert left.std() < 0.8 * (rows["temperature"] - profile.mean[level]).std()


def test_where_the_previous_field_has_land_the_sea_nearby_counts():
    previous = cube(lambda x, y, z, _: 10 + x / 10)
    previous["temperature"] = previous["temperature"].where(previous["longitude"] < 353.6)
    result = grid(observations(lambda x, y, z, t: 10 + 0 * x), previous, background="previous")
    np.testing.assert_allclose(result["background_field"].sel(longitude=[-5, -4]), 10 - 0.65)


def test_with_one_level_and_no_slope_in_depth_a_profile_is_the_mean():
    table = observations(lambda x, y, z, t: 15 + np.sin(x))
    asked = {"depths": [50.0], "error": "exact"}
    mean, profile = (grid(table, background=kind, **asked) for kind in ("mean", "profile"))
    for name in ("analysis", "analysis_error", "background", "background_deviation"):
        np.testing.assert_allclose(profile[name], mean[name], rtol=1e-12)


def test_a_level_without_observations_has_the_profile_of_its_neighbours():
    table = observations(lambda x, y, z, t: 20 - 0.1 * z, number=2000)
    attrs, table = table.attrs, table[(table["depth"] < 25) | (table["depth"] > 75)]
    table.attrs = attrs
    result = grid(table, background="profile", vertical_length=60.0)
    top, middle, bottom = result["background"].values[0]
    assert middle == pytest.approx((top + bottom) / 2)


def test_each_window_starts_from_its_own_month_of_a_climatology():
    middles = pd.to_datetime([f"1990-{m:02d}-15" for m in range(1, 13)])
    previous = cube(lambda x, y, z, day: 10 + day / 30 + 0 * x, middles)
    previous["time"].attrs["climatology"] = "climatology_bounds"
    table = observations(lambda x, y, z, t: 0 * x)
    result = grid(table, previous, background="previous", windows="monthly", noise=100.0)
    expected = [10 + m.day_of_year / 30 for m in middles]
    np.testing.assert_allclose(result["background_field"].mean(["depth", "latitude", "longitude"]), expected)
    season = grid(table, previous, background="previous", windows="climatological_seasons", noise=100.0)
    np.testing.assert_allclose(
        season["background_field"].mean(["depth", "latitude", "longitude"]),
        [np.mean([expected[k] for k in part]) for part in ([11, 0, 1], [2, 3, 4], [5, 6, 7], [8, 9, 10])],
    )


def test_the_nearest_time_of_a_climatology_may_lie_in_the_next_year():
    previous = cube(lambda x, y, z, day: day + 0 * x, pd.to_datetime(["1990-01-10", "1990-09-01"]))
    previous["time"].attrs["climatology"] = "climatology_bounds"
    table = observations(lambda x, y, z, t: 0 * x)
    result = grid(table, previous, background="previous", windows="custom", window_list="2010-12-20/2010-12-31")
    np.testing.assert_allclose(result["background_field"], 10.0)


def test_a_window_takes_the_mean_of_the_fields_within_it_else_the_nearest_and_says_when_that_is_far():
    previous = cube(lambda x, y, z, day: day + 0 * x, pd.to_datetime(["2010-01-16", "2010-02-15", "2010-03-16"]))
    table = observations(lambda x, y, z, t: 0 * x)
    result = grid(
        table, previous, background="previous", windows="custom", window_list="2010-01/2010-02, 2010-04, 2010-11"
    )
    means = result["background_field"].mean(["depth", "latitude", "longitude"]).values
    np.testing.assert_allclose(means, [(16 + 46) / 2, 75, 75])
    warnings = json.loads(result.attrs["phidias_said"])["warnings"]
    assert warnings == [
        "The input 'previous' has no time in or near 2010-11-01 to 2010-11-30; its nearest field was taken."
    ]


def test_an_earlier_product_is_a_background_as_it_lies_in_its_file(tmp_path):
    table = observations(lambda x, y, z, t: 15 + np.sin(x))
    inputs = {"observations": table, "domain": DOMAIN}
    first = phidias_lab.run(
        "ocean.gridding", inputs=inputs, length=500e3, error="none", output=str(tmp_path / "first.nc")
    )
    earlier = first.result()["analysis"].values
    asked = {"background": "previous", "length": 100e3, "error": "none"}
    again = phidias_lab.run(
        "ocean.gridding", inputs={**inputs, "previous": str(tmp_path / "first.nc")}, **asked
    ).result()
    np.testing.assert_allclose(again["background_field"].values, earlier, rtol=1e-9)
    misfit = [np.abs(run - (15 + np.sin(LON))).mean() for run in (earlier, again["analysis"].values)]
    assert misfit[1] < misfit[0]


def test_units_of_a_previous_field_are_converted():
    warm = cube(lambda x, y, z, _: 285.15 + 0 * x, units="K")
    result = grid(observations(lambda x, y, z, t: 12 + 0 * x), warm, background="previous")
    np.testing.assert_allclose(result["background_field"], 12.0)


@pytest.mark.parametrize(
    ("change", "parameters", "said"),
    [
        (lambda c: c, {}, "background 'mean' and an input 'previous'"),
        (lambda c: None, {"background": "previous"}, "background 'previous' and no input 'previous'"),
        (
            lambda c: c.rename(temperature="t2m").drop_attrs(),
            {"background": "previous"},
            "has no field of 'temperature'.*it has t2m",
        ),
        (
            lambda c: c.isel(latitude=slice(0, 5)),
            {"background": "previous"},
            "spans latitudes 43 to 45, and the grid 44 to 50",
        ),
        (
            lambda c: c.isel(longitude=slice(0, 5)),
            {"background": "previous"},
            "spans longitudes 347 to 349, and the grid",
        ),
        (lambda c: c * np.nan, {"background": "previous"}, "has no value in a window"),
        (lambda c: c.expand_dims(time=[0]), {"background": "previous"}, "holds no dates"),
    ],
)
def test_a_background_that_cannot_be_is_refused_in_a_sentence(change, parameters, said):
    with pytest.raises((InputError, ParameterError), match=said):
        grid(observations(lambda x, y, z, t: 15 + 0 * x), change(cube(lambda x, y, z, _: x)), **parameters)


def test_a_plane_is_found_at_each_level_and_the_analysis_returns_to_it():
    def value(longitude, latitude, depth, _):
        return 10 + 0.5 * longitude + 0.2 * latitude + 0.01 * depth * longitude

    table = observations(value)
    table["depth"] = np.repeat(DEPTH, 100)
    table["temperature"] = value(*(table[c] for c in ("longitude", "latitude", "depth", "time")))
    result = grid(table, background="plane")
    expected = value(*np.meshgrid(LON, LAT), DEPTH[:, None, None], 0)
    np.testing.assert_allclose(result["analysis"].values[0], expected, rtol=1e-9)
    np.testing.assert_allclose(result["background_field"].values[0], expected, rtol=1e-9)
    assert "background" not in result


def test_a_plane_counts_what_it_took_from_the_observations():
    table = observations(lambda *_: 0.0)
    table["temperature"] = np.random.default_rng(0).standard_normal(len(table))
    plan = Gridding(background="plane").resolved({"observations": table, "domain": DOMAIN})._plan(DOMAIN, DEPTH)
    group, used = slice(0, 3), np.ones(len(table), bool)
    start = _levels.plane(plan, [(group, table, used)])
    assert _levels.background_of(plan, group, table, used, start).free == 9
    assert _levels.background_of(plan, slice(0, 1), table, used, start).free == 3


def test_a_section_leaves_the_slope_across_it_flat_and_a_level_without_values_takes_its_neighbours():
    table = observations(lambda *_: 0.0)
    table["latitude"], table["temperature"] = 47.0, 3.0 + 2.0 * table["longitude"]
    plan = Gridding(background="plane").resolved({"observations": table, "domain": DOMAIN})._plan(DOMAIN, DEPTH)
    deep = table[np.abs(table["depth"] - 50.0) > 25.0]  # nothing at 50 m
    found = _levels.plane(plan, [(slice(0, 3), deep, np.ones(len(deep), bool))])
    assert found.free.tolist() == [2, 0, 2]
    np.testing.assert_allclose(found.at(np.arange(3), -5.0, 50.0), -7.0)


def test_around_the_globe_a_plane_has_no_slope_by_longitude():
    globe = DOMAIN.reindex(longitude=np.arange(0.0, 360.0, 30.0), fill_value=1)
    table = observations(lambda *_: 0.0)
    table["longitude"] = np.linspace(0, 359, len(table))
    table["temperature"] = table["longitude"] + table["latitude"]
    plan = Gridding(background="plane").resolved({"observations": table, "domain": globe})._plan(globe, DEPTH)
    found = _levels.plane(plan, [(slice(0, 3), table, np.ones(len(table), bool))])
    assert (found.numbers[:, 1] == 0).all()


@pytest.mark.parametrize("spread", [1e-7, 1e-3, 0.05])
def test_places_that_lie_close_together_draw_no_slope_across_the_domain(spread):
    table, random = observations(lambda *_: 0.0), np.random.default_rng(1)
    table["longitude"] = -8.0 + spread * random.standard_normal(len(table))
    table["latitude"] = 47.0 + spread * random.standard_normal(len(table))
    table["temperature"] = 12 + 0.5 * random.standard_normal(len(table))
    result = grid(table, background="plane")
    assert float(result["background_field"].min()) > 11.5
    assert float(result["background_field"].max()) < 12.5
    assert "span too little of the domain for a plane" in result.attrs["comment"]
    assert "span too little" not in grid(observations(lambda *_: 1.0), background="plane").attrs.get("comment", "")
