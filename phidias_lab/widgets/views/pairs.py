"""Two measurements of the same quantity: each value beside the other, and groups of them in Taylor's and a target diagram.

Which variables go together is said by the data: a variable names the one it is `compared_with`; the diagrams are drawn of
statistics along one dimension, named as in `STATISTICS`.
"""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn

from phidias_lab.contract.data import is_synthetic
from phidias_lab.widgets.controls import Wrap, control, say, sentence
from phidias_lab.widgets.views import axes
from phidias_lab.widgets.views.cube import COLOURS, _sized, _wrapped
from phidias_lab.widgets.views.table import TableView

#: With more pairs than this their density is drawn in place of the pairs.
MOST_POINTS = 2_000
BINS, SIZE = 120, 420
#: What each diagram is drawn of.
STATISTICS = {
    "taylor": ("correlation", "deviation_ratio"),
    "target": ("bias", "deviation", "deviation_ratio", "observed_deviation"),
}
#: Of a second dimension with more names than this no columns are made.
MOST_COLUMNS = 8
_BLUE, _GREY = "#1f4e79", "#8a8a8a"


def pairs(data: Any) -> list[tuple[str, str]]:
    """(variable, what it is compared with) of those that lie along the same one dimension."""
    found = []
    for name, array in data.data_vars.items():
        other = array.attrs.get("compared_with")
        if other in data.data_vars and array.ndim == 1 and data[other].dims == array.dims:
            found.append((str(name), str(other)))
    return found


def names_along(data: Any, dim: str) -> Any | None:
    """The coordinate that holds a name for each place along a dimension."""
    for coordinate in data.coords.values():
        if coordinate.dims == (dim,) and coordinate.dtype.kind in "OUT":
            return coordinate
    return None


def groups(data: Any, kind: str) -> str | None:
    """The dimension along which a diagram's statistics lie."""
    wanted = STATISTICS[kind]
    if not all(name in data.data_vars and data[name].ndim == 1 for name in wanted):
        return None
    dims = {data[name].dims[0] for name in wanted}
    return str(dims.pop()) if len(dims) == 1 else None


def tabulated(data: Any) -> list[str]:
    """The dimensions whose places have names and along which something lies, which is a table."""
    return [str(dim) for dim in data.dims if names_along(data, dim) is not None and _columns(data, dim)]


def _columns(data: Any, dim: str) -> dict[str, Any]:
    """What lies along a dimension: arrays of it alone, and one for each place of a second, short one that has names."""
    found = {}
    for name, array in data.data_vars.items():
        if array.dims == (dim,):
            found[str(name)] = array
        elif array.ndim == 2 and dim in array.dims:
            (other,) = (each for each in array.dims if each != dim)
            names = names_along(data, other)
            if names is not None and names.size <= MOST_COLUMNS:
                found |= {f"{name} {label}": array.isel({other: k}) for k, label in enumerate(names.values)}
    return found


def suitable(data: Any) -> set[str]:
    found = {"scatter"} if pairs(data) else set()
    found |= {kind for kind in STATISTICS if groups(data, kind)}
    return found | ({"groups"} if tabulated(data) else set())


class _Chosen(pn.viewable.Viewer):
    """A figure with one choice beside it."""

    label = ""

    def __init__(self, data: Any, options: dict[str, Any]):
        super().__init__()
        self.data = data
        self.choice = control(pn.widgets.Select, self.label, options=options, width=260)
        self.choice.visible = len(options) > 1
        self.note = sentence()
        self.key = sentence()
        self._body = Wrap(margin=0, styles={"max-width": "100%", "overflow-x": "auto"})
        self._layout = pn.Column(
            Wrap(self.choice, self.note, align_items="end", margin=0),
            self._body,
            self.key,
            styles={"max-width": "100%"},
        )
        self.choice.param.watch(lambda event: self.draw(), "value")
        self.draw()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    @property
    def figure(self) -> Any:
        return self._body[0].object

    def draw(self) -> None:
        raise NotImplementedError(type(self))

    def show(self, figure: hv.Overlay, title: str, **settings: Any) -> None:
        words = _wrapped(title, 46) + ("\nSynthetic data" if is_synthetic(self.data) else "")
        made = figure.opts(
            hv.opts.Overlay(
                title=words, fontsize={"title": 11}, show_legend=False, framewise=True, **_sized(SIZE, SIZE), **settings
            )
        )
        self._body.objects = [pn.pane.HoloViews(made, margin=(5, 0), linked_axes=False)]


class ScatterView(_Chosen):
    """One variable against the other; where there are many pairs, how many lie in each cell."""

    label = "Compared"

    def __init__(self, data: Any):
        super().__init__(data, {f"{name} with {other}": (name, other) for name, other in pairs(data)})

    def draw(self) -> None:
        name, other = self.choice.value
        across, up = self.data[other], self.data[name]
        x, y = np.asarray(across.values, float), np.asarray(up.values, float)
        good = np.isfinite(x) & np.isfinite(y)
        x, y = x[good], y[good]
        kdims = [hv.Dimension("x", label=axes.caption(across)), hv.Dimension("y", label=axes.caption(up))]
        title = f"{axes.short_name(up)} against {axes.short_name(across).lower()}"
        if not x.size:
            say(self.note, "No pair has both values.")
            self.show(hv.Overlay([hv.Points(([], []), kdims)]), title)
            return
        # A value far off would press all others into a corner, so the frame holds all but the outermost of them.
        both = np.concatenate([x, y])
        low, high = np.quantile(both, [0.001, 0.999]) if x.size > MOST_POINTS else (both.min(), both.max())
        pad = 0.03 * max(high - low, 1e-9)
        low, high = float(low - pad), float(high + pad)
        outside = int(((x < low) | (x > high) | (y < low) | (y > high)).sum())
        words = f"{x.size:,} pairs; mean difference {np.mean(y - x):.3g}, RMSD {np.sqrt(np.mean((y - x) ** 2)):.3g}."
        say(self.note, f"{words} {outside:,} lie outside the frame." if outside else words)
        if x.size > MOST_POINTS:
            counts, xe, _ = np.histogram2d(x, y, bins=BINS, range=[[low, high]] * 2)
            centres = (xe[1:] + xe[:-1]) / 2
            cells = hv.Image(
                (centres, centres, np.where(counts > 0, counts, np.nan).T), kdims, [hv.Dimension("n", label="pairs")]
            ).opts(
                cmap=COLOURS, logz=True, colorbar=True, clabel="pairs per cell", tools=["hover"], clim=(1, counts.max())
            )
        else:
            cells = hv.Points((x, y), kdims).opts(color=_BLUE, size=5, alpha=0.6, line_alpha=0, tools=["hover"])
        same = hv.Curve(([low, high], [low, high]), kdims[:1], kdims[1:]).opts(
            color="#202020", line_dash="dashed", tools=[]
        )
        self.show(cells * same, title, xlim=(low, high), ylim=(low, high))


class _Diagram(_Chosen):
    kind = ""

    def __init__(self, data: Any):
        super().__init__(data, {"": groups(data, self.kind)})

    def table(self) -> pd.DataFrame:
        """The statistics of the diagram, a row for each group that has them."""
        dim = self.choice.value
        names = names_along(self.data, dim)
        found = {
            "name": [str(k + 1) for k in range(self.data.sizes[dim])] if names is None else names.values.astype(str)
        }
        wanted = [*STATISTICS[self.kind], *(n for n in ("number", "bias_low", "bias_high") if n in self.data)]
        found |= {name: np.asarray(self.data[name].values, float) for name in wanted}
        table = pd.DataFrame(found)
        return table[np.isfinite(table[list(STATISTICS[self.kind])]).all(axis=1)].reset_index(drop=True)

    def marks(self, table: pd.DataFrame, x: np.ndarray, y: np.ndarray, kdims: list, reach: float) -> hv.Overlay:
        """A numbered dot for each group; the key below names them, and the pointer tells all that is known of one."""
        say(self.key, " · ".join(f"{k} {name}" for k, name in enumerate(table["name"], start=1)))
        told = ["name", *[c for c in table.columns if c != "name"]]
        dots = hv.Points(table.assign(x=x, y=y), kdims, told).opts(
            color=_BLUE, size=9, line_color="white", tools=["hover"]
        )
        names = hv.Labels((x, y + 0.02 * reach, [str(k + 1) for k in range(len(table))]), kdims).opts(
            text_font_size="8pt", text_color="#202020", text_baseline="bottom"
        )
        return dots * names


def _ring(
    radius: float, kdims: list, centre: float = 0.0, first: float = 0.0, last: float = np.pi, **style: Any
) -> hv.Curve:
    angle = np.linspace(first, last, 181)
    x, y = centre + radius * np.cos(angle), radius * np.sin(angle)
    return hv.Curve((x, y), kdims[:1], kdims[1:]).opts(color=_GREY, line_width=1, tools=[], **style)


class TaylorView(_Diagram):
    """Correlation as the angle, ratio of standard deviations as the radius; the distance from the mark on the axis is the
    centred RMSD over the standard deviation observed (Taylor 2001, J. Geophys. Res. 106(D7), 7183-7192)."""

    kind = "taylor"

    def draw(self) -> None:
        table = self.table()
        say(self.note, "Distance from the square: RMSD without the bias, in standard deviations observed.")
        ratio, correlation = table["deviation_ratio"].to_numpy(), table["correlation"].to_numpy()
        x, y = ratio * correlation, ratio * np.sqrt(np.maximum(1 - correlation**2, 0))
        reach = 1.1 * max(1.5, float(ratio.max(initial=0)))
        left = -reach if (correlation < 0).any() else -0.02 * reach
        kdims = [hv.Dimension("x", label="standard deviation over that observed"), hv.Dimension("y", label=" ")]
        last = np.pi if left < -1 else np.pi / 2
        parts: list[Any] = [_ring(r, kdims, last=last) for r in np.arange(0.5, reach, 0.5)]
        parts += [_ring(r, kdims, centre=1.0, line_dash="dotted") for r in (0.25, 0.5, 1.0)]
        rays = [0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99]
        rays = [*(-r for r in rays), 0.0, *rays] if last > 2 else [0.0, *rays]
        for r in rays:
            end = (reach * r, reach * np.sqrt(1 - r * r))
            parts.append(
                hv.Curve(([0, end[0]], [0, end[1]]), kdims[:1], kdims[1:]).opts(color="#d0d0d0", line_width=1, tools=[])
            )
        ends = np.array([(r, np.sqrt(1 - r * r)) for r in rays]) * reach * 1.03
        parts.append(
            hv.Labels((ends[:, 0], ends[:, 1], [f"{r:g}" for r in rays]), kdims).opts(
                text_font_size="8pt", text_color="#505050"
            )
        )
        parts.append(hv.Points([(1.0, 0.0)], kdims).opts(marker="square", size=10, color="#202020", tools=[]))
        parts.append(self.marks(table, x, y, kdims, reach))
        self.show(
            hv.Overlay(parts).collate(),
            "Taylor diagram; angle: correlation",
            xlim=(left, 1.08 * reach),
            ylim=(-0.02 * reach, 1.08 * reach),
        )


class TargetView(_Diagram):
    """Bias against centred RMSD, both over the standard deviation observed; the latter is negative where the field varies
    less than the observations, and the distance from the middle is the RMSD (Jolliff et al. 2009, J. Marine
    Syst. 76, 64-82)."""

    kind = "target"

    def draw(self) -> None:
        table = self.table()
        say(self.note, "Distance from the middle: RMSD, in standard deviations observed; left: the field varies less.")
        scale = table["observed_deviation"].to_numpy()
        x = np.where(table["deviation_ratio"] < 1, -1, 1) * table["deviation"].to_numpy() / scale
        y = table["bias"].to_numpy() / scale
        reach = 1.15 * max(1.0, float(np.hypot(x, y).max(initial=0)))
        kdims = [
            hv.Dimension("x", label="signed RMSD without bias / standard deviation observed"),
            hv.Dimension("y", label="bias / standard deviation observed"),
        ]
        parts: list[Any] = [_ring(r, kdims, last=2 * np.pi) for r in (0.5, 1.0)]
        parts += [hv.HLine(0).opts(color="#d0d0d0", line_width=1), hv.VLine(0).opts(color="#d0d0d0", line_width=1)]
        if {"bias_low", "bias_high"} <= set(table.columns):
            known = np.isfinite(table["bias_low"].to_numpy())
            ends = [np.abs(table[f"bias_{end}"].to_numpy() / scale - y)[known] for end in ("low", "high")]
            parts.append(
                hv.ErrorBars((x[known], y[known], *ends), kdims[:1], [kdims[1], "below", "above"]).opts(
                    color=_BLUE, line_width=1
                )
            )
        parts.append(self.marks(table, x, y, kdims, reach))
        self.show(hv.Overlay(parts).collate(), "Target diagram", xlim=(-reach, reach), ylim=(-reach, reach))


class GroupsView(_Chosen):
    """What lies along a dimension whose places have names, as a table."""

    label = "Along"

    def __init__(self, data: Any):
        super().__init__(data, {dim: dim for dim in tabulated(data)})

    def draw(self) -> None:
        dim = self.choice.value
        names = names_along(self.data, dim)
        columns = {str(names.name): names.values.astype(str)}
        along = _columns(self.data, dim)
        table = pd.DataFrame(columns | {name: array.values for name, array in along.items()})
        table.attrs["columns"] = {name: {"units": array.attrs.get("units")} for name, array in along.items()}
        say(self.note, "")
        self._body.objects = [TableView(table).__panel__()]


VIEWS = {"scatter": ScatterView, "taylor": TaylorView, "target": TargetView, "groups": GroupsView}
