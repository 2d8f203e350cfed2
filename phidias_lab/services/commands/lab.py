"""`phidias lab`: the whole lab on this machine, with one address to open."""

from __future__ import annotations

import click

from phidias_lab.services.commands.following import signals_stop


@click.command("lab")
@click.option("--port", type=click.IntRange(1, 65535), default=8888, show_default=True, help="Port on 127.0.0.1.")
@click.option("--browser/--no-browser", default=False, help="Open the address in a web browser.")
@click.option("--hub/--no-hub", default=False, help="Behind the hub and its log-in, from a clone; `make lab` does so.")
@click.option("--rebuild-demo", is_flag=True, help="Write the demo lake anew.")
@click.option("--fresh-notebooks", is_flag=True, help="Put the notebooks there as shipped; yours are kept beside.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def command(port: int, browser: bool, hub: bool, rebuild_demo: bool, fresh_notebooks: bool, quiet: bool) -> None:
    """Open the lab on this machine: JupyterLab, the notebooks and the dashboards behind one address.

    It opens your workspace (PHIDIAS_WORKSPACE), which gets copies of the shipped notebooks; what you change there is
    never overwritten. The first start writes a small lake of synthetic data. The lab listens on 127.0.0.1 only, behind a
    random token, and fetches nothing from outside. Ctrl-C stops it with what was started from it:
    kernels, clusters, and runs on this machine. A run on a place of Slurm goes on.

    With --hub it is the JupyterHub of the clone, set up for one person: one logs in with the name and the password that
    are printed. Each password is good for one log-in.
    """
    from phidias_lab.services import hub_lab, lab
    from phidias_lab.services.commands.lake import build_demo
    from phidias_lab.services.workspace import prepare_workspace

    lab.check_installed()
    for sentence in lab.clear_remains():
        click.echo(sentence, err=True)
    if hub:
        hub_lab.check_installed()
    lab.check_port(port)
    if "://" not in (root := _lake_root()):
        if rebuild_demo or not _has_content(root):
            lab.check_space()
        build_demo(rebuild=rebuild_demo, quiet=quiet)
    for sentence in prepare_workspace(fresh=fresh_notebooks):
        click.echo(sentence, err=True)
    running = hub_lab.HubLab(port, say=click.echo) if hub else lab.Lab(port)
    with signals_stop(hangup=True):
        try:
            running.start()
            click.echo(running.address)
            if hub:
                running.speak()
            if not quiet:
                click.echo(f"Your notebooks are in {running.folder} .", err=True)
                click.echo("Open this address in a web browser. Ctrl-C here stops the lab.", err=True)
            if browser:
                import webbrowser

                webbrowser.open(running.address)
            running.wait()
        finally:
            _farewell(running)


def _lake_root() -> str:
    from phidias_lab import settings

    return settings.lake_root()


def _has_content(folder: str) -> bool:
    from pathlib import Path

    return Path(folder).is_dir() and any(Path(folder).iterdir())


def _farewell(running) -> None:
    """Stop the lab whatever ended it; signals that come again meanwhile must not leave half of it behind."""
    import signal

    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        click.echo("Stopping the lab ...", err=True)
        done = running.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for name in done["runs"]:
        click.echo(
            f"The run {name} was still running and is cancelled; 'phidias runs resume {name}' goes on.", err=True
        )
    if done["left"]:
        click.echo(f"These processes could not be stopped: {', '.join(map(str, done['left']))}", err=True)
    click.echo(f"The lab is stopped ({done['processes']} processes ended).", err=True)
