"""What a user may give for a parameter, and what it becomes."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from phidias_lab.contract import Chain, Input
from phidias_lab.contract import parameters as P
from phidias_lab.errors import ParameterError


class Every(Chain):
    """One parameter of each kind."""

    inputs = {"field": Input("cube")}

    length = P.number(1e5, bounds=(1e3, 2e6), units="m", doc="A length", scale="log")
    shift = P.number(0.0, doc="A number without bounds")
    members = P.count(10, bounds=(1, 1000), doc="A count")
    solver = P.choice("auto", ["auto", "direct", "iterative"], doc="A choice")
    order = P.choice(1, [1, 2, 3], doc="A choice of numbers")
    both = P.flag(True, doc="A flag")
    remark = P.text("", max_length=20, doc="A text")
    code = P.text("ab", pattern="[a-z]{2}", doc="A text with a pattern")
    depths = P.numbers([0.0, 10.0], bounds=(0, 6000), units="m", increasing=True, doc="Depths")
    weights = P.numbers(None, doc="Weights")
    period = P.period(None, doc="A period")
    region = P.region(None, doc="A region")
    measured = P.variable("temperature", of="field", doc="A variable")
    mask = P.file(None, suffixes=[".nc", ".shp"], doc="A file")


ALL = Every.declared()

finite = st.floats(allow_nan=False, allow_infinity=False)
days = st.dates(date(1, 1, 1), date(9999, 12, 31))


@st.composite
def boxes(draw):
    west = draw(st.floats(-180, 359.5))
    east = draw(st.floats(west, 360).filter(lambda e: e > west))
    south, north = sorted(draw(st.tuples(st.floats(-90, 90), st.floats(-90, 90)).filter(lambda t: t[0] != t[1])))
    return [west, south, east, north]


@st.composite
def polygons(draw):
    west, south, east, north = draw(boxes().filter(lambda b: b[2] - b[0] > 1e-3 and b[3] - b[1] > 1e-3))
    return shapely.geometry.mapping(shapely.box(west, south, east, north))


GOOD = {
    "length": st.floats(1e3, 2e6) | st.integers(1000, 2_000_000),
    "shift": finite,
    "members": st.integers(1, 1000) | st.integers(1, 1000).map(float) | st.integers(1, 1000).map(np.int32),
    "solver": st.sampled_from(["auto", "direct", "iterative"]),
    "order": st.sampled_from([1, 2, 3, np.int64(2)]),
    "both": st.booleans() | st.booleans().map(np.bool_),
    "remark": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
    "code": st.from_regex("[a-z]{2}", fullmatch=True),
    "depths": st.lists(st.floats(0, 6000), min_size=1, unique=True).map(sorted),
    "weights": st.none() | st.lists(finite, min_size=1) | st.lists(finite, min_size=1).map(np.array),
    "period": st.none()
    | st.tuples(days, days).map(sorted)
    | st.tuples(days, days).map(lambda d: [*map(str, sorted(d))]),
    "region": st.none() | boxes() | boxes().map(tuple) | polygons(),
    "measured": st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=30),
    "mask": st.none() | st.just(Path("data/mask.NC")) | st.just("s3://bucket/coast.shp"),
}


def typed(value) -> str:
    """A canonical value as somebody would type it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return ("/" if isinstance(value[0], str) else ",").join(map(str, value))
    return str(value)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_a_canonical_value_is_its_own_canonical_value_and_survives_json_and_typing(name, data):
    parameter = ALL[name]
    value = parameter.canonical(data.draw(GOOD[name]))
    assert parameter.canonical(value) == value
    through = json.loads(json.dumps(value, allow_nan=False))
    assert through == value
    assert type(through) is type(value)
    assert parameter.canonical(through) == value
    assert parameter.parse(typed(value)) == value


def test_the_strategies_cover_every_parameter():
    assert set(GOOD) == set(ALL)
    assert {p.kind for p in ALL.values()} == {
        "number", "count", "choice", "flag", "text", "numbers", "period", "region", "variable", "file",
    }  # fmt: skip


def answer(take, value):
    """What a value becomes, or the sentence that refuses it; any other error is no answer."""
    try:
        return take(value), None
    except ParameterError as error:
        return None, str(error)


ANYTHING = [
    object(), {"a": 1}, {(1, 2): 3}, {1, 2, 3, 4}, [[]], [None], b"bytes", 1 + 2j, math.nan, -math.inf, 10**400, 10**5000,
    [10**400], [10**400] * 4, np.array([1.0, 2.0]), np.array([[1.0]]), np.complex128(1 + 2j),
    np.datetime64("NaT"), np.timedelta64(5, "s"), pd.NaT, [pd.NaT, pd.NaT], [math.nan] * 4, "\ud800", "\0", "nonsense \x07",
    [True, True], [True] * 4, ["1", "2"], ["1", "2", "3", "4"], {"type": "Feature", "geometry": [1]},
    {"type": "Polygon", "coordinates": "none"}, {"type": "Polygon"}, xr.Dataset(), pd.DataFrame(), range(0),
]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", ANYTHING, ids=lambda v: type(v).__name__)
def test_whatever_is_given_is_taken_as_json_or_refused_by_name_in_a_short_sentence(name, value):
    taken, said = answer(ALL[name].canonical, value)
    if said is not None:
        assert repr(name) in said
        assert len(said) < 400
    else:
        json.dumps(taken, allow_nan=False).encode()
        json.dumps(taken, allow_nan=False, ensure_ascii=False).encode()


@given(st.text())
@pytest.mark.parametrize("name", ALL)
def test_whatever_is_typed_is_taken_or_refused_by_name(name, text):
    _, said = answer(ALL[name].parse, text)
    assert said is None or repr(name) in said


@pytest.mark.parametrize("text", ["{" * 100000, '{"type": ' + "[" * 100000, '{"a": ' + "1" * 5000 + "}", "1" * 5000])
@pytest.mark.parametrize("name", ["region", "members", "depths", "period"])
def test_endless_text_is_refused_by_name(name, text):
    with pytest.raises(ParameterError, match=name):
        ALL[name].parse(text)


@pytest.mark.parametrize("yes", [True, np.True_, np.array(True), xr.DataArray(True)])
@pytest.mark.parametrize("name", ["length", "shift", "members", "order"])
def test_a_truth_value_is_no_number(name, yes):
    with pytest.raises(ParameterError, match=name):
        ALL[name].canonical(yes)


@pytest.mark.parametrize("name", ["weights", "depths", "region"])
def test_neither_truth_values_nor_texts_are_numbers_in_a_list(name):
    for wrong in ([True, True, False, True], ["0", "1", "2", "3"], {0, 1, 2, 3}, [np.True_] * 4):
        with pytest.raises(ParameterError, match=name):
            ALL[name].canonical(wrong)


def test_scalars_of_numpy_pandas_and_xarray_are_numbers():
    for value in (np.float32(5000), np.int16(5000), np.array(5000.0), xr.DataArray(5000), Decimal(5000)):
        assert ALL["length"].canonical(value) == 5000.0
        assert type(ALL["length"].canonical(value)) is float
    for value in (np.uint8(3), np.float32(3), np.float64(3), np.array(3), pd.Series([3]).iloc[0]):
        assert ALL["members"].canonical(value) == 3
        assert type(ALL["members"].canonical(value)) is int
    assert type(ALL["order"].canonical(np.int64(2))) is int
    assert ALL["solver"].canonical(np.str_("direct")) == "direct"
    assert ALL["both"].canonical(np.False_) is False


@pytest.mark.parametrize(("name", "low", "high"), [("length", 1e3, 2e6), ("members", 1, 1000)])
def test_both_bounds_belong_to_the_range_and_the_next_values_do_not(name, low, high):
    parameter = ALL[name]
    assert parameter.canonical(low) == low
    assert parameter.canonical(high) == high
    step = (lambda v, to: v + (1 if to > v else -1)) if name == "members" else math.nextafter
    for outside in (step(low, -math.inf), step(high, math.inf), math.nan, math.inf):
        with pytest.raises(ParameterError, match=name):
            parameter.canonical(outside)


def test_a_count_has_no_fraction_and_keeps_all_its_digits():
    with pytest.raises(ParameterError, match="whole number"):
        ALL["members"].canonical(2.5)

    class Wide(Chain):
        """Counts without an upper bound."""

        seed = P.count(0, doc="A seed")

    assert Wide(seed=2**53 + 1).parameters == {"seed": 2**53 + 1}


def test_a_choice_offers_the_nearest_option_and_tells_one_from_true():
    with pytest.raises(ParameterError, match="Did you mean 'iterative'"):
        ALL["solver"].canonical("iterativ")
    with pytest.raises(ParameterError, match="one of 1, 2, 3"):
        ALL["order"].canonical(True)
    assert ALL["order"].parse("2") == 2


def test_text_keeps_line_breaks_and_refuses_control_characters_and_what_utf8_cannot_hold():
    assert ALL["remark"].canonical("two\nlines") == "two\nlines"
    for wrong in ("bell\a", "delete\x7f", "half \udc80", "x" * 21):
        with pytest.raises(ParameterError, match="remark"):
            ALL["remark"].canonical(wrong)
    with pytest.raises(ParameterError, match="code"):
        ALL["code"].canonical("abc\n")


def test_levels_must_rise_when_they_are_declared_so():
    for wrong in ([10, 10], [10, 5], [], [-1, 0], [0, 6001]):
        with pytest.raises(ParameterError, match="depths"):
            ALL["depths"].canonical(wrong)
    assert ALL["weights"].canonical([3, 1, 2]) == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("2010/2012", ["2010-01-01", "2012-12-31"]),
        ("2012-02", ["2012-02-01", "2012-02-29"]),
        (["2010", "2010"], ["2010-01-01", "2010-12-31"]),
        ([2010, 2012], ["2010-01-01", "2012-12-31"]),
        ("2010-02/2010-02", ["2010-02-01", "2010-02-28"]),
        ("2012-02/2012-02", ["2012-02-01", "2012-02-29"]),
        ("1900-02/2000-02", ["1900-02-01", "2000-02-29"]),
        ("2010-11/2010-12", ["2010-11-01", "2010-12-31"]),
        ("9999-12/9999-12", ["9999-12-01", "9999-12-31"]),
        ("2012-02-29/2012-02-29", ["2012-02-29", "2012-02-29"]),
        (" 2010-01-05 / 2010-01-07 ", ["2010-01-05", "2010-01-07"]),
        (["2010-01-01T00:30:00+02:00", "2010-01-02"], ["2009-12-31T22:30:00", "2010-01-02"]),
        (["2010-01-01T06:00:00Z", "2010-01-01T18:00Z"], ["2010-01-01T06:00:00", "2010-01-01T18:00:00"]),
        (
            [datetime(2010, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2010, 1, 2, tzinfo=UTC)],
            ["2010-01-01T10:00:00", "2010-01-02"],
        ),
        ([pd.Timestamp("2010-01-01", tz="Etc/GMT-1"), pd.Timestamp("2011")], ["2009-12-31T23:00:00", "2011-01-01"]),
        ((date(2010, 1, 1), np.datetime64("2010-03-01T12:00")), ["2010-01-01", "2010-03-01T12:00:00"]),
        (["2010-01-01T12:00", "2010-01-01"], ["2010-01-01T12:00:00", "2010-01-01"]),
    ],
)
def test_a_period_is_read_as_people_mean_it(given_, expected):
    assert ALL["period"].canonical(given_) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        "2010/2011/2012", ["2010", "2010-13"], ["2010", "2011-00"], "2011-02-29/2011-03-01", "2010-06-31/2011",
        ["2012", "2010"], [None, "2010"], [math.nan, 2010], [pd.NaT, pd.NaT], [np.datetime64("NaT"), "2010"], "a/b",
        ["0001-01-01T00:00:00+05:00", "2010"], ["2010-01-01T12:00", "2010-01-01T11:59:59"], [True, True], "0000/2010",
        {"start": "2010", "end": "2011"}, "٢٠١٠/٢٠١١",
    ],
)  # fmt: skip
def test_a_period_that_does_not_exist_is_refused(wrong):
    with pytest.raises(ParameterError, match="period"):
        ALL["period"].canonical(wrong)


def test_a_period_whose_ends_are_swapped_says_so():
    with pytest.raises(ParameterError, match="Swap the two dates"):
        ALL["period"].canonical(["2012-01-01", "2010-01-01"])


@pytest.mark.parametrize(
    "wrong",
    [
        [0, 0, 1], [0, 0, 1, 1, 1], [0, 10, 1, -10], [0, 5, 1, 5], [5, 0, 5, 1], [-181, 0, 1, 1], [0, 0, 361, 1],
        [0, -91, 1, 1], [0, 0, 1, 90.001], [0, 0, math.inf, 1], "0,0,1,1",
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 0], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [math.nan, 0], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [400, 0], [1, 1], [0, 0]]]},
        {"type": "Point", "coordinates": [0, 0]},
        {"type": "Feature", "geometry": None}, {"type": "FeatureCollection", "features": []},
    ],
)  # fmt: skip
def test_a_region_that_is_none_is_refused(wrong):
    with pytest.raises(ParameterError, match="region"):
        ALL["region"].canonical(wrong)


def test_a_region_across_the_date_line_is_told_how_to_be_written():
    with pytest.raises(ParameterError, match="write the east as 190"):
        ALL["region"].canonical([170, -10, -170, 10])
    assert ALL["region"].canonical([170, -10, 190, 10]) == [170.0, -10.0, 190.0, 10.0]


def test_a_polygon_that_crosses_itself_is_told_so():
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}
    with pytest.raises(ParameterError, match="Self-intersection"):
        ALL["region"].canonical(bow)


def test_a_feature_is_its_polygon_and_several_polygons_stay_several():
    square = {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]]}
    feature = {"type": "Feature", "properties": {"name": "a bay"}, "geometry": square}
    assert ALL["region"].canonical(feature) == ALL["region"].canonical(square)
    two = shapely.geometry.mapping(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)]))
    kept = ALL["region"].canonical(two)
    assert kept["type"] == "MultiPolygon"
    assert P.region_bounds(kept) == (0, 0, 6, 6)


@given(boxes(), st.floats(0, 1), st.floats(0, 1), st.sampled_from([-360.0, 0.0, 360.0]))
def test_a_box_contains_its_corners_and_inside_in_either_convention(box, right, up, turn):
    west, south, east, north = box
    lon, lat = min(east, west + right * (east - west)), min(north, south + up * (north - south))
    assert P.region_contains(box, lon + turn, lat)
    assert P.region_contains(box, np.array([west, east]) + turn, np.array([south, north])).all()


@given(boxes(), st.floats(-180, 360), st.floats(-90, 90))
def test_a_box_contains_a_point_where_some_turn_of_it_lies_inside(box, lon, lat):
    west, south, east, north = box
    turns = [lon + t for t in (-360.0, 0.0, 360.0)]
    assume(all(abs(t - edge) > 1e-6 for t in turns for edge in (west, east)))
    assert P.region_contains(box, lon, lat) == (any(west < t < east for t in turns) and south <= lat <= north)


RING = [(-30.0, 10.0), (-5.0, 12.0), (10.0, 35.0), (-12.0, 28.0), (-28.0, 41.0)]


@pytest.mark.parametrize("shift", [0.0, 180.0], ids=["greenwich", "date line"])
@pytest.mark.parametrize("convention", ["-180..180", "0..360"])
def test_a_polygon_contains_what_shapely_says_whatever_the_convention_of_the_points(shift, convention):
    polygon = shapely.Polygon(
        [(x + shift, y) for x, y in RING], [[(-20 + shift, 14), (-15 + shift, 14), (-18 + shift, 18)]]
    )
    region = ALL["region"].canonical(shapely.geometry.mapping(polygon))
    lon, lat = np.meshgrid(np.arange(-179.5, 180, 1.0), np.arange(5.25, 45))
    truth = np.zeros(lon.shape, bool)
    for turn in (-360, 0, 360):
        truth |= shapely.intersects_xy(polygon, lon + turn, lat)
    given_ = lon if convention == "-180..180" else np.mod(lon, 360)
    found = P.region_contains(region, given_, lat)
    assert truth.sum() > 200
    np.testing.assert_array_equal(found, truth)


def test_a_place_without_a_longitude_lies_in_no_region():
    assert not P.region_contains([-180, -90, 180, 90], np.array([np.nan, 0.0]), np.array([0.0, np.nan])).any()


def test_points_of_a_row_and_a_column_make_a_grid():
    lon, lat = np.arange(-3, 4.0)[None, :], np.arange(-2, 3.0)[:, None]
    inside = P.region_contains([-1, -1, 1, 1], lon, lat)
    assert inside.shape == (5, 7)
    assert inside.sum() == 9


def test_a_file_must_end_as_declared_and_its_name_must_be_writable():
    assert ALL["mask"].canonical(Path("a/b.nc")) == "a/b.nc"
    for wrong in ("mask.txt", "", " ", "a\0.nc", "\udcff.nc", 5):
        with pytest.raises(ParameterError, match="mask"):
            ALL["mask"].canonical(wrong)


@pytest.mark.parametrize("name", ["period", "region", "mask", "weights"])
def test_what_may_be_left_open_can_be_typed_as_nothing(name):
    assert ALL[name].parse("") is None
    assert ALL[name].parse("None") is None


@pytest.mark.parametrize("name", ["length", "members", "solver", "both", "depths"])
def test_what_may_not_be_left_open_is_refused_when_it_is(name):
    with pytest.raises(ParameterError, match=name):
        ALL[name].canonical(None)


def test_a_logarithmic_scale_needs_a_bound_above_zero():
    with pytest.raises(ParameterError, match="above zero"):
        P.number(1.0, bounds=(0, 10), doc="x", scale="log")


@pytest.mark.parametrize("wrong", [{"level": "guru"}, {"scale": "square"}])
def test_a_level_and_a_scale_are_known_words(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong.values()))):
        P.number(1.0, bounds=(1, 10), doc="x", **wrong)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_the_json_schema_takes_every_canonical_value(name, data):
    import jsonschema

    schema = ALL[name].schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(ALL[name].canonical(data.draw(GOOD[name])))
    jsonschema.Draft202012Validator(schema).validate(ALL[name].default)


def test_the_json_schema_refuses_what_the_parameter_refuses():
    import jsonschema

    for name, wrong in [("length", 1.0), ("members", 0), ("solver", "none"), ("both", "yes"), ("remark", "x" * 21),
                        ("depths", []), ("code", "abc"), ("region", [1, 2]), ("period", "x/y")]:  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(ALL[name].schema()).validate(wrong)
