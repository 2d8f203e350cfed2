"""The unit that stops servers nobody uses: `python -m phidias_hub.idle`, for the site in PHIDIAS_SITE.

A server ends itself after `servers.idle_minutes`, with a warning to its user. This is the second line, for servers that
did not: it waits longer by the warning and a margin, so the user is always told first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from phidias_hub.rules import Secrets
from phidias_hub.site import SiteError, read

#: Minutes that a server gets to end itself before it is stopped from outside.
MARGIN = 10
#: Seconds between two looks.
EVERY = 60


def command(site: Mapping[str, Any]) -> list[str]:
    """The culler's call for a site."""
    servers = site["servers"]
    if not servers["idle_minutes"]:
        raise SiteError("servers.idle_minutes is 0: servers of this site are never stopped. Disable this unit.")
    seconds = 60 * (servers["idle_minutes"] + servers["warn_minutes"] + MARGIN)
    return [
        *(sys.executable, "-m", "jupyterhub_idle_culler"),
        f"--url={site['hub']['url'].rstrip('/')}/hub/api",
        f"--timeout={seconds}",
        f"--cull-every={EVERY}",
    ]


def main() -> int:
    try:
        if not (named := os.environ.get("PHIDIAS_SITE")):
            raise SiteError("PHIDIAS_SITE does not name the site file.")
        call = command(read(named))
        token = Secrets(os.environ).get(Secrets.CULLER)
        if token is None:
            raise SiteError("The culler's token is missing: PHIDIAS_CULLER_TOKEN, or the credential culler-token.")
    except SiteError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    os.execve(call[0], call, {**os.environ, "JUPYTERHUB_API_TOKEN": token})


if __name__ == "__main__":
    sys.exit(main())
