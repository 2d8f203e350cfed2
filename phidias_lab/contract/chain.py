"""Chain: a processing chain as it is declared, checked, run and stamped.

A chain declares parameters, inputs, outputs and resources as class attributes and implements `run`. It gets opened,
lazy, labelled data and returns the same. It never opens a file, writes, plots, reads the environment or starts a
cluster; that is what lets one class serve a notebook, a form, a batch job and a test.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import param

from phidias_lab.contract.data import (
    ERROR_TERMS,
    KINDS,
    Input,
    Needs,
    Var,
    check_input,
    choose_variable,
    column_attributes,
    is_synthetic,
    with_errors,
)
from phidias_lab.contract.parameters import Declared, Variable, show
from phidias_lab.contract.resources import Resources
from phidias_lab.contract.said import Said
from phidias_lab.errors import InputError, ParameterError, UnknownNameError, kind_of, nearest

#: Words that the doors give a meaning of their own (phidias_lab.run(..., title=...)), so no parameter may have them.
RESERVED = (
    "what",
    "title",
    "output",
    "format",
    "overwrite",
    "name",
    "parameters",
    "report",
    "said",
    "keep",
    "on",
    "workers",
)


class _Declaration(type(param.Parameterized)):
    """Looks at a declaration as soon as its class exists; param knows its parameters only then."""

    def __init__(cls, name, bases, namespace):
        super().__init__(name, bases, namespace)
        for attribute, value in namespace.items():
            inherited = next((vars(k)[attribute] for k in cls.__mro__[1:] if attribute in vars(k)), None)
            if isinstance(inherited, Declared) and not isinstance(value, Declared):
                # `length = 5.0` below a class that declares length is a new default: bounds, units and sentence stay.
                type.__delattr__(cls, attribute)
                setattr(cls, attribute, value)
        cls._check_declaration()


class Chain(param.Parameterized, metaclass=_Declaration):
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

    @classmethod
    def _check_declaration(cls) -> None:
        me = cls.__name__
        if cls.kind not in KINDS:
            raise ParameterError(f"{me}.kind must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {cls.kind!r}.")
        for what, found, wanted in (("inputs", cls.inputs, Input), ("outputs", cls.outputs, Var)):
            if not isinstance(found, Mapping) or not all(isinstance(v, wanted) for v in found.values()):
                raise ParameterError(f"{me}.{what} must map names to {wanted.__name__}(...).")
        if not isinstance(cls.resources, Resources):
            raise ParameterError(f"{me}.resources must be Resources(...), not {kind_of(cls.resources)}.")
        declared = cls.declared()
        for name, parameter in declared.items():
            if name in RESERVED or hasattr(Chain, name):
                raise ParameterError(f"{me}.{name} is a word the lab uses itself; give the parameter another name.")
            if not (parameter.doc or "").strip():
                raise ParameterError(f"{me}.{name} has no sentence: every parameter says what it does.")
            # Canonical, so that an order that leaves a parameter out and one that writes its default are the same.
            canonical = parameter.canonical(parameter.default)
            if canonical is not parameter.default:
                parameter.default = canonical
            if isinstance(parameter, Variable) and parameter.of not in cls.inputs:
                raise ParameterError(f"{me}.{name} is a variable of {parameter.of!r}, which is no input.")
        variables = {n for n, p in declared.items() if isinstance(p, Variable)}
        for name, output in cls.outputs.items():
            for term, other in output.errors.items():
                if term not in ERROR_TERMS or other not in cls.outputs:
                    raise ParameterError(
                        f"{me}.outputs[{name!r}] has errors {term!r}: {other!r}; a term is one of {', '.join(ERROR_TERMS)} "
                        "and names an output."
                    )
            for template in output.attributes().values():
                for field in re.findall(r"\{([^{}]*)\}", template):
                    chosen, _, fact = field.partition(".")
                    if chosen not in variables or fact not in ("", "units", "standard_name"):
                        raise ParameterError(
                            f"{me}.outputs[{name!r}] says {template!r}; {{{field}}} must be a parameter of kind variable, "
                            "with .units or .standard_name if one of these is meant."
                        )

    def __init__(self, **parameters: Any):
        declared = self.declared()
        self.report: Callable[[float, str], None] = lambda fraction, message="": None
        self.said = Said()
        #: `keep(name, cube)` computes a lazy cube now, piece by piece, and gives it back computed: what later pieces need of
        #: their neighbours. In a run it is kept on disk until the run has ended, so that it is never computed twice.
        self.keep: Callable[[str, Any], Any] = lambda name, cube: cube.persist()
        super().__init__(**{name: self._value(declared, name, value) for name, value in parameters.items()})

    def __reduce__(self):
        # Pieces that name their chain travel to workers; whoever listens to its report stays where it is.
        return _again, (type(self), self.parameters)

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

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Refuse, as an InputError, inputs that these parameters cannot work with.

        Called before a run is recorded and again by its worker. The inputs have the declared form and are lazy: look at
        metadata, coordinates and `extent(table, column)` only; whatever needs the values is for `run` to find.
        """

    def needs(self, inputs: Mapping[str, Any]) -> Mapping[str, Needs]:
        """Which columns and rows of its tables this chain needs; the reader may then leave out the others."""
        return {}

    def places(self, inputs: Mapping[str, Any]) -> Any | None:
        """Where the values lie that a run uses: a DataFrame with a row for each, or None where the chain does not say.

        `longitude` and `latitude` are its own. Every other column is named after a dimension of the result and holds the
        coordinate of the slice in which the value was used, so that a map can show the places behind each of its slices.
        Called on demand, after a run and with its resolved parameters; the values of the inputs may be read.
        """
        return None

    def observed(self, inputs: Mapping[str, Any], *more: str) -> Any | None:
        """The observations that a run uses: a DataFrame with a row for each use, or None where the chain does not say.

        `observation` numbers the observations, and `in_<dimension>` holds the coordinate of the slice of the result in
        which one was used. All other columns are its own: place, time, value, and those of `more` that the table has.
        Called like `places`.
        """
        return None

    def influences(self, inputs: Mapping[str, Any], **cell: Any) -> Any | None:
        """What each value that a run used weighs in one cell of the result: a DataFrame with a row for each, the weightiest
        first, or None where the chain does not say.

        `cell` holds a coordinate for each dimension of the result (the nearest is taken). The columns `longitude`,
        `latitude`, `weight` (by how much the cell changes when the value changes by one) and `contribution` (what it adds to
        the cell) are there; the others tell what the value is. `attrs` holds the units of the columns ("columns"), the
        coordinates of the cell that was taken ("cell"), what its value is the sum of ("made_of"), and that in words
        ("words"). Called on demand, like `places`.
        """
        return None

    def events(self, result: Any) -> Any | None:
        """The events that a result tells of: a DataFrame with a row for each, or None where the chain finds no events.

        `time` (UTC), `kind` (a short text) and `geometry` (shapely, longitude and latitude), or `longitude` and `latitude`
        in its place, are there. `time_end`, `quality` (0 to 1), `false_alarm_rate` and `synthetic` may be, and `id`, which
        tells an event from the others of its input: with it an event stays the same one when its outline changes a little.
        Every other column is kept as a property of the event. `result` is the product, opened lazily. The result of a chain
        of kind "events" is such a table itself.
        """
        return result if self.kind == "events" else None

    def headline(self, inputs: Mapping[str, Any]) -> str:
        """One line that tells this run from others of the chain; the title of runs to which nobody gave one."""
        declared = self.declared()
        changed = [
            f"{name.replace('_', ' ')} {value if isinstance(value, str) else show(value)}"
            for name, value in self.parameters.items()
            if declared[name].level == "user" and value not in (None, "", declared[name].default)
        ]
        return ", ".join([self.title or self.id, *changed[:4]])

    # What a chain may say beside its result -----------------------------------------------------------------------

    def counted(self, what: str, total: int, left_out: Mapping[str, int]) -> None:
        """Say how many of an input's parts there were, and for each reason how many were left out; each counts once."""
        self.said.counted(what, total, left_out)

    def warn(self, sentence: str) -> None:
        """Say what the user should know of this result: one sentence, complete in itself."""
        self.said.warn(sentence)

    def found(self, sentence: str) -> None:
        """Say the result in one sentence, where it is a few numbers."""
        if sentence not in self.said.found:
            self.said.found.append(sentence)

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
        self.check(checked)
        return checked

    def titled(self, inputs: Mapping[str, Any]) -> str:
        """The headline as one line of at most 200 characters; what was made from synthetic values says so."""
        line = "".join(c for c in " ".join(self.headline(inputs).split()) if c.isprintable())
        ending = " (synthetic)" if self._synthetic_values(inputs) and "synthetic" not in line.lower() else ""
        room = 200 - len(ending)
        return (line if len(line) <= room else f"{line[: room - 3]}...") + ending

    def resolved(self, inputs: Mapping[str, Any]) -> Chain:
        """This chain with every open choice made."""
        return type(self)(**{**self.parameters, **self.resolve(inputs)})

    def __call__(self, **inputs: Any) -> Any:
        """Check the inputs, run, stamp the outputs: the way a script uses a chain without recording a run."""
        checked = self.checked(inputs)
        chain = self.resolved(checked)
        chain.report, chain.keep = self.report, self.keep
        chain.said = self.said = Said()
        return chain.stamped(chain.run(**checked), checked)

    def stamped(self, result: Any, inputs: Mapping[str, Any]) -> Any:
        """The result with declared attributes; a result that is not as declared is the chain's error, said by name."""
        import xarray as xr

        me = self.id or type(self).__name__
        if self.kind == "cube":
            if not isinstance(result, xr.Dataset):
                raise ParameterError(f"{me}.run() must return an xarray Dataset; it returned {kind_of(result)}.")
            result = result.copy()  # a chain may hand on its input, which stays as it was
        elif self.kind != "model":
            if not hasattr(result, "columns"):
                raise ParameterError(f"{me}.run() must return a DataFrame; it returned {kind_of(result)}.")
            attrs = dict(getattr(result, "attrs", None) or {})
            result = result.copy()
            result.attrs = attrs
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
                result[name].attrs = with_errors({**result[name].attrs, **attributes}, wanted.errors, names)
            else:
                columns = dict(result.attrs.get("columns") or {})
                columns[name] = with_errors({**columns.get(name, {}), **attributes}, wanted.errors, names)
                result.attrs = {**result.attrs, "columns": columns}
        if self.kind != "model":
            result.attrs = {**result.attrs, **self._origin(result, inputs)}
            result.attrs = {k: v for k, v in result.attrs.items() if v is not None}
        if self.kind != "model" and self.said:
            result.attrs = {**result.attrs, **self.said.attributes(str(result.attrs.get("comment") or ""))}
        return result

    def _origin(self, result: Any, inputs: Mapping[str, Any]) -> dict[str, str | None]:
        """What a result says of its origin; None takes away what came with an input that the chain handed on.

        What was made from synthetic values is synthetic, and says so wherever it is shown. A synthetic grid under real
        observations makes no synthetic result, but is named.
        """
        synthetic = [name for name, data in inputs.items() if is_synthetic(data)]
        if not synthetic:
            return {}
        values = "true" if self._synthetic_values(inputs) else None
        return {"synthetic": values, "synthetic_inputs": ", ".join(synthetic)}

    def _synthetic_values(self, inputs: Mapping[str, Any]) -> bool:
        return any(i.role == "values" and is_synthetic(inputs.get(name)) for name, i in self.inputs.items())

    def _filled(self, template: str, inputs: Mapping[str, Any]) -> str | None:
        """'{variable}' in units or names becomes what the chosen variable of the input says; None if it says nothing."""
        if "{" not in template:
            return template
        for name, parameter in self.declared().items():
            if not isinstance(parameter, Variable) or "{" + name not in template:
                continue
            chosen, data = getattr(self, name), inputs.get(parameter.of)
            if chosen is None or data is None:
                return None
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
            "outputs": {
                n: {**o.attributes(), "dims": o.dims, "doc": o.doc, "errors": dict(o.errors)}
                for n, o in cls.outputs.items()
            },
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


def _again(cls: type[Chain], parameters: Mapping[str, Any]) -> Chain:
    return cls(**parameters)
