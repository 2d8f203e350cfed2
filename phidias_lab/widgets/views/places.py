"""The places of the values that a run used, slice by slice, for its maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from phidias_lab import flow
from phidias_lab.compute.runs import Run
from phidias_lab.products import Product

#: More places than this are not drawn: a part of them is, chosen at random, and the view says so.
MOST_PLACES = 3_000
#: Times of a product may have been rounded when it was written.
SAME_TIME = np.timedelta64(1, "s")


class Places:
    """Read when they are first asked for, since that reads the inputs of the run again."""

    def __init__(self, source: Run | Product):
        self.source = source
        self._table: pd.DataFrame | None = None

    def read(self) -> pd.DataFrame:
        """A row for each value that was used (see `Chain.places`)."""
        if self._table is None:
            self._table = flow.places(self.source)
        return self._table

    def behind(self, array: Any) -> pd.DataFrame:
        """The rows that were used in the slice of the result that this array is."""
        table = self.read()
        keep = np.ones(len(table), bool)
        for dim in set(table.columns) - {"longitude", "latitude"}:
            if dim not in array.coords or array[dim].ndim:
                continue
            here, values = array[dim].values, table[dim].to_numpy()
            if values.dtype.kind == "M":
                keep &= np.abs(values - here) <= SAME_TIME
            else:
                keep &= np.isclose(values.astype(float), float(here))
        return table[keep]

    def distinct(self, array: Any) -> np.ndarray:
        """Longitude and latitude of each place behind a slice, once: (n, 2) in degrees."""
        return np.unique(self.behind(array)[["longitude", "latitude"]].to_numpy(float), axis=0)

    def drawn(self, array: Any) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of the places that are drawn, in degrees; the same ones each time."""
        found = self.distinct(array)
        if len(found) > MOST_PLACES:
            found = found[np.random.default_rng(0).choice(len(found), MOST_PLACES, replace=False)]
        return found[:, 0], found[:, 1]

    def words(self, array: Any) -> str:
        """How many values were used in a slice, at how many places, and how many of these are drawn."""
        values, places = len(self.behind(array)), len(self.distinct(array))
        if not values:
            return "No observation was used here."
        told = f"{_many(values, 'observation')} used here, at {_many(places, 'place')}"
        if places > MOST_PLACES:
            told += f"; {MOST_PLACES:,} of the places, chosen at random, are drawn"
        return told + "."


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
