"""Error covariances of observations and constraints, and their inverses."""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse
from scipy.sparse import csgraph

from phidias_lab.errors import ParameterError


def covariance(noise, count: int, name: str = "noise") -> np.ndarray | sparse.csr_array:
    """An error covariance as a vector (its diagonal) or, where errors are correlated, as a sparse matrix.

    `noise` is one variance for all, a variance each, or a full (dense or sparse) covariance matrix.
    """
    if sparse.issparse(noise):
        matrix = sparse.csr_array(noise).astype(float)
    else:
        noise = np.asarray(noise, float)
        if noise.ndim <= 1:
            if noise.ndim == 1 and noise.size != count:
                raise ParameterError(
                    f"{name} has {noise.size} values, but {count} are needed. Give a number, one for each, or a matrix."
                )
            variances = np.broadcast_to(noise, (count,)).astype(float)
            if not (variances > 0).all():
                raise ParameterError(f"{name} has values that are not positive. An error variance must be above 0.")
            return variances
        matrix = sparse.csr_array(noise) if noise.ndim == 2 else None
    if matrix is None or matrix.shape != (count, count):
        shape = np.shape(noise) if matrix is None else matrix.shape
        raise ParameterError(
            f"{name} has the shape {shape}, but a matrix of {count} x {count} is needed. "
            f"Give one row and column for each value, ignored ones included."
        )
    if not np.isfinite(matrix.data).all():
        raise ParameterError(f"{name} holds values that are not finite. Leave out what has no known error.")
    if abs(matrix - matrix.T).sum() > 1e-10 * abs(matrix).sum():
        raise ParameterError(f"{name} is not symmetric, so it is no covariance matrix. Check how it was built.")
    if (matrix.diagonal() <= 0).any():
        raise ParameterError(f"{name} has values that are not positive on its diagonal. Variances must be above 0.")
    return matrix


def inverse(covariance: np.ndarray | sparse.csr_array, name: str = "noise") -> sparse.csr_array:
    """The inverse of an error covariance, block by block.

    Errors are usually correlated only within a profile, a track or a cruise: the matrix then falls into blocks, and
    only these are inverted (densely, by Cholesky), so the result stays as sparse as the correlations are.
    """
    if isinstance(covariance, np.ndarray):
        return sparse.diags_array(1 / covariance).tocsr()
    count = covariance.shape[0]
    _, label = csgraph.connected_components(covariance, directed=False)
    order = np.argsort(label, kind="stable")
    rows, columns, entries = [], [], []
    for members in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        block = covariance[members][:, members].toarray()
        try:
            factor = linalg.cho_factor((block + block.T) / 2, lower=True)
        except linalg.LinAlgError:
            raise ParameterError(
                f"{name} is not positive definite, so it is no covariance matrix. Check the correlations in it."
            ) from None
        inverted = linalg.cho_solve(factor, np.eye(members.size))
        rows.append(np.repeat(members, members.size))
        columns.append(np.tile(members, members.size))
        entries.append(((inverted + inverted.T) / 2).ravel())
    triplets = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(triplets, shape=(count, count))


def restrict(covariance: np.ndarray | sparse.csr_array, used: np.ndarray) -> np.ndarray | sparse.csr_array:
    """The covariance of the observations in use: ignored ones leave by row and column."""
    if isinstance(covariance, np.ndarray):
        return covariance[used]
    return covariance[used][:, used]
