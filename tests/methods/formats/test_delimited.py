"""Observations as CSV."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.formats import delimited
from phidias_lab.methods.formats.observations import Faults, NotReadable

GOOD = "longitude,latitude,time,depth,temperature,temperature_qc,note\n-10,45,2010-01-31T12:00,5,14.5,1,calm\n"


def read(text, size=1000, **words):
    faults = Faults()
    content = text if isinstance(text, bytes) else text.encode()
    tables = list(delimited.blocks(content.splitlines(keepends=True), faults, size=size, **words))
    return {n: np.concatenate([t.columns[n] for t in tables]) for n in tables[0].columns}, [str(f) for f in faults]


def test_a_plain_file_is_read():
    columns, faults = read(GOOD)
    assert faults == []
    assert columns["temperature"].tolist() == [14.5]
    assert columns["temperature_qc"].dtype == np.int8
    assert columns["note"].tolist() == ["calm"]
    assert columns["time"][0] == np.datetime64("2010-01-31T12:00")


@pytest.mark.parametrize("by", [";", "\t"])
def test_names_may_be_mapped_and_separated_otherwise(by):
    text = "lon,lat,when,TEMP,FLAG\n1,2,2010-01-31,3,4\n".replace(",", by)
    names = {"lon": "longitude", "lat": "latitude", "when": "time", "TEMP": "temperature", "FLAG": "temperature_qc"}
    columns, faults = read(text, names=names, scheme="QARTOD")
    assert (columns["temperature"].tolist(), columns["temperature_qc"].tolist(), faults) == ([3.0], [4], [])


@pytest.mark.parametrize("size", [1, 1000])
def test_every_fault_is_told_with_its_line_and_column(size):
    text = GOOD + '500,45,2010-01-31,5,14.5,1,"two\nlines"\n-10,45,yesterday,5,"14,5",7x,\n-10,45,2010-01-31,5,14.5,1\n'
    columns, faults = read(text, size)
    assert sorted(faults) == sorted(
        [
            "line 4, column 'longitude': '500' is not possible there; it is left out.",
            "line 5, column 'time': 'yesterday' is no plausible time as in 2010-01-31T12:00.",
            "line 5, column 'temperature': '14,5' is no number; it is left out. Numbers are written with a point.",
            "line 5, column 'temperature_qc': '7x' is no flag of L20; it is taken as 0.",
            "line 6: has 6 columns instead of 7; the row is left out.",
        ]
    )
    assert len(columns["time"]) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("a,b,c\n1,2,3\n", "names no column 'longitude'"),
        ("longitude,latitude,time,x,x\n", "names the column 'x' twice"),
        (",".join(f"c{i}" for i in range(20_000)), "names 20000 columns"),
        ("longitude,latitude,time\n" + '"' + "x" * 200_000 + '"\n', "is no CSV"),
    ],
)
def test_what_is_no_table_is_refused_in_a_sentence(text, said):
    with pytest.raises(NotReadable, match=said):
        read(text)
