"""Views are chosen by dimensions, and what is drawn lies where it is on the globe."""

from __future__ import annotations

import re

import dask.dataframe as dd
import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
import xarray as xr
from bokeh.models import ColorBar, LinearColorMapper, Plot
from bokeh.models.glyphs import Image, Line, MultiLine, MultiPolygons, Patch, Quad, Scatter
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from widget_servers import PIXEL

from phidias_lab.contract.data import with_errors as declared_errors
from phidias_lab.errors import InputError
from phidias_lab.methods import sections
from phidias_lab.widgets import controls
from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import axes, cube, points, suitable, table, view
from phidias_lab.widgets.views.spot import Spot

DIMS = ("time", "depth", "latitude", "longitude")

prepare()


@pytest.fixture(autouse=True)
def as_in_a_script(monkeypatch):
    """Nobody can click here; the browser of some tests runs a loop, by which a view would think that somebody can."""
    for module in (cube, controls):
        monkeypatch.setattr(module, "live", lambda: False)


def field(nt=2, nz=3, ny=5, nx=7, *, west=-20.0, north_up=False, data=None) -> xr.Dataset:
    """A cube whose values are 100 longitude + latitude - depth / 1e4, so every place is recognised by its value."""
    lon = west + 2.0 * np.arange(nx)
    lat = 40 + 2.0 * np.arange(ny)
    lat = lat[::-1] if north_up else lat
    depth = np.array([0.0, 10, 50, 200, 1000])[:nz]
    time = pd.date_range("2010-01-01", periods=nt, freq="MS")
    values = 100 * lon + lat[:, None] - depth[:, None, None] / 1e4 + 0 * np.arange(nt)[:, None, None, None]
    values = values if data is None else np.full(values.shape, data)
    return xr.Dataset(
        {
            "analysis": (DIMS, values, {"units": "degree_Celsius", "long_name": "sea water temperature"}),
            "analysis_error": (DIMS, np.full(values.shape, 0.5), {"units": "degree_Celsius"}),
            "observations_used": (DIMS[:2], np.ones(values.shape[:2], int)),
        },
        {
            "time": time,
            "depth": ("depth", depth, {"units": "m", "positive": "down"}),
            "latitude": ("latitude", lat, {"units": "degrees_north"}),
            "longitude": ("longitude", lon, {"units": "degrees_east"}),
        },
    )


TABLE = pd.DataFrame(
    {"longitude": [1.0, 2, 3], "latitude": [50.0, 51, 52], "depth": [0.0, 5, 9], "temperature": [10.0, 11, 12]}
)

CASES = {
    "a gridded result": (field(), ["map", "section", "profile", "series"]),
    "one time": (field(nt=1), ["map", "section", "profile"]),
    "one level and time": (field(nt=1, nz=1), ["map"]),
    "a place": (field(ny=1, nx=1), ["profile", "series"]),
    "a meridian": (field(nt=1, nx=1), ["section", "profile"]),
    "a series": (field().isel(depth=0, latitude=0, longitude=0), ["series"]),
    "a profile": (field().isel(time=0, latitude=0, longitude=0), ["profile"]),
    "one single value": (field(nt=1, nz=1, ny=1, nx=1), ["table"]),
    "a projected raster": (
        xr.Dataset({"band": (("y", "x"), np.eye(4))}, {"y": [0, 10, 20, 30], "x": range(4)}),
        ["map"],
    ),
    "axes known by their attributes": (
        xr.Dataset(
            {"v": (("a", "b"), np.eye(2))}, {"a": ("a", [1, 2], {"axis": "Y"}), "b": ("b", [1, 2], {"axis": "X"})}
        ),
        ["map"],
    ),
    "places in a table": (TABLE, ["points", "table"]),
    "a table": (TABLE[["temperature"]], ["table"]),
    "a lazy table": (dd.from_pandas(TABLE, npartitions=2), ["points", "table"]),
    "no known axis": (xr.Dataset({"v": (("component",), np.arange(3.0))}), ["table"]),
}


@pytest.mark.parametrize(("data", "kinds"), CASES.values(), ids=CASES)
def test_views_are_chosen_by_dimensions_and_all_of_them_can_be_drawn(data, kinds):
    assert suitable(data) == kinds
    for kind in kinds:
        view(data, kind=kind).get_root()
    whole = view(data)
    titles = whole._names if isinstance(whole, pn.Tabs) else [kinds[0]]
    assert len(titles) == len(kinds)


def test_a_view_that_does_not_suit_is_refused_with_those_that_do():
    with pytest.raises(InputError, match="points, table"):
        view(TABLE, kind="section")
    with pytest.raises(InputError, match="DataFrame"):
        view([1, 2, 3])


@pytest.mark.parametrize("north_up", [False, True])
@pytest.mark.parametrize("west", [-20.0, 340.0, 175.0])
def test_a_map_shows_each_value_at_its_place(north_up, west):
    data = field(1, 1, north_up=north_up, west=west)
    (renderer,) = [r for r in hv.render(_main(data)).renderers if isinstance(r.glyph, Image)]
    source = renderer.data_source.data
    image, x, y, dw, dh = (source[k][0] for k in ("image", "x", "y", "dw", "dh"))
    assert (x, y, dw, dh) == (west - 1, 39, 14, 10)
    # Bokeh draws row 0 at the bottom.
    assert image[0, 0] == pytest.approx(100 * west + 40)
    assert image[-1, 0] == pytest.approx(100 * west + 48)
    assert image[-1, -1] == pytest.approx(100 * (west + 12) + 48)


def _main(data):
    shown = cube.MapView(data)
    shown.uncertainty.on = False
    return shown.figure


@pytest.mark.parametrize("west", [-12.0, 348.0])
def test_coastlines_are_drawn_in_the_turn_of_the_data(west):
    (line,) = [r for r in hv.render(_main(field(1, 1, ny=10, nx=8, west=west))).renderers if isinstance(r.glyph, Line)]
    lon = np.asarray(line.data_source.data["x"], float)
    inside = lon[(lon > west) & (lon < west + 14)]
    assert inside.size > 100  # Iberia, France and the British Isles


def test_a_projected_raster_has_no_coastline_of_the_globe():
    data, _ = CASES["a projected raster"]
    assert not [r for r in hv.render(cube.MapView(data).figure).renderers if isinstance(r.glyph, Line)]


def test_units_stand_on_the_colour_bar_and_the_variable_in_the_title():
    plot = hv.render(_main(field()))
    (bar,) = plot.select({"type": ColorBar})
    assert bar.title == "[°C]"
    assert plot.title.text == "Temperature at 0 m, 2010-01-01"


def with_bounds(data: xr.Dataset, spans: list, attribute: str = "bounds") -> xr.Dataset:
    """The cube with time bounds, as a file that follows the CF conventions brings them."""
    bounds = np.array(spans, dtype="datetime64[ns]")
    middle = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) // 2
    data = data.assign_coords(time=("time", middle, {attribute: f"time_{attribute}"}))
    return data.assign({f"time_{attribute}": (("time", "two"), bounds)})


SPANS = {
    "February 2020": ("2020-02-01", "2020-03-01"),
    "January–March 2020": ("2020-01-01", "2020-04-01"),
    "December 2019 – February 2020": ("2019-12-01", "2020-03-01"),
    "2020": ("2020-01-01", "2021-01-01"),
    "2015–2020": ("2015-01-01", "2021-01-01"),
    "5 Jan – 12 Mar 2020": ("2020-01-05", "2020-03-13"),
    "28 Dec 2019 – 3 Jan 2020": ("2019-12-28", "2020-01-04"),
    "29 February 2020": ("2020-02-29", "2020-03-01"),
    "2020-01-01 06:00 – 2020-01-01 12:00": ("2020-01-01T06:00", "2020-01-01T12:00"),
}


@pytest.mark.parametrize(("words", "span"), SPANS.items(), ids=SPANS)
def test_the_title_of_a_time_window_tells_its_span_and_not_the_instant_in_its_middle(words, span):
    data = with_bounds(field(), [span, ("2030-01-01", "2030-02-01")])
    shown = cube.MapView(data)
    shown.uncertainty.on = False
    assert hv.render(shown.figure).title.text == f"Temperature at 0 m, {words}"
    assert next(iter(shown.sliders["time"].options)) == words


@pytest.mark.parametrize(
    ("words", "span"),
    [
        ("2015–2020, February climatology", ("2015-02-01", "2020-03-01")),
        ("2014–2019, December–February climatology", ("2014-12-01", "2020-03-01")),
        ("2015–2020, 5 Jan – 12 Mar climatology", ("2015-01-05", "2020-03-13")),
        ("2015–2020 climatology", ("2015-01-01", "2021-01-01")),
    ],
)
def test_a_climatology_tells_its_years_and_its_part_of_the_year(words, span):
    data = with_bounds(field(nt=1), [span], "climatology")
    assert words in hv.render(_main(data)).title.text


def test_a_slice_that_was_cut_out_keeps_its_time_and_place_in_the_title():
    data = with_bounds(field(nt=1), [("2020-02-01", "2020-03-01")])
    data = data.set_coords("time_bounds").isel(time=0, longitude=0)
    shown = cube.SectionView(data)
    shown.uncertainty.on = False
    assert hv.render(shown.figure).title.text == "Temperature at 20°W, February 2020"


def test_a_slider_moves_the_map_to_another_level():
    shown = cube.MapView(field())
    shown.uncertainty.on = False
    before = hv.render(shown.figure).title.text
    shown.at(depth=2, time=1)
    after = hv.render(shown.figure)
    assert before != after.title.text
    assert "50 m, 2010-02-01" in after.title.text.replace("\n", " ")
    (renderer,) = [r for r in after.renderers if isinstance(r.glyph, Image)]
    assert renderer.data_source.data["image"][0][0, 0] == pytest.approx(100 * -20 + 40 - 50 / 1e4)


def test_the_error_stands_beside_the_field_with_the_same_zoom():
    shown = cube.MapView(field())
    assert isinstance(shown.figure, hv.Layout)
    left, right = shown.__panel__().get_root().select({"type": Plot})
    assert left.x_range is right.x_range
    assert left.y_range is right.y_range
    shown.choice.value = "analysis_error"
    assert not isinstance(shown.figure, hv.Layout)


def test_the_error_of_a_variable_is_the_one_in_its_own_units():
    data = field().assign(error_variance=lambda d: d["analysis_error"] ** 2)
    assert axes.error_of(data, "analysis") == "analysis_error"
    assert axes.error_of(data.drop_vars("analysis_error"), "analysis") == "error_variance"
    assert axes.error_of(data, "observations_used") is None


@pytest.mark.filterwarnings("error:All-NaN")
@pytest.mark.parametrize("kind", ["map", "section", "profile", "series"])
def test_a_slice_without_values_says_so(kind):
    shown = cube.VIEWS[kind](field(data=np.nan))
    shown.uncertainty.on = False
    assert "no value here" in hv.render(shown.figure).title.text.replace("\n", " ")


def test_irregular_axes_keep_the_true_cells():
    data = field(1, 1, nx=4).assign_coords(longitude=("longitude", [0.0, 1, 4, 5], {"units": "degrees_east"}))
    (renderer,) = [r for r in hv.render(_main(data)).renderers if isinstance(r.glyph, Quad)]
    left, right = (np.unique(renderer.data_source.data[k]) for k in ("left", "right"))
    np.testing.assert_allclose(left, [-0.5, 0.5, 2.5, 4.5])
    np.testing.assert_allclose(right, [0.5, 2.5, 4.5, 5.5])


def test_depth_grows_downwards_and_height_upwards():
    for name, attributes, down in (("depth", {}, True), ("height", {}, False), ("depth", {"positive": "up"}, False)):
        data = xr.Dataset({"v": ((name,), np.arange(3.0))}, {name: (name, [0.0, 5, 10], attributes)})
        y_range = hv.render(cube.ProfileView(data).figure).y_range
        assert (y_range.start > y_range.end) == down


def test_a_profile_begins_where_there_are_data():
    data = field()
    data["analysis"][:, :, :, :6] = np.nan
    shown = cube.ProfileView(data, variable="analysis")
    assert shown.sliders["longitude"].value == 6
    assert "no value" not in hv.render(shown.figure).title.text


def test_a_section_of_the_sea_ends_at_its_surface():
    shown = cube.SectionView(field())
    shown.uncertainty.on = False
    assert hv.render(shown.figure).y_range.end == 0


OCEAN = [0.0, 10, 20, 50, 100, 200, 500, 1000, 2000]


def deep() -> xr.Dataset:
    depth = np.array(OCEAN)
    values = 20 - depth[:, None] / 200 + 0 * np.arange(6)
    return xr.Dataset(
        {"temperature": (("depth", "longitude"), values, {"units": "degree_Celsius"})},
        {"depth": ("depth", depth, {"units": "m"}), "longitude": ("longitude", np.arange(6.0))},
    )


@pytest.mark.parametrize("kind", ["section", "profile"])
def test_levels_near_the_surface_have_more_room_and_ticks_tell_the_true_depth(kind):
    plot = hv.render(cube.VIEWS[kind](deep()).figure)
    top, bottom = plot.y_range.end, plot.y_range.start
    (axis,) = plot.left
    named = {float(text): place for place, text in axis.major_label_overrides.items()}
    assert {100.0, 500.0, 1000.0, 2000.0} <= set(named)
    share = {depth: (place - top) / (bottom - top) for depth, place in named.items()}
    assert share[100.0] > 0.15  # a twentieth of the water column
    assert 0 <= min(share.values()) < share[500.0] < share[1000.0] < max(share.values()) <= 1


@pytest.mark.parametrize("kind", ["section", "profile"])
def test_the_pointer_over_a_stretched_axis_is_told_the_true_depth(kind, page, tmp_path):
    from bokeh.resources import INLINE

    data = deep() if kind == "section" else deep().isel(longitude=3)
    cube.VIEWS[kind](data).__panel__().save(tmp_path / "view.html", resources=INLINE)
    page.goto(f"file://{tmp_path}/view.html")
    page.locator(".bk-Figure").wait_for()
    page.wait_for_function("Bokeh.documents.every(d => d.is_idle)")
    for depth in (100, 500, 2000):
        across = 3 if kind == "section" else 20 - depth / 200
        page.mouse.move(*page.evaluate(PIXEL, [across, depth**0.5]))
        told = page.locator(".bk-tooltip-row-value, .bk-tooltip-value").or_(page.locator(".bk-Tooltip"))
        told.first.wait_for()
        page.wait_for_timeout(300)
        numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", " ".join(told.all_inner_texts()))]
        assert depth in numbers


def test_the_cells_of_a_section_meet_half_way_between_the_levels_without_seams():
    plot = hv.render(cube.SectionView(deep()).figure)
    (renderer,) = [r for r in plot.renderers if isinstance(r.glyph, Quad)]
    edges = np.unique(np.r_[renderer.data_source.data["bottom"], renderer.data_source.data["top"]])
    np.testing.assert_allclose(edges**2, [0, 5, 15, 35, 75, 150, 350, 750, 1500, 2500])
    assert renderer.glyph.line_color == renderer.glyph.fill_color
    assert renderer.glyph.line_alpha == 1


@pytest.mark.parametrize("kind", ["map", "section", "profile", "series"])
def test_no_figure_is_wider_than_a_page_of_documentation(kind):
    for error in (False, True):
        shown = cube.VIEWS[kind](field())
        shown.uncertainty.on = error
        for plot in shown.__panel__().get_root().select({"type": Plot}):
            assert plot.frame_width <= 600


def test_a_section_can_go_along_either_horizontal_axis():
    shown = cube.SectionView(field())
    shown.uncertainty.on = False
    assert shown.along.options == ["longitude", "latitude", "the line"]
    assert not shown.line.visible
    assert hv.render(shown.figure).x_range.end == pytest.approx(-7)
    shown.along.value = "latitude"
    assert hv.render(shown.figure).x_range.end == pytest.approx(49)


def test_a_large_raster_is_reduced_on_the_server():
    data = xr.Dataset(
        {"v": (("latitude", "longitude"), np.zeros((900, 800)))},
        {"latitude": np.linspace(-89, 89, 900), "longitude": np.linspace(-179, 179, 800)},
    )
    (renderer,) = [r for r in hv.render(cube.MapView(data).figure).renderers if isinstance(r.glyph, Image)]
    assert renderer.data_source.data["image"][0].size < data["v"].size


def test_only_the_slice_that_is_shown_is_computed():
    import dask
    import dask.array as da

    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.ones(block_info[None]["chunk-shape"])

    lazy = da.map_blocks(block, chunks=((1,) * 50, (4,), (6,)), dtype=float, meta=np.empty((0, 0, 0)))
    data = xr.Dataset({"v": (("time", "latitude", "longitude"), lazy)}, {"latitude": range(4), "longitude": range(6)})
    with dask.config.set(scheduler="sync"):
        hv.render(cube.MapView(data).figure)
    assert {where[0] for where in read} == {0}


@settings(max_examples=60, deadline=None)
@given(arrays(float, st.integers(1, 400), elements=st.floats(-1e6, 1e6) | st.just(np.nan)), st.integers(10, 60))
def test_a_thinned_series_keeps_its_ends_and_its_extremes(values, most):
    kept = cube.thinned(values, most)
    assert kept.size <= most
    assert {0, values.size - 1} <= set(kept)
    assert (np.diff(kept) > 0).all()
    if np.isfinite(values).any():
        assert np.nanmax(values[kept]) == np.nanmax(values)
        assert np.nanmin(values[kept]) == np.nanmin(values)


def test_a_long_series_is_thinned_before_it_is_sent():
    n = 100_000
    values = np.zeros(n)
    values[54_321] = 7
    data = xr.Dataset({"v": (("time",), values)}, {"time": pd.date_range("2000", periods=n, freq="h")})
    (line,) = [r for r in hv.render(cube.SeriesView(data).figure).renderers if isinstance(r.glyph, Line)]
    sent = line.data_source.data["value"]
    assert len(sent) <= cube.MOST_POINTS
    assert max(sent) == 7


def test_colours_are_not_taken_by_a_single_wild_value():
    values = np.r_[np.linspace(0, 1, 1000), 1e6]
    assert cube.colour_range(values)[1] < 2
    assert cube.colour_range(np.linspace(0, 1, 1000)) == (0, 1)
    assert cube.colour_range(np.array([3.0])) == (2.5, 3.5)


def test_a_lazy_table_is_read_one_part_at_a_time():
    read = []

    def part(number):
        read.append(number)
        return pd.DataFrame({"a": [number] * 3})

    lazy = dd.from_map(part, range(20), meta=pd.DataFrame({"a": [1]}))
    read.clear()
    shown = table.TableView(lazy)
    assert set(read) == {0}
    shown.part.value = 5
    assert set(read) == {0, 4}
    assert shown.grid.value["a"].tolist() == [4, 4, 4]


def test_a_table_is_sent_page_by_page_with_units_in_its_headings():
    rows = pd.DataFrame({"depth": np.arange(1000.0), "shape": [b"123"] * 1000})
    rows.attrs["columns"] = {"depth": {"units": "m"}}
    shown = table.TableView(rows)
    assert shown.grid.pagination == "remote"
    source = shown.grid.get_root().source
    assert len(source.data["depth [m]"]) == table.PAGE
    assert source.data["shape"][0] == "3 bytes"


@pytest.mark.parametrize("rows", [TABLE, TABLE.assign(longitude=[1.0, 1.1, 1.2])], ids=["wide", "high"])
def test_a_map_of_points_wraps_and_is_no_wider_than_a_page_of_documentation(rows):
    layout = points.PointsView(rows).__panel__()
    (plot,) = layout.get_root().select({"type": Plot})
    assert plot.frame_width <= 600
    assert all(isinstance(part, pn.FlexBox) for part in layout)
    assert layout[1].styles == {"max-width": "100%", "overflow-x": "auto"}


def test_many_points_are_drawn_on_the_server():
    n = points.MOST_POINTS + 1
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"lon": rng.uniform(0, 5, n), "lat": rng.uniform(40, 45, n), "value": np.ones(n)})
    assert [r for r in hv.render(points.PointsView(rows).figure).renderers if isinstance(r.glyph, Image)]
    assert not [r for r in hv.render(points.PointsView(rows[:100]).figure).renderers if isinstance(r.glyph, Image)]


def test_places_are_coloured_by_what_was_measured():
    shown = points.PointsView(TABLE)
    assert shown.choice.value == "temperature"


def test_synthetic_data_are_called_synthetic_where_they_are_shown():
    def said(data, kind):
        layout = pn.Column(view(data, kind=kind))
        titles = [figure.title.text for figure in layout.get_root().select({"type": Plot}) if figure.title]
        return sum("ynthetic" in text for text in [*titles, *(str(p.object) for p in layout.select(pn.pane.HTML))])

    made = TABLE.copy()
    made.attrs["synthetic"] = True
    for kind in ("map", "section", "profile", "series"):
        assert said(field().assign_attrs(synthetic="true"), kind) == 1
        assert said(field(), kind) == 0
    for kind in ("points", "table"):
        assert said(made, kind) == 1
        assert said(TABLE, kind) == 0

    shown = view(field().assign_attrs(synthetic_inputs="domain <b>"))
    named = [p.object for p in shown.select(pn.pane.HTML) if "ynthetic" in str(p.object)]
    assert named == ["Made with a synthetic input: domain &lt;b&gt;."]


def mapper(figure) -> LinearColorMapper:
    (bar,) = hv.render(figure).select({"type": ColorBar})
    return bar.color_mapper


SIGNED = {
    "an attribute": ({"diverges_from": 0.0}, 0.0),
    "another middle": ({"diverges_from": 35}, 35.0),
    "an anomaly of the CF table": ({"standard_name": "sea_surface_temperature_anomaly"}, 0.0),
    "a tendency": ({"standard_name": "tendency_of_sea_surface_height_above_geoid"}, 0.0),
}


@pytest.mark.parametrize(("says", "middle"), SIGNED.values(), ids=SIGNED)
def test_what_says_that_it_has_a_sign_diverges_from_there(says, middle):
    data = field(1, 1)
    data["analysis"] = data["analysis"].copy(
        data=np.linspace(middle - 1, middle + 3, data["analysis"].size).reshape(1, 1, 5, 7)
    )
    plain = mapper(_main(data))
    assert (plain.low, plain.high) == (middle - 1, middle + 3)
    data["analysis"].attrs.update(says)
    signed = mapper(_main(data))
    assert (signed.low, signed.high) == (middle - 3, middle + 3)
    red, _, blue = (np.array([int(colour[k : k + 2], 16) for colour in signed.palette]) for k in (1, 3, 5))
    half = len(signed.palette) // 2
    assert blue[half // 2] > red[half // 2]
    assert red[-half // 2] > blue[-half // 2]
    assert min(red[half], blue[half]) > 240, "the middle is nearly white, unlike the grey of land"
    section = cube.SectionView(field().assign(analysis=lambda d: d["analysis"].assign_attrs(says)))
    section.uncertainty.on = False
    assert mapper(section.figure).palette == signed.palette


def test_the_error_beside_a_difference_and_values_without_a_sign_keep_their_colours():
    data = field(1, 1)
    data["analysis"].attrs["diverges_from"] = 0.0
    shown = cube.MapView(data)
    main, error = shown.figure
    assert mapper(main).palette != mapper(error).palette
    assert mapper(error).low != -mapper(error).high
    assert mapper(main).low == -mapper(main).high
    data["analysis"].attrs = {"standard_name": "sea_water_temperature", "diverges_from": "nothing"}
    assert mapper(_main(data)).low != -mapper(_main(data)).high


def test_a_column_with_a_sign_diverges_on_the_map_of_points():
    rows = TABLE.assign(temperature=[-1.0, 0.0, 4.0])
    rows.attrs["columns"] = {"temperature": {"diverges_from": 0.0}}
    found = mapper(points.PointsView(rows).figure)
    assert (found.low, found.high) == (-4, 4)
    plain = mapper(points.PointsView(TABLE).figure)
    assert plain.palette != found.palette


def test_the_error_that_says_to_be_the_standard_error_is_shown_beside():
    data = field(1, 1).rename(analysis_error="uncertain")
    assert axes.error_of(data, "analysis") is None
    data["analysis"].attrs["standard_name"] = "sea_water_temperature"
    data["uncertain"].attrs["standard_name"] = "sea_water_temperature standard_error"
    assert axes.error_of(data, "analysis") == "uncertain"


def with_errors(*, transformed=False) -> xr.Dataset:
    """The cube with a relative error variance of 0.2, 0.4 and 0.6 in columns, declared as a chain declares it."""
    data = field(nx=7)
    share = np.array([0.2, 0.2, 0.4, 0.4, 0.4, 0.6, 0.6])
    deviation = xr.DataArray(np.full((2, 3), 2.0), dims=DIMS[:2])
    data["background_deviation"] = deviation
    data["analysis_error"] = (deviation * xr.DataArray(np.sqrt(share), dims="longitude")).broadcast_like(
        data["analysis"]
    )
    terms = {"standard_error": "analysis_error", "background_deviation": "background_deviation"}
    if transformed:
        data["relative_error"] = xr.DataArray(share, dims="longitude").broadcast_like(data["analysis"])
        data["analysis_error"] = 7 * data["analysis_error"]  # no longer says which share it is
        terms["relative_variance"] = "relative_error"
    data["analysis"].attrs = declared_errors(data["analysis"].attrs, terms, data)
    return data


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize(("most", "columns"), [(0.0, 7), (0.5, 5), (0.3, 2)])
def test_a_map_hides_where_the_error_variance_is_above_what_was_chosen(transformed, most, columns):
    shown = cube.MapView(with_errors(transformed=transformed), variable="analysis")
    shown.uncertainty.on = False
    shown.most.value = most
    plot = hv.render(shown.figure)
    images = [r.data_source.data["image"][0] for r in plot.renderers if isinstance(r.glyph, Image)]
    assert np.isfinite(images[0][0]).sum() == columns
    assert len(images) == (2 if most else 1)
    if most:  # white, so that it is not taken for land
        assert np.array_equal(np.isfinite(images[1]), np.isnan(images[0]))
        assert f"error variance above {most:g}" in plot.title.text.replace("\n", " ")


def test_a_section_hides_it_too_in_its_true_cells():
    shown = cube.SectionView(with_errors(), variable="analysis")
    shown.uncertainty.on = False
    shown.most.value = 0.3
    values = [r.data_source.data for r in hv.render(shown.figure).renderers if isinstance(r.glyph, Quad)]
    seen, veil = (np.isfinite(np.asarray(v[k], float)).sum() for v, k in zip(values, ("value", "hidden"), strict=True))
    assert (seen, veil) == (6, 15)


def test_where_nothing_is_declared_nothing_can_be_hidden_and_land_is_never_white():
    assert not cube.MapView(field()).most.visible
    data = with_errors()
    data["analysis"][..., 6] = np.nan
    shown = cube.MapView(data, variable="analysis")
    shown.uncertainty.on = False
    assert shown.most.visible
    shown.most.value = 0.5
    _, veil = [r.data_source.data["image"][0] for r in hv.render(shown.figure).renderers if isinstance(r.glyph, Image)]
    assert np.isfinite(veil[0]).tolist() == [False] * 5 + [True, False]
    shown.choice.value = "analysis_error"
    assert not shown.most.visible
    assert len([r for r in hv.render(shown.figure).renderers if isinstance(r.glyph, Image)]) == 1


# Bands ---------------------------------------------------------------------------------------------------------------


def at_a_place(kind: str, data: xr.Dataset):
    return cube.VIEWS[kind](data.isel(latitude=0, longitude=0), variable="analysis")


@pytest.mark.parametrize("kind", ["profile", "series"])
def test_a_line_has_a_band_of_its_standard_error_that_can_be_left_out(kind):
    shown = at_a_place(kind, with_errors())
    spread = float(with_errors()["analysis_error"][0, 0, 0, 0])
    assert width_of_band(shown) == pytest.approx((spread, spread))
    assert "plus and minus one standard error" in hv.render(shown.figure).title.text.replace("\n", " ")
    shown.uncertainty.on = False
    assert width_of_band(shown) is None


@pytest.mark.parametrize("kind", ["profile", "series"])
def test_the_band_of_a_transformed_variable_is_its_interval_which_need_not_be_even(kind):
    data = with_errors(transformed=True)
    ends = {"lower_95": "analysis_lower", "upper_95": "analysis_upper"}
    for name, away in zip(ends.values(), (-0.5, 3.0), strict=True):
        data[name] = data["analysis"].drop_attrs() + away
    data["analysis"].attrs = declared_errors(data["analysis"].attrs, ends, data)
    shown = at_a_place(kind, data)
    assert width_of_band(shown) == pytest.approx((0.5, 3.0))
    assert "central 95 % interval" in hv.render(shown.figure).title.text.replace("\n", " ")


def width_of_band(shown) -> tuple[float, float] | None:
    """How far the band reaches below and above the first value, as it is drawn."""
    plot = hv.render(shown.figure)
    (line,) = [r.data_source.data for r in plot.renderers if isinstance(r.glyph, Line)]
    value = float(np.asarray(line["value"])[0])
    for renderer in plot.renderers:
        source = renderer.data_source.data
        if isinstance(renderer.glyph, MultiPolygons):
            outline = np.asarray(source["xs"][0][0][0], float)
            half = outline.size // 2
            return value - outline[0], outline[2 * half - 1] - value
        if isinstance(renderer.glyph, Patch):
            outline = np.asarray(source["y"], float)
            ends = sorted((outline[0], outline[-1]))
            return value - ends[0], ends[1] - value
    return None


# A place and a line ----------------------------------------------------------------------------------------------------


def pages(data: xr.Dataset, **more) -> dict[str, cube.CubeView]:
    """All views of a cube with the place and the line that they share."""
    spot = Spot()
    found = {kind: view(data, spot=spot, **more) for kind, view in cube.VIEWS.items()}
    for each in found.values():
        each.uncertainty.on = False
    return found


def test_a_click_on_the_map_takes_profile_series_and_section_to_its_place():
    found = pages(field())
    found["map"].click(-13.4, 45.2)
    for kind in ("profile", "series"):
        assert {d: s.value for d, s in found[kind].sliders.items() if d in DIMS[2:]} == {"latitude": 3, "longitude": 3}
    assert found["section"].sliders["latitude"].value == 3
    assert "46°N 14°W" in hv.render(found["profile"].figure).title.text.replace("\n", " ")
    assert found["map"].place.value == "-13.4 45.2"
    found["map"].click(100, 45)  # beyond the map
    assert found["map"].place.value == "-13.4 45.2"


def test_a_mark_on_a_live_map_comes_without_the_field_and_keeps_what_was_zoomed_to(monkeypatch):
    monkeypatch.setattr(cube, "live", lambda: True)
    page = pages(field())["map"]
    (plot,) = page.__panel__().get_root().select({"type": Plot})
    images = [r.data_source.data["image"] for r in plot.renderers if isinstance(r.glyph, Image)]
    page._looked(x_range=(-15.0, -11.0), y_range=(42.0, 45.0))
    page.click(-13.4, 44.2)
    (marks,) = [r.data_source.data for r in plot.renderers if isinstance(r.glyph, Scatter)]
    assert (list(marks["x"]), list(marks["y"])) == ([-13.4], [44.2])
    assert (plot.x_range.start, plot.x_range.end, plot.y_range.end) == (-15, -11, 45)
    assert [r.data_source.data["image"] for r in plot.renderers if isinstance(r.glyph, Image)] == images
    page.at(depth=1)
    assert (plot.x_range.start, plot.x_range.end) == (-15, -11)
    page.choice.value = "analysis_error"
    (plot,) = page.__panel__().get_root().select({"type": Plot})
    assert (plot.x_range.start, plot.x_range.end) == (-21, -7)
    assert plot.frame_width == 560


def test_a_place_can_be_written_and_what_is_none_is_told():
    found = pages(field(west=340.0))
    found["map"].place.value = "-13.4, 45.2"
    assert found["profile"].sliders["longitude"].value == 3
    assert crosses(found["map"]) == [(346.6, 45.2)]  # in the turn of the map
    found["map"].place.value = "here"
    assert "Write longitude and latitude in degrees, such as -20 45" in found["map"].problem.object
    assert found["map"].spot.place == (-13.4, 45.2)
    found["map"].place.value = ""
    assert not found["map"].problem.visible
    assert found["map"].spot.place is None


def crosses(shown) -> list[tuple[float, float]]:
    (marks,) = [r for r in hv.render(shown.figure).renderers if isinstance(r.glyph, Scatter)]
    return [tuple(np.round(each, 6)) for each in zip(*(marks.data_source.data[k] for k in "xy"), strict=True)]


def test_a_map_of_something_that_is_no_cube_has_no_place_to_choose():
    for data in (CASES["a projected raster"][0], field(1, 1).drop_vars("observations_used")):
        assert not cube.MapView(data)._choosing.visible
    assert cube.MapView(field(1, 3))._choosing.visible
    assert not cube.MapView(field(3, 1).drop_vars("observations_used").isel(depth=0)).line.visible


def drawn_line(data: xr.Dataset, vertices, **more):
    found = pages(data, **more)
    found["map"].clicks.value = cube.DRAWS
    for vertex in vertices:
        found["map"].click(*vertex)
    return found


def test_a_line_that_is_drawn_on_the_map_becomes_the_section():
    vertices = [(-19.0, 41.0), (-13.0, 41.5), (-10.0, 47.0)]
    found = drawn_line(field(), vertices)
    section = found["section"]
    assert section.along.value == cube.LINE
    assert section.line.value == "-19 41; -13 41.5; -10 47"
    line = sections.line(*np.transpose(vertices), cube.MOST_ALONG)
    plot = hv.render(section.figure)
    assert plot.x_range.end == pytest.approx(line.vertices[-1] / 1000)
    assert plot.below[0].axis_label == "distance along the line [km]"
    assert "from 41°N 19°W to 47°N 10°W" in plot.title.text.replace("\n", " ")
    drawn = along(section)
    # The field is linear in longitude and latitude, so interpolation gives it exactly.
    np.testing.assert_allclose(drawn[0], 100 * line.longitude + line.latitude, atol=1e-9)
    assert set(section.sliders) == {"time"}
    section.between.value = cube.NEAREST
    lon, lat = (
        origin + 2 * np.floor((each - origin) / 2 + 0.5)
        for each, origin in ((line.longitude, -20), (line.latitude, 40))
    )
    np.testing.assert_allclose(along(section)[0], 100 * lon + lat)
    (path,) = [r for r in hv.render(found["map"].figure).renderers if isinstance(r.glyph, MultiLine)]
    assert np.asarray(path.data_source.data["xs"][0])[[0, -1]] == pytest.approx([-19, -10], abs=0.05)
    found["map"].clear.clicks += 1
    assert not [r for r in hv.render(found["map"].figure).renderers if isinstance(r.glyph, MultiLine)]


def along(section, name: str = "value") -> np.ndarray:
    """Values of a section as they are drawn, from the uppermost level downwards."""
    cells = [r.data_source.data for r in hv.render(section.figure).renderers if isinstance(r.glyph, Quad)]
    (source,) = [each for each in cells if name in each]
    order = np.lexsort([source["left"], source["top"]])
    return np.asarray(source[name], float)[order].reshape(len(np.unique(source["top"])), -1)


@pytest.mark.parametrize(("west", "vertices"), [(340.0, [(-19, 41), (-9, 47)]), (-10.0, [(358, 41), (2, 41)])])
def test_a_line_is_found_in_the_turn_of_the_data(west, vertices):
    found = pages(field(west=west))
    found["section"].along.value = cube.LINE
    found["section"].line.value = "; ".join(f"{lon} {lat}" for lon, lat in vertices)
    assert np.isfinite(along(found["section"])).all()


def test_along_the_line_there_is_land_where_the_nearest_node_is_land_and_nothing_outside_the_grid():
    data = field()
    data["analysis"][..., 3] = np.nan  # 14 degrees West
    found = pages(data)
    found["section"].along.value = cube.LINE
    found["section"].line.value = "-23 40; -6 40"
    line = sections.line([-23, -6], [40, 40], cube.MOST_ALONG)
    there = (line.longitude > -21) & (line.longitude < -7) & (np.abs(line.longitude + 14) > 1)
    assert (np.isfinite(along(found["section"])[0]) == there).all()
    beside = np.flatnonzero(there & (np.abs(line.longitude + 14) < 2))
    assert beside.size  # a coast has the value of the sea beside it, and is not drawn towards nothing
    assert np.abs(along(found["section"])[0, beside] - 100 * line.longitude[beside]).max() < 300


def test_a_line_that_cannot_be_is_told_and_the_section_stays():
    found = pages(field())
    section = found["section"]
    section.along.value = cube.LINE
    assert np.isfinite(along(section)).all()  # without a line from corner to corner
    for wrong in ("-20 45", "a b; c d", "-20 45; -20 45", "-20 95; -20 45"):
        section.line.value = wrong
        assert section.problem.visible, wrong
    assert "latitude in degrees" in section.problem.object
    section.line.value = "-20 41; -12 45"
    assert not section.problem.visible
    assert found["map"].line.value == "-20 41; -12 45"


def test_what_is_too_uncertain_is_hidden_along_the_line_too():
    found = drawn_line(with_errors(), [(-20.0, 44.0), (-8.0, 44.0)])
    section = found["section"]
    section.choice.value = "analysis"
    section.most.value = 0.5
    line = sections.line([-20, -8], [44, 44], cube.MOST_ALONG)
    shown, veil = (along(section, name)[0] for name in ("value", "hidden"))
    assert (np.isfinite(shown) == (line.longitude < -11)).all()
    assert (np.isfinite(veil) == np.isnan(shown)).all()


def test_of_a_large_cube_only_the_nodes_beside_the_line_are_computed():
    import dask
    import dask.array as da

    read = set()

    def block(block_info=None):
        read.add(block_info[None]["chunk-location"])
        return np.ones(block_info[None]["chunk-shape"])

    lazy = da.map_blocks(block, chunks=((3,), (10,) * 10, (10,) * 10), dtype=float, meta=np.empty((0, 0, 0)))
    data = xr.Dataset(
        {"v": (("depth", "latitude", "longitude"), lazy)},
        {"depth": [0.0, 10, 20], "latitude": np.arange(100) / 2.0, "longitude": np.arange(100) / 2.0},
    )
    with dask.config.set(scheduler="sync"):
        shown = cube.SectionView(data)
        shown.along.value = cube.LINE
        read.clear()
        shown.line.value = "1 1; 1 48"
        hv.render(shown.figure)
    assert {where[2] for where in read} == {0}
