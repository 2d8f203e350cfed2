"""Checksums of decoded values: the same for the same numbers, whichever file, chunks or compression hold them.

The digest of a variable is the SHA-256 of its name and type, its values in C order (little-endian, every NaN written
the same way) and its shape. Values are read slab by slab, so a variable larger than memory can be summed.

Times are summed as days and nanoseconds of the day, so the resolution a reader chooses does not matter. Text is summed
as UTF-8 with its length before it; a missing text differs from an empty one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab.errors import ProductError

#: Bytes of decoded values that are held at once.
SLAB = 16 * 2**20


def slabs(shape: tuple[int, ...], itemsize: int, limit: int | None = None) -> Iterator[tuple]:
    """Index tuples that cover an array in C order, each at most `limit` bytes (SLAB if not given) or one item."""
    limit = SLAB if limit is None else limit
    if 0 in shape:
        return
    inner = itemsize
    split = len(shape)
    while split and inner * shape[split - 1] <= limit:
        inner *= shape[split - 1]
        split -= 1
    if split == 0:
        yield ()
        return
    along = split - 1
    step = max(1, limit // inner)
    for outer in itertools.product(*(range(n) for n in shape[:along])):
        for start in range(0, shape[along], step):
            yield (*outer, slice(start, start + step))


def _missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _object_bytes(value: Any) -> bytes:
    if _missing(value):
        return b"\x00"
    if isinstance(value, str):
        tag, content = b"\x01", value.encode("utf-8")
    elif isinstance(value, bytes | bytearray):
        tag, content = b"\x02", bytes(value)
    elif isinstance(value, bool | np.bool_):
        tag, content = b"\x03", b"1" if value else b"0"
    elif isinstance(value, int | np.integer):
        tag, content = b"\x04", str(int(value)).encode()
    elif isinstance(value, float | np.floating):
        tag, content = b"\x05", struct.pack("<d", float(value))
    elif isinstance(value, date | np.datetime64) or hasattr(value, "isoformat"):
        tag, content = b"\x06", (value.isoformat() if hasattr(value, "isoformat") else str(value)).encode()
    elif hasattr(value, "geom_type"):
        import shapely

        tag, content = b"\x07", shapely.to_wkb(value, byte_order=1, include_srid=False)
    elif isinstance(value, list | tuple | np.ndarray):
        tag, content = b"\x08", b"".join(_object_bytes(v) for v in value)
    else:
        raise ProductError(
            f"A value of type {type(value).__name__} has no checksum; products hold numbers, times, text, geometries. "
            "Convert it in the chain."
        )
    return tag + struct.pack("<Q", len(content)) + content


def _day_and_nanosecond(values: np.ndarray) -> np.ndarray:
    """Times as (day, nanosecond of the day): exact for every resolution, over the whole range of each."""
    unit = "datetime64[D]" if values.dtype.kind == "M" else "timedelta64[D]"
    missing = np.isnat(values)
    days = values.astype(unit)
    rest = np.where(missing, np.timedelta64(0, "ns"), (values - days).astype("timedelta64[ns]"))
    pairs = np.stack([days.astype("<i8"), rest.astype("<i8")], axis=-1)
    pairs[missing] = np.iinfo("i8").min
    return pairs


def type_name(dtype: Any) -> str:
    """The name under which a type is summed: equal for the ways in which formats spell the same type."""
    dtype = np.dtype(dtype) if not isinstance(dtype, np.dtype) else dtype
    if dtype.kind in "OUST":
        return "object"
    return {"M": "datetime", "m": "timedelta"}.get(dtype.kind, dtype.newbyteorder("=").name)


def canonical(values: np.ndarray) -> bytes | memoryview:
    """The bytes of an array that go into its checksum."""
    values = np.asarray(values)
    kind = values.dtype.kind
    if kind in "Mm":
        return _day_and_nanosecond(values).astype("<i8").tobytes()
    if kind == "S":
        return b"".join(_object_bytes(v.decode("utf-8", "replace")) for v in values.ravel())
    if kind in "OUT":
        return b"".join(_object_bytes(v) for v in values.ravel().tolist())
    if kind in "fc":
        values = np.array(values, dtype=values.dtype.newbyteorder("<"), order="C", copy=True)
        parts = values if kind == "f" else values.view(values.real.dtype)
        parts[np.isnan(parts)] = np.nan
        return _buffer(values)
    return _buffer(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")))


def _buffer(values: np.ndarray) -> bytes | memoryview:
    """The bytes of a contiguous array without a copy of it; a memoryview of nothing cannot be cast."""
    return memoryview(values.reshape(-1)).cast("B") if values.size else b""


class _Sum:
    def __init__(self, name: str, kind: str):
        self._hash = hashlib.sha256(f"{name}\n{kind}\n".encode())

    def update(self, content: bytes | memoryview) -> None:
        self._hash.update(content)

    def digest(self, shape: Iterable[int]) -> str:
        # The shape comes last: the length of a table that is read as a stream is known only then.
        self._hash.update(("\n" + ",".join(str(int(n)) for n in shape)).encode())
        return self._hash.hexdigest()


def of_array(name: str, array: Any) -> str:
    """The checksum of one variable: a numpy array, a lazy xarray Variable or a DataArray."""
    total = _Sum(name, type_name(array.dtype))
    itemsize = array.dtype.itemsize if array.dtype.kind not in "OT" else 64
    for index in slabs(tuple(array.shape), itemsize):
        total.update(canonical(np.asarray(array[index])))
    return total.digest(array.shape)


def of_dataset(data: Any) -> dict[str, str]:
    """The checksum of each variable and coordinate of a Dataset, by name."""
    return {str(name): of_array(str(name), data.variables[name]) for name in sorted(data.variables, key=str)}


def _column(series: Any) -> tuple[str, bytes | memoryview]:
    """Type and bytes of one piece of a column; nullable columns carry a mark per value."""
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "object", canonical(series.astype(object).to_numpy())
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "datetime UTC", canonical(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    if isinstance(dtype, np.dtype):
        return type_name(dtype), canonical(series.to_numpy())
    if isinstance(dtype, pd.StringDtype):
        return "object", canonical(series.astype(object).to_numpy())
    numpy_dtype = getattr(dtype, "numpy_dtype", np.dtype(object))
    if numpy_dtype.kind not in "iufb":
        return "object", canonical(series.astype(object).to_numpy())
    missing = series.isna().to_numpy()
    marked = np.zeros(len(series), dtype=[("value", numpy_dtype.newbyteorder("<")), ("missing", "?")])
    marked["value"] = series.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0))
    marked["missing"] = missing
    return f"{numpy_dtype.name} or missing", marked.tobytes()


def of_pieces(pieces: Iterable[Any]) -> dict[str, str]:
    """The checksum of each column of a table that comes in pieces (pandas DataFrames with the same columns)."""
    sums: dict[str, _Sum] = {}
    rows = 0
    for piece in pieces:
        for name in piece.columns:
            kind, content = _column(piece[name])
            if name not in sums:
                sums[str(name)] = _Sum(str(name), kind)
            sums[str(name)].update(content)
        rows += len(piece)
    return {name: sums[name].digest((rows,)) for name in sorted(sums)}


def of_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def multihash(path: str | Path) -> str:
    """The SHA-256 of a file in the multihash form that STAC's `file:checksum` asks for."""
    return "1220" + of_file(path)


def of_tree(folder: str | Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder, by its path inside the folder."""
    folder = Path(folder)
    return {p.relative_to(folder).as_posix(): of_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
