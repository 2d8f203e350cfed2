"""A view in a notebook comes whole from this machine: live in JupyterLab, and in the page an executed notebook becomes."""

from __future__ import annotations

import re
import subprocess
import sys
from urllib.parse import urlsplit

import nbformat
import pytest
from widget_servers import PIXEL, colours, free_port, started, stopped

VIEW = """
import numpy as np
import pandas as pd
import xarray as xr
from phidias_lab.widgets import view
lat, lon, depth = np.arange(40.0, 60), np.arange(-20.0, 20), np.array([0.0, 10])
values = lat[:, None] + lon - depth[:, None, None]
data = xr.Dataset(
    {"temperature": (("depth", "latitude", "longitude"), values, {"units": "degree_Celsius"})},
    {
        "depth": ("depth", depth, {"units": "m"}),
        "latitude": ("latitude", lat, {"units": "degrees_north"}),
        "longitude": ("longitude", lon, {"units": "degrees_east"}),
    },
)
view(data)
"""
TABLE = 'view(pd.DataFrame({"cast": ["C-1", "C-2"], "time": pd.to_datetime(["2012-01-05", "2012-01-06"])}))'
#: A figure of the user's own, drawn with the library's usual shortcut.
OWN = 'import hvplot.pandas\npd.DataFrame({"depth": [0.0, 1, 2], "salinity": [35.0, 36, 35]}).hvplot.line("depth")'


@pytest.fixture
def notebook(tmp_path):
    document = nbformat.v4.new_notebook()
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document.cells = [nbformat.v4.new_code_cell(source) for source in (VIEW, TABLE, OWN)]
    path = tmp_path / "look.ipynb"
    nbformat.write(document, path)
    return path


def foreign(page) -> list[str]:
    """What was asked of other machines."""
    asked = [url for url in page.asked if not url.startswith(("data:", "blob:", "about:", "file:"))]
    return [url for url in asked if urlsplit(url).hostname != "127.0.0.1"]


def look(page, keep, name: str) -> None:
    """Wait until the map, the table and the line are there, and see that the map has its colours."""
    page.get_by_text("C-2", exact=True).wait_for(timeout=90_000)
    page.get_by_text("2012-01-06").last.wait_for()
    page.locator(".bk-Figure").nth(1).wait_for()
    page.wait_for_timeout(1000)  # painted in an animation frame after the models are there
    figure = page.locator(".bk-Figure").first
    figure.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    for _ in range(40):  # a busy machine paints late
        if colours(page.screenshot(), figure.bounding_box()) > 100:
            break
        page.wait_for_timeout(500)
    keep(name)
    assert colours(page.screenshot(), figure.bounding_box()) > 100


def run_all(page) -> None:
    """Run all cells; JupyterLab forgets a request that comes while the kernel is still being connected, so ask again."""
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=90_000)
    asked = page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[[*0-9]+\]"))
    for _ in range(5):
        for item in ("Run", "Run All Cells"):
            page.get_by_role("menuitem", name=item, exact=True).click()
        for _ in range(50):
            if asked.count():
                return
            page.wait_for_timeout(200)
    raise AssertionError("JupyterLab runs no cell.")


def test_jupyterlab_shows_views_and_asks_no_other_host(page, served_environment, notebook, keep):
    port = free_port()
    folder = notebook.parent
    environment = {
        **served_environment,
        **{f"JUPYTER_{name}_DIR": str(folder / "jupyter") for name in ("CONFIG", "RUNTIME", "DATA")},
        "IPYTHONDIR": str(folder / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--ip=127.0.0.1", "--no-browser", f"--port={port}"]
    command += ["--IdentityProvider.token=secret", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    server = started(command, port, environment, folder / "jupyter.log")
    try:
        page.goto(f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?token=secret", timeout=60_000)
        page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for(timeout=60_000)
        run_all(page)
        look(page, keep, "notebook-in-jupyterlab")
        place = page.get_by_label("Place (longitude latitude)", exact=True)
        for second in range(60):
            if second % 10 == 0:  # a click on a figure that is being drawn anew is lost
                page.mouse.click(*page.evaluate(PIXEL, [-5, 50]))
            if place.input_value():
                break
            page.wait_for_timeout(1000)
        assert [float(number) for number in place.input_value().split()] == pytest.approx([-5, 50], abs=0.2)
        keep("notebook-in-jupyterlab-with-a-place")
        # What is drawn again takes its styles from here as well.
        page.get_by_text("Same colours for all slices", exact=True).first.click()
        page.wait_for_timeout(3000)
    finally:
        stopped(server)
    assert foreign(page) == []


def test_the_page_of_an_executed_notebook_shows_views_and_asks_no_other_host(page, lab, notebook, keep):
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "html", notebook.name]
    # nbconvert's own frame would fetch these two; no view needs them.
    command += ["--HTMLExporter.require_js_url=", "--HTMLExporter.mathjax_url="]
    done = subprocess.run(command, cwd=notebook.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page.goto(notebook.with_suffix(".html").as_uri())
    look(page, keep, "notebook-as-html")
    assert foreign(page) == []
    assert page.errors == []
