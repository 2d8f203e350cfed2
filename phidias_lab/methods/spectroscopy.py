"""Absorption by gases in the infrared: lines, cross-sections, and how a spectrum answers to a gas.

Carbon monoxide is computed from spectroscopic constants. Methane, water and heavy water (HDO) are **pseudo-lines**: made up
once from a fixed seed, as dense and as strong as the real ones, at places where the real ones are not. They serve synthetic
spectra; for measured ones give cross-sections of your own (`tables` of `dictionary`).

A response here is d ln R / d a: the change of the logarithm of a spectrum per unit of a quantity. For a gas the unit is one
standard column (`COLUMNS`), so an amplitude of 0.5 means half a standard column more.

Sources
- CO levels: Farrenq, Guelachvili, Sauval, Grevesse and Farmer (1991), J. Mol. Spectrosc. 149, 375-390, table IV.
- CO band intensities: Zou and Varanasi (2002), J. Quant. Spectrosc. Radiat. Transfer 75, 63-92.
- Strength over temperature: Rothman et al. (1998), J. Quant. Spectrosc. Radiat. Transfer 60, 665-710, equation A11.
- Atmosphere: U.S. Standard Atmosphere (1976), NOAA-S/T 76-1562, the layers up to 32 km.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phidias_lab.errors import ParameterError, UnknownNameError, nearest

C2 = 1.438776877  # cm K, h c / k (CODATA 2018)
LIGHT = 2.99792458e10  # cm s-1
AVOGADRO, BOLTZMANN = 6.02214076e23, 1.380649e-23  # exact since 2019
REFERENCE = 296.0  # K, the temperature at which strengths and widths are given
ATMOSPHERE_HPA = 1013.25

#: Vertical columns of a standard atmosphere, molecules cm-2: dry air 2.15e25 with 90 ppb CO and 1850 ppb CH4 (the burden of
#: the 2010s), 20 kg m-2 of water, and HDO at the isotopic ratio of ocean water (VSMOW, 3.115e-4).
COLUMNS = {"CO": 1.93e18, "CH4": 3.97e19, "H2O": 6.69e22, "HDO": 6.69e22 * 3.115e-4}
PSEUDO = ("CH4", "H2O", "HDO", "unknown")
#: Answers that are no gas: shift (nm), stretch (nm at the ends), an additive offset and a slope (both over the continuum).
ARTEFACTS = ("shift", "stretch", "offset", "slope")

# Lines ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """Lines of one gas; strengths (cm-1 / (molecule cm-2)) and air-broadened half widths (cm-1 atm-1) at 296 K."""

    position: np.ndarray  # cm-1
    strength: np.ndarray
    lower_energy: np.ndarray  # cm-1
    width: np.ndarray
    mass: float  # g mol-1
    linear: bool = False  # a linear molecule: its rotational partition function grows as T, else as T^1.5
    exponent: float = 0.7  # of the width's temperature dependence, typical of air

    def strength_at(self, temperature: float) -> np.ndarray:
        """Strengths at a temperature (Rothman et al. 1998, A11), with the partition function of a rigid rotor."""
        partition = (REFERENCE / temperature) ** (1.0 if self.linear else 1.5)
        boltzmann = np.exp(-C2 * self.lower_energy * (1 / temperature - 1 / REFERENCE))
        stimulated = np.expm1(-C2 * self.position / temperature) / np.expm1(-C2 * self.position / REFERENCE)
        return self.strength * partition * boltzmann * stimulated


#: Of each vibrational level of 12C16O: term value above v = 0, B, D and H in cm-1; the Dunham sums of Farrenq et al. (1991).
_CO_LEVELS = {
    0: (0.0, 1.9225289660, 6.121143508e-6, 5.8132e-12),
    1: (2143.2711012, 1.9050259599, 6.120471159e-6, 5.6679e-12),
    2: (4260.0621749, 1.8875243131, 6.120149911e-6, 5.5201e-12),
}
#: cm-1 / (molecule cm-2) at 296 K (Zou and Varanasi 2002).
_CO_BANDS = {1: 1.013e-17, 2: 7.532e-20}


def _level(v: int, j: np.ndarray) -> np.ndarray:
    term, b, d, h = _CO_LEVELS[v]
    x = j * (j + 1.0)
    return term + x * (b - x * (d - x * h))


def co_lines(upper: int = 2, highest: int = 35) -> Lines:
    """The lines of the band upper-0 of 12C16O, P branch from its far end, then R branch: upper 1 is the fundamental.

    Strengths follow |m| nu exp(-hcE''/kT), which leaves out the Herman-Wallis factor (some per cent at high J).
    """
    m = np.r_[-np.arange(highest, 0, -1), np.arange(1, highest + 1)]
    lower = np.where(m > 0, m - 1, -m)
    energy = _level(0, lower)
    position = _level(upper, np.where(m > 0, m, -m - 1)) - energy
    weight = np.abs(m) * position * np.exp(-C2 * energy / REFERENCE) * -np.expm1(-C2 * position / REFERENCE)
    strength = _CO_BANDS[upper] * weight / weight.sum()
    # Air-broadened half widths fall from 0.08 to 0.05 with |m| (as listed in HITRAN, to some per cent).
    width = 0.05 + 0.03 * np.exp(-np.abs(m) / 8.0)
    return Lines(position, strength, energy, width, 28.0101, linear=True)


#: Per gas: lines per cm-1, mean strength, skewness of strengths (shape of a gamma distribution), mass, spacing of clusters.
_PSEUDO = {
    "CH4": (5.0, 2.8e-22, 0.35, 16.0425, 9.8),
    "H2O": (0.35, 1.6e-24, 0.35, 18.0153, 0.0),
    "HDO": (0.8, 5e-22, 0.6, 19.0168, 0.0),
    "unknown": (2.5, 1e-20, 0.8, 44.0, 0.0),
}
_BIN = 8.0  # cm-1; each bin has a seed of its own, so every window sees the same lines


def pseudo_lines(gas: str, low: float, high: float) -> Lines:
    """Made-up lines of CH4, H2O, HDO or of an unknown gas between two wavenumbers; the same for every window."""
    if gas not in _PSEUDO:
        raise UnknownNameError(f"There are no pseudo-lines of {gas!r}. {nearest(gas, _PSEUDO)}")
    density, strength, shape, mass, spacing = _PSEUDO[gas]
    found = []
    for number in range(int(low // _BIN) - 1, int(high // _BIN) + 2):
        random = np.random.default_rng([list(_PSEUDO).index(gas), number])
        count = random.poisson(density * _BIN)
        at = (number + random.random(count)) * _BIN
        if spacing:  # lines of a spherical top stand together, manifold by manifold
            centre = (np.floor(at / spacing) + 0.5) * spacing
            at = np.where(random.random(count) < 0.65, centre + 0.25 * (at - centre), at)
        power = strength * random.gamma(shape, 1 / shape, count)
        energy = random.uniform(50, 900, count)
        found.append(np.stack([at, power, energy, random.uniform(0.05, 0.08, count)]))
    position, power, energy, width = np.concatenate(found, axis=1)
    keep = (position >= low) & (position <= high)
    return Lines(position[keep], power[keep], energy[keep], width[keep], mass)


def lines(gas: str, low: float, high: float) -> Lines:
    """The lines of a gas between two wavenumbers (cm-1)."""
    if gas != "CO":
        return pseudo_lines(gas, low, high)
    every = [co_lines(upper) for upper in _CO_BANDS]
    position, strength, energy, width = (
        np.concatenate([getattr(band, name) for band in every])
        for name in ("position", "strength", "lower_energy", "width")
    )
    keep = (position >= low) & (position <= high)
    return Lines(position[keep], strength[keep], energy[keep], width[keep], every[0].mass, linear=True)


# Shapes ------------------------------------------------------------------------------------------------------------


def doppler_deviation(position, temperature: float, mass: float):
    """Standard deviation (cm-1) of the Doppler broadened line: nu sqrt(kT / m c^2)."""
    return position * np.sqrt(BOLTZMANN * temperature * AVOGADRO / (mass * 1e-3)) / (LIGHT * 1e-2)


def lorentz(x, half_width):
    """The Lorentz line of unit area."""
    return half_width / np.pi / (np.square(x) + half_width**2)


def voigt(x, deviation, half_width):
    """The Voigt line of unit area: Doppler standard deviation, Lorentz half width."""
    from scipy import special

    return special.voigt_profile(x, deviation, half_width)


def cross_section(of: Lines, wavenumber: np.ndarray, pressure: float, temperature: float) -> np.ndarray:
    """Absorption cross-section (cm2 per molecule) on rising wavenumbers (cm-1), at a pressure in hPa and a temperature in K.

    Beyond 60 Doppler deviations the Lorentz line stands for the Voigt line: less than 0.1 % of a wing.
    """
    wavenumber = np.asarray(wavenumber, float)
    total = np.zeros(wavenumber.shape)
    strength = of.strength_at(temperature)
    deviation = doppler_deviation(of.position, temperature, of.mass)
    half = of.width * pressure / ATMOSPHERE_HPA * (REFERENCE / temperature) ** of.exponent
    near = np.searchsorted(wavenumber, [of.position - 60 * deviation, of.position + 60 * deviation])
    for k, position in enumerate(of.position):
        first, last = near[:, k]
        line = lorentz(wavenumber - position, half[k])
        line[first:last] = voigt(wavenumber[first:last] - position, deviation[k], half[k])
        total += strength[k] * line
    return total


# A layered atmosphere ----------------------------------------------------------------------------------------------


def layers(number: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pressure (hPa), temperature (K) and height (km) in the middle of layers of equal mass, from the ground up."""
    pressure = ATMOSPHERE_HPA * (1 - (np.arange(number) + 0.5) / number)
    # Base height (km), base temperature (K), lapse rate (K/km) and base pressure (hPa) of the standard atmosphere.
    bases = ((0.0, 288.15, -6.5, 1013.25), (11.0, 216.65, 0.0, 226.321), (20.0, 216.65, 1.0, 54.7489))
    constant = 34.163195  # K/km, g M / R
    temperature, height = np.empty(number), np.empty(number)
    for base, start, lapse, under in bases:
        here = pressure <= under
        if lapse:
            temperature[here] = start * (pressure[here] / under) ** (-lapse / constant)
            height[here] = base + (temperature[here] - start) / lapse
        else:
            temperature[here] = start
            height[here] = base - start / constant * np.log(pressure[here] / under)
    return pressure, temperature, height


def profile(gas: str, number: int = 8) -> np.ndarray:
    """The share of a gas's column in each of the `layers`: water thins out with a scale of 2 km, others are well mixed."""
    height = layers(number)[2]
    share = np.exp(-height / 2.0) if gas in ("H2O", "HDO") else np.ones(number)
    return share / share.sum()


@lru_cache(maxsize=32)
def layer_cross_sections(gas: str, low: float, high: float, warmer: float = 0.0) -> np.ndarray:
    """Cross-sections (cm2 per molecule) of a gas in each of the `layers` on `wavenumbers(low, high)`."""
    grid, of = wavenumbers(low, high), lines(gas, low - 15, high + 15)
    pressure, temperature, _ = layers()
    found = np.stack([cross_section(of, grid, p, t + warmer) for p, t in zip(pressure, temperature, strict=True)])
    found.setflags(write=False)
    return found


def column_cross_section(gas: str, low: float, high: float, warmer: float = 0.0) -> np.ndarray:
    """Cross-section (cm2 per molecule) of a gas's column on `wavenumbers(low, high)`: that of its layers, by its profile."""
    return profile(gas) @ layer_cross_sections(gas, low, high, warmer)


FINE = 0.006  # cm-1: resolves the narrowest lines of the topmost layer


def wavenumbers(low: float, high: float) -> np.ndarray:
    """The fine grid between two wavenumbers (cm-1)."""
    return low + FINE * np.arange(round((high - low) / FINE) + 1)


# The instrument ----------------------------------------------------------------------------------------------------


def response(wavenumber: np.ndarray, wavelength: np.ndarray, fwhm: float):
    """A sparse matrix from spectra per nm on fine wavenumbers to what channels see at wavelengths (nm).

    The instrument's response is a Gaussian in wavelength with a full width at half maximum `fwhm` (nm) and unit area.
    """
    from scipy import sparse

    deviation = fwhm / np.sqrt(8 * np.log(2))
    fine = 1e7 / wavenumber  # falls
    first = np.searchsorted(wavenumber, 1e7 / (wavelength + 5 * deviation))
    last = np.searchsorted(wavenumber, 1e7 / (wavelength - 5 * deviation))
    if (first == 0).any() or (last == wavenumber.size).any():
        raise ParameterError(
            "The fine grid does not reach beyond the instrument's response at the first or last channel."
        )
    count = last - first
    start = np.r_[0, np.cumsum(count)]
    column = np.arange(start[-1]) - np.repeat(start[:-1] - first, count)
    x = (fine[column] - np.repeat(wavelength, count)) / deviation
    weight = np.exp(-0.5 * x**2) * fine[column] ** 2  # d wavelength = wavelength^2 d wavenumber
    weight /= np.repeat(np.add.reduceat(weight, start[:-1]), count)
    return sparse.csr_matrix((weight, column, start), shape=(wavelength.size, wavenumber.size))


def fine_window(low: float, high: float, fwhm: float) -> tuple[float, float]:
    """Wavenumbers that hold all channels between two wavelengths (nm) with their response."""
    margin = 4 * fwhm
    return np.floor(1e7 / (high + margin) * 10) / 10, np.ceil(1e7 / (low - margin) * 10) / 10


def dictionary(
    gases: Iterable[str],
    wavelength: np.ndarray,
    fwhm: float,
    *,
    air_mass: float = 2.5,
    tables: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    columns: Mapping[str, float] | None = None,
    artefacts: Iterable[str] = ARTEFACTS,
) -> dict[str, np.ndarray]:
    """The responses d ln R / d a of a clear standard atmosphere at wavelengths (nm; any shape, one row per grid).

    R is seen through a response of `fwhm` (nm), at an `air_mass` (slant over vertical column; 1/cos of both zenith angles).
    `tables` gives a gas the user's own cross-section: name -> (wavelength nm rising, cm2 per molecule); `columns` the column
    that counts as one (molecules cm-2). What the user gives is taken as fine as it stands.

    With E the response and T = exp(-M sum N sigma) the transmission, gas g answers with -M N_g E(T sigma_g) / E(T); a shift
    and a stretch with the derivative of ln E(T) by wavelength, which is negative where the spectrum falls; an offset of the
    share a of the continuum with 1 / E(T), and a slope with the place in the window from -1 to 1.
    """
    from scipy import interpolate

    tables = dict(tables or {})
    columns = {**COLUMNS, **(columns or {})}
    gases, artefacts = list(gases), list(artefacts)
    for name in gases:
        if name not in tables and name not in COLUMNS:
            raise UnknownNameError(
                f"No lines of {name!r} are known here: give its cross-section in tables. {nearest(name, COLUMNS)}"
            )
        if name not in columns:
            raise ParameterError(
                f"The column of {name!r} that counts as one is missing: give it in columns, in molecules cm-2."
            )
    for name in artefacts:
        if name not in ARTEFACTS:
            raise UnknownNameError(f"There is no response {name!r}. {nearest(name, ARTEFACTS)}")
    wavelength = np.asarray(wavelength, float)
    if not np.isfinite(wavelength).all() or wavelength.size < 2 or wavelength.min() <= 0:
        raise ParameterError("Wavelengths are at least two positive numbers in nm.")

    low, high = fine_window(wavelength.min(), wavelength.max(), fwhm)
    grid = wavenumbers(low, high)
    fine = 1e7 / grid
    sections = {}
    for name in dict.fromkeys([*(g for g in COLUMNS), *gases]):
        if name in tables:
            x, y = (np.asarray(v, float) for v in tables[name])
            if x.ndim != 1 or x.shape != y.shape or x.size < 2 or (np.diff(x) <= 0).any():
                raise ParameterError(
                    f"The table of {name!r} needs rising wavelengths and as many cross-sections, "
                    f"got shapes {x.shape} and {y.shape}."
                )
            if x[0] > wavelength.min() or x[-1] < wavelength.max():
                raise ParameterError(
                    f"The table of {name!r} covers {x[0]:g} to {x[-1]:g} nm, "
                    f"but {wavelength.min():g} to {wavelength.max():g} nm are needed."
                )
            sections[name] = np.interp(fine, x, y)
        else:
            sections[name] = column_cross_section(name, low, high)
    depth = air_mass * sum(columns[g] * sections[g] for g in COLUMNS)
    through = np.exp(-depth)

    # On a grid of a sixth of the response everything that it lets pass is held, and a cubic reads it off.
    margin = 1.2 * fwhm
    middle = np.arange(wavelength.min() - margin, wavelength.max() + margin + fwhm / 6, fwhm / 6)
    see = response(grid, middle, fwhm)
    seen = see @ through
    logarithm = interpolate.CubicSpline(middle, np.log(seen))
    centre, half = 0.5 * (wavelength.min() + wavelength.max()), 0.5 * np.ptp(wavelength)
    place = (wavelength - centre) / half
    answers = {}
    for name in gases:
        answer = -air_mass * columns[name] * (see @ (through * sections[name])) / seen
        answers[name] = interpolate.CubicSpline(middle, answer)(wavelength)
    for name in artefacts:
        if name == "offset":
            answers[name] = np.exp(-logarithm(wavelength))
        elif name == "slope":
            answers[name] = place
        else:
            answers[name] = logarithm(wavelength, 1) * (place if name == "stretch" else 1.0)
    return answers
