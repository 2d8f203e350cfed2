"""How a server tells the hub its port: the port and nothing else, once, with the server's own token."""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from tornado import web


def port_in(body: Any) -> int:
    """The port in a request's body; a sentence in an HTTP error when the body is anything but one port."""
    if not isinstance(body, dict) or set(body) != {"port"}:
        raise web.HTTPError(400, 'The body has to be {"port": NUMBER} and nothing else.')
    port = body["port"]
    # bool is an int too, and 8888.0 equals 8888.
    if type(port) is not int or not 1024 <= port <= 65535:
        raise web.HTTPError(400, "The port has to be a whole number from 1024 to 65535.")
    return port


class PortHandler(APIHandler):
    """``POST /hub/api/phidias/port``, from a server's job."""

    @web.authenticated
    def post(self) -> None:
        port = port_in(self.get_json_body())
        token = self.get_token()
        # Only the token in the header counts: a browser's cookie is no server, and another token of the user neither.
        servers = getattr(self.current_user, "spawners", None)
        mine = [s for s in servers.values() if token is not None and s.knows(token)] if servers is not None else []
        if len(mine) != 1:
            raise web.HTTPError(403, "This token belongs to no server that is starting.")
        if not mine[0].told_port(port):
            raise web.HTTPError(409, "This server has told its port already.")
        self.set_status(201)
        self.finish({})


HANDLERS = [(r"/api/phidias/port", PortHandler)]
