"""Which dimension is which: time, depth, latitude, longitude, whatever a file calls them."""

from __future__ import annotations

from typing import Any

import numpy as np

from phidias_lab.contract.data import error_terms, standard_error_of

#: The column that holds the shapes of a table's rows.
GEOMETRY = "geometry"
#: Names by which an axis is known when its attributes say nothing.
_NAMES = {
    "t": ("time", "date", "t", "month", "year"),
    "z": ("depth", "lev", "level", "z", "height", "altitude", "pressure", "elevation", "plev"),
    "y": ("latitude", "lat", "y", "nav_lat", "northing", "row", "nlat", "scanline"),
    "x": ("longitude", "lon", "x", "nav_lon", "easting", "column", "nlon", "ground_pixel"),
    "w": ("wavelength", "wavenumber"),
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
    "radiation_wavelength": "w",
    "radiation_wavenumber": "w",
    "radiation_frequency": "w",
    "sensor_band_central_radiation_wavelength": "w",
    "sensor_band_central_radiation_wavenumber": "w",
}
_LETTERS = {"T": "t", "Z": "z", "Y": "y", "X": "x"}


def role(name: str, coordinate: Any = None) -> str | None:
    """'t', 'z', 'y', 'x' or 'w' (wavelength) of a dimension; None when it is none of them."""
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
    pixels = swath(array)
    if pixels is not None:
        found |= dict(zip("yx", map(str, pixels[0].dims), strict=True))
    for dim in array.dims:
        letter = role(str(dim), array.coords.get(dim))
        if letter is not None and dim not in found.values():
            found.setdefault(letter, str(dim))
    for name, coordinate in array.coords.items():
        if coordinate.ndim == 1 and coordinate.dims[0] in array.dims and role(str(name), coordinate) == "w":
            found.setdefault("w", str(coordinate.dims[0]))
    return found


def swath(array: Any) -> tuple[Any, Any] | None:
    """The two-dimensional coordinates of an array that hold the latitude and longitude of each of its pixels."""
    found = {}
    for name, coordinate in array.coords.items():
        if coordinate.ndim == 2 and set(coordinate.dims) <= set(array.dims) and not str(name).endswith("_bounds"):
            found.setdefault(role(str(name), coordinate), coordinate)
    if not {"y", "x"} <= found.keys() or set(found["y"].dims) != set(found["x"].dims):
        return None
    return found["y"], found["x"].transpose(*found["y"].dims)


def with_places(data: Any, load: bool = True) -> Any:
    """The Dataset with what tells the places of its pixels among its coordinates, where a file does not say so, and with one
    wavelength for each channel where each pixel has its own. The places are read, since every picture needs all of them."""
    places = [n for n, v in data.data_vars.items() if v.ndim == 2 and role(str(n), v) in ("y", "x")]
    data = data.set_coords([*(name for name in places if not str(name).endswith("_bounds")), *spectral(data)])
    lazy = (
        [n for n, c in data.coords.items() if c.ndim == 2 and c.chunks and role(str(n), c) in ("y", "x")]
        if load
        else []
    )
    data = data.assign_coords(
        {name: each.variable for name, each in data[lazy].compute().coords.items() if name in lazy}
    )
    for name, each in spectral(data).items():
        dim = each.dims[-1]
        if each.ndim > 1 and not any(other.dims == (dim,) for other in spectral(data).values()):
            first = each.isel({other: 0 for other in each.dims[:-1]})
            data = data.assign_coords(
                {f"{name}_of_channel": (dim, first.values, {"standard_name": "radiation_wavelength", **each.attrs})}
            )
    return data


def spectral(data: Any) -> dict[str, Any]:
    """The variables and coordinates that hold wavelengths, wave numbers or frequencies; channels are the last dimension."""
    found = {str(name): data[name] for name, each in data.variables.items() if role(str(name), each) == "w"}
    return {name: each for name, each in found.items() if each.ndim and not name.endswith("_bounds")}


def is_degrees(array: Any, dim: str) -> bool:
    """Whether a horizontal dimension is in degrees on the globe."""
    if dim not in array.coords:
        return False
    attributes = array[dim].attrs
    if attributes.get("standard_name") in ("latitude", "longitude"):
        return True
    units = str(attributes.get("units", "")).lower()
    if units:
        return units.startswith("degree")
    return str(dim).lower() in ("latitude", "longitude", "lat", "lon")


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
    # What is declared goes before what names suggest.
    named = [error_terms(array.attrs).get("standard_error"), *str(array.attrs.get("ancillary_variables", "")).split()]
    # An absolute error, in the variable's own units, says more than a relative one.
    candidates = [n for n in (standard_error_of(data, name), *named) if n in data.data_vars]
    candidates += [n for n in (f"{name}_error", f"{name}_uncertainty", f"{name}_stderr", f"{name}_std") if n in data]
    candidates += [n for n in data.data_vars if str(n).startswith("error")]
    for candidate in dict.fromkeys(candidates):
        if candidate != name and data[candidate].dims == array.dims and data[candidate].dtype.kind in "iuf":
            return str(candidate)
    return None


def relative_error(data: Any, name: str) -> Any | None:
    """The error variance of a variable over that of its background, where the data declare what it takes."""
    found = _error_variables(data, name)
    if "relative_variance" in found:
        return found["relative_variance"]
    if {"standard_error", "background_deviation"} <= found.keys():
        return (found["standard_error"] / found["background_deviation"]) ** 2
    return None


def interval(data: Any, name: str) -> tuple[Any, Any] | None:
    """Lower and upper end of the 95 % interval of a variable, where the data declare them."""
    found = _error_variables(data, name)
    return (found["lower_95"], found["upper_95"]) if {"lower_95", "upper_95"} <= found.keys() else None


def _error_variables(data: Any, name: str) -> dict[str, Any]:
    """The variables that tell of an error, by their terms; only those that lie along dimensions of the variable."""
    terms = error_terms(data[name].attrs)
    there = {term: data[other] for term, other in terms.items() if other in data.data_vars}
    return {term: array for term, array in there.items() if set(array.dims) <= set(data[name].dims)}


def place_columns(table: Any) -> tuple[str, str] | None:
    """The columns of a table that hold longitude and latitude."""
    by_role = {}
    for column in table.columns:
        letter = role(str(column))
        if letter in ("x", "y") and getattr(table.dtypes[column], "kind", "O") in "iuf":
            by_role.setdefault(letter, str(column))
    return (by_role["x"], by_role["y"]) if len(by_role) == 2 else None


#: How units are written for people; others are shown as they come.
_UNITS = {
    "degree_Celsius": "°C",
    "degrees_Celsius": "°C",
    "celsius": "°C",
    "degC": "°C",
    "degrees_north": "°N",
    "degrees_east": "°E",
    "1": "",
}
#: Written here, since the calendar module follows the machine's language.
_MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
_MONTHS += ["August", "September", "October", "November", "December"]


def units_of(thing: Any) -> str:
    """The units of a variable or coordinate as people write them; nothing for pure numbers."""
    return written_units(str(thing.attrs.get("units") or ""))


def written_units(units: str) -> str:
    """Units as people write them; nothing for pure numbers."""
    return _UNITS.get(units, units)


def caption(array: Any) -> str:
    """'sea water temperature [°C]' of a variable or coordinate."""
    name = array.attrs.get("long_name") or array.attrs.get("standard_name") or array.name or "value"
    units = units_of(array)
    name = str(name).replace("_", " ")
    return name if not units else f"{name} [{units}]"


def short_name(array: Any) -> str:
    """A variable in a word or two, to begin a title with: 'Temperature', 'Standard error of temperature'."""
    standard, _, modifier = str(array.attrs.get("standard_name") or "").partition(" ")
    if modifier == "standard_error":  # CF conventions, appendix C
        name = f"standard error of {standard.removeprefix('sea_water_')}"
    else:
        name = str(array.attrs.get("long_name") or standard or array.name or "value")
        name = name.split(",")[0].removeprefix("analysis of ").removeprefix("sea water ")
    name = name.replace("_", " ").strip()
    return name[:1].upper() + name[1:]


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
        units = _UNITS.get(units, units) if units else ""
        return f"{value:g}{f' {units}' if units else ''}"
    return str(value)


def place_label(longitude: float, latitude: float) -> str:
    """'45.5°N 20°W': a place on the globe."""
    east = (longitude + 180.0) % 360.0 - 180.0
    return f"{label_of(round(latitude, 2), 'degrees_north')} {label_of(round(east, 2), 'degrees_east')}"


def labels_of(data: Any, coordinate: Any) -> list[str]:
    """What stands for each value of a coordinate: for times with bounds the span, not the instant in its middle."""
    values = np.atleast_1d(coordinate.values)
    spans, years = _bounds(data, coordinate)
    if spans is None:
        units = coordinate.attrs.get("units")
        return [label_of(value, units) for value in values]
    return [climatology_label(*span) if years else span_label(*span) for span in spans]


def _bounds(data: Any, coordinate: Any) -> tuple[np.ndarray | None, bool]:
    """First and last moment of each time, and whether they are the bounds of a climatology (CF conventions, 7.4)."""
    name = str(coordinate.name)
    told = {key: coordinate.attrs.get(key) or coordinate.encoding.get(key) for key in ("climatology", "bounds")}
    years = bool(told["climatology"])
    for candidate in (told["climatology"], told["bounds"], f"{name}_bounds", f"{name}_bnds"):
        found = None
        if candidate in getattr(data, "variables", ()):
            found = data[candidate]
        elif candidate in coordinate.coords:
            found = coordinate.coords[candidate]
        if found is not None and found.dtype.kind == "M" and found.size == 2 * coordinate.size:
            return found.values.reshape(-1, 2), years
    return None, False


def span_label(start: np.datetime64, end: np.datetime64) -> str:
    """A span of time from start up to but without end: 'February 2020', '2015–2020', '1 Jan – 12 Mar 2020'."""
    if np.isnat(start) or np.isnat(end):
        return "no time"
    first, stop = start.astype("datetime64[D]"), end.astype("datetime64[D]")
    if first != start or stop != end or stop <= first:
        return f"{label_of(start)} – {label_of(end)}"
    last = (stop - 1).item()
    first = first.item()
    if first == last:
        return f"{first.day} {_MONTHS[first.month - 1]} {first.year}"
    if first.day == 1 and stop.item().day == 1:
        if first.month == 1 and last.month == 12:
            return str(first.year) if first.year == last.year else f"{first.year}–{last.year}"
        opening, closing = _MONTHS[first.month - 1], f"{_MONTHS[last.month - 1]} {last.year}"
        if first.year != last.year:
            return f"{opening} {first.year} – {closing}"
        return closing if first.month == last.month else f"{opening}–{closing}"
    closing = f"{last.day} {_MONTHS[last.month - 1][:3]} {last.year}"
    opening = f"{first.day} {_MONTHS[first.month - 1][:3]}"
    return f"{opening} – {closing}" if first.year == last.year else f"{opening} {first.year} – {closing}"


def climatology_label(start: np.datetime64, end: np.datetime64) -> str:
    """The mean over years of a part of the year: '2015–2020, February climatology'.

    The first bound begins the part in the first year, the second ends it in the last year (CF conventions, 7.4).
    """
    if np.isnat(start) or np.isnat(end):
        return "no time"
    first, stop = start.astype("datetime64[D]").item(), end.astype("datetime64[D]").item()
    last = (end.astype("datetime64[D]") - 1).item()
    part = ""
    if (first.month, first.day) != (stop.month, stop.day):
        whole = first.day == 1 and stop.day == 1
        words = [
            _MONTHS[day.month - 1] if whole else f"{day.day} {_MONTHS[day.month - 1][:3]}" for day in (first, last)
        ]
        dash = "–" if whole else " – "
        part = f", {words[0]}" if words[0] == words[1] else f", {dash.join(words)}"
    # A part of the year that goes over the turn of the year belongs to the year in which it begins.
    year = last.year - ((last.month, last.day) < (first.month, first.day))
    years = str(first.year) if year == first.year else f"{first.year}–{year}"
    return f"{years}{part} climatology"


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


def stretch(levels: np.ndarray) -> bool:
    """Whether levels get closer and closer towards zero, so that an even axis would hide most of them."""
    levels = np.sort(np.asarray(levels, float))
    steps = np.diff(levels)
    if steps.size < 3 or levels[0] < 0 or not (steps > 0).all():
        return False
    upper, lower = steps[: steps.size // 2].mean(), steps[-(steps.size // 2) :].mean()
    return lower > 3 * upper


def ticks(levels: np.ndarray, places: np.ndarray, apart: float = 0.045) -> list[tuple[float, str]]:
    """Tick marks at levels, named by their true values; levels too close to the last named one are left without."""
    order = np.argsort(places)
    least = apart * float(np.ptp(places))
    found: list[tuple[float, str]] = []
    for k in order:
        if not found or places[k] - found[-1][0] >= least:
            found.append((float(places[k]), f"{levels[k]:g}"))
    return found
