"""Questions that every chain must answer, ours and third parties' alike.

    import pytest
    from phidias_lab.testing import questions

    @pytest.mark.parametrize("question", questions.QUESTIONS)
    def test_my_chain(question, tmp_path):
        questions.ask(question, "toy.anomaly", tmp_path)

A chain answers on its own synthetic scene (`Chain.scene`). A question that finds fault raises AssertionError with a
sentence that says what is wrong with the chain.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from phidias_lab.contract import registry
from phidias_lab.contract.chain import Chain
from phidias_lab.contract.data import with_attributes
from phidias_lab.contract.parameters import Choice, Count, Flag, Number, Numbers, Period, Region, Text, Variable, show
from phidias_lab.errors import MissingExtraError, ParameterError

QUESTIONS: dict[str, Callable[[str, Path], None]] = {}


def ask(question: str, chain_id: str, folder: str | Path) -> None:
    """Put one question to one chain; `folder` is an empty folder for runs and files."""
    QUESTIONS[question](chain_id, Path(folder))


def _question(function):
    QUESTIONS[function.__name__.removeprefix("_")] = function
    return function


def scene(chain_class: type[Chain]) -> dict[str, Any]:
    """The chain's synthetic scene: inputs in memory, and the parameters that go with it."""
    assert ":" in chain_class.scene, f"{chain_class.id}.scene must name a function as 'module:function'."
    module, _, name = chain_class.scene.partition(":")
    found = getattr(importlib.import_module(module), name)()
    assert set(found) >= {"inputs"}, f"The scene of {chain_class.id} must give a dictionary with 'inputs'."
    return {"parameters": {}, **found}


@contextlib.contextmanager
def _runs_in(folder: Path) -> Iterator[None]:
    before = os.environ.get("PHIDIAS_RUNS")
    os.environ["PHIDIAS_RUNS"] = str(folder / "runs")
    try:
        yield
    finally:
        if before is None:
            del os.environ["PHIDIAS_RUNS"]
        else:
            os.environ["PHIDIAS_RUNS"] = before


@contextlib.contextmanager
def _run_of_the_scene(chain_id: str, folder: Path) -> Iterator[Any]:
    """The chain's scene, run to its end below the folder."""
    from phidias_lab import flow

    given = scene(registry.chain(chain_id))
    with _runs_in(folder):
        run = flow.run(chain_id, inputs=given["inputs"], **given["parameters"])
        run.result(timeout=600)
        yield run


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@_question
def is_described_completely(chain_id: str, folder: Path) -> None:
    chain = registry.chain(chain_id)
    assert chain.id == chain_id
    assert chain.title.strip(), f"{chain_id} has no title."
    assert re.fullmatch(r"\d+(\.\d+)*\S*", chain.version), f"{chain_id} has no version number: {chain.version!r}."
    assert inspect.cleandoc(chain.__doc__ or ""), f"{chain_id} has no docstring, so no page can say what it is for."
    assert chain.outputs, f"{chain_id} declares no outputs."
    description = chain.describe()
    assert json.loads(json.dumps(description, allow_nan=False))["id"] == chain_id
    for name, parameter in chain.declared().items():
        assert parameter.doc.strip(), f"{chain_id}.{name} has no sentence."
        if isinstance(parameter, Number | Count):
            low, high = parameter.bounds
            assert None not in (low, high), f"{chain_id}.{name} has no bounds, so no form can offer it."
            wide = low > 0 and high / low >= 1000
            assert not wide or parameter.scale == "log", f"{chain_id}.{name} spans decades: declare scale='log'."


@_question
def has_a_valid_schema_that_its_defaults_fit(chain_id: str, folder: Path) -> None:
    import jsonschema

    chain = registry.chain(chain_id)
    schema = chain.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(chain().parameters)
    with _refused(chain_id, "no_such_parameter"):
        chain(no_such_parameter=1)


@contextlib.contextmanager
def _refused(chain_id: str, name: str) -> Iterator[None]:
    said = None
    try:
        yield
    except ParameterError as error:
        said = str(error)
    assert said is not None, f"{chain_id} accepts a bad value of {name!r}."
    assert name in said, f"{chain_id} refuses a bad {name!r} without naming it: {said}"


def bad_values(parameter: Any) -> list[Any]:
    """Values that a parameter must refuse."""
    bad: list[Any] = [object(), {"a": 1}]
    if isinstance(parameter, Number | Count):
        bad += [math.nan, math.inf, -math.inf, "many", True, [1.0]]
        low, high = parameter.bounds
        bad += [] if low is None else [low - 1]
        bad += [] if high is None else [high + 1]
    if isinstance(parameter, Count):
        bad += [1.5]
    if isinstance(parameter, Choice):
        bad += ["no such option", 17.5]
    if isinstance(parameter, Flag):
        bad += ["maybe", 2]
    if isinstance(parameter, Numbers):
        bad += [[math.nan], ["a"], []]
    if isinstance(parameter, Period):
        bad += [["2012-01-01", "2010-01-01"], ["2010-13-01", "2011-01-01"], "2010/2011/2012"]
    if isinstance(parameter, Region):
        bad += [[0, 0, 1], [0, 10, 1, -10], [math.nan, 0, 1, 1], [500, 0, 510, 10]]
    if isinstance(parameter, Text | Variable):
        bad += [12, "\0"]
    if not parameter.allow_None:
        bad.append(None)
    return bad


@_question
def refuses_bad_values_by_name(chain_id: str, folder: Path) -> None:
    chain = registry.chain(chain_id)
    for name, parameter in chain.declared().items():
        for value in bad_values(parameter):
            with _refused(chain_id, name):
                chain(**{name: value})


@_question
def gives_its_defaults_to_the_command_line(chain_id: str, folder: Path) -> None:
    chain = registry.chain(chain_id)
    done = subprocess.run(
        [sys.executable, "-m", "phidias_lab", "run", chain_id, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    said = re.sub(r"[\s│]+", " ", done.stdout)
    for name, parameter in chain.declared().items():
        assert _option(name) in said, f"phidias run {chain_id} --help does not offer {_option(name)}."
        if parameter.units not in (None, "1"):
            assert parameter.units in said, f"phidias run {chain_id} --help does not give the units of {name}."
        if parameter.default is not None:
            shown = re.sub(r"\s+", " ", show(parameter.default))
            assert f"default: {shown}" in said, (
                f"phidias run {chain_id} --help gives {name} another default than {shown}."
            )
        assert parameter.doc[:30] in said, f"phidias run {chain_id} --help does not say what {name} does."


@_question
def gives_its_defaults_to_the_form(chain_id: str, folder: Path) -> None:
    chain = registry.chain(chain_id)
    try:
        from phidias_lab.widgets.form import Form
    except ImportError as error:
        raise MissingExtraError("Asking a chain for its form", "viz") from error
    form = Form(chain)
    assert form.values == chain().parameters, f"The form of {chain_id} does not start from the declared defaults."


def _whole(value: Any) -> Any:
    return value.compute() if hasattr(value, "compute") else value


def _cut(value: Any) -> Any:
    """The same input in several chunks."""
    if hasattr(value, "chunk"):
        return value.chunk({d: max(1, math.ceil(n / 2)) for d, n in value.sizes.items()})
    import dask.dataframe as dd

    cut = dd.from_pandas(value, npartitions=3, sort=False)
    return with_attributes(cut, value.attrs)


def _same(a: Any, b: Any, what: str) -> None:
    import numpy as np

    names, others = (list(d.columns) if hasattr(d, "columns") else list(d.variables) for d in (a, b))
    assert set(names) == set(others), f"{what}: {sorted(map(str, set(names) ^ set(others)))} is in one only."
    for name in names:
        left, right = np.asarray(_whole(a[name])), np.asarray(_whole(b[name]))
        assert left.shape == right.shape, f"{what}: {name} has shape {left.shape} and {right.shape}."
        if left.dtype.kind in "fc":
            scale = np.nanmax(np.abs(left), initial=0.0) or 1.0
            same = np.isnan(left) == np.isnan(right)
            close = np.abs(np.nan_to_num(left) - np.nan_to_num(right)) <= 1e-9 * scale
            assert (same & close).all(), f"{what}: {name} differs."
        else:
            assert (left == right).all(), f"{what}: {name} differs."


@_question
def gives_the_declared_outputs_with_units(chain_id: str, folder: Path) -> None:
    chain_class = registry.chain(chain_id)
    given = scene(chain_class)
    result = chain_class(**given["parameters"])(**given["inputs"])
    for name, wanted in chain_class.outputs.items():
        names = result.columns if hasattr(result, "columns") else result.data_vars
        if name not in names:
            assert wanted.optional, f"{chain_id} did not give its output {name!r}."
            continue
        attributes = result[name].attrs if hasattr(result, "data_vars") else result.attrs["columns"][name]
        if wanted.units is not None:
            assert attributes.get("units"), f"The output {name!r} of {chain_id} has no units."
        if wanted.units and "{" not in wanted.units:
            assert attributes["units"] == wanted.units


@_question
def gives_the_same_for_chunked_and_whole_input(chain_id: str, folder: Path) -> None:
    chain_class = registry.chain(chain_id)
    given = scene(chain_class)
    chain = chain_class(**given["parameters"])
    whole = {n: _whole(v) for n, v in given["inputs"].items()}
    _same(chain(**whole), chain(**{n: _cut(v) for n, v in whole.items()}), f"{chain_id}, whole and chunked")


def _copy(value: Any) -> Any:
    whole = _whole(value).copy(deep=True)
    whole.attrs = copy.deepcopy(dict(value.attrs))
    return whole


def _words(value: Any) -> str:
    """All attributes of an input, as text."""
    parts = getattr(value, "variables", {})
    return repr((dict(value.attrs), {name: dict(part.attrs) for name, part in parts.items()}))


@_question
def leaves_its_input_unchanged(chain_id: str, folder: Path) -> None:
    chain_class = registry.chain(chain_id)
    given = scene(chain_class)
    before = {name: _copy(value) for name, value in given["inputs"].items()}
    result = chain_class(**given["parameters"])(**given["inputs"])
    _whole(result)
    for name, value in given["inputs"].items():
        _same(before[name], value, f"{chain_id}, input {name!r} after the run")
        assert _words(before[name]) == _words(value), f"{chain_id} changes the attributes of its input {name!r}."


@_question
def makes_a_product_that_runs_again_to_the_same_bytes(chain_id: str, folder: Path) -> None:
    from phidias_lab import flow
    from phidias_lab.products import Product

    with _run_of_the_scene(chain_id, folder) as first:
        product = Product(first.product.path)
        assert first.product.verify() == [], "The product differs from its own checksums."
        again = flow.run(product.order.document())
        again.result(timeout=600)
    assert again.product.checksums == first.product.checksums, f"{chain_id} does not repeat itself."
    assert again.order.digest() == first.order.digest()


@_question
def makes_a_product_with_a_valid_record(chain_id: str, folder: Path) -> None:
    import pystac

    with _run_of_the_scene(chain_id, folder) as run:
        pystac.Item.from_dict(run.product.item).validate()
        path = run.product.path
        if path.suffix == ".nc":
            # A quantity that has no name in the CF table is given none (CF 3.3); the declaration says which those are.
            nameless = [n for n, output in registry.chain(chain_id).outputs.items() if output.standard_name is None]
            excused = tuple(f'variable "{n}" missing the following attributes:: standard_name' for n in nameless)
            found = [finding for finding in cf_findings(path) if not finding.endswith(excused)]
            assert not found, f"The product of {chain_id} has high-priority findings: {'; '.join(found)}"


def cf_findings(path: Path) -> list[str]:
    """High-priority findings of the IOOS compliance checker (CF 1.11 and ACDD 1.3) on a NetCDF file."""
    from compliance_checker.runner import CheckSuite

    CheckSuite.load_all_available_checkers()
    suite = CheckSuite()
    dataset = suite.load_dataset(str(path))
    try:
        found = []
        for checker, (groups, errors) in suite.run_all(dataset, ["cf:1.11", "acdd:1.3"], []).items():
            found += [f"{checker}: {name}: {error[0]}" for name, error in errors.items()]
            for group in groups:
                if group.weight >= 3 and group.value[0] < group.value[1]:
                    found += [f"{checker}: {group.name}: {message}" for message in _messages(group)]
        return found
    finally:
        dataset.close()


def _messages(group: Any) -> list[str]:
    found = list(group.msgs or [])
    for child in group.children or []:
        found += _messages(child)
    return found
