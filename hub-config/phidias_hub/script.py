"""The batch script of a server. Nothing that a user sent stands in it: only numbers and names of the site file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .requests import Request
from .start_server import SERVER

#: Name of the hub's jobs in Slurm, by which one query finds all of them.
JOB_NAME = "phidias-server"
#: Where a job's log is, below the user's home.
LOGS = ".phidias/logs"
#: Logs and keys of servers older than this are removed at the next start.
KEPT_DAYS = 14

#: What the exit codes of the job mean, for the user.
EXITS = {
    70: "the hub refused the server's address",
    71: "the node could not reach the hub",
    72: "the environment has no jupyterhub",
    73: "the keys of the server could not be written into the home folder",
    74: "the server did not open its port",
    75: "the log could not be written into the home folder: it is missing, full or read-only on that node",
    76: "a module that the site asks for could not be loaded",
    77: "the Python of the environment is missing on that node or may not be started",
    78: "the node has no place for the sockets of kernels: its folder for temporary files is full, missing or closed",
    # What Python ends with when its last words find no room.
    120: "the log could not be written to its end: the home folder is full, or the user's quota there is used up",
    126: "the server's program may not be started",
    127: "the server's program is missing",
}
_WORD = re.compile(r"[A-Za-z0-9._-]+")
_FOLDER = re.compile(r"/[A-Za-z0-9._/+-]*")
_MODULE = re.compile(r"[A-Za-z0-9._/+-]+")
_START, _SERVER = "PHIDIAS_START_SERVER", "PHIDIAS_SERVER"


def log_path(home: str | Path, job: str | int) -> str:
    """Where the log of a job is."""
    return f"{home}/{LOGS}/server-{job}.log"


def render(request: Request, site: Mapping[str, Any]) -> str:
    """The batch script for `request`. Tokens, addresses and names reach the job by its environment, not through here."""
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={JOB_NAME}",
        # Slurm opens this file before the script can make a folder for it; the script opens the log itself.
        "#SBATCH --output=/dev/null",
        # The hub knows one address of one start; a second run of the same job would be a server that nobody finds.
        "#SBATCH --no-requeue",
        *(f"#SBATCH {option}" for option in request_options(request)),
    ]
    python = shlex.quote(_checked(request.folder, _FOLDER).rstrip("/") + "/bin/python")
    lines += [
        "umask 077",
        f'logs="$HOME/{LOGS}"',
        'mkdir -p "$logs" && exec >"$logs/server-$SLURM_JOB_ID.log" 2>&1 </dev/null || exit 75',
        f"find \"$logs\" -maxdepth 1 -type f -name 'server-*.log' -mtime +{KEPT_DAYS} -delete",
        # Set by Slurm to the short list of names that the hub handed over; job steps of the user start with all.
        "unset SLURM_EXPORT_ENV",
    ]
    modules = [shlex.quote(_checked(module, _MODULE)) for module in site.get("slurm", {}).get("modules", [])]
    if modules:
        lines += [
            "if ! type module >/dev/null 2>&1; then",
            '  for init in /etc/profile.d/*modules.sh /etc/profile.d/*lmod*.sh; do [ -r "$init" ] && . "$init"; done',
            "fi",
            *(f"module load {module} || exit 76" for module in modules),
        ]
    lines += [
        f"python={python}",
        '[ -x "$python" ] || { echo "There is no $python on $(hostname)."; exit 77; }',
        # Isolated and without site-packages: the start itself needs the standard library only, and is quick so.
        f"exec \"$python\" -I -S /dev/fd/9 9<<'{_START}' {SERVER}<<'{_SERVER}'",
        *_carried(_START, "start_server.py"),
        *_carried(_SERVER, "kernels.py", "server.py"),
    ]
    return "\n".join(lines) + "\n"


def _carried(end: str, *names: str) -> list[str]:
    """Files of this folder, one after the other, for the shell to hand over."""
    return [*(Path(__file__).with_name(name).read_text(encoding="utf-8").rstrip("\n") for name in names), end]


def request_options(request: Request) -> list[str]:
    """What sbatch is asked for, as its options; each value is checked once more."""
    options = [
        "--nodes=1",
        "--ntasks=1",
        f"--partition={_checked(request.partition, _WORD)}",
        f"--cpus-per-task={_whole(request.cores)}",
    ]
    if request.account is not None:
        options.append(f"--account={_checked(request.account, _WORD)}")
    if request.qos is not None:
        options.append(f"--qos={_checked(request.qos, _WORD)}")
    if request.memory_mib is not None:
        options.append(f"--mem={_whole(request.memory_mib)}M")
    if request.gpus:
        options.append(f"--gres=gpu:{_whole(request.gpus)}")
    if request.minutes is not None:
        options.append(f"--time={_whole(request.minutes)}")
    return options


def exit_in_words(code: int) -> str:
    """What an exit code of the job means."""
    if code in EXITS:
        return EXITS[code]
    if code > 128:
        return {9: "it was killed", 15: "it was asked to end", 11: "it crashed"}.get(
            code - 128, f"it was ended by signal {code - 128}"
        )
    return f"it ended with code {code}"


def _checked(value: Any, pattern: re.Pattern) -> str:
    """A name that the site file's schema let through; checked once more, since what follows is read by a shell."""
    if not isinstance(value, str) or not pattern.fullmatch(value) or value.startswith("-"):
        raise ValueError(f"{value!r} cannot stand in a batch script; mend the site file.")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} cannot stand in a batch script; a whole number is needed.")
    return value
