"""The analysis against the same problem solved by dense textbook algebra."""

from __future__ import annotations

import dense
import numpy as np
import pytest
from scipy import sparse

from phidias_lab.methods.variational import analyse

# (4 pi)^(n/2) Gamma(m) / Gamma(m - n/2) for the default order m in n dimensions, worked out by hand.
MU = {1: 4.0, 2: 4 * np.pi, 3: 32 * np.pi, 4: 32 * np.pi**2}
ALPHA = {1: [1, 2, 1], 2: [1, 2, 1], 3: [1, 3, 3, 1], 4: [1, 3, 3, 1]}
SHAPES = [(17,), (9, 8), (5, 4, 5), (4, 3, 3, 4)]


def textbook(p, alpha=None, mu=None, constraints=()):
    shape = p["mask"].shape
    live = sum(np.mean(length) > 0 for length in p["length"])
    return dense.analyse(
        p["mask"],
        [np.broadcast_to(metric, shape) for metric in p["metrics"]],
        [list(line) for line in p["coords"]],
        p["obs_coords"],
        p["values"],
        [np.broadcast_to(length, shape) for length in p["length"]],
        p["noise"],
        alpha=ALPHA[live] if alpha is None else alpha,
        mu=MU[live] if mu is None else mu,
        cyclic=p.get("cyclic", [0] * len(shape)),
        velocity=p.get("velocity"),
        constraints=constraints,
    )


@pytest.fixture
def agrees(difference):
    def check(p, alpha=None, mu=None, constraints=(), **options):
        field, variance, used = textbook(p, alpha, mu, constraints)
        ours = analyse(**p, alpha=alpha, constraints=constraints, error="exact", **options)
        assert difference(ours.field, field) < 1e-9
        assert difference(ours.error_variance, variance) < 1e-9
        assert np.array_equal(ours.observations_used, used)
        return ours

    return check


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("feature", ["plain", "cyclic", "flow"])
def test_analysis_equals_dense_algebra_with_land_and_varying_lengths(problem, agrees, shape, feature):
    agrees(problem(shape, cyclic=feature == "cyclic", flow=feature == "flow"))


@pytest.mark.parametrize("shape", [(7,), (6, 5)], ids=str)
def test_flow_through_a_closed_dimension_equals_dense_algebra(problem, agrees, shape):
    agrees(problem(shape, cyclic=True, flow=True))


def test_observations_next_to_land_are_reweighted_and_those_on_land_or_outside_are_ignored(problem, agrees):
    p = problem((9, 8), count=6)
    # Node (6, 5) is land: on it, in a cell beside it, beyond two edges, on an edge, on the corner.
    p["obs_coords"] = [
        np.array([6 / 8, 5.5 / 8, -0.01, 0.5, 0.0, 1.0]),
        np.array([p["coords"][1][5], 4.6 / 7, 0.5, 1.2, 0.3, 1.0]),
    ]
    ours = agrees(p)
    assert ours.observations_used.tolist() == [False, True, False, False, True, True]
    assert np.isnan(ours.residuals[~ours.observations_used]).all()
    assert np.isfinite(ours.residuals[ours.observations_used]).all()


def test_observations_across_the_seam_of_a_closed_dimension_are_between_last_and_first_node(problem, agrees):
    p = problem((6, 9), cyclic=True, count=4, land=False)
    period = p["cyclic"][1]
    p["obs_coords"] = [np.full(4, 0.3), np.array([period - 0.03, -0.05, 3 * period + 0.2, period])]
    assert agrees(p).observations_used.all()


def test_a_grid_that_falls_gives_the_mirrored_analysis(problem):
    p = problem((9, 8), land=False)
    straight = analyse(**p).field
    p["coords"] = [p["coords"][0][::-1], p["coords"][1]]
    p["metrics"] = [metric[::-1] for metric in p["metrics"]]
    p["length"] = [length[::-1] for length in p["length"]]
    np.testing.assert_allclose(analyse(**p).field[::-1], straight, atol=1e-12)


def test_one_length_for_each_dimension_equals_dense_algebra(problem, agrees):
    p = problem((9, 8)) | {"length": [0.1, 0.4]}
    agrees(p)


def test_correlated_observation_errors_equal_dense_algebra_whether_dense_or_sparse(problem, agrees, difference):
    p = problem((9, 8), count=8)
    factor = np.random.default_rng(3).standard_normal((8, 8))
    p["noise"] = factor @ factor.T + np.eye(8)
    p["obs_coords"][0][2] = 5.0  # outside: its row and column leave the matrix
    dense_noise = agrees(p)
    np.testing.assert_array_equal(analyse(**(p | {"noise": sparse.coo_array(p["noise"])})).field, dense_noise.field)


def test_errors_correlated_within_profiles_that_are_listed_in_turns_equal_dense_algebra(problem, agrees):
    p = problem((9, 8), count=9)
    profile = np.arange(9) % 3
    p["noise"] = np.where(profile[:, None] == profile, 0.3, 0.0) + np.diag(p["noise"])
    agrees(p)


def test_rounding_neither_drops_an_observation_at_the_edge_nor_lets_one_on_land_speak(problem):
    p = problem((9, 8), count=3)
    first, second = p["coords"]
    assert not p["mask"][6, 5]
    p["obs_coords"] = [
        np.array([first[-1] * (1 + 1e-15), first[-1] * (1 + 1e-13), first[6]]),
        np.array([second[0], second[0], np.nextafter(second[5], 1)]),
    ]
    assert analyse(**p).observations_used.tolist() == [True, False, False]


def test_a_diagonal_matrix_of_noise_is_the_vector_of_noise(problem):
    p = problem((9, 8))
    vector = analyse(**p)
    matrix = analyse(**(p | {"noise": np.diag(p["noise"])}))
    np.testing.assert_allclose(matrix.field, vector.field, rtol=0, atol=1e-14)


@pytest.mark.parametrize("q", [0.2, np.linspace(0.1, 1, 5), 0.3 * np.eye(5) + 0.1], ids=["number", "vector", "matrix"])
def test_a_constraint_of_the_caller_equals_dense_algebra(problem, agrees, q):
    p = problem((9, 8))
    matrix = np.random.default_rng(5).standard_normal((5, p["mask"].sum()))
    agrees(p, constraints=[(matrix, q, np.arange(5.0)), (matrix[:2], 1.0, 0.0)])


@pytest.mark.parametrize(
    ("alpha", "mu"),
    [
        ([1, 3, 3, 1], 8 * np.pi),
        ([1, 2, 1, 0], 4 * np.pi),  # trailing zeros say nothing
        ([2, 3, 4, 1], 8 * np.pi * 10 / 8),
        ([1, 0, 1], 4 * np.pi * 2 / 4),
        ([0.5, 2, 1], 4 * np.pi * 3.5 / 4 / 2),
    ],
    ids=str,
)
def test_other_coefficients_of_the_norm_equal_dense_algebra(problem, agrees, alpha, mu):
    agrees(problem((9, 8)), alpha=alpha, mu=mu)


def test_the_seminorm_without_its_first_coefficient_equals_dense_algebra(problem, agrees):
    agrees(problem((9, 8)), alpha=[0, 2, 1], mu=4 * np.pi * 3 / 4 / 2)


@pytest.mark.parametrize("shape", [(7, 6), (5, 4, 5)], ids=str)
def test_length_zero_in_a_dimension_equals_dense_algebra(problem, agrees, shape):
    p = problem(shape)
    p["length"][1] = np.zeros(shape)
    agrees(p)


def test_length_zero_in_a_dimension_decouples_its_layers(problem):
    p = problem((9, 5), land=False, varying=False, count=5)
    p["length"] = [0.2, 0.0]
    p["obs_coords"][1][:] = [0, 0, 0.5, 0.5, 0.5]
    layers = analyse(**p, error="exact")
    for index, members in ((0, slice(0, 2)), (2, slice(2, 5))):
        single = analyse(
            p["mask"][:, 0],
            p["metrics"][0][:, :1].T,
            p["coords"][:1],
            [p["obs_coords"][0][members]],
            p["values"][members],
            0.2,
            p["noise"][members],
            error="exact",
        )
        np.testing.assert_allclose(layers.field[:, index], single.field, atol=1e-12)
        np.testing.assert_allclose(layers.error_variance[:, index], single.error_variance, atol=1e-12)
    assert np.abs(layers.field[:, [1, 3, 4]]).max() == 0


def test_without_any_length_every_node_stands_alone(problem):
    p = problem((6, 5), land=False, count=1) | {"length": 0.0, "noise": 0.5, "values": [3.0]}
    p["obs_coords"] = [[0.0], [0.0]]
    ours = analyse(**p, error="exact")
    assert ours.field[0, 0] == pytest.approx(2.0)
    assert ours.error_variance[0, 0] == pytest.approx(1 / 3)
    assert np.delete(ours.error_variance.ravel(), 0) == pytest.approx(1.0)


def test_a_decoupled_dimension_of_one_node_changes_nothing(problem):
    p = problem((9, 8))
    thin = {key: [each[..., None] for each in p[key]] for key in ("metrics", "length")}
    thin = p | {
        "mask": p["mask"][..., None],
        "metrics": [*thin["metrics"], 0.1],
        "length": [*thin["length"], 0.0],
        "coords": [*p["coords"], [5.0]],
        "obs_coords": [*p["obs_coords"], np.full(12, 5.0)],
    }
    np.testing.assert_allclose(analyse(**thin).field[..., 0], analyse(**p).field, rtol=0, atol=1e-13)
    thin["obs_coords"][2][3] = 5.1
    assert np.flatnonzero(~analyse(**thin).observations_used).tolist() == [3]


def test_land_stops_the_influence_of_an_observation(problem):
    p = problem((15, 5), land=False, count=1)
    p["mask"][7] = False
    p["obs_coords"] = [[0.1], [0.5]]
    field = analyse(**p).field
    assert np.abs(field[:7]).max() > 0
    assert np.abs(field[8:]).max() == 0


def test_what_land_holds_does_not_matter_but_for_the_mean_length_where_a_gap_counts_as_the_mean_of_the_sea(
    problem, difference
):
    p = problem((9, 8), flow=True)
    sea = p["mask"]
    holes = {key: [np.where(sea, each, np.nan) for each in p[key]] for key in ("metrics", "length", "velocity")}
    filled = [np.where(sea, each, each[sea].mean()) for each in p["length"]]
    assert difference(analyse(**(p | holes)).field, analyse(**(p | {"length": filled})).field) < 1e-14


def test_coordinates_may_be_vectors_or_arrays_of_the_grid(problem):
    p = problem((9, 8))
    arrays = p | {"coords": np.meshgrid(*p["coords"], indexing="ij")}
    assert analyse(**arrays).field.tobytes() == analyse(**p).field.tobytes()


def test_without_observations_the_analysis_is_the_background(problem, difference):
    p = problem((9, 8), count=2)
    alone = analyse(**(p | {"obs_coords": [[], []], "values": [], "noise": 1.0}), error="exact")
    outside = analyse(**(p | {"obs_coords": [[9, 9], [9, 9]]}), error="exact")
    ignored = analyse(**(p | {"noise": np.inf}), error="exact")
    prior = dense.background_precision(p["mask"], p["metrics"], p["length"], [1, 2, 1], 4 * np.pi, [0, 0])[0]
    for each in (alone, outside, ignored):
        assert np.nanmax(np.abs(each.field)) == 0
        assert not each.observations_used.any()
        np.testing.assert_allclose(each.error_variance[p["mask"]], np.diag(np.linalg.inv(prior)), rtol=1e-9)


def test_observations_at_one_place_count_as_their_weighted_mean(problem, difference):
    p = problem((9, 8), count=3)
    p["obs_coords"] = [np.full(3, 0.3), np.full(3, 0.4)]
    weights = 1 / p["noise"]
    once = p | {
        "obs_coords": [[0.3], [0.4]],
        "values": [(weights @ p["values"]) / weights.sum()],
        "noise": 1 / weights.sum(),
    }
    many, one = analyse(**p, error="exact"), analyse(**once, error="exact")
    assert difference(many.field, one.field) < 1e-12
    assert difference(many.error_variance, one.error_variance) < 1e-12


def test_the_same_input_gives_the_same_bytes(problem):
    p = problem((9, 8))
    first, second = (analyse(**p, error="exact") for _ in range(2))
    assert first.field.tobytes() == second.field.tobytes()
    assert first.error_variance.tobytes() == second.error_variance.tobytes()


def test_inputs_are_left_as_they_were(problem):
    p = problem((9, 8), flow=True)
    p["length"][0][~p["mask"]] = np.nan
    before = [np.copy(each) for key in ("metrics", "length", "velocity", "obs_coords") for each in p[key]]
    analyse(**p, edge_stretch=True)
    after = [each for key in ("metrics", "length", "velocity", "obs_coords") for each in p[key]]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
