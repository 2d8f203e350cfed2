"""Copies are found wherever they lie within the tolerances, and what only lies close together is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phidias_lab.methods import duplicates
from phidias_lab.methods.duplicates import Tolerances, find

AWAY = Tolerances()
LEVELS = np.array([0.0, 5, 10, 20, 30, 50, 75, 100, 150, 200])
NAMES = ("longitude", "latitude", "depth", "seconds", "temperature", "salinity", "platform", "cast")


def profile(lon=-10.0, lat=46.0, seconds=0.0, levels=LEVELS, gradient=0.03, platform=0, cast=0, surface=18.0):
    """The rows of one cast in stratified water."""
    many = len(levels)
    return np.column_stack(
        [
            np.full(many, lon), np.full(many, lat), levels, np.full(many, seconds), surface - gradient * levels,
            35 + gradient * levels / 10, np.full(many, platform), np.full(many, cast),
        ]
    )  # fmt: skip


def series(number, every, platform=0, cast=0, depth=10.0, drift=0.0, value=12.0, start=0.0):
    """The rows of a mooring, or with a drift in degrees per sample of a ferry."""
    step = np.arange(number)
    rows = np.zeros((number, 8))
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = -10 + drift * step, 46.0, depth, start + every * step
    rows[:, 4], rows[:, 5], rows[:, 6], rows[:, 7] = value + 1e-4 * step, 35.0, platform, cast
    return rows


def copies(*parts, names=True, **options):
    rows = np.concatenate(parts)
    c = {name: rows[:, k] for k, name in enumerate(NAMES)}
    known = {"platform": c["platform"], "cast": c["cast"]} if names else {}
    return find(
        c["longitude"], c["latitude"], c["depth"], c["seconds"], [c["temperature"], c["salinity"]], **known, **options
    )


shares = st.floats(0.01, 1) | st.floats(-1, -0.01) | st.sampled_from([-1.0, 0.0, 1.0])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.lists(shares, min_size=6, max_size=6), st.booleans(), st.booleans())
def test_a_profile_that_comes_again_within_the_tolerances_is_one_finding(seed, share, own, unnamed):
    random = np.random.default_rng(seed)
    lon, lat, when = random.uniform(-180, 360, 20), random.uniform(-89, 89, 20), random.uniform(0, 1e9, 20)
    rows = np.concatenate(
        [
            profile(*place, cast=k, gradient=random.uniform(0.01, 0.1))
            for k, place in enumerate(zip(lon, lat, when, strict=True))
        ]
    )
    again = rows.copy()
    for column, (part, away) in enumerate(
        zip(share, (AWAY.degrees, AWAY.degrees, AWAY.metres, AWAY.seconds, AWAY.value, AWAY.value), strict=True)
    ):
        again[:, column] += part * away
    again[:, 0] = np.where(again[:, 0] > 180, again[:, 0] - 360, again[:, 0])
    again[:, 1] = np.clip(again[:, 1], -90, 90)
    again[:, 6] += 0 if own else 1
    again[:, 7] += 100
    still = not (any(share[:2]) or share[3])
    # With no name, place or time that differs, other depths are those of one dense cast.
    assume(not (still and unnamed and share[2]))
    found = copies(rows, again, names=not unnamed)
    number = len(rows)
    marked = found.of >= 0
    if still and (unnamed or own):
        marked = marked[:number] | marked[number:]  # nothing but values tells the two deliveries apart
        assert marked.all()
        return
    assert (marked[:number] ^ marked[number:]).all()
    assert set(found.of[marked]) <= set(np.flatnonzero(~marked))
    assert np.array_equal(found.of[marked] % number, np.flatnonzero(marked) % number)
    assert sorted(found.number) == [len(LEVELS)] * 20


@pytest.mark.parametrize("column", range(6))
def test_what_lies_beyond_one_tolerance_is_no_copy(column):
    rows = profile()
    other = profile(platform=1, cast=1)
    away = (AWAY.degrees, AWAY.degrees, AWAY.metres, AWAY.seconds, AWAY.value, AWAY.relative * 35)[column]
    other[:, column] += 0.98 * away
    assert (copies(rows, other).of >= 0).sum() == len(LEVELS)
    other[:, column] += 0.05 * away
    assert (copies(rows, other).of < 0).all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([(0.0, 0.0), (179.99, 60.0), (-0.02, -89.98), (359.98, 89.9), (48e-3, 0.0)])
)
def test_neighbours_are_those_of_a_comparison_of_all_with_all(seed, middle):
    random = np.random.default_rng(seed)
    lon = np.mod(middle[0] + random.uniform(-0.06, 0.06, 120), 360)
    lat = np.clip(middle[1] + random.uniform(-0.06, 0.06, 120), -90, 90)
    time = random.uniform(0, 600, 120)
    near = duplicates._Neighbours(lon, lat, time, AWAY, 50)
    found = [pair for a, b in near.pairs() for pair in zip(a.tolist(), b.tolist(), strict=True)]
    one, other = np.triu_indices(120, 1)
    turn = np.abs(lon[one] - lon[other])
    close = (np.minimum(turn, 360 - turn) <= AWAY.degrees) & (np.abs(lat[one] - lat[other]) <= AWAY.degrees)
    close &= np.abs(time[one] - time[other]) <= AWAY.seconds
    assert sorted(found) == list(zip(one[close].tolist(), other[close].tolist(), strict=True))


def test_the_order_of_the_table_and_the_portions_do_not_matter():
    random = np.random.default_rng(0)
    parts = [profile(seconds=3600.0 * k, cast=k, gradient=0.01 + 0.002 * k) for k in range(30)]
    again = [p + np.array([0.004, -0.003, 0.05, 40, 0.002, 0.001, k % 2, 100]) for k, p in enumerate(parts)]
    rows = np.concatenate([*parts, *again, series(200, 60, platform=5, cast=500, drift=0.003)])
    first = copies(rows)
    shuffle = random.permutation(len(rows))
    second = copies(rows[shuffle], most=100)
    assert np.array_equal((first.of >= 0)[shuffle], second.of >= 0)
    moved = np.where(second.of >= 0, shuffle[second.of], -1)
    assert np.array_equal(first.of[shuffle], moved)
    assert first.number.size == second.number.size == 30


def test_repeated_casts_at_a_fixed_station_are_no_copies():
    random = np.random.default_rng(1)
    casts = [profile(seconds=60.0 * k, cast=k) for k in range(50)]
    for cast in casts:  # internal waves lift the water by decimetres
        cast[:, 4] += 0.03 * random.normal(0, 3) + random.normal(0, 0.004, len(LEVELS))
        cast[:, 5] += random.normal(0, 0.004, len(LEVELS))
    assert (copies(*casts).of < 0).all()
    # Mixed water looks the same each time.
    mixed = [profile(seconds=60.0 * k, cast=k, gradient=1e-5) for k in range(50)]
    assert (copies(*mixed).of < 0).all()
    # One of them came twice.
    again = mixed[20] + np.array([0.003, 0, 0, 0, 0, 0, 1, 100])
    assert np.flatnonzero(copies(*mixed, again).of >= 0).size == len(LEVELS)


def test_dense_sampling_is_no_copy_of_itself_whether_a_platform_is_named_or_not():
    fine = profile(levels=np.arange(2000) * 0.05, gradient=1e-4)
    for rows in (fine, series(500, 60), series(500, 80, drift=0.004), series(500, 10, drift=0.0005)):
        assert (copies(rows).of < 0).all()
        assert (copies(rows, names=False).of < 0).all()


def test_a_dense_series_that_came_twice_loses_one_of_the_two_and_no_more():
    line = series(500, 60, drift=0.003)
    other = line[:400] + np.array([0.0004, 0.0002, 0, 7, 0.001, 0, 1, 1])
    found = copies(line, other)
    marked = found.of >= 0
    assert (marked[:400] ^ marked[500:]).all()
    assert not marked[400:500].any()
    assert (found.of[500:][marked[500:]] == np.flatnonzero(marked[500:])).all()
    # Under the same name only equal observations can be told from the next sample.
    same = line.copy()
    assert (copies(line, same).of >= 0).sum() == 500


def test_bottles_of_one_depth_are_two_measurements_unless_they_are_equal():
    rows = profile()
    rows[3, 4] = 17.4321
    bottle = rows[3:4].copy()
    bottle[:, 4] += 0.0023
    assert (copies(rows, bottle).of < 0).all()
    assert (copies(rows, rows[3:4]).of >= 0).sum() == 1
    rounded = rows[3:4].copy()
    rounded[:, 4] = 17.43
    assert (copies(rows, rounded).of >= 0).sum() == 1


def test_a_part_of_a_profile_is_a_copy_and_the_larger_one_stays():
    rows = profile()
    part = rows[::2] + np.array([0.001, 0, 0.02, 30, 0.001, 0, 1, 1])
    part[:, 5] = np.nan
    found = copies(part, rows)
    assert (found.of[: len(part)] == len(part) + np.arange(0, len(rows), 2)).all()
    assert (found.of[len(part) :] < 0).all()
    assert found.number.tolist() == [len(part)]
    # A few equal values of two different profiles make none a copy.
    other = rows + np.array([0.001, 0, 0, 30, 0, 0, 1, 1])
    other[4:, 4] += 0.3
    assert (copies(rows, other).of < 0).all()


def test_profiles_that_meet_at_one_depth_are_none_and_rows_that_are_equal_are_copies_all_the_same():
    rows = profile()
    deep = profile(0.001 - 10, levels=np.r_[0.0, 300, 400, 500, 600], platform=1, cast=1)
    assert (copies(rows, deep).of < 0).all()
    other = profile(cast=1)
    other[3:, 4] += 0.5
    found = copies(rows, other)
    assert np.flatnonzero(found.of >= 0).tolist() == [10, 11, 12]
    assert found.of[10:13].tolist() == [0, 1, 2]


def test_three_deliveries_leave_one_and_a_chain_of_near_ones_is_judged_by_the_one_that_stays():
    rows = profile()

    def later(seconds, platform, number):
        return rows + np.array([0, 0, 0, seconds, 0, 0, platform, number])

    for platforms in ((1, 2), (0, 1), (0, 0)):
        found = copies(rows, later(25, platforms[0], 1), later(50, platforms[1], 2))
        assert (found.of < 0).sum() == len(LEVELS)
    found = copies(rows, later(75, 1, 1), later(150, 2, 2))
    assert (found.of.reshape(3, -1) >= 0).mean(axis=1).tolist() == [0, 1, 0]


def test_what_has_no_place_time_or_value_is_nobodys_copy():
    rows = profile()
    again = rows + np.array([0, 0, 0, 0, 0, 0, 1, 1])
    for row, column in enumerate((0, 1, 2, 3)):
        again[row, column] = np.nan
    again[4, 4:6] = np.nan
    found = copies(rows, again)
    assert (found.of[10:15] < 0).all()
    assert (found.of[15:] >= 0).all()
    empty = np.empty(0)
    assert find(empty, empty, empty, empty, [empty]).of.size == 0
    assert copies(rows[:1]).of.tolist() == [-1]


def test_many_values_at_one_place_and_time_take_little_time_and_memory():
    random = np.random.default_rng(0)
    rows = np.tile(series(1, 60), (20_000, 1))
    rows[:, 4] = random.normal(0, 100, 20_000)
    assert (copies(rows).of < 0).all()
