"""The lake's events table: what chains found, where and when, as GeoParquet 1.1 files that are only ever added.

    <lake>/events/<digest>.parquet

Each append is one file that appears by a rename, so a reader needs no lock, a killed writer leaves nothing, and any number
of processes may write. An event has an id that follows from what it is; where two writers added the same one, the first
stands. Many small files become one now and then (`compact`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from phidias_lab import settings
from phidias_lab.errors import InputError, ParameterError, ProductError, kind_of
from phidias_lab.lake import drivers
from phidias_lab.lake.locks import lock
from phidias_lab.lake.unreadable import errors_of_reading

FOLDER = "events"
#: So many small files are merged into one, and a file of this size is small no more.
MANY, SMALL = 128, 4 * 2**20

_TIME = pa.timestamp("us", tz="UTC")
_BOX = ("xmin", "ymin", "xmax", "ymax")
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("time", _TIME),
        ("time_end", _TIME),
        ("geometry", pa.binary()),
        ("kind", pa.string()),
        ("chain", pa.string()),
        ("run", pa.string()),
        ("product", pa.string()),
        ("source", pa.string()),
        ("quality", pa.float64()),
        ("false_alarm_rate", pa.float64()),
        ("synthetic", pa.bool_()),
        ("recorded", _TIME),
        ("properties", pa.string()),
        ("bbox", pa.struct([(side, pa.float64()) for side in _BOX])),
    ]
)
#: The columns of the table in memory: times are UTC, `geometry` is shapely, `properties` a dictionary.
COLUMNS = tuple(name for name in _SCHEMA.names if name != "bbox")
_TIMES = tuple(name for name in COLUMNS if _SCHEMA.field(name).type == _TIME)
_GIVEN = ("id", "time", "time_end", "geometry", "kind", "quality", "false_alarm_rate", "synthetic")


# The form of an event -------------------------------------------------------------------------------------------------


def shaped(found: Any, *, chain: str, run: str, product: str, source: str, synthetic: bool) -> pd.DataFrame:
    """What `Chain.events` gave, in the form of the table; what cannot be an event is the chain's error, said by name."""

    def refuse(why: str) -> ParameterError:
        return ParameterError(f"{chain}.events() {why}. The chain must mend it; see Chain.events.")

    if not hasattr(found, "columns"):
        raise refuse(f"must return a DataFrame, and returned {kind_of(found)}")
    found = (found.compute() if hasattr(found, "compute") else found).reset_index(drop=True)
    for name in ("time", "kind"):
        if name not in found.columns:
            raise refuse(f"returned no column {name!r}")
    table = pd.DataFrame(index=found.index)
    table["time"] = _moments(found["time"])
    table["time_end"] = (_moments(found["time_end"]) if "time_end" in found else table["time"]).fillna(table["time"])
    if table["time"].isna().any() or (table["time_end"] < table["time"]).any():
        raise refuse("returned an event without a time, or one that ends before it begins")
    table["geometry"] = _shapes(found, refuse)
    table["kind"] = found["kind"].astype(str).map(_one_line)
    if (table["kind"] == "").any():
        raise refuse("returned an event of no kind")
    for name in ("quality", "false_alarm_rate"):
        table[name] = pd.to_numeric(found[name]).astype(float) if name in found else np.nan
    table["synthetic"] = found["synthetic"].astype(bool) if "synthetic" in found else synthetic
    if synthetic:  # what was made of synthetic values cannot be real
        table["synthetic"] = True
    table = table.assign(chain=chain, run=run, product=product, source=source, recorded=pd.Timestamp.now("UTC"))
    table["recorded"] = _moments(table["recorded"])
    more = [name for name in found.columns if name not in (*_GIVEN, "longitude", "latitude")]
    table["properties"] = [
        {str(n): v for n in more if (v := _plain(row[n])) is not None} for _, row in found[more].iterrows()
    ] or pd.Series(dtype=object)
    own = found["id"].astype(str) if "id" in found else [None] * len(found)
    table["id"] = [_identity(row, name) for name, (_, row) in zip(own, table.iterrows(), strict=True)]
    return table[list(COLUMNS)]


def _moments(column: Any) -> pd.Series:
    """Times as UTC without a zone, the way all times of the lab are."""
    return pd.to_datetime(column, utc=True).dt.tz_localize(None).astype("datetime64[us]")


def _shapes(found: pd.DataFrame, refuse: Any) -> list[Any]:
    import shapely

    if "geometry" in found.columns:
        shapes = found["geometry"].to_numpy(dtype=object)
        if not all(isinstance(shape, shapely.Geometry) for shape in shapes):
            raise refuse("returned a geometry that is not shapely's")
    elif {"longitude", "latitude"} <= set(found.columns):
        places = found[["longitude", "latitude"]].to_numpy(dtype=float)
        shapes = shapely.points(places) if len(places) else np.array([], dtype=object)
    else:
        raise refuse("returned neither 'geometry' nor 'longitude' and 'latitude'")
    shapes = np.atleast_1d(shapely.force_2d(shapes)) if len(shapes) else shapes
    west, south, east, north = shapely.bounds(shapes).reshape(-1, 4).T
    if not ((west >= -180) & (east <= 180) & (south >= -90) & (north <= 90)).all():  # NaN of an empty one too
        raise refuse("returned an event that is empty or not within -180..180 and -90..90 degrees")
    if not shapely.is_valid(shapes).all():
        raise refuse("returned an outline that is no valid geometry, such as one that crosses itself")
    return list(shapes)


def _one_line(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:200]


def _plain(value: Any) -> Any:
    """A value as JSON holds it; None where it says nothing."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, str | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _identity(event: Mapping[str, Any], own: str | None) -> str:
    """The id of an event: the same for the same event of the same source, whichever run found it, and however often."""
    told = (
        [own]
        if own
        else [event["kind"], *(event[n].isoformat() for n in ("time", "time_end")), event["geometry"].wkb_hex]
    )
    return hashlib.sha256(json.dumps([event["chain"], event["source"], *told]).encode()).hexdigest()[:32]


# Adding ---------------------------------------------------------------------------------------------------------------


def append(events: pd.DataFrame, root: str | None = None) -> int:
    """Add events that have the form of the table (see `shaped`); gives how many of them were not there yet."""
    if set(COLUMNS) - set(getattr(events, "columns", ())):
        raise ParameterError(
            f"Events are added in the form of the table ({', '.join(COLUMNS)}), as phidias_lab.flow.events(run) gives them."
        )
    system, folder = _place(root)
    events = events.drop_duplicates("id")
    known = set(_read(system, folder, ds.field("id").isin(list(events["id"])), ["id"])["id"].to_pylist())
    events = events[~events["id"].isin(known)]
    if len(events):
        _write(system, folder, _arrow(events))
        if _is_local(system) and len(_files(system, folder)) > MANY:
            compact(root, wait=0.0)
    return len(events)


def compact(root: str | None = None, wait: float = 600.0) -> int:
    """Merge the small files of the table into one, and give their number. Readers and writers may go on meanwhile.

    Killed between the two steps it leaves events that stand twice, which no reader sees. Where the lake is no folder there
    is no lock, and nothing is merged.
    """
    system, folder = _place(root)
    if not _is_local(system) or not os.path.isdir(folder):
        return 0
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(f"{folder}/.lock", what="The events table", timeout=wait))
        except ProductError:
            if wait:
                raise
            return 0  # somebody else is at it
        _remove_what_the_dead_left(folder)
        small = [path for path in _files(system, folder) if os.path.getsize(path) < SMALL]
        if len(small) < 2:
            return 0
        merged = _write(system, folder, _first(_read(system, folder, None, None, small)))
        for path in small:
            if path != merged:
                os.unlink(path)
        return len(small)


def _place(root: str | None) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(f"{(root or settings.lake_root()).rstrip('/')}/{FOLDER}")


def _is_local(system: Any) -> bool:
    return "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)


def _arrow(events: pd.DataFrame) -> pa.Table:
    import shapely

    shapes = events["geometry"].to_numpy(dtype=object)
    columns: dict[str, Any] = {name: events[name].tolist() for name in COLUMNS}
    columns |= {name: events[name].dt.tz_localize("UTC").tolist() for name in _TIMES}
    columns["geometry"] = list(shapely.to_wkb(shapes, byte_order=1))
    columns["properties"] = [json.dumps(p, sort_keys=True, allow_nan=False) for p in events["properties"]]
    columns["bbox"] = [dict(zip(_BOX, map(float, box), strict=True)) for box in shapely.bounds(shapes)]
    return pa.table(columns, schema=_SCHEMA)


def write(events: pd.DataFrame, path: str | Path) -> None:
    """Write events as one GeoParquet file anywhere."""
    pq.write_table(_geo(_arrow(events)), path, compression="zstd")


def _geo(table: pa.Table) -> pa.Table:
    """The table with what makes it GeoParquet 1.1; longitude and latitude (OGC:CRS84) is what it is without a `crs`."""
    import shapely

    table = table.sort_by([("time", "ascending"), ("id", "ascending")])
    column = {
        "encoding": "WKB",
        "geometry_types": sorted({shape.geom_type for shape in shapely.from_wkb(table["geometry"].to_pylist())}),
        "covering": {"bbox": {side: ["bbox", side] for side in _BOX}},
    }
    about = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return table.replace_schema_metadata({"geo": json.dumps(about)})


def _write(system: Any, folder: str, table: pa.Table) -> str:
    """Put a file into the table, in one step as seen from outside; it is named after the events in it."""
    name = hashlib.sha256("\n".join(sorted(table["id"].to_pylist())).encode()).hexdigest()[:32]
    path = f"{folder}/{name}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(_geo(table), sink, compression="zstd")
    try:
        system.makedirs(folder, exist_ok=True)
        if not _is_local(system):  # where an object appears as a whole
            system.pipe_file(path, sink.getvalue().to_pybytes())
            return path
        temporary = f"{folder}/.{secrets.token_hex(8)}.partial"
        try:
            with open(temporary, "xb") as stream:
                stream.write(sink.getvalue())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise ProductError(
            f"The events table {folder} cannot be written: {error.strerror or error}. Make room, or get leave to write."
        ) from None
    return path


def _remove_what_the_dead_left(folder: str) -> None:
    """Unfinished files of writers that are gone; a live one is done with its own within seconds."""
    for path in Path(folder).glob(".*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()


# Reading --------------------------------------------------------------------------------------------------------------


def read(
    period: str | Sequence[str] | None = None,
    region: str | Sequence[float] | None = None,
    kind: str | Iterable[str] | None = None,
    chain: str | None = None,
    root: str | None = None,
) -> pd.DataFrame:
    """The events that touch a period and a region, of some kinds or of one chain; all of them without a word.

    `period` is "2022-06-01/2022-06-30" or two dates, `region` "west,south,east,north" or four numbers; an east
    beyond 180 goes across the date line.
    """
    import shapely

    wanted, boxes = [], []
    if (times := drivers.parse_time(period)) is not None:
        start, end = (pa.scalar(pd.Timestamp(t).tz_localize("UTC"), _TIME) for t in times)
        wanted += [ds.field("time") < end, ds.field("time_end") >= start]
    if (area := drivers.parse_region(region)) is not None:
        west, south, east, north = area
        boxes = [shapely.box(west + turn, south, east + turn, north) for turn in (-360.0, 0.0, 360.0)]
        wanted += [ds.field("bbox", "ymin") <= north, ds.field("bbox", "ymax") >= south]
    if kind is not None:
        wanted.append(ds.field("kind").isin([kind] if isinstance(kind, str) else list(kind)))
    if chain is not None:
        wanted.append(ds.field("chain") == chain)
    condition = None
    for one in wanted:
        condition = one if condition is None else condition & one
    system, folder = _place(root)
    table = _frame(_first(_read(system, folder, condition)))
    if boxes:
        table = table[shapely.intersects(table["geometry"].to_numpy(dtype=object), shapely.union_all(boxes))]
    return table.sort_values(["time", "id"], ignore_index=True)


#: The same under the name that `phidias_lab.events` has.
events = read


def _files(system: Any, folder: str) -> list[str]:
    try:
        found = system.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    system.invalidate_cache(folder)
    return sorted(path for path in found if re.fullmatch(r"[0-9a-f]{32}\.parquet", path.rsplit("/", 1)[-1]))


def _read(system: Any, folder: str, condition: Any, columns: list[str] | None = None, files: Any = None) -> pa.Table:
    with errors_of_reading("The events table", folder):
        for last in (False,) * 20 + (True,):
            try:
                paths = _files(system, folder) if files is None else files
                if not paths:
                    return _SCHEMA.empty_table().select(columns or _SCHEMA.names)
                found = ds.dataset(paths, schema=_SCHEMA, format="parquet", filesystem=system)
                return found.to_table(filter=condition, columns=columns)
            except FileNotFoundError:  # merged into another file since they were listed
                if last or files is not None:
                    raise
    raise InputError("The events table changes faster than it can be read. Try again.")


def _first(table: pa.Table) -> pa.Table:
    """Each event once: as it was first recorded."""
    table = table.sort_by([("recorded", "ascending"), ("run", "ascending")])
    first = ~pd.Series(table["id"].to_pylist(), dtype=object).duplicated().to_numpy(dtype=bool)
    return table.filter(pa.array(first, pa.bool_()))


def _frame(table: pa.Table) -> pd.DataFrame:
    import shapely

    frame = table.select(list(COLUMNS)).to_pandas()
    for name in _TIMES:
        frame[name] = frame[name].dt.tz_localize(None)
    frame["geometry"] = pd.Series(list(shapely.from_wkb(frame["geometry"].to_numpy(dtype=object))), dtype=object)
    frame["properties"] = pd.Series([json.loads(text) for text in frame["properties"]], dtype=object)
    frame.attrs["crs"] = "OGC:CRS84"
    return frame
