"""Checksums say whether values are the same, whatever holds them."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phidias_lab import products
from phidias_lab.errors import ProductError
from phidias_lab.products import checksum

ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["f8", "f4", "i8", "i2", "u1", "?"]),
    shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
)


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.integers(1, 200), st.booleans())
def test_slabs_byte_order_and_memory_order_do_not_change_a_checksum(values, limit, swap):
    whole = checksum.of_array("a", values)
    pieces = checksum._Sum("a", checksum.type_name(values.dtype))
    stored = np.asfortranarray(values)
    stored = stored.astype(stored.dtype.newbyteorder()) if swap else stored
    for index in checksum.slabs(values.shape, values.itemsize, limit):
        pieces.update(checksum.canonical(stored[index]))
    assert pieces.digest(values.shape) == whole


@settings(max_examples=60, deadline=None)
@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), st.integers(1, 100))
def test_slabs_cover_an_array_once_in_c_order(shape, limit):
    numbers = np.arange(np.prod(shape)).reshape(shape)
    parts = [np.asarray(numbers[i]).ravel() for i in checksum.slabs(shape, 1, limit)]
    assert np.concatenate(parts).tolist() == list(range(numbers.size))
    assert all(p.size <= limit for p in parts)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_netcdf_and_zarr_of_the_same_values_have_equal_checksums_for_any_chunks(data, words, tmp_path_factory):
    values = data.draw(hnp.arrays(dtype=st.sampled_from(["f8", "f4", "i4"]), shape=(3, 4, 5)))
    chunks = {d: data.draw(st.integers(1, n)) for d, n in zip("tyx", values.shape, strict=True)}
    cube = xr.Dataset({"a": (("t", "y", "x"), values)}, coords={"t": pd.date_range("2000-01-01", periods=3, freq="ME")})
    folder = tmp_path_factory.mktemp("p")
    first = products.write(cube, folder / "nc", **words)
    second = products.write(cube.chunk(chunks), folder / "zarr", format="zarr", **words)
    assert first.checksums == second.checksums
    assert set(first.checksums) == {"a", "t"}


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(dtype=st.sampled_from(["f8", "f4", "i8"]), shape=(2, 3)), st.data())
def test_changing_one_value_changes_the_checksum(values, data):
    index = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 2)))
    changed = values.copy()
    changed[index] = data.draw(hnp.from_dtype(values.dtype))
    same = np.array_equal(values[index], changed[index], equal_nan=values.dtype.kind == "f")
    signs = np.signbit(values[index]) == np.signbit(changed[index]) or np.isnan(values[index])
    assert (checksum.of_array("a", values) == checksum.of_array("a", changed)) == (same and signs)


def test_name_type_and_shape_belong_to_the_checksum():
    ones = np.ones((2, 3))
    sums = [
        checksum.of_array("a", ones),
        checksum.of_array("b", ones),
        checksum.of_array("a", ones.reshape(3, 2)),
        checksum.of_array("a", ones.view("i8")),
    ]
    assert len(set(sums)) == 4


def test_every_nan_is_the_same_nan():
    nans = np.array([np.nan, np.nan])
    nans.view("u8")[1] |= 1
    nans.view("u8")[0] |= 1 << 63
    assert nans.tobytes() != np.array([np.nan, np.nan]).tobytes()
    assert checksum.of_array("a", nans) == checksum.of_array("a", np.array([np.nan, np.nan]))


def test_the_resolution_of_times_does_not_matter_but_the_times_do():
    days = np.array(["1850-03-01", "NaT", "2010-01-01"], dtype="datetime64[D]")
    sums = {checksum.of_array("t", days.astype(f"datetime64[{u}]")) for u in ("D", "s", "ms", "us", "ns")}
    assert len(sums) == 1
    later = days.astype("datetime64[ns]") + np.timedelta64(1, "ns")
    assert checksum.of_array("t", later) not in sums


def test_text_is_told_from_its_neighbour_and_from_nothing():
    rows = [["ab", "c"], ["a", "bc"], ["abc", ""], ["abc", None], ["abc", np.nan], ["ab\0", "c"]]
    sums = [checksum.of_array("a", np.array(r, dtype=object)) for r in rows]
    assert sums[3] == sums[4]
    for a, b in itertools.combinations(sums[:4] + sums[5:], 2):
        assert a != b


def test_columns_are_summed_the_same_for_any_pieces(table):
    whole = checksum.of_pieces([table])
    assert checksum.of_pieces([table[:1], table[1:]]) == whole
    assert set(whole) == set(table.columns)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pd.Categorical(["a", "b"]), pd.Series(["a", "b"], dtype="str")),
        (
            pd.Series(["2010-01-01T02:00+02:00"], dtype="datetime64[ns, UTC+02:00]"),
            pd.DatetimeIndex(["2010-01-01"], tz="UTC"),
        ),
    ],
)
def test_two_spellings_of_the_same_values_have_one_checksum(one, other):
    assert checksum.of_pieces([pd.DataFrame({"a": one})]) == checksum.of_pieces([pd.DataFrame({"a": other})])


def test_a_missing_count_is_not_a_zero():
    some, zero = (pd.DataFrame({"n": pd.array([1, last], dtype="Int64")}) for last in (None, 0))
    assert checksum.of_pieces([some]) != checksum.of_pieces([zero])


def test_geometries_are_summed_by_their_shape():
    sums = {
        checksum.of_array("g", np.array([g], dtype=object))
        for g in (shapely.Point(1, 2), shapely.Point(1, 2, 3), shapely.box(0, 0, 1, 1), None)
    }
    assert len(sums) == 4


def test_a_value_without_a_checksum_is_refused():
    with pytest.raises(ProductError, match="type object has no checksum"):
        checksum.of_array("a", np.array([object()], dtype=object))


def test_a_checksum_is_the_same_in_another_process():
    code = (
        "import numpy as np; from phidias_lab.products import checksum; print(checksum.of_array('a', np.arange(6.0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == checksum.of_array("a", np.arange(6.0))
    # Changing this number makes every product that exists fail its verification.
    assert done.stdout.strip() == "a7db28402f43f5288af9828af799df2625c9a8e884b52273e85626ec96c30e03"


def test_the_multihash_of_a_file_names_its_function_and_length(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert checksum.multihash(tmp_path / "f") == "1220" + empty
