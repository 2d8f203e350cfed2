"""Running a product again from the order inside it, and saying how far the two agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Largest difference, relative to the largest magnitude of a variable, that still counts as the same numbers: far above
#: the last bits that another processor or library may round differently, far below any digit with a meaning.
SAME_NUMBERS = 1e-9


@dataclass(frozen=True)
class Comparison:
    """How two products agree, variable by variable.

    `identical` says that every checksum agrees. `differences` holds, for each variable, the largest absolute difference
    divided by the largest magnitude of the first product's values: infinite when shape, gaps or texts differ, or when
    only one product has the variable. `facts` holds what differs between the two environments.
    """

    identical: bool
    differences: Mapping[str, float]
    facts: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        return max(self.differences.values(), default=0.0)

    @property
    def same_numbers(self) -> bool:
        return self.largest <= SAME_NUMBERS


def compare(first: Any, second: Any) -> Comparison:
    """Compare two products: first their checksums, and the values only of variables whose checksums differ.

    A data file that was copied away from its folder has left its checksums there; then all its values are compared.
    """
    one = other = None
    sums = [dict(p.checksums) if p.folder is not None else {} for p in (first, second)]
    if not all(sums):
        one, other = first.open(), second.open()
        sums = [dict.fromkeys(_names(data)) for data in (one, other)]
        different = list({**sums[0], **sums[1]})
    else:
        different = [name for name in {**sums[0], **sums[1]} if sums[0].get(name) != sums[1].get(name)]
    differences = {name: 0.0 for name in {**sums[0], **sums[1]}}
    if different and one is None:
        one, other = first.open(), second.open()
    for name in different:
        shared = name in sums[0] and name in sums[1]
        differences[name] = _difference(one, other, name) if shared else float("inf")
    identical = not different if None not in sums[0].values() else not any(differences.values())
    return Comparison(identical, differences, different_facts(facts(first), facts(second)))


def _names(data: Any) -> list[str]:
    return [str(name) for name in (data.columns if hasattr(data, "columns") else data.variables)]


def _difference(one: Any, other: Any, name: str) -> float:
    import numpy as np

    try:
        x, y = (_values(data, name) for data in (one, other))
    except KeyError:
        return float("inf")
    if x.shape != y.shape:
        return float("inf")
    if x.dtype.kind in "mM" and y.dtype.kind == x.dtype.kind:
        x, y = ((np.where(np.isnat(v), np.nan, v.astype("int64").astype(float))) for v in (x, y))
    if x.dtype.kind not in "biufc" or y.dtype.kind not in "biufc":
        return 0.0 if bool(np.all(x == y)) else float("inf")
    wide = "complex128" if "c" in x.dtype.kind + y.dtype.kind else "float64"
    x, y = x.astype(wide), y.astype(wide)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)) or not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return float("inf")
    largest = float(np.abs(x[finite] - y[finite]).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    magnitude = float(np.abs(x[finite]).max(initial=0.0))
    return largest / magnitude if magnitude else float("inf")


def _values(data: Any, name: str) -> Any:
    import numpy as np

    column = data[name]
    if hasattr(column, "compute"):
        column = column.compute()
    return np.asarray(column)


def facts(product: Any) -> dict:
    """What is known of where and from what a product was made: from its run's record, else from its provenance."""
    if product.folder is None:
        return {}
    folder = Path(product.folder)
    record = _json(folder.parent / "record.json")
    found = record.get("facts")
    if isinstance(found, Mapping):
        data = {f"data of the input {n}": i.get("checksum") for n, i in (record.get("inputs") or {}).items()}
        return {**{k: v for k, v in found.items() if k != "versions"}, **(found.get("versions") or {}), **data}
    activities = _json(folder / "provenance.json").get("activity") or {}
    return {
        k.removeprefix("phidias:"): v for a in activities.values() for k, v in a.items() if k.startswith("phidias:")
    }


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def different_facts(a: Mapping, b: Mapping) -> dict[str, tuple[Any, Any]]:
    """Facts that both know and that differ."""
    return {name: (a[name], b[name]) for name in a if name in b and a[name] != b[name]}


def find_product(name: str) -> Any:
    """The product of a run, of a run's folder, or at a path: a product's folder, or a data file wherever it lies."""
    from phidias_lab.compute import runs
    from phidias_lab.products import Product

    path = Path(name).expanduser()
    if (path / "asked.json").is_file():
        return runs.Run(path.absolute()).product
    if path.exists() or "/" in name or "\\" in name:
        return Product(path)
    return _named(name).product


def find(name: str) -> Any:
    """The run of that name or in that folder, else the product at that path; a run need not have a product."""
    from phidias_lab.compute import runs

    path = Path(name).expanduser()
    if (path / "asked.json").is_file():
        return runs.Run(path.absolute())
    if path.exists() or "/" in name or "\\" in name:
        return find_product(name)
    return _named(name)


def taken(name: str) -> str | None:
    """What to say of a name that stands for another: which run `last` was."""
    from phidias_lab.compute import runs

    if name != runs.LAST or Path(name).exists():
        return None
    run = _named(name)
    newest = runs.last()
    passed = "" if newest == run else f"; the newest, {newest.id}, is {newest.status}"
    return f"The last run that is done is {run.id}{passed}."


def _named(name: str) -> Any:
    """The run of that name; `last` is the newest that is done, because its product or order is what is asked for."""
    from phidias_lab.compute import runs

    return runs.last(done=True) if name == runs.LAST else runs.find(name)
