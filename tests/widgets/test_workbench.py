"""The workbench does with buttons what a script does with methods: both make the same run."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import parse_qs

import pandas as pd
import pytest

import phidias_lab
from phidias_lab.compute import runs
from phidias_lab.errors import ParameterError, PhidiasError
from phidias_lab.widgets import Workbench

SMALL = {"region": [-15, 44, -11, 47], "depths": [0], "period": "2010-01-01/2010-06-30", "length": 150e3}


@pytest.fixture
def bench(lab):
    return Workbench("ocean.gridding")


@pytest.fixture
def observations(lab):
    rows = pd.DataFrame(
        {
            "longitude": [-14.0, -13, -12, -11.5],
            "latitude": [44.5, 45, 46, 46.5],
            "depth": [0.0, 0, 0, 0],
            "time": pd.to_datetime(["2010-02-01"] * 4),
            "density": [1027.0, 1027.1, 1027.2, 1027.3],
        }
    )
    path = lab / "mine.parquet"
    rows.to_parquet(path)
    return path


def test_a_fresh_workbench_shows_the_chain_its_default_inputs_and_what_a_run_needs(bench):
    assert bench.references == {
        "observations": {"entry": "ocean.observations"},
        "domain": {"entry": "ocean.north_east_atlantic"},
    }
    assert "2.0 GiB" in bench._estimate.object
    assert not bench._run.disabled
    assert bench._cancel.disabled
    assert "temperature" in bench.form.fields["variable"].names


def test_only_entries_of_the_right_kind_are_offered(bench):
    offered = bench.inputs["observations"].choice.options.values()
    assert "ocean.observations" in offered
    assert "ocean.north_east_atlantic" not in offered
    assert all("synthetic" in text.lower() for text, a in bench.inputs["domain"].choice.options.items() if a[0] != "(")


def test_a_run_from_the_workbench_is_the_run_of_a_script(bench):
    bench.form.set(SMALL)
    run = bench.start()
    assert bench._run.disabled
    assert bench.wait(60) == "done"
    script = phidias_lab.run("ocean.gridding", **SMALL)
    assert script.wait(60) == "done"
    assert run.order.digest() == script.order.digest()
    assert run.product.checksums == script.product.checksums
    assert "analysis" in bench.result
    assert bench._result.objects
    assert bench._download.visible
    assert bench._download.callback() == str(run.product.path)
    assert not bench._run.disabled
    assert run.id in bench._recent.options.values()

    again = Workbench()
    again.open(run.id[-6:])
    assert again.form.values == bench.form.values
    assert again.order.digest() == bench.order.digest()
    assert "analysis" in again.result


def test_the_list_of_variables_holds_measurements_only(bench):
    offered = bench.form.fields["variable"].names
    assert {"temperature", "salinity"} <= set(offered)
    assert not [n for n in offered if n.endswith(("_id", "_qc")) or n in ("longitude", "latitude", "depth", "time")]


def test_a_run_on_my_own_file_offers_its_columns(bench, observations):
    bench.inputs["observations"].set(str(observations))
    assert "temperature" in bench.form.problems["variable"]
    assert bench._run.disabled
    bench.form.fields["variable"].controls["known"].value = "density"
    bench.form.set(SMALL)
    assert not bench._run.disabled
    bench.start()
    assert bench.wait(60) == "done", bench.run.error
    assert "density" in str(bench.result["analysis"].attrs)


def test_a_run_that_fails_says_why_on_the_page_and_keeps_its_log(bench):
    # Only who reads the values finds that none of them is so warm.
    bench.form.set({**SMALL, "value_range": [90, 100]})
    bench.start()
    assert bench.wait(60) == "failed"
    assert bench._problem.visible
    assert "No observation" in bench._problem.object
    assert bench._log_card.visible
    assert "Traceback" in bench._log.object
    assert not bench._run.disabled


def test_what_metadata_tell_is_refused_on_the_page_and_no_run_is_recorded(bench):
    bench.form.set({**SMALL, "period": "1950-01-01/1950-12-31"})
    bench._clicked_run()
    assert bench._problem.visible
    assert "No observation of &#x27;temperature&#x27;" in bench._problem.object
    assert "between 1950-01-01 and 1950-12-31" in bench._problem.object
    assert bench.run is None
    assert phidias_lab.runs() == []
    assert not bench._run.disabled
    bench.form.set(SMALL)
    bench._clicked_run()
    assert not bench._problem.visible
    assert bench.cancel() in ("cancelled", "done")


def told(bench) -> list[str]:
    return [html.unescape(re.sub("<[^>]+>", "", pane.object)) for pane in bench._told]


def test_what_a_run_left_out_and_its_warnings_stand_on_the_page(bench, observations):
    bench.inputs["observations"].set(str(observations))
    bench.form.set({**SMALL, "variable": "density", "depths": [0, 10], "value_range": [1027.05, 1030]})
    bench.start()
    assert told(bench) == []
    assert bench.wait(60) == "done", bench.run.error
    assert told(bench)[0] == "Observations used 3 of 4; left out: 1 implausible value."
    assert told(bench)[-1].startswith("Warning: No observation is used at 10 m")
    assert "phidias-problem" in bench._told[-1].object
    assert "phidias-problem" not in bench._told[0].object
    again = Workbench()
    again.open(bench.run)
    assert told(again) == told(bench)

    record = runs.read_json(bench.run.folder / "record.json")
    for damaged in (None, 7, {}, {"counts": {"observations": {"total": "<b>"}}, "warnings": []}):
        runs.write_json(bench.run.folder / "record.json", {**record, "said": damaged})
        again.open(bench.run)
        assert told(again) == []
        assert "analysis" in again.result


def test_a_run_can_be_cancelled(bench):
    bench.form.set(windows="monthly")
    bench.start()
    assert not bench._cancel.disabled
    assert not bench._resume.visible
    assert bench.cancel() == "cancelled"
    assert "cancelled. Resume goes on from its finished pieces." in bench._state.object
    assert not bench._result.objects
    assert bench._cancel.disabled


def test_a_cancelled_run_is_opened_and_goes_on_with_the_same_page(bench):
    first = bench.start()
    bench.cancel()
    later = Workbench()
    later.open(first.id)
    assert later._resume.visible
    later._clicked_resume()
    assert later.run == first
    assert not later._resume.visible
    assert later.wait(120) == "done"
    assert later.result is not None
    assert not later._resume.visible


def test_a_missing_file_is_told_beside_the_input(bench, lab):
    chooser = bench.inputs["observations"]
    chooser.set(str(lab / "none.parquet"))
    assert chooser.note.visible
    assert "none.parquet" in chooser.note.object
    with pytest.raises(PhidiasError, match=r"none\.parquet"):
        bench.start()
    bench._clicked_run()
    assert "none.parquet" in bench._problem.object


def test_an_input_without_a_file_cannot_run(bench):
    bench.inputs["observations"].choice.value = "(file)"
    assert bench.inputs["observations"].file.visible
    assert bench._run.disabled
    assert "has no file yet" in bench._estimate.object


def test_a_link_shows_the_receiver_the_same_order(bench):
    bench.form.set({**SMALL, "quality": "good"})
    bench.inputs["observations"].set({"entry": "ocean.observations", "parameters": {"region": "-20,40,0,55"}})
    assert bench.references["observations"]["parameters"] == {"region": "-20,40,0,55"}
    asked = {k: [v[0].encode()] for k, v in parse_qs(bench.link[1:]).items()}
    other = Workbench()
    other.load_query(asked)
    assert other.order == bench.order
    assert not other._problem.visible


def test_an_order_too_long_for_a_link_is_shared_as_json(bench):
    ring = [[x / 100, 40 + (x % 2) / 10] for x in range(-1000, 0)] + [[0, 50], [-10, 50], [-10, 40]]
    bench.form.set(region={"type": "Polygon", "coordinates": [ring]})
    assert bench.link is None
    assert "too long" in bench._link.object
    other = Workbench()
    other.load(bench._text.value)
    assert other.order == bench.order
    assert json.loads(bench._order_stream().getvalue()) == bench.order.document()


BAD_QUERIES = {
    "no json": ({"order": [b"{"]}, "is not JSON"),
    "unknown key": ({"order": [b'{"chain": "ocean.gridding", "code": 1}']}, "unknown key"),
    "unknown chain": ({"chain": [b"ocean.griding"]}, "no chain"),
    "wrong version": ({"order": [b'{"chain": "ocean.gridding", "version": "0.1"}']}, "version"),
    "bad value": ({"order": [b'{"chain": "ocean.gridding", "parameters": {"length": 5}}']}, "length"),
    "bad parameter": ({"order": [b'{"chain": "ocean.gridding", "parameters": {"lenght": 5000}}']}, "lenght"),
    "bad input": ({"order": [b'{"chain": "ocean.gridding", "inputs": {"domains": "ocean.baltic"}}']}, "domains"),
    "bytes": ({"order": [b"\xff\xfe"]}, "not text"),
    "huge": ({"order": [b'{"chain": "' + b"x" * 10_000 + b'"}']}, "too long"),
    "script": ({"chain": [b"<script>alert(1)</script>"]}, "no chain"),
    "unknown run": ({"run": [b"20200101"]}, "no run"),
}


@pytest.mark.parametrize(("query", "said"), BAD_QUERIES.values(), ids=BAD_QUERIES)
def test_a_link_that_cannot_be_used_is_told_and_changes_nothing(bench, query, said):
    bench.form.set(length=5e3)
    before = bench.order
    bench.load_query(query)
    assert bench._problem.visible
    assert said in bench._problem.object
    assert "<script>" not in bench._problem.object
    assert bench.order == before


def test_an_order_that_is_pasted_badly_is_told(bench):
    bench._text.value = "not json"
    bench._clicked_load()
    assert "is not JSON" in bench._problem.object
    with pytest.raises(ParameterError):
        bench.load("not json")


def test_a_zipped_store_holds_every_file(bench):
    import zipfile

    bench.form.set(SMALL)
    bench.start(format="zarr")
    assert bench.wait(60) == "done", bench.run.error
    packed = zipfile.ZipFile(bench._download.callback())
    store = bench.run.product.path
    inside = {str(f.relative_to(store.parent)) for f in store.rglob("*") if f.is_file()}
    assert set(packed.namelist()) == inside
    assert bench._download.filename.endswith(".zarr.zip")


def test_a_wait_without_a_run_is_refused(bench):
    with pytest.raises(ParameterError, match="start"):
        bench.wait()
