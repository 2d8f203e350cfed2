"""Stretched edge cells push the mirror at an open edge away."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.variational import analyse


def channel(**changes):
    """Uniform spacing 0.1 over 0..1 and a length of four cells."""
    line = np.linspace(0, 1, 11)
    p = {
        "mask": np.ones(11, bool),
        "metrics": [10.0],
        "coords": [line],
        "obs_coords": [[0.0, 0.05, 0.5, 0.93]],
        "values": [1.0, 2.0, -1.0, 0.5],
        "length": 0.4,
        "noise": 0.2,
    }
    return p | changes


def by_hand(a: float) -> dict:
    """The same channel with edge nodes a L from their neighbours, in cells that end 2 a L - h/2 from these."""
    line = np.linspace(0, 1, 11)
    metric = np.full(11, 10.0)
    line[0], line[-1] = 0.1 - a * 0.4, 0.9 + a * 0.4
    metric[[0, -1]] = 1 / (2 * a * 0.4 - 0.1)
    return channel(metrics=[metric], coords=[line])


@pytest.mark.parametrize(("stretch", "a"), [(True, 1.0), (0.7, 0.7)])
def test_a_stretched_uniform_channel_is_the_channel_with_wide_edge_cells(stretch, a):
    np.testing.assert_allclose(
        analyse(**channel(), edge_stretch=stretch).field, analyse(**by_hand(a)).field, atol=1e-12
    )


def test_no_stretch_is_no_change_and_short_lengths_need_none():
    plain = analyse(**channel()).field
    np.testing.assert_array_equal(analyse(**channel(), edge_stretch=0).field, plain)
    short = channel(length=0.05)
    np.testing.assert_allclose(analyse(**short, edge_stretch=True).field, analyse(**short).field, atol=1e-14)
    assert np.abs(analyse(**channel(), edge_stretch=True).field - plain).max() > 0.01


def test_a_closed_dimension_has_no_edge_to_stretch():
    closed = channel(cyclic=[1.1])
    np.testing.assert_array_equal(analyse(**closed, edge_stretch=True).field, analyse(**closed).field)


def test_observations_between_the_old_and_the_moved_edge_are_used():
    p = channel(obs_coords=[[-0.2, 1.29, -0.31, 1.31]])
    assert analyse(**p).observations_used.tolist() == [False] * 4
    assert analyse(**p, edge_stretch=True).observations_used.tolist() == [True, True, False, False]


def test_the_background_variance_at_an_edge_comes_closer_to_one():
    none = {"obs_coords": [[]], "values": [], "noise": 1.0}
    plain = analyse(**channel(**none), error="exact").error_variance
    moved = analyse(**channel(**none), edge_stretch=True, error="exact").error_variance
    assert plain[0] > 1.8
    assert abs(moved[0] - 1) < 0.5 * abs(plain[0] - 1)


def test_where_the_length_varies_along_an_edge_an_observation_is_located_by_the_stretch_beside_it():
    # Length 0.4 in the first column and 0.8 in the last: the edge moves to -0.3 and -0.7 there, to -0.5 half-way.
    shape = (11, 3)
    length = np.broadcast_to(np.array([0.4, 0.6, 0.8]), shape)
    for column, edge in enumerate((-0.3, -0.5, -0.7)):
        result = analyse(
            np.ones(shape, bool),
            [10.0, 2.0],
            [np.linspace(0, 1, 11), [0, 0.5, 1]],
            [[edge], [column / 2]],
            [1.0],
            [length, 0.0],
            1e-9,
            edge_stretch=True,
        )
        assert result.observations_used.all()
        assert result.field[0, column] == pytest.approx(1.0, abs=1e-6)


def test_a_falling_coordinate_is_stretched_like_a_rising_one():
    p = channel()
    mirrored = channel(coords=[p["coords"][0][::-1]])
    np.testing.assert_allclose(
        analyse(**mirrored, edge_stretch=True).field[::-1], analyse(**p, edge_stretch=True).field, atol=1e-12
    )
