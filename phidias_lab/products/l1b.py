"""Write spectra as a level 1B file of Sentinel-5P, in the groups, types and chunks of the real ones.

It serves what was selected from real files, and synthetic spectra: their global attribute `synthetic` is "true".
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab.errors import InputError, ProductError
from phidias_lab.methods.formats import l1b
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


# Selected spectra ---------------------------------------------------------------------------------------------------

#: How the variables of a file are called in a product of selected spectra, where not `selected_` and their own name.
_CALLED = {
    "radiance_noise": "selected_radiance_noise_stored",
    "radiance_error": "selected_radiance_error_stored",
    "radiance": "selected_radiance_stored",
    "radiance_int16": "selected_radiance_stored",
}
#: Without these there is no file.
_NEEDED = ("selected_radiance_stored", "selected_delta_time", "selected_time", "selected_granule", "nominal_wavelength")


def export(
    product: Any, folder: Path, attributes: Mapping[str, str] | None = None, overwrite: bool = False
) -> list[str]:
    """Write the selected spectra of a product as files of level 1B, one for each granule they are from, all or none.

    Returns a sentence for each file. A file is named like that of its granule, with the times of the spectra in it and the
    time of the run.
    """
    with contextlib.ExitStack() as held:
        data = product.open()
        held.callback(getattr(data, "close", lambda: None))
        return _export(selected(data, attributes), folder, overwrite)


def _export(found: dict[str, Granule], folder: Path, overwrite: bool) -> list[str]:
    there = [name for name in found if (folder / name).exists()]
    if there and not overwrite:
        raise ProductError(
            f"{folder / there[0]} exists already. Choose another folder, or allow it to be replaced (--overwrite, "
            "overwrite=True)."
        )
    try:
        folder.mkdir(exist_ok=True)
        beside = folder / f".{uuid.uuid4().hex[:8]}.tmp"
        beside.mkdir()
    except OSError as error:
        raise ProductError(f"{folder} cannot be written: {error.strerror or error}. Choose another place.") from None
    try:
        for name, granule in found.items():
            write(granule, beside / name)
        for name in found:
            os.replace(beside / name, folder / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [
        f"{name}: {int(granule['selected'].sum())} spectra in {granule['scanline'].size} scanlines."
        for name, granule in found.items()
    ]


def selected(data: Any, attributes: Mapping[str, str] | None = None) -> dict[str, Granule]:
    """The selected spectra of a product's data by the names of the files they make, as they were in those they are from.

    What is kept of a pixel is there to the bit; scanlines without a selected pixel are left out, and in the others all else
    is filled. Spectra stay in the product until they are written.
    """
    if "selected_radiance" not in getattr(data, "data_vars", ()):
        raise InputError("This product holds no selected spectra. Export one of atmosphere.screening as l1b.")
    if missing := [name for name in _NEEDED if name not in data]:
        raise InputError(
            f"The spectra of this product do not come with what files of level 1B hold (it has no {missing[0]}), so they "
            "cannot be written as such. Its own file holds them all."
        )
    if not data.sizes["selected"]:
        raise InputError(
            "No spectrum was selected, so there is none to write. Screen at a higher 'rate', or other granules."
        )
    which, line, row, time, delta = (
        np.asarray(data[f"selected_{name}"].values)
        for name in ("granule", "scanline_number", "ground_pixel", "time", "delta_time")
    )
    created = np.datetime64(str(data.attrs["date_created"]).removesuffix("Z"), "s")
    found = {}
    for granule in np.unique(which):
        mine = slice(*np.flatnonzero(which == granule)[[0, -1]] + [0, 1])
        if (which[mine] != granule).any():
            mine = np.flatnonzero(which == granule)
        whole = data.sel(granule=granule)
        told = json.loads(str(whole["granule_attributes"].values))
        told = {key: np.int32(v) if isinstance(v, int) and abs(v) < 2**31 else v for key, v in told.items()}
        reference = (time[mine] - delta[mine].astype("m8[ms]") - l1b.EPOCH) / np.timedelta64(1, "s")
        arrays = {
            "time": np.round(reference[:1]).astype("i4"),
            "nominal_wavelength": whole["nominal_wavelength"].values[None],
        }
        if "earth_sun_distance" in whole:
            arrays["earth_sun_distance"] = whole["earth_sun_distance"].values[None]
        if "instrument_settings" in whole:
            arrays["instrument_settings"] = _compound(whole["instrument_settings"])[None]
        fills, pixels = {}, {}
        for name, stored in l1b.RADIANCE.items():
            array = data.get(_CALLED.get(name, f"selected_{name}"))
            if array is None or stored.dims[:2] != ("time", "scanline") or name == "selected":
                continue
            if name in ("radiance", "radiance_int16") and array.dtype != np.dtype(stored.dtype):
                continue
            if "stored_fill" in array.attrs:
                fills[name] = array.dtype.type(array.attrs["stored_fill"])
            pixels[name] = array.data[mine] if stored.dtype else _compound(array[mine])
        source = str(whole["granule_name"].values)
        begins, ends = (np.datetime64(t(time[mine]), "s") for t in (np.min, np.max))
        name = _named(source, told, int(data.attrs["band"]), begins, ends, created)
        told |= {
            "title": f"Selected spectra of {source}",
            "time_coverage_start": f"{begins}Z",
            "time_coverage_end": f"{ends}Z",
            "selected_from": source,
            **({"selected_by": data.attrs["id"]} if "id" in data.attrs else {}),
            **({"synthetic": "true"} if data.attrs.get("synthetic") == "true" else {}),
            **(attributes or {}),
        }
        found[str(name)] = l1b.of_pixels(name.bands[0], pixels, line[mine], row[mine], arrays, told, fills)
    return found


def _compound(array: Any) -> np.ndarray:
    """Values of a compound type from their bytes in the last dimension."""
    told, values = array.attrs.get("stored_dtype"), np.ascontiguousarray(array.values)
    try:
        kind = np.dtype([(str(name), str(form), *map(tuple, shape)) for name, form, *shape in json.loads(told)])
        return values.view(kind)[..., 0]
    except (TypeError, ValueError, RecursionError):
        raise InputError(
            f"{array.name} of this product is said to hold {str(told)[:80]!r}; expected names and types of numbers that "
            f"fill {values.shape[-1]} bytes. The product was changed or is damaged: screen once more."
        ) from None


def _named(source: str, told: Mapping, band: int, begins: Any, ends: Any, created: Any) -> l1b.Name:
    """The name of the file of some scanlines of a granule; of one that was renamed what is known is told."""
    try:
        name = l1b.parse_name(source)
    except NotReadable:
        processor = "".join(filter(str.isdigit, str(told.get("processor_version", ""))))[:6].zfill(6)
        name = l1b.Name("TEST", f"RA_BD{band}", begins, ends, int(told.get("orbit", 0)), 0, processor, created)
    return dataclasses.replace(name, start=begins, stop=ends, created=created)
