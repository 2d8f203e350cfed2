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
