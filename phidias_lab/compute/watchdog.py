"""Ends the jobs of a cluster whose owner died without a word: `python -m phidias_lab.compute.watchdog FOLDER`.

A kernel that is killed cannot cancel its jobs. This process, in a session of its own, outlives it by the moment that takes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from phidias_lab.compute import keys, slurm
from phidias_lab.compute.runs import read_json

_PERIOD = 0.5
_PATIENCE = 120.0  # seconds in which a Slurm that does not answer is asked again
_BEAT = 15.0


def main(folder: Path) -> None:
    asked_to_end = threading.Event()
    # Slurm ends a job with SIGTERM to all its processes, so the owner is about to be killed too.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.set())
    about, beat = read_json(folder / "about.json"), 0.0
    while not asked_to_end.is_set() and keys.owner_lives(folder, about):
        if not folder.is_dir():  # the owner ended it
            return
        if time.monotonic() - beat > _BEAT:
            with contextlib.suppress(OSError):
                os.utime(folder / "alive")
            beat = time.monotonic()
        asked_to_end.wait(_PERIOD)
    if not folder.is_dir():
        return
    last = time.monotonic() + _PATIENCE
    while time.monotonic() < last and not keys.end(folder, about):
        time.sleep(1.0)
    # A submission may have been under way when the owner died.
    if about.get("kind") == "slurm":
        for _ in range(3):
            time.sleep(1.0)
            with contextlib.suppress(slurm.QueueError):
                slurm.Slurm({"slurm": about["slurm"]}).cancel_named(folder.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
