"""How users prove who they are: a one-time password, accounts of the machine, or an OpenID Connect provider."""

from __future__ import annotations

import base64
import grp
import hmac
import os
import pwd
import re
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import Authenticator, PAMAuthenticator
from oauthenticator.generic import GenericOAuthenticator
from tornado import web
from traitlets import Bool, Dict, Float, Integer, Unicode

ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
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


class Federated(GenericOAuthenticator):
    """An OpenID Connect provider. Its answer becomes an account of this machine by the site's table, or by name.

    Every condition that the site gives has to hold (names, groups of the provider, the Unix group). Who is refused is told
    why, and under which name the provider knows them, since that is what the administrator has to enter.
    """

    accounts = Dict(help="Account of the machine by what username_claim says.", config=True)
    groups_claim = Unicode("", help="Field that lists the user's groups.", config=True)
    only_groups = Dict(help="Groups whose members may log in, as keys. Empty: every group.", config=True)
    only_users = Dict(help="Accounts that may log in, as keys. Empty: every account.", config=True)
    unix_group = Unicode("", help="Unix group that the account has to be in.", config=True)
    need_account = Bool(True, help="Whether the account has to be one of this machine, and a person's.", config=True)
    only_known = Bool(False, help="Whether only those may log in who stand in `accounts`.", config=True)

    def user_info_to_username(self, user_info: Mapping[str, Any]) -> str:
        return account_of(user_info, self.username_claim, self.accounts, only_known=self.only_known)

    async def check_allowed(self, username: str, auth_model: dict | None) -> bool:
        if auth_model is None:
            return False
        claims = (auth_model.get("auth_state") or {}).get(self.user_auth_state_key) or {}
        if self.only_users and username not in self.only_users:
            raise refused(f"The account {username} is not among those that may use this hub.")
        if self.only_groups and not set(groups_of(claims, self.groups_claim)) & set(self.only_groups):
            raise refused(f"The account {username} is in none of the groups {', '.join(sorted(self.only_groups))}.")
        if self.need_account and (why := not_a_person(username)):
            raise refused(why)
        if self.unix_group and not in_unix_group(username, self.unix_group):
            raise refused(f"The account {username} is not in the group {self.unix_group} of this machine.")
        return True


def account_of(claims: Mapping[str, Any], claim: str, accounts: Mapping[str, str], *, only_known: bool = False) -> str:
    """The account of the machine that belongs to a provider's answer; a page that says why when there is none."""
    known_as = claims.get(claim)
    if not isinstance(known_as, str) or not known_as:
        raise refused(f"The provider does not say who you are: its answer has no field {claim!r}.")
    if claim == "email" and claims.get("email_verified") is not True:
        raise refused(f"The provider has not verified the e-mail address {known_as}.")
    if known_as in accounts:
        return accounts[known_as]
    # A person whose name at the provider happens to be somebody's account must not get it.
    if not only_known and ACCOUNT.fullmatch(known_as) and known_as not in accounts.values():
        return known_as
    raise refused(f"No account of this machine belongs to you. The provider knows you as {known_as!r}.")


def groups_of(claims: Mapping[str, Any], claim: str) -> list[str]:
    """The groups that a provider's answer lists: a list, or one text with commas or blanks."""
    listed = claims.get(claim) if claim else None
    if isinstance(listed, str):
        return [name for name in re.split(r"[,\s]+", listed) if name]
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def refused(why: str) -> web.HTTPError:
    """A page that says why."""
    return web.HTTPError(403, f"{why} Ask the administrators of this hub, and tell them this sentence.")


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
