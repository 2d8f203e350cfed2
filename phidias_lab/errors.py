"""What a user is told when something is wrong: what was given, what was expected, what to do next.

Every error that a user can cause is a `PhidiasError`. The doors (command line, dashboard, notebook) show its sentence
and nothing else; a traceback is shown only on request. Each kind has the exit code that scripts can rely on.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

#: What the system says where there is no room to write, or nothing may be written at all. Reading never meets these.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class PhidiasError(Exception):
    """Base of all errors that come with a sentence for the user."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence alone. IPython looks for this name."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(PhidiasError, ValueError):
    """A parameter, option or order does not fit the declaration."""

    exit_code = 2


class InputError(PhidiasError, ValueError):
    """An input cannot be found, opened or used as declared."""

    exit_code = 3


class OutsideError(InputError):
    """An input holds nothing of the region and period that were asked for: in a stream of many it is passed over."""


class UnknownNameError(ParameterError, LookupError):
    """A chain, entry, variable or run of that name does not exist."""


class ProductError(PhidiasError, OSError):
    """A product or a run record cannot be written, or stands in the way."""

    exit_code = 4


class RunFailedError(PhidiasError, RuntimeError):
    """The chain itself failed; the run's log holds the details."""

    exit_code = 5


class RunCancelledError(PhidiasError, RuntimeError):
    """The run was cancelled before it finished."""

    exit_code = 130


class MissingExtraError(PhidiasError, ImportError):
    """An optional part of the lab is not installed."""

    exit_code = 6

    def __init__(self, what: str, extra: str):
        self.extra = extra
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed here. "
            f"Install it with:  pip install 'phidias-lab[{extra}]'"
        )


def as_sentence(text: object) -> str:
    """A text as one sentence: it keeps its own full stop, question or exclamation mark, else it gets a full stop."""
    text = str(text).strip()
    return text if text.endswith((".", "?", "!")) or not text else f"{text}."


def kind_of(value: object) -> str:
    """'an int', 'a Dataset': what a value is, with its article."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase that offers the closest known names, or lists the known ones when none is close."""
    known = sorted(str(k) for k in known)
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    if not known:
        return "None is known here."
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"Known: {shown}."
