"""The order: chain, version, parameters and inputs as one JSON document. Every door speaks it, every product holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phidias_lab.contract.parameters import is_writable, show
from phidias_lab.errors import ParameterError, kind_of, nearest

FORMAT = 1
FIELDS = ("phidias_order", "chain", "version", "parameters", "inputs", "output", "title")
#: Forms in which an input may be named.
REFERENCES = ("entry", "file", "stored")
OUTPUT_FIELDS = ("format", "path", "overwrite")


@dataclass(frozen=True)
class Order:
    """One run that was asked for. Inputs are references: {"entry": "ocean.observations", "parameters": {...}},
    {"file": "my.nc"} or {"stored": "observations.parquet", "sha256": "..."} beside the run."""

    chain: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Mapping] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None

    def document(self) -> dict:
        document = {
            "phidias_order": FORMAT,
            "chain": self.chain,
            "version": self.version,
            "parameters": dict(self.parameters),
            "inputs": {name: dict(ref) for name, ref in self.inputs.items()},
        }
        if self.output:
            document["output"] = dict(self.output)
        if self.title:
            document["title"] = self.title
        return document

    def dumps(self) -> str:
        """Canonical text: sorted keys, so that equal orders are equal bytes."""
        return json.dumps(self.document(), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """What identifies the science of the order: everything but its title and where the product goes."""
        science = {k: v for k, v in self.document().items() if k not in ("title", "output")}
        return hashlib.sha256(json.dumps(science, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def with_(self, **changes: Any) -> Order:
        return replace(self, **changes)


def from_document(document: Any, source: str = "The order") -> Order:
    """An order from its JSON document; every departure from the form is said in a sentence."""
    if not isinstance(document, Mapping):
        raise ParameterError(f"{source} must be a JSON object with the key 'chain'; it is {kind_of(document)}.")
    for key in document:
        if key not in FIELDS:
            raise ParameterError(f"{source} has the unknown key {key!r}. {nearest(key, FIELDS)}")
    if document.get("phidias_order", FORMAT) != FORMAT:
        raise ParameterError(
            f"{source} is written in form {document['phidias_order']!r}; this version reads form {FORMAT}. "
            "Use the version of phidias_lab that wrote it."
        )
    chain = document.get("chain")
    if not isinstance(chain, str) or not chain:
        raise ParameterError(f'{source} must name its chain, for example "chain": "ocean.gridding".')
    version = document.get("version", "")
    if not isinstance(version, str):
        raise ParameterError(f'{source} has the version {version!r}; a version is a text such as "1.0".')
    parameters, inputs, output = (document.get(k) or {} for k in ("parameters", "inputs", "output"))
    for key, value in (("parameters", parameters), ("inputs", inputs), ("output", output)):
        if not isinstance(value, Mapping):
            raise ParameterError(f"{source}: {key!r} must be a JSON object; it is {kind_of(value)}.")
    for key, value in output.items():
        if key not in OUTPUT_FIELDS:
            raise ParameterError(f"{source}: 'output' has the unknown key {key!r}. {nearest(key, OUTPUT_FIELDS)}")
        kind, called = (bool, "true or false") if key == "overwrite" else (str, "a text")
        if value is not None and not (isinstance(value, kind) and (kind is bool or _is_path(value))):
            raise ParameterError(f"{source}: 'output' has the {key} {show(value)}; it must be {called}.")
    title = document.get("title")
    if title is not None and (not isinstance(title, str) or len(title) > 200 or not is_writable(title)):
        raise ParameterError(f"{source}: the title must be a text of at most 200 characters.")
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"{source} has parameters that JSON cannot hold: {error}. Write plain values.") from None
    return Order(
        chain=chain,
        version=version,
        parameters=dict(parameters),
        inputs={str(n): reference(r, f"{source}, input {n!r}") for n, r in inputs.items()},
        output={k: v for k, v in output.items() if v is not None},
        title=title or None,
    )


def _is_path(text: str) -> bool:
    return bool(text.strip()) and "\0" not in text and is_writable(text)


def reference(value: Any, source: str = "The input") -> dict:
    """An input reference from its short or long form; a text is a file when it looks like one, else an entry."""
    if isinstance(value, str | Path) and not _is_path(str(value)):
        raise ParameterError(f"{source} was given {show(str(value))}; a catalogue entry or a file must be named.")
    if isinstance(value, Path):
        return {"file": str(value)}
    if isinstance(value, str):
        looks_like_file = "/" in value or "\\" in value or "://" in value or value.startswith((".", "~"))
        suffix = value.rsplit(".", 1)[-1].lower() if "." in value else ""
        if looks_like_file or suffix in ("nc", "nc4", "zarr", "parquet", "csv", "tif", "tiff", "json", "geojson"):
            return {"file": value}
        return {"entry": value}
    if isinstance(value, Mapping):
        kinds = [k for k in REFERENCES if k in value]
        if len(kinds) != 1 or not isinstance(value[kinds[0]], str) or not _is_path(value[kinds[0]]):
            raise ParameterError(
                f'{source} must name one of an entry, a file or stored data, as in {{"entry": "ocean.observations"}}; '
                f"got {show(value)}."
            )
        allowed = {"entry": ("entry", "parameters"), "file": ("file",), "stored": ("stored", "sha256")}[kinds[0]]
        for key in value:
            if key not in allowed:
                raise ParameterError(f"{source} has the unknown key {key!r}. {nearest(key, allowed)}")
        if "parameters" in value and not isinstance(value["parameters"], Mapping):
            raise ParameterError(f"{source}: the parameters of an entry must be a JSON object.")
        if not isinstance(value.get("sha256", ""), str):
            raise ParameterError(f"{source}: sha256 must be a text.")
        try:
            json.dumps(value.get("parameters"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ParameterError(
                f"{source}: the entry's parameters cannot be written as JSON: {error}. Write plain values."
            ) from None
        return {k: v for k, v in value.items() if k != "parameters" or v}
    raise ParameterError(f"{source} must be a catalogue entry, a file or data in memory; got {kind_of(value)}.")


def loads(text: str, source: str = "The order") -> Order:
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except _NotFinite as error:
        raise ParameterError(f"{source} holds {error}, which JSON does not know. Write a finite number.") from None
    except (ValueError, RecursionError) as error:  # ValueError also for an integer of too many digits
        raise ParameterError(
            f"{source} is not JSON: {error}. An order is a JSON document; 'phidias describe CHAIN --order' prints one."
        ) from None
    return from_document(document, source)


def load(path: str | Path) -> Order:
    """The order in a file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"The order file {path} cannot be read: {error.strerror}. Check its name.") from None
    except ValueError:  # not UTF-8, or a name that no file can have
        raise ParameterError(
            f"The order file {path} is not JSON text. Give the order.json of a run or product."
        ) from None
    return loads(text, f"The order file {path}")


class _NotFinite(ValueError):
    pass


def _no_constant(name: str):
    raise _NotFinite(name)
