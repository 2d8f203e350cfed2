"""Pixels of a swath are seen where they are, compared with a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods import swaths
from phidias_lab.methods.variational.geometry import EARTH_RADIUS, great_circle


def pass_over(lines: int, pixels: int, *, start: float, middle: float = 0.0, step: float = 0.9) -> tuple:
    """Centres of pixels along a great circle that is tilted by 98.7 degrees, `step` degrees apart, wider at the edge."""
    along = np.radians(middle + step * (np.arange(lines) - (lines - 1) / 2))
    tilt = np.radians(98.7)
    below = np.stack([np.cos(along), np.sin(along) * np.cos(tilt), np.sin(along) * np.sin(tilt)], -1)
    ahead = np.stack([-np.sin(along), np.cos(along) * np.cos(tilt), np.cos(along) * np.sin(tilt)], -1)
    across = np.radians(step) * np.linspace(-1, 1, pixels) * (1 + 0.5 * np.abs(np.linspace(-1, 1, pixels))) * pixels / 2
    point = below[:, None] * np.cos(across)[:, None] + np.cross(below, ahead)[:, None] * np.sin(across)[:, None]
    lon = np.degrees(np.arctan2(point[..., 1], point[..., 0])) + start
    return np.mod(lon + 180, 360) - 180, np.degrees(np.arcsin(point[..., 2]))


BOXES = {
    "the equator": (0.0, 0.0, (-8.0, -6.0, 9.0, 6.0)),
    "the date line": (178.0, 10.0, (170.0, 2.0, 190.0, 18.0)),
    "the north pole": (40.0, 90.0, (-180.0, 78.0, 180.0, 90.0)),
    "beside the pixels": (0.0, 0.0, (30.0, 40.0, 40.0, 50.0)),
}


@pytest.mark.parametrize(("start", "middle", "box"), BOXES.values(), ids=BOXES)
def test_a_cell_shows_the_nearest_pixel_that_reaches_so_far(start, middle, box):
    lon, lat = pass_over(41, 17, start=start, middle=middle)
    screen = swaths.Screen(lon, lat, box, (60, 80))
    x, y = np.meshgrid(screen.x, screen.y)
    distance = great_circle(x.ravel()[:, None], y.ravel()[:, None], lon.ravel(), lat.ravel()) / EARTH_RADIUS
    nearest, alone = distance.argmin(axis=1), screen.count.ravel() == 0
    reach = swaths.reach(lon, lat, nearest)
    gap = distance.min(axis=1)
    shown = screen.pixel.ravel()
    # A chord is hardly shorter than its arc; where the two disagree about the edge nothing is asked.
    certain = alone & (np.abs(gap / reach - 1) > 1e-3)
    np.testing.assert_array_equal(shown[certain & (gap <= reach)], nearest[certain & (gap <= reach)])
    assert (shown[certain & (gap > reach)] == -1).all()
    assert (shown >= 0).any() == (box != BOXES["beside the pixels"][2])


def test_no_seam_is_left_between_pixels_and_the_gap_to_the_next_orbit_stays():
    lon, lat = (
        np.concatenate(each) for each in zip(pass_over(41, 17, start=0), pass_over(41, 17, start=40), strict=True)
    )
    screen = swaths.Screen(lon, lat, (-15.0, -30.0, 55.0, 30.0), (240, 280))
    x, y = np.meshgrid(screen.x, screen.y)
    shown = screen.pixel
    assert (shown[(np.minimum(np.abs(x), np.abs(x - 40)) < 6) & (np.abs(y) < 6)] >= 0).all()
    assert (shown[(np.abs(x - 20) < 5) & (np.abs(y) < 4)] == -1).all()
    some = shown >= 0
    # The last line of the one and the first line of the other are neighbours in the file alone.
    away = great_circle(x[some], y[some], lon.ravel()[shown[some]], lat.ravel()[shown[some]])
    assert np.degrees(away.max() / EARTH_RADIUS) < 1.5


def test_cells_with_several_pixels_hold_their_mean_or_their_greatest():
    lon, lat = pass_over(300, 41, start=179, step=0.1)
    values = np.random.default_rng(1).normal(size=lon.shape)
    values[np.random.default_rng(2).random(lon.shape) < 0.2] = np.nan
    box, (rows, columns) = swaths.extent(lon, lat), (12, 9)
    screen = swaths.Screen(lon, lat, box, (rows, columns))
    east = np.mod(lon - box[0], 360)
    seen = 0
    for row in range(rows):
        for column in range(columns):
            low = [column * (box[2] - box[0]) / columns, box[1] + row * (box[3] - box[1]) / rows]
            high = [low[0] + (box[2] - box[0]) / columns, low[1] + (box[3] - box[1]) / rows]
            here = (east >= low[0]) & (east < high[0]) & (lat >= low[1]) & (lat < high[1])
            assert screen.count[row, column] == here.sum()
            if np.isfinite(values[here]).any():
                seen += 1
                assert screen.mean(values)[row, column] == pytest.approx(np.nanmean(values[here]))
                assert screen.greatest(values)[row, column] == np.nanmax(values[here])
    assert seen > 20


def test_a_box_is_the_smallest_around_the_pixels_also_across_the_date_line():
    lon, lat = pass_over(41, 17, start=178, middle=10)
    west, south, east, north = swaths.extent(lon, lat)
    assert -180 <= west < 180 < east < 200
    assert west <= np.mod(lon, 360).min() < west + 2
    assert east - 2 < np.mod(lon, 360).max() <= east
    assert (south < lat.min()) & (north > lat.max())
    assert swaths.extent(lon - 178, lat)[0] == pytest.approx(west - 178, abs=1e-6)
    assert swaths.extent(*pass_over(41, 17, start=0, middle=90))[::2] == (-180.0, 180.0)
    assert swaths.extent(np.full((2, 2), np.nan), np.full((2, 2), np.nan)) == (-180.0, -90.0, 180.0, 90.0)


@pytest.mark.parametrize("place", [(-179.9, 12.0), (180.3, 12.0), (0.0, 90.0), (10.0, -60.0)])
def test_the_nearest_pixel_is_found_across_the_date_line_and_at_the_pole(place):
    parts = pass_over(41, 17, start=178, middle=10), pass_over(41, 17, start=40, middle=90)
    lon, lat = (np.concatenate(each) for each in zip(*parts, strict=True))
    lon[3, 3] = lat[3, 3] = np.nan
    distance = great_circle(lon, lat, *place)
    found, away = swaths.nearest(lon, lat, place)
    assert found == np.unravel_index(np.nanargmin(distance), lon.shape)
    assert away == pytest.approx(np.nanmin(distance))


def test_a_place_has_the_pixel_that_reaches_there():
    lon, lat = pass_over(41, 17, start=178, middle=10)
    assert swaths.pixel_at(lon, lat, (lon[20, 8] + 0.3, lat[20, 8] - 0.3)) == (20, 8)
    assert swaths.pixel_at(lon, lat, (lon[20, 0] + 3.0, lat[20, 0])) is None
    assert swaths.pixel_at(lon[:1, :1], lat[:1, :1], (lon[0, 0] + 0.01, lat[0, 0])) == (0, 0)
    assert swaths.pixel_at(lon[:1, :1], lat[:1, :1], (lon[0, 0] + 1.0, lat[0, 0])) is None


def test_without_any_pixel_there_is_none_to_find():
    nothing = np.full((3, 2), np.nan)
    assert swaths.nearest(nothing, nothing, (0.0, 0.0)) is None
    assert swaths.pixel_at(nothing, nothing, (0.0, 0.0)) is None
    screen = swaths.Screen(nothing, nothing, (0.0, 0.0, 1.0, 1.0), (4, 4))
    assert (screen.pixel == -1).all()
    assert np.isnan(screen.mean(nothing)).all()
