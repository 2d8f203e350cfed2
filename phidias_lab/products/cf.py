"""Cubes as CF-1.11 NetCDF-4 and Zarr, with ACDD-1.3 global attributes.

One writer serves all chains, because xarray's defaults break the conventions in two ways: a `_FillValue` on coordinates
(CF 2.5.1 forbids missing values there) and 64-bit integer times in units that depend on the data. Here coordinates and
bounds get no fill value and every time is a float64 number of days since 1970-01-01.

An attribute is written only if the declaration, the data, the order or the facts of the run say so. A file without an
`institution` or a `license` is a file about which neither is known.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from phidias_lab.contract.data import is_synthetic, with_labels, without_labels
from phidias_lab.contract.order import Order
from phidias_lab.errors import ProductError

CONVENTIONS = "CF-1.11, ACDD-1.3"
TIME_UNITS = "days since 1970-01-01"
CALENDAR = "standard"
#: Longest side of a stored chunk; a trailing 2-D slice up to this size is one chunk.
CHUNK = 1024

# What the names of the contract's dimensions mean; a coordinate's own attributes go before these.
_AXES = {
    "longitude": {"standard_name": "longitude", "long_name": "Longitude", "units": "degrees_east", "axis": "X"},
    "latitude": {"standard_name": "latitude", "long_name": "Latitude", "units": "degrees_north", "axis": "Y"},
    "depth": {"standard_name": "depth", "long_name": "Depth", "positive": "down", "axis": "Z"},
    "time": {"standard_name": "time", "long_name": "Time", "axis": "T"},
}
# Belong to the encoding: as attributes they would change the values when the file is read, or contradict the encoding.
_ENCODED = ("_FillValue", "missing_value", "scale_factor", "add_offset", "coordinates", "dtype")


def bounds_names(data: xr.Dataset) -> set[str]:
    """Names of the variables that hold the cell bounds of others."""
    named = {v.attrs.get(k) for v in data.variables.values() for k in ("bounds", "climatology")}
    return {str(n) for n in named if n in data.variables}


def _attribute(value: Any) -> Any:
    """A value that every format can hold: text, a number or a list of numbers."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(v, str | Mapping) for v in value)
    ):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    if isinstance(value, np.datetime64) or hasattr(value, "isoformat"):
        return iso(value)
    return value


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): _attribute(v) for k, v in attributes.items() if v is not None and str(v) != ""}


def iso(value: Any) -> str:
    """A time in ISO 8601 with the final Z: '2010-01-16T12:00:00Z'; fractions of a second only where there are any."""
    text = str(np.datetime64(value, "us"))
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text + "Z"


def time_coverage(data: xr.Dataset) -> tuple[Any, Any] | None:
    """First and last instant (datetime64) that the cells of the data cover, or None."""
    if "time" not in data.variables or data["time"].size == 0 or data["time"].dtype.kind != "M":
        return None
    bounds = data["time"].attrs.get("bounds") or data["time"].attrs.get("climatology")
    values = data[bounds if bounds in data.variables else "time"].values
    values = values[~np.isnat(values)]
    return (values.min(), values.max()) if values.size else None


def extent(data: xr.Dataset, name: str) -> tuple[float, float] | None:
    """Smallest and largest value of a coordinate, or None."""
    if name not in data.variables or data[name].size == 0 or data[name].dtype.kind not in "iuf":
        return None
    values = np.asarray(data[name].values, dtype=float)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def software(facts: Mapping) -> dict[str, str]:
    """Names and versions of the software that made the product."""
    return {str(k): str(v) for k, v in sorted((facts.get("versions") or {}).items()) if v}


def describe_input(name: str, order: Order, facts: Mapping) -> str:
    """One input in a phrase: its address and, where known, its checksum."""
    reference = order.inputs.get(name) or {}
    identity = (facts.get("inputs") or {}).get(name) or {}
    if "entry" in reference:
        phrase = f"{name} from catalogue entry {reference['entry']}"
        if reference.get("parameters"):
            phrase += " " + json.dumps(reference["parameters"], sort_keys=True)
    elif "file" in reference:
        phrase = f"{name} from file {reference['file']}"
    else:
        phrase = f"{name} stored with the run"
    checksum = identity.get("checksum") or identity.get("sha256") or reference.get("sha256")
    phrase = f"{phrase} (checksum {checksum})" if checksum else phrase
    return f"{phrase}, source: {identity['source']}" if identity.get("source") else phrase


def licences(order: Order, facts: Mapping) -> dict[str, str]:
    """The licence of each input that has one, by the input's name."""
    found = facts.get("inputs") or {}
    names = dict.fromkeys([*order.inputs, *found])
    return {n: str(found[n]["license"]) for n in names if (found.get(n) or {}).get("license")}


def licence(order: Order, facts: Mapping) -> str | None:
    """ACDD `license`: the product's own, else that of all inputs, else those of the inputs one by one."""
    if facts.get("license"):
        return str(facts["license"])
    known = licences(order, facts)
    names = dict.fromkeys([*order.inputs, *(facts.get("inputs") or {})])
    if known and len(set(known.values())) == 1 and len(known) == len(names):
        return next(iter(known.values()))
    return "; ".join(f"{n}: {known.get(n, 'not known')}" for n in names) if known else None


def origin(data: Any) -> dict[str, str]:
    """What a result says about synthetic inputs."""
    attrs = getattr(data, "attrs", None) or {}
    return {name: str(attrs[name]) for name in ("synthetic", "synthetic_inputs") if attrs.get(name)}


def title(data: Any, chain: Mapping, order: Order, facts: Mapping) -> str:
    """The title that was given, else the chain's own for this run, else the chain's; one of synthetic values says so."""
    found = order.title or facts.get("title") or chain.get("title") or chain["id"]
    return f"{found} (synthetic)" if is_synthetic(data) and "synthetic" not in found.lower() else found


def source(chain: Mapping, order: Order, facts: Mapping) -> str:
    """CF `source`: the method of production and what it was fed with."""
    names = dict.fromkeys([*order.inputs, *(facts.get("inputs") or {})])
    inputs = "; ".join(describe_input(n, order, facts) for n in names)
    made = f"phidias_lab chain {chain['id']} {chain['version']}"
    if chain.get("title"):
        made += f" ({chain['title']})"
    return f"{made}; inputs: {inputs}" if inputs else made


def keywords(data: xr.Dataset) -> list[str]:
    """Standard names of the data variables without their modifiers; where there is none, their long names or names."""
    skip = bounds_names(data)
    names = [n for n in data.data_vars if n not in skip]
    standard = [str(data[n].attrs["standard_name"]).split()[0] for n in names if data[n].attrs.get("standard_name")]
    return list(dict.fromkeys(standard or [str(data[n].attrs.get("long_name") or n) for n in names]))


def global_attributes(data: xr.Dataset, chain: Mapping, order: Order, facts: Mapping) -> dict[str, Any]:
    """The global attributes of a product."""
    versions = software(facts)
    found: dict[str, Any] = _attributes(data.attrs)
    older = found.pop("history", "")
    made = facts.get("ended") or facts.get("started")
    if made:
        program = f"phidias_lab {versions['phidias_lab']}" if "phidias_lab" in versions else "phidias_lab"
        line = f"{made} {program}: chain {chain['id']} {chain['version']}"
        line += f", run {facts['run']}" if facts.get("run") else ""
        older = f"{line}\n{older}" if older else line
    named = keywords(data)
    found.update(
        Conventions=CONVENTIONS,
        title=title(data, chain, order, facts),
        summary=chain.get("description") or chain.get("summary"),
        history=older,
        source=source(chain, order, facts),
        references="\n".join(chain.get("references") or ()),
        keywords=", ".join(named),
        id=facts.get("run"),
        date_created=made,
        product_version=chain["version"],
        phidias_chain=chain["id"],
        phidias_order=order.dumps(),
    )
    found["license"] = licence(order, facts) or found.get("license")
    for key in ("institution", "creator_name", "creator_email", "creator_url", "project"):
        if facts.get(key):
            found[key] = facts[key]
    if any(v.attrs.get("standard_name") for v in data.variables.values()):
        found["standard_name_vocabulary"] = "CF Standard Name Table"
    for name, short in (("latitude", "lat"), ("longitude", "lon"), ("depth", "vertical")):
        span = extent(data, name)
        if span is None:
            continue
        found[f"geospatial_{short}_min"], found[f"geospatial_{short}_max"] = span
        units = data[name].attrs.get("units") or _AXES[name].get("units")
        if units:
            found[f"geospatial_{short}_units"] = str(units)
        if name == "depth":
            found["geospatial_vertical_positive"] = data[name].attrs.get("positive", "down")
    covered = time_coverage(data)
    if covered is not None:
        found["time_coverage_start"], found["time_coverage_end"] = (iso(t) for t in covered)
        seconds = (covered[1] - covered[0]) / np.timedelta64(1, "s")
        found["time_coverage_duration"] = f"P{seconds // 86400:.0f}DT{seconds % 86400:g}S"
    return _attributes(found)


def content_type(attributes: Mapping[str, Any]) -> str:
    """ACDD `coverage_content_type` (a code of ISO 19115-1) of a variable that a chain computed."""
    if "flag_meanings" in attributes:
        return "thematicClassification"
    named = str(attributes.get("standard_name") or "").split()
    if named[1:] and named[1] in ("standard_error", "status_flag", "detection_minimum"):
        return "qualityInformation"
    if "number_of_observations" in named:
        return "auxiliaryInformation"
    return "modelResult"


def stored_chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One chunk per trailing 2-D slice, cut where a side is longer than CHUNK."""
    if len(shape) == 1:
        return (max(1, min(shape[0], CHUNK * CHUNK)),)
    return tuple(1 if i < len(shape) - 2 else max(1, min(n, CHUNK)) for i, n in enumerate(shape))


def _aligned(variable: xr.Variable) -> xr.Variable:
    """Lazy blocks that hold whole stored chunks, so that two blocks never write the same one."""
    if variable.chunks is None:
        return variable
    plan = {}
    for dim, blocks, chunk in zip(variable.dims, variable.chunks, stored_chunks(variable.shape), strict=True):
        if any(b % chunk for b in blocks[:-1]):
            size = variable.sizes[dim]
            plan[dim] = size if size <= chunk else chunk
    return variable.chunk(plan) if plan else variable


def prepared(data: xr.Dataset, chain: Mapping, order: Order, facts: Mapping) -> tuple[xr.Dataset, dict[str, dict]]:
    """The data with every attribute, and the encoding of each variable (without what only one format knows)."""
    bounds = bounds_names(data)
    data = without_labels(data).drop_encoding().reset_coords([n for n in bounds if n in data.coords])
    attributes = global_attributes(data, chain, order, facts)
    variables: dict[str, xr.Variable] = {}
    encoding: dict[str, dict] = {}
    for name, variable in data.variables.items():
        attrs = {k: v for k, v in variable.attrs.items() if k not in _ENCODED}
        is_time = variable.dtype.kind == "M"
        if name in data.coords and name in _AXES:
            attrs = {**_AXES[name], **attrs}
        if is_time:
            attrs = {k: v for k, v in attrs.items() if k not in ("units", "calendar")}
            if name not in bounds:
                # Whether the clocks behind the data counted leap seconds is known only where the data say so (CF 4.4).
                attrs.setdefault("units_metadata", "leap_seconds: unknown")
        if name in bounds:
            attrs = {}
        elif name in data.data_vars:
            attrs.setdefault("coverage_content_type", content_type(attrs))
        # Text of fixed width has no Zarr v3 specification; text of any length has.
        changed = variable.astype(object) if variable.dtype.kind == "U" else variable.copy(deep=False)
        changed.attrs = _attributes(attrs)
        variables[name] = _aligned(changed) if name in data.data_vars else changed
        encoding[name] = _encoding(variable, fill=name in data.data_vars and name not in bounds)
    coords = {n: variables[n] for n in data.coords}
    filled = xr.Dataset({n: variables[n] for n in data.data_vars}, coords=coords, attrs=attributes)
    return filled, encoding


def _encoding(variable: xr.Variable, fill: bool) -> dict:
    kind = variable.dtype.kind
    if kind in "OUST":
        return {}
    if kind in "cV":
        raise ProductError(
            f"A variable of type {variable.dtype} cannot be stored as NetCDF or Zarr. "
            "Let the chain return real and imaginary part as two variables."
        )
    encoding: dict[str, Any] = {"_FillValue": None}
    if kind == "M":
        encoding.update(units=TIME_UNITS, calendar=CALENDAR, dtype="float64")
    if fill and kind in "fM":
        encoding["_FillValue"] = np.nan if kind == "M" else variable.dtype.type(np.nan)
    return encoding


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """The NetCDF library's own errors as OSError, with the disk's reason (full, quota, read-only) where it has one."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("NetCDF:"):
            raise
        _probe(folder)
        raise OSError(errno.EIO, f"The NetCDF library could not read or write ({error})", str(folder)) from error


def let_go(path: Path) -> None:
    """Point what the HDF5 library still holds open of a file it cannot finish at the null device.

    On a full disk HDF5 can neither flush nor close the file, and would hold its space until the process ends. Closing
    the descriptor behind its back would let a later file get the same number, and HDF5 write into that one.
    """
    held = Path("/proc/self/fd")
    if not held.is_dir():
        return
    for entry in held.iterdir():
        try:
            if os.readlink(entry) != str(path.resolve()):
                continue
        except FileNotFoundError:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, int(entry.name))
        os.close(null)


def _probe(folder: Path) -> None:
    """Raise the OSError that a small file would meet in this folder; the library hides the disk's own reason."""
    probe = folder / ".probe"
    try:
        with open(probe, "wb") as file:
            file.write(b"\0" * 2**20)
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def write_netcdf(data: xr.Dataset, path: Path, *, chain: Mapping, order: Order, facts: Mapping) -> None:
    """Write a cube as NetCDF-4, block by block."""
    data, encoding = prepared(data, chain, order, facts)
    for name, variable in data.variables.items():
        if variable.dtype.kind in "OUST":
            # Characters, as CF 2.2 has them: HDF5 2 crashes where text of any length is opened again while other handles of
            # the file end (H5T__vlen_disk_isnull).
            encoding[name] = {"dtype": "S1"}
        elif encoding[name] and variable.ndim:
            encoding[name].update(zlib=True, complevel=4, shuffle=True, chunksizes=stored_chunks(variable.shape))
    with disk_errors(path.parent):
        try:
            data.to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=encoding)
        except BaseException:
            let_go(path)
            raise


def write_zarr(data: xr.Dataset, path: Path, *, chain: Mapping, order: Order, facts: Mapping) -> None:
    """Write a cube as a Zarr v3 store, block by block."""
    data, encoding = prepared(data, chain, order, facts)
    for name, variable in data.variables.items():
        if encoding[name] and variable.ndim:
            encoding[name]["chunks"] = stored_chunks(variable.shape)
    data.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)


def open_cube(path: Path, lazy: bool = True) -> xr.Dataset:
    """A NetCDF file or Zarr store as written here; `lazy` gives dask arrays, else values are read when indexed."""
    options: dict[str, Any] = {"chunks": {} if lazy else None, "decode_timedelta": None}
    if path.is_dir():
        return with_labels(xr.open_dataset(path, engine="zarr", consolidated=False, **options))
    return with_labels(xr.open_dataset(path, engine="netcdf4", cache=False, **options))
