"""What a user is told when data cannot be read, and what to do about it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from phidias_lab import settings
from phidias_lab.errors import FULL, InputError, PhidiasError

MEND = "Build it again with 'phidias lake build-demo', or fetch the data anew."
MEND_YOURS = "It lies outside the lake: put it back from where you have it, or write it anew."
MEND_ANY = "'phidias lake build-demo' builds demo data again; put other data back from where you have them."


def mend(address: str | None) -> str:
    """What to do about data that are not as they should be: those of the lake can be made again, the user's own cannot."""
    if address is None:
        return MEND_ANY
    return MEND if address.startswith(settings.lake_root() + "/") else MEND_YOURS


@contextlib.contextmanager
def errors_of_reading(name: str, place: str | None = None) -> Iterator[None]:
    """Turn what zarr, pyarrow, xarray and the operating system raise while `name` is read into an InputError.

    place: the address of what is read, where it is known; it decides what the user is told to do.
    """
    try:
        yield
    except PhidiasError:
        raise
    except FileNotFoundError as error:
        what = getattr(error, "filename", None) or str(error).splitlines()[0]
        raise InputError(f"{name}: {what} does not exist. Check the name. {mend(place)}") from error
    except PermissionError as error:
        raise InputError(f"{name}: {error.filename or error} may not be read. Ask its owner for access.") from error
    except (OSError, EOFError, *_of_libraries()) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # something was written meanwhile; the data that are read have no part in it
        raise InputError(f"{name} cannot be read: {_first_line(error)}. {mend(place)}") from error
    except (ValueError, RuntimeError) as error:
        # The codecs have no exception of their own; theirs are known by where they were raised.
        if not _from_a_codec(error):
            raise
        raise InputError(f"{name} is damaged: {_first_line(error)}. {mend(place)}") from error


def _of_libraries() -> list[type[BaseException]]:
    """The libraries' own errors. One that was not imported has raised none, and importing it takes a run a while."""
    kinds = {"pyarrow": "ArrowException", "zarr.errors": "BaseZarrError"}
    return [getattr(sys.modules[module], kind) for module, kind in kinds.items() if module in sys.modules]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _from_a_codec(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith(("zarr.codecs", "numcodecs")):
            return True
        trace = trace.tb_next
    return False
