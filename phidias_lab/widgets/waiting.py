"""The page that is shown while the dashboards are being loaded, which takes seconds. Needs the standard library alone."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

#: What only the dashboards' own server has; the page asks for it and then shows them.
SIGN = "static/js/bokeh.min.js"

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>phidias dashboards</title>
<noscript><meta http-equiv="refresh" content="10"></noscript>
<style>
body {{ margin: 0; font-family: system-ui, sans-serif; color: #222222; }}
h1 {{ margin: 0; padding: 12px 20px; font-size: 1.4em; color: #ffffff; background: #14375e; }}
main {{ display: flex; align-items: center; gap: 14px; padding: 24px 20px; }}
.wheel {{ width: 22px; height: 22px; border: 3px solid #c8d3df; border-top-color: #14375e; border-radius: 50%;
  animation: turn 1s linear infinite; }}
@keyframes turn {{ to {{ transform: rotate(360deg); }} }}
@media (prefers-reduced-motion: reduce) {{ .wheel {{ animation-duration: 6s; }} }}
</style>
</head>
<body>
<header><h1>phidias dashboards</h1></header>
<main role="status"><div class="wheel"></div>
<p>The dashboards are being loaded. This takes a few seconds when they have just been started.</p></main>
<script>
const home = location.pathname.endsWith("/") ? location.pathname : location.pathname + "/"
async function look() {{
  try {{
    if ((await fetch(home + "{SIGN}", {{method: "HEAD", cache: "no-store"}})).ok) return location.reload()
  }} catch (error) {{
    // Between the two servers nobody listens for a moment.
  }}
  setTimeout(look, 300)
}}
setTimeout(look, 300)
</script>
</body>
</html>
""".encode()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._head(200, len(PAGE))
        self.wfile.write(PAGE)

    def do_HEAD(self) -> None:
        self._head(503, 0)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def address_string(self) -> str:
        return "local"  # a socket file has no address

    def log_message(self, *words: object) -> None:
        """Nothing: the page asks three times a second."""


class _OnPort(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class _OnSocket(_OnPort):
    address_family = getattr(socket, "AF_UNIX", socket.AF_INET)
    allow_reuse_address = False

    def server_bind(self) -> None:
        before = os.umask(0o177)  # nobody but the user
        try:
            super().server_bind()
        finally:
            os.umask(before)


@contextmanager
def waiting(address: tuple[str, int] | str):
    """Answer at a port or socket file with a page that says that the dashboards are being loaded, until the block ends."""
    on_socket = isinstance(address, str)
    if on_socket and os.path.exists(address):
        os.unlink(address)
    server = (_OnSocket if on_socket else _OnPort)(address, _Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        if on_socket:
            os.unlink(address)
