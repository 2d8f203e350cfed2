"""Map, section, profile and time series of a cube: pick a variable, step through the other dimensions.

Only the slice that is drawn is computed, so a cube may be larger than memory.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import holoviews as hv
import numpy as np
import panel as pn

from phidias_lab.contract.data import diverges_from, is_synthetic
from phidias_lab.errors import PhidiasError
from phidias_lab.methods.regridding import cell_edges
from phidias_lab.widgets.controls import control, say, sentence, tick
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.places import Places
from phidias_lab.widgets.views.player import Player

#: Above this number of cells a raster is reduced to screen pixels on the server.
MOST_CELLS = 500_000
#: Above this number of values, whole-cube questions (colour range, where data are) are asked of one slice only.
MOST_VALUES = 4_000_000
#: A longer series is thinned before it is sent.
MOST_POINTS = 2_000
#: Above which error variance, relative to that of the background, a field may be hidden: what DIVA's products mask by.
MOST_ERRORS = {"nothing: show all": None, "0.5 of the background's": 0.5, "0.3 of the background's": 0.3}
#: Perceptually uniform, and told apart with the common colour blindnesses.
COLOURS, ERROR_COLOURS = "viridis", "cividis"
#: For what has a sign: from blue over nearly white, which is not the grey of land, to red.
SIGNED_COLOURS = "RdBu_r"
_LAND = "#d9d9d9"


class CubeView(pn.viewable.Viewer):
    """The common part: choice of variable, sliders for dimensions that are not drawn, the figure."""

    needs: ClassVar[tuple[frozenset[str], ...]] = ()

    def __init__(self, data: Any, variable: str | None = None, places: Places | None = None):
        super().__init__()
        self.data = data
        #: Where the values lie that the data were made from, if that is known; maps show them.
        self.places = places
        names = [n for n in axes.drawable(data) if any(need <= set(axes.roles(data[n])) for need in self.needs)]
        first = variable if variable in names else names[0]
        self.choice = control(pn.widgets.Select, "Variable", options=names, value=first, width=220)
        self.uncertainty = tick("Uncertainty", True)
        self.player = Player(self)
        self.sliders: dict[str, pn.widgets.Widget] = {}
        self._labels: dict[str, list[str]] = {}
        self._controls = pn.FlexBox(align_items="end", margin=0)
        # Narrower pages wrap the figures; a page narrower than one figure lets it be pushed sideways.
        self._figures = pn.FlexBox(margin=0, styles={"max-width": "100%", "overflow-x": "auto"})
        self._layout = pn.Column(self._controls, self.player.row, self._figures, styles={"max-width": "100%"})
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

    def slice(self, array: Any, places: dict[str, int]) -> Any:
        """What is drawn at these places of the other dimensions."""
        return array.isel(places)

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
        """The HoloViews object that is shown; two that stand beside each other are a Layout."""
        parts = [pane.object for pane in self._figures]
        return parts[0] if len(parts) == 1 else hv.Layout(parts).opts(shared_axes=True, merge_tools=True)

    def at(self, **places: Any) -> None:
        """Go to a place: `view.at(time=0, depth=3)`; whole numbers are positions along the dimensions."""
        for dim, position in places.items():
            self.sliders[dim].value = int(position)

    @property
    def figures(self) -> pn.viewable.Viewable:
        """The figures alone, without the controls."""
        return self._figures

    def steady(self) -> None:
        """Make figures of different places comparable, where this view can."""

    def part(self, places: dict[str, int], **more: Any) -> CubeView:
        """The same view, set as this one is, of the part of the data at these places."""
        data = self.data.isel(places).assign_coords(more)
        found = type(self)(data, self.choice.value, places=self.places)
        for mine, other in zip(self.own_controls(), found.own_controls(), strict=True):
            other.value = mine.value
        found.uncertainty.on = self.uncertainty.on
        return found

    def draw(self) -> None:
        array = self.array
        drawn = self.drawn(axes.roles(array))
        self._make_sliders(array, drawn)
        error = self.error
        self.uncertainty.visible = error is not None
        shown = error if self.uncertainty.on else None

        def of(**places):
            return self.element(
                self.slice(array, places), None if shown is None else shown.isel(places), self._title(array, places)
            )

        fixed = {dim: 0 for dim in array.dims if dim not in drawn and dim not in self.sliders}
        parts = self.assemble(of, fixed, shown is not None)
        # Panes that stand beside each other share pan and zoom.
        self._figures.objects = [pn.pane.HoloViews(part, margin=(5, 0), linked_axes=len(parts) > 1) for part in parts]
        self._controls.objects = [self.choice, *self.own_controls(), *self.sliders.values(), self.uncertainty]
        self.player.follow()

    def assemble(self, of, fixed: dict[str, int], with_error: bool) -> list[Any]:
        """The figures that stand beside each other."""
        return [self.dynamic(lambda **places: of(**fixed, **places))]

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
            if dim in array.coords and size <= 1000:
                labels = [self._label(dim, k) for k in range(size)]
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
        """'Temperature at 10 m, February 2020': the variable, then where and when the slice lies."""
        at: dict[str | None, list[str]] = {}
        for dim, position in places.items():
            if dim in array.coords:
                at.setdefault(axes.role(str(dim), array[dim]), []).append(self._label(dim, position))
            elif array.sizes[dim] > 1:
                at.setdefault(None, []).append(f"{dim} {position}")
        for name, coordinate in array.coords.items():  # a slice somebody else has cut out knows its place as well
            role = axes.role(str(name), coordinate)
            if coordinate.ndim == 0 and role is not None and role not in at:
                at[role] = axes.labels_of(self.data, coordinate)
        where = [text for role in ("z", "y", "x") for text in at.get(role, [])]
        when = [text for role in (None, "t") for text in at.get(role, [])]
        return ", ".join(filter(None, [f" at {' '.join(where)}" if where else "", *when]))

    def _label(self, dim: str, position: int) -> str:
        if dim not in self._labels:
            self._labels[dim] = axes.labels_of(self.data, self.data[dim])
        return self._labels[dim][position]

    def heading(self, array: Any, place: str, letters: int, *, note: str = "", synthetic: bool = True) -> str:
        """The title of a figure, and below it once that the data are synthetic when they are."""
        empty = not np.isfinite(np.asarray(array.values, float)).any()
        joint = "" if place.startswith(" at") or not place else ", "
        text = f"{axes.short_name(array)}{joint}{place}{' (no value here)' if empty else ''}{note}"
        subtitle = "\nSynthetic data" if synthetic and is_synthetic(self.data) else ""
        return _wrapped(text, letters) + subtitle


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


def signed(attributes: Any, limits: tuple[float, float], colours: str) -> tuple[tuple[float, float], str]:
    """Colour range and palette of a variable: of one that says from where it diverges, as far to both sides of that."""
    centre = diverges_from(attributes)
    if centre is None:
        return limits, colours
    reach = max(abs(end - centre) for end in limits)
    return (centre - reach, centre + reach), SIGNED_COLOURS


class _Raster(CubeView):
    """What map and section have in common: a coloured field, beside it its uncertainty with the same zoom."""

    width_of: ClassVar[tuple[int, int]] = (560, 300)

    def own_controls(self):
        if not hasattr(self, "same"):
            self.same = tick("Same colours for all slices")
            self.most = control(
                pn.widgets.Select, "Hide where the error variance is above", options=MOST_ERRORS, width=250
            )
        return [self.same, self.most]

    def draw(self):
        self._relative = axes.relative_error(self.data, self.choice.value)
        self.most.visible = self._relative is not None
        super().draw()

    def slice(self, array, places):
        """With what is too uncertain taken out; `hidden` then says where that was."""
        array = array.isel(places)
        if self._relative is None or self.most.value is None:
            return array
        relative = self._relative.isel({dim: at for dim, at in places.items() if dim in self._relative.dims})
        hidden = (relative > self.most.value).broadcast_like(array).transpose(*array.dims) & array.notnull()
        return array.where(~hidden).assign_coords(hidden=(array.dims, hidden.values))

    def steady(self):
        self.same.on = True

    def assemble(self, of, fixed, with_error):
        self.same.visible = bool(self.sliders)
        self._ranges: dict[str, tuple[float, float]] = {}
        main = self.dynamic(lambda **places: of(**fixed, **places)[0])
        return [main, self.dynamic(lambda **places: of(**fixed, **places)[1])] if with_error else [main]

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
        letters = wide // 8
        note = (
            f"; white: error variance above {self.most.value:g} of the background's" if "hidden" in array.coords else ""
        )
        main = self.raster(array, self.heading(array, title, letters, note=note), COLOURS, wide)
        if error is None:
            return main, None
        return main, self.raster(error, self.heading(error, title, letters, synthetic=False), ERROR_COLOURS, wide)

    def raster(self, array, title, colours, wide):
        raise NotImplementedError(type(self))

    def field(self, array, x, y, kdims: list, title: str, colours: str, y_edges=None) -> hv.Element:
        """An image where both axes are regular, else a mesh of the true cells; reduced on the server when large. Where
        values are hidden it is covered with white.

        `y_edges` are the edges of the cells where they do not lie half-way between the centres.
        """
        values = np.asarray(array.values, float)
        limits, colours = signed(array.attrs, self.range_of(array, values), colours)
        vdim = hv.Dimension("value", label=axes.caption(array), range=limits)
        units = axes.units_of(array)
        made, hooks = _cells(values, x, y, kdims, vdim, y_edges)
        made = made.opts(
            cmap=colours,
            clim=limits,
            colorbar=True,
            clabel=f"[{units}]" if units else "",
            colorbar_opts={"title_text_font_style": "normal"},
            bgcolor=_LAND,
            tools=["hover"],
            title=title,
            fontsize={"title": 11},
            framewise=True,
            hooks=hooks,
        )
        if "hidden" not in array.coords:
            return made
        white = np.where(array.coords["hidden"].values, 1.0, np.nan)
        veil, hooks = _cells(white, x, y, kdims, hv.Dimension("hidden", range=(0, 1)), y_edges)
        return made * veil.opts(cmap=["#ffffff"], clim=(0, 1), colorbar=False, tools=[], framewise=True, hooks=hooks)


def _cells(values: np.ndarray, x, y, kdims: list, vdim: hv.Dimension, y_edges=None) -> tuple[hv.Element, list]:
    """Values in their cells, and the hooks of their plot."""
    if values.ndim == 2 and np.ndim(x) == 1 and y_edges is None and axes.regular(x) and axes.regular(y):
        if x.size > 1 and x[0] > x[-1]:
            x, values = x[::-1], values[:, ::-1]
        if y.size > 1 and y[0] > y[-1]:
            y, values = y[::-1], values[::-1]
        (left, right), (bottom, top) = axes.edges(x, axes.spacing(y)), axes.edges(y, axes.spacing(x))
        made = hv.Image(values[::-1], bounds=(left, bottom, right, top), kdims=kdims, vdims=[vdim])
    elif np.ndim(x) == 1:
        order_x, order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
        x, y, values = x[order_x], y[order_y], values[np.ix_(order_y, order_x)]
        x_edges = axes.cell_edges(x)
        y_edges = axes.cell_edges(y) if y_edges is None else y_edges
        made = hv.QuadMesh((x_edges, y_edges, values), kdims=kdims, vdims=[vdim])
    else:
        made = hv.QuadMesh((x, y, values), kdims=kdims, vdims=[vdim])
    mesh = isinstance(made, hv.QuadMesh)
    if values.size > MOST_CELLS:
        from holoviews.operation.datashader import rasterize

        made, mesh = rasterize(made, aggregator="mean", dynamic=False, width=900, height=700), False
    return made, [_without_seams] if mesh else []


def _without_seams(plot: Any, element: Any) -> None:
    """The browser smooths the edge of each cell of a mesh, which shows as a pale line; a line of the cell's own colour
    covers it."""
    glyph = plot.handles["glyph"]
    glyph.line_color, glyph.line_width, glyph.line_alpha = glyph.fill_color, 1, 1


def _wrapped(text: str, width: int = 60) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])


def _sized(width: int, height: int) -> dict[str, Any]:
    """The size of a figure's frame in pixels. The widest figure fits a page of documentation (700 pixels) with its axes
    and colour bar; two figures stand one below the other where there is no room beside."""
    # The tools get a row of their own: beside the title they would be folded away.
    return {
        "frame_width": width,
        "frame_height": height,
        "toolbar": "above",
        "backend_opts": {"plot.toolbar_sticky": False},
    }


def _true_levels(levels: np.ndarray):
    """A hook for a plot whose vertical axis is the root of these levels: the pointer is told the level it is at.

    Cells meet half-way between levels, so the level nearest to any place of a cell is the cell's own; its centre on the
    stretched axis is another depth.
    """

    def hook(plot: Any, element: Any) -> None:
        from bokeh.models import CustomJSHover, HoverTool

        nearest = CustomJSHover(
            args={"levels": [float(level) for level in levels]},
            code="return String(levels.reduce((a, b) => Math.abs(b - value ** 2) < Math.abs(a - value ** 2) ? b : a))",
        )
        for tool in plot.state.select({"type": HoverTool}):
            if isinstance(tool.tooltips, list):
                tool.tooltips = [
                    (name, text.replace("$y", "$y{custom}").replace("@{z}", "@{z}{custom}"))
                    for name, text in tool.tooltips
                ]
                tool.formatters = {**tool.formatters, "$y": nearest, "@{z}": nearest}

    return hook


class MapView(_Raster):
    """A field over latitude and longitude (or a projection's y and x), with coastlines that need no network."""

    needs = (frozenset("yx"),)

    def __init__(self, data: Any, variable: str | None = None, places: Places | None = None):
        self.note = sentence()
        super().__init__(data, variable, places)
        self._layout.insert(1, self.note)

    def own_controls(self):
        if not hasattr(self, "observed"):
            self.observed = tick("Observations used")
        return [*super().own_controls(), *([self.observed] if self.places is not None else [])]

    def draw(self):
        roles = axes.roles(self.array)
        self.observed.visible = all(_is_degrees(self.array, roles[letter]) for letter in "yx")
        if self.observed.on:
            try:
                self.places.read()
            except PhidiasError as error:
                self.observed.on = False  # which draws
                say(self.note, str(error), problem=True)
                return
        super().draw()

    def drawn(self, roles):
        return roles["y"], roles["x"]

    def element(self, array, error, title):
        say(self.note, self.places.words(array) if self._with_places else "")
        return super().element(array, error, title)

    @property
    def _with_places(self) -> bool:
        return self.observed.on and self.observed.visible

    def _dots(self, array: Any, west: float, kdims: list) -> hv.Points:
        """The places of the values behind a slice, dark with a light rim: seen on every colour."""
        lon, lat = self.places.drawn(array)
        return hv.Points((west + np.mod(lon - west, 360.0), lat), kdims).opts(
            color="#111111", size=4, line_color="white", line_width=0.6, tools=[], apply_ranges=False
        )

    def raster(self, array, title, colours, wide):
        roles = axes.roles(array)
        array = array.transpose(roles["y"], roles["x"])
        x, y, geographic = _places(array, roles)
        left, right, bottom, top = _extent(x, y)
        kdims = [_named(array, roles["x"], "x"), _named(array, roles["y"], "y")]
        field = self.field(array, x, y, kdims, title, colours)
        squeeze = np.cos(np.deg2rad(np.clip((bottom + top) / 2, -75, 75))) if geographic else 1.0
        height = int(np.clip(wide * (top - bottom) / max((right - left) * squeeze, 1e-9), 180, 520))
        if geographic and self._with_places:
            field = field * self._dots(array, left, kdims)
        if geographic:
            field = field * _coast((left, bottom, right, top), kdims)
        if isinstance(field, hv.Overlay):
            return field.opts(hv.opts.Overlay(xlim=(left, right), ylim=(bottom, top), **_sized(wide, height)))
        return field.opts(hv.opts.Image(**_sized(wide, height)))


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
    width_of = (560, 300)

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
        down = downward(array, depth)
        levels = np.sort(z)
        bounds = cell_edges(levels)
        if down and levels[0] >= 0:
            bounds[0] = max(bounds[0], 0.0)  # the cell of the uppermost level does not reach into the air
        stretched = axes.stretch(levels)
        if stretched:
            bounds = np.sqrt(np.maximum(bounds, 0.0))
        made = self.field(
            array,
            np.asarray(x, float),
            np.sqrt(z) if stretched else z,
            kdims,
            title,
            colours,
            y_edges=bounds if stretched else None,
        )
        made = made.opts(invert_yaxis=down, ylim=(bounds[0], bounds[-1]), **_sized(wide, 320))
        return (
            made.opts(yticks=axes.ticks(levels, np.sqrt(levels)), hooks=[_without_seams, _true_levels(levels)])
            if stretched
            else made
        )


def downward(array: Any, dim: str) -> bool:
    """Whether larger values of a vertical axis lie deeper."""
    attributes = array[dim].attrs if dim in array.coords else {}
    if "positive" in attributes:
        return attributes["positive"] == "down"
    return str(dim).lower() in ("depth", "pressure", "plev") or attributes.get("standard_name") == "air_pressure"


#: What is said of the band around a line.
BAND = "; band: plus and minus one standard error"


def _line(drawn: hv.Overlay, title: str, size: tuple[int, int], **settings: Any) -> hv.Overlay:
    """What profiles and time series have in common."""
    parts = (hv.opts.Curve, hv.opts.Scatter, hv.opts.Polygons, hv.opts.Spread)
    return drawn.opts(
        hv.opts.Overlay(
            title=title,
            fontsize={"title": 11},
            show_grid=True,
            framewise=True,
            show_legend=False,
            **_sized(*size),
            **settings,
        ),
        *(part(framewise=True) for part in parts),
    )


class ProfileView(CubeView):
    """Values against depth at one place."""

    needs = (frozenset("z"),)

    def drawn(self, roles):
        return (roles["z"],)

    def element(self, array, error, title):
        (depth,) = array.dims
        z, values = np.asarray(_coordinate(array, depth), float), np.asarray(array.values, float)
        levels, stretched = z, axes.stretch(z)
        z = np.sqrt(z) if stretched else z
        kdim, vdim = hv.Dimension("value", label=axes.caption(array)), _dimension(array, depth, "z")
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
        note = "" if error is None else BAND
        down = downward(array, depth)
        ylim = None
        if stretched:
            pad = 0.02 * float(np.ptp(z))
            ylim = (max(float(z.min()) - pad, 0.0) if down else float(z.min()) - pad, float(z.max()) + pad)
        return _line(
            whole,
            self.heading(array, title, 46, note=note),
            (420, 400),
            invert_yaxis=down,
            **({"yticks": axes.ticks(levels, z), "ylim": ylim, "hooks": [_true_levels(levels)]} if stretched else {}),
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
        whole = hv.Curve((t, values), kdim, vdim).opts(color="#1f4e79", tools=["hover"], line_width=1.5)
        if values.size <= 100:
            whole = whole * hv.Scatter((t, values), kdim, vdim).opts(color="#1f4e79", size=6)
        else:
            whole = hv.Overlay([whole])
        if spread is not None:
            band = hv.Spread((t, values, spread), kdim, [vdim, hv.Dimension("error")])
            whole = band.opts(fill_color="#9ecae1", fill_alpha=0.5, line_alpha=0) * whole
        note = "" if error is None else BAND
        return _line(whole, self.heading(array, title, 60, note=note), (600, 300))


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
