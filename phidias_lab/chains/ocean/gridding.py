"""ocean.gridding: scattered observations onto a grid, with the error of the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.chains.ocean import _backgrounds, _inputs, _tiles, _words
from phidias_lab.chains.ocean._backgrounds import Earlier
from phidias_lab.chains.ocean._inputs import DOMAIN, DOMAIN_DIMS, OBSERVATIONS
from phidias_lab.chains.ocean._levels import (
    DIMS,
    LENGTHENING,
    Plan,
    analyse_levels,
    cell_edges,
    deviation_of,
    given,
    influences_at,
    is_cyclic,
    lengths_of,
    level_of,
    mean_profile,
    per_level,
    plane,
)
from phidias_lab.contract import (
    Chain,
    Input,
    Resources,
    Var,
    choice,
    count,
    flag,
    number,
    numbers,
    period,
    region,
    text,
    variable,
)
from phidias_lab.contract.data import Needs, column_attributes, extent, rows_in_all
from phidias_lab.contract.parameters import region_bounds, region_contains
from phidias_lab.contract.resources import show_memory
from phidias_lab.contract.said import counts_line
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import duplicates, ranges, time_windows, transforms
from phidias_lab.methods.formats import flags
from phidias_lab.methods.time_windows import Window
from phidias_lab.methods.transforms import Log, Logit, Transform
from phidias_lab.methods.variational import solvers
from phidias_lab.methods.variational.geometry import great_circle

#: How a period can be cut; the names of climatologies are those of the parts of the year that they are made of.
CLIMATOLOGIES = {"climatological_seasons": time_windows.SEASONS, "climatological_months": time_windows.MONTHS}
WINDOWS = ["whole", "yearly", "seasonal", "monthly", *CLIMATOLOGIES, "sliding", "custom"]
#: CF cell methods of the outputs: of one span, and of the same part of several years (CF conventions, 7.4).
CELL_METHODS = {
    "analysis": ("time: mean", "time: mean within years time: mean over years"),
    "background_field": ("time: mean", "time: mean within years time: mean over years"),
    "background": ("area: time: mean", "time: mean within years time: mean over years (all of the area)"),
    "background_deviation": (
        "area: time: standard_deviation",
        "time: standard_deviation within years time: standard_deviation over years (all of the area)",
    ),
}
#: A depth may be this far above the surface, in metres: waves and the zero of a pressure sensor put the values of
#: instruments that float at the surface a few decimetres too high. Beyond lies a wrong sign or a sign for "missing".
ABOVE_SURFACE = 0.5
#: Why an observation is left out; the first that holds is the one that is counted. What a reader was told not to read
#: (see `Gridding.needs`) is known by its number alone, so all reasons of place and time are one there.
REASONS = (
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
    "beyond the bounds of the transform",
    "in no window",
    "duplicate",
    "not at sea",
)
UNREAD, MISSING, IMPOSSIBLE_PLACE, PERIOD, GRID, REGION, LEVELS = REASONS[:7]
PLACE_FLAG, FLAG, IMPLAUSIBLE, BOUNDS, WINDOW, DUPLICATE, NOT_AT_SEA = REASONS[7:]
UPWARDS = "Depth counts downwards: 10 is ten metres below the surface."
_DTYPES = {"observations_used": np.int64}
#: Memory that a run asks for at most when the domain could be solved in one with more.
_ENOUGH = 16 * 2**30
#: Share of the free memory that the systems of tiles may take; the rest is for their observations, fields and fragments.
_SHARE = 0.7
#: How many levels or tiles are solved at a time where one is solved by itself: one on each core that the chain asks for.
_SIDE_BY_SIDE = 2
#: The column that numbers the observations.
ROW = "_row"
#: Rounding of a longitude that is turned, in degrees: a tenth of a millimetre.
NEAR = 1e-9
#: By how much a reader may give more than is asked for, so that its rounding never takes away a row: degrees, metres, days.
MORE_DEGREES, MORE_METRES, MORE_DAYS = 1e-3, 0.1, 1
#: A map of a longer period than this mixes seasons, in days.
MIXED = 150


def _shape(sizes: Mapping[str, int], parameters: Mapping) -> tuple[int, ...]:
    """The grid of one linear system, with its rim."""
    plane = (sizes.get("latitude", 1) + 2, sizes.get("longitude", 1) + 2)
    return (sizes.get("depth", 1) + 2, *plane) if parameters["vertical_length"] > 0 else plane


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    shape = _shape(sizes.get("domain", {}), parameters)
    name = "multifrontal" if parameters["solver"] in ("auto", "pardiso", "cholmod") else parameters["solver"]
    if parameters["tile"]:  # a halo that is wider than its tile would be a poor choice
        *levels, rows, columns = shape
        shape = (*levels, min(rows, 3 * parameters["tile"]), min(columns, 3 * parameters["tile"]))
    # Levels and tiles that are solved by themselves are so two at a time, one on each core.
    needed = solvers.memory(name, shape) * (1 if parameters["vertical_length"] > 0 and not parameters["tile"] else 2)
    # What does not fit into the memory of a run is cut into tiles that do.
    return {"memory": needed if parameters["tile"] or parameters["analysis_range"] else min(needed, _ENOUGH)}


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
            variables=OBSERVATIONS,
        ),
        "domain": Input(
            "cube",
            doc="the grid, and where it is sea",
            default="ocean.north_east_atlantic",
            role="support",
            dims=DOMAIN_DIMS,
            variables={
                **DOMAIN,
                **{name: Var("1", optional=True, doc=doc) for name, doc in LENGTHENING.items()},
            },
        ),
        "previous": Input(
            "cube",
            doc="for background 'previous': a product of this chain, or another cube with a field of the variable",
            optional=True,
        ),
        "currents": Input(
            "cube",
            doc="for advection: velocities, known by their standard names eastward_sea_water_velocity and "
            "northward_sea_water_velocity",
            optional=True,
            role="support",
        ),
    }
    outputs = {
        "analysis": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "analysis of {variable}",
            DIMS,
            errors={
                "standard_error": "analysis_error",
                "background_deviation": "background_deviation",
                "relative_variance": "relative_error",
                "lower_95": "analysis_lower",
                "upper_95": "analysis_upper",
            },
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
        "analysis_lower": Var(
            "{variable.units}",
            long_name="lower end of the central 95 % interval of {variable}",
            dims=DIMS,
            optional=True,
            doc="of a transformed variable, whose error is not symmetric",
        ),
        "analysis_upper": Var(
            "{variable.units}",
            long_name="upper end of the central 95 % interval of {variable}",
            dims=DIMS,
            optional=True,
        ),
        "relative_error": Var(
            "1",
            long_name="error variance of the analysis of transformed {variable}, relative to that of the background",
            dims=DIMS,
            optional=True,
        ),
        "background": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "mean of the observations, to which the analysis returns",
            DIMS[:2],
            optional=True,
        ),
        "background_field": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "field from which the analysis starts and to which it returns",
            DIMS,
            optional=True,
        ),
        "background_deviation": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "standard deviation of {variable} around the background, without that of the observation errors",
            DIMS[:2],
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
        WINDOWS,
        doc="How the period is cut; each part is analysed by itself. A climatology puts the same season or month of all "
        "years into one map",
    )
    period = period(doc="First and last day; empty is all there is")
    region = region(doc="Part of the domain; empty is all of it")
    depths = numbers(
        None, bounds=(0, 12000), units="m", increasing=True, doc="Levels of the domain to analyse; empty is all of them"
    )
    window_list = text(
        None,
        max_length=2000,
        doc=f"The windows of windows 'custom': {time_windows.GRAMMAR}",
        level="expert",
    )
    window_width = number(
        90.0,
        bounds=(1, 40_000),
        units="d",
        scale="log",
        doc="Length of the windows of windows 'sliding'",
        level="expert",
    )
    window_step = number(
        30.0,
        bounds=(1, 40_000),
        units="d",
        scale="log",
        doc="From one window of windows 'sliding' to the next",
        level="expert",
    )
    transform = choice(
        "none",
        ["none", "log", "logit", "gaussian"],
        doc="What is analysed in place of the values: their logarithm, their logit between two bounds, or the Gaussian "
        "values of their ranks; field, error and interval are transformed back",
        level="expert",
    )
    transform_bounds = numbers(
        None,
        bounds=(-1e9, 1e9),
        increasing=True,
        doc="What the variable stays above (log; empty is 0), or above and below (logit; empty is 0 and 1), in its units",
        level="expert",
    )
    back_transform = choice(
        "median",
        ["median", "mean"],
        doc="What the analysis of a transformed variable is, back in its units",
        level="expert",
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
        ["mean", "profile", "plane", "previous", "none"],
        doc="What is subtracted first: the mean of the observations that are analysed together, the mean of each level, a "
        "plane in longitude and latitude at each level, the field of the input 'previous', or nothing",
        level="expert",
    )
    lengths = numbers(
        None,
        bounds=(1e3, 2e6),
        units="m",
        doc="Horizontal correlation length of each level that is analysed, from the surface down; empty is 'length' at all",
        level="expert",
    )
    anisotropy = number(
        1.0,
        bounds=(0.05, 20),
        scale="log",
        doc="Zonal over meridional correlation length; the length is the geometric mean of the two",
        level="expert",
    )
    advection = number(
        0.0,
        bounds=(0, 365),
        units="d",
        doc="Time over which the currents carry what the observations say along; 0 takes no account of currents",
        level="expert",
    )
    analysis_range = numbers(
        None,
        bounds=(-1e9, 1e9),
        increasing=True,
        doc="Least and greatest value that the analysis may take, in the units of the variable; empty is any",
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
    tile = count(
        0,
        bounds=(0, 100_000),
        doc="Nodes along the side of the tiles in which the domain is solved, each with a halo of ten correlation lengths; "
        "the result is the same. 0 cuts what does not fit into the memory, and nothing else",
        level="expert",
    )

    def check(self, inputs: Mapping[str, Any]) -> None:
        observations, levels = inputs["observations"], inputs["domain"]["depth"].values.astype(float)
        domain = self._domain(inputs["domain"])
        _inputs.check_columns(observations, self.variable, "gridded")
        self._check_windows()
        lengths_of(domain, self.parameters)
        self._bounds()
        if self.analysis_range is not None and len(self.analysis_range) != 2:
            raise ParameterError(
                f"Parameter 'analysis_range' was given {len(self.analysis_range)} numbers; it needs two, the least and the "
                "greatest value that the analysis may take."
            )
        if 0 < self.tile < _tiles.LEAST:
            raise ParameterError(
                f"Parameter 'tile' was given {self.tile}; a tile has {_tiles.LEAST} nodes a side at least. 0 cuts what does "
                "not fit into the memory, and nothing else."
            )
        if self.advection > 0 and self.tile and self.error == "exact":
            raise ParameterError(
                f"The order has advection {self.advection:g} d and tile {self.tile}; along currents an error reaches "
                "farther than the halo of a tile. Choose error 'none', or leave one of them out."
            )
        if self.analysis_range is not None and self.tile:
            raise ParameterError(
                f"The order has an analysis_range and tile {self.tile}; bounds are not kept in tiles. Leave one of them out."
            )
        self._flow(domain["longitude"].values, domain["latitude"].values, inputs.get("currents"))
        self._earlier(observations, domain["longitude"].values, domain["latitude"].values, inputs.get("previous"))
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
        return {"observations": Needs(tuple(_inputs.columns(inputs["observations"], self.variable, "platform")), found)}

    def headline(self, inputs: Mapping[str, Any]) -> str:
        domain = self._domain(inputs["domain"])
        depths = [f"{domain['depth'].values[k]:g}" for k in (0, -1)]
        parts = [self.variable.replace("_", " ").capitalize(), "–".join(dict.fromkeys(depths)) + " m"]
        parts += [self.windows.replace("_", " ")] if self.windows != "whole" else []
        days = self.period or extent(inputs["observations"], "time")
        if days is not None:
            parts.append(_words.in_words(*(pd.Timestamp(day) for day in days), exact=self.period is not None))
        if self.region is not None:
            west, south, east, north = region_bounds(self.region)
            sides = ((west, "EW"), (east, "EW"), (south, "NS"), (north, "NS"))
            west, east, south, north = (_words.degrees(value, side) for value, side in sides)
            parts.append(f"{west} to {east}, {south} to {north}")
        else:
            # By convention a title of the lake says the place first: "Baltic Sea: grid, mask and sea floor".
            place, colon, _ = str(inputs["domain"].attrs.get("title", "")).partition(":")
            parts += [place] if colon else []
        return ", ".join(parts)

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        domain = self._domain(inputs["domain"])
        solver = self._choice(domain).name if self.solver == "auto" else self.solver
        told = column_attributes(inputs["observations"]).get(self.variable, {})
        return {
            "solver": solver,
            # It takes a factor, which the iterative solver is there to avoid.
            "unit_variance": self.unit_variance and solver != "iterative",
            "tile": self._tile(domain, solver),
            "depths": [float(d) for d in domain["depth"].values],
            "value_range": _inputs.value_range(self.value_range, self.variable, told),
            "transform_bounds": self._bounds(),
        }

    def _choice(self, domain: xr.Dataset) -> solvers.Choice:
        return solvers.choose(_shape(domain.sizes, self.parameters), exact=self.error == "exact")

    def _tile(self, domain: xr.Dataset, solver: str) -> int:
        """The side of the tiles, 0 where the domain is solved in one."""
        shape, room = _shape(domain.sizes, self.parameters), solvers.free_memory()
        whole = self.analysis_range is not None or (self.advection > 0 and self.error == "exact")
        if self.tile or solver == "iterative" or whole:
            return self.tile
        if solvers.memory("multifrontal", shape) * (1 if len(shape) == 3 else _SIDE_BY_SIDE) <= room:
            return 0
        return _tiles.size_for(self._plan(domain, domain["depth"].values), shape, _SHARE * room / _SIDE_BY_SIDE)

    def _say_size(self, domain: xr.Dataset) -> None:
        """How the system will be solved and what that is predicted to take."""
        shape, plan = _shape(domain.sizes, self.parameters), self._plan(domain, domain["depth"].values)
        tiling = _tiles.cut(plan, self.tile) if self.tile else ()
        if len(tiling) > 1:
            *_, rows, columns = _tiles.largest(plan, shape, self.tile)
            self.report(
                0.0,
                f"{math.prod(shape)} nodes are solved in {len(tiling)} tiles of up to {rows} x {columns} nodes with their "
                f"halo. One takes about {show_memory(_tiles.memory(plan, shape, self.tile))}, {_SIDE_BY_SIDE} are solved at "
                f"a time, and {show_memory(solvers.free_memory())} are free.",
            )
        elif (choice := self._choice(domain)).name == self.solver:
            self.report(0.0, choice.sentence)

    def observed(self, inputs: Mapping[str, Any], *more: str) -> pd.DataFrame:
        domain = self._domain(inputs["domain"])
        plan = self._plan(domain, inputs["domain"]["depth"].values)
        table, counts = self._selected(inputs["observations"], plan, *more)
        found = [table.assign(observation=0, in_time=table["time"], in_depth=0.0).iloc[:0]]
        spans = [] if table.empty else self._windows(table)
        pieces = self._pieces(table, plan, checked_mask(domain["mask"].values), spans, counts)
        for span, row in zip(spans, pieces, strict=True):
            for group, near, used in row:
                level = plan.depth[group.start + level_of(plan, group, near)[used]]
                rows = near[used].rename(columns={ROW: "observation"})
                found.append(rows.assign(in_time=span.middle, in_depth=level))
        return pd.concat([rows for rows in found if len(rows)] or found, ignore_index=True)

    def places(self, inputs: Mapping[str, Any]) -> pd.DataFrame:
        found = self.observed(inputs)
        return found[["in_time", "in_depth", "longitude", "latitude"]].set_axis(
            ["time", "depth", "longitude", "latitude"], axis=1
        )

    def influences(
        self,
        inputs: Mapping[str, Any],
        *,
        latitude: float,
        longitude: float,
        depth: float | None = None,
        time: Any = None,
    ) -> pd.DataFrame:
        observations, domain = inputs["observations"], self._domain(inputs["domain"])
        if self.tile and len(_tiles.cut(self._plan(domain, inputs["domain"]["depth"].values), self.tile)) > 1:
            raise InputError(
                "This gridding is solved in tiles, and what weighs in a cell can be told only where all is solved at once. "
                "Grid a smaller region around the cell, and ask that."
            )
        self.report(0.0, "choosing the observations")
        found = self.prepared(observations, inputs["domain"])
        plan, mask, spans, pieces = self._transformed(*found)
        at, *node = _cell(plan, spans, latitude, longitude, depth, time)
        level, row, column = node
        k = next(k for k, piece in enumerate(pieces[at]) if piece[0].start <= level < piece[0].stop)
        group, near, used = pieces[at][k]
        where = f"{_words.degrees(plan.latitude[row], 'NS')} {_words.degrees(plan.longitude[column], 'EW')}"
        if not mask[level, row, column]:
            raise InputError(
                f"There is no sea at {where} at a depth of {plan.depth[level]:g} m. Choose another place or depth."
            )
        if not used.any():
            raise InputError(
                f"No observation is used at {plan.depth[level]:g} m in {spans[at].label}: the analysis is empty there. "
                "Choose another depth or time."
            )
        self.report(0.3, f"solving for {where}")
        more = (inputs.get(name) for name in ("previous", "currents"))
        (begin,) = self._begins(observations, plan, [spans[at]], [pieces[at]], *more)
        inner = (level - group.start, row, column)
        rows, background, rest = influences_at(plan, group, mask, near, used, begin, self.unit_variance, inner)
        rows[self.variable] = found[3][at][k][1][self.variable][used]  # as it was observed
        rows["distance"] = great_circle(rows["longitude"], rows["latitude"], plan.longitude[column], plan.latitude[row])
        first = ["weight", "contribution", "distance", self.variable, "time", "depth", "latitude", "longitude"]
        rows = rows[[*first, *(name for name in rows if name not in (*first, ROW))]]
        rows = rows.sort_values("weight", key=np.abs, ascending=False, kind="stable", ignore_index=True)
        told = column_attributes(observations)
        units = told.get(self.variable, {}).get("units") if plan.transform is None else "1"
        rows.attrs = {
            "columns": {
                **{name: told[name] for name in rows if name in told},
                **{name: {"units": "m"} for name in ("distance", "depth")},
                **{"weight": {"units": "1"}, "contribution": {"units": units} if units else {}},
            },
            "cell": {
                "time": spans[at].middle,
                **{name: float(getattr(plan, name)[i]) for name, i in zip(DIMS[1:], node, strict=True)},
            },
            "made_of": {
                "background": background,
                "observations": float(rows["contribution"].sum()),
                "constraints": rest,
            },
        }
        rows.attrs["words"] = _made_of(rows, self.transform)
        return rows

    def run(
        self,
        observations: Any,
        domain: xr.Dataset,
        previous: xr.Dataset | None = None,
        currents: xr.Dataset | None = None,
    ) -> xr.Dataset:
        self._say_size(self._domain(domain))
        plan, mask, spans, pieces = self._transformed(*self.prepared(observations, domain))
        begins = self._begins(observations, plan, spans, pieces, previous, currents)
        tiling = _tiles.cut(plan, self.tile) if self.tile else None
        if tiling is None or len(tiling) == 1:
            arrays = self._arrays(plan, mask, pieces, begins)
        else:
            arrays = _tiles.Whole(plan, mask, pieces, begins, tiling, self.keep, self.report).arrays()
        return self._assemble(plan, spans, arrays)

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

    def _transformed(self, plan: Plan, mask: np.ndarray, spans: list[Window], pieces: list) -> tuple:
        """What is analysed, its values on the scale of the analysis."""
        transform = self._transform(pieces)
        if transform is not None:
            plan = replace(plan, transform=transform)
            pieces = [[(group, plan.forward(near), used) for group, near, used in row] for row in pieces]
        return plan, mask, spans, pieces

    def _begins(
        self,
        observations: Any,
        plan: Plan,
        spans: list[Window],
        pieces: list,
        previous: xr.Dataset | None,
        currents: xr.Dataset | None,
    ) -> list[tuple[Any, Any]]:
        """For each window, what its background is made of, and its currents."""
        earlier = self._earlier(observations, plan.longitude, plan.latitude, previous)
        flow = self._flow(plan.longitude, plan.latitude, currents)
        return [
            (self._start(plan, span, row, earlier), self._currents(span, flow))
            for span, row in zip(spans, pieces, strict=True)
        ]

    # The domain -------------------------------------------------------------------------------------------------

    def _plan(self, domain: xr.Dataset, levels: np.ndarray) -> Plan:
        """What the analysis works with, for the part of a domain that has these levels in all."""
        lon, lat, depth = (domain[name].values.astype(float) for name in ("longitude", "latitude", "depth"))
        edges, lengths = cell_edges(np.asarray(levels, float), depth), lengths_of(domain, self.parameters)
        return Plan(lon, lat, depth, edges, self.parameters, lengths=lengths)

    def _domain(self, domain: xr.Dataset) -> xr.Dataset:
        """The part of the domain that is asked for, its longitudes rising without a seam; only coordinates are read."""
        foreign = set(domain["mask"].dims) ^ {"depth", "latitude", "longitude"}
        if foreign:
            raise InputError(
                f"The domain's mask has the dimensions {', '.join(map(str, domain['mask'].dims))}; it must have depth, "
                "latitude and longitude, and no other. Select one step of the others, or add what is missing."
            )
        domain = domain[["mask", *(n for n in LENGTHENING if n in domain)]].transpose("depth", "latitude", "longitude")
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

    def _bounds(self) -> list[float] | None:
        """The bounds that the transform needs, and no others."""
        usual = {"log": [0.0], "logit": [0.0, 1.0]}.get(self.transform, [])
        found = self.transform_bounds or usual
        if len(found) != len(usual):
            raise ParameterError(
                f"Parameter 'transform_bounds' was given {', '.join(f'{v:g}' for v in found)}; the transform "
                f"{self.transform!r} needs {('no bounds', 'one bound', 'two bounds')[len(usual)]}."
            )
        if self.transform != "none" and self.back_transform == "mean" and self.error == "none":
            raise ParameterError(
                "The order has back_transform 'mean' and error 'none'; the mean of a transformed variable depends on its "
                "error. Choose error 'exact', or back_transform 'median'."
            )
        return found or None

    def _transform(self, pieces: list) -> Transform | None:
        if self.transform == "gaussian":
            used = pd.concat([near[used] for row in pieces for _, near, used in row]).drop_duplicates(ROW)
            return transforms.anamorphosis(used[self.variable].to_numpy(float))
        return (
            {"log": Log, "logit": Logit}[self.transform](*self.transform_bounds) if self.transform != "none" else None
        )

    def _ranges(self, domain: xr.Dataset, levels: np.ndarray) -> dict[str, tuple[tuple[Any, Any], ...]]:
        """Between what an observation must lie at least to be of use: a little more than `_select` leaves."""
        lon, lat = domain["longitude"].values, domain["latitude"].values.astype(float)
        cells = reach(cell_edges(levels, domain["depth"].values.astype(float)), self.vertical_length)
        found = {
            "latitude": ((lat.min() - MORE_DEGREES, lat.max() + MORE_DEGREES),),
            "depth": tuple((top - MORE_METRES, bottom + MORE_METRES) for top, bottom in cells.tolist()),
        }
        if not is_cyclic(lon):
            west, east = lon[0] - MORE_DEGREES, lon[-1] + MORE_DEGREES
            found["longitude"] = tuple((west + turn, east + turn) for turn in (-720.0, -360.0, 0.0, 360.0, 720.0))
        if self.period is not None:
            start, end = (pd.Timestamp(day) for day in self.period)
            days = pd.Timedelta(days=MORE_DAYS)
            found["time"] = ((start - days, end.normalize() + pd.Timedelta(days=1) + days),)
        return found

    def _selected(self, observations: Any, plan: Plan, *more: str) -> tuple[pd.DataFrame, Counter]:
        """The rows in reach of the domain that may be used, and how many there were and were left out for each reason."""
        _inputs.check_columns(observations, self.variable, "gridded")
        table = observations[_inputs.columns(observations, self.variable, "platform", *more)]
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
        elif counts[BOUNDS] > read / 2:
            hint = "Give the 'transform_bounds' that the variable has in its units."
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

    def _check_windows(self) -> None:
        if (self.windows == "custom") != (self.window_list is not None):
            given = "no" if self.window_list is None else "a"
            raise ParameterError(
                f"The order has windows {self.windows!r} and {given} 'window_list'; a list of windows goes with windows "
                "'custom'. Give both, or neither."
            )
        if self.window_list is not None:
            time_windows.listed(self.window_list, *map(pd.Timestamp, ("2000-01-01", "2000-12-31")))  # can it be read?

    def _windows(self, table: pd.DataFrame) -> list[Window]:
        first, last = table["time"].min(), table["time"].max()
        if self.windows == "whole" and last - first > pd.Timedelta(days=MIXED):
            self.report(
                0.0,
                f"observations of {first:%Y-%m-%d} to {last:%Y-%m-%d} go into one map, whatever their season; for a map "
                "of each season choose windows 'seasonal' (--windows seasonal), or 'climatological_seasons' for one map of "
                "all winters, one of all springs and so on",
            )
        first, last = (pd.Timestamp(day) for day in ((first, last) if self.period is None else self.period))
        if self.windows in CLIMATOLOGIES:
            return time_windows.climatological(first, last, CLIMATOLOGIES[self.windows])
        if self.windows == "sliding":
            return time_windows.sliding(first, last, self.window_width, self.window_step)
        if self.windows == "custom":
            return time_windows.listed(self.window_list, first, last)
        return time_windows.by_calendar(first, last, self.windows)

    def _pieces(
        self, table: pd.DataFrame, plan: Plan, mask: np.ndarray, spans: list[Window], counts: Counter
    ) -> list[list[tuple[slice, pd.DataFrame, np.ndarray]]]:
        """For each window and group of levels: the levels, the observations near them, and which of those are used."""
        together = self.vertical_length > 0 and plan.depth.size > 1
        groups = [slice(0, plan.depth.size)] if together else [slice(k, k + 1) for k in range(plan.depth.size)]
        table = table.assign(**{ROW: np.arange(len(table))})
        # Windows may leave gaps or overlap, and each observation counts once: by the best that became of it.
        became = np.full(len(table), REASONS.index(WINDOW))
        pieces = []
        for done, span in enumerate(spans):
            self.report(done / len(spans), f"{len(table)} observations")
            inside = table[span.holds(table["time"])]
            chosen = _prepared(inside, self.variable, self.drop_duplicates)
            _rise(became, inside[ROW], REASONS.index(DUPLICATE))
            _rise(became, chosen[ROW], REASONS.index(NOT_AT_SEA))
            row = []
            for group in groups:
                top, bottom = plan.edges[group][0, 0], plan.edges[group][-1, 1]
                near = chosen[(chosen["depth"] >= top) & (chosen["depth"] < bottom)]
                used = _tiles.usable(plan, group, mask, near)
                _rise(became, near[ROW][used], len(REASONS))
                row.append((group, near, used))
            pieces.append(row)
        for reason in (WINDOW, DUPLICATE, NOT_AT_SEA):
            counts[reason] += int((became == REASONS.index(reason)).sum())
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
        for sentence in _words.empty_places(number == 0, plan.depth, spans, self.vertical_length > 0):
            self.warn(sentence)

    # The analysis -----------------------------------------------------------------------------------------------

    def _earlier(
        self, observations: Any, lon: np.ndarray, lat: np.ndarray, previous: xr.Dataset | None
    ) -> Earlier | None:
        """The field of the input 'previous', where it is asked for."""
        if (self.background == "previous") != (previous is not None):
            raise ParameterError(
                f"The order has background {self.background!r} and {'no' if previous is None else 'an'} input 'previous'; "
                "background 'previous' and that input go together. Give both, or neither."
            )
        if previous is None:
            return None
        told = column_attributes(observations).get(self.variable, {})
        return _backgrounds.earlier(previous, self.variable, told, {"longitude": lon, "latitude": lat})

    def _flow(self, lon: np.ndarray, lat: np.ndarray, currents: xr.Dataset | None) -> tuple[Earlier, Earlier] | None:
        """The eastward and northward velocities of the input 'currents', where advection is asked for."""
        if (self.advection > 0) != (currents is not None):
            raise ParameterError(
                f"The order has advection {self.advection:g} d and {'no' if currents is None else 'an'} input 'currents'; "
                "advection and that input go together. Give both, or neither."
            )
        if currents is None:
            return None
        east, north = (
            _backgrounds.earlier(
                currents,
                f"{way}_sea_water_velocity",
                {"standard_name": f"{way}_sea_water_velocity", "units": "m s-1"},
                {"longitude": lon, "latitude": lat},
                "currents",
            )
            for way in ("eastward", "northward")
        )
        return east, north

    def _currents(self, span: Window, flow: tuple[Earlier, Earlier] | None) -> tuple[xr.DataArray, xr.DataArray] | None:
        if flow is None:
            return None
        if flow[0].times(span)[1]:
            self.warn(f"The input 'currents' has no time in or near {span.label}; its nearest field was taken.")
        return flow[0].over(span), flow[1].over(span)

    def _start(self, plan: Plan, span: Window, row: list, earlier: Earlier | None) -> Any:
        """What the background of a window is made of beside the observations of each piece."""
        if self.background == "profile":
            return mean_profile(plan, row)
        if self.background == "plane":
            found = plane(plan, row)
            most = 2 if is_cyclic(plan.longitude) else 3
            flat = plan.depth[(found.free > 0) & (found.free < most)]
            if flat.size:
                self.warn(
                    f"In {span.label} the observations at {', '.join(f'{depth:g}' for depth in flat[:8])} m span too little "
                    "of the domain for a plane; across the directions that they do not span it is flat."
                )
            return found
        if earlier is None:
            return None
        if earlier.times(span)[1]:
            self.warn(f"The input 'previous' has no time in or near {span.label}; its nearest field was taken.")
        return earlier.over(span)

    def _arrays(self, plan: Plan, mask: np.ndarray, pieces: list, begins: list) -> list[list[dict[str, da.Array]]]:
        """For each window and group of levels the outputs, lazy."""
        whole_mask, names = dask.delayed(mask), given(self.parameters)
        # Every window has the same coasts, so what they do to the background is computed once.
        even = {
            (group.start, group.stop): dask.delayed(deviation_of)(plan, group, whole_mask, near.iloc[:0])
            for row in pieces
            for group, near, used in row
            if self.unit_variance and used.any()
        }
        found = []
        for row, begin in zip(pieces, begins, strict=True):
            whole_begin, arrays = dask.delayed(begin), []
            for group, near, used in row:
                known = even.get((group.start, group.stop), False)
                result = dask.delayed(analyse_levels)(plan, group, whole_mask, near, used, whole_begin, known)
                shape = (1, group.stop - group.start, plan.latitude.size, plan.longitude.size)
                arrays.append(
                    {
                        name: da.from_delayed(result[name], shape[: len(dims)], _DTYPES.get(name, np.float64))
                        for name, dims in names.items()
                    }
                )
            found.append(arrays)
        return found

    def _assemble(self, plan: Plan, spans: list[Window], arrays: list[list[dict[str, da.Array]]]) -> xr.Dataset:
        lat, lon, depth = plan.latitude, plan.longitude, plan.depth
        result = xr.Dataset(
            {
                name: (dims, da.concatenate([da.concatenate([a[name] for a in row], axis=1) for row in arrays], axis=0))
                for name, dims in given(self.parameters).items()
            }
        )
        names = given(self.parameters)
        yearly = spans[0].climatological
        kind, bounds = ("climatology", "climatology_bounds") if yearly else ("bounds", "time_bounds")
        for name in names.keys() & CELL_METHODS.keys():
            result[name].attrs["cell_methods"] = CELL_METHODS[name][yearly]
        if plan.transform is not None:
            result["analysis"].attrs["comment"] = (
                f"{self.back_transform} of the distribution that the analysis of the {self.transform} transform has "
                "in the units of the variable; analysis_error is the standard deviation of that distribution"
            )
        result = result.assign_coords(
            time=("time", [w.middle for w in spans], {"standard_name": "time", "axis": "T", kind: bounds}),
            depth=("depth", depth, {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"}),
            latitude=("latitude", lat, {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}),
            longitude=("longitude", lon, {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}),
        )
        edges = np.array([[w.start, w.end] for w in spans], dtype="datetime64[ns]")
        return result.assign_coords({bounds: (("time", "bounds"), edges)})


def _comparable(value: Any) -> Any:
    """A number as it is, a moment without its zone: statistics of a table may have one."""
    if isinstance(value, int | float | np.number):
        return float(value)
    moment = pd.Timestamp(value)
    return moment if moment.tz is None else moment.tz_convert("UTC").tz_localize(None)


def _cell(
    plan: Plan, spans: list[Window], latitude: float, longitude: float, depth: float | None, time: Any
) -> tuple[int, int, int, int]:
    """Window, level, row and column of the cell that is the nearest; what is left open must have one value only."""
    found = []
    for name, value in (("latitude", latitude), ("longitude", longitude), ("depth", depth)):
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
        if not number and not (name == "depth" and value is None):
            raise InputError(f"The {name} {value!r} is no number. Give one, such as {name}=45.")
    try:
        moment = None if time is None else pd.Timestamp(time)
    except (TypeError, ValueError):
        raise InputError(f"The time {time!r} cannot be read. Write it like 2010-02-15.") from None
    for name, value, values in (
        ("time", moment, pd.DatetimeIndex([w.middle for w in spans])),
        ("depth", depth, plan.depth),
    ):
        if value is None and len(values) > 1:
            raise InputError(
                f"The result has {len(values)} values of {name}, from {values[0]} to {values[-1]}. Give {name}= too."
            )
        found.append(0 if value is None else int(np.abs(values - value).argmin()))
    if depth is not None and not plan.edges[0, 0] <= depth <= plan.edges[-1, 1]:
        raise InputError(
            f"The depth {depth:g} m is none of the result's, which go from {plan.depth[0]:g} to {plan.depth[-1]:g} m. Give "
            "one of them."
        )
    first, last = min(w.start for w in spans), max(w.end for w in spans)
    if moment is not None and not first <= moment <= last and not any(w.climatological for w in spans):
        raise InputError(
            f"The time {moment:%Y-%m-%d} is in none of the result's windows, which go from {spans[0].label} to "
            f"{spans[-1].label}. Give one in them."
        )
    for name, value, values in (("latitude", latitude, plan.latitude), ("longitude", longitude, plan.longitude)):
        away = np.abs(values - value) if name == "latitude" else np.abs((values - value + 180.0) % 360.0 - 180.0)
        # Half a cell beyond the edges belongs to the nodes there.
        if not away.min() <= np.diff(values).max() / 2 + NEAR:
            raise InputError(
                f"The {name} {value:g} is outside the grid, which goes from {values[0]:g} to {values[-1]:g} degrees. "
                "Give a place inside it."
            )
        found.append(int(away.argmin()))
    return tuple(found)


def _made_of(rows: pd.DataFrame, transform: str) -> str:
    """The sum of which the value of a cell is the result, in words."""
    parts, number = rows.attrs["made_of"], f"{len(rows):,} observation{'' if len(rows) == 1 else 's'}"
    scale = "" if transform == "none" else f" on the scale of the {transform} transform"
    background, observed, rest = parts.values()
    words = f"{background:.4g} from the background, {observed:+.4g} from {number}"
    words += f", {rest:+.4g} from constraints" if abs(rest) > 1e-9 else ""
    weights = f"The weights of the observations sum to {rows['weight'].sum():.3g}."
    return f"The analysis here is {background + observed + rest:.4g}{scale}: {words}. {weights}"


def checked_mask(mask: np.ndarray) -> np.ndarray:
    """The mask as booleans; a missing value is land, and what is neither 0 nor 1 is no mask."""
    mask = np.nan_to_num(np.asarray(mask, float))
    if not np.isin(mask, (0.0, 1.0)).all():
        odd = mask[~np.isin(mask, (0.0, 1.0))]
        raise InputError(f"The domain's mask holds {odd[0]:g}; it must hold 1 at sea and 0 on land, and nothing else.")
    if not mask.any():
        raise InputError("The domain has no sea: its mask is 0 everywhere here. Choose another region or domain.")
    return mask.astype(bool)


def reach(edges: np.ndarray, vertical_length: float) -> np.ndarray:
    """Upper and lower bounds between which observations count, from those of the levels' cells."""
    # What lies between two levels that are analysed together counts for both.
    return np.array([[edges[0, 0], edges[-1, 1]]]) if vertical_length > 0 else edges


def _rise(became: np.ndarray, rows: pd.Series, to: int) -> None:
    at = rows.to_numpy()
    became[at] = np.maximum(became[at], to)


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
    inside = is_cyclic(plan.longitude) | (lon <= east + NEAR)
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
    if settings["transform_bounds"] is not None:
        above, below = [*settings["transform_bounds"], np.inf][:2]
        bad[BOUNDS] = (value <= above) | (value >= below)
    keep, counts = np.ones(len(rows), bool), Counter(total=len(rows))
    for reason, wrong in bad.items():
        counts[reason] = int((keep & wrong).sum())
        keep &= ~wrong
    chosen = rows.loc[keep, [c for c in rows.columns if not c.endswith("_qc")]]
    places = {"longitude": lon[keep], "latitude": latitude[keep], "depth": depth[keep]}
    return chosen.assign(**places, **{name: value[keep]}), counts


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
