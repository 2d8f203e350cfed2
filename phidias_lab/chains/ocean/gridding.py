"""ocean.gridding: scattered observations onto a grid, with the error of the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.contract import Chain, Input, Resources, Var, choice, flag, number, numbers, period, region, variable
from phidias_lab.contract.data import Needs, column_attributes, converter, extent, rows_in_all
from phidias_lab.contract.parameters import region_bounds, region_contains
from phidias_lab.contract.said import counts_line
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import duplicates, ranges, variational
from phidias_lab.methods.formats import flags
from phidias_lab.methods.variational import solvers

DIMS = ("time", "depth", "latitude", "longitude")
#: A depth may be this far above the surface, in metres: waves and the zero of a pressure sensor put the values of
#: instruments that float at the surface a few decimetres too high. Beyond lies a wrong sign or a sign for "missing".
ABOVE_SURFACE = 0.5
#: Why an observation is left out; the first that holds is the one that is counted. What a reader was told not to read
#: (see `Gridding.needs`) is known by its number alone, so all reasons of place and time are one there.
(
    UNREAD,
    MISSING,
    IMPOSSIBLE_PLACE,
    PERIOD,
    GRID,
    REGION,
    LEVELS,
    PLACE_FLAG,
    FLAG,
    IMPLAUSIBLE,
    DUPLICATE,
    NOT_AT_SEA,
) = REASONS = (
    "not in the grid, levels and period",
    "without value or place",
    "impossible depth or latitude",
    "outside the period",
    "outside the grid",
    "outside the region",
    "between or beyond the levels",
    "flag of place, time or depth not accepted",
    "flag not accepted",
    "implausible value",
    "duplicate",
    "not at sea",
)
UPWARDS = "Depth counts downwards: 10 is ten metres below the surface."
#: Rounding of a longitude that is turned, in degrees: a tenth of a millimetre.
NEAR = 1e-9
#: By how much a reader may give more than is asked for, so that its rounding never takes away a row: degrees, metres, days.
MORE_DEGREES, MORE_METRES, MORE_DAYS = 1e-3, 0.1, 1
#: A map of a longer period than this mixes seasons, in days.
MIXED = 150
#: Bytes per node in the plane and in space: of a factor and its selected inverse (measured at 500 x 500 and 60 x 60 x 20),
#: of a factor of another package, and of the iterative solver.
BYTES_PER_NODE = {2: 3_100, 3: 38_000}
BYTES_PER_NODE_OF = {"splu": {2: 5_600, 3: 60_000}, "iterative": {2: 1_400, 3: 7_000}}


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    domain = sizes.get("domain", {})
    nodes = domain.get("latitude", 1) * domain.get("longitude", 1)
    needed = BYTES_PER_NODE_OF.get(parameters["solver"], BYTES_PER_NODE)
    if parameters["vertical_length"] > 0:
        return {"memory": nodes * domain.get("depth", 1) * needed[3]}
    return {"memory": 2 * nodes * needed[2]}


@dataclass(frozen=True)
class Window:
    """A span of time: from start, up to but without end."""

    start: pd.Timestamp
    end: pd.Timestamp

    @property
    def middle(self) -> pd.Timestamp:
        return self.start + (self.end - self.start) / 2


def windows(first: pd.Timestamp, last: pd.Timestamp, every: str) -> list[Window]:
    """Windows that cover first to last (both days belong): whole, or by calendar year, season (DJF, MAM, ...) or month."""
    first, stop = first.normalize(), last.normalize() + pd.Timedelta(days=1)
    if every == "whole":
        return [Window(first, stop)]
    months = {"yearly": 12, "seasonal": 3, "monthly": 1}[every]
    start = first.replace(day=1)
    # Seasons begin with December, so months are counted from there; years begin with January.
    start -= pd.DateOffset(months=start.month % 3 if every == "seasonal" else (start.month - 1) % months)
    found = []
    while start < stop:
        end = start + pd.DateOffset(months=months)
        found.append(Window(max(start, first), min(end, stop)))
        start = end
    return found


class Gridding(Chain):
    """Analyse scattered ocean observations onto a grid, with an error field.

    The analysis is the field that is at once close to the observations and smooth, where smooth is measured by the norm
    of DIVAnd: coasts and the sea floor stop the influence of an observation, and the error of the result comes from the
    same equations. Each depth level and time window is analysed by itself, or all levels together when a vertical
    correlation length is given.
    """

    title = "Variational gridding of in-situ observations"
    version = "1.0"
    inputs = {
        "observations": Input(
            "table",
            doc="observations, one row each; a column <variable>_qc holds SeaDataNet L20 flags where there is one",
            default="ocean.observations",
            variables={
                "longitude": Var("degrees_east", standard_name="longitude"),
                "latitude": Var("degrees_north", standard_name="latitude"),
                "depth": Var("m", standard_name="depth", doc="positive downwards"),
                "time": Var(standard_name="time"),
            },
        ),
        "domain": Input(
            "cube",
            doc="the grid, and where it is sea",
            default="ocean.north_east_atlantic",
            role="support",
            dims=("depth", "latitude", "longitude"),
            variables={
                "mask": Var("1", standard_name="sea_binary_mask", doc="1 at sea, 0 on land and below the sea floor"),
                "longitude": Var("degrees_east", standard_name="longitude"),
                "latitude": Var("degrees_north", standard_name="latitude"),
                "depth": Var("m", standard_name="depth"),
            },
        ),
    }
    outputs = {
        "analysis": Var(
            "{variable.units}", "{variable.standard_name}", "analysis of {variable}", DIMS, cell_methods="time: mean"
        ),
        "analysis_error": Var(
            "{variable.units}",
            "{variable.standard_name} standard_error",
            "standard deviation of the error of the analysis of {variable}",
            DIMS,
            optional=True,
            doc="the square root of the error variance; (analysis_error / background_deviation)^2 is the relative error "
            "variance that DIVA shows",
        ),
        "background": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "mean of the observations, to which the analysis returns",
            DIMS[:2],
            cell_methods="area: time: mean",
        ),
        "background_deviation": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "standard deviation of {variable} around the background, without that of the observation errors",
            DIMS[:2],
            cell_methods="area: time: standard_deviation",
        ),
        "observations_used": Var("1", "number_of_observations", "number of observations used", DIMS[:2]),
    }
    resources = Resources(cores=2, memory="2GiB", walltime="00:30:00", grows=_grows)
    scene = "phidias_lab.testing.scenes.ocean:gridding"
    references = (
        "Barth et al. 2014, divand-1.0: n-dimensional variational data analysis for ocean observations, "
        "Geosci. Model Dev. 7, 225-241, doi:10.5194/gmd-7-225-2014",
        "Troupin et al. 2012, Generation of analysis and consistent error fields using the Data Interpolating "
        "Variational Analysis (DIVA), Ocean Modelling 52-53, 90-101, doi:10.1016/j.ocemod.2012.05.002",
    )

    variable = variable("temperature", of="observations", doc="What is gridded")
    length = number(
        200e3,
        bounds=(1e3, 2e6),
        units="m",
        scale="log",
        doc="Horizontal correlation length: how far an observation speaks",
    )
    noise = number(
        0.5,
        bounds=(1e-4, 100),
        units="1",
        scale="log",
        doc="Variance of the observation errors over that of the field: large trusts the observations less",
    )
    windows = choice(
        "whole",
        ["whole", "yearly", "seasonal", "monthly"],
        doc="How the period is cut; each part is analysed by itself",
    )
    period = period(doc="First and last day; empty is all there is")
    region = region(doc="Part of the domain; empty is all of it")
    depths = numbers(
        None, bounds=(0, 12000), units="m", increasing=True, doc="Levels of the domain to analyse; empty is all of them"
    )
    quality = choice("probably_good", list(flags.ACCEPTED), doc="Worst quality flag that is accepted", level="expert")
    value_range = numbers(
        None,
        bounds=(-1e9, 1e9),
        increasing=True,
        doc="Least and greatest value that is used, in the units of the variable; empty is what Argo's global range test "
        "leaves of a known variable, and everything of another",
        level="expert",
    )
    drop_duplicates = flag(
        True,
        doc="Use an observation only once that came twice; a table of ocean.quality says itself which those are",
        level="expert",
    )
    background = choice(
        "mean",
        ["mean", "none"],
        doc="What is subtracted first: the mean of the observations, or nothing",
        level="expert",
    )
    vertical_length = number(
        0.0,
        bounds=(0, 5000),
        units="m",
        doc="Vertical correlation length; 0 analyses each level by itself, else all observations between the levels count",
        level="expert",
    )
    error = choice("exact", ["exact", "none"], doc="How the error variance is computed", level="expert")
    edge_stretch = number(
        1.0,
        bounds=(0, 3),
        doc="How far the rim around the grid is moved out, in correlation lengths, so that walls matter less; 0 has no rim",
        level="expert",
    )
    unit_variance = flag(
        True,
        doc="Give the background the same variance beside coasts as in the open sea; without, the norm has two to three "
        "times as much there, and so has the error. The iterative solver cannot",
        level="expert",
    )
    solver = choice("auto", ["auto", *solvers.SOLVERS], doc="How the linear system is solved", level="expert")

    def check(self, inputs: Mapping[str, Any]) -> None:
        observations, levels = inputs["observations"], inputs["domain"]["depth"].values.astype(float)
        domain = self._domain(inputs["domain"])
        self._check_columns(observations)
        for column, intervals in self._ranges(domain, levels).items():
            known = extent(observations, column)
            if known is not None:
                low, high = (_comparable(end) for end in known)
                if not any(low <= _comparable(end) and _comparable(start) <= high for start, end in intervals):
                    raise self._no_observation(hint=UPWARDS if column == "depth" and high < -ABOVE_SURFACE else "")

    def needs(self, inputs: Mapping[str, Any]) -> Mapping[str, Needs]:
        levels = inputs["domain"]["depth"].values.astype(float)
        found = self._ranges(self._domain(inputs["domain"]), levels)
        # Impossible depths are read to be counted as such: depths of the wrong sign are a mistake that is worth saying.
        found["depth"] += ((-np.inf, -ABOVE_SURFACE),)
        return {"observations": Needs(tuple(self._columns(inputs["observations"])), found)}

    def headline(self, inputs: Mapping[str, Any]) -> str:
        domain = self._domain(inputs["domain"])
        depths = [f"{domain['depth'].values[k]:g}" for k in (0, -1)]
        parts = [self.variable.replace("_", " ").capitalize(), "–".join(dict.fromkeys(depths)) + " m"]
        parts += [self.windows] if self.windows != "whole" else []
        days = self.period or extent(inputs["observations"], "time")
        if days is not None:
            parts.append(_in_words(*(pd.Timestamp(day) for day in days), exact=self.period is not None))
        if self.region is not None:
            west, south, east, north = region_bounds(self.region)
            parts.append(
                f"{_degrees(west, 'EW')} to {_degrees(east, 'EW')}, {_degrees(south, 'NS')} to {_degrees(north, 'NS')}"
            )
        else:
            # By convention a title of the lake says the place first: "Baltic Sea: grid, mask and sea floor".
            place, colon, _ = str(inputs["domain"].attrs.get("title", "")).partition(":")
            parts += [place] if colon else []
        return ", ".join(parts)

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        domain = self._domain(inputs["domain"])
        solver = solvers.choose() if self.solver == "auto" else self.solver
        return {
            "solver": solver,
            # It takes a factor, which the iterative solver is there to avoid.
            "unit_variance": self.unit_variance and solver != "iterative",
            "depths": [float(d) for d in domain["depth"].values],
            "value_range": self._range(inputs["observations"]),
        }

    def places(self, inputs: Mapping[str, Any]) -> pd.DataFrame:
        domain = self._domain(inputs["domain"])
        plan = self._plan(domain, inputs["domain"]["depth"].values)
        table, counts = self._selected(inputs["observations"], plan)
        found = [
            pd.DataFrame({"time": table["time"], **dict.fromkeys(("depth", "longitude", "latitude"), 0.0)}).iloc[:0]
        ]
        spans = [] if table.empty else self._windows(table)
        pieces = self._pieces(table, plan, checked_mask(domain["mask"].values), spans, counts)
        for span, row in zip(spans, pieces, strict=True):
            for group, near, used in row:
                level = group.start + level_of(plan, group, near)[used]
                place = {name: near[name].to_numpy(float)[used] for name in ("longitude", "latitude")}
                found.append(pd.DataFrame({"time": span.middle, "depth": plan.depth[level], **place}))
        return pd.concat([rows for rows in found if len(rows)] or found, ignore_index=True)

    def run(self, observations: Any, domain: xr.Dataset) -> xr.Dataset:
        return self._assemble(*self.prepared(observations, domain))

    def prepared(self, observations: Any, domain: xr.Dataset) -> tuple[Plan, np.ndarray, list[Window], list]:
        """What is analysed: the plan, the mask, the windows, and for each of these its groups of levels as (levels,
        observations near them, which of those are used)."""
        levels = domain["depth"].values
        domain = self._domain(domain)
        plan = self._plan(domain, levels)
        self.report(0.0, "looking at the observations")
        units = column_attributes(observations).get(self.variable, {}).get("units")
        table, counts = self._selected(observations, plan)
        if table.empty:
            self._refuse_nothing(counts, units)
        spans = self._windows(table)
        mask = checked_mask(domain["mask"].values)
        pieces = self._pieces(table, plan, mask, spans, counts)
        self._speak(table, plan, spans, pieces, counts, column_attributes(observations).get(self.variable, {}))
        return plan, mask, spans, pieces

    # The domain -------------------------------------------------------------------------------------------------

    def _plan(self, domain: xr.Dataset, levels: np.ndarray) -> Plan:
        """What the analysis works with, for the part of a domain that has these levels in all."""
        lon, lat, depth = (domain[name].values.astype(float) for name in ("longitude", "latitude", "depth"))
        return Plan(lon, lat, depth, cell_edges(np.asarray(levels, float), depth), self.parameters)

    def _domain(self, domain: xr.Dataset) -> xr.Dataset:
        """The part of the domain that is asked for, its longitudes rising without a seam; only coordinates are read."""
        foreign = set(domain["mask"].dims) ^ {"depth", "latitude", "longitude"}
        if foreign:
            raise InputError(
                f"The domain's mask has the dimensions {', '.join(map(str, domain['mask'].dims))}; it must have depth, "
                "latitude and longitude, and no other. Select one step of the others, or add what is missing."
            )
        domain = domain[["mask"]].transpose("depth", "latitude", "longitude")
        own = domain["longitude"].values
        west = None if self.region is None else region_bounds(self.region)[0]
        domain = domain.assign_coords(longitude=unrolled(domain["longitude"].values.astype(float), west))
        domain = domain.sortby(["depth", "latitude", "longitude"])
        for name in ("depth", "latitude", "longitude"):
            values = domain[name].values
            if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
                raise InputError(
                    f"The domain's {name} must be a vector of different finite numbers. Choose a regular domain."
                )
        if self.depths is not None:
            levels = domain["depth"].values
            for depth in self.depths:
                if not np.isclose(levels, depth).any():
                    raise InputError(
                        f"Parameter 'depths' was given {depth:g} m, which is no level of the domain. "
                        f"Its levels are {', '.join(f'{v:g}' for v in levels)} m."
                    )
            domain = domain.sel(depth=self.depths, method="nearest")
        if self.region is not None:
            domain = self._cut(domain, own)
        if min(domain.sizes["latitude"], domain.sizes["longitude"]) < 2:
            raise InputError("The domain has less than two rows or columns of nodes. Choose a larger region.")
        return domain

    def _cut(self, domain: xr.Dataset, own: np.ndarray) -> xr.Dataset:
        west, south, east, north = region_bounds(self.region)
        lon, lat = domain["longitude"].values, domain["latitude"].values
        keep_lon, keep_lat = (lon >= west - NEAR) & (lon <= east + NEAR), (lat >= south) & (lat <= north)
        if keep_lon.sum() < 2 or keep_lat.sum() < 2:
            raise InputError(
                f"The region {west:g},{south:g},{east:g},{north:g} holds less than two rows or columns of the domain, "
                f"which spans {own.min():g} to {own.max():g} degrees east and {lat.min():g} to {lat.max():g} degrees "
                "north. Choose a region inside it, or another domain."
            )
        domain = domain.isel(longitude=keep_lon, latitude=keep_lat)
        if isinstance(self.region, dict):
            lon2, lat2 = np.meshgrid(domain["longitude"].values, domain["latitude"].values)
            inside = xr.DataArray(region_contains(self.region, lon2, lat2), dims=("latitude", "longitude"))
            domain = domain.assign(mask=domain["mask"].where(inside, 0))
        return domain

    # The observations -------------------------------------------------------------------------------------------

    def _range(self, observations: Any) -> list[float] | None:
        """Least and greatest value that counts, in the units of the column."""
        if self.value_range is not None:
            if len(self.value_range) != 2:
                raise ParameterError(
                    f"Parameter 'value_range' was given {len(self.value_range)} numbers; it needs two, the least and the "
                    "greatest value that is used."
                )
            return self.value_range
        told = column_attributes(observations).get(self.variable, {})
        known = ranges.of(self.variable, told.get("standard_name"))
        if known is None:
            return None
        units = told.get("units") or known.units
        try:
            convert = converter(known.units, units)
        except InputError:
            return None  # `_speak` says so
        ends = (known.least, known.greatest)
        return [float(end if convert is None else convert(end)) for end in ends]

    def _columns(self, observations: Any) -> list[str]:
        columns = ["longitude", "latitude", "depth", "time", self.variable]
        beside = ("platform", *flags.beside(self.variable))
        return columns + [name for name in beside if name in observations.columns]

    def _ranges(self, domain: xr.Dataset, levels: np.ndarray) -> dict[str, tuple[tuple[Any, Any], ...]]:
        """Between what an observation must lie at least to be of use: a little more than `_select` leaves."""
        lon, lat = domain["longitude"].values, domain["latitude"].values.astype(float)
        cells = reach(cell_edges(levels, domain["depth"].values.astype(float)), self.vertical_length)
        found = {
            "latitude": ((lat.min() - MORE_DEGREES, lat.max() + MORE_DEGREES),),
            "depth": tuple((top - MORE_METRES, bottom + MORE_METRES) for top, bottom in cells.tolist()),
        }
        if not _is_cyclic(lon):
            west, east = lon[0] - MORE_DEGREES, lon[-1] + MORE_DEGREES
            found["longitude"] = tuple((west + turn, east + turn) for turn in (-720.0, -360.0, 0.0, 360.0, 720.0))
        if self.period is not None:
            start, end = (pd.Timestamp(day) for day in self.period)
            days = pd.Timedelta(days=MORE_DAYS)
            found["time"] = ((start - days, end.normalize() + pd.Timedelta(days=1) + days),)
        return found

    def _check_columns(self, observations: Any) -> None:
        if getattr(observations.dtypes["time"], "kind", "O") != "M":
            raise InputError("The column 'time' of the observations holds no dates. Convert it to dates first.")
        if getattr(observations.dtypes[self.variable], "kind", "O") not in "iufb":
            raise InputError(
                f"The column {self.variable!r} of the observations holds {observations.dtypes[self.variable]}, but numbers "
                "are gridded. Remove texts such as 'n/a' from it, or choose another variable."
            )

    def _selected(self, observations: Any, plan: Plan) -> tuple[pd.DataFrame, Counter]:
        """The rows in reach of the domain that may be used, and how many there were and were left out for each reason."""
        self._check_columns(observations)
        table = observations[self._columns(observations)]
        if isinstance(table, pd.DataFrame):
            parts = [_select(table, plan)]
        else:
            parts = list(dask.compute(*(dask.delayed(_select, nout=2)(part, plan) for part in table.to_delayed())))
        counts = sum((found for _, found in parts), Counter())
        there = rows_in_all(observations)
        if there is not None:
            counts[UNREAD] = there - counts["total"]
            counts["total"] = there
        kept = [rows for rows, _ in parts if len(rows)]
        return pd.concat(kept, ignore_index=True) if kept else parts[0][0], counts

    def _refuse_nothing(self, counts: Counter, units: str | None) -> None:
        hint, read = "", counts["total"] - counts[UNREAD]
        if counts[IMPOSSIBLE_PLACE] > read / 2:
            hint = UPWARDS
        elif counts[IMPLAUSIBLE] > read / 2:
            hint = self._outside(units)
        raise self._no_observation(f" ({counts_line('observations', counts['total'], 0, _left_out(counts))})", hint)

    def _no_observation(self, counts: str = "", hint: str = "") -> InputError:
        period = "" if self.period is None else f" between {self.period[0]} and {self.period[1]}"
        return InputError(
            f"No observation of {self.variable!r} with quality {self.quality!r} lies in the domain and near its "
            f"levels{period}{counts}. Choose another period, region, quality, depths or variable. {hint}".rstrip()
        )

    def _outside(self, units: str | None) -> str:
        least, greatest = self.value_range
        said = f"Values of {self.variable!r} below {least:g} or above {greatest:g}"
        if units:
            return f"{said} {units} are left out as implausible; value_range widens that."
        return (
            f"{said} are left out as implausible. The column says no units, so those of the range were assumed; say its "
            f"units ('phidias catalog add FILE --units {self.variable}=UNITS'), or give value_range."
        )

    def _windows(self, table: pd.DataFrame) -> list[Window]:
        first, last = table["time"].min(), table["time"].max()
        if self.windows == "whole" and last - first > pd.Timedelta(days=MIXED):
            self.report(
                0.0,
                f"observations of {first:%Y-%m-%d} to {last:%Y-%m-%d} go into one map, whatever their season; for a map "
                "of each season choose windows 'seasonal' (--windows seasonal)",
            )
        first, last = (first, last) if self.period is None else self.period
        return windows(pd.Timestamp(first), pd.Timestamp(last), self.windows)

    def _pieces(
        self, table: pd.DataFrame, plan: Plan, mask: np.ndarray, spans: list[Window], counts: Counter
    ) -> list[list[tuple[slice, pd.DataFrame, np.ndarray]]]:
        """For each window and group of levels: the levels, the observations near them, and which of those are used."""
        together = self.vertical_length > 0 and plan.depth.size > 1
        groups = [slice(0, plan.depth.size)] if together else [slice(k, k + 1) for k in range(plan.depth.size)]
        pieces = []
        for done, span in enumerate(spans):
            self.report(done / len(spans), f"{len(table)} observations")
            inside = table[(table["time"] >= span.start) & (table["time"] < span.end)]
            chosen = _prepared(inside, self.variable, self.drop_duplicates)
            counts[DUPLICATE] += len(inside) - len(chosen)
            row = []
            for group in groups:
                top, bottom = plan.edges[group][0, 0], plan.edges[group][-1, 1]
                near = chosen[(chosen["depth"] >= top) & (chosen["depth"] < bottom)]
                used = usable(plan, group, mask, near)
                counts[NOT_AT_SEA] += int((~used).sum())
                row.append((group, near, used))
            pieces.append(row)
        return pieces

    def _speak(
        self, table: pd.DataFrame, plan: Plan, spans: list[Window], pieces: list, counts: Counter, told: Mapping
    ) -> None:
        """Say what was left out and what a user would else find out from an empty map."""
        self.counted("observations", counts["total"], _left_out(counts))
        known, units = ranges.of(self.variable, told.get("standard_name")), told.get("units")
        if counts[IMPLAUSIBLE] and not units:
            self.warn(self._outside(units))
        if self.value_range is None and known is not None:
            self.warn(
                f"The values of {self.variable!r} are in {units}, and what values it can have is known in {known.units} "
                "only, so none was left out as implausible. Give value_range."
            )
        found = ranges.fill_value(table[self.variable].to_numpy(float))
        if found is not None:
            self.warn(
                f"{found[1]} observations of {self.variable!r} are {found[0]:g}, a common sign for a missing value, and "
                "were used. If that is meant, leave such values empty or give value_range."
            )
        number = np.array([np.concatenate([per_level(plan, *piece) for piece in row]) for row in pieces])
        for sentence in empty_places(number == 0, plan.depth, spans, self.vertical_length > 0):
            self.warn(sentence)

    # The analysis -----------------------------------------------------------------------------------------------

    def _assemble(self, plan: Plan, mask: np.ndarray, spans: list[Window], pieces: list) -> xr.Dataset:
        lat, lon, depth = plan.latitude, plan.longitude, plan.depth
        with_error = self.error == "exact"
        whole_mask = dask.delayed(mask)
        names = [n for n in _GIVEN if with_error or n != "analysis_error"]
        blocks: dict[str, list] = {name: [] for name in names}
        # Every window has the same coasts, so what they do to the background is computed once.
        even = {
            (group.start, group.stop): dask.delayed(deviation_of)(plan, group, whole_mask, near.iloc[:0])
            for row in pieces
            for group, near, used in row
            if self.unit_variance and used.any()
        }
        for row in pieces:
            rows: dict[str, list] = {name: [] for name in names}
            for group, near, used in row:
                known = even.get((group.start, group.stop), False)
                result = dask.delayed(analyse_levels, nout=len(_GIVEN))(plan, group, whole_mask, near, used, known)
                thick = group.stop - group.start
                for name in names:
                    flat = name in _PER_LEVEL
                    shape = (1, thick) if flat else (1, thick, lat.size, lon.size)
                    dtype = np.int64 if name == "observations_used" else np.float64
                    rows[name].append(da.from_delayed(result[_GIVEN.index(name)], shape, dtype))
            for name in names:
                blocks[name].append(da.concatenate(rows[name], axis=1))
        variables = {
            name: (DIMS[:2] if name in _PER_LEVEL else DIMS, da.concatenate(parts, axis=0))
            for name, parts in blocks.items()
        }
        result = xr.Dataset(variables)
        result = result.assign_coords(
            time=("time", [w.middle for w in spans], {"standard_name": "time", "axis": "T", "bounds": "time_bounds"}),
            depth=("depth", depth, {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"}),
            latitude=("latitude", lat, {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}),
            longitude=("longitude", lon, {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}),
        )
        bounds = np.array([[w.start, w.end] for w in spans], dtype="datetime64[ns]")
        return result.assign_coords(time_bounds=(("time", "bounds"), bounds))


#: What `analyse_levels` gives, in this order; the last three have one value per level.
_GIVEN = ("analysis", "analysis_error", "background", "background_deviation", "observations_used")
_PER_LEVEL = _GIVEN[2:]


def _comparable(value: Any) -> Any:
    """A number as it is, a moment without its zone: statistics of a table may have one."""
    if isinstance(value, int | float | np.number):
        return float(value)
    moment = pd.Timestamp(value)
    return moment if moment.tz is None else moment.tz_convert("UTC").tz_localize(None)


def _in_words(start: pd.Timestamp, end: pd.Timestamp, exact: bool) -> str:
    """A period in years, or in days where it was given and is no whole number of years."""
    whole = (start.month, start.day, end.month, end.day) == (1, 1, 12, 31)
    words = (start.year, end.year) if whole or not exact else (f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}")
    return (" to " if exact and not whole else "–").join(dict.fromkeys(map(str, words)))


def _degrees(value: float, sides: str) -> str:
    """-20 as 20°W, where `sides` names the positive and the negative one."""
    if sides == "EW":
        value = (value + 180.0) % 360.0 - 180.0
    return f"{abs(value):g}°{'' if value == 0 else sides[value < 0]}"


def checked_mask(mask: np.ndarray) -> np.ndarray:
    """The mask as booleans; a missing value is land, and what is neither 0 nor 1 is no mask."""
    mask = np.nan_to_num(np.asarray(mask, float))
    if not np.isin(mask, (0.0, 1.0)).all():
        odd = mask[~np.isin(mask, (0.0, 1.0))]
        raise InputError(f"The domain's mask holds {odd[0]:g}; it must hold 1 at sea and 0 on land, and nothing else.")
    if not mask.any():
        raise InputError("The domain has no sea: its mask is 0 everywhere here. Choose another region or domain.")
    return mask.astype(bool)


@dataclass(frozen=True)
class Plan:
    """All that the analysis of any level needs beside the mask and the observations."""

    longitude: np.ndarray
    latitude: np.ndarray
    depth: np.ndarray
    edges: np.ndarray
    parameters: Mapping[str, Any]


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


def reach(edges: np.ndarray, vertical_length: float) -> np.ndarray:
    """Upper and lower bounds between which observations count, from those of the levels' cells."""
    # What lies between two levels that are analysed together counts for both.
    return np.array([[edges[0, 0], edges[-1, 1]]]) if vertical_length > 0 else edges


def _left_out(counts: Counter) -> dict[str, int]:
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _floats(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=float, na_value=np.nan)


def _select(rows: pd.DataFrame, plan: Plan) -> tuple[pd.DataFrame, Counter]:
    """The rows in reach of the domain, with an accepted flag and a plausible value; longitudes as the domain has them.

    Beside them stands how many rows there were ("total") and how many were left out for each reason.
    """
    settings = plan.parameters
    name, region = settings["variable"], settings["region"]
    if rows["time"].dt.tz is not None:
        rows = rows.assign(time=rows["time"].dt.tz_convert("UTC").dt.tz_localize(None))
    value, depth, latitude = (_floats(rows[column]) for column in (name, "depth", "latitude"))
    west, east = plan.longitude[0], plan.longitude[-1]
    # A place that lies a rounding west of the western edge is on it, not a turn away.
    with np.errstate(invalid="ignore"):
        lon = west + np.maximum(np.mod(_floats(rows["longitude"]) - west + NEAR, 360.0) - NEAR, 0.0)
    bad: dict[str, Any] = {
        MISSING: ~np.isfinite([value, depth, latitude, lon]).all(axis=0) | rows["time"].isna().to_numpy(),
        IMPOSSIBLE_PLACE: (depth < -ABOVE_SURFACE) | (np.abs(latitude) > 90),
    }
    if settings["period"] is not None:
        start, end = (pd.Timestamp(day) for day in settings["period"])
        bad[PERIOD] = ~((rows["time"] >= start) & (rows["time"] < end.normalize() + pd.Timedelta(days=1))).to_numpy()
    inside = _is_cyclic(plan.longitude) | (lon <= east + NEAR)
    bad[GRID] = ~(inside & (latitude >= plan.latitude[0]) & (latitude <= plan.latitude[-1]))
    if region is not None:
        bad[REGION] = ~np.asarray(region_contains(region, lon, latitude), bool)
    cells = reach(plan.edges, settings["vertical_length"])
    bad[LEVELS] = ~((depth[:, None] >= cells[:, 0]) & (depth[:, None] < cells[:, 1])).any(axis=1)
    bad[PLACE_FLAG] = flags.refused_place(rows, settings["quality"])
    bad[FLAG] = flags.refused(rows, name, settings["quality"])
    if settings["value_range"] is not None:
        least, greatest = settings["value_range"]
        bad[IMPLAUSIBLE] = (value < least) | (value > greatest)
    keep, counts = np.ones(len(rows), bool), Counter(total=len(rows))
    for reason, wrong in bad.items():
        counts[reason] = int((keep & wrong).sum())
        keep &= ~wrong
    chosen = rows.loc[keep, [c for c in rows.columns if not c.endswith("_qc")]]
    places = {"longitude": lon[keep], "latitude": latitude[keep], "depth": depth[keep]}
    return chosen.assign(**places, **{name: value[keep]}), counts


def level_of(plan: Plan, group: slice, near: pd.DataFrame) -> np.ndarray:
    """The level of the group to whose cell each observation belongs."""
    return np.searchsorted(plan.edges[group][1:, 0], near["depth"].to_numpy(float), side="right")


def per_level(plan: Plan, group: slice, near: pd.DataFrame, used: np.ndarray) -> np.ndarray:
    """How many observations each level of the group uses."""
    return np.bincount(level_of(plan, group, near)[used], minlength=group.stop - group.start).astype(np.int64)


def empty_places(empty: np.ndarray, depth: np.ndarray, spans: list[Window], tied: bool) -> list[str]:
    """Sentences about the windows and levels (time, depth) without an observation; what is alike is said once."""
    days = [f"{w.start.date()} to {(w.end - pd.Timedelta(days=1)).date()}" for w in spans]
    whole = np.flatnonzero(empty.all(axis=1))
    said = []
    if whole.size and len(spans) > 1 and whole.size < len(spans):
        said.append(f"No observation is used in {_few([days[k] for k in whole])}: the analysis is empty there.")
    left = np.setdiff1d(np.arange(len(spans)), whole) if whole.size < len(spans) else np.arange(len(spans))
    same: dict[tuple, list[float]] = {}
    for k, level in enumerate(depth):
        gaps = tuple(int(t) for t in left if empty[t, k])
        if gaps:
            same.setdefault(gaps, []).append(float(level))
    outcome = (
        "the analysis there comes from other levels" if tied and not empty.all() else "the analysis is empty there"
    )
    for gaps, levels in same.items():
        when = "" if len(gaps) == len(left) else f" in {_few([days[k] for k in gaps])}"
        said.append(f"No observation is used at {_few([f'{v:g} m' for v in levels])}{when}: {outcome}.")
    return said


def _few(texts: list[str], most: int = 6) -> str:
    if len(texts) <= most:
        return ", ".join(texts)
    return f"{', '.join(texts[:most])} and {len(texts) - most} more"


def _prepared(rows: pd.DataFrame, name: str, drop_duplicates: bool) -> pd.DataFrame:
    """Observations in an order that does not depend on how the table was stored, each one once if so asked."""
    rows = rows.sort_values(["time", "depth", "latitude", "longitude", name], kind="stable", ignore_index=True)
    if not drop_duplicates:
        return rows
    if "duplicate_of" in rows:
        return rows[~(rows["duplicate_of"] >= 0)]
    platform = rows["platform"].astype("category").cat.codes.to_numpy() if "platform" in rows else None
    places = [rows[column].to_numpy(float) for column in ("longitude", "latitude", "depth")]
    seconds = (rows["time"] - rows["time"].min()).dt.total_seconds().to_numpy()
    return rows[duplicates.find(*places, seconds, [rows[name].to_numpy()], platform).of < 0]


def unrolled(longitude: np.ndarray, west: float | None = None) -> np.ndarray:
    """The longitudes on one turn that rises without a seam: from `west`, else from the far side of the widest gap.

    Values that rise already, over less than a turn, stay as they are.
    """
    if west is None:
        ordered = np.sort(longitude)
        if ordered.size < 2 or not np.isfinite(ordered).all():
            return longitude
        gaps = np.diff(np.r_[ordered, ordered[0] + 360.0])
        widest = int(np.argmax(gaps))
        if gaps[-1] >= gaps[widest] - NEAR:  # the widest gap is the one that is outside already
            return longitude
        west = ordered[widest + 1]
    return west + np.maximum(np.mod(longitude - west + NEAR, 360.0) - NEAR, 0.0)


def _is_cyclic(longitude: np.ndarray) -> bool:
    """Whether the grid goes around the globe."""
    return longitude.size > 2 and np.isclose(longitude[-1] - longitude[0] + (longitude[1] - longitude[0]), 360.0)


def _with_rim(values: np.ndarray, rim: int) -> np.ndarray:
    """A coordinate with `rim` more values at each end. The rim is what edge stretching moves away; the nodes of the
    domain itself then stay where they are."""
    if not rim:
        return values
    return np.r_[2 * values[0] - values[1], values, 2 * values[-1] - values[-2]]


def geometry(plan: Plan, group: slice, mask: np.ndarray, near: pd.DataFrame) -> tuple[tuple, dict, tuple]:
    """Arguments of `variational.usable` and `variational.analyse`, and the nodes of the domain in their grid."""
    settings, depth, sea = plan.parameters, plan.depth[group], mask[group]
    rim = 1 if settings["edge_stretch"] > 0 else 0
    cyclic = _is_cyclic(plan.longitude)
    lat, lon = _with_rim(plan.latitude, rim), plan.longitude if cyclic else _with_rim(plan.longitude, rim)
    across, along = variational.metrics_on_sphere(lon, lat, period=360.0 if cyclic else 0.0)
    metrics, coords = [along.T, across.T], [lat, lon]
    places = [near["latitude"].to_numpy(float), near["longitude"].to_numpy(float)]
    length, periods, flat = [settings["length"]] * 2, [0.0, 360.0 if cyclic else 0.0], depth.size == 1
    if flat:
        sea = sea[0]
    else:
        down = _with_rim(depth, rim)
        metrics = [1.0 / variational.local_resolution(down)[:, None, None], *(m[None] for m in metrics)]
        coords, periods = [down, *coords], [0.0, *periods]
        # What lies in a level's own cell but above the first or below the last level belongs to that level.
        places = [np.clip(near["depth"].to_numpy(float), depth[0], depth[-1]), *places]
        length = [settings["vertical_length"], *length]
    widths = [(0, 0) if p else (rim, rim) for p in periods]
    padded = np.pad(sea, widths, mode="edge")
    metrics = [np.broadcast_to(m, padded.shape) for m in metrics]
    inner = tuple(slice(w[0], n - w[1]) for w, n in zip(widths, padded.shape, strict=True))
    return (
        (padded, metrics, coords, places, length),
        {"cyclic": periods, "edge_stretch": settings["edge_stretch"]},
        inner,
    )


def usable(plan: Plan, group: slice, mask: np.ndarray, near: pd.DataFrame) -> np.ndarray:
    """Which of the observations near these levels have sea beside them, and so are used."""
    if near.empty or not mask[group].any():
        return np.zeros(len(near), bool)
    (*grid, length), convention, _ = geometry(plan, group, mask, near)
    return variational.usable(*grid, length, **convention)


def deviation_of(plan: Plan, group: slice, mask: np.ndarray, near: pd.DataFrame) -> np.ndarray:
    """What the norm alone makes of the standard deviation of the background at these levels, whatever is observed."""
    (*grid, _, length), convention, _ = geometry(plan, group, mask, near)
    return variational.background_deviation(*grid, length, **convention)


def analyse_levels(
    plan: Plan,
    group: slice,
    mask: np.ndarray,
    near: pd.DataFrame,
    used: np.ndarray,
    unit_variance: bool | np.ndarray = False,
) -> tuple[np.ndarray, ...]:
    """Everything in `_GIVEN` for some levels; where no observation is used, nothing is known."""
    settings, depth = plan.parameters, plan.depth[group]
    missing = np.full((1, *mask[group].shape), np.nan)
    values = near[settings["variable"]].to_numpy(float)
    if not used.any():
        unknown = np.full((1, depth.size), np.nan)
        return missing, missing, unknown, unknown, np.zeros((1, depth.size), np.int64)
    (*grid, length), convention, inner = geometry(plan, group, mask, near)
    background = float(values[used].mean()) if settings["background"] == "mean" else 0.0
    analysis = variational.analyse(
        *grid,
        values - background,
        length,
        settings["noise"],
        error="exact" if settings["error"] == "exact" else None,
        solver=settings["solver"],
        unit_variance=unit_variance,
        **convention,
    )
    shape = (1, depth.size, plan.latitude.size, plan.longitude.size)
    field = (analysis.field[inner] + background).reshape(shape)
    number = per_level(plan, group, near, used)[None]
    # The background variance that makes the observations most probable with this length and noise: the least cost over
    # their number (see `variational.likelihood`). Their plain variance would count a slope across the domain, which the
    # analysis follows, as uncertainty. One value, or values that are all the same, tell nothing of it.
    free = int(used.sum()) - (settings["background"] == "mean")
    cost = float(np.sum((values - background)[used] * analysis.residuals[used])) / settings["noise"]
    variance = cost / free if free > 0 and cost > 0 else np.nan
    error = missing if analysis.error_variance is None else variance * analysis.error_variance[inner].reshape(shape)
    flat = (np.full((1, depth.size), each) for each in (background, np.sqrt(variance)))
    return field, np.sqrt(error), *flat, number
