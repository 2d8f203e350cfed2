"""What a user may ask of a server, and what becomes of it: a request within the bounds of the site file, or a refusal.

All functions here are pure: they see the options, the site and what is known of the nodes, and no hub and no Slurm.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: The only options there are; whatever else is sent is refused.
OPTIONS = ("profile", "environment", "cores", "memory_gib", "gpus", "hours")
AMOUNTS = ("cores", "memory_gib", "gpus", "hours")
_WHOLE = ("cores", "gpus")
_NAMES = {"cores": "cores", "memory_gib": "GiB of memory", "gpus": "GPUs", "hours": "hours"}
_ONE = {"cores": "core", "memory_gib": "GiB of memory", "gpus": "GPU", "hours": "hour"}
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


class Refused(ValueError):
    """What was asked for is not to be had; the text is a sentence for the user."""


@dataclass(frozen=True)
class Request:
    """A server as it will be asked of Slurm. Every value comes from the site file or is a number within its bounds."""

    profile: str
    partition: str
    environment: str
    folder: str
    account: str | None = None
    qos: str | None = None
    cores: int = 1
    memory_mib: int | None = None
    gpus: int = 0
    minutes: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that give this request again."""
        options: dict[str, Any] = {"profile": self.profile, "environment": self.environment, "cores": self.cores}
        if self.memory_mib is not None:
            options["memory_gib"] = self.memory_mib / 1024
        if self.gpus:
            options["gpus"] = self.gpus
        if self.minutes is not None:
            options["hours"] = self.minutes / 60
        return options


@dataclass(frozen=True)
class Node:
    """A node of a partition: what it has, and what of it is free now."""

    name: str
    partition: str
    usable: bool
    cores: int
    cores_free: int
    memory_mib: int
    memory_free_mib: int
    gpus: int
    gpus_free: int


def environments(site: Mapping[str, Any]) -> dict[str, dict]:
    """The Python environments of a site; without any, the one that the hub runs in."""
    named = site.get("servers", {}).get("environments") or {}
    return dict(named) if named else {"hub": {"folder": sys.prefix, "title": "The environment of the hub"}}


def from_form(form: Mapping[str, Any], site: Mapping[str, Any]) -> dict[str, Any]:
    """Options out of what a browser sends: lists of texts. The amounts of a profile are named ``PROFILE.cores`` there."""
    profiles = _profiles(site)
    known = {*OPTIONS, *(f"{profile}.{amount}" for profile in profiles for amount in AMOUNTS)}
    texts: dict[str, str] = {}
    for key, values in form.items():
        if key == "_xsrf":
            continue
        if key not in known:
            raise Refused(_unknown(key))
        if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
            raise Refused(f"The option {key} was given more than once; give it once.")
        if values[0].strip():
            texts[key] = values[0].strip()
    options: dict[str, Any] = {key: texts[key] for key in ("profile", "environment") if key in texts}
    profile = options.get("profile", next(iter(profiles), ""))
    for amount in AMOUNTS:
        text = texts.get(f"{profile}.{amount}", texts.get(amount))
        if text is not None:
            options[amount] = _number(amount, text)
    return options


def chosen(options: Any, site: Mapping[str, Any]) -> Request:
    """The request that `options` mean at `site`; a sentence in `Refused` when they are not to be had."""
    if not isinstance(options, Mapping):
        raise Refused(
            f"The options are {_shown(options)}; they have to be an object with the keys {', '.join(OPTIONS)}."
        )
    for key in options:
        if key not in OPTIONS:
            raise Refused(_unknown(key))
    profiles = _profiles(site)
    if not profiles:
        raise Refused("This site offers no profile; ask its administrator to add one to the site file.")
    name = _one_of("profile", options.get("profile"), profiles)
    profile = profiles[name]
    known = environments(site)
    environment = _one_of("environment", options.get("environment"), known)
    amounts = {amount: _amount(amount, options.get(amount), name, profile) for amount in AMOUNTS}
    return Request(
        profile=name,
        partition=profile["partition"],
        account=profile.get("account"),
        qos=profile.get("qos"),
        environment=environment,
        folder=known[environment]["folder"],
        cores=math.ceil(amounts["cores"] or 1),
        memory_mib=None if amounts["memory_gib"] is None else math.ceil(amounts["memory_gib"] * 1024),
        gpus=int(amounts["gpus"] or 0),
        minutes=None if amounts["hours"] is None else max(1, math.ceil(amounts["hours"] * 60)),
    )


def default_request(profile: str, site: Mapping[str, Any]) -> Request:
    """What a user gets who chooses a profile and nothing else."""
    return chosen({"profile": profile}, site)


def bounds(profile: Mapping[str, Any], amount: str) -> tuple[float, float] | None:
    """Default and most of an amount in a profile; nothing where the profile does not offer it."""
    entry = profile.get(amount)
    if entry is None:
        return None
    return min(entry.get("default", 0 if amount == "gpus" else 1), entry["max"]), entry["max"]


def check_fits(request: Request, nodes: Iterable[Node]) -> None:
    """Refuses what no node can ever give, and says what would fit. Unknown nodes refuse nothing."""
    there = [node for node in nodes if node.partition == request.partition]
    if not there:
        return
    usable = [node for node in there if node.usable]
    if not usable:
        raise Refused(
            f"No node of the partition {request.partition} is in service now; choose another profile or try later."
        )
    if any(_within(request, node.cores, node.memory_mib, node.gpus) for node in usable):
        return
    # The nearest node is the one that misses least, counted in kinds of amount.
    best = max(usable, key=lambda n: (n.gpus >= request.gpus, n.cores >= request.cores, n.gpus, n.cores, n.memory_mib))
    raise Refused(
        f"No node of the partition {request.partition} has {_amounts(request)}. "
        f"What would fit: at most {_have(best.cores, best.memory_mib, best.gpus)}."
    )


def free_now(request: Request, nodes: Iterable[Node]) -> bool:
    """Whether some node has room for the request at this moment."""
    return any(
        node.usable
        and node.partition == request.partition
        and _within(request, node.cores_free, node.memory_free_mib, node.gpus_free)
        for node in nodes
    )


def _within(request: Request, cores: int, memory_mib: int, gpus: int) -> bool:
    return cores >= request.cores and gpus >= request.gpus and memory_mib >= (request.memory_mib or 0)


def _amounts(request: Request) -> str:
    parts = [count(request.cores, "cores")]
    if request.memory_mib is not None:
        parts.append(count(request.memory_mib / 1024, "memory_gib"))
    if request.gpus:
        parts.append(count(request.gpus, "gpus"))
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _have(cores: int, memory_mib: int, gpus: int) -> str:
    parts = [count(cores, "cores"), count(math.floor(memory_mib / 102.4) / 10, "memory_gib")]
    if gpus:
        parts.append(count(gpus, "gpus"))
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def count(number: float, amount: str) -> str:
    """A number with its unit in words: 1 core, 2 cores."""
    return f"{number:g} {_ONE[amount] if number == 1 else _NAMES[amount]}"


def _profiles(site: Mapping[str, Any]) -> dict[str, dict]:
    return dict(site.get("servers", {}).get("profiles") or {})


def _one_of(what: str, value: Any, known: Mapping[str, Any]) -> str:
    if value is None:
        return next(iter(known))
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(value[:100], known, n=1) if isinstance(value, str) else []
    offer = f" Did you mean {near[0]!r}?" if near else ""
    raise Refused(f"There is no {what} {_shown(value)} here; choose one of {', '.join(known)}.{offer}")


def _amount(amount: str, value: Any, name: str, profile: Mapping[str, Any]) -> float | None:
    offered = bounds(profile, amount)
    if value is None:
        return None if offered is None else offered[0]
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (isinstance(value, int) or math.isfinite(value))
    ):
        raise Refused(f"The option {amount} is {_shown(value)}; it has to be a number.")
    if offered is None:
        # What a server has where there is no choice.
        if value == {"cores": 1, "gpus": 0}.get(amount):
            return value
        raise Refused(f"The profile {name} offers no choice of {_NAMES[amount]}; leave {amount} out.")
    if amount in _WHOLE and isinstance(value, float) and not value.is_integer():
        raise Refused(f"The option {amount} is {_shown(value)}; it has to be a whole number.")
    least = 0 if amount == "gpus" else 1 if amount == "cores" else 1 / 60
    if not least <= value <= offered[1]:
        low = {"gpus": "0", "cores": "1"}.get(amount, "above 0")
        raise Refused(
            f"The option {amount} is {_shown(value)}; the profile {name} gives {low} to {offered[1]:g} {_NAMES[amount]}."
        )
    return value


def _number(amount: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise Refused(f"The option {amount} is {_shown(text)}; it has to be a number like 2 or 1.5.")
    return float(text) if "." in text else int(text)


def _unknown(key: Any) -> str:
    near = difflib.get_close_matches(key[:100], OPTIONS, n=1) if isinstance(key, str) else []
    offer = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no option {_shown(key)}; a server has the options {', '.join(OPTIONS)}.{offer}"


def _shown(value: Any) -> str:
    """Any value for a sentence: short, ASCII, on one line."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**12:
        return "a number of more than 12 digits"
    if isinstance(value, (dict, list, tuple, set)):
        return {"dict": "an object"}.get(type(value).__name__, "a list")
    if value is True or value is False:
        return str(value).lower()
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
