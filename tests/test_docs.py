"""The documentation builds offline without a warning, follows the declarations, and fetches nothing from other hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The built pages; notebooks are shown without running them, which tests/test_notebooks.py does."""
    copy = tmp_path_factory.mktemp("checkout")
    left_out = shutil.ignore_patterns("_build", "chains", "commands", "notebooks", "__pycache__", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=left_out)
    for name in ("notebooks", "system-packages.txt"):
        (copy / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html"]],
        cwd=copy,
        # A proxy that answers nothing: whoever asks another host is refused at once.
        env={**os.environ, "PYTHONPATH": path, "DOCS_NOTEBOOKS": "off", "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "docs" / "_build" / "html"


class Loaded(HTMLParser):
    """The addresses that a browser fetches by itself when it shows a page."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "link" and {"next", "prev", "canonical", "search"} & set((attributes.get("rel") or "").split()):
            return
        for name in ("src", "srcset", "data", "href"):
            if attributes.get(name) and (name != "href" or tag == "link"):
                self.found.append(attributes[name])


def outside(page: str) -> list[str]:
    """Addresses on other hosts that showing this page would fetch."""
    parser = Loaded()
    parser.feed(page)
    fetched = [address for address in parser.found if re.match(r"(https?:)?//", address)]
    styles = re.findall(r"<style.*?</style>", page, re.DOTALL)
    return fetched + [a for s in styles for a in re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", s)]


def test_no_page_fetches_anything_from_another_host(html):
    pages = sorted(html.rglob("*.html"))
    assert len(pages) > 25
    assert {p.relative_to(html).as_posix(): found for p in pages if (found := outside(p.read_text()))} == {}
    for sheet in html.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/x.css">',
        '<img src="http://example.org/x.png">',
        "<style>p { background: url(https://example.org/x.png) }</style>",
    ],
)
def test_a_tag_that_fetches_from_another_host_would_be_found(tag):
    assert len(outside(f"<html>{tag}</html>")) == 1
    assert outside('<a href="https://doi.org/10.5194/gmd-7-225-2014">the paper</a>') == []


VIEW = """
import numpy as np
import xarray as xr
from phidias_lab.widgets import view

places = {"latitude": ("latitude", np.arange(5.0), {"units": "degrees_north"}),
          "longitude": ("longitude", np.arange(6.0), {"units": "degrees_east"})}
field = (("latitude", "longitude"), np.arange(30.0).reshape(5, 6), {"units": "K"})
view(xr.Dataset({"a": field}, coords=places))
"""


@pytest.fixture(scope="module")
def page_with_a_view(tmp_path_factory) -> Path:
    """A page with the view of a notebook that was run, made as `make docs` makes it."""
    import nbformat

    folder = tmp_path_factory.mktemp("view")
    for name in ("conf.py", "generated.py"):
        (folder / "docs").mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / name, folder / "docs")
    shutil.copytree(ROOT / "docs" / "_static", folder / "docs" / "_static")
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells = [nbformat.v4.new_markdown_cell("# A view"), nbformat.v4.new_code_cell(VIEW)]
    nbformat.write(notebook, folder / "docs" / "index.ipynb")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "-b",
            "html",
            "-D",
            "exclude_patterns=chains,commands",
            "docs",
            "html",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html" / "index.html"


def test_a_page_with_a_view_asks_no_other_host_when_a_browser_shows_it(page_with_a_view, needs):
    chromium = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, asked, errors = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_with_a_view.as_uri())
        page.wait_for_function("document.querySelector('.bk-Figure, [class*=bk-panel]') !== null", timeout=60_000)
        page.wait_for_load_state("networkidle")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []


def test_every_chain_has_a_page_with_all_that_it_declares(html):
    from phidias_lab.contract import registry

    for chain_id in registry.chains():
        chain = registry.chain(chain_id).describe()
        page = (html / "chains" / f"{chain_id}.html").read_text()
        said = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)).replace("’", "'")
        for declared in ("parameters", "inputs", "outputs"):
            for name in chain[declared]:
                assert f'<span class="pre">{name}</span>' in page, f"{chain_id}: {declared} {name}"
        for parameter in chain["parameters"].values():
            # Quotes and dashes are set typographically on the page, so only letters are compared.
            assert letters(parameter["doc"]) in letters(said), f"{chain_id}: {parameter['name']}"
        for reference in chain["references"]:
            assert letters(reference) in letters(said)


def test_units_that_depend_on_a_choice_are_told_in_words(html):
    page = (html / "chains" / "ocean.gridding.html").read_text()
    assert "the units of the variable chosen" in page
    assert "analysis of the variable chosen" in page
    assert "{variable" not in page


def letters(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def test_every_command_and_subcommand_is_in_the_reference(html):
    page = (html / "commands" / "index.html").read_text()
    for name in ("phidias run", "phidias runs prune", "phidias catalog add", "phidias lake verify", "phidias lab"):
        assert re.search(rf"<h[23]>{name}<", page), name


def test_every_setting_and_every_exit_code_is_explained(html):
    from phidias_lab import errors, settings

    page = (html / "commands" / "settings.html").read_text()
    assert all(f"PHIDIAS_{key.upper()}" in page for key in settings.KEYS)
    page = (html / "commands" / "exit-codes.html").read_text()
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.PhidiasError)]
    assert len(kinds) > 5
    assert all(kind.__name__ in page for kind in kinds)


def test_the_notebooks_pages_say_with_what_they_ran_and_how_long(html):
    import platform
    from importlib.metadata import version

    page = re.sub(r"<[^>]+>", " ", (html / "learn" / "index.html").read_text())
    assert f"ran for this page with Python {platform.python_version()}, phidias-lab {version('phidias-lab')}" in page
    assert f"xarray {version('xarray')}" in page
    assert "Run Time (s)" in page


def test_every_place_with_its_setting_and_default_stands_on_the_page_about_places(monkeypatch):
    from phidias_lab import settings

    for name in (*(f"PHIDIAS_{key.upper()}" for key in settings.KEYS), "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    page = (ROOT / "docs" / "operate" / "places.md").read_text()
    assert set(re.findall(r"PHIDIAS_(\w+)", page)) == {key.upper() for key in settings.KEYS}
    defaults = [settings.lake_root(), settings.runs_root(), settings.workspace(), settings.user_catalog_file()]
    for place in (*defaults, settings.settings_file()):
        assert f"`{str(place).replace(str(Path.home()), '~')}`" in page


def test_the_settings_file_of_the_page_is_read_as_the_page_says():
    from phidias_lab import settings

    page = (ROOT / "docs" / "operate" / "places.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    settings.settings_file().parent.mkdir(parents=True, exist_ok=True)
    settings.settings_file().write_text(example)
    assert settings.workspace() == Path.home() / "notebooks"
    assert Path("/data/catalogues") in settings.catalog_places()


def test_what_to_do_is_said_for_every_exit_code():
    from phidias_lab import errors
    from phidias_lab.services import command_line

    page = (ROOT / "docs" / "do" / "when-something-goes-wrong.md").read_text()
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.PhidiasError)]
    codes = {kind.exit_code for kind in kinds} | {command_line.DIFFERS, command_line.DEFECT, 143}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


def test_every_notebook_is_a_page(html):
    notebooks = [p.relative_to(ROOT / "notebooks") for p in (ROOT / "notebooks").rglob("*.ipynb")]
    notebooks = [p for p in notebooks if not any(part.startswith(".") for part in p.parts)]
    assert notebooks
    assert [p for p in notebooks if not (html / "notebooks" / p.with_suffix(".html")).is_file()] == []


def test_every_extra_stands_on_the_page_about_installing():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "operate" / "install.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(extras)


COMMAND = re.compile(r"(?:^\$ |`)(phidias [^`\n]*)", re.MULTILINE)
PAGES = [
    *("do/run-a-chain", "do/add-your-own-data", "do/export-and-rerun", "do/free-space", "do/when-something-goes-wrong"),
    "do/estimate-length-and-noise",
    "operate/places",
]


@pytest.mark.parametrize("page", PAGES)
def test_a_command_on_a_page_uses_options_that_exist(page):
    import click

    from phidias_lab.services import command_line

    found = COMMAND.findall((ROOT / "docs" / f"{page}.md").read_text())
    assert found
    for line in found:
        words = re.sub(r'"[^"]*"', "text", line).split(" > ")[0].split()[1:]
        command, context = command_line.phidias, click.Context(command_line.phidias, info_name="phidias")
        while isinstance(command, click.Group) and words and command.get_command(context, words[0]):
            command = command.get_command(context, words.pop(0))
            context = click.Context(command, parent=context)
        left = words[0] if words else ""
        assert not isinstance(command, click.Group) or command.name == "run" or not left.isalpha(), f"{line}: {left}"
        said = command.get_help(context)
        if command.name == "run" and words and not words[0].startswith("-"):
            said += command_help(words[0])
        if command.name == "rerun":  # it has the options of the product's chain
            said += command_help("ocean.gridding")
        offered = set(re.findall(r"--[a-z][a-z-]*", said))
        for word in words:
            assert not word.startswith("--") or word in offered, f"{line}: {word}"


def command_help(chain_id: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "phidias_lab", "run", chain_id, "--help"], capture_output=True, text=True, check=True
    )
    return done.stdout
