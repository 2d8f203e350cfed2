"""A Slurm of any size on one machine: sbatch, squeue, scancel and sinfo that speak its formats, and one process behind them.

    python _pretended_slurm.py FOLDER SERVERS

FOLDER/bin gets the four programs. Each hands its words, its input and its environment to this process, which knows from the
system under whose account it ran. No job is a process: when its turn comes, this process opens a port for it and does there
what JupyterHub's own server does. It tells the hub the port as `start_server` does, asks the hub for its version, reports
that it is in use, and lets in whom the hub's log-in names. There is room for SERVERS of one core each; the others wait.

A line of JSON on FOLDER/socket with the program "tally" is answered with how often each program was asked, and how many jobs
run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import os
import pwd
import re
import secrets
import socket
import struct
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from jupyterhub import __version__
from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

#: Seconds that a job waits for Slurm to look at it, and that JupyterLab takes to open its port.
LOOKED_AT, OPENS = 0.5, 2.0
CORES_OF_A_NODE = 64
#: What the four programs are. -I and -S make them quick to start; Slurm's own are.
PROGRAM = """\
#!/usr/bin/python3 -IS
import json, os, socket, sys
name = os.path.basename(sys.argv[0])
asked = {"program": name, "words": sys.argv[1:], "environment": dict(os.environ)}
if name == "sbatch":
    asked["script"] = sys.stdin.read()
with socket.socket(socket.AF_UNIX) as line:
    line.connect("SOCKET")
    line.sendall(json.dumps(asked).encode() + b"\\n")
    told = json.loads(line.makefile().read())
sys.stdout.write(told["out"])
sys.stderr.write(told["error"])
sys.exit(1 if told["error"].startswith(name + ": error") else 0)
"""


@dataclasses.dataclass
class Job:
    number: int
    user: str
    name: str
    partition: str
    cores: int
    comment: str
    environment: dict[str, str]
    handed_in: float = dataclasses.field(default_factory=time.time)
    state: str = "PENDING"
    reason: str = "None"
    node: str = ""
    started: float | None = None
    seconds: float = 3600
    server: HTTPServer | None = None

    def field(self, letter: str) -> str:
        """A field of squeue's --format."""
        start = "N/A" if self.started is None else f"{self.started:.0f}"
        ends = "N/A" if self.started is None else f"{self.started + self.seconds:.0f}"
        told = {"i": self.number, "u": self.user, "T": self.state, "r": self.reason, "B": self.node or "n/a"}
        return str({**told, "S": start, "e": ends, "k": self.comment or "(null)"}[letter])


@dataclasses.dataclass
class Node:
    name: str
    partition: str
    gpus: int = 0
    used: int = 0

    def line(self, fields: str) -> str:
        """A line of sinfo's --Format; each field names what is to stand behind it."""
        told = {
            "NodeList": self.name,
            "PartitionName": self.partition,
            "StateCompact": "idle" if not self.used else "alloc" if self.used == CORES_OF_A_NODE else "mix",
            "CPUsState": f"{self.used}/{CORES_OF_A_NODE - self.used}/0/{CORES_OF_A_NODE}",
            "Memory": "1024000",
            "AllocMem": f"{2048 * self.used}",
            "Gres": f"gpu:{self.gpus}" if self.gpus else "(null)",
            "GresUsed": "gpu:0" if self.gpus else "(null)",
        }
        return "".join(told[name] + behind for name, _, behind in (field.partition(":") for field in fields.split(",")))


class Slurm:
    """The queue: who asked what, which jobs there are, and their servers."""

    def __init__(self, servers: int):
        full, rest = divmod(servers, CORES_OF_A_NODE)
        self.nodes = [Node(f"cpu{number}", "cpu") for number in range(1, full + 1)]
        # The last node has the rest free; something else runs on it.
        if rest:
            self.nodes.append(Node(f"cpu{full + 1}", "cpu", used=CORES_OF_A_NODE - rest))
        self.nodes.append(Node("gpu1", "gpu", gpus=4))
        self.jobs: dict[int, Job] = {}
        self.asked: Counter[str] = Counter()
        self.tasks: set[asyncio.Task] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        user = pwd.getpwuid(struct.unpack("3i", credentials)[1]).pw_name
        if asked["program"] == "tally":
            told = {**self.asked, "running": sum(job.state == "RUNNING" for job in self.jobs.values())}
        else:
            out, error = getattr(self, asked["program"])(user, asked)
            told = {"out": out, "error": error}
        writer.write(json.dumps(told).encode())
        with contextlib.suppress(ConnectionError):  # a program that was given up
            await writer.drain()
        writer.close()

    # The four programs ----------------------------------------------------------------------------------------------

    def sbatch(self, user: str, asked: dict) -> tuple[str, str]:
        directives = re.findall(r"^#SBATCH (\S+)$", asked["script"], re.M)
        options = dict(word.lstrip("-").partition("=")[::2] for word in [*directives, *asked["words"]])
        self.asked["sbatch --test-only" if "test-only" in options else "sbatch"] += 1
        partition, cores = options.get("partition", ""), int(options.get("cpus-per-task", 1))
        there = [node for node in self.nodes if node.partition == partition]
        if not there:
            return "", "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
        if "test-only" in options:
            at = datetime.fromtimestamp(time.time() + 600).strftime("%Y-%m-%dT%H:%M:%S")
            words = f"to start at {at} using {cores} processors on nodes {there[0].name} in partition {partition}"
            return "", f"sbatch: Job {len(self.jobs) + 1} {words}\n"
        names = options["export"].split(",")
        job = Job(
            number=len(self.jobs) + 1,
            user=user,
            name=options["job-name"],
            partition=partition,
            cores=cores,
            comment=options.get("comment", ""),
            environment={name: asked["environment"][name] for name in names if name in asked["environment"]},
            seconds=60 * float(options.get("time", 60)),
        )
        self.jobs[job.number] = job
        return f"{job.number}\n", ""

    def squeue(self, user: str, asked: dict) -> tuple[str, str]:
        words, jobs = asked["words"], list(self.jobs.values())
        if "-j" in words:
            self.asked["squeue of one job"] += 1
            number = words[words.index("-j") + 1]
            jobs = [job for job in jobs if str(job.number) == number]
            if not jobs:
                return "", "squeue: error: slurm_load_jobs error: Invalid job id specified\n"
        else:
            self.asked["squeue"] += 1
            (name,) = (word.partition("=")[2] for word in words if word.startswith("--name="))
            jobs = [job for job in jobs if job.name == name]
        if "-O" in words:
            return "".join(f"{256 * 70 if job.state == 'FAILED' else 0}|\n" for job in jobs), ""
        form = words[words.index("-o") + 1]
        return "".join(re.sub("%([a-zA-Z])", lambda m, j=job: j.field(m[1]), form) + "\n" for job in jobs), ""

    def scancel(self, user: str, asked: dict) -> tuple[str, str]:
        self.asked["scancel"] += 1
        job = self.jobs.get(int(asked["words"][-1]))
        if job is None:
            return "", "scancel: error: Kill job error on job id: Invalid job id specified\n"
        if user not in (job.user, "root"):
            return "", f"scancel: error: Kill job error on job id {job.number}: Access/permission denied\n"
        self.end(job, "CANCELLED")
        return "", ""

    def sinfo(self, user: str, asked: dict) -> tuple[str, str]:
        self.asked["sinfo"] += 1
        return "".join(node.line(asked["words"][-1]) + "\n" for node in self.nodes), ""

    # Jobs -----------------------------------------------------------------------------------------------------------

    async def schedule(self) -> None:
        """Starts who waits, in their order, where there is room."""
        while True:
            await asyncio.sleep(0.1)
            for job in self.jobs.values():
                if job.state != "PENDING" or time.time() - job.handed_in < LOOKED_AT:
                    continue
                there = [n for n in self.nodes if n.partition == job.partition]
                free = next((n for n in there if CORES_OF_A_NODE - n.used >= job.cores), None)
                if free is None:
                    job.reason = "Resources"
                    continue
                free.used += job.cores
                job.state, job.reason, job.node, job.started = "RUNNING", "None", free.name, time.time()
                task = asyncio.ensure_future(self.serve(job))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    def end(self, job: Job, state: str) -> None:
        if job.state == "RUNNING":
            next(node for node in self.nodes if node.name == job.node).used -= job.cores
        if job.state in ("PENDING", "RUNNING"):
            job.state = state
        if job.server is not None:
            job.server.stop()

    async def serve(self, job: Job) -> None:
        await asyncio.sleep(OPENS)
        if job.state != "RUNNING":
            return
        (opened,) = bind_sockets(0, "127.0.0.1")
        job.server = HTTPServer(server_of(job.environment))
        job.server.add_socket(opened)
        api = job.environment["JUPYTERHUB_API_URL"]
        try:
            await ask(job, f"{api}/phidias/port", {"port": opened.getsockname()[1]})
            await ask(job, f"{api}/")
            now = datetime.now(UTC).isoformat()
            await ask(job, job.environment["JUPYTERHUB_ACTIVITY_URL"], {"servers": {"": {"last_activity": now}}})
        except (OSError, HTTPClientError) as error:
            print(f"Job {job.number} of {job.user}: {error}", flush=True)
            self.end(job, "FAILED")


async def ask(job: Job, url: str, body: dict | None = None) -> None:
    """A question to the hub, tried again for a minute as `start_server` does."""
    headers = {"Authorization": f"token {job.environment['JUPYTERHUB_API_TOKEN']}", "Content-Type": "application/json"}
    question = {} if body is None else {"method": "POST", "body": json.dumps(body)}
    until = time.monotonic() + 60
    while True:
        try:
            await AsyncHTTPClient().fetch(url, headers=headers, request_timeout=10, **question)
            return
        except (OSError, HTTPClientError) as error:
            if time.monotonic() > until or 400 <= getattr(error, "code", 0) < 500:
                raise
        await asyncio.sleep(1)


class Page(HubOAuthenticated, web.RequestHandler):
    """What the server's user sees: their name."""

    def initialize(self, hub_auth: HubOAuth) -> None:
        self.hub_auth = hub_auth

    async def prepare(self) -> None:
        model = await self.hub_auth.get_user(self, sync=False)
        self.current_user = self.check_hub_user(model) if model else None

    @web.authenticated
    async def get(self) -> None:
        self.finish(self.current_user["name"])


class Back(HubOAuthCallbackHandler):
    def initialize(self, hub_auth: HubOAuth) -> None:
        self.hub_auth = hub_auth


class Api(web.RequestHandler):
    """What the hub asks to know whether a server is up."""

    async def get(self) -> None:
        self.set_header("X-JupyterHub-Version", __version__)
        self.finish({"version": "2"})


def server_of(environment: dict[str, str]) -> web.Application:
    """A server with a page behind the hub's log-in, as its job's environment tells."""
    base = environment["JUPYTERHUB_SERVICE_PREFIX"]
    auth = HubOAuth(
        api_url=environment["JUPYTERHUB_API_URL"],
        api_token=environment["JUPYTERHUB_API_TOKEN"],
        base_url=base,
        hub_prefix=environment["JUPYTERHUB_BASE_URL"] + "hub/",
        oauth_client_id=environment["JUPYTERHUB_CLIENT_ID"],
        access_scopes=set(json.loads(environment["JUPYTERHUB_OAUTH_ACCESS_SCOPES"])),
    )
    pages = [(f"{base}api", Api), (f"{base}oauth_callback", Back, {"hub_auth": auth}), (base, Page, {"hub_auth": auth})]
    return web.Application(pages, cookie_secret=secrets.token_bytes(32), log_function=lambda handler: None)


async def main(folder: Path, servers: int) -> None:
    AsyncHTTPClient.configure(None, max_clients=1000)
    logging.getLogger("tornado").setLevel(logging.ERROR)
    slurm = Slurm(servers)
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        (folder / "bin" / name).write_text(PROGRAM.replace("SOCKET", str(folder / "socket")))
        (folder / "bin" / name).chmod(0o755)
    await asyncio.start_unix_server(slurm.answer, folder / "socket", backlog=math.ceil(1.5 * servers), limit=2**20)
    os.chmod(folder / "socket", 0o666)
    print("The pretended Slurm answers.", flush=True)
    await slurm.schedule()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
