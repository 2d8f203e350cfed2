"""What a store of the lake consists of: every file with its size and SHA-256, in `_phidias.json` inside the store.

With it a store says whether it is whole. Opening compares names and sizes; reading a Zarr chunk compares the chunk's
SHA-256; `verify` compares everything. Without it a missing Zarr chunk would silently read as fill values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
from zarr.storage import WrapperStore

from phidias_lab.errors import InputError
from phidias_lab.lake.unreadable import MEND, mend

NAME = "_phidias.json"
FORMAT = 1
#: Above this number of files, opening a store does not look at each of them; reading and verifying still do.
LISTED = 5000


def digest(path: str | Path) -> str:
    """SHA-256 of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, *, entry: str, kind: str, version: str, facts: Mapping[str, Any] | None = None) -> dict:
    """Record all files of a store that was just written; returns the manifest. Holds no time, so equal stores are equal."""
    files = {}
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name != NAME):
        files[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest(path)]
    manifest = {
        "phidias_lake": FORMAT,
        "entry": entry,
        "kind": kind,
        "version": version,
        **(facts or {}),
        "bytes": sum(size for size, _ in files.values()),
        "checksum": checksum(files),
        "files": files,
    }
    (Path(folder) / NAME).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def checksum(files: Mapping[str, list]) -> str:
    """One SHA-256 for all files of a store."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{files[name][1]}\n".encode())
    return whole.hexdigest()


def read(address: str) -> dict | None:
    """The manifest of a store, or None when it has none."""
    system, path = fsspec.core.url_to_fs(address)
    try:
        text = system.cat_file(f"{path.rstrip('/')}/{NAME}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{address} cannot be read: {error.strerror or error}. Check its permissions.") from None
    try:
        manifest = json.loads(text)
        form, files = manifest["phidias_lake"], manifest["files"]
        good = isinstance(files, dict) and checksum(files) == manifest["checksum"]
    except (ValueError, KeyError, TypeError, IndexError):
        form, good = FORMAT, False
    if form != FORMAT:
        raise InputError(f"{address} was written in form {form!r}; this version reads form {FORMAT}. {mend(address)}")
    if not good:
        raise InputError(f"The list of files {address}/{NAME} is damaged. {mend(address)}")
    return manifest


def check_sizes(address: str, manifest: Mapping) -> None:
    """Refuse a store of which a file is missing or has another size: names and sizes only, so it is quick."""
    expected = manifest["files"]
    if len(expected) > LISTED:
        return
    system, path = fsspec.core.url_to_fs(address)
    root = path.rstrip("/") + "/"
    try:
        found = {name.removeprefix(root): info["size"] for name, info in system.find(path, detail=True).items()}
    except OSError as error:
        raise InputError(f"{address} cannot be listed: {error.strerror or error}. Check its permissions.") from None
    for name, (size, _) in expected.items():
        if name not in found:
            raise InputError(f"{address} is incomplete: its file {name} is missing. {mend(address)}")
        if found[name] != size:
            raise InputError(
                f"{address} is damaged: its file {name} has {found[name]} bytes instead of {size}. {mend(address)}"
            )


def verify(address: str) -> dict:
    """Read every file of a store and compare it with the manifest; {"files", "bytes", "checksum"} when all is well."""
    manifest = read(address)
    if manifest is None:
        if mend(address) is MEND:
            raise InputError(f"{address} has no list of its files ({NAME}), so it cannot be verified. {MEND}")
        raise InputError(
            f"{address} has no checksums beside it, so it cannot be verified: only data of the lake have them. Each product "
            "made from it records the checksum it had; 'phidias rerun' compares."
        )
    check_sizes(address, manifest)
    system, path = fsspec.core.url_to_fs(address)
    for name, (_, expected) in manifest["files"].items():
        found = hashlib.sha256()
        try:
            with system.open(f"{path.rstrip('/')}/{name}", "rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
        except OSError as error:
            raise InputError(
                f"{address}: its file {name} cannot be read ({error.strerror or error}). {mend(address)}"
            ) from None
        if found.hexdigest() != expected:
            raise InputError(f"{address} is damaged: the content of its file {name} has changed. {mend(address)}")
    return {"files": len(manifest["files"]), "bytes": manifest["bytes"], "checksum": manifest["checksum"]}


class CheckedStore(WrapperStore):
    """A Zarr store that hands out only what its manifest lists: a missing or changed chunk is an error, not a fill value."""

    def __init__(self, store: Any, address: str = "", files: Mapping[str, list] | None = None):
        super().__init__(store)
        self.address, self.files = address, dict(files or {})

    def _with_store(self, store: Any) -> CheckedStore:
        return type(self)(store, self.address, self.files)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        expected = self.files.get(key)
        if expected is None:
            return value
        if value is None:
            raise InputError(f"{self.address} is incomplete: its file {key} is missing. {mend(self.address)}")
        if byte_range is None and hashlib.sha256(value.to_bytes()).hexdigest() != expected[1]:
            raise InputError(
                f"{self.address} is damaged: the content of its file {key} has changed. {mend(self.address)}"
            )
        return value

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        # The manifest is no part of the Zarr hierarchy; zarr warns of what it does not know.
        async for name in super().list_dir(prefix):
            if name != NAME:
                yield name

    def __dask_tokenize__(self) -> tuple:
        return ("phidias_lab.lake.CheckedStore", self.address, checksum(self.files))
