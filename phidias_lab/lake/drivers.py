"""The intake drivers of the lake: `Cube` for Zarr, NetCDF and agencies' formats, `Table` for Parquet and CSV.

Both are version-1 drivers (`intake.source.base.DataSource`), so a plain `intake.open_catalog` works as well. A `path`
that is relative lies below the lake's root, which is looked up when the data are opened; one that is absolute or an
fsspec address (with "://") is taken as it stands. Region, time and variable may be entry parameters:

    region     "west,south,east,north" in degrees, or empty for all; east may exceed 180
    time       "2010-01-01/2015-12-31", both ends included, or empty for all
    variable   the name of one measured variable, or "all"

What a file does not say of itself, or says in other words, its entry may say, by plain arguments:

    columns         {name in the file: name here}, for columns and for the variables of a cube
    units           {name here: units}
    standard_names  {name here: CF standard name}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec
import numpy as np
import xarray as xr
from intake.source.base import DataSource, Schema

from phidias_lab import settings
from phidias_lab.contract.data import Needs, is_unit, parse_times, with_extent, with_labels, with_rows_in_all
from phidias_lab.contract.parameters import Period, Region
from phidias_lab.errors import InputError, ParameterError, UnknownNameError, nearest
from phidias_lab.lake import manifest, readers, tiles
from phidias_lab.lake.unreadable import errors_of_reading

ALL = "all"
_ZARR, _NETCDF, _CSV, _PARQUET = (".zarr",), (".nc", ".nc4", ".cdf", ".h5"), (".csv",), (".parquet", ".pq")
_HEAD = 1000  # lines of a CSV file that are looked at
_LONGITUDES, _LATITUDES, _TIMES = ("longitude", "lon"), ("latitude", "lat"), ("time",)


def address_of(path: str) -> str:
    """The full address of an entry's path."""
    if "://" in path:
        return path.rstrip("/")
    expanded = os.path.expanduser(path)
    return (expanded if os.path.isabs(expanded) else settings.lake_path(path)).rstrip("/")


def parse_region(text: str | Sequence[float] | None) -> list[float] | None:
    """[west, south, east, north] of a region parameter; None for all."""
    return _parsed(Region(doc="region of an entry"), "region", text)


def parse_time(text: str | Sequence[str] | None) -> tuple[np.datetime64, np.datetime64] | None:
    """The first moment of a period and the first moment after it; None for all."""
    period = _parsed(Period(doc="period of an entry"), "time", text)
    if period is None:
        return None
    start, end = (np.datetime64(t, "us") for t in period)
    # An end that is a day belongs to the period as a whole; one with a time of day is a moment that still belongs to it.
    return start, end + (np.timedelta64(1, "D") if len(period[1]) == 10 else np.timedelta64(1, "us"))


def _parsed(parameter: Any, name: str, text: Any) -> Any:
    parameter.name = name
    value = parameter.parse(text) if isinstance(text, str) else parameter.canonical(text)
    if isinstance(value, dict):
        raise ParameterError(f"Parameter {name!r} of a catalogue entry is a box: west,south,east,north in degrees.")
    return value


def in_region(longitude: Any, region: Sequence[float]) -> Any:
    """Which longitudes lie in the region, on whichever turn."""
    west, _, east, _ = region
    return np.logical_or.reduce([(longitude + t >= west) & (longitude + t <= east) for t in (-360.0, 0.0, 360.0)])


class _Source(DataSource):
    """What both drivers share."""

    version, partition_access = "1", False

    def __init__(
        self,
        path: str,
        region: Any = "",
        time: Any = "",
        variable: str = ALL,
        columns: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
        standard_names: Mapping[str, str] | None = None,
        metadata: dict | None = None,
    ):
        super().__init__(metadata=metadata)
        self.path, self.region, self.time, self.variable = path, region, time, variable or ALL
        self.columns, self.units, self.standard_names = (
            dict(columns or {}),
            dict(units or {}),
            dict(standard_names or {}),
        )
        self.needs: Needs | None = None  # what is opened only in part; set by `catalog`

    @property
    def read_as(self) -> dict[str, dict]:
        """What the entry says about the file's columns, for its identity; empty when it says nothing."""
        said = {"columns": self.columns, "units": self.units, "standard_names": self.standard_names}
        return {name: value for name, value in said.items() if value}

    def _check_words(self, names: Sequence[str]) -> None:
        """Refuse words about a column that the file (with these names) does not have, or two columns of one name."""
        for old in self.columns:
            if old not in names:
                raise UnknownNameError(f"{self._label()} has no column {old!r} to rename. {nearest(old, names)}")
        here = [self.columns.get(name, name) for name in names]
        for new in self.columns.values():
            if here.count(new) > 1:
                both = " and ".join(old for old, name in zip(names, here, strict=True) if name == new)
                raise ParameterError(
                    f"{self._label()} would have two columns {new!r}: {both}. Give one of them another name."
                )
        for what, said in (("units", self.units), ("the standard name", self.standard_names)):
            for name in said:
                if name not in here:
                    raise UnknownNameError(
                        f"{self._label()} has no column {name!r} to give {what} of. "
                        + (f"It is {self.columns[name]!r} here." if name in self.columns else nearest(name, here))
                    )
        for name, units in self.units.items():
            if not is_unit(units):
                raise ParameterError(
                    f"{units!r} is no unit that is known here, and was given for {name!r}. Write it as in 'degree_Celsius', "
                    "'m' or 'kg m-3'."
                )

    def _described(self, described: Mapping[str, Mapping]) -> dict[str, dict]:
        """Attributes of columns by their names here, with what the entry says of them."""
        found = {self.columns.get(name, name): dict(attributes) for name, attributes in described.items()}
        for key, said in (("units", self.units), ("standard_name", self.standard_names)):
            for name, value in said.items():
                found[name] = {**found.get(name, {}), key: value}
        return found

    @property
    def address(self) -> str:
        return address_of(self.path)

    def _label(self) -> str:
        return f"The entry {self.name!r} ({self.address})" if self.name else self.address

    def _manifest(self) -> dict | None:
        """The store's manifest after a look at its files; an error that says what to do when it is not there."""
        system, path = fsspec.core.url_to_fs(self.address)
        if not system.exists(path):
            if readers.is_pattern(self.address) and readers.find(self.address) is not None:
                return None
            raise InputError(f"{self._label()} does not exist. {self._what_to_do()}")
        known = manifest.read(self.address) if system.isdir(path) else None
        if known:
            manifest.check_sizes(self.address, known)
        return known

    def look(self) -> Any:
        """The lazy data as far as metadata tell: right in its columns or variables, and never the whole of a file."""
        return self.to_dask()

    def _what_to_do(self) -> str:
        if self.address.startswith(settings.lake_root() + "/"):
            return "Build the demo lake with 'phidias lake build-demo', or set PHIDIAS_LAKE to the root of your lake."
        return "Check the path; 'phidias catalog list' shows what is known."

    def _get_schema(self) -> Schema:
        return Schema(dtype=None, shape=None, npartitions=1, extra_metadata={})

    def _close(self) -> None:
        pass


class Cube(_Source):
    """A cube: an xarray Dataset from a Zarr store (format 2 or 3), a NetCDF file, or what a reader of `sources` reads."""

    name, container = "lake_cube", "xarray"

    def to_dask(self) -> xr.Dataset:
        """The lazy dataset: nothing but metadata and coordinates is read."""
        # Names and bounds are read before data, so what is asked for is refused before anything is opened.
        region, time = parse_region(self.region), parse_time(self.time)
        known = self._manifest()
        with errors_of_reading(self._label(), self.address):
            data = _with_plain_text(with_labels(self._open(known)))
            # Zarr lists its arrays in no order of its own.
            data = _only(data, (known or {}).get("variables") or sorted(data.data_vars))
        if self.read_as:
            self._check_words([str(name) for name in data.variables])
            data = data.rename({old: new for old, new in self.columns.items() if old != new})
            for name, attributes in self._described({}).items():
                data[name].attrs.update(attributes)
        if self.variable != ALL:
            if self.variable not in data.data_vars:
                raise ParameterError(
                    f"{self._label()} has no variable {self.variable!r}. {nearest(self.variable, data.data_vars)}"
                )
            data = _only(data, [self.variable])
        if region is not None:
            lon, lat = (_coordinate(data, n, self._label()) for n in (_LONGITUDES, _LATITUDES))
            data = _cut(data, lon, in_region(lon.values, region))
            data = _cut(data, lat, (lat.values >= region[1]) & (lat.values <= region[3]))
        if time is not None:
            when = _coordinate(data, _TIMES, self._label())
            data = _cut(data, when, (when.values >= time[0]) & (when.values < time[1]))
        return data

    def read(self) -> xr.Dataset:
        """The dataset in memory."""
        data = self.to_dask()
        with errors_of_reading(self._label(), self.address):
            return data.load()

    def _open(self, known: dict | None) -> xr.Dataset:
        import zarr

        address = self.address
        files = readers.find(address)
        if files is not None:
            return files.open()
        if address.lower().endswith(_NETCDF):
            if "://" in address:
                raise InputError(f"{address}: NetCDF is read from a folder only. Copy the file to this machine first.")
            return xr.open_dataset(address, engine="netcdf4", chunks={}, decode_coords="all")
        if "://" in address:
            store = zarr.storage.FsspecStore.from_url(address, read_only=True)
        else:
            store = zarr.storage.LocalStore(address, read_only=True)
        if known:
            store = manifest.CheckedStore(store, address, known["files"])
        return xr.open_dataset(store, engine="zarr", consolidated=False, chunks={}, decode_coords="all")


def _with_plain_text(data: xr.Dataset) -> xr.Dataset:
    """Labels of the type that NetCDF gives: Zarr's, of any length, numpy casts to no other text."""
    text = {name: array for name, array in data.coords.items() if array.dtype.kind == "T"}
    return data.assign_coords(
        {name: (array.dims, np.array(array.values.tolist(), str), array.attrs) for name, array in text.items()}
    )


def _coordinate(data: xr.Dataset, names: Sequence[str], label: str) -> xr.DataArray:
    """The one-dimensional coordinate of one of these names, or with the first of them as standard name."""
    for name, coordinate in data.coords.items():
        if coordinate.ndim == 1 and (name in names or coordinate.attrs.get("standard_name") == names[0]):
            return coordinate
    raise InputError(f"{label} has no coordinate {names[0]!r}, so it cannot be cut by it. Leave that parameter empty.")


def _only(data: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """These variables, with the bounds of their coordinates: xarray leaves those out, for they have a dimension more."""
    chosen = data[names]
    named = {
        told.get(key)
        for coordinate in chosen.coords.values()
        for told in (coordinate.attrs, coordinate.encoding)
        for key in ("bounds", "climatology")
    }
    return chosen.assign_coords({name: data[name] for name in sorted(filter(None, named)) if name in data.coords})


def _cut(data: xr.Dataset, along: xr.DataArray, keep: np.ndarray) -> xr.Dataset:
    """The part of the data where `keep` holds along a coordinate; a slice where that part is in one piece."""
    index = np.flatnonzero(keep)
    whole = index.size and index[-1] - index[0] + 1 == index.size
    return data.isel({along.dims[0]: slice(int(index[0]), int(index[-1]) + 1) if whole else index})


class Table(_Source):
    """A table: a DataFrame from a Parquet file or dataset (with tiles, see `tiles`), or from a CSV file.

    Units, names and flags of the columns come with `table.attrs["columns"]`, other facts with `table.attrs`, for pandas
    and for dask alike.
    """

    name, container = "lake_table", "dataframe"

    def to_dask(self) -> Any:
        """The lazy dask DataFrame, one partition for each row group that may hold what was asked for."""
        import dask
        import dask.dataframe as dd

        if self.address.lower().endswith(_CSV):
            table = self.read()
            return _with_attrs(dd.from_pandas(table, npartitions=1), table.attrs)
        dataset, tile, asked, where, columns, attrs = self._query()
        with errors_of_reading(self._label(), self.address):
            fragments = list(dataset.get_fragments(_and(tile, asked)))
            parts = [part for fragment in fragments for part in fragment.split_by_row_group(where)]
            # By the metadata alone, unless a region or period was asked for that cuts through a row group.
            whole = None if where is asked else sum(fragment.count_rows(filter=asked) for fragment in fragments)
            pieces = [(part.path, [group.id for group in part.row_groups]) for part in parts]
            known = {self.columns.get(name, name): ends for name, ends in _extent(parts).items()}
            meta = _frame(dataset.schema.empty_table().select(self._there(columns)), attrs, self.columns)
        if not pieces:
            with dask.config.set({"dataframe.convert-string": False}):
                lazy = _with_attrs(dd.from_pandas(meta, npartitions=1), attrs)
            return lazy if whole is None else with_rows_in_all(lazy, whole)
        reader = _Pieces(dataset.format, dataset.filesystem, self._label(), where, tuple(columns), attrs, self.columns)
        # Texts stay as pandas reads them, so that the lazy table equals the one that is read at once.
        with dask.config.set({"dataframe.convert-string": False}):
            lazy = dd.from_map(reader, pieces, meta=meta, enforce_metadata=False, label="read-table")
        lazy = with_extent(_with_attrs(lazy, attrs), known)
        return lazy if whole is None else with_rows_in_all(lazy, whole)

    def look(self) -> Any:
        """As `to_dask`, but of a CSV file, which has no metadata, only the first lines."""
        import dask.dataframe as dd

        if not self.address.lower().endswith(_CSV):
            return self.to_dask()
        table = self._read_csv(_HEAD)
        return _with_attrs(dd.from_pandas(table, npartitions=1), table.attrs)

    def read(self) -> Any:
        """The pandas DataFrame; only tiles and row groups that may hold what was asked for are read."""
        if self.address.lower().endswith(_CSV):
            return self._read_csv()
        dataset, tile, _, where, columns, attrs = self._query()
        with errors_of_reading(self._label(), self.address):
            return _frame(dataset.to_table(columns=self._there(columns), filter=_and(tile, where)), attrs, self.columns)

    def _there(self, columns: Sequence[str]) -> list[str]:
        """The names that these columns have in the file."""
        return _names_there(columns, self.columns)

    def _read_csv(self, rows: int | None = None):
        import pandas as pd

        region, time = parse_region(self.region), parse_time(self.time)
        self._manifest()
        try:
            table = pd.read_csv(self.address, comment="#", nrows=rows)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
            raise InputError(
                f"{self._label()} cannot be read as CSV: {str(error).strip().splitlines()[0]}. "
                "Its first line must name the columns, and every line must have as many."
            ) from None
        self._check_words(list(table.columns))
        table = table.rename(columns=self.columns)
        table.attrs = {"columns": self._described({})} if self.read_as else {}
        for column in _TIMES:
            if column in table:
                table[column] = parse_times(table[column], f"{self._label()}: column {column!r}")
        keep = np.ones(len(table), bool)
        if region is not None:
            lon, lat = (self._column(table.columns, {}, n) for n in (_LONGITUDES, _LATITUDES))
            keep &= in_region(table[lon].to_numpy(), region)
            keep &= (table[lat].to_numpy() >= region[1]) & (table[lat].to_numpy() <= region[3])
        if time is not None:
            when = table[self._column(table.columns, {}, _TIMES)].to_numpy()
            keep &= (when >= time[0]) & (when < time[1])
        return table.loc[keep, self._wanted(list(table.columns))].reset_index(drop=True)

    def _query(self):
        """The opened dataset, the filter of its tiles, those of the rows that the entry asks for and of those among them
        that are needed, the columns by their names here, and the attributes."""
        import pyarrow.dataset as ds

        from phidias_lab.methods.formats.arrow import attributes_of

        region, time = parse_region(self.region), parse_time(self.time)
        known = self._manifest()
        with errors_of_reading(self._label(), self.address):
            dataset = _dataset(self.address, known)
            schema, attrs = dataset.schema, attributes_of(dataset.schema)
        if self.read_as:
            self._check_words(schema.names)
            attrs = {**attrs, "columns": self._described(attrs.get("columns", {}))}
        names = [self.columns.get(name, name) for name in schema.names]

        def field(wanted: Sequence[str]) -> Any:
            return ds.field(self._there([self._column(names, described, wanted)])[0])

        tile, asked, described = None, None, attrs.get("columns", {})
        if region is not None:
            lon, lat = field(_LONGITUDES), field(_LATITUDES)
            west, south, east, north = region
            turns = [
                (lon + t >= west) & (lon + t <= east) if t else (lon >= west) & (lon <= east) for t in (0, -360, 360)
            ]
            asked = (turns[0] | turns[1] | turns[2]) & (lat >= south) & (lat <= north)
            if known and known.get("layout", {}).get("tile_degrees") == tiles.DEGREES:
                tile = ds.field("tile").isin(tiles.tiles_of(*region))
        if time is not None:
            when = field(_TIMES)
            asked = _and(asked, (when >= ds.scalar(time[0].item())) & (when < ds.scalar(time[1].item())))
        where, columns = asked, self._wanted([n for n in names if n != "tile" or not known])
        if self.needs is not None:
            columns = [c for c in columns if c in self.needs.columns] if self.needs.columns else columns
            for column, intervals in self.needs.ranges.items():
                where = _and(where, _in_intervals(schema, self._there([column])[0], intervals))
        return dataset, tile, asked, where, columns, attrs

    def _column(self, columns: Sequence[str], described: dict, names: Sequence[str]) -> str:
        for column in columns:
            if column in names or described.get(column, {}).get("standard_name") == names[0]:
                return column
        raise InputError(
            f"{self._label()} has no column {names[0]!r}, so it cannot be cut by it. Leave that parameter empty."
        )

    def _wanted(self, columns: list[str]) -> list[str]:
        """All columns, or those that are no measured variable and the chosen variable with its flag."""
        if self.variable == ALL:
            return columns
        # A measured variable is known by its quality flag; without any flags every other column is kept.
        measured = [c for c in columns if f"{c}_qc" in columns]
        if self.variable not in columns:
            raise ParameterError(
                f"{self._label()} has no variable {self.variable!r}. {nearest(self.variable, measured or columns)}"
            )
        others = {c for m in measured if m != self.variable for c in (m, f"{m}_qc")}
        return [c for c in columns if c not in others]


def _dataset(address: str, known: dict | None):
    """The Parquet dataset with page checksums verified; of a store with a manifest, exactly the files it lists."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

    system, root = fsspec.core.url_to_fs(address)
    arrow = LocalFileSystem() if "://" not in address else PyFileSystem(FSSpecHandler(system))
    # Only pages that carry a checksum are verified, so files of other writers are read as well.
    scan = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(default_fragment_scan_options=scan)
    if not known:
        return ds.dataset(root, format=form, filesystem=arrow, partitioning="hive")
    files = [f"{root.rstrip('/')}/{name}" for name in known["files"] if name.endswith(_PARQUET)]
    hive = ds.partitioning(pa.schema([("tile", pa.int32())]), flavor="hive")
    return ds.dataset(sorted(files), format=form, filesystem=arrow, partitioning=hive, partition_base_dir=root)


def _names_there(columns: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Names in the file of columns by their names here; `names` leads the other way."""
    back = {new: old for old, new in names.items()}
    return [back.get(name, name) for name in columns]


def _frame(table: Any, attrs: dict, names: Mapping[str, str]) -> Any:
    """A pandas DataFrame with its attributes; columns with declared categories become categorical."""
    import pandas as pd

    frame = table.replace_schema_metadata(None).to_pandas().rename(columns=names)
    for column, described in attrs.get("columns", {}).items():
        if column in frame and "categories" in described:
            frame[column] = pd.Categorical(frame[column], categories=described["categories"])
    frame.attrs = _fitting(attrs, frame.columns)
    return frame


def _fitting(attrs: dict, columns: Any) -> dict:
    """The attributes of a table with these columns."""
    return {**attrs, "columns": {c: a for c, a in attrs.get("columns", {}).items() if c in set(columns)}}


def _with_attrs(lazy: Any, attrs: dict) -> Any:
    """Hang the attributes on a dask DataFrame as on a pandas one. Dask drops them in every operation, as it knows none."""
    object.__setattr__(lazy, "attrs", _fitting(attrs, lazy.columns))
    return lazy


def _in_intervals(schema: Any, column: str, intervals: Sequence[tuple[Any, Any]]) -> Any:
    """The condition that a column lies in one of the intervals; None for a column of which that cannot be asked."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

    if column not in schema.names or not intervals:
        return None
    kind, condition = schema.field(column).type, None
    for low, high in intervals:
        if pa.types.is_timestamp(kind):
            ends = [pd.Timestamp(end).tz_localize("UTC" if kind.tz else None) for end in (low, high)]
            low, high = (ds.scalar(pa.scalar(end.to_pydatetime(), pa.timestamp("us", kind.tz))) for end in ends)
        elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            return None
        inside = (ds.field(column) >= low) & (ds.field(column) <= high)
        condition = inside if condition is None else condition | inside
    return condition


def _extent(parts: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    """Least and greatest values by the statistics of row groups; only of columns of which every group tells them."""
    found: dict[str, tuple[Any, Any]] | None = None
    for part in parts:
        for group in part.row_groups:
            told = {
                n: (s["min"], s["max"]) for n, s in (group.statistics or {}).items() if not isinstance(s["min"], str)
            }
            if found is None:
                found = told
            else:
                found = {n: (min(a, told[n][0]), max(b, told[n][1])) for n, (a, b) in found.items() if n in told}
    return found or {}


def _and(one: Any, other: Any) -> Any:
    """Both conditions; None is no condition."""
    return other if one is None else one if other is None else one & other


class _Pieces:
    """Reads one piece of a table: some row groups of one file, filtered. Small enough to travel to a worker."""

    def __init__(
        self, form: Any, filesystem: Any, label: str, where: Any, columns: tuple[str, ...], attrs: dict, names: dict
    ):
        self.form, self.filesystem, self.label = form, filesystem, label
        self.where, self.columns, self.attrs, self.names = where, columns, attrs, names

    def __call__(self, piece: tuple[str, list[int]], columns: Sequence[str] | None = None) -> Any:
        path, groups = piece
        with errors_of_reading(self.label, path):
            fragment = self.form.make_fragment(path, self.filesystem, row_groups=groups)
            wanted = list(self.columns if columns is None else columns)
            there = _names_there(wanted, self.names)
            return _frame(fragment.to_table(columns=there, filter=self.where), self.attrs, self.names)
