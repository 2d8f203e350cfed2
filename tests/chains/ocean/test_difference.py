"""ocean.difference: differences, errors and statistics are those of a computation by hand, whatever grids the two have."""

from __future__ import annotations

import itertools
import json

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.chains.ocean.difference import Difference
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError
from phidias_lab.lake import catalog
from phidias_lab.methods import agreement
from phidias_lab.testing.scenes import ocean, satellite

SCENE = satellite.difference()
MAPS = ("difference", "difference_error", "significance", "field", "reference")


def subtracted(**changes) -> xr.Dataset:
    inputs = {**SCENE["inputs"], **{k: v for k, v in changes.items() if k in SCENE["inputs"]}}
    parameters = {**SCENE["parameters"], **{k: v for k, v in changes.items() if k not in SCENE["inputs"]}}
    return Difference(**parameters)(**inputs).load()


def plane(values=None, lat=None, lon=None, name="value", time=None, bounds=None, **attributes) -> xr.Dataset:
    """A cube of one variable over (time), latitude and longitude."""
    lat = np.arange(40.5, 50) if lat is None else np.asarray(lat, float)
    lon = np.arange(-9.5, 0) if lon is None else np.asarray(lon, float)
    shape = (lat.size, lon.size) if time is None else (len(time), lat.size, lon.size)
    values = np.broadcast_to(0.0 if values is None else values, shape)
    dims = ("latitude", "longitude") if time is None else ("time", "latitude", "longitude")
    made = xr.Dataset(
        {name: (dims, np.array(values, float), {"units": "1", **attributes})}, {"latitude": lat, "longitude": lon}
    )
    if time is not None:
        made = made.assign_coords(time=np.asarray(time, "datetime64[ns]"))
    if bounds is not None:
        kind, edges = bounds
        made["time"].attrs[kind] = "edges"
        made["edges"] = (("time", "two"), np.asarray(edges, "datetime64[ns]"))
    return made


def of(field, reference, **parameters) -> xr.Dataset:
    return Difference(variable="value", reference_variable="value", **parameters)(
        field=field, reference=reference
    ).load()


def by_hand(result: xr.Dataset, t: int, z: int, y: int, x: int, independent: bool) -> tuple[float, float]:
    """Mean and error of the reference of the scene in one cell of the field, as a sum over all of its cells."""
    data = SCENE["inputs"]["reference"]
    start, end = result["time_bounds"].values[t].astype("datetime64[s]").astype(float)
    lat, lon = float(result["latitude"][y]), float(result["longitude"][x])
    depths, level = data["depth"].values, float(result["depth"][z])
    total = weights = errors = 0.0
    for step, edges in enumerate(data["time_bounds"].values.astype("datetime64[s]").astype(float)):
        in_time = max(0.0, min(end, edges[1]) - max(start, edges[0])) / (end - start)
        for k in range(depths.size):
            # A hat around each level: one at the level itself, none at its neighbours.
            hat = np.interp(level, depths, np.eye(depths.size)[k])
            for j, north in enumerate(data["latitude"].values):
                sides = [np.sin(np.deg2rad(side)) for side in (lat - 0.25, lat + 0.25, north - 0.125, north + 0.125)]
                high = max(0.0, min(sides[1], sides[3]) - max(sides[0], sides[2])) / (sides[1] - sides[0])
                if in_time * hat * high == 0:
                    continue
                for i, east in enumerate(data["longitude"].values - 360):
                    wide = max(0.0, min(lon + 0.25, east + 0.125) - max(lon - 0.25, east - 0.125)) / 0.5
                    value = float(data["temperature"].values[step, k, j, i]) - 273.15
                    w = in_time * hat * high * wide
                    if w > 0 and np.isfinite(value):
                        error = float(data["temperature_error"].values[step, k, j, i])
                        total, weights = total + w * value, weights + w
                        errors += (w * error) ** 2 if independent else w * error
    if weights < 0.5:
        return np.nan, np.nan
    return total / weights, (np.sqrt(errors) if independent else errors) / weights


@pytest.mark.parametrize("errors", ["independent", "dependent"])
def test_each_cell_is_what_a_sum_over_all_cells_gives(errors):
    result = subtracted(errors=errors)
    data = SCENE["inputs"]["field"]
    np.testing.assert_array_equal(result["latitude"], data["latitude"])
    np.testing.assert_array_equal(result["longitude"], data["longitude"])
    random, compared = np.random.default_rng(0), 0
    for _ in range(25):
        t, z, y, x = (int(random.integers(0, n)) for n in (3, 3, 16, 24))
        mean, error = by_hand(result, t, z, y, x, errors == "independent")
        own = float(data["analysis"][t, z, y, x])
        both = np.isfinite(mean) and np.isfinite(own)
        found = [float(result[name][t, z, y, x]) for name in MAPS]
        uncertainty = np.hypot(error, SCENE["truth"]["errors"]["field"])
        wanted = [own - mean, uncertainty, abs(own - mean) / uncertainty, own, mean]
        np.testing.assert_allclose(found, wanted if both else [np.nan] * 5, rtol=1e-9)
        compared += both
    assert compared > 15


def test_statistics_are_weighted_by_area_and_hold_what_was_put_in():
    result, truth = subtracted(), SCENE["truth"]
    whole = result.isel(group=0)
    difference, error = result["difference"], result["difference_error"]
    weight = xr.ones_like(difference) * np.cos(np.deg2rad(result["latitude"]))
    for name, wanted in (
        ("bias", difference.weighted(weight).mean()),
        ("rmsd", np.sqrt((difference**2).weighted(weight).mean())),
        ("standardised_rmsd", np.sqrt(((difference / error) ** 2).weighted(weight).mean())),
        ("observed_deviation", result["reference"].weighted(weight).std()),
        ("significant_share", (abs(difference / error) > 1.959964).where(difference.notnull()).weighted(weight).mean()),
    ):
        assert float(whole[name]) == pytest.approx(float(wanted), rel=1e-6), name
    assert int(whole["number"]) == int(difference.notnull().sum())
    assert whole["bias_low"] <= truth["bias"] <= whole["bias_high"]
    # Without the bias, the errors that were told explain the difference.
    unbiased = SCENE["inputs"]["field"].copy()
    unbiased["analysis"] = unbiased["analysis"] - truth["bias"]
    unbiased["analysis"].attrs = SCENE["inputs"]["field"]["analysis"].attrs
    whole = subtracted(field=unbiased).isel(group=0)
    assert whole["standardised_rmsd_low"] <= 1 <= whole["standardised_rmsd_high"]
    assert float(whole["significant_share"]) == pytest.approx(0.05, abs=0.012)


def test_groups_are_seasons_levels_and_boxes_and_each_is_the_comparison_of_its_part():
    result = subtracted(region_size=4)
    number = dict(zip(result["group_name"].values.tolist(), result["number"].values.tolist(), strict=True))
    bias = dict(zip(result["group_name"].values.tolist(), result["bias"].values.tolist(), strict=True))
    low = dict(zip(result["group_name"].values.tolist(), result["bias_low"].values.tolist(), strict=True))
    seasons, levels = ["December to February", "March to May"], ["0 m", "10 m", "20 m"]
    boxes = [name for name in number if "°" in name]
    assert set(number) == {"all", *seasons, *levels, *boxes}
    for part in (seasons, levels, boxes):
        assert sum(number[name] for name in part) == number["all"]
    alone = {
        "March to May": subtracted(period=["2014-03-01", "2014-03-31"]),
        "10 m": subtracted(field=SCENE["inputs"]["field"].isel(depth=[1])),
        "44–48°N, 16°W–12°W": subtracted(region=[-16, 44, -12.01, 47.99]),
    }
    for name, part in alone.items():
        assert float(part["bias"][0]) == pytest.approx(bias[name], rel=1e-9), name
        assert float(part["bias_low"][0]) == pytest.approx(low[name], rel=1e-9), name
        assert int(part["number"][0]) == number[name]


def test_intervals_rest_on_blocks_of_place_and_time():
    random = np.random.default_rng(4)
    lat, lon, times = (
        [-0.5, 0.5],
        np.arange(0.5, 30),
        pd.date_range("2014-01-01", periods=6, freq="10D"),
    )  # cells of one size
    # Errors that ten days and some degrees have in common.
    errors = 0.3 + random.standard_normal((6, 1, 6)).repeat(5, axis=2) + 0.2 * random.standard_normal((6, 2, 30))
    true = random.standard_normal((6, 2, 30))
    field, reference = (plane(values, lat, lon, time=times) for values in (true + errors, true))
    found = of(field, reference, block_length=550e3, block_days=10).isel(group=0)
    moment, north, east = (part.ravel() for part in np.meshgrid(times, lat, lon, indexing="ij"))
    seconds = moment.astype("datetime64[s]").astype(float)
    for days, same in ((10, True), (1000, False)):
        block = agreement.blocks(east, north, seconds, 550e3, days * 86400.0)
        wanted = agreement.of(true.ravel(), (true + errors).ravel(), block)
        for name in ("bias", "rmsd", "deviation", "correlation", "deviation_ratio"):
            interval = [float(found[f"{name}{end}"]) for end in ("", "_low", "_high")]
            assert np.allclose(interval, getattr(wanted, name), rtol=1e-8) == same, name
        assert (float(found["effective_number"]) == pytest.approx(wanted.effective_number)) == same


def test_a_region_may_be_a_polygon():
    corner = {"type": "Polygon", "coordinates": [[[-10, 40], [0.4, 40], [-10, 50.4], [-10, 40]]]}
    found = of(plane(1.0), plane(), region=corner)
    inside = found["longitude"] + 10 + found["latitude"] - 40 < 10.4
    np.testing.assert_array_equal(found["difference"].notnull(), inside.transpose("latitude", "longitude"))
    assert int(found["number"][0]) == int(inside.sum())


def test_the_finer_goes_to_the_coarser_unless_another_grid_is_asked_for():
    fine, coarse = plane(lat=np.arange(40.25, 50, 0.5), lon=np.arange(-9.75, 0, 0.5)), plane()
    for field, reference in ((fine, coarse), (coarse, fine)):
        np.testing.assert_array_equal(of(field, reference)["latitude"], coarse["latitude"])
    np.testing.assert_array_equal(of(fine, coarse, onto="field")["latitude"], fine["latitude"])
    np.testing.assert_array_equal(of(coarse, fine, onto="reference")["longitude"], fine["longitude"])


def test_nodes_that_are_no_closer_are_met_by_straight_lines():
    field = plane(np.arange(40.5, 50)[:, None] + 0 * np.arange(10))
    shifted = plane(np.arange(41, 49)[:, None] + 0.0 * np.arange(10), lat=np.arange(41, 49))
    found = of(field, shifted)
    inside = found["difference"].sel(latitude=slice(41.4, 47.6))
    np.testing.assert_allclose(inside, 0, atol=1e-12)
    assert "interpolated along latitude" in found["reference"].attrs["comment"]


@pytest.mark.parametrize("turn", [0, 360])
def test_longitudes_may_be_counted_from_anywhere_and_the_result_has_no_seam(turn):
    lon = np.arange(0.5, 360)
    globe = plane(np.cos(np.deg2rad(lon)) + np.zeros((10, 1)), lon=lon)
    around = np.arange(-9.75, 10, 0.5)
    part = plane(np.cos(np.deg2rad(around)) + np.zeros((10, 1)) + 1, lon=around + turn)
    found = of(part, globe)
    np.testing.assert_array_equal(found["longitude"], np.arange(-9.5, 10))
    np.testing.assert_allclose(found["difference"], 1, atol=1e-4)
    both = of(globe, plane(np.cos(np.deg2rad(lon)) + np.zeros((10, 1)), lon=lon).roll(longitude=180, roll_coords=True))
    assert both.sizes["longitude"] == 360
    np.testing.assert_allclose(both["difference"], 0, atol=1e-12)
    cut = of(globe, globe, region=[-20, 42, 10, 48])
    assert cut["longitude"].values.tolist() == np.arange(-19.5, 10).tolist()
    # What lies on the edge of a region is in it, however it is rounded.
    assert of(globe, globe, region=[-19.5 + 1e-12, 40.5, 9.5 - 1e-12, 49.5 - 1e-12])["difference"].shape == (10, 30)


def test_what_is_missing_makes_no_value_and_no_more_than_the_coverage_may_be_missing():
    fine = plane(lat=np.arange(40.25, 50, 0.5), lon=np.arange(-9.75, 0, 0.5))
    fine["value"][0, 0] = np.nan  # one of four
    fine["value"][4:6, 4:6] = np.nan  # all four
    fine["value"][8, 8:10] = np.nan
    fine["value"][9, 8] = np.nan  # three of four
    found = of(fine, plane())["difference"].isnull().values
    assert found[[2, 4], [2, 4]].all()
    assert found.sum() == 2
    assert of(fine, plane(), coverage=0.2)["difference"].isnull().values.sum() == 1
    assert of(fine, plane(), coverage=1)["difference"].isnull().values.sum() == 3


def test_fields_without_a_common_value_are_refused():
    west, east = plane(), plane()
    west["value"][:, :5] = np.nan
    east["value"][:, 5:] = np.nan
    with pytest.raises(InputError, match="No node has a value of both fields"):
        of(west, east)


def test_steps_of_time_are_met_by_their_spans():
    days = pd.date_range("2014-01-01", "2014-03-31")
    daily = plane(np.arange(days.size)[:, None, None], time=days + pd.Timedelta(hours=12))
    starts = pd.date_range("2014-01-01", periods=4, freq="MS")
    monthly = plane(time=starts[:3] + pd.Timedelta(days=14), bounds=("bounds", list(itertools.pairwise(starts))))
    found = of(daily, monthly)
    wanted = pd.Series(np.arange(days.size), days).groupby(days.month).mean()
    np.testing.assert_allclose(found["difference"].isel(latitude=0, longitude=0), wanted)
    np.testing.assert_array_equal(found["time_bounds"].values[:, 0], starts[:3])
    assert json.loads(found.attrs.get("phidias_said", "{}")).get("counts", {}) == {}
    # Half of the second month is there, and all of the first.
    some = of(daily.isel(time=slice(0, 31 + 13)), monthly)
    assert some.sizes["time"] == 1
    assert json.loads(some.attrs["phidias_said"])["counts"]["times"]["left_out"] == {
        "not in both fields or not asked for": 2
    }
    assert of(daily.isel(time=slice(0, 31 + 15)), monthly).sizes["time"] == 2


def test_a_climatology_is_met_by_the_same_days_of_each_year():
    parts = [
        ("2001-12-01", "2010-03-01"),
        ("2002-03-01", "2010-06-01"),
        ("2002-06-01", "2010-09-01"),
        ("2002-09-01", "2010-12-01"),
    ]
    middles = ["2006-01-15", "2006-04-15", "2006-07-15", "2006-10-15"]
    seasons = plane(np.array([1.0, 2, 3, 4])[:, None, None], time=middles, bounds=("climatology", parts))
    months = pd.date_range("2014-01-01", "2015-12-01", freq="MS")
    spans = [(start, start + pd.DateOffset(months=1)) for start in months]
    field = plane(time=months + pd.Timedelta(days=14), bounds=("bounds", spans))
    found = of(field, seasons)
    np.testing.assert_allclose(-found["difference"].isel(latitude=0, longitude=0), (months.month % 12 // 3) + 1)
    year = plane(time=["2014-07-01"], bounds=("bounds", [("2014-01-01", "2015-01-01")]))
    days = np.array([90, 92, 92, 91])
    np.testing.assert_allclose(-of(year, seasons)["difference"].values, np.sum(days * [1, 2, 3, 4]) / 365)
    same = of(seasons, seasons)
    assert same.sizes["time"] == 4
    assert "climatology_bounds" in same
    np.testing.assert_allclose(same["difference"], 0)


def test_what_has_no_depth_or_no_time_is_the_surface_and_the_same_at_all_times():
    field = SCENE["inputs"]["field"]
    surface = SCENE["inputs"]["reference"].isel(depth=0, time=0, drop=True).drop_vars("time_bounds", errors="ignore")
    found = subtracted(reference=surface)
    assert found["depth"].values.tolist() == [0.0]
    assert found.sizes["time"] == 3
    np.testing.assert_array_equal(found["reference"][0], found["reference"][2])
    for words in ("has no depth", "has no time"):
        assert words in found.attrs["comment"]
    with pytest.raises(InputError, match="begins at 20 m, and the other has no depth"):
        subtracted(reference=surface, field=field.isel(depth=[2]))
    # A level of a surface product that is written as 0 m meets the uppermost level of another at 5 m.
    lone = SCENE["inputs"]["reference"].isel(depth=[0])
    deeper = field.assign_coords(depth=("depth", [5.0, 10.0, 20.0], field["depth"].attrs))
    found = subtracted(reference=lone, field=deeper)
    assert found["depth"].values.tolist() == [0.0]
    assert "interpolated" not in found["field"].attrs["comment"]


def test_an_uncertainty_that_is_half_known_says_so_and_one_that_is_not_known_is_not_given():
    field, reference = (SCENE["inputs"][name] for name in ("field", "reference"))
    both = subtracted()
    assert "independent of each other" in both["difference_error"].attrs["comment"]
    half = subtracted(field=field.drop_vars("analysis_error"))
    assert half["difference_error"].attrs["comment"].startswith("standard error of the reference alone")
    assert "'field' tells no standard error of 'analysis'" in half.attrs["comment"]
    np.testing.assert_allclose(half["difference_error"] ** 2 + 0.15**2, both["difference_error"] ** 2)
    none = subtracted(field=field.drop_vars("analysis_error"), reference=reference.drop_vars("temperature_error"))
    assert not {"difference_error", "significance", "standardised_rmsd", "significant_share"} & set(none.data_vars)
    xr.testing.assert_equal(none["difference"], both["difference"])
    # Per cent are no kelvins.
    reference = reference.copy()
    reference["temperature_error"].attrs["units"] = "percent"
    assert "'reference' tells no standard error" in subtracted(reference=reference).attrs["comment"]
    with pytest.raises(InputError, match="Choose a standard error in the units of the variable"):
        subtracted(reference=reference, reference_error_variable="temperature_error")


def test_temperatures_say_that_a_difference_is_one_and_maps_where_it_diverges():
    result = subtracted()
    assert result["difference"].attrs["units"] == "degree_Celsius"
    assert result["difference"].attrs["units_metadata"] == "temperature: difference"
    assert result["reference"].attrs["units_metadata"] == "temperature: on_scale"
    assert result["difference"].attrs["diverges_from"] == 0.0
    assert "units_metadata" not in result["significance"].attrs


def test_chlorophyll_is_subtracted_by_its_logarithm():
    true = np.exp(np.random.default_rng(2).standard_normal((10, 10)))
    told = {"units": "mg m-3", "standard_name": "mass_concentration_of_chlorophyll_a_in_sea_water"}
    field, reference = plane(1.2 * true, **told), plane(true, **told)
    field["value_error"] = 0.3 * field["value"]
    field["value"][0, 0] = 0.0
    found = of(field, reference)
    np.testing.assert_allclose(found["difference"].values.ravel()[1:], np.log(1.2))
    np.testing.assert_allclose(found["difference_error"].values.ravel()[1:], 0.3)
    assert np.isnan(found["difference"][0, 0])
    assert found["difference"].attrs["units"] == "1"
    assert "logarithms" in found.attrs["comment"]


def test_no_more_is_read_at_once_than_a_portion_and_that_does_not_matter(monkeypatch):
    plain = subtracted()
    monkeypatch.setattr("phidias_lab.chains.ocean.difference.SLAB", 1)
    # One step of time and the two levels around a level at a time.
    read = []
    lazy = {name: data.chunk({"time": 1, "depth": 1}) for name, data in SCENE["inputs"].items()}
    found = Difference(**SCENE["parameters"])(**lazy)
    assert all(chunks == (1, 1, 1) for chunks in found["difference"].chunks[:2])
    with dask.config.set(scheduler="synchronous"):
        monkeypatch.setattr(
            "phidias_lab.methods.regridding.summed",
            _counting(read, __import__("phidias_lab").methods.regridding.summed),
        )
        found = found.load()
    xr.testing.assert_allclose(found, plain, rtol=1e-12)
    assert max(read) <= 2


def _counting(read, function):
    def counted(values, *more):
        read.append(len(values))
        return function(values, *more)

    return counted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"region": [50, 0, 60, 10]}, "The region 50,0,60,10 holds no node"),
        ({"period": ["2015-01-01", "2015-02-01"]}, "No step of time that both fields have lies in the period"),
        ({"reference": SCENE["inputs"]["reference"].isel(time=[0])}, "no time in common: .* or a smaller coverage"),
        (
            {"reference": SCENE["inputs"]["reference"].assign_coords(longitude=np.arange(48) * 0.25)},
            "no longitude in common",
        ),
        ({"reference": SCENE["inputs"]["reference"].assign_coords(depth=[100.0, 200, 300, 400])}, "no depth in common"),
        ({"reference": SCENE["inputs"]["reference"].drop_vars("latitude")}, "has no latitude"),
        ({"reference": SCENE["inputs"]["reference"].expand_dims(member=2)}, "Select one step of member"),
        ({"reference_variable": "SST"}, "no such variable"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_subtracted_is_refused_in_a_sentence_before_the_run(changes, words):
    inputs = {**SCENE["inputs"], **{k: v for k, v in changes.items() if k in SCENE["inputs"]}}
    parameters = {**SCENE["parameters"], **{k: v for k, v in changes.items() if k not in SCENE["inputs"]}}
    with pytest.raises(InputError, match=words):
        Difference(**parameters).checked(inputs)


def test_other_quantities_are_refused_and_salinity_is_salinity_whatever_its_unit_is_called():
    reference = SCENE["inputs"]["reference"].copy()
    reference["temperature"].attrs = {"units": "m s-1"}
    with pytest.raises(InputError, match="cannot be compared"):
        subtracted(reference=reference)
    told = {"standard_name": "sea_surface_salinity"}
    found = of(plane(35.0, **told | {"units": "1e-3"}), plane(35.0, **told | {"units": "PSU"}))
    np.testing.assert_array_equal(found["difference"], 0)


def test_a_gridded_product_beside_a_field_of_the_truth_differs_by_about_what_it_says():
    scene = ocean.gridding()
    product = Gridding(**scene["parameters"])(**scene["inputs"]).load()
    known = {"variable": "analysis", "reference_variable": "analysis"}
    other = product.isel(latitude=slice(None, None, -1)).assign_coords(longitude=product["longitude"] + 360)
    other["longitude"].attrs = product["longitude"].attrs
    found = Difference(**known)(field=product, reference=other).load()
    np.testing.assert_allclose(found["difference"].where(found["difference"].notnull(), 0), 0, atol=1e-9)
    np.testing.assert_allclose(
        found["difference_error"].values,
        np.where(found["difference"].notnull(), np.sqrt(2) * product["analysis_error"], np.nan),
    )


def test_smos_beside_a_model_in_the_demo_lake_has_the_bias_and_error_it_was_made_with(demo_lake):
    found = Difference()(
        field=catalog.open_entry("ocean.smos_monthly")[0], reference=catalog.open_entry("ocean.model_salinity")[0]
    ).load()
    assert found.sizes["time"] == 24
    np.testing.assert_allclose(np.diff(found["longitude"]), 0.5)
    # Part of the difference is the model's slope about 35; what is left is the bias of the satellite.
    left = found["difference"] - (1 / satellite.SLOPE - 1) * (found["reference"] - 35)
    assert float(left.mean()) == pytest.approx(satellite.BIAS, abs=0.03)
    assert "'reference' tells no standard error" in found.attrs["comment"]
    assert found["bias_low"][0] < found["bias"][0] < found["bias_high"][0]
