"""`phidias lake` and `phidias catalog` on a demo lake that was really built."""

from __future__ import annotations

import json
import shutil

import pytest

from phidias_lab.services.command_line import main


@pytest.fixture
def lake(inside, demo_lake_folder, tmp_path, monkeypatch):
    """A lake of this test's own, which it may damage."""
    shutil.copytree(demo_lake_folder, tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def said(capsys):
    """``said("lake", "where")`` gives what the command printed; it has to succeed."""

    def call(*words):
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    return call


def test_the_lake_tells_where_it_is(lake, said):
    assert said("lake", "where").strip() == str(lake)


def test_building_again_leaves_what_is_intact(lake, said):
    before = {p: p.stat().st_mtime_ns for p in lake.rglob("*") if p.is_file()}
    assert "synthetic" in said("lake", "build-demo", "--only", "ocean", "--quiet")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_an_unknown_part_of_the_demo_is_refused(inside, capsys):
    assert main(["lake", "build-demo", "--only", "ocan"]) == 2
    assert "Did you mean 'ocean'?" in capsys.readouterr().err


def test_a_damaged_entry_is_found_and_named(lake, said, capsys):
    assert "as it was written" in said("lake", "verify")
    assert "ocean.observations is as it was written" in said("lake", "verify", "ocean.observations")
    store = lake / "ocean" / "observations.parquet"
    damaged = max((p for p in [store, *store.rglob("*")] if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert main(["lake", "verify"]) == 3
    shown = capsys.readouterr()
    assert "1 of " in shown.err
    assert "ocean.observations" in shown.err
    assert "is damaged" in shown.out
    assert main(["lake", "verify", "ocean.observations"]) == 3


def test_an_entry_of_the_users_own_is_not_advised_to_be_built_with_the_demo(inside, said, capsys, tmp_path):
    (tmp_path / "points.csv").write_text("longitude,latitude,value\n1,50,3\n")
    said("catalog", "add", "points.csv")
    assert main(["lake", "verify", "mine.points"]) == 3
    error = capsys.readouterr().err
    assert "points.csv has no checksums beside it, so it cannot be verified: only data of the lake have them" in error
    assert "'phidias rerun' compares" in error
    assert "build-demo" not in error


def test_a_damaged_store_outside_the_lake_is_to_be_put_back(lake, said, capsys, tmp_path):
    store = tmp_path / "elsewhere" / "truth.zarr"
    shutil.copytree(lake / "ocean" / "truth_baltic.zarr", store)
    said("catalog", "add", str(store), "--name", "copy")
    assert "mine.copy is as it was written" in said("lake", "verify", "mine.copy")
    next(store.rglob("c/0/0/0/0")).unlink()
    assert main(["lake", "verify", "mine.copy"]) == 3
    error = capsys.readouterr().err
    assert "is missing. It lies outside the lake: put it back from where you have it" in error
    assert "build-demo" not in error


def test_entries_are_listed_and_shown_with_variables_and_units(lake, said):
    assert "ocean.observations" in said("catalog", "list")
    listed = {entry["address"]: entry for entry in json.loads(said("catalog", "list", "--json"))}
    assert listed["ocean.observations"]["synthetic"] is True
    shown = said("catalog", "show", "ocean.observations")
    for word in ("synthetic", "temperature", "degree_Celsius", "Cut to a box"):
        assert word in shown


def test_a_file_becomes_an_entry_and_leaves_again(inside, said, capsys, tmp_path):
    (tmp_path / "mine here.csv").write_text("longitude,latitude,value\n1,50,3\n")
    assert "Added mine.mine_here" in said("catalog", "add", "mine here.csv")
    assert "mine.mine_here" in said("catalog", "list")
    assert main(["catalog", "add", "mine here.csv"]) == 2
    assert "replace it with --replace" in capsys.readouterr().err
    said("catalog", "add", "mine here.csv", "--replace", "--description", "My own points")
    assert "My own points" in said("catalog", "show", "mine.mine_here")
    said("catalog", "remove", "mine.mine_here")
    assert "mine.mine_here" not in said("catalog", "list")
    assert (tmp_path / "mine here.csv").exists()


def test_names_and_units_of_columns_are_given_on_the_command_line(inside, said, capsys, tmp_path):
    (tmp_path / "casts.csv").write_text("lon,lat,a=b\n1,50,3\n")
    words = ["--column", "lon=longitude", "--column", "a=b=temperature", "--units", "temperature=K"]
    said("catalog", "add", "casts.csv", *words, "--standard-name", "temperature=sea_water_temperature")
    found = json.loads(said("catalog", "show", "mine.casts", "--json"))["variables"]
    assert found["temperature"] == {"units": "K", "standard_name": "sea_water_temperature"}
    assert list(found) == ["longitude", "lat", "temperature"]
    for wrong, expected in (
        (["--column", "lon"], "as in lon=longitude"),
        (["--units", "=K"], "as in temperature=degree_Celsius"),
        (["--column", "lon=a", "--column", "lon=b"], "given twice for 'lon'"),
    ):
        assert main(["catalog", "add", "casts.csv", "--replace", *wrong]) == 2
        assert expected in capsys.readouterr().err


def test_a_file_that_is_not_there_or_not_readable_is_no_entry(inside, capsys, tmp_path):
    (tmp_path / "broken.nc").write_bytes(b"no netCDF at all")
    for name in ("nothing.nc", "broken.nc", "text.docx"):
        assert main(["catalog", "add", name]) == 3
        shown = capsys.readouterr().err
        assert shown.startswith("Error: ")
        assert name in shown
