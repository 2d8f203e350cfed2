"""What the ocean chains take in alike: a table of observations, and a grid that says where it is sea."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phidias_lab.contract import Var
from phidias_lab.contract.data import converter
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import ranges
from phidias_lab.methods.formats import flags

#: Columns that every table of observations has.
OBSERVATIONS = {
    "longitude": Var("degrees_east", standard_name="longitude"),
    "latitude": Var("degrees_north", standard_name="latitude"),
    "depth": Var("m", standard_name="depth", doc="positive downwards"),
    "time": Var(standard_name="time"),
}
#: Variables of a domain, over these dimensions.
DOMAIN_DIMS = ("depth", "latitude", "longitude")
DOMAIN = {
    "mask": Var("1", standard_name="sea_binary_mask", doc="1 at sea, 0 on land and below the sea floor"),
    "longitude": Var("degrees_east", standard_name="longitude"),
    "latitude": Var("degrees_north", standard_name="latitude"),
    "depth": Var("m", standard_name="depth"),
}


def columns(observations: Any, variable: str, *more: str) -> list[str]:
    """The columns that a chain reads for a variable: place, time, values, and what there is of what may stand beside."""
    beside = (*more, *flags.beside(variable))
    return list(dict.fromkeys([*OBSERVATIONS, variable, *(name for name in beside if name in observations.columns)]))


def check_columns(observations: Any, variable: str, done: str) -> None:
    """Refuse times that are no dates, and values that are no numbers; `done` says what is done with numbers."""
    if getattr(observations.dtypes["time"], "kind", "O") != "M":
        raise InputError("The column 'time' of the observations holds no dates. Convert it to dates first.")
    if getattr(observations.dtypes[variable], "kind", "O") not in "iufb":
        raise InputError(
            f"The column {variable!r} of the observations holds {observations.dtypes[variable]}, but numbers are {done}. "
            "Remove texts such as 'n/a' from it, or choose another variable."
        )


def value_range(asked: Sequence[float] | None, variable: str, told: Mapping[str, Any]) -> list[float] | None:
    """Least and greatest value that counts, in the units of the column: what was asked for, else Argo's global range test.

    None where the variable is not known, or its units cannot be converted. `told` is what the column says of itself.
    """
    if asked is not None:
        if len(asked) != 2:
            raise ParameterError(
                f"Parameter 'value_range' was given {len(asked)} numbers; it needs two, the least and the greatest value "
                "that is used."
            )
        return list(asked)
    known = ranges.of(variable, told.get("standard_name"))
    if known is None:
        return None
    try:
        convert = converter(known.units, told.get("units") or known.units)
    except InputError:
        return None
    return [float(end if convert is None else convert(end)) for end in (known.least, known.greatest)]
