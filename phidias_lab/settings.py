"""Where this lab keeps things. Read from the environment, then the user's settings file, then a default.

    PHIDIAS_LAKE       root of the data lake: a folder or an fsspec address such as s3://bucket/lake
    PHIDIAS_RUNS       folder of the run records
    PHIDIAS_CATALOGS   further catalogue files or folders, separated like PATH
    PHIDIAS_SITE       the site file, which says where clusters and runs may go (see compute/site.py)
    PHIDIAS_WORKSPACE  folder that `phidias lab` opens, with your own copies of the notebooks

The settings file is `settings.yaml` in the user's configuration folder, with the keys `lake`, `runs`, `catalogs`, `site`,
`workspace`.
Nothing here is cached, so a test or a notebook may change the environment at any time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs
import yaml

from phidias_lab.errors import ParameterError, nearest

APP = "phidias_lab"
KEYS = ("lake", "runs", "catalogs", "site", "workspace")


def user_data() -> Path:
    """The user's own folder for data of the lab."""
    return Path(platformdirs.user_data_dir(APP, appauthor=False))


def settings_file() -> Path:
    return Path(platformdirs.user_config_dir(APP, appauthor=False)) / "settings.yaml"


def _from_file() -> dict:
    path = settings_file()
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"The settings file {path} cannot be read: {error.strerror}. Mend or remove it.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ParameterError(f"The settings file {path} is not valid YAML ({error}). Mend or remove it.") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ParameterError(f"The settings file {path} must hold keys and values; known keys: {', '.join(KEYS)}.")
    for key, value in content.items():
        if key not in KEYS:
            raise ParameterError(f"The settings file {path} has the unknown key {key!r}. {nearest(key, KEYS)}")
        if key == "catalogs" and isinstance(value, list) and all(isinstance(v, str) for v in value):
            content[key] = os.pathsep.join(value)
        elif value is not None and not isinstance(value, str):
            wanted = "a path, or a list of paths" if key == "catalogs" else "a path"
            raise ParameterError(f"The settings file {path} has {key}: {value!r}, which must be {wanted}.")
    return content


def _setting(key: str, default: str) -> str:
    value = os.environ.get(f"PHIDIAS_{key.upper()}") or _from_file().get(key)
    return str(value) if value else default


def lake_root() -> str:
    """Root of the lake, as a folder or an fsspec address, without a trailing slash."""
    root = _setting("lake", str(user_data() / "lake"))
    return root.rstrip("/") if "://" in root else str(Path(root).expanduser().absolute())


def lake_path(relative: str) -> str:
    """The address of something in the lake: `ocean/truth.zarr` below the lake's root."""
    return f"{lake_root()}/{relative.lstrip('/')}"


def runs_root() -> Path:
    """Folder of the run records."""
    return _folder("runs", "run records need")


def workspace() -> Path:
    """The folder that Jupyter opens, with the user's own copies of the shipped notebooks."""
    return _folder("workspace", "notebooks need")


def _folder(key: str, purpose: str) -> Path:
    """A place that has to be a folder of this machine."""
    root = _setting(key, str(user_data() / key))
    if "://" in root:
        raise ParameterError(f"PHIDIAS_{key.upper()} is {root}, but {purpose} a folder on this machine. Name a folder.")
    return Path(root).expanduser().absolute()


def site_file() -> Path | None:
    """The site file that the environment or the settings name."""
    named = _setting("site", "")
    return Path(named).expanduser().absolute() if named else None


def checkout_root() -> Path | None:
    """The root of the source checkout this package runs from, or None when it is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "catalogs").is_dir() else None


def notebooks() -> Path | None:
    """The notebooks as they are shipped: those of the checkout, else those that were installed, else None."""
    checkout = checkout_root()
    places = [checkout / "notebooks"] if checkout else []
    places.append(Path(sys.prefix) / "share" / APP / "notebooks")
    return next((place for place in places if place.is_dir()), None)


def user_catalog_file() -> Path:
    """The catalogue that `phidias catalog add` writes."""
    return user_data() / "catalogs" / "mine.yaml"


def catalog_places() -> list[Path]:
    """Files and folders that are searched for catalogues, in order: checkout, named by the user, user's own, installed."""
    places: list[Path] = []
    checkout = checkout_root()
    if checkout:
        places.append(checkout / "catalogs")
    named = _setting("catalogs", "")
    places += [Path(p).expanduser() for p in named.split(os.pathsep) if p]
    places.append(user_data() / "catalogs")
    places.append(Path(sys.prefix) / "share" / APP / "catalogs")
    return places
