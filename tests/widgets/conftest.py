"""A demo lake, a runs folder, a served dashboard and a real browser for the tests of the widgets."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from widget_servers import free_port, loaded, started, stopped

CHECKOUT = Path(__file__).resolve().parents[2]


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
