"""The first thing a user of a hub sees: the notebook to begin with, in a workspace with the user's own copies.

JupyterLab stays rooted where the hub roots it, on a centre in the home: the user's own data and programs lie there, and a
file browser that ends at the workspace would hide them. The workspace is a folder in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from phidias_lab import settings
from phidias_lab.errors import PhidiasError
from phidias_lab.services.server.notices import note
from phidias_lab.services.workspace import ENTRANCE, prepare_workspace

#: Jupyter's settings for everybody: JupyterLab neither asks for news nor looks for updates.
CONFIGURATION = Path(__file__).with_name("configuration")


def started_by_a_hub() -> bool:
    return "JUPYTERHUB_SERVICE_PREFIX" in os.environ


def with_our_configuration(path: str | None) -> str:
    """JUPYTER_CONFIG_PATH with our folder at its end, so that what it named before goes before."""
    parts = [part for part in (path or "").split(os.pathsep) if part]
    return os.pathsep.join([*(part for part in parts if part != str(CONFIGURATION)), str(CONFIGURATION)])


def prepare(app) -> list[dict]:
    """Bring the workspace up to date and make its first notebook the server's first page; what the user should know."""
    from jupyter_server.base.handlers import RedirectWithParams
    from jupyter_server.utils import url_path_join

    os.environ["JUPYTER_CONFIG_PATH"] = with_our_configuration(os.environ.get("JUPYTER_CONFIG_PATH"))
    try:
        notes = [note(sentence) for sentence in prepare_workspace()]
        first = page(settings.workspace(), Path(app.root_dir))
    except PhidiasError as error:
        # A full disk is no reason to be without a server: in JupyterLab the user can make room.
        return [note(str(error), "warning")]
    base = app.web_app.settings["base_url"]
    # The hub's administrator may have chosen another page than JupyterLab's own; that one stays.
    if first is not None and app.default_url == url_path_join(base, "lab"):
        app.default_url = app.web_app.settings["default_url"] = url_path_join(base, first)
        # The server has made its own rule already, of what the hub had said.
        app.web_app.add_handlers(".*", [(base, RedirectWithParams, {"url": app.default_url})])
    return notes


def page(workspace: Path, root: Path) -> str | None:
    """Where JupyterLab shows the first notebook; None where it cannot, as below a hidden folder or outside the root."""
    file = workspace / ENTRANCE
    if not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
        return None
    parts = file.resolve().relative_to(root.resolve()).parts
    if any(part.startswith(".") for part in parts):
        return None
    return "/lab/tree/" + quote("/".join(parts))
