"""On demand, over many files: each file that is there becomes one run of a chain, exactly once, and a report tells of all.

>>> campaign = phidias_lab.campaign("/data/l1b", "atmosphere.screening", pattern="*_BD7_*",
...                                 period="2018-05-01/2019-04-30")                       # doctest: +SKIP
>>> campaign                                                                              # doctest: +SKIP
<Campaign of atmosphere.screening over /data/l1b: 3% 150 of 5110 files, 2 running, about 19:40:10 left>

Stopped or killed at any moment, and asked for again, it goes on with what is missing; and with what is new, when files have
come meanwhile. The ledger is that of modes/stream.py, so what a watch of the same folder has done is done.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab.compute import cluster as clusters
from phidias_lab.compute import runs
from phidias_lab.compute.runs import INTERRUPTED, WAITING, Progress, Run
from phidias_lab.compute.tasks import Tasks
from phidias_lab.contract.chain import Chain
from phidias_lab.contract.resources import show_memory
from phidias_lab.contract.said import counts_line
from phidias_lab.errors import InputError, ParameterError, ProductError, RunFailedError, as_sentence
from phidias_lab.lake import catalog, drivers, readers
from phidias_lab.modes.ledger import DONE, REFUSED, SETTLED, SKIPPED
from phidias_lab.modes.stream import Arrived, Stream

#: So many of the newest runs of a chain tell how long a file takes, where the campaign itself has done none yet.
_RECORDED = 20
#: So many files that are refused alike before one is done, and for a reason that names none of them, end a campaign.
_DOUBT = 3


def campaign(folder: str | Path, chain: str | Chain | type[Chain], **how: Any) -> Campaign:
    """Begin a campaign and return at once; it goes on beside, for as long as this process lives.

    `how` is what `Campaign` takes: parameters, pattern, period, at_once, on, workers, ... To see the estimate first, and
    begin later, make a `Campaign` and call its `start()`.
    """
    return Campaign(folder, chain, **how).start()


@dataclass(frozen=True)
class Estimate:
    """What a campaign is about to do. `seconds` and `written` (bytes) are None as long as no run tells of a file."""

    files: int
    bytes: int
    done: int
    refused: int
    skipped: int
    left: int
    left_bytes: int
    at_once: int
    seconds: float | None
    written: int | None
    free: int
    runs: int

    def __str__(self):
        before = [f"{self.done} done", f"{self.skipped} skipped", f"{self.refused} refused"]
        time_ = "unknown until the first file is done"
        if self.seconds is not None:
            of = f"{self.runs} run{'s' * (self.runs != 1)}"
            time_ = f"about {timedelta(seconds=round(self.seconds))}, {self.at_once} at once, judged by {of} before"
        write = ""
        if self.written:
            write = f", about {show_memory(self.written)} to write where {show_memory(self.free)} are free"
        lines = {
            "Files": f"{self.files}, {show_memory(self.bytes)}",
            "Before": ", ".join(before),
            "To do": f"{self.left}, {show_memory(self.left_bytes)} to read{write}",
            "Time": time_ if self.left else "nothing is left to do",
        }
        return "\n".join(f"{name:<9}{text}" for name, text in lines.items())


class Campaign(Stream):
    """The files of a folder, or of an fsspec address, as one order of many runs.

    `pattern` and `period` choose files, by names alone where the names tell (else the files are opened for it); a file is
    taken whole. `parameters`, `input`, `inputs`, `recursive`, `at_once`, `keep_runs` and `tell` are those of a watch. `on`
    is a place, where each file becomes a run of its own; with `workers` there, or with a `phidias_lab.cluster`, each is a
    task of a Dask worker. `retry` tries again what was refused.
    """

    def __init__(
        self,
        folder: str | Path,
        chain: str | Chain | type[Chain],
        *,
        period: Any = None,
        retry: bool = False,
        at_once: int | None = None,
        on: Any = None,
        workers: int | None = None,
        every: float = 0.25,
        **how: Any,
    ):
        span = drivers.parse_time(period)
        super().__init__(folder, chain, at_once=2 if at_once is None else at_once, on=on, workers=workers, **how)
        self.period, self.every, self._fixed = period, every, at_once is not None
        if not self._fixed:
            self.at_once = on.running or 1 if isinstance(on, clusters.Cluster) else workers or self.at_once
        try:
            chosen = _chosen(self, span)
        except BaseException:
            self.ledger.close()
            raise
        self.files: dict[str, Arrived] = {arrived.key: arrived for arrived in chosen}
        if retry:
            for name in self.files:
                if bytes.fromhex(name) in self.settled and self.ledger.get(name).get("state") == REFUSED:
                    self.ledger.forget(name)
                    self.settled.discard(bytes.fromhex(name))
        self.others &= self.files.keys()
        self._ready = [a for a in chosen if not self._is_settled(a.key) and a.key not in self.others]
        self.error: BaseException | None = None
        self.estimate = self._estimated()
        self._tasks: Tasks | None = None
        self._cluster: clusters.Cluster | None = None  # of our own
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._closed, self._begun, self._worked = False, time.monotonic(), 0
        self._doubts: set[str] | None = None if self.estimate.refused or self.estimate.done else set()

    def __repr__(self):
        return f"<Campaign of {self.order.chain} over {self.address}: {self.progress}>"

    # What a user does -------------------------------------------------------------------------------------------------

    def start(self) -> Campaign:
        """Let it go on in a thread of its own."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._go_on, name="campaign", daemon=True)
            self._thread.start()
        return self

    def wait(self, timeout: float | None = None) -> Campaign:
        """Wait until it has ended, at most `timeout` seconds; raises what has ended it, if that is not its own end."""
        if self._thread is not None:
            self._thread.join(timeout)
        if self.error is not None:
            raise self.error
        return self

    def cancel(self) -> None:
        """Stop it with the runs that go on. What is done stays done, and the same campaign goes on later."""
        self.close()

    @property
    def going_on(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def progress(self) -> Progress:
        """How far it is, by bytes, with the seconds left as they follow from what was done since it began."""
        settled = [a for name, a in self.files.items() if self._is_settled(name)]
        flying = sum(run.progress.fraction * self.files[name].size for name, run in list(self.flying.items()))
        total, have = sum(a.size for a in self.files.values()), sum(a.size for a in settled)
        worked, since, left = self._worked + flying, time.monotonic() - self._begun, None
        if self._worked:
            left = max(0.0, total - have - flying) / worked * since
        elif self.estimate.seconds is not None:
            left = max(0.0, self.estimate.seconds - since)
        said = [f"{len(settled)} of {len(self.files)} files", f"{self.counts['events']} events"]
        said += [f"{len(self.flying)} running"] if self.flying else []
        said += [f"{self.counts[state]} {state}" for state in (REFUSED, SKIPPED) if self.counts[state]]
        over = len(settled) == len(self.files)
        return Progress((have + flying) / total if total else 1.0, ", ".join(said), None if over else left)

    def table(self) -> Any:
        """What became of each file, as a DataFrame: file, state, events, seconds, bytes, run, sentence."""
        import pandas as pd

        columns = ["file", "state", "events", "seconds", "bytes", "run", "sentence"]
        rows = [{**entry, "file": a.address, "bytes": a.size} for a, entry in self._entries()]
        return pd.DataFrame(rows, columns=columns)

    def report(self) -> dict:
        """The quality report as JSON: files by state, events by kind, what the runs counted and warned of, refusals."""
        found = [(a, entry) for a, entry in self._entries()]
        states = Counter(entry["state"] for _, entry in found)
        done = [entry for _, entry in found if entry["state"] == DONE]
        counts: dict[str, dict] = {}
        warnings: dict[str, dict] = {}
        for entry in done:
            said = entry.get("said") or {}
            for what, count in (said.get("counts") or {}).items():
                sums = counts.setdefault(what, {"total": 0, "used": 0, "left_out": {}})
                sums["total"] += count["total"]
                sums["used"] += count["used"]
                sums["left_out"] = dict(Counter(sums["left_out"]) + Counter(count["left_out"]))
            # The same sentence with other numbers in it is the same warning.
            for alike, sentence in {_alike(s): s for s in said.get("warnings") or ()}.items():
                warnings.setdefault(alike, {"sentence": sentence, "files": 0})["files"] += 1

        def sentences(state: str) -> list[dict]:
            return [{"file": a.address, "sentence": e.get("sentence")} for a, e in found if e["state"] == state]

        return {
            **self.ledger.about,
            "version": self.order.version,
            "pattern": self.pattern,
            "period": self.period
            if self.period is None or isinstance(self.period, str)
            else list(map(str, self.period)),
            "written": runs.now(),
            "synthetic": any(entry.get("synthetic") for entry in done),
            "files": {"total": len(found), **{state: states[state] for state in SETTLED}, "left": _left(states)},
            "bytes": {
                "total": sum(a.size for a, _ in found),
                "done": sum(a.size for a, e in found if e["state"] == DONE),
            },
            "seconds": sum(entry.get("seconds") or 0.0 for entry in done),
            "events": dict(sum((Counter(entry.get("kinds") or {}) for entry in done), Counter()).most_common()),
            "counts": counts,
            "warnings": sorted(warnings.values(), key=lambda one: -one["files"]),
            "refused": sentences(REFUSED),
            "skipped": sentences(SKIPPED),
        }

    @property
    def report_file(self) -> Path:
        """Where the report stands when the campaign has ended, as Markdown; beside it, ending in .json, as JSON."""
        return self.ledger.folder / "report.md"

    # How it goes on ---------------------------------------------------------------------------------------------------

    def run(self, each: Callable[[Campaign], None] = lambda campaign: None) -> None:
        """Do all that is left, in this thread. `each` is called after every look."""
        self._begun = time.monotonic()
        while not self._stop.is_set():
            self.step()
            each(self)
            if not (self.flying or self._ready or self.others):
                return
            self._stop.wait(self.every)

    def step(self) -> None:
        if self._tasks is None and (isinstance(self.on, clusters.Cluster) or self.workers) and self._ready:
            if not isinstance(self.on, clusters.Cluster):
                where = "local" if self.on is None else self.on
                self._cluster = clusters.cluster(where, workers=self.workers, chain=self.chain_class)
            self._tasks = Tasks(self._cluster or self.on)
        if self._tasks is not None and not self._fixed:
            self.at_once = self._tasks.many
        super().step()

    def close(self) -> None:
        """Stop, with the runs that go on, and write the report; the same campaign goes on later."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._closed:
            return
        self._closed = True
        super().close()
        if self._tasks is not None:
            self._tasks.close()
        if self._cluster is not None:
            self._cluster.close()
        document = self.report()
        try:
            write_report(document, self.report_file)
            write_report(document, self.report_file.with_suffix(".json"))
        except ProductError as error:
            self.tell({"remark": str(error)})

    def _go_on(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - `wait` raises it
            self.error = error
        finally:
            try:
                self.close()
            except BaseException as error:  # noqa: BLE001
                self.error = self.error or error

    def _started(self, prepared: Any, noted: Callable[[Run], None]) -> Run:
        if self._tasks is None:
            return super()._started(prepared, noted)
        from phidias_lab import flow

        return flow.begin(prepared, noted=noted, launch=self._tasks.launch)

    def _resumed(self, run: Run) -> None:
        run.resume(None if self._tasks is None else self._tasks.launch)

    def _follow(self, name: str, run: Run) -> None:
        if self._tasks is not None and self._tasks.holds(run) and run.status in (WAITING, INTERRUPTED):
            return
        super()._follow(name, run)

    def _settle(self, name: str, state: str, run: Run | None, **more: Any) -> None:
        super()._settle(name, state, run, **more)
        self._worked += self.files[name].size if state == DONE else 0
        if self._doubts is None or state == SKIPPED:
            return
        sentence = str(more.get("sentence")).replace(run.id if run else "", "")
        self._doubts.add(_alike(sentence))
        if state == DONE or Path(self.files[name].address).name in sentence or len(self._doubts) > 1:
            self._doubts = None
        elif self.counts[REFUSED] == _DOUBT:
            raise RunFailedError(
                f"The first {_DOUBT} files were refused for one reason: {as_sentence(more['sentence'])} If it is no fault "
                "of theirs, mend it and start again with --retry (retry=True). Started again without, the others are tried."
            )

    # What is known ----------------------------------------------------------------------------------------------------

    def _is_settled(self, name: str) -> bool:
        return bytes.fromhex(name) in self.settled

    def _entries(self) -> list[tuple[Arrived, dict]]:
        found = ((arrived, self.ledger.get(name)) for name, arrived in self.files.items())
        return [(arrived, {"state": "waiting", **entry}) for arrived, entry in found]

    def _estimated(self) -> Estimate:
        entries = self._entries()
        states = Counter(entry["state"] for _, entry in entries)
        left = [a.size for a, entry in entries if entry["state"] not in SETTLED]
        rates = [
            (entry["seconds"] / a.size, entry.get("written", 0) / a.size)
            for a, entry in entries
            if entry["state"] == DONE and entry.get("seconds")
        ]
        rates = rates or _recorded(self.order.chain, self.input)
        seconds = written = None
        if rates:
            each, bytes_each = (statistics.median(some) for some in zip(*rates, strict=True))
            seconds = each * sum(left) / min(self.at_once, max(len(left), 1))
            written = round(bytes_each * sum(left)) if self.keep_runs is None else 0
        return Estimate(
            files=len(entries),
            bytes=sum(a.size for a, _ in entries),
            done=states[DONE],
            refused=states[REFUSED],
            skipped=states[SKIPPED],
            left=len(left),
            left_bytes=sum(left),
            at_once=self.at_once,
            seconds=seconds,
            written=written,
            free=shutil.disk_usage(self.ledger.folder).free,
            runs=len(rates),
        )


def _alike(sentence: str) -> str:
    """A sentence without its numbers."""
    return re.sub(r"\d[\d.,:T-]*", "#", sentence)


def _left(states: Mapping[str, int]) -> int:
    return sum(number for state, number in states.items() if state not in SETTLED)


def _recorded(chain: str, input: str) -> list[tuple[float, float]]:
    """Seconds that the newest runs of a chain took, and bytes that they wrote, for each byte of the input."""
    found: list[tuple[float, float]] = []
    for run in (run for run in runs.runs() if f"-{chain}-" in run.id):
        record = run.record
        seconds = (record.get("measures") or {}).get("wall_seconds")
        size = ((record.get("inputs") or {}).get(input) or {}).get("bytes")
        if seconds and size and record["states"][-1]["state"] == runs.DONE:
            found.append((seconds / size, run.size_bytes / size))
        if len(found) == _RECORDED:
            break
    return found


# Which files ----------------------------------------------------------------------------------------------------------


def _chosen(of: Campaign, span: tuple[Any, Any] | None) -> list[Arrived]:
    """The files of a campaign, the first measured first where their names tell, else by name."""
    try:
        there = sorted(of.listed(), key=lambda arrived: arrived.address)
    except OSError as error:
        raise InputError(f"{of.address} cannot be listed: {error.strerror or error}. Check its permissions.") from None
    if not there:
        raise InputError(f"There is no file called {of.pattern!r} in {of.address}. Check the folder and the pattern.")
    told = readers.periods(arrived.address for arrived in there)
    if span is not None:
        told = [_measured(a.address) if when is None else when for a, when in zip(there, told, strict=True)]
        start, end = span
        both = [(a, w) for a, w in zip(there, told, strict=True) if w is None or (w[1] >= start and w[0] < end)]
        if not both:
            first, last = min(w[0] for w in told), max(w[1] for w in told)
            raise InputError(
                f"None of the {len(there)} files in {of.address} was measured in that period; they reach from "
                f"{str(first)[:16]} to {str(last)[:16]}. Choose another period."
            )
        there, told = (list(some) for some in zip(*both, strict=True))
    late = np.datetime64("9999", "s")
    order = sorted(range(len(there)), key=lambda i: (late if told[i] is None else told[i][0], there[i].address))
    return [there[i] for i in order]


def _measured(address: str) -> tuple[np.datetime64, np.datetime64] | None:
    """From when to when a file was measured, for which it is opened; None where it cannot be, which its run will say."""
    try:
        data = catalog.look({"file": address})
        if not ("time" in data and hasattr(data, "dtypes") and np.dtype(data.dtypes["time"]).kind == "M"):
            raise ParameterError(
                f"When {address} was measured stands neither in its name nor in a time of its own. Leave the period out, "
                "and choose files by their names (pattern)."
            )
        import dask

        first, last = dask.compute(data["time"].min(), data["time"].max())
    except ParameterError:
        raise
    except Exception:  # noqa: BLE001 - a damaged file is refused by name when its turn comes
        return None
    return tuple(np.datetime64(getattr(moment, "values", moment), "us") for moment in (first, last))


# What is told of it ---------------------------------------------------------------------------------------------------


def report_lines(report: Mapping[str, Any], most: int | None = None) -> list[tuple[str, str]]:
    """What a report says, for people: a word and a text for each line, with `most` files of each kind that was not done."""
    files, size = report["files"], report["bytes"]
    states = [f"{files[state]} {state}" for state in (*SETTLED, "left") if files[state] or state == DONE]
    lines = [("Files", f"{files['total']}: {', '.join(states)}"), ("Read", f"{show_memory(size['done'])}")]
    if files[DONE]:
        lines.append(("Work", f"{timedelta(seconds=round(report['seconds']))} of runs"))
    kinds = ", ".join(f"{number} {kind}" for kind, number in report["events"].items())
    synthetic = " in synthetic data" if report["synthetic"] else ""
    lines.append(("Events", f"{sum(report['events'].values())}{synthetic}" + (f": {kinds}" if kinds else "")))
    for what, count in report["counts"].items():
        share = f" ({100 * count['used'] / count['total']:.3g} %)" if count["total"] else ""
        lines.append(("Used", counts_line(what, **count) + share))
    lines += [("Warning", f"in {one['files']} of {files[DONE]}: {one['sentence']}") for one in report["warnings"]]
    for state in (REFUSED, SKIPPED):
        for one in report[state][:most]:
            begin = "" if one["file"] in str(one["sentence"]) else f"{one['file']}: "
            lines.append((state.capitalize(), f"{begin}{one['sentence']}"))
        if more := len(report[state][most:] if most is not None else ()):
            lines.append((state.capitalize(), f"and {more} more, which stand in the report"))
    return lines


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report, as JSON where the name ends in .json, else as Markdown."""
    if path.suffix == ".json":
        text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
    else:
        chosen = {"pattern": report["pattern"], "period": report["period"], **report["parameters"]}
        lines = [("Folder", report["folder"]), *((n.capitalize(), str(v)) for n, v in chosen.items() if v is not None)]
        head = f"# Campaign of {report['chain']} {report['version']}\n\nAs of {report['written']}.\n\n"
        text = head + "".join(f"- **{name}**: {text}\n" for name, text in [*lines, *report_lines(report)])
    try:
        runs.write_text(path, text)
    except OSError as error:
        raise ProductError(f"The report {path} cannot be written: {error.strerror}. Choose another place.") from None
