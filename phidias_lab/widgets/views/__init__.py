"""Views of data, chosen by their dimensions: the same for a chain's result, a catalogue entry and a file.

latitude and longitude   map               depth and one horizontal axis   section
places of single pixels  swath             depth                           profile
wavelength               spectrum          time                            time series
columns                  table, a map of points when they have places, events when they have shapes
one compared_with another scatter               statistics of groups       Taylor and target diagram, table
one drawn_against another    curve

The views of a cube share a place and a line (see `spot`): a click on the map chooses them.
"""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import panel as pn

from phidias_lab import flow
from phidias_lab.compute.runs import Run
from phidias_lab.contract.data import is_synthetic
from phidias_lab.errors import InputError, PhidiasError
from phidias_lab.products import Product
from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import axes, curves, pairs
from phidias_lab.widgets.views.places import Places
from phidias_lab.widgets.views.spot import Spot

#: Titles of the views in the order in which they are offered.
TITLES = {
    "map": "Map",
    "swath": "Swath",
    "spectrum": "Spectrum",
    "events": "Events",
    "points": "Map of points",
    "scatter": "Scatter",
    "taylor": "Taylor diagram",
    "target": "Target diagram",
    "curves": "Curves",
    "groups": "Groups",
    "section": "Section",
    "profile": "Profile",
    "series": "Time series",
    "table": "Table",
}


def suitable(data: Any) -> list[str]:
    """The names of the views that suit these data, the most telling first."""
    if hasattr(data, "columns"):
        found = {"table", *(["events"] if axes.GEOMETRY in data.columns else [])}
        found |= {"points"} if axes.place_columns(data) else set()
        return [name for name in TITLES if name in found]
    data = axes.with_places(data, load=False)
    found = pairs.suitable(data) | curves.suitable(data)
    for variable in axes.drawable(data):
        array = data[variable]
        kinds = _of_axes({role for role, dim in axes.roles(array).items() if array.sizes[dim] > 1})
        found |= kinds if axes.swath(array) is None else {{"map": "swath"}.get(kind, kind) for kind in kinds}
    return [name for name in TITLES if name in found] or ["table"]


def _of_axes(has: set[str]) -> set[str]:
    """The views of an array that is longer than one along these axes."""
    found = set()
    if {"y", "x"} <= has:
        found.add("map")
    if "z" in has:
        found |= {"profile", "section"} if has & {"y", "x"} else {"profile"}
    if "t" in has:
        found.add("series")
    if "w" in has:
        found.add("spectrum")
    return found


def view(data: Any, *, kind: str | None = None, variable: str | None = None) -> pn.viewable.Viewable:
    """Everything that suits the data, in tabs; or the one `kind` that is asked for.

    `data` is a Dataset or DataFrame, or a run (which is waited for) or a product: their maps can then also show the places
    of the observations that were used and what weighs in a cell, if the chain tells them and its inputs are at hand, and the
    events that were found have a view. The
    views share a place, that a click on the map chooses, and the line of the section.
    """
    prepare()
    more: dict[str, Any] = {"spot": Spot()}
    events = None
    if isinstance(data, Run | Product):
        source, data = data, data.result() if isinstance(data, Run) else data.open()
        more["places"] = Places(source) if flow.tells(source, "places") else None
        more["weighs"] = source if flow.tells(source, "influences") else None
        events = _events(source) if kind in (None, "events") else None
    if hasattr(data, "to_dataset") and not hasattr(data, "data_vars"):
        data = data.to_dataset(name=data.name or "value")
    if hasattr(data, "data_vars"):
        data = axes.with_places(data)
    elif not hasattr(data, "columns"):
        raise InputError(f"A {type(data).__name__} cannot be shown. Give an xarray Dataset or a DataFrame.")
    kinds = suitable(data)
    if events is not None:
        kinds = [name for name in TITLES if name in {*kinds, "events"}]
    if kind is not None:
        if kind not in kinds:
            raise InputError(f"These data have no view {kind!r}. They can be shown as {', '.join(kinds)}.")
        kinds = [kind]
    made = [
        (TITLES[name], _make(name, data if name != "events" or events is None else events, variable, more))
        for name in kinds
    ]
    shown = made[0][1] if len(made) == 1 else pn.Tabs(*made, dynamic=True)
    words = of_synthetic(data, figures=bool(set(kinds) - {"points", "table", "groups"}))
    return shown if words is None else pn.Column(words, shown)


def _events(source: Run | Product) -> Any | None:
    """The events that a result tells of, where there are any; what its chain says of each in columns of its own, and nothing
    that is the same for all of them."""
    try:
        found = flow.events(source)
    except PhidiasError:  # its chain is not installed, or is another version of it
        return None
    if found is None or found.empty:
        return None
    told = _single(pd.DataFrame(found["properties"].tolist(), index=found.index))
    same = ["id", "chain", "run", "product", "source", "recorded", "properties"]
    return found.drop(columns=same).join(told, rsuffix="_told")


def _single(table: pd.DataFrame) -> pd.DataFrame:
    """The columns with one number or word in each row: spectra and lists would fill the page."""
    return table[[name for name in table if not table[name].map(lambda value: isinstance(value, list | dict)).any()]]


def of_synthetic(data: Any, figures: bool) -> pn.pane.HTML | None:
    """What is to be said beside data that are synthetic or come from such; the titles of figures say the first."""
    inputs = (getattr(data, "attrs", None) or {}).get("synthetic_inputs")
    if is_synthetic(data):
        words = "" if figures else "Synthetic data: made by a program, not measured."
    else:
        words = f"Made with a synthetic input: {html.escape(str(inputs))}." if inputs else ""
    return pn.pane.HTML(words, margin=(0, 10)) if words else None


def _make(kind: str, data: Any, variable: str | None, more: dict[str, Any]) -> pn.viewable.Viewable:
    if kind == "table":
        from phidias_lab.widgets.views import table

        return table.TableView(data).__panel__() if hasattr(data, "columns") else table.of_cube(data)
    if kind == "points":
        from phidias_lab.widgets.views import points

        return points.PointsView(data, variable=variable).__panel__()
    if kind == "events":
        from phidias_lab.widgets.views import events

        return events.EventsView(data).__panel__()
    if kind in pairs.VIEWS:
        return pairs.VIEWS[kind](data).__panel__()
    if kind == "curves":
        return curves.CurvesView(data).__panel__()
    return of_cubes()[kind](data, variable=variable, **more).__panel__()


def of_cubes() -> dict[str, Any]:
    """The views of cubes, which share a place and can be played."""
    from phidias_lab.widgets.views import cube, spectrum, swath

    return {**cube.VIEWS, "swath": swath.SwathView, "spectrum": spectrum.SpectrumView}


__all__ = ["TITLES", "suitable", "view"]
