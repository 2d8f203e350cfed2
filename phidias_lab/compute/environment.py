"""What a run ran on: host, cores, versions, lock, git; and what it took: time and memory."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

#: Packages whose version can change a number; they stand in the record by name, all others in the lock's hash.
NAMED = ("phidias-lab", "numpy", "scipy", "pandas", "xarray", "dask", "zarr", "netCDF4", "pyarrow")

#: What every process that computes is started with: one thread per library call, so that results do not depend on cores.
SAME_RESULTS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
}

_started = time.time()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def python_path() -> str:
    """The module path of this process for one that it starts: notebooks may have added to it."""
    package = str(Path(__file__).parents[2])
    before = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return os.pathsep.join(dict.fromkeys([*before, package]))


def worker() -> dict:
    """Who does the run; the birth time tells a process from a later one of the same id."""
    return {"pid": os.getpid(), "born": psutil.Process().create_time(), "host": socket.gethostname()}


@functools.cache
def lock() -> str:
    """Hash of everything that is installed: equal hashes, equal environments.

    The names of the metadata folders (`numpy-2.4.6.dist-info`) say name and version, and are far quicker to list than
    the metadata are to read.
    """
    found = {p.name.lower() for place in sys.path for p in Path(place or ".").glob("*.dist-info")}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


#: Packages whose versions workers and their client have to share.
SHARED = ("numpy", "scipy", "pandas", "xarray", "zarr", "dask", "distributed")


@functools.cache
def package() -> str:
    """Hash of the files of phidias_lab: a checkout with a change is another package than the one without."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def fingerprint() -> dict[str, str]:
    """What has to be equal where the pieces of one computation are computed."""
    import phidias_lab

    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in SHARED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return {**found, "phidias_lab": f"{phidias_lab.__version__} (files {package()[:12]})"}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """'numpy 2.3.1 there and 2.4.6 here', or an empty text."""
    names = [n for n in {**here, **there} if here.get(n) != there.get(n)]
    return ", ".join(f"{n} {there.get(n, 'missing')} there and {here.get(n, 'missing')} here" for n in names)


def git_version(checkout: Path | None) -> str | None:
    """Commit of the checkout, marked when files differ from it."""
    if checkout is None or not (checkout / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def facts(checkout: Path | None = None) -> dict:
    """The environment of a run, as plain values."""
    versions = {"python": platform.python_version()}
    for name in NAMED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "lock": lock(),
        "git": git_version(checkout),
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": cores(),
        "threads_per_call": int(os.environ.get("OMP_NUM_THREADS", 0)) or None,
    }


def _processor() -> str | None:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        return platform.processor() or None


def peak_memory() -> int:
    """Largest resident size of this process, bytes. (getrusage would also count the process it was started from.)"""
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measures(record: dict) -> dict:
    """What the run took, added to what earlier attempts of the same run took."""
    before = record.get("measures") or {}
    times = os.times()
    return {
        "wall_seconds": round(before.get("wall_seconds", 0.0) + time.time() - _started, 3),
        "cpu_seconds": round(before.get("cpu_seconds", 0.0) + times.user + times.system, 3),
        "peak_memory_bytes": max(before.get("peak_memory_bytes", 0), peak_memory()),
    }
