"""The analysis: the field that balances the norm, the observations and the constraints, and its error variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from phidias_lab.errors import InputError, ParameterError, nearest
from phidias_lab.methods.variational import constraints as terms
from phidias_lab.methods.variational import edges, grid, noise, norm, observation, solvers, variance

# The parameter `noise` of `analyse` is the science's name for it and hides the module there.
_covariance, _inverse, _restrict = noise.covariance, noise.inverse, noise.restrict

ERRORS = ("exact",)


@dataclass(frozen=True)
class Analysis:
    """What an analysis gives.

    field : the analysed anomaly on the grid, NaN on land.
    error_variance : its error variance relative to the background variance, NaN on land; None unless asked for.
    observations_used : per observation, False where it lies outside the grid or on land, or has infinite noise.
    residuals : per observation, value minus analysis there; NaN where it was ignored.
    solver : name of the solver that was used.
    """

    field: np.ndarray
    error_variance: np.ndarray | None
    observations_used: np.ndarray
    residuals: np.ndarray
    solver: str


def analyse(
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
    error: str | None = None,
    solver: str = "auto",
) -> Analysis:
    """Analyse scattered observations of an anomaly on a masked grid of 1 to 4 (or more) dimensions.

    Minimises, after Barth et al. (2014, doi:10.5194/gmd-7-225-2014), over the field x at the sea nodes::

        x' B^-1 x + (Hx - y)' R^-1 (Hx - y) + sum (Cx - z)' Q^-1 (Cx - z)

    where B is the covariance that the correlation lengths mean on this grid with these coasts (see `norm`).

    Parameters
    ----------
    mask : boolean array, True on sea.
    metrics : per dimension, the inverse of the local grid spacing (array of the mask's shape, vector or number).
    coords : per dimension, the coordinate of the nodes (vector, or array of the mask's shape that varies along its own
        dimension only), in the units of `obs_coords`.
    obs_coords : per dimension, a vector with the coordinate of each observation.
    values : the observations minus the background.
    length : correlation length, in the inverse units of the metrics: a number, an array of the mask's shape, or a list
        with one of these per dimension.  A dimension with length 0 throughout is decoupled.
    noise : error variance of the observations over the background variance: a number, one per observation (infinite to
        ignore it), or a covariance matrix over all observations.  Ignored observations leave it by row and column.
    alpha : coefficients of the norm; default the binomial ones of order ceil(1 + n/2).
    cyclic : a period per dimension in the units of its coordinate, 0 where it is not cyclic.
    velocity : per dimension, a flow (array of the mask's shape) along which the field shall not change; it carries the
        weight, as a length.
    constraints : triples (C, Q, z) on the sea nodes in C order.
    edge_stretch : widen the cells at open edges by about one length (True) or by a factor of it (see `edges`).
    renormalise : scale interpolation weights next to land to sum 1; False is the convention of octave-divand.
    error : None, or "exact" for the error variance at every node.
    solver : "auto" or a name out of `solvers.available()`.

    Without any observation or constraint the analysis is the background: 0, with the variance diag(B).
    """
    if error is not None and error not in ERRORS:
        raise ParameterError(f"There is no error estimate {error!r}. {nearest(str(error), ERRORS)} None leaves it out.")
    solvers.check(solver)
    sea = grid.build(mask, metrics, length, cyclic)
    alpha = norm.coefficients(alpha, len(sea.active))
    lines = observation.grid_lines(coords, sea)
    positions, values = _observations(obs_coords, values, sea.ndim)
    covariance = _covariance(noise, values.size)
    given = _constraints(constraints)

    sea, moved = edges.stretch(sea, lines, edges.factor(edge_stretch))
    interpolation, used = observation.operator(sea, lines, positions, moved, renormalise=renormalise)
    if isinstance(covariance, np.ndarray):
        used &= np.isfinite(covariance)
    data = [(interpolation[used], _inverse(_restrict(covariance, used)), values[used])]
    if velocity is not None:
        data.append(terms.advection(sea, velocity))
    data += [terms.custom(sea, constraint, index) for index, constraint in enumerate(given)]

    system = norm.precision(sea, alpha)
    right = np.zeros(sea.nodes)
    gain = sparse.csr_array((sea.nodes, sea.nodes))
    for matrix, inverse, target in data:
        weighted = matrix.T @ inverse
        gain = gain + weighted @ matrix
        right = right + weighted @ target
    if alpha[0] == 0:
        _refuse_floating_areas(system, gain)
    system = sparse.csr_array(system + gain)
    del gain
    factor = solvers.factorise(system, solver, sea)
    field = solvers.solve(factor, system, right)

    residuals = np.full(values.size, np.nan)
    residuals[used] = values[used] - interpolation[used] @ field
    return Analysis(
        field=sea.on_grid(field),
        error_variance=sea.on_grid(variance.inverse_diagonal(factor, sea.nodes)) if error else None,
        observations_used=used,
        residuals=residuals,
        solver=factor.name,
    )


def usable(mask, metrics, coords, obs_coords, length, *, cyclic=(), edge_stretch=False) -> np.ndarray:
    """Which observations `analyse` with the same arguments would use: inside the grid, with sea at a corner of their cell.

    It costs no factorisation, so a background can be taken from the observations that will count.
    """
    sea = grid.build(mask, metrics, length, cyclic)
    lines = observation.grid_lines(coords, sea)
    positions, _ = _observations(obs_coords, np.zeros(np.shape(obs_coords[0])), sea.ndim)
    sea, moved = edges.stretch(sea, lines, edges.factor(edge_stretch))
    return observation.operator(sea, lines, positions, moved, renormalise=True)[1]


def _observations(obs_coords, values, ndim: int) -> tuple[list[np.ndarray], np.ndarray]:
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
