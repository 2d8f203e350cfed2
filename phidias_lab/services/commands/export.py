"""`phidias export`: a run as a script or notebook that does the same again, or its product in the form of other tools."""

from __future__ import annotations

import click

from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.options import not_empty


def _attribute(given: str) -> tuple[str, str]:
    name, _, text = (part.strip() for part in given.partition("="))
    if not (name and text):
        raise ParameterError(
            f"--attribute was given {given!r}; it needs a name and a text with = between, as in license=CC-BY-4.0."
        )
    return name, text


@click.command("export")
@click.argument("name", metavar="RUN")
@click.option("--as", "form", required=True, help="What to write: notebook, script, seadatanet or l1b.")
@click.option(
    "--output", metavar="PATH", callback=not_empty, help="The file to write, of l1b the folder; texts are else printed."
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option(
    "--attribute", "attributes", multiple=True, metavar="NAME=TEXT",
    help="A global attribute of a NetCDF file, such as institution, license or doi; may be given again.",
)  # fmt: skip
def command(name: str, form: str, output: str | None, overwrite: bool, attributes: tuple[str, ...]) -> None:
    """Write RUN as a notebook or script that runs it again, its gridded field for a data centre, or the spectra that it
    selected as files of level 1B.

    RUN is an id, 'last' (the newest run that is done), or the folder of a run or product.

    \b
    phidias export last --as notebook --output again.ipynb
    phidias export last --as seadatanet --output temperature.nc --attribute institution="My institute"
    phidias export last --as l1b --output selected
    """
    from phidias_lab import flow
    from phidias_lab.services.rerunning import find, taken

    flow.known_form(form)
    source = find(name)
    if which := taken(name):
        click.echo(which, err=True)
    said = dict(map(_attribute, attributes))
    if output is None and form in flow.TEXTS:
        text = flow.exported(source, form)
        click.echo(text, nl=not text.endswith("\n"))
        return
    if output is None:
        example = "FOLDER, for example --output selected" if form == "l1b" else "FILE, for example --output field.nc"
        raise ParameterError(f"NetCDF files are not printed. Add --output {example}.")
    for remark in flow.export(source, output, form, attributes=said, overwrite=overwrite):
        click.echo(remark, err=True)
    click.echo(f"Wrote {output}")
