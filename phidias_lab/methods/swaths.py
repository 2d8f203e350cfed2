"""Pixels with places of their own, such as those of a swath, on a map: which of them is seen in each cell of the screen.

Distances are straight lines between points of the unit sphere, so that neither the date line nor a pole is special.
"""

from __future__ import annotations

import numpy as np

from phidias_lab.methods.sections import TURN
from phidias_lab.methods.variational.geometry import EARTH_RADIUS, great_circle

#: Longitudes without any pixel, in degrees, that are left out of a map; where there are fewer it shows the whole turn.
WIDEST_GAP = 20.0
#: A pixel reaches a little further than half of its diagonal, so that no seam is left between neighbours.
OVERLAP = 1.1
#: A pixel without neighbours, which tell its size, reaches this far, in metres.
ALONE = 5_000.0
#: Of so many pixels the size is looked at where the size of all is asked for.
SAMPLE = 2_000


def span(longitude) -> tuple[float, float]:
    """The least and the greatest of longitudes in the turn in which they lie closest together, the greatest perhaps beyond
    180; the whole turn where they leave no gap of `WIDEST_GAP`."""
    lon = np.asarray(longitude).ravel()
    lon = lon[np.isfinite(lon)]
    if not lon.size:
        return -180.0, 180.0
    bins = np.flatnonzero(np.bincount((np.mod(lon, TURN) * 10).astype(int) % 3600, minlength=3600)) / 10
    gaps = np.diff(np.r_[bins, bins[0] + TURN])
    widest = int(gaps.argmax())
    if gaps[widest] < WIDEST_GAP:
        return -180.0, 180.0
    first = bins[(widest + 1) % bins.size]
    along = np.mod(lon - lon.dtype.type(first), TURN)
    west, east = float(first + along.min()), float(first + along.max())
    turns = TURN * float(np.floor((west + 180.0) / TURN))
    return west - turns, east - turns


def extent(longitude, latitude) -> tuple[float, float, float, float]:
    """West, south, east and north of the smallest box around all pixels; east may exceed 180.

    Without pixels it is the whole globe.
    """
    lon, lat = (np.asarray(each) for each in (longitude, latitude))
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.any():
        return -180.0, -90.0, 180.0, 90.0
    south, north = float(lat[known].min()), float(lat[known].max())
    west, east = span(lon[known])
    pad = max(float(np.degrees(_usual_reach(lon, lat))), 0.01)
    if east - west < TURN:
        side = min(pad / max(np.cos(np.radians(max(abs(south), abs(north)))), 0.05), WIDEST_GAP / 2)
        west, east = west - side, east + side
    return west, max(south - pad, -90.0), east, min(north + pad, 90.0)


def nearest(longitude, latitude, place: tuple[float, float]) -> tuple[tuple[int, ...], float] | None:
    """The indices of the pixel whose centre is nearest to a longitude and latitude, and its distance in metres."""
    lon, lat = (np.asarray(each) for each in (longitude, latitude))
    flat_lon, flat_lat = lon.ravel(), lat.ravel()
    # What is nearer than the width of the band cannot lie outside it.
    for band in (1.0, 10.0, 180.0):
        near = np.flatnonzero((np.abs(flat_lat - place[1]) <= band) & np.isfinite(flat_lon))
        if not near.size:
            continue
        distance = great_circle(flat_lon[near].astype(float), flat_lat[near].astype(float), *place)
        best = int(distance.argmin())
        if band == 180.0 or distance[best] <= np.radians(band) * EARTH_RADIUS:
            found = np.unravel_index(near[best], lon.shape)
            return tuple(int(each) for each in found), float(distance[best])
    return None


def pixel_at(longitude, latitude, place: tuple[float, float]) -> tuple[int, ...] | None:
    """The indices of the pixel that lies at a longitude and latitude, if one reaches so far."""
    found = nearest(longitude, latitude, place)
    if found is None:
        return None
    lon, lat = (np.asarray(each) for each in (longitude, latitude))
    far = float(reach(lon, lat, np.array([np.ravel_multi_index(found[0], lon.shape)]))[0]) * EARTH_RADIUS
    return found[0] if found[1] <= max(far, ALONE) else None


def _vectors(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    lam, phi = np.radians(longitude.astype(float)), np.radians(latitude.astype(float))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def reach(longitude: np.ndarray, latitude: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How far the pixels with these flat indices reach from their centres: half of the diagonal to the nearer neighbour
    along both dimensions, since beyond the other one there may be a gap or the next orbit."""
    lon, lat = longitude.ravel(), latitude.ravel()
    here = _vectors(lon[at], lat[at])
    squares = np.zeros(at.size)
    for axis, size in enumerate(longitude.shape):
        step = int(np.prod(longitude.shape[axis + 1 :]))
        position = at // step % size
        nearer = np.full(at.size, np.inf)
        for way in (-1, 1):
            there = (position + way >= 0) & (position + way < size)
            other = np.where(there, at + way * step, at)
            distance = ((_vectors(lon[other], lat[other]) - here) ** 2).sum(axis=-1)
            nearer = np.fmin(nearer, np.where(there & (distance > 0), distance, np.inf))
        squares += np.where(np.isfinite(nearer), nearer, 0.0)
    return OVERLAP * np.sqrt(squares) / 2


def _usual_reach(longitude, latitude) -> float:
    """How far large pixels reach, by some of them."""
    lon, lat = np.asarray(longitude), np.asarray(latitude)
    known = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
    if not known.size:
        return 0.0
    some = known[:: max(known.size // SAMPLE, 1)]
    return float(np.percentile(reach(lon, lat, some), 99)) * 1.5


class Screen:
    """The cells of a picture, row 0 in the south, and the pixels in each.

    A cell in which no centre of a pixel lies shows the nearest pixel that reaches so far; `pixel` holds the flat index of
    one pixel for each cell (-1: none), `count` how many centres lie in it.
    """

    def __init__(self, longitude, latitude, box: tuple[float, float, float, float], shape: tuple[int, int]):
        lon, lat = (np.asarray(each) for each in (longitude, latitude))
        (rows, columns), (west, south, east, north) = shape, box
        self.box, self.shape = box, shape
        self.x = west + (np.arange(columns) + 0.5) * (east - west) / columns
        self.y = south + (np.arange(rows) + 0.5) * (north - south) / rows
        flat_lon, flat_lat = lon.ravel(), lat.ravel()
        with np.errstate(invalid="ignore"):
            along = np.mod(flat_lon - lon.dtype.type(west), TURN)
            inside = (along <= east - west) & (flat_lat >= south) & (flat_lat <= north)
            self._inside = np.flatnonzero(inside)
        column = ((along[self._inside]) * (columns / (east - west))).astype(np.int32)
        row = ((flat_lat[self._inside] - south) * (rows / (north - south))).astype(np.int32)
        self._cell = np.minimum(row, rows - 1) * columns + np.minimum(column, columns - 1)
        self.count = np.bincount(self._cell, minlength=rows * columns)
        pixel = np.full(rows * columns, -1)
        pixel[self._cell] = self._inside
        near = np.flatnonzero(_around(along, flat_lat, inside, box, _usual_reach(lon, lat)))
        self._fill(pixel, np.r_[pixel[pixel >= 0], near], lon, lat)
        self.pixel, self.count = pixel.reshape(shape), self.count.reshape(shape)

    def _fill(self, pixel: np.ndarray, known: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> None:
        """Into empty cells the nearest of the known pixels. Where cells hold several, one of each is enough to know."""
        from scipy.spatial import cKDTree

        empty = np.flatnonzero(pixel < 0)
        if not (known.size and empty.size):
            return
        far = reach(lon, lat, known)
        tree = cKDTree(_vectors(lon.ravel()[known], lat.ravel()[known]), balanced_tree=False)
        centres = _vectors(self.x[empty % self.shape[1]], self.y[empty // self.shape[1]])
        distance, at = tree.query(centres, distance_upper_bound=float(far.max()) + 1e-12)
        found = np.isfinite(distance)
        found[found] = distance[found] <= far[at[found]]
        pixel[empty[found]] = known[at[found]]

    def mean(self, values) -> np.ndarray:
        """The mean of the values in each cell; NaN where there is none."""
        values = np.asarray(values).ravel()
        inside, cell = self._finite(values)
        number = np.bincount(cell, minlength=self.count.size)
        total = np.bincount(cell, inside, minlength=self.count.size)
        with np.errstate(invalid="ignore"):
            return self._filled(total / number, values)

    def greatest(self, values) -> np.ndarray:
        """The greatest of the values in each cell; NaN where there is none."""
        values = np.asarray(values).ravel()
        inside, cell = self._finite(values)
        found = np.full(self.count.size, -np.inf)
        np.maximum.at(found, cell, inside.astype(float))
        return self._filled(np.where(np.isneginf(found), np.nan, found), values)

    def _finite(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = values[self._inside]
        good = np.isfinite(inside)
        return inside[good], self._cell[good]

    def _filled(self, found: np.ndarray, values: np.ndarray) -> np.ndarray:
        found, pixel = found.reshape(self.shape), self.pixel
        return np.where((self.count == 0) & (pixel >= 0), values[pixel], found)


def _around(along, latitude, inside, box, margin: float) -> np.ndarray:
    """Pixels outside a box that may reach into it; `along` are longitudes eastwards from its western edge."""
    west, south, east, north = box
    up = np.degrees(margin)
    highest = max(abs(south), abs(north)) + up
    with np.errstate(invalid="ignore"):
        band = ~inside & (latitude >= south - up) & (latitude <= north + up)
        if highest >= 90.0 - 1e-9:
            return band & np.isfinite(along)
        side = up / np.cos(np.radians(highest))
        return band & ((along <= east - west + side) | (along >= TURN - side))
