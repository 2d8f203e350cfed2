"""Dask's pages of the user's own clusters, behind the log-in of this Jupyter server: BASE/phidias-dask/CLUSTER/status."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from phidias_lab.compute import pages

#: Nothing is fetched from another host: one of the pages names a style sheet elsewhere, and is legible without it.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def offer(app) -> None:
    """Add the pages to a server that has jupyter-server-proxy, and tell its kernels."""
    os.environ.pop(pages.VARIABLE, None)  # of the server in whose terminal this one was started
    if sys.platform == "win32":  # where Python has no socket files
        return
    try:
        found = _handler()
    except ImportError:
        return
    base = app.web_app.settings["base_url"]
    where = rf"{base.rstrip('/')}/{pages.PATH}/({pages.NAME.pattern})(/.*|)"
    app.web_app.add_handlers(".*", [(where, found, {"folder": pages.offer(base)})])


def _handler() -> type:
    from jupyter_server_proxy.handlers import ProxyHandler
    from tornado.web import HTTPError
    from tornado.websocket import WebSocketClosedError

    class ClusterPages(ProxyHandler):
        """One request for a page, or one websocket of it, passed on to the process of the cluster."""

        def initialize(self, folder: Path) -> None:
            self._folder = folder
            self.update_last_activity = False  # a page that was left open is no use of the server

        async def prepare(self) -> None:
            await super().prepare()  # the log-in
            name = self.path_args[0]
            self.proxy_base = f"{pages.PATH}/{name}"
            self.unix_socket = pages.socket_file(self._folder, name)
            if self.unix_socket is None:
                raise HTTPError(
                    410, "This cluster has ended, or nobody called its dashboard() in a notebook of this server."
                )

        async def http_get(self, name: str, path: str) -> None:
            try:
                await self.proxy("localhost", 0, path)
            except (HTTPError, OSError) as error:
                if getattr(error, "status_code", 500) < 500:
                    raise
                raise HTTPError(
                    503, "The cluster does not answer: its notebook is too busy, or has just ended. Try again soon."
                ) from None
            self.set_header("Content-Security-Policy", _POLICY)

        async def open(self, name: str, path: str) -> None:
            try:
                await self.proxy_open("localhost", 0, path)
            except OSError:
                self.close()

        def _no(self, name: str, path: str) -> None:
            raise HTTPError(405)

        head = post = put = patch = delete = options = _no

        # The pages speak ten times a second, also when the browser has just left.

        def write_message(self, *words, **more):
            with contextlib.suppress(WebSocketClosedError):
                sent = super().write_message(*words, **more)
                # Nobody waits for it; asked for its error, it is not complained about in the log.
                sent.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
                return sent

        def ping(self, *words):
            with contextlib.suppress(WebSocketClosedError):
                super().ping(*words)

    return ClusterPages
