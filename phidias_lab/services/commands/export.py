"""`phidias export`: a run as a script or notebook that does the same again."""

from __future__ import annotations

from pathlib import Path

import click

from phidias_lab.errors import ProductError
from phidias_lab.services.commands.options import not_empty


@click.command("export")
@click.argument("name", metavar="RUN")
@click.option("--as", "form", type=click.Choice(["notebook", "script"]), required=True, help="What to write.")
@click.option("--output", metavar="FILE", callback=not_empty, help="Write to FILE instead of printing it.")
@click.option("--overwrite", is_flag=True, help="Replace FILE when it exists.")
def command(name: str, form: str, output: str | None, overwrite: bool) -> None:
    """Write RUN as a notebook or script that runs it again.

    RUN is an id, 'last' (the newest run that is done), or the folder of a run or product.
    """
    from phidias_lab.products import export
    from phidias_lab.services.rerunning import find_order, taken

    text = getattr(export, form)(find_order(name))
    if which := taken(name):
        click.echo(which, err=True)
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    path = Path(output).expanduser()
    if path.exists() and not overwrite:
        raise ProductError(f"{path} exists already. Choose another name, or add --overwrite.")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProductError(f"{path} cannot be written: {error.strerror}. Choose another place.") from None
    click.echo(f"Wrote {path}")
