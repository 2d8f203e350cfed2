"""What the sea can have: ranges beyond which a value is no measurement of it, but a defect or a sign for "missing".

They are the global range tests of Argo, which hold for all seas, wide enough that no true value is lost. A regional range
would find more, and is the business of whoever knows the region.

- temperature: Wong et al., Argo Quality Control Manual for CTD and Trajectory Data, doi:10.13155/33951, test 6.
- salinity: the same test begins at 2 and ends at 41. Here it is 0 to 50, because floats do not drift into estuaries and
  the Baltic Sea's rivers, nor into the lagoons of the Red Sea and the Gulf.
- oxygen: Thierry et al., Argo quality control manual for dissolved oxygen concentration, doi:10.13155/46542, global range
  test, -5 to 600 umol kg-1; per volume it is the same at 1025 kg m-3.
- chlorophyll: Schmechtig et al., BGC-Argo quality control manual for the chlorophyll-A concentration,
  doi:10.13155/35385, global range test, -0.1 to 50 mg m-3; its end is doubled here, for coastal blooms.

A test of QARTOD of the same name (gross range) has no numbers of its own: it asks for those of the sensor or the operator.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Range(NamedTuple):
    """Least and greatest value, in these units."""

    least: float
    greatest: float
    units: str


_TEMPERATURE = Range(-2.5, 40.0, "degree_Celsius")
_SALINITY = Range(0.0, 50.0, "1e-3")
_OXYGEN = Range(-5.0, 600.0, "umol kg-1")
_OXYGEN_BY_VOLUME = Range(-5.0, 615.0, "umol L-1")
_CHLOROPHYLL = Range(-0.1, 100.0, "mg m-3")

#: By CF standard name.
RANGES = {
    "sea_water_temperature": _TEMPERATURE,
    "sea_water_potential_temperature": _TEMPERATURE,
    "sea_water_conservative_temperature": _TEMPERATURE,
    "sea_surface_temperature": _TEMPERATURE,
    "sea_water_salinity": _SALINITY,
    "sea_water_practical_salinity": _SALINITY,
    "sea_water_absolute_salinity": _SALINITY,
    "sea_surface_salinity": _SALINITY,
    "moles_of_oxygen_per_unit_mass_in_sea_water": _OXYGEN,
    "mole_concentration_of_dissolved_molecular_oxygen_in_sea_water": _OXYGEN_BY_VOLUME,
    "mass_concentration_of_chlorophyll_in_sea_water": _CHLOROPHYLL,
    "mass_concentration_of_chlorophyll_a_in_sea_water": _CHLOROPHYLL,
}
#: By the plain name of a column that has no standard name.
BY_NAME = {"temperature": _TEMPERATURE, "salinity": _SALINITY, "oxygen": _OXYGEN, "chlorophyll": _CHLOROPHYLL}

#: Numbers that archives and formats write where a value is missing; the last are the defaults of netCDF.
FILL_VALUES = (
    *(sign * number for number in (99.0, 99.9, 99.99, 999.0, 999.9, 999.99, 9999.0, 99999.0, 999999.0) for sign in (1, -1)),
    *(sign * number for number in (1e10, 1e15, 1e20, 1e30, 1e33, 1e34, 1e35, 1e36) for sign in (1, -1)),
    -32767.0, -32768.0, 32767.0, 9.969209968386869e36,
)  # fmt: skip


def of(name: str, standard_name: str | None = None) -> Range | None:
    """The range of a variable by its standard name (without modifiers), else by its own name; None if it has none."""
    if standard_name:
        return RANGES.get(standard_name.split()[0])
    return BY_NAME.get(name.lower())


def fill_value(values: np.ndarray, at_least: int = 3) -> tuple[float, int] | None:
    """A number that looks like a sign for "missing", and how many values it takes the place of; None if there is none.

    It is a known one, it stands at an end of all values, and several values are the same.
    """
    if values.size == 0:
        return None
    for end in (values.min(), values.max()):
        many = int((values == end).sum())
        if many >= at_least and np.isclose(FILL_VALUES, float(end), rtol=1e-6, atol=0.0).any():
            return float(end), many
    return None
