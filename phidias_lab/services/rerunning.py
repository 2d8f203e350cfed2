"""Running a product again from the order inside it, and saying how far the two agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phidias_lab.errors import ParameterError

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
    """Compare two products: first their checksums, and the values only of variables whose checksums differ."""
    a, b = dict(first.checksums), dict(second.checksums)
    different = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    shared = [name for name in different if name in a and name in b]
    differences = {name: 0.0 for name in {**a, **b}}
    differences |= {name: float("inf") for name in different}
    if shared:
        one, other = first.open(), second.open()
        differences |= {name: _difference(one, other, name) for name in shared}
    return Comparison(not different, differences, different_facts(facts(first), facts(second)))


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
    """What is known of the environment a product was made in."""
    folder = Path(product.folder)
    for path in (folder.parent / "record.json", folder / "provenance.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("facts")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, Mapping):
            return dict(found)
    return {}


def different_facts(a: Mapping, b: Mapping) -> dict[str, tuple[Any, Any]]:
    """Facts that differ, versions one by one."""
    flat = [{**{k: v for k, v in f.items() if k != "versions"}, **(f.get("versions") or {})} for f in (a, b)]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return {n: (flat[0].get(n), flat[1].get(n)) for n in names if flat[0].get(n) != flat[1].get(n)}


def find_product(name: str) -> Any:
    """The product of a run, of a run's folder, of a product's folder or of a file in one."""
    from phidias_lab.compute import runs
    from phidias_lab.products import Product

    path = Path(name).expanduser()
    if path.exists():
        for folder in (path, path.parent):
            if (folder / "asked.json").is_file() and (folder / "product").is_dir():
                return Product(folder / "product")
            if (folder / "item.json").is_file() and (folder / "order.json").is_file():
                return Product(folder)
        raise ParameterError(
            f"{name} is no product: neither it nor its folder holds item.json and order.json. Give a product's folder or "
            "the id of its run; 'phidias runs' lists them."
        )
    if "/" in name or "\\" in name:
        raise ParameterError(f"{name} does not exist. Give a product's folder or the id of its run.")
    return runs.find(name).product


def find_order(name: str) -> Any:
    """The order of a run or product; a run that has no product has an order all the same."""
    from phidias_lab.compute import runs

    path = Path(name).expanduser()
    if path.exists() and not (path / "asked.json").is_file():
        return find_product(name).order
    return runs.find(str(path.absolute()) if path.exists() else name).order
