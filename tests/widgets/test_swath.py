"""A map of pixels: each is seen where it lies, near by and from afar, and a click tells all of it."""

from __future__ import annotations

import dask
import dask.array as da
import holoviews as hv
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bokeh.models import ColorBar, HoverTool, LogColorMapper, Plot
from bokeh.models.glyphs import Image, Line, Scatter
from screened import GASES, synthetic
from widget_servers import PIXEL, colours, free_port, scripted, stopped

from phidias_lab.errors import InputError
from phidias_lab.widgets import animation, controls
from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import cube, suitable, swath, view
from phidias_lab.widgets.views.spot import Spot

prepare()

SERVED = """
import sys
import panel as pn
from screened import synthetic, synthetic_events
from phidias_lab.widgets import view
data, table = synthetic(), synthetic_events()
pages = {"/screening": lambda: view(data), "/events": lambda: view(table)}
pn.serve(pages, port=int(sys.argv[1]), address="127.0.0.1", show=False)
"""

_FIGURE = """
  const find = view => view.frame && view.model.type == "Figure" ? view
    : [...view.child_views ?? []].map(find).find(found => found)
  const plot = [...Bokeh.index].map(find).find(found => found).model
"""
FRAME = f"() => {{{_FIGURE} return [plot.x_range.start, plot.x_range.end] }}"
PICTURE_FILLS_THE_FRAME = f"""() => {{{_FIGURE}
  const data = plot.renderers.find(each => each.glyph.type == "Image").data_source.data
  const [x, dw] = [data.x[0], data.dw[0]], wide = plot.x_range.end - plot.x_range.start
  return Math.abs(x - plot.x_range.start) < 0.01 * wide && Math.abs(dw - wide) < 0.01 * wide
}}"""


@pytest.fixture(autouse=True)
def as_in_a_script(monkeypatch):
    for module in (cube, controls):
        monkeypatch.setattr(module, "live", lambda: False)


def image(shown) -> dict:
    """What the image on the map holds, row 0 in the south."""
    (found,) = [r.data_source.data for r in hv.render(shown.figure).renderers if isinstance(r.glyph, Image)]
    return {key: np.asarray(value[0]) for key, value in found.items()}


def cell(shown, longitude: float, latitude: float) -> tuple[int, int]:
    """Row and column of the cell at a place."""
    found = image(shown)
    rows, columns = found["image"].shape
    east = (longitude - found["x"]) % 360
    return int((latitude - found["y"]) / found["dh"] * rows), int(east / found["dw"] * columns)


def values(shown) -> np.ndarray:
    return image(shown)["image"]


def place_of(data, line: int, pixel: int) -> tuple[float, float]:
    return tuple(float(data[name].values[line, pixel]) for name in ("longitude", "latitude"))


@pytest.mark.parametrize("start", [20.0, 178.0])
def test_near_by_each_pixel_is_seen_where_it_lies(start):
    data = synthetic(start=start)
    shown = swath.SwathView(data, "score")
    lon, lat = place_of(data, 150, 20)
    lon = shown.box[0] + np.mod(lon - shown.box[0], 360)  # in the turn of the map
    shown.look(lon - 4, lat - 4, lon + 4, lat + 4)
    seen = values(shown)
    for line, pixel in ((150, 20), (149, 21), (152, 18)):
        at = cell(shown, *place_of(data, line, pixel))
        assert seen[at] == pytest.approx(float(data["score"].values[line, pixel]))
        assert (image(shown)["scanline"][at], image(shown)["ground_pixel"][at]) == (line, pixel)
    assert np.isfinite(seen).all()  # no seams


def test_from_afar_the_greatest_is_asked_for_where_a_mean_hides_it():
    data = synthetic(lines=1200, pixels=160)
    data["score"][600, 80] = 50.0
    shown = swath.SwathView(data, "score")
    at = cell(shown, *place_of(data, 600, 80))
    assert values(shown)[at] < 30
    assert np.isnan(image(shown)["scanline"][at])  # of several pixels there is no one index
    shown.shares.value = swath.GREATEST
    assert values(shown)[at] == 50


def test_the_coast_is_drawn_and_the_frame_holds_all_pixels():
    for start, inside in ((178.0, 180.0), (20.0, 0.0)):
        figure = hv.render(swath.SwathView(synthetic(start=start), "score").figure)
        assert any(isinstance(r.glyph, Line) for r in figure.renderers)
        assert -180 <= figure.x_range.start < inside < figure.x_range.end < figure.x_range.start + 250
    assert "Synthetic data" in figure.title.text


def test_classes_have_their_words_and_the_rarest_is_seen():
    data = synthetic(lines=1200, pixels=160)
    data["class"][600, 81] = 3
    shown = swath.SwathView(data, "class")
    assert values(shown)[cell(shown, *place_of(data, 600, 81))] == 3
    assert values(shown)[cell(shown, *place_of(data, 400, 10))] == 0
    (bar,) = hv.render(shown.figure).select({"type": ColorBar})
    words = ["nothing", "masked", "carbon monoxide", "unknown gas"]
    assert [bar.major_label_overrides[k] for k in range(4)] == words
    assert bar.color_mapper.palette[:2] == [swath.PALE, swath.CLASSES[0]]
    (tool,) = hv.render(shown.figure).select({"type": HoverTool})
    assert tool.formatters["@image"].args["words"] == words
    # Colours go by the order in which the meanings are written, so that they are the same on another day.
    data["class"].attrs |= {"flag_values": [3, 2, 1, 0], "flag_meanings": "unknown_gas carbon_monoxide masked nothing"}
    assert values(swath.SwathView(data, "class"))[cell(shown, *place_of(data, 600, 81))] == 0


def test_labels_of_events_have_colours_that_repeat_and_are_told_themselves():
    data = synthetic()
    data["event"] = data["event"].where(data["event"] == 0, 8003).astype(int).assign_attrs(data["event"].attrs)
    shown = swath.SwathView(data, "event")
    at = cell(shown, *place_of(data, 150, 20))
    assert (values(shown)[at], image(shown)["label"][at]) == (1 + 8002 % len(swath.CLASSES), 8003)
    assert values(shown)[cell(shown, *place_of(data, 100, 5))] == 0


def test_a_gas_is_chosen_by_its_name_and_is_not_played():
    data = synthetic()
    shown = swath.SwathView(data, "snr")
    assert list(shown.sliders["gas"].options) == list(GASES)
    assert shown.player.row.objects == []
    shown.at(gas=1)
    shown.look(*around(data, 150, 20))
    at = cell(shown, *place_of(data, 150, 20))
    assert values(shown)[at] == pytest.approx(float(data["snr"].values[1, 150, 20]))
    assert "CH4" in hv.render(shown.figure).title.text
    with pytest.raises(InputError, match="nothing to animate"):
        animation(data[["snr"]])


def around(data, line: int, pixel: int, reach: float = 4.0) -> tuple[float, float, float, float]:
    lon, lat = place_of(data, line, pixel)
    return lon - reach, lat - reach, lon + reach, lat + reach


def test_what_says_that_it_is_drawn_on_a_logarithm_is_and_values_too_low_for_it_have_the_lowest_colour():
    data = synthetic()
    rate = data["false_alarm_rate"].values
    rate[10:14, 5:9] = 0.0
    data["false_alarm_rate"].attrs["drawn_on"] = "logarithm"
    shown = swath.SwathView(data, "false_alarm_rate")
    shown.look(*around(data, 12, 7, 2.0))
    figure = hv.render(shown.figure)
    (bar,) = figure.select({"type": ColorBar})
    assert isinstance(bar.color_mapper, LogColorMapper)
    (image,) = (each.data_source.data for each in figure.renderers if isinstance(getattr(each, "glyph", None), Image))
    drawn, told = np.asarray(image["image"][0]), np.asarray(image["value"][0])
    assert np.nanmin(told) == 0.0  # the pointer is told what it is
    assert np.nanmin(drawn) == pytest.approx(bar.color_mapper.low)
    assert bar.color_mapper.low >= 1e-6 * bar.color_mapper.high > 0
    shown.scale.value = swath.LINEAR
    (bar,) = hv.render(shown.figure).select({"type": ColorBar})
    assert not isinstance(bar.color_mapper, LogColorMapper)


def test_rates_over_many_powers_of_ten_have_logarithmic_colours_unless_told_otherwise():
    data = synthetic()
    data["false_alarm_rate"] = data["false_alarm_rate"] ** 4
    shown = swath.SwathView(data, "false_alarm_rate")

    def mapper():
        (bar,) = hv.render(shown.figure).select({"type": ColorBar})
        return bar.color_mapper

    assert not isinstance(mapper(), LogColorMapper)  # the usual values are within a few powers of ten
    shown.look(*around(data, 150, 20, 2.0))
    assert isinstance(mapper(), LogColorMapper)
    assert mapper().low > 0
    shown.scale.value = swath.LINEAR
    assert not isinstance(mapper(), LogColorMapper)


def test_a_click_tells_all_values_of_the_pixel_and_marks_it():
    data = synthetic()
    shown = swath.SwathView(data, "score")
    assert "A click on the map" in shown.told.object
    lon, lat = place_of(data, 150, 20)
    shown.click(lon + 0.05, lat - 0.05)
    assert shown.spot.place == (lon, lat)
    assert "2022-06-28 19:00, scanline 150, ground pixel 20" in shown.told.object
    rows = dict(shown._table[0].value.to_numpy())
    assert rows["Reconstruction score"] == f"{float(data['score'].values[150, 20]):.4g}"
    assert rows["Class of pixel"] == "carbon monoxide"
    assert rows["Signal to noise ratio"].startswith(f"CO {data['snr'].values[0, 150, 20]:.4g}, CH4 ")
    (mark,) = [r for r in hv.render(shown.figure).renderers if isinstance(r.glyph, Scatter)]
    assert mark.data_source.data["x"][0] == pytest.approx(lon)
    data["quality"] = (data["score"].dims, np.full(data["score"].shape, 5, np.uint8))
    data["quality"].attrs = {"flag_masks": np.array([1, 2, 4], np.uint8), "flag_meanings": "night glint geo_error"}
    rows = dict(swath.values_at(data, {"scanline": 150, "ground_pixel": 20}).to_numpy())
    assert rows["Quality"] == "night, geo error"
    shown.click(-60.0, -50.0)
    assert "No pixel lies at 50°S 60°W" in shown.told.object
    assert shown.spot.place == (lon, lat)


def test_looking_at_a_part_of_a_live_map_makes_its_picture_anew(monkeypatch):
    monkeypatch.setattr(cube, "live", lambda: True)
    data = synthetic()
    shown = swath.SwathView(data, "score")
    (plot,) = shown.__panel__().get_root().select({"type": Plot})

    def picture():
        (found,) = [r.data_source.data for r in plot.renderers if isinstance(r.glyph, Image)]
        return found

    whole = picture()["dw"][0]
    west, south, east, north = around(data, 150, 20)
    plot.x_range.update(start=west + 1, end=east - 1)  # whoever zooms has gone on meanwhile
    shown._looked((west, east), (south, north))
    assert (plot.x_range.start, plot.x_range.end) == (west + 1, east - 1)
    assert whole > 100
    assert (picture()["x"][0], picture()["dw"][0]) == pytest.approx((west, 8))
    shown.choice.value = "class"
    (plot,) = shown.__panel__().get_root().select({"type": Plot})
    assert picture()["dw"][0] == pytest.approx(whole)


def test_the_views_of_a_cube_whose_pixels_have_places_go_to_the_nearest_one():
    lat, lon = np.meshgrid(np.linspace(50, 60, 11), np.linspace(170, 190, 21), indexing="ij")
    data = xr.Dataset(
        {"temperature": (("time", "y", "x"), lat + 0 * lon + np.zeros((2, 1, 1)))},
        {
            "time": pd.date_range("2020-01-01", periods=2),
            "nav_lat": (("y", "x"), lat),
            "nav_lon": (("y", "x"), np.mod(lon + 180, 360) - 180),
        },
    )
    assert suitable(data) == ["swath", "series"]
    spot = Spot()
    series, page = cube.SeriesView(data, spot=spot), swath.SwathView(data, spot=spot)
    page.click(-179.2, 53.3)  # which the map has at 180.8
    assert {dim: slider.value for dim, slider in series.sliders.items()} == {"y": 3, "x": 11}
    film = animation(data, "time", kind="swath")
    assert isinstance(film.view, swath.SwathView)


def test_the_places_of_lazy_pixels_are_read_once_and_values_only_where_they_are_shown():
    read = []

    def noted(name):
        def block(values):
            read.append(name)
            return values

        return block

    data = synthetic(lines=40)
    for name in ("latitude", "longitude", "score", "snr"):
        plain = data[name].variable
        lazy = da.from_array(plain.values).map_blocks(noted(name), dtype=plain.dtype, meta=np.empty((0,) * plain.ndim))
        data[name] = (plain.dims, lazy, plain.attrs)
    data = data.set_coords(["latitude", "longitude"])
    with dask.config.set(scheduler="sync"):
        assert suitable(data)[0] == "swath"
        assert read == []
        shown = swath.SwathView(data)
        shown.look(*around(shown.data, 20, 20))
        shown.click(*place_of(shown.data, 20, 20))
    assert (read.count("latitude"), read.count("longitude")) == (1, 1)
    assert read.count("snr") == 1  # of the pixel that was clicked
    assert shown.choice.value == "score"


def test_places_are_found_among_the_variables_where_a_file_does_not_say_that_they_are_coordinates():
    data = synthetic().reset_coords(["latitude", "longitude"])[["score", "latitude", "longitude"]]
    view(data, kind="swath").get_root()
    assert suitable(data) == ["swath"]


def test_on_a_page_a_pixel_is_clicked_zoomed_to_and_explained_and_an_event_is_chosen(
    page, served_environment, tmp_path, keep
):
    port = free_port()
    server = scripted(SERVED, port, served_environment, tmp_path)
    try:
        page.goto(f"http://127.0.0.1:{port}/screening")
        page.get_by_text("A click on the map tells").wait_for(timeout=60_000)
        figure = page.locator(".bk-Figure").first
        figure.wait_for()
        page.wait_for_timeout(1000)
        data = synthetic()
        lon, lat = place_of(data, 150, 20)
        page.mouse.click(*page.evaluate(PIXEL, [lon, lat]))
        page.get_by_text("scanline 1", exact=False).first.wait_for()
        page.get_by_text("carbon monoxide", exact=True).first.wait_for()
        keep("swath")
        before = figure.screenshot()
        page.mouse.move(*page.evaluate(PIXEL, [lon, lat]))
        for _ in range(12):  # faster than pictures come
            page.mouse.wheel(0, -120)
            page.wait_for_timeout(100)
        page.wait_for_function(PICTURE_FILLS_THE_FRAME)
        assert page.evaluate(FRAME)[1] - page.evaluate(FRAME)[0] < 40
        assert figure.screenshot() != before
        assert colours(page.screenshot(), figure.bounding_box()) > 50
        keep("swath-near-by")
        page.get_by_text("Spectrum", exact=True).click()
        page.get_by_text("Grey: the spectrum", exact=False).wait_for()
        page.wait_for_timeout(1500)
        keep("spectrum-explained")
        page.goto(f"http://127.0.0.1:{port}/events")
        page.get_by_text("5 rows. A click", exact=False).wait_for(timeout=60_000)
        page.locator(".bk-Figure").first.wait_for()
        page.get_by_role("gridcell", name="CH4").first.click()
        page.wait_for_function(
            f"() => {{ const [west, east] = ({FRAME})(); return west < -62 && -58 < east && east < 0 }}"
        )
        page.wait_for_timeout(500)
        keep("events")
        with page.expect_download() as saved:
            page.get_by_role("button", name="GeoJSON of these rows").click()
        assert '"FeatureCollection"' in saved.value.path().read_text()
    finally:
        stopped(server)
    assert [text for text in page.errors if "favicon" not in text] == []
