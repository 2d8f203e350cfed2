"""Files of observations into the lake: many files of many formats become one table with an entry in the user's catalogue.

Files are read one after the other, in blocks, and put aside sorted by place; at the end they are brought together tile by
tile and, within a tile, a few cells at a time. So memory does not grow with the number of files. Everything is written
beside its place and renamed at the end: who stops it finds the lake as it was.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phidias_lab import settings
from phidias_lab.contract.data import column_attributes
from phidias_lab.errors import InputError, ParameterError, ProductError, nearest
from phidias_lab.lake import catalog, stores, tiles
from phidias_lab.lake.locks import lock
from phidias_lab.methods.formats import arrow, flags, vocabulary
from phidias_lab.methods.formats.observations import Faults, NotReadable, Observations
from phidias_lab.products import observations as writers
from phidias_lab.sources import observations as sources
from phidias_lab.sources.netcdf import Trial
from phidias_lab.sources.observations import NoObservations, Words

VERSION = "1"
FOLDER = "observations"
FAULTS = "faults.txt"
#: Values that are in memory at once: before they are put aside, and while they are brought together.
TOGETHER = 4_000_000
_UNFINISHED = ".building-"

Progress = Callable[[float, str], None]


@dataclass
class Ingested:
    """What became of the files."""

    address: str
    path: str
    rows: int
    files: int
    refused: list[tuple[str, str]] = field(default_factory=list)  # file, sentence
    passed_over: list[tuple[str, str]] = field(default_factory=list)  # file, what it is
    faults: int = 0
    first_faults: list[str] = field(default_factory=list)
    without_place: int = 0
    without_time: int = 0

    @property
    def looked_at(self) -> int:
        return self.files + len(self.refused) + len(self.passed_over)


def ingest(
    files: Iterable[str | Path],
    name: str | None = None,
    *,
    words: Words | None = None,
    description: str = "",
    licence: str | None = None,
    source: str | None = None,
    folder: str | Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Ingested:
    """Read files, and all files below folders, into one table of the lake; register it as `mine.<name>`.

    A file that cannot be read is refused by a sentence and the others go on. An observation without place or time cannot be
    in the lake; how many there were is told.
    """
    words = words or Words()
    if words.scheme not in flags.SCHEMES:
        raise ParameterError(f"There is no scheme of flags {words.scheme!r}. {nearest(words.scheme, flags.SCHEMES)}")
    found = _listed(files)
    name = catalog.name_for(found[0]) if name is None and len(found) == 1 else name
    if name is None:
        raise ParameterError(f"{len(found)} files become one entry, which needs a name. Give it with --name.")
    catalog.check_name(name, free=not replace)
    where = settings.lake_path(FOLDER) if folder is None else str(folder)
    if "://" in where:
        raise ProductError(f"Observations are written into a folder; {where} is none. Give one with --folder.")
    base = Path(where).expanduser().absolute()
    try:
        base.mkdir(parents=True, exist_ok=True)
        with lock(base / f".{name}.lock", what=f"The table {name!r}"):
            return _Ingestion(base, name, found, words, progress).run(description, licence, source, replace)
    except OSError as error:
        if isinstance(error, ProductError):
            raise
        raise _refused(base, error) from error


def _refused(base: Path, error: OSError) -> ProductError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProductError(f"The disk of {base} is full. Free some space, or choose another folder with --folder.")
    return ProductError(
        f"{base} cannot be written ({error.strerror or error}). Choose a folder you may write to with --folder."
    )


def _listed(files: Iterable[str | Path]) -> list[Path]:
    """The files, and those below folders, each once."""
    found: dict[Path, None] = {}
    for given in files:
        path = Path(given).expanduser().absolute()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise InputError(f"The folder {path} holds no files. Name files of observations, or their folder.")
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"{path} does not exist. Name files of observations, or their folder.")
    if not found:
        raise InputError("No file was named. Name files of observations, or their folder.")
    return list(found)


def _read_one(path: Path, faults: Faults, words: Words, trial: Trial) -> Iterator[Observations]:
    """The blocks of a file; whatever is wrong with it is `NotReadable`, so that the other files go on."""
    blocks = sources.blocks(path, faults, words, trial.read)
    while True:
        try:
            table = next(blocks, None)
        except NotReadable:
            raise
        except OSError as error:
            raise NotReadable(f"it cannot be read: {error.strerror or error}.") from None
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError) as error:
            raise NotReadable(f"it is not what its format asks for ({type(error).__name__}: {error}).") from None
        if table is None:
            return
        yield table


class _Ingestion:
    """One run of `ingest`."""

    def __init__(self, base: Path, name: str, files: list[Path], words: Words, progress: Progress | None):
        self.base, self.name, self.files, self.words = base, name, files, words
        self.tell = progress or (lambda fraction, text: None)
        self.said = Ingested(f"{catalog.MINE}.{name}", str(base / f"{name}.parquet"), 0, 0)
        self.top = Path(os.path.commonpath([f.parent for f in files]))
        self.kinds: dict[str, str] = {}  # column -> text, time, bool, or the type of its numbers
        self.attributes: dict[str, dict] = {}
        self.facts: dict[str, set[str]] = {}
        self.bad: set[int] = set()  # numbers of files that turned out unreadable
        self.cells: dict[tuple[int, int], int] = {}
        self.waiting: list[dict[str, np.ndarray]] = []
        self.rows_waiting = self.number = 0
        self.aside: list[Path] = []

    def run(self, description: str, licence: str | None, source: str | None, replace: bool) -> Ingested:
        for left in self.base.glob(f"{_UNFINISHED}{self.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.work = self.base / f"{_UNFINISHED}{self.name}-{uuid.uuid4().hex[:8]}"
        self.work.mkdir()
        try:
            with open(self.work / FAULTS, "w", encoding="utf-8") as self.log, Trial() as self.trial:
                self._read()
            if not self.said.rows:
                raise InputError(self._nothing())
            store = self._write()
            self.tell(0.98, "Registering")
            self._publish(store, description, licence, source, replace)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)
        self.tell(1.0, "Done")
        return self.said

    def _nothing(self) -> str:
        read = len(self.files) - len(self.said.refused) - len(self.said.passed_over)
        first = next(iter(self.said.refused + self.said.passed_over), None)
        why = f" {first[0]}: {first[1]}" if first else ""
        lost = self.said.without_place + self.said.without_time
        if read and lost:
            why = f" {lost} observations have no place or no time."
        return f"None of the {len(self.files)} files gives observations, so no table was made.{why}"

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        sizes = [max(1, f.stat().st_size) for f in self.files]
        whole, done = sum(sizes), 0
        for index, (path, size) in enumerate(zip(self.files, sizes, strict=True)):
            label = str(path.relative_to(self.top))
            self.tell(0.8 * done / whole, f"{label} ({index + 1} of {len(self.files)})")
            faults, before = Faults(), (self.said.rows, self.said.without_place, self.said.without_time)
            try:
                for table in _read_one(path, faults, self.words, self.trial):
                    self._take(table, index, label)
                self.said.files += 1
            except NotReadable as error:
                self.bad.add(index)
                self.said.rows, self.said.without_place, self.said.without_time = before
                if isinstance(error, NoObservations):
                    self.said.passed_over.append((label, str(error)))
                else:
                    self.said.refused.append((label, str(error)))
                    self.log.write(f"{label}: {error}\n")
            self._note(label, faults)
            done += size
        self._put_aside()

    def _note(self, label: str, faults: Faults) -> None:
        for fault in faults:
            line = f"{label}: {fault}"
            self.log.write(line + "\n")
            if len(self.said.first_faults) < 20:
                self.said.first_faults.append(line)
        if len(faults) > len(faults.found):
            self.log.write(f"{label}: and {len(faults) - len(faults.found)} more faults.\n")
        self.said.faults += len(faults)

    def _take(self, table: Observations, index: int, label: str) -> None:
        """Keep the rows with a place and a time; bring the columns to what they are called and are elsewhere."""
        if not len(table):
            return
        place = np.isfinite(table.columns["longitude"]) & np.isfinite(table.columns["latitude"])
        timed = ~np.isnat(table.columns["time"])
        self.said.without_place += int((~place).sum())
        self.said.without_time += int((place & ~timed).sum())
        keep = place & timed
        if not keep.any():
            return
        columns = {}
        for name, values in table.columns.items():
            columns[self._name(name, values, table.attributes.get(name, {}))] = values[keep]
        for key, value in table.facts.items():
            self.facts.setdefault(key, set()).add(value)
        count = int(keep.sum())
        columns["file"] = np.full(count, label, dtype=object)
        self.kinds.setdefault("file", "text")
        self.attributes.setdefault("file", {"long_name": "file that the observation came in"})
        columns["observation_id"] = np.arange(self.number + 1, self.number + count + 1, dtype=np.int64)
        columns["\0file"] = np.full(count, index, np.int32)
        self.number += count
        self.said.rows += count
        self.waiting.append(columns)
        self.rows_waiting += count
        if self.rows_waiting * len(self.kinds) >= TOGETHER:
            self._put_aside()

    def _name(self, name: str, values: np.ndarray, said: Mapping[str, Any]) -> str:
        """The name of a column in the lake: its own, unless another file has something else under it."""
        kind = {"O": "text", "M": "time", "b": "bool"}.get(values.dtype.kind, str(values.dtype))
        name = {"observation_id": "original_id", "tile": "original_tile", "file": "original_file"}.get(name, name)
        while True:
            if name not in self.kinds:
                self.kinds[name] = kind
                self.attributes[name] = dict(said)
                return name
            have, units = self.kinds[name], self.attributes[name].get("units")
            if units and said.get("units") and units != said["units"]:
                name = f"{name}_{vocabulary.slug(str(said['units']))}"
            elif have != kind and {have, kind} & {"text", "time", "bool"}:
                name = f"{name}_{kind}"
            else:
                self.kinds[name] = str(np.promote_types(have, kind)) if have != kind else have
                return name

    def _put_aside(self) -> None:
        """Write what waits into a file of its own, sorted by tile and cell."""
        if not self.waiting:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = [self._arrow(columns) for columns in self.waiting]
        whole = pa.concat_tables(parts, promote_options="permissive")
        lon, lat = (whole[n].to_numpy() for n in ("longitude", "latitude"))
        tile, cell = tiles.tile(lon, lat).astype(np.int32), tiles.morton_cell(lon, lat).astype(np.int32)
        order = np.lexsort((cell, tile))
        whole = (
            whole.append_column("\0tile", pa.array(tile)).append_column("\0cell", pa.array(cell)).take(pa.array(order))
        )
        kinds, counts = np.unique(np.stack([tile, cell]), axis=1, return_counts=True)
        for (t, c), n in zip(kinds.T.tolist(), counts.tolist(), strict=True):
            self.cells[t, c] = self.cells.get((t, c), 0) + n
        path = self.work / f"{len(self.aside)}.aside"
        pq.write_table(whole, path, compression="zstd", row_group_size=stores.ROW_GROUP)
        self.aside.append(path)
        self.waiting, self.rows_waiting = [], 0

    def _arrow(self, columns: Mapping[str, np.ndarray]) -> Any:
        import pyarrow as pa

        arrays = {}
        for name, values in columns.items():
            if values.dtype == object:
                arrays[name] = pa.array(list(values), pa.string())
            else:
                arrays[name] = pa.array(values)
        return pa.table(arrays)

    # Bringing together -----------------------------------------------------------------------------------------------

    def _columns(self) -> list[str]:
        """Names in the order in which one looks for them: identity, place, time, then what was measured."""
        first = ["observation_id", "platform", "cruise", "station", "cast", "longitude", "latitude", "depth", "time"]
        known = {"observation_id", *self.kinds}
        named = [n for n in first if n in known]
        return named + [n for n in self.kinds if n not in named]

    def _write(self) -> Path:
        store = self.work / "store.parquet"
        store.mkdir()
        shutil.copy(self.work / FAULTS, store / FAULTS)
        stores.write_tiles(self._parts(), store)
        stores.table_manifest(store, entry=self.said.address, version=VERSION, rows=self.said.rows)
        return store

    def _table_attributes(self) -> dict[str, Any]:
        told = {}
        for key, values in self.facts.items():
            if len(values) == 1:
                told[key] = next(iter(values))
        told["title"] = told.get("title") or f"Observations from {self.said.files} files"
        told["source_formats"] = ", ".join(sorted(self.facts.get("format", ())))
        if any(v.lower() in ("true", "1", "yes") for v in self.facts.get("synthetic", ())):
            told["synthetic"] = "true"
        told.pop("format", None)
        columns = {"observation_id": {"long_name": "number of the observation in this table"}, **self.attributes}
        return {**told, "columns": {n: columns[n] for n in self._columns()}}

    def _parts(self) -> Iterator[tuple[int, Any]]:
        """(tile, its observations in the lake's order), a few cells at a time."""
        import pyarrow as pa

        schema = arrow.with_attributes(self._schema(), self._table_attributes())
        groups: list[tuple[int, int, int]] = []
        rows, most = 0, max(1, TOGETHER // len(schema))
        for (tile, cell), count in sorted(self.cells.items()):
            if groups and groups[-1][0] == tile and rows + count <= most:
                groups[-1] = (tile, groups[-1][1], cell)
                rows += count
            else:
                groups.append((tile, cell, cell))
                rows = count
        for number, (tile, low, high) in enumerate(groups):
            self.tell(0.8 + 0.17 * number / len(groups), f"Writing tile {tile}")
            found = [self._of(path, tile, low, high, schema) for path in self.aside]
            whole = pa.concat_tables([f for f, _ in found])
            cell = np.concatenate([c for _, c in found])
            if not len(whole):
                continue
            keys = (whole["observation_id"].to_numpy(), whole["time"].to_numpy(), cell)
            yield tile, whole.take(pa.array(np.lexsort(keys))).replace_schema_metadata(schema.metadata)

    def _schema(self) -> Any:
        import pyarrow as pa

        types = {"text": pa.string(), "time": pa.timestamp("us"), "bool": pa.bool_(), "float16": pa.float32()}
        kinds = {"observation_id": "int64", **self.kinds}
        return pa.schema([(n, types.get(kinds[n]) or pa.from_numpy_dtype(kinds[n])) for n in self._columns()])

    def _of(self, path: Path, tile: int, low: int, high: int, schema: Any) -> tuple[Any, np.ndarray]:
        """What one file put aside holds of some cells, with all columns of the table."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        where = (pc.field("\0tile") == tile) & (pc.field("\0cell") >= low) & (pc.field("\0cell") <= high)
        if self.bad:
            where = where & ~pc.field("\0file").isin(sorted(self.bad))
        part = pq.read_table(path, filters=where)
        columns = []
        for kind in schema:
            there = kind.name in part.column_names
            column = part[kind.name].cast(kind.type) if there else pa.nulls(len(part), kind.type)
            if pa.types.is_string(kind.type):
                column = pc.fill_null(column, "")
            elif pa.types.is_floating(kind.type):
                column = pc.fill_null(column, float("nan"))
            elif kind.name.endswith("_qc") and pa.types.is_int8(kind.type):
                column = pc.fill_null(column, flags.MISSING)
            columns.append(column)
        return pa.table(columns, schema=schema), part["\0cell"].to_numpy()

    def _publish(self, store: Path, description: str, licence: str | None, source: str | None, replace: bool) -> None:
        """Rename the store into its place and register it; if it is refused there, all is as before."""
        target, old = Path(self.said.path), self.work / "old"
        if target.exists():
            if not replace:
                raise ProductError(
                    f"{target} exists already, and no entry of yours names it. Give another --name, or --replace."
                )
            os.rename(target, old)
        try:
            os.rename(store, target)
            catalog.add(
                target,
                self.name,
                description=description or f"Observations from {self.said.files} files",
                licence=licence,
                source=source or "; ".join(sorted(self.facts.get("institution", ()))) or None,
                replace=replace,
            )
        except BaseException:
            if target.exists():
                os.rename(target, self.work / "refused")
            if old.exists():
                os.rename(old, target)
            raise


# Out of the lake -------------------------------------------------------------------------------------------------------


def export(
    address: str, path: str | Path, format: str | None = None, parameters: Mapping[str, Any] | None = None
) -> tuple[int, str]:
    """Write the observations of a catalogue entry into one file; returns how many, and the format."""
    kind = writers.format_of(path, format)
    data, _ = catalog.open_entry(address, parameters)
    if not hasattr(data, "columns"):
        raise InputError(f"{address} is a cube, and observations are a table. 'phidias catalog list' shows the kinds.")
    frame = data.compute() if hasattr(data, "compute") else data
    if "observation_id" in frame.columns:  # the lake sorts by place; the formats of profiles need casts in one piece
        frame = frame.sort_values("observation_id", ignore_index=True)
    writers.write(_of_frame(frame, column_attributes(data), dict(getattr(data, "attrs", {}))), path, kind)
    return len(frame), kind


def _of_frame(frame: Any, columns: Mapping[str, Mapping], attrs: Mapping[str, Any]) -> Observations:
    facts = {k: str(v) for k, v in attrs.items() if k != "columns"}
    table = Observations(facts=facts)
    for name in frame.columns:
        values, said = frame[name], {k: v for k, v in columns.get(name, {}).items() if k != "categories"}
        kind = getattr(values.dtype, "kind", "O")
        if kind == "M":
            array = values.to_numpy().astype("datetime64[us]")
        elif kind in "iufb" and isinstance(values.dtype, np.dtype):
            array = values.to_numpy()
        else:
            array = np.array(
                ["" if v is None or v != v else str(v) for v in values.to_numpy(dtype=object)], dtype=object
            )
        table.add(str(name), array, said)
    return table
