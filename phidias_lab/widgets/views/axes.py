"""Which dimension is which: time, depth, latitude, longitude, whatever a file calls them."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Names by which an axis is known when its attributes say nothing.
_NAMES = {
    "t": ("time", "date", "t", "month", "year"),
    "z": ("depth", "lev", "level", "z", "height", "altitude", "pressure", "elevation", "plev"),
    "y": ("latitude", "lat", "y", "nav_lat", "northing", "row", "nlat", "scanline"),
    "x": ("longitude", "lon", "x", "nav_lon", "easting", "column", "nlon", "ground_pixel"),
}
_STANDARD = {
    "time": "t",
    "depth": "z",
    "height": "z",
    "altitude": "z",
    "air_pressure": "z",
    "latitude": "y",
    "projection_y_coordinate": "y",
    "longitude": "x",
    "projection_x_coordinate": "x",
}
_LETTERS = {"T": "t", "Z": "z", "Y": "y", "X": "x"}


def role(name: str, coordinate: Any = None) -> str | None:
    """'t', 'z', 'y' or 'x' of a dimension; None when it is none of them."""
    if coordinate is not None:
        attributes = coordinate.attrs
        if attributes.get("axis") in _LETTERS:
            return _LETTERS[attributes["axis"]]
        if attributes.get("standard_name") in _STANDARD:
            return _STANDARD[attributes["standard_name"]]
        if np.issubdtype(coordinate.dtype, np.datetime64):
            return "t"
        units = str(attributes.get("units", "")).lower()
        if units.startswith("degree") and units.endswith(("north", "_n")):
            return "y"
        if units.startswith("degree") and units.endswith(("east", "_e")):
            return "x"
    plain = name.lower()
    return next((letter for letter, names in _NAMES.items() if plain in names), None)


def roles(array: Any) -> dict[str, str]:
    """{role: dimension} of an array; the first dimension of a role has it."""
    found: dict[str, str] = {}
    for dim in array.dims:
        letter = role(str(dim), array.coords.get(dim))
        if letter is not None:
            found.setdefault(letter, str(dim))
    return found


def drawable(data: Any) -> list[str]:
    """The variables of a Dataset with numbers on at least one known axis; those with most axes first."""
    found = []
    for name, array in data.data_vars.items():
        if array.dtype.kind in "iufb" and array.ndim and roles(array) and not str(name).endswith("_bounds"):
            found.append(str(name))
    return sorted(found, key=lambda name: -len(roles(data[name])))


def error_of(data: Any, name: str) -> str | None:
    """The variable that holds the uncertainty of another one, on the same dimensions."""
    array = data[name]
    named = str(array.attrs.get("ancillary_variables", "")).split()
    # An absolute error, in the variable's own units, says more than a relative one.
    candidates = [n for n in named if n in data.data_vars]
    candidates += [n for n in (f"{name}_error", f"{name}_uncertainty", f"{name}_stderr", f"{name}_std") if n in data]
    candidates += [n for n in data.data_vars if str(n).startswith("error")]
    for candidate in dict.fromkeys(candidates):
        if candidate != name and data[candidate].dims == array.dims and data[candidate].dtype.kind in "iuf":
            return str(candidate)
    return None


def place_columns(table: Any) -> tuple[str, str] | None:
    """The columns of a table that hold longitude and latitude."""
    by_role = {}
    for column in table.columns:
        letter = role(str(column))
        if letter in ("x", "y") and getattr(table.dtypes[column], "kind", "O") in "iuf":
            by_role.setdefault(letter, str(column))
    return (by_role["x"], by_role["y"]) if len(by_role) == 2 else None


def caption(array: Any) -> str:
    """'sea water temperature [degree_Celsius]' of a variable or coordinate."""
    name = array.attrs.get("long_name") or array.attrs.get("standard_name") or array.name or "value"
    units = array.attrs.get("units")
    name = str(name).replace("_", " ")
    return name if units in (None, "", "1") else f"{name} [{units}]"


def label_of(value: Any, units: str | None = None) -> str:
    """A coordinate's value as people write it."""
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            return "no time"
        text = str(value.astype("datetime64[m]"))
        return text[:10] if text.endswith("T00:00") else text.replace("T", " ")
    if isinstance(value, (float, np.floating, int, np.integer)):
        for unit, (plus, minus) in {"degrees_north": ("°N", "°S"), "degrees_east": ("°E", "°W")}.items():
            if units == unit:
                return f"{abs(value):g}{plus if value >= 0 else minus}"
        return f"{value:g}{f' {units}' if units not in (None, '', '1') else ''}"
    return str(value)


def edges(centres: np.ndarray, other: float = 1.0) -> tuple[float, float]:
    """First and last edge of the cells around centres; one centre alone gets a cell of width `other`."""
    centres = np.asarray(centres, float)
    if centres.size == 1:
        return centres[0] - other / 2, centres[0] + other / 2
    return centres[0] - (centres[1] - centres[0]) / 2, centres[-1] + (centres[-1] - centres[-2]) / 2


def spacing(centres: np.ndarray) -> float:
    """The usual step between centres; 1 when there is none."""
    steps = np.abs(np.diff(np.asarray(centres, float)))
    return float(np.median(steps)) if steps.size and np.median(steps) > 0 else 1.0


def regular(centres: np.ndarray) -> bool:
    """Whether centres stand at equal steps (a thousandth of the step is forgiven: coordinates are often float32)."""
    steps = np.diff(np.asarray(centres, float))
    return steps.size < 2 or bool(np.allclose(steps, steps.mean(), rtol=0, atol=abs(steps.mean()) * 1e-3))
