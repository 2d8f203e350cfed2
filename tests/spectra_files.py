"""Small synthetic files of level 1B for tests: smooth spectra with noise, all flags, a wavelength for each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phidias_lab.methods.formats import l1b

FIRST = np.datetime64("2022-06-28T18:58:06", "ms")


def name(product: str = "RA_BD7", orbit: int = 24394, start: np.datetime64 = FIRST) -> str:
    start = start.astype("M8[s]")
    stop, created = start + np.timedelta64(6089, "s"), start + np.timedelta64(3, "h")
    return str(l1b.Name("TEST", product, start, stop, orbit, 2, "020000", created))


def wavelengths(rows: int, channels: int, first: float = 2305.0) -> np.ndarray:
    """In the middle of a row a tenth of a nanometre longer than at its ends: a smile."""
    row = np.linspace(-1, 1, rows)[:, None] if rows > 1 else np.zeros((1, 1))
    return (first + 0.1 * np.arange(channels) + 0.1 * (1 - row**2)).astype("f4")


def granule(
    scanlines: int = 12, rows: int = 5, channels: int = 16, *, band: int = 7, encoding: str = "float", sense: int = 1,
    orbit: int = 24394, start: np.datetime64 = FIRST, seed: int = 0,
) -> tuple[l1b.Granule, np.ndarray]:  # fmt: skip
    """A granule of signal to noise 100, and the radiances that it means, NaN where a channel is bad or missing."""
    random = np.random.default_rng(seed)
    shape = (scanlines, rows, channels)
    curve = 1 + 0.3 * np.sin(np.arange(channels) / 3)
    radiance = (random.lognormal(-15, 0.5, (scanlines, rows, 1)) * curve * random.normal(1, 0.01, shape)).astype("f4")
    quality = np.where(random.random(shape) < 0.1, 1 << random.integers(0, 8, shape), 0).astype("u1")
    missing = random.random(shape) < 0.05
    latitude = np.broadcast_to(np.linspace(-70, 80, scanlines)[:, None], (scanlines, rows))
    longitude = np.broadcast_to(np.linspace(170, 190, rows), (scanlines, rows))
    corners = np.array([-0.03, -0.03, 0.03, 0.03])
    moments = start + np.arange(scanlines) * np.timedelta64(840, "ms")
    seconds, milliseconds = l1b.encode_times(moments)
    place = random.random((8, *shape[:2])).astype("f4")
    stored = {
        "time": seconds,
        "delta_time": milliseconds,
        "scanline": np.arange(scanlines, dtype="i4"),
        "ground_pixel": np.arange(rows, dtype="i4"),
        "spectral_channel": np.arange(channels, dtype="i4"),
        "measurement_quality": random.integers(0, 17, (1, scanlines)).astype("u2"),
        "instrument_configuration": np.array([[(17, 2)] * scanlines], [("ic_id", "<i4"), ("ic_version", "<i2")]),
        "instrument_settings": np.array([[(1_080_000, 3)]], [("master_cycle_period_us", "<i4"), ("int_delay", "<i2")]),
        "radiance_noise": np.full((1, *shape), sense * 20, "i1"),
        "radiance_error": random.integers(-30, 30, (1, *shape)).astype("i1"),
        "quality_level": random.integers(0, 101, (1, *shape)).astype("u1"),
        "spectral_channel_quality": quality[None],
        "ground_pixel_quality": (random.integers(0, 8, (1, *shape[:2]))).astype("u1"),
        "latitude": latitude.astype("f4")[None],
        "longitude": ((longitude + 180) % 360 - 180).astype("f4")[None],
        "latitude_bounds": (latitude[..., None] + corners).astype("f4")[None],
        "longitude_bounds": (longitude[..., None] + corners[[0, 2, 3, 1]]).astype("f4")[None],
        "solar_zenith_angle": (30 + 40 * place[0])[None],
        "solar_azimuth_angle": (360 * place[1])[None],
        "viewing_zenith_angle": (60 * place[2])[None],
        "viewing_azimuth_angle": (360 * place[3])[None],
        "satellite_latitude": place[4, :, 0][None],
        "satellite_longitude": place[5, :, 0][None],
        "satellite_altitude": (817e3 + place[6, :, 0])[None],
        "earth_sun_distance": np.array([1.0165], "f4"),
        "nominal_wavelength": wavelengths(rows, channels)[None],
    }  # fmt: skip
    if encoding == "float":
        stored["radiance"] = np.where(missing, np.float32(l1b.FILL), radiance)[None]
    else:
        counts, scaling = l1b.encode_int16(np.where(missing, np.nan, radiance))
        stored["radiance_int16"], stored["radiance_scaling"] = counts[None], scaling[None]
        radiance = (counts * scaling[..., None]).astype("f4")
    bad = missing | np.isin(quality, [1, 2, 4, 16, 32, 64])
    attributes = {"orbit": np.int32(orbit), "synthetic": "true", "processor_version": "02.00.00"}
    return l1b.Granule(band, stored, attributes), np.where(bad, np.float32(np.nan), radiance)


def sun(wavelength: np.ndarray) -> np.ndarray:
    """A smooth irradiance with lines a nanometre wide."""
    wavelength = np.asarray(wavelength, "f8")
    return 5e-4 * (1 + 0.01 * (wavelength - 2305)) * (1 - 0.3 * np.exp(-((wavelength - 2305.8) ** 2)))


def irradiance(
    rows: int = 5, channels: int = 20, *, band: int = 7, orbit: int = 24390, factor: float = 1.0
) -> l1b.Irradiance:
    """Irradiances of `sun` on wavelengths of their own."""
    wavelength = (wavelengths(rows, channels) - np.float32(0.13)).astype("f4")
    seconds, milliseconds = l1b.encode_times(np.array([FIRST]))
    stored = {
        "time": seconds,
        "delta_time": milliseconds,
        "irradiance": (factor * sun(wavelength)).astype("f4")[None, None],
        "irradiance_noise": np.full((1, 1, rows, channels), 40, "i1"),
        "spectral_channel_quality": np.zeros((1, 1, rows, channels), "u1"),
        "calibrated_wavelength": wavelength[None],
    }
    return l1b.Irradiance(band, stored, {"orbit": np.int32(orbit), "synthetic": "true"})


def written(folder: Path, content: l1b.Granule, start: np.datetime64 = FIRST, **how) -> Path:
    from phidias_lab.products.l1b import write

    path = folder / name(f"RA_BD{content.band}", int(content.attributes["orbit"]), start)
    write(content, path, **how)
    return path
