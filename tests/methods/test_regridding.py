"""Fields come to another grid as a sum over all pairs of cells brings them there, on every turn and around the globe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phidias_lab.methods import regridding
from phidias_lab.methods.regridding import Axis


def axis(nodes) -> Axis:
    edges = regridding.cell_edges(np.asarray(nodes, float))
    return Axis(np.asarray(nodes, float), np.column_stack([edges[:-1], edges[1:]]))


def overlap(a, b) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 30)), min_size=1, max_size=8),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 30)), min_size=1, max_size=5),
)
def test_what_spans_have_in_common_is_that_of_each_pair(source, target):
    source, target = (np.array([(start, start + long) for start, long in spans]) for spans in (source, target))
    found = regridding.common(source, target).toarray()
    pairs = [[overlap(a, b) for a in source] for b in target]
    np.testing.assert_allclose(found, pairs, atol=1e-12)
    shares = regridding.means(source, target).sum(axis=1)
    assert (shares <= 1 + 1e-12).all()


def test_means_keep_the_integral_over_the_sphere():
    random = np.random.default_rng(1)
    fine, coarse = axis(np.arange(-89.5, 90, 1)), axis(np.arange(-87.5, 90, 5))
    values = random.standard_normal(fine.nodes.size)

    def area(cells):
        return np.diff(np.sin(np.deg2rad(cells)), axis=1)[:, 0]

    found = regridding.weights(fine, coarse, regridding.on_the_sphere) @ values
    assert (found * area(coarse.cells)).sum() == pytest.approx((values * area(fine.cells)).sum(), rel=1e-12)


def test_lines_hold_between_nodes_and_end_half_a_cell_beyond():
    source = axis([0.0, 1.0, 3.0])
    found = regridding.lines(source, np.array([-0.6, -0.4, 0.25, 2.0, 3.9, 4.1])).toarray()
    np.testing.assert_allclose(found, [[0, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 0]])


def test_a_node_that_is_rounded_otherwise_is_the_same_node():
    coarse = axis(np.arange(0.05, 10, 0.1))
    rounded = axis(coarse.nodes.astype(np.float32).astype(float))
    np.testing.assert_array_equal(regridding.weights(rounded, coarse).toarray(), np.eye(100))


@pytest.mark.parametrize("turn", [-720.0, -360.0, 0.0, 360.0])
@pytest.mark.parametrize("finer", [True, False])
def test_the_turn_from_which_longitudes_are_counted_does_not_matter(turn, finer):
    fine, coarse = axis(np.arange(-19.5, 30, 1)), axis(np.arange(-10, 20, 5.0))
    source, target = (fine, coarse) if finer else (coarse, fine)
    plain = regridding.weights(source, target).toarray()
    turned = Axis(target.nodes + turn, target.cells + turn)
    np.testing.assert_allclose(regridding.weights_around(source, turned).toarray(), plain, atol=1e-9)
    turned = Axis(source.nodes + turn, source.cells + turn)
    np.testing.assert_allclose(regridding.weights_around(turned, target).toarray(), plain, atol=1e-9)


def test_a_field_all_around_the_globe_has_no_seam():
    globe = axis(np.arange(0.5, 360, 1.0))
    wave = np.sin(np.deg2rad(globe.nodes))  # steepest at the seam
    for nodes in (np.arange(-177.5, 180, 5.0), np.arange(-179.7, 180, 0.6)):
        target = axis(nodes)
        made = regridding.weights_around(globe, target)
        np.testing.assert_allclose(made.sum(axis=1), 1.0)
        np.testing.assert_allclose(made @ wave, np.sin(np.deg2rad(nodes)), atol=1e-3)


@pytest.mark.parametrize("independent", [True, False])
def test_a_mean_and_its_error_leave_out_what_is_missing(independent):
    random = np.random.default_rng(3)
    values, errors = random.standard_normal((3, 6, 8)), random.uniform(0.1, 1, (3, 6, 8))
    values[random.random(values.shape) < 0.3] = np.nan
    errors[0, 0, 0] = np.nan
    share = np.array([0.2, 0.5, 0.3])
    fine_y, fine_x, y, x = axis(np.arange(6)), axis(np.arange(8)), axis([0.5, 2.5, 4.5]), axis([0.5, 3.5, 6.5])
    horizontal = [regridding.weights(fine_y, y), regridding.weights(fine_x, x)]
    found = regridding.mean(regridding.summed(values, errors, share, horizontal, independent), 0.5, independent)
    weight = np.einsum("t,ay,bx->abtyx", share, *(each.toarray() for each in horizontal))
    for a, b in np.ndindex(3, 3):
        w = np.where(np.isfinite(values), weight[a, b], 0.0)
        if w.sum() < 0.5:
            assert np.isnan(found[0][a, b])
            continue
        assert found[0][a, b] == pytest.approx(np.nansum(w * np.nan_to_num(values)) / w.sum())
        spread = np.sqrt(np.nansum((w * errors) ** 2)) if independent else np.nansum(w * errors)
        if w[np.isnan(errors)].sum() > 0:
            assert np.isnan(found[1][a, b]), "the error of a part is not known, so that of the mean is not"
        else:
            assert found[1][a, b] == pytest.approx(spread / w.sum())
