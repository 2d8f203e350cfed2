"""`python -m phidias_lab` is the command `phidias`."""

import sys

from phidias_lab.services.command_line import main

if __name__ == "__main__":
    sys.exit(main())
