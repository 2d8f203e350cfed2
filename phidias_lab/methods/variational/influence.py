"""What each observation weighs at one node of the analysis: a row of its gain matrix.

The analysis solves A x = H' R^-1 y + sum C' Q^-1 z (see `system`; Barth et al. 2014, doi:10.5194/gmd-7-225-2014), so that
A^-1 H' R^-1 is its gain matrix. With e the unit vector of a node and u = A^-1 e, since A and R are symmetric,

    x = k' y + sum u' C' Q^-1 z,          k = R^-1 H u,          k_j = dx / dy_j

so one solve tells all weights of the node, exactly. No weight depends on the values, but for the bounds of
`analyse_within`: with these the weights are those of the analysis that holds the same nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import bounded, solvers, system


@dataclass(frozen=True)
class Influences:
    """What the analysed anomaly of one node is made of.

    weights : per observation, by how much the anomaly changes when the observation changes by one; 0 where it is ignored.
    rest : what constraints contribute that do not ask for zeros; weights @ values + rest is the anomaly.
    """

    weights: np.ndarray
    rest: float


def influences(
    mask, *arguments, node, least=None, greatest=None, constraints=(), solver: str = "auto", **options
) -> Influences:
    """The weights of all observations at a node (its place along each dimension) of the analysis of `analyse_within` with
    the same arguments and options; without bounds that is `analyse`."""
    sea = np.asarray(mask, bool)
    node = tuple(int(place) for place in node)
    if len(node) != sea.ndim or not all(0 <= place < size for place, size in zip(node, sea.shape, strict=True)):
        raise InputError(
            f"The node {node} is not in a grid of the shape {sea.shape}. Give its place along each dimension."
        )
    if not sea[node]:
        raise InputError(f"The node {node} is on land, where there is no analysis. Choose one at sea.")
    if least is not None or greatest is not None:
        bounds = {"least": least, "greatest": greatest}
        constraints = bounded.held(mask, *arguments, constraints=constraints, solver=solver, **bounds, **options)
    found = system.build(mask, *arguments, constraints=constraints, **options)
    matrix, unit = found.matrix, np.zeros(found.grid.nodes)
    unit[found.grid.number[node]] = 1.0
    answer = solvers.solve(solvers.factorise(matrix, found.places, solver), matrix, unit)
    weights = np.zeros(found.used.size)
    weights[found.used] = found.weight @ (found.interpolation @ answer)
    constant = found.right - found.interpolation.T @ (found.weight @ found.values)
    return Influences(weights, float(answer @ constant))
