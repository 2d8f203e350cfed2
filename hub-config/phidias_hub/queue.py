"""Slurm's queue as the hub sees it: one question for the jobs of all users, asked by the hub's own account."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from .requests import Node, Refused, Request
from .script import JOB_NAME, exit_in_words, request_options

log = logging.getLogger("phidias_hub.queue")

#: States after which nothing of a job runs any more, in words.
ENDED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "it was cancelled",
    "COMPLETED": "it ended by itself",
    "DEADLINE": "its deadline passed",
    "FAILED": "it failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it needed more memory than it had asked for",
    "PREEMPTED": "it had to make room for another job",
    "REVOKED": "it was taken back",
    "TIMEOUT": "its time was over",
}
#: Why a job waits, in words that need no knowledge of Slurm.
REASONS = {
    "None": "the queue has not looked at it yet",
    "Priority": "other jobs are before it in the queue",
    "Resources": "no node has enough room free now",
    "BeginTime": "it may start only later",
    "Cleaning": "its node is being cleaned up after another job",
    "Dependency": "it waits for another job",
    "JobHeldAdmin": "an administrator holds it back",
    "JobHeldUser": "it is held back; release it with `scontrol release`",
    "Licenses": "a licence it needs is in use",
    "NodeDown": "a node it needs is down",
    "PartitionDown": "the partition is closed for now",
    "PartitionInactive": "the partition is closed for now",
    "ReqNodeNotAvail": "the nodes it needs are reserved or out of service",
    "Reservation": "its reservation has not begun",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "the nodes it needs are out of service or reserved"
    ),
    "ReservationDeleted": "its reservation was removed",
    "AssocMaxJobsLimit": "you already run as many jobs as your account may",
    "AssocGrpCpuLimit": "your account already uses all the cores it may",
    "AssocGrpMemLimit": "your account already uses all the memory it may",
    "AssocGrpGRES": "your account already uses all the GPUs it may",
    "AssocGrpJobsLimit": "your account already runs as many jobs as it may",
    "QOSMaxJobsPerUserLimit": "you already run as many jobs as this quality of service allows",
    "QOSMaxCpuPerUserLimit": "you already use all the cores this quality of service allows",
    "QOSMaxGRESPerUser": "you already use all the GPUs this quality of service allows",
    "QOSGrpCpuLimit": "this quality of service has all its cores in use",
    "QOSGrpGRES": "this quality of service has all its GPUs in use",
}
#: Reasons for which a job would wait for ever, and what to do about each.
NEVER = {
    "BadConstraints": "no node has what it asks for; ask for less",
    "DependencyNeverSatisfied": "the job it waits for failed",
    "InvalidAccount": "the account is not known to Slurm; ask your administrator",
    "InvalidQOS": "the quality of service is not known to Slurm; ask your administrator",
    "AccountNotAllowed": "your account may not use this partition; choose another profile",
    "QOSNotAllowed": "the quality of service may not use this partition; choose another profile",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives; choose another profile",
    "PartitionTimeLimit": "it asks for more time than the partition gives; ask for fewer hours",
    "AssocMaxWallDurationPerJobLimit": "it asks for more time than your account may; ask for fewer hours",
    "AssocMaxCpuPerJobLimit": "it asks for more cores than your account may; ask for fewer",
    "AssocMaxMemPerJob": "it asks for more memory than your account may; ask for less",
    "AssocMaxGRESPerJob": "it asks for more GPUs than your account may; ask for fewer",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than the quality of service gives; ask for fewer hours",
    "QOSMaxCpuPerJobLimit": "it asks for more cores than the quality of service gives; ask for fewer",
    "QOSMaxMemoryPerJob": "it asks for more memory than the quality of service gives; ask for less",
    "QOSMaxGRESPerJob": "it asks for more GPUs than the quality of service gives; ask for fewer",
    "JobLaunchFailure": "Slurm could not launch it; ask your administrator",
    "launch failed requeued held": "Slurm could not launch it; ask your administrator",
}
#: What sbatch says when it refuses, by a piece of its text.
_REFUSALS = {
    "node configuration is not available": "no node of the partition has what you ask for; ask for less",
    "Invalid account or account/partition": "your account may not use this partition; ask your administrator",
    "Invalid partition": "the site file names a partition that Slurm does not have; tell your administrator",
    "Invalid qos": "the site file names a quality of service that you may not use; tell your administrator",
    "time limit is invalid": "you ask for more time than the partition gives; ask for fewer hours",
    "MaxSubmitJobLimit": "you already have as many jobs in the queue as you may; end one first",
    "QOSMaxSubmitJob": "you already have as many jobs in the queue as you may; end one first",
    "violates accounting/QOS policy": "a limit of your account forbids it; ask for less, or end a running job",
    "partition-down": "the partition is closed for now; choose another profile",
    "Batch job submission failed: Access/permission denied": "Slurm does not let you; ask your administrator",
}


#: What Slurm's programs say in the end where there is no slurm.conf, neither here nor told by the network.
_NO_CONFIGURATION = "Could not establish a configuration source"


class QueueSilent(RuntimeError):
    """The queue does not answer; what is asked about is unknown, not gone."""


@dataclass(frozen=True)
class Job:
    """One job of the hub, as Slurm told it."""

    id: str
    user: str
    state: str
    reason: str = "None"
    node: str = ""
    start: float | None = None
    ends: float | None = None
    comment: str = ""

    @property
    def pending(self) -> bool:
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Mark:
    """What the hub writes on a job to know it again: which hub, whose server, which start."""

    hub: str
    user: str
    server: str
    start: str

    def __str__(self) -> str:
        # Quoted, so that no name can look like another field.
        return "phidias " + " ".join(f"{key}={quote(value, safe='')}" for key, value in vars(self).items())

    @classmethod
    def read(cls, comment: str) -> Mark | None:
        """The mark in a job's comment; nothing when the comment is something else."""
        words = comment.split(" ")
        if words[0] != "phidias" or len(words) != 5:
            return None
        fields = dict(word.partition("=")[::2] for word in words[1:])
        if set(fields) != {"hub", "user", "server", "start"}:
            return None
        return cls(**{key: unquote(value) for key, value in fields.items()})


def why_waiting(job: Job, now: float | None = None) -> str:
    """Why a job waits and when it is expected to start, in a sentence."""
    reason = job.reason.strip("()")
    short = reason.split(",")[0]
    words = REASONS.get(reason) or REASONS.get(short) or NEVER.get(reason) or NEVER.get(short)
    words = words or f"Slurm says {short!r}"
    sentence = f"Your server waits in the queue: {words}."
    if job.start:
        sentence += f" It is expected to start {when(job.start, now)}."
    return sentence


def when(moment: float, now: float | None = None) -> str:
    """A moment in words: within a minute, at 14:05 (in 12 min), on Tuesday ..."""
    now = time.time() if now is None else now
    ahead = moment - now
    if ahead < 60:
        return "within a minute"
    clock = time.strftime("%H:%M", time.localtime(moment))
    if ahead < 5400:
        return f"at {clock}, in about {round(ahead / 60)} minutes"
    if time.localtime(moment)[:3] == time.localtime(now)[:3]:
        return f"at {clock}, in about {round(ahead / 3600)} hours"
    return f"on {time.strftime('%d %B at %H:%M', time.localtime(moment))}"


def never(job: Job) -> str | None:
    """Why a waiting job will never start; nothing when it may."""
    reason = job.reason.strip("()")
    return NEVER.get(reason) or NEVER.get(reason.split(",")[0])


def end_in_words(job: Job | None, code: int | None) -> str:
    """How a job ended: its state, and what its exit code means."""
    if job is None:
        return "the queue no longer knows it"
    if job.state == "FAILED" and code:
        return f"{exit_in_words(code)} (Slurm: FAILED, exit code {code})"
    return f"{ENDED.get(job.state, job.state)} (Slurm: {job.state})"


def refusal_in_words(text: str) -> str:
    """What sbatch's refusal means for the user; its own words behind."""
    said = " ".join(text.replace("sbatch:", " ").replace("error:", " ").split())[:300]
    for piece, words in _REFUSALS.items():
        if piece in said:
            return f"Slurm refused the server: {words}. (Slurm: {said})"
    return f"Slurm refused the server: {said or 'it gave no reason'}."


def read_jobs(text: str, token: str) -> dict[str, Job]:
    """The jobs in squeue's answer. A line without the token of this question was forged in a job's comment."""
    jobs = {}
    for line in text.splitlines():
        parts = line.split("|", 8)
        if len(parts) != 9 or parts[0] != token or not parts[1].isdigit():
            continue
        _, number, user, state, reason, node, start, ends, comment = parts
        jobs[number] = Job(number, user, state, reason, _told(node), _moment(start), _moment(ends), comment)
    return jobs


def read_exit(told: str) -> int | None:
    """The exit code in squeue's answer: a wait status of the system, or `CODE:SIGNAL`."""
    told = told.strip().strip("|").strip()
    if found := re.fullmatch(r"(\d+):(\d+)", told):
        code, number = int(found[1]), int(found[2])
        return 128 + number if number else code
    if not told.isdigit():
        return None
    code = os.waitstatus_to_exitcode(int(told) & 0xFFFF)
    return code if code >= 0 else 128 - code


def read_nodes(text: str) -> list[Node]:
    """The nodes in sinfo's answer."""
    nodes = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) < 8:
            continue
        name, partition, state, cpus, memory, used, gres, gres_used = parts[:8]
        try:
            _allocated, idle, _other, total = (int(number) for number in cpus.split("/"))
            memory_mib, used_mib = int(memory), int(used)
        except ValueError:
            continue
        usable = (
            re.fullmatch(r"(idle|mix|mixed|alloc|allocated|comp|completing|plnd|planned)[*$@+~#%!^-]*", state)
            is not None
        )
        usable = usable and not state.endswith("*")
        gpus, gpus_used = _gpus(gres), _gpus(gres_used)
        nodes.append(
            Node(
                name,
                partition.rstrip("*"),
                usable,
                total,
                idle,
                memory_mib,
                max(0, memory_mib - used_mib),
                gpus,
                max(0, gpus - gpus_used),
            )
        )
    return nodes


def _gpus(gres: str) -> int:
    gres = re.sub(r"\([^)]*\)", "", gres)
    counts = (part.split(":") for part in gres.split(",") if part.split(":")[0] == "gpu")
    return sum(int(last[-1]) if last[-1].isdigit() else 1 for last in counts)


def _told(text: str) -> str:
    return "" if text in ("n/a", "N/A", "(null)") else text


def _moment(text: str) -> float | None:
    return float(text) if text.isdigit() else None


class Queue:
    """The jobs of all servers, asked for in one question as often as somebody needs to know."""

    FIELDS = "%i|%u|%T|%r|%B|%S|%e|%k"
    #: Between two questions while a server starts or stops.
    SOON = 0.25
    #: Programs run under users' accounts at the same time; each is a process or three on the hub's machine.
    AT_ONCE = 8

    def __init__(self, site: Mapping[str, Any]):
        slurm = site.get("slurm", {})
        self.programs = slurm.get("programs", "/usr/bin")
        self.configuration = slurm.get("configuration")
        self.poll_seconds = float(slurm.get("poll_seconds", 2))
        self.query_timeout = float(slurm.get("query_timeout", 10))
        self.jobs: dict[str, Job] = {}
        #: When the last question that was answered was put; 0 before the first.
        self.asked = 0.0
        #: Why the queue does not answer; nothing when it does.
        self.silent: str | None = None
        self.questions = 0
        self._gone: dict[str, int] = {}
        self._hurried: set[object] = set()
        self._news = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task | None = None
        self._nodes: tuple[float, list[Node]] = (0.0, [])
        self._nodes_asked: asyncio.Task | None = None
        self._turns = asyncio.Semaphore(self.AT_ONCE)
        #: Called after each answer, with the queue.
        self.after: list[Callable[[Queue], Any]] = []

    def environment(self) -> dict[str, str]:
        """The environment of a question: short, and times as seconds since 1970."""
        kept = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SLURM_TIME_FORMAT": "%s"}
        configuration = self.configuration or os.environ.get("SLURM_CONF")
        return kept | ({"SLURM_CONF": configuration} if configuration else {})

    def program(self, name: str) -> str:
        """Where a program of Slurm is."""
        return f"{self.programs}/{name}"

    async def run(
        self,
        command: list[str],
        *,
        given: str | None = None,
        environment: Mapping[str, str] | None = None,
        both: bool = False,
    ) -> str:
        """What a program of Slurm answers, with its error output when `both`; `QueueSilent` when it hangs or fails."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if given is not None else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment or self.environment()),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise QueueSilent(f"{command[0]} cannot be started: {error.strerror}") from None
        answer = asyncio.ensure_future(process.communicate(None if given is None else given.encode()))
        try:
            # In pieces: when many log in at once the hub itself may be late by more than the whole wait, which says nothing
            # about Slurm; between two pieces it takes up what has come meanwhile.
            for _ in range(10):
                await asyncio.wait([answer], timeout=self.query_timeout / 10)
            if not answer.done():
                raise QueueSilent(f"{command[0]} gave no answer within {self.query_timeout:g} s")
        finally:
            if not answer.done():
                answer.cancel()
                _end(process)
        out, said = answer.result()
        if process.returncode != 0:
            text = said.decode(errors="replace").strip()[-400:]
            if _NO_CONFIGURATION in text:
                text = "no Slurm is set up for this machine; name its slurm.conf in the site file (slurm.configuration)"
            raise QueueSilent(text or f"{command[0]} failed")
        return (out + said if both else out).decode(errors="replace")

    async def run_as(self, user: str, command: list[str], **how: Any) -> str:
        """What a program of Slurm answers under a user's account, by sudo. Of many at once most wait for their turn here."""
        async with self._turns:
            if self.silent is not None:
                # Who waited hears at once what those before them have found out.
                raise QueueSilent(self.silent)
            return await self.run(sudo(user, command), **how)

    @property
    def crowded(self) -> bool:
        """Whether who wants a program run under an account has to wait for their turn."""
        return self._turns.locked()

    def start(self) -> None:
        """Begins to ask, once."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._ask_for_ever())

    def hurry(self, who: object) -> None:
        """Somebody waits: ask often until `at_ease`."""
        self.start()
        self._hurried.add(who)
        self._wake.set()

    def at_ease(self, who: object) -> None:
        """That somebody waits no longer."""
        self._hurried.discard(who)

    async def news(self, timeout: float) -> None:
        """Waits for the next answer, or for `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout)

    async def _ask_for_ever(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self.ask()
            except Exception:
                log.exception("The answer of the queue could not be used.")
            self._wake.clear()
            wait = self.SOON if self._hurried and not self.silent else self.poll_seconds
            wait -= time.monotonic() - started
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(wait, 0.05))
                # Many who hurry at once still make one question per moment.
                rest = self.SOON - (time.monotonic() - started)
                if rest > 0:
                    await asyncio.sleep(rest)

    async def ask(self) -> None:
        """One question for the jobs of all users."""
        token, asked = secrets.token_hex(8), time.time()
        self.questions += 1
        command = [
            self.program("squeue"),
            "-h",
            "-a",
            "-t",
            "all",
            f"--name={JOB_NAME}",
            "-o",
            f"{token}|{self.FIELDS}",
        ]
        try:
            jobs = read_jobs(await self.run(command), token)
        except QueueSilent as error:
            if self.silent is None:
                log.warning("The queue does not answer: %s. Servers count as unknown and stay.", error)
            self.silent = str(error)
        else:
            if self.silent:
                log.warning("The queue answers again.")
            self.silent = None
            for number in self.jobs.keys() | self._gone.keys():
                self._gone[number] = 0 if number in jobs else self._gone.get(number, 0) + 1
            self._gone = {number: times for number, times in self._gone.items() if 0 < times < 1000}
            self.jobs, self.asked = jobs, asked
            for call in self.after:
                call(self)
        self._news.set()
        self._news = asyncio.Event()

    def watch_for(self, number: str) -> None:
        """Counts the absence of this job from now on, though it was never seen."""
        self._gone.setdefault(number, 0)

    def absent(self, number: str) -> bool:
        """Whether the job was missing in two answers one after the other."""
        return self._gone.get(number, 0) >= 2

    async def as_user(self, user: str, number: str) -> Job | None:
        """A job as its owner sees it; needed where the hub's account may not see the jobs of others, and once at an end."""
        token = secrets.token_hex(8)
        command = [self.program("squeue"), "-h", "-a", "-t", "all", "-j", number, "-o", f"{token}|{self.FIELDS}"]
        try:
            return read_jobs(await self.run_as(user, command), token).get(number)
        except QueueSilent as error:
            if "Invalid job id" in str(error):
                return None
            raise

    async def exit_code(self, number: str) -> int | None:
        """With which code a job ended, as a shell says it; nothing when Slurm no longer knows."""
        try:
            told = await self.run([self.program("squeue"), "-h", "-t", "all", "-j", number, "-O", "exit_code:|"])
        except QueueSilent:
            return None
        return read_exit(told)

    async def nodes(self, fresh: float = 1.0) -> list[Node]:
        """What the nodes have and have free, at most `fresh` seconds old. Who asks meanwhile gets the same answer."""
        when_asked, known = self._nodes
        if time.monotonic() - when_asked < fresh and known:
            return known
        if self._nodes_asked is None or self._nodes_asked.done():
            self._nodes_asked = asyncio.ensure_future(self._ask_nodes())
        return await asyncio.shield(self._nodes_asked)

    async def _ask_nodes(self) -> list[Node]:
        fields = "NodeList:|,PartitionName:|,StateCompact:|,CPUsState:|,Memory:|,AllocMem:|,Gres:|,GresUsed:|"
        known = read_nodes(await self.run([self.program("sinfo"), "-h", "-N", "-O", fields]))
        self._nodes = time.monotonic(), known
        return known

    async def submit(self, user: str, script: str, options: Iterable[str], environment: Mapping[str, str]) -> str:
        """Hands a job in under the user's own account; its number. The job gets what `environment` holds."""
        handed = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment}
        configuration = self.environment().get("SLURM_CONF")
        if configuration:
            handed["SLURM_CONF"] = configuration
        # Names only: the values of tokens and keys are in the environment, where other users cannot look.
        names = ",".join(sorted(environment))
        command = [self.program("sbatch"), "--parsable", f"--export={names}", *options]
        try:
            told = await self.run_as(user, command, given=script, environment=handed)
        except QueueSilent as error:
            text = str(error)
            if "sbatch: error" in text and "Unable to contact" not in text and "timed out" not in text:
                raise Refused(refusal_in_words(text)) from None
            raise
        number = told.strip().split(";")[0]
        if not number.isdigit():
            raise QueueSilent(f"sbatch answered {told.strip()[:80]!r} and no job number")
        self.watch_for(number)
        return number

    async def would_start(self, user: str, request: Request) -> float | None:
        """When Slurm expects that a job for `request` would start; nothing when it does not tell, or more is to be done."""
        if self.crowded:
            return None
        command = [self.program("sbatch"), "--test-only", *request_options(request)]
        try:
            told = await self.run_as(user, command, given="#!/bin/bash\n", both=True)
        except QueueSilent:
            return None
        found = re.search(r"to start at ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}|[0-9]{9,11})", told)
        if found is None:
            return None
        moment = found[1]
        return float(moment) if moment.isdigit() else time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))

    async def cancel(self, user: str, number: str) -> None:
        """Ends a job."""
        try:
            await self.run_as(user, [self.program("scancel"), number])
        except QueueSilent as error:
            if "Invalid job id" not in str(error):
                raise


def sudo(user: str, command: list[str]) -> list[str]:
    """A command under the user's account. sudo lets the hub's account run three programs for the members of one group."""
    return ["/usr/bin/sudo", "-n", "-E", "-u", user, "--", *command]


def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a program that hangs; one that runs under another account ends with its pipe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process._transport.close()  # so that no pipe of it stays open
