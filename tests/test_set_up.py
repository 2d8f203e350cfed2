"""`make lab` and `make test` on machines where something is missing: one sentence that says what to do."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what the set-up reads, without an environment."""
    folder = tmp_path / "check out"
    (folder / ".ci").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "system-packages.txt", "Makefile", ".ci/prepare.py", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def start(checkout):
    """Run the set-up of the copy with a plain environment; returns the finished process."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "CI", "SYSTEM"))}
        return subprocess.run(
            [sys.executable, str(checkout / ".ci" / "prepare.py"), *words],
            env={**plain, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def stamp(set_up, checkout: Path, extra: str) -> None:
    """An environment as the set-up leaves it, with this interpreter."""
    python = Path(set_up.environment_python(checkout))
    python.parent.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        python.symlink_to(sys.executable)
    Path(set_up.stamp_path(checkout, extra)).write_text(set_up.fingerprint(checkout, extra))


# Python -----------------------------------------------------------------------------------------------------------


def test_a_python_that_is_too_old_can_read_the_set_up_far_enough_to_say_so():
    ast.parse((ROOT / ".ci" / "prepare.py").read_text(), feature_version=(3, 6))


def test_an_old_python_is_refused_with_what_to_install(set_up):
    with pytest.raises(set_up.Refused, match=r"This is Python 3\.9, .* needs 3\.11 or newer.* make PYTHON=python3\.11"):
        set_up.check_python((3, 9, 2))
    set_up.check_python((3, 11, 0))
    set_up.check_python((3, 12))


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_old_python_looks_for_a_newer_one_that_really_starts(set_up, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set_up.newer_python((3, 9)) is None
    executable(tmp_path / "python3.11", "#!/bin/sh\nexit 127\n")
    assert set_up.newer_python((3, 9)) is None
    good = executable(tmp_path / "python3.12", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    assert set_up.newer_python((3, 9)) == str(good)
    assert set_up.newer_python((3, 11)) is None


def test_make_without_any_python_says_what_to_install(checkout):
    done = subprocess.run(
        [shutil.which("make"), "lab", "PYTHON=no-such-python"], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Error: no-such-python is not installed" in done.stderr
    assert "apt install python3.11 python3.11-venv" in done.stderr


def test_a_python_without_venv_names_the_package(set_up):
    said = "The virtual environment was not created successfully because ensurepip is not\navailable."
    assert "apt install python3-venv" in set_up.why_no_environment(said, "x/.venv")


# Disk, permissions, network ---------------------------------------------------------------------------------------


def test_a_disk_with_too_little_space_is_refused_before_anything_is_written(set_up, tmp_path):
    with pytest.raises(
        set_up.Refused, match=r"needs about 5 GiB, and only 1\.5 GiB are free on the disk of .*Free some"
    ):
        set_up.check_space(tmp_path, usage=lambda folder: Usage(0, 0, 1.5 * 2**30))
    set_up.check_space(tmp_path, usage=lambda folder: Usage(0, 0, 5 * 2**30))


@pytest.mark.parametrize(
    ("pip", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "WARNING: Retrying ... NewConnectionError('Failed to establish a new connection: [Errno 111] refused')"
            "\nERROR: No matching distribution found for hatchling>=1.27",
            "the package index cannot be reached. Check the network",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement zarr (from versions: none)\n"
            "ERROR: No matching distribution found for zarr",
            "the package index cannot be reached, or does not know zarr.",
        ),
        ("ERROR: No matching distribution found for zarr==3.1.6", "the package index has no zarr==3.1.6 for Python"),
        ("OSError: [Errno 13] Permission denied: '/home/x/.cache'", "a file cannot be written"),
        ("ERROR: Something else happened.", "pip said: Something else happened. Mend that"),
        ("", "pip said: no message."),
    ],
)
def test_a_failing_pip_is_told_by_its_reason_and_its_log(set_up, pip, sentence):
    said = set_up.why_pip_failed(pip, "/x/install.log")
    assert sentence in said
    assert said.endswith("then run the same command again. All of pip's words: /x/install.log")


def test_without_a_network_the_set_up_ends_with_a_sentence(start, checkout):
    # Port 9 of this machine answers nothing, as an index does that cannot be reached.
    done = start("lab", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: The packages could not be installed: the package index cannot be reached.")
    assert "Traceback" not in done.stderr
    log = Path(re.search(r"All of pip's words: (.*)$", last)[1])
    assert "127.0.0.1" in log.read_text()
    assert not list((checkout / ".venv").glob(".installed-*"))


def test_a_folder_that_cannot_be_written_is_told(start, checkout):
    (checkout / ".venv").write_text("a file in the way")
    done = start("lab")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(
        r"Error: The virtual environment .*/\.venv cannot be made: .* run the same command again", done.stderr
    )


def test_a_folder_that_is_no_environment_is_never_removed(start, checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").write_text("mine")
    done = start("lab")
    assert done.returncode == 1
    assert "is in the way and is no virtual environment" in done.stderr
    assert (checkout / ".venv" / "precious").read_text() == "mine"


@pytest.mark.parametrize(("number", "sentence"), [(28, "The disk of x is full"), (13, r"x cannot be written \(Perm")])
def test_an_error_of_the_system_says_what_to_do(set_up, number, sentence):
    assert re.match(sentence, set_up.cannot_write(OSError(number, os.strerror(number)), "x"))


# The second time --------------------------------------------------------------------------------------------------


def test_the_second_time_nothing_is_set_up_again_and_the_command_runs(set_up, checkout, start):
    stamp(set_up, str(checkout), "lab")
    # An index that cannot be reached shows that pip is not even asked.
    done = start("lab", "--", "-c", "print('the command ran')", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the command ran\n", "")


def test_the_exit_code_is_the_one_of_the_command(set_up, checkout, start):
    stamp(set_up, str(checkout), "lab")
    assert start("lab", "--", "-c", "raise SystemExit(7)").returncode == 7


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_is_noticed(set_up, checkout, name):
    stamp(set_up, str(checkout), "lab")
    assert set_up.is_prepared(str(checkout), "lab")
    with open(checkout / name, "a") as stream:
        stream.write("\n# changed\n")
    assert not set_up.is_prepared(str(checkout), "lab")


def test_an_environment_for_tests_serves_the_lab_and_not_the_other_way(set_up, checkout):
    stamp(set_up, str(checkout), "dev")
    assert set_up.is_prepared(str(checkout), "lab")
    Path(set_up.stamp_path(str(checkout), "dev")).unlink()
    stamp(set_up, str(checkout), "lab")
    assert not set_up.is_prepared(str(checkout), "dev")


def test_an_environment_that_was_moved_is_not_taken_for_ready(set_up, checkout, tmp_path):
    stamp(set_up, str(checkout), "lab")
    moved = tmp_path / "moved"
    shutil.move(checkout, moved)
    assert not set_up.is_prepared(str(moved), "lab")


# The hub's proxy --------------------------------------------------------------------------------------------------


@pytest.fixture
def with_proxy(checkout):
    """The copy with the hub's proxy still to be installed."""
    shutil.copytree(
        ROOT / "hub-config", checkout / "hub-config", ignore=shutil.ignore_patterns("node_modules", "__pycache__")
    )
    return checkout


def test_a_proxy_that_cannot_be_fetched_ends_the_set_up_with_a_sentence(set_up, with_proxy, start):
    stamp(set_up, str(with_proxy), "hub")
    # Port 9 of this machine answers nothing, as a registry does that cannot be reached.
    nowhere = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_fetch_retries": "0"}
    nowhere["npm_config_cache"] = str(with_proxy / "empty-cache")
    done = start("hub", "--", "-c", "print('must not run')", PYTHONPATH=os.pathsep.join(sys.path), **nowhere)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Error: The proxy could not be installed into" in done.stderr
    assert "Check the network" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_proxy_is_installed_again_when_its_lock_file_changes_and_only_with_the_hub(set_up, with_proxy):
    root = str(with_proxy)
    assert not set_up.proxy_is_prepared(root, "hub")
    assert not set_up.proxy_is_prepared(root, "dev")
    assert set_up.proxy_is_prepared(root, "lab")
    modules = with_proxy / "hub-config" / "proxy" / "node_modules"
    modules.mkdir()
    (modules / ".installed").write_text(set_up.proxy_fingerprint(root))
    assert set_up.proxy_is_prepared(root, "hub")
    with open(with_proxy / "hub-config" / "proxy" / "package-lock.json", "a") as lock:
        lock.write("\n")
    assert not set_up.proxy_is_prepared(root, "hub")


def test_the_proxys_lock_file_pins_each_package_by_checksum_and_names_no_registry():
    lock = json.loads((ROOT / "hub-config" / "proxy" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages["node_modules/configurable-http-proxy"]["version"] == "5.3.0"
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())


# System packages --------------------------------------------------------------------------------------------------


def test_each_system_package_has_a_sign_by_which_it_is_found_and_a_purpose(set_up):
    table = set_up.system_packages()
    assert {"chromium", "octave", "octave-divand"} <= {entry["package"] for entry in table}
    assert all(entry["sign"] and entry["what"] for entry in table)


@pytest.fixture
def lacking(checkout):
    """A system package that no system has."""
    (checkout / "system-packages.txt").write_text("no-such-package   no-such-program-9   # for this test\n")
    return checkout


def test_a_missing_system_package_is_listed_and_not_installed_unasked(set_up, lacking, start):
    stamp(set_up, str(lacking), "dev")
    done = start("dev", "--system", "--", "-c", "print('tests ran')")
    assert done.returncode == 0
    assert done.stdout == "tests ran\n"
    assert "not installed here: no-such-package." in done.stderr
    assert "'make test SYSTEM=1' installs them" in done.stderr


@pytest.mark.parametrize("asked", [{"SYSTEM": "1"}, {"CI": "true"}])
def test_a_system_package_that_cannot_be_installed_ends_the_set_up(set_up, lacking, start, tmp_path, asked):
    stamp(set_up, str(lacking), "dev")
    calls = tmp_path / "calls"
    tools = tmp_path / "tools"
    tools.mkdir()
    # apt-get and sudo that write down how they were called; installing for real is no matter for a test.
    executable(tools / "apt-get", f'#!/bin/sh\necho "apt-get $*" >> "{calls}"\n[ "$2" = update ]\n')
    executable(tools / "sudo", '#!/bin/sh\nexec "$@"\n')
    done = start("dev", "--system", "--", "-c", "print('tests ran')", PATH=f"{tools}:/usr/bin:/bin", **asked)
    if "CI" in asked and os.geteuid() != 0:
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert done.stdout == ""
    assert calls.read_text().splitlines() == [
        "apt-get -q update",
        "apt-get -q install -y --no-install-recommends no-such-package",
    ]
    assert "Error: apt-get install failed" in done.stderr


# What was not run -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_suite(tmp_path):
    """Two tests under this suite's own conftest: one passes, one needs a package that no system has."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / ".ci" / "prepare.py", tmp_path / ".ci")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "system-packages.txt").write_text("no-such-package   no-such-program-9   # for this test\n")
    (tmp_path / "tests" / "test_small.py").write_text(
        "def test_here(): pass\ndef test_there(needs): needs('no-such-program-9')\n"
    )

    def run(**environment: str) -> subprocess.CompletedProcess:
        plain = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("PYTEST_", "COV"))}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1", "tests"],
            cwd=tmp_path,
            env={**plain, **environment},
            capture_output=True,
            text=True,
        )

    return run


def test_the_last_lines_say_what_was_not_run_and_why(small_suite):
    done = small_suite()
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip().splitlines()[-2:] == [
        "Not run: 1 test: needs the system package no-such-package",
        "To install what is missing and run everything: make test SYSTEM=1",
    ]


def test_in_continuous_integration_a_test_that_cannot_run_is_a_failure(small_suite):
    done = small_suite(CI="true")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "must test everything, but the system package no-such-package is not installed" in done.stdout


# The list of commands ---------------------------------------------------------------------------------------------


def test_help_lists_every_command_of_the_makefile(checkout):
    said = subprocess.run(
        [shutil.which("make"), "help"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make ([a-z-]+) +\S", said, re.MULTILINE) == targets.split()
    plain = subprocess.run([shutil.which("make")], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert plain == said
