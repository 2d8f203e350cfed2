"""The site: one machine or one centre, as its site file describes it.

The file is TOML; what it may say stands in `site.schema.yaml`, which the hub's configuration reads too. It is looked for in
PHIDIAS_SITE, then in the user's settings, then at /etc/phidias/site.toml; without any, a machine of one's own.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from phidias_lab import settings
from phidias_lab.errors import ParameterError, nearest

INSTALLED = Path("/etc/phidias/site.toml")
LOCAL = "local"
_OWN_MACHINE = {"name": "laptop"}


@cache
def schema() -> dict:
    """What a site file may say, each key with its description."""
    text = files("phidias_lab.compute").joinpath("site.schema.yaml").read_text(encoding="utf-8")
    # The loader in C is ten times as quick; not every PyYAML has it.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  a safe loader


def current() -> dict:
    """The site this process runs on, checked, with every default filled in."""
    named = settings.site_file()
    if named is not None:
        return read(named)
    if INSTALLED.is_file():
        return read(INSTALLED)
    return checked(_OWN_MACHINE, "the built-in site")


def read(path: str | Path) -> dict:
    """A site file, checked, with every default filled in."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"There is no site file {path}. Name one in PHIDIAS_SITE, or unset it.") from None
    except OSError as error:
        raise ParameterError(f"The site file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParameterError(f"The site file {path} is not valid TOML: {error}. Mend that place.") from None
    except RecursionError:
        raise ParameterError(
            f"The site file {path} is nested too deeply. Mend the place with the many brackets."
        ) from None
    return checked(content, f"the site file {path}")


def checked(content: Mapping[str, Any], source: str) -> dict:
    """`content` with every default filled in; the first key that is unknown or wrong is refused in a sentence."""
    error = _first_error(content)
    if error is not None:
        raise ParameterError(_sentence(error, source))
    site = _filled(content, schema())
    _check_addresses(site, source)
    local = {"kind": "local", "title": "This machine", **site["clusters"].get(LOCAL, {})}
    own = os.cpu_count() or 1
    for key, most in (("workers", own), ("cores", own)):
        local.setdefault(key, {"default": 1, "max": most})
    site["clusters"] = {LOCAL: local} | site["clusters"] | {LOCAL: local}
    for name, cluster in site["clusters"].items():
        environment = cluster.get("environment")
        if environment is not None and environment not in site["servers"]["environments"]:
            raise ParameterError(
                f"In {source}, clusters.{name}.environment is {environment!r}, which servers.environments does not have. "
                f"{nearest(environment, site['servers']['environments'])}"
            )
    bounded = [(f"servers.profiles.{name}", profile) for name, profile in site["servers"]["profiles"].items()]
    bounded += [(f"clusters.{name}", cluster) for name, cluster in site["clusters"].items()]
    for where, part in bounded:
        for key, amount in part.items():
            if isinstance(amount, Mapping) and amount.get("default", 0) > amount["max"]:
                raise ParameterError(
                    f"In {source}, {where}.{key} has the default {amount['default']:g}, above its max "
                    f"{amount['max']:g}; lower one or raise the other."
                )
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
                raise ParameterError(
                    f"In {source}, {'.'.join(steps)}.{key} is {value!r}: expected is "
                    f"{known['properties'][key].get('expected', 'an address with a port from 1 to 65535')}. "
                    f"{known['properties'][key]['description']}"
                )


def _first_error(content: Mapping[str, Any]):
    """The error of jsonschema that says most, or None."""
    # It goes on without rfc3987_syntax, which compiles a grammar at its import: a second, for addresses that no site has.
    name = "rfc3987_syntax"
    if absent := name not in sys.modules:
        sys.modules[name] = None
    try:
        from jsonschema.exceptions import best_match

        validator = _validator()
    finally:
        if absent:
            del sys.modules[name]
    return best_match(validator.iter_errors(dict(content)))


def _sentence(error, source: str) -> str:
    at = ".".join(str(step) for step in error.absolute_path) or "its top level"
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = sorted(error.schema.get("properties", {}))
        unknown = min(set(error.instance) - set(known))
        secrets = schema()["secrets"]
        advice = secrets["advice"] if re.search(secrets["keys"], unknown) else nearest(unknown, known)
        return f"In {source}, {at} has the unknown key {unknown!r}. {advice}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"In {source}, {at} lacks the key {missing!r}: {_description(error.schema, missing)}"
    wrong = f"{'has the name' if 'propertyNames' in error.absolute_schema_path else 'is'} {error.instance!r}"
    because = error.message
    if error.validator in ("type", "pattern"):
        because = f"expected is {error.schema.get('expected') or schema()['types'][error.schema['type']]}"
    return f"In {source}, {at} {wrong}: {because}. {error.schema.get('description', '')}".rstrip()


def _description(part: Mapping, key: str) -> str:
    return part.get("properties", {}).get(key, {}).get("description", "it has to be there.")


def _filled(value: Any, part: Mapping) -> Any:
    """`value` with the defaults of its part of the schema, at every depth."""
    if not isinstance(value, Mapping):
        return list(value) if isinstance(value, list) else value
    known = part.get("properties", {})
    others = part.get("additionalProperties")
    filled = {}
    for key, inner in known.items():
        if key in value:
            filled[key] = _filled(value[key], inner)
        elif "default" in inner:
            filled[key] = _filled(inner["default"], inner)
    for key in value:
        if key not in known:
            filled[key] = _filled(value[key], others if isinstance(others, Mapping) else {})
    return filled
