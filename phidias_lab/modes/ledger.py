"""What was done with each input of a stream: one small file per input, so that each is done once, whoever is killed when.

    <ledger>/
      stream.json          what the stream is
      entries/<key>.json   an input: claimed, done, skipped or refused; its run, its owner, what there is to say
      owners/<token>       held locked by a process while it lives
      hooks/               see modes/hooks.py

An entry is claimed before its run begins and settled after everything that follows from the run is in place. A claim belongs
to a process; the operating system gives its lock back when it dies, on whichever host of the file system, and whoever comes
next takes the claim over with its run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phidias_lab.compute import runs
from phidias_lab.errors import PhidiasError

CLAIMED, DONE, REFUSED, SKIPPED = "claimed", "done", "refused", "skipped"
SETTLED = (DONE, REFUSED, SKIPPED)


def key(*identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, default=str, sort_keys=True).encode()).hexdigest()[:32]


class Ledger:
    """The ledger in a folder, opened by one of any number of processes."""

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.folder, self.about, self.token = folder, dict(about), secrets.token_hex(8)
        try:
            for name in ("entries", "owners"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            with runs.alone_in(folder):
                if not (folder / "stream.json").exists():
                    runs.write_json(folder / "stream.json", self.about)
                self._held = open(folder / "owners" / self.token, "xb")  # noqa: SIM115  held until it is closed
                with contextlib.suppress(OSError):
                    fcntl.flock(self._held, fcntl.LOCK_EX)
                for owner in (folder / "owners").iterdir():
                    if not self._lives(owner.name):
                        owner.unlink(missing_ok=True)
        except OSError as error:
            if isinstance(error, PhidiasError):
                raise
            raise runs.unwritable(folder, error) from None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / "owners" / self.token).unlink(missing_ok=True)
        self._held.close()

    def _lives(self, owner: str | None) -> bool:
        """Whether the owner of a claim lives. Where the file system has no locks nobody knows, and it counts as alive."""
        if owner is None:
            return False
        if owner == self.token:
            return True
        try:
            with open(self.folder / "owners" / owner, "rb") as found:
                fcntl.flock(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def _file(self, name: str) -> Path:
        return self.folder / "entries" / f"{name}.json"

    def get(self, name: str) -> dict:
        """The entry of that key; empty where there is none."""
        return runs.read_json(self._file(name))

    def entries(self) -> Iterator[tuple[str, dict]]:
        for path in (self.folder / "entries").glob("[!.]*.json"):
            yield path.stem, runs.read_json(path)

    def claim(self, name: str, **more: Any) -> dict | None:
        """The entry of an input if this process may work on it now; None where it is settled, or somebody is at it."""
        with runs.alone_in(self.folder):
            entry = self.get(name)
            if entry.get("state") in SETTLED or self._lives(entry.get("owner")):
                return None
            entry = {**more, "since": runs.now(), **entry, "state": CLAIMED, "owner": self.token}
            runs.write_json(self._file(name), entry)
            return entry

    def note(self, name: str, **more: Any) -> None:
        """Add to an entry that this process has claimed."""
        runs.write_json(self._file(name), {**self.get(name), **more})

    def settle(self, name: str, state: str, **more: Any) -> None:
        self.note(name, state=state, owner=None, settled=runs.now(), **more)

    def forget(self, name: str) -> None:
        """Make a refused input a new one."""
        with runs.alone_in(self.folder):
            if self.get(name).get("state") == REFUSED:
                self._file(name).unlink(missing_ok=True)

    def release(self, name: str, **more: Any) -> None:
        """Give a claim back for the next process."""
        self.note(name, owner=None, **more)
