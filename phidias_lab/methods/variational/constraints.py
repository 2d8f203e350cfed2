"""Quadratic constraints (Cx - z)' Q^-1 (Cx - z) added to the cost: advection, and any the caller has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import noise
from phidias_lab.methods.variational.grid import Grid

Constraint = tuple[sparse.csr_array, sparse.csr_array, np.ndarray]
"""C from sea nodes to rows, the inverse of Q, and z."""


def advection(grid: Grid, velocity) -> Constraint:
    """The field changes little along the flow: v . grad x = 0 on every sea node, with unit variance.

    `velocity` carries the weight of the constraint: it is a length (a physical velocity times a time scale).  Face
    gradients are averaged back to the nodes (Barth et al. 2014).
    """
    if not isinstance(velocity, Sequence | np.ndarray) or len(velocity) != grid.ndim:
        raise InputError(
            f"velocity needs one array per dimension, {grid.ndim} in all. Give a list of arrays of the mask's shape."
        )
    matrix = sparse.csr_array((grid.nodes, grid.nodes))
    for i, component in enumerate(velocity):
        component = np.asarray(component, float)
        if component.ndim and component.shape != grid.mask.shape:
            raise InputError(
                f"The velocity along dimension {i} has the shape {component.shape}, but the mask has "
                f"{grid.mask.shape}. Give arrays of the mask's shape."
            )
        at_sea = np.broadcast_to(component, grid.mask.shape)[grid.mask]
        if not np.isfinite(at_sea).all():
            raise InputError(
                f"The velocity along dimension {i} is not finite on {int((~np.isfinite(at_sea)).sum())} sea nodes. "
                f"Fill the gaps, with 0 where the constraint shall not act."
            )
        matrix = matrix + sparse.diags_array(at_sea) @ (grid.to_nodes(i) @ grid.gradient(i))
    return sparse.csr_array(matrix), sparse.eye_array(grid.nodes).tocsr(), np.zeros(grid.nodes)


def custom(grid: Grid, constraint, index: int) -> Constraint:
    """A caller's (C, Q, z): C on the sea nodes in C order; Q a variance, vector or matrix; z a number or vector."""
    name = f"Constraint {index}"
    if not isinstance(constraint, Sequence) or len(constraint) != 3:
        raise InputError(f"{name} is not a triple (C, Q, z). Give the matrix, its error covariance and its value.")
    matrix, covariance, value = constraint
    try:
        matrix = sparse.csr_array(matrix).astype(float)
    except (TypeError, ValueError):
        raise InputError(f"{name}: C is not a matrix of numbers. Give a dense or sparse matrix.") from None
    if matrix.ndim != 2 or matrix.shape[1] != grid.nodes:
        raise InputError(
            f"{name}: C has the shape {matrix.shape}, but the grid has {grid.nodes} sea nodes. "
            f"Give one column per sea node, in C order."
        )
    value = np.asarray(value, float)
    if value.shape not in ((), (matrix.shape[0],)):
        raise InputError(f"{name}: z has the shape {value.shape}, but C has {matrix.shape[0]} rows. Give one a row.")
    if not np.isfinite(matrix.data).all() or not np.isfinite(value).all():
        raise InputError(f"{name} holds values that are not finite. Leave out the rows that are unknown.")
    inverse = noise.inverse(noise.covariance(covariance, matrix.shape[0], f"{name}: Q"), f"{name}: Q")
    return matrix, inverse, np.broadcast_to(value, (matrix.shape[0],))


# Triples (C, Q, z) for the argument `constraints` of `analyse`, after the constraints of DIVAnd. None depends on the grid's
# metric, so edge stretching does not matter to them.


def fractions(grid: Grid, variance: float, total: float = 0.0) -> tuple:
    """The values along the last dimension (the shares of the parts of a whole) sum to `total`, which is 0 for anomalies.

    One row for each place at which all parts are sea.
    """
    number = grid.number.reshape(-1, grid.mask.shape[-1])
    number = number[(number >= 0).all(axis=1)]
    rows = np.repeat(np.arange(len(number)), number.shape[1])
    matrix = sparse.csr_array((np.ones(number.size), (rows, number.ravel())), shape=(len(number), grid.nodes))
    return matrix, variance, np.full(len(number), float(total))


def fluxes(grid: Grid, dimension: int, depth, flux, variance: float) -> tuple:
    """Along each line of a dimension the sum of depth times the change of the field is minus the flux through that section.

    With the elevation of the sea surface for the field and constants taken into the flux this is the geostrophic transport.
    `depth` has the mask's shape or is a number, `flux` one value for each line in the order of the other dimensions, NaN
    where it is not known. A row has the variance of its mean depth times `variance`; lines without two neighbours at sea
    have none.
    """
    lower, upper = grid.faces(dimension)
    depth = np.broadcast_to(np.asarray(depth, float), grid.mask.shape)[grid.mask]
    thick = 0.5 * (depth[lower] + depth[upper])
    others = [size for i, size in enumerate(grid.mask.shape) if i != dimension]
    flux = np.broadcast_to(np.asarray(flux, float), others or (1,)).ravel()
    place = np.stack(np.nonzero(grid.mask))
    along = np.delete(place, dimension, axis=0)[:, lower]
    line = np.ravel_multi_index(tuple(along), others) if others else np.zeros(lower.size, int)
    number = np.bincount(line, minlength=flux.size)
    kept = np.flatnonzero((number > 0) & np.isfinite(flux))
    row = np.full(flux.size, -1)
    row[kept] = np.arange(kept.size)
    row, used = row[line], row[line] >= 0
    entries, rows = np.r_[-thick[used], thick[used]], np.r_[row[used], row[used]]
    shape = (kept.size, grid.nodes)
    matrix = sparse.csr_array((entries, (rows, np.r_[lower[used], upper[used]])), shape=shape)
    mean = np.bincount(line, thick, minlength=flux.size)[kept] / number[kept]
    return matrix, variance * mean, -flux[kept]


def coast(grid: Grid, variance: float) -> tuple:
    """The field changes little along the coast: neighbours at sea with land beside one of them are alike."""
    rows, sea = [], grid.mask
    for i, period in enumerate(grid.periods):
        width = [(int(i == j), int(i == j)) for j in range(grid.ndim)]
        # Beyond the edge of the grid is no coast.
        sea = np.pad(sea, width, mode="wrap") if period else np.pad(sea, width, constant_values=True)
    inside = tuple(slice(1, -1) for _ in range(grid.ndim))
    for i in range(grid.ndim):
        lower, upper = grid.faces(i)
        beside = np.zeros(grid.mask.shape, bool)
        for j in range(grid.ndim):
            if j != i:
                beside |= ~np.roll(sea, 1, j)[inside] | ~np.roll(sea, -1, j)[inside]
        shore = beside[grid.mask]
        here = shore[lower] | shore[upper]
        rows.append(np.column_stack([lower[here], upper[here]]))
    pairs = np.concatenate(rows)
    row = np.arange(len(pairs))
    entries = np.r_[-np.ones(len(pairs)), np.ones(len(pairs))]
    matrix = sparse.csr_array((entries, (np.r_[row, row], pairs.T.ravel())), shape=(len(pairs), grid.nodes))
    return matrix, variance, np.zeros(len(pairs))
