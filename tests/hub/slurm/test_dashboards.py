"""The dashboards behind the hub: each user's own, in the user's own job, and nothing for anybody else."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import nbformat
import pytest
from slurm_lab.slurm import until

pytestmark = pytest.mark.usefixtures("no_servers")

ORDER = {
    "chain": "ocean.gridding",
    "parameters": {
        "region": [-15, 44, -5, 50],
        "depths": [0],
        "length": 150000,
        "period": ["2010-01-01", "2010-12-31"],
    },
}
WEBSOCKET = "/user/alice/phidias/ws"
#: Connects to a socket file and says what became of it.
CONNECT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]); print('open')"
)

#: A notebook with a cluster on the GPU nodes, whose pages are asked for while it works.
NOTEBOOK = (
    "import phidias_lab\ncluster = phidias_lab.cluster('slurm-gpu', workers=2)\n"
    "cluster.wait_for_workers(timeout=90)\ncluster.dashboard()",
    "import time\n\ndef slowly(number):\n    time.sleep(0.2)\n    return number\n\n"
    "cluster.client.gather(cluster.client.map(slowly, range(400)))",
)
#: Whether the task stream of a page shows tasks of this name.
SHOWN = """name => window.Bokeh?.documents?.some(
    d => [...d._all_models.values()].some(m => (m.data?.name ?? []).includes?.(name)))"""


def log_in(page, hub, name: str, path: str = "") -> None:
    page.set_default_timeout(90_000)
    page.goto(hub.address + path)
    page.fill("#username_input", name)
    page.fill("#password_input", hub.password)
    page.click("#login_submit")


@pytest.fixture
def alices(page, hub):
    """A page with alice's dashboards, reached by their one address with no server running."""
    log_in(page, hub, "alice", f"/hub/user-redirect/phidias/?order={quote(json.dumps(ORDER))}")
    page.click("#spawn_form input[type=submit], #spawn_form button[type=submit]")
    page.wait_for_url(re.compile("/user/alice/phidias/"))
    page.get_by_role("button", name="Run", exact=True).wait_for()
    page.wait_for_function("Bokeh.documents.length > 0 && Bokeh.documents.every(d => d.is_idle)")
    return page


def handshake(address: str, path: str, cookies: str = "", protocol: str = "") -> int:
    """The status with which a websocket is answered; 101 opens it. Written out, since a library would follow and mend."""
    place = urlsplit(address)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {place.netloc}",
        f"Origin: {address}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *([f"Cookie: {cookies}"] if cookies else []),
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    ]
    with socket.create_connection((place.hostname, place.port), 20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(4096).split()[1])


def cookies(context, address: str) -> str:
    return "; ".join(f"{c['name']}={c['value']}" for c in context.cookies(f"{address}{WEBSOCKET}"))


def test_the_address_of_the_dashboards_starts_a_server_and_a_run_there_is_its_users_alone(alices, keep, hub, as_user):
    python = hub.environment / "bin" / "python"

    def runs(user: str) -> list:
        return json.loads(as_user(user, str(python), "-m", "phidias_lab", "runs", "list", "--json").stdout)

    before = {run["id"] for run in runs("alice")}
    alices.get_by_role("button", name="Run", exact=True).click()
    alices.get_by_text("done.").wait_for()
    alices.locator(".bk-Figure").first.wait_for()
    alices.wait_for_timeout(1000)
    keep("hub-dashboards")
    (mine,) = {run["id"] for run in runs("alice")} - before
    assert mine not in {run["id"] for run in runs("bob")}
    folder = next(Path("/home/alice").rglob(f"runs/{mine}"))
    assert folder.owner() == "alice"
    assert as_user("bob", "ls", str(folder), check=False).returncode != 0
    alices.goto(f"{hub.address}/hub/home")
    keep("hub-home")
    alices.click("#open-dashboards")
    alices.wait_for_url(re.compile("/user/alice/phidias/"))


def test_a_websocket_without_a_login_gets_nothing(alices, chromium, hub, as_user):
    from bokeh.util.token import generate_jwt_token, generate_session_id

    # All that the dashboards themselves ask for is a well-formed session.
    protocol = f"bokeh, {generate_jwt_token(generate_session_id())}"
    assert handshake(hub.address, WEBSOCKET, protocol=protocol) in (302, 403)
    assert handshake(hub.address, WEBSOCKET) in (302, 403)
    other = chromium.new_context()
    log_in(other.new_page(), hub, "bob")
    assert handshake(hub.address, WEBSOCKET, cookies(other, hub.address), protocol) in (302, 403)
    other.close()
    # alice's own cookies open it, so it is the login that the others lacked.
    assert handshake(hub.address, WEBSOCKET, cookies(alices.context, hub.address), protocol) == 101


def test_the_socket_of_the_dashboards_opens_to_its_user_alone(alices, hub, as_user):
    def sockets() -> list[Path]:
        places = (Path("/tmp"), *Path("/run/user").glob("*"))
        return [f for place in places for f in place.glob("phidias-dashboards-*/socket") if f.owner() == "alice"]

    assert until(20, sockets)
    (file,) = sockets()
    python = str(hub.environment / "bin" / "python")
    assert as_user("alice", python, "-c", CONNECT, str(file)).stdout.strip() == "open"
    refused = as_user("bob", python, "-c", CONNECT, str(file), check=False)
    assert refused.returncode != 0
    assert "PermissionError" in refused.stderr
    listening = as_user("root", "ss", "-ltnpH", check=False).stdout
    assert "phidias_lab.widgets.serve" not in listening


@pytest.fixture
def notebook(as_user):
    """A notebook of alice's in her home, for this test."""
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.cells = [nbformat.v4.new_code_cell(source) for source in NOTEBOOK]
    file = Path("/home/alice/cluster-with-pages.ipynb")
    as_user("alice", "python3", "-c", f"open({str(file)!r}, 'w').write({nbformat.writes(made)!r})")
    yield file
    file.unlink()


def test_dasks_pages_of_a_cluster_on_gpu_nodes_show_live_what_it_does_and_go_with_the_server(
    page, keep, hub, notebook, as_user
):
    def left() -> set[str]:
        # Other tests have theirs there at the same time, and what is looked at may vanish.
        where = ("/tmp", "/run/user", "-maxdepth", "2", "-user", "alice", "-name", "phidias-d*")
        sockets = as_user("root", "find", *where, check=False).stdout.split()
        return {*sockets, *map(str, Path("/home/alice/.phidias/keys").glob("phidias-*"))}

    before = left()
    log_in(page, hub, "alice", f"/hub/user-redirect/lab/tree/{notebook.name}")
    page.click("#spawn_form input[type=submit], #spawn_form button[type=submit]")
    page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    for item in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=item, exact=True).click()
    link = page.locator(".jp-OutputArea-output a[href^='/user/alice/phidias-dask/phidias-']")
    link.wait_for()
    with page.context.expect_page() as opened:
        link.click()
    frames = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: frames.append(str(frame))))
    page.goto(opened.value.url)
    opened.value.close()
    assert urlsplit(page.url).path.startswith("/user/alice/phidias-dask/phidias-")
    page.wait_for_function(SHOWN, arg="slowly")
    page.wait_for_timeout(3000)
    assert any("ColumnDataChanged" in frame for frame in frames)
    keep("hub-dask-status")
    page.get_by_role("link", name="Info", exact=True).click()
    page.get_by_text("worker-1").first.wait_for()
    keep("hub-dask-workers")
    jobs = as_user("root", "squeue", "-h", "-u", "alice", "-o", "%P %T").stdout.splitlines()
    assert sorted(jobs)[-2:] == ["gpu RUNNING", "gpu RUNNING"]
    assert left() - before
    page.goto(f"{hub.address}/hub/home")
    page.wait_for_load_state("networkidle")  # the button works by a script
    page.click("#stop")

    def queue() -> str:
        return as_user("root", "squeue", "-h", "-u", "alice").stdout

    assert until(60, lambda: not queue()), queue()
    assert until(30, lambda: not left() - before), left() - before
