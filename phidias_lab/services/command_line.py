"""The command `phidias`: its group, and what every command has in common when something goes wrong.

Exit codes that scripts may trust:

    0    done                                            5    the chain failed; the run's log says why
    1    another error that has a sentence               6    an optional part (an extra) is not installed
    2    a parameter, option, name or order is wrong     7    a product that was run again differs
    3    an input cannot be found or used                70   a defect of phidias_lab itself
    4    a product or a record cannot be written         130, 143   cancelled with Ctrl-C, stopped by SIGTERM
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from phidias_lab import __version__
from phidias_lab.errors import PhidiasError, UnknownNameError, as_sentence, nearest

#: One module each in phidias_lab.services.commands, in the order in which a newcomer needs them.
COMMANDS = (
    "chains", "describe", "run", "watch", "campaign", "events", "places", "runs", "rerun", "export", "lake", "catalog",
    "use", "lab",
)  # fmt: skip
#: Words that are tried for a command and are not spelled like it.
_MEANT = {"clusters": "places", "cluster": "places", "partitions": "places"}

DIFFERS = 7
DEFECT = 70


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. Not an Exception, for the same reason that KeyboardInterrupt is none."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


class ReaderGone(BaseException):
    """Whoever read our output (head, less) has seen enough. Click would turn a BrokenPipeError into an error."""


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(f"phidias_lab.services.commands.{name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = nearest(_MEANT.get(args[0], args[0]), COMMANDS)
            raise UnknownNameError(f"There is no command {args[0]!r}. {near} 'phidias --help' explains them.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, expose_value=False, help="Show the full traceback of an error; at any place.")
@click.version_option(__version__, prog_name="phidias", message="%(prog)s %(version)s")
def phidias() -> None:
    """Find Earth-observation data, process them, tune the processing, share the products."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Every error ends here as one sentence on stderr."""
    # --debug is understood at any place: who needs it has the failed command in the shell's history and adds a word.
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [word for word in args if word != "--debug"]
    _open_closed_streams()
    try:
        # Not standalone: click would print and exit by itself, and every kind of error would have the same code.
        result = phidias.main(args=args, prog_name="phidias", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (ReaderGone, BrokenPipeError):
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, click.Abort):
        _say("Cancelled.")
        return 130
    except Terminated as error:
        _say(f"Stopped by {signal.Signals(error.number).name}.")
        return 128 + error.number
    except PhidiasError as error:
        _traceback(debug)
        _say(f"Error: {error}")
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())  # a group's name alone asks what it can do
        return 0
    except click.ClickException as error:
        _traceback(debug)
        _say(f"Error: {_sentence(error)}")
        return error.exit_code
    except OSError as error:
        _traceback(debug)
        where = f" at {error.filename}" if error.filename else ""
        _say(f"Error: the system refused{where}: {error.strerror or error}. Check the space and the permissions there.")
        return 1
    except Exception as error:  # noqa: BLE001  the last door: a user never meets a bare traceback
        _traceback(debug)
        _say(
            f"Error: phidias_lab met {type(error).__name__}: {str(error) or 'no message'}. This is a defect of the lab "
            "or of a chain, not of your input; the same words with --debug show where it happened."
        )
        return DEFECT


def _open_closed_streams() -> None:
    """Point streams that were closed by the caller (`2>&-`) at the null device, for this process and its children.

    Python has None in their place, and the next file that is opened would get their number: what a library or a worker
    writes to its stderr would then end in that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
            stream = open(os.devnull, mode)  # noqa: SIM115  as long-lived as the process
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(null, number)
                os.close(null)
            stream = open(number, mode, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def _sentence(error: click.ClickException) -> str:
    """What click found, and where help is."""
    ctx = getattr(error, "ctx", None)
    message = error.format_message().strip()
    if isinstance(error, click.NoSuchOption) and ctx is not None:
        known = [spelled for option in ctx.command.params for spelled in option.opts if spelled.startswith("--")]
        message = f"There is no option {error.option_name!r}. {nearest(error.option_name, known)}"
    message = as_sentence(message)
    return f"{message} See '{ctx.command_path} --help'." if ctx is not None else message


def _say(text: str) -> None:
    # A closed stderr is no reason for another error.
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def _traceback(wanted: bool) -> None:
    if wanted:
        traceback.print_exc()
