"""What a catalogue file may say before it is handed to intake, which trusts its files.

Intake imports whatever class an entry names as its driver, and renders every text of an entry, and the folder of the
catalogue, as a Jinja template with access to Python. A catalogue that came from elsewhere could thereby run any command.
So the lab reads the file as plain YAML first and lets through only known drivers and the two plain templates
`{{ CATALOG_DIR }}` and `{{ parameter }}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from phidias_lab.errors import InputError

_MARKS = ("{{", "{%", "{#")
_TEMPLATE = re.compile(r"\{\{ *([A-Za-z_][A-Za-z0-9_]*) *\}\}")
# Intake replaces such a value of a parameter by the environment's, or by what the command prints.
_CALL = re.compile(r"(client_)?(env|shell)\(")
_NESTED = "yaml_file_cat"
_DRIVERS = {"lake_cube", "lake_table", _NESTED, "phidias_lab.lake.drivers.Cube", "phidias_lab.lake.drivers.Table"}
_KEYS = {"description", "driver", "args", "metadata", "parameters", "direct_access"}


def texts(value: Any) -> Iterator[str]:
    """All texts within a value, however deep; the keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from texts(inner)


def is_template(text: str) -> bool:
    """Whether intake would render the text, not take it as it stands."""
    return any(mark in text for mark in _MARKS)


def is_computed(value: Any) -> bool:
    """Whether intake would compute the value of a parameter, not take it as it stands."""
    return any(is_template(text) or _CALL.match(text) for text in texts(value))


def check_path(path: str | Path) -> None:
    """Refuse a path that intake would render: the folder of a catalogue is a part of each of its entries."""
    if is_template(str(path)):
        raise InputError(
            f"{str(path)!r} contains '{{{{', '{{%' or '{{#', which intake would run as a template. "
            "Rename the file, or the folder that is called so."
        )


def check_file(path: Path, _seen: Collection[Path] = ()) -> None:
    """Refuse a catalogue file, or one that it nests, with an entry that is more than a description of data."""
    path = Path(path).absolute()
    if path.resolve() in _seen:
        raise InputError(f"The catalogue {path} contains itself. Take out the entry that leads back to it.")
    check_path(path)
    if re.search(r"[*?\[]|::", str(path)):
        raise InputError(
            f"The catalogue {str(path)!r} has one of *, ?, [ or :: in its path. Rename the file or folder."
        )
    # A file that is not there or cannot be read is refused by its reader, with the reason.
    if not path.is_file():
        return
    try:
        nested = _nested(path.read_bytes().decode(), str(path))
    except RecursionError:
        raise InputError(f"The catalogue {path} is nested too deeply to be one. Check the file.") from None
    for entry, inner in nested:
        if ":" in inner:
            raise InputError(
                f"The catalogue {path}, entry {entry!r}: a catalogue within a catalogue is read from a folder only, not "
                f"from {inner!r}. Copy it to this machine first."
            )
        inner = inner.replace("{{CATALOG_DIR}}", str(path.parent))
        check_file(Path(inner).expanduser(), [*_seen, path.resolve()])


@lru_cache(maxsize=64)
def _nested(text: str, path: str) -> list[tuple[str, str]]:
    """(entry, path) of the catalogues that a catalogue's text names, once all of its entries are found harmless."""
    # Intake takes this old mark out of the text before it reads it, and what remains could be anything.
    if "!template" in text:
        raise InputError(f"The catalogue {path} contains '!template', which is not read. Take it out.")
    content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  a safe loader
    if not isinstance(content, dict):
        return []
    if "plugins" in content:
        raise InputError(f"The catalogue {path} wants to import modules ('plugins:'). Take that section out.")
    if any(is_computed(value) for key, value in content.items() if key != "sources"):
        raise InputError(f"The catalogue {path} has a template or a call outside its entries. Write plain text there.")
    sources = content.get("sources")
    found = []
    for name, entry in sources.items() if isinstance(sources, dict) else ():
        if isinstance(entry, dict):
            check_entry(entry, f"The catalogue {path}, entry {name!r}")
            if entry.get("driver") == _NESTED:
                found.append((str(name), _TEMPLATE.sub("{{CATALOG_DIR}}", entry["args"]["path"])))
    return found


def check_entry(entry: dict, label: str) -> None:
    """Refuse an entry with a driver, a template or a key that could do more than open data."""
    odd = next((key for key in entry if key not in _KEYS), None)
    if odd is not None:
        raise InputError(f"{label}: {odd!r} is not read. An entry has {', '.join(sorted(_KEYS))}.")
    driver = entry.get("driver")
    if not isinstance(driver, str) or not (driver in _DRIVERS or _installed(driver)):
        raise InputError(
            f"{label}: the driver {driver!r} is none of those installed. Use lake_cube or lake_table, or install the "
            "package that brings it."
        )
    parameters = entry.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    args = entry.get("args")
    only_path = isinstance(args, dict) and set(args) == {"path"} and isinstance(args["path"], str) and not parameters
    if driver == _NESTED and not only_path:
        raise InputError(f"{label}: a catalogue within a catalogue has 'args: {{path: ...}}' and nothing else.")
    for part in ("description", "metadata", "parameters"):
        if is_computed(entry.get(part)):
            raise InputError(
                f"{label}: its {part} has a template ({', '.join(_MARKS)}) or a call such as env(...), which intake "
                "would run. Write plain text."
            )
    for text in texts({k: v for k, v in entry.items() if k not in ("description", "metadata", "parameters")}):
        _check_templates(text, {"CATALOG_DIR", *parameters}, label)


def _check_templates(text: str, names: Collection[str], label: str) -> None:
    # From the left, as Jinja reads: '{{{ a }}' is no plain template although it contains one.
    position, plain = 0, not any(mark in text for mark in _MARKS[1:])
    while plain and (position := text.find("{{", position)) >= 0:
        match = _TEMPLATE.match(text, position)
        plain = match is not None and match[1] in names
        position = match.end() if match else position
    if not plain:
        raise InputError(
            f"{label}: {text[:200]!r} is a template that intake would run. Only {{{{ CATALOG_DIR }}}} and the name of a "
            "parameter of the entry in double braces are read."
        )


def _installed(driver: str) -> bool:
    """Whether a package that is installed announces a driver of this name; a dotted name would import any module."""
    return "." not in driver and ":" not in driver and driver in {e.name for e in entry_points(group="intake.drivers")}
