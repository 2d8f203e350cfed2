"""ocean.gridding that follows currents and keeps to bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError, ParameterError

LON, LAT = np.arange(-6.0, 6.1, 0.5), np.arange(-5.0, 5.1, 0.5)
NAMES = {"u": "eastward_sea_water_velocity", "v": "northward_sea_water_velocity"}


def domain(depth=(0.0,)) -> xr.Dataset:
    mask = np.ones((len(depth), LAT.size, LON.size), np.int8)
    return xr.Dataset(
        {"mask": (("depth", "latitude", "longitude"), mask)}, {"depth": list(depth), "latitude": LAT, "longitude": LON}
    )


def currents(east, north, units="m s-1") -> xr.Dataset:
    """Currents of east(longitude, latitude) and north(longitude, latitude) on a grid that is a little larger."""
    lines = {"latitude": np.arange(-6.0, 6.1, 0.25), "longitude": np.arange(-7.0, 7.1, 0.25)}
    y, x = np.meshgrid(*lines.values(), indexing="ij")
    fields = {"u": east(x, y) + 0 * x, "v": north(x, y) + 0 * x}
    return xr.Dataset(
        {n: (tuple(lines), f, {"standard_name": NAMES[n], "units": units}) for n, f in fields.items()}, lines
    )


def observations(longitude, latitude, value, depth=0.0) -> pd.DataFrame:
    time = pd.Timestamp("2010-06-01") + pd.to_timedelta(np.arange(len(value)), unit="h")
    return pd.DataFrame(
        {"longitude": longitude, "latitude": latitude, "depth": depth, "time": time, "tracer": np.asarray(value, float)}
    )


def grid(table, of=None, **given) -> xr.Dataset:
    inputs = {name: given.pop(name) for name in ("currents", "previous") if name in given}
    asked = {"variable": "tracer", "background": "none", "noise": 0.1, "length": 100e3, "error": "none", **given}
    return Gridding(**asked)(observations=table, domain=domain() if of is None else of, **inputs).compute()


ONE = observations([0.0], [0.0], [1.0])


@pytest.mark.parametrize("depth", [(0.0,), (0.0, 50.0)])
def test_an_observation_speaks_along_the_current_and_less_across_it(depth):
    asked = {"advection": 10, "of": domain(depth), "vertical_length": 0.0 if len(depth) == 1 else 40.0}
    along = {}
    for way, flow in {"east": (0.3, 0.0), "north": (0.0, 0.3), "back": (-0.3, 0.0)}.items():
        along[way] = grid(ONE, currents=currents(lambda x, y, f=flow: f[0], lambda x, y, f=flow: f[1]), **asked)
    still = grid(ONE, of=domain(depth), vertical_length=asked["vertical_length"])
    east, north, none = (r["analysis"].isel(time=0, depth=0) for r in (along["east"], along["north"], still))
    assert float(east.sel(longitude=3, latitude=0)) > 1.5 * float(none.sel(longitude=3, latitude=0))
    assert float(north.sel(longitude=0, latitude=3)) > 1.5 * float(none.sel(longitude=0, latitude=3))
    assert float(east.sel(longitude=3, latitude=0)) > 2 * float(east.sel(longitude=0, latitude=3))
    # The constraint knows the path, and not which way along it.
    np.testing.assert_allclose(along["back"]["analysis"], along["east"]["analysis"], rtol=1e-9)


def test_a_strong_eddy_makes_the_field_the_same_all_around_it():
    around = currents(lambda x, y: -y / 3, lambda x, y: x / 3)
    table = observations([2.0], [0.0], [1.0])
    field = {
        time: grid(table, currents=around, advection=time, length=200e3)["analysis"].squeeze() for time in (0.01, 60)
    }
    opposite = {
        time: float(f.sel(longitude=-2, latitude=0) / f.sel(longitude=2, latitude=0)) for time, f in field.items()
    }
    assert opposite[0.01] < 0.4
    assert opposite[60] > 0.8


def test_currents_in_other_units_carry_as_far():
    one = grid(ONE, currents=currents(lambda x, y: 0.3, lambda x, y: 0.1), advection=5)
    other = grid(ONE, currents=currents(lambda x, y: 30, lambda x, y: 10, "cm s-1"), advection=5)
    np.testing.assert_allclose(other["analysis"], one["analysis"], rtol=1e-9)


def scattered(values, number=80) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    lon, lat = rng.uniform(LON[0], LON[-1], number), rng.uniform(LAT[0], LAT[-1], number)
    return observations(lon, lat, values(lon, lat))


@pytest.mark.parametrize("vertical_length", [0.0, 40.0])
def test_an_analysis_keeps_to_its_range_and_is_not_merely_cut(vertical_length):
    table = scattered(lambda x, y: np.maximum(np.sin(2 * x), 0))
    asked = {"of": domain((0.0, 50.0)), "vertical_length": vertical_length, "background": "mean", "noise": 0.01}
    free = grid(table, **asked)["analysis"]
    bounded = grid(table, analysis_range=[0.0, 1.0], error="exact", **asked)
    analysis = bounded["analysis"]
    assert float(free.min()) < -0.05
    assert 0 <= float(analysis.min()) <= float(analysis.max()) <= 1
    assert float(abs(analysis - free.clip(0, 1)).max()) > 0.005
    unbounded = grid(table, error="exact", **asked)
    np.testing.assert_array_equal(bounded["analysis_error"], unbounded["analysis_error"])


def test_a_range_holds_in_the_units_of_the_variable_for_a_transform_and_a_background_too():
    table = scattered(lambda x, y: np.exp(np.sin(2 * x)))
    found = grid(table, transform="log", background="mean", analysis_range=[0.0, 1.5], noise=0.01)["analysis"]
    assert float(found.max()) == pytest.approx(1.5)
    assert float(found.min()) < 0.8
    previous = xr.Dataset({"tracer": ("depth", [1.2])}, {"depth": [0.0]})
    found = grid(table, background="previous", previous=previous, analysis_range=[0.9, 5.0])["analysis"]
    assert float(found.min()) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"advection": 5}, "advection 5 d and no input 'currents'"),
        ({"currents": currents(lambda x, y: 0, lambda x, y: 0)}, "advection 0 d and an input 'currents'"),
        (
            {"advection": 5, "currents": xr.Dataset({"u": ("latitude", LAT)})},
            "has no field of 'eastward_sea_water_velocity'",
        ),
        ({"analysis_range": [0.0]}, "was given 1 numbers; it needs two"),
        ({"advection": 5, "currents": currents(lambda x, y: 1, lambda x, y: 1, "kg")}, "do not convert"),
    ],
)
def test_constraints_that_cannot_be_are_refused_in_a_sentence(given, said):
    with pytest.raises((InputError, ParameterError), match=said):
        grid(ONE, **given)
