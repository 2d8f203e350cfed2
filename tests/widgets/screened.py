"""What a screening of spectra gives, made by a program: pixels along an orbit, spectra of some of them, events."""

from __future__ import annotations

import numpy as np
import pandas as pd
import shapely
import xarray as xr

GASES = np.array(["CO", "CH4", "unknown"], dtype=object)


def places(lines: int, pixels: int, start: float = 0.0, span: float = 86.0) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude along half of a near-polar orbit with a swath of 2600 km, which crosses the equator at the
    longitude `start`."""
    along = np.radians(np.linspace(-span, span, lines))
    tilt = np.radians(98.7)
    below = np.stack([np.cos(along), np.sin(along) * np.cos(tilt), np.sin(along) * np.sin(tilt)], -1)
    ahead = np.stack([-np.sin(along), np.cos(along) * np.cos(tilt), np.cos(along) * np.sin(tilt)], -1)
    across = np.linspace(-1, 1, pixels)
    across = 1300 / 6371 * np.sign(across) * (0.6 * np.abs(across) + 0.4 * across**2)  # wider at the edge
    point = below[:, None] * np.cos(across)[:, None] + np.cross(below, ahead)[:, None] * np.sin(across)[:, None]
    turned = np.degrees(along) / 360 * 25.4  # the Earth turns below
    lon = np.degrees(np.arctan2(point[..., 1], point[..., 0])) + start - turned[:, None]
    return np.mod(lon + 180, 360).astype("f4") - 180, np.degrees(np.arcsin(point[..., 2])).astype("f4")


def synthetic(
    lines: int = 300, pixels: int = 40, start: float = 20.0, channels: int = 120, seed: int = 0
) -> xr.Dataset:
    """Scores that are 1 but for noise and an event of CO around the middle, and the spectra of the highest scores."""
    random = np.random.default_rng(seed)
    lon, lat = places(lines, pixels, start)
    shape = (lines, pixels)
    line, pixel = np.indices(shape)
    plume = np.exp(-(((line - lines / 2) / 6) ** 2) - ((pixel - pixels / 2) / 3) ** 2)
    snr = random.normal(size=(3, *shape))
    snr[0] += 30 * plume
    score = 1 + 0.05 * random.normal(size=shape) + 4 * plume
    score[: lines // 20] = np.nan  # night
    kind = np.where(np.isnan(score), 1, np.where(plume > 0.1, 2, 0)).astype(np.int8)
    chosen = np.argsort(np.nan_to_num(score).ravel())[::-1][:12]
    at = np.unravel_index(chosen, shape)
    wavelength = np.linspace(2305.0, 2385.0, channels)
    peaks = ((2315, 2335, 2355), (2320, 2368), (2345,))
    template = np.array([sum(np.exp(-(((wavelength - w) / 2) ** 2)) for w in each) for each in peaks])
    template /= np.linalg.norm(template, axis=1, keepdims=True)
    amplitude = snr[:, at[0], at[1]].T
    pixels_dims, spectra_dims = ("scanline", "ground_pixel"), ("selected", "spectral_channel")
    per_gas = ("gas", *pixels_dims)
    seconds = np.datetime64("2022-06-28T18:58:06", "ns") + np.arange(lines) * np.timedelta64(1080, "ms")
    explained = "amplitude: amplitude template: template snr: selected_snr"
    return xr.Dataset(
        {
            "score": (pixels_dims, score.astype("f4"), {"units": "1", "long_name": "reconstruction score"}),
            "false_alarm_rate": (
                pixels_dims,
                np.exp(-3 * np.maximum(score - 1, 0)).astype("f4"),
                {"units": "1", "long_name": "false alarm rate"},
            ),
            "class": (
                pixels_dims,
                kind,
                {
                    "long_name": "class of pixel",
                    "flag_values": np.array([0, 1, 2, 3], np.int8),
                    "flag_meanings": "nothing masked carbon_monoxide unknown_gas",
                },
            ),
            "event": (pixels_dims, np.where(plume > 0.1, 7, 0), {"long_name": "event", "label_of": "event"}),
            "snr": (per_gas, snr.astype("f4"), {"units": "1", "long_name": "signal to noise ratio"}),
            "residual": (
                spectra_dims,
                amplitude @ template + random.normal(size=(chosen.size, channels)),
                {
                    "units": "1",
                    "long_name": "residual over its noise",
                    "explained_by": explained,
                    "coordinates": "selected_latitude selected_longitude selected_time",
                },
            ),
            "selected_radiance": (
                spectra_dims,
                1e-7 * (1 + 0.2 * np.sin(wavelength / 7)) * np.ones((chosen.size, 1)),
                {"units": "mol m-2 s-1 nm-1 sr-1", "long_name": "radiance"},
            ),
            "template": (("gas", "spectral_channel"), template, {"units": "1", "long_name": "signature"}),
            "amplitude": (("selected", "gas"), amplitude, {"units": "1"}),
            "selected_snr": (("selected", "gas"), amplitude, {"units": "1", "long_name": "signal to noise ratio"}),
            "selected_event": ("selected", np.where(plume > 0.1, 7, 0)[at]),
        },
        {
            "latitude": (pixels_dims, lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": (pixels_dims, lon, {"standard_name": "longitude", "units": "degrees_east"}),
            "time": ("scanline", seconds),
            "gas": ("gas", GASES),
            "wavelength": (
                "spectral_channel",
                wavelength,
                {"standard_name": "radiation_wavelength", "units": "nm", "long_name": "wavelength"},
            ),
            "selected_latitude": ("selected", lat[at], {"standard_name": "latitude", "units": "degrees_north"}),
            "selected_longitude": ("selected", lon[at], {"standard_name": "longitude", "units": "degrees_east"}),
            "selected_time": ("selected", seconds[at[0]]),
        },
        {"synthetic": "true", "title": "synthetic screening"},
    )


def synthetic_events() -> pd.DataFrame:
    """Five events, one of them across the date line."""
    corners = [(10, 45, 3), (-60, -10, 2), (178, 66, 2), (100, 20, 0.2), (30, -25, 1)]
    shapes = [shapely.box(x - d, y - d, x + d, y + d) for x, y, d in corners]
    shapes[2] = shapely.MultiPolygon([shapely.box(165, 64, 180, 68), shapely.box(-180, 64, -178, 68)])
    table = pd.DataFrame(
        {
            "event": np.arange(1, 6),
            "time": pd.to_datetime(
                ["2022-06-28 19:10", "2022-06-28 20:50", "2022-06-29 01:05", "2022-06-30 00:00", "2022-07-01 12:00"]
            ),
            "kind": ["CO", "CH4", "CO", "unknown", "CO"],
            "snr": [31.5, 8.2, 12.0, 6.1, 9.9],
            "pixels": [120, 33, 48, 4, 12],
            "geometry": pd.Series(shapes, dtype=object),
        }
    )
    table.attrs = {"synthetic": "true", "columns": {"snr": {"units": "1"}, "pixels": {"units": "1"}}}
    return table
