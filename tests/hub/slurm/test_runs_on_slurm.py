"""Runs as jobs of a real Slurm."""

from __future__ import annotations

import pytest

import phidias_lab
from phidias_lab.compute import site, slurm

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_run_in_the_queue_gives_the_same_values_and_records_where_it_was(here, unended, eventually):
    plain = phidias_lab.run("probe.slow", pieces=4, seconds=0.0)
    assert plain.wait(120) == "done"
    there = phidias_lab.run("probe.slow", on="slurm", pieces=4, seconds=0.0)
    crew = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, pieces=4, seconds=0.2)
    assert there.wait(120) == "done", there.log
    assert crew.wait(120) == "done", crew.log
    assert plain.product.checksums == there.product.checksums == crew.product.checksums
    assert (there.record["where"]["place"], there.record["where"]["node"]) == ("slurm", "cpu1")
    assert there.record["where"]["job"].isdigit()
    assert sum(len(d["gpus"]) for d in crew.record["where"]["devices"]) == 2
    eventually(lambda: not unended())


def test_a_waiting_run_says_why_and_can_be_cancelled(here, unended, eventually):
    with phidias_lab.cluster("slurm-gpu", workers=2, cores=8) as cluster:
        cluster.wait_for_workers(timeout=90)
        run = phidias_lab.run("probe.slow", on="slurm-gpu", pieces=2)
        eventually(
            lambda: (
                "waits in the queue of slurm-gpu: " in str(run.progress) and "Slurm has not" not in str(run.progress)
            )
        )
        assert run.status == "waiting"
        assert phidias_lab.runs()[0] == run
        assert run.cancel() == "cancelled"
        assert run.status == "cancelled"
        eventually(lambda: len(unended()) == 2)
    eventually(lambda: not unended())


def test_a_run_whose_job_is_gone_says_why_and_goes_on_with_its_finished_pieces(here, tmp_path, as_user, eventually):
    marks = tmp_path / "marks"
    marks.mkdir()
    run = phidias_lab.run("probe.slow", on="slurm", pieces=6, seconds=1.0, marks=str(marks))
    eventually(lambda: run.progress.fraction > 0.3)
    as_user("root", "scancel", "--signal=KILL", run.launched["job"])
    eventually(lambda: run.status == "interrupted")
    assert f"its job {run.launched['job']} on slurm is gone: it " in run.error
    assert "resume" in run.error
    run.resume()
    assert run.launched["where"]["place"] == "slurm"
    assert run.wait(120) == "done", run.log
    assert run.record["where"]["job"] == run.launched["job"]
    assert sum(len(p.read_bytes()) for p in marks.iterdir()) <= 7  # at most the piece that was under way twice


def test_a_cancelled_run_takes_its_workers_with_it(here, unended, eventually):
    run = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, pieces=50, seconds=1.0)
    eventually(lambda: run.progress.fraction > 0.11)
    assert len(unended()) == 3
    assert run.cancel() == "cancelled"
    eventually(lambda: not unended())
    assert slurm.my_jobs(site.read(here), fresher_than=0) is not None


def test_a_run_whose_wall_time_is_over_is_interrupted_and_says_so(here, as_user, eventually):
    run = phidias_lab.run("probe.slow", on="slurm", pieces=100, seconds=1.0)
    eventually(lambda: run.status == "running" and run.progress.fraction > 0)
    job = run.launched["job"]
    as_user("root", "scontrol", "update", f"JobId={job}", "EndTime=now")  # a wall time is a minute at least
    eventually(lambda: run.status == "interrupted", 90)
    assert f"its job {job} on slurm is gone: its wall time was over" in run.error
    assert "resume" in run.error
