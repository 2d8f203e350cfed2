"""The analysis: the field that balances the norm, the observations and the constraints, and its error variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phidias_lab.errors import ParameterError, nearest
from phidias_lab.methods import progress
from phidias_lab.methods.variational import edges, grid, observation, solvers, system, variance

ERRORS = ("exact",)


@dataclass(frozen=True)
class Analysis:
    """What an analysis gives.

    field : the analysed anomaly on the grid, NaN on land.
    error_variance : its error variance relative to the background variance, NaN on land; None unless asked for.
    observations_used : per observation, False where it lies outside the grid or on land, or has infinite noise.
    residuals : per observation, value minus analysis there; NaN where it was ignored.
    cost : y' R^-1 (y - Hx), which is the least cost where constraints, if any, ask for zeros. Over the number of
        observations it is the background variance that makes them most probable (see `likelihood`).
    solver : name of the solver that was used.
    """

    field: np.ndarray
    error_variance: np.ndarray | None
    observations_used: np.ndarray
    residuals: np.ndarray
    cost: float
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
    unit_variance: bool | np.ndarray = False,
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
    unit_variance : give the background the variance 1 at every node, beside coasts too (see `variance`), for the price of
        another factor and selected inverse; or what `background_deviation` gave for this grid.  DIVAnd leaves it as it is.
    error : None, or "exact" for the error variance at every node.
    solver : "auto" or a name out of `solvers.available()`.

    Without any observation or constraint the analysis is the background: 0, with the variance diag(B).
    """
    if error is not None and error not in ERRORS:
        raise ParameterError(f"There is no error estimate {error!r}. {nearest(str(error), ERRORS)} None leaves it out.")
    solvers.check(solver)
    matrix, found = system.build(
        mask,
        metrics,
        coords,
        obs_coords,
        values,
        length,
        noise,
        alpha=alpha,
        cyclic=cyclic,
        velocity=velocity,
        constraints=constraints,
        edge_stretch=edge_stretch,
        renormalise=renormalise,
        unit_variance=unit_variance,
    ).spared()
    tell = progress.begin()
    factored = variance.FACTOR if error else 1.0
    factor = solvers.factorise(matrix, found.places, solver, progress.part(tell, 0.0, factored))
    field = solvers.solve(factor, matrix, found.right)
    residuals = np.full(found.used.size, np.nan)
    residuals[found.used] = found.values - found.interpolation @ field
    spread = None
    if error:
        diagonal = variance.inverse_diagonal(factor, found.grid.nodes, progress.part(tell, factored, 1.0))
        spread = found.grid.on_grid(diagonal)
    return Analysis(
        field=found.grid.on_grid(field),
        error_variance=spread,
        observations_used=found.used,
        residuals=residuals,
        cost=float(found.values @ (found.weight @ residuals[found.used])),
        solver=factor.name,
    )


def usable(mask, metrics, coords, obs_coords, length, *, cyclic=(), edge_stretch=False, means=None) -> np.ndarray:
    """Which observations `analyse` with the same arguments would use: inside the grid, with sea at a corner of their cell.

    It costs no factorisation, so a background can be taken from the observations that will count.
    """
    return interpolation(
        mask, metrics, coords, obs_coords, length, cyclic=cyclic, edge_stretch=edge_stretch, means=means
    )[1]


def interpolation(mask, metrics, coords, obs_coords, length, *, cyclic=(), edge_stretch=False, means=None):
    """The matrix from sea nodes to observations that `analyse` would use, and which of them it would use."""
    sea = grid.build(mask, metrics, length, cyclic, means)
    lines = observation.grid_lines(coords, sea)
    positions, _ = system.observations(obs_coords, np.zeros(np.shape(obs_coords[0])), sea.ndim)
    sea, moved = edges.stretch(sea, lines, edges.factor(edge_stretch))
    return observation.operator(sea, lines, positions, moved, renormalise=True)
