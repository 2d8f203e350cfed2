"""Dask on a real Slurm: workers as jobs of their owner, closed to everybody else, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import phidias_lab
from phidias_lab.compute import slurm
from phidias_lab.errors import RunFailedError

ROOT = Path(__file__).parents[2]
SITE = """
name = "trial"
[slurm]
configuration = "CONF"
[clusters.slurm]
partition = "cpu"
workers = { default = 2, max = 12 }
cores = { default = 1, max = 4 }
memory_gib = { default = 1, max = 4 }
hours = { default = 1, max = 4 }
interface = "lo"
silent_seconds = 5
shared_folder = "SHARED/{user}"
[clusters.slurm-gpu]
partition = "gpu"
workers = { default = 2, max = 8 }
cores = { default = 1, max = 8 }
memory_gib = { default = 1, max = 4 }
gpus = { default = 1, max = 2 }
hours = { default = 1, max = 4 }
interface = "lo"
silent_seconds = 5
shared_folder = "SHARED/{user}"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A Slurm of one host with three nodes, two of which have two pretended GPUs each."""
    missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p, path="/usr/bin:/usr/sbin")]
    reason = f"not run: needs {', '.join(missing)}" if missing else "not run: a Slurm of one host needs root"
    if missing or os.geteuid() != 0:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    sys.path.insert(0, str(ROOT / "hub-config"))
    from slurm_lab.slurm import Lab, Settings

    known = {entry.pw_name for entry in pwd.getpwall()}
    one = Lab(Path("/srv/phidias-test-dask") / "slurm")
    one.start(Settings(port=19000, users=["root", *({"alice", "bob"} & known)]))
    try:
        yield one
    finally:
        one.stop()
        shutil.rmtree("/srv/phidias-test-dask", ignore_errors=True)


@pytest.fixture
def here(lab, monkeypatch, tmp_path):
    for node in ("cpu1", "gpu1", "gpu2"):
        with contextlib.suppress(Exception):
            lab.thaw_node(node)
    shared = Path("/srv/phidias-test-dask/shared")
    shared.mkdir(mode=0o1777, exist_ok=True)
    shared.chmod(0o1777)
    file = Path("/srv/phidias-test-dask/site.toml")
    conf = lab.environment()["SLURM_CONF"]
    file.write_text(SITE.replace("CONF", conf).replace("SHARED", str(shared)))
    monkeypatch.setenv("PHIDIAS_SITE", str(file))
    monkeypatch.setenv("SLURM_CONF", conf)
    yield file
    assert not unended(), "a test left jobs in the queue"


def unended() -> list[str]:
    found = subprocess.run(["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if not line.endswith("COMPLETING")]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.1)


def slowly(client):
    """Twenty-four squares, each taking half a second."""

    def slow(i):
        time.sleep(0.5)
        return i * i

    return client.map(slow, range(24), pure=False)


EXPECTED = sum(i * i for i in range(24))


@pytest.fixture
def pair(here):
    with phidias_lab.cluster("slurm-gpu", workers=2) as cluster:
        cluster.wait_for_workers(timeout=90)
        yield cluster


def test_each_worker_has_the_gpu_that_slurm_gave_it_and_no_other(pair):
    facts = list(pair.devices().values())
    given = [(f["node"], gpu) for f in facts for gpu in f["gpus"]]
    assert len(given) == len(set(given)) == 2
    assert all(f["job"] for f in facts)
    assert all(w.state == "running" and w.node.startswith("gpu") for w in pair.workers)
    assert {w.job for w in pair.workers} == {f["job"] for f in facts}
    assert all(w["nthreads"] == 1 for w in pair.dask.scheduler_info["workers"].values())


def test_workers_without_gpus_see_none(here):
    with phidias_lab.cluster("slurm", workers=1) as cluster:
        cluster.wait_for_workers(timeout=90)
        assert [f["gpus"] for f in cluster.devices().values()] == [[]]


def test_a_job_that_waits_is_never_called_running_and_says_why(here):
    # Each takes a whole node of eight cores; there are two nodes.
    with phidias_lab.cluster("slurm-gpu", workers=3, cores=8) as cluster:
        until(lambda: cluster.running == 2)
        until(lambda: any(w.state == "pending" and "Slurm has not" not in w.reason for w in cluster.workers))
        states = [w.state for w in cluster.workers]
        assert states.count("running") == 2
        waiting = next(w for w in cluster.workers if w.state == "pending")
        assert "busy" in waiting.reason or "priority" in waiting.reason
        assert "running" not in str(waiting)
        with pytest.raises(
            RunFailedError, match=r"3 workers were wanted on slurm-gpu and 2 run after 1 s. The next one is p"
        ):
            cluster.wait_for_workers(timeout=1)
        until(lambda: next(w for w in cluster.workers if w.state == "pending").expected_start is not None)
    until(lambda: not unended())


def test_a_request_that_slurm_refuses_is_refused_at_once(here):
    text = here.read_text().replace('partition = "gpu"', 'partition = "moon"')
    here.write_text(text)
    with pytest.raises(RunFailedError, match=r"No worker on slurm-gpu: Slurm refused: .*invalid partition"):
        phidias_lab.cluster("slurm-gpu")


def test_a_cancelled_worker_job_is_told_and_replaced_and_the_result_is_right(pair):
    futures = slowly(pair.client)
    time.sleep(1)
    victim = pair.workers[0].job
    subprocess.run(["scancel", victim], check=True)
    assert sum(pair.client.gather(futures)) == EXPECTED
    until(lambda: any(w.state == "lost" and w.job == victim for w in pair.workers))
    until(lambda: pair.running == 2)
    assert victim not in {w.job for w in pair.workers if w.state == "running"}


def test_a_node_that_dies_in_mid_run_costs_no_result(lab, pair):
    futures = slowly(pair.client)
    time.sleep(1)
    node = next(w.node for w in pair.workers)
    lab.kill_node(node)
    try:
        assert sum(pair.client.gather(futures)) == EXPECTED
    finally:
        lab.thaw_node(node)


def test_a_node_that_freezes_in_mid_run_costs_no_result(lab, pair):
    futures = slowly(pair.client)
    time.sleep(1)
    node = next(w.node for w in pair.workers)
    lab.freeze_node(node)
    try:
        assert sum(pair.client.gather(futures)) == EXPECTED
        until(lambda: any(w.state == "lost" for w in pair.workers))
    finally:
        lab.thaw_node(node)


def test_when_the_owner_is_killed_running_and_waiting_jobs_go(here):
    code = (
        "import phidias_lab, time\n"
        "c = phidias_lab.cluster('slurm-gpu', workers=3, cores=8)\n"
        "c.wait_for_workers(2, timeout=90)\n"
        "print(c.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        folder = Path(owner.stdout.readline().strip())
        until(lambda: len(unended()) == 3)
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    until(lambda: not unended() and not folder.exists())


def test_bob_reaches_nothing_of_alice(here):
    """Alice owns the cluster, bob tries: her keys, her scheduler, her workers, her jobs."""
    python = Path("/srv/phidias-dev/environment/bin/python")
    python = python if python.exists() else Path("/srv/phidias/environment/bin/python")
    known = {entry.pw_name for entry in pwd.getpwall()}
    if not {"alice", "bob"} <= known or not python.exists():
        reason = "not run: needs the users alice and bob and their environment (slurm_lab users, slurm_lab environment)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)

    def variables(user):
        return ["env", "-i", f"HOME={pwd.getpwnam(user).pw_dir}", f"USER={user}", "PATH=/usr/bin:/bin", "LANG=C.UTF-8",
                f"PYTHONPATH={ROOT}", f"PHIDIAS_SITE={here}", f"SLURM_CONF={os.environ['SLURM_CONF']}"]  # fmt: skip

    code = (
        "import phidias_lab, json, sys\n"
        "c = phidias_lab.cluster('slurm', workers=1)\n"
        "c.wait_for_workers(timeout=90)\n"
        "pages = c.dask.scheduler.http_server.port\n"
        "print(json.dumps({'folder': str(c.folder), 'scheduler': c.address, 'pages': pages, 'job': c.workers[0].job,\n"
        "    'workers': list(c.dask.scheduler_info['workers'])}), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(c.running, flush=True)\n"
        "c.close()\n"
    )
    as_alice = ["setpriv", "--reuid=alice", "--regid=alice", "--init-groups", *variables("alice")]
    alice = subprocess.Popen(
        [*as_alice, str(python), "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    try:
        hers = json.loads(alice.stdout.readline())
        attack = f"""
import json, subprocess, urllib.request
from pathlib import Path
from distributed import Client
from distributed.security import Security
hers = json.loads({json.dumps(json.dumps(hers))})
got = []
def tries(what, act):
    try:
        found = act()
    except Exception as error:
        print(what, type(error).__name__)
    else:
        got.append((what, str(found)[:200]))
for name in ("key.pem", "cert.pem", "about.json"):
    tries(name, lambda: Path(hers["folder"], name).read_text())
tries("folder", lambda: list(Path(hers["folder"]).iterdir()))
plain = hers["scheduler"].replace("tls", "tcp")
tries("plain", lambda: Client(plain, timeout=4).run_on_scheduler(lambda: 1))
mine = Security.temporary()
for address in (hers["scheduler"], *hers["workers"]):
    tries("own keys " + address, lambda: Client(address, security=mine, timeout=4).run_on_scheduler(lambda: 1))
for page in ("status", "metrics", "health", "info/main/workers.html"):
    tries(page, lambda: urllib.request.urlopen(f"http://127.0.0.1:{{hers['pages']}}/{{page}}", timeout=4).read())
def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    if done.returncode or not done.stdout.strip():
        raise PermissionError(done.stderr)
    return done.stdout
tries("job list", lambda: run("squeue", "-h"))
tries("script", lambda: run("scontrol", "write", "batch_script", hers["job"], "-"))
subprocess.run(["scancel", hers["job"]], capture_output=True, timeout=20)
print("GOT", got)
"""
        as_bob = ["setpriv", "--reuid=bob", "--regid=bob", "--init-groups", *variables("bob")]
        tried = subprocess.run(
            [*as_bob, str(python), "-c", attack], capture_output=True, text=True, timeout=300, cwd="/"
        )
        assert "GOT []" in tried.stdout, tried.stdout + tried.stderr[-2000:]
        # Her own keys would have opened it.
        own = (
            "import json, sys; from phidias_lab.compute import cluster\n"
            f"with cluster.connected({hers['folder']!r}) as client: print(client.submit(abs, -7).result(30))"
        )
        opened = subprocess.run(
            [*as_alice, str(python), "-c", own], capture_output=True, text=True, cwd="/", timeout=120
        )
        assert opened.stdout.strip() == "7", opened.stderr[-2000:]
        alice.stdin.write("\n")
        alice.stdin.flush()
        assert alice.stdout.readline().strip() == "1"  # her worker was not cancelled
        assert alice.wait(60) == 0
    finally:
        alice.kill()
        alice.wait()
        alice.stdin.close()
        alice.stdout.close()


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_run_in_the_queue_gives_the_same_values_and_records_where_it_was(here):
    plain = phidias_lab.run("probe.slow", pieces=4, seconds=0.0)
    assert plain.wait(120) == "done"
    there = phidias_lab.run("probe.slow", on="slurm", pieces=4, seconds=0.0)
    crew = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, pieces=4, seconds=0.2)
    assert there.wait(120) == "done", there.log
    assert crew.wait(120) == "done", crew.log
    assert plain.product.checksums == there.product.checksums == crew.product.checksums
    assert (there.record["where"]["place"], there.record["where"]["node"]) == ("slurm", "cpu1")
    assert there.record["where"]["job"].isdigit()
    assert sum(len(d["gpus"]) for d in crew.record["where"]["devices"]) == 2
    until(lambda: not unended())


def test_a_waiting_run_says_why_and_can_be_cancelled(here):
    with phidias_lab.cluster("slurm-gpu", workers=2, cores=8) as cluster:
        cluster.wait_for_workers(timeout=90)
        run = phidias_lab.run("probe.slow", on="slurm-gpu", pieces=2)
        until(
            lambda: (
                "waits in the queue of slurm-gpu: " in str(run.progress) and "Slurm has not" not in str(run.progress)
            )
        )
        assert run.status == "waiting"
        assert phidias_lab.runs()[0] == run
        assert run.cancel() == "cancelled"
        assert run.status == "cancelled"
        until(lambda: len(unended()) == 2)
    until(lambda: not unended())


def test_a_run_whose_job_is_gone_says_why_and_goes_on_with_its_finished_pieces(here, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    run = phidias_lab.run("probe.slow", on="slurm", pieces=6, seconds=1.0, marks=str(marks))
    until(lambda: run.progress.fraction > 0.3)
    subprocess.run(["scancel", "--signal=KILL", run.launched["job"]], check=True)
    until(lambda: run.status == "interrupted")
    assert f"its job {run.launched['job']} on slurm is gone: it " in run.error
    assert "resume" in run.error
    run.resume()
    assert run.launched["where"]["place"] == "slurm"
    assert run.wait(120) == "done", run.log
    assert run.record["where"]["job"] == run.launched["job"]
    assert sum(len(p.read_bytes()) for p in marks.iterdir()) <= 7  # at most the piece that was under way twice


def test_a_cancelled_run_takes_its_workers_with_it(here):
    run = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, pieces=50, seconds=1.0)
    until(lambda: run.progress.fraction > 0.11)
    assert len(unended()) == 3
    assert run.cancel() == "cancelled"
    until(lambda: not unended())
    assert slurm.my_jobs({"slurm": phidias_lab.compute.site.read(here)["slurm"]}, fresher_than=0) is not None
