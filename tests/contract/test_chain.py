"""The declaration of a chain: what is wrong with it is said when the class is made."""

from __future__ import annotations

import json

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phidias_lab import Chain, Input, Var, choice, flag, number, numbers, period, region, text, variable
from phidias_lab.contract import said
from phidias_lab.contract.data import error_terms
from phidias_lab.errors import InputError, ParameterError, UnknownNameError


def field() -> xr.Dataset:
    return xr.Dataset(
        {
            "temperature": (("x",), np.arange(3.0), {"units": "K", "standard_name": "sea_water_temperature"}),
            "plain": (("x",), np.arange(3.0)),
        }
    )


class Doubling(Chain):
    """Double a variable.

    More words that are no summary.
    """

    title = "Doubling"
    inputs = {"field": Input("cube", doc="any field", dims=("x",)), "extra": Input("table", optional=True)}
    outputs = {
        "double": Var("{measured.units}", "{measured.standard_name}", "two times {measured}", dims=("x",)),
        "note": Var("1", optional=True),
    }
    factor = number(2.0, bounds=(0, 10), units="1", doc="The factor")
    measured = variable("temperature", of="field", doc="What is doubled")
    method = choice("auto", ["auto", "times", "plus"], doc="How it is doubled")

    def resolve(self, inputs):
        return {"method": "times"} if self.method == "auto" else {}

    def run(self, field, extra):
        self.report(0.5, self.method)
        return xr.Dataset({"double": field[self.measured] * self.factor})


def declare(**body):
    return type("Wrong", (Chain,), {"__doc__": "A wrong chain.", "__module__": __name__, **body})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"x": number(1.0, doc=" ")}, "Wrong.x has no sentence"),
        ({"kind": "picture"}, "Wrong.kind must be cube, table, features, events or model, not 'picture'"),
        ({"x": variable("a", of="nothing", doc="x")}, "variable of 'nothing', which is no input"),
        ({"title": text("a", doc="x")}, "Wrong.title is a word the lab uses"),
        ({"run": number(1.0, doc="x")}, "Wrong.run is a word the lab uses"),
        ({"inputs": number(1.0, doc="x")}, "Wrong.inputs"),
        ({"overwrite": flag(True, doc="x")}, "Wrong.overwrite is a word the lab uses"),
        ({"format": text("a", doc="x")}, "Wrong.format is a word the lab uses"),
        ({"x": variable(None, of="f", doc="x"), "inputs": {"f": "cube"}}, "Wrong.inputs must map names to Input"),
        ({"outputs": {"o": "K"}}, "Wrong.outputs must map names to Var"),
        ({"outputs": {"o": Var("{measured.units}")}}, "{measured.units} must be a parameter of kind variable"),
        ({"outputs": {"o": Var("K", errors={"error": "o"})}}, "a term is one of standard_error"),
        ({"outputs": {"o": Var("K", errors={"standard_error": "e"})}}, "names an output"),
        ({"resources": "8GiB"}, "Wrong.resources must be Resources"),
    ],
)
def test_a_wrong_declaration_is_said_when_the_class_is_made(body, said):
    with pytest.raises(ParameterError) as caught:
        declare(**body)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: number(11.0, bounds=(0, 10), doc="x"),
        lambda: number(float("nan"), doc="x"),
        lambda: choice("c", ["a", "b"], doc="x"),
        lambda: text("a\0", doc="x"),
        lambda: numbers([2, 1], increasing=True, doc="x"),
        lambda: period(["2012", "2010"], doc="x"),
        lambda: region([0, 1, 2], doc="x"),
    ],
)
def test_a_default_that_its_own_declaration_refuses_makes_no_class(make):
    with pytest.raises((ParameterError, ValueError)):
        declare(x=make())


def test_a_template_with_an_unknown_fact_is_refused():
    with pytest.raises(ParameterError, match="unit"):
        declare(inputs={"f": Input("cube")}, v=variable("a", of="f", doc="v"), outputs={"o": Var("{v.unit}")})


def test_a_default_is_held_in_its_json_form():
    class Loose(Chain):
        """Defaults as people write them."""

        length = number(5, bounds=(1, 10), doc="a whole number")
        when = period("2010/2011", doc="a text")
        where = region((0, 0, 1, 1), doc="a tuple")
        levels = numbers(np.arange(3), doc="an array")

    assert Loose().parameters == {
        "length": 5.0,
        "when": ["2010-01-01", "2011-12-31"],
        "where": [0.0, 0.0, 1.0, 1.0],
        "levels": [0.0, 1.0, 2.0],
    }
    assert {n: d["default"] for n, d in Loose.describe()["parameters"].items()} == Loose().parameters
    assert type(Loose.describe()["parameters"]["length"]["default"]) is float


def test_a_subclass_that_gives_a_plain_value_changes_the_default_and_keeps_bounds_and_words():
    class Tripling(Doubling):
        """Triple a variable."""

        factor = 3.0

    kept = Tripling.declared()["factor"]
    assert (Tripling().factor, kept.default, kept.bounds, kept.doc) == (3.0, 3.0, (0, 10), "The factor")
    assert Tripling.describe()["parameters"]["factor"]["default"] == 3.0
    assert Doubling().factor == 2.0
    assert Tripling(factor=4.0).factor == 4.0
    with pytest.raises(ParameterError, match="factor"):
        Tripling(factor=11.0)
    with pytest.raises(ParameterError, match="factor"):
        type("Far", (Doubling,), {"factor": 11.0, "__module__": __name__})


def test_a_subclass_that_declares_a_parameter_again_replaces_it_wholly():
    class Freely(Doubling):
        """Any factor."""

        factor = number(50.0, units="m", doc="Any factor", level="expert")

    replaced = Freely.declared()["factor"]
    assert (replaced.bounds, replaced.units, replaced.level) == ((None, None), "m", "expert")
    assert Doubling.declared()["factor"].units == "1"
    assert list(Freely.declared()) == ["factor", "measured", "method"]


def test_parameters_stand_in_the_order_of_their_declaration_the_parents_first():
    class More(Doubling):
        """With one parameter more."""

        also = flag(False, doc="One more")

    assert list(More.declared()) == ["factor", "measured", "method", "also"]


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no parameter 'facto'. Did you mean 'factor'"):
        Doubling(facto=1)
    with pytest.raises(UnknownNameError, match=r"no input 'fields'. Did you mean 'field'"):
        Doubling()(fields=field())
    with pytest.raises(
        InputError, match=r"'temprature'; the input 'field' has no such variable. Did you mean 'temperature'"
    ):
        Doubling(measured="temprature")(field=field())


def test_a_missing_input_is_named_and_an_optional_one_is_none():
    with pytest.raises(InputError, match=r"Doubling needs the input 'field' \(cube: any field\)"):
        Doubling()()
    assert Doubling().checked({"field": field()})["extra"] is None


def test_a_run_is_stamped_with_the_units_of_the_chosen_variable():
    result = Doubling()(field=field())
    np.testing.assert_array_equal(result["double"], [0, 2, 4])
    assert result["double"].attrs == {
        "units": "K",
        "standard_name": "sea_water_temperature",
        "long_name": "two times temperature",
    }


def test_a_result_names_the_variables_that_tell_of_its_error_as_far_as_they_are_there():
    class Uncertain(Chain):
        """A field with its error."""

        inputs = {"field": Input("cube")}
        outputs = {
            "f": Var("K", errors={"standard_error": "e", "relative_variance": "r"}),
            "e": Var("K", optional=True),
            "r": Var("1", optional=True),
        }
        with_error = flag(True, doc="Whether the error is given")

        def run(self, field):
            found = xr.Dataset({"f": field["plain"].assign_attrs(ancillary_variables="count"), "count": field["plain"]})
            return found.assign(e=field["plain"]) if self.with_error else found

    told = Uncertain()(field=field())["f"].attrs
    assert told["ancillary_variables"] == "count e"
    assert told["error_terms"] == "standard_error: e"
    assert error_terms(told) == {"standard_error": "e"}
    told = Uncertain(with_error=False)(field=field())["f"].attrs
    assert (told["ancillary_variables"], "error_terms" in told) == ("count", False)


def test_what_the_chosen_variable_does_not_say_is_left_out():
    result = Doubling(measured="plain")(field=field())
    assert result["double"].attrs == {"long_name": "two times plain"}


def test_a_variable_left_open_stamps_nothing_that_speaks_of_it():
    class Open(Doubling):
        """The variable may be left open."""

        measured = variable(None, of="field", doc="What is doubled")

        def run(self, field, extra):
            return xr.Dataset({"double": field["temperature"]})

    assert Open()(field=field())["double"].attrs["units"] == "K"  # the chain's own attribute stays
    assert "long_name" not in Open()(field=field())["double"].attrs


def test_stamping_does_not_touch_the_input_that_a_chain_hands_on():
    class Through(Chain):
        """Hand on the input."""

        inputs = {"field": Input("cube")}
        outputs = {"plain": Var("m", long_name="stamped")}

        def run(self, field):
            return field

    given = field()
    assert Through()(field=given)["plain"].attrs == {"units": "m", "long_name": "stamped"}
    assert given["plain"].attrs == {}


class Tabling(Chain):
    """Hand on a table."""

    kind = "table"
    inputs = {"rows": Input("table")}
    outputs = {"t": Var("K", long_name="stamped")}

    def run(self, rows):
        return rows


@pytest.mark.parametrize("lazy", [False, True])
def test_columns_are_stamped_and_the_input_stays_as_it_was(lazy):
    rows = pd.DataFrame({"t": [1.0], "z": [2.0]})
    rows.attrs["columns"] = {"z": {"units": "m"}}
    if lazy:
        attrs, rows = rows.attrs, dd.from_pandas(rows, npartitions=1)
        rows.attrs = attrs
    result = Tabling()(rows=rows)
    assert result.attrs["columns"] == {"z": {"units": "m"}, "t": {"units": "K", "long_name": "stamped"}}
    assert rows.attrs["columns"] == {"z": {"units": "m"}}


def test_a_table_without_attributes_is_stamped_too():
    result = Tabling()(rows=dd.from_pandas(pd.DataFrame({"t": [1.0]}), npartitions=1))
    assert result.attrs["columns"]["t"]["units"] == "K"


def returning(result, **body):
    return type(
        "Wrong",
        (Chain,),
        {"__doc__": "Returns something else.", "__module__": __name__, "outputs": {"double": Var("1", dims=("x",))},
         "run": lambda self: result, **body},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (returning(field()["plain"]), "must return an xarray Dataset; it returned a DataArray"),
        (returning(None), "it returned a NoneType"),
        (
            returning(field().rename(plain="dubble")),
            r"did not return the declared output 'double'.*Did you mean 'dubble'",
        ),
        (returning(xr.Dataset({"double": (("y",), [1.0])})), r"'double' with dimensions \('y',\), declared \('x',\)"),
        (returning([1], kind="table"), "must return a DataFrame; it returned a list"),
    ],
)
def test_a_result_that_is_not_as_declared_is_refused_by_name(wrong, said):
    with pytest.raises(ParameterError, match=said):
        wrong()()


def test_open_choices_are_resolved_and_the_rest_is_kept():
    chain = Doubling(factor=3.0)
    assert chain.resolved({"field": field()}).parameters == {**chain.parameters, "method": "times"}
    assert Doubling(method="plus").resolved({}).method == "plus"
    seen = []
    chain.report = lambda fraction, message="": seen.append((fraction, message))
    chain(field=field())
    assert seen == [(0.5, "times")]


def test_a_resolution_is_checked_like_a_choice_of_the_user():
    class Confused(Doubling):
        """Resolves to nonsense."""

        def resolve(self, inputs):
            return {"method": "minus"}

    with pytest.raises(ParameterError, match="minus"):
        Confused()(field=field())


def test_a_chain_without_run_says_so():
    with pytest.raises(NotImplementedError, match="Empty does not implement run"):
        type("Empty", (Chain,), {"__module__": __name__})()()


def test_the_description_is_json_and_its_summary_is_the_first_paragraph():
    described = json.loads(json.dumps(Doubling.describe(), allow_nan=False))
    assert described["summary"] == "Double a variable."
    assert described["inputs"]["field"]["dims"] == ["x"]
    assert described["outputs"]["double"]["units"] == "{measured.units}"
    assert list(described["parameters"]) == ["factor", "measured", "method"]
    assert described["parameters"]["factor"]["expected"] == "a finite number from 0 to 10"


def test_a_value_set_later_is_checked_too_and_told_in_json_form():
    chain = Doubling()
    with pytest.raises(ParameterError, match="factor"):
        chain.factor = 11
    chain.factor = np.float32(3)
    assert json.dumps(chain.parameters["factor"]) == "3.0"


def test_what_is_made_from_synthetic_data_says_so():
    import numpy as np
    import xarray as xr

    from phidias_lab.contract import Chain, Input, Var

    class Twice(Chain):
        """Double a field."""

        title = "Twice"
        inputs = {"field": Input("cube")}
        outputs = {"height": Var("m")}

        def run(self, field):
            return field * 2

    real = xr.Dataset({"height": ("x", np.arange(3.0))})
    assert "synthetic" not in Twice()(field=real).attrs
    assert Twice()(field=real.assign_attrs(synthetic="false")).attrs.get("synthetic") != "true"
    assert "synthetic_inputs" not in Twice()(field=real.assign_attrs(synthetic="false")).attrs
    assert Twice()(field=real.assign_attrs(synthetic="true")).attrs["synthetic"] == "true"


@pytest.mark.parametrize(
    ("synthetic", "said"),
    [
        ("rows mask", {"synthetic": "true", "synthetic_inputs": "rows, mask"}),
        ("rows", {"synthetic": "true", "synthetic_inputs": "rows"}),
        ("mask", {"synthetic_inputs": "mask"}),
        ("", {}),
    ],
)
def test_a_synthetic_mask_is_named_and_makes_no_synthetic_result_of_real_values(synthetic, said):
    class Masked(Chain):
        """Hand on a mask, with all it says of itself, and values on it."""

        title = "Masked"
        inputs = {"rows": Input("cube"), "mask": Input("cube", role="support")}
        outputs = {"height": Var("m")}

        def run(self, rows, mask):
            return mask.assign(height=rows["height"])

    given = {
        name: xr.Dataset({"height": ("x", np.arange(3.0))}, attrs={"synthetic": "true"} if name in synthetic else {})
        for name in ("rows", "mask")
    }
    attrs = Masked()(**given).attrs
    assert {k: v for k, v in attrs.items() if k.startswith("synthetic")} == said
    assert Masked.describe()["inputs"]["mask"]["role"] == "support"


def test_a_role_that_is_none_is_refused_where_it_is_declared():
    with pytest.raises(ParameterError, match="values or support"):
        Input("cube", role="grid")


class Talking(Chain):
    """A chain that leaves out what is negative."""

    title = "Talking"
    inputs = {"field": Input("cube")}
    outputs = {"height": Var("m")}

    def run(self, field):
        values = field["height"].values
        self.counted("heights", values.size, {"negative": (values < 0).sum(), "missing": 0})
        if (values < 0).any():
            self.warn("Some heights were negative.")
            self.warn("Some heights were negative.")
        return field


def test_what_a_chain_left_out_and_warned_of_stands_in_its_result_and_not_in_the_next():
    chain = Talking()
    field = xr.Dataset({"height": ("x", [1.0, -2.0, 3.0])}, attrs={"comment": "Measured by hand."})
    attrs = chain(field=field).attrs
    assert attrs["comment"].splitlines() == [
        "Measured by hand.",
        "heights used 2 of 3; left out: 1 negative",
        "Warning: Some heights were negative.",
    ]
    assert json.loads(attrs["phidias_said"])["counts"]["heights"]["left_out"] == {"negative": 1}
    assert chain.said.warnings == ["Some heights were negative."]
    again = chain(field=xr.Dataset({"height": ("x", [1.0, 2.0, 3.0])}))
    assert again.attrs["comment"] == "heights used 3 of 3"
    assert chain.said.warnings == []


def test_a_part_that_is_counted_twice_is_the_chains_error():
    with pytest.raises(ParameterError, match="count each once"):
        Chain().counted("rows", 3, {"flag": 2, "missing": 2})


def test_what_a_chain_found_is_read_back_from_a_record():
    told = said.Said()
    told.counted("rows", 3, {"bad": 1})
    told.found.append("It is 3.")
    told.warn("Look.")
    told.remark("Here.")
    assert said.is_document(told.document())
    assert not said.is_document({**told.document(), "found": [3]})
