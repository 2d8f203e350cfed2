"""A map of pixels that have places of their own, such as those of a satellite's swath.

What is seen is made anew for the part of the map that is looked at: far away each dot stands for many pixels, near by each
pixel has its shape. Where passes overlap, near by, the pixel whose centre is nearest is seen.
"""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import param
import xarray as xr
from bokeh.models import CustomJSHover, FixedTicker

from phidias_lab.contract.data import DRAWN_ON, LABEL_OF, diverges_from, flags
from phidias_lab.methods import swaths
from phidias_lab.widgets.controls import control, say, sentence
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.cube import MapView, degrees
from phidias_lab.widgets.views.pairs import names_along

#: What a dot shows that stands for several pixels: few pixels of an event are lost in a mean.
MEAN, GREATEST = "mean", "greatest"
BY_VALUES, LINEAR, LOGARITHMIC = "by the values", "linear", "logarithmic"
#: Colours are logarithmic by themselves where the usual values, all of them positive, span more than this ratio.
WIDE = 300.0
#: Of what is to be drawn on a logarithm the colours span so much below the highest value.
SPAN = 1e-6
#: The first class is pale; the others are told apart with the common colour blindnesses (Okabe and Ito 2008, with a violet
#: in place of black, which coasts have).
PALE = "#f7f7f7"
CLASSES = ["#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#0072b2", "#e69f00", "#6a3d9a", "#b8a800"]
#: A pixel's table tells the values along a further dimension up to this number.
MOST_TOLD = 12


class _Looked(param.Parameterized):
    """The part of the map that is looked at."""

    box = param.Parameter(None, doc="west, south, east and north, or None for all of it")


class SwathView(MapView):
    """Values over two dimensions with two-dimensional latitude and longitude. A click tells all of the pixel there."""

    def __init__(self, data: Any, variable: str | None = None, **more: Any):
        self.looked = _Looked()
        self._known: dict[str, tuple[Any, Any]] = {}
        self.told = sentence()
        self._table = pn.Column(margin=0)
        super().__init__(axes.with_places(data), variable, **more)
        self._layout.extend([self.told, self._table])
        self._tell()

    @classmethod
    def drawable(cls, data):
        # What has no further dimension is seen without choosing from one.
        return sorted(super().drawable(data), key=lambda name: data[name].ndim)

    @classmethod
    def fits(cls, array):
        return axes.swath(array) is not None

    def own_controls(self):
        if not hasattr(self, "shares"):
            self.shares = control(pn.widgets.Select, "Dots of several pixels", options=[MEAN, GREATEST], width=150)
            scales = [BY_VALUES, LINEAR, LOGARITHMIC]
            self.scale = control(pn.widgets.Select, "Colours", options=scales, width=130)
        return [*super().own_controls(), self.shares, self.scale]

    def _make_chooser(self) -> None:
        super()._make_chooser()
        # Sections go along the axes of a grid.
        self.clicks.visible = self.line.visible = self.clear.visible = False

    # Where the pixels are ---------------------------------------------------------------------------------------

    @property
    def pixels(self) -> tuple[Any, Any]:
        """Longitude and latitude of the pixels."""
        latitude, longitude = axes.swath(self.array)
        return longitude, latitude

    def _once(self, what: str, make, *asked: Any) -> Any:
        """What the places of the pixels give is found again only when it is asked for others."""
        key = (*asked, *(each.name for each in self.pixels))
        if what not in self._known or self._known[what][0] != key:
            self._known[what] = key, make(*(each.values for each in self.pixels), *asked)
        return self._known[what][1]

    @property
    def box(self):
        return self._once("box", swaths.extent)

    @property
    def framed(self):
        # On a live page whoever zooms has moved the frame already.
        return self.box if self._on_line else self.looked.box or self.box

    @property
    def geographic(self):
        return True

    @property
    def choosable(self):
        return True

    def _kdims(self, array):
        return degrees()

    # What a click does ------------------------------------------------------------------------------------------

    def chosen(self, longitude, latitude):
        """The centre of the pixel there."""
        at = self._pixel((longitude, latitude))
        if at is None:
            say(self.told, f"No pixel lies at {axes.place_label(longitude, latitude)}.")
            return None
        return tuple(float(each.values[at]) for each in self.pixels)

    def _pixel(self, place: tuple[float, float]) -> tuple[int, ...] | None:
        return swaths.pixel_at(*(each.values for each in self.pixels), place)

    def _chosen(self) -> None:
        super()._chosen()
        self._tell()

    def _tell(self) -> None:
        """All that the data hold of the pixel that was chosen."""
        place = self.spot.place
        at = None if place is None or self.still else self._pixel(place)
        self._table.objects = []
        if at is None:
            none = "A click on the map tells all values of a pixel."
            say(self.told, none if place is None else f"No pixel lies at {axes.place_label(*place)}.")
            return
        longitude, latitude = (float(each.values[at]) for each in self.pixels)
        dims = dict(zip(self.pixels[1].dims, at, strict=True))
        words = [axes.place_label(longitude, latitude), *times(self.data, dims)]
        words += [f"{str(dim).replace('_', ' ')} {position}" for dim, position in dims.items()]
        say(self.told, f"Pixel at {', '.join(words)}.")
        self._table.objects = [
            pn.widgets.Tabulator(
                values_at(self.data, dims),
                disabled=True,
                show_index=False,
                pagination="local",
                page_size=10,
                layout="fit_data_table",
            )
        ]

    # The figure -------------------------------------------------------------------------------------------------

    def draw(self):
        with param.discard_events(self.looked):
            self.looked.box = None
        self.shares.visible = self.scale.visible = not (flags(self.array.attrs) or LABEL_OF in self.array.attrs)
        super().draw()

    def slice(self, array, places):
        return super().slice(array, places).compute()

    def dynamic(self, of):
        if not self._on_line:
            return super().dynamic(of)
        return hv.DynamicMap(pn.bind(lambda box, **places: of(**places), box=self.looked.param.box, **self.sliders))

    def look(self, west: float, south: float, east: float, north: float) -> None:
        """Look at a part of the map."""
        whole = self.box
        box = max(west, whole[0]), max(south, whole[1]), min(east, whole[2]), min(north, whole[3])
        box = box if box[0] < box[2] and box[1] < box[3] else whole
        if box != (self.looked.box or whole):
            self.looked.box = box
            if not self._on_line:
                super().draw()  # a look from a script

    def _looked(self, x_range, y_range):
        if x_range is not None and y_range is not None:
            self.look(x_range[0], y_range[0], x_range[1], y_range[1])

    def _keep(self, plot, element):
        """The frame stays where the browser has it, since no picture asks for another (`framewise`): to write it back would
        undo what was zoomed meanwhile."""

    def picture(self, array, title, colours, wide):
        frame = self._frame(wide)
        box, shape = self.looked.box or self.box, (frame["frame_height"], frame["frame_width"])
        screen = self._once("screen", swaths.Screen, box, shape)
        hidden = screen.greatest(array.coords["hidden"].values) if "hidden" in array.coords else None
        values, beside, settings = self._seen(array, screen)
        drawn = xr.DataArray(values, dims=("y", "x"), name=array.name, attrs=array.attrs)
        if hidden is not None:
            drawn = drawn.assign_coords(hidden=(("y", "x"), hidden == 1))
        made = self.field(drawn, screen.x, screen.y, degrees(), title, colours, beside=beside)
        return made.opts(hv.opts.Image(**settings)) if hidden is None else made

    def _seen(self, array: Any, screen: swaths.Screen) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]:
        """What is drawn in each cell, what else the pointer is told there, and the settings of the image."""
        beside = self._behind(array, screen)
        named, values = flags(array.attrs), array.values
        tips = [(name.replace("_", " "), f"@{{{name}}}{{custom}}") for name in map(str, array.dims)]
        several = CustomJSHover(code="return isNaN(value) ? 'several pixels' : value < 0 ? 'none' : String(value)")
        formatters = {f"@{{{name}}}": several for name in map(str, array.dims)}
        value = (axes.short_name(array), "@image{0.[0000]}")
        settings: dict[str, Any] = {}
        if named:
            # Of a dot of several pixels the rarest class is seen: an event would not be otherwise.
            codes = np.array(list(named))
            order = np.argsort([-(values == code).sum() for code in codes], kind="stable")
            ranks = np.full(values.shape, np.nan)
            for rank, code in enumerate(codes[order]):
                ranks[values == code] = rank
            seen = screen.greatest(ranks)
            words = [named[code].replace("_", " ") for code in named]
            values = np.where(np.isnan(seen), np.nan, order[np.nan_to_num(seen).astype(int)])
            value = (value[0], "@image{custom}")
            formatters["@image"] = CustomJSHover(args={"words": words}, code="return words[value] ?? 'none'")
            settings = {
                "cmap": [PALE, *(CLASSES[k % len(CLASSES)] for k in range(len(words) - 1))],
                "clim": (-0.5, len(words) - 0.5),
                "colorbar_opts": {
                    "ticker": FixedTicker(ticks=list(range(len(words)))),
                    "major_label_overrides": dict(enumerate(words)),
                },
                "clabel": "",
            }
        elif LABEL_OF in array.attrs:
            labels = screen.greatest(values)
            # Colours repeat; the pointer is told the label.
            values = np.where(labels > 0, 1 + np.mod(labels - 1, len(CLASSES)), labels)
            beside["label"], value = labels, (value[0], "@label{0}")
            settings = {"cmap": [PALE, *CLASSES], "clim": (-0.5, len(CLASSES) + 0.5), "colorbar": False}
        else:
            values = (screen.greatest if self.shares.value == GREATEST else screen.mean)(values)
            scale = self._logarithmic(array, values)
            settings = {"cnorm": "log", "clim": scale} if scale else {"cnorm": "linear"}
            if scale:
                # What is too low for the colours, zero too, has the lowest; the pointer is told the value itself.
                beside["value"], value = values, (value[0], "@value{0.000e+0}")
                values = np.maximum(values, scale[0])
        place = [("longitude", "$x{0.00}"), ("latitude", "$y{0.00}")]
        settings["framewise"] = not self._on_line
        return values, beside, {**settings, "hover_tooltips": [value, *place, *tips], "hover_formatters": formatters}

    def _logarithmic(self, array: Any, values: np.ndarray) -> tuple[float, float] | None:
        """The ends of logarithmic colours, where they are asked for or the values themselves do."""
        known = values[np.isfinite(values)]
        positive = known[known > 0]
        if self.scale.value == LINEAR or not positive.size or diverges_from(array.attrs) is not None:
            return None
        if array.attrs.get(DRAWN_ON) == "logarithm":
            high = float(positive.max())
            return max(float(positive.min()), high * SPAN), high
        low, high = np.percentile(positive, [1, 99])
        if self.scale.value == BY_VALUES and (positive.size < known.size or high < WIDE * low):
            return None
        return (float(low), float(positive.max())) if positive.max() > low else None

    def _behind(self, array: Any, screen: swaths.Screen) -> dict[str, np.ndarray]:
        """The indices of the pixel in each cell; NaN where there are several, -1 where there is none."""
        indices = np.unravel_index(np.maximum(screen.pixel, 0), array.shape)
        return {
            str(dim): np.where(screen.pixel < 0, -1.0, np.where(screen.count > 1, np.nan, index))
            for dim, index in zip(array.dims, indices, strict=True)
        }


def times(data: Any, dims: dict[str, int]) -> list[str]:
    """When a pixel was seen, in words."""
    found = [each for each in data.variables.values() if each.dtype.kind == "M" and each.dims]
    found = [each for each in found if set(each.dims) <= set(dims)]
    return [axes.label_of(each.isel({d: dims[d] for d in each.dims}).values[()]) for each in found[:1]]


def values_at(data: Any, dims: dict[str, int]) -> pd.DataFrame:
    """What the variables over the dimensions of pixels hold at one of them, in words."""
    rows = []
    for name, array in data.data_vars.items():
        if not set(dims) <= set(array.dims) or str(name).endswith("_bounds"):
            continue
        here = array.isel(dims)
        if here.size > MOST_TOLD or here.ndim > 1:
            continue
        words = [_written(value, array) for value in np.atleast_1d(here.values)]
        if here.ndim:
            names = names_along(data, str(here.dims[0]))
            labels = range(here.size) if names is None else names.values
            words = [", ".join(f"{label} {word}" for label, word in zip(labels, words, strict=True))]
        rows.append({"quantity": axes.short_name(array), "value": words[0]})
    return pd.DataFrame(rows, columns=["quantity", "value"])


def _written(value: Any, array: Any) -> str:
    if array.dtype.kind in "OUTM":
        return axes.label_of(value) if array.dtype.kind == "M" else str(value)
    if not np.isfinite(value):
        return "none"
    named = flags(array.attrs)
    if int(value) in named:
        return named[int(value)].replace("_", " ")
    bits = flags(array.attrs, "flag_masks")
    if bits:
        return ", ".join(word.replace("_", " ") for bit, word in bits.items() if int(value) & bit) or "no flag"
    units = axes.units_of(array)
    return f"{value:.4g}{f' {units}' if units else ''}"
