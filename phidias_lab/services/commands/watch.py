"""`phidias watch FOLDER --chain CHAIN`: a chain on the flow; every parameter of the chain is an option, as with `run`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.services.commands.options import SHARED, given, input_reference, not_empty
from phidias_lab.services.commands.run import ChainCommand, option


def stream_options() -> list[click.Option]:
    """What says which files become runs of which chain."""
    return [
        option("chain", metavar="CHAIN", help="The chain that runs on each file."),
        option("files_are", "--files-are", metavar="NAME", help="Which input the files are for, where there are several."),
        option("input", multiple=True, metavar="NAME=REF", help="Where another input comes from, as with 'phidias run'."),
        option("pattern", metavar="GLOB", default="*", callback=not_empty, help="Only files of such names, as '*.nc'."),
        option("recursive", is_flag=True, help="Also files in folders below."),
        option(
            "keep_runs", "--keep-runs", type=click.IntRange(min=0), metavar="N",
            help="Keep the folders of the newest N runs and remove older ones; their events stay. Without it all are kept.",
        ),
        option("quiet", "-q", "--quiet", is_flag=True, help="No progress on stderr."),
    ]  # fmt: skip


def watch_options() -> list[click.Option]:
    return [
        *stream_options(),
        option("hooks", metavar="FILE", callback=not_empty, help="Who is told of events; see the page 'Watch a folder'."),
        option("once", is_flag=True, help="Leave when all that is there is done; exit code 3 when a file was refused."),
        option("at_once", "--at-once", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at one time."),
        option(
            "settle", type=click.FloatRange(min=0.0), default=2.0, show_default=True, metavar="SECONDS",
            help="A file has arrived when it has not changed for so long.",
        ),
        option("on", metavar="PLACE", help="Where to run: a place of the site; 'phidias places' lists them."),
        option("workers", type=click.IntRange(min=0), help="Workers at that place that share the pieces of a run."),
        option("json", is_flag=True, help="Print a line of JSON for each file on stdout."),
    ]  # fmt: skip


class StreamChain(ChainCommand):
    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [f"FOLDER --chain {self.chain.id} [OPTIONS]"]


class StreamCommand(click.Command):
    """Before the chain is known there are only the shared options; then the chain's own command takes over."""

    def __init__(self, name: str, options: Callable[[], list[click.Option]], execute: Callable[..., int], help: str):
        self.options, self.execute = options, execute
        params = [click.Argument(["folder"], required=False), *options()]
        super().__init__(name, params=params, callback=self.without_chain, help=help)

    def make_context(self, info_name, args, parent=None, **extra):
        chain_id = _chain_in(list(args))
        if chain_id is None:
            return super().make_context(info_name, args, parent, **extra)
        from phidias_lab.contract.registry import chain

        found = StreamChain(chain(chain_id), self.options(), self.execute)
        return found.make_context(info_name, args, parent, **extra)

    def without_chain(self, **_: Any) -> None:
        raise ParameterError(
            f"Name the chain, as in 'phidias {self.name} FOLDER --chain ocean.quality'. 'phidias chains' lists all of them."
        )


def _chain_in(args: list[str]) -> str | None:
    for position, word in enumerate(args):
        if word == "--chain" and position + 1 < len(args):
            return args[position + 1]
        if word.startswith("--chain="):
            return word.removeprefix("--chain=")
    return None


def asked(ctx: click.Context, *names: str) -> dict[str, Any]:
    """What the words on the command line say of a stream, as `Watch` and `Campaign` take it; `names` are further options."""
    chain = ctx.command.chain
    shared = {k.removeprefix(SHARED): v for k, v in ctx.params.items() if k.startswith(SHARED)}
    if shared["target"] is None:
        raise InputError(f"Name the folder, as in 'phidias {ctx.info_name} /data/arriving --chain {chain.id}'.")
    return {
        "folder": shared["target"],
        "chain": chain.id,
        "parameters": given(ctx, chain.declared()),
        "input": shared["files_are"],
        "inputs": dict(input_reference(text, chain.inputs) for text in shared["input"]),
        **{name: shared[name] for name in ("pattern", "recursive", "keep_runs", *names)},
    }


def execute(ctx: click.Context, /, **_: Any) -> int:
    from phidias_lab.modes.ledger import DONE, REFUSED
    from phidias_lab.modes.watch import Watch
    from phidias_lab.services.commands.following import signals_stop

    once, as_json, quiet = (ctx.params[SHARED + name] for name in ("once", "json", "quiet"))
    said = _Said(as_json, quiet)
    with signals_stop(hangup=True):
        how = asked(ctx, "hooks", "at_once", "settle", "on", "workers")
        watching = Watch(**how, tell=said.tell)
        with watching:
            said.begin(f"Watching {watching.address} with {watching.order.chain}; Ctrl-C stops.")
            watching.run(once, said.progress)
    refused = watching.counts[REFUSED]
    said.begin(f"Done: {watching.counts[DONE]} files, {watching.counts['events']} events, {refused} files refused.")
    return InputError.exit_code if refused else 0


command = StreamCommand(
    "watch",
    watch_options,
    execute,
    """Run a chain on each file that arrives in FOLDER, exactly once, and tell the events that it finds.

    FOLDER is a folder or an fsspec address such as s3://bucket/in. Every parameter of the chain is an option; 'phidias watch
    --chain CHAIN --help' shows them. Stopped at any moment and started again, it goes on where it was.

    \b
    phidias watch /data/arriving --chain ocean.quality --files-are observations --pattern '*.csv'
    phidias events
    """,
)


class _Said:
    """A line for each file on stdout; what goes on, on stderr, when it has changed."""

    EVERY = 5.0

    def __init__(self, as_json: bool, quiet: bool):
        self.as_json, self.quiet, self.last, self.line = as_json, quiet, 0.0, ""

    def begin(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def tell(self, told: dict) -> None:
        if "remark" in told:
            click.echo(told["remark"], err=True)
        elif self.as_json:
            click.echo(json.dumps(told, ensure_ascii=False))
        elif told["state"] == "done":
            count = told["events"]
            click.echo(f"done     {told['file']}  {count} event{'' if count == 1 else 's'}  {told['run']}")
        else:
            click.echo(f"{told['state']:<8} {told['file']}  {told['sentence']}")

    def progress(self, watching: Any) -> None:
        counts = watching.counts
        line = ", ".join(f"{counts[state]} {state}" for state in ("done", "refused", "skipped"))
        line += f", {len(watching.flying)} running, {watching.waiting} waiting, {counts['events']} events"
        if line != self.line and time.monotonic() - self.last >= self.EVERY:
            self.begin(line)
            self.last, self.line = time.monotonic(), line
