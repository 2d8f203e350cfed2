"""A synthetic ocean with a known truth: two seas, their true fields, and observations drawn from them.

The shape of the seas is real (coastlines of Natural Earth); the sea floor, the fields and the observations are not. The
true state is constant within a month and linear between grid nodes, so the true value of an observation is known
exactly. It is a smooth mean state (latitude, thermocline, seasons, the brackish Baltic) plus Gaussian anomalies.

Anomalies have, in the horizontal, the covariance that variational gridding assumes for its background in two dimensions,

    C(r) = (r/L) K1(r/L)            spectrum proportional to (1 + k^2 L^2)^-2

(Whittle 1954, Biometrika 41, 434-449; Barth et al. 2014, Geosci. Model Dev. 7, sect. 2), so L can be compared with an
estimated length as it stands. In the vertical two independent fields are mixed by an angle that grows with depth; from
month to month they follow a first-order autoregression. The noise variance is a fixed share of the anomalies' variance
at the same depth. Chlorophyll is log-normal: what is said of anomalies and noise holds for its natural logarithm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.errors import UnknownNameError, nearest
from phidias_lab.methods.coastlines import is_land

EARTH_RADIUS = 6371.0088e3  # m, mean radius (Moritz 2000, Journal of Geodesy 74)
MONTHS = np.arange("2010-01", "2016-01", dtype="datetime64[M]")
KINDS = ("profile", "time_series", "underway")

VARIABLES: dict[str, dict[str, str]] = {
    "temperature": {
        "units": "degree_Celsius",
        "standard_name": "sea_water_temperature",
        "long_name": "temperature of sea water",
    },
    "salinity": {
        "units": "1e-3",
        "standard_name": "sea_water_practical_salinity",
        "long_name": "practical salinity of sea water",
    },
    "oxygen": {
        "units": "umol kg-1",
        "standard_name": "moles_of_oxygen_per_unit_mass_in_sea_water",
        "long_name": "dissolved oxygen in sea water",
    },
    "chlorophyll": {
        "units": "mg m-3",
        "standard_name": "mass_concentration_of_chlorophyll_in_sea_water",
        "long_name": "chlorophyll in sea water",
    },
}

PLACES: dict[str, dict[str, str]] = {
    "longitude": {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"},
    "latitude": {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"},
    "depth": {"units": "m", "standard_name": "depth", "long_name": "depth below the sea surface", "positive": "down"},
    "time": {"standard_name": "time", "long_name": "time (UTC)"},
}

#: Flags of the SeaDataNet vocabulary L20 that occur here.
FLAGS = {1: "good", 2: "probably good", 3: "probably bad", 4: "bad", 9: "missing"}

CORRELATION_MONTHS = 2.0  # e-folding time of the anomalies
NOISE_TO_SIGNAL = 0.2  # noise variance over anomaly variance at the same depth
OUTLIER_SHARE = 0.015  # of the measured values
OUTLIER_FLAGGED = 0.8  # of the outliers carry a flag 3 or 4
GOOD_FLAGGED_BAD = 0.003  # of the good values carry a flag 3 or 4
DUPLICATED_CASTS = 0.015  # of the casts are delivered twice
_STEP = {"temperature": 1e-3, "salinity": 1e-3, "oxygen": 1e-2, "chlorophyll": 1e-4}  # stored resolution
_PURPOSES = {"anomalies": 1, "casts": 2, "noise": 3, "quality": 4, "small": 5}


@dataclass(frozen=True)
class Sea:
    """One sea: its grid, its floor, its mean state and the statistics of its anomalies."""

    name: str
    title: str
    number: int
    longitude: np.ndarray
    latitude: np.ndarray
    depth: np.ndarray
    length: float  # correlation length of the anomalies, m
    floor: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (lon, lat, m from the coast) -> m
    mean: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]
    deviation: Mapping[str, tuple[float, float, float]]  # at the surface, far below, depth scale in m
    mixing: float  # m; scale of the vertical correlation
    levels: tuple[float, ...]  # m, where profiles are sampled
    counts: Mapping[str, int]

    def anomaly_sd(self, variable: str, depth) -> np.ndarray:
        """Standard deviation of the anomalies (of ln chlorophyll for chlorophyll) at a depth in m."""
        surface, deep, scale = self.deviation[variable]
        return deep + (surface - deep) * np.exp(-np.asarray(depth, float) / scale)

    def noise_sd(self, variable: str, depth) -> np.ndarray:
        """Standard deviation of the observation noise (of ln chlorophyll for chlorophyll)."""
        return np.sqrt(NOISE_TO_SIGNAL) * self.anomaly_sd(variable, depth)


def _season(month, peak, sharpness=1.0):
    """A yearly cycle in -1..1 with its maximum at `peak` (months from January)."""
    cycle = np.cos(2 * np.pi * (month - peak) / 12)
    return cycle if sharpness == 1.0 else 2 * np.exp(sharpness * (cycle - 1)) - 1


def _bump(x, centre, width):
    return np.exp(-0.5 * ((x - centre) / width) ** 2)


def _atlantic_floor(lon, lat, offshore):
    shelf = 30 + 170 * np.clip(offshore / 110e3, 0, 1)
    slope = 1 / (1 + np.exp(-(offshore - 190e3) / 30e3))
    hills = 500 * np.sin(0.55 * lon + 1.3) * np.cos(0.45 * lat)
    return shelf + slope * (3900 + hills)


def _atlantic_mean(lon, lat, depth, month):
    seasonal = _season(month, 7.5) * (2.2 + 0.06 * (lat - 35))
    surface = 19.0 - 0.36 * (lat - 35) + 0.05 * (lon + 14)
    mixed = 1 / (1 + np.exp((depth - 45) / 15))
    temperature = 3.2 + (surface - 3.2) * np.exp(-depth / 850) + seasonal * mixed
    overflow = _bump(depth, 1000, 350) * _bump(lat, 37, 5) * _bump(lon, -10, 8)
    salinity = 34.95 + (36.35 - 0.055 * (lat - 35) - 34.95) * np.exp(-depth / 900) + 0.7 * overflow
    temperature = temperature + 2.5 * overflow
    minimum = 55 * _bump(depth, 850, 350) * (1 - (lat - 35) / 40)
    oxygen = 345 - 5.5 * temperature - minimum
    bloom = 1.1 * (_season(month, 3.3 + 0.08 * (lat - 35), 4.0) + 1) / 2
    logarithm = np.log(0.25) + 0.04 * (lat - 35) + bloom - 3.5 * (1 - np.exp(-((depth / 90) ** 2)))
    return {"temperature": temperature, "salinity": salinity, "oxygen": oxygen, "chlorophyll": logarithm}


_DEEPS = (  # longitude, latitude, additional depth in m, width in degrees: the shape of the Baltic's basins, smoothed
    (20.0, 57.3, 120, 1.0),
    (18.3, 58.6, 130, 0.6),
    (18.6, 62.3, 70, 1.0),
    (22.5, 64.7, 40, 0.8),
    (15.9, 55.3, 25, 0.6),
    (9.8, 58.2, 420, 0.9),
)


def _baltic_floor(lon, lat, offshore):
    floor = 6 + 85 * (1 - np.exp(-offshore / 38e3))
    for x, y, extra, width in _DEEPS:
        near = _bump(lon, x, 2 * width) * _bump(lat, y, width)
        floor = floor + extra * near * (1 - np.exp(-offshore / 15e3))
    return floor


def _baltic_mean(lon, lat, depth, month):
    fresh = np.clip((lat - 59.5) / 6, 0, 1)
    ocean = 1 / (1 + np.exp((lon - 11.3) / 0.45)) * np.clip((lat - 54.5) / 2, 0, 1)
    salinity = 7.6 - 4.6 * fresh + 21 * ocean
    halocline = 0.5 * (1 + np.tanh((depth - 65) / 12))
    salinity = salinity + halocline * (4.5 * (1 - fresh) + 3 * ocean)
    seasonal = _season(month, 7.3) * (8.0 - 0.1 * (lat - 53))
    mixed = 1 / (1 + np.exp((depth - 22) / 5))
    temperature = 5.0 + (4.2 - 0.33 * (lat - 54)) * mixed + seasonal * mixed
    temperature = np.maximum(temperature, 2.2)
    oxygen = 395 - 8.0 * temperature - halocline * 215 * (1 - fresh) * (1 - ocean)
    spring = (_season(month, 3.2 + 0.12 * (lat - 54), 6.0) + 1) / 2
    summer = (_season(month, 6.8, 5.0) + 1) / 2
    logarithm = np.log(1.1) + 1.3 * spring + 0.7 * summer - 3.0 * (1 - np.exp(-((depth / 35) ** 2)))
    return {"temperature": temperature, "salinity": salinity, "oxygen": oxygen, "chlorophyll": logarithm}


# fmt: off
_ATLANTIC_LEVELS = (2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1250, 1500, 1750, 2000)
_BALTIC_LEVELS = (1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100, 125, 150, 175, 200)
# fmt: on

NORTH_EAST_ATLANTIC = Sea(
    name="north_east_atlantic",
    title="North-East Atlantic",
    number=1,
    longitude=np.arange(-30.0, 2.01, 0.5),
    latitude=np.arange(35.0, 60.01, 0.5),
    depth=np.array([0, 10, 20, 50, 100, 200, 500, 1000, 2000], float),
    length=200e3,
    floor=_atlantic_floor,
    mean=_atlantic_mean,
    deviation={
        "temperature": (1.2, 0.15, 600.0),
        "salinity": (0.20, 0.02, 600.0),
        "oxygen": (12.0, 4.0, 500.0),
        "chlorophyll": (0.6, 0.4, 100.0),
    },
    mixing=400.0,
    levels=_ATLANTIC_LEVELS,
    counts={"cruises": 190, "stations": 16, "floats": 34, "cycles": 80, "moorings": 7, "lines": 26, "voyages": 9},
)

BALTIC = Sea(
    name="baltic",
    title="Baltic Sea",
    number=2,
    longitude=np.arange(9.0, 30.01, 0.25),
    latitude=np.arange(53.0, 66.01, 0.25),
    depth=np.array([0, 10, 20, 30, 50, 75, 100, 150, 200], float),
    length=90e3,
    floor=_baltic_floor,
    mean=_baltic_mean,
    deviation={
        "temperature": (0.8, 0.4, 60.0),
        "salinity": (0.35, 0.25, 60.0),
        "oxygen": (14.0, 10.0, 60.0),
        "chlorophyll": (0.5, 0.4, 40.0),
    },
    mixing=60.0,
    levels=_BALTIC_LEVELS,
    counts={"cruises": 300, "stations": 18, "floats": 6, "cycles": 60, "moorings": 10, "lines": 30, "voyages": 12},
)

SEAS = {sea.name: sea for sea in (NORTH_EAST_ATLANTIC, BALTIC)}


def sea(name: str) -> Sea:
    """One of the synthetic seas by name."""
    if name not in SEAS:
        raise UnknownNameError(f"There is no synthetic sea {name!r}. {nearest(name, SEAS)}")
    return SEAS[name]


def _random(seed: int, of: Sea, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, of.number, _PURPOSES[purpose]])))


# The shape of a sea ---------------------------------------------------------------------------------------------


def _says_synthetic(title: str, seed: int | None = None) -> dict[str, str]:
    seeded = "" if seed is None else f", seed {seed}"
    return {
        "Conventions": "CF-1.11",
        "title": f"{title} (synthetic)",
        "source": f"synthetic: phidias_lab.testing.scenes.ocean{seeded}; not measured",
        "licence": "CC0-1.0",
        "synthetic": "true",
    }


def _coordinates(of: Sea) -> dict[str, xr.Variable]:
    return {
        "depth": xr.Variable("depth", of.depth, {**PLACES["depth"], "axis": "Z"}),
        "latitude": xr.Variable("latitude", of.latitude, {**PLACES["latitude"], "axis": "Y"}),
        "longitude": xr.Variable("longitude", of.longitude, {**PLACES["longitude"], "axis": "X"}),
    }


def _components_of(mask: np.ndarray, smallest: int) -> np.ndarray:
    """The mask without pieces of fewer than `smallest` nodes."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    large = np.bincount(labels.ravel()) >= smallest
    large[0] = False
    return large[labels]


def domain(of: Sea) -> xr.Dataset:
    """Where the sea is: mask (depth, latitude, longitude) with 1 for sea, and the synthetic depth of its floor in m.

    The coast is real; the floor shoals towards it, so the mask is smaller the deeper the level.
    """
    from scipy import ndimage

    lon, lat = np.meshgrid(of.longitude, of.latitude)
    water = _components_of(~is_land(lon, lat, "50m"), 8)
    dy = np.deg2rad(of.latitude[1] - of.latitude[0]) * EARTH_RADIUS
    dx = np.deg2rad(of.longitude[1] - of.longitude[0]) * EARTH_RADIUS * np.cos(np.deg2rad(of.latitude.mean()))
    offshore = ndimage.distance_transform_edt(water, sampling=(dy, dx))
    floor = np.where(water, of.floor(lon, lat, offshore), np.nan)
    mask = np.stack([_components_of(floor >= level, 8) if level > 0 else water for level in of.depth])
    attributes = {
        "mask": {
            "units": "1",
            "standard_name": "sea_binary_mask",
            "long_name": "sea (1) or land and sea floor (0)",
            "flag_values": np.array([0, 1], np.int8),
            "flag_meanings": "land sea",
        },
        "sea_floor_depth": {
            "units": "m",
            "standard_name": "sea_floor_depth_below_geoid",
            "long_name": "depth of the sea floor (synthetic)",
        },
    }
    return xr.Dataset(
        {
            "mask": (("depth", "latitude", "longitude"), mask.astype(np.int8), attributes["mask"]),
            "sea_floor_depth": (
                ("latitude", "longitude"),
                floor.round(1).astype(np.float32),
                attributes["sea_floor_depth"],
            ),
        },
        coords=_coordinates(of),
        attrs=_says_synthetic(f"{of.title}: grid, mask and sea floor")
        | {"comment": "The coastline is that of Natural Earth 1:50 million; the sea floor is invented."},
    )


# True fields ----------------------------------------------------------------------------------------------------


def equal_area(longitude, latitude, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Lambert azimuthal equal-area projection (m) of the sphere (Snyder 1987, USGS Prof. Paper 1395, eq. 24-2 to 24-4).

    Within 15 degrees of the centre distances are true to about one per cent.
    """
    lon, lat = np.deg2rad(np.asarray(longitude, float) - centre[0]), np.deg2rad(np.asarray(latitude, float))
    lat0 = np.deg2rad(centre[1])
    cosine = np.sin(lat0) * np.sin(lat) + np.cos(lat0) * np.cos(lat) * np.cos(lon)
    k = EARTH_RADIUS * np.sqrt(2 / (1 + cosine))
    return k * np.cos(lat) * np.sin(lon), k * (np.cos(lat0) * np.sin(lat) - np.sin(lat0) * np.cos(lat) * np.cos(lon))


def random_fields(random: np.random.Generator, count: int, x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
    """Independent Gaussian fields (count, points) of zero mean, unit variance and covariance (r/L) K1(r/L).

    Drawn in Fourier space on a plane wide enough not to meet itself, with eight nodes to a length, and read off linearly.
    """
    from scipy import fft

    step = length / 8
    left, low = x.min() - step, y.min() - step
    nx, ny = (fft.next_fast_len(int(np.ceil((np.ptp(v) + 6 * length) / step)) + 3, real=True) for v in (x, y))
    kx = 2 * np.pi * fft.rfftfreq(nx, step)
    ky = 2 * np.pi * fft.fftfreq(ny, step)
    k2 = kx[None, :] ** 2 + ky[:, None] ** 2
    spectrum = (1 + k2 * length**2) ** -2.0
    # A real field: the columns between the first and the last count twice in the half spectrum.
    twice = np.full(len(kx), 2.0)
    twice[0] = 1
    if nx % 2 == 0:
        twice[-1] = 1
    amplitude = np.sqrt(spectrum / (spectrum * twice).sum() * nx * ny)
    i, j = (x - left) / step, (y - low) / step
    i0, j0 = i.astype(int), j.astype(int)
    fi, fj = i - i0, j - j0
    fields = np.empty((count, x.size))
    for n in range(count):
        white = fft.rfft2(random.standard_normal((ny, nx)))
        plane = fft.irfft2(white * amplitude, s=(ny, nx))
        fields[n] = (
            plane[j0, i0] * (1 - fi) * (1 - fj)
            + plane[j0, i0 + 1] * fi * (1 - fj)
            + plane[j0 + 1, i0] * (1 - fi) * fj
            + plane[j0 + 1, i0 + 1] * fi * fj
        )
    return fields


def _mixing_angle(of: Sea, depth) -> np.ndarray:
    depth = np.asarray(depth, float)
    return 0.5 * np.pi * depth / (depth + of.mixing)


def mean_state(of: Sea, months: np.ndarray = MONTHS) -> dict[str, np.ndarray]:
    """The mean state (month, depth, latitude, longitude) without mask; for chlorophyll its natural logarithm."""
    month = (months.astype(int) % 12 + 0.5).reshape(-1, 1, 1, 1)
    depth, lat, lon = of.depth[:, None, None], of.latitude[:, None], of.longitude
    shape = (len(months), len(of.depth), len(of.latitude), len(of.longitude))
    return {name: np.broadcast_to(values, shape) for name, values in of.mean(lon, lat, depth, month).items()}


def anomalies(of: Sea, variable: str, random: np.random.Generator, months: int = len(MONTHS)) -> np.ndarray:
    """Anomalies (month, depth, latitude, longitude) of unit variance everywhere, land included."""
    lon, lat = np.meshgrid(of.longitude, of.latitude)
    x, y = equal_area(lon.ravel(), lat.ravel(), (float(of.longitude.mean()), float(of.latitude.mean())))
    drawn = random_fields(random, 2 * months, x, y, of.length).reshape(months, 2, len(of.latitude), len(of.longitude))
    keep = np.exp(-1 / CORRELATION_MONTHS)
    for month in range(1, months):
        drawn[month] = keep * drawn[month - 1] + np.sqrt(1 - keep**2) * drawn[month]
    angle = _mixing_angle(of, of.depth)
    return drawn[:, :1] * np.cos(angle)[:, None, None] + drawn[:, 1:] * np.sin(angle)[:, None, None]


def _physical(variable: str, values: np.ndarray) -> np.ndarray:
    """Stored values from mean plus anomaly: chlorophyll out of its logarithm, all within what water allows, rounded."""
    if variable == "chlorophyll":
        values = np.maximum(np.exp(values), _STEP[variable])
    elif variable == "oxygen":
        values = np.maximum(values, 1.0)
    elif variable == "salinity":
        values = np.maximum(values, 0.5)
    elif variable == "temperature":
        values = np.maximum(values, -0.5)
    return (np.round(values / _STEP[variable]) * _STEP[variable]).astype(np.float32)


def truth(of: Sea, seed: int = 0, months: np.ndarray = MONTHS, shape: xr.Dataset | None = None) -> xr.Dataset:
    """The true monthly fields (time, depth, latitude, longitude); NaN on land and below the sea floor."""
    shape = domain(of) if shape is None else shape
    sea_here = shape["mask"].values.astype(bool)
    random, mean = _random(seed, of, "anomalies"), mean_state(of, months)
    fields = {}
    for name, attributes in VARIABLES.items():
        values = mean[name] + of.anomaly_sd(name, of.depth)[:, None, None] * anomalies(of, name, random, len(months))
        values = np.where(sea_here, _physical(name, values), np.float32(np.nan))
        known = {
            **attributes,
            "cell_methods": "time: mean",
            "synthetic_correlation_length": of.length,
            "synthetic_correlation_length_units": "m",
            "synthetic_correlation_months": CORRELATION_MONTHS,
            "synthetic_anomaly_standard_deviation": [float(v) for v in of.anomaly_sd(name, of.depth).round(6)],
            "synthetic_noise_to_signal": NOISE_TO_SIGNAL,
        }
        if name == "chlorophyll":
            known["comment"] = "Log-normal: correlation, deviation and noise are those of the natural logarithm."
        fields[name] = (("time", "depth", "latitude", "longitude"), values, known)
    bounds = np.stack([months, months + 1], axis=1).astype("datetime64[s]")
    middle = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) // 2
    return xr.Dataset(
        fields,
        coords={
            "time": xr.Variable("time", middle, {**PLACES["time"], "axis": "T", "bounds": "time_bounds"}),
            **_coordinates(of),
            "time_bounds": (("time", "bounds"), bounds),
        },
        attrs=_says_synthetic(f"{of.title}: true monthly fields", seed)
        | {"comment": "The observations of the demo lake were drawn from these fields, with noise and errors added."},
    )


# Observations ---------------------------------------------------------------------------------------------------


class _Reader:
    """Reads the true fields at any place: linear in space over the nodes that are sea, constant within a month."""

    def __init__(self, of: Sea, fields: xr.Dataset):
        self.of = of
        self.first = fields["time_bounds"].values[0, 0].astype("datetime64[M]")
        self.values = {name: fields[name].values.reshape(-1) for name in VARIABLES}
        self.shape = fields["temperature"].shape
        self.sea = np.isfinite(fields["temperature"].values[0]).reshape(-1)

    def month(self, time) -> np.ndarray:
        return (time.astype("datetime64[M]") - self.first).astype(int)

    def weights(self, lon, lat, depth):
        """Flat node numbers (8, n) within one month, and their weights; all weights 0 where there is no sea."""
        (_, _, ny, nx), axes = self.shape, (self.of.depth, self.of.latitude, self.of.longitude)
        low, part = [], []
        for axis, value in zip(axes, (depth, lat, lon), strict=True):
            i = np.clip(np.searchsorted(axis, value, side="right") - 1, 0, len(axis) - 2)
            low.append(i)
            part.append((value - axis[i]) / (axis[i + 1] - axis[i]))
        nodes, weights, layers = [], [], []
        for corner in range(8):
            dz, dy, dx = corner >> 2 & 1, corner >> 1 & 1, corner & 1
            node = ((low[0] + dz) * ny + low[1] + dy) * nx + low[2] + dx
            weight = np.where(dx, part[2], 1 - part[2]) * np.where(dy, part[1], 1 - part[1])
            layers.append(np.where(dz, part[0], 1 - part[0]))
            nodes.append(node)
            weights.append(weight * self.sea[node])
        nodes, flat, layers = np.array(nodes), np.array(weights), np.array(layers)
        inside = np.ones(len(lon), bool)
        for value, axis in ((lon, axes[2]), (lat, axes[1]), (depth, axes[0])):
            inside &= (value >= axis[0]) & (value <= axis[-1])
        # A sample needs sea in its cell on each of the two levels around it that it draws on.
        for corners in (slice(0, 4), slice(4, 8)):
            inside &= (flat[corners].sum(axis=0) > 1e-9) | (layers[corners][0] < 1e-9)
        weights = flat * layers
        total = weights.sum(axis=0)
        return nodes, np.where(inside & (total > 1e-9), weights / np.where(total > 1e-9, total, 1), 0.0)

    def __call__(self, lon, lat, depth, time) -> dict[str, np.ndarray]:
        nodes, weights = self.weights(lon, lat, depth)
        start = self.month(time) * int(np.prod(self.shape[1:]))
        missing = weights.sum(axis=0) == 0
        true = {}
        for name, values in self.values.items():
            read = np.where(weights > 0, values[start + nodes], 0.0)
            true[name] = np.where(missing, np.nan, (read * weights).sum(axis=0))
        return true


def surface(of: Sea, fields: xr.Dataset, name: str, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """The true values (month, place) of a variable at the surface, read off as observations are; NaN without sea."""
    reader = _Reader(of, fields)
    nodes, weights = reader.weights(longitude, latitude, np.zeros(len(longitude)))
    values = reader.values[name].reshape(reader.shape[0], -1)
    # Of the eight nodes around a place at the surface four have weight.
    read = sum(np.where(w > 0, values[:, n], 0.0) * w for n, w in zip(nodes, weights, strict=True) if w.any())
    return np.where(weights.sum(axis=0) > 0, read, np.nan)


def _start_times(random, count) -> np.ndarray:
    """Times within the months, in minutes; two thirds as many in winter as in summer, as ships go."""
    first, last = MONTHS[0].astype("datetime64[m]"), (MONTHS[-1] + 1).astype("datetime64[m]")
    tries = random.integers(0, (last - first).astype(int), 3 * count)
    month = (first + tries).astype("datetime64[M]").astype(int) % 12 + 0.5
    kept = tries[random.random(3 * count) < 0.8 + 0.2 * _season(month, 7)]
    return first + kept[:count]


def _nodes_at(random, of: Sea, mask: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random places within half a step of random sea nodes of a mask (latitude, longitude)."""
    rows, columns = np.nonzero(mask)
    chosen = random.integers(0, len(rows), count)
    step = of.longitude[1] - of.longitude[0]
    shift = random.uniform(-0.4, 0.4, (2, count)) * step
    return of.longitude[columns[chosen]] + shift[0], of.latitude[rows[chosen]] + shift[1]


def _travel(lon, lat, distance, heading):
    """A place `distance` m away in direction `heading` (radians clockwise from north), on a flat neighbourhood."""
    north = np.rad2deg(distance * np.cos(heading) / EARTH_RADIUS)
    east = np.rad2deg(distance * np.sin(heading) / EARTH_RADIUS) / np.cos(np.deg2rad(lat))
    return lon + east, lat + north


def _cast(of, kind, platform, cast, lon, lat, time, depths, measures, number) -> pd.DataFrame:
    """Rows of casts: every cast at each of its depths. `measures` says per cast which variables are measured."""
    n, levels = len(lon), len(depths)
    rows = {
        "sea": np.full(n * levels, of.number, np.int8),
        "kind": np.full(n * levels, KINDS.index(kind), np.int8),
        "platform": np.repeat(platform, levels),
        "cast": np.repeat(cast, levels),
        "longitude": np.repeat(np.round(lon, 4), levels),
        "latitude": np.repeat(np.round(lat, 4), levels),
        "depth": np.tile(np.asarray(depths, np.float32), n),
        "time": np.repeat(time.astype("datetime64[m]"), levels),
        "cast_number": np.repeat(number, levels),
    }
    for name in VARIABLES:
        rows[name] = np.repeat(measures[name], levels)
    return pd.DataFrame(rows)


def _names(pattern: str, *numbers) -> np.ndarray:
    return np.array([pattern.format(*row) for row in zip(*numbers, strict=True)], dtype=object)


def _casts(of: Sea, shape: xr.Dataset, random: np.random.Generator) -> pd.DataFrame:
    """Where, when and what is measured: cruises, floats, moorings and ships of opportunity; values come later."""
    surface = shape["mask"].values[0].astype(bool)
    floor = shape["sea_floor_depth"].values
    counts, code = of.counts, of.name[0].upper()
    parts, number = [], 0

    def take(kind, platform, cast, lon, lat, time, depths, measures):
        nonlocal number
        first, last = MONTHS[0].astype("datetime64[m]"), (MONTHS[-1] + 1).astype("datetime64[m]")
        lon, lat = np.round(lon, 4), np.round(lat, 4)
        good = (time >= first) & (time < last)
        good &= (
            (lon >= of.longitude[0]) & (lon <= of.longitude[-1]) & (lat >= of.latitude[0]) & (lat <= of.latitude[-1])
        )
        good &= ~is_land(lon, lat, "50m")
        index = np.flatnonzero(good)
        which = number + np.arange(len(index))
        number += len(index)
        measures = {name: measures[name][index] for name in VARIABLES}
        parts.append(
            _cast(of, kind, platform[index], cast[index], lon[index], lat[index], time[index], depths, measures, which)
        )

    def measured(count, temperature, salinity, oxygen, chlorophyll):
        shares = {"temperature": temperature, "salinity": salinity, "oxygen": oxygen, "chlorophyll": chlorophyll}
        return {name: random.random(count) < shares[name] for name in VARIABLES}

    # Research cruises: stations along a slightly winding line, six hours apart.
    cruises, stations = counts["cruises"], counts["stations"]
    lon, lat = _nodes_at(random, of, surface, cruises)
    turns = random.normal(0, 0.3, (cruises, stations))
    turns[:, 0] = random.uniform(0, 2 * np.pi, cruises)
    heading = np.cumsum(turns, axis=1)
    step = of.length * random.uniform(0.1, 0.35, (cruises, 1)) * np.ones((1, stations))
    step[:, 0] = 0
    x, y = np.cumsum(step * np.sin(heading), 1), np.cumsum(step * np.cos(heading), 1)
    lon, lat = _travel(lon[:, None], lat[:, None], np.hypot(x, y), np.arctan2(x, y))
    time = _start_times(random, cruises)[:, None] + 360 * np.arange(stations)
    cruise, station = np.divmod(np.arange(cruises * stations), stations)
    take(
        "profile",
        _names("{}-ship-{:02d}", np.full(len(cruise), code), cruise % 17 + 1),
        _names("{}-C{:04d}-{:03d}", np.full(len(cruise), code), cruise + 1, station + 1),
        lon.ravel(), lat.ravel(), time.ravel(), of.levels,
        measured(cruises * stations, 0.99, 0.95, 0.4, 0.3),
    )  # fmt: skip

    # Profiling floats: a profile every ten days while they drift over water of at least the second-largest depth.
    floats, cycles = counts["floats"], counts["cycles"]
    lon, lat = _nodes_at(random, of, np.nan_to_num(floor) > of.depth[-3], floats)
    drift = random.normal(0, of.length / 12, (2, floats, cycles)) + random.normal(0, of.length / 40, (2, floats, 1))
    x, y = np.cumsum(drift, axis=2)
    lon, lat = _travel(lon[:, None], lat[:, None], np.hypot(x, y), np.arctan2(x, y))
    time = _start_times(random, floats)[:, None] + 14400 * np.arange(cycles)
    name, cycle = np.divmod(np.arange(floats * cycles), cycles)
    take(
        "profile",
        _names("{}-float-{:03d}", np.full(len(name), code), name + 1),
        _names("{}-F{:03d}-{:03d}", np.full(len(name), code), name + 1, cycle + 1),
        lon.ravel(), lat.ravel(), time.ravel(), of.levels,
        measured(floats * cycles, 1.0, 0.98, 0.3, 0.15),
    )  # fmt: skip

    # Moorings: every two days at four depths, each with one long outage.
    moorings = counts["moorings"]
    lon, lat = _nodes_at(random, of, surface & (np.nan_to_num(floor) > of.depth[3]), moorings)
    every = np.arange(MONTHS[0], MONTHS[-1] + 1, dtype="datetime64[D]")[::2].astype("datetime64[m]") + 720
    outage = random.integers(0, len(every) - 120, moorings)
    name, sample = np.divmod(np.arange(moorings * len(every)), len(every))
    works = (sample < outage[name]) | (sample >= outage[name] + 120)
    name, sample = name[works], sample[works]
    take(
        "time_series",
        _names("{}-mooring-{:02d}", np.full(len(name), code), name + 1),
        _names("{}-M{:02d}", np.full(len(name), code), name + 1),
        lon[name], lat[name], every[sample], of.depth[[1, 2, 3, 4]],
        measured(len(name), 0.99, 0.97, 0.5, 0.0),
    )  # fmt: skip

    # Ships of opportunity: the same lines again and again, a sample every six kilometres at four metres depth.
    routes, voyages = counts["lines"], counts["voyages"]
    ends = [_nodes_at(random, of, surface, routes) for _ in range(2)]
    (lon0, lat0), (lon1, lat1) = ends
    middle = np.cos(np.deg2rad((lat0 + lat1) / 2))
    distance = np.deg2rad(np.hypot((lon1 - lon0) * middle, lat1 - lat0)) * EARTH_RADIUS
    samples = np.clip(distance / 6e3, 20, 300).astype(int)
    start = _start_times(random, routes * voyages).reshape(routes, voyages)
    route = np.repeat(np.arange(routes), voyages * samples)
    order = np.concatenate([np.arange(voyages * s) for s in samples])
    voyage, along = np.divmod(order, samples[route])
    share = along / samples[route]
    take(
        "underway",
        _names("{}-ferry-{:02d}", np.full(len(route), code), route + 1),
        _names("{}-U{:02d}-{:02d}", np.full(len(route), code), route + 1, voyage + 1),
        lon0[route] + share * (lon1 - lon0)[route] + random.normal(0, 0.005, len(route)),
        lat0[route] + share * (lat1 - lat0)[route] + random.normal(0, 0.005, len(route)),
        start[route, voyage] + 12 * along, np.array([4.0]),
        measured(len(route), 0.99, 0.98, 0.0, 0.8),
    )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _observed(of: Sea, fields: xr.Dataset, shape: xr.Dataset, seed: int) -> pd.DataFrame:
    """Observations of one sea with true values, outliers and duplicates, not yet numbered."""
    reader, random = _Reader(of, fields), _random(seed, of, "noise")
    table = _casts(of, shape, _random(seed, of, "casts"))
    depth = table["depth"].to_numpy(float)
    true = reader(table["longitude"].to_numpy(), table["latitude"].to_numpy(), depth, table["time"].to_numpy())
    wet = np.isfinite(true["temperature"])
    wet &= table[list(VARIABLES)].to_numpy().any(axis=1)
    table, depth = table[wet].reset_index(drop=True), depth[wet]
    quality = _random(seed, of, "quality")
    for name in VARIABLES:
        value = true[name][wet]
        measured = table[name].to_numpy() & ~((name == "chlorophyll") & (depth > 200))
        noise = random.standard_normal(len(table)) * of.noise_sd(name, depth)
        seen = value * np.exp(noise) if name == "chlorophyll" else value + noise
        chance, size, sign = quality.random(len(table)), quality.uniform(6, 15, len(table)), quality.random(len(table))
        outlier = measured & (chance < OUTLIER_SHARE)
        error = np.where(sign < 0.5, -1, 1) * size * of.anomaly_sd(name, depth)
        if name == "chlorophyll":  # a wrong factor, never a negative concentration
            seen = np.where(outlier, value * np.exp(np.sign(error) * size * 0.35), seen)
        else:
            seen = np.where(outlier, value + error, seen)
        flagged = quality.random(len(table)) < np.where(outlier, OUTLIER_FLAGGED, GOOD_FLAGGED_BAD)
        grade = quality.random(len(table))
        flag = np.where(flagged, np.where(grade < 0.4, 3, 4), np.where(grade < 0.1, 2, 1))
        seen = np.round(seen / _STEP[name]) * _STEP[name]
        if name == "chlorophyll":
            seen = np.maximum(seen, _STEP[name])
        table[name] = np.where(measured, seen, np.nan).astype(np.float32)
        table[f"{name}_qc"] = np.where(measured, flag, 9).astype(np.int8)
        table[f"{name}_true"] = value.astype(np.float32)
        table[f"{name}_outlier"] = outlier
    return _with_duplicates(table[np.isfinite(table[list(VARIABLES)]).any(axis=1)].reset_index(drop=True), quality)


def _with_duplicates(table: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Some casts once more, as a second data centre would deliver them: other names, coarser place, time and values."""
    casts = table["cast_number"].unique()
    twice = random.choice(casts, round(DUPLICATED_CASTS * len(casts)), replace=False)
    again = np.flatnonzero(np.isin(table["cast_number"], twice))
    copy = table.iloc[again].copy()
    copy["platform"] = "other-" + copy["platform"]
    copy["cast"] = "other-" + copy["cast"]
    for column in ("longitude", "latitude"):
        copy[column] = copy[column].round(2)
    copy["time"] = copy["time"].to_numpy() + np.where(copy["cast_number"] % 2, 1, -1).astype("timedelta64[m]")
    first, last = MONTHS[0].astype("datetime64[s]"), (MONTHS[-1] + 1).astype("datetime64[s]") - 60
    copy["time"] = np.clip(copy["time"].to_numpy(), first, last)
    for name in VARIABLES:
        copy[name] = np.maximum(copy[name].round(3), 1e-3) if name == "chlorophyll" else copy[name].round(2)
    table["copy_of"], copy["copy_of"] = -1, again
    return pd.concat([table, copy], ignore_index=True)


def observations(
    fields: Mapping[str, xr.Dataset], shapes: Mapping[str, xr.Dataset], seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The observations of all seas in `fields`, and what is true of them: (observations, observations_truth).

    Both have one row per observation_id. Of an observation that is a copy, `duplicate_of` names the original; -1 else.
    """
    parts, offset = [], 0
    for name in fields:
        part = _observed(sea(name), fields[name], shapes[name], seed)
        part["copy_of"] = part["copy_of"].where(part["copy_of"] < 0, part["copy_of"] + offset)
        offset += len(part)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    # Numbers are given in random order, so that they do not tell the copies from the originals.
    number = _random(seed, next(iter(SEAS.values())), "small").permutation(len(table)) + 1
    copy_of = table["copy_of"].to_numpy()
    table["observation_id"] = number.astype(np.int64)
    table["duplicate_of"] = np.where(copy_of < 0, -1, number[copy_of]).astype(np.int64)
    outliers = [f"{name}_outlier" for name in VARIABLES]
    table["is_outlier"] = table[outliers].any(axis=1)
    table["kind"] = pd.Categorical.from_codes(table["kind"], categories=list(KINDS))
    table["time"] = table["time"].astype("datetime64[us]")
    for column in ("platform", "cast"):
        table[column] = table[column].astype("str")
    table = table.sort_values("observation_id", ignore_index=True)
    where = ["longitude", "latitude", "depth", "time"]
    flags = [f"{name}_qc" for name in VARIABLES]
    seen = table[["observation_id", "platform", "cast", "kind", *where, *VARIABLES, *flags]].copy()
    known = ["duplicate_of", "is_outlier", *outliers, *(f"{name}_true" for name in VARIABLES)]
    true = table[["observation_id", *where, *known]].copy()
    seen.attrs = {"columns": observation_columns(), **_says_synthetic("Observations of the ocean", seed)}
    true.attrs = {"columns": truth_columns(), **_says_synthetic("Truth about the observations of the ocean", seed)}
    return seen, true


def observation_columns() -> dict[str, dict]:
    """Units, names and meaning of the columns of the observations."""
    columns: dict[str, dict] = {
        "observation_id": {"long_name": "number of the observation"},
        "platform": {"long_name": "ship, float, mooring or ferry (invented)"},
        "cast": {"long_name": "profile, time series or voyage the observation belongs to"},
        "kind": {"long_name": "kind of observation", "categories": list(KINDS)},
        **PLACES,
    }
    for name, attributes in VARIABLES.items():
        columns[name] = {**attributes, "ancillary_variables": f"{name}_qc"}
    for name in VARIABLES:
        columns[f"{name}_qc"] = {
            "long_name": f"quality flag of {name}",
            "standard_name": "status_flag",
            "flag_values": list(FLAGS),
            "flag_meanings": " ".join(meaning.replace(" ", "_") for meaning in FLAGS.values()),
            "conventions": "SeaDataNet measurand qualifier flags (L20)",
        }
    return columns


def truth_columns() -> dict[str, dict]:
    """Units, names and meaning of the columns of the truth about the observations."""
    columns: dict[str, dict] = {"observation_id": {"long_name": "number of the observation"}, **PLACES}
    columns["duplicate_of"] = {"long_name": "number of the observation this one copies; -1 for an original"}
    columns["is_outlier"] = {"long_name": "whether any value of the observation is grossly wrong"}
    for name in VARIABLES:
        columns[f"{name}_outlier"] = {"long_name": f"whether the value of {name} is grossly wrong"}
    for name, attributes in VARIABLES.items():
        columns[f"{name}_true"] = {**attributes, "long_name": f"true {attributes['long_name']}"}
    return columns


# A small scene for the chains' questions ---------------------------------------------------------------------------

SMALL = Sea(
    name="small",
    title="A small sea",
    number=3,
    longitude=np.arange(24) * 0.5 - 6.0,
    latitude=np.arange(20) * 0.4 + 44.0,
    depth=np.array([0.0, 50.0]),
    length=200e3,
    floor=lambda lon, lat, offshore: offshore,
    mean=lambda lon, lat, depth, month: {
        "temperature": 16 - 0.4 * (lat - 44) - 0.04 * depth + 0 * lon,
        "salinity": 35.0 + 0.05 * (lon + 6) + 0.004 * depth + 0 * lat,
    },
    deviation={"temperature": (1.0, 0.6, 100.0), "salinity": (0.3, 0.2, 100.0)},
    mixing=60.0,
    levels=(0.0, 50.0),
    counts={},
)


def gridding(seed: int = 0) -> dict:
    """A small scene for `ocean.gridding`: {"inputs": {"observations", "domain"}, "parameters", "truth"}.

    24 by 20 nodes on two levels, an island, a bay that is land on the lower level only, 600 observations of temperature
    and salinity within one year, and the true fields (depth, latitude, longitude).
    """
    of, random = SMALL, _random(seed, SMALL, "small")
    lon, lat = np.meshgrid(of.longitude, of.latitude)
    island = np.hypot(lon + 1.0, (lat - 47.6) * 1.4) < 1.1
    coast = lat > 50.9 + 0.4 * np.sin(lon)
    shelf = lon > 4.6
    mask = np.stack([~(island | coast), ~(island | coast | shelf)])
    fields = {}
    for name in ("temperature", "salinity"):
        anomaly = anomalies(of, name, random, 1)[0]
        mean = of.mean(lon, lat, of.depth[:, None, None], np.zeros(()))[name]
        values = mean + of.anomaly_sd(name, of.depth)[:, None, None] * anomaly
        fields[name] = (("depth", "latitude", "longitude"), np.where(mask, values, np.nan), dict(VARIABLES[name]))
    true = xr.Dataset(fields, coords=_coordinates(of), attrs=_says_synthetic("A small sea: true fields", seed))
    level, row, column = np.nonzero(mask)
    chosen = random.integers(0, len(level), 600)
    place = (level[chosen], row[chosen], column[chosen])
    days = np.sort(random.integers(0, 365 * 1440, 600)).astype("timedelta64[m]")
    table = pd.DataFrame(
        {
            "observation_id": np.arange(1, 601, dtype=np.int64),
            "platform": pd.Series(_names("small-ship-{}", random.integers(1, 5, 600)), dtype="str"),
            "longitude": of.longitude[place[2]],
            "latitude": of.latitude[place[1]],
            "depth": of.depth[place[0]].astype(np.float32),
            "time": (np.datetime64("2012-01-01", "m") + days).astype("datetime64[us]"),
        }
    )
    for name in ("temperature", "salinity"):
        value = true[name].values[place] + random.standard_normal(600) * of.noise_sd(name, table["depth"])
        table[name] = value.astype(np.float32)
        table[f"{name}_qc"] = np.where(random.random(600) < 0.02, 4, 1).astype(np.int8)
    # A value that is flagged bad is far off, so that a chain which overlooks the flags is seen to do so.
    for name in ("temperature", "salinity"):
        bad = table[f"{name}_qc"] == 4
        table.loc[bad, name] += np.float32(20 * of.deviation[name][0])
    known = observation_columns()
    table.attrs = {
        "columns": {c: known[c] for c in table.columns},
        **_says_synthetic("A small sea: observations", seed),
    }
    shape = xr.Dataset(
        {
            "mask": (
                ("depth", "latitude", "longitude"),
                mask.astype(np.int8),
                {"units": "1", "standard_name": "sea_binary_mask", "long_name": "sea (1) or land and sea floor (0)"},
            )
        },
        coords=_coordinates(of),
        attrs=_says_synthetic("A small sea: grid and mask"),
    )
    parameters = {"variable": "temperature", "length": of.length, "noise": NOISE_TO_SIGNAL, "windows": "whole"}
    return {"inputs": {"observations": table, "domain": shape}, "parameters": parameters, "truth": true}


def quality(seed: int = 0) -> dict:
    """A small scene for `ocean.quality`: {"inputs": {"observations"}, "truth"}.

    60 profiles of ten levels in stratified water, of which twelve came twice, rounded and under other names; twelve values
    of temperature stick out by 15 degrees, and four are none that sea water has. The truth tells which.
    """
    random = _random(seed, SMALL, "quality")
    profiles, levels = 60, np.array([0.0, 10, 20, 30, 50, 75, 100, 150, 200, 300])
    rows = profiles * levels.size
    cast = np.repeat(np.arange(profiles), levels.size)
    depth = np.tile(levels, profiles)
    minutes = np.sort(random.integers(0, 365 * 1440, profiles)).astype("timedelta64[m]")
    table = pd.DataFrame(
        {
            "platform": pd.Series(_names("small-ship-{}", cast % 4 + 1), dtype="str"),
            "cast": pd.Series(_names("small-cast-{:02d}", cast), dtype="str"),
            "longitude": random.uniform(-6, 5, profiles).round(4)[cast],
            "latitude": random.uniform(44, 50, profiles).round(4)[cast],
            "depth": depth,
            "time": (np.datetime64("2012-01-01", "m") + minutes).astype("datetime64[us]")[cast],
            "temperature": (
                16 - depth / 30 + random.normal(0, 0.5, profiles)[cast] + random.normal(0, 0.05, rows)
            ).round(3),
            "temperature_qc": np.int8(1),
            "salinity": (35 + depth / 400 + random.normal(0, 0.02, rows)).round(3),
            "salinity_qc": np.int8(1),
        }
    )
    truth = pd.DataFrame({"copy_of": -1, "spike": False, "impossible": False}, index=table.index)
    wrong = random.choice(profiles, 16, replace=False) * levels.size + random.integers(2, 8, 16)
    table.loc[wrong[:12], "temperature"] += 15
    table.loc[wrong[12:], "temperature"] = 99.9
    truth.loc[wrong[:12], "spike"], truth.loc[wrong[12:], "impossible"] = True, True
    again = np.flatnonzero(np.isin(cast, random.choice(profiles, 12, replace=False)))
    copy = table.iloc[again].copy()
    for column, decimals in (("longitude", 2), ("latitude", 2), ("temperature", 2), ("salinity", 2)):
        copy[column] = copy[column].round(decimals)
    copy["time"] += np.timedelta64(1, "m")
    copy["platform"], copy["cast"] = "other-" + copy["platform"], "other-" + copy["cast"]
    table = pd.concat([table, copy], ignore_index=True)
    truth = pd.concat([truth, truth.iloc[again].assign(copy_of=again)], ignore_index=True)
    table.insert(0, "observation_id", random.permutation(len(table)) + 1)
    known = observation_columns()
    table.attrs = {"columns": {c: known[c] for c in table.columns}, **_says_synthetic("A small sea: profiles", seed)}
    return {"inputs": {"observations": table}, "truth": truth}
