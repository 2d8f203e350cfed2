"""Synthetic satellite fields of the synthetic ocean, with known errors, in the structure of published files.

- `surface_salinity`: level 3 of SMOS, 10-day and monthly means at a quarter of a degree (names as in the debiased fields of
  CATDS, doi:10.12770/0f02fc28-cb86-4c44-89f3-ee7df6177e7b: `Sea_Surface_Salinity` and its error on `lat` and `lon`). Its
  random error is independent from cell to cell and mean to mean and grows northwards, as cold water tells an L-band
  radiometer less; to it comes a constant bias.
- `ocean_colour`: 8-day means of chlorophyll from north to south with gaps under clouds and in the dark (`CHL` and its
  error, which published files give in per cent). Its error is log-normal.
- `model_salinity`: the third source, monthly at half a degree, whose smooth error has nothing to do with the others.

The true state is that of `ocean`, so observations and fields differ by what is known: noise of the instruments, the errors
here, and what a mean over ten days at the centre of a cell does not resolve. The names of variables are those of the
published files; sizes and rounding are not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.testing.scenes import ocean

#: Salinity, SMOS: bias, and standard deviation of the random error at 35 and 60 degrees north.
BIAS, ERROR_SOUTH, ERROR_NORTH = -0.10, 0.15, 0.30
#: Chlorophyll, ocean colour: factor, and standard deviation of the error of its natural logarithm.
FACTOR, LOG_ERROR = 1.2, 0.35
#: Salinity, model: slope about 35, standard deviation of the error, its length in metres.
SLOPE, MODEL_ERROR, MODEL_LENGTH = 0.9, 0.12, 150e3
CLOUDY = 0.55
_PURPOSES = {"smos 10-day": 11, "smos monthly": 12, "colour": 13, "model": 14, "small": 15, "two grids": 16}


def _random(seed: int, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _PURPOSES[purpose]])))


def smos_error(latitude: np.ndarray) -> np.ndarray:
    """Standard deviation of the random error of `surface_salinity` at a latitude."""
    return ERROR_SOUTH + (ERROR_NORTH - ERROR_SOUTH) * (np.asarray(latitude, float) - 35.0) / 25.0


def decades(year: int) -> np.ndarray:
    """Bounds (36, 2) of the ten-day parts of a year: from the 1st, 11th and 21st of each month."""
    months = np.arange(f"{year}-01", f"{year + 1}-01", dtype="datetime64[M]")
    starts = (months.astype("datetime64[D]")[:, None] + np.array([0, 10, 20])).ravel()
    return np.column_stack([starts, np.r_[starts[1:], np.datetime64(f"{year + 1}-01-01")]]).astype("datetime64[s]")


def months(first: str, stop: str) -> np.ndarray:
    """Bounds of the calendar months from `first` up to but without `stop`."""
    starts = np.arange(first, stop, dtype="datetime64[M]")
    return np.column_stack([starts, starts + 1]).astype("datetime64[s]")


def eights(year: int) -> np.ndarray:
    """Bounds (46, 2) of the 8-day parts of a year, the last of which is shorter."""
    starts = np.arange(f"{year}-01-01", f"{year + 1}-01-01", 8, dtype="datetime64[D]")
    return np.column_stack([starts, np.r_[starts[1:], np.datetime64(f"{year + 1}-01-01")]]).astype("datetime64[s]")


def _cells(axis: np.ndarray, step: float) -> np.ndarray:
    """Centres of cells between the first and the last node of an axis."""
    return np.arange(axis[0] + step / 2, axis[-1], step)


def _middles(bounds: np.ndarray) -> np.ndarray:
    return bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) // 2


def _true(of: ocean.Sea, fields: xr.Dataset, name: str, bounds: np.ndarray, lat, lon) -> np.ndarray:
    """The true surface values (step, lat, lon) in the middle of each step."""
    lon, lat = np.meshgrid(lon, lat)
    surface = ocean.surface(of, fields, name, lon.ravel(), lat.ravel())
    month = (
        _middles(bounds).astype("datetime64[M]") - fields["time_bounds"].values[0, 0].astype("datetime64[M]")
    ).astype(int)
    return surface[month].reshape(len(bounds), *lon.shape)


def _axes(bounds: np.ndarray, lat, lon, names=("lat", "lon")) -> dict:
    places = ocean.PLACES
    y, x = names
    return {
        "time": ("time", _middles(bounds), {**places["time"], "axis": "T", "bounds": "time_bounds"}),
        y: (y, lat, {**places["latitude"], "axis": "Y"}),
        x: (x, lon, {**places["longitude"], "axis": "X"}),
        "time_bounds": (("time", "bounds"), bounds),
    }


def surface_salinity(
    of: ocean.Sea, fields: xr.Dataset, bounds: np.ndarray, seed: int = 0, step: float = 0.25
) -> xr.Dataset:
    """Level-3 surface salinity of an L-band radiometer, one mean for each row of `bounds`."""
    lat, lon = _cells(of.latitude, step), _cells(of.longitude, step)
    true = _true(of, fields, "salinity", bounds, lat, lon)
    long = len(bounds) > 1 and (bounds[0, 1] - bounds[0, 0]) > np.timedelta64(20, "D")
    random = _random(seed, "smos monthly" if long else "smos 10-day")
    error = smos_error(lat)[:, None]
    seen = true + BIAS + error * random.standard_normal(true.shape)
    salinity = {
        "units": "1e-3",
        "standard_name": "sea_surface_salinity",
        "long_name": "sea surface salinity (practical scale)",
        "cell_methods": "time: mean",
        "ancillary_variables": "Sea_Surface_Salinity_Error",
        "synthetic_bias": BIAS,
    }
    told = {
        "units": "1e-3",
        "standard_name": "sea_surface_salinity standard_error",
        "long_name": "standard deviation of the random error of sea surface salinity",
    }
    known = np.where(np.isfinite(true), error, np.nan)
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "Sea_Surface_Salinity": (dims, seen.round(2).astype(np.float32), salinity),
            "Sea_Surface_Salinity_Error": (dims, known.round(3).astype(np.float32), told),
        },
        coords=_axes(bounds, lat, lon),
        attrs=_says(f"{of.title}: surface salinity as of SMOS, level 3, {'monthly' if long else '10-day'}", seed),
    )


def ocean_colour(
    of: ocean.Sea, fields: xr.Dataset, bounds: np.ndarray, seed: int = 0, step: float = 0.125
) -> xr.Dataset:
    """Level-3 chlorophyll of an imager, from north to south, where there was light and no cloud."""
    lat, lon = _cells(of.latitude, step)[::-1], _cells(of.longitude, step)
    true = _true(of, fields, "chlorophyll", bounds, lat, lon)
    random = _random(seed, "colour")
    seen = FACTOR * true * np.exp(LOG_ERROR * random.standard_normal(true.shape))
    # Clouds are smooth patches, drawn on a coarser mesh.
    lon2, lat2 = np.meshgrid(lon, lat)
    centre = (float(lon.mean()), float(lat.mean()))
    x, y = (part[::4, ::4] for part in ocean.equal_area(lon2, lat2, centre))
    clouds = ocean.random_fields(random, len(bounds), x.ravel(), y.ravel(), 120e3).reshape(-1, *x.shape)
    clouds = clouds.repeat(4, axis=1).repeat(4, axis=2)[:, : lat.size, : lon.size]
    # Elevation of the sun at noon: declination by Cooper 1969 (Solar Energy 12, 333-346); above 20 degrees there is light.
    day = (_middles(bounds).astype("datetime64[D]") - _middles(bounds).astype("datetime64[Y]")).astype(int) + 1
    declination = 23.45 * np.sin(2 * np.pi * (284 + day) / 365)
    light = 90 - np.abs(lat[None, :] - declination[:, None]) > 20
    clear = clouds > np.quantile(clouds, CLOUDY)
    seen = np.where(clear & light[:, :, None], seen, np.nan)
    # Three digits, as an imager tells no more.
    digits = 10.0 ** (np.floor(np.log10(np.where(seen > 0, seen, 1.0))) - 2)
    seen = np.round(seen / digits) * digits
    chlorophyll = {
        "units": "mg m-3",
        "standard_name": "mass_concentration_of_chlorophyll_a_in_sea_water",
        "long_name": "chlorophyll-a concentration",
        "cell_methods": "time: mean",
        "ancillary_variables": "CHL_error",
        "synthetic_factor": FACTOR,
        "synthetic_log_error": LOG_ERROR,
    }
    told = {
        "units": "mg m-3",
        "standard_name": "mass_concentration_of_chlorophyll_a_in_sea_water standard_error",
        "long_name": "standard deviation of the error of the chlorophyll-a concentration",
    }
    dims = ("time", "lat", "lon")
    share = np.sqrt(np.expm1(LOG_ERROR**2))  # relative standard deviation of a log-normal error
    return xr.Dataset(
        {
            "CHL": (dims, seen.astype(np.float32), chlorophyll),
            "CHL_error": (dims, (np.round(share * seen / digits) * digits).astype(np.float32), told),
        },
        coords=_axes(bounds, lat, lon),
        attrs=_says(f"{of.title}: chlorophyll as of ocean colour, level 3, 8-day", seed),
    )


def model_salinity(
    of: ocean.Sea, fields: xr.Dataset, bounds: np.ndarray, seed: int = 0, step: float = 0.5
) -> xr.Dataset:
    """Surface salinity of a model, too smooth and with errors as wide as its eddies are misplaced."""
    lat, lon = _cells(of.latitude, step), _cells(of.longitude, step)
    true = _true(of, fields, "salinity", bounds, lat, lon)
    lon2, lat2 = np.meshgrid(lon, lat)
    x, y = ocean.equal_area(lon2, lat2, (float(lon.mean()), float(lat.mean())))
    wrong = ocean.random_fields(_random(seed, "model"), len(bounds), x.ravel(), y.ravel(), MODEL_LENGTH)
    made = 35 + SLOPE * (true - 35) + MODEL_ERROR * wrong.reshape(true.shape)
    salinity = {
        "units": "1e-3",
        "standard_name": "sea_surface_salinity",
        "long_name": "sea surface salinity of a model",
        "cell_methods": "time: mean",
        "synthetic_slope": SLOPE,
        "synthetic_error_standard_deviation": MODEL_ERROR,
    }
    return xr.Dataset(
        {"sea_surface_salinity": (("time", "latitude", "longitude"), made.round(2).astype(np.float32), salinity)},
        coords=_axes(bounds, lat, lon, ("latitude", "longitude")),
        attrs=_says(f"{of.title}: surface salinity of a model", seed),
    )


def _says(title: str, seed: int) -> dict[str, str]:
    return {
        "Conventions": "CF-1.11",
        "title": f"{title} (synthetic)",
        "source": f"synthetic: phidias_lab.testing.scenes.satellite, seed {seed}; not measured",
        "licence": "CC0-1.0",
        "synthetic": "true",
    }


def comparison(seed: int = 0) -> dict:
    """A small scene for `ocean.comparison`: {"inputs": {"observations", "field", "third"}, "parameters", "truth"}.

    Four months of a small sea; a float in each of 1200 places measures salinity at one time. The errors of all three sources
    are independent and known: "truth" holds their standard deviations, the bias and the slope.
    """
    random = _random(seed, "small")
    bounds = months("2014-01", "2014-05")
    lat, lon = np.arange(40.125, 48, 0.25), np.arange(-19.875, -8, 0.25)
    wave = 0.4 * np.sin(2 * np.pi * (lon[None, None, :] / 7 + lat[None, :, None] / 5 + np.arange(4)[:, None, None] / 6))
    true = 35.5 + wave - 0.05 * (lat[None, :, None] - 44)
    land = np.hypot(lon[None, :] + 12, lat[:, None] - 46) < 1.2
    errors = {"observations": 0.08, "field": 0.2, "third": 0.12}

    def seen(which: str, slope: float, bias: float, name: str) -> xr.Dataset:
        values = 35.5 + slope * (true - 35.5) + bias + errors[which] * random.standard_normal(true.shape)
        attributes = {"units": "1e-3", "standard_name": "sea_surface_salinity", "long_name": "sea surface salinity"}
        values = np.where(land, np.nan, values).astype(np.float32)
        return xr.Dataset(
            {name: (("time", "lat", "lon"), values, attributes)},
            coords=_axes(bounds, lat, lon),
            attrs=_says(
                "A small sea: surface salinity of a satellite" if which == "field" else "A small sea: a model", seed
            ),
        )

    number = 1200
    row, column, month = (
        random.integers(0, lat.size, number),
        random.integers(0, lon.size, number),
        np.arange(number) % 4,
    )
    times = bounds[month, 0] + random.integers(1, 27 * 86400, number).astype("timedelta64[s]")
    value = true[month, row, column] + errors["observations"] * random.standard_normal(number)
    flag = np.where(random.random(number) < 0.02, 4, 1)
    table = pd.DataFrame(
        {
            "observation_id": np.arange(1, number + 1, dtype=np.int64),
            "longitude": lon[column] + random.uniform(-0.05, 0.05, number),
            "latitude": lat[row] + random.uniform(-0.05, 0.05, number),
            "depth": np.where(np.arange(number) % 10 == 9, 50.0, 4.0).astype(np.float32),
            "time": times.astype("datetime64[us]"),
            # What is flagged bad or lies below the surface is far off, so that a chain that takes it is seen to do so.
            "salinity": np.where((flag == 4) | (np.arange(number) % 10 == 9), value + 9, value).astype(np.float32),
            "salinity_qc": flag.astype(np.int8),
        }
    )
    known = ocean.observation_columns()
    table.attrs = {"columns": {c: known[c] for c in table.columns}, **_says("A small sea: observations", seed)}
    return {
        "inputs": {
            "observations": table,
            "field": seen("field", 1.0, -0.1, "Sea_Surface_Salinity"),
            "third": seen("third", 0.9, 0.0, "sea_surface_salinity"),
        },
        "parameters": {"variable": "salinity", "radius": 20e3, "block_length": 100e3},
        "truth": {"errors": errors, "bias": -0.1, "slope": 0.9},
    }


def difference(seed: int = 0) -> dict:
    """A small scene for `ocean.difference`: {"inputs": {"field", "reference"}, "parameters", "truth"}.

    The same temperatures on two grids. The field has three months, three levels and half a degree; the reference has parts
    of months, levels between those, a quarter of a degree from north to south, longitudes from 0 to 360 and kelvins. The
    errors of both are independent and known: "truth" holds their standard deviations at a node, and the bias of the field.
    """
    random = _random(seed, "two grids")
    errors, bias = {"field": 0.15, "reference": 0.4}, 0.3

    def made(
        which: str, lat: np.ndarray, lon: np.ndarray, depth: np.ndarray, bounds: np.ndarray, name: str
    ) -> xr.Dataset:
        # Straight along all axes, so that neither means nor lines change it.
        day = (_middles(bounds) - np.datetime64("2014-01-01")).astype("timedelta64[s]").astype(float) / 86_400
        level, north, east = depth[:, None, None], lat[:, None] - 44, np.mod(lon + 180, 360) - 180 + 14
        true = 12 + 0.02 * day[:, None, None, None] - 0.1 * level - 0.5 * north + 0.2 * east
        seen = true + (bias if which == "field" else 273.15) + errors[which] * random.standard_normal(true.shape)
        land = np.hypot(np.mod(lon + 180, 360) - 180 + 12, lat[:, None] - 46) < 1.2
        units = "degree_Celsius" if which == "field" else "kelvin"
        told = {"units": units, "standard_name": "sea_water_temperature", "long_name": "sea water temperature"}
        uncertainty = {"units": units, "standard_name": "sea_water_temperature standard_error"}
        dims = ("time", "depth", "latitude", "longitude")
        return xr.Dataset(
            {
                name: (dims, np.where(land, np.nan, seen), told),
                f"{name}_error": (dims, np.where(land, np.nan, np.full(true.shape, errors[which])), uncertainty),
            },
            coords={
                **_axes(bounds, lat, lon, ("latitude", "longitude")),
                "depth": ("depth", depth, {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"}),
            },
            attrs=_says(f"A small sea: temperatures of the {which}", seed),
        )

    coarse = (np.arange(40.25, 48, 0.5), np.arange(-19.75, -8, 0.5), np.array([0.0, 10.0, 20.0]))
    fine = (np.arange(40.125, 48, 0.25)[::-1], np.arange(340.125, 352, 0.25), np.array([0.0, 5.0, 15.0, 30.0]))
    return {
        "inputs": {
            "field": made("field", *coarse, months("2014-01", "2014-04"), "analysis"),
            "reference": made("reference", *fine, decades(2014)[:9], "temperature"),
        },
        "parameters": {
            "variable": "analysis",
            "reference_variable": "temperature",
            "errors": "independent",
            "block_length": 100e3,
        },
        "truth": {"errors": errors, "bias": bias},
    }
