"""A hub that really runs, a visitor with cookies, and free ports for both."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests

ROOT = Path(__file__).parents[2]
HUB_CONFIG = ROOT / "hub-config"
if str(HUB_CONFIG) not in sys.path:
    sys.path.insert(0, str(HUB_CONFIG))
#: Secrets that a test's environment must not inherit from whoever runs the tests.
_FOREIGN = ("PHIDIAS_", "JUPYTER", "JPY_", "CONFIGPROXY_", "CREDENTIALS_", "OAUTH", "LOGIN_")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free at this moment."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def environment_without_a_hub(**more: str) -> dict[str, str]:
    """This environment without anything that belongs to a hub or a lab."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    kept["PYTHONPATH"] = str(ROOT)
    return kept | more


class Visitor(requests.Session):
    """A browser without a screen: it keeps cookies and answers forms with the token that the page gave it."""

    def __init__(self, address: str, certificate: Path | None = None):
        super().__init__()
        self.trust_env = False
        self.address = address.rstrip("/")
        self.verify = str(certificate) if certificate else True

    def look(self, path: str = "/", **options):
        return self.get(path if "://" in path else self.address + path, timeout=60, **options)

    def log_in(self, name: str, password: str, **options):
        page = self.look("/hub/login")
        token = re.search(r'name="_xsrf"\s+value="([^"]*)"', page.text)
        assert token, page.text
        form = {"username": name, "password": password, "_xsrf": token[1]}
        return self.post(f"{self.address}/hub/login", data=form, timeout=60, **options)

    def xsrf(self, path: str) -> str:
        """The token against forged requests of the page at `path`, below the hub's own."""
        path = urlsplit(self.address).path + path
        return next(c.value for c in self.cookies if c.name == "_xsrf" and c.path == path)

    def start_server(self, seconds: float = 60):
        """Ask for the server and wait until it answers; the last answer is returned."""
        answer = self.look("/hub/spawn")
        end = time.monotonic() + seconds
        while "spawn-pending" in answer.url or answer.status_code == 503:
            assert time.monotonic() < end, f"The server was not ready after {seconds} s: {answer.url}"
            time.sleep(0.3)
            answer = self.look("/hub/user-redirect/lab")
        return answer


class Hub:
    """A hub in a process of its own."""

    program = HUB_CONFIG / "phidias_hub" / "hub.py"

    def __init__(self, site: Path, folder: Path, address: str, certificate: Path | None = None, **variables: str):
        self.address, self.certificate, self.folder = address, certificate, folder
        self.log = folder / f"hub-{urlsplit(address).port}.log"
        self.environment = environment_without_a_hub(
            PHIDIAS_SITE=str(site), XDG_STATE_HOME=str(folder / "state"), HOME=str(folder), **variables
        )
        self.process: subprocess.Popen | None = None
        self.left: list[psutil.Process] = []

    def start(self) -> Hub:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(self.program)],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, f"The hub ended:\n{self.said()}"
            assert time.monotonic() < end, f"The hub did not answer within a minute:\n{self.said()}"
            try:
                if self.visitor().look("/hub/api/").status_code == 200:
                    return self
            except requests.RequestException:
                time.sleep(0.2)
                continue
            time.sleep(0.2)

    def visitor(self) -> Visitor:
        return Visitor(self.address, self.certificate)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def password(self) -> str:
        """The newest one-time password."""
        return re.findall(r"with the password (\S+)", self.said())[-1]

    def children(self) -> list[psutil.Process]:
        """Everything that the hub has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """End the hub's process alone, as a crash does; what it has started lives on until `stop`."""
        self.left += self.children()
        self.process.kill()
        self.process.wait(20)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        family = self.children() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        family += self.left
        for process in family:
            if process.is_running():
                process.terminate()
        psutil.wait_procs(family, timeout=5)
