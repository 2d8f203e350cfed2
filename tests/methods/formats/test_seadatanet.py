"""SeaDataNet's CF NetCDF: small synthetic files, made here as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.formats import seadatanet
from phidias_lab.methods.formats.netcdf import File, Variable, characters
from phidias_lab.methods.formats.observations import Faults, NotReadable

FILL = -99999.0


def profiles(identity=True, flags=True) -> File:
    """Two synthetic profiles of three levels."""
    made = File(
        {"INSTANCE": 2, "MAXZ": 3, "STRING8": 8},
        attributes={"Conventions": "SeaDataNet_1.0 CF 1.6", "featureType": "profile"},
    )

    def put(name, values, standard, units, code="", qc=None):
        dims = ("INSTANCE",) if np.ndim(values) == 1 else ("INSTANCE", "MAXZ")
        words = {"standard_name": standard, "units": units, "_FillValue": FILL}
        words |= {"sdn_parameter_urn": f"SDN:P01::{code}"} if code else {}
        if qc is not None and flags:
            made.variables[f"{name}_SEADATANET_QC"] = Variable(
                dims,
                np.array(qc, np.int8),
                {"sdn_conventions_urn": "SDN:L20::", "flag_values": np.array([48, 49], np.int8)},
            )
            words["ancillary_variables"] = f"{name}_SEADATANET_QC"
        made.variables[name] = Variable(dims, np.array(values, float), words)

    if identity:
        made.variables["SDN_EDMO_CODE"] = Variable(("INSTANCE",), np.array([486, 486], np.int32))
        for name, texts in (
            ("SDN_CRUISE", ["C1", "C1"]),
            ("SDN_STATION", ["1", "2"]),
            ("SDN_LOCAL_CDI_ID", ["a", "b"]),
        ):
            made.variables[name] = Variable(("INSTANCE", "STRING8"), characters(texts, 8))
    put("LONGITUDE", [-10.0, -11.0], "longitude", "degrees_east")
    put("LATITUDE", [45.0, 46.0], "latitude", "degrees_north")
    put("TIME", [2451545.0, 2451546.5], "time", "days since -4713-01-01T00:00:00Z", "CJDY1101", [49, 50])
    put("DEPTH", [[0, 10, 20], [0, 10, FILL]], "depth", "meters", "ADEPZZ01", [[49, 49, 49], [49, 49, 57]])
    put(
        "TEMPPR01", [[15, 14, 13], [12, FILL, FILL]], "sea_water_temperature", "degrees celsius", "TEMPPR01",
        [[49, 50, 52], [65, 57, 57]],
    )  # fmt: skip
    return made


def table(file):
    faults = Faults()
    return seadatanet.observations(file, faults), [str(f) for f in faults]


def test_profiles_become_observations():
    found, faults = table(profiles())
    assert faults == []
    columns = found.columns
    assert columns["cast"].tolist() == ["486-a"] * 3 + ["486-b"]
    assert columns["temperature"].tolist() == [15, 14, 13, 12]
    assert columns["temperature_qc"].tolist() == [1, 2, 4, ord("A")]
    assert columns["depth"].tolist() == [0, 10, 20, 0]
    assert columns["time"].tolist() == [
        np.datetime64(t, "us").item() for t in ["2000-01-01"] * 3 + ["2000-01-02T12:00"]
    ]
    assert columns["time_qc"].tolist() == [1, 1, 1, 2]


def test_files_without_identity_or_flags_are_read():
    found, faults = table(profiles(identity=False, flags=False))
    assert faults == []
    assert found.columns["cast"].tolist() == ["0", "0", "0", "1"]
    assert not [name for name in found.columns if name.endswith("_qc")]


@pytest.mark.parametrize(
    ("units", "value", "when"),
    [
        ("days since 1950-01-01 00:00:00", 18262.0, "2000-01-01"),
        ("hours since 2000-01-01T00:00:00Z", 12.0, "2000-01-01T12:00"),
        ("seconds since 1970-1-1 00:00:00 UTC", 86400.0, "1970-01-02"),
    ],
)
def test_time_is_read_in_its_units(units, value, when):
    file = profiles()
    file.variables["TIME"].attributes |= {"units": units, "sdn_parameter_urn": ""}
    file.variables["TIME"].data[:] = value
    assert table(file)[0].columns["time"][0] == np.datetime64(when)


def test_every_fault_is_told_with_variable_and_index():
    file = profiles()
    file.variables["LATITUDE"].data[1] = -91
    file.variables["LONGITUDE"].data[0] = FILL
    file.variables["TIME"].data[1] = 1e9
    file.variables["TEMPPR01_SEADATANET_QC"].data[0, 1] = 90
    file.variables["ODD"] = Variable(("STRING8",), np.zeros(8), {})
    file.variables["TEMPPR01"].attributes["ancillary_variables"] += " NOWHERE"
    _, faults = table(file)
    assert faults == [
        "variable TEMPPR01: names NOWHERE for its flags, but there is no variable of that name.",
        "LONGITUDE[0]: is missing, so the observations have no place.",
        "LATITUDE[1]: is -91, outside -90 to 90, and is left out.",
        "TIME[1]: is 1e+09 days since -4713-01-01T00:00:00Z, no plausible date, and is left out.",
        "TEMPPR01_SEADATANET_QC[0, 1]: is 90, no flag of L20; it is taken as 0.",
    ]


def test_a_code_against_a_standard_name_is_told():
    file = profiles()
    file.variables["TEMPPR01"].attributes["sdn_parameter_name"] = "Temperature standard deviation"
    found, faults = table(file)
    assert "temperature" not in found.columns
    assert len(faults) == 1
    assert "the code is believed" in faults[0]


def test_a_file_without_a_place_is_refused_in_a_sentence():
    file = profiles()
    del file.variables["LONGITUDE"]
    with pytest.raises(NotReadable, match="no variable with the standard name longitude"):
        table(file)


def test_what_changes_within_a_cast_decides_what_the_file_is_called():
    found, _ = table(profiles())
    assert seadatanet.file(found).attributes["featureType"] == "profile"
    found.columns["time"] = found.columns["time"] + np.arange(4).astype("timedelta64[h]")
    assert seadatanet.file(found).attributes["featureType"] == "timeSeries"
    found.columns["longitude"] = found.columns["longitude"] + np.arange(4.0)
    assert seadatanet.file(found).attributes["featureType"] == "trajectory"
