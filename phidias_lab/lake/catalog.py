"""The catalogues: what the lake holds, found by address (`ocean.observations`) and opened lazily.

The entrance is the first `phidias.yaml` found (checkout, places named by the user, the user's own folder, installation).
Beside its compartments stand the other catalogue files of those places under their own names; the user's own data,
registered with `add`, are in `mine`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import intake
import yaml
from intake.catalog.exceptions import CatalogException
from intake.catalog.local import LocalCatalogEntry

from phidias_lab import settings
from phidias_lab.contract.data import Needs, is_synthetic, with_attributes
from phidias_lab.errors import InputError, ParameterError, ProductError, UnknownNameError, as_sentence, nearest
from phidias_lab.lake import drivers, manifest, readers, trust
from phidias_lab.lake.locks import lock
from phidias_lab.lake.unreadable import errors_of_reading

ENTRANCE = "phidias.yaml"
MINE = "mine"
#: Up to this size a file without manifest is identified by its content, above it by its size and time.
HASHED = 256 * 2**20
_KINDS = {".zarr": "cube", ".nc": "cube", ".nc4": "cube", ".parquet": "table", ".pq": "table", ".csv": "table"}
_DRIVERS = {"cube": "phidias_lab.lake.drivers.Cube", "table": "phidias_lab.lake.drivers.Table"}
_FILES = {"cube": drivers.Cube, "table": drivers.Table}
_CATALOGS = ("yaml_file_cat", "yaml_files_cat")


def open_catalog(path: str | Path | None = None) -> Any:
    """The whole catalogue, or the catalogue file `path`: an intake catalogue, `catalog.ocean.observations.to_dask()`."""
    if path is not None:
        return _file(Path(path))
    found: dict[str, Any] = {}
    entrance = None
    for place in settings.catalog_places():
        files = [place] if place.is_file() else sorted(place.glob("*.yaml")) if place.is_dir() else []
        here = place / ENTRANCE if place.is_dir() else place
        if entrance is None and here.name == ENTRANCE and here.is_file():
            entrance = place
            whole = _file(here)
            found = {name: whole._entries[name] for name in whole} | found
        inside = {f.stem for f in files} if (place / ENTRANCE).is_file() else set()
        for file in files:
            # The files beside an entrance are reached through it, or stand behind the entrance that was found first.
            if file.name != ENTRANCE and file.stem not in found and (not inside or place == settings.user_data()):
                _file(file)
                found[file.stem] = LocalCatalogEntry(
                    name=file.stem,
                    description=f"Entries of {file}",
                    driver="yaml_file_cat",
                    direct_access=True,
                    args={"path": str(file)},
                )
    if entrance is None:
        places = ", ".join(str(p) for p in settings.catalog_places())
        raise InputError(f"No catalogue {ENTRANCE} was found in {places}. Set PHIDIAS_CATALOGS to its folder.")
    return intake.catalog.Catalog.from_dict(found, name="phidias")


def _file(path: Path) -> Any:
    """One catalogue file, read now, so that a mistake in it is said with its name."""
    # Intake gets the very path that was checked; it would expand a relative one, or one with ~, by rules of its own.
    path = path.expanduser().absolute()
    try:
        trust.check_file(path)
        with _quiet():
            catalog = intake.open_catalog(str(path))
            len(list(catalog))
    except FileNotFoundError:
        raise InputError(f"The catalogue {path} does not exist. Check its name, or PHIDIAS_CATALOGS.") from None
    except OSError as error:
        raise InputError(f"The catalogue {path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, CatalogException, ValueError, TypeError, KeyError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"The catalogue {path} is not a catalogue of intake's version 1 ({first}). "
            "It needs 'sources:' with an entry per name; see docs/look-up/catalogues.md."
        ) from None
    return catalog


class _quiet(warnings.catch_warnings):
    """Without intake's remark on every text parameter, that it did not run it as a shell command."""

    def __enter__(self):
        super().__enter__()
        warnings.filterwarnings("ignore", message="Shell command not executed due to getshell=False")


def _walk(catalog: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(address, description of the entry) of all entries, catalogues within catalogues included; opens no data."""
    for name in list(catalog):
        item = catalog._entries[name]
        address = f"{prefix}{name}"
        if _is_catalog(item):
            with _quiet():
                yield from _walk(_opened(item), f"{address}.")
        else:
            yield address, item


def _is_catalog(item: Any) -> bool:
    return any(issubclass(plugin, intake.catalog.Catalog) for plugin in _plugins(item))


def _plugins(item: Any) -> list[type]:
    found = getattr(item, "_plugin", None) or []
    return [p for p in (found.values() if isinstance(found, dict) else found) if isinstance(p, type)]


def _opened(item: Any) -> Any:
    path = item.describe()["args"].get("path", "")
    catalog_dir = getattr(item, "_catalog_dir", "") or ""
    path = re.sub(r"\{\{\s*CATALOG_DIR\s*\}\}", lambda _: catalog_dir, path)
    return _file(Path(path))


def entries(catalog: Any = None) -> list[dict]:
    """What there is, without opening any data: one dictionary per entry, in the order of the catalogues."""
    return [_described(address, item) for address, item in _walk(open_catalog() if catalog is None else catalog)]


def _described(address: str, item: Any) -> dict:
    told = item.describe()
    known = (told.get("metadata") or {}).get("phidias") or {}
    variables = known.get("variables") or {}
    kind = known.get("kind") or {"lake_cube": "cube", "lake_table": "table"}.get(_driver_name(item), "")
    return {
        "address": address,
        "description": told.get("description") or "",
        "kind": kind,
        "compartment": known.get("compartment") or address.partition(".")[0],
        "licence": known.get("licence"),
        "source": known.get("source"),
        "synthetic": bool(known.get("synthetic", False)),
        "dims": list(known.get("dims") or []),
        "bbox": known.get("bbox"),
        "variables": {name: dict(facts or {}) for name, facts in variables.items()},
        "units": {name: (facts or {}).get("units") for name, facts in variables.items()},
        "parameters": {
            p["name"]: {k: p[k] for k in ("description", "type", "default", "allowed", "min", "max") if k in p}
            for p in told.get("user_parameters", [])
        },
    }


def _driver_name(item: Any) -> str:
    return next((plugin.name for plugin in _plugins(item)), "")


def resolve(address: str, catalog: Any = None) -> Any:
    """The catalogue entry of an address such as `ocean.observations`."""
    catalog = open_catalog() if catalog is None else catalog
    # Only the catalogues on the way are read; all of them are when a name has to be offered instead.
    here, parts = catalog, address.split(".")
    for number, part in enumerate(parts):
        item = here._entries[part] if part in list(here) else None
        if item is None or _is_catalog(item) == (number == len(parts) - 1):
            break
        if number == len(parts) - 1:
            return item
        with _quiet():
            here = _opened(item)
    known = dict(_walk(catalog))
    inside = [name for name in known if name.startswith(f"{address}.")]
    if inside:
        raise UnknownNameError(f"{address!r} is a catalogue, not an entry. Choose one of: {', '.join(inside)}.")
    raise UnknownNameError(f"There is no entry {address!r} in the catalogues. {nearest(address, known)}")


def describe(address: str) -> dict:
    """What is known of one entry without opening its data; see `entries`."""
    return _described(address, resolve(address))


def checked_parameters(address: str, parameters: Mapping[str, Any] | None, item: Any = None) -> dict[str, Any]:
    """The parameters of an entry in its own form; unknown names and values that are not allowed are refused.

    A region may also be given as [west, south, east, north] and a time as [start, end], the forms an order holds.
    """
    declared = _described(address, resolve(address) if item is None else item)["parameters"]
    checked = {}
    for name, value in (parameters or {}).items():
        if name not in declared:
            what = nearest(name, declared) if declared else "It has no parameters."
            raise UnknownNameError(f"The entry {address!r} has no parameter {name!r}. {what}")
        if isinstance(value, list | tuple):
            value = ("/" if name == "time" else ",").join(str(v) for v in value)
        value = "" if value is None else value
        if trust.is_computed(value):
            raise ParameterError(
                f"The entry {address!r} was given {name}={value!r}, which intake would run as a template or a call. "
                "Give a plain value."
            )
        allowed = declared[name].get("allowed")
        if allowed is not None and value not in allowed:
            raise ParameterError(
                f"The entry {address!r} was given {name}={value!r}; allowed are {', '.join(map(str, allowed))}."
            )
        if name == "region":
            drivers.parse_region(value)
        elif name == "time":
            drivers.parse_time(value)
        checked[name] = value
    return checked


def source(address: str, parameters: Mapping[str, Any] | None = None, catalog: Any = None) -> Any:
    """The intake source of an entry with its parameters, not yet opened."""
    item = resolve(address, catalog)
    given = checked_parameters(address, parameters, item)
    try:
        with _quiet():
            found = item.get(**given)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"The entry {address!r} cannot be opened with {given}: {as_sentence(error)}") from None
    found.name = address
    return found


def look(reference: Mapping[str, Any]) -> Any:
    """The lazy data of {"entry": ..., "parameters": ...} or {"file": ...} as far as metadata tell, without an identity,
    for which a whole file may have to be read."""
    if "file" in reference:
        return _of_file(_full(reference["file"])).look()
    found = source(reference["entry"], reference.get("parameters"))
    with _quiet(), errors_of_reading(f"The entry {reference['entry']!r}"):
        data = found.look() if hasattr(found, "look") else found.to_dask()
    return _with_origin(data, found)[0]


def open_entry(
    address: str, parameters: Mapping[str, Any] | None = None, needs: Needs | None = None
) -> tuple[Any, dict]:
    """The lazy data of an entry and their identity (see `identity`); of a table only what is needed, if that is said."""
    found = source(address, parameters)
    found.needs = needs
    with _quiet(), errors_of_reading(f"The entry {address!r}", getattr(found, "address", None)):
        data = found.to_dask()
    data, origin = _with_origin(data, found)
    return data, {**_identity(address, parameters, found), **origin}


def _with_origin(data: Any, found: Any) -> tuple[Any, dict[str, Any]]:
    """The data of an entry and their origin; the entry may know what its file does not say."""
    origin = _origin(data, (found.metadata or {}).get("phidias") or {})
    if origin.get("synthetic") and not is_synthetic(data):
        data = with_attributes(data, {**data.attrs, "synthetic": "true"})
    return data, origin


def _of_file(address: str) -> Any:
    found = _FILES[_kind_of(address)](path=address)
    found.name = ""
    return found


def open_file(path: str | Path, needs: Needs | None = None) -> tuple[Any, dict]:
    """The lazy data of a file or store (NetCDF, Zarr, Parquet, CSV) that is in no catalogue, and their identity."""
    address = _full(path)
    found = _of_file(address)
    found.needs = needs
    data = found.to_dask()
    identity = {**_identity(address, None, found), **_origin(data, {})}
    return data, {"file": address, **{k: v for k, v in identity.items() if k not in ("entry", "parameters")}}


def _origin(data: Any, known: Mapping) -> dict[str, Any]:
    """Licence and source of the data and whether they are synthetic, from their entry or else from their own attributes."""
    attrs = dict(getattr(data, "attrs", None) or {})
    told = {
        "license": known.get("licence") or attrs.get("license") or attrs.get("licence"),
        "source": known.get("source") or attrs.get("source"),
        "synthetic": bool(known.get("synthetic")) or is_synthetic(data),
    }
    return {name: value if value is True else str(value) for name, value in told.items() if value}


def identity(address: str, parameters: Mapping[str, Any] | None = None) -> dict:
    """What an input is, for provenance: entry, parameters, path, checksum and bytes; from the manifest, so cheap."""
    return _identity(address, parameters, source(address, parameters))


def _identity(address: str, parameters: Mapping[str, Any] | None, found: Any) -> dict:
    given = {k: v for k, v in (parameters or {}).items() if v not in (None, "")}
    path = getattr(found, "address", None)
    if path is None:
        return {"entry": address, "parameters": given, "path": None, "checksum": None, "bytes": None}
    system, inner = fsspec.core.url_to_fs(path)
    known = manifest.read(path) if system.isdir(inner) else None
    if known:
        checksum, size = f"sha256:{known['checksum']}", known["bytes"]
    else:
        checksum, size = _checksum(system, inner, path)
    # The same bytes under other names or units are other data.
    words = getattr(found, "read_as", {})
    told = {"entry": address, "parameters": given, "path": path, "checksum": checksum, "bytes": size}
    return {**told, **({"read_as": words} if words else {})}


def _checksum(system: Any, inner: str, path: str) -> tuple[str, int]:
    """Of a store without manifest: SHA-256 of its content, or of names, sizes and times (`stat:`) when it is large."""
    try:
        read = readers.find(path)
        if read is not None:
            inner = str(Path(read.paths[0]).parent)
            files = {name: system.info(name) for name in read.all}
        else:
            files = system.find(inner, detail=True) or {inner: system.info(inner)}
        size = sum(info["size"] for info in files.values())
        whole = hashlib.sha256()
        for name in sorted(files):
            part = name.removeprefix(inner)
            if size <= HASHED:
                with system.open(name, "rb") as file:
                    content = hashlib.sha256()
                    while block := file.read(1 << 20):
                        content.update(block)
                if len(files) == 1:
                    return f"sha256:{content.hexdigest()}", size
                whole.update(f"{part}\0{content.hexdigest()}\n".encode())
            else:
                info = files[name]
                stamp = info.get("mtime") or info.get("LastModified") or info.get("ETag") or ""
                whole.update(f"{part}\0{info['size']}\0{stamp}\n".encode())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the name and its permissions."
        ) from None
    return f"{'sha256' if size <= HASHED else 'stat'}:{whole.hexdigest()}", size


def verify(address: str) -> dict:
    """Compare every file of an entry with the SHA-256 of its manifest; an InputError names the first that differs."""
    return manifest.verify(source(address).address)


# The user's own data -----------------------------------------------------------------------------------------------


def _full(path: str | Path) -> str:
    text = str(path)
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())


def _kind_of(address: str) -> str:
    suffix = Path(address).suffix.lower()
    if suffix not in _KINDS and readers.find(address) is None:
        raise InputError(
            f"{address} is of a kind that is not read. Give NetCDF (.nc), Zarr (.zarr), Parquet (.parquet) or CSV (.csv), "
            f"or a folder or a pattern of files called {' or '.join(readers.patterns())}."
        )
    return _KINDS.get(suffix, "cube")


def add(
    file: str | Path,
    name: str | None = None,
    *,
    description: str = "",
    licence: str | None = None,
    source: str | None = None,
    replace: bool = False,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    standard_names: Mapping[str, str] | None = None,
) -> str:
    """Register a file or store of the user's own in the catalogue `mine`; returns its address, `mine.<name>`.

    The data stay where they are. They are opened once, to see that they can be and to note their variables. What the file
    does not say of itself can be said here and stands in the entry: `columns` maps names in the file to those that the
    lab sees; `units` and `standard_names` are by the latter.
    """
    address = _full(file)
    trust.check_path(address)
    kind = _kind_of(address)
    name = name_for(address) if name is None else name
    check_name(name)
    words = {"columns": columns, "units": units, "standard_names": standard_names}
    words = {key: dict(value) for key, value in words.items() if value}
    found = _FILES[kind](path=address, **words)
    found.name = ""
    data = found.to_dask()
    entry = {
        "description": description or f"{kind} {Path(address).name}, registered by the user",
        "driver": _DRIVERS[kind],
        "args": {"path": address, **words},
        "metadata": {"phidias": _facts(data, kind, licence, source)},
    }
    # The data's own attributes become a part of the entry, and with it of what intake reads.
    trust.check_entry(entry, f"{address} as an entry")
    target = settings.user_catalog_file()
    with lock(target.with_name(f".{target.name}.lock"), what="The catalogue of your own data"):
        content = _content(target)
        if not replace:
            _refuse_taken(name, content)
        content["sources"][name] = entry
        _write(target, content)
    return f"{MINE}.{name}"


def name_for(path: str | Path) -> str:
    """The name that an entry has after its file, if its user gives none."""
    return re.sub(r"\W+", "_", Path(path).stem).strip("_").lower()


def check_name(name: str, free: bool = False) -> None:
    """Refuse what is no name for an entry; with `free`, a name that an entry of the user's own has already."""
    if not re.fullmatch(r"[A-Za-z_]\w{0,63}", name, re.ASCII):
        raise ParameterError(
            f"{name!r} is no name for an entry. Use letters, digits and underscores, beginning with a letter, such as "
            f"{re.sub(r'[^A-Za-z0-9]+', '_', 'data_' + name).strip('_').lower()!r}."
        )
    if free:
        _refuse_taken(name, _content(settings.user_catalog_file()))


def _refuse_taken(name: str, content: Mapping) -> None:
    if name in content["sources"]:
        raise ParameterError(
            f"The catalogue already has an entry 'mine.{name}' ({content['sources'][name]['args'].get('path')}). "
            "Give another name (--name), or replace it with --replace (in Python: replace=True)."
        )


def remove(name: str) -> None:
    """Take an entry of the user's own out of the catalogue `mine`; the data stay."""
    target, name = settings.user_catalog_file(), name.removeprefix(f"{MINE}.")
    with lock(target.with_name(f".{target.name}.lock"), what="The catalogue of your own data"):
        content = _content(target)
        if name not in content["sources"]:
            raise UnknownNameError(f"There is no entry 'mine.{name}'. {nearest(name, content['sources'])}")
        del content["sources"][name]
        _write(target, content)


def _facts(data: Any, kind: str, licence: str | None, source: str | None) -> dict:
    """What an entry says about itself, from the data's own attributes."""
    attrs = dict(getattr(data, "attrs", None) or {})
    if kind == "cube":
        variables = {str(n): dict(v.attrs) for n, v in data.data_vars.items()}
        dims = {"dims": [str(d) for d in data.sizes]}
    else:
        described = attrs.get("columns") or {}
        variables, dims = {str(c): described.get(c, {}) for c in data.columns}, {}
    return {
        "compartment": MINE,
        "kind": kind,
        "licence": licence or _text(attrs.get("licence") or attrs.get("license")),
        "source": source or _text(attrs.get("source")),
        "synthetic": is_synthetic(data),
        **dims,
        "variables": {
            n: {k: str(a[k]) for k in ("units", "standard_name", "long_name") if a.get(k) is not None}
            for n, a in variables.items()
        },
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _content(target: Path) -> dict:
    """The content of the user's catalogue file, or an empty one."""
    if not target.exists():
        return {"metadata": {"version": 1, "description": "Data registered by the user"}, "sources": {}}
    try:
        content = yaml.safe_load(target.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("sources") or {}, dict):
        raise InputError(f"The catalogue {target} is not valid. Mend or remove it; your data are not touched.")
    content.setdefault("metadata", {"version": 1})
    content["sources"] = content.get("sources") or {}
    return content


def _write(target: Path, content: dict) -> None:
    """Replace the file in one step, so that no reader ever meets half of it."""
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True, width=120)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ProductError(
            f"The catalogue {target} cannot be written ({error.strerror}). Check its permissions."
        ) from None
