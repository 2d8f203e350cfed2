"""Threads over blocks of work, with one thread each for linear algebra, which would else take all cores in every one."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> contextlib.AbstractContextManager:
    return _blas().limit(limits=1, user_api="blas")


@contextlib.contextmanager
def crew(number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """So many threads, else one for each core."""
    with one_blas_thread(), ThreadPoolExecutor(number or cores()) as executor:
        yield executor
