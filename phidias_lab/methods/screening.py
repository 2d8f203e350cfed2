"""How unusual each of many spectra is, and which gas it tells of.

A basis holds what is usual: normalised spectra x = (y - mean) / noise, with y from `log_shapes.log_shape`, are described by

    x = F c + K a + r

with the shapes F of components, and the signatures K of gases, which `pca.components` keeps out of them. What x itself
varies like is N(0, S), S = V V' + diag(psi), with the leading eigenvectors of its covariance in V (among them the natural
variability of the gases) and the variance of the rest in psi. Leading components and a diagonal are a shrunk estimate of a
covariance that has an inverse on any subset of the channels.

Per spectrum, over the m channels that are observed, least squares (c, a) = (G'G)^-1 G'x for G = [F K] give

    r  = x - F c                                    what the components leave, the gases with it
    RS = (|r|^2 / (m - k))^1/2                      reconstruction score
    T2 = sum c_j^2 / lambda_j                       (Hotelling 1931, Ann. Math. Stat. 2, 360-378)
    unexplained = (|r - K a|^2 / (m - k - g))^1/2   the same without what the gases explain
    window scores                                   root mean square of r over the one expected there

c is E'x where no channel is missing, and where some are, the conditional expectation given the others. |r|^2 has the limits
of Jackson and Mudholkar (1979, Technometrics 21, 341-349, eq. 3.4) for Gaussian spectra.

The gases' amplitudes come from generalised least squares for all gases at once,

    a = (K' S^-1 K)^-1 K' S^-1 x,    cov(a) = (K' S^-1 K)^-1

(Rodgers 2000, Inverse Methods for Atmospheric Sounding, sect. 4.1; as a detector of gases Walker, Dudhia and Carboni 2011,
Atmos. Meas. Tech. 4, 1567-1580, and Vu Van et al. 2023, Atmos. Meas. Tech. 16, 2107-2126). It is linear in x, so a few more
columns of the same product. On r with the covariance of r it would be the same, for any number of components (see `pca`), so
that number does not matter here: a strong component has next to no weight, and a weak one costs next to nothing. With
H = [K V] the equations are those of a mixed model (Henderson 1975, Biometrics 31, 423-447, eq. 3), of few unknowns:

    (H' psi^-1 H + diag(0, 1)) (a, b) = H' psi^-1 x,    cov(a) = the block of a in the inverse.

Channels that a row of the detector never has are taken out of all this once. Those missing in one spectrum are taken out of
the inverse that all of its row share, by an identity that needs a system of as many equations as gaps (Woodbury 1950,
Princeton Stat. Res. Group Memo. Rep. 42; Hager 1989, SIAM Rev. 31, 221-239, eq. 2), and the result is the same.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import pca, threads

#: A spectrum with a smaller share of its channels is not judged.
LEAST_OBSERVED = 0.5
#: Lines and spectra worked on at once: small products are made without copies of what they multiply, and the cache of a core
#: holds what belongs together.
_LINES, _SPECTRA = 64, 448
#: Lines whose highest and lowest residuals are known before one is looked for among them.
_NEAR = 16
#: A product with fewer numbers than this is fastest with both operands' channels in a line (OpenBLAS for AVX-512; no matter
#: elsewhere).
_SMALL = 1200
#: Spectra with gaps whose systems are solved at once.
_WITH_GAPS = 256
#: So many components beyond those that are taken out may stand in the covariance; more say nothing.
_MORE = 40


def reflectance(radiance, irradiance, distance, solar_zenith) -> np.ndarray:
    """pi I d^2 / (E0 cos(theta0)) with the distance to the Sun in astronomical units and the angle in degrees."""
    scale = np.pi * np.square(distance) / np.cos(np.deg2rad(np.asarray(solar_zenith)))
    return radiance * (np.asarray(scale, np.float32)[..., None] / irradiance)


def curve(wavelength: np.ndarray, values: np.ndarray, axis: int = 0) -> BSpline:
    """The curve through values at wavelengths: a spline of degree 7.

    An instrument with three channels to the width of its response is just fine enough for this: of a wave of four channels a
    cubic spline is off by 1 %, one of degree 7 by 2e-4 (from the transfer function of cardinal splines, Unser 1999, IEEE
    Signal Process. Mag. 16(6), 22-38, eq. 17), and bright spectra have less noise than a cubic is off by.
    """
    degree = min(7, wavelength.size - 1) // 2 * 2 - 1 if wavelength.size < 8 else 7
    return make_interp_spline(wavelength, values, k=max(degree, 1), axis=axis)


@dataclass(frozen=True)
class Basis:
    """What spectra usually look like, on a grid of wavelengths; all in units of the noise but `mean` and `noise`."""

    wavelength: np.ndarray  # (m,) nm, increasing
    mean: np.ndarray  # (m,)
    noise: np.ndarray  # (m,)
    shapes: np.ndarray  # (m, k) F
    values: np.ndarray  # (k,) variances of the scores; infinite for a shape that is only taken out
    gases: tuple[str, ...]
    signatures: np.ndarray  # (m, g) K, per unit of the gas's amplitude
    windows: tuple[str, ...]
    channels: np.ndarray  # (m, w) bool, which channels a window has
    factors: np.ndarray  # (m, q) V, of the covariance of x
    white: np.ndarray  # (m,) psi
    spectra: int  # how many were learnt from


def learn(
    moments: pca.Moments,
    wavelength: np.ndarray,
    noise: np.ndarray,
    number: int | None = None,
    gases: dict[str, np.ndarray] | None = None,
    windows: dict[str, np.ndarray] | None = None,
    constant: bool = True,
) -> Basis:
    """A basis from the moments of spectra y that are not normalised yet.

    `number` of components, else those above the noise edge; `gases` are the changes of y per unit of each gas that is looked
    for, which no component hides; `windows` are masks of channels; `constant` adds a constant for spectra of `log_shapes.log_shape`.
    """
    noise = np.asarray(noise, float)
    size = noise.size
    columns = [np.asarray(gas, float) / noise for gas in (gases or {}).values()]
    signatures = np.column_stack(columns) if columns else np.empty((size, 0))
    covariance = moments.covariance / np.outer(noise, noise)
    found = pca.components(covariance, signatures)
    if number is None:
        _, number = _level(found.values, moments.number)
    most = found.values.size - 2
    if not 0 <= number <= most:
        raise ParameterError(
            f"{number} components were asked for of {size} channels. Choose a number from 0 to {most}."
        )
    values, shapes = found.values[:number], found.shapes[:, :number]
    factors, white = _factors(covariance, moments.number, number + _MORE)
    if constant:
        # Any size among the components; and of 1 for the gases, which is more than missing channels can shift a logarithm.
        shapes = np.column_stack([shapes, 1 / noise / np.sqrt(np.mean(1 / noise**2))])
        values = np.append(values, np.inf)
        factors = np.column_stack([factors, 1 / noise])
    masks = [np.asarray(window, bool) for window in (windows or {}).values()]
    return Basis(
        np.asarray(wavelength, float),
        moments.mean.copy(),
        noise,
        shapes,
        values,
        tuple(gases or ()),
        signatures,
        tuple(windows or ()),
        np.column_stack(masks) if masks else np.empty((size, 0), bool),
        factors,
        white,
        moments.number,
    )


def _level(values: np.ndarray, spectra: int) -> tuple[float, int]:
    """The mean of those of some decreasing eigenvalues that are noise, and how many are more."""
    level, count = values.mean(), 0
    for _ in range(20):
        count = pca.noise_edge(values, spectra, level)
        if level == (level := values[count:].mean()):
            break
    return level, count


def _factors(covariance: np.ndarray, spectra: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """V and psi: what stands out of the noise, and the rest of each channel's variance."""
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1], axes[:, ::-1]
    level, count = _level(values, spectra)
    count = min(count, most)
    factors = axes[:, :count] * np.sqrt(np.maximum(values[:count] - level, 0))
    return factors, np.maximum(np.diag(covariance) - np.square(factors).sum(axis=1), 0.05 * level)


class Scores(NamedTuple):
    """Per spectrum (lines, rows), NaN where it was not judged."""

    reconstruction: np.ndarray
    hotelling: np.ndarray
    unexplained: np.ndarray
    windows: np.ndarray  # (lines, rows, w)
    amplitude: np.ndarray  # (lines, rows, g) in units of the signatures
    snr: np.ndarray  # (lines, rows, g) amplitude over its standard deviation in usual spectra
    cosine: np.ndarray  # (lines, rows, g) between the residual and the signature
    components: np.ndarray  # (lines, rows, k)
    missing: np.ndarray  # (lines, rows) channels


class Extrema(NamedTuple):
    """Per channel, the highest and lowest residual of a block and the spectrum that has it, as line * rows + row.

    NaN and -1 where no spectrum of the block has the channel.
    """

    high: np.ndarray
    low: np.ndarray
    high_at: np.ndarray
    low_at: np.ndarray


class Examination(NamedTuple):
    """Some spectra looked at one by one."""

    residual: np.ndarray  # (p, m) r, NaN where a channel is missing
    amplitude: np.ndarray  # (p, g)
    deviation: np.ndarray  # (p, g) standard deviation of the amplitude
    chi2: (
        np.ndarray
    )  # (p,) what neither components nor gases, of any size, explain: the least (x - F c - K a)' S^-1 (...)
    freedom: np.ndarray  # (p,) its degrees of freedom


class Scorer:
    """A basis on the wavelengths of a detector's rows, ready to score blocks of spectra.

    wavelength : (rows, m), or (m,) where all rows share one grid
    dead       : likewise, channels that are never used
    """

    def __init__(self, basis: Basis, wavelength: np.ndarray | None = None, dead: np.ndarray | None = None):
        wavelength = np.atleast_2d(basis.wavelength if wavelength is None else np.asarray(wavelength, float))
        dead = np.zeros(wavelength.shape, bool) if dead is None else np.atleast_2d(np.asarray(dead, bool)).copy()
        if dead.shape != wavelength.shape:
            raise InputError(
                f"Dead channels of shape {dead.shape} were given for wavelengths of shape {wavelength.shape}. Give both per "
                "row and channel."
            )
        self.basis = basis
        self.rows, self.m = wavelength.shape
        self.k, self.g = len(basis.values), len(basis.gases)
        grid = basis.wavelength
        # Of what is beyond the basis nothing is known.
        dead |= ~((wavelength >= grid[0] - 1e-9 * grid[0]) & (wavelength <= grid[-1] * (1 + 1e-9)))
        self.dead = dead
        self._prepare(wavelength)

    def _prepare(self, wavelength: np.ndarray) -> None:
        basis, rows, m, k, g = self.basis, self.rows, self.m, self.k, self.g
        w, q = len(basis.windows), basis.factors.shape[1]
        # Lines are smooth, noise is not, nor is a line in units of the noise.
        lines = np.column_stack([basis.shapes, basis.signatures, basis.factors]) * basis.noise[:, None]
        curves = curve(basis.wavelength, np.column_stack([basis.mean, lines]))
        middles = (basis.wavelength[1:] + basis.wavelength[:-1]) / 2
        self._mean = np.zeros((rows, 1, m), np.float32)
        self._noise = np.ones((rows, m))
        self._analysis = np.zeros((rows, m, k + 2 * g), np.float32)  # y - mean to c, a, and a by S
        self._synthesis = np.zeros((rows, k, m), np.float32)  # c to y - mean
        self._sums = np.zeros((rows, 1 + w, m), np.float32)  # squares of y - mean - F c to sums over channels
        self._expected = np.zeros((rows, m, w), np.float32)  # expected square of r, where the channel is in the window
        self._gram = np.zeros((rows, g, g), np.float32)
        self._deviation = np.ones((rows, g), np.float32)
        design = np.zeros((rows, m, k + g + q), np.float32)
        self._plain = _Fits(design[..., : k + g])
        self._weighted = _Fits(design[..., k:])
        self._free = _Fits(design)  # with S as well, but any scores; made for a row when it is asked for
        self._observed = m - self.dead.sum(axis=1)
        for row in range(rows):
            here = ~self.dead[row]
            if not self._judged(row, m - self._observed[row]):
                self._mean[row] = np.nan  # and so are all of its spectra
                continue
            inside = np.where(here, wavelength[row], basis.wavelength[0])
            at = curves(inside)
            noise, white = (np.interp(inside, basis.wavelength, values) for values in (basis.noise, basis.white))
            mean, h = at[:, 0], at[:, 1:] / noise[:, None] * here[:, None]
            design[row] = h
            plain = self._plain.put(row, h[:, : k + g], np.ones(m))
            weighted = self._weighted.put(row, h[:, k:], white, q)
            f, kernels, v = np.split(h, [k, k + g], axis=1)
            self._mean[row, 0], self._noise[row] = mean, noise
            self._analysis[row] = np.column_stack([plain, weighted[:, :g]]) / noise[:, None]
            self._synthesis[row] = (f * noise[:, None]).T
            self._gram[row] = kernels.T @ kernels
            self._deviation[row] = np.sqrt(self._weighted.variance[row, :g])
            # The variance of r = (1 - F A') x in usual spectra.
            by = plain[:, :k]
            variance = np.square(v - f @ (by.T @ v)).sum(axis=1) + white * (1 - 2 * np.sum(f * by, axis=1))
            variance += np.sum(f @ (by.T @ (white[:, None] * by)) * f, axis=1)
            windows = basis.channels[np.searchsorted(middles, wavelength[row])] & here[:, None]
            self._sums[row] = np.column_stack([here, windows]).T / noise**2
            self._expected[row] = windows * variance[:, None]
        self._window = self._expected.sum(axis=1)
        self._analysis = _in_lines(self._analysis)

    # Blocks ---------------------------------------------------------------------------------------------------------------

    def score(self, block: np.ndarray, cores: int | None = None) -> tuple[Scores, Extrema]:
        """Scores of spectra y (lines, rows, m), NaN where a channel is missing, and the block's extrema."""
        block = np.asarray(block, np.float32)
        if block.ndim != 3 or block.shape[2] != self.m or (self.rows > 1 and block.shape[1] != self.rows):
            raise InputError(
                f"Spectra of shape {block.shape} were given to a basis of {self.rows} rows and {self.m} channels. Give "
                "lines, rows and channels."
            )
        work = _Work(self, block)
        number = max(min(cores or threads.cores(), len(work.strips)), 1)
        for _ in range(number):
            work.spaces.put(np.empty((2, max(_SPECTRA, _LINES) * self.m), np.float32))
        with threads.crew(number) as crew:
            list(crew.map(work.run, range(len(work.strips))))
        return work.scores(), work.extrema()

    def residual(
        self, spectra: np.ndarray, components: np.ndarray, row: np.ndarray, without_gases: bool = False
    ) -> np.ndarray:
        """Residuals r of some scored spectra y (p, m) of given rows, NaN where a channel is missing.

        `without_gases` also takes out what any amplitudes of the gases explain, by least squares."""
        row = np.zeros(len(spectra), int) if self.rows == 1 else np.asarray(row, int)
        found = np.full(spectra.shape, np.nan, np.float32)
        for one in np.unique(row):
            here, channel = row == one, ~self.dead[one]
            r = spectra[here] - self._mean[one] - components[here] @ self._synthesis[one]
            r /= self._noise[one].astype(np.float32)
            if without_gases:
                gases = self._free.design[one][:, self.k : self.k + self.g].astype(float)
                r -= (np.nan_to_num(r) @ np.linalg.pinv(gases).T @ gases.T).astype(np.float32)
            found[np.ix_(here, channel)] = r[:, channel]
        return found

    def channel(self, spectra: np.ndarray, components: np.ndarray, channel: int) -> np.ndarray:
        """Residuals (lines, rows) of one channel of a scored block."""
        r = spectra[..., channel] - self._mean[:, 0, channel]
        r = r - np.einsum("lrk,rk->lr", components, np.broadcast_to(self._synthesis[:, :, channel], (r.shape[1], self.k)))
        return np.where(self.dead[:, channel], np.nan, r / self._noise[:, channel])

    def examine(self, spectra: np.ndarray, row: np.ndarray) -> Examination:
        """Residuals of some spectra y (p, m) of given rows, and what is unexplained by the gases."""
        spectra = np.asarray(spectra, np.float32)
        row = np.zeros(len(spectra), int) if self.rows == 1 else np.asarray(row, int)
        k, g, q = self.k, self.g, self.basis.factors.shape[1]
        x = (spectra - self._mean[row, 0]) / self._noise[row]
        gap = ~np.isfinite(x) | self.dead[row]
        judged = self._judged(row, gap.sum(axis=1))
        n = len(x)
        residual = np.full((n, self.m), np.nan, np.float32)
        amplitude, deviation = np.full((2, n, g), np.nan)
        chi2 = np.full(n, np.nan)
        freedom = self.m - gap.sum(axis=1) - k - g
        x[gap] = 0
        for some in _alike(judged, (gap & ~self.dead[row]).sum(axis=1)):
            here, z = row[some], x[some]
            at, used = _places(gap[some] & ~self.dead[here])
            for one in np.unique(here):
                if not self._free.variance[one].any():
                    self._free.put(one, self._free.design[one].astype(float), self._weighted.white[one], q)
            plain, _ = self._plain.without(z, here, at, used)
            found, variance = self._weighted.without(z, here, at, used)
            amplitude[some] = found[:, :g]
            deviation[some] = np.sqrt(variance[:, :g])
            design = self._free.design[here]
            r = z - np.matmul(design[..., :k], plain[:, :k, None])[..., 0]
            residual[some] = np.where(gap[some], np.nan, r)
            free, _ = self._free.without(z, here, at, used)
            u = np.where(gap[some], 0, z - np.matmul(design, free[..., None])[..., 0])
            chi2[some] = (u**2 / self._free.white[here]).sum(axis=1) + np.square(free[:, k + g :]).sum(axis=1)
        return Examination(residual, amplitude, deviation, chi2, freedom)

    def _judged(self, row: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Whether enough channels are there."""
        observed = self.m - missing
        return (observed >= LEAST_OBSERVED * self.m) & (observed > self.k + self.g)

    def _derive(self, fits, sums, freedom, window, gram, deviation, found: dict[str, np.ndarray]) -> None:
        """Scores into `found` (..., rows, lines) from fits (rows, lines, ...) and sums of squares (..., rows, lines).

        What stands between them holds for each row. Lines come last, because short loops are slow.
        """
        k, g = self.k, self.g
        c, square = fits[..., :k], sums[0]
        a, by_s = np.moveaxis(fits[..., k:], 2, 0).reshape(2, g, *square.shape)
        along = np.matmul(gram, a.swapaxes(0, 1)).swapaxes(0, 1)  # K'r
        left = np.maximum(square - np.multiply(along, a).sum(axis=0), 0)
        np.sqrt(square / freedom[:, None], out=found["reconstruction"])
        np.sqrt(left / (freedom - g)[:, None], out=found["unexplained"])
        np.matmul(c * c, (1 / self.basis.values).astype(np.float32), out=found["hotelling"])
        np.divide(sums[1:], window.T[..., None], out=found["windows"])
        np.sqrt(found["windows"], out=found["windows"])
        found["amplitude"][...] = by_s
        np.divide(by_s, deviation.T[..., None], out=found["snr"])
        length = np.sqrt(square) * np.sqrt(np.diagonal(gram, axis1=1, axis2=2)).T[..., None]
        np.divide(along, length, out=found["cosine"])


def _in_lines(weights: np.ndarray) -> np.ndarray:
    """Weights of channels (rows, m, n), stored so that products with spectra are fast."""
    if weights.shape[2] * _LINES > _SMALL:
        return weights
    return np.ascontiguousarray(weights.swapaxes(1, 2)).swapaxes(1, 2)


class _Fits:
    """Least squares for the columns of a design per row."""

    def __init__(self, design: np.ndarray):
        rows, m, size = design.shape
        self.design = design
        self.white = np.ones((rows, m))
        self.weights = np.zeros((rows, m, size), np.float32)  # of the channels in the coefficients
        self.variance = np.zeros((rows, size))  # of the coefficients

    def put(self, row: int, h: np.ndarray, white: np.ndarray, random: int = 0) -> np.ndarray:
        """Set a row's, with this design and variances; returns the weights.

        The coefficients of so many last columns are random with variance one.
        """
        weighted = h / white[:, None]
        normal = weighted.T @ h
        last = np.arange(h.shape[1] - random, h.shape[1])
        normal[last, last] += 1
        try:
            inverse = np.linalg.inv(normal)
        except np.linalg.LinAlgError:
            raise InputError(
                f"The channels of row {row} do not tell the components and gases apart. Name fewer dead channels, or "
                "learn a basis of fewer components."
            ) from None
        weights = weighted @ inverse
        self.white[row], self.weights[row], self.variance[row] = white, weights, np.diag(inverse)
        return weights

    def without(self, x, row, at, used) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients and their variances for spectra (p, m) of given rows without the channels at (p, j) that are used."""
        x = x.astype(np.float32)
        start = np.empty((len(x), self.design.shape[2]))
        for one in np.unique(row):
            some = row == one
            start[some] = x[some] @ self.weights[one]
        gone = self.design[row[:, None], at].astype(float) * used[..., None]
        white = np.where(used, self.white[row[:, None], at], 1.0)
        across = self.weights[row[:, None], at] * (white * used)[..., None]
        system = -np.matmul(gone, across.transpose(0, 2, 1))
        diagonal = np.arange(at.shape[1])
        # A trace of ridge, for a component that only the missing channels show.
        system[:, diagonal, diagonal] += white + 1e-9
        gain = np.linalg.solve(system, across)
        found = start + np.matmul(np.matmul(gone, start[..., None]).transpose(0, 2, 1), gain)[:, 0]
        return found, self.variance[row] + np.sum(across * gain, axis=1)


def _places(gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the gaps of spectra (p, m) are, as channels (p, j) and whether each of these is one."""
    count = gap.sum(axis=1)
    most = max(int(count.max(initial=0)), 1)
    at = np.argsort(~gap, axis=1, kind="stable")[:, :most]
    return at, np.arange(most) < count[:, None]


def _alike(judged: np.ndarray, gaps: np.ndarray):
    """Portions of those judged, put together by how many gaps they have."""
    order = np.flatnonzero(judged)
    order = order[np.argsort(gaps[order], kind="stable")]
    for start in range(0, len(order), _WITH_GAPS):
        yield order[start : start + _WITH_GAPS]


@dataclass(frozen=True)
class _Strip:
    """A portion of a block for one thread: some rows, or some spectra where all rows share a grid, in equal groups."""

    span: slice
    groups: int | None = None

    def view(self, array: np.ndarray, axis: int = 0) -> np.ndarray:
        """Of an array with rows and lines, or spectra, from this axis on: the strip's rows or groups, and their lines."""
        part = array[(slice(None),) * axis + (self.span,)]
        if self.groups is None:
            return part
        lines = (self.span.stop - self.span.start) // self.groups
        return part.reshape(*array.shape[:axis], self.groups, lines, *array.shape[axis + 1 :])

    def near(self, extremes: np.ndarray) -> np.ndarray:
        """Of an array over (rows, lines / _NEAR, m) or (spectra / _NEAR, m), likewise."""
        if self.groups is None:
            return extremes[self.span]
        part = extremes[self.span.start // _NEAR : -(-self.span.stop // _NEAR)]
        return part.reshape(self.groups, -1, extremes.shape[-1])

    def rows(self, start: int, stop: int) -> slice:
        """The scorer's rows of some of the strip's."""
        return slice(self.span.start + start, self.span.start + stop) if self.groups is None else slice(0, 1)


def _strips(per_row: bool, lines: int, rows: int) -> list[_Strip]:
    if per_row:
        step = max(2 * _SPECTRA // max(lines, 1), 1)
        return [_Strip(slice(a, min(a + step, rows))) for a in range(0, rows, step)] if lines else []
    whole = lines * rows // _LINES * _LINES
    step = 2 * _SPECTRA // _LINES * _LINES
    strips = [
        _Strip(slice(a, min(a + step, whole)), (min(a + step, whole) - a) // _LINES) for a in range(0, whole, step)
    ]
    return strips + ([_Strip(slice(whole, lines * rows), 1)] if whole < lines * rows else [])


class _Gaps(NamedTuple):
    """Spectra of a strip that lack channels, and what holds for each of them instead of for its row."""

    where: tuple[np.ndarray, np.ndarray]
    missing: np.ndarray
    freedom: np.ndarray
    window: np.ndarray
    gram: np.ndarray
    deviation: np.ndarray


class _Work:
    """One block on its way: what is found, per row and line or, on one grid for all rows, per spectrum."""

    def __init__(self, scorer: Scorer, block: np.ndarray):
        self.scorer, self.block = scorer, block
        self.lines, self.rows, m = block.shape
        self.per_row = scorer.rows > 1
        layout = (self.rows, self.lines) if self.per_row else (self.lines * self.rows,)
        k, g, w = scorer.k, scorer.g, len(scorer.basis.windows)
        first = {"windows": (w,), "amplitude": (g,), "snr": (g,), "cosine": (g,)}
        first |= dict.fromkeys(("reconstruction", "hotelling", "unexplained"), ())
        self.found = {name: np.empty(size + layout, np.float32) for name, size in first.items()}
        self.fits = np.empty((*layout, k + 2 * g), np.float32)
        self.missing = np.empty(layout, np.int32)
        near = (self.rows, -(-self.lines // _NEAR)) if self.per_row else (-(-self.lines * self.rows // _NEAR),)
        self.extremes = np.empty((2, *near, m), np.float32)
        self.spaces = SimpleQueue()
        self.spectra = block.transpose(1, 0, 2) if self.per_row else block.reshape(-1, m)
        self.strips = _strips(self.per_row, self.lines, self.rows)

    def run(self, number: int) -> None:
        """Score a strip in one of the spaces."""
        space = self.spaces.get()
        try:
            self._run(self.strips[number], space)
        finally:
            self.spaces.put(space)

    def _run(self, strip: _Strip, space: np.ndarray) -> None:
        """Score a strip, tile by tile; a tile and its residuals stay in the cache."""
        scorer = self.scorer
        spectra, fits = strip.view(self.spectra), strip.view(self.fits)
        rows, lines, m = spectra.shape
        edges = [*range(0, lines, _LINES), lines]
        step = max(_SPECTRA // min(lines, _LINES), 1)
        sums = np.empty((scorer._sums.shape[1], rows, lines), np.float32)
        gaps = []
        with np.errstate(invalid="ignore", over="ignore"):
            for first in range(0, rows, step):
                part = slice(first, min(first + step, rows))
                own = strip.rows(part.start, part.stop)
                dead = np.nonzero(scorer.dead[own])
                for start, stop in itertools.pairwise(edges):
                    shape = (part.stop - first, stop - start, m)
                    y, z = (one[: math.prod(shape)].reshape(shape) for one in space)
                    np.subtract(spectra[part, start:stop], scorer._mean[own], out=y)
                    if dead[0].size and self.per_row:
                        y[dead[0], :, dead[1]] = 0
                    elif dead[0].size:
                        y[..., dead[1]] = 0
                    c = fits[part, start:stop]
                    np.matmul(y, scorer._analysis[own], out=c)
                    odd = None
                    if not np.isfinite(c[..., 0].sum()):  # what is missing spreads into every score of its spectrum
                        odd = np.nonzero(~np.isfinite(c[..., 0]))
                        there, gap = self._complete(y, c, odd, own)
                        gaps.append(gap._replace(where=(odd[0] + first, odd[1] + start)))
                    np.matmul(c[..., : scorer.k], scorer._synthesis[own], out=z)
                    np.subtract(y, z, out=y)
                    if odd:
                        y[odd] = np.where(there, y[odd], 0)
                    near = slice(start // _NEAR, -(-stop // _NEAR))
                    for kind, extreme in enumerate((np.maximum, np.minimum)):
                        _along(extreme, y, strip.near(self.extremes[kind])[part, near])
                    np.multiply(y, y, out=z)
                    into = sums[:, part, start:stop].swapaxes(0, 1)
                    np.matmul(scorer._sums[own], z.swapaxes(1, 2), out=into)
            self._finish(strip, fits, sums, gaps)

    def _complete(self, y, c, odd, own) -> tuple[np.ndarray, _Gaps]:
        """Fit the odd spectra of a tile to the channels they have; the others are set to zero, and so is all of a spectrum
        that is not judged. Also tells which channels count."""
        scorer = self.scorer
        k, g = scorer.k, scorer.g
        row = odd[0] + own.start if self.per_row else np.zeros(len(odd[0]), int)
        values = y[odd]
        gap = ~np.isfinite(values) & ~scorer.dead[row]
        lost = gap.sum(axis=1)
        missing = lost + scorer.m - scorer._observed[row]
        judged = scorer._judged(row, missing)
        there = ~gap & judged[:, None]
        values = np.where(there, values, 0)
        y[odd] = values
        fits = np.full((len(row), k + 2 * g), np.nan)
        gram, deviation = scorer._gram[row].astype(float), np.full((len(row), g), np.nan)
        window = scorer._window[row].astype(float)
        for some in _alike(judged, lost):
            here, x = row[some], values[some] / scorer._noise[row[some]]
            at, used = _places(gap[some])
            plain, _ = scorer._plain.without(x, here, at, used)
            weighted, variance = scorer._weighted.without(x, here, at, used)
            fits[some] = np.column_stack([plain, weighted[:, :g]])
            gone = scorer._weighted.design[here[:, None], at][..., :g].astype(float) * used[..., None]
            gram[some] -= np.matmul(gone.transpose(0, 2, 1), gone)
            deviation[some] = np.sqrt(variance[:, :g])
            window[some] -= (scorer._expected[here[:, None], at] * used[..., None]).sum(axis=1)
        c[odd] = fits
        # A window that has lost all its channels keeps the rounding of the difference only.
        window[window < 1e-5 * scorer._window[row]] = np.nan
        return there, _Gaps(odd, missing, scorer.m - missing - k, window, gram, deviation)

    def _finish(self, strip: _Strip, fits, sums, gaps: list[_Gaps]) -> None:
        """Scores of a strip, for whole spectra by its rows and for those with gaps one by one."""
        scorer = self.scorer
        own = strip.rows(0, len(fits))
        found = {name: strip.view(values, values.ndim - self.fits.ndim + 1) for name, values in self.found.items()}
        freedom = (scorer._observed[own] - scorer.k).astype(np.float32)
        per_row = (freedom, scorer._window[own], scorer._gram[own], scorer._deviation[own])
        scorer._derive(fits, sums, *per_row, found)
        strip.view(self.missing)[...] = (scorer.m - scorer._observed[own])[:, None]
        for gap in gaps:
            one = fits[gap.where][:, None]
            some = {name: np.empty((*values.shape[:-2], *one.shape[:2]), np.float32) for name, values in found.items()}
            scorer._derive(one, sums[:, *gap.where][..., None], gap.freedom, gap.window, gap.gram, gap.deviation, some)
            unjudged = np.isnan(one[:, 0, 0])
            for name, values in some.items():
                values[..., unjudged, :] = np.nan
                found[name][..., *gap.where] = values[..., 0]
            strip.view(self.missing)[gap.where] = gap.missing

    def scores(self) -> Scores:
        shape = (self.lines, self.rows)

        def ordered(values: np.ndarray, axis: int) -> np.ndarray:
            """As (lines, rows, ...), of an array with rows and lines, or spectra, from this axis on."""
            if self.per_row:
                values = values.swapaxes(axis, axis + 1)
            else:
                values = values.reshape(*values.shape[:axis], *shape, *values.shape[axis + 1 :])
            return np.moveaxis(values, 0, -1) if axis else values

        found = {name: ordered(values, values.ndim - self.fits.ndim + 1) for name, values in self.found.items()}
        return Scores(
            **found,
            components=ordered(self.fits[..., : self.scorer.k], 0),
            missing=ordered(self.missing, 0),
        )

    def extrema(self) -> Extrema:
        """The extrema of the block; which line has one is looked up among the few that are known to have it."""
        scorer, rows, lines = self.scorer, self.rows, self.lines
        m, k = scorer.m, scorer.k
        channel = np.arange(m)
        fits = self.fits.reshape(-1, self.fits.shape[-1])
        value, spectrum = np.full((2, m), np.nan, np.float32), np.full((2, m), -1)
        if not self.strips:
            return Extrema(*value, *spectrum)
        # Spectra in the order of the fits: a row's one after the other, or all where the rows share a grid.
        length = lines if self.per_row else lines * rows
        for kind, sign in enumerate((1, -1)):
            known = self.extremes[kind].reshape(-1, self.extremes.shape[-2], m)  # rows or one, groups, channels
            highest = (known.max(axis=1) if kind == 0 else known.min(axis=1)) / scorer._noise
            row = _where(highest, sign)
            value[kind] = highest[row, channel]
            group = _where(known[row, :, channel].T, sign)
            line = np.minimum(group[:, None] * _NEAR + np.arange(_NEAR), length - 1)
            c = fits[row[:, None] * length + line][..., :k]
            place = line * rows + row[:, None] if self.per_row else line
            r = self.block[*np.divmod(place, rows), channel[:, None]] - scorer._mean[row, 0, channel][:, None]
            r -= np.matmul(c, scorer._synthesis[row, :, channel][..., None])[..., 0]
            there = np.isfinite(r) & (value[kind] != 0)[:, None]
            best = np.where(there, sign * r, -np.inf).argmax(axis=1)
            some = there[channel, best]
            spectrum[kind, some] = place[channel, best][some]
        value[spectrum < 0] = np.nan
        return Extrema(*value, *spectrum)


def _where(values: np.ndarray, sign: int) -> np.ndarray:
    """Per column the row of the highest value, or the lowest; many times faster than argmax along the first axis."""
    rows, columns = np.nonzero(values == (values.max(axis=0) if sign > 0 else values.min(axis=0)))
    at = np.zeros(values.shape[1], int)
    at[columns] = rows
    return at


def _along(extreme: np.ufunc, y: np.ndarray, out: np.ndarray) -> None:
    """Of residuals (rows, lines, m), the extreme ones of each few lines."""
    rows, lines, m = y.shape
    whole = lines // _NEAR
    extreme.reduce(y[:, : whole * _NEAR].reshape(rows, whole, _NEAR, m), axis=2, out=out[:, :whole])
    if whole * _NEAR < lines:
        extreme.reduce(y[:, whole * _NEAR :], axis=1, out=out[:, whole])
