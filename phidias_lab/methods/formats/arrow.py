"""The attributes of a table and its columns in an Arrow schema, and so in Parquet: texts, or JSON where they are lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def with_attributes(schema: Any, attrs: Mapping) -> Any:
    """An Arrow schema that carries a table's attributes: columns' in the fields, the others for the whole."""
    import pyarrow as pa

    columns = attrs.get("columns") or {}
    fields = [f.with_metadata(_coded(columns.get(f.name) or {})) for f in schema]
    return pa.schema(fields, metadata=_coded({k: v for k, v in attrs.items() if k != "columns"}))


def attributes_of(schema: Any) -> dict:
    """A table's attributes from its Arrow schema: {"columns": {name: {"units": ..., ...}}, "title": ..., ...}."""
    columns = {f.name: decoded(f.metadata) for f in schema if f.metadata}
    columns = {name: found for name, found in columns.items() if found}
    return {**decoded(schema.metadata), **({"columns": columns} if columns else {})}


def _coded(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in attributes.items()}


def decoded(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What stands in the metadata of a field or schema, without what libraries keep there for themselves."""
    known = {}
    for key, value in (metadata or {}).items():
        key, value = key.decode(errors="replace"), value.decode(errors="replace")
        if key in ("pandas", "ARROW:schema", "geo") or key.startswith("PARQUET:"):
            continue
        try:
            known[key] = json.loads(value) if value.startswith("[") else value
        except ValueError:
            known[key] = value
    return known
