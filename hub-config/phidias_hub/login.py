"""How users prove who they are: a one-time password, or accounts of the machine. Providers stand in `federated`."""

from __future__ import annotations

import base64
import grp
import hmac
import os
import pwd
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import Authenticator, PAMAuthenticator
from tornado import web
from traitlets import Float, Integer, Unicode

#: Accounts below this number belong to the system, and so does `nobody`.
FIRST_PERSON = 1000
NOBODY = 65534


def new_password() -> str:
    """80 random bits in groups that a person can type: no letter looks like another."""
    text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


class OneTimePassword(Authenticator):
    """One person, with a password that the hub prints and that is good for one log-in; then it prints another.

    Who knows an old password gains nothing: a browser that has logged in stays so by its cookie, everybody else needs the
    terminal.
    """

    person = Unicode(help="The only name that may log in.", config=True)
    attempts = Integer(5, min=1, help="Wrong passwords in a row until log-ins have to wait.", config=True)
    pause = Float(30.0, min=0, help="Seconds that log-ins have to wait after that.", config=True)

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.allowed_users = {self.person}
        self._wrong = 0
        self._open_again = 0.0
        self._renew()

    def _renew(self) -> None:
        self._password = new_password()
        announce(f"Log in as {self.person} with the password {self._password}")

    async def authenticate(self, handler: Any, data: Mapping[str, str]) -> str | None:
        # From here to the new password nothing waits, so two log-ins at once cannot both use it.
        left = self._open_again - time.monotonic()
        if left > 0:
            raise web.HTTPError(
                429, f"There were {self.attempts} wrong passwords in a row. Try again in {max(left, 1):.0f} seconds."
            )
        name, password = (str(data.get(key, "")).encode() for key in ("username", "password"))
        right_name = hmac.compare_digest(name.strip().lower(), self.person.lower().encode())
        right_password = hmac.compare_digest(password.strip(), self._password.encode())
        if right_name and right_password:
            self._wrong = 0
            self._renew()
            return self.person
        self._wrong += 1
        if self._wrong >= self.attempts:
            self._wrong, self._open_again = 0, time.monotonic() + self.pause
        return None


def announce(line: str) -> None:
    """Tell the person who started the hub: on the file descriptor PHIDIAS_HUB_TERMINAL if it is given, else on stdout."""
    given = os.environ.get("PHIDIAS_HUB_TERMINAL", "")
    if given.isdigit():
        os.write(int(given), f"{line}\n".encode())
    else:
        print(line, file=sys.stdout, flush=True)


class Accounts(PAMAuthenticator):
    """Accounts of this machine, checked by PAM; root and the system's own accounts never log in."""

    def check_allowed(self, username: str, authentication: Any = None) -> Any:
        if why := not_a_person(username):
            self.log.warning("Log-in refused: %s", why)
            return False
        return super().check_allowed(username, authentication)


def not_a_person(account: str) -> str | None:
    """Why an account may never log in: it does not exist here, or it belongs to the system."""
    try:
        found = pwd.getpwnam(account)
    except KeyError:
        return f"There is no account {account} on this machine."
    if found.pw_uid < FIRST_PERSON or found.pw_uid == NOBODY:
        return f"The account {account} belongs to the system, not to a person."
    return None


def in_unix_group(account: str, group: str) -> bool:
    try:
        return grp.getgrnam(group).gr_gid in os.getgrouplist(account, pwd.getpwnam(account).pw_gid)
    except KeyError:
        return False
