"""Choosing an input: an entry of the catalogue that has the right kind, a file, or data stored with an earlier run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import panel as pn

from phidias_lab.contract.data import Input, measured
from phidias_lab.contract.order import reference
from phidias_lab.errors import InputError, ParameterError, PhidiasError
from phidias_lab.lake import catalog, readers
from phidias_lab.widgets.controls import control, fold, say, sentence

_FILE, _NOTHING, _STORED = "(file)", "(nothing)", "(stored)"
_WIDTH = 320


def entries_of(kind: str | None = None) -> list[dict]:
    """Facts of the catalogue's entries, of one kind or of all; nothing is opened."""
    return [facts for facts in catalog.entries() if kind is None or facts["kind"] == kind]


def title_of(facts: Mapping[str, Any]) -> str:
    """One line for an entry: its address, what it is, and that it is synthetic when it is."""
    first = facts["description"].strip().split("\n")[0].split(". ")[0].rstrip(".")
    first = first if len(first) <= 60 else first[:57] + "..."
    made = f"{facts['address']}: {first}" if first else facts["address"]
    return f"{made} (synthetic)" if facts["synthetic"] and "synthetic" not in made.lower() else made


def _what_a_file_is(kind: str) -> str:
    """What may be written in the place of a file; formats of many files are opened as one cube."""
    if kind != "cube":
        return "A file, a store, or an address such as s3://bucket/data."
    names = " or ".join(readers.patterns())
    return (
        "A file, a store, or an address such as s3://bucket/data. Several files are one cube, as a folder or as a pattern "
        f"such as /data/*_RA_BD7_*, where they are called {names}."
    )


class InputChooser(pn.viewable.Viewer):
    """One input of a chain. `reference` is what an order holds; `set` shows one."""

    def __init__(self, name: str, declared: Input, changed: Callable[[], None] = lambda: None):
        super().__init__()
        self.name_of_input, self.declared, self._changed = name, declared, changed
        self._stored: dict | None = None
        self._quiet = False
        text = name.replace("_", " ")
        help_ = f"{declared.doc.strip().rstrip('.')} (a {declared.kind})."
        self.choice = control(
            pn.widgets.Select, f"Input: {text}", options=self._options(), description=help_, width=_WIDTH
        )
        self.file = control(
            pn.widgets.TextInput,
            f"Path or address of the {text}",
            placeholder="/data/my_file.nc",
            description=_what_a_file_is(declared.kind),
            visible=False,
            width=_WIDTH,
            max_length=4000,
        )
        self.parameters = control(
            pn.widgets.TextInput,
            f"Parameters of the entry for {text}",
            placeholder='{"region": "-20,40,0,55"}',
            description="A JSON object; empty takes the entry as it is.",
            width=_WIDTH - 30,
            max_length=100_000,
        )
        self._part = fold("Only a part of this entry", self.parameters, visible=False, width=_WIDTH)
        self.note = sentence(width=_WIDTH)
        self._layout = pn.Column(self.choice, self.file, self.note, self._part, margin=(0, 0, 6, 0))
        for widget in (self.choice, self.file, self.parameters):
            widget.param.watch(self._touched, "value")
        self.set(declared.default)

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _options(self) -> dict[str, str]:
        options = {}
        if self.declared.optional:
            options["nothing"] = _NOTHING
        for facts in entries_of(self.declared.kind):
            options[title_of(facts)] = facts["address"]
        if self._stored is not None:
            options[f"stored with a run ({self._stored['stored']})"] = _STORED
        options["a file or an address ..."] = _FILE
        return options

    @property
    def reference(self) -> dict | None:
        """The input as an order names it; None for an optional input that is left out."""
        chosen = self.choice.value
        if chosen == _NOTHING:
            return None
        if chosen == _STORED:
            return dict(self._stored)
        if chosen == _FILE:
            path = (self.file.value or "").strip()
            if not path:
                raise InputError(
                    f"The input {self.name_of_input!r} has no file yet. Write its path, or choose an entry."
                )
            return {"file": path}
        text = (self.parameters.value or "").strip()
        if not text:
            return {"entry": chosen}
        try:
            parameters = json.loads(text)
        except json.JSONDecodeError as error:
            raise ParameterError(
                f"The parameters of the entry {chosen!r} are not JSON ({error.msg}). Write an object such as "
                '{"region": "-20,40,0,55"}, or empty the field.'
            ) from None
        return reference({"entry": chosen, "parameters": parameters}, f"The input {self.name_of_input!r}")

    def set(self, value: str | Mapping | None) -> None:
        """Show a catalogue address, a path, a reference of an order, or nothing."""
        found = None if value is None else reference(value, f"The input {self.name_of_input!r}")
        before, self._quiet = self._quiet, True
        try:
            self._stored = dict(found) if found and "stored" in found else None
            options = self._options()
            if found and "entry" in found and found["entry"] not in options.values():
                # An address the catalogue does not list stays visible; the note below says what is wrong with it.
                options = {found["entry"]: found["entry"], **options}
            self.choice.options = options
            if found is None:
                self.choice.value = _NOTHING if self.declared.optional else next(iter(options.values()))
            elif "entry" in found:
                self.choice.value = found["entry"]
            elif "stored" in found:
                self.choice.value = _STORED
            else:
                self.choice.value = _FILE
            self.file.value = (found or {}).get("file", "")
            parameters = (found or {}).get("parameters")
            self.parameters.value = json.dumps(dict(parameters)) if parameters else ""
        finally:
            self._quiet = before
        self._touched()

    def open(self) -> Any | None:
        """The data, lazily; None for what is left out or stored with a run."""
        ref = self.reference
        if ref is None or "stored" in ref:
            return None
        if "entry" in ref:
            return catalog.open_entry(ref["entry"], ref.get("parameters") or {})[0]
        return catalog.open_file(ref["file"])[0]

    def look(self) -> tuple[list[str] | None, dict[str, int]]:
        """Names of the variables and the sizes, as far as they are known without reading values."""
        try:
            data = self.open()
        except PhidiasError as error:
            say(self.note, str(error), problem=True)
            return None, {}
        if data is None:
            say(self.note, "")
            return None, {}
        if hasattr(data, "columns"):
            say(self.note, f"{len(data.columns)} columns")
            return measured(data), {"columns": len(data.columns)}
        if hasattr(data, "data_vars"):
            sizes = {str(d): int(n) for d, n in data.sizes.items()}
            say(self.note, ", ".join(f"{d} {n}" for d, n in sizes.items()))
            return measured(data), {**sizes, "bytes": int(data.nbytes)}
        say(self.note, "")
        return None, {}

    def _touched(self, event: Any = None) -> None:
        if self._quiet:
            return
        chosen = self.choice.value
        self.file.visible = chosen == _FILE
        self._part.visible = chosen not in (_FILE, _NOTHING, _STORED)
        if self.parameters.value:
            self._part.collapsed = False
        self._changed()
