"""The command behind `make lab-slurm`: what it survives and what it leaves, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from slurm_lab.deployment import HUB_CONFIG, SITE, Deployment
from slurm_lab.slurm import Lab, alive, run_as, until

#: Of a lab of its own, beside those of the other tests.
SLURM_PORT, HUB_PORT = 27200, 27300


def command(*words: str) -> list[str]:
    return [sys.executable, "-u", "-m", "slurm_lab", *map(str, words)]


class Command:
    """`python -m slurm_lab lab`, in a process that can be killed."""

    def __init__(self, site: Path, said: Path):
        self.whole, self.said, self.site = Deployment(site), said, site
        with said.open("w") as stream:
            self.process = subprocess.Popen(
                command("lab", "--site", site, "--port", SLURM_PORT),
                cwd=HUB_CONFIG,
                env=os.environ | {"SYSTEM": "1"},
                stdout=stream,
                stderr=stream,
            )
        until(400, lambda: "Ready (" in said.read_text() or self.process.poll() is not None)
        if "Ready (" not in said.read_text():
            self.process.terminate()
            self.process.wait()
            pytest.fail(said.read_text())

    def servers(self) -> dict[str, list[int]]:
        """The hub and the proxy: pid and birth."""
        return json.loads((self.whole.log / "processes.json").read_text())

    def asked(self) -> bool:
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            return opener.open(f"{self.whole.address}/hub/api/", timeout=5).status == 200
        except OSError:
            return False


@pytest.fixture
def site(one_host, set_up):
    if not (set_up.in_ci() or os.environ.get("SYSTEM") == "1"):
        pytest.skip("not run: creates system users, which SYSTEM=1 allows")
    text = SITE.read_text()
    place = one_host / "lab"
    place.mkdir(exist_ok=True)
    for old, new in {
        'url = "http://127.0.0.1:8000"': f'url = "http://127.0.0.1:{HUB_PORT}"\ninternal_port = {HUB_PORT + 1}\n'
        f"proxy_api_port = {HUB_PORT + 2}",
        '"/srv/phidias/hub"': f'"{place}/hub"',
        '"/srv/phidias/slurm/': f'"{place}/slurm/',
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    file = place / "site.toml"
    file.write_text(text)
    yield file
    done = subprocess.run(command("remove", "--site", file), cwd=HUB_CONFIG, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = {p.name for p in place.iterdir()}
    file.unlink()
    place.rmdir()
    assert left == {"site.toml"}


@pytest.fixture
def started(site, tmp_path):
    """A lab that says Ready; killed at the end where the test has not ended it."""
    here = Command(site, tmp_path / "said")
    yield here
    if here.process.poll() is None:
        here.process.kill()
        here.process.wait()


def test_a_lab_is_closed_to_others_and_to_a_second_one_starts_its_hub_again_and_ends_with_its_terminal(started):
    whole = started.whole
    logs = {p.name: oct(p.stat().st_mode & 0o777) for p in [whole.log, *whole.log.iterdir()]}
    assert logs == {"hub-log": "0o700"} | dict.fromkeys(["hub.log", "proxy.log", "processes.json"], "0o600")
    assert whole.log.stat().st_uid == 0

    second = subprocess.run(
        command("lab", "--site", started.site, "--port", SLURM_PORT),
        cwd=HUB_CONFIG,
        env=os.environ | {"SYSTEM": "1"},
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert f"already, as process {started.process.pid}." in second.stderr
    assert started.process.poll() is None
    assert started.asked()

    run = run_as("alice", ["sbatch", "--output=/dev/null", "--wrap=sleep 300"], whole.slurm.environment())
    assert run.returncode == 0, run.stderr
    for name in ("hub", "proxy"):
        pid, since = started.servers()[name]
        os.kill(pid, signal.SIGKILL)
        assert until(
            30, lambda name=name: f"The {name} has ended by itself and is started again" in started.said.read_text()
        )
        assert until(60, started.asked), whole.said("hub")[-2000:]
        assert not alive(pid, since)
    queue = run_as("root", ["squeue", "-h", "-o", "%u"], whole.slurm.environment())
    assert queue.stdout == "alice\n"

    servers = started.servers()
    started.process.send_signal(signal.SIGHUP)
    assert started.process.wait(60) == 0, started.said.read_text()
    assert not [name for name, server in servers.items() if alive(*server)]
    assert not Lab(whole.slurm.folder).running()


def test_the_next_lab_and_stop_end_what_a_killed_one_has_left(site, started, tmp_path):
    servers = started.servers()
    assert sorted(servers) == ["hub", "proxy"]
    started.process.kill()
    started.process.wait()
    assert all(alive(*server) for server in servers.values())
    again = Command(site, tmp_path / "said-again")
    try:
        assert not [name for name, server in servers.items() if alive(*server)]
        servers = again.servers()
    finally:
        again.process.kill()
        again.process.wait()
    assert all(alive(*server) for server in servers.values())
    done = subprocess.run(command("stop", "--site", site), cwd=HUB_CONFIG, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [name for name, server in servers.items() if alive(*server)]
    assert not Lab(again.whole.slurm.folder).running()
