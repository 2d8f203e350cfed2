"""A NetCDF file as plain arrays, and what the profile formats in NetCDF share: texts, and a table beside the format's own.

Argo's and SeaDataNet's files hold profiles, series or voyages of unequal length in rectangles that are filled up. A writer
puts each run of observations of one cast into one row of such a rectangle. What the format has no variable for stands in
further variables, which other programs pass over; the global attribute `phidias_columns` says what is called how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phidias_lab.methods.formats.observations import Faults, NotReadable, Observations

TABLE, ROW_SIZE, ALONG = "phidias_columns", "PHIDIAS_ROW_SIZE", "row_dimension"
#: A rectangle of more cells than this, and more than fifty for each observation, is not written.
MOST_CELLS = 20_000_000


@dataclass
class Variable:
    """One variable: its values as they are stored, with no fill value replaced and nothing scaled."""

    dims: tuple[str, ...]
    data: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)  # compression and chunks, of NetCDF-4


@dataclass
class File:
    """A NetCDF file without groups."""

    dimensions: dict[str, int] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    unlimited: tuple[str, ...] = ()
    model: str = "NETCDF4_CLASSIC"

    def differs(self, other: File) -> str | None:
        """The first thing in which two files differ, or None: dimensions, attributes, and every value to the bit."""
        if (self.model, self.unlimited) != (other.model, other.unlimited):
            return "model or unlimited dimensions"
        if list(self.dimensions.items()) != list(other.dimensions.items()):
            return "dimensions"
        if list(self.variables) != list(other.variables):
            return "the variables or their order"
        if not same_attributes(self.attributes, other.attributes):
            return "global attributes"
        for name, one in self.variables.items():
            two = other.variables[name]
            if one.dims != two.dims or one.data.dtype != two.data.dtype or one.data.shape != two.data.shape:
                return f"form of {name}"
            if not same_attributes(one.attributes, two.attributes):
                return f"attributes of {name}"
            same = (
                one.data.tobytes() == two.data.tobytes() if one.data.dtype != object else (one.data == two.data).all()
            )
            if not same:
                return f"values of {name}"
        return None


def same_attributes(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    if set(one) != set(two):
        return False
    return all(
        np.asarray(one[k]).dtype == np.asarray(two[k]).dtype and np.array_equal(np.asarray(one[k]), np.asarray(two[k]))
        for k in one
    )


def texts(variable: Variable) -> np.ndarray:
    """The texts of a character variable, without the blanks at their ends; as Latin-1 where they are no UTF-8."""
    data = variable.data
    if data.dtype == object:
        return np.array([str(v).strip() for v in data.ravel()], dtype=object).reshape(data.shape)
    if data.dtype != np.dtype("S1"):
        raise NotReadable("a variable that should hold texts holds numbers.")
    shape, width = data.shape[:-1], data.shape[-1] if data.ndim else 1
    joined = np.ascontiguousarray(data).view(f"S{max(width, 1)}").ravel() if width and data.size else np.array([], "S1")
    if not width:
        return np.full(shape, "", dtype=object)
    found = np.empty(len(joined), dtype=object)
    for i, raw in enumerate(joined):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        found[i] = text.replace("\0", "").strip()
    return found.reshape(shape)


def characters(values: Sequence[str], width: int | None = None) -> np.ndarray:
    """Texts as an array of characters, filled up with blanks."""
    coded = [str(v).encode() for v in values]
    width = max([1, *map(len, coded)]) if width is None else width
    return np.array([c[:width].ljust(width) for c in coded], f"S{width}").view("S1").reshape(len(coded), width)


def letters(variable: Variable) -> np.ndarray:
    """Single characters as texts; '' for blank or zero."""
    raw = variable.data
    if raw.dtype != np.dtype("S1"):
        raise NotReadable("a variable that should hold one character each holds something else.")
    kinds, inverse = np.unique(raw, return_inverse=True)
    known = np.array([k.decode("latin-1").strip("\0 ") for k in kinds], dtype=object)
    return known[inverse].reshape(raw.shape)


def filled(variable: Variable) -> np.ndarray:
    """Numbers with NaN for the fill value; single precision stays so, whole numbers become double."""
    data = variable.data
    if data.dtype.kind not in "iuf":
        raise NotReadable("a variable that should hold numbers holds texts.")
    values = data.astype(data.dtype if data.dtype.kind == "f" else float)
    for name in ("_FillValue", "missing_value"):
        if name in variable.attributes:
            fill = np.asarray(variable.attributes[name])
            if fill.dtype.kind in "iuf" and fill.size == 1:
                values = np.where(data == fill.reshape(()).astype(data.dtype), values.dtype.type(np.nan), values)
    return values


# A table as rows of a rectangle ----------------------------------------------------------------------------------------


def runs(table: Observations) -> tuple[np.ndarray, np.ndarray]:
    """(first row, number of rows) of each run of observations of one cast."""
    size = len(table)
    if not size:
        return np.zeros(0, int), np.zeros(0, int)
    key = next((table.columns[n] for n in ("cast", "station", "platform") if n in table.columns), None)
    starts = np.zeros(1, int) if key is None else np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    sizes = np.diff(np.r_[starts, size])
    if len(sizes) * sizes.max() > max(MOST_CELLS, 50 * size):
        raise NotReadable(
            f"{len(sizes)} casts with up to {sizes.max()} observations do not fit into one rectangle. Write ODV or Parquet."
        )
    return starts, sizes


class Rectangle:
    """Places each observation: row = its cast, column = its number within the cast."""

    def __init__(self, table: Observations):
        self.starts, self.sizes = runs(table)
        self.cast = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.level = np.arange(len(self.cast)) - np.repeat(self.starts, self.sizes)
        self.shape = (len(self.sizes), int(self.sizes.max()) if len(self.sizes) else 0)

    def constant(self, values: np.ndarray) -> bool:
        """Whether a column has one value in each cast."""
        first = values[self.starts][self.cast]
        same = values == first
        if values.dtype.kind in "fM":
            same = same | (_none(values) & _none(first))
        return bool(np.all(same))

    def first(self, values: np.ndarray) -> np.ndarray:
        return values[self.starts]

    def spread(self, values: np.ndarray, fill: Any) -> np.ndarray:
        """The values in their places, `fill` elsewhere and for NaN."""
        kind = values.dtype
        whole = np.full(self.shape, fill, dtype=kind)
        whole[self.cast, self.level] = np.where(_none(values), kind.type(fill), values) if kind.kind == "f" else values
        return whole


def _none(values: np.ndarray) -> np.ndarray:
    return np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)


def same_columns(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two columns are equal in type and every value, the sign of zero included."""
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype == object:
        return bool(np.all(one == two))
    if one.dtype.kind == "f":
        none = np.isnan(one)
        return bool(np.array_equal(none, np.isnan(two)) and one[~none].tobytes() == two[~none].tobytes())
    return one.tobytes() == two.tobytes()


def complete(
    file: File,
    table: Observations,
    place: Rectangle,
    dims: tuple[str, str],
    read: Callable[[File, Faults], Observations],
) -> File:
    """The file with all of the table: what a reader would not get from the format's own variables is put beside them."""
    file.dimensions |= {dims[0]: place.shape[0], dims[1]: place.shape[1]}
    file.variables[ROW_SIZE] = Variable(
        (dims[0],), place.sizes.astype(np.int32), {"long_name": "number of observations of this row", ALONG: dims[1]}
    )
    back = read(file, Faults())
    beside = {}
    for name, values in table.columns.items():
        if name in back.columns and same_columns(values, back.columns[name]):
            continue
        variable = f"PHIDIAS_{name}"
        beside[name] = variable
        file.variables[variable] = _beside(file, name, values, place, dims)
    file.attributes[TABLE] = json.dumps(
        {
            "order": list(table.columns),
            "attributes": table.attributes,
            "facts": table.facts,
            "beside": beside,
            "types": {n: "text" if v.dtype == object else str(v.dtype) for n, v in table.columns.items()},
        },
        sort_keys=True,
    )
    return file


def _beside(file: File, name: str, values: np.ndarray, place: Rectangle, dims: tuple[str, str]) -> Variable:
    """A column as a variable: once for each cast where that says it all, else in the rectangle."""
    words = {"long_name": f"column {name} of the table"}
    coded = values
    if values.dtype == object:
        coded = characters(list(values))
    elif values.dtype.kind == "M":
        coded = values.astype("datetime64[us]").view(np.int32).reshape(-1, 2)
    elif values.dtype.itemsize == 8 and values.dtype.kind in "iu":
        coded = np.ascontiguousarray(values).view(np.int32).reshape(-1, 2)  # the classic model has no 64 bits
    elif values.dtype.kind == "b":
        coded = values.astype(np.int8)
    more: tuple[str, ...] = ()
    if coded.ndim == 2:
        more = (f"PHIDIAS_{coded.shape[1]}",)
        file.dimensions[more[0]] = coded.shape[1]
    if len(values) and bool(np.all(coded[place.starts][place.cast] == coded)):
        return Variable((dims[0], *more), coded[place.starts], words)
    whole = np.zeros((*place.shape, *coded.shape[1:]), coded.dtype)
    whole[place.cast, place.level] = coded
    return Variable((*dims, *more), whole, words)


def restore(table: Observations, file: File, faults: Faults) -> Observations:
    """The table as `complete` was given it, where the file was written so."""
    try:
        said = json.loads(file.attributes[TABLE])
        order, attributes, types, beside = (said[k] for k in ("order", "attributes", "types", "beside"))
        inside, sizes = row_mask(file), file.variables[ROW_SIZE]
        dims = (sizes.dims[0], str(sizes.attributes[ALONG]))
        columns = {}
        for name in order:
            if name in beside:
                columns[name] = _back(file.variables[beside[name]], inside, dims, types[name])
            else:
                columns[name] = table.columns[name]
        return Observations(columns, {n: attributes.get(n, {}) for n in order}, said["facts"])
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        faults.add(
            f"attribute {TABLE}", f"does not fit the file ({type(error).__name__}), so only the format's own is read."
        )
        return table


def _back(variable: Variable, inside: np.ndarray, dims: tuple[str, str], kind: str) -> np.ndarray:
    data = variable.data[inside] if variable.dims[:2] == dims else variable.data[np.nonzero(inside)[0]]
    if kind == "text":
        return texts(Variable(variable.dims, data))
    if kind == "bool":
        return data.astype(bool)
    if data.ndim == 2:
        return np.ascontiguousarray(data).view(kind).ravel()
    return data.astype(kind)


def row_mask(file: File) -> np.ndarray | None:
    """Which cells of the rectangle hold an observation, where the lab wrote the file."""
    if ROW_SIZE not in file.variables:
        return None
    sizes = file.variables[ROW_SIZE]
    return np.arange(file.dimensions[str(sizes.attributes[ALONG])])[None, :] < sizes.data[:, None]
