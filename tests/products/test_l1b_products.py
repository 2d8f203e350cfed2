"""Spectra are written in the layout of level 1B, all of them or none, and are read again to the bit."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest
from spectra_files import granule, irradiance, written

from phidias_lab.errors import ProductError
from phidias_lab.methods.formats import l1b
from phidias_lab.products.l1b import write
from phidias_lab.sources import l1b as source


def same(read: l1b.Granule, content: l1b.Granule) -> None:
    assert type(read) is type(content)
    assert read.band == content.band
    assert read.arrays.keys() == content.arrays.keys()
    for name, array in content.arrays.items():
        found = np.asarray(read[name])
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        assert found.tobytes() == array.tobytes(), name
    assert {k: str(v) for k, v in read.attributes.items()} == {k: str(v) for k, v in content.attributes.items()}


@pytest.mark.parametrize("encoding", ["float", "integer"])
@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((12, 5, 16), {}),
        ((1, 1, 4), {}),
        ((7, 3, 11), {"level": 0}),
        ((7, 3, 11), {"level": 9, "lines": 3}),
        ((5, 2, 4), {"lines": 100}),
    ],
)
def test_what_was_written_is_read_to_the_bit(tmp_path, encoding, shape, how):
    content, _ = granule(*shape, encoding=encoding)
    same(source.granule(written(tmp_path, content, **how)), content)


def test_blocks_that_are_written_one_after_the_other_make_the_same_file(tmp_path, monkeypatch):
    from phidias_lab.products import l1b as product

    content, _ = granule(13)
    monkeypatch.setattr(product, "_BLOCK", 3000)
    same(source.granule(written(tmp_path, content, lines=2)), content)


def test_a_file_of_irradiances_holds_several_bands(tmp_path):
    bands = [irradiance(band=7), irradiance(band=8, factor=2.0)]
    write(bands, tmp_path / "sun.nc")
    for content in bands:
        same(source.granule(tmp_path / "sun.nc", content.band), content)


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_groups_types_and_chunks_are_those_of_real_files(tmp_path, encoding):
    content, _ = granule(encoding=encoding)
    with netCDF4.Dataset(written(tmp_path, content)) as data:
        assert data.data_model == "NETCDF4"
        assert (data.orbit, data.synthetic) == (24394, "true")
        group = data["BAND7_RADIANCE/STANDARD_MODE"]
        assert set(group.groups) == {"OBSERVATIONS", "GEODATA", "INSTRUMENT"}
        seen = group["OBSERVATIONS"]
        assert {n: len(d) for n, d in seen.dimensions.items()} == {
            "time": 1, "scanline": 12, "ground_pixel": 5, "spectral_channel": 16
        }  # fmt: skip
        name, kind, fill = {"float": ("radiance", "f4", l1b.FILL), "integer": ("radiance_int16", "u2", 65535)}[encoding]
        radiance = seen[name]
        assert radiance.dimensions == ("time", "scanline", "ground_pixel", "spectral_channel")
        assert (radiance.dtype, radiance._FillValue) == (np.dtype(kind), fill)
        assert radiance.chunking() == [1, 1, 5, 16]
        assert (radiance.filters()["zlib"], radiance.filters()["shuffle"], radiance.filters()["complevel"]) == (
            True,
            True,
            3,
        )
        assert seen["time"].units == "seconds since 2010-01-01 00:00:00"
        assert seen["radiance_noise"].dtype == np.int8
        assert seen["spectral_channel_quality"].flag_masks.tolist() == [1, 2, 4, 8, 16, 32, 64, 128]
        assert group["GEODATA/latitude"].units == "degrees_north"
        assert group["GEODATA/latitude_bounds"].dimensions[-1] == "ncorner"
        assert group["INSTRUMENT/nominal_wavelength"].dimensions == ("time", "ground_pixel", "spectral_channel")
        assert group["INSTRUMENT/instrument_settings"].dtype.names == ("master_cycle_period_us", "int_delay")
        assert group["INSTRUMENT/instrument_settings"][0, 0]["master_cycle_period_us"] == 1_080_000


def test_the_level_of_deflate_and_the_scanlines_of_a_chunk_are_as_asked(tmp_path):
    content, _ = granule()
    for level, lines in [(0, 1), (9, 4)]:
        with netCDF4.Dataset(written(tmp_path, content, level=level, lines=lines)) as data:
            radiance = data["BAND7_RADIANCE/STANDARD_MODE/OBSERVATIONS/radiance"]
            assert radiance.chunking() == [1, lines, 5, 16]
            assert (radiance.filters()["zlib"], radiance.filters()["complevel"]) == (level > 0, level)


def test_what_does_not_fit_is_refused_and_a_file_that_was_there_stays(tmp_path):
    content, _ = granule()
    path = tmp_path / "kept.nc"
    path.write_bytes(b"kept")
    for name, array, said in [
        ("radiance", content["radiance"].astype("f8"), "radiance is of type float64, and is stored as float32"),
        ("latitude", content["latitude"][:, :3], "latitude is 3 long in scanline"),
    ]:
        with pytest.raises(ProductError, match=said) as caught:
            write(l1b.Granule(7, {**content.arrays, name: array}), path)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == b"kept"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.nc"]


def test_who_reads_a_file_that_is_written_anew_reads_the_old_one_to_its_end(tmp_path):
    path = written(tmp_path, granule()[0])
    old = path.read_bytes()
    with open(path, "rb") as reading:
        start = reading.read(1000)
        assert written(tmp_path, granule(seed=1)[0]) == path
        assert start + reading.read() == old
    assert path.read_bytes() != old


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    content, _ = granule()
    with pytest.raises(ProductError, match=r"nowhere.*cannot be written: .*Choose another place\."):
        write(content, tmp_path / "nowhere" / "file.nc")


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_selected_spectra_are_a_file_like_any_other_and_keep_every_bit(tmp_path, encoding):
    content, meant = granule(40, 20, 50, encoding=encoding)
    path = written(tmp_path, content)
    pixels = np.zeros((40, 20), bool)
    pixels[[7, 7, 30], [2, 19, 5]] = True
    chosen = l1b.select(source.granule(path), pixels)
    name = "radiance" if encoding == "float" else "radiance_int16"
    assert not isinstance(chosen[name], np.ndarray), "what is lazy stays so"
    folder = tmp_path / "selected"
    folder.mkdir()
    small = written(folder, chosen)
    assert small.stat().st_size < 0.5 * path.stat().st_size
    back = source.granule(small)
    for key in ("radiance_noise", "radiance_error", "quality_level", "spectral_channel_quality", name):
        np.testing.assert_array_equal(np.asarray(back[key])[0][pixels[[7, 30]]], content[key][0][pixels], key)
    cube = source.open_spectra(small).compute()
    assert cube["scanline_number"].values.tolist() == [7, 30]
    np.testing.assert_array_equal(cube["radiance"].values[pixels[[7, 30]]], meant[pixels])
    assert np.isnan(cube["radiance"].values[~pixels[[7, 30]]]).all()
    np.testing.assert_array_equal(cube["selected"].values.astype(bool), pixels[[7, 30]])
    np.testing.assert_array_equal(cube["latitude"].values, content["latitude"][0, [7, 30]])
    np.testing.assert_array_equal(cube["wavelength"].values[0], content["nominal_wavelength"][0])
    # Selected once more, the scanlines keep their numbers in the orbit.
    again = l1b.select(back, pixels[[7, 30]] & np.array([[False], [True]]))
    assert again["scanline"].tolist() == [30]


def test_a_fill_value_of_a_file_is_kept_through_a_selection(tmp_path):
    content, _ = granule()
    path = written(tmp_path, l1b.Granule(7, content.arrays, content.attributes, {"radiance": np.float32(-999)}))
    found = source.granule(path)
    assert found.fill("radiance") == -999
    pixels = np.zeros((12, 5), bool)
    pixels[4, 1] = True
    chosen = l1b.select(found, pixels)
    assert (np.asarray(chosen["radiance"])[0, 0, 0] == -999).all()
    write(chosen, tmp_path / "selected.nc")
    assert np.isnan(source.open_spectra(tmp_path / "selected.nc")["radiance"].values[0, 0]).all()


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_from_the_selected_pixels_alone_the_same_file_is_made_but_for_their_neighbours(tmp_path, encoding):
    content, _ = granule(40, 20, 50, encoding=encoding)
    pixels = np.zeros((40, 20), bool)
    pixels[[30, 7, 7, 9], [5, 2, 19, 0]] = True
    chosen = l1b.select(content, pixels)
    line, row = (part[[2, 0, 3, 1]] for part in np.nonzero(pixels))  # in any order
    along = {n: a[0][line, row] if "ground_pixel" in l1b.RADIANCE[n].dims else a[0][line] for n, a in content.arrays.items()
             if l1b.RADIANCE[n].dims[:2] == ("time", "scanline") and n != "instrument_configuration"}  # fmt: skip
    whole = {n: content[n] for n in ("time", "nominal_wavelength", "earth_sun_distance")}
    made = l1b.of_pixels(7, along, line, row, whole, content.attributes, {})
    assert np.asarray(made["radiance_noise"]).shape == (1, 3, 20, 50)
    back = source.granule(written(tmp_path, made))
    missing = {"instrument_configuration", "instrument_settings"}
    assert chosen.arrays.keys() - back.arrays.keys() == missing
    for name in back.arrays.keys() - missing:
        found, wanted = np.asarray(back[name]), np.asarray(chosen[name])
        if (
            l1b.RADIANCE[name].dims[1:3] == ("scanline", "ground_pixel")
            and not l1b.RADIANCE[name].spectral
            and name != "selected"
        ):
            found, wanted = found[0][pixels[[7, 9, 30]]], wanted[0][pixels[[7, 9, 30]]]
        assert (found.dtype, found.tobytes()) == (wanted.dtype, wanted.tobytes()), name
    assert np.isnan(source.open_spectra(written(tmp_path, made))["latitude"].values[~pixels[[7, 9, 30]]]).all()
