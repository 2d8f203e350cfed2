"""A map of the places in a table, coloured by one of its columns."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import panel as pn

from phidias_lab.contract.data import column_attributes
from phidias_lab.widgets.controls import Wrap, control, say, sentence
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.cube import COLOURS, _coast, _sized, colour_range, degrees, signed

#: More points than this are drawn on the server, as the mean of each pixel.
MOST_POINTS = 20_000
#: Width of the map in pixels; with its axis and colour bar it fits a page of documentation.
WIDTH = 560
#: More rows than this are not read for a quick look.
MOST_ROWS = 2_000_000


class PointsView(pn.viewable.Viewer):
    """Places of a table's rows; columns of numbers can be the colour."""

    def __init__(self, data: Any, variable: str | None = None):
        super().__init__()
        self.data = data
        self.x, self.y = axes.place_columns(data)
        numbers = [str(c) for c in data.columns if getattr(data.dtypes[c], "kind", "O") in "iuf"]
        columns = [c for c in numbers if c not in (self.x, self.y)] or [self.x]
        measured = [c for c in columns if axes.role(c) is None and not c.endswith("_qc")]
        first = variable if variable in columns else next(iter(measured or columns))
        self.choice = control(pn.widgets.Select, "Colour", options=columns, value=first, width=220)
        self.note = sentence()
        self._figure = pn.pane.HoloViews(None, margin=(5, 0))
        # As in the other views: the controls wrap, and a page narrower than the figure lets it be pushed sideways.
        self._layout = pn.Column(
            Wrap(self.choice, self.note, align_items="end", margin=0),
            Wrap(self._figure, margin=0, styles={"max-width": "100%", "overflow-x": "auto"}),
            styles={"max-width": "100%"},
        )
        self.choice.param.watch(lambda event: self.draw(), "value")
        self.draw()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    @property
    def figure(self) -> Any:
        return self._figure.object

    def draw(self) -> None:
        column = self.choice.value
        wanted = list(dict.fromkeys([self.x, self.y, column]))
        rows = self.data[wanted]
        lazy = hasattr(rows, "npartitions")
        rows = rows.head(MOST_ROWS, npartitions=-1) if lazy else rows.iloc[:MOST_ROWS]
        lon, lat, value = (rows[c].to_numpy(float) for c in (self.x, self.y, column))
        good = np.isfinite(lon) & np.isfinite(lat) & np.isfinite(value)
        lon, lat, value = lon[good], lat[good], value[good]
        told = column_attributes(self.data).get(column, {})
        units = told.get("units")
        label = column if units in (None, "1") else f"{column} [{units}]"
        say(
            self.note,
            f"{lon.size} places with a value of {column}." if lon.size else f"No place has a value of {column}.",
        )
        kdims = degrees()
        made = hv.Points((lon, lat, value), kdims, [hv.Dimension("value", label=label)])
        limits, colours = signed(told, colour_range(value), COLOURS)
        common = {"cmap": colours, "colorbar": True, "clabel": label, "clim": limits, "tools": ["hover"]}
        if lon.size > MOST_POINTS:
            import datashader as ds
            from holoviews.operation.datashader import dynspread, rasterize

            made = dynspread(rasterize(made, aggregator=ds.mean("value"), width=700, height=500)).opts(**common)
        else:
            made = made.opts(color="value", size=5, line_alpha=0, **common)
        if not lon.size:
            box = (-180.0, -90.0, 180.0, 90.0)
        else:
            pad = 0.02 * max(np.ptp(lon), np.ptp(lat), 0.5)
            box = (lon.min() - pad, lat.min() - pad, lon.max() + pad, lat.max() + pad)
        west, south, east, north = box
        squeeze = np.cos(np.deg2rad(np.clip((south + north) / 2, -75, 75)))
        height = int(np.clip(WIDTH * (north - south) / ((east - west) * squeeze), 200, 520))
        self._figure.object = (made * _coast(box, kdims)).opts(
            hv.opts.Overlay(xlim=(west, east), ylim=(south, north), **_sized(WIDTH, height))
        )
