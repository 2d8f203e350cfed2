"""Whether a deployment works, asked as a user would: log in, start a server, run a notebook, stop.

No server, no job and no file of the check is left. What any first server makes in a new home (settings of Jupyter, copies of
the notebooks) belongs to the account and stays.

    python hub-config/health.py --site /etc/phidias/site.toml --user monitor

The password comes from PHIDIAS_HEALTH_PASSWORD or is asked for; where people log in elsewhere (OpenID Connect), give a token
of the hub in PHIDIAS_HEALTH_TOKEN instead. Take an account of its own: one with a running server is left alone. Each step is
one line with its seconds. The exit code says which step failed: 0 none, 2 what was asked, 10 the hub does not answer, 11
log-in, 12 the server does not start, 13 the notebook, 14 something stayed behind.

It runs in any environment with JupyterHub and from any machine that reaches the hub.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import http.cookiejar
import json
import os
import re
import signal
import ssl
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Seconds in which a hub that was asked for a server shows it, though its answer was not heard.
UNHEARD = 5
ASKED, HUB, LOGIN, SERVER, NOTEBOOK, LEFT = 2, 10, 11, 12, 13, 14
#: The notebook that is run: each cell, and what it has to say.
CELLS = {
    "import getpass, os; print('user', getpass.getuser())": "user {user}",
    "import phidias_lab; print('chains', len(phidias_lab.chains()) > 0)": "chains True",
    "print('sum', sum(range(10)))": "sum 45",
    # The job's own log is the only file that a server leaves in the home folder.
    "import pathlib, os; log = pathlib.Path.home() / f\".phidias/logs/server-{os.environ.get('SLURM_JOB_ID')}.log\"\n"
    "log.unlink(missing_ok=True); print('log', log.exists())": "log False",
}


class Failed(Exception):
    """A step failed; the message says what was seen."""

    def __init__(self, code: int, sentence: str):
        super().__init__(sentence)
        self.code = code


class Visitor:
    """A person with a browser's cookies, and later with a token."""

    def __init__(self, address: str, certificate: str | None = None):
        self.address = address.rstrip("/")
        self.base = urllib.parse.urlsplit(self.address).path
        self.tls = ssl.create_default_context(cafile=certificate) if self.address.startswith("https") else None
        self.token: str | None = None
        self.cookies = http.cookiejar.CookieJar()
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)]
        if self.tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self.tls))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(
        self, method: str, path: str, body: Any = None, form: dict | None = None, code: int = HUB
    ) -> tuple[int, str, str]:
        """Status, text and final address of an answer; refused with `code` when nobody answers."""
        data, headers = None, {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"token {self.token}"
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if form is not None:
            data, headers = urllib.parse.urlencode(form).encode(), {"Accept": "text/html"}
        request = urllib.request.Request(self.address + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode(errors="replace"), answer.url
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace"), error.url
        except (urllib.error.URLError, OSError) as error:
            raise Failed(code, f"{self.address}{path} does not answer: {getattr(error, 'reason', error)}") from None

    def xsrf(self) -> str:
        return next((c.value or "" for c in self.cookies if c.name.endswith("_xsrf") and "/hub/" in c.path), "")


def words(text: str) -> str:
    """What an answer says, in one line."""
    with contextlib.suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("message") or text)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()[:300]


class Check:
    """One visit."""

    def __init__(self, visitor: Visitor, user: str, options: dict, seconds: float):
        self.visitor, self.user, self.options, self.seconds = visitor, user, options, seconds
        self._token_id: str | None = None
        self._started = self._answered = self._ran = False
        self._notebook: str | None = None
        self._kernel: str | None = None

    def run(self, password: str | None, token: str | None) -> None:
        try:
            self.step("hub", self.reach)
            self.step("log-in", lambda: self.log_in(password, token))
            self.step("server", self.start)
            self.step("notebook", lambda: asyncio.run(self.work()))
        finally:
            # Also after a failure and Ctrl-C; a step that fails here must not hide the one before.
            failed = sys.exc_info()[0] is not None
            try:
                if self.visitor.token:
                    with unhurried():
                        self.step("stop", self.leave)
            except Failed as failure:
                if not failed:
                    raise
                print(f"stop       failed: {failure}", file=sys.stderr)

    def step(self, name: str, act: Any) -> None:
        begun = time.monotonic()
        said = act()
        print(f"{name:10} {time.monotonic() - begun:6.1f} s  {said}", flush=True)

    def api(self, method: str, path: str, body: Any = None, *, good: tuple[int, ...], code: int) -> Any:
        status, text, _ = self.visitor.ask(method, path, body, code=code)
        if status not in good:
            raise Failed(code, f"{method} {path} was answered with {status}: {words(text)}")
        return json.loads(text) if text.strip() and text.lstrip()[:1] in "{[" else {}

    def reach(self) -> str:
        return (
            f"JupyterHub {self.api('GET', '/hub/api/', good=(200,), code=HUB).get('version')} at {self.visitor.address}"
        )

    def log_in(self, password: str | None, token: str | None) -> str:
        if token:
            self.visitor.token = token
        else:
            self.visitor.ask("GET", "/hub/login", code=LOGIN)
            form = {"username": self.user, "password": password or "", "_xsrf": self.visitor.xsrf()}
            status, text, where = self.visitor.ask("POST", "/hub/login?next=%2Fhub%2Ftoken", form=form, code=LOGIN)
            if status != 200 or "/hub/login" in where:
                reason = re.search(r'class="[^"]*login_error[^"]*"[^>]*>(.*?)</p>', text, re.DOTALL)
                raise Failed(LOGIN, f"{self.user} was not let in: {words(reason[1] if reason else text)}")
            asked = {"note": "health check", "expires_in": int(self.seconds * 3)}
            path = f"/hub/api/users/{self.user}/tokens?_xsrf={urllib.parse.quote(self.visitor.xsrf())}"
            given = self.api("POST", path, asked, good=(200, 201), code=LOGIN)
            self.visitor.token, self._token_id = given["token"], given["id"]
        who = self.api("GET", "/hub/api/user", good=(200,), code=LOGIN)
        if who.get("name") != self.user:
            raise Failed(LOGIN, f"The hub takes this visitor for {who.get('name')}, not for {self.user}.")
        return f"as {self.user}"

    def start(self) -> str:
        path = f"/hub/api/users/{self.user}"
        if self.api("GET", path, good=(200,), code=SERVER).get("servers"):
            raise Failed(
                SERVER, f"{self.user} has a server already, which is left alone. Take an account of the check's own."
            )
        self._started = True  # before the answer: whoever ends this check meanwhile ends no server
        status, text, _ = self.visitor.ask("POST", f"{path}/server", self.options, code=SERVER)
        self._answered = True
        if status not in (201, 202):
            self._started = status >= 500  # refused, there is none of this check
            raise Failed(SERVER, f"POST {path}/server was answered with {status}: {words(text)}")
        end = time.monotonic() + self.seconds
        while True:
            server = self.api("GET", path, good=(200,), code=SERVER).get("servers", {}).get("")
            if server is None:
                raise Failed(SERVER, f"The server ended before it answered: {self.last_words()}")
            if server.get("ready"):
                return f"{self.user}'s server answers"
            if time.monotonic() > end:
                raise Failed(SERVER, f"The server was not ready within {self.seconds:.0f} s: {self.last_words()}")
            time.sleep(0.5)

    def last_words(self) -> str:
        with contextlib.suppress(Failed):
            text = self.visitor.ask("GET", f"/hub/spawn-pending/{self.user}")[1]
            return words(text)
        return "the hub says no more"

    async def work(self) -> str:
        """Store a notebook, run it cell by cell in a kernel of the server, look at what each cell says."""
        base = f"/user/{self.user}/api"
        name = f"health-check-{uuid.uuid4().hex[:8]}.ipynb"
        cells = [
            {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": c} for c in CELLS
        ]
        content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        self._notebook = name
        self.api("PUT", f"{base}/contents/{name}", {"type": "notebook", "content": content}, good=(201,), code=NOTEBOOK)
        stored = self.api("GET", f"{base}/contents/{name}", good=(200,), code=NOTEBOOK)["content"]["cells"]
        self._kernel = self.api("POST", f"{base}/kernels", {"path": name}, good=(201,), code=NOTEBOOK)["id"]
        try:
            from tornado.httpclient import HTTPRequest
            from tornado.websocket import websocket_connect
        except ModuleNotFoundError:
            raise Failed(
                NOTEBOOK, f"{sys.executable} has no tornado. Run this check with the Python of the hub's environment."
            ) from None

        address = f"{self.visitor.address.replace('http', 'ws', 1)}{base}/kernels/{self._kernel}/channels"
        asked = HTTPRequest(
            address, headers={"Authorization": f"token {self.visitor.token}"}, ssl_options=self.visitor.tls
        )
        try:
            channel = await asyncio.wait_for(websocket_connect(asked), 30)
            for cell, expected in zip(stored, CELLS.values(), strict=True):
                told = await asyncio.wait_for(execute(channel, cell["source"]), 120)
                if expected.format(user=self.user) not in told:
                    raise Failed(
                        NOTEBOOK, f"A cell said {words(told)!r} where {expected.format(user=self.user)!r} was due."
                    )
            channel.close()
        except TimeoutError:
            raise Failed(NOTEBOOK, "The kernel did not answer in time.") from None
        except OSError as error:
            raise Failed(NOTEBOOK, f"The kernel cannot be reached: {error}") from None
        self._ran = True
        return f"{len(stored)} cells ran"

    def leave(self) -> str:
        """Take away whatever this visit brought."""
        base = f"/user/{self.user}/api"
        removed = True
        if self._kernel:
            self.visitor.ask("DELETE", f"{base}/kernels/{self._kernel}", code=LEFT)
        if self._notebook:
            removed = self.visitor.ask("DELETE", f"{base}/contents/{self._notebook}", code=LEFT)[0] in (204, 404)
        path = f"/hub/api/users/{self.user}"
        if self._started:
            begun = gone = time.monotonic()
            # Where the hub was asked for a server and nobody heard its answer, the server may yet come.
            patience = 0 if self._answered else UNHEARD
            while True:
                if self.api("GET", path, good=(200,), code=LEFT).get("servers"):
                    # Asked again: a server that is still starting cannot be stopped yet.
                    self.visitor.ask("DELETE", f"{path}/server", code=LEFT)
                    gone = time.monotonic() + 0.5
                elif time.monotonic() >= gone + patience:
                    break
                if time.monotonic() > begun + 60:
                    raise Failed(LEFT, f"The server of {self.user} did not stop within a minute.")
                time.sleep(0.5)
        if self._token_id:
            self.api("DELETE", f"{path}/tokens/{self._token_id}", good=(204,), code=LEFT)
            self.visitor.token = None
            self.visitor.ask("GET", "/hub/logout", code=LEFT)
        if not removed:
            raise Failed(
                LEFT, f"The notebook {self._notebook} of this check could not be removed from {self.user}'s home."
            )
        if self._started and not self._ran:
            return "no server and no job of this check is left; the log of the job is kept in ~/.phidias/logs"
        return "no server, no job and no file of this check is left"


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Signals that come again must not leave half of it behind."""
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def execute(channel: Any, code: str) -> str:
    """What a cell prints, or the error it ends with."""
    number = uuid.uuid4().hex
    header = {"msg_id": number, "msg_type": "execute_request", "username": "", "session": number, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await channel.write_message(json.dumps(message))
    told, replied, idle = "", False, False
    while not (replied and idle):
        text = await channel.read_message()
        if text is None:
            raise Failed(NOTEBOOK, "The kernel's connection was closed.")
        answer = json.loads(text)
        if answer.get("parent_header", {}).get("msg_id") != number:
            continue
        kind, content = answer["header"]["msg_type"], answer["content"]
        if kind == "stream":
            told += content["text"]
        elif kind == "error":
            raise Failed(NOTEBOOK, f"A cell failed: {content['ename']}: {content['evalue']}")
        replied |= kind == "execute_reply"
        idle |= kind == "status" and content["execution_state"] == "idle"
    return told


def address_of(file: Path) -> str:
    """Where the hub of a site file is."""
    try:
        hub = tomllib.loads(file.read_text(encoding="utf-8")).get("hub", {})
    except FileNotFoundError:
        raise Failed(ASKED, f"There is no site file {file}. Name the one of the hub with --site.") from None
    except OSError as error:
        raise Failed(ASKED, f"The site file {file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise Failed(ASKED, f"The site file {file} is not valid TOML: {error}. Mend that place.") from None
    except RecursionError:
        raise Failed(
            ASKED, f"The site file {file} is nested too deeply. Mend the place with the many brackets."
        ) from None
    return hub.get("url", "http://127.0.0.1:8000")


def visit(address: str, certificate: str | None) -> Visitor:
    if not address.startswith(("http://", "https://")):
        raise Failed(
            ASKED, f"The address {address!r} does not begin with http:// or https://. Give it whole, in --address."
        )
    try:
        return Visitor(address, certificate)
    except OSError as error:  # ssl.SSLError is one
        said = error.strerror or error
        raise Failed(
            ASKED, f"The certificate {certificate} cannot be used: {said}. Name a PEM file in --certificate."
        ) from None


def ask_for_password(question: str) -> str:
    try:
        with warnings.catch_warnings():
            # It warns where there is no terminal that would hide what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(question)
    except (EOFError, getpass.GetPassWarning):
        raise Failed(
            ASKED,
            "Without a terminal nobody can be asked for the password. Put it into PHIDIAS_HEALTH_PASSWORD, or a token of "
            "the hub into PHIDIAS_HEALTH_TOKEN.",
        ) from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True, help="the site file of the hub")
    parser.add_argument("--user", required=True, help="an account for this check alone")
    parser.add_argument("--address", help="another address than the site's hub.url")
    parser.add_argument("--profile", help="profile of the server (default: the site's first)")
    parser.add_argument(
        "--certificate", help="file of the authority to trust, where the hub has a certificate of its own"
    )
    parser.add_argument("--seconds", type=float, default=300, help="how long the server may take (default %(default)g)")
    asked = parser.parse_args(arguments)
    try:
        of_site = address_of(asked.site)
        address = asked.address or of_site
        visitor = visit(address, asked.certificate)
        token, password = os.environ.get("PHIDIAS_HEALTH_TOKEN"), os.environ.get("PHIDIAS_HEALTH_PASSWORD")
        if not token and password is None:
            password = ask_for_password(f"Password of {asked.user} at {address}: ")
        options = {"profile": asked.profile} if asked.profile else {}
        Check(visitor, asked.user, options, asked.seconds).run(password, token)
    except Failed as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.exit(main())
