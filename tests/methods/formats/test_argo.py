"""Argo profile files: small synthetic ones, made here as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.formats import argo
from phidias_lab.methods.formats.netcdf import File, Variable, characters
from phidias_lab.methods.formats.observations import Faults, NotReadable

FILL = np.float32(99999)
WORDS = {
    "PRES": {"units": "decibar", "standard_name": "sea_water_pressure", "valid_min": np.float32(0)},
    "TEMP": {"units": "degree_Celsius", "standard_name": "sea_water_temperature", "valid_max": np.float32(40)},
    "DOXY": {"units": "micromole/kg", "standard_name": "moles_of_oxygen_per_unit_mass_in_sea_water"},
}


def letters(rows):
    return np.array([list(row) for row in rows], "S1")


def profiles(parameters=("PRES", "TEMP"), modes=None) -> File:
    """Two synthetic profiles of three levels: the first in delayed mode, the second as it was sent."""
    count, depth = 2, 3
    made = File({"N_PROF": count, "N_LEVELS": depth, "N_PARAM": len(parameters), "STRING16": 16, "STRING8": 8})
    put = made.variables
    put["DATA_TYPE"] = Variable(("STRING16",), characters(["Argo profile"], 16)[0])
    put["PLATFORM_NUMBER"] = Variable(("N_PROF", "STRING8"), characters(["6900001", "6900001"], 8))
    put["STATION_PARAMETERS"] = Variable(
        ("N_PROF", "N_PARAM", "STRING16"), np.tile(characters(parameters, 16)[None], (count, 1, 1))
    )
    put["CYCLE_NUMBER"] = Variable(("N_PROF",), np.array([1, 2], np.int32))
    put["DIRECTION"] = Variable(("N_PROF",), np.array([b"D", b"A"], "S1"))
    if modes is None:
        put["DATA_MODE"] = Variable(("N_PROF",), np.array([b"D", b"R"], "S1"))
    else:
        put["PARAMETER_DATA_MODE"] = Variable(("N_PROF", "N_PARAM"), letters(modes))
    put["JULD"] = Variable(("N_PROF",), np.array([25000.5, 25010.25]), {"_FillValue": 999999.0})
    put["JULD_QC"] = Variable(("N_PROF",), np.array([b"1", b"1"], "S1"))
    for name, values in (("LATITUDE", [45.0, 46.0]), ("LONGITUDE", [-10.0, -11.0])):
        put[name] = Variable(("N_PROF",), np.array(values), {"_FillValue": 99999.0})
    put["POSITION_QC"] = Variable(("N_PROF",), np.array([b"1", b"8"], "S1"))
    values = {
        "PRES": [[5, 10, 20], [5, 10, FILL]],
        "TEMP": [[15.0, 14.0, 13.0], [12.0, 11.0, FILL]],
        "DOXY": [[200, 210, 220], [230, 240, FILL]],
    }
    for name in parameters:
        raw = np.array(values[name], np.float32)
        fixed = np.full_like(raw, FILL)
        fixed[0] = raw[0] + np.float32(0.5)
        fixed[0, 2] = FILL
        for ending, data in (
            ("", raw),
            ("_ADJUSTED", fixed),
            ("_ADJUSTED_ERROR", np.where(fixed == FILL, FILL, 0.125)),
        ):
            put[name + ending] = Variable(
                ("N_PROF", "N_LEVELS"), data.astype(np.float32), {**WORDS[name], "_FillValue": FILL}
            )
        put[f"{name}_QC"] = Variable(("N_PROF", "N_LEVELS"), letters(["112", "13 "]))
        put[f"{name}_ADJUSTED_QC"] = Variable(("N_PROF", "N_LEVELS"), letters(["124", "   "]))
    return made


def table(file):
    faults = Faults()
    return argo.observations(file, faults), [str(f) for f in faults]


def test_delayed_mode_gives_the_adjusted_values_and_keeps_those_that_were_sent():
    found, faults = table(profiles())
    assert faults == []
    columns = found.columns
    assert columns["cast"].tolist() == ["6900001_001D"] * 3 + ["6900001_002"] * 2
    np.testing.assert_array_equal(columns["temperature"], np.array([15.5, 14.5, np.nan, 12, 11], np.float32))
    assert columns["temperature_qc"].tolist() == [1, 2, 4, 1, 3]
    np.testing.assert_array_equal(columns["temperature_raw"], np.array([15, 14, 13, 12, 11], np.float32))
    assert columns["temperature_raw_qc"].tolist() == [1, 1, 2, 1, 3]
    np.testing.assert_array_equal(
        columns["temperature_error"], np.array([0.125, 0.125, np.nan, np.nan, np.nan], np.float32)
    )
    assert columns["time"][0] == np.datetime64("2018-06-13T12:00")
    assert columns["position_qc"].tolist() == [1, 1, 1, 8, 8]
    np.testing.assert_allclose(columns["depth"][0], 5.4548, atol=1e-3)  # of the adjusted pressure, 5.5 dbar
    assert found.attributes["salinity" if "salinity" in columns else "temperature"]["units"] == "degree_Celsius"


def test_each_parameter_of_a_synthetic_profile_has_its_own_mode():
    found, faults = table(profiles(("PRES", "TEMP", "DOXY"), ["DRA", "RRR"]))
    assert faults == []
    assert found.columns["temperature"][0] == 15.0  # as it was sent
    assert found.columns["oxygen"][0] == np.float32(200.5)  # adjusted in real time
    assert found.columns["data_mode"].tolist()[0] == "PRES:D TEMP:R DOXY:A"
    assert found.attributes["oxygen"]["units"] == "umol kg-1"


def test_every_fault_is_told_with_variable_and_index():
    file = profiles()
    file.variables["LATITUDE"].data[0] = 95.0
    file.variables["LONGITUDE"].data[1] = 99999.0
    file.variables["JULD"].data[1] = 1e7
    file.variables["DATA_MODE"].data[1] = b"X"
    file.variables["TEMP_QC"].data[1, 0] = b"Z"
    file.variables["TEMP_QC"].data[1, 1] = b" "
    file.variables["TEMP_ADJUSTED"].data[0, 1] = 55.0
    file.variables["STATION_PARAMETERS"].data[0, 1] = characters(["PSAL"], 16)[0]
    _, faults = table(file)
    assert faults == [
        "LONGITUDE[1]: is missing, so the profile has no place.",
        "LATITUDE[0]: is 95, outside -90 to 90, and is left out.",
        "JULD[1]: is 1e+07 days since 1950-01-01, no plausible date, and is left out.",
        "STATION_PARAMETERS[0, 1]: names PSAL, but there is no variable of that name.",
        "DATA_MODE[1]: is 'X' instead of R, A or D; PRES is taken as it was sent.",
        "TEMP_QC[1, 0]: is 'Z', no flag of Argo's; it is taken as 0, no quality control.",
        "TEMP_QC[1, 1]: is blank beside a value; it is taken as 0.",
        "TEMP_ADJUSTED[0, 1]: is 55 with the flag 2, outside the range that the file gives for TEMP.",
    ]


@pytest.mark.parametrize(
    ("lost", "said"),
    [("PRES", "no variable PRES"), ("LATITUDE", "no variable LATITUDE"), ("CYCLE_NUMBER", "no variable CYCLE_NUMBER")],
)
def test_a_file_that_lacks_what_it_needs_is_refused_in_a_sentence(lost, said):
    file = profiles()
    del file.variables[lost]
    with pytest.raises(NotReadable, match=said):
        table(file)


def test_two_profiles_of_one_cycle_are_two_casts():
    file = profiles()
    file.variables["CYCLE_NUMBER"].data[1] = 1
    file.variables["DIRECTION"].data[1] = b"D"
    assert set(table(file)[0].columns["cast"]) == {"6900001_001D", "6900001_001D_2"}


def test_a_table_without_pressure_is_written_with_the_pressure_of_its_depth():
    found, _ = table(profiles())
    for name in [n for n in found.columns if n.startswith("pressure")]:
        del found.columns[name], found.attributes[name]
    found.attributes["depth"].pop("comment")
    made = argo.file(found)
    np.testing.assert_allclose(made.variables["PRES"].data[0, 0], 5.5, atol=1e-4)
    back, faults = table(made)
    assert faults == []
    np.testing.assert_array_equal(back.columns["depth"], found.columns["depth"])
