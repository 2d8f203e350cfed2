"""What bob tries on alice is refused, each time beside the same attempt by someone who may, or on something unguarded.

Without that other half a test would also pass where the thing is not there at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from hub_user import HubUser
from slurm_lab.slurm import run_as, until

SOURCE = (Path(__file__).parent / "attempts.py").read_text()
WORD = "only-alice-may-hear-this"
#: What alice's notebook does: workers, a run that waits, and output from time to time.
NOTEBOOK = f"""
import json, os, threading, time
from pathlib import Path
import phidias_lab, psutil
from ipykernel.connect import get_connection_file
cluster = phidias_lab.cluster("slurm", workers=1)
cluster.wait_for_workers(timeout=90)
cluster.dashboard()
run = phidias_lab.run("ocean.gridding", on="slurm-gpu")
Path.home().joinpath("notes-of-alice.txt").write_text("hers")
spill = cluster.client.run(lambda dask_worker: dask_worker.local_directory)
def speak():
    while True:
        print({WORD!r}, flush=True)
        time.sleep(0.2)
facts = {{
    "pid": os.getpid(), "connection": get_connection_file(), "home": str(Path.home()), "file": "notes-of-alice.txt",
    "cluster": str(cluster.folder), "scheduler": cluster.address, "worker": list(cluster.dask.scheduler_info["workers"])[0],
    "spill": list(spill.values())[0], "run": str(run.folder), "sockets": [
        c.laddr for p in psutil.process_iter() if p.uids().real == os.getuid() for c in p.net_connections("unix")
        if "phidias-dashboards-" in c.laddr and c.laddr.endswith("/socket")],
    "dask": cluster.name, "pages_socket": os.path.join(os.environ["PHIDIAS_DASK_PAGES"], cluster.name),
    "server": os.environ["JUPYTERHUB_SERVICE_URL"],
    "jobs": [os.environ["SLURM_JOB_ID"], cluster.workers[0].job, run.launched["job"]],
    "secrets": [os.environ["JUPYTERHUB_API_TOKEN"], json.loads(Path(get_connection_file()).read_text())["key"],
        (cluster.folder / "key.pem").read_text().splitlines()[2]],
}}
print(json.dumps(facts))
threading.Thread(target=speak, daemon=True).start()
"""
#: The output of another kernel, whose kind cannot encrypt, as is so for most that are not Python's.
PLAIN = f"""
import threading, time
def speak():
    while True:
        print({WORD!r}, flush=True)
        time.sleep(0.2)
threading.Thread(target=speak, daemon=True).start()
"""
#: The same things as other programs start them: a kernel and a scheduler that nothing guards.
UNGUARDED = f"""
import json, sys
from distributed import LocalCluster
from jupyter_client import KernelManager
kernel = KernelManager(kernel_name="python3")
kernel.start_kernel()
client = kernel.blocking_client()
client.start_channels()
client.wait_for_ready(60)
client.execute("import time\\nwhile True: print({WORD!r}, flush=True); time.sleep(0.2)")
cluster = LocalCluster(n_workers=0, protocol="tcp://", dashboard_address="127.0.0.1:0", host="127.0.0.1")
print(json.dumps({{"scheduler": cluster.scheduler_address}}), flush=True)
sys.stdin.readline()
cluster.close()
kernel.shutdown_kernel(now=True)
"""


@pytest.fixture(scope="module")
def scene(hub, people_here, slurm, one_host):
    """Alice at work at the hub, bob logged in with a server of his own, and all that bob could find out about hers."""
    slurm.cancel_jobs()
    since = time.time()
    run_as("root", ["scontrol", "update", "partitionname=gpu", "state=down"], slurm.environment())
    alice, bob = (HubUser(hub.address, name, hub.password) for name in (people_here.alice, people_here.bob))
    kernel = None
    own = Path(pwd.getpwnam(alice.name).pw_dir, ".local", "share", "jupyter", "kernels", "plain", "kernel.json")
    try:
        argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = json.dumps({"argv": argv, "display_name": "Plain", "language": "python"})
        run_as(alice.name, ["sh", "-c", f"mkdir -p {own.parent} && echo '{spec}' >{own}"], {})
        alice.start()
        kernel = alice.kernel()
        alice.run(alice.kernel("plain"), PLAIN)
        assert alice.ask("GET", f"/user/{alice.name}/phidias/", seconds=90).status_code == 200
        facts = alice.words(kernel, NOTEBOOK)
        spare = run_as(
            alice.name, ["sbatch", "--parsable", "-o", "/dev/null", "--wrap", "exec sleep 600"], slurm.environment()
        )
        facts |= {
            "owner": alice.name,
            "uid": pwd.getpwnam(alice.name).pw_uid,
            "since": since,
            "word": WORD,
            "spare": spare.stdout.strip(),
            "slurm": str(slurm.folder),
            "places": [str(one_host)],
            "database": str(slurm.database_socket),
        }
        (facts["socket"], *_) = facts.pop("sockets")
        facts["secrets"] += [alice.token, *hub.secrets()]
        bob.start()
        yield SimpleNamespace(alice=alice, bob=bob, facts=facts, kernel=kernel)
    finally:
        run_as("root", ["scontrol", "update", "partitionname=gpu", "state=up"], slurm.environment())
        slurm.cancel_jobs()
        for user in (alice, bob):
            until(40, lambda user=user: not user.server())
        shutil.rmtree(own.parent)
        with contextlib.suppress(FileNotFoundError):
            Path("/home", alice.name, "notes-of-alice.txt").unlink()


@pytest.fixture(scope="module")
def tries(deployment, scene, slurm):
    """``tries("bob", "pages", ...)``: what each of these attempts gives under that account."""

    def attempt(user: str, *names: str, **other) -> dict[str, str]:
        account = pwd.getpwnam(user)
        done = subprocess.run(
            [str(deployment.environment / "bin" / "python"), "-c", SOURCE, *names],
            input=json.dumps(scene.facts | other),
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(user, account.pw_gid),
            cwd=account.pw_dir,
            env={
                "HOME": account.pw_dir,
                "USER": user,
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "PHIDIAS_SITE": str(deployment.place / "site.toml"),
                **slurm.environment(),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        print(user, done.stdout)
        return json.loads(done.stdout.splitlines()[-1])

    return attempt


#: Attempts at what alice may do herself.
HERS = (
    "scheduler", "worker", "home", "notebook", "run_store", "run_record", "run_by_command", "job_list", "job_facts",
    "job_history", "batch_script", "into_the_job", "process_environment", "process_files", "process_memory",
    "process_signal", "kernel", "sockets_of_kernels", "dashboards_socket", "pages_socket", "spilled", "public_places",
    "secrets_in_files",
)  # fmt: skip
#: Attempts at what belongs to root, or at what nobody gets.
ROOTS = ("jobs_in_files", "accounting_database")
NOBODYS = ("scheduler_without_keys", "pages", "messages")


@pytest.fixture(scope="module")
def found(tries, scene):
    """All attempts at once, since each call of Python costs a second."""
    return {
        "alice": tries(scene.alice.name, *HERS, *NOBODYS),
        "bob": tries(scene.bob.name, *HERS, *ROOTS, *NOBODYS),
        "root": tries("root", *ROOTS),
    }


@pytest.mark.parametrize("name", HERS)
def test_what_alice_does_with_what_is_hers_is_refused_to_bob(found, name):
    assert not found["alice"][name].startswith("refused"), found["alice"][name]
    assert found["bob"][name].startswith("refused"), found["bob"][name]


@pytest.mark.parametrize("name", ROOTS)
def test_what_root_sees_of_slurm_is_refused_to_bob(found, name):
    assert not found["root"][name].startswith("refused"), found["root"][name]
    assert found["bob"][name].startswith("refused"), found["bob"][name]


@pytest.fixture(scope="module")
def without_guard(tries, deployment, scene):
    """The attempts of `NOBODYS` by bob, on a kernel and a scheduler of alice's that no part of this project has made."""
    account = pwd.getpwnam(scene.alice.name)
    process = subprocess.Popen(
        [str(deployment.environment / "bin" / "python"), "-c", UNGUARDED],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"HOME": account.pw_dir, "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = json.loads(process.stdout.readline())["scheduler"]
        yield tries(scene.bob.name, *NOBODYS, scheduler=address)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize("name", NOBODYS)
def test_what_a_port_of_the_machine_tells_everybody_is_told_by_none_of_alices(found, without_guard, name):
    assert found["bob"][name].startswith("refused"), found["bob"][name]
    assert found["alice"][name].startswith("refused"), found["alice"][name]
    assert not without_guard[name].startswith("refused"), without_guard[name]


def test_a_job_is_cancelled_by_its_owner_alone(tries, scene, as_user):
    def runs() -> bool:
        return as_user("root", "squeue", "-h", "-t", "R", "-j", scene.facts["spare"]).stdout != ""

    tries(scene.bob.name, "kill_job")
    time.sleep(1)
    assert runs()
    tries(scene.alice.name, "kill_job")
    assert until(15, lambda: not runs())


def test_a_run_is_cancelled_by_its_owner_alone(scene, deployment, slurm, as_user):
    job = scene.facts["jobs"][2]
    folder = Path(scene.facts["run"])
    python = str(deployment.environment / "bin" / "python")

    def waits() -> bool:
        return as_user("root", "squeue", "-h", "-t", "PD", "-j", job).stdout != ""

    def cancel(user: str):
        variables = slurm.environment() | {
            "PHIDIAS_RUNS": str(folder.parent),
            "PHIDIAS_SITE": str(deployment.place / "site.toml"),
        }
        return run_as(user, [python, "-m", "phidias_lab", "runs", "cancel", folder.name], variables)

    assert waits()
    refusal = cancel(scene.bob.name)
    assert refusal.returncode != 0
    assert "Traceback" not in refusal.stderr, refusal.stderr
    assert waits()
    done = cancel(scene.alice.name)
    assert done.returncode == 0, done.stderr
    assert until(15, lambda: not waits())


# At the hub's address --------------------------------------------------------------------------------------------------

PATHS = (
    "lab",
    "api/status",
    "api/contents",
    "api/kernels",
    "api/terminals",
    "files/notes-of-alice.txt",
    "phidias/",
    "phidias-dask/{dask}/status",
    "phidias-dask/{dask}/info/main/workers.html",
    "metrics",
)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_alices_server_answers_bob_or_a_stranger(scene, path, visit):
    path = path.format(**scene.facts)
    address = f"{scene.alice.address}/user/{scene.alice.name}/{path}"
    assert scene.alice.ask("GET", f"/user/{scene.alice.name}/{path}").status_code == 200
    assert scene.bob.ask("GET", f"/user/{scene.alice.name}/{path}").status_code in (403, 404)
    assert scene.bob.browser.look(address).status_code in (403, 404)
    stranger = visit(scene.alice.address).look(address)
    assert stranger.status_code == 403 or "/hub/login" in stranger.url


def test_the_port_of_alices_server_asks_for_her_token_too(scene):
    """Past the proxy: the address of her server is in no secret place, its port is seen by everybody on the node."""
    address = scene.facts["server"] + "api/contents"

    def asked(**headers) -> int:
        return requests.get(address, headers=headers, timeout=20, allow_redirects=False).status_code

    assert asked(Authorization=f"token {scene.alice.token}") == 200
    assert asked(Authorization=f"token {scene.bob.token}") in (302, 403)
    assert asked() in (302, 403)


def cookies(user: HubUser, path: str) -> dict[str, str]:
    """What the user's browser sends to a path, after the pages of that path were opened."""
    user.browser.look(path)
    sent = {c.name: c.value for c in user.browser.cookies if path.startswith(c.path)}
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in sent.items())}


#: Each with the page that opens it, where Bokeh's server asks for the token of a session that stands there.
WEBSOCKETS = {
    "phidias/ws": "phidias/",
    "phidias-dask/{dask}/status/ws": "phidias-dask/{dask}/status",
    "api/kernels/{kernel}/channels": None,
}


@pytest.mark.parametrize("path", WEBSOCKETS)
def test_websockets_below_alices_address_open_to_her_alone(scene, path):
    alice, bob = scene.alice, scene.bob
    page, path = WEBSOCKETS[path], path.format(kernel=scene.kernel, **scene.facts)
    more = {}
    if page:  # the token of its session bob may have overheard
        text = alice.ask("GET", f"/user/{alice.name}/{page.format(**scene.facts)}").text
        more = {"subprotocols": ["bokeh", text.split('"token":"', 1)[1].split('"', 1)[0]]}
    origin = {"Origin": alice.address}
    assert alice.refused(path, {"Authorization": f"token {alice.token}"}, **more) == 101
    assert alice.refused(path, origin | cookies(alice, f"/user/{alice.name}/lab"), **more) == 101
    assert alice.refused(path, origin, **more) in (302, 403)
    assert alice.refused(path, {"Authorization": f"token {bob.token}"}, **more) in (302, 403, 404)
    assert alice.refused(path, origin | cookies(bob, f"/user/{alice.name}/lab"), **more) in (302, 403, 404)
    # A page elsewhere that alice's browser opens must not speak with her server in her name.
    elsewhere = {"Origin": "http://elsewhere.example"} | cookies(alice, f"/user/{alice.name}/lab")
    assert alice.refused(path, elsewhere, **more) == 403


def test_by_bobs_own_server_no_pages_of_alices_cluster_are_reached(scene, as_user):
    """Neither by its name nor by a link to its socket that bob puts where his own server looks."""
    alice, bob, name = scene.alice, scene.bob, scene.facts["dask"]
    mine = bob.run(bob.kernel(), "import os; print(os.environ['PHIDIAS_DASK_PAGES'])").strip()
    path = f"/user/{bob.name}/phidias-dask/{name}/status"
    assert bob.ask("GET", path).status_code == 410
    as_user(bob.name, "ln", "-s", scene.facts["pages_socket"], f"{mine}/{name}")
    assert bob.ask("GET", path).status_code == 410
    as_user(bob.name, "rm", f"{mine}/{name}")
    for trick in (f"..%2f..%2f{scene.facts['pages_socket'].lstrip('/')}", f"../../{alice.name}/phidias-dask/{name}"):
        assert bob.ask("GET", f"/user/{bob.name}/phidias-dask/{trick}/status").status_code in (403, 404)
    assert alice.ask("GET", f"/user/{alice.name}/phidias-dask/{name}/status").status_code == 200


def test_bob_can_neither_start_nor_stop_nor_change_alices_server(scene):
    alice, bob = scene.alice, scene.bob
    before = alice.server()
    for method, path, body in (
        ("DELETE", f"/hub/api/users/{alice.name}/server", None),
        ("POST", f"/hub/api/users/{alice.name}/server", {"profile": "gpu"}),
        ("POST", f"/hub/api/users/{alice.name}/tokens", {}),
        ("GET", f"/hub/api/users/{alice.name}", None),
        ("GET", f"/hub/api/users/{alice.name}/server/progress", None),
        ("GET", "/hub/api/users", None),
        ("GET", "/hub/api/proxy", None),
        ("POST", "/hub/api/shutdown", {}),
    ):
        answer = bob.ask(method, path, body)
        assert answer.status_code in (403, 404) or answer.json() in ([], [{}]), (method, path, answer.text)
    assert alice.server() == before
    assert bob.ask("GET", f"/hub/api/users/{bob.name}").status_code == 200


def test_no_attribute_of_a_spawner_is_set_by_rest(scene):
    """What the spawner would run in the user's name, or in the hub's."""
    bob = scene.bob
    for body in ({"port": 8888, "cmd": "id"}, {"cmd": ["id"]}, {"queue": 1}, {"site": {}}):
        assert bob.ask("POST", "/hub/api/phidias/port", body).status_code == 400
    # Even a right body needs the token of a server that is starting, which is not the one of a person.
    assert bob.ask("POST", "/hub/api/phidias/port", {"port": 8888}).status_code == 403
    for options in ({"cmd": "id"}, {"environment": {"PATH": "/tmp"}}, {"profile": "cpu", "site": {}}, {"job": "1"}):
        answer = bob.ask("POST", f"/hub/api/users/{bob.name}/servers/other", options)
        assert answer.status_code in (400, 403, 404), answer.text
    assert bob.server()["user_options"].keys() <= {"profile", "cores", "memory_gib", "gpus", "hours", "environment"}
