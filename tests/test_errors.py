"""Errors carry a sentence and an exit code."""

from __future__ import annotations

import pytest

from phidias_lab import errors


def every(kind=errors.PhidiasError):
    return [kind, *(c for k in kind.__subclasses__() if k.__module__ == errors.__name__ for c in every(k))]


def test_each_kind_of_error_has_an_exit_code_that_a_script_can_tell():
    codes = {k.__name__: k.exit_code for k in every()}
    assert codes == {
        "PhidiasError": 1, "ParameterError": 2, "UnknownNameError": 2, "InputError": 3, "ProductError": 4,
        "RunFailedError": 5, "MissingExtraError": 6, "RunCancelledError": 130,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [k for k in every() if k is not errors.MissingExtraError])
def test_the_text_of_an_error_is_its_sentence(kind):
    assert str(kind("A sentence.")) == "A sentence."


def test_a_missing_extra_says_how_to_install_it():
    said = str(errors.MissingExtraError("The form", "viz"))
    assert "The form needs the extra 'viz'" in said
    assert "pip install 'phidias-lab[viz]'" in said


def test_the_nearest_names_are_offered_and_else_the_known_ones():
    assert errors.nearest("lenght", ["length", "noise"]) == "Did you mean 'length'?"
    assert errors.nearest("zzz", ["b", "a"]) == "Known: a, b."
    assert errors.nearest("zzz", []) == "None is known here."
    assert errors.nearest("x", [f"long-name-{i:02d}" for i in range(20)]).endswith("long-name-11, ....")
    assert errors.nearest(5, [1, 2, 55]) == "Did you mean '55'?"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Did you mean 'salinity'?", "Did you mean 'salinity'?"),
        ("No such file", "No such file."),
        ("It ended.", "It ended."),
        ("", ""),
    ],
)
def test_a_sentence_has_one_mark_at_its_end(text, whole):
    assert errors.as_sentence(text) == whole


def test_the_question_of_a_failed_run_gets_no_full_stop():
    from types import SimpleNamespace

    from phidias_lab.services.commands.watch import run_error

    run = SimpleNamespace(id="r1", error="There is no such variable. Did you mean 'salinity'?", record={})
    assert "'salinity'? 'phidias runs log r1'" in str(run_error(run, "failed"))
