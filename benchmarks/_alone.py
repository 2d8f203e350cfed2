"""A measurement in a process of its own, so that its memory and its threads are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def in_own_process(script: str, *given: object, **environment: str) -> dict:
    """What a script prints as its last line, JSON; it finds this very package, and says what went wrong."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(Path(script).resolve()), *map(str, given)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path} | environment, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The measurement {given} stopped with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
