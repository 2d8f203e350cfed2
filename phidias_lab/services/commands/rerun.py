"""`phidias rerun`: the order inside a product runs again, and the two products are compared by checksum."""

from __future__ import annotations

from typing import Any

import click

from phidias_lab.errors import ParameterError
from phidias_lab.services.command_line import DIFFERS
from phidias_lab.services.commands.options import SHARED, given
from phidias_lab.services.commands.run import ChainCommand, option
from phidias_lab.services.commands.show import print_json


def _shared_options() -> list[click.Option]:
    return [
        option("quiet", "-q", "--quiet", is_flag=True, help="No progress on stderr."),
        option("json", is_flag=True, help="Print the comparison as JSON on stdout."),
    ]


class RerunCommand(click.Command):
    """The product tells which chain's options there are."""

    def make_context(self, info_name, args, parent=None, **extra):
        if not args or args[0].startswith("-"):
            return super().make_context(info_name, args, parent, **extra)
        from phidias_lab.contract.registry import chain
        from phidias_lab.services.rerunning import find_product, taken

        product = find_product(args[0])
        if (which := taken(args[0])) and "--help" not in args:
            click.echo(which, err=True)
        found = ChainCommand(chain(product.order.chain), _shared_options(), execute)
        found.product = product
        return found.make_context(f"{info_name} {args[0]}", args, parent, **extra)


def _without_product(**_: Any) -> None:
    raise ParameterError("Name the product or run first, as in 'phidias rerun last'. 'phidias runs' lists the runs.")


command = RerunCommand(
    "rerun",
    params=[click.Argument(["target"], required=False, metavar="PRODUCT_OR_RUN"), *_shared_options()],
    callback=_without_product,
    help="""Run the order of a product again and compare the two, variable by variable.

    PRODUCT_OR_RUN is a run's id, 'last' (the newest run that is done), or the folder of a run or product. Any parameter
    of its chain may be changed with its option ('phidias rerun PRODUCT_OR_RUN --help' shows them).

    The exit code is 0 when the checksums agree or the numbers do to within 1e-9, and 7 when they differ.
    """,
)


def execute(ctx: click.Context, /, **_: Any) -> int:
    from phidias_lab import flow
    from phidias_lab.services.commands.following import finished
    from phidias_lab.services.rerunning import compare

    first = ctx.command.product
    changed = given(ctx, ctx.command.chain.declared())
    # The new product goes into its own run folder, not over what the first one was written to.
    kept = {k: v for k, v in first.order.output.items() if k == "format"}
    order = first.order.with_(output=kept)
    run = finished(lambda: flow.run(order, **changed), ctx.params[SHARED + "quiet"])
    result = compare(first, run.product)
    if ctx.params[SHARED + "json"]:
        print_json(
            {
                "first": str(first.path),
                "second": str(run.product.path),
                "run": run.id,
                "identical": result.identical,
                "same_numbers": result.same_numbers,
                # JSON knows no infinity: null says that the two cannot be compared as numbers.
                "differences": {n: d if d < float("inf") else None for n, d in result.differences.items()},
                "changed_parameters": changed,
                "different_facts": {n: list(pair) for n, pair in result.facts.items()},
            }
        )
    else:
        _print(result, first, run)
    return 0 if result.same_numbers else DIFFERS


def _print(result: Any, first: Any, run: Any) -> None:
    click.echo(f"First    {first.path}\nSecond   {run.product.path}")
    if result.identical:
        click.echo(f"identical: the checksums of all {len(result.differences)} variables agree")
        return
    for name, difference in result.differences.items():
        checksums = first.checksums.get(name), run.product.checksums.get(name)
        if None in checksums:
            click.echo(f"  {name}: only in the {'second' if checksums[0] is None else 'first'}")
        elif checksums[0] == checksums[1]:
            click.echo(f"  {name}: identical")
        elif difference == float("inf"):
            click.echo(f"  {name}: shape, gaps or texts differ")
        else:
            click.echo(f"  {name}: largest difference {difference:.2g} of its largest magnitude")
    if result.same_numbers:
        click.echo(f"The same numbers to within {result.largest:.2g}, but not the same bytes.")
    else:
        click.echo("The two products differ.")
    for name, (one, other) in result.facts.items():
        click.echo(f"  {name}: {one} then, {other} now")
