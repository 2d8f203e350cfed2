"""Which samples of a field lie near each observation, in space and time, and what they say together.

Pairs are found first (`scattered` for swaths and points, `gridded` for a regular grid) and then put together
(`nearest`, or a mean with or without the weights of a footprint). Both give exactly the pairs of a comparison of all
with all: great-circle distance on the sphere at most `radius`, time at most `window` apart, ends included.

Scattered samples are sorted once by cell and time, the cells being columns of latitude bands, wide enough that the
circle around an observation meets at most four. The candidates of an observation are then four runs of that order,
found by bisection, and their number is known before they are formed. So memory is bounded, the order of the result is
fixed, and there is no tree: a k-d tree has neither of the first two, and is slower here
(benchmarks/ocean_match_ups.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

EARTH_RADIUS = 6371.0088e3  # m, mean radius (Moritz 2000, Journal of Geodesy 74, 128-133)
#: Candidates that are looked at together: small enough for a cache of a few MB per core to help, large enough for numpy.
MOST = 400_000
#: Share by which circles and windows are widened while candidates are sought; the exact test comes after.
_SLACK = 1e-9


class Places(NamedTuple):
    """Degrees, and seconds since any epoch; vectors of equal length."""

    longitude: np.ndarray
    latitude: np.ndarray
    time: np.ndarray


class Pairs(NamedTuple):
    """Pairs of one observation and one sample, those of one observation together, and all of them in one `Pairs`."""

    observation: np.ndarray
    sample: np.ndarray
    distance: np.ndarray  # m, along the great circle
    lag: np.ndarray  # s, sample minus observation


class Matched(NamedTuple):
    """For each observation what the samples near it say; NaN where there is none."""

    value: np.ndarray
    deviation: np.ndarray  # standard deviation of the samples; NaN for fewer than two
    number: np.ndarray  # samples with a value
    distance: np.ndarray  # m, mean over the samples (of the one that is taken, for `nearest`)
    lag: np.ndarray  # s, likewise


def scattered(observations: Places, samples: Places, radius: float, window: float, most: int = MOST) -> Iterator[Pairs]:
    """All pairs of observations and samples at most `radius` metres and `window` seconds apart.

    Places that are not finite have no pairs. `most` bounds the candidates that are held at once (one observation's own
    are never divided).
    """
    cells = _Cells(radius)
    good = np.flatnonzero(_finite(samples))
    if not good.size:
        return
    lon, lat, time = (np.asarray(part, float)[good] for part in samples)
    order, lookup = cells.sort(lon, lat, time)
    points, origin = _points(lon[order], lat[order], time[order]), good[order]
    asked = np.flatnonzero(_finite(observations))
    lon, lat, time = (np.asarray(part, float)[asked] for part in observations)
    # Observations of one cell and time one after the other, so that their candidates are in the cache.
    order = np.lexsort((time, cells.of(lon, lat)))
    asked, lon, lat, time = asked[order], lon[order], lat[order], time[order]
    first, number = lookup(lon, lat, time, window)
    here = _points(lon, lat, time)
    for part in portions(number.sum(axis=1), most):
        counts = number[part]
        row = np.repeat(np.arange(part.start, part.stop), counts.sum(axis=1))
        found = runs(first[part].ravel(), counts.ravel())
        yield from _near(asked, here, row, origin, points, found, radius, window)


def gridded(
    observations: Places,
    latitude: np.ndarray,
    longitude: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    radius: float,
    window: float,
    most: int = MOST,
) -> Iterator[Pairs]:
    """The same for the nodes of a grid, found by their index: sample = (step * rows + row) * columns + column.

    `latitude` rises or falls, `longitude` rises over at most one turn. Step k stands for the time from start[k] to end[k],
    both of which never fall; an observation within it is at no distance in time, and the lag is that of its middle.
    """
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    start, end = np.asarray(start, float), np.asarray(end, float)
    asked = np.flatnonzero(_finite(observations))
    lon, lat, time = (np.asarray(part, float)[asked] for part in observations)
    order = np.argsort(time, kind="stable")
    asked, lon, lat, time = asked[order], lon[order], lat[order], time[order]
    here = _points(lon, lat, time)
    angle = np.rad2deg(radius / EARTH_RADIUS) * (1 + _SLACK)
    falls = latitude.size > 1 and latitude[0] > latitude[-1]
    rising = latitude[::-1] if falls else latitude
    south, north = np.searchsorted(rising, lat - angle, "left"), np.searchsorted(rising, lat + angle, "right")
    rows = np.column_stack([rising.size - north, rising.size - south]) if falls else np.column_stack([south, north])
    # Three turns side by side, of which an observation sees at most one.
    west = longitude[0] if longitude.size else 0.0
    turned = west + np.mod(lon - west, 360.0)
    turns = np.concatenate([longitude - 360.0, longitude, longitude + 360.0])
    half = np.minimum(np.rad2deg(_half_width(lat, np.deg2rad(angle))), 180.0 - 1e-9)
    columns = np.column_stack(
        [np.searchsorted(turns, turned - half, "left"), np.searchsorted(turns, turned + half, "right")]
    )
    whole = half > 179.0
    columns[whole] = [longitude.size, 2 * longitude.size]
    steps = np.column_stack(
        [np.searchsorted(end, time - window, "left"), np.searchsorted(start, time + window, "right")]
    )
    wide, long, deep = (np.maximum(ends[:, 1] - ends[:, 0], 0) for ends in (columns, rows, steps))
    points = _points(np.tile(longitude, latitude.size), np.repeat(latitude, longitude.size), 0.0)
    middle, plane = (start + end) / 2, latitude.size * longitude.size
    for part in portions(wide * long * deep, most):
        counts = (wide * long * deep)[part]
        row = np.repeat(np.arange(part.start, part.stop), counts)
        index = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
        index, column = np.divmod(index, wide[row])
        step, line = np.divmod(index, long[row])
        step += steps[row, 0]
        node = (line + rows[row, 0]) * longitude.size + np.mod(column + columns[row, 0], longitude.size)
        chord = np.square(points[node, :3] - here[row, :3]).sum(axis=1)
        keep = chord <= _chord(radius) ** 2
        row, node, step, chord = row[keep], node[keep], step[keep], chord[keep]
        if row.size:
            lag = middle[step] - time[row]
            yield Pairs(asked[row], step * plane + node, _arc(chord), lag)


def nearest(pairs: Iterable[Pairs], values: np.ndarray, number: int) -> Matched:
    """Of each of `number` observations the nearest sample that has a value; of equal ones the one nearest in time, then
    the first."""
    found = _empty(number)
    for part, value in _valued(pairs, values):
        starts, counts = _groups(part.observation)
        least = np.repeat(np.minimum.reduceat(part.distance, starts), counts)
        best = np.flatnonzero(part.distance == least)
        order = np.lexsort((part.sample[best], np.abs(part.lag[best]), part.observation[best]))
        best = best[order]
        best = best[np.flatnonzero(np.r_[True, np.diff(part.observation[best]) != 0])]
        at = part.observation[best]
        found.value[at], found.distance[at], found.lag[at] = value[best], part.distance[best], part.lag[best]
        found.number[part.observation[starts]] = counts
        found.deviation[part.observation[starts]] = _spread(value, np.ones(value.size), starts, counts)[1]
    return found


def mean(pairs: Iterable[Pairs], values: np.ndarray, number: int, footprint: float | None = None) -> Matched:
    """Of each of `number` observations the mean of the samples that have a value.

    With `footprint` the weights are those of a Gaussian beam, one half at half that distance from the observation (the
    width of a radiometer's footprint is given where its sensitivity has fallen by 3 dB). The deviation is then that of the
    weighted samples.
    """
    found = _empty(number)
    for part, value in _valued(pairs, values):
        starts, counts = _groups(part.observation)
        weight = np.ones(value.size) if footprint is None else np.exp2(-np.square(2.0 * part.distance / footprint))
        at, total = part.observation[starts], np.add.reduceat(weight, starts)
        # Samples so far out in the beam that their weights vanish leave the observation without a value.
        with np.errstate(invalid="ignore", divide="ignore"):
            centre, deviation = _spread(value, weight, starts, counts)
            found.value[at], found.deviation[at], found.number[at] = centre, deviation, counts
            found.distance[at] = np.add.reduceat(part.distance * weight, starts) / total
            found.lag[at] = np.add.reduceat(part.lag * weight, starts) / total
    return found


# The inside ---------------------------------------------------------------------------------------------------------


def _finite(places: Places) -> np.ndarray:
    return np.isfinite(np.asarray(places, float)).all(axis=0) & (np.abs(np.asarray(places.latitude, float)) <= 90)


def _points(lon: np.ndarray, lat: np.ndarray, time: np.ndarray | float) -> np.ndarray:
    """Points of the unit sphere with their time, as rows: one read from memory fetches all that is known of one."""
    made = np.empty((lon.size, 4))
    lon, lat = np.deg2rad(lon), np.deg2rad(lat)
    made[:, 0], made[:, 1], made[:, 2] = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    made[:, 3] = time
    return made


def _chord(radius: float) -> float:
    """The straight line under an arc of so many metres, on the unit sphere."""
    return 2.0 * np.sin(min(radius / EARTH_RADIUS, np.pi) / 2.0)


def _arc(squared: np.ndarray) -> np.ndarray:
    return 2.0 * EARTH_RADIUS * np.arcsin(np.minimum(np.sqrt(squared) / 2.0, 1.0))


def _half_width(latitude: np.ndarray, angle: float) -> np.ndarray:
    """How far in longitude (radians) the circle of this angular radius around a place reaches; pi where it holds a pole."""
    latitude = np.abs(np.deg2rad(latitude))
    sine = np.sin(min(angle, np.pi / 2)) / np.maximum(np.cos(latitude), 1e-300)
    return np.where(latitude + angle < np.pi / 2, np.arcsin(np.minimum(sine, 1.0)), np.pi)


class _Cells:
    """Latitude bands twice as high as the radius, cut into columns twice as wide as the widest circle that meets them."""

    def __init__(self, radius: float):
        self.angle = max(radius / EARTH_RADIUS, 1e-7) * (1 + _SLACK)  # smaller cells than a metre gain nothing
        self.bands = max(1, int(np.pi / (2 * self.angle)))
        self.height = np.pi / self.bands
        edge = np.abs(-np.pi / 2 + self.height * np.arange(self.bands + 1))
        # A circle that meets a band has its centre at most a radius outside it.
        farthest = np.minimum(np.maximum(edge[1:], edge[:-1]) + self.angle, np.pi / 2)
        width = 2 * _half_width(np.rad2deg(farthest), self.angle)
        self.columns = np.maximum((2 * np.pi / width).astype(np.int64), 1)
        self.before = np.r_[0, np.cumsum(self.columns)]

    def band(self, latitude: np.ndarray) -> np.ndarray:
        """The band of a latitude in radians."""
        return np.clip(((latitude + np.pi / 2) / self.height).astype(np.int64), 0, self.bands - 1)

    def column(self, band: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        many = self.columns[band]
        return np.mod(np.floor(longitude * (many / (2 * np.pi))).astype(np.int64), many)

    def of(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        band = self.band(np.deg2rad(lat))
        return self.before[band] + self.column(band, np.deg2rad(lon))

    def sort(self, lon: np.ndarray, lat: np.ndarray, time: np.ndarray):
        """The order of the samples by cell and time, and a function that finds runs of that order."""
        since = time.min()
        # Cell and time in one integer: time in seconds, or in coarser steps where that would not fit.
        span = time.max() - since
        step = max(1.0, span * float(self.before[-1]) / 2.0**61)
        steps = int(span / step) + 3
        key = self.of(lon, lat) * steps + ((time - since) / step).astype(np.int64) + 1
        order = np.argsort(key, kind="stable")
        key = key[order]

        def tick(moment: np.ndarray) -> np.ndarray:
            return np.clip(np.floor((moment - since) / step), -1, steps - 2).astype(np.int64) + 1

        def lookup(lon, lat, time, window) -> tuple[np.ndarray, np.ndarray]:
            """Beginning and length of the (at most four) runs of candidates of each place."""
            lon, lat = np.deg2rad(lon), np.deg2rad(lat)
            half = _half_width(np.rad2deg(lat), self.angle)
            early, late = tick(time - window * (1 + _SLACK)), tick(time + window * (1 + _SLACK))
            low, high = self.band(lat - self.angle), self.band(lat + self.angle)
            first, number = np.empty((lon.size, 4), np.int64), np.zeros((lon.size, 4), np.int64)
            for k, (band, twice) in enumerate(((low, None), (high, low == high))):
                many = self.columns[band]
                left = np.where(many == 1, 0, self.column(band, lon - half))
                right = np.where(many == 1, 0, self.column(band, lon + half))
                for j, (column, again) in enumerate(((left, twice), (right, left == right))):
                    if j and twice is not None:
                        again = again | twice
                    cell = (self.before[band] + column) * steps
                    begin = np.searchsorted(key, cell + early, "left")
                    stop = np.searchsorted(key, cell + late, "right")
                    first[:, 2 * k + j] = begin
                    number[:, 2 * k + j] = stop - begin if again is None else np.where(again, 0, stop - begin)
            return first, number

        return order, lookup


def portions(number: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of consecutive observations with at most `most` candidates together, or with one observation."""
    total = np.cumsum(number)
    begin, done = 0, 0
    while begin < number.size:
        stop = max(int(np.searchsorted(total, done + most, "right")), begin + 1)
        if total[stop - 1] > done:
            yield slice(begin, stop)
        begin, done = stop, int(total[stop - 1])


def runs(first: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The positions first, first + 1, ... of each run, one run after the other."""
    return np.arange(int(number.sum())) + np.repeat(first - (np.cumsum(number) - number), number)


def _near(asked, here, row, origin, points, found, radius, window) -> Iterator[Pairs]:
    apart = points[found]
    apart -= here[row]
    lag = apart[:, 3]
    chord = np.einsum("ij,ij->i", apart[:, :3], apart[:, :3])
    keep = np.flatnonzero((chord <= _chord(radius) ** 2) & (np.abs(lag) <= window))
    if keep.size:
        yield Pairs(asked[row[keep]], origin[found[keep]], _arc(chord[keep]), lag[keep])


def _empty(number: int) -> Matched:
    missing = [np.full(number, np.nan) for _ in range(4)]
    return Matched(missing[0], missing[1], np.zeros(number, np.int64), missing[2], missing[3])


def _valued(pairs: Iterable[Pairs], values: np.ndarray) -> Iterator[tuple[Pairs, np.ndarray]]:
    """Pairs whose sample has a value, with the values."""
    flat = np.asarray(values).reshape(-1)
    for part in pairs:
        value = flat[part.sample].astype(float)
        good = np.isfinite(value)
        if not good.all():
            part, value = Pairs(*(column[good] for column in part)), value[good]
        if value.size:
            yield part, value


def _groups(observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pairs of each observation begin, and how many there are."""
    starts = np.flatnonzero(np.r_[True, observation[1:] != observation[:-1]])
    return starts, np.diff(np.r_[starts, observation.size])


def _spread(value, weight, starts, counts) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each group; the latter without bias for equal weights."""
    total = np.add.reduceat(weight, starts)
    centre = np.add.reduceat(value * weight, starts) / total
    squares = np.add.reduceat(weight * np.square(value - np.repeat(centre, counts)), starts)
    # Reliability weights: the number of equal samples that would say as much (Kish 1965) is total^2 / sum of squares.
    free = total - np.add.reduceat(np.square(weight), starts) / total
    return centre, np.sqrt(np.where(counts > 1, squares / np.where(free > 0, free, np.nan), np.nan))
