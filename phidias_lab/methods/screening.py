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

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import pca, threads

#: A spectrum with a smaller share of its channels is not judged.
LEAST_OBSERVED = 0.5
#: Spectra that a thread takes at once, some hundred times what it takes to hand them out.
_SPECTRA = 1024
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
    for, which no component hides; `windows` are masks of channels; `constant` adds a constant for spectra of
    `log_shapes.log_shape`.
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
        from phidias_lab.methods import scoring  # brings in the compiler

        basis, rows, m, k, g = self.basis, self.rows, self.m, self.k, self.g
        w, q = len(basis.windows), basis.factors.shape[1]
        # Lines are smooth, noise is not, nor is a line in units of the noise.
        lines = np.column_stack([basis.shapes, basis.signatures, basis.factors]) * basis.noise[:, None]
        curves = curve(basis.wavelength, np.column_stack([basis.mean, lines]))
        middles = (basis.wavelength[1:] + basis.wavelength[:-1]) / 2
        self._mean = np.full((rows, m), np.nan, np.float32)  # as are all spectra of a row that is not judged
        self._noise = np.ones((rows, m))
        analysis = np.zeros((rows, m, k + 2 * g), np.float32)  # x to c, a, and a by S
        shapes = np.zeros((rows, m, k), np.float32)  # c to x
        windows = np.zeros((rows, m, w), bool)
        self._expected = np.zeros((rows, m, w), np.float32)  # expected square of r, where the channel is in the window
        gram = np.zeros((rows, g, g), np.float32)
        deviation = np.ones((rows, g), np.float32)
        design = np.zeros((rows, m, k + g + q), np.float32)
        self._plain = _Fits(design[..., : k + g])
        self._weighted = _Fits(design[..., k:])
        self._free = _Fits(design)  # with S as well, but any scores; made for a row when it is asked for
        self._observed = m - self.dead.sum(axis=1)
        for row in range(rows):
            here = ~self.dead[row]
            if not self._judged(row, m - self._observed[row]):
                continue
            inside = np.where(here, wavelength[row], basis.wavelength[0])
            at = curves(inside)
            noise, white = (np.interp(inside, basis.wavelength, values) for values in (basis.noise, basis.white))
            mean, h = at[:, 0], at[:, 1:] / noise[:, None] * here[:, None]
            design[row] = h
            plain = self._plain.put(row, h[:, : k + g], np.ones(m))
            weighted = self._weighted.put(row, h[:, k:], white, q)
            f, kernels, v = np.split(h, [k, k + g], axis=1)
            self._mean[row], self._noise[row], shapes[row] = mean, noise, f
            analysis[row] = np.column_stack([plain, weighted[:, :g]])
            gram[row] = kernels.T @ kernels
            deviation[row] = np.sqrt(self._weighted.variance[row, :g])
            # The variance of r = (1 - F A') x in usual spectra.
            by = plain[:, :k]
            variance = np.square(v - f @ (by.T @ v)).sum(axis=1) + white * (1 - 2 * np.sum(f * by, axis=1))
            variance += np.sum(f @ (by.T @ (white[:, None] * by)) * f, axis=1)
            windows[row] = basis.channels[np.searchsorted(middles, wavelength[row])] & here[:, None]
            self._expected[row] = windows[row] * variance[:, None]
        freedom = (self._observed - k).astype(np.float32)
        self._window, self._gram = self._expected.sum(axis=1), gram
        self._norms = scoring.Norms.of(freedom, self._window, gram, deviation)
        self._tables = scoring.tables(self._mean, self._noise, self.dead, analysis, shapes, windows, basis.values)

    # Blocks ---------------------------------------------------------------------------------------------------------------

    def score(self, block: np.ndarray, cores: int | None = None) -> tuple[Scores, Extrema]:
        """Scores of spectra y (lines, rows, m), NaN where a channel is missing, and the block's extrema."""
        block = np.asarray(block, np.float32)
        if block.ndim != 3 or block.shape[2] != self.m or (self.rows > 1 and block.shape[1] != self.rows):
            raise InputError(
                f"Spectra of shape {block.shape} were given to a basis of {self.rows} rows and {self.m} channels. Give "
                "lines, rows and channels."
            )
        lines, rows, m = block.shape
        if self.rows == 1:  # all spectra are lines of the one row
            block = block.reshape(lines * rows, 1, m)
        work = _Work(self, np.ascontiguousarray(block))
        number = max(min(cores or threads.cores(), len(work.strips)), 1)
        with threads.crew(number) as crew:
            list(crew.map(work.run, range(len(work.strips))))
        return work.scores((lines, rows)), work.extrema()

    def residual(
        self, spectra: np.ndarray, components: np.ndarray, row: np.ndarray, without_gases: bool = False
    ) -> np.ndarray:
        """Residuals r of some scored spectra y (p, m) of given rows, NaN where a channel is missing.

        `without_gases` also takes out what any amplitudes of the gases explain, by least squares."""
        row = np.zeros(len(spectra), int) if self.rows == 1 else np.asarray(row, int)
        found = np.full(spectra.shape, np.nan, np.float32)
        for one in np.unique(row):
            here, channel = row == one, ~self.dead[one]
            shapes, gases = np.split(self._free.design[one, :, : self.k + self.g], [self.k], axis=1)
            r = (spectra[here] - self._mean[one]) / self._noise[one].astype(np.float32) - components[here] @ shapes.T
            if without_gases:
                r -= (np.nan_to_num(r) @ np.linalg.pinv(gases).T @ gases.T).astype(np.float32)
            found[np.ix_(here, channel)] = r[:, channel]
        return found

    def channel(self, spectra: np.ndarray, components: np.ndarray, channel: int) -> np.ndarray:
        """Residuals (lines, rows) of one channel of a scored block."""
        r = (spectra[..., channel] - self._mean[:, channel]) / self._noise[:, channel]
        shapes = self._free.design[:, channel, : self.k]
        r = r - np.einsum("lrk,rk->lr", components, np.broadcast_to(shapes, (r.shape[1], self.k)))
        return np.where(self.dead[:, channel], np.nan, r)

    def examine(self, spectra: np.ndarray, row: np.ndarray) -> Examination:
        """Residuals of some spectra y (p, m) of given rows, and what is unexplained by the gases."""
        spectra = np.asarray(spectra, np.float32)
        row = np.zeros(len(spectra), int) if self.rows == 1 else np.asarray(row, int)
        k, g, q = self.k, self.g, self.basis.factors.shape[1]
        x = (spectra - self._mean[row]) / self._noise[row]
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


def _strips(lines: int, rows: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Lines and rows that a thread takes at once."""
    step = max(_SPECTRA // max(lines, 1), 1)
    return [
        ((line, min(line + _SPECTRA, lines)), (row, min(row + step, rows)))
        for row in range(0, rows, step)
        for line in range(0, lines, _SPECTRA)
    ]


class _Work:
    """One block on its way."""

    def __init__(self, scorer: Scorer, block: np.ndarray):
        from phidias_lab.methods import scoring

        self.scorer, self.block, self.loops = scorer, scoring.constant(block), scoring
        lines, rows, m = block.shape
        k, g, w = scorer.k, scorer.g, len(scorer.basis.windows)
        sizes = {"windows": (w,), "components": (k,)} | dict.fromkeys(("amplitude", "snr", "cosine"), (g,))
        found = {name: np.empty((lines, rows, *sizes.get(name, ())), np.float32) for name in scoring.Found._fields}
        self.found = scoring.Found(**found)
        self.missing = np.empty((lines, rows), np.int32)
        self.strips = _strips(lines, rows)
        self.extremes = [scoring.Extremes.none(m) for _ in self.strips]
        self.tables, self.norms = scoring.constant(scorer._tables), scoring.constant(scorer._norms)

    def run(self, number: int) -> None:
        """Score a strip."""
        (first, last), (start, stop) = strip = self.strips[number]
        extremes = self.extremes[number]
        given = (self.tables, self.norms, self.loops.Space.of(self.tables), self.found, extremes)
        self.loops.whole(self.block, *strip, *given, self.missing)
        line, row = np.nonzero(self.missing[first:last, start:stop])
        if line.size:
            self._gapped(line + first, row + start, extremes)

    def _gapped(self, line: np.ndarray, row: np.ndarray, extremes) -> None:
        """Fit spectra to the channels they have, where these are enough, and score them."""
        scorer = self.scorer
        g = scorer.g
        lost = self.missing[line, row]
        judged = scorer._judged(row, lost + scorer.m - scorer._observed[row])
        for some in _alike(judged, lost):
            here = row[some]
            x = (self.block[line[some], here] - scorer._mean[here]) / scorer._noise[here]
            gap = ~np.isfinite(x) & ~scorer.dead[here]
            x[gap | scorer.dead[here]] = 0
            at, used = _places(gap)
            plain, _ = scorer._plain.without(x, here, at, used)
            weighted, variance = scorer._weighted.without(x, here, at, used)
            gone = scorer._weighted.design[here[:, None], at][..., :g].astype(float) * used[..., None]
            gram = scorer._gram[here] - np.matmul(gone.transpose(0, 2, 1), gone)
            window = scorer._window[here] - (scorer._expected[here[:, None], at] * used[..., None]).sum(axis=1)
            # A window that has lost all its channels keeps the rounding of the difference only.
            window[window < 1e-5 * scorer._window[here]] = np.nan
            own = (scorer._norms.freedom[here] - gap.sum(axis=1), window, gram, np.sqrt(variance[:, :g]))
            fits = np.column_stack([plain, weighted[:, :g]])
            norms = self.loops.constant(self.loops.Norms.of(*own))
            fits = self.loops.constant(fits.astype(np.float32))
            given = (self.tables, norms, self.loops.Space.of(self.tables), self.found, extremes)
            self.loops.gapped(self.block, line[some], here, fits, *given)

    def scores(self, shape: tuple[int, int]) -> Scores:
        """As (lines, rows, ...)."""
        self.missing += (self.scorer.m - self.scorer._observed).astype(np.int32)
        found = self.found._asdict() | {"missing": self.missing}
        return Scores(**{name: values.reshape(*shape, *values.shape[2:]) for name, values in found.items()})

    def extrema(self) -> Extrema:
        """Of all strips."""
        m = self.scorer.m
        every = self.extremes or [self.loops.Extremes.none(m)]
        high, low, high_at, low_at = (np.stack(values)[:, :m] for values in zip(*every, strict=True))
        best = (high.argmax(axis=0), np.arange(m)), (low.argmin(axis=0), np.arange(m))
        value, spectrum = [high[best[0]], low[best[1]]], [high_at[best[0]].astype(int), low_at[best[1]].astype(int)]
        for one, at in zip(value, spectrum, strict=True):
            one[at < 0] = np.nan
        return Extrema(*value, *spectrum)
