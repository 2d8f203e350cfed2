"""Flagged pixels put together to events: places on the globe and in time, with an outline.

Two pixels are linked when their centres lie at most so many pixel diagonals and seconds apart; pixels linked directly or
through others are one group. Which pixels those are depends on the pixels alone, not on the granules in which they came nor
on their order. Distances are those of straight lines through the globe, so that neither the date line nor the poles need
anything of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from scipy import sparse, stats
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from phidias_lab.errors import InputError
from phidias_lab.methods.agreement import Estimate
from phidias_lab.methods.match_ups import EARTH_RADIUS

#: Decimals of a degree to which corners are rounded (about a metre), so that neighbours agree on those they have in common.
DECIMALS = 5
#: Edges of pixels that reach over more degrees of longitude than this (near the poles) are drawn along great circles.
LONG = 2.0


class Rules(NamedTuple):
    """When pixels make an event."""

    seed: float  # an event holds a pixel with at least this score ...
    grow: float  # ... all of its pixels have at least this one ...
    neighbours: int = 2  # ... and one of the former kind has at least so many of the latter beside it
    length: float = 1.1  # links, in mean diagonals of the two pixels; 1 where pixels touch at their corners
    seconds: float = 7200.0  # an orbit later the neighbouring swath is seen


class Pixels(NamedTuple):
    """One row for each pixel; longitudes of any turn."""

    time: np.ndarray  # datetime64
    latitude: np.ndarray
    longitude: np.ndarray
    score: np.ndarray
    latitude_bounds: np.ndarray  # (pixel, 4), the corners one after the other
    longitude_bounds: np.ndarray

    def take(self, rows: np.ndarray) -> Pixels:
        return Pixels(*(column[rows] for column in self))


class Event(NamedTuple):
    """A group of pixels that fits the rules."""

    id: str  # of time and place of the first pixel, so that it does not depend on how granules were cut
    start: np.datetime64
    end: np.datetime64
    geometry: shapely.Geometry  # EPSG:4326, cut at the date line (RFC 7946, 3.1.9)
    area: float  # km2
    latitude: float  # of the middle of the pixels
    longitude: float
    score: float  # combined: sum / sqrt(number), the SNR of the mean where scores are SNRs (Stouffer)
    peak: int  # the pixel of the highest score
    rows: np.ndarray  # its pixels
    replaces: tuple[str, ...]  # earlier events that turned out to be part of this one


class Clusters:
    """The groups of all pixels that came; more can come at any time and in any order."""

    def __init__(self, rules: Rules):
        if not rules.grow <= rules.seed:
            raise InputError(
                f"Events were to grow from a score of {rules.seed:g} down to {rules.grow:g}. "
                "Choose a growing threshold that is not above that of the seeds."
            )
        self.rules = rules
        empty = [np.empty(0, "datetime64[ns]"), *(np.empty(0) for _ in range(3)), *(np.empty((0, 4)) for _ in range(2))]
        self.pixels = Pixels(*empty)
        self._reach, self._degree = np.empty(0), np.empty(0, np.int64)
        self._group = np.empty(0, np.int64)
        self._told = np.empty(0, object)

    def add(self, pixels: Pixels) -> None:
        """Pixels that have a place, a time, corners and at least the score to grow; others are left out."""
        kinds = ["datetime64[ns]", *[float] * 5]
        pixels = Pixels(*(np.asarray(column, kind) for column, kind in zip(pixels, kinds, strict=True)))
        good = (pixels.score >= self.rules.grow) & np.isfinite(pixels.latitude_bounds + pixels.longitude_bounds).all(
            axis=1
        )
        good &= np.isfinite(pixels.latitude + pixels.longitude) & ~np.isnat(pixels.time)
        new = pixels.take(np.flatnonzero(good))
        if not new.time.size:
            return
        before = self.pixels.time.size
        self.pixels = Pixels(*(np.concatenate(both) for both in zip(self.pixels, new, strict=True)))
        self._reach = np.r_[self._reach, self.rules.length * diagonal(new.latitude_bounds, new.longitude_bounds)]
        self._degree = np.r_[self._degree, np.zeros(new.time.size, np.int64)]
        self._told = np.r_[self._told, np.full(new.time.size, None)]
        # Groups are numbered by their first row.
        group = np.r_[self._group, np.arange(before, before + new.time.size)]
        one, other = self._links(before)
        np.add.at(self._degree, one, 1)
        np.add.at(self._degree, other, 1)
        graph = sparse.coo_array((np.ones(one.size, bool), (group[one], group[other])), shape=(group.size, group.size))
        joined = csgraph.connected_components(graph, directed=False)[1][group]
        _, first, which = np.unique(joined, return_index=True, return_inverse=True)
        self._group = first[which]

    def labels(self) -> np.ndarray:
        """The event of each pixel that was taken in, numbered from 0 in the order of their first pixels; -1 for none."""
        seed = (self.pixels.score >= self.rules.seed) & (self._degree >= self.rules.neighbours)
        chosen = np.isin(self._group, self._group[seed])
        order = np.lexsort((self.pixels.longitude, self.pixels.latitude, self.pixels.time))
        order = order[chosen[order]]
        _, first, which = np.unique(self._group[order], return_index=True, return_inverse=True)
        rank = np.empty(first.size, np.int64)
        rank[np.argsort(first)] = np.arange(first.size)
        label = np.full(self._group.size, -1)
        label[order] = rank[which]
        return label

    def events(self) -> list[Event]:
        """The events so far, in the order of their first pixels."""
        label = self.labels()
        order = np.lexsort((self.pixels.longitude, self.pixels.latitude, self.pixels.time, label))
        order = order[label[order] >= 0]
        made = []
        for rows in np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if order.size else []:
            event = _event(self.pixels, rows)
            earlier = {told for told in self._told[rows] if told} - {event.id}
            self._told[rows] = event.id
            made.append(event._replace(replaces=tuple(sorted(earlier))))
        return made

    def release(self, before: np.datetime64) -> None:
        """Forget the groups that no pixel from `before` on can reach."""
        last = np.full(self._group.size, np.datetime64("1678", "ns"))
        np.maximum.at(last, self._group, self.pixels.time)
        open_yet = last + np.timedelta64(int(self.rules.seconds * 1e9), "ns") >= np.datetime64(before, "ns")
        keep = np.flatnonzero(open_yet[self._group])
        self.pixels = self.pixels.take(keep)
        self._reach, self._degree, self._told = self._reach[keep], self._degree[keep], self._told[keep]
        _, first, which = np.unique(self._group[keep], return_index=True, return_inverse=True)
        self._group = first[which]

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on later, as arrays."""
        return self.pixels._asdict() | {"told": np.where(self._told == None, "", self._told).astype(str)}  # noqa: E711

    @classmethod
    def of(cls, rules: Rules, state: dict[str, np.ndarray]) -> Clusters:
        """The clusters of a state."""
        made = cls(rules)
        made.add(Pixels(*(state[name] for name in Pixels._fields)))
        made._told = np.array([told or None for told in state["told"].tolist()], object)
        return made

    def _links(self, before: int) -> tuple[np.ndarray, np.ndarray]:
        """Linked pixels, of which one at least came after the first `before`."""
        seconds = self.pixels.time.astype("datetime64[ns]").astype(np.int64)
        window = int(self.rules.seconds * 1e9)
        near = (seconds >= seconds[before:].min() - window) & (seconds <= seconds[before:].max() + window)
        rows = np.flatnonzero(near)
        points = on_sphere(self.pixels.latitude[rows], self.pixels.longitude[rows])
        farthest = _chord(self._reach[rows].max()) * (1 + 1e-12)
        one, other = cKDTree(points).query_pairs(farthest, output_type="ndarray").T
        apart = np.sqrt(np.square(points[one] - points[other]).sum(axis=1))
        one, other = rows[one], rows[other]
        keep = (one >= before) | (other >= before)
        keep &= apart <= _chord((self._reach[one] + self._reach[other]) / 2)
        keep &= np.abs(seconds[one] - seconds[other]) <= window
        return one[keep], other[keep]


def false_objects(
    sizes: np.ndarray, peaks: np.ndarray, screened: int, size: int = 1, peak: float = -np.inf, level: float = 0.95
) -> Estimate:
    """How many false events with at least `size` pixels and a peak of at least `peak` a million clean pixels give.

    `sizes` and `peaks` are those of the events of the same `screened` pixels with the signs of their scores changed: what
    noise that is as often negative as positive makes alone. With the exact interval of a Poisson number (Garwood 1936,
    Biometrika 28, 437-442).
    """
    number = int(((np.asarray(sizes) >= size) & (np.asarray(peaks) >= peak)).sum())
    tail = (1 - level) / 2
    low = stats.chi2.ppf(tail, 2 * number) / 2 if number else 0.0
    ends = np.array([number, low, stats.chi2.isf(tail, 2 * number + 2) / 2]) * 1e6 / screened
    return Estimate(*ends.tolist())


# Places on the globe -------------------------------------------------------------------------------------------------


def on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points of the unit sphere, in the last dimension."""
    lat, lon = (np.deg2rad(np.asarray(part, float)) for part in (latitude, longitude))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def diagonal(latitude_bounds: np.ndarray, longitude_bounds: np.ndarray) -> np.ndarray:
    """The length of the longer diagonal of pixels of four corners, in metres."""
    corners = on_sphere(latitude_bounds, longitude_bounds)
    chord = np.sqrt(np.square(corners[:, :2] - corners[:, 2:]).sum(axis=-1)).max(axis=1)
    return 2 * EARTH_RADIUS * np.arcsin(np.minimum(chord / 2, 1))


def outline(latitude_bounds: np.ndarray, longitude_bounds: np.ndarray) -> shapely.Geometry:
    """The polygon or polygons of pixels of given corners, cut at the date line."""
    lat, lon = (np.round(np.asarray(part, float), DECIMALS) for part in (latitude_bounds, longitude_bounds))
    plain = (np.abs(lon) <= 180).all(axis=1) & (np.ptp(lon, axis=1) < LONG)
    parts = [shapely.make_valid(shapely.polygons(np.stack([lon, lat], axis=-1)[plain]))]
    parts += [_cut(*pixel) for pixel in zip(lat[~plain], lon[~plain], strict=True)]
    union = shapely.union_all(np.concatenate(parts))
    polygons = [part for part in shapely.get_parts([union]) if part.geom_type == "Polygon"]
    # A hole is a pixel at least; smaller ones come from rounding.
    least = 0.01 * sum(_ring_area(part.exterior) for part in polygons) / len(lat)
    polygons = [
        shapely.Polygon(part.exterior, [hole for hole in part.interiors if _ring_area(hole) > least])
        for part in polygons
    ]
    return shapely.orient_polygons(polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons))


def area(geometry: shapely.Geometry) -> float:
    """The area in km2 of polygons in longitude and latitude, on the sphere; edges are straight in these two.

    The surface integral of cos(lat) is the line integral of -sin(lat) along the parallels, exact for each edge.
    """
    total = 0.0
    for polygon in shapely.get_parts([geometry]):
        rings = [_ring_area(ring) for ring in (polygon.exterior, *polygon.interiors)]
        total += rings[0] - sum(rings[1:])
    return total * (EARTH_RADIUS / 1e3) ** 2


# The inside ---------------------------------------------------------------------------------------------------------


def _event(pixels: Pixels, rows: np.ndarray) -> Event:
    """The event of pixels in the order of their time."""
    mine = pixels.take(rows)
    geometry = outline(mine.latitude_bounds, mine.longitude_bounds)
    x, y, z = on_sphere(mine.latitude, mine.longitude).mean(axis=0)
    lat, lon = float(mine.latitude[0]), float(_turned(mine.longitude[0]))
    when = str(mine.time[0].astype("datetime64[s]")).replace("-", "").replace(":", "")
    return Event(
        f"{when}Z_{abs(lat):06.3f}{'N' if lat >= 0 else 'S'}_{abs(lon):07.3f}{'E' if lon >= 0 else 'W'}",
        mine.time[0],
        mine.time[-1],
        geometry,
        area(geometry),
        float(np.rad2deg(np.arctan2(z, np.hypot(x, y)))),
        float(np.rad2deg(np.arctan2(y, x))),
        float(mine.score.sum() / np.sqrt(rows.size)),
        int(rows[np.argmax(mine.score)]),
        rows,
        (),
    )


def _chord(metres):
    """The straight line under an arc of so many metres, on the unit sphere."""
    return 2 * np.sin(np.minimum(metres / EARTH_RADIUS, np.pi) / 2)


def _turned(longitude: np.ndarray) -> np.ndarray:
    """The same longitude from -180 to below 180."""
    return np.mod(np.asarray(longitude) + 180.0, 360.0) - 180.0


def _cut(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """The parts of a pixel that lies across the date line, around a pole or near one."""
    corners = list(zip(lat.tolist(), lon.tolist(), strict=True))
    ends = zip(corners, [*corners[1:], corners[0]], strict=True)
    lat, lon = np.concatenate([_edge(one, other) for one, other in ends], axis=1)
    steps = _turned(np.diff(np.r_[lon, lon[0]]))
    lon = _turned(lon[0]) + np.r_[0.0, np.cumsum(steps)]
    lat = np.r_[lat, lat[0]]
    if abs(steps.sum()) > 180:  # the ring goes around a pole
        pole = np.copysign(90.0, lat.mean())
        lon, lat = np.r_[lon, lon[-1], lon[0]], np.r_[lat, pole, pole]
    ring = shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat])))
    parts = []
    for shift in (-360.0, 0.0, 360.0):
        part = shapely.intersection(ring, shapely.box(shift - 180, -90, shift + 180, 90))
        parts.append(shapely.transform(part, lambda xy, shift=shift: np.round(xy - [shift, 0.0], DECIMALS)))
    return shapely.make_valid([part for part in parts if part.area > 0])


def _edge(one: tuple[float, float], other: tuple[float, float]) -> np.ndarray:
    """Latitudes and longitudes of the great circle from one corner up to, without, the other. Both pixels at an edge get the
    same points, since it is always drawn from the same end."""
    many = int(np.ceil(abs(_turned(one[1] - other[1])) / LONG))
    if many < 2:
        return np.array(one)[:, None]
    first, last = (np.array(end) for end in sorted([one, other], key=lambda end: (end[0], _turned(end[1]))))
    a, b = on_sphere(first[0], first[1]), on_sphere(last[0], last[1])
    angle = np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)
    share = np.arange(1, many)[:, None] / many
    x, y, z = ((np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)).T
    inner = np.rad2deg([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)])
    if tuple(first) != tuple(one):
        inner = inner[:, ::-1]
    return np.column_stack([np.array(one), inner])


def _ring_area(ring: shapely.LinearRing) -> float:
    lon, lat = np.deg2rad(shapely.get_coordinates(ring)).T
    # sin(lat) along an edge is on average sin(middle) sinc(half of the difference).
    return abs(float((np.diff(lon) * np.sin((lat[1:] + lat[:-1]) / 2) * np.sinc(np.diff(lat) / (2 * np.pi))).sum()))
