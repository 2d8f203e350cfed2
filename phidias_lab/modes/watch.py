"""On the flow: each file that arrives in a folder becomes one run of a chain, exactly once, and its events are told.

>>> phidias_lab.watch("/data/arriving", "atmosphere.screening", pattern="*.nc")    # doctest: +SKIP

A file has arrived when its size and time have stayed the same for a while. Its run is begun by the flow like any other; when
it is done its events are added to the lake's events table, then handed to the hooks, then the ledger says done. Each of
these steps may be repeated without harm, so a watch that is killed at any moment goes on where it was.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from phidias_lab import flow, settings
from phidias_lab.compute import runs
from phidias_lab.compute.request import whole
from phidias_lab.compute.runs import FAILED, INTERRUPTED, RUNNING, WAITING, Run
from phidias_lab.contract import order as orders
from phidias_lab.contract import registry
from phidias_lab.contract.chain import Chain
from phidias_lab.contract.order import Order
from phidias_lab.errors import InputError, ParameterError, PhidiasError, ProductError, as_sentence, nearest
from phidias_lab.lake import catalog, events
from phidias_lab.modes import hooks as hooks_file
from phidias_lab.modes.ledger import CLAIMED, DONE, REFUSED, Ledger, key

#: Names that programs give to what they are still writing.
PARTIAL = (
    ".*",
    "~*",
    "*~",
    "*.part",
    "*.partial",
    "*.tmp",
    "*.temp",
    "*.filepart",
    "*.crdownload",
    "*.download",
    "*.aria2",
)
#: So often a run that was interrupted is resumed; then its file is refused, or one file could hold the stream for ever.
TRIES = 3


class Arrived(NamedTuple):
    """A file as it is listed: what is compared to see that it changes no more, and what the oldest is known by."""

    age: float
    address: str
    size: int
    version: str

    @property
    def key(self) -> str:
        return key(self.address, self.size, self.version)


def watch(folder: str | Path, chain: str | Chain | type[Chain], *, once: bool = False, **how: Any) -> None:
    """Run a chain on each file that arrives in a folder or at an fsspec address, until it is stopped (Ctrl-C, SIGTERM).

    With `once` it returns when all that is there is done. `how` is what `Watch` takes: parameters, pattern, hooks, ...
    """
    with Watch(folder, chain, **how) as watching:
        watching.run(once)


class Watch:
    """A folder that is watched.

    `input` is the chain's input that each file becomes, where it has several; `inputs` are the others. `at_once` bounds the
    runs at one time, `keep_runs` how many runs that have ended keep their folder (all without it). `settle` is for how many
    seconds a file must not have changed. `hooks` is a file (see modes/hooks.py). `tell` is given a dictionary for each file
    that is done ("file", "state", "run", "events", "sentence") and for each remark ("remark").
    """

    def __init__(
        self,
        folder: str | Path,
        chain: str | Chain | type[Chain],
        *,
        parameters: Mapping[str, Any] | None = None,
        input: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        pattern: str = "*",
        recursive: bool = False,
        hooks: str | Path | None = None,
        at_once: int = 2,
        keep_runs: int | None = None,
        settle: float = 2.0,
        every: float = 1.0,
        on: str | None = None,
        workers: int | None = None,
        tell: Callable[[dict], None] = lambda told: None,
    ):
        self.order = _order(chain, parameters or {})
        self.chain_class = registry.chain(self.order.chain)
        self.input = _watched_input(self.chain_class, input)
        self.order = self.order.with_(inputs=_others(self.chain_class, self.input, inputs or {}))
        self.system, self.folder, self.address = _place(folder)
        self.pattern, self.recursive = pattern, recursive
        self.at_once = whole("at_once", at_once, least=1)
        self.keep_runs = None if keep_runs is None else whole("keep_runs", keep_runs, least=0)
        self.settle, self.every, self.on, self.workers, self.tell = settle, every, on, workers, tell
        if on is not None or workers is not None:
            from phidias_lab.compute import batch

            batch.where(on, self.chain_class.resources, workers)
        found = hooks_file.load(hooks) if hooks is not None else {}

        about = {
            "folder": self.address,
            "chain": self.order.chain,
            "input": self.input,
            "parameters": _changed(self.chain_class, self.order.parameters),
            "inputs": dict(self.order.inputs),
        }
        self.ledger = Ledger(settings.runs_root() / ".watch" / key(about), about)
        self.settled: set[bytes] = set()
        self.others: set[str] = set()  # claimed, by others or by the dead
        self.flying: dict[str, Run] = {}
        self.ended: list[str] = []  # runs that may be removed, the oldest first
        self.counts = {DONE: 0, REFUSED: 0, "events": 0}
        self._seen: dict[str, tuple[Arrived, float]] = {}
        self._ready: list[Arrived] = []
        self._looked_for, self._unlisted = 0.0, False
        for name, entry in self.ledger.entries():
            if entry.get("state") == CLAIMED:
                self.others.add(name)
            elif entry:
                self.settled.add(bytes.fromhex(name))
                self.ended += [entry["run"]] if _is_run(entry.get("run")) else []
        self.ended.sort()
        self.queues = [
            hooks_file.Queue(name, hook, self.ledger.folder / "hooks" / name, lambda text: tell({"remark": text}))
            for name, hook in found.items()
        ]
        for queue in self.queues:
            queue.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Files that are there and not yet begun."""
        return len(self._ready)

    def run(self, once: bool = False, each: Callable[[Watch], None] = lambda watching: None) -> None:
        """Watch until it is stopped, or `once` until all that is there is done. `each` is called after every look."""
        while True:
            self.step()
            each(self)
            if once and not (self.flying or self._ready or self._unsettled()):
                self._drain()
                return
            # A long list is looked at less often, so that looking takes a small part of the time.
            time.sleep(min(20.0, max(self.every, 4 * self._looked_for)))

    def step(self) -> None:
        """Look once: at the folder, at the runs that go on, and at what can be begun."""
        self._look()
        for name, run in list(self.flying.items()):
            self._follow(name, run)
        for name in list(self.others):
            self._take(name)
        while self._ready and len(self.flying) < self.at_once:
            arrived = self._ready.pop(0)
            self._take(arrived.key, arrived.address)

    def close(self) -> None:
        """Stop: the runs that go on are stopped too, and the next watch resumes them."""
        with _uninterrupted():
            for name, run in self.flying.items():
                with contextlib.suppress(OSError):
                    if run.status in (WAITING, RUNNING):
                        self.ledger.note(name, stopped=True)  # by us, and not by its user
                        (run.folder / "cancel").touch()
            for run in self.flying.values():
                with contextlib.suppress(OSError, PhidiasError):  # it ends later, and is taken over then
                    run.cancel()
            self.flying.clear()
            for queue in self.queues:
                queue.stop()
            self.ledger.close()

    # What there is ----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """List the folder; what has not changed for a while, and is not known, is ready, the oldest first."""
        now, seen, ready = time.monotonic(), {}, []
        try:
            for arrived in _listed(self.system, self.folder, self.pattern, self.recursive):
                if bytes.fromhex(arrived.key) in self.settled:
                    continue
                before, since = self._seen.get(arrived.address, (None, now))
                since = since if before == arrived else now
                seen[arrived.address] = (arrived, since)
                if now - since >= self.settle and arrived.key not in self.flying and arrived.key not in self.others:
                    ready.append(arrived)
        except OSError as error:  # it was there at the start, and may be again
            if not self._unlisted:
                self.tell({"remark": f"{self.address} cannot be listed: {error.strerror or error}. It is tried again."})
            self._unlisted = True
            return
        self._unlisted = False
        self._seen, self._ready, self._looked_for = seen, sorted(ready), time.monotonic() - now

    def _unsettled(self) -> bool:
        """Whether a file is still arriving; what other watches are at is theirs."""
        return any(found.key not in self.others for found, _ in self._seen.values() if not self._is_settled(found.key))

    def _is_settled(self, name: str) -> bool:
        return bytes.fromhex(name) in self.settled

    # What is done with it ---------------------------------------------------------------------------------------------

    def _take(self, name: str, address: str | None = None) -> None:
        """Claim an input and begin its run, or go on with the run of a claim whose owner is gone."""
        if len(self.flying) >= self.at_once:
            return
        entry = self.ledger.claim(name, address)
        if entry is None:
            self._leave(name, settled=self.ledger.get(name).get("state") != CLAIMED)
            return
        self.others.discard(name)
        if not entry.get("input"):  # a file of the ledger that was damaged, and whose input is not known here
            self._refuse(name, "The ledger's file of this input was damaged.")
            return
        if _is_run(entry.get("run")):
            run = self.flying[name] = Run(settings.runs_root() / entry["run"])
            self._follow(name, run)
        else:
            if entry.get("run"):
                _clear(settings.runs_root() / entry["run"])
            self._begin(name, entry["input"])

    def _leave(self, name: str, settled: bool) -> None:
        if settled:
            self.others.discard(name)
            self.settled.add(bytes.fromhex(name))
        else:
            self.others.add(name)

    def _begin(self, name: str, address: str) -> None:
        try:
            prepared = flow.prepare(self.order, inputs={self.input: {"file": address}})
        except PhidiasError as error:
            if trouble := self._trouble({}):
                raise trouble from None
            self._refuse(name, str(error))
            return
        # What keeps a run from beginning, such as a full disk, is no fault of the file, and ends the watch.
        self.flying[name] = flow.begin(
            prepared, on=self.on, workers=self.workers, noted=lambda run: self.ledger.note(name, run=run.id)
        )

    def _follow(self, name: str, run: Run) -> None:
        """Look at a run that goes on; when it has ended, tell its events and settle its input."""
        status = run.status
        if status in (WAITING, RUNNING):
            return
        entry = self.ledger.get(name)
        if status == runs.DONE:
            self._done(name, run)
        elif status == INTERRUPTED or entry.get("stopped"):
            self._resume(name, run, entry)
        elif status == FAILED and (trouble := self._trouble(run.record.get("error") or {})):
            del self.flying[name]
            self.ledger.release(name, stopped=True)
            raise trouble
        else:
            self._refuse(name, run.error if status == FAILED else f"Its run {run.id} was cancelled.", run)

    def _trouble(self, failure: Mapping) -> PhidiasError | None:
        """What would fail with every file, so is no fault of this one: the watch ends, and later goes on with the file."""
        if failure.get("exit_code") == ProductError.exit_code:
            return ProductError(f"{as_sentence(failure['sentence'])} Then start the watch again.")
        try:
            _look_at(self.order.inputs)
        except PhidiasError as error:
            return error
        return None

    def _resume(self, name: str, run: Run, entry: Mapping) -> None:
        tries = entry.get("tries", 0) + (not entry.get("stopped"))
        if tries > TRIES:
            self._refuse(
                name, f"Its run {run.id} was interrupted {tries} times. {as_sentence(run.error or '')}".strip(), run
            )
            return
        self.ledger.note(name, tries=tries, stopped=False)
        with contextlib.suppress(ParameterError):  # somebody else has resumed it just now
            run.resume()

    def _done(self, name: str, run: Run) -> None:
        try:
            found = flow.events(run)
        except Exception as error:  # noqa: BLE001 - whatever a chain raises is said of its file, and the stream goes on
            what = str(error) if isinstance(error, PhidiasError) else f"{type(error).__name__}: {error}"
            self._refuse(name, f"Its run {run.id} is done, but its events cannot be told: {as_sentence(what)}", run)
            return
        count = 0 if found is None else len(found)
        if count:
            events.append(found)
            for event in found.to_dict("records"):
                for queue in self.queues:
                    queue.add(event)
        self.counts["events"] += count
        self._settle(name, DONE, run, events=count)

    def _refuse(self, name: str, sentence: str | None, run: Run | None = None) -> None:
        self._settle(name, REFUSED, run, sentence=sentence)

    def _settle(self, name: str, state: str, run: Run | None, **more: Any) -> None:
        self.ledger.settle(name, state, **more)
        entry = self.ledger.get(name)
        self.flying.pop(name, None)
        self.settled.add(bytes.fromhex(name))
        self.counts[state] += 1
        self.tell({"file": entry.get("input"), "state": state, "run": run.id if run else None, **more})
        self.ended += [run.id] if run else []
        while self.keep_runs is not None and len(self.ended) > self.keep_runs:
            with contextlib.suppress(OSError, ParameterError):  # gone already, or resumed by its user
                Run(settings.runs_root() / self.ended.pop(0)).remove()

    def _drain(self) -> None:
        for queue in self.queues:
            if left := queue.drain():
                self.tell({"remark": f"{left} events wait for the hook {queue.name}; the next watch sends them."})


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C while all is being stopped would leave it half stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_run(name: str | None) -> bool:
    return bool(name) and (settings.runs_root() / name / "order.json").is_file()


def _clear(folder: Path) -> None:
    """Remove the folder of a run that was killed before it was one, and nothing else."""
    with contextlib.suppress(OSError):
        for name in ("launched.json", "asked.json"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


# What is watched, and for what ----------------------------------------------------------------------------------------


def _order(chain: str | Chain | type[Chain], parameters: Mapping[str, Any]) -> Order:
    known = chain.parameters if isinstance(chain, Chain) else {}
    chain_id = chain if isinstance(chain, str) else registry.id_of(chain if isinstance(chain, type) else type(chain))
    if chain_id is None:
        raise ParameterError(f"{chain} is not registered, so no worker could find it (docs/do/add-a-chain.md).")
    found = registry.chain(chain_id)
    return Order(chain_id, found.version, found(**{**known, **parameters}).parameters)


def _changed(chain: type[Chain], parameters: Mapping[str, Any]) -> dict:
    """The parameters that are not as declared. They tell a stream from others, and a later version's new ones do not."""
    declared = chain.declared()
    return {name: value for name, value in parameters.items() if value != declared[name].default}


def _watched_input(chain: type[Chain], name: str | None) -> str:
    if not chain.inputs:
        raise ParameterError(f"{chain.id} has no input, so no file can be given to it. Choose a chain that has one.")
    if name is not None:
        if name not in chain.inputs:
            raise ParameterError(f"{chain.id} has no input {name!r}. {nearest(name, chain.inputs)}")
        return name
    needed = [n for n, wanted in chain.inputs.items() if not wanted.optional and wanted.default is None]
    choice = needed if len(needed) == 1 else list(chain.inputs)
    if len(choice) > 1:
        raise ParameterError(
            f"{chain.id} has the inputs {', '.join(choice)}. Say which one the files are for (--files-are, input=)."
        )
    return choice[0]


def _others(chain: type[Chain], watched: str, given: Mapping[str, Any]) -> dict[str, dict]:
    """References to the other inputs; one that is missing is refused now and not with each file."""
    found = {}
    for name in given:
        if name not in chain.inputs or name == watched:
            why = "is what the files are for" if name == watched else f"is no input. {nearest(name, chain.inputs)}"
            raise ParameterError(f"The input {name!r} of {chain.id} {why}".rstrip(".") + ".")
    for name, wanted in chain.inputs.items():
        value = given.get(name, wanted.default)
        if name == watched or (value is None and wanted.optional):
            continue
        if value is None:
            raise InputError(
                f"{chain.id} needs the input {name!r} ({wanted.kind}: {wanted.doc}) beside the files. Give a catalogue "
                "entry or a file."
            )
        reference = orders.reference(value, f"The input {name!r}")
        if "file" in reference and "://" not in reference["file"]:
            reference = {"file": str(Path(reference["file"]).expanduser().absolute())}
        found[name] = reference
    _look_at(found)
    return found


def _look_at(references: Mapping[str, Mapping]) -> None:
    """Refuse references that do not open."""
    for reference in references.values():
        catalog.look(reference)


def _place(folder: str | Path) -> tuple[Any, str, str]:
    """The file system, the folder in it and the address of a place to be watched."""
    text = str(folder)
    if not text.strip() or "\0" in text:
        raise InputError(
            "The folder to be watched is empty; it must name a folder or an address such as s3://bucket/in."
        )
    try:
        system, inner = fsspec.core.url_to_fs(text if "://" in text else str(Path(text).expanduser().absolute()))
        there = system.isdir(inner)
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"{text} cannot be watched: {as_sentence(error)} Name another place.") from None
    if not there:
        raise InputError(f"{text} is no folder, so no file can arrive in it. Make it, or check its name.")
    local = _is_local(system)
    inner = os.path.realpath(inner) if local else inner
    if local and settings.runs_root().resolve().is_relative_to(inner):
        raise InputError(f"{text} holds the runs ({settings.runs_root()}), which would be taken for files that arrive. "
                         "Watch a folder of its own.")  # fmt: skip
    return system, inner, inner if local else system.unstrip_protocol(inner)


def _is_local(system: Any) -> bool:
    return "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)


def _listed(system: Any, folder: str, pattern: str, recursive: bool) -> Iterator[Arrived]:
    """The files that have a name of the pattern and are not known by their name as unfinished; empty ones have not begun."""
    for path, size, age, version in (_on_disk if _is_local(system) else _at_an_address)(system, folder, recursive):
        name = path.rsplit("/", 1)[-1]
        if (
            size
            and fnmatch.fnmatchcase(name, pattern)
            and not any(fnmatch.fnmatchcase(name.lower(), p) for p in PARTIAL)
        ):
            yield Arrived(age, path, size, version)


def _on_disk(system: Any, folder: str, recursive: bool) -> Iterator[tuple]:
    with os.scandir(folder) as found:
        for entry in found:
            if recursive and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                with contextlib.suppress(PermissionError, FileNotFoundError):
                    yield from _on_disk(system, entry.path, recursive)
            else:
                with contextlib.suppress(OSError):  # it may be gone by now, or a link that leads nowhere
                    if entry.is_file():
                        told = entry.stat()
                        yield entry.path, told.st_size, told.st_mtime, str(told.st_mtime_ns)


def _at_an_address(system: Any, folder: str, recursive: bool) -> Iterator[tuple]:
    system.invalidate_cache()
    for path, told in system.find(folder, maxdepth=None if recursive else 1, detail=True).items():
        when = next(
            (told[n] for n in ("mtime", "LastModified", "last_modified", "updated", "created") if told.get(n)), 0
        )
        age = when.timestamp() if hasattr(when, "timestamp") else float(when) if isinstance(when, int | float) else 0.0
        yield system.unstrip_protocol(path), told["size"] or 0, age, str(told.get("ETag") or told.get("etag") or when)
