"""The hub: `python -m phidias_hub.hub`, for the site in PHIDIAS_SITE.

With the word `check` it only says whether it would start; its other words are JupyterHub's, upgrade-db for one. It is
JupyterHub with the configuration beside it, without what makes up most of its start and is used by nobody here.
"""

import importlib.metadata
import os
import sys
from pathlib import Path

# Compiles a grammar at its import, half of the start, for a check of internationalized addresses in JSON that nothing here
# asks for; jsonschema goes on without it.
sys.modules["rfc3987_syntax"] = None

HUB_CONFIG = Path(__file__).resolve().parents[1]
WORDS = ("check", "token", "upgrade-db")
word = next(iter(sys.argv[1:]), "-")
if word == "check" or not (word.startswith("-") or word in WORDS):
    sys.path.insert(0, str(HUB_CONFIG))
    from phidias_hub.configure import check
    from phidias_hub.site import nearest

    if word == "check":
        sys.exit(check(os.environ, sys.argv[2:]))
    # JupyterHub would not look at it, and start.
    sys.exit(f"Error: The hub has no word {word!r}. {nearest(word, WORDS)}")

find = importlib.metadata.entry_points


def without_choices(**wanted):
    """JupyterHub imports all authenticators, spawners and proxies there are, for its help; ours are named in full."""
    if str(wanted.get("group")).startswith("jupyterhub."):
        return importlib.metadata.EntryPoints()
    return find(**wanted)


importlib.metadata.entry_points = without_choices

from jupyterhub.app import main  # noqa: E402  after the lines above

main([*sys.argv[1:], "-f", str(HUB_CONFIG / "jupyterhub_config.py")])
