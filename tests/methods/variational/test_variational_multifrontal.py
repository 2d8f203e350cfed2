"""Our own Cholesky factor and its selected inverse, against dense algebra and against itself on other machines."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from phidias_lab.methods.variational import analyse, dissection, grid, multifrontal, norm
from phidias_lab.methods.variational.multifrontal import Multifrontal, Structure


def system(mask, length=0.2, cyclic=(), extra=()):
    """The matrix of a small analysis: the norm, observations at some nodes, and couplings between any two nodes."""
    sea = grid.build(mask, [float(max(size - 1, 1)) for size in mask.shape], length, cyclic)
    alpha = norm.coefficients(None, mask.ndim)
    matrix = norm.precision(sea, alpha)
    seen = np.random.default_rng(0).random(sea.nodes) < 0.2
    matrix = matrix + sparse.diags_array(np.where(seen, 5.0, 1e-3))
    for one, other in extra:
        pair = sparse.csr_array(([1.0, -1.0], ([0, 0], [one % sea.nodes, other % sea.nodes])), shape=(1, sea.nodes))
        matrix = matrix + 2.0 * pair.T @ pair
    return sparse.csr_array(matrix), np.argwhere(mask), np.full(mask.ndim, alpha.size - 1)


def check(matrix, places, reach, **options):
    """A factor whose solutions, determinant and selected inverse are those of dense algebra."""
    factor = Multifrontal(matrix, places, reach, **options)
    dense = matrix.toarray()
    inverse = np.linalg.inv(dense)
    scale = np.abs(inverse).max()
    right = np.random.default_rng(1).standard_normal((matrix.shape[0], 3))
    assert np.abs(factor.solve(right) - inverse @ right).max() < 1e-10 * np.abs(inverse @ right).max()
    np.testing.assert_allclose(factor.solve(right[:, 0]), factor.solve(right)[:, 0], rtol=1e-12, atol=1e-12 * scale)
    assert factor.log_determinant == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10)
    chosen = factor.selected_inverse()
    np.testing.assert_allclose(chosen.diagonal, inverse.diagonal(), rtol=1e-10)
    found = chosen.matrix()
    pattern = matrix.toarray() != 0
    assert np.array_equal(found.toarray() != 0, pattern)
    assert np.abs(found.toarray() - inverse)[pattern].max() < 1e-10 * scale
    return factor


def island(shape):
    mask = np.ones(shape, bool)
    mask[tuple(slice(size // 3, size // 2) for size in shape)] = False
    return mask


SHAPES = [(300,), (40, 37), (12, 11, 9), (7, 6, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_factor_and_selected_inverse_are_those_of_dense_algebra_with_land(shape):
    check(*system(island(shape)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_closed_dimension_couples_both_ends(shape):
    period = [0.0] * (len(shape) - 1) + [shape[-1] / (shape[-1] - 1)]
    factor = check(*system(island(shape), cyclic=period))
    assert len(factor.blocks) > 1


def test_couplings_between_any_two_places_are_part_of_the_factor():
    check(*system(island((30, 30)), extra=[(0, 870), (17, 444), (3, 850), (200, 700)]))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 22),
    st.integers(2, 22),
    st.floats(0, 0.5),
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 480), st.integers(0, 480)), max_size=4),
)
def test_whatever_the_coasts(rows, columns, land, seed, extra):
    mask = np.random.default_rng(seed).random((rows, columns)) >= land
    mask[0, 0] = True
    check(*system(mask, extra=extra))


@pytest.mark.parametrize("shape", [(70, 60), (13, 12, 10)], ids=str)
def test_large_fronts_in_tiles_are_those_of_dense_algebra(shape, monkeypatch):
    monkeypatch.setattr(multifrontal, "TILE", 16)
    check(*system(island(shape)), cores=3)


@pytest.mark.parametrize("tile", [16, multifrontal.TILE])
def test_every_byte_is_the_same_on_any_number_of_cores_and_threads(tile, monkeypatch):
    monkeypatch.setattr(multifrontal, "TILE", tile)
    matrix, places, reach = system(island((90, 80)))
    right = np.random.default_rng(0).standard_normal(matrix.shape[0])

    def answers(cores, threads):
        with threadpool_limits(threads):
            factor = Multifrontal(matrix, places, reach, cores=cores)
            return factor.solve(right).tobytes() + factor.selected_inverse().diagonal.tobytes()

    assert answers(1, 1) == answers(2, 2) == answers(5, 1)


def test_the_blas_works_with_one_thread(monkeypatch):
    seen = set()
    plain = multifrontal._cholesky

    def watched(matrix):
        seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return plain(matrix)

    monkeypatch.setattr(multifrontal, "_cholesky", watched)
    with threadpool_limits(2):
        Multifrontal(*system(island((9, 9))))
    assert seen == {1}


@pytest.mark.parametrize("shape", [(9, 9), (60, 60)], ids=str)
def test_a_matrix_that_is_not_positive_definite_is_refused(shape):
    matrix, places, reach = system(island(shape))
    middle = matrix.shape[0] // 2
    spoilt = matrix - sparse.csr_array(([2 * matrix[middle, middle]], ([middle], [middle])), shape=matrix.shape)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        Multifrontal(sparse.csr_array(spoilt), places, reach)


def test_coloured_noise_has_the_inverse_as_its_covariance():
    matrix, places, reach = system(island((25, 25)))
    factor = Multifrontal(matrix, places, reach)
    unit = np.eye(matrix.shape[0])
    root = factor.colour(unit)
    inverse = np.linalg.inv(matrix.toarray())
    assert np.abs(root @ root.T - inverse).max() < 1e-10 * np.abs(inverse).max()


def test_cost_and_memory_are_told_before_the_factorisation():
    matrix, places, reach = system(island((60, 60)))
    structure = Structure(matrix, places, reach)
    factor = Multifrontal(matrix, places, reach, structure=structure)
    assert structure.factor_bytes == sum(inner.nbytes + below.nbytes for inner, below in factor.blocks)
    # A column with c entries below its diagonal is divided, and changes c (c + 1) / 2 entries by a product and a sum.
    below = np.concatenate(
        [np.arange(own, 0, -1) - 1 + rest for own, rest in zip(*(s.astype(int) for s in structure.sizes), strict=True)]
    )
    assert structure.operations.sum() == pytest.approx((1 + below + below * (below + 1)).sum(), rel=0.03)


def test_the_memory_that_was_told_is_what_a_factorisation_takes():
    matrix, places, reach = system(island((20, 18, 16)))
    structure = Structure(matrix, places, reach)
    told = structure.peak_bytes
    tracemalloc.start()
    try:
        Multifrontal(matrix, places, reach, structure=structure, cores=1)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside it stand copies of the front in work.
    assert told < taken < 1.3 * told


@pytest.mark.parametrize(
    ("shape", "within"), [((300,), 1e-12), ((60, 60), 0.2), ((90, 40), 0.2), ((14, 13, 12), 0.35)], ids=str
)
def test_what_a_factor_takes_is_told_from_the_size_of_the_grid_alone(shape, within):
    """A bit too much: corners of a boundary are counted that no node of the norm's stencil reaches."""
    matrix, places, reach = system(np.ones(shape, bool))
    structure, told = Structure(matrix, places, reach), dissection.cost(shape, reach.tolist())
    assert 1 - 1e-12 < told.bytes / structure.factor_bytes < 1 + within
    assert 1 - 1e-12 < told.operations / structure.operations.sum() < 1 + within


def test_every_node_is_eliminated_once_and_the_sides_of_a_cut_are_not_coupled():
    matrix, places, reach = system(island((50, 40)))
    tree = dissection.dissect(places, reach)
    assert np.array_equal(np.sort(tree.order), np.arange(matrix.shape[0]))
    assert tree.start[0] == 0
    assert tree.start[-1] == matrix.shape[0]
    assert (tree.parent[:-1] > np.arange(tree.parent.size - 1)).all()
    assert tree.parent[-1] == -1
    front = np.empty(matrix.shape[0], int)
    front[tree.order] = np.repeat(np.arange(tree.parent.size), np.diff(tree.start))
    above = [{i} for i in range(tree.parent.size)]
    for i in range(tree.parent.size - 2, -1, -1):
        above[i] |= above[tree.parent[i]]
    rows, columns = matrix.nonzero()
    assert all(b in above[a] or a in above[b] for a, b in zip(front[rows], front[columns], strict=True))


def test_progress_rises_to_the_end():
    told = []
    matrix, places, reach = system(island((60, 60)))
    factor = Multifrontal(matrix, places, reach, progress=told.append)
    assert told == sorted(told)
    assert 0.9 < told[-1] <= 1
    told.clear()
    factor.selected_inverse(told.append)
    assert told == sorted(told)
    assert 0.9 < told[-1] <= 1


def test_the_error_variance_of_an_analysis_is_the_selected_inverse(problem, difference):
    p = problem((30, 28), cyclic=True, flow=True)
    ours = analyse(**p, error="exact")
    independent = analyse(**p, error="exact", solver="splu")
    assert ours.solver == "multifrontal"
    assert difference(ours.field, independent.field) < 1e-10
    assert difference(ours.error_variance, independent.error_variance) < 1e-10
