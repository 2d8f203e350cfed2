"""Principal components of many spectra: mean and covariance in one pass, components, and how many of them to keep.

`Moments` takes blocks of spectra as they come. Each block gives products in single precision about a mean near its own,
added up in double precision; blocks, and the moments of several workers, are combined by

    n = n_a + n_b,  d = mean_b - mean_a,  mean = mean_a + d n_b / n,  M = M_a + M_b + d d' n_a n_b / n

(Chan, Golub and LeVeque 1983, Am. Stat. 37, 242-247, eq. 2.1, for vectors), which is exact, so who saw which spectra in
which order matters to rounding only.

A detector must not learn what it is to find. Where the spectra learnt from contain a gas in varying amounts, its signature
becomes a component, and what a component describes is gone from the residual: the detector is blind to that gas from some
number of components on. A small number does not help, because how far up the signature comes depends on the region and the
season. So the signatures K that must stay visible are taken out before components are sought: E are the leading eigenvectors
of the covariance of (I - K K^+) x. No component can point along K then, however many are kept, and the number follows from
the noise alone (`noise_edge`) or from the maps of the scores (`coherence`).

What is common to K and another variable thing (methane lines under those of carbon monoxide, say) must still be predicted,
or its variation would look like gas. The whole shape of a component is therefore F = E + K B with B = K^+ C E / variance,
the regression of the part along K on the scores E'x. Then r = x - F E'x is what the scores do not predict, a spectrum with
more gas keeps all of it there (E'K = 0), and for Gaussian x the best linear test for K on r is the matched filter with the
whole covariance of x, for every number of components.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import threads

#: Spectra multiplied at once: their differences from the mean stay in the cache of a core, and so few are summed in single
#: precision.
_ROWS = 1024
#: Spectra that tell where the mean of a block is, near enough for products in single precision.
_PILOT = 512


class Moments:
    """Number, mean and scatter of spectra, as many as come; `scatter` is the sum of (x - mean)(x - mean)'."""

    def __init__(self, channels: int):
        self.number = 0
        self.mean = np.zeros(channels)
        self.scatter = np.zeros((channels, channels))

    @property
    def covariance(self) -> np.ndarray:
        """The scatter over the number of spectra."""
        return self.scatter / max(self.number, 1)

    def add(self, block: np.ndarray, cores: int | None = None) -> Moments:
        """Take in spectra, channels last, all of them complete."""
        block, channels = np.asarray(block), self.mean.size
        if block.shape[-1:] != (channels,):
            raise InputError(
                f"Spectra of shape {block.shape} were added to moments of {channels} channels. Put the channels last, and "
                "bring all spectra onto one grid."
            )
        block = block.reshape(-1, channels)
        if not len(block):
            return self
        # Of single precision, so that what is taken off each spectrum is exactly what is added to the mean.
        pilot = block[:: max(len(block) // _PILOT, 1)].mean(axis=0, dtype=float).astype(np.float32)
        parts = min(cores or threads.cores(), -(-len(block) // _ROWS))
        edges = np.linspace(0, len(block), parts + 1).astype(int)
        with threads.crew(parts) as crew:
            found = list(crew.map(lambda i: _part(block[edges[i] : edges[i + 1]], pilot), range(parts)))
        if not all(np.isfinite(part.mean).all() for part in found):
            raise InputError(
                "Spectra with missing channels were added to moments. Leave them out, or fill the gaps by what the other "
                "channels say."
            )
        for part in found:
            self.merge(part)
        return self

    def merge(self, other: Moments) -> Moments:
        """Take in what another has seen."""
        if other.mean.size != self.mean.size:
            raise InputError(
                f"Moments of {other.mean.size} channels were merged into moments of {self.mean.size}. Merge those of one "
                "grid of wavelengths."
            )
        if other.number:
            number = self.number + other.number
            apart = other.mean - self.mean
            self.mean = self.mean + apart * (other.number / number)
            self.scatter = self.scatter + other.scatter
            self.scatter += np.outer(apart, apart * (self.number * (other.number / number)))
            self.number = number
        return self


def _part(block: np.ndarray, pilot: np.ndarray) -> Moments:
    """The moments of a block whose mean is near `pilot`, on this thread."""
    part = Moments(pilot.size)
    total = np.zeros(pilot.size)
    away = np.empty((min(_ROWS, len(block)), pilot.size), np.float32)
    product = np.empty((pilot.size, pilot.size), np.float32)
    ones = np.ones(len(away), np.float32)
    for start in range(0, len(block), _ROWS):
        some = block[start : start + _ROWS]
        y = away[: len(some)]
        np.subtract(some, pilot, out=y, casting="same_kind")
        part.scatter += np.matmul(y.T, y, out=product)
        total += ones[: len(some)] @ y
    part.number = len(block)
    part.scatter -= np.outer(total, total / len(block))
    part.mean = pilot + total / len(block)
    return part


class Components(NamedTuple):
    """Principal components, those of most variance first."""

    values: np.ndarray  # (components,): variance of each score
    vectors: np.ndarray  # (channels, components): E, orthonormal; the scores are E'x
    shapes: np.ndarray  # (channels, components): F, what a score of one says about all channels


def components(covariance: np.ndarray, protected: np.ndarray | None = None) -> Components:
    """All components of a covariance, blind to none of the `protected` signatures (channels, signatures).

    Without any, these are the eigenvectors, and F = E. With g of them there are g components fewer than channels.
    """
    covariance = np.asarray(covariance, float)
    if protected is None or not protected.shape[1]:
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        return Components(values, vectors, vectors)
    k, triangle = np.linalg.qr(np.asarray(protected, float))
    size = np.abs(np.diag(triangle))
    if size.min() <= 1e-6 * np.linalg.norm(protected, axis=0).max():
        raise ParameterError(
            "The signatures of the gases that are to stay visible depend on each other. Name each gas once, and leave out "
            "those whose lines are all outside the band."
        )
    across = covariance @ k
    inner = k.T @ across
    outside = covariance - k @ across.T - across @ k.T + k @ inner @ k.T
    values, vectors = np.linalg.eigh(outside)
    number = len(covariance) - k.shape[1]
    # The space of the signatures has variance zero, so it comes last.
    values, vectors = values[::-1][:number], vectors[:, ::-1][:, :number]
    vectors = vectors - k @ (k.T @ vectors)
    slope = (across.T @ vectors) / np.maximum(values, np.finfo(float).eps * values[0])
    return Components(values, vectors, vectors + k @ slope)


def fit(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, and the k leading eigenvalues and eigenvectors (channels, k) of the covariance, of spectra in rows."""
    moments = Moments(x.shape[-1]).add(x)
    found = components(moments.covariance)
    return moments.mean, found.values[:k], found.vectors[:, :k]


# How many ------------------------------------------------------------------------------------------------------------


def noise_edge(values: np.ndarray, spectra: int, noise: float = 1.0) -> int:
    """How many eigenvalues lie above those of pure noise of that variance in so many spectra.

    The largest of them tends to noise (1 + sqrt(channels / spectra))^2 (Marchenko and Pastur 1967, Math. USSR Sb. 1,
    457-483; Johnstone 2001, Ann. Stat. 29, 295-327, eq. 1.2).
    """
    return int(np.sum(values > noise * (1 + np.sqrt(len(values) / spectra)) ** 2))


def coherence(scores: np.ndarray, line: np.ndarray, row: np.ndarray) -> np.ndarray:
    """How alike each of the scores (pixels, components) is in pixels side by side: 1 for smooth maps, 0 for noise.

    It is the correlation over pairs of pixels that are neighbours along the line or the row. Lines of different granules
    must have different numbers, with a gap between granules.
    """
    scores = np.asarray(scores, float)
    line, row = (np.asarray(index, np.int64) - np.min(index, initial=0) for index in (line, row))
    width = int(row.max(initial=0)) + 2  # no pixel has the last row, so no line's end is beside the next line's start
    place = line * width + row
    order = np.argsort(place)
    place = place[order]
    here, there = [], []
    for step in (1, width):
        found = np.minimum(np.searchsorted(place, place + step), max(len(place) - 1, 0))
        pair = np.flatnonzero(place[found] == place + step)
        here.append(order[pair])
        there.append(order[found[pair]])
    here, there = np.concatenate(here), np.concatenate(there)
    if not here.size:
        raise InputError(
            "No two of the spectra are neighbours, so nothing tells whether their scores are alike. Take whole granules, or "
            "choose the number of components by the noise edge."
        )
    mean = scores.mean(axis=0)
    variance = np.square(scores - mean).mean(axis=0)
    return ((scores[here] - mean) * (scores[there] - mean)).mean(axis=0) / np.where(variance > 0, variance, np.inf)


def coherent(likeness: np.ndarray, least: float = 0.3) -> int:
    """How many components reach to the last one whose scores are at least so alike in neighbouring pixels."""
    alike = np.flatnonzero(np.asarray(likeness) >= least)
    return int(alike[-1]) + 1 if alike.size else 0
