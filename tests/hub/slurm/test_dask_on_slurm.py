"""Dask on a real Slurm: workers as jobs of their owner, closed to everybody else, and nothing left behind."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import phidias_lab
from phidias_lab.errors import RunFailedError

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("nothing_left")


def test_workers_without_gpus_see_none(here):
    with phidias_lab.cluster("slurm", workers=1) as cluster:
        cluster.wait_for_workers(timeout=90)
        assert [f["gpus"] for f in cluster.devices().values()] == [[]]


def test_a_job_that_waits_is_never_called_running_and_says_why(here, unended, eventually):
    # Each takes a whole node of eight cores; there are two nodes.
    with phidias_lab.cluster("slurm-gpu", workers=3, cores=8) as cluster:
        eventually(lambda: cluster.running == 2)
        eventually(lambda: any(w.state == "pending" and "Slurm has not" not in w.reason for w in cluster.workers))
        states = [w.state for w in cluster.workers]
        assert states.count("running") == 2
        waiting = next(w for w in cluster.workers if w.state == "pending")
        assert "busy" in waiting.reason or "priority" in waiting.reason
        assert "running" not in str(waiting)
        with pytest.raises(
            RunFailedError, match=r"3 workers were wanted on slurm-gpu and 2 run after 1 s. The next one is p"
        ):
            cluster.wait_for_workers(timeout=1)
        eventually(lambda: next(w for w in cluster.workers if w.state == "pending").expected_start is not None)
    eventually(lambda: not unended())


def test_a_request_that_slurm_refuses_is_refused_at_once(here, tmp_path, monkeypatch):
    elsewhere = tmp_path / "site.toml"
    elsewhere.write_text(here.read_text().replace('partition = "gpu"', 'partition = "moon"'))
    monkeypatch.setenv("PHIDIAS_SITE", str(elsewhere))
    with pytest.raises(RunFailedError, match=r"No worker on slurm-gpu: Slurm refused: .*invalid partition"):
        phidias_lab.cluster("slurm-gpu")


def test_when_the_owner_is_killed_running_and_waiting_jobs_go(here, unended, eventually):
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
        eventually(lambda: len(unended()) == 3)
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    eventually(lambda: not unended() and not folder.exists())


@pytest.fixture
def spoken(users_environment, places, slurm):
    """``spoken("alice", code)``: the words that run this code as that user, in the users' environment."""

    def words(user: str, code: str) -> list[str]:
        variables = {
            "HOME": pwd.getpwnam(user).pw_dir,
            "USER": user,
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PHIDIAS_SITE": str(places),
            **slurm.environment(),
        }
        account = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        given = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        return [*account, *given, str(users_environment / "bin" / "python"), "-c", code]

    return words


def test_when_the_job_of_a_user_s_server_is_cancelled_no_job_of_workers_is_left(
    spoken, as_user, unended, eventually, places, people_here
):
    """Slurm ends a job with SIGTERM to all that is in it: the kernel that owns the cluster, and what watches over it."""
    home = Path(pwd.getpwnam("alice").pw_dir)
    kernel = (
        "import phidias_lab, time\n"
        "c = phidias_lab.cluster('slurm-gpu', workers=3, cores=8)\n"
        "c.wait_for_workers(2, timeout=90)\n"
        "print(c.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    log = home / "server-of-a-test.log"
    command = shlex.join(spoken("alice", kernel)[4:])  # the job is alice's already
    said = as_user("alice", "sbatch", "--parsable", f"--output={log}", f"--wrap={command}; true")
    try:
        eventually(lambda: len(unended()) == 4 and log.exists() and log.read_text().endswith("\n"))
        folder = Path(log.read_text().strip())
        assert folder.is_dir(), log.read_text()
        as_user("alice", "scancel", said.stdout.strip())
        eventually(lambda: not unended(), 15)
        eventually(lambda: not folder.exists(), 15)
    finally:
        as_user("alice", "scancel", "--user=alice")
        log.unlink(missing_ok=True)


def test_bob_reaches_nothing_of_alice(spoken):
    """Alice owns the cluster, bob tries: her keys, her scheduler, her workers, her jobs."""
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
    alice = subprocess.Popen(spoken("alice", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
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
        tried = subprocess.run(spoken("bob", attack), capture_output=True, text=True, timeout=300, cwd="/")
        assert "GOT []" in tried.stdout, tried.stdout + tried.stderr[-2000:]
        # Her own keys would have opened it.
        own = (
            "import json, sys; from phidias_lab.compute import cluster\n"
            f"with cluster.connected({hers['folder']!r}) as client: print(client.submit(abs, -7).result(30))"
        )
        opened = subprocess.run(spoken("alice", own), capture_output=True, text=True, cwd="/", timeout=120)
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
