"""The hub reads the same site files as the clusters of the lab, and understands them alike."""

from __future__ import annotations

import ast
import copy
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phidias_hub import site

from phidias_lab.compute import site as lab_site
from phidias_lab.errors import ParameterError

ROOT = Path(__file__).parents[2]
HUB_CONFIG = ROOT / "hub-config"
SITES = sorted((HUB_CONFIG / "sites").glob("*.toml"))

OIDC = {
    "title": "t",
    "client_id": "c",
    "authorize_url": "https://x.org/a",
    "token_url": "https://x.org/t",
    "userdata_url": "https://x.org/u",
}


def verdicts(content: dict) -> tuple[dict | str, dict | str]:
    """What the hub and the clusters make of a site: the site with its defaults, or the sentence that refuses it."""

    def verdict(checked, refusal):
        try:
            return checked(copy.deepcopy(content), "a site")
        except refusal as error:
            return str(error)

    return verdict(site.checked, site.SiteError), verdict(lab_site.checked, ParameterError)


@pytest.mark.parametrize("file", SITES, ids=lambda f: f.stem)
def test_hub_and_clusters_understand_a_shipped_site_alike(file):
    assert site.read(file) == lab_site.read(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "its top level lacks the key 'name'"),
        (
            {"name": "x", "hub": {"intrenal_tls": 1}},
            "hub has the unknown key 'intrenal_tls'. Did you mean 'internal_tls'",
        ),
        ({"name": "x", "hub": {"url": "ftp://x"}}, "hub.url is 'ftp://x'"),
        (
            {"name": "x", "servers": {"kind": "slurm"}},
            "servers lacks the key 'profiles': With kind \"slurm\" a profile is",
        ),
        ({"name": "x", "servers": {"kind": "slurm", "profiles": {}}}, "servers.profiles is {}"),
        ({"name": "x", "login": {"kind": "oidc"}}, "login lacks the key 'oidc': With kind \"oidc\" the provider's"),
        ({"name": "x", "clusters": {"big": {}}}, "clusters.big lacks the key 'partition'"),
        (
            {"name": "x", "clusters": {"big": {"partition": "p", "environment": "e"}}},
            "servers.environments does not have",
        ),
        (
            {"name": "x", "servers": {"profiles": {"p": {"partition": "p", "cores": {"default": 9, "max": 2}}}}},
            "servers.profiles.p.cores has the default 9, above its max 2",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "workers": {"default": 9, "max": 2}}}},
            "clusters.p.workers has the default 9, above its max 2",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "cores": 4}}},
            "clusters.p.cores is 4: expected is a default and a most, for example { default = 1, max = 4 }.",
        ),
        (
            {"name": "x", "clusters": {"Slurm_CPU": {"partition": "p"}}},
            "clusters has the name 'Slurm_CPU': expected is a small letter, then at most 30 small letters, digits and",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "interface": "ib 0"}}},
            "clusters.p.interface is 'ib 0': expected is one word of letters, digits,",
        ),
        (
            {"name": "x", "hub": {"url": "lab.example.org"}},
            "hub.url is 'lab.example.org': expected is an address with http:// or https://, for example",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "shared_folder": "/home/{usr}/keys"}}},
            "clusters.p.shared_folder is '/home/{usr}/keys': expected is a path in which \"{user}\" alone may stand in",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "scratch": "/scratch/{User}"}}},
            "clusters.p.scratch is '/scratch/{User}': expected is a path in which \"{user}\" alone may stand in",
        ),
        (
            {"name": "x", "servers": {"workspace": "/scratch/{usr}/phidias"}},
            "servers.workspace is '/scratch/{usr}/phidias': expected is a path that begins with",
        ),
        (
            {"name": "x", "hub": {"url": "http://127.0.0.1:99999"}},
            "hub.url is 'http://127.0.0.1:99999': expected is an add",
        ),
        ({"name": "x", "hub": {"url": "http://[::1"}}, "hub.url is 'http://[::1': expected is an address"),
        (
            {"name": "x", "hub": {"listen": "127.0.0.1:65536"}},
            "hub.listen is '127.0.0.1:65536': expected is ADDRESS:PORT",
        ),
        (
            {"name": "x", "login": {"kind": "oidc", "oidc": {**OIDC, "token_url": "https://x.org:99999/t"}}},
            "login.oidc.token_url is 'https://x.org:99999/t': expected is an address",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "cores": {"default": float("nan"), "max": 2}}}},
            "clusters.p.cores.default is nan: expected is a finite number, without quotes.",
        ),
        (
            {"name": "x", "clusters": {"p": {"partition": "p", "hours": {"max": float("inf")}}}},
            "clusters.p.hours.max is inf: expected is a finite number, without quotes.",
        ),
        ({"name": "x", "production": "yes"}, "production is 'yes': expected is true or false, without quotes."),
        ({"name": "x", "login": {"users": "ada"}}, "login.users is 'ada': expected is a list, for example"),
        ({"name": "x", "login": {"client_secret": "abc"}}, "'client_secret'. A secret stands in no file of the site"),
        (
            {"name": "x", "login": {"oidc": {**OIDC, "client_secret": "abc"}}},
            "login.oidc has the unknown key 'client_s",
        ),
    ],
)
def test_what_a_site_lacks_or_contradicts_is_one_sentence_and_the_same_for_hub_and_clusters(content, said):
    hub, clusters = verdicts(content)
    assert said in hub
    assert hub == clusters
    assert "^" not in hub, "a pattern is shown instead of words"


def test_a_secret_in_the_site_file_is_told_where_it_belongs_and_is_not_repeated():
    content = {"name": "x", "login": {"oidc": {**OIDC, "client_secret": "hunter2hunter2"}}}
    for said in verdicts(content):
        assert "PHIDIAS_OIDC_SECRET" in said
        assert "docs/operate/hub.md" in said
        assert "Did you mean" not in said
        assert "hunter2" not in said


def test_every_pattern_of_the_schema_says_in_words_what_it_admits():
    def parts(value):
        if isinstance(value, dict):
            yield value
            for inner in value.values():
                yield from parts(inner)

    patterns = [part for part in parts(site.schema()) if isinstance(part.get("pattern"), str)]
    assert len(patterns) > 15
    assert [part for part in patterns if not part.get("expected")] == []


DOCUMENTED = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.S), 1)
]


@pytest.mark.parametrize("text", DOCUMENTED)
def test_what_the_documentation_shows_of_a_site_file_is_accepted(text):
    content = {"name": "x", **tomllib.loads(text)}
    hub, clusters = verdicts(content)
    assert isinstance(hub, dict), hub
    assert hub == clusters
    assert all(content[part].keys() <= hub[part].keys() for part in content if part != "name")


def places(value, path=()):
    """Every place in a site, as the keys that lead there."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from places(inner, (*path, key))


@settings(max_examples=150, deadline=None)
@given(
    content=st.sampled_from(SITES).map(lambda f: tomllib.loads(f.read_text())),
    do=st.sampled_from(["remove", "replace", "add"]),
    value=st.sampled_from(["", "slurm", "oidc", "x; y", 0, -1, 99, 0.5, True, [], ["a"], {}, {"max": 1, "default": 2}]),
    data=st.data(),
)
def test_whatever_is_changed_in_a_site_hub_and_clusters_agree_about_it(content, do, value, data):
    *above, key = data.draw(st.sampled_from(list(places(content))))
    part = content
    for step in above:
        part = part[step]
    if do == "remove":
        del part[key]
    else:
        part[key if do == "replace" else key + "s"] = value
    hub, clusters = verdicts(content)
    assert hub == clusters


def test_a_site_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(site.SiteError, match=r"There is no site file .*nowhere.toml. Name one in PHIDIAS_SITE"):
        site.read(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(site.SiteError, match=r"broken.toml is not valid TOML"):
        site.read(tmp_path / "broken.toml")
    (tmp_path / "deep.toml").write_text("name = " + "[" * 3000)
    for read, refusal in ((site.read, site.SiteError), (lab_site.read, ParameterError)):
        with pytest.raises(refusal, match=r"deep.toml is nested too deeply\. Mend the place with the many brackets\."):
            read(tmp_path / "deep.toml")


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
