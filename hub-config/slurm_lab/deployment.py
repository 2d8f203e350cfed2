"""All of it on one host: Slurm, users, their environment, the proxy apart and the hub under its own account.

What `make lab-slurm` starts and what the tests of the hub run against. The hub and the proxy get copies of hub-config that
their account can read, since the checkout may be closed to others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import threading
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import Refused, environment, people
from .slurm import Lab, Settings, alive, send, started, taken, until

HUB_CONFIG = Path(__file__).resolve().parents[1]
SITE = HUB_CONFIG / "sites" / "onebox.toml"
_MODULES = {"proxy": ["phidias_hub.proxy", "run"], "hub": ["phidias_hub.hub"]}
#: Where the site file says nothing: the defaults of site.schema.yaml, which needs more than the standard library to be read.
PORTS = {"internal_port": 8081, "proxy_api_port": 8001}
#: A lab's lock is here: nobody but root writes here, and nothing of it outlives a boot.
LOCKS = Path("/run")
#: How often the hub or the proxy may end by itself within so many seconds before the lab gives up.
STARTS, WITHIN = 3, 600


class Deployment:
    """A site with kind "slurm" on this host. Every place and name comes from its site file."""

    def __init__(
        self, site: Path = SITE, *, manifest: Path | None = None, password: str | None = None, port: int = 17000
    ):
        self.site_file = site
        self.site = tomllib.loads(site.read_text())
        try:
            self.address = self.site["hub"]["url"].rstrip("/")
            self.state = Path(self.site["hub"]["state"])
            self.names = people.Names(self.site["login"]["users"], self.site["login"]["group"], state=self.state)
            self.slurm_conf = Path(self.site["slurm"]["configuration"])
            self.environment = Path(next(iter(self.site["servers"]["environments"].values()))["folder"])
        except (KeyError, StopIteration) as error:
            raise Refused(
                f"{site} is no site for one host: it says nothing of {error}. Take {SITE.name} as an example."
            ) from None
        self.slurm = Lab(self.slurm_conf.parent.parent)
        self.port = port
        self.place = self.state.parent / f"{self.state.name}-config"
        apart = "" if self.state.parent == people.MANIFEST.parent else str(self.state).replace("/", "-")
        self.manifest = manifest or people.MANIFEST.with_name(f"created{apart}.json")
        self.password = password or secrets.token_urlsafe(9)
        self._secrets = {
            "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(32),
            "PHIDIAS_CULLER_TOKEN": secrets.token_hex(32),
            "PHIDIAS_DEMO_PASSWORD": self.password,
        }
        self.log = self.state.parent / f"{self.state.name}-log"
        self.processes: dict[str, subprocess.Popen] = {}
        self.seconds: dict[str, float] = {}
        self._ends: dict[str, list[float]] = {}

    # All at once ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The right to these places while this process lives; who asks meanwhile is told whose it is."""
        if os.geteuid() != 0:
            raise Refused(
                "A Slurm lab starts jobs under several accounts, so it needs root: sudo make lab-slurm SYSTEM=1. "
                "Without root, for one person on this machine: make lab"
            )
        with contextlib.ExitStack() as locks:
            for place in (self.state, self.slurm.folder):
                locks.enter_context(_lock(place))
            yield

    def check(self, create: bool) -> None:
        """Refuse what cannot work before anything is started; `create` allows creating users where they are missing."""
        people.check_state(self.names)
        missing = people.missing(self.names)
        if missing and not create:
            raise Refused(
                f"This machine has no accounts for the lab yet. SYSTEM=1 creates them: {'; '.join(missing)}. They are "
                f"removed with: python -m slurm_lab remove --site {self.site_file.resolve()} (in hub-config, as root)"
            )
        self.end_left()
        hub = self.site["hub"]
        outer = urllib.parse.urlsplit(f"//{hub['listen']}" if "listen" in hub else self.address)
        first = "listen" if "listen" in hub else "url"
        ports = {first: outer.port or {"https": 443}.get(outer.scheme, 80)}
        ports |= {key: hub.get(key, port) for key, port in PORTS.items()}
        for key, port in ports.items():
            if taken(port):
                raise Refused(
                    f"Port {port} on 127.0.0.1 is taken, and the lab needs it (hub.{key} of {self.site_file}). End what "
                    "listens there, or copy the site file, write another port and take it: make lab-slurm SITE=FILE"
                )

    def start(self, say=print) -> None:
        """Bring everything up."""
        self._timed("people", lambda: people.create(self.names, self.manifest))
        if found := people.found(self.names, self.manifest):
            say(f"The lab works with accounts that it did not create: {', '.join(found)}.")
        faults: list[BaseException] = []

        def bring_up_slurm() -> None:
            try:
                self.start_slurm()
            except (Refused, OSError) as fault:
                faults.append(fault)

        beside = threading.Thread(target=bring_up_slurm)
        beside.start()
        try:
            self.make_environment(say)
        finally:
            beside.join()
        if faults:
            raise faults[0]
        self.start_proxy()
        self.start_hub()

    def stop(self) -> None:
        """Stop the hub and the proxy, cancel all jobs, stop Slurm."""
        for name in ("hub", "proxy"):
            self.end(name)
        self.slurm.cancel_jobs()
        self.slurm.stop()

    # One after the other ----------------------------------------------------------------------------------------------

    def start_slurm(self) -> None:
        users = ["root", *self.names.users]
        settings = Settings(port=self.port, users=users, operators=[self.names.hub])
        self._timed("slurm", lambda: self.slurm.start(settings))

    def make_environment(self, say=print) -> None:
        """The users' environment, and the lake of the site where it has one."""
        self._timed("environment", lambda: environment.build(self.environment, say=say))
        if lake := self.site.get("lake"):
            self._timed("lake", lambda: environment.build_lake(Path(lake), environment=self.environment))

    def clear(self) -> None:
        """End what a killed process of this kind has left running."""
        self.end_left()
        self.slurm.cancel_jobs()
        self.slurm.stop()

    def end_left(self) -> None:
        """End the hub and the proxy of a lab that is gone; each is known by its pid and the moment it was started."""
        try:
            left = json.loads((self.log / "processes.json").read_text())
        except FileNotFoundError:
            left = {}
        for pid, since in left.values():
            for number in (signal.SIGTERM, signal.SIGKILL):
                if alive(pid, since):
                    send(pid, number)
                    until(10, lambda pid=pid, since=since: not alive(pid, since))

    def remove(self) -> list[str]:
        """Stop everything and take away what the lab made, but for the environment and the lake; what was taken away."""
        self.clear()
        removed = [f"{kind} {name}" for kind, name, *_ in people.remove(self.manifest)]
        # Only a folder that holds the lab's own file is the lab's.
        marks = {self.slurm.folder: "lab.json", self.place: "site.toml", self.log: "processes.json"}
        for folder, mark in marks.items():
            if (folder / mark).is_file():
                shutil.rmtree(folder)
                removed.append(f"folder {folder}")
        return removed

    def start_proxy(self) -> None:
        self._copy_configuration()
        python = self.environment / "bin" / "python"
        install = [python, "-m", "phidias_hub.proxy", "install"]
        # Run as root in the surroundings of whoever called: the way to the registry may stand there.
        surroundings = os.environ | {"PYTHONPATH": str(self.place), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(install, cwd=self.place, env=surroundings, capture_output=True, text=True)
        if done.returncode:
            raise Refused(f"The proxy could not be installed: {(done.stderr or done.stdout).strip()[-400:]}")
        self._start("proxy")

    def start_hub(self, seconds: float = 60) -> None:
        begun = time.monotonic()
        self._start("hub")
        if not until(seconds, lambda: self.answers() or self.processes["hub"].poll() is not None) or not self.answers():
            raise Refused(f"The hub does not answer at {self.address}:\n{self.said('hub')[-2000:]}")
        self.seconds["hub"] = time.monotonic() - begun

    def start_again(self, say=print) -> None:
        """As systemd does for the units: start what has ended by itself, but not what ends again and again."""
        for name in [n for n, process in self.processes.items() if process.poll() is not None]:
            now = time.monotonic()
            before = [end for end in self._ends.get(name, []) if now - end < WITHIN]
            if len(before) == STARTS:
                raise Refused(f"The {name} ends again and again by itself:\n{self.said(name)[-1000:]}")
            self._ends[name] = [*before, now]
            say(
                f"The {name} has ended by itself and is started again ({len(before) + 1} of {STARTS} times within "
                f"{WITHIN // 60} minutes). Its log: {self.log}/{name}.log",
                flush=True,
            )
            self._start(name)

    def answers(self) -> bool:
        """Whether this very hub answers: no other one knows the token that was made for it, where its site uses it."""
        secret = self._secrets["PHIDIAS_CULLER_TOKEN"]
        own = "user" if self.site["servers"].get("idle_minutes") else ""
        ask = urllib.request.Request(f"{self.address}/hub/api/{own}", headers={"Authorization": f"token {secret}"})
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return opener.open(ask, timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """End the hub or the proxy, which this object has started."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def secrets(self) -> list[str]:
        """What nobody but the hub and the proxy may know."""
        return list(self._secrets.values())

    def said(self, name: str) -> str:
        return (self.log / f"{name}.log").read_text(errors="replace")

    def _copy_configuration(self) -> None:
        before = os.umask(0o022)
        try:
            # npm's links in .bin cannot be written over at a second start, and nothing uses them.
            leave = shutil.ignore_patterns("__pycache__", "tests", ".bin")
            shutil.copytree(HUB_CONFIG, self.place, dirs_exist_ok=True, symlinks=True, ignore=leave)
            shutil.copy(self.site_file, self.place / "site.toml")
        finally:
            os.umask(before)
        subprocess.run(["chmod", "-R", "a+rX,go-w", self.place], check=True)

    def _variables(self, secret: dict[str, str]) -> dict[str, str]:
        account = pwd.getpwnam(self.names.hub)
        return {
            "PATH": f"{self.environment}/bin:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.state),
            "USER": account.pw_name,
            "PYTHONPATH": str(self.place),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PHIDIAS_SITE": str(self.place / "site.toml"),
            "SLURM_CONF": str(self.slurm_conf),
            **secret,
        }

    def _start(self, name: str) -> None:
        account = pwd.getpwnam(self.names.hub)
        command = [self.environment / "bin" / "python", "-m", *_MODULES[name]]
        self.log.mkdir(mode=0o700, exist_ok=True)
        self.log.chmod(0o700)
        with self._closed(f"{name}.log", "ab") as stream:
            self.processes[name] = subprocess.Popen(
                list(map(str, command)),
                cwd=self.state,
                env=self._variables(self._secrets),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                umask=0o077,
                start_new_session=True,
            )
        known = {n: [p.pid, started(p.pid)] for n, p in self.processes.items() if p.poll() is None}
        with self._closed("processes.json", "w") as stream:
            json.dump(known, stream)

    @contextlib.contextmanager
    def _closed(self, name: str, mode: str) -> Iterator[IO]:
        """A file of the log folder, for root alone: who logs in, addresses and their tokens stand there."""
        with open(self.log / name, mode, opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            os.fchmod(stream.fileno(), 0o600)
            yield stream

    def _timed(self, name: str, act) -> None:
        begun = time.monotonic()
        act()
        self.seconds[name] = time.monotonic() - begun


@contextlib.contextmanager
def _lock(place: Path) -> Iterator[None]:
    """Held by this process alone (children do not inherit it), and free at its end, however it ends."""
    file = LOCKS / f"phidias-lab{str(place).replace('/', '-')}.lock"
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode()
            raise Refused(
                f"A lab runs in {place} already, as process {holder}. Use that one, or end it first: kill {holder}"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(lock)


def lab(deployment: Deployment, create: bool) -> int:
    """Bring everything up, say where it is, start again what ends by itself, and stop it all at Ctrl-C."""

    def interrupted(number, frame):
        raise KeyboardInterrupt

    # Said here, because a shell in the background lets its children ignore Ctrl-C. A terminal that is closed sends SIGHUP;
    # who ignores that one has asked for it (nohup).
    ends = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ends.append(signal.SIGHUP)
    with deployment.alone():
        for number in ends:
            signal.signal(number, interrupted)
        try:
            deployment.check(create)
        except KeyboardInterrupt:
            return 0
        try:
            deployment.start()
            times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in deployment.seconds.items())
            print(
                f"Ready ({times}).\nOpen {deployment.address} and log in as {' or '.join(deployment.names.users)} with "
                f"the password {deployment.password}\nIn another terminal: export SLURM_CONF={deployment.slurm_conf}\n"
                "Ctrl-C stops everything.",
                flush=True,
            )
            while True:
                time.sleep(1)
                deployment.start_again()
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):  # the terminal may be gone
                print("Stopping ...", flush=True)
            return 0
        finally:
            for number in ends:
                signal.signal(number, signal.SIG_IGN)
            deployment.stop()
