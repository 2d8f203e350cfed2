"""Gridded products in SeaDataNet's manner: real products of ocean.gridding, read back by other programs."""

from __future__ import annotations

import os
import shutil
import tracemalloc
import uuid

import dask.array as da
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_cf import findings, raised

import phidias_lab
from phidias_lab import products
from phidias_lab.contract import Order, registry
from phidias_lab.errors import InputError, ParameterError, ProductError, UnknownNameError
from phidias_lab.lake import catalog, memory
from phidias_lab.methods.formats import vocabulary
from phidias_lab.products import Product, seadatanet

DIMS = ("depth", "latitude", "longitude")
LON, LAT, LEVELS = np.arange(-12.0, -3.9, 1.0), np.arange(44.0, 50.1, 1.0), [0.0, 20.0]
NODES = ("time", "depth", "lat", "lon")


def domain(lon=LON, lat=LAT) -> xr.Dataset:
    mask = np.ones((len(LEVELS), lat.size, lon.size), np.int8)
    mask[:, -2:, :2] = 0
    return xr.Dataset({"mask": (DIMS, mask)}, {"depth": LEVELS, "latitude": lat, "longitude": lon})


def observations(seed=1, west=-12.0, east=-7.0) -> pd.DataFrame:
    """Three in ten days over two years in a part of the domain, so that the rest of it is uncertain."""
    rng = np.random.default_rng(seed)
    time = pd.date_range("2010-01-01", "2011-12-31", freq="10D").repeat(3)
    table = pd.DataFrame({"longitude": rng.uniform(west, east, len(time)), "latitude": rng.uniform(44, 47, len(time))})
    table["depth"], table["time"] = rng.choice([0.0, 3.0, 19.0, 25.0], len(time)), time
    table["temperature"] = 10 + np.sin(table["longitude"]) + 0.1 * rng.normal(size=len(time))
    table["temperature_qc"] = np.where(np.arange(len(time)) % 7, 1, 4).astype(np.int8)
    table["edmo_code"] = np.where(np.arange(len(time)) % 2, "486", "")
    table["local_cdi_id"] = [f"FI35{i:04d}" for i in range(len(time))]
    table["platform"] = "Pourquoi pas ? é"
    words = {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}
    table.attrs["columns"] = {"temperature": words, "temperature_qc": {"long_name": "flag of temperature"}}
    return table


def make(folder, table=None, grid=None, format="netcdf", run="a run", **parameters) -> Product:
    """A product as the flow writes it, from files in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"observations": observations() if table is None else table, "domain": domain() if grid is None else grid}
    files = {name: memory.store(value, folder, name) for name, value in given.items()}
    opened = {name: catalog.open_file(file) for name, file in files.items()}
    chain_class = registry.chain("ocean.gridding")
    chain = chain_class(**parameters)
    checked = chain.checked({name: data for name, (data, _) in opened.items()})
    chain = chain.resolved(checked)
    facts = {
        "run": run,
        "ended": "2026-11-26T08:00:00Z",
        "title": "Temperature of a test",
        "inputs": {name: identity for name, (_, identity) in opened.items()},
    }
    references = {name: {"file": str(file)} for name, file in files.items()}
    order = Order("ocean.gridding", chain_class.version, chain.parameters, references)
    return products.write(
        chain.stamped(chain.run(**checked), checked), folder / "product", chain=chain_class.describe(), order=order,
        facts=facts, format=format,
    )  # fmt: skip


def written(product, path, **how) -> xr.Dataset:
    assert phidias_lab.export(product, path, **how) == []
    return xr.open_dataset(path)


@pytest.fixture(scope="module")
def climatology(tmp_path_factory) -> Product:
    return make(tmp_path_factory.mktemp("climatology"), windows="climatological_seasons", period="2010/2011")


@pytest.fixture(scope="module")
def logarithms(tmp_path_factory) -> Product:
    """Windows that overlap, levels together, a transform, and a Zarr store."""
    return make(
        tmp_path_factory.mktemp("logarithms"), format="zarr", windows="sliding", window_width=200, window_step=100,
        transform="log", vertical_length=30,
    )  # fmt: skip


def test_the_layout_is_that_of_divand(climatology, tmp_path):
    written(climatology, tmp_path / "a.nc").close()
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        sizes = {name: len(dim) for name, dim in file.dimensions.items()}
        assert {n: sizes[n] for n in (*NODES, "nv")} == {"time": 4, "depth": 2, "lat": 7, "lon": 9, "nv": 2}
        for name in ("temperature", "temperature_L1", "temperature_L2", "temperature_relerr", "temperature_error"):
            variable = file[name]
            assert (variable.dimensions, variable.dtype) == (NODES, np.float32), name
            assert variable._FillValue == netCDF4.default_fillvals["f4"], name
            assert variable.chunking() == [1, 1, 7, 9], name
            assert (variable.filters()["complevel"], variable.filters()["fletcher32"]) == (5, True), name
        assert file["time"].units == "days since 1900-01-01 00:00:00"
        assert file["time"].climatology == "climatology_bounds"
        assert file["climatology_bounds"].dimensions == ("time", "nv")
        # 2009-12-01 and 2012-03-01, counted by hand from 1900-01-01.
        assert file["climatology_bounds"][0].tolist() == [40146.0, 40967.0]
        assert file["temperature"].cell_methods == "time: mean within years time: mean over years"
        assert file["temperature"].long_name == "temperature of sea water"
        assert file["temperature"].sdn_parameter_urn == "SDN:P01::TEMPPR01"
        assert file["temperature_error"].sdn_uom_urn == "SDN:P06::UPAA"
        assert file["lon"].sdn_parameter_urn == "SDN:P01::ALONZZ01"


def test_spans_of_the_calendar_have_plain_bounds(tmp_path):
    data = written(make(tmp_path / "made", windows="yearly"), tmp_path / "a.nc")
    assert "climatology" not in data["time"].attrs
    assert (data["time"].attrs.get("bounds") or data["time"].encoding["bounds"]) == "time_bounds"
    assert [str(t)[:10] for t in data["time_bounds"].values.ravel()] == [
        "2010-01-01", "2011-01-01", "2011-01-01", "2011-12-23"
    ]  # fmt: skip


def grid_of(product) -> dict[str, np.ndarray]:
    return {name: variable.values for name, variable in product.open().data_vars.items()}


def test_the_values_come_back_and_the_masks_hide_what_is_uncertain(climatology, tmp_path):
    data, made = written(climatology, tmp_path / "a.nc"), grid_of(climatology)
    relative = (made["analysis_error"] / made["background_deviation"][:, :, None, None]) ** 2
    np.testing.assert_array_equal(data["temperature"].values, made["analysis"].astype("f4"))
    np.testing.assert_array_equal(data["temperature_error"].values, made["analysis_error"].astype("f4"))
    np.testing.assert_allclose(data["temperature_relerr"].values, relative, rtol=1e-6)
    np.testing.assert_array_equal(data["temperature_background"].values, made["background"].astype("f4"))
    np.testing.assert_array_equal(data["number_of_observations"].values, made["observations_used"])
    for name, limit in (("temperature_L1", 0.3), ("temperature_L2", 0.5)):
        shown = np.isfinite(data[name].values)
        assert 0.1 < shown.mean() < 0.9
        np.testing.assert_array_equal(shown, relative <= limit)
        np.testing.assert_array_equal(data[name].values[shown], data["temperature"].values[shown])
    assert np.isnan(data["temperature"].values[..., -2:, :2]).all()
    np.testing.assert_array_equal(data["lon"], LON)
    np.testing.assert_array_equal(data["lat"], LAT)
    times = data["time"].values - climatology.open()["time"].values
    assert np.abs(times).max() < np.timedelta64(1, "ms")


def test_a_level_that_is_written_in_parts_is_the_same_level(climatology, tmp_path, monkeypatch):
    whole = written(climatology, tmp_path / "a.nc")
    monkeypatch.setattr(seadatanet, "CHUNK", 2)
    monkeypatch.setattr(seadatanet, "HELD", 1)
    xr.testing.assert_identical(whole, written(climatology, tmp_path / "b.nc"))
    with netCDF4.Dataset(tmp_path / "b.nc") as file:
        assert file["temperature"].chunking() == [1, 1, 2, 2]


def test_of_a_transformed_variable_the_error_of_the_transform_masks(logarithms, tmp_path):
    data, made = written(logarithms, tmp_path / "a.nc"), grid_of(logarithms)
    np.testing.assert_array_equal(data["temperature_relerr"].values, made["relative_error"].astype("f4"))
    shown = made["relative_error"].astype("f4") <= np.float32(0.3)
    np.testing.assert_array_equal(np.isfinite(data["temperature_L1"].values), shown)
    # In the units of the variable other cells would be masked, so the two cannot be taken for each other.
    ratio = (made["analysis_error"] / made["background_deviation"][:, :, None, None]) ** 2
    assert ((ratio <= 0.3) != shown)[np.isfinite(ratio)].any()
    for output, name in (("analysis_lower", "temperature_lower"), ("analysis_upper", "temperature_upper")):
        np.testing.assert_array_equal(data[name].values, made[output].astype("f4"))


def cells_by_hand(table, lon, lat, period=None) -> np.ndarray:
    """How many rows are nearest to each node, one by one."""
    found = np.zeros((lat.size, lon.size), int)
    for x, y in table[["longitude", "latitude"]].to_numpy():
        away = np.abs(lon - x) if period is None else np.abs((lon - x + period / 2) % period - period / 2)
        found[np.argmin(np.abs(lat - y)), np.argmin(away)] += 1
    return found


def test_the_used_observations_are_listed_and_counted_in_their_cells(climatology, tmp_path):
    data = written(climatology, tmp_path / "a.nc")
    table = observations()
    good = table[table["temperature_qc"] == 1]
    # Between the levels' cells, half-way, and within 10 m of them, lies every depth of these observations.
    assert data.sizes["observations"] == len(good)
    assert int(data["number_of_observations"].sum()) == len(good)
    listed = pd.DataFrame({n: data[f"obs{n}"].values for n in ("lon", "lat", "depth", "time")})
    wanted = good[["longitude", "latitude", "depth", "time"]].set_axis(listed.columns, axis=1)
    keys = list(listed.columns)
    pd.testing.assert_frame_equal(
        listed.sort_values(keys, ignore_index=True), wanted.sort_values(keys, ignore_index=True), check_dtype=False
    )
    names = {n.decode().strip() for n in data["obsid"].values}
    assert names == {f"486-{row.local_cdi_id}" for row in good.itertuples() if row.edmo_code} | {"Pourquoi pas ? é"}
    coded = int((good["edmo_code"] == "486").sum())
    assert data.attrs["edmo_codes"] == f"SDN:EDMO::486 ({coded} observations)"
    assert f"Made from {len(good)} observations" in data.attrs["summary"]
    winter = good[good["time"].dt.month.isin([12, 1, 2]) & (good["depth"] < 10)]
    np.testing.assert_array_equal(data["number_of_observations_in_cell"].values[0, 0], cells_by_hand(winter, LON, LAT))
    np.testing.assert_array_equal(
        data["number_of_observations_in_cell"].sum(("lat", "lon")), data["number_of_observations"]
    )


def test_an_observation_in_two_windows_is_listed_once_and_counted_in_both(logarithms, tmp_path):
    data = written(logarithms, tmp_path / "a.nc")
    assert int(data["number_of_observations"].sum()) > data.sizes["observations"]
    np.testing.assert_array_equal(
        data["number_of_observations_in_cell"].sum(("lat", "lon")), data["number_of_observations"]
    )


def test_around_the_globe_the_last_cell_meets_the_first(tmp_path):
    lon = np.arange(-180.0, 180.0, 20.0)
    table = observations(west=165.0, east=195.0)
    product = make(
        tmp_path / "made", table, domain(lon), length=1e6, quality="all", depths=[0.0], drop_duplicates=False
    )
    data = written(product, tmp_path / "a.nc")
    here = cells_by_hand(table[table["depth"] < 10], lon, LAT, period=360.0)
    np.testing.assert_array_equal(data["number_of_observations_in_cell"].values[0, 0], here)
    assert here[:, 0].sum() > 0
    assert here[:, -1].sum() > 0


def test_the_same_product_gives_the_same_bytes_and_identity_wherever_it_lies(climatology, tmp_path):
    first, second = tmp_path / "a.nc", tmp_path / "b.nc"
    for path in (first, second):
        phidias_lab.export(climatology, path)
    assert first.read_bytes() == second.read_bytes()
    shutil.copy(climatology.path, tmp_path / "alone.nc")
    phidias_lab.export(Product(tmp_path / "alone.nc"), second, overwrite=True)
    assert first.read_bytes() == second.read_bytes()


def test_a_product_that_is_made_again_has_the_same_identity_and_another_one_has_another(climatology, tmp_path):
    found = [uuid.UUID(written(climatology, tmp_path / "a.nc").attrs["product_id"])]
    asked = {"windows": "climatological_seasons", "period": "2010/2011"}
    for number, more in enumerate(({}, {"length": 1e5}, {"table": observations(seed=2)}), start=1):
        product = make(tmp_path / str(number), run=f"run {number}", **asked, **more)
        found.append(uuid.UUID(written(product, tmp_path / f"{number}.nc").attrs["product_id"]))
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert found[0].version == 5


@pytest.mark.parametrize("which", ["climatology", "logarithms"])
def test_the_compliance_checker_finds_nothing_against_the_conventions(which, request, tmp_path):
    phidias_lab.export(request.getfixturevalue(which), tmp_path / "a.nc")
    report = findings(tmp_path / "a.nc", "cf:1.11", tmp_path)
    assert raised(report, "high_priorities") + raised(report, "medium_priorities") == []


def test_the_global_attributes_are_those_a_catalogue_takes(climatology, tmp_path):
    more = {"institution": "A data centre", "doi": "10.1234/a=b"}
    attrs = written(climatology, tmp_path / "a.nc", attributes=more).attrs
    assert attrs["Conventions"] == "CF-1.11, ACDD-1.3"
    assert attrs["title"] == "Temperature of a test"
    assert (attrs["institution"], attrs["doi"]) == ("A data centre", "10.1234/a=b")
    assert (attrs["geospatial_lon_min"], attrs["geospatial_lon_max"]) == (-12.0, -4.0)
    assert attrs["time_coverage_start"] == "2009-12-01T00:00:00Z"
    assert attrs["id"] == attrs["product_id"]
    assert (attrs["phidias_run"], attrs["date"]) == ("a run", "2026-11-26T08:00:00Z")
    assert "doi:10.5194/gmd-7-225-2014" in attrs["references"]
    assert "observations from file" in attrs["source"]
    assert "license" not in attrs
    assert Product(tmp_path / "a.nc").order == climatology.order


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"two words": "x"}, "letters, digits and underscores"),
        ({"CLASS": "x"}, "is none of NAME, CLASS"),
        ({"a" * 300: "x"}, "at most 100 letters"),
        ({"institution": None}, "was given None; it must be a text"),
        ({"institution": "a\0b"}, "must be a text in UTF-8"),
        ({"institution": "caf\udce9"}, "must be a text in UTF-8"),
        ({"product_id": "x"}, "follows from the product"),
    ],
)
def test_an_attribute_that_cannot_be_is_refused_and_nothing_is_written(climatology, tmp_path, attributes, sentence):
    with pytest.raises(ParameterError, match=sentence):
        phidias_lab.export(climatology, tmp_path / "a.nc", attributes=attributes)
    assert list(tmp_path.iterdir()) == []


def test_without_its_observations_a_product_is_written_without_them_and_that_is_said(tmp_path):
    product = make(tmp_path / "made")
    path, table = product.order.inputs["observations"]["file"], observations()
    for changed in (table.assign(latitude=table["latitude"] + 0.1), None):
        if changed is None:
            shutil.rmtree(path) if (tmp_path / path).is_dir() else (tmp_path / path).unlink()
        else:
            changed.to_parquet(path)
        (said,) = phidias_lab.export(product, tmp_path / "a.nc", overwrite=True)
        assert said.startswith("The file is without the observations and their counts in each cell: ")
        with xr.open_dataset(tmp_path / "a.nc") as data:
            assert "number_of_observations" in data
            assert not {"number_of_observations_in_cell", "obslon", "obsid"} & set(data.variables)
            assert "edmo_codes" not in data.attrs


def test_other_observations_are_not_taken_for_those_of_a_file_that_lies_alone(tmp_path):
    product = make(tmp_path / "made")
    shutil.copy(product.path, tmp_path / "alone.nc")  # which knows no checksum of its inputs that could be compared
    observations().iloc[::2].to_parquet(product.order.inputs["observations"]["file"])
    (said,) = phidias_lab.export(Product(tmp_path / "alone.nc"), tmp_path / "a.nc")
    assert "and the product was made from" in said


def test_what_has_no_error_or_is_no_gridded_field_is_refused_in_a_sentence(tmp_path, cube, words, table, words_of):
    field = make(tmp_path / "field", error="none")
    other = products.write(cube.drop_vars("observations_used"), tmp_path / "other", **words)
    rows = products.write(table, tmp_path / "table", **words_of("table"))
    for product, sentence in (
        (field, "has no error field, so the masks of SeaDataNet's layout cannot be made. Run its order again"),
        (other, "is no gridded field: SeaDataNet's layout needs the outputs analysis and observations_used"),
        (rows, "Give a run of ocean.gridding"),
    ):
        with pytest.raises(InputError, match=sentence):
            phidias_lab.export(product, tmp_path / "a.nc")
    assert not (tmp_path / "a.nc").exists()


def test_a_place_that_is_taken_or_missing_is_refused_and_left_as_it_is(climatology, tmp_path):
    (tmp_path / "a.nc").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path, how, sentence in (
        ("a.nc", {}, "exists already"),
        ("folder", {"overwrite": True}, "is a folder"),
        ("nowhere/a.nc", {}, "does not exist. Make it, or choose another place"),
    ):
        with pytest.raises(ProductError, match=sentence):
            phidias_lab.export(climatology, tmp_path / path, **how)
    with pytest.raises(UnknownNameError, match="'seadatanet'"):
        phidias_lab.export(climatology, tmp_path / "b.nc", "seadata")
    with pytest.raises(ParameterError, match="A run or a product is exported, and a"):
        phidias_lab.export("last", tmp_path / "b.nc")
    for name in ("a\0b.nc", "n" * 300):
        with pytest.raises(ProductError, match="cannot be the name of a file"):
            phidias_lab.export(climatology, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nc", "folder"]
    assert (tmp_path / "a.nc").read_text() == "mine"


def test_what_is_exported_and_what_is_no_file_is_not_replaced(climatology, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProductError, match="is no regular file"):
        phidias_lab.export(climatology, tmp_path / "pipe", overwrite=True)
    assert (tmp_path / "pipe").is_fifo()
    before = climatology.path.read_bytes()
    (tmp_path / "again.nc").symlink_to(climatology.path)
    for path in (climatology.path, tmp_path / "again.nc"):
        with pytest.raises(ProductError, match=r"that would be lost\. Name a file elsewhere"):
            phidias_lab.export(climatology, path, overwrite=True)
    assert climatology.path.read_bytes() == before


def test_a_missing_code_spoils_no_other(tmp_path):
    column = pd.Series([486.0, np.nan, 1337.0])
    assert seadatanet._texts(column).tolist() == ["486", "", "1337"]
    assert seadatanet._texts(pd.Series(["486", None, "x"])).tolist() == ["486", "", "x"]
    rows = pd.DataFrame({"edmo_code": column, "local_cdi_id": ["a", "b", "c"], "platform": ["p", "q", None]})
    assert seadatanet._names(rows).tolist() == ["486-a", "q", "1337-c"]


def test_a_full_disk_is_told_and_leaves_nothing(climatology, small_disk):
    (small_disk / "filler").write_bytes(b"\1" * (4 * 2**20 - 12288))
    with pytest.raises(ProductError, match=r"a\.nc cannot be written: No space left on device"):
        phidias_lab.export(climatology, small_disk / "a.nc")
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_a_product_larger_than_the_memory_allowed_is_written(tmp_path):
    size = (24, 1, 512, 512)
    lazy = da.map_blocks(
        lambda block_info=None: np.full((1, 1, 512, 512), block_info[None]["chunk-location"][0] + 1.0),
        chunks=((1,) * 24, (1,), (512,), (512,)), dtype="f8",
    )  # fmt: skip
    edges = pd.date_range("2010-01-01", periods=25)
    data = xr.Dataset(
        {
            "analysis": (("time", *DIMS), lazy, {"units": "1"}),
            "analysis_error": (("time", *DIMS), lazy / 40, {"units": "1"}),
            "background_deviation": (("time", "depth"), np.ones(size[:2])),
            "observations_used": (("time", "depth"), np.zeros(size[:2], int)),
        },
        {
            "time": ("time", edges[:-1], {"bounds": "time_bounds"}),
            "depth": [0.0],
            "latitude": np.linspace(0, 40, 512),
            "longitude": np.linspace(0, 40, 512),
        },
    )
    data = data.assign_coords(time_bounds=(("time", "bounds"), np.stack([edges[:-1], edges[1:]], axis=1)))
    order = Order("ocean.gridding", "1.0", {"variable": "temperature"}, {})
    product = products.write(
        data, tmp_path / "p", chain=registry.chain("ocean.gridding").describe(), order=order, facts={}
    )
    tracemalloc.start()
    try:
        seadatanet.write(product, tmp_path / "a.nc")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 2 * lazy.nbytes == 96 * 2**20
    assert peak < lazy.nbytes / 2
    with xr.open_dataset(tmp_path / "a.nc") as back:
        assert float(back["temperature"][23, 0, 5, 500]) == 24
        # An error of 21 fortieths of the deviation has less than 0.3 of the variance, one of 22 has more.
        assert np.isfinite(back["temperature_L1"][:, 0, 500, 5].values).tolist() == [True] * 21 + [False] * 3


@pytest.mark.parametrize(("column", "name"), [("Sea T [°C]", "sea_t_c"), ("nv", "nv_"), ("obsid", "obsid_")])
def test_a_variable_of_any_name_is_written(tmp_path, column, name):
    table = observations().rename(columns={"temperature": column}).drop(columns="temperature_qc")
    table.attrs["columns"] = {column: {"units": "degree_Celsius"}}
    data = written(make(tmp_path / "made", table, variable=column), tmp_path / "a.nc")
    assert {name, f"{name}_L1", f"{name}_relerr"} <= set(data.data_vars)
    assert "sdn_parameter_urn" not in data[name].attrs


def test_the_code_that_is_written_for_units_stands_for_these_units():
    assert {vocabulary.P06[code] for code in vocabulary.UNITS_P06.values()} == set(vocabulary.P06.values())
    assert all(vocabulary.P06[code] == units for units, code in vocabulary.UNITS_P06.items())
    assert vocabulary.UNITS_P06["1"] == "UUUU"


def test_a_damaged_product_is_told_as_such(climatology, logarithms, tmp_path):
    short, wrong = (Product(shutil.copytree(p.folder, tmp_path / p.path.name)) for p in (climatology, logarithms))
    short.path.write_bytes(short.path.read_bytes()[:-20_000])
    (wrong.path / "analysis/c/1/1/0/0").write_bytes(b"no values")  # found when it is read, in the middle of the writing
    for product in (short, wrong):
        with pytest.raises(
            ProductError, match="The file is damaged or incomplete; copy it again or run its order again"
        ):
            phidias_lab.export(product, tmp_path / "a.nc")
    assert not list(tmp_path.glob("*a.nc*"))
