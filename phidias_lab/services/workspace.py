"""The user's workspace: the folder that Jupyter opens, with the user's own copies of the shipped notebooks.

The shipped notebooks are never opened themselves, so that a session leaves a checkout as it was. The workspace is prepared
before each start, by `phidias lab` or by whatever else starts a Jupyter server for a user. What the user changed is never
overwritten: the file `.phidias.json` of the workspace remembers which shipped versions were put there, so that a copy which
is none of them is known to be the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path

from phidias_lab import settings
from phidias_lab.errors import ParameterError, ProductError

RECORD = ".phidias.json"
#: The notebook to begin with.
ENTRANCE = "start_here.ipynb"


def prepare_workspace(
    folder: str | Path | None = None, *, shipped: str | Path | None = None, fresh: bool = False
) -> list[str]:
    """Bring a workspace up to date with the shipped notebooks; returns what the user should know, one sentence each.

    A notebook that is absent is copied; a copy that the user never changed follows the shipped one. Where the user changed
    it, a newer shipped version is placed beside (`start_here.new.ipynb`), once. With `fresh` each shipped notebook stands
    there as shipped, and the user's changed one is kept beside (`start_here.mine.ipynb`).

    folder: the workspace, `settings.workspace()` unless given. shipped: the folder of the notebooks,
    `settings.notebooks()` unless given; without any the workspace is just made.
    """
    folder = settings.workspace() if folder is None else Path(folder).expanduser().absolute()
    shipped = settings.notebooks() if shipped is None else Path(shipped)
    if shipped is not None and folder.resolve().is_relative_to(shipped.resolve()):
        raise ParameterError(
            f"The workspace {folder} lies in the folder of the shipped notebooks, which stay as they are. "
            "Set PHIDIAS_WORKSPACE to another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [] if shipped is None else _bring(shipped, folder, fresh)
    except OSError as error:
        raise ProductError(
            f"The workspace {folder} cannot be written ({error.strerror or error}). Free some space there, or set "
            "PHIDIAS_WORKSPACE to a folder of your own."
        ) from None


def _bring(shipped: Path, folder: Path, fresh: bool) -> list[str]:
    placed, said = _read(folder / RECORD), []
    before = json.dumps(placed)
    for source in sorted(shipped.rglob("*.ipynb")):
        name = source.relative_to(shipped)
        if any(part.startswith(".") for part in name.parts):
            continue
        content, target = source.read_bytes(), folder / name
        versions = placed.setdefault(name.as_posix(), [])
        known = _digest(content) in versions
        if not known:
            versions.append(_digest(content))
        mine = target.read_bytes() if target.exists() else None
        if mine == content:
            continue
        if mine is None or _digest(mine) in versions:
            _write(target, content)
        elif fresh:
            kept = _free(target, "mine")
            os.replace(target, kept)
            _write(target, content)
            said.append(f"{name} is a fresh copy; yours is kept as {kept.relative_to(folder)}.")
        elif not known:
            beside = _free(target, "new")
            _write(beside, content)
            said.append(f"A newer {name} was shipped; you changed yours, so it is placed beside as {beside.name}.")
    if json.dumps(placed) != before:
        _write(folder / RECORD, json.dumps(placed, indent=1).encode())
    return said


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(record: Path) -> dict[str, list[str]]:
    """Which versions of each notebook were placed. A record that is lost or damaged makes every file the user's own."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return {str(name): [str(version) for version in versions] for name, versions in found.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}


def _free(target: Path, word: str) -> Path:
    """`start_here.new.ipynb`, or with a number where that is taken."""
    beside = target.with_suffix(f".{word}{target.suffix}")
    number = 2
    while beside.exists():
        beside = target.with_suffix(f".{word}-{number}{target.suffix}")
        number += 1
    return beside


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a disk that fills up leaves no half notebook under the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
