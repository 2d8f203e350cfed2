"""Tables as Parquet and CSV, features and events as GeoParquet."""

from __future__ import annotations

import json

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from phidias_lab import products
from phidias_lab.errors import ProductError


def test_a_table_comes_back_with_types_and_units(table, words_of, tmp_path):
    product = products.write(table, tmp_path / "p", **words_of("table"))
    back = product.open()
    pd.testing.assert_frame_equal(back, table)
    assert back.attrs["columns"] == table.attrs["columns"]
    assert pq.read_schema(product.path).field("salinity").metadata[b"units"] == b"1e-3"
    assert product.verify() == []


def test_csv_gives_back_the_same_values_and_checksums(table, words_of, tmp_path):
    parquet = products.write(table, tmp_path / "parquet", **words_of("table"))
    csv = products.write(table, tmp_path / "csv", format="csv", **words_of("table"))
    pd.testing.assert_frame_equal(csv.open(), table, check_categorical=False)
    assert csv.checksums == parquet.checksums
    assert csv.open().attrs["columns"] == table.attrs["columns"]
    assert csv.verify() == []


def test_a_number_changed_in_a_csv_is_found(table, words_of, tmp_path):
    product = products.write(table, tmp_path / "csv", format="csv", **words_of("table"))
    text = product.path.read_text()
    assert "35.1" in text
    product.path.write_text(text.replace("35.1", "35.2"))
    assert product.verify() == ["salinity"]


def test_a_lazy_table_is_written_in_pieces_with_the_same_checksums(table, words_of, tmp_path):
    whole = products.write(table, tmp_path / "whole", **words_of("table"))
    lazy = dd.from_pandas(table, npartitions=3)
    for name in ("parquet", "csv"):
        product = products.write(lazy, tmp_path / name, format=name, **words_of("table"))
        assert product.checksums == whole.checksums
        assert product.open().attrs["columns"] == table.attrs["columns"]


def test_an_empty_table_is_a_product(table, words_of, tmp_path):
    product = products.write(table[:0], tmp_path / "p", **words_of("table"))
    assert list(product.open().columns) == list(table.columns)
    assert len(product.open()) == 0
    assert product.verify() == []


def test_a_named_index_becomes_a_column(words_of, tmp_path):
    table = pd.DataFrame({"moisture": [0.1, 0.2]}, index=pd.Index([7, 9], name="parcel"))
    back = products.write(table, tmp_path / "p", **words_of("table")).open()
    assert back["parcel"].tolist() == [7, 9]


def test_a_parquet_file_alone_knows_its_order(table, words_of, tmp_path):
    product = products.write(table, tmp_path / "p", **words_of("table"))
    alone = product.path.rename(tmp_path / "alone.parquet")
    assert products.Product(alone).order == words_of("table")["order"]


def test_a_flipped_byte_in_a_column_is_found(words_of, tmp_path):
    table = pd.DataFrame({"a": np.arange(1000.0), "b": np.random.default_rng(0).random(1000)})
    product = products.write(table, tmp_path / "p", **words_of("table"))
    chunk = pq.ParquetFile(product.path).metadata.row_group(0).column(1)
    content = bytearray(product.path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start + chunk.total_compressed_size // 2] ^= 0x10
    product.path.write_bytes(content)
    assert product.verify() == ["b"]


SHAPES = [
    shapely.box(0, 40, 1, 41),
    shapely.Point(3, 45),
    shapely.MultiPolygon([shapely.box(5, 5, 6, 6), shapely.box(7, 7, 8, 8)]),
    None,
]


@pytest.mark.parametrize("lazy", [False, True])
def test_features_are_geoparquet(words_of, tmp_path, lazy):
    features = pd.DataFrame({"name": list("abcd"), "geometry": SHAPES})
    features.attrs["columns"] = {"name": {"long_name": "Name of the parcel"}}
    with dask.config.set({"dataframe.convert-string": False}):
        given = dd.from_pandas(features, npartitions=2) if lazy else features
    product = products.write(given, tmp_path / "p", **words_of("features"))
    about = json.loads(pq.read_metadata(product.path).metadata[b"geo"])
    assert about == {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["MultiPolygon", "Point", "Polygon"],
                "bbox": [0.0, 5.0, 8.0, 45.0],
            }
        },
    }
    # Read by others: plain Arrow and shapely.
    raw = pq.read_table(product.path)
    assert raw.schema.names == ["name", "geometry"]
    shapes = shapely.from_wkb(raw["geometry"].to_numpy())
    assert all(a is b is None or a.equals_exact(b) for a, b in zip(shapes, SHAPES, strict=True))
    assert product.open()["geometry"][1] == shapely.Point(3, 45)
    assert product.item["bbox"] == [0.0, 5.0, 8.0, 45.0]
    assert product.verify() == []


def test_height_is_kept_in_geometries(words_of, tmp_path):
    product = products.write(
        pd.DataFrame({"geometry": [shapely.Point(1, 2, 3)]}), tmp_path / "p", **words_of("features")
    )
    assert product.open()["geometry"][0].z == 3
    about = json.loads(pq.read_metadata(product.path).metadata[b"geo"])
    assert about["columns"]["geometry"]["geometry_types"] == ["Point Z"]


def test_events_become_points(words_of, tmp_path):
    events = pd.DataFrame(
        {
            "time": pd.to_datetime(["2020-01-01", "2020-01-05"]),
            "longitude": [1.0, 2.0],
            "latitude": [3.0, 4.0],
            "kind": "p",
        }
    )
    product = products.write(events, tmp_path / "p", **words_of("events"))
    assert product.open()["geometry"].tolist() == [shapely.Point(1, 3), shapely.Point(2, 4)]
    assert product.item["bbox"] == [1.0, 3.0, 2.0, 4.0]
    assert product.item["properties"]["start_datetime"] == "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("kind", "name", "frame", "sentence"),
    [
        ("features", None, {"a": [1]}, "need a column 'geometry', or 'longitude' and 'latitude'; the result has a"),
        ("features", None, {"geometry": ["POINT (1 2)"]}, "holds a str, not shapely geometries"),
        ("table", "csv", {"geometry": [shapely.Point(1, 2)]}, "Choose the format 'geoparquet'"),
    ],
)
def test_a_table_that_cannot_be_written_is_said_in_a_sentence(words_of, tmp_path, kind, name, frame, sentence):
    with pytest.raises(ProductError, match=sentence):
        products.write(pd.DataFrame(frame), tmp_path / "p", format=name, **words_of(kind))


def test_features_in_another_projection_are_refused(words_of, tmp_path):
    features = pd.DataFrame({"geometry": [shapely.Point(5e5, 4e6)]})
    features.attrs["crs"] = "EPSG:32631"
    with pytest.raises(ProductError, match="not in 'EPSG:32631'"):
        products.write(features, tmp_path / "p", **words_of("features"))


def test_what_is_no_table_is_refused(words_of, tmp_path):
    with pytest.raises(ProductError, match="got a dict"):
        products.write({"a": [1]}, tmp_path / "p", **words_of("table"))
