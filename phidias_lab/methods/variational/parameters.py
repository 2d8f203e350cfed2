"""Systems as a function of correlation lengths and noise, and what estimates of these tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, stats

from phidias_lab.errors import InputError
from phidias_lab.methods.variational import solvers, system
from phidias_lab.methods.variational.multifrontal import Multifrontal, Structure
from phidias_lab.methods.variational.system import System

FEWEST = 20
"""With fewer observations no length is estimated: their sampling error alone exceeds a factor of two."""
DECADES = 1.5
"""How far from its first guess a parameter is looked for, in powers of ten."""
BOUND = DECADES * math.log(10)


@dataclass(frozen=True)
class Parameter:
    """An estimated quantity: its value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_logarithm(cls, logarithm: float, deviation: float, scale: float = 1.0) -> Parameter:
        """From a logarithm that is normally distributed, with its standard deviation."""
        reach = stats.norm.ppf(0.975) * deviation
        return cls(*(scale * math.exp(logarithm + more) for more in (0.0, -reach, reach)))


@dataclass(frozen=True)
class Estimate:
    """What the observations tell.

    factors : per group of dimensions, what its lengths are multiplied by.
    noise : error variance over background variance; for given noise per observation, what all are multiplied by.
    variance : the background variance, in the squared units of the values.
    logs : logarithms of the factors, and of that of the noise.
    score : the least value of what was minimised.
    """

    factors: tuple[Parameter, ...]
    noise: Parameter
    variance: float
    logs: np.ndarray
    score: float
    evaluations: int


class Family:
    """Systems by the logarithms of factors of the lengths (per group of dimensions) and of the noise, which is last.

    The arguments are those of `analyse`.  A group of dimensions shares one factor: [[0, 1]] for an isotropic plane,
    [[0], [1, 2]] for the depth apart from the plane.
    """

    def __init__(self, *arguments, length, noise, groups: Sequence[Sequence[int]], **options):
        self.arguments, self.options = arguments, options
        self.noise = noise
        self.groups = [list(group) for group in groups]
        ndim = np.ndim(arguments[0])
        several = isinstance(length, list | tuple)
        self.lengths = list(length) if several else [length] * ndim
        self.evaluations = 0
        self._structures: dict[str, Structure] = {}
        self._even: tuple[bytes, np.ndarray] | None = None

    @property
    def size(self) -> int:
        return len(self.groups) + 1

    def build(self, logs: np.ndarray) -> System:
        """The system for the logarithms of the factors, the noise last."""
        lengths = list(self.lengths)
        for group, log in zip(self.groups, logs[:-1], strict=True):
            for dimension in group:
                lengths[dimension] = np.multiply(lengths[dimension], math.exp(log))
        noise = np.multiply(self.noise, math.exp(logs[-1]))
        return system.build(*self.arguments, lengths, noise, **{**self.options, **self._unit_variance(lengths, logs)})

    def _unit_variance(self, lengths: list, logs: np.ndarray) -> dict[str, np.ndarray]:
        """What the walls do to the background, computed once for all noises beside the same lengths."""
        if self.options.get("unit_variance") is not True:
            return {}
        same = np.asarray(logs[:-1], float).tobytes()
        if self._even is None or self._even[0] != same:
            told = {name: self.options[name] for name in ("alpha", "cyclic", "edge_stretch") if name in self.options}
            self._even = same, system.background_deviation(*self.arguments[:3], lengths, **told)
        return {"unit_variance": self._even[1]}

    def factor(self, name: str, matrix: sparse.csr_array, places: solvers.Places) -> Multifrontal:
        """A factor of one of several matrices whose structure is the same for all parameters."""
        known = self._structures.get(name)
        try:
            found = Multifrontal(matrix, places.nodes, places.reach, structure=known)
        except np.linalg.LinAlgError as error:
            raise solvers.singular() from error
        self._structures[name] = found.structure
        return found

    def check_number(self) -> None:
        """Refuse too few observations."""
        count = self.build(np.zeros(self.size)).values.size
        if count < FEWEST:
            raise too_few(count)

    def value(self, logs: np.ndarray) -> float:
        """What the estimate makes least."""
        raise NotImplementedError(type(self).__name__)

    def scale(self) -> float:
        """The given noise, where it is one number."""
        return float(self.noise) if np.ndim(self.noise) == 0 else 1.0


def profile(family: Family, logs: np.ndarray, group: int, factors: np.ndarray) -> np.ndarray:
    """The least value for other lengths of one group: each time with the noise that goes best with it."""
    found = np.empty(len(factors))
    for k, factor in enumerate(factors):
        here = np.array(logs, float)
        here[group] += math.log(factor)

        def by_noise(log: float, here: np.ndarray = here) -> float:
            return family.value(np.r_[here[:-1], log])

        # The noise follows the length slowly: a fifth of its logarithm changes the value by less than a line's width.
        found[k] = optimize.minimize_scalar(
            by_noise, bounds=(logs[-1] - 2, logs[-1] + 2), method="bounded", options={"xatol": 0.2}
        ).fun
    return found


def told(value: Callable, progress: Callable[[str], None] | None, name: str, family: Family) -> Callable:
    """The same function, which also says how far the search is."""

    def says(logs: np.ndarray):
        found = value(logs)
        if progress is not None:
            least = found[0] if isinstance(found, tuple) else found
            progress(f"{name} {least:.4g} after {family.evaluations} evaluations")
        return found

    return says


def too_few(count: int) -> InputError:
    return InputError(
        f"{count} observations are too few to estimate a correlation length; at least {FEWEST} are needed. Give the "
        "length yourself, or widen the region, the depths or the period."
    )


def undecided(why: str) -> InputError:
    return InputError(
        f"These observations do not tell the correlation length: {why}. Give the length yourself, use more observations, "
        "or begin from another first guess."
    )
