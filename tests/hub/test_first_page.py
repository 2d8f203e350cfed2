"""What a hub's user sees first: JupyterLab with the notebook to begin with, and no question."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape

import pytest
from phidias_hub import local
from running_hub import ROOT

EXTENSION = ROOT / "phidias_lab" / "services" / "server" / "server_extension.json"
NEWS = "@jupyterlab/apputils-extension:notification"


@pytest.fixture
def at_home(laptop, start_hub, tmp_path):
    """A visitor who is logged in at a laptop's hub, whose home is a folder of this test."""
    site, address, variables = laptop
    jupyter = tmp_path / ".jupyter" / "jupyter_server_config.d"
    jupyter.mkdir(parents=True)
    shutil.copy(EXTENSION, jupyter / "phidias_lab.json")
    hub = start_hub(site, address, **variables)
    visitor = hub.visitor()
    visitor.log_in(local.person(), hub.password())
    visitor.start_server()
    visitor.home, visitor.mine = tmp_path, f"{address}/user/{local.person()}"
    return visitor


def test_a_server_of_the_hub_opens_the_first_notebook_of_a_workspace_in_the_home(at_home):
    assert at_home.look(f"{at_home.mine}/").url == f"{at_home.mine}/lab/tree/phidias/start_here.ipynb"
    shipped = (ROOT / "notebooks" / "start_here.ipynb").read_bytes()
    assert (at_home.home / "phidias" / "start_here.ipynb").read_bytes() == shipped
    # The user's other files stay within reach.
    listed = at_home.look(f"{at_home.mine}/api/contents/").json()["content"]
    assert {"phidias", "laptop.toml"} <= {entry["name"] for entry in listed}


def test_jupyterlab_asks_for_no_news_and_installs_nothing(at_home):
    page = at_home.look(f"{at_home.mine}/lab").text
    told = json.loads(unescape(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)[1]))
    assert told["news"] == {"disabled": True}
    assert told["extensionManager"]["can_install"] is False
    settings = at_home.look(f"{at_home.mine}/lab/api/settings/{NEWS}").json()["schema"]["properties"]
    assert settings["fetchNews"]["default"] == "false"
    assert settings["checkForUpdates"]["default"] is False
