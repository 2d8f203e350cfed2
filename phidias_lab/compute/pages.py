"""Dask's own pages of a cluster, for its owner alone, below the address of the owner's Jupyter server.

These pages know no log-in, so no port is opened for them: whoever is on the node could read it. The Jupyter server offers a
folder that its user alone can enter (`offer`); a cluster of a process below that server puts a socket file there when its
pages are asked for (`Pages`); and the server, which asks for a log-in, passes requests on to it (`socket_file`).
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from phidias_lab import sockets
from phidias_lab.errors import MissingExtraError, PhidiasError, ProductError

if TYPE_CHECKING:
    from phidias_lab.compute.cluster import Cluster

#: Below the address of a Jupyter server.
PATH = "phidias-dask"
#: Names the folder to the processes that a Jupyter server starts.
VARIABLE = "PHIDIAS_DASK_PAGES"
NAME = re.compile(r"phidias-[0-9a-f]{12}")
#: In a cluster's folder, a link to its socket file, so that whoever removes the one removes the other.
LINK = "pages"
_ADDRESS = "address"
#: What Dask serves beside the live pages. Not its proxy, which leads to any port that the scheduler's node reaches.
_ROUTES = ("distributed.http.scheduler.info", "distributed.http.scheduler.json", "distributed.http.statics")


class Address(str):
    """An address of this server that a notebook shows as a link."""

    def _repr_html_(self) -> str:
        told = html.escape(self)
        return f'<a href="{told}" target="_blank" rel="noopener">{told}</a>'


# In the Jupyter server --------------------------------------------------------------------------------------------------


def offer(base: str) -> Path:
    """Make the folder for sockets of clusters, and name it to all processes that this one starts from now on."""
    folder = sockets.folder()
    (folder / _ADDRESS).write_text(f"{base.rstrip('/')}/{PATH}", encoding="utf-8")
    os.environ[VARIABLE] = str(folder)
    return folder


def socket_file(folder: Path, name: str) -> str | None:
    """The socket of a cluster of this name; None where none is there, or something else, or somebody else's."""
    if not NAME.fullmatch(name):
        return None
    file = folder / name
    try:
        found = file.lstat()
    except OSError:
        return None
    return str(file) if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid() else None


# In the owner of a cluster ----------------------------------------------------------------------------------------------


def _offered() -> tuple[Path, str]:
    """The folder that the Jupyter server above this process offers, and the address of what is put there."""
    folder = Path(os.environ.get(VARIABLE, ""))
    try:
        found = folder.lstat()
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if os.environ.get(VARIABLE) and mine:
            return folder, (folder / _ADDRESS).read_text(encoding="utf-8")
    except OSError:
        pass
    raise PhidiasError(
        "Dask's pages are shown by the Jupyter server of a notebook, since by themselves they ask nobody for a log-in, and "
        "no such server started this process. Call dashboard() in a notebook of the hub or of 'phidias lab'; here "
        "print(cluster) and cluster.table() tell the workers and their states."
    )


class Pages:
    """The pages of one cluster, as long as they are served."""

    def __init__(self, owner: Cluster):
        folder, base = _offered()
        try:
            from distributed.dashboard import scheduler as _  # noqa: F401  seconds, and Bokeh, which not every cluster needs
        except ImportError:
            raise MissingExtraError("The pages of Dask", "lab") from None
        self.address = Address(f"{base}/{owner.name}/status")
        self._dask = owner.dask
        try:
            with contextlib.suppress(FileExistsError):
                (owner.folder / LINK).symlink_to(folder / owner.name)
            self._dask.sync(self._start, str(folder / owner.name))
        except (OSError, ValueError) as error:  # ValueError: tornado found something else there
            raise ProductError(f"The socket of the pages, {folder / owner.name}, cannot be made: {error}.") from None
        self._dask.dashboard_link = self.address  # what Dask's own displays show

    async def _start(self, file: str) -> None:
        import dask
        from distributed.dashboard import scheduler as dashboard
        from distributed.http.routing import RoutingApplication
        from distributed.http.utils import get_handlers
        from tornado.httpserver import HTTPServer
        from tornado.netutil import bind_unix_socket
        from tornado.web import RequestHandler

        scheduler, door = self._dask.scheduler, bind_unix_socket(file, mode=0o600)

        class NoWorkersPage(RequestHandler):
            """Where the list of workers links to."""

            def get(self):
                self.set_status(404)
                self.finish("Workers serve no pages: everybody on their nodes could read them.")

        # An application of its own: what belongs to the scheduler's is served on its port.
        self._application = RoutingApplication([*get_handlers(scheduler, _ROUTES), (r"/proxy/.*", NoWorkersPage)])
        # Jupyter has checked who asks and from where.
        origins = "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"
        with dask.config.set({origins: ["*"]}):
            dashboard.connect(self._application, None, scheduler)
        self._server = HTTPServer(self._application)
        self._server.add_socket(door)

    def close(self) -> None:
        """Serve no more; the socket file goes with the cluster's folder."""
        self._dask.sync(self._stop, callback_timeout=5)

    async def _stop(self) -> None:
        self._server.stop()
        for live in self._application.applications:
            live.stop()
        await self._server.close_all_connections()
