"""ocean.difference: one gridded field minus another, with the uncertainty of the difference and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse, stats

from phidias_lab.chains.ocean import _grids
from phidias_lab.chains.ocean._grids import DAY, PLACE, SEASONS, SLAB
from phidias_lab.chains.ocean._regular import (
    DIMS,
    Grid,
    Times,
    ends,
    from_the_surface,
    gridded,
    in_one_year,
    over,
)
from phidias_lab.contract import Chain, Input, Resources, Var, choice, number, period, region
from phidias_lab.contract import variable as variable_of
from phidias_lab.contract.data import DIVERGES_FROM, converter, standard_error_of
from phidias_lab.contract.parameters import region_bounds, region_contains
from phidias_lab.errors import InputError
from phidias_lab.methods import agreement, regridding
from phidias_lab.methods.regridding import Axis

#: Rounding of longitudes and latitudes, in degrees: a tenth of a millimetre.
NEAR = 1e-9
#: A step of time that is longer than this belongs to no season, in days.
SEASON = 100
#: What is summed beside the terms of `agreement`: the weight of a known significance, its square, and where it is large.
KNOWN, SQUARE, LARGE = range(agreement.DD + 1, agreement.DD + 4)
STATISTICS = _grids.statistics("field", "reference", without=("median", "robust_deviation"))


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    lengths = [sorted(n for dim, n in each.items() if dim != "bytes")[-2:] for each in sizes.values()]
    # Two cores hold some twenty planes each, and a part of an input that is read.
    return {"memory": 2**30 + 4 * SLAB + 40 * 8 * max((int(np.prod(pair)) for pair in lengths), default=0)}


class Side(NamedTuple):
    """A grid, and the weights (target, source) of its nodes along each of `DIMS`."""

    grid: Grid
    weights: dict[str, sparse.csr_array]


@dataclass(frozen=True)
class Plan:
    """On what the two are compared."""

    field: Side
    reference: Side
    longitude: Axis
    latitude: Axis
    depth: Axis | None
    time: Times | None
    inside: np.ndarray  # (latitude, longitude), whether in the region
    left_out: Mapping[str, tuple[int, int]]  # of levels and times, how many there are and how many are compared

    @property
    def tells_errors(self) -> bool:
        return self.field.grid.errors is not None or self.reference.grid.errors is not None

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(d for d in DIMS if d[0] in "l" or getattr(self, d) is not None)


class Difference(Chain):
    """Subtract one gridded field from another: map of the difference, its uncertainty, how significant it is, statistics.

    The field may be a product of ocean.gridding or any other on a regular grid, and so may the reference: a satellite's
    level 3 or 4, a climatology, an earlier product. The finer of the two is brought to the coarser, by area-weighted means
    of cells and by means over spans of time; where nodes differ but are no closer, values lie on lines between nodes. Levels
    are interpolated. A climatology is met by the same days of each year, and what has no depth is the surface.

    The uncertainty is the root of the sum of the squares of both standard errors: it takes the errors of the two for
    independent of each other, which two products made from the same observations are not. Where only one of them tells its
    error, that alone is given, and said to be. Statistics are weighted by area; their intervals rest on blocks within which
    differences may depend on each other.
    """

    title = "Difference of two gridded fields"
    version = "1.0"
    inputs = {
        "field": Input(
            "cube",
            doc="what is examined, on a regular grid: a product of ocean.gridding or another",
            default="ocean.smos_monthly",
        ),
        "reference": Input(
            "cube",
            doc="what is subtracted from it, on a regular grid of its own: of a satellite or a model, a climatology",
            default="ocean.model_salinity",
        ),
    }
    outputs = {
        "difference": Var(
            long_name="{variable} minus {reference_variable}",
            doc="over time, depth, latitude and longitude, as far as the two have them",
        ),
        "difference_error": Var(
            long_name="standard error of the difference",
            optional=True,
            doc="both standard errors combined in quadrature, or the one that is known; the errors of the two are taken for "
            "independent",
        ),
        "significance": Var(
            "1",
            long_name="size of the difference over its standard error",
            optional=True,
            doc="beyond about 2 a difference is more than the errors explain",
        ),
        "field": Var(long_name="{variable} of the field", doc="as it was compared"),
        "reference": Var(long_name="{reference_variable} of the reference", doc="as it was compared"),
        "number": Var("1", long_name="number of values compared", dims=("group",)),
        "effective_number": Var("1", long_name="independent values that would tell the bias as well", dims=("group",)),
        **_grids.with_intervals(STATISTICS, ("group",)),
        "observed_deviation": Var(long_name="standard deviation of the reference", dims=("group",)),
        **_grids.with_intervals(
            (("standardised_rmsd", "1", "root mean square of the difference over its standard error"),),
            ("group",),
            optional=True,
            doc="1 where the errors explain the differences",
        ),
        "significant_share": Var(
            "1",
            long_name="share of the area with a significant difference",
            dims=("group",),
            optional=True,
            doc="significant at the level of `confidence`",
        ),
    }
    resources = Resources(cores=2, memory="2GiB", walltime="00:30:00", grows=_grows)
    scene = "phidias_lab.testing.scenes.satellite:difference"
    references = (
        "Jones 1999, First- and second-order conservative remapping schemes for grids in spherical coordinates, "
        "Mon. Wea. Rev. 127, 2204-2210",
        "Taylor 2024, Truly conserving with conservative remapping methods, Geosci. Model Dev. 17, 415-430, "
        "doi:10.5194/gmd-17-415-2024",
        "Cameron and Miller 2015, A practitioner's guide to cluster-robust inference, J. Human Resources 50, 317-372",
    )

    variable = variable_of("Sea_Surface_Salinity", of="field", doc="The variable of the field")
    reference_variable = variable_of("sea_surface_salinity", of="reference", doc="The variable of the reference")
    onto = choice(
        "coarser",
        ["coarser", "field", "reference"],
        doc="Whose grid, levels and times the difference has: of each the coarser, or those of one of the two",
    )
    period = period(doc="First and last day; empty is all that both have")
    region = region(doc="Part of what both have; empty is all of it")
    surface = number(
        10.0, bounds=(0, 1000), units="m", doc="Down to here a level is the surface, for a field without depth"
    )
    transform = _grids.transform_parameter()
    region_size = _grids.region_size_parameter()
    coverage = number(
        0.5,
        bounds=(0.01, 1),
        doc="Least share of a cell and step of time for which there must be values",
        level="expert",
    )
    errors = choice(
        "dependent",
        ["dependent", "independent"],
        doc="How errors of values depend on each other that are averaged into one: dependent keeps the mean of their "
        "standard errors, which is the most that it can be, independent makes it smaller",
        level="expert",
    )
    error_variable = variable_of(
        None, of="field", doc="Standard error of the field; empty is the one that the field names", level="expert"
    )
    reference_error_variable = variable_of(
        None,
        of="reference",
        doc="Standard error of the reference; empty is the one that the reference names",
        level="expert",
    )
    block_length = _grids.block_length_parameter()
    block_days = _grids.block_days_parameter()
    confidence = number(
        0.95,
        bounds=(0.5, 0.999),
        doc="Probability with which intervals hold the truth, and that makes a difference significant",
        level="expert",
    )

    def check(self, inputs: Mapping[str, Any]) -> None:
        self.resolved(inputs)._plan(inputs)

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        field, reference = inputs["field"], inputs["reference"]
        return {
            "transform": _grids.transform_for(self.transform, self.variable, field[self.variable].attrs),
            "error_variable": self.error_variable or _error_of(field, self.variable),
            "reference_error_variable": self.reference_error_variable or _error_of(reference, self.reference_variable),
        }

    def headline(self, inputs: Mapping[str, Any]) -> str:
        names = {"field": self.variable, "reference": self.reference_variable}
        titles = [str(inputs[name].attrs.get("title") or variable) for name, variable in names.items()]
        return f"{self.variable.replace('_', ' ').capitalize()}: {titles[0]}, minus {titles[1]}"

    def run(self, field: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
        plan = self._plan({"field": field, "reference": reference})
        self._speak(plan)
        steps = [(t, z) for t in range(_size(plan.time)) for z in range(_size(plan.depth))]
        inside = dask.delayed(plan.inside)
        pieces = {step: self._piece(plan, inside, *step) for step in steps}
        result = self._maps(plan, pieces).merge(self._statistics(plan, pieces))
        told = {"field": field[self.variable].attrs, "reference": reference[self.reference_variable].attrs}
        return self._named(result.assign_coords(_coordinates(plan)), plan, told)

    # Where the two meet -----------------------------------------------------------------------------------------

    def _plan(self, inputs: Mapping[str, Any]) -> Plan:
        two = {
            "field": self._grid(inputs, "field", self.variable, self.error_variable),
            "reference": self._grid(inputs, "reference", self.reference_variable, self.reference_error_variable),
        }
        weights: dict[str, dict[str, sparse.csr_array]] = {name: {} for name in two}
        latitude, longitude = self._common_plane(two, weights)
        depth, levels = self._common_depth(two, weights)
        time, times = self._common_time(two, weights)
        inside = np.ones((latitude.nodes.size, longitude.nodes.size), bool)
        if self.region is not None:
            inside = np.asarray(region_contains(self.region, longitude.nodes[None, :], latitude.nodes[:, None]), bool)
        if not inside.any():
            raise InputError("The region holds no node of the grid of the two fields. Choose a larger region.")
        left_out = {"levels": levels, "times": times}
        return Plan(
            *(Side(two[name], weights[name]) for name in two), longitude, latitude, depth, time, inside, left_out
        )

    def _grid(self, inputs: Mapping[str, Any], name: str, variable: str, error: str | None) -> Grid:
        """The grid of an input, with what brings its values and errors into the units of the field."""
        data: xr.Dataset = inputs[name]
        told, wanted = data[variable].attrs, inputs["field"][self.variable].attrs
        convert = _grids.conversion(wanted, told, (self.variable, variable), name)
        zero, one = (0.0, 1.0) if convert is None else (float(convert(0.0)), float(convert(1.0)))
        if error is not None and _error_factor(data, variable, error) is None:
            raise InputError(
                f"The standard error {error!r} of the input {name!r} is in {data[error].attrs.get('units')!r}, and "
                f"{variable!r} is in {told.get('units')!r}. Choose a standard error in the units of the variable."
            )
        factor = 1.0 if error is None else (one - zero) * _error_factor(data, variable, error)
        return replace(gridded(data, variable, error, name), units=(one - zero, zero), error_units=factor)

    def _target(self, field_is_coarser: bool) -> str:
        return {"coarser": "field" if field_is_coarser else "reference"}.get(self.onto, self.onto)

    def _common_plane(self, two: Mapping[str, Grid], weights: Mapping[str, dict]) -> tuple[Axis, Axis]:
        area = {name: grid.longitude.width * grid.latitude.width for name, grid in two.items()}
        plane = two[self._target(area["field"] >= area["reference"] * (1 - regridding.SAME))]
        for name, grid in two.items():
            weights[name]["latitude"] = regridding.weights(grid.latitude, plane.latitude, regridding.on_the_sphere)
            weights[name]["longitude"] = regridding.weights_around(grid.longitude, plane.longitude)
        kept = {}
        for axis in ("latitude", "longitude"):
            nodes = getattr(plane, axis).nodes
            both = _covered(weights, axis) > 0
            if not both.any():
                raise self._apart(axis, two)
            if self.region is not None:
                west, south, east, north = region_bounds(self.region)
                low, high = (south, north) if axis == "latitude" else (0.0, east - west)
                # A node that lies a rounding outside is on the edge.
                places = nodes if axis == "latitude" else np.mod(nodes - west + NEAR, 360.0) - NEAR
                both &= _within(places, low - NEAR, high + NEAR)
            if not both.any():
                raise InputError(
                    f"The region {west:g},{south:g},{east:g},{north:g} holds no node of what the two fields have in common. "
                    "Choose a larger region, or another one."
                )
            kept[axis] = np.flatnonzero(both)
        lat, lon = kept["latitude"], kept["longitude"]
        lat = np.arange(lat[0], lat[-1] + 1)
        turns, lon = _in_a_row(plane.longitude.nodes[lon], lon)
        longitude = Axis(plane.longitude.nodes[lon] + turns, plane.longitude.cells[lon] + turns[:, None])
        for side in weights.values():
            side["latitude"], side["longitude"] = side["latitude"][lat], side["longitude"][lon]
        return Axis(plane.latitude.nodes[lat], plane.latitude.cells[lat]), longitude

    def _common_depth(
        self, two: Mapping[str, Grid], weights: Mapping[str, dict]
    ) -> tuple[Axis | None, tuple[int, int]]:
        """The levels, and how many there are of them in the one grid and in both."""
        having = [name for name, grid in two.items() if grid.depth is not None]
        for name in two:
            weights[name]["depth"] = sparse.csr_array(np.ones((1, 1)))
        if not having:
            return None, (1, 1)
        if len(having) == 1:
            depth = two[having[0]].depth
            if depth.nodes[0] > self.surface:
                raise InputError(
                    f"The input {having[0]!r} begins at {depth.nodes[0]:g} m, and the other has no depth, so it is taken to "
                    f"be the surface, down to {self.surface:g} m. Give surface, or choose fields with the same levels."
                )
            weights[having[0]]["depth"] = sparse.csr_array(np.eye(1, depth.nodes.size))
            return Axis(depth.nodes[:1], depth.cells[:1]), (1, 1)
        depths = {name: from_the_surface(grid.depth, self.surface) for name, grid in two.items()}
        field, reference = depths["field"], depths["reference"]
        shared = [
            _within(one.nodes, *ends(other.cells)).sum() for one, other in ((field, reference), (reference, field))
        ]
        target = depths[self._target(shared[0] <= shared[1])]
        for name, depth in depths.items():
            weights[name]["depth"] = regridding.lines(depth, target.nodes)
        both = np.flatnonzero(_covered(weights, "depth") > 0)
        if not both.size:
            raise self._apart("depth", two)
        for side in weights.values():
            side["depth"] = side["depth"][both]
        return Axis(target.nodes[both], target.cells[both]), (target.nodes.size, both.size)

    def _common_time(
        self, two: Mapping[str, Grid], weights: Mapping[str, dict]
    ) -> tuple[Times | None, tuple[int, int]]:
        """The steps, and how many there are of them in the one grid and in both."""
        having = [name for name, grid in two.items() if grid.time is not None]
        if not having:
            for name in two:
                weights[name]["time"] = sparse.csr_array(np.ones((1, 1)))
            return None, (1, 1)
        dated = [name for name in having if not two[name].time.yearly]
        if len(having) == 2 and len(dated) != 1:
            width = [two[name].time.width for name in ("field", "reference")]
            chosen = self._target(width[0] >= width[1] * (1 - regridding.SAME))
        else:
            chosen = (dated or having)[0]
        target = two[chosen].time
        spans = in_one_year(target) if target.yearly else target.spans
        for name, grid in two.items():
            weights[name]["time"] = over(grid.time, spans)
        both = _covered(weights, "time") >= self.coverage * (1 - 1e-9)
        if not both.any():
            raise self._apart("time", two)
        if self.period is not None:
            first, last = (pd.Timestamp(day) for day in self.period)
            last = last.normalize() + pd.Timedelta(days=1)
            both &= _within(spans.mean(axis=1), first.timestamp(), last.timestamp())
            if not both.any():
                raise InputError(
                    f"No step of time that both fields have lies in the period {first.date()} to {self.period[1][:10]}. "
                    "Choose another period."
                )
        rows = np.flatnonzero(both)
        for side in weights.values():
            side["time"] = side["time"][rows]
        return replace(target[rows], spans=spans[rows]), (len(spans), rows.size)

    def _apart(self, axis: str, two: Mapping[str, Grid]) -> InputError:
        said = []
        for name, grid in two.items():
            if axis == "time":
                first, last = (pd.Timestamp(end, unit="s").date() for end in ends(grid.time.spans))
                said.append(f"the {name} has {first} to {last}")
            else:
                first, last = ends(getattr(grid, axis).cells)
                said.append(f"the {name} has {first:g} to {last:g}{' m' if axis == 'depth' else ' degrees'}")
        hint = ", or a smaller coverage" if axis == "time" else ""
        return InputError(
            f"The two fields have no {axis} in common: {' and '.join(said)}. Choose fields that overlap{hint}."
        )

    # The maps ---------------------------------------------------------------------------------------------------

    def _piece(self, plan: Plan, inside: Any, t: int, z: int) -> Any:
        """All that is computed of one step of time and level, not yet computed."""
        log, independent = self.transform == "log", self.errors == "independent"
        means = []
        for side in (plan.field, plan.reference):
            total = None
            for values, errors, share, horizontal in _parts(side, t, z):
                total = dask.delayed(_added)(
                    total, values, errors, share, horizontal, side.grid.units, side.grid.error_units, log, independent
                )
            means.append(dask.delayed(regridding.mean)(total, self.coverage, independent))
        known = tuple(side.grid.errors is not None for side in (plan.field, plan.reference))
        return dask.delayed(_compared)(*means, known, inside)

    def _maps(self, plan: Plan, pieces: Mapping[tuple[int, int], Any]) -> xr.Dataset:
        names = ["difference", "field", "reference"]
        if plan.tells_errors:
            names += ["difference_error", "significance"]
        shape = (1,) * (len(plan.dims) - 2) + plan.inside.shape

        def cut(piece: Any, name: str) -> da.Array:
            return da.from_delayed(piece[name], plan.inside.shape, float).reshape(shape)

        result = {}
        for name in names:
            rows = [
                da.concatenate([cut(pieces[t, z], name) for z in range(_size(plan.depth))], axis=-3)
                if plan.depth is not None
                else cut(pieces[t, 0], name)
                for t in range(_size(plan.time))
            ]
            result[name] = (plan.dims, rows[0] if plan.time is None else da.concatenate(rows, axis=0))
        return xr.Dataset(result)

    # The statistics ---------------------------------------------------------------------------------------------

    def _statistics(self, plan: Plan, pieces: Mapping[tuple[int, int], Any]) -> xr.Dataset:
        lat, lon = plan.latitude, plan.longitude
        height = np.abs(np.diff(regridding.on_the_sphere(lat.cells), axis=1))
        area = np.where(plan.inside, height * np.abs(lon.cells[:, 1] - lon.cells[:, 0]), 0.0)
        column, row = (part.ravel() for part in np.meshgrid(lon.nodes, lat.nodes))
        block = agreement.blocks(column, row, np.zeros(row.size), self.block_length, 1.0)
        size = self.region_size
        box = [np.floor(part / size) for part in (row, np.mod(column + 180.0, 360.0) - 180.0)]
        used = plan.inside.ravel()
        boxes, code = agreement.together(*(part[used] for part in box))
        pairs, code = agreement.together(code, block[used])
        where = np.zeros(row.size, int)
        where[used] = code
        middles = np.zeros(1) if plan.time is None else plan.time.middles
        season = np.full(middles.size, -1)
        if plan.time is not None:
            short = plan.time.spans[:, 1] - plan.time.spans[:, 0] <= SEASON * DAY
            season = np.where(short, pd.to_datetime(middles, unit="s").month.to_numpy() % 12 // 3, -1)
        block_of_time = np.floor(middles / (self.block_days * DAY)).astype(int)
        large = stats.norm.ppf(0.5 + self.confidence / 2)
        shared = dask.delayed((area.ravel(), where, len(pairs), large), traverse=False)
        # What the same season, block of time and level have is added up at once, so that no more than that is held.
        together: dict[tuple[int, int, int], list] = {}
        for (t, z), piece in pieces.items():
            together.setdefault((season[t], block_of_time[t], z), []).append(dask.delayed(_sums)(piece, shared))
        parts = [dask.delayed(sum)(found) for found in together.values()]
        groups: list[tuple[str, str, Any]] = [("all", "all", 0)]
        seasons, levels = [k for k in np.unique(season) if k >= 0], [] if plan.depth is None else plan.depth.nodes
        if np.unique(season).size > 1:  # one alone is all there is
            groups += [(SEASONS[k], "season", k) for k in seasons]
        if len(levels) > 1:
            groups += [(f"{depth:g} m", "depth", z) for z, depth in enumerate(levels)]
        groups += [(_grids.box_name(*(box * size).tolist(), size), "box", k) for k, box in enumerate(boxes)]
        told = dask.delayed(_told)(parts, np.array(list(together)), pairs, groups, self.confidence)
        names = ["number", "effective_number", "observed_deviation"]
        names += [f"{name}{end}" for name, _, _ in STATISTICS for end in _grids.ENDS]
        if plan.tells_errors:
            names += [f"standardised_rmsd{end}" for end in _grids.ENDS] + ["significant_share"]
        kinds = {"number": np.int64}
        columns = {name: da.from_delayed(told[name], (len(groups),), kinds.get(name, float)) for name in names}
        return _grids.of_groups(columns, [name for name, _, _ in groups], "group of values")

    # What is said of them ---------------------------------------------------------------------------------------

    def _speak(self, plan: Plan) -> None:
        for what, (total, both) in plan.left_out.items():
            if total > both:
                self.counted(what, total, {"not in both fields or not asked for": total - both})
        for name, variable, side in self._sides(plan):
            for axis in ("time", "depth"):
                if getattr(side.grid, axis) is None and getattr(plan, axis) is not None:
                    same = "the same at all times" if axis == "time" else "that of the surface"
                    self.warn(f"The {name} has no {axis}, so its field was taken for {same}.")
            if side.grid.errors is None:
                self.warn(
                    f"The input {name!r} tells no standard error of {variable!r} in its units, so "
                    + (
                        "the uncertainty is that of the other alone."
                        if plan.tells_errors
                        else "there is no uncertainty."
                    )
                )

    def _sides(self, plan: Plan) -> tuple[tuple[str, str, Side], ...]:
        return (("field", self.variable, plan.field), ("reference", self.reference_variable, plan.reference))

    def _named(self, result: xr.Dataset, plan: Plan, told: Mapping[str, Mapping]) -> xr.Dataset:
        """With the attributes that depend on the inputs."""
        units = "1" if self.transform == "log" else str(told["field"].get("units") or "")
        result = _grids.in_units(result, self.outputs, units)
        for name, _, side in self._sides(plan):
            result[name].attrs["comment"] = _how(plan, side)
            if self.transform != "log" and told[name].get("standard_name"):
                result[name].attrs["standard_name"] = told[name]["standard_name"]
        result["difference"].attrs[DIVERGES_FROM] = 0.0
        if plan.tells_errors:
            result["difference"].attrs["ancillary_variables"] = "difference_error significance"
            known = [name for name, _, side in self._sides(plan) if side.grid.errors is not None]
            result["difference_error"].attrs["comment"] = (
                "square root of the sum of the squares of the standard errors of both fields, whose errors are taken to be "
                "independent of each other"
                if len(known) == 2
                else f"standard error of the {known[0]} alone; that of the other is not known"
            )
        if _is_temperature(units):  # CF conventions, 3.1.2
            for name in result.data_vars:
                if self.outputs[name].units is None:
                    kind = "on_scale" if name in ("field", "reference") else "difference"
                    result[name].attrs["units_metadata"] = f"temperature: {kind}"
        if self.transform == "log":
            result.attrs["comment"] = (
                "Values are natural logarithms; differences and statistics are those of logarithms."
            )
        return result


# Small things ------------------------------------------------------------------------------------------------------


def _error_of(data: xr.Dataset, variable: str) -> str | None:
    """The standard error that a cube names, if it is in the units of the variable."""
    found = standard_error_of(data, variable)
    return found if found is not None and _error_factor(data, variable, found) is not None else None


def _error_factor(data: xr.Dataset, variable: str, error: str) -> float | None:
    """What makes units of the variable of those of its error; None where they cannot be compared."""
    given, wanted = (str(data[name].attrs.get("units") or "") for name in (error, variable))
    if not given or not wanted:
        return 1.0
    try:
        convert = converter(given, wanted)
    except InputError:
        return None
    return 1.0 if convert is None else float(convert(1.0) - convert(0.0))


def _size(steps: Any) -> int:
    return 1 if steps is None else len(steps[0] if isinstance(steps, Axis) else steps.spans)


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values <= high)


def _covered(weights: Mapping[str, dict], axis: str) -> np.ndarray:
    """How much of each target node the poorer of the two covers."""
    return np.minimum(*(side[axis].sum(axis=1) for side in weights.values()))


def _in_a_row(longitude: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The turns that make some longitudes rise from west to east without a seam, and their rows in that order."""
    around = np.mod(longitude, 360.0)
    order = np.argsort(around, kind="stable")
    gaps = np.diff(around[order], append=around[order[0]] + 360.0)
    if np.isclose(gaps.max(), np.median(gaps), rtol=0.5):  # all around the globe
        order = np.arange(rows.size)
    else:
        order = np.roll(order, -1 - int(gaps.argmax()))
    rising = np.unwrap(longitude[order], period=360.0)
    if (rising != longitude[order]).any():
        rising -= 360.0 * np.floor((rising[0] + 180.0) / 360.0)
    return rising - longitude[order], rows[order]


def _is_temperature(units: str) -> bool:
    try:
        converter(units or "1", "kelvin")
    except InputError:
        return False
    return True


def _how(plan: Plan, side: Side) -> str:
    """How a field came to where it was compared."""
    ways = []
    for axis in DIMS:
        weights = side.weights[axis]
        if np.diff(weights.indptr).max(initial=0) > 1:
            mean = axis == "time" or (
                axis != "depth" and regridding.is_finer(getattr(side.grid, axis), getattr(plan, axis))
            )
            ways.append(f"{'mean' if mean else 'interpolated'} along {axis}")
    return f"as compared: {', '.join(ways) or 'values as they are'}"


def _coordinates(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for axis, letter in (("latitude", "Y"), ("longitude", "X")):
        found[axis] = (axis, getattr(plan, axis).nodes, {**PLACE[axis], "axis": letter})
    if plan.depth is not None:
        told = {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"}
        found["depth"] = ("depth", plan.depth.nodes, told)
    if plan.time is not None:
        told = {"standard_name": "time", "axis": "T"}
        if plan.time.bounds is not None:
            kind, name = ("climatology", "climatology_bounds") if plan.time.yearly else ("bounds", "time_bounds")
            told[kind] = name
            found[name] = (("time", "bounds"), plan.time.bounds)
        found["time"] = ("time", plan.time.moments, told)
    return found


# Pieces: what is computed where the data are ---------------------------------------------------------------------------


def _parts(side: Side, t: int, z: int):
    """What one step of time and level needs of a field, so much at a time as may be held: values, errors, the weight of each
    plane, and the weights along latitude and longitude."""
    horizontal, cut = [], {}
    for axis in DIMS[2:]:
        weights = side.weights[axis]
        used = weights.indices
        low, high = (int(used.min()), int(used.max()) + 1) if used.size else (0, 1)
        cut[axis] = slice(low, high)
        horizontal.append(weights[:, low:high])
    steps, share = _row(side.weights["time"], t)
    levels, part = _row(side.weights["depth"], z)
    plane = 8 * (cut["latitude"].stop - cut["latitude"].start) * (cut["longitude"].stop - cut["longitude"].start)
    many = max(1, SLAB // (plane * levels.size))
    for first in range(0, steps.size, many):
        some = slice(first, first + many)
        where = {**cut, "time": steps[some], "depth": levels}
        where = {axis: rows for axis, rows in where.items() if axis in side.grid.values.dims}
        values, errors = (
            None if each is None else each.isel(where).data for each in (side.grid.values, side.grid.errors)
        )
        yield values, errors, np.outer(share[some], part).ravel(), horizontal


def _row(weights: sparse.csr_array, row: int) -> tuple[np.ndarray, np.ndarray]:
    one = slice(weights.indptr[row], weights.indptr[row + 1])
    order = np.argsort(weights.indices[one], kind="stable")
    return weights.indices[one][order], weights.data[one][order]


def _added(before, values, errors, share, horizontal, units, error_units, log, independent) -> regridding.Summed:
    """The sums with those of some more planes."""
    shape = (share.size, *np.shape(values)[-2:])
    values = np.asarray(values, float).reshape(shape) * units[0] + units[1]
    errors = None if errors is None else np.asarray(errors, float).reshape(shape) * error_units
    if log:
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = None if errors is None else errors / values  # to the first order
            values = np.log(np.where(values > 0, values, np.nan))
    found = regridding.summed(values, errors, share, horizontal, independent)
    return found if before is None else regridding.Summed(*(a + b for a, b in zip(before, found, strict=True)))


def _compared(field, reference, known: tuple[bool, bool], inside: np.ndarray) -> dict[str, np.ndarray]:
    """The difference of two fields (values, errors), its error and its significance."""
    both = inside & np.isfinite(field[0]) & np.isfinite(reference[0])
    result = {"field": np.where(both, field[0], np.nan), "reference": np.where(both, reference[0], np.nan)}
    result["difference"] = result["field"] - result["reference"]
    if any(known):
        errors = [one[1] for one, told in zip((field, reference), known, strict=True) if told]
        error = np.where(both, np.hypot(*errors) if len(errors) == 2 else errors[0], np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            result["difference_error"] = error
            result["significance"] = np.where(error > 0, np.abs(result["difference"]) / error, np.nan)
    return result


def _sums(piece: Mapping[str, np.ndarray], shared: tuple) -> np.ndarray:
    """The terms of `agreement.sums` for each box and block, and those of the significance."""
    area, where, many, large = shared
    difference = piece["difference"].ravel()
    there = np.isfinite(difference)
    area, where = area[there], where[there]
    of = [piece[name].ravel()[there] for name in ("reference", "field")]
    found = [agreement.sums(*of, area, where, many)]
    significance = piece["significance"].ravel()[there] if "significance" in piece else np.full(area.size, np.nan)
    known = np.isfinite(significance)
    for term in (np.ones(area.size), significance**2, significance > large):
        found.append(np.bincount(where[known], weights=(area * term)[known], minlength=many)[:, None])
    return np.concatenate(found, axis=1)


def _told(
    parts: list[np.ndarray], keys: np.ndarray, pairs: np.ndarray, groups: list[tuple[str, str, Any]], level: float
) -> dict[str, np.ndarray]:
    """The statistics of each group. `keys` hold season, block of time and level of each part, `pairs` box and block of
    each of its rows."""
    whole = np.stack(parts)
    found, more = [], {name: [] for name in ("observed_deviation", "significant_share")}
    explained = []
    for _, kind, which in groups:
        some = (
            np.arange(len(keys))
            if kind in ("all", "box")
            else np.flatnonzero(keys[:, {"season": 0, "depth": 2}[kind]] == which)
        )
        rows = np.flatnonzero(pairs[:, 0] == which) if kind == "box" else np.arange(len(pairs))
        code = (keys[some, 1] - keys[:, 1].min())[:, None] * (pairs[:, 1].max() + 1) + pairs[rows, 1]
        block = np.unique(code, return_inverse=True)[1].reshape(-1)
        terms = whole[np.ix_(some, rows)].reshape(block.size, -1)
        summed = np.column_stack([np.bincount(block, weights=term) for term in terms.T])
        found.append(agreement.of_sums(summed[:, :KNOWN], level))
        total = summed.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total[agreement.X] / total[agreement.W]
            more["observed_deviation"].append(
                np.sqrt(np.maximum(total[agreement.XX] / total[agreement.W] - mean**2, 0.0))
            )
            more["significant_share"].append(total[LARGE] / total[KNOWN])
        explained.append(_explained(summed[summed[:, KNOWN] > 0], level))
    if not any(one.number for one in found):
        raise InputError(
            "No node has a value of both fields: where one has sea or data, the other has none (of a logarithm, none above "
            "0). Choose fields of the same sea and time, or a lower coverage."
        )
    result = {name: np.array(values) for name, values in more.items()}
    result |= {f"standardised_rmsd{end}": np.array([one[k] for one in explained]) for k, end in enumerate(_grids.ENDS)}
    result["number"] = np.array([one.number for one in found], np.int64)
    result["effective_number"] = np.array([one.effective_number for one in found])
    return result | _grids.tabulated(found, (name for name, _, _ in STATISTICS))


def _explained(summed: np.ndarray, level: float) -> agreement.Estimate:
    """The root mean square of the difference over its standard error."""
    if not len(summed):
        return agreement.MISSING
    weight = summed[:, KNOWN]
    within = agreement.Blocks(np.arange(len(summed)), level, weight)
    square = summed[:, SQUARE].sum() / weight.sum()
    root = float(np.sqrt(square))
    return within.positive(root, (summed[:, SQUARE] - square * weight) / (2 * root) if root > 0 else weight)
