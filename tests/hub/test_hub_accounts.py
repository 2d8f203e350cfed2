"""Log-in with an account of the machine, by PAM, with an account that is really there."""

from __future__ import annotations

import os
import secrets
import subprocess

import pytest
from phidias_hub import login
from running_hub import free_ports

SITE = """
name = "accounts"
[hub]
url = "http://127.0.0.1:{port}"
internal_port = {inner}
proxy_api_port = {api}
[login]
kind = "pam"
{who}
"""


@pytest.fixture(scope="module")
def account():
    """(name, password, group): an account of this machine for the time of these tests."""
    if os.geteuid() != 0 or not (os.environ.get("CI") or os.environ.get("SYSTEM") == "1"):
        reason = "not run: makes an account of the system, as root, with SYSTEM=1"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    name, password = f"phidias-t{secrets.token_hex(3)}", secrets.token_hex(12)
    subprocess.run(["useradd", "--no-create-home", "--user-group", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{password}\n", text=True, check=True)
        yield name, password, name
    finally:
        subprocess.run(["userdel", name], check=True)


@pytest.fixture
def hub_of(tmp_path, start_hub):
    """Start a hub whose users are accounts of this machine."""

    def start(who):
        port, inner, api = free_ports(3)
        file = tmp_path / "accounts.toml"
        file.write_text(SITE.format(port=port, inner=inner, api=api, who=who))
        return start_hub(file, f"http://127.0.0.1:{port}")

    return start


def test_a_member_of_the_group_logs_in_and_nobody_else(account, hub_of):
    name, password, group = account
    hub = hub_of(f'group = "{group}"')
    assert hub.visitor().log_in(name, "wrong", allow_redirects=False).status_code == 403
    assert hub.visitor().log_in("root", password, allow_redirects=False).status_code == 403
    visitor = hub.visitor()
    assert visitor.log_in(name, password, allow_redirects=False).status_code == 302
    assert visitor.look("/hub/home").url.endswith("/hub/home")


def test_an_account_outside_the_group_is_refused_with_the_right_password(account, hub_of):
    name, password, _ = account
    hub = hub_of('group = "daemon"')
    assert hub.visitor().log_in(name, password, allow_redirects=False).status_code == 403


def test_the_systems_own_accounts_are_refused_even_where_the_site_names_them():
    checks = login.Accounts(allowed_users={"root", "daemon"})
    assert checks.check_allowed("root") is False
    assert checks.check_allowed("daemon") is False
    assert checks.check_allowed("there-is-no-such-account") is False
