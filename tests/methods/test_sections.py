"""Lines on the globe, and which nodes of a grid their points lie between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab.errors import InputError
from phidias_lab.methods import sections
from phidias_lab.methods.variational.geometry import EARTH_RADIUS, great_circle

LONGITUDES, LATITUDES = st.floats(-180, 180), st.floats(-85, 85)


def test_along_the_equator_and_a_meridian_the_points_are_at_equal_steps():
    quarter = EARTH_RADIUS * np.pi / 2
    found = sections.line([0, 90, 90], [0, 0, 45], 9)
    np.testing.assert_allclose(found.vertices, [0, quarter, 1.5 * quarter])
    np.testing.assert_allclose(found.distance, (np.arange(9) + 0.5) * quarter / 6)
    np.testing.assert_allclose(found.longitude, [7.5, 22.5, 37.5, 52.5, 67.5, 82.5, 90, 90, 90], atol=1e-9)
    np.testing.assert_allclose(found.latitude, [0, 0, 0, 0, 0, 0, 7.5, 22.5, 37.5], atol=1e-9)


def test_the_way_between_two_places_of_one_latitude_leads_over_higher_ones():
    """The vertex of the great circle through 50 N, 90 degrees apart: tan(max) = tan(50) / cos(45)."""
    found = sections.line([-45, 45], [50, 50], 1001)
    assert found.latitude.max() == pytest.approx(np.degrees(np.arctan(np.tan(np.radians(50)) / np.cos(np.radians(45)))))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LONGITUDES, LATITUDES), min_size=2, max_size=5, unique=True), st.integers(1, 60))
def test_the_distance_between_points_is_that_along_the_line(vertices, number):
    lon, lat = np.transpose(vertices)
    try:
        found = sections.line(lon, lat, number)
    except InputError:
        return  # opposite places, or hardly any way between them
    step = found.vertices[-1] / number
    apart = great_circle(found.longitude[:-1], found.latitude[:-1], found.longitude[1:], found.latitude[1:])
    assert (apart <= step * (1 + 1e-6) + 1e-3).all()
    for k, edge in enumerate(found.vertices):  # each vertex lies between its neighbours, at the distance that is told
        j = int(np.abs(found.distance - edge).argmin())
        away = great_circle(found.longitude[j], found.latitude[j], lon[k], lat[k])
        assert away <= abs(found.distance[j] - edge) * (1 + 1e-6) + 1e-2


def test_a_line_across_the_date_line_does_not_jump():
    found = sections.line([170, -170], [10, 10], 40)
    assert 0 < np.diff(found.longitude).min() < np.diff(found.longitude).max() < 1
    assert found.longitude[0] == pytest.approx(170.25, abs=0.05)


@pytest.mark.parametrize(
    ("vertices", "said"),
    [
        (([0], [0]), "two vertices at least"),
        (([0, np.nan], [0, 1]), "two vertices at least"),
        (([0, 1], [0, 91]), "latitude 91"),
        (([3, 3], [4, 4]), "all at one place"),
        (([0, 180], [0, 0]), "opposite"),
    ],
)
def test_what_is_no_line_is_refused(vertices, said):
    with pytest.raises(InputError, match=said):
        sections.line(*vertices, 10)


def value(found: sections.Between, nodes) -> np.ndarray:
    """The coordinate itself, interpolated; on a circle."""
    low, high = np.asarray(nodes, float)[found.lower], np.asarray(nodes, float)[found.upper]
    return low + found.share * ((high - low + 180) % 360 - 180)


@pytest.mark.parametrize("nodes", [[10, 12, 15, 20], [20, 15, 12, 10], [12, 10, 20, 15]], ids=["up", "down", "mixed"])
@pytest.mark.parametrize("turn", [None, 360.0])
def test_places_lie_between_their_neighbours_in_whatever_order_the_nodes_are(nodes, turn):
    places = np.array([8.9, 9.5, 10, 11, 14, 19, 20, 22, 23])
    if turn:
        places = places + 360.0 * np.arange(-4, 5)
    found = sections.between(nodes, places, turn)
    assert found.inside.tolist() == [False, *[True] * 7, False]
    np.testing.assert_allclose(value(found, nodes)[1:8], [10, 10, 11, 14, 19, 20, 20])
    assert np.asarray(nodes)[found.nearest].tolist()[2:7] == [10, 12, 15, 20, 20]


def test_a_grid_around_the_globe_has_no_seam_and_a_part_of_it_has_an_end():
    nodes = np.arange(0, 360, 30.0)
    for first in range(12):  # wherever the coordinate begins
        turned = np.roll(nodes, first)
        found = sections.between(turned, [345.0, -15.0, 359.0, 20.0, 195.0], 360.0)
        assert found.inside.all()
        np.testing.assert_allclose(np.mod(value(found, turned), 360), [345, 345, 359, 20, 195])
    part = sections.between([350.0, 355, 0, 5], [352.0, 358, 2, 8, 345], 360.0)
    assert part.inside.tolist() == [True, True, True, False, False]
    np.testing.assert_allclose(np.mod(value(part, [350.0, 355, 0, 5]), 360)[:3], [352, 358, 2])


def test_one_node_alone_is_everywhere():
    assert sections.between([3.0], [1.0, 5.0], 360.0).inside.all()
