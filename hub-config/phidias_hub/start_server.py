"""Starts JupyterLab in the user's job and tells the hub its port. Standard library only; carried inside the batch script."""

import base64
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

OPEN_SECONDS = 110
#: How long a server waits for a hub that is away: an upgrade takes some minutes.
HUB_SECONDS = 900

#: Where the batch script hands over the server's own program, server.py.
SERVER = 8
#: Panel's preview inside JupyterLab loads all of Panel at the start; the dashboards are a process of their own. And
#: notebook_shim looks for settings of the notebook before version 7.
LEFT_OUT = "--ServerApp.jpserver_extensions={'panel.io.jupyter_server_extension': False, 'notebook_shim': False}"
#: A user's JupyterLab asks no other host for news, and installs nothing into an environment that others use as well.
JUPYTERLAB = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)
#: What a kernel prints is told to everybody who connects to one of its ports. Not every kernel can encrypt that, so none
#: has a port: whatever their language, they speak over sockets in a folder that only their user can enter.
SOCKETS = "--KernelManager.transport=ipc"
#: Those of Python have no port for the output of child processes either (kernels.py, which stands before server.py).
CLOSED = "--ServerApp.kernel_spec_manager_class=__main__.ClosedKernels"
#: Bytes of the place of that folder. A socket's path holds 107, of which the folder's and the kernel's own names take 67.
PLACE_BYTES = 40
#: The file in it that its server holds.
LOCK = "lock"


def end(code, sentence):
    with contextlib.suppress(OSError):  # the code tells the same where the log finds no room
        print(sentence, flush=True)
    os._exit(code)


def server_ends():
    """When the job's time is over, in seconds since 1970."""
    told = os.environ.get("SLURM_JOB_END_TIME", "")
    if not told.isdigit():
        command = ["squeue", "-h", "-j", os.environ["SLURM_JOB_ID"], "-o", "%e"]
        try:
            told = subprocess.run(
                command, capture_output=True, text=True, timeout=5, env={**os.environ, "SLURM_TIME_FORMAT": "%s"}
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            told = ""
    return told if told.isdigit() else None


def own_address():
    """The address on which the hub will look for this server."""
    known = json.loads(os.environ.get("PHIDIAS_ADDRESSES", "{}"))
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    name = known.get(node) or known.get("*") or node
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return ""
    return found[0][4][0]


def free_port(address):
    """An address of this machine with a port that nobody has."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
            return address, probe.getsockname()[1]
        except OSError:
            pass
    # The name leads elsewhere (address translation); every address of the node is left, and the token guards the server.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return "0.0.0.0", probe.getsockname()[1]


def own_folder():
    """A folder on this node for the sockets and connection files of the kernels, closed to others."""
    try:
        place = tempfile.gettempdir()
        place = place if len(os.fsencode(place)) <= PLACE_BYTES else "/tmp"
        clear_remains(place)
        return tempfile.mkdtemp(prefix="phidias-", dir=place)
    except OSError as error:
        end(78, f"No folder for the sockets of kernels can be made on {socket.gethostname()}: {error}.")


def hold(folder):
    """Marks the folder as in use, until the last process that holds the lock has ended; the system then opens it."""
    path = os.path.join(folder, LOCK)
    with contextlib.suppress(OSError):  # not every file system has locks; without one the folder is left alone
        lock = os.open(path + "-new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, socket.gethostname().encode())
        os.rename(path + "-new", path)
        return lock
    return None


def clear_remains(place):
    """Removes what servers of this user that were killed left on this node: folders that nobody holds any more."""
    for name in os.listdir(place):
        folder = os.path.join(place, name)
        if not re.fullmatch("phidias-[a-z0-9_]{8}", name):
            continue
        with contextlib.suppress(OSError):
            if os.lstat(folder).st_uid != os.getuid():
                continue
            lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_NOFOLLOW)
            try:
                # The place may be one that nodes share, where a lock need not be seen from another node.
                if os.read(lock, 256) == socket.gethostname().encode():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def close_all_but(lock):
    """Closes what a program need not inherit; it holds its folder as well, should what started it be killed."""
    if lock is None:
        os.closerange(3, 64)
        return
    os.closerange(3, lock)
    os.closerange(lock + 1, 64)
    os.set_inheritable(lock, True)


def take_keys():
    """Writes the keys that came by the environment into a folder of the user's, closed to others."""
    handed = {name: os.environ.pop(f"PHIDIAS_TLS_{name}", None) for name in ("KEYFILE", "CERTFILE", "CLIENT_CA")}
    if not all(handed.values()):
        return
    above = os.path.expanduser("~/.phidias/keys")
    folder = os.path.join(above, "server-" + os.environ["SLURM_JOB_ID"])
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(above, 0o700)
        for name, text in handed.items():
            path = os.path.join(folder, name.lower() + ".pem")
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(base64.b64decode(text))
            os.environ["JUPYTERHUB_SSL_" + name] = path
        for old in os.listdir(above):
            old = os.path.join(above, old)
            if time.time() - os.stat(old).st_mtime > 14 * 86400:
                for name in os.listdir(old):
                    os.unlink(os.path.join(old, name))
                os.rmdir(old)
    except OSError as error:
        end(73, f"The keys of the server cannot be written into {folder}: {error.strerror}.")


def listening(port):
    """Whether a process of this user, and of nobody else, listens on the port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            field = row.split()
            if field[3] == "0A" and int(field[1].rsplit(":", 1)[1], 16) == port:
                return int(field[7]) == os.getuid()
    return False


def way_to_hub(port):
    """The question that tells the hub the port and nothing else, and what opens it."""
    context = None
    api = os.environ["JUPYTERHUB_API_URL"]
    if urlsplit(api).scheme == "https":
        context = ssl.create_default_context(cafile=os.environ.get("JUPYTERHUB_SSL_CLIENT_CA"))
        if "JUPYTERHUB_SSL_CERTFILE" in os.environ:
            context.load_cert_chain(os.environ["JUPYTERHUB_SSL_CERTFILE"], os.environ["JUPYTERHUB_SSL_KEYFILE"])
    question = urllib.request.Request(
        api.rstrip("/") + "/phidias/port",
        data=json.dumps({"port": port}).encode(),
        headers={"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"},
    )
    # A proxy of the environment is for the outside world; the hub is not there.
    handlers = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return question, urllib.request.build_opener(*handlers)


def tell_hub(server, port):
    """Tells the hub the port; again and again, since the hub may be restarted or upgraded just now.

    Returns nothing once the hub knows it or the server has ended, else why not, with an exit code.
    """
    question, opener = way_to_hub(port)
    until, said = time.monotonic() + HUB_SECONDS, None
    while True:
        try:
            with opener.open(question, timeout=10):
                return None
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return 70, f"The hub refused the port of this server: {error.code} {error.reason}."
            why = str(error)
        except OSError as error:
            why = str(getattr(error, "reason", error))
        told = f"The hub at {os.environ['JUPYTERHUB_API_URL']} cannot be reached from {socket.gethostname()}: {why}."
        if time.monotonic() > until:
            return 71, told
        if said != why:
            print(told + " It is tried again.", flush=True)
            said = why
        if not alive(server):
            return None
        time.sleep(1)


def pass_on(server):
    """The signals that end the job end the server."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: os.kill(server, received))


def alive(server):
    """Whether the server has not ended yet; how it ended is still to be asked."""
    return os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def ended(server, wait):
    """How the server ended, as a shell says it; nothing while it runs."""
    pid, status = os.waitpid(server, 0 if wait else os.WNOHANG)
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def watch(server, port):
    """Tells the hub the port once the server listens, then waits for the server's end. Returns the job's exit code."""
    until = time.monotonic() + OPEN_SECONDS
    failed = None
    while not listening(port):
        code = ended(server, wait=False)
        if code is not None:
            return code
        if time.monotonic() > until:
            failed = 74, f"The server opened no port within {OPEN_SECONDS} s."
            break
        time.sleep(0.05)
    failed = failed or tell_hub(server, port)
    if failed:
        print(failed[1], flush=True)
        os.kill(server, signal.SIGTERM)
        ended(server, wait=True)
        return failed[0]
    return ended(server, wait=True)


def main():
    take_keys()
    ends = server_ends()
    if ends:
        os.environ["PHIDIAS_SERVER_ENDS"] = ends
    address, port = free_port(own_address())
    shown = f"[{address}]" if ":" in address else address
    scheme = "https" if "JUPYTERHUB_SSL_KEYFILE" in os.environ else "http"
    base = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/")
    os.environ["JUPYTERHUB_SERVICE_URL"] = f"{scheme}://{shown}:{port}{base}"
    os.environ.pop("PHIDIAS_ADDRESSES", None)
    os.environ["JUPYTER_RUNTIME_DIR"] = folder = own_folder()
    lock = hold(folder)
    programs = os.path.dirname(os.path.abspath(sys.executable))
    os.environ["PATH"] = programs + os.pathsep + os.environ.get("PATH", "/usr/bin:/bin")
    print(f"Job {os.environ['SLURM_JOB_ID']} on {socket.gethostname()}: server on {shown}:{port}", flush=True)
    server = os.fork()
    if server == 0:
        with open(SERVER, encoding="utf-8") as file:
            program = file.read()
        close_all_but(lock)
        try:
            # -P: a file of the user's, random.py in the home for one, is no module of the server.
            os.execv(sys.executable, [sys.executable, "-P", "-c", program, LEFT_OUT, SOCKETS, CLOSED, *JUPYTERLAB])
        except OSError as error:
            end(72, f"The server cannot be started: {error.strerror}.")
    pass_on(server)
    code = watch(server, port)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


if __name__ == "__main__":
    main()
