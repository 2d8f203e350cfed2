"""The hub's database: written ahead, closed to others, and as safe as before where that cannot be."""

from __future__ import annotations

import sqlite3

import requests
from phidias_hub.database import Connection


def test_a_commit_does_not_wait_for_the_disk_and_a_power_cut_leaves_a_whole_database(tmp_path):
    connection = sqlite3.connect(tmp_path / "a.sqlite", factory=Connection)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    connection.close()


def test_without_a_log_each_commit_waits_for_the_disk():
    connection = sqlite3.connect(":memory:", factory=Connection)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("memory",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_a_running_hub_writes_ahead_into_files_that_nobody_else_can_read(laptop, start_hub):
    site, address, variables = laptop
    hub = start_hub(site, address, **variables)
    assert requests.get(f"{address}/hub/api/", timeout=30).status_code == 200
    (database,) = hub.folder.rglob("jupyterhub.sqlite")
    files = sorted(database.parent.glob("jupyterhub.sqlite*"))
    assert [file.name for file in files] == ["jupyterhub.sqlite", "jupyterhub.sqlite-shm", "jupyterhub.sqlite-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    # What the manual says of a backup while the hub runs.
    copy = sqlite3.connect(hub.folder / "copy.sqlite")
    with sqlite3.connect(database) as original:
        original.backup(copy)
    assert copy.execute("SELECT count(*) FROM roles").fetchone()[0] > 3
