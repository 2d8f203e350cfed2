"""The user's workspace: copies of the shipped notebooks that are the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phidias_lab import settings
from phidias_lab.errors import ParameterError, ProductError
from phidias_lab.services.workspace import RECORD, prepare_workspace


@pytest.fixture
def shipped(tmp_path) -> Path:
    """Two notebooks as they are shipped, and what Jupyter may have left beside them."""
    folder = tmp_path / "shipped"
    for name, text in (
        ("start_here.ipynb", "first"),
        ("ocean/gridding.ipynb", "gridding"),
        (".ipynb_checkpoints/start_here-checkpoint.ipynb", "left over"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def work(tmp_path, shipped):
    """``work()`` prepares the workspace and returns what it said; ``work.folder`` is where."""

    def prepare(**how):
        return prepare_workspace(prepare.folder, shipped=shipped, **how)

    prepare.folder = tmp_path / "my work"
    return prepare


def files(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file() and p.name != RECORD
    }


def test_an_empty_workspace_gets_every_shipped_notebook(work):
    assert work() == []
    assert files(work.folder) == {"start_here.ipynb": "first", "ocean/gridding.ipynb": "gridding"}


def test_the_second_time_nothing_is_written(work):
    work()
    before = {p: p.stat().st_mtime_ns for p in work.folder.rglob("*")}
    assert work() == []
    assert {p: p.stat().st_mtime_ns for p in work.folder.rglob("*")} == before


def test_what_the_user_changed_or_added_stays_as_it_is(work):
    work()
    (work.folder / "start_here.ipynb").write_text("mine")
    (work.folder / "other.ipynb").write_text("also mine")
    assert work() == []
    assert files(work.folder)["start_here.ipynb"] == "mine"
    assert files(work.folder)["other.ipynb"] == "also mine"


def test_a_notebook_that_was_removed_comes_back(work):
    work()
    (work.folder / "ocean" / "gridding.ipynb").unlink()
    assert work() == []
    assert files(work.folder)["ocean/gridding.ipynb"] == "gridding"


def test_a_copy_that_the_user_never_changed_follows_the_shipped_one(work, shipped):
    work()
    (shipped / "start_here.ipynb").write_text("second")
    assert work() == []
    assert files(work.folder) == {"start_here.ipynb": "second", "ocean/gridding.ipynb": "gridding"}


def test_a_newer_shipped_notebook_is_placed_once_beside_the_changed_one(work, shipped):
    work()
    (work.folder / "ocean" / "gridding.ipynb").write_text("mine")
    (shipped / "ocean" / "gridding.ipynb").write_text("second")
    assert work() == [
        "A newer ocean/gridding.ipynb was shipped; you changed yours, so it is placed beside as gridding.new.ipynb."
    ]
    found = files(work.folder)
    assert (found["ocean/gridding.ipynb"], found["ocean/gridding.new.ipynb"]) == ("mine", "second")
    # Neither a next start nor the same version again places it a second time, also when the user removed it.
    (work.folder / "ocean" / "gridding.new.ipynb").unlink()
    assert work() == []
    assert "ocean/gridding.new.ipynb" not in files(work.folder)


def test_a_third_version_overwrites_no_second_one_on_which_the_user_works(work, shipped):
    work()
    for number in ("second", "third"):
        (work.folder / "start_here.ipynb").write_text("mine")
        (shipped / "start_here.ipynb").write_text(number)
        work()
    found = files(work.folder)
    assert (found["start_here.new.ipynb"], found["start_here.new-2.ipynb"]) == ("second", "third")


def test_a_fresh_copy_keeps_the_users_own_beside(work):
    work()
    for text, kept in (("mine", "start_here.mine.ipynb"), ("mine again", "start_here.mine-2.ipynb")):
        (work.folder / "start_here.ipynb").write_text(text)
        assert work(fresh=True) == [f"start_here.ipynb is a fresh copy; yours is kept as {kept}."]
        assert files(work.folder)["start_here.ipynb"] == "first"
        assert files(work.folder)[kept] == text
    assert work(fresh=True) == []


@pytest.mark.parametrize("record", ["", "[1]", '{"start_here.ipynb": 3}', "null"])
def test_without_a_record_every_file_is_taken_for_the_users_own(work, shipped, record):
    work()
    (work.folder / RECORD).write_text(record)
    (shipped / "start_here.ipynb").write_text("second")
    (said,) = work()
    assert "placed beside as start_here.new.ipynb" in said
    assert files(work.folder)["start_here.ipynb"] == "first"
    assert json.loads((work.folder / RECORD).read_text()).keys() == {"start_here.ipynb", "ocean/gridding.ipynb"}


def test_the_shipped_folder_itself_is_no_workspace(shipped):
    with pytest.raises(ParameterError, match="Set PHIDIAS_WORKSPACE to another folder"):
        prepare_workspace(shipped / "ocean", shipped=shipped)


def test_a_workspace_that_cannot_be_written_is_told(tmp_path, shipped):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ProductError, match=r"The workspace .*file/work cannot be written \(Not a directory\)"):
        prepare_workspace(tmp_path / "file" / "work", shipped=shipped)


def test_a_full_disk_leaves_no_half_notebook(small_disk, shipped):
    (shipped / "start_here.ipynb").write_bytes(b"x" * 5_000_000)
    with pytest.raises(ProductError, match=r"cannot be written \(No space left on device\)"):
        prepare_workspace(small_disk / "work", shipped=shipped)
    assert not [p for p in (small_disk / "work").iterdir() if "start_here" in p.name]


def test_without_words_the_setting_and_the_checkouts_notebooks_are_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("PHIDIAS_WORKSPACE", str(tmp_path / "here"))
    assert prepare_workspace() == []
    assert files(tmp_path / "here") == {n: t for n, t in files(settings.notebooks()).items() if "/." not in f"/{n}"}
