"""Depth and pressure of sea water by TEOS-10, for a standard ocean (35.16504 g/kg, 0 degrees Celsius).

Specific enthalpy of that ocean: Roquet, Madec, McDougall and Barker (2015), Ocean Modelling 90, 29-43,
doi:10.1016/j.ocemod.2015.04.002, the 75-term expression with salinity and temperature inserted. Height from it and from
gravity that grows linearly with depth: IOC, SCOR and IAPSO (2010), The international thermodynamic equation of seawater,
UNESCO Manuals and Guides 56, section 3.32 (equations 3.32.1 to 3.32.3) and appendix D (gravity, equation D.3).
"""

from __future__ import annotations

import numpy as np

#: Relative growth of gravity with depth, 1/m (Manuals and Guides 56, appendix D.3).
_GAMMA = 2.26e-7
#: Coefficients of the enthalpy over z = p / 10^4 dbar, from z to z^7, times 10^8 Pa (Roquet et al. 2015).
_ENTHALPY = (
    9.726613854843870e-4, -2.252956605630465e-5, 2.376909655387404e-6, -1.664294869986011e-7, -5.988108894465758e-9,
    -2.1078768810e-9, 2.8019291329e-10,
)  # fmt: skip


def gravity(latitude):
    """Gravity at the surface, m s-2 (Moritz 2000, geodetic reference system 1980; Manuals and Guides 56, D.3)."""
    s = np.sin(np.radians(latitude)) ** 2
    return 9.780327 * (1.0 + (5.2792e-3 + 2.32e-5 * s) * s)


def _enthalpy(pressure):
    """Specific enthalpy of the standard ocean, J kg-1, of a sea pressure in dbar."""
    z = np.asarray(pressure, float) * 1e-4
    total = np.zeros_like(z)
    for coefficient in reversed(_ENTHALPY):
        total = z * (coefficient + total)
    return total * 1e8


def depth(pressure, latitude):
    """Depth below the surface in m, positive downwards, of a sea pressure in dbar at a latitude."""
    g, h = gravity(latitude), _enthalpy(pressure)
    # h = g d + gamma g d^2 / 2, the root that goes to zero with h, in the form that loses no digits.
    return 2.0 * h / (g + np.sqrt(g * g + 2.0 * _GAMMA * g * h))


def pressure(depth_m, latitude):
    """Sea pressure in dbar of a depth in m at a latitude: the inverse of `depth`, by Newton's iteration."""
    d, g = np.asarray(depth_m, float), gravity(latitude)
    target = g * d * (1.0 + 0.5 * _GAMMA * d)
    p = d * 1.01
    for _ in range(6):  # the enthalpy is nearly linear: it converges to rounding in three steps
        z, slope = p * 1e-4, np.zeros_like(p)
        for power in range(len(_ENTHALPY), 0, -1):
            slope = slope * z + power * _ENTHALPY[power - 1]
        p = p - (_enthalpy(p) - target) / (slope * 1e4)
    return p
