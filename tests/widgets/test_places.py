"""The places of the observations that a run used, on its map."""

from __future__ import annotations

import shutil

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
import xarray as xr
from bokeh.models import Plot
from bokeh.models.glyphs import Scatter

import phidias_lab
from phidias_lab import flow
from phidias_lab.errors import InputError, PhidiasError
from phidias_lab.products import Product
from phidias_lab.widgets import Workbench, view
from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import cube
from phidias_lab.widgets.views.places import MOST_PLACES, Places

#: Longitude, latitude, depth, month, flag, value.
ROWS = [
    (-14.0, 44.5, 0, 2, 1, 10.0),
    (347.0, 45.0, 0, 2, 1, 11.0),  # 13 degrees West
    (-12.0, 46.0, 0, 2, 4, 12.0),  # a bad value
    (-12.5, 46.5, 10, 2, 1, 12.0),
    (-11.5, 46.5, 0, 3, 1, 13.0),
    (-11.5, 46.5, 0, 3, 1, 13.0),  # twice
    (-11.5, 46.5, 1, 3, 1, 13.5),  # above the level, at the same place
    (-40.0, 46.5, 0, 3, 1, 13.0),  # beyond the domain
]
ASKED = {"region": [-15, 44, -11, 47], "depths": [0, 10], "windows": "monthly"}

prepare()


@pytest.fixture
def mine(lab):
    columns = ["longitude", "latitude", "depth", "month", "temperature_qc", "temperature"]
    rows = pd.DataFrame(ROWS, columns=columns)
    rows["time"] = pd.to_datetime([f"2010-{month:02d}-10" for month in rows.pop("month")])
    path = lab / "mine.parquet"
    rows.astype({"depth": float}).to_parquet(path)
    return path


@pytest.fixture
def run(mine):
    found = phidias_lab.run("ocean.gridding", inputs={"observations": str(mine)}, **ASKED)
    assert found.wait(60) == "done", found.log
    return found


def map_of(source, **settings) -> cube.MapView:
    result = source.result() if hasattr(source, "result") else source.open()
    return cube.MapView(result, places=Places(source), **settings)


def dots(plot: Plot) -> list[tuple[float, float]]:
    (found,) = [r for r in plot.renderers if isinstance(r.glyph, Scatter)]
    return sorted(zip(*(np.round(found.data_source.data[k], 6).tolist() for k in "xy"), strict=True))


def shown(layout) -> list[list[tuple[float, float]]]:
    return [dots(plot) for plot in layout.__panel__().get_root().select({"type": Plot})]


def test_the_places_are_those_of_the_observations_that_were_used_in_each_slice(run):
    places, result = flow.places(run), run.result()
    used = result["observations_used"]
    assert int(used.sum()) == len(places) == 5
    for time in result["time"].values:
        for depth in result["depth"].values:
            here = (abs(places["time"] - time) < pd.Timedelta("1s")) & (places["depth"] == depth)
            assert here.sum() == int(used.sel(time=time, depth=depth))


def test_the_map_shows_them_for_its_window_and_level_in_its_own_turn(run):
    page = map_of(run)
    assert not [r for r in hv.render(page.figure[0]).renderers if isinstance(r.glyph, Scatter)]
    assert not page.note.visible
    page.observed.on = True
    surface = [(-14.0, 44.5), (-13.0, 45.0)]
    assert shown(page) == [surface, surface]  # on the field and on its uncertainty
    assert "2 observations used here, at 2 places." in page.note.object
    page.at(depth=1)
    assert shown(page)[0] == [(-12.5, 46.5)]
    page.at(depth=0, time=1)
    assert shown(page)[0] == [(-11.5, 46.5)]
    assert "2 observations used here, at 1 place." in page.note.object
    page.at(depth=1)
    assert shown(page)[0] == []
    assert "No observation was used here" in page.note.object
    page.observed.on = False
    assert not page.note.visible


def ticks(layout) -> list[str]:
    return [text for box in pn.Column(layout).select(pn.widgets.CheckBoxGroup) for text in box.options]


def test_only_who_knows_the_run_and_its_inputs_offers_the_places(run, mine, lab):
    for source in (run, run.product):
        assert "Observations used" in ticks(view(source, kind="map"))
    assert "Observations used" not in ticks(view(run.result(), kind="map"))
    alone = lab / "alone"
    shutil.copytree(run.product.folder, alone)
    assert "Observations used" in ticks(view(Product(alone), kind="map"))
    mine.unlink()
    for source in (run, run.product, Product(alone)):
        page = view(source, kind="map")
        assert "Observations used" not in ticks(page)
        assert "Uncertainty" in ticks(page)


def test_a_chain_that_does_not_tell_places_has_a_map_without_them(own_folders):
    run = phidias_lab.run("probe.slow", pieces=2, seconds=0.0)
    assert run.wait(60) == "done", run.log
    assert "Observations used" not in ticks(view(run, kind="map"))


def test_observations_that_have_changed_since_the_run_are_not_taken_for_those_that_it_used(run, mine):
    page = map_of(run)
    rows = pd.read_parquet(mine)
    rows.assign(latitude=rows["latitude"] - 0.25).to_parquet(mine)
    with pytest.raises(InputError, match="'observations' has changed since this run"):
        flow.places(run)
    page.observed.on = True
    assert not page.observed.on
    assert "has changed since this run" in page.note.object
    page.at(time=1)
    assert not [r for r in hv.render(page.figure[0]).renderers if isinstance(r.glyph, Scatter)]


def test_of_very_many_places_some_are_drawn_and_the_map_says_so(run):
    places = Places(run)
    rng = np.random.default_rng(1)
    n = 2 * MOST_PLACES
    places._table = pd.DataFrame(
        {"longitude": rng.uniform(-15, -11, n), "latitude": rng.uniform(44, 47, n), "depth": 0.0}
    ).assign(time=run.result()["time"].values[0])
    page = cube.MapView(run.result(), places=places)
    page.uncertainty.on = False
    page.observed.on = True
    (drawn,) = shown(page)
    assert len(set(drawn)) == MOST_PLACES
    assert f"{n:,} places; {MOST_PLACES:,} of the places, chosen at random, are drawn" in page.note.object
    assert shown(page) == [drawn]


def test_a_projected_map_does_not_offer_places_in_degrees(run):
    data = xr.Dataset({"band": (("y", "x"), np.eye(4))}, {"y": [0.0, 10, 20, 30], "x": np.arange(4.0)})
    page = cube.MapView(data, places=Places(run))
    assert not page.observed.visible


def test_levels_that_are_analysed_together_keep_their_own_places(mine):
    run = phidias_lab.run("ocean.gridding", inputs={"observations": str(mine)}, **ASKED, vertical_length=50)
    assert run.wait(60) == "done", run.log
    used = run.result()["observations_used"]
    places = flow.places(run)
    assert [int(used.sel(depth=d).sum()) for d in (0, 10)] == [(places["depth"] == d).sum() for d in (0, 10)] == [4, 1]


def test_the_workbench_hands_over_the_field_with_its_observations_for_a_data_centre(mine, lab):
    bench = Workbench("ocean.gridding")
    bench.inputs["observations"].set(str(mine))
    bench.form.set(ASKED)
    bench.start()
    assert bench.wait(60) == "done", bench.run.error
    assert bench._for_centres.visible
    (lab / "given.nc").write_bytes(bench._for_centres.callback().read())
    with xr.open_dataset(lab / "given.nc") as given:
        assert given.sizes["observations"] == 5
        np.testing.assert_array_equal(given["temperature"], bench.result["analysis"].astype("f4"))
    mine.unlink()
    bench._for_centres.callback()
    assert "is without the observations" in bench._problem.object
    shutil.rmtree(bench.run.folder / "product")
    with pytest.raises(PhidiasError):
        bench._for_centres.callback()
    assert "product" in bench._problem.object
    bench.form.set({"error": "none"})
    bench.inputs["observations"].set("ocean.observations")
    bench.start()
    assert bench.wait(60) == "done", bench.run.error
    assert bench._download.visible
    assert not bench._for_centres.visible


def test_the_workbench_shows_the_places_behind_its_result(mine):
    bench = Workbench("ocean.gridding")
    bench.inputs["observations"].set(str(mine))
    bench.form.set(ASKED)
    bench.start()
    assert bench.wait(60) == "done", bench.run.error
    assert "Observations used" in ticks(bench._result)
