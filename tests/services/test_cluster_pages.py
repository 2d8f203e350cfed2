"""Dask's pages through a real Jupyter server: live for the user who is logged in, and closed to everybody else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import nbformat
import pytest
from tornado.websocket import websocket_connect

CHECKOUT = Path(__file__).parents[2]
BASE = "/user/me"
MINE = "Authorization: token secret"
SITE = """
name = "trial"
[clusters.local]
kind = "local"
workers = { default = 1, max = 2 }
shared_folder = "SHARED"
"""
CLUSTER = """
import phidias_lab
cluster = phidias_lab.cluster("local", workers=2)
cluster.wait_for_workers(timeout=90)
cluster.dashboard()
"""
WORK = """
def slowly(number):
    import time
    time.sleep(0.2)
    return number
cluster.client.gather(cluster.client.map(slowly, range(200)))
"""
VIEW = """
import phidias_lab
from phidias_lab.widgets import ClusterView
cluster = phidias_lab.cluster("local", workers=1)
ClusterView(cluster)
"""
#: Whether the task stream of the page shows tasks of this name.
SHOWN = """name => window.Bokeh?.documents?.some(
    d => [...d._all_models.values()].some(m => (m.data?.name ?? []).includes?.(name)))"""


@pytest.fixture(scope="module")
def runtime():
    """Where sockets lie: a short path, and no other server of this machine clears it up."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, runtime):
    """A JupyterLab as users have it, below an address as a hub gives it."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "site.toml").write_text(SITE.replace("SHARED", str(folder / "shared")))
    for name, cells in {"cluster.ipynb": (CLUSTER, WORK), "view.ipynb": (VIEW,)}.items():
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.cells = [nbformat.v4.new_code_cell(source.strip()) for source in cells]
        nbformat.write(notebook, folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=secret", f"--ServerApp.root_dir={folder}"),
        *(f"--ServerApp.base_url={BASE}/", "--LabApp.news_url="),
        "--ServerApp.jpserver_extensions={'phidias_lab.services.server': True}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PHIDIAS_")},
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": runtime,
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "PYTHONPATH": str(CHECKOUT),
        "PHIDIAS_SITE": str(folder / "site.toml"),
    }
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    told = SimpleNamespace(
        host=f"http://127.0.0.1:{port}", process=process, folder=folder, log=(folder / "log").read_text
    )
    end = time.monotonic() + 60
    while not answers(told, f"{BASE}/api/status"):
        assert time.monotonic() < end, told.log()
        assert process.poll() is None, told.log()
        time.sleep(0.2)
    yield told
    process.terminate()
    process.wait(30)


def asked(server, path: str, token: str | None = "secret", body: bytes | None = None) -> tuple[int, str]:
    request = Request(server.host + path, data=body, headers={"Authorization": f"token {token}"} if token else {})
    try:
        with urlopen(request, timeout=60) as answer:
            assert answer.url == server.host + path, "one is led to the log-in"
            return answer.status, answer.read().decode(errors="replace")
    except HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def answers(server, path: str) -> bool:
    try:
        return asked(server, path)[0] == 200
    except OSError:
        return False


def handshake(server, path: str, *credentials: str, origin: str | None = None) -> tuple[int, bytes]:
    """The status with which a websocket of a page is answered, and the first that it says."""
    from bokeh.util.token import generate_jwt_token, generate_session_id

    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {urlsplit(server.host).netloc}",
        f"Origin: {origin or server.host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        f"Sec-WebSocket-Protocol: bokeh, {generate_jwt_token(generate_session_id())}",
        *credentials,
    ]
    with socket.create_connection((urlsplit(server.host).hostname, urlsplit(server.host).port), 20) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        head, _, said = line.recv(4096).partition(b"\r\n\r\n")
        status = int(head.split()[1])
        return status, said or (line.recv(4096) if status == 101 else b"")


class Kernel:
    """A kernel of the server, in which a cluster shows its pages."""

    def __init__(self, server):
        self.server = server
        status, made = asked(server, f"{BASE}/api/kernels", body=b'{"name": "python3"}')
        assert status == 201, made
        self.id = json.loads(made)["id"]
        self.facts = json.loads(
            self.run(
                CLUSTER + "import json, os\nprint(json.dumps([cluster.name, str(cluster.folder), cluster.dashboard(), "
                "os.getpid(), os.environ['PHIDIAS_DASK_PAGES']]))"
            ).splitlines()[-1]
        )
        self.name, folder, self.address, self.pid, offered = self.facts
        self.folder, self.socket = Path(folder), Path(offered, self.name)

    def run(self, code: str) -> str:
        """What code prints. In a thread of its own, since a browser may hold this one's event loop."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, asyncio.wait_for(self._told(code), 120)).result()

    async def _told(self, code: str) -> str:
        address = f"{self.server.host.replace('http', 'ws')}{BASE}/api/kernels/{self.id}/channels?token=secret"
        channel = await websocket_connect(address)
        header = {"msg_id": "asked", "msg_type": "execute_request", "username": "", "session": "test", "version": "5.3"}
        content = {"code": code, "silent": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        await channel.write_message(json.dumps(message))
        said = ""
        while True:
            answer = json.loads(await channel.read_message())
            if answer["parent_header"].get("msg_id") != "asked":
                continue
            kind, content = answer["msg_type"], answer["content"]
            assert kind != "error", content
            said += content["text"] if kind == "stream" else ""
            if kind == "status" and content["execution_state"] == "idle":
                channel.close()
                return said

    def end(self) -> None:
        request = Request(
            f"{self.server.host}{BASE}/api/kernels/{self.id}",
            method="DELETE",
            headers={"Authorization": "token secret"},
        )
        urlopen(request, timeout=60).close()


@pytest.fixture(scope="module")
def kernel(server):
    made = Kernel(server)
    yield made
    if server.process.poll() is None:
        made.end()


def gone(path: Path, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while os.path.lexists(path) and time.monotonic() < end:
        time.sleep(0.05)
    return not os.path.lexists(path)


def run_all(server, page, notebook: str) -> None:
    page.goto(f"{server.host}{BASE}/lab/tree/{notebook}?token=secret&reset", timeout=60_000)
    page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first.wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    for item in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=item, exact=True).click()


def test_the_widget_in_a_notebook_follows_the_cluster_and_shows_the_link_when_it_is_asked_for(server, page, keep):
    run_all(server, page, "view.ipynb")
    page.get_by_text("1 running").wait_for(timeout=90_000)
    # As people do: the button is pressed while the number is still being typed.
    page.get_by_label("Workers", exact=True).fill("2")
    page.get_by_role("button", name="Set number").click()
    page.get_by_text("2 running").wait_for(timeout=60_000)
    assert page.locator("a[href*='phidias-dask']").count() == 0
    page.get_by_role("button", name="Show Dask's pages").click()
    link = page.locator(f"a[href^='{BASE}/phidias-dask/']")
    link.wait_for()
    keep("cluster-widget-in-jupyterlab")
    with page.context.expect_page() as opened:
        link.click()
    opened.value.wait_for_function("window.Bokeh?.documents?.length > 0")
    opened.value.close()
    page.get_by_role("button", name="End the cluster").click()
    page.get_by_text("The cluster has ended.").wait_for()


def test_a_notebook_in_jupyterlab_shows_a_link_to_pages_with_live_data(server, page, keep):
    run_all(server, page, "cluster.ipynb")
    link = page.locator(f".jp-OutputArea-output a[href^='{BASE}/phidias-dask/']")
    link.wait_for(timeout=90_000)
    keep("cluster-in-jupyterlab")
    with page.context.expect_page() as opened:
        link.click()
    address = opened.value.url
    assert urlsplit(address).path == link.get_attribute("href")
    opened.value.close()
    frames, blocked = [], {}
    page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: frames.append(str(frame))))
    page.on("requestfailed", lambda request: blocked.__setitem__(request.url, request.failure))
    page.errors.clear()
    page.goto(address)
    page.wait_for_function(SHOWN, arg="slowly", timeout=60_000)
    page.wait_for_timeout(2000)  # drawn in an animation frame after the data are there
    assert any("ColumnDataChanged" in frame for frame in frames), frames
    keep("dask-status")
    assert page.errors == []
    for name, path in (("Workers", "workers"), ("Info", "info/main/workers.html")):
        page.get_by_role("link", name=name, exact=True).click()
        page.get_by_text("worker-1").first.wait_for()
        assert page.url == address.replace("status", path)
    elsewhere = {url: why for url, why in blocked.items() if urlsplit(url).hostname != "127.0.0.1"}
    assert set(elsewhere.values()) <= {"csp"}, elsewhere


def test_a_page_and_its_websocket_open_with_the_log_in_and_from_this_server_s_pages_alone(server, kernel):
    status, text = asked(server, kernel.address)
    assert (status, 'href="info"' in text) == (200, True)
    websocket = kernel.address + "/ws"
    jar = CookieJar()
    build_opener(HTTPCookieProcessor(jar)).open(f"{server.host}{BASE}/lab?token=secret").close()
    cookies = "Cookie: " + "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
    for credentials in (MINE, cookies):
        status, said = handshake(server, websocket, credentials)
        assert (status, b"ACK" in said) == (101, True)
    for token in (None, "other"):
        with pytest.raises(AssertionError, match="led to the log-in"):
            asked(server, kernel.address, token)
    assert handshake(server, websocket)[0] == 403
    assert handshake(server, websocket, "Authorization: token other")[0] == 403
    # Another site's page, in the browser of a user who is logged in here.
    assert handshake(server, websocket, cookies, origin="http://elsewhere.example")[0] == 403
    assert asked(server, kernel.address, body=b"")[0] == 405


def test_a_page_that_was_left_open_is_no_use_of_the_server(server, kernel):
    def used() -> str:
        return json.loads(asked(server, f"{BASE}/api/status")[1])["last_activity"]

    before = used()
    assert asked(server, kernel.address)[0] == 200
    assert handshake(server, kernel.address + "/ws", MINE)[0] == 101
    assert used() == before


def test_an_address_leads_to_a_socket_of_the_user_s_clusters_and_nowhere_else(server, kernel):
    offered = kernel.socket.parent
    outside = offered.parent / f"phidias-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(outside))
        other.listen()
        other.settimeout(0.5)
        try:
            links = {"phidias-00000000000a": kernel.socket, "phidias-00000000000b": outside}
            for name, target in links.items():
                (offered / name).symlink_to(target)
                assert asked(server, f"{BASE}/phidias-dask/{name}/status")[0] == 410
                (offered / name).unlink()
            for name in (
                f"../{outside.name}",
                f"..%2f{outside.name}",
                f"%2e%2e%2f{outside.name}",
                f"..%5c{outside.name}",
                "..",
                "address",
                f"{kernel.name}%00",
                f"{kernel.name}%0a",
                f"x{kernel.name}",
                kernel.name.upper(),
            ):
                assert asked(server, f"{BASE}/phidias-dask/{name}/status")[0] == 404, name
                assert handshake(server, f"{BASE}/phidias-dask/{name}/status/ws", MINE)[0] == 404, name
            for path in ("../../../../etc/passwd", "statics/..%2f..%2f..%2fcore.py", "statics/%2e%2e/%2e%2e/core.py"):
                assert asked(server, f"{BASE}/phidias-dask/{kernel.name}/{path}")[0] in (403, 404), path
            assert asked(server, f"{BASE}/phidias-dask/{kernel.name}/statics/css/base.css")[0] == 200
            with pytest.raises(TimeoutError):
                other.accept()
        finally:
            outside.unlink()


def test_a_page_whose_cluster_does_not_answer_says_so(server, kernel):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(kernel.socket.with_name("phidias-00000000000c")))
    status, text = asked(server, f"{BASE}/phidias-dask/phidias-00000000000c/status")
    assert (status, "does not answer" in text) == (503, True)
    assert handshake(server, f"{BASE}/phidias-dask/phidias-00000000000c/status/ws", MINE)[1][:1] == b"\x88"  # closed
    kernel.socket.with_name("phidias-00000000000c").unlink()


def test_pages_end_with_their_cluster_and_with_a_kernel_that_is_killed(server):
    closed, killed = Kernel(server), Kernel(server)
    assert closed.socket.is_socket()
    closed.run("cluster.close()")
    assert not os.path.lexists(closed.socket)
    status, text = asked(server, closed.address)
    assert (status, "has ended" in text) == (410, True)
    assert handshake(server, closed.address + "/ws", MINE)[0] == 410
    closed.end()
    assert asked(server, killed.address)[0] == 200
    os.kill(killed.pid, signal.SIGKILL)
    assert gone(killed.socket)
    assert gone(killed.folder)
    assert asked(server, killed.address)[0] == 410


def test_the_log_of_the_server_holds_no_traceback(server, kernel):
    assert "Traceback" not in server.log(), server.log()[-4000:]


def test_at_the_end_of_the_server_nothing_is_left(server):
    last = Kernel(server)
    server.process.terminate()
    server.process.wait(30)
    assert gone(last.socket.parent)
    assert gone(last.folder)
