"""One piece of a gridding: some levels that are analysed together, in one window of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.chains.ocean import _backgrounds
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import variational
from phidias_lab.methods.transforms import Transform

DIMS = ("time", "depth", "latitude", "longitude")
#: Outputs that have one value per level and window; all others have one per node.
PER_LEVEL = ("background", "background_deviation", "observations_used")
#: Standard deviation of the places of observations, over that of the domain's nodes, below which no slope is drawn.
LEAST_SPAN = 0.2
#: Backgrounds that differ from node to node.
FIELDS = ("plane", "previous")
#: Fields of a domain that change the horizontal correlation lengths from place to place.
LENGTHENING = {
    "anisotropy": "zonal over meridional correlation length, from place to place",
    "length_factor": "by what the correlation length is multiplied, from place to place; below 1 on slopes and near fronts",
}


@dataclass(frozen=True)
class Plan:
    """All that the analysis of any level needs beside the mask and the observations."""

    longitude: np.ndarray
    latitude: np.ndarray
    depth: np.ndarray
    edges: np.ndarray
    parameters: Mapping[str, Any]
    transform: Transform | None = None
    #: Meridional and zonal correlation length, each of a shape that broadcasts to (depth, latitude, longitude).
    lengths: tuple[np.ndarray, np.ndarray] | None = None

    def horizontal(self, group: slice, shape: tuple[int, ...]) -> list[Any]:
        """Meridional and zonal correlation length of some levels, as arrays of a shape where they vary."""
        if self.lengths is None:
            return [self.parameters["length"]] * 2
        return [np.broadcast_to(each[group] if each.shape[0] > 1 else each, shape) for each in self.lengths]

    def forward(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The observations with transformed values."""
        name = self.parameters["variable"]
        return rows.assign(**{name: self.transform.forward(rows[name].to_numpy(float))})


def cell_edges(levels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Upper and lower bound of each chosen level's own cell: half-way to the neighbouring levels of the domain."""
    levels = np.sort(np.asarray(levels, float))
    if levels.size == 1:  # no neighbour says how thick the cell is: a tenth of the depth, and 5 m at least
        half = max(5.0, 0.1 * levels[0])
        return np.array([[levels[0] - half, levels[0] + half]])
    middle = (levels[1:] + levels[:-1]) / 2
    upper = np.r_[levels[0] - (middle[0] - levels[0]), middle]
    lower = np.r_[middle, levels[-1] + (levels[-1] - middle[-1])]
    rows = [int(np.argmin(np.abs(levels - depth))) for depth in chosen]
    return np.column_stack([upper[rows], lower[rows]])


def lengths_of(domain: xr.Dataset, settings: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Meridional and zonal correlation length over (depth, latitude, longitude), where it is more than a number."""
    levels = np.array(settings["lengths"] or [settings["length"]])
    if settings["lengths"] is not None and levels.size != domain.sizes["depth"]:
        raise ParameterError(
            f"Parameter 'lengths' was given {levels.size} numbers, but {domain.sizes['depth']} levels are analysed: "
            f"{', '.join(f'{v:g}' for v in domain['depth'].values)} m. Give one for each level, from the surface down."
        )
    if settings["lengths"] is None and settings["anisotropy"] == 1 and len(domain.data_vars) == 1:
        return None
    ratio, factor = (_field(domain, name) for name in LENGTHENING)
    along, across = np.sqrt(settings["anisotropy"] * ratio), levels[:, None, None] * factor
    return across / along, across * along


def _field(domain: xr.Dataset, name: str) -> np.ndarray:
    """A field of the domain that changes the lengths, 1 where there is none and on land."""
    if name not in domain:
        return np.ones((1, 1, 1))
    values = domain[name]
    for dim in DIMS[1:]:
        values = values if dim in values.dims else values.expand_dims(dim)
    sea = np.nan_to_num(np.asarray(domain["mask"].values, float)) > 0
    values = np.broadcast_to(values.transpose(*DIMS[1:]).values.astype(float), sea.shape)
    if not (values[sea] > 0).all() or not np.isfinite(values[sea]).all():
        raise InputError(
            f"The domain's {name} must be above 0 and finite at every sea node. Fill its gaps, with 1 for none."
        )
    return np.where(sea, values, 1.0)


def level_of(plan: Plan, group: slice, near: pd.DataFrame) -> np.ndarray:
    """The level of the group to whose cell each observation belongs."""
    return np.searchsorted(plan.edges[group][1:, 0], near["depth"].to_numpy(float), side="right")


def per_level(plan: Plan, group: slice, near: pd.DataFrame, used: np.ndarray) -> np.ndarray:
    """How many observations each level of the group uses."""
    return np.bincount(level_of(plan, group, near)[used], minlength=group.stop - group.start).astype(np.int64)


def is_cyclic(longitude: np.ndarray) -> bool:
    """Whether the grid goes around the globe."""
    return longitude.size > 2 and np.isclose(longitude[-1] - longitude[0] + (longitude[1] - longitude[0]), 360.0)


def with_rim(values: np.ndarray, before: int, after: int) -> np.ndarray:
    """A coordinate with so many (0 or 1) more values at its ends. The rim is what edge stretching moves away; the nodes of
    the domain itself then stay where they are."""
    return np.r_[(2 * values[0] - values[1],) * before, values, (2 * values[-1] - values[-2],) * after]


def off_the_poles(latitude: np.ndarray) -> np.ndarray:
    """A rim that would lie on a pole or beyond it stands half-way to it."""
    latitude = latitude.copy()
    for edge, inner in ((0, 1), (-1, -2)):
        if abs(latitude[edge]) >= 90 > abs(latitude[inner]):
            latitude[edge] = (latitude[inner] + np.copysign(90.0, latitude[edge])) / 2
    return latitude


def rim_of(plan: Plan) -> tuple[int, int]:
    """How wide the rim is along latitude and longitude."""
    rim = 1 if plan.parameters["edge_stretch"] > 0 else 0
    return rim, 0 if is_cyclic(plan.longitude) else rim


#: Where the latitudes and longitudes of a plan that is not part of a greater one end.
WHOLE = ((True, True), (True, True))


def geometry(
    plan: Plan,
    group: slice,
    mask: np.ndarray,
    near: pd.DataFrame,
    ends: tuple = WHOLE,
    means: tuple[float, ...] | None = None,
) -> tuple[tuple, dict, tuple]:
    """Arguments of `variational.usable` and `variational.analyse`, and the nodes of the domain in their grid.

    Of a tile, `ends` says at which ends of its latitudes and longitudes the domain ends, so that it has a rim there, and
    `means` are the mean correlation lengths of the whole grid.
    """
    settings, depth, sea = plan.parameters, plan.depth[group], mask[group]
    rim = 1 if settings["edge_stretch"] > 0 else 0
    cyclic = is_cyclic(plan.longitude)
    down, (north, east) = (rim, rim), [[rim if end else 0 for end in two] for two in ends]
    east = [0, 0] if cyclic else east
    lat, lon = off_the_poles(with_rim(plan.latitude, *north)), with_rim(plan.longitude, *east)
    across, along = variational.metrics_on_sphere(lon, lat, period=360.0 if cyclic else 0.0)
    metrics, coords, widths = [along.T, across.T], [lat, lon], [north, east]
    places = [near["latitude"].to_numpy(float), near["longitude"].to_numpy(float)]
    length, periods, flat = plan.horizontal(group, sea.shape), [0.0, 360.0 if cyclic else 0.0], depth.size == 1
    if flat:
        sea, length = sea[0], [each if np.ndim(each) == 0 else each[0] for each in length]
    else:
        levels = with_rim(depth, *down)
        metrics = [1.0 / variational.local_resolution(levels)[:, None, None], *(m[None] for m in metrics)]
        coords, periods, widths = [levels, *coords], [0.0, *periods], [down, *widths]
        # What lies in a level's own cell but above the first or below the last level belongs to that level.
        places = [np.clip(near["depth"].to_numpy(float), depth[0], depth[-1]), *places]
        length = [settings["vertical_length"], *length]
    padded = np.pad(sea, widths, mode="edge")
    length = [each if np.ndim(each) == 0 else np.pad(each, widths, mode="edge") for each in length]
    metrics = [np.broadcast_to(m, padded.shape) for m in metrics]
    inner = tuple(slice(w[0], n - w[1]) for w, n in zip(widths, padded.shape, strict=True))
    convention: dict[str, Any] = {"cyclic": periods, "edge_stretch": settings["edge_stretch"]}
    if means is not None:
        convention["means"] = means
    return (padded, metrics, coords, places, length), convention, inner


def usable(
    plan: Plan,
    group: slice,
    mask: np.ndarray,
    near: pd.DataFrame,
    ends: tuple = WHOLE,
    means: tuple[float, ...] | None = None,
) -> np.ndarray:
    """Which of the observations near these levels have sea beside them, and so are used."""
    if near.empty or not mask[group].any():
        return np.zeros(len(near), bool)
    (*grid, length), convention, _ = geometry(plan, group, mask, near, ends, means)
    return variational.usable(*grid, length, **convention)


@dataclass(frozen=True)
class Profile:
    """The means of the levels of a window, and the slopes between them.

    An observation above or below its level is compared with the line between the means, which stand at the mean depths of
    their observations; `shift` takes what the line misses of a level's mean.
    """

    mean: np.ndarray
    at_depth: np.ndarray
    there: np.ndarray
    shift: np.ndarray

    def at(self, depth: np.ndarray, level: np.ndarray) -> np.ndarray:
        return np.interp(depth, self.at_depth, self.there) + self.shift[level]


def mean_profile(plan: Plan, row: list[tuple[slice, pd.DataFrame, np.ndarray]]) -> Profile:
    """Of the used observations; a level without any has the mean between (or of) its neighbours."""
    rows = pd.concat([near[used] for _, near, used in row])
    depth, value = (rows[name].to_numpy(float) for name in ("depth", plan.parameters["variable"]))
    level = level_of(plan, slice(0, plan.depth.size), rows)
    number = np.bincount(level, minlength=plan.depth.size)
    known = number > 0
    if not known.any():
        return Profile(*[np.full(plan.depth.size, np.nan)] * 4)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(level, values, minlength=plan.depth.size)[known] / number[known]

    at_depth, there, shift = mean(depth), mean(value), np.zeros(plan.depth.size)
    shift[known] = there - mean(np.interp(depth, at_depth, there))
    means = np.interp(plan.depth, plan.depth[known], there)
    return Profile(means, at_depth, there, shift)


@dataclass(frozen=True)
class Plane:
    """For each level of a window a plane in longitude and latitude, through its observations by least squares.

    Per level: value, slope by longitude and slope by latitude at the place `centre`, and how many of these were free; a
    level without observations has the plane between (or of) its neighbours.
    """

    numbers: np.ndarray
    centre: tuple[float, float]
    free: np.ndarray

    def of(self, group: slice) -> Plane:
        """That of some levels."""
        return Plane(self.numbers[group], self.centre, self.free[group])

    def at(self, level: Any, longitude: Any, latitude: Any) -> np.ndarray:
        value, east, north = np.moveaxis(self.numbers[level], -1, 0)
        return value + east * (longitude - self.centre[0]) + north * (latitude - self.centre[1])


def plane(plan: Plan, row: list[tuple[slice, pd.DataFrame, np.ndarray]]) -> Plane:
    """Of the used observations. Around the globe a slope by longitude means nothing, so there is none."""
    rows = pd.concat([near[used] for _, near, used in row])
    level = level_of(plan, slice(0, plan.depth.size), rows)
    value = rows[plan.parameters["variable"]].to_numpy(float)
    lines = [plan.longitude, plan.latitude]
    centre, extent = (tuple(float(each(line)) for line in lines) for each in (np.mean, np.std))
    numbers, free = np.full((plan.depth.size, 3), np.nan), np.zeros(plan.depth.size, int)
    away = np.column_stack(
        [rows["longitude"].to_numpy(float) - centre[0], rows["latitude"].to_numpy(float) - centre[1]]
    )
    away = away / extent * [not is_cyclic(plan.longitude), True]
    for each in np.unique(level):
        here = level == each
        middle, mean = away[here].mean(axis=0), value[here].mean()
        # In a direction in which the places span little of the domain their slope would be drawn far beyond them: it is
        # taken as flat, as across a single section.
        left, spread, directions = np.linalg.svd(away[here] - middle, full_matrices=False)
        wide = spread > LEAST_SPAN * np.sqrt(here.sum())
        slopes = (left[:, wide].T @ (value[here] - mean) / spread[wide]) @ directions[wide]
        numbers[each] = [mean - middle @ slopes, *slopes / extent]
        free[each] = 1 + wide.sum()
    known = free > 0
    if known.any():
        numbers = np.column_stack([np.interp(plan.depth, plan.depth[known], line[known]) for line in numbers.T])
    return Plane(numbers, centre, free)


@dataclass(frozen=True)
class Background:
    """What is subtracted: at the nodes (depth, latitude, longitude, or what broadcasts to it), at the observations, and how
    many free values were taken from the observations to know it."""

    nodes: np.ndarray
    there: np.ndarray
    free: int


def background_of(plan: Plan, group: slice, near: pd.DataFrame, used: np.ndarray, start: Any) -> Background:
    kind, depth = plan.parameters["background"], near["depth"].to_numpy(float)
    if kind == "profile":
        levels = int((per_level(plan, group, near, used) > 0).sum())
        there = start.at(depth, group.start + level_of(plan, group, near))
        return Background(start.mean[group][:, None, None], there, levels)
    if kind == "plane":
        levels = np.arange(group.start, group.stop)[:, None, None]
        nodes = start.at(levels, plan.longitude, plan.latitude[:, None])
        there = start.at(group.start + level_of(plan, group, near), near["longitude"], near["latitude"])
        return Background(nodes, np.asarray(there, float), int(start.free[group].sum()))
    if kind == "previous":
        nodes = dict(zip(DIMS[1:], np.ix_(plan.depth[group], plan.latitude, plan.longitude), strict=True))
        found = _backgrounds.at(start, nodes), _backgrounds.at(start, {n: near[n].to_numpy(float) for n in DIMS[1:]})
        if not np.isfinite(found[0]).all():
            raise InputError(
                "The input 'previous' has no value in a window of time. Give a field that covers the period."
            )
        if plan.transform is not None:
            found = plan.transform.forward(found[0]), plan.transform.forward(found[1])
            if not all(np.isfinite(values).all() for values in found):
                raise InputError(
                    "The input 'previous' has values at or beyond the bounds of the transform. Give wider "
                    "'transform_bounds', or another background."
                )
        return Background(*found, 0)
    mean = near[plan.parameters["variable"]].to_numpy(float)[used].mean() if kind == "mean" else 0.0
    return Background(np.full((1, 1, 1), mean), np.full(len(near), mean), int(kind == "mean"))


def _in_rim(values: np.ndarray, inner: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Values of the domain's nodes in the grid with its rim, where they are those of the nearest node."""
    values = values.reshape([size.stop - size.start for size in inner])
    return np.pad(values, [(one.start, size - one.stop) for one, size in zip(inner, shape, strict=True)], mode="edge")


def bounds_of(
    plan: Plan, background: Background, sea: np.ndarray, inner: tuple[slice, ...], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """What the anomalies must keep to, so that the analysis keeps to the range that was asked for."""
    ends = np.array(plan.parameters["analysis_range"])
    if plan.transform is not None:
        ends = plan.transform.forward(ends)
        ends[np.isnan(ends)] = -np.inf  # below the bound of a logarithm there is nothing to forbid
    found = (np.broadcast_to(end - background.nodes, sea.shape) for end in ends)
    return {name: _in_rim(each, inner, shape) for name, each in zip(("least", "greatest"), found, strict=True)}


def paths_of(
    plan: Plan, group: slice, currents: tuple[Any, Any], inner: tuple[slice, ...], shape: tuple[int, ...]
) -> list[np.ndarray]:
    """How far the currents carry the water in the time that was asked for, in metres along each dimension of the grid."""
    nodes = dict(zip(DIMS[1:], np.ix_(plan.depth[group], plan.latitude, plan.longitude), strict=True))
    time = plan.parameters["advection"] * 86400.0
    east, north = (_in_rim(time * _backgrounds.at(each, nodes), inner, shape) for each in currents)
    return [*([] if len(shape) == 2 else [np.zeros(shape)]), north, east]


def given(parameters: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The outputs that these parameters give, with their dimensions."""
    background = "background_field" if parameters["background"] in FIELDS else "background"
    names = ["analysis"]
    if parameters["error"] == "exact":
        names += ["analysis_error"]
        names += ["analysis_lower", "analysis_upper", "relative_error"] if parameters["transform"] != "none" else []
    names += [background, "background_deviation", "observations_used"]
    return {name: DIMS[:2] if name in PER_LEVEL else DIMS for name in names}


def deviation_of(plan: Plan, group: slice, mask: np.ndarray, near: pd.DataFrame) -> np.ndarray:
    """What the norm alone makes of the standard deviation of the background at these levels, whatever is observed."""
    (*grid, _, length), convention, _ = geometry(plan, group, mask, near)
    return variational.background_deviation(*grid, length, **convention)


def posed(
    plan: Plan,
    group: slice,
    mask: np.ndarray,
    near: pd.DataFrame,
    used: np.ndarray,
    begin: tuple[Any, Any],
    unit_variance: bool | np.ndarray,
) -> tuple[Background, tuple, dict[str, Any], tuple[slice, ...]]:
    """The background of some levels, arguments and options of their analysis, and the nodes of the domain in its grid."""
    settings, (start, currents) = plan.parameters, begin
    (*grid, length), convention, inner = geometry(plan, group, mask, near)
    background, shape = background_of(plan, group, near, used, start), grid[0].shape
    anomalies = near[settings["variable"]].to_numpy(float) - background.there
    options = {
        "solver": settings["solver"],
        "velocity": None if currents is None else paths_of(plan, group, currents, inner, shape),
        "unit_variance": unit_variance,
        **convention,
        **({} if settings["analysis_range"] is None else bounds_of(plan, background, mask[group], inner, shape)),
    }
    return background, (*grid, anomalies, length, settings["noise"]), options, inner


def influences_at(
    plan: Plan,
    group: slice,
    mask: np.ndarray,
    near: pd.DataFrame,
    used: np.ndarray,
    begin: tuple[Any, Any],
    unit_variance: bool,
    node: tuple[int, int, int],
) -> tuple[pd.DataFrame, float, float]:
    """What each used observation weighs and contributes at a node of these levels (its level among them, row and column),
    the background there, and what constraints contribute; all on the scale of the analysis."""
    background, asked, options, inner = posed(plan, group, mask, near, used, begin, unit_variance)
    place = node[-len(inner) :]
    place = tuple(at + one.start for at, one in zip(place, inner, strict=True))
    found = variational.influences(*asked, node=place, **options)
    anomalies = near[plan.parameters["variable"]].to_numpy(float) - background.there
    rows = near.assign(weight=found.weights, contribution=found.weights * anomalies)[used]
    return rows, float(np.broadcast_to(background.nodes, mask[group].shape)[node]), found.rest


def analyse_levels(
    plan: Plan,
    group: slice,
    mask: np.ndarray,
    near: pd.DataFrame,
    used: np.ndarray,
    begin: tuple[Any, Any],
    unit_variance: bool | np.ndarray = False,
) -> dict[str, np.ndarray]:
    """Everything in `given` for some levels; where no observation is used, nothing is known.

    `begin` is what the background of the window is made of, and its eastward and northward currents, each None if not asked
    for. `unit_variance` is that of `variational.analyse`.
    """
    sea, number = mask[group], per_level(plan, group, near, used)
    if not used.any():
        return nothing(plan, number, sea.shape)
    background, asked, options, inner = posed(plan, group, mask, near, used, begin, unit_variance)
    analyse = variational.analyse if plan.parameters["analysis_range"] is None else variational.analyse_within
    analysis = analyse(*asked, error="exact" if plan.parameters["error"] == "exact" else None, **options)
    variance = variance_of(analysis.cost, int(used.sum()) - background.free)
    relative = analysis.error_variance
    return outputs(
        plan,
        background.nodes,
        analysis.field[inner].reshape(sea.shape),
        None if relative is None else relative[inner].reshape(sea.shape),
        variance,
        number,
        sea,
    )


def variance_of(cost: float, free: int) -> float:
    """The background variance that makes the observations most probable with this length and noise.

    Their plain variance would count a slope across the domain, which the analysis follows, as uncertainty. One value, or
    values that are all the same, tell nothing of it.
    """
    return cost / free if free > 0 and cost > 0 else np.nan


def outputs(
    plan: Plan,
    background: np.ndarray,
    anomaly: np.ndarray,
    relative: np.ndarray | None,
    variance: float,
    number: np.ndarray,
    sea: np.ndarray,
) -> dict[str, np.ndarray]:
    """Everything in `given` for some levels, from the anomaly, its relative error variance and the background at nodes."""
    found = {
        "analysis": anomaly + background,
        "background": np.broadcast_to(background.mean(axis=(1, 2)), number.shape),
        "background_field": np.where(sea, background, np.nan),
        "background_deviation": np.full(number.shape, np.sqrt(variance)),
        "observations_used": number,
    }
    if relative is not None:
        found["relative_error"] = relative
        found["analysis_error"] = np.sqrt(variance * relative)
    if plan.transform is not None:
        found.update(transformed_back(plan.transform, found, plan.parameters["back_transform"]))
    return {name: found[name][None] for name in given(plan.parameters)}


def nothing(plan: Plan, number: np.ndarray, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Everything in `given` for some levels of which nothing was observed."""
    whole, flat = np.full((1, *shape), np.nan), np.full((1, number.size), np.nan)
    empty = {name: whole if dims == DIMS else flat for name, dims in given(plan.parameters).items()}
    return {**empty, "observations_used": number[None]}


def transformed_back(transform: Transform, found: Mapping[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Fields, errors and deviations in the units of the variable, and the interval of the analysis."""
    spread, back = found["background_deviation"], {}
    _, back["background_deviation"] = transform.moments(found["background"], spread)
    for name, error in (
        ("analysis", found.get("analysis_error")),
        ("background", spread),
        ("background_field", spread[:, None, None]),
    ):
        back[name] = transform.inverse(found[name])
        if error is not None and (what == "mean" or name == "analysis"):
            mean, deviation = transform.moments(found[name], error)
            back[name] = mean if what == "mean" else back[name]
            if name == "analysis":
                back["analysis_error"] = deviation
                back["analysis_lower"], back["analysis_upper"] = transform.interval(found[name], error)
    return back
