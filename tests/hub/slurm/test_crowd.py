"""A small crowd, on every run of the tests; `benchmarks/hub.py crowd` brings 500 people by the same way."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PEOPLE = 20


@pytest.fixture(scope="module")
def bench(one_host, set_up):
    """The benchmark of the hub and its deployment: `tally` and `here`. It creates its accounts and removes them."""
    if not (set_up.in_ci() or os.environ.get("SYSTEM") == "1"):
        pytest.skip("not run: creates system users, which SYSTEM=1 allows")
    spec = importlib.util.spec_from_file_location("benchmark_hub", BENCHMARKS / "hub.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Bench(module.parsed(["crowd", "--crowd", str(PEOPLE), "--watch", "5"])) as module.here:
        yield module


def test_a_crowd_is_served_outlives_the_hub_and_costs_one_question_for_all(bench):
    told = bench.here.crowd()
    assert told["people"] == told["all"]["n"] == PEOPLE
    assert (told["failures"], told["lost"], told["stop_failures"]) == ([], [], [])
    assert (told["failed"], told["lost_by_restart"], told["not_stopped"]) == (0, 0, 0)
    coming, at_work, stopping = told["coming"], told["at_work"], told["stopping"]
    # What is free was asked for once or twice, and not by everybody who saw the form or sent it.
    assert coming["sbatch"] == PEOPLE
    assert coming["sinfo"] <= coming["seconds"] + 2
    assert coming["squeue"] <= 4 * coming["seconds"] + 2
    # The site asks once per second, for all together; nobody's job is asked for by itself.
    assert 1 <= at_work["squeue"] <= at_work["seconds"] + 2
    assert at_work.get("squeue of one job", 0) == coming.get("squeue of one job", 0) == 0
    assert stopping["scancel"] >= PEOPLE


def test_who_waits_in_the_queue_keeps_nobody_else_from_starting(bench):
    with bench.here.pretended(room=5) as slurm:
        people = asyncio.run(taking_turns(bench.here.hub, lambda: bench.tally(slurm).get("sbatch", 0)))
    waited = [person for person in people if any("no node has enough room free now" in said for said in person.read)]
    assert len(waited) == PEOPLE - 5


async def taking_turns(hub, handed_in) -> list:
    """All come at once, and nobody leaves before everybody's job is in the queue."""
    from _browsers import Browser

    everybody_is = asyncio.Event()

    async def visit_and_leave(person):
        await person.visit()
        await everybody_is.wait()
        await person.stop()

    async def count():
        while handed_in() < PEOPLE:
            await asyncio.sleep(0.1)
        everybody_is.set()

    async with contextlib.AsyncExitStack() as opened:
        people = [Browser(hub.address, name, hub.password, patience=120) for name in hub.names.users[2:]]
        for person in people:
            await opened.enter_async_context(person)
        await asyncio.wait_for(asyncio.gather(count(), *map(visit_and_leave, people)), 120)
    return people
