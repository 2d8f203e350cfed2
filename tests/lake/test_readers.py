"""Files of an agency's format are opened by the reader that a package brings: one file, a folder, a pattern of names."""

from __future__ import annotations

import pytest

from phidias_lab import flow
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.lake import catalog, readers

MODULE = """
import json
import numpy as np
import xarray as xr

class Reader:
    pattern = "TOY_*.rad"
    def open(self, paths):
        values = np.concatenate([json.load(open(p)) for p in paths])
        gain = [json.load(open(p)) for p in self.beside(paths)]
        return xr.Dataset({"radiance": ("scanline", values * np.prod(gain))}).chunk()
    def beside(self, paths):
        import pathlib
        return [str(p) for p in pathlib.Path(paths[0]).parent.glob("GAIN.json")]

READER = Reader()
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A package that brings the reader of files called TOY_*.rad; gives the folder in which it stands."""

    def into(target: str = "toy_radiances:READER"):
        place = tmp_path / "site"
        info = place / "toy_radiances-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (place / "toy_radiances.py").write_text(MODULE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-radiances\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[phidias_lab.sources]\ntoy = {target}\n")
        monkeypatch.syspath_prepend(place)
        return place

    return into


@pytest.fixture
def files(install, tmp_path):
    """Two files with their calibration, and one that is none of theirs."""
    install()
    folder = tmp_path / "arrived"
    folder.mkdir()
    (folder / "TOY_b.rad").write_text("[3, 4]")
    (folder / "TOY_a.rad").write_text("[1, 2]")
    (folder / "GAIN.json").write_text("10")
    (folder / "notes.txt").write_text("nothing")
    return folder


def opened(address) -> list[float]:
    return catalog.open_file(address)[0]["radiance"].values.tolist()


def test_a_file_a_folder_and_a_pattern_are_opened(files):
    assert opened(files / "TOY_b.rad") == [30, 40]
    assert opened(files) == [10, 20, 30, 40]
    assert opened(files / "TOY_[a]*") == [10, 20]


def test_the_identity_tells_a_change_of_any_file_that_is_read_and_of_no_other(files):
    def checksum(address=files):
        return catalog.open_file(address)[1]["checksum"]

    first = checksum()
    assert checksum(files / "TOY_*") == first
    (files / "notes.txt").write_text("something else")
    assert checksum() == first
    (files / "GAIN.json").write_text("11")
    assert checksum() != first
    (files / "GAIN.json").write_text("10")
    assert checksum() == first
    (files / "TOY_c.rad").write_text("[5]")
    assert checksum() != first
    assert checksum(files / "TOY_[ab]*") == first


def test_what_no_reader_reads_is_refused_and_told_what_would_be_read(files, tmp_path):
    with pytest.raises(InputError, match=r"No file in .*arrived is called S5P_\*"):
        catalog.open_file(files / "S5P_*")
    with pytest.raises(InputError, match=r"The folder .*nowhere of .* does not exist"):
        catalog.open_file(tmp_path / "nowhere" / "TOY_*")
    with pytest.raises(InputError, match=r"a folder or a pattern of files called .*TOY_\*\.rad"):
        catalog.open_file(files / "notes.txt")
    with pytest.raises(InputError, match="does not exist"):
        catalog.open_file(files / "TOY_z.rad")


def test_a_reader_that_cannot_be_imported_is_named_with_its_package(install, tmp_path):
    install("toy_radiances:MISSING")
    with pytest.raises(ParameterError, match="'toy' of the package 'toy-radiances' cannot be imported"):
        readers.find(str(tmp_path))


def test_an_order_takes_a_pattern_like_a_file(files):
    with pytest.raises(InputError, match="'bathymetry' has no latitude of its own"):  # so the files were opened
        flow.prepare("ocean.domain", inputs={"bathymetry": files / "TOY_*"}, region=[0, 0, 5, 5])
    with pytest.raises(InputError, match=r"No file in .*arrived is called OTHER_\*"):
        flow.prepare("ocean.domain", inputs={"bathymetry": files / "OTHER_*"}, region=[0, 0, 5, 5])
