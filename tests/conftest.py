"""What every test may ask for."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: How the reason of a test begins that was left out for want of a system package.
_LEFT_OUT = "not run: needs the system package "


def _set_up():
    """The set-up script, which knows the system packages."""
    specification = importlib.util.spec_from_file_location("prepare", ROOT / ".ci" / "prepare.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def set_up():
    """The set-up script `.ci/prepare.py` as a module."""
    return _set_up()


@pytest.fixture(scope="session")
def needs(set_up):
    """``needs("octave-cli", "octave-divand")``: the test goes on where these programs or packages are installed.

    Each is a program or a package of system-packages.txt; returned is where the first was found. Where one is missing the
    test is skipped with the reason, and it fails in continuous integration, where nothing may be left out.
    """
    table = set_up.system_packages()
    signs = {entry["package"]: entry for entry in table} | {entry["sign"]: entry for entry in table}

    def need(*names: str) -> str:
        for name in names:
            assert name in signs, f"{name} stands in no line of system-packages.txt, so the set-up cannot install it."
            package, sign = signs[name]["package"], signs[name]["sign"]
            if set_up.present(sign):
                continue
            if set_up.in_ci():
                pytest.fail(f"This run must test everything, but the system package {package} is not installed.")
            pytest.skip(_LEFT_OUT + package)
        return set_up.present(signs[names[0]]["sign"])

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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """The last lines of a run say what was not run, and why."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    reasons = Counter(_reason(report) for report in reporter.stats.get("skipped", ()))
    for reason, count in sorted(reasons.items()):
        reporter.write_line(
            f"Not run: {count} test{'s' * (count > 1)}: {reason.removeprefix('not run: ')}", yellow=True
        )
    if any(reason.startswith(_LEFT_OUT) for reason in reasons):
        reporter.write_line("To install what is missing and run everything: make test SYSTEM=1", yellow=True)


def _reason(report) -> str:
    """Why a test was skipped; pytest gives (file, line, 'Skipped: reason')."""
    words = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return words.removeprefix("Skipped: ")
