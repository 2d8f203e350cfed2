"""A learning set drawn from a stream in one pass: of each stratum as many spectra as are wanted, each with the same chance.

Every spectrum has a random number of its own, made from the seed, the name of its granule, its line and its row; those
with the smallest numbers of a stratum are kept (a priority sample, Duffield, Lund and Thorup 2007, J. ACM 54(6), 32, with
equal weights). So the set depends on what has come and on the seed alone: reservoirs of parts of the data, merged in any
order, are equal to the one of all data, and a granule that comes twice changes nothing in what is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from phidias_lab.errors import InputError
from phidias_lab.methods.duplicates import mixed
from phidias_lab.methods.strata import Smallest


class Coverage(NamedTuple):
    """How much of a stratum came, and how much of it stands in the set."""

    stratum: str
    seen: int
    kept: int
    share: int


class Kept(NamedTuple):
    """The set, sorted by stratum and random number."""

    stratum: np.ndarray
    granule: np.ndarray  # names
    line: np.ndarray
    row: np.ndarray
    values: np.ndarray | None
    weight: np.ndarray  # spectra of the stream that each one stands for


class Reservoir:
    """At most `shares[s]` items of stratum s.

    Memory is bounded by the shares: values of items that are dropped make room for others.
    """

    def __init__(self, shares: Sequence[int], seed: int = 0):
        self.shares, self.seed = np.asarray(shares, np.int64), int(seed)
        if self.shares.ndim != 1 or not self.shares.size or (self.shares < 0).any() or not self.shares.any():
            raise InputError(
                "A reservoir needs the number of items to keep of each stratum. Give one positive at least."
            )
        self.seen = np.zeros(self.shares.size, np.int64)
        self.names: dict[int, str] = {}
        self.values: np.ndarray | None = None
        self._empty = True
        # Key, granule, line, row, and the place of the values.
        self._kept = Smallest(self.shares, (np.uint64, np.int64, np.int64, np.int64, np.int64), keys=4, unique=True)
        self._portion = int(max(4096, self.shares.sum() // 4))
        self._free = np.arange(self.shares.sum() + self._portion)[::-1]

    def add(self, granule: str, line: np.ndarray, row: np.ndarray, stratum: np.ndarray, values=None) -> None:
        """Items of one granule; a stratum of -1 is left out. Of `values` only the rows that may stay are read."""
        line, row, stratum = (np.asarray(part, np.int64).ravel() for part in (line, row, stratum))
        self.seen += np.bincount(stratum[stratum >= 0], minlength=self.seen.size)
        random = keys(self.seed, granule, line, row)
        some = self._kept.admits(stratum, random)
        number = _number(granule)
        self.names[number] = granule
        self._put(stratum[some], random[some], np.full(some.size, number), line[some], row[some], values, some)

    def merge(self, other: Reservoir) -> None:
        """Take in what another reservoir, of other granules, has kept."""
        if other.seed != self.seed or not np.array_equal(other.shares, self.shares):
            raise InputError("Reservoirs of different seeds or shares cannot be merged. Draw them with the same ones.")
        self.seen += other.seen
        self.names.update(other.names)
        other._kept.settle()
        key, granule, line, row, place = other._kept.columns
        self._put(other._kept.stratum, key, granule, line, row, other.values, place)

    def kept(self) -> Kept:
        self._settle()
        _, granule, line, row, place = self._kept.columns
        stratum = self._kept.stratum
        weight = self.seen / np.maximum(np.bincount(stratum, minlength=self.seen.size), 1)
        names = np.array([self.names[number] for number in granule.tolist()], dtype=object)
        values = None if self.values is None else self.values[place]
        return Kept(stratum, names, line, row, values, weight[stratum])

    def coverage(self, names: Sequence[str]) -> list[Coverage]:
        rows = zip(names, self.seen.tolist(), self._kept.number().tolist(), self.shares.tolist(), strict=True)
        return [Coverage(*row) for row in rows]

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on later, as arrays."""
        held = self.kept()._asdict()
        del held["weight"]
        if held["values"] is None:
            del held["values"]
        held["granule"] = held["granule"].astype(str)
        return held | {"shares": self.shares, "seed": np.array(self.seed), "seen": self.seen.copy()}

    @classmethod
    def of(cls, state: dict[str, np.ndarray]) -> Reservoir:
        """The reservoir of a state."""
        made = cls(state["shares"], int(state["seed"]))
        for name in np.unique(state["granule"]):
            mine = state["granule"] == name
            values = state["values"][mine] if "values" in state else None
            made.add(str(name), state["line"][mine], state["row"][mine], state["stratum"][mine], values)
        made.seen = state["seen"].copy()
        return made

    def _put(self, stratum, key, granule, line, row, values, source) -> None:
        """Rows `source` of the values, as many at a time as there is room for."""
        if source.size and self._empty:
            self._empty = False
            if values is not None:
                self.values = np.empty((self._free.size, *values.shape[1:]), values.dtype)
        if source.size and (values is None) != (self.values is None):
            raise InputError("Some items of a reservoir came with values and some without. Give all of them, or none.")
        for begin in range(0, source.size, self._portion):
            part = slice(begin, begin + self._portion)
            if self._free.size < source[part].size:
                self._settle()
            place, self._free = np.split(self._free, [source[part].size])
            if values is not None:
                self.values[place] = values[source[part]]
            self._kept.add(stratum[part], key[part], granule[part], line[part], row[part], place)

    def _settle(self) -> None:
        used = np.zeros(self.shares.sum() + self._portion, bool)
        self._kept.settle()
        used[self._kept.columns[-1]] = True
        self._free = np.flatnonzero(~used)


def keys(seed: int, granule: str, line: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The random numbers of items of one granule, the same on every machine."""
    of_granule = np.full(line.size, _number(f"{seed} {granule}"))
    return mixed([of_granule, (line << np.int64(32)) + row])


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
