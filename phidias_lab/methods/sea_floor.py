"""Where a grid is sea, from the depth of the sea floor or from coastlines."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from phidias_lab.methods import fields


def at_nodes(
    elevation: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    to_latitude: np.ndarray,
    to_longitude: np.ndarray,
) -> np.ndarray:
    """An elevation (latitude, longitude) at the nodes of another regular grid: the mean over the node's cell where it is the
    finer one, else linear between its own nodes. Unknown values count for nothing in a mean; NaN where there is none."""
    rows, columns = _cells(latitude, to_latitude, np.inf), _cells(longitude, to_longitude, fields.TURN)
    inside = (rows[:, None] >= 0) & (columns >= 0) & np.isfinite(elevation)
    cell = rows[:, None] * to_longitude.size + columns
    shape, size = (to_latitude.size, to_longitude.size), to_latitude.size * to_longitude.size
    number = np.bincount(cell[inside], minlength=size)
    total = np.bincount(cell[inside], elevation[inside], minlength=size)
    # Fewer nodes than cells in either direction: a mean of one or none would only be the nearest.
    if min(np.bincount(rows[rows >= 0], minlength=1).max(), np.bincount(columns[columns >= 0], minlength=1).max()) > 1:
        with np.errstate(invalid="ignore"):
            return (total / number).reshape(shape)
    points = {"latitude": to_latitude[:, None], "longitude": to_longitude}
    return fields.at(elevation, {"latitude": latitude, "longitude": longitude}, points)


def _cells(line: np.ndarray, nodes: np.ndarray, turn: float) -> np.ndarray:
    """The node to whose cell (half a step to each side) each value of a coordinate belongs, -1 outside."""
    half = (nodes[1] - nodes[0]) / 2
    west = nodes[0] - half
    away = line - west if np.isinf(turn) else np.mod(line - west, turn)
    found = np.floor(away / (2 * half)).astype(int)
    return np.where((found >= 0) & (found < nodes.size), found, -1)


def mask(floor: np.ndarray, depth: np.ndarray, smallest: int = 1) -> np.ndarray:
    """Where it is sea at each level (depth, latitude, longitude): there the floor (m below the surface) is deeper.

    Pieces of sea of fewer than `smallest` nodes are no sea: puddles, and lakes that no ship has measured.
    """
    with np.errstate(invalid="ignore"):
        sea = np.stack([floor > level for level in depth])
    for level in sea:
        labels, _ = ndimage.label(level)
        large = np.bincount(labels.ravel()) >= smallest
        large[0] = False
        level[:] = large[labels]
    return sea
