"""`phidias catalog`: what can be opened, and how one's own files become entries."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import click

from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.show import print_json, print_table


@click.group("catalog")
def command() -> None:
    """List and show the entries of the catalogue, add and remove one's own."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_entries(as_json: bool) -> None:
    """List all entries with their kind and description."""
    from phidias_lab.lake import catalog

    rows = catalog.entries()
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("The catalogue is empty. 'phidias catalog add FILE' adds one of your files.")
    else:
        columns = ["address", "kind", "description"]
        print_table(columns, [[row[column] for column in columns] for row in rows])


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
    click.echo(f"{found['address']}: {found['description']}")
    for label, value in (
        ("kind", found["kind"]),
        ("synthetic", "yes" if found["synthetic"] else None),
        ("dimensions", ", ".join(found["dims"])),
        ("box", found["bbox"]),
        ("source", found["source"]),
        ("licence", found["licence"]),
    ):
        if value:
            click.echo(f"{label:12}{value}")
    if found["variables"]:
        click.echo()
        rows = [[n, v.get("units") or "", v.get("long_name") or ""] for n, v in found["variables"].items()]
        print_table(["variable", "units", "meaning"], rows)
    if found["parameters"]:
        click.echo()
        rows = [
            [n, p.get("type", ""), p.get("default", ""), p.get("description", "")]
            for n, p in found["parameters"].items()
        ]
        print_table(["parameter", "type", "default", "meaning"], rows)


def own_data(action: Callable) -> Callable:
    """The options that name and describe one's own data, the same wherever they become an entry."""
    for option in (
        click.option(
            "--standard-name",
            "standard_names",
            multiple=True,
            metavar="NAME=STANDARD_NAME",
            help="The CF standard name of a column, by its name in the lab. May be given several times.",
        ),
        click.option(
            "--units",
            multiple=True,
            metavar="NAME=UNITS",
            help="The units of a column, by its name in the lab, as in temperature=degree_Celsius. May be given several "
            "times.",
        ),
        click.option(
            "--column",
            "columns",
            multiple=True,
            metavar="OLD=NEW",
            help="A column or variable that is called OLD in the file is called NEW in the lab. May be given several times.",
        ),
        click.option("--source", help="Where they come from."),
        click.option("--licence", help="Under which licence they may be used."),
        click.option("--description", default="", help="What the data are, in a sentence."),
        click.option("--name", help="Name of the entry; of a single file its own name, if none is given."),
    ):
        action = option(action)
    return action


@command.command("add")
@click.argument("file")
@own_data
@click.option("--replace", is_flag=True, help="Replace an entry of that name.")
def add(
    file: str,
    name: str | None,
    description: str,
    licence: str | None,
    source: str | None,
    columns: tuple[str, ...],
    units: tuple[str, ...],
    standard_names: tuple[str, ...],
    replace: bool,
) -> None:
    """Make an entry of FILE: NetCDF, Zarr, Parquet or CSV. The file stays where it is.

    Observations in ODV, SeaDataNet's or Argo's files, or in many files, come in with 'phidias lake ingest'.

    \b
    phidias catalog add casts.csv --column lon=longitude --column TEMP=temperature --units temperature=degree_Celsius
    """
    from phidias_lab.lake import catalog

    _refuse_profiles(file)
    address = catalog.add(
        file,
        name,
        description=description,
        licence=licence,
        source=source,
        replace=replace,
        columns=pairs("--column", columns, "lon=longitude"),
        units=pairs("--units", units, "temperature=degree_Celsius"),
        standard_names=pairs("--standard-name", standard_names, "temperature=sea_water_temperature"),
    )
    click.echo(f"Added {address}. Name it as an input of a chain, as in --input 'NAME={address}'.")


def _refuse_profiles(file: str) -> None:
    """Refuse a file of profiles, of which a table has to be made first, and say how."""
    from pathlib import Path

    from phidias_lab.methods.formats.observations import NotReadable
    from phidias_lab.sources import observations
    from phidias_lab.sources.netcdf import Trial

    path = Path(file).expanduser()
    if path.suffix.lower() not in (".txt", ".nc", ".odv") or not path.is_file():
        return
    try:
        with Trial() as trial:
            kind = observations.recognise(path, trial.read)
    except NotReadable:
        return
    if kind in (observations.ODV, observations.SEADATANET, observations.ARGO):
        raise ParameterError(
            f"{file} holds observations ({observations.TITLES[kind]}), of which a table has to be made first:  "
            f"phidias lake ingest {shlex.quote(file)} --name NAME"
        )


def pairs(option: str, texts: tuple[str, ...], example: str) -> dict[str, str]:
    """{"lon": "longitude"} of the texts "lon=longitude"."""
    found: dict[str, str] = {}
    for text in texts:
        left, equals, right = (part.strip() for part in text.rpartition("="))
        if not (left and equals and right):
            raise ParameterError(f"{option} was given {text!r}; it needs two names with = between, as in {example}.")
        if found.setdefault(left, right) != right:
            raise ParameterError(f"{option} was given twice for {left!r}: {found[left]!r} and {right!r}. Give it once.")
    return found


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the entry NAME that 'phidias catalog add' made; the file itself stays."""
    from phidias_lab.lake import catalog

    catalog.remove(name)
    click.echo(f"Removed the entry {name}; its file stays where it is.")
