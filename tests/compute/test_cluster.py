"""Clusters: what may be asked for, what gets into a batch script, and workers of this machine that come and are lost."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path

import psutil
import pytest

import phidias_lab
from phidias_lab.compute import cluster as clusters
from phidias_lab.compute import environment, keys, request, runs, site, slurm
from phidias_lab.contract.resources import Resources, parse_memory
from phidias_lab.errors import ParameterError, ProductError, RunFailedError, UnknownNameError

ROOT = Path(__file__).parents[2]
SITE = """
name = "trial"
[servers.environments.lab]
folder = "/opt/lab"
[slurm]
modules = ["cuda/12.6"]
[clusters.local]
kind = "local"
workers = { default = 1, max = 4 }
cores = { default = 1, max = 2 }
silent_seconds = 5
shared_folder = "SHARED"
[clusters.batch]
partition = "cpu"
account = "eo"
environment = "lab"
workers = { default = 2, max = 8 }
cores = { default = 1, max = 4 }
memory_gib = { default = 2, max = 8 }
hours = { default = 1, max = 12 }
shared_folder = "SHARED"
[clusters.gpus]
partition = "gpu"
workers = { default = 2, max = 4 }
cores = { default = 1, max = 4 }
memory_gib = { default = 2, max = 8 }
gpus = { default = 1, max = 2 }
hours = { default = 1, max = 4 }
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A site of this machine, whose clusters keep their keys in a folder of the test."""
    file = tmp_path / "site.toml"
    file.write_text(SITE.replace("SHARED", str(tmp_path / "shared")))
    monkeypatch.setenv("PHIDIAS_SITE", str(file))
    return site.read(file)


def test_a_network_that_this_machine_does_not_have_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    file = tmp_path / "site.toml"
    wrong = SITE.replace('account = "eo"', 'interface = "ib7"').replace("SHARED", str(tmp_path / "shared"))
    file.write_text(wrong)
    monkeypatch.setenv("PHIDIAS_SITE", str(file))
    with pytest.raises(ParameterError, match=r"network interface 'ib7'.* it has lo.*clusters.batch.interface"):
        phidias_lab.cluster("batch")
    assert not (tmp_path / "shared").exists()


def test_a_cluster_that_cannot_be_made_asks_no_queue_and_leaves_no_keys_and_no_process(here, tmp_path, monkeypatch):
    def broken(owner):
        raise OSError("no port is free")

    monkeypatch.setattr(clusters, "_made", broken)
    monkeypatch.setenv("PATH", "/nowhere")  # no squeue that could say what is in the queue
    with pytest.raises(OSError, match="no port"):
        phidias_lab.cluster("batch")
    assert list((tmp_path / "shared").rglob("key.pem")) == []
    mine = [p for p in psutil.Process().children() if "phidias_lab.compute.watchdog" in p.cmdline()]
    assert all(p.status() == psutil.STATUS_ZOMBIE for p in mine)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with contextlib.suppress(OSError), open(disk / "filling", "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_a_full_disk_below_the_keys_is_one_sentence_and_nothing_is_left(here, small_disk, tmp_path, monkeypatch):
    (tmp_path / "shared").symlink_to(small_disk)
    (small_disk / "keys").mkdir(mode=0o700)
    fill(small_disk)
    said = r"keys/phidias-\w+ cannot be written: No space left on device.* Free some space there, or name another place"
    before = {p.pid for p in psutil.Process().children()}
    with pytest.raises(ProductError, match=said):
        phidias_lab.cluster("batch", workers=1)
    assert list((small_disk / "keys").iterdir()) == []
    # The process says nothing more when it ends.
    code = (
        "import phidias_lab\ntry: phidias_lab.cluster('batch', workers=1)\nexcept OSError as e: print(type(e).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ProductError\n", "")
    # Full a little later: the keys still found room.
    monkeypatch.setattr(
        clusters.Cluster, "_start", lambda owner: fill(small_disk) or runs.write_text(owner.folder / "a", "b")
    )
    (small_disk / "filling").unlink()
    with pytest.raises(ProductError, match=said):
        phidias_lab.cluster("batch", workers=1)
    assert list((small_disk / "keys").iterdir()) == []
    assert {p.pid for p in psutil.Process().children()} == before


def test_a_run_whose_workers_find_the_disk_full_blames_no_input(here, small_disk, tmp_path):
    (tmp_path / "shared").symlink_to(small_disk)
    (small_disk / "keys").mkdir(mode=0o700)
    fill(small_disk)
    run = phidias_lab.run("probe.slow", on="local", workers=1, pieces=2, seconds=0.05)
    assert run.wait(60) == "failed"
    assert re.search(r"shared/keys/phidias-\w+ cannot be written: No space left on device", run.error)
    assert "input" not in run.error


@pytest.fixture
def pair(here):
    with phidias_lab.cluster("local", workers=2) as cluster:
        cluster.wait_for_workers(timeout=90)
        yield cluster


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.05)


@pytest.mark.parametrize("wanted", [-1, "a", 1.5, True])
def test_a_number_of_workers_to_wait_for_that_is_none_is_refused(wanted):
    cluster = object.__new__(clusters.Cluster)  # refused before anything of it is looked at
    cluster._closed, cluster.name = threading.Event(), "phidias-0"
    cluster._closed.set()
    with pytest.raises(
        ParameterError, match=rf"workers is {re.escape(repr(wanted))}; it must be a whole number from 0 up"
    ):
        cluster.wait_for_workers(wanted)


@pytest.mark.parametrize("timeout", ["a", float("nan"), -1])
def test_a_time_to_wait_for_workers_that_is_none_is_refused(timeout):
    cluster = object.__new__(clusters.Cluster)
    cluster._closed, cluster.name = threading.Event(), "phidias-0"
    cluster._closed.set()
    with pytest.raises(ParameterError, match=r"timeout is .*; it must be a number of seconds from 0 up"):
        cluster.wait_for_workers(1, timeout=timeout)


def test_what_a_chain_is_not_is_named_in_plain_words(here):
    with pytest.raises(ParameterError, match=r"chain is 5; give a chain's id, its class or a chain\."):
        phidias_lab.cluster("local", chain=5)


# What may be asked for ------------------------------------------------------------------------------------------------


def test_what_is_not_given_is_what_the_chain_declares_else_the_default_of_the_site(here):
    plain = request.request(here, "gpus")
    assert (plain.workers, plain.cores, plain.memory, plain.gpus, plain.minutes) == (2, 1, 2 * 2**30, 1, 60)
    need = Resources(cores=3, memory="5GiB", gpus=2, walltime="00:20:00")
    declared = request.request(here, "gpus", need=need)
    assert (declared.cores, declared.memory, declared.gpus, declared.minutes) == (3, 5 * 2**30, 2, 20)
    given = request.request(here, "gpus", need=need, cores=2, memory="1GiB", gpus=1, hours=0.5, workers=1)
    assert (given.workers, given.cores, given.memory, given.gpus, given.minutes) == (1, 2, 2**30, 1, 30)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"workers": 10**9}, "You asked for 1000000000 workers, but batch gives at most 8"),
        (
            {"memory": 1},
            r"memory is 1 B; a worker needs at least 128.0 MiB, because Python and the libraries of the lab take",
        ),
        ({"memory": "1MiB"}, r"memory is 1.0 MiB; a worker needs at least 128.0 MiB"),
        ({"hours": 1e-9}, "hours is 1e-09; the least is a minute of wall time, because Slurm counts whole minutes"),
        ({"workers": 9}, "You asked for 9 workers, but batch gives at most 8"),
        ({"cores": 5}, "5 cores per worker, but batch gives at most 4"),
        ({"memory": "9GiB"}, r"9.0 GiB of memory per worker, but batch gives at most 8.0 GiB"),
        ({"gpus": 1}, "You asked for 1 GPU per worker, but batch gives none. Ask for none, or choose another place"),
        ({"hours": 13}, "780 minutes of wall time, but batch gives at most 720"),
        ({"need": Resources(memory="9GiB")}, "The chain needs 9.0 GiB"),
        ({"workers": -1}, "whole number from 0"),
        ({"cores": 1.5}, "whole number from 1"),
        ({"cores": True}, "whole number from 1"),
        ({"hours": 0}, "above 0"),
        ({"hours": float("nan")}, "above 0"),
        ({"memory": "8GB"}, "not an amount of memory"),
    ],
)
def test_more_than_the_site_allows_is_refused_with_the_bound(here, asked, sentence):
    with pytest.raises(ParameterError, match=sentence):
        request.request(here, "batch", **asked)


def test_a_refusal_offers_other_places_where_there_are_some_and_never_the_one_that_refuses(here):
    with pytest.raises(ParameterError, match=r"Ask for less, or choose another place: local, gpus\.$"):
        request.request(here, "batch", workers=1000)
    alone = site.checked({"name": "x"}, "a test")
    with pytest.raises(ParameterError, match=r"but local gives at most \d+\. Ask for less\.$"):
        request.request(alone, "local", workers=1000)


@pytest.mark.parametrize("allowed", [{}, {"clusters": {"local": {"kind": "local", "memory_gib": {"max": 10**6}}}}])
def test_this_machine_gives_at_most_the_memory_that_it_has(allowed):
    alone = site.checked({"name": "x", **allowed}, "a test")
    total = psutil.virtual_memory().total
    with pytest.raises(
        ParameterError, match=r"of memory per worker, but local gives at most [\d.]+ GiB\. Ask for less\.$"
    ):
        request.request(alone, "local", memory=total + 2**20)
    assert request.request(alone, "local", memory=total).memory == total
    # What a chain declares is no wish of the user's: it runs with what there is.
    assert request.request(alone, "local", need=Resources(memory="900000GiB")).memory == total


def test_a_chain_for_gpus_runs_on_processors_where_there_are_none_and_says_so(here):
    asked = request.request(here, "batch", need=Resources(gpus=1))
    assert asked.gpus == 0
    assert "batch has no GPUs, so the chain runs on processors there." in asked.notes


def test_an_unknown_place_offers_the_near_one(here):
    with pytest.raises(UnknownNameError, match="Did you mean 'gpus'"):
        phidias_lab.cluster("gpu")


@pytest.mark.parametrize("adapt", [(2, 1), (0, 0), 3, (0, 1.5), (-1, 2)])
def test_a_range_that_is_none_is_refused(here, adapt):
    with pytest.raises(ParameterError, match="least and the most"):
        phidias_lab.cluster("local", adapt=adapt)


# What gets into a batch script ----------------------------------------------------------------------------------------


class Owner(clusters.Cluster):
    """A cluster that was asked for and has not begun: what a script is written from."""

    def __init__(self, here, folder, place, **asked):
        self.request, self.site, self.place = request.request(here, place, **asked), here, request.place(here, place)
        self.folder, self.name = folder, "phidias-0"
        folder.mkdir(exist_ok=True)


def script_of(owner) -> list[str]:
    """The lines that dask-jobqueue writes for a worker of this cluster."""
    from phidias_lab.compute import slurm_workers

    job = slurm_workers.WorkerJob("tls://127.0.0.1:1", "worker-0", **slurm_workers.job_options(owner))
    with job.job_file() as file:
        return Path(file).read_text().splitlines()


def test_a_worker_s_script_holds_the_request_and_no_secret(here, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "abc")
    monkeypatch.setenv("PHIDIAS_DEMO_PASSWORD", "abc")
    monkeypatch.setenv("PHIDIAS_LAKE", "/lake")
    here["clusters"]["gpus"]["scratch"] = "/scratch/{user}'s"
    here["clusters"]["gpus"]["qos"] = "normal"
    owner = Owner(here, tmp_path / "a b%c", "gpus", gpus=2, cores=3, memory="3.001GiB", hours=1.5)
    lines = script_of(owner)
    assert lines[0] == "#!/bin/bash"
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert directives == [
        "-J phidias-0",
        "-p gpu",
        "-n 1",
        "--cpus-per-task=3",
        "--mem=3074M",
        "-t 01:30:00",
        "--nodes=1",
        "--no-requeue",
        "--qos=normal",
        "--gres=gpu:2",
        f"--output='{tmp_path}/a b%%c/job-%j.log'",
    ]
    assert f"[ -e '{owner.folder}/alive' ] || exit 0  # its cluster has ended" in lines
    assert "module load cuda/12.6" in lines
    command = shlex.split(lines[-1])
    assert command[:5] == ["exec", sys.executable, "-m", "phidias_lab.compute.worker", "tls://127.0.0.1:1"]
    said = dict(zip(command[5::2], command[6::2], strict=True))
    assert said == {
        "--name": "worker-0",
        "--nthreads": "2",
        "--memory-limit": str(parse_memory("3.001GiB")),
        "--death-timeout": "30",
        "--local-directory": f"/scratch/{getpass.getuser()}'s",
        "--folder": str(owner.folder),
        "--resources": "GPU=2",
        "--lifetime": "5280s",
    }
    passed = slurm.Slurm(here).passed()
    assert "PHIDIAS_LAKE" in passed
    assert not {"JUPYTERHUB_API_TOKEN", "PHIDIAS_DEMO_PASSWORD"} & set(passed)


def test_a_place_of_slurm_is_a_cluster_of_dask_jobqueue():
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.slurm import SLURMJob

    from phidias_lab.compute import slurm_workers

    assert issubclass(slurm_workers.WorkerJobs, SLURMCluster)
    assert issubclass(slurm_workers.WorkerJobs.job_cls, SLURMJob)


@pytest.mark.filterwarnings("error")
def test_what_users_set_for_dask_jobqueue_of_their_own_changes_no_script(here, tmp_path):
    import dask

    owner = Owner(here, tmp_path / "keys", "batch")
    plain = script_of(owner)
    texts = ("account", "queue", "project", "python", "shebang", "interface", "walltime", "name", "job-mem")
    lists = ("extra", "worker-extra-args", "env-extra", "job-script-prologue", "job-extra", "job-extra-directives")
    strange = {
        **{key: "strange" for key in texts},
        **{key: ["--strange"] for key in lists},
        **{key: ["-p"] for key in ("job-directives-skip", "header-skip")},
        **{key: str(tmp_path / "strange") for key in ("local-directory", "log-directory")},
    }
    with dask.config.set({"jobqueue": {"slurm": strange, "phidias-lab": strange}}):
        assert script_of(owner) == plain
    assert not (tmp_path / "strange").exists()


def test_a_site_may_name_the_account_and_the_environment_of_its_workers(here):
    place = request.place(here, "batch")
    lines = slurm.directives(place, name="x", cores=1, memory=2**30, gpus=0, minutes=25 * 60)
    assert "--account=eo" in lines
    assert "--time=1-01:00:00" in lines
    assert not [line for line in lines if "gres" in line]
    assert slurm.python(place, here) == "/opt/lab/bin/python"
    with pytest.raises(ParameterError, match="holds signs"):
        slurm.directives({**place, "account": "a\n#SBATCH --x"}, name="x", cores=1, memory=1, gpus=0, minutes=1)


def test_no_line_can_be_smuggled_into_a_worker_s_script(here, tmp_path):
    for key in ("partition", "account", "qos"):
        here["clusters"]["batch"][key] = "a\n#SBATCH --x"
        with pytest.raises(ParameterError, match="holds signs"):
            script_of(Owner(here, tmp_path / "keys", "batch"))
        here["clusters"]["batch"][key] = "a"


def test_a_job_inside_a_job_does_not_inherit_its_requests(here, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    found = slurm.Slurm(here).environment()
    assert found["SLURM_CONF"] == "/etc/slurm.conf"
    assert not {"SLURM_JOB_ID", "SBATCH_PARTITION"} & set(found)


# What Slurm says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "state", "why"),
    [
        ("7|PENDING|Resources|2030-01-01T10:00:00|", "pending", "all nodes that fit are busy"),
        ("7|PENDING|(ReqNodeNotAvail, UnavailableNodes:gpu1)|N/A|", "pending", "down, reserved or drained"),
        ("7|PENDING|Nonsense|N/A|", "pending", "Slurm says 'Nonsense'"),
        ("7|RUNNING|None|2026-01-01T10:00:00|gpu1", "running", ""),
        ("7|TIMEOUT|TimeLimit|2026-01-01T10:00:00|gpu1", "ended", "its wall time was over"),
        ("7|NODE_FAIL|None|2026-01-01T10:00:00|gpu1", "ended", "its node was lost"),
        ("7|OUT_OF_MEMORY|None|2026-01-01T10:00:00|gpu1", "ended", "more memory than it had asked for"),
    ],
)
def test_the_state_of_a_job_is_said_in_plain_words(line, state, why):
    job = slurm._job(line)
    assert job.state == state
    assert why in job.why
    assert job.start is None or isinstance(job.start, datetime)


def test_without_slurm_the_sentence_names_its_programs(here):
    bare = {**here, "slurm": {**here["slurm"], "programs": "/nowhere"}}
    with pytest.raises(slurm.QueueError, match="sbatch is not in /nowhere"):
        slurm.Slurm(bare).submit("#!/bin/bash")


def test_a_job_is_not_taken_for_a_part_of_the_lab_that_asked_for_it(here, monkeypatch):
    """`make lab` ends, at its own end, every process and run that carries its mark; a job of Slurm outlives it."""
    monkeypatch.setenv("PHIDIAS_LAB", "lab-1")
    monkeypatch.setenv("PHIDIAS_RUNS", "/runs")
    passed = slurm.Slurm(here).passed()
    assert "PHIDIAS_RUNS" in passed
    assert "PHIDIAS_LAB" not in passed


#: What squeue of Slurm 22.05 says where there is no slurm.conf.
UNSET = """squeue: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
squeue: error: fetch_config: DNS SRV lookup failed
squeue: error: _establish_config_source: failed to fetch config
squeue: fatal: Could not establish a configuration source
"""


def test_a_machine_without_a_slurm_configuration_is_told_so_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_CONF", raising=False)
    (tmp_path / "said").write_text(UNSET)
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    told = {"slurm": {"programs": str(tmp_path), "query_timeout": 10}}
    with pytest.raises(
        slurm.QueueError, match=r"^No Slurm is set up for this machine: squeue .* Choose the place 'local'"
    ):
        slurm.Slurm(told).look()
    told["slurm"]["configuration"] = "/nowhere/slurm.conf"
    with pytest.raises(
        slurm.QueueError, match=r"^There is no slurm.conf at /nowhere/slurm.conf\. Mend slurm.configuration"
    ):
        slurm.Slurm(told).look()


def test_a_slurm_that_hangs_is_given_up_and_counts_as_unknown(here, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    slow = {"slurm": {"programs": str(tmp_path), "query_timeout": 0.2}}
    with pytest.raises(slurm.QueueError, match=r"did not answer within 0\.2 s"):
        slurm.Slurm(slow).look()
    assert slurm.my_jobs(slow) is None


def test_a_submission_that_slurm_refuses_is_told_and_not_tried_again(here, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, lines in {
        "sbatch": f"echo asked >> {tmp_path}/asked; echo 'sbatch: error: the house is full' >&2; exit 1",
        "squeue": "exit 0",
        "scancel": "exit 0",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(0o755)
    file = tmp_path / "site.toml"
    file.write_text(file.read_text().replace("[slurm]\n", f'[slurm]\nprograms = "{programs}"\n'))
    with pytest.raises(RunFailedError, match=r"No worker on batch: Slurm refused: the house is full\."):
        phidias_lab.cluster("batch", workers=2)
    assert (tmp_path / "asked").read_text().split() == ["asked", "asked"]  # once for each worker


# Keys -----------------------------------------------------------------------------------------------------------------


def test_keys_lie_where_nobody_else_can_read_them(here):
    above = keys.root(here["clusters"]["local"])
    folder = keys.create(above / "phidias-000000000000")
    assert above.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_the_key_folder_is_refused(here, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shared" / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProductError, match="not a folder of your own"):
        keys.root(here["clusters"]["local"])


def test_keys_of_dead_processes_are_removed_and_those_of_living_ones_stay(here):
    above = keys.root(here["clusters"]["local"])
    dead, mine, other = (keys.create(above / f"phidias-00000000000{n}") for n in range(3))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    from phidias_lab.compute.runs import write_json

    write_json(dead / "about.json", {"pid": gone.pid, "born": 1.0, "host": socket.gethostname(), "kind": "local"})
    write_json(mine / "about.json", {**keys.myself(), "kind": "local"})
    write_json(other / "about.json", {"pid": 1, "born": 1.0, "host": "elsewhere", "kind": "local"})
    assert keys.clean(above) == [dead.name]
    assert not dead.exists()
    assert mine.is_dir()
    assert other.is_dir()
    past = time.time() - 1000
    os.utime(other / "alive", (past, past))
    assert keys.clean(above) == [other.name]


# Workers of this machine ----------------------------------------------------------------------------------------------


def processes_of(cluster) -> list[psutil.Process]:
    """The workers, by the folder that stands in their command."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if str(cluster.folder) in words and "phidias_lab.compute.worker" in words:
                found.append(process)
    return found


def test_a_cluster_computes_tells_its_state_and_leaves_nothing(pair):
    import dask.array as da

    assert [w.state for w in pair.workers] == ["running", "running"]
    numbers = da.arange(1_000, chunks=10)
    assert int(pair.client.compute(numbers.sum()).result()) == 499_500
    assert {d["node"] for d in pair.devices().values()} == {socket.gethostname()}
    assert all(d["gpus"] == [] for d in pair.devices().values())
    assert list(pair.table()["state"]) == ["running", "running"]
    assert "2 workers on local" in repr(pair)
    assert "<td>running</td>" in pair._repr_html_()
    assert "No GPUs were asked for" in pair.notes
    workers = processes_of(pair)
    assert len(workers) == 2
    pair.close()
    assert not pair.folder.exists()
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in workers))
    assert "closed" in repr(pair)
    with pytest.raises(RunFailedError, match="is closed"):
        _ = pair.client


def ports_of(processes) -> list[tuple[str, int]]:
    return [
        (c.laddr.ip, c.laddr.port)
        for p in processes
        for c in p.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    ]


def talk(context: ssl.SSLContext, port: int) -> bytes:
    """What a port says first to somebody with these certificates."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as bare,
        context.wrap_socket(bare) as connection,
    ):
        connection.settimeout(10)
        said = connection.recv(1)  # TLS 1.3 tells a refusal at the first read
        if not said:
            raise ConnectionResetError("closed without a word")
        return said


def test_nobody_without_the_keys_gets_an_answer_and_no_pages_are_served(pair, tmp_path):
    ports = ports_of([*processes_of(pair), psutil.Process()])
    addresses = {pair.address, *(w["nanny"] or a for a, w in pair.dask.scheduler_info["workers"].items())}
    spoken = {int(a.rpartition(":")[2]) for a in addresses if a}
    assert len(spoken) == 3
    assert {ip for ip, port in ports if port in spoken} == {"127.0.0.1"}
    others = [port for ip, port in ports_of(processes_of(pair)) if port not in spoken]
    assert others  # Dask opens a port for pages in each worker all the same
    others.append(pair.dask.scheduler.http_server.port)
    for port in others:
        for page in ("status", "metrics", "health", "json/counts.json", "info/main/workers.html"):
            with pytest.raises(urllib.error.HTTPError) as refusal:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10)
            assert refusal.value.code == 404
    strange = keys.create(tmp_path / "phidias-111111111111")
    for port in spoken:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(pair.folder / "cert.pem", pair.folder / "key.pem")
        assert talk(context, port)  # the owner is answered
        for certificate in (None, strange):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if certificate:
                context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
            with pytest.raises(OSError, match=r"."):
                talk(context, port)
        with socket.create_connection(("127.0.0.1", port), 10) as bare:
            bare.settimeout(10)
            bare.sendall(b"\0" * 64)
            with contextlib.suppress(ConnectionResetError):
                assert b"python" not in bare.recv(1000)


def test_a_killed_worker_is_told_and_replaced_and_its_work_is_done(pair):
    def slow(i):
        time.sleep(0.2)
        return i * i

    futures = pair.client.map(slow, range(20), pure=False)
    time.sleep(0.6)
    processes_of(pair)[0].kill()
    assert sum(pair.client.gather(futures)) == sum(i * i for i in range(20))
    until(lambda: any(w.state == "lost" for w in pair.workers))
    until(lambda: pair.running == 2)


def test_a_worker_that_is_replaced_before_anybody_looks_is_told_as_lost(pair, monkeypatch):
    until(lambda: len(pair._running) == 2)
    monkeypatch.setattr(clusters, "_PERIOD", 5.0)
    time.sleep(1.1)  # the look that was under way
    processes_of(pair)[0].kill()
    until(lambda: any(w.state == "lost" for w in pair.workers), 30)


def test_a_worker_that_comes_and_is_lost_before_anybody_looks_is_told_as_lost(here, monkeypatch):
    monkeypatch.setattr(clusters, "_PERIOD", 3600.0)
    with phidias_lab.cluster("local", workers=1) as cluster:
        cluster.wait_for_workers(timeout=90)
        first = cluster._connected()
        processes_of(cluster)[0].kill()
        until(lambda: cluster.running == 1 and cluster._connected() != first)
        cluster._notice()
        assert [w.state for w in cluster.workers] == ["running", "lost"]


def test_a_frozen_worker_counts_as_lost(pair):
    frozen = processes_of(pair)[0]
    frozen.send_signal(signal.SIGSTOP)
    try:
        assert sum(pair.client.gather(pair.client.map(abs, range(-40, 0), pure=False))) == 820
        until(lambda: any(w.state == "lost" for w in pair.workers))
        until(lambda: pair.running == 2)
    finally:
        with contextlib.suppress(psutil.Error):
            frozen.kill()


def test_the_number_of_workers_can_be_changed_within_the_bounds(pair):
    pair.scale(1)
    assert "1 worker on local" in repr(pair)
    until(lambda: pair.running == 1 and len(pair.workers) == 1)
    with pytest.raises(ParameterError, match="at most 4"):
        pair.scale(5)
    with pytest.raises(ParameterError, match="2 workers cannot come: 1 are asked for"):
        pair.wait_for_workers(2)
    pair.adapt(0, 2)
    assert "0 to 2 workers on local" in pair._repr_html_()
    assert pair.client.submit(abs, -3).result(60) == 3


def test_workers_of_another_environment_do_no_work_and_the_difference_is_named(here, monkeypatch):
    mine = environment.fingerprint()
    monkeypatch.setattr(environment, "fingerprint", lambda: {**mine, "numpy": "0.9"})
    with phidias_lab.cluster("local") as cluster:
        with pytest.raises(
            RunFailedError, match=rf"numpy {re.escape(mine['numpy'])} there and 0.9 here.*No work was st"
        ):
            cluster.wait_for_workers(timeout=60)
        assert cluster.running == 0
        with pytest.raises(RunFailedError, match="another environment"):
            _ = cluster.client
        cluster.scale(1)  # nothing was mended, so it is said again
        with pytest.raises(RunFailedError, match="another environment"):
            cluster.wait_for_workers(timeout=60)


def test_workers_that_end_at_once_are_not_asked_for_without_end(here, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    (broken / "distributed").mkdir(parents=True)
    (broken / "distributed" / "__init__.py").write_text("raise RuntimeError('no such luck')")
    import distributed  # noqa: F401 - this process has the real one already

    monkeypatch.setattr(environment, "python_path", lambda: f"{broken}{os.pathsep}{ROOT}")
    with phidias_lab.cluster("local") as cluster:
        with pytest.raises(RunFailedError, match=r"3 workers on local ended.*no such luck"):
            cluster.wait_for_workers(timeout=90)
        # As the sentence says: when the cause is mended, one may ask again.
        monkeypatch.undo()
        cluster.scale(1)
        cluster.wait_for_workers(timeout=90)
        assert "ended one after the other" not in cluster.notes


def test_when_the_owner_is_killed_its_workers_and_keys_go(here):
    code = (
        "import phidias_lab, time\n"
        "c = phidias_lab.cluster('local', workers=1)\n"
        "c.wait_for_workers(timeout=90)\n"
        "print(c.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        folder = Path(owner.stdout.readline().strip())
        workers = processes_of(type("C", (), {"folder": folder}))
        assert len(workers) == 1
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    until(lambda: not folder.exists())
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in workers))


# Runs on a cluster ----------------------------------------------------------------------------------------------------


def test_a_run_gives_the_same_values_in_threads_and_on_workers(pair, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    order = {"pieces": 6, "seconds": 0.05, "marks": str(marks)}
    there = phidias_lab.run("probe.slow", on=pair, **order)
    assert there.wait(120) == "done", there.log
    assert there.record["where"]["place"] == "local"
    assert len(there.record["where"]["devices"]) == 2
    threads = phidias_lab.run("probe.slow", **order)
    assert threads.wait(120) == "done", threads.log
    assert dict(there.product.checksums) == dict(threads.product.checksums)


def test_a_run_may_have_workers_of_its_own(here):
    run = phidias_lab.run("probe.slow", on="local", workers=2, pieces=4, seconds=0.05)
    assert run.wait(120) == "done", run.log
    assert (run.record["where"]["workers"], len(run.record["where"]["devices"])) == (2, 2)
    assert list(keys.root(here["clusters"]["local"]).iterdir()) == []


def test_a_run_survives_the_death_of_a_worker(pair, tmp_path):
    run = phidias_lab.run("probe.slow", on=pair, pieces=12, seconds=1.0)
    until(lambda: run.progress.fraction > 0.2)
    assert run.progress.fraction < 0.9  # there is something left to do for who comes after
    processes_of(pair)[0].kill()
    assert run.wait(120) == "done", run.log
    plain = phidias_lab.run("probe.slow", pieces=12, seconds=0.0)
    assert plain.wait(120) == "done"
    assert run.product.checksums["value"] == plain.product.checksums["value"]


def test_a_run_whose_cluster_ends_fails_with_a_sentence_and_goes_on_elsewhere(here, tmp_path):
    with phidias_lab.cluster("local", workers=1) as cluster:
        cluster.wait_for_workers(timeout=90)
        run = phidias_lab.run("probe.slow", on=cluster, pieces=6, seconds=1.0)
        until(lambda: "piece" in run.progress.message and run.progress.fraction > 0.11)
    assert run.wait(60) == "failed"
    assert "has ended" in run.error


def test_a_place_is_checked_before_anything_is_recorded(here):
    with pytest.raises(UnknownNameError, match="no place 'moon'"):
        phidias_lab.run("probe.slow", on="moon")
    with pytest.raises(ParameterError, match="at most 8"):
        phidias_lab.run("probe.slow", on="batch", workers=9)
    assert phidias_lab.runs() == []
