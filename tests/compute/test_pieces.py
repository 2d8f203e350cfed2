"""A cube that is computed piece by piece is the cube that is computed at once."""

from __future__ import annotations

import itertools
import threading

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phidias_lab.compute import pieces
from phidias_lab.methods import progress


def quiet(fraction, message):
    pass


def finish(result, work, threads=2):
    return pieces.finish(result, work, quiet, threads)


@st.composite
def chunked(draw, size):
    left, parts = size, []
    while left:
        parts.append(draw(st.integers(1, left)))
        left -= parts[-1]
    return tuple(parts) or (0,)


@st.composite
def cubes(draw):
    """Variables of different dimensions, types and chunks over shared dimensions; some are not lazy."""
    sizes = {d: draw(st.integers(0 if d == "z" else 1, 5)) for d in "tzyx"}
    dataset = xr.Dataset(coords={"t": np.arange(sizes["t"]), "y": ("y", np.linspace(0, 1, sizes["y"]), {"units": "m"})})
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    for i in range(draw(st.integers(1, 4))):
        dims = tuple(draw(st.permutations("tzyx")))[: draw(st.integers(0, 4))]
        values = generator.normal(size=[sizes[d] for d in dims])
        kind = draw(st.sampled_from(["f8", "f4", "i2", "M8[ns]", "U3", "?", "c16"]))
        values = (values * 100).astype("i8").astype(kind) if kind == "M8[ns]" else values.astype(kind)
        if draw(st.booleans()):
            values = da.from_array(values, chunks=tuple(draw(chunked(sizes[d])) for d in dims))
        dataset[draw(st.sampled_from(["file", "allow_pickle", "args", "a b", "v0", "ä"])) + str(i) * (i > 0)] = (
            dims,
            values,
            {"i": i},
        )
    return dataset


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cube=cubes())
def test_pieces_equal_the_whole_for_any_chunks(cube, tmp_path_factory):
    finished, known = finish(cube, tmp_path_factory.mktemp("work"))
    assert known == 0
    xr.testing.assert_identical(finished.compute(), cube.compute())
    for name in cube.variables:
        assert finished[name].dtype == cube[name].dtype
        assert (finished[name].chunks is None) == (cube[name].chunks is None)


def counted(chunks=(1, 2), marks=None):
    """A 4 x 6 field whose blocks note that they were computed."""
    marks = [] if marks is None else marks

    def block(values, block_info=None):
        marks.append(block_info[0]["chunk-location"])
        return values * 2

    source = da.from_array(np.arange(24.0).reshape(4, 6), chunks=chunks)
    return xr.Dataset({"field": (("t", "x"), source.map_blocks(block, dtype=float, meta=np.empty((0, 0))))}), marks


def test_finished_pieces_are_not_computed_again(tmp_path):
    first, marks = counted()
    finish(first, tmp_path)
    assert len(marks) == 12
    second, marks = counted()
    result, known = finish(second, tmp_path)
    assert (known, marks) == (12, [])
    np.testing.assert_array_equal(result["field"], np.arange(24.0).reshape(4, 6) * 2)


def test_what_pieces_share_is_computed_once(tmp_path):
    marks = []

    def shared():
        marks.append(threading.get_ident())
        return np.arange(6.0)

    common = da.from_delayed(dask.delayed(shared)(), (6,), float)
    field = xr.Dataset({"field": (("t", "x"), da.stack([common + i for i in range(4)]))})
    field["mean"] = field["field"].mean("x")
    result, _ = finish(field, tmp_path)
    assert len(marks) == 1
    np.testing.assert_array_equal(result["field"][3], np.arange(6.0) + 3)


@pytest.mark.parametrize("harm", ["cut", "empty", "zeros", "text", "gone"])
def test_a_damaged_piece_is_computed_again(tmp_path, harm):
    finish(counted()[0], tmp_path)
    piece = tmp_path / "piece-00002-00001.npz"
    good = piece.read_bytes()
    bad = {"cut": good[:-30], "empty": b"", "zeros": bytes(len(good)), "text": b"hello", "gone": None}[harm]
    if bad is None:
        piece.unlink()
    else:
        piece.write_bytes(bad)
    again, marks = counted()
    result, known = finish(again, tmp_path)
    assert (known, marks) == (11, [(2, 1)])
    np.testing.assert_array_equal(result["field"], np.arange(24.0).reshape(4, 6) * 2)


def test_whichever_byte_of_a_piece_is_wrong_the_values_are_right(tmp_path):
    field, _ = counted(chunks=(4, 6))
    finish(field, tmp_path)
    (piece,) = tmp_path.glob("piece-*.npz")
    good = piece.read_bytes()
    for place, flip in itertools.product(range(0, len(good), 5), (0x01, 0xFF)):
        bad = bytearray(good)
        bad[place] ^= flip
        piece.write_bytes(bad)
        result, _ = finish(field, tmp_path)
        np.testing.assert_array_equal(result["field"], np.arange(24.0).reshape(4, 6) * 2)


def test_pieces_between_other_borders_are_not_mixed_in(tmp_path):
    finish(counted(chunks=(1, 2))[0], tmp_path)
    other, marks = counted(chunks=(2, 2))
    result, known = finish(other, tmp_path)
    assert (known, len(marks)) == (0, 6)
    np.testing.assert_array_equal(result["field"], np.arange(24.0).reshape(4, 6) * 2)


def test_pieces_of_other_variables_are_not_mixed_in(tmp_path):
    finish(counted()[0], tmp_path)
    result, known = finish(counted()[0].rename(field="other"), tmp_path)
    assert known == 0
    assert list(result) == ["other"]


def test_coordinates_attributes_and_encoding_are_kept_and_lazy_coordinates_stay_coordinates(tmp_path):
    field, _ = counted()
    field = field.assign_coords(
        t=np.arange(4),
        x=("x", np.arange(6.0), {"units": "m"}),
        depth=(("t", "x"), da.ones((4, 6), chunks=2)),
        scalar=5.0,
    )
    field["field"].attrs, field["field"].encoding = {"units": "K"}, {"dtype": "float32"}
    field.attrs = {"title": "synthetic"}
    result, _ = finish(field, tmp_path)
    xr.testing.assert_identical(result.compute(), field.compute())
    assert set(result.coords) == {"t", "x", "depth", "scalar"}
    assert result["field"].encoding == {"dtype": "float32"}


def test_texts_of_any_length_pass(tmp_path):
    words = np.array(["a", "long word", ""], dtype=object)
    field = xr.Dataset({"word": (("x",), da.from_array(words, chunks=1)), "n": (("x",), da.arange(3, chunks=1))})
    result, _ = finish(field, tmp_path)
    assert list(result["word"].values) == ["a", "long word", ""]


def test_a_cube_that_is_not_lazy_makes_no_pieces(tmp_path):
    field = xr.Dataset({"field": ("x", np.arange(3))})
    result, known = finish(field, tmp_path / "work")
    assert known == 0
    assert result is field
    assert not (tmp_path / "work").exists()


def test_a_cube_without_cells_and_one_without_dimensions_pass(tmp_path):
    nothing = xr.Dataset({"field": (("t", "x"), da.zeros((0, 3), chunks=(1, 1)))})
    assert finish(nothing, tmp_path / "a")[0].compute().sizes == {"t": 0, "x": 3}
    point = xr.Dataset({"mean": ((), da.from_array(np.array(5.0)))})
    assert float(finish(point, tmp_path / "b")[0]["mean"]) == 5.0


def test_progress_grows_with_each_piece_and_ends_at_one(tmp_path):
    told = []
    pieces.finish(counted()[0], tmp_path, lambda fraction, message: told.append((fraction, message)), 2)
    assert [f for f, _ in told] == [i / 12 for i in range(13)]
    assert told[-1] == (1.0, "piece 12 of 12")


def test_a_long_piece_tells_how_far_it_is(tmp_path):
    seen = []

    def long():
        tell = progress.begin()
        for share in (0.25, 0.5, 1.0):
            tell(share)
        return np.ones(1)

    blocks = [da.from_delayed(dask.delayed(long, pure=False)(), (1,), float) for _ in range(2)]
    pieces.finish(xr.Dataset({"a": ("x", da.concatenate(blocks))}), tmp_path, lambda f, m: seen.append((f, m)), 1)
    assert [f for f, _ in seen] == [0.0, 0.125, 0.25, 0.5, 0.5, 0.625, 0.75, 1.0, 1.0]
    assert seen[1][1] == "piece 0 of 2"
    long()  # nobody listens any more
    assert len(seen) == 9


def test_an_error_in_a_piece_comes_out_and_the_other_pieces_stay_whole(tmp_path):
    def block(values, block_info=None):
        if block_info[0]["chunk-location"] == (2, 1):
            raise ZeroDivisionError("in the third row")
        return values

    source = da.ones((4, 6), chunks=(1, 2)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(ZeroDivisionError, match="third row"):
        finish(xr.Dataset({"field": (("t", "x"), source)}), tmp_path, threads=1)
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert not (tmp_path / "piece-00002-00001.npz").exists()


def test_a_piece_that_finds_the_disk_full_leaves_nothing_half(tmp_path):
    import resource
    import signal

    field = xr.Dataset({"field": (("t",), da.random.default_rng(1).normal(size=400_000, chunks=200_000))})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        with pytest.raises(OSError, match="File too large"):
            finish(field, tmp_path, threads=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [p.name for p in tmp_path.iterdir()] == ["pieces.json"]
    assert finish(field, tmp_path)[1] == 0
