"""ocean.gridding with lengths that differ: by level, by direction, from place to place, and around the globe."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from kernel import distance, kernel_covariance
from scipy.special import kv

from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError, ParameterError

LON, LAT, DEPTH = np.arange(-12.0, 12.1, 0.5), np.arange(-10.0, 10.1, 0.5), np.array([0.0, 50.0, 100.0])


def domain(depth=DEPTH, lon=LON, lat=LAT, **fields) -> xr.Dataset:
    mask = np.ones((len(depth), len(lat), len(lon)), np.int8)
    made = xr.Dataset(
        {"mask": (("depth", "latitude", "longitude"), mask)}, {"depth": depth, "latitude": lat, "longitude": lon}
    )
    return made.assign(
        {name: (("latitude", "longitude"), np.full(mask.shape[1:], value)) for name, value in fields.items()}
    )


def one_at_each_level(depth=DEPTH, longitude=0.0, latitude=0.0) -> pd.DataFrame:
    """The same observation at every level."""
    return pd.DataFrame(
        {
            "longitude": longitude,
            "latitude": latitude,
            "depth": depth,
            "time": pd.Timestamp("2010-06-01"),
            "tracer": 1.0,
        }
    )


def response(of=None, table=None, **parameters) -> xr.DataArray:
    """What one observation at the middle of the grid makes of its surroundings, as a share of what it makes of its place."""
    asked = {"variable": "tracer", "background": "none", "error": "none", "noise": 0.01, **parameters}
    given = {"observations": one_at_each_level() if table is None else table, "domain": domain() if of is None else of}
    field = Gridding(**asked)(**given).compute()["analysis"].isel(time=0)
    return field / field.sel(latitude=0, longitude=0)


def on_grid(of, length: float) -> np.ndarray:
    lon2, lat2 = np.meshgrid(LON, LAT)
    return of((np.zeros(1), np.zeros(1)), (lon2.ravel(), lat2.ravel()), length).reshape(lon2.shape)


def kernel(length: float) -> np.ndarray:
    return on_grid(kernel_covariance, length)


def test_each_level_has_its_own_length():
    found = response(lengths=[150e3, 300e3, 200e3])
    for level, length in enumerate((150e3, 300e3, 200e3)):
        np.testing.assert_allclose(found[level], kernel(length), atol=0.05)
    assert np.abs(found.values[0] - kernel(300e3)).max() > 0.2


def test_levels_that_are_analysed_together_keep_their_lengths():
    table = one_at_each_level()
    found = response(table=table, lengths=[150e3, 300e3, 200e3], vertical_length=1.0)  # so short that nothing passes
    for level, length in enumerate((150e3, 300e3, 200e3)):
        # Three dimensions are analysed with the norm of order 3, whose kernel in a plane is r^2 K2(r) / 2.
        r = np.maximum(on_grid(distance, length), 1e-6)
        np.testing.assert_allclose(found[level], r**2 * kv(2, r) / 2, atol=0.05)


def test_an_anisotropy_stretches_one_direction_and_shrinks_the_other():
    length, ratio = 200e3, 4.0
    found = response(length=length, anisotropy=ratio)[0]
    # On the axes the kernel is that of the length of that direction: twice and half of it.
    np.testing.assert_allclose(found.sel(latitude=0), kernel(2 * length)[LAT.size // 2], atol=0.05)
    np.testing.assert_allclose(found.sel(longitude=0), kernel(length / 2)[:, LON.size // 2], atol=0.05)
    turned = response(length=length, anisotropy=1 / ratio)[0]
    assert float(turned.sel(latitude=0, longitude=3)) < float(turned.sel(latitude=3, longitude=0))


def test_fields_of_the_domain_change_the_lengths_like_the_parameters():
    by_number = response(length=100e3, anisotropy=2.0)
    by_field = response(domain(anisotropy=2.0), length=100e3)
    np.testing.assert_allclose(by_field, by_number, rtol=1e-10)
    np.testing.assert_allclose(response(domain(length_factor=0.5), length=200e3), response(length=100e3), rtol=1e-10)
    np.testing.assert_allclose(
        response(domain(anisotropy=0.5), length=100e3, anisotropy=2.0), response(length=100e3), rtol=1e-10
    )


def test_a_shorter_length_on_one_side_is_felt_on_that_side_alone():
    halves = domain(length_factor=1.0)
    halves["length_factor"] = halves["length_factor"].where(halves["longitude"] >= 0, 0.4)
    found = response(halves, length=300e3)[0]
    west, east = (found.sel(latitude=0, longitude=x) for x in (-3.0, 3.0))
    assert float(west) < 0.65 * float(east)


def test_a_globe_up_to_the_poles_is_analysed_without_a_seam():
    lon, lat = np.arange(0.0, 360.0, 10.0), np.arange(-85.0, 86.0, 10.0)
    table = one_at_each_level(depth=[0.0], longitude=0.0, latitude=5.0)
    asked = {"variable": "tracer", "background": "none", "error": "none", "length": 2e6}
    for first in (0.0, -180.0):
        sphere = domain([0.0], first + lon, lat)
        found = Gridding(**asked)(observations=table, domain=sphere).compute()["analysis"].squeeze()
        assert np.isfinite(found).all()
        row = found.sel(latitude=5.0)
        around = np.mod(row["longitude"].values, 360)
        for away in (10.0, 30.0, 90.0):
            east, west = (float(row[np.isclose(around, place)][0]) for place in (away, 360 - away))
            assert east == pytest.approx(west, rel=1e-9)


@pytest.mark.parametrize(
    ("of", "parameters", "said"),
    [
        (domain(), {"lengths": [1e5, 2e5]}, "given 2 numbers, but 3 levels are analysed: 0, 50, 100 m"),
        (domain(), {"lengths": [1e5, 2e5, 3e5], "depths": [50.0]}, "given 3 numbers, but 1 levels are"),
        (domain(anisotropy=0.0), {}, "The domain's anisotropy must be above 0"),
        (domain(length_factor=np.nan), {}, "The domain's length_factor must be above 0"),
    ],
)
def test_lengths_that_cannot_be_are_refused_in_a_sentence(of, parameters, said):
    with pytest.raises((InputError, ParameterError), match=said):
        response(of, **parameters)
