"""Who may log in, and as whom: the one-time password, accounts of the machine, and a provider's answer."""

from __future__ import annotations

import asyncio
import getpass
import os
import pwd
import stat

import pytest
from phidias_hub import configure, federated, local, login, site
from tornado import web

PERSON = "ada"


@pytest.fixture
def one_time(capfd, monkeypatch):
    monkeypatch.delenv("PHIDIAS_HUB_TERMINAL", raising=False)
    return login.OneTimePassword(person=PERSON, pause=60)


def printed(capfd) -> list[str]:
    return [line.rsplit(" ", 1)[1] for line in capfd.readouterr().out.splitlines() if "with the password" in line]


def attempt(authenticator, name, password):
    return asyncio.run(authenticator.authenticate(None, {"username": name, "password": password}))


def test_a_password_is_good_for_one_log_in_and_the_next_one_is_printed(one_time, capfd):
    (first,) = printed(capfd)
    assert attempt(one_time, PERSON, first) == PERSON
    (second,) = printed(capfd)
    assert second != first
    assert attempt(one_time, PERSON, first) is None
    assert attempt(one_time, PERSON, second) == PERSON


def test_two_log_ins_at_once_cannot_share_a_password(one_time, capfd):
    (password,) = printed(capfd)

    async def both():
        data = {"username": PERSON, "password": password}
        return await asyncio.gather(*(one_time.authenticate(None, data) for _ in range(5)))

    assert sorted(map(str, asyncio.run(both()))) == ["None"] * 4 + [PERSON]


def test_the_right_password_under_another_name_is_refused(one_time, capfd):
    (password,) = printed(capfd)
    assert attempt(one_time, "bob", password) is None
    assert attempt(one_time, "", password) is None
    assert attempt(one_time, PERSON, "") is None
    assert attempt(one_time, PERSON, "päßwort") is None
    assert attempt(one_time, PERSON, password) == PERSON


def test_after_wrong_passwords_log_ins_have_to_wait(one_time, capfd):
    (password,) = printed(capfd)
    for _ in range(one_time.attempts):
        assert attempt(one_time, PERSON, "wrong") is None
    # Even the right one: who guesses must not learn that a guess was right.
    with pytest.raises(web.HTTPError, match=r"5 wrong passwords in a row. Try again in \d+ seconds") as waits:
        attempt(one_time, PERSON, password)
    assert waits.value.status_code == 429
    one_time._open_again -= 61
    assert attempt(one_time, PERSON, password) == PERSON


def test_passwords_are_random_and_long():
    made = {login.new_password() for _ in range(200)}
    assert len(made) == 200
    assert all(len(p.replace("-", "")) == 16 for p in made)  # 16 letters of 32: 80 bits


def test_the_password_goes_to_the_terminal_that_was_handed_over(monkeypatch, capfd):
    reading, writing = os.pipe()
    monkeypatch.setenv("PHIDIAS_HUB_TERMINAL", str(writing))
    login.OneTimePassword(person=PERSON)
    os.close(writing)
    with os.fdopen(reading) as terminal:
        assert terminal.read().startswith(f"Log in as {PERSON} with the password ")
    assert "password" not in capfd.readouterr().out


# A real hub -------------------------------------------------------------------------------------------------------


def test_on_a_laptop_one_person_logs_in_once_per_password_and_gets_a_server(laptop, start_hub, tmp_path):
    file, address, variables = laptop
    name = local.person()
    hub = start_hub(file, address, **variables)
    first = hub.password()
    visitor = hub.visitor()
    assert "phidias_lab on this machine" in visitor.look("/hub/login").text
    assert visitor.log_in(name, "wrong").status_code == 403
    answer = visitor.log_in(name, first)
    assert answer.status_code in (200, 503)
    assert visitor.look("/hub/home").status_code == 200
    port = address.rpartition("/")[2]
    assert f'href="/{port}/hub/user-redirect/phidias/"' in visitor.look("/hub/home").text
    # The same password in another browser.
    assert hub.visitor().log_in(name, first).status_code == 403
    assert hub.visitor().log_in(name, hub.password(), allow_redirects=False).status_code == 302

    assert visitor.start_server().status_code == 200
    status = visitor.look(f"/user/{name}/api/status")
    assert status.status_code == 200, status.text
    assert hub.visitor().look(f"/user/{name}/api/status").status_code == 403

    state = tmp_path / "state" / "phidias-hub" / f"laptop-{port}"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for kept in ("cookie-secret", "jupyterhub.sqlite"):
        assert stat.S_IMODE((state / kept).stat().st_mode) == 0o600, kept

    # A browser that has logged in stays so when the hub is started again.
    hub.stop()
    hub.start()
    assert visitor.look("/hub/home").url.endswith("/hub/home")


def test_a_server_of_a_laptop_is_for_nobody_but_its_person(monkeypatch):
    spawner = local.LocalServer(person=PERSON)
    spawner.user = type("User", (), {"name": "bob"})()
    with pytest.raises(web.HTTPError, match="This hub starts servers for ada alone"):
        asyncio.run(spawner.start())


def test_a_server_gets_the_persons_environment_without_the_hubs_secrets(monkeypatch):
    for name in local.SECRETS:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("PHIDIAS_LAKE", "/data/lake")
    got = local.LocalServer(person=PERSON).user_env({"JUPYTERHUB_USER": PERSON})
    assert got["PHIDIAS_LAKE"] == "/data/lake"
    assert got["JUPYTERHUB_USER"] == PERSON
    assert not set(local.SECRETS) & set(got)


def test_a_user_without_a_name_can_still_have_a_lab(monkeypatch):
    def nameless():
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert local.person() == "me"
    monkeypatch.setattr(getpass, "getuser", lambda: "Ada Lovelace")
    assert local.person() == "ada-lovelace"


# A provider's answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        ({"sub": "0000-0001@orcid.org"}, "jdoe"),
        ({"sub": "alice"}, "alice"),
    ],
)
def test_the_answer_becomes_an_account(claims, account):
    assert federated.account_of(claims, "sub", {"0000-0001@orcid.org": "jdoe"}) == account


@pytest.mark.parametrize(
    ("claims", "claim", "said"),
    [
        ({}, "sub", "has no field 'sub'"),
        ({"sub": ["alice"]}, "sub", "has no field 'sub'"),
        ({"sub": "0000-0002@orcid.org"}, "sub", "The provider knows you as '0000-0002@orcid.org'"),
        # Somebody who calls himself like an account that the table gives to another person.
        ({"sub": "jdoe"}, "sub", "No account of this machine belongs to you"),
        ({"sub": "../alice"}, "sub", "No account"),
        ({"sub": "Alice"}, "sub", "No account"),
        ({"email": "x@y.org"}, "email", "has not verified the e-mail address"),
        ({"sub": "100%s"}, "sub", "100%s"),
    ],
)
def test_an_answer_without_an_account_is_refused_with_the_reason(claims, claim, said):
    with pytest.raises(web.HTTPError) as refusal:
        federated.account_of(claims, claim, {"0000-0001@orcid.org": "jdoe"})
    assert refusal.value.status_code == 403
    assert said in refusal.value.get_message()


def test_where_only_the_table_admits_a_name_alone_is_not_enough():
    with pytest.raises(web.HTTPError):
        federated.account_of({"sub": "alice"}, "sub", {"x": "jdoe"}, only_known=True)


def test_groups_come_as_a_list_or_as_one_text():
    assert federated.groups_of({"g": ["a", "b", 3]}, "g") == ["a", "b"]
    assert federated.groups_of({"g": "a, b"}, "g") == ["a", "b"]
    assert federated.groups_of({"g": {"a": 1}}, "g") == []
    assert federated.groups_of({"g": ["a"]}, "") == []


def test_the_systems_own_accounts_never_log_in():
    assert "belongs to the system" in login.not_a_person("root")
    assert "There is no account nobody-has-this" in login.not_a_person("nobody-has-this")
    person = next((p for p in pwd.getpwall() if 1000 <= p.pw_uid < 60000), None)
    if person is not None:
        assert login.not_a_person(person.pw_name) is None


def provider(**given):
    return federated.Federated(
        authorize_url="https://x.org/a", token_url="https://x.org/t", userdata_url="https://x.org/u", **given
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"only_users": {"carol": True}}, "is not among those that may use this hub"),
        ({"only_groups": {"eo": True}, "groups_claim": "groups"}, "is in none of the groups eo"),
        ({}, "belongs to the system"),
    ],
)
def test_each_condition_of_a_site_has_to_hold_and_the_page_says_which_does_not(given, said):
    model = {"auth_state": {"oauth_user": {"groups": ["other"]}}}
    with pytest.raises(web.HTTPError, match=said):
        asyncio.run(provider(**given).check_allowed("daemon", model))


# Settings ---------------------------------------------------------------------------------------------------------


def told(content, tmp_path, **environment):
    whole = site.checked({"name": "here", **content})
    return configure.settings(whole, environment, state=tmp_path, site_file=tmp_path / "site.toml")


def test_pam_admits_the_group_or_the_names_and_opens_no_sessions(tmp_path):
    group = told({"login": {"kind": "pam", "group": "staff"}, "hub": {"proxy": "apart"}}, tmp_path)
    assert group["Accounts.allowed_groups"] == {"staff"}
    names = told({"login": {"kind": "pam", "group": "staff", "users": ["ada"]}, "hub": {"proxy": "apart"}}, tmp_path)
    assert names["Accounts.allowed_users"] == {"ada"}
    assert names["Accounts.allowed_groups"] == set()
    assert names["Accounts.open_sessions"] is False
