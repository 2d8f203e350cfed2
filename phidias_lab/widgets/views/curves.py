"""Curves of values against a quantity that is no axis: a covariance against distance, a likelihood against a length.

Which go together is said by the data: a variable of two dimensions, the first of which has names, names the variable it is
`drawn_against`; beside it stand its error (`ancillary_variables`), a fitted curve (`drawn_with`), a level (`drawn_limit`).
"""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np

from phidias_lab.widgets.controls import say
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.pairs import _BLUE, _GREY, _Chosen, names_along


def curves(data: Any) -> dict[str, tuple[str, int]]:
    """Label -> (variable, row) of all curves that have two values."""
    found = {}
    for name, array in getattr(data, "data_vars", {}).items():
        against = array.attrs.get("drawn_against")
        if against not in data or array.ndim != 2 or data[against].dims != array.dims:
            continue
        names = names_along(data, str(array.dims[0]))
        for row in range(array.sizes[array.dims[0]]):
            if np.isfinite(array.values[row]).sum() > 1:
                label = str(row + 1) if names is None else str(names.values[row])
                found[f"{str(name).replace('_', ' ')}: {label}"] = (str(name), row)
    return found


def suitable(data: Any) -> set[str]:
    return {"curves"} if curves(data) else set()


class CurvesView(_Chosen):
    """One curve at a time, with its errors and what was fitted to it."""

    label = "Curve"

    def __init__(self, data: Any):
        super().__init__(data, curves(data))

    def draw(self) -> None:
        name, row = self.choice.value
        up = self.data[name]
        across = self.data[up.attrs["drawn_against"]]
        x, y = (np.asarray(array.values[row], float) for array in (across, up))
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        kdim, vdim = hv.Dimension("x", label=axes.caption(across)), hv.Dimension("y", label=axes.caption(up))
        fitted, limit = up.attrs.get("drawn_with"), up.attrs.get("drawn_limit")
        if fitted in self.data:
            curve = np.asarray(self.data[fitted].values[row], float)[known]
            error = axes.error_of(self.data, name)
            parts = [hv.Scatter((x, y), kdim, vdim).opts(color=_BLUE, size=4, tools=["hover"])]
            if error is not None:
                width = np.asarray(self.data[error].values[row], float)[known]
                parts.insert(0, hv.ErrorBars((x, y, width), kdim, [vdim, "error"]).opts(color=_GREY, line_width=1))
            parts.append(hv.Curve((x, curve), kdim, vdim).opts(color="#b03030", line_width=2, tools=[]))
            say(self.note, "Dots: bins, with their standard errors; line: the kernel that was fitted.")
        else:
            parts = [hv.Curve((x, y), kdim, vdim).opts(color=_BLUE, line_width=2, tools=["hover"])]
            parts.append(hv.Scatter((x, y), kdim, vdim).opts(color=_BLUE, size=5, tools=[]))
            if limit is not None:
                parts.append(hv.HLine(float(limit)).opts(color=_GREY, line_width=1, line_dash="dashed"))
            words = f"Below the dashed line at {float(limit):g} lies the 95 % interval." if limit is not None else ""
            say(self.note, words)
        wide = x.min() > 0 and fitted not in self.data and x.max() / x.min() > 4
        self.show(hv.Overlay(parts), self.choice_label(), logx=bool(wide))

    def choice_label(self) -> str:
        return next(label for label, value in self.choice.options.items() if value == self.choice.value)
