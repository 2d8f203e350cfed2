"""Compute a lazy cube piece by piece, keeping each finished piece on disk.

A piece is what lies between two chunk borders along every dimension that is chunked. Pieces run side by side in threads
and share what they have in common (one graph). A finished piece is a file that appeared by a rename, so a run that was
killed goes on with those that are missing, and gives the same values as one that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import dask
import numpy as np
import xarray as xr

from phidias_lab.compute.runs import unwritable
from phidias_lab.methods import progress


class Crew(Protocol):
    """Whoever computes tasks elsewhere."""

    def compute(self, tasks: Sequence, counted: Callable[[], None]) -> None:
        """Compute every task, and say so after each."""


def finish(
    result: xr.Dataset,
    work: Path,
    report: Callable[[float, str], None],
    threads: int = 1,
    crew: Crew | None = None,
) -> tuple[xr.Dataset, int]:
    """The same cube, its values read lazily from finished pieces in `work`; and how many pieces were there already.

    A `crew` computes them on the workers of a cluster, in place of threads of this process.
    """
    lazy = [name for name in result.variables if result.variables[name].chunks is not None]
    # Python objects, such as texts of any length, have no form that a piece can be checked in.
    objects = [name for name in lazy if result[name].dtype.kind in "OT"]
    if objects:
        result = result.assign({name: result[name].compute() for name in objects})
        lazy = [name for name in lazy if name not in objects]
    if not lazy:
        return result, 0
    borders = _borders(result, lazy)
    slices = {dim: [slice(a, b) for a, b in itertools.pairwise(edges)] for dim, edges in borders.items()}
    _same_pieces(work, {"borders": borders, "variables": {n: str(result[n].dtype) for n in lazy}})
    indices = list(itertools.product(*(range(len(s)) for s in slices.values())))
    done = [index for index in indices if _intact(work / _name(index))]
    finished = set(done)
    total, count, lock = len(indices), len(finished), threading.Lock()

    under_way: dict[object, float] = {}

    def say() -> None:
        # A piece is one long computation, or several; those that are done count with their pieces.
        report((count + min(sum(under_way.values()), total - count)) / total, f"piece {count} of {total}")

    def counted(*_: object) -> None:
        nonlocal count
        with lock:
            count += 1
            for done in [key for key, share in under_way.items() if share >= 0.99]:  # progress is told in hundredths
                del under_way[done]
            say()

    def told(computation: object, share: float) -> None:
        with lock:
            under_way[computation] = share
            say()

    report(count / total, f"piece {count} of {total}")
    tasks = []
    for index in indices:
        if index in finished:
            continue
        where = {dim: parts[i] for (dim, parts), i in zip(slices.items(), index, strict=True)}
        # Between two borders lies one block of every variable. The graphs stay as they are: dask would optimise each block
        # by itself and so give every piece a copy of its own of what the pieces have in common.
        values = {
            name: result[name]
            .isel({d: s for d, s in where.items() if d in result[name].dims})
            .data.to_delayed(optimize_graph=False)
            .item()
            for name in lazy
            if _belongs(result[name].dims, slices, index)
        }
        values = {f"v{lazy.index(name)}": value for name, value in values.items()}
        tasks.append(dask.delayed(_store, pure=False)(work / _name(index), values))
    if tasks and crew is not None:
        crew.compute(tasks, counted)
    elif tasks:
        counting = [dask.delayed(counted, pure=False)(task) for task in tasks]
        with progress.listening(told):
            dask.compute(*counting, scheduler="threads", num_workers=max(1, threads))
    return _assemble(result, lazy, slices, work), len(done)


def _store(path: Path, values: Mapping[str, np.ndarray]) -> str:
    """Write a piece; it appears by a rename, so that nobody ever reads half of one, whoever is killed."""
    # Two workers may be at the same piece, when one of them only seemed to be lost.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(temporary, "wb") as stream:
            np.savez(stream, **values)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        if isinstance(error, OSError):  # said here: outside it would look like an error of reading an input
            raise unwritable(path.parent, error) from error
        raise
    return path.name


def _same_pieces(work: Path, layout: dict) -> None:
    """Pieces are told apart by their place between borders; those with other borders are of no use."""
    work.mkdir(parents=True, exist_ok=True)
    note, text = work / "pieces.json", json.dumps(layout, sort_keys=True)
    if note.is_file() and note.read_text(encoding="utf-8", errors="replace") == text:
        return
    for piece in work.glob("piece-*.npz"):
        piece.unlink()
    temporary = work / ".pieces.json"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, note)


def _borders(result: xr.Dataset, lazy: list[str]) -> dict[str, list[int]]:
    """For each dimension that some variable cuts, all borders any variable has."""
    borders: dict[str, set[int]] = {}
    for name in lazy:
        for dim, chunks in zip(result[name].dims, result[name].data.chunks, strict=True):
            borders.setdefault(str(dim), set()).update([0, *np.cumsum(chunks).tolist()])
    return {dim: sorted(edges) for dim, edges in borders.items() if len(edges) > 2}


def _belongs(dims, slices, index) -> bool:
    """A variable without a cut dimension belongs to the first piece along it only."""
    return all(i == 0 or dim in dims for dim, i in zip(slices, index, strict=True))


def _name(index: tuple[int, ...]) -> str:
    return "piece-" + ("-".join(f"{i:05d}" for i in index) or "all") + ".npz"


def _intact(path: Path) -> bool:
    """Whether a piece is there and whole; a damaged one is computed again."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error):
        return False  # what zipfile says depends on which byte is wrong


def _assemble(result, lazy, slices, work) -> xr.Dataset:
    import dask.array as da

    def load(path, name):
        with np.load(path, allow_pickle=False) as archive:
            return archive[f"v{lazy.index(name)}"]

    def block(name, array, prefix, dims_left):
        if not dims_left:
            index = tuple(prefix.get(dim, 0) for dim in slices)
            shape = tuple(
                slices[d][prefix[d]].stop - slices[d][prefix[d]].start if d in prefix else array.sizes[d]
                for d in array.dims
            )
            return da.from_delayed(dask.delayed(load)(work / _name(index), name), shape, array.dtype)
        dim, *rest = dims_left
        return [block(name, array, {**prefix, dim: i}, rest) for i in range(len(slices[dim]))]

    whole = result.copy()
    for name in lazy:
        array = result[name]
        # Blocks nest in the order of the array's own dimensions; dimensions that are not cut have one block.
        cut = [d for d in array.dims if d in slices]
        nested = block(name, array, {}, cut)
        for position, dim in enumerate(array.dims):
            if dim not in slices:
                nested = _wrap(nested, position)
        data = da.block(nested) if isinstance(nested, list) else nested
        whole[name] = (array.dims, data, array.attrs, array.encoding)
    return whole


def _wrap(nested, depth: int):
    """Put one more list level at `depth`, so that da.block sees one level per dimension."""
    if depth == 0:
        return [nested]
    return [_wrap(inner, depth - 1) for inner in nested]
