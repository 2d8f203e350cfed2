"""phidias_lab: find Earth-observation data, process them, tune the processing, share the products.

    >>> import phidias_lab
    >>> phidias_lab.chains()                                     # doctest: +SKIP
    ['ocean.gridding']
    >>> run = phidias_lab.run("ocean.gridding", length=200e3)    # doctest: +SKIP
    >>> run.result()                                             # doctest: +SKIP

Names are loaded when they are used, so importing the package is quick and brings in no screen and no chain.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Chain": "phidias_lab.contract.chain",
    "Input": "phidias_lab.contract.data",
    "Var": "phidias_lab.contract.data",
    "Order": "phidias_lab.contract.order",
    "Resources": "phidias_lab.contract.resources",
    "number": "phidias_lab.contract.parameters",
    "numbers": "phidias_lab.contract.parameters",
    "count": "phidias_lab.contract.parameters",
    "choice": "phidias_lab.contract.parameters",
    "flag": "phidias_lab.contract.parameters",
    "text": "phidias_lab.contract.parameters",
    "period": "phidias_lab.contract.parameters",
    "region": "phidias_lab.contract.parameters",
    "variable": "phidias_lab.contract.parameters",
    "file": "phidias_lab.contract.parameters",
    "chains": "phidias_lab.contract.registry",
    "chain": "phidias_lab.contract.registry",
    "open_catalog": "phidias_lab.lake.catalog",
    "events": "phidias_lab.lake.events",
    "influences": "phidias_lab.flow",
    "run": "phidias_lab.flow",
    "export": "phidias_lab.flow",
    "watch": "phidias_lab.modes.watch",
    "campaign": "phidias_lab.modes.campaign",
    "cluster": "phidias_lab.compute.cluster",
    "places": "phidias_lab.compute.cluster",
    "runs": "phidias_lab.compute.runs",
    "Run": "phidias_lab.compute.runs",
    "PhidiasError": "phidias_lab.errors",
}

__all__ = [*sorted(_NAMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'phidias_lab' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
