"""What one user tries on another, run under the user's own account: python -c THIS NAMES < facts.

Each attempt gives what it got hold of, or raises. What it prints last is JSON: for each name the words that were found, or
"refused: ..." with the reason. Imports nothing of phidias_lab: an attacker would not either.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

#: Pages that tell something of their owner. Jupyter's own /api says its version and nothing else.
PAGES = (
    "status", "metrics", "individual-workers", "json/counts.json", "info/main/workers.html",
    "user/{owner}/api/status", "user/{owner}/api/contents", "user/{owner}/lab", "user/{owner}/phidias/", "api/status",
    "api/contents",
)  # fmt: skip
#: Where people leave files without thinking of it.
PUBLIC = ("/tmp", "/var/tmp", "/dev/shm", "/run/user")


class Refused(Exception):
    """Nothing was got hold of."""


def program(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    if done.returncode or not done.stdout.strip():
        raise Refused(done.stderr.strip() or "no answer")
    return done.stdout.strip()


def ports(uid: int) -> list[int]:
    """The ports on which somebody's processes listen; everyone may read them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            field = row.split()
            if field[3] == "0A" and int(field[7]) == uid:
                found.add(int(field[1].rsplit(":", 1)[1], 16))
    return sorted(found)


def security(facts: dict):
    """The keys of the cluster, or where they cannot be read keys of one's own."""
    from distributed.security import Security

    folder = Path(facts["cluster"])
    try:
        key, certificate = (folder / "key.pem").read_text(), (folder / "cert.pem").read_text()
    except OSError:
        return Security.temporary()
    roles = {f"tls_client_{what}": text for what, text in (("key", key), ("cert", certificate))}
    return Security(require_encryption=True, tls_ca_file=certificate, **roles)


def dask(address: str, **more) -> str:
    """Code of one's own on a scheduler, or on a worker, under the account of its owner."""
    import asyncio

    from distributed.core import rpc

    async def told() -> str:
        arguments = {"connection_args": more["security"].get_connection_args("client")} if more else {}
        async with rpc(address, **arguments) as other:
            return str(await asyncio.wait_for(other.identity(), 5))

    return asyncio.run(told())


def scheduler(facts: dict) -> str:
    return dask(facts["scheduler"], security=security(facts))


def worker(facts: dict) -> str:
    return dask(facts["worker"], security=security(facts))


def scheduler_without_keys(facts: dict) -> str:
    return dask(facts["scheduler"].replace("tls://", "tcp://"))


def pages(facts: dict) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    got = []
    for port in ports(facts["uid"]):
        for page in PAGES:
            address = f"http://127.0.0.1:{port}/{page.format(owner=facts['owner'])}"
            try:
                with opener.open(address, timeout=2) as answer:
                    if "/hub/" not in answer.url:  # where one is asked to log in
                        got.append(f"{address}: {answer.status}")
            except urllib.error.HTTPError:
                continue
            except (OSError, ValueError, HTTPException):  # it speaks something else
                break
    if not got:
        raise Refused("no page of any port")
    return "; ".join(got)


def messages(facts: dict) -> str:
    """What kernels tell to whoever listens at their ports."""
    import zmq

    context = zmq.Context()
    listener = context.socket(zmq.SUB)
    listener.setsockopt(zmq.SUBSCRIBE, b"")
    for port in ports(facts["uid"]):
        listener.connect(f"tcp://127.0.0.1:{port}")
    heard, end = b"", time.monotonic() + 4
    while time.monotonic() < end:
        if listener.poll(200):
            heard += b" ".join(listener.recv_multipart())
            if facts["word"].encode() in heard:
                break
    context.destroy(linger=0)
    if facts["word"].encode() not in heard:
        raise Refused("nothing was heard")
    return facts["word"]


def sockets_of_kernels(facts: dict) -> str:
    """The sockets at which kernels speak; everyone may read where they are."""
    folder = str(Path(facts["connection"]).parent)
    there = {path for path in Path("/proc/net/unix").read_text().split() if path.startswith(folder)}
    opened = set()
    for path in there:
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.connect(path)
            except OSError:
                continue
            opened.add(path)
    if not opened:
        raise Refused(f"none of {len(there)} sockets opens")
    return f"{len(opened)} of {len(there)}"


def kernel(facts: dict) -> str:
    """The same with the kernel's connection file, which its owner has."""
    from jupyter_client import BlockingKernelClient

    client = BlockingKernelClient(connection_file=facts["connection"])
    client.load_connection_file()
    client.start_channels()
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if facts["word"] in str(client.get_iopub_msg(timeout=10)["content"]):
                return facts["word"]
    finally:
        client.stop_channels()
    raise Refused("nothing was heard")


def home(facts: dict) -> str:
    return str([entry.name for entry in Path(facts["home"]).iterdir()])


def notebook(facts: dict) -> str:
    return Path(facts["home"], facts["file"]).read_text()


def run_store(facts: dict) -> str:
    return str([entry.name for entry in Path(facts["run"]).parent.iterdir()])


def run_record(facts: dict) -> str:
    return Path(facts["run"], "order.json").read_text()


def run_by_command(facts: dict) -> str:
    """The commands of phidias, pointed at the other's store."""
    os.environ["PHIDIAS_RUNS"] = str(Path(facts["run"]).parent)
    return program(sys.executable, "-m", "phidias_lab", "runs", "show", Path(facts["run"]).name)


def job_list(facts: dict) -> str:
    return program("squeue", "-h", "-j", ",".join(facts["jobs"]))


def job_facts(facts: dict) -> str:
    return program("scontrol", "show", "job", facts["jobs"][0])


def job_history(facts: dict) -> str:
    return program("sacct", "-n", "-X", "-j", ",".join(facts["jobs"]))


def batch_script(facts: dict) -> str:
    return program("scontrol", "write", "batch_script", facts["jobs"][0], "-")


def into_the_job(facts: dict) -> str:
    return program("srun", "--overlap", "--immediate=5", f"--jobid={facts['jobs'][0]}", "id", "-un")


def process_environment(facts: dict) -> str:
    text = Path(f"/proc/{facts['pid']}/environ").read_bytes().decode(errors="replace")
    return next(part for part in text.split("\0") if part.startswith("JUPYTERHUB_API_TOKEN="))[:20]


def process_files(facts: dict) -> str:
    return str([os.readlink(entry) for entry in Path(f"/proc/{facts['pid']}/fd").iterdir()])


def process_memory(facts: dict) -> str:
    with open(f"/proc/{facts['pid']}/mem", "rb"):
        return "opened"


def process_signal(facts: dict) -> str:
    os.kill(facts["pid"], 0)
    return "may be signalled"


def dashboards_socket(facts: dict) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(facts["socket"])
    return "connected"


def pages_socket(facts: dict) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(facts["pages_socket"])
        line.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        return line.recv(4096).partition(b"\r\n")[0].decode()


def spilled(facts: dict) -> str:
    return str(list(Path(facts["spill"]).iterdir()) or "an empty folder")


def public_places(facts: dict) -> str:
    """Whatever of the other's in a place for everybody can be read, written or entered."""
    got = []
    for place in PUBLIC:
        for above, folders, files in os.walk(place):
            for name in [*folders, *files]:
                path = os.path.join(above, name)
                try:
                    found = os.lstat(path)
                except OSError:
                    continue
                if found.st_uid != facts["uid"] or found.st_ctime < facts["since"] or os.path.islink(path):
                    continue
                if (
                    os.access(path, os.R_OK)
                    or os.access(path, os.W_OK)
                    or (name in folders and os.access(path, os.X_OK))
                ):
                    got.append(path)
    if not got:
        raise Refused("nothing there")
    return str(got)


def secrets_in_files(facts: dict) -> str:
    """The other's tokens and keys in any file or command line that can be read."""
    got = []
    for place in [*facts["places"], *PUBLIC]:
        for above, folders, files in os.walk(place):
            folders[:] = [name for name in folders if name not in ("environment", "node_modules", "__pycache__")]
            for name in files:
                path = os.path.join(above, name)
                try:
                    found = os.lstat(path)
                    if stat.S_ISREG(found.st_mode) and found.st_size < 2**24 and found.st_ctime > facts["since"]:
                        text = Path(path).read_bytes()
                        got += [path for secret in facts["secrets"] if secret.encode() in text]
                except OSError:
                    continue
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (entry / name).read_bytes()
            except OSError:
                continue
            got += [f"{entry}/{name}" for secret in facts["secrets"] if secret.encode() in text]
    if not got:
        raise Refused("in no file")
    return str(got)


def jobs_in_files(facts: dict) -> str:
    """Slurm's own logs and states, which name everybody's jobs."""
    got = []
    for above, _, files in os.walk(facts["slurm"]):
        for name in files:
            path = os.path.join(above, name)
            try:
                text = Path(path).read_bytes()
            except OSError:
                continue
            got += [path for job in facts["jobs"] if f"JobId={job} ".encode() in text or f"job {job} ".encode() in text]
    if not got:
        raise Refused("in no file")
    return str(got)


def accounting_database(facts: dict) -> str:
    return program("mariadb", "--no-defaults", "-u", "root", "-S", facts["database"], "-e", "show databases")


def kill_job(facts: dict) -> str:
    done = subprocess.run(["scancel", "-v", facts["spare"]], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return "cancelled"


class TooLate(BaseException):
    """Nothing is known of what would have been got hold of, so it does not count as refused."""


def late(number, frame):
    raise TooLate("this attempt has not ended within 20 s")


if __name__ == "__main__":
    given = json.load(sys.stdin)
    told = {}
    signal.signal(signal.SIGALRM, late)
    for name in sys.argv[1:]:
        signal.alarm(20)
        try:
            told[name] = globals()[name](given)
        except TooLate as error:
            told[name] = str(error)
        except Exception as error:  # noqa: BLE001  whatever stands in the way is the answer
            told[name] = f"refused: {type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
    print(json.dumps(told))
