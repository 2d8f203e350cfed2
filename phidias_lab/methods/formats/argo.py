"""Argo profile files of a GDAC: core profiles, one or many to a file, and synthetic profiles of biogeochemical floats.

Argo user's manual, doi:10.13155/29825; synthetic profiles, doi:10.13155/55637. Variables are N_PROF x N_LEVELS. For each
parameter of a profile there is the value as it was sent (PARAM) and, where the data mode is A (adjusted in real time) or D
(delayed mode), the value that is to be used (PARAM_ADJUSTED) with its error. The table has the value to be used under the
lab's name, and the one that was sent as `<name>_raw`. Calibration and history are not in the table; `netcdf.File` has them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from phidias_lab.methods.formats import flags, vocabulary
from phidias_lab.methods.formats.netcdf import (
    ROW_SIZE,
    TABLE,
    File,
    Rectangle,
    Variable,
    characters,
    complete,
    filled,
    letters,
    restore,
    row_mask,
    texts,
)
from phidias_lab.methods.formats.observations import (
    Faults,
    NotReadable,
    Observations,
    days_to_time,
    index_text,
    time_to_days,
)

PROFILES, LEVELS = "N_PROF", "N_LEVELS"
ORIGIN = np.datetime64("1950-01-01", "us")
FILL, DAY_FILL = 99999.0, 999999.0
ADJUSTED_MODES, MODES = ("A", "D"), ("R", "A", "D")
#: Variables of a profile that have a column of their own; every other one becomes a column under its name in small letters.
_PLACED = {
    "JULD", "JULD_QC", "JULD_LOCATION", "LATITUDE", "LONGITUDE", "POSITION_QC", "PLATFORM_NUMBER", "CYCLE_NUMBER",
    "DIRECTION", "DATA_MODE", "PARAMETER_DATA_MODE", "STATION_PARAMETERS", "PARAMETER", ROW_SIZE,
}  # fmt: skip
_PLATFORM = {"platform_type": "float_type"}


def recognise(file: File) -> str | None:
    """'profiles', another kind of Argo file by its own name, or None."""
    if "DATA_TYPE" in file.variables:
        try:
            kind = str(texts(file.variables["DATA_TYPE"]).reshape(()))
        except (NotReadable, ValueError):
            return None
        if not kind.lower().startswith("argo") and "synthetic" not in kind.lower():
            return None
        return "profiles" if {PROFILES, LEVELS} <= set(file.dimensions) else kind
    if {PROFILES, LEVELS} <= set(file.dimensions) and "PLATFORM_NUMBER" in file.variables:
        return "profiles"
    return None


def _need(file: File, name: str, dims: tuple[str, ...]) -> Variable:
    if name not in file.variables:
        raise NotReadable(f"it has no variable {name}, which an Argo profile file needs.")
    found = file.variables[name]
    if found.dims[: len(dims)] != dims:
        raise NotReadable(f"its variable {name} has the dimensions {found.dims}, not {dims}.")
    return found


def _places(file: File, faults: Faults) -> dict[str, np.ndarray]:
    """Longitude, latitude and time of each profile; what is missing or impossible is told and NaN."""
    found = {}
    for name, low, high in (("LONGITUDE", -180, 360), ("LATITUDE", -90, 90)):
        values = filled(_need(file, name, (PROFILES,))).astype(float)
        for i in np.flatnonzero(np.isnan(values)):
            faults.add(f"{name}[{i}]", "is missing, so the profile has no place.")
        for i in np.flatnonzero((values < low) | (values > high)):
            faults.add(f"{name}[{i}]", f"is {values[i]:g}, outside {low} to {high}, and is left out.")
            values[i] = np.nan
        found[name] = values
    for name in ("JULD", "JULD_LOCATION"):
        if name == "JULD_LOCATION" and name not in file.variables:
            continue
        days = filled(_need(file, name, (PROFILES,))).astype(float)
        found[name], wrong = days_to_time(days, ORIGIN)
        for i in np.flatnonzero(wrong):
            faults.add(f"{name}[{i}]", f"is {days[i]:g} days since 1950-01-01, no plausible date, and is left out.")
        if name == "JULD":
            for i in np.flatnonzero(np.isnan(days)):
                faults.add(f"{name}[{i}]", "is missing, so the profile has no time.")
    return found


def _flag(file: File, name: str, values: np.ndarray | None, keep: np.ndarray, faults: Faults) -> np.ndarray:
    """L20 flags of a variable of flags; a flag that is unknown, or missing beside a value, is told with its index."""
    if name not in file.variables:
        if values is not None:
            faults.add(f"variable {name}", "is not there, so its values have no quality control.")
        return np.zeros(keep.shape, np.int8)
    given = file.variables[name]
    if given.data.shape != keep.shape:
        faults.add(f"variable {name}", f"has the dimensions {given.dims}, which do not fit; it is left out.")
        return np.zeros(keep.shape, np.int8)
    words = letters(given)
    found, unknown = flags.decode(words, "Argo")
    empty = words == ""
    for index in np.argwhere(unknown & ~empty & keep):
        faults.add(
            f"{name}{index_text(tuple(map(int, index)))}",
            f"is {words[tuple(index)]!r}, no flag of Argo's; it is taken as 0, no quality control.",
        )
    if values is not None:
        found = np.where(empty & np.isnan(values), np.int8(flags.MISSING), found)
        for index in np.argwhere(empty & ~np.isnan(values) & keep):
            faults.add(f"{name}{index_text(tuple(map(int, index)))}", "is blank beside a value; it is taken as 0.")
    return found


def _modes(file: File, parameters: list[str], named: np.ndarray, faults: Faults) -> dict[str, np.ndarray]:
    """The data mode of each parameter in each profile."""
    count = file.dimensions[PROFILES]
    if "PARAMETER_DATA_MODE" in file.variables:
        given = letters(_need(file, "PARAMETER_DATA_MODE", (PROFILES,)))
        found = {p: np.full(count, "", dtype=object) for p in parameters}
        for i, k in np.argwhere(named != ""):
            if named[i, k] in found:
                found[named[i, k]][i] = given[i, k]
        source = "PARAMETER_DATA_MODE"
    elif "DATA_MODE" in file.variables:
        whole = letters(_need(file, "DATA_MODE", (PROFILES,)))
        found, source = {p: whole for p in parameters}, "DATA_MODE"
    else:
        faults.add("variable DATA_MODE", "is not there; the values are taken as they were sent (R).")
        return {p: np.full(count, "R", dtype=object) for p in parameters}
    seen = set()
    for p, modes in found.items():
        for i in np.flatnonzero(~np.isin(modes, MODES)):
            if modes[i] == "" and source != "DATA_MODE":
                continue
            where = f"{source}[{i}]"
            if where not in seen:
                seen.add(where)
                faults.add(where, f"is {modes[i]!r} instead of R, A or D; {p} is taken as it was sent.")
    return found


def observations(file: File, faults: Faults) -> Observations:
    """The table of a profile file. What cannot be read is told in `faults` with variable and index."""
    kind = recognise(file)
    if kind != "profiles":
        raise NotReadable("it holds no Argo profiles.")
    count, depth = file.dimensions[PROFILES], file.dimensions[LEVELS]
    shape = (count, depth)
    places = _places(file, faults)
    named = texts(_need(file, "STATION_PARAMETERS", (PROFILES,))).reshape(count, -1)
    parameters = [p for p in dict.fromkeys(named.ravel()) if p]
    for p in list(parameters):
        if p not in file.variables:
            where = index_text(tuple(map(int, np.argwhere(named == p)[0])))
            faults.add(f"STATION_PARAMETERS{where}", f"names {p}, but there is no variable of that name.")
            parameters.remove(p)
        elif file.variables[p].data.shape != shape:
            faults.add(f"variable {p}", f"has the dimensions {file.variables[p].dims}; it is left out.")
            parameters.remove(p)
    if "PRES" not in parameters:
        raise NotReadable("it has no variable PRES, so the depth of its values is not known.")
    modes = _modes(file, parameters, named, faults)
    raw = {p: filled(file.variables[p]) for p in parameters}
    adjusted = {
        p: filled(file.variables[f"{p}_ADJUSTED"])
        for p in parameters
        if f"{p}_ADJUSTED" in file.variables and file.variables[f"{p}_ADJUSTED"].data.shape == shape
    }
    keep = row_mask(file)
    if keep is None:
        keep = np.zeros(shape, bool)
        for values in (*raw.values(), *adjusted.values()):
            keep |= ~np.isnan(values)
    rows, levels = np.nonzero(keep)
    facts = {"format": "Argo profiles"}
    facts |= {
        k: str(file.attributes[k]) for k in ("title", "institution", "source", "references") if k in file.attributes
    }
    table = Observations(facts=facts)

    platform = texts(_need(file, "PLATFORM_NUMBER", (PROFILES,))).reshape(count)
    cycle = _need(file, "CYCLE_NUMBER", (PROFILES,)).data
    direction = letters(file.variables["DIRECTION"]) if "DIRECTION" in file.variables else np.full(count, "A", object)
    casts, seen = np.empty(count, dtype=object), Counter()
    for i in range(count):
        name = f"{platform[i]}_{int(cycle[i]):03d}{'D' if direction[i] == 'D' else ''}"
        seen[name] += 1
        casts[i] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    table.add("platform", platform[rows], {"long_name": "WMO number of the float"})
    table.add("cast", casts[rows], {"long_name": "float, cycle, D for descending, number among profiles of that cycle"})
    table.add("cycle_number", cycle.astype(np.int32)[rows], {"long_name": "cycle of the float"})
    table.add("direction", direction[rows], {"long_name": "A ascending, D descending"})
    table.add("profile", rows.astype(np.int32), {"long_name": f"index along {PROFILES} in the file"})
    table.add("level", levels.astype(np.int32), {"long_name": f"index along {LEVELS} in the file"})
    together = np.array(
        [
            modes[parameters[0]][i]
            if len({modes[p][i] for p in parameters}) == 1
            else " ".join(f"{p}:{modes[p][i]}" for p in parameters if modes[p][i])
            for i in range(count)
        ],
        dtype=object,
    )
    table.add("data_mode", together[rows], {"long_name": "R as sent, A adjusted in real time, D delayed mode"})
    for name in ("longitude", "latitude"):
        table.add(name, places[name.upper()][rows], dict(vocabulary.PLACES[name]))
    profile_flags = np.ones(count, bool)
    for name, source in (("position", "POSITION_QC"), ("time", "JULD_QC")):
        found = _flag(file, source, None, profile_flags, faults)
        if name == "time":
            table.add("time", places["JULD"][rows], dict(vocabulary.PLACES["time"]))
        if source in file.variables:
            table.add(f"{name}_qc", found[rows], flags.attributes(name))
    if "JULD_LOCATION" in places:
        table.add("location_time", places["JULD_LOCATION"][rows], {"long_name": "time of the position (UTC)"})

    for p in sorted(parameters, key=lambda p: p != "PRES"):
        _add_parameter(table, file, p, modes[p], raw[p], adjusted.get(p), keep, faults)
    _add_others(table, file, parameters, rows, keep)
    table = table.with_depth()
    return restore(table, file, faults) if TABLE in file.attributes else table


def _add_parameter(table, file, p, mode, raw, adjusted, keep, faults) -> None:
    variable = file.variables[p]
    words = {k: str(variable.attributes.get(k, "")) for k in ("standard_name", "units", "long_name")}
    known = vocabulary.BY_ARGO.get(p)
    if known is not None and vocabulary.units_of(words["units"]) == known.units:
        name, given = known.name, known.attributes()
    else:
        name, given = vocabulary.name_and_attributes(p, words["units"], "", words["standard_name"])
        given["long_name"] = words["long_name"] or given.get("long_name", p)
    given["argo_parameter"] = p
    use = np.isin(mode, ADJUSTED_MODES)[:, None] & np.ones(keep.shape, bool)
    sent_qc = _flag(file, f"{p}_QC", raw, keep, faults)
    if adjusted is None:
        if use.any():
            i = int(np.flatnonzero(use[:, 0])[0])
            faults.add(f"variable {p}_ADJUSTED", f"is not there, though profile {i} has the data mode {mode[i]}.")
        use = np.zeros(keep.shape, bool)
        values, quality = raw, sent_qc
    else:
        values = np.where(use, adjusted, raw)
        quality = np.where(
            use, _flag(file, f"{p}_ADJUSTED_QC", np.where(use, adjusted, np.nan), keep & use, faults), sent_qc
        )
    _check_range(variable, f"{p}_ADJUSTED", p, values, quality, use, keep, faults)
    name = table.add(name, values[keep], given)
    table.add(f"{name}_qc", quality[keep].astype(np.int8), flags.attributes(name))
    if adjusted is not None:
        error = f"{p}_ADJUSTED_ERROR"
        if error in file.variables and file.variables[error].data.shape == keep.shape:
            words = {"units": given.get("units", ""), "long_name": f"error of {name} as the delayed mode gives it"}
            table.add(f"{name}_error", np.where(use, filled(file.variables[error]), np.float32(np.nan))[keep], words)
        said = {k: v for k, v in given.items() if k != "standard_name"}
        table.add(f"{name}_raw", raw[keep], {**said, "long_name": f"{given['long_name']}, as sent"})
        table.add(f"{name}_raw_qc", sent_qc[keep].astype(np.int8), flags.attributes(f"{name}_raw"))


def _check_range(variable, adjusted_name, name, values, quality, use, keep, faults) -> None:
    """A value outside the range that the file itself allows, yet flagged as good, is told."""
    with np.errstate(invalid="ignore"):
        infinite = np.isinf(values) & keep
        out = infinite.copy()
        for bound, beyond in (("valid_min", np.less), ("valid_max", np.greater)):
            limit = np.asarray(variable.attributes.get(bound, np.nan))
            if limit.dtype.kind in "iuf" and limit.size == 1:
                out |= beyond(values, limit.reshape(())) & keep & np.isin(quality, (flags.GOOD, flags.PROBABLY_GOOD))
    for index in np.argwhere(out):
        index = tuple(map(int, index))
        which = adjusted_name if use[index] else name
        faults.add(
            f"{which}{index_text(index)}",
            f"is {values[index]:g} with the flag {quality[index]}, outside the range that the file gives for {name}.",
        )


def _add_others(table: Observations, file: File, parameters: list[str], rows: np.ndarray, keep: np.ndarray) -> None:
    """Whatever else a profile or a level has, under its own name."""
    mine = {f"{p}{end}" for p in parameters for end in ("", "_QC", "_ADJUSTED", "_ADJUSTED_QC", "_ADJUSTED_ERROR")}
    for name, variable in file.variables.items():
        if name in mine or name in _PLACED or name.startswith("PHIDIAS_"):
            continue
        words = {"long_name": str(variable.attributes.get("long_name", name)), "argo_variable": name}
        if "units" in variable.attributes:
            words["units"] = vocabulary.units_of(str(variable.attributes["units"]))
        column = _PLATFORM.get(name.lower(), vocabulary.slug(name))
        if variable.dims == (PROFILES,):
            values = letters(variable) if variable.data.dtype == np.dtype("S1") else variable.data
            table.add(column, values[rows], words)
        elif len(variable.dims) == 2 and variable.dims[0] == PROFILES and variable.dims[1].startswith("STRING"):
            table.add(column, texts(variable)[rows], words)
        elif variable.dims == (PROFILES, LEVELS) and variable.data.dtype.kind == "f":
            table.add(column, filled(variable)[keep], words)


# From the table --------------------------------------------------------------------------------------------------------


def file(table: Observations) -> File:
    """A profile file of a table: each run of observations of one cast is a profile."""
    for name in ("longitude", "latitude", "time"):
        if name not in table.columns:
            raise NotReadable(f"the table has no column {name!r}, which an Argo profile file needs.")
    if "pressure" not in table.columns and "depth" not in table.columns:
        raise NotReadable("the table has neither 'pressure' nor 'depth', of which an Argo profile file needs one.")
    place, columns = Rectangle(table), table.columns
    for name in ("longitude", "latitude", "time"):
        if not place.constant(columns[name]):
            raise NotReadable(
                f"the column {name!r} changes within a cast, so this is no profile. Write it as 'odv' or 'seadatanet'."
            )
    count = place.shape[0]
    made = File(
        {"DATE_TIME": 14, "STRING64": 64, "STRING32": 32, "STRING8": 8, "STRING4": 4, PROFILES: count},
        attributes={"title": "Argo float vertical profile", "Conventions": "Argo-3.1 CF-1.6",
                    "featureType": "trajectoryProfile", "history": "written by phidias_lab"},
    )  # fmt: skip
    made.dimensions[LEVELS] = place.shape[1]

    def one(name: str, text: str, dim: str) -> None:
        made.variables[name] = Variable((dim,), characters([text], made.dimensions[dim])[0], {"_FillValue": b" "})

    one("DATA_TYPE", "Argo profile", "STRING32")
    one("FORMAT_VERSION", "3.1", "STRING4")
    one("REFERENCE_DATE_TIME", "19500101000000", "DATE_TIME")
    platform = place.first(columns.get("platform", columns.get("cast", np.full(len(table), "", object))))
    made.variables["PLATFORM_NUMBER"] = Variable((PROFILES, "STRING8"), characters(platform, 8), {"_FillValue": b" "})
    known = {}
    for name, said in table.attributes.items():
        p = said.get("argo_parameter") or getattr(vocabulary.BY_NAME.get(name), "argo", "")
        if p and name in columns and columns[name].dtype.kind == "f" and not name.endswith(("_raw", "_error")):
            known.setdefault(p, name)
    if "PRES" not in known:
        from phidias_lab.methods import seawater

        pressure = seawater.pressure(columns["depth"], columns["latitude"])
        values = {"PRES": pressure.astype(np.float32)}
    else:
        values = {}
    parameters = ["PRES", *(p for p in known if p != "PRES")]
    made.dimensions["N_PARAM"] = len(parameters)
    made.variables["STATION_PARAMETERS"] = Variable(
        (PROFILES, "N_PARAM", "STRING64"),
        np.tile(characters(parameters, 64)[None], (count, 1, 1)),
        {"_FillValue": b" "},
    )
    cycle = columns.get("cycle_number")
    cycle = place.first(cycle) if cycle is not None and cycle.dtype.kind in "iu" else np.arange(1, count + 1)
    made.variables["CYCLE_NUMBER"] = Variable((PROFILES,), cycle.astype(np.int32), {"_FillValue": np.int32(99999)})
    direction = place.first(columns["direction"]) if "direction" in columns else np.full(count, "A", object)
    made.variables["DIRECTION"] = Variable((PROFILES,), characters(direction, 1)[:, 0], {"_FillValue": b" "})
    modes = _split_modes(place.first(columns["data_mode"]) if "data_mode" in columns else np.full(count, "R", object),
                         parameters)  # fmt: skip
    made.variables["PARAMETER_DATA_MODE"] = Variable(
        (PROFILES, "N_PARAM"), np.stack([characters(modes[p], 1)[:, 0] for p in parameters], 1), {"_FillValue": b" "}
    )
    days = time_to_days(place.first(columns["time"]), ORIGIN)
    words = {
        "standard_name": "time",
        "units": "days since 1950-01-01 00:00:00 UTC",
        "axis": "T",
        "_FillValue": DAY_FILL,
    }
    made.variables["JULD"] = Variable((PROFILES,), np.where(np.isnan(days), DAY_FILL, days), words)
    if "location_time" in columns and place.constant(columns["location_time"]):
        days = time_to_days(place.first(columns["location_time"]), ORIGIN)
        words = {k: v for k, v in words.items() if k in ("units", "_FillValue")}
        made.variables["JULD_LOCATION"] = Variable((PROFILES,), np.where(np.isnan(days), DAY_FILL, days), words)
    for name, axis in (("latitude", "Y"), ("longitude", "X")):
        where = place.first(columns[name]).astype(float)
        words = {
            "standard_name": name,
            "units": vocabulary.PLACES[name]["units"].replace("degrees", "degree"),
            "axis": axis,
        }
        made.variables[name.upper()] = Variable(
            (PROFILES,), np.where(np.isnan(where), FILL, where), {**words, "_FillValue": FILL}
        )
    for name, variable in (("time_qc", "JULD_QC"), ("position_qc", "POSITION_QC")):
        if name in columns:
            made.variables[variable] = Variable(
                (PROFILES,),
                _letters(place.first(columns[name])),
                {"_FillValue": b" ", "conventions": "Argo reference table 2"},
            )
    for p in parameters:
        _put_parameter(made, table, p, known.get(p), values.get(p), modes[p], place)
    for name, said in table.attributes.items():
        if name in columns and said.get("argo_variable") and said["argo_variable"] not in made.variables:
            _put_other(made, str(said["argo_variable"]), columns[name], said, place)
    return complete(made, table, place, (PROFILES, LEVELS), observations)


def _put_other(made: File, variable: str, values: np.ndarray, said: dict, place: Rectangle) -> None:
    """A column that a file of Argo's had as a variable of this name, once for each profile or at each level."""
    words = {"long_name": str(said.get("long_name", variable))} | (
        {"units": said["units"]} if said.get("units") else {}
    )
    if values.dtype.kind == "f" and not place.constant(values):
        fill = values.dtype.type(FILL)
        made.variables[variable] = Variable(
            (PROFILES, LEVELS), place.spread(values, fill), {**words, "_FillValue": fill}
        )
    elif not place.constant(values):
        return
    elif values.dtype == object:
        coded = characters(place.first(values))
        if coded.shape[1] == 1:
            made.variables[variable] = Variable((PROFILES,), coded[:, 0], {**words, "_FillValue": b" "})
            return
        width = next(w for w in (2, 4, 8, 32, 64, 256, 4096, coded.shape[1]) if w >= coded.shape[1])
        made.dimensions[f"STRING{width}"] = width
        coded = characters(place.first(values), width)
        made.variables[variable] = Variable((PROFILES, f"STRING{width}"), coded, {**words, "_FillValue": b" "})
    elif values.dtype.kind in "if" and values.dtype.itemsize <= 4:
        made.variables[variable] = Variable((PROFILES,), place.first(values), words)


def _split_modes(whole: np.ndarray, parameters: list[str]) -> dict[str, np.ndarray]:
    """The mode of each parameter: of 'D', or of 'PRES:D TEMP:A'."""
    found = {p: np.full(len(whole), "", dtype=object) for p in parameters}
    for i, text in enumerate(whole):
        each = dict(part.split(":", 1) for part in str(text).split() if ":" in part)
        for p in parameters:
            found[p][i] = each.get(p, "") if each else str(text)[:1]
    return found


def _letters(values: np.ndarray) -> np.ndarray:
    return np.array([f.encode() or b" " for f in flags.encode(values, "Argo").ravel()], "S1").reshape(np.shape(values))


def _put_parameter(made, table, p, name, values, mode, place) -> None:
    columns, said = table.columns, table.attributes.get(name, {}) if name else {}
    known = vocabulary.BY_ARGO.get(p)
    words = {k: said[k] for k in ("standard_name", "units", "long_name") if said.get(k)} or (
        known.attributes() if known else {}
    )
    chosen = columns[name] if name else values
    raw = columns.get(f"{name}_raw") if name else None
    fill = chosen.dtype.type(FILL)
    use = np.isin(mode, ADJUSTED_MODES)[place.cast]
    none = chosen.dtype.type(np.nan)
    sent = raw if raw is not None and raw.dtype == chosen.dtype else chosen
    quality = columns.get(f"{name}_qc", np.zeros(len(chosen), np.int8))
    sent_quality = columns.get(f"{name}_raw_qc", quality)

    def put(variable: str, of: np.ndarray) -> None:
        made.variables[variable] = Variable((PROFILES, LEVELS), place.spread(of, fill), {**words, "_FillValue": fill})

    def put_flags(variable: str, of: np.ndarray, where: np.ndarray) -> None:
        whole = np.full(place.shape, b" ", "S1")
        whole[place.cast[where], place.level[where]] = _letters(of[where])
        made.variables[variable] = Variable(
            (PROFILES, LEVELS), whole, {"_FillValue": b" ", "conventions": "Argo reference table 2"}
        )

    everywhere = np.ones(len(chosen), bool)
    put(p, np.where(use, sent, chosen))
    put_flags(f"{p}_QC", np.where(use, sent_quality, quality), everywhere)
    put(f"{p}_ADJUSTED", np.where(use, chosen, none))
    put_flags(f"{p}_ADJUSTED_QC", quality, use)
    error = columns.get(f"{name}_error") if name else None
    put(
        f"{p}_ADJUSTED_ERROR",
        error if error is not None and error.dtype == chosen.dtype else np.full_like(chosen, none),
    )
