"""The controls all dashboards are made of, and the names that Panel is about to change.

Panel 1.9 calls a widget's caption `label` (it was `name`) and a button's role `color` (it was `button_type`); no other
module of the lab spells either. Text that comes from data or users goes through `sentence`, which escapes it.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from functools import cache
from typing import Any

import holoviews as hv
import panel as pn
from bokeh.models import UIElement
from holoviews.core.dimension import LabelledData
from panel.io.notebook import patch_inline_stylesheets

_CAPTION, _ROLE = "label", "color"
ROLES = ("default", "primary", "success", "danger")

#: One look for all dashboards. Text and background differ by at least 4.5 : 1 (WCAG 2.1, 1.4.3).
STYLE = """
.phidias-problem { color: #8f1414; font-size: 0.9em; margin: 0 0 6px 0; }
.phidias-note { color: #444; font-size: 0.9em; }
.phidias-state { font-weight: 600; }
"""


# In a notebook, other libraries load this extension too (hvplot does on import): its scripts come from here every time.
hv.extension.inline = True


@cache
def prepare() -> None:
    """Load Panel's and HoloViews' Bokeh parts once per process; scripts and styles come from the installed packages."""
    hv.extension("bokeh", logo=False)
    pn.extension("tabulator", inline=True)
    if hv.extension._loaded:
        # HoloViews' own display names styles on another host; Panel's has them inside.
        hv.Store.set_display_hook("html+js", LabelledData, lambda figure: pn.pane.HoloViews(figure)._repr_mimebundle_())


class Wrap(pn.FlexBox):
    """A row that wraps. What it gets later takes its styles from here in a notebook too, where Panel's own row would name
    them on another host."""

    def _get_children(self, doc, root, model, comm):
        children = super()._get_children(doc, root, model, comm)
        if comm is not None:
            for child in (child for group in children.values() for child in group if isinstance(child, UIElement)):
                for part in child.select({"type": UIElement}):
                    patch_inline_stylesheets(part)
        return children


def control(kind: type, caption: str, **settings: Any) -> pn.widgets.Widget:
    """A widget with its caption, which is also its accessible name."""
    return kind(**{_CAPTION: caption}, **settings)


def caption(widget: pn.widgets.Widget) -> str:
    return getattr(widget, _CAPTION)


class Tick(pn.widgets.CheckBoxGroup):
    """One box to tick. Unlike Panel's Checkbox its words belong to the box, for a click and for a screen reader."""

    @property
    def on(self) -> bool:
        return bool(self.value)

    @on.setter
    def on(self, value: bool) -> None:
        self.value = list(self.options) if value else []


def tick(text: str, on: bool = False, **settings: Any) -> Tick:
    """A box to tick with its words."""
    return Tick(options=[text], value=[text] if on else [], margin=(5, 10), **settings)


def button(text: str, action: Callable[[], Any] | None = None, *, role: str = "default", **settings: Any):
    """A button; `action` is called without arguments."""
    made = control(pn.widgets.Button, text, **{_ROLE: role}, **settings)
    if action is not None:
        made.on_click(lambda event: _do(action))
    return made


def _do(action: Callable[[], Any]) -> None:
    # In a notebook a click comes in one message with the value that was typed just before, and Panel drops the value when
    # something is changed on the page while it still reads that message.
    if live() and getattr(pn.state.curdoc, "session_context", None) is None:
        asyncio.get_running_loop().call_soon(action)
    else:
        action()


def download(text: str, source: Callable[[], Any], filename: str, **settings: Any) -> pn.widgets.FileDownload:
    """A button that hands over what `source()` gives: a path or a file-like object."""
    settings = {"auto": True, "embed": False, **settings}
    return pn.widgets.FileDownload(callback=source, filename=filename, **{_CAPTION: text}, **settings)


def sentence(text: str = "", *, problem: bool = False, **settings: Any) -> pn.pane.HTML:
    """Words on the page: escaped, and announced by screen readers when they tell of a problem."""
    settings.setdefault("margin", (0, 10))
    pane = pn.pane.HTML("", stylesheets=[STYLE], visible=bool(text), **settings)
    say(pane, text, problem=problem)
    return pane


def say(pane: pn.pane.HTML, text: str, *, problem: bool = False) -> None:
    """Change the words of a `sentence`; no words hide it."""
    role, look = ("alert", "phidias-problem") if problem else ("status", "phidias-note")
    pane.object = f'<div role="{role}" class="{look}">{html.escape(text)}</div>' if text else ""
    pane.visible = bool(text)


def fold(title: str, *content: Any, collapsed: bool = True, **settings: Any) -> pn.Card:
    """A part of the page that opens on a click."""
    header = pn.pane.HTML(f'<span style="font-size: 13px">{html.escape(title)}</span>', margin=(2, 4))
    return pn.Card(
        *content,
        header=header,
        title=title,
        collapsed=collapsed,
        styles={"box-shadow": "none", "border": "1px solid #c8c8c8", "border-radius": "4px"},
        **{"margin": (3, 10), **settings},
    )


def heading(text: str) -> pn.pane.HTML:
    """A second-level heading, escaped."""
    return pn.pane.HTML(f'<h2 style="margin: 4px 0">{html.escape(text)}</h2>', margin=(0, 10))


def live() -> bool:
    """Whether what changes later is seen: on a page that is served, or in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return pn.state.curdoc is not None
    return True


def later(part: pn.viewable.Viewable, action: Callable[[], Any]) -> None:
    """Do something that takes a while, after the browser has been told that this part of the page is busy."""

    def do() -> None:
        try:
            action()
        finally:
            part.loading = False

    if pn.state.curdoc is None:
        do()
        return
    part.loading = True
    pn.state.curdoc.add_timeout_callback(do, 50)
