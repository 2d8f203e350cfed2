"""What a user may choose: number, count, choice, flag, text, period, region, variable, file.

Each is a `param` parameter that also knows its units, level and scale, how it is written in JSON, how it is read from
the command line, and how to say in one sentence what is wrong with a value. Forms, the command line, JSON schemas and
documentation are derived from this and from nothing else. `param` itself stays inside this package.

The value a parameter holds is always its JSON form, so that an order is what the chain sees:

    number    float                     period    ["2010-01-01", "2012-12-31"] (days; both ends belong to it)
    count     int                       region    [west, south, east, north] or a GeoJSON Polygon or MultiPolygon
    choice    one of its options        variable  a name found in an input
    flag      true or false             file      a path or an address
    text      string                    numbers   a list of floats
"""

from __future__ import annotations

import calendar
import itertools
import json
import math
import re
from datetime import UTC, date, datetime
from typing import Any

import param

from phidias_lab.errors import ParameterError, kind_of, nearest

LEVELS = ("user", "expert")
SCALES = ("linear", "log")


def show(value: Any) -> str:
    """A value as a user would write it, short enough for a sentence."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "an integer of hundreds of digits"
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):  # what JSON cannot hold may be given too
        text = f"{kind_of(value)}"
    return text if len(text) <= 80 else text[:77] + "..."


def plain_number(value: Any) -> float:
    """A real number as a float. Truth values, texts and complex numbers are none, also where Python would convert them."""
    if hasattr(value, "dtype"):  # numpy and xarray scalars; an array is a list and not a number
        if value.dtype.kind not in "iuf" or getattr(value, "shape", ()) != ():
            raise TypeError("not a number")
    elif isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError("not a number")
    return float(value)


def is_writable(text: str) -> bool:
    """Whether a text can be written in UTF-8: a lone surrogate, as from a broken file name, cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


class Declared:
    """The part common to all declared parameters; `metadata` carries what param has no slot for."""

    kind = ""

    def _declare(self, units: str | None, level: str, scale: str, **more: Any) -> dict:
        if level not in LEVELS:
            raise ParameterError(f"A parameter's level is 'user' or 'expert', not {level!r}.")
        if scale not in SCALES:
            raise ParameterError(f"A parameter's scale is 'linear' or 'log', not {scale!r}.")
        return {"units": units, "level": level, "scale": scale, **more}

    @property
    def units(self) -> str | None:
        return self.metadata["units"]

    @property
    def level(self) -> str:
        return self.metadata["level"]

    @property
    def scale(self) -> str:
        return self.metadata["scale"]

    def canonical(self, value: Any) -> Any:
        """The JSON form of a value, or a ParameterError that names this parameter."""
        if value is None:
            if self.allow_None:
                return None
            raise self.refusal(value, f"{self.expected()}")
        return self._canonical(value)

    def parse(self, text: str) -> Any:
        """The JSON form of what was typed on a command line or into a field."""
        if self.allow_None and text.strip().lower() in ("", "none"):
            return None
        return self.canonical(self._parse(text))

    def refusal(self, value: Any, expected: str) -> ParameterError:
        return ParameterError(f"Parameter {self.name!r} was given {show(value)}; expected {expected}.")

    def expected(self) -> str:
        """What this parameter accepts, as a phrase."""
        raise NotImplementedError(type(self))

    def _canonical(self, value: Any) -> Any:
        raise NotImplementedError(type(self))

    def _parse(self, text: str) -> Any:
        return text

    def schema(self) -> dict:
        """JSON Schema (2020-12) of the value, with the sentence, the default and the units."""
        schema = {"title": self.label, "description": self.doc, "default": self.default, **self._schema()}
        if self.allow_None:
            if "type" in schema:
                schema["type"] = [schema["type"], "null"]
            for union in ("anyOf", "enum"):
                if union in schema:
                    schema[union] = [*schema[union], {"type": "null"} if union == "anyOf" else None]
        schema["x-level"] = self.level
        schema["x-scale"] = self.scale
        if self.units is not None:
            schema["x-units"] = self.units
        return schema

    def _schema(self) -> dict:
        raise NotImplementedError(type(self))

    def describe(self) -> dict:
        return {
            "name": self.name,
            "kind": self.kind,
            "default": self.default,
            "units": self.units,
            "doc": self.doc,
            "level": self.level,
            "scale": self.scale,
            "expected": self.expected(),
            "optional": self.allow_None,
        }

    def _validate(self, val: Any) -> None:
        # param calls this for defaults and for every assignment; the name is not known while a class body runs.
        if val is None and (self.allow_None or self.name is None):
            return
        self.canonical(val)


def _bounds_phrase(bounds: tuple, units: str | None) -> str:
    low, high = bounds
    unit = "" if units in (None, "1") else f" {units}"
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low:g}{unit}"
    if low is None:
        return f" of at most {high:g}{unit}"
    return f" from {low:g} to {high:g}{unit}"


class Number(Declared, param.Number):
    kind = "number"

    def __init__(self, default=0.0, *, bounds=(None, None), units="1", doc="", level="user", scale="linear", **kw):
        kw.setdefault("metadata", self._declare(units, level, scale))
        if scale == "log" and (bounds[0] is None or bounds[0] <= 0):
            raise ParameterError("A logarithmic scale needs a lower bound above zero.")
        super().__init__(default, bounds=bounds, doc=doc, **kw)

    def expected(self) -> str:
        return f"a finite number{_bounds_phrase(self.bounds, self.units)}"

    def _canonical(self, value):
        try:
            number = plain_number(value)
        except (TypeError, ValueError, OverflowError):
            raise self.refusal(value, self.expected()) from None
        low, high = self.bounds
        if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
            raise self.refusal(value, self.expected())
        return number

    def _parse(self, text):
        try:
            return float(text)
        except ValueError:
            raise self.refusal(text, self.expected()) from None

    def _schema(self):
        schema: dict = {"type": "number"}
        if self.bounds[0] is not None:
            schema["minimum"] = self.bounds[0]
        if self.bounds[1] is not None:
            schema["maximum"] = self.bounds[1]
        return schema


class Count(Declared, param.Integer):
    kind = "count"

    def __init__(self, default=0, *, bounds=(0, None), units="1", doc="", level="user", scale="linear", **kw):
        kw.setdefault("metadata", self._declare(units, level, scale))
        super().__init__(default, bounds=bounds, doc=doc, **kw)

    def expected(self) -> str:
        return f"a whole number{_bounds_phrase(self.bounds, self.units)}"

    def _canonical(self, value):
        try:
            # A Python integer may be longer than a float can say exactly.
            number = value if type(value) is int else int(value) if plain_number(value).is_integer() else None
        except (TypeError, ValueError, OverflowError):
            number = None
        low, high = self.bounds
        if number is None:
            raise self.refusal(value, self.expected())
        if (low is not None and number < low) or (high is not None and number > high):
            raise self.refusal(value, self.expected())
        return number

    def _parse(self, text):
        try:
            return int(text)
        except ValueError:
            raise self.refusal(text, self.expected()) from None

    def _schema(self):
        return {**Number._schema(self), "type": "integer"}


class Choice(Declared, param.Selector):
    kind = "choice"

    def __init__(self, default=None, *, objects=(), doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(None, level, "linear"))
        super().__init__(default=default, objects=list(objects), doc=doc, check_on_set=True, **kw)

    @property
    def options(self) -> list:
        return list(self.objects)

    def expected(self) -> str:
        return "one of " + ", ".join(show(o) for o in self.options)

    def _canonical(self, value):
        if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
            value = value.item()
        for option in self.options:
            if type(value) is type(option) and value == option:
                return option
        hint = nearest(value, self.options) if isinstance(value, str) else ""
        error = self.refusal(value, self.expected())
        raise ParameterError(f"{error} {hint}".strip()) if hint.startswith("Did") else error

    def _parse(self, text):
        return next((option for option in self.options if str(option) == text), text)

    def _schema(self):
        return {"enum": self.options}


class Flag(Declared, param.Boolean):
    kind = "flag"

    def __init__(self, default=False, *, doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(None, level, "linear"))
        super().__init__(default, doc=doc, **kw)

    def expected(self) -> str:
        return "true or false"

    def _canonical(self, value):
        if type(value).__name__ not in ("bool", "bool_"):
            raise self.refusal(value, self.expected())
        return bool(value)

    def _parse(self, text):
        known = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.strip().lower() not in known:
            raise self.refusal(text, self.expected())
        return known[text.strip().lower()]

    def _schema(self):
        return {"type": "boolean"}


class Text(Declared, param.Parameter):
    """Free text of bounded length. It reaches metadata only: never a shell, a path or a template."""

    kind = "text"
    __slots__ = ()

    def __init__(self, default=None, *, max_length=200, pattern=None, doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(None, level, "linear", max_length=max_length, pattern=pattern))
        super().__init__(default, doc=doc, **kw)

    def expected(self) -> str:
        phrase = f"text of at most {self.metadata['max_length']} characters without control characters"
        return phrase + (f" matching {self.metadata['pattern']}" if self.metadata["pattern"] else "")

    def _canonical(self, value):
        pattern = self.metadata["pattern"]
        bad = (
            not isinstance(value, str)
            or len(value) > self.metadata["max_length"]
            or any((ord(c) < 32 and c not in "\n\t") or ord(c) == 127 for c in value)
            or not is_writable(value)
            or (pattern is not None and not re.fullmatch(pattern, value))
        )
        if bad:
            raise self.refusal(value, self.expected())
        return value

    def _schema(self):
        schema = {"type": "string", "maxLength": self.metadata["max_length"]}
        return {**schema, "pattern": f"^(?:{self.metadata['pattern']})$"} if self.metadata["pattern"] else schema


class Numbers(Declared, param.Parameter):
    """A list of numbers, such as depth levels; `increasing` asks for a strictly rising list."""

    kind = "numbers"
    __slots__ = ()

    def __init__(self, default=None, *, bounds=(None, None), units="1", increasing=False, doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(units, level, "linear", bounds=list(bounds), increasing=increasing))
        super().__init__(default, doc=doc, **kw)

    @property
    def bounds(self) -> tuple:
        return tuple(self.metadata["bounds"])

    def expected(self) -> str:
        order = " in strictly rising order" if self.metadata["increasing"] else ""
        bounds = _bounds_phrase(self.bounds, self.units)
        return f"a list of finite numbers{order}" + (f", each{bounds}" if bounds else "")

    def _canonical(self, value):
        # A set has no order, and what has no length may have no end.
        if isinstance(value, str | bytes | dict | set | frozenset) or not hasattr(value, "__len__"):
            raise self.refusal(value, self.expected())
        try:
            numbers = [plain_number(v) for v in value]
        except (TypeError, ValueError, OverflowError):
            raise self.refusal(value, self.expected()) from None
        low, high = self.bounds
        inside = all(math.isfinite(v) and (low is None or v >= low) and (high is None or v <= high) for v in numbers)
        rising = all(b > a for a, b in itertools.pairwise(numbers))
        if not numbers or not inside or (self.metadata["increasing"] and not rising):
            raise self.refusal(value, self.expected())
        return numbers

    def _parse(self, text):
        try:
            return [float(part) for part in text.strip("[] ").split(",")]
        except ValueError:
            raise self.refusal(text, self.expected() + ", written like 0,10,50") from None

    def _schema(self):
        item = {"type": "number"}
        if self.bounds[0] is not None:
            item["minimum"] = self.bounds[0]
        if self.bounds[1] is not None:
            item["maximum"] = self.bounds[1]
        return {"type": "array", "items": item, "minItems": 1}


def _moment(value: Any) -> str:
    """ISO day or second (UTC) of a date, a time or its text. A time at midnight is its day."""
    if not isinstance(value, datetime | date):
        text = str(value).strip()
        if len(text) > 40:  # the standard library would take the first digits and drop the rest
            raise ValueError("no date is that long")
        if re.fullmatch(r"[0-9]{4}(-[0-9]{2}){0,2}", text):  # a year or a month is a date to people
            text = (text + "-01-01")[:10]
        value = datetime.fromisoformat(text)
    if isinstance(value, datetime):
        if value != value:  # pandas' missing time is a datetime
            raise ValueError("not a time")
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        if (value.hour, value.minute, value.second) != (0, 0, 0):
            return value.isoformat(timespec="seconds")
        value = value.date()
    return value.isoformat()


def _last_moment(value: Any) -> str:
    """The same for an end: of a year or month that was written without a day, the last day."""
    text = "" if isinstance(value, datetime | date) else str(value).strip()
    if re.fullmatch(r"[0-9]{4}", text):
        return _moment(f"{text}-12-31")
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}", text):
        year, month = int(text[:4]), int(text[5:])
        return date(year, month, calendar.monthrange(year, month)[1]).isoformat()
    return _moment(value)


class Period(Declared, param.Parameter):
    """Two dates; both ends belong to the period. None is the whole of the input."""

    kind = "period"
    __slots__ = ()

    def __init__(self, default=None, *, doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(None, level, "linear"))
        kw.setdefault("allow_None", True)
        super().__init__(default, doc=doc, **kw)

    def expected(self) -> str:
        return "a start and an end date that is not before it, written like 2010-01-01/2012-12-31, or one year, month or day"

    def _canonical(self, value):
        if isinstance(value, str):
            value = value.split("/")
            value = value * 2 if len(value) == 1 else value  # "2012-01" is all of that month
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise self.refusal(value, self.expected())
        try:
            start, end = _moment(value[0]), _last_moment(value[1])
        except (ValueError, TypeError, OverflowError):
            raise self.refusal(value, self.expected()) from None
        # An end without a time of day is the whole day.
        if end < start[: len(end)]:
            raise ParameterError(
                f"Parameter {self.name!r} was given {show(list(value))}: the end {end} lies before the start {start}. "
                "Swap the two dates."
            )
        return [start, end]

    def _schema(self):
        return {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 2, "maxItems": 2}


class Region(Declared, param.Parameter):
    """A bounding box [west, south, east, north] in degrees, or a GeoJSON polygon. None is the whole of the input."""

    kind = "region"
    __slots__ = ()

    def __init__(self, default=None, *, doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare("degrees", level, "linear"))
        kw.setdefault("allow_None", True)
        super().__init__(default, doc=doc, **kw)

    def expected(self) -> str:
        return (
            "west,south,east,north in degrees (-180 to 360 and -90 to 90, south below north), "
            "or a GeoJSON Polygon or MultiPolygon"
        )

    def _canonical(self, value):
        if isinstance(value, dict):
            return self._polygon(value)
        if isinstance(value, str | bytes | set | frozenset) or not hasattr(value, "__len__"):
            raise self.refusal(value, self.expected())
        try:
            west, south, east, north = (plain_number(v) for v in value)
        except (TypeError, ValueError, OverflowError):
            raise self.refusal(value, self.expected()) from None
        good = (
            all(math.isfinite(v) for v in (west, south, east, north))
            and -180 <= west <= 360
            and -180 <= east <= 360
            and -90 <= south < north <= 90
            and west != east
        )
        if not good:
            raise self.refusal(value, self.expected())
        if east < west:
            raise ParameterError(
                f"Parameter {self.name!r} was given {show(list(value))}: its east {east:g} lies west of {west:g}. "
                f"Across the date line write the east as {east + 360:g}."
            )
        return [west, south, east, north]

    def _polygon(self, value):
        import shapely

        if value.get("type") == "Feature":
            value = value.get("geometry")
        if not isinstance(value, dict) or value.get("type") not in ("Polygon", "MultiPolygon"):
            raise self.refusal(value, self.expected())
        try:
            shape = shapely.from_geojson(json.dumps(value))
        except (shapely.errors.ShapelyError, TypeError, ValueError, RecursionError):
            raise self.refusal(value, self.expected()) from None
        if shape.is_empty or not math.isfinite(shape.area):
            raise self.refusal(value, self.expected())
        if not shape.is_valid:
            raise ParameterError(
                f"Parameter {self.name!r} was given a polygon that is not valid: {shapely.is_valid_reason(shape)}. "
                "Draw its border without crossings."
            )
        west, south, east, north = shape.bounds
        if west < -180 or east > 360 or south < -90 or north > 90:
            raise self.refusal(value, self.expected())
        return json.loads(shapely.to_geojson(shape))

    def _parse(self, text):
        text = text.strip()
        if text.startswith("{"):
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise self.refusal(text, self.expected()) from None
        try:
            return [float(part) for part in text.strip("[] ").split(",")]
        except ValueError:
            raise self.refusal(text, self.expected()) from None

    def _schema(self):
        box = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        return {"anyOf": [box, {"type": "object", "properties": {"type": {"enum": ["Polygon", "MultiPolygon"]}}}]}


class Variable(Declared, param.Parameter):
    """The name of a variable of an input; `of` names that input. Whether it exists is checked when inputs are open."""

    kind = "variable"
    __slots__ = ()

    def __init__(self, default=None, *, of, doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(None, level, "linear", of=of))
        super().__init__(default, doc=doc, **kw)

    @property
    def of(self) -> str:
        return self.metadata["of"]

    def expected(self) -> str:
        return f"the name of a variable of the input {self.of!r}"

    def _canonical(self, value):
        if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
            raise self.refusal(value, self.expected())
        return value

    def _schema(self):
        return {"type": "string", "minLength": 1, "x-variable-of": self.of}


class File(Declared, param.Parameter):
    """A path or address of a file the chain needs beside its inputs; the flow opens it, never the chain."""

    kind = "file"
    __slots__ = ()

    def __init__(self, default=None, *, suffixes=(), doc="", level="user", **kw):
        kw.setdefault("metadata", self._declare(None, level, "linear", suffixes=list(suffixes)))
        kw.setdefault("allow_None", True)
        super().__init__(default, doc=doc, **kw)

    def expected(self) -> str:
        suffixes = self.metadata["suffixes"]
        return "the path or address of a file" + (f" ending in {' or '.join(suffixes)}" if suffixes else "")

    def _canonical(self, value):
        value = str(value) if hasattr(value, "__fspath__") else value
        suffixes = self.metadata["suffixes"]
        if (
            not isinstance(value, str)
            or not value.strip()
            or "\0" in value
            or not is_writable(value)
            or (suffixes and not value.lower().endswith(tuple(s.lower() for s in suffixes)))
        ):
            raise self.refusal(value, self.expected())
        return value

    def _schema(self):
        return {"type": "string", "minLength": 1}


def number(default, *, bounds=(None, None), units="1", doc, level="user", scale="linear") -> Any:
    """A finite number with bounds and units."""
    return Number(default, bounds=bounds, units=units, doc=doc, level=level, scale=scale)


def count(default, *, bounds=(0, None), units="1", doc, level="user", scale="linear") -> Any:
    """A whole number with bounds."""
    return Count(default, bounds=bounds, units=units, doc=doc, level=level, scale=scale)


def choice(default, options, *, doc, level="user") -> Any:
    """One of a short list."""
    return Choice(default, objects=options, doc=doc, level=level)


def flag(default, *, doc, level="user") -> Any:
    """Yes or no."""
    return Flag(default, doc=doc, level=level)


def text(default, *, doc, max_length=200, pattern=None, level="user") -> Any:
    """Free text that ends in metadata."""
    return Text(default, doc=doc, max_length=max_length, pattern=pattern, level=level)


def numbers(default=None, *, bounds=(None, None), units="1", increasing=False, doc, level="user") -> Any:
    """A list of numbers; None lets the chain decide."""
    return Numbers(
        default, bounds=bounds, units=units, increasing=increasing, doc=doc, level=level, allow_None=default is None
    )


def period(default=None, *, doc, level="user") -> Any:
    """A start and an end; None is everything."""
    return Period(default, doc=doc, level=level)


def region(default=None, *, doc, level="user") -> Any:
    """A box or polygon in degrees; None is everything."""
    return Region(default, doc=doc, level=level)


def variable(default, *, of, doc, level="user") -> Any:
    """A variable of an input."""
    return Variable(default, of=of, doc=doc, level=level)


def file(default=None, *, suffixes=(), doc, level="user") -> Any:
    """A file beside the inputs; None is none."""
    return File(default, suffixes=suffixes, doc=doc, level=level)


def region_bounds(value: list | dict) -> tuple[float, float, float, float]:
    """The bounding box of a region value."""
    if isinstance(value, dict):
        import shapely

        return tuple(shapely.from_geojson(json.dumps(value)).bounds)
    return tuple(value)


def region_contains(value: list | dict, longitude, latitude):
    """Which points lie in a region; longitudes may be in -180..180 or 0..360, whatever the region uses."""
    import numpy as np

    west, south, east, north = region_bounds(value)
    lon, lat = np.broadcast_arrays(np.asarray(longitude, float), np.asarray(latitude, float))
    shape = None
    if isinstance(value, dict):
        import shapely

        shape = shapely.from_geojson(json.dumps(value))
        shapely.prepare(shape)
    inside = np.zeros(lon.shape, bool)
    # Both conventions meet when the turns to either side are tried. A longitude in the region's own convention is
    # compared as it is; one that was turned has lost some digits, so a point on the border gets a tenth of a millimetre.
    for turn, slack in ((0.0, 0.0), (-360.0, 1e-9), (360.0, 1e-9)):
        turned = lon + turn
        here = (turned >= west - slack) & (turned <= east + slack) & (lat >= south) & (lat <= north)
        if shape is not None and here.any():
            here &= shapely.intersects_xy(shape, np.clip(turned, west, east), lat)
        inside |= here
    return inside
