"""Read a NetCDF file as it is stored, for the formats in NetCDF."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab.methods.formats.netcdf import File, Variable
from phidias_lab.methods.formats.observations import NotReadable

#: A file that holds more than this, unpacked, is not taken into memory.
LARGEST = 2**30
MOST_VARIABLES = 5_000
#: Seconds after which a file that is still being read is given up.
PATIENCE = 600.0


def read(path: str | Path) -> File:
    """All of a file; `NotReadable` with a sentence when it is damaged, truncated, too large, or has groups or own types."""
    import netCDF4

    try:
        with netCDF4.Dataset(str(path), mode="r") as data:
            data.set_auto_maskandscale(False)
            data.set_auto_chartostring(False)
            return _read(data, Path(path))
    except NotReadable:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        said = str(getattr(error, "strerror", None) or error).splitlines()
        raise NotReadable(f"it cannot be read as NetCDF ({said[0] if said else type(error).__name__}).") from None


def _read(data: Any, path: Path) -> File:
    if data.groups:
        raise NotReadable("it has groups, which no profile format has.")
    if len(data.variables) > MOST_VARIABLES:
        raise NotReadable(f"it has {len(data.variables)} variables; more than {MOST_VARIABLES} are not read.")
    size = 0
    for name, variable in data.variables.items():
        if variable.dtype is str:
            continue
        own = not isinstance(variable.datatype, np.dtype)
        if own or not isinstance(variable.dtype, np.dtype) or variable.dtype.kind not in "iufS":
            raise NotReadable(f"its variable {name} has a type of its own, which no profile format has.")
        size += int(np.prod([float(n) for n in variable.shape])) * variable.dtype.itemsize
    if size > LARGEST:
        raise NotReadable(
            f"it holds {size / 2**30:.1f} GiB, more than the {LARGEST / 2**30:g} GiB that are read. Split it."
        )
    # The classic formats store what they hold as it is: a file that is shorter than that was cut off.
    if data.data_model.startswith("NETCDF3") and path.stat().st_size < size:
        raise NotReadable(f"it is cut off: it has {path.stat().st_size} bytes and describes {size}. Fetch it again.")
    variables = {}
    for name, variable in data.variables.items():
        values = variable[...]
        values = np.array(values, dtype=object if variable.dtype is str else variable.dtype)
        storage = {}
        if not data.data_model.startswith("NETCDF3"):
            packed, chunks = variable.filters() or {}, variable.chunking()
            storage = {k: packed[k] for k in ("zlib", "shuffle", "fletcher32", "complevel") if packed.get(k)}
            if isinstance(chunks, list):
                storage["chunksizes"] = tuple(chunks)
        variables[name] = Variable(tuple(variable.dimensions), values, _attributes(variable), storage)
    return File(
        {name: len(d) for name, d in data.dimensions.items()},
        variables,
        _attributes(data),
        tuple(name for name, d in data.dimensions.items() if d.isunlimited()),
        data.data_model,
    )


def _attributes(of: Any) -> dict[str, Any]:
    found = {}
    for name in of.ncattrs():
        try:
            found[name] = of.getncattr(name)
        except UnicodeDecodeError:
            found[name] = of.getncattr(name, encoding="latin-1")
    return found


class Trial:
    """Reads files in a process of its own first: on some damaged files the NetCDF library ends the process it runs in.

    Without it such a file would end the reading of all others. After a file that was refused the process is a new one,
    because the library may be left in disorder. `reader` is a function of a module that, run as a program, calls
    `try_each` with it.
    """

    def __init__(self, reader: Callable[[Path], Any] | None = None) -> None:
        self.reader = reader or read
        self.child: subprocess.Popen | None = None

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._end()

    def read(self, path: str | Path) -> Any:
        """As the reader; a file that ends the process, or takes too long, is `NotReadable`."""
        said = self._tried(str(path))
        if said:
            self._end()
            raise NotReadable(said)
        return self.reader(path)

    def _tried(self, path: str) -> str:
        if self.child is None:
            # A session of its own, so that Ctrl-C reaches this process alone, which then ends the other.
            self.child = subprocess.Popen(
                [sys.executable, "-m", self.reader.__module__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self.child.stdin.write(f"{json.dumps(path)}\n".encode())
            self.child.stdin.flush()
            if not select.select([self.child.stdout], [], [], PATIENCE)[0]:
                return f"it is not read within {PATIENCE:.0f} s, so it is damaged or too large."
            return str(json.loads(self.child.stdout.readline()))
        except (BrokenPipeError, ValueError):
            return "it is damaged: the NetCDF library breaks down on it. Fetch it again."

    def _end(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            with suppress(BrokenPipeError):  # what it did not take is not to be sent now
                self.child.stdin.close()
            self.child.stdout.close()
            self.child = None


def try_each(reader: Callable[[Path], Any]) -> None:
    """The other process: for each path on standard input one line, '' or why the file is not readable."""
    for line in sys.stdin:
        said = ""
        try:
            reader(Path(json.loads(line)))
        except NotReadable as error:
            said = str(error)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    try_each(read)
