"""A user's server as a Slurm job under the user's own account, started by a hub without privileges."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import pwd
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jupyterhub.orm import APIToken
from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import url_path_join
from sqlalchemy.orm import object_session
from traitlets import Dict, default

from . import form
from .queue import Job, Mark, Queue, QueueSilent, end_in_words, never, why_waiting
from .requests import Refused, Request, check_fits, chosen, from_form
from .script import log_path, render

log = logging.getLogger("phidias_hub.spawner")

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SILENT = "The queue of the machine does not answer at this moment."
IN_TURN = "Many people start a server at this moment; yours is handed to the queue when its turn comes."


class NotStarted(SpawnException):
    """Why a server did not start, in a sentence that the user sees."""

    def __init__(self, sentence: str, *, reason: str, status: int = 400):
        super().__init__(sentence, reason=reason, status_code=status)
        self.jupyterhub_message = sentence


class SlurmServer(Spawner):
    """JupyterLab in a Slurm job. What a user may ask for comes from `site`; see `requests`."""

    site = Dict(help="The site file as a dictionary, with all defaults.", config=True)

    #: One queue for the servers of all users.
    _queues: ClassVar[dict[str, Queue]] = {}
    #: Numbers of the jobs that belong to a server the hub knows, and the starts that have no number yet.
    _claimed: ClassVar[dict[str, str]] = {}
    _under_way: ClassVar[set[str]] = set()
    #: Jobs of this hub that nobody claims, with the number of answers in which they were seen so.
    _astray: ClassVar[dict[str, int]] = {}
    _tasks: ClassVar[set[asyncio.Task]] = set()

    job: str = ""
    _launch: str = ""
    _port: int | None = None
    _address: str = ""
    _token: str = ""
    _asked: float = 0.0
    _request: Request | None = None
    _starting: bool = False
    _set_aside: bool = False
    _heard: asyncio.Event | None = None
    _say: str = "Your server is handed to the queue."
    _percent: int = 5
    #: Set at the next word; a page that waits for it makes one.
    _said: asyncio.Event | None = None
    _unseen_warned: bool = False

    @default("poll_interval")
    def _default_poll_interval(self) -> int:
        # Looks into what the one query already brought; costs nothing.
        return max(1, round(self.site.get("slurm", {}).get("poll_seconds", 2)))

    @property
    def queue(self) -> Queue:
        key = json.dumps(self.site.get("slurm", {}), sort_keys=True)
        if key not in self._queues:
            hub = self._hub
            self._queues[key] = queue = Queue(self.site)
            queue.after.append(lambda answered: self._find_astray(answered, hub))
        return self._queues[key]

    @property
    def _hub(self) -> str:
        """What tells the jobs of this hub from those of another one on the same Slurm; not secret."""
        secret = self.user.settings.get("cookie_secret") or b""
        return hashlib.sha256(b"phidias jobs" + bytes(secret)).hexdigest()[:12]

    @property
    def _mark(self) -> Mark:
        return Mark(self._hub, self.user.name, self.name, self._launch)

    # --- what the user asks for ----------------------------------------------------------------------------------------

    async def get_options_form(self) -> str:
        """The form: what the site offers, with what is free now."""
        self.queue.start()
        nodes, silent = [], False
        try:
            nodes = await self.queue.nodes()
        except QueueSilent:
            silent = True
        starts = {} if silent else await self._expected(nodes)
        return form.render(self.site, nodes, self._last_choice(), silent=silent, starts=starts)

    def _last_choice(self) -> dict:
        """What the user chose the last time, if it may still be chosen."""
        try:
            return chosen(self.user_options, self.site).options if self.user_options else {}
        except Refused:
            return {}

    async def _expected(self, nodes: list) -> dict[str, float]:
        """When a server of each full profile would start, if Slurm can tell."""
        full = form.full_profiles(self.site, nodes)
        try:
            account = self._account()
        except NotStarted:
            return {}
        told = await asyncio.gather(*(self.queue.would_start(account.pw_name, request) for request in full.values()))
        return {name: start for name, start in zip(full, told, strict=True) if start is not None}

    def options_from_form(self, form_data: Mapping[str, Any]) -> dict:  # both the form and the link pass here
        try:
            options = from_form(form_data, self.site)
            return chosen(options, self.site).options
        except Refused as error:
            raise NotStarted(str(error), reason="options") from None

    async def _run_apply_user_options(self, user_options: Any) -> None:
        """The one place that form, link and REST all pass. Nothing but a request within the site's bounds goes on."""
        try:
            self._request = chosen(user_options or {}, self.site)
            self.user_options = self._request.options
        except Refused as error:
            self.user_options = {}
            raise NotStarted(str(error), reason="options") from None
        finally:
            # JupyterHub has stored what was sent, and would start with it again.
            self.orm_spawner.user_options = self.user_options
            self._commit()
        self._account()
        try:
            check_fits(self._request, await self.queue.nodes())
        except Refused as error:
            raise NotStarted(str(error), reason="does-not-fit") from None
        except QueueSilent:
            self.log.warning("The nodes of the queue are unknown; %s is handed in without a look.", self._log_name)
        servers = self.site.get("servers", {})
        # The waits of `start` end first, with a sentence.
        self.start_timeout = int(servers.get("queue_timeout", 3600) + servers.get("start_timeout", 120) + 120)

    def _account(self) -> pwd.struct_passwd:
        """The user's account on this machine."""
        name = self.user.name
        try:
            account = pwd.getpwnam(name) if _ACCOUNT.fullmatch(name) else None
        except KeyError:
            account = None
        if account is None or account.pw_uid == 0:
            raise NotStarted(
                f"{name} has no account on this machine, so no job can be started; ask the administrator for one.",
                reason="account",
                status=403,
            )
        return account

    # --- start, poll, stop ---------------------------------------------------------------------------------------------

    async def create_certs(self) -> dict:
        """Certificates for the nodes on which the server may come to run."""
        names = {f"DNS:{node.name}" for node in await self._partition()}
        for address in self.site.get("slurm", {}).get("addresses", {}).values():
            names.add(("IP:" if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", address) else "DNS:") + address)
        self.ssl_alt_names = [*self.trusted_alt_names_given, *sorted(names)]
        return await super().create_certs()

    @property
    def trusted_alt_names_given(self) -> list[str]:
        """What the hub's configuration adds to every certificate."""
        return list(getattr(self, "trusted_alt_names", []) or [])

    async def _partition(self) -> list:
        try:
            nodes = await self.queue.nodes(fresh=3600)
        except QueueSilent:
            return []
        return [node for node in nodes if self._request is None or node.partition == self._request.partition]

    async def move_certs(self, paths: dict) -> dict:
        """The keys stay where they are; the job gets their text by its environment."""
        return paths

    def get_env(self) -> dict[str, str]:
        env = super().get_env()
        for name, key in (("KEYFILE", "keyfile"), ("CERTFILE", "certfile"), ("CLIENT_CA", "cafile")):
            env.pop(f"JUPYTERHUB_SSL_{name}", None)
            if self.cert_paths:
                env[f"PHIDIAS_TLS_{name}"] = base64.b64encode(Path(self.cert_paths[key]).read_bytes()).decode()
        account = self._account()
        env |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name, "SHELL": account.pw_shell}
        env["PHIDIAS_ADDRESSES"] = json.dumps(self.site.get("slurm", {}).get("addresses", {}))
        return {key: str(value) for key, value in env.items() if value is not None and _VARIABLE.fullmatch(key)}

    async def start(self) -> str:
        self._launch, self._port, self._address = secrets.token_hex(8), None, ""
        self._asked = time.time()
        token = APIToken.find(object_session(self.orm_spawner), self.api_token)
        self._token = token.hashed if token is not None else ""
        # Before the job is there: a hub that is killed in between has to know its job again.
        self._keep()
        with self._start_goes_on():
            self.job = await self._hand_in()
            await self._until_it_is_known_where()
        return self._place

    @contextmanager
    def _start_goes_on(self) -> Iterator[None]:
        """While a start goes on, the queue is asked often, and no job of this start counts as left over."""
        self._heard = asyncio.Event()
        self._starting = True
        self._under_way.add(self._launch)
        self.queue.hurry(self)
        try:
            yield
        finally:
            self._under_way.discard(self._launch)
            self.queue.at_ease(self)
            self._starting = False

    async def _hand_in(self) -> str:
        """The number of the new job."""
        self._tell(IN_TURN if self.queue.crowded else "Your server is handed to the queue.", 5)
        account = self._account()
        script = render(self._request, self.site)
        options = [f"--comment={self._mark}", f"--chdir={account.pw_dir}"]
        try:
            return await self.queue.submit(account.pw_name, script, options, self.get_env())
        except Refused as error:
            raise NotStarted(str(error), reason="refused") from None
        except QueueSilent as error:
            self.log.error("sbatch for %s: %s", self._log_name, error)
            raise NotStarted(
                f"{SILENT} No server was started; try again in a few minutes.", reason="queue-silent", status=503
            ) from None

    async def _until_it_is_known_where(self) -> None:
        """From the job's number to the place where JupyterLab answers, each of them kept."""
        self._claimed[self.job] = self._launch
        self._keep()
        await self._until_port()
        self._address = await self._until_address()
        self._keep()
        self._tell("JupyterLab answers; you are taken there.", 90)

    @property
    def _place(self) -> str:
        """Scheme, address and port of the server."""
        scheme = "https" if self.internal_ssl else "http"
        address = f"[{self._address}]" if ":" in self._address else self._address
        return f"{scheme}://{address}:{self._port}"

    async def get_url(self) -> str:
        # JupyterHub writes it down last, so it may not know it when it was killed.
        return url_path_join(self._place, self.server.base_url)

    async def _until_port(self) -> None:
        """Waits for the server's own word of its port, and looks at the job meanwhile."""
        queue, servers = self.queue, self.site.get("servers", {})
        begun, running_since = time.monotonic(), None
        while self._port is None:
            job = await self._look()
            if time.monotonic() - begun > 10:
                queue.at_ease(self)
            # In the queue since it was asked for, perhaps from an earlier process of the hub.
            waited = time.time() - self._asked
            if job is None:
                self._tell(f"{SILENT} Your server keeps its place; please wait.")
            elif job.ended:
                raise await self._died(job)
            elif job.pending:
                hopeless = never(job)
                if hopeless:
                    raise NotStarted(
                        f"Your server cannot start: {hopeless}. (Slurm: {job.reason})", reason="never-fits"
                    )
                self._tell(why_waiting(job), 15)
                if waited > servers.get("queue_timeout", 3600):
                    raise NotStarted(
                        f"Your server waited {waited / 60:.0f} minutes in the queue and was taken out. {why_waiting(job)} "
                        "Ask for less, choose another profile, or try later.",
                        reason="queue-timeout",
                        status=503,
                    )
            else:
                running_since = running_since or time.monotonic()
                self._tell(f"Your server's job runs on {job.node or 'its node'}; JupyterLab is starting.", 50)
                if time.monotonic() - running_since > servers.get("start_timeout", 120):
                    raise NotStarted(
                        f"Your server's job runs on {job.node}, but JupyterLab gave no sign of life within "
                        f"{servers.get('start_timeout', 120)} s: it is slow to start, or the node cannot reach the hub. "
                        f"{self._log_hint()}",
                        reason="start-timeout",
                        status=504,
                    )
            await self._news()

    async def _news(self) -> None:
        """Returns with the next answer of the queue, or at once when the server tells its port."""
        waits = [asyncio.ensure_future(self._heard.wait()), asyncio.ensure_future(self.queue.news(2))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _look(self) -> Job | None:
        """The job as the queue last told it; an ended one when it is gone for certain; nothing while it is unknown."""
        queue = self.queue
        job = queue.jobs.get(self.job)
        if queue.silent is not None:
            # What was told before the silence holds only where it is final.
            return job if job is not None and job.ended else None
        if job is not None or not queue.absent(self.job):
            return job or Job(self.job, self.user.name, "PENDING")
        # Absent twice: asked once more with the owner's eyes, since a hub that may not see the job would end the server.
        try:
            job = await queue.as_user(self.user.name, self.job)
        except QueueSilent:
            return None
        if job is None:
            return Job(self.job, self.user.name, "COMPLETED")
        if not job.ended and not self._unseen_warned:
            self._unseen_warned = True
            self.log.error(
                "The hub's account does not see the jobs of its users: make it an operator in Slurm "
                "(sacctmgr modify user NAME set adminlevel=operator). Until then each look is one by one."
            )
        return job

    async def _died(self, job: Job) -> NotStarted:
        code = await self.queue.exit_code(self.job) if job.state == "FAILED" else None
        words = end_in_words(job, code)
        return NotStarted(
            f"Your server's job {self.job} ended before JupyterLab answered: {words}. {self._log_hint()}",
            reason="job-ended",
            status=500,
        )

    def _log_hint(self) -> str:
        return f"Its log is {log_path(self._account().pw_dir, self.job)}; show it to your administrator if it does not help."

    async def _until_address(self) -> str:
        """Under which address the hub reaches the job's node."""
        known = self.site.get("slurm", {}).get("addresses", {})
        until = time.monotonic() + 30
        while True:
            job = await self._look()
            node = job.node if job is not None else ""
            if node in known or "*" in known or node:
                return known.get(node) or known.get("*") or node
            if job is not None and job.ended:
                raise await self._died(job)
            if time.monotonic() > until:
                raise NotStarted(
                    f"{SILENT} It is unknown on which node your server runs.", reason="queue-silent", status=503
                )
            await self.queue.news(1)

    async def poll(self) -> int | None:
        if self._starting:
            return None
        if self._check_pending and self._launch and not (self._port and self._address):
            self._take_over()
            return 0
        if not self.job:
            return 0
        if not self.queue.asked:
            self.queue.start()
            await self.queue.news(self.queue.query_timeout + 1)
        job = await self._look()
        if job is None or not job.ended:
            return None
        return 0 if job.state == "COMPLETED" else 1

    async def stop(self, now: bool = False) -> None:
        if self.job:
            await self._cancel()

    async def _cancel(self) -> None:
        """Ends the job and waits until Slurm confirms it."""
        queue, number = self.queue, self.job
        until, again = time.monotonic() + 60, 0.0
        queue.hurry((self, "stop"))
        try:
            while True:
                if time.monotonic() >= again:
                    again = time.monotonic() + 10
                    try:
                        await queue.cancel(self.user.name, number)
                    except QueueSilent as error:
                        self.log.warning("scancel of job %s: %s", number, error)
                job = await self._look()
                if job is not None and job.ended:
                    return
                if time.monotonic() > until:
                    raise NotStarted(
                        f"Slurm has not confirmed the end of job {number}. It is cancelled as soon as the queue answers.",
                        reason="queue-silent",
                        status=503,
                    )
                await queue.news(1)
        finally:
            queue.at_ease((self, "stop"))

    # --- a start that outlives the hub ---------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Goes on with a start that an earlier process of the hub began.

        JupyterHub knows a check after its own start for servers that run, and would end this one. So the check finds no
        server; for everybody else it is starting, as it was before: its page tells why it waits, and it can be cancelled.
        """
        self.log.info("The start of %s, job %s, goes on.", self._log_name, self.job or "unknown")
        self._set_aside = self._spawn_pending = True
        self._spawn_future = asyncio.ensure_future(self._go_on())
        self._spawn_future.add_done_callback(self._went_on)

    @property
    def server(self) -> Any:
        return None if self._set_aside else Spawner.server.fget(self)

    @server.setter
    def server(self, server: Any) -> None:
        Spawner.server.fset(self, server)

    async def _go_on(self) -> None:
        """The rest of a start: what JupyterHub's `User.spawn` and its handler do once a job is handed in."""
        while self._check_pending:
            await asyncio.sleep(0)
        self._set_aside = False
        proxy = self.user.settings["proxy"]
        try:
            with self._start_goes_on():
                self.job = self.job or await self._find_own_job()
                await self._until_it_is_known_where()
            server = self.server
            server.proto, server.ip, server.port = self._place.split(":")[0], self._address, self._port
            self._commit()
            self._waiting_for_response = True
            await self.user._wait_up(self)
            # A proxy that is the hub's own child comes up last.
            await proxy.app._start_future
            await proxy.add_user(self.user, self.name)
        except Exception as error:
            self.log.error("The start of %s failed: %s", self._log_name, error)
            if self.server is not None:
                await self.user.stop(self.name)
            raise
        self.add_poll_callback(self._stopped, proxy)
        self.start_polling()

    def _went_on(self, start: asyncio.Future) -> None:
        # A failure is kept: the page of the server tells it.
        if start.cancelled() or start.exception() is None:
            self._spawn_future = None
        self._spawn_pending = False

    async def _stopped(self, proxy: Any) -> None:
        """The server has ended by itself."""
        self.log.warning("The server of %s has ended.", self._log_name)
        await proxy.delete_user(self.user, self.name)
        await self.user.stop(self.name)

    async def _find_own_job(self) -> str:
        """The number of the job that the earlier process was just handing in; its mark tells it."""
        queue = self.queue
        until = time.monotonic() + queue.query_timeout
        while True:
            await queue.news(2)
            marked = [job.id for job in queue.jobs.values() if Mark.read(job.comment) == self._mark]
            mine = [number for number in marked if queue.jobs[number].user == self.user.name]
            if mine:
                return min(mine, key=int)
            if queue.silent is not None:
                self._tell(f"{SILENT} Please wait.")
            elif time.monotonic() > until:
                raise NotStarted(
                    "The hub was restarted before your server was in the queue. Start it again.",
                    reason="restarted",
                    status=503,
                )

    # --- jobs that nobody claims ---------------------------------------------------------------------------------------

    @classmethod
    def _find_astray(cls, queue: Queue, hub: str) -> None:
        """Cancels jobs of this hub that belong to no server it knows: left over by a crash between two steps."""
        seen = {}
        for job in queue.jobs.values():
            if job.ended or job.id in cls._claimed:
                continue
            mark = Mark.read(job.comment)
            if mark is None or mark.hub != hub or mark.user != job.user or mark.start in cls._under_way:
                continue
            seen[job.id] = cls._astray.get(job.id, 0) + 1
            if seen[job.id] in (3, 30, 300):
                queue_log = f"Job {job.id} of {job.user} belongs to no server any more and is cancelled."
                task = asyncio.ensure_future(cls._end_astray(queue, job, queue_log))
                cls._tasks.add(task)
                task.add_done_callback(cls._tasks.discard)
        cls._astray.clear()
        cls._astray.update(seen)

    @staticmethod
    async def _end_astray(queue: Queue, job: Job, told: str) -> None:
        log.warning(told)
        try:
            await queue.cancel(job.user, job.id)
        except QueueSilent as error:
            log.warning("scancel of job %s: %s", job.id, error)

    # --- what the port's handler asks ----------------------------------------------------------------------------------

    def knows(self, token: APIToken) -> bool:
        """Whether a token is the one of this server."""
        return bool(self._token) and self._token == token.hashed

    def told_port(self, port: int) -> bool:
        """Takes the port, the first time; the same word once more does no harm."""
        if self._port is None:
            self._port = port
            # Kept before the answer, since the server will not say it again; a hub that is just ending hears it too.
            self._keep()
            if self._heard is not None:
                self._heard.set()
            return True
        return self._port == port

    # --- what outlives the hub -----------------------------------------------------------------------------------------

    def load_state(self, state: dict) -> None:
        super().load_state(state)
        self.job = str(state.get("job", ""))
        self._launch = str(state.get("start", ""))
        self._asked = float(state.get("asked", time.time()))
        self._port = state.get("port")
        self._address = str(state.get("address", ""))
        self._token = str(state.get("token", ""))
        if self.job:
            self._claimed[self.job] = self._launch
            self.queue.watch_for(self.job)

    def get_state(self) -> dict:
        state = super().get_state()
        if self._launch:
            state |= {"job": self.job, "start": self._launch, "asked": self._asked}
            state |= {"port": self._port, "address": self._address}
            # By which the hub finds the token in its database; the token itself is nowhere.
            state["token"] = self._token
        return state

    def clear_state(self) -> None:
        super().clear_state()
        self._claimed.pop(self.job, None)
        self._revoke_token()
        self.job, self._launch, self._asked, self._port, self._address, self._token = "", "", 0.0, None, "", ""

    def _revoke_token(self) -> None:
        """Ends the server's token with the server; JupyterHub does so only in the process that made it."""
        session = object_session(self.orm_spawner)
        if self._token and session is not None:
            session.query(APIToken).filter_by(hashed=self._token).delete()

    def _keep(self) -> None:
        """Writes the state now: a hub that is killed while a server waits has to find its job again."""
        self.orm_spawner.state = self.get_state()
        self._commit()

    def _commit(self) -> None:
        session = object_session(self.orm_spawner)
        if session is not None:
            session.commit()

    # --- what the user sees meanwhile ----------------------------------------------------------------------------------

    def _tell(self, sentence: str, percent: int | None = None) -> None:
        self._say = sentence
        if percent is not None:
            self._percent = percent
        if self._said is not None:
            self._said.set()
            self._said = None

    async def progress(self) -> AsyncIterator[dict]:
        told = None
        while True:
            self._said = said = self._said or asyncio.Event()
            now = (self._percent, self._say)
            if now != told:
                told = now
                yield {"progress": now[0], "message": now[1]}
            await said.wait()
