"""What every test may ask for."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: One place for these tests is on a host, so one worker runs all of them.
_ONE_WORKER = "tests/hub/slurm/"
#: In this order files are handed out, then all others. The first ones start programs and wait for them, so they begin early
#: and end beside what computes, not after it.
_FIRST = [f"tests/{part}" for part in ("hub/slurm/", "hub/", "widgets/", "services/", "test_", "compute/", "chains/")]
#: How the reason of a test begins that was left out for want of a system package.
_LEFT_OUT = "not run: needs the system package "
#: The package `phidias_probe`, laid out as pip would install it.
PROBE = Path(__file__).parent / "packages" / "probe"
#: Pictures that tests leave for people to look at.
ARTEFACTS = ROOT / "test-artefacts"
CHROMIUM_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_configure(config):
    # nbformat goes on without it; it compiles a grammar at its import, which takes seconds in each worker.
    sys.modules["rfc3987_syntax"] = None
    import hypothesis

    # A first import may take seconds, so no deadline; few examples, because there are many properties.
    hypothesis.settings.register_profile("lab", deadline=None, max_examples=30)
    hypothesis.settings.load_profile("lab")
    # Here and not in a fixture: tests are parametrized over the installed chains before any fixture runs.
    if str(PROBE) not in sys.path:
        sys.path.insert(0, str(PROBE))
    before = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(PROBE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PROBE), *before])  # worker processes see it too


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay together, as with --dist loadfile, and those of one folder too."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # the order is that of the collection
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return _ONE_WORKER if file.startswith(_ONE_WORKER) else file

    return Scheduling(config, log)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: [not item.nodeid.startswith(part) for part in _FIRST])


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


@pytest.fixture(scope="session")
def sample_data(set_up):
    """``sample_data("ocean")``: real files, kept beside the checkout in ../shared/data and never in it.

    Where they are missing the test is skipped with the reason, and it fails in continuous integration, which has them.
    """

    def folder(name: str) -> Path:
        # The checkout may be a working tree one folder deeper than the repository it belongs to.
        for place in (ROOT.parent, ROOT.parent.parent):
            if (place / "shared" / "data" / name).is_dir():
                return place / "shared" / "data" / name
        reason = f"not run: the real files ../shared/data/{name} are not beside this checkout"
        pytest.fail(reason) if set_up.in_ci() else pytest.skip(reason)

    return folder


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path_factory):
    """Each test has its own user folders, so none sees the user's settings, lake or runs."""
    home = tmp_path_factory.mktemp("user")
    for name in ("LAKE", "RUNS", "CATALOGS", "WORKSPACE", "SITE"):
        monkeypatch.delenv(f"PHIDIAS_{name}", raising=False)
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("PHIDIAS_RUNS", str(home / "runs"))
    monkeypatch.setenv("PHIDIAS_LAKE", str(home / "lake"))
    return home


@pytest.fixture(scope="session")
def commands():
    """Runs `phidias` commands in processes of their own, quickly: see tests/commands.py."""
    from commands import Commands

    running = Commands()
    yield running
    running.close()


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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB, really full when it is full. Mounting it needs root, which continuous integration has."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        reason = f"not run: a small file system cannot be mounted here ({done.stderr.strip()}); it needs root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


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


@pytest.fixture(scope="module")
def chromium(needs):
    """A real browser, for one file of tests at a time: while it is there, no other test can call asyncio.run."""
    path = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page that notes every host it asks, and every error in its console."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("websocket", lambda ws: page.asked.append(ws.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(30_000)
    yield page
    context.close()


@pytest.fixture
def keep(page):
    """``keep("name")`` stores what the page looks like, for people to look at."""

    def shoot(name: str) -> bytes:
        ARTEFACTS.mkdir(exist_ok=True)
        return page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    return shoot
