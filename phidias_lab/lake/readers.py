"""Readers of agencies' file formats: the entry-point group `phidias_lab.sources`, for ours and for everybody's.

A reader is an object with

    pattern         how its files are called, as a shell writes it: "S5P_????_L1B_RA_BD?_*.nc"
    open(paths)     one lazy cube of these files, in any number
    beside(paths)   further files that `open` reads with them (a calibration); they belong to the identity of the data

and, if it likes, with

    companions      how such further files are called; in a folder of many they are no files of their own
    period(name)    from when to when a file was measured, by its name alone; None where the name does not tell

Its data are addressed by one file, by a folder that holds such files, or by a pattern of file names in a folder.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from phidias_lab.errors import InputError, ParameterError, as_sentence

GROUP = "phidias_lab.sources"
_WILD = "*?["
_PLAIN = (".zarr", ".parquet", ".pq", ".csv")


class Reader(Protocol):
    pattern: str

    def open(self, paths: list[str]) -> Any: ...

    def beside(self, paths: list[str]) -> list[str]: ...


@dataclass(frozen=True)
class Files:
    """Files of one format, and who reads them."""

    reader: Reader
    paths: list[str]

    def open(self) -> Any:
        return self.reader.open(self.paths)

    @property
    def all(self) -> list[str]:
        """All files that are read, in order of their names."""
        return sorted({*self.paths, *self.reader.beside(self.paths)})


def is_pattern(address: str) -> bool:
    return any(mark in address for mark in _WILD)


def find(address: str) -> Files | None:
    """The files of an address that some reader reads; None where the address is of another kind."""
    place = Path(address)
    if "://" in address or place.suffix.lower() in _PLAIN:
        return None
    if is_pattern(place.name) and not place.exists():
        if not place.parent.is_dir():
            raise InputError(f"The folder {place.parent} of {address} does not exist. Check the path.")
        names = sorted(p for p in place.parent.iterdir() if fnmatch.fnmatchcase(p.name, place.name) and p.is_file())
        if not names:
            raise InputError(f"No file in {place.parent} is called {place.name}. Check the pattern.")
    elif place.is_dir():
        names = sorted(p for p in place.iterdir() if p.is_file())
    else:
        names = [place]
    for reader in _readers():
        read = [str(p) for p in names if fnmatch.fnmatchcase(p.name, reader.pattern)]
        if read:
            return Files(reader, read)
    return None


def _readers() -> list[Reader]:
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            found.append(entry.load())
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else entry.value
            raise ParameterError(
                f"The reader {entry.name!r} of the package {package!r} cannot be imported: "
                f"{as_sentence(f'{type(error).__name__}: {error}')} Repair or uninstall {package!r}."
            ) from error
    return found


def companions() -> tuple[str, ...]:
    """How the files are called that are read only with others."""
    return tuple(reader.companions for reader in _readers() if hasattr(reader, "companions"))


def periods(names: Iterable[str]) -> list[tuple[Any, Any] | None]:
    """From when to when each file was measured, by its name alone; None where no reader can tell."""
    known = [reader for reader in _readers() if hasattr(reader, "period")]

    def told(name: str) -> tuple[Any, Any] | None:
        reader = next((reader for reader in known if fnmatch.fnmatchcase(name, reader.pattern)), None)
        return None if reader is None else reader.period(name)

    return [told(name.rsplit("/", 1)[-1]) for name in names]


def patterns() -> list[str]:
    """How the files are called that readers read."""
    return [reader.pattern for reader in _readers()]
