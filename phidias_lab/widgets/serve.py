"""Serve the dashboards: `python -m phidias_lab.widgets.serve --port 5006`.

Only this machine can connect, and a browser only from a page of this server. Behind Jupyter the server listens on a
socket file of the user instead of a port, so that others on the same machine cannot connect either; Jupyter has then
checked who asks and from where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from phidias_lab.widgets.waiting import waiting

ADDRESS = "127.0.0.1"


def serve(port: int = 5006, *, prefix: str = "", unix_socket: str | None = None, start: bool = True):
    """Serve until stopped; with start=False give the server, already listening."""
    import panel as pn

    from phidias_lab.widgets.controls import prepare
    from phidias_lab.widgets.dashboards.app import TITLE, app

    prepare()
    if unix_socket is not None:
        where = {"port": 0, "unix_socket": unix_socket, "websocket_origin": "*"}
    else:
        where = {"port": port, "address": ADDRESS, "websocket_origin": [f"{ADDRESS}:{port}", f"localhost:{port}"]}
    return pn.serve(
        {"/": app},
        title=TITLE,
        prefix=prefix.rstrip("/"),
        show=False,
        start=start,
        unused_session_lifetime_milliseconds=30_000,
        check_unused_sessions_milliseconds=10_000,
        **where,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m phidias_lab.widgets.serve", description="Serve the dashboards.")
    parser.add_argument("--port", type=int, default=5006, help="port on 127.0.0.1 (default 5006)")
    parser.add_argument("--unix-socket", help="listen on this socket file instead of a port")
    parser.add_argument("--prefix", default="", help="path below which the pages appear, such as /user/me/phidias")
    asked = parser.parse_args(arguments)
    if not asked.unix_socket:
        print(f"phidias dashboards at http://{ADDRESS}:{asked.port}{asked.prefix.rstrip('/')}/", flush=True)
    with waiting(asked.unix_socket or (ADDRESS, asked.port)):
        warm()
    serve(asked.port, prefix=asked.prefix, unix_socket=asked.unix_socket)
    return 0


def warm() -> None:
    """Load everything that a page needs, so that the first visitor does not wait for it."""
    from phidias_lab.widgets.dashboards.app import app

    app().get_root()


if __name__ == "__main__":
    sys.exit(main())
