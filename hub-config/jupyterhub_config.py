"""JupyterHub's configuration: everything comes from the site file that PHIDIAS_SITE names. See phidias_hub/configure.py."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from phidias_hub.configure import configure

configure(get_config(), os.environ)  # noqa: F821  JupyterHub puts get_config there
