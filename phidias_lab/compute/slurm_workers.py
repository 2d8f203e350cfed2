"""Workers as jobs of Slurm: dask-jobqueue's SLURMCluster, with the site's request, our worker and bounded calls.

dask-jobqueue writes the batch script, and starts, counts and ends the jobs. What is overridden, and why, stands in
docs/decisions/0010-dask-jobqueue.md.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob
from distributed.deploy.spec import ProcessInterface

from phidias_lab.compute import keys, slurm
from phidias_lab.compute.local_workers import Members, WatchfulScheduler, beside, scheduler_options
from phidias_lab.errors import PhidiasError

if TYPE_CHECKING:
    from phidias_lab.compute.cluster import Cluster

#: What dask-jobqueue asks its configuration for where it was not told. Files of a user or a site that set these for their
#: own clusters, under jobqueue.slurm, change nothing here: ours has a section of its own that says nothing.
_SECTION = "phidias-lab"
_UNSAID = (
    *("cores", "memory", "python", "name", "processes", "interface", "death-timeout", "local-directory", "extra"),
    *("worker-command", "worker-extra-args", "job-extra", "job-extra-directives", "env-extra", "job-script-prologue"),
    *("header-skip", "job-directives-skip", "log-directory", "shebang", "shared-temp-directory", "scheduler-options"),
    *("queue", "account", "project", "walltime", "job-cpu", "job-mem"),
)


def _say_nothing() -> None:
    dask.config.set({f"jobqueue.{_SECTION}": dict.fromkeys(_UNSAID)})


class WorkerJob(SLURMJob):
    """One worker as a job."""

    config_name = _SECTION
    process = None

    def __init__(self, scheduler: str | None = None, name: str | None = None, *, owner: Cluster, **options: Any):
        _say_nothing()
        self.owner = owner
        super().__init__(scheduler=scheduler, name=name, **options)

    @property
    def worker_process_memory(self) -> int:
        """In bytes: dask-jobqueue would round it to two decimals of a GiB."""
        return self.worker_memory

    @contextlib.contextmanager
    def job_file(self) -> Iterator[str]:
        """The script, in the cluster's closed folder and not in /tmp; it stays there for its owner to read."""
        file = self.owner.folder / f"{self.name}.sh"
        file.write_text(self.job_script(), encoding="utf-8")
        yield str(file)

    async def start(self) -> None:
        """Submit; what Slurm refuses is told to the cluster, which says it in a sentence."""
        try:
            await super().start()
        except (PhidiasError, OSError) as error:
            self.owner.refused(error)
            await ProcessInterface.start(self)

    async def _submit_job(self, script_filename: str) -> str:
        script = Path(script_filename).read_text(encoding="utf-8")
        return await beside(slurm.Slurm(self.owner.site).submit, script)

    async def close(self) -> None:
        await super().close()
        await ProcessInterface.close(self)  # which dask-jobqueue leaves out: the job would count as running for ever

    async def _close_job(self, job_id: str | None, cancel_command: str) -> None:
        if job_id is not None:
            with contextlib.suppress(slurm.QueueError):  # the end of the cluster cancels all by name once more
                await beside(slurm.Slurm(self.owner.site).cancel, [job_id])


class WorkerJobs(Members, SLURMCluster):
    """A SLURMCluster of such jobs."""

    job_cls = WorkerJob

    def _get_worker_security(self, security: Any) -> None:
        """No word of TLS in the script: the worker finds the keys in the cluster's folder, whatever the path holds."""


def job_options(owner: Cluster) -> dict[str, Any]:
    """What dask-jobqueue is told of each job. It quotes nothing, so it is given what needs no quotes, or has them."""
    asked, place, site = owner.request, owner.place, owner.site
    directives = [
        "--nodes=1",
        "--no-requeue",
    ]  # Slurm's own second start would come beside the one submitted in its place
    directives += [f"--qos={slurm.plain(place['qos'])}"] if place.get("qos") else []
    directives += [f"--gres=gpu:{asked.gpus}"] if asked.gpus else []
    directives += [f"--output={shlex.quote(str(owner.folder / 'job-').replace('%', '%%') + '%j.log')}"]
    return {
        "owner": owner,
        "job_name": owner.name,
        "queue": slurm.plain(place["partition"]),
        "account": slurm.plain(place["account"]) if place.get("account") else None,
        "walltime": slurm.wall_time(asked.minutes),
        "job_cpu": asked.cores,
        "job_mem": slurm.mebibytes(asked.memory),
        "job_extra_directives": directives,
        "job_directives_skip": [],
        "shebang": "#!/bin/bash",
        "job_script_prologue": [
            f"[ -e {shlex.quote(str(owner.folder / 'alive'))} ] || exit 0  # its cluster has ended",
            *slurm.beginning(site),
        ],
        # So that what Slurm sends to the job reaches the worker and no shell before it.
        "python": f"exec {shlex.quote(slurm.python(place, site))}",
        "worker_command": "phidias_lab.compute.worker",
        "worker_extra_args": [shlex.quote(word) for word in owner.worker_words()],
        "cores": owner.threads,
        "memory": f"{asked.memory}B",
        "processes": 1,
        "nanny": False,
        "death_timeout": owner.death_timeout,
        "local_directory": shlex.quote(owner.scratch) if owner.scratch else None,
    }


def cluster(owner: Cluster) -> WorkerJobs:
    """A Dask cluster of jobs of Slurm."""
    _say_nothing()
    return WorkerJobs(
        name=owner.name,
        n_workers=0,
        security=keys.security(owner.folder),
        protocol="tls://",
        interface=owner.place.get("interface"),
        scheduler_cls=WatchfulScheduler,
        scheduler_options=scheduler_options(owner),
        silence_logs="error",
        **job_options(owner),
    )
