"""Runs as tasks of a Dask cluster: one run to a task, on the node of the worker that takes it.

The task is short: it starts the run's own process there and waits for it. So a run is the same as everywhere, stops when it
is asked to, keeps its finished pieces, and takes no worker with it when it dies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phidias_lab.compute import runs
from phidias_lab.compute.runs import Run, read_json, write_json
from phidias_lab.errors import RunFailedError


def work(folder: str, place: str) -> str:
    """Do a run to its end in a process of its own, here; gives its state."""
    run = Run(folder)
    if (run.folder / "cancel").exists():
        return run.status
    runs.launch(run, {"kind": "task", "place": place})
    return run.wait()


class Tasks:
    """The runs that were given to a cluster as tasks."""

    def __init__(self, cluster: Any):
        from distributed import Client

        self.cluster = cluster
        self._futures: dict[Path, Any] = {}
        try:
            self.client = Client(cluster.dask, set_as_default=False)
        except OSError:
            raise self._ended() from None

    def _ended(self) -> RunFailedError:
        return RunFailedError(
            f"The cluster {self.cluster.name} has ended. What is finished is kept: start again with another one."
        )

    @property
    def many(self) -> int:
        """How many runs go on at one time: one on each worker, which shares its cores among the run's pieces."""
        return max(1, self.cluster.running)

    def _look(self) -> None:
        self.cluster.say_trouble()
        if self.cluster.closed or self.client.status != "running":
            raise self._ended()

    def launch(self, run: Run, where: dict | None = None) -> None:
        self._look()
        before = read_json(run.folder / "launched.json")
        asked = {"asked": before.get("asked") or runs.now(), "title": before.get("title")}
        # Until a worker takes it, the run waits for as long as this process lives.
        write_json(run.folder / "launched.json", {**asked, "starter": runs.myself()})
        place = self.cluster.request.place
        self._futures[run.folder] = self.client.submit(work, str(run.folder), place, pure=False)

    def holds(self, run: Run) -> bool:
        """Whether the task of a run is still to end; a lost worker's is done again by another."""
        future = self._futures.get(run.folder)
        if future is None:
            return False
        self._look()
        if not future.done():
            return True
        del self._futures[run.folder]
        if future.status != "finished":  # it could not be begun, so it is nobody's now
            launched = read_json(run.folder / "launched.json")
            write_json(run.folder / "launched.json", {k: v for k, v in launched.items() if k != "starter"})
        return False

    def close(self) -> None:
        self.client.close()
