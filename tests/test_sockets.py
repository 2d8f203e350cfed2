"""Folders for socket files go with the server they were made for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from phidias_lab import sockets

MAKE = "from phidias_lab import sockets; print(sockets.folder(), flush=True); input()"


@pytest.fixture
def place(monkeypatch):
    """An own folder for temporary files, with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def server():
    """``server()`` is a process that made a folder and waits; returns both."""
    begun = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_a_folder_is_open_to_its_owner_alone_and_goes_with_its_server(place, server):
    process, folder = server()
    assert folder.parent == place
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "socket").touch()
    process.communicate("\n")
    assert process.returncode == 0
    assert list(place.iterdir()) == []


def test_what_a_killed_server_left_goes_at_the_next_start_and_what_lives_stays(place, server):
    killed, old = server()
    living, kept = server()
    (old / "socket").touch()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert old.is_dir()
    _, new = server()
    assert set(place.iterdir()) == {kept, new}
    assert living.poll() is None


def test_a_child_that_is_forked_leaves_the_folder_to_its_parent(place):
    code = (
        "import os, sys\nfrom phidias_lab import sockets\nmade = sockets.folder()\n"
        "child = os.fork()\nif child == 0: sys.exit()\nos.waitpid(child, 0)\nprint(made.is_dir())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_link_with_our_name_is_not_followed(place, tmp_path):
    (tmp_path / "precious").touch()
    (place / f"{sockets.PREFIX}link").symlink_to(tmp_path)
    assert sockets.sweep() == []
    assert (tmp_path / "precious").exists()


def test_a_place_too_long_for_a_socket_is_passed_over(monkeypatch, tmp_path):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert deep not in sockets._places()
    assert os.access(sockets._places()[0], os.W_OK)
