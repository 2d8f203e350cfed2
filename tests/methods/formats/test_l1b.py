"""Names, flags, times and numbers of level 1B files of Sentinel-5P."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from spectra_files import granule

from phidias_lab.methods.formats import l1b
from phidias_lab.methods.formats.observations import NotReadable

RADIANCE = "S5P_OFFL_L1B_RA_BD7_20220628T185806_20220628T203935_24394_02_020000_20220628T222834.nc"
IRRADIANCE = "S5P_RPRO_L1B_IR_SIR_20220627T101500_20220627T115630_00412_03_020100_20230401T102030.nc"


def test_a_name_is_taken_apart_and_put_together():
    name = l1b.parse_name(RADIANCE)
    assert (name.stream, name.product, name.bands, name.orbit) == ("OFFL", "RA_BD7", (7,), 24394)
    assert (name.collection, name.processor) == (2, "020000")
    assert name.start == np.datetime64("2022-06-28T18:58:06")
    assert name.stop == np.datetime64("2022-06-28T20:39:35")
    assert name.created == np.datetime64("2022-06-28T22:28:34")
    assert str(name) == RADIANCE
    sun = l1b.parse_name(IRRADIANCE)
    assert (sun.bands, sun.orbit, str(sun)) == ((7, 8), 412, IRRADIANCE)
    assert l1b.parse_name(IRRADIANCE.replace("IR_SIR", "IR_UVN")).bands == (1, 2, 3, 4, 5, 6)
    for stream in l1b.STREAMS:
        for band in l1b.BANDS:
            text = RADIANCE.replace("OFFL", stream).replace("BD7", f"BD{band}")
            assert (str(l1b.parse_name(text)), l1b.parse_name(text).bands) == (text, (band,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "not that of a Sentinel-5P"),
        (RADIANCE.replace("BD7", "BD9"), "not that of a Sentinel-5P"),
        (RADIANCE.replace("OFFL", "NEAR"), "not that of a Sentinel-5P"),
        (RADIANCE.replace("L1B_RA_BD7", "L2__CO____"), "not that of a Sentinel-5P"),
        (RADIANCE + ".part", "not that of a Sentinel-5P"),
        (RADIANCE.replace("20220628T203935", "20220631T203935"), "a date that does not exist"),
        (RADIANCE.replace("20220628T203935", "20220628T253935"), "a date that does not exist"),
    ],
)
def test_another_name_is_refused_in_a_sentence(given, said):
    with pytest.raises(NotReadable, match=said) as caught:
        l1b.parse_name(given)
    assert str(caught.value).endswith(".")


def test_channels_that_are_undefined_or_underflow_are_used_and_all_others_with_a_flag_are_not():
    bits = l1b.CHANNEL_QUALITY.bits
    assert {word for word, bit in bits.items() if not bit & l1b.BAD_CHANNEL} == {"undefined", "underflow"}
    assert sum(bits.values()) == 255


def test_flags_have_their_meanings_in_the_words_of_cf():
    said = l1b.RADIANCE["ground_pixel_quality"].attributes("ground_pixel_quality")
    assert said["flag_masks"].tolist() == [1, 2, 4, 8, 16, 32]
    assert said["flag_masks"].dtype == np.uint8
    assert said["flag_meanings"].split()[:4] == ["solar_eclipse", "sun_glint_possible", "descending", "night"]
    said = l1b.RADIANCE["spectral_channel_quality"].attributes("spectral_channel_quality")
    assert said["flag_masks"].tolist() == [1, 2, 4, 8, 16, 32, 64, 128]
    assert len(said["flag_meanings"].split()) == 8


def test_a_scanline_has_the_time_of_its_day_and_its_milliseconds():
    day = (datetime(2022, 6, 28) - datetime(2010, 1, 1)) // timedelta(seconds=1)
    found = l1b.times(np.array([day], "i4"), np.array([[68286123, 68286963]], "i4"))
    assert found.astype("M8[ms]").tolist() == [
        datetime(2022, 6, 28, 18, 58, 6, 123000),
        datetime(2022, 6, 28, 18, 58, 6, 963000),
    ]
    seconds, milliseconds = l1b.encode_times(found)
    assert (seconds.tolist(), milliseconds.tolist()) == ([day], [[68286123, 68286963]])
    assert (seconds.dtype, milliseconds.dtype) == (np.int32, np.int32)


def test_an_orbit_over_midnight_keeps_the_order_of_its_scanlines():
    moments = np.datetime64("2022-06-28T23:59:59.500", "ns") + np.arange(3) * np.timedelta64(840, "ms")
    np.testing.assert_array_equal(l1b.times(*l1b.encode_times(moments)), moments)


def test_integers_keep_a_radiance_to_half_a_step_of_its_spectrum():
    radiance = np.random.default_rng(0).lognormal(-15, 1, (3, 4, 50)).astype("f4")
    radiance[0, 0, 7], radiance[0, 0, 8] = np.nan, -1e-9
    radiance[2, 3] = np.nan
    counts, scaling = l1b.encode_int16(radiance)
    back = l1b.decode_int16(counts, scaling)
    assert (counts.dtype, scaling.dtype, back.dtype) == (np.uint16, np.float32, np.float32)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(radiance))
    assert back[0, 0, 8] == 0
    known = np.isfinite(radiance) & (radiance > 0)
    assert (np.abs(back - radiance)[known] <= (0.501 * scaling[..., None] * np.ones(50))[known]).all()
    assert (counts[0, 1].max(), counts[0, 0, 7]) == (65534, 65535)


def test_the_values_decide_of_what_the_decibels_are():
    ratio = np.random.default_rng(1).normal(20, 4, 2000).round()
    assert l1b.decibel_sense(ratio) == 1
    assert l1b.decibel_sense(-ratio) == -1
    # A fifth of them wild changes nothing.
    ratio[::5] = -100
    assert l1b.decibel_sense(ratio) == 1
    assert l1b.decibel_sense(-ratio) == -1


@pytest.mark.parametrize("values", [[], [0.0] * 9, [45.0] * 9, [-45.0] * 9])
def test_decibels_that_do_not_tell_are_not_guessed(values):
    assert l1b.decibel_sense(np.array(values)) == 0


def test_noise_is_that_of_qdoas_in_one_sense_and_that_of_harp_in_the_other():
    radiance = np.array([1e-7, -2e-7, 3e-7, np.nan, 4e-7], "f4")
    decibel = np.array([20, 13, -127, 20, -4], "i1")
    for sense in (1, -1):
        found = l1b.decode_noise(radiance, decibel, sense)
        assert found.dtype == np.float32
        for r, v, sigma in zip(radiance.tolist(), decibel.tolist(), found.tolist(), strict=True):
            expected = abs(r / 10 ** (v / 10)) if sense > 0 else abs(10 ** (v / 10) * r)
            if v == -127 or math.isnan(r):
                assert math.isnan(sigma)
            else:
                assert sigma == pytest.approx(expected, rel=1e-6)
    assert np.isnan(l1b.decode_noise(radiance, decibel, 0)).all()


def test_noise_comes_back_to_half_a_decibel():
    random = np.random.default_rng(2)
    radiance = random.lognormal(-15, 1, 500)
    noise = radiance / random.uniform(2, 900, 500)
    for sense in (1, -1):
        back = l1b.decode_noise(radiance, l1b.encode_noise(radiance, noise, sense), sense)
        np.testing.assert_allclose(back / noise, 1, atol=10**0.0501 - 1)
    assert l1b.encode_noise(np.array([np.nan, 1.0]), np.array([1.0, 0.0]), 1).tolist() == [-127, -127]


def test_arrays_that_do_not_fit_together_are_refused():
    content, _ = granule()
    assert content.sizes()["scanline"] == 12
    for name, array, said in [
        ("latitude", content["latitude"][:, :4], "latitude is 4 long in scanline, other variables are 12"),
        ("latitude", content["latitude"][0], "latitude has 2 dimensions, not 3"),
        ("altitude", content["latitude"], "'altitude' is no variable"),
    ]:
        other = l1b.Granule(7, {**content.arrays, name: array})
        with pytest.raises(NotReadable, match=said):
            other.sizes()


def test_a_selection_holds_the_scanlines_of_the_pixels_and_their_spectra_alone():
    content, _ = granule()
    pixels = np.zeros((12, 5), bool)
    pixels[[3, 3, 9], [0, 4, 2]] = True
    kept = l1b.select(content, pixels)
    assert kept["scanline"].tolist() == [3, 9]
    assert kept["selected"][0].tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]
    for name, array in kept.arrays.items():
        if name == "selected":
            continue
        stored, original = l1b.RADIANCE[name], content[name]
        if stored.spectral:
            np.testing.assert_array_equal(array[0][pixels[[3, 9]]], original[0][pixels])
            filled = {"radiance": np.float32(l1b.FILL), "quality_level": 255, "spectral_channel_quality": 1}.get(
                name, -127
            )
            assert (array[0][~pixels[[3, 9]]] == filled).all(), name
        elif "scanline" in stored.dims:
            axis = stored.dims.index("scanline")
            np.testing.assert_array_equal(array, original.take([3, 9], axis))
        else:
            assert array is original
        assert array.dtype == original.dtype
    with pytest.raises(ValueError, match="12 scanlines of 5 pixels"):
        l1b.select(content, pixels[:5])
