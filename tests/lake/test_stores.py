"""What is written into the lake can be read by others too."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from phidias_lab.lake import drivers, manifest, stores


def test_labels_are_written_without_a_warning_and_read_back_as_they_were(tmp_path):
    names = ["CO", "CH4", "no gas at all"]
    data = xr.Dataset({"snr": ("gas", np.arange(3.0)), "unit": ("gas", ["a", "bb", "µ"])}, {"gas": names})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stores.write_cube(data, tmp_path / "a.zarr", entry="e", chunks={}, version="1")
    found = drivers.Cube(str(tmp_path / "a.zarr")).read()
    assert found["gas"].values.tolist() == names
    assert found["gas"].dtype.kind == "U"  # as of NetCDF
    assert found["unit"].values.tolist() == ["a", "bb", "µ"]
    assert data["gas"].dtype.kind == "U"  # what was given stays as it was
    other = stores.write_cube(data, tmp_path / "b.zarr", entry="e", chunks={}, version="1")
    assert other["checksum"] == manifest.read(str(tmp_path / "a.zarr"))["checksum"]
