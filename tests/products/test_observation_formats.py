"""Observations written in each format and read again: the same table with the same words, and real files to the bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab.errors import ProductError, UnknownNameError
from phidias_lab.methods.formats import argo, flags, odv, vocabulary
from phidias_lab.methods.formats.netcdf import same_columns
from phidias_lab.methods.formats.observations import COMPUTED, Faults, NotReadable, Observations
from phidias_lab.products import netcdf as netcdf_out
from phidias_lab.products import observations as products
from phidias_lab.sources import netcdf as netcdf_in
from phidias_lab.sources import observations as sources

FORMATS = tuple(products.SUFFIXES)


def back(table: Observations, form: str, folder: Path) -> Observations:
    """The table written in a format and read again; reading finds no faults."""
    path = folder / f"table{products.SUFFIXES[form]}"
    products.write(table, path, form)
    assert sources.recognise(path) == form
    faults = Faults()
    found = sources.read(path, faults)
    assert [str(f) for f in faults] == []
    assert [p.name for p in folder.iterdir()] == [path.name]
    path.unlink()
    return found


def assert_same(one: Observations, two: Observations) -> None:
    assert list(one.columns) == list(two.columns)
    for name in one.columns:
        assert same_columns(one.columns[name], two.columns[name]), (name, one.columns[name], two.columns[name])
    assert one.attributes == two.attributes
    assert one.facts == two.facts


# Synthetic tables ------------------------------------------------------------------------------------------------------

WORD = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
NUMBER = st.floats(allow_nan=True, allow_infinity=False, width=32)
MOMENT = st.integers(-200 * 365 * 86_400_000_000, 100 * 365 * 86_400_000_000)


@st.composite
def tables(draw):
    """Casts of a few levels with everything that a column may be: texts, flags, both precisions, whole numbers, times."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    cast = np.repeat(np.arange(len(sizes)), sizes)
    rows = len(cast)

    def each(values, kind, count=rows):
        drawn = draw(st.lists(values, min_size=count, max_size=count))
        return np.array(drawn, dtype=kind)

    def once(values, kind):
        return each(values, kind, len(sizes))[cast]

    table = Observations(facts={"format": "synthetic", "title": draw(WORD)})
    names = draw(st.lists(WORD, min_size=len(sizes), max_size=len(sizes), unique=True))
    table.add("cast", np.array(names, dtype=object)[cast], {"long_name": "synthetic cast"})
    table.add("platform", once(WORD, object), {"long_name": draw(WORD)})
    table.add("note", each(WORD, object), {"long_name": "one for each row"})
    table.add("longitude", once(st.floats(-180, 180), float), dict(vocabulary.PLACES["longitude"]))
    table.add("latitude", once(st.floats(-90, 90), float), dict(vocabulary.PLACES["latitude"]))
    moments = each(MOMENT, np.int64, len(sizes))[cast].view("datetime64[us]")
    table.add("time", moments, dict(vocabulary.PLACES["time"]))
    # Pressure or depth; real depths only, as the pressure of a depth is computed.
    if draw(st.booleans()):
        table.add(
            "pressure", each(st.floats(0, 6000, width=32), np.float32), {"units": "dbar", "long_name": draw(WORD)}
        )
    else:
        table.add("depth", each(st.floats(0, 6000), float), dict(vocabulary.PLACES["depth"]))
    table.add("temperature", each(NUMBER, np.float32), vocabulary.BY_NAME["temperature"].attributes())
    table.add("temperature_qc", each(st.sampled_from(list(flags.L20)), np.int8), flags.attributes("temperature"))
    table.add("own", each(st.floats(allow_infinity=False), float), {"units": draw(WORD), "comment": draw(WORD)})
    table.add("count", each(st.integers(-(2**63), 2**63 - 1), np.int64), {"long_name": "whole number"})
    table.add("cycle", each(st.integers(-(2**31), 2**31 - 1), np.int32), {})
    table.add("seen", each(st.booleans(), bool), {})
    table.add("deployed", each(MOMENT, np.int64).view("datetime64[us]"), {"long_name": "another time"})
    table.columns["deployed"][0] = np.datetime64("NaT")
    return table.with_depth()


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=25, deadline=None)
@given(table=tables())
def test_a_table_comes_back_from_every_format_with_all_its_words(form, table):
    with tempfile.TemporaryDirectory() as folder:
        assert_same(table, back(table, form, Path(folder)))


@pytest.mark.parametrize("form", FORMATS)
def test_what_cannot_be_written_leaves_nothing_behind(form, tmp_path):
    table = Observations({"longitude": np.array([1.0])}, {"longitude": {}})
    target = tmp_path / "nowhere" / f"x{products.SUFFIXES[form]}"
    with pytest.raises(ProductError, match=r"cannot be written|is not written"):
        products.write(table, target, form)
    assert list(tmp_path.iterdir()) == []


def test_a_series_is_no_argo_profile(tmp_path):
    times = np.array(["2010-01-01", "2010-01-02"], "datetime64[us]")
    columns = {"longitude": np.ones(2), "latitude": np.ones(2), "depth": np.ones(2), "time": times}
    table = Observations(columns, {name: {} for name in columns})
    with pytest.raises(ProductError, match="'time' changes within a cast"):
        products.write(table, tmp_path / "x.nc", "argo")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_the_file_says_the_format_where_it_can():
    assert products.format_of("a.csv") == "csv"
    assert products.format_of("a.txt") == "odv"
    with pytest.raises(UnknownNameError, match="Name one of odv, seadatanet, argo"):
        products.format_of("a.nc")
    with pytest.raises(UnknownNameError, match="Did you mean 'argo'"):
        products.format_of("a.nc", "agro")


# Real files ------------------------------------------------------------------------------------------------------------


def real(sample_data) -> list[Path]:
    root = sample_data("ocean")
    return [p for p in sorted([*(root / "argo" / "dac").rglob("*"), *(root / "seadatanet").rglob("*")]) if p.is_file()]


def test_every_real_netcdf_file_is_copied_to_the_bit(sample_data, tmp_path):
    files = [p for p in real(sample_data) if p.suffix == ".nc"]
    assert len(files) == 30
    for path in files:
        file = netcdf_in.read(path)
        netcdf_out.write(file, tmp_path / "copy.nc")
        assert netcdf_in.read(tmp_path / "copy.nc").differs(file) is None, path.name


def test_every_real_spreadsheet_is_copied_byte_by_byte(sample_data):
    files = [p for p in real(sample_data) if p.suffix == ".txt"]
    assert len(files) == 6
    for path in files:
        for size in (3, odv.BLOCK):
            faults = Faults()
            with open(path, "rb") as lines:
                copy = b"".join(block.encode() for block in odv.blocks(lines, faults, size))
            assert copy == path.read_bytes(), path.name
            assert len(faults) == 0


def test_every_real_file_comes_back_from_every_format_that_can_hold_it(sample_data, tmp_path):
    done = 0
    for path in real(sample_data):
        if path.stat().st_size > 1_500_000 or (path.name.startswith("D6901929_0") and not path.name.endswith("1D.nc")):
            continue  # the others of the same kind take long
        try:
            table = sources.read(path, Faults())
        except NotReadable:
            continue
        for form in FORMATS:
            if form == "argo" and not (
                argo.Rectangle(table).constant(table.columns["time"])
                and argo.Rectangle(table).constant(table.columns["longitude"])
            ):
                continue
            assert_same(table, back(table, form, tmp_path))
            done += 1
    assert done > 50


def test_depth_that_was_computed_says_so_and_is_computed_again(sample_data, tmp_path):
    path = sample_data("ocean") / "argo" / "dac" / "bodc" / "6901929" / "profiles" / "D6901929_001D.nc"
    table = sources.read(path, Faults())
    assert table.attributes["depth"]["comment"] == COMPUTED
    assert_same(table, back(table, "odv", tmp_path))
