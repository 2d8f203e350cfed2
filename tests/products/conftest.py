"""A small synthetic analysis, shaped like a product of ocean.gridding, and the words that go with it."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.contract import Chain, Input, Order, number, period, region


class Analysis(Chain):
    """Analyse synthetic observations onto a grid.

    A declaration that lives only in these tests.
    """

    id = "ocean.analysis"
    title = "Synthetic analysis"
    version = "1.2"
    inputs = {"observations": Input("table", "scattered observations")}
    references = ("Barth et al. (2014), doi:10.5194/gmd-7-225-2014",)
    length = number(100e3, bounds=(1e3, 2e6), units="m", doc="Correlation length")
    area = region(None, doc="Where")
    when = period(None, doc="When")


def make_cube(chunks=(1, 1, 8, 10), latitude=None, longitude=None) -> xr.Dataset:
    latitude = np.linspace(40, 47, 8) if latitude is None else np.asarray(latitude)
    longitude = np.linspace(-10, -1, 10) if longitude is None else np.asarray(longitude)
    rng = np.random.default_rng(1)
    shape = (3, 2, latitude.size, longitude.size)
    analysis = rng.normal(15, 3, shape)
    analysis[:, :, 0, 0] = np.nan
    times = pd.to_datetime(["2010-01-16T12:00", "2010-02-15T00:00", "2010-03-16T12:00"])
    edges = pd.to_datetime(["2010-01-01", "2010-02-01", "2010-03-01", "2010-04-01"])
    dims = ("time", "depth", "latitude", "longitude")
    name = "sea_water_temperature"

    def lazy(values):
        return da.from_array(values, chunks=chunks) if chunks else values

    return xr.Dataset(
        {
            "analysis": (
                dims,
                lazy(analysis),
                {"units": "degree_Celsius", "standard_name": name, "long_name": "analysis of temperature"},
            ),
            "analysis_error": (
                dims,
                lazy(rng.uniform(0, 1, shape).astype("f4")),
                {"units": "degree_Celsius", "standard_name": f"{name} standard_error", "long_name": "standard error"},
            ),
            "observations_used": (
                dims[:2],
                rng.integers(0, 100, shape[:2]),
                {"units": "1", "standard_name": "number_of_observations", "long_name": "observations used"},
            ),
            "time_bounds": (("time", "bounds"), np.stack([edges[:-1], edges[1:]], axis=1)),
        },
        coords={
            "time": ("time", times, {"standard_name": "time", "axis": "T", "bounds": "time_bounds"}),
            "depth": ("depth", [0.0, 10.0], {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"}),
            "latitude": ("latitude", latitude, {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}),
            "longitude": ("longitude", longitude, {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}),
        },
    )


def make_table() -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "time": pd.to_datetime(["2010-01-01T06:00:00.123456", None, "2010-01-03T00:00:00.000000"]),
            "longitude": [1.5, 2.5, 3.1],
            "latitude": [40.0, 41.0, 0.1 + 0.2],
            "salinity": np.array([35.1, np.nan, 38.0], "f4"),
            "platform": ['a, "b"', "NA", None],
            "count": pd.array([1, None, 2**62 + 1], dtype="Int64"),
            "basin": pd.Categorical(["west", "east", "west"]),
            "good": [True, False, True],
        }
    )
    table.attrs["columns"] = {"salinity": {"units": "1e-3", "standard_name": "sea_water_salinity"}}
    return table


@pytest.fixture
def cube() -> xr.Dataset:
    return make_cube()


@pytest.fixture
def table() -> pd.DataFrame:
    return make_table()


@pytest.fixture
def order() -> Order:
    return Order("ocean.analysis", "1.2", {"length": 1e5}, {"observations": {"entry": "ocean.observations"}})


@pytest.fixture
def facts() -> dict:
    return {
        "run": "20261121T080000-ocean.analysis-ab12cd",
        "started": "2026-11-21T08:00:00Z",
        "ended": "2026-11-21T08:01:30Z",
        "versions": {"phidias_lab": "0.1.0", "numpy": "2.4.6"},
        "host": "node7",
        "inputs": {"observations": {"address": "ocean.observations", "checksum": "sha256:0123"}},
        "lock": "ff00",
        "git": "0a1b2c",
    }


@pytest.fixture
def words(order, facts) -> dict:
    """What `write` takes besides the result and the folder, for a cube."""
    return {"chain": Analysis.describe(), "order": order, "facts": facts}


@pytest.fixture
def words_of(words):
    """The same for another kind of result."""

    def of(kind: str, **changes) -> dict:
        return {**words, "chain": {**words["chain"], "kind": kind}, **changes}

    return of
