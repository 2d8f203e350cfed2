"""What the page side asks: the notices that are due. Asking is not counted as use of the server."""

from __future__ import annotations

import math

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web


class Notices(APIHandler):
    _track_activity = False

    def initialize(self, watch) -> None:
        self.watch = watch

    @web.authenticated
    async def get(self) -> None:
        """`?idle=SECONDS`: how long ago the person at the page last touched it."""
        try:
            idle = float(self.get_argument("idle"))
        except (web.MissingArgumentError, ValueError):
            raise web.HTTPError(400, "idle has to be a number of seconds") from None
        if not math.isfinite(idle) or idle < 0:
            raise web.HTTPError(400, "idle has to be a number of seconds, not below 0")
        self.watch.report(idle)
        self.finish({"notices": self.watch.told()})


def handlers(base_url: str, watch) -> list[tuple]:
    return [(url_path_join(base_url, "phidias-lab", "notices"), Notices, {"watch": watch})]
