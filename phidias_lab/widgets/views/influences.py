"""What weighs in the cell of a map that was chosen: asked for by a button, shown as a table and as dots on the map."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import panel as pn
import param

from phidias_lab import flow
from phidias_lab.compute.runs import Run
from phidias_lab.errors import PhidiasError
from phidias_lab.products import Product
from phidias_lab.widgets.controls import button, live, say, sentence
from phidias_lab.widgets.views import axes

#: Rows of the table, and dots on the map: beyond some hundreds the weights are tiny.
MOST_ROWS = 200
PAGE = 10
#: Milliseconds between two looks at an answer that is not there yet.
PERIOD = 200


class Influences(pn.viewable.Viewer):
    """Asks a run what weighs in a cell, beside the page's own work, and shows the answer until another cell is chosen."""

    #: The answer (see `Chain.influences`), or None.
    rows = param.Parameter(None)

    def __init__(self, source: Run | Product, cell: Callable[[], Mapping[str, Any]]):
        super().__init__()
        self.source, self._cell = source, cell
        self._answer: dict[str, Any] = {}
        self._job: threading.Thread | None = None
        self._clock: Any = None
        self.button = button("What weighs here", self.ask, width=150, align="end")
        self.note = sentence(sizing_mode="stretch_width")
        self._table = pn.Column(margin=0, sizing_mode="stretch_width")
        self._layout = pn.Column(self.note, self._table, margin=0, sizing_mode="stretch_width")

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    @property
    def table(self) -> pd.DataFrame | None:
        """What the table shows."""
        return self._table[0].value if len(self._table) else None

    def ask(self) -> None:
        """Solve for the cell that is chosen; on a page that is live the answer comes later."""
        self.forget()
        try:
            cell = self._cell()
        except PhidiasError as error:
            say(self.note, str(error), problem=True)
            return
        self._answer = {"cell": cell, "told": "looking at the inputs"}
        if not live():
            self._solve(self._answer)
            self._look()
            return
        self.button.disabled = True
        self._job = threading.Thread(target=self._solve, args=(self._answer,), daemon=True)
        self._job.start()
        self._clock = pn.state.add_periodic_callback(self._look, period=PERIOD)
        self._look()

    def forget(self) -> None:
        """Another cell is chosen: what was told of the last one is no longer shown."""
        self._answer = {}
        self._table.objects = []
        say(self.note, "")
        self.rows = None

    def _solve(self, answer: dict[str, Any]) -> None:
        def report(fraction: float, message: str = "") -> None:
            answer["told"] = message

        try:
            answer["rows"] = flow.influences(self.source, report=report, **answer["cell"])
        except PhidiasError as error:
            answer["problem"] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever a chain raises is said on the page, where the user looks
            answer["problem"] = f"The weights cannot be told: {type(error).__name__}: {error}"

    def _look(self) -> None:
        busy = self._job is not None and self._job.is_alive()
        if not busy:
            self.button.disabled, self._job = False, None
            if self._clock is not None:
                self._clock.stop()
                self._clock = None
        answer = self._answer
        if "problem" in answer:
            say(self.note, answer["problem"], problem=True)
        elif "rows" in answer:
            self._show(answer["rows"])
        elif answer:
            say(self.note, f"Working: {answer['told']}.")

    def _show(self, rows: pd.DataFrame) -> None:
        if rows is self.rows:
            return
        more = f" The {MOST_ROWS} weightiest are shown." if len(rows) > MOST_ROWS else ""
        say(self.note, f"{rows.attrs.get('words', '')}{more}")
        # A new one each time: a table that was hidden when it got its rows stays empty in the browser.
        self._table.objects = [
            pn.widgets.Tabulator(
                told(rows.head(MOST_ROWS)),
                disabled=True,
                show_index=False,
                pagination="local",
                page_size=PAGE,
                layout="fit_columns",
                configuration={"columnDefaults": {"headerWordWrap": True}},
                sizing_mode="stretch_width",
            )
        ]
        self.rows = rows


def told(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as people read them: numbers of four digits, distances in km, units in the headings."""
    units = dict(rows.attrs.get("columns") or {})
    made = {}
    for name in rows:
        values, unit = rows[name], str((units.get(name) or {}).get("units") or "")
        if name == "distance" and unit == "m":
            values, unit = values / 1000.0, "km"
        if getattr(values.dtype, "kind", "O") == "f":
            values = values.map(lambda value: float(f"{value:.4g}"))
        elif getattr(values.dtype, "kind", "O") == "M":
            values = values.dt.strftime("%Y-%m-%d")
        unit = axes.written_units(unit)
        made[f"{name} [{unit}]" if unit else str(name)] = values
    return pd.DataFrame(made)
