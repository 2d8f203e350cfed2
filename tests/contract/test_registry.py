"""Chains are found in the metadata of installed packages; a bad package is named and hides no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phidias_lab import Chain
from phidias_lab.contract import registry
from phidias_lab.errors import ParameterError, UnknownNameError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay down a package as pip would: a module and its metadata."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def lay(package: str, entries: dict[str, str], code: str) -> Path:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[phidias_lab.chains]\n{lines}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        return tmp_path

    return lay


GOOD = "from phidias_lab import Chain\nclass A(Chain):\n    'A chain.'\nclass B(A):\n    'Another.'\nnot_a_chain = 5\n"


def test_ours_and_a_third_partys_chains_are_listed_together():
    listed = registry.chains()
    assert listed == sorted(listed)
    assert {"ocean.gridding", "probe.cube", "probe.table"} <= set(listed)
    assert registry.provider("probe.cube") == "phidias-probe"
    assert registry.provider("ocean.gridding") == "phidias-lab"
    found = registry.chain("probe.cube")
    assert issubclass(found, Chain)
    assert found.id == "probe.cube"


def test_listing_chains_imports_no_chain_and_no_screen():
    code = (
        "import sys, phidias_lab; ids = phidias_lab.chains(); assert 'probe.cube' in ids and 'ocean.gridding' in ids;"
        "heavy = ('phidias_probe', 'phidias_lab.chains.', 'panel', 'torch', 'xarray');"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_chain_offers_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'probe\.cube'"):
        registry.chain("probe.cub")


def test_an_id_that_two_packages_claim_is_refused_with_both_names(install):
    install("first-toy", {"toy.a": "first_toy:A"}, GOOD)
    install("second-toy", {"toy.a": "second_toy:A", "toy.b": "second_toy:B"}, GOOD)
    assert "toy.a" in registry.chains()
    with pytest.raises(ParameterError, match="claimed by first-toy and second-toy"):
        registry.chain("toy.a")
    assert registry.chain("toy.b").id == "toy.b"
    assert registry.chain("probe.cube").id == "probe.cube"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module_of_the_toy", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit('tired')", "SystemExit: tired"),
        ("", "AttributeError"),
        (
            "from phidias_lab import Chain, number\nclass A(Chain):\n    x = number(1.0, doc='')\n",
            "A.x has no sentence",
        ),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_and_hides_no_other_chain(install, code, said):
    install("broken-toy", {"toy.a": "broken_toy:A"}, code)
    assert "toy.a" in registry.chains()
    with pytest.raises(ParameterError, match=f"'toy.a' of the package 'broken-toy' cannot be imported: .*{said}"):
        registry.chain("toy.a")
    assert registry.chain("probe.cube").id == "probe.cube"


@pytest.mark.parametrize("value", ["toy:not_a_chain", "pathlib:Path", "toy"])
def test_what_is_registered_and_is_no_chain_is_refused_with_its_package(install, value):
    install("toy", {"toy.a": value}, GOOD)
    with pytest.raises(ParameterError, match="by the package 'toy', is not a Chain"):
        registry.chain("toy.a")


def test_a_class_has_one_id(install):
    install("two-ids", {"toy.a": "two_ids:A", "toy.c": "two_ids:A", "toy.b": "two_ids:B"}, GOOD)
    assert registry.chain("toy.a").id == "toy.a"
    assert registry.chain("toy.b").id == "toy.b"
    with pytest.raises(ParameterError, match=r"has the id 'toy\.a' already"):
        registry.chain("toy.c")
    assert registry.chain("toy.a").id == "toy.a"


def test_a_class_is_known_by_its_place_and_a_subclass_is_not_its_parent():
    from phidias_probe.chains import Cube

    assert registry.id_of(Cube) == "probe.cube"
    registry.chain("probe.cube")
    assert registry.id_of(type("Mine", (Cube,), {"__module__": __name__})) is None


def test_chains_are_still_listed_after_one_of_them_was_imported():
    code = "import phidias_lab; phidias_lab.chain('ocean.gridding'); print('ocean.gridding' in phidias_lab.chains())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
