"""A demo lake, a runs folder, a served dashboard and a real browser for the tests of the widgets."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from phidias_lab.widgets.waiting import SIGN

CHECKOUT = Path(__file__).resolve().parents[2]

#: The place on the page, in pixels, of data (x, y) in its first figure.
PIXEL = """([x, y]) => {
  const find = view => view.frame && view.model.type == "Figure" ? view
    : [...view.child_views ?? []].map(find).find(found => found)
  const figure = [...Bokeh.index].map(find).find(found => found)
  const box = figure.canvas.el.getBoundingClientRect()
  return [box.x + figure.frame.x_scale.compute(x), box.y + figure.frame.y_scale.compute(y)]
}"""


@pytest.fixture
def lab(demo_lake, own_folders, tmp_path, monkeypatch):
    """This process as a user's lab, with the demo lake and folders of its own."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    return tmp_path


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard-runs")


@pytest.fixture(scope="session")
def served_environment(demo_lake_folder, runs_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PHIDIAS_", "XDG_", "BOKEH_", "PANEL_"))},
        "HOME": str(home),
        "PHIDIAS_LAKE": str(demo_lake_folder),
        "PHIDIAS_RUNS": str(runs_folder),
        "PYTHONPATH": str(CHECKOUT),
    }


def colours(picture: bytes, box: dict) -> int:
    """How many different colours a part of a picture holds."""
    from PIL import Image

    x, y, w, h = (int(box[k]) for k in ("x", "y", "width", "height"))
    part = Image.open(io.BytesIO(picture)).convert("RGB").crop((x, y, x + w, y + h))
    return len(part.getcolors(maxcolors=1 << 24))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(command: list[str], port: int, environment: dict, log: Path) -> subprocess.Popen:
    """A server that listens, or its log."""
    with open(log, "wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, cwd=log.parent)
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    process.wait()
    raise AssertionError(f"{command} does not listen:\n{log.read_text()[-4000:]}")


def loaded(address: str) -> None:
    """Wait until the dashboards themselves answer, and not the page that says that they are being loaded."""
    request = urllib.request.Request(f"{address}/{SIGN}", method="HEAD")
    for _ in range(600):
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The dashboards at {address} are still being loaded.")


def stopped(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def dashboard(served_environment, tmp_path_factory):
    """The address of a dashboard that is served as users serve it."""
    port = free_port()
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "phidias_lab.widgets.serve", "--port", str(port)]
    process = started(command, port, served_environment, folder / "serve.log")
    loaded(f"http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}"
    stopped(process)
