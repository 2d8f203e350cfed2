"""A field from one grid to another, axis by axis: means over cells where they are narrower, else lines between nodes.

Each axis has a matrix of weights (target, source). Area-weighted means of the cells that a target cell holds are the first
order of Jones 1999 (Mon. Wea. Rev. 127, 2204-2210, section 2); on a grid of longitudes and latitudes the area that two cells
have in common is a product of what their sides have in common, if latitudes are measured by their sine. Values that are
missing leave both the sum and the weights (Taylor 2024, Geosci. Model Dev. 17, 415-430).

A weighted mean's error depends on how the errors of its members depend on each other. Its standard deviation is at most the
weighted mean of theirs (the triangle inequality), which is reached when they go together; independent ones give the root of
the weighted squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from phidias_lab.methods.fields import TURN

#: Nodes are the same, and cells as wide, within this share of the width of a cell: coordinates are often float32.
SAME = 1e-3


def cell_edges(centres: np.ndarray, width_of_one: float = 1.0) -> np.ndarray:
    """Edges half-way between centres (n + 1 of n); one centre alone gets a cell of a width that is given."""
    centres = np.asarray(centres, float)
    if centres.size == 1:
        return np.array([centres[0] - width_of_one / 2, centres[0] + width_of_one / 2])
    first, last = centres[0] - (centres[1] - centres[0]) / 2, centres[-1] + (centres[-1] - centres[-2]) / 2
    return np.r_[first, (centres[1:] + centres[:-1]) / 2, last]


class Axis(NamedTuple):
    """Nodes in rising order, and the cell (start, end) of each."""

    nodes: np.ndarray
    cells: np.ndarray

    @property
    def width(self) -> float:
        return float(np.median(self.cells[:, 1] - self.cells[:, 0]))


def on_the_sphere(latitudes: np.ndarray) -> np.ndarray:
    """Latitudes in a measure in which equal steps are equal areas."""
    return np.sin(np.deg2rad(np.clip(latitudes, -90.0, 90.0)))


def common(source: np.ndarray, target: np.ndarray) -> sparse.csr_array:
    """How long the part is that spans (start, end) have in common: (target, source), in any order, overlapping or not."""
    order = np.argsort(source[:, 0], kind="stable")
    spans = source[order]
    low = np.searchsorted(np.maximum.accumulate(spans[:, 1]), target[:, 0], "right")
    count = np.maximum(np.searchsorted(spans[:, 0], target[:, 1], "left") - low, 0)
    rows = np.repeat(np.arange(len(target)), count)
    places = np.arange(rows.size) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    length = np.minimum(spans[places, 1], target[rows, 1]) - np.maximum(spans[places, 0], target[rows, 0])
    there = length > 0
    found = (length[there], (rows[there], order[places[there]]))
    return sparse.coo_array(found, shape=(len(target), len(source))).tocsr()


def means(source: np.ndarray, target: np.ndarray) -> sparse.csr_array:
    """Weights of source spans in the mean over target spans. A row's sum is the share of the target that is covered."""
    shares = sparse.diags_array(1.0 / (target[:, 1] - target[:, 0])) @ common(source, target)
    # Spans that overlap each other cover nothing twice.
    return (sparse.diags_array(1.0 / np.maximum(shares.sum(axis=1), 1.0)) @ shares).tocsr()


def lines(source: Axis, places: np.ndarray) -> sparse.csr_array:
    """Weights of the two nodes around each place; in the outer half of the first and last cell there is one, beyond none."""
    nodes, number = source.nodes, source.nodes.size
    inside = (places >= source.cells[0, 0]) & (places <= source.cells[-1, 1])
    rows = np.flatnonzero(inside)
    above = np.clip(np.searchsorted(nodes, places[inside]), 1, max(number - 1, 1))
    below = above - 1
    above = np.minimum(above, number - 1)
    step = np.where(above > below, nodes[above] - nodes[below], 1.0)
    share = np.clip((places[inside] - nodes[below]) / step, 0.0, 1.0)
    found = (np.r_[1.0 - share, share], (np.r_[rows, rows], np.r_[below, above]))
    made = sparse.coo_array(found, shape=(len(places), number)).tocsr()
    made.eliminate_zeros()
    return made


def is_finer(source: Axis, target: Axis) -> bool:
    return source.width < target.width * (1 - SAME)


def weights(source: Axis, target: Axis, measure=lambda values: values) -> sparse.csr_array:
    """Means where the source's cells are narrower than the target's, else lines between its nodes."""
    if is_finer(source, target):
        return means(measure(source.cells), measure(target.cells))
    return lines(source, _snapped(source, target.nodes))


def weights_around(source: Axis, target: Axis) -> sparse.csr_array:
    """The same for longitudes, which may be counted from anywhere and may close around the globe."""
    number = source.nodes.size
    middle = (source.cells[0, 0] + source.cells[-1, 1]) / 2
    turn = TURN * np.round((target.nodes - middle) / TURN)
    target = Axis(target.nodes - turn, target.cells - turn[:, None])
    shifts = np.array([-TURN, 0.0, TURN])
    cells = (source.cells[None] + shifts[:, None, None]).reshape(-1, 2)
    # Where the cells of two turns meet, the nodes of both are neighbours.
    closed = source.cells[-1, 1] - source.cells[0, 0] >= TURN * (1 - SAME / number)
    if is_finer(source, target):
        made = means(cells, target.cells)
    elif closed:
        made = lines(Axis((source.nodes + shifts[:, None]).ravel(), cells), _snapped(source, target.nodes))
    else:
        return lines(source, _snapped(source, target.nodes))
    return sum(made[:, k * number : (k + 1) * number] for k in range(3)).tocsr()


def _snapped(source: Axis, places: np.ndarray) -> np.ndarray:
    """The places, on a node where they differ from it by rounding only."""
    near = np.clip(np.searchsorted(source.nodes, places), 1, max(source.nodes.size - 1, 1))
    near = np.minimum(near, source.nodes.size - 1)
    near = np.where(np.abs(source.nodes[near - 1] - places) < np.abs(source.nodes[near] - places), near - 1, near)
    return np.where(np.abs(source.nodes[near] - places) <= SAME * source.width, source.nodes[near], places)


class Summed(NamedTuple):
    """Weighted sums on a target plane: of the values, their weights, the errors, and the weights of known errors."""

    values: np.ndarray
    weight: np.ndarray
    errors: np.ndarray
    known: np.ndarray


def summed(
    values: np.ndarray,
    errors: np.ndarray | None,
    share: np.ndarray,
    horizontal: Sequence[sparse.csr_array],
    independent: bool,
) -> Summed:
    """The sums over some planes (n, y, x), of which `share` (n) is the weight of each; missing values do not count.

    `horizontal` are the weights along y and x. With `independent` errors it is their squares that are summed.
    """
    there = np.isfinite(values)
    total = np.tensordot(share, np.where(there, values, 0.0), 1)
    sums = [_plane(total, horizontal), _plane(np.tensordot(share, there.astype(float), 1), horizontal)]
    if errors is None:
        return Summed(*sums, np.zeros_like(sums[0]), np.zeros_like(sums[0]))
    known = there & np.isfinite(errors)
    errors, power = np.where(known, errors, 0.0), 2 if independent else 1
    along = [matrix**power for matrix in horizontal] if independent else horizontal
    on_errors = _plane(np.tensordot(share**power, errors**power, 1), along)
    return Summed(*sums, on_errors, _plane(np.tensordot(share, known.astype(float), 1), horizontal))


def _plane(values: np.ndarray, horizontal: Sequence[sparse.csr_array]) -> np.ndarray:
    along, across = horizontal
    return (across @ (along @ values).T).T


def mean(whole: Summed, coverage: float, independent: bool) -> tuple[np.ndarray, np.ndarray]:
    """The means and their errors; missing where less than `coverage` of the weight is there. An error is known where those
    of all members are."""
    enough = whole.weight >= max(coverage * (1 - 1e-9), 1e-9)
    weight = np.where(enough, whole.weight, np.nan)
    known = whole.known >= weight * (1 - 1e-9)
    errors = np.sqrt(whole.errors) if independent else whole.errors
    return whole.values / weight, np.where(known, errors / weight, np.nan)
