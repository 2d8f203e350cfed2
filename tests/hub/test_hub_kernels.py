"""How kernels of a hub's server speak: over sockets that only their user reaches, whatever their language."""

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
import uuid
from pathlib import Path

import psutil
import pytest
import zmq
from jupyter_client import KernelManager, MultiKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from phidias_hub import kernels, script, start_server
from traitlets.config import Config

WORD = "only its user may hear this"
SPEAK = f"""
import threading, time
def speak():
    while True:
        print({WORD!r}, flush=True)
        time.sleep(0.1)
threading.Thread(target=speak, daemon=True).start()
"""


@pytest.fixture
def run_plain_kernel(tmp_path):
    """``run_plain_kernel(trait=...)``: a kernel whose kind cannot encrypt, which prints again and again."""
    spec = tmp_path / "kernels" / "plain" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Plain", "language": "python"}))
    folder, running = Path(start_server.own_folder()), []

    def run(specs=KernelSpecManager, **traits: str) -> KernelManager:
        manager = MultiKernelManager(
            kernel_spec_manager=specs(kernel_dirs=[str(spec.parents[1])]),
            connection_dir=str(folder),
            config=Config({"KernelManager": traits}),
        )
        running.append(manager)
        kernel = manager.get_kernel(manager.start_kernel(kernel_name="plain"))
        client = kernel.blocking_client()
        client.start_channels()
        client.wait_for_ready(60)
        told = client.execute_interactive(SPEAK, timeout=30, output_hook=lambda message: None)
        assert told["content"]["status"] == "ok"
        client.stop_channels()
        return kernel

    run.folder = folder
    yield run
    for manager in running:
        manager.shutdown_all(now=True)
    shutil.rmtree(folder)


def heard(kernel: KernelManager) -> bool:
    """Whether the ports of a kernel tell what it prints to somebody who just listens."""
    context = zmq.Context()
    listener = context.socket(zmq.SUB)
    listener.setsockopt(zmq.SUBSCRIBE, b"")
    for connection in psutil.Process(kernel.provisioner.pid).net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            listener.connect(f"tcp://127.0.0.1:{connection.laddr.port}")
    got, end = b"", time.monotonic() + 3
    while time.monotonic() < end and WORD.encode() not in got:
        if listener.poll(100):
            got += b" ".join(listener.recv_multipart())
    context.destroy(linger=0)
    return WORD.encode() in got


def test_what_a_kernel_prints_that_cannot_encrypt_is_told_at_no_port(run_plain_kernel):
    section, trait, value = re.fullmatch(r"--(\w+)\.(\w+)=(\w+)", start_server.SOCKETS).groups()
    assert section == "KernelManager"
    kernel = run_plain_kernel(**{trait: value})
    assert not heard(kernel)
    assert len([path for path in run_plain_kernel.folder.iterdir() if path.is_socket()]) == 5


CHILD = """
import os
child = os.fork()
if child == 0:
    print("from the child", flush=True)
    os._exit(0)
os.waitpid(child, 0)
import multiprocessing
work = multiprocessing.get_context("fork").Process(target=print, args=("from a worker",))
work.start(); work.join()
"""


def test_a_python_kernel_has_no_port_at_all_and_tells_what_its_child_processes_print(run_plain_kernel):
    kernel = run_plain_kernel(specs=kernels.ClosedKernels, transport="ipc")
    process = psutil.Process(kernel.provisioner.pid)
    assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    client, said = kernel.blocking_client(), []
    client.start_channels()
    client.get_iopub_msg(timeout=30)  # it prints again and again, and is heard now
    client.execute(CHILD)
    end = time.monotonic() + 30
    while not {"from the child", "from a worker"} <= set("".join(said).split("\n")):
        assert time.monotonic() < end, "".join(said)[-500:]
        message = client.get_iopub_msg(timeout=30)
        said += [message["content"]["text"]] if message["msg_type"] == "stream" else []
    assert client.kernel_info(reply=True, timeout=30)["content"].get("debugger") in (None, False)
    client.stop_channels()
    assert kernel.kernel_spec.metadata["debugger"] is False


def test_the_port_of_ipykernel_takes_from_everybody(run_plain_kernel):
    """Why Python's kernels get a program of ours: what a stranger sends there is taken in, to any size, and printed."""
    kernel = run_plain_kernel(transport="ipc")
    process = psutil.Process(kernel.provisioner.pid)
    assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] != []


def test_encryption_where_it_can_be_had_leaves_such_a_kernel_open(run_plain_kernel):
    """Why encryption alone is not the answer: it is left out without a word where a kernel does not know it."""
    kernel = run_plain_kernel(transport_encryption="auto")
    assert kernel.curve_publickey is None
    assert heard(kernel)


def test_the_folder_of_the_sockets_is_closed_to_others_and_never_too_deep(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    for place in (tempfile.gettempdir(), str(deep)):
        monkeypatch.setattr(tempfile, "tempdir", place)
        folder = Path(start_server.own_folder())
        assert folder.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(folder / f"kernel-{uuid.uuid4()}-ipc-5"))
        (path,) = folder.iterdir()
        path.unlink()
        folder.rmdir()


def test_a_node_without_a_place_for_sockets_ends_the_job_with_a_code_that_has_words(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setattr(start_server.os, "_exit", lambda code: pytest.fail(f"exit {code}") if code != 78 else None)
    assert start_server.own_folder() is None
    assert "No folder for the sockets of kernels can be made on" in capsys.readouterr().out


def test_a_server_whose_log_finds_no_room_ends_with_a_code_that_has_words(tmp_path):
    environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1", "TMPDIR": str(tmp_path)}
    start = [sys.executable, "-I", "-S", start_server.__file__]
    with open("/dev/full", "w") as full:
        done = subprocess.run(start, env=environment, stdout=full, stderr=full, timeout=60)
        assert "the log could not be written to its end: the home folder is full" in script.exit_in_words(
            done.returncode
        ), done.returncode
        # What the job has a code of its own for keeps it.
        keys = {f"PHIDIAS_TLS_{name}": "eA==" for name in ("KEYFILE", "CERTFILE", "CLIENT_CA")}
        done = subprocess.run(
            start, env={**environment, **keys, "HOME": "/dev/null"}, stdout=full, stderr=full, timeout=60
        )
    assert done.returncode == 73


HOLDS = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import start_server
folder = start_server.own_folder()
lock = start_server.hold(folder)
server = os.fork()
if server == 0:
    start_server.close_all_but(lock)
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
print(folder, server, flush=True)
time.sleep(60)
"""


def test_the_folder_of_a_server_that_was_killed_hard_goes_with_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [tmp_path / name for name in ("phidias-abcdefgh", "phidias-elsewhere", "phidias-a0b1c2d3")]
    for other in others:
        other.mkdir(mode=0o700)
    (others[1] / "lock").write_text(socket.gethostname())  # no name of ours
    (others[2] / "lock").write_text("another-node")
    words = [sys.executable, "-c", HOLDS, str(Path(start_server.__file__).parent)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as launcher:
        folder, server = launcher.stdout.readline().split()
        (Path(folder) / "kernel-1").touch()
        start_server.clear_remains(str(tmp_path))
        assert Path(folder).is_dir(), "its server lives"
        launcher.kill()
    try:
        start_server.clear_remains(str(tmp_path))
        assert Path(folder).is_dir(), "only what had started it was killed"
    finally:
        os.kill(int(server), signal.SIGKILL)
    end = time.monotonic() + 10
    while Path(folder).exists() and time.monotonic() < end:
        Path(start_server.own_folder()).rmdir()
    assert sorted(tmp_path.iterdir()) == sorted(others)
    if os.getuid() == 0:
        (others[2] / "lock").write_text(socket.gethostname())
        os.chown(others[2], 65534, 65534)
        start_server.clear_remains(str(tmp_path))
        assert others[2].is_dir(), "another user's"
        os.chown(others[2], 0, 0)
        start_server.clear_remains(str(tmp_path))
        assert not others[2].exists()
