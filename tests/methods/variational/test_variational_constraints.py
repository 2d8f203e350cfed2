"""Constraints on shares, fluxes, coasts and bounds, against loops over nodes, Lagrange multipliers and a bounded solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import analyse, analyse_within, bounded, constraints, grid, system


def grid_of(p):
    return grid.build(p["mask"], p["metrics"], p["length"], p.get("cyclic", ()))


def exactly(p, matrix, target) -> np.ndarray:
    """The field of least cost with matrix @ field = target, by Lagrange multipliers on dense matrices."""
    made = system.build(**p)
    a, rows = made.matrix.toarray(), np.asarray(matrix.todense())
    none = np.zeros((len(rows), len(rows)))
    both = np.block([[a, rows.T], [rows, none]])
    return np.linalg.lstsq(both, np.r_[made.right, target], rcond=None)[0][: len(a)]


def test_shares_of_a_whole_sum_to_nothing_as_anomalies_and_to_one_as_such(problem):
    p = problem((6, 5, 3), land=True)
    p["mask"][0, 3, 1] = False  # one part alone: nothing is known of the sum there
    p["length"] = [*p["length"][:2], 0.0]  # the parts know of each other by the constraint alone
    for total in (0.0, 1.0):
        matrix, variance, target = constraints.fractions(grid_of(p), 1e-9, total)
        field = analyse(**p, constraints=[(matrix, variance, target)]).field
        sea = p["mask"].all(axis=-1)
        assert len(target) == sea.sum() == p["mask"].any(axis=-1).sum() - 1
        np.testing.assert_allclose(field.sum(axis=-1)[sea], total, atol=1e-5)
        np.testing.assert_allclose(field[p["mask"]], exactly(p, matrix, target), atol=1e-5)
    assert np.abs(analyse(**p).field.sum(axis=-1)[sea]).max() > 0.1


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize("dimension", [0, 1])
def test_the_flux_through_each_known_section_is_the_one_given(problem, dimension, cyclic):
    p = problem((7, 6), cyclic=cyclic)
    rng = np.random.default_rng(3)
    depth = rng.uniform(1, 3, p["mask"].shape)
    flux = rng.standard_normal(p["mask"].shape[1 - dimension])
    flux[2] = np.nan
    if cyclic and dimension == 1:  # around a circle all differences cancel where the depth is even, so it must not be
        depth[:, 0] += 2
    matrix, variance, target = constraints.fluxes(grid_of(p), dimension, depth, flux, 1e-9)
    field = analyse(**p, constraints=[(matrix, variance, target)]).field
    np.testing.assert_allclose(field[p["mask"]], exactly(p, matrix, target), atol=1e-4)
    # The sums once more, one neighbour at a time.
    along, sea = np.moveaxis(field, dimension, 0), np.moveaxis(p["mask"], dimension, 0)
    thick = np.moveaxis(depth, dimension, 0)
    closed = cyclic and dimension == 1
    for line in range(sea.shape[1]):
        through = 0.0
        for k in range(sea.shape[0] if closed else sea.shape[0] - 1):
            after = (k + 1) % sea.shape[0]
            if sea[k, line] and sea[after, line]:
                through += (thick[k, line] + thick[after, line]) / 2 * (along[after, line] - along[k, line])
        if np.isfinite(flux[line]):
            assert through == pytest.approx(-flux[line], abs=1e-5)
    assert len(target) == flux.size - 1


def test_the_field_is_the_same_all_along_a_coast(problem):
    p = problem((9, 9), land=False)
    p["mask"][3:6, 4:6] = False
    matrix, variance, target = constraints.coast(grid_of(p), 1e-9)
    # Beside an island of 3 by 2 nodes lie sides of 3 and of 2 nodes, twice each, with a face to the next at both ends.
    assert len(target) == 2 * (3 + 1) + 2 * (2 + 1)
    field = analyse(**p, constraints=[(matrix, variance, target)]).field
    ring = [
        node
        for node in itertools.product(range(9), repeat=2)
        if p["mask"][node]
        and any(
            0 <= node[0] + i < 9 and 0 <= node[1] + j < 9 and not p["mask"][node[0] + i, node[1] + j]
            for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
    ]
    values = [field[node] for node in ring]
    assert np.ptp(values) < 1e-4
    assert np.ptp([analyse(**p).field[node] for node in ring]) > 0.05
    np.testing.assert_allclose(field[p["mask"]], exactly(p, matrix, target), atol=1e-4)


@pytest.mark.parametrize(("least", "greatest"), [(-0.1, None), (None, 0.15), (-0.1, 0.15)])
@pytest.mark.parametrize("shape", [(25,), (9, 8), (5, 4, 4)])
def test_an_analysis_within_bounds_is_the_one_of_least_cost(problem, shape, least, greatest):
    p = problem(shape, count=20)
    made = system.build(**p)
    lower = np.linalg.cholesky(made.matrix.toarray())
    known = optimize.lsq_linear(
        lower.T,
        np.linalg.solve(lower, made.right),
        (-np.inf if least is None else least, np.inf if greatest is None else greatest),
        method="bvls",
        tol=1e-14,
    )
    found = analyse_within(**p, least=least, greatest=greatest)
    np.testing.assert_allclose(found.field[p["mask"]], known.x, atol=1e-5)
    free = analyse(**p).field[p["mask"]]
    # Not the same as cutting off what lies beyond: held nodes draw their neighbours along.
    assert np.abs(np.clip(free, least, greatest) - known.x).max() > 1e-3


def test_bounds_may_differ_by_node_and_where_none_is_met_nothing_changes(problem):
    p = problem((9, 8))
    free = analyse(**p, error="exact")
    wide = analyse_within(**p, least=-100.0, greatest=np.inf, error="exact")
    np.testing.assert_array_equal(wide.field, free.field)
    low = np.full((9, 8), -np.inf)
    low[:4] = 0.2
    found = analyse_within(**p, least=low, error="exact")
    assert np.nanmin(found.field[:4]) >= 0.2
    assert np.nanmin(found.field[4:]) < 0.2
    np.testing.assert_array_equal(found.error_variance, free.error_variance)


def test_bounds_without_room_or_end_are_refused_in_a_sentence(problem, monkeypatch):
    p = problem((9, 8))
    with pytest.raises(InputError, match="leave room"):
        analyse_within(**p, least=1.0, greatest=1.0)
    monkeypatch.setattr(bounded, "TRIES", 1)
    with pytest.raises(InputError, match="after 1 analyses"):
        analyse_within(**p, least=0.0)
