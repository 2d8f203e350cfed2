"""`phidias run CHAIN`: every parameter of the chain is an option; the order that results is given to the flow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.options import (
    SHARED,
    ParameterOption,
    given,
    input_reference,
    not_empty,
    parameter_options,
)
from phidias_lab.services.commands.show import print_json

_INPUT_HELP = (
    "Where an input comes from: NAME=ENTRY, NAME=FILE or, with parameters of the entry, "
    "'NAME=ENTRY?key=value&key=value' in quotes. May be given several times."
)


def option(name: str, *spelled: str, **kwargs: Any) -> click.Option:
    """An option that every chain shares."""
    return click.Option([SHARED + name, *(spelled or (f"--{name}",))], **kwargs)


def run_options() -> list[click.Option]:
    return [
        option("input", multiple=True, metavar="NAME=REF", help=_INPUT_HELP),
        option(
            "order",
            metavar="FILE",
            callback=not_empty,
            help="Take chain, parameters and inputs from an order file; options given beside it override the file.",
        ),
        option(
            "output",
            metavar="PATH",
            callback=not_empty,
            help="Also put the product there. A name with an ending (map.nc) becomes the data file alone; one without "
            "becomes the product's folder, with item.json, order.json and provenance.json. The run keeps all of it anyway.",
        ),
        option("format", metavar="NAME", help="File format of the product, for example netcdf or zarr."),
        option("overwrite", is_flag=True, help="Replace what stands at --output."),
        option("title", metavar="TEXT", help="A title for the product's metadata."),
        option("on", metavar="PLACE", help="Where to run: a place of the site; 'phidias places' lists them."),
        option("workers", type=click.IntRange(min=0), help="Workers at that place that share the pieces of the run."),
        option("quiet", "-q", "--quiet", is_flag=True, help="No progress on stderr."),
        option("verbose", "-v", "--verbose", is_flag=True, help="Also print the checksum of each variable."),
        option("json", is_flag=True, help="Print the result as JSON on stdout."),
        option("detach", is_flag=True, help="Start the run and return at once; it goes on in the background."),
    ]


class ChainCommand(click.Command):
    """A command about one chain: its parameters are options, beside those that every chain shares."""

    def __init__(self, chain: type, shared: list[click.Option], callback: Callable):
        self.chain = chain
        taken = {"--help", "--debug"} | {spelling for option in shared for spelling in option.opts}
        options = parameter_options(chain.declared(), taken)
        description = chain.describe()
        super().__init__(
            chain.id,
            params=[click.Argument(["shared_target"], required=False), *options, *shared],
            callback=click.pass_context(callback),
            help=f"{description['title']}.\n\n{description['summary']}",
        )

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        # The chain stands before the options already: its name decides which options there are.
        return ["[OPTIONS]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        user, expert, other = [], [], []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is None or not isinstance(option, click.Option):
                continue
            if isinstance(option, ParameterOption):
                (expert if option.parameter.level == "expert" else user).append(record)
            else:
                other.append(record)
        inputs = [
            (name, f"{i.doc or i.kind} [{i.kind}; {'optional' if i.optional else f'default: {i.default or None}'}]")
            for name, i in self.chain.inputs.items()
        ]
        for heading, records in (
            ("Parameters", user),
            ("Expert parameters", expert),
            ("Inputs (for --input)", inputs),
            ("Options", other),
        ):
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class RunCommand(click.Command):
    """Before the chain is known there are only the shared options; then the chain's own command takes over."""

    def make_context(self, info_name, args, parent=None, **extra):
        chain_id = _chain_in(list(args))
        if chain_id is None:
            return super().make_context(info_name, args, parent, **extra)
        from phidias_lab.contract.registry import chain

        found = ChainCommand(chain(chain_id), run_options(), execute)
        return found.make_context(f"{info_name} {chain_id}", args, parent, **extra)


def _chain_in(args: list[str]) -> str | None:
    """The chain that the words name: the first word, the order file's chain, or any word that is a chain's id."""
    if args and not args[0].startswith("-"):
        return args[0]
    from phidias_lab.contract.order import load
    from phidias_lab.contract.registry import chains

    known = chains()
    named = next((word for word in args if word in known), None)
    if named:
        return named
    for position, word in enumerate(args):
        if word == "--order" and position + 1 < len(args):
            return load(not_empty(None, None, args[position + 1])).chain
        if word.startswith("--order="):
            return load(not_empty(None, None, word.removeprefix("--order="))).chain
    return None


def _without_chain(**_: Any) -> None:
    raise ParameterError(
        "Name the chain to run, as in 'phidias run ocean.gridding'. 'phidias chains' lists all of them."
    )


command = RunCommand(
    "run",
    params=[click.Argument(["chain"], required=False), *run_options()],
    callback=_without_chain,
    help="""Run CHAIN and write its product.

    Every parameter of the chain is an option; 'phidias run CHAIN --help' shows them with units, bounds and defaults.
    Ctrl-C stops the run and leaves nothing half-written.

    \b
    phidias run ocean.gridding --length 150000
    phidias run ocean.gridding --input 'observations=ocean.observations?variable=temperature'
    phidias run --order order.json --output analysis.nc
    """,
)


def start(ctx: click.Context) -> Any:
    """Ask the flow for the run that the words on the command line describe."""
    from phidias_lab import flow
    from phidias_lab.contract.order import Order, load

    chain = ctx.command.chain
    shared = {k.removeprefix(SHARED): v for k, v in ctx.params.items() if k.startswith(SHARED)}
    if shared["target"] not in (None, chain.id):
        raise ParameterError(f"{shared['target']!r} is one word too many: the run is of {chain.id!r}. Leave it out.")
    parameters = given(ctx, chain.declared())
    asked = {
        "inputs": dict(input_reference(text, chain.inputs) for text in shared["input"]),
        **{name: shared[name] for name in ("title", "output", "format", "overwrite", "on", "workers")},
    }
    if shared["order"] is None:
        return flow.run(Order(chain.id, chain.version, parameters), **asked)
    of = load(shared["order"]).chain
    if of != chain.id:
        raise ParameterError(
            f"The order file {shared['order']} is for the chain {of!r}, not {chain.id!r}. "
            "Leave the chain out, or give the order of that chain."
        )
    # As a path, because inputs that were in memory lie beside the file.
    return flow.run(Path(shared["order"]), **asked, **parameters)


def execute(ctx: click.Context, /, **_: Any) -> None:
    """Run it, watched or detached."""
    from phidias_lab.services.commands.following import finished, print_summary, summary

    quiet, verbose, as_json, detach = (ctx.params[SHARED + n] for n in ("quiet", "verbose", "json", "detach"))
    if detach:
        run = start(ctx)
        if as_json:
            print_json({"run": run.id, "status": run.status, "folder": str(run.folder)})
        else:
            click.echo(
                f"Run      {run.id}\nIt goes on in the background: 'phidias runs show {run.id}' tells how far it is."
            )
        return
    facts = summary(finished(lambda: start(ctx), quiet))
    if as_json:
        print_json(facts)
    else:
        print_summary(facts, verbose)
