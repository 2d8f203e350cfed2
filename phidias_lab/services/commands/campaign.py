"""`phidias campaign FOLDER --chain CHAIN`: a chain on all files of a folder, with an estimate before and a report after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from phidias_lab.errors import InputError, ProductError
from phidias_lab.services.command_line import Terminated
from phidias_lab.services.commands.options import SHARED, not_empty
from phidias_lab.services.commands.run import option
from phidias_lab.services.commands.show import ProgressLine, print_json
from phidias_lab.services.commands.watch import StreamCommand, asked, stream_options


def campaign_options() -> list[click.Option]:
    return [
        *stream_options(),
        option(
            "period", metavar="START/END", callback=not_empty,
            help="Only files that were measured in this period, each as a whole, by their names where a reader knows them.",
        ),
        option("retry", is_flag=True, help="Try again what was refused before."),
        option("dry_run", "--dry-run", is_flag=True, help="Tell what there is to do and how long it may take, and leave."),
        option("report", metavar="FILE", callback=not_empty, help="Also write the report there: .md, or .json."),
        option(
            "at_once", "--at-once", type=click.IntRange(min=1), metavar="N",
            help="Runs at one time; without it 2, or as many as there are workers.",
        ),
        option("on", metavar="PLACE", help="Where to run: a place of the site; 'phidias places' lists them."),
        option(
            "workers", type=click.IntRange(min=1), metavar="N",
            help="Dask workers at that place, for the whole campaign; each takes one file at a time.",
        ),
        option("json", is_flag=True, help="Print the estimate or the report as JSON on stdout."),
    ]  # fmt: skip


def execute(ctx: click.Context, /, **_: Any) -> int:
    from phidias_lab.modes.campaign import Campaign, report_lines, write_report
    from phidias_lab.services.commands.following import signals_stop

    dry, quiet, as_json, file = (ctx.params[SHARED + name] for name in ("dry_run", "quiet", "json", "report"))
    path = None if file is None else _writable(Path(file).expanduser())
    with signals_stop(hangup=True):
        campaign = Campaign(**asked(ctx, "period", "retry", "at_once", "on", "workers"))
        if dry:
            with campaign:
                print_json(vars(campaign.estimate)) if as_json else click.echo(str(campaign.estimate))
            return 0
        try:
            with campaign, ProgressLine("campaign", quiet) as line:
                line.say(str(campaign.estimate))
                campaign.tell = lambda told: _tell(line, told)
                campaign.run(lambda campaign: line.update(*_as_line(campaign.progress)))
        except (KeyboardInterrupt, Terminated):
            click.echo(f"Stopped with {campaign.progress.message}. The same words go on with what is left.", err=True)
            raise
    report = campaign.report()
    if path is not None:
        write_report(report, path)
    if as_json:
        print_json(report)
    else:
        for name, text in [*report_lines(report, 20), ("Report", str(path or campaign.report_file))]:
            click.echo(f"{name:<9}{text}")
    return InputError.exit_code if campaign.counts["refused"] else 0


def _as_line(progress: Any) -> tuple[float, str, float | None]:
    return progress.fraction, progress.message, progress.seconds_left


def _tell(line: ProgressLine, told: dict) -> None:
    if "remark" in told:
        line.say(told["remark"])
    elif told["state"] == "refused":
        line.say(f"refused  {told['file']}  {told['sentence']}")


def _writable(path: Path) -> Path:
    if path.suffix not in (".md", ".json"):
        raise ProductError(f"A report is not written as {path.name!r}. Let its name end in .md or .json.")
    if path.is_dir() or not path.parent.is_dir():
        raise ProductError(
            f"{path} cannot be a file: it is a folder, or its folder does not exist. Choose another place."
        )
    return path


command = StreamCommand(
    "campaign",
    campaign_options,
    execute,
    """Run a chain on each file of FOLDER, exactly once: those that are not done yet.

    FOLDER is a folder or an fsspec address such as s3://bucket/in. What there is to do and how long it may take is told
    before, a report after. Stopped or killed at any moment and started again, it does what is missing, and what is new.
    Every parameter of the chain is an option; 'phidias campaign --chain CHAIN --help' shows them.

    \b
    phidias campaign /data/l1b --chain atmosphere.screening --pattern '*_BD7_*' --period 2018-05-01/2019-04-30 --dry-run
    phidias campaign /data/l1b --chain atmosphere.screening --pattern '*_BD7_*' --on slurm --workers 20
    """,
)
