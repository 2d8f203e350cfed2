"""Strata are told by their names, and of each the smallest keys are kept however they come."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phidias_lab.errors import InputError
from phidias_lab.methods.strata import Axis, Smallest, assign, names

ROWS = Axis("rows", (0, 72, 144, 215))
SUN = Axis("sun", (0, 40, 80), units="degrees")
SURFACE = Axis("over", labels={1: "land", 0: "sea"})


def test_each_place_is_in_the_stratum_whose_name_tells_of_it():
    of = names([ROWS, SUN, SURFACE])
    assert len(of) == 12
    assert of[0] == "rows 0 to 72, sun 0 to 40 degrees, over land"
    found = assign([ROWS, SUN, SURFACE], [0, 72, 214, 215], [39.9, 40, 80, 10], [1, 0, 1, 0])
    assert [of[k] for k in found] == [
        "rows 0 to 72, sun 0 to 40 degrees, over land",
        "rows 72 to 144, sun 40 to 80 degrees, over sea",
        "rows 144 to 215, sun 40 to 80 degrees, over land",
        "rows 144 to 215, sun 0 to 40 degrees, over sea",
    ]


def test_what_is_in_no_class_is_in_no_stratum():
    found = assign([ROWS, SUN, SURFACE], [-1, 5, 5, 5, 216], [5, np.nan, 80.1, 5, 5], [0, 0, 0, 7, 0])
    assert found.tolist() == [-1] * 5


def test_fields_of_two_dimensions_and_a_line_of_rows_go_together():
    sun = np.full((3, 215), 20.0)
    found = assign([ROWS, SUN], np.arange(215), sun)
    assert found.shape == (3, 215)
    assert np.bincount(found[0]).tolist() == [72, 0, 72, 0, 71]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ([Axis("sun", (0, 40, 40))], "'sun' has no classes"),
        ([Axis("sun", (0,))], "'sun' has no classes"),
        ([Axis("over", labels={})], "'over' has no classes"),
        ([Axis("rows", range(10)), Axis("sun", range(10))], "make 81 strata, and at most 64"),
    ],
)
def test_axes_that_make_no_usable_strata_are_refused(axes, said):
    with pytest.raises(InputError, match=said):
        assign(axes, *[np.zeros(1)] * len(axes))


items = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 2)), max_size=60)


@given(items, st.lists(st.integers(0, 5), min_size=4, max_size=4), st.integers(1, 7), st.booleans(), st.randoms())
@example([], [1, 1, 1, 1], 1, True, Random(0))
def test_the_smallest_are_those_of_a_sorted_list(rows, shares, parts, unique, random):
    expected = []
    for s in range(4):
        mine = sorted((key, tie) for stratum, key, tie in rows if stratum == s)
        expected += [(s, *row) for row in (sorted(set(mine)) if unique else mine)[: shares[s]]]
    random.shuffle(rows)
    kept = Smallest(shares, (float, np.int64), keys=2, unique=unique)
    for k in range(parts):
        stratum, key, tie = np.array(rows[k::parts], np.int64).reshape(-1, 3).T
        some = kept.admits(stratum, key)
        kept.add(stratum[some], key[some].astype(float), tie[some])
        if k % 2:
            kept.settle()
    assert kept.number().tolist() == [sum(s == row[0] for row in expected) for s in range(4)]
    assert list(zip(kept.stratum.tolist(), *(c.tolist() for c in kept.columns), strict=True)) == expected


def test_of_equal_keys_the_tie_decides_even_when_it_comes_later():
    kept = Smallest([1], (float, np.int64), keys=2)
    for tie in (5, 3, 4):
        stratum, key, ties = np.zeros(1, int), np.ones(1), np.array([tie])
        some = kept.admits(stratum, key)
        kept.add(stratum[some], key[some], ties[some])
        kept.settle()
    assert kept.columns[1].tolist() == [3]
