"""Statistics of match-ups are those of the textbook, and 95 of 100 of their intervals hold the truth, dependent or not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from phidias_lab.methods import agreement

RUNS = 600
#: Shares that a true coverage of 0.95 stays within in 99.9 % of such tests; one per cent more below, because intervals of
#: RMSD and the like are asymptotic and the blocks are some tens.
LEAST, MOST = 0.95 - 3.3 * np.sqrt(0.95 * 0.05 / RUNS) - 0.01, 0.95 + 3.3 * np.sqrt(0.95 * 0.05 / RUNS)
BIAS, OBSERVED, BLOCK, OWN = 0.3, 1.0, 0.3, 0.4  # the truth varies by OBSERVED; errors by BLOCK in common, OWN alone


def simulated(random: np.random.Generator, count: int = 60, size: int = 15):
    """Truth and errors with a part that a whole block has in common; blocks of unequal size."""
    block = np.repeat(np.arange(count), random.integers(size // 2, 2 * size, count))
    n = block.size
    truth = OBSERVED * (0.6 * random.standard_normal(count)[block] + 0.8 * random.standard_normal(n))
    error = BIAS + BLOCK * random.standard_normal(count)[block] + OWN * random.standard_normal(n)
    return truth, truth + error, block


TRUE = {
    "bias": BIAS,
    "rmsd": np.sqrt(BIAS**2 + BLOCK**2 + OWN**2),
    "deviation": np.hypot(BLOCK, OWN),
    "median": BIAS,
    "robust_deviation": np.hypot(BLOCK, OWN),
    "correlation": OBSERVED / np.sqrt(OBSERVED**2 + BLOCK**2 + OWN**2),
    "deviation_ratio": np.sqrt(OBSERVED**2 + BLOCK**2 + OWN**2) / OBSERVED,
}


def coverage(**asked) -> dict[str, float]:
    held = dict.fromkeys(TRUE, 0)
    for seed in range(RUNS):
        observed, field, block = simulated(np.random.default_rng(seed))
        found = agreement.of(observed, field, np.arange(block.size) if asked.get("alone") else block)
        for name, true in TRUE.items():
            _, low, high = getattr(found, name)
            held[name] += low <= true <= high
    return {name: number / RUNS for name, number in held.items()}


def test_intervals_hold_the_truth_as_often_as_they_say_when_match_ups_depend_on_each_other():
    for name, share in coverage().items():
        assert LEAST <= share <= MOST, f"{name}: {share:.3f}"


def test_the_same_data_taken_for_independent_would_promise_too_much():
    shares = coverage(alone=True)
    assert shares["bias"] < 0.75
    assert shares["rmsd"] < 0.9


def test_the_values_are_those_of_the_textbook():
    random = np.random.default_rng(3)
    observed, field = random.normal(35, 1, 400), random.normal(35, 1, 400)
    field = 0.3 * field + 0.7 * observed
    found, difference = agreement.of(observed, field, np.arange(400)), field - observed
    assert found.number == 400
    assert found.bias.value == pytest.approx(difference.mean())
    assert found.rmsd.value == pytest.approx(np.sqrt(np.mean(difference**2)))
    assert found.deviation.value == pytest.approx(difference.std(ddof=1))
    assert found.median.value == pytest.approx(np.median(difference))
    assert found.robust_deviation.value == pytest.approx(stats.median_abs_deviation(difference, scale="normal"))
    assert found.correlation.value == pytest.approx(stats.pearsonr(observed, field).statistic)
    assert found.deviation_ratio.value == pytest.approx(field.std() / observed.std())
    # For independent normal values the classical intervals are the limit.
    low, high = stats.t.interval(0.95, 399, difference.mean(), difference.std(ddof=1) / 20)
    assert found.bias[1:] == pytest.approx((low, high), abs=1e-3 * (high - low))
    low, high = stats.pearsonr(observed, field).confidence_interval(0.95)
    assert found.correlation[1:] == pytest.approx((low, high), abs=0.01)
    assert found.effective_number == pytest.approx(400, rel=0.01)


def test_copies_of_a_match_up_tell_nothing_new():
    random = np.random.default_rng(4)
    observed, field = random.normal(size=(2, 100))
    once = agreement.of(observed, field, np.arange(100))
    block = np.repeat(np.arange(100), 7)
    copied = agreement.of(np.repeat(observed, 7), np.repeat(field, 7), block)
    assert copied.effective_number == pytest.approx(once.effective_number)
    for name in ("bias", "rmsd", "correlation", "deviation_ratio"):
        assert getattr(copied, name) == pytest.approx(getattr(once, name))


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_too_few_match_ups_or_blocks_give_values_without_intervals(number):
    random = np.random.default_rng(5)
    observed = random.normal(size=number)
    found = agreement.of(observed, observed + 0.1 * random.normal(size=number), np.arange(number) // 4)
    assert found.number == number
    assert np.isnan([found.bias.low, found.rmsd.high, found.median.low, found.correlation.low]).all()
    assert np.isfinite(found.bias.value) == (number > 0)


def test_a_constant_has_no_correlation_and_an_equal_field_no_error():
    observed = np.random.default_rng(6).normal(size=50)
    constant = agreement.of(observed, np.full(50, 0.1), np.arange(50))
    assert np.isnan(constant.correlation.value)
    same = agreement.of(observed, observed, np.arange(50))
    assert (same.rmsd.value, same.bias.value, same.correlation.value) == (0.0, 0.0, 1.0)


def test_blocks_are_about_as_wide_as_they_should_be_everywhere_and_close_around_the_globe():
    random = np.random.default_rng(7)
    lat = np.rad2deg(np.arcsin(random.uniform(-1, 1, 200_000)))
    lon = random.uniform(-180, 180, 200_000)
    block = agreement.blocks(lon, lat, np.zeros(lat.size), 500e3, 86400.0)
    area = 4 * np.pi * (agreement.EARTH_RADIUS / 1e3) ** 2 * np.bincount(block) / lat.size
    assert 0.85 * 500**2 < np.median(area) < 1.15 * 500**2
    assert area.max() < 2 * 500**2
    same = agreement.blocks(np.array([-180.0, 180.0, 539.9]), np.zeros(3), np.zeros(3), 500e3, 86400.0)
    assert same[0] == same[1] != same[2]
    late = agreement.blocks(np.zeros(3), np.zeros(3), np.array([0.0, 0.9, 1.1]) * 86400, 500e3, 86400.0)
    assert late[0] == late[1] != late[2]


def test_means_of_groups_are_those_of_each_group_alone():
    random = np.random.default_rng(8)
    values, group, block = random.normal(size=3000), random.integers(0, 40, 3000), random.integers(0, 9, 3000)
    group[group == 7] = 8
    block[group == 3] = 0
    mean, error, number = agreement.means(values, group, block, 41)
    for k in range(41):
        inside = group == k
        assert number[k] == inside.sum()
        if not inside.any():
            assert np.isnan([mean[k], error[k]]).all()
            continue
        assert mean[k] == pytest.approx(values[inside].mean())
        if k == 3:
            assert np.isnan(error[k]), "one block does not tell how means vary"
        else:
            within = agreement.Blocks(block[inside])
            assert error[k] == pytest.approx(within.standard_error(values[inside] - mean[k]))


def test_sums_over_blocks_tell_the_same_as_the_values():
    observed, field, block = simulated(np.random.default_rng(5))
    whole = agreement.of(observed, field, block)
    codes = np.unique(block, return_inverse=True)[1]
    for shift in (0.0, 35.0):
        parts = [
            agreement.sums(
                observed[some] - shift, field[some] - shift, np.ones(some.size), codes[some], codes.max() + 1
            )
            for some in np.array_split(np.arange(block.size), 7)
        ]
        found = agreement.of_sums(sum(parts), about=(shift, shift))
        for name in set(TRUE) - {"median", "robust_deviation"}:
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-9, err_msg=name)
        assert found.effective_number == pytest.approx(whole.effective_number)


def test_a_weight_of_two_is_a_value_twice_in_its_block():
    random = np.random.default_rng(6)
    observed, field, block = simulated(random)
    codes = np.unique(block, return_inverse=True)[1]
    twice = random.integers(1, 3, block.size)
    weighted = agreement.of_sums(agreement.sums(observed, field, twice.astype(float), codes, codes.max() + 1))
    repeated = agreement.of(np.repeat(observed, twice), np.repeat(field, twice), np.repeat(block, twice))
    for name in ("bias", "rmsd", "correlation", "deviation_ratio"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9, err_msg=name)
    assert weighted.number == block.size
    constant = agreement.of_sums(agreement.sums(np.full(9, 35.1), np.arange(9.0), np.ones(9), np.arange(9), 9))
    assert np.isnan(constant.correlation.value), "a constant is correlated with nothing"
