"""A synthetic bathymetry in the structure of GEBCO's files: elevation over lat and lon, in metres, upwards."""

from __future__ import annotations

import numpy as np
import xarray as xr


def gebco(west=-8.0, south=42.0, east=2.0, north=50.0, step=1 / 24) -> xr.Dataset:
    """A basin with a shelf, an island and a lake on the land in the east."""
    lat = np.arange(south + step / 2, north, step)
    lon = np.arange(west + step / 2, east, step)
    y, x = np.meshgrid(lat, lon, indexing="ij")
    floor = -3000 * np.clip((0.0 - x) / 6, -0.2, 1)
    floor = np.where(np.hypot(x + 4, y - 46) < 0.7, 120.0, floor)
    floor = np.where(np.hypot(x - 1.2, y - 46) < 0.2, -15.0, floor)
    told = {
        "standard_name": "height_above_mean_sea_level",
        "long_name": "Elevation relative to sea level",
        "units": "m",
    }
    attributes = {"title": "A small sea: elevation (synthetic)", "synthetic": "true"}
    return xr.Dataset(
        {"elevation": (("lat", "lon"), floor.round().astype(np.int16), told)}, {"lat": lat, "lon": lon}, attributes
    )


def domain() -> dict:
    """The scene of `ocean.domain`."""
    return {"inputs": {"bathymetry": gebco()}, "parameters": {"step": 0.5, "depths": [0.0, 100.0, 1000.0]}}
