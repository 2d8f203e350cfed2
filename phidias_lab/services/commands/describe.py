"""`phidias describe CHAIN`: the whole declaration, for people or for programs."""

from __future__ import annotations

import textwrap

import click

from phidias_lab.services.commands.show import duration, print_json, print_table, text_width


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
    from phidias_lab.contract.data import in_words
    from phidias_lab.contract.parameters import show
    from phidias_lab.contract.resources import show_memory

    _say(f"{chain['id']} {chain['version']}: {chain['title']}")
    for paragraph in chain["description"].split("\n\n"):
        _say("\n" + paragraph)
    for level, title in (("user", "Parameters"), ("expert", "Expert parameters")):
        rows = [
            [name, f"{show(p['default'])} {_units(p)}".rstrip(), _lines(p["doc"], f"({p['expected']})")]
            for name, p in chain["parameters"].items()
            if p["level"] == level
        ]
        if rows:
            click.echo(f"\n{title}")
            print_table(["name", "default", "meaning"], rows, wrap=True)
    if chain["inputs"]:
        click.echo("\nInputs")
        rows = [
            [name, i["kind"], _lines(i["doc"], _needs(i), _default(i), "optional" if i["optional"] else "")]
            for name, i in chain["inputs"].items()
        ]
        print_table(["name", "kind", "meaning"], rows, wrap=True)
    click.echo(f"\nOutputs (a {chain['kind']})")
    rows = [
        [
            name,
            in_words(o.get("units", "")),
            _lines(in_words(o.get("long_name") or o["doc"]), f"({', '.join(o['dims'])})" if o["dims"] else ""),
        ]
        for name, o in chain["outputs"].items()
    ]
    print_table(["name", "units", "meaning"], rows, wrap=True)
    need = chain["resources"]
    grows = "; more for larger inputs" if need["grows_with_input"] else ""
    gpus = f", {need['gpus']} GPU" if need["gpus"] else ""
    _say(
        f"\nResources: {need['cores']} cores, {show_memory(need['memory_bytes'])}{gpus}, "
        f"at most {duration(need['walltime_seconds'])}{grows}"
    )
    for reference in chain["references"]:
        _say(f"Reference: {reference}", "  ")


def _say(text: str, indent: str = "") -> None:
    """One paragraph, broken to the width of the terminal; an address in it stays whole."""
    before = "\n" * (len(text) - len(text.lstrip("\n")))
    words = " ".join(text.split())
    click.echo(
        before
        + textwrap.fill(words, text_width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )


def _lines(*parts: str) -> str:
    return "\n".join(filter(None, parts))


def _units(parameter: dict) -> str:
    """The units behind a default; a default that is empty or without dimension has none."""
    return "" if parameter["default"] is None or parameter["units"] in (None, "1") else parameter["units"]


def _needs(wanted: dict) -> str:
    named = [f"{n} [{v['units']}]" if v.get("units") else n for n, v in wanted["variables"].items()]
    return f"needs {', '.join(named)}" if named else ""


def _default(wanted: dict) -> str:
    return f"default {wanted['default']}" if wanted["default"] else ""
