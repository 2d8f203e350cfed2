"""What a cluster or a run asks of a place: the chain's need or the user's wish, within what the site allows."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from phidias_lab.contract.resources import Resources, parse_memory, show_memory
from phidias_lab.errors import ParameterError, UnknownNameError, nearest

#: What a worker takes before it computes: 146 MiB are resident once Dask, numpy and xarray are loaded, some of them shared.
LEAST_MEMORY = 128 * 2**20


@dataclass(frozen=True)
class Request:
    """Workers, and what each of them gets."""

    place: str
    kind: str
    workers: int
    cores: int
    memory: int
    gpus: int
    minutes: float
    notes: tuple[str, ...] = ()

    def __str__(self):
        gpus = f", {self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        time = f" for at most {self.minutes / 60:g} h" if self.kind == "slurm" else ""
        return (
            f"{self.workers} worker{'s' * (self.workers != 1)} on {self.place}, each with {self.cores} "
            f"core{'s' * (self.cores > 1)}, {show_memory(self.memory)}{gpus}{time}"
        )


def place(site: Mapping, name: str) -> dict:
    """What the site file says about a place."""
    known = site["clusters"]
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(f"The site {site['name']!r} has no place {name!r}. {nearest(str(name), known)}")
    return known[name]


def places(site: Mapping) -> dict[str, str]:
    """Titles of the places with their names, for lists to choose from."""
    return {cluster.get("title") or name: name for name, cluster in site["clusters"].items()}


def bounds(site: Mapping) -> list[dict]:
    """The places with the most that each gives; None where the site sets no bound."""
    found = []
    for name, here in site["clusters"].items():
        most = {key: here.get(key, {}).get("max") for key in ("workers", "cores", "memory_gib", "gpus", "hours")}
        if here["kind"] == "local":
            own = _memory_of_this_machine() / 2**30
            most["memory_gib"] = round(min(most["memory_gib"] or own, own), 1)
        found.append({"name": name, "title": here.get("title") or name, **most, "gpus": most["gpus"] or 0})
    return found


def request(
    site: Mapping,
    name: str,
    *,
    workers: int | None = None,
    cores: int | None = None,
    memory: str | int | None = None,
    gpus: int | None = None,
    hours: float | None = None,
    need: Resources | None = None,
) -> Request:
    """What to ask for: what is given, else what the chain declares, else the site's default; never above the site's most."""
    here = place(site, name)
    notes: list[str] = []

    def bound(key: str, none: float | None = None) -> tuple[float, float | None]:
        amount = here.get(key)
        if amount is None:
            return (1.0 if none is None else none), none
        return amount.get("default", 0 if key == "gpus" else 1), amount["max"]

    def within(what: str, value: float, most: float | None, show: Any, who: str) -> float:
        if most is not None and value > most:
            others = ", ".join(other for other in site["clusters"] if other != name)
            raise ParameterError(
                f"{who} {show(value)} {what.format(s='' if value == 1 else 's')}, but {name} gives "
                f"{f'at most {show(most)}. Ask for less' if most else 'none. Ask for none'}"
                f"{f', or choose another place: {others}' if others else ''}."
            )
        return value

    asked = "You asked for"
    declared = "The chain needs"

    def number(value: float) -> str:
        return f"{value:.0f}" if float(value).is_integer() else f"{value:g}"

    default, most = bound("workers")
    count = _positive("workers", workers, default, zero=True)
    within("worker{s}", count, most, number, asked)
    default, most = bound("cores")
    wanted = _positive("cores", cores, need.cores if need else default)
    if cores is None and here["kind"] == "local" and most is not None:
        wanted = min(wanted, int(most))  # this machine has what it has; a run there takes longer
    within("core{s} per worker", wanted, most, number, declared if cores is None and need else asked)
    default, most = bound("memory_gib", math.inf)
    most = None if most is None else most * 2**30
    if here["kind"] == "local":
        most = min(math.inf if most is None else most, _memory_of_this_machine())
    if memory is not None:
        size, who = parse_memory(memory), asked
    elif need is not None:
        size, who = need.memory_bytes, declared
    else:
        size, who = (int(default * 2**30), asked) if math.isfinite(default) else (2 * 2**30, asked)
    if memory is None and here["kind"] == "local":
        size = min(size, int(most))  # as with cores
    if size < LEAST_MEMORY:
        raise ParameterError(
            f"memory is {show_memory(size)}; a worker needs at least {show_memory(LEAST_MEMORY)}, because Python and the "
            "libraries of the lab take that much. Write for example '4GiB'."
        )
    within("of memory per worker", size, most, show_memory, who)
    default, most = bound("gpus", 0)
    if gpus is not None:
        devices = _positive("gpus", gpus, 0, zero=True)
        within("GPU{s} per worker", devices, most, number, asked)
    else:
        devices = int(max(need.gpus if need else 0, default))
        if devices > (most or 0):
            if not most:
                notes.append(f"{name} has no GPUs, so the chain runs on processors there.")
                devices = 0
            else:
                within("GPU{s} per worker", devices, most, number, declared)
    default, most = bound("hours", math.inf)
    if hours is not None:
        if not isinstance(hours, int | float) or isinstance(hours, bool) or not math.isfinite(hours) or hours <= 0:
            raise ParameterError(f"hours is {hours!r}; it must be a number above 0, for example 0.5.")
        if hours * 60 < 1:
            raise ParameterError(
                f"hours is {hours:g}; the least is a minute of wall time, because Slurm counts whole minutes. Write for "
                "example 0.5."
            )
        minutes, who = hours * 60, asked
    elif need is not None:
        minutes, who = need.walltime_seconds / 60, declared
    else:
        minutes, who = (default * 60 if math.isfinite(default) else 60.0), asked
    within("minute{s} of wall time", minutes, most * 60 if most is not None else None, number, who)
    return Request(name, here["kind"], int(count), int(wanted), int(size), int(devices), float(minutes), tuple(notes))


def controller(asked: Request, site: Mapping) -> Request:
    """What the job needs that only hands out the pieces to workers of its own."""
    return replace(asked, workers=0, cores=1, gpus=0, notes=())


def _memory_of_this_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _positive(name: str, value: Any, default: float, *, zero: bool = False) -> int:
    return int(default) if value is None else whole(name, value, least=0 if zero else 1)


def whole(name: str, value: Any, *, least: int) -> int:
    """A whole number from `least` up; anything else is refused."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ParameterError(f"{name} is {value!r}; it must be a whole number from {least} up.")
    return value
