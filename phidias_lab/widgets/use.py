"""What its user has used and may still use, on a page: hours, limits, and room for files."""

from __future__ import annotations

import pandas as pd
import panel as pn

from phidias_lab.compute.usage import used
from phidias_lab.contract.resources import show_memory
from phidias_lab.errors import PhidiasError
from phidias_lab.widgets.controls import button, heading, later, prepare, say, sentence


class Use(pn.viewable.Viewer):
    """The same figures as the command `phidias use`, of this month."""

    def __init__(self):
        prepare()
        super().__init__()
        self.summary = sentence("")
        self.problem = sentence("")
        self.hours = pd.DataFrame()
        self.files = pd.DataFrame()
        self._tables = pn.Column(sizing_mode="stretch_width")
        self._layout = pn.Column(
            button("Refresh", lambda: later(self._layout, self.refresh), width=110),
            self.summary,
            self.problem,
            self._tables,
            sizing_mode="stretch_width",
        )

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def refresh(self) -> None:
        """Ask anew; an accounting that does not answer is said on the page."""
        say(self.problem, "")
        try:
            found = used()
        except PhidiasError as error:
            say(self.problem, str(error), problem=True)
            self._tables.objects = []
            return
        say(self.summary, f"{found['site']}, since {found['since'][:10]}, from {found['source']}.")
        limits = found["limits"]
        jobs = "jobs" if found["source"].startswith("Slurm") else "runs"
        self.hours = pd.DataFrame(
            [
                (jobs, f"{found['jobs']} ({found['running']} running)", ""),
                ("processor hours", f"{found['cpu_hours']:.2f}", _limit(limits.get("cpu_hours"))),
                ("GPU hours", f"{found['gpu_hours']:.2f}", _limit(limits.get("gpu_hours"))),
            ],
            columns=["what", "used", "limit"],
        )
        self.files = pd.DataFrame(
            [
                (
                    place["place"],
                    place["folder"],
                    show_memory(place["bytes"]) if "bytes" in place else "",
                    show_memory(place["free"]),
                )
                for place in found["storage"]
            ],
            columns=["files", "folder", "used", "free there"],
        )
        self._tables.objects = [heading("Hours"), _table(self.hours), heading("Room for files"), _table(self.files)]


def _limit(hours: float | None) -> str:
    return "none set" if hours is None else f"{hours:.0f}"


def _table(content: pd.DataFrame) -> pn.pane.DataFrame:
    return pn.pane.DataFrame(content, index=False, width=620)
