"""Correlation length and noise from the empirical covariance of observations, in bins of distance: the fit of DIVA.

The covariance of values at a distance is the mean product of the anomalies of pairs so far apart; the kernel of the norm,

    c(d) = s2 (K(d / L) - K_mean)                               noise = (v + s2 K_mean - s2) / s2

is fitted to it by weighted least squares, where v is the variance of the anomalies (DIVA's `fitlen`: Troupin et al. 2012,
doi:10.1016/j.ocemod.2012.05.002, sect. 3).  Taking the mean away takes from every covariance that of the mean: K_mean is
the mean of K over all pairs, each value with itself included.  It is what makes an empirical covariance negative far away.

Pairs share observations, so bins are not independent, and their errors by the number of pairs are far too small.  Errors
of bins, intervals of the parameters and the bias of the fit are taken from samples of the fitted covariance at the same
places, which go through the same fit.  Coasts play no part: distances go across land.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import distance

from phidias_lab.methods.variational.norm import kernel
from phidias_lab.methods.variational.parameters import FEWEST, Parameter, too_few, undecided

MOST = 1_500
"""Of more observations so many are taken, at random: a million pairs."""
BINS = 80
"""Bins up to the mean distance, at most (as in DIVA)."""
LEAST = 1e-4
"""The noise that is left when the kernel takes all of the variance (as in DIVA)."""
_DRAWS, _LENGTHS, _PLACES = 200, 240, 64


@dataclass(frozen=True)
class Fit:
    """Length, noise and variance, and the bins they were fitted to: mean distance, covariance, its error, pairs, fit."""

    length: Parameter
    noise: Parameter
    variance: float
    distance: np.ndarray
    covariance: np.ndarray
    error: np.ndarray
    pairs: np.ndarray
    fitted: np.ndarray


def fit(
    points: np.ndarray,
    values: np.ndarray,
    order: tuple[int, int],
    *,
    group=None,
    level=None,
    across: np.ndarray | None = None,
    seed: int = 0,
) -> Fit:
    """Fit the kernel of the norm of `order` (dimensions, power of the operator).

    points : the places, one row each, in the units of the length (chords of a sphere count as distances).
    group : per value the group within which pairs are formed: its level, or its cast; all with all where it is None.
    level : per value the part whose mean is taken away, where this is not its group.
    across : the places in the other directions, where pairs are not formed, in correlation lengths of these; without them
        the groups are independent.  Where `level` is given its mean is that of values across, and K_mean becomes a
        function of d: the mean of K over them, d apart; or 0 where they are independent.
    """
    random = np.random.default_rng(seed)
    points, values = np.asarray(points, float).reshape(len(values), -1), np.asarray(values, float)
    if values.size < FEWEST:
        raise too_few(values.size)
    group = _numbered(np.zeros(values.size) if group is None else group)
    mine = level is None
    level = group if mine else _numbered(level)
    keep = _some(group, random)
    points, values, level, group = points[keep], values[keep], level[keep], group[keep]
    if across is not None:
        across = np.asarray(across, float)[keep]
    first, second = _pairs(group)
    apart = np.sqrt(((points[first] - points[second]) ** 2).sum(axis=1))
    if first.size < FEWEST or apart.max() == 0:
        raise undecided(f"{first.size} pairs of values are too few, or none is apart")
    mean_of = _averages(level)
    number, furthest = _bins(apart, values.size)
    pairs = np.bincount(number)
    middle = np.bincount(number, weights=apart) / pairs

    def binned(columns: np.ndarray) -> np.ndarray:
        anomalies = columns - mean_of @ columns
        return np.column_stack(
            [np.bincount(number, weights=each[first] * each[second]) / pairs for each in anomalies.T]
        )

    anomalies = values - mean_of @ values
    total = float(anomalies @ anomalies) / values.size
    if total <= 1e-20 * np.mean(values**2):
        raise undecided("all values are the same")
    covariance = binned(values[:, None])
    products = anomalies[first] * anomalies[second]
    scatter = np.bincount(number, weights=products**2) / pairs - covariance[:, 0] ** 2
    weight = pairs / np.maximum(scatter, 1e-8 * total**2)
    weight = weight + weight.mean()  # so that the bins with the most pairs do not decide alone
    if mine:
        weight[middle > furthest] = 0.0

    reach = apart.max()
    lengths = np.geomspace(middle[middle > 0][0], reach, _LENGTHS)  # from the nearest pairs to the furthest
    fitter = _Fitter(lengths, middle, weight, order, pairs, *((values.size, None) if mine else (None, across)))
    length, variance, explained = fitter.best(covariance)
    shuffled = np.column_stack([random.permutation(anomalies) for _ in range(_DRAWS)])
    by_chance = np.quantile(fitter.best(binned(shuffled))[2], 0.95)
    if explained[0] <= by_chance or variance[0] <= 0:
        raise undecided("values far apart and close together differ alike, as those of noise alone would")
    if length[0] in (lengths[0], lengths[-1]):
        raise undecided("the best length is shorter than the nearest pairs are apart, or longer than the furthest")

    noise = max((total + variance[0] * fitter.mean(length[0]) - variance[0]) / variance[0], LEAST)
    root = np.linalg.cholesky(_correlation(points, group, across, length[0], order) + 1e-8 * np.eye(values.size))
    drawn = root @ random.standard_normal((values.size, _DRAWS))
    drawn = math.sqrt(variance[0]) * (drawn + math.sqrt(noise) * random.standard_normal(drawn.shape))
    again = binned(drawn)
    lengths_again, variances_again, _ = fitter.best(again)
    good = variances_again > 0
    totals = ((drawn - mean_of @ drawn) ** 2).mean(axis=0)
    means = np.array([fitter.mean(each) for each in lengths_again])
    with np.errstate(divide="ignore", invalid="ignore"):
        noises = np.maximum((totals + variances_again * means - variances_again) / variances_again, LEAST)
    if good.mean() < 0.8:
        raise undecided("samples with this covariance often show none")
    return Fit(
        Parameter.of_logarithm(math.log(length[0]), float(np.std(np.log(lengths_again[good]), ddof=1))),
        _of_share(float(noise), noises[good]),
        float(variance[0]),
        middle,
        covariance[:, 0],
        again.std(axis=1, ddof=1),
        pairs,
        variance[0] * fitter.shape[np.flatnonzero(lengths == length[0])[0]],
    )


class _Fitter:
    """The fit for all lengths of a list at once, for one or many columns of binned covariances."""

    def __init__(self, lengths, middle, weight, order, pairs, count, across):
        self.lengths, self.weight = lengths, weight
        scaled = middle[None, :] / lengths[:, None]
        shape = kernel(scaled, *order)
        if across is not None:
            apart = np.quantile(distance.pdist(across), (np.arange(_PLACES) + 0.5) / _PLACES)
            means = np.mean([kernel(np.hypot(each, scaled), *order) for each in apart], axis=0)
            self.means = np.full(lengths.size, kernel(apart, *order).mean())
        elif count is not None:
            # Over all pairs and over each value with itself, where K is 1; by bins, since all pairs stand in them.
            self.means = (shape @ (2 * pairs) + count) / (2 * pairs.sum() + count)
            means = self.means[:, None]
        else:
            self.means, means = np.zeros(lengths.size), 0.0
        self.shape = shape - means
        self.square = (self.shape**2 * weight).sum(axis=1)

    def mean(self, length: float) -> float:
        """K_mean of values with themselves."""
        return float(np.interp(length, self.lengths, self.means))

    def best(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per column the length, the variance, and by how much they lessen the weighted sum of squares."""
        variance = (self.shape * self.weight) @ covariance / self.square[:, None]
        lessened = np.where(variance > 0, variance**2 * self.square[:, None], 0.0)
        row, column = lessened.argmax(axis=0), np.arange(covariance.shape[1])
        return self.lengths[row], variance[row, column], lessened[row, column]


def _numbered(labels) -> np.ndarray:
    return np.unique(np.asarray(labels), return_inverse=True)[1]


def _some(group: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places of at most `MOST` values: whole groups in a random order, and the last of them in part."""
    rank = random.permutation(group.max() + 1)
    order = np.lexsort((random.random(group.size), rank[group]))
    return np.sort(order[:MOST])


def _pairs(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of values of the same group."""
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    found = [(each[i], each[j]) for each in members for i, j in [np.triu_indices(each.size, 1)]]
    return tuple(np.concatenate(side) for side in zip(*found, strict=True))


def _averages(level: np.ndarray) -> sparse.csr_array:
    """The matrix that gives each value the mean of its level."""
    rows = sparse.csr_array((np.ones(level.size), (np.arange(level.size), level)))
    return rows @ sparse.diags_array(1 / np.maximum(np.bincount(level), 1)) @ rows.T


def _bins(apart: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The bin of each pair, empty ones left out, and the distance up to which bins are fitted."""
    mean, largest = apart.mean(), apart.max()
    number = max(min(BINS, int(count**2 * mean / (20 * largest))), 5)
    return np.unique((apart / (mean / number)).astype(int), return_inverse=True)[1], mean


def _correlation(points: np.ndarray, group: np.ndarray, across, length: float, order: tuple[int, int]) -> np.ndarray:
    """Of the values with each other; groups that form no pairs are independent unless it is known how far they are apart."""
    if across is not None:
        every = np.column_stack([points / length, across])
        return kernel(distance.squareform(distance.pdist(every)), *order)
    apart = distance.squareform(distance.pdist(points / length))
    return np.where(group[:, None] == group[None, :], kernel(apart, *order), 0.0)


def _of_share(noise: float, samples: np.ndarray) -> Parameter:
    """Of the noise, by its share of the variance: that is between 0 and 1, and 0 may well be its estimate."""
    share = noise / (1 + noise)
    reach = 1.96 * float(np.std(samples / (1 + samples), ddof=1))
    low, high = np.clip([share - reach, share + reach], LEAST / (1 + LEAST), 0.999)
    return Parameter(noise, float(low / (1 - low)), float(high / (1 - high)))
