"""Transforms under which a variable is closer to Gaussian, and what a Gaussian means when it is transformed back.

An analysis of transformed values gives at each place a Gaussian of mean m and standard deviation s. In the variable's units
that is a distribution whose median is the back-transformed m, whatever the (rising) transform; its mean and standard
deviation are other numbers, which also depend on s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from phidias_lab.errors import InputError

#: Probability of the interval that goes with a back-transformed field.
PROBABILITY = 0.95
#: Points of the quadrature where the moments have no closed form, in standard deviations: so far and so fine that what is
#: left out is below 1e-14 and a smooth transform is integrated to rounding.
POINTS = np.arange(-8.0, 8.01, 1 / 16)
#: Fewest different values that tell the shape of a distribution, and most knots of the curve through their ranks.
FEWEST, KNOTS = 20, 1001


class Transform:
    """A rising function of the variable: `forward` to the scale of the analysis, `inverse` back."""

    def forward(self, values: np.ndarray) -> np.ndarray:
        raise NotImplementedError(type(self))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        raise NotImplementedError(type(self))

    def moments(self, mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of inverse(N(mean, deviation^2)), by the trapezoidal rule, which converges
        exponentially under a Gaussian (Trefethen and Weideman 2014, doi:10.1137/130932132) and bears kinks."""
        centre = self.inverse(mean)
        first, second = np.zeros(np.shape(centre)), np.zeros(np.shape(centre))
        for point, weight in zip(POINTS, stats.norm.pdf(POINTS) * (POINTS[1] - POINTS[0]), strict=True):
            # From the median, so that a narrow distribution far from zero keeps its digits.
            away = self.inverse(mean + deviation * point) - centre
            first, second = first + weight * away, second + weight * away**2
        return centre + first, np.sqrt(np.maximum(second - first**2, 0.0))

    def interval(self, mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The central interval of probability `PROBABILITY`."""
        reach = stats.norm.ppf((1 + PROBABILITY) / 2) * deviation
        return self.inverse(mean - reach), self.inverse(mean + reach)


@dataclass(frozen=True)
class Log(Transform):
    """log(x - least): a variable above `least` whose spread grows with its size, such as chlorophyll."""

    least: float = 0.0

    def forward(self, values):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(np.asarray(values, float) - self.least)

    def inverse(self, values):
        return np.exp(values) + self.least

    def moments(self, mean, deviation):
        """Of the lognormal distribution: exp(m + s^2/2), and that times sqrt(exp(s^2) - 1) (Aitchison and Brown 1957, The
        Lognormal Distribution, chapter 2; for the sea Campbell 1995, doi:10.1029/95JC00458)."""
        above = np.exp(mean + np.square(deviation) / 2)
        return above + self.least, above * np.sqrt(np.expm1(np.square(deviation)))


@dataclass(frozen=True)
class Logit(Transform):
    """log((x - least) / (greatest - x)): a variable between two bounds, such as a fraction."""

    least: float = 0.0
    greatest: float = 1.0

    def forward(self, values):
        share = (np.asarray(values, float) - self.least) / (self.greatest - self.least)
        with np.errstate(divide="ignore", invalid="ignore"):
            return special.logit(share)

    def inverse(self, values):
        return self.least + (self.greatest - self.least) * special.expit(values)


@dataclass(frozen=True)
class Anamorphosis(Transform):
    """Each value to the Gaussian value of its rank: linear between the knots, and constant beyond the first and last, so
    that nothing leaves the range of the values it was made from."""

    values: np.ndarray
    scores: np.ndarray

    def forward(self, values):
        return np.interp(values, self.values, self.scores)

    def inverse(self, values):
        return np.interp(values, self.scores, self.values)


def anamorphosis(values: np.ndarray) -> Anamorphosis:
    """The empirical Gaussian anamorphosis of a sample (Bertino, Evensen and Wackernagel 2003,
    doi:10.1111/j.1751-5823.2003.tb00194.x; Simon and Bertino 2009, doi:10.5194/os-5-495-2009).

    The value of rank r among n has the Gaussian score of probability (r - 3/8) / (n + 1/4) (Blom 1958); equal values share
    their mean rank.
    """
    different, number = np.unique(np.asarray(values, float), return_counts=True)
    if different.size < FEWEST:
        raise InputError(
            f"The transform 'gaussian' reads the shape of the distribution off the observations and needs {FEWEST} "
            f"different values; there are {different.size}. Choose a longer period, more levels, or another transform."
        )
    rank = np.cumsum(number) - (number - 1) / 2
    scores = stats.norm.ppf((rank - 0.375) / (number.sum() + 0.25))
    # Many knots would only be slow: those that stay are evenly spread over the ranks, with both ends.
    some = np.unique(np.linspace(0, different.size - 1, min(different.size, KNOTS)).round().astype(int))
    return Anamorphosis(different[some], scores[some])
