"""What weighs in a cell of a run's result: asked from a notebook, and on its map."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import panel as pn
import pytest
from bokeh.models.glyphs import Scatter

import phidias_lab
from phidias_lab.errors import InputError
from phidias_lab.widgets import view
from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import cube, influences

ASKED = {"region": [-15, 44, -9, 48], "depths": [0, 10], "period": "2010-01-01/2010-06-30", "length": 150e3}
PLACE = {"longitude": -13.0, "latitude": 46.0}

prepare()


@pytest.fixture
def run(lab):
    found = phidias_lab.run("ocean.gridding", **ASKED)
    assert found.wait(60) == "done", found.log
    return found


def map_of(run) -> cube.MapView:
    page = cube.MapView(run.result(), variable="analysis", weighs=run)
    page.uncertainty.on = False
    return page


def dots(page) -> list[dict]:
    """The groups of marks on the map, as they are drawn."""
    return [r.data_source.data for r in hv.render(page.figure).renderers if isinstance(r.glyph, Scatter)]


def test_a_run_and_its_product_tell_what_weighs_in_a_cell(run):
    rows = phidias_lab.influences(run, **PLACE, depth=10)
    there = run.result().sel(depth=10).sel(PLACE, method="nearest").squeeze("time")
    assert float(there["background"]) + rows["contribution"].sum() == pytest.approx(float(there["analysis"]), abs=1e-9)
    assert len(rows) == int(there["observations_used"])
    assert phidias_lab.influences(run.product, **PLACE, depth=10).equals(rows)
    told = []
    phidias_lab.influences(run, **PLACE, depth=10, report=lambda share, words: told.append(words))
    assert "solving for 46°N 13°W" in told


def test_what_is_no_cell_and_who_does_not_tell_are_refused_in_a_sentence(run):
    with pytest.raises(InputError, match=r"not named by lat: .*latitude=45"):
        phidias_lab.influences(run, lat=46)
    with pytest.raises(InputError, match="Give depth="):
        phidias_lab.influences(run, **PLACE)
    other = phidias_lab.run("ocean.domain", region=ASKED["region"], depths=[0])
    assert other.wait(60) == "done", other.log
    with pytest.raises(InputError, match=r"ocean\.domain does not tell what its values weigh"):
        phidias_lab.influences(other, x=1)
    assert "What weighs here" not in buttons(view(other, kind="map"))
    assert "What weighs here" in buttons(view(run, kind="map"))
    assert "What weighs here" not in buttons(view(run.result(), kind="map"))


def buttons(layout) -> list[str]:
    return [each.label for each in pn.Column(layout).select(pn.widgets.Button)]


def test_the_map_shows_the_weights_of_the_place_that_was_clicked_until_another_slice_is_shown(run):
    page = map_of(run)
    page.weighing.ask()
    assert "No place is chosen. Click on the map" in page.weighing.note.object
    page.click(*PLACE.values())
    page.at(depth=1)
    page.weighing.ask()
    rows = phidias_lab.influences(run, **PLACE, depth=10)
    assert rows.equals(page.weighing.rows)
    assert page.weighing.note.object.count(rows.attrs["words"].split(":")[0]) == 1
    table = page.weighing.table
    assert list(table)[:4] == ["weight", "contribution [°C]", "distance [km]", "temperature [°C]"]
    assert table["distance [km]"][0] == pytest.approx(rows["distance"][0] / 1000, rel=1e-3)
    assert table["weight"].tolist() == [float(f"{w:.4g}") for w in rows["weight"].head(influences.MOST_ROWS)]
    marks, place = dots(page)
    assert (list(place["x"]), list(place["y"])) == ([PLACE["longitude"]], [PLACE["latitude"]])
    assert len(marks["x"]) == min(len(rows), influences.MOST_ROWS)
    assert (np.asarray(marks["marker"]) == "diamond").tolist() == (rows["weight"].head(len(marks["x"])) < 0).tolist()
    assert np.argmax(marks["size"]) == 0
    page.at(depth=0)
    assert page.weighing.rows is None
    assert page.weighing.table is None
    assert len(dots(page)) == 1
    page.weighing.ask()
    assert page.weighing.rows is not None
    page.click(-11, 47)
    assert page.weighing.rows is None


def test_a_cell_without_an_answer_says_why(run):
    page = map_of(run)
    page.place.value = "-40 46"
    page.weighing.ask()
    assert "longitude -40 is outside the grid" in page.weighing.note.object
    assert "alert" in page.weighing.note.object
    assert not page.weighing.button.disabled
