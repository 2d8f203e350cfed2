"""Thresholds of scores at a requested rate of false alarms, and the rate of false alarms of a score.

Scores of clean pixels are learnt per stratum in one pass (`Scores`): their number, the largest of them, and a coarse
distribution of all. From these `calibrate` makes for each stratum a curve from score to false-alarm rate:

- up to a high score u the shares of the clean scores themselves;
- above u the generalised Pareto distribution, P(X > x) = P(X > u) (1 + shape (x - u) / scale)^(-1/shape), to which the
  excess over a high threshold tends (Balkema and de Haan 1974, Ann. Probab. 2, 792-804; Pickands 1975, Ann. Statist. 3,
  119-131), fitted by maximum likelihood (regular for shape > -1/2: Smith 1985, Biometrika 72, 67-90).

Several detectors become one score (`combined`), which is learnt and calibrated like any other: so their correlation need not
be known. Where no clean scores are at hand, `jackson_mudholkar` gives the threshold of the squared residual of a Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from phidias_lab.errors import InputError
from phidias_lab.methods.agreement import Estimate
from phidias_lab.methods.strata import Smallest

#: Scores kept of each stratum, the largest ones. They are exact; those below are known within a 128th of an octave.
KEPT = 10_000
#: Fewer excesses than this tell no tail: the stratum is then judged as all strata together.
LEAST = 50
#: More are not used: the farther from the end, the less the tail is a generalised Pareto distribution.
MOST = 2000
#: At most this share of the scores is called tail.
SHARE = 0.02
#: A fit that is rejected at this level is tried with half as many excesses.
REJECTED = 0.01
#: Shapes that are looked for: below, likelihood has no regular maximum; above, the score has no mean.
SHAPES = (-0.5, 2.0)
#: No rate is called smaller.
TINY = 1e-300


class Scores:
    """What is kept of the scores of clean pixels: exactly the same however they are shared out and merged."""

    def __init__(self, strata: int, kept: int = KEPT):
        self.number = np.zeros(strata, np.int64)
        self.bins, self.counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._top = Smallest(np.full(strata, kept), (float, np.int64), keys=2)

    def add(self, score: np.ndarray, stratum: np.ndarray, block: np.ndarray | None = None) -> None:
        """Scores that are finite, of strata from 0. Neighbours whose scores depend on each other share a `block`."""
        score, stratum = np.asarray(score, float).ravel(), np.asarray(stratum, np.int64).ravel()
        block = np.full(score.size, -1) if block is None else np.asarray(block, np.int64).ravel()
        good = np.isfinite(score) & (stratum >= 0)
        if not good.all():
            score, stratum, block = score[good], stratum[good], block[good]
        self.number += np.bincount(stratum, minlength=self.number.size)
        self._count(*np.unique((stratum << 16) + _bin(score), return_counts=True))
        some = self._top.admits(stratum, -score)
        self._top.add(stratum[some], -score[some], block[some])

    def merge(self, other: Scores) -> None:
        """Take in scores of other pixels."""
        if not np.array_equal(other._top.shares, self._top.shares):
            raise InputError(
                "Scores of different strata, or kept in different numbers, cannot be merged. Use the same."
            )
        self.number += other.number
        self._count(other.bins, other.counts)
        other._top.settle()
        self._top.add(other._top.stratum, *other._top.columns)

    def largest(self, stratum: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The largest scores, falling, and their blocks; without a stratum those of all together."""
        self._top.settle()
        value, block = self._top.columns
        if stratum is not None:
            mine = self._top.stratum == stratum
            return -value[mine], block[mine]
        order = np.lexsort((block, value))[: self._top.shares.max(initial=0)]
        return -value[order], block[order]

    def distribution(self, stratum: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rising scores, and how many are larger or equal."""
        code, counts = self.bins, self.counts
        if stratum is not None:
            mine = code >> 16 == stratum
            code, counts = code[mine], counts[mine]
        code, which = np.unique(code & 0xFFFF, return_inverse=True)
        counts = np.bincount(which, weights=counts, minlength=code.size)
        return _edge(code), np.cumsum(counts[::-1])[::-1]

    def state(self) -> dict[str, np.ndarray]:
        """All that is kept, as arrays."""
        self._top.settle()
        value, block = self._top.columns
        top = {"stratum": self._top.stratum, "score": -value, "block": block, "kept": self._top.shares}
        return {"number": self.number.copy(), "bins": self.bins, "counts": self.counts, **top}

    @classmethod
    def of(cls, state: dict[str, np.ndarray]) -> Scores:
        """The scores of a state."""
        made = cls(len(state["number"]), int(state["kept"].max(initial=0)))
        made.number, made.bins, made.counts = state["number"].copy(), state["bins"], state["counts"]
        made._top.add(state["stratum"], -state["score"], state["block"])
        return made

    def _count(self, bins: np.ndarray, counts: np.ndarray) -> None:
        self.bins, which = np.unique(np.concatenate([self.bins, bins]), return_inverse=True)
        both = np.concatenate([self.counts, counts])
        self.counts = np.zeros(self.bins.size, np.int64)
        np.add.at(self.counts, which, both)


class Tail(NamedTuple):
    """The generalised Pareto distribution of the scores above `start`."""

    start: float
    share: float  # of the scores that are larger
    shape: float
    scale: float
    shape_variance: float
    excesses: int
    fit: float  # p-value of the chi-square test of the fit
    clustering: float  # variance of the number of excesses over that of independent ones

    def score(self, rate: np.ndarray) -> np.ndarray:
        return self.start + self.scale * _growth(np.log(self.share / rate), self.shape)

    def rate(self, score: np.ndarray) -> np.ndarray:
        scaled = np.maximum(np.asarray(score) - self.start, 0.0) / self.scale
        return np.maximum(self.share * np.exp(-_hazard(scaled, self.shape)), TINY)

    def error(self, rate: float) -> float:
        """Standard error of the score of a rate, to first order, from the large-sample covariance of the maximum of
        likelihood, var scale = 2 (1 + shape) scale^2 / n, cov = -(1 + shape) scale / n (Smith 1987, Ann. Statist. 15,
        1174-1207), and the binomial error of `share`."""
        log, step = float(np.log(self.share / rate)), 1e-4
        by_shape = self.scale * (_growth(log, self.shape + step) - _growth(log, self.shape - step)) / (2 * step)
        by_scale, by_share = _growth(log, self.shape), self.scale * np.exp(self.shape * log)
        # The scale falls where the shape rises; what is left of its error is independent of that.
        along = by_shape - by_scale * self.scale / (1 + self.shape)
        independent = (by_scale * self.scale) ** 2 * (1 + 2 * self.shape) + by_share**2 * (1 - self.share)
        return float(np.sqrt(along**2 * self.shape_variance + independent * self.clustering / self.excesses))


class Threshold(NamedTuple):
    """The score of a stratum that clean pixels exceed at the requested rate."""

    score: Estimate
    how: str  # "counted", "tail", or either of the two with ", all strata" where the stratum was not learnt
    number: int  # clean scores it rests on
    fit: float  # p-value of the tail


class Curve(NamedTuple):
    """From score to rate: counted up to the start of the tail."""

    number: int
    scores: np.ndarray
    rates: np.ndarray
    tail: Tail

    def rate(self, score: np.ndarray) -> np.ndarray:
        rate = np.interp(score, self.scores, self.rates)
        beyond = np.flatnonzero(score > self.tail.start)
        rate[beyond] = self.tail.rate(score[beyond])
        return rate

    def threshold(self, rate: float, level: float, where: str) -> Threshold:
        z = stats.norm.ppf(0.5 + level / 2)
        if rate < self.tail.share:
            score, half = float(self.tail.score(rate)), z * self.tail.error(rate)
            return Threshold(Estimate(score, score - half, score + half), f"tail{where}", self.number, self.tail.fit)
        spread = np.exp(z * np.sqrt(self.tail.clustering * (1 - rate) / (rate * self.number)))
        ends = [float(np.interp(-r, -self.rates, self.scores)) for r in (rate, rate * spread, rate / spread)]
        return Threshold(Estimate(*ends), f"counted{where}", self.number, self.tail.fit)


class Calibrated:
    """Curves of all strata."""

    def __init__(self, curves: Sequence[Curve | None], together: Curve):
        self.curves, self.together = list(curves), together

    def thresholds(self, rate: float, level: float = 0.95) -> list[Threshold]:
        """Of each stratum, with an interval; strata without enough clean scores get that of all together, and say so."""
        if not 0 < rate < 1:
            raise InputError(f"A false-alarm rate of {rate:g} was given. Choose one between 0 and 1, such as 1e-4.")
        return [
            curve.threshold(rate, level, "") if curve else self.together.threshold(rate, level, ", all strata")
            for curve in self.curves
        ]

    def false_alarm_rate(self, score: np.ndarray, stratum: np.ndarray) -> np.ndarray:
        """The share of clean pixels of its stratum that have a higher score; NaN where there is none."""
        score = np.asarray(score, float)
        flat, rate = score.ravel(), np.full(score.size, np.nan)
        # One curve after the other; places of no known stratum come last.
        curves = [*self.curves, None]
        code = np.broadcast_to(stratum, score.shape).ravel()
        code = np.where((code >= 0) & (code < len(self.curves)), code, len(self.curves)).astype(np.int16)
        for one, curve in enumerate(curves):
            mine = np.flatnonzero(code == one)
            if mine.size:
                rate[mine] = (curve or self.together).rate(flat[mine])
        return rate.reshape(score.shape)


def calibrate(scores: Scores) -> Calibrated:
    """The curves of learnt scores.

    Strata are not all alike, nor does each tell its shape well: the shapes are drawn towards their mean by as much as
    their spread is explained by their errors (random effects, DerSimonian and Laird 1986, Control. Clin. Trials 7,
    177-188, eqs. 8 and 9), and the scales are fitted again.
    """
    top = scores.largest()
    together = _tail(*top, int(scores.number.sum()))
    if together is None:
        raise InputError(
            f"There are {int(scores.number.sum())} clean scores to learn thresholds from, and {round(LEAST / SHARE)} "
            "different ones are needed at least. Screen more clean pixels."
        )
    tails = [_tail(*scores.largest(s), int(n)) for s, n in enumerate(scores.number)]
    tails = _drawn_together(tails, scores)
    curves = [tail and _curve(scores, s, tail) for s, tail in enumerate(tails)]
    return Calibrated(curves, _curve(scores, None, together))


def combined(rates: np.ndarray, at_least: int = 1, shares: Sequence[float] | None = None) -> np.ndarray:
    """One score from the false-alarm rates of several detectors (last axis): at least so many of them must alarm.

    With a threshold q on 10^-score, detector d alarms at rates up to shares[d] q. Learn the score from clean pixels like
    any other: its calibrated rate is that of the rule, however the detectors depend on each other. Detectors without a
    rate (NaN) do not alarm.
    """
    rates = np.asarray(rates, float)
    if not 1 <= at_least <= rates.shape[-1]:
        raise InputError(
            f"Of {rates.shape[-1]} detectors {at_least} shall alarm. Choose a number from 1 to all of them."
        )
    if shares is not None:
        rates = rates / np.asarray(shares, float)
    return -np.log10(np.maximum(np.sort(rates, axis=-1)[..., at_least - 1], TINY))


def jackson_mudholkar(left: np.ndarray, rate: float) -> float:
    """The squared residual Q that Gaussian spectra exceed at this rate; `left` are the eigenvalues that the basis leaves
    out (Jackson and Mudholkar 1979, Technometrics 21, 341-349)."""
    one, two, three = (float(np.sum(np.asarray(left, float) ** power)) for power in (1, 2, 3))
    h = 1 - 2 * one * three / (3 * two**2)
    z = stats.norm.isf(rate)
    return one * (z * np.sqrt(2 * two * h**2) / one + 1 + two * h * (h - 1) / one**2) ** (1 / h)


#: With fewer blocks than this a law of extremes is not learnt.
LEAST_BLOCKS = 8


class Gumbel(NamedTuple):
    """The law of the largest of many values, per channel: P(X > x) = 1 - exp(-exp(-(x - mode) / scale)).

    The largest of k times as many values has the same law with the mode higher by scale ln k (Gumbel 1958, Statistics of
    Extremes), so blocks of any size are judged by one law. Smallest values are judged with their signs changed.
    """

    mode: np.ndarray  # of the largest of `number` values
    scale: np.ndarray
    number: float

    @classmethod
    def learnt(cls, extreme: np.ndarray, number: np.ndarray) -> Gumbel:
        """From the extremes (block, channel) of blocks of so many values each, by their quartiles: a quarter of the blocks
        may hold events without changing the law much. NaN in a channel that fewer than `LEAST_BLOCKS` have.

        The quantile of p is mode - scale ln(-ln p).
        """
        extreme, number = np.asarray(extreme, float), np.asarray(number, float)
        good = number > 0
        extreme, number = extreme[good], number[good]
        usual = float(np.median(number)) if number.size else 1.0
        more = np.log(number / usual)[:, None]
        enough = np.isfinite(extreme).sum(axis=0) >= LEAST_BLOCKS
        mode, scale = np.full((2, extreme.shape[1]), np.nan)
        some, spread = extreme[:, enough], np.zeros(enough.sum())
        low, middle, high = -np.log(-np.log([0.25, 0.5, 0.75]))
        # Blocks of other sizes are brought to the usual one, which takes the scale: a few rounds settle it.
        for _ in range(20 if enough.any() else 0):
            quartiles = np.nanquantile(some - spread * more, [0.25, 0.5, 0.75], axis=0)
            before, spread = spread, (quartiles[2] - quartiles[0]) / (high - low)
            if (np.abs(spread - before) * np.abs(more).max() <= 1e-3 * spread).all():
                break
        if enough.any():
            spread = _not_too_small(spread, np.isfinite(some).sum(axis=0))
            mode[enough], scale[enough] = quartiles[1] - spread * middle, spread
        return cls(mode, scale, usual)

    def threshold(self, rate: float, number: np.ndarray | float) -> np.ndarray:
        """What the largest of `number` values exceeds at this rate: (channel), or (block, channel) for several numbers."""
        return self._of(number) - self.scale * np.log(-np.log1p(-rate))

    def false_alarm_rate(self, extreme: np.ndarray, number: np.ndarray | float) -> np.ndarray:
        """The share of usual blocks of `number` values with a larger extreme in that channel."""
        return -np.expm1(-np.exp(-(np.asarray(extreme, float) - self._of(number)) / self.scale))

    def _of(self, number: np.ndarray | float) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return self.mode + self.scale * np.log(np.asarray(number, float) / self.number)[..., None]


def unusual_channels(
    highest: np.ndarray, lowest: np.ndarray, number: np.ndarray, laws: tuple[Gumbel, Gumbel], rate: float
) -> np.ndarray:
    """Which channels of blocks have unusual extremes: bit 1 where the highest is, bit 2 where the lowest is.

    `highest` and `lowest` are (block, channel), `number` the values of each block, `laws` those of the highest and of the
    lowest with their signs changed. Of usual blocks a share of at most `rate` has any such channel: each of the channels'
    two tests gets its part of it (Bonferroni's inequality).
    """
    each = rate / (2 * highest.shape[-1])
    tests = zip((highest, -np.asarray(lowest)), laws, (1, 2), strict=True)
    with np.errstate(invalid="ignore"):
        return sum((bit * (extreme > law.threshold(each, number)) for extreme, law, bit in tests), np.int8(0)).astype(
            np.int8
        )


def _not_too_small(scale: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Scales of Gumbel distributions from the quartiles of so many values. A few tell one badly, and what is too small by
    chance would alarm: it is drawn towards the middle of all channels by as much as their spread is explained by their
    errors (DerSimonian and Laird 1986, as in `calibrate`, of medians). One that is larger stays.

    The variance of ln scale is 1.584 / n for a Gumbel density: that of the distance of two sample quantiles, which is
    p(1 - p) / (n f^2) of each less twice their covariance p(1 - q) / (n f g) (David and Nagaraja 2003, Order Statistics,
    section 10.3).
    """
    with np.errstate(divide="ignore"):
        own, error = np.log(scale), 1.584 / number
    middle = np.median(own)
    between = max(float((1.4826 * np.median(np.abs(own - middle))) ** 2 - np.median(error)), 0.0)
    return np.exp(np.maximum(own, middle + between / (between + error) * (own - middle)))


# The inside ---------------------------------------------------------------------------------------------------------


def _bin(score: np.ndarray) -> np.ndarray:
    """The first 16 bits of a number of single precision, such that they rise with it."""
    bits = (np.clip(score, -3e38, 3e38).astype(np.float32) + np.float32(0)).view(np.uint32)
    return (np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> 16).astype(np.int64)


def _edge(code: np.ndarray) -> np.ndarray:
    """The smallest score of a bin."""
    bits = code.astype(np.uint32) << np.uint32(16)
    return np.where(bits >> 31, bits & np.uint32(0x7FFFFFFF), ~bits).astype(np.uint32).view(np.float32).astype(float)


def _hazard(scaled, shape: float):
    """-ln P(excess > scaled), for a scale of one."""
    if abs(shape) < 1e-8:
        return scaled
    return np.log1p(np.maximum(shape * scaled, -1 + 1e-16)) / shape


def _growth(log, shape: float):
    """The scaled excess that is exceeded with the probability exp(-log)."""
    return log if abs(shape) < 1e-8 else np.expm1(shape * log) / shape


def _tail(largest: np.ndarray, block: np.ndarray, number: int) -> Tail | None:
    """The tail of falling scores, the longest one that its own distribution does not contradict."""
    excesses = int(min(largest.size - 1, MOST, SHARE * number))
    best = None
    while excesses >= LEAST and largest[0] > largest[excesses]:
        start = float(largest[excesses])
        excess = largest[:excesses] - start
        clustering = _clustering(block[:excesses])
        shape, scale = generalised_pareto(excess)
        fit = _fit(excess, shape, scale, clustering)
        variance = (1 + shape) ** 2 * clustering / excesses
        tail = Tail(start, (excesses + 1) / (number + 1), shape, scale, variance, excesses, fit, clustering)
        if best is None or tail.fit > best.fit:
            best = tail
        if fit >= REJECTED:
            break
        excesses //= 2
    return best


def generalised_pareto(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of largest likelihood; the scale is found for each shape (one root), then the shape."""

    def loss(shape: float) -> float:
        scale = _scale(excess, shape)
        return np.log(scale) + (1 + shape) * float(np.mean(_hazard(excess / scale, shape)))

    shape = float(optimize.minimize_scalar(loss, bounds=SHAPES, method="bounded", options={"xatol": 1e-4}).x)
    return shape, _scale(excess, shape)


def _scale(excess: np.ndarray, shape: float) -> float:
    """Where the derivative of the likelihood by the scale is zero: (1 + shape) mean(z / (1 + shape z)) = 1, with
    z = excess / scale. The left side falls with the scale."""

    def beyond(log: float) -> float:
        z = excess / np.exp(log)
        return (1 + shape) * float(np.mean(z / (1 + shape * z))) - 1

    largest = float(excess.max())
    low = max(-shape * largest * (1 + 1e-9), 1e-9 * largest)
    return float(np.exp(optimize.brentq(beyond, np.log(low), np.log(10 * largest), xtol=1e-8)))


def _fit(excess: np.ndarray, shape: float, scale: float, clustering: float) -> float:
    """The p-value of Pearson's test in classes of equal probability, two of whose degrees of freedom the fit took (the
    true law lies between that and none taken: Chernoff and Lehmann 1954, Ann. Math. Statist. 25, 579-586). Clusters
    inflate the statistic (Rao and Scott 1981, J. Am. Stat. Assoc. 76, 221-230)."""
    classes = int(np.clip(excess.size // 25, 4, 20))
    uniform = np.exp(-_hazard(excess / scale, shape))
    counts = np.bincount(np.minimum((uniform * classes).astype(int), classes - 1), minlength=classes)
    expected = excess.size / classes
    return float(stats.chi2.sf(np.square(counts - expected).sum() / expected / clustering, classes - 3))


def _clustering(block: np.ndarray) -> float:
    """Of clusters that come as a Poisson process: variance over mean of the number of excesses is sum c^2 / sum c, with c
    excesses in a cluster. Excesses of no block stand alone."""
    sizes = np.unique(block[block >= 0], return_counts=True)[1]
    alone = int((block < 0).sum())
    return float((np.square(sizes).sum() + alone) / (sizes.sum() + alone))


def _drawn_together(tails: Sequence[Tail | None], scores: Scores) -> list[Tail | None]:
    own = [tail for tail in tails if tail]
    if len(own) < 2:
        return list(tails)
    shape = np.array([tail.shape for tail in own])
    error = (1 + np.median(shape)) ** 2 * np.array([tail.clustering / tail.excesses for tail in own])
    mean = np.average(shape, weights=1 / error)
    q = (np.square(shape - mean) / error).sum()
    between = max(0.0, (q - (shape.size - 1)) / ((1 / error).sum() - (1 / error**2).sum() / (1 / error).sum()))
    mean = np.average(shape, weights=1 / (error + between))
    trust = between / (between + error)
    shape = np.clip(mean + trust * (shape - mean), *SHAPES)
    error = trust * error + (1 - trust) ** 2 / (1 / (error + between)).sum()
    drawn = iter(zip(shape.tolist(), error.tolist(), strict=True))

    def fitted(s: int, tail: Tail) -> Tail:
        here, variance = next(drawn)
        excess = scores.largest(s)[0][: tail.excesses] - tail.start
        scale = _scale(excess, here)
        fit = _fit(excess, here, scale, tail.clustering)
        return tail._replace(shape=here, scale=scale, shape_variance=variance, fit=fit)

    return [tail and fitted(s, tail) for s, tail in enumerate(tails)]


def _curve(scores: Scores, stratum: int | None, tail: Tail) -> Curve:
    number = int(scores.number.sum() if stratum is None else scores.number[stratum])
    top = scores.largest(stratum)[0][tail.excesses :]
    exact = (tail.excesses + 1 + np.arange(top.size)) / (number + 1)
    body, beyond = scores.distribution(stratum)
    below = body < top[-1]
    x = np.concatenate([body[below], top[::-1]])
    rate = np.concatenate([beyond[below] / number, exact[::-1]])
    return Curve(number, x, np.minimum.accumulate(rate), tail)
