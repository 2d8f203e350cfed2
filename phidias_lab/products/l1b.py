"""Write spectra as a level 1B file of Sentinel-5P, in the groups, types and chunks of the real ones.

It serves what was selected from real files, and synthetic spectra: their global attribute `synthetic` is "true".
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab.errors import ProductError
from phidias_lab.methods.formats.l1b import Granule, Irradiance, Stored
from phidias_lab.methods.formats.observations import NotReadable

#: Bytes that are taken into memory at a time.
_BLOCK = 2**26


def write(
    content: Granule | Irradiance | list[Irradiance], path: str | Path, *, level: int = 3, lines: int = 1
) -> None:
    """Write one file, all of it or nothing; what is read from it is the same to the bit.

    `level` is that of deflate (0 stores as it is), `lines` how many scanlines a chunk holds. A file of irradiances holds
    several bands. Lazy arrays are written block by block.
    """
    import netCDF4

    path = Path(path)
    bands = content if isinstance(content, list) else [content]
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with netCDF4.Dataset(str(beside), mode="w", format="NETCDF4") as data:
            data.set_fill_off()
            for key, value in bands[0].attributes.items():
                data.setncattr(key, value)
            for band in bands:
                _write(data, band, level, lines)
        os.replace(beside, path)
    except NotReadable as error:
        raise ProductError(f"{path} is not written as level 1B: {error}") from None
    except OSError as error:
        if isinstance(error, ProductError):
            raise
        raise ProductError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from None
    finally:
        beside.unlink(missing_ok=True)


def _write(data: Any, band: Granule | Irradiance, level: int, lines: int) -> None:
    sizes = band.sizes()
    top = data.createGroup(band.group)
    groups = {name: top.createGroup(name) for name in dict.fromkeys(stored.group for stored in band.layout.values())}
    for group, made in groups.items():
        # Each group has its own dimensions, those of its variables.
        needed = (dim for name in band.arrays if band.layout[name].group == group for dim in band.layout[name].dims)
        for dim in dict.fromkeys(needed):
            made.createDimension(dim, sizes[dim])
    for name, array in band.arrays.items():
        stored = band.layout[name]
        _variable(groups[stored.group], name, array, stored, band.fill(name), level, lines)


def _variable(group: Any, name: str, array: Any, stored: Stored, fill: Any, level: int, lines: int) -> None:
    if stored.dtype is None:
        kind = group.createCompoundType(array.dtype, f"{name}_type")
    elif array.dtype == np.dtype(stored.dtype):
        kind = stored.dtype
    else:
        raise NotReadable(f"{name} is of type {array.dtype}, and is stored as {np.dtype(stored.dtype)}.")
    chunks = tuple(
        max(1, min(size, lines) if dim == "scanline" and len(stored.dims) > 2 else size)
        for dim, size in zip(stored.dims, array.shape, strict=True)
    )
    # Values that are not spectral are few: a hundred scanlines make a chunk of a size that reads well.
    if not stored.spectral and "scanline" in stored.dims and len(stored.dims) > 2:
        at = stored.dims.index("scanline")
        chunks = (*chunks[:at], max(1, min(array.shape[at], 100 * lines)), *chunks[at + 1 :])
    packed = {"compression": "zlib", "complevel": level, "shuffle": True} if level and len(stored.dims) > 1 else {}
    if fill is not None:
        packed["fill_value"] = np.array(fill, array.dtype)
    made = group.createVariable(name, kind, stored.dims, chunksizes=chunks if len(stored.dims) > 1 else None, **packed)
    made.set_auto_maskandscale(False)
    for key, value in stored.attributes(name).items():
        made.setncattr(key, value)
    if not array.size:
        return
    if stored.dims[1:2] != ("scanline",):
        made[...] = np.asarray(array)
        return
    step = max(1, _BLOCK // max(1, array[:, :1].nbytes) // lines) * lines
    for start in range(0, array.shape[1], step):
        made[:, start : start + step] = np.asarray(array[:, start : start + step])
