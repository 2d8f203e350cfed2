"""What weighs in a cell of a gridding: the sum of all contributions is the analysis there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_gridding import make_domain, make_observations

from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError

CELL = {"latitude": 47.1, "longitude": -9.9, "depth": 10.0}
ASKED = {
    "plain": {},
    "levels together": {"vertical_length": 40.0},
    "a mean of each level": {"background": "profile", "windows": "seasonal"},
    "no background": {"background": "none"},
    "variance of the norm": {"unit_variance": False, "edge_stretch": 0.0},
    "lengths of the levels": {"lengths": [80e3, 120e3, 200e3], "anisotropy": 2.0},
}


def asked(chain: Gridding, table: pd.DataFrame, **cell) -> pd.DataFrame:
    inputs = {"observations": table, "domain": make_domain()}
    return chain.resolved(inputs).influences(inputs, **{**CELL, **cell})


def field(chain: Gridding, table: pd.DataFrame):
    return chain(observations=table, domain=make_domain()).compute()


def at(result, time=0, name="analysis") -> float:
    place = {"latitude": 47.0, "longitude": -10.0, "depth": 10.0}
    return float(result[name].isel(time=time).sel({d: v for d, v in place.items() if d in result[name].dims}))


@pytest.mark.parametrize("parameters", ASKED.values(), ids=ASKED)
def test_background_and_contributions_sum_to_the_analysis(parameters):
    chain, table = Gridding(**parameters), make_observations(300)
    result = field(chain, table)
    time = result["time"].values[-1]
    rows = asked(chain, table, time=time)
    background = 0.0 if parameters.get("background") == "none" else at(result, -1, "background")
    assert background + rows["contribution"].sum() == pytest.approx(at(result, -1), abs=1e-9)
    assert np.diff(rows["weight"].abs()).max() <= 0
    number = result["observations_used"].isel(time=-1)
    together = parameters.get("vertical_length", 0) > 0
    assert len(rows) == int(number.sum() if together else number.sel(depth=10.0))
    assert rows.attrs["cell"] == {"time": time, "depth": 10.0, "latitude": 47.0, "longitude": -10.0}


def test_a_weight_is_what_the_map_changes_by_when_the_observation_changes_by_one():
    chain, table = Gridding(background="none"), make_observations(200)
    rows, before = asked(chain, table), at(field(chain, table))
    for k in (0, 1, 20):
        this = (table["longitude"] == rows["longitude"][k]) & (table["latitude"] == rows["latitude"][k])
        assert this.sum() == 1
        after = at(field(chain, table.assign(temperature=table["temperature"] + this)))
        assert after - before == pytest.approx(rows["weight"][k], abs=1e-9)
    assert rows["weight"][0] > 0.05


def test_each_observation_is_told_with_its_place_its_value_and_its_distance():
    table = make_observations(200).assign(platform="float 1")
    rows = asked(Gridding(), table)
    assert list(rows)[:4] == ["weight", "contribution", "distance", "temperature"]
    assert set(rows["temperature"]) <= set(table["temperature"])
    assert (rows["platform"] == "float 1").all()
    nearest = rows.loc[rows["distance"].idxmin()]
    north, east = nearest["latitude"] - 47.0, (nearest["longitude"] + 10.0) * np.cos(np.deg2rad(47.0))
    assert nearest["distance"] == pytest.approx(111.2e3 * np.hypot(north, east), rel=0.01)
    columns = rows.attrs["columns"]
    assert (columns["contribution"]["units"], columns["temperature"]["units"]) == ("degree_Celsius",) * 2
    assert columns["distance"]["units"] == "m"
    assert f"from {len(rows)} observations." in rows.attrs["words"]


@pytest.mark.parametrize("transform", ["log", "gaussian"])
def test_of_a_transformed_variable_the_sum_is_on_the_scale_of_the_transform(transform):
    chain, table = Gridding(transform=transform), make_observations(300)
    rows, result = asked(chain, table), field(chain, table)
    assert set(rows["temperature"]) <= set(table["temperature"])
    assert rows.attrs["columns"]["contribution"]["units"] == "1"
    assert f"scale of the {transform} transform" in rows.attrs["words"]
    if transform == "log":
        total = np.log(at(result, name="background")) + rows["contribution"].sum()
        assert np.exp(total) == pytest.approx(at(result), rel=1e-9)


def test_what_holds_the_analysis_within_its_range_is_told_beside_the_observations():
    table, chain = make_observations(300), Gridding(analysis_range=[14.9, 15.1])
    rows = asked(chain, table)
    made_of = rows.attrs["made_of"]
    assert abs(made_of["constraints"]) > 0.01
    assert sum(made_of.values()) == pytest.approx(at(field(chain, table)), abs=1e-6)
    assert "from constraints" in rows.attrs["words"]
    assert "from constraints" not in asked(Gridding(), table).attrs["words"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ({"latitude": 46.0, "longitude": -7.5}, "no sea at 46°N 7.5°W"),
        ({"latitude": 60.0}, "latitude 60 is outside the grid, which goes from 44 to 50"),
        ({"longitude": 20.0}, "longitude 20 is outside the grid"),
        ({"longitude": np.nan}, "longitude nan is no number"),
        ({"latitude": "abc"}, "latitude 'abc' is no number. Give one, such as latitude=45"),
        ({"latitude": [45, 46]}, r"latitude \[45, 46\] is no number"),
        ({"depth": 500.0}, "depth 500 m is none of the result's, which go from 0 to 50 m"),
        ({"time": "2020-01-01"}, "time 2020-01-01 is in none of the result's windows"),
        ({"depth": None}, "3 values of depth, from 0.0 to 50.0. Give depth="),
        ({"time": "soon"}, "time 'soon' cannot be read"),
        ({"depth": 50.0}, "No observation is used at 50 m"),
    ],
)
def test_a_cell_without_an_analysis_is_refused_with_the_reason(cell, said):
    with pytest.raises(InputError, match=said):
        asked(Gridding(), make_observations(200, depth=(0.0, 10.0)), **cell)


def test_of_a_gridding_in_tiles_it_is_said_that_the_weights_are_not_told():
    with pytest.raises(InputError, match="solved in tiles"):
        asked(Gridding(tile=8, length=20e3), make_observations(200))


def test_a_place_is_found_in_any_turn_of_the_globe():
    table = make_observations(200)
    one, other = asked(Gridding(), table), asked(Gridding(), table, longitude=350.1)
    pd.testing.assert_frame_equal(one, other)
