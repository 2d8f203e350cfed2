"""Quality flags: one table of what each flag of each scheme means in SeaDataNet's scheme L20, which the lab uses.

A flag of L20 is one character; in a table it is its digit, or for a letter its ASCII code, so that it fits an int8.

- L20: SeaDataNet measurand qualifier flags, NERC vocabulary L20.
- Argo: Argo reference table 2 (Argo user's manual, doi:10.13155/29825).
- CMEMS: Copernicus Marine in situ TAC, physical data, real-time quality control (doi:10.13155/36230); 7 is a nominal value.
- QARTOD: Manual for real-time quality control data flags, U.S. Integrated Ocean Observing System (doi:10.25923/bcs3-6w06).
- WOD: World Ocean Database, flags of observed levels: 0 is accepted, each other number names the checks that failed, so
  it is "probably bad" here; the number itself is kept beside it.
- ODV: Ocean Data View's own scheme: 0 good, 1 unknown, 4 questionable, 8 bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

NO_CONTROL, GOOD, PROBABLY_GOOD, PROBABLY_BAD, BAD, CHANGED, BELOW, EXCESS, INTERPOLATED, MISSING = range(10)
UNCERTAIN, NOMINAL, BELOW_QUANTIFICATION = ord("A"), ord("B"), ord("Q")

#: Value in a table -> meaning, in the words of CF's flag_meanings.
L20: dict[int, str] = {
    NO_CONTROL: "no_quality_control",
    GOOD: "good_value",
    PROBABLY_GOOD: "probably_good_value",
    PROBABLY_BAD: "probably_bad_value",
    BAD: "bad_value",
    CHANGED: "changed_value",
    BELOW: "value_below_detection",
    EXCESS: "value_in_excess",
    INTERPOLATED: "interpolated_value",
    MISSING: "missing_value",
    UNCERTAIN: "value_phenomenon_uncertain",
    NOMINAL: "nominal_value",
    BELOW_QUANTIFICATION: "value_below_limit_of_quantification",
}

_DIGITS = "0123456789"


@dataclass(frozen=True)
class Scheme:
    """One scheme: each of its flags, as it is written in files, and the L20 flag that says the same."""

    name: str
    to_l20: dict[str, int]

    @property
    def lossless(self) -> bool:
        """Whether no two flags of the scheme become one in L20."""
        return len(set(self.to_l20.values())) == len(self.to_l20)

    def from_l20(self) -> dict[int, str]:
        """The first flag of the scheme for each L20 flag that it can say."""
        return {l20: flag for flag, l20 in reversed(self.to_l20.items())}


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("L20", {**{d: int(d) for d in _DIGITS}, **{c: ord(c) for c in "ABQ"}}),
        Scheme("Argo", {d: int(d) for d in "01234589"}),
        Scheme("CMEMS", {**{d: int(d) for d in "01234568"}, "7": NOMINAL, "9": MISSING}),
        Scheme("QARTOD", {"1": GOOD, "2": NO_CONTROL, "3": PROBABLY_BAD, "4": BAD, "9": MISSING}),
        Scheme("WOD", {"0": GOOD, **dict.fromkeys("123456789", PROBABLY_BAD)}),
        Scheme("ODV", {"0": GOOD, "1": NO_CONTROL, "4": PROBABLY_BAD, "8": BAD}),
    )
}
#: How the column of flags is called in ODV spreadsheets.
OF_ODV = {
    "SEADATANET": "L20",
    "L20": "L20",
    "ARGO": "Argo",
    "QARTOD": "QARTOD",
    "WOD": "WOD",
    "ODV": "ODV",
    "CMEMS": "CMEMS",
}


def attributes(of: str) -> dict:
    """The attributes of a column of L20 flags of the variable `of`."""
    return {
        "long_name": f"quality flag of {of}",
        "standard_name": "status_flag",
        "flag_values": list(L20),
        "flag_meanings": " ".join(L20.values()),
        "conventions": "SeaDataNet measurand qualifier flags (L20)",
    }


def decode(texts: Iterable[str], scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """(L20 flags as int8, which of them the scheme does not know). An unknown flag becomes "no quality control"."""
    table = SCHEMES[scheme].to_l20
    texts = np.asarray(texts, dtype=object)
    kinds, inverse = np.unique(texts.astype(str), return_inverse=True)
    known = np.array([table.get(kind, NO_CONTROL) for kind in kinds], np.int8)
    unknown = np.array([kind not in table for kind in kinds], bool)
    inverse = inverse.reshape(texts.shape)
    return known[inverse] if len(kinds) else np.zeros(texts.shape, np.int8), (
        unknown[inverse] if len(kinds) else np.zeros(texts.shape, bool)
    )


def encode(values: np.ndarray, scheme: str) -> np.ndarray:
    """The flags of L20 values as the scheme writes them; what it cannot say is its flag for no quality control, or ''."""
    back = SCHEMES[scheme].from_l20()
    kinds, inverse = np.unique(np.asarray(values), return_inverse=True)
    return np.array([back.get(int(k), back.get(NO_CONTROL, "")) for k in kinds], dtype=object)[inverse]


# Which values are used ------------------------------------------------------------------------------------------------

#: Flags of a value that are accepted, by the worst grade that somebody asks for; None is all of them.
ACCEPTED: dict[str, tuple[int, ...] | None] = {"good": (GOOD,), "probably_good": (GOOD, PROBABLY_GOOD), "all": None}
#: Flags of place, time and depth, and flags added later, that are refused. One that says nothing of quality (no control,
#: interpolated) is no reason to leave out a value that was found good.
REFUSED: dict[str, tuple[int, ...]] = {
    "good": (PROBABLY_GOOD, PROBABLY_BAD, BAD, MISSING),
    "probably_good": (PROBABLY_BAD, BAD, MISSING),
    "all": (),
}
OF_PLACE = ("position_qc", "time_qc", "depth_qc")


def beside(variable: str) -> tuple[str, ...]:
    """Names of the columns that may say something of the quality of a variable; those of `ocean.quality` are among them."""
    return (f"{variable}_qc", f"{variable}_added_qc", *OF_PLACE, "duplicate_of")


def refused(columns: Mapping, variable: str, worst: str) -> np.ndarray:
    """Which values have a flag that is worse than asked for, delivered or added later."""
    wrong = among(columns, (f"{variable}_added_qc",), REFUSED[worst])
    if ACCEPTED[worst] is not None and f"{variable}_qc" in columns:
        wrong |= ~among(columns, (f"{variable}_qc",), ACCEPTED[worst])
    return wrong


def refused_place(columns: Mapping, worst: str) -> np.ndarray:
    """Which values have a bad flag of place, time or depth."""
    return among(columns, OF_PLACE, REFUSED[worst])


def among(columns: Mapping, names: Iterable[str], flags: tuple[int, ...]) -> np.ndarray:
    """Which values have one of these flags in any of the named columns that there are; a flag may be a text."""
    found = np.zeros(len(columns["longitude"]), bool)
    for name in names:
        if name not in columns:
            continue
        values = np.asarray(columns[name])
        if values.dtype.kind in "iuf":
            found |= np.isin(values, flags)
        else:
            texts = np.asarray(values, dtype=object).astype(str)
            found |= np.isin(np.char.strip(texts), [form for flag in flags for form in (str(flag), f"{flag}.0")])
    return found
