"""Windows of time: spans of the calendar, the same months of all years (a climatology), spans that slide or are listed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phidias_lab.errors import ParameterError

Span = tuple[pd.Timestamp, pd.Timestamp]
"""From the first moment up to, but without, the second."""

DAY = pd.Timedelta(days=1)
#: First and last month of the seasons; the one that begins in December belongs to the year in which it ends.
SEASONS = ((12, 2), (3, 5), (6, 8), (9, 11))
MONTHS = tuple((month, month) for month in range(1, 13))
#: Years that a clock of nanoseconds since 1970 holds whole, with a winter's December before.
YEARS = range(1679, 2262)
GRAMMAR = (
    "spans such as 2010, 2010-05 or 2010-05-10/2010-07, or else months of all years such as 12-2, or of some such as "
    "12-2 in 2001-2010, several of them with commas between"
)


@dataclass(frozen=True)
class Window:
    """What is analysed together: one span, or the same part of several years, of which one stands on the time axis."""

    spans: tuple[Span, ...]
    year: int | None = None

    @property
    def climatological(self) -> bool:
        return self.year is not None

    @property
    def start(self) -> pd.Timestamp:
        return self.spans[0][0]

    @property
    def end(self) -> pd.Timestamp:
        return self.spans[-1][1]

    @property
    def middle(self) -> pd.Timestamp:
        """The moment that stands for the window: in a climatology the middle of the part in the year that stands for all,
        or in the nearest year that it has."""
        start, end = min(self.spans, key=lambda s: abs((s[1] - DAY).year - (self.year or 0)))
        return start + (end - start) / 2

    @property
    def label(self) -> str:
        if not self.climatological:
            return f"{self.start.date()} to {(self.end - DAY).date()}"
        months = dict.fromkeys((f"{self.spans[0][0]:%B}", f"{self.spans[0][1] - DAY:%B}"))
        years = dict.fromkeys(f"{(end - DAY).year}" for _, end in (self.spans[0], self.spans[-1]))
        return f"{' to '.join(months)} of {' to '.join(years)}"

    def holds(self, times: pd.Series) -> np.ndarray:
        """Which of these moments lie in the window."""
        inside = np.zeros(len(times), bool)
        for start, end in self.spans:
            inside |= ((times >= start) & (times < end)).to_numpy()
        return inside


def by_calendar(first: pd.Timestamp, last: pd.Timestamp, every: str) -> list[Window]:
    """Windows that cover first to last (both days belong): whole, or by calendar year, season (DJF, MAM, ...) or month."""
    first, stop = first.normalize(), last.normalize() + DAY
    if every == "whole":
        return [Window(((first, stop),))]
    months = {"yearly": 12, "seasonal": 3, "monthly": 1}[every]
    start = first.replace(day=1)
    # Seasons begin with December, so months are counted from there; years begin with January.
    start -= pd.DateOffset(months=start.month % 3 if every == "seasonal" else (start.month - 1) % months)
    found = []
    while start < stop:
        end = start + pd.DateOffset(months=months)
        found.append(Window(((max(start, first), min(end, stop)),)))
        start = end
    return found


def climatological(first: pd.Timestamp, last: pd.Timestamp, parts: tuple[tuple[int, int], ...]) -> list[Window]:
    """For each part of the year (its first and last month) the window of all years that meet first to last.

    The months of a part are whole, also where the period begins or ends within them: the bounds of a climatology say by
    their days of the year which part is meant (CF conventions, 7.4).
    """
    first, stop = first.normalize(), last.normalize() + DAY
    years = range(first.year, stop.year + 2)
    windows = []
    for part in parts:
        spans = tuple(s for s in _parts(part, years) if s[0] < stop and s[1] > first)
        windows += [Window(spans, (first.year + last.year) // 2)] if spans else []
    return in_order(windows)


def sliding(first: pd.Timestamp, last: pd.Timestamp, width: float, step: float) -> list[Window]:
    """Windows of `width` days, each `step` days after the one before, as many as lie within first to last."""
    first, stop = first.normalize(), last.normalize() + DAY
    wide, further = pd.Timedelta(days=width), pd.Timedelta(days=step)
    if stop - first < wide:
        raise ParameterError(
            f"Parameter 'window_width' was given {width:g} days, but the period has {(stop - first) / DAY:g}. "
            "Give a shorter width, or choose a longer period."
        )
    number = int((stop - first - wide) / further) + 1
    return [Window(((first + k * further, first + k * further + wide),)) for k in range(number)]


def listed(text: str, first: pd.Timestamp, last: pd.Timestamp) -> list[Window]:
    """The windows of a list written as `GRAMMAR` says; months without years are those of all years of first to last."""
    windows: list[Window] = []
    for item in (part.strip() for part in text.split(",")):
        windows += _listed(item, first, last)
    if len({w.climatological for w in windows}) > 1:
        raise ParameterError(
            f"Parameter 'window_list' was given {text!r}, which has spans and months of many years together; one product "
            "holds one kind. Order them apart."
        )
    return in_order(windows)


def in_order(windows: list[Window]) -> list[Window]:
    """By their middles, which are the time axis and must differ."""
    windows = sorted(windows, key=lambda w: w.middle)
    for one, other in itertools.pairwise(windows):
        if one.middle == other.middle:
            raise ParameterError(
                f"The windows {one.label} and {other.label} have the same middle, which is their place on the time axis. "
                "Order them apart."
            )
    return windows


def _listed(item: str, first: pd.Timestamp, last: pd.Timestamp) -> list[Window]:
    wrong = ParameterError(f"Parameter 'window_list' was given {item!r} as a window; expected {GRAMMAR}.")
    months = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?(?:\s+in\s+(\d{4})(?:-(\d{4}))?)?", item)
    if months:
        part = (int(months[1]), int(months[2] or months[1]))
        if not all(1 <= month <= 12 for month in part):
            raise wrong
        if months[3] is None:
            found = climatological(first, last, (part,))
            if not found:
                raise ParameterError(
                    f"Parameter 'window_list' was given {item!r}, but the period {first.date()} to {last.date()} has no "
                    "such month. Choose other months or another period."
                )
            return found
        years = range(int(months[3]), int(months[4] or months[3]) + 1)
        if not years or not set(years) <= set(YEARS):
            raise wrong
        return [Window(tuple(_parts(part, years)), (years[0] + years[-1]) // 2)]
    date = r"\d{4}(?:-\d{2}(?:-\d{2})?)?"
    span = re.fullmatch(rf"({date})(?:/({date}))?", item)
    if not span:
        raise wrong
    try:
        start, end = (pd.Period(span[k]) for k in (1, 2 if span[2] else 1))
        bounds = (start.start_time, end.end_time.normalize() + DAY)
    except ValueError:
        raise wrong from None
    if bounds[1] <= bounds[0] or not {start.year, end.year} <= set(YEARS):
        raise wrong
    return [Window((bounds,))]


def _parts(part: tuple[int, int], years: range) -> Iterator[Span]:
    """A part of the year in each of the years in which it ends."""
    begin, end = part
    for year in years:
        start = pd.Timestamp(year if begin <= end else year - 1, begin, 1)
        yield start, pd.Timestamp(year, end, 1) + pd.DateOffset(months=1)
