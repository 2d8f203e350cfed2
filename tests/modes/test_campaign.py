"""A campaign: each file that is there becomes one run, whatever happens, and what became of all of them is told."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from phidias_probe import scenes

import phidias_lab
from phidias_lab import settings
from phidias_lab.compute import runs
from phidias_lab.errors import InputError, ParameterError, RunFailedError
from phidias_lab.lake import catalog
from phidias_lab.modes.campaign import Campaign, report_lines

LONG = 120


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    return place


def put(folder, *names) -> None:
    """Files of 30 rows, of which 15 are warm."""
    for name in names:
        scenes.rows().to_parquet(folder / name)


def until(condition, seconds=LONG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def entries() -> list[dict]:
    return [json.loads(path.read_text()) for path in settings.runs_root().glob(".watch/*/entries/*.json")]


def living() -> set[str]:
    """Tokens of the processes that hold a ledger now."""
    found = set()
    for path in settings.runs_root().glob(".watch/*/owners/*"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.add(path.name)
    return found


def states(campaign) -> dict[str, str]:
    table = campaign.table()
    return {Path(file).name: state for file, state in zip(table["file"], table["state"], strict=True)}


def test_what_is_there_is_done_once_and_later_what_is_new(folder):
    put(folder, "a.parquet", "b.parquet")
    (folder / "cut.parquet").write_text("no table")
    before = Campaign(folder, "probe.events", parameters={"fault": "warn"})
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert before.estimate.free > 0
    assert {name: told for name, told in vars(before.estimate).items() if name != "free"} == {
        "files": 3, "bytes": size, "done": 0, "refused": 0, "skipped": 0, "left": 3, "left_bytes": size, "at_once": 2,
        "seconds": None, "written": None, "runs": 0,
    }  # fmt: skip
    assert "unknown until the first file is done" in str(before.estimate)
    assert phidias_lab.runs() == []
    campaign = before.start().wait(LONG)
    assert not campaign.going_on
    assert campaign.progress.fraction == 1
    assert states(campaign) == {"a.parquet": "done", "b.parquet": "done", "cut.parquet": "refused"}
    assert sorted(campaign.table()["run"].dropna()) == sorted(run.id for run in phidias_lab.runs())
    assert len(phidias_lab.events()) == 30

    report = json.loads(campaign.report_file.with_suffix(".json").read_text())
    assert report["files"] == {"total": 3, "done": 2, "refused": 1, "skipped": 0, "left": 0}
    assert report["events"] == {"warmth": 30}
    assert report["counts"] == {"rows": {"total": 60, "used": 30, "left_out": {"cold": 30}}}
    assert report["warnings"] == [{"sentence": "15 rows are warm.", "files": 2}]
    assert report["parameters"] == {"fault": "warn"}
    (refused,) = report["refused"]
    assert refused["file"] == f"{folder}/cut.parquet"
    assert "cannot be read" in refused["sentence"]
    assert ("Used", "rows used 30 of 60; left out: 30 cold (50 %)") in report_lines(report)
    text = campaign.report_file.read_text()
    assert "- **Files**: 3: 2 done, 1 refused\n" in text
    assert "- **Warning**: in 2 of 2: 15 rows are warm.\n" in text

    put(folder, "c.parquet")
    again = Campaign(folder, "probe.events", parameters={"fault": "warn"})
    assert (again.estimate.done, again.estimate.refused, again.estimate.left, again.estimate.runs) == (2, 1, 1, 2)
    assert 0 < again.estimate.seconds < LONG
    size = sum(path.stat().st_size for run in phidias_lab.runs() for path in run.folder.rglob("*") if path.is_file())
    assert again.estimate.written == pytest.approx(size / 2, rel=0.2)
    assert "to write where" in str(again.estimate)
    put(folder, "cut.parquet")  # mended, it is another file
    with Campaign(folder, "probe.events", parameters={"fault": "warn"}) as last:
        last.run()
    assert last.estimate.left == 2
    assert set(states(last).values()) == {"done"}
    assert len(phidias_lab.runs()) == 4


def test_what_was_refused_is_tried_again_when_that_is_asked_for(folder, tmp_path):
    put(folder, "a.parquet")
    how = {"parameters": {"fault": "raise"}}
    for retry, many in ((False, 1), (True, 2)):
        campaign = phidias_lab.campaign(folder, "probe.events", retry=retry, **how).wait(LONG)
        assert states(campaign) == {"a.parquet": "refused"}
        assert "divides by zero" in campaign.table()["sentence"][0]
        assert len(phidias_lab.runs()) == many


def test_where_the_first_files_are_refused_for_one_reason_the_others_are_not_tried(folder):
    put(folder, *(f"{number}.parquet" for number in range(4)))
    how = {"parameters": {"fault": "raise"}, "at_once": 1}
    with pytest.raises(
        RunFailedError, match=r"The first 3 files were refused for one reason: ZeroDivisionError .* --retry"
    ):
        phidias_lab.campaign(folder, "probe.events", **how).wait(LONG)
    assert len(phidias_lab.runs()) == 3
    assert Campaign(folder, "probe.events", **how).estimate.left == 1
    after = phidias_lab.campaign(folder, "probe.events", **how).wait(LONG)
    assert set(states(after).values()) == {"refused"}


def test_damaged_files_are_no_reason_to_stop(folder):
    for name in "abc":
        (folder / f"{name}.parquet").write_text("no table")
    put(folder, "d.parquet")
    campaign = phidias_lab.campaign(folder, "probe.events").wait(LONG)
    assert list(campaign.table()["state"]) == ["refused"] * 3 + ["done"]


def test_a_file_that_holds_nothing_of_what_was_asked_for_is_passed_over(folder):
    put(folder, "a.parquet")
    campaign = phidias_lab.campaign(folder, "probe.events", parameters={"fault": "outside"}, retry=True).wait(LONG)
    assert states(campaign) == {"a.parquet": "skipped"}
    assert campaign.counts["refused"] == 0
    assert "no row in the region" in campaign.report_file.read_text()
    assert Campaign(folder, "probe.events", parameters={"fault": "outside"}, retry=True).estimate.left == 0


def test_a_watch_and_a_campaign_know_of_each_other(folder):
    put(folder, "a.parquet")
    phidias_lab.watch(folder, "probe.events", once=True, settle=0.1, every=0.05)
    put(folder, "b.parquet")
    campaign = phidias_lab.campaign(folder, "probe.events").wait(LONG)
    assert (campaign.estimate.done, campaign.estimate.left) == (1, 1)
    phidias_lab.watch(folder, "probe.events", once=True, settle=0.1, every=0.05)
    assert len(phidias_lab.runs()) == 2


def test_one_that_is_cancelled_stops_its_runs_and_the_next_resumes_them(folder, tmp_path):
    put(folder, "a.parquet", "b.parquet")
    how = {"parameters": {"gate": str(tmp_path / "gate")}, "at_once": 1}
    campaign = phidias_lab.campaign(folder, "probe.events", **how)
    until(lambda: phidias_lab.runs() and phidias_lab.runs()[0].record.get("worker"))
    assert campaign.going_on
    assert "1 running" in repr(campaign)
    campaign.cancel()
    (run,) = phidias_lab.runs()
    assert run.status == runs.CANCELLED
    assert campaign.report()["files"]["left"] == 2
    assert not campaign.going_on
    (tmp_path / "gate").touch()
    after = phidias_lab.campaign(folder, "probe.events", **how).wait(LONG)
    assert states(after) == {"a.parquet": "done", "b.parquet": "done"}
    assert run.id in set(after.table()["run"])
    assert len(phidias_lab.runs()) == 2


def test_files_are_chosen_by_the_times_in_their_names_and_none_is_opened(folder, monkeypatch):
    def name(product, day):
        return f"S5P_TEST_L1B_{product}_201805{day}T230000_201805{int(day) + 1:02}T003000_00001_01_000000_20180601T000000.nc"

    days = ("09", "02", "10")
    for file in (*(name("RA_BD7", day) for day in days), name("RA_BD8", "02"), name("IR_SIR", "02")):
        (folder / file).write_text("not to be opened")
    monkeypatch.setattr(catalog, "look", lambda reference: pytest.fail(f"{reference} was opened"))

    def chosen(**how):
        with Campaign(folder, "probe.cube", **how) as campaign:
            return list(campaign.files)

    assert len(chosen()) == 4  # calibrations are no files of their own
    assert len(chosen(pattern="*IR*")) == 1
    seven = {"pattern": "*_RA_BD7_*"}
    with Campaign(folder, "probe.cube", **seven) as campaign:
        assert [Path(a.address).name for a in campaign.files.values()] == [name("RA_BD7", d) for d in sorted(days)]
    for period, many in (
        ("2018-05-03/2018-05-03", 1),  # which ends after midnight
        ("2018-05-03T00:31/2018-05-08", 0),
        (["2018-05-09", "2018-05-31"], 2),
    ):
        if many:
            assert len(chosen(period=period, **seven)) == many
        else:
            with pytest.raises(InputError, match=r"None of the 3 files .* from 2018-05-02T23:00 to 2018-05-11T00:30"):
                chosen(period=period, **seven)


def test_where_names_do_not_tell_the_files_own_times_do(folder):
    put(folder, "a.parquet")
    scenes.rows().assign(time=lambda rows: rows["time"].add(scenes.pd.Timedelta("400D"))).to_parquet(
        folder / "b.parquet"
    )
    (folder / "cut.parquet").write_text("no table")
    with Campaign(folder, "probe.events", period="2011-01-01/2012-01-01") as campaign:
        assert sorted(states(campaign)) == ["b.parquet", "cut.parquet"]  # it is refused by name when its turn comes
    scenes.rows().drop(columns="time").to_parquet(folder / "c.parquet")
    with pytest.raises(ParameterError, match=r"When .*c\.parquet was measured stands neither in its name"):
        Campaign(folder, "probe.events", period="2011-01-01/2012-01-01")


def test_where_there_is_nothing_to_do_it_says_so(folder):
    with pytest.raises(InputError, match=r"There is no file called '\*\.nc' in "):
        Campaign(folder, "probe.events", pattern="*.nc")


def test_each_file_is_a_task_of_a_cluster_and_one_that_dies_is_done_again(folder, tmp_path):
    put(folder, "a.parquet", "b.parquet")
    gate, marks = tmp_path / "gate", tmp_path / "marks"
    marks.mkdir()
    how = {"parameters": {"gate": str(gate), "marks": str(marks)}}
    with phidias_lab.cluster("local", workers=2, cores=1, memory="1GiB") as cluster:
        cluster.wait_for_workers()
        campaign = phidias_lab.campaign(folder, "probe.events", on=cluster, **how)
        assert campaign.estimate.at_once == 2
        until(lambda: len([run for run in phidias_lab.runs() if run.record.get("worker")]) == 2)
        first, second = phidias_lab.runs()
        assert {run.launched["where"]["kind"] for run in (first, second)} == {"task"}
        os.kill(first.record["worker"]["pid"], signal.SIGKILL)
        until(lambda: len([s for s in first.record["states"] if s["state"] == runs.RUNNING]) == 2)
        os.kill(next(iter(cluster.client.run(os.getpid).values())), signal.SIGKILL)  # a worker, not its run
        until(lambda: cluster.workers[-1].state == "lost")
        gate.touch()
        campaign.wait(LONG)
        assert states(campaign) == {"a.parquet": "done", "b.parquet": "done"}
        assert len(list(marks.iterdir())) == 2
        assert len(phidias_lab.runs()) == 2
        put(folder, "c.parquet")
        gate.unlink()
        campaign = phidias_lab.campaign(folder, "probe.events", on=cluster, **how)
        until(lambda: len(phidias_lab.runs()) == 3 and phidias_lab.runs()[0].record.get("worker"))
    with pytest.raises(RunFailedError, match="What is finished is kept"):
        campaign.wait(LONG)
    gate.touch()
    assert set(states(phidias_lab.campaign(folder, "probe.events", **how).wait(LONG)).values()) == {"done"}
    assert len(phidias_lab.runs()) == 3


def test_one_killed_at_any_moment_runs_each_file_once(folder, tmp_path):
    marks, gate, chance, count = tmp_path / "marks", tmp_path / "gate", random.Random(3), 3
    marks.mkdir()
    put(folder, *(f"{number}.parquet" for number in range(count)))
    words = ["campaign", folder, "--chain", "probe.events", "--marks", marks, "--gate", gate, "--json", "--quiet"]

    def phidias():
        return subprocess.Popen([sys.executable, "-m", "phidias_lab", *map(str, words)], stdout=subprocess.PIPE)

    def killed(process) -> bool:
        process.kill()
        return process.communicate() is not None and process.returncode == -signal.SIGKILL

    first = phidias()
    until(lambda: len(phidias_lab.runs()) == 2)  # as many as go on at one time
    assert killed(first)
    second = phidias()  # which takes them over, and may begin nothing beside them
    until(lambda: len({entry["owner"] for entry in entries()} & living()) == 1)
    assert len(phidias_lab.runs()) == 2
    assert killed(second)
    gate.touch()
    for _ in range(2):
        third = phidias()
        time.sleep(chance.uniform(1.0, 4.0))
        killed(third)
    last = phidias()
    out, _ = last.communicate(timeout=LONG)
    assert last.returncode == 0
    assert json.loads(out)["files"] == {"total": count, "done": count, "refused": 0, "skipped": 0, "left": 0}
    assert {entry["state"] for entry in entries()} == {"done"}
    assert len({entry["run"] for entry in entries()}) == count == len(phidias_lab.runs())
    assert len(list(marks.iterdir())) == count  # none was done twice
    assert len(phidias_lab.events()) == 15 * count
