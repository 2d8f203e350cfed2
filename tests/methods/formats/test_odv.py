"""ODV spreadsheets: synthetic ones, written here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phidias_lab.methods.formats import odv
from phidias_lab.methods.formats.observations import Faults, NotReadable

HEADER = [
    "Cruise", "Station", "Type", "yyyy-mm-ddThh:mm:ss.sss", "Longitude [degrees_east]", "Latitude [degrees_north]",
    "LOCAL_CDI_ID", "EDMO_code", "Bot. Depth [m]", "Depth [m]", "QV:SEADATANET", "Temp [degC]", "QV:SEADATANET",
]  # fmt: skip
SEMANTIC = [
    '//<sdn_reference sdn:scope="486:synthetic"/>',
    "//",
    "//SDN_parameter_mapping",
    "//<subject>SDN:LOCAL:Depth</subject><object>SDN:P01::ADEPZZ01</object><units>SDN:P06::ULAA</units>",
    "//<subject>SDN:LOCAL:Temp</subject><object>SDN:P01::TEMPPR01</object><units>SDN:P06::UPAA</units>",
    "//",
]
ONE = ["C1", "S1", "C", "2010-01-31T12:30:15.250", "-10.5", "45.25", "id1", "486", "4000", "0", "1", "14.50", "1"]
MORE = [*[""] * 9, "10", "1", "14.25", "3"]
TWO = ["C1", "S2", "C", "2010-02-01T00:00", "-11", "46", "id2", "486", "", "5", "1", "", "9"]


def text(*rows, header=HEADER, preamble=SEMANTIC, end="\n", last="\n"):
    lines = [*preamble, "\t".join(header), *(row if isinstance(row, str) else "\t".join(row) for row in rows)]
    return (end.join(lines) + last).encode()


def read(content: bytes, size: int = 1000):
    """(the joined columns, faults as texts, the bytes of a copy)."""
    faults = Faults()
    blocks = list(odv.blocks(content.splitlines(keepends=True), faults, size))
    tables = [odv.observations(block, faults) for block in blocks]
    columns = {n: np.concatenate([t.columns[n] for t in tables]) for n in tables[0].columns}
    return columns, [str(f) for f in faults], b"".join(b.encode() for b in blocks), tables[0]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_what_is_said_of_a_station_on_its_first_row_holds_for_all_its_rows(size):
    columns, faults, copy, table = read(text(ONE, MORE, TWO), size)
    assert faults == []
    assert copy == text(ONE, MORE, TWO)
    assert columns["station"].tolist() == ["S1", "S1", "S2"]
    assert columns["cast"].tolist() == ["486-id1", "486-id1", "486-id2"]
    assert columns["longitude"].tolist() == [-10.5, -10.5, -11.0]
    assert columns["time"][1] == np.datetime64("2010-01-31T12:30:15.250")
    assert columns["depth"].tolist() == [0.0, 10.0, 5.0]
    np.testing.assert_array_equal(columns["temperature"], [14.5, 14.25, np.nan])
    assert columns["temperature_qc"].tolist() == [1, 3, 9]
    assert table.attributes["temperature"]["units"] == "degree_Celsius"
    assert table.attributes["temperature"]["sdn_parameter_urn"] == "SDN:P01::TEMPPR01"


def test_every_fault_is_told_with_its_line_and_column_and_the_rows_around_are_read():
    wrong = list(ONE)
    wrong[3], wrong[4], wrong[11], wrong[12] = "31.01.2010", "400", "14,5", "X"
    columns, faults, copy, _ = read(text(wrong, [*MORE, "surplus"], MORE[:-1], TWO))
    assert copy == text(wrong, [*MORE, "surplus"], MORE[:-1], TWO)
    assert faults == [
        "line 9: has 14 columns instead of the 13 of the header; the row is left out.",
        "line 10: has 12 columns instead of the 13 of the header; the row is left out.",
        "line 8, column 'yyyy-mm-ddThh:mm:ss.sss': '31.01.2010' is no plausible time as in 2010-01-31T12:00.",
        "line 8, column 'Longitude [degrees_east]': 400 lies outside -180 to 360.",
        "line 8, column 'Temp [degC]': '14,5' is no number; it is left out. Numbers are written with a point.",
        "line 8, column 'QV:SEADATANET': 'X' is no flag of L20; it is taken as 0, no quality control.",
    ]
    assert len(columns["time"]) == 2
    assert np.isnan(columns["longitude"][0])


@pytest.mark.parametrize("left_out", [["LOCAL_CDI_ID"], ["EDMO_code"], ["LOCAL_CDI_ID", "EDMO_code", "Bot. Depth [m]"]])
def test_files_without_cdi_identity_are_read(left_out):
    keep = [i for i, label in enumerate(HEADER) if label not in left_out]
    rows = [[row[i] for i in keep] for row in (ONE, MORE, TWO)]
    columns, faults, _, _ = read(text(*rows, header=[HEADER[i] for i in keep]))
    assert faults == []
    assert columns["temperature"][0] == 14.5
    assert len(set(columns["cast"])) == 2


def test_a_file_without_flags_and_without_semantic_header_is_read():
    keep = [i for i, label in enumerate(HEADER) if not label.startswith("QV")]
    rows = [[row[i] for i in keep] for row in (ONE, MORE, TWO)]
    columns, faults, _, _ = read(text(*rows, header=[HEADER[i] for i in keep], preamble=[]))
    assert faults == []
    assert columns["temperature"][:2].tolist() == [14.5, 14.25]
    assert "temperature_qc" not in columns
    assert columns["depth"].tolist() == [0, 10, 5]


def test_flags_of_the_world_ocean_database_are_kept_beside_what_they_mean():
    header = [h.replace("SEADATANET", "WOD") for h in HEADER]
    rows = [[*ONE[:10], "0", "14.5", "0"], [*[""] * 9, "10", "0", "14.25", "6"]]
    columns, faults, _, table = read(text(*rows, header=header))
    assert faults == []
    assert columns["temperature_qc"].tolist() == [1, 3]
    assert columns["temperature_wod_qc"].tolist() == [0, 6]
    back, faults, _, _ = read(odv.spreadsheet(table).encode())
    assert faults == []
    assert back["temperature_wod_qc"].tolist() == [0, 6]


def test_time_of_a_sample_comes_before_the_time_of_the_station():
    header = [*HEADER[:9], "time_ISO8601", "QV:SEADATANET", *HEADER[9:]]
    rows = [[*ONE[:9], "2011-05-06T07:08:09", "1", *ONE[9:]], [*[""] * 9, "2011-05-06T08:08:09", "1", *MORE[9:]]]
    columns, faults, _, _ = read(text(*rows, header=header))
    assert faults == []
    assert columns["time"].tolist() == [np.datetime64(f"2011-05-06T{h}:08:09", "us").item() for h in ("07", "08")]
    assert columns["time_qc"].tolist() == [1, 1]
    assert columns["station_time"][0] == np.datetime64("2010-01-31T12:30:15.250")


def test_a_julian_day_begins_at_midnight():
    mapping = "//<subject>SDN:LOCAL:Day</subject><object>SDN:P01::CJDY1101</object><units>SDN:P06::UTAA</units>"
    header = [*HEADER[:9], "Day [days]", "QV:SEADATANET", *HEADER[9:]]
    rows = [[*ONE[:9], "2451545.0", "1", *ONE[9:]], [*[""] * 9, "9e9", "1", *MORE[9:]]]
    columns, faults, _, _ = read(text(*rows, header=header, preamble=[*SEMANTIC[:-1], mapping, "//"]))
    assert columns["time"][0] == np.datetime64("2000-01-01T00:00")
    assert np.isnat(columns["time"][1])
    assert faults == ["line 10, column 'Day [days]': 9e9 is no plausible Julian day."]


def test_depth_comes_from_pressure_where_there_is_no_depth():
    header = [h.replace("Depth [m]", "Pressure [dbar]") if h == "Depth [m]" else h for h in HEADER]
    preamble = [
        line.replace("Depth", "Pressure").replace("ADEPZZ01", "PRESPR01").replace("ULAA", "UPDB") for line in SEMANTIC
    ]
    rows = [[*ONE[:9], "1000", "1", "4", "1"]]
    columns, faults, _, table = read(text(*rows, header=header, preamble=preamble))
    assert faults == []
    np.testing.assert_allclose(columns["depth"], 989.5, atol=0.2)
    assert "TEOS-10" in table.attributes["depth"]["comment"]
    assert columns["depth_qc"].tolist() == [1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no line that names the columns"),
        (b"//only\n//comments\n", "no line that names the columns"),
        (b"Cruise\tStation\tType\n", "names no column 'Longitude [degrees_east]'"),
        (
            b"\t".join([b"Cruise", b"Station", *[b"x%d" % i for i in range(20_000)]]),
            "names 20002 columns; more than 10000",
        ),
        (b"x" * 5_000_000, "longer than"),
    ],
)
def test_what_is_no_spreadsheet_is_refused_in_a_sentence(content, said):
    with pytest.raises(NotReadable, match=said.replace("[", r"\[").replace("]", r"\]")):
        list(odv.blocks(content.splitlines(keepends=True), Faults()))


def test_letters_that_are_not_utf8_are_told_and_read_and_written_as_they_were():
    content = text([ONE[0], "Sør".encode().decode("latin-1"), *ONE[2:]]).replace("Sør".encode(), b"S\xf8r")
    content = content.replace("SÃ¸r".encode(), b"S\xf8r")
    columns, faults, copy, _ = read(content)
    assert columns["station"].tolist() == ["Sør"]
    assert copy == content
    assert faults == ["line 8: is not UTF-8; its other letters are read as Latin-1 (Windows Western)."]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_a_copy_has_the_same_bytes(end, last):
    content = odv.BOM + text(
        ONE,
        MORE,
        "//<History>between\trows</History>",
        "",
        TWO,
        end=end,
        last=end if last else "",
        preamble=[*SEMANTIC, ""],
    )
    assert read(content)[2] == content


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"), max_size=8)


@given(
    st.lists(st.lists(CELL, min_size=13, max_size=13), max_size=6), st.sampled_from(["\n", "\r\n"]), st.integers(1, 4)
)
def test_whatever_stands_in_the_cells_a_copy_has_the_same_bytes(rows, end, size):
    content = text(*rows, end=end, last=end)
    lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
    faults = Faults()
    blocks = list(odv.blocks(lines, faults, size))
    assert b"".join(b.encode() for b in blocks) == content
    for block in blocks:
        odv.observations(block, faults)  # faults, but no error
