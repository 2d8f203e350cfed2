"""Where observations lie in the lake: tiles of 30 degrees, and within a tile along a Morton curve, then in time.

A box of a few degrees then touches few tiles, and within them few row groups; the tile is the partition of the Parquet
dataset, so a query names its tiles and the statistics of the row groups do the rest. The Morton key interleaves 12 bits
each of longitude and latitude; without its lowest 8 bits it names cells of 1.4 by 0.7 degrees (Morton 1966, IBM Ottawa).
"""

from __future__ import annotations

import numpy as np

DEGREES = 30
COLUMNS, ROWS = 360 // DEGREES, 180 // DEGREES


def tile(longitude, latitude) -> np.ndarray:
    """Number of the 30-degree tile: row from the south pole times 12 plus column from the date line."""
    lon = np.mod(np.asarray(longitude, float) + 180.0, 360.0)
    column = np.clip((lon // DEGREES).astype(int), 0, COLUMNS - 1)
    row = np.clip(((np.asarray(latitude, float) + 90.0) // DEGREES).astype(int), 0, ROWS - 1)
    return row * COLUMNS + column


def tiles_of(west: float, south: float, east: float, north: float) -> list[int]:
    """The tiles a box touches; its longitudes may lie on any turn."""
    first = int(np.floor((west + 180) / DEGREES))
    last = min(int(np.floor((east + 180) / DEGREES)), first + COLUMNS)
    columns = sorted({c % COLUMNS for c in range(first, last + 1)})
    low, high = (int(np.clip((v + 90) // DEGREES, 0, ROWS - 1)) for v in (south, north))
    return [row * COLUMNS + column for row in range(low, high + 1) for column in columns]


def _spread(bits: np.ndarray) -> np.ndarray:
    """Twelve bits with a zero put between every two."""
    bits = bits & 0xFFF
    bits = (bits | bits << 8) & 0x00FF00FF
    bits = (bits | bits << 4) & 0x0F0F0F0F
    bits = (bits | bits << 2) & 0x33333333
    return (bits | bits << 1) & 0x55555555


def morton_cell(longitude, latitude) -> np.ndarray:
    """The Morton key of a place without its lowest 8 bits."""
    lon = np.mod(np.asarray(longitude, float) + 180.0, 360.0)
    x = np.clip(lon / 360.0 * 4096, 0, 4095).astype(np.int64)
    y = np.clip((np.asarray(latitude, float) + 90.0) / 180.0 * 4096, 0, 4095).astype(np.int64)
    return (_spread(x) | _spread(y) << 1) >> 8
