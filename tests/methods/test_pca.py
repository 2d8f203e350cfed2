"""Moments of blocks are those of all spectra at once, and components hide none of the gases that must stay visible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import pca


def spectra(number: int, channels: int = 40, seed: int = 0, offset: float = 3.0) -> np.ndarray:
    """Eight decaying directions and unit noise, in single precision."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((number, 8)) * 8 * 0.7 ** np.arange(8)
    x = scores @ np.random.default_rng(99).standard_normal((8, channels)) + random.standard_normal((number, channels))
    return (x + offset).astype(np.float32)


def moments(*blocks: np.ndarray) -> pca.Moments:
    found = pca.Moments(blocks[0].shape[-1])
    for block in blocks:
        found.add(block)
    return found


def close(found: pca.Moments, wanted: pca.Moments, tolerance: float = 1e-6) -> None:
    scale = np.sqrt(np.diag(wanted.covariance))
    assert found.number == wanted.number
    assert np.abs(found.mean - wanted.mean).max() <= tolerance * scale.max()
    assert (np.abs(found.covariance - wanted.covariance) <= tolerance * np.outer(scale, scale)).all()


def test_mean_and_covariance_are_those_of_double_precision():
    x = spectra(5000)
    found = moments(x)
    wide = x.astype(float)
    assert found.number == 5000
    np.testing.assert_allclose(found.mean, wide.mean(axis=0), atol=1e-6)
    scale = np.sqrt(np.diag(np.cov(wide.T, bias=True)))
    assert (np.abs(found.covariance - np.cov(wide.T, bias=True)) < 2e-6 * np.outer(scale, scale)).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_partition_merged_in_any_order_equals_the_whole(data):
    x = spectra(2000, 20)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=6)))
    blocks = np.split(x, cuts)
    workers = data.draw(st.lists(st.integers(0, 2), min_size=len(blocks), max_size=len(blocks)))
    order = data.draw(st.permutations(range(len(blocks))))
    parts = [pca.Moments(20) for _ in range(3)]
    for i in order:
        parts[workers[i]].add(blocks[i])
    whole = pca.Moments(20)
    for i in data.draw(st.permutations(range(3))):
        whole.merge(parts[i])
    close(whole, moments(x))


def test_how_many_threads_work_is_a_matter_of_rounding():
    x = spectra(6000)
    close(pca.Moments(40).add(x, cores=1), pca.Moments(40).add(x, cores=4))


def test_spectra_far_from_zero_and_drifting_keep_their_covariance():
    x = spectra(4000, offset=0.0) + np.float32(2000)
    early, late = x[:2000], x[2000:] + np.float32(100)
    wide = np.concatenate([early, late]).astype(float)
    found, wanted = moments(early, late), np.cov(wide.T, bias=True)
    assert np.abs(found.covariance - wanted).max() < 1e-6 * np.abs(wanted).max()
    # Sums of plain squares in single precision are off by hundreds of times that.
    plain = np.concatenate([early, late])
    naive = plain.T @ plain / len(plain) - np.outer(plain.mean(axis=0), plain.mean(axis=0))
    assert np.abs(naive - wanted).max() > 1e-4 * np.abs(wanted).max()


def test_blocks_of_any_shape_and_no_spectra_at_all_are_taken():
    x = spectra(600)
    close(pca.Moments(40).add(x.reshape(20, 30, 40)), moments(x))
    close(moments(x[:0], x, x[:0]), moments(x))
    assert pca.Moments(40).merge(pca.Moments(40)).number == 0


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: pca.Moments(40).add(spectra(10, 41)), r"shape \(10, 41\) were added to moments of 40 channels"),
        (lambda: pca.Moments(40).add(np.where(np.arange(40) == 7, np.nan, spectra(10))), "missing channels"),
        (
            lambda: pca.Moments(40).merge(moments(spectra(10, 41))),
            "Moments of 41 channels were merged into moments of 40",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(act, sentence):
    with pytest.raises(InputError, match=sentence):
        act()


def test_a_block_that_is_refused_leaves_the_moments_as_they_were():
    found = moments(spectra(100))
    bad = spectra(50)
    bad[3, 3] = np.nan
    with pytest.raises(InputError, match="missing channels"):
        found.add(bad)
    close(found, moments(spectra(100)), 0)


def test_components_are_those_of_double_precision():
    x = spectra(20_000, 60)
    mean, values, vectors = pca.fit(x, 8)
    wide = x.astype(float)
    w, v = np.linalg.eigh(np.cov(wide.T, bias=True))
    np.testing.assert_allclose(mean, wide.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(values, w[::-1][:8], rtol=1e-5)
    assert vectors.shape == (60, 8)
    lead = v[:, ::-1][:, :8]
    assert np.linalg.norm(vectors - lead @ (lead.T @ vectors), 2) < 1e-4


# Components that leave gases visible ----------------------------------------------------------------------------------


def covariance(channels: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A covariance of unit noise, four directions and two signatures that vary along with one of them."""
    random = np.random.default_rng(seed)
    signatures = random.standard_normal((channels, 2))
    shapes = random.standard_normal((channels, 4)) * 3
    shapes[:, 0] += 2 * signatures[:, 0]
    both = np.column_stack([shapes, 0.8 * signatures])
    return both @ both.T + np.eye(channels), signatures


def test_no_component_has_anything_of_a_protected_signature():
    c, signatures = covariance()
    found = pca.components(c, signatures)
    assert found.vectors.shape == found.shapes.shape == (30, 28)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(28), atol=1e-10)
    np.testing.assert_allclose(found.vectors.T @ signatures, 0, atol=1e-10)
    np.testing.assert_allclose(found.vectors.T @ c @ found.vectors, np.diag(found.values), atol=1e-8)
    assert (np.diff(found.values) <= 1e-9).all()


def test_what_scores_predict_is_gone_from_the_residual():
    c, signatures = covariance()
    found = pca.components(c, signatures)
    e, f = found.vectors[:, :4], found.shapes[:, :4]
    rest = (np.eye(30) - f @ e.T) @ c @ e
    np.testing.assert_allclose(rest, 0, atol=1e-8)
    np.testing.assert_allclose((np.eye(30) - f @ e.T) @ signatures, signatures, atol=1e-10)


def test_a_varying_thing_that_looks_partly_like_the_gas_is_found_whole():
    random = np.random.default_rng(4)
    gas, water = random.standard_normal((2, 25))
    water += gas
    found = pca.components(9 * np.outer(water, water) + 1e-9 * np.eye(25), gas[:, None])
    shape = found.shapes[:, 0]
    assert abs(shape @ water) / np.linalg.norm(shape) / np.linalg.norm(water) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("number", [0, 2, 5, 20, 28])
def test_the_best_test_on_the_residual_is_the_matched_filter_for_any_number(number):
    c, signatures = covariance()
    found = pca.components(c, signatures)
    e, f = found.vectors[:, :number], found.shapes[:, :number]
    take = np.eye(30) - f @ e.T
    residual = take @ c @ take.T
    # What is left varies in the space across the components only.
    weights = take.T @ np.linalg.pinv(residual, hermitian=True, rcond=1e-10) @ signatures[:, 0]
    matched = np.linalg.solve(c, signatures[:, 0])
    np.testing.assert_allclose(weights, matched, atol=1e-9 * np.abs(matched).max() + 1e-10)


def test_without_protected_signatures_components_are_eigenvectors():
    c, _ = covariance()
    found = pca.components(c)
    np.testing.assert_allclose(found.vectors @ np.diag(found.values) @ found.vectors.T, c, atol=1e-9)
    assert found.shapes is found.vectors
    np.testing.assert_array_equal(pca.components(c, np.empty((30, 0))).values, found.values)


def test_signatures_that_cannot_be_told_apart_are_refused():
    c, signatures = covariance()
    with pytest.raises(ParameterError, match="depend on each other"):
        pca.components(c, np.column_stack([signatures, signatures.sum(axis=1)]))
    with pytest.raises(ParameterError, match="outside the band"):
        pca.components(c, np.column_stack([signatures, np.zeros(30)]))


# How many ---------------------------------------------------------------------------------------------------------------


def test_above_the_noise_edge_is_what_is_more_than_noise():
    random = np.random.default_rng(5)
    noise = random.standard_normal((4000, 100)) * 3
    values = np.linalg.eigvalsh(np.cov(noise.T, bias=True))[::-1]
    assert pca.noise_edge(values, 4000, 9.0) <= 1
    assert pca.noise_edge(values, 4000, 9.0 / 1.2) > 5  # noise that is told too low looks like signal
    noise[:, :3] += 10 * random.standard_normal((4000, 3))
    values = np.linalg.eigvalsh(np.cov(noise.T, bias=True))[::-1]
    assert pca.noise_edge(values, 4000, 9.0) in (3, 4)


def test_likeness_is_the_correlation_of_neighbours_whatever_their_order():
    random = np.random.default_rng(6)
    line, row = np.meshgrid(np.arange(30) + 7, np.arange(20) + 2, indexing="ij")
    smooth = np.sin(line / 5) + np.cos(row / 4)
    maps = np.stack([smooth, random.standard_normal(line.shape)], axis=-1)
    keep = random.permutation(line.size)[:500]
    scores, line, row = maps.reshape(-1, 2)[keep], line.ravel()[keep], row.ravel()[keep]
    found = pca.coherence(scores, line, row)
    near = np.abs(line[:, None] - line) + np.abs(row[:, None] - row) == 1
    i, j = np.nonzero(np.triu(near))
    away = scores - scores.mean(axis=0)
    np.testing.assert_allclose(found, (away[i] * away[j]).mean(axis=0) / away.var(axis=0), rtol=1e-10)
    assert found[0] > 0.9
    assert abs(found[1]) < 0.15


def test_the_end_of_a_line_is_no_neighbour_of_the_next_ones_start():
    with pytest.raises(InputError, match="No two of the spectra are neighbours"):
        pca.coherence(np.arange(2.0)[:, None], np.array([0, 1]), np.array([9, 0]))
    with pytest.raises(InputError, match="No two of the spectra are neighbours"):
        pca.coherence(np.empty((0, 3)), np.empty(0, int), np.empty(0, int))


def test_components_are_kept_up_to_the_last_coherent_one():
    assert pca.coherent([0.9, 0.1, 0.5, 0.2, 0.0]) == 3
    assert pca.coherent([0.9, 0.1, 0.5, 0.2, 0.0], least=0.6) == 1
    assert pca.coherent([0.1, 0.1]) == 0
