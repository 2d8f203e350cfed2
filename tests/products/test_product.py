"""A product is opened, understood and checked from its folder or from its data file."""

from __future__ import annotations

import json
import re
import shutil
import zlib

import netCDF4
import numpy as np
import pytest
import xarray as xr

from phidias_lab import products
from phidias_lab.errors import ProductError, UnknownNameError

CUBE_FORMATS = ["netcdf", "zarr", "geotiff"]


@pytest.mark.parametrize("name", CUBE_FORMATS)
def test_a_cube_comes_back_lazy_and_equal(cube, words, tmp_path, name):
    cube = cube[["analysis"]] if name == "geotiff" else cube
    product = products.write(cube, tmp_path / "p", format=name, **words)
    back = product.open()
    assert back["analysis"].chunks is not None
    xr.testing.assert_equal(back.load(), cube.load())
    assert back["analysis"].attrs["units"] == "degree_Celsius"
    assert product.verify() == []


def test_a_product_folder_holds_data_item_order_and_provenance(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == [
        "item.json",
        "ocean.analysis.nc",
        "order.json",
        "provenance.json",
    ]
    assert product.path == tmp_path / "p" / "ocean.analysis.nc"
    assert products.Product(product.path).item == product.item


@pytest.mark.parametrize("name", CUBE_FORMATS)
def test_a_data_file_alone_knows_its_order(cube, words, tmp_path, name):
    product = products.write(cube[["analysis"]], tmp_path / "p", format=name, **words)
    alone = tmp_path / "elsewhere" / product.path.name
    alone.parent.mkdir()
    product.path.rename(alone)
    assert products.Product(alone).order == words["order"]
    assert products.Product(alone).open()["analysis"].shape == (3, 2, 8, 10)
    with pytest.raises(ProductError, match="lies alone"):
        _ = products.Product(alone).item


def test_the_output_part_of_an_order_chooses_the_format(cube, words, tmp_path):
    words["order"] = words["order"].with_(output={"format": "zarr"})
    assert products.write(cube, tmp_path / "p", **words).path.suffix == ".zarr"


def test_an_unknown_format_is_refused_with_the_known_ones(cube, words, tmp_path):
    with pytest.raises(UnknownNameError, match=r"cube cannot be written as 'netcfd'\. Did you mean 'netcdf'"):
        products.write(cube, tmp_path / "p", format="netcfd", **words)
    with pytest.raises(UnknownNameError, match=r"'cubes'\..*Did you mean 'cube'"):
        products.formats("cubes")


def test_a_product_is_not_written_over_another(cube, words, tmp_path):
    products.write(cube, tmp_path / "p", **words)
    with pytest.raises(ProductError, match="already holds a product"):
        products.write(cube, tmp_path / "p", **words)


def test_a_value_changed_in_the_file_is_found_by_name(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    with netCDF4.Dataset(product.path, "a") as file:
        file["analysis_error"][1, 0, 3, 3] = np.nextafter(np.float32(file["analysis_error"][1, 0, 3, 3]), np.float32(9))
    assert product.verify() == ["analysis_error"]


def place_of(values: np.ndarray, content: bytes) -> int:
    """Where a file holds these values: the deflate stream that unpacks to them, byte planes first (HDF5's shuffle)."""
    wanted = values.view("u1").reshape(-1, values.itemsize).T.tobytes()
    for found in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", content):
        try:
            if zlib.decompressobj().decompress(content[found.start() :], len(wanted)) == wanted:
                return found.start()
        except zlib.error:
            continue
    raise AssertionError("the values are not in the file")


@pytest.mark.parametrize("where", [40, 100, 200])
def test_a_flipped_byte_in_the_netcdf_is_found(cube, words, tmp_path, where):
    product = products.write(cube, tmp_path / "p", **words)
    content = bytearray(product.path.read_bytes())
    content[place_of(cube["analysis"][1, 1].values, bytes(content)) + where] ^= 0x10
    product.path.write_bytes(content)
    assert product.verify() == ["analysis"]


def test_a_flipped_byte_in_the_zarr_store_is_found(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", format="zarr", **words)
    chunk = product.path / "analysis" / "c" / "1" / "1" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0x10
    chunk.write_bytes(content)
    assert product.verify() == ["analysis"]


def test_a_missing_and_a_new_variable_are_found(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", format="zarr", **words)
    shutil.copytree(product.path / "depth", product.path / "height")
    shutil.rmtree(product.path / "analysis")
    assert product.verify() == ["analysis", "height"]


def test_a_truncated_file_is_a_sentence_when_opened_and_differs_everywhere_when_verified(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    product.path.write_bytes(product.path.read_bytes()[:2000])
    assert product.verify() == sorted(product.checksums)
    with pytest.raises(ProductError, match="damaged or incomplete"):
        product.open()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: None, "There is no product at"),
        (lambda p: p.mkdir(), "is not a product: it has no item.json"),
        (lambda p: p.write_text("x"), "data files end in .nc"),
        (lambda p: (p.mkdir(), (p / "item.json").write_text("{")), "cannot be read as JSON"),
        (lambda p: (p.mkdir(), (p / "item.json").write_text("[]")), "is not a STAC Item"),
        (
            lambda p: (p.mkdir(), (p / "item.json").write_text('{"assets": {}, "properties": {}}')),
            "lacks its data",
        ),
    ],
)
def test_what_is_no_product_is_said_in_a_sentence(tmp_path, make, sentence):
    make(tmp_path / "thing")
    with pytest.raises(ProductError, match=sentence):
        products.Product(tmp_path / "thing")


def test_a_file_that_lies_beside_a_product_is_not_taken_for_it(cube, words, tmp_path):
    products.write(cube, tmp_path / "p", **words)
    cube[["analysis"]].load().to_netcdf(tmp_path / "p" / "other.nc")
    other = products.Product(tmp_path / "p" / "other.nc")
    assert other.path.name == "other.nc"
    with pytest.raises(ProductError, match="holds no order"):
        _ = other.order


def test_an_item_cannot_lead_out_of_its_folder(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    item = json.loads((tmp_path / "p" / "item.json").read_text())
    product.path.rename(tmp_path / "outside.nc")
    item["assets"]["data"]["href"] = "../outside.nc"
    (tmp_path / "p" / "item.json").write_text(json.dumps(item))
    with pytest.raises(ProductError, match="no file in its folder"):
        products.Product(product.folder)


@pytest.mark.parametrize(
    "damage",
    [
        {"assets": []},
        {"assets": None},
        {"assets": {"data": "x.nc"}},
        {"assets": {"data": {"roles": ["data"]}}},
        {"assets": {"data": {"roles": 5, "href": "x.nc"}}},
        {"properties": None},
        {"properties": {"phidias:checksums": ["a"]}},
        {"properties": {"phidias:checksums": {"a": 1}}},
        {"properties": {"table:columns": "abc"}},
        *(
            {"assets": {"data": {"roles": ["data"], "href": h}}}
            for h in ("..", ".", "", "./", "/etc", "a/b", "x\0", "\ud800", "é" * 200)
        ),
    ],
    ids=ascii,
)
def test_an_item_of_another_shape_is_a_sentence(cube, words, tmp_path, damage):
    product = products.write(cube, tmp_path / "p", **words)
    (tmp_path / "p" / "item.json").write_text(json.dumps(product.item | damage))
    for place in (product.folder, product.path):
        with pytest.raises(ProductError, match="is not a STAC Item"):
            products.Product(place)


def test_an_item_that_never_ends_is_a_sentence(tmp_path):
    (tmp_path / "item.json").write_text("[" * 200_000)
    with pytest.raises(ProductError, match="cannot be read as JSON"):
        products.Product(tmp_path)


def test_wherever_a_byte_is_flipped_there_is_a_sentence_and_nothing_else(cube, words, tmp_path):
    product = products.write(cube[["analysis"]], tmp_path / "p", **words)
    whole = product.path.read_bytes()
    sentences = 0
    for where in range(0, len(whole), len(whole) // 150):
        product.path.write_bytes(whole[:where] + bytes([whole[where] ^ 0x10]) + whole[where + 1 :])
        differing = product.verify()
        try:
            product.open().close()
        except ProductError:
            sentences += 1
            assert differing == sorted(product.checksums)
        product.path.unlink()
    assert sentences


def test_a_model_is_copied_with_the_checksum_of_each_file(words_of, tmp_path):
    origin = tmp_path / "model"
    (origin / "deep").mkdir(parents=True)
    (origin / "weights.bin").write_bytes(b"\x01\x02")
    (origin / "deep" / "labels.txt").write_text("water")
    product = products.write(origin, tmp_path / "p", **words_of("model"))
    assert (product.open() / "weights.bin").read_bytes() == b"\x01\x02"
    assert sorted(product.checksums) == ["deep/labels.txt", "weights.bin"]
    assert product.verify() == []
    (product.path / "weights.bin").write_bytes(b"\x01\x03")
    (product.path / "more.txt").write_text("")
    assert product.verify() == ["more.txt", "weights.bin"]
