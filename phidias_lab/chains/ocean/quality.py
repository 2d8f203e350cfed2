"""ocean.quality: observations with flags and copies found by this lab beside what was delivered, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.chains.ocean._inputs import DOMAIN, DOMAIN_DIMS, OBSERVATIONS
from phidias_lab.contract import Chain, Input, Resources, Var, choice, count, flag, number, text
from phidias_lab.contract.data import column_attributes, converter, measured
from phidias_lab.errors import InputError, ParameterError, nearest
from phidias_lab.methods import duplicates, profiles, ranges, variational
from phidias_lab.methods.formats import flags
from phidias_lab.methods.variational import outliers

TESTS = ("duplicate", "range", "spike", "gradient", "residual")
#: What the tests say of a value, in L20: out of the range of sea water is bad; what stands out is probably bad.
SAYS = {"range": flags.BAD, "spike": flags.PROBABLY_BAD, "gradient": flags.PROBABLY_BAD, "residual": flags.PROBABLY_BAD}
#: A value that came with one of these flags was judged already.
JUDGED = (flags.PROBABLY_BAD, flags.BAD, flags.MISSING)
NOT_MEASURED = ("pressure", "bottom_depth")


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    # The table is in memory once as it came and once in the order of its casts, beside the columns that are added.
    return {"memory": 2**30 + 8 * sizes.get("observations", {}).get("bytes", 0)}


@dataclass(frozen=True)
class Found:
    """What one test finds of one variable: rows of the table, one decision for each, and the sentence that says why."""

    test: str
    variable: str
    rows: np.ndarray
    names: np.ndarray
    reasons: np.ndarray


class Quality(Chain):
    """Find observations that came twice and values that stand out; flag them, say why, delete nothing.

    Every observation of the table is in the result, unchanged. Beside each measured column stands one with the flags that
    were added (`<variable>_added_qc`), and `duplicate_of` names the observation of which one is a copy. Every decision has
    a name and a reason, and is undone by its name in another run. What came with a bad flag is not judged again.
    `ocean.gridding` and `ocean.comparison` honour what is added here.
    """

    title = "Quality control of in-situ observations"
    version = "1.0"
    kind = "table"
    inputs = {
        "observations": Input(
            "table",
            doc="observations, one row each; platform and cast tell profiles apart where there are such columns",
            default="ocean.observations",
            variables=OBSERVATIONS,
        ),
        "domain": Input(
            "cube",
            doc="the grid, and where it is sea; with it observations of a level are judged by each other",
            role="support",
            optional=True,
            dims=DOMAIN_DIMS,
            variables=DOMAIN,
        ),
    }
    outputs = {
        "duplicate_of": Var(
            long_name="the observation of which this one is a copy; -1 for an original",
            doc="its observation_id where the table has one, else its row, counted from 0",
        ),
        "decisions": Var(long_name="names of the decisions about this observation"),
        "reasons": Var(long_name="why, a sentence for each decision"),
        "undone": Var(long_name="names of decisions about this observation that were undone"),
    }
    resources = Resources(cores=2, memory="2GiB", walltime="00:30:00", grows=_grows)
    scene = "phidias_lab.testing.scenes.ocean:quality"
    references = (
        "Wong et al., Argo Quality Control Manual for CTD and Trajectory Data, doi:10.13155/33951",
        "Thierry et al., Argo quality control manual for dissolved oxygen concentration, doi:10.13155/46542",
    )

    variables = text(
        "",
        max_length=2000,
        doc="Variables that are tested, with commas between them; empty is all that were measured",
    )
    find_copies = flag(True, doc="Look for observations that came twice")
    test_ranges = flag(True, doc="Look for values that sea water cannot have")
    test_profiles = flag(True, doc="Look for spikes and steps along profiles")
    undo = text(
        "",
        max_length=1_000_000,
        doc="Decisions that do not hold, by their names or those of whole tests (duplicate, range, spike, gradient, "
        "residual), with commas between them",
    )
    windows = choice(
        "monthly",
        ["monthly", "seasonal", "yearly", "whole"],
        doc="Observations of one such span are judged by each other, where a domain is given",
    )
    length = number(
        200e3,
        bounds=(1e3, 2e6),
        units="m",
        scale="log",
        doc="Horizontal correlation length with which observations are judged by each other",
    )
    residual_limit = number(
        6.0,
        bounds=(2, 100),
        doc="How many robust standard deviations a value may be from what the others say",
    )
    noise = number(
        0.5,
        bounds=(1e-4, 100),
        scale="log",
        doc="Variance of the observation errors over that of the field, where observations are judged by each other",
        level="expert",
    )
    least_number = count(
        30,
        bounds=(5, 100_000),
        scale="log",
        doc="Fewer observations than this are not judged by each other",
        level="expert",
    )
    same_degrees = number(
        0.006,
        bounds=(0, 1),
        units="degree",
        doc="How far apart copies may lie in longitude and latitude",
        level="expert",
    )
    same_depth = number(0.1, bounds=(0, 100), units="m", doc="How far apart copies may lie in depth", level="expert")
    same_time = number(90.0, bounds=(0, 86400), units="s", doc="How far apart copies may lie in time", level="expert")
    same_value = number(
        0.006,
        bounds=(0, 100),
        doc="How far apart the values of copies may lie, in the units of each variable",
        level="expert",
    )
    same_share = number(
        2e-4, bounds=(0, 0.1), doc="The same as a share of the value, where that is more", level="expert"
    )

    def check(self, inputs: Mapping[str, Any]) -> None:
        table = inputs["observations"]
        if getattr(table.dtypes["time"], "kind", "O") != "M":
            raise InputError("The column 'time' of the observations holds no dates. Convert it to dates first.")
        for name in ("duplicate_of", "decisions", "reasons", "undone"):
            if name in table.columns:
                raise InputError(
                    f"The observations have a column {name!r} already, as after a run of ocean.quality. Give the "
                    "observations as they were before; 'undo' changes decisions."
                )
        self._chosen(table)

    def run(self, observations: Any, domain: xr.Dataset | None = None) -> pd.DataFrame:
        self.report(0.0, "reading the observations")
        told = dict(getattr(observations, "attrs", None) or {})
        table = observations.compute() if hasattr(observations, "compute") else observations
        table = table.reset_index(drop=True)
        columns, names = column_attributes(observations), self._chosen(observations)
        known = {name: _floats(table[name]) for name in _measured(observations)}
        facts, sea = _Facts(table), None if domain is None else _Sea(domain)
        asked = {part.strip() for part in self.undo.replace("\n", ",").split(",") if part.strip()}
        undone = {name for name in asked if name not in TESTS}
        whole = asked - undone
        self.report(0.1, "looking for copies")
        result, words = table.copy(), _Words(len(table))
        result["duplicate_of"] = self._copies(table, known, facts, whole, undone, words)
        copies = result["duplicate_of"].to_numpy() >= 0
        for k, name in enumerate(names):
            self.report(0.5 + 0.4 * k / len(names), f"testing {name}")
            added, tested = np.zeros(len(table), np.int8), False
            for found in self._tests(table, name, known[name], columns.get(name) or {}, facts, sea, copies):
                tested = True
                keep = words.add(found, whole, undone)
                added[found.rows[keep]] = np.maximum(added[found.rows[keep]], SAYS[found.test])
            good = flags.GOOD if tested else flags.NO_CONTROL
            added[(added == 0) & ~_judged_before(table, name)] = good
            added[~np.isfinite(known[name])] = flags.MISSING
            result[f"{name}_added_qc"] = added
            columns[f"{name}_added_qc"] = {
                **flags.attributes(name),
                "long_name": f"quality flag of {name} that ocean.quality added",
            }
        if unknown := sorted(undone - words.names):
            raise InputError(
                f"Parameter 'undo' was given {unknown[0]!r}, which is no decision about these observations. Their names "
                "stand in the column 'decisions' of a run without it."
            )
        for column, texts in (("decisions", words.decisions), ("reasons", words.reasons), ("undone", words.undone)):
            result[column] = pd.Series(texts, index=result.index, dtype="str")
        self._speak(words, len(table))
        result.attrs = {**told, "columns": columns}
        return result

    # What is tested -----------------------------------------------------------------------------------------------

    def _chosen(self, observations: Any) -> list[str]:
        known = _measured(observations)
        asked = [part.strip() for part in self.variables.split(",") if part.strip()]
        for name in asked:
            if name not in known:
                raise ParameterError(
                    f"Parameter 'variables' was given {name!r}, which the observations do not hold as a measurement. "
                    f"{nearest(name, known)}"
                )
        if not known:
            raise InputError(
                "The observations have no measured column, only places, times and flags. Give a table with measurements."
            )
        return list(dict.fromkeys(asked)) or known

    def _copies(self, table, known, facts, whole, undone, words) -> np.ndarray:
        identity = table.get("observation_id")
        if identity is None or identity.dtype.kind not in "iu" or not identity.is_unique:
            identity = pd.Series(np.arange(len(table)))
        none = np.full(len(table), -1, np.int64)
        if not self.find_copies or not len(table):
            return none
        away = duplicates.Tolerances(
            self.same_degrees, self.same_depth, self.same_time, self.same_value, self.same_share
        )
        copies = duplicates.find(*facts.places, list(known.values()), facts.platform, facts.cast, away)
        rows = np.flatnonzero(copies.of >= 0)
        which = copies.finding[rows]
        # A finding is named by the observations that are copies, in whatever order they stand.
        key = np.full(copies.number.size, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(key, which, facts.key("duplicate", rows, [column[rows] for column in known.values()]))
        names = _names("duplicate", key)
        told = [
            f"{_told(table, one)} copies {_told(table, other)}"
            for one, other in zip(copies.copy, copies.original, strict=True)
        ]
        reasons = [
            f"{number} observation{'s' if number > 1 else ''} came twice: {what}"
            for number, what in zip(copies.number, told, strict=True)
        ]
        reasons = np.array(reasons, dtype=object)
        found = Found("duplicate", "", rows, names[which], reasons[which])
        keep = words.add(found, whole, undone)
        none[rows[keep]] = identity.to_numpy()[copies.of[rows[keep]]]
        return none

    def _tests(self, table, name, values, told, facts, sea, copies) -> Iterator[Found]:
        """The failures of each test that is known for this variable; one that finds nothing is told as well."""
        left = np.where(_judged_before(table, name), np.nan, values)
        limits = ranges.of(name, told.get("standard_name")) if self.test_ranges else None
        convert = self._converted(name, told, limits)
        if convert is not None:
            least, greatest = convert(limits.least), convert(limits.greatest)
            rows = np.flatnonzero((left < least) | (left > greatest))
            left[rows] = np.nan
            reasons = [
                f"{name} {values[row]:g} is outside {least:g} to {greatest:g}, all that sea water has" for row in rows
            ]
            yield facts.found("range", name, rows, values, reasons)
        limits = profiles.of(name, told.get("standard_name")) if self.test_profiles else None
        convert = self._converted(name, told, limits)
        if convert is not None:
            scale = convert(1.0) - convert(0.0)
            spike, gradient = (
                tuple(float(limit * scale) for limit in pair) for pair in (limits.spike, limits.gradient)
            )
            failures = profiles.stand_out(
                facts.profile, facts.places[2], left, limits._replace(spike=spike, gradient=gradient)
            )
            for test, size, pair, says in (
                ("spike", failures.spike, spike, "sticks out of its profile by"),
                ("gradient", failures.gradient, gradient, "is off the middle of its neighbours by"),
            ):
                rows = np.flatnonzero(np.isfinite(size))
                left[rows] = np.nan
                depth = facts.places[2]
                reasons = [
                    f"{name} {values[row]:g} {says} {size[row]:.3g}, more than {pair[int(depth[row] >= profiles.CHANGE)]:g}"
                    for row in rows
                ]
                yield facts.found(test, name, rows, values, reasons)

        if sea is not None:
            left[copies] = np.nan  # a copy would vouch for its original
            z, expected = self._judged(left, facts, sea)
            rows = np.flatnonzero(np.abs(z) > self.residual_limit)
            reasons = [
                f"{name} {values[row]:g} is {abs(z[row]):.1f} standard deviations from {expected[row]:.4g}, which the "
                f"observations around say, more than {self.residual_limit:g}"
                for row in rows
            ]
            yield facts.found("residual", name, rows, values, reasons)

    def _judged(self, values: np.ndarray, facts: _Facts, sea: _Sea) -> tuple[np.ndarray, np.ndarray]:
        """By how much each value is off what the others of its level and span of time say, and what they say."""
        z, expected = np.full((2, values.size), np.nan)
        lon, lat, depth, _ = facts.places
        level, span = sea.level(depth), facts.span(self.windows)
        rows = np.flatnonzero(np.isfinite(values) & (level >= 0) & ~np.isnat(facts.time))
        rows = rows[np.lexsort((values[rows], lon[rows], lat[rows], span[rows], level[rows]))]
        new = (np.diff(level[rows]) != 0) | (np.diff(span[rows]) != 0)
        for some in np.split(rows, np.flatnonzero(new) + 1):
            if some.size < self.least_number or not sea.mask[level[some[0]]].any():
                continue
            places, length = [lat[some], sea.turned(lon[some])], [self.length] * 2
            found = outliers.judge(
                sea.mask[level[some[0]]],
                sea.metrics,
                [sea.latitude, sea.longitude],
                places,
                values[some],
                length,
                self.noise,
                self.residual_limit,
                cyclic=[0.0, sea.period],
            )
            z[some], expected[some] = found.z, found.expected
        return z, expected

    def _converted(self, name: str, told: Mapping, limits: Any):
        """How limits are turned into the units of the column; None where there is no limit or it cannot be turned."""
        if limits is None:
            return None
        try:
            return converter(limits.units, told.get("units") or limits.units) or float
        except InputError:
            self.warn(
                f"The values of {name!r} are in {told.get('units')}, and what sea water has is known in {limits.units} "
                "only, so they were not tested for that."
            )
            return None

    def _speak(self, words: _Words, number: int) -> None:
        if not words.counts:
            self.report(1.0, f"no decision about {number} observations")
            return
        said = ", ".join(f"{rows} {what} ({made} decisions)" for what, (rows, made) in words.counts.items())
        self.warn(
            f"There are decisions about {sum(bool(text) for text in words.decisions)} of {number} observations: {said}. "
            "The columns 'decisions' and 'reasons' tell which and why; all observations are still there."
        )


class _Facts:
    """Where, when and in which profile each observation was made."""

    def __init__(self, table: pd.DataFrame):
        time = table["time"]
        time = time.dt.tz_convert("UTC").dt.tz_localize(None) if time.dt.tz is not None else time
        self.time = time.to_numpy("datetime64[s]")
        seconds = ((time - pd.Timestamp("2000-01-01")) / pd.Timedelta(seconds=1)).to_numpy(float)
        self.places = [_floats(table[column]) for column in ("longitude", "latitude", "depth")] + [seconds]
        self.platform, self.cast = (_codes(table, column) for column in ("platform", "cast"))
        parts = [part for part in (self.platform, self.cast) if part is not None]
        lon, lat, _, seconds = self.places
        self.profile = duplicates.numbered([*parts, lon, lat, seconds])

    def span(self, windows: str) -> np.ndarray:
        """A number for the part of time to which each observation belongs; seasons begin with December."""
        if windows == "whole":
            return np.zeros(self.time.size, np.int64)
        months = {"monthly": 1, "seasonal": 3, "yearly": 12}[windows]
        return (self.time.astype("datetime64[M]").astype(np.int64) + (months == 3)) // months

    def key(self, salt: str, rows: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
        """A number for each row that depends on what it says, and not on where it stands in the table."""
        salted = np.full(rows.size, sum(ord(c) << (8 * (k % 7)) for k, c in enumerate(salt)), np.int64)
        return duplicates.mixed([salted, *(place[rows] for place in self.places), *values])

    def found(self, test: str, variable: str, rows: np.ndarray, values: np.ndarray, reasons: list[str]) -> Found:
        names = _names(test, self.key(f"{test} {variable}", rows, [values[rows]]))
        return Found(test, variable, rows, names, np.array(reasons, dtype=object))


class _Sea:
    """Where it is sea on each level, and the places of the nodes."""

    def __init__(self, domain: xr.Dataset):
        domain = domain[["mask"]].transpose("depth", "latitude", "longitude").sortby(["depth", "latitude", "longitude"])
        self.depth, self.latitude, self.longitude = (
            domain[name].values.astype(float) for name in ("depth", "latitude", "longitude")
        )
        self.mask = np.nan_to_num(domain["mask"].values.astype(float)) > 0
        lon = self.longitude
        closed = lon.size > 2 and np.isclose(lon[-1] - lon[0] + lon[1] - lon[0], 360.0)
        self.period = 360.0 if closed else 0.0
        across, along = variational.metrics_on_sphere(lon, self.latitude, period=self.period)
        self.metrics = [along.T, across.T]

    def turned(self, longitude: np.ndarray) -> np.ndarray:
        return self.longitude[0] + np.mod(longitude - self.longitude[0], 360.0)

    def level(self, depth: np.ndarray) -> np.ndarray:
        """The nearest level of each depth; -1 for what lies further below the last one than the half-way above it."""
        middle = (self.depth[1:] + self.depth[:-1]) / 2
        level = np.searchsorted(middle, np.nan_to_num(depth, nan=np.inf), side="right")
        end = 2 * self.depth[-1] - middle[-1] if middle.size else np.inf
        return np.where(depth < end, level, -1)


class _Words:
    """Texts about each observation, put together decision by decision."""

    def __init__(self, number: int):
        self.decisions, self.reasons, self.undone = (np.full(number, "", dtype=object) for _ in range(3))
        self.names: set[str] = set()
        self.counts: dict[str, tuple[int, int]] = {}

    def add(self, found: Found, whole: set[str], undone: set[str]) -> np.ndarray:
        """Take in what was found; which of it holds, because nobody undid it."""
        self.names |= set(found.names)
        keep = np.array([found.test not in whole and name not in undone for name in found.names], bool)
        for row, name, reason, holds in zip(found.rows, found.names, found.reasons, keep, strict=True):
            if holds:
                self.decisions[row] += f" {name}" if self.decisions[row] else name
                self.reasons[row] += f" | {reason}" if self.reasons[row] else reason
            else:
                self.undone[row] += f" {name}" if self.undone[row] else name
        if keep.any():
            what = {"duplicate": "copies"}.get(found.test, f"{found.test} of {found.variable}")
            self.counts[what] = (int(keep.sum()), len(set(found.names[keep])))
        return keep


def decisions(result: pd.DataFrame) -> pd.DataFrame:
    """The decisions in a result of ocean.quality, a row each: name, test, how many observations, the first one's place and
    reason, and whether it was undone."""
    rows = []
    for column in ("decisions", "undone"):
        some = result[result[column] != ""]
        one = some.assign(
            decision=some[column].str.split(" "),
            reason=some["reasons"].str.split(" | ", regex=False),
            undone=column == "undone",
        )
        if column == "undone":
            one["reason"] = ""
            one = one.explode("decision")
        else:
            one = one.explode(["decision", "reason"])
        rows.append(one[["decision", "reason", "undone", "longitude", "latitude", "depth", "time"]])
    table = pd.concat(rows, ignore_index=True)
    table.insert(1, "test", table["decision"].str.partition("-")[0])
    grouped = table.groupby("decision", sort=False)
    found = grouped.first()
    found.insert(1, "observations", grouped.size())
    return found.reset_index()


def _measured(observations: Any) -> list[str]:
    """The measured columns: those with a flag beside them, or without any flags all numbers with decimals."""
    known = [name for name in measured(observations) if name not in NOT_MEASURED]
    flagged = [name for name in known if f"{name}_qc" in observations.columns and not name.endswith("_raw")]
    return flagged or [name for name in known if getattr(observations.dtypes[name], "kind", "O") == "f"]


def _told(table: pd.DataFrame, row: int) -> str:
    """What a user knows the cast of this row by."""
    name = str(table["cast"].iloc[row]) if "cast" in table else f"row {row}"
    return f"{name} of {table['file'].iloc[row]}" if "file" in table else name


def _judged_before(table: pd.DataFrame, name: str) -> np.ndarray:
    """Which values came with a flag that they are bad: they are neither tested again nor compared with."""
    return flags.among(table, (f"{name}_qc",), JUDGED)


def _names(test: str, keys: np.ndarray) -> np.ndarray:
    return np.array([f"{test}-{int(key) >> 16:012x}" for key in keys], dtype=object)


def _floats(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=float, na_value=np.nan)


def _codes(table: pd.DataFrame, column: str) -> np.ndarray | None:
    return table[column].astype("category").cat.codes.to_numpy() if column in table else None
