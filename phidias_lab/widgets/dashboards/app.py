"""The served page: workbench, catalogue and runs in tabs. It asks no other host for anything."""

from __future__ import annotations

from typing import Any

import pandas as pd
import panel as pn

from phidias_lab.compute import runs
from phidias_lab.contract.resources import show_memory
from phidias_lab.errors import PhidiasError
from phidias_lab.lake import catalog
from phidias_lab.widgets.accessible import SpokenNames
from phidias_lab.widgets.controls import button, control, heading, later, prepare, say, sentence
from phidias_lab.widgets.inputs import entries_of, title_of
from phidias_lab.widgets.use import Use
from phidias_lab.widgets.views import view
from phidias_lab.widgets.workbench import Workbench

TITLE = "phidias dashboards"
_MOST_RUNS = 200


class CatalogueBrowser(pn.viewable.Viewer):
    """What the lake holds: find an entry, read what it is, look at it."""

    def __init__(self):
        prepare()
        super().__init__()
        self.find = control(pn.widgets.TextInput, "Find", placeholder="temperature", width=340)
        self.entry = control(pn.widgets.Select, "Entry", options={}, size=12, width=340)
        self.look = button("Quick look", self._clicked, role="primary", width=120)
        self.problem = sentence()
        self._facts = pn.Column(sizing_mode="stretch_width")
        self._view = pn.Column(sizing_mode="stretch_width")
        self.find.param.watch(lambda event: self.refresh(), ["value", "value_input"])
        self.entry.param.watch(lambda event: self._describe(), "value")
        self._layout = pn.Row(
            pn.Column(self.find, self.entry, self.look, self.problem, width=370),
            pn.Column(self._facts, self._view, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )
        self.refresh()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def refresh(self) -> None:
        """The entries that contain the words that are looked for."""
        words = (self.find.value_input or "").lower().split()
        try:
            found = entries_of()
        except PhidiasError as error:
            say(self.problem, str(error), problem=True)
            found = []
        texts = {
            facts["address"]: f"{title_of(facts)} {facts['description']} {' '.join(facts['variables'])}".lower()
            for facts in found
        }
        self._entries = {f["address"]: f for f in found if all(word in texts[f["address"]] for word in words)}
        self.entry.options = {title_of(f): address for address, f in self._entries.items()}
        if self.entry.value not in self._entries:
            self.entry.value = next(iter(self._entries), None)
        self._describe()

    def _describe(self) -> None:
        self._view.objects = []
        self.look.disabled = self.entry.value is None
        facts = self._entries.get(self.entry.value)
        if facts is None:
            self._facts.objects = [sentence("No entry fits. Change what you look for.")]
            return
        lines = [facts["description"]]
        if facts["synthetic"]:
            lines.append("Synthetic: made by a seeded simulation, no observation of the real world.")
        for name in ("kind", "licence", "source"):
            if facts[name]:
                lines.append(f"{name.capitalize()}: {facts[name]}.")
        if facts["dims"]:
            lines.append(f"Dimensions: {', '.join(facts['dims'])}.")
        for name, known in facts["parameters"].items():
            lines.append(f"Parameter {name}: {known.get('description', '')}")
        variables = pd.DataFrame(
            [
                {
                    "variable": n,
                    "units": v.get("units") or "",
                    "meaning": v.get("long_name") or v.get("standard_name") or "",
                }
                for n, v in facts["variables"].items()
            ],
            columns=["variable", "units", "meaning"],
        )
        table = pn.widgets.Tabulator(
            variables, disabled=True, show_index=False, pagination="local", page_size=8, layout="fit_data", width=620
        )
        self._facts.objects = [
            heading(facts["address"]),
            *(sentence(line) for line in lines if line),
            *([table] if len(variables) else []),
        ]

    def show(self, address: str) -> Any:
        """Look at an entry; gives its data."""
        self.entry.value = address
        data, _ = catalog.open_entry(address, {})
        self._view.objects = [view(data)]
        return data

    def _clicked(self) -> None:
        say(self.problem, "")
        later(self._layout, self._look)

    def _look(self) -> None:
        try:
            self.show(self.entry.value)
        except PhidiasError as error:
            say(self.problem, str(error), problem=True)
        except Exception as error:  # noqa: BLE001 - whatever drawing raises is said on the page, where the user looks
            say(self.problem, f"The entry cannot be drawn: {type(error).__name__}: {error}", problem=True)


class RunsTable(pn.viewable.Viewer):
    """All runs of this user; one of them can be opened in a workbench."""

    def __init__(self, bench: Workbench, opened=lambda: None):
        prepare()
        super().__init__()
        self.bench, self._opened = bench, opened
        self.grid = pn.widgets.Tabulator(
            pd.DataFrame(),
            disabled=True,
            show_index=False,
            selectable=1,
            pagination="remote",
            page_size=15,
            sizing_mode="stretch_width",
        )
        self.problem = sentence()
        self._layout = pn.Column(
            sentence("Select a run in the table, then open it."),
            pn.Row(
                button("Open in the workbench", self._clicked, role="primary", width=190),
                button("Refresh", self.refresh, width=110),
            ),
            self.problem,
            self.grid,
            sizing_mode="stretch_width",
        )
        self.refresh()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def refresh(self) -> None:
        rows = [
            {
                "run": run.id,
                "chain": run.order.chain,
                "title": run.title,
                "state": run.status,
                "asked": f"{run.created:%Y-%m-%d %H:%M:%S}",
                "size": show_memory(run.size_bytes),
                "error": run.error or "",
            }
            for run in runs.runs()[:_MOST_RUNS]
        ]
        self.grid.value = pd.DataFrame(rows, columns=["run", "chain", "title", "state", "asked", "size", "error"])

    def _clicked(self) -> None:
        if not self.grid.selection:
            say(self.problem, "No run is selected. Click on a row of the table first.", problem=True)
            return
        say(self.problem, "")
        try:
            self.bench.open(str(self.grid.value["run"].iloc[self.grid.selection[0]]))
        except PhidiasError as error:
            say(self.problem, str(error), problem=True)
        else:
            self._opened()


def app() -> pn.viewable.Viewable:
    """The page of one visitor."""
    prepare()
    bench = Workbench()
    if pn.state.curdoc is not None and pn.state.session_args:
        bench.load_query(pn.state.session_args)
    tabs = pn.Tabs(("Workbench", bench), dynamic=True, sizing_mode="stretch_width")
    runs_table = RunsTable(bench, lambda: setattr(tabs, "active", 0))
    use = Use()
    tabs.extend([("Catalogue", CatalogueBrowser()), ("Runs", runs_table), ("Use", use)])
    # What is asked of files or of Slurm is asked when somebody looks.
    looked_at = {2: runs_table.refresh, 3: lambda: later(use, use.refresh)}
    tabs.param.watch(lambda event: looked_at.get(event.new, lambda: None)(), "active")
    return page(tabs)


def page(content: pn.viewable.Viewable) -> pn.viewable.Viewable:
    """The frame around the content. Panel's templates are left alone: several of them fetch a font from another host."""
    banner = pn.pane.HTML(
        f'<header><h1 style="margin: 0; padding: 12px 20px; font-size: 1.4em; color: #ffffff; background: #14375e">'
        f"{TITLE}</h1></header>",
        sizing_mode="stretch_width",
        margin=0,
    )
    return pn.Column(
        banner, content, SpokenNames(), sizing_mode="stretch_width", margin=0, styles={"max-width": "1500px"}
    )
