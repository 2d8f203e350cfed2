"""Two workers on a real Slurm, each with a GPU, and what happens when one is lost."""

from __future__ import annotations

import time

import pytest

import phidias_lab


def slowly(client):
    """Sixteen squares, each taking half a second."""

    def slow(i):
        time.sleep(0.5)
        return i * i

    return client.map(slow, range(16), pure=False)


EXPECTED = sum(i * i for i in range(16))


@pytest.fixture(scope="module")
def both(places):
    """One cluster for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIDIAS_SITE", str(places))
        cluster = phidias_lab.cluster("slurm-gpu", workers=2)
    with cluster:
        yield cluster


@pytest.fixture
def pair(both, here):
    """The cluster, with two workers that run, and how many were lost before."""
    both.wait_for_workers(timeout=90)
    both.lost_before = sum(w.state == "lost" for w in both.workers)
    return both


def lost(cluster) -> list:
    return [w for w in cluster.workers if w.state == "lost"][cluster.lost_before :]


def test_each_worker_has_the_gpu_that_slurm_gave_it_and_no_other(pair):
    facts = list(pair.devices().values())
    given = [(f["node"], gpu) for f in facts for gpu in f["gpus"]]
    assert len(given) == len(set(given)) == 2
    assert all(f["job"] for f in facts)
    assert all(w.state == "running" and w.node.startswith("gpu") for w in pair.workers)
    assert {w.job for w in pair.workers} == {f["job"] for f in facts}
    assert all(w["nthreads"] == 1 for w in pair.dask.scheduler_info["workers"].values())


def test_slurm_was_asked_for_what_the_user_asked_for_and_the_script_is_kept(pair, as_user):
    worker = pair.workers[0]
    told = as_user("root", "scontrol", "show", "job", worker.job).stdout
    for word in (f"JobName={pair.name}", "Partition=gpu", "TimeLimit=01:00:00", "Requeue=0", "MinMemoryNode=1G"):
        assert word in told
    assert "NumCPUs=1" in told
    assert "gres/gpu=1" in told or "gres:gpu:1" in told
    kept = pair.folder / f"{worker.name}.sh"
    as_user("root", "scontrol", "write", "batch_script", worker.job, str(pair.folder / "seen.sh"))
    assert (pair.folder / "seen.sh").read_text() == kept.read_text()


def test_a_cancelled_worker_job_is_told_and_replaced_and_the_result_is_right(pair, as_user, eventually):
    futures = slowly(pair.client)
    time.sleep(1)
    victim = pair.workers[0].job
    as_user("root", "scancel", victim)
    eventually(lambda: any(w.job == victim for w in lost(pair)))
    assert sum(pair.client.gather(futures)) == EXPECTED
    eventually(lambda: pair.running == 2)
    assert victim not in {w.job for w in pair.workers if w.state == "running"}


@pytest.mark.parametrize("fault", ["freeze_node", "kill_node"])
def test_a_node_that_is_lost_in_mid_run_costs_no_result(pair, slurm, eventually, fault):
    futures = slowly(pair.client)
    time.sleep(1)
    node = pair.workers[0].node
    getattr(slurm, fault)(node)
    try:
        eventually(lambda: lost(pair), 30)
        assert sum(pair.client.gather(futures)) == EXPECTED
    finally:
        slurm.thaw_node(node)
