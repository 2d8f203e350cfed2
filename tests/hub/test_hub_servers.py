"""Servers as Slurm jobs, on a real hub before the real one-host Slurm, with several users under their own accounts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[2]
#: A ready environment for the users' servers, where one is at hand; else it is made, which takes a minute.
ENVIRONMENT = os.environ.get("PHIDIAS_TEST_ENVIRONMENT", "/srv/phidias/environment")
#: Deployments of this machine keep their own users, account and rules. The tests in `slurm` run at the same time as these.
PLACE = Path("/srv/phidias-hub-tests")
ACCOUNT, SUDOERS = "phidias-try", Path("/etc/sudoers.d/phidias-try")

SITE = """
name = "try"
[hub]
url = "http://127.0.0.1:{port}"
internal_port = {inner}
proxy_api_port = {api}
proxy = "{proxy}"
state = "{folder}/state"
internal_tls = {tls}
[login]
kind = "demo"
users = ["carol", "dave"]
group = "phidias-try-users"
[servers]
kind = "slurm"
start_timeout = 60
[servers.environments.lab]
folder = "{environment}"
[servers.environments.broken]
folder = "{folder}/nowhere"
[servers.profiles.cpu]
partition = "cpu"
cores = {{ default = 1, max = 8 }}
memory_gib = {{ default = 1, max = 8 }}
hours = {{ default = 1, max = 12 }}
[servers.profiles.gpu]
partition = "gpu"
cores = {{ default = 1, max = 8 }}
memory_gib = {{ default = 1, max = 8 }}
gpus = {{ default = 1, max = 4 }}
[slurm]
configuration = "{folder}/slurm/etc/slurm.conf"
addresses = {{ "*" = "127.0.0.1" }}
poll_seconds = 0.5
query_timeout = 2
"""


def _unfit() -> str | None:
    """Why no Slurm can be started here."""
    missing = [
        name for name in ("slurmctld", "munged", "sudo") if not shutil.which(name, path="/usr/bin:/usr/sbin:/sbin")
    ]
    if missing:
        return f"not run: needs the system package of {', '.join(missing)}"
    if os.geteuid() != 0:
        return "not run: a Slurm with several users needs root"
    if not os.environ.get("CI") and os.environ.get("SYSTEM") != "1":
        return "not run: it creates system users, which SYSTEM=1 allows"
    return None


class Deployed:
    """A hub before a Slurm, and what the tests ask of it."""

    def __init__(self, folder: Path, *, tls: bool = False):
        from slurm_lab.deployment import Deployment

        from tests.hub.conftest import free_ports

        port, inner, api, first = free_ports(4)
        self.folder, self.tls = folder, tls
        site = folder / "site.toml"
        site.write_text(
            SITE.format(
                port=port,
                inner=inner,
                api=api,
                folder=folder,
                environment=ENVIRONMENT,
                tls="true" if tls else "false",
                # With TLS the hub makes the proxy's certificates, so the hub comes first and starts the proxy.
                proxy="child" if tls else "apart",
            )
        )
        self.lab = Deployment(site, manifest=folder / "created.json", port=18500 + first % 1000)
        self.lab.names.hub, self.lab.names.sudoers = ACCOUNT, SUDOERS
        self.address = self.lab.address

    def start(self) -> None:
        from slurm_lab import environment, people

        people.create(self.lab.names, self.lab.manifest)
        if "PHIDIAS_TEST_ENVIRONMENT" not in os.environ:
            environment.build(Path(ENVIRONMENT))
        (self.folder / "phidias_lab" / "compute").mkdir(parents=True)
        shutil.copy(ROOT / "phidias_lab/compute/site.schema.yaml", self.folder / "phidias_lab" / "compute")
        self.lab.place = self.folder / "hub-config"
        self.lab.start_slurm()
        if self.tls:
            self.lab._copy_configuration()
        else:
            self.lab.start_proxy()
        self.lab.start_hub()

    def stop(self) -> None:
        from slurm_lab import people

        self.lab.stop()
        people.remove(self.lab.manifest)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Slurm

    def slurm(self, *command: str, user: str | None = None) -> str:
        prefix = ["sudo", "-E", "-u", user] if user else []
        done = subprocess.run(
            [*prefix, *command],
            env={"PATH": "/usr/bin:/bin", "SLURM_CONF": str(self.lab.slurm_conf)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self, state: str = "PD,R,CG,CF") -> dict[str, str]:
        """Jobs in the queue: number to user."""
        lines = self.slurm("squeue", "-h", "-a", "-t", state, "-o", "%i %u").splitlines()
        return dict(line.split() for line in lines)

    def controller(self, number: int) -> None:
        """A signal to Slurm's controller."""
        pid = json.loads((self.lab.slurm.run / "pids.json").read_text())["slurmctld"][0]
        os.kill(pid, number)

    # --- the hub's API, as a user

    def user(self, name: str) -> User:
        return User(self, name)

    def quiet(self) -> None:
        """Ends all servers and jobs."""
        for name in ("carol", "dave"):
            self.user(name).end_all()
        until(20, lambda: not self.jobs() or (self._cancel_rest() and False), "the queue is empty")

    def _cancel_rest(self) -> bool:
        for number in self.jobs():
            subprocess.run(["scancel", number], env={"SLURM_CONF": str(self.lab.slurm_conf), "PATH": "/usr/bin"})
        return True


class User:
    """A person at the hub, by a browser's session and by a token."""

    def __init__(self, deployed: Deployed, name: str):
        from tests.hub.conftest import Visitor

        self.deployed, self.name = deployed, name
        self.browser = Visitor(deployed.address)
        answer = self.browser.log_in(name, deployed.lab.password)
        assert answer.status_code == 200, answer.text
        made = self.browser.post(
            f"{deployed.address}/hub/api/users/{name}/tokens", json={"note": "test"}, headers=self._xsrf(), timeout=30
        )
        self.token = made.json()["token"]

    def _xsrf(self) -> dict:
        value = next(c.value for c in self.browser.cookies if c.name == "_xsrf" and c.path == "/hub/")
        return {"X-XSRFToken": value, "Referer": self.deployed.address + "/hub/home"}

    def api(self, method: str, path: str, body=None, token: str | None = None) -> requests.Response:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                f"{self.deployed.address}/hub/api{path}",
                data=data,
                headers={"Authorization": f"token {token or self.token}"},
                timeout=90,
            )

    def form(self, **fields) -> requests.Response:
        data = {**fields, "_xsrf": self._xsrf()["X-XSRFToken"]}
        return self.browser.post(f"{self.deployed.address}/hub/spawn", data=data, timeout=60)

    def ask(self, options=None, name: str = "") -> requests.Response:
        return self.api("POST", f"/users/{self.name}/servers/{name}" if name else f"/users/{self.name}/server", options)

    def server(self, name: str = "") -> dict:
        return self.api("GET", f"/users/{self.name}").json()["servers"].get(name, {})

    def ready(self, name: str = "", seconds: float = 60) -> dict:
        until(seconds, lambda: not self.server(name).get("pending"), "the server is no longer pending")
        assert self.server(name).get("ready"), self.server(name)
        return self.server(name)

    def end(self, name: str = "") -> None:
        path = f"/users/{self.name}/servers/{name}" if name else f"/users/{self.name}/server"
        until(40, lambda: self.api("DELETE", path).status_code in (204, 404, 400), "the server could be stopped")
        until(40, lambda: not self.server(name).get("pending"), "the server has stopped")

    def end_all(self) -> None:
        for name in list(self.api("GET", f"/users/{self.name}").json()["servers"]):
            self.end(name)

    def says(self, seconds: float, wanted: str) -> list[str]:
        """What the page of the waiting server tells, until it tells what is wanted."""
        told, end = [], time.monotonic() + seconds
        with requests.Session() as session:
            session.trust_env = False
            stream = session.get(
                f"{self.deployed.address}/hub/api/users/{self.name}/server/progress",
                headers={"Authorization": f"token {self.token}"},
                stream=True,
                timeout=seconds + 20,
            )
            for line in stream.iter_lines(decode_unicode=True):
                if line and line.startswith("data: "):
                    told.append(json.loads(line[6:])["message"])
                    if re.search(wanted, told[-1]):
                        return told
                if time.monotonic() > end:
                    break
        raise AssertionError(f"Within {seconds} s nothing like {wanted!r} was said: {told}")


def until(seconds: float, condition, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"Not within {seconds} s: {what}"
        time.sleep(0.2)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """The right to use this machine's one place for these tests."""
    PLACE.mkdir(mode=0o755, exist_ok=True)
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cleared(name: str) -> Path:
    """An empty folder for a deployment; what a killed run has left there, and what it had created, is ended and removed."""
    from slurm_lab import people
    from slurm_lab.deployment import Deployment

    folder = PLACE / name
    if (folder / "site.toml").exists():
        left = Deployment(folder / "site.toml", manifest=folder / "created.json")
        left.clear()
        people.remove(left.manifest)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture(scope="module")
def deployed(proxy_installed):
    reason = _unfit()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with alone():
        running = Deployed(cleared("plain"))
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture
def hub(deployed):
    yield deployed
    deployed.quiet()


def environment_of(job: str) -> dict[str, str]:
    """The environment of a job's server, which root may read."""
    ours = {pwd.getpwnam(name).pw_uid for name in ("carol", "dave")}  # another Slurm has a job of this number too
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid not in ours:
                continue
            text = (folder / "environ").read_bytes().decode(errors="replace")
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"SLURM_JOB_ID={job}\0" in text and b"jupyterhub.singleuser" in words:
            return dict(line.partition("=")[::2] for line in text.split("\0"))
    raise AssertionError(f"No server of job {job} runs")


def test_a_server_is_a_job_of_the_user_with_what_was_chosen_and_ends_with_it(hub):
    carol = hub.user("carol")
    stranger = Path(pwd.getpwnam("carol").pw_dir) / "random.py"
    stranger.write_text("raise SystemExit('This is no module of the server.')\n")
    try:
        assert carol.form(profile="gpu", **{"gpu.gpus": "2", "gpu.cores": "3"}).status_code == 200
        carol.ready()
    finally:
        stranger.unlink()
    (job,) = hub.jobs()
    shown = hub.slurm("scontrol", "show", "job", job)
    for fact in ("UserId=carol(", "Partition=gpu", "NumCPUs=3", "gres:gpu:2", "MinMemoryNode=1G", "Requeue=0"):
        assert fact in shown, shown
    variables = environment_of(job)
    token = variables["JUPYTERHUB_API_TOKEN"]
    script = hub.slurm("scontrol", "write", "batch_script", job, "-")
    assert token not in shown
    assert token not in script
    commands = b"".join(p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK))
    assert token.encode() not in commands
    assert abs(int(variables["PHIDIAS_SERVER_ENDS"]) - time.time()) < 13 * 3600
    assert variables["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert variables["HOME"] == pwd.getpwnam("carol").pw_dir
    sockets = Path(variables["JUPYTER_RUNTIME_DIR"])
    assert (sockets.owner(), sockets.stat().st_mode & 0o777) == ("carol", 0o700)
    log = Path(variables["HOME"]) / f".phidias/logs/server-{job}.log"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.owner() == "carol"
    assert token not in log.read_text()
    answer = requests.get(
        f"{hub.address}/user/carol/api/status", headers={"Authorization": f"token {carol.token}"}, timeout=30
    )
    assert answer.status_code == 200
    dave = hub.user("dave")
    assert dave.browser.get(f"{hub.address}/user/carol/api/status", timeout=30).status_code in (403, 404)
    carol.end()
    assert not hub.jobs("PD,R,CF")
    until(10, lambda: not sockets.exists(), "the folder of the kernels' sockets went with the server")


def test_nothing_hostile_passes_any_of_the_three_doors_and_none_of_it_is_remembered(hub):
    carol, before = hub.user("carol"), hub.jobs("all")
    for body in (
        {"profile": "cpu; touch /tmp/x"},
        {"profile": ["cpu"]},
        {"profile": {"cpu": 1}},
        {"cores": True},
        {"cores": 10**400},
        {"cores": "1\n2"},
        {"pröfile": "é"},
        {"req_prologue": "id"},
        {"user_options": {"cmd": "id"}},
        b'{"cores": 1e999}',
        b'{"hours": NaN}',
    ):
        answer = carol.ask(body)
        assert answer.status_code == 400, (body, answer.text)
        assert answer.json()["message"].endswith((".", "?"))
    for query in ("profile=gpu;id", "cores=1%0A2", "profile=cpu&profile=gpu", "opt-cmd=id", "cores=%EF%BC%91"):
        answer = carol.browser.get(f"{hub.address}/hub/spawn?{query}", timeout=30)
        assert answer.status_code == 400, query
        assert "spawn-error-msg" in answer.text
    for fields in ({"profile": "cpu", "cpu.cores": "$(id)"}, {"profile": "cpu", "<script>": "1"}, {"profile": "no"}):
        answer = carol.form(**fields)
        assert answer.status_code == 400, fields
        assert "spawn-error-msg" in answer.text
    # JupyterHub stores what was sent before anybody looks at it, and starts with it again when nothing is sent.
    assert carol.ask({"profile": "evil"}).status_code == 400
    assert hub.jobs("all") == before
    assert carol.ask().status_code in (201, 202)
    carol.ready()
    assert carol.server()["user_options"]["profile"] == "cpu"


def test_the_port_is_told_by_the_servers_own_token_and_as_a_port_alone(hub):
    carol, dave = hub.user("carol"), hub.user("dave")
    # A server that runs and never tells its port by itself, so that there is one to be told.
    hub.slurm("scontrol", "update", "partitionname=cpu", "state=down")
    try:
        assert carol.ask({"profile": "cpu"}).status_code in (201, 202)
        assert dave.ask({"profile": "gpu"}).status_code in (201, 202)
        dave.ready()
        (daves,) = (job for job, user in hub.jobs().items() if user == "dave")
        own = environment_of(daves)["JUPYTERHUB_API_TOKEN"]

        def tell(body, token):
            return dave.api("POST", "/phidias/port", body, token=token).status_code

        assert tell({"port": 8888}, "nonsense") == 403
        assert tell({"port": 8888}, carol.token) == 403
        assert tell({"port": 8888}, dave.token) == 403
        for body in (
            {"port": 8888.0},
            {"port": True},
            {"port": "8888"},
            {"port": 80},
            {"port": 70000},
            {"port": [8888]},
            {"port": 8888, "job": "1"},
            {"port": 8888, "exec_prefix": "id"},
            {},
            [8888],
            8888,
            b"{",
        ):
            assert tell(body, own) == 400, body
        # Told once; a second, different word is not taken, and carol's waiting server has heard nothing.
        assert tell({"port": 8888}, own) == 409
        assert carol.server()["pending"] == "spawn"
    finally:
        hub.slurm("scontrol", "update", "partitionname=cpu", "state=up")
    carol.ready()


def test_a_waiting_server_says_why_and_when_and_leaves_the_queue_when_stopped(hub):
    carol = hub.user("carol")
    for _ in range(2):
        hub.slurm(
            "sbatch", "-p", "gpu", "--gres=gpu:2", "-t", "5", "-o", "/dev/null", "--wrap", "sleep 300", user="dave"
        )
    until(20, lambda: len(hub.jobs("R")) == 2, "both nodes are taken")
    time.sleep(1.5)  # what is free is looked up once a second
    form = carol.browser.get(f"{hub.address}/hub/spawn", timeout=30).text
    said = re.findall(r'text-muted">(.*?)</div>', form)
    assert re.fullmatch(
        r"All full; expected to start at \d\d:\d\d, in about [45] minutes: 0 of 2 nodes idle, 0 of 4 GPUs free.",
        said[1],
    ), said
    assert carol.ask({"profile": "gpu"}).status_code == 202
    told = carol.says(15, r"no node has enough room free now.*expected to start at")
    assert "dave" not in "".join(told)
    page = carol.browser.get(f"{hub.address}/hub/spawn-pending/carol", timeout=30).text
    assert "your place in the queue is kept" in page
    carol.end()
    assert "carol" not in hub.jobs("PD,R,CF").values()


def test_what_no_node_has_is_refused_at_once_with_what_would_fit(hub):
    answer = hub.user("carol").ask({"profile": "gpu", "gpus": 3})
    assert answer.status_code == 400
    assert "No node of the partition gpu has" in answer.text
    assert "and 2 GPUs." in answer.text
    assert not hub.jobs()


def test_a_job_that_dies_before_its_server_answers_says_why_within_seconds(hub):
    carol = hub.user("carol")
    begun = time.monotonic()
    answer = carol.ask({"environment": "broken"})
    assert answer.status_code == 500
    assert time.monotonic() - begun < 10
    told = answer.json()["message"]
    assert "Python of the environment is missing" in told
    assert "exit code 77" in told
    log = re.search(r"/\S+/\.phidias/logs/server-\d+\.log", told)[0]
    assert "nowhere/bin/python" in Path(log).read_text()
    page = carol.browser.get(f"{hub.address}/hub/spawn-pending/carol", timeout=30).text
    assert "Python of the environment is missing" in page


def test_a_job_that_is_cancelled_while_its_user_waits_says_so(hub):
    carol = hub.user("carol")
    hub.slurm("scontrol", "update", "partitionname=cpu", "state=down")
    try:
        carol.ask({"profile": "cpu"})
        carol.says(10, "the partition is closed for now")
        (job,) = hub.jobs()
        hub.slurm("scancel", job)
        carol.says(10, "it was cancelled.*Its log is")
    finally:
        hub.slurm("scontrol", "update", "partitionname=cpu", "state=up")


def test_a_queue_that_hangs_leaves_servers_alone_and_is_said_to_be_silent(hub):
    carol, dave = hub.user("carol"), hub.user("dave")
    carol.ask({"profile": "cpu"})
    carol.ready()
    hub.controller(signal.SIGSTOP)
    try:
        time.sleep(6)
        assert "does not answer" in dave.browser.get(f"{hub.address}/hub/spawn", timeout=60).text
        answer = dave.ask({"profile": "cpu"})
        assert answer.status_code == 503
        assert "does not answer" in answer.text
        assert carol.server()["ready"]
        status = {"Authorization": f"token {carol.token}"}
        assert requests.get(f"{hub.address}/user/carol/api/status", headers=status, timeout=30).status_code == 200
    finally:
        hub.controller(signal.SIGCONT)
    # Whatever sbatch had handed over when it was given up belongs to nobody, and is cancelled.
    until(30, lambda: list(hub.jobs().values()) == ["carol"], "only carol's server is in the queue")
    assert carol.server()["ready"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_outlives_the_hub(hub, number):
    carol = hub.user("carol")
    carol.ask({"profile": "cpu"})
    carol.ready()
    jobs = hub.jobs()
    hub.lab.end("hub", number)
    status = {"Authorization": f"token {carol.token}"}
    hub.lab.start_hub()
    carol = hub.user("carol")
    assert carol.ready()["ready"]
    assert hub.jobs() == jobs
    assert requests.get(f"{hub.address}/user/carol/api/status", headers=status, timeout=30).status_code == 200
    carol.end()
    assert not hub.jobs("PD,R,CF")


def test_a_server_that_waits_when_the_hub_is_killed_keeps_its_job_and_its_token(hub):
    carol = hub.user("carol")
    hub.slurm("scontrol", "update", "partitionname=cpu", "state=down")
    try:
        carol.ask({"profile": "cpu"})
        carol.says(10, "closed for now")
        jobs = hub.jobs()
        assert list(jobs.values()) == ["carol"]
        hub.lab.end("hub", signal.SIGKILL)
        hub.lab.start_hub()
        carol = hub.user("carol")
        carol.says(10, "closed for now")
    finally:
        hub.slurm("scontrol", "update", "partitionname=cpu", "state=up")
    carol.ready()
    assert hub.jobs() == jobs
    status = {"Authorization": f"token {carol.token}"}
    assert requests.get(f"{hub.address}/user/carol/api/status", headers=status, timeout=30).status_code == 200


def test_a_job_that_belongs_to_no_server_is_cancelled_and_a_forged_mark_harms_nobody_else(hub):
    carol = hub.user("carol")
    carol.ask({"profile": "cpu"})
    carol.ready()
    (kept,) = hub.jobs()
    mark = re.search(r"Comment=(phidias \S+ \S+ \S+ \S+)", hub.slurm("scontrol", "show", "job", kept))[1]
    stray = re.sub("start=.*", "start=0", mark)
    more = ("-p", "cpu", "-o", "/dev/null", "--wrap", "sleep 300", "--job-name=phidias-server")
    lost = hub.slurm("sbatch", "--parsable", f"--comment={stray}", *more, user="carol")
    until(20, lambda: lost not in hub.jobs("PD,R,CF"), "the stray job is cancelled")
    # dave pretends to be carol's server, and that carol's job has failed.
    token = "0" * 16
    forged = f"{stray}\n{kept}|carol|FAILED|None|n|1|2|x\n{token}|{kept}|carol|FAILED|None|n|1|2|x"
    daves = hub.slurm("sbatch", "--parsable", f"--comment={forged}", *more, user="dave")
    time.sleep(5)
    assert carol.server()["ready"]
    assert {kept, daves} <= hub.jobs().keys()


def test_hub_and_server_speak_tls_with_keys_that_only_the_user_can_read(proxy_installed):
    reason = _unfit()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    hub = Deployed(cleared("tls"), tls=True)
    try:
        hub.start()
        carol = hub.user("carol")
        assert carol.ask({"profile": "cpu"}).status_code in (201, 202)
        carol.ready()
        (job,) = hub.jobs()
        variables = environment_of(job)
        assert variables["JUPYTERHUB_SERVICE_URL"].startswith("https://")
        assert variables["JUPYTERHUB_API_URL"].startswith("https://")
        key = Path(variables["JUPYTERHUB_SSL_KEYFILE"])
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.owner() == "carol"
        assert key.parent.stat().st_mode & 0o777 == 0o700
        assert not any(name.startswith("PHIDIAS_TLS_") for name in variables)
        status = {"Authorization": f"token {carol.token}"}
        answer = requests.get(f"{hub.address}/user/carol/api/status", headers=status, timeout=30)
        assert answer.status_code == 200
        # Without a certificate of the hub's, the server's own port answers nobody.
        address = variables["JUPYTERHUB_SERVICE_URL"].removesuffix("/user/carol/")
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"{address}/user/carol/api/status", headers=status, verify=False, timeout=10)
    finally:
        try:
            hub.quiet()
        finally:
            print(hub.lab.said("hub")[-3000:])
            hub.stop()
