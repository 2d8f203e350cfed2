"""Cubes as cloud-optimised GeoTIFF."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr

from phidias_lab import products
from phidias_lab.errors import ProductError
from phidias_lab.products import checksum


@pytest.mark.parametrize("latitude", [np.linspace(40, 47, 8), np.linspace(47, 40, 8)])
def test_a_raster_is_north_up_and_lies_where_its_coordinates_say(cube, words, tmp_path, latitude):
    cube = cube.assign_coords(latitude=("latitude", latitude, cube["latitude"].attrs))
    product = products.write(cube, tmp_path / "p", format="geotiff", **words)
    with rasterio.open(tmp_path / "p" / "ocean.analysis.analysis.tif") as file:
        assert file.crs.to_epsg() == 4326
        assert file.transform.e < 0 < file.transform.a
        assert file.bounds == (-10.5, 39.5, -0.5, 47.5)
        assert np.isnan(file.nodata)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        for place in ((-10, 40), (-1, 47), (-4, 42)):
            wanted = cube["analysis"].isel(time=1, depth=1).sel(longitude=place[0], latitude=place[1])
            np.testing.assert_equal(next(file.sample([place], indexes=4))[0], wanted.values)
        assert file.descriptions[3] == "analysis time=2010-02-15T00:00:00Z depth=10.0 m"
        assert file.units == ("degree_Celsius",) * 6
        assert file.tags()["title"] == "Synthetic analysis"
    assert product.verify() == []


def test_a_raster_has_the_checksums_of_the_netcdf(cube, words, tmp_path):
    nc = products.write(cube, tmp_path / "nc", **words)
    tif = products.write(cube, tmp_path / "tif", format="geotiff", **words)
    assert set(tif.checksums) == {"analysis", "analysis_error", "time", "depth", "latitude", "longitude"}
    assert all(tif.checksums[n] == nc.checksums[n] for n in tif.checksums)


def test_there_is_one_file_per_variable_and_what_is_left_out_is_said(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", format="geotiff", **words)
    assert [f.name for f in product.files] == ["ocean.analysis.analysis.tif", "ocean.analysis.analysis_error.tif"]
    assert product.path == tmp_path / "p"
    assert product.item["properties"]["phidias:left_out"] == ["observations_used", "time_bounds"]
    assert not [f for f in (tmp_path / "p").iterdir() if f.name.startswith(".")]


@pytest.mark.parametrize("dtype", ["f4", "i2", "u1", "i8", "?"])
def test_types_come_back(words, tmp_path, dtype):
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    coords = {"latitude": [1.0, 2.0], "longitude": np.array([0.1, 0.2, 0.3], "f4")}
    cube = xr.Dataset({"a": (("longitude", "latitude"), values.T)}, coords=coords)
    back = products.write(cube, tmp_path / "p", format="geotiff", **words).open()
    assert back["a"].values.dtype == np.dtype(dtype)
    xr.testing.assert_identical(back.drop_attrs().load(), cube)


def test_a_raster_that_is_written_in_strips_comes_back(words, tmp_path, monkeypatch):
    monkeypatch.setattr(checksum, "SLAB", 200 * 900 * 8)
    values = np.arange(700.0 * 900).reshape(700, 900)
    coords = {"latitude": np.linspace(-60, 60, 700), "longitude": np.linspace(0, 359, 900)}
    cube = xr.Dataset({"a": (("latitude", "longitude"), da.from_array(values, chunks=300))}, coords=coords)
    product = products.write(cube, tmp_path / "p", format="geotiff", **words)
    np.testing.assert_array_equal(product.open()["a"].values, values)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.assign_coords(longitude=[0, 1, 2, 3, 4, 5, 6, 7, 8, 20]), "evenly spaced values of 'longitude'"),
        (lambda c: c.isel(latitude=[0]), "two values of 'latitude' or more; this cube has 1"),
        (lambda c: c[["observations_used"]], "needs a variable with the dimensions latitude and longitude"),
        (lambda c: c[["analysis"]].astype("f2"), "does not hold values of type float16"),
    ],
)
def test_what_cannot_be_a_raster_is_said_in_a_sentence(cube, words, tmp_path, change, sentence):
    with pytest.raises(ProductError, match=sentence):
        products.write(change(cube), tmp_path / "p", format="geotiff", **words)


def test_a_foreign_raster_is_refused(tmp_path):
    profile = {"driver": "GTiff", "count": 1, "height": 1, "width": 1, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "a.tif", "w", crs="EPSG:4326", transform=rasterio.Affine(1, 0, 0, 0, -1, 1), **profile
    ) as f:
        f.write(np.zeros((1, 1, 1), "u1"))
    with pytest.raises(ProductError, match="was not written by phidias_lab"):
        products.Product(tmp_path / "a.tif").open()


def test_without_the_extra_the_user_is_told_how_to_install_it(tmp_path):
    code = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "rasterio":
                raise ImportError("blocked: " + name)

    sys.meta_path.insert(0, Blocked())
    import json, xarray as xr
    from phidias_lab import products
    from phidias_lab.contract import Order
    from phidias_lab.errors import MissingExtraError
    cube = xr.Dataset({"a": (("latitude", "longitude"), [[1.0, 2], [3, 4]])}, {"latitude": [0, 1], "longitude": [0, 1]})
    given = {"chain": {"id": "a.b", "version": "1", "kind": "cube"}, "order": Order("a.b", "1")}
    try:
        products.write(cube, sys.argv[1], format="geotiff", facts={"ended": "2026-01-01T00:00:00Z"}, **given)
    except MissingExtraError as error:
        said = str(error)
    # The other formats do without it.
    sums = products.write(cube, sys.argv[1], format="netcdf", facts={"ended": "2026-01-01T00:00:00Z"}, **given).checksums
    print(json.dumps([said, len(sums)]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "p")], capture_output=True, text=True, timeout=60
    )
    said, variables = json.loads(done.stdout or "[null, null]")
    assert said == (
        "Writing GeoTIFF needs the extra 'land', which is not installed here. "
        "Install it with:  pip install 'phidias-lab[land]'"
    ), done.stderr[-2000:]
    assert variables == 3
