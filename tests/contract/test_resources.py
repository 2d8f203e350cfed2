"""What a run needs, in units that a batch system reads one way only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phidias_lab.contract.resources import Resources, parse_memory, parse_walltime, show_memory
from phidias_lab.errors import ParameterError


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("0.5 MiB", 2**19), (" 512 KiB ", 2**19), ("1B", 1), (77, 77), ("1TiB", 2**40)],
)
def test_memory_is_read_in_binary_units(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("wrong", ["8GB", "8G", "8", "-1GiB", "GiB", "", True, "1e3GiB", None, 2.5])
def test_an_amount_that_could_be_read_two_ways_is_refused(wrong):
    with pytest.raises(ParameterError, match="not an amount of memory"):
        parse_memory(wrong)


@given(st.integers(0, 2**50))
def test_a_shown_amount_is_near_what_it_shows(size):
    shown = show_memory(size)
    assert abs(parse_memory(shown) - size) <= 0.051 * max(size, 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:30:00", 1800), ("1-00:00:01", 86401), ("100:00:00", 360000), (90, 90), ("2-23:59:59", 259199)],
)
def test_wall_time_is_read_in_the_forms_of_slurm(text, seconds):
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize("wrong", ["30:00", "00:60:00", "00:00:60", "1h", "", True, "-1:00:00", None])
def test_a_wall_time_in_another_form_is_refused(wrong):
    with pytest.raises(ParameterError, match="not a wall time"):
        parse_walltime(wrong)


@pytest.mark.parametrize("wrong", [{"cores": 0}, {"gpus": -1}, {"memory": "8GB"}, {"walltime": "soon"}])
def test_a_need_that_cannot_be_met_is_refused_where_it_is_declared(wrong):
    with pytest.raises(ParameterError):
        Resources(**wrong)


def test_a_need_grows_with_the_input_and_never_falls_below_the_declared_one():
    def grows(sizes, parameters):
        return {"memory": sizes["rows"]["bytes"] * 3.5, "walltime": 1, "cores": parameters["cores"]}

    small = Resources(cores=2, memory="1GiB", walltime="00:10:00", grows=grows)
    assert small.grown({"rows": {"bytes": 10}}, {"cores": 1}).describe() == {**small.describe()}
    grown = small.grown({"rows": {"bytes": 2**30 + 1}}, {"cores": 4})
    assert (grown.cores, grown.memory_bytes, grown.walltime_seconds) == (4, 3758096388, 600)
    assert Resources().grown({}, {}) == Resources()
