"""Events, or other rows with shapes: a map and a table that choose for each other, filters, and what is left as a file."""

from __future__ import annotations

import io
import operator
import re
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import shapely

from phidias_lab.contract.data import is_synthetic
from phidias_lab.errors import InputError
from phidias_lab.methods import swaths
from phidias_lab.methods.sections import TURN
from phidias_lab.products import geojson
from phidias_lab.widgets.controls import Wrap, button, control, download, live, say, sentence
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.cube import _MARK, _coast, _sized, degrees
from phidias_lab.widgets.views.swath import CLASSES
from phidias_lab.widgets.views.table import printable

#: More rows than this are not taken into memory for a look.
MOST_ROWS = 50_000
#: More shapes than this are drawn as dots alone.
MOST_SHAPES = 2_000
#: A column of words with more of them than this is not chosen from, and so many columns of numbers are.
MOST_WORDS, MOST_NUMBERS = 20, 5
#: So many columns are told by the pointer.
MOST_TOLD = 6
PAGE, WIDTH, HEIGHT = 10, 520, 290
#: A look at one event shows its surroundings: this many times its size, and a degree at least.
SURROUNDINGS, LEAST = 4.0, 1.0


class EventsView(pn.viewable.Viewer):
    """Shapes of a table's rows on a map. A row that is chosen in the table is looked at on the map, and a click on the map
    chooses the row."""

    def __init__(self, data: Any):
        super().__init__()
        lazy = hasattr(data, "npartitions")
        attributes = dict(getattr(data, "attrs", None) or {})
        rows = data.head(MOST_ROWS, npartitions=-1) if lazy else data.iloc[:MOST_ROWS]
        shapes = [shapely.from_wkb(each) if isinstance(each, bytes) else each for each in rows[axes.GEOMETRY]]
        rows = rows.assign(**{axes.GEOMETRY: pd.Series(shapes, index=rows.index, dtype=object)})
        self.data = rows.reset_index(drop=True)
        self.data.attrs = attributes
        self.chosen: int | None = None
        self._parts = [_parts(shape) for shape in self.data[axes.GEOMETRY]]
        self._places = np.array([_place(shape) for shape in self.data[axes.GEOMETRY]]).reshape(-1, 2)
        self.words, self.bounds, self.days = self._filters()
        self.note = sentence()
        self.table = pn.widgets.Tabulator(
            pd.DataFrame(),
            pagination="remote",
            page_size=PAGE,
            disabled=True,
            show_index=False,
            selectable=1,
            sizing_mode="stretch_width",
        )
        self.whole = button("Show all on the map", lambda: self.choose(None), width=150, align="end")
        files = [
            download("GeoJSON of these rows", self._geojson, "events.geojson", width=170),
            download("CSV of these rows", self._csv, "events.csv", width=150),
        ]
        self._figure = pn.pane.HoloViews(None, margin=(5, 0), linked_axes=False)
        filters = [*self.words.values(), *self.days, *self.bounds.values()]
        self._layout = pn.Column(
            Wrap(*filters, align_items="end", margin=0),
            self.note,
            Wrap(self._figure, margin=0, styles={"max-width": "100%", "overflow-x": "auto"}),
            Wrap(self.whole, *files, align_items="end", margin=0),
            self.table,
            styles={"max-width": "100%"},
        )
        for widget in filters:
            widget.param.watch(lambda event: self.show(), "value")
        self.table.param.watch(self._row_chosen, "selection")
        self.show()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    @property
    def figure(self) -> Any:
        return self._figure.object

    # What is to be seen -----------------------------------------------------------------------------------------

    def _filters(self) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
        """A choice for each column of few words, a bound for columns of numbers, and the days of the first time."""
        words, bounds, days = {}, {}, []
        self.time = None
        for column in map(str, self.data.columns):
            values = self.data[column]
            kind = getattr(values.dtype, "kind", "O")
            if column == axes.GEOMETRY or axes.role(column) in ("x", "y"):
                continue
            if kind == "M":
                if self.time is None:
                    self.time = column
                    days = [
                        control(pn.widgets.DatePicker, f"{column} {end}", width=130)
                        for end in ("from", "to, inclusive")
                    ]
            elif kind == "f" and len(bounds) < MOST_NUMBERS:
                bounds[column] = control(pn.widgets.TextInput, column, placeholder=">= 5", width=110)
            elif kind not in "iufb" and all(isinstance(value, str) for value in values.dropna()):
                options = sorted(set(values.dropna()))
                # What is another one in each row is a name, not a kind.
                if 1 < len(options) <= MOST_WORDS and len(options) < values.count():
                    words[column] = control(pn.widgets.MultiChoice, column, options=options, value=[], width=220)
        return words, bounds, days

    @property
    def rows(self) -> pd.DataFrame:
        """The rows that fit what was chosen."""
        keep = np.ones(len(self.data), bool)
        for column, choice in self.words.items():
            if choice.value:
                keep &= self.data[column].astype(str).isin(choice.value).to_numpy()
        for column, bound in self.bounds.items():
            if bound.value.strip():
                compare, limit = _bound(column, bound.value)
                keep &= compare(self.data[column].to_numpy(float), limit)
        if self.days:
            day = pd.to_datetime(self.data[self.time], utc=True).dt.tz_localize(None).dt.floor("D")
            first, last = (None if each.value is None else pd.Timestamp(each.value) for each in self.days)
            keep &= (day >= first).to_numpy(bool) if first is not None else True
            keep &= (day <= last).to_numpy(bool) if last is not None else True
        rows = self.data[keep]
        rows.attrs = self.data.attrs
        return rows

    def show(self) -> None:
        try:
            rows = self.rows
        except InputError as error:
            say(self.note, str(error), problem=True)
            return
        self._left, self._shown = rows, rows.index.to_numpy()
        self.chosen = self.chosen if self.chosen in self._shown else None
        self.table.value = printable(rows.drop(columns=[axes.GEOMETRY]))
        self._select()
        missing = sum(not self._parts[k] and not np.isfinite(self._places[k, 0]) for k in self._shown)
        words = f"{len(rows)} of {len(self.data)} rows" if len(rows) < len(self.data) else f"{len(rows)} rows"
        words += f", {missing} of them without a shape" if missing else ""
        say(self.note, words + (". A click on a row or on the map chooses an event." if len(rows) else "."))
        self.draw()

    # Choosing ---------------------------------------------------------------------------------------------------

    def choose(self, row: int | None) -> None:
        """Look at one row, by its position in the data; None looks at all."""
        if row == self.chosen:
            return
        self.chosen = row
        self._select()
        self.draw()

    def _select(self) -> None:
        """Let the table agree with what was chosen."""
        at = [int(k) for k in np.flatnonzero(self._shown == self.chosen)] if self.chosen is not None else []
        if at:
            self.table.page = at[0] // PAGE + 1
        if list(self.table.selection) != at:
            self.table.selection = at

    def _row_chosen(self, event: Any) -> None:
        self.choose(int(self._shown[event.new[0]]) if event.new and event.new[0] < len(self._shown) else None)

    def click(self, longitude: float, latitude: float) -> None:
        """Choose the smallest shape that is there, else what has its place nearest, if that is near for the eye."""
        here = [shapely.points(longitude + turn, latitude) for turn in (-TURN, 0.0, TURN)]
        shapes = self.data[axes.GEOMETRY]
        inside = [k for k in self._shown if self._parts[k] and any(shapes[k].contains(point) for point in here)]
        if inside:
            self.choose(int(min(inside, key=lambda k: shapes[k].area)))
            return
        west, south, east, north = self.box
        if len(self._shown):
            away = np.mod(self._places[self._shown, 0] - longitude + TURN / 2, TURN) - TURN / 2
            dots = np.hypot(
                away / (east - west) * WIDTH, (self._places[self._shown, 1] - latitude) / (north - south) * HEIGHT
            )
            if np.isfinite(dots).any() and np.nanmin(dots) < 12:
                self.choose(int(self._shown[np.nanargmin(dots)]))

    # The figure -------------------------------------------------------------------------------------------------

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What the map shows: the row that was chosen with its surroundings, or all that fit."""
        rows = self._shown if self.chosen is None else [self.chosen]
        corners = [part[0] for k in rows for part in self._parts[k]] + [self._places[list(rows)]]
        lon, lat = np.concatenate(corners).T if len(rows) else (np.array([]), np.array([]))
        west, east = swaths.span(lon)
        south, north = (np.nanmin(lat), np.nanmax(lat)) if np.isfinite(lat).any() else (-90.0, 90.0)
        wide, high = 1.1 * (east - west), 1.1 * (north - south)
        if self.chosen is not None:
            wide, high = max(SURROUNDINGS * wide, LEAST), max(SURROUNDINGS * high, LEAST)
        # As wide for its height as the figure, so that shapes are not drawn out.
        squeeze = np.cos(np.radians(np.clip((south + north) / 2, -75, 75)))
        wide = min(max(wide, high * WIDTH / HEIGHT / squeeze), TURN)
        high = min(max(high, wide * HEIGHT / WIDTH * squeeze), 180.0)
        x = (west + east) / 2 if wide < TURN else 0.0
        y = np.clip((south + north) / 2, -90 + high / 2, 90 - high / 2)
        return float(x - wide / 2), float(y - high / 2), float(x + wide / 2), float(y + high / 2)

    def draw(self) -> None:
        box, kdims = self.box, degrees()
        named = next(iter(self.words), None)
        told = [str(c) for c in self.data.columns if c != axes.GEOMETRY][:MOST_TOLD]
        words = dict(zip(self._shown, printable(self.data.loc[self._shown, told]).astype(str).to_numpy(), strict=True))
        keys = [f"column_{k}" for k in range(len(told))]
        shapes, outlines = [], []
        dots: dict[str, list[tuple]] = {}
        for k in self._shown:
            more = {"colour": self._colour(k, named), **dict(zip(keys, words[k], strict=True))}
            dots.setdefault(str(self.data[named][k]) if named else "", []).extend(
                (self._places[k, 0] + turn, self._places[k, 1], *more.values())
                for turn in _turns(*self._places[[k, k], 0], box)
            )
            if len(self._shown) > MOST_SHAPES and k != self.chosen:
                continue
            for outer, holes in self._parts[k]:
                for turn in _turns(outer[:, 0].min(), outer[:, 0].max(), box):
                    there, *inner = (ring + np.array([turn, 0.0]) for ring in (outer, *holes))
                    shapes.append({"x": there[:, 0], "y": there[:, 1], "holes": [inner], **more})
                    outlines += [there] if k == self.chosen else []
        look = {"color": "colour", "tools": ["hover"], "apply_ranges": False}
        look["hover_tooltips"] = [(name, f"@{key}") for name, key in zip(told, keys, strict=True)]
        drawn = hv.Polygons(shapes, kdims, ["colour", *keys]).opts(fill_alpha=0.45, line_color="colour", **look)
        points = hv.Overlay(
            [
                hv.Points(rows, kdims, ["colour", *keys], label=name).opts(
                    size=7, line_color="white", **{**look, "color": rows[0][2] if rows else CLASSES[0]}
                )
                for name, rows in sorted(dots.items())
            ]
            or [hv.Points([], kdims, ["colour", *keys])]
        )
        mark = hv.Path(outlines, kdims).opts(color=_MARK, line_width=2.5, tools=[], apply_ranges=False)
        if live():
            hv.streams.SingleTap(source=drawn).add_subscriber(self._clicked)
        west, south, east, north = box
        title = (f"Events by {named}" if named else "Events") + self._synthetic()
        self._figure.object = (drawn * _coast(box, kdims) * points * mark).opts(
            hv.opts.Overlay(
                title=title,
                fontsize={"title": 11},
                xlim=(west, east),
                ylim=(south, north),
                show_legend=named is not None,
                legend_position="right",
                **_sized(WIDTH, HEIGHT),
            )
        )

    def _synthetic(self) -> str:
        """That the rows on the map are synthetic, by the table or by a column of it."""
        made = np.full(len(self._shown), is_synthetic(self.data))
        if "synthetic" in self.data:
            made |= self.data["synthetic"].fillna(False).to_numpy(bool)[self._shown]
        return "\nSynthetic data" if made.any() and made.all() else "\nPartly synthetic data" if made.any() else ""

    def _colour(self, row: int, named: str | None) -> str:
        value = None if named is None else str(self.data[named][row])
        known = [] if named is None else self.words[named].options
        return CLASSES[known.index(value) % len(CLASSES)] if value in known else "#555555"

    def _clicked(self, x: float | None, y: float | None) -> None:
        if x is not None and y is not None:
            self.click(x, y)

    def _geojson(self) -> io.StringIO:
        return io.StringIO(geojson.dumps(self._left))

    def _csv(self) -> io.StringIO:
        rows = self._left
        shapes = [getattr(shape, "wkt", "") for shape in rows[axes.GEOMETRY]]
        return io.StringIO(rows.assign(**{axes.GEOMETRY: shapes}).to_csv(index=False))


def _parts(shape: Any) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """The polygons of a shape: the outer ring, and its holes; longitudes go on without a jump."""
    found = []
    for part in getattr(shape, "geoms", [] if shape is None else [shape]):
        if part.geom_type == "Polygon" and not part.is_empty:
            outer = np.asarray(part.exterior.coords)[:, :2]
            west, east = outer[:, 0].min(), outer[:, 0].max()
            if east - west > TURN / 2 and not (
                west == -180 and east == 180
            ):  # one cut at the date line is as it should be
                outer = np.column_stack([np.unwrap(outer[:, 0], period=TURN), outer[:, 1]])
            found.append((outer, [np.asarray(hole.coords)[:, :2] for hole in part.interiors]))
    return found


def _bound(column: str, text: str) -> tuple[Any, float]:
    """What '>= 5', '<1e-6' or '5', which is at least 5, ask for."""
    found = re.fullmatch(r"\s*(<=|>=|<|>)?\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*", text)
    try:
        return _COMPARE[found[1] or ">="], float(found[2])
    except (TypeError, ValueError):
        raise InputError(
            f"{text.strip()!r} was given as a bound of {column}. Write a number, such as >= 5 or <= 1e-6."
        ) from None


_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def _place(shape: Any) -> tuple[float, float]:
    """Where the dot of a shape lies: in its largest part."""
    if shape is None or shape.is_empty:
        return np.nan, np.nan
    point = max(getattr(shape, "geoms", [shape]), key=lambda part: part.area).representative_point()
    return point.x, point.y


def _turns(west: float, east: float, box: tuple[float, float, float, float]) -> list[float]:
    """By how many degrees something is moved to be seen in the box: in no turn, one or two of them."""
    return [TURN * k for k in range(-2, 3) if west + TURN * k <= box[2] and east + TURN * k >= box[0]]
