"""What goes into a chain and what comes out: kinds, dimensions, variables, units, standard names; and the check at the door.

Kinds and their containers:

    cube      xarray.Dataset, lazy                table     dask or pandas DataFrame
    features  DataFrame with a `geometry` column  events    table with time, place and kind
    model     a directory of files
"""

from __future__ import annotations

import re
import shlex
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phidias_lab.errors import InputError, ParameterError, as_sentence, kind_of, nearest

KINDS = ("cube", "table", "features", "events", "model")
#: What an input is to the result: its values go into the result's values, or it only says where and how (a grid, a mask).
ROLES = ("values", "support")

# Spellings of the same unit that occur in files; units that differ otherwise are converted by pint.
_SAME_UNITS = {
    "degree_east": "degrees_east", "degreeE": "degrees_east", "degreesE": "degrees_east",
    "degree_north": "degrees_north", "degreeN": "degrees_north", "degreesN": "degrees_north",
    "meter": "m", "metre": "m", "meters": "m", "metres": "m",
    "degC": "degree_Celsius", "celsius": "degree_Celsius", "Celsius": "degree_Celsius", "deg_C": "degree_Celsius",
    "PSU": "1e-3", "psu": "1e-3", "": "1", "dimensionless": "1",
}  # fmt: skip


# No unit of the sciences is longer, and none has a higher power once its factors' exponents are multiplied.
_UNIT_LENGTH, _UNIT_POWER = 80, 1000
_EXPONENT = re.compile(r"\*\*\s*([+-]?[0-9]{1,2}(?:\.[0-9]{1,3})?)(?![0-9.])(?!\s*\*\*)")


#: What other variables may tell of the error of a variable: its standard deviation; that of the background, which the error
#: is compared with; the error variance over that of the background; the ends of the central 95 % interval.
ERROR_TERMS = ("standard_error", "background_deviation", "relative_variance", "lower_95", "upper_95")


@dataclass(frozen=True)
class Var:
    """One variable (of a cube) or column (of a table).

    `units` may be `"{name}"` where name is a parameter of kind variable: the units are then those of the variable that
    the user chose; `standard_name` and `long_name` may use the same form. `errors` maps some of `ERROR_TERMS` to the names
    of the outputs that hold them; a view draws bands and hides what is too uncertain by them.
    """

    units: str | None = None
    standard_name: str | None = None
    long_name: str | None = None
    dims: tuple[str, ...] | None = None
    cell_methods: str | None = None
    optional: bool = False
    doc: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)

    def attributes(self) -> dict[str, str]:
        known = {n: getattr(self, n) for n in ("units", "standard_name", "long_name", "cell_methods")}
        return {n: v for n, v in known.items() if v is not None}


def with_errors(attributes: Mapping[str, Any], errors: Mapping[str, str], there: Iterable[str]) -> dict[str, Any]:
    """Attributes that name the variables that tell of an error, as far as they are there: all by the CF conventions'
    ancillary_variables, and in error_terms, written like CF's formula_terms, which is which."""
    there = set(there)
    found = {term: name for term, name in errors.items() if name in there}
    if not found:
        return dict(attributes)
    names = dict.fromkeys([*str(attributes.get("ancillary_variables", "")).split(), *found.values()])
    terms = " ".join(f"{term}: {name}" for term, name in found.items())
    return {**attributes, "ancillary_variables": " ".join(names), "error_terms": terms}


def error_terms(attributes: Mapping[str, Any]) -> dict[str, str]:
    """What `with_errors` wrote: for each term the name of its variable."""
    return _terms(attributes, "error_terms")


def _terms(attributes: Mapping[str, Any], name: str) -> dict[str, str]:
    words = str(attributes.get(name, "")).split()
    return {term.removesuffix(":"): name for term, name in zip(words[::2], words[1::2], strict=False)}


#: Attribute of values in standard deviations of their noise, such as residuals of spectra, that names what may explain them,
#: written like CF's formula_terms: "amplitude: amplitude template: template snr: selected_snr". The values are the sum over
#: components of amplitude times template, and a rest; snr, which may be missing, is each amplitude over its standard
#: deviation.
EXPLAINED_BY = "explained_by"


def explanation(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The variables that explain a variable, by their terms: amplitude, template and perhaps snr; none without the two."""
    found = _terms(attributes, EXPLAINED_BY)
    return found if {"amplitude", "template"} <= found.keys() else {}


#: Attribute of whole numbers that are no quantity but tell to which object a place belongs, and to none where they are 0:
#: what the objects are ("event"). A map gives neighbours different colours and leaves out 0.
LABEL_OF = "label_of"

#: Attribute of a variable, "logarithm" where differences between its values mean ratios: rates, chances.
DRAWN_ON = "drawn_on"


def flags(attributes: Mapping[str, Any], kind: str = "flag_values") -> dict[int, str]:
    """What the values of a variable mean, or with "flag_masks" its bits, by CF's attribute of that name and flag_meanings
    (3.5); nothing where they say no such. Values within masks are neither."""
    values, meanings = attributes.get(kind), str(attributes.get("flag_meanings") or "").split()
    if values is None or {"flag_values", "flag_masks"} <= set(attributes):
        return {}
    try:
        values = values.split() if isinstance(values, str) else values if hasattr(values, "__len__") else [values]
        values = [int(value) for value in values]
    except (TypeError, ValueError):
        return {}
    return dict(zip(values, meanings, strict=True)) if len(values) == len(meanings) else {}


@dataclass(frozen=True)
class Input:
    """What a chain asks for: the kind, the dimensions of a cube, the variables or columns, and a default entry.

    `role` is "values" where what was measured comes from this input, and "support" where it only says where and how, like
    a grid, a mask or a coast. A result is synthetic when an input of role "values" is; others are named beside it.
    """

    kind: str
    doc: str = ""
    dims: tuple[str, ...] = ()
    variables: Mapping[str, Var] = field(default_factory=dict)
    optional: bool = False
    default: str | None = None
    role: str = "values"

    def __post_init__(self):
        if self.role not in ROLES:
            raise ParameterError(f"An input's role is {' or '.join(ROLES)}, not {self.role!r}.")
        if self.kind not in KINDS:
            raise ParameterError(f"An input's kind is one of {', '.join(KINDS)}, not {self.kind!r}.")

    def describe(self) -> dict:
        return {
            "kind": self.kind,
            "doc": self.doc,
            "dims": list(self.dims),
            "variables": {
                n: {**v.attributes(), "doc": v.doc, "optional": v.optional} for n, v in self.variables.items()
            },
            "optional": self.optional,
            "default": self.default,
            "role": self.role,
        }


#: Attribute of a variable with a sign: the value on whose two sides its values mean opposite things, most often 0. A map
#: takes a palette with its middle there.
DIVERGES_FROM = "diverges_from"
#: How CF names what has a sign by its making: the deviation from a mean, and changes over time.
_SIGNED = re.compile(r"\w+_anomaly|(tendency_of|change_over_time_in)_\w+")


def diverges_from(attributes: Mapping[str, Any]) -> float | None:
    """The value from which a variable diverges, by what it says of itself; None for a variable without a sign."""
    try:
        return float(attributes[DIVERGES_FROM])
    except (KeyError, TypeError, ValueError):
        return 0.0 if _SIGNED.fullmatch(str(attributes.get("standard_name"))) else None


#: Attribute of a text variable: the dimension whose coordinates it holds in a file.
LABELS_OF = "labels_of_dimension"


def without_labels(data: Any) -> Any:
    """A cube whose text coordinates stand beside their dimensions, as `<dimension>_name`: CF 2.4 and 5 know only numbers as
    coordinates of a dimension, and texts as labels of one (6.1)."""
    texts = [str(dim) for dim in data.dims if dim in data.coords and data[dim].dtype.kind in "OUST"]
    data = data.reset_index(texts).rename_vars({dim: f"{dim}_name" for dim in texts})
    for dim in texts:
        data[f"{dim}_name"].attrs[LABELS_OF] = dim
    return data


def with_labels(data: Any) -> Any:
    """What `without_labels` was given."""
    for name, array in list(data.variables.items()):
        dim = array.attrs.get(LABELS_OF)
        if dim is not None and array.dims == (dim,):
            attributes = {key: value for key, value in array.attrs.items() if key != LABELS_OF}
            data = data.drop_vars(name).assign_coords({dim: (dim, array.values, attributes)})
    return data


def standard_error_of(data: Any, name: str) -> str | None:
    """The variable of a cube that says to be the standard error of another one, by CF's modifier or as `<name>_error`."""
    array = data[name]
    named = str(array.attrs.get("ancillary_variables") or "").split()
    wanted = f"{array.attrs.get('standard_name')} standard_error"
    fit = [str(n) for n, v in data.data_vars.items() if n != name and v.dims == array.dims and v.dtype.kind in "iuf"]
    alike = [n for n in fit if data[n].attrs.get("standard_name") == wanted]
    candidates = [n for n in alike if n in named] + [n for n in fit if n == f"{name}_error"]
    return next(iter(candidates + (alike if len(alike) == 1 else [])), None)


def is_synthetic(data: Any) -> bool:
    """Whether data say of themselves that a program made them."""
    return str((getattr(data, "attrs", None) or {}).get("synthetic", "")).strip().lower() in ("true", "1", "yes")


@dataclass(frozen=True)
class Needs:
    """What a chain needs of a table, so that a reader can leave out the rest: columns, and for some of them intervals.

    `ranges` maps a column to (low, high) pairs; a row is needed if its value lies in one of them, ends included. They are
    in the units that the chain declares and may be wider than what it takes in the end, never narrower.
    """

    columns: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[tuple[Any, Any], ...]] = field(default_factory=dict)

    def unconverted(self, given: Any, checked: Any) -> Needs:
        """Without the ranges of columns whose units were converted: the reader meets the values as they are stored."""
        before, after = column_attributes(given), column_attributes(checked)
        same = {c: r for c, r in self.ranges.items() if before.get(c, {}).get("units") == after.get(c, {}).get("units")}
        return Needs(self.columns, same)

    def with_columns(self, more: Iterable[str]) -> Needs:
        """With further columns; where no columns are named, all are read anyway."""
        return Needs(tuple(dict.fromkeys((*self.columns, *more))) if self.columns else (), self.ranges)


#: Where a lazy table keeps what is known of the least and greatest values of its columns, and how many rows there are.
_EXTENT, _ROWS = "phidias_extent", "phidias_rows"


def with_rows_in_all(table: Any, number: int) -> Any:
    """The lazy table with the number of rows there are, of which a reader left out those that a chain does not need."""
    object.__setattr__(table, _ROWS, int(number))
    return table


def rows_in_all(table: Any) -> int | None:
    """How many rows there are, with those that were not read because a chain does not need them; None if all are read."""
    return getattr(table, "__dict__", {}).get(_ROWS)


def with_extent(table: Any, extent: Mapping[str, tuple[Any, Any]]) -> Any:
    """The lazy table with the least and greatest value of its columns, as far as they are known without reading it."""
    object.__setattr__(table, _EXTENT, dict(extent))
    return table


def extent(table: Any, column: str) -> tuple[Any, Any] | None:
    """Least and greatest value of a column if that is known without reading it (they may be wider than the values)."""
    known = getattr(table, "__dict__", {}).get(_EXTENT)
    if known is not None:
        return known.get(column)
    if hasattr(table, "compute") or not len(table):
        return None
    values = table[column]
    return (
        None
        if getattr(values.dtype, "kind", "O") not in "iufM" or values.isna().all()
        else (values.min(), values.max())
    )


def in_words(template: str) -> str:
    """What a name or unit with braces says before anything is chosen: '{variable.units}' is 'the units of the variable
    chosen'."""
    of = re.sub(
        r"\{(\w+)\.(\w+)\}", lambda found: f"the {found[2].replace('_', ' ')} of the {found[1]} chosen", template
    )
    return re.sub(r"\{(\w+)\}", r"the \1 chosen", of)


def same_units(given: str, declared: str) -> bool:
    def plain(units):
        units = str(units).strip()
        return _SAME_UNITS.get(units, units)

    return plain(given) == plain(declared)


def converter(given: str, declared: str):
    """A function that turns values in `given` units into `declared` units; None when they are the same."""
    if same_units(given, declared):
        return None
    import pint

    registry = pint.get_application_registry()
    one_of, other = _unit(given), _unit(declared)
    if one_of is None or other is None:
        given = f"{given:.{_UNIT_LENGTH}}..." if len(given) > _UNIT_LENGTH else given
        raise InputError(f"units {given!r} cannot be compared with the declared {declared!r}") from None
    (scale_a, a), (scale_b, b) = one_of, other
    if not a.is_compatible_with(b):
        raise InputError(f"units {given!r} do not convert to the declared {declared!r}")
    # An affine map (offset for temperatures) is read off two values, so lazy arrays stay lazy.
    try:
        zero = registry.Quantity(0.0, a).to(b).magnitude / scale_b
        one = registry.Quantity(scale_a, a).to(b).magnitude / scale_b
    except ArithmeticError:
        raise InputError(
            f"units {given!r} do not convert to the declared {declared!r}: the factor is no number"
        ) from None
    return lambda values: values * (one - zero) + zero if zero else values * one


def _unit(text: str) -> tuple[float, Any] | None:
    """The factor and the pint unit of a units text, or None if it is none."""
    import pint

    registry = pint.get_application_registry()
    text = str(text).strip()
    text = _SAME_UNITS.get(text, text)
    try:
        return float(text), registry.dimensionless  # CF writes a scale such as 1e-3 for salinity
    except ValueError:
        pass
    # UDUNITS writes exponents behind the unit and a blank between factors: kg m-2 s-1.
    text = re.sub(r"(?<=[A-Za-z])\^?([+-]?[0-9]+)", r"**\1", text)
    try:
        _check_powers(text)
        return 1.0, registry.Unit(text)
    except (
        pint.errors.PintError, ArithmeticError, AssertionError, AttributeError, TypeError, ValueError,
        tokenize.TokenError,
    ):  # fmt: skip
        return None


def is_unit(text: str) -> bool:
    """Whether a text is a unit that values can be converted from; dates have units of their own (days since ...)."""
    return _unit(text) is not None


def _check_powers(text: str) -> None:
    """Refuse, as a ValueError, a text whose powers pint would compute for as long as they take: '9**9**9**9 m'."""
    superscripts = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
    plain = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda found: "**" + found[0].translate(superscripts), text.replace("^", "**"))
    exponents = [float(found) for found in _EXPONENT.findall(plain)]
    power = 3.0 ** len(re.findall("cubed|cubic|sq", plain))
    for exponent in exponents:
        power *= max(1.0, abs(exponent))
    if len(text) > _UNIT_LENGTH or len(exponents) != plain.count("**") or power > _UNIT_POWER:
        raise ValueError("powers that no unit has")


def check_input(name: str, declared: Input, data: Any) -> Any:
    """The input with the declared units, or an InputError that says what is missing. Data stay lazy."""
    if declared.kind == "cube":
        return _check_cube(name, declared, data)
    if declared.kind in ("table", "features", "events"):
        return _check_table(name, declared, data)
    return data


def _check_cube(name, declared, data):
    import xarray as xr

    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or next(iter(declared.variables), "data"))
    if not isinstance(data, xr.Dataset):
        raise InputError(
            f"Input {name!r} must be a cube (an xarray Dataset, a NetCDF file or a Zarr store) but is a "
            f"{type(data).__name__}. Choose an entry of kind cube; 'phidias catalog list' shows them."
        )
    described = {str(n): v.attrs for n, v in data.variables.items()}
    _check_names(name, "variable", declared, [str(n) for n in data.variables], described)
    for variable, wanted in declared.variables.items():
        if variable not in data.variables:
            continue
        data = data.assign({variable: _converted(name, variable, wanted, data[variable])})
    for dim in declared.dims:
        if dim not in data.dims:
            raise InputError(
                f"Input {name!r} has no dimension {dim!r}; it has {', '.join(map(str, data.dims)) or 'none'}. "
                f"Rename its dimensions to {', '.join(declared.dims)}."
            )
        if data.sizes[dim] == 0:
            raise InputError(f"Input {name!r} is empty along {dim!r}. Choose a larger region or another entry.")
    return data


def _check_names(name, what, declared, names, attributes):
    """Refuse an input that lacks what the chain needs; all that looks like something missing is said at once."""
    missing = {n: wanted for n, wanted in declared.variables.items() if n not in names and not wanted.optional}
    if not missing:
        return
    others = [n for n in names if n not in declared.variables]
    found = {n: look_alike(n, wanted.standard_name, others, attributes) for n, wanted in missing.items()}
    first, wanted = next(iter(missing.items()))
    alike = {n: old for n, old in found.items() if old is not None}
    raise InputError(
        f"Input {name!r} has no {what} {first!r}, which the chain needs{f' ({wanted.doc})' if wanted.doc else ''}. "
        + (f"Its {what} {_how_to_name(alike)}" if alike else nearest(first, names))
    )


def _converted(name, variable, wanted, array):
    given = array.attrs.get("units")
    if wanted.units is None or "{" in wanted.units or given is None or array.dtype.kind in "MmOSU":
        return array
    try:
        convert = converter(given, wanted.units)
    except InputError as error:
        raise InputError(
            f"Input {name!r}, variable {variable!r}: {as_sentence(error)} Correct its units attribute."
        ) from None
    if convert is None:
        return array
    converted = convert(array)
    converted.attrs = {**array.attrs, "units": wanted.units}
    return converted


def column_attributes(table: Any) -> dict[str, dict]:
    """Units and names of a table's columns, where the table carries them."""
    return dict((getattr(table, "attrs", None) or {}).get("columns") or {})


def with_attributes(table: Any, attributes: Mapping[str, Any]) -> Any:
    """The table with these attributes. A dask DataFrame has no place of its own for them and takes them all the same."""
    object.__setattr__(table, "attrs", dict(attributes))
    return table


#: How columns are called elsewhere. None is taken for what it looks like; a refusal names it and the option to write.
_ALIASES = {
    "longitude": ("lon", "long", "lng", "longitudes", "x", "decimallongitude", "longitudedegreeseast"),
    "latitude": ("lat", "latitudes", "y", "decimallatitude", "latitudedegreesnorth"),
    "depth": ("dep", "deph", "depthm", "z", "depthinm", "depthmetres"),
    "time": ("date", "datetime", "timestamp", "dateandtime", "juld", "timeutc", "dateutc", "times"),
    "temperature": ("temp", "sst", "tempadjusted", "watertemperature", "seawatertemperature"),
    "salinity": ("psal", "sal", "sss", "practicalsalinity", "seawaterpracticalsalinity"),
    "oxygen": ("doxy", "dox", "dox1", "dox2", "o2", "dissolvedoxygen"),
    "chlorophyll": ("chla", "chl", "cphl", "chlorophylla"),
}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[\[(].*", "", str(text).lower()))


def look_alike(
    wanted: str, standard_name: str | None, names: Iterable, attributes: Mapping[str, Mapping]
) -> str | None:
    """The name that may well be the wanted one under another spelling, or None. Nobody acts on it but the user."""
    for name in names:
        said = attributes.get(name, {}).get("standard_name")
        if (said and said == standard_name) or _plain(name) in (_plain(wanted), *_ALIASES.get(wanted, ())):
            return str(name)
    return None


def _how_to_name(found: Mapping[str, str]) -> str:
    """The sentence that tells how columns, by the names they should have, come to be called so."""
    options = " ".join(f"--column {shlex.quote(f'{old}={new}')}" for new, old in found.items())
    one = len(found) == 1
    these = ", ".join(f"{old!r} looks like {new!r}" for new, old in found.items())
    return (
        f"{these}. Rename {'it' if one else 'them'}, or register the file with  phidias catalog add FILE {options}  and "
        "give that entry."
    )


def parse_times(column: Any, label: str) -> Any:
    """A pandas column of texts as times in UTC without a zone; the first that is none is refused with its row."""
    import numpy as np
    import pandas as pd

    numbers = getattr(column.dtype, "kind", "O") in "iufb" and bool(column.notna().any())
    # Numbers could be days, seconds or 20120531: which, nobody says.
    parsed = pd.to_datetime(None if numbers else column, utc=True, format="ISO8601", errors="coerce")
    wrong = column.notna().to_numpy() & (True if numbers else parsed.isna().to_numpy())
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{label} holds {str(column.iloc[row])[:80]!r} in row {row + 1}, which is no time such as 2012-05-31T12:00:00. "
            "Write times in ISO 8601; those without an offset are taken as UTC."
        )
    return parsed.dt.tz_localize(None)


def _check_table(name, declared, data):
    if not hasattr(data, "columns") or not hasattr(data, "dtypes"):
        raise InputError(
            f"Input {name!r} must be a table (a DataFrame, Parquet or CSV) but is {kind_of(data)}. "
            "Choose an entry of kind table; 'phidias catalog list' shows them."
        )
    attributes = column_attributes(data)
    _check_names(name, "column", declared, list(data.columns), attributes)
    changed, known, whole = {}, dict(getattr(data, "__dict__", {}).get(_EXTENT) or {}), rows_in_all(data)
    for column, wanted in declared.variables.items():
        if column not in data.columns:
            continue
        kind = getattr(data.dtypes[column], "kind", "O")
        if wanted.standard_name == "time" and kind not in "M":
            label = f"Input {name!r}, column {column!r}"
            if hasattr(data, "partitions"):
                label += ", in one of its parts," if data.npartitions > 1 else ""
                changed[column] = data[column].map_partitions(parse_times, label, meta=(column, "datetime64[ns]"))
            else:
                changed[column] = parse_times(data[column], label)
        if wanted.units is not None and kind not in "iuf":
            raise InputError(
                f"Input {name!r}, column {column!r} holds {data.dtypes[column]}, but numbers in {wanted.units} are needed. "
                "Convert the column to numbers first."
            )
        given = attributes.get(column, {}).get("units")
        if given and wanted.units and "{" not in wanted.units:
            try:
                convert = converter(given, wanted.units)
            except InputError as error:
                raise InputError(
                    f"Input {name!r}, column {column!r}: {as_sentence(error)} Correct its units."
                ) from None
            if convert is not None:
                changed[column] = convert(data[column])
                if column in known:
                    known[column] = tuple(sorted(convert(float(end)) for end in known[column]))
                attributes[column] = {**attributes[column], "units": wanted.units}
    if changed:
        before = dict(getattr(data, "attrs", None) or {})
        data = data.assign(**changed)
        data = with_attributes(data, {**before, "columns": attributes})
        if known:
            data = with_extent(data, known)
        if whole is not None:
            data = with_rows_in_all(data, whole)
    return data


#: Names of columns that say where and when something was measured; their standard names say it as well.
_PLACES = {"longitude", "lon", "latitude", "lat", "depth", "height", "altitude", "elevation", "time", "date", "tile"}
_PLACES |= {"projection_x_coordinate", "projection_y_coordinate", "geometry", "x", "y", "z"}
_FLAGS = re.compile(r"(^|_)(qc|qf|flags?)$|status_flag$|quality_flag$", re.IGNORECASE)
_IDENTITIES = re.compile(r"(^|_)(ids?|uuid)$", re.IGNORECASE)


def measured(data: Any) -> list[str]:
    """The names that a parameter of kind variable may take: columns of measured numbers, or a cube's variables.

    Left out are texts and dates, identities, quality flags, bounds, and the columns that say where and when.
    """
    if not hasattr(data, "columns"):
        numbers = [str(n) for n, v in data.data_vars.items() if v.dtype.kind in "iufb"]
        described = {n: data[n].attrs for n in numbers}
    else:
        numbers = [str(c) for c in data.columns if getattr(data.dtypes[c], "kind", "O") in "iuf"]
        described = column_attributes(data)
    return [n for n in numbers if not _beside(n, described.get(n) or {})]


def _beside(name: str, attributes: Mapping[str, Any]) -> bool:
    """Whether a column accompanies the measurements instead of being one."""
    standard = str(attributes.get("standard_name") or "")
    if name.lower() in _PLACES or standard in _PLACES or name.endswith(("_bounds", "_bnds")):
        return True
    return bool(_FLAGS.search(name) or _FLAGS.search(standard) or _IDENTITIES.search(name))


def choose_variable(parameter: str, asked: str, of: str, data: Any) -> None:
    """Refuse a variable that the input does not have, or that is no measurement."""
    known = measured(data)
    if asked in known:
        return
    names = list(data.columns) if hasattr(data, "columns") else list(data.data_vars)
    if asked not in names:
        described = column_attributes(data) if hasattr(data, "columns") else {n: data[n].attrs for n in names}
        alike = look_alike(asked, None, names, described)
        raise InputError(
            f"Parameter {parameter!r} was given {asked!r}; the input {of!r} has no such variable. "
            + (f"Its {_how_to_name({asked: alike})}" if alike else nearest(asked, known or names))
        )
    if getattr(data.dtypes[asked], "kind", "O") not in "iuf":
        return  # the chain knows best whether it can do with texts, and says so
    raise InputError(
        f"Parameter {parameter!r} was given {asked!r}; the input {of!r} holds no measurements there. "
        f"{nearest(asked, known or names)}"
    )
