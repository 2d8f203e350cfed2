"""`phidias chains`: what is installed, answered from package metadata alone."""

from __future__ import annotations

import click

from phidias_lab.services.commands.show import print_json, print_table


@click.command("chains")
@click.option("--long", "detailed", is_flag=True, help="Import each chain and show its version and title (slower).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(detailed: bool, as_json: bool) -> None:
    """List the processing chains that are installed.

    The list is read from package metadata and imports no chain. With --long every chain is imported; one that cannot
    be imported is shown with its package and the reason, and hides no other.
    """
    found = listed(detailed)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("No chain is installed. Reinstall phidias-lab, or install a package that provides chains.")
        return
    columns = ["id", "package", *(["version", "title"] if detailed else [])]
    print_table(columns, [[row.get(column) or "" for column in columns] for row in found])
    for row in found:
        if row.get("broken"):
            click.echo(f"Broken: {row['broken']}", err=True)


def listed(detailed: bool = False) -> list[dict]:
    """Id and package of every chain; with `detailed` also version and title, or why the chain is broken."""
    from phidias_lab.contract import registry
    from phidias_lab.errors import ParameterError

    rows = []
    for chain_id in registry.chains():
        row = {"id": chain_id}
        try:
            row["package"] = registry.provider(chain_id)
            if detailed:
                chain = registry.chain(chain_id)
                row |= {"version": chain.version, "title": chain.title}
        except ParameterError as error:
            row |= {"package": row.get("package"), "title": "(broken)", "broken": str(error)}
        rows.append(row)
    return rows
