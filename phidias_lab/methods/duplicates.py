"""Which observations were delivered twice: the same place, time, depth and values within what archives round off.

Observations are compared as they were made, in casts (all that one platform measured at one place and moment: a profile, a
moment of a mooring, a sample of a ferry), so that a profile is a copy or none. Two casts within the tolerances of place
and time are copies of each other when at least half of the smaller one has a counterpart at the same depth and nine in ten
of the counterparts have the same values, in all variables that both have.

What lies close together is not always a copy. Samples of two platforms are matched one to one, so that a ferry's line that
came twice loses one of the two and no more. Within one platform (or where none is named) a profile in stratified water is
known by its values. Anything else must be a twin there: much nearer to the other in time than either is to anything else of
that platform; samples that follow each other closely are no twins. Water that is all alike tells nothing, and two bottles
of one depth are two measurements: there the values must be equal, or one the other rounded, or the two casts follow each
other faster than an instrument sinks.

Casts are sorted once by cell and time; who lies near a border of a cell stands in the neighbouring one as well, so no pair
is lost there and each is found once. Pairs are formed in portions of bounded size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from phidias_lab.methods.match_ups import portions, runs

#: Pairs, or rows of pairs, that are looked at together.
MOST = 1_000_000
#: Shares of a cast: how much of the smaller one must have a counterpart, and how much of that the same values.
COVERED, ALIKE = 0.5, 0.9
#: Within one platform a copy is at least so many times nearer in time than anything else.
TWIN = 4.0
#: A cast whose values span fewer tolerances than this looks like any other of the same water.
TELLING = 5.0
#: Nothing that measures sinks faster, in m/s (an XBT has 6.5: Cheng et al. 2014, doi:10.1175/JTECH-D-13-00216.1).
SINKING = 10.0
#: More values than this at one depth of one cast are no deliveries of one value.
DELIVERIES = 4
#: Cells are so many tolerances wide: wider ones hold more strangers, narrower ones have more who stand in two.
_WIDTH = 8
#: Rounding of degrees, seconds and metres in which an end still counts as within.
_NEAR, _MILLIMETRE = 1e-9, 1e-3
_SHIFT, _TOP = 26, 1_000_000  # bits of a depth in mm, and what is added to it so that none is negative


class Tolerances(NamedTuple):
    """How far copies may lie apart; ends belong. Archives round places to two decimals of a degree, times to the minute
    and values to two decimals, or to four digits."""

    degrees: float = 0.006
    metres: float = 0.1
    seconds: float = 90.0
    value: float = 0.006
    relative: float = 2e-4  # of the value, where that is more


class Copies(NamedTuple):
    """For each observation: the one it copies, which stays (-1 for an original), and the number of the finding (-1).

    A finding is a cast that came twice: `number` of its observations are copies. Its first copy stands in row `copy`, which
    copies row `original`.
    """

    of: np.ndarray
    finding: np.ndarray
    copy: np.ndarray
    original: np.ndarray
    number: np.ndarray


def find(
    longitude: np.ndarray,
    latitude: np.ndarray,
    depth: np.ndarray,
    seconds: np.ndarray,
    values: Sequence[np.ndarray],
    platform: np.ndarray | None = None,
    cast: np.ndarray | None = None,
    tolerances: Tolerances | None = None,
    most: int = MOST,
) -> Copies:
    """The copies among observations with one or more `values` each (NaN where one is missing).

    `platform` and `cast` are whole numbers that stand for names; a cast may be a profile, a series or a voyage.
    Observations without place, time or any value are nobody's copy.
    """
    number = len(longitude)
    good = np.isfinite(longitude) & np.isfinite(latitude) & np.isfinite(depth) & np.isfinite(seconds)
    some = np.zeros(number, bool)
    for column in values:
        some |= np.isfinite(column)
    rows = np.flatnonzero(good & some)
    del good, some
    of = np.full(number, -1, np.int64)
    if rows.size > 1:
        columns = [np.asarray(c, float)[rows] for c in (longitude, latitude, depth, seconds)]
        columns[0] = np.mod(columns[0], 360.0)
        names = [
            np.zeros(rows.size, np.int64) if n is None else np.asarray(n)[rows].astype(np.int64)
            for n in (platform, cast)
        ]
        search = _Search(*columns, [np.asarray(c)[rows] for c in values], *names, tolerances or Tolerances(), most)
        found = search.copies()
        again = np.flatnonzero(found >= 0)
        of[rows[again]] = rows[found[again]]
    return _findings(of, longitude, latitude, seconds, platform, cast)


def _findings(of, longitude, latitude, seconds, platform, cast) -> Copies:
    """Copies put together by the cast they belong to and the one they copy."""
    copies = np.flatnonzero(of >= 0)
    finding = np.full(of.size, -1, np.int64)
    if not copies.size:
        none = np.empty(0, np.int64)
        return Copies(of, finding, none, none, none)
    rows = np.concatenate([copies, of[copies]])
    # A series or a voyage that has a name is one cast here, wherever and whenever its parts were measured.
    named = [np.asarray(n)[rows] for n in (platform, cast) if n is not None]
    parts = (
        named if cast is not None else [*named, *(np.asarray(c, float)[rows] for c in (longitude, latitude, seconds))]
    )
    label = numbered(parts)
    key = label[: copies.size] * (int(label.max()) + 1) + label[copies.size :]
    _, first, which, number = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    finding[copies] = which
    return Copies(of, finding, copies[first], of[copies[first]], number)


class _Search:
    """Observations of which all have a place, a time, a depth and a value."""

    def __init__(self, longitude, latitude, depth, seconds, values, platform, cast, tolerances, most):
        self.tolerances, self.most = tolerances, most
        self.place = (longitude, latitude, seconds)
        self.depth, self.values = depth, values
        self.level = np.clip(np.rint(depth * 1e3), -_TOP + 1, 2**_SHIFT - 2 * _TOP).astype(np.int64) + _TOP
        self.reach = int(np.rint((tolerances.metres + _MILLIMETRE) * 1e3))
        self.of = np.full(longitude.size, -1, np.int64)
        member = self._divided(numbered([platform, cast, longitude, latitude, seconds]))
        # Rows one cast after the other, each from the surface down.
        key = (member << _SHIFT) + self.level
        self.order = np.argsort(key, kind="stable")
        self.key = key[self.order]
        del key
        self.start = np.flatnonzero(np.r_[True, np.diff(self.key >> _SHIFT) != 0])
        # Casts without rows of their own have gone, so that numbers and positions agree.
        self.size = np.diff(np.r_[self.start, self.order.size])
        self.key = (np.repeat(np.arange(self.start.size), self.size) << _SHIFT) + (self.key & (2**_SHIFT - 1))
        first = self.order[self.start]
        self.lon, self.lat, self.time = (part[first] for part in self.place)
        self.platform = platform[first]
        self.top, self.bottom = self.level[first], self.level[self.order[self.start + self.size - 1]]

    def _divided(self, member: np.ndarray) -> np.ndarray:
        """The cast of each row, of which equal rows of one cast are set aside as copies, and the second and further
        values of one depth become casts of their own: deliveries that nothing but their values tells apart."""
        order = np.argsort((member << _SHIFT) + self.level, kind="stable")
        same = (np.diff(member[order]) == 0) & (np.diff(self.level[order]) == 0)
        if not same.any():
            return member
        beside = np.r_[same, False] | np.r_[False, same]
        rows = order[beside]
        keys = [*(column[rows] for column in reversed(self.values)), self.depth[rows], self.level[rows], member[rows]]
        rows = rows[np.lexsort(keys)]
        equal = (member[rows[1:]] == member[rows[:-1]]) & (self.depth[rows[1:]] == self.depth[rows[:-1]])
        for column in self.values:
            equal &= _same(column[rows[1:]], column[rows[:-1]])
        first = rows[np.maximum.accumulate(np.where(np.r_[True, ~equal], np.arange(rows.size), 0))]
        again = np.r_[False, equal]
        self.of[rows[again]] = first[again]
        rows = rows[~again]
        starts = np.flatnonzero(np.r_[True, (np.diff(member[rows]) != 0) | (np.diff(self.level[rows]) != 0)])
        many = np.diff(np.r_[starts, rows.size])
        turn = np.arange(rows.size) - np.repeat(starts, many)
        turn[np.repeat(many, many) > DELIVERIES] = 0
        further = turn > 0
        divided = member.copy()
        if further.any():
            divided[rows[further]] = member.max() + 1 + numbered([member[rows[further]], turn[further]])
        # Rows that are copies already belong to no cast that is compared.
        gone = np.flatnonzero(self.of >= 0)
        divided[gone] = divided.max() + 1 + np.arange(gone.size)
        return divided

    def copies(self) -> np.ndarray:
        near = _Neighbours(self.lon, self.lat, self.time, self.tolerances, self.most)
        alive = self.of[self.order[self.start]] < 0
        first, second = self._nearest_in_time(near, alive)
        kept = [part for part in self._alike(near, alive, first, second) if part[0].size]
        if kept:
            a, b, unlike, certain = (np.concatenate(parts) for parts in zip(*kept, strict=True))
            a, b = self._one_to_one(a, b, unlike, certain)
            self._mark(*self._dropped(a, b))
        self._mark_equal()
        return self._roots()

    def _candidates(self, near: _Neighbours, alive: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pairs of casts near each other that overlap in depth, and how far they lie apart in time."""
        for a, b in near.pairs():
            keep = (self.top[a] - self.reach <= self.bottom[b]) & (self.top[b] - self.reach <= self.bottom[a])
            keep &= alive[a] & alive[b]
            a, b = a[keep], b[keep]
            yield a, b, np.abs(self.time[a] - self.time[b])

    def _nearest_in_time(self, near: _Neighbours, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each cast how far the nearest and the second nearest of its platform here lie in time."""
        first, second = np.full((2, self.start.size), np.inf)
        for a, b, apart in self._candidates(near, alive):
            same = self.platform[a] == self.platform[b]
            cast = np.concatenate([a[same], b[same]])
            lag = np.tile(apart[same], 2)
            if not cast.size:
                continue
            order = np.lexsort((lag, cast))
            cast, lag = cast[order], lag[order]
            begins = np.flatnonzero(np.r_[True, np.diff(cast) != 0])
            least, of = lag[begins], cast[begins]
            follows = np.minimum(begins + 1, cast.size - 1)
            next_one = np.where((cast[follows] == of) & (follows > begins), lag[follows], np.inf)
            second[of] = np.minimum(np.maximum(first[of], least), np.minimum(second[of], next_one))
            first[of] = np.minimum(first[of], least)
        return first, second

    def _alike(self, near: _Neighbours, alive, first, second) -> Iterator[tuple[np.ndarray, ...]]:
        """Pairs of casts that are copies of each other, how unlike they are, and whether that is certain."""
        for a, b, apart in self._candidates(near, alive):
            same = self.platform[a] == self.platform[b]
            twin = (apart <= first[a]) & (apart <= first[b])
            twin &= (second[a] >= TWIN * apart) & (second[b] >= TWIN * apart)
            # A profile can tell by itself that it is a copy; a single value needs to be a twin.
            keep = ~same | twin | ((self.size[a] > 2) & (self.size[b] > 2))
            a, b, same, twin, apart = a[keep], b[keep], same[keep], twin[keep], apart[keep]
            swap = self.size[b] < self.size[a]
            a, b = np.where(swap, b, a), np.where(swap, a, b)
            for part in portions(self.size[a], self.most):
                yield self._judged(a[part], b[part], same[part], twin[part], apart[part])

    def _judged(self, a, b, same, twin, apart) -> tuple[np.ndarray, ...]:
        number = self.size[a]
        rows, there, compared, unlike, rounded = self._matched(a, b)
        begins = np.cumsum(number) - number
        compared, matched, equal = (
            np.add.reduceat(part.astype(np.int64), begins) for part in (compared, there >= 0, rounded)
        )
        unlike = np.add.reduceat(np.where(there >= 0, unlike, 0.0), begins) / np.maximum(matched, 1)
        alike = (matched >= 1) & (compared >= COVERED * number) & (matched >= ALIKE * compared)
        telling = np.zeros(a.size, bool)
        for column in self.values:
            value = column[rows].astype(float)
            most, least = np.fmax.reduceat(value, begins), np.fmin.reduceat(value, begins)
            telling |= most - least > TELLING * self._allowed(most)
        moved = (apart > 0) | (self.lon[a] != self.lon[b]) | (self.lat[a] != self.lat[b])
        # Two real casts of one platform are farther apart than it takes an instrument to sink.
        too_fast = (apart > 0) & (apart * SINKING < (self.bottom[a] - self.top[a]) / 1e3)
        profile = matched > 2
        sure = (equal >= ALIKE * compared) | np.where(profile, too_fast, moved)
        keep = alike & (~same | (profile & telling) | (twin & sure))
        # By its values, or by the very same place and moment, a copy is known for certain.
        certain = ((profile & telling) | ~moved)[keep]
        a, b = a[keep], b[keep]
        away = self.tolerances
        unlike = unlike[keep] + (apart[keep] / max(away.seconds, _NEAR)) ** 2
        unlike += (_turned(self.lon[a] - self.lon[b]) ** 2 + (self.lat[a] - self.lat[b]) ** 2) / away.degrees**2
        return a, b, unlike, certain

    def _allowed(self, value: np.ndarray) -> np.ndarray:
        """How far a value may differ; single precision has seven digits."""
        return np.maximum(self.tolerances.value, (self.tolerances.relative + 2e-7) * np.abs(value)) + 1e-9

    def _matched(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        """Row by row of casts `a`, one after the other: the row, the row of cast `b` that is the same (-1 for
        none), whether any could be compared, how unlike it is, and whether the values are equal or rounded."""
        pair = np.repeat(np.arange(a.size), self.size[a])
        position = runs(self.start[a], self.size[a])
        rows = self.order[position]
        wanted = (b[pair] << _SHIFT) + self.level[rows]
        low = np.searchsorted(self.key, wanted - self.reach, "left")
        many = np.searchsorted(self.key, wanted + self.reach, "right") - low
        there = np.full(rows.size, -1, np.int64)
        compared, rounded, unlike = np.zeros(rows.size, bool), np.zeros(rows.size, bool), np.full(rows.size, np.inf)
        for part in portions(many, self.most):
            row = np.repeat(np.arange(part.start, part.stop), many[part])
            one, other = rows[row], self.order[runs(low[part], many[part])]
            known, fits, equal = np.zeros(row.size, bool), np.ones(row.size, bool), np.ones(row.size, bool)
            distance = ((self.level[one] - self.level[other]) / max(self.reach, 1)) ** 2
            for column in self.values:
                left, right = column[one].astype(float), column[other].astype(float)
                both = np.isfinite(left) & np.isfinite(right)
                known |= both
                apart = np.where(both, np.abs(left - right), 0.0)
                allowed = self._allowed(np.where(both, left, 0.0))
                fits &= apart <= allowed
                distance += (apart / allowed) ** 2
                equal &= ~both | (apart == 0)
                look = np.flatnonzero(both & (apart > 0) & (apart <= allowed))
                equal[look] = _rounded(left[look], right[look])
            compared[row[known]] = True
            good = np.flatnonzero(known & fits)
            good = good[np.lexsort((other[good], distance[good], row[good]))]
            good = good[np.r_[True, np.diff(row[good]) != 0]] if good.size else good
            there[row[good]], unlike[row[good]], rounded[row[good]] = other[good], distance[good], equal[good]
        return rows, there, compared, unlike, rounded

    def _one_to_one(self, a, b, unlike, certain) -> tuple[np.ndarray, np.ndarray]:
        """The pairs that are certain, and of the others for each cast and each platform one, the least unlike first."""
        count = int(self.platform.max()) - int(self.platform.min()) + 1
        mine, theirs = (one * count + (self.platform[other] - self.platform.min()) for one, other in ((a, b), (b, a)))
        ends = np.unique(np.concatenate([mine, theirs]), return_inverse=True)[1]
        mine, theirs = ends[: a.size], ends[a.size :]
        # Equal ones are told apart by content, so that the order of the table does not matter.
        order = np.lexsort((self.lat[b], self.lat[a], self.lon[b], self.lon[a], self.time[b], self.time[a], unlike))
        rank = np.empty(a.size, np.int64)
        rank[order] = np.arange(a.size)
        chosen, left = certain.copy(), np.flatnonzero(~certain)
        taken = np.zeros(int(ends.max()) + 1, bool)
        taken[mine[certain]] = taken[theirs[certain]] = True
        while left.size:
            left = left[~taken[mine[left]] & ~taken[theirs[left]]]
            best = np.full(taken.size, np.iinfo(np.int64).max)
            np.minimum.at(best, mine[left], rank[left])
            np.minimum.at(best, theirs[left], rank[left])
            won = left[(best[mine[left]] == rank[left]) & (best[theirs[left]] == rank[left])]
            chosen[won] = True
            taken[mine[won]] = taken[theirs[won]] = True
        return a[chosen], b[chosen]

    def _dropped(self, a, b) -> tuple[np.ndarray, np.ndarray]:
        """Casts that go, and the one each of them copies: who copies a cast that goes itself is judged by the one that
        stays. The larger cast stays, then the one with the finer place,
        then that of the first platform, then the earlier."""
        casts = np.unique(np.concatenate([a, b]))
        filled = np.zeros(casts.size, np.int64)
        for part in portions(self.size[casts], self.most):
            number = self.size[casts[part]]
            rows = self.order[runs(self.start[casts[part]], number)]
            for column in self.values:
                filled[part] += np.add.reduceat(np.isfinite(column[rows]).astype(np.int64), np.cumsum(number) - number)
        coarse = np.ones(casts.size, bool)
        for place in (self.lon[casts], self.lat[casts]):
            coarse &= np.abs(place * 100 - np.rint(place * 100)) < 1e-4
        head = [column[self.order[self.start[casts]]] for column in self.values]
        parts = (
            *reversed(head),
            self.lat[casts],
            self.lon[casts],
            self.time[casts],
            self.platform[casts],
            coarse,
            -filled,
        )
        rank = np.empty(self.start.size, np.int64)
        rank[casts[np.lexsort(parts)]] = np.arange(casts.size)
        swap = rank[b] < rank[a]
        stays, goes = np.where(swap, b, a), np.where(swap, a, b)
        order = np.lexsort((rank[goes], rank[stays]))
        copied: dict[int, int] = {}
        for one, other in zip(stays[order].tolist(), goes[order].tolist(), strict=True):
            if one not in copied:
                copied.setdefault(other, one)
        return np.fromiter(copied.keys(), np.int64, len(copied)), np.fromiter(copied.values(), np.int64, len(copied))

    def _mark(self, goes: np.ndarray, stays: np.ndarray) -> None:
        for part in portions(self.size[goes], self.most):
            rows, there, *_ = self._matched(goes[part], stays[part])
            self.of[rows[there >= 0]] = there[there >= 0]

    def _mark_equal(self) -> None:
        """Rows that are equal in every respect but the names are copies in any case."""
        left = np.flatnonzero(self.of < 0)
        columns = [*(part[left] for part in (*self.place, self.depth)), *(column[left] for column in self.values)]
        order = np.argsort(mixed(columns), kind="stable")
        equal = np.ones(order.size - 1, bool)
        for column in columns:
            equal &= _same(column[order[1:]], column[order[:-1]])
        first = order[np.maximum.accumulate(np.where(np.r_[True, ~equal], np.arange(order.size), 0))]
        again = np.r_[False, equal]
        self.of[left[order[again]]] = left[first[again]]

    def _roots(self) -> np.ndarray:
        """Each copy with the one that stays."""
        copies = np.flatnonzero(self.of >= 0)
        while True:
            further = self.of[self.of[copies]]
            if (further < 0).all():
                return self.of
            self.of[copies] = np.where(further >= 0, further, self.of[copies])


class _Neighbours:
    """Pairs of places and times within the tolerances, each once."""

    def __init__(self, lon: np.ndarray, lat: np.ndarray, time: np.ndarray, tolerances: Tolerances, most: int):
        self.lon, self.lat, self.time, self.most = lon, lat, time, most
        self.degrees, self.seconds = tolerances.degrees + _NEAR, tolerances.seconds + 1e-6
        columns = max(3, int(360.0 / (_WIDTH * max(self.degrees, 1e-5))))
        width = 360.0 / columns
        x, y = (lon / width).astype(np.int64), ((lat + 90.0) / width).astype(np.int64)
        east, north = (x + 1) * width - lon <= self.degrees, (y + 1) * width - 90.0 - lat <= self.degrees
        since = time.min()
        # Cell and time in one whole number; time in seconds, or coarser where that would not fit.
        height = int(180.0 / width) + 3
        step = max(1.0, (time.max() - since + self.seconds) * columns * height / 2.0**61)
        self.window = int(self.seconds / step) + 1
        ticks = int((time.max() - since) / step) + self.window + 2
        tick = ((time - since) / step).astype(np.int64)
        members, keys, beyond = [], [], []
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            here = np.flatnonzero((east | (dx == 0)) & (north | (dy == 0)))
            cell = (x[here] + dx) % columns * height + y[here] + dy
            members.append(here)
            keys.append(cell * ticks + tick[here])
            beyond.append(np.full(here.size, dx + 2 * dy, np.int8))
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        self.key, self.member, self.beyond = key[order], np.concatenate(members)[order], np.concatenate(beyond)[order]

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for begin in range(0, self.key.size, self.most):
            here = np.arange(begin, min(begin + self.most, self.key.size))
            many = np.searchsorted(self.key, self.key[here] + self.window, "right") - here - 1
            for part in portions(many, self.most):
                one = np.repeat(here[part], many[part])
                other = runs(here[part] + 1, many[part])
                # Two who both stand here as neighbours, in one direction, meet at home as well.
                keep = (self.beyond[one] & self.beyond[other]) == 0
                a, b = self.member[one[keep]], self.member[other[keep]]
                keep = np.abs(self.time[a] - self.time[b]) <= self.seconds
                keep &= np.abs(self.lat[a] - self.lat[b]) <= self.degrees
                a, b = a[keep], b[keep]
                keep = _turned(self.lon[a] - self.lon[b]) <= self.degrees
                a, b = a[keep], b[keep]
                yield np.minimum(a, b), np.maximum(a, b)


def _turned(degrees: np.ndarray) -> np.ndarray:
    """The distance of two longitudes that differ by so much."""
    degrees = np.abs(degrees)
    return np.minimum(degrees, 360.0 - degrees)


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal, or both missing."""
    return (a == b) | ((a != a) & (b != b))


def _rounded(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether one is the other with fewer decimals (three to none)."""
    found = np.zeros(a.size, bool)
    least = 2e-7 * np.maximum(np.abs(a), 1.0)
    for decimals in range(4):
        found |= (np.abs(np.round(a, decimals) - b) <= least) | (np.abs(np.round(b, decimals) - a) <= least)
    return found


def mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    """A 64-bit number for each row that depends on all columns; rows that differ hardly ever share one.

    Each column goes through the finaliser of SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195).
    """
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        if column.dtype.kind == "f":
            column = np.where(column != column, np.nan, column + 0.0).astype(float)  # one NaN, and no negative zero
        mixed += column.astype(column.dtype if column.dtype.itemsize == 8 else np.int64).view(np.uint64)
        mixed += np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def numbered(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers from 0 such that rows have the same one when all their columns are the same."""
    order = np.argsort(mixed(columns), kind="stable")
    new = np.zeros(order.size, bool)
    new[:1] = True
    for column in columns:
        sorted_column = column[order]
        new[1:] |= sorted_column[1:] != sorted_column[:-1]
    number = np.empty(order.size, np.int64)
    number[order] = np.cumsum(new) - 1
    return number
