"""How the documentation is built. Pages that repeat a declaration are written here from the declaration itself."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
# nbformat goes on without it; it compiles a grammar at its import, which takes seconds.
sys.modules["rfc3987_syntax"] = None

import generated  # noqa: E402

from phidias_lab import __version__  # noqa: E402

project = "phidias_lab"
author = "the phidias_lab developers"
project_copyright = author
version = release = __version__

extensions = ["myst_nb"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_substitutions = {"versions": generated.versions()}
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"phidias_lab {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
# Nothing is fetched from other hosts, so pages read the same without a network.
nb_ipywidgets_js = {}
# Views bring this beside their HTML for a live kernel; a page needs only the HTML.
suppress_warnings = ["mystnb.unknown_mime_type"]
# Notebooks are shown as they come out of a run on the demo lake; DOCS_NOTEBOOKS=off shows their text and code alone.
nb_execution_mode = "off" if os.environ.get("DOCS_NOTEBOOKS") == "off" else "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True


def _copy_notebooks() -> None:
    """The notebooks as pages, from the one folder where they live."""
    shutil.rmtree(HERE / "notebooks", ignore_errors=True)
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if not any(part.startswith(".") for part in path.parts):
            copy = HERE / "notebooks" / path.relative_to(ROOT / "notebooks")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


def _own_lake() -> None:
    """Runs of the notebooks, and the demo lake they read, stay inside the build folder."""
    os.environ["PHIDIAS_LAKE"] = str(HERE / "_build" / "lake")
    os.environ["PHIDIAS_RUNS"] = str(HERE / "_build" / "runs")
    if nb_execution_mode != "off":
        from phidias_lab.demo import build_demo

        build_demo()


def setup(app) -> None:
    _copy_notebooks()
    generated.write(HERE)
    _own_lake()
