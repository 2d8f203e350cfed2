"""Level 1B spectra: what a file means is read, lazily and block by block; what is damaged is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import dask
import h5py
import netCDF4
import numpy as np
import pytest
from spectra_files import FIRST, granule, irradiance, name, sun, wavelengths, written

from phidias_lab.errors import InputError
from phidias_lab.methods.formats import l1b
from phidias_lab.methods.formats.observations import NotReadable
from phidias_lab.products.l1b import write
from phidias_lab.sources import l1b as source
from phidias_lab.sources import netcdf

SEEN = "BAND7_RADIANCE/STANDARD_MODE/OBSERVATIONS"
HOUR = np.timedelta64(3600, "s")


def spans(path: Path, *names: str) -> list[tuple[int, int]]:
    """(offset, size) of every chunk of these variables."""
    file = source.index(path)
    found = []
    for key in names:
        found += zip(
            file.variables[key].offsets.ravel().tolist(), file.variables[key].sizes.ravel().tolist(), strict=True
        )
    return found


def overwrite(path: Path, places: list[tuple[int, int]]) -> None:
    with open(path, "r+b") as file:
        for offset, size in places:
            file.seek(offset)
            file.write(b"\xa5" * size)


# What a file means.


@pytest.mark.parametrize("encoding", ["float", "integer"])
@pytest.mark.parametrize("sense", [1, -1])
def test_a_cube_is_what_the_file_means(tmp_path, encoding, sense):
    content, meant = granule(encoding=encoding, sense=sense)
    cube = source.open_spectra(written(tmp_path, content))
    sizes = {"scanline": 12, "ground_pixel": 5, "spectral_channel": 16, "granule": 1, "corner": 4}
    assert dict(cube.sizes) == sizes | {
        "nsettings": 1,
        "instrument_settings_byte": 6,
        "instrument_configuration_byte": 6,
    }
    loaded = cube.compute()
    assert loaded["radiance"].dtype == np.float32
    np.testing.assert_array_equal(loaded["radiance"], meant)
    np.testing.assert_allclose(loaded["radiance_noise"], meant / 100, rtol=1e-6)
    assert loaded["radiance"].attrs["units"] == "mol m-2 s-1 nm-1 sr-1"
    for key in (
        "latitude",
        "longitude",
        "solar_zenith_angle",
        "viewing_zenith_angle",
        "latitude_bounds",
        "longitude_bounds",
    ):
        np.testing.assert_array_equal(loaded[key], content[key][0])
        assert loaded[key].dtype == np.float32
    for key in ("ground_pixel_quality", "spectral_channel_quality", "measurement_quality"):
        np.testing.assert_array_equal(loaded[key], content[key][0])
    assert loaded["ground_pixel_quality"].attrs["flag_meanings"].split()[3] == "night"
    named = {key: array.attrs["standard_name"] for key, array in cube.items() if "standard_name" in array.attrs}
    assert named == {
        "latitude": "latitude",
        "longitude": "longitude",
        "solar_zenith_angle": "solar_zenith_angle",
        "solar_azimuth_angle": "solar_azimuth_angle",
        "viewing_zenith_angle": "sensor_zenith_angle",
        "viewing_azimuth_angle": "sensor_azimuth_angle",
        "time": "time",
        "wavelength": "radiation_wavelength",
    }
    np.testing.assert_array_equal(loaded["time"], FIRST + np.arange(12) * np.timedelta64(840, "ms"))
    np.testing.assert_array_equal(loaded["wavelength"], content["nominal_wavelength"])
    assert loaded["earth_sun_distance"].values == np.float32(1.0165)
    assert (loaded["granule"].values == 0).all()
    assert (loaded["orbit"].item(), loaded["granule_name"].item()) == (24394, name())
    assert (cube.attrs["instrument"], cube.attrs["band"], cube.attrs["synthetic"]) == ("TROPOMI", 7, "true")
    assert "irradiance" not in cube


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_a_cube_has_what_the_file_stores_too_and_reads_no_more_of_it_than_is_asked_for(tmp_path, monkeypatch, encoding):
    content, _ = granule(200, encoding=encoding)
    cube = source.open_spectra(written(tmp_path, content))
    held = {"radiance_noise": "radiance_noise_stored", "radiance_error": "radiance_error_stored"}
    held["radiance" if encoding == "float" else "radiance_int16"] = "radiance_stored"
    held |= {n: n for n in ("quality_level", "delta_time", "satellite_latitude", "satellite_altitude")}
    held |= {"radiance_scaling": "radiance_scaling"} if encoding == "integer" else {}
    for key, called in held.items():
        found = cube[called].values
        assert (found.dtype, found.tobytes()) == (content[key].dtype, content[key][0].tobytes()), key
    for key in ("instrument_configuration", "instrument_settings"):
        assert cube[key].values.tobytes() == content[key].tobytes()
        assert cube[key].attrs["stored_dtype"] == json.dumps(content[key].dtype.descr)
    assert cube["instrument_configuration"][:0].compute().shape == (0, 6)
    assert cube["radiance_stored"].attrs["stored_fill"] == content.fill(
        "radiance" if encoding == "float" else "radiance_int16"
    )
    assert json.loads(str(cube["granule_attributes"].values[0]))["processor_version"] == "02.00.00"
    asked = []
    stored = source.stored
    monkeypatch.setattr(source, "stored", lambda file, *what: asked.append(what) or stored(file, *what))
    cube[["quality_level"]].isel(scanline=slice(70, 73)).compute()
    assert asked == [("quality_level", 70, 73)]


def test_files_that_store_radiances_in_two_ways_are_one_cube_without_what_they_store(tmp_path):
    one, later = FIRST, FIRST + HOUR
    paths = [written(tmp_path, granule(3, encoding=e, start=t)[0], t) for e, t in [("float", one), ("integer", later)]]
    cube = source.open_spectra(paths)
    assert "radiance_stored" not in cube
    assert "radiance_scaling" not in cube
    assert cube["quality_level"].shape == cube["radiance"].shape == (6, 5, 16)


@pytest.mark.parametrize("bit", range(8))
def test_each_flag_of_a_channel_takes_it_out_or_does_not(tmp_path, bit):
    content, _ = granule(3, 2, 4)
    content["spectral_channel_quality"][...] = 0
    content["spectral_channel_quality"][0, 1, 1, 2] = 1 << bit
    content["radiance"][...] = 1e-7
    found = source.read(written(tmp_path, content), ("radiance",))["radiance"]
    assert np.isnan(found[1, 1, 2]) == ((1 << bit) not in (8, 128))
    found[1, 1, 2] = 1e-7
    assert (found == np.float32(1e-7)).all()


@pytest.mark.parametrize(
    ("band", "shape"),
    [
        (1, (4, 77, 9)),
        (2, (3, 8, 7)),
        (3, (2, 2, 4)),
        (4, (5, 1, 5)),
        (5, (1, 3, 6)),
        (6, (130, 4, 5)),
        (8, (9, 7, 48)),
    ],
)
def test_every_band_and_any_size_is_read(tmp_path, band, shape):
    content, meant = granule(*shape, band=band)
    detector = "SIR" if band > 6 else "UVN"
    write(irradiance(shape[1], band=band), tmp_path / name(f"IR_{detector}", 24390, FIRST - HOUR))
    write(
        irradiance(shape[1], band=band, factor=3.0),
        tmp_path / name(f"IR_{'UVN' if band > 6 else 'SIR'}", 24390, FIRST - HOUR),
    )
    cube = source.open_spectra(written(tmp_path, content))
    np.testing.assert_array_equal(cube["radiance"], meant)
    assert cube.attrs["band"] == band
    close = np.abs(cube["irradiance"].values / sun(cube["wavelength"].values) - 1)
    assert np.nanmedian(close) < 1e-3


def test_files_follow_each_other_in_time_and_blocks_never_hold_two(tmp_path):
    expected, paths = [], []
    for number, scanlines in enumerate((150, 3, 70)):
        start = FIRST + number * HOUR
        content, meant = granule(
            scanlines, 3, 4, orbit=24394 + number, start=start, seed=number, encoding=["float", "integer"][number % 2]
        )
        content["nominal_wavelength"][...] += np.float32(number)
        paths.append(written(tmp_path, content, start))
        expected.append(meant)
    cube = source.open_spectra([paths[2], paths[0], paths[1]])
    np.testing.assert_array_equal(cube["radiance"], np.concatenate(expected))
    assert cube["orbit"].values.tolist() == [24394, 24395, 24396]
    assert [str(n) for n in cube["granule_name"].values] == [p.name for p in paths]
    assert np.bincount(cube["granule"]).tolist() == [150, 3, 70]
    assert cube["radiance"].chunks[0] == (64, 64, 22, 3, 64, 6)
    assert cube["radiance"].chunks[1:] == ((3,), (4,))
    assert (np.diff(cube["time"].values) > np.timedelta64(0)).all()
    assert cube["scanline_number"].values.tolist() == [*range(150), *range(3), *range(70)]
    np.testing.assert_array_equal(
        cube["wavelength"].values - wavelengths(3, 4), np.array([0, 1, 2])[:, None, None] * np.ones((3, 4), "f4")
    )
    # A part of a cube is that part, however it is cut.
    part = cube.isel(scanline=slice(149, 155, 2), ground_pixel=1, spectral_channel=[3, 0])
    np.testing.assert_array_equal(part["radiance"], np.concatenate(expected)[149:155:2, 1][:, [3, 0]])
    np.testing.assert_array_equal(cube["radiance"][152].values, np.concatenate(expected)[152])


def test_a_cube_travels_to_other_processes(tmp_path):
    content, meant = granule()
    cube = pickle.loads(pickle.dumps(source.open_spectra(written(tmp_path, content))))  # noqa: S301
    np.testing.assert_array_equal(cube["radiance"].compute(), meant)


def test_files_without_optional_variables_are_read(tmp_path):
    content, _ = granule()
    for key in (
        "radiance_noise",
        "spectral_channel_quality",
        "ground_pixel_quality",
        "measurement_quality",
        "scanline",
        "earth_sun_distance",
    ):
        del content.arrays[key]
    cube = source.open_spectra(written(tmp_path, content))
    assert not {"radiance_noise", "spectral_channel_quality", "ground_pixel_quality"} & set(cube)
    np.testing.assert_array_equal(np.isnan(cube["radiance"]), content["radiance"][0] == np.float32(l1b.FILL))
    assert np.isnan(cube["earth_sun_distance"]).all()
    assert cube["scanline_number"].values.tolist() == list(range(12))
    with pytest.raises(InputError, match="cannot be read: it has no radiance_noise"):
        source.read(source.index(tmp_path / name()), ("radiance_noise",))


def test_decibels_are_judged_by_sunlit_spectra_and_not_guessed_at_night(tmp_path):
    content, meant = granule(sense=-1)
    # At night signals are below the noise, and the decibels change their sign.
    content["solar_zenith_angle"][0, :10] = 100
    content["radiance_noise"][0, :10] = 20
    path = written(tmp_path, content)
    assert source.decibel_sense(source.index(path)) == -1
    np.testing.assert_allclose(source.open_spectra(path)["radiance_noise"][10:], meant[10:] / 100, rtol=1e-6)
    content["solar_zenith_angle"][...] = 100
    path = written(tmp_path, content, FIRST + HOUR)
    cube = source.open_spectra(path)
    assert source.decibel_sense(source.index(path)) == 0
    assert np.isnan(cube["radiance_noise"]).all()
    assert "do not tell" in cube["radiance_noise"].attrs["comment"]
    np.testing.assert_array_equal(cube["radiance"], meant)


# How files are stored.


def restored(path: Path, out: Path, key: str, **how) -> None:
    """The same file with one variable stored in another way."""
    with h5py.File(path) as data, h5py.File(out, "w") as new:
        for part in data:
            data.copy(part, new)
        old = data[f"{SEEN}/{key}"]
        del new[f"{SEEN}/{key}"]
        made = new.create_dataset(f"{SEEN}/{key}", data=old[...], **how)
        if "_FillValue" in old.attrs:
            made.attrs["_FillValue"] = old.attrs["_FillValue"]


@pytest.mark.parametrize("encoding", ["float", "integer"])
@pytest.mark.parametrize(
    ("how", "direct"),
    [
        ({"chunks": (1, 1, 5, 16), "compression": "gzip", "shuffle": True}, True),
        ({"chunks": (1, 5, 5, 16), "compression": "gzip", "shuffle": True}, True),
        ({"chunks": (1, 12, 2, 16), "compression": "gzip", "shuffle": True}, True),
        ({"chunks": (1, 7, 3, 5), "compression": "gzip", "compression_opts": 9}, True),
        ({"chunks": (1, 3, 5, 16), "shuffle": True}, True),
        ({"chunks": (1, 3, 5, 16)}, True),
        ({"chunks": (1, 3, 5, 16), "compression": "gzip", "shuffle": True, "fletcher32": True}, False),
        ({"chunks": (1, 3, 5, 16), "compression": "lzf"}, False),
        ({"dtype": ">"}, False),
        ({}, False),
    ],
)
def test_however_a_variable_is_stored_it_reads_the_same(tmp_path, encoding, how, direct):
    content, meant = granule(encoding=encoding)
    key = "radiance" if encoding == "float" else "radiance_int16"
    path = written(tmp_path, content)
    how = {k: np.dtype(content[key].dtype).newbyteorder(v) if k == "dtype" else v for k, v in how.items()}
    restored(path, tmp_path / "other.nc", key, **how)
    file = source.index(tmp_path / "other.nc")
    assert (file.variables[key].offsets is not None) == direct
    for start, stop in [(0, 12), (4, 5), (3, 10), (11, 12)]:
        np.testing.assert_array_equal(source.read(file, ("radiance",), start, stop)["radiance"], meant[start:stop])
        np.testing.assert_array_equal(source.stored(file, key, start, stop), content[key][0, start:stop])


def test_chunks_that_were_never_written_are_missing(tmp_path):
    content, meant = granule()
    path = written(tmp_path, content)
    restored(path, tmp_path / "other.nc", "radiance", chunks=(1, 1, 5, 16), compression="gzip", shuffle=True)
    with h5py.File(tmp_path / "other.nc", "r+") as data:
        made = data[SEEN].create_dataset(
            "holes", (1, 12, 5, 16), "f4", chunks=(1, 1, 5, 16), compression="gzip", fillvalue=l1b.FILL
        )
        made.attrs["_FillValue"] = np.float32(l1b.FILL)
        made[0, 4] = content["radiance"][0, 4]
        del data[f"{SEEN}/radiance"]
        data.move(f"{SEEN}/holes", f"{SEEN}/radiance")
    found = source.read(tmp_path / "other.nc", ("radiance",))["radiance"]
    np.testing.assert_array_equal(found[4], meant[4])
    assert np.isnan(np.delete(found, 4, axis=0)).all()


def test_a_block_is_made_of_whole_chunks(tmp_path):
    content, _ = granule(200, 2, 4)
    path = written(tmp_path, content)
    for lines, expected in [(1, 64), (7, 63), (64, 64), (65, 65), (200, 200)]:
        restored(path, tmp_path / f"{lines}.nc", "radiance", chunks=(1, lines, 2, 4), compression="gzip")
        assert source.lines_of(source.index(tmp_path / f"{lines}.nc")) == expected


# Only what is asked for.


def test_opening_reads_no_spectra_and_reading_them_no_noise(tmp_path):
    content, meant = granule()
    path = written(tmp_path, content)
    overwrite(path, spans(path, "radiance_noise", "radiance_error", "quality_level"))
    cube = source.open_spectra(path)
    np.testing.assert_array_equal(cube["radiance"], meant)
    with pytest.raises(InputError, match="its radiance_noise of scanlines"):
        cube["radiance_noise"].compute()
    overwrite(path, spans(path, "radiance", "spectral_channel_quality"))
    cube = source.open_spectra(path)
    np.testing.assert_array_equal(cube["latitude"], content["latitude"][0])
    with pytest.raises(InputError, match=f"{path.name} cannot be read: its .* of scanlines 0 to 11 is damaged"):
        cube["radiance"].compute()


def test_radiance_and_noise_of_one_block_inflate_the_radiance_once(tmp_path, monkeypatch):
    content, _ = granule()
    path = written(tmp_path, content)
    cube, asked, stored = source.open_spectra(path), [], source.stored
    monkeypatch.setattr(source, "stored", lambda file, key, *given: asked.append(key) or stored(file, key, *given))
    dask.compute(cube["radiance"], cube["radiance_noise"])
    assert asked.count("radiance") == 1
    asked.clear()
    source.read(source.index(path), ("radiance_noise", "radiance"))
    assert asked.count("radiance") == 1


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_memory_is_that_of_some_blocks_and_not_of_the_file(tmp_path, encoding):
    path = written(tmp_path, granule(640, 20, 100, encoding=encoding)[0])
    file = source.index(path)
    tracemalloc.start()
    lines = sum(block.stop - block.start for block in source.blocks([file], lines=16, threads=2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == 640
    assert peak < 12 * (16 * 20 * 100 * 4), "the whole has 40 blocks"


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_come_in_order_whatever_the_threads(tmp_path, threads):
    paths, expected = [], []
    for number in range(3):
        content, meant = granule(20 + number, 3, 5, orbit=number, start=FIRST + number * HOUR, seed=number)
        paths.append(written(tmp_path, content, FIRST + number * HOUR))
        expected.append(meant)
    names = ("radiance", "radiance_noise", "time", "latitude")
    found = list(source.blocks(paths, names, lines=8, threads=threads))
    assert [(b.file.path, b.start, b.stop) for b in found[:4]] == [
        (paths[0], 0, 8), (paths[0], 8, 16), (paths[0], 16, 20), (paths[1], 0, 8)
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([b.arrays["radiance"] for b in found]), np.concatenate(expected))
    np.testing.assert_allclose(
        np.concatenate([b.arrays["radiance_noise"] for b in found]), np.concatenate(expected) / 100, rtol=1e-6
    )
    assert all(tuple(b.arrays) == names for b in found)
    # Who stops early leaves no thread behind.
    some = source.blocks(paths, lines=4, threads=threads)
    next(some)
    some.close()


# Irradiances.


def test_the_irradiance_lies_on_the_wavelengths_of_each_row(tmp_path):
    content, _ = granule()
    write(irradiance(), tmp_path / "sun.nc")
    cube = source.open_spectra(written(tmp_path, content), tmp_path / "sun.nc")
    assert cube["irradiance"].dims == ("granule", "ground_pixel", "spectral_channel")
    assert cube["irradiance"].attrs["units"] == "mol m-2 s-1 nm-1"
    true = sun(cube["wavelength"].values)
    # A cubic spline of steps h errs by 5/384 h^4 max|f''''|: of this line 12 x 0.3, with h = 0.1 nm 5e-6 (de Boor 1978).
    inside = slice(2, -2)
    np.testing.assert_allclose(cube["irradiance"].values[..., inside], true[..., inside], rtol=1e-5)
    np.testing.assert_allclose(cube["irradiance"], true, rtol=1e-3)
    # Linear interpolation, or the wavelengths of another row, would be a hundred times worse.
    shifted = sun(np.roll(cube["wavelength"].values, 1, axis=1))
    assert np.abs(shifted / true - 1).max() > 1e-3


def test_a_channel_without_irradiance_has_none_and_its_neighbours_do(tmp_path):
    content, _ = granule()
    dark = irradiance()
    dark["irradiance"][0, 0, 2, 7] = l1b.FILL
    dark["spectral_channel_quality"][0, 0, 3, 9] = 2
    dark["calibrated_wavelength"][0, 4] = l1b.FILL
    write(dark, tmp_path / "sun.nc")
    cube = source.open_spectra(written(tmp_path, content), tmp_path / "sun.nc")
    missing = np.isnan(cube["irradiance"].values[0])
    assert missing[:4].sum() == 2
    assert missing[4].all()
    for row, channel in ((2, 7), (3, 9)):
        (at,) = np.flatnonzero(missing[row])
        assert abs(cube["wavelength"].values[0, row, at] - dark["calibrated_wavelength"][0, row, channel]) < 0.05 + 1e-3


def test_irradiance_beyond_its_wavelengths_is_missing(tmp_path):
    content, _ = granule(3, 5, 30)
    write(irradiance(), tmp_path / "sun.nc")
    missing = np.isnan(source.open_spectra(written(tmp_path, content), tmp_path / "sun.nc")["irradiance"].values[0])
    # 20 channels that begin 0.13 nm before those of the radiance, and one more by the spline.
    assert (np.argmax(missing, axis=1) == 19).all()
    assert missing[:, 19:].all()


def test_several_acquisitions_are_averaged(tmp_path):
    content, _ = granule()
    one = irradiance()
    arrays = dict(one.arrays)
    for key in ("irradiance", "irradiance_noise", "spectral_channel_quality"):
        arrays[key] = np.repeat(arrays[key], 2, axis=1)
    arrays["delta_time"] = np.repeat(arrays["delta_time"], 2, axis=1)
    arrays["irradiance"][0, 0] *= np.float32(0.9)
    arrays["irradiance"][0, 1] *= np.float32(1.1)
    write(replace(one, arrays=arrays), tmp_path / "two.nc")
    write(one, tmp_path / "one.nc")
    path = written(tmp_path, content)
    found = [source.open_spectra(path, tmp_path / f"{which}.nc")["irradiance"].values for which in ("one", "two")]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_the_latest_irradiance_before_the_radiances_is_taken(tmp_path):
    for factor, hours in ((1.0, -48), (2.0, -24), (3.0, 0), (4.0, 1), (5.0, -36)):
        write(irradiance(factor=factor), tmp_path / name("IR_SIR", 24390, FIRST + hours * HOUR))
    write(irradiance(band=6, factor=9.0), tmp_path / name("IR_UVN", 24390, FIRST))
    taken = []
    for number, hours in enumerate((-30, 0, 0.5, 40, -72)):
        start = FIRST + np.timedelta64(int(hours * 3600), "s")
        content, _ = granule(start=start, orbit=number)
        cube = source.open_spectra(written(tmp_path, content, start))
        if "irradiance" in cube:
            taken.append(round(float((cube["irradiance"] / sun(cube["wavelength"])).median())))
        else:
            taken.append(None)
    assert taken == [5, 3, 3, 4, None]


def test_a_damaged_irradiance_gives_way_to_the_one_before_and_one_that_was_named_does_not(tmp_path):
    content, _ = granule()
    path = written(tmp_path, content)
    before, bad = (tmp_path / name("IR_SIR", 24390, FIRST - hours * HOUR) for hours in (24, 2))
    write(irradiance(factor=2.0), before)
    write(irradiance(), bad)
    overwrite(bad, spans(bad, "irradiance"))
    refused: dict[Path, str] = {}
    cube = source.open_spectra(path, refused=refused)
    assert float((cube["irradiance"] / sun(cube["wavelength"])).median()) == pytest.approx(2, rel=1e-3)
    assert list(refused) == [bad]
    assert "its irradiance of scanlines 0 to 0 is damaged" in refused[bad]
    for given, said in [
        (bad, "its irradiance of scanlines"),
        (tmp_path / "none.nc", "No such file"),
        (path, "it holds no irradiances"),
    ]:
        with pytest.raises(InputError, match=said) as caught:
            source.open_spectra(path, given, refused={})
        assert str(given) in str(caught.value)
    write(irradiance(rows=4), tmp_path / "other.nc")
    with pytest.raises(InputError, match="it has 4 rows, the radiances have 5"):
        source.open_spectra(path, tmp_path / "other.nc")
    write(irradiance(band=8), tmp_path / "eight.nc")
    with pytest.raises(InputError, match="it holds band 8, not band 7"):
        source.open_spectra(path, tmp_path / "eight.nc")


# What is refused.


def foreign(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as data:
        data.createGroup("PRODUCT").createDimension("scanline", 4)


def classic(path: Path) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as data:
        data.createDimension("x", 4)


def changed(**arrays):
    def make(path: Path) -> None:
        content, _ = granule()
        for key, value in arrays.items():
            if value is None:
                del content.arrays[key]
            else:
                content.arrays[key] = value
        write(content, path)

    return make


BAD = [
    (lambda p: None, "No such file"),
    (lambda p: p.mkdir(), "directory"),
    (lambda p: p.write_bytes(b""), "it is empty"),
    (lambda p: p.write_bytes(b"Dear all,\nthe data.\n" * 50), "it is no NetCDF-4 file"),
    (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000)), "it is damaged or cut off"),
    (classic, "it is no NetCDF-4 file"),
    (foreign, "it holds neither radiances nor irradiances of Sentinel-5P"),
    (changed(latitude=None), "it has no latitude"),
    (changed(nominal_wavelength=None), "it has no nominal_wavelength"),
    (changed(radiance=None), "it has no radiance_int16"),
    (lambda p: write(granule(band=8)[0], p), "its name says band 7, and it holds band 8"),
    (lambda p: write(granule(rows=4)[0], p), "it has 4 rows, and S5P_.* has 5"),
    (lambda p: write(granule(channels=15)[0], p), "it has 15 channels, and S5P_.* has 16"),
]


def test_what_is_no_file_of_these_radiances_is_refused_by_name_and_the_others_are_read(tmp_path):
    content, meant = granule()
    good = [written(tmp_path, content, FIRST + n * HOUR) for n in (0, 99)]
    bad = [tmp_path / name(start=FIRST + (1 + n) * HOUR) for n in range(len(BAD))]
    for path, (make, _) in zip(bad, BAD, strict=True):
        make(path)
    refused: dict[Path, str] = {}
    cube = source.open_spectra([good[0], *bad, good[1]], refused=refused)
    np.testing.assert_array_equal(cube["radiance"], np.concatenate([meant, meant]))
    assert list(refused) == bad
    for path, (_, said) in zip(bad, BAD, strict=True):
        assert refused[path].startswith(f"{path} cannot be read: ")
        assert refused[path].endswith(".")
        assert re.search(said, refused[path]), refused[path]
    with pytest.raises(InputError) as caught:
        source.open_spectra([good[0], *bad])
    assert str(caught.value) == refused[bad[0]]


def test_other_bands_and_irradiances_are_not_mixed_with_radiances(tmp_path):
    seven, eight = (written(tmp_path, granule(band=band)[0]) for band in (7, 8))
    sir = tmp_path / name("IR_SIR")
    write(irradiance(), sir)
    refused: dict[Path, str] = {}
    cube = source.open_spectra([sir, eight, seven], band=7, refused=refused)
    assert cube["granule_name"].values.tolist() == [seven.name]
    assert "it holds irradiances, not radiances" in refused[sir]
    assert "it holds band 8, and band 7 is read" in refused[eight]
    for given in ([], [sir]):
        with pytest.raises(InputError, match="No file of radiances is left to read"):
            source.open_spectra(given, refused={})


def test_a_file_on_which_the_library_breaks_down_is_refused_and_the_others_are_read(tmp_path, monkeypatch):
    good, fatal = (written(tmp_path, granule()[0], FIRST + n * HOUR) for n in (0, 1))
    tried = netcdf.Trial._tried

    def breaking(self, path):
        if path == str(fatal):
            # What the library does on some damaged files cannot be foreseen: the process is ended as it would end it.
            os.kill(self.child.pid, signal.SIGSEGV)
        return tried(self, path)

    monkeypatch.setattr(netcdf.Trial, "_tried", breaking)
    refused: dict[Path, str] = {}
    cube = source.open_spectra([good, fatal], refused=refused)
    assert cube["granule_name"].values.tolist() == [good.name]
    assert "the NetCDF library breaks down on it" in refused[fatal]


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_a_file_that_was_cut_anywhere_is_refused_by_name(tmp_path, encoding):
    content, _ = granule(encoding=encoding)
    whole = written(tmp_path, content).read_bytes()
    cut = tmp_path / "cut.nc"
    random = np.random.default_rng(0)
    for size in [1, 8, 100, len(whole) - 1, *random.integers(0, len(whole), 30).tolist()]:
        cut.write_bytes(whole[:size])
        with pytest.raises(NotReadable) as caught:
            source.index(cut)
        assert str(caught.value).endswith(".")
    # As long as it should be, but not all of it has come.
    for size in random.integers(0, len(whole), 30).tolist():
        cut.write_bytes(whole[:size] + bytes(len(whole) - size))
        unharmed_or_refused(cut, content)


def unharmed_or_refused(path: Path, content: l1b.Granule) -> bool:
    """Whether a file was refused; if it was not, its deflated arrays are what they were."""
    try:
        file = source.index(path)
        found = {key: source.stored(file, key) for key, variable in file.variables.items() if variable.deflated}
    except (NotReadable, InputError) as error:
        said = str(error)
    else:
        assert all(array.tobytes() == content[key].tobytes() for key, array in found.items())
        return False
    assert said.endswith(".")
    assert said.startswith(("it ", f"{path} cannot be read: its "))
    return True


@pytest.mark.parametrize("encoding", ["float", "integer"])
def test_a_byte_that_changed_within_a_chunk_is_found_or_has_changed_nothing(tmp_path, encoding):
    content, _ = granule(encoding=encoding)
    path = written(tmp_path, content)
    deflated = [k for k, v in source.index(path).variables.items() if v.deflated]
    assert {"radiance_noise", "spectral_channel_quality", "latitude", "nominal_wavelength"} < set(deflated)
    whole, places = path.read_bytes(), spans(path, *deflated)
    random = np.random.default_rng(1)
    found = 0
    for _ in range(60):
        offset, size = places[random.integers(len(places))]
        at = offset + int(random.integers(size))
        harmed = bytearray(whole)
        harmed[at] ^= int(random.integers(1, 256))
        path.write_bytes(harmed)
        found += unharmed_or_refused(path, content)
    assert found > 45


def test_a_chunk_that_holds_too_little_is_refused(tmp_path):
    content, _ = granule()
    path = written(tmp_path, content)
    with h5py.File(path, "r+") as data:
        packed = zlib.compress(content["radiance"][0, 4].tobytes()[:-8])
        data[f"{SEEN}/radiance"].id.write_direct_chunk((0, 4, 0, 0), packed)
    file = source.index(path)
    assert source.read(file, ("radiance",), 0, 4)["radiance"].shape == (4, 5, 16)
    with pytest.raises(InputError, match="its radiance of scanlines 3 to 5 is damaged"):
        source.read(file, ("radiance",), 3, 6)


@pytest.mark.parametrize(
    "said", ["parts of it lie upon each other", r"it is cut off: it has \d+ bytes and describes \d+"]
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, said):
    path = written(tmp_path, granule()[0])
    whole = path.read_bytes()
    (first, _), (second, _), *_ = spans(path, "radiance")
    elsewhere = first if "upon" in said else len(whole) + 1000
    assert whole.count(second.to_bytes(8, "little")) == 1
    path.write_bytes(whole.replace(second.to_bytes(8, "little"), elsewhere.to_bytes(8, "little")))
    with pytest.raises(NotReadable, match=said):
        source.index(path)


def test_damage_that_is_met_late_ends_its_file_and_not_the_stream(tmp_path):
    paths, expected = [], []
    for number in range(3):
        content, meant = granule(24, 3, 5, start=FIRST + number * HOUR, seed=number)
        paths.append(written(tmp_path, content, FIRST + number * HOUR))
        expected.append(meant)
    overwrite(paths[1], spans(paths[1], "radiance")[13:14])
    empty = tmp_path / "empty.nc"
    empty.touch()
    refused: dict[Path, str] = {}
    found = list(source.blocks([paths[0], empty, *paths[1:]], lines=4, threads=2, refused=refused))
    assert [b.start for b in found if b.file.path == paths[1]] == [0, 4, 8]
    for path, meant in zip(paths, expected, strict=True):
        for block in found:
            if block.file.path == path:
                np.testing.assert_array_equal(block.arrays["radiance"], meant[block.start : block.stop])
    assert sum(b.stop - b.start for b in found) == 24 + 12 + 24
    assert set(refused) == {empty, paths[1]}
    assert "its radiance of scanlines 12 to 15 is damaged. Fetch it again." in refused[paths[1]]
    with pytest.raises(InputError, match="scanlines 12 to 15 is damaged"):
        list(source.blocks(paths, lines=4))


def test_a_file_that_is_replaced_or_removed_while_it_is_read_is_named(tmp_path):
    path = written(tmp_path, granule()[0])
    cube = source.open_spectra(path)
    other = written(tmp_path, granule(seed=5)[0], FIRST + HOUR)
    os.replace(other, path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=f"{path.name} was changed while it was read"):
        cube["radiance"].compute()
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name} is no longer there"):
        cube["radiance"].compute()
