"""What every test may ask for."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def needs():
    """``needs("octave-cli")``: the test goes on where the program is installed.

    Elsewhere it is skipped with the reason, and it fails in continuous integration, where nothing may be left out.
    """

    def need(program: str) -> str:
        path = shutil.which(program)
        if path:
            return path
        if os.environ.get("CI"):
            pytest.fail(f"This run must test everything, but the system package of {program} is not installed.")
        pytest.skip(f"not run: needs the system package {program}")

    return need
