"""`phidias run CHAIN`: every parameter of the chain is an option; the order that results is given to the flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.options import (
    SHARED,
    ParameterOption,
    given,
    input_reference,
    parameter_options,
)
from phidias_lab.services.commands.show import print_json

_INPUT_HELP = (
    "Where an input comes from: NAME=ENTRY, NAME=FILE or, with parameters of the entry, "
    "'NAME=ENTRY?key=value&key=value' in quotes. May be given several times."
)


def _shared_options() -> list[click.Option]:
    def option(name: str, *args: Any, **kwargs: Any) -> click.Option:
        return click.Option([SHARED + name, *(args or (f"--{name}",))], **kwargs)

    return [
        option("input", multiple=True, metavar="NAME=REF", help=_INPUT_HELP),
        option(
            "order",
            metavar="FILE",
            help="Take chain, parameters and inputs from an order file; options given beside it override the file.",
        ),
        option("output", metavar="PATH", help="Also put the product there."),
        option("format", metavar="NAME", help="File format of the product, for example netcdf or zarr."),
        option("overwrite", is_flag=True, help="Replace what stands at --output."),
        option("title", metavar="TEXT", help="A title for the product's metadata."),
        option("quiet", "-q", "--quiet", is_flag=True, help="No progress on stderr."),
        option("json", is_flag=True, help="Print the result as JSON on stdout."),
        option("detach", is_flag=True, help="Start the run and return at once; it goes on in the background."),
    ]


class ChainCommand(click.Command):
    """`phidias run CHAIN`, with the options of that chain."""

    def __init__(self, chain: type):
        self.chain = chain
        shared = _shared_options()
        taken = {"--help", "--debug"} | {spelling for option in shared for spelling in option.opts}
        options = parameter_options(chain.declared(), taken)
        description = chain.describe()
        super().__init__(
            chain.id,
            params=[click.Argument(["shared_chain"], required=False, metavar=chain.id), *options, *shared],
            callback=click.pass_context(execute),
            help=f"{description['title']}.\n\n{description['summary']}",
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        user, expert, other = [], [], []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is None:
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

        return ChainCommand(chain(chain_id)).make_context(info_name, args, parent, **extra)


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
            return load(args[position + 1]).chain
        if word.startswith("--order="):
            return load(word.removeprefix("--order=")).chain
    return None


def _without_chain(**_: Any) -> None:
    raise ParameterError("Name the chain to run, as in 'phidias run ocean.gridding'. 'phidias chains' lists all of them.")


command = RunCommand(
    "run",
    params=[click.Argument(["chain"], required=False), *_shared_options()],
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


def build_order(chain: type, ctx: click.Context):
    """The order that the words on the command line ask for."""
    from phidias_lab.contract.order import Order, load

    shared = {k.removeprefix(SHARED): v for k, v in ctx.params.items() if k.startswith(SHARED)}
    base = Order(chain=chain.id, version=chain.version)
    if shared["order"]:
        base = load(shared["order"])
        if base.chain != chain.id:
            raise ParameterError(
                f"The order file {shared['order']} is for the chain {base.chain!r}, not {chain.id!r}. "
                "Leave the chain out, or give the order of that chain."
            )
    inputs = dict(base.inputs)
    for text in shared["input"]:
        name, where = input_reference(text, chain.inputs)
        inputs[name] = where
    output = dict(base.output)
    if shared["output"]:
        output["path"] = str(Path(shared["output"]).expanduser().absolute())
    if shared["format"]:
        output["format"] = shared["format"]
    if shared["overwrite"]:
        output["overwrite"] = True
    return base.with_(
        parameters={**base.parameters, **given(ctx, chain.declared())},
        inputs=inputs,
        output=output,
        title=shared["title"] or base.title,
    )


def execute(ctx: click.Context, /, **_: Any) -> None:
    """Run the order; what is heavy is imported after everything cheap has been refused."""
    from phidias_lab.services.commands.watch import finished, print_summary, summary

    quiet, as_json, detach = (ctx.params[SHARED + n] for n in ("quiet", "json", "detach"))
    order = build_order(ctx.command.chain, ctx)

    def start():
        from phidias_lab import flow

        return flow.run(order)

    if detach:
        run = start()
        if as_json:
            print_json({"run": run.id, "status": run.status, "folder": str(run.folder)})
        else:
            click.echo(f"Run      {run.id}\nIt goes on in the background: 'phidias runs show {run.id}' tells how far it is.")
        return
    facts = summary(finished(start, quiet))
    if as_json:
        print_json(facts)
    else:
        print_summary(facts)
