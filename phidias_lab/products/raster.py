"""Cubes as cloud-optimised GeoTIFF: one file per variable, one band per step of the other dimensions, north up.

GeoTIFF knows no dimensions, names or times; they are kept in a tag, so that the file opens again as the same cube, with
the same checksums as its NetCDF form. Variables without latitude and longitude cannot be drawn as bands; they are left
out, and the product's item names them (`phidias:left_out`).
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from phidias_lab.contract.order import Order
from phidias_lab.errors import MissingExtraError, ProductError
from phidias_lab.products import cf, checksum

TAG, ORDER_TAG = "phidias_cube", "phidias_order"
PLANE = ("latitude", "longitude")
#: Global attributes that each file carries as tags.
_WORDS = ("title", "source", "history", "references", "license", "comment", "synthetic", "synthetic_inputs")
#: A step may differ from the mean step by this part of it: coordinates in float32 are not exact.
EVEN = 1e-3
_BANDS_AT_MOST = 65_535


def _rasterio(doing: str) -> Any:
    try:
        import rasterio
    except ImportError:
        raise MissingExtraError(f"{doing} GeoTIFF", "land") from None
    return rasterio


def _step(name: str, values: np.ndarray) -> float:
    """The even step of a coordinate, negative where it descends."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size < 2:
        raise ProductError(f"GeoTIFF needs two values of {name!r} or more; this cube has {values.size}. Choose netcdf.")
    steps = np.diff(values)
    mean = (values[-1] - values[0]) / (values.size - 1)
    if mean == 0 or np.abs(steps - mean).max() > EVEN * abs(mean):
        raise ProductError(
            f"GeoTIFF needs evenly spaced values of {name!r}; the steps of this cube go from {steps.min():g} to "
            f"{steps.max():g}. Choose the format 'netcdf' or 'zarr'."
        )
    return float(mean)


def _coordinate(array: xr.DataArray) -> dict[str, Any]:
    """A coordinate in JSON; floats survive because JSON is written with the digits that read back to the same value."""
    kind = array.dtype.kind
    values = [cf.iso(v) for v in array.values] if kind == "M" else array.values.tolist()
    return {
        "dtype": "datetime64" if kind == "M" else str(array.dtype) if kind in "iufb" else "str",
        "values": values,
        "attrs": {k: v if isinstance(v, str | int | float) else str(v) for k, v in array.attrs.items()},
    }


def write_geotiffs(
    data: xr.Dataset, folder: Path, *, chain: Mapping, order: Order, facts: Mapping
) -> tuple[dict[str, Path], list[str]]:
    """Write each variable with latitude and longitude; returns the files by variable, and the names left out."""
    _rasterio("Writing")
    bounds = cf.bounds_names(data)
    drawn = [n for n, a in data.data_vars.items() if set(PLANE) <= set(a.dims) and n not in bounds]
    left_out = sorted(str(n) for n in data.data_vars if n not in drawn)
    if not drawn:
        raise ProductError(
            f"GeoTIFF needs a variable with the dimensions latitude and longitude; {chain['id']} returned none. "
            "Choose the format 'netcdf' or 'zarr'."
        )
    for name in PLANE:
        _step(name, data[name].values)
    # All variables are computed together into a store first: they share most of their work, and drawing them one after
    # the other from the lazy result would do that work once per variable and band.
    between = folder / ".between.zarr"
    try:
        cf.write_zarr(data[drawn], between, chain=chain, order=order, facts=facts)
        computed = cf.open_cube(between, lazy=False)
        words = {k: str(computed.attrs[k]) for k in _WORDS if k in computed.attrs}
        files = {}
        for name in drawn:
            path = folder / f"{chain['id']}.{name}.tif"
            _write_one(computed[name], path, words, order)
            files[str(name)] = path
        computed.close()
    finally:
        shutil.rmtree(between, ignore_errors=True)
    return files, left_out


def _write_one(array: xr.DataArray, path: Path, words: Mapping[str, str], order: Order) -> None:
    rasterio = _rasterio("Writing")
    from rasterio.shutil import copy
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    dims = array.dims
    outer = [d for d in dims if d not in PLANE]
    array = array.transpose(*outer, *PLANE)
    steps = list(itertools.product(*(range(array.sizes[d]) for d in outer)))
    if len(steps) > _BANDS_AT_MOST:
        raise ProductError(
            f"{array.name!r} would need {len(steps)} bands; a GeoTIFF holds at most {_BANDS_AT_MOST}. Choose netcdf."
        )
    kept = "uint8" if array.dtype.kind == "b" else array.dtype.name
    if kept not in rasterio.dtypes.dtype_rev or array.dtype.kind not in "biuf":
        raise ProductError(f"GeoTIFF does not hold values of type {array.dtype} ({array.name!r}). Choose netcdf.")
    dy, dx = (_step(d, array[d].values) for d in PLANE)
    west, north = float(array["longitude"].min()), float(array["latitude"].max())
    height, width = array.sizes["latitude"], array.sizes["longitude"]
    profile = {
        "driver": "GTiff",
        "count": len(steps),
        "height": height,
        "width": width,
        "dtype": kept,
        "crs": "EPSG:4326",
        "transform": from_origin(west - abs(dx) / 2, north + abs(dy) / 2, abs(dx), abs(dy)),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }
    if array.dtype.kind == "f":
        profile["nodata"] = float("nan")
    about = {
        "name": str(array.name),
        "dims": [str(d) for d in dims],
        "dtype": str(array.dtype),
        "coords": {str(d): _coordinate(array[d]) for d in dims if d in array.coords},
        "sizes": {str(d): array.sizes[d] for d in dims},
        "attrs": {k: v if isinstance(v, str | int | float) else str(v) for k, v in array.attrs.items()},
    }
    between = path.with_name(f".{path.name}.part.tif")
    up, right = dy > 0, dx > 0
    try:
        with rasterio.open(between, "w", **profile) as file:
            file.update_tags(**{**words, TAG: json.dumps(about), ORDER_TAG: order.dumps()})
            for band, step in enumerate(steps, start=1):
                for index in checksum.slabs((height, width), array.dtype.itemsize):
                    rows = index[0] if index else slice(0, height)
                    rows = range(height)[rows]
                    values = np.asarray(array.variable[(*step, slice(rows.start, rows.stop))]).astype(kept, copy=False)
                    values = values[::-1] if up else values
                    values = values if right else values[:, ::-1]
                    top = height - rows.stop if up else rows.start
                    file.write(values, band, window=Window(0, top, width, len(rows)))
                file.set_band_description(band, _describe(array, outer, step))
                if array.attrs.get("units"):
                    file.set_band_unit(band, str(array.attrs["units"]))
        copy(between, path, driver="COG", COMPRESS="DEFLATE", OVERVIEW_RESAMPLING="NEAREST")
    finally:
        between.unlink(missing_ok=True)
        between.with_name(between.name + ".aux.xml").unlink(missing_ok=True)


def _describe(array: xr.DataArray, outer: list, step: tuple[int, ...]) -> str:
    """What a band shows: 'analysis time=2010-01-16T00:00:00Z depth=10 m'."""
    words = [str(array.name)]
    for dim, index in zip(outer, step, strict=True):
        if dim not in array.coords:
            words.append(f"{dim}={index}")
            continue
        value = array[dim].values[index]
        shown = cf.iso(value) if array[dim].dtype.kind == "M" else str(value)
        units = array[dim].attrs.get("units", "")
        words.append(f"{dim}={shown}{f' {units}' if units else ''}")
    return " ".join(words)


def _tags(path: Path) -> dict[str, str]:
    with _rasterio("Reading").open(path) as file:
        return file.tags()


def order_inside(path: Path) -> str | None:
    """The order in a GeoTIFF's tags."""
    return _tags(path).get(ORDER_TAG)


def _read_band(path: Path, band: int, up: bool, right: bool, dtype: str) -> np.ndarray:
    with _rasterio("Reading").open(path) as file:
        values = file.read(band)
    return (values[::-1] if up else values)[:, :: 1 if right else -1].astype(dtype, copy=False)


def _open_one(path: Path) -> xr.DataArray:
    import dask
    import dask.array as da

    tag = _tags(path).get(TAG)
    if not tag:
        raise ProductError(f"{path} was not written by phidias_lab: its dimensions are unknown. Open it with rasterio.")
    about = json.loads(tag)
    coords = {}
    for name, c in about["coords"].items():
        values = [t.removesuffix("Z") for t in c["values"]] if c["dtype"] == "datetime64" else c["values"]
        coords[name] = (name, np.array(values, dtype="datetime64[us]" if c["dtype"] == "datetime64" else c["dtype"]))
        coords[name] = (*coords[name], c["attrs"])
    outer = [d for d in about["dims"] if d not in PLANE]
    sizes, dtype = about["sizes"], np.dtype(about["dtype"])
    plane = tuple(sizes[d] for d in PLANE)
    up = coords["latitude"][1][0] < coords["latitude"][1][-1]
    right = coords["longitude"][1][0] < coords["longitude"][1][-1]
    read = dask.delayed(_read_band)
    count = int(np.prod([sizes[d] for d in outer], dtype=int))
    bands = [da.from_delayed(read(path, b + 1, up, right, str(dtype)), plane, dtype) for b in range(count)]
    values = da.stack(bands).reshape((*(sizes[d] for d in outer), *plane))
    array = xr.DataArray(values, dims=[*outer, *PLANE], coords=coords, name=about["name"], attrs=about["attrs"])
    return array.transpose(*about["dims"])


def open_rasters(paths: list[Path]) -> xr.Dataset:
    """The cube that was written, from all or some of its files; bands are read when they are used."""
    arrays = {a.name: a for a in map(_open_one, paths)}
    return xr.Dataset(arrays)
