"""The linear system of an analysis: norm, observations and constraints put together, not yet solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods.variational import constraints as terms
from phidias_lab.methods.variational import edges, grid, noise, norm, observation, solvers, variance

# The parameter `noise` of `build` is the science's name for it and hides the module there.
_covariance, _inverse, _restrict = noise.covariance, noise.inverse, noise.restrict


@dataclass(frozen=True)
class System:
    """The terms of x' B^-1 x + (Hx - y)' R^-1 (Hx - y) + sum (Cx - z)' Q^-1 (Cx - z) over the sea nodes.

    grid : the grid with its edges stretched.
    places : where its nodes are, for the solvers.
    prior : B^-1.
    gain : H' R^-1 H, and C' Q^-1 C of all constraints.
    right : H' R^-1 y, and C' Q^-1 z.
    interpolation : H, for the observations in use.
    weight : R^-1, for them.
    values : y, for them.
    used : which of all observations they are.
    """

    grid: grid.Grid
    places: solvers.Places
    prior: sparse.csr_array
    gain: sparse.csr_array
    right: np.ndarray
    interpolation: sparse.csr_array
    weight: sparse.csr_array
    values: np.ndarray
    used: np.ndarray

    @property
    def matrix(self) -> sparse.csr_array:
        """The inverse of the error covariance of the analysis."""
        return sparse.csr_array(self.prior + self.gain)

    def spared(self) -> tuple[sparse.csr_array, System]:
        """The matrix, and the rest without the two terms of it, which take as much memory again while it is factorised."""
        nothing = sparse.csr_array((0, 0))
        return self.matrix, replace(self, prior=nothing, gain=nothing)


def build(
    mask,
    metrics,
    coords,
    obs_coords,
    values,
    length,
    noise,
    *,
    alpha=None,
    cyclic=(),
    velocity=None,
    constraints=(),
    edge_stretch=False,
    renormalise: bool = True,
    unit_variance: bool | np.ndarray = False,
    means: tuple[float, ...] | None = None,
) -> System:
    """The system of an analysis; the arguments are those of `analyse`, and `means` are those of a greater grid."""
    sea = grid.build(mask, metrics, length, cyclic, means)
    alpha = norm.coefficients(alpha, len(sea.active))
    lines = observation.grid_lines(coords, sea)
    positions, values = observations(obs_coords, values, sea.ndim)
    covariance = _covariance(noise, values.size)
    given = _constraints(constraints)

    sea, moved = edges.stretch(sea, lines, edges.factor(edge_stretch))
    places = _places(sea, alpha)
    interpolation, used = observation.operator(sea, lines, positions, moved, renormalise=renormalise)
    if isinstance(covariance, np.ndarray):
        used &= np.isfinite(covariance)
    interpolation, weight = interpolation[used], _inverse(_restrict(covariance, used))
    data = [(interpolation, weight, values[used])]
    if velocity is not None:
        data.append(terms.advection(sea, velocity))
    data += [terms.custom(sea, constraint, index) for index, constraint in enumerate(given)]

    prior = norm.precision(sea, alpha)
    if unit_variance is not False:
        known = unit_variance is not True
        prior = variance.scaled(prior, unit_variance[sea.mask] if known else _deviation(prior, places, alpha))
    right = np.zeros(sea.nodes)
    gain = sparse.csr_array((sea.nodes, sea.nodes))
    for matrix, inverse, target in data:
        weighted = matrix.T @ inverse
        gain = gain + weighted @ matrix
        right = right + weighted @ target
    if alpha[0] == 0:
        _refuse_floating_areas(prior, gain)
    return System(sea, places, prior, gain, right, interpolation, weight, values[used], used)


def background_deviation(mask, metrics, coords, length, *, alpha=None, cyclic=(), edge_stretch=False) -> np.ndarray:
    """The standard deviation that the norm alone gives the background at each node: above 1 beside walls.

    The arguments are those of `analyse`, which takes the result as `unit_variance` where many analyses share a grid.
    """
    sea = grid.build(mask, metrics, length, cyclic)
    alpha = norm.coefficients(alpha, len(sea.active))
    sea, _ = edges.stretch(sea, observation.grid_lines(coords, sea), edges.factor(edge_stretch))
    return sea.on_grid(_deviation(norm.precision(sea, alpha), _places(sea, alpha), alpha))


def _deviation(prior: sparse.csr_array, places: solvers.Places, alpha: np.ndarray) -> np.ndarray:
    if alpha[0] == 0:
        raise ParameterError(
            "alpha starts with 0, so the background has no variance that could be made 1. Leave unit_variance out, or "
            "give alpha_0 a positive value."
        )
    return np.sqrt(variance.diagonal_of(prior, places))


def _places(sea: grid.Grid, alpha: np.ndarray) -> solvers.Places:
    """The norm of order m couples nodes m steps apart; an observation couples the corners of its cell."""
    reach = [max(alpha.size - 1, 1) if i in sea.active else 1 for i in range(sea.ndim)]
    return solvers.Places(sea, np.array(reach))


def observations(obs_coords, values, ndim: int) -> tuple[list[np.ndarray], np.ndarray]:
    values = np.asarray(values, float)
    positions = [np.asarray(each, float) for each in obs_coords]
    if len(positions) != ndim:
        raise InputError(
            f"Observations have {len(positions)} coordinates, but the grid has {ndim} dimensions. Give a vector each."
        )
    shapes = [each.shape for each in positions]
    if values.ndim != 1 or any(shape != values.shape for shape in shapes):
        raise InputError(
            f"values has the shape {values.shape} and the observation coordinates have {shapes}. "
            f"Give vectors of equal length."
        )
    for name, each in [("values", values), *((f"observation coordinate {i}", p) for i, p in enumerate(positions))]:
        gaps = int((~np.isfinite(each)).sum())
        if gaps:
            raise InputError(f"{gaps} of {each.size} entries of {name} are not finite. Leave those observations out.")
    return positions, values


def _constraints(constraints) -> list:
    if not isinstance(constraints, Sequence):
        raise InputError("constraints is not a list. Give a list of triples (C, Q, z).")
    return list(constraints)


def _refuse_floating_areas(prior: sparse.csr_array, gain: sparse.csr_array) -> None:
    """Without alpha_0 the norm does not see a constant on a connected sea area: something else must fix its level."""
    areas, label = csgraph.connected_components(prior, directed=False)
    indicator = sparse.csr_array((np.ones(label.size), (np.arange(label.size), label)), shape=(label.size, areas))
    weight = (indicator.T @ gain @ indicator).diagonal()
    # A constraint on gradients leaves rounding only: compare with the size of the terms that cancelled.
    size = (indicator.T @ abs(gain) @ indicator).diagonal()
    floating = int((weight <= 1e-10 * size).sum())
    if floating:
        raise InputError(
            f"alpha starts with 0, so the norm leaves the level of each connected sea area free, and {floating} of "
            f"{areas} areas have no observation to fix it. Mask them, or give alpha_0 a positive value."
        )
