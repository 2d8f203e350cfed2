"""Doors for people. The only layer that imports panel and holoviews, and only when one of its names is asked for.

>>> from phidias_lab.widgets import Form, Workbench, view    # doctest: +SKIP
>>> Workbench("ocean.gridding").servable()                   # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "ClusterView": "phidias_lab.widgets.cluster",
    "Form": "phidias_lab.widgets.form",
    "Workbench": "phidias_lab.widgets.workbench",
    "animation": "phidias_lab.widgets.views.player",
    "view": "phidias_lab.widgets.views",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'phidias_lab.widgets' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
