"""What is read from the lake is what was asked for, nothing more is touched, and damage is never read as data."""

from __future__ import annotations

import os
import pickle
import shutil

import dask
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from phidias_lab.errors import InputError
from phidias_lab.lake import catalog, drivers, manifest, stores, tiles, unreadable

FEW = limits(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def whole(demo_lake_folder):
    """The observations and one cube, read entirely."""
    table = drivers.Table(path=str(demo_lake_folder / "ocean/observations.parquet")).read()
    cube = drivers.Cube(path=str(demo_lake_folder / "ocean/truth_baltic.zarr")).read()
    return table, cube


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    """A small table with rows all over the globe in the lake's layout: (folder, whole table as it lies there)."""
    random, rows = np.random.default_rng(5), 3000
    day = np.datetime64("2010-01-01", "us") + random.integers(0, 6 * 365, rows).astype("timedelta64[D]")
    table = pd.DataFrame(
        {
            "observation_id": random.permutation(rows),
            "kind": random.choice(["profile", "underway"], rows),
            "longitude": random.uniform(-180, 180, rows).round(2),
            "latitude": random.uniform(-90, 90, rows).round(2),
            "time": day + random.choice([0, 1, 86399], rows).astype("timedelta64[s]"),
        }
    )
    for name in ("temperature", "chlorophyll"):
        table[name] = random.normal(size=rows).astype(np.float32)
        table[f"{name}_qc"] = random.integers(1, 5, rows).astype(np.int8)
    folder = tmp_path_factory.mktemp("globe") / "globe.parquet"
    stores.write_table(table, folder, entry="globe", version="1", row_group=64)
    order = np.lexsort(
        (
            table["observation_id"],
            table["time"],
            tiles.morton_cell(table["longitude"], table["latitude"]),
            tiles.tile(table["longitude"], table["latitude"]),
        )
    )
    # Tiles are read in the order of their names.
    sorted_ = table.iloc[order]
    name = [f"tile={t}" for t in tiles.tile(sorted_["longitude"], sorted_["latitude"])]
    return folder, sorted_.iloc[np.argsort(name, kind="stable")].reset_index(drop=True)


@pytest.fixture
def damaged(demo_lake, tmp_path, monkeypatch):
    """A copy of one store as the lake of this test: damaged("ocean/baltic.zarr") -> its folder."""

    def copy(path):
        shutil.copytree(demo_lake / path, tmp_path / "lake" / path)
        monkeypatch.setenv("PHIDIAS_LAKE", str(tmp_path / "lake"))
        return tmp_path / "lake" / path

    return copy


def boxes(west=(-180, 300), south=(-90, 89)):
    west, south = (st.floats(*b).map(lambda v: round(v, 2)) for b in (west, south))
    return st.tuples(west, south, st.floats(0.01, 60), st.floats(0.01, 30)).map(
        lambda b: [b[0], b[1], round(b[0] + b[2], 3), min(round(b[1] + b[3], 3), 90)]
    )


def periods():
    day = st.dates(pd.Timestamp("2009-06-01").date(), pd.Timestamp("2016-06-01").date())
    return st.tuples(day, day).map(lambda d: [min(d).isoformat(), max(d).isoformat()])


variables = st.sampled_from(["all", "temperature", "chlorophyll"])


class TestCutting:
    @FEW
    @given(region=st.none() | boxes(), time=st.none() | periods(), variable=variables)
    def test_a_cut_table_is_the_whole_table_filtered(self, globe, region, time, variable):
        folder, table = globe
        keep = np.ones(len(table), bool)
        if region:
            # On whichever turn: a box that begins before or ends behind the date line takes places from both sides.
            lon = np.stack([table["longitude"] + turn for turn in (-360, 0, 360)])
            keep &= ((lon >= region[0]) & (lon <= region[2])).any(axis=0)
            keep &= table["latitude"].between(region[1], region[3])
        if time:
            keep &= (table["time"] >= time[0]) & (table["time"] < pd.Timestamp(time[1]) + pd.Timedelta("1D"))
        expected = table[keep].reset_index(drop=True)
        if variable != "all":
            other = {"temperature": "chlorophyll", "chlorophyll": "temperature"}[variable]
            expected = expected.drop(columns=[other, f"{other}_qc"])
        source = drivers.Table(path=str(folder), region=region, time=time, variable=variable)
        pd.testing.assert_frame_equal(source.read(), expected)
        with dask.config.set(scheduler="synchronous"):
            pd.testing.assert_frame_equal(source.to_dask().compute().reset_index(drop=True), expected)

    def test_lazy_and_read_agree_in_every_column(self, demo_lake):
        asked = {"region": "-20,40,-5,50", "time": "2012-01-01/2012-12-31"}
        lazy = catalog.open_entry("ocean.observations", asked)[0].compute()
        found = catalog.source("ocean.observations", asked).read()
        assert len(found) > 1000
        pd.testing.assert_frame_equal(lazy.reset_index(drop=True), found)
        assert lazy.attrs == found.attrs

    @FEW
    @given(region=st.none() | boxes((0, 35), (45, 68)), time=st.none() | periods(), variable=variables)
    def test_a_cut_cube_is_the_whole_cube_filtered(self, demo_lake, whole, region, time, variable):
        cube = whole[1]
        if region:
            cube = cube.sel(longitude=slice(region[0], region[2]), latitude=slice(region[1], region[3]))
        if time:
            cube = cube.sel(time=slice(*time))
        if variable != "all":
            cube = cube.drop_vars(set(cube.data_vars) - {variable})
        lazy, _ = catalog.open_entry("ocean.truth_baltic", {"region": region, "time": time, "variable": variable})
        assert lazy.identical(cube)

    def test_the_same_place_is_found_on_any_turn(self, demo_lake):
        here = catalog.source("ocean.observations", {"region": "-12,45,-8,48"}).read()
        there = catalog.source("ocean.observations", {"region": "348,45,352,48"}).read()
        assert len(here) > 100
        pd.testing.assert_frame_equal(here, there)
        cube = catalog.source("ocean.north_east_atlantic", {"region": "348,45,352,48"}).read()
        assert cube["longitude"].values.tolist() == [-12 + 0.5 * k for k in range(9)]

    def test_an_end_with_a_time_of_day_is_a_moment(self, demo_lake, whole):
        moment = whole[0]["time"].iloc[1000].isoformat()
        found = catalog.source("ocean.observations", {"time": f"{moment}/{moment}"}).read()
        assert set(found["time"]) == {pd.Timestamp(moment)}

    def test_a_place_without_data_gives_an_empty_table_with_all_columns(self, demo_lake, whole):
        for asked in ({"region": "100,-50,110,-40"}, {"time": "1990-01-01/1990-12-31"}):
            lazy, _ = catalog.open_entry("ocean.observations", asked)
            empty = lazy.compute()
            assert len(empty) == 0
            assert list(empty.columns) == list(whole[0].columns)
            assert (empty.dtypes == whole[0].dtypes).all()

    def test_a_small_box_reads_a_small_part_of_the_table(self, demo_lake):
        lazy, _ = catalog.open_entry("ocean.observations", {"region": "-12,45,-10,47"})
        every, _ = catalog.open_entry("ocean.observations")
        assert lazy.npartitions < every.npartitions / 3

    def test_columns_that_are_not_used_are_not_read(self, demo_lake):
        lazy, _ = catalog.open_entry("ocean.observations")
        graph = lazy[["depth"]].optimize()
        assert "'depth'" in str(graph.expr.operands)
        assert list(graph.compute().columns) == ["depth"]


class TestBounds:
    @pytest.mark.parametrize("asked", [{}, {"variable": "oxygen"}, {"time": "2011-03-01/2011-05-31"}], ids=str)
    def test_a_cube_keeps_the_bounds_of_its_times(self, demo_lake, asked):
        cube, _ = catalog.open_entry("ocean.truth_baltic", asked)
        bounds = cube["time_bounds"].values
        assert bounds.shape == (cube.sizes["time"], 2)
        assert (bounds[:, 0] < cube["time"].values).all()
        assert (cube["time"].values < bounds[:, 1]).all()


class TestLaziness:
    def test_opening_a_cube_reads_no_chunk_of_its_variables(self, damaged):
        store = damaged("ocean/truth_north_east_atlantic.zarr")
        chunks = [f for name in ("temperature", "salinity") for f in (store / name / "c").rglob("*") if f.is_file()]
        assert len(chunks) == 24
        for chunk in chunks:
            chunk.write_bytes(b"\0" * chunk.stat().st_size)
        data, _ = catalog.open_entry("ocean.truth_north_east_atlantic")
        assert data["temperature"].shape == (72, 9, 51, 65)
        with pytest.raises(InputError, match="has changed"):
            data["temperature"].isel(time=0).compute()

    def test_opening_a_table_reads_only_the_footers(self, damaged):
        store = damaged("ocean/observations.parquet")
        for file in store.rglob("*.parquet"):
            content = bytearray(file.read_bytes())
            footer = int.from_bytes(content[-8:-4], "little") + 8
            content[4 : len(content) - footer] = bytes(len(content) - footer - 4)
            file.write_bytes(content)
        lazy, _ = catalog.open_entry("ocean.observations", {"time": "2011-01-01/2012-01-01"})
        assert lazy.npartitions > 3
        with pytest.raises(InputError, match=r"ocean\.observations"):
            lazy.compute()

    def test_lazy_data_travel_to_other_processes(self, demo_lake, whole):
        cube, _ = catalog.open_entry("ocean.truth_baltic")
        again = pickle.loads(pickle.dumps(cube))  # noqa: S301 - our own bytes
        assert again["oxygen"].isel(time=3).identical(whole[1]["oxygen"].isel(time=3))
        table, _ = catalog.open_entry("ocean.observations", {"region": "10,54,12,58"})
        with dask.config.set(scheduler="processes", num_workers=1):
            assert len(table.compute()) > 100

    def test_a_source_of_intake_can_be_pickled(self, demo_lake):
        source = catalog.source("ocean.observations", {"variable": "oxygen"})
        again = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes
        assert "oxygen" in again.to_dask().columns
        assert "salinity" not in again.to_dask().columns


class TestDamage:
    CHUNK = "temperature/c/3/0/0/0"

    def test_an_intact_store_is_verified(self, demo_lake):
        found = catalog.verify("ocean.truth_baltic")
        assert found["files"] == 85
        assert found["bytes"] == sum(
            f.stat().st_size
            for f in (demo_lake / "ocean/truth_baltic.zarr").rglob("*")
            if f.is_file() and f.name != manifest.NAME
        )

    def test_a_missing_chunk_is_said_at_opening(self, damaged):
        (damaged("ocean/truth_baltic.zarr") / self.CHUNK).unlink()
        with pytest.raises(InputError, match=f"{self.CHUNK} is missing.*build-demo"):
            catalog.open_entry("ocean.truth_baltic")

    def test_a_chunk_that_vanishes_after_opening_is_not_read_as_missing_values(self, damaged):
        store = damaged("ocean/truth_baltic.zarr")
        data, _ = catalog.open_entry("ocean.truth_baltic")
        (store / self.CHUNK).unlink()
        assert np.isfinite(data["temperature"].isel(time=0)).any().compute()
        with pytest.raises(InputError, match=f"{self.CHUNK} is missing"):
            data["temperature"].isel(time=20).compute()

    def test_a_truncated_chunk_is_said_at_opening(self, damaged):
        chunk = damaged("ocean/truth_baltic.zarr") / self.CHUNK
        chunk.write_bytes(chunk.read_bytes()[:-7])
        with pytest.raises(InputError, match="bytes instead of"):
            catalog.open_entry("ocean.truth_baltic")

    @pytest.mark.parametrize("at", [0.0, 0.5, 0.9999])
    def test_a_flipped_bit_is_never_read_as_data(self, damaged, at):
        store = damaged("ocean/truth_baltic.zarr")
        self.flip(store / self.CHUNK, at)
        data, _ = catalog.open_entry("ocean.truth_baltic")
        with pytest.raises(InputError, match=self.CHUNK):
            data["temperature"].isel(time=20).compute()
        with pytest.raises(InputError, match=self.CHUNK):
            catalog.verify("ocean.truth_baltic")
        # A reader that knows nothing of the manifest meets the checksum of the chunk.
        plain = xr.open_zarr(store, consolidated=False)
        with pytest.raises(InputError, match="damaged"), unreadable.errors_of_reading("the store"):
            plain["temperature"].isel(time=20).compute()

    @staticmethod
    def flip(file, at):
        content = bytearray(file.read_bytes())
        content[int(at * (len(content) - 1))] ^= 0x10
        file.write_bytes(content)

    def test_damaged_metadata_are_said(self, damaged):
        store = damaged("ocean/baltic.zarr")
        text = (store / "mask/zarr.json").read_text()
        (store / "mask/zarr.json").write_text(text.replace('"int8"', '"int7"'))
        with pytest.raises(InputError, match=r"mask/zarr\.json has changed"):
            catalog.open_entry("ocean.baltic")

    def test_a_damaged_manifest_is_said(self, damaged):
        store = damaged("ocean/baltic.zarr")
        (store / manifest.NAME).write_text("{}")
        with pytest.raises(InputError, match="is damaged"):
            catalog.open_entry("ocean.baltic")

    def test_a_truncated_table_is_said_at_opening(self, damaged):
        file = next(damaged("ocean/observations.parquet").rglob("*.parquet"))
        file.write_bytes(file.read_bytes()[: -(2**16)])
        with pytest.raises(InputError, match="bytes instead of"):
            catalog.open_entry("ocean.observations")

    def test_a_missing_tile_is_said_at_opening(self, damaged):
        shutil.rmtree(damaged("ocean/observations.parquet") / "tile=66")
        with pytest.raises(InputError, match="tile=66"):
            catalog.open_entry("ocean.observations")

    def test_a_flipped_bit_in_a_table_is_never_read_as_data(self, damaged):
        file = next(damaged("ocean/observations.parquet").rglob("*.parquet"))
        meta = pq.ParquetFile(file).metadata.row_group(0)
        column = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "longitude")
        content = bytearray(file.read_bytes())
        content[column.data_page_offset + column.total_compressed_size // 2] ^= 0x04
        file.write_bytes(content)
        for read in (catalog.source("ocean.observations").read, catalog.open_entry("ocean.observations")[0].compute):
            with pytest.raises(InputError, match=r"ocean\.observations.*build-demo"):
                read()

    def test_a_truncated_file_of_ones_own_is_said(self, tmp_path):
        frame = pd.DataFrame({"longitude": [1.0], "latitude": [2.0]})
        frame.to_parquet(tmp_path / "x.parquet")
        content = (tmp_path / "x.parquet").read_bytes()
        (tmp_path / "x.parquet").write_bytes(content[:-10])
        (tmp_path / "x.nc").write_bytes(b"CDF\x01 and no more")
        (tmp_path / "x.csv").write_text('a,b\n1,2\n3,4,5,6\n"')
        (tmp_path / "x.zarr").mkdir()
        for name in ("x.parquet", "x.nc", "x.csv", "x.zarr"):
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                catalog.open_file(tmp_path / name)

    def test_an_error_that_has_nothing_to_do_with_reading_passes_unchanged(self):
        with pytest.raises(ValueError, match="of the chain") as caught, unreadable.errors_of_reading("x"):
            raise ValueError("of the chain")
        assert not isinstance(caught.value, InputError)

    def test_a_full_disk_is_no_error_of_what_was_read_meanwhile(self):
        with pytest.raises(OSError, match="No space left") as caught, unreadable.errors_of_reading("x"):
            os.write(os.open("/dev/full", os.O_WRONLY), b"something")
        assert not isinstance(caught.value, InputError)


class TestForeignFiles:
    def test_a_netcdf_with_other_names_is_cut_by_its_standard_names(self, tmp_path):
        lon, lat = np.arange(0.0, 360, 10), np.arange(80.0, -81, -10)  # descending, 0 to 360
        data = xr.Dataset(
            {"sst": (("y", "x"), np.arange(lat.size * lon.size, dtype=float).reshape(lat.size, lon.size))},
            coords={
                "x": ("x", lon, {"standard_name": "longitude"}),
                "y": ("y", lat, {"standard_name": "latitude"}),
            },
        )
        data.to_netcdf(tmp_path / "sst.nc", engine="netcdf4")
        cut = drivers.Cube(path=str(tmp_path / "sst.nc"), region="-20,30,15,50").read()
        assert cut["x"].values.tolist() == [0, 10, 340, 350]
        assert cut["y"].values.tolist() == [50, 40, 30]
        expected = data["sst"].sel(x=[0, 10, 340, 350], y=[50, 40, 30])
        np.testing.assert_array_equal(cut["sst"], expected)

    def test_a_csv_is_cut_by_place_and_time(self, tmp_path):
        (tmp_path / "a.csv").write_text(
            "# a remark\nlon,lat,time,t\n1,50,2012-01-01T10:00:00Z,5\n2,50,2012-01-02,6\n9,50,2012-01-01,7\n"
        )
        table = drivers.Table(path=str(tmp_path / "a.csv"), region="0,40,5,60", time="2012-01-01/2012-01-01").read()
        assert table["t"].tolist() == [5]

    def test_a_table_without_places_cannot_be_cut_by_them(self, tmp_path):
        pd.DataFrame({"a": [1.0]}).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(InputError, match="longitude"):
            drivers.Table(path=str(tmp_path / "a.parquet"), region="0,0,1,1").read()

    def test_a_lake_behind_an_address_is_read_like_a_folder(self, demo_lake, monkeypatch, whole):
        import fsspec

        remote = fsspec.filesystem("memory")
        for path in ("ocean/observations.parquet", "ocean/truth_baltic.zarr"):
            remote.put(str(demo_lake / path), f"/lake/{path}", recursive=True)
        monkeypatch.setenv("PHIDIAS_LAKE", "memory://lake")
        pd.testing.assert_frame_equal(catalog.source("ocean.observations").read(), whole[0])
        cube, identity = catalog.open_entry("ocean.truth_baltic")
        assert identity["path"] == "memory://lake/ocean/truth_baltic.zarr"
        assert cube["salinity"].isel(time=5).identical(whole[1]["salinity"].isel(time=5))
        remote.rm("/lake/ocean/truth_baltic.zarr/temperature/c/0/0/0/0")
        with pytest.raises(InputError, match="is missing"):
            catalog.open_entry("ocean.truth_baltic")


class TestTiles:
    def test_known_tiles(self):
        # Row 4 from the south (30 to 60 N), column 5 (30 W to 0) and 6 (0 to 30 E).
        assert tiles.tile([-20, 20, -180, 180], [50, 50, -90, 89.9]).tolist() == [53, 54, 0, 60]

    @given(
        lon=st.floats(-180, 180, exclude_max=True),
        lat=st.floats(-90, 90),
        box=boxes(),
        turn=st.sampled_from([-360, 0, 360]),
    )
    def test_a_place_in_a_box_is_in_a_tile_of_the_box(self, lon, lat, box, turn):
        west, south, east, north = box[0] + turn, box[1], box[2] + turn, box[3]
        if drivers.in_region(np.array(lon), (west, south, east, north)) and south <= lat <= north:
            assert tiles.tile(lon, lat) in tiles.tiles_of(west, south, east, north)

    def test_the_morton_key_interleaves_the_bits(self):
        # Cells of 16 by 16 steps of 360/4096 by 180/4096 degrees share a key.
        lon, lat = -180 + 16 * 360 / 4096 * np.array([0, 1, 0, 1, 2]), -90 + 16 * 180 / 4096 * np.array([0, 0, 1, 1, 0])
        assert tiles.morton_cell(lon, lat).tolist() == [0, 1, 2, 3, 4]
        # Bit by bit, for places all over the globe.
        step = np.arange(0, 4096, 37)
        x, y = step, step[::-1]
        expected = [
            sum(((int(i) >> b & 1) << 2 * b) | ((int(j) >> b & 1) << 2 * b + 1) for b in range(12)) >> 8
            for i, j in zip(x, y, strict=True)
        ]
        found = tiles.morton_cell((x + 0.5) * 360 / 4096 - 180, (y + 0.5) * 180 / 4096 - 90)
        assert found.tolist() == expected

    def test_rows_lie_in_their_tile_sorted_by_cell_and_time(self, demo_lake):
        rows = 0
        for file in sorted((demo_lake / "ocean/observations.parquet").rglob("*.parquet")):
            part = pq.ParquetFile(file)
            table = part.read().to_pandas()
            number = int(file.parent.name.removeprefix("tile="))
            assert (tiles.tile(table["longitude"], table["latitude"]) == number).all()
            cell = tiles.morton_cell(table["longitude"], table["latitude"])
            order = np.lexsort((table["observation_id"], table["time"], cell))
            assert (np.diff(order) == 1).all()
            groups = [part.metadata.row_group(i).num_rows for i in range(part.num_row_groups)]
            assert max(groups) <= stores.ROW_GROUP
            assert part.metadata.row_group(0).column(0).compression == "ZSTD"
            rows += len(table)
        assert rows == manifest.read(str(demo_lake / "ocean/observations.parquet"))["rows"]
