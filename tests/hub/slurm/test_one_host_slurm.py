"""The Slurm of hub-config/slurm_lab, as its users see it."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import time
from pathlib import Path

import pytest
from slurm_lab import Refused
from slurm_lab.slurm import Lab, Settings, own_address

pytestmark = pytest.mark.usefixtures("no_jobs")


def eventually(condition, seconds: float = 20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "It did not come about in time."
        time.sleep(0.1)
    return found


@pytest.fixture
def submit(as_user):
    """``submit("alice", "sleep 60", "--partition=gpu")``: the number of the job."""

    def hand_in(user: str, command: str, *options: str) -> str:
        said = as_user(user, "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={command}")
        return said.stdout.strip()

    return hand_in


@pytest.fixture
def state(as_user):
    def told(job: str) -> str:
        return as_user("root", "squeue", "-h", "-t", "all", "-j", job, "-o", "%T").stdout.strip()

    return told


@pytest.fixture
def sleeper(as_user, submit, state):
    """A running job of alice's on a GPU node: its number, its node, and the pid of its task."""
    job = submit("alice", "exec sleep 300", "--partition=gpu", "--gres=gpu:1")
    eventually(lambda: state(job) == "RUNNING")
    node = as_user("root", "squeue", "-h", "-j", job, "-o", "%N").stdout.strip()
    return job, node, eventually(lambda: task(job))


def task(job: str) -> int | None:
    """The pid of the `sleep` of a job of alice's."""
    alice = pwd.getpwnam("alice").pw_uid  # another Slurm has a job of this number too
    for entry in Path("/proc").iterdir():
        try:
            asleep = entry.stat().st_uid == alice and (entry / "comm").read_text() == "sleep\n"
            if asleep and f"SLURM_JOB_ID={job}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue
    return None


def letter(pid: int) -> str:
    """The state of a process as one letter; Z where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_job_runs_under_the_account_of_who_submitted_it_and_sees_the_gpus_it_asked_for(as_user, submit, state):
    file = Path(as_user("alice", "mktemp", "-p", "/home/alice").stdout.strip())
    job = submit("alice", f'echo "$(id -un) $CUDA_VISIBLE_DEVICES" > {file}', "--partition=gpu", "--gres=gpu:2")
    eventually(lambda: state(job) == "COMPLETED")
    said = file.read_text()
    file.unlink()
    assert said == "alice 0,1\n"


def test_nobody_sees_the_jobs_of_another_but_the_hub_sees_all(as_user, people_here, sleeper):
    job, _, _ = sleeper
    asked = ("squeue", "-h", "-t", "RUNNING", "-o", "%i")  # one of a node that was killed may still be completing
    seen = {u: as_user(u, *asked).stdout.split() for u in ("alice", "bob", people_here.hub)}
    assert seen == {"alice": [job], "bob": [], people_here.hub: [job]}


def test_the_hub_may_submit_for_members_of_the_group_and_run_nothing_else(as_user, people_here):
    def sudo(user: str, *command: str):
        return as_user(people_here.hub, "sudo", "-E", "-n", "-u", user, *command, check=False)

    assert sudo("alice", "/usr/bin/squeue", "--version").stdout.startswith("slurm")
    assert sudo("alice", "/usr/bin/id").returncode != 0
    assert sudo("root", "/usr/bin/squeue", "--version").returncode != 0
    assert sudo("nobody", "/usr/bin/squeue", "--version").returncode != 0


def test_homes_are_closed_to_others(as_user):
    assert as_user("bob", "ls", "/home/alice", check=False).returncode != 0
    assert as_user("alice", "ls", "/home/alice").returncode == 0


def test_a_killed_node_takes_its_jobs_along_and_comes_back(slurm, sleeper):
    _, node, pid = sleeper
    slurm.kill_node(node)
    eventually(lambda: letter(pid) in "ZX")
    with pytest.raises(Refused, match=f"{node} is not running"):
        slurm.kill_node(node)
    slurm.thaw_node(node)
    eventually(lambda: not [line for line in slurm.status().splitlines()[1:] if "*" in line.split()[2]])


def test_a_frozen_node_stands_still_with_its_jobs_and_goes_on(slurm, sleeper):
    _, node, pid = sleeper
    other = next(n for n in slurm.settings.nodes if n not in (node, "cpu1"))
    slurm.freeze_node(other)
    assert letter(pid) == "S"
    slurm.thaw_node(other)
    slurm.freeze_node(node)
    try:
        eventually(lambda: letter(pid) == "T")
    finally:
        slurm.thaw_node(node)
    eventually(lambda: letter(pid) == "S")


def test_a_node_that_is_not_there_is_refused_with_the_ones_that_are(slurm):
    with pytest.raises(Refused, match="no node 'gpu9' here; the nodes are cpu1, gpu1, gpu2"):
        slurm.kill_node("gpu9")


def test_ports_that_are_taken_are_refused_before_anything_is_started(slurm, one_host):
    other = Lab(one_host / "other")
    with pytest.raises(Refused, match=f"Port {slurm.settings.port} on 127.0.0.1 is taken"):
        other.start(Settings(port=slurm.settings.port))
    assert not other.folder.exists()


def test_a_folder_that_others_cannot_pass_is_refused(one_host):
    closed = one_host / "closed"
    closed.mkdir(mode=0o700, exist_ok=True)
    with pytest.raises(Refused, match="Other users cannot pass"):
        Lab(closed / "slurm").start(Settings(port=27500))
    closed.rmdir()


def test_a_second_start_finds_slurm_running_and_jobs_go_on(slurm, sleeper):
    _, _, pid = sleeper
    slurm.start(slurm.settings)
    assert letter(pid) == "S"


def test_a_start_after_the_death_of_one_daemon_starts_that_one_alone(slurm):
    before = slurm._pids()
    os.kill(before["slurmctld"][0], signal.SIGKILL)
    eventually(lambda: not slurm.running())
    slurm.start(slurm.settings)
    assert {name for name, server in slurm._pids().items() if server != before[name]} == {"slurmctld"}


def test_what_listens_for_slurm_listens_on_the_loopback_or_where_the_hosts_name_points(slurm):
    ports = range(slurm.settings.port, slurm.settings.port + 20)
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            where, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                # /proc writes the four bytes in the order of this machine; an address of IPv6 has no such form.
                found[int(port, 16)] = socket.inet_ntoa(bytes.fromhex(where)[::-1]) if table == "tcp" else where
    assert {slurm.settings.port, slurm.settings.port + 1} <= set(found)
    assert set(found.values()) <= {"127.0.0.1", own_address()}, found
