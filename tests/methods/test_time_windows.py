"""How a period is cut into windows: by the calendar, into parts of all years, sliding, and as listed."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from phidias_lab.errors import ParameterError
from phidias_lab.methods.time_windows import MONTHS, SEASONS, by_calendar, climatological, listed, sliding

DAYS = pd.Series(pd.date_range("2008-06-01", "2014-03-31"))
FIRST, LAST = pd.Timestamp("2010-01-15"), pd.Timestamp("2011-03-02T10:00")


@pytest.mark.parametrize(
    ("every", "starts"),
    [
        ("whole", ["2010-01-15"]),
        ("yearly", ["2010-01-15", "2011-01-01"]),
        ("seasonal", ["2010-01-15", "2010-03-01", "2010-06-01", "2010-09-01", "2010-12-01", "2011-03-01"]),
    ],
)
def test_windows_follow_the_calendar_and_cover_the_period_once(every, starts):
    found = by_calendar(FIRST, LAST, every)
    assert [str(w.start.date()) for w in found] == starts
    assert found[-1].end == pd.Timestamp("2011-03-03")
    assert all(a.end == b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("parts", [MONTHS, SEASONS])
def test_a_climatology_puts_each_day_of_the_period_into_the_window_of_its_month(parts):
    found = climatological(pd.Timestamp("2010-01-01"), pd.Timestamp("2012-12-31"), parts)
    assert len(found) == len(parts)
    days = DAYS[(DAYS >= "2010-01-01") & (DAYS < "2013-01-01")]
    number = sum(w.holds(days).astype(int) for w in found)
    assert (number == 1).all()
    for window in found:
        months = set(days[window.holds(days)].dt.month)
        assert any(months == {(first - 1 + k) % 12 + 1 for k in range(len(months))} for first, _ in parts)
        assert len(months) == 12 / len(parts)


def test_a_winter_takes_december_from_the_year_before():
    winter = climatological(pd.Timestamp("2010-01-01"), pd.Timestamp("2012-02-29"), ((12, 2),))[0]
    assert [(str(a.date()), str(b.date())) for a, b in winter.spans] == [
        ("2009-12-01", "2010-03-01"),
        ("2010-12-01", "2011-03-01"),
        ("2011-12-01", "2012-03-01"),
    ]
    assert (str(winter.start.date()), str(winter.end.date())) == ("2009-12-01", "2012-03-01")
    assert str(winter.middle) == "2011-01-15 00:00:00"
    assert winter.label == "December to February of 2010 to 2012"


@pytest.mark.parametrize(
    "period", [("2010-01-01", "2014-12-31"), ("2010-03-10", "2012-02-20"), ("2011-07-05", "2011-07-09")]
)
def test_the_time_axis_of_a_climatology_rises_and_lies_within_its_bounds(period):
    found = climatological(*map(pd.Timestamp, period), MONTHS)
    assert all(a.middle < b.middle for a, b in itertools.pairwise(found))
    assert all(w.start < w.middle < w.end and w.holds(pd.Series([w.middle]))[0] for w in found)
    if period[0].endswith("01-01"):
        assert [w.middle.month for w in found] == list(range(1, 13))
        assert {w.middle.year for w in found} == {2012}


def test_windows_that_slide_have_one_width_and_lie_in_the_period():
    found = sliding(pd.Timestamp("2010-01-01"), pd.Timestamp("2010-12-31"), 90, 30)
    assert {w.end - w.start for w in found} == {pd.Timedelta(days=90)}
    assert {b.start - a.start for a, b in itertools.pairwise(found)} == {pd.Timedelta(days=30)}
    # 365 days: from the first to the last window lie 365 - 90 = 275 days, 9 whole steps.
    assert len(found) == 10
    assert found[-1].end <= pd.Timestamp("2011-01-01")
    with pytest.raises(ParameterError, match="the period has 30"):
        sliding(pd.Timestamp("2010-06-01"), pd.Timestamp("2010-06-30"), 90, 30)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("2010", [("2010-01-01", "2011-01-01")]),
        ("2010-11/2011-02, 2010-02", [("2010-02-01", "2010-03-01"), ("2010-11-01", "2011-03-01")]),
        ("2010-05-10/2010-07-04", [("2010-05-10", "2010-07-05")]),
        ("1-3 in 2001-2003", [("2001-01-01", "2003-04-01")]),
        ("12-2 in 2001", [("2000-12-01", "2001-03-01")]),
        ("7,2", [("2010-02-01", "2011-03-01"), ("2010-07-01", "2010-08-01")]),
    ],
)
def test_a_list_of_windows_is_read_as_written(text, bounds):
    found = sorted((str(w.start.date()), str(w.end.date())) for w in listed(text, FIRST, LAST))
    assert found == bounds


def test_the_same_months_of_decades_are_windows_of_their_own():
    found = listed("6-8 in 1991-2000, 6-8 in 2001-2010", FIRST, LAST)
    days = pd.Series(pd.date_range("1990-01-01", "2011-12-31"))
    for window, years in zip(found, (range(1991, 2001), range(2001, 2011)), strict=True):
        expected = days.dt.month.isin([6, 7, 8]) & days.dt.year.isin(years)
        np.testing.assert_array_equal(window.holds(days), expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected spans such as 2010"),
        ("13", "given '13' as a window"),
        ("2010-13", "given '2010-13' as a window"),
        ("2010/2009", "given '2010/2009' as a window"),
        ("1-3 in 2003-2001", "as a window"),
        ("1-3 in 9000", "as a window"),
        ("9999", "as a window"),
        ("summer", "given 'summer' as a window"),
        ("5", "such month"),
        ("2010-05, 6-8", "which has spans and months"),
        ("2010, 2010-01/2010-12", "have the same middle"),
    ],
)
def test_what_is_no_list_of_windows_is_refused_in_a_sentence(text, said):
    with pytest.raises(ParameterError, match=said):
        listed(text, pd.Timestamp("2010-06-01"), pd.Timestamp("2010-12-31"))
