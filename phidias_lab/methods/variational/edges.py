"""Stretched edge cells: the boundary of the grid moved away by about one correlation length.

The analysis has no flux through the edge of the grid, which mirrors the covariance there and inflates the variance.
DIVAnd (option alphabc) widens the outermost cell of every open edge so that the mirror stands further away.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phidias_lab.errors import ParameterError
from phidias_lab.methods.variational.grid import Grid

Edges = dict[int, tuple[np.ndarray, np.ndarray]]
"""Per stretched dimension the moved coordinates of its first and of its last nodes (arrays without that dimension)."""


def factor(edge_stretch) -> float:
    """The stretching factor: False is 0, True is 1 (about one length), a number is taken as it is."""
    try:
        value = float(edge_stretch)
    except (TypeError, ValueError):
        value = np.nan
    if not np.isfinite(value) or value < 0:
        raise ParameterError(f"edge_stretch is {edge_stretch!r}. Give False, True, or a factor of 0 or more.")
    return value


def stretch(grid: Grid, lines: list[np.ndarray], a: float) -> tuple[Grid, Edges]:
    """Widen the edge cells by a factor `a` of the correlation length; returns the grid and the moved edges.

    With L and p the length and metric at an edge node, q the metric of its inner neighbour::

        x <- x + (x - x_inner) max(((2 a L q - 1) p - q) / (p + q), 0)
        p <- 1 / max(2 a L - 1/q, 1/q)
    """
    if not a:
        return grid, {}
    metrics, edges = list(grid.metrics), {}
    for i in grid.active:
        if grid.periods[i] or grid.mask.shape[i] < 2:
            continue
        old = np.moveaxis(grid.metrics[i], i, 0)
        new = old.copy()
        length = np.moveaxis(grid.lengths[i], i, 0)
        moved = []
        for edge, inner in ((0, 1), (-1, -2)):
            p, q, reach = old[edge], old[inner], 2 * a * length[edge]
            step = lines[i][edge] - lines[i][inner]
            moved.append(lines[i][edge] + step * np.maximum(((reach * q - 1) * p - q) / (p + q), 0))
            new[edge] = 1 / np.maximum(reach - 1 / q, 1 / q)
        metrics[i] = np.moveaxis(new, 0, i)
        edges[i] = (moved[0], moved[1])
    return replace(grid, metrics=tuple(metrics)), edges
