"""Coastlines that need no network: lines to draw, and whether a place is land.

Natural Earth (public domain) at 1:110 million and 1:50 million; origin and licence in ORIGIN.md beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from phidias_lab.errors import ParameterError, nearest

RESOLUTIONS = ("110m", "50m")
_HERE = Path(__file__).parent


@lru_cache(maxsize=len(RESOLUTIONS))
def _rings(resolution: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (n, 2) in degrees, where each ring starts, and each ring's polygon."""
    if resolution not in RESOLUTIONS:
        raise ParameterError(f"There is no coastline of resolution {resolution!r}. {nearest(resolution, RESOLUTIONS)}")
    with np.load(_HERE / f"land_{resolution}.npz") as stored:
        points = np.cumsum(stored["steps"], axis=0) * stored["scale"] + stored["translate"]
        return points, stored["starts"], stored["polygon"]


@lru_cache(maxsize=len(RESOLUTIONS))
def _all_lines(resolution: str) -> tuple[np.ndarray, np.ndarray]:
    points, starts, _ = _rings(resolution)
    lon, lat = points.T
    ends = np.zeros(len(lon), bool)
    ends[starts[1:] - 1] = True
    # A step of more than half a turn is the date line, which would be drawn right across the map.
    ends[:-1] |= np.abs(np.diff(lon)) > 180
    at = np.flatnonzero(ends) + 1
    return np.insert(lon, at, np.nan), np.insert(lat, at, np.nan)


def lines(resolution: str = "50m", region: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Coastlines as longitudes and latitudes in degrees; NaN stands between two lines.

    `region` is (west, south, east, north); east may exceed 180. Only segments that may touch the box are given, with the
    longitudes of the box's own turn.
    """
    lon, lat = _all_lines(resolution)
    if region is None:
        return lon.copy(), lat.copy()
    west, south, east, north = region
    pieces = []
    for turn in (-360.0, 0.0, 360.0):
        x = lon + turn
        # A segment stays when its own box meets the region: its two ends may both lie outside.
        with np.errstate(invalid="ignore"):
            low_x, high_x = np.fmin(x[:-1], x[1:]), np.fmax(x[:-1], x[1:])
            low_y, high_y = np.fmin(lat[:-1], lat[1:]), np.fmax(lat[:-1], lat[1:])
            meets = (low_x <= east) & (high_x >= west) & (low_y <= north) & (high_y >= south)
        meets &= ~np.isnan(x[:-1]) & ~np.isnan(x[1:])
        keep = np.zeros(len(x), bool)
        keep[:-1] |= meets
        keep[1:] |= meets
        if not keep.any():
            continue
        index = np.flatnonzero(keep)
        # Two kept points in a row belong together only where the segment between them was kept.
        gap = np.flatnonzero((np.diff(index) > 1) | ~meets[index[:-1].clip(max=len(meets) - 1)]) + 1
        pieces.append((np.insert(x[index], gap, np.nan), np.insert(lat[index], gap, np.nan)))
    if not pieces:
        return np.empty(0), np.empty(0)
    joined = [np.concatenate([np.append(p[k], np.nan) for p in pieces])[:-1] for k in (0, 1)]
    return joined[0], joined[1]


@lru_cache(maxsize=len(RESOLUTIONS))
def _land(resolution: str):
    """The land as one shape on longitudes -180 to 180."""
    import shapely

    points, starts, polygon_of = _rings(resolution)
    polygons: dict[int, list[np.ndarray]] = {}
    for start, end, polygon in zip(starts[:-1], starts[1:], polygon_of, strict=True):
        ring = points[start:end].copy()
        # Unroll the longitudes, so that a ring across the date line is one piece ...
        step = np.diff(ring[:, 0])
        ring[1:, 0] -= 360 * np.cumsum(np.round(step / 360))
        if abs(ring[-1, 0] - ring[0, 0]) > 180:  # ... and one around the pole is closed along it.
            pole = -90.0 if ring[:, 1].mean() < 0 else 90.0
            ring = np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole], ring[0]]])
        polygons.setdefault(int(polygon), []).append(ring)
    shapes = shapely.make_valid([shapely.Polygon(rings[0], rings[1:]) for rings in polygons.values()])
    turned = [shapely.transform(shapes, lambda xy, t=turn: xy + np.array([t, 0])) for turn in (-360.0, 0.0, 360.0)]
    world = shapely.box(-180, -90, 180, 90)
    every = np.concatenate(turned)
    every = every[shapely.intersects(every, world)]
    land = shapely.union_all(shapely.intersection(every, world))
    return land


def is_land(longitude, latitude, resolution: str = "50m") -> np.ndarray:
    """Whether places (degrees; arrays broadcast) are land. Lakes count as land, as in the source; NaN is no land."""
    import shapely

    lon, lat = np.broadcast_arrays(np.asarray(longitude, float), np.asarray(latitude, float))
    lon = np.mod(lon + 180.0, 360.0) - 180.0
    good = np.isfinite(lon) & np.isfinite(lat)
    if not good.any():
        return np.zeros(lon.shape, bool)
    # The land around the places alone is searched more than ten times as fast as that of the whole world.
    x, y, margin = lon[good], lat[good], 0.1
    near = shapely.clip_by_rect(
        _land(resolution), x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin
    )
    shapely.prepare(near)
    return good & shapely.intersects_xy(near, lon, lat)
