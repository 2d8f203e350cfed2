"""ocean.comparison: observations beside a field of a satellite or a model, and what the two say of each other's errors."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.chains.ocean import _grids, _inputs
from phidias_lab.chains.ocean._grids import DAY, PLACE, SEASONS, SLAB, seconds
from phidias_lab.chains.ocean._inputs import OBSERVATIONS
from phidias_lab.contract import Chain, Input, Resources, Var, choice, number, numbers, period, region
from phidias_lab.contract import variable as variable_of
from phidias_lab.contract.data import DIVERGES_FROM, Needs, column_attributes, extent, rows_in_all
from phidias_lab.contract.parameters import region_bounds, region_contains
from phidias_lab.contract.said import counts_line
from phidias_lab.errors import InputError
from phidias_lab.methods import agreement, match_ups, triple_collocation
from phidias_lab.methods.formats import flags

UNREAD, MISSING, IMPOSSIBLE, PERIOD, REGION, DEPTH, PLACE_FLAG, FLAG, IMPLAUSIBLE, COPY, NO_LOG, ALONE = REASONS = (
    "not in the region, period and depths",
    "without value or place",
    "impossible latitude",
    "outside the period",
    "outside the region",
    "too deep",
    "flag of place, time or depth not accepted",
    "flag not accepted",
    "implausible value",
    "duplicate",
    "not above zero",
    "without a value of the field nearby",
)
STATISTICS = _grids.statistics("field", "observations")
#: By how much a reader may give more than is asked for, so that its rounding takes no row away: degrees, days.
MORE_DEGREES, MORE_DAYS = 1e-3, 1


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    # Columns of a table take about six times the bytes of the file while they are sorted and compared.
    return {"memory": 2**30 + 6 * sizes.get("observations", {}).get("bytes", 0) + 4 * SLAB}


@dataclass(frozen=True)
class Field:
    """Where and when the values of a variable lie, whatever its axes are called."""

    array: xr.DataArray
    longitude: xr.DataArray
    latitude: xr.DataArray
    time: xr.DataArray
    start: np.ndarray  # s since 1970, of each time
    end: np.ndarray
    gridded: bool
    bounded: bool  # whether the times are spans


class Comparison(Chain):
    """Compare observations with a gridded field or a swath: match-ups, statistics, a map of the difference.

    Each observation is put beside the values of the field near it in space and time. The differences are told as
    statistics with confidence intervals, for all match-ups and by season, depth and region, and as a map with its
    uncertainty. Match-ups near each other share errors, so intervals are drawn from blocks of them, not from their number.
    With a third, independent source, triple collocation tells the error of each of the three without knowing the truth.
    """

    title = "Comparison of observations with a field"
    version = "1.0"
    inputs = {
        "observations": Input(
            "table",
            doc="observations, one row each; a column <variable>_qc holds SeaDataNet L20 flags where there is one",
            default="ocean.observations",
            variables=OBSERVATIONS,
        ),
        "field": Input(
            "cube",
            doc="a regular grid over time, latitude and longitude, or a swath with a place and time for each value",
            default="ocean.smos_10_day",
        ),
        "third": Input("cube", doc="a third source, independent of the others, in the same forms", optional=True),
    }
    outputs = {
        "observed": Var(long_name="{variable} as observed", dims=("match_up",)),
        "field": Var(long_name="{field_variable} near the observation", dims=("match_up",)),
        "third": Var(long_name="{third_variable} near the observation", dims=("match_up",), optional=True),
        "difference": Var(long_name="{field_variable} minus {variable}", dims=("match_up",)),
        "field_deviation": Var(long_name="standard deviation of the values near the observation", dims=("match_up",)),
        "field_number": Var("1", long_name="number of values near the observation", dims=("match_up",)),
        "distance": Var("m", long_name="distance of the values from the observation", dims=("match_up",)),
        "lag": Var("s", long_name="time of the values minus time of the observation", dims=("match_up",)),
        "number": Var("1", "number_of_observations", "number of match-ups", ("group",)),
        "effective_number": Var(
            "1", long_name="independent match-ups that would tell the bias as well", dims=("group",)
        ),
        **_grids.with_intervals(STATISTICS, ("group",)),
        "observed_deviation": Var(long_name="standard deviation of the observations", dims=("group",)),
        "mean_difference": Var(long_name="mean of {field_variable} minus {variable}", dims=("latitude", "longitude")),
        "mean_difference_error": Var(long_name="standard error of the mean difference", dims=("latitude", "longitude")),
        "mean_observed": Var(long_name="mean of {variable} at the match-ups", dims=("latitude", "longitude")),
        "mean_field": Var(long_name="mean of {field_variable} at the match-ups", dims=("latitude", "longitude")),
        "match_ups": Var("1", "number_of_observations", "number of match-ups", ("latitude", "longitude")),
        **_grids.with_intervals(
            (
                ("error_deviation", None, "standard deviation of the source's error, by triple collocation"),
                ("truth_correlation", "1", "correlation of the source with the truth, by triple collocation"),
                ("slope", "1", "change of the source per change of the first, by triple collocation"),
            ),
            ("source",),
            optional=True,
        ),
    }
    resources = Resources(cores=2, memory="2GiB", walltime="00:30:00", grows=_grows)
    scene = "phidias_lab.testing.scenes.satellite:comparison"
    references = (
        "McColl et al. 2014, Extended triple collocation: Estimating errors and correlation coefficients with respect to an "
        "unknown target, Geophys. Res. Lett. 41, 6229-6236, doi:10.1002/2014GL061322",
        "Stoffelen 1998, Toward the true near-surface wind speed: Error modeling and calibration using triple collocation, "
        "J. Geophys. Res. 103(C4), 7755-7766, doi:10.1029/97JC03180",
        "Cameron and Miller 2015, A practitioner's guide to cluster-robust inference, J. Human Resources 50, 317-372",
    )

    variable = variable_of("salinity", of="observations", doc="What was observed")
    field_variable = variable_of("Sea_Surface_Salinity", of="field", doc="The variable of the field")
    third_variable = variable_of("sea_surface_salinity", of="third", doc="The variable of the third source")
    matching = choice(
        "nearest",
        ["nearest", "mean", "footprint"],
        doc="Which values count: the nearest, all alike, or weighted as by a beam",
    )
    radius = number(25e3, bounds=(100, 1e6), units="m", scale="log", doc="How far from the observation a value may lie")
    window = number(
        0.0, bounds=(0, 60), units="d", doc="How far in time; beyond the span of a mean where the field says its spans"
    )
    deepest = number(10.0, bounds=(0, 1000), units="m", doc="Deeper observations say nothing of the surface")
    period = period(doc="First and last day; empty is all there is")
    region = region(doc="Part of the observations; empty is all of them")
    transform = _grids.transform_parameter()
    region_size = _grids.region_size_parameter()
    map_step = number(1.0, bounds=(0.05, 30), units="degree", scale="log", doc="Side of the cells of the map")
    depth_classes = numbers(
        None,
        bounds=(0, 1000),
        units="m",
        increasing=True,
        doc="Depths between which statistics are given; empty is none",
    )
    footprint = number(
        45e3,
        bounds=(100, 1e6),
        units="m",
        scale="log",
        doc="Width of the beam where its sensitivity is one half; for the matching 'footprint'",
        level="expert",
    )
    quality = choice("probably_good", list(flags.ACCEPTED), doc="Worst quality flag that is accepted", level="expert")
    value_range = numbers(
        None,
        bounds=(-1e9, 1e9),
        increasing=True,
        doc="Least and greatest value observed that is used; empty is Argo's global range test where the variable is known",
        level="expert",
    )
    block_length = _grids.block_length_parameter()
    block_days = _grids.block_days_parameter()
    confidence = number(
        0.95, bounds=(0.5, 0.999), doc="Probability with which intervals hold the truth", level="expert"
    )
    outliers = number(
        5.0,
        bounds=(2, 1000),
        doc="Triplets with a difference of so many robust deviations from its median are left out of triple collocation",
        level="expert",
    )

    def check(self, inputs: Mapping[str, Any]) -> None:
        _inputs.check_columns(inputs["observations"], self.variable, "compared")
        for name in ("field", "third"):
            if inputs.get(name) is not None:
                field = self._field(inputs, name)
                if not field.bounded and self.window == 0:
                    raise InputError(
                        f"The times of the input {name!r} are moments, not spans, and a window of 0 days around them "
                        "holds no observation. Give window, for example 0.5."
                    )
                self._converter(inputs["observations"], field.array, name)
        field = self._field(inputs, "field")
        known = extent(inputs["observations"], "time")
        if known is not None and field.start.size:
            first, last = (pd.Timestamp(moment).timestamp() for moment in known)
            if last < field.start.min() - self.window * DAY or first > field.end.max() + self.window * DAY:
                raise self._nothing()

    def needs(self, inputs: Mapping[str, Any]) -> Mapping[str, Needs]:
        found: dict[str, tuple] = {"depth": ((-np.inf, self.deepest),)}
        field = self._field(inputs, "field")
        days = pd.Timedelta(days=MORE_DAYS + self.window)
        start, end = (pd.Timestamp(moment, unit="s") for moment in (field.start.min(), field.end.max()))
        if self.period is not None:
            first, last = (pd.Timestamp(day) for day in self.period)
            start, end = max(start, first), min(end, last.normalize() + pd.Timedelta(days=1))
        found["time"] = ((start - days, max(start, end) + days),)
        if self.region is not None:
            west, south, east, north = region_bounds(self.region)
            found["latitude"] = ((south - MORE_DEGREES, north + MORE_DEGREES),)
            found["longitude"] = tuple(
                (west - MORE_DEGREES + turn, east + MORE_DEGREES + turn) for turn in (-720.0, -360.0, 0.0, 360.0, 720.0)
            )
        return {"observations": Needs(tuple(_inputs.columns(inputs["observations"], self.variable)), found)}

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        told = column_attributes(inputs["observations"]).get(self.variable, {})
        transform = _grids.transform_for(self.transform, self.variable, told)
        return {"transform": transform, "value_range": _inputs.value_range(self.value_range, self.variable, told)}

    def headline(self, inputs: Mapping[str, Any]) -> str:
        told = str(inputs["field"].attrs.get("title") or self.field_variable)
        return f"{self.variable.replace('_', ' ').capitalize()} observed and {told}"

    def run(self, observations: Any, field: xr.Dataset, third: xr.Dataset | None) -> xr.Dataset:
        self.report(0.0, "looking at the observations")
        inputs = {"observations": observations, "field": field, "third": third}
        table, counts = self._selected(observations)
        units = str(column_attributes(observations).get(self.variable, {}).get("units") or "")
        matched = self._matched(inputs, "field", table, 0.05, 0.6)
        near = np.isfinite(matched.value)
        counts[ALONE] = int((~near).sum())
        left_out = {reason: counts[reason] for reason in REASONS if counts[reason]}
        if not near.any():
            raise self._nothing(f" ({counts_line('observations', counts['total'], 0, left_out)})")
        self.counted("observations", counts["total"], left_out)
        table, matched = table[near].reset_index(drop=True), match_ups.Matched(*(part[near] for part in matched))
        block = agreement.blocks(
            table["longitude"].to_numpy(), table["latitude"].to_numpy(), table["seconds"].to_numpy(),
            self.block_length, self.block_days * DAY,
        )  # fmt: skip
        other = None if third is None else self._matched(inputs, "third", table, 0.6, 0.85).value
        self.report(0.9, "statistics")
        result = xr.merge(
            [
                self._match_ups(table, matched, other),
                self._statistics(table, matched.value, block),
                self._map(table, matched.value, block),
                *([] if other is None else [self._triplets(table, matched.value, other, block)]),
            ]
        )
        if self.transform == "log":
            result.attrs["comment"] = "Values are natural logarithms; statistics are those of the logarithms."
            return _grids.in_units(result, self.outputs, "1")
        told = {
            "observed": column_attributes(observations).get(self.variable, {}),
            "field": field[self.field_variable].attrs,
        }
        if third is not None:
            told["third"] = third[self.third_variable].attrs
        for name, attributes in told.items():
            if attributes.get("standard_name"):
                result[name].attrs["standard_name"] = attributes["standard_name"]
        return _grids.in_units(result, self.outputs, units)

    # The observations -------------------------------------------------------------------------------------------

    def _selected(self, observations: Any) -> tuple[pd.DataFrame, Counter]:
        """The observations that can be compared, in an order of their own, and how many were left out for each reason."""
        _inputs.check_columns(observations, self.variable, "compared")
        rows = observations[_inputs.columns(observations, self.variable)]
        rows = rows.compute() if hasattr(rows, "compute") else rows
        if rows["time"].dt.tz is not None:
            rows = rows.assign(time=rows["time"].dt.tz_convert("UTC").dt.tz_localize(None))
        value, depth, latitude, longitude = (
            rows[column].to_numpy(float, na_value=np.nan)
            for column in (self.variable, "depth", "latitude", "longitude")
        )
        bad: dict[str, np.ndarray] = {
            MISSING: ~np.isfinite([value, depth, latitude, longitude]).all(axis=0) | rows["time"].isna().to_numpy(),
            IMPOSSIBLE: np.abs(latitude) > 90,
        }
        if self.period is not None:
            first, last = (pd.Timestamp(day) for day in self.period)
            inside = (rows["time"] >= first) & (rows["time"] < last.normalize() + pd.Timedelta(days=1))
            bad[PERIOD] = ~inside.to_numpy()
        if self.region is not None:
            bad[REGION] = ~np.asarray(region_contains(self.region, longitude, latitude), bool)
        bad[DEPTH] = depth > self.deepest
        bad[PLACE_FLAG] = flags.refused_place(rows, self.quality)
        bad[FLAG] = flags.refused(rows, self.variable, self.quality)
        if self.value_range is not None:
            bad[IMPLAUSIBLE] = (value < self.value_range[0]) | (value > self.value_range[1])
        if "duplicate_of" in rows:
            bad[COPY] = (rows["duplicate_of"] >= 0).to_numpy()
        if self.transform == "log":
            bad[NO_LOG] = value <= 0
        keep, counts = np.ones(len(rows), bool), Counter(total=len(rows))
        for reason, wrong in bad.items():
            counts[reason] = int((keep & wrong).sum())
            keep &= ~wrong
        there = rows_in_all(observations)
        if there is not None:
            counts[UNREAD], counts["total"] = there - counts["total"], there
        value = value[keep]
        table = pd.DataFrame(
            {
                "time": rows["time"].to_numpy()[keep],
                "longitude": np.mod(longitude[keep] + 180.0, 360.0) - 180.0,
                "latitude": latitude[keep],
                "depth": depth[keep],
                "value": np.log(value) if self.transform == "log" else value,
            }
        )
        table["seconds"] = seconds(table["time"].to_numpy())
        columns = ["time", "latitude", "longitude", "depth", "value"]
        return table.sort_values(columns, kind="stable", ignore_index=True), counts

    def _nothing(self, counts: str = "") -> InputError:
        return InputError(
            f"No observation of {self.variable!r} has a value of {self.field_variable!r} within {self.radius / 1e3:g} km "
            f"and {self.window:g} days{counts}. Widen radius or window, or choose another period, region, depth or field."
        )

    # The fields -------------------------------------------------------------------------------------------------

    def _field(self, inputs: Mapping[str, Any], name: str) -> Field:
        data: xr.Dataset = inputs[name]
        array = data[getattr(self, f"{name}_variable")]
        longitude, latitude, time = (
            _grids.coordinate(data, array, name, axis) for axis in ("longitude", "latitude", "time")
        )
        _grids.check_dates(time, name)
        axes = [axis.dims[0] for axis in (longitude, latitude) if axis.ndim == 1]
        gridded = len(set(axes)) == 2 and set(axes) <= set(array.dims)
        if gridded:
            beyond = set(array.dims) - {*axes, *time.dims}
            deep = [d for d in beyond if array.sizes[d] > 1]
            if deep or time.ndim > 1:
                dims, more = (", ".join(map(str, names)) for names in (array.dims, deep or time.dims))
                raise InputError(
                    f"The variable {array.name!r} of the input {name!r} has the dimensions {dims}; a grid has time, "
                    f"latitude and longitude. Select one step of {more}."
                )
            array = array.isel(dict.fromkeys(beyond, 0))
        elif not set(longitude.dims) | set(latitude.dims) | set(time.dims) <= set(array.dims):
            raise InputError(
                f"Places and times of the input {name!r} do not lie on the dimensions of {array.name!r}. Choose a regular "
                "grid, or a swath with a longitude, latitude and time for each of its values."
            )
        moments = seconds(time.values)
        bounds = _grids.bounds_of(data, time)[0] if gridded else None
        if bounds is None:
            return Field(array, longitude, latitude, time, moments.ravel(), moments.ravel(), gridded, False)
        spans = seconds(bounds.values).reshape(-1, 2)
        # A span ends before the next begins.
        return Field(array, longitude, latitude, time, spans[:, 0], spans[:, 1] - 1e-3, gridded, True)

    def _converter(self, observations: Any, array: xr.DataArray, name: str):
        told = column_attributes(observations).get(self.variable, {})
        return _grids.conversion(told, array.attrs, (self.variable, str(array.name)), name)

    def _matched(
        self, inputs: Mapping[str, Any], name: str, table: pd.DataFrame, begin: float, stop: float
    ) -> match_ups.Matched:
        field = self._field(inputs, name)
        places = match_ups.Places(*(table[column].to_numpy(float) for column in ("longitude", "latitude", "seconds")))
        convert = self._converter(inputs["observations"], field.array, name)

        def values(array: xr.DataArray) -> np.ndarray:
            found = array.values.astype(float)
            found = found if convert is None else convert(found)
            if self.transform == "log":
                found = np.log(np.where(found > 0, found, np.nan))
            return found

        if not field.gridded:
            self.report(begin, f"match-ups with the {name}")
            full = xr.broadcast(*(part.reset_coords(drop=True) for part in _in_order(field)))
            there = match_ups.Places(
                *(part.values.ravel().astype(float) for part in full[:2]), seconds(full[2].values).ravel()
            )
            pairs = match_ups.scattered(places, there, self.radius, self.window * DAY)
            return self._combined(pairs, values(full[3]), len(table))
        return self._on_grid(field, name, places, values, begin, stop)

    def _on_grid(self, field: Field, name: str, places: match_ups.Places, values, begin, stop) -> match_ups.Matched:
        lat, lon = field.latitude.values.astype(float), field.longitude.values.astype(float)
        turned, order = _grids.in_order(lat, lon, name)
        when = field.time.dims[0] if field.time.ndim else None
        array = field.array if when else field.array.expand_dims("time")
        array = array.transpose(when or "time", field.latitude.dims[0], field.longitude.dims[0])
        steps = np.lexsort((field.end, field.start))
        start, end = field.start[steps], np.maximum.accumulate(field.end[steps])
        window = self.window * DAY
        rows = _reached(lat, places.latitude, np.rad2deg(self.radius / match_ups.EARTH_RADIUS))
        array = array.isel({array.dims[1]: rows, array.dims[2]: order})
        lat, turned = lat[rows], turned[order]
        most = max(1, SLAB // max(8 * lat.size * lon.size, 1))
        # Observations stand in the order of time: those of one slab of steps follow each other.
        low, high = np.searchsorted(end, places.time - window), np.searchsorted(start, places.time + window, "right")
        whole = [np.full(places.time.size, np.nan) for _ in match_ups.Matched._fields]
        here = 0
        while here < places.time.size:
            first = int(low[here])
            there = max(int(np.searchsorted(high, max(first + most, int(high[here])), "right")), here + 1)
            last = int(high[here:there].max())
            self.report(begin + (stop - begin) * here / places.time.size, f"match-ups with the {name}")
            if last > first:
                some = match_ups.Places(*(part[here:there] for part in places))
                pairs = match_ups.gridded(some, lat, turned, start[first:last], end[first:last], self.radius, window)
                slab = values(array.isel({array.dims[0]: steps[first:last]}))
                for kept, part in zip(whole, self._combined(pairs, slab, there - here), strict=True):
                    kept[here:there] = part
            here = there
        return match_ups.Matched(*whole)

    def _combined(self, pairs, values: np.ndarray, number: int) -> match_ups.Matched:
        if self.matching == "nearest":
            return match_ups.nearest(pairs, values, number)
        return match_ups.mean(pairs, values, number, self.footprint if self.matching == "footprint" else None)

    # The result -------------------------------------------------------------------------------------------------

    def _match_ups(self, table: pd.DataFrame, matched: match_ups.Matched, other: np.ndarray | None) -> xr.Dataset:
        observed = table["value"].to_numpy()
        found = {
            "observed": observed,
            "field": matched.value,
            **({} if other is None else {"third": other}),
            "difference": matched.value - observed,
            "field_deviation": matched.deviation,
            "field_number": matched.number.astype(np.int32),
            "distance": matched.distance,
            "lag": matched.lag,
        }
        result = xr.Dataset({name: ("match_up", values) for name, values in found.items()})
        for name in ("field", *([] if other is None else ["third"])):
            result[name].attrs["compared_with"] = "observed"
        return result.assign_coords(
            time=("match_up", table["time"].to_numpy(), {"standard_name": "time"}),
            match_up_longitude=("match_up", table["longitude"].to_numpy(), PLACE["longitude"]),
            match_up_latitude=("match_up", table["latitude"].to_numpy(), PLACE["latitude"]),
            depth=("match_up", table["depth"].to_numpy(), {"standard_name": "depth", "units": "m", "positive": "down"}),
        )

    def _statistics(self, table: pd.DataFrame, field: np.ndarray, block: np.ndarray) -> xr.Dataset:
        observed = table["value"].to_numpy()
        groups = list(self._groups(table))
        found = [agreement.of(observed[inside], field[inside], block[inside], self.confidence) for _, inside in groups]
        columns = {
            "number": [one.number for one in found],
            "effective_number": [one.effective_number for one in found],
            "observed_deviation": [observed[rows].std() if rows.size > 1 else np.nan for _, rows in groups],
            **_grids.tabulated(found, (name for name, _, _ in STATISTICS)),
        }
        return _grids.of_groups(columns, [name for name, _ in groups], "group of match-ups")

    def _groups(self, table: pd.DataFrame):
        """Name and rows of each group that has a match-up: all, seasons, depths, boxes of longitude and latitude."""
        yield "all", np.arange(len(table))
        season = table["time"].dt.month.to_numpy() % 12 // 3
        for k, name in enumerate(SEASONS):
            yield from _some(name, season == k)
        depth, edges = table["depth"].to_numpy(), self.depth_classes or []
        for top, bottom in itertools.pairwise(edges):
            yield from _some(f"{top:g}–{bottom:g} m", (depth >= top) & (depth < bottom))
        size = self.region_size
        row = np.floor(table["latitude"].to_numpy() / size).astype(int)
        column = np.floor(table["longitude"].to_numpy() / size).astype(int)
        for south, west in sorted(set(zip(row.tolist(), column.tolist(), strict=True))):
            inside = (row == south) & (column == west)
            yield from _some(_grids.box_name(south * size, west * size, size), inside)

    def _map(self, table: pd.DataFrame, field: np.ndarray, block: np.ndarray) -> xr.Dataset:
        step = self.map_step
        row, column = (np.floor(table[name].to_numpy() / step).astype(int) for name in ("latitude", "longitude"))
        south, west = int(row.min()), int(column.min())
        shape = (int(row.max()) - south + 1, int(column.max()) - west + 1)
        cell = (row - south) * shape[1] + column - west
        observed = table["value"].to_numpy()
        mean, error, number = agreement.means(field - observed, cell, block, int(np.prod(shape)))
        sums = [np.bincount(cell, weights=values, minlength=number.size) for values in (observed, field)]
        with np.errstate(invalid="ignore"):
            means = [total / np.where(number > 0, number, np.nan) for total in sums]
        dims = ("latitude", "longitude")
        found = {
            "mean_difference": mean,
            "mean_difference_error": error,
            "mean_observed": means[0],
            "mean_field": means[1],
        }
        result = xr.Dataset({name: (dims, values.reshape(shape)) for name, values in found.items()})
        result["match_ups"] = (dims, number.reshape(shape))
        result["mean_difference"].attrs[DIVERGES_FROM] = 0.0
        result["mean_difference"].attrs["ancillary_variables"] = "mean_difference_error match_ups"
        return result.assign_coords(
            latitude=("latitude", (np.arange(shape[0]) + south + 0.5) * step, {**PLACE["latitude"], "axis": "Y"}),
            longitude=("longitude", (np.arange(shape[1]) + west + 0.5) * step, {**PLACE["longitude"], "axis": "X"}),
        )

    def _triplets(self, table: pd.DataFrame, field: np.ndarray, other: np.ndarray, block: np.ndarray) -> xr.Dataset:
        names = [f"{self.variable} observed", self.field_variable, f"{self.third_variable} (third)"]
        values = np.column_stack([table["value"].to_numpy(), field, other])
        there = np.isfinite(values).all(axis=1)
        keep = there.copy()
        for i, j in ((0, 1), (0, 2), (1, 2)):
            apart = values[:, i] - values[:, j]
            if there.any():
                middle = np.median(apart[there])
                spread = agreement.SCALE * np.median(np.abs(apart[there] - middle))
                with np.errstate(invalid="ignore"):
                    keep &= ~(np.abs(apart - middle) > self.outliers * spread)
        counts = {"without a value of the third source": int((~there).sum()), "outlier": int((there & ~keep).sum())}
        self.counted("triplets", len(values), counts)
        try:
            found = triple_collocation.errors(values[keep], block[keep], names, self.confidence)
        except InputError as error:
            self.warn(f"No error was found by triple collocation. {error}")
            return xr.Dataset()
        columns = {"error_deviation": found.deviation, "truth_correlation": found.correlation, "slope": found.slope}
        result = xr.Dataset(
            {
                f"{name}{end}": ("source", np.array([estimate[k] for estimate in estimates]))
                for name, estimates in columns.items()
                for k, end in enumerate(("", "_low", "_high"))
            }
        )
        return result.assign_coords(
            source_name=("source", np.array(names, dtype=object), {"long_name": "source of the values"})
        )


def _some(name: str, inside: np.ndarray):
    if inside.any():
        yield name, np.flatnonzero(inside)


def _reached(axis: np.ndarray, places: np.ndarray, margin: float) -> slice:
    """The rows of an axis that lie near some place."""
    if not places.size:
        return slice(0, 0)
    near = np.flatnonzero((axis >= places.min() - 2 * margin) & (axis <= places.max() + 2 * margin))
    return slice(int(near[0]), int(near[-1]) + 1) if near.size else slice(0, 0)


def _in_order(field: Field) -> tuple[xr.DataArray, ...]:
    return field.longitude, field.latitude, field.time, field.array
