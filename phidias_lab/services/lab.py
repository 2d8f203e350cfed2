"""The lab on one's own machine: JupyterLab with the dashboards inside it, bound to 127.0.0.1, behind one address.

`Lab.start` brings it up, `Lab.stop` takes down everything that was started from it: Jupyter, its kernels, the dashboards,
and runs. What belongs to it is recognised by the variable PHIDIAS_LAB, which each of its processes inherits and which a
run writes into its record.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from phidias_lab import settings, sockets
from phidias_lab.errors import MissingExtraError, ParameterError, PhidiasError, ProductError
from phidias_lab.services.server.entrance import with_our_configuration
from phidias_lab.services.workspace import ENTRANCE

HOST = "127.0.0.1"
PORT = 8888
#: What the demo lake and a first run need together, bytes.
SPACE = 2**30
#: Seconds Jupyter may take to answer; a cold disk makes the first import slow.
PATIENCE = 120.0
#: Seconds Jupyter may take to leave by itself, before what is left of it is killed.
FAREWELL = 6.0
#: JupyterLab. rfc3987_syntax compiles a grammar at its import, a second of the start, for a check of internationalized
#: addresses that nothing here asks for; jsonschema goes on without it.
_JUPYTERLAB = """\
import sys
sys.modules["rfc3987_syntax"] = None
from jupyterlab.labapp import main
sys.exit(main())
"""
_NEEDED = ("jupyterlab", "jupyter_server_proxy", "ipykernel", "panel")


def check_installed() -> None:
    """Refuse when a part of the extra 'lab' is missing."""
    for module in _NEEDED:
        if find_spec(module) is None:
            raise MissingExtraError(f"'phidias lab' (its part {module})", "lab")


def check_port(port: int) -> None:
    """Refuse a port that something listens on; say so when it is this lab."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            # A port on which only old connections linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return
        except PermissionError:
            raise ParameterError(
                f"The port {port} may not be used by this user. Choose a port from 1024 to 65535 with --port, "
                f"for example --port {free_port()}."
            ) from None
        except OSError:
            running = _running(port)
    if running:
        raise ParameterError(
            f"A lab runs already at port {port} (process {running['pid']}): {running['address']} . "
            f"Open that one, or start a second one with --port {free_port()}."
        )
    raise ParameterError(
        f"The port {port} on {HOST} is in use by another program. Choose a free one: phidias lab --port {free_port()}"
    )


def free_port() -> int:
    """A port on 127.0.0.1 that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def check_space() -> None:
    """Refuse when the lake's disk is nearly full, before half a demo lake is written."""
    root = settings.lake_root()
    if "://" in root:
        return
    place = next(p for p in (Path(root), *Path(root).parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < SPACE:
        raise ProductError(
            f"The demo lake needs about 1 GiB, and only {free / 2**30:.2f} GiB are free at {place}. Free some space, or "
            "set PHIDIAS_LAKE to a folder on another disk."
        )


def _records() -> Path:
    return settings.user_data() / "labs"


def _running(port: int) -> dict | None:
    """The record of the lab at this port, if its process lives."""
    try:
        record = json.loads((_records() / f"{port}.json").read_text(encoding="utf-8"))
        alive = abs(psutil.Process(record["pid"]).create_time() - record["born"]) < 2.0
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return record if alive else None


def clear_remains() -> list[str]:
    """Stop what labs of this machine left behind that were killed; returns what the user should know."""
    said = []
    for path in sorted(_records().glob("*.json")):
        if not path.stem.isdigit() or _running(int(path.stem)):
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            # A home folder may be shared by machines: whether a process of another one lives cannot be seen from here.
            if record["host"] != socket.gethostname():
                continue
            dead = Lab(int(path.stem))
            dead.id = str(record["id"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if count := dead.stop()["processes"]:
            said.append(f"The lab at port {dead.port} was killed; the {count} processes that it left are stopped.")
    return said


def _write_private(path: Path, content: dict) -> None:
    """Write what holds the token so that only its owner can read it."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2)


class Lab:
    """One running lab, in a workspace that `prepare_workspace` has prepared."""

    name = "JupyterLab"

    def __init__(self, port: int = PORT):
        self.port = port
        self.id = secrets.token_hex(8)
        self.token = secrets.token_urlsafe(24)
        self.folder = settings.workspace()
        self.entrance = f"/lab/tree/{ENTRANCE}" if (self.folder / ENTRANCE).is_file() else "/lab"
        self.log = _records() / f"{port}.log"
        self.runtime = _records() / f"{port}.runtime"
        self.process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}{self.entrance}?token={self.token}"

    def configuration(self) -> dict:
        """What Jupyter is told: this machine only, one port, nothing fetched from outside."""
        return {
            "ServerApp": {
                "ip": HOST,
                "port": self.port,
                "port_retries": 0,
                "root_dir": str(self.folder),
                "open_browser": False,
                "allow_remote_access": False,
                # In a container there is often no other user than root; the server is reachable from this machine alone.
                "allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,
            },
            "IdentityProvider": {"token": self.token},
            # A kernel's ports are open to everyone on the machine, and what it prints would be told there.
            "MappingKernelManager": {"transport_encryption": "auto"},
            "LabApp": {
                "default_url": self.entrance,
                "news_url": None,
                "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
                "extension_manager": "readonly",
            },
        }

    def command(self, configuration: Path) -> list[str]:
        """The program that answers at the address."""
        return [sys.executable, "-c", _JUPYTERLAB, f"--config={configuration}"]

    def variables(self, configuration: Path) -> dict[str, str]:
        """What this program finds in its environment beside what this process has."""
        return {}

    def handed_over(self) -> tuple[int, ...]:
        """Open files that this program gets beside the usual three."""
        return ()

    def start(self) -> None:
        """Start the program and wait until it answers."""
        records = _records()
        try:
            records.mkdir(parents=True, exist_ok=True)
            configuration = records / f"{self.port}.jupyter.json"
            _write_private(configuration, self.configuration())
            me = psutil.Process()
            _write_private(
                records / f"{self.port}.json",
                {
                    "pid": me.pid,
                    "born": me.create_time(),
                    "host": socket.gethostname(),
                    "id": self.id,
                    "address": self.address,
                },
            )
            log = open(self.log, "wb")  # noqa: SIM115  the child keeps it
        except OSError as error:
            raise ProductError(f"{records} cannot be written: {error.strerror}. Free some space there.") from None
        with log:
            self.process = subprocess.Popen(
                self.command(configuration),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={
                    **os.environ,
                    "PHIDIAS_LAB": self.id,
                    # Jupyter's own records (tokens, keys of kernels) stay when it is stopped by a signal while it serves
                    # the dashboards; in a folder of this lab they go with it.
                    "JUPYTER_RUNTIME_DIR": str(self.runtime),
                    "JUPYTER_CONFIG_PATH": with_our_configuration(os.environ.get("JUPYTER_CONFIG_PATH")),
                    **self.variables(configuration),
                },
                pass_fds=self.handed_over(),
                # Ctrl-C in the terminal is for us: Jupyter alone would ask whether it is meant.
                start_new_session=True,
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        # No proxy: the address is this machine's own.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise PhidiasError(
                    f"{self.name} stopped with exit code {self.process.returncode} before it answered. Its log tells why: "
                    f"{self.log}"
                )
            with contextlib.suppress(urllib.error.URLError, OSError), opener.open(self.address, timeout=10) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise PhidiasError(f"{self.name} did not answer within {PATIENCE:.0f} s. Its log tells why: {self.log}")

    def wait(self) -> None:
        """Wait until Jupyter ends by itself (by its own 'Shut Down')."""
        code = self.process.wait()
        if code:
            raise PhidiasError(f"{self.name} stopped with exit code {code}. Its log tells why: {self.log}")

    def stop(self) -> dict[str, Any]:
        """Stop everything that was started from this lab; tells what that was."""
        mine = self._processes()
        if self.process is None:  # another process started this lab, and was killed
            for process in mine:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
            psutil.wait_procs(mine, timeout=FAREWELL)
        elif self.process.poll() is None:
            self.process.terminate()
        cancelled = self._cancel_runs()
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(FAREWELL)
        # Runs that a kernel started while it was leaving, then whatever did not leave.
        cancelled += self._cancel_runs()
        late = self._processes()
        for process in late:
            with contextlib.suppress(psutil.Error):
                process.kill()
        gone, left = psutil.wait_procs({*mine, *late}, timeout=3.0)
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
        for name in (f"{self.port}.json", f"{self.port}.jupyter.json"):
            (_records() / name).unlink(missing_ok=True)
        shutil.rmtree(self.runtime, ignore_errors=True)
        sockets.sweep()
        return {"processes": len(gone), "left": [p.pid for p in left], "runs": cancelled}

    def _processes(self) -> list[psutil.Process]:
        """All processes that carry this lab's mark, wherever they hang in the process tree."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get("PHIDIAS_LAB") == self.id:
                    found.append(process)
        return found

    def _cancel_runs(self) -> list[str]:
        from phidias_lab.compute import runs

        mine = [r for r in runs.runs() if self._started(r) and r.status in ("waiting", "running")]
        if not mine:
            return []
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(_cancelled, mine))
        return [run.id for run in mine]

    def _started(self, run: Any) -> bool:
        from phidias_lab.compute import runs

        return self.id in (run.record.get("lab"), runs.read_json(run.folder / "launched.json").get("lab"))


def _cancelled(run: Any) -> None:
    # One run that cannot be stopped (it is on another host) must not keep the others from being stopped.
    with contextlib.suppress(PhidiasError):
        run.cancel(patience=3.0)
