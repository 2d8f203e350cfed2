"""`phidias lake`: where the data are, whether they are as they were written, and the synthetic demo lake."""

from __future__ import annotations

import click

from phidias_lab.services.commands.show import ProgressLine, print_table


@click.group("lake")
def command() -> None:
    """Build the demo lake, verify what is stored, tell where it is."""


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
    from phidias_lab.services.commands.watch import signals_stop

    with signals_stop(hangup=True), ProgressLine("Building the demo lake (synthetic data)", quiet) as line:
        return demo.build_demo(only=only, progress=line.update, rebuild=rebuild)


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
