"""One writer at a time: a lock on a file that the operating system gives back when its holder dies."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from phidias_lab.errors import ProductError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


@contextlib.contextmanager
def lock(path: str | Path, *, what: str, timeout: float = 600.0) -> Iterator[None]:
    """Hold the lock file `path`; wait up to `timeout` seconds for another holder. The file itself stays behind, empty."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ProductError(
            f"{what} cannot be written: {path} cannot be created ({error.strerror}). Choose a folder you may write to."
        ) from None
    try:
        end = time.monotonic() + timeout
        while fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ProductError(
                        f"{what} is being written by another process for more than {timeout:g} s. Try again later."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)
