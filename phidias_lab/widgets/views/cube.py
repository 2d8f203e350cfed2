"""Map, section, profile and time series of a cube: pick a variable, step through the other dimensions.

Only the slice that is drawn is computed, so a cube may be larger than memory.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import holoviews as hv
import numpy as np
import panel as pn

from phidias_lab.widgets.controls import control, tick
from phidias_lab.widgets.views import axes

#: Above this number of cells a raster is reduced to screen pixels on the server.
MOST_CELLS = 500_000
#: Above this number of values, whole-cube questions (colour range, where data are) are asked of one slice only.
MOST_VALUES = 4_000_000
#: A longer series is thinned before it is sent.
MOST_POINTS = 2_000
#: Perceptually uniform, and told apart with the common colour blindnesses.
COLOURS, ERROR_COLOURS = "viridis", "cividis"
_LAND = "#d9d9d9"


class CubeView(pn.viewable.Viewer):
    """The common part: choice of variable, sliders for dimensions that are not drawn, the figure."""

    needs: ClassVar[tuple[frozenset[str], ...]] = ()

    def __init__(self, data: Any, variable: str | None = None):
        super().__init__()
        self.data = data
        names = [n for n in axes.drawable(data) if any(need <= set(axes.roles(data[n])) for need in self.needs)]
        first = variable if variable in names else names[0]
        self.choice = control(pn.widgets.Select, "Variable", options=names, value=first, width=220)
        self.uncertainty = tick("Uncertainty", True)
        self.sliders: dict[str, pn.widgets.Widget] = {}
        self._controls = pn.FlexBox(align_items="end", margin=0)
        self._figure = pn.pane.HoloViews(None, margin=(5, 0), linked_axes=False)
        self._layout = pn.Column(self._controls, self._figure)
        for widget in (self.choice, self.uncertainty, *self.own_controls()):
            widget.param.watch(lambda event: self.draw(), "value")
        self.draw()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # What a view defines ----------------------------------------------------------------------------------------

    def own_controls(self) -> list[pn.widgets.Widget]:
        return []

    def drawn(self, roles: dict[str, str]) -> tuple[str, ...]:
        """The dimensions that become axes of the figure."""
        raise NotImplementedError(type(self))

    def element(self, array: Any, error: Any | None, title: str) -> hv.Element:
        """The figure of an array that has the drawn dimensions only."""
        raise NotImplementedError(type(self))

    # What all share ---------------------------------------------------------------------------------------------

    @property
    def array(self) -> Any:
        return self.data[self.choice.value]

    @property
    def error(self) -> Any | None:
        name = axes.error_of(self.data, self.choice.value)
        return None if name is None else self.data[name]

    @property
    def figure(self) -> Any:
        """The HoloViews object that is shown."""
        return self._figure.object

    def at(self, **places: Any) -> None:
        """Go to a place: `view.at(time=0, depth=3)`; whole numbers are positions along the dimensions."""
        for dim, position in places.items():
            self.sliders[dim].value = int(position)

    def draw(self) -> None:
        array = self.array
        drawn = self.drawn(axes.roles(array))
        self._make_sliders(array, drawn)
        error = self.error
        self.uncertainty.visible = error is not None
        shown = error if self.uncertainty.on else None

        def of(**places):
            return self.element(
                array.isel(places), None if shown is None else shown.isel(places), self._title(array, places)
            )

        fixed = {dim: 0 for dim in array.dims if dim not in drawn and dim not in self.sliders}
        self._figure.object = self.assemble(of, fixed, shown is not None)
        self._controls.objects = [self.choice, *self.own_controls(), *self.sliders.values(), self.uncertainty]

    def assemble(self, of, fixed: dict[str, int], with_error: bool) -> Any:
        return self.dynamic(lambda **places: of(**fixed, **places))

    def dynamic(self, of) -> Any:
        """A figure that follows the sliders; a plain one where there is none, so that it can be taken elsewhere."""
        return hv.DynamicMap(pn.bind(of, **self.sliders)) if self.sliders else of()

    def _make_sliders(self, array: Any, drawn: tuple[str, ...]) -> None:
        dims = [d for d in array.dims if d not in drawn and array.sizes[d] > 1]
        start = self.good_place(array, drawn)
        old, self.sliders = self.sliders, {}
        for dim in dims:
            size = array.sizes[dim]
            value = min(old[dim].value, size - 1) if dim in old else start.get(dim, 0)
            units = array[dim].attrs.get("units") if dim in array.coords else None
            if dim in array.coords and size <= 1000:
                labels = [axes.label_of(v, units) for v in array[dim].values]
                if len(set(labels)) < size:
                    labels = [f"{text} ({k})" for k, text in enumerate(labels)]
                options = {text: k for k, text in enumerate(labels)}
                self.sliders[dim] = control(
                    pn.widgets.DiscreteSlider, str(dim), options=options, value=value, width=220
                )
            else:
                self.sliders[dim] = control(
                    pn.widgets.IntSlider, f"{dim} (position)", start=0, end=size - 1, value=value, width=220
                )

    def good_place(self, array: Any, drawn: tuple[str, ...]) -> dict[str, int]:
        """A position near the middle of the horizontal axes where there is something to see."""
        roles = axes.roles(array)
        across = [roles[r] for r in ("y", "x") if r in roles and roles[r] not in drawn]
        if not across:
            return {}
        rest = {d: 0 for d in array.dims if d not in across and d not in drawn}
        part = array.isel(rest)
        if part.size > MOST_VALUES:
            part = part.isel({d: 0 for d in drawn})
        if part.size > MOST_VALUES:
            return {d: array.sizes[d] // 2 for d in across}
        count = part.notnull().sum([d for d in part.dims if d not in across]).transpose(*across).values
        if not count.any():
            return {d: array.sizes[d] // 2 for d in across}
        best = np.argwhere(count >= 0.9 * count.max())
        middle = (np.array(count.shape) - 1) / 2
        chosen = best[np.argmin((((best - middle) / np.maximum(count.shape, 1)) ** 2).sum(axis=1))]
        return dict(zip(across, (int(i) for i in chosen), strict=True))

    def _title(self, array: Any, places: dict[str, int]) -> str:
        parts = []
        for dim, position in places.items():
            if dim in array.coords:
                coordinate = array[dim]
                parts.append(axes.label_of(coordinate.values[position], coordinate.attrs.get("units")))
            elif array.sizes[dim] > 1:
                parts.append(f"{dim} {position}")
        return ", ".join(parts)


def _coordinate(array: Any, dim: str) -> np.ndarray:
    values = array[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return values if values.dtype.kind in "iufM" else np.arange(values.size)


def _dimension(array: Any, dim: str, name: str | None = None) -> hv.Dimension:
    text = axes.caption(array[dim]) if dim in array.coords else str(dim)
    return hv.Dimension(name or str(dim), label=text)


def colour_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value; single wild values are cut off, since they would leave one colour for all others."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    inner = np.percentile(values, [1, 99])
    if inner[1] > inner[0] and high - low > 5 * (inner[1] - inner[0]):
        low, high = float(inner[0]), float(inner[1])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def cell_edges(centres: np.ndarray, width_of_one: float = 1.0) -> np.ndarray:
    """Edges half-way between centres (n + 1 of n)."""
    centres = np.asarray(centres, float)
    first, last = axes.edges(centres, width_of_one)
    return np.r_[first, (centres[1:] + centres[:-1]) / 2, last]


class _Raster(CubeView):
    """What map and section have in common: a coloured field, beside it its uncertainty with the same zoom."""

    width_of: ClassVar[tuple[int, int]] = (560, 330)

    def own_controls(self):
        if not hasattr(self, "same"):
            self.same = tick("Same colours for all slices")
        return [self.same]

    def assemble(self, of, fixed, with_error):
        self.same.visible = bool(self.sliders)
        self._ranges: dict[str, tuple[float, float]] = {}
        main = self.dynamic(lambda **places: of(**fixed, **places)[0])
        if not with_error:
            return main
        beside = self.dynamic(lambda **places: of(**fixed, **places)[1])
        return (main + beside).opts(shared_axes=True, merge_tools=True)

    def range_of(self, array: Any, values: np.ndarray) -> tuple[float, float]:
        """The colour range: of this slice, or of all slices when they are to be compared."""
        whole = self.data[array.name]
        if not self.same.on or whole.size > MOST_VALUES:
            return colour_range(values)
        if array.name not in self._ranges:
            self._ranges[array.name] = colour_range(whole.values)
        return self._ranges[array.name]

    def element(self, array, error, title):
        wide = self.width_of[0 if error is None else 1]
        self._letters = wide // 8
        main = self.raster(array, title, COLOURS, wide)
        return main, None if error is None else self.raster(error, title, ERROR_COLOURS, wide)

    def raster(self, array, title, colours, wide):
        raise NotImplementedError(type(self))

    def field(self, array: Any, x: Any, y: Any, kdims: list, title: str, colours: str) -> hv.Element:
        """An image where both axes are regular, else a mesh of the true cells; reduced on the server when large."""
        values = np.asarray(array.values, float)
        limits = self.range_of(array, values)
        vdim = hv.Dimension("value", label=axes.caption(array), range=limits)
        if values.ndim == 2 and np.ndim(x) == 1 and axes.regular(x) and axes.regular(y):
            if x.size > 1 and x[0] > x[-1]:
                x, values = x[::-1], values[:, ::-1]
            if y.size > 1 and y[0] > y[-1]:
                y, values = y[::-1], values[::-1]
            (left, right), (bottom, top) = axes.edges(x, axes.spacing(y)), axes.edges(y, axes.spacing(x))
            made = hv.Image(values[::-1], bounds=(left, bottom, right, top), kdims=kdims, vdims=[vdim])
        elif np.ndim(x) == 1:
            order_x, order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
            x, y, values = x[order_x], y[order_y], values[np.ix_(order_y, order_x)]
            made = hv.QuadMesh((cell_edges(x), cell_edges(y), values), kdims=kdims, vdims=[vdim])
        else:
            made = hv.QuadMesh((x, y, values), kdims=kdims, vdims=[vdim])
        empty = not np.isfinite(values).any()
        if values.size > MOST_CELLS:
            from holoviews.operation.datashader import rasterize

            made = rasterize(made, aggregator="mean", dynamic=False, width=900, height=700)
        name = axes.caption(array).split(" [")[0]
        text = f"{name}{', ' if title else ''}{title}{' (no value here)' if empty else ''}"
        return made.opts(
            cmap=colours,
            clim=limits,
            colorbar=True,
            clabel=_units(array),
            bgcolor=_LAND,
            tools=["hover"],
            title=_wrapped(text, self._letters),
            fontsize={"title": 11},
            framewise=True,
        )


def _units(array: Any) -> str:
    units = str(array.attrs.get("units", ""))
    return "" if units == "1" else units


def _wrapped(text: str, width: int = 60) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])


class MapView(_Raster):
    """A field over latitude and longitude (or a projection's y and x), with coastlines that need no network."""

    needs = (frozenset("yx"),)

    def drawn(self, roles):
        return roles["y"], roles["x"]

    def raster(self, array, title, colours, wide):
        roles = axes.roles(array)
        array = array.transpose(roles["y"], roles["x"])
        x, y, geographic = _places(array, roles)
        left, right, bottom, top = _extent(x, y)
        kdims = [_named(array, roles["x"], "x"), _named(array, roles["y"], "y")]
        field = self.field(array, x, y, kdims, title, colours)
        squeeze = np.cos(np.deg2rad(np.clip((bottom + top) / 2, -75, 75))) if geographic else 1.0
        height = int(np.clip(wide * (top - bottom) / max((right - left) * squeeze, 1e-9), 180, 520))
        if geographic:
            field = field * _coast((left, bottom, right, top), kdims)
        return field.opts(
            hv.opts.Overlay(frame_width=wide, frame_height=height, xlim=(left, right), ylim=(bottom, top))
            if geographic
            else hv.opts.Image(frame_width=wide, frame_height=height)
        )


def _named(array: Any, dim: str, name: str) -> hv.Dimension:
    return _dimension(array, dim, name)


def _places(array: Any, roles: dict[str, str]) -> tuple[np.ndarray, np.ndarray, bool]:
    """x and y of the cells, and whether they are degrees on the globe; two-dimensional coordinates are found as well."""
    x, y = _coordinate(array, roles["x"]), _coordinate(array, roles["y"])
    flat = {}
    for name, coordinate in array.coords.items():
        letter = axes.role(str(name), coordinate)
        if coordinate.ndim == 2 and letter in ("x", "y") and set(coordinate.dims) == set(array.dims):
            values = coordinate.transpose(*array.dims).values
            if np.isfinite(values).all():
                flat.setdefault(letter, (values, coordinate))
    if len(flat) == 2:
        return flat["x"][0], flat["y"][0], True
    degrees = all(_is_degrees(array, roles[letter]) for letter in "xy")
    return np.asarray(x, float), np.asarray(y, float), degrees


def _is_degrees(array: Any, dim: str) -> bool:
    if dim not in array.coords:
        return False
    attributes = array[dim].attrs
    if attributes.get("standard_name") in ("latitude", "longitude"):
        return True
    units = str(attributes.get("units", "")).lower()
    if units:
        return units.startswith("degree")
    return str(dim).lower() in ("latitude", "longitude", "lat", "lon")


def _extent(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    if x.ndim == 2:
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())
    left, right = sorted(axes.edges(np.sort(x), axes.spacing(y)))
    bottom, top = sorted(axes.edges(np.sort(y), axes.spacing(x)))
    return left, right, bottom, top


def _coast(box: tuple[float, float, float, float], kdims: list) -> hv.Curve:
    from phidias_lab.methods import coastlines

    west, south, east, north = box
    lon, lat = coastlines.lines("110m" if east - west > 90 else "50m", (west, south, east, north))
    return hv.Curve((lon, lat), kdims=kdims[:1], vdims=kdims[1:]).opts(
        color="#202020", line_width=0.8, tools=[], apply_ranges=False, show_legend=False
    )


class SectionView(_Raster):
    """Depth against one horizontal axis."""

    needs = (frozenset("zx"), frozenset("zy"))
    width_of = (620, 330)

    def own_controls(self):
        if not hasattr(self, "along"):
            self.along = control(pn.widgets.Select, "Along", options=self._ways(), width=140)
        self.along.visible = len(self._ways()) > 1
        return [self.along, *super().own_controls()]

    def _ways(self) -> list[str]:
        roles = axes.roles(self.array)
        return [roles[r] for r in ("x", "y") if r in roles]

    def drawn(self, roles):
        ways = self._ways()
        if self.along.options != ways:
            self.along.options = ways
        way = self.along.value if self.along.value in ways else ways[0]
        return roles["z"], way

    def raster(self, array, title, colours, wide):
        depth = axes.roles(array)["z"]
        way = next(d for d in array.dims if d != depth)
        array = array.transpose(depth, way)
        x, z = _coordinate(array, way), np.asarray(_coordinate(array, depth), float)
        kdims = [_dimension(array, way, "x"), _dimension(array, depth, "z")]
        made = self.field(array, np.asarray(x, float), z, kdims, title, colours)
        top, bottom = sorted(axes.edges(np.sort(z), axes.spacing(z)))
        down = downward(array, depth)
        if down and z.min() >= 0:
            top = max(top, 0.0)  # the cell of the uppermost level does not reach into the air
        return made.opts(frame_width=wide, frame_height=320, invert_yaxis=down, ylim=(top, bottom))


def downward(array: Any, dim: str) -> bool:
    """Whether larger values of a vertical axis lie deeper."""
    attributes = array[dim].attrs if dim in array.coords else {}
    if "positive" in attributes:
        return attributes["positive"] == "down"
    return str(dim).lower() in ("depth", "pressure", "plev") or attributes.get("standard_name") == "air_pressure"


class ProfileView(CubeView):
    """Values against depth at one place."""

    needs = (frozenset("z"),)

    def drawn(self, roles):
        return (roles["z"],)

    def element(self, array, error, title):
        (depth,) = array.dims
        z, values = np.asarray(_coordinate(array, depth), float), np.asarray(array.values, float)
        kdim, vdim = hv.Dimension("value", label=axes.caption(array)), _dimension(array, depth, "z")
        empty = not np.isfinite(values).any()
        line = hv.Curve((values, z), kdim, vdim).opts(color="#1f4e79", tools=[], line_width=2)
        dots = hv.Scatter((values, z), kdim, vdim).opts(color="#1f4e79", size=6, tools=["hover"])
        whole = line * dots
        if error is not None:
            spread = np.asarray(error.values, float)
            good = np.isfinite(values) & np.isfinite(spread)
            outline = np.column_stack(
                [np.r_[(values - spread)[good], (values + spread)[good][::-1]], np.r_[z[good], z[good][::-1]]]
            )
            band = hv.Polygons([outline] if good.sum() > 1 else [], [kdim, vdim])
            whole = band.opts(fill_color="#9ecae1", fill_alpha=0.5, line_alpha=0, tools=[]) * whole
        text = (
            f"{axes.caption(array).split(' [')[0]}{', ' if title else ''}{title}{' (no value here)' if empty else ''}"
        )
        if error is not None:
            text += "; band: plus and minus one standard error"
        return whole.opts(
            hv.opts.Overlay(
                frame_width=420,
                frame_height=400,
                invert_yaxis=downward(array, depth),
                title=_wrapped(text, 46),
                fontsize={"title": 11},
                show_grid=True,
                framewise=True,
                show_legend=False,
            ),
            hv.opts.Curve(framewise=True),
            hv.opts.Scatter(framewise=True),
            hv.opts.Polygons(framewise=True),
        )


class SeriesView(CubeView):
    """Values against time at one place; long series are thinned so that every peak stays."""

    needs = (frozenset("t"),)

    def drawn(self, roles):
        return (roles["t"],)

    def element(self, array, error, title):
        (time,) = array.dims
        t, values = _coordinate(array, time), np.asarray(array.values, float)
        spread = None if error is None else np.asarray(error.values, float)
        kept = thinned(values, MOST_POINTS)
        if values.size > MOST_POINTS:
            t, values = t[kept], values[kept]
            spread = None if spread is None else spread[kept]
        kdim, vdim = _dimension(array, time, "t"), hv.Dimension("value", label=axes.caption(array))
        empty = not np.isfinite(values).any()
        whole = hv.Curve((t, values), kdim, vdim).opts(color="#1f4e79", tools=["hover"], line_width=1.5)
        if values.size <= 100:
            whole = whole * hv.Scatter((t, values), kdim, vdim).opts(color="#1f4e79", size=6)
        else:
            whole = hv.Overlay([whole])
        if spread is not None:
            band = hv.Spread((t, values, spread), kdim, [vdim, hv.Dimension("error")])
            whole = band.opts(fill_color="#9ecae1", fill_alpha=0.5, line_alpha=0) * whole
        text = (
            f"{axes.caption(array).split(' [')[0]}{', ' if title else ''}{title}{' (no value here)' if empty else ''}"
        )
        if error is not None:
            text += "; band: plus and minus one standard error"
        return whole.opts(
            hv.opts.Overlay(
                frame_width=720,
                frame_height=300,
                title=_wrapped(text, 90),
                fontsize={"title": 11},
                show_grid=True,
                framewise=True,
                show_legend=False,
            ),
            hv.opts.Curve(framewise=True),
            hv.opts.Scatter(framewise=True),
            hv.opts.Spread(framewise=True),
        )


def thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most `most` values that keep the line's shape: smallest and largest of equal stretches, and gaps."""
    size = values.size
    if size <= most:
        return np.arange(size)
    cuts = np.linspace(1, size - 1, (most - 2) // 2 + 1).astype(int)
    kept = [0, size - 1]
    for start, end in itertools.pairwise(cuts):
        part = values[start:end]
        if np.isfinite(part).any():
            kept += [start + int(np.nanargmin(part)), start + int(np.nanargmax(part))]
        elif part.size:
            kept.append(start)  # a stretch without values stays a gap in the line
    return np.unique(kept)


VIEWS: dict[str, type[CubeView]] = {
    "map": MapView,
    "section": SectionView,
    "profile": ProfileView,
    "series": SeriesView,
}
