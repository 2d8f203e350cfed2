"""How the hub's SQLite database is written: each log-in and start is a dozen commits, and not each waits for the disk."""

from __future__ import annotations

import sqlite3
from typing import Any


class Connection(sqlite3.Connection):
    """A connection that writes ahead into a log, which reaches the disk at its checkpoints.

    The death of the hub loses nothing. A power cut may take back the last moments as a whole; the jobs of servers that were
    started in them belong to nobody then and are cancelled. See docs/decisions/0013-many-people-at-once.md.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Where the file system does not allow a log, the usual way stays, and with it the wait.
        if self.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",):
            self.execute("PRAGMA synchronous=NORMAL")
