"""On the flow: each file that arrives in a folder becomes one run of a chain, exactly once, and its events are told.

>>> phidias_lab.watch("/data/arriving", "atmosphere.screening", pattern="*.nc")    # doctest: +SKIP

A file has arrived when its size and time have stayed the same for a while. What is done with it is told in modes/stream.py;
here its events are handed to the hooks as well, before the ledger says done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phidias_lab.contract.chain import Chain
from phidias_lab.modes import hooks as hooks_file
from phidias_lab.modes.stream import Arrived, Stream


def watch(folder: str | Path, chain: str | Chain | type[Chain], *, once: bool = False, **how: Any) -> None:
    """Run a chain on each file that arrives in a folder or at an fsspec address, until it is stopped (Ctrl-C, SIGTERM).

    With `once` it returns when all that is there is done. `how` is what `Watch` takes: parameters, pattern, hooks, ...
    """
    with Watch(folder, chain, **how) as watching:
        watching.run(once)


class Watch(Stream):
    """A folder that is watched.

    `input` is the chain's input that each file becomes, where it has several; `inputs` are the others. `at_once` bounds the
    runs at one time, `keep_runs` how many runs that have ended keep their folder (all without it). `settle` is for how many
    seconds a file must not have changed. `hooks` is a file (see modes/hooks.py). `tell` is given a dictionary for each file
    that is done ("file", "state", "run", "events", "sentence") and for each remark ("remark").
    """

    def __init__(
        self,
        folder: str | Path,
        chain: str | Chain | type[Chain],
        *,
        hooks: str | Path | None = None,
        settle: float = 2.0,
        every: float = 1.0,
        **how: Any,
    ):
        found = hooks_file.load(hooks) if hooks is not None else {}
        super().__init__(folder, chain, **how)
        self.settle, self.every = settle, every
        self._seen: dict[str, tuple[Arrived, float]] = {}
        self._looked_for, self._unlisted = 0.0, False
        self.queues = [
            hooks_file.Queue(name, hook, self.ledger.folder / "hooks" / name, lambda text: self.tell({"remark": text}))
            for name, hook in found.items()
        ]
        for queue in self.queues:
            queue.start()

    def run(self, once: bool = False, each: Callable[[Watch], None] = lambda watching: None) -> None:
        """Watch until it is stopped, or `once` until all that is there is done. `each` is called after every look."""
        while True:
            self.step()
            each(self)
            if once and not (self.flying or self._ready or self._unsettled()):
                self._drain()
                return
            # A long list is looked at less often, so that looking takes a small part of the time.
            time.sleep(min(20.0, max(self.every, 4 * self._looked_for)))

    def step(self) -> None:
        """Look once: at the folder, at the runs that go on, and at what can be begun."""
        self._look()
        super().step()

    def close(self) -> None:
        """Stop: the runs that go on are stopped too, and the next watch resumes them."""
        super().close()
        for queue in self.queues:
            queue.stop()

    def _look(self) -> None:
        """List the folder; what has not changed for a while, and is not known, is ready, the oldest first."""
        now, seen, ready = time.monotonic(), {}, []
        try:
            for arrived in self.listed():
                if bytes.fromhex(arrived.key) in self.settled:
                    continue
                before, since = self._seen.get(arrived.address, (None, now))
                since = since if before == arrived else now
                seen[arrived.address] = (arrived, since)
                if now - since >= self.settle and arrived.key not in self.flying and arrived.key not in self.others:
                    ready.append(arrived)
        except OSError as error:  # it was there at the start, and may be again
            if not self._unlisted:
                self.tell({"remark": f"{self.address} cannot be listed: {error.strerror or error}. It is tried again."})
            self._unlisted = True
            return
        self._unlisted = False
        self._seen, self._ready, self._looked_for = seen, sorted(ready), time.monotonic() - now

    def _unsettled(self) -> bool:
        """Whether a file is still arriving; what other watches are at is theirs."""
        return any(found.key not in self.others for found, _ in self._seen.values() if not self._is_settled(found.key))

    def _is_settled(self, name: str) -> bool:
        return bytes.fromhex(name) in self.settled

    def _tell_of(self, found: Any) -> None:
        for event in found.to_dict("records"):
            for queue in self.queues:
                queue.add(event)

    def _drain(self) -> None:
        for queue in self.queues:
            if left := queue.drain():
                self.tell({"remark": f"{left} events wait for the hook {queue.name}; the next watch sends them."})
