"""SeaDataNet's ODV spreadsheets: tab-separated text with one row per sample (SeaDataNet deliverable D8.5; Ocean Data View
user's guide, generic spreadsheets).

Lines that begin with `//` are comments. Some hold metadata: the semantic header (what each column is, in vocabularies
P01 and P06), the description of ODV's own variables, and the sign for a missing value. The first other line names the
columns: cruise, station, type, time, longitude, latitude, perhaps LOCAL_CDI_ID, EDMO_code, bottom depth and more about the
station, then pairs of a value and its flag `QV:<scheme>`. What is said of a station stands on its first row only.

`Spreadsheet` keeps every text as it is, so `bytes of a file -> blocks -> bytes` is the identity for a file with one kind of
line end. `observations` makes the table of it, `spreadsheet` a spreadsheet of a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phidias_lab.methods.formats import flags, vocabulary
from phidias_lab.methods.formats.observations import (
    JULIAN_DAY,
    JULIAN_ORIGIN,
    NO_TIME,
    Faults,
    NotReadable,
    Observations,
    days_to_time,
    parse_time,
    time_text,
)

BOM = b"\xef\xbb\xbf"
CRUISE, STATION, TYPE, TIME = "Cruise", "Station", "Type", "yyyy-mm-ddThh:mm:ss.sss"
LONGITUDE, LATITUDE = "Longitude [degrees_east]", "Latitude [degrees_north]"
ISO, CDI, EDMO, BOTTOM = "time_ISO8601", "LOCAL_CDI_ID", "EDMO_code", "Bot. Depth [m]"
DEVIATION, SAMPLE = "STANDARD_DEV", ":SAMPLE"
MAPPING = "//SDN_parameter_mapping"
#: Comments of the lab's own: what a column is called here, its type and attributes; the order of the columns; facts.
OWN, ORDER, FACTS = "phidias_column", "phidias_order", "phidias_facts"
#: Name here of the columns that every file calls alike; without units and in lower case.
_STATION_COLUMNS = {
    "cruise": "cruise", "station": "station", "type": "cruise_type", "longitude": "longitude", "latitude": "latitude",
    "local_cdi_id": "local_cdi_id", "edmo_code": "edmo_code", "bot. depth": "bottom_depth",
}  # fmt: skip
#: A line longer than this, or a header of more columns, is no spreadsheet but something else.
LONGEST, MOST_COLUMNS = 4_000_000, 10_000
BLOCK = 50_000

_SUBJECT = re.compile(r"<subject>(.*?)</subject>\s*<object>(.*?)</object>(?:\s*<units>(.*?)</units>)?")
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+=|\s*$)')
_TAG = re.compile(r"//\s*<(\w+)>(.*)</\1>")
_CODES = re.compile(r"SDN:(P01|P35|P06)::(\w+)")


@dataclass
class Spreadsheet:
    """A spreadsheet, or a block of one: texts only. `rows` holds lists of cells, and comment or empty lines as they are."""

    header: list[str]
    preamble: list[str] = field(default_factory=list)
    rows: list[list[str] | str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # line number of each of `rows`
    station: list[str] | None = None  # cells of the station that goes on from the block before
    first: bool = True
    end: str = "\n"
    ended: bool = True  # whether the last line has its end
    bom: bool = False

    def encode(self) -> bytes:
        """The bytes of this block; those of all blocks of a file in order are the file."""
        lines = [*self.preamble, "\t".join(self.header)] if self.first else []
        lines += [row if isinstance(row, str) else "\t".join(row) for row in self.rows]
        text = self.end.join(lines) + (self.end if self.ended and lines else "")
        return (BOM if self.bom and self.first else b"") + text.encode("utf-8", "surrogateescape")


def _readable(text: str) -> str:
    """A text for people of one that was no UTF-8: the bytes that are none are taken as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1") if _foreign(text) else text


def _foreign(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def blocks(lines: Iterable[bytes], faults: Faults, size: int = BLOCK) -> Iterator[Spreadsheet]:
    """A file's lines as spreadsheets of at most `size` rows; `NotReadable` for what is no ODV spreadsheet.

    A row with more or fewer cells than the header is told in `faults`, and kept for what is written, not for the table.
    """
    preamble: list[str] = []
    sheet: Spreadsheet | None = None
    end, bom, number, mixed, last_end = None, False, 0, 0, True
    for raw in lines:
        number += 1
        if number == 1 and raw.startswith(BOM):
            bom, raw = True, raw[len(BOM) :]
        if len(raw) > LONGEST:
            raise NotReadable(f"line {number} is longer than {LONGEST} bytes, so this is no ODV spreadsheet.")
        ending = "\r\n" if raw.endswith(b"\r\n") else "\n" if raw.endswith(b"\n") else ""
        end = end or ending or None
        last_end = bool(ending)
        if ending and ending != end:
            mixed += 1
            if mixed == 1:
                faults.add(f"line {number}", "ends otherwise than the first line; a copy is written with the first's.")
        text = raw[: len(raw) - len(ending)].decode("utf-8", "surrogateescape")
        if _foreign(text):
            faults.add(f"line {number}", "is not UTF-8; its other letters are read as Latin-1 (Windows Western).")
        if sheet is None:
            if not text.strip("\t ") or text.startswith("//"):
                preamble.append(text)
                continue
            header = text.split("\t")
            _check_header(header, number)
            sheet = Spreadsheet(header, preamble, end=end or "\n", bom=bom)
            continue
        if len(sheet.rows) >= size:
            yield sheet
            sheet = Spreadsheet(
                sheet.header, preamble, station=_last_station(sheet), first=False, end=sheet.end, bom=bom
            )
        sheet.numbers.append(number)
        if not text.strip("\t ") or text.startswith("//"):
            sheet.rows.append(text)
            continue
        cells = text.split("\t")
        if len(cells) != len(sheet.header):
            faults.add(
                f"line {number}",
                f"has {len(cells)} columns instead of the {len(sheet.header)} of the header; the row is left out.",
            )
        sheet.rows.append(cells)
    if sheet is None:
        raise NotReadable("it has no line that names the columns, which an ODV spreadsheet needs.")
    sheet.ended = last_end
    yield sheet


def _check_header(header: list[str], number: int) -> None:
    if len(header) > MOST_COLUMNS:
        raise NotReadable(f"line {number} names {len(header)} columns; more than {MOST_COLUMNS} are not read.")
    plain = [_plain(label) for label in header]
    for needed, example in (("longitude", LONGITUDE), ("latitude", LATITUDE)):
        if needed not in plain:
            raise NotReadable(
                f"line {number} names no column {example!r}. It has to hold the names of the columns, separated by tabs."
            )
    if not any(_is_time(label) for label in header):
        raise NotReadable(f"line {number} names no column {TIME!r}, so the time of its stations is not known.")


def looks_like(start: bytes) -> bool:
    """Whether a file that starts so is an ODV spreadsheet."""
    if b"\0" in start:
        return False
    text = start.removeprefix(BOM).decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        if line.startswith("//") or not line.strip():
            continue
        cells = [_plain(cell) for cell in line.split("\t")]
        return len(cells) > 3 and cells[0] == "cruise" and "station" in cells
    return text.startswith("//") and bool(re.search(r"SDN|ODV|<MetaVariable>|Ocean", text))


def _plain(label: str) -> str:
    return re.sub(r":METAVAR.*$", "", re.sub(r"\s*\[[^\]]*\]", "", label)).strip().lower()


def _units(label: str) -> str:
    found = re.search(r"\[([^\]]*)\]", label)
    return found[1] if found else ""


def _is_time(label: str) -> bool:
    return _plain(label).startswith("yyyy-mm-dd")


def _is_flag(label: str) -> bool:
    return label.startswith("QV:") or label in ("QF", "QV")


def _last_station(sheet: Spreadsheet) -> list[str] | None:
    for row in reversed(sheet.rows):
        if not isinstance(row, str) and len(row) == len(sheet.header) and any(row[:3]):
            return row
    return sheet.station


# What the comments say -------------------------------------------------------------------------------------------------


@dataclass
class About:
    """What the comments of a spreadsheet say of its columns, by label without units; and of the whole."""

    codes: dict[str, tuple[str, str]] = field(default_factory=dict)  # label -> code of P01 or P35, code of P06
    data: dict[str, dict[str, str]] = field(default_factory=dict)  # labels of DataVariable lines, with their words
    station: set[str] = field(default_factory=set)  # labels of MetaVariable lines
    own: dict[str, dict] = field(default_factory=dict)  # what a writer of the lab added
    order: list[str] | None = None
    missing: set[float] = field(default_factory=set)
    facts: dict[str, str] = field(default_factory=dict)


def about(preamble: Iterable[str]) -> About:
    """The semantic header, ODV's descriptions of variables and the facts in a preamble."""
    found = About()
    for line in preamble:
        line = line.rstrip("\t ")
        if match := _SUBJECT.search(line):
            label = re.sub(r"^SDN:LOCAL:", "", match[1]).strip()
            found.codes[label] = (vocabulary.code_of(match[2]), vocabulary.code_of(match[3] or ""))
        elif match := _TAG.match(line):
            tag, text = match.groups()
            if tag in ("DataVariable", "MetaVariable"):
                words = dict(_ATTRIBUTE.findall(text))
                label = words.get("label", "")
                if tag == "MetaVariable":
                    found.station.add(label)
                    continue
                found.data[label] = words
                codes = dict(_CODES.findall(words.get("comment", "")))
                code = codes.get("P01") or codes.get("P35")
                if code:
                    found.codes[re.sub(r"\s*\[[^\]]*\]$", "", label)] = (code, codes.get("P06", ""))
            elif tag == "MissingValueIndicators":
                for word in text.split():
                    try:
                        found.missing.add(float(word))
                    except ValueError:
                        continue
            elif tag in (OWN, ORDER, FACTS):
                _said_by_the_lab(tag, text, found)
            elif tag in ("Creator", "Source", "DataField", "DataType", "Software"):
                found.facts[tag] = text
    return found


def _said_by_the_lab(tag: str, text: str, found: About) -> None:
    try:
        said = json.loads(text)
        if tag == OWN:
            found.own[str(said["label"])] = said
        elif tag == ORDER:
            found.order = [str(name) for name in said]
        else:
            found.facts = {str(key): str(value) for key, value in said.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # somebody edited the comment: the file is read like any other


@dataclass
class _Column:
    """One column of values with its flag."""

    index: int
    label: str
    flag: int | None = None
    scheme: str = "L20"
    deviation: int | None = None


def _layout(header: list[str], told: About) -> tuple[int, list[_Column], int | None]:
    """(number of columns about the station, the columns of values, the flag of the whole sample)."""
    local = [re.sub(r"\s*\[[^\]]*\]$", "", label) for label in header]
    named = [
        i
        for i, label in enumerate(header)
        if (label in told.data or local[i] in told.codes or (label in told.own and told.own[label].get("data")))
        and _plain(label) not in _STATION_COLUMNS
        and not _is_time(label)
    ]
    first_flag = next((i for i, label in enumerate(header) if _is_flag(label)), None)
    fixed = max(
        i
        for i, label in enumerate(header)
        if _plain(label) in _STATION_COLUMNS or _is_time(label) or ":METAVAR" in label or label in told.station
    )
    start = min([*named, *([] if first_flag is None else [first_flag - 1]), len(header)])
    if not named and first_flag is None:
        start = fixed + 1
    columns: list[_Column] = []
    sample = None
    for i in range(start, len(header)):
        label = header[i]
        if _is_flag(label):
            if label.endswith(SAMPLE):
                sample = i
            elif columns and columns[-1].flag is None:
                columns[-1].flag = i
                columns[-1].scheme = flags.OF_ODV.get(label[3:].upper(), "L20")
        elif label.startswith(DEVIATION) and columns and columns[-1].deviation is None:
            columns[-1].deviation = i
        else:
            columns.append(_Column(i, label))
    return start, columns, sample


# To the table ----------------------------------------------------------------------------------------------------------


def _numbers(texts: list[str], lines: list[int], label: str, faults: Faults, missing: set[float] = frozenset()):
    """Numbers of texts; what is none is NaN and told with its line and column."""
    try:
        if any("_" in t for t in texts):
            raise ValueError
        values = np.array([t.strip() or "nan" for t in texts], dtype=float)
    except ValueError:
        values = np.full(len(texts), np.nan)
        for i, text in enumerate(texts):
            word = text.strip()
            if not word:
                continue
            try:
                if "_" in word:
                    raise ValueError
                values[i] = float(word)
            except ValueError:
                hint = " Numbers are written with a point." if re.fullmatch(r"[+-]?\d+,\d+", word) else ""
                faults.add(
                    f"line {lines[i]}, column {label!r}",
                    f"{_readable(word)[:60]!r} is no number; it is left out.{hint}",
                )
    for i in np.flatnonzero(np.isinf(values)):
        faults.add(f"line {lines[i]}, column {label!r}", f"{texts[i].strip()!r} is infinite; it is left out.")
        values[i] = np.nan
    if missing:
        values[np.isin(values, list(missing))] = np.nan
    return values


def _flags(texts: list[str], scheme: str, lines: list[int], label: str, faults: Faults) -> np.ndarray:
    words = [t.strip() for t in texts]
    found, unknown = flags.decode([w or "\0" for w in words], scheme)
    empty = np.array([not w for w in words], bool)
    for i in np.flatnonzero(unknown & ~empty):
        faults.add(
            f"line {lines[i]}, column {label!r}",
            f"{_readable(words[i])[:20]!r} is no flag of {scheme}; it is taken as 0, no quality control.",
        )
    return found


def observations(sheet: Spreadsheet, faults: Faults) -> Observations:
    """The table of a block. What cannot be read is told in `faults` with line and column, and missing in the table."""
    told = about(sheet.preamble)
    start, columns, sample = _layout(sheet.header, told)
    rows = [
        (n, r)
        for n, r in zip(sheet.numbers, sheet.rows, strict=True)
        if not isinstance(r, str) and len(r) == len(sheet.header)
    ]
    stations, station_lines, of = [], [], []
    begins = 3 if told.order is None else start  # columns of which one that is not empty begins a station
    if sheet.station is not None:
        stations, station_lines = [sheet.station], [0]
    kept = []
    for number, cells in rows:
        if any(cells[:begins]) or (not stations and any(cells[:start])):
            stations.append(cells)
            station_lines.append(number)
        if not stations:
            faults.add(f"line {number}", "stands before the first station; the row is left out.")
            continue
        of.append(len(stations) - 1)
        kept.append((number, cells))
    of, lines = np.array(of, int), [n for n, _ in kept]
    carried = sheet.station is not None
    table = Observations(facts={"format": "SeaDataNet ODV spreadsheet", **told.facts})

    def named(label: str, name: str, attributes: Mapping[str, Any], keep: bool = True) -> tuple[str, dict]:
        said = told.own.get(label)
        if said is None:
            return name, {**attributes, **({"odv_label": label} if keep else {})}
        return said.get("name", name), dict(said.get("attributes", attributes))

    # About the station, once each; a station that goes on was told of in its own block.
    silent = Faults()
    times, time_label = None, TIME
    for i, label in enumerate(sheet.header[:start]):
        texts = [_readable(s[i]).strip() for s in stations]
        said, plain = told.own.get(label), _plain(label)
        if _is_time(label):
            moments = []
            for text, number in zip(texts, station_lines, strict=True):
                when = parse_time(text)
                if when is None:
                    (silent if number == 0 else faults).add(
                        f"line {number}, column {label!r}",
                        f"{text[:60]!r} is no plausible time as in 2010-01-31T12:00.",
                    )
                moments.append(NO_TIME if when is None else when)
            times, time_label = np.array(moments, "datetime64[us]"), label
            continue
        name = _STATION_COLUMNS.get(plain)
        if name in ("longitude", "latitude", "bottom_depth"):
            values = np.empty(len(stations))
            if carried:
                values[:1] = _numbers(texts[:1], [0], label, silent, told.missing)
            values[carried:] = _numbers(texts[carried:], station_lines[carried:], label, faults, told.missing)
            if name != "bottom_depth":
                low, high = (-90, 90) if name == "latitude" else (-180, 360)
                for j in np.flatnonzero((values < low) | (values > high)):
                    (silent if station_lines[j] == 0 else faults).add(
                        f"line {station_lines[j]}, column {label!r}", f"{texts[j]} lies outside {low} to {high}."
                    )
                    values[j] = np.nan
            given = dict(vocabulary.PLACES.get(name, {}))
            if name == "bottom_depth":
                given = {
                    "units": "m",
                    "standard_name": "sea_floor_depth_below_sea_surface",
                    "long_name": "bottom depth",
                }
            kind = (said or {}).get("dtype", "float64")
            values = values.astype(kind) if kind in ("float32", "float64") else values
            table.add(*_swap(named(label, name, given), values[of]))
        elif said is not None and said.get("dtype", "text") != "text":
            values = _typed(texts, said["dtype"], station_lines, label, faults)
            table.add(*_swap(named(label, name or vocabulary.slug(plain), {}), values[of]))
        else:
            values = np.array(texts, dtype=object)
            table.add(*_swap(named(label, name or vocabulary.slug(plain), {"long_name": plain}), values[of]))
    station_time = times[of] if times is not None else np.full(len(of), NO_TIME)
    _add_cast(table)

    sample_time = None
    for column in columns:
        local = re.sub(r"\s*\[[^\]]*\]$", "", column.label)
        code, unit_code = told.codes.get(local, ("", ""))
        texts = [cells[column.index] for _, cells in kept]
        own = told.own.get(column.label)
        if code == vocabulary.ISO_TIME or local.lower() == ISO.lower():
            sample_time = _sample_times(texts, lines, column.label, faults)
            name = "time"
        elif own is None and code == vocabulary.JULIAN:
            days = _numbers(texts, lines, column.label, faults, told.missing) - JULIAN_DAY
            sample_time, wrong = days_to_time(days, JULIAN_ORIGIN)
            for i in np.flatnonzero(wrong):
                faults.add(f"line {lines[i]}, column {column.label!r}", f"{texts[i]} is no plausible Julian day.")
            name = "time"
        elif own is not None and own.get("dtype", "float64") != "float64":
            values = _typed([_readable(t).strip() for t in texts], own["dtype"], lines, column.label, faults)
            name = table.add(*_swap(named(column.label, vocabulary.slug(local), {}), values))
        elif told.data.get(column.label, {}).get("value_type", "").upper().startswith(("TEXT", "INDEXED")):
            values = np.array([_readable(t).strip() for t in texts], dtype=object)
            name = table.add(*_swap(named(column.label, vocabulary.slug(local), {"long_name": local}), values))
        else:
            units = _units(column.label) or vocabulary.P06.get(unit_code, "")
            written = vocabulary.P06.get(unit_code)
            if written and _units(column.label) and written != vocabulary.units_of(units):
                _units_differ(sheet, column.label, units, unit_code, written, faults)
            name, given = vocabulary.name_and_attributes(local, units, code)
            given |= {"sdn_parameter_urn": f"SDN:P01::{code}"} if code else {}
            given |= {"sdn_uom_urn": f"SDN:P06::{unit_code}"} if unit_code else {}
            if name == "depth":
                given["positive"] = "down"
            values = _numbers(texts, lines, column.label, faults, told.missing)
            name = table.add(*_swap(named(column.label, name, given), values))
        if column.flag is not None:
            words = [cells[column.flag] for _, cells in kept]
            _add_flags(table, name, words, column.scheme, lines, sheet.header[column.flag], faults)
        if column.deviation is not None:
            words = [cells[column.deviation] for _, cells in kept]
            values = _numbers(words, lines, sheet.header[column.deviation], faults, told.missing)
            units = {k: v for k, v in table.attributes.get(name, {}).items() if k == "units"}
            table.add(f"{name}_sd", values, {**units, "long_name": f"standard deviation of {name}"})
    if sample is not None:
        scheme = flags.OF_ODV.get(sheet.header[sample][3:].removesuffix(SAMPLE).upper(), "L20")
        words = [cells[sample] for _, cells in kept]
        _add_flags(table, "sample", words, scheme, lines, sheet.header[sample], faults)
    if sample_time is None:
        table.add(*_swap(named(time_label, "time", vocabulary.PLACES["time"], False), station_time))
    else:
        words = {"long_name": "time of the station or deployment (UTC)"}
        table.add("time", sample_time, told.own.get(ISO, {}).get("attributes", dict(vocabulary.PLACES["time"])))
        table.add(*_swap(named(time_label, "station_time", words, False), station_time))
    if "depth" not in table.columns and "pressure" not in table.columns and sheet.first:
        faults.add("", "No column is a depth or a pressure, so the observations have no depth.")
    table = table.with_depth()
    if told.order is not None:
        table.columns = {n: table.columns[n] for n in told.order if n in table.columns}
        table.attributes = {n: table.attributes[n] for n in table.columns}
    return table


def _swap(name_attributes: tuple[str, dict], values: np.ndarray) -> tuple[str, np.ndarray, dict]:
    name, attributes = name_attributes
    return name, values, attributes


def _units_differ(sheet, label, units, code, written, faults) -> None:
    same = {vocabulary.units_of(units), written}
    if sheet.first and same not in ({"1", "1e-3"},):
        faults.add(
            f"column {label!r}",
            f"the label says {units!r} and the semantic header says P06 {code} ({written}); the label's units are taken.",
        )


def _typed(texts: list[str], dtype: str, lines: list[int], label: str, faults: Faults) -> np.ndarray:
    """Values of a column whose type a writer of the lab has noted."""
    if dtype == "text":
        return np.array(texts, dtype=object)
    if dtype == "time":
        return _sample_times(texts, lines, label, faults)
    if dtype == "bool":
        return np.array([t == "1" for t in texts], bool)
    if dtype.startswith(("int", "uint")):
        try:
            return np.array([int(t) for t in texts], dtype=dtype)
        except (ValueError, OverflowError):
            pass
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(float)
    values = _numbers(texts, lines, label, faults)
    return values.astype(kind) if kind.kind == "f" else values


def _sample_times(texts: list[str], lines: list[int], label: str, faults: Faults) -> np.ndarray:
    found = []
    for text, number in zip(texts, lines, strict=True):
        when = parse_time(text)
        if when is None:
            faults.add(
                f"line {number}, column {label!r}",
                f"{_readable(text)[:60]!r} is no plausible time as in 2010-01-31T12:00.",
            )
        found.append(NO_TIME if when is None else when)
    return np.array(found, "datetime64[us]") if found else np.array([], "datetime64[us]")


def _add_flags(table, name, texts, scheme, lines, label, faults) -> None:
    table.add(f"{name}_qc", _flags(texts, scheme, lines, label, faults), flags.attributes(name))
    if scheme != "L20":
        table.attributes[f"{name}_qc"]["source_scheme"] = scheme
    if not flags.SCHEMES[scheme].lossless:
        codes = np.array([int(t) if t.strip().isdigit() and len(t.strip()) == 1 else -1 for t in texts], np.int8)
        words = {"long_name": f"flag of {name} in the scheme {scheme}; -1 for none", "conventions": scheme}
        table.add(f"{name}_{scheme.lower()}_qc", codes, words)


def _add_cast(table: Observations) -> None:
    """An identity of the station: EDMO code and LOCAL_CDI_ID as in SeaDataNet, else cruise and station."""
    if "cast" in table.columns:
        return
    none = np.array([""] * len(table), dtype=object)
    cdi, edmo = table.columns.get("local_cdi_id", none), table.columns.get("edmo_code", none)
    cruise, station = table.columns.get("cruise", none), table.columns.get("station", none)
    casts = [
        f"{e}-{c}" if e and c else c or "/".join(filter(None, (str(a), str(b))))
        for e, c, a, b in zip(edmo, cdi, cruise, station, strict=True)
    ]
    words = "identity of the profile, series or voyage: EDMO code and LOCAL_CDI_ID, or cruise and station"
    table.add("cast", np.array(casts, dtype=object), {"long_name": words})


# From the table --------------------------------------------------------------------------------------------------------


def _text_of(values: np.ndarray) -> list[str]:
    """The shortest texts that read back to the same values."""
    if values.dtype.kind == "M":
        kinds, inverse = np.unique(values, return_inverse=True)
        known = [time_text(v) for v in kinds]
        return [known[i] for i in inverse]
    if values.dtype.kind == "f":
        return ["" if text == "nan" else text.removesuffix(".0") for text in values.astype(str).tolist()]
    if values.dtype.kind == "b":
        return ["1" if v else "0" for v in values]
    if values.dtype.kind in "iu":
        return values.astype(str).tolist()
    plain = {text: re.sub(r"[\t\r\n]+", " ", str(text)) for text in set(values)}
    return [plain[text] for text in values]


def _kind(values: np.ndarray) -> str:
    if values.dtype.kind in "Mb":
        return "time" if values.dtype.kind == "M" else "bool"
    return str(values.dtype) if values.dtype.kind in "iuf" else "text"


def _flag_columns(columns: Mapping[str, np.ndarray], attributes: Mapping[str, Mapping]) -> dict[str, tuple[str, str]]:
    """Of each column that has a column of flags in the table: (its name, the scheme in which they are written)."""
    found = {}
    for name in [*columns, "sample"]:
        flag = f"{name}_qc"
        if flag in columns and columns[flag].dtype == np.int8 and not name.endswith("_qc"):
            scheme = attributes.get(flag, {}).get("source_scheme", "L20")
            lossless = flags.SCHEMES[scheme].lossless or f"{name}_{scheme.lower()}_qc" in columns
            same = dict(attributes.get(flag, {})) == {
                **flags.attributes(name), **({"source_scheme": scheme} if scheme != "L20" else {})
            }  # fmt: skip
            if lossless and same and set(np.unique(columns[flag])) <= set(flags.L20):
                found[name] = (flag, scheme)
    return found


def spreadsheet(table: Observations, before: list[str] | None = None, first: bool = True) -> Spreadsheet:
    """A spreadsheet of a table: numbers in the shortest form that reads back to the same, flags in the scheme they had.

    What the format has no place for (a name, a type, attributes, the order of columns) stands in comments, which other
    programs pass over, and is read back. Blanks around a text are lost; tabs and line ends in it become blanks. `before` is
    the last row of the block before this one.
    """
    for name in ("longitude", "latitude", "time"):
        if name not in table.columns:
            raise NotReadable(f"the table has no column {name!r}, which an ODV spreadsheet needs.")
    columns, attributes = dict(table.columns), table.attributes
    if table.depth_is_computed():
        for derived in ("depth", "depth_qc"):
            columns.pop(derived, None)
    if "cast" in columns and _derives(table):
        del columns["cast"]
    flagged = _flag_columns(columns, attributes)
    if "station_time" not in columns:
        flagged.pop("time", None)  # ODV has no flags for what it says of a station
    followers = {flag for flag, _ in flagged.values()}
    followers |= {
        f"{n}_{scheme.lower()}_qc" for n, (_, scheme) in flagged.items() if not flags.SCHEMES[scheme].lossless
    }
    time = "station_time" if "station_time" in columns else "time"
    size, blank = len(table), np.array([""] * len(table), dtype=object)
    header: list[str] = []
    cells: list[list[str]] = []
    own: list[dict] = []

    def put(name: str, label: str, values: np.ndarray, data: bool = False) -> None:
        while label in header:
            label += "'"
        header.append(label)
        cells.append(_text_of(values))
        if name in columns:
            own.append(
                {
                    "label": label,
                    "name": name,
                    "dtype": _kind(values),
                    "attributes": attributes.get(name, {}),
                    "data": data,
                }
            )

    def labelled(name: str) -> str:
        said = attributes.get(name, {})
        label = str(said.get("odv_label") or (f"{name} [{said['units']}]" if said.get("units") else name))
        return re.sub(r"[\t\r\n]+", " ", label)

    named = columns.get("station", columns.get("cast", table.columns.get("cast", blank)))
    put("cruise", CRUISE, columns.get("cruise", columns.get("platform", blank)))
    put("station", STATION, named)
    put("cruise_type", TYPE, columns.get("cruise_type", np.array(["*"] * size, dtype=object)))
    put(time, TIME, columns[time])
    put("longitude", LONGITUDE, columns["longitude"])
    put("latitude", LATITUDE, columns["latitude"])
    done = {"cruise", "station", "cruise_type", time, "longitude", "latitude"}
    station = [n for n in columns if n not in done and (columns[n].dtype == object or n == "bottom_depth")]
    for name in station:
        put(name, labelled(name) if name != "bottom_depth" else BOTTOM, columns[name])
    count = len(header)
    mapping = []
    data = [n for n in columns if n not in done and n not in station and n not in followers]
    for name in sorted(data, key=lambda n: {"time": 0, "depth": 1, "pressure": 2}.get(n, 3)):
        said = attributes.get(name, {})
        put(name, ISO if name == "time" else labelled(name), columns[name], True)
        code, unit_code = (vocabulary.code_of(said.get(k, "")) for k in ("sdn_parameter_urn", "sdn_uom_urn"))
        if code:
            local = re.sub(r"\s*\[[^\]]*\]$", "", header[-1])
            units = f"SDN:P06::{unit_code}" if unit_code else ""
            mapping.append(
                f"//<subject>SDN:LOCAL:{local}</subject><object>SDN:P01::{code}</object><units>{units}</units>"
            )
        if name in flagged:
            header.append(f"QV:{_odv_scheme(flagged[name][1])}")
            cells.append(_flag_texts(name, flagged[name][1], columns))
    if "sample" in flagged and "sample" not in columns:
        header.append(f"QV:{_odv_scheme(flagged['sample'][1])}{SAMPLE}")
        cells.append(_flag_texts("sample", flagged["sample"][1], columns))
    preamble = ["//<Encoding>UTF-8</Encoding>", "//<Creator>phidias_lab</Creator>", "//"]
    preamble += [MAPPING, *mapping, "//"] if mapping else []
    for tag, said in [*((OWN, o) for o in own), (ORDER, list(table.columns)), (FACTS, table.facts)]:
        preamble.append(f"//<{tag}>{json.dumps(said, ensure_ascii=True, sort_keys=True)}</{tag}>")
    rows: list[list[str] | str] = []
    for row in zip(*cells, strict=True) if size else ():
        row = list(row)
        if row[0].startswith("//"):
            row[0] = f" {row[0]}"  # it would be taken for a comment
        goes_on = before is not None and row[:count] == before[:count] and any(row[count:])
        rows.append([*[""] * count, *row[count:]] if goes_on else row)
        before = row
    return Spreadsheet(header, preamble, rows, list(range(1, len(rows) + 1)), first=first)


def _derives(table: Observations) -> bool:
    """Whether the column `cast` is what a reader would make of the others."""
    copy = Observations({n: v for n, v in table.columns.items() if n != "cast"})
    if not copy.columns:
        return False
    _add_cast(copy)
    return list(copy.columns["cast"]) == list(table.columns["cast"]) and copy.attributes["cast"] == dict(
        table.attributes.get("cast", {})
    )


def _odv_scheme(scheme: str) -> str:
    return next((odv for odv, ours in flags.OF_ODV.items() if ours == scheme), scheme.upper())


def _flag_texts(name: str, scheme: str, columns: Mapping[str, np.ndarray]) -> list[str]:
    kept = columns.get(f"{name}_{scheme.lower()}_qc")
    if kept is not None and not flags.SCHEMES[scheme].lossless:
        return ["" if v < 0 else str(v) for v in kept]
    return list(flags.encode(columns[f"{name}_qc"], scheme))
