"""The order as a JSON document."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phidias_lab.contract import order as orders
from phidias_lab.contract.order import Order
from phidias_lab.errors import ParameterError, PhidiasError

words = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
names = st.text(st.characters(categories=["L", "N"], include_characters="._"), min_size=1, max_size=20)
references = st.fixed_dictionaries(
    {"entry": names}, optional={"parameters": st.dictionaries(names, plain, min_size=1, max_size=2)}
) | (st.fixed_dictionaries({"file": names}) | st.fixed_dictionaries({"stored": names, "sha256": names}))
some_orders = st.builds(
    Order,
    chain=names,
    version=st.just("1.0"),
    parameters=st.dictionaries(names, plain, max_size=3),
    inputs=st.dictionaries(names, references, max_size=2),
    output=st.fixed_dictionaries({}, optional={"path": names, "format": names, "overwrite": st.booleans()}),
    title=st.none() | names,
)


@given(some_orders)
def test_an_order_comes_back_from_its_text_with_the_same_digest(order):
    back = orders.loads(order.dumps())
    assert back == order
    assert back.digest() == order.digest()
    assert back.dumps() == order.dumps()
    order.dumps().encode("utf-8")


def test_equal_orders_are_equal_text_whatever_the_order_of_their_keys():
    a = Order("c", "1", {"x": 1, "y": 2}, {"a": {"entry": "e"}, "b": {"entry": "f"}})
    b = Order("c", "1", {"y": 2, "x": 1}, {"b": {"entry": "f"}, "a": {"entry": "e"}})
    assert a.dumps() == b.dumps()


def test_the_digest_ignores_title_and_output_and_nothing_else():
    order = Order("c", "1", {"x": 1}, {"a": {"entry": "e"}})
    assert order.with_(title="t", output={"path": "p.nc", "overwrite": True}).digest() == order.digest()
    changed = [
        order.with_(chain="d"),
        order.with_(version="2"),
        order.with_(parameters={"x": 2}),
        order.with_(inputs={"a": {"entry": "f"}}),
    ]
    assert len({o.digest() for o in [order, *changed]}) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("{'chain': 'c'}", "is not JSON"),
        ("[" * 200000, "is not JSON"),
        ('{"chain": ' + "[" * 200000 + "]" * 200000 + "}", "is not JSON"),
        ('{"parameters": {"x": ' + "9" * 5000 + "}}", "is not JSON"),
        ('{"chain": "c", "parameters": {"x": NaN}}', "holds NaN"),
        ('{"chain": "c", "parameters": {"x": -Infinity}}', "holds -Infinity"),
        ('{"chain": "c", "parameters": {"x": 1e999}}', "JSON cannot hold"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('"ocean.gridding"', "must be a JSON object"),
        ("{}", "must name its chain"),
        ('{"chain": 5}', "must name its chain"),
        ('{"chain": ""}', "must name its chain"),
        ('{"chian": "c"}', r"unknown key 'chian'. Did you mean 'chain'"),
        ('{"chain": "c", "version": 1.0}', "version 1.0; a version is a text"),
        ('{"chain": "c", "phidias_order": 2}', "written in form 2; this version reads form 1"),
        ('{"chain": "c", "parameters": [1]}', "'parameters' must be a JSON object"),
        ('{"chain": "c", "inputs": "a"}', "'inputs' must be a JSON object"),
        ('{"chain": "c", "inputs": {"a": 5}}', "input 'a' must be a catalogue entry"),
        ('{"chain": "c", "inputs": {"a": {}}}', "must name one of"),
        ('{"chain": "c", "inputs": {"a": {"entry": "e", "file": "f"}}}', "must name one of"),
        ('{"chain": "c", "inputs": {"a": {"entry": 5}}}', "must name one of"),
        ('{"chain": "c", "inputs": {"a": {"file": ""}}}', "must name one of"),
        ('{"chain": "c", "inputs": {"a": {"file": "f", "entrance": 1}}}', "unknown key 'entrance'"),
        ('{"chain": "c", "inputs": {"a": {"entry": "e", "parameters": 5}}}', "parameters of an entry"),
        ('{"chain": "c", "inputs": {"a": {"stored": "e", "sha256": 5}}}', "sha256 must be a text"),
        ('{"chain": "c", "inputs": {"a": ""}}', "must be named"),
        ('{"chain": "c", "output": {"file": "x"}}', "'output' has the unknown key 'file'"),
        ('{"chain": "c", "output": {"path": 5}}', "path 5; it must be a text"),
        ('{"chain": "c", "output": {"path": ""}}', "it must be a text"),
        ('{"chain": "c", "output": {"overwrite": "no"}}', "it must be true or false"),
        ('{"chain": "c", "output": {"format": ["nc"]}}', "it must be a text"),
        ('{"chain": "c", "title": 5}', "title must be a text"),
        ('{"chain": "c", "title": "' + "x" * 201 + '"}', "at most 200"),
        ('{"chain": "c", "title": "\\ud800"}', "title must be a text"),
    ],
)
def test_every_departure_from_the_form_is_said_in_a_sentence(text, said):
    with pytest.raises(ParameterError, match=said) as caught:
        orders.loads(text, "The file o.json")
    assert str(caught.value).startswith("The file o.json")
    assert len(str(caught.value)) < 500


@given(plain)
def test_any_json_is_an_order_or_refused(document):
    with contextlib.suppress(ParameterError):
        orders.from_document(document)


@pytest.mark.parametrize("key", ["parameters", "inputs", "output", "title", "version", "phidias_order", "chain"])
@given(plain)
def test_any_json_below_a_key_is_taken_or_refused(key, value):
    try:
        order = orders.from_document({"chain": "c", key: value})
    except ParameterError:
        return
    assert orders.loads(order.dumps()) == order


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ocean.observations", {"entry": "ocean.observations"}),
        ("my.nc", {"file": "my.nc"}),
        ("MY.CSV", {"file": "MY.CSV"}),
        ("data/x", {"file": "data/x"}),
        ("./x", {"file": "./x"}),
        ("~/x", {"file": "~/x"}),
        ("s3://bucket/x", {"file": "s3://bucket/x"}),
        (Path("x"), {"file": "x"}),
        ({"entry": "e", "parameters": {}}, {"entry": "e"}),
        ({"entry": "e", "parameters": {"a": 1}}, {"entry": "e", "parameters": {"a": 1}}),
    ],
)
def test_the_short_form_of_an_input_is_a_file_where_it_looks_like_one(value, expected):
    assert orders.reference(value) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        None, 5, ["a"], np.zeros(3), {"entry": "e", "parameters": {"a": np.int64(3)}}, {1: 2}, "a\0b", "\ud800.nc",
        {"entry": "e", "parameters": {"a": float("nan")}}, Path("\udcff.nc"), {"parameters": {(1, 2): 3}},
    ],
    ids=repr,
)  # fmt: skip
def test_what_names_no_input_is_refused(wrong):
    with pytest.raises(ParameterError, match="The input"):
        orders.reference(wrong)


def test_parameters_that_json_cannot_hold_are_refused():
    for wrong in (float("nan"), np.float32(1), {1, 2}, b"x"):
        with pytest.raises(ParameterError, match="JSON cannot hold"):
            orders.from_document({"chain": "c", "parameters": {"x": wrong}})


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"missing.json cannot be read: No such file"):
        orders.load(tmp_path / "missing.json")
    with pytest.raises(ParameterError, match="cannot be read: Is a directory"):
        orders.load(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\x89HDF\r\n\x1a\n\xff")
    with pytest.raises(ParameterError, match=r"binary.json is not JSON text"):
        orders.load(tmp_path / "binary.json")
    with pytest.raises(PhidiasError, match="is not JSON text"):
        orders.load("a\0b.json")


def test_titles_are_written_as_people_read_them():
    text = Order("c", "1", title="Mer Méditerranée 海").dumps()
    assert "Mer Méditerranée 海" in text
    assert json.loads(text)["title"] == "Mer Méditerranée 海"
