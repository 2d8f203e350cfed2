"""Fields on a grid, read elsewhere: linear between nodes, without a seam at any longitude, filled over land."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods import fields


def test_a_linear_field_is_read_exactly_between_its_nodes():
    rng = np.random.default_rng(0)
    lines = {
        "depth": np.array([0.0, 10, 50]),
        "latitude": np.linspace(60, 40, 9),
        "longitude": np.arange(-20.0, 3, 1.5),
    }
    z, y, x = np.meshgrid(*lines.values(), indexing="ij")
    points = {name: rng.uniform(line.min(), line.max(), 200) for name, line in lines.items()}
    found = fields.at(0.1 * z + 2 * y - x, lines, points)
    expected = 0.1 * points["depth"] + 2 * points["latitude"] - points["longitude"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("first", [0.0, -180.0, 2.5, 97.5])
@pytest.mark.parametrize("turn", [-360.0, 0.0, 360.0])
def test_a_field_around_the_globe_has_no_seam(first, turn):
    lines = {"latitude": np.array([0.0, 1.0]), "longitude": first + np.arange(72) * 5.0}
    values = np.broadcast_to(np.cos(np.radians(lines["longitude"])), (2, 72))
    longitude = np.linspace(-180, 180, 400)
    found = fields.at(values, lines, {"latitude": 0.3, "longitude": longitude + turn})
    # The error of linear interpolation is at most h^2/8 of the second derivative: 0.00095 for 5 degrees.
    assert np.abs(found - np.cos(np.radians(longitude))).max() < 0.00096


def test_longitudes_of_a_region_across_the_date_line_may_be_stored_in_any_order():
    lines = {"longitude": np.array([178.0, 179.0, -180.0, -179.0])}
    found = fields.at(np.array([1.0, 2.0, 3.0, 4.0]), lines, {"longitude": np.array([178.5, 179.5, 180.5, -179.5])})
    np.testing.assert_allclose(found, [1.5, 2.5, 3.5, 3.5])


def test_beyond_its_nodes_a_field_is_as_at_the_last_one_and_without_a_dimension_it_is_the_same_along_it():
    lines = {"depth": np.array([10.0, 20.0]), "latitude": np.array([0.0]), "longitude": np.array([0.0])}
    found = fields.at(
        np.array([5.0, 7.0]).reshape(2, 1, 1),
        lines,
        {"depth": np.array([0.0, 15, 90]), "latitude": 3.0, "longitude": 9.0},
    )
    np.testing.assert_allclose(found, [5, 6, 7])


def test_land_is_filled_from_the_nearest_sea_of_its_level_and_empty_levels_from_the_nearest_one():
    plane = np.array([[1.0, np.nan, np.nan, 9.0], [1.0, np.nan, np.nan, 9.0]])
    field = np.stack([plane, plane + 1, np.full((2, 4), np.nan), np.full((2, 4), np.nan)])
    found = fields.filled(field)
    np.testing.assert_array_equal(found[0], [[1, 1, 9, 9]] * 2)
    np.testing.assert_array_equal(found[2], found[1])
    np.testing.assert_array_equal(found[3], found[1])
    assert np.isnan(field[0, 0, 1])  # what was given stays as it was
    assert np.isnan(fields.filled(np.full((2, 3), np.nan))).all()
