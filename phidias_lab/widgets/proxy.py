"""How Jupyter starts the dashboards: the entry point `phidias` of jupyter-server-proxy. Imports nothing heavy."""

from __future__ import annotations

import sys

from phidias_lab import sockets

NAME = "phidias"
TITLE = "phidias dashboards"


def setup() -> dict:
    """What jupyter-server-proxy needs: the command, the path, the tile in the launcher.

    The server listens on a socket file in a folder that only the user can enter. A port on 127.0.0.1 would be open to
    everyone who is logged in on the same machine, past the hub's login.
    """
    on_socket = sys.platform != "win32"
    command = [sys.executable, "-m", "phidias_lab.widgets.serve", "--prefix", "{base_url}" + NAME]
    return {
        "command": [*command, *(["--unix-socket", "{unix_socket}"] if on_socket else ["--port", "{port}"])],
        # Named here, because a folder that the proxy makes by itself stays when Jupyter has gone.
        "unix_socket": str(sockets.folder() / "socket") if on_socket else False,
        # The page makes its addresses from the prefix, so the path must reach it unchanged.
        "absolute_url": True,
        "timeout": 60,
        "new_browser_tab": True,
        "launcher_entry": {"title": TITLE, "enabled": True},
    }
