"""Spectra: values against wavelength, and what explains them where the data say it (see `contract.data.EXPLAINED_BY`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import holoviews as hv
import numpy as np

from phidias_lab.contract.data import explanation
from phidias_lab.methods import swaths
from phidias_lab.widgets.controls import say, sentence
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.cube import _line, _LineView, _sized
from phidias_lab.widgets.views.pairs import _BLUE, _GREY, names_along
from phidias_lab.widgets.views.swath import CLASSES, times

WIDTH = 560
#: Figures below each other have their axes below each other.
_ALIGNED = {"backend_opts": {"plot.toolbar_sticky": False, "plot.min_border_left": 110}}
#: What noise alone would not often leave: one and three standard deviations.
_THREE, _ONE = "#eef3f8", "#d6e4f0"
KEY = (
    "Grey: the spectrum in standard deviations of its noise; dashed: the sum of what was fitted, the parts of which have "
    "the colours of the bars; shaded: one and three standard deviations."
)
#: A spectrum that lies further, in metres, from the place that was chosen is said to be elsewhere.
NEAR = 30_000.0


class SpectrumView(_LineView):
    """One spectrum at a time: the nearest to the place that was chosen, or any other by the sliders."""

    needs = (frozenset("w"),)

    def __init__(self, data: Any, variable: str | None = None, **more: Any):
        self.elsewhere, self.key, self._following = sentence(), sentence(), False
        data = axes.with_places(data)
        dims = {dim for name in self.drawable(data) for dim in data[name].dims}
        told = [n for n, v in data.data_vars.items() if v.ndim == 1 and v.dims[0] in dims and axes.role(str(n), v)]
        super().__init__(data.set_coords(told), variable, **more)
        self._figures.flex_direction = "column"
        self._layout.insert(1, self.elsewhere)
        self._layout.append(self.key)

    @classmethod
    def drawable(cls, data):
        """What is explained, then what was measured; flags and counts come last. Else in the order of the data."""
        found = set(super().drawable(data))
        order = [name for name in map(str, data.data_vars) if name in found]
        return sorted(order, key=lambda name: (not explanation(data[name].attrs), data[name].dtype.kind != "f"))

    def drawn(self, roles):
        return (roles["w"],)

    def good_place(self, array, drawn):
        """The middle: to look for values would read whole files of spectra."""
        pixels = axes.swath(array)
        return {} if pixels is None else {dim: array.sizes[dim] // 2 for dim in pixels[0].dims if dim not in drawn}

    # Which spectrum ---------------------------------------------------------------------------------------------

    def _items(self) -> dict[str, tuple[Any, Any]]:
        """Longitude and latitude of the spectra along a slider, where each has a place of its own."""
        found = {}
        for dim in self.sliders:
            along = {axes.role(str(n), c): c for n, c in self.array.coords.items() if c.dims == (dim,)}
            if {"x", "y"} <= along.keys():
                found[dim] = along["x"].values, along["y"].values
        return found

    def _follow(self) -> None:
        if self.spot.place is None or self._following:
            return
        self._following = True
        try:
            super()._follow()
            for dim, (longitude, latitude) in self._items().items():
                found = swaths.nearest(longitude, latitude, self.spot.place)
                if found is not None:
                    self.sliders[dim].value = found[0][0]
                    there = f"The nearest spectrum lies {found[1] / 1000:.0f} km from the place that was chosen."
                    say(self.elsewhere, there if found[1] > NEAR else "")
        finally:
            self._following = False

    def _make_sliders(self, array, drawn):
        super()._make_sliders(array, drawn)
        for dim in self._items():
            self.sliders[dim].param.watch(lambda event, dim=dim: self._moved(dim, event.new), "value")

    def _moved(self, dim: str, position: int) -> None:
        """The map marks the spectrum that is looked at."""
        if not self._following:
            say(self.elsewhere, "")
            self._following = True
            try:
                self.spot.place = tuple(float(each[position]) for each in self._items()[dim])
            finally:
                self._following = False

    def _title(self, array, places):
        here = array.isel(places)
        at = {axes.role(str(n), c): c for n, c in here.coords.items() if c.ndim == 0}
        place = f" at {axes.place_label(float(at['x']), float(at['y']))}" if {"x", "y"} <= at.keys() else ""
        when = [axes.label_of(at["t"].values[()])] if "t" in at else times(self.data, places)
        indices = [f"{str(dim).replace('_', ' ')} {k}" for dim, k in places.items() if array.sizes[dim] > 1]
        return ", ".join([*([place] if place else []), *when, *indices])

    def wavelength(self, array: Any, places: dict[str, int]) -> Any:
        """The wavelengths of one spectrum: its own, where each pixel or each file has others."""
        (dim,) = (d for d in array.dims if d not in places)
        found = [each for each in axes.spectral(self.data).values() if each.dims[-1] == dim]
        best = max(found, key=lambda each: each.ndim)
        at = {}
        for other in best.dims[:-1]:
            # Which file, say, a line belongs to is told by a variable of the dimension's name.
            index = self.data.variables.get(other)
            if other in places:
                at[other] = places[other]
            elif index is not None and set(index.dims) <= set(places):
                at[other] = int(index.isel({d: places[d] for d in index.dims}))
            else:
                at[other] = 0
        return best.isel(at)

    # The figure -------------------------------------------------------------------------------------------------

    def slice(self, array, places):
        self._at = places
        return array.isel(places)

    def assemble(self, of, fixed, with_error):
        self._terms = explanation(self.array.attrs)
        if not all(name in self.data for name in self._terms.values()):
            self._terms = {}
        say(self.key, KEY if self._terms else "")
        count = (3 if "snr" in self._terms else 2) if self._terms else 1
        return [self.dynamic(_nth(of, fixed, number)) for number in range(count)]

    def element(self, array, error, title):
        wavelength = self.wavelength(self.array, self._at)
        x, y = np.asarray(wavelength.values, float), np.asarray(array.values, float)
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
        kdim, vdim = hv.Dimension("w", label=axes.caption(wavelength)), hv.Dimension("value", label=axes.caption(array))
        if not self._terms:
            parts = [hv.Curve((x, y), kdim, vdim).opts(color=_BLUE, line_width=1.5, tools=["hover"])]
            if error is not None:
                lower, upper = (end[order] for end in self.ends(array.values, error))
                vdims = [vdim, hv.Dimension("below"), hv.Dimension("above")]
                band = hv.Spread((x, y, y - lower, upper - y), kdim, vdims)
                parts.insert(0, band.opts(fill_color="#9ecae1", fill_alpha=0.5, line_alpha=0))
            return (_line(hv.Overlay(parts), self.heading(array, title, 66, note=self.note(error)), (WIDTH, 300)),)
        names, shares = self._shares(order)
        whole = shares.sum(axis=0)
        known = np.isfinite(y)
        before, after = (float(np.mean(each[known] ** 2)) if known.any() else np.nan for each in (y, y - whole))
        words = f"What is left: mean square {after:.3g} of {before:.3g} (noise alone has 1)"
        main = [*_bands(), hv.Curve((x, y), kdim, vdim).opts(color=_GREY, line_width=1, tools=["hover"])]
        main.append(hv.Scatter((x, y), kdim, vdim).opts(color=_GREY, size=3, tools=[]))
        main += [
            hv.Curve((x, share), kdim, vdim).opts(color=colour_of(k), line_width=2, tools=[])
            for k, share in enumerate(shares)
        ]
        main.append(hv.Curve((x, whole), kdim, vdim).opts(color="black", line_width=1, line_dash="dashed", tools=[]))
        rest = hv.Dimension("rest", label="left")
        left = [*_bands(), hv.Curve((x, y - whole), kdim, rest).opts(color=_BLUE, line_width=1, tools=["hover"])]
        across = {"xlabel": kdim.label, **_ALIGNED}
        drawn = [
            _line(hv.Overlay(main), self.heading(array, title, 66), (WIDTH, 280), ylabel=vdim.label, **across),
            _line(hv.Overlay(left), words, (WIDTH, 130), ylabel=rest.label, **{**across, "toolbar": None}),
        ]
        if "snr" in self._terms:
            drawn.append(self._bars(names))
        return tuple(drawn)

    def _of_item(self, term: str) -> Any:
        """A variable of the explanation, of the spectrum that is shown."""
        array = self.data[self._terms[term]]
        return array.isel({dim: k for dim, k in self._at.items() if dim in array.dims})

    def _shares(self, order: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The components, and what each contributes to the spectrum that is shown."""
        template, amplitude = self._of_item("template"), self._of_item("amplitude")
        (channel,) = self.drawn(axes.roles(self.array))
        (component,) = (dim for dim in template.dims if dim != channel)
        shares = (amplitude * template).transpose(component, channel).values[:, order]
        names = names_along(self.data, str(component))
        return [str(k + 1) if names is None else str(names.values[k]) for k in range(len(shares))], shares

    def _bars(self, names: list[str]) -> hv.Element:
        values = np.asarray(self._of_item("snr").values, float)
        words = [f"{name} {value:.1f}" for name, value in zip(names, values, strict=True)]
        colours = [colour_of(k) for k in range(len(names))]
        snr = hv.Dimension("snr", label="signal-to-noise ratio of each")
        bars = hv.Bars((words[::-1], values[::-1], colours[::-1]), hv.Dimension("component"), [snr, "colour"])
        return bars.opts(
            color="colour",
            invert_axes=True,
            tools=[],
            xlabel="",
            title="",
            framewise=True,
            show_legend=False,
            line_alpha=0,
            show_grid=True,
            **{**_sized(WIDTH, 24 * len(names) + 10), **_ALIGNED, "toolbar": None},
        )


def colour_of(component: int) -> str:
    return CLASSES[component % len(CLASSES)]


def _nth(of: Callable, fixed: dict[str, int], number: int) -> Callable:
    return lambda **places: of(**fixed, **places)[number]


def _bands() -> list[hv.HSpan]:
    """One and three standard deviations of noise."""
    return [
        hv.HSpan(-reach, reach).opts(color=colour, alpha=1.0, apply_ranges=False)
        for reach, colour in ((3, _THREE), (1, _ONE))
    ]
