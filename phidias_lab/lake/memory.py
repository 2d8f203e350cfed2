"""Data that are in memory become a file beside a run, so that the order that names them can be run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from phidias_lab.errors import InputError
from phidias_lab.methods.formats import arrow


def store(value: Any, folder: Path, name: str) -> Path:
    """Write a table as Parquet, a cube as NetCDF, with units and attributes; gives the file. Equal data, equal bytes."""
    if isinstance(value, xr.DataArray):
        value = value.to_dataset(name=value.name or "data")
    if isinstance(value, xr.Dataset):
        target = folder / f"{name}.nc"
        # xarray chooses no units for dates that it has not seen, such as the bounds of a product that was opened lazily.
        dates = {n: v.compute() for n, v in value.variables.items() if v.dtype.kind == "M" and v.chunks is not None}
        value = value.assign(dates)
        try:
            value.to_netcdf(target, engine="netcdf4", encoding={n: {"zlib": True} for n in value.data_vars})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The input {name!r} cannot be stored with its run: {error}. Keep numbers, dates and texts in its variables "
                "and attributes."
            ) from None
        return target
    table = value.compute() if hasattr(value, "compute") else value
    target = folder / f"{name}.parquet"
    try:
        _write_table(table, target)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The input {name!r} cannot be stored with its run: {error}. Keep numbers, dates and texts in its columns."
        ) from None
    return target


def _write_table(table: Any, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = pa.Table.from_pandas(table, preserve_index=False)
    schema = arrow.with_attributes(whole.schema, table.attrs)
    pq.write_table(whole.replace_schema_metadata(schema.metadata).cast(schema), target, compression="zstd")
