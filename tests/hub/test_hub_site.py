"""The hub reads the same site files as the clusters of the lab, and understands them alike."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from phidias_hub import site

from phidias_lab.compute import site as lab_site

ROOT = Path(__file__).parents[2]
HUB_CONFIG = ROOT / "hub-config"
SITES = sorted((HUB_CONFIG / "sites").glob("*.toml"))


@pytest.mark.parametrize("file", SITES, ids=lambda f: f.stem)
def test_hub_and_clusters_understand_a_shipped_site_alike(file):
    assert site.read(file) == lab_site.read(file)


def test_an_unknown_key_is_refused_with_the_nearest_one():
    with pytest.raises(site.SiteError, match=r"hub has the unknown key 'intrenal_tls'. Did you mean 'internal_tls'"):
        site.checked({"name": "here", "hub": {"intrenal_tls": True}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "its top level lacks the key 'name'"),
        ({"name": "x", "hub": {"url": "ftp://x"}}, "hub.url is 'ftp://x'"),
        ({"name": "x", "servers": {"kind": "slurm"}}, "there is no profile"),
        ({"name": "x", "login": {"kind": "oidc"}}, r"there is no \[login.oidc\]"),
        ({"name": "x", "clusters": {"big": {}}}, "clusters.big names no partition"),
        (
            {
                "name": "x",
                "servers": {"kind": "slurm", "profiles": {"p": {"partition": "p", "cores": {"default": 9, "max": 2}}}},
            },
            "servers.profiles.p.cores has the default 9, above its max 2",
        ),
    ],
)
def test_what_a_site_lacks_or_contradicts_is_one_sentence(content, said):
    with pytest.raises(site.SiteError, match=said):
        site.checked(content)


def test_a_site_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(site.SiteError, match=r"There is no site file .*nowhere.toml. Name one in PHIDIAS_SITE"):
        site.read(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(site.SiteError, match=r"broken.toml is not valid TOML"):
        site.read(tmp_path / "broken.toml")


def test_the_hub_imports_nothing_of_the_lab():
    for file in HUB_CONFIG.rglob("*.py"):
        if "node_modules" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "phidias_lab" for name in names), file


def test_the_schema_is_found_in_an_installed_lab_without_importing_it(tmp_path):
    """hub-config copied elsewhere, as an administrator may do: the package tells where the schema is."""
    shutil.copytree(HUB_CONFIG / "phidias_hub", tmp_path / "phidias_hub")
    program = (
        "import sys; from phidias_hub import site; s = site.schema_file(); print(s); site.schema();"
        "sys.exit('phidias_lab' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "phidias_lab" / "compute" / "site.schema.yaml")
