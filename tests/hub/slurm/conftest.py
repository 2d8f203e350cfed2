"""A real Slurm, users, and a hub of their own for the tests in this folder, all of which one worker runs.

Users are created in continuous integration and with SYSTEM=1 alone, and removed at the end; what a killed run has left is
removed by the next one. Everything is below /srv/phidias-tests, but for the users' environment and the demo lake, which
`make lab-slurm` uses too and which are made anew only when something has changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import health
import pytest
from slurm_lab import Refused, people
from slurm_lab.deployment import SITE, Deployment
from slurm_lab.slurm import run_as, until

PLACE = Path("/srv/phidias-tests")
#: First of the ports of Slurm, and of the hub, its own API and the proxy's.
SLURM_PORT, HUB_PORT = 27000, 27100


@pytest.fixture(scope="session")
def one_host(needs, set_up):
    """The right to use this host's one place for these tests; what a killed run left there is cleared away."""
    needs("slurm-wlm", "slurmdbd", "munge", "mariadb-server", "sudo")
    if os.geteuid() != 0:
        reason = "not run: a Slurm with users needs root"
        pytest.fail(reason) if set_up.in_ci() else pytest.skip(reason)
    PLACE.mkdir(mode=0o755, exist_ok=True)
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield PLACE


@pytest.fixture(scope="session")
def deployment(one_host, set_up):
    """The site `onebox` moved to these tests' places and ports; nothing of it runs yet."""
    site = SITE.read_text()
    for old, new in {
        'url = "http://127.0.0.1:8000"': f'url = "http://127.0.0.1:{HUB_PORT}"\ninternal_port = {HUB_PORT + 1}\n'
        f"proxy_api_port = {HUB_PORT + 2}",
        '"/srv/phidias/hub"': f'"{PLACE}/hub"',
        '"/srv/phidias/slurm/': f'"{PLACE}/slurm/',
    }.items():
        assert site.count(old) == 1, f"{SITE} no longer says {old}."
        site = site.replace(old, new)
    (PLACE / "site.toml").write_text(site)
    moved = Deployment(PLACE / "site.toml", manifest=PLACE / "created.json", port=SLURM_PORT)
    moved.clear()
    people.remove(moved.manifest)
    yield moved
    moved.stop()


@pytest.fixture(scope="session")
def people_here(deployment, set_up):
    """alice and bob with their closed homes, and the hub's account: names, and the password of the demo log-in."""
    missing = people.missing(deployment.names)
    if missing and not (set_up.in_ci() or os.environ.get("SYSTEM") == "1"):
        pytest.skip(f"not run: needs {'; '.join(missing)}, which SYSTEM=1 creates for the time of the tests")
    try:
        people.create(deployment.names, deployment.manifest)
        alice, bob = deployment.names.users
        yield SimpleNamespace(alice=alice, bob=bob, hub=deployment.names.hub, password=deployment.password)
    finally:
        deployment.stop()
        people.remove(deployment.manifest)


@pytest.fixture(scope="session")
def slurm(deployment, people_here):
    """A Slurm with the nodes cpu1, gpu1 and gpu2, every one of them idle."""
    deployment.start_slurm()
    return deployment.slurm


@pytest.fixture(scope="session")
def users_environment(deployment, people_here):
    """The Python environment of the users' servers, with the demo lake beside it."""
    deployment.make_environment()
    return deployment.environment


@pytest.fixture(scope="session")
def hub(deployment, slurm, users_environment, people_here):
    """The running deployment: `hub.address`, `hub.password`, `hub.said("hub")`, `hub.end("hub")`, `hub.start_hub()`."""
    try:
        deployment.start_proxy()
        deployment.start_hub()
    except Refused as refusal:
        pytest.fail(str(refusal))
    return deployment


@pytest.fixture
def no_jobs(slurm):
    """The queue is empty before and after the test."""
    slurm.cancel_jobs()
    yield slurm
    slurm.cancel_jobs()


@pytest.fixture
def no_servers(hub, people_here, no_jobs):
    """The hub knows of no server, before and after the test."""

    def cancel() -> None:
        no_jobs.cancel_jobs()
        for user in (people_here.alice, people_here.bob):
            visitor = health.Visitor(hub.address)
            visitor.ask("GET", "/hub/login")
            form = {"username": user, "password": hub.password, "_xsrf": visitor.xsrf()}
            visitor.ask("POST", "/hub/login?next=%2Fhub%2Ftoken", form=form)

            def stopped(visitor=visitor, user=user) -> bool:
                return json.loads(visitor.ask("GET", f"/hub/api/users/{user}")[1])["servers"] == {}

            assert until(30, stopped), f"The hub still speaks of a server of {user}, whose job is gone."

    cancel()
    yield hub
    cancel()


@pytest.fixture
def as_user(deployment, slurm):
    """``as_user("alice", "sbatch", ...)`` runs a command under that account, with this Slurm; the finished process."""

    def run(user: str, *command: str, check: bool = True):
        done = run_as(user, list(command), slurm.environment())
        assert not check or done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        return done

    return run


#: Where clusters and runs go, with bounds that leave room for jobs that have to wait.
_CLUSTERS = """
name = "trial"
[slurm]
configuration = "CONFIGURATION"
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


@pytest.fixture(scope="session")
def places(one_host, slurm):
    """A site file with the places "slurm" and "slurm-gpu", for root and for users; nothing is in the queue."""
    shared = one_host / "clusters"
    shutil.rmtree(shared, ignore_errors=True)  # of a run that was killed, whose users had other numbers
    shared.mkdir()
    shared.chmod(0o1777)
    file = one_host / "clusters.toml"
    text = _CLUSTERS.replace("CONFIGURATION", slurm.environment()["SLURM_CONF"])
    file.write_text(text.replace("SHARED", str(shared)))
    slurm.cancel_jobs()
    yield file
    shutil.rmtree(shared)


@pytest.fixture
def here(places, monkeypatch, slurm):
    """This process is at the site of `places`, as root."""
    monkeypatch.setenv("PHIDIAS_SITE", str(places))
    for name, value in slurm.environment().items():
        monkeypatch.setenv(name, value)
    return places


@pytest.fixture(scope="session")
def unended(slurm):
    """``unended()``: the jobs in the queue that have not ended, each as its number and state."""

    def jobs() -> list[str]:
        found = run_as("root", ["squeue", "-h", "-o", "%i %T"], slurm.environment())
        assert found.returncode == 0, found.stderr
        return [line for line in found.stdout.splitlines() if not line.endswith("COMPLETING")]

    return jobs


@pytest.fixture
def nothing_left(slurm, places, unended):
    """The test leaves no job in the queue; it does not have to wait for that itself."""
    yield
    left = unended() if not until(15, lambda: not unended()) else []
    slurm.cancel_jobs()  # so that the next test does not suffer
    assert not left, "The test left jobs in the queue."


@pytest.fixture(scope="session")
def eventually():
    """``eventually(condition)``: wait until it is true."""

    def wait(condition, seconds: float = 60) -> None:
        assert until(seconds, condition), "It did not come about in time."

    return wait
