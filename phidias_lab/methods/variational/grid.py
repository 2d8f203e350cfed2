"""The grid: sea nodes, the faces between them, and averages and differences over those faces.

A grid is structured and orthogonal; its metric along each dimension is the inverse of the local spacing.  Nodes are
numbered over the sea in C order, so land costs nothing.  A face joins two neighbouring sea nodes; where one of the two
is land there is no face, hence no flux: that is how the coast stops the influence of an observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from phidias_lab.errors import InputError, ParameterError


@dataclass(frozen=True)
class Grid:
    """A masked grid with its metrics and correlation lengths, all arrays of the mask's shape.

    means : of a grid that is cut out of a greater one, the mean correlation lengths of that one.
    """

    mask: np.ndarray
    metrics: tuple[np.ndarray, ...]
    lengths: tuple[np.ndarray, ...]
    periods: tuple[float, ...]
    means: tuple[float, ...] | None = None

    @property
    def ndim(self) -> int:
        return self.mask.ndim

    @cached_property
    def nodes(self) -> int:
        """How many nodes are sea."""
        return int(self.mask.sum())

    @cached_property
    def number(self) -> np.ndarray:
        """Number of each sea node in C order, -1 on land."""
        number = np.full(self.mask.shape, -1, np.int32)
        number[self.mask] = np.arange(self.nodes, dtype=np.int32)
        return number

    @cached_property
    def mean_lengths(self) -> tuple[float, ...]:
        """Mean correlation length of each dimension, 0 where the dimension decouples.

        The mean is over all nodes, land included, as in DIVAnd: it enters the normalisation.  Where a length is NaN
        on land, it counts there as the mean over the sea.
        """
        if self.means is not None:
            return self.means
        return tuple(float(length.mean()) for length in self.lengths)

    @cached_property
    def active(self) -> tuple[int, ...]:
        """The dimensions along which nodes are correlated at all (mean length above 0)."""
        return tuple(i for i, mean in enumerate(self.mean_lengths) if mean > 0)

    @cached_property
    def sea_metrics(self) -> tuple[np.ndarray, ...]:
        return tuple(metric[self.mask] for metric in self.metrics)

    def faces(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the two sea nodes of each face along dimension i, the lower one first."""
        number = np.moveaxis(self.number, i, 0)
        lower, upper = (number, np.roll(number, -1, axis=0)) if self.periods[i] else (number[:-1], number[1:])
        lower, upper = (np.moveaxis(side, 0, i).ravel() for side in (lower, upper))
        valid = (lower >= 0) & (upper >= 0)
        return lower[valid], upper[valid]

    def gradient(self, i: int) -> sparse.csr_array:
        """Gradient along dimension i: from sea nodes to faces."""
        lower, upper = self.faces(i)
        slope = average(self.sea_metrics[i], lower, upper)
        rows = np.arange(lower.size)
        return sparse.csr_array(
            (np.r_[-slope, slope], (np.r_[rows, rows], np.r_[lower, upper])), shape=(lower.size, self.nodes)
        )

    def to_nodes(self, i: int) -> sparse.csr_array:
        """Half of each of the (up to two) faces of a node along dimension i: from faces to sea nodes."""
        lower, upper = self.faces(i)
        columns = np.arange(lower.size)
        return sparse.csr_array(
            (np.full(2 * lower.size, 0.5), (np.r_[lower, upper], np.r_[columns, columns])),
            shape=(self.nodes, lower.size),
        )

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of the sea nodes as an array of the mask's shape, NaN on land."""
        field = np.full(self.mask.shape, np.nan)
        field[self.mask] = values
        return field


def average(values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Mean of a sea-node quantity over the two nodes of each face."""
    return 0.5 * (values[lower] + values[upper])


def build(mask, metrics, length, cyclic, means: tuple[float, ...] | None = None) -> Grid:
    """Check mask, metrics, lengths and periods, and bring each to the shape of the mask."""
    mask = np.asarray(mask)
    if mask.dtype != bool:
        if mask.dtype.kind not in "iuf" or not np.isin(mask, (0, 1)).all():
            raise InputError("The mask is not boolean. Give True on sea and False on land.")
        mask = mask.astype(bool)
    if mask.ndim == 0:
        raise InputError("The mask is a single value. Give an array with one to four dimensions.")
    if not mask.any():
        raise InputError(
            "The mask has no sea node, so there is nothing to analyse. Give True on sea and False on land."
        )
    metrics = [
        _filled(_broadcast(metric, mask, i, "metric"), mask)
        for i, metric in enumerate(_per_dimension(metrics, mask.ndim, "metrics"))
    ]
    for i, metric in enumerate(metrics):
        if not (np.isfinite(metric[mask]) & (metric[mask] > 0)).all():
            raise InputError(
                f"The metric of dimension {i} is not positive and finite on every sea node. "
                f"Give the inverse of the local grid spacing."
            )
    lengths = [
        _filled(_broadcast(each, mask, i, "length"), mask)
        for i, each in enumerate(_lengths_per_dimension(length, mask))
    ]
    for i, each in enumerate(lengths):
        sea = each[mask]
        if not np.isfinite(sea).all() or sea.min() < 0 or (sea.min() == 0 and sea.max() > 0):
            raise ParameterError(
                f"The correlation length of dimension {i} is not positive and finite on every sea node "
                f"(smallest {sea.min():g}). Give a positive length, or 0 throughout to decouple that dimension."
            )
    return Grid(mask, tuple(metrics), tuple(lengths), _periods(cyclic, mask.ndim), means)


def _per_dimension(values, ndim: int, name: str) -> list:
    several = isinstance(values, Sequence) or (isinstance(values, np.ndarray) and values.ndim > 0)
    values = list(values) if several else [values]
    if len(values) != ndim:
        raise InputError(
            f"{len(values)} {name} were given for a mask of {ndim} dimensions. Give a list with one per dimension."
        )
    return values


def _lengths_per_dimension(length, mask: np.ndarray) -> list:
    """A scalar or an array of the mask's shape holds for all dimensions; otherwise there is one length for each."""
    if isinstance(length, Sequence):
        return _per_dimension(length, mask.ndim, "lengths")
    length = np.asarray(length, float)
    if length.ndim == 0 or length.shape == mask.shape:
        return [length] * mask.ndim
    return _per_dimension(length, mask.ndim, "lengths")


def _broadcast(values, mask: np.ndarray, i: int, name: str) -> np.ndarray:
    """A scalar, a vector along dimension i or a whole array, as an array of the mask's shape."""
    values = np.asarray(values, float)
    if values.ndim == 1 and values.size == mask.shape[i]:
        values = values.reshape([-1 if j == i else 1 for j in range(mask.ndim)])
    elif values.ndim and values.shape != mask.shape:
        raise InputError(
            f"The {name} of dimension {i} has the shape {values.shape}, but the mask has {mask.shape}. "
            f"Give a number, a vector along that dimension, or an array of the mask's shape."
        )
    return np.broadcast_to(values, mask.shape).copy()


def _filled(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Land may hold anything (often NaN): what is not finite there becomes the mean over the sea."""
    gaps = ~mask & ~np.isfinite(values)
    if gaps.any():
        values[gaps] = values[mask].mean()
    return values


def _periods(cyclic, ndim: int) -> tuple[float, ...]:
    periods = np.atleast_1d(np.asarray(cyclic, float)) if np.size(cyclic) else np.zeros(ndim)
    if periods.shape != (ndim,) or not np.isfinite(periods).all() or (periods < 0).any():
        raise ParameterError(
            f"cyclic is {cyclic!r}, but the grid has {ndim} dimensions. "
            f"Give a period for each dimension, in the units of its coordinate, and 0 where it is not cyclic."
        )
    return tuple(float(period) for period in periods)
