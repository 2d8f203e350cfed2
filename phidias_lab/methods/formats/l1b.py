"""Level 1B files of Sentinel-5P/TROPOMI: names, groups, variables, flags, and how numbers are encoded in them.

The layout is that which three public readers agree on: HARP 1.29 (ingestion definitions S5P_L1B_RA_BDx, S5P_L1B_IR),
pys5p (l1b_io.py) and QDOAS (tropomi_read.cpp). Numbers of channels, types and fill values of variables that a file holds
are taken from the file; those here are what is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from phidias_lab.methods.formats.observations import NotReadable

#: The detector of each band and the wavelengths in nm it is made for (Veefkind et al. 2012, Remote Sensing of Environment
#: 120, 70-83; the CEOS handbook's instrument 942 has the same NIR and SWIR). Which part of them a band covers stands in the
#: file's own nominal_wavelength.
DETECTORS = {"UV": (270.0, 320.0), "UVIS": (320.0, 490.0), "NIR": (710.0, 775.0), "SWIR": (2305.0, 2385.0)}
BANDS = {1: "UV", 2: "UV", 3: "UVIS", 4: "UVIS", 5: "NIR", 6: "NIR", 7: "SWIR", 8: "SWIR"}
STREAMS = ("OFFL", "RPRO", "NRTI", "TEST")
#: Which bands each file of irradiances holds.
IRRADIANCES = {"UVN": range(1, 7), "SIR": range(7, 9)}
MODE, OBSERVATIONS, GEODATA, INSTRUMENT = "STANDARD_MODE", "OBSERVATIONS", "GEODATA", "INSTRUMENT"
#: Times of a file count from here.
EPOCH = np.datetime64("2010-01-01", "ns")

_NAME = re.compile(
    r"S5P_(?P<stream>[A-Z]{4})_L1B_(?P<product>RA_BD[1-8]|IR_UVN|IR_SIR)_(?P<start>\d{8}T\d{6})_(?P<stop>\d{8}T\d{6})"
    r"_(?P<orbit>\d{5})_(?P<collection>\d{2})_(?P<processor>\d{6})_(?P<created>\d{8}T\d{6})\.nc"
)


@dataclass(frozen=True)
class Name:
    """What the name of a file says; `product` is RA_BD1 to RA_BD8, IR_UVN or IR_SIR."""

    stream: str
    product: str
    start: np.datetime64
    stop: np.datetime64
    orbit: int
    collection: int
    processor: str
    created: np.datetime64

    @property
    def bands(self) -> tuple[int, ...]:
        """The bands the file holds: one of radiances, several of irradiances."""
        kind, _, which = self.product.partition("_")
        return (int(which[2:]),) if kind == "RA" else tuple(IRRADIANCES[which])

    def __str__(self) -> str:
        start, stop, created = (re.sub("[-:]", "", str(t)) for t in (self.start, self.stop, self.created))
        return (
            f"S5P_{self.stream}_L1B_{self.product}_{start}_{stop}_{self.orbit:05d}"
            f"_{self.collection:02d}_{self.processor}_{created}.nc"
        )


def parse_name(name: str) -> Name:
    """The parts of a file's name; a name of another kind is `NotReadable`."""
    found = _NAME.fullmatch(name)
    if not found or found["stream"] not in STREAMS:
        raise NotReadable(
            "its name is not that of a Sentinel-5P level 1B file (S5P_OFFL_L1B_RA_BD7_..., IR_SIR or IR_UVN)."
        )
    part = found.groupdict()
    try:
        start, stop, created = (_moment(part[key]) for key in ("start", "stop", "created"))
    except ValueError:
        raise NotReadable("its name holds a date that does not exist.") from None
    return Name(
        part["stream"],
        part["product"],
        start,
        stop,
        int(part["orbit"]),
        int(part["collection"]),
        part["processor"],
        created,
    )


def _moment(text: str) -> np.datetime64:
    return np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:]}", "s")


@dataclass(frozen=True)
class Flags:
    """Bits of one variable with their CF meanings."""

    bits: dict[str, int]

    def attributes(self, dtype: Any) -> dict[str, Any]:
        return {
            "flag_masks": np.array(list(self.bits.values()), dtype),
            "flag_meanings": " ".join(self.bits),
        }


#: Bits as QDOAS reads them; 8 and 128 stand for undefined and underflow.
CHANNEL_QUALITY = Flags(
    {
        "missing": 1, "bad_pixel": 2, "processing_error": 4, "undefined": 8, "saturated": 16, "transient": 32, "rts": 64,
        "underflow": 128,
    }
)  # fmt: skip
#: A channel with one of these is not used.
BAD_CHANNEL = np.uint8(1 | 2 | 4 | 16 | 32 | 64)
GROUND_PIXEL_QUALITY = Flags(
    {
        "solar_eclipse": 1, "sun_glint_possible": 2, "descending": 4, "night": 8, "geo_boundary_crossing": 16,
        "geolocation_error": 32,
    }
)  # fmt: skip
_FLAGS = {"spectral_channel_quality": CHANNEL_QUALITY, "ground_pixel_quality": GROUND_PIXEL_QUALITY}


@dataclass(frozen=True)
class Stored:
    """How one variable is stored; a `dtype` of None is compound, with the fields that the array has."""

    group: str
    dims: tuple[str, ...]
    dtype: str | None
    units: str = ""
    fill: float | None = None
    long_name: str = ""

    @property
    def spectral(self) -> bool:
        """Whether it has a value per scanline, pixel and channel, which is what makes a file large."""
        return "scanline" in self.dims and "spectral_channel" in self.dims

    def attributes(self, name: str) -> dict[str, Any]:
        words = {"long_name": self.long_name, "units": self.units}
        flags = _FLAGS[name].attributes(self.dtype) if name in _FLAGS else {}
        return {key: value for key, value in words.items() if value} | flags


FILL = float(np.float32(9.969209968386869e36))  # NetCDF's own for floats
MISSING = 65535  # of radiance_int16
_LINE, _PIXEL, _CHANNEL = (("time", "scanline", "ground_pixel", "spectral_channel")[:n] for n in (2, 3, 4))
_SUN = ("time", "scanline", "pixel", "spectral_channel")
_RADIANCE = "mol m-2 s-1 nm-1 sr-1"
_IRRADIANCE = "mol m-2 s-1 nm-1"


def _spectral(name: str, dims: tuple[str, ...]) -> dict[str, Stored]:
    noise = "decibel: of the signal-to-noise ratio, or of the relative noise"
    return {
        f"{name}_noise": Stored(OBSERVATIONS, dims, "i1", "1", -127, f"noise of the {name} in {noise}"),
        f"{name}_error": Stored(OBSERVATIONS, dims, "i1", "1", -127, f"systematic error of the {name} in {noise}"),
        "quality_level": Stored(OBSERVATIONS, dims, "u1", "1", 255, "quality level, 0 to 100"),
        "spectral_channel_quality": Stored(OBSERVATIONS, dims, "u1", "1", None, "quality of each spectral channel"),
    }


def _times(rows: str) -> dict[str, Stored]:
    return {
        "time": Stored(OBSERVATIONS, ("time",), "i4", "seconds since 2010-01-01 00:00:00", None, "reference time"),
        "delta_time": Stored(OBSERVATIONS, _LINE, "i4", "milliseconds", None, "offset from the reference time"),
        "scanline": Stored(OBSERVATIONS, ("scanline",), "i4", "1", None, "number of the scanline in the orbit"),
        rows: Stored(OBSERVATIONS, (rows,), "i4", "1", None, "number of the pixel across the flight direction"),
        "spectral_channel": Stored(OBSERVATIONS, ("spectral_channel",), "i4", "1", None, "number of the channel"),
        "measurement_quality": Stored(OBSERVATIONS, _LINE, "u2", "1", None, "quality of the measurement"),
        "instrument_configuration": Stored(INSTRUMENT, _LINE, None),
        "instrument_settings": Stored(INSTRUMENT, ("time", "nsettings"), None),
    }


def _geo(name: str, units: str = "degree", dims: tuple[str, ...] = _PIXEL) -> dict[str, Stored]:
    return {name: Stored(GEODATA, dims, "f4", units, FILL, name.replace("_", " "))}


#: The variables of a file of radiances. A file has `radiance`, or `radiance_int16` with `radiance_scaling`.
RADIANCE: dict[str, Stored] = {
    **_times("ground_pixel"),
    "radiance": Stored(OBSERVATIONS, _CHANNEL, "f4", _RADIANCE, FILL, "spectral photon radiance"),
    "radiance_int16": Stored(
        OBSERVATIONS, _CHANNEL, "u2", "1", MISSING, "spectral photon radiance by radiance_scaling"
    ),
    "radiance_scaling": Stored(OBSERVATIONS, _PIXEL, "f4", _RADIANCE, FILL, "factor of radiance_int16"),
    **_spectral("radiance", _CHANNEL),
    "ground_pixel_quality": Stored(OBSERVATIONS, _PIXEL, "u1", "1", None, "quality of each ground pixel"),
    "selected": Stored(OBSERVATIONS, _PIXEL, "u1", "1", None, "1 where the spectrum was kept, 0 where it was left out"),
    **_geo("latitude", "degrees_north"),
    **_geo("longitude", "degrees_east"),
    **_geo("latitude_bounds", "degrees_north", (*_PIXEL, "ncorner")),
    **_geo("longitude_bounds", "degrees_east", (*_PIXEL, "ncorner")),
    **_geo("solar_zenith_angle"),
    **_geo("solar_azimuth_angle"),
    **_geo("viewing_zenith_angle"),
    **_geo("viewing_azimuth_angle"),
    **_geo("satellite_latitude", "degrees_north", _LINE),
    **_geo("satellite_longitude", "degrees_east", _LINE),
    **_geo("satellite_altitude", "m", _LINE),
    **_geo("earth_sun_distance", "astronomical_unit", ("time",)),
    "nominal_wavelength": Stored(
        INSTRUMENT, ("time", "ground_pixel", "spectral_channel"), "f4", "nm", FILL, "nominal wavelength of each row"
    ),
}
#: The variables of one band in a file of irradiances.
IRRADIANCE: dict[str, Stored] = {
    **_times("pixel"),
    "irradiance": Stored(OBSERVATIONS, _SUN, "f4", _IRRADIANCE, FILL, "spectral photon irradiance"),
    **_spectral("irradiance", _SUN),
    "calibrated_wavelength": Stored(
        INSTRUMENT, ("time", "pixel", "spectral_channel"), "f4", "nm", FILL, "calibrated wavelength of each row"
    ),
}


@dataclass(frozen=True)
class _Content:
    """One band of one file: arrays exactly as stored, with the leading dimension of one time, and global attributes.

    The large arrays of a file that was opened may be lazy; `np.asarray` of one reads it.
    """

    band: int
    arrays: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    #: Fill values that are not those of the layout.
    fills: dict[str, Any] = field(default_factory=dict)

    def fill(self, name: str) -> Any:
        return self.fills.get(name, self.layout[name].fill)

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def sizes(self) -> dict[str, int]:
        """Lengths of the dimensions; arrays that do not fit together are `NotReadable`."""
        found: dict[str, int] = {}
        for name, array in self.arrays.items():
            if name not in self.layout:
                raise NotReadable(f"{name!r} is no variable of this kind of file.")
            dims = self.layout[name].dims
            if len(array.shape) != len(dims):
                raise NotReadable(f"{name} has {len(array.shape)} dimensions, not {len(dims)}: {', '.join(dims)}.")
            for dim, size in zip(dims, array.shape, strict=True):
                if found.setdefault(dim, size) != size:
                    raise NotReadable(f"{name} is {size} long in {dim}, other variables are {found[dim]}.")
        return found


@dataclass(frozen=True)
class Granule(_Content):
    """A file of radiances."""

    layout = RADIANCE
    group = property(lambda self: f"BAND{self.band}_RADIANCE/{MODE}")


@dataclass(frozen=True)
class Irradiance(_Content):
    """One band of a file of irradiances."""

    layout = IRRADIANCE
    group = property(lambda self: f"BAND{self.band}_IRRADIANCE/{MODE}")


def times(time: np.ndarray, delta_time: np.ndarray) -> np.ndarray:
    """The moment of each scanline: 2010-01-01 + time in s + delta_time in ms; days have 86 400 s."""
    seconds, milliseconds = (np.asarray(a).astype("i8") for a in (time, delta_time))
    return EPOCH + seconds.reshape(-1)[0].astype("m8[s]") + milliseconds.reshape(-1).astype("m8[ms]")


def encode_times(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(`time`, `delta_time`) of moments, to the millisecond: the reference is the midnight before the first."""
    moments = np.asarray(moments, "datetime64[ns]")
    day = moments[0].astype("datetime64[D]")
    seconds = (day - EPOCH.astype("datetime64[D]")) // np.timedelta64(1, "s")
    milliseconds = np.round((moments - day) / np.timedelta64(1, "ms"))
    return np.array([seconds], "i4"), milliseconds.astype("i4")[None]


def encode_int16(radiance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(`radiance_int16`, `radiance_scaling`): the largest of a spectrum is 65534; NaN is missing, negative becomes 0."""
    known = np.isfinite(radiance)
    largest = np.where(known, radiance, 0).max(axis=-1)
    scaling = (np.where(largest > 0, largest, 1) / (MISSING - 1)).astype("f4")
    counts = np.rint(np.clip(np.where(known, radiance, 0) / scaling[..., None], 0, MISSING - 1))
    return np.where(known, counts, MISSING).astype("u2"), scaling


def decode_int16(counts: np.ndarray, scaling: np.ndarray, missing: int = MISSING) -> np.ndarray:
    """The radiance as float32, NaN where missing."""
    radiance = counts * np.asarray(scaling, "f4")[..., None]
    np.copyto(radiance, np.nan, where=counts == missing)
    return radiance


#: A median signal-to-noise ratio outside this is not believed; in decibel it is 0 to 30.
PLAUSIBLE = (1.0, 1000.0)


def decibel_sense(values: np.ndarray) -> int:
    """+1 where decibels are of the signal-to-noise ratio, -1 where of the relative noise, 0 where they do not tell.

    QDOAS reads the noise as radiance / 10^(v/10), HARP as radiance x 10^(v/10); files speak for either. The values decide:
    the sense in which the median signal-to-noise ratio lies between 1 and 1000. Give those of sunlit pixels without fill
    values: at night the ratio is below 1, and the two senses change places.
    """
    if not values.size:
        return 0
    median = float(np.median(values))
    low, high = (10 * np.log10(edge) for edge in PLAUSIBLE)
    fits = [sense for sense in (1, -1) if low < sense * median <= high]
    return fits[0] if fits else 0


#: 10^(-v/10) for every int8 v, at index v + 128.
_RELATIVE = 10.0 ** (-np.arange(-128, 128) / 10)


def decode_noise(radiance: np.ndarray, decibel: np.ndarray, sense: int, fill: int = -127) -> np.ndarray:
    """Standard deviation in units of the radiance; NaN where the radiance or the decibel is missing or the sense is 0."""
    table = (_RELATIVE if sense > 0 else 1 / _RELATIVE).astype("f4")
    table[fill + 128] = np.nan
    if not sense:
        table[:] = np.nan
    noise = table[np.asarray(decibel, "i1").view("u1") ^ np.uint8(128)]
    noise *= np.abs(radiance)
    return noise


def encode_noise(radiance: np.ndarray, noise: np.ndarray, sense: int, fill: int = -127) -> np.ndarray:
    """Decibels in whole numbers, which is how coarse a file is; `fill` where the ratio is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = sense * 10 * np.log10(np.abs(radiance) / noise)
    known = np.isfinite(decibel)
    return np.where(known, np.clip(np.rint(np.where(known, decibel, 0)), -126, 127), fill).astype("i1")


def select(granule: Granule, pixels: np.ndarray) -> Granule:
    """The granule with the spectra of these pixels alone: a mask (scanline, ground_pixel).

    Scanlines without a chosen pixel are left out; in the others the spectra of other pixels are filled, and `selected`
    says which are real. Everything that is not spectral stays for all pixels of a scanline, and `scanline` keeps the
    number in the orbit. So the file is one that every reader of level 1B reads, with the right time, place, row and
    wavelengths of each spectrum; a list of pixels would be one that only this program reads. Filled spectra deflate to half
    a percent (1 % of the pixels, scattered, make 2 % of the file) and need no memory, since arrays that are lazy stay lazy.
    """
    sizes = granule.sizes()
    pixels = np.asarray(pixels, bool)
    if pixels.shape != (sizes["scanline"], sizes["ground_pixel"]):
        raise ValueError(
            f"The mask is {pixels.shape}; the granule has {sizes['scanline']} scanlines of {sizes['ground_pixel']} pixels."
        )
    lines = np.flatnonzero(pixels.any(axis=1))
    kept = pixels[lines]
    arrays = {}
    for name, array in granule.arrays.items():
        stored = RADIANCE[name]
        if "scanline" in stored.dims:
            array = array[(slice(None),) * stored.dims.index("scanline") + (lines,)]
        if stored.spectral:
            array = np.where(kept[None, :, :, None], array, np.array(_nothing(granule, name), array.dtype))
        arrays[name] = array
    if "scanline" not in arrays:
        arrays["scanline"] = lines.astype("i4")
    arrays["selected"] = kept.astype("u1")[None]
    return replace(granule, arrays=arrays)


#: What stands where nothing was kept of a variable without a fill value.
_NOTHING = {
    "spectral_channel_quality": CHANNEL_QUALITY.bits["missing"],
    "ground_pixel_quality": GROUND_PIXEL_QUALITY.bits["geolocation_error"],
}


def _nothing(granule: Granule, name: str) -> Any:
    fill = granule.fill(name)
    return _NOTHING.get(name, 0) if fill is None else fill


@dataclass(frozen=True)
class Scattered:
    """The values of some pixels, in the order of their scanlines, as an array (1, scanline, ground_pixel, ...) that has
    `fill` elsewhere; scanlines are put together when they are asked for."""

    values: Any  # (pixel, ...), perhaps lazy
    line: np.ndarray
    row: np.ndarray
    shape: tuple[int, ...]
    fill: Any

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = key[1].indices(self.shape[1])
        mine = slice(*np.searchsorted(self.line, [start, stop]))
        made = np.full((1, stop - start, *self.shape[2:]), self.fill, self.dtype)
        made[0, self.line[mine] - start, self.row[mine]] = np.asarray(self.values[mine])
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:, :].astype(dtype or self.dtype, copy=False)


def of_pixels(band: int, pixels: dict[str, Any], line: np.ndarray, row: np.ndarray, whole: dict[str, Any],
    attributes: dict[str, Any], fills: dict[str, Any]) -> Granule:  # fmt: skip
    """The granule that `select` gives of a file, from what was kept of its selected pixels alone: what stands for the others
    of their scanlines is filled too.

    `pixels` holds values of each pixel, one after the other, of variables along scanline; `line` and `row` are their
    numbers; `whole` holds variables without scanlines as they are. Floating-point numbers that are missing (NaN) are filled.
    """
    order = np.lexsort((row, line))
    line, row = line[order], row[order]
    numbers, first, at = np.unique(line, return_index=True, return_inverse=True)
    rows, channels = whole["nominal_wavelength"].shape[1:]
    empty = Granule(band, {}, attributes, fills)
    arrays: dict[str, Any] = {
        **whole,
        "scanline": numbers.astype("i4"),
        "ground_pixel": np.arange(rows, dtype="i4"),
        "spectral_channel": np.arange(channels, dtype="i4"),
    }
    selected = np.zeros((1, numbers.size, rows), "u1")
    selected[0, at, row] = 1
    for name, values in pixels.items():
        stored = RADIANCE[name]
        if not np.array_equal(order, np.arange(order.size)):
            values = values[order]
        if stored.spectral:
            arrays[name] = Scattered(values, at, row, (1, numbers.size, rows, channels), _nothing(empty, name))
            continue
        values = np.asarray(values)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), values.dtype.type(empty.fill(name)), values)
        if "ground_pixel" in stored.dims:
            arrays[name] = np.full((1, numbers.size, rows, *values.shape[1:]), _nothing(empty, name), values.dtype)
            arrays[name][0, at, row] = values
        else:
            arrays[name] = values[first][None]
    arrays["nominal_wavelength"] = np.where(
        np.isnan(whole["nominal_wavelength"]), np.float32(FILL), whole["nominal_wavelength"]
    )
    return replace(empty, arrays=arrays | {"selected": selected})
