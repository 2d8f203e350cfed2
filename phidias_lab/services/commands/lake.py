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
    from phidias_lab.services.commands.watch import signals_stop

    with signals_stop():
        build_demo(only=only, rebuild=rebuild, quiet=quiet)
    click.echo(f"The demo lake (synthetic data) is at {settings.lake_root()}.")


def build_demo(only: str | None = None, rebuild: bool = False, quiet: bool = False) -> None:
    """Build the demo lake with its progress shown."""
    from phidias_lab import demo

    with ProgressLine("Building the demo lake (synthetic data)", quiet) as line:
        demo.build_demo(only=only, progress=line.update, rebuild=rebuild)


@command.command("verify")
@click.argument("address", required=False)
def verify(address: str | None) -> None:
    """Compare the data of ADDRESS (or of every entry that is stored) with the checksums written beside them."""
    from phidias_lab.errors import InputError, PhidiasError
    from phidias_lab.lake import catalog

    addresses = [address] if address else catalog.entries()
    rows, wrong = [], []
    for name in addresses:
        try:
            catalog.verify(name)
            rows.append([name, "as written"])
        except PhidiasError as error:
            if address:
                raise
            rows.append([name, str(error)])
            wrong.append(name)
    print_table(["entry", "state"], rows)
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(addresses)} entries are not as they were written: {', '.join(wrong)}. "
            "'phidias lake build-demo --rebuild' writes demo data anew; fetch other data again."
        )
