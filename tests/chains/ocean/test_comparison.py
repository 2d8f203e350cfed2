"""ocean.comparison: differences, errors and their uncertainty are those that were put into the data."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.chains.ocean.comparison import Comparison
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.lake import catalog
from phidias_lab.testing.scenes import ocean, satellite

SCENE = satellite.comparison()
EMPTY = SCENE["inputs"]["field"].copy()
EMPTY["Sea_Surface_Salinity"] = EMPTY["Sea_Surface_Salinity"] * np.nan


def compared(**changes) -> xr.Dataset:
    parameters = {**SCENE["parameters"], **{k: v for k, v in changes.items() if k not in SCENE["inputs"]}}
    inputs = {**SCENE["inputs"], **{k: v for k, v in changes.items() if k in SCENE["inputs"]}}
    return Comparison(**parameters)(**inputs)


def counts(result: xr.Dataset, what: str = "observations") -> dict:
    return json.loads(result.attrs["phidias_said"])["counts"][what]


def test_bias_and_errors_of_the_scene_lie_in_their_intervals():
    result, truth = compared(), SCENE["truth"]
    whole = result.isel(group=0)
    assert str(whole["group_name"].values) == "all"
    spread = np.hypot(truth["errors"]["observations"], truth["errors"]["field"])
    for name, true in (("bias", truth["bias"]), ("deviation", spread), ("rmsd", np.hypot(truth["bias"], spread))):
        assert whole[f"{name}_low"] <= true <= whole[f"{name}_high"], name
    for k, name in enumerate(("observations", "field", "third")):
        assert result["error_deviation_low"][k] <= truth["errors"][name] <= result["error_deviation_high"][k], name
    assert result["slope_low"][2] <= truth["slope"] <= result["slope_high"][2]


def test_what_is_left_out_is_counted_by_reason_and_used_nowhere():
    result = compared()
    found = counts(result)
    assert found["left_out"]["too deep"] == 120
    assert found["left_out"]["flag not accepted"] > 0
    assert found["used"] == result.sizes["match_up"] == int(result["number"][0])
    assert float(abs(result["difference"]).max()) < 2, "values that are far off were not to be used"
    table = SCENE["inputs"]["observations"]
    wider = compared(quality="all", deepest=100, value_range=[0, 100])
    assert wider.sizes["match_up"] + counts(wider)["left_out"]["without a value of the field nearby"] == len(table)


def test_copies_and_bad_flags_of_place_and_added_ones_are_left_out():
    table = SCENE["inputs"]["observations"]
    before = counts(compared())["left_out"]
    good = np.flatnonzero((table["salinity_qc"] == 1) & (table["depth"] <= 5))[:60]
    told = table.assign(duplicate_of=-1, position_qc=np.int8(1), salinity_added_qc=np.int8(1))
    told.loc[table.index[good[:20]], "position_qc"] = 4
    told.loc[table.index[good[20:35]], "salinity_added_qc"] = 3
    told.loc[table.index[good[35:60]], "duplicate_of"] = 7
    told.attrs = table.attrs
    after = counts(compared(observations=told))["left_out"]
    assert after["flag of place, time or depth not accepted"] == 20
    assert after["flag not accepted"] == before["flag not accepted"] + 15
    assert after["duplicate"] == 25


def test_groups_divide_the_match_ups():
    result = compared(region_size=3, depth_classes=[0, 2, 10])
    number = dict(zip(result["group_name"].values.tolist(), result["number"].values.tolist(), strict=True))
    seasons = [name for name in number if " to " in name]
    boxes = [name for name in number if "°" in name]
    assert sum(number[s] for s in seasons) == sum(number[b] for b in boxes) == number["all"] == number["2–10 m"]
    assert len(boxes) > 8
    assert int(result["match_ups"].sum()) == number["all"]


def test_the_map_is_the_mean_of_the_match_ups_in_each_cell():
    result = compared(map_step=2)
    frame = pd.DataFrame({n: result[n].values for n in ("match_up_latitude", "match_up_longitude", "difference")})
    cells = frame.groupby(
        [np.floor(frame["match_up_latitude"] / 2) * 2 + 1, np.floor(frame["match_up_longitude"] / 2) * 2 + 1]
    )
    for (lat, lon), rows in cells:
        assert float(result["mean_difference"].sel(latitude=lat, longitude=lon)) == pytest.approx(
            rows["difference"].mean()
        )
        assert int(result["match_ups"].sel(latitude=lat, longitude=lon)) == len(rows)
    known = result["mean_difference_error"].notnull()
    assert known.any()
    z = ((result["mean_difference"] - SCENE["truth"]["bias"]) / result["mean_difference_error"]).where(known)
    assert 0.5 < float(np.sqrt((z**2).mean())) < 2


def test_a_field_from_north_to_south_on_another_turn_in_another_order_gives_the_same():
    plain = compared()
    turned = SCENE["inputs"]["field"].isel(lat=slice(None, None, -1), time=slice(None, None, -1))
    turned = turned.assign_coords(lon=turned["lon"].assign_attrs() + 360).rename(lat="y", lon="x")
    turned["y"].attrs, turned["x"].attrs = {"standard_name": "latitude"}, {"standard_name": "longitude"}
    found = compared(field=turned)
    xr.testing.assert_allclose(found[["field", "difference", "bias"]], plain[["field", "difference", "bias"]])


def test_a_swath_with_the_same_values_gives_the_same_as_the_grid():
    field = SCENE["inputs"]["field"]
    flat = field.drop_vars("time_bounds").stack(sample=("time", "lat", "lon")).reset_index("sample").reset_coords()
    flat["time"].attrs = flat["lon"].attrs = flat["lat"].attrs = {}
    found, plain = compared(field=flat, window=60), compared(window=60)
    assert found.sizes["match_up"] == plain.sizes["match_up"]
    np.testing.assert_allclose(found["distance"], plain["distance"], atol=0.01)
    # In the grid a month is a span, in the swath its middle a moment: the nearest in time is the same.
    np.testing.assert_allclose(found["field"], plain["field"])


def test_the_slab_that_is_read_at_once_does_not_matter(monkeypatch):
    plain = compared(matching="mean", window=20)
    monkeypatch.setattr("phidias_lab.chains.ocean.comparison.SLAB", 1)
    xr.testing.assert_identical(compared(matching="mean", window=20), plain)


def test_correlated_errors_are_said_and_give_no_numbers():
    field = SCENE["inputs"]["field"]
    third = field.rename(Sea_Surface_Salinity="sea_surface_salinity")
    result = compared(third=third)  # the same errors twice
    assert "error_deviation" not in result
    assert "No error was found by triple collocation" in result.attrs["comment"]


def test_chlorophyll_is_compared_by_its_logarithm():
    table = SCENE["inputs"]["observations"].rename(columns={"salinity": "chlorophyll", "salinity_qc": "chlorophyll_qc"})
    table["chlorophyll"] = np.exp(table["chlorophyll"].astype(float) - 35)
    table.loc[0, "chlorophyll"] = 0.0
    table.attrs = {"columns": {"chlorophyll": {"units": "mg m-3"}}}
    field = np.exp(SCENE["inputs"]["field"] - 35).rename(Sea_Surface_Salinity="CHL")
    field["time"].attrs = SCENE["inputs"]["field"]["time"].attrs
    field["CHL"].attrs["units"] = "mg m-3"
    found = compared(observations=table, field=field, third=None, variable="chlorophyll", field_variable="CHL")
    plain = compared(third=None)
    assert found["bias"].attrs["units"] == "1"
    assert counts(found)["left_out"]["not above zero"] == 1
    np.testing.assert_allclose(found["bias"][0], plain["bias"][0], atol=0.005)


def test_units_of_salinity_are_the_same_whatever_they_are_called_and_others_are_converted_or_refused():
    field = SCENE["inputs"]["field"].copy()
    plain = compared()
    field["Sea_Surface_Salinity"].attrs = {"units": "1", "standard_name": "sea_surface_salinity"}
    xr.testing.assert_allclose(compared(field=field)["bias"], plain["bias"])
    field["Sea_Surface_Salinity"].attrs = {"units": "kelvin"}
    with pytest.raises(InputError, match="cannot be compared"):
        compared(field=field)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"field": EMPTY, "radius": 100},
            r"No observation of 'salinity' has a value of .* within 0\.1 km and 0 days .* without a value of the f",
        ),
        ({"period": ["2020-01-01", "2020-02-01"]}, "No observation of 'salinity'"),
        ({"value_range": [1.0]}, "'value_range' was given 1 numbers"),
        ({"field": SCENE["inputs"]["field"].drop_vars("time_bounds")}, "are moments, not spans"),
        ({"field": SCENE["inputs"]["field"].drop_vars("lon")}, "has no longitude"),
        ({"field": SCENE["inputs"]["field"].isel(lat=[0, 2, 1, 3])}, "no regular axis"),
        ({"field": SCENE["inputs"]["field"].expand_dims(level=[1, 2])}, "Select one step of level"),
        ({"field_variable": "SSS"}, "no such variable"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(changes, words):
    with pytest.raises((InputError, ParameterError), match=words):
        compared(**changes)


def test_smos_of_the_demo_lake_has_the_errors_it_was_made_with(demo_lake):
    found = Comparison(radius=25e3, deepest=5, period=["2014-01-01", "2015-12-31"])(
        observations=catalog.open_entry("ocean.observations", {"variable": "salinity", "region": "-30,35,2,60"})[0],
        field=catalog.open_entry("ocean.smos_monthly")[0],
        third=catalog.open_entry("ocean.model_salinity")[0],
    )
    assert found.sizes["match_up"] > 3000
    assert found["bias_low"][0] <= satellite.BIAS <= found["bias_high"][0]
    sea, latitude = ocean.NORTH_EAST_ATLANTIC, found["match_up_latitude"].values
    true = [
        float(sea.noise_sd("salinity", 4.0)),
        np.sqrt(np.mean(satellite.smos_error(latitude) ** 2)),
        satellite.MODEL_ERROR,
    ]
    found_errors = found["error_deviation"].values
    # What the model's half-degree cells do not resolve counts as an error of the model.
    np.testing.assert_allclose(found_errors[:2], true[:2], rtol=0.05)
    assert true[2] * 0.95 < found_errors[2] < true[2] * 1.2
    assert found["slope_low"][2] <= satellite.SLOPE <= found["slope_high"][2]
