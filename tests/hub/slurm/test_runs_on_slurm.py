"""Runs as jobs of a real Slurm."""

from __future__ import annotations

import pytest

import phidias_lab
from phidias_lab.compute import site, slurm

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_run_in_the_queue_gives_the_same_values_and_records_where_it_was(here, unended, eventually):
    plain = phidias_lab.run("probe.slow", pieces=4, seconds=0.0)
    there = phidias_lab.run("probe.slow", on="slurm", pieces=4, seconds=0.0)
    crew = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, pieces=4, seconds=0.2)
    assert plain.wait(120) == "done", plain.log
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


def test_runs_whose_jobs_are_gone_say_why_and_go_on_with_their_finished_pieces(here, tmp_path, as_user, eventually):
    marks = tmp_path / "marks"
    marks.mkdir()
    late = phidias_lab.run("probe.slow", on="slurm", pieces=100, seconds=1.0)
    killed = phidias_lab.run("probe.slow", on="slurm", pieces=6, seconds=0.7, marks=str(marks))
    eventually(lambda: late.progress.fraction > 0)
    first = late.launched["job"]
    as_user("root", "scontrol", "update", f"JobId={first}", "EndTime=now+2")  # a wall time is a minute at least
    eventually(lambda: killed.progress.fraction > 0.3)
    second = killed.launched["job"]
    as_user("root", "scancel", "--signal=KILL", second)
    eventually(lambda: killed.status == "interrupted")
    assert f"its job {second} on slurm is gone: it " in killed.error
    assert "resume" in killed.error
    killed.resume()
    assert killed.launched["where"]["place"] == "slurm"
    assert killed.wait(120) == "done", killed.log
    assert killed.record["where"]["job"] == killed.launched["job"] != second
    assert sum(len(p.read_bytes()) for p in marks.iterdir()) <= 7  # at most the piece that was under way twice
    eventually(lambda: late.status == "interrupted", 90)  # Slurm looks for jobs over their time every half minute
    assert f"its job {first} on slurm is gone: its wall time was over" in late.error
    assert "resume" in late.error


def test_a_cancelled_run_takes_its_workers_with_it(here, unended, eventually):
    run = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, pieces=50, seconds=1.0)
    eventually(lambda: run.progress.message.startswith("piece") and "piece 0" not in run.progress.message)
    assert len(unended()) == 3
    assert run.cancel() == "cancelled"
    eventually(lambda: not unended())
    assert slurm.my_jobs(site.read(here), fresher_than=0) is not None
