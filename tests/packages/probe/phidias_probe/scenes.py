"""Small synthetic scenes for the probe chains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr


def field(steps: int = 4) -> xr.Dataset:
    """A synthetic temperature field on a small grid, several chunks in time."""
    generator = np.random.default_rng(20)
    time = pd.date_range("2010-01-01", periods=steps, freq="D")
    dataset = xr.Dataset(
        {
            "temperature": (
                ("time", "latitude", "longitude"),
                (15.0 + generator.normal(size=(steps, 3, 5))).astype("float64"),
                {"units": "degree_Celsius", "standard_name": "sea_water_temperature", "long_name": "temperature"},
            )
        },
        coords={
            "time": ("time", time, {"standard_name": "time", "long_name": "time", "axis": "T"}),
            "latitude": (
                "latitude",
                [40.0, 41.0, 42.0],
                {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude", "axis": "Y"},
            ),
            "longitude": (
                "longitude",
                [-12.0, -11.0, -10.0, -9.0, -8.0],
                {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude", "axis": "X"},
            ),
        },
        attrs={"title": "synthetic temperature"},
    )
    return dataset.chunk({"time": 1})


def rows(count: int = 30) -> pd.DataFrame:
    """Synthetic observations in a table."""
    generator = np.random.default_rng(21)
    table = pd.DataFrame(
        {
            "time": pd.date_range("2010-01-01", periods=count, freq="h"),
            "latitude": generator.uniform(40, 42, count),
            "longitude": generator.uniform(-12, -8, count),
            "temperature": generator.normal(15, 1, count),
        }
    )
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    return table


def cube() -> dict:
    return {"inputs": {"field": field()}, "parameters": {"factor": 2.0, "measured": "temperature"}}


def table() -> dict:
    return {"inputs": {"rows": rows()}, "parameters": {"offset": 1.0}}
