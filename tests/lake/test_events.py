"""The lake's events table: what is added stands once, whoever adds it, however often, and whenever they are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from phidias_lab.errors import InputError, ParameterError, ProductError
from phidias_lab.lake import events

SQUARE = shapely.box(10, 40, 11, 41)


def found(count=1, start=0, **more):
    """What a chain gives: fires on the equator, one an hour, one degree further east each."""
    numbers = np.arange(start, start + count)
    return pd.DataFrame(
        {
            "time": np.datetime64("2022-06-01T00:00", "s") + numbers * np.timedelta64(1, "h"),
            "kind": "fire",
            "longitude": numbers % 360 - 180.0,
            "latitude": 0.0,
            **more,
        }
    )


def shaped(table, source="granule.nc", synthetic=False, chain="probe.events", run="run-1"):
    return events.shaped(table, chain=chain, run=run, product="/p", source=source, synthetic=synthetic)


def files(folder) -> list[Path]:
    return sorted(Path(folder, "events").glob("*.parquet"))


def test_events_are_read_as_they_were_added(tmp_path):
    square = shapely.box(10, 40, 11, 41)
    across = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    given = pd.DataFrame(
        {
            "time": pd.to_datetime(["2022-06-02T03:04:05.678901Z", "2022-06-01"], format="ISO8601", utc=True),
            "time_end": [pd.Timestamp("2022-06-02T04:00Z"), pd.NaT],
            "kind": ["leak", "fire"],
            "geometry": [square, across],
            "quality": [0.5, np.nan],
            "gases": [{"CO": np.float32(12.5), "unknown": np.nan}, ["CO", np.int64(3)]],
            "pixels": np.array([7, 9]),
            "missing": [np.nan, None],
        }
    )
    assert events.append(shaped(given, synthetic=True)) == 2
    table = events.read()
    assert list(table.columns) == list(events.COLUMNS)
    assert list(table["kind"]) == ["fire", "leak"]  # in the order of time
    assert table["time"][1] == pd.Timestamp("2022-06-02T03:04:05.678901")
    assert table["time_end"][0] == table["time"][0] == pd.Timestamp("2022-06-01")
    assert table["geometry"][0].equals(across)
    assert table["geometry"][1].equals(square)
    assert table["properties"][1] == {"gases": {"CO": 12.5, "unknown": None}, "pixels": 7}
    assert table["properties"][0] == {"gases": ["CO", 3], "pixels": 9}
    assert table["quality"].isna().tolist() == [True, False]
    assert table["synthetic"].all()
    assert set(table["source"]) == {"granule.nc"}
    assert (table["chain"] == "probe.events").all()


def test_the_files_are_geoparquet_that_others_read(tmp_path):
    events.append(shaped(found(2).assign(geometry=[SQUARE, shapely.Point(5, 6)])), root=str(tmp_path))
    (path,) = files(tmp_path)
    about = json.loads(pq.read_schema(path).metadata[b"geo"])
    assert (about["version"], about["primary_column"]) == ("1.1.0", "geometry")
    assert about["columns"]["geometry"]["geometry_types"] == ["Point", "Polygon"]
    assert about["columns"]["geometry"]["encoding"] == "WKB"
    rows = pq.read_table(path)
    assert about["columns"]["geometry"]["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]
    assert rows["bbox"].to_pylist()[0] == {"xmin": 10, "ymin": 40, "xmax": 11, "ymax": 41}
    assert shapely.from_wkb(rows["geometry"].to_pylist()[0]).equals(SQUARE)
    assert str(rows.schema.field("time").type) == "timestamp[us, tz=UTC]"


def test_a_table_of_nothing_is_empty_and_has_its_columns(tmp_path):
    assert events.append(shaped(found(0))) == 0
    table = events.read(region="0,0,1,1", period="2022-01-01/2022-01-02")
    assert len(table) == 0
    assert list(table.columns) == list(events.COLUMNS)
    assert table["time"].dtype.kind == "M"


def test_the_same_event_of_the_same_granule_stands_once(tmp_path):
    root = str(tmp_path)
    first = shaped(found(3))
    assert events.append(first, root) == 3
    assert events.append(shaped(found(3), run="run-2"), root) == 0
    assert events.append(shaped(found(5), run="run-2"), root) == 2
    assert events.append(shaped(found(3), source="another.nc"), root) == 3
    assert events.append(shaped(found(3), chain="probe.other"), root) == 3
    table = events.read(root=root)
    assert len(table) == len(set(table["id"])) == 11
    assert sum(table["run"] == "run-2") == 2
    # With a name of its own an event is the same one when its outline changes.
    named = found(1).assign(id="a")
    assert events.append(shaped(named), root) == 1
    assert events.append(shaped(named.assign(latitude=1.0)), root) == 0
    assert "id" not in events.read(root=root, kind="fire")["properties"].iloc[-1]


def test_events_that_two_writers_added_at_once_stand_once_as_first_recorded(tmp_path):
    first, later = shaped(found(3)), shaped(found(4), run="run-2")
    system, folder = events._place(str(tmp_path))
    for table in (later, first):  # each wrote before it could see the other's
        events._write(system, folder, events._arrow(table))
    table = events.read(root=str(tmp_path))
    assert len(files(tmp_path)) == 2
    assert list(table["run"]) == ["run-1"] * 3 + ["run-2"]


def test_filters_find_what_touches_a_region_or_a_period():
    rows = pd.DataFrame(
        {
            "time": pd.to_datetime(["2022-06-01", "2022-06-02", "2022-06-03T12:00", "2022-06-04"], format="ISO8601"),
            "time_end": pd.to_datetime(
                ["2022-06-03", "2022-06-02", "2022-06-03T13:00", "2022-06-04"], format="ISO8601"
            ),
            "kind": ["a", "b", "c", "d"],
            "geometry": [
                SQUARE,
                shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]),
                shapely.Point(-179.5, 50),
                # Its bounding box touches regions that it does not.
                shapely.Polygon([(0, 0), (30, 0), (30, 30), (29, 1), (0, 1)]),
            ],
        }
    )
    events.append(shaped(rows))

    def kinds(**chosen):
        return "".join(events.read(**chosen)["kind"])

    assert kinds(region="170,-5,190,60") == "bc"
    assert kinds(region=[-180, -5, -170, 60]) == "bc"
    assert kinds(region="185,-5,190,60") == ""
    assert kinds(region="0,10,12,45") == "a"
    assert kinds(region="28,10,40,45") == "d"
    assert kinds(period="2022-06-02/2022-06-02") == "ab"
    assert kinds(period="2022-06-03/2022-06-03") == "ac"
    assert kinds(period=["2022-06-03T12:30", "2022-06-05"]) == "cd"
    assert kinds(period="2021-01-01/2021-12-31") == ""
    assert kinds(kind="b") == "b"
    assert kinds(kind=["b", "d"], period="2022-06-03/2022-06-05") == "d"
    assert kinds(chain="probe.events") == "abcd"
    assert kinds(chain="x") == ""
    with pytest.raises(ParameterError, match="south below north"):
        events.read(region="0,10,1,-10")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"a": 1}, "returned a dict"),
        (found(1).drop(columns="time"), "no column 'time'"),
        (found(1).drop(columns="kind"), "no column 'kind'"),
        (found(1).drop(columns="latitude"), "neither 'geometry' nor"),
        (found(1).assign(time=pd.NaT), "without a time"),
        (found(1).assign(time_end=np.datetime64("2000-01-01")), "ends before it begins"),
        (found(1).assign(kind=" \n"), "of no kind"),
        (found(1).assign(longitude=181.0), "not within -180..180"),
        (found(1).assign(latitude=np.nan), "empty or not within"),
        (found(1).assign(geometry="POINT (1 1)"), "not shapely's"),
        (found(1).assign(geometry=[shapely.Polygon()]), "empty or not within"),
        (found(1).assign(geometry=[shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])]), "crosses itself"),
    ],
)
def test_what_is_no_event_is_the_chains_error_by_name(table, words):
    with pytest.raises(ParameterError, match=words) as said:
        shaped(table)
    assert "probe.events.events()" in str(said.value)


def test_only_events_of_the_form_of_the_table_are_added(tmp_path):
    with pytest.raises(ParameterError, match=r"flow\.events"):
        events.append(found(1))
    assert not files(tmp_path)


def test_many_small_files_become_few_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "MANY", 10)
    root = str(tmp_path)
    for hour in range(25):
        assert events.append(shaped(found(1, start=hour)), root) == 1
    assert len(files(tmp_path)) < 12
    before = events.read(root=root)
    assert len(before) == 25
    assert events.compact(root) > 1
    assert len(files(tmp_path)) == 1
    assert events.compact(root) == 0
    pd.testing.assert_frame_equal(events.read(root=root), before)
    # What a compaction that was killed before it removed the old files leaves.
    events.append(shaped(found(1, start=50)), root)
    (old, new) = files(tmp_path)
    copies = {path: path.read_bytes() for path in (old, new)}
    events.compact(root)
    for path, content in copies.items():
        path.write_bytes(content)
    assert len(files(tmp_path)) == 3
    assert len(events.read(root=root)) == 26
    # A large file is left as it is.
    monkeypatch.setattr(events, "SMALL", 1)
    assert events.compact(root) == 0


def test_an_unfinished_file_is_not_read_and_goes_when_its_writer_is_long_gone(tmp_path):
    root = str(tmp_path)
    events.append(shaped(found(1)), root)
    events.append(shaped(found(2)), root)
    fresh, stale = (tmp_path / "events" / f".{name}.partial" for name in "ab")
    for path in (fresh, stale):
        path.write_bytes(b"PAR1")
    os.utime(stale, (0, 0))
    (tmp_path / "events" / "notes.txt").write_text("mine")
    assert len(events.read(root=root)) == 2
    events.compact(root)
    assert fresh.exists()
    assert not stale.exists()
    assert (tmp_path / "events" / "notes.txt").exists()


def test_a_damaged_file_is_said(tmp_path):
    events.append(shaped(found(1)), str(tmp_path))
    files(tmp_path)[0].write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="events table"):
        events.read(root=str(tmp_path))


def test_a_table_that_cannot_be_written_is_said(small_disk):
    (small_disk / "full").write_bytes(b"x" * (4 * 2**20 - 8192))
    with pytest.raises(ProductError, match="No space left"):
        events.append(shaped(found(2000, note="much")), str(small_disk))
    assert [p.name for p in (small_disk / "events").iterdir()] == []


def test_a_lake_at_an_address_holds_events_too():
    root = "memory://lake-of-events"
    assert events.append(shaped(found(2)), root) == 2
    assert events.append(shaped(found(3)), root) == 1
    assert len(events.read(root=root)) == 3
    assert events.compact(root) == 0


def test_many_writers_readers_and_mergers_at_once_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "MANY", 5)
    root, seen = str(tmp_path), []

    def write(number):
        for hour in range(10):
            events.append(shaped(found(2, start=10 * number + hour)), root)  # each is also written by a neighbour

    def look(_):
        for _ in range(20):
            seen.append(len(events.read(root=root)))

    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(lambda job: job[0](job[1]), [(write, 0), (look, 0), (write, 1), (write, 1), (look, 1), (write, 2)])
        )
    assert len(events.read(root=root)) == 31
    assert max(seen) <= 31


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
import test_events
from phidias_lab.lake import events
events.MANY = 4
print("go", flush=True)
for hour in range({start}, 10000):
    events.append(test_events.shaped(test_events.found(1, start=hour)), {root!r})
    print(hour, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_said_it_had_added(tmp_path):
    said = 0
    chance = random.Random(5)
    for _ in range(4):
        code = _WRITER.format(tests=str(Path(__file__).parent), root=str(tmp_path), start=said)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "go\n"
        said = [int(process.stdout.readline()) + 1 for _ in range(chance.randint(2, 9))][-1]
        time.sleep(0.05 * chance.random())
        os.kill(process.pid, signal.SIGKILL)
        lines = process.stdout.read().split("\n")
        process.wait()
        process.stdout.close()
        said = max([said, *(int(line) + 1 for line in lines[:-1])])
        table = events.read(root=str(tmp_path))
        assert len(table) == len(set(table["id"]))
        assert len(table) in (said, said + 1)  # killed between the file and the word
    assert events.append(shaped(found(said)), str(tmp_path)) == 0
