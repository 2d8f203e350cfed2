"""Values of a field on a regular grid at other places, on the sphere and into the gaps on land."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import interpolate, ndimage

TURN = 360.0


def filled(values: np.ndarray) -> np.ndarray:
    """The field with each missing value replaced by the nearest one in its own plane (the last two dimensions).

    Planes without any value take that of the nearest plane that has some. Nearest means in steps of the grid.
    """
    values = np.array(values, float)
    planes = values.reshape(-1, *values.shape[-2:])
    known = np.isfinite(planes).any(axis=(1, 2))
    for k in np.flatnonzero(known):
        plane = planes[k]
        gaps = ~np.isfinite(plane)
        if gaps.any():
            nearest = ndimage.distance_transform_edt(gaps, return_distances=False, return_indices=True)
            plane[:] = plane[tuple(nearest)]
    if known.any() and not known.all():
        steps = np.abs(np.arange(known.size)[:, None] - np.flatnonzero(known))
        planes[:] = planes[np.flatnonzero(known)[steps.argmin(axis=1)]]
    return values


def at(values: np.ndarray, lines: Mapping[str, np.ndarray], points: Mapping[str, np.ndarray]) -> np.ndarray:
    """The field at points, linear between its nodes and constant beyond the first and last.

    `lines` name the field's dimensions in their order and hold their coordinates, `points` hold places that broadcast. What
    is called longitude lies on a circle: any turn of it means the same place, and a field all around the globe has no seam.
    """
    shape = np.broadcast_shapes(*(np.shape(points[name]) for name in lines))
    grid, places = [], []
    for name, line in lines.items():
        axis = len(grid)  # dimensions of one node are gone by now
        line, place = np.asarray(line, float), np.broadcast_to(np.asarray(points[name], float), shape)
        if name == "longitude" and line.size > 1:
            turned = np.mod(line - line[0], TURN)
            order = np.argsort(turned)
            # One node more at each end, a turn away: beyond a regional field it is not met, around the globe it closes it.
            order = np.r_[order[-1], order, order[0]]
            values = np.take(values, order, axis)
            line = line[0] + turned[order] + np.r_[-TURN, np.zeros(line.size), TURN]
            place = line[1] + np.mod(place - line[1], TURN)
        elif line.size > 1 and line[0] > line[-1]:
            line, values = line[::-1], np.flip(values, axis)
        if line.size == 1:
            values = np.take(values, 0, axis)
            continue
        grid.append(line)
        places.append(np.clip(place, line[0], line[-1]).ravel())
    if not grid:
        return np.full(shape, float(values))
    return interpolate.RegularGridInterpolator(grid, values)(np.column_stack(places)).reshape(shape)


def farthest(line: np.ndarray, places: np.ndarray, turn: float = np.inf) -> float:
    """How far the worst of some places is from the nearest value of a coordinate, which may close after a turn."""
    line, places = np.sort(line), np.asarray(places, float)
    if np.isfinite(turn):
        line, places = np.sort(np.mod(line, turn)), np.mod(places, turn)
        line = np.r_[line[-1] - turn, line, line[0] + turn]
    above = np.clip(np.searchsorted(line, places), 1, max(line.size - 1, 1))
    return float(
        np.minimum(np.abs(places - line[above - 1]), np.abs(places - line[np.minimum(above, line.size - 1)])).max()
    )
