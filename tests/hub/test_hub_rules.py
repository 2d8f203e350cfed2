"""A hub that others depend on starts only when nothing is open that must be closed."""

from __future__ import annotations

import copy
import grp
import os
import pwd
from pathlib import Path

import pytest
from phidias_hub import rules, site

HUB_CONFIG = Path(__file__).parents[2] / "hub-config"
SECRETS = {
    "PHIDIAS_OIDC_SECRET": "s3cr3t-of-the-client",
    "CONFIGPROXY_AUTH_TOKEN": "a" * 64,
    "PHIDIAS_CULLER_TOKEN": "b" * 64,
}


@pytest.fixture
def centre(tmp_path):
    """The shipped example of a centre, on a disk where everything is as it should be."""
    (tmp_path / "state").mkdir(mode=0o700)
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("-")
        (tmp_path / name).chmod(0o600)
    text = (HUB_CONFIG / "sites" / "hpc.toml").read_text()
    text = text.replace("/var/lib/phidias-hub", str(tmp_path / "state"))
    text = text.replace("/etc/phidias-hub/tls", str(tmp_path))
    text = text.replace('group = "phidias"', f'group = "{grp.getgrgid(os.getgid()).gr_name}"')
    file = tmp_path / "site.toml"
    file.write_text(text)
    file.chmod(0o644)
    return file


def told(file, environment=SECRETS, change=None, uid=None):
    content = site.read(file)
    if change:
        content = copy.deepcopy(content)
        change(content)
    own = (file.parent / "state").stat().st_uid
    found = rules.faults(content, environment, site_file=file, uid=uid if uid is not None else own)
    # Who runs the tests as root is told so, rightly; that rule has its own test.
    return [f for f in found if uid is not None or "runs as root" not in f]


def test_the_example_of_a_centre_may_start_once_its_secrets_are_there(centre):
    assert told(centre) == []


def put(*keys, value):
    def change(content):
        part = content
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("login", "kind", value="one-time"), "The log-in 'one-time' is for one person or for tests."),
        (put("login", "kind", value="demo"), "The log-in 'demo' is for one person or for tests."),
        (
            put("hub", "url", value="http://lab.example.org"),
            "Passwords would travel in clear to http://lab.example.org.",
        ),
        (put("hub", "internal_tls", value=False), "would speak in clear on a network that users share"),
        (put("hub", "state", value=None), "hub.state is missing"),
        (put("hub", "certificate", value=None), "hub.certificate and hub.certificate_key belong together"),
        (put("hub", "certificate_key", value="/nowhere/key.pem"), "/nowhere/key.pem does not exist"),
        (put("hub", "certificate", value="/nowhere/chain.pem"), "hub.certificate /nowhere/chain.pem does not exist"),
        (
            put("login", "group", value="no-such-group"),
            "login.group is 'no-such-group', a group that this machine does not",
        ),
        (put("servers", "kind", value="local"), "all servers would run as the hub's own user"),
        (put("login", "oidc", "token_url", value="http://x.org/t"), "login.oidc.token_url is http://x.org/t"),
    ],
)
def test_what_must_not_be_is_a_sentence(centre, change, sentence):
    found = told(centre, change=change)
    assert any(sentence in f for f in found), found


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_missing_secret_is_told_with_where_to_put_it(centre, name):
    (fault,) = told(centre, {k: v for k, v in SECRETS.items() if k != name})
    assert name in fault
    assert "credential" in fault


@pytest.mark.parametrize(
    ("name", "short", "least"),
    [
        ("CONFIGPROXY_AUTH_TOKEN", "a" * 31, 32),
        ("PHIDIAS_CULLER_TOKEN", "abc", 32),
        ("PHIDIAS_OIDC_SECRET", "       ", 8),
    ],
)
def test_a_secret_that_is_far_too_short_is_refused_and_not_shown(centre, name, short, least):
    (fault,) = told(centre, {**SECRETS, name: short})
    assert fault.startswith(name)
    assert f"has fewer than {least} characters" in fault
    assert short not in fault
    assert told(centre, {**SECRETS, name: "x" * least}) == []


def test_secrets_may_come_as_credentials_of_the_unit(centre, tmp_path):
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name in ("oidc-secret", "proxy-token", "culler-token"):
        (folder / name).write_text("x" * 40)
        (folder / name).chmod(0o440)  # as systemd shows a file with an access list
    handed = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert told(centre, handed) == []
    (folder / "oidc-secret").chmod(0o444)
    (fault,) = told(centre, handed)
    assert "The credential" in fault
    assert "is open to other users (mode 0444)" in fault


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o755])
def test_a_state_folder_that_others_can_enter_is_refused(centre, tmp_path, mode):
    (tmp_path / "state").chmod(mode)
    (fault,) = told(centre)
    assert f"(mode {mode:04o}). Run: chmod 700" in fault


def test_a_state_file_or_key_that_others_can_read_is_refused(centre, tmp_path):
    (tmp_path / "state" / "cookie-secret").write_text("x")
    (tmp_path / "state" / "cookie-secret").chmod(0o644)
    (tmp_path / "key.pem").chmod(0o640)
    found = told(centre)
    assert len(found) == 2
    assert any("The state file" in f and "cookie-secret" in f for f in found)
    assert any("hub.certificate_key" in f for f in found)


def test_state_of_another_user_and_a_hub_as_root_are_refused(centre):
    found = told(centre, uid=os.getuid() + 12345)
    assert any("belongs to another user than the hub's" in f for f in found)
    assert any("runs as root" in f for f in told(centre, uid=0))


@pytest.mark.parametrize(
    "line",
    [
        '# client_secret = "Xk29fjw0Zq"',
        "# the old password: hunter2hunter2",
        'title = "glpat-abcDEF1234567890xyz"',
        'title = "q7Rz2mV9xK4bT8wLp3NcYd6H"',
        "# -----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_secret_in_the_site_file_is_found_by_its_line(centre, line):
    lines = centre.read_text().splitlines()
    place = next(n for n, old in enumerate(lines) if old.startswith("title = "))
    centre.write_text("\n".join([*lines[:place], line, *lines[place + 1 :]]))
    found = told(centre)
    assert len(found) in (1, 2), found
    assert all("looks like a secret" in f for f in found)
    # It is told where the secret is, never what it is.
    assert not any(line.split()[-1].strip('"') in f for f in found)


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("https://user:pass@example.org/token", True),
        ("https://example.org/token?client_secret=abcdefgh", True),
        ("https://proxy.example.org/oidc/authorize", False),
        ("/etc/phidias-hub/tls/privkey-2026-11-chain.pem", False),
        ("Earth observation lab of our centre", False),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", True),
    ],
)
def test_what_looks_like_a_secret(value, secret):
    assert rules.looks_secret(value) is secret


def test_the_name_of_a_client_and_of_people_may_look_random():
    assert not rules.looks_secret("q7Rz2mV9xK4bT8wLp3NcYd6H", "login.oidc.client_id")
    assert not rules.looks_secret("q7Rz2mV9xK4bT8wLp3NcYd6H", "login.oidc.accounts.someone")


def test_a_site_file_that_others_can_write_is_refused(centre):
    centre.chmod(0o666)
    (fault,) = told(centre)
    assert "can be written by other users" in fault


def test_a_log_in_for_one_machine_is_not_offered_to_a_network():
    content = site.checked({"name": "here", "hub": {"url": "http://192.0.2.7:8000"}})
    (fault,) = rules.faults(content, {})
    assert "for this machine alone, but the proxy would listen on 192.0.2.7" in fault
    content = site.checked({"name": "here", "hub": {"url": "http://127.0.0.1:8000", "listen": "0.0.0.0:8000"}})
    assert "0.0.0.0" in rules.faults(content, {})[0]


def test_a_demo_needs_names_and_a_password_of_some_length():
    content = site.checked({"name": "here", "login": {"kind": "demo"}})
    found = rules.faults(content, {"PHIDIAS_DEMO_PASSWORD": "short"})
    assert len(found) == 2
    content = site.checked({"name": "here", "login": {"kind": "demo", "users": ["ada"]}})
    assert rules.faults(content, {"PHIDIAS_DEMO_PASSWORD": "long enough"}) == []


@pytest.mark.parametrize("kind", ["pam", "oidc"])
def test_a_log_in_that_admits_nobody_is_refused(kind):
    oidc = {
        "title": "t",
        "client_id": "c",
        "authorize_url": "https://x.org/a",
        "token_url": "https://x.org/t",
        "userdata_url": "https://x.org/u",
    }
    login = {"kind": kind} | ({"oidc": oidc} if kind == "oidc" else {})
    found = rules.faults(site.checked({"name": "here", "login": login}), SECRETS)
    assert len(found) == 1
    assert "Nobody could log in" in found[0]
    assert rules.faults(site.checked({"name": "here", "login": {**login, "group": "staff"}}), SECRETS) == []


def test_a_real_start_of_a_centre_in_disorder_is_refused_with_all_its_faults_and_nothing_is_written(
    centre, tmp_path, refused_hub
):
    text = (
        centre.read_text()
        .replace('kind = "oidc"', 'kind = "demo"')
        .replace("internal_tls = true", "internal_tls = false")
    )
    text = text.replace('"https://lab.example.org"', '"http://lab.example.org"')
    text = text.replace("# Federated:", "# password = hunter2hunter2 Federated:")
    centre.write_text(text)
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "key.pem").chmod(0o644)
    done = refused_hub(centre)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    said = done.stderr.split("does not start:", 1)[1]
    for words in (
        "The log-in 'demo' is for one person or for tests",
        "The log-in 'demo' is for this machine alone",
        "A demo needs a shared password",
        "would travel in clear",
        "internal_tls = true",
        "looks like a secret",
        "chmod 700",
        "hub.certificate_key",
        "CONFIGPROXY_AUTH_TOKEN",
    ):
        assert words in said, words
    assert "hunter2hunter2" not in done.stderr
    assert all(line.startswith("  - ") for line in said.strip("\n").splitlines())
    assert list((tmp_path / "state").iterdir()) == []


@pytest.fixture
def account(tmp_path):
    """Words for `check` that name the hub's account: this one, or another where this is root, which no hub may be."""
    if os.getuid() != 0:
        return ()
    other = pwd.getpwnam("nobody")
    for part in (tmp_path / "state", tmp_path / "key.pem"):
        os.chown(part, other.pw_uid, other.pw_gid)
    return ("--user", "nobody")


def test_a_site_can_be_checked_without_starting_and_without_writing(centre, tmp_path, refused_hub, account):
    before = sorted(tmp_path.rglob("*"))
    done = refused_hub(centre, "check", *account, **SECRETS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{centre} is in order: its hub would start, at https://lab.example.org/\n"
    done = refused_hub(
        centre, "check", *account, **SECRETS | {"CONFIGPROXY_AUTH_TOKEN": "abc", "PHIDIAS_OIDC_SECRET": ""}
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = done.stderr.split("does not start:\n")[1].splitlines()
    assert [line.split()[1:4] for line in said] == [
        ["The", "secret", "of"],
        ["CONFIGPROXY_AUTH_TOKEN", "(the", "credential"],
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_for_an_account_or_of_a_file_that_is_not_there_is_a_sentence(centre, tmp_path, refused_hub):
    done = refused_hub(centre, "check", "--user", "no-such-user", **SECRETS)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: This machine has no account 'no-such-user'.")
    done = refused_hub(tmp_path / "nowhere.toml", "check")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no site file")


@pytest.mark.parametrize(("word", "meant"), [("upgrde-db", "upgrade-db"), ("chek", "check")])
def test_a_word_that_the_hub_does_not_know_starts_nothing(centre, tmp_path, refused_hub, word, meant):
    done = refused_hub(centre, word)
    assert done.returncode == 1
    assert done.stderr == f"Error: The hub has no word {word!r}. Did you mean {meant!r}?\n"


def test_a_key_of_another_user_is_refused(centre, tmp_path):
    own = (tmp_path / "key.pem").stat().st_uid
    found = told(centre, uid=own + 1)
    assert any("key.pem belongs to another user than the hub's. Run: chown HUB_USER" in f for f in found), found


def test_a_credential_that_cannot_be_read_is_a_sentence(centre, tmp_path):
    (tmp_path / "credentials" / "proxy-token").mkdir(parents=True)  # root reads whatever its mode
    with pytest.raises(
        site.SiteError, match=r"The credential .*proxy-token cannot be read: .* Let systemd hand it over"
    ):
        told(centre, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})


def test_a_hub_without_a_site_says_which_one_to_name(tmp_path, refused_hub):
    done = refused_hub(tmp_path / "nowhere.toml")
    assert done.returncode != 0
    assert "There is no site file" in done.stderr
    assert "Traceback" not in done.stderr
