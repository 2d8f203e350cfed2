"""One field per kind of parameter: its controls, what they say, and the sentence when it cannot be used.

A field reads its controls through the parameter's own `canonical` and `parse`, so the form, the command line and a
script refuse the same values with the same words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from datetime import date
from typing import Any

import panel as pn

from phidias_lab.contract.parameters import Declared
from phidias_lab.errors import ParameterError
from phidias_lab.widgets.controls import control, fold, say, sentence, tick

#: Numbers that slide are rounded to this many digits; typed ones keep every digit.
_DIGITS = 3
_WIDTH = 320


def caption_of(parameter: Declared) -> str:
    """What stands above a control: the parameter's label and its units."""
    units = parameter.units
    return parameter.label if units in (None, "1", "") else f"{parameter.label} [{units}]"


class Field:
    """The controls of one parameter. `value` is its JSON form or raises the ParameterError that `problem` tells."""

    def __init__(self, parameter: Declared, changed: Callable[[], None] = lambda: None):
        self.parameter = parameter
        self.changed = changed
        self._quiet = False
        self._complaint = sentence()
        self.controls = self.build()
        for widget in self.watched():
            widget.param.watch(self._touched, "value")
        self.layout = pn.Column(self.arranged(), self._complaint, margin=(0, 0, 4, 0), css_classes=["phidias-field"])
        self.set(parameter.default)

    # What a kind defines ----------------------------------------------------------------------------------------

    def build(self) -> dict[str, pn.widgets.Widget]:
        """The controls by name; 'main' is the one that a script would set."""
        raise NotImplementedError(type(self))

    def read(self) -> Any:
        """The value the controls show; may raise ParameterError."""
        return self.parameter.canonical(self.widget.value)

    def show(self, value: Any) -> None:
        """Let the controls show a canonical value."""
        self.widget.value = value

    def arranged(self) -> pn.viewable.Viewable:
        return self.widget

    def watched(self) -> list[pn.widgets.Widget]:
        return list(self.controls.values())

    # What all share ---------------------------------------------------------------------------------------------

    @property
    def widget(self) -> pn.widgets.Widget:
        return self.controls["main"]

    @property
    def value(self) -> Any:
        return self.read()

    @property
    def problem(self) -> str | None:
        """The sentence that says why the value cannot be used."""
        try:
            self.read()
        except ParameterError as error:
            return str(error)
        return None

    def set(self, value: Any) -> None:
        """Show a value; one that cannot be used is refused and nothing changes."""
        canonical = self.parameter.canonical(value)
        with self._silently():
            self.show(canonical)
        self.refresh()

    def refresh(self) -> None:
        say(self._complaint, self.problem or "", problem=True)

    @contextmanager
    def _silently(self):
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _touched(self, event: Any) -> None:
        if self._quiet:
            return
        with self._silently():
            self.follow(event)
        self.refresh()
        self.changed()

    def follow(self, event: Any) -> None:
        """Let the other controls of this field agree with the one that was touched."""

    def main(self, kind: type, **settings: Any) -> pn.widgets.Widget:
        if "description" in kind.param:
            settings.setdefault("description", self.help())
        settings.setdefault("width", _WIDTH)
        return control(kind, caption_of(self.parameter), **settings)

    def help(self) -> str:
        return f"{self.parameter.doc.strip().rstrip('.')}. Expected: {self.parameter.expected()}."


class NumberField(Field):
    """A number to type, exact; beside it a slider when it has two bounds, on log10 when it spans decades.

    The typed number has no bounds in the browser, which would change it without a word: what lies outside is refused
    with a sentence. The slider cannot leave the bounds.
    """

    whole = False

    def build(self):
        low, high = self.parameter.bounds
        typed = pn.widgets.IntInput if self.whole else pn.widgets.FloatInput
        step = 1 if self.whole else self._step(low, high)
        controls = {"main": self.main(typed, value=None, step=step, width=130 if self._slides else _WIDTH)}
        if self._slides:
            start, end = self._place(low), self._place(high)
            slider_step = 1 if self.whole and not self._log else (end - start) / 200
            text = f"{self.parameter.label}: {low:g} to {high:g}{', log' if self._log else ''}"
            controls["slider"] = control(
                pn.widgets.FloatSlider,
                text,
                start=start,
                end=end,
                step=slider_step,
                value=start,
                show_value=False,
                tooltips=False,
                width=_WIDTH - 150,
                margin=(5, 10),
            )
        return controls

    @property
    def _log(self) -> bool:
        return self.parameter.scale == "log"

    @property
    def _slides(self) -> bool:
        low, high = self.parameter.bounds
        return low is not None and high is not None and high > low and (not self._log or low > 0)

    def _step(self, low, high) -> float:
        if self._log or low is None or high is None or high <= low:
            return max(abs(self.parameter.default or 1.0) / 10, 1e-12)
        return 10.0 ** math.floor(math.log10((high - low) / 20))

    def _place(self, value: float) -> float:
        return math.log10(value) if self._log else float(value)

    def _at(self, place: float) -> float | int:
        """The value at a place of the slider: a round number inside the bounds."""
        low, high = self.parameter.bounds
        value = 10.0**place if self._log else place
        if self.whole:
            return min(max(round(value), low), high)
        step = 0.0 if self._log else (high - low) / 200
        digits = _DIGITS if not step or not value else max(_DIGITS, math.ceil(math.log10(abs(value) / step)) + 1)
        return min(max(float(f"{value:.{digits}g}"), low), high)

    def arranged(self):
        if "slider" not in self.controls:
            return self.widget
        return pn.Row(self.widget, self.controls["slider"], margin=0)

    def show(self, value):
        self.widget.value = value
        self._move(value)

    def _move(self, value):
        slider = self.controls.get("slider")
        low, high = self.parameter.bounds
        if slider is not None and value is not None and math.isfinite(value):
            slider.value = min(max(self._place(min(max(value, low), high)), slider.start), slider.end)

    def follow(self, event):
        slider = self.controls.get("slider")
        if event.obj is slider:
            self.widget.value = self._at(event.new)
        else:
            self._move(event.new)


class CountField(NumberField):
    whole = True


class ChoiceField(Field):
    def build(self):
        options = {str(option): option for option in self.parameter.options}
        if self.parameter.allow_None and None not in options.values():
            options = {"(none)": None, **options}
        return {"main": self.main(pn.widgets.Select, options=options)}


class FlagField(Field):
    def build(self):
        return {"main": tick(caption_of(self.parameter))}

    def read(self):
        return self.parameter.canonical(self.widget.on)

    def show(self, value):
        self.widget.on = bool(value)

    def arranged(self):
        return pn.Row(self.widget, pn.widgets.TooltipIcon(value=self.help(), margin=(5, 0)), margin=0)


class TextField(Field):
    """Text as it is typed; an empty field is nothing where nothing is allowed."""

    def build(self):
        long = (self.parameter.metadata.get("max_length") or 0) > 200
        return {"main": self.main(pn.widgets.TextAreaInput if long else pn.widgets.TextInput, value="")}

    def read(self):
        text = self.widget.value or ""
        return self.parameter.canonical(None if not text and self.parameter.allow_None else text)

    def show(self, value):
        self.widget.value = "" if value is None else str(value)


class ParsedField(Field):
    """Text that the parameter itself reads, as on the command line: lists of numbers, files."""

    def build(self):
        hint = "empty: the chain decides" if self.parameter.allow_None else ""
        return {"main": self.main(pn.widgets.TextInput, value="", placeholder=hint)}

    def read(self):
        return self.parameter.parse(self.widget.value or "")

    def show(self, value):
        if isinstance(value, list):
            value = ", ".join(repr(v) if v != int(v) or abs(v) > 1e15 else str(int(v)) for v in value)
        self.widget.value = "" if value is None else str(value)


class PeriodField(Field):
    """First and last day. Times of day cannot be picked, but one that was set is kept until a day is changed."""

    def build(self):
        first = self.main(pn.widgets.DatePicker, width=_WIDTH // 2 - 10)
        last = control(pn.widgets.DatePicker, "to, inclusive", description=self.help(), width=_WIDTH // 2 - 10)
        self._exact = None
        return {"main": first, "end": last}

    def arranged(self):
        return pn.Row(*self.controls.values(), margin=0)

    def read(self):
        if self._exact is not None:
            return self._exact
        days = [widget.value for widget in self.controls.values()]
        if days == [None, None]:
            return self.parameter.canonical(None)
        if None in days:
            missing = "last" if days[1] is None else "first"
            raise ParameterError(
                f"Parameter {self.parameter.name!r} has no {missing} day. Choose it, or empty the other one as well."
            )
        return self.parameter.canonical([str(day) for day in days])

    def show(self, value):
        for k, widget in enumerate(self.controls.values()):
            widget.value = None if value is None else date.fromisoformat(value[k][:10])
        self._exact = value

    def follow(self, event):
        self._exact = None


class RegionField(Field):
    """West, south, east and north to type, or a GeoJSON polygon, which goes first."""

    SIDES = ("west", "south", "east", "north")

    def build(self):
        sides = {}
        for side in self.SIDES:
            text = f"{self.parameter.label} {side} [°]"
            low, high = (-180, 360) if side in ("west", "east") else (-90, 90)
            help_ = f"{self.parameter.doc.strip().rstrip('.')}: its {side}, {low} to {high} degrees."
            sides[side] = control(
                pn.widgets.FloatInput, text, value=None, step=1.0, description=help_, width=_WIDTH // 2 - 10
            )
        polygon = control(
            pn.widgets.TextAreaInput,
            f"{self.parameter.label} as a GeoJSON polygon",
            value="",
            placeholder='{"type": "Polygon", "coordinates": [[[...]]]}',
            description="A GeoJSON Polygon or MultiPolygon in degrees; it is used instead of the box.",
            max_length=1_000_000,
            rows=3,
            width=_WIDTH - 30,
        )
        return {"main": polygon, **sides}

    def arranged(self):
        west, south, east, north = (self.controls[side] for side in self.SIDES)
        self._card = fold("Polygon instead of a box", self.widget, width=_WIDTH)
        return pn.Column(pn.Row(west, east, margin=0), pn.Row(south, north, margin=0), self._card, margin=0)

    def read(self):
        text = (self.widget.value or "").strip()
        if text:
            return self.parameter.parse(text)
        box = [self.controls[side].value for side in self.SIDES]
        if box == [None] * 4:
            return self.parameter.canonical(None)
        missing = [side for side, value in zip(self.SIDES, box, strict=True) if value is None]
        if missing:
            raise ParameterError(
                f"Parameter {self.parameter.name!r} has no {' and no '.join(missing)}. "
                "Fill all four sides, or empty all of them."
            )
        return self.parameter.canonical(box)

    def show(self, value):
        box = value if isinstance(value, list) else [None] * 4
        for side, number in zip(self.SIDES, box, strict=True):
            self.controls[side].value = number
        self.widget.value = json.dumps(value) if isinstance(value, dict) else ""
        self._card.collapsed = not isinstance(value, dict)


class VariableField(Field):
    """A list of the chosen input's variables; a text as long as the input is not known."""

    def build(self):
        known = self.main(pn.widgets.Select, options=[], visible=False)
        return {"main": self.main(pn.widgets.TextInput, value=""), "known": known}

    def arranged(self):
        return pn.Column(*self.controls.values(), margin=0)

    @property
    def names(self) -> list[str] | None:
        """The variables that may be chosen; None while they are not known."""
        return list(self.controls["known"].options) if self.controls["known"].visible else None

    def offer(self, names: list[str] | None) -> None:
        """What the chosen input holds; None when that is not known."""
        known = self.controls["known"]
        with self._silently():
            value = self.widget.value
            # A name the input lacks stays on the list, so that the control never shows another one than it holds.
            known.options = list(dict.fromkeys([*(names or []), *([value] if value else [])]))
            known.value = value or None
            self._offered = names
            known.visible, self.widget.visible = names is not None, names is None
        self.refresh()

    _offered: list[str] | None = None

    def read(self):
        text = self.widget.value or ""
        value = self.parameter.canonical(None if not text and self.parameter.allow_None else text)
        if self._offered is not None and value is not None and value not in self._offered:
            from phidias_lab.errors import nearest

            raise ParameterError(
                f"Parameter {self.parameter.name!r} was given {value!r}; the chosen input {self.parameter.of!r} has no "
                f"such variable. {nearest(value, self._offered)}"
            )
        return value

    def show(self, value):
        self.widget.value = value or ""
        known = self.controls["known"]
        if value and value not in known.options:
            known.options = [*known.options, value]
        known.value = value

    def follow(self, event):
        if event.obj is self.controls["known"]:
            self.widget.value = event.new or ""
        else:
            self.show(event.new)


FIELDS: dict[str, type[Field]] = {
    "number": NumberField,
    "count": CountField,
    "choice": ChoiceField,
    "flag": FlagField,
    "text": TextField,
    "numbers": ParsedField,
    "period": PeriodField,
    "region": RegionField,
    "variable": VariableField,
    "file": ParsedField,
}


def field_of(parameter: Declared, changed: Callable[[], None]) -> Field:
    """The field for a parameter; a kind without a field of its own is typed as on the command line."""
    return FIELDS.get(parameter.kind, ParsedField)(parameter, changed)
