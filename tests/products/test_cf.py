"""NetCDF and Zarr products: conventions, attributes, memory, and what happens when the disk is full."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import tracemalloc
import warnings

import dask.array as da
import netCDF4
import numpy as np
import pytest
import xarray as xr

from phidias_lab import products
from phidias_lab.contract import order as orders
from phidias_lab.errors import ProductError
from phidias_lab.products import cf


def findings(path, test, folder) -> dict:
    """The report of the IOOS compliance checker on a file."""
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    CheckSuite.load_all_available_checkers()
    report = folder / "report.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ComplianceChecker.run_checker(str(path), [test], 0, "normal", output_filename=str(report), output_format="json")
    return json.loads(report.read_text())[test]


def raised(report: dict, level: str) -> list[str]:
    return [m for check in report[level] for m in check["msgs"]]


@pytest.mark.parametrize("test", ["cf:1.11", "acdd:1.3"])
def test_the_compliance_checker_has_no_high_priority_finding(cube, words, tmp_path, test):
    product = products.write(cube, tmp_path / "p", **words)
    assert raised(findings(product.path, test, tmp_path), "high_priorities") == []


def test_the_compliance_checker_does_find_what_xarray_writes_by_itself(cube, words, tmp_path):
    # The counter-check: the same checker on the same data without our writer.
    cube.to_netcdf(tmp_path / "plain.nc")
    assert raised(findings(tmp_path / "plain.nc", "cf:1.11", tmp_path), "high_priorities")
    assert raised(findings(tmp_path / "plain.nc", "acdd:1.3", tmp_path), "high_priorities")


def test_coordinates_and_bounds_have_no_fill_value_and_time_counts_days(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    with netCDF4.Dataset(product.path) as file:
        for name in ("time", "depth", "latitude", "longitude", "time_bounds"):
            assert "_FillValue" not in file[name].ncattrs(), name
        assert file["time"].dtype == "float64"
        assert file["time"].units == "days since 1970-01-01"
        assert file["time"].calendar == "standard"
        assert file["time"].units_metadata == "leap_seconds: unknown"
        file.set_auto_mask(False)
        assert file["time"][0] == 14625.5
        assert file["time_bounds"][0].tolist() == [14610.0, 14641.0]
        assert file["time_bounds"].ncattrs() == []
        assert np.isnan(file["analysis"]._FillValue)
        assert file["analysis"].dtype == "float64"
        assert file["analysis_error"].dtype == "float32"
        assert file["analysis"].chunking() == [1, 1, 8, 10]
        assert file["analysis"].filters()["complevel"] == 4


def test_what_the_data_say_about_leap_seconds_is_kept(cube, words, tmp_path):
    cube["time"].attrs["units_metadata"] = "leap_seconds: utc"
    product = products.write(cube, tmp_path / "p", **words)
    assert product.open()["time"].attrs["units_metadata"] == "leap_seconds: utc"


def test_global_attributes_come_from_declaration_data_order_and_facts(cube, words, tmp_path):
    with products.write(cube, tmp_path / "p", **words).open() as data:
        attrs = data.attrs
    assert attrs["Conventions"] == "CF-1.11, ACDD-1.3"
    assert attrs["title"] == "Synthetic analysis"
    assert attrs["summary"].startswith("Analyse synthetic observations onto a grid.")
    assert attrs["keywords"] == "sea_water_temperature, number_of_observations"
    assert attrs["references"] == "Barth et al. (2014), doi:10.5194/gmd-7-225-2014"
    assert attrs["history"] == (
        "2026-11-21T08:01:30Z phidias_lab 0.1.0: chain ocean.analysis 1.2, run 20261121T080000-ocean.analysis-ab12cd"
    )
    assert "observations from catalogue entry ocean.observations (checksum sha256:0123)" in attrs["source"]
    assert (attrs["geospatial_lat_min"], attrs["geospatial_lat_max"]) == (40.0, 47.0)
    assert (attrs["geospatial_lon_min"], attrs["geospatial_lon_max"]) == (-10.0, -1.0)
    assert attrs["time_coverage_start"] == "2010-01-01T00:00:00Z"
    assert attrs["time_coverage_end"] == "2010-04-01T00:00:00Z"
    assert orders.loads(attrs["phidias_order"]) == words["order"]
    assert "institution" not in attrs
    assert "license" not in attrs


def test_institution_and_license_are_written_when_they_are_known(cube, words, tmp_path):
    words["facts"].update(institution="A university", license="CC-BY-4.0")
    product = products.write(cube, tmp_path / "p", **words)
    assert product.open().attrs["institution"] == "A university"
    assert product.open().attrs["license"] == "CC-BY-4.0"
    assert product.item["properties"]["license"] == "CC-BY-4.0"


def test_the_history_of_the_data_stays_below_the_new_line(cube, words, tmp_path):
    cube.attrs["history"] = "2009 collected"
    product = products.write(cube, tmp_path / "p", **words)
    first, last = product.open().attrs["history"].split("\n")
    assert first.startswith("2026-11-21")
    assert last == "2009 collected"


def test_zarr_is_version_3_with_the_attributes_of_the_netcdf(cube, words, tmp_path):
    nc = products.write(cube, tmp_path / "nc", **words).open()
    product = products.write(cube, tmp_path / "zarr", format="zarr", **words)
    zarr = product.open()
    assert json.loads((product.path / "zarr.json").read_text())["zarr_format"] == 3
    assert zarr.attrs == nc.attrs
    for name in nc.variables:
        assert zarr[name].attrs == nc[name].attrs, name
    xr.testing.assert_equal(zarr.load(), nc.load())


def test_values_keep_every_bit(words, tmp_path):
    odd = np.array([[0.1, np.pi, np.inf], [np.finfo("f8").tiny, -0.0, 1e30]])
    cube = xr.Dataset(
        {
            "a": (("y", "x"), odd),
            "b": (("y", "x"), odd.astype("f4")),
            "c": (("y", "x"), (odd > 1)),
            "d": ("x", list("xyz")),
        }
    )
    # As if it had been read from a packed file along a dimension that is gone: neither may matter any more.
    cube.encoding["unlimited_dims"] = {"time"}
    cube["a"].encoding.update(scale_factor=0.1, add_offset=5.0, dtype="int16")
    for name in ("netcdf", "zarr"):
        with products.write(cube, tmp_path / name, format=name, **words).open() as back:
            for variable in cube:
                assert back[variable].dtype.kind == cube[variable].dtype.kind or variable == "d"
            assert back["a"].values.tobytes() == odd.tobytes()
            assert back["b"].values.tobytes() == odd.astype("f4").tobytes()
            assert back["c"].values.tolist() == (odd > 1).tolist()
            assert back["d"].values.tolist() == list("xyz")


def test_a_duration_in_days_stays_a_number(words, tmp_path):
    cube = xr.Dataset({"lag": ("x", [1.5, 2.5], {"units": "days"})})
    with products.write(cube, tmp_path / "p", **words).open() as back:
        assert back["lag"].values.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("name", ["netcdf", "zarr"])
def test_an_empty_cube_is_a_product(cube, words, tmp_path, name):
    product = products.write(cube.isel(time=slice(0, 0), longitude=slice(0, 0)), tmp_path / "p", format=name, **words)
    assert product.open()["analysis"].shape == (0, 2, 8, 0)
    assert product.verify() == []


def test_complex_values_are_refused_with_a_way_out(words, tmp_path):
    with pytest.raises(ProductError, match="real and imaginary part"):
        products.write(xr.Dataset({"a": ("x", [1j])}), tmp_path / "p", **words)


@pytest.mark.parametrize("name", ["netcdf", "zarr"])
def test_a_cube_larger_than_the_memory_allowed_is_written(words, tmp_path, name):
    size = (64, 1, 512, 512)
    lazy = da.map_blocks(
        lambda block_info=None: np.full((1, 1, 512, 512), float(block_info[None]["chunk-location"][0])),
        chunks=tuple((1,) * n if i < 2 else (n,) for i, n in enumerate(size)),
        dtype="f8",
    )
    cube = xr.Dataset({"a": (("time", "depth", "latitude", "longitude"), lazy)})
    tracemalloc.start()
    try:
        product = products.write(cube, tmp_path / "p", format=name, **words)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cube.nbytes == 128 * 2**20
    assert peak < cube.nbytes / 2
    assert float(product.open()["a"][63, 0, 5, 5]) == 63


def test_work_that_variables_share_is_done_once(words, tmp_path):
    calls = []

    def work(block):
        calls.append(1)
        return block + 1

    shared = da.zeros((4, 8, 8), chunks=(1, 8, 8)).map_blocks(work, dtype="f8", meta=np.empty((0, 0, 0)))
    dims = ("time", "latitude", "longitude")
    products.write(xr.Dataset({"a": (dims, shared), "b": (dims, shared * 2)}), tmp_path / "p", **words)
    assert len(calls) == 4


@pytest.mark.parametrize("name", ["netcdf", "zarr", "parquet"])
def test_a_full_disk_is_an_os_error_and_leaves_nothing_open(tmp_path, name):
    # A limit on file size is the nearest thing to a full disk that a test may set up.
    code = f"""
    import gc, os, resource, sys, time
    import numpy as np, pandas as pd, xarray as xr
    from phidias_lab import products
    from phidias_lab.contract import Order
    kind = "table" if {name!r} == "parquet" else "cube"
    noise = np.random.default_rng(0).random((4, 200, 200))
    result = xr.Dataset({{"a": (("t", "y", "x"), noise)}})
    result = result if kind == "cube" else pd.DataFrame({{"a": noise.ravel()}})
    chain = {{"id": "a.b", "version": "1", "kind": kind}}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        products.write(result, sys.argv[1], chain=chain, order=Order("a.b", "1"), facts={{"ended": "2026-01-01T00:00:00Z"}},
                       format={name!r})
    except OSError as error:
        print("OSError", error.errno)
    def still_open():
        gc.collect()  # the error of a second chunk holds its file in a cycle of frames
        links = [os.path.realpath(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd")]
        return [l for l in links if l.startswith(sys.argv[1])]
    # Zarr writes chunks side by side; those that were being written when one failed end a moment later.
    end = time.monotonic() + 10
    while still_open() and time.monotonic() < end:
        time.sleep(0.02)
    print("open", still_open())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "p")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["OSError 27", "open []"], done.stdout + done.stderr[-2000:]


def test_an_error_of_the_chain_is_not_taken_for_one_of_the_disk(words, tmp_path):
    def fail(block):
        raise RuntimeError("the solver diverged")

    lazy = da.zeros((4, 4), chunks=(2, 4)).map_blocks(fail, dtype="f8", meta=np.empty((0, 0)))
    with pytest.raises(RuntimeError, match="the solver diverged") as caught:
        products.write(xr.Dataset({"a": (("y", "x"), lazy)}), tmp_path / "p", **words)
    assert not isinstance(caught.value, OSError)


@pytest.mark.parametrize(
    ("attributes", "content"),
    [
        ({"standard_name": "sea_water_temperature"}, "modelResult"),
        ({"standard_name": "sea_water_temperature standard_error"}, "qualityInformation"),
        ({"standard_name": "number_of_observations"}, "auxiliaryInformation"),
        ({"flag_meanings": "water forest"}, "thematicClassification"),
        ({}, "modelResult"),
    ],
)
def test_the_type_of_content_follows_from_the_declared_names(attributes, content):
    assert cf.content_type(attributes) == content
