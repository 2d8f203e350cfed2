"""pyproject.toml, constraints.txt, environment.yml and the Makefile say the same."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ITSELF = "phidias-lab"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def extras(project) -> dict[str, list[Requirement]]:
    return {n: [Requirement(r) for r in rs] for n, rs in project["optional-dependencies"].items()}


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    """The versions of constraints.txt; every line that is no comment must be name==version."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pin = Requirement(line)
        (version,) = pin.specifier
        assert version.operator == "==", f"{line} is no pin."
        assert not pin.url
        assert not pin.extras
        name = canonicalize_name(pin.name)
        assert name not in found, f"{name} is pinned twice."
        found[name] = Version(version.version)
    return found


@pytest.fixture(scope="module")
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


@pytest.fixture(scope="module")
def conda_specs(conda):
    from rattler import MatchSpec

    return [MatchSpec(line, strict=True) for line in conda["dependencies"] if isinstance(line, str)]


@pytest.fixture(scope="module")
def conda_pip(conda) -> list[str]:
    (section,) = [line["pip"] for line in conda["dependencies"] if isinstance(line, dict)]
    return section


def test_every_dependency_is_pinned_to_a_version_that_it_allows(project, extras, pins):
    wanted = [Requirement(r) for r in project["dependencies"]] + [r for rs in extras.values() for r in rs]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in [*wanted, *map(Requirement, build)]:
        name = canonicalize_name(requirement.name)
        if name == ITSELF:
            continue
        assert name in pins, f"{name} has no line in constraints.txt."
        assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow the pinned {pins[name]}."


def test_no_pin_carries_a_local_version_that_an_index_cannot_satisfy(pins):
    assert [f"{n}=={v}" for n, v in pins.items() if v.local] == []


def test_the_python_of_debian_12_is_new_enough_for_every_pin(pins):
    # Debian 12 has Python 3.11.2, and some packages ask for a later 3.11.
    refused = []
    for distribution in distributions():
        wanted = distribution.metadata.get("Requires-Python")
        if canonicalize_name(distribution.name) in pins and wanted and not SpecifierSet(wanted).contains("3.11.2"):
            refused.append(f"{distribution.name} {distribution.version} needs Python {wanted}")
    assert refused == []


def test_the_pins_are_the_versions_that_are_installed_here(pins):
    # The build of a version (torch's "+cpu") is the machine's affair.
    installed = {canonicalize_name(d.metadata["Name"]): Version(Version(d.version).public) for d in distributions()}
    # What is installed beside the lab's own needs (pip itself, a third party's chain) has no pin.
    differ = {n: (str(installed[n]), str(pins[n])) for n in pins.keys() & installed.keys() if installed[n] != pins[n]}
    assert differ == {}
    assert len(pins.keys() & installed.keys()) > 100


def test_an_extra_that_names_another_names_one_that_exists(extras):
    for name, requirements in extras.items():
        for requirement in requirements:
            if canonicalize_name(requirement.name) == ITSELF:
                assert requirement.extras <= extras.keys(), f"The extra {name} asks for {requirement}."


def test_every_extra_that_the_code_tells_users_to_install_exists(extras):
    asked = set()
    for path in (ROOT / "phidias_lab").rglob("*.py"):
        text = path.read_text()
        asked |= set(re.findall(r"phidias-lab\[([a-z,]+)\]", text))
        asked |= set(re.findall(r"MissingExtraError\([^()]*(?:\([^()]*\)[^()]*)*\"([a-z]+)\"\s*\)", text))
    assert "viz" in asked
    assert asked <= extras.keys()


def test_the_makefile_sets_up_extras_that_exist(extras):
    used = set(re.findall(r"\$\(PREPARE\) (\S+)", (ROOT / "Makefile").read_text()))
    assert used == {"hub", "dev"}
    assert used <= extras.keys()


def test_an_extra_holds_the_others_that_the_set_up_believes_it_to_hold(extras, set_up):
    for extra, holders in set_up.HOLDS.items():
        for holder in set(holders) - {extra}:
            (itself,) = [r for r in extras[holder] if canonicalize_name(r.name) == ITSELF]
            assert extra in itself.extras, (extra, holder)


def test_conda_specifications_parse_and_name_python_pip_and_make(conda_specs, conda):
    assert [spec.name.normalized for spec in conda_specs] == ["python", "pip", "make"]
    assert conda["name"] == "phidias_lab"
    assert conda["channels"] == ["conda-forge", "nodefaults"]


def test_a_conda_specification_that_is_nonsense_would_be_refused():
    from rattler import MatchSpec
    from rattler.exceptions import InvalidMatchSpecError

    with pytest.raises(InvalidMatchSpecError):
        MatchSpec("bad==>1", strict=True)


def test_conda_installs_the_checkout_with_the_same_pins_and_extras_that_exist(conda_pip, extras):
    constraint, checkout = conda_pip
    assert constraint == "-c constraints.txt"
    names = re.fullmatch(r"-e \.\[([a-z,]+)\]", checkout)[1].split(",")
    assert names == ["lab", "dev"]
    assert set(names) <= extras.keys()


def test_one_python_version_is_meant_everywhere(project, conda_specs, set_up):
    allowed = SpecifierSet(project["requires-python"])
    oldest = ".".join(map(str, set_up.OLDEST))
    assert allowed == SpecifierSet(f">={oldest}")
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: \d\.\d+$", c)]
    assert named[0] == oldest
    assert all(allowed.contains(version) for version in named)
    (python,) = [spec for spec in conda_specs if spec.name.normalized == "python"]
    assert str(python.version) == f"{oldest}.*"
    assert f"python{oldest}" == set_up.OTHERS[0]
    assert set(set_up.OTHERS) >= {f"python{version}" for version in named}


def test_no_file_of_the_set_up_names_an_index_or_a_path_of_one_machine():
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", "system-packages.txt", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|file:/|--(extra-)?index-url|--find-links|/home/|/root/|/opt/", text), name


def test_continuous_integration_runs_make_test_and_nothing_else():
    path = ROOT / ".ci" / "run"
    lines = path.read_text().splitlines()
    assert lines == ["#!/usr/bin/env bash", 'cd "$(dirname "$0")/.." && exec make test']
    assert path.stat().st_mode & 0o111


def test_what_make_lab_installs_can_make_clusters(extras):
    brought, open_ = set(), {"hub"}
    while open_:
        for requirement in extras[open_.pop()]:
            if canonicalize_name(requirement.name) == ITSELF:
                open_ |= requirement.extras
            else:
                brought.add(canonicalize_name(requirement.name))
    assert {"dask-jobqueue", "distributed", "cryptography", "jupyterlab", "panel"} <= brought
