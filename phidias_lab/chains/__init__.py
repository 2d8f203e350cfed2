"""The lab's own chains, one module each: the chain `ocean.gridding` is `phidias_lab.chains.ocean.gridding`."""

from __future__ import annotations

import sys
from types import ModuleType

from phidias_lab.contract import registry


class _Chains(ModuleType):
    # Python puts this package at phidias_lab.chains once a chain is imported, where users call phidias_lab.chains().
    def __call__(self) -> list[str]:
        """Ids of all chains that are installed."""
        return registry.chains()


sys.modules[__name__].__class__ = _Chains
