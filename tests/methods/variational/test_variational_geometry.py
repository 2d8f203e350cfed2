"""Spacing from coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import EARTH_RADIUS, local_resolution, metrics_on_sphere
from phidias_lab.methods.variational.geometry import great_circle


def test_local_resolution_is_half_the_way_between_neighbours_and_one_sided_at_the_ends():
    assert local_resolution([0, 10, 30, 100]).tolist() == [10, 15, 45, 70]
    assert local_resolution([100, 30, 10, 0]).tolist() == [70, 45, 15, 10]


def test_the_great_circle_is_the_arc_of_the_angle_between_two_directions():
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(-180, 180, (2, 50)), rng.uniform(-90, 90, (2, 50))
    phi, theta = np.radians(lat), np.radians(lon)
    vectors = np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)])
    angle = np.arccos((vectors[:, 0] * vectors[:, 1]).sum(axis=0))
    distance = great_circle(lon[0], lat[0], lon[1], lat[1])
    np.testing.assert_allclose(distance, EARTH_RADIUS * angle, rtol=1e-12)


def test_a_metre_on_the_sphere_is_still_a_metre():
    degree = np.degrees(1 / EARTH_RADIUS)
    assert great_circle(5.0, 60.0, 5.0, 60.0 + degree) == pytest.approx(1.0, rel=1e-7)


def test_meridians_converge_and_parallels_stay_apart():
    lon, lat = np.arange(0.0, 5.0, 0.5), np.arange(40.0, 61.0, 1.0)
    pm_lon, pm_lat = metrics_on_sphere(lon, lat)
    assert pm_lon.shape == pm_lat.shape == (lon.size, lat.size)
    np.testing.assert_allclose(1 / pm_lat, EARTH_RADIUS * np.radians(1.0), rtol=1e-12)
    # A great circle between points of one parallel is a little shorter than the parallel.
    np.testing.assert_allclose(
        1 / pm_lon, EARTH_RADIUS * np.radians(0.5) * np.cos(np.radians(lat)) + 0 * pm_lon, rtol=2e-5
    )
    assert (1 / pm_lon <= EARTH_RADIUS * np.radians(0.5) * np.cos(np.radians(lat))).all()


def test_longitudes_around_the_earth_are_all_alike_when_closed():
    pm_lon, _ = metrics_on_sphere(np.arange(0.0, 360.0, 10.0), [30.0, 40.0, 50.0], period=360)
    np.testing.assert_allclose(pm_lon, pm_lon[:1] + 0 * pm_lon, rtol=1e-12)
    open_edges, _ = metrics_on_sphere(np.arange(0.0, 360.0, 10.0), [30.0, 40.0, 50.0])
    assert np.ptp(open_edges[:, 0]) > 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: local_resolution([1.0]), "at least 2 values"),
        (lambda: local_resolution([0, 1, 1, 1, 2]), "neither rises nor falls"),
        (lambda: local_resolution([0, np.nan, 2]), "not finite"),
        (lambda: metrics_on_sphere([0, 1], [80, 90]), "pole"),
        (lambda: metrics_on_sphere([[0, 1]], [80, 85]), "longitude has the shape"),
    ],
)
def test_coordinates_without_a_spacing_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
