"""The program of a user's server: JupyterHub's own, patient with a hub that is away, and quicker to start.

A job carries the text of this file along.
"""

import asyncio
import sys
from types import ModuleType

# Slow to import and optional where they are: checks of formats in JSON that nothing here asks for, and httpx's command.
sys.modules |= dict.fromkeys(("rfc3987_syntax", "rfc3986_validator", "isoduration", "httpx._main"))


class Absent(ModuleType):
    """Stands in for alembic while JupyterHub is imported: it upgrades the hub's database, and a server has none."""

    def __getattr__(self, name):
        return Absent(name)


absent = ("alembic", "alembic.command", "alembic.config", "alembic.script")
sys.modules |= {name: Absent(name) for name in absent}

import aiohttp  # noqa: E402  all of them after the lines above
from jupyterhub.services import auth  # noqa: E402
from jupyterhub.singleuser import main  # noqa: E402
from jupyterhub.singleuser.extension import JupyterHubSingleUser  # noqa: E402
from jupyterlab import commands  # noqa: E402

for name in absent:
    del sys.modules[name]

#: How long a request waits for a hub that is away, in seconds: a restart takes a few.
PATIENCE = 30
#: Answers that are none: of a hub that is just ending, or of something between.
AWAY = (502, 503, 504)

ask = auth.fetch


async def ask_again(url, **question):
    """Who somebody is, asked until the hub answers: JupyterHub's server refuses everybody it does not know meanwhile.

    What the hub answers holds at once, a refusal too.
    """
    now = asyncio.get_running_loop().time
    until, pause = now() + PATIENCE, 0.1
    while True:
        try:
            async with asyncio.timeout_at(until):
                answer = await ask(url, **question)
            if answer.status not in AWAY or now() + pause > until:
                return answer
            answer.release()
        except (aiohttp.ClientConnectionError, OSError):
            if now() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1)


async def unasked(self):
    """JupyterHub ends a server that starts while the hub is away; ours waits. The hub itself compares the versions."""


auth.fetch = ask_again
JupyterHubSingleUser.check_hub_version = unasked
# JupyterLab starts Node.js only to ask where yarn would get packages; nothing is built here.
commands._yarn_config = lambda logger: {"yarn config": {}, "npm config": {}}
main()
