"""When a server ends, what its user is told before, and what else the user has to know.

A server knows two ends: the time limit of its job, which the hub hands over in PHIDIAS_SERVER_ENDS (seconds since 1970),
and idleness, after the site's servers.idle_minutes. Idle means that no kernel and no terminal works and that nobody touches
the page: JupyterLab asks for its kernels every few seconds for as long as a tab is open, so such questions say nothing about
a person, and the page reports keys and clicks itself.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from datetime import UTC, datetime

STARTED = time.time()  # of this server, whose notes are not those of an earlier one
STAGES = (2, 10, 60)  # further warnings, in minutes before the end, below the site's warn_minutes
REPORTS_COUNT_FOR = 180.0  # seconds: pages report every minute, background tabs are slowed down by browsers


def ends() -> float | None:
    """When this server's job reaches its time limit, in seconds since 1970; None without a limit."""
    try:
        value = float(os.environ["PHIDIAS_SERVER_ENDS"])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def notices(now: float, *, ends: float | None, idle: float, idle_minutes: float, warn_minutes: float) -> list[dict]:
    """What is to be said at `now` to a user who has been idle for `idle` seconds.

    Each notice has an id that changes when it is time to say it again, a type, a message, and the seconds that are left.
    """
    told = []
    if ends is not None and ends - now <= warn_minutes * 60:
        left = max(0.0, ends - now)
        clock = datetime.fromtimestamp(ends, UTC).strftime("%H:%M UTC")
        told.append(
            {
                "id": f"limit-{_stage(left, warn_minutes)}",
                "type": "warning",
                "left": left,
                "message": f"This server ends {_in(left)} ({clock}): its job reaches its time limit. Save your work. "
                "Runs sent to a cluster (--on) go on without it.",
            }
        )
    if idle_minutes and idle_minutes * 60 - idle <= warn_minutes * 60 and idle >= 60:
        left = max(0.0, idle_minutes * 60 - idle)
        told.append(
            {
                "id": f"idle-{_stage(left, warn_minutes)}",
                "type": "warning",
                "left": left,
                "message": f"Nobody has used this server for {_amount(idle)}. It is stopped {_in(left)} unless you use it. "
                "Files stay; variables of kernels are lost.",
            }
        )
    return told


def note(sentence: str, kind: str = "info") -> dict:
    """A notice of what happened at this server's start; a browser shows it once."""
    mark = hashlib.sha256(f"{STARTED} {sentence}".encode()).hexdigest()[:16]
    return {"id": f"note-{mark}", "type": kind, "message": sentence}


def _stage(left: float, warn_minutes: float) -> int:
    """The smallest announced time that is not yet over, so that each is said once."""
    return min((s for s in (*STAGES, warn_minutes) if left <= s * 60), default=warn_minutes)


def _amount(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{minutes // 60} hours"


def _in(seconds: float) -> str:
    return "in " + _amount(seconds)


def now() -> float:
    return time.time()
