"""Slurm as this user sees it: submit, look, cancel. Every call has a time limit, and a call that fails means "unknown".

What Slurm says is put in plain words here, once, for clusters and for runs.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from phidias_lab.compute import environment
from phidias_lab.errors import ParameterError, RunFailedError

PENDING, RUNNING, ENDED = "pending", "running", "ended"

#: Why a job waits, by Slurm's reason codes (squeue's manual page, "JOB REASON CODES").
REASONS = {
    "None": "Slurm has not looked at it yet",
    "Priority": "jobs of a higher priority are before it",
    "Resources": "all nodes that fit are busy",
    "Dependency": "it waits for another job",
    "BeginTime": "its start time has not come, or it was started again after a node failed",
    "Licenses": "a licence it needs is in use",
    "NodeDown": "a node it needs is down",
    "ReqNodeNotAvail": "nodes it needs are down, reserved or drained",
    "Reservation": "it waits for its reservation",
    "PartitionDown": "the partition is closed",
    "PartitionInactive": "the partition is closed",
    "PartitionNodeLimit": "it asks for more than the partition has",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "PartitionConfig": "it asks for more than the partition has",
    "BadConstraints": "no node has what it asks for",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its quality of service is not valid",
    "JobHeldAdmin": "an administrator holds it back",
    "JobHeldUser": "its owner holds it back",
    "QOSMaxCpuPerUserLimit": "you use as many cores as you may at once",
    "QOSMaxGRESPerUser": "you use as many GPUs as you may at once",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as you may at once",
    "AssocMaxJobsLimit": "your account runs as many jobs as it may at once",
    "AssocGrpCpuLimit": "your account uses as many cores as it may at once",
    "AssocGrpGRES": "your account uses as many GPUs as it may at once",
    "AssocGrpCPUMinutesLimit": "your account has used up its core hours",
    "AssocGrpGRESMinutes": "your account has used up its GPU hours",
}

#: How a job ended, by Slurm's state codes.
_ENDINGS = {
    "COMPLETED": "it ended",
    "CANCELLED": "it was cancelled",
    "FAILED": "it ended with an error",
    "TIMEOUT": "its wall time was over",
    "DEADLINE": "its deadline passed",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "it used more memory than it had asked for",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "a job of a higher priority took its place",
    "REVOKED": "it was withdrawn",
}
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}

#: What of the environment a job gets, by name: enough to find Python, the package, the lake and the runs, and no token. Nor
#: PHIDIAS_LAB, the mark of the lab it was asked from, which would take the job for its own and end it.
PASSED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "SLURM_CONF")
PASSED_BEGINNINGS = ("PHIDIAS_", "XDG_DATA_", "XDG_CONFIG_", "XDG_CACHE_", "XDG_STATE_")
_NOT_PASSED = re.compile("TOKEN|SECRET|PASSWORD|^PHIDIAS_(SERVER_ENDS|DASK_PAGES|LAB)$")


@dataclass(frozen=True)
class Job:
    """One job: its state (pending, running, ended), why, where, and when it started or is expected to."""

    id: str
    state: str
    code: str
    reason: str = ""
    node: str = ""
    start: datetime | None = None

    @property
    def why(self) -> str:
        """The reason in plain words."""
        if self.state == ENDED:
            return _ENDINGS.get(self.code, f"it ended ({self.code.lower()})")
        if self.state == PENDING:
            return in_words(self.reason)
        return ""


def in_words(reason: str) -> str:
    """'all nodes that fit are busy' of 'Resources'; a reason that is not in the table is shown as Slurm writes it."""
    code = re.split(r"[,(\s]", reason.strip("() "), maxsplit=1)[0]
    return REASONS.get(code, f"Slurm says {reason.strip('() ')!r}" if code else REASONS["None"])


def moment(start: datetime | None) -> str:
    """'about 14:05' or 'about 21 Nov 14:05', for people."""
    if start is None:
        return ""
    return f"about {start:%H:%M}" if start.date() == datetime.now().date() else f"about {start:%d %b %H:%M}"


#: What Slurm's programs say in the end where there is no slurm.conf, neither here nor told by the network.
_NO_CONFIGURATION = "Could not establish a configuration source"


class QueueError(RunFailedError):
    """Slurm did not answer, or refused."""


class Slurm:
    """The Slurm of a site."""

    def __init__(self, site: Mapping):
        self.programs = Path(site["slurm"]["programs"])
        self.configuration = site["slurm"].get("configuration")
        self.limit = float(site["slurm"]["query_timeout"])

    def environment(self) -> dict[str, str]:
        """What Slurm's programs get. Variables of a job this process itself is in would be taken for requests."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_"))}
        configuration = self.configuration or os.environ.get("SLURM_CONF")
        return kept | ({"SLURM_CONF": configuration} if configuration else {})

    def passed(self) -> list[str]:
        """Names of the variables a job of ours gets."""
        return sorted(
            name
            for name in self.environment()
            if (name in PASSED or name.startswith(PASSED_BEGINNINGS)) and not _NOT_PASSED.search(name)
        )

    def call(self, program: str, *words: str, text: str | None = None) -> str:
        """What a program of Slurm prints; its own words when it refuses."""
        surroundings = self.environment()
        named = surroundings.get("SLURM_CONF")
        if named and not os.path.isfile(named):  # Slurm's programs would look for it for a minute
            raise QueueError(
                f"There is no slurm.conf at {named}. Mend slurm.configuration in the site file, or else the variable "
                "SLURM_CONF; without Slurm choose the place 'local'."
            )
        try:
            done = subprocess.run(
                [str(self.programs / program), *words],
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.limit,
                env=surroundings,
                cwd="/",
            )
        except FileNotFoundError:
            raise QueueError(
                f"Slurm's {program} is not in {self.programs}. Name the folder of Slurm's programs in the site file "
                "(slurm.programs), or choose the place 'local'."
            ) from None
        except subprocess.TimeoutExpired:
            raise QueueError(f"Slurm's {program} did not answer within {self.limit:g} s. Try again later.") from None
        if done.returncode != 0:
            said = re.sub(rf"^{program}: (error: )?", "", (done.stderr or done.stdout).strip(), flags=re.MULTILINE)
            said = "; ".join(dict.fromkeys(said.splitlines())) or f"{program} ended with {done.returncode}"
            if _NO_CONFIGURATION in said:
                raise QueueError(
                    f"No Slurm is set up for this machine: {program} finds no slurm.conf. Choose the place 'local', or name "
                    "the file in the site file (slurm.configuration)."
                )
            raise QueueError(f"Slurm refused: {said}.")
        return done.stdout

    def submit(self, script: str) -> str:
        """The id of the job that a script became."""
        said = self.call("sbatch", "--parsable", f"--export={','.join(self.passed())}", text=script)
        found = re.match(r"\s*(\d+)", said)
        if not found:
            raise QueueError(f"Slurm's sbatch gave no job id but {said.strip()!r}.")
        return found[1]

    def look(self, *, ids: Iterable[str] = (), name: str | None = None) -> dict[str, Job]:
        """My jobs with these ids, or of that name, by id; those that ended minutes ago may still be among them."""
        words = ["--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T|%r|%S|%N"]
        if name is not None:
            words.append(f"--name={name}")
        found = {job.id: job for job in map(_job, self.call("squeue", *words).splitlines()) if job}
        wanted = set(ids)
        return {i: job for i, job in found.items() if i in wanted} if wanted else found

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs; those that have ended already are no error."""
        if ids:
            self.call("scancel", *ids)

    def cancel_named(self, name: str) -> None:
        """End all my jobs of that name."""
        self.call("scancel", f"--user={getpass.getuser()}", f"--name={name}")


def _job(line: str) -> Job | None:
    parts = line.strip().split("|")
    if len(parts) < 5 or not parts[0]:
        return None
    job, code, reason, start, node = parts[:5]
    code = code.split(" ", 1)[0]
    if code in _WAITING:
        state = PENDING
    elif code in _ENDINGS:
        state = ENDED
    else:  # RUNNING, COMPLETING, SUSPENDED, STAGE_OUT, ...
        state = RUNNING
    try:
        began = datetime.fromisoformat(start)
    except ValueError:  # N/A
        began = None
    return Job(job, state, code, reason, "" if node in ("", "(null)") else node, began)


_looks: dict[str, tuple[float, dict[str, Job] | None]] = {}
_look_lock = threading.Lock()


def my_jobs(site: Mapping, *, fresher_than: float = 1.5) -> dict[str, Job] | None:
    """All my jobs, asked at most every `fresher_than` seconds whoever asks; None where Slurm does not answer."""
    slurm = Slurm(site)
    key = f"{slurm.programs}|{slurm.environment().get('SLURM_CONF')}"
    with _look_lock:
        when, found = _looks.get(key, (0.0, None))
        if time.monotonic() - when > fresher_than or key not in _looks:
            try:
                found = slurm.look()
            except QueueError:
                found = None
            _looks[key] = (time.monotonic(), found)
        return found


def wall_time(minutes: float) -> str:
    """Slurm's form of a wall time."""
    total = max(1, round(minutes))
    days, rest = divmod(total, 24 * 60)
    return f"{days}-{rest // 60:02d}:{rest % 60:02d}:00" if days else f"{rest // 60:02d}:{rest % 60:02d}:00"


_PLAIN = re.compile(r"[A-Za-z0-9._+/:-]+")


def plain(value: str) -> str:
    """A value for a line that nothing quotes. The site file's schema has checked it; here it is once more."""
    if not _PLAIN.fullmatch(value):
        raise ParameterError(f"{value!r} holds signs that no request to Slurm may have. Mend the site file.")
    return value


def mebibytes(memory: int) -> str:
    """Slurm's form of an amount of memory, rounded up."""
    return f"{max(1, -(-int(memory) // 2**20))}M"


def directives(cluster: Mapping, *, name: str, cores: int, memory: int, gpus: int, minutes: float) -> list[str]:
    """The request of a run's own job as #SBATCH lines without that word."""
    lines = [f"--job-name={plain(name)}", f"--partition={plain(cluster['partition'])}"]
    lines += [f"--{key}={plain(cluster[key])}" for key in ("account", "qos") if cluster.get(key)]
    lines += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={int(cores)}", f"--mem={mebibytes(memory)}"]
    lines += [f"--gres=gpu:{int(gpus)}"] if gpus else []
    # A run that Slurm starts again by itself would find its own record half done; `resume` is what starts it again.
    return [*lines, f"--time={wall_time(minutes)}", "--no-requeue"]


def python(place: Mapping, site: Mapping) -> str:
    """The Python of jobs at a place: of the environment that the site file names, else the one of this process."""
    named = place.get("environment")
    return f"{site['servers']['environments'][named]['folder']}/bin/python" if named else sys.executable


def beginning(site: Mapping) -> list[str]:
    """The first lines of every job: modules, and what every process that computes is started with."""
    variables = {**environment.SAME_RESULTS, "PYTHONPATH": environment.python_path()}
    return [
        *(f"module load {shlex.quote(module)}" for module in site["slurm"]["modules"]),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
    ]
