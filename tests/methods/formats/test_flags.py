"""The schemes of quality flags, one table of them."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.formats import flags

# What the schemes say of themselves, typed from their documents, not from the code.
SAME = [
    ("Argo", "1", 1), ("Argo", "3", 3), ("Argo", "4", 4), ("Argo", "8", 8), ("Argo", "9", 9),
    ("QARTOD", "1", 1), ("QARTOD", "2", 0), ("QARTOD", "3", 3), ("QARTOD", "4", 4), ("QARTOD", "9", 9),
    ("CMEMS", "0", 0), ("CMEMS", "5", 5), ("CMEMS", "7", ord("B")), ("CMEMS", "8", 8),
    ("WOD", "0", 1), ("WOD", "1", 3), ("WOD", "8", 3),
    ("ODV", "0", 1), ("ODV", "1", 0), ("ODV", "4", 3), ("ODV", "8", 4),
    ("L20", "6", 6), ("L20", "A", ord("A")), ("L20", "Q", ord("Q")),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "flag", "l20"), SAME)
def test_a_flag_means_in_l20_what_its_scheme_says(scheme, flag, l20):
    found, unknown = flags.decode([flag], scheme)
    assert (found.tolist(), unknown.tolist()) == ([l20], [False])
    assert found.dtype == np.int8


@pytest.mark.parametrize("name", flags.SCHEMES)
def test_a_scheme_that_is_lossless_comes_back_from_l20(name):
    scheme = flags.SCHEMES[name]
    texts = list(scheme.to_l20)
    back = flags.encode(flags.decode(texts, name)[0], name)
    assert (list(back) == texts) is scheme.lossless
    assert scheme.lossless is (name != "WOD")


def test_an_unknown_flag_is_told_and_counts_as_no_quality_control():
    found, unknown = flags.decode(["1", "x", "7"], "Argo")
    assert found.tolist() == [1, 0, 0]
    assert unknown.tolist() == [False, True, True]


def test_every_flag_of_every_scheme_has_a_meaning_in_l20():
    for scheme in flags.SCHEMES.values():
        assert set(scheme.to_l20.values()) <= set(flags.L20)


@pytest.mark.parametrize("forms", [[np.int8], [float], [str], [object], [float, object]])
def test_values_are_refused_by_delivered_and_added_flags_in_any_form(forms):
    delivered = np.array([0, 1, 2, 3, 4, 9, 1, 1, 1, 1])
    added = np.array([1, 1, 1, 1, 1, 1, 2, 3, 0, 9])
    for form in forms:
        delivered, added = delivered.astype(form), added.astype(form)
    columns = {"longitude": np.zeros(10), "t_qc": delivered, "t_added_qc": added}
    assert np.flatnonzero(~flags.refused(columns, "t", "good")).tolist() == [1, 8]
    assert np.flatnonzero(~flags.refused(columns, "t", "probably_good")).tolist() == [1, 2, 6, 8]
    assert not flags.refused(columns, "t", "all").any()
    # Without a flag nobody found fault.
    assert not flags.refused({"longitude": np.zeros(3)}, "t", "good").any()


def test_flags_of_place_are_refused_only_where_they_say_bad():
    place = np.array([0, 1, 2, 3, 4, 5, 8, 9, ord("A")], np.int8)
    for name in ("position_qc", "time_qc", "depth_qc"):
        columns = {"longitude": np.zeros(9), name: place}
        assert place[flags.refused_place(columns, "probably_good")].tolist() == [3, 4, 9]
        assert place[flags.refused_place(columns, "good")].tolist() == [2, 3, 4, 9]
        assert not flags.refused_place(columns, "all").any()
