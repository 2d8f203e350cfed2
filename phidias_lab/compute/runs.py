"""Runs as plain files: a folder that says what was asked, what happened and what came out, and survives its process.

    <runs>/<id>/
      asked.json      the order as it was asked
      order.json      the complete order: every parameter, open choices resolved
      launched.json   who started which process (written by the starter)
      record.json     states, environment, inputs, measures, error (written by the worker)
      progress.json   fraction and message
      lock            held by the worker while it lives
      log.txt         everything the worker said
      inputs/         data that were in memory when the run was asked for, under their checksum
      work/           finished pieces, so that a resumed run does not compute them again
      product/        the product; it appears by one rename

Each file has one writer and is replaced atomically, so a reader never sees half of it and needs no lock. Locks keep the
writer one: a worker holds `lock`, and who resumes or removes a run holds its folder meanwhile. A worker that died is
recognised by its process id and birth time; the run is then shown as interrupted. A folder may be damaged by hand or by
a disk: what cannot be true is left out, `error` says so, and the other runs are listed as ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from phidias_lab import settings
from phidias_lab.contract import order as orders
from phidias_lab.contract import said
from phidias_lab.contract.order import Order
from phidias_lab.contract.resources import show_memory
from phidias_lab.errors import ParameterError, PhidiasError, ProductError, RunCancelledError, RunFailedError, nearest

WAITING, RUNNING, DONE, FAILED, CANCELLED, INTERRUPTED = (
    "waiting",
    "running",
    "done",
    "failed",
    "cancelled",
    "interrupted",
)
#: Stands for a run in the place of its id.
LAST = "last"
STATES = (WAITING, RUNNING, DONE, FAILED, CANCELLED, INTERRUPTED)
ENDED = (DONE, FAILED, CANCELLED, INTERRUPTED)
_HEARTBEAT_LOST = 60.0  # seconds without a sign of life after which a worker on another host counts as dead
_LAUNCH_GRACE = 30.0  # seconds a folder may wait for its process

# Children of this process: polled so that a finished worker does not stay behind as a zombie.
_children: dict[str, subprocess.Popen] = {}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, default=str) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Progress:
    """How far a run is: fraction 0 to 1, what it is doing, and the seconds left if that can be said."""

    fraction: float
    message: str
    seconds_left: float | None = None

    def __str__(self):
        left = "" if self.seconds_left is None else f", about {timedelta(seconds=round(self.seconds_left))} left"
        return f"{self.fraction:.0%} {self.message}{left}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_process(value: Any) -> bool:
    """Whether this names a process. A wrong number would be asked after, and signalled: -1 means every process."""
    if not isinstance(value, dict):
        return False
    pid = value.get("pid")
    return _is_number(pid) and isinstance(pid, int) and 0 < pid < 2**31 and _is_number(value.get("born", 0))


def _moment(stamp: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and value.get("state") in STATES and _moment(value.get("time")) is not None


#: What each entry of a record that this system reads again must be.
_SOUND = {
    "states": lambda v: isinstance(v, list) and all(map(_is_state, v)),
    "worker": _is_process,
    "title": lambda v: isinstance(v, str),
    "error": lambda v: isinstance(v, dict) and isinstance(v.get("sentence"), str),
    "said": said.is_document,
    "measures": lambda v: isinstance(v, dict) and all(map(_is_number, v.values())),
    **dict.fromkeys(("facts", "inputs", "seeds", "checksums"), lambda v: isinstance(v, dict)),
}


def _sound(record: dict) -> tuple[dict, list[str]]:
    """A record without what cannot be true, and the names of what was left out."""
    bad = [k for k, is_sound in _SOUND.items() if record.get(k) is not None and not is_sound(record[k])]
    return {k: v for k, v in record.items() if k not in bad}, bad


def _alive(process: dict) -> bool:
    """Whether a process of this host lives; its birth time tells it from a later one of the same id."""
    if not _is_process(process) or process.get("host") != socket.gethostname():
        return False
    try:
        found = psutil.Process(process["pid"])
        born = abs(found.create_time() - process.get("born", found.create_time())) < 2.0
        return born and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait for, and hold, the lock of a folder: one process, and one thread of it, at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def sole_worker(run: Run) -> Iterator[bool]:
    """Hold the lock of a run's worker; False where another process holds it. It ends with the process, however that ends."""
    try:
        handle = os.open(run.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a full disk: the worker itself says so
        yield True
        return
    try:
        alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        except OSError:  # some network file systems have no locks
            pass
        yield alone
    finally:
        os.close(handle)


def _reap() -> None:
    for folder, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(folder, None)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def claim_of(path: Path) -> Path:
    """The file that says which run is going to write a path."""
    return path.with_name(f".{path.name}.claimed")


def owner_of(claim: Path) -> Run | None:
    try:
        owner = claim.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Run(owner) if owner else None


class Run:
    """A view of one run's folder. Any number of them may exist, in any process."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def __repr__(self):
        return f"<Run {self.id}: {self.status}, {self.progress}>"

    def __eq__(self, other):
        return isinstance(other, Run) and other.folder == self.folder

    def __hash__(self):
        return hash(self.folder)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def record(self) -> dict:
        """What is known of the run: states with times, environment, inputs, measures."""
        return _sound(read_json(self.folder / "record.json"))[0]

    @property
    def _launched(self) -> dict:
        """Who started which process; without what cannot be true."""
        launched = read_json(self.folder / "launched.json")
        bad = [k for k in ("asked",) if _moment(launched.get(k)) is None]
        bad += [k for k in ("starter",) if not _is_process(launched.get(k))]
        bad += [] if _is_process(launched) else ["pid", "born"]
        return {k: v for k, v in launched.items() if k not in bad}

    @property
    def launched(self) -> dict:
        """Who started this run, where it is, and which process or job it is."""
        return self._launched

    @property
    def _is_job(self) -> bool:
        return isinstance(self._launched.get("job"), str)

    @property
    def order(self) -> Order:
        """What was asked. In a damaged folder it is an order that no chain takes, so that lists can still show the run."""
        try:
            return orders.load(self.folder / "order.json")
        except PhidiasError:
            return Order("(damaged)", "", title="(the order of this run cannot be read)")

    @property
    def title(self) -> str:
        """The title that was given, else the chain's own for this run."""
        told = self._launched.get("title")
        return self.order.title or self.record.get("title") or (told if isinstance(told, str) else "")

    @property
    def damage(self) -> str | None:
        """The sentence that says which files of the folder are damaged, if any are."""
        bad = [f"{key!r} in record.json" for key in _sound(read_json(self.folder / "record.json"))[1]]
        for name in ("record.json", "launched.json", "progress.json"):
            if (self.folder / name).exists() and not read_json(self.folder / name):
                bad.append(name)
        try:
            orders.load(self.folder / "order.json")
        except PhidiasError:
            bad.append("order.json")
        launched = read_json(self.folder / "launched.json")
        bad += [
            f"{key!r} in launched.json" for key in launched if key in ("asked", "pid") and key not in self._launched
        ]
        if not bad:
            return None
        return (
            f"The folder of the run {self.id} is damaged: {', '.join(bad)} cannot be read. "
            f"Give back the folder from a copy, or remove it ('phidias runs remove {self.id}')."
        )

    @property
    def log(self) -> str:
        try:
            return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def error(self) -> str | None:
        """The sentence that says why the run failed, or that its folder is damaged."""
        return (self.record.get("error") or {}).get("sentence") or self.damage or self._lost_job()

    def _lost_job(self) -> str | None:
        if not self._is_job or self.status != INTERRUPTED:
            return None
        from phidias_lab.compute import batch

        return (
            f"The run {self.id} was interrupted: {batch.ending(self)}. "
            f"'phidias runs resume {self.id}' goes on where it stopped."
        )

    @property
    def created(self) -> datetime:
        states = self.record.get("states") or []
        stamp = self._launched.get("asked") or (states[0]["time"] if states else None)
        if stamp:
            return _moment(stamp)
        try:
            return datetime.fromtimestamp(self.folder.stat().st_mtime, UTC)
        except OSError:
            return datetime.now(UTC)

    @property
    def status(self) -> str:
        _reap()
        states = self.record.get("states") or []
        last = states[-1]["state"] if states else WAITING
        if last in (DONE, FAILED, CANCELLED) or self._worker_alive():
            return last
        # The worker may have written its last word between the two looks.
        states = self.record.get("states") or []
        last = states[-1]["state"] if states else WAITING
        if last in (DONE, FAILED, CANCELLED):
            return last
        if last == WAITING and not self._launched_long_ago():
            return WAITING
        return INTERRUPTED

    def _launched_long_ago(self) -> bool:
        launched = self._launched
        if launched.get("pid") or self._is_job or self.damage:  # from a damaged folder no worker gets anywhere
            return True
        if _alive(launched.get("starter") or {}):  # it may be storing a large input
            return False
        return (datetime.now(UTC) - self.created).total_seconds() > _LAUNCH_GRACE

    def _worker_alive(self) -> bool:
        if self._is_job:
            from phidias_lab.compute import batch

            return batch.alive(self)
        worker = self.record.get("worker") or self._launched
        if not worker.get("pid"):
            return False
        if worker.get("host") != socket.gethostname():
            try:
                return time.time() - (self.folder / "heartbeat").stat().st_mtime < _HEARTBEAT_LOST
            except OSError:
                return False
        return _alive(worker)

    @property
    def progress(self) -> Progress:
        found = read_json(self.folder / "progress.json")
        status = self.status
        if status == DONE:
            return Progress(1.0, "done")
        fraction = found.get("fraction", 0.0)
        fraction = min(1.0, max(0.0, float(fraction))) if _is_number(fraction) else 0.0
        message = str(found.get("message", "waiting for the process to start"))
        if status in ENDED:
            return Progress(fraction, status)
        if status == WAITING and self._is_job:
            from phidias_lab.compute import batch

            return Progress(0.0, batch.waiting(self))
        left = None
        since, base = found.get("pieces_since"), found.get("pieces_from", 0.0)
        if since and _is_number(since) and _is_number(base) and fraction - base > 0.02:
            spent = time.time() - since
            left = max(0.0, spent / (fraction - base) * (1.0 - fraction))
        return Progress(fraction, message, left)

    @property
    def product(self):
        """The product, or a sentence that says why there is none."""
        from phidias_lab.products import Product

        folder = self.folder / "product"
        if not folder.is_dir():
            raise self._no_product()
        return Product(folder)

    def _no_product(self) -> PhidiasError:
        status = self.status
        if status == FAILED:
            return RunFailedError(f"The run {self.id} failed: {self.error}")
        if status == CANCELLED:
            return RunCancelledError(f"The run {self.id} was cancelled, so it has no product. Run its order again.")
        if status == INTERRUPTED and self._is_job:
            return RunFailedError(self._lost_job() or "")
        if status == INTERRUPTED:
            return RunFailedError(
                f"The run {self.id} was interrupted: its process ended without a word. "
                f"'phidias runs resume {self.id}' goes on where it stopped; 'phidias runs log {self.id}' shows its log."
            )
        return ProductError(f"The run {self.id} is {status}; its product appears when it is done. Wait for it.")

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the run has ended, at most `timeout` seconds; gives the state."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        while True:
            status = self.status
            if status in ENDED:
                self._wait_for_process()
                return status
            if end is not None and time.monotonic() >= end:
                return status
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _wait_for_process(self) -> None:
        """The worker's last word comes a moment before its end."""
        end = time.monotonic() + 5.0
        while self._worker_alive() and time.monotonic() < end:
            time.sleep(0.01)
        child = _children.get(str(self.folder))
        if child is not None:
            # The first thread of a process ends a moment before its others; until then it cannot be reaped.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5.0)
        _reap()

    def result(self, timeout: float | None = None) -> Any:
        """Wait, then open the product lazily."""
        if self.wait(timeout) != DONE:
            raise self._no_product()
        return self.product.open()

    def cancel(self, patience: float = 10.0) -> str:
        """Stop the run. The worker gets `patience` seconds to leave; then it is killed. Gives the state."""
        if self.status in ENDED:
            return self.status
        (self.folder / "cancel").touch()
        if self._is_job:
            return self._cancel_job(patience)
        if self.wait(patience) == CANCELLED:
            self.clear_unfinished()  # again: until its end the worker may have written on
            return CANCELLED
        while (self.folder / "product").is_dir() and self._worker_alive():
            self.wait(0.25)  # too late: the product is in place and is being copied to where it was asked for
        if self.status in ENDED and self.status != INTERRUPTED:
            return self.status
        worker = self.record.get("worker") or self._launched
        if worker.get("pid") and worker.get("host") != socket.gethostname():
            raise RunFailedError(
                f"The run {self.id} runs on the host {worker.get('host')} and has not answered the request to stop. "
                "It stops as soon as it sees it; look again later."
            )
        if self._worker_alive():
            # The worker leads a session of its own, so whatever its chain started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker["pid"], signal.SIGKILL)
            self.wait(5.0)
        self.clear_unfinished()
        self.clear_output(worker.get("pid"))
        self.add_state(CANCELLED)
        return self.status

    def _cancel_job(self, patience: float) -> str:
        from phidias_lab.compute import batch

        # A job that waits hears nothing. One that runs leaves by itself, and so cleans up.
        if not batch.is_pending(self) and self.wait(patience) in ENDED and self.status != INTERRUPTED:
            return self.status
        batch.end(self)
        if self.status in (DONE, FAILED, CANCELLED):
            return self.status
        self.clear_unfinished()
        self.clear_output((self.record.get("worker") or {}).get("pid"))
        self.add_state(CANCELLED)
        return self.status

    def clear_unfinished(self) -> None:
        """Remove a product that was being written, or was in place when its worker died before it could say so."""
        for partial in (*self.folder.glob("product.partial*"), self.folder / "product"):
            shutil.rmtree(partial, ignore_errors=True)

    def clear_output(self, pid: int | None) -> None:
        """Remove what the process had half written where the product was to appear, and give up the claim on that place."""
        with contextlib.suppress(PhidiasError, OSError):
            path = self.order.output.get("path")
            if path:
                remove_path(Path(path).with_name(f".{Path(path).name}.partial-{pid}"))
                claim = claim_of(Path(path))
                if owner_of(claim) == self:
                    claim.unlink()

    def add_state(self, state: str, at: str | None = None, **more: Any) -> None:
        """Record that the run entered a state, now or at a time, with other facts."""
        record = self.record
        record.setdefault("id", self.id)
        record.setdefault("states", []).append({"state": state, "time": at or now()})
        record.update(more)
        write_json(self.folder / "record.json", record)

    def resume(self, start: Callable[[Run], None] | None = None) -> Run:
        """Go on with a run that failed, was cancelled or interrupted; finished pieces are not computed again."""
        with alone_in(self.folder):  # else two who ask at once would both find it ended
            return self._resume(start or launch)

    def _resume(self, start: Callable[[Run], None]) -> Run:
        status = self.status
        if status == DONE:
            raise ParameterError(
                f"The run {self.id} is done; there is nothing to resume. 'phidias rerun' runs it again."
            )
        if status in (WAITING, RUNNING):
            raise ParameterError(f"The run {self.id} is {status}; it needs no resuming. Wait for it or cancel it.")
        self._wait_for_process()
        orders.load(self.folder / "order.json")  # without it no worker gets anywhere
        (self.folder / "cancel").unlink(missing_ok=True)
        self.clear_unfinished()
        record = self.record
        for key in ("worker", "error"):
            record.pop(key, None)
        record.setdefault("states", []).append({"state": WAITING, "time": now()})
        write_json(self.folder / "record.json", record)
        start(self)
        return self

    def remove(self) -> int:
        """Delete the run's folder; gives the bytes freed."""
        with alone_in(self.folder):
            status = self.status
            if status in (WAITING, RUNNING):
                raise ParameterError(f"The run {self.id} is {status}. Cancel it before you remove it.")
            size = self.size_bytes
            shutil.rmtree(self.folder)
        return size

    @property
    def size_bytes(self) -> int:
        total = 0
        for folder, _, files in os.walk(self.folder):  # which passes over what vanishes or may not be read
            for name in files:
                with contextlib.suppress(OSError):
                    found = os.lstat(os.path.join(folder, name))
                    if stat.S_ISREG(found.st_mode):
                        total += found.st_size
        return total


def myself() -> dict:
    """This process, told from a later one of the same id by its birth."""
    return {"pid": os.getpid(), "born": psutil.Process().create_time(), "host": socket.gethostname()}


def create(
    asked: Order,
    complete: Order,
    root: Path | None = None,
    title: str | None = None,
    noted: Callable[[Run], None] = lambda run: None,
) -> Run:
    """A new run folder that holds its order; nothing is started yet. `title` is for an order that has none.

    `noted` is told of the run while its folder is still empty, which is no run yet: who keeps a list of the runs that it
    asked for misses none, at whatever moment it is killed.
    """
    root = settings.runs_root() if root is None else Path(root)
    # With milliseconds, so that ids sort as the runs were asked for.
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            folder = root / f"{stamp}-{complete.chain}-{secrets.token_hex(3)}"
            try:
                folder.mkdir(mode=0o700)  # orders, logs and stored inputs are for their owner
                break
            except FileExistsError:
                continue
        noted(Run(folder))
        write_json(folder / "launched.json", {"asked": now(), "starter": myself(), "title": title})
        write_text(folder / "asked.json", asked.dumps())
        write_text(folder / "order.json", complete.dumps())
    except OSError as error:
        raise unwritable(root, error) from None
    return Run(folder)


#: What helps where a run cannot be written.
_MAKE_ROOM = "Free some space ('phidias runs prune' tells what runs take) or set PHIDIAS_RUNS to another folder."


def unwritable(place: Path, error: OSError, advice: str = _MAKE_ROOM) -> ProductError:
    """Why nothing can be written to a place, and what to do."""
    reason = error.strerror or str(error)
    with contextlib.suppress(OSError):
        existing = next(p for p in (place, *place.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if free < 50 * 2**20:
            reason += f"; only {show_memory(free)} are free there"
    return ProductError(f"{place} cannot be written: {reason}. {advice}")


def launch(run: Run, where: dict | None = None) -> None:
    """Start the worker of a run: a process of its own, so that it outlives a notebook and can be stopped at any time.

    `where` says that it is to be a job, or computes elsewhere (compute/batch.py); a resumed run goes where it was.
    """
    environment = dict(os.environ)
    # One thread per library call: results then do not depend on how many cores the machine has, and pieces of the work,
    # not the insides of one call, are what runs side by side.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        environment[name] = "1"
    environment["PYTHONHASHSEED"] = "0"
    environment["PYTHONUNBUFFERED"] = "1"
    before = read_json(run.folder / "launched.json")
    known = {"asked": before.get("asked") or now(), "starter": myself(), "title": before.get("title")}
    where = where or before.get("where")
    more = {"where": where} if where else {}
    write_json(run.folder / "launched.json", {**known, **more})
    if where and where.get("kind") == "slurm":
        from phidias_lab.compute import batch

        batch.submit(run, where, known)
        return
    with open(run.folder / "log.txt", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "phidias_lab.flow", str(run.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=run.folder,
            env=environment,
            start_new_session=True,
        )
    _children[str(run.folder)] = process
    try:
        born = psutil.Process(process.pid).create_time()
    except psutil.Error:
        born = time.time()
    write_json(
        run.folder / "launched.json",
        {
            "pid": process.pid,
            "born": born,
            "host": socket.gethostname(),
            **known,
            "lab": os.environ.get("PHIDIAS_LAB"),
            **more,
        },
    )


def runs(root: str | Path | None = None) -> list[Run]:
    """All runs, newest first."""
    root = settings.runs_root() if root is None else Path(root)
    if not root.is_dir():
        return []
    found = [Run(p) for p in root.iterdir() if os.path.isfile(p / "order.json")]  # of others, one may be unreadable
    return sorted(found, key=lambda run: run.id, reverse=True)


def find(name: str, root: str | Path | None = None) -> Run:
    """The run of that id, of that unique beginning or ending of an id, or the `last` one; see `last`."""
    known = runs(root)
    if name == LAST:
        return last(root=root)
    if os.sep in name and (Path(name) / "order.json").is_file() and (Path(name) / "asked.json").is_file():
        return Run(Path(name).absolute())
    exact = [r for r in known if r.id == name]
    close = exact or [r for r in known if name and (r.id.startswith(name) or r.id.endswith(name))]
    if len(close) == 1:
        return close[0]
    if close:
        raise ParameterError(
            f"{name!r} fits {len(close)} runs: {', '.join(r.id for r in close[:5])}. Write more of the id."
        )
    raise ParameterError(
        f"There is no run {name!r}. {nearest(name, [LAST, *(r.id for r in known[:50])])} 'phidias runs' lists them."
    )


def last(done: bool = False, root: str | Path | None = None) -> Run:
    """The newest run; with `done` the newest that is done, which is the one that has a product."""
    known = runs(root)
    if not known:
        raise ParameterError("There is no run yet. 'phidias run CHAIN' makes one.")
    if not done:
        return known[0]
    for run in known:
        if run.status == DONE:
            return run
    raise ParameterError(
        f"No run is done yet; the newest, {known[0].id}, is {known[0].status}. 'phidias runs show {LAST}' tells more."
    )


def prune(
    *,
    older_than: timedelta | None = None,
    keep: int | None = None,
    states: Sequence[str] = ENDED,
    dry_run: bool = False,
    root: str | Path | None = None,
) -> list[tuple[str, int]]:
    """Remove ended runs: those older than a time, beyond the newest `keep`, in the given states. Gives ids and bytes."""
    pruned = []
    for run in _prunable(older_than, keep, states, root):
        try:
            pruned.append((run.id, run.size_bytes if dry_run else run.remove()))
        except (OSError, ParameterError):  # somebody else's, or resumed just now: it stays, and is not in the answer
            continue
    return pruned


def _prunable(older_than, keep, states, root) -> Iterator[Run]:
    for state in states:
        if state not in ENDED:
            raise ParameterError(f"Runs that are {state!r} cannot be pruned. {nearest(state, ENDED)}")
    ended = [r for r in runs(root) if r.status in states]
    limit = datetime.now(UTC) - older_than if older_than is not None else None
    for position, run in enumerate(ended):
        if keep is not None and position < keep:
            continue
        if limit is not None and run.created > limit:
            continue
        yield run
