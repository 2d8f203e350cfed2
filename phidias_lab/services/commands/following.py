"""Follow a run from a terminal until it has ended; Ctrl-C and SIGTERM stop the run itself, not only the watching."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import click

from phidias_lab.services.command_line import Terminated
from phidias_lab.services.commands.show import ProgressLine, duration


@contextlib.contextmanager
def signals_stop(hangup: bool = False) -> Iterator[None]:
    """Within, SIGTERM (a batch system's way to end a job) raises Terminated where the main thread stands.

    With `hangup`, so does SIGHUP: the terminal that held the command was closed.
    """

    def stop(number: int, frame: Any) -> None:
        raise Terminated(number)

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hangup and hasattr(signal, "SIGHUP") else [])]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(run: Any, quiet: bool = False) -> str:
    """Show the progress of a run until it has ended; gives its state."""
    with ProgressLine(run.order.chain, quiet) as line:
        while True:
            state = run.wait(timeout=0.25)
            if state in ("waiting", "running"):
                now = run.progress
                line.update(now.fraction, now.message, now.seconds_left)
            else:
                return state


def finished(start: Any, quiet: bool = False) -> Any:
    """Start a run (`start()` gives it), follow it to its end, and give it; a run that is not done is an error.

    The signal handler stands before the run does, so that no moment is left in which a signal ends this process
    and leaves the run behind.
    """
    run = None
    with signals_stop():
        try:
            run = start()
            state = follow(run, quiet)
        except (KeyboardInterrupt, Terminated):
            if run is not None:
                _stop(run)
            raise
    if state == "done":
        return run
    raise run_error(run, state)


def _stop(run: Any) -> None:
    # A second Ctrl-C while the run is leaving would leave it half stopped.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo(f"Stopping the run {run.id} ...", err=True)
    state = run.cancel()
    click.echo(
        f"The run {run.id} is {state}; no product was written. 'phidias runs resume {run.id}' goes on with it.",
        err=True,
    )


def run_error(run: Any, state: str) -> Exception:
    from phidias_lab.errors import RunCancelledError, RunFailedError, as_sentence

    if state == "cancelled":
        return RunCancelledError(f"The run {run.id} was cancelled. 'phidias runs resume {run.id}' goes on with it.")
    if state == "failed":
        why = as_sentence(run.error or "it left no message")
        where = "" if "runs log" in why else f" 'phidias runs log {run.id}' shows its log."
        error = RunFailedError(f"The run {run.id} failed: {why}{where}")
        # What only the worker could find out (an input that lacks a variable, a full disk) keeps its own exit code.
        error.exit_code = (run.record.get("error") or {}).get("exit_code", error.exit_code)
        return error
    return RunFailedError(
        f"The run {run.id} is {state}: its process ended without a word. 'phidias runs resume {run.id}' goes on with "
        f"it; 'phidias runs log {run.id}' shows its log."
    )


def summary(run: Any) -> dict:
    """What a script wants to know of a run that is done."""
    measures = run.record.get("measures") or {}
    product = run.product
    return {
        "run": run.id,
        "status": run.status,
        "folder": str(run.folder),
        "product": str(product.path),
        "output": run.order.output.get("path"),
        "checksums": dict(product.checksums),
        "said": run.record.get("said") or {"counts": {}, "warnings": []},
        "wall_seconds": measures.get("wall_seconds"),
        "peak_memory_bytes": measures.get("peak_memory_bytes"),
    }


def print_said(said: dict) -> None:
    """What was used and left out, what was found, and the warnings, a line each."""
    from phidias_lab.contract.said import counts_line

    for what, count in (said.get("counts") or {}).items():
        click.echo(f"{'Used':<9}{counts_line(what, **count)}")
    for sentence in said.get("found") or ():
        click.echo(f"{'Found':<9}{sentence}")
    for sentence in said.get("warnings") or ():
        click.echo(f"{'Warning':<9}{sentence}")
    for sentence in said.get("remarks") or ():
        click.echo(f"{'Computed':<9}{sentence}")


def print_summary(facts: dict, verbose: bool = False) -> None:
    from phidias_lab.contract.resources import show_memory

    click.echo(f"Run      {facts['run']}")
    click.echo(f"Product  {facts['output'] or facts['product']}")
    print_said(facts["said"])
    for variable, checksum in facts["checksums"].items() if verbose else ():
        click.echo(f"         {variable}  sha256 {checksum[:12]}")
    measures = []
    if facts["wall_seconds"] is not None:
        measures.append(duration(facts["wall_seconds"]))
    if facts["peak_memory_bytes"] is not None:
        measures.append(f"peak memory {show_memory(facts['peak_memory_bytes'])}")
    if measures:
        click.echo(f"Took     {', '.join(measures)}")
