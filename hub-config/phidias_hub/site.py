"""The site file: which machine or centre this hub serves.

What it may say stands in `site.schema.yaml`, a file of the package phidias_lab that is read here as data, so that the hub
and the clusters of `phidias_lab.compute` understand the same file and the schema exists once.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

HUB_CONFIG = Path(__file__).resolve().parents[1]
_SCHEMA = Path("compute") / "site.schema.yaml"


class SiteError(Exception):
    """The site file cannot be used; the message is a sentence for the person who runs the hub."""


def schema_file() -> Path:
    """The schema: in the checkout beside hub-config, else in the installed package, which is found but not imported."""
    beside = HUB_CONFIG.parent / "phidias_lab" / _SCHEMA
    if beside.is_file():
        return beside
    package = PathFinder.find_spec("phidias_lab")
    for folder in (package.submodule_search_locations or []) if package else []:
        if (found := Path(folder) / _SCHEMA).is_file():
            return found
    raise SiteError(
        f"The schema of site files was found neither at {beside} nor in an installed phidias_lab. Use hub-config from a "
        "whole clone, or install phidias_lab into the hub's environment."
    )


@cache
def schema() -> dict:
    """What a site file may say, each key with its description."""
    # The loader in C is ten times as quick; not every PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(schema_file().read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  a safe loader


def read(path: str | os.PathLike[str]) -> dict:
    """A site file, checked, with every default filled in."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SiteError(f"There is no site file {path}. Name one in PHIDIAS_SITE.") from None
    except OSError as error:
        raise SiteError(f"The site file {path} cannot be read: {error.strerror}. Mend its permissions.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SiteError(f"The site file {path} is not valid TOML: {error}. Mend that place.") from None
    except RecursionError:
        raise SiteError(f"The site file {path} is nested too deeply. Mend the place with the many brackets.") from None
    return checked(content, f"the site file {path}")


def checked(content: Mapping[str, Any], source: str = "the site") -> dict:
    """`content` with every default filled in; what is unknown, wrong or contradicts itself is refused in a sentence."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(dict(content)))
    if error is not None:
        raise SiteError(_sentence(error, source))
    site = _filled(content, schema())
    _check_addresses(site, source)
    local = _own_machine(site["clusters"].pop("local", {}))
    site["clusters"] = {"local": local, **site["clusters"]}
    _check_consistent(site, source)
    return site


def _validator() -> Any:
    """JSON knows no number that is none or without end; TOML does, and no amount is one."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    known = Draft202012Validator.TYPE_CHECKER
    finite = known.redefine("number", lambda _, value: known.is_type(value, "number") and math.isfinite(value))
    return extend(Draft202012Validator, type_checker=finite)(schema())


def _check_addresses(site: Mapping[str, Any], source: str) -> None:
    """What no pattern can say of an address: whether its port, or its IPv6, is one."""
    for steps in (("hub",), ("login", "oidc")):
        given, known = site, schema()
        for step in steps:
            given, known = given.get(step) or {}, known["properties"][step]
        for key, value in given.items():
            if key not in ("url", "listen") and not key.endswith("_url"):
                continue
            try:
                good = urlsplit(value if "://" in value else f"//{value}").port != 0
            except ValueError:
                good = False
            if not good:
                raise SiteError(
                    f"In {source}, {'.'.join(steps)}.{key} is {value!r}: expected is "
                    f"{known['properties'][key].get('expected', 'an address with a port from 1 to 65535')}. "
                    f"{known['properties'][key]['description']}"
                )


def _own_machine(said: Mapping[str, Any]) -> dict:
    cores = os.cpu_count() or 1
    amounts = {key: {"default": 1, "max": cores} for key in ("workers", "cores")}
    given = {"kind": "local", "title": "This machine", **said}
    return given | {key: amount for key, amount in amounts.items() if key not in given}


def _check_consistent(site: Mapping[str, Any], source: str) -> None:
    servers = site["servers"]
    for name, cluster in site["clusters"].items():
        environment = cluster.get("environment")
        if environment is not None and environment not in servers["environments"]:
            raise SiteError(
                f"In {source}, clusters.{name}.environment is {environment!r}, which servers.environments does not have. "
                f"{nearest(environment, servers['environments'])}"
            )
    bounded = [(f"servers.profiles.{name}", profile) for name, profile in servers["profiles"].items()]
    bounded += [(f"clusters.{name}", cluster) for name, cluster in site["clusters"].items()]
    for where, part in bounded:
        for key, amount in part.items():
            if isinstance(amount, Mapping) and amount.get("default", 0) > amount["max"]:
                raise SiteError(
                    f"In {source}, {where}.{key} has the default {amount['default']:g}, above its max "
                    f"{amount['max']:g}; lower one or raise the other."
                )


def _sentence(error: Any, source: str) -> str:
    at = ".".join(str(step) for step in error.absolute_path) or "its top level"
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = sorted(error.schema.get("properties", {}))
        unknown = min(set(error.instance) - set(known))
        secrets = schema()["secrets"]
        advice = secrets["advice"] if re.search(secrets["keys"], unknown) else nearest(unknown, known)
        return f"In {source}, {at} has the unknown key {unknown!r}. {advice}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        meaning = error.schema.get("properties", {}).get(missing, {}).get("description", "it has to be there.")
        return f"In {source}, {at} lacks the key {missing!r}: {meaning}"
    wrong = f"{'has the name' if 'propertyNames' in error.absolute_schema_path else 'is'} {error.instance!r}"
    because = error.message
    if error.validator in ("type", "pattern"):
        because = f"expected is {error.schema.get('expected') or schema()['types'][error.schema['type']]}"
    return f"In {source}, {at} {wrong}: {because}. {error.schema.get('description', '')}".rstrip()


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase that offers the names like `name`, or all known ones when none is like it."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(map(repr, close)) + "?"
    return f"Known: {', '.join(known)}." if known else "None is known here."


def _filled(value: Any, part: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return list(value)
    if not isinstance(value, Mapping):
        return value
    known = part.get("properties", {})
    filled = {
        key: _filled(value.get(key, inner.get("default")), inner)
        for key, inner in known.items()
        if key in value or "default" in inner
    }
    others = part.get("additionalProperties")
    for key in value:
        if key not in known:
            filled[key] = _filled(value[key], others if isinstance(others, Mapping) else {})
    return filled
