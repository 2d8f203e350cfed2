"""Tables as Parquet or CSV, features and events as GeoParquet 1.1.

Units and names of a column travel in the metadata of its Parquet field; in memory they are
`DataFrame.attrs["columns"] = {"salinity": {"units": "1e-3", ...}}`, the same form as in the lake. A CSV file holds
values only: its column types and units are in the product's item (`table:columns`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from phidias_lab.contract.data import column_attributes
from phidias_lab.contract.order import Order
from phidias_lab.errors import ProductError, kind_of
from phidias_lab.products import cf, checksum, stac

GEOMETRY = "geometry"
GEOPARQUET = "1.1.0"
#: Rows per row group, and rows that are in memory at once when a table is read for its checksums.
ROWS = 122_880
_COLUMN_FIELDS = ("name", "type", "description")


def pieces(table: Any) -> Iterator[pd.DataFrame]:
    """A pandas DataFrame as it is, a dask DataFrame partition by partition; a named index becomes a column."""
    if not hasattr(table, "columns") or not hasattr(table, "dtypes"):
        raise ProductError(f"A table is written from a DataFrame; got {kind_of(table)}.")
    attrs = table_attributes(table)
    for piece in (p.compute() for p in table.partitions) if hasattr(table, "partitions") else (table,):
        if not isinstance(piece.index, pd.RangeIndex) and any(n is not None for n in piece.index.names):
            piece = piece.reset_index()
        piece = piece.set_axis([str(c) for c in piece.columns], axis=1)
        piece.attrs = attrs
        yield piece


def table_attributes(table: Any) -> dict[str, Any]:
    """The attributes of a table; a dask DataFrame that was made from a pandas one keeps them in its empty example."""
    return dict(getattr(table, "attrs", None) or getattr(getattr(table, "_meta", None), "attrs", None) or {})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _value(text: str) -> Any:
    """What `_text` wrote; only lists were more than text."""
    return json.loads(text) if text.startswith("[") and text.endswith("]") else text


def _schema(piece: pd.DataFrame, geo: bool, words: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema with the attributes of each column in its field and the words of the product beside it."""
    plain = piece.drop(columns=[GEOMETRY]) if geo else piece
    schema = pa.Schema.from_pandas(plain, preserve_index=False)
    metadata = dict(schema.metadata or {})
    if geo:
        schema = schema.insert(list(piece.columns).index(GEOMETRY), pa.field(GEOMETRY, pa.binary()))
    attributes = column_attributes(piece)
    for index, field in enumerate(schema):
        own = {k: _text(v) for k, v in (attributes.get(field.name) or {}).items() if v is not None}
        if own:
            schema = schema.set(index, field.with_metadata(own))
    return schema.with_metadata({**metadata, **{k.encode(): v.encode() for k, v in words.items() if v}})


def _with_geometry(piece: pd.DataFrame) -> pd.DataFrame:
    """The piece with a geometry column; events have a place, which becomes a point."""
    if GEOMETRY in piece.columns:
        return piece
    if not {"longitude", "latitude"} <= set(piece.columns):
        raise ProductError(
            "Features and events need a column 'geometry', or 'longitude' and 'latitude'; the result has "
            f"{', '.join(map(str, piece.columns)) or 'no columns'}. Add one in the chain."
        )
    import shapely

    places = shapely.points(piece["longitude"].to_numpy(dtype=float), piece["latitude"].to_numpy(dtype=float))
    return piece.assign(**{GEOMETRY: pd.Series(list(places), index=piece.index, dtype=object)})


def write_parquet(
    table: Any, path: Path, *, geo: bool, chain: Mapping, order: Order, facts: Mapping
) -> list[dict[str, Any]]:
    """Write piece by piece; returns `table:columns`."""
    import shapely

    own = table_attributes(table)
    words = {
        "title": cf.title(table, chain, order, facts),
        "source": cf.source(chain, order, facts),
        "license": cf.licence(order, facts),
        **cf.origin(table),
        **{name: str(own[name]) for name in ("comment", "phidias_said") if own.get(name)},
        "phidias_order": order.dumps(),
    }
    crs = table_attributes(table).get("crs")
    if geo and crs not in (None, "OGC:CRS84", "EPSG:4326"):
        raise ProductError(f"Features are written in longitude and latitude (OGC:CRS84), not in {crs!r}. Convert them.")
    writer, schema, kinds, box, last = None, None, set(), [np.inf, np.inf, -np.inf, -np.inf], None
    try:
        for piece in pieces(table):
            piece = last = _with_geometry(piece) if geo else piece
            if len(piece) == 0:
                continue
            if writer is None:
                schema = _schema(piece, geo, words)
                writer = pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(_arrow(piece, schema, geo), row_group_size=ROWS)
            if geo:
                shapes = piece[GEOMETRY].to_numpy(dtype=object)
                kinds |= {_geometry_type(s) for s in shapes if s is not None}
                west, south, east, north = shapely.total_bounds(shapes)
                box = [*np.fmin(box[:2], [west, south]), *np.fmax(box[2:], [east, north])]
        if writer is None:
            schema = _schema(last, geo, words)
            writer = pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(_arrow(last, schema, geo))
        if geo:
            # A column without `crs` is in OGC:CRS84 by the specification (GeoParquet 1.1, "crs").
            column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(kinds)}
            if np.isfinite(box).all():
                column["bbox"] = [float(b) for b in box]
            about = {"version": GEOPARQUET, "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
            writer.add_key_value_metadata({"geo": json.dumps(about)})
    finally:
        if writer is not None:
            writer.close()
    return _columns(schema, last)


def _geometry_type(shape: Any) -> str:
    return shape.geom_type + (" Z" if shape.has_z else "")


def _arrow(piece: pd.DataFrame, schema: pa.Schema, geo: bool) -> pa.Table:
    if not geo:
        return pa.Table.from_pandas(piece, schema=schema, preserve_index=False)
    import shapely

    shapes = piece[GEOMETRY].to_numpy(dtype=object)
    for shape in shapes:
        if shape is not None and not hasattr(shape, "geom_type"):
            raise ProductError(f"The column 'geometry' holds {kind_of(shape)}, not shapely geometries.")
    plain = piece.drop(columns=[GEOMETRY])
    index = schema.get_field_index(GEOMETRY)
    arrow = pa.Table.from_pandas(plain, schema=schema.remove(index), preserve_index=False)
    wkb = pa.array(shapely.to_wkb(shapes, byte_order=1, output_dimension=3), type=pa.binary(), from_pandas=True)
    columns = [*arrow.columns[:index], wkb, *arrow.columns[index:]]
    return pa.Table.from_arrays(columns, schema=schema)


def _columns(schema: pa.Schema, piece: pd.DataFrame) -> list[dict[str, Any]]:
    described = []
    for field in schema:
        own = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        entry = {"name": field.name, "type": "wkb" if field.name == GEOMETRY else str(piece[field.name].dtype), **own}
        if own.get("long_name"):
            entry["description"] = own["long_name"]
        described.append(entry)
    return described


def write_csv(table: Any, path: Path) -> list[dict[str, Any]]:
    """Write piece by piece; numbers in the shortest form that reads back to the same value. Returns `table:columns`."""
    last = None
    with open(path, "w", encoding="utf-8", newline="") as file:
        for piece in pieces(table):
            if GEOMETRY in piece.columns:
                raise ProductError("A table with geometries is not written as CSV. Choose the format 'geoparquet'.")
            piece.to_csv(file, index=False, header=last is None, na_rep="", lineterminator="\n")
            last = piece
    return _columns(_schema(last, False, {}), last)


# Reading --------------------------------------------------------------------------------------------------------------


def _is_geo(file: pq.ParquetFile) -> bool:
    return b"geo" in (file.metadata.metadata or {})


def _shapes(piece: pd.DataFrame) -> pd.DataFrame:
    import shapely

    shapes = shapely.from_wkb(piece[GEOMETRY].to_numpy(dtype=object))
    return piece.assign(**{GEOMETRY: pd.Series(list(shapes), index=piece.index, dtype=object)})


def _csv_options(columns: list[dict] | None) -> dict[str, Any]:
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
    types = {c["name"]: c["type"] for c in columns or ()}
    times = [n for n, t in types.items() if t.startswith("datetime")]
    others = {n: t for n, t in types.items() if n not in times and t not in ("object", "category", "bool")}
    return {**options, "dtype": others, "parse_dates": times, "date_format": "ISO8601"}


def _typed(piece: pd.DataFrame, columns: list[dict] | None) -> pd.DataFrame:
    for column in columns or ():
        name, wanted = column["name"], column["type"]
        if name in piece.columns and str(piece[name].dtype) != wanted and wanted not in ("object", "wkb"):
            piece = piece.assign(**{name: piece[name].astype(wanted)})
    return piece


def read_pieces(path: Path, columns: list[dict] | None, only: str | None = None) -> Iterator[pd.DataFrame]:
    """The table in pieces of bounded size, all columns or one."""
    if path.suffix == ".csv":
        options = _csv_options(columns)
        with pd.read_csv(path, chunksize=ROWS, **options) as reader:
            for piece in reader:
                yield _typed(piece[[only]] if only else piece, columns)
        return
    with pq.ParquetFile(path) as file:
        schema, geo = file.schema_arrow, _is_geo(file)
        empty = True
        for batch in file.iter_batches(batch_size=ROWS, columns=[only] if only else None):
            piece = pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata).to_pandas()
            empty = False
            yield _shapes(piece) if geo and GEOMETRY in piece.columns else piece
        if empty:
            piece = schema.empty_table().to_pandas()
            yield piece[[only]] if only else piece


def open_table(path: Path, columns: list[dict] | None) -> pd.DataFrame:
    """The table in memory, with `attrs["columns"]`."""
    if path.suffix == ".csv":
        table = _typed(pd.read_csv(path, **_csv_options(columns)), columns)
        known = {
            c["name"]: {k: v for k, v in c.items() if k not in ("name", "type", "description")} for c in columns or ()
        }
        table.attrs["columns"] = {n: a for n, a in known.items() if a}
        return table
    with pq.ParquetFile(path) as file:
        arrow, geo = file.read(), _is_geo(file)
    table = arrow.to_pandas()
    if geo:
        table = _shapes(table)
    table.attrs["columns"] = {
        f.name: {k.decode(): _value(v.decode()) for k, v in f.metadata.items() if k != b"PARQUET:field_id"}
        for f in arrow.schema
        if f.metadata and set(f.metadata) - {b"PARQUET:field_id"}
    }
    return table


def order_inside(path: Path) -> str | None:
    """The order in a Parquet file's metadata."""
    return (pq.read_schema(path).metadata or {}).get(b"phidias_order", b"").decode() or None


def checksums(path: Path, columns: list[dict] | None, only: str | None = None) -> dict[str, str]:
    """The checksum of each column, or of one, read piece by piece."""
    return checksum.of_pieces(read_pieces(path, columns, only))


def place_and_time(path: Path, columns: list[dict]) -> tuple[list[float] | None, tuple | None]:
    """Bounding box and first and last time of a table with `geometry` or `longitude` and `latitude`, and `time`."""
    import shapely

    longitudes, latitudes, times = [], [], []
    for piece in read_pieces(path, columns):
        if GEOMETRY in piece.columns:
            bounds = shapely.bounds(piece[GEOMETRY].to_numpy(dtype=object)).reshape(-1, 4)
            bounds = bounds[np.isfinite(bounds).all(axis=1)]
            longitudes.append(np.unique(bounds[:, [0, 2]]))
            latitudes.append(np.unique(bounds[:, [1, 3]]))
        elif {"longitude", "latitude"} <= set(piece.columns):
            place = piece[["longitude", "latitude"]].apply(pd.to_numeric, errors="coerce").dropna()
            longitudes.append(np.unique(place["longitude"].to_numpy(dtype=float)))
            latitudes.append(np.unique(place["latitude"].to_numpy(dtype=float)))
        if "time" in piece.columns and piece["time"].dtype.kind == "M":
            when = piece["time"].dropna()
            when = when.dt.tz_convert("UTC").dt.tz_localize(None) if when.dt.tz is not None else when
            if len(when):
                times += [when.min().to_datetime64(), when.max().to_datetime64()]
    box = None
    if longitudes and sum(len(x) for x in longitudes):
        west, east = stac.west_east(np.concatenate(longitudes))
        north = np.concatenate(latitudes)
        box = [west, float(north.min()), east, float(north.max())]
    return box, (min(times), max(times)) if times else None
