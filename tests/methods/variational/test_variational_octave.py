"""The analysis beside octave-divand, an independent program, where it is installed."""

from __future__ import annotations

import numpy as np
import octave
import pytest

from phidias_lab.methods.variational import analyse
from phidias_lab.methods.variational.norm import normalisation


@pytest.fixture
def peer(needs):
    needs("octave-cli", "octave-divand")
    return octave.divand


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((40,), {}),
        ((40,), {"cyclic": True, "flow": True}),
        ((24, 20), {}),
        ((24, 20), {"varying": False}),
        ((24, 20), {"cyclic": True}),
        ((24, 20), {"flow": True}),
        ((8, 7, 9), {"cyclic": True}),
        ((8, 7, 9), {"flow": True}),
        ((6, 5, 4, 5), {}),
        ((6, 5, 4, 5), {"cyclic": True, "flow": True}),
    ],
    ids=str,
)
def test_field_and_exact_error_equal_octave_divand(peer, problem, difference, shape, options):
    p = problem(shape, **options)
    theirs = peer(**p, error=True)
    # renormalise=False: where a cell touches land the peer keeps the weights as they are.
    ours = analyse(**p, error="exact", renormalise=False)
    assert difference(ours.field, theirs["field"]) <= 1e-9
    assert difference(ours.error_variance, theirs["error_variance"]) <= 1e-9


def test_weights_next_to_land_without_renormalisation_equal_octave_divand(peer, problem, difference):
    p = problem((12, 11), count=30)
    p["obs_coords"] = [np.random.default_rng(8).uniform(0.02, 0.98, 30) for _ in range(2)]
    theirs = peer(**p, error=True)
    ours = analyse(**p, error="exact", renormalise=False)
    assert difference(ours.field, theirs["field"]) <= 1e-9
    assert difference(ours.error_variance, theirs["error_variance"]) <= 1e-9
    assert difference(analyse(**p).field, theirs["field"]) > 1e-4  # ours by default is the other convention


def test_a_single_observation_equals_octave_divand(peer, problem, difference):
    p = problem((24, 20), count=1)
    theirs, ours = peer(**p, error=True), analyse(**p, error="exact")
    assert difference(ours.field, theirs["field"]) <= 1e-9
    assert difference(ours.error_variance, theirs["error_variance"]) <= 1e-9


def test_lengths_on_land_count_in_the_mean_length_as_in_octave_divand(peer, problem, difference):
    p = problem((24, 20))
    p["length"] = [np.where(p["mask"], each, 10 * each) for each in p["length"]]
    theirs = peer(**p, error=True)
    ours = analyse(**p, error="exact", renormalise=False)
    assert difference(ours.field, theirs["field"]) <= 1e-9
    assert difference(ours.error_variance, theirs["error_variance"]) <= 1e-9


def test_another_binomial_norm_and_a_decoupled_dimension_equal_octave_divand(peer, problem, difference):
    for p, alpha in (
        (problem((24, 20)), [1, 3, 3, 1]),
        (problem((8, 7, 9)) | {"length": [0.2, 0.3, 0.0]}, [1, 2, 1]),
    ):
        theirs = peer(**p, alpha=alpha, error=True)
        ours = analyse(**p, alpha=alpha, error="exact", renormalise=False)
        assert difference(ours.field, theirs["field"]) <= 1e-9
        assert difference(ours.error_variance, theirs["error_variance"]) <= 1e-9


@pytest.mark.parametrize("alpha", [[2, 3, 4, 1], [1, 0, 1], [0.5, 2, 1], [0, 2, 1]], ids=str)
def test_other_norms_equal_octave_divand_up_to_the_scale_it_leaves_out(peer, problem, difference, alpha):
    # The peer does not normalise a norm whose coefficients are not binomial: its background variance is our 1/c.
    p = problem((24, 20))
    scale = normalisation(2, np.array(alpha, float)) * np.prod([length.mean() for length in p["length"]])
    theirs = peer(**(p | {"noise": p["noise"] / scale}), alpha=alpha, error=True)
    ours = analyse(**p, alpha=alpha, error="exact", renormalise=False)
    assert difference(ours.field, theirs["field"]) <= 1e-9
    assert difference(ours.error_variance, scale * theirs["error_variance"]) <= 1e-9
