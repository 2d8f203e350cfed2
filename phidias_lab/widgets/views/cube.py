"""Map, section, profile and time series of a cube: pick a variable, step through the other dimensions.

Only the slice that is drawn is computed, so a cube may be larger than memory.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import holoviews as hv
import numpy as np
import panel as pn
import xarray as xr

from phidias_lab.compute.runs import Run
from phidias_lab.contract.data import diverges_from, is_synthetic
from phidias_lab.errors import InputError, PhidiasError
from phidias_lab.methods import sections, swaths
from phidias_lab.methods.regridding import cell_edges
from phidias_lab.methods.sections import TURN
from phidias_lab.products import Product
from phidias_lab.widgets.controls import Wrap, button, control, live, say, sentence, tick
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views import spot as spots
from phidias_lab.widgets.views.influences import MOST_ROWS, Influences
from phidias_lab.widgets.views.places import Places
from phidias_lab.widgets.views.player import Player
from phidias_lab.widgets.views.spot import Spot

#: Above this number of cells a raster is reduced to screen pixels on the server.
MOST_CELLS = 500_000
#: Above this number of values, whole-cube questions (colour range, where data are) are asked of one slice only.
MOST_VALUES = 4_000_000
#: A longer series is thinned before it is sent.
MOST_POINTS = 2_000
#: Above which error variance, relative to that of the background, a field may be hidden: what DIVA's products mask by.
MOST_ERRORS = {"all shown": 0.0, "0.5 of the background's": 0.5, "0.3 of the background's": 0.3}
#: Perceptually uniform, and told apart with the common colour blindnesses.
COLOURS, ERROR_COLOURS = "viridis", "cividis"
#: For what has a sign: from blue over nearly white, which is not the grey of land, to red.
SIGNED_COLOURS = "RdBu_r"
_LAND = "#d9d9d9"
#: What is marked on a map, and weights above and below zero; told apart by their shapes too.
_MARK, _MORE, _LESS = "#d01c8b", "#b2182b", "#2166ac"
#: What a click on a map does.
CHOOSES, DRAWS = "chooses a place", "adds to the line"
#: The third way of a section, its axis, and what stands between two nodes.
LINE, ALONG, LINEAR, NEAREST = "the line", "distance", "interpolated", "nearest"
#: Points along a line that was drawn.
MOST_ALONG = 300


class CubeView(pn.viewable.Viewer):
    """The common part: choice of variable, sliders for dimensions that are not drawn, the figure."""

    needs: ClassVar[tuple[frozenset[str], ...]] = ()

    def __init__(
        self,
        data: Any,
        variable: str | None = None,
        *,
        places: Places | None = None,
        weighs: Run | Product | None = None,
        spot: Spot | None = None,
        still: bool = False,
    ):
        super().__init__()
        self.data = data
        #: Where the values lie that the data were made from, if that is known; maps show them.
        self.places = places
        #: The run or product that tells what weighs in a cell, if there is one; maps ask it.
        self.weighs = weighs
        self.spot = Spot() if spot is None else spot
        #: Whether nobody will click on it, as on the figures of an animation.
        self.still = still
        names = self.drawable(data)
        first = variable if variable in names else names[0]
        self.choice = control(pn.widgets.Select, "Variable", options=names, value=first, width=220)
        self.uncertainty = tick("Uncertainty", True)
        self.player = Player(self)
        self.sliders: dict[str, pn.widgets.Widget] = {}
        self._labels: dict[str, list[str]] = {}
        self._controls = Wrap(align_items="end", margin=0)
        # Narrower pages wrap the figures; a page narrower than one figure lets it be pushed sideways.
        self._figures = Wrap(margin=0, styles={"max-width": "100%", "overflow-x": "auto"})
        self._layout = pn.Column(self._controls, self.player.row, self._figures, styles={"max-width": "100%"})
        for widget in (self.choice, self.uncertainty, *self.own_controls()):
            widget.param.watch(lambda event: self.draw(), "value")
        self.draw()
        self.spot.param.watch(lambda event: self._follow(), "place")

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # What a view defines ----------------------------------------------------------------------------------------

    @classmethod
    def drawable(cls, data: Any) -> list[str]:
        """The variables that can be drawn; the first one is, unless another is asked for."""
        return [name for name in axes.drawable(data) if cls.fits(data[name])]

    @classmethod
    def fits(cls, array: Any) -> bool:
        """Whether an array can be drawn."""
        return any(need <= set(axes.roles(array)) for need in cls.needs)

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
        spot = Spot(place=self.spot.place, line=self.spot.line)
        found = type(self)(data, self.choice.value, places=self.places, spot=spot, still=True)
        for mine, other in zip(self.own_controls(), found.own_controls(), strict=True):
            other.value = mine.value
        found.uncertainty.on = self.uncertainty.on
        return found

    def _follow(self) -> None:
        """Go to the place that was chosen, along the dimensions that are not drawn."""
        if self.spot.place is None:
            return
        roles, pixels = axes.roles(self.array), axes.swath(self.array)
        if pixels is not None:
            found = swaths.nearest(pixels[1].values, pixels[0].values, self.spot.place)
            for dim, position in zip(pixels[0].dims, found[0] if found else (), strict=bool(found)):
                if dim in self.sliders:
                    self.sliders[dim].value = position
            return
        for letter, value in zip("xy", self.spot.place, strict=True):
            dim = roles.get(letter)
            if dim in self.sliders and axes.is_degrees(self.array, dim):
                found = sections.between(self.array[dim].values, value, TURN if letter == "x" else None)
                self.sliders[dim].value = int(found.nearest)

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
                # Names have no order that a slider could go along.
                kind = pn.widgets.Select if array[dim].dtype.kind in "OUT" else pn.widgets.DiscreteSlider
                self.sliders[dim] = control(kind, str(dim), options=options, value=value, width=220)
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
        where = [text for role in ("w", "z", "y", "x") for text in at.get(role, [])]
        when = [text for role in (None, "t") for text in at.get(role, [])]
        return ", ".join(filter(None, [f" at {' '.join(where)}" if where else "", *when]))

    def _label(self, dim: str, position: int) -> str:
        if dim not in self._labels:
            self._labels[dim] = axes.labels_of(self.data, self.data[dim])
        return self._labels[dim][position]

    def heading(self, array: Any, place: str, letters: int, *, note: str = "", synthetic: bool = True) -> str:
        """The title of a figure, and below it once that the data are synthetic when they are."""
        empty = not np.isfinite(np.asarray(array.values, float)).any()
        joint = "" if place.startswith(" ") or not place else ", "
        text = f"{axes.short_name(array)}{joint}{place}{' (no value here)' if empty else ''}{note}"
        subtitle = "\nSynthetic data" if synthetic and is_synthetic(self.data) else ""
        return _wrapped(text, letters) + subtitle


def _coordinate(array: Any, dim: str) -> np.ndarray:
    values = array[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return values if values.dtype.kind in "iufM" else np.arange(values.size)


def _dimension(array: Any, dim: str, name: str | None = None) -> hv.Dimension:
    text = axes.caption(array[dim]) if dim in array.coords else str(dim)
    return hv.Dimension(name or str(dim), label=text)


def degrees() -> list[hv.Dimension]:
    """The axes of a map of places."""
    return [
        hv.Dimension("x", label="longitude [degrees_east]"),
        hv.Dimension("y", label="latitude [degrees_north]"),
    ]


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
        if self._relative is None or not self.most.value:
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
        note = f"; white: error variance above {self.most.value:g}" if "hidden" in array.coords else ""
        main = self.raster(array, self.heading(array, title, letters, note=note), COLOURS, wide)
        if error is None:
            return main, None
        return main, self.raster(error, self.heading(error, title, letters, synthetic=False), ERROR_COLOURS, wide)

    def raster(self, array, title, colours, wide):
        raise NotImplementedError(type(self))

    def field(self, array, x, y, kdims: list, title: str, colours: str, y_edges=None, beside=None) -> hv.Element:
        """An image where both axes are regular, else a mesh of the true cells; reduced on the server when large. Where
        values are hidden it is covered with white.

        `y_edges` are the edges of the cells where they do not lie half-way between the centres; `beside` maps names to what
        else the pointer is told of each cell of an image.
        """
        values = np.asarray(array.values, float)
        limits, colours = signed(array.attrs, self.range_of(array, values), colours)
        vdim = hv.Dimension("value", label=axes.caption(array), range=limits)
        units = axes.units_of(array)
        made, hooks = _cells(values, x, y, kdims, vdim, y_edges, beside)
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


def _cells(
    values: np.ndarray, x, y, kdims: list, vdim: hv.Dimension, y_edges=None, beside=None
) -> tuple[hv.Element, list]:
    """Values in their cells, and the hooks of their plot."""
    if y_edges is None and axes.regular(x) and axes.regular(y):
        if x.size > 1 and x[0] > x[-1]:
            x, values = x[::-1], values[:, ::-1]
        if y.size > 1 and y[0] > y[-1]:
            y, values = y[::-1], values[::-1]
        (left, right), (bottom, top) = axes.edges(x, axes.spacing(y)), axes.edges(y, axes.spacing(x))
        if beside:
            values = np.dstack([values, *beside.values()]).astype(np.float32)
        made = hv.Image(values[::-1], bounds=(left, bottom, right, top), kdims=kdims, vdims=[vdim, *(beside or ())])
        if beside:
            return made, []
    else:
        order_x, order_y = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
        x, y, values = x[order_x], y[order_y], values[np.ix_(order_y, order_x)]
        x_edges = cell_edges(x)
        y_edges = cell_edges(y) if y_edges is None else y_edges
        made = hv.QuadMesh((x_edges, y_edges, values), kdims=kdims, vdims=[vdim])
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
    """A field over latitude and longitude (or a projection's y and x), with coastlines that need no network.

    A click chooses the place that profiles and time series show, or adds a vertex to the line of the section; both can be
    written too.
    """

    needs = (frozenset("yx"),)

    def __init__(self, data: Any, variable: str | None = None, **more: Any):
        self.note = sentence()
        self.problem = sentence()
        super().__init__(data, variable, **more)
        self._layout.insert(1, self.note)
        self._layout.extend([self._choosing, self.problem, *([self.weighing] if self.weighing else [])])
        self.spot.param.watch(lambda event: self._chosen(), ["place", "line"])
        if self.weighing is not None:
            self.spot.param.watch(lambda event: self.weighing.forget(), "place")
            self.weighing.param.watch(lambda event: None if live() else self.draw(), "rows")

    def own_controls(self):
        if not hasattr(self, "observed"):
            self.observed = tick("Observations used")
            self._make_chooser()
        return [*super().own_controls(), *([self.observed] if self.places is not None else [])]

    def _make_chooser(self) -> None:
        self.weighing = None if self.weighs is None else Influences(self.weighs, self._cell)
        ways = set().union(*(axes.roles(self.data[name]) for name in axes.drawable(self.data)))
        clicks = [CHOOSES, *([DRAWS] if "z" in ways else [])]
        self.clicks = control(pn.widgets.Select, "A click on the map", options=clicks, width=180)
        self.clicks.visible = len(clicks) > 1
        words = "Place (longitude latitude)", "Line of the section (longitude latitude; ...)"
        self.place = control(pn.widgets.TextInput, words[0], placeholder="-20 45", width=180)
        self.line = control(pn.widgets.TextInput, words[1], placeholder="-20 45; -12.5 50", width=300)
        self.clear = button("Clear the line", lambda: self.spot.param.update(line=()), width=120, align="end")
        self.line.visible = self.clear.visible = len(clicks) > 1
        self.place.param.watch(lambda event: self._written("place", event.new), "value")
        self.line.param.watch(lambda event: self._written("line", event.new), "value")
        parts = [self.clicks, self.place, *([self.weighing.button] if self.weighing else []), self.line, self.clear]
        self._choosing = Wrap(*parts, align_items="end", margin=0)
        #: Part of the map that is looked at, once somebody zooms: a mark must not throw the view back.
        self._view: dict[str, tuple[float, float]] = {}

    # What a click does ------------------------------------------------------------------------------------------

    def click(self, longitude: float, latitude: float) -> None:
        """What a click on the map does there."""
        west, south, east, north = self.box
        longitude = float(self._in_turn(longitude)) if self.geographic else longitude
        if not (west <= longitude <= east and south <= latitude <= north):
            return
        place = self.chosen(float(longitude), float(latitude))
        if place is None:
            return
        if self.clicks.value == DRAWS:
            self.spot.line = (*self.spot.line, place)
        else:
            self.spot.place = place

    def chosen(self, longitude: float, latitude: float) -> tuple[float, float] | None:
        """The place that a click chooses, if there is one."""
        return longitude, latitude

    def _written(self, what: str, text: str) -> None:
        try:
            found = spots.read(text, 1, 1 if what == "place" else None)
        except PhidiasError as error:
            say(self.problem, str(error), problem=True)
            return
        say(self.problem, "")
        if text.strip() != self._words(what):
            self.spot.param.update(**{what: found if what == "line" else next(iter(found), None)})

    def _words(self, what: str) -> str:
        place, line = self.spot.place, self.spot.line
        return spots.written(line if what == "line" else [] if place is None else [place])

    def _chosen(self) -> None:
        self.place.value, self.line.value = self._words("place"), self._words("line")
        if not live():
            self.draw()

    def _cell(self) -> dict[str, Any]:
        """The cell that is chosen, by the coordinates of the result."""
        roles = axes.roles(self.array)
        if self.spot.place is None:
            raise InputError("No place is chosen. Click on the map, or write longitude and latitude below it.")
        at = {dim: self.array[dim].values[slider.value] for dim, slider in self.sliders.items()}
        at |= {d: self.array[d].values[0] for d in self.array.dims if d not in (*at, roles["x"], roles["y"])}
        return {**at, roles["x"]: self.spot.place[0], roles["y"]: self.spot.place[1]}

    # The figure -------------------------------------------------------------------------------------------------

    def draw(self):
        self.observed.visible = self.geographic
        self._choosing.visible = self.choosable
        if self.observed.on:
            try:
                self.places.read()
            except PhidiasError as error:
                self.observed.on = False  # which draws
                say(self.note, str(error), problem=True)
                return
        self._view.clear()
        super().draw()
        for slider in self.sliders.values():
            if self.weighing is not None:
                slider.param.watch(lambda event: self.weighing.forget(), "value")

    @property
    def choosable(self) -> bool:
        """Whether a place is of use to another view, or here."""
        long = {letter for letter, dim in axes.roles(self.array).items() if self.array.sizes[dim] > 1}
        return self.geographic and (self.weighing is not None or bool({"z", "t"} & long))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """West, south, east and north of the map."""
        x, y = self._axes()
        west, east = sorted(axes.edges(np.sort(x), axes.spacing(y)))
        south, north = sorted(axes.edges(np.sort(y), axes.spacing(x)))
        return west, south, east, north

    @property
    def framed(self) -> tuple[float, float, float, float]:
        """What the frame of the figure holds."""
        return self.box

    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        roles = axes.roles(self.array)
        return tuple(np.asarray(_coordinate(self.array, roles[letter]), float) for letter in "xy")

    @property
    def geographic(self) -> bool:
        """Whether both axes are degrees on the globe."""
        roles = axes.roles(self.array)
        return all(axes.is_degrees(self.array, roles[letter]) for letter in "yx")

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

    def assemble(self, of, fixed, with_error):
        parts = super().assemble(of, fixed, with_error)
        return [self._marked(part, self.width_of[len(parts) - 1]) for part in parts] if self._on_line else parts

    @property
    def _on_line(self) -> bool:
        """Whether somebody is there who can click, so that marks come and go without the field."""
        return live() and not self.still and self._choosing.visible

    def _marked(self, part: Any, wide: int) -> hv.DynamicMap:
        streams, spot = hv.streams, self.spot
        dots = hv.DynamicMap(self._vertices, streams=[streams.Params(spot, ["place", "line"])])
        streams.SingleTap(source=dots).add_subscriber(self._clicked)
        streams.RangeXY(source=dots).add_subscriber(self._looked)
        marks = hv.DynamicMap(self._path, streams=[streams.Params(spot, ["line"])])
        if self.weighing is not None:
            marks = marks * hv.DynamicMap(self._weights, streams=[streams.Params(self.weighing, ["rows"])])
        return (part * marks * dots).opts(hv.opts.Overlay(**self._frame(wide), hooks=[self._keep]))

    def _clicked(self, x: float | None, y: float | None) -> None:
        if x is not None and y is not None:
            self.click(x, y)

    def _looked(self, x_range: tuple | None, y_range: tuple | None) -> None:
        if x_range is not None and y_range is not None:
            self._view.update(x_range=x_range, y_range=y_range)

    def _keep(self, plot: Any, element: Any) -> None:
        for name, (start, end) in self._view.items():
            getattr(plot.state, name).update(start=start, end=end)

    def _in_turn(self, longitude: Any) -> np.ndarray:
        """Longitudes in the turn of the map."""
        west = self.box[0]
        return west + np.mod(np.asarray(longitude, float) - west, TURN)

    def _path(self, line: tuple) -> hv.Path:
        """The line that was drawn, along great circles."""
        try:
            found = sections.line(*np.transpose(line), MOST_ALONG) if len(line) > 1 else None
        except InputError:  # all at one place: there is nothing to draw
            found = None
        parts = []
        if found is not None:
            lon = self._in_turn(found.longitude)
            cuts = np.flatnonzero(np.abs(np.diff(lon)) > TURN / 2) + 1
            parts = [
                np.column_stack(each) for each in zip(np.split(lon, cuts), np.split(found.latitude, cuts), strict=True)
            ]
        return hv.Path(parts, self._kdims(self.array)).opts(color=_MARK, line_width=2, tools=[], apply_ranges=False)

    def _vertices(self, place: tuple | None, line: tuple) -> hv.Points:
        """The place that was chosen, as a crossed circle, and the vertices of the line, as squares."""
        found = [(*vertex, "square", 7) for vertex in line] + ([] if place is None else [(*place, "circle_x", 14)])
        lon, lat, marker, size = zip(*found, strict=True) if found else ([], [], np.array([], str), [])
        made = hv.Points((self._in_turn(lon), lat, marker, size), self._kdims(self.array), ["marker", "size"])
        dim = hv.dim
        return made.opts(
            marker=dim("marker"),
            size=dim("size"),
            color="white",
            line_color="#111111",
            line_width=1.5,
            tools=[],
            apply_ranges=False,
        )

    def _weights(self, rows: Any | None) -> hv.Points:
        """What weighs in the cell: larger where the weight is, a diamond where it is negative."""
        lon, lat, weight = [], [], np.array([])
        if rows is not None:
            rows = rows.head(MOST_ROWS)
            lon, lat, weight = (rows[name].to_numpy(float) for name in ("longitude", "latitude", "weight"))
        most = np.abs(weight).max(initial=0.0) or 1.0
        size = 4 + 14 * np.sqrt(np.abs(weight) / most)
        marker, colour = (np.where(weight < 0, *pair).astype(str) for pair in (("diamond", "circle"), (_LESS, _MORE)))
        vdims = ["weight", "size", "marker", "colour"]
        made = hv.Points((self._in_turn(lon), lat, weight, size, marker, colour), self._kdims(self.array), vdims)
        return made.opts(
            marker=hv.dim("marker"),
            size=hv.dim("size"),
            color=hv.dim("colour"),
            line_color="white",
            line_width=0.5,
            tools=["hover"],
            hover_tooltips=["weight"],
            apply_ranges=False,
        )

    def _kdims(self, array: Any) -> list[hv.Dimension]:
        roles = axes.roles(array)
        return [_dimension(array, roles[letter], letter) for letter in "xy"]

    def _frame(self, wide: int) -> dict[str, Any]:
        """The settings of the figure."""
        west, south, east, north = self.framed
        squeeze = np.cos(np.deg2rad(np.clip((south + north) / 2, -75, 75))) if self.geographic else 1.0
        height = int(np.clip(wide * (north - south) / max((east - west) * squeeze, 1e-9), 180, 520))
        return {"xlim": (west, east), "ylim": (south, north), **_sized(wide, height)}

    def raster(self, array, title, colours, wide):
        roles = axes.roles(array)
        array = array.transpose(roles["y"], roles["x"])
        field, kdims = self.picture(array, title, colours, wide), self._kdims(array)
        if self._with_places:
            field = field * self._dots(array, self.box[0], kdims)
        if self.geographic:
            field = field * _coast(self.box, kdims)
        if not self._on_line and self._choosing.visible:
            if self.weighing is not None and self.weighing.rows is not None:
                field = field * self._weights(self.weighing.rows)
            if self.spot.line or self.spot.place is not None:
                field = field * self._path(self.spot.line) * self._vertices(self.spot.place, self.spot.line)
        frame = self._frame(wide)
        if isinstance(field, hv.Overlay):
            return field.opts(hv.opts.Overlay(**frame))
        return field.opts(hv.opts.Image(**{k: v for k, v in frame.items() if k not in ("xlim", "ylim")}))

    def picture(self, array: Any, title: str, colours: str, wide: int) -> hv.Element:
        """The values at their places, without what is drawn over them."""
        return self.field(array, *self._axes(), self._kdims(array), title, colours)


def _coast(box: tuple[float, float, float, float], kdims: list) -> hv.Curve:
    from phidias_lab.methods import coastlines

    west, south, east, north = box
    lon, lat = coastlines.lines("110m" if east - west > 90 else "50m", (west, south, east, north))
    return hv.Curve((lon, lat), kdims=kdims[:1], vdims=kdims[1:]).opts(
        color="#202020", line_width=0.8, tools=[], apply_ranges=False, show_legend=False
    )


class SectionView(_Raster):
    """Depth against one horizontal axis, or against the distance along a line of great circles."""

    needs = (frozenset("zx"), frozenset("zy"))
    width_of = (560, 300)

    def __init__(self, data: Any, variable: str | None = None, **more: Any):
        self.problem = sentence()
        super().__init__(data, variable, **more)
        self._layout.insert(1, self.problem)
        self.spot.param.watch(lambda event: self._drawn(), "line")

    def own_controls(self):
        if not hasattr(self, "along"):
            self.along = control(pn.widgets.Select, "Along", options=self._ways(), width=140)
            caption = "Line (longitude latitude; ...)"
            self.line = control(pn.widgets.TextInput, caption, placeholder="-20 45; -12.5 50", width=300)
            self.between = control(pn.widgets.Select, "Between nodes", options=[LINEAR, NEAREST], width=150)
            self.line.value = spots.written(self.spot.line if len(self.spot.line) > 1 else ())
        self.along.visible = len(self._ways()) > 1
        return [self.along, self.line, self.between, *super().own_controls()]

    def _ways(self) -> list[str]:
        roles = axes.roles(self.array)
        ways = [roles[r] for r in ("x", "y") if r in roles]
        return [*ways, LINE] if len(ways) == 2 and all(axes.is_degrees(self.array, dim) for dim in ways) else ways

    def _drawn(self) -> None:
        """A line was drawn on the map: go along it."""
        if len(self.spot.line) < 2 or LINE not in self._ways():
            return
        self.along.value = LINE
        self.line.value = spots.written(self.spot.line)

    def draw(self):
        ways = self._ways()
        if self.along.options != ways:
            self.along.options = ways
        self.line.visible = self.between.visible = self.along.value == LINE
        self._line = self._read_line() if self.along.value == LINE else None
        super().draw()

    def _read_line(self) -> sections.Line | None:
        """The line as it is written; without one from corner to corner."""
        x, y = (self.array[axes.roles(self.array)[letter]].values for letter in "xy")
        try:
            self._ends = spots.read(self.line.value, 2) or ((x.min(), y.min()), (x.max(), y.max()))
            found = sections.line(*np.transpose(self._ends), MOST_ALONG)
        except PhidiasError as error:
            say(self.problem, str(error), problem=True)
            return None
        say(self.problem, "")
        if self.line.value.strip() and self.line.value.strip() != spots.written(self.spot.line):
            self.spot.line = self._ends
        return found

    def drawn(self, roles):
        ways = self._ways()
        way = self.along.value if self.along.value in ways else ways[0]
        if way == LINE:
            return (roles["z"], roles["y"], roles["x"]) if self._line is not None else (roles["z"], roles["x"])
        return roles["z"], way

    def element(self, array, error, title):
        if array.ndim == 3:
            first, last = (axes.place_label(*self._ends[k]) for k in (0, -1))
            title = f" from {first} to {last}{f', {title}' if title else ''}"
            array, error = self.cut(array), None if error is None else self.cut(error)
        return super().element(array, error, title)

    def cut(self, array: Any) -> Any:
        """An array over depth and both horizontal axes, along the line: a value where the nearest node has one."""
        roles, line = axes.roles(array), self._line
        across = sections.between(array[roles["x"]].values, line.longitude, TURN)
        up = sections.between(array[roles["y"]].values, line.latitude)

        def nodes(rows: np.ndarray, columns: np.ndarray) -> Any:
            places = {roles["y"]: xr.DataArray(rows, dims=ALONG), roles["x"]: xr.DataArray(columns, dims=ALONG)}
            return array.isel(places).transpose(roles["z"], ALONG)

        nearest = nodes(up.nearest, across.nearest)
        values, there = nearest.values.astype(float), across.inside & up.inside
        if self.between.value == LINEAR:
            total, weights = np.zeros(values.shape), np.zeros(values.shape)
            for rows, share in ((up.lower, 1 - up.share), (up.upper, up.share)):
                for columns, part in ((across.lower, 1 - across.share), (across.upper, across.share)):
                    corner = nodes(rows, columns).values.astype(float)
                    good = np.isfinite(corner)
                    total += np.where(good, corner, 0.0) * share * part
                    weights += good * share * part
            with np.errstate(invalid="ignore"):
                values = np.where(np.isfinite(values), total / weights, np.nan)
        found = nearest.copy(data=np.where(there, values, np.nan)).drop_vars([roles["x"], roles["y"]])
        along = (ALONG, line.distance / 1000.0, {"units": "km", "long_name": "distance along the line"})
        found = found.assign_coords({ALONG: along})
        found.attrs = array.attrs
        return found

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
BAND, INTERVAL = "; band: plus and minus one standard error", "; band: central 95 % interval"


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
            **{**_sized(*size), **settings},
        ),
        *(part(framewise=True) for part in parts),
    )


class _LineView(CubeView):
    """What profiles and time series have in common: a band around a line, by what the data declare of the error."""

    @property
    def error(self):
        interval = axes.interval(self.data, self.choice.value)
        if interval is not None:
            return xr.Dataset(dict(zip(("lower", "upper"), interval, strict=True)))
        error = super().error
        return None if error is None else xr.Dataset({"error": error})

    def ends(self, values: np.ndarray, error: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of the band."""
        found = {str(name): np.asarray(array.values, float) for name, array in error.items()}
        return (
            (found["lower"], found["upper"]) if "lower" in found else (values - found["error"], values + found["error"])
        )

    def note(self, error: xr.Dataset | None) -> str:
        return "" if error is None else INTERVAL if "lower" in error else BAND


class ProfileView(_LineView):
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
            lower, upper = self.ends(values, error)
            good = np.isfinite(lower) & np.isfinite(upper)
            outline = np.column_stack([np.r_[lower[good], upper[good][::-1]], np.r_[z[good], z[good][::-1]]])
            band = hv.Polygons([outline] if good.sum() > 1 else [], [kdim, vdim])
            whole = band.opts(fill_color="#9ecae1", fill_alpha=0.5, line_alpha=0, tools=[]) * whole
        note = self.note(error)
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


class SeriesView(_LineView):
    """Values against time at one place; long series are thinned so that every peak stays."""

    needs = (frozenset("t"),)

    def drawn(self, roles):
        return (roles["t"],)

    def element(self, array, error, title):
        (time,) = array.dims
        t, values = _coordinate(array, time), np.asarray(array.values, float)
        ends = None if error is None else self.ends(values, error)
        kept = thinned(values, MOST_POINTS)
        if values.size > MOST_POINTS:
            t, values = t[kept], values[kept]
            ends = None if ends is None else tuple(end[kept] for end in ends)
        kdim, vdim = _dimension(array, time, "t"), hv.Dimension("value", label=axes.caption(array))
        whole = hv.Curve((t, values), kdim, vdim).opts(color="#1f4e79", tools=["hover"], line_width=1.5)
        if values.size <= 100:
            whole = whole * hv.Scatter((t, values), kdim, vdim).opts(color="#1f4e79", size=6)
        else:
            whole = hv.Overlay([whole])
        if ends is not None:
            below, above = values - ends[0], ends[1] - values
            band = hv.Spread((t, values, below, above), kdim, [vdim, hv.Dimension("below"), hv.Dimension("above")])
            whole = band.opts(fill_color="#9ecae1", fill_alpha=0.5, line_alpha=0) * whole
        note = self.note(error)
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
