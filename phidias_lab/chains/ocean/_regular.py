"""A variable on a regular grid as `ocean.difference` takes it: axes that rise, cells around their nodes, spans of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from phidias_lab.chains.ocean import _grids
from phidias_lab.chains.ocean._grids import DAY, seconds
from phidias_lab.contract.data import converter, is_unit
from phidias_lab.errors import InputError
from phidias_lab.methods import regridding
from phidias_lab.methods.regridding import Axis

DIMS = ("time", "depth", "latitude", "longitude")


@dataclass(frozen=True)
class Times:
    """Steps of time: their moments, and from when to when each reaches, in seconds since 1970."""

    moments: np.ndarray
    spans: np.ndarray
    yearly: bool = False  # the steps of a climatology
    bounds: np.ndarray | None = None  # as the input has them

    @property
    def width(self) -> float:
        return float(np.median(self.spans[:, 1] - self.spans[:, 0]))

    @property
    def middles(self) -> np.ndarray:
        return self.spans.mean(axis=1)

    def __getitem__(self, rows: np.ndarray) -> Times:
        return Times(
            self.moments[rows], self.spans[rows], self.yearly, None if self.bounds is None else self.bounds[rows]
        )


@dataclass(frozen=True)
class Grid:
    """A variable on a regular grid whose axes rise, its standard error if that is told, and what makes our units of both."""

    values: xr.Variable
    errors: xr.Variable | None
    longitude: Axis
    latitude: Axis
    depth: Axis | None
    time: Times | None
    units: tuple[float, float] = (1.0, 0.0)  # factor and summand
    error_units: float = 1.0


def gridded(data: xr.Dataset, variable: str, error: str | None, name: str) -> Grid:
    """A variable of the input `name` and its standard error; only coordinates are read."""
    array = data[variable]
    if array.dtype.kind not in "iuf":
        raise InputError(
            f"The variable {variable!r} of the input {name!r} holds {array.dtype}, but numbers are subtracted. "
            "Choose another variable."
        )
    if error is not None and data[error].dims != array.dims:
        theirs, ours = (", ".join(map(str, data[n].dims)) for n in (error, variable))
        raise InputError(
            f"The standard error {error!r} of the input {name!r} has the dimensions {theirs}, and {variable!r} has {ours}. "
            "Choose a standard error of the same dimensions."
        )
    found = {axis: _grids.coordinate(data, array, name, axis, optional=axis in DIMS[:2]) for axis in DIMS}
    for axis in DIMS[2:]:
        if found[axis].ndim != 1 or found[axis].dims[0] not in array.dims:
            raise InputError(
                f"The {axis}s of the input {name!r} do not lie along one dimension of {variable!r}, so it is no regular "
                "grid of longitude and latitude. Choose a field on such a grid."
            )
    for axis in DIMS[:2]:
        if found[axis] is not None and (found[axis].ndim > 1 or not set(found[axis].dims) <= set(array.dims)):
            found[axis] = None  # no axis, or one of another variable
    if found["time"] is not None and found["time"].dtype.kind not in "M":
        _grids.check_dates(found["time"], name)
    names = {at.dims[0]: axis for axis, at in found.items() if at is not None and at.ndim == 1}
    beyond = [d for d in array.dims if d not in names]
    deep = [str(d) for d in beyond if array.sizes[d] > 1]
    if deep or len(names) < sum(at is not None and at.ndim == 1 for at in found.values()):
        raise InputError(
            f"The variable {variable!r} of the input {name!r} has the dimensions {', '.join(map(str, array.dims))}; a grid "
            f"has time, depth, latitude and longitude. Select one step of {', '.join(deep) or 'the others'}."
        )
    lat, lon = (found[axis].values.astype(float) for axis in DIMS[2:])
    turned, across = _grids.in_order(lat, lon, name)
    order = {"latitude": np.argsort(lat, kind="stable"), "longitude": across}
    depth = None if found["depth"] is None else _depths(found["depth"], name)
    time = None if found["time"] is None else _times(data, found["time"], name)
    for axis, steps in (("depth", depth), ("time", time)):
        if steps is not None:
            order[axis] = np.argsort(steps.nodes if axis == "depth" else steps.middles, kind="stable")

    def lazy(which: str) -> xr.Variable:
        whole = data[which].variable.isel(dict.fromkeys(beyond, 0))
        whole.dims = tuple(names[d] for d in whole.dims)
        steps = {axis: rows for axis, rows in order.items() if axis in whole.dims and (np.diff(rows) != 1).any()}
        falling = {axis for axis, rows in steps.items() if (np.diff(rows) == -1).all()}
        steps = {axis: slice(None, None, -1) if axis in falling else rows for axis, rows in steps.items()}
        return whole.isel(steps).transpose(*(d for d in DIMS if d in whole.dims))

    return Grid(
        lazy(variable),
        None if error is None else lazy(error),
        _axis(data, found["longitude"], turned, across, lon),
        _axis(data, found["latitude"], lat, order["latitude"], lat),
        None if depth is None else Axis(depth.nodes[order["depth"]], depth.cells[order["depth"]]),
        None if time is None else time[order["time"]],
    )


def _axis(data: xr.Dataset, told: xr.DataArray, nodes: np.ndarray, order: np.ndarray, given: np.ndarray) -> Axis:
    """Nodes and cells of longitudes or latitudes: the cells that the input tells, else half-way to the neighbours."""
    bounds, _ = _grids.bounds_of(data, told)
    if bounds is not None and bounds.shape == (nodes.size, 2):
        cells = np.sort(bounds.values.astype(float), axis=1) + (nodes - given)[:, None]
        cells = cells[order]
        if np.isfinite(cells).all() and (np.diff(cells, axis=1) > 0).all() and (np.diff(cells[:, 0]) > 0).all():
            return Axis(nodes[order], cells)
    edges = regridding.cell_edges(nodes[order])
    return Axis(nodes[order], np.column_stack([edges[:-1], edges[1:]]))


def _depths(told: xr.DataArray, name: str) -> Axis:
    """Levels downwards, in the order in which they come."""
    convert = converter(told.attrs["units"], "m") if is_unit(told.attrs.get("units", "?")) else None
    depth = told.values.reshape(-1).astype(float)
    depth = depth if convert is None else convert(depth)
    depth = -depth if told.attrs.get("positive") == "up" else depth
    if not np.isfinite(depth).all() or np.unique(depth).size < depth.size:
        raise InputError(f"The depths of the input {name!r} are not different finite numbers. Choose a regular grid.")
    order = np.argsort(depth, kind="stable")
    edges = regridding.cell_edges(depth[order])
    cells = np.empty((depth.size, 2))
    cells[order] = np.column_stack([edges[:-1], edges[1:]])
    return Axis(depth, cells)


def from_the_surface(depth: Axis, surface: float) -> Axis:
    """The levels with cells that leave no gap above the first; one level alone at the surface is all of that."""
    cells = depth.cells.copy()
    if depth.nodes.size == 1:
        cells[0] = depth.nodes[0] * np.array([0.95, 1.05])
        if depth.nodes[0] <= surface:
            cells[0, 1] = surface
    if depth.nodes[0] <= surface:
        cells[0, 0] = min(0.0, depth.nodes[0])
    return Axis(depth.nodes, cells)


# Times -------------------------------------------------------------------------------------------------------------


def _times(data: xr.Dataset, told: xr.DataArray, name: str) -> Times:
    moments = told.values.reshape(-1)
    at = seconds(moments)
    bounds, yearly = _grids.bounds_of(data, told)
    if bounds is not None:
        spans = seconds(bounds.values).reshape(-1, 2)
        if np.isfinite(spans).all() and (spans[:, 1] > spans[:, 0]).all():
            return Times(moments, spans, yearly, bounds.values.reshape(-1, 2))
    if not np.isfinite(at).all() or np.unique(at).size < at.size:
        raise InputError(
            f"The times of the input {name!r} are not different dates. Choose a field with one for each step."
        )
    order = np.argsort(at)
    half = np.full(at.size, DAY / 2) if at.size == 1 else np.median(np.diff(at[order])) * 0.75
    edges = regridding.cell_edges(at[order], DAY)
    spans = np.empty((at.size, 2))
    # A step beside a gap does not reach into it.
    spans[order] = np.column_stack([np.maximum(edges[:-1], at[order] - half), np.minimum(edges[1:], at[order] + half)])
    return Times(moments, spans)


def _parts_of_years(times: Times, years: range) -> tuple[np.ndarray, np.ndarray]:
    """The spans of a climatology in each of some years, and of which step each is (CF conventions, 7.4)."""
    spans, steps = [], []
    for step, (start, end) in enumerate(pd.to_datetime(times.spans.ravel(), unit="s").to_numpy().reshape(-1, 2)):
        start, end = pd.Timestamp(start), pd.Timestamp(end)
        for year in years:
            begin, stop = _in_year(start, year), _in_year(end, year)
            stop = stop if stop > begin else _in_year(end, year + 1)
            spans.append((begin.timestamp(), stop.timestamp()))
            steps.append(step)
    return np.array(spans), np.array(steps)


def _in_year(moment: pd.Timestamp, year: int) -> pd.Timestamp:
    return moment.replace(year=year, day=min(moment.day, 28) if moment.month == 2 else moment.day)


def in_one_year(times: Times) -> np.ndarray:
    """The spans of a climatology in the year in which its moments stand."""
    found = []
    for k, moment in enumerate(times.moments):
        year = pd.Timestamp(moment).year
        spans, _ = _parts_of_years(times[np.array([k])], range(year - 1, year + 1))
        away = np.abs(spans.mean(axis=1) - seconds(moment))
        found.append(spans[away.argmin()])
    return np.array(found)


def over(times: Times | None, target: np.ndarray) -> sparse.csr_array:
    """Weights of the steps of a field in means over spans; one without time is the same in all."""
    if times is None:
        return sparse.csr_array(np.ones((len(target), 1)))
    if not times.yearly:
        return regridding.means(times.spans, target)
    first, last = (pd.Timestamp(end, unit="s").year for end in ends(target))
    spans, steps = _parts_of_years(times, range(first - 1, last + 1))
    found = regridding.means(spans, target)
    gathered = sparse.coo_array(
        (np.ones(steps.size), (np.arange(steps.size), steps)), shape=(steps.size, len(times.spans))
    )
    return (found @ gathered.tocsr()).tocsr()


def ends(spans: np.ndarray) -> tuple[float, float]:
    return float(spans.min()), float(spans.max())
