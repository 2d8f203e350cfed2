"""What the tests of the widgets share: servers that listen, and what a page shows."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from phidias_lab.widgets.waiting import SIGN

#: The place on the page, in pixels, of data (x, y) in its first figure.
PIXEL = """([x, y]) => {
  const find = view => view.frame && view.model.type == "Figure" ? view
    : [...view.child_views ?? []].map(find).find(found => found)
  const figure = [...Bokeh.index].map(find).find(found => found)
  const box = figure.canvas.el.getBoundingClientRect()
  return [box.x + figure.frame.x_scale.compute(x), box.y + figure.frame.y_scale.compute(y)]
}"""


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


def scripted(script: str, port: int, environment: dict, folder: Path) -> subprocess.Popen:
    """A server of a test's own script, which gets the port as its argument and finds the modules of these tests."""
    (folder / "script.py").write_text(script)
    path = ":".join([environment["PYTHONPATH"], sys.path[0], str(Path(__file__).parent)])
    return started([sys.executable, "script.py", str(port)], port, {**environment, "PYTHONPATH": path}, folder / "log")


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
