"""What observations weigh at a node, against the analysis itself."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import analyse, analyse_within, influences

NODES = {(17,): (8,), (9, 8): (4, 3), (5, 4, 5): (2, 1, 2)}
OPTIONS = {
    "plain": {},
    "unit variance": {"unit_variance": True},
    "stretched edges": {"edge_stretch": 1.0, "unit_variance": True},
    "without renormalisation": {"renormalise": False},
}


def by_differences(p, node, step=0.5, **options) -> np.ndarray:
    """Derivative of the analysis at a node by each observation. It is linear, so any step gives it but for rounding."""
    found = []
    for j in range(p["values"].size):
        ends = [p["values"] + way * step * (np.arange(p["values"].size) == j) for way in (1, -1)]
        up, down = (analyse(**{**p, "values": each}, **options).field[node] for each in ends)
        found.append((up - down) / (2 * step))
    return np.array(found)


@pytest.mark.parametrize("shape", NODES, ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("feature", ["still", "flow"])
def test_a_weight_is_what_the_analysis_changes_by_and_the_weighted_values_sum_to_it(problem, shape, options, feature):
    p, node = problem(shape, flow=feature == "flow"), NODES[shape]
    found = influences(**p, node=node, **options)
    field = analyse(**p, **options).field[node]
    assert abs(found.weights @ p["values"] + found.rest - field) < 1e-10 * abs(p["values"]).max()
    np.testing.assert_allclose(found.weights, by_differences(p, node, **options), atol=1e-10)
    assert abs(found.weights).max() > 0.01


def test_constraints_that_ask_for_more_than_zeros_have_a_share_of_their_own(problem):
    p, node = problem((9, 8)), (4, 3)
    rows = np.zeros((1, int(p["mask"].sum())))
    rows[0, [20, 30, 40]] = 1.0
    asked = [(rows, 0.1, 5.0)]
    found = influences(**p, node=node, constraints=asked)
    field = analyse(**p, constraints=asked).field[node]
    assert abs(found.rest) > 0.1
    assert abs(found.weights @ p["values"] + found.rest - field) < 1e-10 * abs(field)
    assert influences(**p, node=node).rest == pytest.approx(0, abs=1e-13)


def test_observations_with_correlated_errors_and_those_outside_weigh_what_they_do(problem):
    p, node = problem((9, 8), count=8), (4, 3)
    factor = np.random.default_rng(3).standard_normal((8, 8))
    p["noise"] = factor @ factor.T + np.eye(8)
    p["obs_coords"][0][2] = 5.0
    found = influences(**p, node=node)
    assert found.weights[2] == 0
    np.testing.assert_allclose(found.weights, by_differences(p, node), atol=1e-10)


@pytest.mark.parametrize("node", [(4, 3), (2, 6)])
def test_within_bounds_the_weights_are_those_of_the_analysis_that_holds_the_same_nodes(problem, node):
    p = problem((9, 8))
    free = analyse(**p).field
    bounds = {"least": float(np.nanquantile(free, 0.3)), "greatest": float(np.nanquantile(free, 0.8))}
    field = analyse_within(**p, **bounds).field
    found = influences(**p, node=node, **bounds)
    # A node that is held gives way by 1e-8 of its variance.
    assert found.weights @ p["values"] + found.rest == pytest.approx(field[node], abs=1e-6)
    assert not np.allclose(found.weights, influences(**p, node=node).weights, atol=1e-3)
    nudged = p["values"] + 1e-5 * (np.arange(p["values"].size) == 3)
    change = (analyse_within(**{**p, "values": nudged}, **bounds).field[node] - field[node]) / 1e-5
    assert found.weights[3] == pytest.approx(change, abs=1e-6)


@pytest.mark.parametrize("solver", ["splu", "iterative"])
def test_every_solver_gives_the_same_weights(problem, solver):
    p = problem((9, 8))
    ours, other = (influences(**p, node=(4, 3), solver=each).weights for each in ("multifrontal", solver))
    np.testing.assert_allclose(other, ours, atol=1e-6 if solver == "iterative" else 1e-10)


@pytest.mark.parametrize(("node", "said"), [((6, 5), "on land"), ((9, 0), "not in a grid"), ((1,), "not in a grid")])
def test_a_node_without_an_analysis_is_refused(problem, node, said):
    with pytest.raises(InputError, match=said):
        influences(**problem((9, 8)), node=node)
