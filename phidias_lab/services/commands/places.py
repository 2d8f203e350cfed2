"""`phidias places`: where runs and clusters may go on this site."""

from __future__ import annotations

import click

from phidias_lab.services.commands.show import print_json, print_table

_HEADS = {
    "name": "name",
    "title": "title",
    "workers": "workers",
    "cores": "cores",
    "memory_gib": "memory (GiB)",
    "gpus": "GPUs",
    "hours": "hours",
}


@click.command("places")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; null where the site sets no bound.")
def command(as_json: bool) -> None:
    """List where runs and clusters may go, with the most of each.

    A name is what 'phidias run CHAIN --on NAME' and phidias_lab.cluster("NAME") take. Cores, memory and GPUs are those of
    each worker.
    """
    from phidias_lab.compute import request, site

    found = request.bounds(site.current())
    if as_json:
        print_json(found)
        return
    print_table(list(_HEADS.values()), [[_shown(place, key) for key in _HEADS] for place in found])


def _shown(place: dict, key: str) -> str:
    value = place[key]
    if value is None:
        return "no bound" if place["name"] == "local" else "as Slurm allows"
    return f"{value:g}" if isinstance(value, int | float) else value
