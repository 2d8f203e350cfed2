"""`python -m phidias_lab.services` is the command `phidias`, for places where the script is not on the path."""

from __future__ import annotations

import sys

from phidias_lab.services.command_line import main

sys.exit(main())
