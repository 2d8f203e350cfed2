"""Data in memory are stored with a run as they are."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from phidias_lab.lake import memory


def test_a_product_that_was_opened_lazily_is_stored_with_its_dates(tmp_path):
    starts = pd.date_range("2015-06-01", periods=3, freq="MS")
    bounds = [[a, a + pd.DateOffset(months=1)] for a in starts]
    cube = xr.Dataset(
        {"v": ("time", [1.0, 2.0, 3.0]), "time_bounds": (("time", "bounds"), bounds)},
        {"time": ("time", starts + pd.Timedelta(days=14), {"bounds": "time_bounds"})},
    )
    cube.to_netcdf(tmp_path / "product.nc", encoding={"time": {"units": "days since 1970-01-01", "dtype": "float64"}})
    with xr.open_dataset(tmp_path / "product.nc", chunks={}) as lazy:
        assert lazy["time_bounds"].chunks is not None
        stored = memory.store(lazy, tmp_path, "field")
        assert lazy["time_bounds"].chunks is not None, "what was given stays lazy"
    with xr.open_dataset(stored) as found:
        xr.testing.assert_equal(found.load(), cube)
