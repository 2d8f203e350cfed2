"""`write`: a result becomes a product folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phidias_lab.contract.data import KINDS
from phidias_lab.contract.order import Order
from phidias_lab.errors import ProductError, UnknownNameError, kind_of, nearest
from phidias_lab.products import cf, checksum, provenance, stac
from phidias_lab.products.product import ITEM, ORDER, PROVENANCE, Product

#: Formats of each kind of result; the first is the default.
_FORMATS = {
    "cube": ("netcdf", "zarr", "geotiff"),
    "table": ("parquet", "csv"),
    "features": ("geoparquet",),
    "events": ("geoparquet",),
    "model": ("directory",),
}
#: How the data file of each format ends.
SUFFIXES = {
    "netcdf": ".nc",
    "zarr": ".zarr",
    "geotiff": ".tif",
    "parquet": ".parquet",
    "csv": ".csv",
    "geoparquet": ".parquet",
}


def formats(kind: str) -> list[str]:
    """The formats a result of this kind can be written in; the first is the default."""
    if kind not in _FORMATS:
        raise UnknownNameError(f"There is no kind of result {kind!r}. {nearest(kind, KINDS)}")
    return list(_FORMATS[kind])


def chosen_format(kind: str, asked: str | None) -> str:
    """The format by name, or the default of the kind; an unknown one is refused with the known ones."""
    known = formats(kind)
    if asked is None:
        return known[0]
    if asked not in known:
        raise UnknownNameError(f"A {kind} cannot be written as {asked!r}. {nearest(asked, known)}")
    return asked


def write(
    result: Any,
    folder: str | Path,
    *,
    chain: Mapping[str, Any],
    order: Order,
    facts: Mapping[str, Any],
    format: str | None = None,
) -> Product:
    """Write a result with its words into a folder.

    `chain` is `Chain.describe()`; `facts` says what happened: "run", "started", "ended" (ISO 8601), "versions", "host",
    "inputs" (identity of each input with its checksum), "lock", "git", and where known "institution" and "license".
    Data are written lazily, block by block, and read back for their checksums. A full disk is an OSError.
    """
    folder = Path(folder)
    kind = chain["kind"]
    name = chosen_format(kind, format or order.output.get("format"))
    if (folder / ITEM).exists():
        raise ProductError(f"{folder} already holds a product. Choose another folder, or remove this one first.")
    folder.mkdir(parents=True, exist_ok=True)
    words = {"chain": chain, "order": order, "facts": facts}

    if kind == "cube":
        data, more, left_out = _write_cube(result, folder, name, words)
    elif kind == "model":
        data, more, left_out = _write_model(result, folder, words)
    else:
        data, more, left_out = _write_table(result, folder, name, words)
    if left_out:
        more["phidias:left_out"] = left_out

    (folder / ORDER).write_text(order.dumps(), encoding="utf-8")
    history = provenance.document(chain, order, facts, more["phidias:checksums"], result)
    (folder / PROVENANCE).write_text(_json(history), encoding="utf-8")
    box, times = more.pop("box"), more.pop("times")
    item = stac.item(
        **words,
        data=data,
        documents={"order": folder / ORDER, "provenance": folder / PROVENANCE},
        box=box,
        times=times,
        more=more,
        result=result,
    )
    (folder / ITEM).write_text(_json(item), encoding="utf-8")
    return Product(folder)


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_cube(result: Any, folder: Path, name: str, words: dict) -> tuple[dict, dict, list]:
    import xarray as xr

    if isinstance(result, xr.DataArray):
        result = result.to_dataset(name=result.name or "data")
    if not isinstance(result, xr.Dataset):
        raise ProductError(f"A cube is written from an xarray Dataset; got {kind_of(result)}.")
    stem = words["chain"]["id"]
    left_out: list[str] = []
    if name == "geotiff":
        from phidias_lab.products import raster

        data, left_out = raster.write_geotiffs(result, folder, **words)
        back = raster.open_rasters(list(data.values()))
    else:
        path = folder / (f"{stem}.nc" if name == "netcdf" else f"{stem}.zarr")
        writer = cf.write_netcdf if name == "netcdf" else cf.write_zarr
        writer(result, path, **words)
        data = {"data": path}
        back = cf.open_cube(path, lazy=False)
    try:
        box, times = stac.cube_place_and_time(back)
        more = {
            "cube:dimensions": stac.dimensions(back),
            "cube:variables": stac.variables(back),
            "phidias:checksums": checksum.of_dataset(back),
            "box": box,
            "times": times,
        }
    finally:
        back.close()
    return data, more, left_out


def _write_table(result: Any, folder: Path, name: str, words: dict) -> tuple[dict, dict, list]:
    from phidias_lab.products import tables

    stem = words["chain"]["id"]
    if name == "csv":
        path = folder / f"{stem}.csv"
        columns = tables.write_csv(result, path)
    else:
        path = folder / f"{stem}.parquet"
        columns = tables.write_parquet(result, path, geo=name == "geoparquet", **words)
    box, times = tables.place_and_time(path, columns)
    more = {
        "table:columns": columns,
        "phidias:checksums": tables.checksums(path, columns),
        "box": box,
        "times": times,
    }
    return {"data": path}, more, []


def _write_model(result: Any, folder: Path, words: dict) -> tuple[dict, dict, list]:
    origin = Path(result)
    if not origin.is_dir():
        raise ProductError(f"A model is a directory of files; {origin} is none.")
    target = folder / words["chain"]["id"]
    shutil.copytree(origin, target)
    sums = checksum.of_tree(target)
    if sums != checksum.of_tree(origin):
        raise ProductError(
            f"The model in {origin} changed while it was copied. Wait until it is complete, then run again."
        )
    return {"data": target}, {"phidias:checksums": sums, "box": None, "times": None}, []
