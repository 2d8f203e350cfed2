"""The errors of three independent measurements of the same quantity, none of which is the truth.

Each measurement is a linear function of the truth with an error that depends neither on the truth nor on the other
errors, X_i = a_i + b_i t + e_i (Stoffelen 1998, J. Geophys. Res. 103(C4), 7755-7766, sect. 3; McColl et al. 2014,
Geophys. Res. Lett. 41, 6229-6236, eq. 1). Then the covariances Q of the measurements tell the variances of the
errors, the correlation of each with the truth, and b_i up to a common factor (McColl et al. 2014, eqs. 5 and 9), for
example

    var e_1 = Q11 - Q12 Q13 / Q23      corr(X_1, t)^2 = Q12 Q13 / (Q11 Q23)      b_2 / b_1 = Q23 / Q13

What two of them resolve and the third does not counts as an error of the third (of representativeness, as Stoffelen
calls it). Intervals come from the influence of each triplet on Q, summed over blocks (see `agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from phidias_lab.errors import InputError
from phidias_lab.methods.agreement import Blocks, Estimate

#: With fewer triplets nothing is said: where errors and truth vary alike, independent triplets give the standard
#: deviation of an error with a relative standard error of about 1.2 / sqrt(n), so 12 per cent at this number.
LEAST_TRIPLETS = 100


class Errors(NamedTuple):
    """Of each measurement."""

    deviation: tuple[Estimate, ...]  # standard deviation of the error, in its own units
    correlation: tuple[Estimate, ...]  # with the truth
    slope: tuple[Estimate, ...]  # change per change of the first measurement's truth
    number: int


def errors(values: np.ndarray, block: np.ndarray, names: Sequence[str], level: float = 0.95) -> Errors:
    """The errors of the three columns of `values`, triplets in rows; an InputError where the method does not hold."""
    values = np.asarray(values, float)
    if len(values) < LEAST_TRIPLETS:
        raise InputError(
            f"There are {len(values)} triplets of {_listed(names)}, and fewer than {LEAST_TRIPLETS} do not tell their "
            "errors. Widen the radius, the time window, the period or the region."
        )
    within = Blocks(block, level)
    centred = values - values.mean(axis=0)
    product = {(i, j): centred[:, i] * centred[:, j] for i in range(3) for j in range(i, 3)}
    covariance = {pair: float(product[pair].mean()) for pair in product}
    influence = {pair: product[pair] - covariance[pair] for pair in product}
    deviation, correlation, slope = [], [], []
    for i in range(3):
        j, k = (other for other in range(3) if other != i)
        q, psi = (
            {name: table[tuple(sorted(pair))] for name, pair in _pairs(i, j, k)} for table in (covariance, influence)
        )
        if not (q["ij"] * q["ik"] * q["jk"] > 0 and _above_chance(q["jk"], psi["jk"], within)):
            raise InputError(
                f"The covariances of {_listed(names)} do not have the signs that three measurements of one quantity have "
                f"({_listed([f'{covariance[pair]:.3g}' for pair in ((0, 1), (0, 2), (1, 2))])}), so their errors "
                "cannot be told apart. Check that all three are the same variable at the same place and time."
            )
        truth = q["ij"] * q["ik"] / q["jk"]
        on_truth = truth * (psi["ij"] / q["ij"] + psi["ik"] / q["ik"] - psi["jk"] / q["jk"])
        variance, on_variance = q["ii"] - truth, psi["ii"] - on_truth
        if variance <= 0:
            raise InputError(
                f"The error variance of {names[i]} comes out negative ({variance:.3g}), which no error has: the errors of "
                f"{names[j]} and {names[k]} are correlated, or that of {names[i]} is too small to be told from "
                f"{len(values)} triplets. Choose a third source that shares nothing with the others, or more triplets."
            )
        size, share = np.sqrt(variance), np.sqrt(truth / q["ii"])
        deviation.append(within.positive(size, on_variance / (2 * size)))
        on_share = share / 2 * (on_truth / truth - psi["ii"] / q["ii"])
        _, low, high = within.around(np.arctanh(share), on_share / (1 - share**2))
        sign = 1.0 if i == 0 else float(np.sign(covariance[0, i]))
        correlation.append(
            Estimate(sign * float(share), *sorted((sign * float(np.tanh(low)), sign * float(np.tanh(high)))))
        )
        slope.append(_slope(i, covariance, influence, within))
    return Errors(tuple(deviation), tuple(correlation), tuple(slope), len(values))


def _pairs(i: int, j: int, k: int):
    return (("ii", (i, i)), ("ij", (i, j)), ("ik", (i, k)), ("jk", (j, k)))


def _slope(i: int, q: dict, psi: dict, within: Blocks) -> Estimate:
    """b_i / b_1: how the measurement follows the first one's truth."""
    if i == 0:
        return Estimate(1.0, 1.0, 1.0)
    above, below = (1, 2), (0, 3 - i)
    value = q[above] / q[below]
    return within.around(value, value * (psi[above] / q[above] - psi[below] / q[below]))


def _above_chance(value: float, influence: np.ndarray, within: Blocks) -> bool:
    """Whether a covariance differs from zero by more than its standard error: what divides must not be noise."""
    error = within.standard_error(influence)
    return not abs(value) <= error


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
