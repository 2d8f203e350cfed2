"""A Dask cluster on this machine or on a centre's nodes, by one call.

    >>> import phidias_lab
    >>> with phidias_lab.cluster("slurm-gpu", workers=2) as cluster:    # doctest: +SKIP
    ...     cluster.wait_for_workers()
    ...     phidias_lab.run("ocean.gridding", on=cluster).result()

The places and what may be asked of them stand in the site file. Everything is spoken over TLS with keys of the cluster's
own. Dask's pages are served when they are asked for (`Cluster.dashboard`), and to the owner alone; a port for them is never
opened, because they know no log-in and anyone on the node could read them.

A lost worker is replaced. When the owner ends, however it ends, the jobs end.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import html
import os
import secrets
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from phidias_lab.compute import environment, keys, slurm
from phidias_lab.compute import pages as dask_pages
from phidias_lab.compute import request as requests
from phidias_lab.compute import site as sites
from phidias_lab.compute import worker as workers_of
from phidias_lab.compute.request import Request
from phidias_lab.compute.runs import read_json, write_json
from phidias_lab.contract.chain import Chain
from phidias_lab.contract.resources import Resources
from phidias_lab.errors import FULL, MissingExtraError, ParameterError, PhidiasError, RunFailedError

ASKED, PENDING, RUNNING, LOST = "asked", "pending", "running", "lost"
STATES = (ASKED, PENDING, RUNNING, LOST)
#: Seconds a worker waits for its scheduler before its job ends.
DEATH_TIMEOUT = 30
#: Jobs that end in a row before their worker reported, after which no more are submitted.
_HOPELESS = 3
_PERIOD = 1.0


@dataclass(frozen=True)
class Worker:
    """One worker: asked (no job yet), pending (its job waits or its process is starting), running, or lost."""

    name: str
    state: str
    reason: str = ""
    expected_start: datetime | None = None
    job: str | None = None
    node: str = ""

    def __str__(self):
        parts = [
            self.state,
            self.reason,
            f"expected to start {slurm.moment(self.expected_start)}" * bool(self.expected_start),
        ]
        parts += [f"on {self.node}" * bool(self.node), f"job {self.job}" * bool(self.job)]
        return f"{self.name}: " + ", ".join(p for p in parts if p)


def cluster(
    name: str = "local",
    *,
    workers: int | None = None,
    cores: int | None = None,
    memory: str | int | None = None,
    gpus: int | None = None,
    hours: float | None = None,
    chain: str | Chain | type[Chain] | None = None,
    adapt: tuple[int, int] | None = None,
) -> Cluster:
    """Dask workers at a place of the site: "local", "slurm", "slurm-gpu" or another name of its site file.

    Each worker gets `cores`, `memory` ("8GiB"), `gpus` and `hours` of wall time; what is not given is what `chain` declares,
    else the site's default. `adapt=(least, most)` lets the number of workers follow the work. Returns when the workers
    are asked for; `wait_for_workers` waits until they run.
    """
    here = sites.current()
    need = _need(chain)
    if adapt is not None:
        adapt = _range(adapt)
        if workers is None:
            workers = adapt[0]
        requests.request(here, name, workers=adapt[1])  # refuses a number the site does not allow
    asked = requests.request(here, name, workers=workers, cores=cores, memory=memory, gpus=gpus, hours=hours, need=need)
    made = Cluster(asked, here)
    if adapt is not None:
        made.adapt(*adapt)
    return made


def places() -> dict[str, str]:
    """Where `cluster`, and `run` with `on`, may go on this site: each name with its title."""
    return {name: place.get("title") or name for name, place in sites.current()["clusters"].items()}


def _need(chain: Any) -> Resources | None:
    if chain is None:
        return None
    if isinstance(chain, str):
        from phidias_lab.contract import registry

        return registry.chain(chain).resources
    if isinstance(chain, Chain) or (isinstance(chain, type) and issubclass(chain, Chain)):
        return chain.resources
    raise ParameterError(f"chain is {chain!r:.80}; give a chain's id, its class or a chain.")


def _range(adapt: Any) -> tuple[int, int]:
    whole = isinstance(adapt, tuple | list) and len(adapt) == 2 and all(type(n) is int for n in adapt)
    if not whole or not 0 <= adapt[0] <= adapt[1] or adapt[1] < 1:
        raise ParameterError(f"adapt is {adapt!r}; give the least and the most workers, for example (0, 4).")
    return adapt[0], adapt[1]


def _check_interface(place: Mapping, name: str) -> None:
    wanted, here = place.get("interface"), psutil.net_if_addrs()
    if wanted and wanted not in here:
        raise ParameterError(
            f"The place {name} works over the network interface {wanted!r}, which this machine does not have; it has "
            f"{', '.join(here)}. Ask for the cluster on a machine of the site, or mend clusters.{name}.interface in the "
            "site file."
        )


class Cluster:
    """Workers of one owner. It ends with `close`, with its `with` block, or with the process that made it."""

    def __init__(self, asked: Request, site: Mapping):
        self.request = asked
        self.site = site
        self.place = requests.place(site, asked.place)
        self._lock = threading.RLock()
        self._client = None
        self._dask: Any = None
        self._pages: dask_pages.Pages | None = None
        self._dog: subprocess.Popen | None = None
        self._closed = threading.Event()
        self._trouble: str | None = None
        self._lost: list[Worker] = []
        self._came: deque[tuple[str, str]] = deque()
        self._running: dict[str, Worker] = {}
        self._addresses: dict[str, str] = {}
        self._absent: dict[str, int] = {}
        self._failures = 0
        self._wanted = (asked.workers, asked.workers)
        _check_interface(self.place, asked.place)
        above = keys.root(self.place)
        keys.clean(above)
        self.name = f"phidias-{secrets.token_hex(6)}"
        self.folder = above / self.name
        atexit.register(_close, weakref.ref(self))
        try:
            keys.create(self.folder)
            self._start()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and error.errno in FULL:
                raise keys.unwritable(self.folder, error) from None
            raise

    def _start(self) -> None:
        about = {
            **keys.myself(),
            "name": self.name,
            "place": self.request.place,
            "kind": self.request.kind,
            "slurm": self.site["slurm"],
        }
        write_json(self.folder / "about.json", about)
        settings = {"environment": environment.fingerprint(), "gpus": self.request.gpus}
        write_json(self.folder / "settings.json", settings)
        self._dog = subprocess.Popen(
            [sys.executable, "-m", "phidias_lab.compute.watchdog", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": environment.python_path()},
        )
        with _closed_to_others(self.folder):
            self._dask = _made(self)
            self._dask.came = self._came.append
        write_json(self.folder / "about.json", {**about, "address": self._dask.scheduler_address})
        self._keep(*self._wanted)
        threading.Thread(target=self._watch, name=f"{self.name}-watch", daemon=True).start()
        self._submitted()

    # What a worker gets -------------------------------------------------------------------------------------------

    death_timeout = DEATH_TIMEOUT

    @property
    def threads(self) -> int:
        """Tasks of a worker at a time: one for each GPU, else one for each core."""
        return self.request.gpus or self.request.cores

    @property
    def scratch(self) -> str | None:
        """The folder on a worker's node for what does not fit into its memory."""
        named = self.place.get("scratch")
        return named.replace("{user}", getpass.getuser()) if named else None

    def worker_words(self) -> list[str]:
        """What a worker is told beside what Dask tells every worker."""
        words = ["--folder", str(self.folder)]
        words += ["--resources", f"GPU={self.request.gpus}"] if self.request.gpus else []
        if self.request.kind == "slurm" and self.request.minutes > 10:
            # A worker that leaves before its wall time is over hands on what it holds.
            words += ["--lifetime", f"{int(self.request.minutes * 60 - 120)}s"]
        return words

    def _submitted(self) -> None:
        """Wait until every job is in the queue, so that a request Slurm refuses is refused here and now."""
        end = time.monotonic() + self.site["slurm"]["query_timeout"] * 2
        while (
            time.monotonic() < end and self._trouble is None and set(self._dask.worker_spec) - set(self._dask.workers)
        ):
            time.sleep(0.02)
        self.say_trouble()

    # What a user does ---------------------------------------------------------------------------------------------

    def scale(self, workers: int) -> None:
        """Have so many workers from now on; one that is lost is replaced."""
        requests.whole("workers", workers, least=0)
        requests.request(self.site, self.request.place, workers=workers)
        self._keep(workers, workers)

    def adapt(self, least: int, most: int) -> None:
        """Let the number of workers follow the work, between these numbers."""
        least, most = _range((least, most))
        requests.request(self.site, self.request.place, workers=most)
        self._keep(least, most)

    def _keep(self, least: int, most: int) -> None:
        with self._lock:
            self._open()
            self._wanted, self._failures, self._trouble = (least, most), 0, None
            (self.folder / workers_of.REFUSED).unlink(missing_ok=True)
            if least == most:
                self._dask.scale(least)
            # Also with a fixed number: only this asks again for a worker that was lost.
            self._dask.adapt(minimum=least, maximum=most, interval="1s", wait_count=3 if least == most else 30)

    def wait_for_workers(self, workers: int | None = None, timeout: float = 120.0) -> None:
        """Wait until so many workers (all that are asked for) run."""
        wanted = self._wanted[0] if workers is None else requests.whole("workers", workers, least=0)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
            raise ParameterError(f"timeout is {timeout!r}; it must be a number of seconds from 0 up.")
        if wanted > self._wanted[1]:
            raise ParameterError(
                f"{wanted} workers cannot come: {self._wanted[1]} are asked for. Call scale({wanted}) first."
            )
        end = time.monotonic() + timeout
        while True:
            self._open()
            self.say_trouble()
            if self.running >= wanted:
                return
            if time.monotonic() >= end:
                break
            time.sleep(0.05)
        found = self.workers
        running = sum(w.state == RUNNING for w in found)
        waits = next((w for w in found if w.state in (PENDING, ASKED)), None)
        why = f" The next one is {waits.state}: {waits.reason}" if waits else ""
        if waits and waits.expected_start:
            why += f", expected to start {slurm.moment(waits.expected_start)}"
        raise RunFailedError(
            f"{wanted} workers were wanted on {self.request.place} and {running} run after {timeout:g} s."
            f"{why + '.' if why else ''} Wait longer, ask for fewer or smaller ones, or choose another place."
        )

    @property
    def client(self):
        """The Dask client of this cluster; what is computed afterwards in this process is computed here."""
        with self._lock:
            self._open()
            self.say_trouble()
            if self._client is None:
                from distributed import Client

                self._client = Client(self._dask)
            return self._client

    def dashboard(self) -> str:
        """Serve Dask's pages of this cluster (tasks, memory, profile), and give their address on your Jupyter server.

        They open in the browser in which you are logged in there; nobody else gets them. They end with the cluster.
        """
        with self._lock:
            self._open()
            if self._pages is None:
                self._pages = dask_pages.Pages(self)
            return self._pages.address

    @property
    def address(self) -> str:
        """Where the scheduler listens, for processes that hold the keys."""
        return self._dask.scheduler_address

    @property
    def workers(self) -> list[Worker]:
        """Every worker with its state; the last lost ones at the end."""
        found = []
        connected = self._connected()
        jobs = slurm.my_jobs(self.site) if self.request.kind == "slurm" and self._dask is not None else {}
        names = list(getattr(self._dask, "worker_spec", ()))
        members = dict(getattr(self._dask, "workers", {}))
        if jobs and self._behind(members, connected, jobs):
            jobs = slurm.my_jobs(self.site, fresher_than=0.0)
        for name in sorted(names, key=str):
            job = getattr(members.get(name), "job_id", None)
            facts = None if jobs is None or job is None else jobs.get(job)
            label = str(name)
            if label in connected and not (facts and facts.state == slurm.PENDING):
                node = facts.node if facts else workers_of.node() if self.request.kind == "local" else ""
                found.append(Worker(label, RUNNING, "", None, job, node))
            elif job is None and self.request.kind == "slurm":
                found.append(Worker(label, ASKED, "its job is being submitted"))
            elif self.request.kind == "local":
                found.append(Worker(label, PENDING, "its process is starting"))
            elif jobs is None:
                found.append(Worker(label, PENDING, "Slurm does not answer at the moment", None, job))
            elif facts is None:
                found.append(Worker(label, PENDING, "Slurm does not list its job", None, job))
            elif facts.state == slurm.PENDING:
                found.append(Worker(label, PENDING, facts.why, facts.start, job))
            elif facts.state == slurm.RUNNING:
                found.append(
                    Worker(label, PENDING, "its job has begun and the worker is starting", None, job, facts.node)
                )
            else:
                found.append(Worker(label, LOST, facts.why, None, job, facts.node))
        return found + self._lost[-10:]

    def table(self):
        """The workers as a table."""
        import pandas as pd

        columns = ["name", "state", "reason", "expected_start", "job", "node"]
        return pd.DataFrame([asdict(w) for w in self.workers], columns=columns)

    def devices(self) -> dict[str, dict]:
        """For each running worker its node, its Slurm job and the GPUs that it was given."""
        names = {address: str(facts["name"]) for address, facts in self._dask.scheduler_info["workers"].items()}
        found = self.client.run(workers_of.devices)
        return {names.get(address, address): facts for address, facts in found.items()}

    @property
    def notes(self) -> str:
        """What the user should know: no GPUs here, or workers that cannot come."""
        said = [*self.request.notes]
        if not self.request.gpus and not self.request.notes:
            said.append("No GPUs were asked for: everything runs on processors.")
        return " ".join([*said, *([self._trouble] if self._trouble else [])])

    def close(self) -> None:
        """End all workers; nothing stays in the queue."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            with contextlib.suppress(OSError):
                (self.folder / "alive").unlink(missing_ok=True)
            # Whatever Dask says at its end, the jobs are cancelled below.
            if self._pages is not None:
                with contextlib.suppress(Exception):
                    self._pages.close()
            for part in (self._client, self._dask):
                if part is not None:
                    with contextlib.suppress(Exception):
                        part.close(timeout=10)
            # Before Dask's own cluster is made nothing is in the queue, which need not be asked.
            about = read_json(self.folder / "about.json") if self._dask is not None else {}
            ended = keys.end(self.folder, about)
            if self._dog is not None and ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._dog.wait(5)  # it sees that the folder is gone

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self):
        if self._closed.is_set():
            return f"<Cluster {self.name} on {self.request.place}: closed>"
        lines = [f"<Cluster {self.name}: {self._asked()}>", *(f"  {w}" for w in self.workers)]
        lines += [f"  {self.notes}"] if self.notes else []
        lines += [f"  Dask's pages: {self._pages.address}"] if self._pages is not None else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        if self._closed.is_set():
            return f"<p>{html.escape(repr(self))}</p>"
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in _cells(w)) + "</tr>" for w in self.workers
        )
        head = "".join(f"<th>{title}</th>" for title in ("Worker", "State", "Why", "Expected start", "Job", "Node"))
        link = f"<br>Dask's pages: {self._pages.address._repr_html_()}" if self._pages is not None else ""
        return (
            f"<p><b>{html.escape(self._asked())}</b><br>{html.escape(self.notes)}{link}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _asked(self) -> str:
        """What is asked for now, which may not be what was asked for first."""
        least, most = self._wanted
        return f"{least} to " * (least < most and self._trouble is None) + str(replace(self.request, workers=most))

    # What goes on beside ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._closed.is_set():
            raise RunFailedError(f"The cluster {self.name} is closed. Make another with phidias_lab.cluster().")

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    @property
    def running(self) -> int:
        """How many workers run."""
        return len(self._connected())

    @property
    def dask(self) -> Any:
        """Dask's own cluster object."""
        return self._dask

    def say_trouble(self) -> None:
        """Raise the sentence that says why no workers can come, if they cannot."""
        if self._trouble is not None:
            raise RunFailedError(self._trouble)

    def _connected(self) -> dict[str, str]:
        """Names of the workers the scheduler knows, with their addresses."""
        scheduler = getattr(self._dask, "scheduler", None)
        if scheduler is None:
            return {}
        return {str(w.name): address for address, w in list(scheduler.workers.items())}

    @staticmethod
    def _behind(members: Mapping, connected: Mapping, jobs: Mapping) -> bool:
        """Whether a look at Slurm is older than what the scheduler knows: a worker is there whose job waited then."""
        ids = [m.job_id for name, m in members.items() if str(name) in connected and m.job_id]
        return any(i not in jobs or jobs[i].state == slurm.PENDING for i in ids)

    def _watch(self) -> None:
        """Notice what was lost and why; let the adaption replace it, but not for ever where no job lives."""
        while not self._closed.wait(_PERIOD):
            try:
                self._notice()
            except Exception as error:  # noqa: BLE001 - a thread that died would notice nothing any more
                print(f"phidias_lab: while watching the cluster {self.name}: {error!r}", file=sys.stderr)

    def _notice(self) -> None:
        # Told one by one and not seen, because one may come, be lost and be replaced between two looks.
        came = [self._came.popleft() for _ in range(len(self._came))]
        connected, spec = self._connected(), {str(n) for n in self._dask.worker_spec}
        members = {str(n): m for n, m in dict(self._dask.workers).items()}
        jobs: dict | None = {}
        if self.request.kind == "slurm":
            # Slurm is asked often only while something is under way.
            jobs = slurm.my_jobs(self.site, fresher_than=1.5 if set(members) - set(connected) else 10.0)
        for name, address in came:
            self._gone(name, spec)
            job = getattr(members.get(name), "job_id", None)
            node = jobs[job].node if jobs and job in jobs else ""
            self._running[name] = Worker(name, RUNNING, "", None, job, node)
            self._addresses[name] = address
            self._failures = 0
        for name in list(self._running):
            if connected.get(name) != self._addresses[name]:
                self._gone(name, spec)
        self._refused_environment()
        for name, member in members.items():
            job = member.job_id or (str(member.process.pid) if member.process is not None else None)
            if name in connected or job is None or jobs is None or self._trouble:
                continue
            facts = jobs.get(job)
            lives = facts is not None and facts.state != slurm.ENDED
            if lives or (member.process is not None and member.process.poll() is None):
                self._absent.pop(job, None)
                continue
            # Twice, because a job may be missing from one answer.
            self._absent[job] = self._absent.get(job, 0) + 1
            if self._absent[job] < 2:
                continue
            why = facts.why if facts else "its process ended" if member.process else "Slurm no longer lists its job"
            self._lose(Worker(name, LOST, f"{why}, before its worker reported", None, job, facts.node if facts else ""))
            self._failures += 1
            if self._failures >= _HOPELESS:
                self._give_up(
                    f"{_HOPELESS} workers on {self.request.place} ended one after the other before they reported: "
                    f"{why}. {self._last_words(name, job)}No more are submitted; mend the cause and call scale() again."
                )
                return
            self._dask.loop.add_callback(self._forget, name, member)

    def _gone(self, name: str, spec: set[str]) -> None:
        """A worker that ran and no longer does; it counts as lost if it was still wanted."""
        before = self._running.pop(name, None)
        if before is None or name not in spec or self._closed.is_set():
            return
        facts = (slurm.my_jobs(self.site, fresher_than=0.0) or {}).get(before.job) if before.job else None
        ended = facts is not None and facts.state == slurm.ENDED
        why = facts.why if ended else "it fell silent, or its process ended"
        self._lose(Worker(name, LOST, why, None, before.job, before.node))

    def _lose(self, worker: Worker) -> None:
        with self._lock:
            self._lost.append(worker)

    def _forget(self, name: str, member: Any) -> None:
        """Let the adaption see that a worker is missing. (In Dask's own thread.)"""
        for key, known in list(self._dask.workers.items()):
            if known is member:
                del self._dask.workers[key]

    def _refused_environment(self) -> None:
        refused = read_json(self.folder / workers_of.REFUSED)
        if refused and self._trouble is None:
            self._give_up(
                f"The workers on {self.request.place} have another environment than this process: "
                f"{refused.get('differences')} (python of the worker: {refused.get('python')}). No work was started. Start "
                "both from one environment; the site file names that of the workers (clusters.NAME.environment)."
            )

    def _give_up(self, sentence: str) -> None:
        self._trouble = sentence
        self._wanted = (0, self._wanted[1])
        self._dask.adapt(minimum=0, maximum=0, interval="1s")
        self._dask.scale(0)

    def refused(self, error: Exception) -> None:
        """A worker could not even be asked for."""
        if self._trouble is None:
            if isinstance(error, OSError) and error.errno in FULL:
                error = keys.unwritable(self.folder, error)
            said = str(error) if isinstance(error, PhidiasError) else f"it cannot be started: {error}"
            self._trouble = f"No worker on {self.request.place}: {said}"

    def _last_words(self, name: str, job: str) -> str:
        log = self.folder / (f"job-{job}.log" if self.request.kind == "slurm" else f"{name}.log")
        try:
            lines = log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f"The end of its log: {' / '.join(line.strip() for line in lines[-2:])[:400]}. " if lines else ""


def _close(reference: weakref.ref) -> None:
    left = reference()
    if left is not None:
        left.close()


def _cells(worker: Worker) -> tuple:
    return (
        worker.name,
        worker.state,
        worker.reason,
        slurm.moment(worker.expected_start),
        worker.job or "",
        worker.node,
    )


@contextlib.contextmanager
def _closed_to_others(folder: Path) -> Iterator[None]:
    """No pages and no metrics on the HTTP port that Dask opens all the same, and no files in a place for everybody."""
    import dask

    settings = {
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # Else a folder in /tmp whose name everybody can foresee, and be there first.
        "temporary-directory": str(folder),
        # The cluster's folder is its own and goes with it; not every shared file system knows locks.
        "distributed.worker.use-file-locking": False,
    }
    with dask.config.set(settings):
        yield


def _made(owner: Cluster) -> Any:
    """Dask's own cluster: a SLURMCluster of dask-jobqueue where the place is one of Slurm."""
    try:
        if owner.request.kind == "slurm":
            from phidias_lab.compute import slurm_workers as kind
        else:
            from phidias_lab.compute import local_workers as kind
    except ImportError:
        raise MissingExtraError("A cluster", "slurm") from None
    return kind.cluster(owner)


@contextlib.contextmanager
def connected(folder: str | Path) -> Iterator[Any]:
    """A client of a cluster of mine that another process made, by the folder with its keys."""
    from distributed import Client

    folder = Path(folder)
    about, settings = read_json(folder / "about.json"), read_json(folder / "settings.json")
    if "address" not in about or not keys.owner_lives(folder, about):
        raise RunFailedError(
            f"The cluster {folder.name} has ended. Make another with phidias_lab.cluster() and run the order again on it."
        )
    differs = environment.differences(environment.fingerprint(), settings.get("environment") or {})
    if differs:
        raise RunFailedError(
            f"The cluster {folder.name} was made in another environment: {differs}. No work was started. Make one from the "
            "environment in which the run is asked for."
        )
    try:
        client = Client(about["address"], security=keys.security(folder), timeout=30, set_as_default=False)
    except OSError:
        raise RunFailedError(
            f"The cluster {folder.name} does not answer at {about['address']}. Make another with phidias_lab.cluster()."
        ) from None
    try:
        yield client
    finally:
        client.close()


def summary(owner: Cluster) -> str:
    """'1 running, 1 pending (all nodes that fit are busy)', for one line of progress."""
    found = owner.workers
    parts = []
    for state in (RUNNING, PENDING, ASKED):
        some = [w for w in found if w.state == state]
        if some:
            why = next((w.reason for w in some if w.reason), "")
            parts.append(f"{len(some)} {state}" + (f" ({why})" if why else ""))
    lost = sum(w.state == LOST for w in found)
    return ", ".join([*parts, *([f"{lost} lost"] if lost else [])]) or "no workers"
