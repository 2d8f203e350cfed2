"""Chain: a processing chain as it is declared, checked, run and stamped.

A chain declares parameters, inputs, outputs and resources as class attributes and implements `run`. It gets opened,
lazy, labelled data and returns the same. It never opens a file, writes, plots, reads the environment or starts a
cluster; that is what lets one class serve a notebook, a form, a batch job and a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import param

from phidias_lab.contract.data import Input, Var, check_input, choose_variable, column_attributes
from phidias_lab.contract.parameters import Declared, Variable
from phidias_lab.contract.resources import Resources
from phidias_lab.errors import InputError, ParameterError, UnknownNameError, nearest


class Chain(param.Parameterized):
    """Base of all chains. Subclasses declare; see docs/do/add-a-chain.md."""

    id: ClassVar[str] = ""
    title: ClassVar[str] = ""
    version: ClassVar[str] = "1.0"
    kind: ClassVar[str] = "cube"
    inputs: ClassVar[Mapping[str, Input]] = {}
    outputs: ClassVar[Mapping[str, Var]] = {}
    resources: ClassVar[Resources] = Resources()
    #: "module:function" of a small synthetic scene: () -> {"inputs": {...}, "parameters": {...}}; used by the questions.
    scene: ClassVar[str] = ""
    references: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, parameter in cls.declared().items():
            if not (parameter.doc or "").strip():
                raise ParameterError(f"{cls.__name__}.{name} has no sentence: every parameter says what it does.")
            parameter.canonical(parameter.default)
            if isinstance(parameter, Variable) and parameter.of not in cls.inputs:
                raise ParameterError(f"{cls.__name__}.{name} is a variable of {parameter.of!r}, which is no input.")
        if cls.kind not in ("cube", "table", "features", "events", "model"):
            raise ParameterError(
                f"{cls.__name__}.kind must be cube, table, features, events or model, not {cls.kind!r}."
            )

    def __init__(self, **parameters: Any):
        declared = self.declared()
        self.report: Callable[[float, str], None] = lambda fraction, message="": None
        super().__init__(**{name: self._value(declared, name, value) for name, value in parameters.items()})

    @classmethod
    def _value(cls, declared: Mapping[str, Declared], name: str, value: Any) -> Any:
        if name not in declared:
            raise UnknownNameError(f"{cls.id or cls.__name__} has no parameter {name!r}. {nearest(name, declared)}")
        return declared[name].canonical(value)

    @classmethod
    def declared(cls) -> dict[str, Declared]:
        """The parameters in the order of their declaration."""
        found = {n: p for n, p in cls.param.objects("existing").items() if isinstance(p, Declared)}
        order = [n for klass in reversed(cls.__mro__) for n in vars(klass) if n in found]
        return {n: found[n] for n in dict.fromkeys(order)}

    @property
    def parameters(self) -> dict[str, Any]:
        """All values in their JSON form: what an order holds."""
        return {n: p.canonical(getattr(self, n)) for n, p in self.declared().items()}

    # What a chain implements ------------------------------------------------------------------------------------

    def run(self, **inputs: Any) -> Any:
        """The science: labelled lazy data in, labelled lazy data out."""
        raise NotImplementedError(f"{type(self).__name__} does not implement run().")

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Parameters that were left open ('auto', None) and what they become for these inputs."""
        return {}

    # What the doors call ----------------------------------------------------------------------------------------

    def checked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs in the declared form, or an error that names the one that is not."""
        for name in inputs:
            if name not in self.inputs:
                raise UnknownNameError(
                    f"{self.id or type(self).__name__} has no input {name!r}. {nearest(name, self.inputs)}"
                )
        checked = {}
        for name, wanted in self.inputs.items():
            if inputs.get(name) is None:
                if wanted.optional:
                    checked[name] = None
                    continue
                raise InputError(
                    f"{self.id or type(self).__name__} needs the input {name!r} ({wanted.kind}: {wanted.doc}). "
                    "Give a catalogue entry, a file or data in memory."
                )
            checked[name] = check_input(name, wanted, inputs[name])
        for name, parameter in self.declared().items():
            value = getattr(self, name)
            if isinstance(parameter, Variable) and value is not None and checked.get(parameter.of) is not None:
                choose_variable(name, value, parameter.of, checked[parameter.of])
        return checked

    def resolved(self, inputs: Mapping[str, Any]) -> Chain:
        """This chain with every open choice made."""
        return type(self)(**{**self.parameters, **self.resolve(inputs)})

    def __call__(self, **inputs: Any) -> Any:
        """Check the inputs, run, stamp the outputs: the way a script uses a chain without recording a run."""
        checked = self.checked(inputs)
        chain = self.resolved(checked)
        chain.report = self.report
        return chain.stamped(chain.run(**checked), checked)

    def stamped(self, result: Any, inputs: Mapping[str, Any]) -> Any:
        """The result with declared attributes; a result that is not as declared is the chain's error, said by name."""
        import xarray as xr

        me = self.id or type(self).__name__
        if self.kind == "cube" and not isinstance(result, xr.Dataset):
            raise ParameterError(f"{me}.run() must return an xarray Dataset; it returned a {type(result).__name__}.")
        names = result.columns if hasattr(result, "columns") else getattr(result, "data_vars", ())
        for name, wanted in self.outputs.items():
            if name not in names:
                if wanted.optional:
                    continue
                raise ParameterError(f"{me}.run() did not return the declared output {name!r}. {nearest(name, names)}")
            attributes = {k: self._filled(v, inputs) for k, v in wanted.attributes().items()}
            attributes = {k: v for k, v in attributes.items() if v}
            if self.kind == "cube":
                if wanted.dims is not None and tuple(result[name].dims) != tuple(wanted.dims):
                    raise ParameterError(
                        f"{me}.run() returned {name!r} with dimensions {tuple(result[name].dims)}, declared {wanted.dims}."
                    )
                result[name].attrs = {**result[name].attrs, **attributes}
            else:
                columns = dict(result.attrs.get("columns") or {})
                columns[name] = {**columns.get(name, {}), **attributes}
                result.attrs["columns"] = columns
        return result

    def _filled(self, template: str, inputs: Mapping[str, Any]) -> str | None:
        """'{variable}' in units or names becomes what the chosen variable of the input says; None if it says nothing."""
        if "{" not in template:
            return template
        for name, parameter in self.declared().items():
            if not isinstance(parameter, Variable) or "{" + name not in template:
                continue
            chosen, data = getattr(self, name), inputs[parameter.of]
            attributes = column_attributes(data).get(chosen, {}) if hasattr(data, "columns") else data[chosen].attrs
            facts = {
                f"{{{name}}}": chosen,
                f"{{{name}.units}}": attributes.get("units"),
                f"{{{name}.standard_name}}": attributes.get("standard_name"),
            }
            for form, value in facts.items():
                if form in template and value is None:
                    return None
                template = template.replace(form, str(value))
        return template

    @classmethod
    def describe(cls) -> dict:
        """The whole declaration as JSON: what forms, services and pages are derived from."""
        return {
            "id": cls.id,
            "title": cls.title,
            "version": cls.version,
            "summary": inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " "),
            "description": inspect.cleandoc(cls.__doc__ or ""),
            "kind": cls.kind,
            "parameters": {n: p.describe() for n, p in cls.declared().items()},
            "inputs": {n: i.describe() for n, i in cls.inputs.items()},
            "outputs": {n: {**o.attributes(), "dims": o.dims, "doc": o.doc} for n, o in cls.outputs.items()},
            "resources": cls.resources.describe(),
            "references": list(cls.references),
        }

    @classmethod
    def schema(cls) -> dict:
        """JSON Schema of the parameters."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": cls.title,
            "type": "object",
            "additionalProperties": False,
            "properties": {n: p.schema() for n, p in cls.declared().items()},
        }
