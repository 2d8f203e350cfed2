"""A bathymetry at the nodes of a grid, and where the grid is sea."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods import sea_floor


def test_a_finer_bathymetry_gives_the_mean_over_each_cell():
    lat, lon = np.arange(40.05, 42, 0.1), np.arange(-9.95, -8, 0.1)
    rng = np.random.default_rng(0)
    floor = rng.normal(size=(lat.size, lon.size))
    floor[3, 4] = np.nan
    nodes = np.array([40.5, 41.5]), np.array([-9.5, -8.5])
    found = sea_floor.at_nodes(floor, lat, lon, *nodes)
    for i, y in enumerate(nodes[0]):
        for j, x in enumerate(nodes[1]):
            cell = floor[np.abs(lat - y) < 0.5][:, np.abs(lon - x) < 0.5]
            assert found[i, j] == pytest.approx(np.nanmean(cell))


def test_a_coarser_bathymetry_is_read_between_its_nodes():
    lat, lon = np.arange(40.0, 44.1), np.arange(350.0, 354.1)
    floor = lat[:, None] + 0.5 * lon
    nodes = np.arange(41.0, 43.1, 0.25), np.arange(-8.5, -7, 0.25)
    expected = nodes[0][:, None] + 0.5 * (nodes[1] + 360)
    np.testing.assert_allclose(sea_floor.at_nodes(floor, lat, lon, *nodes), expected, rtol=1e-12)


def test_longitudes_of_another_turn_fill_the_same_cells():
    lat, lon = np.arange(0.05, 2, 0.1), np.arange(0.05, 360, 0.1)
    floor = np.broadcast_to(np.cos(np.radians(lon)), (lat.size, lon.size))
    longitude = np.arange(-20.0, 20.1, 1.0)
    found = sea_floor.at_nodes(floor, lat, lon, np.array([0.5, 1.5]), longitude)
    np.testing.assert_allclose(found, np.broadcast_to(np.cos(np.radians(longitude)), found.shape), atol=1e-4)


def test_a_level_is_sea_where_the_floor_is_deeper_and_puddles_are_not():
    floor = np.full((6, 8), 100.0)
    floor[:, 4] = -5.0
    floor[:, 5:] = np.nan
    floor[2, 6] = 300.0
    floor[0, 0] = 50.0
    sea = sea_floor.mask(floor, np.array([0.0, 50.0, 200.0]))
    assert sea[0].sum() == 24 + 1
    assert sea[1].sum() == 23 + 1  # what is exactly as deep as the level is no sea there
    assert sea[2].sum() == 1
    large = sea_floor.mask(floor, np.array([0.0, 50.0, 200.0]), smallest=3)
    assert [int(level.sum()) for level in large] == [24, 23, 0]
