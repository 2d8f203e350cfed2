"""Options are the declaration: every parameter, with units and bounds; and the short form of an input."""

from __future__ import annotations

import re

import pytest

from phidias_lab import Chain, Input, flag, number, numbers, period, region, text, variable
from phidias_lab.contract.registry import chain, chains
from phidias_lab.errors import ParameterError
from phidias_lab.services.commands.options import given, input_reference
from phidias_lab.services.commands.run import ChainCommand, run_options


class Everything(Chain):
    """One parameter of most kinds."""

    id = "test.everything"
    title = "Everything"
    inputs = {"wind": Input("cube", "the wind", default="air.wind")}

    edge_stretch = number(1.0, bounds=(0, 3), units="1", doc="How far the edge moves")
    speed = number(0.0, units="m s-1", doc="A number without bounds")
    depths = numbers(None, bounds=(0, 12e3), units="m", doc="Levels")
    region = region(doc="Part of it")
    period = period(doc="Days")
    component = variable("u", of="wind", doc="Which component")
    sharp = flag(True, doc="Whether it is sharp")
    title_text = text("", doc="A remark")
    order = text("", doc="A parameter with the name of a shared option", level="expert")


def typed(*words):
    """The parameters that these words give."""
    command = ChainCommand(Everything, run_options(), lambda ctx, **_: None)
    return given(command.make_context("run", list(words)), Everything.declared())


def help_of(found):
    command = ChainCommand(found, run_options(), lambda ctx, **_: None)
    return re.sub(r"\s+", " ", command.get_help(command.make_context("run", [], resilient_parsing=True)))


def test_what_is_typed_becomes_the_json_form():
    assert typed("--edge-stretch", "2") == {"edge_stretch": 2.0}
    assert typed("--depths", "0,10,50") == {"depths": [0.0, 10.0, 50.0]}
    assert typed("--region", "-10,30,5,50") == {"region": [-10.0, 30.0, 5.0, 50.0]}
    assert typed("--period=2010/2012-02") == {"period": ["2010-01-01", "2012-02-29"]}


def test_what_is_not_typed_is_left_to_the_declaration():
    assert typed() == {}
    assert typed("--no-sharp") == {"sharp": False}
    assert typed("--sharp") == {"sharp": True}


def test_none_can_be_typed_and_differs_from_not_typed():
    assert typed("--depths", "none") == {"depths": None}


def test_a_parameter_with_the_name_of_a_shared_option_keeps_an_option_of_its_own():
    assert typed("--parameter-order", "here", "--order", "there.json") == {"order": "here"}


def test_a_bad_value_is_refused_by_the_parameter_itself():
    with pytest.raises(ParameterError, match=r"'edge_stretch' was given 4\.0; expected a finite number from 0 to 3"):
        typed("--edge-stretch", "4")


@pytest.mark.parametrize("chain_id", ["test.everything", *chains()])
def test_help_shows_meaning_units_and_bounds_of_every_parameter(chain_id):
    found = Everything if chain_id == Everything.id else chain(chain_id)
    said = help_of(found)
    for name, parameter in found.declared().items():
        assert f"-{name.replace('_', '-')} " in said
        assert re.sub(r"\s+", " ", parameter.doc.rstrip(".")) in said
        assert re.sub(r"\s+", " ", parameter.expected()) in said
        option = said[said.index(f"-{name.replace('_', '-')} ") :]
        brackets = option[option.index("[") : option.index("; default:")]
        if parameter.units == "1":
            assert "without unit" in brackets
        elif parameter.units:
            assert re.search(rf"\b{re.escape(parameter.units)}\b", brackets), brackets


def test_expert_parameters_have_a_section_of_their_own():
    said = help_of(Everything)
    assert said.index("--edge-stretch") < said.index("Expert parameters:") < said.index("--parameter-order")
    assert (
        said.index("Expert parameters:") < said.index("the wind [cube; default: air.wind]") < said.index("--order FILE")
    )


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("wind=air.wind", {"entry": "air.wind"}),
        ("wind=air.wind?level=10", {"entry": "air.wind", "parameters": {"level": 10}}),
        (
            "wind=air.wind?time=2010-01-01/2012-12-31&variable=u",
            {"entry": "air.wind", "parameters": {"time": "2010-01-01/2012-12-31", "variable": "u"}},
        ),
        ("wind=air.wind?box=[1,2]&name=a%26b", {"entry": "air.wind", "parameters": {"box": [1, 2], "name": "a&b"}}),
        ("wind=air.wind?x=NaN", {"entry": "air.wind", "parameters": {"x": "NaN"}}),
        ("wind=air.wind?x=a=b", {"entry": "air.wind", "parameters": {"x": "a=b"}}),
        ("wind=wind.nc", {"file": "wind.nc"}),
        ("wind=data/wind?a.nc", {"file": "data/wind?a.nc"}),
        ("wind=https://host/wind.nc?key=1", {"file": "https://host/wind.nc?key=1"}),
        ('wind={"entry": "air.wind"}', {"entry": "air.wind"}),
    ],
)
def test_an_input_is_written_short(text, reference):
    assert input_reference(text) == ("wind", reference)


@pytest.mark.parametrize("text", ["wind", "=air.wind", "wind=", "wind={", "wind=air.wind?level", "wind=air.wind?=3"])
def test_an_input_that_is_not_written_right_is_refused(text):
    with pytest.raises(ParameterError):
        input_reference(text)
