"""How users prove who they are by an OpenID Connect provider; of its own, since the library behind it is slow to import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oauthenticator.generic import GenericOAuthenticator
from tornado import web
from traitlets import Bool, Dict, Unicode

from .login import in_unix_group, not_a_person

ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


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
