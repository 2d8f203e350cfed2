"""`phidias lake`: where the data are, whether they are as they were written, and the synthetic demo lake."""

from __future__ import annotations

import click

from phidias_lab.services.commands.catalog import own_data, pairs
from phidias_lab.services.commands.show import ProgressLine, print_table

#: Lines of each kind that are printed; all of them stand in a file.
SHOWN = 20


@click.group("lake")
def command() -> None:
    """Bring observations in and out, build the demo lake, verify what is stored, tell where it is."""


@command.command("where")
def where() -> None:
    """Print the root of the lake (set it with PHIDIAS_LAKE)."""
    from phidias_lab import settings

    click.echo(settings.lake_root())


@command.command("build-demo")
@click.option("--only", metavar="COMPARTMENT", help="Build only this compartment, for example ocean.")
@click.option("--rebuild", is_flag=True, help="Write it anew even when it is there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def build(only: str | None, rebuild: bool, quiet: bool) -> None:
    """Write the synthetic demo data into the lake: seeded, the same everywhere, with known truth."""
    from phidias_lab import settings
    from phidias_lab.contract.resources import show_memory

    built = build_demo(only=only, rebuild=rebuild, quiet=quiet)
    print_table(
        ["entry", "size", "checksum"], [[n, show_memory(f["bytes"]), f["checksum"][:12]] for n, f in built.items()]
    )
    click.echo(f"The demo lake (synthetic data) is at {settings.lake_root()}.")


def build_demo(only: str | None = None, rebuild: bool = False, quiet: bool = False) -> dict[str, dict]:
    """Build the demo lake with its progress shown; what is there and intact is left as it is."""
    from phidias_lab import demo
    from phidias_lab.services.commands.following import signals_stop

    with signals_stop(hangup=True), ProgressLine("Building the demo lake (synthetic data)", quiet) as line:
        return demo.build_demo(only=only, progress=line.update, rebuild=rebuild)


@command.command("ingest")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@own_data
@click.option(
    "--flags", "scheme", default="L20", show_default=True,
    help="The scheme of the flags of CSV files: L20, Argo, CMEMS, QARTOD, WOD or ODV.",
)  # fmt: skip
@click.option("--folder", help="Where the table is written; else the folder 'observations' of the lake.")
@click.option("--replace", is_flag=True, help="Replace an entry of that name and its table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def ingest(
    files: tuple[str, ...],
    name: str | None,
    description: str,
    licence: str | None,
    source: str | None,
    columns: tuple[str, ...],
    units: tuple[str, ...],
    standard_names: tuple[str, ...],
    scheme: str,
    folder: str | None,
    replace: bool,
    quiet: bool,
) -> None:
    """Make one table of the lake of observations in FILES, or in all files below folders.

    SeaDataNet ODV spreadsheets, SeaDataNet CF NetCDF, Argo profiles, CSV and Parquet are known by their content. What is
    wrong in a file is told with line and column, or variable and index; a file that cannot be read is left out.

    \b
    phidias lake ingest argo/dac/coriolis --name floats
    phidias run ocean.gridding --input observations=mine.floats --variable temperature
    """
    from phidias_lab import ingest as ingestion
    from phidias_lab.services.commands.following import signals_stop

    words = ingestion.Words(
        pairs("--column", columns, "lon=longitude"),
        pairs("--units", units, "temperature=degree_Celsius"),
        pairs("--standard-name", standard_names, "temperature=sea_water_temperature"),
        scheme,
    )
    with signals_stop(hangup=True), ProgressLine("Reading observations", quiet) as line:
        said = ingestion.ingest(
            files, name, words=words, description=description, licence=licence, source=source, folder=folder,
            replace=replace, progress=line.update,
        )  # fmt: skip
    for label, lines in (
        ("left out", [f"{file}: {why}" for file, why in said.refused]),
        ("passed over", [f"{file}: {why}" for file, why in said.passed_over]),
        ("fault", said.first_faults),
    ):
        for text in lines[:SHOWN]:
            click.echo(f"{label}: {text}", err=True)
        if len(lines) > SHOWN:
            click.echo(f"{label}: and {len(lines) - SHOWN} more files", err=True)
    if said.faults or said.refused:
        more = f" ({said.faults} faults)" if said.faults else ""
        click.echo(f"All that is wrong in the files{more} stands in {said.path}/{ingestion.FAULTS}", err=True)
    for count, what in ((said.without_place, "place"), (said.without_time, "time")):
        if count:
            click.echo(f"{count} observations have no {what} and are left out.", err=True)
    click.echo(f"Added {said.address}: {said.rows} observations from {said.files} of {said.looked_at} files.")


@command.command("export")
@click.argument("address")
@click.argument("file")
@click.option("--format", "form", help="odv, seadatanet, argo, csv or parquet; else what the name of FILE says.")
@click.option("--overwrite", is_flag=True, help="Replace FILE when it exists.")
def export(address: str, file: str, form: str | None, overwrite: bool) -> None:
    """Write the observations of the entry ADDRESS into FILE, in one of the formats that 'ingest' reads."""
    from pathlib import Path

    from phidias_lab import ingest as ingestion
    from phidias_lab.errors import ProductError

    path = Path(file).expanduser()
    if path.exists() and not overwrite:
        raise ProductError(f"{path} exists already. Choose another name, or add --overwrite.")
    rows, kind = ingestion.export(address, path, form)
    click.echo(f"Wrote {rows} observations as {kind} into {path}")


@command.command("verify")
@click.argument("address", required=False)
def verify(address: str | None) -> None:
    """Compare the data of ADDRESS (or of every entry) with the checksums written beside them."""
    from phidias_lab.errors import InputError
    from phidias_lab.lake import catalog

    if address:
        found = catalog.verify(address)
        click.echo(f"{address} is as it was written: {found['files']} files, checksum {found['checksum'][:12]}")
        return
    rows, wrong = [], []
    for entry in catalog.entries():
        state, good = _state(entry["address"])
        rows.append([entry["address"], state])
        if not good:
            wrong.append(entry["address"])
    print_table(["entry", "state"], rows)
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(rows)} entries are not as they were written: {', '.join(wrong)}. "
            "'phidias lake build-demo --rebuild' writes demo data anew; put other data back from where you have them."
        )


def _state(address: str) -> tuple[str, bool]:
    """What is to be said of one entry, and whether it is as it should be."""
    from phidias_lab.errors import PhidiasError
    from phidias_lab.lake import catalog, manifest

    try:
        place = getattr(catalog.source(address), "address", None)
        if place is None or manifest.read(place) is None:
            return "no checksums beside it: cannot be verified", True
        return f"as it was written ({catalog.verify(address)['files']} files)", True
    except PhidiasError as error:
        return str(error), False
