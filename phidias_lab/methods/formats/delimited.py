"""Observations as CSV: a line of names, then a line for each observation.

What CSV has no place for (units, types, standard names) may stand before it in comment lines `# phidias {...}`; the lab
writes them and reads them back. Without them the user says which column is what, and a column is numbers if it is called
as numbers are here, or if its first lines hold nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from phidias_lab.methods.formats import flags, vocabulary
from phidias_lab.methods.formats.observations import NO_TIME, Faults, NotReadable, Observations, parse_time, time_text

ABOUT = "# phidias "
BLOCK, MOST_COLUMNS, LONGEST = 50_000, 10_000, 4_000_000
_NUMBERS = {"longitude", "latitude", "bottom_depth", *vocabulary.BY_NAME}
_NONE = {"", "nan", "na", "null", "none"}


def _lines(lines: Iterable[bytes], faults: Faults, about: dict, first: list[int]) -> Iterator[str]:
    """The text lines after the comments at the beginning."""
    started = False
    for number, raw in enumerate(lines, 1):
        if len(raw) > LONGEST:
            raise NotReadable(f"line {number} is longer than {LONGEST} bytes, so this is no CSV file of observations.")
        raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            faults.add(f"line {number}", "is not UTF-8; its other letters are read as Latin-1 (Windows Western).")
            text = raw.decode("latin-1")
        if not started and text.startswith("#"):
            if text.startswith(ABOUT):
                try:
                    about.update(json.loads(text[len(ABOUT) :]))
                except (ValueError, TypeError):
                    faults.add(f"line {number}", "is no longer what the lab wrote; it is passed over.")
            continue
        if not started and not text.strip():
            continue
        if not started:
            started = True
            first.append(number)
        yield text


def separator(line: str) -> str:
    """What separates the names of the first line: the most frequent of comma, semicolon and tab."""
    return max(",;\t", key=line.count)


def blocks(
    lines: Iterable[bytes],
    faults: Faults,
    names: Mapping[str, str] | None = None,
    scheme: str = "L20",
    size: int = BLOCK,
) -> Iterator[Observations]:
    """The file as tables of at most `size` observations; `names` maps names in the file to the lab's."""
    names = dict(names or {})
    about: dict[str, Any] = {}
    first: list[int] = []
    texts = _lines(lines, faults, about, first)
    head = next(texts, None)
    if head is None:
        raise NotReadable("it is empty. Its first line must name the columns.")
    by = separator(head)

    def again() -> Iterator[str]:
        yield head
        yield from texts

    rows = csv.reader(again(), delimiter=by)
    header = [cell.strip() for cell in _next(rows, first[0]) or []]
    if len(header) > MOST_COLUMNS:
        raise NotReadable(f"line {first[0]} names {len(header)} columns; more than {MOST_COLUMNS} are not read.")
    for old in names:
        if old not in header:
            raise NotReadable(
                f"line {first[0]} names no column {old!r} that could be renamed; it names {', '.join(header[:12])}."
            )
    header = [names.get(h, h) for h in header]
    twice = sorted({h for h in header if header.count(h) > 1})
    if twice:
        raise NotReadable(f"line {first[0]} names the column {twice[0]!r} twice. Give each column a name of its own.")
    for needed in ("longitude", "latitude", "time"):
        if needed not in header:
            raise NotReadable(
                f"line {first[0]} names no column {needed!r}; it names {', '.join(header[:12])}. Say which it is, as in "
                f"--column NAME={needed}."
            )
    kinds: dict[str, str] = dict(about.get("types") or {})
    while True:
        kept, numbers = [], []
        while len(kept) < size:
            row = _next(rows, first[0])
            if row is None:
                break
            number = rows.line_num + first[0] - 1
            if not row:
                continue
            if len(row) != len(header):
                faults.add(f"line {number}", f"has {len(row)} columns instead of {len(header)}; the row is left out.")
                continue
            kept.append(row)
            numbers.append(number)
        if not kept and kinds.get("\0"):
            return
        yield _table(header, kept, numbers, kinds, about, scheme, faults)
        kinds["\0"] = "begun"
        if len(kept) < size:
            return


def _next(rows: Any, first: int) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise NotReadable(f"line {rows.line_num + first - 1} is no CSV ({error}).") from None


def _table(header, rows, lines, kinds, about, scheme, faults) -> Observations:
    said = about.get("attributes") or {}
    table = Observations(facts={"format": "CSV", **(about.get("facts") or {})})
    if about.get("facts"):
        table.facts = dict(about["facts"])
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    for name, texts in zip(header, columns, strict=True):
        kind = kinds.get(name) or _kind(name, texts, header)
        kinds[name] = kind
        values = _values(name, list(texts), kind, lines, scheme, faults)
        table.add(name, values, said.get(name) if about else _attributes(name, kind, header))
    return table.with_depth() if not about else table


def _kind(name: str, texts: tuple[str, ...], header: list[str]) -> str:
    if name == "time":
        return "time"
    if name.endswith("_qc"):
        return "flag"
    if name in _NUMBERS or f"{name}_qc" in header:
        return "float64"
    given = [t for t in texts if t.strip().lower() not in _NONE]
    return (
        "float64"
        if given and all(re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", t) for t in given)
        else "text"
    )


def _attributes(name: str, kind: str, header: list[str]) -> dict[str, Any]:
    if kind == "flag":
        return flags.attributes(name.removesuffix("_qc"))
    return (
        {k: v for k, v in vocabulary.PLACES.get(name, {}).items() if k != "units"} if name in vocabulary.PLACES else {}
    )


def _values(name: str, texts: list[str], kind: str, lines: list[int], scheme: str, faults: Faults) -> np.ndarray:
    where = f"column {name!r}"
    if kind == "text":
        return np.array([t.strip() for t in texts], dtype=object)
    if kind in ("time", "datetime64[us]"):
        found = np.full(len(texts), NO_TIME, "datetime64[us]")
        for i, text in enumerate(texts):
            when = parse_time(text)
            if when is None:
                faults.add(f"line {lines[i]}, {where}", f"{text[:60]!r} is no plausible time as in 2010-01-31T12:00.")
            else:
                found[i] = when
        return found
    if kind == "flag":
        words = [re.sub(r"\.0$", "", t.strip()) for t in texts]
        found, unknown = flags.decode([w or "\0" for w in words], scheme)
        for i in np.flatnonzero(unknown & np.array([bool(w) for w in words], bool)):
            faults.add(f"line {lines[i]}, {where}", f"{words[i][:20]!r} is no flag of {scheme}; it is taken as 0.")
        return found
    if kind == "bool":
        return np.array([t == "True" for t in texts], bool)
    try:
        dtype = np.dtype(kind)
    except TypeError:
        dtype = np.dtype(float)
    if dtype.kind in "iu":
        try:
            return np.array([int(t) for t in texts], dtype)
        except (ValueError, OverflowError):
            dtype = np.dtype(float)
    values = np.full(len(texts), np.nan)
    try:
        if any("_" in t for t in texts):
            raise ValueError
        values = np.array([t.strip() if t.strip().lower() not in _NONE else "nan" for t in texts], float)
    except ValueError:
        for i, text in enumerate(texts):
            if text.strip().lower() in _NONE:
                continue
            try:
                if "_" in text:
                    raise ValueError
                values[i] = float(text)
            except ValueError:
                hint = " Numbers are written with a point." if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text) else ""
                faults.add(f"line {lines[i]}, {where}", f"{text[:60]!r} is no number; it is left out.{hint}")
    low, high = {"latitude": (-90, 90), "longitude": (-180, 360)}.get(name, (-np.inf, np.inf))
    with np.errstate(invalid="ignore"):
        wrong = np.isinf(values) | (values < low) | (values > high)
    for i in np.flatnonzero(wrong):
        faults.add(f"line {lines[i]}, {where}", f"{texts[i].strip()[:60]!r} is not possible there; it is left out.")
        values[i] = np.nan
    return values.astype(dtype)


# From the table --------------------------------------------------------------------------------------------------------


def lines(table: Observations, first: bool = True) -> Iterator[str]:
    """The lines of a CSV file: what the lab knows of the columns, their names, the observations."""
    names = list(table.columns)
    if first:
        types = {
            n: "text" if v.dtype == object else "flag" if _is_l20(n, v, table.attributes) else str(v.dtype)
            for n, v in table.columns.items()
        }
        about = {"types": types, "attributes": table.attributes, "facts": table.facts}
        yield f"{ABOUT}{json.dumps(about, sort_keys=True)}\n"
        yield _row(names)
    cells = [_texts(n, v, table.attributes) for n, v in table.columns.items()]
    for row in zip(*cells, strict=True):
        yield _row(row)


def _is_l20(name: str, values: np.ndarray, attributes: Mapping[str, Mapping]) -> bool:
    return name.endswith("_qc") and values.dtype == np.int8 and set(np.unique(values)) <= set(flags.L20)


def _texts(name: str, values: np.ndarray, attributes: Mapping[str, Mapping]) -> list[str]:
    if values.dtype.kind == "M":
        return [time_text(v) for v in values]
    if values.dtype.kind == "f":
        return ["" if text == "nan" else text.removesuffix(".0") for text in values.astype(str).tolist()]
    if _is_l20(name, values, attributes):
        return list(flags.encode(values, "L20"))
    return [str(v) for v in values]


def _row(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
