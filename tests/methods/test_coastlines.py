"""Places on Earth are land or sea as an atlas says, and the coast can be drawn without lines across the map."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phidias_lab.errors import ParameterError
from phidias_lab.methods import coastlines
from phidias_lab.methods.coastlines import make

LAND = {
    "Paris": (2.35, 48.85),
    "Brasilia": (-47.9, -15.8),
    "Alice Springs": (133.9, -23.7),
    "South Pole": (0.0, -90.0),
    "inner Antarctica at the date line": (180.0, -85.0),
    "Chukotka, east of the date line": (-175.0, 66.8),
    "Chukotka, west of the date line": (175.0, 67.0),
}
SEA = {
    "Gotland Deep": (20.0, 57.3),
    "middle of the Atlantic": (-30.0, 40.0),
    "Pacific at the date line": (180.0, 0.0),
    "Bering Sea": (-178.0, 58.0),
    "North Pole": (0.0, 90.0),
    "Balearic Sea": (5.0, 40.0),
}


@pytest.mark.parametrize("resolution", coastlines.RESOLUTIONS)
class TestLandAndSea:
    @pytest.mark.parametrize("place", LAND)
    def test_land_is_land(self, resolution, place):
        assert coastlines.is_land(*LAND[place], resolution)

    @pytest.mark.parametrize("place", SEA)
    def test_sea_is_sea(self, resolution, place):
        assert not coastlines.is_land(*SEA[place], resolution)

    def test_29_per_cent_of_the_globe_is_land(self, resolution):
        lat = np.arange(-89.5, 90)
        land = coastlines.is_land(np.arange(-179.5, 180), lat[:, None], resolution)
        # The share of land on Earth is 29.2 % (CIA World Factbook); the ice shelves of Antarctica are sea here.
        assert np.average(land.mean(axis=1), weights=np.cos(np.deg2rad(lat))) == pytest.approx(0.29, abs=0.01)

    def test_longitudes_beyond_180_are_the_same_places(self, resolution):
        lon, lat = np.linspace(-180, 180, 500), np.linspace(-80, 80, 500)
        here = coastlines.is_land(lon, lat, resolution)
        assert np.array_equal(here, coastlines.is_land(lon + 360, lat, resolution))
        assert 0 < here.sum() < here.size

    def test_no_line_crosses_the_map(self, resolution):
        lon, lat = coastlines.lines(resolution)
        assert np.nanmax(np.abs(np.diff(lon))) < 20
        assert np.array_equal(np.isnan(lon), np.isnan(lat))
        assert np.nanmin(lon) >= -180
        assert np.nanmax(lon) <= 180

    def test_the_coast_separates_land_from_sea(self, resolution):
        lon, lat = coastlines.lines(resolution, (-10, 36, 3, 44))  # around Iberia
        good = np.isfinite(lon[:-1]) & np.isfinite(lon[1:])
        x0, y0, x1, y1 = lon[:-1][good], lat[:-1][good], lon[1:][good], lat[1:][good]
        across = np.array([y0 - y1, x1 - x0]) / np.hypot(x1 - x0, y1 - y0) * 1e-3
        middle = np.array([x0 + x1, y0 + y1]) / 2
        left, right = (coastlines.is_land(*(middle + side * across), resolution) for side in (1, -1))
        assert (left != right).all()


def test_the_fine_coast_has_more_points_than_the_coarse():
    assert len(coastlines.lines("50m")[0]) > 5 * len(coastlines.lines("110m")[0])


def test_a_region_keeps_every_segment_that_touches_it_and_none_far_away():
    box = (9.0, 53.0, 30.0, 66.0)
    lon, lat = coastlines.lines("50m", box)
    assert np.nanmin(lon) > 5
    assert np.nanmax(lon) < 34
    whole_lon, whole_lat = coastlines.lines("50m")
    inside = (whole_lon > 9) & (whole_lon < 30) & (whole_lat > 53) & (whole_lat < 66)
    kept = set(zip(lon, lat, strict=True))
    assert inside.sum() > 500
    assert all(point in kept for point in zip(whole_lon[inside], whole_lat[inside], strict=True))


def test_a_region_across_the_date_line_is_drawn_on_its_own_turn():
    lon, _ = coastlines.lines("50m", (170, 60, 200, 75))
    assert np.nanmin(lon) > 150
    assert np.nanmax(lon) > 185


def test_a_region_of_open_sea_has_no_coast():
    lon, lat = coastlines.lines("50m", (-40, 30, -35, 35))
    assert len(lon) == len(lat) == 0


def test_an_unknown_resolution_is_refused_with_the_known_ones():
    with pytest.raises(ParameterError, match="50m"):
        coastlines.lines("51m")


def test_a_topojson_square_becomes_a_closed_ring(tmp_path):
    # Two arcs make the square; the second is walked backwards. Positions are integers times 0.5 plus an origin.
    topology = {
        "type": "Topology",
        "transform": {"scale": [0.5, 0.5], "translate": [10.0, 40.0]},
        "arcs": [[[0, 0], [2, 0], [0, 2]], [[0, 0], [0, 2], [2, 0]]],
        "objects": {
            "land": {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon", "arcs": [[[0, -2]]]}]}
        },
    }
    (tmp_path / "square.json").write_text(json.dumps(topology))
    make.make(tmp_path / "square.json", tmp_path / "square.npz")
    with np.load(tmp_path / "square.npz") as stored:
        points = np.cumsum(stored["steps"], axis=0) * stored["scale"] + stored["translate"]
        assert stored["starts"].tolist() == [0, 5]
    assert points.tolist() == [[10, 40], [11, 40], [11, 41], [10, 41], [10, 40]]
