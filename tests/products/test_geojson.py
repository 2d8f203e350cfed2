"""Tables with shapes as GeoJSON: what crosses the date line is cut, what is missing is null."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import shapely

from phidias_lab.products import geojson


@pytest.mark.parametrize(("west", "east"), [(175.0, 190.0), (-190.0, -175.0), (170.0, 175.0)])
def test_a_shape_across_the_date_line_is_cut_there(west, east):
    table = pd.DataFrame({"geometry": [shapely.box(west, -5, east, 5)]})
    (feature,) = json.loads(geojson.dumps(table))["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.bounds[0] >= -180
    assert shape.bounds[2] <= 180
    assert shape.area == pytest.approx((east - west) * 10)
    for lon in (west + 0.1, east - 0.1):
        assert shape.contains(shapely.Point((lon + 180) % 360 - 180, 0))


def test_values_that_json_does_not_know_become_what_it_knows():
    table = pd.DataFrame(
        {
            "time": [pd.Timestamp("2022-06-28 19:10"), pd.NaT],
            "snr": [np.float32(8.5), np.nan],
            "pixels": [3, 4],
            "gases": [np.array(["CO", "CH4"]), None],
            "geometry": [shapely.Point(1, 2), None],
        }
    )
    table.attrs["synthetic"] = "true"
    found = json.loads(geojson.dumps(table))
    assert found["synthetic"] is True
    first, second = found["features"]
    assert first["properties"] == {"time": "2022-06-28T19:10:00Z", "snr": 8.5, "pixels": 3, "gases": ["CO", "CH4"]}
    assert second["properties"] == {"time": None, "snr": None, "pixels": 4, "gases": None}
    assert second["geometry"] is None
