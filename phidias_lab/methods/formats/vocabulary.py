"""What variables and units are called: in the lab, in CF, in SeaDataNet (vocabularies P01, P35, P06) and in Argo.

One table. A column of a file is known by its code, or else by its standard name, or else by its label. It gets the lab's
name only where its units are the lab's too; otherwise the units are part of the name (`oxygen_mg_l`), because no value is
converted when a file is read. NERC Vocabulary Server, http://vocab.nerc.ac.uk; Argo reference table 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A measured quantity: its name in the lab, units, CF names, and what it is called elsewhere."""

    name: str
    units: str
    standard_name: str
    long_name: str
    codes: tuple[str, ...] = ()  # of P01 and P35; the first is written
    argo: str = ""
    labels: tuple[str, ...] = ()
    standard_names: tuple[str, ...] = ()  # that say the same, less exactly
    of: str = ""  # the substance, where it is measured per volume and per mass

    def attributes(self) -> dict[str, str]:
        return {"units": self.units, "standard_name": self.standard_name, "long_name": self.long_name}


def _dissolved(name, formula, codes, argo, labels, words=None):
    words = words or name
    return (
        Variable(name, "umol L-1", f"mole_concentration_of_{formula}_in_sea_water", f"{words} in sea water", codes, "",
                 labels, (), name),
        Variable(f"{name}_umol_kg", "umol kg-1", f"moles_of_{formula}_per_unit_mass_in_sea_water",
                 f"{words} in sea water, per mass", (), argo, (), (), name),
    )  # fmt: skip


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "temperature", "degree_Celsius", "sea_water_temperature", "temperature of sea water",
        ("TEMPPR01", "TEMPET01", "TEMPST01", "TEMPS901", "TEMPCC01", "PSSTTS01", "WATERTEMP"), "TEMP",
        ("temperature", "temp", "water temperature", "sea temperature", "its-90 water temperature"),
    ),
    Variable(
        "salinity", "1e-3", "sea_water_practical_salinity", "practical salinity of sea water",
        ("PSLTZZ01", "PSALPR01", "PSALST01", "PSALCC01", "ODSDM021"), "PSAL",
        ("salinity", "practical salinity", "water body salinity", "psal"), ("sea_water_salinity",),
    ),
    Variable(
        "oxygen", "umol kg-1", "moles_of_oxygen_per_unit_mass_in_sea_water", "dissolved oxygen in sea water",
        ("DOXMZZXX",), "DOXY", ("oxygen", "dissolved oxygen"), (), "oxygen",
    ),
    Variable(
        "oxygen_concentration", "umol L-1", "mole_concentration_of_dissolved_molecular_oxygen_in_sea_water",
        "dissolved oxygen in sea water, per volume", ("DOXYZZXX", "DOXYSE01", "EPC00002"), "",
        ("water body dissolved oxygen concentration", "dissolved oxygen concentration"), (), "oxygen",
    ),
    Variable(
        "chlorophyll", "mg m-3", "mass_concentration_of_chlorophyll_in_sea_water", "chlorophyll in sea water",
        ("CPHLZZXX", "CPHLSPPC", "CPHLPR01"), "CHLA",
        ("chlorophyll", "chlorophyll-a", "water body chlorophyll-a", "chla"),
        ("mass_concentration_of_chlorophyll_a_in_sea_water",),
    ),
    *_dissolved("nitrate", "nitrate", ("NTRAZZXX",), "NITRATE",
                ("nitrate", "nitrate no3-n", "water body nitrate")),
    *_dissolved("nitrite", "nitrite", ("NTRIZZXX",), "",
                ("nitrite", "nitrite no2-n", "water body nitrite")),
    *_dissolved("nitrate_nitrite", "nitrate_and_nitrite", ("NTRZZZXX",), "",
                ("nitrate plus nitrite", "sum_nitrate_and_nitrite", "water body nitrate plus nitrite"),
                "nitrate and nitrite"),
    *_dissolved("phosphate", "phosphate", ("PHOSZZXX", "PHOSAAZX"), "",
                ("phosphate", "phosphate po4-p", "water body phosphate")),
    *_dissolved("silicate", "silicate", ("SLCAZZXX", "SLCAAAZX"), "",
                ("silicate", "silicate sio4-si", "water body silicate")),
    *_dissolved("ammonium", "ammonium", ("AMONZZXX",), "",
                ("ammonium", "ammonium nh4-n", "water body ammonium")),
    Variable("ph_total", "1", "sea_water_ph_reported_on_total_scale", "pH of sea water, total scale", (),
             "PH_IN_SITU_TOTAL"),
    Variable("depth", "m", "depth", "depth below the sea surface", ("ADEPZZ01",), "", ("depth", "sampling depth")),
    Variable("pressure", "dbar", "sea_water_pressure", "sea water pressure, zero at the surface",
             ("PRESPR01", "PRESPS01"), "PRES", ("pressure", "pres")),
)  # fmt: skip

TIME_CODES = ("CJDY1101", "DTUT8601")
JULIAN, ISO_TIME = TIME_CODES

PLACES: dict[str, dict[str, str]] = {
    "longitude": {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"},
    "latitude": {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"},
    "depth": {"units": "m", "standard_name": "depth", "long_name": "depth below the sea surface", "positive": "down"},
    "time": {"standard_name": "time", "long_name": "time (UTC)"},
}

#: Units as files write them (without case and blanks) -> as the lab writes them.
_SPELLINGS = {
    "degree_Celsius": ("degc", "c", "degreesc", "degreescelsius", "celsiusdegree", "degree_celsius", "celsius", "deg_c",
                       "degree_c", "°c", "degreecelsius"),
    "1e-3": ("psu", "p.s.u.", "ppt", "permille", "1e-3", "pss-78", "pss78", "psal", "0.001"),
    "1": ("dimensionless", "1", "phunits", "ratio"),
    "umol L-1": ("umol/l", "µmol/l", "umoll-1", "micromole/l", "mmolm-3", "mmol/m3", "mmol/m^3"),
    "umol kg-1": ("umol/kg", "umolkg-1", "µmol/kg", "micromole/kg", "micromolesperkilogram"),
    "mg m-3": ("mg/m^3", "mg/m3", "ug/l", "µg/l", "ugl-1", "mgm-3"),
    "mg L-1": ("mg/l", "mgl-1"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "dbar": ("dbar", "db", "decibar", "decibars", "decibar=10000pascals"),
    "%": ("%", "percent"),
    "degrees_east": ("degrees_east", "degree_east", "degreeseast"),
    "degrees_north": ("degrees_north", "degree_north", "degreesnorth"),
    "m s-1": ("m/s", "ms-1", "metrespersecond", "meterspersecond", "meter/second", "metre/second"),
    "degree": ("degree", "degrees", "deg", "degreest"),
    "K": ("k", "kelvin"),
    "uatm": ("microatmospheres", "uatm"),
    "S m-1": ("s/m", "sm-1", "siemenspermetre", "siemens/m", "mho/m", "mho/meter"),
}  # fmt: skip
_UNITS = {spelling: units for units, spellings in _SPELLINGS.items() for spelling in spellings}
#: Codes of P06. ULAA metres, UPAA degrees Celsius, UUUU dimensionless and so on. Of several for the same units the first is
#: written.
P06 = {
    "ULAA": "m", "UPAA": "degree_Celsius", "UUUU": "1", "UPPT": "1e-3", "UPOX": "umol L-1", "KGUM": "umol kg-1",
    "UMGL": "mg L-1", "UMMC": "mg m-3", "UGPL": "mg m-3", "UPDB": "dbar", "UUPH": "1", "UPCT": "%", "UTAA": "days",
    "DEGE": "degrees_east", "DEGN": "degrees_north", "UVAA": "m s-1", "UAAA": "degree", "UECA": "S m-1",
}  # fmt: skip
UNITS_P06 = {units: code for code, units in reversed(P06.items())}

_BY_CODE = {code: v for v in VARIABLES for code in v.codes}
_BY_STANDARD = {s: v for v in VARIABLES for s in (v.standard_name, *v.standard_names)}
_BY_LABEL = {label: v for v in VARIABLES for label in (*v.labels, v.name)}
BY_NAME = {v.name: v for v in VARIABLES}
BY_ARGO = {v.argo: v for v in VARIABLES if v.argo}


def code_of(urn: str) -> str:
    """TEMPPR01 of SDN:P01::TEMPPR01; the text itself when it is no such address."""
    return urn.rpartition(":")[2].strip()


def units_of(text: str) -> str:
    """Units as the lab writes them; a spelling that is not known stays as it is."""
    return _UNITS.get(re.sub(r"\s+", "", str(text)).lower(), str(text).strip())


def find(code: str = "", standard_name: str = "", label: str = "") -> Variable | None:
    """The variable of a code, else of a standard name; of a label without its units only where neither is given."""
    if code or standard_name:
        return _BY_CODE.get(code_of(code)) or _BY_STANDARD.get(standard_name)
    return _BY_LABEL.get(re.sub(r"\s*[\[(].*$", "", label).strip().lower())


def slug(text: str) -> str:
    """A name for a column: letters, digits and underscores, beginning with a letter."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower()[:60]
    return name if name[:1].isalpha() else f"x_{name}".rstrip("_")


def name_and_attributes(
    label: str, units: str, code: str = "", standard_name: str = "", described: str = ""
) -> tuple[str, dict[str, str]]:
    """The name and attributes of a measured column, by its code, standard name or label, and its units.

    `described` is what the code's own name says. A code that is a standard deviation by its own name is no value of the
    quantity, whatever the standard name says.
    """
    plain, units = re.sub(r"\s*\[[^\]]*\]\s*$", "", label).strip(), str(units).strip()
    deviation = "standard deviation" in described.lower()
    found = None if deviation else find(code, standard_name, label)
    ours = units_of(units)
    if found is None:
        said = {"units": ours} if ours else {}
        return slug(plain) + "_standard_deviation" * deviation, {
            **said,
            **({"standard_name": standard_name} if standard_name and not deviation else {}),
            "long_name": plain + ", standard deviation" * deviation,
        }
    if found.units == "1e-3" and ours == "1":
        ours = "1e-3"  # practical salinity has no units, and files write 1, psu or per mille for it
    if not ours:
        return found.name, {k: v for k, v in found.attributes().items() if k != "units"}
    same = [found, *(v for v in VARIABLES if found.of and v.of == found.of)]
    exact = next((v for v in same if v.units == ours), None)
    if exact is not None:
        return exact.name, exact.attributes()
    return f"{found.name}_{slug(units)}", {"units": ours, "long_name": found.long_name}
