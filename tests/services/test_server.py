"""A server says in JupyterLab when it will end, and ends when nobody uses it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests
from playwright.sync_api import Error as PlaywrightError
from tornado.websocket import websocket_connect

from phidias_lab.services.server import entrance, notices
from phidias_lab.services.workspace import prepare_workspace

CHECKOUT = Path(__file__).parents[2]
EXTENSION = CHECKOUT / "phidias_lab" / "services" / "server"
NOW = 1_800_000_000.0


def said(**changes) -> list[dict]:
    usual = {"ends": None, "idle": 0.0, "idle_minutes": 60, "warn_minutes": 10}
    return notices.notices(NOW, **{**usual, **changes})


def test_nothing_is_said_while_there_is_time():
    assert said() == []
    assert said(ends=NOW + 3600, idle=3000 - 1) == []


def test_the_end_by_time_limit_is_said_with_its_time():
    (notice,) = said(ends=NOW + 540)
    assert "in 9 minutes (08:09 UTC)" in notice["message"]
    assert notice["left"] == 540


def test_a_warning_is_said_once_and_again_shortly_before_the_end():
    ids = [said(ends=NOW + left)[0]["id"] for left in (599, 300, 121, 119, 5)]
    assert ids == ["limit-10", "limit-10", "limit-10", "limit-2", "limit-2"]


def test_idleness_is_said_and_never_where_a_site_has_none():
    (notice,) = said(idle=52 * 60)
    assert "for 52 minutes" in notice["message"]
    assert "in 8 minutes unless you use it" in notice["message"]
    assert said(idle=10**6, idle_minutes=0) == []


def test_a_site_with_a_short_limit_does_not_warn_a_person_at_work():
    assert said(idle=5, idle_minutes=5) == []


@pytest.mark.parametrize("given", ["", "soon", "nan", "inf", "-5", "0"])
def test_an_end_that_is_no_time_is_none(monkeypatch, given):
    monkeypatch.setenv("PHIDIAS_SERVER_ENDS", given)
    assert notices.ends() is None


def test_the_page_side_is_named_as_jupyterlab_looks_for_it():
    package = json.loads((EXTENSION / "labextension" / "package.json").read_text())
    script = (EXTENSION / "labextension" / package["jupyterlab"]["_build"]["load"]).read_text()
    assert f"_JUPYTERLAB['{package['name']}']" in script
    assert f"'{package['jupyterlab']['_build']['extension']}'" in script


@pytest.fixture
def start(tmp_path):
    """``start(VARIABLE=...)``: a JupyterLab with the extension, which ends with the test."""
    running = []

    def start_one(**variables: str) -> SimpleNamespace:
        running.append(started(tmp_path, variables))
        return running[-1]

    yield start_one
    for server in running:
        server.process.kill()
        server.process.wait()


def started(tmp_path: Path, variables: dict[str, str]) -> SimpleNamespace:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    labextensions = tmp_path / "labextensions"
    labextensions.mkdir()
    (labextensions / "phidias-lab").symlink_to(EXTENSION / "labextension")
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=secret", f"--ServerApp.root_dir={tmp_path}"),
        "--ServerApp.jpserver_extensions={'phidias_lab.services.server': True}",
        f"--LabApp.extra_labextensions_path={labextensions}",
    ]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PHIDIAS_")},
        "HOME": str(tmp_path),
        "PYTHONPATH": str(CHECKOUT),
        **variables,
    }
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    return SimpleNamespace(url=f"http://127.0.0.1:{port}", process=process, log=tmp_path / "log")


def opened(page, server) -> None:
    """JupyterLab in the browser."""
    deadline = time.monotonic() + 60
    while True:
        try:
            page.goto(f"{server.url}/lab?token=secret")
            break
        except PlaywrightError:
            assert time.monotonic() < deadline, server.log.read_text()
            assert server.process.poll() is None, server.log.read_text()
            time.sleep(0.5)


def test_the_user_reads_it_in_jupyterlab_and_a_server_that_nobody_uses_ends(start, tmp_path, page, keep):
    site = tmp_path / "site.toml"
    site.write_text('name = "test"\n[servers]\nidle_minutes = 1\nwarn_minutes = 10\n')
    server = start(PHIDIAS_SITE=str(site), PHIDIAS_SERVER_ENDS=str(time.time() + 290))
    opened(page, server)
    notice = page.locator(".Toastify__toast", has_text="reaches its time limit")
    notice.wait_for()
    assert "This server ends in 5 minutes" in notice.inner_text() or "in 4 minutes" in notice.inner_text()
    keep("jupyterlab-server-ends")
    for wrong in ("-1", "nan", "soon", ""):
        answer = page.request.get(f"{server.url}/phidias-lab/notices?idle={wrong}")
        assert answer.status == 400
    # The page stays open and asks on, as JupyterLab does; but nobody touches it.
    assert page.context.browser.new_context().request.get(f"{server.url}/phidias-lab/notices?idle=0").status == 403
    server.process.wait(150)
    assert "Nobody has used this server" in server.log.read_text()


def test_what_became_of_the_notebooks_is_told_once_in_jupyterlab(start, tmp_path, page, keep):
    shipped, mine = tmp_path / "shipped", tmp_path / "phidias"
    shipped.mkdir()
    (shipped / "start_here.ipynb").write_text("an earlier version")
    prepare_workspace(mine, shipped=shipped)
    (mine / "start_here.ipynb").write_text("what the user made of it")
    # As a hub starts it.
    server = start(JUPYTERHUB_SERVICE_PREFIX="/", PHIDIAS_WORKSPACE=str(mine))
    opened(page, server)
    told = "A newer start_here.ipynb was shipped; you changed yours, so it is placed beside as start_here.new.ipynb."
    assert len(told) <= 140  # what JupyterLab shows of a notification
    page.locator(".Toastify__toast", has_text=told).wait_for(timeout=90_000)
    keep("jupyterlab-newer-notebook")
    assert (mine / "start_here.new.ipynb").is_file()
    assert told in server.log.read_text()
    with page.expect_response("**/phidias-lab/notices*") as asked:
        page.reload()
    # Another browser gets it as well; this one has shown it.
    assert [notice["message"] for notice in asked.value.json()["notices"]] == [told]
    page.wait_for_timeout(1000)
    assert page.locator(".Toastify__toast", has_text=told).count() == 0


def test_a_workspace_that_cannot_be_written_is_told_in_jupyterlab(start, tmp_path, page, keep):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "site.toml").write_text('name = "here"\n[hub]\nurll = "http://127.0.0.1"\n')
    server = start(
        JUPYTERHUB_SERVICE_PREFIX="/",
        PHIDIAS_WORKSPACE=str(tmp_path / "file" / "mine"),
        PHIDIAS_SITE=str(tmp_path / "site.toml"),
    )
    opened(page, server)
    page.locator(".Toastify__toast").nth(1).wait_for(timeout=90_000)  # JupyterLab starts meanwhile
    # JupyterLab shows the first 140 characters of a notification.
    for begins, says in (
        ("The workspace ", f"{tmp_path / 'file' / 'mine'} cannot be written (Not a directory). Free some space"),
        ("Nothing announces the end of this server. In", f"{tmp_path / 'site.toml'}"),
    ):
        page.locator(".Toastify__toast", has_text=begins).get_by_role("button", name="Read all").click()
        whole = page.locator("dialog p").inner_text()
        assert whole.startswith(begins)
        assert says in whole
        assert whole in server.log.read_text()
        keep(f"jupyterlab-{begins.split()[1]}")
        page.locator("dialog").get_by_role("button", name="Close").click()
        assert page.locator("dialog").count() == 0


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "phidias").mkdir()
    (tmp_path / "phidias" / "start_here.ipynb").touch()
    return tmp_path / "phidias"


def test_the_first_page_is_the_notebook_to_begin_with(workspace, tmp_path):
    assert entrance.page(workspace, tmp_path) == "/lab/tree/phidias/start_here.ipynb"
    assert entrance.page(workspace, workspace) == "/lab/tree/start_here.ipynb"


def test_a_workspace_that_jupyterlab_cannot_show_is_no_first_page(workspace, tmp_path):
    assert entrance.page(workspace, tmp_path / "elsewhere") is None
    hidden = tmp_path / ".local" / "phidias"
    hidden.parent.mkdir()
    workspace.rename(hidden)
    assert entrance.page(hidden, tmp_path) is None
    (hidden / "start_here.ipynb").unlink()
    assert entrance.page(hidden, hidden) is None


def test_our_settings_go_behind_those_that_were_named_before():
    ours = str(EXTENSION / "configuration")
    assert entrance.with_our_configuration(None) == ours
    assert entrance.with_our_configuration(f"/centre{os.pathsep}") == f"/centre{os.pathsep}{ours}"
    assert entrance.with_our_configuration(ours) == ours


def test_phidias_is_found_in_a_terminal_and_in_notebooks(start, tmp_path):
    (tmp_path / ".profile").write_text("PATH=/usr/bin:/bin\n")  # as that of the system does for a login
    server = start(PATH="/usr/bin:/bin", SHELL="/bin/bash")
    own, deadline = sysconfig.get_path("scripts"), time.monotonic() + 120

    def made(what: str) -> dict:
        return requests.post(f"{server.url}/api/{what}?token=secret", timeout=60).json()

    async def told(terminal: str, line: str) -> str:
        channel, said = await websocket_connect(f"ws{server.url[4:]}/terminals/websocket/{terminal}?token=secret"), ""
        await channel.write_message(json.dumps(["stdin", f"{line}; echo en''ded\r"]))
        while "ended" not in said:
            kind, *rest = json.loads(await asyncio.wait_for(channel.read_message(), 90))
            said += rest[0] if kind == "stdout" else ""
        channel.close()
        return said

    while True:
        try:
            terminal = made("terminals")["name"]
            break
        except requests.ConnectionError:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.5)
    with ThreadPoolExecutor(1) as beside:  # the browser of other tests has a loop of its own in this thread
        assert f"{own}/phidias" in beside.submit(asyncio.run, told(terminal, "command -v phidias")).result()
    made("kernels")
    family = psutil.Process(server.process.pid).children(recursive=True)
    (kernel,) = (p for p in family if "ipykernel_launcher" in " ".join(p.cmdline()))
    assert kernel.environ()["PATH"].split(":")[0] == own
