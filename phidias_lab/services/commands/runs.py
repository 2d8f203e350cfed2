"""`phidias runs`: what ran, how far it is, what it left; and freeing the space it takes."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Any

import click

from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.show import duration, print_json, print_table

STATES = ("waiting", "running", "done", "failed", "cancelled", "interrupted")
#: What `prune` takes when nothing was said: the states that leave no product.
WITHOUT_PRODUCT = ("failed", "cancelled", "interrupted")


@click.group("runs", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, stop, resume and remove runs.

    A run is named by its id, by any beginning or ending of its id that fits no other, or by 'last', the newest of all.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_runs)


@command.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--chain", "chain_id", help="Only runs of this chain.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_runs(states: tuple[str, ...] = (), chain_id: str | None = None, as_json: bool = False) -> None:
    """List the runs, newest first."""
    from phidias_lab.compute import runs
    from phidias_lab.contract.resources import show_memory

    rows = [_row(run) for run in runs.runs()]
    rows = [r for r in rows if (not states or r["status"] in states) and chain_id in (None, r["chain"])]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("There is no such run. 'phidias run CHAIN' makes one.")
    else:
        columns = ["id", "status", "progress", "took", "size", "title"]
        print_table(
            columns,
            [
                [
                    r["id"],
                    r["status"],
                    f"{r['fraction']:.0%}",
                    duration(r["wall_seconds"]),
                    show_memory(r["size_bytes"]),
                    r["title"] or "",
                ]
                for r in rows
            ],
        )


def _row(run: Any) -> dict:
    record, order = run.record, run.order
    return {
        "id": run.id,
        "chain": order.chain,
        "title": run.title or None,
        "status": run.status,
        "fraction": run.progress.fraction,
        "created": run.created.isoformat(),
        "wall_seconds": (record.get("measures") or {}).get("wall_seconds"),
        "size_bytes": run.size_bytes,
        "folder": str(run.folder),
    }


def _found(name: str) -> Any:
    from phidias_lab.compute import runs

    run = runs.find(name)
    if name == runs.LAST:
        click.echo(f"The last run is {run.id}.", err=True)
    return run


@command.command("show")
@click.argument("name", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_run(name: str, as_json: bool) -> None:
    """Show what RUN was asked, how far it is and what came out."""
    from phidias_lab.contract.parameters import show
    from phidias_lab.contract.resources import show_memory
    from phidias_lab.contract.said import counts_line

    run = _found(name)
    record, order, progress = run.record, run.order, run.progress
    product = run.product if run.status == "done" else None
    if as_json:
        print_json(
            {
                **_row(run),
                "message": progress.message,
                "seconds_left": progress.seconds_left,
                "order": order.document(),
                "record": record,
                "error": run.error,
                "product": str(product.path) if product else None,
                "checksums": dict(product.checksums) if product else {},
            }
        )
        return
    lines = [("Run", run.id), ("Chain", f"{order.chain} {order.version}"), ("State", f"{run.status} ({progress})")]
    if run.title:
        lines.append(("Title", run.title))
    lines += [("Asked", f"{run.created:%Y-%m-%d %H:%M:%S} UTC"), ("Folder", run.folder)]
    measures = record.get("measures") or {}
    if measures:
        memory = show_memory(measures.get("peak_memory_bytes", 0))
        lines.append(("Took", f"{duration(measures.get('wall_seconds'))}, peak memory {memory}"))
    lines.append(("Size", show_memory(run.size_bytes)))
    if run.error:
        lines.append(("Error", run.error))
    if product:
        lines.append(("Product", product.path))
        lines += [("", f"{variable}  sha256 {checksum[:12]}") for variable, checksum in product.checksums.items()]
    said = record.get("said") or {}
    lines += [("Used", counts_line(what, **count)) for what, count in (said.get("counts") or {}).items()]
    lines += [("Found", sentence) for sentence in said.get("found") or ()]
    lines += [("Warning", sentence) for sentence in said.get("warnings") or ()]
    lines += [("Computed", sentence) for sentence in said.get("remarks") or ()]
    lines += [("Input", f"{name}: {show(dict(reference))}") for name, reference in order.inputs.items()]
    lines += [("Parameter", f"{name} = {show(value)}") for name, value in order.parameters.items()]
    for label, text in lines:
        click.echo(f"{label:10}{text}")


@command.command("log")
@click.argument("name", metavar="RUN")
def show_log(name: str) -> None:
    """Print what the worker of RUN said."""
    click.echo(_found(name).log, nl=False)


@command.command("cancel")
@click.argument("name", metavar="RUN")
def cancel(name: str) -> None:
    """Stop RUN; what it had half written is removed."""
    run = _found(name)
    before = run.status
    if before not in ("waiting", "running"):
        raise ParameterError(f"The run {run.id} is {before} already; there is nothing to cancel.")
    click.echo(f"The run {run.id} is {run.cancel()}.")


@command.command("resume")
@click.argument("name", metavar="RUN")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="Also print the checksum of each variable.")
@click.option("--detach", is_flag=True, help="Return at once; the run goes on in the background.")
def resume(name: str, quiet: bool, verbose: bool, detach: bool) -> None:
    """Go on with RUN where it stopped; finished pieces are not computed again."""
    from phidias_lab.services.commands.following import finished, print_summary, summary

    run = _found(name)
    if detach:
        run.resume()
        click.echo(f"The run {run.id} goes on in the background.")
    else:
        print_summary(summary(finished(run.resume, quiet)), verbose)


@command.command("remove")
@click.argument("name", metavar="RUN")
def remove(name: str) -> None:
    """Delete RUN with its record and its product."""
    from phidias_lab.contract.resources import show_memory

    run = _found(name)
    click.echo(f"Removed the run {run.id}: {show_memory(run.remove())} freed.")


@command.command("prune")
@click.option("--older-than", "older_than", metavar="TIME", help="Only runs older than, for example, 30d, 12h or 2w.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the newest N of them.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES[2:]),
    help="Only runs in this state; may be given several times. Without it, and without --older-than and --keep, "
    "only runs that left no product are removed.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
def prune(older_than: str | None, keep: int | None, states: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Free space: remove runs that have ended, with their products."""
    from phidias_lab.compute import runs
    from phidias_lab.contract.resources import show_memory

    chosen = states or (STATES[2:] if older_than or keep is not None else WITHOUT_PRODUCT)
    rules = {"older_than": age(older_than) if older_than else None, "keep": keep, "states": chosen}
    found = runs.prune(**rules, dry_run=True)
    total = sum(run.size_bytes for run in runs.runs())
    freed = sum(size for _, size in found)
    click.echo(f"All runs take {show_memory(total)}.")
    if not found:
        click.echo(f"No run fits (states: {', '.join(chosen)}); nothing is removed.")
        return
    print_table(["id", "size"], [[name, show_memory(size)] for name, size in found])
    counted = f"{len(found)} run{'s' if len(found) > 1 else ''}"
    if dry_run:
        click.echo(f"Removing {counted} would free {show_memory(freed)} and leave {show_memory(total - freed)}.")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise ParameterError(f"Removing {counted} needs a yes. Add --yes, or look first with --dry-run.")
        click.confirm(f"Remove {counted} ({show_memory(freed)}) and their products?", abort=True)
    freed = sum(size for _, size in runs.prune(**rules))
    left = sum(run.size_bytes for run in runs.runs())
    click.echo(f"Removed {counted}: {show_memory(freed)} freed, {show_memory(left)} left.")


def age(text: str) -> timedelta:
    """The time that '30d', '12h', '45m' or '2w' stands for."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*([mhdw])\s*", text)
    if not match:
        raise ParameterError(
            f"{text!r} is not a time. Write a whole number and one of m, h, d, w (minutes, hours, days, weeks), as in 30d."
        )
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
    return timedelta(**{unit: int(match[1])})
