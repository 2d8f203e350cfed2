"""Values that stand out from their profile, by hand and against the formula value by value."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods import profiles

LIMITS = profiles.of("temperature")


def test_a_spike_is_found_and_its_neighbours_are_not():
    depth = np.arange(0.0, 100, 10)
    values = 20 - depth / 20
    values[4] += 20
    failed = profiles.stand_out(np.zeros(10), depth, values, LIMITS)
    assert np.flatnonzero(np.isfinite(failed.spike)).tolist() == [4]
    # 20 degrees lie off the line by 20, of which the slope of the line (half a degree) is taken.
    assert failed.spike[4] == pytest.approx(20 - 0.5)
    assert np.isnan(failed.gradient).all()


def test_a_steep_thermocline_is_no_spike_but_a_bend_of_ten_degrees_is_a_gradient():
    depth = np.array([0.0, 10, 20, 30, 40])
    assert np.isnan(profiles.stand_out(np.zeros(5), depth, np.array([25.0, 25, 20, 15, 15]), LIMITS)).all()
    bend = profiles.stand_out(np.zeros(5), depth, np.array([28.0, 28, 8, 8, 8]), LIMITS)
    assert np.isnan(bend.spike).all()
    assert np.flatnonzero(np.isfinite(bend.gradient)).tolist() == [1, 2]


def test_limits_are_narrower_from_500_m_on():
    values = np.array([5.0, 8.0, 5.0])
    for depth, failed in ((490.0, False), (500.0, True)):
        found = profiles.stand_out(np.zeros(3), np.array([depth - 10, depth, depth + 10]), values, LIMITS)
        assert np.isfinite(found.spike).any() == failed


def test_profiles_in_any_order_agree_with_the_formula_value_by_value():
    random = np.random.default_rng(0)
    profile, depth = random.integers(0, 40, 600), random.uniform(0, 1000, 600)
    values = random.normal(10, 4, 600)
    values[random.random(600) < 0.1] = np.nan
    found = profiles.stand_out(profile, depth, values, LIMITS)
    spikes = np.full(600, np.nan)
    for which in range(40):
        rows = [i for i in np.argsort(depth) if profile[i] == which and np.isfinite(values[i])]
        for a, b, c in zip(rows, rows[1:], rows[2:], strict=False):
            size = abs(values[b] - (values[c] + values[a]) / 2) - abs((values[c] - values[a]) / 2)
            if size > (6.0 if depth[b] < 500 else 2.0):
                spikes[b] = size
    assert np.isfinite(spikes).sum() > 20
    np.testing.assert_allclose(found.spike, spikes)


def test_ends_missing_values_and_repeated_depths_are_passed_over():
    depth = np.array([0.0, 10, 20])
    assert np.isnan(profiles.stand_out(np.zeros(3), depth, np.array([40.0, 10, 10]), LIMITS).spike).all()
    assert np.isnan(profiles.stand_out(np.zeros(3), depth, np.array([10, np.nan, 40.0]), LIMITS)).all()
    assert np.isnan(profiles.stand_out(np.zeros(3), np.array([0.0, 10, 10]), np.array([10, 40.0, 10]), LIMITS)).all()
    assert np.isnan(profiles.stand_out(np.arange(3), depth, np.array([10, 40.0, 10]), LIMITS)).all()


def test_limits_go_by_standard_name_and_only_without_one_by_name():
    assert profiles.of("whatever", "sea_water_practical_salinity standard_error").units == "1e-3"
    assert profiles.of("temperature", "air_temperature") is None
    assert profiles.of("chlorophyll") is None
