"""ocean.domain: a grid and where it is sea, from a bathymetry or from coastlines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from phidias_lab.chains.ocean._backgrounds import check_covered
from phidias_lab.contract import Chain, Input, Resources, Var, count, number, numbers, region
from phidias_lab.contract.data import converter
from phidias_lab.contract.parameters import region_bounds, region_contains
from phidias_lab.errors import InputError, ParameterError, as_sentence
from phidias_lab.methods import sea_floor
from phidias_lab.methods.coastlines import is_land

#: What says that a variable is an elevation (1, upwards) or a depth (-1, downwards): its standard name, else its name.
UPWARDS = {
    "height_above_mean_sea_level": 1,
    "height_above_geopotential_datum": 1,
    "surface_altitude": 1,
    "bedrock_altitude": 1,
    "sea_floor_depth_below_geoid": -1,
    "sea_floor_depth_below_mean_sea_level": -1,
    "sea_floor_depth_below_geopotential_datum": -1,
    "elevation": 1,
    "sea_floor_depth": -1,
    "deptho": -1,
}
NAMES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon")}
#: A grid of more nodes than this in the plane is refused; a step may have been meant in other units.
MOST = 25_000_000


class Domain(Chain):
    """Make a grid and say where it is sea.

    The sea is where the floor of a bathymetry (GEBCO, EMODnet, ETOPO, the static file of a model) is deeper than the level.
    Without a bathymetry it is what lies outside the land of the bundled coastlines, which know the surface alone. The result
    is a domain for ocean.gridding.
    """

    title = "Grid and sea mask"
    version = "1.0"
    inputs = {
        "bathymetry": Input(
            "cube",
            doc="elevation (upwards, as in GEBCO) or depth of the sea floor (downwards) over latitude and longitude; "
            "without it the land is that of Natural Earth's coastlines, 1:50 million",
            optional=True,
            role="support",
        ),
    }
    outputs = {
        "mask": Var(
            "1",
            "sea_binary_mask",
            "sea (1) or land and sea floor (0)",
            ("depth", "latitude", "longitude"),
            doc="1 at sea",
        ),
        "sea_floor_depth": Var(
            "m", "sea_floor_depth_below_geoid", "depth of the sea floor", ("latitude", "longitude"), optional=True
        ),
    }
    resources = Resources(cores=1, memory="2GiB", walltime="00:10:00")
    scene = "phidias_lab.testing.scenes.bathymetry:domain"

    region = region(
        doc="What the grid covers, both edges included; outside a polygon is no sea; empty is all of the bathymetry"
    )
    step = number(0.25, bounds=(0.005, 10), units="degree", scale="log", doc="Distance of the nodes")
    depths = numbers([0.0], bounds=(0, 12000), units="m", increasing=True, doc="Levels of the grid")
    smallest = count(
        8,
        bounds=(1, 500),
        doc="Pieces of sea of fewer nodes than this are taken for land: puddles and lakes",
        level="expert",
    )

    def check(self, inputs: Mapping[str, Any]) -> None:
        bathymetry = inputs.get("bathymetry")
        if bathymetry is None:
            if self.region is None:
                raise ParameterError(
                    "Without a bathymetry the grid needs a 'region'. Give west,south,east,north in degrees."
                )
            if self.depths != [0.0]:
                raise ParameterError(
                    "Parameter 'depths' was given levels below the surface, of which coastlines know nothing. Give the "
                    "input 'bathymetry' as well, or depths 0 alone."
                )
        else:
            _floor(bathymetry)
        self._grid(bathymetry)

    def headline(self, inputs: Mapping[str, Any]) -> str:
        latitude, longitude = self._grid(inputs.get("bathymetry"))
        return (
            f"Grid of {self.step:g} degree, {longitude[0]:g} to {longitude[-1]:g} east, {latitude[0]:g} to {latitude[-1]:g} "
            f"north, {len(self.depths)} level{'s' if len(self.depths) > 1 else ''}"
        )

    def run(self, bathymetry: xr.Dataset | None = None) -> xr.Dataset:
        latitude, longitude = self._grid(bathymetry)
        if bathymetry is None:
            floor = np.where(is_land(longitude, latitude[:, None], "50m"), np.nan, np.inf)
        else:
            near = _near(_floor(bathymetry), latitude, longitude, self.step)
            lines = (near[name].values.astype(float) for name in ("latitude", "longitude"))
            floor = sea_floor.at_nodes(near.values.astype(float), *lines, latitude, longitude)
        sea = sea_floor.mask(floor, np.array(self.depths), self.smallest)
        if isinstance(self.region, dict):
            sea &= region_contains(self.region, longitude, latitude[:, None])
        if not sea.any():
            raise InputError(
                "There is no sea in this region at these depths. Choose another region, or check the bathymetry."
            )
        attributes = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "land sea"}
        found = xr.Dataset(
            {"mask": (("depth", "latitude", "longitude"), sea.astype(np.int8), attributes)},
            coords={
                "depth": (
                    "depth",
                    self.depths,
                    {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"},
                ),
                "latitude": (
                    "latitude",
                    latitude,
                    {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
                ),
                "longitude": (
                    "longitude",
                    longitude,
                    {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
                ),
            },
        )
        if bathymetry is None:
            return found.assign_attrs(comment="Coastlines of Natural Earth 1:50 million; the depth is not known.")
        return found.assign(sea_floor_depth=(("latitude", "longitude"), np.where(floor > 0, floor, np.nan)))

    def _grid(self, bathymetry: xr.Dataset | None) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes of the nodes: from the south-western corner in whole steps."""
        if self.region is not None:
            west, south, east, north = region_bounds(self.region)
        else:
            floor = _floor(bathymetry)
            lines = [floor[name].values.astype(float) for name in ("longitude", "latitude")]
            (west, east), (south, north) = ((float(line.min()), float(line.max())) for line in lines)
        number = [int((high - low) / self.step + 1e-6) + 1 for low, high in ((south, north), (west, east))]
        if min(number) < 2:
            raise ParameterError(
                f"Parameter 'step' was given {self.step:g} degree, which leaves less than two rows or columns of nodes. "
                "Give a smaller step, or a larger region."
            )
        # Around the globe the last column would be the first once more.
        number[1] -= (number[1] - 1) * self.step > 360 - self.step / 2
        if number[0] * number[1] > MOST:
            raise ParameterError(
                f"A step of {self.step:g} degree makes {number[0]} times {number[1]} nodes, more than {MOST}. Give a "
                "larger step, or a smaller region."
            )
        latitude, longitude = (low + self.step * np.arange(n) for low, n in zip((south, west), number, strict=True))
        return np.round(latitude, 9), np.round(longitude, 9)


def _floor(bathymetry: xr.Dataset) -> xr.DataArray:
    """The depth of the sea floor in m, positive downwards, over (latitude, longitude); lazy."""
    names = {}
    for name, others in NAMES.items():
        known = [
            str(n)
            for n, c in bathymetry.coords.items()
            if n in others or (c.attrs.get("standard_name") == name and c.ndim == 1)
        ]
        if len(known) != 1 or bathymetry[known[0]].dims != (known[0],):
            raise InputError(
                f"The input 'bathymetry' has no {name} of its own: it must lie on a regular grid with coordinates called "
                f"{' or '.join(others)}. Give such a file, GEBCO's for example."
            )
        names[known[0]] = name
    fit = [n for n, v in bathymetry.data_vars.items() if set(v.dims) == set(names) and v.dtype.kind in "iuf"]
    for key in (lambda n: bathymetry[n].attrs.get("standard_name"), str):
        said = [(n, UPWARDS[key(n)]) for n in fit if key(n) in UPWARDS]
        if said:
            break
    if len(said) != 1:
        raise InputError(
            f"The input 'bathymetry' must have one variable whose standard name or name says whether it counts up or down: "
            f"{', '.join(UPWARDS)}. It has {', '.join(map(str, fit)) or 'none'} over latitude and longitude."
        )
    name, upwards = said[0]
    array = bathymetry[name].rename({old: new for old, new in names.items() if old != new})
    array = array.transpose("latitude", "longitude")
    units = array.attrs.get("units")
    try:
        convert = converter(units, "m") if units else None
    except InputError as error:
        raise InputError(f"Input 'bathymetry', variable {name!r}: {as_sentence(error)} Correct its units.") from None
    array = array.astype(float)
    return -upwards * (array if convert is None else convert(array))


def _near(floor: xr.DataArray, latitude: np.ndarray, longitude: np.ndarray, step: float) -> xr.DataArray:
    """The part of the floor around the grid, which must cover it."""
    lat, lon = (floor[name].values.astype(float) for name in ("latitude", "longitude"))
    check_covered("latitude", lat, latitude, "bathymetry", step)
    check_covered("longitude", lon, longitude, "bathymetry", step)
    margin = max(
        step, *(1.5 * float(np.median(np.diff(np.sort(line)))) if line.size > 1 else 0.0 for line in (lat, lon))
    )
    east = np.mod(lon - longitude[0] + margin, 360.0)
    rows = (lat >= latitude[0] - margin) & (lat <= latitude[-1] + margin)
    columns = east <= longitude[-1] - longitude[0] + 2 * margin
    return floor.isel(latitude=np.flatnonzero(rows), longitude=np.flatnonzero(columns)).compute()
