"""The lake's table of observations as plain arrays: one entry per observation in every column; and faults of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from phidias_lab.methods import seawater
from phidias_lab.methods.formats import vocabulary

#: Where and when, and who measured. Texts are '' where a file does not say.
PLACES = ("longitude", "latitude", "depth", "time")
IDENTITIES = ("platform", "cruise", "station", "cast", "cruise_type", "local_cdi_id", "edmo_code")
COMPUTED = "computed from pressure by TEOS-10 for a standard ocean (Manuals and Guides 56, 3.32; Roquet et al. 2015)"
#: Dates outside are taken for mistakes: before them nobody measured the sea, after them nobody has yet.
FIRST, LAST = np.datetime64("1700-01-01", "us"), np.datetime64("2100-01-01", "us")
NO_TIME = np.datetime64("NaT", "us")
#: Faults of one file that are kept one by one; of a file that is nothing but faults, the others are counted.
KEPT = 10_000


@dataclass(frozen=True)
class Fault:
    """What is wrong at one place of a file: a sentence."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class Faults:
    """All faults of one file in the order in which they were met."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.count = 0

    def add(self, where: str, what: str) -> None:
        self.count += 1
        if len(self.found) < KEPT:
            self.found.append(Fault(where, what))

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.found)

    def __len__(self) -> int:
        return self.count


class NotReadable(ValueError):
    """A file that is not what its format asks for, as a whole; the text is a sentence without the file's name."""


@dataclass
class Observations:
    """Columns of equal length, the attributes of each, and facts about the whole."""

    columns: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def add(self, name: str, values: np.ndarray, attributes: Mapping[str, Any] | None = None) -> str:
        """Add a column; a name that is taken gets a number. Returns the name it has."""
        given, number = name, 2
        while name in self.columns:
            name, number = f"{given}_{number}", number + 1
        self.columns[name] = values
        self.attributes[name] = dict(attributes or {})
        return name

    def measured(self) -> list[str]:
        """Columns that have a flag, or are numbers that say neither where nor who."""
        return [
            n
            for n, v in self.columns.items()
            if v.dtype.kind == "f" and n not in (*PLACES, "pressure", "bottom_depth") and not n.endswith("_qc")
        ]

    def with_depth(self) -> Observations:
        """The same with a depth: that of the file, or the depth of its pressure."""
        if "depth" not in self.columns and "pressure" in self.columns:
            depth = seawater.depth(self.columns["pressure"], self.columns["latitude"])
            self.columns["depth"] = depth
            self.attributes["depth"] = {**vocabulary.PLACES["depth"], "comment": COMPUTED}
            if "pressure_qc" in self.columns:
                self.columns["depth_qc"] = self.columns["pressure_qc"].copy()
                self.attributes["depth_qc"] = {**self.attributes["pressure_qc"], "long_name": "quality flag of depth"}
        return self

    def depth_is_computed(self) -> bool:
        return self.attributes.get("depth", {}).get("comment") == COMPUTED and "pressure" in self.columns


def index_text(index: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(i) for i in index) + "]"


_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?)?Z?$")


@lru_cache(4096)
def parse_time(text: str) -> np.datetime64 | None:
    """The moment of an ISO 8601 text in UTC, NaT for none, None for a text that is none or no plausible date."""
    text = text.strip()
    if not text:
        return NO_TIME
    found = _ISO.match(text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction = found.groups()
    try:
        when = np.datetime64(f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}", "us")
    except ValueError:
        return None
    when += np.timedelta64(round(float(f"0.{fraction or 0}") * 1e6), "us")
    return when if FIRST <= when < LAST else None


def time_text(when: np.datetime64) -> str:
    """ISO 8601 as ODV writes it, with milliseconds, or with what more there is."""
    if np.isnat(when):
        return ""
    text = str(when.astype("datetime64[us]"))
    return text[:-3] if text.endswith("000") else text


def days_to_time(days: np.ndarray, origin: np.datetime64) -> tuple[np.ndarray, np.ndarray]:
    """(moments of days since an origin, which of them are no plausible dates); NaN gives NaT and is not wrong."""
    days = np.asarray(days, float)
    known = np.isfinite(days)
    low, high = ((edge - origin) / np.timedelta64(1, "D") for edge in (FIRST, LAST))
    wrong = ~known & ~np.isnan(days) | known & ~((days >= low) & (days < high))
    good = known & ~wrong
    whole = np.floor(np.where(good, days, 0.0))
    rest = np.round((np.where(good, days, 0.0) - whole) * 86400e6)
    when = origin + whole.astype("timedelta64[D]").astype("timedelta64[us]") + rest.astype("timedelta64[us]")
    return np.where(good, when, NO_TIME).astype("datetime64[us]"), wrong


def time_to_days(when: np.ndarray, origin: np.datetime64) -> np.ndarray:
    """Days since an origin; NaN for NaT."""
    return (np.asarray(when, "datetime64[us]") - origin) / np.timedelta64(1, "D")


#: Chronological Julian days (P01 CJDY1101) begin at midnight: 2451545.0 is 2000-01-01 00:00.
JULIAN_ORIGIN, JULIAN_DAY = np.datetime64("2000-01-01", "us"), 2451545.0
