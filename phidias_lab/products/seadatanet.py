"""A gridded product as one NetCDF file in SeaDataNet's manner, as DIVAnd.jl writes it and as its readers know it.

Dimensions lon, lat, depth and time; the variable under its own name, `<name>_L1` and `<name>_L2` with what is uncertain
masked, `<name>_relerr`; times in days since 1900-01-01 with their (climatology) bounds; float32, deflated, with checksums of
HDF5. Beside these stand what the lab knows more: the error in the units of the variable, what the analysis starts from,
counts, and the observations that were used (obslon, obslat, obsdepth, obstime, obsid).

Served is every product that has the outputs of `ocean.gridding` by name. Whatever its attributes say is said again; nothing
in the file depends on when or where it is written, so the same product gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.errors import InputError, ParameterError, ProductError
from phidias_lab.methods.formats import vocabulary
from phidias_lab.methods.formats.netcdf import characters
from phidias_lab.methods.formats.observations import time_to_days
from phidias_lab.products import cf, checksum
from phidias_lab.products.product import Product

#: Masks of the field: where the error variance, relative to that of the background, is above (DIVAnd.jl, `save`).
MASKS = {"L1": 0.3, "L2": 0.5}
ORIGIN = np.datetime64("1900-01-01", "us")
TIME_UNITS = "days since 1900-01-01 00:00:00"
FILL = np.float32(9.969209968386869e36)  # NC_FILL_FLOAT of the NetCDF library
#: Longest side of a stored chunk, and values that are held at once.
CHUNK, HELD = 100, 2**20
_STORED = {"zlib": True, "complevel": 5, "shuffle": True, "fletcher32": True}
#: What names an observation: the columns of a table, the best first.
IDENTITIES = ("edmo_code", "local_cdi_id", "cast", "platform")
DIMS = ("time", "depth", "latitude", "longitude")
_SHORT = {"time": "time", "depth": "depth", "latitude": "lat", "longitude": "lon"}
_GRID = tuple(_SHORT[d] for d in DIMS)
_CODES = {"longitude": ("ALONZZ01", "DEGE"), "latitude": ("ALATZZ01", "DEGN"), "depth": ("ADEPZZ01", "ULAA")}
_PLACES = ("longitude", "latitude", "depth")
#: Attributes that the HDF5 library writes itself.
_HDF5 = ("NAME", "CLASS", "REFERENCE_LIST", "DIMENSION_LIST")
_TAKEN = {*_GRID, *(f"obs{short}" for short in _GRID), "obsid", "nv", "observations", "idlen", "time_bounds",
          "climatology_bounds", "number_of_observations", "number_of_observations_in_cell"}  # fmt: skip
#: What a product has of one value per node, and of one per level and window, and how it is called after the variable's name.
_NODES = {
    "analysis_error": "_error",
    "analysis_lower": "_lower",
    "analysis_upper": "_upper",
    "background_field": "_background",
}
_LEVELS = {"background": "_background", "background_deviation": "_background_deviation"}


def suits(outputs: Container[str]) -> bool:
    """Whether a chain with these outputs makes what can be written so."""
    return all(name in outputs for name in ("analysis", "observations_used"))


def check(product: Product, attributes: Mapping[str, str] | None = None) -> None:
    """Refuse a product that has no gridded field with its error, and attributes that cannot be added."""
    _check_names(attributes or {})
    data = product.open()
    if not isinstance(data, xr.Dataset) or not suits(data.data_vars) or data["analysis"].dims != DIMS:
        raise InputError(
            f"{product.path} is no gridded field: SeaDataNet's layout needs the outputs analysis and observations_used "
            "over time, depth, latitude and longitude. Give a run of ocean.gridding that was written as netcdf or zarr."
        )
    if "analysis_error" not in data:
        raise InputError(
            f"{product.path} has no error field, so the masks of SeaDataNet's layout cannot be made. Run its order again "
            "with error 'exact'."
        )


class Uses:
    """The observations that a product used (see `Chain.observed`), beside its grid; refused where they are not those."""

    def __init__(self, data: xr.Dataset, rows: Any):
        if rows is None:
            raise InputError("Its chain does not say which observations it used.")
        self.rows = rows
        steps = [_nearest(_days(data["time"].values), _days(rows["in_time"].to_numpy()))]
        steps += [_nearest(data["depth"].values, rows["in_depth"].to_numpy(float))]
        self.slices = np.ravel_multi_index(steps, (data.sizes["time"], data.sizes["depth"]))
        number = data.sizes["time"] * data.sizes["depth"]
        counted = np.bincount(self.slices, minlength=number).reshape(data["observations_used"].shape)
        if not np.array_equal(counted, data["observations_used"].values):
            raise InputError(
                f"The inputs now give {len(rows)} uses of observations and the product was made from "
                f"{int(data['observations_used'].sum())}. Run the order again."
            )
        column = _nearest(data["longitude"].values, rows["longitude"].to_numpy(float), period=360.0)
        row = _nearest(data["latitude"].values, rows["latitude"].to_numpy(float))
        self.nodes = row * data.sizes["longitude"] + column
        order = np.argsort(self.slices, kind="stable")
        self.slices, self.nodes = self.slices[order], self.nodes[order]

    def in_cells(self, slice_: int, shape: tuple[int, int]) -> np.ndarray:
        """How many were used in the cell around each node, half-way to the neighbouring ones."""
        first, last = np.searchsorted(self.slices, (slice_, slice_ + 1))
        return np.bincount(self.nodes[first:last], minlength=shape[0] * shape[1]).reshape(shape).astype(np.int32)

    def once(self, name: str) -> Any:
        """Each observation once, in an order that does not depend on how the table was stored."""
        rows = self.rows.drop_duplicates("observation")
        keys = ["time", "depth", "latitude", "longitude", *([name] if name in rows else [])]
        return rows.sort_values(keys, kind="stable")


def _days(times: Any) -> np.ndarray:
    return time_to_days(np.asarray(times, "datetime64[us]"), ORIGIN)


def _nearest(values: Any, places: np.ndarray, period: float = 0.0) -> np.ndarray:
    """The index of the value that is nearest to each place; the values may go once around a period."""
    order = np.argsort(values, kind="stable")
    values = np.asarray(values, float)[order]
    middle = (values[1:] + values[:-1]) / 2
    # Around the globe what lies beyond the cell of the last node is in that of the first.
    if period and values.size > 2 and np.isclose(2 * values[-1] - values[-2] - values[0], period):
        middle = np.r_[middle, values[-1] + (values[-1] - values[-2]) / 2]
    return order[np.searchsorted(middle, places, side="right") % values.size]


def write(product: Product, path: Path, uses: Uses | None = None, attributes: Mapping[str, str] | None = None) -> None:
    """Write a product that `check` lets pass, all of it or nothing."""
    import netCDF4

    with product.reading():
        data = product.open()
        words = {**global_attributes(product, data, uses), **(attributes or {})}
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with cf.disk_errors(path.parent):
            try:
                with netCDF4.Dataset(str(beside), "w", format="NETCDF4") as file:
                    _fill(file, product, data, uses, words)
            except BaseException:
                cf.let_go(beside)
                raise
            os.replace(beside, path)
    except ProductError:
        raise
    except OSError as error:
        raise ProductError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from None
    finally:
        beside.unlink(missing_ok=True)


def _check_names(attributes: Mapping[str, str]) -> None:
    for name, text in attributes.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name) or name in _HDF5:
            raise ParameterError(
                f"The attribute {name!r:.120} cannot stand in a NetCDF file: a name has at most 100 letters, digits and "
                f"underscores, begins with a letter and is none of {', '.join(_HDF5)}. Give it another name."
            )
        if not isinstance(text, str) or "\0" in text or not _encodable(text):
            raise ParameterError(f"The attribute {name!r} was given {text!r:.120}; it must be a text in UTF-8.")
        if name in ("Conventions", "product_id", "phidias_order"):
            raise ParameterError(f"The attribute {name!r} follows from the product itself. Leave it out.")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# The whole ------------------------------------------------------------------------------------------------------------


def name_of(product: Product) -> str:
    """What the field is called in the file: the variable that was gridded."""
    asked = str(product.order.parameters.get("variable") or "analysis")
    plain = asked if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", asked) else vocabulary.slug(asked)
    return f"{plain}_" if plain in _TAKEN else plain


def identity(product: Product, data: xr.Dataset) -> str:
    """A UUID (RFC 9562, version 5) of the values and of what was asked for, wherever the product lies."""
    order = product.order
    sums = product.checksums if product.folder is not None else checksum.of_dataset(data)
    content = {"chain": order.chain, "version": order.version, "parameters": order.parameters, "values": sums}
    return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True, default=str)))


def global_attributes(product: Product, data: xr.Dataset, uses: Uses | None) -> dict[str, Any]:
    """Those of the product, and what SeaDataNet's catalogues ask for beside them."""
    found = {k: v for k, v in data.attrs.items() if isinstance(v, str | int | float | np.number)}
    _, words = _field(product, data)
    sizes = [f"{data.sizes[d]}" for d in ("longitude", "latitude", "depth", "time")]
    about = (
        f"Gridded {words['long_name']} with the error of the analysis: {sizes[0]} by {sizes[1]} nodes, {sizes[2]} levels, "
        f"{sizes[3]} windows of time."
    )
    if uses is not None:
        about += f" Made from {uses.rows['observation'].nunique()} observations, which are listed in the file."
        codes = Counter(
            _texts(uses.rows.drop_duplicates("observation").get("edmo_code", default=pd.Series(dtype=object)))
        )
        known = sorted((str(code), number) for code, number in codes.items() if re.fullmatch(r"\d+", str(code)))
        found["edmo_codes"] = ", ".join(f"SDN:EDMO::{code} ({number} observations)" for code, number in known)
    history = ["written in the layout of SeaDataNet's gridded products", found.get("history")]
    found.update(
        Conventions=cf.CONVENTIONS,
        cdm_data_type="Grid",
        summary=" ".join([about, *str(found.get("summary") or "").split()]),
        product_id=identity(product, data),
        date=found.get("date_created"),
        phidias_run=found.get("id"),
        history="\n".join(filter(None, history)),
    )
    found["id"] = found["product_id"]
    return {k: v for k, v in sorted(found.items()) if v is not None and str(v) != ""}


# The variables --------------------------------------------------------------------------------------------------------


def _field(product: Product, data: xr.Dataset) -> tuple[str, dict[str, Any]]:
    """The name of the field and its attributes, with the codes of the vocabularies that are known for it."""
    words = _said(data["analysis"])
    known = vocabulary.BY_NAME.get(str(product.order.parameters.get("variable")))
    if known is not None and (known.units, known.standard_name) == (words.get("units"), words.get("standard_name")):
        words["long_name"] = known.long_name
        if known.codes:
            words["sdn_parameter_urn"] = f"SDN:P01::{known.codes[0]}"
    words.setdefault("long_name", "analysis")
    return name_of(product), words


def _said(variable: xr.DataArray) -> dict[str, Any]:
    """The attributes of a product's variable, the code of its units, and of a temperature its kind (CF 3.1.2)."""
    words, more = dict(variable.attrs), {}
    if code := vocabulary.UNITS_P06.get(words.get("units")):
        more["sdn_uom_urn"] = f"SDN:P06::{code}"
    if words.get("units") == "degree_Celsius":
        difference = variable.name in ("analysis_error", "background_deviation")
        more["units_metadata"] = f"temperature: {'difference' if difference else 'on_scale'}"
    return {**words, **more}


def _fill(file: Any, product: Product, data: xr.Dataset, uses: Uses | None, words: Mapping[str, Any]) -> None:
    name, field = _field(product, data)
    file.setncatts(words)
    for dim in DIMS:
        file.createDimension(_SHORT[dim], data.sizes[dim])
    file.createDimension("nv", 2)
    _coordinates(file, data)
    _per_level(file, data, name)
    ancillary = [f"{name}_relerr", f"{name}_error", "number_of_observations"]
    field = {**field, "ancillary_variables": " ".join(ancillary)}
    made = {name: _node(file, name, field)}
    for mask, limit in MASKS.items():
        said = f"{field['long_name']}, masked where the relative error variance is above {limit:g}"
        made[f"{name}_{mask}"] = _node(file, f"{name}_{mask}", {**field, "long_name": said})
    said = {"long_name": f"error variance of {name}, relative to that of the background", "units": "1",
            "valid_min": np.float32(0), "coverage_content_type": "qualityInformation"}  # fmt: skip
    made[f"{name}_relerr"] = _node(file, f"{name}_relerr", said)
    for output, ending in _NODES.items():
        if output in data:
            made[f"{name}{ending}"] = _node(file, f"{name}{ending}", _said(data[output]))
    cells = None
    if uses is not None:
        said = {"long_name": "number of observations used in the cell of each node", "units": "1",
                "standard_name": "number_of_observations", "coverage_content_type": "auxiliaryInformation"}  # fmt: skip
        cells = _node(file, "number_of_observations_in_cell", said, np.int32)
        _observations(file, uses.once(str(product.order.parameters.get("variable"))))
    for at, values in _blocks(product, data, name):
        for key, array in values.items():
            made[key][at] = np.where(np.isfinite(array), array, FILL).astype(np.float32)
    if cells is not None:
        shape = (data.sizes["latitude"], data.sizes["longitude"])
        for slice_, at in enumerate(np.ndindex(data["observations_used"].shape)):
            cells[at] = uses.in_cells(slice_, shape)


def _blocks(product: Product, data: xr.Dataset, name: str) -> Iterator[tuple[tuple, dict[str, np.ndarray]]]:
    """Where, and the values of each variable there: some rows of one level of one window at a time."""
    rows = max(CHUNK, HELD // (CHUNK * data.sizes["longitude"]) * CHUNK)
    for step, level in np.ndindex(data["observations_used"].shape):
        for first in range(0, data.sizes["latitude"], rows):
            at = (step, level, slice(first, first + rows))

            def read(output: str, at: tuple = at) -> np.ndarray:
                with product.reading():
                    return np.asarray(data[output].variable[at].values, float)

            values = {f"{name}{ending}": read(output) for output, ending in _NODES.items() if output in data}
            values[name] = read("analysis")
            if "relative_error" in data:
                relative = read("relative_error")
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    relative = (values[f"{name}_error"] / float(data["background_deviation"][step, level])) ** 2
            # As it is stored, so that who compares it with a limit finds the same cells masked.
            values[f"{name}_relerr"] = relative = relative.astype(np.float32)
            for mask, limit in MASKS.items():
                values[f"{name}_{mask}"] = np.where(relative <= np.float32(limit), values[name], np.nan)
            yield at, values


def _node(file: Any, name: str, words: Mapping[str, Any], dtype: Any = np.float32) -> Any:
    """A variable with one value per node."""
    sizes = [len(file.dimensions[d]) for d in _GRID]
    chunks = [1, 1, *(max(1, min(CHUNK, n)) for n in sizes[2:])]
    made = file.createVariable(
        name, dtype, _GRID, chunksizes=chunks, fill_value=FILL if dtype == np.float32 else None, **_STORED
    )
    made.setncatts(dict(words))
    return made


def _coordinates(file: Any, data: xr.Dataset) -> None:
    for dim in DIMS:
        words = {k: v for k, v in data[dim].attrs.items() if k not in ("units", "calendar") or dim != "time"}
        values, given = data[dim].values, dict(words)
        if dim == "time":
            kind, bounds = _bounds(data)
            values = _days(values)
            given |= {"long_name": "time", "units": TIME_UNITS, "calendar": cf.CALENDAR, kind: bounds}
            file.createVariable(bounds, np.float64, ("time", "nv"), fill_value=False)[:] = _days(data[bounds].values)
        else:
            code, units = _CODES[dim]
            given |= {"sdn_parameter_urn": f"SDN:P01::{code}", "sdn_uom_urn": f"SDN:P06::{units}"}
            given.setdefault("long_name", dim)
        made = file.createVariable(_SHORT[dim], np.float64, (_SHORT[dim],), fill_value=False)
        made.setncatts(given)
        made[:] = values


def _bounds(data: xr.Dataset) -> tuple[str, str]:
    """The attribute that names the bounds of the windows, and their name; a reader may keep it with the encoding."""
    for kind in ("climatology", "bounds"):
        name = data["time"].attrs.get(kind) or data["time"].encoding.get(kind)
        if name in data.variables:
            return kind, name
    raise InputError("The times of the product have no bounds, which SeaDataNet's layout needs. Run its order again.")


def _per_level(file: Any, data: xr.Dataset, name: str) -> None:
    for output, ending in _LEVELS.items():
        if output in data:
            made = file.createVariable(f"{name}{ending}", np.float32, _GRID[:2], fill_value=FILL)
            made.setncatts(_said(data[output]))
            made[:] = np.where(np.isfinite(data[output].values), data[output].values, FILL)
    made = file.createVariable("number_of_observations", np.int32, _GRID[:2], fill_value=False)
    made.setncatts(_said(data["observations_used"]))
    made[:] = data["observations_used"].values


def _observations(file: Any, rows: Any) -> None:
    """The observations that were used: where, when, and under which name."""
    file.createDimension("observations", len(rows))
    for place in (*_PLACES, "time"):
        words = dict(vocabulary.PLACES[place])
        if place == "time":
            words |= {"units": TIME_UNITS, "calendar": cf.CALENDAR, "units_metadata": "leap_seconds: unknown"}
        words["long_name"] = f"{place} of the observations"
        made = file.createVariable(f"obs{_SHORT[place]}", np.float64, ("observations",), fill_value=False, **_STORED)
        made.setncatts(words)
        made[:] = _days(rows["time"].to_numpy()) if place == "time" else rows[place].to_numpy(float)
    names = _names(rows)
    if names is not None:
        letters = characters(names)
        file.createDimension("idlen", letters.shape[1])
        made = file.createVariable("obsid", "S1", ("observations", "idlen"), **_STORED)
        made.setncatts({"long_name": "EDMO code and LOCAL_CDI_ID of the observations, or else their cast or platform"})
        made[:] = letters


def _names(rows: Any) -> np.ndarray | None:
    """The name of each observation: EDMO code, hyphen, LOCAL_CDI_ID as in SeaDataNet, else its cast, else its platform."""
    texts = {c: _texts(rows[c]) for c in IDENTITIES if c in rows}
    none = np.full(len(rows), "", object)
    code, local, cast, platform = (texts.get(c, none) for c in IDENTITIES)
    found = np.where(cast != "", cast, platform)
    full = (code != "") & (local != "")
    found = np.where(full, code + "-" + local, found)
    return found if (found != "").any() else None


def _texts(column: pd.Series) -> np.ndarray:
    """What names something, as text; whole numbers have no decimals, which a missing one among them gives a column."""
    values = column.to_numpy(object, na_value=None) if len(column) else np.empty(0, object)
    missing = column.isna().to_numpy()
    whole = [isinstance(value, float) and value.is_integer() for value in values]
    texts = ["" if m else str(int(v) if w else v) for v, m, w in zip(values, missing, whole, strict=True)]
    return np.array(texts, object)
