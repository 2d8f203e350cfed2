"""Fields that an analysis starts from or follows: which variable of a cube, which of its times, its values elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.contract.data import converter
from phidias_lab.errors import InputError, as_sentence
from phidias_lab.methods import fields
from phidias_lab.methods.time_windows import Window

SPACE = ("depth", "latitude", "longitude")


@dataclass(frozen=True)
class Earlier:
    """A field over some of time, depth, latitude and longitude; it is the same along those it does not have."""

    field: xr.DataArray
    yearly: bool

    def times(self, window: Window) -> tuple[np.ndarray, bool]:
        """Which of its times lie in a window, else the nearest one; and whether that is far, by its own steps.

        A climatology lies in a window when its day does so in any year.
        """
        if "time" not in self.field.dims:
            return np.array([0]), False
        times = pd.DatetimeIndex(self.field["time"].values)
        if self.yearly:
            held = np.zeros(times.size, bool)
            for year in range(window.start.year - 1, window.end.year + 1):
                held |= window.holds(pd.Series([_in_year(t, year) for t in times]))
            away = np.abs((times.day_of_year - window.middle.day_of_year).to_numpy())
            away = np.minimum(away, 365 - away)
        else:
            held = window.holds(times.to_series())
            away = np.abs((times - window.middle) / pd.Timedelta(days=1)).to_numpy()
        if held.any():
            return np.flatnonzero(held), False
        steps = np.diff(times) / pd.Timedelta(days=1)
        step = 365.0 / times.size if self.yearly else steps.max(initial=0.0) or np.inf
        return np.array([away.argmin()]), bool(away.min() > 1.5 * step)

    def over(self, window: Window) -> xr.DataArray:
        """Its mean over the times that lie in a window, or its field at the nearest time."""
        if "time" not in self.field.dims:
            return self.field
        return self.field.isel(time=self.times(window)[0]).mean("time")


def _in_year(time: pd.Timestamp, year: int) -> pd.Timestamp:
    return pd.Timestamp(year, time.month, min(time.day, 28))


def at(field: xr.DataArray, points: Mapping[str, np.ndarray]) -> np.ndarray:
    """The field at points: linear between its nodes, constant beyond them, and on its land as at the sea nearby."""
    field = field.transpose(*(name for name in SPACE if name in field.dims))
    lines = {name: field[name].values if name in field.dims else np.zeros(1) for name in SPACE}
    values = fields.filled(np.asarray(field.values, float).reshape([line.size for line in lines.values()]))
    return fields.at(values, lines, points)


def earlier(
    data: xr.Dataset, variable: str, told: Mapping[str, Any], places: Mapping[str, np.ndarray], of: str = "previous"
) -> Earlier:
    """The field of a variable in an earlier product or another cube, in the units that are wanted.

    `told` are the units and the standard name that are wanted, `places` the longitudes and latitudes that must be covered,
    and `of` is the input that the cube came by.
    """
    array = data[_name(data, variable, told.get("standard_name"), of)]
    given, wanted = array.attrs.get("units"), told.get("units")
    if given and wanted:
        try:
            convert = converter(given, wanted)
        except InputError as error:
            raise InputError(
                f"Input {of!r}, variable {array.name!r}: {as_sentence(error)} Correct its units, or give another field."
            ) from None
        array = array if convert is None else convert(array)
    for name in ("latitude", "longitude"):
        if name in array.dims:
            check_covered(name, array[name].values.astype(float), places[name], of)
    time = data["time"] if "time" in array.dims else None
    if time is not None and time.dtype.kind != "M":
        raise InputError(f"The time of the input {of!r} holds no dates. Give it units such as 'days since 1970-01-01'.")
    yearly = time is not None and bool(time.attrs.get("climatology") or time.encoding.get("climatology"))
    return Earlier(array, yearly)


def _name(data: xr.Dataset, variable: str, standard_name: str | None, of: str) -> str:
    """The variable of that name, the analysis of a product, or the only one with its standard name."""
    fit = [str(n) for n, v in data.data_vars.items() if v.ndim and v.dtype.kind in "iuf" and _is_field(v.dims)]
    alike = [n for n in fit if standard_name and data[n].attrs.get("standard_name") == standard_name]
    for name in (variable, "analysis"):
        if name in fit and (name in alike or standard_name is None or "standard_name" not in data[name].attrs):
            return name
    if len(alike) == 1:
        return alike[0]
    raise InputError(
        f"The input {of!r} has no field of {variable!r} over time, depth, latitude and longitude (or some of them); it "
        f"has {', '.join(fit) or 'no field at all'}. Give a cube in which a variable has that name or its standard name."
    )


def _is_field(dims: tuple) -> bool:
    return set(dims) <= {"time", *SPACE} and ("latitude" in dims) == ("longitude" in dims)


def check_covered(name: str, line: np.ndarray, places: np.ndarray, of: str, step: float = 0.0) -> None:
    """Every place must have a node of the input `of` within one of its steps, or within the step that is given."""
    turn = fields.TURN if name == "longitude" else np.inf
    step = max(step, float(np.median(np.diff(np.sort(line)))) if line.size > 1 else 1.0)
    if fields.farthest(line, places, turn) > step * (1 + 1e-6):
        raise InputError(
            f"The input {of!r} spans {name}s {line.min():g} to {line.max():g}, and the grid {places.min():g} to "
            f"{places.max():g}. Choose a region inside it, or give a field that covers the grid."
        )
