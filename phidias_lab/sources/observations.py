"""Open a file of observations in any format that is known, by its content, as the lake's table.

Faults of a file are collected, all of them, with line and column or variable and index; a file that is not readable as a
whole raises `NotReadable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from phidias_lab.methods.formats import argo, arrow, delimited, odv, seadatanet
from phidias_lab.methods.formats.netcdf import File
from phidias_lab.methods.formats.observations import Faults, NotReadable, Observations
from phidias_lab.sources import netcdf

ODV, SEADATANET, ARGO, CSV, PARQUET = FORMATS = ("odv", "seadatanet", "argo", "csv", "parquet")
TITLES = {
    ODV: "SeaDataNet ODV spreadsheet", SEADATANET: "SeaDataNet CF NetCDF", ARGO: "Argo profiles", CSV: "CSV",
    PARQUET: "Parquet",
}  # fmt: skip
_HEAD = 65_536
_NETCDF = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF\r\n\x1a\n")
_GUESS = "It is read: SeaDataNet ODV (text), SeaDataNet CF NetCDF, Argo profiles (NetCDF), CSV and Parquet."


#: What a first line without observations says of its file.
_OTHERS = {
    "cdi_identifier": "a list of SeaDataNet's Common Data Index",
    "file,date": "an index of Argo files",
    "file,profiler_type": "an index of Argo files",
    "PLATFORM_CODE,PARAMETER_NAME": "a list of suspect Argo floats",
}


class NoObservations(NotReadable):
    """A file of a known format that holds something else than observations; nothing is wrong with it."""


@dataclass(frozen=True)
class Words:
    """What a user says of the columns of a file, by their names in the lab; and in which scheme a CSV's flags are."""

    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    standard_names: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "L20"


PLAIN = Words()


def recognise(path: str | Path, netcdf_reader: Callable[[Path], File] = netcdf.read) -> str:
    """The format of a file, by its first bytes and, of NetCDF, by what it holds."""
    return _recognise(Path(path), netcdf_reader)[0]


def _recognise(path: Path, read: Callable[[Path], File] = netcdf.read) -> tuple[str, File | None]:
    try:
        with open(path, "rb") as file:
            start = file.read(_HEAD)
    except OSError as error:
        raise NotReadable(f"it cannot be read: {error.strerror or error}.") from None
    if not start:
        raise NotReadable("it is empty.")
    if start.startswith(b"PAR1"):
        return PARQUET, None
    if start.startswith(_NETCDF):
        found = read(path)
        kind = argo.recognise(found)
        if kind == "profiles":
            return ARGO, found
        if kind is not None:
            raise NoObservations(f"it is Argo's {kind!r} and holds no observations.")
        if seadatanet.recognise(found):
            return SEADATANET, found
        raise NotReadable(
            "it is NetCDF, but neither Argo profiles nor SeaDataNet; 'phidias catalog add' takes gridded data."
        )
    if odv.looks_like(start):
        return ODV, None
    if b"\0" in start:
        raise NotReadable(f"it is neither text nor a known binary format. {_GUESS}")
    line = next(
        (
            x
            for x in start.decode("utf-8", "replace").lstrip("\ufeff").splitlines()
            if x.strip() and not x.startswith("#")
        ),
        "",
    )
    for sign, what in _OTHERS.items():
        if sign in line:
            raise NoObservations(f"it is {what} and holds no observations.")
    if line.count(delimited.separator(line)) >= 2:
        return CSV, None
    raise NotReadable(f"its first line does not name columns. {_GUESS}")


def blocks(
    path: str | Path, faults: Faults, words: Words = PLAIN, netcdf_reader: Callable[[Path], File] = netcdf.read
) -> Iterator[Observations]:
    """The observations of a file, block by block, with the lab's names."""
    path = Path(path)
    kind, file = _recognise(path, netcdf_reader)
    if kind == CSV:
        with open(path, "rb") as stream:
            for table in delimited.blocks(stream, faults, words.columns, words.scheme):
                yield _described(table, words)
        return
    for table in _plain_blocks(path, kind, file, faults):
        yield _described(_renamed(table, words), words)


def _plain_blocks(path: Path, kind: str, file: File | None, faults: Faults) -> Iterator[Observations]:
    if kind == ODV:
        with open(path, "rb") as stream:
            for sheet in odv.blocks(stream, faults):
                yield odv.observations(sheet, faults)
    elif kind == PARQUET:
        yield from _parquet(path, faults)
    else:
        yield (argo if kind == ARGO else seadatanet).observations(file, faults)


def read(path: str | Path, faults: Faults, words: Words = PLAIN) -> Observations:
    """All of a file at once."""
    return joined(list(blocks(path, faults, words)))


def joined(tables: list[Observations]) -> Observations:
    """Tables of one file as one."""
    if len(tables) == 1:
        return tables[0]
    whole = Observations({}, dict(tables[0].attributes), tables[0].facts)
    for name in tables[0].columns:
        whole.columns[name] = np.concatenate([t.columns[name] for t in tables])
    return whole


def _renamed(table: Observations, words: Words) -> Observations:
    for old, new in words.columns.items():
        if old not in table.columns:
            raise NotReadable(
                f"it has no column {old!r} that could be renamed; it has {', '.join(list(table.columns)[:20])}."
            )
        if new != old and new in table.columns:
            raise NotReadable(f"it already has a column {new!r}, so {old!r} cannot be called so.")
    names = {n: words.columns.get(n, n) for n in table.columns}
    return Observations(
        {names[n]: v for n, v in table.columns.items()}, {names[n]: a for n, a in table.attributes.items()}, table.facts
    )


def _described(table: Observations, words: Words) -> Observations:
    for key, said in (("units", words.units), ("standard_name", words.standard_names)):
        for name, value in said.items():
            if name not in table.columns:
                raise NotReadable(f"it has no column {name!r}; it has {', '.join(list(table.columns)[:20])}.")
            table.attributes[name] = {**table.attributes[name], key: value}
    return table.with_depth()


def _parquet(path: Path, faults: Faults) -> Iterator[Observations]:
    """A Parquet file with the lake's columns; attributes as the lake keeps them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if len(schema) > delimited.MOST_COLUMNS:
                raise NotReadable(f"it has {len(schema)} columns; more than {delimited.MOST_COLUMNS} are not read.")
            for needed in ("longitude", "latitude", "time"):
                if needed not in schema.names:
                    raise NotReadable(f"it has no column {needed!r}; it has {', '.join(schema.names[:20])}.")
            attributes, facts = {f.name: arrow.decoded(f.metadata) for f in schema}, arrow.decoded(schema.metadata)
            facts = {k: str(v) for k, v in facts.items()}
            empty = True
            start = 0
            for batch in file.iter_batches(batch_size=delimited.BLOCK):
                empty = False
                yield _of_arrow(pa.Table.from_batches([batch]), attributes, facts, start, faults)
                start += len(batch)
            if empty:
                yield _of_arrow(schema.empty_table(), attributes, facts, 0, faults)
    except (pa.ArrowException, OSError) as error:
        raise NotReadable(f"it cannot be read as Parquet ({str(error).splitlines()[0].rstrip('.')}).") from None


def _of_arrow(table, attributes: dict, facts: dict, start: int, faults: Faults) -> Observations:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = Observations(facts=facts)
    for name in table.column_names:
        column = table[name]
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if name == "time" and not pa.types.is_timestamp(kind):
            raise NotReadable(f"its column 'time' holds {kind}, not times.")
        if pa.types.is_timestamp(kind):
            values = column.cast(pa.timestamp("us"), safe=False).to_numpy()
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = np.array(pc.fill_null(column, "").to_pylist(), dtype=object)
        elif pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            values = column.to_numpy()
        else:
            faults.add(
                f"column {name!r}", f"holds {kind}, which a table of observations does not have; it is left out."
            )
            continue
        found.add(name, np.array(values), attributes.get(name))
    for name, low, high in (("longitude", -180, 360), ("latitude", -90, 90)):
        values = found.columns[name]
        if values.dtype.kind != "f":
            raise NotReadable(f"its column {name!r} holds {values.dtype}, not degrees.")
        with np.errstate(invalid="ignore"):
            for i in np.flatnonzero((values < low) | (values > high)):
                faults.add(f"row {start + i + 1}, column {name!r}", f"is {values[i]:g}, outside {low} to {high}.")
                values[i] = np.nan
    return found
