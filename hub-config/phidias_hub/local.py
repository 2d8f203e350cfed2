"""The server of a laptop: a process of the person who started the hub, and of nobody else."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
from pathlib import Path
from typing import Any

from jupyterhub.spawner import SimpleLocalProcessSpawner
from tornado import web
from traitlets import List, Unicode, default

#: Variables that hold secrets of the hub; no server gets them.
SECRETS = (
    "CONFIGPROXY_AUTH_TOKEN",
    "CREDENTIALS_DIRECTORY",
    "JPY_COOKIE_SECRET",
    "JUPYTERHUB_CRYPT_KEY",
    "PHIDIAS_CULLER_TOKEN",
    "PHIDIAS_DEMO_PASSWORD",
    "PHIDIAS_HUB_TERMINAL",
    "PHIDIAS_OIDC_SECRET",
)


def person() -> str:
    """The name of whoever runs this process, as JupyterHub can use it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        name = "me"
    name = re.sub(r"[^a-z0-9_-]", "-", name.lower()).strip("-")[:32]
    return name if re.match(r"[a-z_]", name) else "me"


class LocalServer(SimpleLocalProcessSpawner):
    """A server of the hub's own user. Everybody else is refused: they would get this user's files."""

    person = Unicode(help="The only user who may have a server.", config=True)
    folder = Unicode(help="Folder the server starts in.", config=True)
    configuration = List(Unicode(), help="Configuration files for the server.", config=True)

    @default("person")
    def _default_person(self) -> str:
        return person()

    @default("home_dir")
    def _default_home_dir(self) -> str:
        return str(Path.home())

    def make_preexec_fn(self, name: str) -> Any:
        return None

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        # It is the same person on the same machine: what holds in the terminal holds in the server.
        return {k: v for k, v in os.environ.items() if k not in SECRETS} | env

    def get_args(self) -> list[str]:
        said = [*super().get_args(), *(f"--config={file}" for file in self.configuration)]
        # In a container there is often no other user than root; the server is reached from this machine alone.
        return [*said, "--allow-root"] if os.geteuid() == 0 else said

    async def start(self) -> Any:
        if self.user.name != self.person:
            raise web.HTTPError(
                403,
                f"This hub starts servers for {self.person} alone: they run as that user, with that user's files. "
                'A hub for several people needs a site with servers.kind = "slurm".',
            )
        # What a server writes is for the hub's log, not for the terminal.
        self.popen_kwargs = {
            "stdin": -3,
            "stdout": 2,
            **({"cwd": self.folder} if self.folder else {}),
            **self.popen_kwargs,
        }
        address = await super().start()
        await self._answers()
        return address

    async def _answers(self) -> None:
        """Wait until something listens on the server's port; a server that has ended is told at once."""
        while True:
            if (code := await self.poll()) is not None:
                self.pid = 0
                raise web.HTTPError(
                    500, f"JupyterLab ended with exit code {code} before it answered. The log of the hub tells why."
                )
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return
