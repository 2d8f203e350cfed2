"""What gridding reads of a large lake, what it refuses before it reads, and what its runs are called."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import phidias_lab
from phidias_lab.compute import runs
from phidias_lab.contract.data import extent
from phidias_lab.lake import catalog

SMALL = {"depths": [0], "period": ["2012-01-01", "2012-03-31"], "region": [-20, 40, -10, 50], "error": "none"}


@pytest.fixture
def own_lake(demo_lake, tmp_path, monkeypatch):
    """A copy of the demo lake that a test may damage."""
    shutil.copytree(demo_lake, tmp_path / "own-lake")
    monkeypatch.setenv("PHIDIAS_LAKE", str(tmp_path / "own-lake"))
    return tmp_path / "own-lake"


def gridding(**parameters):
    return phidias_lab.chain("ocean.gridding")(**parameters)


def opened(needs=None):
    observations, _ = catalog.open_entry("ocean.observations", {}, needs)
    return {"observations": observations, "domain": catalog.open_entry("ocean.north_east_atlantic")[0]}


@pytest.mark.parametrize(
    "parameters",
    [
        SMALL,
        {**SMALL, "depths": [10, 20], "vertical_length": 50.0},
        {**SMALL, "region": [340, 40, 350, 50], "variable": "salinity"},
        {**SMALL, "depths": [0, 200], "period": None, "windows": "yearly"},
    ],
)
def test_only_the_rows_that_matter_are_read_and_the_numbers_are_the_same_to_the_last_bit(demo_lake, parameters):
    chain = gridding(**parameters)
    whole = opened()
    needs = chain.needs(chain.checked(whole))["observations"]
    part = opened(needs)
    columns = ["longitude", "latitude", "depth", "time", chain.variable, "platform", f"{chain.variable}_qc"]
    assert sorted(part["observations"].columns) == sorted(columns)
    assert len(part["observations"]) < len(whole["observations"]) / 4
    assert part["observations"].npartitions <= whole["observations"].npartitions
    one, other = (chain(**inputs).load() for inputs in (whole, part))
    assert one.identical(other)
    assert int(one["observations_used"].sum()) > 20


def spoil_what_is_not_needed(store, needs) -> tuple[int, int]:
    """Overwrite each column chunk that cannot matter; gives how many bytes of values that were, and how many there are."""
    spoiled = total = 0
    for path in store.rglob("*.parquet"):
        if not path.is_file():
            continue
        content, metadata = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunks = {c.path_in_schema: c for c in (group.column(k) for k in range(group.num_columns))}
            outside = any(
                not any(chunks[n].statistics.min <= high and low <= chunks[n].statistics.max for low, high in intervals)
                for n, intervals in needs.ranges.items()
                if n != "time"
            )
            for name, chunk in chunks.items():
                total += chunk.total_compressed_size
                if outside or name not in needs.columns:
                    start = chunk.dictionary_page_offset or chunk.data_page_offset
                    content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
                    spoiled += chunk.total_compressed_size
        path.write_bytes(content)
    return spoiled, total


def test_a_run_does_not_touch_what_it_does_not_need(own_lake):
    first = phidias_lab.run("ocean.gridding", **SMALL)
    assert first.wait(120) == runs.DONE, first.log
    chain = gridding(**SMALL)
    needs = chain.needs(chain.checked(opened()))["observations"]
    spoiled, total = spoil_what_is_not_needed(own_lake / "ocean" / "observations.parquet", needs)
    assert spoiled > 0.7 * total
    second = phidias_lab.run("ocean.gridding", **SMALL)
    assert second.wait(120) == runs.DONE, second.log
    assert second.product.checksums == first.product.checksums


def test_columns_in_other_units_are_not_cut_by_their_stored_numbers(demo_lake, tmp_path):
    from phidias_lab.lake import memory

    table = opened()["observations"].compute()
    attrs = table.attrs
    table = table.assign(depth=table["depth"] / 1000)
    table.attrs = {**attrs, "columns": {**attrs["columns"], "depth": {**attrs["columns"]["depth"], "units": "km"}}}
    path = memory.store(table, tmp_path, "kilometres")
    parameters = {**SMALL, "depths": [200]}
    metres = phidias_lab.run("ocean.gridding", **parameters)
    kilometres = phidias_lab.run("ocean.gridding", inputs={"observations": path}, **parameters)
    assert [r.wait(120) for r in (metres, kilometres)] == [runs.DONE] * 2, kilometres.log
    used = [int(r.result()["observations_used"].sum()) for r in (metres, kilometres)]
    assert used[0] == used[1] > 0


def test_a_table_of_the_lake_tells_between_what_its_columns_lie_without_being_read(demo_lake):
    observations = opened()["observations"]
    values = observations.compute()
    for column in ("longitude", "latitude", "depth", "time", "temperature"):
        low, high = extent(observations, column)
        found = values[column].dropna()
        assert pd.Series([low, found.min(), found.max(), high]).is_monotonic_increasing
    assert extent(observations, "platform") is None
    assert extent(values, "depth") == (values["depth"].min(), values["depth"].max())
    assert extent(values.assign(depth=np.nan), "depth") is None


@pytest.mark.parametrize(
    ("parameters", "title"),
    [
        ({}, "Temperature, 0–2000 m, 2010–2015, North-East Atlantic (synthetic)"),
        (
            {"windows": "seasonal", "variable": "salinity", "period": ["2010-01-01", "2012-12-31"], "depths": [10]},
            "Salinity, 10 m, seasonal, 2010–2012, North-East Atlantic (synthetic)",
        ),
        (SMALL, "Temperature, 0 m, 2012-01-01 to 2012-03-31, 20°W to 10°W, 40°N to 50°N (synthetic)"),
        (
            {"region": [-5, 45, 2, 60], "depths": [0]},
            "Temperature, 0 m, 2010–2015, 5°W to 2°E, 45°N to 60°N (synthetic)",
        ),
    ],
)
def test_a_run_is_called_by_what_it_maps_when_where_and_how_deep(demo_lake, parameters, title):
    chain = gridding(**parameters)
    assert chain.titled(chain.checked(opened())) == title


def test_a_map_of_all_seasons_says_so_in_its_log(demo_lake):
    said = []

    def told(**parameters):
        chain = gridding(**{**SMALL, **parameters})
        chain.report = lambda fraction, message="": said.append(message)
        said.clear()
        chain(**opened())
        return any("go into one map" in m and "--windows seasonal" in m for m in said)

    assert told(period=["2012-01-01", "2012-12-31"])
    assert told(period=None)
    assert not told()
    assert not told(period=["2012-01-01", "2012-12-31"], windows="seasonal")
