"""The programs of this Python environment, `phidias` above all, where a user types: in notebooks and in terminals."""

from __future__ import annotations

import os
import sysconfig
from shlex import quote


def offer(app) -> None:
    """Put them first on the path of this server's kernels and terminals."""
    programs = sysconfig.get_path("scripts")
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if programs not in path:
        os.environ["PATH"] = os.pathsep.join([programs, *path])
        # Among them is the Node.js of the hub's proxy. JupyterLab finds it then, and would leave its cache in /tmp.
        os.environ.setdefault("NODE_DISABLE_COMPILE_CACHE", "1")
    terminals = app.web_app.settings.get("terminal_manager")
    # Jupyter's login shell reads a profile that sets the path anew. A shell that somebody chose stays as it is.
    if terminals is not None and terminals.shell_command[1:] == ["-l"]:
        shell = terminals.shell_command[0]
        terminals.shell_command = [shell, "-l", "-c", f'exec env PATH={quote(programs)}:"$PATH" {quote(shell)} -i']
