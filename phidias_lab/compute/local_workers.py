"""Dask's side of a cluster: a scheduler in this process, and workers as processes of this machine.

A worker has no nanny: its job, or its process, ends with it and another takes its place. So a worker that stands still is
replaced as soon as it counts as lost, without waiting for a nanny that stands still too.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dask
from distributed import Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster
from tornado.ioloop import PeriodicCallback

from phidias_lab.compute import environment, keys
from phidias_lab.errors import PhidiasError

if TYPE_CHECKING:
    from phidias_lab.compute.cluster import Cluster


class WatchfulScheduler(Scheduler):
    """Dask looks for silent workers once per time-to-live, so it would take up to two of them to notice one."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.periodic_callbacks["worker-ttl"] = PeriodicCallback(self.check_worker_ttl, 1000)


def scheduler_options(owner: Cluster) -> dict:
    """What the scheduler of every place gets: TLS, no pages on its port, and a short patience with silent workers."""
    place = owner.place
    where = {"interface": place["interface"]} if place.get("interface") else {}
    if owner.request.kind == "local":
        where = {"host": "127.0.0.1"}
    return {
        "protocol": "tls://",
        "security": keys.security(owner.folder),
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "worker_ttl": f"{place.get('silent_seconds', 30)}s",
        "allowed_failures": 10,  # workers come and go; a piece is not to blame for that
        **where,
    }


class Members(SpecCluster):
    """What the clusters of all places do alike."""

    #: Where Dask's own displays say that the pages are. It would be a port at which nothing is served.
    dashboard_link = ""

    #: Is told the name and the address of every worker that comes, however short it stays.
    came: Callable[[tuple[str, str]], None] | None = None

    def _new_worker_name(self, number: int) -> str:
        return f"worker-{number}"

    def _update_worker_status(self, op: str, message: Any) -> None:
        if op == "add" and self.came:
            for address, about in message["workers"].items():
                self.came((str(about["name"]), address))
        # Nothing would start a worker again in the same job, so nothing is gained by waiting for it.
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
            super()._update_worker_status(op, message)


async def beside(act: Any, *words: Any) -> Any:
    """Do what takes a while outside Dask's own thread."""
    try:
        doing = asyncio.get_running_loop().run_in_executor(None, act, *words)
    except RuntimeError:  # at the end of Python there are no new threads
        return act(*words)
    return await doing


class WorkerProcess(ProcessInterface):
    """One worker. It ends with its connection to the scheduler, so with the process that made it."""

    job_id: str | None = None

    def __init__(self, scheduler: str, name: Any, owner: Cluster):
        super().__init__()
        self.scheduler, self.name, self.owner = scheduler, str(name), owner
        self.process: subprocess.Popen | None = None

    async def start(self) -> None:
        try:
            await beside(self._begin)
        except (PhidiasError, OSError) as error:
            self.owner.refused(error)
        await super().start()

    async def close(self) -> None:
        await beside(self._end)
        await super().close()

    def command(self) -> list[str]:
        """What it is started with: what dask-jobqueue would write, for this machine."""
        owner = self.owner
        words = ["--name", self.name, "--nthreads", owner.threads, "--memory-limit", owner.request.memory]
        words += ["--death-timeout", owner.death_timeout, "--protocol", "tls://", "--host", "127.0.0.1"]
        words += ["--local-directory", owner.scratch] if owner.scratch else []
        program = [sys.executable, "-m", "phidias_lab.compute.worker", self.scheduler]
        return [str(word) for word in [*program, *words, *owner.worker_words()]]

    def _begin(self) -> None:
        variables = {**os.environ, "PYTHONPATH": environment.python_path(), **environment.SAME_RESULTS}
        with open(self.owner.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.owner.folder,
                env=variables,
                start_new_session=True,
            )

    def _end(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cluster(owner: Cluster) -> Members:
    """A Dask cluster of processes of this machine."""
    return Members(
        name=owner.name,
        scheduler={"cls": WatchfulScheduler, "options": scheduler_options(owner)},
        worker={"cls": WorkerProcess, "options": {"owner": owner}},
        security=keys.security(owner.folder),
        silence_logs="error",
    )
