"""All of it on one host: Slurm, users, their environment, the proxy apart and the hub under its own account.

What `make lab-slurm` starts and what the tests of the hub run against. The hub and the proxy get copies of hub-config that
their account can read, since the checkout may be closed to others.
"""

from __future__ import annotations

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
import urllib.request
from pathlib import Path

from . import Refused, environment, people
from .slurm import Lab, Settings, alive, send, started, until

HUB_CONFIG = Path(__file__).resolve().parents[1]
SITE = HUB_CONFIG / "sites" / "onebox.toml"
CREATED = people.MANIFEST


class Deployment:
    """A site with kind "slurm" on this host. Every place and name comes from its site file."""

    def __init__(self, site: Path = SITE, *, manifest: Path = CREATED, password: str | None = None, port: int = 17000):
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
        self.manifest = manifest
        self.password = password or secrets.token_urlsafe(9)
        self._secrets = {
            "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(32),
            "PHIDIAS_CULLER_TOKEN": secrets.token_hex(32),
            "PHIDIAS_DEMO_PASSWORD": self.password,
        }
        self.log = self.state.parent / f"{self.state.name}-log"
        self.processes: dict[str, subprocess.Popen] = {}
        self.seconds: dict[str, float] = {}

    # All at once ----------------------------------------------------------------------------------------------------

    def start(self, create: bool, say=print) -> None:
        """Bring everything up; `create` allows creating users where they are missing."""
        if os.geteuid() != 0:
            raise Refused(
                "A Slurm lab starts jobs under several accounts, so it needs root: sudo make lab-slurm SYSTEM=1. "
                "Without root, for one person on this machine: make lab"
            )
        missing = people.missing(self.names)
        if missing and not create:
            raise Refused(
                f"This machine has no accounts for the lab yet. SYSTEM=1 creates them: {'; '.join(missing)}. They are "
                "removed with: python -m slurm_lab users --remove (in hub-config, as root)"
            )
        self._timed("people", lambda: people.create(self.names, self.manifest))
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
        try:
            left = json.loads((self.log / "processes.json").read_text())
        except FileNotFoundError:
            left = {}
        for pid, since in left.values():
            for number in (signal.SIGTERM, signal.SIGKILL):
                if alive(pid, since):
                    send(pid, number)
                    until(10, lambda pid=pid, since=since: not alive(pid, since))
        self.slurm.cancel_jobs()
        self.slurm.stop()

    def start_proxy(self) -> None:
        self._copy_configuration()
        python = self.environment / "bin" / "python"
        install = [python, "-m", "phidias_hub.proxy", "install"]
        # Run as root in the surroundings of whoever called: the way to the registry may stand there.
        surroundings = os.environ | {"PYTHONPATH": str(self.place), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(install, cwd=self.place, env=surroundings, capture_output=True, text=True)
        if done.returncode:
            raise Refused(f"The proxy could not be installed: {(done.stderr or done.stdout).strip()[-400:]}")
        self._start("proxy", [python, "-m", "phidias_hub.proxy", "run"])

    def start_hub(self, seconds: float = 60) -> None:
        python = self.environment / "bin" / "python"
        begun = time.monotonic()
        self._start("hub", [python, "-m", "phidias_hub.hub"])
        if not until(seconds, lambda: self.answers() or self.processes["hub"].poll() is not None) or not self.answers():
            raise Refused(f"The hub does not answer at {self.address}:\n{self.said('hub')[-2000:]}")
        self.seconds["hub"] = time.monotonic() - begun

    def answers(self) -> bool:
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return opener.open(f"{self.address}/hub/api/", timeout=5).status == 200
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
            self.log.mkdir(exist_ok=True)
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

    def _start(self, name: str, command: list) -> None:
        account = pwd.getpwnam(self.names.hub)
        with open(self.log / f"{name}.log", "ab") as stream:
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
        (self.log / "processes.json").write_text(json.dumps(known))

    def _timed(self, name: str, act) -> None:
        begun = time.monotonic()
        act()
        self.seconds[name] = time.monotonic() - begun


def lab(deployment: Deployment, create: bool) -> int:
    """Bring everything up, say where it is, and stop it all at Ctrl-C."""

    def interrupted(number, frame):
        raise KeyboardInterrupt

    # Said here, because a shell in the background lets its children ignore Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupted)
    try:
        deployment.start(create)
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in deployment.seconds.items())
        print(
            f"Ready ({times}).\nOpen {deployment.address} and log in as {' or '.join(deployment.names.users)} with the "
            f"password {deployment.password}\nIn another terminal: export SLURM_CONF={deployment.slurm_conf}\n"
            "Ctrl-C stops everything.",
            flush=True,
        )
        while all(process.poll() is None for process in deployment.processes.values()):
            time.sleep(1)
        ended = next(name for name, process in deployment.processes.items() if process.poll() is not None)
        raise Refused(f"The {ended} has ended by itself:\n{deployment.said(ended)[-1000:]}")
    except KeyboardInterrupt:
        print("Stopping ...", flush=True)
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        deployment.stop()
