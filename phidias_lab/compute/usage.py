"""What a user has used and may still use: hours of processors and GPUs from Slurm's accounting, and room for files.

Where there is no Slurm, the hours are those that the run records hold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from phidias_lab import settings
from phidias_lab.compute import runs, site
from phidias_lab.errors import InputError


def used(since: datetime | None = None) -> dict:
    """Hours and room of the user who asks, since a time (default: the first of this month).

    `cpu_hours` and `gpu_hours` are what was reserved, whether it was busy or not, as centres account it; `limits` names the
    limits in hours that Slurm holds for the user's associations, where it holds any.
    """
    since = since or datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    here = site.current()
    slurm = here["servers"]["kind"] == "slurm" or any(c["kind"] == "slurm" for c in here["clusters"].values())
    hours = _from_slurm(here["slurm"], since) if slurm else _from_runs(since)
    return {"since": since.isoformat(), "site": here.get("title", here["name"]), **hours, "storage": _storage()}


def _from_slurm(slurm: Mapping, since: datetime) -> dict:
    start = since.astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    lines = _asked(
        slurm, "sacct", "-X", "-n", "-P", "-S", start, "-E", "now", "-u", str(os.getuid()),
        "--format=State,ElapsedRaw,AllocTRES",
    )  # fmt: skip
    total = {"jobs": 0, "running": 0, "cpu_hours": 0.0, "gpu_hours": 0.0}
    for line in lines:
        state, elapsed, allocated = line.split("|")
        reserved = dict(part.split("=", 1) for part in allocated.split(",") if "=" in part)
        hours = int(elapsed or 0) / 3600
        total["jobs"] += 1
        total["running"] += state.startswith("RUNNING")
        total["cpu_hours"] += hours * float(reserved.get("cpu", 0))
        total["gpu_hours"] += hours * float(reserved.get("gres/gpu", 0))
    return {"source": "Slurm's accounting", **total, "limits": _limits(slurm)}


def _limits(slurm: Mapping) -> dict[str, float]:
    """Limits in hours of the user's associations: {'cpu_hours': ..., 'gpu_hours': ...}."""
    lines = _asked(
        slurm, "sacctmgr", "-n", "-P", "show", "assoc", f"user={_name()}", "format=GrpTRESMins", "WithSubAccounts"
    )
    limits: dict[str, float] = {}
    for line in lines:
        for part in line.split(","):
            name, _, minutes = part.partition("=")
            key = {"cpu": "cpu_hours", "gres/gpu": "gpu_hours"}.get(name)
            if key and minutes:
                limits[key] = max(limits.get(key, 0.0), float(minutes) / 60)
    return limits


def _asked(slurm: Mapping, program: str, *arguments: str) -> list[str]:
    """Lines that a program of Slurm prints."""
    path = Path(slurm["programs"]) / program
    environment = dict(os.environ)
    if "configuration" in slurm:
        environment["SLURM_CONF"] = slurm["configuration"]
    try:
        done = subprocess.run(
            [str(path), *arguments], env=environment, capture_output=True, text=True, timeout=slurm["query_timeout"]
        )
    except FileNotFoundError:
        raise InputError(
            f"There is no {path}. Set slurm.programs in the site file to the folder of Slurm's programs."
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(f"Slurm's accounting did not answer within {slurm['query_timeout']:g} s. Try again.") from None
    if done.returncode:
        reason = (done.stderr.strip() or f"{program} ended with {done.returncode}").splitlines()[-1]
        raise InputError(f"Slurm's accounting does not answer: {reason}. Try again, or ask the centre's support.")
    return [line for line in done.stdout.splitlines() if line.strip()]


def _name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _from_runs(since: datetime) -> dict:
    count, running, seconds = 0, 0, 0.0
    for run in runs.runs():
        if run.created < since:
            continue
        count += 1
        running += run.status == runs.RUNNING
        seconds += (run.record.get("measures") or {}).get("cpu_seconds") or 0.0
    return {
        "source": "the records of runs",
        "jobs": count,
        "running": running,
        "cpu_hours": seconds / 3600,
        "gpu_hours": 0.0,
        "limits": {},
    }


def _storage() -> list[dict]:
    """Room on the file systems where the user's files lie; runs with what they take."""
    places = [
        {"place": "home", "folder": Path.home()},
        {"place": "runs", "folder": settings.runs_root(), "bytes": sum(run.size_bytes for run in runs.runs())},
    ]
    for place in places:
        folder = place["folder"]
        while not folder.exists():
            folder = folder.parent
        place["free"] = shutil.disk_usage(folder).free
        place["folder"] = str(place["folder"])
    return places
