"""Folders for socket files, one per Jupyter server, which go when their server goes. Imports nothing heavy.

A server that is killed cannot clean up, so the next one does it. Who lives is told by a lock on the folder itself: the
system drops it with the process, in whatever way that ends, and it holds between containers that share the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "phidias-dashboards-"
#: Bytes that the address of a socket may have; Linux allows 107, macOS 103.
LONGEST = 100


def folder() -> Path:
    """A new folder that only the user can enter; it is removed when this process ends."""
    sweep()
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_places()[0]))
        lock = _lock(made)
        if lock is None:  # another server's sweep was here between the making and the lock
            continue
        atexit.register(_remove, made, os.getpid())
        return made


def sweep() -> list[Path]:
    """Remove the folders of servers that are gone; returns them."""
    gone = []
    for old in _left():
        lock = _lock(old)
        if lock is not None:
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)
            gone.append(old)
    return gone


def _places() -> list[Path]:
    """Where socket folders may lie, the best place first: the system's own for it, else that of temporary files."""
    asked = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    places = [Path(place) for place in asked if place and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)]
    room = LONGEST - len(PREFIX + "12345678/phidias-0123456789ab") - 1
    return [place for place in places if len(os.fsencode(place)) <= room] or places


def _left() -> Iterator[Path]:
    for place in dict.fromkeys(_places()):
        for old in sorted(place.glob(PREFIX + "*")):
            with contextlib.suppress(OSError):
                if old.lstat().st_uid == os.getuid() and old.is_dir() and not old.is_symlink():
                    yield old


def _lock(place: Path) -> int | None:
    """Lock a folder for as long as this process lives, or None when another process holds it or it is gone."""
    import fcntl

    try:
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(place)):
            return held
    os.close(held)
    return None


def _remove(made: Path, owner: int) -> None:
    # A child that was forked without exec runs the same farewell, and must leave the folder to its parent.
    if os.getpid() == owner:
        shutil.rmtree(made, ignore_errors=True)
