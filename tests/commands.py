"""`phidias` in processes of their own, without importing everything anew for each of them.

Most of a short command's time goes into imports: a second and a half of a processor. So a test process keeps one process
that has imported what commands import, and that forks a child for each command. The child has its own environment, folder,
streams and exit code, and ends as any Python ends; what it does not show is the first import itself, which the tests that
start a command with `python -m phidias_lab` show.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

#: What commands import, each with all that it needs.
_IMPORTED = (
    "dask.array",
    "dask.dataframe",
    "netCDF4",
    "phidias_lab.chains.ocean.gridding",
    "phidias_lab.flow",
    "phidias_lab.lake.drivers",
    "phidias_lab.products",
    "phidias_lab.services.command_line",
    "scipy.spatial",
    "xarray",
    "zarr",
)

#: No import may start a thread, since a fork has none of its parent's: those of the linear algebra and of pyarrow's memory.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Commands:
    """The process that forks commands; it ends with the process that made it."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**os.environ, **_ONE_THREAD},
            cwd="/",
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._line = ours

    def run(self, *words: object, environment: dict[str, str], folder: Path, timeout: float = 60):
        """Run `phidias WORDS` to its end; gives a `subprocess.CompletedProcess` with text."""
        words = [str(word) for word in words]
        pipes = [os.pipe(), os.pipe()]
        with open(os.devnull, "rb") as nothing:
            asked = json.dumps({"words": words, "environment": environment, "folder": str(folder)}).encode()
            socket.send_fds(self._line, [len(asked).to_bytes(4)], [nothing.fileno(), *(write for _, write in pipes)])
            self._line.sendall(asked)
        said: list[bytes] = [b"", b""]

        def read(number: int) -> None:
            os.close(pipes[number][1])
            with open(pipes[number][0], "rb") as stream:
                said[number] = stream.read()

        readers = [threading.Thread(target=read, args=[number]) for number in (0, 1)]
        for reader in readers:
            reader.start()
        self._line.settimeout(None)
        process = int(self._told())
        self._line.settimeout(timeout)
        late = False
        try:
            code = int(self._told())
        except TimeoutError:
            late = True
            os.kill(process, signal.SIGKILL)
            self._line.settimeout(None)
            self._told()
        for reader in readers:
            reader.join()
        out, err = (text.decode(errors="replace") for text in said)
        if late:
            raise subprocess.TimeoutExpired(["phidias", *words], timeout, out, err)
        return subprocess.CompletedProcess(["phidias", *words], code, out, err)

    def _told(self) -> bytes:
        told = self._line.recv(8)
        assert len(told) == 8, "The process that forks commands has ended."
        return told

    def close(self) -> None:
        self._line.close()
        self._process.wait(20)


def serve(line: socket.socket) -> None:
    """Fork a child for each command that is asked for; returns in the child, and at the end of the line."""
    while True:
        size, streams, _, _ = socket.recv_fds(line, 4, 3)
        if not size:
            return
        asked = b""
        while len(asked) < int.from_bytes(size):
            asked += line.recv(int.from_bytes(size) - len(asked))
        child = os.fork()
        if child == 0:
            line.close()
            become(json.loads(asked), streams)
            runpy.run_module("phidias_lab", run_name="__main__", alter_sys=True)
            return
        for stream in streams:
            os.close(stream)
        line.sendall(b"%8d" % child)
        _, status = os.waitpid(child, 0)
        line.sendall(b"%8d" % os.waitstatus_to_exitcode(status))


def become(asked: dict, streams: list[int]) -> None:
    """Take over the words, environment, folder and streams of the command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    # As `python -m` does it: the folder of the call, then PYTHONPATH, then what Python has by itself.
    rest = [entry for entry in sys.path[1:] if entry not in before]
    now = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [os.getcwd(), *now, *rest]
    sys.argv[:] = ["-m", *asked["words"]]


if __name__ == "__main__":
    for name in _IMPORTED:
        __import__(name)
    assert len(os.listdir("/proc/self/task")) == 1, "A thread was started by an import; its locks would be forked."
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
