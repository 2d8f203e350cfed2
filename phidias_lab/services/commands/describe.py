"""`phidias describe CHAIN`: the whole declaration, for people or for programs."""

from __future__ import annotations

import re
import textwrap

import click

from phidias_lab.services.commands.show import duration, print_json, print_table


@click.command("describe")
@click.argument("chain_id", metavar="CHAIN")
@click.option("--json", "form", flag_value="json", help="Print the declaration as JSON.")
@click.option(
    "--order", "form", flag_value="order", help="Print a complete order with all defaults, for 'phidias run'."
)
@click.option("--schema", "form", flag_value="schema", help="Print the JSON Schema of the parameters.")
def command(chain_id: str, form: str | None) -> None:
    """Show parameters, inputs, outputs and resources of CHAIN.

    \b
    phidias describe ocean.gridding --order > order.json
    phidias run --order order.json
    """
    from phidias_lab.contract.registry import chain

    found = chain(chain_id)
    if form == "json":
        print_json(found.describe())
    elif form == "schema":
        print_json(found.schema())
    elif form == "order":
        click.echo(default_order(found).dumps(), nl=False)
    else:
        _show(found.describe())


def default_order(chain):
    """The order that a run without any choice would be."""
    from phidias_lab.contract.order import Order, reference

    return Order(
        chain=chain.id,
        version=chain.version,
        parameters=chain().parameters,
        inputs={name: reference(i.default) for name, i in chain.inputs.items() if i.default},
    )


def _show(chain: dict) -> None:
    from phidias_lab.contract.parameters import show
    from phidias_lab.contract.resources import show_memory

    click.echo(f"{chain['id']} {chain['version']}: {chain['title']}\n")
    click.echo("\n\n".join(textwrap.fill(p.replace("\n", " "), 100) for p in chain["description"].split("\n\n")) + "\n")
    click.echo("Parameters")
    rows = [
        [name, show(p["default"]), p["units"] or "", p["level"], p["expected"], p["doc"]]
        for name, p in chain["parameters"].items()
    ]
    print_table(["name", "default", "units", "level", "accepts", "meaning"], rows)
    click.echo("\nInputs")
    rows = [
        [
            name,
            i["kind"] + (", optional" if i["optional"] else ""),
            i["default"] or "",
            " ".join(f"{n} [{v['units']}]" if v.get("units") else n for n, v in i["variables"].items()),
            i["doc"],
        ]
        for name, i in chain["inputs"].items()
    ]
    print_table(["name", "kind", "default entry", "needs", "meaning"], rows)
    click.echo(f"\nOutputs (a {chain['kind']})")
    rows = [
        [name, ", ".join(o["dims"] or ()), _words(o.get("units", "")), _words(o.get("long_name") or o["doc"])]
        for name, o in chain["outputs"].items()
    ]
    print_table(["name", "dimensions", "units", "meaning"], rows)
    need = chain["resources"]
    grows = "; more for larger inputs" if need["grows_with_input"] else ""
    gpus = f", {need['gpus']} GPU" if need["gpus"] else ""
    click.echo(
        f"\nResources: {need['cores']} cores, {show_memory(need['memory_bytes'])}{gpus}, "
        f"at most {duration(need['walltime_seconds'])}{grows}"
    )
    for reference in chain["references"]:
        click.echo(f"Reference: {reference}")


def _words(template: str) -> str:
    """'{variable.units}' in words: what the chosen variable says."""
    return re.sub(r"\{(\w+)\}", r"the \1", re.sub(r"\{(\w+)\.(\w+)\}", r"\2 of the \1", template))
