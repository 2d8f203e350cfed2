"""How two measurements of the same quantity agree: statistics of their differences, with confidence intervals.

Match-ups are not independent: a float surfaces every ten days in the same eddy, a composite enters many match-ups, a
map has errors as wide as its correlation length. So all intervals rest on sums over blocks of match-ups (`blocks`),
within which any dependence is allowed and between which there is none: for a statistic with influence values psi
(Hampel 1974, J. Amer. Statist. Assoc. 69, 383-393; what each match-up adds to it), the variance is that of the sums
of psi over the blocks (Liang & Zeger 1986, Biometrika 73, 13-22; with the factor G / (G - 1) as in Cameron & Miller
2015, J. Human Resources 50, 317-372). Blocks of unequal size count as fewer: (sum n_g)^2 / sum n_g^2 of them (Carter,
Schnepel & Steigerwald 2017, Rev. Econ. Statist. 99, 698-709), and Student's quantile is taken with one degree of
freedom less than that. A block bootstrap would say the same with noise of its own.

RMSD, standard deviation and their ratio get their interval on the logarithm, the correlation on Fisher's z, the
median and the scaled MAD by inverting the interval of a proportion (Woodruff 1952, J. Amer. Statist. Assoc. 47,
635-646), which asks for no density. Blocks that are smaller than the errors are wide give intervals that are too
short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from phidias_lab.methods.match_ups import EARTH_RADIUS

#: The MAD of a normal distribution over its standard deviation, inverted.
SCALE = 1.0 / stats.norm.ppf(0.75)
#: With fewer blocks than this (in effect, see above) nothing is said of the uncertainty.
LEAST_BLOCKS = 3.0
#: What `sums` gives of each block; x is observed, y the field, d their difference, each times the weight w of the values.
TERMS = NUMBER, W, WW, X, Y, D, XX, YY, XY, DD = range(10)
#: A variance that is a smaller share of the mean square is the rounding of its terms.
ROUNDING = 1e-14


class Estimate(NamedTuple):
    """A value with the ends of its confidence interval; NaN where the data do not tell."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """Statistics of `field - observed`, and of both."""

    number: int
    effective_number: float  # independent match-ups that would tell the bias as well
    bias: Estimate
    rmsd: Estimate
    deviation: Estimate  # standard deviation of the difference: the RMSD without the bias
    median: Estimate
    robust_deviation: Estimate  # scaled MAD of the difference
    correlation: Estimate
    deviation_ratio: Estimate  # standard deviation of the field over that of the observations


MISSING = Estimate(np.nan, np.nan, np.nan)


def blocks(longitude: np.ndarray, latitude: np.ndarray, time: np.ndarray, length: float, duration: float) -> np.ndarray:
    """The number of the block of each place: cells about `length` metres wide, for `duration` seconds."""
    height = length / EARTH_RADIUS
    band = np.floor((np.deg2rad(latitude) + np.pi / 2) / height)
    # Columns whose width is about the height in the middle of their band.
    middle = np.clip((band + 0.5) * height - np.pi / 2, -np.pi / 2, np.pi / 2)
    many = np.maximum(np.round(2 * np.pi * np.cos(middle) / height), 1.0)
    column = np.floor(np.mod(longitude, 360.0) / 360.0 * many)
    when = np.floor(np.asarray(time, float) / duration)
    return together(band, column, when)[1]


def together(*parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different combinations of whole numbers (n, parts), in rising order, and for each place which of them it has.

    One number is made of each combination, since those are sorted many times faster than rows are.
    """
    parts = [np.asarray(part).astype(np.int64) for part in parts]
    least = [int(part.min(initial=0)) for part in parts]
    sizes = [int(part.max(initial=0)) - low + 1 for part, low in zip(parts, least, strict=True)]
    key = np.ravel_multi_index([part - low for part, low in zip(parts, least, strict=True)], sizes)
    found, code = np.unique(key, return_inverse=True)
    return np.column_stack(np.unravel_index(found, sizes)) + least, code.reshape(-1)


class Blocks:
    """The blocks of some match-ups, and the standard errors that follow from them."""

    def __init__(self, block: np.ndarray, level: float = 0.95, weight: np.ndarray | None = None):
        self.code = np.unique(block, return_inverse=True)[1].reshape(-1)
        sizes = np.bincount(self.code, weights=weight).astype(float)
        self.total, self.many = float(sizes.sum()), sizes.size
        self.effective = self.total**2 / float(np.square(sizes).sum()) if sizes.size else 0.0
        self.quantile = (
            float(stats.t.ppf(0.5 + level / 2, self.effective - 1.0)) if self.effective >= LEAST_BLOCKS else np.nan
        )

    def standard_error(self, influence: np.ndarray) -> float:
        """Of a statistic whose influence values these are (their mean is zero)."""
        if self.many < 2:
            return np.nan
        sums = np.bincount(self.code, weights=influence, minlength=self.many)
        return float(np.sqrt(self.many / (self.many - 1.0) * np.square(sums).sum()) / self.total)

    def around(self, value: float, influence: np.ndarray) -> Estimate:
        """The value plus and minus Student's quantile times its standard error."""
        half = self.quantile * self.standard_error(influence)
        return Estimate(float(value), float(value - half), float(value + half))

    def positive(self, value: float, influence: np.ndarray) -> Estimate:
        """The same on the logarithm; `influence` is that of the value itself."""
        if not value > 0:
            return Estimate(float(value), np.nan, np.nan)
        half = self.quantile * self.standard_error(influence) / value
        return Estimate(float(value), float(value * np.exp(-half)), float(value * np.exp(half)))

    def median(self, values: np.ndarray) -> Estimate:
        """Woodruff's interval: where the distribution takes the values 1/2 plus and minus the error of that share."""
        middle = float(np.median(values))
        half = self.quantile * self.standard_error((values <= middle) - float((values <= middle).mean()))
        if not half < 0.5:
            return Estimate(middle, np.nan, np.nan)
        low, high = np.quantile(values, [0.5 - half, 0.5 + half])
        return Estimate(middle, float(low), float(high))


def of(observed: np.ndarray, field: np.ndarray, block: np.ndarray, level: float = 0.95) -> Agreement:
    """The agreement of finite values of a field with the observations, in blocks that do not depend on each other."""
    observed, field = np.asarray(observed, float), np.asarray(field, float)
    number = observed.size
    if number < 2:
        only = field - observed
        bias = Estimate(float(only[0]), np.nan, np.nan) if number else MISSING
        return Agreement(number, np.nan, bias, *[MISSING] * 6)
    within = Blocks(block, level)
    # About their means no digit is lost to the sums.
    about = float(observed.mean()), float(field.mean())
    weight = np.ones(number)
    summed = sums(observed - about[0], field - about[1], weight, within.code, within.many)
    difference = field - observed
    median = within.median(difference)
    # For a symmetric distribution the median's own error does not matter (Hall & Welsh 1985, Ann. Statist. 13, 27-41).
    robust = Estimate(*(SCALE * part for part in within.median(np.abs(difference - median.value))))
    return of_sums(summed, level, about)._replace(median=median, robust_deviation=robust)


def sums(x: np.ndarray, y: np.ndarray, weight: np.ndarray, block: np.ndarray, blocks: int) -> np.ndarray:
    """For each block, whose number `block` holds for each value, the sums that `of_sums` takes (blocks, TERMS)."""
    d = y - x
    terms = (np.ones(x.size), weight, weight**2, *(weight * part for part in (x, y, d, x * x, y * y, x * y, d * d)))
    return np.column_stack([np.bincount(block, weights=term, minlength=blocks) for term in terms])


def of_sums(summed: np.ndarray, level: float = 0.95, about: tuple[float, float] = (0.0, 0.0)) -> Agreement:
    """The agreement, all but the medians, of fields whose sums over each block these are.

    `about` was subtracted from observed and field before they were summed. Values of unequal weight count as
    (sum w)^2 / sum w^2 of equal weight (Kish 1965, Survey Sampling, 11.7).
    """
    summed = summed[summed[:, NUMBER] > 0]
    whole, apart = summed.sum(axis=0), about[1] - about[0]
    number = int(whole[NUMBER])
    if number < 2:
        bias = Estimate(float(whole[D] / whole[W] + apart), np.nan, np.nan) if number else MISSING
        return Agreement(number, np.nan, bias, *[MISSING] * 6)
    weight = summed[:, W]
    within = Blocks(np.arange(len(summed)), level, weight)
    mean, square = whole[D] / whole[W], whole[DD] / whole[W]
    variance = max(float(square - mean**2), 0.0)
    variance = 0.0 if variance <= ROUNDING * square else variance
    bias, square = mean + apart, square + 2 * apart * mean + apart**2
    counted = whole[W] ** 2 / whole[WW]
    rmsd, deviation = np.sqrt(square), np.sqrt(variance * counted / (counted - 1.0))
    # Sums over each block of the influence values; that on a root is that on the square over twice the root.
    centred = summed[:, D] - mean * weight
    squared = summed[:, DD] + 2 * apart * summed[:, D] + (apart**2 - square) * weight
    scattered = summed[:, DD] - 2 * mean * summed[:, D] + (mean**2 - variance) * weight
    error = within.standard_error(centred)
    return Agreement(
        number,
        variance / error**2 if error > 0 else float(number),
        within.around(bias, centred),
        within.positive(rmsd, squared / (2 * rmsd) if rmsd > 0 else centred),
        within.positive(deviation, scattered / (2 * deviation) if deviation > 0 else centred),
        MISSING,
        MISSING,
        *_linear(summed, within, about),
    )


def _linear(summed: np.ndarray, within: Blocks, about: tuple[float, float]) -> tuple[Estimate, Estimate]:
    """Correlation and ratio of the standard deviations."""
    weight, whole = summed[:, W], summed.sum(axis=0)
    total, means = whole[W], (whole[X] / whole[W], whole[Y] / whole[W])
    spreads = []
    for mean, square, shift in zip(means, (whole[XX] / total, whole[YY] / total), about, strict=True):
        variance = square - mean**2
        if variance <= ROUNDING * square + (1e-12 * shift) ** 2:  # a constant has rounding errors for a deviation
            return MISSING, MISSING
        spreads.append(float(np.sqrt(variance)))

    def product(i: int, j: int, term: int, first: int, second: int) -> np.ndarray:
        """Sum over each block of the product of two standardised variables."""
        summed_here = summed[:, term] - means[i] * summed[:, second] - means[j] * summed[:, first]
        return (summed_here + means[i] * means[j] * weight) / (spreads[i] * spreads[j])

    xx, yy, xy = product(0, 0, XX, X, X), product(1, 1, YY, Y, Y), product(0, 1, XY, X, Y)
    correlation, ratio = float(xy.sum() / total), spreads[1] / spreads[0]
    spread = within.positive(ratio, ratio * (yy - xx) / 2)
    if abs(correlation) >= 1 - 1e-12:
        return Estimate(float(np.sign(correlation)), np.nan, np.nan), spread
    # Influence on the correlation: Devlin, Gnanadesikan & Kettenring 1975, Biometrika 62, 531-545; Fisher's z has
    # it over 1 - r^2.
    influence = (xy - correlation * (xx + yy) / 2) / (1 - correlation**2)
    _, low, high = within.around(np.arctanh(correlation), influence)
    return Estimate(correlation, float(np.tanh(low)), float(np.tanh(high))), spread


def means(
    values: np.ndarray, group: np.ndarray, block: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the values of each group, its standard error from blocks, and their number.

    The error is NaN where a group has fewer than LEAST_BLOCKS blocks in effect.
    """
    number = np.bincount(group, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, weights=values, minlength=groups) / np.where(number > 0, number, np.nan)
        part, code = together(group, block)
        owner = part[:, 0]
        sums = np.bincount(code, weights=values - mean[group], minlength=len(part))
        sizes = np.bincount(code, minlength=len(part)).astype(float)
        many = np.bincount(owner, minlength=groups)
        effective = number**2 / np.bincount(owner, weights=np.square(sizes), minlength=groups)
        variance = many / (many - 1.0) * np.bincount(owner, weights=np.square(sums), minlength=groups)
        error = np.where(effective >= LEAST_BLOCKS, np.sqrt(variance) / number, np.nan)
    return mean, error, number
