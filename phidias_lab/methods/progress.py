"""How far long computations have come, told to whoever waits for them in this process.

A computation calls `begin()` once and tells what that gives how much is done, from 0 to 1. Nobody has to listen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Listener = Callable[[object, float], None]
_listeners: list[Listener] = []


def begin() -> Callable[[float], None]:
    """What a new computation tells its progress to."""
    key = object()

    def tell(fraction: float) -> None:
        for listener in _listeners:
            listener(key, fraction)

    return tell


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear of every computation that tells something, as (which one, how much of it is done), from its own thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def part(tell: Callable[[float], None], start: float, stop: float) -> Callable[[float], None]:
    """What a part of a computation tells its progress to."""
    return lambda fraction: tell(start + (stop - start) * fraction)
