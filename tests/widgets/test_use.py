"""Hours and room on a page, as `phidias use` tells them."""

from __future__ import annotations

import phidias_lab
from phidias_lab.widgets.use import Use


def test_the_page_tells_the_hours_and_the_room_of_ones_own_runs(demo_lake):
    page = Use()
    page.refresh()
    assert page.hours.set_index("what").used["runs"] == "0 (0 running)"
    run = phidias_lab.run("ocean.gridding", depths=[0], period="2012-01", region=[-15, 44, -5, 50], length=3e5)
    assert run.wait() == "done", run.error
    page.refresh()
    hours = page.hours.set_index("what")
    assert hours.used["runs"] == "1 (0 running)"
    assert hours.limit["GPU hours"] == "none set"
    files = page.files.set_index("files")
    assert set(files.index) == {"home", "runs"}
    assert files.used["runs"] not in ("", "0 B")
    assert "since" in page.summary.object


def test_an_accounting_that_does_not_answer_is_said_on_the_page(tmp_path, monkeypatch):
    (tmp_path / "site.toml").write_text(
        f'name = "far"\n[slurm]\nprograms = "{tmp_path}"\n[clusters.slurm]\npartition = "cpu"\n'
    )
    monkeypatch.setenv("PHIDIAS_SITE", str(tmp_path / "site.toml"))
    page = Use()
    page.refresh()
    assert "There is no" in page.problem.object
    assert "sacct" in page.problem.object
    assert len(page.hours) == 0
