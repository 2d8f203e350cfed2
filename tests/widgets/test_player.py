"""A cube is played along its other dimensions, on the page and as a page of its own."""

from __future__ import annotations

import numpy as np
import pytest
from bokeh.models import Image
from test_views import field
from widget_servers import colours, free_port, scripted, stopped

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.widgets import animation
from phidias_lab.widgets.views import cube, player

SERVED = """
import sys
import panel as pn
from test_views import field
from phidias_lab.widgets.views import cube
pn.serve(lambda: cube.MapView(field(nt=7)).__panel__(), port=int(sys.argv[1]), address="127.0.0.1", show=False)
"""


def changing(**sizes):
    """A field that is another one at each time: by one more each time."""
    data = field(**sizes)
    data["analysis"] = data["analysis"] + np.arange(data.sizes["time"])[:, None, None, None]
    return data


def test_a_view_is_played_along_time_unless_told_otherwise_and_what_does_not_change_has_no_controls():
    shown = cube.MapView(field())
    assert (shown.player.along.options, shown.player.along.value) == (["time", "depth"], "time")
    assert shown.player.playing in shown.player.row.objects
    still = cube.MapView(field(nt=1, nz=1))
    assert still.player.row.objects == []


@pytest.mark.parametrize("named", [True, False])
def test_after_the_last_figure_comes_the_first(named):
    shown = cube.MapView(field(nt=3) if named else field(nt=3).drop_vars("time"))
    seen = []
    for _ in range(4):
        shown.player.step()
        seen.append(shown.sliders["time"].value)
    assert seen == [1, 2, 0, 1]
    shown.player.along.value = "depth"
    shown.player.step()
    assert (shown.sliders["time"].value, shown.sliders["depth"].value) == (1, 1)


def test_another_variable_is_played_along_what_it_has():
    shown = cube.MapView(field().assign(surface=lambda d: d.analysis.isel(depth=0, drop=True)))
    shown.player.along.value = "depth"
    shown.choice.value = "surface"
    assert shown.player.along.value == "time"


def test_a_page_holds_every_figure_of_the_place_that_is_shown():
    shown = cube.MapView(changing(nt=4))
    shown.at(depth=2)
    shown.uncertainty.on = False
    film = player.Animation(shown, "time")
    states = film._embedded()[0].roots[-1].state
    assert sorted(states) == [0, 1, 2, 3]
    for k, state in states.items():
        assert f"at 50 m, 2010-{k + 1:02d}-01" in state["content"].replace("February 2010", "2010-02-01")
    assert film.view.same.on
    assert not shown.same.on
    assert shown.sliders["time"].value == 0


def test_all_figures_of_a_page_have_the_same_colours():
    film = animation(changing(nt=4, nz=1))
    (image,) = [r for r in _rendered(film).renderers if isinstance(r.glyph, Image)]
    whole = film.view.data["analysis"]
    assert (image.glyph.color_mapper.low, image.glyph.color_mapper.high) == (whole.min(), whole.max())


def _rendered(film):
    import holoviews as hv

    film.view.uncertainty.on = False
    return hv.render(film.view.figure)


@pytest.mark.parametrize(
    ("data", "asked", "words"),
    [
        (field(nt=1, nz=1), {}, "nothing to animate.*They have time \\(1\\)"),
        (field(), {"along": "latitude", "kind": "map"}, "leaves out 'latitude' is missing"),
        (field(), {"along": "tide"}, "leaves out 'tide' is missing"),
        ([1], {}, "A list cannot be animated"),
        (field(nt=600, nz=1, ny=2, nx=2), {}, "600 figures"),
        (field(nt=60, nz=1, ny=250, nx=250), {}, "7,500,000 numbers"),
    ],
)
def test_what_cannot_be_animated_is_told(data, asked, words):
    with pytest.raises(InputError, match=words):
        animation(data, **asked)


def test_a_view_that_does_not_fit_into_a_page_offers_none():
    shown = cube.MapView(field(nt=600, nz=2, ny=2, nx=2))
    assert not shown.player.file.visible
    shown.player.along.value = "depth"
    assert shown.player.file.visible


def test_a_page_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path):
    film = animation(field(nz=1))
    with pytest.raises(ParameterError, match=r"'film\.gif' does not end with \.html"):
        film.save(tmp_path / "film.gif")
    with pytest.raises(InputError, match="No such file or directory"):
        film.save(tmp_path / "missing" / "film.html")
    with pytest.raises(ParameterError, match="slow, medium, fast"):
        animation(field(), pace="hasty")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_page_plays_by_the_keyboard_and_asks_no_other_host(page, tmp_path, keep):
    path = animation(changing(nt=4), "time", kind="map", pace="fast").save(tmp_path / "film.html")
    page.goto(path.as_uri())
    slider = page.get_by_role("slider", name="time: 2010-01-01")
    slider.wait_for()
    play = page.get_by_role("checkbox", name="Play")
    play.focus()
    before = page.locator(".bk-Figure").first.screenshot()
    page.keyboard.press("Space")
    page.get_by_text("2010-03-01").wait_for()
    page.get_by_text("2010-02-01").wait_for()  # after the last one it begins again
    page.keyboard.press("Space")
    assert not play.is_checked()
    stands = page.locator(".noUi-handle").get_attribute("aria-valuenow")
    page.wait_for_timeout(1000)
    assert page.locator(".noUi-handle").get_attribute("aria-valuenow") == stands
    assert page.locator(".bk-Figure").first.screenshot() != before
    picture = page.screenshot()
    assert colours(picture, page.locator(".bk-Figure").first.bounding_box()) > 20
    keep("animation")
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.errors == []


def test_a_view_on_a_page_plays_and_pauses_by_the_keyboard(page, served_environment, tmp_path):
    port = free_port()
    server = scripted(SERVED, port, served_environment, tmp_path)
    try:
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_text("2010-01-01").wait_for(timeout=60_000)
        play = page.get_by_role("checkbox", name="Play", exact=True)
        play.focus()
        page.keyboard.press("Space")
        page.get_by_text("2010-02-01").wait_for()
        page.get_by_text("2010-03-01").wait_for()
        page.keyboard.press("Space")  # the focus has stayed
        page.get_by_role("checkbox", name="Play", exact=True, checked=False).wait_for()
        handle = page.locator(".noUi-handle").first
        stood = []
        for _ in range(
            8
        ):  # figures may have been on their way, for longer on a busy machine; one that plays never stands
            stood.append(handle.get_attribute("aria-valuenow"))
            page.wait_for_timeout(3000)
            if handle.get_attribute("aria-valuenow") == stood[-1]:
                break
        else:
            raise AssertionError(f"It plays on: {stood}")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save the animation").click()
        assert "</html>" in saved.value.path().read_text()
    finally:
        stopped(server)


def test_a_view_that_is_played_stops_after_some_rounds():
    shown = cube.MapView(field(nt=3, nz=1))
    shown.player.playing.on = True
    shown.player._left = 4
    for left in (3, 2, 1, 0):
        assert shown.player.playing.on
        shown.player.step()
        assert shown.player._left == left
    assert not shown.player.playing.on
