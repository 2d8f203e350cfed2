"""Hooks: who is told of an event, and how. Off unless a file says so; the file holds no secret.

    cap:                                   # a CAP 1.2 file for each event
      folder: /srv/alerts
      sender: screening@example.org
    email:
      host: smtp.example.org
      from: screening@example.org
      to: [duty@example.org]
      user: screening                      # where the server wants one
      password: {environment: SMTP_PASSWORD}
    webhook:                               # the event as a STAC Item, by POST
      url: https://example.org/events
      secret: {credential: webhook}        # the file `webhook` in the folder $CREDENTIALS_DIRECTORY

An event waits in a folder until it was sent, so it is told at least once, whoever dies meanwhile. It is told twice only by a
process that dies between sending and noting it; the id is in each message for receivers to know. A hook that fails tries
again, ever more slowly, and holds up nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import smtplib
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd
import yaml

from phidias_lab.compute import runs
from phidias_lab.errors import ParameterError, as_sentence, kind_of, nearest
from phidias_lab.products import cap, stac

#: Seconds that a server may take to answer, and the pauses after failures: the first, twice as long each time, the longest.
PATIENCE, FIRST_PAUSE, LONGEST_PAUSE = 30.0, 1.0, 600.0
_SECRET = re.compile(
    r"pass(word|wd|phrase)?|secret|token|key|api_?key|auth(orization)?|credentials?|sig(nature)?", re.I
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


# What a hook does -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cap:
    folder: Path
    sender: str

    def send(self, event: Mapping[str, Any]) -> None:
        path = self.folder / f"{event['id']}.xml"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(cap.alert(event, self.sender, event["recorded"]))
        os.replace(temporary, path)


@dataclass(frozen=True)
class Email:
    host: str
    sender: str
    to: tuple[str, ...]
    security: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def send(self, event: Mapping[str, Any]) -> None:
        with self._connection() as server:
            if self.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password or "")
            server.send_message(self.message(event), self.sender, list(self.to))

    def _connection(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=PATIENCE, context=ssl.create_default_context())
        return smtplib.SMTP(self.host, self.port, timeout=PATIENCE)

    def message(self, event: Mapping[str, Any]) -> EmailMessage:
        """The mail; its headers are of one line, since the kind of an event is, and EmailMessage refuses any other."""
        mail = EmailMessage()
        synthetic = "[synthetic] " if event["synthetic"] else ""
        mail["Subject"] = f"{synthetic}{event['kind']} {cap.place(event['geometry'])}"
        mail["From"], mail["To"] = self.sender, ", ".join(self.to)
        mail["Date"] = format_datetime(event["recorded"].tz_localize("UTC").to_pydatetime())
        mail["Message-ID"] = f"<{event['id']}@{self.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        lines = [f"{name}: {value}" for name, value in cap.facts(event).items()]
        mail.set_content(
            "\n".join([cap.in_words(event), "", *lines, f"id: {event['id']}", f"product: {event['product']}"])
        )
        return mail


@dataclass(frozen=True)
class Webhook:
    url: str = field(repr=False)
    secret: str = field(repr=False)

    def send(self, event: Mapping[str, Any]) -> None:
        body = json.dumps(stac.event(event), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        stamp = str(int(time.time()))
        signature = hmac.new(self.secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(
            self.url,
            data=body,
            method="POST",
            headers={
                "Content-Type": "application/geo+json",
                "User-Agent": "phidias_lab",
                "X-Phidias-Event": event["id"],
                "X-Phidias-Timestamp": stamp,
                "X-Phidias-Signature": f"sha256={signature}",
            },
        )
        more = [urllib.request.ProxyHandler({})] if urlsplit(self.url).hostname in _LOOPBACK else []
        with urllib.request.build_opener(_NoRedirect, *more).open(request, timeout=PATIENCE) as answer:
            answer.read(1024)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one address is sent to no other."""

    def redirect_request(self, *told: Any) -> None:
        return None


# The file -------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> dict[str, Any]:
    """The hooks of a file by name; whatever is wrong in it is said now, a secret that is missing too."""
    path = Path(path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"The hooks file {path} cannot be read: {error.strerror}. Check its name.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ParameterError(f"The hooks file {path} is not valid YAML ({error}). Mend it.") from None
    if not isinstance(content, dict) or not content:
        raise ParameterError(f"The hooks file {path} must say which hooks there are. {nearest('', _READERS)}")
    found = {}
    for name, told in content.items():
        if name not in _READERS:
            raise ParameterError(f"The hooks file {path} has the unknown hook {name!r}. {nearest(name, _READERS)}")
        if not isinstance(told, dict):
            raise ParameterError(f"The hooks file {path}: {name} must hold keys and values; it is {kind_of(told)}.")
        section = _Section(path, name, told)
        found[name] = _READERS[name](section)
        section.end()
    return found


class _Section:
    """One hook's part of the file, read key by key; what nobody asked for is refused."""

    def __init__(self, path: Path, name: str, told: Mapping):
        self.path, self.name, self.told, self.known = path, name, told, []

    def refuse(self, why: str) -> ParameterError:
        return ParameterError(f"The hooks file {self.path}: {self.name} {why}")

    def text(self, key: str, default: str | None = None, needed: bool = True) -> str | None:
        self.known.append(key)
        value = self.told.get(key, default)
        if value is None and not needed:
            return None
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self.refuse(f"needs {key!r}, a text of one line; it has {value!r}.")
        return value

    def address(self, key: str, value: Any = None) -> str:
        value = self.text(key) if value is None else value
        if not isinstance(value, str) or not re.fullmatch(r"[^\s@,<>&;:\"]+@[^\s@,<>&;:\"]+", value):
            raise self.refuse(f"has {key!r}: {value!r}, which is no address such as duty@example.org.")
        return value

    def secret(self, key: str, needed: bool = True) -> str | None:
        """A secret from where the file says it is; one that stands in the file itself is refused."""
        self.known.append(key)
        place = self.told.get(key)
        if place is None and not needed:
            return None
        ways = f"write {key}: {{environment: NAME}} or {key}: {{credential: NAME}}"
        if isinstance(place, str | int | float | list):
            raise self.refuse(f"has its {key} in the file itself, where others may read it. Take it out and {ways}.")
        if not isinstance(place, dict) or len(place) != 1 or next(iter(place)) not in ("environment", "credential"):
            raise self.refuse(f"needs {key!r}, and where it is: {ways}.")
        ((kind, name),) = place.items()
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise self.refuse(f"has {key!r} at {name!r}, which is no plain name.")
        if kind == "environment":
            value, where = os.environ.get(name), f"the environment variable {name}"
        else:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            where = f"the file {name} in the folder $CREDENTIALS_DIRECTORY"
            value = None
            with contextlib.suppress(OSError, UnicodeDecodeError):
                value = (Path(folder) / name).read_text(encoding="utf-8") if folder else None
        if not (value or "").strip():
            raise self.refuse(f"takes its {key} from {where}, which is not there or empty. Set it.")
        return value.strip("\r\n")

    def end(self) -> None:
        for key in self.told:
            if key in self.known:
                continue
            if _SECRET.fullmatch(str(key)):
                raise self.refuse(
                    f"has {key!r}, which is no key of it and looks like a secret; none stands in this file. Take it out."
                )
            raise self.refuse(f"has the unknown key {key!r}. {nearest(str(key), self.known)}")


def _cap(section: _Section) -> Cap:
    return Cap(Path(section.text("folder")).expanduser().absolute(), section.address("sender"))


def _email(section: _Section) -> Email:
    host = section.text("host")
    security = section.text("security", "starttls")
    if security not in ("starttls", "tls", "none"):
        raise section.refuse(f"has the security {security!r}. {nearest(security, ('starttls', 'tls', 'none'))}")
    if security == "none" and host not in _LOOPBACK:
        raise section.refuse(f"would send to {host} in the clear. Leave security out, which is starttls, or write tls.")
    section.known.append("port")
    port = section.told.get("port", {"starttls": 587, "tls": 465, "none": 25}[security])
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise section.refuse(f"has the port {port!r}; a port is a number from 1 to 65535.")
    section.known.append("to")
    to = section.told.get("to")
    to = [to] if isinstance(to, str) else to
    if not isinstance(to, list) or not to:
        raise section.refuse("needs 'to', a list of addresses.")
    user = section.text("user", needed=False)
    password = section.secret("password", needed=user is not None)
    sender = section.address("from")
    return Email(host, sender, tuple(section.address("to", one) for one in to), security, port, user, password)


def _webhook(section: _Section) -> Webhook:
    named = isinstance(section.told.get("url"), dict)  # an address may be a secret itself
    url = section.secret("url") if named else section.text("url")
    shown = "at the place that is named" if named else repr(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise section.refuse(f"has the url {shown}, which is no address.") from None
    if (
        not host
        or re.search(r"[\s\x00-\x1f]", url)
        or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
    ):
        raise section.refuse(f"has the url {shown}; it must begin with https://.")
    if not named and (parts.username or parts.password or any(_SECRET.fullmatch(k) for k, _ in parse_qsl(parts.query))):
        raise section.refuse(
            "has a secret in its url, where others may read it. Write url: {environment: NAME} or url: {credential: NAME}."
        )
    return Webhook(url, section.secret("secret"))


_READERS: dict[str, Callable[[_Section], Any]] = {"cap": _cap, "email": _email, "webhook": _webhook}


# What waits to be sent ------------------------------------------------------------------------------------------------


class Queue:
    """The events that one hook has to tell of, as files: `waiting/<id>.json`, which moves to `sent/` when it is told.

    Any number of processes may add; one of them sends.
    """

    def __init__(self, name: str, hook: Any, folder: Path, tell: Callable[[str], None] = lambda sentence: None):
        self.name, self.hook, self.folder, self.tell = name, hook, folder, tell
        self.waiting, self.sent = folder / "waiting", folder / "sent"
        for place in (self.waiting, self.sent):
            place.mkdir(parents=True, exist_ok=True)
        self._over = threading.Event()
        self._failures = 0  # in a row
        self._tries: dict[str, int] = {}
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"hook {name}")

    def add(self, event: Mapping[str, Any]) -> None:
        name = f"{event['id']}.json"
        if not (self.sent / name).exists():
            runs.write_json(self.waiting / name, _stored(event))

    def start(self) -> None:
        self._thread.start()

    def left(self) -> int:
        return sum(1 for _ in self.waiting.glob("[!.]*.json"))

    def drain(self, patience: float = PATIENCE) -> int:
        """Wait until all is sent or something fails; gives how many are left."""
        end = time.monotonic() + patience
        while (left := self.left()) and time.monotonic() < end and not self._failures:
            time.sleep(0.05)
        return left

    def stop(self, patience: float = 5.0) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _work(self) -> None:
        with open(self.folder / "lock", "ab") as held:
            pause = 0.0
            while not self._over.wait(max(pause, 0.2)):
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:  # another process sends; it may end
                    continue
                self._send_all()
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failures - 1)) if self._failures else 0.0

    def _send_all(self) -> None:
        """Send what waits, the oldest first and what failed before last, until one fails: so would the others, mostly."""
        for path in sorted(
            self.waiting.glob("[!.]*.json"), key=lambda path: (self._tries.get(path.name, 0), _age(path))
        ):
            if self._over.is_set():
                return
            try:
                if told := runs.read_json(path):
                    self.hook.send(_revived(told))
                os.replace(path, self.sent / path.name)
            except Exception as error:  # noqa: BLE001 - a hook that fails never stops the stream
                self._failures += 1
                tries = self._tries[path.name] = self._tries.get(path.name, 0) + 1
                if tries == self._failures == 1:
                    self.tell(f"The hook {self.name} failed at the event {path.stem}: {_why(error)} It tries again.")
                return
            self._failures = 0
            self._tries.pop(path.name, None)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _why(error: Exception) -> str:
    # The text of an error may hold what a server said, of any length; never what was sent.
    return as_sentence(" ".join(f"{type(error).__name__}: {error}".split())[:200])


def _stored(event: Mapping[str, Any]) -> dict:
    import shapely

    found = {name: (value.isoformat() if isinstance(value, pd.Timestamp) else value) for name, value in event.items()}
    numbers = {n: float(event[n]) if np.isfinite(event[n]) else None for n in ("quality", "false_alarm_rate")}
    return {
        **found,
        **numbers,
        "synthetic": bool(event["synthetic"]),
        "geometry": shapely.to_wkb(event["geometry"], hex=True),
    }


def _revived(told: Mapping[str, Any]) -> dict:
    import shapely

    times = {name: pd.Timestamp(told[name]) for name in ("time", "time_end", "recorded")}
    numbers = {n: np.nan if told[n] is None else told[n] for n in ("quality", "false_alarm_rate")}
    return {**told, **times, **numbers, "geometry": shapely.from_wkb(told["geometry"])}
