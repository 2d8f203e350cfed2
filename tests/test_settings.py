"""Where the lab keeps things: environment before file before default."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from phidias_lab import settings
from phidias_lab.errors import ParameterError

READ = {
    "lake": settings.lake_root,
    "runs": lambda: str(settings.runs_root()),
    "workspace": lambda: str(settings.workspace()),
}


@pytest.fixture
def write(monkeypatch):
    for name in ("LAKE", "RUNS", "CATALOGS", "WORKSPACE"):
        monkeypatch.delenv(f"PHIDIAS_{name}", raising=False)

    def write(text: str | bytes) -> Path:
        path = settings.settings_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("key", READ)
def test_the_environment_comes_before_the_file_and_the_file_before_the_default(key, write, monkeypatch):
    assert READ[key]() == str(settings.user_data() / key)
    write(f"{key}: /from/file\n")
    assert READ[key]() == "/from/file"
    monkeypatch.setenv(f"PHIDIAS_{key.upper()}", "/from/environment")
    assert READ[key]() == "/from/environment"
    monkeypatch.setenv(f"PHIDIAS_{key.upper()}", "")
    assert READ[key]() == "/from/file"


@pytest.mark.parametrize("text", ["", "# nothing\n", "lake:\n", "{}"])
def test_a_file_that_says_nothing_leaves_the_defaults(write, text):
    write(text)
    assert settings.lake_root() == str(settings.user_data() / "lake")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lakes: /x\n", r"unknown key 'lakes'. Did you mean 'lake'"),
        ("5: /x\n", "unknown key 5"),
        ("lake: [a\n", "is not valid YAML"),
        ("lake: *unknown\n", "is not valid YAML"),
        ("!!python/object/apply:os.system ['echo broken']", "is not valid YAML"),
        (b"lake: \xff\xfe", "is not valid YAML"),
        ("[" * 100000, "is not valid YAML"),
        ("- a\n- b\n", "must hold keys and values"),
        ("[]", "must hold keys and values"),
        ("false", "must hold keys and values"),
        ("lake: [a, b]\n", "must be a path"),
        ("runs: 5\n", "must be a path"),
        ("catalogs: {a: b}\n", "must be a path, or a list of paths"),
    ],
)
def test_a_settings_file_that_is_wrong_is_named_with_what_is_wrong(write, text, said):
    path = write(text)
    with pytest.raises(ParameterError, match=said) as caught:
        settings.lake_root()
    assert str(path) in str(caught.value)


def test_a_settings_file_that_is_a_folder_is_as_good_as_none(write):
    settings.settings_file().mkdir(parents=True)
    assert settings.lake_root() == str(settings.user_data() / "lake")


def test_relative_places_and_home_folders_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("PHIDIAS_RUNS", "here")
    monkeypatch.setenv("PHIDIAS_LAKE", "~/lake")
    assert settings.runs_root() == tmp_path / "here"
    assert settings.lake_root() == str(tmp_path / "me" / "lake")


def test_a_lake_may_be_an_address_and_runs_may_not(monkeypatch):
    monkeypatch.setenv("PHIDIAS_LAKE", "s3://bucket/lake/")
    assert settings.lake_root() == "s3://bucket/lake"
    assert settings.lake_path("/ocean/truth.zarr") == "s3://bucket/lake/ocean/truth.zarr"
    monkeypatch.setenv("PHIDIAS_RUNS", "s3://bucket/runs")
    with pytest.raises(ParameterError, match="need a folder"):
        settings.runs_root()


def test_a_workspace_is_a_folder_of_this_machine(monkeypatch):
    monkeypatch.setenv("PHIDIAS_WORKSPACE", "s3://bucket/work")
    with pytest.raises(ParameterError, match="PHIDIAS_WORKSPACE is s3://bucket/work, but notebooks need a folder"):
        settings.workspace()


def test_the_shipped_notebooks_are_those_of_the_checkout_or_else_those_installed(monkeypatch, tmp_path):
    assert settings.notebooks() == Path(__file__).parents[1] / "notebooks"
    monkeypatch.setattr(settings, "checkout_root", lambda: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert settings.notebooks() is None
    (tmp_path / "share" / "phidias_lab" / "notebooks").mkdir(parents=True)
    assert settings.notebooks() == tmp_path / "share" / "phidias_lab" / "notebooks"


def test_catalogues_are_searched_where_the_user_says_between_the_checkout_and_the_installed(write, monkeypatch):
    write("catalogs: [/a, ~/b]\n")
    expected = [Path("/a"), Path("~/b").expanduser(), settings.user_data() / "catalogs"]
    assert [p for p in settings.catalog_places() if p in expected] == expected
    assert settings.catalog_places()[-1] == Path(sys.prefix) / "share" / "phidias_lab" / "catalogs"
    monkeypatch.setenv("PHIDIAS_CATALOGS", os.pathsep.join(["/c", "", "/d"]))
    assert [p for p in settings.catalog_places() if p in (Path("/c"), Path("/d"))] == [Path("/c"), Path("/d")]
