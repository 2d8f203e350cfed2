"""The hub: `python -m phidias_hub.hub`, for the site in PHIDIAS_SITE. Its words are JupyterHub's: upgrade-db, for one.

It is JupyterHub with the configuration beside it, without what makes up most of its start and is used by nobody here.
"""

import importlib.metadata
import sys
from pathlib import Path

# Compiles a grammar at its import, half of the start, for a check of internationalized addresses in JSON that nothing here
# asks for; jsonschema goes on without it.
sys.modules["rfc3987_syntax"] = None

find = importlib.metadata.entry_points


def without_choices(**wanted):
    """JupyterHub imports all authenticators, spawners and proxies there are, for its help; ours are named in full."""
    if str(wanted.get("group")).startswith("jupyterhub."):
        return importlib.metadata.EntryPoints()
    return find(**wanted)


importlib.metadata.entry_points = without_choices

from jupyterhub.app import main  # noqa: E402  after the lines above

main([*sys.argv[1:], "-f", str(Path(__file__).resolve().parents[1] / "jupyterhub_config.py")])
