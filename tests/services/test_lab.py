"""`phidias lab` as a person uses it: one address that answers, and nothing left behind when it is stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from phidias_lab.services import lab

CHECKOUT = Path(__file__).resolve().parents[2]
# The machine's own address: never by a proxy.
browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def prepared(environment, demo_lake_folder):
    """A user whose lake is built already."""
    environment["PHIDIAS_LAKE"] = str(demo_lake_folder)
    return environment


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


def records(environment):
    return next(Path(environment["HOME"]).rglob("labs"))


def test_the_lab_answers_at_one_address_refuses_a_second_start_and_leaves_nothing(prepared, start, command, request):
    port = lab.free_port()
    process = start("lab", "--port", port)
    address = process.stdout.readline().strip()
    assert address.startswith(f"http://127.0.0.1:{port}/lab")
    with browser.open(address, timeout=30) as answer:
        assert answer.status == 200
        page = answer.read().decode()
    assert "jupyter-config-data" in page
    with pytest.raises(urllib.error.HTTPError, match="403"):
        browser.open(f"http://127.0.0.1:{port}/api/contents", timeout=30)

    second = command("lab", "--port", port)
    assert second.returncode == 2
    assert f"A lab runs already at port {port}" in second.stderr
    assert address in second.stderr

    record = json.loads((records(prepared) / f"{port}.json").read_text())
    token = address.split("token=")[1]
    ask = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/kernels", data=b"{}", headers={"Authorization": f"token {token}"}, method="POST"
    )
    with browser.open(ask, timeout=30) as answer:
        assert answer.status == 201
    # The kernel, told by Jupyter where Dask's pages of its clusters may be shown.
    assert any("PHIDIAS_DASK_PAGES" in process.environ() for process in marked(record["id"]))
    # A run that somebody started from a notebook of this lab.
    begun = command(
        "run", "toy.waves", "--detach", "--json", "--pieces", "100", "--wait", "1", PHIDIAS_LAB=record["id"]
    )
    run = json.loads(begun.stdout)["run"]
    # And something that a notebook left behind, outside the tree of processes, which does not mind being asked to end.
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    left = subprocess.Popen(
        [sys.executable, "-c", stubborn], env={**prepared, "PHIDIAS_LAB": record["id"]}, start_new_session=True
    )
    request.addfinalizer(left.kill)
    end = time.monotonic() + 20
    while len(running := marked(record["id"])) < 4:  # Jupyter, the kernel, the run, the stubborn one
        assert time.monotonic() < end, running
        time.sleep(0.1)

    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=40)
    assert process.returncode == 130
    assert rest == ""
    assert "The lab is stopped" in said
    assert run in said
    assert "Traceback" not in said
    assert left.wait(5) == -signal.SIGKILL
    assert marked(record["id"]) == []
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in running)
    assert json.loads(command("runs", "show", run, "--json").stdout)["status"] == "cancelled"
    lab.check_port(port)


@pytest.fixture
def clone(tmp_path):
    """A clone of this checkout's notebooks, catalogues and package, all of it committed."""
    folder = tmp_path / "clone"
    left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("phidias_lab", "notebooks", "catalogs"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=left_out)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(CHECKOUT / name, folder / name)
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


@pytest.fixture
def temporary():
    """A folder for temporary files, with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def ask(address: str, path: str, method: str = "GET", **content):
    """What Jupyter's interface answers."""
    base, token = address.split("/lab")[0], address.split("token=")[1]
    data = json.dumps(content).encode() if content else b"{}" if method == "POST" else None
    request = urllib.request.Request(base + path, data=data, headers={"Authorization": f"token {token}"}, method=method)
    with browser.open(request, timeout=90) as answer:
        return answer.read().decode()


def test_a_session_leaves_the_clone_clean_keeps_the_users_notebook_and_removes_its_temporary_files(
    prepared, start, clone, temporary, tmp_path
):
    site = prepared["PYTHONPATH"].split(os.pathsep)[1:]
    user = {"PYTHONPATH": os.pathsep.join([str(clone), *site]), "TMPDIR": str(temporary), "PHIDIAS_WORKSPACE": "work"}
    process = start("lab", "--port", lab.free_port(), **user)
    address = process.stdout.readline().strip()
    assert "/lab/tree/start_here.ipynb?" in address
    # Open, save and checkpoint a notebook, as JupyterLab does it; then look at the dashboards.
    notebook = json.loads(ask(address, "/api/contents/start_here.ipynb"))
    notebook["content"]["cells"][0]["source"] = "# My own"
    ask(address, "/api/contents/start_here.ipynb", "PUT", type="notebook", content=notebook["content"])
    ask(address, "/api/contents/start_here.ipynb/checkpoints", "POST")
    assert "phidias dashboards" in ask(address, "/phidias/")
    assert [p.name for p in temporary.glob("*/socket")] == ["socket"]

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=40)
    assert process.returncode == 143
    changed = ["git", "-C", str(clone), "status", "--porcelain", "--ignored"]
    left = subprocess.run(changed, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in left if not line.endswith("__pycache__/")] == []
    assert "# My own" in (tmp_path / "work" / "start_here.ipynb").read_text()
    assert (tmp_path / "work" / "ocean" / "gridding.ipynb").is_file()
    assert list(temporary.iterdir()) == []
    token = address.split("token=")[1].encode()
    written = [p for p in Path(prepared["HOME"]).rglob("*") if p.is_file()]
    assert [p for p in written if token in p.read_bytes()] == []
    assert [p.name for p in written if p.name.startswith(("jpserver-", "kernel-"))] == []


def test_what_a_killed_lab_left_is_stopped_at_the_next_start(prepared, start, temporary):
    user, port = {"TMPDIR": str(temporary)}, lab.free_port()
    killed = start("lab", "--port", port, **user)
    address = killed.stdout.readline().strip()
    ask(address, "/api/kernels", "POST")
    record = json.loads((records(prepared) / f"{port}.json").read_text())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    orphans = marked(record["id"])
    assert len(orphans) >= 2  # Jupyter and the kernel
    folders = list(temporary.glob("phidias-dashboards-*"))
    assert folders  # of the dashboards, and of the clusters' pages

    following = start("lab", "--port", port, **user)
    assert following.stdout.readline().startswith(f"http://127.0.0.1:{port}/lab")
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in orphans)
    assert not any(folder.exists() for folder in folders)
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=40)
    # One that had begun with the lab may have ended by itself meanwhile.
    assert re.search(rf"The lab at port {port} was killed; the \d+ processes that it left are stopped\.", said)
    assert list(temporary.iterdir()) == []


def test_the_record_of_another_machines_lab_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(lab.settings, "user_data", lambda: tmp_path)
    (tmp_path / "labs").mkdir()
    for port, host in ((8801, "another-machine"), (8802, socket.gethostname())):
        record = {"pid": psutil.Process().pid, "born": time.time() - 1e6, "host": host, "id": "x", "address": "-"}
        (tmp_path / "labs" / f"{port}.json").write_text(json.dumps(record))
    assert lab.clear_remains() == []
    assert [p.name for p in (tmp_path / "labs").glob("*.json")] == ["8801.json"]


def test_a_lab_that_is_stopped_while_it_starts_leaves_nothing(prepared, start):
    process = psutil.Process((begun := start("lab", "--port", lab.free_port())).pid)
    end = time.monotonic() + 60
    while not (children := [c for c in process.children() if "jupyterlab" in " ".join(c.cmdline())]):
        assert time.monotonic() < end, "Jupyter was not started within a minute."
        time.sleep(0.05)
    begun.terminate()
    printed, said = begun.communicate(timeout=40)
    assert begun.returncode == 143
    assert "The lab is stopped" in said
    assert printed == ""
    assert not any(child.is_running() for child in children)


def test_a_port_that_another_program_uses_is_refused_with_a_free_one(command):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command("lab", "--port", port)
    assert done.returncode == 2
    assert f"The port {port} on 127.0.0.1 is in use by another program" in done.stderr
    assert "--port " in done.stderr


def test_a_lab_that_died_without_a_word_does_not_hold_its_port(monkeypatch, tmp_path):
    monkeypatch.setattr(lab.settings, "user_data", lambda: tmp_path)
    (tmp_path / "labs").mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        # The process id lives (it is ours), but it was born at another time than the lab.
        record = {"pid": psutil.Process().pid, "born": time.time() - 1e6, "id": "x", "address": "http://127.0.0.1"}
        (tmp_path / "labs" / f"{port}.json").write_text(json.dumps(record))
        with pytest.raises(lab.ParameterError, match="in use by another program"):
            lab.check_port(port)
    lab.check_port(port)


def test_a_lab_without_its_extra_says_how_to_install_it(environment):
    # An environment whose Jupyter cannot be found: a name that no package has stands in the list of what is needed.
    program = (
        "import sys\n"
        "from phidias_lab.services import lab\n"
        "from phidias_lab.services.command_line import main\n"
        "lab._NEEDED = ('jupyterlab_that_is_missing',)\n"
        "sys.exit(main(['lab']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 6
    assert "pip install 'phidias-lab[lab]'" in done.stderr


def test_the_token_is_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "record.json"
    lab._write_private(path, {"token": "x"})
    assert path.stat().st_mode & 0o077 == 0


def test_what_kernels_print_is_encrypted_at_their_ports():
    assert lab.Lab(8899).configuration()["MappingKernelManager"] == {"transport_encryption": "auto"}


def test_jupyter_is_told_to_fetch_nothing_from_outside():
    told = lab.Lab(8899).configuration()
    assert told["ServerApp"]["ip"] == "127.0.0.1"
    assert told["LabApp"]["news_url"] is None
    assert told["LabApp"]["check_for_updates_class"] == "jupyterlab.NeverCheckForUpdate"
    assert told["LabApp"]["extension_manager"] == "readonly"
    assert len(told["IdentityProvider"]["token"]) >= 32
    assert lab.Lab(8899).token != told["IdentityProvider"]["token"]


def test_jupyterlab_starts_without_compiling_a_grammar_that_nothing_asks_for():
    """It took half of the start; jsonschema imports it where it can."""
    command = [sys.executable, "-X", "importtime", *lab.Lab(8899).command(Path("none.json"))[1:], "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.match(r"\d+\.\d+", done.stdout)
    assert "jsonschema" in done.stderr
    assert "rfc3987_syntax." not in done.stderr  # the attempt stands there, and no part of it
