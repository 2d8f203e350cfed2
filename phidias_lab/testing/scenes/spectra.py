"""Synthetic spectra of satellites, in the structure of level-1B files, with a known truth.

Nothing here is measured. What a pixel holds (albedo, gases, clouds, paths of light) is drawn from fields that are smooth on
the sphere, so neighbouring granules fit, also across the date line and the poles; what the instrument adds (noise, dead and
flickering channels, stripes, spikes) is drawn per scanline. Everything follows from the seed and the number of the scanline,
never from how a granule is cut: the same lines come out alike, byte for byte, in blocks of any length.

**Physics.** A sunlit spectrum is two beams, one to the ground and one to a cloud that covers a part c of the pixel,

    R = (1 - c) A_s T(s) + c A_c T(s above the cloud),        I = R cos(sza) E / (pi d^2),

with T = <E exp(-sum s sigma)> / <E>, <> the instrument's response applied on a fine grid, E the sun with its lines and s the
slant columns of CO, CH4, H2O, HDO (and of an unknown gas in a plume). CO is computed from spectroscopic constants, the other
gases are pseudo-lines (`methods.spectroscopy`). An instrument that sees heat (IASI-like) has instead

    I = B(T_s) <t_0> + sum over layers B(T_l) <t_above - t_below>

for each beam. ln T is computed line by line at some thousand places of its parameters and then, for each row of the detector
on its own wavelengths, written as a Chebyshev polynomial in the roots of the slant columns (a few 1e-4, rms), which is what
makes 20 000 spectra per second and core possible.

**Variability.** The mixing ratio of CO has a standard deviation of 15 %, a quarter of its variance goes with the sine of
latitude; CH4 2 %; water is log-normal (50 %) and follows latitude and altitude, HDO follows water.

**Noise.** Its variance is that of reading plus that of photons: with L0 the radiance of a dark pixel (reflectance 0.05
under a sun at 60 degrees), sigma^2 = (L0 / SNR)^2 (r + (1 - r) L / L0), r the share of reading in a dark pixel.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import xarray as xr

from phidias_lab.errors import ParameterError, UnknownNameError, nearest
from phidias_lab.methods import spectroscopy
from phidias_lab.methods.coastlines import is_land
from phidias_lab.methods.formats import l1b

EARTH_RADIUS = 6371.0088  # km, mean radius (Moritz 2000, Journal of Geodesy 74)
EARTH_GM = 398600.4418  # km3 s-2 (IERS conventions 2010)
ASTRONOMICAL_UNIT, SUN_RADIUS, SUN_TEMPERATURE = 1.495978707e11, 6.957e8, 5772.0  # m, m, K (IAU 2012, 2015)
PLANCK, LIGHT = 6.62607015e-34, 2.99792458e8
#: Scanlines are counted from here, where the satellite crosses the equator northwards.
EPOCH = np.datetime64("2018-05-01T00:00:00", "ns")
TILE = 32  # scanlines computed at a time, at multiples of it since the epoch

# Instruments -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instrument:
    """An imaging spectrometer on a sun-synchronous orbit; sizes may be replaced (`dataclasses.replace`)."""

    name: str
    band: str
    channels: int
    first: float  # nm
    last: float
    fwhm: float  # nm, of the Gaussian response
    rows: int
    smile: float = 0.05  # nm, from the middle row (-) to the outer ones (+)
    snr: float = 100.0  # of a dark pixel
    reading: float = 0.3  # share of reading in the noise variance of a dark pixel
    line_time: float = 0.840  # s
    thermal: bool = False  # heat of the Earth, channels even in wavenumber, no irradiance
    swath: float = 2600.0  # km
    dead: float = 0.01  # share of channels per row
    flickering: float = 0.003  # share of channels per row (RTS)
    stripes: float = 0.002  # relative gain error per row and channel
    altitude: float = 824.0  # km
    inclination: float = 98.7  # degrees
    local_time: float = 13.5  # h, at the ascending node

    def __post_init__(self):
        if self.channels < 2 or self.rows < 1 or not 0 < self.first < self.last or self.fwhm <= 0:
            raise ParameterError(
                f"An instrument needs at least 2 channels, 1 row, rising wavelengths and a positive width, "
                f"got {self.channels} channels, {self.rows} rows, {self.first:g} to {self.last:g} nm, {self.fwhm:g} nm."
            )

    @property
    def line_ns(self) -> int:
        return round(self.line_time * 1e9)

    @property
    def period(self) -> float:
        """Of one orbit, s (Kepler)."""
        return 2 * math.pi * math.sqrt((EARTH_RADIUS + self.altitude) ** 3 / EARTH_GM)

    @property
    def units(self) -> str:
        return "W m-2 sr-1 nm-1" if self.thermal else "mol m-2 s-1 nm-1 sr-1"

    def wavelengths(self) -> np.ndarray:
        """Wavelengths (rows, channels) in nm: those of the middle row are the lowest of each channel (smile)."""
        if self.thermal:
            grid = 1e7 / np.linspace(1e7 / self.first, 1e7 / self.last, self.channels)
        else:
            grid = np.linspace(self.first, self.last, self.channels)
        across = np.zeros(1) if self.rows == 1 else np.linspace(-1, 1, self.rows)
        return grid + self.smile * (2 * across[:, None] ** 2 - 1)

    def random(self, purpose: str) -> np.random.Generator:
        """Random numbers that belong to the instrument, not to a scene."""
        return np.random.default_rng(zlib.crc32(f"{self.name} {self.band} {purpose}".encode()))


TROPOMI_BAND_7 = Instrument("TROPOMI", "7", channels=480, first=2305.0, last=2343.0, fwhm=0.25, rows=215)
TROPOMI_BAND_8 = Instrument("TROPOMI", "8", channels=480, first=2342.0, last=2385.0, fwhm=0.25, rows=215)
#: Like the short-wave infrared channel SWIR-3 of Sentinel-5 UVNS, other sizes than TROPOMI.
UVNS_LIKE = Instrument(
    "UVNS-like", "SWIR3", channels=640, first=2305.0, last=2385.0, fwhm=0.28, rows=130, smile=0.03, snr=120.0
)
#: Like IASI around the lines of CO at 2143 to 2181 cm-1: heat, 0.25 cm-1 apart, one grid for all rows.
IASI_LIKE = Instrument(
    "IASI-like", "CO", channels=153, first=1e7 / 2181.0, last=1e7 / 2143.0, fwhm=1.07, rows=120, smile=0.0, snr=125.0,
    reading=1.0, line_time=4.0, thermal=True, swath=2200.0, dead=0.0, flickering=0.0, stripes=0.0, altitude=817.0,
    local_time=21.5,
)  # fmt: skip
INSTRUMENTS = {
    "tropomi_7": TROPOMI_BAND_7,
    "tropomi_8": TROPOMI_BAND_8,
    "uvns_like": UVNS_LIKE,
    "iasi_like": IASI_LIKE,
}

# Events ------------------------------------------------------------------------------------------------------------

#: What an event of a kind changes: a gas, or a continuum of hot light.
KINDS = {"fire": "CO", "leak": "CH4", "unknown": "unknown", "flare": "flare"}
CHANGES = ("CO", "CH4", "unknown", "flare")
UNKNOWN_COLUMN = 1e18  # molecules cm-2 that count as one column of the unknown gas
FLARE_TEMPERATURE = 1500.0  # K


@dataclass(frozen=True)
class Event:
    """Something unusual at a known place.

    `strength` is the largest enhancement of the vertical column in standard columns, or, for a flare, the added radiance in
    that of a dark pixel. A plume starts at the place and goes `length` km towards `direction` (degrees from north, to the
    east), its width grows to `width` km (standard deviation); a flare is a spot of `width` km.
    """

    name: str
    kind: str
    longitude: float
    latitude: float
    strength: float
    length: float = 150.0
    width: float = 20.0
    direction: float = 90.0
    start: np.datetime64 | None = None
    stop: np.datetime64 | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UnknownNameError(f"There is no event of kind {self.kind!r}. {nearest(self.kind, KINDS)}")

    @property
    def changes(self) -> str:
        return KINDS[self.kind]

    def puffs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centres (n, 3) on the unit sphere, widths (km) and heights of the Gaussian puffs that make the plume."""
        if self.kind == "flare":
            return _unit(np.array([self.longitude]), np.array([self.latitude])), np.array([self.width]), np.ones(1)
        count = max(2, math.ceil(3 * self.length / self.width))
        along = (np.arange(count) + 0.5) / count
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        sway = 0.15 * np.cumsum(random.standard_normal(count)) / math.sqrt(count)
        bearing = np.radians(self.direction) + sway
        distance = along * self.length / EARTH_RADIUS
        lat0, lon0 = math.radians(self.latitude), math.radians(self.longitude)
        sine = np.sin(lat0) * np.cos(distance) + np.cos(lat0) * np.sin(distance) * np.cos(bearing)
        lon = lon0 + np.arctan2(
            np.sin(bearing) * np.sin(distance) * np.cos(lat0), np.cos(distance) - np.sin(lat0) * sine
        )
        width = self.width * np.sqrt(0.1 + 0.9 * along)
        return _unit(np.degrees(lon), np.degrees(np.arcsin(sine))), width, 1 / np.sqrt(0.1 + 0.9 * along)

    def at(self, places: np.ndarray) -> np.ndarray:
        """The enhancement at places on the unit sphere (..., 3): the sum of the puffs, `strength` at its highest puff."""
        centres, width, height = self.puffs()

        def total(p):
            squared = (2 - 2 * p @ centres.T) * EARTH_RADIUS**2
            return (np.exp(-0.5 * squared / width**2) * height).sum(-1)

        found = np.zeros(places.shape[:-1])
        reach = (self.length + 7 * self.width) / EARTH_RADIUS
        near = places @ _unit(self.longitude, self.latitude) > math.cos(min(reach, math.pi))
        if near.any():
            found[near] = self.strength * total(places[near]) / total(centres).max()
        return found


def _unit(longitude, latitude) -> np.ndarray:
    lon, lat = np.radians(longitude), np.radians(latitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon], -1)


def _degrees(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.degrees(np.arctan2(places[..., 1], places[..., 0])),
        np.degrees(np.arcsin(np.clip(places[..., 2], -1, 1))),
    )


# Sun and orbit -----------------------------------------------------------------------------------------------------


def sun(time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Longitude and latitude (degrees) where the sun stands in the zenith, and its distance (astronomical units).

    Low-precision formulas of the Astronomical Almanac (section C, "Low precision formulas for the Sun"): 0.01 degrees.
    """
    days = (np.asarray(time, "datetime64[ns]") - np.datetime64("2000-01-01T12:00", "ns")) / np.timedelta64(1, "D")
    anomaly = np.radians(357.528 + 0.9856003 * days)
    ecliptic = np.radians(280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 4e-7 * days)
    ascension = np.degrees(np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic)))
    sidereal = 280.46062 + 360.98564737 * days
    longitude = np.mod(ascension - sidereal + 180, 360) - 180
    latitude = np.degrees(np.arcsin(np.sin(tilt) * np.sin(ecliptic)))
    return longitude, latitude, 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)


def _track(of: Instrument, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors to the satellite and along the orbit's normal (left of the motion), at scanlines since the epoch."""
    seconds = line * (of.line_ns * 1e-9)
    phase = 2 * np.pi * np.mod(seconds / of.period, 1.0)
    tilt = math.radians(of.inclination)
    # A sun-synchronous plane stands still against the mean sun, which goes round the Earth once a day.
    node = np.radians(np.mod((of.local_time - 12) * 15 + 180 - 360 * seconds / 86400, 360))
    cosine, sine = np.cos(node), np.sin(node)
    x, y, z = np.cos(phase), np.sin(phase) * math.cos(tilt), np.sin(phase) * math.sin(tilt)
    place = np.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1)
    normal = np.stack([sine * math.sin(tilt), -cosine * math.sin(tilt), np.full_like(x, math.cos(tilt))], -1)
    return place, normal


def _angles(of: Instrument, edges: bool) -> np.ndarray:
    """Angles from nadir to the rows, seen from the centre of the Earth (rad), left to right: even steps of view."""
    radius = EARTH_RADIUS + of.altitude
    half = of.swath / 2 / EARTH_RADIUS
    widest = math.atan2(EARTH_RADIUS * math.sin(half), radius - EARTH_RADIUS * math.cos(half))
    step = np.linspace(widest, -widest, of.rows + 1)
    view = step if edges else 0.5 * (step[1:] + step[:-1])
    return np.arcsin(radius / EARTH_RADIUS * np.sin(view)) - view


def _places(of: Instrument, line: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Unit vectors (lines, angles, 3) to the ground."""
    place, normal = _track(of, line)
    return place[:, None] * np.cos(angle)[None, :, None] + normal[:, None] * np.sin(angle)[None, :, None]


def _azimuth(place: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Direction (degrees from north, eastwards, -180 to 180) at a place to another unit vector."""
    east = np.stack([-place[..., 1], place[..., 0], np.zeros(place.shape[:-1])], -1)
    north = np.stack(
        [-place[..., 0] * place[..., 2], -place[..., 1] * place[..., 2], place[..., 0] ** 2 + place[..., 1] ** 2], -1
    )
    return np.degrees(np.arctan2((other * east).sum(-1), (other * north).sum(-1)))


PIXEL_FLAGS, CHANNEL_FLAGS = l1b.GROUND_PIXEL_QUALITY.bits, l1b.CHANNEL_QUALITY.bits
GLINT = 30.0  # degrees around the mirror image of the sun
#: The South Atlantic anomaly: corners (longitude, latitude) of a polygon.
ANOMALY = ((-85.0, -10.0), (-40.0, -2.0), (0.0, -20.0), (15.0, -35.0), (-10.0, -50.0), (-60.0, -48.0), (-85.0, -30.0))


def in_anomaly(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Whether places lie in the polygon of the South Atlantic anomaly (even-odd rule)."""
    inside = np.zeros(np.shape(longitude), bool)
    for (x0, y0), (x1, y1) in zip(ANOMALY, ANOMALY[1:] + ANOMALY[:1], strict=True):
        if y0 != y1:
            crosses = (y0 > latitude) != (y1 > latitude)
            inside ^= crosses & (longitude < x0 + (x1 - x0) * (latitude - y0) / (y1 - y0))
    return inside


@lru_cache(maxsize=1)
def _land_grid() -> np.ndarray:
    """Land on cells of a quarter of a degree."""
    lon, lat = np.meshgrid(np.arange(-180, 180, 0.25) + 0.125, np.arange(-90, 90, 0.25) + 0.125)
    return is_land(lon, lat, "110m")


# Fields on the sphere ----------------------------------------------------------------------------------------------

_WAVES = {"ground": 128, "air": 160}
#: Each field: which waves, and the exponent of its amplitude over wavelength (0.3 is rough, 1.2 smooth).
_FIELDS = {
    "albedo": ("ground", 0.45), "slope": ("ground", 0.6), "height": ("ground", 0.7), "contrast": ("ground", 0.1),
    "CO": ("air", 0.7), "CH4": ("air", 0.7), "H2O": ("air", 0.7), "HDO": ("air", 0.7), "temperature": ("air", 1.0),
    "path": ("air", 0.5), "cloud": ("air", 0.33), "cloud_top": ("air", 0.5),
}  # fmt: skip


class Fields:
    """Gaussian fields of zero mean and unit variance on the sphere: sums of plane waves in space, fractal in length.

    Waves of the air are 40 to 4000 km long and change within days; those of the ground stay.
    """

    def __init__(self, seed: int):
        self._waves = {}
        for number, (name, count) in enumerate(_WAVES.items()):
            random = np.random.default_rng([seed, number])
            length = 40.0 * 100 ** ((np.arange(count) + random.random(count)) / count)
            direction = random.standard_normal((3, count))
            direction *= 2 * np.pi * EARTH_RADIUS / length / np.linalg.norm(direction, axis=0)
            phase = 2 * np.pi * random.random(count)
            # A wave of 2000 km turns once in five days, a shorter one faster: (length)^(2/3), as eddies of turbulence do.
            rate = 2 * np.pi / 5 / (length / 2000) ** (2 / 3) if name == "air" else np.zeros(count)
            mine = [f for f, (waves, _) in _FIELDS.items() if waves == name]
            weight = random.standard_normal((count, len(mine)))
            weight *= length[:, None] ** np.array([_FIELDS[f][1] for f in mine])
            weight *= np.sqrt(2 / np.square(weight).sum(0))
            self._waves[name] = mine, direction, phase, rate, weight.astype(np.float32)

    def at(self, places: np.ndarray, days: np.ndarray) -> dict[str, np.ndarray]:
        """All fields at unit vectors (lines, rows, 3), `days` (lines) after the epoch."""
        found = {}
        for mine, direction, phase, rate, weight in self._waves.values():
            angle = places @ direction + (phase + rate * days[:, None])[:, None]
            angle -= 2 * np.pi * np.round(angle / (2 * np.pi))
            values = np.cos(angle.astype(np.float32)) @ weight
            found |= {name: values[..., k] for k, name in enumerate(mine)}
        return found


@lru_cache(maxsize=4)
def _fields(seed: int) -> Fields:
    return Fields(seed)


# Spectra as polynomials --------------------------------------------------------------------------------------------


def planck(wavelength: np.ndarray, temperature) -> np.ndarray:
    """Radiance of a black body, W m-2 sr-1 nm-1, at wavelengths in nm."""
    metres = np.asarray(wavelength, float) * 1e-9
    return 2 * PLANCK * LIGHT**2 / metres**5 / np.expm1(spectroscopy.C2 * 1e-2 / (metres * temperature)) * 1e-9


def _solar(wavenumber: np.ndarray) -> np.ndarray:
    """Irradiance at one astronomical unit, mol m-2 s-1 nm-1: a black body with made-up lines (pseudo, as those of gases)."""
    wavelength = 1e7 / wavenumber
    power = np.pi * planck(wavelength, SUN_TEMPERATURE) * (SUN_RADIUS / ASTRONOMICAL_UNIT) ** 2
    moles = power * wavelength * 1e-9 / (PLANCK * LIGHT * spectroscopy.AVOGADRO)
    depth = np.zeros_like(wavenumber)
    for number in range(int(wavenumber[0] // 10), int(wavenumber[-1] // 10) + 1):
        random = np.random.default_rng([10, number])
        for at, deep in zip(10 * (number + random.random(4)), 0.12 * random.gamma(0.5, 1, 4), strict=True):
            depth += deep * np.exp(-0.5 * ((wavenumber - at) / 0.12) ** 2)
    return moles * np.exp(-depth)


#: Parameters of a spectrum: how far they reach, and how much a degree of each costs in the polynomial.
_REACH = {"CO": 30.0, "CH4": 14.0, "H2O": 24.0, "HDO": 24.0, "unknown": 30.0}  # slant, in standard columns
_HEAT_REACH = 0.4  # of these: heat goes through the air once
_HEAT_COST = {"CO": 1.0, "CH4": 2.0}  # where CO has its strong lines
_WARMER, _SHIFT = 15.0, 0.01  # K either way, nm either way
_COST = {"CO": 2.0, "CH4": 1.0, "H2O": 1.0, "HDO": 1.5, "unknown": 2.0, "warmer": 2.5, "shift": 3.0}
_DEGREE, _CURVE = 9.0, 0.7  # the largest (sum (cost e)^0.7)^(1/0.7): high alone, low together
_PLACES = 1024  # where spectra are computed line by line, six times the number of terms


class Spectra:
    """ln of what channels see, over the source: the sun, or a black body of 280 K; a function of a pixel's state.

    A thermal spectrum is made of two polynomials, ln of the transmission of the air and the air's own light.
    """

    def __init__(self, of: Instrument):
        from scipy import interpolate
        from scipy.stats import qmc

        self.instrument = of
        self._reach = {gas: reach * (_HEAT_REACH if of.thermal else 1) for gas, reach in _REACH.items()}
        self.wavelength = of.wavelengths()
        low, high = spectroscopy.fine_window(
            self.wavelength.min() - of.fwhm, self.wavelength.max() + 1.4 * of.fwhm, of.fwhm
        )
        grid = self.grid = spectroscopy.wavenumbers(low, high)
        self.middle = np.arange(self.wavelength.min() - of.fwhm, self.wavelength.max() + 1.2 * of.fwhm, of.fwhm / 6)
        self.see = spectroscopy.response(grid, self.middle, of.fwhm)
        self.source = np.ones_like(grid) if of.thermal else _solar(grid)
        self._columns = {**spectroscopy.COLUMNS, "unknown": UNKNOWN_COLUMN}
        self._band = {"unknown": np.exp(-0.5 * ((grid - grid.mean()) / (0.08 * np.ptp(grid))) ** 2)}
        cost = np.array(list((_COST | (_HEAT_COST if of.thermal else {})).values()))
        every = np.indices((_DEGREE / cost).astype(int) + 1).reshape(len(cost), -1)
        dear = ((every * cost[:, None]) ** _CURVE).sum(0) ** (1 / _CURVE)
        self._terms = [tuple(e) for e in every.T[dear <= _DEGREE + 1e-9].tolist()]
        x = 2 * qmc.Sobol(len(_COST), seed=1).random(_PLACES) - 1
        batches = [self.exact(x[k : k + 64], self.middle) for k in range(0, _PLACES, 64)]
        powers = [np.polynomial.chebyshev.chebvander(column, 12) for column in x.T]
        design = np.prod([p[:, [e[k] for e in self._terms]] for k, p in enumerate(powers)], axis=0)
        self._coefficients = []
        for values in zip(*batches, strict=True):
            fit = np.linalg.lstsq(design, np.concatenate(values), rcond=None)[0]
            read = interpolate.CubicSpline(self.middle, fit.T)
            self._coefficients.append(np.stack([read(row).T for row in self.wavelength]).astype(np.float32))

    def exact(self, x: np.ndarray, wavelength: np.ndarray) -> list[np.ndarray]:
        """Line by line: what the polynomials stand for, at scaled parameters (n, names) in -1..1 and wavelengths in nm."""
        from scipy import interpolate

        of = self.instrument
        slant = {g: reach * (0.5 * (x[:, k] + 1)) ** 2 for k, (g, reach) in enumerate(self._reach.items())}
        warmer, shift = x[:, -2], _SHIFT * x[:, -1]
        # Three temperatures, and the parabola through them, for the strengths of the lines.
        through = np.stack([warmer * (warmer - 1) / 2, 1 - warmer**2, warmer * (warmer + 1) / 2], -1)
        depth = 0.0
        for gas, column in self._columns.items():
            sections = np.stack([self._section(gas, warm) for warm in (-_WARMER, 0.0, _WARMER)])
            mixed = np.tensordot(through, sections, 1)  # (n, layers, grid); one layer where only the whole counts
            depth = depth + (slant[gas] * column)[:, None, None] * mixed
        leaving = np.cumsum(depth[:, ::-1], 1)[:, ::-1]  # from each layer's floor to space
        seen = np.stack([(self.see @ (self.source * np.exp(-part)).T).T for part in leaving.swapaxes(0, 1)], 1)
        lines = np.log(spectroscopy.response(self.grid, wavelength, of.fwhm) @ self.source)

        def moved(values):
            curves = (interpolate.CubicSpline(self.middle, v) for v in values)
            return np.stack([curve(wavelength + d) for curve, d in zip(curves, shift, strict=True)])

        found = [moved(np.log(seen[:, 0])) - lines]
        if of.thermal:
            # A black body's light is smooth within a response, so it comes out of the mean over it.
            temperature = spectroscopy.layers()[1] + _WARMER * warmer[:, None]
            above = np.concatenate([seen[:, 1:], np.ones_like(seen[:, :1])], 1)
            light = planck(self.middle, temperature[..., None]) / planck(self.middle, 280.0)
            found.append(moved((light * (above - seen)).sum(1)))
        return found

    def _section(self, gas: str, warmer: float) -> np.ndarray:
        layers = spectroscopy.layer_cross_sections(gas, self.grid[0], self.grid[-1], warmer)
        layers = layers * spectroscopy.profile(gas)[:, None] * self._band.get(gas, 1.0)
        return layers if self.instrument.thermal else layers.sum(0, keepdims=True)

    def scaled(self, state: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Scaled parameters in -1..1, each (lines, rows); what reaches too far is held at the end."""
        found = [2 * np.sqrt(np.clip(state[g] / reach, 0, 1)) - 1 for g, reach in self._reach.items()]
        return found + [np.clip(state[n] / reach, -1, 1) for n, reach in (("warmer", _WARMER), ("shift", _SHIFT))]

    def __call__(self, state: dict[str, np.ndarray], rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """ln (lines, rows, channels) in float32 of a state of arrays (lines, rows), for all rows or some."""
        powers = []
        for k, x in enumerate(self.scaled(state)):
            x = np.asarray(x, np.float32).T
            mine = [np.ones_like(x), x]
            for _ in range(2, max(e[k] for e in self._terms) + 1):
                mine.append(2 * x * mine[-1] - mine[-2])
            powers.append(mine)
        design = np.ones((len(self._terms), *powers[0][0].shape), np.float32)
        for row, exponents in zip(design, self._terms, strict=True):
            for k, e in enumerate(exponents):
                if e:
                    row *= powers[k][e]
        design = design.transpose(1, 2, 0)
        found = [np.matmul(design, c[rows]).transpose(1, 0, 2) for c in self._coefficients]
        if not self.instrument.thermal:
            return found[0]
        middle = self.wavelength.mean(0)
        ground = (planck(middle, state["surface"][..., None]) / planck(middle, 280.0)).astype(np.float32)
        return np.log(np.maximum(ground * np.exp(found[0]) + found[1], np.float32(1e-3)))


def spectra_of(of: Instrument) -> Spectra:
    """The spectra of an instrument; those that differ in their detectors or orbits alone share them."""
    return _spectra_of(of.channels, of.first, of.last, of.fwhm, of.rows, of.smile, of.thermal)


@lru_cache(maxsize=4)
def _spectra_of(channels, first, last, fwhm, rows, smile, thermal) -> Spectra:
    return Spectra(Instrument("", "", channels, first, last, fwhm, rows, smile=smile, thermal=thermal))


@lru_cache(maxsize=8)
def _irradiance(of: Instrument, offset: float) -> np.ndarray:
    """Solar irradiance (rows, channels) that the instrument sees at its wavelengths moved by an offset (nm)."""
    from scipy import interpolate

    made = spectra_of(of)
    return interpolate.CubicSpline(made.middle, made.see @ made.source)(made.wavelength + offset)


def dark_radiance(of: Instrument) -> np.ndarray:
    """Radiance (channels) of a dark pixel: reflectance 0.05 under a sun at 60 degrees, or a black body of 280 K."""
    middle = of.wavelengths().mean(0)
    if of.thermal:
        return planck(middle, 280.0)
    power = planck(middle, SUN_TEMPERATURE) * (SUN_RADIUS / ASTRONOMICAL_UNIT) ** 2
    return 0.05 * 0.5 * power * middle * 1e-9 / (PLANCK * LIGHT * spectroscopy.AVOGADRO)


# What a pixel holds ------------------------------------------------------------------------------------------------

CO_DEVIATION, CO_LATITUDE, CH4_DEVIATION, H2O_DEVIATION = 0.15, 0.5, 0.02, 0.5
MISSING_LINES = 0.002  # share of scanlines that were lost
SATURATION = 24.0  # radiance at which the detector is full, in that of a dark pixel
SPIKES, SPIKE_HEIGHT = (
    0.003,
    20.0,
)  # share of channels within the anomaly, mean height in standard deviations of the noise


def _air_mass(zenith: np.ndarray) -> np.ndarray:
    """Relative optical air mass at a zenith angle in degrees (Kasten and Young 1989, Applied Optics 28, 4735, eq. 3)."""
    z = np.clip(zenith, 0, 90)
    return 1 / (np.cos(np.radians(z)) + 0.50572 * (96.07995 - z) ** -1.6364)


def _geometry(of: Instrument, lines: np.ndarray, rows: np.ndarray | slice = slice(None)) -> dict[str, np.ndarray]:
    """Where scanlines (not always neighbours) are, and how they see the sun; all rows or some."""
    place, _ = _track(of, lines)
    centre = _places(of, lines, _angles(of, edges=False)[rows])
    time = EPOCH + lines * np.timedelta64(of.line_ns, "ns")
    below, above, distance = sun(time)
    light = _unit(below, above)[:, None]
    view = (EARTH_RADIUS + of.altitude) * place[:, None] - EARTH_RADIUS * centre
    view /= np.linalg.norm(view, axis=-1, keepdims=True)
    cosine = (centre * light).sum(-1)
    mirror = 2 * cosine[..., None] * centre - light
    longitude, latitude = _degrees(centre)
    lon, lat = _degrees(place)
    phase = np.mod(lines * (of.line_ns * 1e-9) / of.period, 1.0)
    return {
        "time": time,
        "centre": centre,
        "longitude": longitude,
        "latitude": latitude,
        "solar_zenith_angle": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        "solar_azimuth_angle": _azimuth(centre, light),
        "viewing_zenith_angle": np.degrees(np.arccos(np.clip((centre * view).sum(-1), -1, 1))),
        "viewing_azimuth_angle": _azimuth(centre, view),
        "glint": np.degrees(np.arccos(np.clip((mirror * view).sum(-1), -1, 1))),
        "descending": (phase > 0.25) & (phase < 0.75),
        "satellite_longitude": lon,
        "satellite_latitude": lat,
        "earth_sun_distance": distance,
        "light": np.ones(longitude.shape),
        "rows": rows,
    }


def _bounds(of: Instrument, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes (lines, rows, 4) of the corners of pixels of neighbouring scanlines.

    South-west, south-east, north-east, north-west while the satellite goes north; neighbours share theirs.
    """
    corner = _places(of, np.r_[lines - 0.5, lines[-1] + 0.5], _angles(of, edges=True))
    return _degrees(np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], 2))


def _is_land(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    column = np.minimum(((longitude + 180) * 4).astype(int), 1439)
    return _land_grid()[np.minimum(((latitude + 90) * 4).astype(int), 719), column]


def _state(of: Instrument, seed: int, geometry: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the pixels hold by nature: mixing of gases, slant columns, albedo, clouds."""
    days = (geometry["time"] - EPOCH) / np.timedelta64(1, "D")
    f = _fields(seed).at(geometry["centre"], days)
    lat = geometry["latitude"]
    land = _is_land(geometry["longitude"], lat)
    sine, warm = np.sin(np.radians(lat)), np.cos(np.radians(lat)) ** 2
    # The sine of the latitude is even from -1 to 1 on the sphere, so sqrt(3) times it has unit variance.
    mixing = CO_LATITUDE * math.sqrt(3) * sine + math.sqrt(1 - CO_LATITUDE**2) * f["CO"]
    co = np.clip(1 + CO_DEVIATION * mixing, 0.3, 2.0)
    pressure = 1 - 0.12 * np.clip(f["height"], 0, 2.5) * land
    water = (0.1 + 1.6 * warm) * np.exp(H2O_DEVIATION * f["H2O"] - 0.5 * H2O_DEVIATION**2) * pressure**4
    air_mass = _air_mass(geometry["viewing_zenith_angle"]) + (
        0 if of.thermal else _air_mass(geometry["solar_zenith_angle"])
    )
    ice = np.abs(lat) + 4 * f["albedo"] > 72
    albedo = np.where(land, 0.14 * np.exp(0.55 * f["albedo"]), 0.02 * np.exp(0.3 * f["albedo"]))
    albedo = np.where(ice, 0.04 * np.exp(0.2 * f["albedo"]), albedo)
    albedo += np.where(land | ice, 0, 0.4 * np.exp(-((geometry["glint"] / 12) ** 2)))
    cover = np.clip((f["cloud"] - 0.1) / 0.8, 0, 1)
    above = np.clip(0.65 + 0.2 * f["cloud_top"], 0.25, 0.95)
    warmer = 12 * (warm - 0.5) + 3 * f["temperature"]
    return {
        "land": land,
        "co_mixing": co,
        "column": {
            "CO": co * pressure,
            "CH4": (1 + CH4_DEVIATION * f["CH4"]) * pressure,
            "H2O": water,
            "HDO": water * (1 + 0.08 * np.log(water) + 0.02 * f["HDO"]),
            "unknown": np.zeros_like(co),
        },
        # What the gases would be on the mean, and how far from it they come by nature.
        "mean": {"CO": pressure, "CH4": pressure},
        "deviation": {"CO": CO_DEVIATION * pressure, "CH4": CH4_DEVIATION * pressure},
        "air_mass": np.minimum(air_mass * (1 + 0.03 * f["path"]), 10.0),
        "albedo": np.clip(albedo, 0.003, 0.7),
        "slope": np.where(land, 0.04, 0.0) + 0.03 * f["slope"],
        "cloud": cover,
        "cloud_albedo": 0.1 + 0.35 * cover,
        "above": above,
        "warmer": warmer,
        "shift": 0.002 * f["contrast"],
        "surface": 288 + 22 * (warm - 0.5) + np.where(land, 6, 2) * f["albedo"],
        "cloud_surface": 288 * above**0.19 + warmer,
    }


def _ideal(of: Instrument, geometry: dict, state: dict, flare: np.ndarray | float = 0.0) -> np.ndarray:
    """Radiances (lines, rows, channels), float32, before the detector adds anything."""
    made = spectra_of(of)
    single, rows = dark_radiance(of).astype(np.float32), geometry["rows"]
    slant = {gas: state["air_mass"] * column for gas, column in state["column"].items()}
    kept = {gas: state["above"] ** (4.0 if gas in ("H2O", "HDO") else 1.0) for gas in slant}
    common = {"warmer": state["warmer"], "shift": state["shift"]}
    ground = made({**slant, **common, "surface": state["surface"]}, rows)
    kept = {g: slant[g] * kept[g] for g in slant}
    cloud = made({**kept, **common, "surface": state["cloud_surface"]}, rows)
    cover = state["cloud"]
    added = None
    if np.any(flare):
        shape = planck(of.wavelengths().mean(0), FLARE_TEMPERATURE)
        added = np.asarray(flare * (1 - cover), np.float32)[..., None] * np.ones_like(single)
        if not of.thermal:  # it goes through the air once; what a thermal spectrum loses on the way is not kept apart
            way = _air_mass(geometry["viewing_zenith_angle"]) / state["air_mass"]
            added = added * np.exp(ground * way[..., None].astype(np.float32))
        added *= single * (shape / shape.mean()).astype(np.float32)
    np.exp(ground, out=ground)
    np.exp(cloud, out=cloud)
    if of.thermal:
        ground *= (1 - cover)[..., None].astype(np.float32)
        cloud *= cover[..., None].astype(np.float32)
        ground += cloud
        ground *= single
    else:
        light = np.maximum(np.cos(np.radians(geometry["solar_zenith_angle"])), 0) * geometry["light"]
        light = light / (np.pi * np.square(geometry["earth_sun_distance"])[:, None])
        x = np.linspace(-1, 1, of.channels, dtype=np.float32)
        bright = (light * (1 - cover) * state["albedo"])[..., None].astype(np.float32)
        ground *= bright + (bright[..., 0] * state["slope"].astype(np.float32))[..., None] * x
        cloud *= (light * cover * state["cloud_albedo"])[..., None].astype(np.float32)
        ground += cloud
        ground *= _irradiance(of, 0.0)[rows].astype(np.float32)
    if added is not None:
        ground += added
    return ground


# What the instrument adds ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Detector:
    dead: np.ndarray  # (rows, channels)
    flickering: np.ndarray
    known: np.ndarray  # flickering channels that are flagged
    slot: np.ndarray  # scanlines a flickering channel keeps its state
    gain: np.ndarray


@lru_cache(maxsize=8)
def _detector(of: Instrument) -> _Detector:
    random = of.random("detector")
    shape = (of.rows, of.channels)
    dead = random.random(shape) < of.dead
    flickering = (random.random(shape) < of.flickering) & ~dead
    known = flickering & (random.random(shape) < 0.8)
    slot = random.integers(5, 60, shape)
    gain = (1 + of.stripes * random.standard_normal(shape)).astype(np.float32)
    return _Detector(dead, flickering, known, slot, gain)


def _coin(*numbers: np.ndarray) -> np.ndarray:
    """Heads or tails from whole numbers: the mixing step of splitmix64 (Steele, Lea and Flood 2014, OOPSLA)."""
    x = np.uint64(0)
    for number in numbers:
        x = (x ^ np.asarray(number).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x & np.uint64(1)).astype(bool)


def noise_deviation(of: Instrument, radiance: np.ndarray) -> np.ndarray:
    """Standard deviation of the noise at radiances (..., channels)."""
    dark = dark_radiance(of).astype(np.float32)
    variance = np.maximum(radiance, 0) * ((1 - of.reading) / dark)
    variance += np.float32(of.reading)
    np.sqrt(variance, out=variance)
    variance *= dark / np.float32(of.snr)
    return variance


@dataclass(frozen=True)
class Scene:
    """A granule: an instrument's scanlines from a time on, what happens there, and a seed.

    `start` is rounded to the instrument's clock. `eclipse` is (longitude, latitude, km): where the moon's shadow lies.
    """

    instrument: Instrument
    start: np.datetime64
    scanlines: int
    seed: int = 0
    events: tuple[Event, ...] = ()
    eclipse: tuple[float, float, float] | None = None

    def __post_init__(self):
        if self.scanlines < 1:
            raise ParameterError(f"A scene has at least one scanline, got {self.scanlines}.")
        if np.datetime64(self.start) < EPOCH:
            raise ParameterError(f"Scenes begin on {EPOCH.astype('datetime64[D]')} or later, got {self.start}.")
        object.__setattr__(self, "start", EPOCH + self.first * np.timedelta64(self.instrument.line_ns, "ns"))
        object.__setattr__(self, "events", tuple(self.events))

    @property
    def first(self) -> int:
        """Number of the first scanline since the epoch."""
        since = (np.datetime64(self.start).astype("datetime64[ns]") - EPOCH).astype(np.int64)
        return round(int(since) / self.instrument.line_ns)

    @property
    def orbit(self) -> int:
        return int(self.first * self.instrument.line_ns * 1e-9 // self.instrument.period) + 1

    def next(self, scanlines: int | None = None) -> Scene:
        """The granule that follows."""
        step = self.scanlines * np.timedelta64(self.instrument.line_ns, "ns")
        return replace(self, start=self.start + step, scanlines=scanlines or self.scanlines)

    def place(self, scanline: int, ground_pixel: int) -> tuple[float, float]:
        """Longitude and latitude of a pixel."""
        found = _places(self.instrument, np.array([self.first + scanline]), _angles(self.instrument, edges=False))
        lon, lat = _degrees(found[0, ground_pixel])
        return float(lon), float(lat)

    def ground(self, first: int = 0, last: int | None = None) -> dict[str, np.ndarray]:
        """Time, place, angles and flags of scanlines first to last (without it)."""
        return self._joined(first, last, lambda lines: (self._ground(lines)[0],))[0]

    def block(self, first: int = 0, last: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What was measured and the truth, for scanlines first to last (without it)."""
        return self._joined(first, last, self._tile)

    def truth(self, first: int = 0, last: int | None = None) -> dict[str, np.ndarray]:
        """The truth alone, in half the time."""
        return self._joined(first, last, lambda lines: self._true(lines)[1:2])[0]

    def blocks(self, scanlines: int = 4 * TILE) -> Iterator[tuple[int, dict, dict]]:
        """The scene block by block: number of the first scanline, what was measured, the truth."""
        for first in range(0, self.scanlines, scanlines):
            yield first, *self.block(first, min(first + scanlines, self.scanlines))

    def _joined(self, first: int, last: int | None, make) -> tuple[dict[str, np.ndarray], ...]:
        last = self.scanlines if last is None else last
        if not 0 <= first < last <= self.scanlines:
            raise ParameterError(f"The scene has scanlines 0 to {self.scanlines}, asked for {first} to {last}.")
        low, high = self.first + first, self.first + last
        parts = []
        for tile in range(low // TILE, (high - 1) // TILE + 1):
            cut = slice(max(low - tile * TILE, 0), min(high - tile * TILE, TILE))
            made = make(tile * TILE + np.arange(TILE))
            parts.append([{name: values[cut] for name, values in each.items()} for each in made])
        return tuple(
            {n: np.concatenate([each[n] for each in every]) for n in every[0]} for every in zip(*parts, strict=True)
        )

    def _ground(self, lines: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        of = self.instrument
        geometry = _geometry(of, lines)
        eclipsed = np.zeros(geometry["latitude"].shape, bool)
        if self.eclipse is not None:
            lon, lat, size = self.eclipse
            far = np.arccos(np.clip(geometry["centre"] @ _unit(lon, lat), -1, 1)) * EARTH_RADIUS
            eclipsed = far < size
            geometry["light"] = np.where(eclipsed, np.clip(far / size, 0.02, 1), 1.0)
        longitudes, latitudes = _bounds(of, lines)
        flags = np.zeros(eclipsed.shape, np.uint8)
        for name, where in {
            "solar_eclipse": eclipsed,
            "sun_glint_possible": (geometry["glint"] < GLINT) & ~_is_land(geometry["longitude"], geometry["latitude"]),
            "descending": np.broadcast_to(geometry["descending"][:, None], flags.shape),
            "night": geometry["solar_zenith_angle"] > 90,
            "geo_boundary_crossing": np.ptp(longitudes, axis=-1) > 180,
        }.items():
            flags[where] |= PIXEL_FLAGS[name]
        found = {
            "time": geometry["time"],
            "earth_sun_distance": geometry["earth_sun_distance"],
            "ground_pixel_quality": flags,
            "latitude_bounds": latitudes.astype(np.float32),
            "longitude_bounds": longitudes.astype(np.float32),
        }
        for name in (
            "latitude", "longitude", "solar_zenith_angle", "solar_azimuth_angle", "viewing_zenith_angle",
            "viewing_azimuth_angle", "satellite_latitude", "satellite_longitude",
        ):  # fmt: skip
            found[name] = geometry[name].astype(np.float32)
        lost = np.array([self._random(line, "lost").random() < MISSING_LINES for line in lines])
        found["measurement_quality"] = lost.astype(np.uint16)
        return found, geometry

    def _random(self, line: int, purpose: str) -> np.random.Generator:
        of = self.instrument
        return np.random.Generator(
            np.random.SFC64([self.seed, zlib.crc32(f"{of.name} {of.band} {purpose}".encode()), int(line)])
        )

    def _enhanced(self, geometry: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What the events add in each pixel, and the number (from 1) of the event that adds most, 0 below a hundredth."""
        shape = geometry["latitude"].shape
        added = {name: np.zeros(shape) for name in CHANGES}
        event, largest = np.zeros(shape, np.int16), np.full(shape, 0.01)
        when = geometry["time"]
        for number, each in enumerate(self.events, 1):
            on = (when >= (each.start or when[0])) & (when <= (each.stop or when[-1]))
            mine = np.where(on[:, None], each.at(geometry["centre"]), 0.0)
            added[each.changes] += mine
            event[mine > largest] = number
            largest = np.maximum(largest, mine)
        return added, event

    def _true(self, lines: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict, np.ndarray]:
        """The ground, the truth, the geometry and the radiances before the detector."""
        of = self.instrument
        ground, geometry = self._ground(lines)
        state = _state(of, self.seed, geometry)
        natural = state["column"]["CO"]
        added, event = self._enhanced(geometry)
        state["column"] = {g: c + added.get(g, 0) for g, c in state["column"].items()}
        ideal = _ideal(of, geometry, state, added["flare"])
        truth = {
            "event": event,
            **{f"enhancement_{name}": values.astype(np.float32) for name, values in added.items()},
            "signal_to_noise": (ideal / noise_deviation(of, ideal)).mean(-1),
            "co_column": natural.astype(np.float32),
            "co_mixing": state["co_mixing"].astype(np.float32),
            "albedo": state["albedo"].astype(np.float32),
            "cloud_fraction": state["cloud"].astype(np.float32),
            "air_mass": state["air_mass"].astype(np.float32),
            "land": state["land"],
        }
        return ground, truth, geometry, ideal

    def _tile(self, lines: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        ground, truth, geometry, ideal = self._true(lines)
        found = self._detected(lines, geometry, ground["measurement_quality"] > 0, ideal)
        return ground | dict(zip(("radiance", "radiance_noise", "spectral_channel_quality"), found, strict=True)), truth

    def _detected(self, lines, geometry, lost, ideal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Radiance and its noise with all the detector does to it, and spectral_channel_quality."""
        of, detector = self.instrument, _detector(self.instrument)
        dark = dark_radiance(of).astype(np.float32)
        radiance = ideal * detector.gain
        sigma = noise_deviation(of, radiance)
        quality = np.zeros(radiance.shape, np.uint8)
        quality[:, detector.dead] |= CHANNEL_FLAGS["bad_pixel"]
        quality[:, detector.known] |= CHANNEL_FLAGS["rts"]
        quality[lost] |= CHANNEL_FLAGS["missing"]
        row, channel = np.nonzero(detector.flickering)
        up = _coin(
            np.array([zlib.crc32(f"{self.seed} {of.name} {of.band}".encode())]),
            lines[:, None] // detector.slot[row, channel],
            row * of.channels + channel,
        )
        radiance[:, row, channel] += up * (10 * math.sqrt(of.reading) / of.snr * dark[channel])
        inside = in_anomaly(geometry["longitude"], geometry["latitude"])
        draw = np.empty(radiance.shape[1:], np.float32)
        for k, line in enumerate(lines):
            random = self._random(line, "noise")
            random.standard_normal(dtype=np.float32, out=draw)
            draw *= sigma[k]
            radiance[k] += draw
            rows = np.flatnonzero(inside[k])
            if rows.size:
                hit = random.random((rows.size, of.channels)) < SPIKES
                seen = hit & (random.random(hit.shape) < 0.7)
                height = random.exponential(SPIKE_HEIGHT, hit.shape)
                radiance[k, rows] += (hit * height * sigma[k, rows]).astype(np.float32)
                quality[k, rows] |= np.where(seen, CHANNEL_FLAGS["transient"], 0).astype(np.uint8)
        full = radiance > SATURATION * dark
        if full.any():
            quality[full] |= CHANNEL_FLAGS["saturated"]
            radiance = np.where(full, SATURATION * dark, radiance)
        gone = (quality & (CHANNEL_FLAGS["missing"] | CHANNEL_FLAGS["bad_pixel"])) > 0
        radiance[gone] = np.nan
        sigma[gone] = np.nan
        return radiance, sigma, quality


def with_events(of: Scene, count: int, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)) -> Scene:
    """The scene with more events at random pixels, of all kinds in turn, from hardly to easily seen."""
    random = np.random.default_rng([seed, 3])
    weak = {"fire": 0.5, "leak": 0.1, "unknown": 0.05, "flare": 0.3}
    events = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        lon, lat = of.place(int(random.integers(of.scanlines)), int(random.integers(of.instrument.rows)))
        strength = weak[kind] * 8 ** random.random()
        length, width, direction = 40 * 10 ** random.random(), random.uniform(12, 40), random.uniform(0, 360)
        name = f"{kind} {len(of.events) + number + 1}"
        events.append(Event(name, kind, lon, lat, strength, length, width, direction))
    return replace(of, events=(*of.events, *events))


# The whole as one cube ---------------------------------------------------------------------------------------------


def cube(scenes: Scene | Sequence[Scene], lines: int = 3 * TILE) -> xr.Dataset:
    """The Spectra cube of one or more granules of one instrument, as a reader of their files would give it; lazy.

    Channels that are flagged are NaN. Radiances and their noise are made when asked for, `lines` scanlines at a time.
    """
    import dask
    import dask.array as da

    scenes = [scenes] if isinstance(scenes, Scene) else list(scenes)
    of = scenes[0].instrument
    if any(s.instrument != of for s in scenes):
        raise ParameterError("The granules of a cube come from one instrument; make a cube of each.")
    pixel, spectral = ("scanline", "ground_pixel"), ("scanline", "ground_pixel", "spectral_channel")
    ground = [s.ground() for s in scenes]
    joined = {name: np.concatenate([g[name] for g in ground]) for name in ground[0]}

    @dask.delayed
    def made(scene, first, last):
        measured, _ = scene.block(first, last)
        bad = (measured["spectral_channel_quality"] & l1b.BAD_CHANNEL) > 0
        return [np.where(bad, np.nan, measured[name]) for name in ("radiance", "radiance_noise")]

    large: tuple[list, list] = [], []
    for scene in scenes:
        for first in range(0, scene.scanlines, lines):
            last = min(first + lines, scene.scanlines)
            block = made(scene, first, last)
            for k in (0, 1):
                large[k].append(da.from_delayed(block[k], (last - first, of.rows, of.channels), np.float32))
    degrees = {
        "latitude": {"units": "degrees_north", "standard_name": "latitude"},
        "longitude": {"units": "degrees_east", "standard_name": "longitude"},
        "solar_zenith_angle": {"units": "degree", "standard_name": "solar_zenith_angle"},
        "viewing_zenith_angle": {"units": "degree", "standard_name": "sensor_zenith_angle"},
    }
    flags = {
        "flag_masks": np.array(list(PIXEL_FLAGS.values()), np.uint8),
        "flag_meanings": " ".join(PIXEL_FLAGS),
        "long_name": "quality of each ground pixel",
    }
    grid = ("granule", "ground_pixel", "spectral_channel")
    every = np.broadcast_to(of.wavelengths(), (len(scenes), of.rows, of.channels))
    variables = {
        "radiance": (spectral, da.concatenate(large[0]), {"units": of.units, "long_name": "spectral radiance"}),
        "radiance_noise": (
            spectral,
            da.concatenate(large[1]),
            {"units": of.units, "long_name": "standard deviation of the noise"},
        ),
        **{name: (pixel, joined[name], attributes) for name, attributes in degrees.items()},
        "latitude_bounds": ((*pixel, "corner"), joined["latitude_bounds"]),
        "longitude_bounds": ((*pixel, "corner"), joined["longitude_bounds"]),
        "time": ("scanline", joined["time"], {"standard_name": "time", "long_name": "time (UTC)"}),
        "ground_pixel_quality": (pixel, joined["ground_pixel_quality"], flags),
        "measurement_quality": ("scanline", joined["measurement_quality"]),
        "granule": ("scanline", np.repeat(np.arange(len(scenes), dtype=np.int32), [s.scanlines for s in scenes])),
        "wavelength": (grid, every, {"units": "nm", "standard_name": "radiation_wavelength"}),
        "earth_sun_distance": (
            "granule",
            np.array([g["earth_sun_distance"].mean() for g in ground]),
            {"units": "astronomical_unit"},
        ),
    }
    if not of.thermal:
        light = np.broadcast_to(_irradiance(of, 0.0).astype(np.float32), every.shape)
        variables["irradiance"] = (grid, light, {"units": "mol m-2 s-1 nm-1", "long_name": "solar irradiance"})
    coordinates = {
        "granule_name": ("granule", np.array([name(s) for s in scenes])),
        "orbit": ("granule", np.array([s.orbit for s in scenes], np.int32)),
    }
    return xr.Dataset(
        variables,
        coordinates,
        _attributes(of, "Spectra", scenes[0].seed) | {"instrument": of.name, "band": of.band},
    )


def truth(scenes: Scene | Sequence[Scene]) -> xr.Dataset:
    """What the pixels of `cube(scenes)` hold: events and what they add, and what hides them."""
    scenes = [scenes] if isinstance(scenes, Scene) else list(scenes)
    if any(s.events != scenes[0].events for s in scenes):
        raise ParameterError("Granules whose truth is told together have the same events.")
    parts = [s.truth() for s in scenes]
    words = {
        "event": ("1", "number of the event that adds most, 0 for none"),
        "enhancement_CO": ("1", "added CO, in standard columns"),
        "enhancement_CH4": ("1", "added CH4, in standard columns"),
        "enhancement_unknown": ("1", "added unknown gas, in columns that count as one"),
        "enhancement_flare": ("1", "added light of a flare, in the radiance of a dark pixel"),
        "signal_to_noise": ("1", "mean signal-to-noise ratio of the channels"),
        "co_column": ("1", "CO without the events, in standard columns"),
        "co_mixing": ("1", "mixing ratio of CO over its mean"),
        "albedo": ("1", "albedo of the ground"),
        "cloud_fraction": ("1", "part of the pixel under a cloud"),
        "air_mass": ("1", "slant over vertical column"),
        "land": ("1", "whether the place is land"),
    }
    variables = {
        key: (
            ("scanline", "ground_pixel"),
            np.concatenate([p[key] for p in parts]),
            {"units": units, "long_name": said},
        )
        for key, (units, said) in words.items()
    }
    of = scenes[0]
    names = {"flag_values": np.arange(len(of.events) + 1, dtype=np.int16)}
    names["flag_meanings"] = " ".join(["none", *(e.name.replace(" ", "_") for e in of.events)])
    variables["event"][2].update(names)
    return xr.Dataset(variables, attrs=_attributes(of.instrument, "Truth of spectra", of.seed))


def name(of: Scene) -> str:
    """A name for the granule's file: by the grammar of level 1B for TROPOMI, like it for other instruments."""
    stop = of.start + (of.scanlines - 1) * np.timedelta64(of.instrument.line_ns, "ns")
    begins, ends = of.start.astype("M8[s]"), stop.astype("M8[s]")
    product = f"RA_BD{of.instrument.band}"
    found = str(l1b.Name("TEST", product, begins, ends, of.orbit, 1, "000000", ends))
    return found if of.instrument.name == "TROPOMI" else found.replace("S5P", of.instrument.name)


# As files of level 1B ----------------------------------------------------------------------------------------------

ENCODINGS = ("f4", "u2")
IN_MEMORY = 512  # scanlines; longer granules are made block by block when their arrays are asked for
OWN_GRID = 0.012  # nm; wavelengths of the irradiance lie off those of the radiance


def _band(of: Instrument) -> int:
    if not (of.band.isdigit() and int(of.band) in l1b.BANDS):
        raise ParameterError(
            f"Level 1B files hold the bands 1 to 8 of TROPOMI, not band {of.band} of {of.name}. Take `cube` instead."
        )
    return int(of.band)


def _attributes(of: Instrument, title: str, seed: int) -> dict[str, object]:
    return {
        "Conventions": "CF-1.11",
        "title": f"{title} of {of.name}, band {of.band} (synthetic)",
        "source": f"synthetic: phidias_lab.testing.scenes.spectra, seed {seed}; not measured",
        "licence": "CC0-1.0",
        "synthetic": "true",
    }


def _orbit(of: Scene) -> dict[str, object]:
    return {"orbit": np.int32(of.orbit), "processor_version": "00.00.00"}


def granule(of: Scene, encoding: str = "f4", sense: int = 1) -> l1b.Granule:
    """The scene as a level-1B file holds it: radiances as `f4` or as `u2` with a factor, noise in whole decibels.

    `sense` 1 stores decibels of the signal-to-noise ratio, -1 of the relative noise: files of both kinds exist.
    """
    import dask
    import dask.array as da

    if encoding not in ENCODINGS:
        raise UnknownNameError(f"Radiances cannot be encoded as {encoding!r}. {nearest(encoding, ENCODINGS)}")
    if sense not in (1, -1):
        raise ParameterError(f"The sense of decibels is 1 (of the signal) or -1 (of the noise), not {sense!r}.")
    instrument, band, ground = of.instrument, _band(of.instrument), of.ground()
    seconds, milliseconds = l1b.encode_times(ground["time"])

    def encoded(first: int, last: int) -> dict[str, np.ndarray]:
        measured, _ = of.block(first, last)
        radiance, quality = measured["radiance"], measured["spectral_channel_quality"]
        found = {
            "radiance_noise": l1b.encode_noise(radiance, measured["radiance_noise"], sense),
            "radiance_error": np.full(radiance.shape, 30 * sense, "i1"),
            "quality_level": np.where(quality & l1b.BAD_CHANNEL, 0, 100).astype("u1"),
            "spectral_channel_quality": quality,
        }
        if encoding == "u2":
            found["radiance_int16"], found["radiance_scaling"] = l1b.encode_int16(radiance)
        else:
            found["radiance"] = np.where(np.isnan(radiance), np.float32(l1b.FILL), radiance)
        return found

    if of.scanlines <= IN_MEMORY:
        large = encoded(0, of.scanlines)
    else:
        parts = [(k, min(k + TILE, of.scanlines)) for k in range(0, of.scanlines, TILE)]
        blocks = [dask.delayed(encoded)(*part) for part in parts]
        like = {key: values[:0] for key, values in encoded(0, 1).items()}
        large = {
            key: da.concatenate(
                [
                    da.from_delayed(block[key], (last - first, *empty.shape[1:]), empty.dtype)
                    for block, (first, last) in zip(blocks, parts, strict=True)
                ]
            )
            for key, empty in like.items()
        }
    small = (
        "measurement_quality", "ground_pixel_quality", "latitude", "longitude", "latitude_bounds", "longitude_bounds",
        "solar_zenith_angle", "solar_azimuth_angle", "viewing_zenith_angle", "viewing_azimuth_angle",
        "satellite_latitude", "satellite_longitude",
    )  # fmt: skip
    settings = np.array([[(1_080_000, 3)]], [("master_cycle_period_us", "<i4"), ("int_delay", "<i2")])
    arrays = {
        "time": seconds,
        "delta_time": milliseconds,
        "scanline": np.arange(of.scanlines, dtype="i4"),
        "ground_pixel": np.arange(instrument.rows, dtype="i4"),
        "spectral_channel": np.arange(instrument.channels, dtype="i4"),
        **{key: ground[key][None] for key in small},
        "satellite_altitude": np.full((1, of.scanlines), instrument.altitude * 1e3, "f4"),
        "earth_sun_distance": ground["earth_sun_distance"].mean(keepdims=True).astype("f4"),
        "nominal_wavelength": instrument.wavelengths().astype("f4")[None],
        "instrument_configuration": np.array([[(17, 2)] * of.scanlines], [("ic_id", "<i4"), ("ic_version", "<i2")]),
        "instrument_settings": settings,
        **{key: values[None] for key, values in large.items()},
    }
    covered = {f"time_coverage_{k}": f"{ground['time'][n]}Z" for k, n in (("start", 0), ("end", -1))}
    attributes = _attributes(instrument, "Radiances", of.seed) | covered | _orbit(of)
    return l1b.Granule(band, arrays, attributes)


def irradiance(of: Scene) -> l1b.Irradiance:
    """The light of the sun as a file of irradiances holds it, taken at the scene's start, on wavelengths of its own."""
    instrument = of.instrument
    band = _band(instrument)
    light = _irradiance(instrument, OWN_GRID)
    light = light * (1 + 1e-4 * instrument.random("irradiance").standard_normal(light.shape))
    quality = np.where(_detector(instrument).dead, CHANNEL_FLAGS["bad_pixel"], 0).astype("u1")
    seconds, milliseconds = l1b.encode_times(np.array([of.start]))
    arrays = {
        "time": seconds,
        "delta_time": milliseconds,
        "irradiance": np.where(quality, l1b.FILL, light).astype("f4")[None, None],
        "irradiance_noise": np.full((1, 1, *light.shape), 40, "i1"),
        "irradiance_error": np.full((1, 1, *light.shape), 30, "i1"),
        "spectral_channel_quality": quality[None, None],
        "calibrated_wavelength": (instrument.wavelengths() + OWN_GRID).astype("f4")[None],
    }
    return l1b.Irradiance(band, arrays, _attributes(instrument, "Irradiances", of.seed) | _orbit(of))


# The ideal observer ------------------------------------------------------------------------------------------------


class Observer:
    """The matched filter that knows the generator's own covariance and natural variability, row by row.

    Of a row's noise-free spectra y = ln R (over its channels) it knows the mean mu and the covariance C, from `spectra`
    scanlines drawn among those of the scenes, their events left out and the gas in question held at its mean, in sunlight
    (zenith angle below 80 degrees; heat is always seen). For pixel i it knows the noise N_i = diag(sigma_i^2 / R_i^2), which
    channels are dead, the change s_i of ln R by the enhancement delta, and the natural deviation d_i of the gas's column.
    What it does not know is the brightness, a constant added to y. With b without bound,

        S_i = C + N_i + b 1 1' + (d_i / delta)^2 s_i s_i',    q_i^2 = s_i' S_i^-1 s_i,    z_i = s_i' S_i^-1 (y_i - mu) / q_i,

    q_i is the signal-to-noise ratio of the enhancement and z_i the score, of unit variance where nothing happens and larger
    by q_i where it does: among all linear scores the one of the largest ratio (Kay 1998, Fundamentals of statistical signal
    processing II, section 4.4). Without the last term S_i gives q0_i, and 1 / q_i^2 = 1 / q0_i^2 + (d_i / delta)^2, as
    Sherman and Morrison have it: natural variability bounds what can be seen. Were it Gaussian, a pixel with the enhancement
    would rank above one without it with probability Phi(q_i / sqrt 2).

    A row takes some 20 MB for 1000 spectra: of an instrument with many rows give some at a time.
    """

    BRIGHTNESS, RANK = 1e2, 64

    def __init__(
        self,
        scenes: Scene | Sequence[Scene],
        *,
        rows: Sequence[int] | None = None,
        spectra: int = 800,
        least_signal_to_noise: float = 0.0,
        seed: int = 0,
    ):
        scenes = [scenes] if isinstance(scenes, Scene) else list(scenes)
        self.instrument = of = scenes[0].instrument
        self.rows = np.arange(of.rows) if rows is None else np.asarray(rows)
        detector = _detector(of)
        self._used = ~(detector.dead | detector.flickering)[self.rows]
        self._wanted, self._least, self._parts = spectra, least_signal_to_noise, []
        self._learnt: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        random = np.random.default_rng([seed, 1])
        share = np.array([s.scanlines for s in scenes]) / sum(s.scanlines for s in scenes)
        enough = np.zeros(self.rows.size, int)
        drawn = []
        for _ in range(10 + 20 * spectra // 128):
            if enough.min() >= 2 * spectra:
                break
            scene = scenes[random.choice(len(scenes), p=share)]
            lines = scene.first + random.integers(0, scene.scanlines, 256)
            if not of.thermal:
                below, above, _ = sun(EPOCH + lines * np.timedelta64(of.line_ns, "ns"))
                lines = lines[(_track(of, lines)[0] * _unit(below, above)).sum(-1) > 0]
            if lines.size:
                geometry = _geometry(of, lines, self.rows)
                self._parts.append((geometry, _state(of, scene.seed, geometry)))
                drawn.append(self._spectra(parts=self._parts[-1:]))
                enough += drawn[-1][2].sum(0)
        if enough.min() < 50:
            row = self.rows[enough.argmin()]
            raise ParameterError(
                f"Only {enough.min()} spectra of row {row} are sunlit and bright enough, 50 are needed: "
                "give the observer more scenes or a lower signal-to-noise ratio."
            )
        self._plain = tuple(np.concatenate(parts) for parts in zip(*drawn, strict=True))

    def _spectra(
        self, gas: str | None = None, enhancement: float = 0.0, parts: list | None = None, steady: bool = False
    ):
        """ln R and the relative noise of the drawn pixels, and which count: enhanced, or with a steady gas."""
        of, found = self.instrument, []
        for geometry, state in parts or self._parts:
            column = dict(state["column"])
            if gas in column:
                column[gas] = self._mean_of(gas) * state["mean"].get(gas, 0.0) if steady else column[gas] + enhancement
            flare = np.full(state["albedo"].shape, enhancement) if gas == "flare" else 0.0
            ideal = np.maximum(_ideal(of, geometry, {**state, "column": column}, flare), 1e-30)
            noise = noise_deviation(of, ideal) / ideal
            light = np.full(noise.shape[:2], True) if of.thermal else geometry["solar_zenith_angle"] < 80
            found.append((np.log(ideal), noise, light & ((1 / noise).mean(-1) >= self._least)))
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def _mean_of(self, gas: str) -> float:
        """The mean of a gas among the drawn pixels, in its mean everywhere."""
        shares = [state["column"][gas] / state["mean"][gas] for _, state in self._parts if gas in state["mean"]]
        return float(np.concatenate(shares)[self._plain[2]].mean()) if shares else 0.0

    def _nature(self, gas: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per row the mean of ln R, and directions with variances that make its covariance, the gas held at its mean."""
        if gas not in self._learnt:
            values, keep = self._spectra(gas, steady=True)[0], self._plain[2]
            means, bases, variances = [], [], []
            for row in range(self.rows.size):
                mine = values[keep[:, row], row][: self._wanted].astype(float)
                mean, count = mine.mean(0), min(self.RANK, len(mine) - 1)
                scale, vectors = np.linalg.svd(mine - mean, full_matrices=False)[1:]
                means.append(mean)
                # The brightness is one more direction, of unbounded variance.
                channels = mean.size
                bases.append(np.concatenate([vectors[:count], np.full((1, channels), channels**-0.5)]))
                variances.append(np.r_[np.square(scale[:count]) / (len(mine) - 1), self.BRIGHTNESS * channels])
            self._learnt[gas] = np.stack(means), np.stack(bases), np.stack(variances)
        return self._learnt[gas]

    def _filter(self, gas: str, row: int, change, noise, natural) -> tuple[np.ndarray, np.ndarray]:
        """Weights S^-1 s / q (n, channels) and q (n) for pixels of one row, by Woodbury's identity.

        `natural` is the natural deviation of the gas over the enhancement.
        """
        weight = np.where(self._used[row], 1 / np.square(noise.astype(float)), 0.0)
        _, bases, variances = self._nature(gas)
        basis = bases[row]
        first = weight * change
        inner = np.einsum("km,nm,lm->nkl", basis, weight, basis, optimize=True) + np.diag(1 / variances[row])
        filtered = first - weight * (np.linalg.solve(inner, (first @ basis.T)[..., None])[..., 0] @ basis)
        squared = np.maximum((filtered * change).sum(-1), 1e-12)
        return filtered / np.sqrt(squared + (natural * squared) ** 2)[:, None], 1 / np.sqrt(1 / squared + natural**2)

    def detect(
        self, gas: str = "CO", enhancement: float = 0.25, seed: int = 0, scenes: Sequence[Scene] | None = None
    ) -> Detection:
        """How well it sees an enhancement, on spectra that are changed by it: those that it drew but did not learn from, or
        all of given scenes, without their events."""
        parts, drawn = self._parts, self._plain
        if scenes is not None:
            of = self.instrument
            places = [_geometry(of, s.first + np.arange(s.scanlines), self.rows) for s in scenes]
            parts = [(where, _state(of, s.seed, where)) for where, s in zip(places, scenes, strict=True)]
            drawn = self._spectra(parts=parts)
        plain, noise, keep = drawn
        raised, raised_noise, _ = self._spectra(gas, enhancement, parts)
        deviation = np.concatenate([state["deviation"].get(gas, 0 * state["albedo"]) for _, state in parts])
        mean = self._nature(gas)[0]
        random = np.random.default_rng([seed, 2])
        ratio, null, event = [], [], []
        for row in range(self.rows.size):
            mine = np.flatnonzero(keep[:, row])
            if scenes is None:
                mine = mine[self._wanted :][: self._wanted]
            change = (raised[mine, row] - plain[mine, row]).astype(float)
            weights, q = self._filter(gas, row, change, noise[mine, row], deviation[mine, row] / enhancement)
            mine, change, weights, q = (v[q > 1e-3] for v in (mine, change, weights, q))
            for scores, values, relative in ((null, plain, noise), (event, raised, raised_noise)):
                drawn = values[mine, row] + relative[mine, row] * random.standard_normal(change.shape)
                scores.append((weights * (drawn - mean[row])).sum(-1))
            ratio.append(q)
        return Detection(np.concatenate(ratio), np.concatenate(null), np.concatenate(event))

    def signal_to_noise(self, scene: Scene, first: int = 0, last: int | None = None) -> np.ndarray:
        """q (scanlines, rows) of what the scene's events add in each pixel, the largest of all gases; 0 without events."""
        of, found = scene.instrument, []
        last = scene.scanlines if last is None else last
        for k in range(first, last, TILE):
            geometry = _geometry(of, scene.first + np.arange(k, min(k + TILE, last)), self.rows)
            state = _state(of, scene.seed, geometry)
            added, _ = scene._enhanced(geometry)
            q = np.zeros(state["albedo"].shape)
            plain = None
            for gas, amount in added.items():
                if amount.max() < 1e-3:
                    continue
                plain = np.maximum(_ideal(of, geometry, state), 1e-30) if plain is None else plain
                column = {g: c + (amount if g == gas else 0) for g, c in state["column"].items()}
                raised = _ideal(of, geometry, {**state, "column": column}, amount if gas == "flare" else 0.0)
                noise, change = noise_deviation(of, plain) / plain, np.log(np.maximum(raised, 1e-30) / plain)
                for row in range(self.rows.size):
                    at = np.flatnonzero(amount[:, row] > 1e-3)
                    if at.size:
                        natural = (
                            state["deviation"][gas][at, row] / amount[at, row] if gas in state["deviation"] else 0.0
                        )
                        mine = self._filter(gas, row, change[at, row].astype(float), noise[at, row], natural)[1]
                        q[at, row] = np.maximum(q[at, row], mine)
            found.append(q)
        return np.concatenate(found)


@dataclass(frozen=True)
class Detection:
    """What the ideal observer says of pixels: q of the enhancement, and its scores without and with it."""

    signal_to_noise: np.ndarray
    null: np.ndarray
    event: np.ndarray

    @property
    def auc(self) -> float:
        """The share of pairs of which the one with the enhancement has the larger score (Mann and Whitney 1947)."""
        both = np.concatenate([self.null, self.event])
        rank = both.argsort().argsort()
        n = self.null.size
        return float((rank[n:].mean() - rank[:n].mean()) / both.size + 0.5)

    @property
    def expected_auc(self) -> float:
        """The same if variability were Gaussian: the mean of Phi(q / sqrt 2)."""
        from scipy import special

        return float(special.ndtr(self.signal_to_noise / math.sqrt(2)).mean())

    def probability(self, false_alarms: float) -> float:
        """The share of pixels that is found at a rate of false alarms."""
        return float((self.event > np.quantile(self.null, 1 - false_alarms)).mean())


def ideal_observer(scenes: Scene | Sequence[Scene], gas: str = "CO", enhancement: float = 0.25, **options) -> Detection:
    """How well the ideal `Observer` sees an enhancement (standard columns) in pixels like those of the scenes."""
    return Observer(scenes, **options).detect(gas, enhancement)
