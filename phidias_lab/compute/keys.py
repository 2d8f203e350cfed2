"""Folders of clusters: the keys of their TLS, closed to everybody else, and what tells a living cluster from a dead one.

<shared folder>/keys/<cluster>/
  key.pem cert.pem    one pair for scheduler, workers and clients; whoever holds it is the owner
  about.json          name, place, host and process of the owner, the scheduler's address, how Slurm is reached
  settings.json       the environment a worker has to have, and its GPUs
  worker-N.sh         the batch script of a worker, as it was submitted
  pages               where Dask's pages are asked for: a link to their socket, which goes with the folder
  alive               touched while the owner lives, removed first when it ends: a job that starts later goes at once
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from phidias_lab.compute import pages, runs, slurm
from phidias_lab.compute.runs import read_json
from phidias_lab.errors import MissingExtraError, ProductError

_SILENT = 300.0  # seconds after which the owner of a folder on another host counts as dead


def root(place: Mapping) -> Path:
    """Where this user's clusters of a place keep their keys; made if need be, and nobody else's."""
    shared = place.get("shared_folder")
    above = Path(shared.replace("{user}", getpass.getuser())).expanduser() if shared else Path.home() / ".phidias"
    folder = above / "keys"
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise unwritable(folder, error) from None
    closed(folder)
    return folder


def unwritable(folder: Path, error: OSError) -> ProductError:
    """Why a cluster's keys find no place, and what to do."""
    return runs.unwritable(
        folder,
        error,
        "A cluster keeps its keys and logs there. Free some space there, or name another place in the site file "
        "(clusters.NAME.shared_folder).",
    )


def closed(folder: Path) -> None:
    """Refuse a folder that another user could read, or could have put there."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ProductError(
            f"{folder} is to hold a cluster's keys, but it is not a folder of your own. Remove it, or name another in the "
            "site file (clusters.NAME.shared_folder)."
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def create(folder: Path) -> Path:
    """A new folder with a new key, for its owner alone."""
    try:
        from distributed.security import Security

        made = Security.temporary()
    except ImportError:
        raise MissingExtraError("A cluster", "slurm") from None
    folder.mkdir(mode=0o700)
    closed(folder)
    for name, text in (("key.pem", made.tls_client_key), ("cert.pem", made.tls_client_cert)):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(text)
    (folder / "alive").touch()
    return folder


def security(folder: Path):
    """TLS with the keys of a folder: nobody without them gets an answer."""
    from distributed.security import Security

    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    roles = {f"tls_{role}_{what}": path for role in ("client", "scheduler", "worker")
             for what, path in (("key", key), ("cert", certificate))}  # fmt: skip
    return Security(require_encryption=True, tls_ca_file=certificate, **roles)


def myself() -> dict:
    return {"pid": os.getpid(), "born": psutil.Process().create_time(), "host": socket.gethostname()}


def owner_lives(folder: Path, about: Mapping) -> bool:
    """Whether the process that a cluster belongs to is there; on another host, whether it gave a sign of life lately."""
    if about.get("host") == socket.gethostname():
        try:
            found = psutil.Process(int(about["pid"]))
            same = abs(found.create_time() - float(about["born"])) < 2.0
            return same and found.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, KeyError, TypeError, ValueError):
            return False
    try:
        return time.time() - (folder / "alive").stat().st_mtime < _SILENT
    except OSError:
        return False


def clean(above: Path) -> list[str]:
    """Remove what clusters of dead processes left: jobs that still wait, and keys. Gives the names of those clusters."""
    gone = []
    for folder in above.iterdir():
        if not pages.NAME.fullmatch(folder.name) or folder.is_symlink():
            continue
        about = read_json(folder / "about.json")
        try:
            young = time.time() - folder.stat().st_mtime < _SILENT
        except OSError:
            continue
        if (not about and young) or (about and owner_lives(folder, about)):
            continue
        if end(folder, about):
            gone.append(folder.name)
    return gone


def end(folder: Path, about: Mapping) -> bool:
    """Cancel all jobs of a cluster, then remove its folder; False where Slurm does not answer."""
    with contextlib.suppress(OSError):
        (folder / "alive").unlink(missing_ok=True)  # a job that starts from now on goes at once
    with contextlib.suppress(OSError):
        os.unlink(os.readlink(folder / pages.LINK))
    if about.get("kind") == "slurm":
        try:
            slurm.Slurm({"slurm": about["slurm"]}).cancel_named(folder.name)
        except (slurm.QueueError, KeyError):
            return False
    shutil.rmtree(folder, ignore_errors=True)
    return True
