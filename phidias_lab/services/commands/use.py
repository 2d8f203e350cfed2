"""`phidias use`: hours and room that a user has used, and what is left."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from phidias_lab.services.commands.show import print_json, print_table


@click.command("use")
@click.option("--since", metavar="DATE", help="From this day on, as 2026-11-01.  [default: the first of this month]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(since: str | None, as_json: bool) -> None:
    """Show the hours of processors and GPUs you have used, and the room your files take.

    On a centre the hours come from Slurm's accounting and count what was reserved for you; on your own machine they are
    the processor time of your runs.
    """
    from phidias_lab.compute.usage import used

    found = used(_day(since))
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['site']}, since {found['since'][:10]}, from {found['source']}:")
    limits = found["limits"]
    rows = [
        [
            "jobs" if found["source"].startswith("Slurm") else "runs",
            f"{found['jobs']} ({found['running']} running)",
            "",
        ],
        ["processor hours", f"{found['cpu_hours']:.2f}", _of(limits.get("cpu_hours"))],
        ["GPU hours", f"{found['gpu_hours']:.2f}", _of(limits.get("gpu_hours"))],
    ]
    print_table(["", "used", "limit"], rows)
    click.echo("")
    from phidias_lab.contract.resources import show_memory

    print_table(
        ["files", "folder", "used", "free there"],
        [
            [p["place"], p["folder"], show_memory(p["bytes"]) if "bytes" in p else "", show_memory(p["free"])]
            for p in found["storage"]
        ],
    )


def _of(limit: float | None) -> str:
    return "none set" if limit is None else f"{limit:.0f}"


def _day(text: str | None) -> datetime | None:
    from phidias_lab.errors import ParameterError

    if text is None:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(f"--since {text!r} is no day. Write it as year-month-day, such as 2026-11-01.") from None
    return day if day.tzinfo else day.replace(tzinfo=UTC)
