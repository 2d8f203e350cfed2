"""Which chains exist: the entry-point group `phidias_lab.chains`, for ours and for everybody's.

Listing reads package metadata and imports nothing. A class is imported when it is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import EntryPoint, entry_points

from phidias_lab.errors import ParameterError, UnknownNameError, as_sentence, nearest

GROUP = "phidias_lab.chains"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value.split(".")[0]


def _entries() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for entry in entry_points(group=GROUP):
        found[entry.name].append(entry)
    return dict(found)


def chains() -> list[str]:
    """Ids of all chains that are installed."""
    return sorted(_entries())


def provider(chain_id: str) -> str:
    """The package a chain comes from."""
    return _package(_entry(chain_id))


def id_of(chain_class: type) -> str | None:
    """The id under which a class itself is registered; not that of a class it derives from."""
    place = f"{chain_class.__module__}:{chain_class.__qualname__}"
    for chain_id, entries in _entries().items():
        if any(entry.value.replace(" ", "") == place for entry in entries) or vars(chain_class).get("id") == chain_id:
            return chain_id
    return None


def _entry(chain_id: str) -> EntryPoint:
    found = _entries()
    if chain_id not in found:
        raise UnknownNameError(
            f"There is no chain {chain_id!r}. {nearest(chain_id, found)} 'phidias chains' lists all of them."
        )
    if len(found[chain_id]) > 1:
        packages = " and ".join(sorted(_package(e) for e in found[chain_id]))
        raise ParameterError(
            f"The chain id {chain_id!r} is claimed by {packages}. Uninstall one of them: an id belongs to one package."
        )
    return found[chain_id][0]


def chain(chain_id: str):
    """The class of a chain."""
    from phidias_lab.contract.chain import Chain

    entry = _entry(chain_id)
    package = _package(entry)
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # a package may even leave while it is imported
        why = as_sentence(f"{type(error).__name__}: {error}")
        raise ParameterError(
            f"The chain {chain_id!r} of the package {package!r} cannot be imported: {why} "
            f"Repair or uninstall {package!r}; the other chains are not affected."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Chain)):
        raise ParameterError(
            f"{entry.value!r}, declared as chain {chain_id!r} by the package {package!r}, is not a Chain. "
            "Its entry point must name a subclass of phidias_lab.Chain."
        )
    if vars(found).get("id") not in (None, "", chain_id):
        raise ParameterError(
            f"The package {package!r} declares {entry.value!r} as chain {chain_id!r}, but the class has the id {found.id!r} "
            "already. A class is one chain: declare a subclass for the other id."
        )
    found.id = chain_id
    return found
