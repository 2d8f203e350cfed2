"""Write cubes and tables into the lake in its layout, and know where what is asked for lies.

Cubes are Zarr (format 3) with CRC32C over each compressed chunk; chunks of pure fill value are written too, so a chunk
that is not there is always damage. Tables are Parquet: see `tiles`. Equal data give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.lake import manifest, tiles
from phidias_lab.methods.formats import arrow

ROW_GROUP = 16_384
_SINCE = "days since 1950-01-01"


def write_cube(data: xr.Dataset, folder: Path, *, entry: str, chunks: Mapping[str, int], version: str) -> dict:
    """Write a dataset as a Zarr store with its manifest; `chunks` are lengths per dimension, others stay whole."""
    import numcodecs.blosc
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    encoding = {}
    # Text of fixed length has no specification in format 3; of any length it has.
    text = {name: variable.astype(object) for name, variable in data.variables.items() if variable.dtype.kind == "U"}
    data = data.assign(text)
    for name, variable in data.variables.items():
        shape = tuple(min(chunks.get(d, n), n) for d, n in variable.sizes.items())
        compress = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=variable.dtype.itemsize)
        encoding[name] = {"chunks": shape, "compressors": [compress, Crc32cCodec()]}
        if variable.dtype.kind == "f" and name not in data.coords:
            encoding[name]["_FillValue"] = variable.dtype.type(np.nan)
        if variable.dtype.kind == "M":
            encoding[name] |= {"units": _SINCE, "calendar": "proleptic_gregorian", "dtype": "float64"}
    # Blosc's threads finish blocks in any order; one thread writes the same bytes every time.
    threads, numcodecs.blosc.use_threads = numcodecs.blosc.use_threads, False
    try:
        with zarr.config.set({"array.write_empty_chunks": True}):
            data.to_zarr(folder, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
    finally:
        numcodecs.blosc.use_threads = threads
    return manifest.write(folder, entry=entry, kind="cube", version=version, facts={"variables": list(data.data_vars)})


def write_table(table: pd.DataFrame, folder: Path, *, entry: str, version: str, row_group: int = ROW_GROUP) -> dict:
    """Write a table with longitude, latitude and time as a tiled Parquet dataset with its manifest.

    Units and names come from `table.attrs["columns"]` and go into the metadata of the fields; the other attributes go
    into the metadata of the schema.
    """
    import pyarrow as pa

    number = tiles.tile(table["longitude"], table["latitude"])
    cell = tiles.morton_cell(table["longitude"], table["latitude"])
    order = np.lexsort((table["observation_id"], table["time"], cell, number))
    plain = table.assign(**{c: table[c].astype("str") for c in table if table[c].dtype == "category"})
    whole = pa.Table.from_pandas(plain, preserve_index=False).take(pa.array(order))
    schema = arrow.with_attributes(whole.schema, table.attrs)
    whole = whole.cast(schema).replace_schema_metadata(schema.metadata)
    number = number[order]
    values, starts = np.unique(number, return_index=True)
    parts = zip(values, starts, [*starts[1:], len(number)], strict=True)
    write_tiles(((value, whole.slice(start, end - start)) for value, start, end in parts), folder, row_group)
    return table_manifest(folder, entry=entry, version=version, rows=len(table))


def write_tiles(parts: Iterable[tuple[int, Any]], folder: Path, row_group: int = ROW_GROUP) -> None:
    """Write (tile, Arrow table) pairs, sorted by tile and within it as the lake sorts; a tile may come in several parts."""
    import pyarrow.parquet as pq

    writer, last = None, None
    try:
        for tile, part in parts:
            if tile != last:
                if writer is not None:
                    writer.close()
                place = folder / f"tile={tile}"
                place.mkdir(parents=True)
                writer = pq.ParquetWriter(
                    place / "part-0.parquet",
                    part.schema,
                    compression="zstd",
                    write_page_checksum=True,
                    coerce_timestamps="us",
                )
                last = tile
            writer.write_table(part, row_group_size=row_group)
    finally:
        if writer is not None:
            writer.close()


def table_manifest(folder: Path, *, entry: str, version: str, rows: int) -> dict:
    """Record a table that was written with `write_tiles`."""
    facts = {"rows": rows, "layout": {"tile_degrees": tiles.DEGREES}}
    return manifest.write(folder, entry=entry, kind="table", version=version, facts=facts)
