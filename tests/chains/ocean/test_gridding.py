"""ocean.gridding: what a data manager would check before trusting a map."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from kernel import kernel_covariance

import phidias_lab
from phidias_lab.chains.ocean import gridding
from phidias_lab.chains.ocean.gridding import Gridding, cell_edges
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import arrays, progress

LON = np.arange(-12.0, -3.9, 0.5)
LAT = np.arange(44.0, 50.1, 0.5)
KM_PER_DEGREE = 111.195


def make_domain(depth=(0.0, 10.0, 50.0), land=True) -> xr.Dataset:
    mask = np.ones((len(depth), LAT.size, LON.size), np.int8)
    if land:
        mask[:, 3:6, 8:12] = 0
    return xr.Dataset(
        {"mask": (("depth", "latitude", "longitude"), mask)},
        coords={"depth": list(depth), "latitude": LAT, "longitude": LON},
    )


def make_observations(number=400, seed=1, depth=(0.0, 10.0, 50.0), **columns) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "longitude": rng.uniform(LON[0], LON[-1], number),
            "latitude": rng.uniform(LAT[0], LAT[-1], number),
            "depth": rng.choice(depth, number),
            "time": pd.Timestamp("2010-01-01") + pd.to_timedelta(rng.uniform(0, 360, number), unit="D"),
        }
    )
    table["temperature"] = 15 + np.sin(table["longitude"]) + 0.05 * rng.standard_normal(number)
    table["temperature_qc"] = 1
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    return table.assign(**columns)


def grid(observations, domain=None, **parameters) -> xr.Dataset:
    return Gridding(**parameters)(
        observations=observations, domain=make_domain() if domain is None else domain
    ).compute()


def test_a_smooth_field_is_recovered_at_sea_and_nothing_is_said_on_land():
    result = grid(make_observations(1200), noise=0.005)
    truth = 15 + np.sin(result["longitude"])
    sea = make_domain()["mask"].astype(bool)
    error = (result["analysis"].isel(time=0) - truth).where(sea)
    # The data have an error of 0.05 and the field a deviation of 0.7; linear interpolation on half-degree cells costs as
    # much as the noise does, so twice the noise is what can be asked.
    assert float(np.sqrt((error**2).mean())) < 0.1
    for name in ("analysis", "analysis_error"):
        assert np.isnan(result[name].isel(time=0).where(~sea)).all()
        assert np.isfinite(result[name].isel(time=0).where(sea, 0)).all()


def test_the_error_is_nowhere_above_the_background_beside_the_coast_either():
    """One observation in a corner; the island, the edge of the grid and the far corner know nothing of it."""
    table = make_observations(3, depth=(0.0,)).assign(longitude=[-11.9, -11.8, -11.7], latitude=44.1)
    asked = {"depths": [0], "length": 100e3, "windows": "yearly"}
    even, plain = (grid(table, **asked, unit_variance=each) for each in (True, False))
    ratio, walls = (each["analysis_error"] / each["background_deviation"] for each in (even, plain))
    assert float(ratio.max()) <= 1 + 1e-9
    assert ratio.values[0, 0, -1, -1] == pytest.approx(1, abs=1e-3)
    assert float(walls.max()) > 1.2, "the wall effect is what there is to correct"
    assert Gridding.declared()["unit_variance"].default is True


def test_every_window_has_the_background_of_its_level():
    table, domain = make_observations(300), make_domain()
    domain["mask"][2, :, 12:] = 0  # the coast of the deepest level is another one
    whole = grid(table, domain, windows="seasonal")
    alone = grid(table, domain, period=["2010-03-01", "2010-05-31"], depths=[50])
    at = np.flatnonzero(whole["time"].values == alone["time"].values[0])
    for name in ("analysis", "analysis_error"):
        np.testing.assert_allclose(whole[name].values[at, 2], alone[name].values[:, 0], rtol=1e-9)


def test_the_iterative_solver_makes_no_factor_for_the_background():
    inputs = {"observations": make_observations(50), "domain": make_domain()}
    resolved = {solver: Gridding(solver=solver).resolve(inputs)["unit_variance"] for solver in ("auto", "iterative")}
    assert resolved == {"auto": True, "iterative": False}


def test_a_slope_across_the_domain_is_no_uncertainty_of_the_map():
    """The analysis follows it: the variance is what length and noise leave to be explained, and not that of the values."""
    level = grid(make_observations(600, depth=(0.0,)), depths=[0], length=400e3)
    table = make_observations(600, depth=(0.0,))
    steep = grid(
        table.assign(temperature=table["temperature"] + 3 * (table["latitude"] - 47)), depths=[0], length=400e3
    )
    spread = float((3 * (table["latitude"] - 47)).var())
    more = (steep["background_deviation"] ** 2 - level["background_deviation"] ** 2).values.item()
    assert 0 < more < 0.5 * spread / 1.5


def test_units_and_names_come_from_the_variable_that_was_chosen():
    result = grid(make_observations())
    assert result["analysis"].attrs["units"] == "degree_Celsius"
    assert result["analysis"].attrs["standard_name"] == "sea_water_temperature"
    assert result["analysis_error"].attrs["standard_name"] == "sea_water_temperature standard_error"
    assert result["background_deviation"].attrs["units"] == "degree_Celsius"


def test_the_error_grows_from_the_data_to_the_background_far_from_them():
    table = make_observations(400, depth=(0.0,))
    table = table[table["longitude"] < -9]
    result = grid(table, make_domain(land=False), length=60e3, noise=0.1, edge_stretch=1.0)
    relative = ((result["analysis_error"] / result["background_deviation"]) ** 2).isel(time=0, depth=0)
    near, far = relative.sel(longitude=slice(-12, -10)), relative.sel(longitude=slice(-6.5, -5.5))
    assert float(near.mean()) < 0.6
    # Far from data the relative variance is that of the background; edge cells of the grid moderate, not remove, the rest.
    assert float(far.mean()) == pytest.approx(1.0, abs=0.15)


def test_the_stated_error_is_the_error_that_is_made():
    # Truth and observations are drawn from the very statistics the chain assumes (linear between the nodes, since what a
    # grid cannot hold is no noise that was given), so the errors it makes, divided by those it states, must have unit
    # variance. 40 draws x 50 nodes far apart: the mean square has a standard deviation of about 0.05 (nodes within a draw
    # are correlated), the local estimate of the variance adds some, and the grid's kernel is not quite that of the plane;
    # hence 0.2.
    rng = np.random.default_rng(5)
    length, noise, number = 80e3, 0.2, 150
    domain = make_domain(depth=(0.0,), land=False)
    lon2, lat2 = np.meshgrid(LON, LAT)
    inner = (lon2 > -11) & (lon2 < -5) & (lat2 > 45) & (lat2 < 49)
    nodes = lon2.ravel(), lat2.ravel()
    root = np.linalg.cholesky(kernel_covariance(nodes, nodes, length) + 1e-8 * np.eye(lon2.size))
    lines, squares = {"latitude": LAT, "longitude": LON}, []
    for _ in range(40):
        field = xr.DataArray((root @ rng.standard_normal(lon2.size)).reshape(lon2.shape), lines, list(lines))
        lon, lat = rng.uniform(LON[0], LON[-1], number), rng.uniform(LAT[0], LAT[-1], number)
        observed = field.interp(longitude=("here", lon), latitude=("here", lat)).values
        observed = observed + np.sqrt(noise) * rng.standard_normal(number)
        table = make_observations(number, depth=(0.0,), longitude=lon, latitude=lat, temperature=observed)
        result = grid(table, domain, length=length, noise=noise, background="none", error="exact")
        analysis, stated = (result[n].values[0, 0][inner] for n in ("analysis", "analysis_error"))
        squares.append(np.mean(((analysis - field.values[inner]) / stated) ** 2))
    assert np.mean(squares) == pytest.approx(1.0, abs=0.2)


def test_bad_flags_are_left_out_and_the_accepted_ones_are_a_choice():
    table = make_observations(300)
    table.loc[::3, "temperature"] += 22
    table.loc[::3, "temperature_qc"] = 4
    table.loc[1::3, "temperature_qc"] = 2
    assert int(grid(table)["observations_used"].sum()) <= 200
    assert float(grid(table)["analysis"].max()) < 20
    assert int(grid(table, quality="good")["observations_used"].sum()) <= 100
    assert float(grid(table, quality="all")["analysis"].max()) > 30


def test_an_observation_delivered_twice_counts_once():
    table = make_observations(200)
    again = table.assign(longitude=table["longitude"] + 1e-5)
    twice = pd.concat([table, again], ignore_index=True)
    twice.attrs = table.attrs
    once = grid(table)
    xr.testing.assert_allclose(grid(twice)["analysis"], once["analysis"], atol=1e-3)
    assert int(grid(twice)["observations_used"].sum()) == int(once["observations_used"].sum())
    kept = grid(twice, drop_duplicates=False)
    assert int(kept["observations_used"].sum()) == 2 * int(once["observations_used"].sum())
    assert float(kept["analysis_error"].mean()) < float(once["analysis_error"].mean())


def test_copies_from_a_second_archive_are_known_by_place_time_and_value():
    # Another archive rounds places and values to two decimals and times to the minute; the next measurement of a mooring
    # comes an hour later.
    table = make_observations(300, platform="one")
    copy = table.assign(
        longitude=table["longitude"].round(2),
        latitude=table["latitude"].round(2),
        time=table["time"].dt.round("1min") + pd.Timedelta(seconds=55),
        temperature=table["temperature"].round(2),
        platform="other",
    )
    later = table.assign(time=table["time"] + pd.Timedelta(hours=1))
    rows = pd.concat([table, copy, later], ignore_index=True)
    rows.attrs = table.attrs
    used = int(grid(pd.concat([table, later]))["observations_used"].sum())
    assert int(grid(rows)["observations_used"].sum()) == used
    assert int(grid(rows.drop(columns="platform"))["observations_used"].sum()) == used


def test_a_table_that_says_which_observations_are_copies_is_believed():
    table = make_observations(200)
    twice = pd.concat([table, table], ignore_index=True)
    twice.attrs = table.attrs
    once, both = (int(grid(t, drop_duplicates=False)["observations_used"].sum()) for t in (table, twice))
    assert both == 2 * once
    told = twice.assign(duplicate_of=np.r_[np.full(200, -1), np.arange(200)])
    assert int(grid(told)["observations_used"].sum()) == once
    # All decisions undone: nothing is a copy, whatever it looks like.
    assert int(grid(told.assign(duplicate_of=-1))["observations_used"].sum()) == both


@pytest.mark.parametrize("column", ["position_qc", "time_qc", "depth_qc", "temperature_added_qc"])
def test_flags_of_place_time_and_depth_and_added_ones_are_honoured(column):
    table = make_observations(300)
    flags = np.resize([1, 3, 4, 9, 2, 8, 0, 5, 6, 1], 300).astype(np.int8)
    flagged = table.assign(**{column: flags})
    flagged.attrs = table.attrs

    def used(rows, **parameters):
        rows.attrs = table.attrs
        return int(grid(rows, **parameters)["observations_used"].sum())

    assert used(flagged) == used(table[~np.isin(flags, (3, 4, 9))]) < used(table)
    assert used(flagged, quality="good") == used(table[~np.isin(flags, (2, 3, 4, 9))], quality="good")
    assert used(flagged, quality="all") == used(table)


def seam_domain(longitude) -> xr.Dataset:
    longitude = np.asarray(longitude, float)
    return xr.Dataset(
        {"mask": (("depth", "latitude", "longitude"), np.ones((1, 11, longitude.size), np.int8))},
        coords={"depth": [0.0], "latitude": np.arange(40.0, 61.0, 2.0), "longitude": longitude},
    )


def at(longitude, value, latitude=50.0) -> pd.DataFrame:
    number = len(longitude)
    table = make_observations(number, depth=(0.0,), longitude=longitude, latitude=latitude, temperature=value)
    return table.assign(time=pd.Timestamp("2010-05-01") + pd.to_timedelta(np.arange(number), unit="D"))


def test_a_region_across_the_greenwich_meridian_is_in_one_piece():
    table = at([359.0, 1.0, 350.0, 8.0], [10.0, 10.0, 0.0, 0.0])
    asked = {"length": 500e3, "region": [-10, 40, 10, 60], "background": "none"}
    across = grid(table, seam_domain(np.arange(0, 359, 2)), **asked)
    plain = grid(table, seam_domain(np.arange(-10, 11, 2)), **asked)
    assert int(across["observations_used"].sum()) == 4
    np.testing.assert_allclose(across["longitude"], plain["longitude"])
    np.testing.assert_allclose(across["analysis"], plain["analysis"], rtol=1e-9)


def test_a_domain_across_the_date_line_is_in_one_piece():
    table = at([179.0, -179.0, 171.0, -171.0], [10.0, 10.0, 0.0, 0.0])
    split = grid(table, seam_domain([*np.arange(170, 180, 2), *np.arange(-180, -169, 2)]), length=500e3)
    whole = grid(table, seam_domain(np.arange(170, 191, 2)), length=500e3)
    assert int(split["observations_used"].sum()) == 4
    np.testing.assert_allclose(split["longitude"], whole["longitude"])
    np.testing.assert_allclose(split["analysis"], whole["analysis"], rtol=1e-9)


def test_a_domain_around_the_globe_has_no_edge():
    domain = seam_domain(np.arange(-180, 180, 5))
    result = grid(at([177.5, -2.5], [5.0, 1.0]), domain, length=800e3, background="none")
    assert int(result["observations_used"].sum()) == 2
    east, west = (float(result["analysis"].sel(longitude=x, latitude=50.0).squeeze()) for x in (175, -180))
    assert east == pytest.approx(west, rel=1e-6)  # the data lie symmetrically to them


@pytest.mark.parametrize("west", [-16.6, 0.1, 170.3])
def test_an_observation_on_the_edge_of_the_domain_counts(west):
    longitude = west + np.arange(11) * 0.89
    table = at([longitude[0], longitude[-1]], [1.0, 2.0])
    for turn in (-360, 0, 360):
        turned = table.assign(longitude=table["longitude"] + turn)
        assert int(grid(turned, seam_domain(longitude))["observations_used"].sum()) == 2


def test_one_observation_tells_nothing_of_the_error():
    for values in ([10.0], [10.0, 10.0]):
        result = grid(at(np.linspace(-8, -6, len(values)), values), make_domain((0.0,), land=False))
        assert np.isnan(result["analysis_error"]).all()
        assert np.isnan(result["background_deviation"]).all()


def test_observations_that_do_not_count_do_not_shift_the_background():
    domain = make_domain((0.0,), land=False)
    domain["mask"][:, 3:10, 5:12] = 0
    table = at([-11.0, -5.0, -8.5, -8.2], [14.0, 15.0, 39.0, 39.5], latitude=[45.0, 49.0, 47.0, 47.2])
    result = grid(table, domain)
    assert int(result["observations_used"].sum()) == 2
    assert float(result["background"].squeeze()) == pytest.approx(14.5)
    on_land = grid(table.iloc[2:], domain)
    assert int(on_land["observations_used"].sum()) == 0
    assert np.isnan(on_land["analysis"]).all()


def test_a_domain_of_one_level_does_not_take_the_whole_water_column():
    table = make_observations(100, depth=(8.0, 500.0, 5000.0))
    used = int(grid(table, make_domain((10.0,), land=False))["observations_used"].sum())
    assert used == (table["depth"] == 8.0).sum()


def test_odd_observations_are_left_out_without_a_word_from_the_library():
    table = make_observations(50)
    table.loc[3, "depth"], table.loc[4, "latitude"], table.loc[5, "longitude"] = np.inf, np.nan, np.nan
    texts = table.assign(temperature_qc=table["temperature_qc"].astype(str))
    zoned = table.assign(time=table["time"].dt.tz_localize("UTC"))
    for odd in (table, texts, zoned):
        assert np.isfinite(grid(odd, period=["2010-01-01", "2010-12-31"])["analysis"]).any()


def test_longitudes_from_0_to_360_give_the_same_map():
    table = make_observations()
    turned = table.assign(longitude=table["longitude"] % 360)
    turned.attrs = table.attrs
    xr.testing.assert_allclose(grid(turned)["analysis"], grid(table)["analysis"], rtol=1e-9)


def test_the_order_of_the_rows_does_not_change_a_bit():
    table = make_observations()
    shuffled = table.sample(frac=1, random_state=3)
    shuffled.attrs = table.attrs
    assert grid(shuffled)["analysis"].values.tobytes() == grid(table)["analysis"].values.tobytes()


def test_each_level_uses_the_observations_of_its_own_cell():
    table = make_observations(300, depth=(0.0, 4.0, 6.0, 29.0, 31.0, 200.0))
    used = grid(table)["observations_used"].values[0]
    depth = table["depth"]
    # Half-way between 0, 10 and 50 m lie 5 and 30 m; the last cell is as thick below 50 m as above it.
    assert used.sum() < len(table)
    inside = [(depth < 5).sum(), ((depth >= 5) & (depth < 30)).sum(), ((depth >= 30) & (depth < 70)).sum()]
    lost = [inside[k] - used[k] for k in range(3)]
    assert all(0 <= n <= 0.2 * inside[k] for k, n in enumerate(lost)), (used, inside)  # some lie on the island


def test_chosen_depths_keep_their_cell_of_the_whole_domain():
    np.testing.assert_allclose(cell_edges(np.array([0.0, 10.0, 50.0]), np.array([10.0])), [[5.0, 30.0]])
    whole, part = grid(make_observations()), grid(make_observations(), depths=[10.0])
    np.testing.assert_allclose(part["analysis"].values[:, 0], whole["analysis"].values[:, 1], rtol=1e-12)


def test_a_vertical_length_ties_the_levels_together():
    table = make_observations(depth=(0.0,))
    alone = grid(table, error="none")
    assert np.isnan(alone["analysis"].isel(depth=1)).all()
    tied = grid(table, vertical_length=20.0, error="none")
    sea = make_domain()["mask"].isel(depth=1).astype(bool)
    assert np.isfinite(tied["analysis"].isel(time=0, depth=1).where(sea, 0)).all()
    anomaly = np.abs(tied["analysis"] - tied["background"]).mean(["time", "latitude", "longitude"])
    assert anomaly[0] > anomaly[1] > anomaly[2]


def test_a_month_without_data_is_empty_and_says_so():
    table = make_observations()
    table = table[~table["time"].dt.month.isin([5])]
    result = grid(table, windows="monthly", error="none")
    assert result.sizes["time"] == 12
    assert int(result["observations_used"].isel(time=4).sum()) == 0
    assert np.isnan(result["analysis"].isel(time=4)).all()
    assert np.isfinite(result["analysis"].isel(time=3)).any()


def test_a_region_cuts_the_domain_and_a_polygon_masks_it():
    box = grid(make_observations(), region=[-10, 45, -6, 48])
    assert (float(box["longitude"].min()), float(box["longitude"].max())) == (-10, -6)
    triangle = {"type": "Polygon", "coordinates": [[[-12, 44], [-4, 44], [-12, 50], [-12, 44]]]}
    part = grid(make_observations(), region=triangle)
    assert np.isnan(part["analysis"].sel(longitude=-4, latitude=50)).all()
    assert np.isfinite(part["analysis"].sel(longitude=-11.5, latitude=44.5)).all()


def test_auto_becomes_a_solver_that_is_named_in_the_order():
    chain = Gridding()
    checked = chain.checked({"observations": make_observations(), "domain": make_domain()})
    resolved = chain.resolved(checked).parameters
    assert resolved["solver"] in gridding.solvers.available()
    assert resolved["depths"] == [0.0, 10.0, 50.0]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"region": [100, 10, 110, 20]}, "spans -12 to -4 degrees east"),
        ({"period": ["1950-01-01", "1950-12-31"]}, "No observation of 'temperature'"),
        ({"depths": [7.0]}, "Its levels are 0, 10, 50 m"),
        ({"variable": "temprature"}, "Did you mean 'temperature'"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(parameters, said):
    with pytest.raises(InputError, match=said):
        grid(make_observations(), **parameters)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.assign(mask=d["mask"] * 0.3), "must hold 1 at sea and 0 on land"),
        (lambda d: d.assign(mask=d["mask"] * 9.97e36), "must hold 1 at sea and 0 on land"),
        (lambda d: d.assign(mask=d["mask"] * 0), "has no sea"),
        (lambda d: d.expand_dims(time=[0, 1]), "the dimensions time, depth, latitude, longitude"),
        (lambda d: d.assign_coords(depth=[0.0, 10.0, 10.0]), "domain's depth must be a vector of different"),
        (lambda d: d.assign_coords(latitude=[*LAT[:-1], np.nan]), "domain's latitude must be a vector of different"),
    ],
)
def test_a_domain_that_is_none_is_refused_in_a_sentence(change, said):
    with pytest.raises(InputError, match=said):
        grid(make_observations(), change(make_domain()))


def test_levels_without_any_observation_are_refused_and_not_shown_as_an_empty_map():
    with pytest.raises(InputError, match="near its levels"):
        grid(make_observations(depth=(0.0,)), depths=[50.0])


def test_texts_among_the_values_are_refused():
    table = make_observations()
    with pytest.raises(InputError, match="'temperature' of the observations holds"):
        grid(table.assign(temperature=table["temperature"].astype(str)))


def test_a_table_without_dates_is_refused():
    with pytest.raises(InputError, match="holds 'yesterday' in row 1"):
        grid(make_observations().assign(time="yesterday"))


def odd_rows() -> pd.DataFrame:
    """A hundred good observations, and one or more of each kind that is left out."""
    table = make_observations(100)
    table["longitude"], table["latitude"] = np.linspace(-12, -9, 100), np.linspace(47, 50, 100)  # no island there
    odd = table.iloc[:14].copy()
    odd["time"] += pd.Timedelta(days=1)
    odd.iloc[0:2, odd.columns.get_loc("temperature")] = np.nan
    odd.iloc[2, odd.columns.get_loc("depth")] = -10.0
    odd.iloc[3, odd.columns.get_loc("depth")] = -999.0
    odd.iloc[4, odd.columns.get_loc("latitude")] = 95.0
    odd.iloc[5, odd.columns.get_loc("longitude")] = 20.0
    odd.iloc[6, odd.columns.get_loc("depth")] = 3000.0
    odd.iloc[7, odd.columns.get_loc("temperature_qc")] = 4
    odd.iloc[8, odd.columns.get_loc("temperature")] = 99999.0
    odd.iloc[9, odd.columns.get_loc("temperature")] = -999.0
    odd.iloc[10] = table.iloc[10]
    odd.iloc[11, odd.columns.get_loc("time")] = pd.Timestamp("2003-01-01")
    odd.iloc[12, [odd.columns.get_loc("longitude"), odd.columns.get_loc("latitude")]] = [-7.0, 46.4]  # on the island
    odd.iloc[13, odd.columns.get_loc("depth")] = -0.3  # a surface drifter
    together = pd.concat([table, odd], ignore_index=True)
    together.attrs = table.attrs
    return together


def counts_of(result) -> dict:
    return json.loads(result.attrs["phidias_said"])["counts"]["observations"]


@pytest.mark.parametrize("partitions", [None, 3])
def test_every_observation_that_is_left_out_is_counted_once_by_its_reason(partitions):
    import dask.dataframe as dd

    from phidias_lab.contract.data import with_attributes

    table = odd_rows()
    given = table if partitions is None else with_attributes(dd.from_pandas(table, npartitions=3), table.attrs)
    result = grid(given, period=["2010-01-01", "2010-12-31"])
    counted = counts_of(result)
    assert counted["total"] == 114
    assert counted["left_out"] == {
        "without value or place": 2,
        "impossible depth or latitude": 3,
        "outside the period": 1,
        "outside the grid": 1,
        "between or beyond the levels": 1,
        "flag not accepted": 1,
        "implausible value": 2,
        "duplicate": 1,
        "not at sea": 1,
    }
    assert counted["used"] == 101 == int(result["observations_used"].sum())
    assert (
        "observations used 101 of 114; left out: 3 impossible depth or latitude, 2 implausible"
        in result.attrs["comment"]
    )
    assert float(result["analysis"].max()) < 17


def test_absurd_values_change_nothing_of_the_map():
    table = odd_rows()
    clean = table.iloc[[*range(100), 113]]
    clean.attrs = table.attrs
    both = (grid(t, period=["2010-01-01", "2010-12-31"])["analysis"].values for t in (table, clean))
    np.testing.assert_array_equal(*both)


def test_the_plausible_range_follows_the_units_of_the_column_and_stands_in_the_order():
    table = make_observations(100)
    kelvin = table.assign(temperature=table["temperature"] + 273.15)
    kelvin.loc[0, "temperature"] = 15.0
    kelvin.attrs = {"columns": {"temperature": {"units": "K", "standard_name": "sea_water_temperature"}}}
    assert counts_of(grid(kelvin))["left_out"]["implausible value"] == 1
    chain = Gridding()
    checked = chain.checked({"observations": kelvin, "domain": make_domain()})
    assert chain.resolved(checked).value_range == pytest.approx([270.65, 313.15])
    assert Gridding(value_range=[0.0, 400.0]).resolved(checked).value_range == [0.0, 400.0]
    assert "implausible value" not in counts_of(grid(kelvin, value_range=[0.0, 400.0]))["left_out"]


def test_a_range_of_three_numbers_is_refused():
    with pytest.raises(ParameterError, match="needs two"):
        grid(make_observations(20), value_range=[0.0, 1.0, 2.0])


def test_kelvin_without_units_is_refused_with_the_way_out():
    table = make_observations(50)
    table["temperature"] += 273.15
    table.attrs = {}
    with pytest.raises(InputError, match="--units temperature=UNITS"):
        grid(table)


def test_depths_that_count_upwards_are_refused_with_the_reason():
    table = make_observations(50, depth=(10.0, 50.0))
    with pytest.raises(InputError, match="Depth counts downwards"):  # told by the extent alone
        grid(table.assign(depth=-table["depth"]))
    upwards = table.assign(depth=-table["depth"])
    upwards.loc[49, ["depth", "temperature"]] = 10.0, np.nan
    with pytest.raises(InputError, match=r"49 impossible depth or latitude.*Depth counts downwards"):
        grid(upwards)


def test_fill_values_of_an_unknown_variable_are_used_but_said():
    table = make_observations(100).rename(columns={"temperature": "nitrate", "temperature_qc": "nitrate_qc"})
    table.attrs = {}
    table.loc[:4, "nitrate"] = -999.0
    said = json.loads(grid(table, variable="nitrate").attrs["phidias_said"])
    assert any("are -999, a common sign for a missing value" in sentence for sentence in said["warnings"])
    table.loc[:4, "nitrate"] = 15.0
    assert "common sign" not in grid(table, variable="nitrate").attrs["comment"]


def test_units_that_have_no_range_are_said():
    table = make_observations(100).rename(columns={"temperature": "oxygen", "temperature_qc": "oxygen_qc"})
    table.attrs = {"columns": {"oxygen": {"units": "mL L-1"}}}
    assert "none was left out as implausible" in grid(table, variable="oxygen").attrs["comment"]


def test_levels_and_windows_without_observations_are_said_once_each():
    table = make_observations(400, depth=(0.0, 10.0))
    table = table[table["time"].dt.month != 5]
    table = table[~((table["time"].dt.month == 7) & (table["depth"] == 10.0))]
    said = json.loads(grid(table, windows="monthly", error="none").attrs["phidias_said"])["warnings"]
    assert said == [
        "No observation is used in 2010-05-01 to 2010-05-31: the analysis is empty there.",
        "No observation is used at 10 m in 2010-07-01 to 2010-07-31: the analysis is empty there.",
        "No observation is used at 50 m: the analysis is empty there.",
    ]
    tied = json.loads(grid(table, vertical_length=20.0, error="none").attrs["phidias_said"])["warnings"]
    assert tied == ["No observation is used at 50 m: the analysis there comes from other levels."]


@pytest.mark.parametrize("solver", ["multifrontal", "iterative"])
def test_a_run_tells_where_the_solver_that_can_use_a_gpu_computed(demo_lake, solver):
    asked = {"variable": "salinity", "depths": [0], "period": "2012-01", "error": "none", "solver": solver}
    run = phidias_lab.run("ocean.gridding", **asked)
    run.result()
    remarks = [arrays.on("auto").sentence] if solver == "iterative" else None
    assert run.record["said"].get("remarks") == remarks
    assert (arrays.on("auto").sentence in run.log) == (solver == "iterative")


def test_a_long_analysis_tells_how_far_it_is():
    told = []
    with progress.listening(lambda computation, share: told.append((computation, share))):
        grid(make_observations(), depths=[10.0], unit_variance=False)
    computations = {computation for computation, _ in told}
    assert len(computations) == 1
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0.01 < shares[0] < 0.25  # of the factor
    assert shares[-1] > 0.99
