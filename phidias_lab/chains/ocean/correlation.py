"""ocean.correlation: how far an observation speaks and how much it errs, estimated from the observations themselves."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.chains.ocean import _levels, gridding
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.contract import Chain, Resources, Var, choice, flag, number, numbers, period, region, variable
from phidias_lab.contract.data import Needs, column_attributes
from phidias_lab.errors import InputError, as_sentence
from phidias_lab.methods import agreement
from phidias_lab.methods.formats import flags
from phidias_lab.methods.time_windows import Window
from phidias_lab.methods.variational import EARTH_RADIUS, covariance_fit, cross_validation, likelihood
from phidias_lab.methods.variational.parameters import Estimate, Family, Parameter, profile, undecided

METHODS = {"likelihood": "likelihood", "cross_validation": "cross-validation", "covariance": "empirical covariance"}
#: Where the profiles of likelihood and score are drawn, in lengths that were estimated.
STEPS = np.geomspace(1 / 3, 3, 7)
#: A line of the profile that is this much above the least belongs to the end of a 95 % interval: chi-squared, 1 degree.
INTERVAL = 3.84
#: Values of one cast lie within so many degrees and on one day (DIVA takes a kilometre).
SAME_CAST = 0.01
#: Below two nodes to a length the grid does not hold its kernel (DIVA warns there too).
NODES_PER_LENGTH = 2


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    # The factor of the analysis and that of the background stand beside each other.
    return {"memory": 2 * gridding._grows(sizes, {**parameters, "solver": "multifrontal"})["memory"]}


@dataclasses.dataclass
class Row:
    """What one method tells of some levels in one window; None where it could not tell."""

    method: str
    place: str
    start: pd.Timestamp
    end: pd.Timestamp
    depth: float
    number: int
    length: Parameter | None = None
    vertical: Parameter | None = None
    noise: Parameter | None = None
    variance: float = np.nan


class Correlation(Chain):
    """Estimate the correlation length and the noise of observations, for gridding them.

    Three ways, each with its uncertainty. The marginal likelihood takes the length and noise that make the observations
    most probable: the sharpest of the three where the kernel of the norm suits the field. Cross-validation takes those
    with which each observation is predicted best by all others. The empirical covariance is the fit that users of DIVA
    know: the kernel is fitted to the mean products of pairs in bins of distance; it looks across land. Observations are
    chosen, and levels and windows cut, as in ocean.gridding, and each part is estimated by itself; a row "all" tells what
    the parts say together. Where observations do not tell, a sentence says so and there is no number.
    """

    title = "Correlation length and noise from observations"
    version = "1.0"
    inputs = {name: Gridding.inputs[name] for name in ("observations", "domain")}
    outputs = {
        **{
            f"{name}{end}": Var(units, long_name=f"{says}{words}", dims=("estimate",), optional=name.startswith("vert"))
            for name, units, says in (
                ("length", "m", "horizontal correlation length"),
                ("vertical_length", "m", "vertical correlation length"),
                ("noise", "1", "variance of the observation errors over that of the field"),
            )
            for end, words in (
                ("", ""),
                ("_low", ", lower end of the 95 % interval"),
                ("_high", ", upper end of the 95 % interval"),
            )
        },
        "background_deviation": Var(
            "{variable.units}",
            "{variable.standard_name}",
            "standard deviation of {variable} around its mean, without that of the observation errors",
            ("estimate",),
        ),
        "observations_used": Var("1", "number_of_observations", "number of observations used", ("estimate",)),
        "likelihood_ratio": Var(
            "1",
            long_name="twice the logarithm of the greatest likelihood over that of the length",
            dims=("profile", "step"),
            optional=True,
            doc="below 3.84 lies the 95 % interval",
        ),
        "score_excess": Var(
            "1",
            long_name="score of cross-validation above the least, times the number of observations",
            dims=("profile", "step"),
            optional=True,
        ),
        "profile_length": Var("m", long_name="correlation length", dims=("profile", "step"), optional=True),
        "covariance": Var(long_name="covariance of pairs of {variable}", dims=("fit", "bin"), optional=True),
        "covariance_error": Var(
            long_name="standard error of the covariance of pairs of {variable}", dims=("fit", "bin"), optional=True
        ),
        "fitted_covariance": Var(long_name="kernel fitted to the covariance", dims=("fit", "bin"), optional=True),
        "distance": Var("m", long_name="distance of the pairs", dims=("fit", "bin"), optional=True),
        "pairs": Var("1", long_name="number of pairs", dims=("fit", "bin"), optional=True),
    }
    resources = Resources(cores=2, memory="2GiB", walltime="02:00:00", grows=_grows)
    scene = "phidias_lab.testing.scenes.ocean:gridding"
    references = (
        "Lindgren et al. 2011, An explicit link between Gaussian fields and Gaussian Markov random fields, J. R. Statist. "
        "Soc. B 73, 423-498, doi:10.1111/j.1467-9868.2011.00777.x",
        "Dubrule 1983, Cross validation of kriging in a unique neighborhood, Math. Geol. 15, 687-699, "
        "doi:10.1007/BF01033232",
        "Troupin et al. 2012, Generation of analysis and consistent error fields using the Data Interpolating "
        "Variational Analysis (DIVA), Ocean Modelling 52-53, 90-101, doi:10.1016/j.ocemod.2012.05.002",
    )

    variable = variable("temperature", of="observations", doc="Of what the length is estimated")
    method = choice("all", ["all", *METHODS], doc="How length and noise are estimated")
    windows = choice(
        "whole",
        ["whole", "yearly", "seasonal", "monthly"],
        doc="How the period is cut; each part is estimated by itself",
    )
    period = period(doc="First and last day; empty is all there is")
    region = region(doc="Part of the domain; empty is all of it")
    depths = numbers(
        None, bounds=(0, 12000), units="m", increasing=True, doc="Levels of the domain; empty is all of them"
    )
    length = number(
        200e3,
        bounds=(1e3, 2e6),
        units="m",
        scale="log",
        doc="First guess of the horizontal length; looked for from a thirtieth to thirty times as much",
    )
    noise = number(
        0.5, bounds=(1e-4, 100), units="1", scale="log", doc="First guess of the noise; looked for in as wide a range"
    )
    vertical_length = number(
        0.0,
        bounds=(0, 5000),
        units="m",
        doc="First guess of the vertical length; 0 takes each level by itself, else all levels together tell one",
        level="expert",
    )
    trend = choice(
        "mean",
        ["mean", "plane"],
        doc="What is taken away first: the mean of each level, as gridding does, or a plane in longitude and latitude, "
        "whose slope would else count as a long correlation",
    )
    outliers = number(
        5.0,
        bounds=(2, 1000),
        doc="Values so many robust deviations from the mean or plane of their level are left out: one of them can hide what "
        "hundreds tell",
        level="expert",
    )
    profiles = flag(
        True, doc="Whether likelihood and score are also computed along the length, to draw them", level="expert"
    )
    quality = choice("probably_good", list(flags.ACCEPTED), doc="Worst quality flag that is accepted", level="expert")
    value_range = numbers(
        None,
        bounds=(-1e9, 1e9),
        increasing=True,
        doc="Least and greatest value that is used; empty is Argo's global range test where the variable is known",
        level="expert",
    )
    drop_duplicates = flag(
        True,
        doc="Use an observation only once that came twice; a table of ocean.quality says itself which those are",
        level="expert",
    )
    edge_stretch = number(
        1.0,
        bounds=(0, 3),
        doc="How far the rim around the grid is moved out, in correlation lengths, as in gridding",
        level="expert",
    )
    unit_variance = flag(
        True,
        doc="Whether the background has the same variance beside coasts as in the open sea, as in gridding",
        level="expert",
    )

    @property
    def _gridding(self) -> Gridding:
        """The gridding for which length and noise are sought: it chooses and cuts the observations."""
        shared = Gridding.declared()
        # It prepares and solves nothing, so nothing of it has to fit into the memory.
        found = Gridding(tile=100_000, **{name: value for name, value in self.parameters.items() if name in shared})
        found.report, found.said = self.report, self.said
        return found

    def check(self, inputs: Mapping[str, Any]) -> None:
        self._gridding.check(inputs)

    def needs(self, inputs: Mapping[str, Any]) -> Mapping[str, Needs]:
        return self._gridding.needs(inputs)

    def headline(self, inputs: Mapping[str, Any]) -> str:
        return f"Correlation of {self._gridding.headline(inputs)[:1].lower()}{self._gridding.headline(inputs)[1:]}"

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {n: v for n, v in self._gridding.resolve(inputs).items() if n in self.declared()}

    def run(self, observations: Any, domain: xr.Dataset) -> xr.Dataset:
        plan, mask, spans, pieces = self._gridding.prepared(observations, domain)
        methods = list(METHODS) if self.method == "all" else [self.method]
        parts = [(span, *piece) for span, row in zip(spans, pieces, strict=True) for piece in row if piece[2].any()]
        if not parts:
            raise InputError("No observation lies beside the sea. Choose another region, period, depths or domain.")
        works = [_Part(self, plan, mask, group, near, used) for _, group, near, used in parts]
        outliers = sum(work.outliers for work in works)
        self.counted("values", sum(work.values.size for work in works) + outliers, {"outlier": outliers})
        rows: list[Row] = []
        found: dict[str, list] = {"profile": [], "fit": []}
        total = len(parts) * len(methods)
        for k, (span, work) in enumerate(zip([part[0] for part in parts], works, strict=True)):
            place = ", ".join([work.depths, *([_window(span)] if len(spans) > 1 else [])])
            for m, method in enumerate(methods):
                step = (k * len(methods) + m) / total
                row = Row(method, place, span.start, span.end, work.depth, work.values.size)
                rows.append(row)
                tell = functools.partial(self.report, step)
                try:
                    getattr(work, method)(row, found, lambda said, tell=tell, place=place: tell(f"{place}: {said}"))
                except InputError as error:
                    row.length = row.vertical = row.noise = None
                    self.warn(f"{METHODS[method].capitalize()}, {place}: {as_sentence(error)}")
                else:
                    self._check_nodes(row, plan)
        if all(row.length is None for row in rows):
            raise InputError(self.said.warnings[-1])
        rows += self._together(rows, methods)
        result = xr.merge([_table(rows), _profiles(found["profile"]), _fits(found["fit"])])
        if self.trend == "plane":
            result.attrs["background"] = "plane"
        for row in _for_gridding(rows):
            self.found(_sentence(row, result.attrs.get("background")))
        return self._named(result, observations)

    def _together(self, rows: list[Row], methods: list[str]) -> list[Row]:
        """What all parts say: the mean of their logarithms (for noise, of its shares) by the inverse of their variances.

        Levels share casts and neighbouring windows share water, so the parts are taken to err together: the deviation is
        the mean of theirs, and not less because they are many.
        """
        found = []
        for method in methods:
            mine = [row for row in rows if row.method == method and row.length is not None]
            if sum(row.method == method for row in rows) < 2 or not mine:
                continue
            start, end = min(row.start for row in mine), max(row.end for row in mine)
            whole = Row(method, "all", start, end, np.nan, sum(row.number for row in mine))
            whole.length = _mean([row.length for row in mine])
            whole.noise = _mean_noise([row.noise for row in mine])
            if all(row.vertical is not None for row in mine):
                whole.vertical = _mean([row.vertical for row in mine])
            whole.variance = float(np.mean([row.variance for row in mine]))
            found.append(whole)
        return found

    def _check_nodes(self, row: Row, plan: _levels.Plan) -> None:
        step = np.deg2rad(np.diff(plan.latitude).max()) * EARTH_RADIUS
        if row.length.value < NODES_PER_LENGTH * step:
            self.warn(
                f"{METHODS[row.method].capitalize()}, {row.place}: the length of {row.length.value / 1e3:.3g} km is less "
                f"than {NODES_PER_LENGTH} steps of the domain ({step / 1e3:.3g} km). Grid on a finer domain."
            )

    def _named(self, result: xr.Dataset, observations: Any) -> xr.Dataset:
        """With the squared units of the variable on covariances, and what is drawn with what."""
        units = column_attributes(observations).get(self.variable, {}).get("units")
        for name in ("covariance", "covariance_error", "fitted_covariance"):
            if name in result and units:
                result[name].attrs["units"] = "1" if units == "1" else f"({units})2"
        if "covariance" in result:
            result["covariance"].attrs |= {
                "drawn_against": "distance",
                "drawn_with": "fitted_covariance",
                "ancillary_variables": "covariance_error pairs",
            }
        for name in ("likelihood_ratio", "score_excess"):
            if name in result:
                result[name].attrs["drawn_against"] = "profile_length"
        if "likelihood_ratio" in result:
            result["likelihood_ratio"].attrs["drawn_limit"] = INTERVAL
        return result


class _Part:
    """Some levels in one window: their observations, and what each method makes of them."""

    def __init__(self, chain: Correlation, plan: _levels.Plan, mask, group: slice, near: pd.DataFrame, used):
        self.chain = chain
        depth = plan.depth[group]
        self.depth = float(depth[0]) if depth.size == 1 else np.nan
        self.depths = "–".join(f"{each:g}" for each in dict.fromkeys(depth[[0, -1]].tolist())) + " m"
        self.together = depth.size > 1
        near, level = near[used], _levels.level_of(plan, group, near)[used]
        values = near[chain.variable].to_numpy(float)
        # Of each level by itself: a profile that is the same everywhere says nothing of how far an observation speaks.
        anomaly, good = np.empty(values.size), np.ones(values.size, bool)
        for each in np.unique(level):
            here = np.flatnonzero(level == each)
            places = [near[name].to_numpy(float)[here] for name in ("longitude", "latitude")]
            anomaly[here], good[here] = _anomaly(values[here], places, chain.trend == "plane", chain.outliers)
        self.near, self.level, self.values = near[good], level[good], anomaly[good]
        self.outliers = int((~good).sum())
        (*grid, self.length), self.convention, _ = _levels.geometry(plan, group, mask, self.near)
        self.grid = grid
        self.groups = [[0], [1, 2]] if self.together else [[0, 1]]

    def likelihood(self, row: Row, found: dict, progress: Callable[[str], None]) -> None:
        self._estimated(row, found, progress, likelihood.estimate, likelihood.Likelihood, 1.0)

    def cross_validation(self, row: Row, found: dict, progress: Callable[[str], None]) -> None:
        self._estimated(
            row, found, progress, cross_validation.estimate, cross_validation.Score, float(self.values.size)
        )

    def _estimated(self, row: Row, found, progress, estimate: Callable[..., Estimate], family, times: float) -> None:
        if np.abs(self.values).max() <= 1e-9 * np.abs(self.near[self.chain.variable]).max():
            raise undecided("all values are the same")
        noise = self.chain.noise
        given = (*self.grid, self.values)
        told = {"length": self.length, "noise": noise, "groups": self.groups, **self.convention}
        told["unit_variance"] = self.chain.unit_variance
        best = estimate(*given, progress=progress, **told)
        row.length, row.noise, row.variance = _scaled(best.factors[-1], self.length[-1]), best.noise, best.variance
        if self.together:
            row.vertical = _scaled(best.factors[0], self.length[0])
        if self.chain.profiles:
            progress("along the length")
            where: Family = family(*given, **told)
            values = profile(where, best.logs, len(self.groups) - 1, STEPS)
            excess = times * (values - best.score)
            found["profile"].append((row.method, row.place, row.length.value * STEPS, excess))

    def covariance(self, row: Row, found: dict, progress: Callable[[str], None]) -> None:
        progress("covariance of pairs")
        lon, lat = (np.deg2rad(self.near[name].to_numpy(float)) for name in ("longitude", "latitude"))
        # Chords of the sphere: within a hundredth of the distance along it up to 3000 km, and no covariance of chords is
        # impossible.
        points = EARTH_RADIUS * np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
        order = (3, 3) if self.together else (2, 2)
        level = covariance_fit.fit(points, self.values, order, group=self.level)
        if self.together:
            cast = pd.DataFrame(
                {
                    "longitude": (self.near["longitude"] / SAME_CAST).round(),
                    "latitude": (self.near["latitude"] / SAME_CAST).round(),
                    "day": self.near["time"].dt.floor("D"),
                }
            )
            cast = cast.groupby(["longitude", "latitude", "day"]).ngroup().to_numpy()
            depth = self.near["depth"].to_numpy(float)[:, None]
            across = points / level.length.value
            down = covariance_fit.fit(depth, self.values, order, group=cast, level=self.level, across=across)
            row.vertical = down.length
            found["fit"].append((row.place, "vertical", down))
            # Once more, now that it is known how much the levels have in common: they tell less than independent ones.
            across = depth / down.length.value
            level = covariance_fit.fit(points, self.values, order, group=self.level, across=across)
        row.length, row.noise, row.variance = level.length, level.noise, level.variance
        found["fit"].append((row.place, "horizontal", level))


def _anomaly(
    values: np.ndarray, places: list[np.ndarray], plane: bool, outliers: float
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of the values without their mean or plane, and which are no outliers; outliers take no part."""
    columns = [np.ones(values.size), *([each - each.mean() for each in places] if plane else [])]
    shape, good = np.column_stack(columns), np.ones(values.size, bool)
    while True:
        anomaly = values - shape @ np.linalg.lstsq(shape[good], values[good])[0]
        spread = agreement.SCALE * np.median(np.abs(anomaly[good] - np.median(anomaly[good])))
        far = good & (np.abs(anomaly - np.median(anomaly[good])) > outliers * spread) if spread > 0 else ~good & good
        if not far.any():
            return anomaly, good
        good &= ~far


def for_gridding(result: xr.Dataset, method: str = "likelihood") -> dict[str, Any]:
    """What ocean.gridding takes from a result of this chain: `length` and `noise`, `vertical_length` where levels were taken
    together, and `background` where a plane was taken away."""
    mine = np.flatnonzero(result["method"].values.astype(str) == method)
    known = [k for k in mine if np.isfinite(float(result["length"][k]))]
    if not known:
        raise InputError(
            f"The result holds no estimate by {method!r}. It has {', '.join(sorted(set(map(str, result['method'].values))))}"
            "; where a number is missing, the comment of the result says why."
        )
    last = result.isel(estimate=known[-1])  # the row of all parts, where there are several, comes last
    names = [name for name in ("length", "noise", "vertical_length") if name in result and np.isfinite(last[name])]
    found: dict[str, Any] = {name: float(last[name]) for name in names}
    return found | {name: result.attrs[name] for name in ("background",) if name in result.attrs}


def _for_gridding(rows: list[Row]) -> list[Row]:
    """The last row of each method that tells something."""
    return list({row.method: row for row in rows if row.length is not None}.values())


def _sentence(row: Row, background: str | None) -> str:
    length, noise = row.length, row.noise
    text = (
        f"By {METHODS[row.method]}, {row.place}: the length is {length.value / 1e3:.3g} km ({length.low / 1e3:.3g} to "
        f"{length.high / 1e3:.3g}), the noise {noise.value:.2g} ({noise.low:.2g} to {noise.high:.2g})"
    )
    options = f"--length {length.value:.0f} --noise {noise.value:.3g}"
    if row.vertical is not None:
        text += f", the vertical length {row.vertical.value:.3g} m ({row.vertical.low:.3g} to {row.vertical.high:.3g})"
        options += f" --vertical-length {row.vertical.value:.3g}"
    options += f" --background {background}" if background else ""
    return f"{text}. Gridding takes it as: phidias run ocean.gridding {options}"


def _scaled(parameter: Parameter, by: float) -> Parameter:
    return Parameter(*(by * each for each in (parameter.value, parameter.low, parameter.high)))


def _mean(parameters: list[Parameter]) -> Parameter:
    logs = np.log([p.value for p in parameters])
    deviation = np.maximum([np.log(p.high / p.low) / 3.92 for p in parameters], 1e-3)
    weight = deviation**-2 / np.sum(deviation**-2)
    return Parameter.of_logarithm(float(weight @ logs), float(weight @ deviation))


def _mean_noise(parameters: list[Parameter]) -> Parameter:
    """By its share of the variance, which lies between 0 and 1, where the logarithm of almost no noise could be anything."""
    value, low, high = (
        np.array([n / (1 + n) for n in each]) for each in zip(*map(dataclasses.astuple, parameters), strict=True)
    )
    weight = np.maximum(high - low, 1e-3) ** -2.0
    value, low, high = (float(each @ weight / weight.sum()) for each in (value, low, high))
    return Parameter(*(share / (1 - share) for share in (value, low, high)))


def _window(span: Window) -> str:
    return f"{span.start:%Y-%m-%d} to {span.end - pd.Timedelta(days=1):%Y-%m-%d}"


def _names(texts: list[str], says: str) -> tuple:
    return np.array(texts, dtype=object), {"long_name": says}


def _table(rows: list[Row]) -> xr.Dataset:
    columns: dict[str, list] = {}
    for row in rows:
        for name, parameter in (("length", row.length), ("vertical_length", row.vertical), ("noise", row.noise)):
            for end, attribute in (("", "value"), ("_low", "low"), ("_high", "high")):
                value = np.nan if parameter is None else getattr(parameter, attribute)
                columns.setdefault(f"{name}{end}", []).append(value)
        columns.setdefault("background_deviation", []).append(np.nan if row.length is None else np.sqrt(row.variance))
        columns.setdefault("observations_used", []).append(row.number)
    if not np.isfinite(columns["vertical_length"]).any():
        columns = {name: values for name, values in columns.items() if not name.startswith("vertical")}
    result = xr.Dataset({name: ("estimate", np.array(values)) for name, values in columns.items()})
    said = {
        "estimate_name": ([f"{METHODS[row.method]}, {row.place}" for row in rows], "what was estimated, and how"),
        "method": ([row.method for row in rows], "how it was estimated"),
    }
    result = result.assign_coords({name: ("estimate", *_names(*each)) for name, each in said.items()})
    return result.assign_coords(
        estimate_depth=(
            "estimate",
            np.array([row.depth for row in rows]),
            {"standard_name": "depth", "long_name": "level", "units": "m", "positive": "down"},
        ),
        **{
            f"estimate_{end}": (
                "estimate",
                np.array([getattr(row, end) for row in rows], dtype="datetime64[ns]"),
                {"long_name": f"{end} of the window"},
            )
            for end in ("start", "end")
        },
    )


def _profiles(found: list[tuple]) -> xr.Dataset:
    if not found:
        return xr.Dataset()
    lengths = np.array([length for _, _, length, _ in found])
    result = xr.Dataset({"profile_length": (("profile", "step"), lengths)})
    for name, method in (("likelihood_ratio", "likelihood"), ("score_excess", "cross_validation")):
        values = [excess if mine == method else np.full_like(excess, np.nan) for mine, _, _, excess in found]
        if np.isfinite(values).any():
            result[name] = (("profile", "step"), np.array(values))
    names = [f"{METHODS[method]}, {place}" for method, place, _, _ in found]
    return result.assign_coords(profile_name=("profile", *_names(names, "what was estimated")))


def _fits(found: list[tuple[str, str, covariance_fit.Fit]]) -> xr.Dataset:
    if not found:
        return xr.Dataset()
    most = max(fit.distance.size for _, _, fit in found)
    columns = {
        "distance": "distance",
        "covariance": "covariance",
        "covariance_error": "error",
        "fitted_covariance": "fitted",
        "pairs": "pairs",
    }
    result = xr.Dataset()
    for name, attribute in columns.items():
        values = np.full((len(found), most), np.nan)
        for k, (_, _, fit) in enumerate(found):
            values[k, : fit.distance.size] = getattr(fit, attribute)
        result[name] = (("fit", "bin"), values)
    names = [f"{direction}, {place}" for place, direction, _ in found]
    return result.assign_coords(fit_name=("fit", *_names(names, "direction and part")))
