"""Level 1B files of Sentinel-5P are inputs like any others: a file, a folder, a pattern of names."""

from __future__ import annotations

import fnmatch

import numpy as np
import pytest
import spectra_files

from phidias_lab.errors import InputError
from phidias_lab.lake import catalog, readers
from phidias_lab.products import l1b as products


@pytest.fixture
def day(tmp_path):
    """Two granules of band 7, one of band 8, and their irradiances."""
    for number, band in ((0, 7), (1, 7), (0, 8)):
        start = spectra_files.FIRST + np.timedelta64(number, "h")
        content, _ = spectra_files.granule(band=band, orbit=100 + number, start=start, seed=number)
        products.write(content, tmp_path / spectra_files.name(f"RA_BD{band}", 100 + number, start))
    sun = [spectra_files.irradiance(band=band) for band in (7, 8)]
    products.write(sun, tmp_path / spectra_files.name("IR_SIR", 99))
    return tmp_path


def test_a_pattern_of_one_band_is_one_cube_with_its_irradiance(day):
    cube, identity = catalog.open_file(day / "S5P_*_BD7_*")
    assert cube.sizes["scanline"] == 24
    assert [name.split("_")[4] for name in cube["granule_name"].values] == ["BD7", "BD7"]
    assert np.isfinite(cube["irradiance"].values).all()
    assert identity["checksum"].startswith("sha256:")
    one, _ = catalog.open_file(sorted(day.glob("*BD8*"))[0])
    assert one.sizes["scanline"] == 12
    assert one.attrs["band"] == 8


def test_a_folder_of_several_bands_is_refused_with_a_pattern_to_give(day):
    with pytest.raises(
        InputError, match=r"the bands 7, 8, and one is read at a time\. Give a pattern .*S5P_\*_L1B_RA_BD7_\*"
    ):
        catalog.open_file(day)


def test_a_damaged_file_is_passed_over_by_name_and_alone_it_is_the_error(day):
    first, second = sorted(day.glob("*BD7*"))
    second.write_bytes(second.read_bytes()[:5000])
    cube, _ = catalog.open_file(day / "*BD7*")
    assert cube.sizes["scanline"] == 12
    assert second.name in cube.attrs["refused"]
    assert "\n" not in cube.attrs["refused"]
    first.unlink()
    with pytest.raises(InputError, match=f"{second.name} cannot be read: "):
        catalog.open_file(day / "*BD7*")


def test_other_irradiances_make_other_data(day):
    def checksum():
        return catalog.open_file(day / "*BD7*")[1]["checksum"]

    before = checksum()
    sun = [spectra_files.irradiance(band=band, factor=2.0) for band in (7, 8)]
    products.write(sun, day / spectra_files.name("IR_SIR", 99))
    assert checksum() != before


def test_names_tell_the_time_and_which_files_are_read_only_beside_others():
    start = np.datetime64("2022-06-28T18:58:06", "s")
    named = spectra_files.name("RA_BD7", 1, start)
    told, *others = readers.periods([f"s3://bucket/{named}", named.replace("20220628", "20221328"), "a.parquet"])
    assert told == (start, start + np.timedelta64(6089, "s"))
    assert others == [None, None]
    (pattern,) = readers.companions()
    assert fnmatch.fnmatchcase(spectra_files.name("IR_SIR", 1), pattern)
    assert not fnmatch.fnmatchcase(named, pattern)
