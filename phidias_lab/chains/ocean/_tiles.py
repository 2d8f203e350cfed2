"""A gridding of a domain that outgrows the memory, in tiles that overlap; equal to one without (see `variational.tiles`).

Everything here counts the rows and columns of the grid with its rim. What the tiles must know of each other, the variance
of the background and the passes of the field, is kept on disk piece by piece, so no process ever holds the whole domain's
system and a run that was killed goes on where it was.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from phidias_lab.chains.ocean import _levels
from phidias_lab.chains.ocean._levels import DIMS, Background, Plan
from phidias_lab.errors import InputError
from phidias_lab.methods.variational import geometry, norm, solvers, system, tiles
from phidias_lab.methods.variational.analysis import interpolation

Box = tuple[slice, slice]
#: Dimensions of what is kept between passes.
STAGE = ("window", "level", "row", "column")
_NO_ROWS = pd.DataFrame({name: np.zeros(0) for name in DIMS[1:]})
#: Nodes along the side of the smallest tile.
LEAST = 16
#: Nodes along a side up to which the observations are looked at all at once.
AT_ONCE = 1500


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a core, of what is solved for it, and of what must be known for that. Columns of a grid that goes
    around the globe may be below 0 or beyond the last."""

    core: Box
    window: Box
    outer: Box


@dataclass(frozen=True)
class Tiling:
    """How a domain is cut."""

    rows: list[slice]
    columns: list[slice]
    tiles: list[list[Tile]]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


# How a domain is cut ---------------------------------------------------------------------------------------------------


def lines(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of the grid with its rim."""
    rows, columns = _levels.rim_of(plan)
    latitude = _levels.off_the_poles(_levels.with_rim(plan.latitude, rows, rows))
    return latitude, _levels.with_rim(plan.longitude, columns, columns)


def halos(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """For each row of the grid, how many rows and how many columns the halo takes there."""
    latitude, longitude = lines(plan)
    closest = np.abs(np.diff(longitude)).min()
    three = longitude[0] + closest * np.arange(3)
    spacing = [each[1] for each in geometry.metrics_on_sphere(three, latitude)]
    columns, rows = (
        np.maximum(np.ceil(tiles.HALO[_ndim(plan)] * each * length), tiles.LEAST_HALO).astype(int)
        for each, length in zip(spacing, reversed(_longest(plan, latitude.size)), strict=True)
    )
    return rows, columns


def _longest(plan: Plan, count: int) -> list[np.ndarray]:
    """The greatest meridional and zonal correlation length of each row."""
    if plan.lengths is None:
        return [np.full(count, float(plan.parameters["length"]))] * 2
    rim, inside = _levels.rim_of(plan)[0], np.ones(plan.latitude.size)
    return [np.pad(each.max(axis=(0, 2)) * inside, rim, mode="edge") for each in plan.lengths]


def _ndim(plan: Plan) -> int:
    return 3 if plan.parameters["vertical_length"] > 0 and plan.depth.size > 1 else 2


def cut(plan: Plan, size: int) -> Tiling:
    """Cores of about `size` nodes a side, each with its halo and ring."""
    latitude, longitude = lines(plan)
    shape, cyclic = (latitude.size, longitude.size), _levels.is_cyclic(plan.longitude)
    rows, columns = ([slice(int(a), int(b)) for a, b in itertools.pairwise(_borders(n, size))] for n in shape)
    high, wide = halos(plan)
    ring = tiles.ring(norm.coefficients(None, _ndim(plan)).size - 1)
    found = []
    for row in rows:
        tall = int(high.max())
        north_south = _around(row, tall, shape[0])
        far = int(wide[north_south].max())
        line = []
        for column in columns:
            west_east = _around(column, far, shape[1], cyclic)
            outer = (_around(north_south, ring, shape[0]), _around(west_east, ring, shape[1], cyclic))
            line.append(Tile((row, column), (north_south, west_east), outer))
        found.append(line)
    return Tiling(rows, columns, found)


def _borders(count: int, size: int) -> np.ndarray:
    return np.linspace(0, count, max(1, math.ceil(count / max(size, 1))) + 1).round().astype(int)


def _around(part: slice, more: int, count: int, cyclic: bool = False) -> slice:
    """A part with so many more at both sides; what comes close to an end goes to it."""
    start, stop = part.start - more, part.stop + more
    if cyclic:
        return slice(0, count) if stop - start >= count - 2 else slice(start, stop)
    return slice(0 if start <= 2 else start, count if stop >= count - 2 else stop)


def memory(plan: Plan, shape: tuple[int, ...], size: int) -> float:
    """Bytes that the greatest tile is predicted to take, with cores of so many nodes a side of a grid of this shape."""
    return solvers.memory("multifrontal", largest(plan, shape, size))


def largest(plan: Plan, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The shape of the greatest window of such tiles."""
    *levels, rows, columns = shape
    high, wide = (int(each.max()) for each in halos(plan))
    return (*levels, min(rows, size + 2 * high), min(columns, size + 2 * wide))


def size_for(plan: Plan, shape: tuple[int, ...], room: float) -> int:
    """The greatest core whose window fits into so many bytes."""
    fits = [size for size in _sizes(max(shape[-2:])) if memory(plan, shape, size) <= room]
    if not fits:
        *_, rows, columns = largest(plan, shape, LEAST)
        raise InputError(
            f"The domain has {math.prod(shape)} nodes, which do not fit into the memory here, and the smallest tile with "
            f"its halo has {rows} x {columns} of them and takes {memory(plan, shape, LEAST) / 2**30:.2g} GiB, where "
            f"{room / 2**30:.2g} GiB are free for it. Choose a shorter correlation length, fewer levels at once, or a "
            "machine with more memory."
        )
    return fits[-1]


def _sizes(most: int) -> list[int]:
    sizes, size = [], LEAST
    while size < most:
        sizes.append(size)
        size = math.ceil(size * 1.25)
    return [*sizes, most]


# A part of the domain ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A box of the grid as a domain of its own, with the levels of one group: its plan, mask and ends, and where it lies in
    the whole. Tasks carry it to workers, so it holds no more than they need."""

    plan: Plan
    mask: np.ndarray
    ends: tuple
    box: Box
    means: tuple[float, ...]

    @property
    def group(self) -> slice:
        """All its levels."""
        return slice(0, self.plan.depth.size)

    def local(self, box: Box) -> tuple[slice, slice]:
        """Rows and columns of a box within this one."""
        return tuple(slice(one.start - own.start, one.stop - own.start) for one, own in zip(box, self.box, strict=True))

    def near(self, rows: pd.DataFrame) -> np.ndarray:
        """Which observations lie in it."""
        latitude, longitude = self.plan.latitude, self.plan.longitude
        held = np.ones(len(rows), bool)
        # At an end of the domain there is nothing beyond it, and a rounding is no reason to lose an observation.
        for name, line, (first, last) in (("latitude", latitude, self.ends[0]), ("longitude", longitude, self.ends[1])):
            values = self.longitudes(rows) if name == "longitude" else rows[name].to_numpy(float)
            held &= (values >= line[0]) | first
            held &= (values <= line[-1]) | last | (name == "longitude" and _levels.is_cyclic(longitude))
        return held

    def longitudes(self, rows: pd.DataFrame) -> np.ndarray:
        """The longitudes of observations as this part has its own."""
        values, west = rows["longitude"].to_numpy(float), self.plan.longitude[0]
        if self.ends[1] == (True, True) and not _levels.is_cyclic(self.plan.longitude):
            return values
        return values if self.ends[1][0] else west + np.mod(values - west, 360.0)


def part_of(plan: Plan, mask: np.ndarray, group: slice, box: Box, means: tuple[float, ...]) -> Part:
    rims, cyclic = _levels.rim_of(plan), _levels.is_cyclic(plan.longitude)
    shape = (plan.latitude.size, plan.longitude.size)
    rows, columns = (
        slice(max(one.start - rim, 0), min(one.stop - rim, count))
        for one, rim, count in zip(box, rims, shape, strict=True)
    )
    ends = tuple(
        (one.start == 0, one.stop == count + 2 * rim) for one, rim, count in zip(box, rims, shape, strict=True)
    )
    longitude = plan.longitude[columns]
    if cyclic:
        places = np.arange(box[1].start, box[1].stop)
        turn, at = np.divmod(places, shape[1])
        longitude, columns = plan.longitude[at] + 360.0 * turn, at if turn.any() else box[1]
        if places.size < shape[1]:
            ends = (ends[0], (False, False))
    lengths = plan.lengths
    if lengths is not None:
        lengths = tuple(_taken(_taken(_taken(each, group, 0), rows, 1), columns, 2) for each in lengths)
    depth, edges = plan.depth[group], plan.edges[group]
    part = replace(plan, latitude=plan.latitude[rows], longitude=longitude, depth=depth, edges=edges, lengths=lengths)
    return Part(part, mask[group, rows][:, :, columns], ends, box, means)


def _taken(values: np.ndarray, places: slice | np.ndarray, axis: int) -> np.ndarray:
    return values if values.shape[axis] == 1 else values[(slice(None),) * axis + (places,)]


def means_of(plan: Plan, group: slice) -> tuple[float, ...]:
    """The mean correlation lengths of the whole grid with its rim, as `Grid.mean_lengths` has them."""
    rims, levels = _levels.rim_of(plan), plan.depth[group].size
    shape = (levels, plan.latitude.size, plan.longitude.size)
    found = []
    for each in plan.horizontal(group, shape):
        if np.ndim(each):
            depth = 1 if levels > 1 and rims[0] else 0
            found.append(float(np.pad(each, [(depth, depth), *((rim, rim) for rim in rims)], mode="edge").mean()))
        else:
            found.append(float(each))
    return (*([float(plan.parameters["vertical_length"])] if levels > 1 else []), *found)


def _system(part: Part, near: pd.DataFrame, anomalies: np.ndarray, even: Any, currents: Any = None):
    near = near.assign(longitude=part.longitudes(near))
    (*arrays, length), convention, inner = _levels.geometry(
        part.plan, part.group, part.mask, near, part.ends, part.means
    )
    shape = arrays[0].shape
    return system.build(
        *arrays,
        anomalies,
        length,
        part.plan.parameters["noise"],
        velocity=None if currents is None else _levels.paths_of(part.plan, part.group, currents, inner, shape),
        unit_variance=False if even is None else even.reshape(shape),
        **convention,
    )


def _window(part: Part, tile: Tile, shape: tuple[int, ...]) -> np.ndarray:
    held = np.zeros(shape, bool)
    held[(..., *part.local(tile.window))] = True
    return held


def _levels_of(plan: Plan, group: slice) -> int:
    """How many levels the grid has with its rim."""
    size = plan.depth[group].size
    return size + 2 * (size > 1 and plan.parameters["edge_stretch"] > 0)


# What is done for a tile -------------------------------------------------------------------------------------------------


def deviation(part: Part, tile: Tile) -> np.ndarray:
    """What the norm alone makes of the standard deviation of the background in the core of a tile."""
    core, levels = part.local(tile.core), _levels_of(part.plan, part.group)
    if not part.mask.any():
        return np.full((1, levels, *(one.stop - one.start for one in core)), np.nan)
    found = _system(part, _NO_ROWS, np.zeros(0), None)
    shape = found.grid.mask.shape
    spread = np.sqrt(tiles.error_variance(found, _window(part, tile, shape), prior=True))
    return _core(spread, core, levels)


def field(
    part: Part,
    tile: Tile,
    near: pd.DataFrame,
    anomalies: np.ndarray,
    even: Any,
    currents: Any,
    around: Any,
) -> np.ndarray:
    """The anomaly in the core of a tile, for what the last pass gave around it."""
    core, levels = part.local(tile.core), _levels_of(part.plan, part.group)
    if not part.mask.any():
        return np.full((1, levels, *(one.stop - one.start for one in core)), np.nan)
    found = _system(part, near, anomalies, even, currents)
    shape = found.grid.mask.shape
    before = np.zeros(shape) if around is None else around.reshape(shape)
    solved = tiles.solve(found, _window(part, tile, shape), before, part.plan.parameters["solver"])
    return _core(solved, core, levels)


def _core(values: np.ndarray, core: Box, levels: int) -> np.ndarray:
    values = values[(..., *core)]
    return values.reshape(1, levels, *values.shape[-2:])


def cost(part: Part, near: pd.DataFrame, anomalies: np.ndarray, around: np.ndarray) -> float:
    """What these observations add to the cost y' R^-1 (y - Hx)."""
    near = near.assign(longitude=part.longitudes(near))
    (*arrays, length), convention, _ = _levels.geometry(part.plan, part.group, part.mask, near, part.ends, part.means)
    sea = arrays[0]
    operator, _ = interpolation(*arrays, length, **convention)
    there = operator @ around.reshape(sea.shape)[sea]
    return float((anomalies * (anomalies - there)).sum() / part.plan.parameters["noise"])


def result(
    part: Part,
    tile: Tile,
    near: pd.DataFrame,
    anomalies: np.ndarray,
    even: Any,
    begin: tuple[Any, Any],
    background: np.ndarray | None,
    anomaly: Any,
    variance: float,
    number: np.ndarray,
) -> dict[str, np.ndarray]:
    """Everything in `given` for the domain's nodes in the core of a tile."""
    plan, levels = part.plan, _levels_of(part.plan, part.group)
    inside = _inner(part, tile)
    own = tuple(slice(one.start - rim, one.stop - rim) for one, rim in zip(inside, _first(part), strict=True))
    if background is None:
        nodes = replace(plan, latitude=plan.latitude[own[0]], longitude=plan.longitude[own[1]])
        background = _levels.background_of(nodes, part.group, near.iloc[:0], np.zeros(0, bool), begin[0]).nodes
    sea = part.mask[:, own[0], own[1]]
    relative = None
    if plan.parameters["error"] == "exact":
        relative = np.full(sea.shape, np.nan)
        if part.mask.any():
            found = _system(part, near, anomalies, even, begin[1])
            shape = found.grid.mask.shape
            spread = tiles.error_variance(found, _window(part, tile, shape)).reshape(levels, *shape[-2:])
            relative = _without_rim(spread, levels, sea.shape[0])[:, inside[0], inside[1]]
    core = part.local(tile.core)
    here = [slice(one.start - c.start, one.stop - c.start) for one, c in zip(inside, core, strict=True)]
    values = _without_rim(anomaly, levels, sea.shape[0])[:, here[0], here[1]]
    return _levels.outputs(plan, background, values, relative, variance, number, sea)


def _first(part: Part) -> tuple[int, int]:
    """How many rows and columns of a part come before its domain's first."""
    rims = (
        _levels.rim_of(part.plan) if not _levels.is_cyclic(part.plan.longitude) else (_levels.rim_of(part.plan)[0], 0)
    )
    return tuple(rim * end[0] for rim, end in zip(rims, part.ends, strict=True))


def _inner(part: Part, tile: Tile) -> Box:
    """Where the domain's nodes of a core lie in a part."""
    found = []
    sizes = (part.plan.latitude.size, part.plan.longitude.size)
    for core, first, size in zip(part.local(tile.core), _first(part), sizes, strict=True):
        found.append(slice(max(core.start, first), min(core.stop, first + size)))
    return tuple(found)


def _without_rim(values: np.ndarray, levels: int, size: int) -> np.ndarray:
    rim = (levels - size) // 2
    return values[rim : levels - rim]


# The whole ---------------------------------------------------------------------------------------------------------------


def own(plan: Plan, tiling: Tiling, near: pd.DataFrame, used: np.ndarray) -> Iterator[tuple[np.ndarray, Tile]]:
    """The tiles, and which of the used observations lie in a cell of their core, so that each counts once."""
    latitude, longitude = lines(plan)
    east = near["longitude"].to_numpy(float)
    if _levels.is_cyclic(plan.longitude):
        east = longitude[0] + np.mod(east - longitude[0], 360.0)
    at = []
    for values, line, cores in (
        (near["latitude"].to_numpy(float), latitude, tiling.rows),
        (east, longitude, tiling.columns),
    ):
        cell = np.clip(np.searchsorted(line, values, side="right") - 1, 0, line.size - 1)
        at.append(np.searchsorted([core.start for core in cores], cell, side="right") - 1)
    for i, row in enumerate(tiling.tiles):
        for j, tile in enumerate(row):
            held = used & (at[0] == i) & (at[1] == j)
            if held.any():
                yield held, tile


def usable(plan: Plan, group: slice, mask: np.ndarray, near: pd.DataFrame) -> np.ndarray:
    """`_levels.usable`, some rows and columns at a time where there are many."""
    if plan.latitude.size * plan.longitude.size <= AT_ONCE**2:
        return _levels.usable(plan, group, mask, near)
    used, means = np.zeros(len(near), bool), means_of(plan, group)
    for held, tile in own(plan, cut(plan, AT_ONCE), near, np.ones(len(near), bool)):
        part = part_of(plan, mask, group, tile.outer, means)
        there = near[held].assign(longitude=part.longitudes(near[held]))
        used[held] = _levels.usable(part.plan, part.group, part.mask, there, part.ends, means)
    return used


@dataclass
class Whole:
    """The gridding of some windows of time, level by level or all levels together, tile by tile.

    pieces, begins : as the chain has them, for each window.
    keep : computes a lazy cube piece by piece where it is kept, and gives it back to be read from there.
    """

    plan: Plan
    mask: np.ndarray
    pieces: list[list[tuple[slice, pd.DataFrame, np.ndarray]]]
    begins: list[tuple[Any, Any]]
    tiling: Tiling
    keep: Callable[[str, xr.Dataset], xr.Dataset]
    report: Callable[[float, str], None]

    def __post_init__(self):
        self.groups = [group for group, _, _ in self.pieces[0]]
        means = [means_of(self.plan, group) for group in self.groups]
        self.parts = [
            {
                id(tile): part_of(self.plan, self.mask, group, tile.outer, means[k])
                for row in self.tiling.tiles
                for tile in row
            }
            for k, group in enumerate(self.groups)
        ]
        self.sent: dict[tuple[int, int], Any] = {}

    def arrays(self) -> list[list[dict[str, da.Array]]]:
        """For each window and group the outputs, lazy and in blocks."""
        # At the observations, and at the nodes where these have it all alike.
        few = replace(self.plan, latitude=self.plan.latitude[:1], longitude=self.plan.longitude[:1])
        backgrounds = [
            [_levels.background_of(few, *piece, start) if piece[2].any() else None for piece in row]
            for row, (start, _) in zip(self.pieces, self.begins, strict=True)
        ]
        even = self._even() if self.plan.parameters["unit_variance"] else None
        anomaly = self._passes(backgrounds, even)
        self.report(0.0, "how well the analysis fits the observations")
        return [
            [self._result(w, k, backgrounds[w][k], even, anomaly) for k in range(len(self.groups))]
            for w in range(len(self.pieces))
        ]

    def _even(self) -> da.Array:
        """The standard deviation that the norm alone gives the background; the same in every window of time."""

        def made(_: int, k: int, tile: Tile) -> Any:
            return dask.delayed(deviation, pure=False)(self._sent(k, tile), tile)

        self.report(0.0, f"the variance of the background in {len(self.tiling)} tiles")
        return self._stage("variance", 1, made)

    def _passes(self, backgrounds: list, even: da.Array | None) -> da.Array:
        """The field, once the tiles agree."""
        now, change = None, math.inf
        for number in range(1, tiles.PASSES + 1):

            def made(w: int, k: int, tile: Tile, before: da.Array | None = now) -> Any:
                part, (_, near, used) = self._part(k, tile), self.pieces[w][k]
                return dask.delayed(field, pure=False)(
                    self._sent(k, tile),
                    tile,
                    *self._there(near, part.near(near) & used, backgrounds[w][k]),
                    self._around(even, 0, k, tile.outer),
                    self.begins[w][1],
                    self._around(before, w, k, tile.outer),
                )

            self.report(0.0, f"pass {number} over {len(self.tiling)} tiles")
            before, now = now, self._stage(f"pass-{number}", len(self.pieces), made)
            moved = now if before is None else now - before
            greatest, last = (float(np.nan_to_num(v)) for v in dask.compute(_greatest(now), _greatest(moved)))
            left = tiles.to_come(last, change) if number > 1 else math.inf
            if not greatest or left <= tiles.CONSISTENT * greatest:
                self.report(0.0, f"after {number} passes the tiles agree to {left / (greatest or 1):.0e} of the field")
                return now
            change = last
        raise InputError(
            f"The tiles do not agree after {tiles.PASSES} passes. Give a greater tile, or a shorter correlation length."
        )

    def _stage(self, name: str, windows: int, made: Callable[[int, int, Tile], Any]) -> da.Array:
        """What is kept of every window, group and tile; `made` tells what is to be computed for one."""

        def block(w: int, k: int, tile: Tile) -> da.Array:
            shape = (1, _levels_of(self.plan, self.groups[k]), *(one.stop - one.start for one in tile.core))
            return da.from_delayed(made(w, k, tile), shape, np.float64)

        groups = range(len(self.groups))
        array = da.block(
            [
                [[[block(w, k, tile) for tile in row] for row in self.tiling.tiles] for k in groups]
                for w in range(windows)
            ]
        )
        return self.keep(name, xr.Dataset({"values": (STAGE, array)}))["values"].data

    def _part(self, k: int, tile: Tile) -> Part:
        return self.parts[k][id(tile)]

    def _sent(self, k: int, tile: Tile) -> Any:
        """The part as tasks get it: once for all windows and passes, and not taken apart."""
        if (k, id(tile)) not in self.sent:
            self.sent[k, id(tile)] = dask.delayed(self._part(k, tile), traverse=False, pure=False)
        return self.sent[k, id(tile)]

    def _there(self, near: pd.DataFrame, held: np.ndarray, background: Background | None):
        """Some of the observations near a group of levels, and their anomalies."""
        rows, name = near.loc[held], self.plan.parameters["variable"]
        anomalies = np.zeros(0) if background is None else rows[name].to_numpy(float) - background.there[held]
        return rows[list(DIMS[1:])], anomalies

    def _around(self, values: da.Array | None, window: int, k: int, box: Box) -> da.Array | None:
        """A box of what is kept for a group."""
        if values is None:
            return None
        alone = self.plan.depth[self.groups[k]].size == 1
        levels = slice(k, k + 1) if alone else slice(0, values.shape[1])
        (rows, columns), count = box, values.shape[-1]
        first, last = columns.start % count, (columns.stop - 1) % count + 1
        parts = [slice(first, last)] if first < last else [slice(first, count), slice(0, last)]
        return da.concatenate([values[window, levels, rows, part] for part in parts], axis=-1)

    def _result(
        self, w: int, k: int, background: Background | None, even: Any, anomaly: da.Array
    ) -> dict[str, da.Array]:
        (group, near, used), begin, plan = self.pieces[w][k], self.begins[w], self.plan
        number, names = _levels.per_level(plan, group, near, used), _levels.given(plan.parameters)
        # The levels of a part are counted from its first one.
        start = begin[0].of(group) if isinstance(begin[0], _levels.Plane) else begin[0]
        same = None if background is None or plan.parameters["background"] in _levels.FIELDS else background.nodes
        if background is None:
            variance = math.nan
            flat = _levels.nothing(plan, number, (number.size, 1, 1))
        else:
            costs = [
                dask.delayed(cost, pure=False)(
                    self._sent(k, tile),
                    *self._there(near, held, background),
                    self._around(anomaly, w, k, tile.outer),
                )
                for held, tile in own(plan, self.tiling, near, used)
            ]
            variance = _levels.variance_of(math.fsum(dask.compute(*costs)), int(used.sum()) - background.free)
            mean, zero = self._mean(group, begin[0]) if same is None else same, np.zeros((number.size, 1, 1))
            flat = _levels.outputs(plan, mean, zero, zero, variance, number, zero == 0)

        def block(tile: Tile) -> Any:
            if background is None:
                return dask.delayed(_levels.nothing, pure=False)(plan, number, self._thick(group, tile))
            part = self._part(k, tile)
            return dask.delayed(result, pure=False)(
                self._sent(k, tile),
                tile,
                *self._there(near, part.near(near) & used, background),
                self._around(even, 0, k, tile.outer),
                (start, begin[1]),
                same,
                self._around(anomaly, w, k, tile.core),
                variance,
                number,
            )

        blocks = [[(block(tile), (1, *self._thick(group, tile))) for tile in row] for row in self.tiling.tiles]
        return {
            name: da.block([[da.from_delayed(made[name], shape, np.float64) for made, shape in row] for row in blocks])
            if dims == DIMS
            else da.from_array(flat[name], chunks=-1)
            for name, dims in names.items()
        }

    def _mean(self, group: slice, start: Any) -> np.ndarray:
        """The mean of the background of each level over all nodes of the domain, some rows at a time."""
        total = 0.0
        for few in np.array_split(np.arange(self.plan.latitude.size), len(self.tiling.rows)):
            rows = replace(self.plan, latitude=self.plan.latitude[few])
            found = _levels.background_of(rows, group, _NO_ROWS, np.zeros(0, bool), start).nodes
            total = total + found.sum(axis=(1, 2), keepdims=True)
        return total / (self.plan.latitude.size * self.plan.longitude.size)

    def _thick(self, group: slice, tile: Tile) -> tuple[int, int, int]:
        """How many levels, rows and columns of the domain a core holds."""
        rims, sizes = _levels.rim_of(self.plan), (self.plan.latitude.size, self.plan.longitude.size)
        held = [
            min(core.stop, rim + size) - max(core.start, rim)
            for core, rim, size in zip(tile.core, rims, sizes, strict=True)
        ]
        return (group.stop - group.start, *held)


def _greatest(values: da.Array) -> da.Array:
    """The greatest absolute value; land has none."""
    return da.nan_to_num(abs(values)).max()
