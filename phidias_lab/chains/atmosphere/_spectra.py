"""What the chains of spectra share: the input, its blocks, which pixels are used, and spectra as a basis sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import shapely
import xarray as xr

from phidias_lab.contract import Input, Var
from phidias_lab.errors import InputError
from phidias_lab.methods import log_shapes, screening, strata

#: Scanlines of a block, counted from the first of each granule: what is read, scored and kept on disk at once.
LINES = 100
DIMS = ("scanline", "ground_pixel", "spectral_channel")
SPECTRA = Input(
    "cube",
    doc="spectra of level 1B: a file, a folder or a pattern of files of one band (S5P_OFFL_L1B_RA_BD7_*.nc; irradiances lie "
    "in the same folder), or a cube of the lake",
    default="atmosphere.spectra",
    dims=DIMS,
    variables={
        "radiance": Var(doc="spectral radiance; missing where a channel is bad"),
        "wavelength": Var("nm", doc="of each row of the detector"),
        "latitude": Var("degrees_north"),
        "longitude": Var("degrees_east"),
        "solar_zenith_angle": Var("degree", optional=True),
        "time": Var(doc="of each scanline"),
        "irradiance": Var(optional=True, doc="on the wavelengths of the radiances; without it radiances are screened"),
        "granule": Var(optional=True, doc="which file a scanline is from"),
        "ground_pixel_quality": Var(optional=True),
    },
)
#: The Earth shines by the Sun's light up to this wavelength, and by its heat beyond (nm).
HEAT = 4000.0
#: What no spectrum that is used may have, by the meanings of the flags; and no spectrum of sunlight.
UNUSABLE, DARK = ("geolocation_error",), ("solar_eclipse", "night")


#: Where the radiation belt reaches down to satellites and hits detectors: corners (longitude, latitude) of a rough outline.
ANOMALY = ((-90.0, -12.0), (-45.0, 2.0), (0.0, -15.0), (20.0, -32.0), (0.0, -55.0), (-60.0, -55.0), (-90.0, -35.0))


class Block(NamedTuple):
    """Some scanlines of one granule."""

    lines: slice
    granule: int


def check(spectra: xr.Dataset) -> None:
    """Refuse spectra whose variables do not fit each other."""
    if spectra["radiance"].dims != DIMS:
        raise InputError(
            f"The radiance of the input 'spectra' lies along {', '.join(map(str, spectra['radiance'].dims))}; expected "
            f"{', '.join(DIMS)}. Rename or transpose its dimensions."
        )
    wanted = ("granule", *DIMS[1:])
    for name in ("wavelength", "irradiance"):
        if name in spectra and spectra[name].dims not in (wanted, wanted[1:], wanted[2:]):
            raise InputError(
                f"The {name} of the input 'spectra' lies along {', '.join(map(str, spectra[name].dims))}; expected "
                f"{', '.join(wanted)}, or the last two or the last of them."
            )


def blocks(spectra: xr.Dataset) -> list[Block]:
    """Blocks of scanlines in their order, none of which holds two granules."""
    found = []
    granule = granules(spectra)
    borders = np.flatnonzero(np.diff(granule)) + 1
    for first, last in zip([0, *borders], [*borders, granule.size], strict=True):
        for start in range(first, last, LINES):
            found.append(Block(slice(start, min(start + LINES, last)), int(granule[first])))
    return found


def granules(spectra: xr.Dataset) -> np.ndarray:
    """The number of the granule of each scanline."""
    if "granule" in spectra and spectra["granule"].dims == ("scanline",):
        return np.asarray(spectra["granule"].values, np.int64)
    return np.zeros(spectra.sizes["scanline"], np.int64)


def names(spectra: xr.Dataset) -> list[str]:
    """What the granules are called."""
    if "granule_name" in spectra:
        return [str(name) for name in np.atleast_1d(spectra["granule_name"].values)]
    return [f"granule {number}" for number in range(int(granules(spectra).max()) + 1)]


def usable(part: xr.Dataset, largest_zenith: float, region: Any = None) -> np.ndarray:
    """Which pixels (lines, rows) of a few scanlines are screened: sunlit, in place, within the region."""
    good = np.isfinite(part["latitude"].values) & np.isfinite(part["longitude"].values)
    flags = (*UNUSABLE, *DARK) if part.attrs["sunlight"] else UNUSABLE
    if "solar_zenith_angle" in part and part.attrs["sunlight"]:
        good &= part["solar_zenith_angle"].values <= largest_zenith
    if "ground_pixel_quality" in part:
        good &= (part["ground_pixel_quality"].values & _mask(part["ground_pixel_quality"].attrs, flags)) == 0
    if region is not None:
        from phidias_lab.contract.parameters import region_contains

        good &= region_contains(region, part["longitude"].values, part["latitude"].values)
    return good


def in_anomaly(part: xr.Dataset) -> np.ndarray:
    """Which pixels lie in the South Atlantic anomaly."""
    ring = shapely.Polygon(ANOMALY)
    shapely.prepare(ring)
    longitude = np.mod(part["longitude"].values + 180.0, 360.0) - 180.0
    return shapely.contains_xy(ring, longitude, part["latitude"].values)


def _mask(attributes: Mapping[str, Any], meanings: tuple[str, ...]) -> int:
    """The bits of a flag variable (CF flag_masks and flag_meanings) that have these meanings."""
    words = str(attributes.get("flag_meanings", "")).split()
    masks = np.atleast_1d(attributes.get("flag_masks", [])).tolist()
    return int(sum(mask for word, mask in zip(words, masks, strict=False) if word in meanings))


class Light(NamedTuple):
    """What turns the radiances of a granule into reflectances, but for factors that are the same for all channels."""

    wavelength: np.ndarray  # (rows, m)
    sun: np.ndarray | None  # (rows, m), ln of the irradiance
    mean: np.ndarray | None = None  # (rows, m), the mean of a basis
    stripe: np.ndarray | None = None  # (rows, m), what each row of the detector adds to it


def light(
    spectra: xr.Dataset,
    granule: int,
    radiances: bool,
    basis: screening.Basis | None = None,
    stripe: np.ndarray | None = None,
) -> Light:
    """The wavelengths and the irradiance of each row of a granule, and there the mean of a basis and the rows' stripes."""

    def of(name: str) -> np.ndarray:
        values = spectra[name]
        values = values.isel(granule=granule) if "granule" in values.dims else values
        values = np.asarray(values.values, float)
        return values if values.ndim == 2 else np.broadcast_to(values, (spectra.sizes["ground_pixel"], values.size))

    sun = None
    if "irradiance" in spectra and not radiances:
        sun = of("irradiance")
        if not np.isfinite(sun).any():
            raise InputError(
                f"There is no irradiance for {names(spectra)[granule]}. Put the file of irradiances (S5P_..._L1B_IR_...) "
                "that was measured before it into the same folder, or set 'quantity' to radiance."
            )
        sun = np.log(np.where(sun > 0, sun, np.nan) / np.nanmean(sun)).astype(np.float32)
    wavelength, mean = of("wavelength"), None
    if basis is not None:
        inside = np.clip(wavelength, basis.wavelength[0], basis.wavelength[-1])
        mean = screening.curve(basis.wavelength, basis.mean)(inside).astype(np.float32)
    return Light(wavelength, sun, mean, None if stripe is None else stripe.astype(np.float32))


def shapes(radiance: np.ndarray, sun: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Spectra less what all their channels share (..., rows, m), and how bright they are; `sun` is ln of the irradiance."""
    return log_shapes.log_shape(radiance, sun), log_shapes.brightness(radiance)


def on_grid(y: np.ndarray, wavelength: np.ndarray, grid: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Spectra (n, m) of one row of the detector on the common grid, gaps bridged.

    What is interpolated, and bridged by straight lines, is the distance from the mean, which is given on the grid and is far
    less rough.
    """
    inside = np.clip(wavelength, grid[0], grid[-1])
    away = np.asarray(y, float) - screening.curve(grid, mean)(inside)
    good = np.isfinite(away)
    for i in np.flatnonzero(~good.all(axis=1)):
        some = good[i]
        away[i] = np.interp(wavelength, wavelength[some], away[i, some]) if some.any() else 0.0
    if not np.array_equal(wavelength, grid):
        away = screening.curve(wavelength, away, axis=1)(np.clip(grid, wavelength[0], wavelength[-1]))
    return (mean + away).astype(np.float32)


def lost(wavelength: np.ndarray, grid: np.ndarray) -> float:
    """By how much `on_grid` lowers the variance of white noise, as a mean over the channels."""
    weights = screening.curve(wavelength, np.eye(wavelength.size))(np.clip(grid, wavelength[0], wavelength[-1]))
    return float(np.mean(1 - np.sum(np.square(weights), axis=1)))


@dataclass(frozen=True)
class Level:
    """How noisy spectra are by their brightness, over the noise of the basis: a curve, level at its ends."""

    brightness: tuple[float, ...]
    level: tuple[float, ...]

    def of(self, brightness: np.ndarray) -> np.ndarray:
        return np.interp(brightness, self.brightness, self.level).astype(np.float32)

    def even(
        self, y: np.ndarray, mean: np.ndarray, brightness: np.ndarray, stripe: np.ndarray | None = None
    ) -> np.ndarray:
        """Spectra (..., m) without stripes and with the same noise for all: their distances from the mean over the level.

        `y` is changed."""
        log_shapes.scaled(y, mean if stripe is None else mean + stripe, 1 / self.of(brightness), mean)
        return y

    @classmethod
    def learnt(cls, brightness: np.ndarray, score: np.ndarray, least: float, classes: int = 24) -> Level:
        """The median of what is left of spectra in classes of equal number, `least` at least."""
        good = np.isfinite(brightness) & np.isfinite(score)
        order = np.argsort(brightness[good], kind="stable")
        b, s = brightness[good][order], score[good][order]
        parts = np.array_split(np.arange(b.size), max(min(classes, b.size // 100), 1))
        at, level = zip(*[(float(np.median(b[p])), max(float(np.median(s[p])), least)) for p in parts], strict=True)
        at = np.maximum.accumulate(np.array(at) + 1e-6 * np.arange(len(at)))
        return cls(tuple(at.tolist()), level)


@dataclass(frozen=True)
class Strata:
    """Parts of the pixels that are judged alike: rows of the swath, how bright they are; the anomaly is one of its own."""

    rows: tuple[float, ...]
    brightness: tuple[float, ...]  # edges of the logarithm of the radiance; the outer ones hold all that is beyond

    @property
    def axes(self) -> list[strata.Axis]:
        return [strata.Axis("rows", self.rows), strata.Axis("ln radiance", self.brightness)]

    @property
    def names(self) -> list[str]:
        return [*strata.names(self.axes), "South Atlantic anomaly"]

    def of(self, brightness: np.ndarray, anomaly: np.ndarray, row: np.ndarray | None = None) -> np.ndarray:
        """The stratum of pixels (lines, rows), or of any of given rows; -1 where the brightness is not known."""
        row = np.broadcast_to(np.arange(brightness.shape[-1]), brightness.shape) if row is None else row
        held = np.clip(brightness, self.brightness[0], self.brightness[-1])
        found = strata.assign(self.axes, np.clip(row, self.rows[0], self.rows[-1]), held)
        return np.where(anomaly & (found >= 0), len(self.names) - 1, found)


def equal_rows(number: int, parts: int) -> tuple[float, ...]:
    """Edges of equal parts of so many rows."""
    return tuple(float(edge) for edge in np.unique(np.linspace(0, number, min(parts, number) + 1).round()))


def iterate(spectra: xr.Dataset, needed: tuple[str, ...]) -> Iterator[tuple[Block, xr.Dataset]]:
    """The blocks with these variables in memory, one after the other."""
    some = spectra[[name for name in needed if name in spectra]]
    some = some.assign_attrs(sunlight=bool(np.nanmin(np.asarray(spectra["wavelength"].values)) < HEAT))
    for block in blocks(spectra):
        yield block, some.isel(scanline=block.lines).compute()
