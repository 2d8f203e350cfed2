"""What has to hold before a hub may start. Each broken rule is one sentence, and all of them are told at once.

The rules of the first kind hold everywhere: without them nobody could log in, or everybody could. Those of the second
hold where the site says `production = true`: others than the person who started the hub depend on it.
"""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from phidias_hub.site import SiteError

#: Shortest shared password of a demo.
DEMO_PASSWORD = 8
#: Shortest token: 128 bits, the least strength beyond 2030 (NIST SP 800-57 part 1 rev. 5, table 4), are 32 hexadecimal
#: digits, half of what `openssl rand -hex 32` gives.
TOKEN = 32
#: Shortest secret of a client. The provider makes it, so this finds a slip of the pen only.
CLIENT_SECRET = 8
_LOOPBACK = ("localhost", "ip6-localhost")
#: Keys of the site file whose values are names by nature, however random they look.
_NAMES = ("login.oidc.client_id", "login.oidc.accounts", "login.oidc.allowed_groups")
_SPOKEN = re.compile(
    r"(?:secret|password|passwd|passphrase|token|api[_-]?key|credential)[\w-]*\s*[=:]\s*[\"']?([^\s\"'#,}]{6,})",
    re.IGNORECASE,
)
_KNOWN_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{20,}|\bglpat-[\w-]{15,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\."
)
_RANDOM = re.compile(r"[A-Za-z0-9+/_=~.-]{24,}")


class Secrets:
    """The hub's secrets: from the environment, or from a credential file that systemd hands over."""

    #: Name of the variable, and of the credential in $CREDENTIALS_DIRECTORY that stands for it.
    OIDC = ("PHIDIAS_OIDC_SECRET", "oidc-secret")
    PROXY = ("CONFIGPROXY_AUTH_TOKEN", "proxy-token")
    CULLER = ("PHIDIAS_CULLER_TOKEN", "culler-token")
    DEMO = ("PHIDIAS_DEMO_PASSWORD", "demo-password")

    def __init__(self, environment: Mapping[str, str]):
        self._environment = environment
        folder = environment.get("CREDENTIALS_DIRECTORY")
        self.folder = Path(folder) if folder else None

    def get(self, secret: tuple[str, str]) -> str | None:
        """The secret, or None when it is in neither place."""
        variable, name = secret
        if value := self._environment.get(variable):
            return value
        if self.folder is None:
            return None
        try:
            return (self.folder / name).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SiteError(
                f"The credential {self.folder / name} cannot be read: {error.strerror}. Let systemd hand it over "
                "(LoadCredential), or look as root."
            ) from None

    def files(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.is_file()) if self.folder and self.folder.is_dir() else []


def faults(
    site: Mapping[str, Any], environment: Mapping[str, str], *, site_file: Path | None = None, uid: int = -1
) -> list[str]:
    """What keeps this site's hub from starting: sentences, none when it may start. `uid` is the hub's own."""
    found = list(_everywhere(site, Secrets(environment)))
    if site["production"]:
        found += _production(site, Secrets(environment), os.geteuid() if uid < 0 else uid)
        if site_file is not None:
            found += _secrets_in(site, site_file)
    return found


def _everywhere(site: Mapping[str, Any], secrets: Secrets) -> Iterator[str]:
    login, hub = site["login"], site["hub"]
    if login["kind"] in ("one-time", "demo") and not is_loopback(listening(site)[0]):
        yield (
            f"The log-in {login['kind']!r} is for this machine alone, but the proxy would listen on {listening(site)[0]}. "
            'Let hub.url be an address of 127.0.0.1, or choose login.kind "pam" or "oidc".'
        )
    if login["kind"] == "demo":
        if len(secrets.get(Secrets.DEMO) or "") < DEMO_PASSWORD:
            yield f"A demo needs a shared password of {DEMO_PASSWORD} characters or more. Put it into PHIDIAS_DEMO_PASSWORD."
        if not login["users"]:
            yield "A demo needs the names that may log in. List them in login.users."
    if login["kind"] == "pam" and not (login["users"] or login.get("group")):
        yield "Nobody could log in: login.kind is 'pam' without login.group and login.users. Name the group of your users."
    if login["kind"] == "oidc":
        oidc = login["oidc"]
        if not secrets.get(Secrets.OIDC):
            yield (
                "The secret of the OpenID Connect client is missing. Put it into PHIDIAS_OIDC_SECRET, or hand it to the "
                "unit as the credential oidc-secret."
            )
        if not (login["users"] or login.get("group") or oidc["accounts"] or oidc["allowed_groups"]):
            yield (
                "Nobody could log in: login.kind is 'oidc' without login.group, login.users, login.oidc.accounts and "
                "login.oidc.allowed_groups. Say who may."
            )
        if oidc["allowed_groups"] and not oidc.get("groups_claim"):
            yield "login.oidc.allowed_groups needs login.oidc.groups_claim: the field in which the provider lists groups."
    if hub["proxy"] == "apart" and not secrets.get(Secrets.PROXY):
        yield (
            "The proxy runs apart, but the secret that it shares with the hub is missing. Put the same random value into "
            "CONFIGPROXY_AUTH_TOKEN of both, or hand it to both units as the credential proxy-token."
        )
    if bool(hub.get("certificate")) != bool(hub.get("certificate_key")):
        yield "hub.certificate and hub.certificate_key belong together. Give both or none."


def _production(site: Mapping[str, Any], secrets: Secrets, uid: int) -> Iterator[str]:
    login, hub = site["login"], site["hub"]
    if login["kind"] in ("one-time", "demo"):
        yield f'The log-in {login["kind"]!r} is for one person or for tests. Choose login.kind = "pam" or "oidc".'
    if site["servers"]["kind"] != "slurm":
        yield "servers.kind is 'local': all servers would run as the hub's own user. Choose servers.kind = \"slurm\"."
    if uid == 0:
        yield "The hub runs as root and needs no root. Start it as its own system user, as systemd/phidias-hub.service does."
    if not hub["url"].startswith("https://"):
        yield f"Passwords would travel in clear to {hub['url']}. Let hub.url begin with https://."
    elif not hub.get("certificate") and not is_loopback(listening(site)[0]):
        yield (
            "Nothing would speak TLS for hub.url. Give hub.certificate and hub.certificate_key, or let the proxy listen on "
            "127.0.0.1 behind a web server that does (hub.listen)."
        )
    if not hub["internal_tls"]:
        yield (
            "Hub, proxy and servers would speak in clear on a network that users share. Set hub.internal_tls = true."
        )
    if login["kind"] == "oidc":
        for key in ("authorize_url", "token_url", "userdata_url"):
            if not login["oidc"][key].startswith("https://"):
                yield f"login.oidc.{key} is {login['oidc'][key]}, in clear. Give its https:// address."
    if site["servers"]["idle_minutes"] and not secrets.get(Secrets.CULLER):
        yield (
            "Idle servers are to be stopped after servers.idle_minutes, but the token of the unit that does so is missing. "
            "Put it into PHIDIAS_CULLER_TOKEN, or hand it to both units as the credential culler-token."
        )
    for secret in (Secrets.PROXY, Secrets.CULLER):
        if 0 < len(secrets.get(secret) or "") < TOKEN:
            yield (
                f"{secret[0]} (the credential {secret[1]}) has fewer than {TOKEN} characters, so it could be guessed. Make "
                "a new one: openssl rand -hex 32"
            )
    if login["kind"] == "oidc" and 0 < len(secrets.get(Secrets.OIDC) or "") < CLIENT_SECRET:
        yield (
            f"{Secrets.OIDC[0]} (the credential {Secrets.OIDC[1]}) has fewer than {CLIENT_SECRET} characters, which no "
            "provider gives. Copy the client's secret from your provider whole."
        )
    if group := login.get("group"):
        try:
            grp.getgrnam(group)
        except KeyError:
            yield (
                f"login.group is {group!r}, a group that this machine does not have, so nobody is in it. Run: "
                f"groupadd {group}, or name the group of your users."
            )
    if not hub.get("state"):
        yield "hub.state is missing. Name the folder of the database and of the cookie secret, for the hub's user alone."
    else:
        yield from _state(Path(hub["state"]), uid)
    if certificate := hub.get("certificate"):
        yield from _closed(Path(certificate), "The certificate hub.certificate", 0)  # everybody may read it
    if key := hub.get("certificate_key"):
        yield from _closed(Path(key), "The key hub.certificate_key")
        with contextlib.suppress(OSError):  # told above
            if Path(key).stat().st_uid != uid:
                yield f"The key hub.certificate_key {key} belongs to another user than the hub's. Run: chown HUB_USER {key}"
    for file in secrets.files():
        # systemd grants its credentials to the unit's user by an access list, which shows as bits of the group.
        yield from _closed(file, "The credential", 0o007)


def _state(folder: Path, uid: int) -> Iterator[str]:
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"hub.state {folder} cannot be looked at: {error.strerror}. Let the hub's user own it."
        return
    if not stat.S_ISDIR(found.st_mode):
        yield f"hub.state {folder} is no folder. Name a folder."
        return
    if found.st_uid != uid:
        yield f"hub.state {folder} belongs to another user than the hub's. Run: chown -R HUB_USER {folder}"
    yield from _closed(folder, "The folder hub.state", advice=f"Run: chmod 700 {folder}")
    if os.access(folder, os.R_OK | os.X_OK):
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name != "proxy.pid":
                yield from _closed(file, "The state file")


def _closed(path: Path, what: str, others: int = 0o077, advice: str | None = None) -> Iterator[str]:
    """Nothing, or the sentence that others than its owner can get at `path`."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        yield f"{what} {path} does not exist. Put it there, or mend the site file."
        return
    except OSError as error:
        yield f"{what} {path} cannot be looked at: {error.strerror}. Let the hub's user own it."
        return
    if mode & others:
        yield f"{what} {path} is open to other users (mode {mode:04o}). {advice or f'Run: chmod 600 {path}'}"


# Secrets in the site file -----------------------------------------------------------------------------------------


def _secrets_in(site: Mapping[str, Any], file: Path) -> Iterator[str]:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        yield f"The site file {file} cannot be read: {error.strerror}."
        return
    if mode & 0o022:
        yield f"The site file {file} can be written by other users (mode {mode:04o}). Run: chmod 644 {file}"
    places = [where for where, value in _texts(site) if looks_secret(value, where)]
    for number, line in enumerate(text.splitlines(), 1):
        spoken = _SPOKEN.search(line)
        if _KNOWN_SHAPES.search(line) or (
            spoken and not spoken[1].startswith(("http", "/", "PHIDIAS_", "CONFIGPROXY_"))
        ):
            places.append(f"line {number}")
    for where in dict.fromkeys(places):
        yield (
            f"{where} of the site file {file} looks like a secret. Take it out, have a new one made, and hand "
            "that over by the environment or as a credential of the unit."
        )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
    elif isinstance(value, str):
        yield where, value


def looks_secret(value: str, where: str = "") -> bool:
    """Whether a value of the site file looks like a password, key or token."""
    if _KNOWN_SHAPES.search(value):
        return True
    if where.startswith(_NAMES):
        return False
    if "://" in value:
        address = urlsplit(value)
        if address.password:
            return True
        return any(_SPOKEN.search(f"{k}={v}") or _is_random(v) for k, v in parse_qsl(address.query))
    return not value.startswith("/") and any(_is_random(word) for word in value.split())


def _is_random(word: str) -> bool:
    """Long, of letters and digits, and with as many bits per character as a random text has."""
    if not _RANDOM.fullmatch(word) or not (re.search(r"\d", word) and re.search(r"[A-Za-z]", word)):
        return False
    counts = Counter(word)
    bits = -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
    return bits > (3.0 if re.fullmatch(r"[0-9a-fA-F]+", word) else 3.6)


# Where the proxy listens ------------------------------------------------------------------------------------------


def listening(site: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port at which the proxy answers users."""
    hub = site["hub"]
    address = urlsplit(f"//{hub['listen']}" if hub.get("listen") else hub["url"])
    standard = 443 if hub["url"].startswith("https://") else 80
    return address.hostname or "", address.port or standard


def interface(site: Mapping[str, Any]) -> str:
    """What the proxy binds to: an address; empty, which is all of them, where users come by a name."""
    host, _ = listening(site)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "127.0.0.1" if host in _LOOPBACK else ""
    return host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that host."""
    if host in _LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
