"""What the comparing chains have in common: where the values of a field lie, whether two are the same quantity, in which
groups statistics are given and how they are declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from phidias_lab.contract import Var, choice, number
from phidias_lab.contract.data import converter, look_alike
from phidias_lab.errors import InputError, as_sentence
from phidias_lab.methods.agreement import Agreement

SEASONS = ("December to February", "March to May", "June to August", "September to November")
DAY = 86_400.0
#: Bytes of a field that are read at once.
SLAB = 256 * 2**20
PLACE = {
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
}
#: Units that people write for practical salinity, all of which mean the same.
SALINITY = {"1", "1e-3", "0.001", "1e-03", "psu", "pss", "pss-78", "pss78", "g kg-1", "g/kg"}
ENDS = ("", "_low", "_high")


# What lies where ---------------------------------------------------------------------------------------------------


def coordinate(
    data: xr.Dataset, array: xr.DataArray, name: str, axis: str, optional: bool = False
) -> xr.DataArray | None:
    """The variable that holds longitudes, latitudes, depths or times: by its standard name, else by its own."""
    names = [str(n) for n in data.variables if n != array.name and not str(n).endswith(("_bounds", "_bnds"))]
    found = look_alike(axis, axis, names, {n: data[n].attrs for n in names})
    if found is None and not optional:
        raise InputError(
            f"The input {name!r} has no {axis}: no variable has that standard name or is called so. It has "
            f"{', '.join(names) or 'no other variable'}. Choose a field that says where and when its values lie."
        )
    return None if found is None else data[found]


def bounds_of(data: xr.Dataset, coordinate: xr.DataArray) -> tuple[xr.DataArray | None, bool]:
    """The variable with start and end of each value of a coordinate, if there is one; and whether it is a climatology's."""
    told = {key: coordinate.attrs.get(key) or coordinate.encoding.get(key) for key in ("climatology", "bounds")}
    found = next((data[b] for b in told.values() if b in data.variables), None)
    if found is None or found.ndim != coordinate.ndim + 1:
        return None, False
    return found, bool(told["climatology"])


def check_dates(time: xr.DataArray, name: str) -> None:
    if time.dtype.kind == "M":
        return
    calendar = getattr(time.values.flat[0], "calendar", None) if time.size and time.dtype.kind == "O" else None
    if calendar:
        raise InputError(
            f"The times of the input {name!r} are of the calendar {calendar!r}, which has days that others do not. Convert "
            "them first, with xarray's convert_calendar('standard')."
        )
    raise InputError(f"The times of the input {name!r} are no dates but {time.dtype}. Choose a field with dates.")


def seconds(moments: np.ndarray) -> np.ndarray:
    """Seconds since 1970; NaN for no moment."""
    whole = np.asarray(moments).astype("datetime64[us]")
    return np.where(np.isnat(whole), np.nan, whole.astype(np.int64) / 1e6)


def in_order(lat: np.ndarray, lon: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The longitudes on one turn, and the order in which they rise; a grid without regular axes is refused."""
    turned = np.unwrap(lon, period=360.0)
    order = np.argsort(turned, kind="stable")
    if (np.diff(turned[order]) <= 0).any() or np.ptp(turned) >= 360.0 or not _steady(lat):
        raise InputError(
            f"Latitudes or longitudes of the input {name!r} are no regular axis: each must rise or fall throughout, "
            "over one turn at most. Choose a regular grid."
        )
    return turned, order


def _steady(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return bool(np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all()))


# What is compared --------------------------------------------------------------------------------------------------


def conversion(ours: Mapping[str, Any], theirs: Mapping[str, Any], names: tuple[str, str], of: str):
    """What turns values of `theirs` into the units of `ours`; None where nothing does. Other quantities are refused.

    `ours` and `theirs` are what the variables, which are called `names`, say of themselves; `of` is the input of theirs.
    """
    wanted, given = str(ours.get("units") or ""), str(theirs.get("units") or "")
    salinity = "salinity" in f"{ours.get('standard_name', '')} {names[0]}".lower()
    if not wanted or not given or (salinity and {wanted.lower(), given.lower()} <= SALINITY):
        return None
    try:
        return converter(given, wanted)
    except InputError as error:
        raise InputError(
            f"{names[0]!r} and {names[1]!r} of the input {of!r} cannot be compared: {as_sentence(error)} "
            "Choose variables of the same quantity."
        ) from None


def transform_for(asked: str, variable: str, told: Mapping[str, Any]) -> str:
    """The transform that was asked for; where it is left open, the logarithm for chlorophyll."""
    if asked != "auto":
        return asked
    return "log" if "chlorophyll" in f"{told.get('standard_name', '')} {variable}".lower() else "none"


def in_units(result: xr.Dataset, outputs: Mapping[str, Var], units: str) -> xr.Dataset:
    """With the units of what was compared where the declaration leaves them to the input."""
    for name in result.data_vars:
        if outputs[name].units is None and units:
            result[name].attrs["units"] = units
    return result


# Groups and their statistics ---------------------------------------------------------------------------------------


def statistics(field: str, other: str, without: tuple[str, ...] = ()) -> tuple[tuple[str, str | None, str], ...]:
    """Statistics of a field beside another: names, units (None for those of what is compared) and words."""
    found = (
        ("bias", None, "mean difference"),
        ("rmsd", None, "root mean square of the difference"),
        ("deviation", None, "standard deviation of the difference"),
        ("median", None, "median difference"),
        ("robust_deviation", None, "scaled median absolute deviation of the difference"),
        ("correlation", "1", f"correlation of {field} and {other}"),
        ("deviation_ratio", "1", f"standard deviation of the {field} over that of the {other}"),
    )
    return tuple(one for one in found if one[0] not in without)


def with_intervals(statistics: Iterable[tuple[str, str | None, str]], dims: tuple[str, ...], **more) -> dict[str, Var]:
    """Declarations of statistics, each with the ends of its confidence interval."""
    words = ("", ", lower end of the confidence interval", ", upper end of the confidence interval")
    return {
        f"{name}{end}": Var(units, long_name=f"{says}{said}", dims=dims, **more)
        for name, units, says in statistics
        for end, said in zip(ENDS, words, strict=True)
    }


def tabulated(found: Iterable[Agreement], wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """The statistics of some groups, by the names that `with_intervals` gives them."""
    found = list(found)
    return {
        f"{name}{end}": np.array([getattr(one, name)[k] for one in found])
        for name in wanted
        for k, end in enumerate(ENDS)
    }


def of_groups(columns: Mapping[str, Any], names: list[str], what: str) -> xr.Dataset:
    """Statistics along a dimension whose places have names."""
    result = xr.Dataset({name: ("group", values) for name, values in columns.items()})
    return result.assign_coords(group_name=("group", np.array(names, dtype=object), {"long_name": what}))


def box_name(south: float, west: float, size: float) -> str:
    """'40–50°N, 10°W–0°' of a box of longitude and latitude."""
    return f"{_span(south, size, 'NS')}, {_span(west, size, 'EW')}"


def _span(low: float, size: float, sides: str) -> str:
    def side(value: float) -> str:
        return f"{abs(value):g}°{'' if value == 0 else sides[value < 0]}"

    high = low + size
    return f"{abs(low):g}–{side(high)}" if low > 0 and high > 0 else f"{side(low)}–{side(high)}"


# Parameters that all comparisons have ------------------------------------------------------------------------------


def transform_parameter() -> Any:
    return choice(
        "auto",
        ["auto", "none", "log"],
        doc="Compare values or their natural logarithms; auto takes these for chlorophyll",
    )


def region_size_parameter() -> Any:
    return number(10.0, bounds=(1, 90), units="degree", doc="Side of the boxes for which statistics are given")


def block_length_parameter() -> Any:
    return number(
        500e3,
        bounds=(1e3, 5e6),
        units="m",
        scale="log",
        doc="Side of the blocks within which differences may depend on each other; not smaller than the errors are wide",
        level="expert",
    )


def block_days_parameter() -> Any:
    return number(
        30.0,
        bounds=(0.1, 4000),
        units="d",
        scale="log",
        doc="Duration of the blocks within which differences may depend on each other",
        level="expert",
    )
