"""Match-ups are exactly those of a comparison of all with all, wherever on the globe and however they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab.methods import match_ups
from phidias_lab.methods.match_ups import EARTH_RADIUS, Places

HOUR = 3600.0


def places(random: np.random.Generator, number: int, kind: str) -> Places:
    """Places all over the globe, around the pole, at the date line, or close together; times within four days."""
    lon, lat = random.uniform(-180, 180, number), np.rad2deg(np.arcsin(random.uniform(-1, 1, number)))
    if kind == "pole":
        lat = 90 - np.abs(random.normal(0, 3, number))
    elif kind == "south pole":
        lat = -90 + np.abs(random.normal(0, 3, number))
    elif kind == "date line":
        lon, lat = random.normal(180, 2, number), random.normal(0, 2, number)
    elif kind == "cluster":
        lon, lat = random.normal(20, 0.5, number), random.normal(58, 0.3, number)
    return Places(
        lon + 360.0 * random.integers(-1, 2, number), np.clip(lat, -90, 90), random.uniform(0, 96, number) * HOUR
    )


def all_with_all(observations: Places, samples: Places) -> tuple[np.ndarray, np.ndarray]:
    """Great-circle distance by the haversine formula, and lag, of each observation and sample."""
    lon, lat, time = (np.asarray(part)[:, None] for part in observations)
    lon2, lat2, time2 = (np.asarray(part)[None, :] for part in samples)
    lat, lat2, apart = np.deg2rad(lat), np.deg2rad(lat2), np.deg2rad(lon2 - lon)
    half = np.sin((lat2 - lat) / 2) ** 2 + np.cos(lat) * np.cos(lat2) * np.sin(apart / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(half, 1))), time2 - time


def collected(pairs) -> dict[tuple[int, int], tuple[float, float]]:
    found = {}
    for part in pairs:
        for observation, sample, distance, lag in zip(*part, strict=True):
            assert (observation, sample) not in found, "a pair is found once"
            found[observation, sample] = (distance, lag)
    return found


KINDS = ("globe", "pole", "south pole", "date line", "cluster")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(KINDS),
    radius=st.sampled_from([500.0, 25e3, 300e3, 4000e3, 12000e3, 20100e3]),
    window=st.sampled_from([0.5 * HOUR, 12 * HOUR, 1000 * HOUR]),
    most=st.sampled_from([1, 17, 400_000]),
)
def test_scattered_pairs_are_those_of_all_with_all(seed, kind, radius, window, most):
    random = np.random.default_rng(seed)
    observations, samples = places(random, 60, kind), places(random, 80, kind)
    distance, lag = all_with_all(observations, samples)
    near = (distance <= radius) & (np.abs(lag) <= window)
    found = collected(match_ups.scattered(observations, samples, radius, window, most))
    assert set(found) == {(int(i), int(j)) for i, j in zip(*np.nonzero(near), strict=True)}
    for (i, j), (apart, later) in found.items():
        assert apart == pytest.approx(distance[i, j], abs=1e-3, rel=1e-6)
        assert later == pytest.approx(lag[i, j])


GRIDS = {
    "global": (np.arange(-88.0, 89.0, 8.0), np.arange(-180.0, 180.0, 10.0)),
    "global from zero, north first": (np.arange(90.0, -91.0, -9.0), np.arange(0.0, 360.0, 12.0)),
    "regional": (np.linspace(50, 62, 13), np.linspace(14, 26, 11)),
    "across the date line": (np.linspace(-5, 5, 9), np.linspace(170, 190, 12)),
    "uneven": (np.array([57.0, 57.2, 57.9, 60.0]), np.array([18.0, 19.9, 20.1, 22.0, 30.0])),
}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(KINDS),
    grid=st.sampled_from(sorted(GRIDS)),
    radius=st.sampled_from([25e3, 300e3, 1500e3, 12000e3]),
    window=st.sampled_from([0.0, 12 * HOUR, 1000 * HOUR]),
    most=st.sampled_from([1, 17, 400_000]),
)
def test_gridded_pairs_are_those_of_all_with_all(seed, kind, grid, radius, window, most):
    observations = places(np.random.default_rng(seed), 40, kind)
    latitude, longitude = GRIDS[grid]
    start = np.array([0.0, 20.0, 30.0, 70.0]) * HOUR
    end = np.array([20.0, 20.0, 60.0, 96.0]) * HOUR  # an instant among intervals, a gap, an overlap of none
    step, row, column = (k.ravel() for k in np.indices((4, latitude.size, longitude.size)))
    samples = Places(longitude[column], latitude[row], ((start + end) / 2)[step])
    distance, lag = all_with_all(observations, samples)
    outside = np.maximum(
        np.maximum(start[step] - observations.time[:, None], observations.time[:, None] - end[step]), 0
    )
    near = (distance <= radius) & (outside <= window)
    found = collected(match_ups.gridded(observations, latitude, longitude, start, end, radius, window, most))
    assert set(found) == {(int(i), int(j)) for i, j in zip(*np.nonzero(near), strict=True)}
    for (i, j), (apart, later) in found.items():
        assert apart == pytest.approx(distance[i, j], abs=1e-3, rel=1e-6)
        assert later == pytest.approx(lag[i, j])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31), most=st.sampled_from([1, 50, 400_000]), footprint=st.sampled_from([None, 40e3, 200e3])
)
def test_what_the_samples_say_together_is_what_their_definitions_say(seed, most, footprint):
    random = np.random.default_rng(seed)
    observations, samples = places(random, 50, "cluster"), places(random, 200, "cluster")
    values = random.normal(35, 1, 200)
    values[random.random(200) < 0.3] = np.nan
    distance, lag = all_with_all(observations, samples)
    near = (distance <= 30e3) & (np.abs(lag) <= 12 * HOUR) & np.isfinite(values)

    def pairs():
        return match_ups.scattered(observations, samples, 30e3, 12 * HOUR, most)

    one, many = match_ups.nearest(pairs(), values, 50), match_ups.mean(pairs(), values, 50, footprint)
    np.testing.assert_array_equal(one.number, near.sum(axis=1))
    np.testing.assert_array_equal(many.number, near.sum(axis=1))
    for i in range(50):
        j = np.flatnonzero(near[i])
        if not j.size:
            assert np.isnan([one.value[i], many.value[i], many.deviation[i], one.distance[i]]).all()
            continue
        first = j[np.argmin(distance[i, j])]
        assert (one.value[i], one.lag[i]) == pytest.approx((values[first], lag[i, first]))
        weight = np.ones(j.size) if footprint is None else 0.5 ** ((distance[i, j] / (footprint / 2)) ** 2)
        centre = np.average(values[j], weights=weight)
        assert many.value[i] == pytest.approx(centre)
        assert many.distance[i] == pytest.approx(np.average(distance[i, j], weights=weight), abs=1e-3)
        if j.size > 1 and footprint is None:
            assert many.deviation[i] == pytest.approx(values[j].std(ddof=1))
            assert one.deviation[i] == pytest.approx(values[j].std(ddof=1))
        elif j.size == 1:
            assert np.isnan(many.deviation[i])


def test_of_equally_near_samples_the_one_nearest_in_time_is_taken_then_the_first():
    samples = Places(np.array([0.1, -0.1, -0.1, 0.1]), np.zeros(4), np.array([5.0, 2.0, -2.0, 2.0]) * HOUR)
    pairs = match_ups.scattered(Places(*np.zeros((3, 1))), samples, 20e3, 6 * HOUR)
    assert match_ups.nearest(pairs, np.arange(4.0), 1).value.tolist() == [1.0]


def test_the_result_does_not_depend_on_how_much_is_looked_at_at_once():
    random = np.random.default_rng(1)
    observations, samples, values = (
        places(random, 500, "cluster"),
        places(random, 500, "cluster"),
        random.normal(size=500),
    )
    found = [
        match_ups.mean(match_ups.scattered(observations, samples, 20e3, 9 * HOUR, most), values, 500, 30e3)
        for most in (1, 1000, 10**9)
    ]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_more_candidates_than_asked_for_are_held_at_once():
    random = np.random.default_rng(2)
    observations, samples = places(random, 2000, "cluster"), places(random, 2000, "cluster")
    sizes = [part.sample.size for part in match_ups.scattered(observations, samples, 60e3, 96 * HOUR, 20_000)]
    assert len(sizes) > 50
    assert max(sizes) <= 20_000


def test_places_that_are_not_on_the_globe_have_no_match_up():
    odd = Places(np.array([0.0, np.nan, 0.0, 0.0]), np.array([0.0, 0.0, 91.0, 0.0]), np.array([0.0, 0.0, 0.0, np.nan]))
    assert set(collected(match_ups.scattered(odd, odd, 1e3, 1.0))) == {(0, 0)}
    assert not list(match_ups.scattered(odd, Places(*np.empty((3, 0))), 1e3, 1.0))
