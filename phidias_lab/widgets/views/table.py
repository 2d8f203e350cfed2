"""Tables page by page; a lazy table is read one part at a time."""

from __future__ import annotations

from typing import Any

import pandas as pd
import panel as pn

from phidias_lab.widgets.controls import control, say, sentence

PAGE = 20
#: Rows of one part that are taken into memory at once.
MOST_ROWS = 50_000
#: A cube with more values than this is not written out as rows.
MOST_VALUES = 200_000


class TableView(pn.viewable.Viewer):
    """The rows of a DataFrame, twenty at a time; of a dask DataFrame, one partition at a time."""

    def __init__(self, data: Any):
        super().__init__()
        self.data = data
        self.lazy = hasattr(data, "npartitions")
        self.part = control(
            pn.widgets.IntInput,
            "Part",
            value=1,
            start=1,
            end=data.npartitions if self.lazy else 1,
            width=100,
            visible=self.lazy and data.npartitions > 1,
        )
        self.note = sentence()
        self.grid = pn.widgets.Tabulator(
            pd.DataFrame(),
            pagination="remote",
            page_size=PAGE,
            disabled=True,
            show_index=False,
            sizing_mode="stretch_width",
            header_filters=False,
        )
        self.part.param.watch(lambda event: self.show(), "value")
        self._layout = pn.Column(pn.Row(self.part, self.note), self.grid)
        self.show()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def show(self) -> None:
        if self.lazy:
            number = min(max(int(self.part.value or 1), 1), self.data.npartitions)
            rows = self.data.partitions[number - 1].head(MOST_ROWS, npartitions=-1, compute=True)
            words = f"Part {number} of {self.data.npartitions}: {len(rows)} rows"
        else:
            rows = self.data.iloc[:MOST_ROWS]
            words = f"{len(self.data)} rows"
        if len(rows) == MOST_ROWS:
            words += f", the first {MOST_ROWS} are shown"
        say(self.note, words + ".")
        self.grid.value = printable(rows)


def printable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that the browser can show: shapes, bytes and other objects as short text, units in the headings."""
    units = dict((getattr(rows, "attrs", None) or {}).get("columns") or {})
    made = {}
    for column in rows.columns:
        values = rows[column]
        if getattr(values.dtype, "kind", "O") not in "iufbM":
            values = values.map(_short)
        name = (units.get(column) or {}).get("units")
        made[f"{column} [{name}]" if name and name != "1" else str(column)] = values
    return pd.DataFrame(made).reset_index(drop=True)


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = getattr(value, "wkt", None) or str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def of_cube(data: Any) -> pn.viewable.Viewable:
    """A cube that has no other view: its values as rows when they are few, else what it holds."""
    if 0 < sum(v.size for v in data.data_vars.values()) <= MOST_VALUES and data.sizes:
        return TableView(data.to_dataframe().reset_index()).__panel__()
    rows = [
        {
            "variable": str(name),
            "dimensions": ", ".join(f"{d} {array.sizes[d]}" for d in array.dims) or "one value",
            "units": str(array.attrs.get("units", "")),
            "value": _short(array.values) if array.ndim == 0 else "",
        }
        for name, array in data.data_vars.items()
    ]
    return TableView(pd.DataFrame(rows, columns=["variable", "dimensions", "units", "value"])).__panel__()
