"""A watched folder: each file becomes one run, whatever happens to the watch, to its runs and to the files."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from phidias_probe import scenes

import phidias_lab
from phidias_lab import settings
from phidias_lab.compute import runs
from phidias_lab.compute.runs import Run
from phidias_lab.errors import InputError, ParameterError, ProductError, UnknownNameError
from phidias_lab.modes import stream as module
from phidias_lab.modes.ledger import Ledger
from phidias_lab.modes.watch import Watch

LONG = 120
QUICK = {"settle": 0.1, "every": 0.05}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    return place


def arrive(folder, name, age=0, cut=None) -> Path:
    """A file of 30 rows, of which 15 are warm, put there by a rename; `age` seconds old."""
    path, hidden = folder / name, folder / f".{name}"
    path.parent.mkdir(exist_ok=True)
    scenes.rows().to_parquet(folder / hidden)
    if cut:
        (folder / hidden).write_bytes((folder / hidden).read_bytes()[:-cut])
    stamp = time.time() - age
    os.utime(folder / hidden, (stamp, stamp))
    os.replace(folder / hidden, path)
    return path


def watched(folder, once=True, **how):
    """What a watch told of each file until it had done all that was there."""
    told = []
    phidias_lab.watch(folder, "probe.events", once=once, tell=told.append, **{**QUICK, **how})
    return told


def names(told) -> list[str]:
    return [f"{t['state']} {Path(t['file']).name}" for t in told]


def until(condition, watching=None, seconds=LONG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        if watching is not None:
            watching.step()
        time.sleep(0.05)


def worker(run: Run) -> int:
    until(lambda: run.record.get("worker") and run.status == runs.RUNNING)
    return run.record["worker"]["pid"]


def test_each_file_becomes_one_run_the_oldest_first_and_is_not_taken_again(folder):
    arrive(folder, "late.parquet")
    arrive(folder, "cut.parquet", age=50, cut=30)
    arrive(folder, "early.parquet", age=100)
    told = watched(folder, at_once=1)
    assert names(told) == ["done early.parquet", "refused cut.parquet", "done late.parquet"]
    assert "cut.parquet cannot be read" in told[1]["sentence"]
    assert [run.id for run in reversed(phidias_lab.runs())] == [t["run"] for t in told if t["run"]]
    table = phidias_lab.events(chain="probe.events")
    assert [t.get("events") for t in told] == [15, None, 15]
    assert len(table) == 30
    assert set(table["source"]) == {"early.parquet", "late.parquet"}
    assert set(table["run"]) == {t["run"] for t in told if t["run"]}
    assert (table["kind"] == "warmth").all()
    assert table["properties"][0].keys() == {"temperature"}

    assert watched(folder) == []
    os.utime(folder / "late.parquet")  # written anew, it is another file with the same events
    assert names(watched(folder, keep_runs=1)) == ["done late.parquet"]
    assert len(phidias_lab.events()) == 30
    assert len(phidias_lab.runs()) == 1  # what went before was removed, and its events stay


def test_a_stream_is_its_folder_chain_parameters_and_inputs(folder, tmp_path):
    def ledger(place=folder, **how):
        with Watch(place, "probe.events", **how) as watching:
            return watching.ledger.folder

    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(folder)
    arrive(tmp_path, "more.parquet")
    more = {"inputs": {"more": tmp_path / "more.parquet"}}
    assert len({ledger(), ledger(tmp_path / "other"), ledger(parameters={"above": 99.0}), ledger(**more)}) == 4
    same = {ledger(), ledger(tmp_path / "link"), ledger(f"file://{folder}/"), ledger(parameters={"above": 15})}
    assert same == {ledger(pattern="*.nc", at_once=7, keep_runs=3)}


def test_a_file_is_taken_when_it_has_arrived_and_never_by_the_name_of_an_unfinished_one(folder, monkeypatch):
    for name in (
        "a.nc",
        ".b.nc",
        "c.nc.part",
        "d.nc.filepart",
        "e.tmp",
        "f.NC.PART",
        "~g.nc",
        "h.nc~",
        "i.txt",
        "below/j.nc",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "empty.nc").touch()
    (folder / "gone.nc").symlink_to(folder / "nowhere")
    (folder / "link.nc").symlink_to(folder / "a.nc")
    (folder / "below" / "loop").symlink_to(folder)

    def listed(pattern="*", recursive=False, address=folder):
        system, inner, _ = module._place(address)
        found = module._listed(system, inner, pattern, recursive)
        return sorted(one.address.removeprefix(f"{folder}/") for one in found)

    assert listed() == ["a.nc", "i.txt", "link.nc"]
    assert listed("*.nc") == ["a.nc", "link.nc"]
    assert listed("*.nc", recursive=True) == ["a.nc", "below/j.nc", "link.nc"]
    assert listed("*.nc", address=f"file://{folder}") == ["a.nc", "link.nc"]

    begun = []
    monkeypatch.setattr(Watch, "_begin", lambda self, name, address: begun.append(address))
    with Watch(folder, "probe.events", settle=0.3, pattern="grow*") as watching:
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            with open(folder / "grow.nc", "a") as file:
                file.write("more")
            watching.step()
            assert not begun
            time.sleep(0.02)
        until(lambda: begun, watching, 10)
    assert begun == [str(folder / "grow.nc")]


def test_a_place_with_objects_is_listed_too():
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("arriving/a.nc", "arriving/below/b.nc", "arriving/c.part"):
        system.pipe(f"/{name}", b"x")
    system, inner, address = module._place("memory://arriving")
    assert address.startswith("memory://")
    assert [one.address for one in module._listed(system, inner, "*", False)] == ["memory:///arriving/a.nc"]
    deep = list(module._listed(system, inner, "*", True))
    assert [one.address for one in sorted(deep)] == ["memory:///arriving/a.nc", "memory:///arriving/below/b.nc"]
    assert all(one.age > 0 and one.size == 1 for one in deep)


@pytest.mark.parametrize(
    ("error", "words", "how"),
    [
        (InputError, "is no folder", {"folder": "nowhere"}),
        (InputError, "is empty", {"folder": " "}),
        (InputError, "cannot be watched", {"folder": "nonsense://x"}),
        (UnknownNameError, "There is no chain", {"chain": "no.chain"}),
        (ParameterError, "has no input", {"chain": "probe.slow"}),
        (UnknownNameError, "no parameter 'abov'", {"parameters": {"abov": 1}}),
        (ParameterError, "above", {"parameters": {"above": 1e9}}),
        (ParameterError, "no input 'row'", {"input": "row"}),
        (ParameterError, "is what the files are for", {"inputs": {"rows": "x.csv"}}),
        (ParameterError, "is no input", {"inputs": {"mor": "x.csv"}}),
        (InputError, "does not exist", {"inputs": {"more": "x.csv"}}),
        (InputError, "needs the input 'rows'", {"input": "more"}),
        (ParameterError, "at_once is 0", {"at_once": 0}),
        (ParameterError, "hooks file", {"hooks": "no.yaml"}),
        (UnknownNameError, "no place 'moon'", {"on": "moon"}),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_file(folder, monkeypatch, error, words, how):
    monkeypatch.chdir(folder)
    how = {"folder": folder, "chain": "probe.events", **how}
    with pytest.raises(error, match=words):
        Watch(how.pop("folder"), how.pop("chain"), **how)
    assert not list((settings.runs_root()).glob(".watch/*/entries/*"))


def test_the_folder_of_the_runs_is_not_watched():
    settings.runs_root().mkdir(parents=True)
    with pytest.raises(InputError, match="holds the runs"):
        Watch(settings.runs_root().parent, "probe.events")


def test_a_run_that_was_killed_is_resumed_and_one_that_is_killed_again_and_again_is_refused(
    folder, tmp_path, monkeypatch
):
    gate = tmp_path / "gate"
    told = []
    how = {"parameters": {"gate": str(gate)}, "tell": told.append, **QUICK}
    monkeypatch.setattr(module, "TRIES", 1)
    arrive(folder, "a.parquet")
    arrive(folder, "b.parquet")
    with Watch(folder, "probe.events", **how) as watching:
        until(lambda: len(watching.flying) == 2, watching)
        first, second = sorted(watching.flying.values(), key=lambda run: run.order.inputs["rows"]["file"])
        for run in (first, second):
            os.kill(worker(run), signal.SIGKILL)
        until(lambda: first.status == second.status == runs.INTERRUPTED)
        watching.step()
        os.kill(worker(second), signal.SIGKILL)
        until(lambda: told, watching)
        gate.touch()
        until(lambda: len(told) == 2, watching)
    assert names(told) == ["refused b.parquet", "done a.parquet"]
    assert "was interrupted 2 times" in told[0]["sentence"]
    assert told[1]["run"] == first.id
    assert len(phidias_lab.runs()) == 2


def test_a_watch_that_is_stopped_stops_its_runs_and_the_next_resumes_them(folder, tmp_path):
    gate = tmp_path / "gate"
    how = {"parameters": {"gate": str(gate)}, **QUICK}
    arrive(folder, "a.parquet")
    with Watch(folder, "probe.events", **how) as watching:
        until(lambda: watching.flying, watching)
        (run,) = watching.flying.values()
        worker(run)
    assert run.status == runs.CANCELLED
    gate.touch()
    (told,) = watched(folder, **how)
    assert (told["state"], told["run"]) == ("done", run.id)
    assert len(phidias_lab.runs()) == 1


def test_a_run_that_its_user_cancelled_is_not_done_and_the_stream_goes_on(folder, tmp_path):
    gate, told = tmp_path / "gate", []
    arrive(folder, "a.parquet")
    with Watch(folder, "probe.events", parameters={"gate": str(gate)}, tell=told.append, **QUICK) as watching:
        until(lambda: watching.flying, watching)
        (run,) = watching.flying.values()
        worker(run)
        run.cancel()
        gate.touch()
        arrive(folder, "b.parquet")
        until(lambda: len(told) == 2, watching)
    assert names(told) == ["refused a.parquet", "done b.parquet"]
    assert "was cancelled" in told[0]["sentence"]


def test_a_full_disk_is_no_fault_of_the_file(folder, tmp_path):
    how = {"parameters": {"fault": "full", "marks": str(tmp_path)}}
    arrive(folder, "a.parquet")
    with pytest.raises(ProductError, match="Then start again"):
        watched(folder, **how)
    (run,) = phidias_lab.runs()
    (tmp_path / "room").touch()
    (told,) = watched(folder, **how)
    assert (told["state"], told["run"]) == ("done", run.id)


def test_another_input_that_is_gone_is_no_fault_of_the_file(folder, tmp_path):
    more = arrive(tmp_path, "more.parquet")
    content = more.read_bytes()
    gate = tmp_path / "gate"
    how = {"inputs": {"more": more}, "parameters": {"gate": str(gate)}, **QUICK}
    with Watch(folder, "probe.events", **how) as watching:
        more.unlink()
        arrive(folder, "a.parquet")
        with pytest.raises(InputError, match=r"more\.parquet does not exist"):
            until(lambda: False, watching)
    with pytest.raises(InputError, match=r"more\.parquet does not exist"):
        watched(folder, **how)
    more.write_bytes(content)
    gate.touch()
    assert names(watched(folder, **how)) == ["done a.parquet"]


@pytest.mark.parametrize(("fault", "words"), [("raise", "divides by zero"), ("events", "events cannot be told")])
def test_a_chain_that_fails_on_a_file_has_it_refused_in_a_sentence(folder, fault, words):
    arrive(folder, "a.parquet")
    (told,) = watched(folder, parameters={"fault": fault})
    assert told["state"] == "refused"
    assert words in told["sentence"]
    assert watched(folder, parameters={"fault": fault}) == []


def test_events_are_added_when_the_watch_died_after_their_run_was_done_even_if_the_file_is_gone(folder, monkeypatch):
    path = arrive(folder, "a.parquet")
    for step in ("append", "settle"):
        with monkeypatch.context() as patch:

            def die(*_, **__):
                raise KeyboardInterrupt

            patch.setattr(*((module.events, "append", die) if step == "append" else (Ledger, "settle", die)))
            with pytest.raises(KeyboardInterrupt):
                watched(folder)
        assert len(phidias_lab.events()) == (0 if step == "append" else 15)
        path.unlink(missing_ok=True)
    (told,) = watched(folder)
    assert (told["state"], told["events"]) == ("done", 15)
    assert len(phidias_lab.events()) == 15
    assert len(phidias_lab.runs()) == 1


def test_a_watch_killed_while_a_run_is_made_makes_it_anew_and_leaves_nothing_else(folder, monkeypatch):
    arrive(folder, "a.parquet")

    def dying(path, text):
        if path.name == "order.json":
            raise KeyboardInterrupt
        whole(path, text)

    with monkeypatch.context() as patch:
        whole = runs.write_text
        patch.setattr(runs, "write_text", dying)
        with pytest.raises(KeyboardInterrupt):
            watched(folder)
    (left,) = (path for path in settings.runs_root().iterdir() if path.name != ".watch")
    assert entries()[0]["run"] == left.name
    assert phidias_lab.runs() == []
    assert names(watched(folder)) == ["done a.parquet"]
    assert [path.name for path in settings.runs_root().iterdir() if path.name != ".watch"] == [phidias_lab.runs()[0].id]


def test_a_folder_that_goes_away_for_a_while_is_said_once_and_watched_again(folder, tmp_path):
    told = []
    with Watch(folder, "probe.events", tell=told.append, **QUICK) as watching:
        folder.rename(tmp_path / "away")
        for _ in range(3):
            watching.step()
        assert len(told) == 1
        assert "cannot be listed" in told[0]["remark"]
        (tmp_path / "away").rename(folder)
        arrive(folder, "cut.parquet", cut=30)
        until(lambda: len(told) == 2, watching)
    assert told[1]["state"] == "refused"


def test_a_claim_belongs_to_one_and_is_taken_over_from_the_dead(tmp_path):
    one, two = (Ledger(tmp_path / "ledger", {}) for _ in range(2))
    name = module.key("a")
    assert one.claim(name, input="/in/a")["input"] == "/in/a"
    one.note(name, run="r")
    assert two.claim(name) is None
    one.close()  # what the operating system does for the dead
    assert two.claim(name) == {**two.get(name), "run": "r", "owner": two.token}
    two.release(name)
    three = Ledger(tmp_path / "ledger", {})
    assert three.claim(name)["owner"] == three.token
    three.settle(name, "done", events=0)
    assert two.claim(name) is None
    assert three.claim(name) is None
    two.close()
    three.close()
    assert list((tmp_path / "ledger" / "owners").iterdir()) == []


# Processes that are killed ---------------------------------------------------------------------------------------------


@pytest.fixture
def phidias(commands, folder, tmp_path):
    """``phidias(seconds)``: `phidias watch` in a process that is killed (SIGKILL) after so long, or ends before."""
    marks = tmp_path / "marks"
    marks.mkdir()
    words = [
        "watch",
        folder,
        "--chain",
        "probe.events",
        "--marks",
        marks,
        "--once",
        "--settle",
        "0.2",
        "--json",
        "--quiet",
    ]

    def run(seconds: float):
        try:
            return commands.run(*words, environment=dict(os.environ), folder=tmp_path, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    run.marks = marks
    return run


def entries() -> list[dict]:
    return [json.loads(path.read_text()) for path in settings.runs_root().glob(".watch/*/entries/*.json")]


def test_a_watch_killed_at_random_moments_runs_each_file_once(phidias, folder):
    count, chance = 4, random.Random(7)
    for number in range(count):
        arrive(folder, f"{number}.parquet", age=100 - number)
    killed = 0
    for _ in range(8):
        killed += phidias(chance.uniform(0.3, 2.0)) is None
    done = phidias(LONG)
    assert done.returncode == 0, done.stderr
    assert killed
    assert sorted(Path(e["input"]).name for e in entries()) == [f"{n}.parquet" for n in range(count)]
    assert {e["state"] for e in entries()} == {"done"}
    assert len({e["run"] for e in entries()}) == count == len(phidias_lab.runs())
    assert {run.status for run in phidias_lab.runs()} == {runs.DONE}
    assert len(list(phidias.marks.iterdir())) == count  # the runs outlived their watch, and none was done twice
    assert len(phidias_lab.events()) == 15 * count
    assert phidias(LONG).stdout == ""


def test_two_watches_of_one_folder_share_its_files(phidias, folder):
    from concurrent.futures import ThreadPoolExecutor

    for number in range(3):
        arrive(folder, f"{number}.parquet", age=100 - number)
    with ThreadPoolExecutor() as pool, Watch(folder, "probe.events", parameters={"marks": str(phidias.marks)}, at_once=1,
                                             **QUICK) as other:  # fmt: skip
        process = pool.submit(phidias, LONG)
        until(lambda: len(entries()) == 3 and {e["state"] for e in entries()} == {"done"}, other)
        done = process.result()
    assert done.returncode == 0, done.stderr
    assert len(list(phidias.marks.iterdir())) == 3
    assert len(phidias_lab.events()) == 45
    assert other.counts["done"] > 0
    assert other.counts["done"] + len(done.stdout.splitlines()) == 3
