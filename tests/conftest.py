"""What every test may ask for."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

#: The package `phidias_probe`, laid out as pip would install it.
PROBE = Path(__file__).parent / "packages" / "probe"


def pytest_configure(config):
    import hypothesis

    # A first import may take seconds, so no deadline; few examples, because there are many properties.
    hypothesis.settings.register_profile("lab", deadline=None, max_examples=30)
    hypothesis.settings.load_profile("lab")
    # Here and not in a fixture: tests are parametrized over the installed chains before any fixture runs.
    if str(PROBE) not in sys.path:
        sys.path.insert(0, str(PROBE))
    before = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(PROBE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PROBE), *before])  # worker processes see it too


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path_factory):
    """Each test has its own user folders, so none sees the user's settings, lake or runs."""
    home = tmp_path_factory.mktemp("user")
    for name in ("LAKE", "RUNS", "CATALOGS"):
        monkeypatch.delenv(f"PHIDIAS_{name}", raising=False)
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("PHIDIAS_RUNS", str(home / "runs"))
    monkeypatch.setenv("PHIDIAS_LAKE", str(home / "lake"))
    return home


@pytest.fixture
def needs():
    """``needs("octave-cli")``: the test goes on where the program is installed.

    Elsewhere it is skipped with the reason, and it fails in continuous integration, where nothing may be left out.
    """

    def need(program: str) -> str:
        path = shutil.which(program)
        if path:
            return path
        if os.environ.get("CI"):
            pytest.fail(f"This run must test everything, but the system package of {program} is not installed.")
        pytest.skip(f"not run: needs the system package {program}")

    return need


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the folders of whoever runs it."""
    for name in ("PHIDIAS_LAKE", "PHIDIAS_RUNS", "PHIDIAS_CATALOGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PHIDIAS_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("PHIDIAS_RUNS", str(tmp_path / "runs"))
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / f"xdg-{name.lower()}"))


@pytest.fixture(scope="session")
def demo_lake_folder(tmp_path_factory):
    """The demo lake, built once for all tests and, with xdist, for all workers. Nobody changes it."""
    from phidias_lab.demo import build_demo

    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    build_demo(root=base / "demo-lake")  # one builds, the others wait at its lock and find it built
    return base / "demo-lake"


@pytest.fixture
def demo_lake(demo_lake_folder, own_folders, monkeypatch):
    """The demo lake as the lake of this test; it is shared, so copy a store before you damage it."""
    monkeypatch.setenv("PHIDIAS_LAKE", str(demo_lake_folder))
    return demo_lake_folder
