"""The demo lake is built once, whole or not at all, and always the same."""

from __future__ import annotations

import filecmp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phidias_lab import demo
from phidias_lab.errors import ProductError, UnknownNameError
from phidias_lab.lake import catalog, manifest

HERE = Path(__file__).parents[1]
BUILD = "from phidias_lab.demo import build_demo; build_demo(progress=lambda f, t: print(f, t, flush=True))"


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def start(root):
    environment = {**os.environ, "PHIDIAS_LAKE": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD],
        env=environment,
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_build_that_was_killed_leaves_nothing_of_itself_and_the_next_gives_the_same_lake(demo_lake_folder, tmp_path):
    root = tmp_path / "lake"
    process = start(root)
    for line in process.stdout:
        if "Baltic" in line:  # one sea is written, the other is not
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    left = list(root.glob(".building-*"))
    assert len(left) == 1
    assert files_of(left[0])
    assert not (root / "ocean").exists()
    told = []
    built = demo.build_demo(root=root, progress=lambda fraction, text: told.append((fraction, text)))
    assert not list(root.glob(".building-*"))
    assert [f for f, _ in told] == sorted(f for f, _ in told)
    assert told[-1][0] == 1.0
    # Another process, another time, the same bytes.
    names = files_of(demo_lake_folder)
    assert names == files_of(root)
    match, mismatch, errors = filecmp.cmpfiles(demo_lake_folder, root, names, shallow=False)
    assert (len(match), mismatch, errors) == (len(names), [], [])
    assert sum(b["bytes"] for b in built.values()) < 120e6


def test_the_lake_holds_what_the_catalogue_names(demo_lake):
    built = demo.build_demo()
    assert set(built) == {e["address"] for e in catalog.entries()}
    for address, facts in built.items():
        assert catalog.verify(address)["checksum"] == facts["checksum"]
        assert catalog.identity(address)["path"] == facts["path"]
        assert facts["bytes"] == catalog.identity(address)["bytes"]


def test_an_intact_lake_is_left_as_it_is(demo_lake):
    before = {f: (demo_lake / f).stat().st_mtime_ns for f in files_of(demo_lake) if not f.endswith(".lock")}
    demo.build_demo()
    assert before == {f: (demo_lake / f).stat().st_mtime_ns for f in before}


@pytest.mark.parametrize("harm", ["gone", "cut", "older"])
def test_a_lake_that_is_not_intact_is_seen(demo_lake, tmp_path, harm):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(demo_lake, root)
    assert demo._intact(root, "ocean")
    store = root / "ocean/baltic.zarr"
    if harm == "gone":
        shutil.rmtree(store)
    elif harm == "cut":
        (store / "mask/zarr.json").write_text("{")
    else:
        text = (store / manifest.NAME).read_text()
        (store / manifest.NAME).write_text(text.replace(f'"version": "{demo.VERSION}"', '"version": "0"'))
    assert demo._intact(root, "ocean") is None


def test_a_failed_rebuild_leaves_the_lake_that_was_there(demo_lake, tmp_path, monkeypatch):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(demo_lake, root)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("phidias_lab.lake.stores.write_cube", full)
    with pytest.raises(ProductError, match="full"):
        demo.build_demo(root=root, rebuild=True)
    assert demo._intact(root, "ocean")
    assert not list(root.glob(".building-*"))


def test_a_lake_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ProductError, match="folder you may write to"):
        demo.build_demo(root=tmp_path / "file" / "lake")


def test_a_lake_behind_an_address_is_not_built(monkeypatch):
    with pytest.raises(ProductError, match="s3://bucket"):
        demo.build_demo(root="s3://bucket/lake")


def test_an_unknown_part_is_refused_with_the_known():
    with pytest.raises(UnknownNameError, match="'ocean'"):
        demo.build_demo(only="oceans")


def test_a_second_build_waits_for_the_first(tmp_path):
    from phidias_lab.lake.locks import lock

    order = []
    with lock(tmp_path / ".l", what="The lake"):
        code = "import sys; from phidias_lab.lake.locks import lock\nwith lock(sys.argv[1], what='x'): print('in')"
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ".l")], cwd=HERE, stdout=subprocess.PIPE)
        time.sleep(1.5)
        order.append("running" if other.poll() is None else "gone")
    out, _ = other.communicate(timeout=30)
    assert order == ["running"]
    assert out == b"in\n"


def test_who_waits_too_long_for_another_build_is_told(tmp_path):
    from phidias_lab.lake.locks import lock

    with (
        lock(tmp_path / ".l", what="The lake"),
        pytest.raises(ProductError, match="another process"),
        lock(tmp_path / ".l", what="The lake", timeout=0.2),
    ):
        pass
