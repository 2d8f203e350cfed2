"""The form of a chain: a view of its declaration.

    >>> form = Form("ocean.gridding")            # doctest: +SKIP
    >>> form.set({"length": 150e3})              # doctest: +SKIP
    >>> form.order({"observations": "my.csv"})   # doctest: +SKIP

Nothing here knows any chain: a new parameter appears by itself, and whether a value is good is asked of the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import panel as pn
import param

from phidias_lab.contract import registry
from phidias_lab.contract.chain import Chain
from phidias_lab.contract.order import Order, reference
from phidias_lab.contract.parameters import LEVELS
from phidias_lab.errors import UnknownNameError, nearest
from phidias_lab.widgets.controls import button, prepare, say, sentence, tick
from phidias_lab.widgets.fields import Field, VariableField, field_of


class Form(pn.viewable.Viewer):
    """Controls for the parameters of a chain, given by its id, its class or a configured instance."""

    level = param.Selector(default="user", objects=list(LEVELS), doc="Show what most people change, or everything")
    changes = param.Integer(default=0, doc="Grows by one whenever a value changes", precedence=-1)

    def __init__(self, chain: str | type[Chain] | Chain, *, level: str = "user"):
        prepare()
        super().__init__(level=level)
        self.chain = registry.chain(chain) if isinstance(chain, str) else chain
        if isinstance(chain, Chain):
            self.chain = type(chain)
        self.fields: dict[str, Field] = {
            name: field_of(parameter, self._changed) for name, parameter in self.chain.declared().items()
        }
        self._expert = tick("Show expert parameters", level == "expert")
        self._expert.param.watch(lambda event: setattr(self, "level", LEVELS[self._expert.on]), "value")
        self._reset = button("Defaults", self.reset, width=90)
        self._hidden = sentence()
        has_expert = any(f.parameter.level == "expert" for f in self.fields.values())
        self._expert.visible = has_expert
        self._layout = pn.Column(
            pn.Row(self._expert, self._reset, margin=0),
            *(field.layout for field in self.fields.values()),
            self._hidden,
            css_classes=["phidias-form"],
        )
        if isinstance(chain, Chain):
            self.set(chain.parameters)
        self._show()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    @property
    def values(self) -> dict[str, Any]:
        """All values in their JSON form, as an order holds them; raises the first problem."""
        return {name: field.value for name, field in self.fields.items()}

    @property
    def problems(self) -> dict[str, str]:
        """A sentence for each parameter whose value cannot be used."""
        found = {name: field.problem for name, field in self.fields.items()}
        return {name: problem for name, problem in found.items() if problem}

    @property
    def valid(self) -> bool:
        return not self.problems

    def set(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Show these values. All of them are checked first: one that cannot be used leaves the form as it was."""
        values = {**(values or {}), **more}
        for name, value in values.items():
            if name not in self.fields:
                raise UnknownNameError(
                    f"{self.chain.id or self.chain.__name__} has no parameter {name!r}. {nearest(name, self.fields)}"
                )
            self.fields[name].parameter.canonical(value)
        for name, value in values.items():
            self.fields[name].set(value)
        self._changed()

    def reset(self) -> None:
        """Back to the declared defaults."""
        self.set({name: field.parameter.default for name, field in self.fields.items()})

    def offer(self, name: str, variables: list[str] | None) -> None:
        """Tell the form which variables an input has; None when that is not known."""
        for field in self.fields.values():
            if isinstance(field, VariableField) and field.parameter.of == name:
                field.offer(variables)
        self._changed()

    def order(self, inputs: Mapping[str, Any] | None = None, *, title: str | None = None) -> Order:
        """The order that these values make, with inputs given as catalogue addresses, files or references."""
        known = self.chain.inputs
        for name in inputs or {}:
            if name not in known:
                raise UnknownNameError(f"{self.chain.id} has no input {name!r}. {nearest(name, known)}")
        return Order(
            chain=self.chain.id,
            version=self.chain.version,
            parameters=self.values,
            inputs={name: reference(value, f"The input {name!r}") for name, value in (inputs or {}).items()},
            title=title,
        )

    def _changed(self) -> None:
        self._show()
        self.changes += 1

    @param.depends("level", watch=True)
    def _show(self) -> None:
        """Expert fields are hidden for users, but never one that has a problem."""
        self._expert.on = self.level == "expert"
        other = []
        for name, field in self.fields.items():
            hidden = field.parameter.level == "expert" and self.level == "user"
            field.layout.visible = not hidden or field.problem is not None
            if hidden and field.problem is None and field.value != field.parameter.default:
                other.append(f"{name} = {field.value}")
        say(self._hidden, f"Expert parameters that differ from their defaults: {', '.join(other)}." if other else "")
