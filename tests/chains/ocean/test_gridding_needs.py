"""What gridding reads of a large lake, what it refuses before it reads, and what its runs are called."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import phidias_lab
from phidias_lab.compute import runs
from phidias_lab.contract.data import extent
from phidias_lab.errors import InputError
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


def opened(needs=None, entry="ocean.observations", **of_the_entry):
    observations, _ = catalog.open_entry(entry, of_the_entry, needs)
    return {"observations": observations, "domain": catalog.open_entry("ocean.north_east_atlantic")[0]}


def whole_and_part(chain, entry="ocean.observations", **of_the_entry):
    """The inputs as they are, and as the worker opens them: what is not needed is left out."""
    whole = opened(None, entry, **of_the_entry)
    checked = chain.checked(whole)
    needs = chain.needs(checked)["observations"].unconverted(whole["observations"], checked["observations"])
    return whole, opened(needs, entry, **of_the_entry)


def without_words(result):
    """The result without what it says of how it was read, and that: its counts of the observations."""
    said = json.loads(result.attrs["phidias_said"])
    rest = {name: value for name, value in result.attrs.items() if name not in ("comment", "phidias_said")}
    return result.drop_attrs(deep=False).assign_attrs(rest), said["counts"]["observations"], said["warnings"]


UNREAD = "not in the grid, levels and period"


def assert_same_numbers(chain, whole, part):
    """Map, number of observations and number used are the same, and each observation is counted once, on both ways."""
    (one, all_read, warned), (other, some_read, warned_too) = (without_words(chain(**i).load()) for i in (whole, part))
    assert one.identical(other)
    assert warned == warned_too
    assert all_read["total"] == some_read["total"]
    assert all_read["used"] == some_read["used"] > 0
    for counts in (all_read, some_read):
        assert counts["used"] + sum(counts["left_out"].values()) == counts["total"]
    assert UNREAD not in all_read["left_out"]
    for reason, number in some_read["left_out"].items():
        assert reason == UNREAD or number <= all_read["left_out"][reason]
    if chain.vertical_length == 0:
        assert int(other["observations_used"].sum()) == some_read["used"]
    return all_read, some_read


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
    whole, part = whole_and_part(chain)
    columns = ["longitude", "latitude", "depth", "time", chain.variable, "platform", f"{chain.variable}_qc"]
    assert sorted(part["observations"].columns) == sorted(columns)
    assert len(part["observations"]) < len(whole["observations"]) / 4
    assert part["observations"].npartitions <= whole["observations"].npartitions
    counts, _ = assert_same_numbers(chain, whole, part)
    assert counts["total"] == len(whole["observations"])
    assert counts["used"] > 20


@pytest.mark.parametrize(
    "of_the_entry",
    [
        {"region": "-30.3,30,-8.7,52.2"},
        {"time": "2011-06-15/2012-02-10"},
        {"region": "-30.3,30,-8.7,52.2", "time": "2011-06-15/2012-02-10", "variable": "temperature"},
    ],
)
def test_what_an_entry_leaves_out_itself_is_no_observation_of_the_run(demo_lake, of_the_entry):
    chain = gridding(**SMALL)
    whole, part = whole_and_part(chain, **of_the_entry)
    counts, _ = assert_same_numbers(chain, whole, part)
    assert counts["total"] == len(whole["observations"]) < 259374 / 2


def own_entry(tmp_path, change, **words):
    """The observations of the demo lake as an entry of one's own, in several row groups, after a change."""
    table = change(opened()["observations"].compute())
    table.attrs = {}
    path = tmp_path / "own.parquet"
    table.sort_values("time" if "time" in table else "DATE").to_parquet(path, index=False, row_group_size=20_000)
    return catalog.add(path, "own", **words)


NAMES = {"LON": "longitude", "LAT": "latitude", "DEP": "depth", "DATE": "time", "TEMP": "temperature"}


def renamed(table):
    back = {new: old for old, new in NAMES.items()}
    return table[["platform", "temperature_qc", *back]].rename(columns={**back, "temperature_qc": "FLAG"})


def test_columns_of_other_names_are_cut_by_their_names_in_the_file(demo_lake, tmp_path):
    names = {**NAMES, "FLAG": "temperature_qc"}
    entry = own_entry(tmp_path, renamed, columns=names, units={"temperature": "degree_Celsius"})
    chain = gridding(**SMALL)
    whole, part = whole_and_part(chain, entry)
    assert set(part["observations"].columns) == {*NAMES.values(), "platform", "temperature_qc"}
    assert part["observations"].npartitions < whole["observations"].npartitions / 2
    _, counts = assert_same_numbers(chain, whole, part)
    assert counts["left_out"][UNREAD] > 0.9 * counts["total"]
    depth = whole["observations"]["depth"].compute()
    assert extent(whole["observations"], "depth") == (depth.min(), depth.max())


def test_columns_of_other_names_and_units_are_cut_only_where_their_numbers_are_the_declared_ones(demo_lake, tmp_path):
    def change(table):
        table = renamed(table)
        return table.assign(DEP=table["DEP"] / 1000, TEMP=table["TEMP"] + 273.15)

    names = {**NAMES, "FLAG": "temperature_qc"}
    entry = own_entry(tmp_path, change, columns=names, units={"depth": "km", "temperature": "K"})
    chain = gridding(**{**SMALL, "depths": [200]})
    counts, some_read = assert_same_numbers(chain, *whole_and_part(chain, entry))
    plain, _ = assert_same_numbers(chain, *whole_and_part(chain))
    assert counts == plain
    # Kilometres are not cut by intervals of metres, so levels have a reason of their own; places and times are cut.
    assert some_read["left_out"]["between or beyond the levels"] > 0 < some_read["left_out"][UNREAD]
    assert catalog.look({"entry": entry}).attrs["columns"]["depth"]["units"] == "km"


def test_times_that_are_texts_are_not_cut_by_the_period(demo_lake, tmp_path):
    entry = own_entry(tmp_path, lambda table: table.assign(time=table["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")))
    chain = gridding(**SMALL)
    counts, some_read = assert_same_numbers(chain, *whole_and_part(chain, entry))
    assert some_read["left_out"]["outside the period"] > 0 < some_read["left_out"][UNREAD]
    assert counts["used"] == assert_same_numbers(chain, *whole_and_part(chain))[0]["used"]


def test_depths_of_the_wrong_sign_and_missing_places_are_counted_when_only_a_part_is_read(demo_lake, tmp_path):
    def change(table):
        table = table.copy()
        table.iloc[::7, table.columns.get_loc("depth")] *= -1
        table.iloc[3::7, table.columns.get_loc("latitude")] = np.nan
        return table

    chain = gridding(**{**SMALL, "depths": [10]})
    all_read, some_read = assert_same_numbers(chain, *whole_and_part(chain, own_entry(tmp_path, change)))
    assert all_read["left_out"]["without value or place"] > 1000
    assert (
        0 < some_read["left_out"]["impossible depth or latitude"] < all_read["left_out"]["impossible depth or latitude"]
    )


def test_a_run_that_finds_nothing_tells_the_wrong_sign_of_depths_though_it_read_few(demo_lake, tmp_path):
    def change(table):
        table = table[~table["depth"].between(4, 16)].copy()
        table.loc[table["longitude"] < -5, "depth"] *= -1
        return table

    chain = gridding(**{**SMALL, "depths": [10]})
    _, part = whole_and_part(chain, own_entry(tmp_path, change))
    with pytest.raises(InputError, match=rf"\d+ {UNREAD}.* impossible depth .*Depth counts downwards"):
        chain(**part)


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
