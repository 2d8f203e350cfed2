"""Values of a profile that stand out from the ones above and below them: the spike and gradient tests of Argo.

With V1, V2, V3 three consecutive values of a profile, V2 fails

    spike:     |V2 - (V3 + V1)/2| - |(V3 - V1)/2|  >  limit
    gradient:  |V2 - (V3 + V1)/2|                  >  limit

- temperature and salinity: Wong et al., Argo Quality Control Manual for CTD and Trajectory Data, doi:10.13155/33951,
  tests 9 and 11. Argo gave up the gradient test for real-time data in 2019, as it finds little that the others do not;
  it is that of the manual's version 3.1.
- oxygen: Thierry et al., Argo quality control manual for dissolved oxygen concentration, doi:10.13155/46542, the same tests.

A spike would make its neighbours fail the gradient test, so that one looks at what the spike test leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Above this depth in metres the first limit holds, from there on the second. Argo changes at 500 dbar.
CHANGE = 500.0


class Limits(NamedTuple):
    """Above and below 500 m, in these units."""

    spike: tuple[float, float]
    gradient: tuple[float, float]
    units: str


_TEMPERATURE = Limits((6.0, 2.0), (9.0, 3.0), "degree_Celsius")
_SALINITY = Limits((0.9, 0.3), (1.5, 0.5), "1e-3")
_OXYGEN = Limits((50.0, 25.0), (50.0, 25.0), "umol kg-1")

#: By CF standard name.
LIMITS = {
    "sea_water_temperature": _TEMPERATURE,
    "sea_water_potential_temperature": _TEMPERATURE,
    "sea_water_conservative_temperature": _TEMPERATURE,
    "sea_water_salinity": _SALINITY,
    "sea_water_practical_salinity": _SALINITY,
    "sea_water_absolute_salinity": _SALINITY,
    "moles_of_oxygen_per_unit_mass_in_sea_water": _OXYGEN,
    "mole_concentration_of_dissolved_molecular_oxygen_in_sea_water": _OXYGEN._replace(units="umol L-1"),
}
#: By the plain name of a column that has no standard name.
BY_NAME = {"temperature": _TEMPERATURE, "salinity": _SALINITY, "oxygen": _OXYGEN}


def of(name: str, standard_name: str | None = None) -> Limits | None:
    """The limits of a variable by its standard name (without modifiers), else by its own name; None if it has none."""
    if standard_name:
        return LIMITS.get(standard_name.split()[0])
    return BY_NAME.get(name.lower())


class Failures(NamedTuple):
    """For each value by how much it stands out in either test where it fails; NaN where it does not."""

    spike: np.ndarray
    gradient: np.ndarray


def stand_out(profile: np.ndarray, depth: np.ndarray, values: np.ndarray, limits: Limits) -> Failures:
    """Both tests for values in any order; `profile` numbers the profile of each. Values that are NaN are passed over, and
    the first and last of a profile have no neighbours to be compared with; so has one of several at the same depth."""
    values = np.asarray(values, float)
    spike = _failing(profile, depth, values, limits.spike, steep=True)
    left = np.where(np.isfinite(spike), np.nan, values)
    return Failures(spike, _failing(profile, depth, left, limits.gradient, steep=False))


def _failing(profile, depth, values, limits, steep: bool) -> np.ndarray:
    found = np.full(values.size, np.nan)
    rows = np.flatnonzero(np.isfinite(values) & np.isfinite(depth))
    rows = rows[np.lexsort((depth[rows], profile[rows]))]
    if rows.size < 3:
        return found
    above, here, below = rows[:-2], rows[1:-1], rows[2:]
    one = (profile[above] == profile[below]) & (depth[above] < depth[here]) & (depth[here] < depth[below])
    above, here, below = above[one], here[one], below[one]
    size = np.abs(values[here] - (values[below] + values[above]) / 2)
    if steep:
        size -= np.abs((values[below] - values[above]) / 2)
    failed = size > np.where(depth[here] < CHANGE, *limits)
    found[here[failed]] = size[failed]
    return found
