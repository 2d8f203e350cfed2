"""A cluster on a page: its workers with their states as they come and go, and buttons that ask for more or fewer.

>>> from phidias_lab.widgets import ClusterView         # doctest: +SKIP
>>> ClusterView(phidias_lab.cluster("slurm-gpu"))       # doctest: +SKIP
"""

from __future__ import annotations

import html
from collections.abc import Callable

import panel as pn

from phidias_lab.compute.cluster import STATES, Cluster
from phidias_lab.errors import PhidiasError
from phidias_lab.widgets.controls import button, control, live, prepare, say, sentence

#: Milliseconds between two looks at the workers.
PERIOD = 1000
_STYLE = "table { border-collapse: collapse } th, td { text-align: left; padding: 2px 14px 2px 0 }"


class ClusterView(pn.viewable.Viewer):
    """The workers of one cluster, as they come and go."""

    def __init__(self, cluster: Cluster):
        prepare()
        super().__init__()
        self.cluster = cluster
        self._wanted = control(pn.widgets.IntInput, "Workers", value=cluster.request.workers, start=0, width=110)
        self._scale = button("Set number", action=self._clicked_scale, role="primary", width=130, align="end")
        self._pages = button("Show Dask's pages", action=self._clicked_pages, width=150, align="end")
        self._close = button("End the cluster", action=self._clicked_close, role="danger", width=130, align="end")
        self._counts = sentence(sizing_mode="stretch_width")
        self._problem = sentence(sizing_mode="stretch_width")
        self._table = pn.pane.HTML("", stylesheets=[_STYLE], sizing_mode="stretch_width")
        self._layout = pn.Column(
            pn.Row(self._wanted, self._scale, self._pages, self._close, margin=0),
            self._counts,
            self._problem,
            self._table,
            sizing_mode="stretch_width",
        )
        self._clock = pn.state.add_periodic_callback(self.refresh, period=PERIOD) if live() else None
        self.refresh()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def refresh(self) -> None:
        """Let the page agree with the cluster."""
        if self.cluster.closed:
            if self._clock is not None:
                self._clock.stop()
            say(self._counts, "The cluster has ended.")
            self._scale.disabled = self._pages.disabled = self._close.disabled = True
            self._table.object = f"<p>{html.escape(repr(self.cluster))}</p>"
            return
        found = [worker.state for worker in self.cluster.workers]
        say(self._counts, ", ".join(f"{found.count(state)} {state}" for state in STATES) + ".")
        self._table.object = self.cluster._repr_html_()

    def _clicked_scale(self) -> None:
        self._said(lambda: self.cluster.scale(self._wanted.value))

    def _clicked_pages(self) -> None:
        self._said(self.cluster.dashboard)

    def _said(self, action: Callable[[], object]) -> None:
        """Do it; why it cannot be done is said on the page."""
        say(self._problem, "")
        try:
            action()
        except PhidiasError as error:
            say(self._problem, str(error), problem=True)
        self.refresh()

    def _clicked_close(self) -> None:
        self.cluster.close()
        self.refresh()
