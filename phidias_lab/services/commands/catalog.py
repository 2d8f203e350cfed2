"""`phidias catalog`: what can be opened, and how one's own files become entries."""

from __future__ import annotations

import click

from phidias_lab.services.commands.show import print_json, print_table


@click.group("catalog")
def command() -> None:
    """List and show the entries of the catalogue, add and remove one's own."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_entries(as_json: bool) -> None:
    """List all entries with their kind and title."""
    from phidias_lab.lake import catalog

    rows = [catalog.describe(address) for address in catalog.entries()]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("The catalogue is empty. 'phidias catalog add FILE' adds one of your files.")
    else:
        columns = ["address", "kind", "title"]
        print_table(columns, [[row.get(column) or "" for column in columns] for row in rows])


@command.command("show")
@click.argument("address")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(address: str, as_json: bool) -> None:
    """Show what the entry ADDRESS is, where it lies and which parameters it takes."""
    from phidias_lab.lake import catalog

    found = catalog.describe(address)
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if value not in (None, "", [], {}):
            click.echo(f"{key:12} {value}")


@command.command("add")
@click.argument("file")
@click.option("--name", help="Name of the entry; else the file's name.")
@click.option("--title", help="What the data are, in a few words.")
@click.option("--replace", is_flag=True, help="Replace an entry of that name.")
def add(file: str, name: str | None, title: str | None, replace: bool) -> None:
    """Make an entry of FILE: NetCDF, Zarr, Parquet or CSV."""
    from phidias_lab.lake import catalog

    address = catalog.add(file, name=name, title=title, replace=replace)
    click.echo(
        f"Added {address}. Open it with  phidias_lab.open_catalog()[{address!r}]  or name it as an input of a chain."
    )


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the entry NAME that 'phidias catalog add' made; the file itself stays."""
    from phidias_lab.lake import catalog

    catalog.remove(name)
    click.echo(f"Removed the entry {name}; its file stays where it is.")
