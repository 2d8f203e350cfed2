"""The form on which a user chooses a server: plain HTML that needs no script, readable on a telephone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .queue import when
from .requests import Node, Request, bounds, count, default_request, environments, free_now

_LABELS = {"cores": "Cores", "memory_gib": "Memory in GiB", "gpus": "GPUs", "hours": "Hours"}
_STEPS = {"cores": "1", "memory_gib": "any", "gpus": "1", "hours": "any"}
_LEAST = {"cores": "1", "memory_gib": "0.1", "gpus": "0", "hours": "0.1"}
_STYLE = """<style>
.phidias-profile { border: 1px solid #8888; border-radius: .5rem; padding: .75rem 1rem; margin-bottom: .75rem; }
.phidias-profile > label { display: block; font-weight: 600; cursor: pointer; }
.phidias-amounts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem 1rem; }
.phidias-amounts { margin-top: .5rem; }
.phidias-amounts input { width: 100%; }
.phidias-profile:not(:has(> label > input:checked)) .phidias-amounts { display: none; }
</style>"""


def render(
    site: Mapping[str, Any],
    nodes: Iterable[Node],
    last: Mapping[str, Any],
    *,
    silent: bool = False,
    starts: Mapping[str, float] | None = None,
    now: float | None = None,
) -> str:
    """The form's fields. `last` is what the user chose before, `starts` when a server of a full profile would start."""
    nodes, starts = list(nodes), starts or {}
    profiles = site["servers"]["profiles"]
    picked = last.get("profile") if last.get("profile") in profiles else next(iter(profiles))
    parts = [_STYLE]
    if silent:
        parts.append(
            '<p class="alert alert-warning">The queue of the machine does not answer, so what is free is unknown.</p>'
        )
    for name, profile in profiles.items():
        chosen_before = last if name == picked else {}
        parts.append(_profile(name, profile, site, nodes, chosen_before, name == picked, silent, starts.get(name), now))
    known = environments(site)
    if len(known) > 1:
        before = last.get("environment")
        options = "".join(
            f'<option value="{escape(name)}"{" selected" if name == before else ""}>'
            f"{escape(entry.get('title') or name)}</option>"
            for name, entry in known.items()
        )
        parts.append(
            f'<p><label>Environment <select class="form-select" name="environment">{options}</select></label></p>'
        )
    return "\n".join(parts)


def full_profiles(site: Mapping[str, Any], nodes: Iterable[Node]) -> dict[str, Request]:
    """The profiles whose usual request finds no room now."""
    nodes = list(nodes)
    requests = {name: default_request(name, site) for name in site["servers"]["profiles"]}
    return {name: request for name, request in requests.items() if not free_now(request, nodes)}


def availability(request: Request, nodes: Iterable[Node], start: float | None = None, now: float | None = None) -> str:
    """What is free for a profile now, and when a server would start, in a sentence."""
    there = [node for node in nodes if node.partition == request.partition and node.usable]
    if not there:
        return "No node is in service now."
    if free_now(request, there):
        told = "Starts at once"
    elif start is not None:
        told = f"All full; expected to start {when(start, now)}"
    else:
        told = "All full; you would wait"
    idle = sum(node.cores_free == node.cores for node in there)
    free = [f"{idle} of {len(there)} {'node' if len(there) == 1 else 'nodes'} idle"]
    if any(node.gpus for node in there):
        free.append(
            f"{sum(node.gpus_free for node in there)} of {count(sum(node.gpus for node in there), 'gpus')} free"
        )
    else:
        free.append(
            f"{sum(node.cores_free for node in there)} of {count(sum(node.cores for node in there), 'cores')} free"
        )
    return f"{told}: {', '.join(free)}."


def _profile(
    name: str,
    profile: Mapping[str, Any],
    site: Mapping[str, Any],
    nodes: list[Node],
    last: Mapping[str, Any],
    picked: bool,
    silent: bool,
    start: float | None,
    now: float | None,
) -> str:
    fields = []
    for amount, label in _LABELS.items():
        limits = bounds(profile, amount)
        if limits is None:
            continue
        value = last.get(amount, limits[0])
        fields.append(
            f'<label>{label} (at most {limits[1]:g})<input class="form-control" type="number" '
            f'name="{escape(name)}.{amount}" '
            f'value="{value:g}" min="{_LEAST[amount]}" max="{limits[1]:g}" step="{_STEPS[amount]}"></label>'
        )
    told = "" if silent else availability(default_request(name, site), nodes, start, now)
    return (
        f'<div class="phidias-profile"><label><input type="radio" name="profile" value="{escape(name)}"'
        f"{' checked' if picked else ''}> {escape(profile.get('title') or name)}</label>"
        f'<div class="text-muted">{escape(told)}</div><div class="phidias-amounts">{"".join(fields)}</div></div>'
    )
