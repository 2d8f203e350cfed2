"""What the health check is asked wrongly is a sentence with the exit code 2; the check itself is tested in slurm/."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HUB_CONFIG = Path(__file__).parents[2] / "hub-config"
LAPTOP = HUB_CONFIG / "sites" / "laptop.toml"


def check(*words, closed: bool = False) -> subprocess.CompletedProcess:
    """The check in a session without a terminal."""
    command = [sys.executable, str(HUB_CONFIG / "health.py"), *map(str, words)]
    return subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command] if closed else command,
        env={k: v for k, v in os.environ.items() if not k.startswith("PHIDIAS_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )


@pytest.mark.parametrize("closed", [False, True])
def test_without_a_terminal_the_variables_for_password_and_token_are_named(closed):
    done = check("--site", LAPTOP, "--user", "root", closed=closed)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: Without a terminal nobody can be asked for the password. Put it into PHIDIAS_HEALTH_PASSWORD, or a token of "
        "the hub into PHIDIAS_HEALTH_TOKEN.\n"
    )


def test_a_site_file_that_cannot_be_used_is_a_sentence(tmp_path):
    done = check("--site", "nope.toml", "--user", "root")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: There is no site file nope.toml. Name the one of the hub with --site.\n"
    (tmp_path / "broken.toml").write_text("name = ")
    done = check("--site", tmp_path / "broken.toml", "--user", "root")
    assert done.returncode == 2
    assert "broken.toml is not valid TOML" in done.stderr
    done = check("--site", tmp_path, "--user", "root")
    assert done.returncode == 2
    assert done.stderr.endswith("cannot be read: Is a directory.\n")


def test_an_address_or_a_certificate_that_cannot_be_used_is_a_sentence(tmp_path):
    done = check("--site", LAPTOP, "--user", "root", "--address", "lab.example.org")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The address 'lab.example.org' does not begin with http:// or https://.")
    (tmp_path / "no.pem").write_text("nothing")
    for file in (tmp_path / "no.pem", tmp_path / "none.pem"):
        done = check("--site", LAPTOP, "--user", "root", "--address", "https://127.0.0.1:9", "--certificate", file)
        assert done.returncode == 2
        assert done.stderr.startswith(f"Error: The certificate {file} cannot be used:")


class SlowHub(BaseHTTPRequestHandler):
    """As much of a hub as a check asks before its server answers: it takes its time over the start."""

    servers: dict = {}
    asked = threading.Event()

    def answer(self, status: int, content: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def do_GET(self):
        self.answer(200, {"version": "1", "name": "eve", "servers": self.servers})

    def do_POST(self):
        self.asked.set()
        time.sleep(1)
        self.servers[""] = {"ready": False}  # whether or not anybody still waits for the answer
        self.answer(202, {})

    def do_DELETE(self):
        self.servers.clear()
        self.answer(204, {})

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_check_that_is_ended_while_the_server_starts_stops_the_server(number, monkeypatch):
    monkeypatch.setattr(SlowHub, "servers", {})
    monkeypatch.setattr(SlowHub, "asked", threading.Event())
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_port}"
        words = [sys.executable, HUB_CONFIG / "health.py", "--site", LAPTOP, "--user", "eve", "--address", address]
        environment = {**os.environ, "PHIDIAS_HEALTH_TOKEN": "t"}
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            assert SlowHub.asked.wait(30)
            time.sleep(0.2)
            run.send_signal(number)
            said, errors = run.communicate(timeout=60)
        hub.shutdown()
    assert (run.returncode, errors) == (128 + number, "")
    assert SlowHub.servers == {}
    assert "no server and no job of this check is left" in said
    assert "nothing was left behind" not in said
