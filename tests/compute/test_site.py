"""A site file is read once, checked against its schema, and refused in a sentence when it is wrong."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from phidias_lab.compute import site
from phidias_lab.errors import ParameterError

SITES = sorted((Path(__file__).parents[2] / "hub-config" / "sites").glob("*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_schema_is_a_schema_and_describes_every_key():
    Draft202012Validator.check_schema(site.schema())

    def keys(part, path=""):
        for name, inner in part.get("properties", {}).items():
            yield f"{path}{name}", inner
            yield from keys(inner, f"{path}{name}.")
        if isinstance(part.get("additionalProperties"), dict):
            yield from keys(part["additionalProperties"], f"{path}*.")

    found = dict(keys(site.schema()))
    assert len(found) > 60
    assert [path for path, inner in found.items() if not inner.get("description")] == []


@pytest.mark.parametrize("path", SITES, ids=lambda p: p.stem)
def test_every_shipped_site_is_valid_and_is_named_as_its_file(path):
    assert {p.stem for p in SITES} >= {"laptop", "onebox", "hpc"}
    assert site.read(path)["name"] == path.stem


def test_defaults_are_filled_in_at_every_depth_and_shared_with_nobody():
    one = site.checked({"name": "x", "clusters": {"far": {"partition": "p"}}}, "a test")
    assert one["hub"]["proxy"] == "child"
    assert one["servers"]["start_timeout"] == 120
    assert one["clusters"]["far"]["kind"] == "slurm"
    assert one["clusters"]["far"]["silent_seconds"] == 30
    assert next(iter(one["clusters"])) == "local"
    before = copy.deepcopy(site.schema())
    one["login"]["users"].append("eve")
    assert site.schema() == before
    assert site.checked({"name": "x"}, "a test")["login"]["users"] == []


def test_without_a_site_file_there_is_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("PHIDIAS_SITE", raising=False)
    monkeypatch.setattr(site, "INSTALLED", tmp_path / "none.toml")
    here = site.current()
    assert list(here["clusters"]) == ["local"]
    assert here["clusters"]["local"]["kind"] == "local"
    assert here["servers"]["kind"] == "local"


def test_the_environment_names_the_site(monkeypatch, tmp_path):
    monkeypatch.setenv("PHIDIAS_SITE", str(written(tmp_path, 'name = "own"')))
    assert site.current()["name"] == "own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\n[hub]\nurll = "http://a"', "hub has the unknown key 'urll'. Did you mean 'url'"),
        ('title = "x"', "lacks the key 'name'"),
        ('name = "x"\n[login]\nkind = "magic"', "login.kind is 'magic'"),
        ('name = "x"\n[hub]\ninternal_port = 80', "hub.internal_port is 80"),
        ('name = "x"\n[clusters.a]\ncores = {max = 2}', "clusters.a names no partition"),
        ('name = "x"\n[clusters.a]\npartition = "p; rm -rf /"', "clusters.a.partition"),
        ('name = "x"\n[clusters.a]\npartition = "p"\ncores = {default = 3, max = 2}', "above its max 2"),
        ('name = "x"\n[clusters.a]\npartition = "p"\nenvironment = "e"', "servers.environments does not have"),
        ('name = "x"\n[servers]\nkind = "slurm"', "there is no profile"),
        ('name = "x', "not valid TOML"),
    ],
)
def test_a_wrong_site_file_is_refused_in_a_sentence(tmp_path, text, said):
    with pytest.raises(ParameterError) as refusal:
        site.read(written(tmp_path, text))
    assert said in str(refusal.value)
    assert "site.toml" in str(refusal.value)


def test_a_site_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"There is no site file .*none\.toml"):
        site.read(tmp_path / "none.toml")


def test_a_site_is_read_without_compiling_a_grammar_that_no_site_needs():
    """jsonschema imports it for addresses with letters of any script; it takes longer than all else of `phidias use`."""
    code = "import sys; from phidias_lab.compute import site; site.current(); print('rfc3987_syntax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
