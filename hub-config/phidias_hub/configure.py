"""From a site to JupyterHub's settings.

`settings` is a pure function: a site and the environment's variables in, a dictionary of settings out. `configure` checks
the rules, makes the state folder, and applies them; it is all that `jupyterhub_config.py` calls.

Beside the site file, three variables of the environment move a laptop's hub to free ports: PHIDIAS_HUB_PORT,
PHIDIAS_HUB_INTERNAL_PORT and PHIDIAS_HUB_PROXY_API_PORT; `make lab PORT=...` uses them.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pwd
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from phidias_hub import local, proxy, rules
from phidias_hub.database import Connection
from phidias_hub.port import HANDLERS
from phidias_hub.rules import Secrets
from phidias_hub.site import HUB_CONFIG, SiteError, read
from phidias_hub.start_server import JUPYTERLAB

#: What users see first of the lab's dashboards: their own server answers, behind their own log-in.
DASHBOARDS = "hub/user-redirect/phidias/"
_PORTS = {
    "PHIDIAS_HUB_INTERNAL_PORT": "internal_port",
    "PHIDIAS_HUB_PROXY_API_PORT": "proxy_api_port",
}
#: What a site's administrators may do. Not among it: entering users' servers, as JupyterHub's own admins may.
OPERATOR_SCOPES = ["admin-ui", "list:users", "read:users", "read:servers", "servers", "read:hub", "read:metrics"]
CULLER_SCOPES = ["list:users", "read:users:activity", "read:servers", "delete:servers"]


def placed(site: dict, environment: Mapping[str, str]) -> dict:
    """The site with the ports that the environment names; only where the hub serves one machine."""
    hub = dict(site["hub"])
    if site["servers"]["kind"] != "local":
        return site
    if port := environment.get("PHIDIAS_HUB_PORT"):
        scheme, _, rest = hub["url"].partition("://")
        host, _, path = rest.partition("/")
        place = f"{scheme}://{re.sub(r':[0-9]+$', '', host)}:{_port('PHIDIAS_HUB_PORT', port)}"
        # Cookies know no ports: with one path for all, to log in at a second hub of this machine would log out of the first.
        hub["url"] = "/".join([place, *filter(None, path.split("/")), port])
        hub.pop("listen", None)
    for variable, key in _PORTS.items():
        if port := environment.get(variable):
            hub[key] = _port(variable, port)
    return {**site, "hub": hub}


def _port(variable: str, value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= 65535:
        raise SiteError(f"{variable} is {value!r}, which is no port. Give a whole number from 1 to 65535.")
    return int(value)


def state_folder(site: Mapping[str, Any], environment: Mapping[str, str]) -> Path:
    """Where the hub keeps what outlives a restart."""
    if named := site["hub"].get("state"):
        return Path(named)
    base = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME") or Path.home()) / ".local" / "state"
    # Two hubs of one person must not share a database.
    return Path(base) / "phidias-hub" / f"{site['name']}-{rules.listening(site)[1]}"


def settings(
    site: Mapping[str, Any], environment: Mapping[str, str], *, state: Path, site_file: Path
) -> dict[str, Any]:
    """JupyterHub's settings for a site, as {"Class.trait": value}."""
    secrets = Secrets(environment)
    return {
        **_hub(site, state),
        **_proxy(site, state, secrets),
        **_login(site, secrets),
        **_servers(site, site_file, environment),
        **_rights(site, secrets),
    }


def _hub(site: Mapping[str, Any], state: Path) -> dict[str, Any]:
    hub = site["hub"]
    scheme = "https" if hub["internal_tls"] else "http"
    inner = hub["internal_address"]
    bound = inner if rules.is_loopback(inner) else "0.0.0.0"
    secure = hub["url"].startswith("https://")
    told: dict[str, Any] = {
        "JupyterHub.bind_url": _bind_url(site),
        "JupyterHub.public_url": hub["url"].rstrip("/") + "/",
        "JupyterHub.hub_bind_url": f"{scheme}://{bound}:{hub['internal_port']}",
        "JupyterHub.hub_connect_url": f"{scheme}://{inner}:{hub['internal_port']}",
        "JupyterHub.db_url": f"sqlite:///{state / 'jupyterhub.sqlite'}",
        # Another process may hold the database for a moment, a backup for one.
        "JupyterHub.db_kwargs": {"connect_args": {"timeout": 30, "factory": Connection}},
        "JupyterHub.cookie_secret_file": str(state / "cookie-secret"),
        # A page of a user's server on the same host cannot set this hub's cookies (GHSA-7r3h-4ph8-w38g).
        "JupyterHub.cookie_host_prefix_enabled": secure,
        "JupyterHub.tornado_settings": {"cookie_options": {"samesite": "Lax", "secure": secure}},
        "JupyterHub.internal_ssl": hub["internal_tls"],
        "JupyterHub.internal_certs_location": str(state / "certificates"),
        # After a restart the hub looks after each server; after a second it answers meanwhile.
        "JupyterHub.init_spawners_timeout": 1,
        # JupyterHub counts those who wait in Slurm's queue too, and sends everybody else away with an error. What has to
        # be bounded is bounded by turns (`Queue.run_as`), where people wait on a page that says so.
        "JupyterHub.concurrent_spawn_limit": 0,
        "JupyterHub.allow_named_servers": False,
        "JupyterHub.authenticate_prometheus": True,
        "JupyterHub.template_paths": [str(HUB_CONFIG / "phidias_hub" / "templates")],
        "JupyterHub.template_vars": {
            "site_title": site.get("title") or site["name"],
            "dashboards": proxy.base_path(site) + DASHBOARDS,
            "login_kind": site["login"]["kind"],
            "queued": site["servers"]["kind"] == "slurm",
        },
        # Jobs of users outlive the hub; processes of a laptop end with it.
        "JupyterHub.cleanup_servers": site["servers"]["kind"] == "local",
    }
    if hub["internal_tls"]:
        kind = "IP" if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]+", inner) else "DNS"
        told["JupyterHub.trusted_alt_names"] = [f"{kind}:{inner}"]
    return told


def _bind_url(site: Mapping[str, Any]) -> str:
    _, port = rules.listening(site)
    scheme = "https" if site["hub"].get("certificate") else "http"
    host = rules.interface(site)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{proxy.base_path(site)}"


def _proxy(site: Mapping[str, Any], state: Path, secrets: Secrets) -> dict[str, Any]:
    hub = site["hub"]
    apart = hub["proxy"] == "apart"
    scheme = "https" if hub["internal_tls"] else "http"
    told: dict[str, Any] = {
        "JupyterHub.cleanup_proxy": not apart,
        "ConfigurableHTTPProxy.should_start": not apart,
        "ConfigurableHTTPProxy.api_url": f"{scheme}://127.0.0.1:{hub['proxy_api_port']}",
        "ConfigurableHTTPProxy.log_level": "warn",
    }
    if proxy.base_path(site) != "/":
        # Who leaves out the path is shown the way; the hub does so for everything outside of it.
        told["ConfigurableHTTPProxy.extra_routes"] = {
            "/": f"{scheme}://{hub['internal_address']}:{hub['internal_port']}"
        }
    if apart:
        told["JupyterHub.proxy_class"] = "phidias_hub.routes.ProxyApart"
        told["ConfigurableHTTPProxy.auth_token"] = secrets.get(Secrets.PROXY) or ""
    else:
        told["ConfigurableHTTPProxy.command"] = proxy.command()
        # JupyterHub's own place is the folder it is started in, where another hub would take this proxy for a left-over.
        told["ConfigurableHTTPProxy.pid_file"] = str(state / "proxy.pid")
    if hub.get("certificate"):
        told |= {"JupyterHub.ssl_cert": hub["certificate"], "JupyterHub.ssl_key": hub["certificate_key"]}
    return told


def _login(site: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    login = site["login"]
    users, group = set(login["users"]), login.get("group", "")
    if login["kind"] == "one-time":
        return {
            "JupyterHub.authenticator_class": "phidias_hub.login.OneTimePassword",
            "OneTimePassword.person": local.person(),
        }
    if login["kind"] == "demo":
        return {
            "JupyterHub.authenticator_class": "jupyterhub.authenticators.shared.SharedPasswordAuthenticator",
            "SharedPasswordAuthenticator.user_password": secrets.get(Secrets.DEMO),
            "SharedPasswordAuthenticator.allowed_users": users,
        }
    if login["kind"] == "pam":
        return {
            "JupyterHub.authenticator_class": "phidias_hub.login.Accounts",
            "Accounts.allowed_users": users,
            # Names, where they are given, are the whole list.
            "Accounts.allowed_groups": {group} if group and not users else set(),
            "Accounts.open_sessions": False,
            "Accounts.create_system_users": False,
        }
    oidc = login["oidc"]
    return {
        "JupyterHub.authenticator_class": "phidias_hub.federated.Federated",
        "Federated.login_service": oidc["title"],
        "Federated.client_id": oidc["client_id"],
        "Federated.client_secret": secrets.get(Secrets.OIDC) or "",
        "Federated.authorize_url": oidc["authorize_url"],
        "Federated.token_url": oidc["token_url"],
        "Federated.userdata_url": oidc["userdata_url"],
        "Federated.oauth_callback_url": site["hub"]["url"].rstrip("/") + "/hub/oauth_callback",
        "Federated.scope": oidc["scope"],
        "Federated.username_claim": oidc["username_claim"],
        "Federated.accounts": oidc["accounts"],
        "Federated.groups_claim": oidc.get("groups_claim", ""),
        "Federated.only_groups": dict.fromkeys(oidc["allowed_groups"], True),
        "Federated.only_users": dict.fromkeys(users, True),
        "Federated.only_known": not (users or group or oidc["allowed_groups"]),
        "Federated.unix_group": group,
        # Jobs run under the account; a laptop's server runs as its one person, whatever the name.
        "Federated.need_account": site["servers"]["kind"] == "slurm",
    }


def _servers(site: Mapping[str, Any], site_file: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    servers = site["servers"]
    variables = {"PHIDIAS_SITE": str(site_file)}
    if lake := site.get("lake"):
        variables["PHIDIAS_LAKE"] = lake
    told: dict[str, Any] = {"Spawner.environment": variables, "Spawner.start_timeout": servers["start_timeout"]}
    if servers["kind"] == "local":
        folder = environment.get("PHIDIAS_HUB_FOLDER", "")
        # One person, whose own word goes before the site's.
        variables["PHIDIAS_WORKSPACE"] = environment.get("PHIDIAS_WORKSPACE") or folder or servers["workspace"]
        extra = environment.get("PHIDIAS_HUB_SERVER_CONFIGURATION", "")
        return told | {
            "JupyterHub.spawner_class": "phidias_hub.local.LocalServer",
            "LocalServer.person": local.person(),
            # -P: the modules of the hub beside that file are none of the server's.
            "LocalServer.cmd": [sys.executable, "-P", str(HUB_CONFIG / "phidias_hub" / "server.py")],
            "LocalServer.args": list(JUPYTERLAB),
            "LocalServer.ip": "127.0.0.1",
            "LocalServer.folder": folder,
            "LocalServer.notebook_dir": folder,
            "LocalServer.default_url": environment.get("PHIDIAS_HUB_ENTRANCE", "/lab"),
            "LocalServer.configuration": [extra] if extra else [],
        }
    variables["PHIDIAS_WORKSPACE"] = servers["workspace"]
    if configuration := site["slurm"].get("configuration"):
        variables["SLURM_CONF"] = configuration
    return told | {
        "JupyterHub.spawner_class": "phidias_hub.spawner.SlurmServer",
        "SlurmServer.site": dict(site),
        "JupyterHub.extra_handlers": HANDLERS,
        "Spawner.default_url": "/lab",
        # The hub gives up only after the longest wait in the queue; the spawner itself counts the start alone.
        "Spawner.start_timeout": servers["start_timeout"] + servers["queue_timeout"],
        "Spawner.http_timeout": servers["start_timeout"],
    }


def _rights(site: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    """Roles beside JupyterHub's own, each with no more than its task needs."""
    roles, services = [], []
    if admins := site["login"]["admins"]:
        roles.append({"name": "operator", "scopes": OPERATOR_SCOPES, "users": list(admins)})
    idle = site["servers"]["idle_minutes"]
    token = secrets.get(Secrets.CULLER)
    if idle and token:
        services.append({"name": "idle-culler", "api_token": token})
        roles.append({"name": "idle-culler", "scopes": CULLER_SCOPES, "services": ["idle-culler"]})
    return {"JupyterHub.load_roles": roles, "JupyterHub.services": services}


def make_state(folder: Path) -> None:
    """The state folder, for its owner alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise SiteError(
            f"The state folder {folder} cannot be made: {error.strerror}. Name another one in hub.state."
        ) from None


def claim(state: Path) -> None:
    """One hub for a state folder, until this process ends: a second one would end the first one's proxy."""
    # Never closed, and so locked, while this process lives.
    lock = os.open(state / "running", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(lock, 20).decode().strip()
        os.close(lock)
        raise SiteError(
            f"The hub of this site runs already, as process {who}, with the state folder {state}. Stop it first; a second "
            "hub needs another hub.state and other ports."
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())


def configure(c: Any, environment: Mapping[str, str]) -> None:
    """Apply the site that PHIDIAS_SITE names to JupyterHub's configuration `c`, or end with all that is wrong."""
    try:
        told = prepared(environment)
        # Everything the hub writes is for its own user alone.
        os.umask(0o077)
        if not {"token", "--generate-certs"} & set(sys.argv[1:2]):  # both are made beside the hub that runs
            claim(Path(told["JupyterHub.cookie_secret_file"]).parent)
    except SiteError as error:
        sys.exit(f"Error: {error}")
    for name, value in told.items():
        section, trait = name.split(".")
        c[section][trait] = value
    # Pages that are open know by it that the hub was started again, since what they were listening to has ended silently.
    started = token_hex(8)
    c.JupyterHub.tornado_settings["headers"] = {"X-Phidias-Hub": started}
    c.JupyterHub.template_vars["hub_started"] = started


def prepared(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the site in the environment, whose state folder is made."""
    _, state, told = planned(environment)
    make_state(state)
    return told


def planned(environment: Mapping[str, str], uid: int = -1) -> tuple[Path, Path, dict[str, Any]]:
    """The site file that the environment names, its state folder and settings; refused with every broken rule when there is
    one. Nothing is written. `uid` is the hub's own where another account asks."""
    named = environment.get("PHIDIAS_SITE")
    if not named:
        raise SiteError(
            f"PHIDIAS_SITE names no site file. For a laptop: PHIDIAS_SITE={HUB_CONFIG / 'sites' / 'laptop.toml'}"
        )
    site_file = Path(named).absolute()
    site = placed(read(site_file), environment)
    state = state_folder(site, environment)
    if broken := rules.faults(site, environment, site_file=site_file, uid=uid):
        numbered = "".join(f"\n  - {sentence}" for sentence in broken)
        raise SiteError(f"The hub of {site_file} does not start:{numbered}")
    return site_file, state, settings(site, environment, state=state, site_file=site_file)


def check(environment: Mapping[str, str], words: list[str]) -> int:
    """Say whether the hub would start: 0, or 1 with all that keeps it from it."""
    parser = argparse.ArgumentParser(
        prog="python -m phidias_hub.hub check",
        description="Check the site file that PHIDIAS_SITE names. Nothing is started or written.",
    )
    parser.add_argument("--user", help="account of the hub, where another one checks (root)")
    asked = parser.parse_args(words)
    try:
        site_file, _, told = planned(environment, _uid(asked.user) if asked.user else -1)
    except SiteError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{site_file} is in order: its hub would start, at {told['JupyterHub.public_url']}")
    return 0


def _uid(account: str) -> int:
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        raise SiteError(f"This machine has no account {account!r}. Name the one that the hub runs as.") from None
