"""Observations of fields that are drawn from the kernel of the norm, so that length, noise and variance are known."""

from __future__ import annotations

import math

import numpy as np

from phidias_lab.methods.variational import kernel


def drawn(seed, *, count, length=0.15, noise=0.3, size=31):
    """Arguments of `estimate`: values in the middle of a grid that reaches further, with a variance of 4."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, (2, count))
    distance = np.hypot(*(each[:, np.newaxis] - each for each in places))
    root = np.linalg.cholesky(kernel(distance / length, 2, 2) + 1e-10 * np.eye(count))
    values = 2.0 * (root @ rng.standard_normal(count) + math.sqrt(noise) * rng.standard_normal(count))
    line = np.linspace(-0.4, 1.4, size)
    return (np.ones((size, size), bool), [1 / (line[1] - line[0])] * 2, [line, line], list(places), values)
