"""ocean.domain: grids with a sea mask, from files like GEBCO's and from coastlines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.chains.ocean.domain import Domain
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods.coastlines import is_land
from phidias_lab.testing.scenes.bathymetry import gebco


def domain(bathymetry=None, **parameters) -> xr.Dataset:
    return Domain(**parameters)(bathymetry=bathymetry)


def test_a_file_like_gebcos_becomes_a_grid_with_land_shelf_and_island():
    found = domain(gebco(), step=0.5, depths=[0.0, 100.0, 1000.0], region=[-7, 43, 1.5, 49])
    assert (float(found["longitude"][0]), float(found["longitude"][-1])) == (-7, 1.5)
    assert (float(found["latitude"][0]), float(found["latitude"][-1])) == (43, 49)
    mask = found["mask"].transpose("depth", "latitude", "longitude")
    away = mask.sel(latitude=43)
    for depth in found["depth"].values:
        # The floor falls from 0 at 0 E to 3000 m at 6 W; the mean over a cell is its middle there.
        expected = -500 * found["longitude"] > depth
        assert (away.sel(depth=depth).astype(bool) == expected).all()
    assert int(mask.sel(latitude=46, longitude=-4, depth=0)) == 0
    assert int(mask.sel(latitude=46, longitude=1, depth=0)) == 0  # a lake of a node or two
    np.testing.assert_allclose(found["sea_floor_depth"].sel(latitude=43, longitude=[-5, -2]), [2500, 1000], atol=1)
    assert np.isnan(found["sea_floor_depth"].sel(latitude=43, longitude=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.rename(lat="latitude", lon="longitude"),
        lambda b: b.transpose("lon", "lat").isel(lat=slice(None, None, -1)),
        lambda b: b.assign_coords(lon=b["lon"] % 360),
        lambda b: xr.Dataset({"deptho": -b["elevation"].drop_attrs()}),
        lambda b: b.assign(elevation=(b["elevation"] / 1000.0).assign_attrs(b["elevation"].attrs, units="km")),
        lambda b: b.drop_attrs(),
    ],
)
def test_names_order_sign_and_units_of_the_file_do_not_matter(change):
    asked = {"step": 0.5, "depths": [0.0, 100.0], "region": [-7, 43, 1.5, 49]}
    xr.testing.assert_equal(domain(change(gebco()), **asked)["mask"], domain(gebco(), **asked)["mask"])


def test_without_a_bathymetry_the_land_is_that_of_the_coastlines():
    found = domain(region=[-10, 35, 5, 45], step=0.5, smallest=1)
    lon2, lat2 = np.meshgrid(found["longitude"], found["latitude"])
    np.testing.assert_array_equal(found["mask"].values[0], ~is_land(lon2, lat2, "50m"))
    assert "sea_floor_depth" not in found


def test_a_polygon_and_the_globe_are_regions():
    triangle = {"type": "Polygon", "coordinates": [[[-7, 43], [-1, 43], [-7, 49], [-7, 43]]]}
    found = domain(gebco(), region=triangle, step=0.5)
    assert int(found["mask"].sel(longitude=-6.5, latitude=43.5, depth=0)) == 1
    assert int(found["mask"].sel(longitude=-1.5, latitude=48.5, depth=0)) == 0
    globe = domain(region=[-180, -80, 180, 80], step=5)
    assert globe.sizes["longitude"] == 72


def test_the_result_is_a_domain_that_gridding_takes():
    made = domain(gebco(), step=0.5, depths=[0.0, 100.0])
    table = pd.DataFrame(
        {
            "longitude": [-6.0, -3.0, 1.5],
            "latitude": 44.0,
            "depth": 0.0,
            "time": pd.Timestamp("2010-05-01"),
            "tracer": 1.0,
        }
    )
    result = Gridding(variable="tracer", error="none", background="none")(observations=table, domain=made).compute()
    assert int(result["observations_used"].sum()) == 2  # the third is on land
    np.testing.assert_array_equal(
        np.isfinite(result["analysis"].values[0, 0]), made["mask"].sel(depth=0).values.astype(bool)
    )


@pytest.mark.parametrize(
    ("bathymetry", "parameters", "said"),
    [
        (None, {}, "needs a 'region'"),
        (None, {"region": [-10, 35, 5, 45], "depths": [0, 10]}, "coastlines know nothing"),
        (gebco(), {"region": [-30, 43, -20, 49]}, "spans longitudes -7.97917 to 1.97917, and the grid -30 to -20"),
        (gebco(), {"step": 10}, "less than two rows"),
        (None, {"region": [-180, -80, 180, 80], "step": 0.005}, "Give a larger step"),
        (gebco().rename(elevation="z"), {}, None),
        (gebco().drop_attrs().rename(elevation="z"), {}, "It has z over latitude and longitude"),
        (gebco().rename(lat="north"), {}, "has no latitude of its own"),
        (gebco() * 0 + 100, {}, "There is no sea in this region"),
    ],
)
def test_what_makes_no_grid_is_refused_in_a_sentence(bathymetry, parameters, said):
    if said is None:  # the standard name says it
        assert int(domain(bathymetry, **parameters)["mask"].sum()) > 0
        return
    with pytest.raises((InputError, ParameterError), match=said):
        domain(bathymetry, **parameters)
