"""Many orders: each file of a stream becomes one run of a chain, exactly once, and its events are put into the lake's table.

A run is begun by the flow like any other; when it is done its events are added to the lake's events table, then the ledger
says done. Each of these steps may be repeated without harm, so a process that is killed at any moment, and started again,
goes on where it was. Where the files come from is the matter of those who build on this: a folder that is watched
(modes/watch.py), or the files that are there (modes/campaign.py). Of one folder, chain and parameters they share a ledger.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from phidias_lab.errors import (
    InputError,
    OutsideError,
    ParameterError,
    PhidiasError,
    ProductError,
    as_sentence,
    nearest,
)
from phidias_lab.lake import catalog, events, readers
from phidias_lab.modes.ledger import CLAIMED, DONE, REFUSED, SKIPPED, Ledger, key

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


class Stream:
    """Files that become runs, and what is known of each. It is used within a `with` block, or closed."""

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
        at_once: int = 2,
        keep_runs: int | None = None,
        on: Any = None,
        workers: int | None = None,
        tell: Callable[[dict], None] = lambda told: None,
    ):
        self.order = _order(chain, parameters or {})
        self.chain_class = registry.chain(self.order.chain)
        self.input = _watched_input(self.chain_class, input)
        self.order = self.order.with_(inputs=_others(self.chain_class, self.input, inputs or {}))
        self.system, self.folder, self.address = _place(folder)
        self.pattern, self.recursive = pattern, recursive
        # What is read with other files is no file of its own, unless somebody asks for it by name.
        self.companions = readers.companions() if pattern == "*" else ()
        self.at_once = whole("at_once", at_once, least=1)
        self.keep_runs = None if keep_runs is None else whole("keep_runs", keep_runs, least=0)
        self.on, self.workers, self.tell = on, workers, tell
        if on is not None or workers is not None:
            from phidias_lab.compute import batch

            batch.where(on, self.chain_class.resources, workers)
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
        self.counts = {DONE: 0, REFUSED: 0, SKIPPED: 0, "events": 0}
        self._ready: list[Arrived] = []
        for name, entry in self.ledger.entries():
            if entry.get("state") == CLAIMED:
                self.others.add(name)
            elif entry:
                self.settled.add(bytes.fromhex(name))
                self.ended += [entry["run"]] if _is_run(entry.get("run")) else []
        self.ended.sort()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Files that are there and not yet begun."""
        return len(self._ready)

    def step(self) -> None:
        """Look at the runs that go on, and begin what can be begun."""
        for name, run in list(self.flying.items()):
            self._follow(name, run)
        for name in list(self.others):
            self._take(name)
        while self._ready and len(self.flying) < self.at_once:
            arrived = self._ready.pop(0)
            self._take(arrived.key, arrived)

    def listed(self) -> Iterator[Arrived]:
        """The files that are there now."""
        return _listed(self.system, self.folder, self.pattern, self.recursive, self.companions)

    def close(self) -> None:
        """Stop: the runs that go on are stopped too, and whoever comes next resumes them."""
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
            self.ledger.close()

    def _take(self, name: str, arrived: Arrived | None = None) -> None:
        """Claim an input and begin its run, or go on with the run of a claim whose owner is gone."""
        if len(self.flying) >= self.at_once:
            return
        entry = self.ledger.claim(name, **({"input": arrived.address, "bytes": arrived.size} if arrived else {}))
        if entry is None:
            self._leave(name, settled=self.ledger.get(name).get("state") != CLAIMED)
            return
        self.others.discard(name)
        if not entry.get("input"):  # a file of the ledger that was damaged, and whose input is not known here
            self._settle(name, REFUSED, None, sentence="The ledger's file of this input was damaged.")
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
        except OutsideError as error:
            self._settle(name, SKIPPED, None, sentence=str(error))
            return
        except PhidiasError as error:
            if trouble := self._trouble({}):
                raise trouble from None
            self._settle(name, REFUSED, None, sentence=str(error))
            return
        # What keeps a run from beginning, such as a full disk, is no fault of the file, and ends the stream.
        self.flying[name] = self._started(prepared, lambda run: self.ledger.note(name, run=run.id))

    def _started(self, prepared: Any, noted: Callable[[Run], None]) -> Run:
        return flow.begin(prepared, on=self.on, workers=self.workers, noted=noted)

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
        elif status == FAILED and (run.record.get("error") or {}).get("kind") == OutsideError.__name__:
            self._settle(name, SKIPPED, run, sentence=run.error)
        elif status == FAILED and (trouble := self._trouble(run.record.get("error") or {})):
            del self.flying[name]
            self.ledger.release(name, stopped=True)
            raise trouble
        else:
            sentence = run.error if status == FAILED else f"Its run {run.id} was cancelled."
            self._settle(name, REFUSED, run, sentence=sentence)

    def _trouble(self, failure: Mapping) -> PhidiasError | None:
        """What would fail with every file, so is no fault of this one: the stream ends, and later goes on with the file."""
        if failure.get("exit_code") == ProductError.exit_code:
            return ProductError(f"{as_sentence(failure['sentence'])} Then start again.")
        try:
            _look_at(self.order.inputs)
        except PhidiasError as error:
            return error
        return None

    def _resume(self, name: str, run: Run, entry: Mapping) -> None:
        tries = entry.get("tries", 0) + (not entry.get("stopped"))
        if tries > TRIES:
            sentence = f"Its run {run.id} was interrupted {tries} times. {as_sentence(run.error or '')}".strip()
            self._settle(name, REFUSED, run, sentence=sentence)
            return
        self.ledger.note(name, tries=tries, stopped=False)
        with contextlib.suppress(ParameterError):  # somebody else has resumed it just now
            self._resumed(run)

    def _resumed(self, run: Run) -> None:
        run.resume()

    def _done(self, name: str, run: Run) -> None:
        try:
            found = flow.events(run)
        except Exception as error:  # noqa: BLE001 - whatever a chain raises is said of its file, and the stream goes on
            what = str(error) if isinstance(error, PhidiasError) else f"{type(error).__name__}: {error}"
            sentence = f"Its run {run.id} is done, but its events cannot be told: {as_sentence(what)}"
            self._settle(name, REFUSED, run, sentence=sentence)
            return
        count = 0 if found is None else len(found)
        if count:
            events.append(found)
            self._tell_of(found)
        self.counts["events"] += count
        self.ledger.note(name, kinds=dict(Counter(found["kind"])) if count else {}, **_facts(run))
        self._settle(name, DONE, run, events=count)

    def _tell_of(self, found: Any) -> None:
        """Tell of events that stand in the table, before the ledger says that their file is done."""

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


def _facts(run: Run) -> dict:
    """What is kept of a run when its folder has gone: how long it took, how much it wrote, and what it said."""
    record = run.record
    said = record.get("said") or {}
    return {
        "seconds": (record.get("measures") or {}).get("wall_seconds"),
        "written": run.size_bytes,
        "synthetic": bool(run.product.item["properties"].get("phidias:synthetic")),
        "said": {"counts": said.get("counts") or {}, "warnings": said.get("warnings") or []},
    }


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
    values = [n for n, wanted in chain.inputs.items() if wanted.role == "values"]
    choice = next((some for some in (needed, values) if len(some) == 1), list(chain.inputs))
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


def _listed(system: Any, folder: str, pattern: str, recursive: bool, without: Sequence[str] = ()) -> Iterator[Arrived]:
    """The files that have a name of the pattern and are not known by their name as unfinished; empty ones have not begun."""
    for path, size, age, version in (_on_disk if _is_local(system) else _at_an_address)(system, folder, recursive):
        name = path.rsplit("/", 1)[-1]
        if (
            size
            and fnmatch.fnmatchcase(name, pattern)
            and not any(fnmatch.fnmatchcase(name.lower(), p) for p in PARTIAL)
            and not any(fnmatch.fnmatchcase(name, p) for p in without)
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
