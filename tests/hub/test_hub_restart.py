"""The hub is killed while a server waits: the new hub goes on with the same job. On a real hub; the queue is pretended."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from running_hub import HUB_CONFIG, Hub, free_ports

#: Accounts that every system has. The servers' jobs are only pretended, so nothing runs under them.
PERSON, OTHER = "nobody", "daemon"
PASSWORD = "a-password-for-all"
SITE = """
name = "restart"
[hub]
url = "http://127.0.0.1:{port}"
internal_port = {inner}
proxy_api_port = {api}
[login]
kind = "demo"
users = ["nobody", "daemon"]
[servers]
kind = "slurm"
[servers.environments.lab]
folder = "/nowhere"
[servers.profiles.cpu]
partition = "cpu"
[slurm]
programs = "{programs}"
addresses = {{ n1 = "127.0.0.1" }}
poll_seconds = 0.2
query_timeout = 5
"""
#: The jobs are files; whoever may write them is Slurm.
PROGRAM = """#!/usr/bin/python3
import json, os, sys, time
from pathlib import Path
jobs = Path({jobs!r})
name, words = Path(sys.argv[0]).name, sys.argv[1:]
def change(file, **what):
    new = file.with_suffix(".new")
    new.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {{}}) | what))
    new.rename(file)
if name == "sbatch":
    sys.stdin.read()
    if (jobs / "before").exists():
        (jobs / "before").unlink()
        time.sleep(60)
    number = str(1 + len(list(jobs.glob("*.json"))))
    mark = next(word.partition("=")[2] for word in words if word.startswith("--comment="))
    told = dict(id=number, mark=mark, user=os.environ["USER"], token=os.environ["JUPYTERHUB_API_TOKEN"])
    change(jobs / (number + ".json"), state="PENDING", reason="Resources", node="n/a", **told)
    if (jobs / "after").exists():
        (jobs / "after").unlink()
        time.sleep(60)
    print(number)
elif name == "squeue" and "-o" in words:
    token = words[words.index("-o") + 1].split("|")[0]
    for job in map(json.loads, (file.read_text() for file in sorted(jobs.glob("*.json")))):
        told = [job[key] for key in ("id", "user", "state", "reason", "node")]
        print(token, *told, "N/A", "N/A", job["mark"], sep="|")
elif name == "scancel":
    change(jobs / (words[0] + ".json"), state="CANCELLED")
elif name == "sinfo":
    print("n1|cpu|idle|0/8/0/8|16000|0|(null)|gpu:0|")
"""
#: sudo needs root's rule; the pretended programs need no other account.
HUB = """
import runpy, sys
sys.path.insert(0, {folder!r})
import phidias_hub.queue
phidias_hub.queue.sudo = lambda user, command: command
runpy.run_path({program!r}, run_name="__main__")
"""


class Answers(BaseHTTPRequestHandler):
    """What answers in place of JupyterLab."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6")
        self.end_headers()
        self.wfile.write(b"JupyterLab")

    def log_message(self, *_) -> None:
        pass


class Queued(Hub):
    """A hub, its pretended queue, and what one person asks of it."""

    def __init__(self, folder, **places):
        port, inner, api = free_ports(3)
        self.jobs, programs = folder / "jobs", folder / "programs"
        self.jobs.mkdir()
        programs.mkdir()
        for name in ("sbatch", "squeue", "scancel", "sinfo"):
            (programs / name).write_text(PROGRAM.format(jobs=str(self.jobs)))
            (programs / name).chmod(0o755)
        site = folder / "site.toml"
        site.write_text(SITE.format(port=port, inner=inner, api=api, programs=programs))
        shipped, self.program = str(self.program), folder / "hub.py"
        self.program.write_text(HUB.format(folder=str(HUB_CONFIG), program=shipped))
        super().__init__(site, folder, f"http://127.0.0.1:{port}", PHIDIAS_DEMO_PASSWORD=PASSWORD)
        self.browsers, self.token = {}, {}

    def log_in(self, person: str) -> None:
        self.browsers[person] = browser = self.visitor()
        browser.log_in(person, PASSWORD)
        headers = {"X-XSRFToken": browser.xsrf("/hub/"), "Referer": self.address + "/hub/home"}
        made = browser.post(f"{self.address}/hub/api/users/{person}/tokens", json={}, headers=headers, timeout=30)
        self.token[person] = made.json()["token"]

    def ask(self, method: str, path: str, body=None, token: str = "") -> requests.Response:
        headers = {"Authorization": f"token {token or self.token[PERSON]}"}
        return requests.request(method, self.address + path, json=body, headers=headers, timeout=60)

    def server(self, method: str = "POST", person: str = PERSON) -> requests.Response:
        return self.ask(method, f"/hub/api/users/{person}/server", token=self.token[person])

    def spawn(self, person: str = PERSON) -> None:
        """Ask for the server, and do not wait for the answer; the hub takes ten seconds for it when a server waits."""
        threading.Thread(target=self.server, args=("POST", person), daemon=True).start()
        until(lambda: self.known(person).get("pending") == "spawn" and self.job(person).get("state") == "PENDING")

    def end(self, person: str = PERSON) -> None:
        self.server("DELETE", person)
        until(lambda: not self.known(person))

    def known(self, person: str = PERSON) -> dict:
        """The server as the hub knows it."""
        told = self.ask("GET", f"/hub/api/users/{person}", token=self.token[person])
        return told.json()["servers"].get("", {})

    def page(self) -> str:
        return self.browsers[PERSON].look(f"/hub/spawn-pending/{PERSON}").text

    def tokens(self) -> list[str]:
        listed = self.ask("GET", f"/hub/api/users/{PERSON}/tokens").json()["api_tokens"]
        return [token["note"] for token in listed if token["note"].startswith("Server at")]

    def says(self, wanted: str, seconds: float = 20) -> str:
        """What the page of the waiting server tells, once it is what is wanted."""
        path, told, end = f"/hub/api/users/{PERSON}/server/progress", [], time.monotonic() + seconds
        with requests.get(
            self.address + path, headers={"Authorization": f"token {self.token[PERSON]}"}, stream=True, timeout=seconds
        ) as stream:
            for line in stream.iter_lines(decode_unicode=True):
                if line.startswith("data: "):
                    told.append(json.loads(line[6:])["message"])
                    if re.search(wanted, told[-1]):
                        return told[-1]
                if time.monotonic() > end:
                    break
        raise AssertionError(f"Nothing like {wanted!r} was said: {told}")

    # --- the queue

    def job(self, person: str = PERSON) -> dict:
        """The newest job of a person."""
        jobs = [json.loads(file.read_text()) for file in self.jobs.glob("*.json")]
        return max((job for job in jobs if job["user"] == person), key=lambda job: int(job["id"]), default={})

    def change(self, **what) -> None:
        job = self.job() | what
        (self.jobs / "new").write_text(json.dumps(job))
        (self.jobs / "new").rename(self.jobs / f"{job['id']}.json")

    def tell_port(self, port: int) -> int:
        """What the job does when its server listens."""
        return self.ask("POST", "/hub/api/phidias/port", {"port": port}, self.job()["token"]).status_code


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"Not within {seconds} s."
        time.sleep(0.1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory, proxy_installed):
    running = Queued(tmp_path_factory.mktemp("queued"))
    try:
        running.start()
        for person in (PERSON, OTHER):
            running.log_in(person)
        yield running
    finally:
        running.stop()


@pytest.fixture
def waiting(hub):
    """The hub with a server that waits in the queue."""
    hub.spawn()
    hub.says("no node has enough room")
    yield hub
    hub.end()


@pytest.fixture
def jupyterlab():
    """The port of what answers in place of JupyterLab."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_a_server_that_waits_goes_on_waiting_with_the_same_job_and_becomes_ready(waiting, jupyterlab):
    before = waiting.job()
    waiting.spawn(OTHER)
    waiting.kill()
    waiting.start()
    assert waiting.known()["pending"] == "spawn"
    waiting.says("no node has enough room")
    assert "your place in the queue is kept" in waiting.page()
    # Who asks again gets no second job.
    assert waiting.server().status_code == 202
    waiting.change(state="RUNNING", node="n1")
    waiting.says("JupyterLab is starting")
    assert waiting.tell_port(jupyterlab) == 201
    # The way there is open as soon as it is called ready, while another server goes on waiting.
    waiting.says("Server ready at")
    assert waiting.ask("GET", f"/user/{PERSON}/lab").text == "JupyterLab"
    assert waiting.known()["ready"]
    assert waiting.known(OTHER)["pending"] == "spawn"
    # Nothing of a restart is left to be done, though that one may wait for hours.
    assert "Initialized 2 spawners" in waiting.said()
    waiting.end(OTHER)
    # And once more, now that it runs.
    waiting.kill()
    waiting.start()
    until(lambda: waiting.known().get("ready"))
    assert waiting.ask("GET", f"/user/{PERSON}/lab").text == "JupyterLab"
    assert waiting.tokens() == [f"Server at /user/{PERSON}/"]
    waiting.end()
    assert waiting.job() == before | {"state": "CANCELLED", "node": "n1"}
    assert waiting.tokens() == []


def test_the_page_of_a_waiting_server_goes_on_by_itself_when_the_hub_is_back(waiting, jupyterlab, page, keep):
    page.goto(f"{waiting.address}/hub/login")
    page.fill("#username_input", PERSON)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.goto(f"{waiting.address}/hub/spawn-pending/{PERSON}")
    message = page.locator("#progress-message")
    message.get_by_text("no node has enough room").wait_for()
    waiting.kill()
    # What the page asks meanwhile is answered by the proxy alone.
    with page.expect_response(lambda answer: answer.status == 503, timeout=30_000):
        pass
    with page.expect_navigation(timeout=30_000):
        waiting.start()
    message.get_by_text("no node has enough room").wait_for()
    keep("hub-waiting")
    waiting.change(state="RUNNING", node="n1")
    assert waiting.tell_port(jupyterlab) == 201
    page.wait_for_url(f"**/user/{PERSON}/**")
    page.get_by_text("JupyterLab").wait_for()


def test_a_port_that_was_told_to_the_hub_that_died_is_known_to_the_next_one(waiting, jupyterlab):
    waiting.change(state="RUNNING")  # on which node is told later
    assert waiting.tell_port(jupyterlab) == 201
    waiting.kill()
    waiting.start()
    assert waiting.known()["pending"] == "spawn"
    waiting.change(node="n1")
    until(lambda: waiting.known().get("ready"))
    assert waiting.ask("GET", f"/user/{PERSON}/lab").text == "JupyterLab"
    # The same word once more, from a server that did not hear the answer; and nobody's other word.
    assert waiting.tell_port(jupyterlab) == 201
    assert waiting.tell_port(jupyterlab - 1) == 409
    # It is looked after like any other.
    waiting.change(state="TIMEOUT")
    until(lambda: not waiting.known())


def test_a_start_that_goes_on_can_be_cancelled(waiting):
    waiting.kill()
    waiting.start()
    waiting.says("no node has enough room")
    waiting.end()
    assert waiting.job()["state"] == "CANCELLED"
    assert waiting.tokens() == []
    # Nothing of it is in the way of the next one.
    waiting.spawn()


def test_a_job_that_ended_while_the_hub_was_away_leaves_a_page_that_says_so_and_no_server(waiting):
    waiting.kill()
    waiting.change(state="NODE_FAIL", node="n1")
    waiting.start()
    until(lambda: not waiting.known())
    assert f"job {waiting.job()['id']} ended before JupyterLab answered: its node failed" in waiting.page()
    assert waiting.tokens() == []
    waiting.spawn()


@pytest.mark.parametrize("moment", ["after", "before"])
def test_a_hub_that_is_killed_while_it_hands_a_job_in_finds_it_or_says_that_there_is_none(hub, moment):
    made = len(list(hub.jobs.glob("*.json"))) + (moment == "after")
    (hub.jobs / moment).touch()
    threading.Thread(target=hub.server, daemon=True).start()
    until(lambda: not (hub.jobs / moment).exists())
    hub.kill()
    hub.start()
    assert hub.known()["pending"] == "spawn"
    if moment == "after":
        hub.says("no node has enough room")
        assert hub.job()["state"] == "PENDING"
        hub.end()
        assert hub.job()["state"] == "CANCELLED"
    else:
        until(lambda: not hub.known())
        assert "before your server was in the queue. Start it again." in hub.page()
    assert len(list(hub.jobs.glob("*.json"))) == made
