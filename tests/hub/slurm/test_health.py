"""The health check, against the running hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEALTH = Path(__file__).parents[3] / "hub-config" / "health.py"


@pytest.fixture
def check(hub, no_servers):
    """``check("alice", password)``: the finished health check."""

    def run(user: str, password: str, *more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, HEALTH, "--site", hub.site_file, "--user", user, *more],
            env=os.environ | {"PHIDIAS_HEALTH_PASSWORD": password},
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


def test_a_working_hub_passes_and_nothing_is_left_behind(check, hub, as_user):
    def traces() -> set[Path]:
        home = Path("/home/alice")
        return {*home.rglob("health-check*"), *home.glob(".phidias/logs/*")}

    before = traces()
    done = check("alice", hub.password, "--profile", "gpu")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["hub", "log-in", "server", "notebook", "stop"]
    assert all(line.split()[2] == "s" and float(line.split()[1]) >= 0 for line in done.stdout.splitlines())
    assert as_user("root", "squeue", "-h").stdout == ""
    assert traces() <= before


def test_a_wrong_password_and_an_unknown_profile_have_exit_codes_of_their_own(check, hub):
    done = check("alice", "not-the-password")
    assert done.returncode == 11
    assert "alice was not let in" in done.stderr
    done = check("alice", hub.password, "--profile", "none-such")
    assert done.returncode == 12
    assert "choose one of cpu, gpu" in done.stderr


def test_a_hub_that_does_not_answer_has_one_too(check, hub):
    done = check("alice", hub.password, "--address", "http://127.0.0.1:9")
    assert done.returncode == 10
    assert "does not answer" in done.stderr
