"""Options derived from a chain's declaration: one per parameter, with the meaning, units, bounds and default in its help."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import click

from phidias_lab.errors import ParameterError, UnknownNameError, nearest

#: Destinations of the options that every chain shares; prefixed so that a chain may declare any parameter name.
SHARED = "shared_"


class Typed(click.ParamType):
    """What was typed, read by the declared parameter itself: the bounds and the sentence are the declaration's."""

    def __init__(self, parameter: Any):
        self.parameter = parameter
        self.name = parameter.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.parameter.parse(value) if isinstance(value, str) else value


class ParameterOption(click.Option):
    """An option that stands for a chain's parameter."""

    def __init__(self, *args: Any, parameter: Any, **kwargs: Any):
        self.parameter = parameter
        super().__init__(*args, **kwargs)


def parameter_options(declared: Mapping[str, Any], taken: set[str]) -> list[ParameterOption]:
    """One option per parameter; a name that a shared option has becomes `--parameter-NAME`."""
    options = []
    for name, parameter in declared.items():
        spelled = f"--{name.replace('_', '-')}"
        if spelled in taken:
            spelled = f"--parameter-{name.replace('_', '-')}"
        common = {"help": sentence(parameter), "parameter": parameter}
        if parameter.kind == "flag":
            # No click default: whether the flag was given at all decides what goes into the order.
            options.append(ParameterOption([name, f"{spelled}/--no-{spelled[2:]}"], default=None, **common))
        else:
            metavar = "|".join(str(o) for o in parameter.options) if parameter.kind == "choice" else None
            options.append(
                ParameterOption(
                    [name, spelled],
                    type=Typed(parameter),
                    default=None,
                    metavar=metavar or _metavar(parameter),
                    **common,
                )
            )
    return options


def _metavar(parameter: Any) -> str:
    forms = {"period": "START/END", "region": "W,S,E,N", "numbers": "NUMBER,...", "variable": "NAME", "file": "PATH"}
    return forms.get(parameter.kind, parameter.kind.upper())


def sentence(parameter: Any) -> str:
    """Meaning, what is accepted, units and default of a parameter, in one line of help."""
    from phidias_lab.contract.parameters import show

    expected = parameter.expected()
    units = parameter.units
    if units == "1":
        expected += ", without unit"
    elif units and not re.search(rf"(?<!\w){re.escape(units)}(?!\w)", expected):
        expected += f", in {units}"
    default = "none" if parameter.default is None else show(parameter.default)
    return f"{parameter.doc.strip().rstrip('.')}. [{expected}; default: {default}]"


def not_empty(ctx: click.Context | None, param: click.Parameter | None, value: str | None) -> str | None:
    """An option's text; refused when it is empty."""
    # What a shell makes of a variable that is not set; taken for "not given" it would run something else than asked.
    if value is not None and not value.strip():
        name = param.opts[0] if param is not None else "--order"
        raise ParameterError(f"{name} was given an empty text. Give it a path, or leave the option out.")
    return value


def given(ctx: click.Context, declared: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were typed, in their JSON form; defaults are left to the declaration."""
    source = click.core.ParameterSource.COMMANDLINE
    return {n: ctx.params[n] for n in declared if ctx.get_parameter_source(n) == source}


def input_reference(text: str, known: Mapping[str, Any] | None = None) -> tuple[str, dict]:
    """Name and reference of `name=ENTRY`, `name=ENTRY?key=value&key=value`, `name=FILE` or `name={"entry": ...}`.

    The values after the question mark are parameters of the catalogue entry. A value that reads as a JSON number, list,
    object, true, false or null is that; every other one is text. `%26` stands for an ampersand.
    """
    from phidias_lab.contract.order import reference

    name, equals, where = text.partition("=")
    if not equals or not name or not where:
        raise ParameterError(
            f"The input {text!r} must be written NAME=ENTRY or NAME=FILE, for example "
            "'observations=ocean.observations?variable=temperature'."
        )
    if known is not None and name not in known:
        raise UnknownNameError(f"There is no input {name!r}. {nearest(name, known)}")
    if where.startswith("{"):
        try:
            return name, reference(json.loads(where), f"The input {name!r}")
        except json.JSONDecodeError as error:
            raise ParameterError(f"The input {name!r} starts like JSON but is not: {error}. Mend it.") from None
    address, question, query = where.partition("?")
    found = reference(address)
    if "file" in found or not question:
        # A question mark belongs to the address of a file.
        return name, reference(where) if "file" not in found else {"file": where}
    parameters = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ParameterError(
                f"The input {name!r} has {pair!r} after the question mark; write key=value, joined by '&', in quotes."
            )
        parameters[unquote(key)] = _value(unquote(value))
    return name, reference({"entry": address, "parameters": parameters}, f"The input {name!r}")


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
        # Python's JSON reader also takes NaN and Infinity, which no order may hold: they stay text.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value
