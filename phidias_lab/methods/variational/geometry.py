"""Grid spacing from coordinates: the local resolution of a vector, and distances on the sphere."""

from __future__ import annotations

import numpy as np

from phidias_lab.errors import InputError

EARTH_RADIUS = 6372795.477598
"""Radius of the sphere in metres: the value DIVAnd uses, so that lengths in metres mean the same there and here."""


def _vector(values, name: str, least: int) -> np.ndarray:
    vector = np.asarray(values, float)
    if vector.ndim != 1 or vector.size < least:
        raise InputError(
            f"{name} has the shape {vector.shape}, but a vector of at least {least} values is needed. "
            f"Give the coordinate of each grid line."
        )
    if not np.isfinite(vector).all():
        raise InputError(f"{name} holds values that are not finite. Give the coordinate of every grid line.")
    return vector


def local_resolution(vector) -> np.ndarray:
    """Distance between neighbouring values of a coordinate, in its units: centred inside, one-sided at both ends.

    The metric of a depth or time dimension is ``1 / local_resolution(vector)``.
    """
    vector = _vector(vector, "The coordinate", 2)
    # np.gradient would weigh unequal steps; half the distance between the two neighbours is the width of the cell.
    spacing = np.empty(vector.size)
    spacing[1:-1] = (vector[2:] - vector[:-2]) / 2
    spacing[0] = vector[1] - vector[0]
    spacing[-1] = vector[-1] - vector[-2]
    if not ((spacing > 0).all() or (spacing < 0).all()):
        raise InputError("The coordinate neither rises nor falls throughout. Sort it and drop repeated values.")
    return np.abs(spacing)


def great_circle(lon1, lat1, lon2, lat2) -> np.ndarray:
    """Distance on the sphere in metres between points in degrees.

    The half-angle (haversine) form: equal to the arc cosine form of DIVAnd, but exact for neighbours metres apart,
    where the arc cosine loses half of the digits.
    """
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half = np.sin((phi2 - phi1) / 2) ** 2
    half = half + np.cos(phi1) * np.cos(phi2) * np.sin(np.radians(np.subtract(lon2, lon1)) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(half, 1.0)))


def metrics_on_sphere(lon, lat, *, period: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Inverse grid spacing, in 1/m, of a longitude-latitude grid: two arrays of shape (lon.size, lat.size).

    Distances are great circles between the two neighbours of a node, divided by two; one-sided at the edges.
    ``period=360`` closes the longitudes, so that every node has two neighbours there.
    """
    lon, lat = _vector(lon, "The longitude", 2), _vector(lat, "The latitude", 2)
    local_resolution(lon), local_resolution(lat)  # both must rise or fall throughout
    if np.abs(lat).max() >= 90:
        raise InputError(
            "The latitudes reach a pole, where the zonal spacing is zero. Keep the grid between the poles."
        )
    west, east, steps = np.roll(lon, 1), np.roll(lon, -1), np.full(lon.size, 2.0)
    if not period:
        west[0], east[-1] = lon[0], lon[-1]
        steps[[0, -1]] = 1
    south, north = np.r_[lat[0], lat[:-1]], np.r_[lat[1:], lat[-1]]
    rows = np.full(lat.size, 2.0)
    rows[[0, -1]] = 1
    zonal = great_circle(west[:, None], lat, east[:, None], lat) / steps[:, None]
    meridional = great_circle(0.0, south, 0.0, north) / rows
    return 1 / zonal, np.broadcast_to(1 / meridional, zonal.shape).copy()
