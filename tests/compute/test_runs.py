"""Run folders: found, listed, pruned, and never believed beyond what they say."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from phidias_lab import settings
from phidias_lab.compute import runs
from phidias_lab.compute.runs import Run
from phidias_lab.contract.order import Order
from phidias_lab.errors import ParameterError, RunFailedError


@pytest.fixture
def made():
    """Make a run folder in a state, as a worker would have left it."""

    def make(state: str | None = runs.DONE, chain: str = "probe.slow", days_ago: float = 0.0) -> Run:
        order = Order(chain, "1.0")
        run = runs.create(order, order)
        moment = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat(timespec="milliseconds")
        launched = runs.read_json(run.folder / "launched.json")
        runs.write_json(run.folder / "launched.json", {**launched, "asked": moment})
        if state is not None:
            run.add_state(state)
        return run

    return make


def process(seconds=60):
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])


def who(pid: int) -> dict:
    return {"pid": pid, "born": psutil.Process(pid).create_time(), "host": socket.gethostname()}


def test_runs_are_listed_newest_first_also_within_one_second(made):
    asked = [made(chain=chain) for chain in ("z.z", "a.a", "m.m", "b.b")]
    assert runs.runs() == asked[::-1]
    assert runs.find("last") == asked[-1]


def test_a_run_is_found_by_its_id_its_beginning_its_ending_and_its_folder(made):
    first, second = made(), made()
    assert runs.find(first.id) == first
    assert runs.find(first.id[:18]) == first
    assert runs.find(second.id[-6:]) == second
    assert runs.find(str(second.folder)) == second
    with pytest.raises(ParameterError, match="fits 2 runs"):
        runs.find(first.id[:8])
    with pytest.raises(ParameterError, match=f"no run {'x' + first.id!r}. Did you mean"):
        runs.find("x" + first.id)
    with pytest.raises(ParameterError, match="There is no run ''"):
        runs.find("")


def test_without_runs_there_is_no_last_one():
    assert runs.runs() == []
    with pytest.raises(ParameterError, match="There is no run yet"):
        runs.find("last")


def test_the_last_run_is_the_newest_of_all_or_the_newest_that_is_done(made):
    made(days_ago=3)
    done, failed = made(days_ago=2), made(runs.FAILED)
    assert (runs.last(), runs.last(done=True)) == (failed, done)
    with pytest.raises(ParameterError, match="Did you mean 'last'"):
        runs.find("lsat")
    for run in runs.runs()[1:]:
        run.remove()
    with pytest.raises(ParameterError, match=f"No run is done yet; the newest, {failed.id}, is failed"):
        runs.last(done=True)


def test_pruning_removes_old_runs_beyond_those_kept_and_tells_their_sizes(made):
    old, older, new = made(days_ago=5), made(runs.FAILED, days_ago=9), made()
    (old.folder / "big").write_bytes(b"x" * 5000)
    dry = runs.prune(older_than=timedelta(days=3), dry_run=True)
    assert [run_id for run_id, _ in dry] == [older.id, old.id]
    assert dict(dry)[old.id] == old.size_bytes > 5000
    assert len(runs.runs()) == 3
    assert runs.prune(older_than=timedelta(days=3), keep=2) == [dry[1]]
    assert set(runs.runs()) == {older, new}
    assert [i for i, _ in runs.prune(states=[runs.FAILED])] == [older.id]
    assert [i for i, _ in runs.prune(keep=0)] == [new.id]
    assert list(settings.runs_root().iterdir()) == []


def test_pruning_never_removes_what_waits_or_runs(made):
    waiting, running = made(None), made(runs.RUNNING)
    living = process()
    try:
        running.add_state(runs.RUNNING, worker=who(living.pid))
        assert (waiting.status, running.status) == (runs.WAITING, runs.RUNNING)
        assert runs.prune() == []
        with pytest.raises(ParameterError, match="cannot be pruned"):
            runs.prune(states=[runs.RUNNING])
        for run in (waiting, running):
            with pytest.raises(ParameterError, match="Cancel it before"):
                run.remove()
    finally:
        living.kill()
        living.wait()
    assert running.status == runs.INTERRUPTED
    assert [i for i, _ in runs.prune()] == [running.id]


def test_a_process_that_took_over_the_number_of_a_dead_worker_is_not_the_worker(made):
    run = made(None)
    run.add_state(runs.RUNNING, worker={**who(os.getpid()), "born": who(os.getpid())["born"] - 100})
    assert run.status == runs.INTERRUPTED


def test_a_worker_that_is_dead_and_not_yet_reaped_counts_as_dead(made):
    run, dead = made(None), process(0)
    run.add_state(runs.RUNNING, worker=who(dead.pid))
    end = time.monotonic() + 60
    while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert run.status == runs.INTERRUPTED
    dead.wait()


def test_a_worker_on_another_host_lives_as_long_as_its_heartbeat(made):
    run = made(None)
    run.add_state(runs.RUNNING, worker={"pid": 1, "born": 0, "host": "elsewhere"})
    assert run.status == runs.INTERRUPTED
    (run.folder / "heartbeat").touch()
    assert run.status == runs.RUNNING
    with pytest.raises(RunFailedError, match="runs on the host elsewhere"):
        run.cancel(patience=0.05)
    past = time.time() - 1000
    os.utime(run.folder / "heartbeat", (past, past))
    assert run.status == runs.INTERRUPTED


def test_a_run_waits_while_its_starter_lives_and_is_interrupted_when_that_died_long_ago(made):
    run = made(None, days_ago=1)
    assert run.status == runs.WAITING  # this process may be storing a large input
    dead = process(0)
    starter = who(dead.pid)
    dead.wait()
    launched = runs.read_json(run.folder / "launched.json")
    runs.write_json(run.folder / "launched.json", {**launched, "starter": starter})
    assert run.status == runs.INTERRUPTED


def test_a_run_that_was_never_launched_can_be_cancelled(made):
    run = made(None)
    assert run.cancel(patience=0.05) == runs.CANCELLED


def test_a_worker_that_does_not_hear_is_killed_with_all_it_started(made):
    run = made(None)
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    deaf = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(deaf.stdout.readline()))
    run.add_state(runs.RUNNING, worker=who(deaf.pid))
    assert run.cancel(patience=0.1) == runs.CANCELLED
    assert deaf.wait(60) < 0
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    deaf.stdout.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"done"', '{"states": null}', "\xff"])
def test_a_damaged_record_is_no_reason_to_fail(made, text):
    run = made(runs.DONE)
    (run.folder / "record.json").write_bytes(text.encode("latin-1"))
    assert run.status in (runs.WAITING, runs.INTERRUPTED)
    assert text == '{"states": null}' or "is damaged: record.json cannot be read" in run.error
    assert run.progress.fraction == 0.0
    assert run in runs.runs()
    assert "probe.slow" in repr(run)


_TIME = "2010-01-01T00:00:00Z"
_DAMAGES = [
    ("order.json", "{"),
    ("order.json", "[]"),
    ("record.json", '{"states": "x"}'),
    ("record.json", '{"states": [{}]}'),
    ("record.json", '{"states": ["done"]}'),
    ("record.json", '{"states": [{"state": "flying", "time": "TIME"}]}'),
    ("record.json", '{"states": [{"state": "running", "time": "noon"}]}'),
    *(
        ("record.json", '{"states": [{"state": "running", "time": "TIME"}], ' + entry + "}")
        for entry in (
            '"worker": "x"',
            '"worker": {"pid": "abc"}',
            '"worker": {"pid": -1}',
            '"worker": {"pid": 1e400}',
            '"worker": {"pid": 1, "born": "x"}',
            '"measures": "x"',
            '"measures": {"wall_seconds": "x"}',
            '"error": "boom"',
            '"error": {"sentence": 5}',
            '"facts": []',
            '"checksums": "x"',
        )
    ),
    ("launched.json", '{"asked": "yesterday"}'),
    ("launched.json", '{"asked": 5, "starter": "x"}'),
    ("launched.json", '{"asked": "TIME", "pid": -1, "host": "HOST"}'),
    ("launched.json", '{"asked": "TIME", "pid": "abc", "host": "HOST"}'),
    ("launched.json", "{"),
    ("progress.json", "{"),
]


@pytest.mark.parametrize(("file", "text"), _DAMAGES)
def test_one_damaged_folder_hides_no_other_run_and_can_be_removed(made, file, text):
    sound, damaged = made(days_ago=2), made(runs.RUNNING, days_ago=1)
    (damaged.folder / file).write_text(text.replace("TIME", _TIME).replace("HOST", socket.gethostname()))
    assert runs.runs() == [damaged, sound]
    assert runs.find(damaged.id[-6:]) == damaged
    for run in runs.runs():
        assert run.created <= datetime.now(UTC)
        assert run.size_bytes > 0
        assert isinstance(run.order.chain, str)
        assert str(run.progress)
        assert run.record.get("measures", {}) == {}
    assert damaged.status == runs.INTERRUPTED
    assert f"The folder of the run {damaged.id} is damaged: " in damaged.error
    assert file in damaged.error
    assert (sound.status, sound.error) == (runs.DONE, None)
    assert damaged.cancel(patience=0.05) == runs.INTERRUPTED
    assert [i for i, _ in runs.prune(older_than=timedelta(), dry_run=True)] == [damaged.id, sound.id]
    assert [i for i, _ in runs.prune(keep=1, states=[runs.INTERRUPTED, runs.DONE])] == [sound.id]
    assert damaged.remove() > 0
    assert runs.runs() == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("order.json", "{"),
        ("launched.json", "{"),
        ("launched.json", '{"asked": 5, "starter": "x"}'),
        ("launched.json", '{"asked": "TIME", "pid": -1, "host": "HOST"}'),
    ],
)
def test_a_damaged_run_that_was_just_asked_for_is_interrupted_at_once(made, file, text):
    run = made(None)
    assert run.status == runs.WAITING
    (run.folder / file).write_text(text.replace("TIME", runs.now()).replace("HOST", socket.gethostname()))
    assert run.status == runs.INTERRUPTED
    assert f"damaged: {file}" in run.error or f"in {file}" in run.error


@pytest.mark.parametrize(
    "progress",
    [
        {"fraction": "x"},
        {"fraction": 7, "message": 5},
        {"fraction": None},
        {"fraction": 0.5, "pieces_since": "x", "pieces_from": 0.1},
        {"fraction": 0.5, "pieces_since": 5, "pieces_from": []},
    ],
)
def test_a_damaged_progress_is_shown_as_a_fraction_all_the_same(made, progress):
    run, living = made(None), process()
    try:
        run.add_state(runs.RUNNING, worker=who(living.pid))
        runs.write_json(run.folder / "progress.json", progress)
        assert 0.0 <= run.progress.fraction <= 1.0
        assert run.progress.seconds_left is None
        assert str(run.progress)
    finally:
        living.kill()
        living.wait()


def test_a_run_whose_order_is_damaged_is_not_resumed(made):
    run = made(runs.FAILED)
    (run.folder / "order.json").write_text("{")
    with pytest.raises(ParameterError, match="is not JSON"):
        run.resume()
    assert run.status == runs.FAILED


def test_a_run_folder_is_for_its_owner_alone(made):
    assert made().folder.stat().st_mode & 0o777 == 0o700


def test_folders_that_are_no_runs_are_not_listed(made):
    run = made()
    (settings.runs_root() / "notes").mkdir()
    (settings.runs_root() / "file.txt").write_text("x")
    assert runs.runs() == [run]


def test_the_seconds_left_follow_from_the_pieces_that_are_done(made):
    run, living = made(None), process()
    try:
        run.add_state(runs.RUNNING, worker=who(living.pid))
        runs.write_json(
            run.folder / "progress.json",
            {"fraction": 0.3, "message": "piece 1 of 4", "pieces_since": time.time() - 10, "pieces_from": 0.1},
        )
        assert run.progress.seconds_left == pytest.approx(35, abs=2)
        assert str(run.progress).startswith("30% piece 1 of 4, about 0:00:3")
    finally:
        living.kill()
        living.wait()
    assert run.progress.seconds_left is None


def test_waiting_ends_when_the_time_is_over(made):
    run = made(None)
    assert run.wait(timeout=0.05) == runs.WAITING


def test_the_size_of_a_run_does_not_follow_links(made, tmp_path):
    run = made()
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (run.folder / "link").symlink_to(tmp_path / "large")
    assert run.size_bytes < 10_000
    assert run.remove() < 10_000
    assert (tmp_path / "large").exists()
    assert not run.folder.exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="nan"):
        runs.write_json(path, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        runs.write_text(path, "\ud800")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_copied_folder_is_a_run_of_its_own(made, tmp_path):
    run = made(runs.FAILED)
    shutil.copytree(run.folder, tmp_path / run.id)
    assert runs.find(str(tmp_path / run.id)).status == runs.FAILED
    assert runs.runs(tmp_path) == [Run(tmp_path / run.id)]
