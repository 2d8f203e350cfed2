"""Accounts that come and go with a demonstration."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest
from slurm_lab import Refused, people

USERS = ["phidias-t1", "phidias-t2"]


def exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture
def names(one_host, set_up):
    """Two users, a group and a hub's account that no machine has."""
    if not (set_up.in_ci() or os.environ.get("SYSTEM") == "1"):
        pytest.skip("not run: creates system users, which SYSTEM=1 allows")
    manifest = one_host / "created-people.json"
    people.remove(manifest)
    file = Path("/etc/sudoers.d/phidias-test-people")
    yield people.Names(USERS[:1], "phidias-tg", "phidias-th", one_host / "hub-of-people", file), manifest
    people.remove(manifest)


def test_what_was_created_is_removed_and_nothing_else(names):
    names, manifest = names
    subprocess.run(["/usr/sbin/useradd", "--create-home", USERS[1]], check=True)
    names.users.append(USERS[1])
    try:
        people.create(names, manifest)
        assert grp.getgrnam("phidias-tg").gr_mem == USERS
        assert oct(Path(f"/home/{USERS[0]}").stat().st_mode & 0o777) == "0o700"
        assert oct(names.state.stat().st_mode & 0o777) == "0o700"
        assert names.state.owner() == "phidias-th"
        assert oct(names.sudoers.stat().st_mode & 0o777) == "0o440"
        assert people.missing(names) == []
        people.create(names, manifest)  # a second time changes nothing
        task = subprocess.Popen(["sleep", "300"], user=USERS[0])
        people.remove(manifest)
        assert task.wait(5) != 0
        assert not exists(USERS[0])
        assert not Path(f"/home/{USERS[0]}").exists()
        assert not exists("phidias-th")
        assert not names.state.exists()
        assert not names.sudoers.exists()
        assert exists(USERS[1])
        assert Path(f"/home/{USERS[1]}").exists()
        with pytest.raises(KeyError):
            grp.getgrnam("phidias-tg")
        assert people.remove(manifest) == []
    finally:
        subprocess.run(["/usr/sbin/userdel", "--remove", USERS[1]], check=True, capture_output=True)


def test_a_removal_goes_on_after_a_creation_that_was_killed(names):
    names, manifest = names
    people.create(names, manifest)
    subprocess.run(["/usr/sbin/userdel", "--remove", USERS[0]], check=True, capture_output=True)  # as if never made
    names.sudoers.unlink()
    people.remove(manifest)
    assert not exists("phidias-th")
    assert not manifest.exists()


def test_a_sudoers_file_of_somebody_else_is_left_alone(names):
    names, manifest = names
    names.sudoers.write_text("# not ours\n")
    try:
        with pytest.raises(Refused, match=r"is there and is not this lab's\. Move it elsewhere"):
            people.create(names, manifest)
        assert names.sudoers.read_text() == "# not ours\n"
        assert not exists(USERS[0])
    finally:
        names.sudoers.unlink()


def test_what_would_be_created_is_told_beforehand(names):
    names, _ = names
    told = "; ".join(people.missing(names))
    assert "the group phidias-tg" in told
    assert "the user phidias-t1 with the home /home/phidias-t1" in told
    assert "the system user phidias-th" in told
    assert "may run sbatch, squeue and scancel" in told
    assert not exists(USERS[0])


def test_what_another_deployment_uses_is_left_and_the_last_one_takes_it_away(names, one_host):
    names, first = names
    second = one_host / "created-people-too.json"
    people.remove(second)
    people.create(names, first)
    assert people.found(names, first) == []
    assert people.create(names, second) == []
    assert people.found(names, second) == [USERS[0], "phidias-th"]
    task = subprocess.Popen(["sleep", "300"], user=USERS[0])
    try:
        assert people.remove(first) == [["folder", str(names.state)]]
        assert task.poll() is None
        assert grp.getgrnam("phidias-tg").gr_mem == [USERS[0]]
        assert Path(f"/home/{USERS[0]}").exists()
        assert names.sudoers.exists()
        assert ["user", USERS[0]] in people.remove(second)
        assert task.wait(5) != 0
        assert not exists(USERS[0])
        assert not exists("phidias-th")
        assert not names.sudoers.exists()
    finally:
        task.kill()
        people.remove(second)


def test_a_home_without_an_account_is_somebody_s_and_left_as_it_is(names):
    names, manifest = names
    home = Path("/home") / USERS[0]
    home.mkdir(mode=0o755)
    try:
        with pytest.raises(Refused, match=f"{home} is there without an account {USERS[0]}"):
            people.create(names, manifest)
        assert oct(home.stat().st_mode & 0o777) == "0o755"
        assert not exists(USERS[0])
        assert not manifest.exists()
    finally:
        home.rmdir()


def test_a_folder_with_files_is_not_closed_for_the_hub(names):
    names, manifest = names
    names.state.mkdir(mode=0o755)
    (names.state / "thesis.txt").write_text("years")
    try:
        with pytest.raises(Refused, match="holds files and does not belong to phidias-th"):
            people.create(names, manifest)
        assert oct(names.state.stat().st_mode & 0o777) == "0o755"
        assert names.state.owner() == "root"
        assert not exists("phidias-th")
    finally:
        (names.state / "thesis.txt").unlink()
        names.state.rmdir()
