"""SeaDataNet's CF NetCDF: profiles (INSTANCE x MAXZ), time series and trajectories (INSTANCE x MAXT).

SeaDataNet deliverable D8.5. A variable names its flags by `ancillary_variables`; they are the ASCII codes of L20. Codes of
the vocabularies P01 and P06 stand in `sdn_parameter_urn` and `sdn_uom_urn`. Files without LOCAL_CDI_ID, EDMO code or flags
are read as well.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from phidias_lab.methods.formats import flags, vocabulary
from phidias_lab.methods.formats.netcdf import (
    ALONG,
    ROW_SIZE,
    TABLE,
    File,
    Rectangle,
    Variable,
    characters,
    complete,
    filled,
    restore,
    row_mask,
    texts,
)
from phidias_lab.methods.formats.observations import (
    JULIAN_DAY,
    JULIAN_ORIGIN,
    NO_TIME,
    Faults,
    NotReadable,
    Observations,
    days_to_time,
    index_text,
    parse_time,
    time_to_days,
)

INSTANCE, DEPTHS, TIMES = "INSTANCE", "MAXZ", "MAXT"
FILL = -99999.0
JULIAN_UNITS = "days since -4713-01-01T00:00:00Z"
LABEL = 40  # letters of a long_name that may become the name of a column
CONVENTIONS = "SeaDataNet_1.0 CF 1.6"
#: Variable of an instance -> column.
_TEXTS = {
    "SDN_CRUISE": "cruise",
    "SDN_STATION": "station",
    "SDN_LOCAL_CDI_ID": "local_cdi_id",
    "SDN_XLINK": "references",
}
_SECONDS = {"day": 86400.0, "hour": 3600.0, "minute": 60.0, "second": 1.0, "millisecond": 1e-3}
_STANDARD = {"longitude", "latitude", "time", "depth", "sea_water_pressure"}


def recognise(file: File) -> bool:
    told = str(file.attributes.get("Conventions", ""))
    return "SeaDataNet" in told or any(name.startswith("SDN_") for name in file.variables)


def _by_standard(file: File, standard: str, *names: str) -> str | None:
    for name, variable in file.variables.items():
        if variable.attributes.get("standard_name") == standard and variable.data.dtype.kind in "iuf":
            return name
    return next((n for n in names if n in file.variables), None)


def _along(file: File, instance: str | None) -> str | None:
    """The dimension along an instance: levels or times."""
    if ROW_SIZE in file.variables:
        return str(file.variables[ROW_SIZE].attributes.get(ALONG))
    for name in (DEPTHS, TIMES):
        if name in file.dimensions:
            return name
    for variable in file.variables.values():
        if len(variable.dims) == 2 and variable.dims[0] == instance and variable.data.dtype.kind in "iuf":
            return variable.dims[1]
    return None


def _time(file: File, name: str, faults: Faults) -> np.ndarray:
    variable = file.variables[name]
    values = filled(variable).astype(float)
    units, calendar = str(variable.attributes.get("units", "")), str(variable.attributes.get("calendar", "standard"))
    code = vocabulary.code_of(str(variable.attributes.get("sdn_parameter_urn", "")))
    if code == vocabulary.JULIAN or "-4713" in units or "-4712" in units:
        when, wrong = days_to_time(values - JULIAN_DAY, JULIAN_ORIGIN)
    else:
        match = re.match(r"\s*(\w+?)s?\s+since\s+(.+)$", units)
        origin = None
        if (
            match
            and match[1].lower() in _SECONDS
            and calendar.lower() in ("standard", "gregorian", "proleptic_gregorian")
        ):
            text = re.sub(r"\s*(UTC|GMT)$", "", match[2].strip())
            text = re.sub(r"^(\d+)-(\d)(?!\d)", r"\1-0\2", text)
            text = re.sub(r"^(\d+-\d\d)-(\d)(?!\d)", r"\1-0\2", text)
            origin = parse_time(text)
        if origin is None or np.isnat(origin):
            faults.add(
                f"variable {name}", f"has the units {units!r} ({calendar}), which are no known time; it is left out."
            )
            return np.full(values.shape, NO_TIME)
        when, wrong = days_to_time(values * (_SECONDS[match[1].lower()] / 86400.0), origin)
    for index in np.argwhere(wrong):
        index = tuple(map(int, index))
        faults.add(f"{name}{index_text(index)}", f"is {values[index]:g} {units}, no plausible date, and is left out.")
    return when


def _flags(file: File, name: str, shape: tuple[int, ...], faults: Faults) -> np.ndarray:
    variable = file.variables[name]
    data = variable.data
    codes = data.view(np.int8) if data.dtype == np.dtype("S1") else data
    if codes.dtype.kind not in "iu":
        faults.add(f"variable {name}", "holds no flags but other numbers; it is left out.")
        return np.zeros(shape, np.int8)
    kinds, inverse = np.unique(codes, return_inverse=True)
    # The codes are those of characters; some writers store the digit itself.
    words = [chr(int(k)) if 48 <= k < 128 else str(int(k)) if 0 <= k <= 9 else "?" for k in kinds]
    found, unknown = flags.decode(words, "L20")
    unknown = unknown[inverse].reshape(codes.shape)
    for index in np.argwhere(unknown):
        index = tuple(map(int, index))
        faults.add(f"{name}{index_text(index)}", f"is {int(codes[index])}, no flag of L20; it is taken as 0.")
    return found[inverse].reshape(codes.shape).astype(np.int8)


def observations(file: File, faults: Faults) -> Observations:
    """The table of a file. What cannot be read is told in `faults` with variable and index."""
    lon, lat = _by_standard(file, "longitude", "LONGITUDE", "lon"), _by_standard(file, "latitude", "LATITUDE", "lat")
    when = _by_standard(file, "time", "TIME", "time")
    for name, what in ((lon, "longitude"), (lat, "latitude"), (when, "time")):
        if name is None:
            raise NotReadable(f"it has no variable with the standard name {what}.")
    instance = file.variables[lon].dims[0] if file.variables[lon].dims else None
    along = _along(file, instance)
    if instance is None or along is None:
        raise NotReadable(
            f"its variables are not laid out as profiles, series or trajectories ({INSTANCE} x {DEPTHS} or {TIMES})."
        )
    shape = (file.dimensions[instance], file.dimensions[along])

    def whole(values: np.ndarray, dims: tuple[str, ...], name: str) -> np.ndarray | None:
        """A variable in the rectangle; None, told as a fault, where it does not fit."""
        if dims == (instance, along):
            return values
        if dims == (instance,):
            return np.broadcast_to(values[:, None], shape)
        if dims == (along,) and along != instance:
            return np.broadcast_to(values[None, :], shape)
        if dims == ():
            return np.broadcast_to(values, shape)
        faults.add(
            f"variable {name}", f"has the dimensions {dims}, which do not fit {(instance, along)}; it is left out."
        )
        return None

    data: dict[str, np.ndarray] = {}
    z = _by_standard(file, "depth", "DEPTH")
    pressure = None if z else _by_standard(file, "sea_water_pressure", "PRES")
    qc_of: dict[str, str] = {}
    for name, variable in file.variables.items():
        for other in str(variable.attributes.get("ancillary_variables", "")).split():
            if other not in file.variables:
                faults.add(f"variable {name}", f"names {other} for its flags, but there is no variable of that name.")
            elif _is_flags(file.variables[other]):
                qc_of.setdefault(name, other)
    measured = []
    for name, variable in file.variables.items():
        if name in (lon, lat, when) or name.startswith(("PHIDIAS_", "SDN_")) or name in qc_of.values():
            continue
        if variable.data.dtype.kind not in "iuf" or _is_flags(variable) or not set(variable.dims) & {instance, along}:
            continue
        values = whole(filled(variable), variable.dims, name)
        if values is not None:
            data[name] = values
            if name not in (z, pressure):
                measured.append(name)
    keep = row_mask(file)
    if keep is None:
        keep = np.zeros(shape, bool)
        for name in [n for n in (*measured, pressure) if n and file.variables[n].dims == (instance, along)]:
            keep |= ~np.isnan(data[name])
    rows = np.nonzero(keep)[0]
    facts = {"format": "SeaDataNet CF NetCDF"}
    told = ("title", "institution", "license", "featureType", "date_update")
    facts |= {k: str(file.attributes[k]) for k in told if k in file.attributes}
    table = Observations(facts=facts)
    _add_identity(table, file, instance, rows, faults)
    for name, column, low, high in ((lon, "longitude", -180, 360), (lat, "latitude", -90, 90)):
        dims, values = file.variables[name].dims, filled(file.variables[name]).astype(float)
        spread = whole(values, dims, name)
        if spread is None:
            raise NotReadable(f"its variable {name} does not say where the observations are.")
        _told_missing(np.isnan(spread) & keep, name, dims, "the observations have no place", faults)
        for index in np.argwhere((values < low) | (values > high)):
            index = tuple(map(int, index))
            faults.add(f"{name}{index_text(index)}", f"is {values[index]:g}, outside {low} to {high}, and is left out.")
        spread = np.where((spread < low) | (spread > high), np.nan, spread)
        table.add(column, spread[keep], dict(vocabulary.PLACES[column]))
    if lon in qc_of:
        _add_flags(table, file, "position", qc_of[lon], whole, keep, faults)
    moments = whole(_time(file, when, faults), file.variables[when].dims, when)
    if moments is None:
        raise NotReadable(f"its variable {when} does not say when the observations were made.")
    _told_missing(
        np.isnan(whole(filled(file.variables[when]).astype(float), file.variables[when].dims, when)) & keep,
        when, file.variables[when].dims, "the observations have no time", faults,
    )  # fmt: skip
    table.add("time", moments[keep], dict(vocabulary.PLACES["time"]))
    if when in qc_of:
        _add_flags(table, file, "time", qc_of[when], whole, keep, faults)
    if z is None and pressure is None:
        faults.add("", "No variable is a depth or a pressure, so the observations have no depth.")
    for name in [n for n in (z, pressure) if n] + measured:
        given = _attributes(file.variables[name])
        label = str(file.variables[name].attributes.get("long_name", name))
        code, standard = (
            given.get("sdn_parameter_urn", ""),
            str(file.variables[name].attributes.get("standard_name", "")),
        )
        described = str(file.variables[name].attributes.get("sdn_parameter_name", ""))
        units = str(file.variables[name].attributes.get("units", ""))
        if name in (z, pressure):
            column, words = ("depth" if name == z else "pressure"), {}
            words = vocabulary.BY_NAME[column].attributes() | {"units": vocabulary.units_of(units)}
            if name == z:
                words["positive"] = str(file.variables[name].attributes.get("positive", "down"))
        else:
            # A label that is a whole sentence makes no name; the variable's own does.
            column, words = vocabulary.name_and_attributes(
                label if len(label) <= LABEL else name, units, code, standard, described
            )
            words["long_name"] = label if column == vocabulary.slug(name) else words["long_name"]
            if "standard deviation" in described.lower() and standard and "deviation" not in standard:
                faults.add(
                    f"variable {name}",
                    f"is {described!r} by its code {code} and {standard!r} by its standard name; the code is believed.",
                )
        column = table.add(column, data[name][keep], words | given | {"netcdf_variable": name})
        if name in qc_of:
            _add_flags(table, file, column, qc_of[name], whole, keep, faults)
    table = table.with_depth()
    return restore(table, file, faults) if TABLE in file.attributes else table


def _is_flags(variable: Variable) -> bool:
    told = variable.attributes
    return (
        "flag_values" in told
        or told.get("standard_name") == "status_flag"
        or "L20" in str(told.get("sdn_conventions_urn", ""))
    )


def _told_missing(where: np.ndarray, name: str, dims: tuple[str, ...], so: str, faults: Faults) -> None:
    if len(dims) <= 1:
        for i in np.flatnonzero(where.any(axis=1)):
            faults.add(f"{name}[{int(i)}]", f"is missing, so {so}.")
    else:
        for index in np.argwhere(where):
            faults.add(f"{name}{index_text(tuple(map(int, index)))}", f"is missing, so {so}.")


def _attributes(variable: Variable) -> dict[str, str]:
    keys = ("sdn_parameter_urn", "sdn_uom_urn", "sdn_instrument_urn", "sdn_instrument_name")
    return {k: str(variable.attributes[k]) for k in keys if k in variable.attributes}


def _add_identity(table: Observations, file: File, instance: str, rows: np.ndarray, faults: Faults) -> None:
    found: dict[str, np.ndarray] = {}
    for name, column in _TEXTS.items():
        if name in file.variables and file.variables[name].dims[:1] == (instance,):
            words = texts(file.variables[name])
            if words.ndim == 2:  # several references to one instance
                words = np.array([" | ".join(filter(None, row)) for row in words], dtype=object)
            if words.ndim == 1:
                found[column] = words
    if "SDN_EDMO_CODE" in file.variables and file.variables["SDN_EDMO_CODE"].dims == (instance,):
        codes = file.variables["SDN_EDMO_CODE"]
        if codes.data.dtype.kind in "iu":
            fill = codes.attributes.get("_FillValue")
            found["edmo_code"] = np.array(
                ["" if fill is not None and c == fill else str(c) for c in codes.data], object
            )
    ship = str(file.variables.get("SDN_CRUISE", Variable((), np.array(0))).attributes.get("shipName", ""))
    if ship:
        table.add("platform", np.full(len(rows), ship, dtype=object), {"long_name": "ship"})
    for column in ("cruise", "station", "local_cdi_id", "edmo_code", "references"):
        if column in found:
            table.add(column, found[column][rows], {"long_name": column.replace("_", " ")})
    count = file.dimensions[instance]
    none = np.full(count, "", dtype=object)
    casts = [
        f"{e}-{c}" if e and c else c or "/".join(filter(None, (a, b))) or str(i)
        for i, (e, c, a, b) in enumerate(
            zip(*(found.get(n, none) for n in ("edmo_code", "local_cdi_id", "cruise", "station")), strict=True)
        )
    ]
    words = "identity of the profile, series or voyage: EDMO code and LOCAL_CDI_ID, or cruise and station"
    table.add("cast", np.array(casts, dtype=object)[rows], {"long_name": words})
    bottom = file.variables.get("SDN_BOT_DEPTH")
    if bottom is not None and bottom.dims == (instance,) and bottom.data.dtype.kind == "f":
        words = {"units": "m", "standard_name": "sea_floor_depth_below_sea_surface", "long_name": "bottom depth"}
        table.add("bottom_depth", filled(bottom)[rows], words)


def _add_flags(table, file, column, name, whole, keep, faults) -> None:
    shape = file.variables[name].data.shape
    values = whole(_flags(file, name, shape, faults), file.variables[name].dims, name)
    if values is not None:
        table.add(f"{column}_qc", values[keep], flags.attributes(column))


# From the table --------------------------------------------------------------------------------------------------------


def file(table: Observations) -> File:
    """A SeaDataNet file of a table: profiles, or series or trajectories where time changes within a cast."""
    for name in ("longitude", "latitude", "time"):
        if name not in table.columns:
            raise NotReadable(f"the table has no column {name!r}, which SeaDataNet's NetCDF needs.")
    place, columns, attributes = Rectangle(table), table.columns, table.attributes
    fixed = {n: place.constant(columns[n]) for n in ("longitude", "latitude", "time")}
    kind, along = ("profile", DEPTHS) if fixed["time"] else ("timeSeries", TIMES)
    if not (fixed["longitude"] and fixed["latitude"]):
        kind, along = "trajectory", TIMES
    made = File(
        {INSTANCE: place.shape[0], along: place.shape[1]},
        attributes={"Conventions": CONVENTIONS, "featureType": kind, "history": "written by phidias_lab"},
    )
    made.attributes |= {k: v for k, v in table.facts.items() if k in ("title", "institution", "license")}

    def put(name: str, values: np.ndarray, words: dict[str, Any], flag: str | None, once: bool) -> None:
        """A variable with its flags, once for each cast or in the rectangle."""
        fill = values.dtype.type(FILL)
        dims = (INSTANCE,) if once else (INSTANCE, along)
        stored = place.first(values) if once else place.spread(values, fill)
        stored = np.where(np.isnan(stored), fill, stored)
        words = {**words, "_FillValue": fill}
        if flag in columns and columns[flag].dtype == np.int8 and (not once or place.constant(columns[flag])):
            quality = f"{name if name not in ('LONGITUDE', 'LATITUDE') else 'POSITION'}_SEADATANET_QC"
            words["ancillary_variables"] = quality
            if quality not in made.variables:
                made.variables[quality] = _flag_variable(columns[flag], place, dims)
        made.variables[name] = Variable(dims, stored, words)

    edmo = columns.get("edmo_code")
    if edmo is not None and edmo.dtype == object and place.constant(edmo):
        codes = place.first(edmo)
        if all(re.fullmatch(r"\d{1,9}", c) for c in codes):
            words = {"long_name": "European Directory of Marine Organisations code for the CDI partner"}
            made.variables["SDN_EDMO_CODE"] = Variable((INSTANCE,), np.array([int(c) for c in codes], np.int32), words)
    for variable, column in _TEXTS.items():
        values = columns.get(column)
        if values is not None and values.dtype == object and place.constant(values):
            coded = characters(place.first(values))
            width = f"STRING{coded.shape[1]}"
            made.dimensions[width] = coded.shape[1]
            made.variables[variable] = Variable((INSTANCE, width), coded, {"long_name": column.replace("_", " ")})
    if "bottom_depth" in columns and place.constant(columns["bottom_depth"]):
        words = {"units": "meters", "standard_name": "sea_floor_depth_below_sea_surface"}
        put("SDN_BOT_DEPTH", columns["bottom_depth"], words, None, True)
    for name, code, axis in (("longitude", "ALONZZ01", "X"), ("latitude", "ALATZZ01", "Y")):
        words = {**vocabulary.PLACES[name], "sdn_parameter_urn": f"SDN:P01::{code}", "axis": axis}
        put(name.upper(), columns[name].astype(float), words, "position_qc", fixed[name])
    days = time_to_days(columns["time"], JULIAN_ORIGIN) + JULIAN_DAY
    words = {"standard_name": "time", "units": JULIAN_UNITS, "calendar": "julian", "axis": "T",
             "sdn_parameter_urn": f"SDN:P01::{vocabulary.JULIAN}"}  # fmt: skip
    put("TIME", days, words, "time_qc", fixed["time"])
    vertical = ["pressure"] if table.depth_is_computed() else [n for n in ("depth", "pressure") if n in columns]
    taken = {"longitude", "latitude", "bottom_depth", "depth"}
    numbers = [n for n, v in columns.items() if v.dtype.kind == "f" and n not in taken and n not in vertical]
    for name in [*vertical, *numbers]:
        said = attributes.get(name, {})
        label = str(
            said.get("netcdf_variable") or vocabulary.code_of(said.get("sdn_parameter_urn", "")) or name.upper()
        )
        while label in made.variables:
            label += "_"
        words = {k: str(v) for k, v in said.items() if k in ("units", "standard_name", "long_name", "sdn_parameter_urn",
                                                             "sdn_uom_urn", "positive")}  # fmt: skip
        if name in vertical:
            label, words["axis"] = ("DEPTH" if name == "depth" else "PRES" if "depth" not in vertical else label), "Z"
        once = kind == "timeSeries" and name == "depth" and place.constant(columns[name])
        put(label, columns[name], words, f"{name}_qc", once)
    return complete(made, table, place, (INSTANCE, along), observations)


def _flag_variable(values: np.ndarray, place: Rectangle, dims: tuple[str, ...]) -> Variable:
    """L20 flags as the ASCII codes of their characters."""
    codes = np.where((values >= 0) & (values <= 9), values + 48, values).astype(np.int8)
    stored = place.first(codes) if len(dims) == 1 else place.spread(codes, np.int8(57))
    letters = [ord(flag) for flag in flags.SCHEMES["L20"].to_l20]
    words = {
        "long_name": "SeaDataNet quality flag",
        "Conventions": "SeaDataNet measurand qualifier flags",
        "sdn_conventions_urn": "SDN:L20::",
        "flag_values": np.array(letters, np.int8),
        "flag_meanings": " ".join(flags.L20.values()),
    }
    return Variable(dims, stored, words)
