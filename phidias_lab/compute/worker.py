"""A Dask worker of a cluster: `python -m phidias_lab.compute.worker ADDRESS --folder FOLDER ...`, the last line of its job.

What follows is what Dask's own worker takes. Before it joins, it compares its environment with the one of the process that
asked for it: work that would be done with other versions is not begun.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from phidias_lab.compute import environment
from phidias_lab.compute.runs import read_json, write_json

REFUSED = "refused.json"
_SPILL = "phidias-worker-"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="phidias_lab.compute.worker", allow_abbrev=False)
    parser.add_argument("address", help="where the scheduler listens")
    parser.add_argument("--folder", type=Path, required=True, help="the cluster's folder, with its keys")
    parser.add_argument("--local-directory", help="for what does not fit into memory")
    own, words = parser.parse_known_args(words)
    folder, above = own.folder, own.local_directory
    settings = read_json(folder / "settings.json")
    if not settings or not (folder / "alive").exists():
        print("The cluster that asked for this worker has ended; so does the worker.", flush=True)
        return 0
    differs = environment.differences(settings["environment"], environment.fingerprint())
    if differs:
        write_json(folder / REFUSED, {"differences": differs, "python": sys.executable, "node": node()})
        print("The environments differ:", differs, flush=True)
        return 3
    if not settings["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of a node that others use the GPUs of
    import dask
    from distributed.cli.dask_worker import main as serve

    # Nothing is served beside the TLS port: pages of a worker know no log-in and would show the owner's data.
    dask.config.set({"distributed.worker.http.routes": [], "distributed.worker.daemon": False})
    words += ["--no-nanny", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    for role, file in (("ca-file", "cert.pem"), ("cert", "cert.pem"), ("key", "key.pem")):
        words += [f"--tls-{role}", str(folder / file)]
    if above:
        Path(above).mkdir(mode=0o700, parents=True, exist_ok=True)
    # A folder of its own, closed to others, and not the one in /tmp whose name everybody can foresee.
    _tidy(Path(above or tempfile.gettempdir()))
    prefix = f"{_SPILL}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=above, ignore_cleanup_errors=True) as spill:
        serve([own.address, *words, "--local-directory", spill], standalone_mode=False)
    return 0


def _tidy(above: Path) -> None:
    """Remove what workers of mine left that were killed."""
    import shutil

    import psutil

    for left in above.glob(f"{_SPILL}*-*"):
        number = left.name.removeprefix(_SPILL).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdigit() and left.lstat().st_uid == os.geteuid() and not psutil.pid_exists(int(number)):
                shutil.rmtree(left, ignore_errors=True)


def node() -> str:
    """The node's name as Slurm has it, else the host's."""
    import socket

    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def devices() -> dict:
    """Where this process runs, the GPUs that Slurm gave it, by the numbers CUDA shows it, and on what it has computed."""
    from phidias_lab.methods import arrays

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {
        "node": node(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "gpus": [part for part in visible.split(",") if part.strip() and part != "NoDevFiles"],
        "computed": arrays.used(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
