"""The iterative solver: equal to a direct one, in few steps whatever the grid, or a sentence; the same in every library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from phidias_lab.errors import InputError
from phidias_lab.methods import arrays
from phidias_lab.methods.variational import analyse, edges, grid, iterative, multigrid, norm, observation, solvers
from phidias_lab.methods.variational.iterative import TOLERANCE, Iterative


@pytest.fixture
def coarse(monkeypatch):
    """Several levels on the small grids of tests."""
    monkeypatch.setattr(multigrid, "SMALLEST", 40)


def system_of(p: dict):
    """The matrix, the right-hand side and the grid of a problem with a noise for each observation or for all."""
    sea = grid.build(p["mask"], p["metrics"], p["length"], p.get("cyclic", ()))
    lines = observation.grid_lines(p["coords"], sea)
    sea, moved = edges.stretch(sea, lines, edges.factor(p.get("edge_stretch", False)))
    interpolation, used = observation.operator(sea, lines, p["obs_coords"], moved, renormalise=True)
    weighted = interpolation[used].T / np.broadcast_to(p["noise"], used.shape)[used]
    matrix = norm.precision(sea, norm.coefficients(None, len(sea.active))) + weighted @ interpolation[used]
    return sparse.csr_array(matrix), weighted @ p["values"][used], sea


def basin(size: int, **changes) -> dict:
    """A square with an island and 300 observations; the correlation length is a tenth of it, whatever the nodes."""
    rng = np.random.default_rng(3)
    mask = np.ones((size, size), bool)
    mask[size // 2 : size // 2 + size // 8, size // 3 : size // 2] = False
    return {
        "mask": mask,
        "metrics": [float(size - 1)] * 2,
        "coords": [np.linspace(0, 1, size)] * 2,
        "obs_coords": list(rng.uniform(0.01, 0.99, (2, 300))),
        "values": rng.standard_normal(300),
        "length": 0.1,
        "noise": 0.1,
    } | changes


WALLS = np.ones((40, 40), bool)
WALLS[::12], WALLS[::12, ::19] = False, True
PLANE = np.stack(np.meshgrid(*[np.linspace(0, 1, 40)] * 2, indexing="ij"))

CASES = {
    "1-D": lambda make: make((400,)),
    "1-D cyclic": lambda make: make((401,), cyclic=True),
    "2-D, uneven metrics and lengths": lambda make: make((34, 29)),
    "2-D cyclic": lambda make: make((34, 29), cyclic=True),
    "3-D": lambda make: make((12, 11, 13)),
    "3-D cyclic": lambda make: make((12, 11, 13), cyclic=True),
    "4-D": lambda make: make((7, 6, 5, 6)),
    "fine": lambda _: basin(40),
    "stretched edges": lambda _: basin(40, edge_stretch=True),
    "thin walls with gaps": lambda _: basin(40, mask=WALLS),
    "one length ten times the other": lambda _: basin(40, length=[0.3, 0.03]),
    "a length that varies tenfold": lambda _: basin(40, length=0.03 * 10 ** PLANE[0] * np.ones((40, 40))),
    "layers that do not touch": lambda _: basin(40, length=[0.1, 0.0]),
    "a length of a cell": lambda _: basin(40, length=0.025),
    "a length of the whole basin": lambda _: basin(40, length=1.0),
    "trusted observations": lambda _: basin(40, noise=1e-4),
    "hardly any information": lambda _: basin(40, noise=100.0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_field_is_that_of_a_direct_solver_within_the_tolerance(case, problem, coarse):
    matrix, right, sea = system_of(CASES[case](problem))
    made = Iterative(matrix, sea, arrays.on("cpu"))
    expected = solvers.SuperLU(matrix).solve(right)
    error = made.solve(right) - expected
    assert len(made.levels) > 1
    assert made.steps < 60
    # The bound: at no node more than the tolerance times the analysis' own relative error there.
    deviation = np.sqrt(np.diag(np.linalg.inv(matrix.toarray())))
    assert (np.abs(error) <= (TOLERANCE * deviation + 1e-10) * np.abs(expected).max()).all()


def test_the_number_of_steps_does_not_grow_with_the_grid():
    steps = []
    for size in (50, 100, 200):
        matrix, right, sea = system_of(basin(size))
        made = Iterative(matrix, sea, arrays.on("cpu"))
        made.solve(right)
        steps.append(made.steps)
    assert max(steps) <= 20
    assert steps[2] <= steps[1] + 3


def test_waters_on_both_sides_of_a_wall_stay_apart_on_all_levels(coarse):
    mask = np.ones((40, 41), bool)
    mask[:, 20] = False
    matrix, _, sea = system_of(basin(40, mask=mask, coords=[np.linspace(0, 1, 40), np.linspace(0, 1, 41)]))
    levels, _ = multigrid.hierarchy(matrix, sea, 2)
    west = np.nonzero(mask)[1] < 20
    assert len(levels) > 2
    for level in levels[:-1]:
        in_west, in_east = (abs(level.refine[side]).sum(axis=0) > 0 for side in (west, ~west))
        assert not (in_west & in_east).any()
        west = in_west


def test_a_spline_on_the_coarser_grid_is_a_sum_of_splines_on_the_finer_grid():
    # Interpolating a constant gives that constant, and a straight line stays straight away from the edges.
    sea = grid.build(np.ones(64, bool), [1.0], [8.0], ())
    for order in (2, 3, 4):
        refine, mesh = multigrid._coarser(multigrid._finest(sea), [True], order)
        line = refine @ mesh.places[0].astype(float)
        np.testing.assert_allclose(refine @ np.ones(refine.shape[1]), 1.0)
        np.testing.assert_allclose(np.diff(line)[order:-order], 0.5)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_every_library_gives_the_same_field_in_the_same_steps(library, problem, coarse):
    matrix, right, sea = system_of(problem((34, 29)))
    reference, made = Iterative(matrix, sea, arrays.on("cpu")), Iterative(matrix, sea, arrays.on("cpu", library))
    expected = reference.solve(right)
    assert np.abs(made.solve(right) - expected).max() <= 1e-11 * np.abs(expected).max()
    assert made.steps == reference.steps
    block = np.eye(matrix.shape[0])[:, [3, 500]]
    np.testing.assert_allclose(made.solve(block), reference.solve(block), atol=1e-11)


def test_the_error_variance_is_that_of_a_direct_solver(problem, difference, coarse):
    p = problem((14, 13), flow=True)
    ours, direct = (analyse(**p, error="exact", solver=name) for name in ("iterative", "splu"))
    assert ours.solver == "iterative"
    assert difference(ours.field, direct.field) < 1e-8
    assert difference(ours.error_variance, direct.error_variance) < 1e-8


def test_without_observations_the_field_is_zero(problem):
    p = problem((14, 13)) | {"obs_coords": [np.empty(0)] * 2, "values": np.empty(0), "noise": 1.0}
    assert np.nanmax(np.abs(analyse(**p, solver="iterative").field)) == 0.0


def test_a_field_that_does_not_settle_is_an_error_and_no_field(monkeypatch, coarse):
    monkeypatch.setattr(iterative, "MOST", 3)
    with pytest.raises(InputError, match=r"After 3 steps .* may still be wrong by .*'auto'"):
        analyse(**basin(60), solver="iterative")


def test_a_system_that_is_not_positive_definite_is_refused(coarse):
    matrix, right, sea = system_of(basin(40))
    indefinite = sparse.csr_array(matrix - 2 * sparse.diags_array(matrix.diagonal()))
    with pytest.raises(InputError, match="no unique solution"):
        Iterative(indefinite, sea, arrays.on("cpu"))
    # One that only the steps find out about: numbers that are none, and a curvature below zero.
    for wrong in (matrix * np.nan, -matrix):
        made = Iterative(matrix, sea, arrays.on("cpu"))
        made.levels[0] = replace(made.levels[0], matrix=wrong)
        with pytest.raises(InputError, match="no unique solution"):
            made.solve(right)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_smoothing_leaves_of_each_eigenvector_what_the_polynomial_of_the_fourth_kind_does(library):
    matrix, _, sea = system_of(basin(20))
    made = Iterative(matrix, sea, arrays.on("cpu", library))
    eigenvalues, put = np.linspace(0.01, 1, 50), made.place.put
    level = replace(
        made.levels[0], matrix=made.place.matrix(sparse.diags_array(eigenvalues).tocsr()), scaling=put(np.ones(50))
    )
    solution, residual = (made.place.get(each) for each in made._smooth(level, None, put(np.ones(50))))
    # W_k(cos t) = sin((k + 1/2) t) / sin(t / 2), scaled to 1 at the eigenvalue 0
    t, k = np.arccos(1 - 2 * eigenvalues), made.degree
    left = np.sin((k + 0.5) * t) / np.sin(t / 2) / (2 * k + 1)
    np.testing.assert_allclose(residual, left, atol=1e-13)
    np.testing.assert_allclose(solution, (1 - left) / eigenvalues, rtol=1e-12)
