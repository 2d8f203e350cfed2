"""Files of observations are known by their content; what is broken or hostile is refused in a sentence."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from phidias_lab.methods.formats.observations import Faults, NotReadable
from phidias_lab.sources import netcdf, observations
from phidias_lab.sources.observations import NoObservations

CSV = b"longitude,latitude,time,depth,temperature\n1,2,2010-01-01,3,4\n"


def refused(path: Path, content: bytes, said: str, kind=NotReadable):
    path.write_bytes(content)
    with pytest.raises(kind, match=said) as caught:
        observations.read(path, Faults())
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "it is empty"),
        ("junk.nc", bytes(range(256)) * 40, "neither text nor a known binary format"),
        ("half.nc", b"CDF\x01\0\0\0\0\0\0\0\x0a\0\0", "cannot be read as NetCDF|neither Argo profiles"),
        ("half.nc", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "cannot be read as NetCDF"),
        ("half.parquet", b"PAR1" + b"\0" * 50, "cannot be read as Parquet"),
        ("words.txt", b"Dear all,\nplease find enclosed the data.\n", "its first line does not name columns"),
        ("utf16.txt", "Cruise\tStation".encode("utf-16"), "neither text nor a known binary format"),
        ("many.csv", b",".join(b"c%d" % i for i in range(1_000_000)), "names 1000000 columns|longer than"),
    ],
)
def test_what_is_no_file_of_observations_is_refused_in_a_sentence(tmp_path, name, content, said):
    refused(tmp_path / name, content, said)


def test_the_name_of_a_file_says_nothing(tmp_path):
    (tmp_path / "x.nc").write_bytes(CSV)
    assert observations.recognise(tmp_path / "x.nc") == "csv"


def test_a_file_that_may_not_be_read_or_is_not_there_is_refused(tmp_path):
    with pytest.raises(NotReadable, match="No such file"):
        observations.recognise(tmp_path / "nothing")


def netcdf3(path: Path, levels: int = 1000) -> bytes:
    """A synthetic NetCDF-3 file that looks like Argo's."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as data:
        data.createDimension("N_PROF", 3)
        data.createDimension("N_LEVELS", levels)
        data.createDimension("STRING8", 8)
        data.createVariable("PLATFORM_NUMBER", "S1", ("N_PROF", "STRING8"))
        data.createVariable("PRES", "f4", ("N_PROF", "N_LEVELS"))[...] = 1.0
    return path.read_bytes()


def test_a_truncated_file_is_refused_and_not_read_as_zeros(tmp_path):
    whole = netcdf3(tmp_path / "whole.nc")
    assert netcdf.read(tmp_path / "whole.nc").variables["PRES"].data.shape == (3, 1000)
    for share in (0.3, 0.9):
        refused(tmp_path / "cut.nc", whole[: int(len(whole) * share)], "cut off|cannot be read as NetCDF")


def test_a_file_on_which_the_library_breaks_down_is_refused_and_the_next_is_read(tmp_path, monkeypatch):
    netcdf3(tmp_path / "good.nc")
    with netcdf.Trial() as trial:
        assert "PRES" in trial.read(tmp_path / "good.nc").variables
        first = trial.child.pid
        # What the library does on some damaged files cannot be foreseen, so the process is ended here as it would end it.
        os.kill(first, signal.SIGSEGV)
        with pytest.raises(NotReadable, match="the NetCDF library breaks down on it"):
            trial.read(tmp_path / "good.nc")
        assert "PRES" in trial.read(tmp_path / "good.nc").variables
        second = trial.child
        assert second.pid != first
        os.kill(second.pid, signal.SIGSTOP)
        monkeypatch.setattr(netcdf, "PATIENCE", 1.0)
        with pytest.raises(NotReadable, match="is not read within 1 s"):
            trial.read(tmp_path / "good.nc")
    assert second.poll() is not None


def test_a_file_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path):
    with netCDF4.Dataset(tmp_path / "huge.nc", "w") as data:
        data.createDimension("N_PROF", 100_000)
        data.createDimension("N_LEVELS", 100_000)
        data.createVariable("PRES", "f4", ("N_PROF", "N_LEVELS"), chunksizes=(1, 100), zlib=True)
    with pytest.raises(NotReadable, match="GiB, more than"):
        netcdf.read(tmp_path / "huge.nc")


def test_groups_and_types_of_ones_own_are_refused(tmp_path):
    with netCDF4.Dataset(tmp_path / "groups.nc", "w") as data:
        data.createGroup("g")
    with pytest.raises(NotReadable, match="it has groups"):
        netcdf.read(tmp_path / "groups.nc")
    with netCDF4.Dataset(tmp_path / "types.nc", "w") as data:
        kind = data.createVLType(np.int32, "ragged")
        data.createDimension("n", 2)
        data.createVariable("v", kind, ("n",))
    with pytest.raises(NotReadable, match="a type of its own"):
        netcdf.read(tmp_path / "types.nc")


def test_other_netcdf_is_sent_to_the_catalogue(tmp_path):
    with netCDF4.Dataset(tmp_path / "grid.nc", "w") as data:
        data.createDimension("x", 2)
        data.createVariable("v", "f4", ("x",))
    with pytest.raises(NotReadable, match="'phidias catalog add' takes gridded data"):
        observations.recognise(tmp_path / "grid.nc")


# Real files ------------------------------------------------------------------------------------------------------------

#: Counted by others, in the README of the real files: TEMP within the range that the file gives, and those with the flag 1.
COUNTED = {
    "13857_prof.nc": (14_155, 14_148),
    "1900857_prof.nc": (21_127, 21_098),
    "3902131_prof.nc": (56_450, 48_115),
    "5900865_prof.nc": (5_680, 5_667),
    "2901746_prof.nc": (12_306, 12_289),
    "4901079_prof.nc": (12_786, 12_734),
}


def test_the_values_of_real_floats_are_as_many_as_others_counted(sample_data):
    for name, (valid, good) in COUNTED.items():
        path = next((sample_data("ocean") / "argo" / "dac").rglob(name))
        faults = Faults()
        table = observations.read(path, faults)
        assert len(faults) == 0
        raw, quality = table.columns["temperature_raw"], table.columns["temperature_raw_qc"]
        inside = (raw >= -2.5) & (raw <= 40)
        assert (int(inside.sum()), int((inside & (quality == 1)).sum())) == (valid, good), name


def test_every_real_file_is_read_or_told_what_it_is(sample_data):
    root = sample_data("ocean")
    read, others, faults = {}, {}, {}
    for path in sorted([*(root / "argo" / "dac").rglob("*"), *(root / "seadatanet").rglob("*")]):
        if path.is_file():
            found = Faults()
            try:
                read[path.name] = observations.read(path, found)
                faults[path.name] = [str(f) for f in found]
            except NoObservations as error:
                others[path.name] = str(error)
    assert len(read) == 35
    assert set(others) == {"3902131_meta.nc", "CDI-list-export.csv"}
    for name, table in read.items():
        assert len(table), name
        for column in ("longitude", "latitude", "depth", "time", "cast"):
            assert column in table.columns, (name, column)
        assert not np.isnat(table.columns["time"]).any(), name
        assert [n for n in table.columns if f"{n}_qc" in table.columns], name
    told = {name: said for name, said in faults.items() if said}
    assert set(told) == {
        "3902131_Sprof.nc",  # negative pressures, flagged as good
        "netCDF_vertical_profiles_ctd.nc",  # oxygen under the code of its standard deviation
        "netCDF_vertical_profiles_ctd_with_instruments.nc",
    }


def test_a_real_profile_has_the_place_time_and_values_that_its_file_shows(sample_data):
    path = sample_data("ocean") / "argo" / "dac" / "bodc" / "6901929" / "profiles" / "D6901929_001.nc"
    with netCDF4.Dataset(path) as file:
        assert file["DATA_MODE"][0] == b"D"
        wanted = file["TEMP_ADJUSTED"][0].compressed()
    columns = observations.read(path, Faults()).columns
    first = columns["cast"] == columns["cast"][0]
    np.testing.assert_array_equal(columns["temperature"][first][np.isfinite(columns["temperature"][first])], wanted)
    assert columns["time"][0] == np.datetime64("2018-02-14T08:39")
    assert columns["longitude"][0] == pytest.approx(-16.492, abs=1e-3)
