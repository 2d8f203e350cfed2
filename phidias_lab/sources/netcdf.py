"""Read a NetCDF file as it is stored, for the formats in NetCDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab.methods.formats.netcdf import File, Variable
from phidias_lab.methods.formats.observations import NotReadable

#: A file that holds more than this, unpacked, is not taken into memory.
LARGEST = 2**30
MOST_VARIABLES = 5_000


def read(path: str | Path) -> File:
    """All of a file; `NotReadable` with a sentence when it is damaged, truncated, too large, or has groups or own types."""
    import netCDF4

    try:
        with netCDF4.Dataset(str(path), mode="r") as data:
            data.set_auto_maskandscale(False)
            data.set_auto_chartostring(False)
            return _read(data, Path(path))
    except (OSError, RuntimeError, IndexError, ValueError, MemoryError) as error:
        if isinstance(error, NotReadable):
            raise
        said = str(getattr(error, "strerror", None) or error).splitlines()
        raise NotReadable(f"it cannot be read as NetCDF ({said[0] if said else type(error).__name__}).") from None


def _read(data: Any, path: Path) -> File:
    if data.groups:
        raise NotReadable("it has groups, which no profile format has.")
    if len(data.variables) > MOST_VARIABLES:
        raise NotReadable(f"it has {len(data.variables)} variables; more than {MOST_VARIABLES} are not read.")
    size = 0
    for name, variable in data.variables.items():
        if variable.dtype is str:
            continue
        own = not isinstance(variable.datatype, np.dtype)
        if own or not isinstance(variable.dtype, np.dtype) or variable.dtype.kind not in "iufS":
            raise NotReadable(f"its variable {name} has a type of its own, which no profile format has.")
        size += int(np.prod([float(n) for n in variable.shape])) * variable.dtype.itemsize
    if size > LARGEST:
        raise NotReadable(
            f"it holds {size / 2**30:.1f} GiB, more than the {LARGEST / 2**30:g} GiB that are read. Split it."
        )
    # The classic formats store what they hold as it is: a file that is shorter than that was cut off.
    if data.data_model.startswith("NETCDF3") and path.stat().st_size < size:
        raise NotReadable(f"it is cut off: it has {path.stat().st_size} bytes and describes {size}. Fetch it again.")
    variables = {}
    for name, variable in data.variables.items():
        values = variable[...]
        values = np.array(values, dtype=object if variable.dtype is str else variable.dtype)
        storage = {}
        if not data.data_model.startswith("NETCDF3"):
            packed, chunks = variable.filters() or {}, variable.chunking()
            storage = {k: packed[k] for k in ("zlib", "shuffle", "fletcher32", "complevel") if packed.get(k)}
            if isinstance(chunks, list):
                storage["chunksizes"] = tuple(chunks)
        variables[name] = Variable(tuple(variable.dimensions), values, _attributes(variable), storage)
    return File(
        {name: len(d) for name, d in data.dimensions.items()},
        variables,
        _attributes(data),
        tuple(name for name, d in data.dimensions.items() if d.isunlimited()),
        data.data_model,
    )


def _attributes(of: Any) -> dict[str, Any]:
    found = {}
    for name in of.ncattrs():
        try:
            found[name] = of.getncattr(name)
        except UnicodeDecodeError:
            found[name] = of.getncattr(name, encoding="latin-1")
    return found
