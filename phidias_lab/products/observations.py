"""Write a table of observations in one of the formats it may have come in, so that reading it gives the same table."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import numpy as np

from phidias_lab.errors import ProductError, UnknownNameError, nearest
from phidias_lab.methods.formats import argo, delimited, odv, seadatanet
from phidias_lab.methods.formats.observations import NotReadable, Observations
from phidias_lab.products import netcdf

#: Format -> how its files end.
SUFFIXES = {"odv": ".txt", "seadatanet": ".nc", "argo": ".nc", "csv": ".csv", "parquet": ".parquet"}


def format_of(path: str | Path, asked: str | None = None) -> str:
    """The format that was asked for, or the one that the name of the file says."""
    if asked is not None:
        if asked not in SUFFIXES:
            raise UnknownNameError(f"Observations are not written as {asked!r}. {nearest(asked, SUFFIXES)}")
        return asked
    found = [name for name, suffix in SUFFIXES.items() if suffix == Path(path).suffix.lower()]
    if len(found) != 1:
        raise UnknownNameError(
            f"{Path(path).name!r} does not say in which format it is to be. Name one of {', '.join(SUFFIXES)}."
        )
    return found[0]


def write(table: Observations, path: str | Path, format: str | None = None) -> None:
    """Write the table into one file, all of it or nothing."""
    path = Path(path)
    kind = format_of(path, format)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _WRITERS[kind](table, beside)
        os.replace(beside, path)
    except NotReadable as error:
        raise ProductError(f"{path} is not written as {kind}: {error}") from None
    except OSError as error:
        raise ProductError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from None
    finally:
        beside.unlink(missing_ok=True)


def _odv(table: Observations, path: Path) -> None:
    path.write_bytes(odv.spreadsheet(table).encode())


def _csv(table: Observations, path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(delimited.lines(table))


def _parquet(table: Observations, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays, fields = [], []
    for name, values in table.columns.items():
        array = pa.array(values, from_pandas=values.dtype.kind == "M")
        if values.dtype == object:
            array = pa.array(list(values), pa.string())
        said = {
            k: v if isinstance(v, str) else json.dumps(np.asarray(v).tolist())
            for k, v in table.attributes[name].items()
        }
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=said))
    whole = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=dict(table.facts)))
    pq.write_table(whole, path, compression="zstd", coerce_timestamps="us", write_page_checksum=True)


_WRITERS = {
    "odv": _odv,
    "csv": _csv,
    "parquet": _parquet,
    "seadatanet": lambda table, path: netcdf.write(seadatanet.file(table), path),
    "argo": lambda table, path: netcdf.write(argo.file(table), path),
}
