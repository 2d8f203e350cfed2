"""What an administrator installs: units of systemd, the rule of sudo, and what they call."""

from __future__ import annotations

import configparser
import fcntl
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import requests
from phidias_hub import configure, idle, local, rules, site

HUB_CONFIG = Path(__file__).parents[2] / "hub-config"
UNITS = sorted((HUB_CONFIG / "systemd").glob("*.service"))


def program(name):
    """Where a program of the administrator is; the path of a plain user may lack its folder."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def test_sudo_understands_the_rule_and_grants_three_programs_and_no_shell():
    rule = HUB_CONFIG / "sudoers.d" / "phidias"
    lines = [line for line in rule.read_text().splitlines() if line and not line.startswith("#")]
    (commands,) = [line.split("=")[1] for line in lines if line.startswith("Cmnd_Alias")]
    assert {c.strip() for c in commands.split(",")} == {"/usr/bin/sbatch", "/usr/bin/squeue", "/usr/bin/scancel"}
    (grant,) = [line for line in lines if line.startswith("jhub ")]
    assert grant == "jhub ALL=(%phidias) NOPASSWD:SETENV: PHIDIAS_SLURM"
    assert "ALL" not in grant.split("NOPASSWD")[1]
    visudo = program("visudo")
    if visudo is None:
        reason = "not run: needs the system package sudo"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    done = subprocess.run([visudo, "-cf", str(rule)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def parsed(unit):
    # A key of a unit may stand several times.
    found = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    found.optionxform = str
    found.read(unit)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_a_unit_starts_what_exists_and_holds_no_secret(unit):
    service = parsed(unit)["Service"]
    called = service["ExecStart"].split()
    module = called[called.index("-m") + 1]
    assert (HUB_CONFIG / (module.replace(".", "/") + ".py")).is_file()
    assert service["WorkingDirectory"].endswith("/hub-config")
    assert service["UMask"] == "0077"
    assert service.get("User", "dynamic") != "root"
    assert not re.search(r"(?i)(secret|token|password)=\S", unit.read_text())


def test_the_hub_starts_without_what_is_slow_to_import_and_used_by_nobody():
    hub = HUB_CONFIG / "phidias_hub" / "hub.py"
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", hub, "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version("jupyterhub")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "jupyterhub.app" in imported
    assert not {name for name in imported if name.split(".")[0] in ("lark", "oauthenticator")}


def test_a_server_starts_without_what_is_slow_to_import_and_used_by_nobody_and_extensions_have_it_all():
    server = HUB_CONFIG / "phidias_hub" / "server.py"
    code = (
        f"import sys\ntry:\n    exec(compile(open({str(server)!r}).read(), 'server', 'exec'))\n"
        "except SystemExit:\n    import jupyterlab.labapp\n"
        "slow = {'lark', 'arrow', 'rich', 'alembic.context'} & sys.modules.keys()\n"
        "import alembic.command\nprint(slow, alembic.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"set() {version('alembic')}"


def test_only_the_hub_may_become_another_user():
    free = {unit.stem for unit in UNITS if parsed(unit)["Service"].get("NoNewPrivileges") != "yes"}
    assert free == {"phidias-hub"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_systemd_understands_the_unit(unit, tmp_path):
    verifier = program("systemd-analyze")
    if verifier is None:
        reason = "not run: needs the system package systemd"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    # The programs of the units are installed on the hub's machine, not here.
    for file in UNITS:
        text = file.read_text().replace("/opt/phidias/hub/bin/python", sys.executable)
        text = text.replace("/opt/phidias/phidias_lab/hub-config", str(HUB_CONFIG)).replace("jhub", "root")
        (tmp_path / file.name).write_text(text)
    done = subprocess.run(
        [verifier, "verify", "--man=no", str(tmp_path / unit.name)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system:/usr/lib/systemd/system"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    about_ours = [line for line in done.stderr.splitlines() if "phidias" in line]
    assert about_ours == [], done.stderr


def test_idle_servers_are_stopped_later_than_they_end_themselves():
    content = site.checked({"name": "here", "servers": {"idle_minutes": 60, "warn_minutes": 10}})
    seconds = int(next(w for w in idle.command(content) if w.startswith("--timeout=")).split("=")[1])
    assert seconds > 60 * 70
    with pytest.raises(site.SiteError, match="Disable this unit"):
        idle.command(site.checked({"name": "here"}))


def told(content, tmp_path, **environment):
    whole = site.checked({"name": "here", "hub": {"proxy": "apart"}, **content})
    return configure.settings(whole, environment, state=tmp_path, site_file=tmp_path / "site.toml")


def test_jobs_outlive_the_hub_and_processes_of_a_laptop_do_not(tmp_path):
    jobs = {"kind": "slurm", "profiles": {"p": {"partition": "p"}}}
    assert told({"servers": jobs}, tmp_path)["JupyterHub.cleanup_servers"] is False
    assert told({"servers": jobs}, tmp_path)["JupyterHub.spawner_class"] == "phidias_hub.spawner.SlurmServer"
    assert told({}, tmp_path)["JupyterHub.cleanup_servers"] is True


def test_every_server_is_told_its_site(tmp_path):
    for servers in ({}, {"kind": "slurm", "profiles": {"p": {"partition": "p"}}}):
        given = told({"servers": servers}, tmp_path)["Spawner.environment"]
        assert given["PHIDIAS_SITE"] == str(tmp_path / "site.toml")


def test_neither_administrators_nor_the_culler_may_enter_servers(tmp_path):
    given = told(
        {"login": {"admins": ["ada"]}, "servers": {"idle_minutes": 9}}, tmp_path, PHIDIAS_CULLER_TOKEN="t" * 40
    )
    assert {role["name"] for role in given["JupyterHub.load_roles"]} == {"operator", "idle-culler"}
    for role in given["JupyterHub.load_roles"]:
        assert not {s.split("!")[0] for s in role["scopes"]} & {
            "access:servers",
            "admin:users",
            "admin:auth_state",
            "tokens",
        }
    assert not any(name.endswith("admin_users") for name in given)


def test_a_running_hub_lets_the_culler_see_and_stop_servers_and_nothing_more(laptop, start_hub):
    file, address, variables = laptop
    text = file.read_text().replace(
        '[login]\nkind = "one-time"', f'[login]\nkind = "one-time"\nadmins = ["{local.person()}"]'
    )
    file.write_text(text.replace('kind = "local"', 'kind = "local"\nidle_minutes = 30', 1))
    assert "idle_minutes" in file.read_text()
    token = "0123456789abcdef" * 4
    hub = start_hub(file, address, PHIDIAS_CULLER_TOKEN=token, **variables)
    asked = {"headers": {"Authorization": f"token {token}"}, "timeout": 30}
    users = requests.get(f"{address}/hub/api/users", **asked)
    assert users.status_code == 200
    assert requests.post(f"{address}/hub/api/users/mallory", **asked).status_code == 403
    assert requests.get(f"{address}/hub/metrics", **asked).status_code == 403
    # The administrator sees the page for administrators.
    visitor = hub.visitor()
    visitor.log_in(local.person(), hub.password())
    assert visitor.look("/hub/admin").status_code == 200
    assert rules.faults(site.read(file), {}) == []


def test_the_proxy_can_be_started_again_while_the_hub_runs(tmp_path, refused_hub):
    """What its unit calls first finds the state folder claimed by the hub."""
    file, state = tmp_path / "site.toml", tmp_path / "state"
    file.write_text(f'name = "x"\n[hub]\nproxy = "apart"\nstate = "{state}"\n')
    (_, _, _, *before) = parsed(HUB_CONFIG / "systemd" / "phidias-proxy.service")["Service"]["ExecStartPre"].split()
    state.mkdir(0o700)
    with open(state / "running", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = refused_hub(file, *before, CONFIGPROXY_AUTH_TOKEN="t" * 64)
        assert done.returncode == 0, done.stderr
        assert (state / "certificates" / "proxy-client" / "proxy-client.crt").is_file()
        done = refused_hub(file, CONFIGPROXY_AUTH_TOKEN="t" * 64)
    assert done.returncode == 1
    assert "The hub of this site runs already" in done.stderr
