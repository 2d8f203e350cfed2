"""`make lab`: the hub of one person, from the first line in the terminal to the last process."""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from phidias_hub import local

from phidias_lab.services import hub_lab, lab


def marked(identity):
    """Processes that belong to this lab."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PHIDIAS_LAB") == identity:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


class Terminal:
    """A started lab and what it prints, line by line."""

    def __init__(self, port, folder, environment, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "phidias_lab", "lab", "--hub", "--quiet", "--port", str(port), *words],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, seconds=120):
        found = self._lines.get(timeout=seconds)
        assert found is not None, self.process.stderr.read()
        return found

    def password(self):
        return re.fullmatch(r"Log in as \S+ with the password (\S+)", self.line())[1]


@pytest.fixture
def open_lab(tmp_path, demo_lake, proxy_installed, plain_environment):
    opened = []

    def start(port, *words):
        # No Node.js and no other program of the system: what the hub needs, it brings.
        environment = plain_environment(
            HOME=str(tmp_path), PATH=str(tmp_path), PHIDIAS_LAKE=str(demo_lake), XDG_DATA_HOME=str(tmp_path / "data")
        )
        opened.append(Terminal(port, tmp_path, environment, *words))
        return opened[-1]

    yield start
    for terminal in opened:
        if terminal.process.poll() is None:
            terminal.process.terminate()
            terminal.process.wait(40)


def test_the_lab_behind_its_hub_from_the_first_line_to_the_last_process(open_lab, visit, tmp_path):
    port = lab.free_port()
    terminal = open_lab(port)
    assert terminal.line() == f"http://127.0.0.1:{port}/"
    password = terminal.password()
    name = local.person()
    # The address without a path, as it was printed, leads to the hub's own.
    address = f"http://127.0.0.1:{port}/{port}"
    assert visit(f"http://127.0.0.1:{port}").look("/").url.startswith(f"{address}/hub/login")
    visitor = visit(address)
    visitor.log_in(name, password)
    # The next password stands in the terminal as soon as this one is used.
    assert terminal.password() != password
    page = visitor.start_server(120)
    assert page.status_code == 200
    assert "jupyter-config-data" in page.text
    mine = f"/user/{name}"
    settings = visitor.look(f"{mine}/api/me").json()
    assert settings["identity"]["name"] == name
    # The dashboards are behind the hub's one address, in this person's own server.
    assert visitor.look("/hub/user-redirect/phidias/").url.startswith(f"{address}{mine}/phidias")

    kernel = visitor.post(
        f"{address}{mine}/api/kernels",
        json={},
        headers={"X-XSRFToken": visitor.xsrf(f"{mine}/")},
        timeout=60,
    )
    assert kernel.status_code == 201, kernel.text
    (connection,) = (tmp_path / "data").rglob(f"kernel-{kernel.json()['id']}.json")
    assert json.loads(connection.read_text())["curve_publickey"], "What it prints goes unencrypted over the ports."
    (record,) = [json.loads(p.read_text()) for p in (tmp_path / "data").rglob(f"labs/{port}.json")]
    running = marked(record["id"])
    said = [" ".join(p.cmdline()) for p in running]
    for part in ("phidias_hub/hub.py", "configurable-http-proxy", "phidias_hub/server.py", "ipykernel"):
        assert any(part in line for line in said), part

    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(60) == 130
    assert "The lab is stopped" in terminal.process.stderr.read()
    assert marked(record["id"]) == []
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in running)
    lab.check_port(port)


def test_a_second_hub_at_the_same_port_is_refused_with_a_free_one(open_lab):
    port = lab.free_port()
    first = open_lab(port)
    first.line()
    second = open_lab(port)
    assert second.process.wait(60) == 2
    assert f"A lab runs already at port {port}" in second.process.stderr.read()


def test_a_lab_behind_its_hub_that_is_ended_while_it_starts_leaves_nothing(open_lab):
    terminal = open_lab(lab.free_port())
    me = psutil.Process(terminal.process.pid)
    end = time.monotonic() + 60
    while not (hub := [c for c in me.children() if "phidias_hub/hub.py" in " ".join(c.cmdline())]):
        assert time.monotonic() < end, "The hub was not started within a minute."
        time.sleep(0.05)
    (identity,) = {p.environ()["PHIDIAS_LAB"] for p in hub}
    terminal.process.terminate()
    assert terminal.process.wait(60) == 143
    assert marked(identity) == []


def test_an_installed_package_without_hub_config_says_that_the_hub_needs_a_clone(monkeypatch):
    monkeypatch.setattr(hub_lab.settings, "checkout_root", lambda: None)
    with pytest.raises(hub_lab.ParameterError, match="Leave out --hub, or clone the repository"):
        hub_lab.check_installed()


def test_a_clone_without_the_proxy_says_how_to_get_it(monkeypatch, tmp_path):
    (tmp_path / "hub-config").mkdir()
    (tmp_path / "hub-config" / "jupyterhub_config.py").write_text("")
    monkeypatch.setattr(hub_lab.settings, "checkout_root", lambda: tmp_path)
    with pytest.raises(hub_lab.ParameterError, match=r"The hub's proxy is not installed. Run 'make lab'"):
        hub_lab.check_installed()


def test_a_site_of_several_people_is_not_what_make_lab_starts(monkeypatch, tmp_path):
    folder = hub_lab.hub_config()
    monkeypatch.setenv("PHIDIAS_SITE", str(folder / "sites" / "hpc.toml"))
    assert hub_lab.site_file(folder).name == "laptop.toml"
    own = tmp_path / "mine.toml"
    own.write_text('name = "mine"\n')
    monkeypatch.setenv("PHIDIAS_SITE", str(own))
    assert hub_lab.site_file(folder) == own
