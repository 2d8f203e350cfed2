"""Files of observations into the lake and out again, through the command line; the files are synthetic, written here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phidias_lab import ingest as ingestion
from phidias_lab import settings
from phidias_lab.errors import InputError, ParameterError, ProductError
from phidias_lab.lake import catalog
from phidias_lab.methods.formats import flags, vocabulary
from phidias_lab.methods.formats.observations import Faults, Observations
from phidias_lab.products import observations as writers
from phidias_lab.services.command_line import main
from phidias_lab.sources import observations as readers


def synthetic(casts: int = 5, levels: int = 4, seed: int = 0, west: float = -20.0) -> Observations:
    """Synthetic profiles of temperature in the North-East Atlantic."""
    random = np.random.default_rng(seed)
    cast = np.repeat(np.arange(casts), levels)
    table = Observations(facts={"title": "Synthetic profiles", "synthetic": "true", "format": "synthetic"})
    table.add("cast", np.array([f"s{seed}-{c}" for c in cast], dtype=object), {"long_name": "cast"})
    table.add("longitude", (west + 5 * random.random(casts))[cast], dict(vocabulary.PLACES["longitude"]))
    table.add("latitude", (45 + 5 * random.random(casts))[cast], dict(vocabulary.PLACES["latitude"]))
    moments = np.datetime64("2012-03-01", "us") + (random.integers(0, 86_400, casts) * 10**6).astype("timedelta64[us]")
    table.add("time", moments[cast], dict(vocabulary.PLACES["time"]))
    table.add("depth", np.tile(np.arange(levels) * 50.0, casts), dict(vocabulary.PLACES["depth"]))
    table.add("temperature", 12 + random.random(len(cast)), vocabulary.BY_NAME["temperature"].attributes())
    table.add(
        "temperature_qc", np.where(np.arange(len(cast)) % 7 == 0, 4, 1).astype(np.int8), flags.attributes("temperature")
    )
    return table


@pytest.fixture
def files(tmp_path):
    """One synthetic file of each format, of other casts each."""
    folder = tmp_path / "files"
    folder.mkdir()
    for seed, (form, suffix) in enumerate(writers.SUFFIXES.items()):
        writers.write(synthetic(seed=seed), folder / f"{form}{suffix}", form)
    return folder


def opened(address: str) -> pd.DataFrame:
    return catalog.open_entry(address)[0].compute().sort_values("observation_id", ignore_index=True)


def folder_of_lake() -> Path:
    return Path(settings.lake_root()) / ingestion.FOLDER


def left_behind() -> list[str]:
    return sorted(p.name for p in folder_of_lake().glob("*")) if folder_of_lake().exists() else []


def test_files_of_all_formats_become_one_table_with_an_entry(files, capsys):
    assert main(["lake", "ingest", str(files), "--name", "all", "--licence", "CC-BY-4.0", "-q"]) == 0
    assert "Added mine.all: 100 observations from 5 of 5 files." in capsys.readouterr().out
    table, known = opened("mine.all"), catalog.describe("mine.all")
    assert len(table) == 100
    assert sorted(set(table["file"])) == ["argo.nc", "csv.csv", "odv.txt", "parquet.parquet", "seadatanet.nc"]
    for seed, (form, suffix) in enumerate(writers.SUFFIXES.items()):
        here, given = table[table["file"] == f"{form}{suffix}"], synthetic(seed=seed)
        for name in ("longitude", "latitude", "depth", "temperature", "temperature_qc", "cast"):
            np.testing.assert_array_equal(here[name].to_numpy(), given.columns[name], err_msg=f"{form} {name}")
        np.testing.assert_array_equal(here["time"].to_numpy("datetime64[us]"), given.columns["time"])
    assert known["units"]["temperature"] == "degree_Celsius"
    assert (known["licence"], known["synthetic"]) == ("CC-BY-4.0", True)
    assert catalog.verify("mine.all")["files"] >= 2
    assert left_behind() == [".all.lock", "all.parquet"]


def test_gridding_runs_on_what_was_read(files, demo_lake, tmp_path, capsys):
    assert main(["lake", "ingest", str(files), "--name", "all", "--folder", str(tmp_path / "here"), "-q"]) == 0
    words = ["--depths", "50", "--period", "2012-03/2012-03", "--error", "none", "--region=-25,42,-10,52", "-q"]
    assert main(["run", "ocean.gridding", "--input", "observations=mine.all", "--variable", "temperature", *words]) == 0
    assert "observations used" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["odv", "seadatanet", "argo", "csv", "parquet"])
def test_an_entry_is_written_in_any_format_and_read_again(form, files, tmp_path, capsys):
    assert main(["lake", "ingest", str(files / "odv.txt"), "--name", "one", "-q"]) == 0
    out = tmp_path / f"out{writers.SUFFIXES[form]}"
    assert main(["lake", "export", "mine.one", str(out), "--format", form]) == 0
    assert f"Wrote 20 observations as {form}" in capsys.readouterr().out
    back, given = readers.read(out, Faults()), synthetic()
    for name in given.columns:
        np.testing.assert_array_equal(back.columns[name], given.columns[name])
        assert back.attributes[name]["units" if "units" in given.attributes[name] else "long_name"]
    assert main(["lake", "export", "mine.one", str(out), "--format", form]) == 4
    assert "exists already" in capsys.readouterr().err


def test_broken_files_are_told_and_the_others_go_on(files, capsys):
    (files / "junk.nc").write_bytes(os.urandom(5000))
    whole = (files / "seadatanet.nc").read_bytes()
    (files / "cut.nc").write_bytes(whole[: len(whole) // 2])
    (files / "empty.txt").write_bytes(b"")
    text = (files / "odv.txt").read_text().splitlines()
    text[-1] += "\ttoo much"
    (files / "odd.txt").write_text("\n".join(text) + "\n")
    assert main(["lake", "ingest", str(files), "--name", "all", "-q"]) == 0
    shown = capsys.readouterr()
    assert "Added mine.all: 119 observations from 6 of 9 files." in shown.out
    for said in (
        "left out: junk.nc: it is",
        "left out: cut.nc: it cannot be read",
        "left out: empty.txt: it is empty.",
    ):
        assert said in shown.err
    line = f"odd.txt: line {len(text)}: has"
    assert f"fault: {line}" in shown.err
    assert line in (folder_of_lake() / "all.parquet" / ingestion.FAULTS).read_text()


def test_a_file_that_breaks_off_in_the_middle_leaves_none_of_its_rows(files, monkeypatch):
    monkeypatch.setattr(ingestion, "TOGETHER", 50)  # so that rows of the file are on disk before it breaks off
    good = (files / "csv.csv").read_text()
    (files / "broken.csv").write_text(good + '"' + "x" * 200_000 + '",1\n')
    monkeypatch.setattr("phidias_lab.methods.formats.delimited.blocks.__defaults__", (None, "L20", 4))
    said = ingestion.ingest([files / "broken.csv", files / "csv.csv"], "both")
    assert [name for name, _ in said.refused] == ["broken.csv"]
    assert set(opened("mine.both")["file"]) == {"csv.csv"}
    assert said.rows == len(opened("mine.both")) == 20


def test_observations_without_place_or_time_are_counted(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(
        "longitude,latitude,time,depth,temperature\n1,2,2010-01-01,3,4\n,2,2010-01-01,3,4\n1,2,,3,4\n1,99,2010-01-01,3,4\n"
    )
    assert main(["lake", "ingest", str(tmp_path / "a.csv"), "-q"]) == 0
    shown = capsys.readouterr()
    assert "2 observations have no place and are left out." in shown.err
    assert "1 observations have no time and are left out." in shown.err
    assert "Added mine.a: 1 observations from 1 of 1 files." in shown.out


def test_columns_of_a_csv_are_named_by_the_user(tmp_path):
    (tmp_path / "a.csv").write_text("lon,lat,when,z,TEMP,TEMP_FLAG\n1,2,2010-01-01,3,277.5,4\n")
    words = (
        "--column lon=longitude --column lat=latitude --column when=time --column z=depth --column TEMP=temperature "
    )
    words += "--column TEMP_FLAG=temperature_qc --units temperature=K --units depth=m --flags QARTOD -q"
    assert main(["lake", "ingest", str(tmp_path / "a.csv"), *words.split()]) == 0
    table = opened("mine.a")
    assert (table["temperature"][0], table["temperature_qc"][0], table["depth"][0]) == (277.5, 4, 3)
    assert catalog.describe("mine.a")["units"]["temperature"] == "K"


def test_the_same_name_with_other_units_or_kind_is_another_column(tmp_path):
    head = "longitude,latitude,time,depth,"
    (tmp_path / "a.csv").write_text(head + "turbidity\n1,2,2010-01-01,3,4\n")
    (tmp_path / "b.csv").write_text(head + "turbidity\n1,2,2010-01-01,3,high\n")
    ingestion.ingest([tmp_path / "a.csv", tmp_path / "b.csv"], "ab")
    table = opened("mine.ab")
    assert table["turbidity"].tolist()[0] == 4
    assert np.isnan(table["turbidity"].tolist()[1])
    assert table["turbidity_text"].tolist() == ["", "high"]


def test_flags_of_a_variable_that_a_file_has_not_are_missing(tmp_path):
    head = "longitude,latitude,time,depth,"
    (tmp_path / "a.csv").write_text(head + "temperature,temperature_qc\n1,2,2010-01-01,3,4,1\n")
    (tmp_path / "b.csv").write_text(head + "salinity,salinity_qc\n1,2,2010-01-01,3,35,1\n")
    ingestion.ingest([tmp_path / "a.csv", tmp_path / "b.csv"], "ab")
    assert opened("mine.ab")["salinity_qc"].tolist() == [flags.MISSING, 1]
    assert opened("mine.ab")["salinity_qc"].dtype == np.int8


def test_what_is_in_memory_at_once_does_not_change_the_table(files, monkeypatch):
    paths = sorted(files.iterdir())
    ingestion.ingest(paths, "whole")
    monkeypatch.setattr(ingestion, "TOGETHER", 100)
    ingestion.ingest(paths, "pieces")
    pd.testing.assert_frame_equal(opened("mine.whole"), opened("mine.pieces"))
    stores = [folder_of_lake() / f"{name}.parquet" for name in ("whole", "pieces")]
    rows = [
        pd.concat(pd.read_parquet(p, columns=["observation_id"]) for p in sorted(s.rglob("*.parquet")))[
            "observation_id"
        ].tolist()
        for s in stores
    ]
    assert rows[0] == rows[1]  # in the same order too


def test_a_name_that_is_taken_is_refused_before_anything_is_read_and_replaced_if_asked(files):
    ingestion.ingest([files / "csv.csv"], "one")
    with pytest.raises(ParameterError, match=r"already has an entry 'mine\.one'"):
        ingestion.ingest([files / "odv.txt"], "one")
    assert set(opened("mine.one")["file"]) == {"csv.csv"}
    ingestion.ingest([files / "odv.txt"], "one", replace=True)
    assert set(opened("mine.one")["file"]) == {"odv.txt"}
    assert left_behind() == [".one.lock", "one.parquet"]


def test_an_entry_that_is_refused_leaves_the_old_table_in_place(files, monkeypatch):
    ingestion.ingest([files / "csv.csv"], "one")

    def refuse(*args, **kwargs):
        raise InputError("Refused.")

    monkeypatch.setattr(catalog, "add", refuse)
    with pytest.raises(InputError, match="Refused"):
        ingestion.ingest([files / "odv.txt"], "one", replace=True)
    assert set(opened("mine.one")["file"]) == {"csv.csv"}
    assert left_behind() == [".one.lock", "one.parquet"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere.txt"], 3, "does not exist"),
        (["."], 3, "holds no files"),
        (["junk", "other"], 2, "2 files become one entry, which needs a name"),
        (["junk", "--name", "9 lives"], 2, "is no name for an entry"),
        (["junk"], 3, "None of the 1 files gives observations, so no table was made. junk: its first line"),
        (["junk", "--flags", "L21"], 2, "Did you mean 'L20'"),
        (["junk", "--folder", "/proc/nothing"], 4, "--folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_leaves_nothing(words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if words != ["."]:
        (tmp_path / "junk").write_text("no observations here\n")
        (tmp_path / "other").write_text("none here\n")
    assert main(["lake", "ingest", *words, "-q"]) == code
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert [name for name in left_behind() if not name.endswith(".lock")] == []


def test_a_disk_that_is_full_is_said_and_leaves_nothing(small_disk, tmp_path):
    writers.write(synthetic(40_000, 4), tmp_path / "big.parquet", "parquet")
    with pytest.raises(ProductError, match=r"The disk of .* is full"):
        ingestion.ingest([tmp_path / "big.parquet"], "big", folder=small_disk)
    assert [p.name for p in small_disk.iterdir()] == [".big.lock"]


def test_who_stops_it_finds_the_lake_as_it_was(files, tmp_path):
    for number in range(400):
        shutil.copy(files / "odv.txt", files / f"copy{number}.txt")
    command = [sys.executable, "-m", "phidias_lab", "lake", "ingest", str(files), "--name", "all", "-q"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(folder_of_lake().glob(".building-*/faults.txt")):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "Traceback" not in said
    assert left_behind() == [".all.lock"]
    assert not settings.user_catalog_file().exists()


def test_what_a_kill_left_behind_is_removed_by_the_next(files):
    left = folder_of_lake() / ".building-all-dead"
    left.mkdir(parents=True)
    (left / "0.aside").write_bytes(b"half")
    ingestion.ingest(sorted(files.iterdir()), "all")
    assert left_behind() == [".all.lock", "all.parquet"]


@pytest.mark.parametrize("name", ["odv.txt", "seadatanet.nc", "argo.nc"])
def test_catalog_add_sends_files_of_profiles_to_ingest(name, files, capsys):
    assert main(["catalog", "add", str(files / name)]) == 2
    assert f"phidias lake ingest {files / name} --name NAME" in " ".join(capsys.readouterr().err.split())


def test_progress_goes_up_and_names_the_files(files):
    seen = []
    ingestion.ingest(sorted(files.iterdir()), "all", progress=lambda share, text: seen.append((share, text)))
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    assert seen[-1][0] == 1.0
    assert any("odv.txt (3 of 5)" in text for _, text in seen)


def test_the_real_files_become_one_table(sample_data, capsys):
    root = sample_data("ocean")
    words = [str(root / "argo" / "dac"), str(root / "seadatanet"), "--name", "real", "-q"]
    assert main(["lake", "ingest", *words]) == 0
    shown = capsys.readouterr()
    assert "Added mine.real: 334530 observations from 35 of 37 files." in shown.out
    assert "left out" not in shown.err
    found = json.loads(json.dumps(catalog.describe("mine.real")["units"]))
    assert found["temperature"] == "degree_Celsius"
    assert found["oxygen"] == "umol kg-1"
    assert catalog.verify("mine.real")
