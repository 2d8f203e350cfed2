"""The STAC item and the PROV document of a product."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pystac
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab import products
from phidias_lab.contract.order import Order
from phidias_lab.errors import ProductError
from phidias_lab.products import provenance, stac


@pytest.mark.parametrize("name", ["netcdf", "zarr", "geotiff"])
def test_the_item_of_a_cube_is_valid_stac(cube, words, tmp_path, name):
    product = products.write(cube, tmp_path / "p", format=name, **words)
    stored = json.loads((tmp_path / "p" / "item.json").read_text())
    assert stored == product.item
    assert pystac.Item.from_dict(stored).validate()


def test_the_validation_finds_what_is_wrong(cube, words, tmp_path):
    item = products.write(cube, tmp_path / "p", **words).item
    item["bbox"] = [1, 2, 3]
    with pytest.raises(pystac.STACValidationError):
        pystac.Item.from_dict(item).validate()


def test_the_item_says_what_where_and_when(cube, words, tmp_path):
    item = products.write(cube, tmp_path / "p", **words).item
    assert item["id"] == "20261121T080000-ocean.analysis-ab12cd"
    assert item["bbox"] == [-10.0, 40.0, -1.0, 47.0]
    assert item["geometry"]["type"] == "Polygon"
    properties = item["properties"]
    assert properties["start_datetime"] == "2010-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2010-04-01T00:00:00Z"
    assert properties["phidias:chain"] == "ocean.analysis"
    assert properties["processing:software"] == {"numpy": "2.4.6", "phidias_lab": "0.1.0"}
    assert properties["cube:dimensions"]["depth"] == {
        "type": "spatial",
        "axis": "z",
        "extent": [0.0, 10.0],
        "unit": "m",
    }
    assert properties["cube:variables"]["analysis"]["dimensions"] == ["time", "depth", "latitude", "longitude"]
    assert properties["cube:variables"]["time_bounds"]["type"] == "auxiliary"


def test_an_extension_is_declared_only_where_it_can_be_validated(cube, words, tmp_path):
    item = products.write(cube, tmp_path / "p", **words).item
    assert item["stac_extensions"] == []
    assert "collection" not in item


def test_assets_carry_size_and_checksum_of_their_files(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    assert {n: a["roles"] for n, a in product.item["assets"].items()} == {
        "data": ["data"],
        "order": ["metadata"],
        "provenance": ["metadata"],
    }
    for asset in product.item["assets"].values():
        content = (tmp_path / "p" / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert product.item["assets"]["data"]["type"] == "application/netcdf"


@pytest.mark.parametrize(
    ("longitudes", "west", "east"),
    [
        ([-10.0, 0.0, 5.0], -10.0, 5.0),
        ([350.0, 355.0, 360.0, 365.0], -10.0, 5.0),
        ([170.0, 175.0, 180.0, 185.0], 170.0, -175.0),
        (list(np.arange(0.0, 360.0, 10.0)), -180.0, 180.0),
        (list(np.arange(-180.0, 180.0, 10.0)), -180.0, 170.0),
        ([200.0], -160.0, -160.0),
        ([180.0], 180.0, 180.0),
    ],
)
def test_longitudes_of_every_convention_give_one_box(longitudes, west, east):
    assert stac.west_east(np.array(longitudes)) == (west, east)


@settings(max_examples=150, deadline=None)
@given(st.floats(-180, 359), st.floats(0.1, 300), st.integers(2, 30))
def test_the_box_of_a_regular_grid_holds_every_point_of_it(start, width, count):
    longitudes = np.linspace(start, start + width, count)
    west, east = stac.west_east(longitudes)
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    turn = (longitudes - west) % 360
    inside = (turn <= (east - west) % 360 + 1e-6) | (turn >= 360 - 1e-6)
    assert inside.all() or (west, east) == (-180, 180)


def test_a_box_across_the_date_line_is_cut_there(words, tmp_path):
    coords = {"latitude": [0.0, 1.0, 2.0], "longitude": [170.0, 180.0, 190.0]}
    cube = xr.Dataset({"a": (("latitude", "longitude"), np.zeros((3, 3)))}, coords=coords)
    item = products.write(cube, tmp_path / "p", **words).item
    assert item["bbox"] == [170.0, 0.0, -170.0, 2.0]
    assert item["geometry"]["type"] == "MultiPolygon"
    assert pystac.Item.from_dict(item).validate()


def test_where_data_have_no_place_or_time_the_order_speaks(words, tmp_path):
    parameters = {"length": 1e5, "area": [-5.0, 40.0, 0.0, 45.0], "when": ["2010-01-01", "2010-01-31"]}
    words["order"] = words["order"].with_(parameters=parameters)
    item = products.write(xr.Dataset({"a": ("x", [1.0])}), tmp_path / "p", **words).item
    assert item["bbox"] == [-5.0, 40.0, 0.0, 45.0]
    assert item["properties"]["start_datetime"] == "2010-01-01T00:00:00Z"
    assert item["properties"]["end_datetime"] == "2010-01-31T23:59:59Z"


def test_data_without_place_and_time_are_dated_by_their_run(words, tmp_path):
    item = products.write(xr.Dataset({"a": ("x", [1.0])}), tmp_path / "p", **words).item
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["datetime"] == "2026-11-21T08:01:30Z"
    assert pystac.Item.from_dict(item).validate()


def test_a_product_without_any_date_is_refused(words, tmp_path):
    words["facts"] = {}
    with pytest.raises(ProductError, match="needs a date"):
        products.write(xr.Dataset({"a": ("x", [1.0])}), tmp_path / "p", **words)


def test_without_a_run_the_item_is_named_by_its_order(cube, words, tmp_path):
    words["facts"] = {}
    item = products.write(cube, tmp_path / "p", **words).item
    assert item["id"] == f"ocean.analysis-{words['order'].digest()[:12]}"


def test_provenance_names_run_inputs_software_and_order(cube, words, tmp_path):
    product = products.write(cube, tmp_path / "p", **words)
    document = json.loads((tmp_path / "p" / "provenance.json").read_text())
    (activity,) = document["activity"].values()
    assert activity["prov:startTime"] == "2026-11-21T08:00:00Z"
    assert activity["prov:endTime"] == "2026-11-21T08:01:30Z"
    assert activity["phidias:lock"] == "ff00"
    given = document["entity"]["local:input-observations"]
    assert given["phidias:entry"] == "ocean.observations"
    assert given["phidias:checksum"] == "sha256:0123"
    labels = {a["prov:label"]: a["phidias:version"] for a in document["agent"].values()}
    assert labels == {"phidias_lab": "0.1.0", "numpy": "2.4.6"}
    (made,) = document["wasGeneratedBy"].values()
    assert json.loads(document["entity"][made["prov:entity"]]["phidias:checksums"]) == product.checksums


def test_every_relation_joins_things_the_document_holds(words):
    document = provenance.document(words["chain"], words["order"], words["facts"], {"a": "00"})
    known = {n for part in ("entity", "activity", "agent") for n in document[part]}
    relations = ("wasGeneratedBy", "used", "wasDerivedFrom", "wasAssociatedWith")
    for relation in relations:
        assert document[relation], relation
        for link in document[relation].values():
            ends = {v for k, v in link.items() if k not in ("prov:role", "prov:time")}
            assert ends <= known, (relation, ends - known)
    prefixes = {n.split(":")[0] for n in known}
    assert prefixes <= set(document["prefix"])


def test_the_same_facts_give_the_same_document(cube, words, tmp_path):
    for folder in ("p", "q"):
        products.write(cube, tmp_path / folder, **words)
    for name in ("provenance.json", "order.json"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "q" / name).read_bytes()


INPUTS = {
    "observations": {"license": "CC-BY-4.0", "source": "cruise of spring", "checksum": "sha256:01"},
    "domain": {"license": "CC0-1.0", "source": "a program", "synthetic": True},
}


def written(data, words, folder, licences=("CC-BY-4.0", "CC0-1.0"), attrs=None):
    told = zip(INPUTS.items(), licences, strict=True)
    known = {n: {**f, "license": one} if one else {"source": f["source"]} for (n, f), one in told}
    order = Order(
        "ocean.analysis", "1.2", {}, {"observations": {"entry": "mine.casts"}, "domain": {"file": "/data/a grid.nc"}}
    )
    facts = {**words["facts"], "inputs": known}
    chain = {**words["chain"], "title": "An analysis"}
    return products.write(data.assign_attrs(attrs or {}), folder, chain=chain, order=order, facts=facts)


def test_licence_and_source_of_every_input_reach_the_product(cube, words, tmp_path):
    product = written(cube, words, tmp_path)
    attrs = product.open().attrs
    assert attrs["license"] == "observations: CC-BY-4.0; domain: CC0-1.0"
    assert "source: cruise of spring" in attrs["source"]
    assert "source: a program" in attrs["source"]
    item = pystac.Item.from_dict(product.item)
    item.validate()
    assert item.properties["license"] == "other"
    links = {link.extra_fields["phidias:input"]: link for link in item.get_links("derived_from")}
    assert links["observations"].href == "urn:phidias_lab:entry:mine.casts"
    assert links["observations"].extra_fields["phidias:license"] == "CC-BY-4.0"
    assert links["domain"].href == "file:///data/a%20grid.nc"
    history = json.loads((tmp_path / "provenance.json").read_text())["entity"]
    assert history["local:input-observations"]["phidias:license"] == "CC-BY-4.0"
    assert history["local:input-domain"]["phidias:source"] == "a program"


@pytest.mark.parametrize(
    ("licences", "attribute", "property_"),
    [
        (("CC0-1.0", "CC0-1.0"), "CC0-1.0", "CC0-1.0"),
        (("CC0-1.0", None), "observations: CC0-1.0; domain: not known", "other"),
        ((None, None), None, None),
    ],
)
def test_one_licence_of_all_inputs_is_that_of_the_product(cube, words, tmp_path, licences, attribute, property_):
    product = written(cube, words, tmp_path, licences)
    assert product.open().attrs.get("license") == attribute
    assert product.item["properties"].get("license") == property_


@pytest.mark.parametrize("values", [True, False])
def test_a_product_says_what_of_it_is_synthetic(cube, words, tmp_path, values):
    attrs = {"synthetic": "true"} if values else {}
    product = written(cube, words, tmp_path, attrs={**attrs, "synthetic_inputs": "domain"})
    found, properties = product.open().attrs, product.item["properties"]
    assert found["synthetic_inputs"] == "domain"
    assert properties["phidias:synthetic_inputs"] == ["domain"]
    assert ("phidias:synthetic" in properties) is values
    assert found["title"].endswith("(synthetic)") is values
    assert properties["title"] == found["title"]
