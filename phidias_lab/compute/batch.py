"""Runs elsewhere: as a job of Slurm, with workers of their own, or on a cluster that is there already.

A run's worker process is the same everywhere. What differs is who starts it and where its pieces are computed; both stand
in the run's `launched.json` under `where`, so that any process finds the run again.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phidias_lab.compute import cluster as clusters
from phidias_lab.compute import request as requests
from phidias_lab.compute import site as sites
from phidias_lab.compute import slurm, worker
from phidias_lab.compute.runs import Run, read_json, write_json
from phidias_lab.errors import ParameterError, RunFailedError

if TYPE_CHECKING:
    from phidias_lab.contract.resources import Resources

_STARTING = "waits for its job to be listed"


def where(on: str | clusters.Cluster | None, need: Resources, workers: int | None = None) -> dict | None:
    """Where a run is to go, checked: None for a process of this machine with threads."""
    if isinstance(on, clusters.Cluster):
        if workers is not None:
            raise ParameterError("The cluster has its workers already; leave workers out, or call its scale() before.")
        on._open()
        return {"kind": "cluster", "place": on.request.place, "folder": str(on.folder)}
    site = sites.current()
    name = sites.LOCAL if on is None else on
    place = requests.place(site, name)
    if place["kind"] == "local" and not workers:
        return None
    asked = requests.request(site, name, workers=workers or 0, need=need)
    own = requests.controller(asked, site) if asked.workers else asked
    return {
        "kind": asked.kind,
        "place": name,
        "workers": asked.workers,
        "notes": list(asked.notes),
        "site": {"name": site["name"], "slurm": site["slurm"]},
        "job": {"cores": own.cores, "memory": own.memory, "gpus": own.gpus, "minutes": own.minutes},
    }


def submit(run: Run, place_of: Mapping, launched: Mapping) -> None:
    """Put the worker of a run into the queue of Slurm, under the user's own account."""
    site = sites.current()
    place = requests.place(site, place_of["place"])
    lines = slurm.directives(place, name=f"run-{run.id}"[:100], **place_of["job"])
    log = shlex.quote(str(run.folder / "log.txt").replace("%", "%%"))
    script = [
        "#!/bin/bash",
        *(f"#SBATCH {line}" for line in [*lines, f"--output={log}", "--open-mode=append"]),
        *slurm.beginning(site),
        *([] if place_of["job"]["gpus"] else ["export CUDA_VISIBLE_DEVICES="]),
        f"cd {shlex.quote(str(run.folder))}",
        shlex.join(["exec", slurm.python(place, site), "-m", "phidias_lab.flow", str(run.folder)]),
        "",
    ]
    (run.folder / "job.json").unlink(missing_ok=True)
    job = slurm.Slurm(site).submit("\n".join(script))
    write_json(run.folder / "launched.json", {**launched, "where": dict(place_of), "job": job})


def _job(run: Run) -> slurm.Job | bool | None:
    """The job of a run as Slurm has it; None where it is gone, True where Slurm does not answer."""
    launched = run.launched
    job, site = launched["job"], (launched.get("where") or {}).get("site") or {}
    try:
        found = slurm.my_jobs(site)
        if found is not None and job not in found:  # it may be younger than the last look
            found = slurm.my_jobs(site, fresher_than=0.0)
    except (KeyError, TypeError, ValueError):
        return None
    return True if found is None else found.get(job)


def alive(run: Run) -> bool:
    """Whether the job of a run waits or runs. A Slurm that does not answer has ended nothing."""
    if read_json(run.folder / "job.json").get("job") == run.launched["job"]:
        return False
    found = _job(run)
    if found is True or (found is not None and found.state != slurm.ENDED):
        return True
    why = found.why if found is not None else "Slurm no longer lists it"
    with contextlib.suppress(OSError):  # so that it is known when Slurm has forgotten it
        write_json(run.folder / "job.json", {"job": run.launched["job"], "why": why})
    return False


def ending(run: Run) -> str:
    """Why the job of a run is gone, as the second half of a sentence."""
    found = read_json(run.folder / "job.json")
    return f"its job {found.get('job')} on {(run.launched.get('where') or {}).get('place')} is gone: {found.get('why')}"


def waiting(run: Run) -> str:
    """What a run in the queue waits for, and when it is expected to start."""
    found = _job(run)
    place = (run.launched.get("where") or {}).get("place")
    if found is True:
        return f"waits on {place}; Slurm does not answer at the moment"
    if found is None:
        return _STARTING
    if found.state == slurm.PENDING:
        start = f"; expected to start {slurm.moment(found.start)}" if found.start else ""
        return f"waits in the queue of {place}: {found.why}{start}"
    return f"its job has begun on {found.node or place}"


def is_pending(run: Run) -> bool:
    found = _job(run)
    return isinstance(found, slurm.Job) and found.state == slurm.PENDING


def end(run: Run, patience: float = 20.0) -> None:
    """Cancel the job of a run and wait until Slurm has ended it."""
    launched = run.launched
    slurm.Slurm(launched["where"]["site"]).cancel([launched["job"]])
    last = time.monotonic() + patience
    while alive(run) and time.monotonic() < last:
        time.sleep(0.25)


def facts(run: Run) -> dict:
    """Where this process, which is a run's worker, does its work; for the record."""
    place_of = read_json(run.folder / "launched.json").get("where")
    if not place_of:
        return {}
    here = worker.devices()
    return {"where": {"place": place_of.get("place"), "workers": place_of.get("workers", 0), **here}}


class Crew:
    """The workers of a cluster, as the pieces of a run see them."""

    def __init__(self, client: Any, owner: clusters.Cluster | None, say: Callable[[str], None]):
        self.client, self.owner, self.say = client, owner, say

    def compute(self, tasks: Sequence, counted: Callable[[], None]) -> None:
        from concurrent.futures import CancelledError
        from queue import Empty, SimpleQueue

        ended: SimpleQueue = SimpleQueue()
        # One graph, as it is: pieces share what they have in common. Lost with a worker, a piece is computed again.
        futures = self.client.compute(list(tasks), optimize_graph=False, retries=3)
        for future in futures:
            future.add_done_callback(ended.put)
        left, said = len(futures), time.monotonic()
        while left:
            if self.owner is not None:
                self.owner.say_trouble()
            if self.client.status != "running":
                raise self._gone()
            try:
                future = ended.get(timeout=1.0)
            except Empty:
                if self.owner is not None and not self.owner.running and time.monotonic() - said > 5:
                    self.say(f"workers: {clusters.summary(self.owner)}")
                    said = time.monotonic()
                continue
            try:
                future.result()
            except CancelledError:
                raise self._gone() from None
            counted()
            left -= 1

    def _gone(self) -> RunFailedError:
        return RunFailedError(
            "The cluster that computed the pieces has ended. What is finished is kept: resume the run on another one."
        )

    def devices(self) -> list[dict]:
        """Nodes and GPUs of the workers, for the record."""
        return list(self.client.run(worker.devices).values())


@contextlib.contextmanager
def crew(run: Run, report: Callable[[str], None]) -> Iterator[Crew | None]:
    """The workers that a run was given, if it was given any; its own ones end with it."""
    place_of = read_json(run.folder / "launched.json").get("where") or {}
    for note in place_of.get("notes") or ():
        print(note, flush=True)
    if place_of.get("kind") == "cluster":
        with clusters.connected(place_of["folder"]) as client:
            yield Crew(client, None, report)
        return
    if not place_of.get("workers"):
        yield None
        return
    many = place_of["workers"]
    report(f"asking for {many} worker{'s' if many > 1 else ''} on {place_of['place']}")
    with clusters.cluster(place_of["place"], workers=place_of["workers"], chain=run.order.chain) as owner:
        from distributed import Client

        while not owner.running:
            owner.say_trouble()
            report(f"workers: {clusters.summary(owner)}")
            time.sleep(0.2)
        with Client(owner.dask, set_as_default=False) as client:
            yield Crew(client, owner, report)
