"""An order in, a product out: runs in real worker processes, also those that are killed, cancelled or out of disk."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest
import xarray as xr

import phidias_lab
from phidias_lab import flow, settings
from phidias_lab.compute import runs
from phidias_lab.compute.runs import Run
from phidias_lab.contract import order as orders
from phidias_lab.errors import (
    InputError,
    ParameterError,
    PhidiasError,
    ProductError,
    RunCancelledError,
    RunFailedError,
    UnknownNameError,
)

LONG = 120  # seconds: nothing here takes that long, but a machine may be busy


def until(condition, seconds=LONG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def marks(folder: Path) -> int:
    """How often a piece was computed."""
    return sum(p.stat().st_size for p in folder.glob("piece-*"))


def worker(run: Run) -> int:
    until(lambda: run.record.get("worker") or runs.read_json(run.folder / "launched.json").get("pid"))
    return (run.record.get("worker") or runs.read_json(run.folder / "launched.json"))["pid"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run that was done, its progress while it ran, and the marks of its pieces."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIDIAS_RUNS", str(place / "runs"))
        (place / "marks").mkdir()
        run = phidias_lab.run("probe.slow", title="a slow one", pieces=5, seconds=0.15, marks=str(place / "marks"))
        at_once = run.status
        seen = []
        while run.status not in runs.ENDED:
            seen.append(run.progress.fraction)
            time.sleep(0.03)
        run.wait(LONG)  # its state comes a moment before the end of its process
    return run, at_once, seen, place / "marks"


def test_a_run_returns_at_once_and_ends_with_a_product(finished):
    run, at_once, _, computed = finished
    assert at_once in (runs.WAITING, runs.RUNNING)
    assert run.status == runs.DONE, run.log
    assert run.result().sizes == {"time": 5, "latitude": 2, "longitude": 4}
    assert marks(computed) == 5
    assert not (run.folder / "work").exists()
    assert not (run.folder / "spare").exists()
    assert not list(run.folder.glob("product.partial*"))


def test_progress_grows_and_ends_at_one(finished):
    run, _, seen, _ = finished
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert all(0 <= f <= 1 for f in seen)
    assert (run.progress.fraction, run.progress.message) == (1.0, "done")


def test_states_have_times_that_do_not_go_back(finished):
    run = finished[0]
    states = run.record["states"]
    assert [s["state"] for s in states] == [runs.WAITING, runs.RUNNING, runs.DONE]
    times = [run.created, *(datetime.fromisoformat(s["time"]) for s in states)]
    assert times == sorted(times)


def test_the_record_says_what_a_number_may_depend_on(finished):
    run = finished[0]
    facts, measures = run.record["facts"], run.record["measures"]
    assert {"python", "numpy", "xarray", "dask", "phidias-lab"} <= set(facts["versions"])
    assert len(facts["lock"]) == 64
    checkout = settings.checkout_root()
    if checkout is not None:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
        assert facts["git"].startswith(head.stdout.strip())
    assert facts["host"] == os.uname().nodename
    assert facts["threads_per_call"] == 1
    assert measures["wall_seconds"] >= 0.7
    assert measures["cpu_seconds"] > 0
    assert 2**24 < measures["peak_memory_bytes"] < 2**34
    assert run.record["order_sha256"] == run.order.digest()
    assert run.record["checksums"] == run.product.checksums
    assert run.product.verify() == []


def test_the_order_of_the_product_holds_every_parameter(finished):
    run = finished[0]
    assert run.product.order == run.order
    assert set(run.order.parameters) == {"pieces", "seconds", "cells", "marks", "gate", "free"}
    assert run.order.title == "a slow one"


def test_a_run_folder_copied_elsewhere_still_opens(finished, tmp_path, monkeypatch):
    run = finished[0]
    shutil.copytree(run.folder, tmp_path / "elsewhere" / run.id)
    copy = Run(tmp_path / "elsewhere" / run.id)
    assert copy.status == runs.DONE
    assert copy.result().equals(run.result())
    assert copy.product.verify() == []
    monkeypatch.setenv("PHIDIAS_RUNS", str(tmp_path / "elsewhere"))
    assert runs.find("last") == copy
    assert phidias_lab.runs()[0].record == run.record


def test_a_finished_worker_does_not_stay_behind_as_a_zombie(finished):
    pid = finished[0].record["worker"]["pid"]
    assert pid not in [child.pid for child in psutil.Process().children()]


def test_a_run_that_is_done_is_neither_resumed_nor_cancelled(finished):
    run = finished[0]
    with pytest.raises(ParameterError, match="nothing to resume"):
        run.resume()
    assert run.cancel() == runs.DONE


def test_a_cancelled_run_leaves_no_product_and_goes_on_with_what_it_had(tmp_path):
    output = tmp_path / "out.nc"
    gate = tmp_path / "gate"
    run = phidias_lab.run("probe.slow", pieces=8, free=3, seconds=0, gate=str(gate), marks=str(tmp_path), output=output)
    pid = worker(run)
    until(lambda: marks(tmp_path) >= 2 and list((run.folder / "work").glob("piece-*")))
    with pytest.raises(ProductError, match=f"Another run \\({run.id}\\) is writing {output}"):
        phidias_lab.run("probe.slow", output=output)
    with pytest.raises(ParameterError, match="needs no resuming"):
        run.resume()
    with pytest.raises(ParameterError, match="Cancel it before you remove it"):
        run.remove()
    assert runs.prune() == []
    with pytest.raises(ProductError, match="is running; its product appears when it is done"):
        run.result(timeout=0)

    assert run.cancel() == runs.CANCELLED
    assert not psutil.pid_exists(pid)
    assert run.status == runs.CANCELLED
    assert sorted(p.name for p in tmp_path.glob("*out*")) == []
    assert sorted(p.name for p in tmp_path.glob(".*")) == []
    assert not (run.folder / "product").exists()
    assert not (run.folder / "spare").exists()
    with pytest.raises(RunCancelledError, match="was cancelled"):
        run.result()
    known = len(list((run.folder / "work").glob("piece-*.npz")))
    before = marks(tmp_path)

    gate.touch()
    run.resume()
    assert run.wait(LONG) == runs.DONE, run.log
    assert known >= 1
    assert marks(tmp_path) - before == 8 - known
    assert [s["state"] for s in run.record["states"]] == [
        "waiting",
        "running",
        "cancelled",
        "waiting",
        "running",
        "done",
    ]
    assert xr.open_dataset(output).sizes["time"] == 8
    assert not list(tmp_path.glob(".*"))


def test_a_killed_run_is_interrupted_and_gives_the_same_numbers_when_it_goes_on(tmp_path):
    (tmp_path / "a").mkdir()
    killed = phidias_lab.run("probe.killed", marks=str(tmp_path / "a"))
    unbroken = phidias_lab.run("probe.killed", marks="")
    assert killed.wait(LONG) == runs.INTERRUPTED
    assert killed.error is None
    with pytest.raises(RunFailedError, match="phidias runs resume"):
        killed.result()
    assert not (killed.folder / "product").exists()
    before = marks(tmp_path / "a")
    killed.resume()
    assert killed.wait(LONG) == runs.DONE, killed.log
    assert unbroken.wait(LONG) == runs.DONE, unbroken.log
    assert marks(tmp_path / "a") - before < 6
    checksums = killed.product.checksums
    assert checksums == unbroken.product.checksums
    assert len(set(checksums)) > 1
    assert killed.record["measures"]["wall_seconds"] > 0


def test_two_who_resume_a_run_at_once_start_one_worker(tmp_path):
    gate, start = tmp_path / "gate", tmp_path / "start"
    run = phidias_lab.run("probe.slow", pieces=3, free=0, seconds=0, gate=str(gate), marks=str(tmp_path))
    os.kill(worker(run), signal.SIGKILL)
    assert run.wait(LONG) == runs.INTERRUPTED
    before = marks(tmp_path)
    code = (
        "import os, sys, time; from phidias_lab.compute.runs import Run; from phidias_lab.errors import ParameterError\n"
        "run = Run(sys.argv[1]); print('ready', flush=True)\n"
        "while not os.path.exists(sys.argv[2]): pass\n"
        "try:\n    run.resume(); print('resumed', flush=True); run.wait()\n"
        "except ParameterError as error: print(error, flush=True)"
    )
    command = [sys.executable, "-c", code, str(run.folder), str(start)]
    askers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [asker.stdout.readline() for asker in askers] == ["ready\n"] * 3
    start.touch()
    said = sorted(asker.stdout.readline().strip() for asker in askers)  # all of them before the run can end
    gate.touch()
    for asker in askers:
        asker.communicate(timeout=LONG)
    assert said[2] == "resumed"
    assert all("needs no resuming" in sentence for sentence in said[:2])
    assert run.wait(LONG) == runs.DONE
    assert marks(tmp_path) - before <= 3
    assert [s["state"] for s in run.record["states"]][-3:] == ["waiting", "running", "done"]


def test_a_second_worker_leaves_at_once_and_touches_nothing(tmp_path):
    gate = tmp_path / "gate"
    run = phidias_lab.run("probe.slow", pieces=8, seconds=0, gate=str(gate), marks=str(tmp_path))
    until(lambda: marks(tmp_path) >= 1)
    before = run.record
    second = subprocess.run(
        [sys.executable, "-m", "phidias_lab.flow", str(run.folder)], capture_output=True, text=True, timeout=LONG
    )
    assert second.returncode == 1
    assert "another process works on this run" in second.stdout
    assert run.record["worker"] == before["worker"]
    gate.touch()
    assert run.wait(LONG) == runs.DONE, run.log
    assert [s["state"] for s in run.record["states"]] == ["waiting", "running", "done"]
    assert marks(tmp_path) == 8


def test_a_run_outlives_the_process_that_asked_for_it(tmp_path):
    gate = tmp_path / "gate"
    code = (
        f"import phidias_lab, os; r = phidias_lab.run('probe.slow', seconds=0, free=0, gate={str(gate)!r});"
        "print(r.id, flush=True); os._exit(9)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert asked.returncode == 9, asked.stderr
    run = runs.find(asked.stdout.strip())
    assert run.status in (runs.WAITING, runs.RUNNING)
    gate.touch()
    assert run.wait(LONG) == runs.DONE, run.log


def test_a_chain_that_fails_fails_with_a_sentence_and_the_log_tells_where(tmp_path):
    crash = phidias_lab.run("probe.crash", output=tmp_path / "a.nc")
    leave = phidias_lab.run("probe.crash", leave=True)
    hungry = phidias_lab.run("probe.hungry")
    assert [r.wait(LONG) for r in (crash, leave, hungry)] == [runs.FAILED] * 3
    assert crash.error.startswith("ZeroDivisionError in the chain: the probe divides by zero. The run's log")
    assert crash.id in crash.error
    assert 'raise ZeroDivisionError("the probe divides by zero")' in crash.log
    assert crash.record["error"]["exit_code"] == 5
    assert leave.error.startswith("SystemExit in the chain: enough")
    assert "ran out of memory (Unable to allocate 9 EiB)" in hungry.error
    for run in (crash, leave, hungry):
        assert not (run.folder / "product").exists()
        with pytest.raises(RunFailedError, match=f"{run.id} failed: "):
            run.result()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_recorded_and_leaves_no_half_product(small_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("PHIDIAS_RUNS", str(small_disk / "runs"))
    during = phidias_lab.run("probe.slow", pieces=40, seconds=0.0, cells=20_000)
    assert during.wait(LONG) == runs.FAILED, during.log
    assert "cannot be written: No space left on device; only" in during.error
    assert "phidias runs prune" in during.error
    assert during.record["error"]["exit_code"] == 4
    assert not (during.folder / "product").exists()
    assert not list(during.folder.glob("product.partial*"))
    assert [s["state"] for s in during.record["states"]] == ["waiting", "running", "failed"]

    # An output on the full disk: the run itself is elsewhere.
    for leftover in (during.folder / "work").iterdir():
        leftover.unlink()
    monkeypatch.setenv("PHIDIAS_RUNS", str(tmp_path / "runs"))
    (small_disk / "filler").write_bytes(os.urandom(3 * 2**20))
    output = phidias_lab.run("probe.slow", pieces=4, seconds=0.0, cells=20_000, output=small_disk / "out.nc")
    assert output.wait(LONG) == runs.FAILED, output.log
    assert "No space left on device" in output.error
    assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "runs"]
    assert not (output.folder / "product").exists()
    (small_disk / "filler").unlink()
    assert output.resume().wait(LONG) == runs.DONE, output.log
    assert xr.open_dataset(small_disk / "out.nc").sizes["longitude"] == 20_000

    # Nothing at all fits any more.
    monkeypatch.setenv("PHIDIAS_RUNS", str(small_disk / "other"))
    with open(small_disk / "filler", "wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        stream.writelines(itertools.repeat(b"x" * 4096))
    with pytest.raises(ProductError, match="cannot be written: No space left on device"):
        phidias_lab.run("probe.slow")


def test_a_runs_folder_that_cannot_be_is_said_before_anything_is_started(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file", tmp_path / "file" / "runs"):
        monkeypatch.setenv("PHIDIAS_RUNS", str(place))
        with pytest.raises(ProductError, match=f"{place} cannot be written: .*PHIDIAS_RUNS"):
            phidias_lab.run("probe.slow")


def test_inputs_in_memory_make_a_complete_order_that_runs_again_from_its_product(tmp_path):
    from phidias_probe import scenes

    given = scenes.cube()
    first = phidias_lab.run("probe.cube", inputs=given["inputs"], **given["parameters"])
    assert first.wait(LONG) == runs.DONE, first.log
    reference = first.order.inputs["field"]
    stored = first.folder / "inputs" / reference["stored"]
    assert set(reference) == {"stored", "sha256"}
    assert first.record["inputs"]["field"]["checksum"] == reference["sha256"]
    assert orders.load(first.folder / "asked.json").inputs == first.order.inputs
    assert first.result()["scaled"].attrs["units"] == "degree_Celsius"

    again = phidias_lab.run(first.product.folder / "order.json", output=tmp_path / "again.nc")
    assert again.wait(LONG) == runs.DONE, again.log
    assert again.product.checksums == first.product.checksums
    assert again.order.digest() == first.order.digest()

    stored.write_bytes(stored.read_bytes() + b"x")
    with pytest.raises(InputError, match="was in memory when the order was made"):
        phidias_lab.run(first.product.order)


def test_a_resumed_run_does_not_overwrite_what_appeared_at_its_output(tmp_path):
    output = tmp_path / "out.nc"
    run = phidias_lab.run("probe.killed", at=0, marks=str(tmp_path), output=output)
    assert run.wait(LONG) == runs.INTERRUPTED
    assert (tmp_path / ".out.nc.claimed").exists()
    output.write_text("somebody else's")
    assert run.resume().wait(LONG) == runs.FAILED
    assert f"{output} exists already" in run.error
    assert output.read_text() == "somebody else's"
    # The claim of a dead run is taken over, and what may be replaced is replaced.
    (tmp_path / ".out.nc.claimed").write_text(str(run.folder))
    replaced = phidias_lab.run("probe.random", output=output, overwrite=True)
    assert (tmp_path / ".out.nc.claimed").read_text() == str(replaced.folder)
    assert replaced.wait(LONG) == runs.DONE, replaced.log
    assert xr.open_dataset(output).sizes["time"] == 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("name", "folder"), [("out.nc", False), ("out.zarr", True), ("out", True), ("out", False)])
def test_what_appears_at_the_output_while_a_run_computes_is_not_replaced(tmp_path, name, folder):
    output, gate = tmp_path / name, tmp_path / "gate"
    run = phidias_lab.run("probe.slow", pieces=3, seconds=0, gate=str(gate), marks=str(tmp_path), output=output)
    until(lambda: marks(tmp_path) >= 1)
    if folder:
        output.mkdir()
    else:
        output.write_text("somebody else's")
    gate.touch()
    assert run.wait(LONG) == runs.FAILED
    assert f"{output} exists already" in run.error
    assert not (run.folder / "product").exists()
    assert list(output.iterdir()) == [] if folder else output.read_text() == "somebody else's"
    assert not list(tmp_path.glob(".*"))


def test_a_name_that_is_taken_at_the_last_moment_is_not_replaced(tmp_path):
    file, folder = tmp_path / "new.nc", tmp_path / "new.zarr"
    file.write_text("new")
    folder.mkdir()
    (folder / "zarr.json").write_text("{}")
    (tmp_path / "taken.nc").write_text("somebody else's")
    (tmp_path / "taken.zarr").mkdir()
    for new, taken in ((file, tmp_path / "taken.nc"), (folder, tmp_path / "taken.zarr")):
        with pytest.raises(ProductError, match=f"{taken} exists already"):
            flow._put(new, taken)
        flow._put(new, tmp_path / f"free{new.suffix}")
        assert not new.exists()
    assert (tmp_path / "taken.nc").read_text() == "somebody else's"
    assert list((tmp_path / "taken.zarr").iterdir()) == []
    assert (tmp_path / "free.nc").read_text() == "new"
    assert (tmp_path / "free.zarr" / "zarr.json").read_text() == "{}"


def test_a_folder_that_appears_while_a_run_computes_is_not_replaced_even_with_leave_to_overwrite(tmp_path):
    output, gate = tmp_path / "out", tmp_path / "gate"
    asked = {"pieces": 3, "seconds": 0, "gate": str(gate), "marks": str(tmp_path)}
    run = phidias_lab.run("probe.slow", **asked, output=output, overwrite=True)
    until(lambda: marks(tmp_path) >= 1)
    output.mkdir()
    (output / "chapter.txt").write_text("years of work")
    gate.touch()
    assert run.wait(LONG) == runs.FAILED
    assert f"{output} is a folder that is no product" in run.error
    assert (output / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("changed", [False, True])
def test_a_resumed_run_uses_its_pieces_again_only_when_the_input_is_still_the_same(tmp_path, changed):
    from phidias_probe import scenes

    field = tmp_path / "field.zarr"
    scenes.field().to_zarr(field, consolidated=False)
    order, *_ = flow.prepare("probe.cube", inputs={"field": field}, factor=2.0, measured="temperature")
    run = runs.create(order, order)
    hindrance = run.folder / "product.partial"
    hindrance.touch()  # a file where the worker wants a folder: it fails when all pieces are finished
    runs.launch(run)
    assert run.wait(LONG) == runs.FAILED
    assert len(list((run.folder / "work").glob("piece-*.npz"))) == 4
    hindrance.unlink()
    if changed:
        shutil.rmtree(field)
        (scenes.field() + 100).assign_attrs(scenes.field().attrs).to_zarr(field, consolidated=False)
    assert run.resume().wait(LONG) == runs.DONE, run.log
    expected = 2 * xr.open_zarr(field, consolidated=False)["temperature"].load()
    assert abs(run.result()["scaled"].load() - expected).max() < 1e-12
    assert ("the data of an input changed" in run.log) == changed
    assert ("4 finished pieces were found" in run.log) != changed


def test_a_run_without_inputs_imports_nothing_of_the_lake(tmp_path):
    """zarr and intake would be a sixth of the time that such a run takes to begin."""
    code = (
        "import sys; from phidias_lab import flow; from phidias_lab.compute import runs\n"
        "order, *_ = flow.prepare('probe.random')\n"
        "assert flow.execute(runs.create(order, order)) == 'done'\n"
        "print(sorted({'dask', 'intake', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['dask']"


def test_seeds_are_recorded_and_a_seed_is_what_the_numbers_depend_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = phidias_lab.run("probe.random", seed=1)
    two = phidias_lab.run({"chain": "probe.random", "parameters": {"seed": 2}, "output": {"path": "store.zarr"}})
    assert [r.wait(LONG) for r in (one, two)] == [runs.DONE] * 2, two.log
    assert one.record["seeds"] == {"seed": 1}
    assert one.product.checksums["value"] != two.product.checksums["value"]
    # A relative output means the folder of who asked, not that of the worker; its ending chooses the format.
    assert two.order.output == {"path": str(tmp_path / "store.zarr"), "format": "zarr"}
    assert xr.open_zarr(tmp_path / "store.zarr", consolidated=False).sizes["time"] == 3


CLAIMING = """
import os, sys
from pathlib import Path
from phidias_lab import flow
from phidias_lab.compute import runs
from phidias_lab.errors import ProductError

place, me = Path(sys.argv[1]), sys.argv[2]
order, *_ = flow.prepare("probe.slow", output=place / "out.nc")
run = runs.create(order, order)
for number in range(int(sys.argv[3])):
    while not (place / f"go-{number}").exists():
        pass
    try:
        flow._reserve(order, run)
        said = "took it"
    except ProductError as error:
        said = str(error)
    (place / f"said-{number}-{me}.tmp").write_text(said)
    os.replace(place / f"said-{number}-{me}.tmp", place / f"said-{number}-{me}")
"""


def test_of_two_processes_that_take_over_a_stale_claim_at_once_one_gets_it(tmp_path):
    rounds = 60
    order, *_ = flow.prepare("probe.slow")
    dead = runs.create(order, order)
    dead.add_state(runs.CANCELLED)
    claim = tmp_path / ".out.nc.claimed"
    command = [sys.executable, "-c", CLAIMING, str(tmp_path)]
    both = [subprocess.Popen([*command, me, str(rounds)]) for me in "ab"]
    try:
        for number in range(rounds):
            claim.write_text(str(dead.folder))
            (tmp_path / f"go-{number}").touch()
            answers = [tmp_path / f"said-{number}-{me}" for me in "ab"]
            until(lambda answers=answers: all(a.exists() for a in answers))
            said = sorted(a.read_text() for a in answers)
            assert said[0].startswith("Another run (")
            assert said[1] == "took it"
            assert Path(claim.read_text()).name in said[0]
        assert [asker.wait(LONG) for asker in both] == [0, 0]
    finally:
        for asker in both:
            asker.kill()
            asker.wait()


@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
@pytest.mark.parametrize(("patience", "sign"), [(0.0, "product.partial"), (LONG, "product.partial"), (0.0, "product")])
def test_a_run_cancelled_while_it_publishes_leaves_a_whole_product_or_none(tmp_path, name, patience, sign):
    output = tmp_path / name
    run = phidias_lab.run("probe.slow", pieces=4, seconds=0, cells=100_000, output=output)
    until(lambda: (run.folder / sign).is_dir())
    state = run.cancel(patience)
    assert state == run.status
    assert not [p.name for p in tmp_path.glob(".*")]
    assert not list(run.folder.glob("product.partial*"))
    if sign == "product":
        assert state == runs.DONE
    if state == runs.DONE:
        assert run.product.verify() == []
        opened = phidias_lab.products.Product(output).open()
        assert opened.load().equals(run.result().load())
    else:
        assert state == runs.CANCELLED
        assert not output.exists()
        assert not (run.folder / "product").exists()
        with pytest.raises(RunCancelledError):
            run.result()


def test_what_a_worker_left_that_was_killed_while_it_published_is_cleared_and_what_it_replaced_comes_back(tmp_path):
    output = tmp_path / "out.nc"
    order, *_ = flow.prepare("probe.random", output=output, overwrite=True)
    dead = runs.create(order, order)
    dead.add_state(runs.CANCELLED)
    (tmp_path / ".out.nc.claimed").write_text(str(dead.folder))
    (tmp_path / ".out.nc.partial-4711").write_text("half")
    (tmp_path / ".out.nc.old-4711").write_text("what was there")
    with pytest.raises(ProductError, match="exists already"):
        phidias_lab.run("probe.random", output=output)
    assert output.read_text() == "what was there"
    assert not list(tmp_path.glob(".out.nc.[po]*"))


def test_a_run_without_a_title_gets_one_that_tells_it_from_others():
    run = phidias_lab.run("probe.random", seed=5)
    named = phidias_lab.run("probe.random", seed=5, title="mine")
    assert (run.title, named.title) == ("Random cube, seed 5", "mine")
    assert [r.wait(LONG) for r in (run, named)] == [runs.DONE] * 2, run.log
    assert (run.title, named.title) == ("Random cube, seed 5", "mine")
    assert (run.product.item["properties"]["title"], run.result().attrs["title"]) == (run.title, run.title)
    assert named.product.item["properties"]["title"] == "mine"
    # A title of the chain's own is none of the order's: run with another seed, it would be wrong.
    assert run.product.order.title is None
    again = phidias_lab.run(run.product.order, seed=6)
    assert again.title == "Random cube, seed 6"
    assert again.wait(LONG) == runs.DONE


# What is refused at once -------------------------------------------------------------------------------------------


def refusal(kind, *args, **kwargs) -> str:
    with pytest.raises(kind) as caught:
        phidias_lab.run(*args, **kwargs)
    assert phidias_lab.runs() == [], "a refused order leaves no run behind"
    return str(caught.value)


def test_unknown_names_offer_the_nearest():
    assert "Did you mean 'probe.slow'" in refusal(UnknownNameError, "probe.slo")
    assert "Did you mean 'seconds'" in refusal(UnknownNameError, "probe.slow", secnds=1)
    assert "Did you mean 'field'" in refusal(UnknownNameError, "probe.cube", inputs={"feild": "a.nc"})
    assert "'seconds'" in refusal(ParameterError, "probe.slow", seconds=-1)
    assert "'ocean.nothing'" in refusal(PhidiasError, "probe.cube", inputs={"field": "ocean.nothing"})


def test_inputs_that_do_not_exist_are_said_at_once(tmp_path):
    assert "needs the input 'field'" in refusal(InputError, "probe.cube")
    missing = tmp_path / "missing.nc"
    assert f"the file {missing}, which does not exist" in refusal(InputError, "probe.cube", inputs={"field": missing})
    assert "got a list" in refusal(ParameterError, "probe.cube", inputs={"field": [1]})
    assert "not found below" in refusal(
        InputError, "probe.cube", inputs={"field": {"stored": "field.nc", "sha256": "0" * 64}}
    )


def test_what_an_input_lacks_is_said_at_once_and_leaves_no_run(tmp_path):
    from phidias_probe import scenes

    field = scenes.field()
    field.drop_dims("time").to_zarr(tmp_path / "flat.zarr", consolidated=False)
    field.to_zarr(tmp_path / "field.zarr", consolidated=False)
    for where in ("temperature", "salinity"):  # no chunk of data is there to be read
        for chunk in (tmp_path / "field.zarr" / where / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"spoiled")
    flat, whole = ({"field": tmp_path / f"{name}.zarr"} for name in ("flat", "field"))
    assert "has no dimension 'time'" in refusal(InputError, "probe.cube", inputs=flat)
    assert "no dimension 'time'" in refusal(InputError, "probe.cube", inputs={"field": field.isel(time=0)})
    assert "Did you mean 'temperature'" in refusal(InputError, "probe.cube", inputs=whole, measured="temprature")
    assert not settings.runs_root().exists()
    rows = tmp_path / "rows.csv"
    rows.write_text("temprature\n1.5\n")
    assert "no column 'temperature'" in refusal(InputError, "probe.table", inputs={"rows": rows})
    rows.write_text("temperature\nwarm\n")
    assert "numbers in degree_Celsius are needed" in refusal(InputError, "probe.table", inputs={"rows": rows})


def test_orders_that_are_none_are_said_at_once(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert f"The order file {bad} is not JSON" in refusal(ParameterError, bad)
    assert "cannot be read: No such file" in refusal(ParameterError, str(tmp_path / "none.json"))
    assert "version '0.9' of probe.slow; version '1.0' is installed" in refusal(
        ParameterError, {"chain": "probe.slow", "version": "0.9"}
    )
    assert "got an int" in refusal(ParameterError, 5)


def test_a_chain_class_or_instance_is_an_order_and_an_unregistered_one_is_refused():
    from phidias_probe.chains import Slow

    class Mine(Slow):
        """A subclass that is not installed."""

    assert flow.prepare(Slow(pieces=3))[0].parameters["pieces"] == 3
    assert flow.prepare(Slow)[0].chain == "probe.slow"
    phidias_lab.chain("probe.slow")
    assert "Mine is not registered" in refusal(ParameterError, Mine)


def test_outputs_that_cannot_be_are_said_at_once(tmp_path):
    (tmp_path / "there.nc").write_text("x")
    assert "exists already" in refusal(ProductError, "probe.slow", output=tmp_path / "there.nc")
    assert "does not exist. Make it" in refusal(ProductError, "probe.slow", output=tmp_path / "no" / "out.nc")
    assert "does not exist. Make it" in refusal(ProductError, "probe.slow", output=tmp_path / "there.nc" / "out.nc")
    assert "home folder" in refusal(ProductError, "probe.slow", output="~nobody-of-that-name/out.nc")
    assert refusal(ParameterError, "probe.slow", format="parquet").count("netcdf") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.nc"]


def test_an_input_is_not_replaced_by_the_product_made_of_it(tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_text("temperature\n1.0\n")
    said = refusal(ProductError, "probe.table", inputs={"rows": mine}, output=mine, overwrite=True)
    assert "mine.csv is the input 'rows' of this run and is not replaced" in said
    assert mine.read_text() == "temperature\n1.0\n"


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_overwriting_never_deletes_a_folder_that_is_no_product(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "project" / "here"
    thesis = tmp_path / "thesis"
    for folder in (home, here, thesis, tmp_path / "store.zarr"):
        folder.mkdir(parents=True)
        (folder / "chapter.txt").write_text("years of work")
    os.mkfifo(tmp_path / "pipe.nc")
    (tmp_path / "link.nc").symlink_to(thesis / "chapter.txt")
    # Even with the files of a product in it, the folder somebody stands in is not one.
    for folder in (here, here.parent):
        (folder / "item.json").write_text('{"type": "Feature", "stac_version": "1.1.0"}')
        (folder / "order.json").write_text('{"chain": "probe.random"}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    before = tree(tmp_path)
    for empty in ("", " "):
        assert "The output path is empty" in refusal(ProductError, "probe.random", output=empty, overwrite=True)
    for kept in (here, ".", "..", home, "~", tmp_path, settings.runs_root().parent):
        assert "holds more than a product" in refusal(ProductError, "probe.random", output=kept, overwrite=True)
    assert "/ is where all files are" in refusal(ProductError, "probe.random", output="/", overwrite=True)
    for foreign in (thesis, tmp_path / "store.zarr"):
        order = {"chain": "probe.random", "output": {"path": str(foreign), "overwrite": True}}
        assert "is a folder that is no product" in refusal(ProductError, order)
    for special in ("pipe.nc", "link.nc"):
        assert "neither a file nor a folder" in refusal(
            ProductError, "probe.random", output=tmp_path / special, overwrite=True
        )
    assert [name for name in tree(tmp_path) if not name.startswith("runs")] == [
        name for name in before if not name.startswith("runs")
    ]


def test_a_product_folder_and_a_store_are_replaced_when_overwriting_is_allowed(tmp_path):
    for name in ("product", "store.zarr"):
        first = phidias_lab.run("probe.random", seed=1, output=tmp_path / name)
        assert first.wait(LONG) == runs.DONE, first.error
        second = phidias_lab.run("probe.random", seed=2, output=tmp_path / name, overwrite=True)
        assert second.wait(LONG) == runs.DONE, second.error
        if name == "product":
            assert phidias_lab.products.Product(tmp_path / name).checksums == second.product.checksums
        else:
            assert xr.open_zarr(tmp_path / name, consolidated=False).load().equals(second.result().load())
    assert sorted(p.name for p in tmp_path.glob("*") if p.name in ("product", "store.zarr")) == [
        "product",
        "store.zarr",
    ]
    assert not list(tmp_path.glob(".*"))


def test_the_ending_of_an_output_chooses_its_format(tmp_path):
    def chosen(path):
        return flow.prepare({"chain": "probe.slow", "output": {"path": path}})[0].output["format"]

    assert [chosen(f"/x/a{s}") for s in (".nc", ".zarr", "", ".NC")] == ["netcdf", "zarr", "netcdf", "netcdf"]
    rows = tmp_path / "rows.csv"
    rows.write_text("temperature\n1.5\n")
    order = {"chain": "probe.table", "output": {"path": "a.csv"}, "inputs": {"rows": str(rows)}}
    assert flow.prepare(order)[0].output["format"] == "csv"


def test_a_worker_of_another_version_refuses_the_order_instead_of_mislabelling_the_product(tmp_path):
    order, *_ = flow.prepare("probe.random")
    run = runs.create(order, order.with_(version="0.9"))
    runs.launch(run)
    assert run.wait(LONG) == runs.FAILED
    assert "version '0.9' of probe.random" in run.error


def test_a_terminated_worker_is_interrupted(tmp_path):
    run = phidias_lab.run("probe.slow", seconds=30)
    os.kill(worker(run), signal.SIGTERM)
    assert run.wait(LONG) == runs.INTERRUPTED
    assert json.loads((run.folder / "order.json").read_text())["chain"] == "probe.slow"


def test_the_log_tells_the_story_of_a_run(finished):
    log = finished[0].log
    stages = ("opening the inputs", "preparing", "writing the product")
    places = [log.index(stage) for stage in stages]
    assert places == sorted(places)
