"""Something breaks while people work: the right result or a clear state, and nobody is cut off who need not be."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests
from hub_user import HubUser
from slurm_lab.slurm import until

import phidias_lab

# The hub -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people_at_work(hub, people_here, slurm):
    """Alice and bob are logged in, and alice has a server with a kernel that remembers a number."""
    slurm.cancel_jobs()
    alice, bob = (HubUser(hub.address, name, hub.password) for name in (people_here.alice, people_here.bob))
    try:
        alice.start()
        kernel = alice.kernel()
        alice.run(kernel, "number = 41")
        yield alice, bob, kernel
    finally:
        slurm.cancel_jobs()
        until(40, lambda: not alice.server())


class Requests(threading.Thread):
    """A user's browser that never stops asking her server; `bad` are the answers that were none."""

    def __init__(self, user: HubUser):
        super().__init__(daemon=True)
        self.user, self.good, self.bad = user, 0, []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                answer = self.user.ask("GET", f"/user/{self.user.name}/api/status", seconds=10)
            except requests.RequestException as error:
                self.bad.append(repr(error))
                continue
            if answer.status_code == 200:
                self.good += 1
            else:
                self.bad.append(f"{answer.status_code}: {answer.text[:200]}")
            self.over.wait(0.02)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join(20)


def test_no_request_of_a_user_fails_while_the_hub_is_killed_and_started_again(hub, people_at_work):
    alice, _, kernel = people_at_work
    fresh, told = alice.new_token(), []
    path = f"/user/{alice.name}/api/status"
    first = threading.Thread(target=lambda: told.append(alice.ask("GET", path, token=fresh).status_code))
    with Requests(alice) as asking:
        until(5, lambda: asking.good > 5)
        hub.end("hub", signal.SIGKILL)
        assert not hub.answers()
        # About this one alice's server has to ask the hub first.
        first.start()
        during = asking.good
        assert "42" in alice.run(kernel, "print(number + 1)")
        assert until(5, lambda: asking.good > during + 5)
        hub.start_hub()
        after = asking.good
        assert until(5, lambda: asking.good > after + 5)
        first.join(30)
    assert asking.bad == []
    assert told == [200]
    assert alice.server()["ready"]
    assert "42" in alice.run(kernel, "print(number + 1)")


#: In a kernel of the user's; a run of some tens of pieces on a GPU node.
_ASK = """
import phidias_lab
asked = dict(variable="salinity", windows="monthly", period="2010-01-01/2012-12-31", depths=[0, 50, 100])
print(phidias_lab.run("ocean.gridding", on="slurm-gpu", workers=1, **asked).id)
"""
_LOOK = """
import json, phidias_lab
(run,) = [run for run in phidias_lab.runs() if run.id == "NUMBER"]
print(json.dumps({"status": run.status, "fraction": run.progress.fraction, "log": run.log}))
"""


def test_a_run_outlives_its_kernel_server_and_hub_and_is_found_again_with_log_and_progress(
    hub, people_at_work, as_user
):
    _, bob, _ = people_at_work

    def look() -> dict:
        return bob.words(kernel, _LOOK.replace("NUMBER", number))

    bob.start()
    try:
        kernel = bob.kernel()
        number = bob.run(kernel, _ASK).split()[-1]
        assert until(60, lambda: look()["fraction"] > 0.1), look()
        end_server(bob)
        hub.end("hub", signal.SIGKILL)
        jobs = as_user("root", "squeue", "-h", "-u", "bob", "-t", "R", "-o", "%j").stdout.split()
        assert f"run-{number}" in jobs
        assert len(jobs) == 2
        hub.start_hub()
        bob.start()
        kernel = bob.kernel()
        found = look()
        assert found["status"] == "running"
        assert found["fraction"] > 0.1
        assert until(120, lambda: look()["status"] == "done"), look()
        assert "writing the product" in look()["log"]
    finally:
        as_user("bob", "scancel", "--user=bob", check=False)
        end_server(bob)


@pytest.fixture
def full_gpus(as_user):
    """The partition gpu is full: the number of the job that fills it, to be cancelled; and a call for bob's job there."""
    filler = as_user("root", "sbatch", "--parsable", "-p", "gpu", "-N2", "--exclusive", "--wrap", "sleep 900").stdout

    def job(state: str) -> list[str]:
        return as_user("root", "squeue", "-h", "-u", "bob", "-t", state, "-o", "%i").stdout.split()

    assert until(20, lambda: as_user("root", "squeue", "-h", "-t", "R", "-j", filler.strip(), "-o", "%i").stdout)
    yield filler.strip(), job
    as_user("root", "scancel", filler.strip(), check=False)


def ask_for_a_gpu(user: HubUser, job) -> str:
    """The number of the job that waits for the user's server; the hub answers the request itself ten seconds later."""
    threading.Thread(
        target=user.ask, args=("POST", f"/hub/api/users/{user.name}/server", {"profile": "gpu"}), daemon=True
    ).start()
    assert until(20, lambda: job("PD"))
    (number,) = job("PD")
    return number


def end_server(user: HubUser) -> None:
    user.ask("DELETE", f"/hub/api/users/{user.name}/server")
    assert until(30, lambda: not user.server())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_server_that_waits_keeps_its_place_in_the_queue_while_the_hub_is_started_again(
    hub, people_at_work, full_gpus, as_user, number
):
    _, bob, _ = people_at_work
    filler, job = full_gpus
    waiting = ask_for_a_gpu(bob, job)
    hub.end("hub", number)
    hub.start_hub()
    assert bob.server()["pending"] == "spawn"
    assert job("PD") == [waiting]
    page = bob.browser.look(f"/hub/spawn-pending/{bob.name}").text
    assert "your place in the queue is kept" in page
    as_user("root", "scancel", filler)
    try:
        assert until(60, lambda: bob.server().get("ready")), hub.said("hub")[-3000:]
        assert job("R") == [waiting]
        page = bob.browser.look(f"/user/{bob.name}/lab")
        assert "jupyter-config-data" in page.text
        assert bob.ask("GET", f"/user/{bob.name}/api/status").status_code == 200
    finally:
        end_server(bob)
    assert job("PD,R") == []


def test_a_server_whose_job_begins_to_run_while_the_hub_is_away_is_there_when_it_comes_back(
    hub, people_at_work, full_gpus, as_user
):
    _, bob, _ = people_at_work
    filler, job = full_gpus
    waiting = ask_for_a_gpu(bob, job)
    hub.end("hub", signal.SIGKILL)
    as_user("root", "scancel", filler)
    log = Path("/home", bob.name, f".phidias/logs/server-{waiting}.log")
    try:
        # The server listens, and finds nobody to tell.
        assert until(60, lambda: log.exists() and "It is tried again." in log.read_text()), log.read_text()
        hub.start_hub()
        assert until(20, lambda: bob.server().get("ready")), hub.said("hub")[-3000:]
        assert job("R") == [waiting]
        assert bob.ask("GET", f"/user/{bob.name}/api/status").status_code == 200
    finally:
        end_server(bob)
    assert job("PD,R") == []


def test_a_server_whose_job_ends_while_the_hub_is_away_is_said_to_have_ended_and_can_be_started_again(
    hub, people_at_work, full_gpus, as_user
):
    _, bob, _ = people_at_work
    _, job = full_gpus
    waiting = ask_for_a_gpu(bob, job)
    hub.end("hub", signal.SIGKILL)
    as_user("root", "scancel", waiting)
    hub.start_hub()
    assert until(20, lambda: not bob.server())
    page = bob.browser.look(f"/hub/spawn-pending/{bob.name}").text
    assert f"job {waiting} ended before JupyterLab answered: it was cancelled" in page
    bob.start(profile="cpu")
    end_server(bob)


def test_after_the_proxy_was_killed_and_started_every_way_through_it_comes_back(hub, people_at_work):
    alice, bob, kernel = people_at_work
    hub.end("proxy", signal.SIGKILL)
    with pytest.raises(requests.RequestException):
        alice.ask("GET", f"/user/{alice.name}/api/status", seconds=5)
    hub.start_proxy()

    def answers(user: HubUser, path: str) -> bool:
        with contextlib.suppress(requests.RequestException):
            return user.ask("GET", path, seconds=5).status_code == 200
        return False

    assert until(20, lambda: answers(alice, f"/user/{alice.name}/api/status"))
    assert until(20, lambda: answers(bob, "/hub/api/user"))
    assert "42" in alice.run(kernel, "print(number + 1)")


def test_a_locked_database_keeps_servers_going_and_the_hub_waits_for_it(hub, people_at_work):
    alice, bob, kernel = people_at_work
    released = []

    def release() -> None:
        time.sleep(3)
        released.append(time.monotonic())
        os.kill(holder.pid, signal.SIGTERM)

    code = (
        "import sqlite3, sys, time\n"
        "lock = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "lock.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        ["/usr/bin/python3", "-c", code, str(hub.state / "jupyterhub.sqlite")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with Requests(alice) as asking:
        end = threading.Thread(target=release)
        end.start()
        late = HubUser(hub.address, bob.name, hub.password)  # a log-in writes into the database
        logged_in = time.monotonic()
        end.join()
    holder.wait(10)
    holder.stdout.close()
    assert logged_in > released[0]
    assert asking.bad == []
    assert asking.good > 20
    assert late.ask("GET", "/hub/api/user").json()["name"] == bob.name
    assert "42" in alice.run(kernel, "print(number + 1)")


@pytest.fixture
def little_space(hub, people_at_work):
    """The hub's state lies on a file system of 4 MiB; gives the folder."""
    hub.end("hub")
    aside = hub.state.with_name("hub-before")
    subprocess.run(["cp", "-a", hub.state, aside], check=True)
    account = hub.state.stat()
    subprocess.run(
        [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size=4m,mode=700,uid={account.st_uid},gid={account.st_gid}",
            "tmpfs",
            hub.state,
        ],
        check=True,
    )
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", hub.state], check=True)
        hub.start_hub()
        yield hub.state
    finally:
        hub.end("hub")
        subprocess.run(["cp", "-a", f"{hub.state}/.", aside], check=True)
        subprocess.run(["umount", "--lazy", str(hub.state)], check=True)
        subprocess.run(["cp", "-a", f"{aside}/.", hub.state], check=True)
        shutil.rmtree(aside)
        hub.start_hub()


def test_a_full_disk_of_the_hub_stops_log_ins_alone_and_is_over_when_there_is_space(hub, people_at_work, little_space):
    alice, bob, kernel = people_at_work
    filler = little_space / "filler"
    with Requests(alice) as asking:
        with contextlib.suppress(OSError), open(filler, "wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        page = requests.get(f"{hub.address}/hub/login", timeout=30)
        assert page.status_code == 200
        refused = bob.browser.post(
            f"{hub.address}/hub/api/users/{bob.name}/tokens",
            json={"note": "test"},
            headers={"X-XSRFToken": bob.browser.xsrf("/hub/")},
            timeout=60,
        )
        # Which write is the first to find no room decides: that of who asks (403), or that of the token (500).
        assert refused.status_code in (403, 500), refused.text
        assert "Traceback" not in refused.text
        assert "disk is full" in hub.said("hub")[-20000:]
        assert "42" in alice.run(kernel, "print(number + 1)")
        filler.unlink()
        late = HubUser(hub.address, bob.name, hub.password)
        assert late.ask("GET", "/hub/api/user").json()["name"] == bob.name
    assert asking.bad == []
    assert alice.server()["ready"]


def test_a_server_that_dies_before_it_answers_says_why_at_once(hub, people_at_work):
    _, bob, _ = people_at_work
    above = Path("/home", bob.name, ".phidias")
    aside = above.with_name(".phidias-aside")
    if above.exists():
        above.rename(aside)
    above.write_text("a file where a folder has to be")
    try:
        begun = time.monotonic()  # the hub answers the request when the start has failed
        answer = bob.ask("POST", f"/hub/api/users/{bob.name}/server", {})
        assert answer.status_code == 500
        assert "the log could not be written into the home folder" in answer.json()["message"]
        assert time.monotonic() - begun < 8  # not the two minutes that a start may take
        page = bob.browser.look(f"/hub/spawn-pending/{bob.name}").text
        assert "the log could not be written into the home folder" in page
    finally:
        above.unlink()
        if aside.exists():
            aside.rename(above)
    bob.start()
    assert bob.server()["ready"]
    bob.ask("DELETE", f"/hub/api/users/{bob.name}/server")
    assert until(30, lambda: not bob.server())


# Runs --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(slurm, one_host, places):
    """The site of `places`, but that its squeue hangs as long as the file `hang` is there; gives its folder."""
    folder = one_host / "faults"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "programs").mkdir(parents=True)
    for name in ("sbatch", "scancel"):
        (folder / "programs" / name).symlink_to(f"/usr/bin/{name}")
    squeue = folder / "programs" / "squeue"
    squeue.write_text(f'#!/bin/sh\n[ -e {folder}/hang ] && exec sleep 60\nexec /usr/bin/squeue "$@"\n')
    squeue.chmod(0o755)
    own = f'[slurm]\nprograms = "{folder}/programs"\nquery_timeout = 2\n'
    (folder / "site.toml").write_text(places.read_text().replace("[slurm]\n", own, 1))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def here(place, monkeypatch, slurm):
    """This process is at that site; nothing is left in the queue."""
    monkeypatch.setenv("PHIDIAS_SITE", str(place / "site.toml"))
    for name, value in slurm.environment().items():
        monkeypatch.setenv(name, value)
    yield place
    (place / "hang").unlink(missing_ok=True)


@pytest.fixture
def gated(tmp_path):
    """Parameters of a run of eight pieces, half of which wait for the gate; and a call that opens it."""
    marks = tmp_path / "marks"
    marks.mkdir()
    gate = tmp_path / "gate"
    return {"pieces": 8, "seconds": 0.1, "marks": str(marks), "gate": str(gate), "free": 4}, gate.touch


def in_the_middle(run) -> bool:
    return run.progress.fraction >= 0.3


def expected(**parameters) -> dict:
    """What the same run gives on this machine alone, undisturbed."""
    run = phidias_lab.run("probe.slow", pieces=parameters["pieces"], seconds=0.0)
    assert run.wait(60) == "done", run.log
    return run.product.checksums


def test_a_run_whose_workers_job_is_killed_gives_the_right_result(here, gated, as_user):
    parameters, open_gate = gated
    run = phidias_lab.run("probe.slow", on="slurm-gpu", workers=2, **parameters)
    assert until(60, lambda: in_the_middle(run)), run.log
    jobs = dict(line.split() for line in as_user("root", "squeue", "-h", "-t", "R", "-o", "%j %i").stdout.splitlines())
    victim = next(number for name, number in jobs.items() if name.startswith("phidias-"))
    as_user("root", "scancel", "--signal=KILL", "--full", victim)
    open_gate()
    assert run.wait(60) == "done", run.log
    assert run.product.checksums == expected(**parameters)
    assert until(15, lambda: as_user("root", "squeue", "-h").stdout == "")


@pytest.fixture(scope="module")
def two_nodes(place, slurm):
    """A cluster with one worker on each of the two GPU nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIDIAS_SITE", str(place / "site.toml"))
        cluster = phidias_lab.cluster("slurm-gpu", workers=2, cores=5)
    with cluster:
        yield cluster


@pytest.mark.parametrize("fault", ["kill_node", "freeze_node"])
def test_a_run_that_loses_a_node_gives_the_right_result(here, gated, two_nodes, slurm, fault):
    parameters, open_gate = gated
    two_nodes.wait_for_workers(timeout=60)
    run = phidias_lab.run("probe.slow", on=two_nodes, **parameters)
    assert until(30, lambda: in_the_middle(run)), run.log
    nodes = {worker.node for worker in two_nodes.workers if worker.state == "running"}
    assert len(nodes) == 2
    lost = sorted(nodes)[0]
    try:
        getattr(slurm, fault)(lost)
        open_gate()
        assert run.wait(60) == "done", run.log
        assert until(20, lambda: any(w.state == "lost" and w.node == lost for w in two_nodes.workers))
    finally:
        slurm.thaw_node(lost)
    assert run.product.checksums == expected(**parameters)


def in_service(as_user, node: str) -> bool:
    """Whether a node works again; Slurm may have resumed it by itself, and then refuses to do so."""
    state = as_user("root", "sinfo", "-h", "-n", node, "-o", "%t").stdout.split()
    if any(word.startswith("down") for word in state):
        as_user("root", "scontrol", "update", f"nodename={node}", "state=resume", check=False)
    return bool(state) and all(word in ("idle", "mix", "alloc") for word in state)


def test_a_node_that_is_lost_with_the_run_itself_leaves_a_run_that_says_so_and_can_be_resumed(
    here, gated, slurm, as_user
):
    parameters, open_gate = gated
    run = phidias_lab.run("probe.slow", on="slurm", **parameters)
    assert until(30, lambda: in_the_middle(run)), run.log
    slurm.kill_node("cpu1")
    # What Slurm finds out by itself after SlurmdTimeout.
    as_user("root", "scontrol", "update", "nodename=cpu1", "state=down", "reason=lost")
    try:
        assert until(30, lambda: run.status == "interrupted"), run.status
        assert f"its job {run.launched['job']} on slurm is gone: its node was lost" in run.error
    finally:
        slurm.thaw_node("cpu1")
        assert until(40, lambda: in_service(as_user, "cpu1"))
    open_gate()
    run.resume()
    assert run.wait(60) == "done", run.log
    assert run.product.checksums == expected(**parameters)


def test_a_queue_command_that_hangs_ends_no_run_and_keeps_nobody_waiting(here, gated):
    parameters, open_gate = gated
    run = phidias_lab.run("probe.slow", on="slurm", **parameters)
    assert until(30, lambda: in_the_middle(run)), run.log
    (here / "hang").touch()
    time.sleep(2)  # until the last answer is too old
    begun = time.monotonic()
    assert run.status == "running"
    assert phidias_lab.runs()[0].status == "running"
    assert time.monotonic() - begun < 10
    open_gate()
    assert run.wait(60) == "done", run.log
    assert run.product.checksums == expected(**parameters)


def test_while_the_queue_hangs_a_run_that_waits_says_that_slurm_does_not_answer(here, slurm, as_user):
    as_user("root", "scontrol", "update", "partitionname=cpu", "state=down")
    try:
        run = phidias_lab.run("probe.slow", on="slurm", pieces=2)
        assert until(15, lambda: "the partition is closed" in str(run.progress)), run.progress
        (here / "hang").touch()
        assert until(15, lambda: "Slurm does not answer at the moment" in str(run.progress)), run.progress
        assert run.status == "waiting"
        (here / "hang").unlink()
        assert until(15, lambda: "the partition is closed" in str(run.progress)), run.progress
    finally:
        as_user("root", "scontrol", "update", "partitionname=cpu", "state=up")
    assert run.wait(60) == "done", run.log
