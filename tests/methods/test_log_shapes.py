"""Spectra less what their channels share."""

from __future__ import annotations

import numpy as np

from phidias_lab.methods import log_shapes


def test_a_log_shape_has_no_mean_and_does_not_know_the_albedo():
    random = np.random.default_rng(25)
    spectra = random.uniform(0.1, 1, (6, 3, 20)).astype(np.float32)
    found = log_shapes.log_shape(spectra)
    wanted = np.log(spectra.astype(float))
    np.testing.assert_allclose(found, wanted - wanted.mean(axis=-1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(log_shapes.log_shape(spectra * np.float32(7)), found, atol=1e-6)


def test_a_log_shape_is_missing_where_there_is_no_logarithm():
    spectra = np.full((4, 6), 2.0, np.float32)
    spectra[0, 2], spectra[1, 3], spectra[2, 4] = np.nan, 0, -1
    spectra[3] = -1
    spectra[0, 0] = 4
    found = log_shapes.log_shape(spectra)
    assert np.isnan(found[[0, 1, 2], [2, 3, 4]]).all()
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(np.nansum(found[:3], axis=1), 0, atol=1e-6)
    assert np.isfinite(found[:3]).sum() == 15
    np.testing.assert_allclose(found[1, :3], 0, atol=1e-7)


def test_references_stand_for_rows_for_single_spectra_or_for_all():
    random = np.random.default_rng(26)
    spectra = random.uniform(0.1, 1, (6, 3, 20)).astype(np.float32)
    sun = random.normal(size=(3, 20)).astype(np.float32)
    wanted = np.log(spectra.astype(float)) - sun
    wanted -= wanted.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(log_shapes.log_shape(spectra, sun), wanted, atol=1e-6)
    np.testing.assert_allclose(log_shapes.log_shape(spectra[:, 1], sun[1]), wanted[:, 1], atol=1e-6)
    row = np.array([0, 2, 1, 1, 0, 2])
    np.testing.assert_allclose(
        log_shapes.log_shape(spectra[np.arange(6), row], sun[row]), wanted[np.arange(6), row], atol=1e-6
    )


def test_a_distance_is_scaled_and_what_is_missing_stays_missing():
    random = np.random.default_rng(27)
    y = random.normal(size=(4, 3, 20)).astype(np.float32)
    y[1, 2, 7] = np.nan
    middle, about, factor = random.normal(size=(3, 20)), random.normal(size=20), random.uniform(0.5, 2, (4, 3))
    wanted = (y - middle) * factor[..., None] + about
    log_shapes.scaled(y, middle, factor, about)
    np.testing.assert_allclose(y, wanted, atol=1e-6)


def test_brightness_is_that_of_the_channels_that_are_there():
    spectra = np.full((3, 17), 5.0, np.float32)
    spectra[0, [0, 16]], spectra[1, 8], spectra[2] = 8.0, np.nan, np.nan
    np.testing.assert_allclose(log_shapes.brightness(spectra), np.log([7, 5, np.nan]), rtol=1e-6)
    assert log_shapes.brightness(spectra[:0]).shape == (0,)
