"""Three measurements tell each other's errors, with intervals that hold the truth; else a sentence says why."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.errors import InputError
from phidias_lab.methods import triple_collocation

NAMES = ("salinity", "SMOS", "model")
ERRORS, SLOPES = np.array([0.1, 0.25, 0.15]), np.array([1.0, 1.0, 0.8])


def triplets(random: np.random.Generator, number: int, size: int = 1, common: float = 0.0):
    """Triplets of a truth of standard deviation 0.4, blocks of `size` with a part of truth and error in common."""
    block = np.arange(number) // size

    def drawn():
        return np.sqrt(common) * random.standard_normal(block[-1] + 1)[block] + np.sqrt(
            1 - common
        ) * random.standard_normal(number)

    truth = 35 + 0.4 * drawn()
    return np.column_stack([5.0 * i + SLOPES[i] * truth + ERRORS[i] * drawn() for i in range(3)]), block


@pytest.mark.parametrize("seed", range(5))
def test_twenty_thousand_triplets_tell_each_error_within_five_per_cent(seed):
    values, block = triplets(np.random.default_rng(seed), 20_000)
    found = triple_collocation.errors(values, block, NAMES)
    assert found.number == 20_000
    np.testing.assert_allclose([e.value for e in found.deviation], ERRORS, rtol=0.05)
    signal = 0.4 * SLOPES
    np.testing.assert_allclose([e.value for e in found.correlation], signal / np.hypot(signal, ERRORS), rtol=0.01)
    np.testing.assert_allclose([e.value for e in found.slope], SLOPES, rtol=0.05)


@pytest.mark.parametrize(("size", "common"), [(1, 0.0), (20, 0.3)], ids=["independent", "in blocks"])
def test_intervals_hold_the_truth_as_often_as_they_say(size, common):
    runs, held = 400, {"deviation": np.zeros(3), "correlation": np.zeros(3), "slope": np.zeros(3)}
    signal = 0.4 * SLOPES
    true = {"deviation": ERRORS, "correlation": signal / np.hypot(signal, ERRORS), "slope": SLOPES}
    for seed in range(runs):
        found = triple_collocation.errors(*triplets(np.random.default_rng(seed), 2000, size, common), NAMES)
        for name, counts in held.items():
            counts += [e.low <= t <= e.high for e, t in zip(getattr(found, name), true[name], strict=True)]
    for name, counts in held.items():
        share = counts[1 if name == "slope" else 0 :] / runs  # the first slope is one by definition
        assert ((share > 0.91) & (share < 0.985)).all(), f"{name}: {share}"


def test_a_measurement_that_runs_against_the_others_has_a_negative_slope_and_the_same_error():
    values, block = triplets(np.random.default_rng(1), 5000)
    plain = triple_collocation.errors(values, block, NAMES)
    values[:, 2] *= -1
    found = triple_collocation.errors(values, block, NAMES)
    np.testing.assert_allclose(found.deviation, plain.deviation)
    assert found.slope[2].value == pytest.approx(-plain.slope[2].value)
    assert found.correlation[2].value == pytest.approx(-plain.correlation[2].value)
    assert found.correlation[2].low <= found.correlation[2].value <= found.correlation[2].high


def test_correlated_errors_are_refused_where_they_make_a_variance_negative():
    random = np.random.default_rng(2)
    truth, shared = random.standard_normal(5000), random.standard_normal(5000)
    # The errors of the first and the last have opposite signs and are shared; the second has nearly none.
    values = np.column_stack([truth + 0.5 * shared, truth + 0.01 * random.standard_normal(5000), truth - 0.5 * shared])
    with pytest.raises(
        InputError, match=r"error variance of SMOS comes out negative \(-0\.\d+\).*salinity and model are corr"
    ):
        triple_collocation.errors(values, np.arange(5000), NAMES)


def test_measurements_of_different_things_are_refused():
    random = np.random.default_rng(3)
    with pytest.raises(InputError, match=r"covariances of salinity, SMOS and model"):
        triple_collocation.errors(random.standard_normal((5000, 3)), np.arange(5000), NAMES)


def test_few_triplets_are_refused_with_their_number():
    with pytest.raises(InputError, match=r"There are 99 triplets of salinity, SMOS and model"):
        triple_collocation.errors(*triplets(np.random.default_rng(4), 99), NAMES)
