"""What must hold for every analysis, whatever the grid, the coast and the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phidias_lab.methods.variational import analyse

pytestmark = pytest.mark.filterwarnings("error")
relaxed = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def problems(draw, *, cyclic_first: bool = False):
    """Grids of 1 to 3 dimensions with any coast, uneven metrics and lengths, and a few observations anywhere."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random(shape) > draw(st.sampled_from([0, 0.2, 0.5]))
    assume(mask.any())
    n, count = len(shape), draw(st.integers(1, 8))
    closed = [(cyclic_first and i == 0) or draw(st.booleans()) for i in range(n)]
    return {
        "mask": mask,
        "metrics": [rng.uniform(0.5, 2, shape) for _ in shape],
        "coords": [np.arange(size, dtype=float) for size in shape],
        "obs_coords": [rng.uniform(-1, size, count) for size in shape],
        "values": rng.standard_normal(count),
        "length": [rng.uniform(0.5, 4, shape) for _ in shape],
        "noise": rng.uniform(0.01, 10, count),
        "cyclic": [float(size) if wrap else 0.0 for size, wrap in zip(shape, closed, strict=True)],
        "velocity": [rng.standard_normal(shape) for _ in shape] if draw(st.booleans()) else None,
        "edge_stretch": draw(st.sampled_from([False, True, 0.5])),
    }


@relaxed
@given(problems(), st.floats(-1e3, 1e3), st.integers(0, 2**32 - 1))
def test_the_field_is_linear_in_the_values(p, factor, seed):
    other = np.random.default_rng(seed).standard_normal(p["values"].size)
    both = analyse(**(p | {"values": p["values"] + factor * other})).field
    apart = analyse(**p).field + factor * analyse(**(p | {"values": other})).field
    np.testing.assert_allclose(both, apart, rtol=0, atol=1e-10 * (1 + abs(factor)))


@relaxed
@given(problems(cyclic_first=True), st.integers(1, 5))
def test_turning_a_closed_dimension_turns_the_analysis(p, turn):
    plain = analyse(**p, error="exact")
    turned = dict(p)
    turned["mask"] = np.roll(p["mask"], turn, axis=0)
    for key in ("metrics", "length", "velocity"):
        if p[key] is not None:
            turned[key] = [np.roll(each, turn, axis=0) for each in p[key]]
    turned["obs_coords"] = [p["obs_coords"][0] + turn, *p["obs_coords"][1:]]
    result = analyse(**turned, error="exact")
    np.testing.assert_allclose(result.field, np.roll(plain.field, turn, axis=0), atol=1e-9)
    np.testing.assert_allclose(result.error_variance, np.roll(plain.error_variance, turn, axis=0), rtol=1e-8)
    np.testing.assert_array_equal(result.observations_used, plain.observations_used)


@relaxed
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_observations_does_not_matter(p, random):
    order = list(range(p["values"].size))
    random.shuffle(order)
    shuffled = p | {
        "obs_coords": [x[order] for x in p["obs_coords"]],
        "values": p["values"][order],
        "noise": p["noise"][order],
    }
    plain, other = analyse(**p), analyse(**shuffled)
    np.testing.assert_allclose(other.field, plain.field, rtol=0, atol=1e-10)
    np.testing.assert_allclose(other.residuals, plain.residuals[order], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(other.observations_used, plain.observations_used[order])


@relaxed
@given(problems())
def test_observations_of_no_worth_leave_the_background(p):
    worthless = analyse(**(p | {"noise": 1e14}), error="exact")
    nothing = analyse(**(p | {"noise": np.inf}), error="exact")
    assert np.nanmax(np.abs(worthless.field)) < 1e-10
    assert np.nanmax(np.abs(nothing.field)) == 0
    np.testing.assert_allclose(worthless.error_variance, nothing.error_variance, rtol=1e-9)


@relaxed
@given(problems())
def test_the_error_variance_lies_between_zero_and_the_background_variance(p):
    error = analyse(**p, error="exact").error_variance[p["mask"]]
    prior = analyse(**(p | {"noise": np.inf}), error="exact").error_variance[p["mask"]]
    assert (error > 0).all()
    assert (error <= prior * (1 + 1e-9)).all()


@relaxed
@given(problems())
def test_another_observation_never_makes_the_error_larger(p):
    fewer = p | {
        "obs_coords": [x[:-1] for x in p["obs_coords"]],
        "values": p["values"][:-1],
        "noise": p["noise"][:-1],
    }
    more = analyse(**p, error="exact").error_variance[p["mask"]]
    less = analyse(**fewer, error="exact").error_variance[p["mask"]]
    assert (more <= less * (1 + 1e-9)).all()


@relaxed
@given(problems())
def test_residuals_are_the_values_minus_the_field_and_exact_data_leave_none(p):
    first = {key: [each[:1] for each in p[key]] for key in ("obs_coords",)} | {"values": p["values"][:1], "noise": 1e-8}
    p = p | first | {"velocity": None}
    result = analyse(**p)
    np.testing.assert_array_equal(np.isfinite(result.residuals), result.observations_used)
    assert (np.abs(result.residuals[result.observations_used]) < 1e-5).all()
