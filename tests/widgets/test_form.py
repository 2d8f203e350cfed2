"""The form says what the declaration says, and refuses what the declaration refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phidias_lab.contract import (
    Chain,
    Input,
    choice,
    count,
    file,
    flag,
    number,
    numbers,
    period,
    region,
    registry,
    text,
    variable,
)
from phidias_lab.contract.parameters import Declared
from phidias_lab.errors import ParameterError, UnknownNameError
from phidias_lab.widgets import Form
from phidias_lab.widgets.controls import Tick, caption
from phidias_lab.widgets.fields import FIELDS, ParsedField, field_of

BOX = {"type": "Polygon", "coordinates": [[[0, 50], [10, 50], [10, 60], [0, 50]]]}


class EveryKind(Chain):
    """One parameter of each kind."""

    id = "test.every_kind"
    title = "Every kind"
    inputs = {"cube": Input("cube", doc="a cube")}

    length = number(2e5, bounds=(1e3, 2e6), units="m", scale="log", doc="How far an observation speaks")
    weight = number(0.5, bounds=(0, 1), doc="A share")
    offset = number(0.0, units="K", doc="Any number", level="expert")
    steps = count(10, bounds=(1, 1000), scale="log", doc="How often")
    window = count(3, bounds=(1, 9), units="day", doc="How long")
    colour = choice("red", ["red", "green", 3], doc="Which one")
    robust = flag(True, doc="Whether outliers count less")
    remark = text("", doc="A remark", max_length=20)
    depths = numbers(None, bounds=(0, 6000), units="m", increasing=True, doc="Levels")
    when = period(doc="First and last day")
    where = region(doc="Part of the world")
    used = variable("temperature", of="cube", doc="What is used")
    table = file(None, suffixes=[".csv"], doc="A table of coefficients", level="expert")


CHAINS = [*registry.chains(), EveryKind]


@pytest.fixture(scope="module")
def form():
    return Form(EveryKind)


@pytest.fixture(autouse=True)
def _afresh(request):
    if "form" in request.fixturenames:
        request.getfixturevalue("form").reset()
        request.getfixturevalue("form").level = "user"


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_every_parameter_has_a_control_with_its_label_units_and_sentence(chain):
    form = Form(chain)
    assert list(form.fields) == list(form.chain.declared())
    for name, field in form.fields.items():
        parameter = field.parameter
        captions = [caption(w) if not isinstance(w, Tick) else w.options[0] for w in field.controls.values()]
        assert any(text.startswith(parameter.label) for text in captions), name
        units = {"degrees": "°", None: "", "1": ""}.get(parameter.units, parameter.units)
        assert not units or any(f"[{units}]" in text for text in captions), name
        assert parameter.doc.rstrip(".") in field.help()
        assert field.layout in form._layout.objects


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_an_untouched_form_orders_the_declared_defaults(chain):
    form = Form(chain)
    assert form.valid
    assert form.values == form.chain().parameters
    json.dumps(form.values, allow_nan=False)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_no_number_outside_its_bounds_gets_into_an_order(chain):
    form = Form(chain)
    bounded = {n: f for n, f in form.fields.items() if f.parameter.kind in ("number", "count")}
    for name, field in bounded.items():
        for bound, step in zip(field.parameter.bounds, (-1, 1), strict=True):
            if bound is None:
                continue
            outside = bound + step * max(1, abs(bound))
            field.widget.value = outside
            with pytest.raises(ParameterError) as refused:
                field.parameter.canonical(outside)
            assert form.problems[name] == str(refused.value)
            assert str(refused.value).split("'")[2] in field._complaint.object  # said beside the control
            assert field._complaint.visible
            with pytest.raises(ParameterError, match=name):
                form.order()
            slider = field.controls.get("slider")
            assert slider is None or slider.start <= slider.value <= slider.end
            field.widget.value = bound
            assert name not in form.problems
            assert form.values[name] == bound


def test_every_kind_of_parameter_has_a_field_of_its_own():
    kinds = {p.kind for p in EveryKind.declared().values()}
    subclasses = {c.kind for c in Declared.__subclasses__()}
    assert kinds == subclasses == set(FIELDS)


def test_a_kind_nobody_foresaw_is_typed_as_on_the_command_line():
    class Depth(type(EveryKind.declared()["remark"])):
        kind = "depth"

    parameter = Depth("deep", doc="A new kind")
    parameter.name = "depth"
    assert isinstance(field_of(parameter, lambda: None), ParsedField)


def test_a_new_parameter_appears_by_itself():
    class Grown(EveryKind):
        """With one more."""

        added = number(1.0, bounds=(0, 2), doc="Was not there before")

    assert Form(Grown).values["added"] == 1.0


@settings(max_examples=60, deadline=None)
@given(st.floats(1e3, 2e6))
def test_a_typed_number_on_a_log_scale_keeps_every_digit(value):
    field = _LENGTH
    field.widget.value = value
    assert field.value == value
    assert 10 ** field.controls["slider"].value == pytest.approx(value, rel=1e-9)
    field.set(value)
    assert field.value == value


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200))
def test_a_slider_on_a_log_scale_gives_the_number_at_its_place_inside_the_bounds(step):
    field = _LENGTH
    slider = field.controls["slider"]
    place = min(slider.start + step * slider.step, slider.end)
    field.set(2e5)
    slider.value = place
    assert field.value == pytest.approx(10**place, rel=6e-3)
    assert 1e3 <= field.value <= 2e6
    assert field.widget.value == field.value  # what is shown is what is ordered


_LENGTH = field_of(EveryKind.declared()["length"], lambda: None)


def test_a_slider_of_whole_numbers_gives_whole_numbers(form):
    form.fields["steps"].controls["slider"].value = 1.5
    assert form.values["steps"] == 32
    assert isinstance(form.values["steps"], int)


def test_a_linear_slider_reaches_both_ends(form):
    for place in (0.0, 1.0):
        form.fields["weight"].controls["slider"].value = place
        assert form.values["weight"] == place


VALUES = {
    "length": 123456.789,
    "weight": 1 / 3,
    "offset": -273.15,
    "steps": 77,
    "window": 9,
    "colour": 3,
    "robust": False,
    "remark": "a < b",
    "depths": [0.0, 10.5, 1000.0],
    "when": ["2010-01-01T06:00:00", "2010-03-31"],
    "where": [-20.0, 40.0, 0.5, 55.0],
    "used": "salinity",
    "table": "/tmp/coefficients.csv",
}


def test_what_is_set_comes_back_unchanged(form):
    form.set(VALUES)
    assert form.values == VALUES
    form.reset()
    assert form.values == EveryKind().parameters


def test_a_polygon_goes_in_and_out(form):
    form.set(where=BOX)
    assert form.values["where"]["type"] == "Polygon"
    assert form.values == EveryKind(where=BOX).parameters


def test_the_order_of_a_form_makes_the_same_chain(form):
    form.set(VALUES)
    order = form.order({"cube": "ocean.truth_baltic"}, title="test")
    assert order.inputs == {"cube": {"entry": "ocean.truth_baltic"}}
    assert EveryKind(**order.parameters).parameters == VALUES
    assert (order.chain, order.version, order.title) == ("test.every_kind", "1.0", "test")
    with pytest.raises(UnknownNameError, match="cube"):
        form.order({"cubes": "x"})


def test_a_configured_chain_shows_its_own_values():
    assert Form(EveryKind(length=5e3)).values["length"] == 5e3


def test_setting_is_all_or_nothing(form):
    with pytest.raises(ParameterError, match="weight"):
        form.set(length=5e3, weight=7)
    assert form.values["length"] == 2e5
    with pytest.raises(UnknownNameError, match="length"):
        form.set(lenght=5e3)


def test_experts_see_all_and_users_only_what_most_people_change(form):
    visible = {n for n, f in form.fields.items() if f.layout.visible}
    assert visible == {n for n, p in EveryKind.declared().items() if p.level == "user"}
    form.level = "expert"
    assert all(f.layout.visible for f in form.fields.values())
    assert form._expert.on


def test_the_box_for_experts_and_the_level_agree(form):
    form._expert.on = True
    assert form.level == "expert"
    form.level = "user"
    assert not form._expert.on


def test_a_hidden_parameter_with_a_problem_is_shown(form):
    form.fields["offset"].widget.value = float("inf")
    assert form.fields["offset"].layout.visible


def test_a_hidden_parameter_that_was_changed_is_told(form):
    assert not form._hidden.visible
    form.set(offset=3)
    assert "offset = 3.0" in form._hidden.object


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("depths", "10, 0", "rising"),
        ("depths", "ten", "written like"),
        ("remark", "x" * 21, "at most 20"),
        ("table", "coefficients.txt", "csv"),
        ("length", None, "number"),
    ],
)
def test_what_cannot_be_read_is_told_beside_the_field(form, name, typed, said):
    form.fields[name].widget.value = typed
    assert said in form.fields[name].problem
    assert form.fields[name]._complaint.visible
    assert list(form.problems) == [name]


def test_what_a_user_typed_is_never_markup(form):
    form.fields["depths"].widget.value = "<img src=x onerror=alert(1)>"
    assert "<img" not in form.fields["depths"]._complaint.object
    assert "&lt;img" in form.fields["depths"]._complaint.object


def test_half_a_period_and_half_a_box_say_what_is_missing(form):
    from datetime import date

    form.fields["when"].widget.value = date(2010, 1, 1)
    assert "no last day" in form.problems["when"]
    form.fields["when"].controls["end"].value = date(2009, 1, 1)
    assert "Swap" in form.problems["when"]
    form.fields["when"].controls["end"].value = date(2011, 1, 1)
    assert form.values["when"] == ["2010-01-01", "2011-01-01"]
    form.fields["where"].controls["west"].value = 3
    assert "no south and no east and no north" in form.problems["where"]


def test_a_time_of_day_stays_until_the_day_is_changed(form):
    from datetime import date

    form.set(when=VALUES["when"])
    form.fields["when"].controls["end"].value = date(2010, 5, 1)
    assert form.values["when"] == ["2010-01-01", "2010-05-01"]


def test_variables_are_offered_from_the_input_and_a_wrong_one_is_told(form):
    form.offer("cube", ["salinity", "oxygen"])
    field = form.fields["used"]
    assert "temperature" in form.problems["used"]
    assert field.controls["known"].value == "temperature"  # the control never shows another value than it holds
    field.controls["known"].value = "oxygen"
    assert form.values["used"] == "oxygen"
    form.offer("cube", None)
    field.widget.value = "anything"
    assert form.values["used"] == "anything"


def test_changes_are_counted_once_for_each_change(form):
    before = form.changes
    form.fields["length"].widget.value = 5e3
    assert form.changes == before + 1
