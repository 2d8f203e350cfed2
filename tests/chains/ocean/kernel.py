"""The covariance that gridding assumes, written down without its code."""

from __future__ import annotations

import numpy as np
from scipy.special import kv


def distance(a, b, length):
    """Distances on the sphere between places (longitude, latitude), in lengths."""
    lon1, lat1 = (c[:, None] for c in a)
    lon2, lat2 = (c[None, :] for c in b)
    east = np.deg2rad(lon2 - lon1) * np.cos(np.deg2rad((lat1 + lat2) / 2))
    return 6372795.477598 * np.hypot(east, np.deg2rad(lat2 - lat1)) / length


def kernel_covariance(a, b, length):
    """Covariance of the plane's field with the default norm, r K1(r) (Barth et al. 2014), independent of our code."""
    r = distance(a, b, length)
    return np.where(r < 1e-9, 1.0, r * kv(1, np.maximum(r, 1e-9)))
