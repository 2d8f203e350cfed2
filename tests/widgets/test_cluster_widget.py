"""The workers of a cluster on a page, and the workbench's choice of where to run."""

from __future__ import annotations

import time

import pytest

import phidias_lab
from phidias_lab.compute import pages
from phidias_lab.widgets import ClusterView, Workbench

SITE = """
name = "trial"
[clusters.local]
kind = "local"
workers = { default = 1, max = 2 }
shared_folder = "SHARED"
[clusters.here-too]
title = "This machine, with workers"
kind = "local"
workers = { default = 1, max = 2 }
shared_folder = "SHARED"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    file = tmp_path / "site.toml"
    file.write_text(SITE.replace("SHARED", str(tmp_path / "shared")))
    monkeypatch.setenv("PHIDIAS_SITE", str(file))
    monkeypatch.delenv(pages.VARIABLE, raising=False)


def test_the_page_tells_asked_pending_running_and_lost_and_its_buttons_scale_and_end(here, monkeypatch):
    with phidias_lab.cluster("local", workers=1) as cluster:
        page = ClusterView(cluster)
        assert "running" in page._counts.object
        cluster.wait_for_workers(timeout=90)
        page.refresh()
        assert "1 running" in page._counts.object
        assert "<td>running</td>" in page._table.object
        page._wanted.value = 3
        page._scale.clicks += 1
        assert "at most 2" in page._problem.object
        page._wanted.value = 0
        page._scale.clicks += 1
        assert "at most" not in page._problem.object
        page._pages.clicks += 1
        assert "no such server started this process" in page._problem.object
        monkeypatch.setenv(pages.VARIABLE, "")
        pages.offer("/user/me/")
        page._pages.clicks += 1
        assert page._problem.object == ""
        assert f'href="/user/me/phidias-dask/{cluster.name}/status"' in page._table.object
        end = time.monotonic() + 60
        while cluster.running and time.monotonic() < end:
            time.sleep(0.1)
        page.refresh()
        assert "0 running" in page._counts.object
        page._close.clicks += 1
        assert cluster.closed
        assert page._scale.disabled
        assert "has ended" in page._counts.object


def test_the_workbench_runs_where_its_choice_says(here):
    bench = Workbench("probe.slow")
    assert list(bench._where.options) == ["This machine", "This machine, with workers"]
    bench.form.set(pieces=2, seconds=0.0)
    bench._where.value = "here-too"
    bench._workers.value = 1
    run = bench.start()
    assert bench.wait(120) == "done", run.log
    assert run.record["where"]["place"] == "here-too"
    bench._where.value, bench._workers.value = "local", 0
    assert "where" not in bench.start().launched
    assert bench.wait(120) == "done"


SLURM = """
[clusters.slurm-night]
title = "Slurm: overnight"
kind = "slurm"
partition = "night"
workers = { default = 1, max = 4 }
shared_folder = "SHARED"
"""


def test_the_workbench_offers_places_where_the_site_has_some_and_no_choice_where_it_has_none(
    tmp_path, monkeypatch, own_folders
):
    file = tmp_path / "site.toml"
    file.write_text((SITE.split("[clusters.here-too]")[0] + SLURM).replace("SHARED", str(tmp_path / "shared")))
    monkeypatch.setenv("PHIDIAS_SITE", str(file))
    bench = Workbench("probe.slow")
    assert bench._elsewhere.visible
    assert dict(bench._where.options) == {"This machine": "local", "Slurm: overnight": "slurm-night"}
    assert bench._where.value == "local"

    file.write_text('name = "alone"')
    assert not Workbench("probe.slow")._elsewhere.visible
    monkeypatch.delenv("PHIDIAS_SITE")
    assert not Workbench("probe.slow")._elsewhere.visible
