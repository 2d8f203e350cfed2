"""Events on a map and in a table that choose for each other; what is left by the filters can be taken away as a file."""

from __future__ import annotations

import datetime
import html
import io
import json

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
import shapely
from bokeh.models.glyphs import MultiPolygons, Scatter
from screened import synthetic_events

import phidias_lab
from phidias_lab.widgets import views
from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import events, suitable, view

prepare()


@pytest.fixture(autouse=True)
def as_in_a_script(monkeypatch):
    from phidias_lab.widgets import controls

    for module in (events, controls):
        monkeypatch.setattr(module, "live", lambda: False)


def outlines(shown) -> list[np.ndarray]:
    """The outer rings on the map."""
    (found,) = [r.data_source.data for r in hv.render(shown.figure).renderers if isinstance(r.glyph, MultiPolygons)]
    return [
        np.column_stack([x[0], y[0]])
        for xs, ys in zip(found["xs"], found["ys"], strict=True)
        for x, y in zip(xs, ys, strict=True)
    ]


def dots(shown) -> dict[str, int]:
    """How many dots of each kind the map has."""
    plot = hv.render(shown.figure)
    (legend,) = plot.legend
    numbers = {
        item.label.value: len(renderer.data_source.data["x"])
        for item in legend.items
        for renderer in item.renderers
        if isinstance(renderer.glyph, Scatter)
    }
    return numbers


def test_a_table_with_shapes_is_shown_on_a_map_with_what_is_synthetic_called_so():
    table = synthetic_events()
    assert suitable(table) == ["events", "table"]
    assert suitable(table.assign(longitude=1.0, latitude=2.0)) == ["events", "points", "table"]
    view(table, kind="events").get_root()
    shown = events.EventsView(table)
    assert "Synthetic data" in hv.render(shown.figure).title.text
    assert dots(shown) == {"CH4": 1, "CO": 3, "unknown": 1}
    assert list(shown.table.value.columns) == ["event", "time", "kind", "snr", "pixels"]


def test_a_shape_across_the_date_line_is_drawn_in_one_place():
    shown = events.EventsView(synthetic_events())
    shown.choose(2)
    west, south, east, north = shown.box
    assert west < 176 < 182 < east
    assert south < 64 < 68 < north
    rings = [ring for ring in outlines(shown) if ring[:, 1].min() == 64]
    assert sorted((ring[:, 0].min(), ring[:, 0].max()) for ring in rings) == [(165, 180), (180, 182)]
    table = synthetic_events().iloc[:1]
    for lons in ((176, 182), (-184, -178)):  # written without a cut
        table = table.assign(geometry=[shapely.box(lons[0], 64, lons[1], 68)])
        (ring,) = outlines(events.EventsView(table))
        assert np.ptp(ring[:, 0]) == 6
    jumps = shapely.Polygon([(176, 64), (-178, 64), (-178, 68), (176, 68)])
    (ring,) = outlines(events.EventsView(table.assign(geometry=[jumps])))
    assert np.ptp(ring[:, 0]) == pytest.approx(6)


def test_a_row_that_is_chosen_is_looked_at_and_a_click_on_the_map_chooses_its_row():
    shown = events.EventsView(synthetic_events())
    whole = shown.box
    shown.table.selection = [1]
    west, _, east, north = shown.box
    assert west < -62 < -58 < east
    assert east - west < whole[2] - whole[0]
    assert (hv.render(shown.figure).x_range.start, hv.render(shown.figure).y_range.end) == (west, north)
    shown.whole.clicks += 1
    assert (shown.box, shown.table.selection, shown.chosen) == (whole, [], None)
    shown.click(11.0, 46.0)  # within the first one
    assert (shown.chosen, shown.table.selection) == (0, [0])
    shown.choose(None)
    shown.click(100.9, 20.5)  # beside the dot of one too small to be hit
    assert shown.chosen == 3
    shown.choose(None)
    shown.click(181.5, 66.0)  # beyond the date line
    assert shown.chosen == 2
    shown.choose(None)
    shown.click(-30.0, 0.0)
    assert shown.chosen is None


def test_a_row_on_a_later_page_is_turned_to():
    many = pd.concat([synthetic_events()] * 6, ignore_index=True)
    shown = events.EventsView(many)
    shown.choose(27)
    assert (shown.table.page, shown.table.selection) == (3, [27])


def test_filters_narrow_table_map_and_files_alike():
    table = synthetic_events()
    shown = events.EventsView(table)
    shown.words["kind"].value = ["CO"]
    shown.bounds["snr"].value = ">= 10"
    assert shown.rows["event"].tolist() == [1, 3]
    assert shown.table.value["event"].tolist() == [1, 3]
    assert dots(shown) == {"CO": 2}
    assert "2 of 5 rows" in shown.note.object
    shown.table.selection = [1]
    assert shown.chosen == 2
    shown.days[1].value = datetime.date(2022, 6, 28)
    assert shown.rows["event"].tolist() == [1]
    assert shown.chosen is None
    read = pd.read_csv(io.StringIO(shown._csv().getvalue()))
    assert (read["event"].tolist(), read["snr"].tolist()) == ([1], [31.5])
    assert shapely.from_wkt(read["geometry"][0]).equals(table["geometry"][0])
    (feature,) = json.loads(shown._geojson().getvalue())["features"]
    assert feature["properties"]["kind"] == "CO"
    shown.days[0].value = datetime.date(2022, 6, 29)
    assert len(shown.rows) == 0
    hv.render(shown.figure)
    assert "0 of 5 rows" in shown.note.object


def test_a_bound_may_be_a_least_or_a_greatest_value_and_what_is_none_is_told():
    shown = events.EventsView(synthetic_events())
    for text, left in (
        ("9.9", [1, 3, 5]),
        ("<= 9.9", [2, 4, 5]),
        ("<8.2", [4]),
        (" > 9.9e0", [1, 3]),
        ("", [1, 2, 3, 4, 5]),
    ):
        shown.bounds["snr"].value = text
        assert shown.rows["event"].tolist() == left, text
    shown.bounds["snr"].value = "much"
    assert "'much' was given as a bound of snr. Write a number, such as >= 5" in html.unescape(shown.note.object)
    assert len(json.loads(shown._geojson().getvalue())["features"]) == 5  # as the table shows it
    assert "alert" in shown.note.object
    shown.bounds["snr"].value = "5"
    assert "alert" not in shown.note.object


def test_the_lakes_events_are_shown_with_their_binary_shapes_and_what_of_them_is_synthetic():
    table = synthetic_events()
    table.attrs = {}
    table["geometry"] = pd.Series([shape.wkb for shape in table["geometry"]], dtype=object)
    table["id"] = ["a", "b", "c", "d", "e"]
    table["bbox"] = [{"xmin": 0.0}] * 5
    table["time"] = table["time"].dt.tz_localize("UTC")
    table["synthetic"] = [True, False, False, False, False]
    shown = events.EventsView(table)
    assert list(shown.words) == ["kind"]
    assert "Partly synthetic data" in hv.render(shown.figure).title.text
    assert len(outlines(shown)) == 6
    shown.bounds["snr"].value = "30"
    assert hv.render(shown.figure).title.text.endswith("\nSynthetic data")
    shown.bounds["snr"].value = "< 30"
    assert "ynthetic" not in hv.render(shown.figure).title.text
    shown.days[1].value = datetime.date(2022, 6, 28)
    assert shown.rows["event"].tolist() == [2]


def test_rows_without_a_shape_and_events_that_are_points_can_be_shown():
    table = synthetic_events()
    table["geometry"] = pd.Series([None, shapely.Point(5, 5), shapely.Polygon(), *table["geometry"][3:]], dtype=object)
    shown = events.EventsView(table)
    assert "2 of them without a shape" in shown.note.object
    assert sum(dots(shown).values()) == 3
    shown.choose(1)
    assert shown.box[0] < 5 < shown.box[2]
    shown.choose(0)
    hv.render(shown.figure)


def test_a_run_that_found_events_shows_them_beside_its_result(tmp_path):
    rows = {
        "time": pd.Timestamp("2020-01-01", tz="UTC"),
        "longitude": 3.0,
        "latitude": [1.0, 2.0],
        "temperature": [20.0, 1.0],
    }
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "rows.csv", index=False)
    run = phidias_lab.run("probe.events", inputs={"rows": str(tmp_path / "rows.csv")})
    run.result()
    tabs = view(run)
    assert tabs._names[0] == "Events"
    shown = view(run, kind="events")
    (table,) = (each.value for each in shown.select(pn.widgets.Tabulator))
    assert table["kind"].tolist() == ["warmth"]
    assert table["temperature"].tolist() == [20.0]  # what the chain says of an event beside
    assert "properties" not in table
    none = phidias_lab.run("probe.events", above=50, inputs={"rows": str(tmp_path / "rows.csv")})
    none.result()
    assert "Events" not in getattr(view(none), "_names", [])


def test_lists_that_are_told_of_an_event_are_no_columns():
    told = pd.DataFrame(
        [{"snr": 5.0, "of": "CO", "signature": [1.0, 2.0]}, {"snr": 6.0, "of": "CH4", "basis": {"id": 1}}]
    )
    assert list(views._single(told)) == ["snr", "of"]
