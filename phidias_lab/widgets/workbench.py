"""The workbench: choose a chain and its inputs, set it up, run it, watch it, see the result. For any chain.

    >>> bench = Workbench("ocean.gridding")       # doctest: +SKIP
    >>> bench.form.set(length=150e3)              # doctest: +SKIP
    >>> run = bench.start()                       # doctest: +SKIP
    >>> bench.wait(); bench.result                # doctest: +SKIP

Whatever a button does is a method with a plain name, so a script can do the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import panel as pn
import psutil

from phidias_lab import flow
from phidias_lab.compute import request as requests
from phidias_lab.compute import runs, site
from phidias_lab.compute.runs import DONE, ENDED, Run
from phidias_lab.compute.site import LOCAL
from phidias_lab.contract import order as orders
from phidias_lab.contract import registry, said
from phidias_lab.contract.order import Order
from phidias_lab.contract.resources import Resources, show_memory
from phidias_lab.errors import ParameterError, PhidiasError
from phidias_lab.products import seadatanet
from phidias_lab.widgets.controls import button, control, download, fold, live, prepare, say, sentence
from phidias_lab.widgets.form import Form
from phidias_lab.widgets.inputs import InputChooser
from phidias_lab.widgets.views import view

#: Milliseconds between two looks at a run.
PERIOD = 300
#: Characters of a link; longer ones are cut by some mail programs and proxies.
LONGEST_LINK = 6_000
RECENT = 25
_SIDE = 370


class Workbench(pn.viewable.Viewer):
    """A view of one order and of the run it becomes."""

    def __init__(self, chain_id: str | None = None):
        prepare()
        super().__init__()
        self.run: Run | None = None
        self.result: Any = None
        self.form: Form
        self.inputs: dict[str, InputChooser] = {}
        self._clock: Any = None
        self._shown: str | None = None
        self._loading = False
        self._build()
        known = registry.chains()
        if chain_id is not None or known:
            self.choose(chain_id or known[0])
        else:
            self._complain("No chain is installed here. Install phidias_lab or a package with chains.")
        self.list_runs()

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    # The page ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._chain = control(pn.widgets.Select, "Chain", options=_titles(), width=_SIDE - 50)
        self._chain.param.watch(self._chain_chosen, "value")
        self._about = sentence(width=_SIDE - 50)
        self._inputs = pn.Column(margin=0)
        self._form = pn.Column(margin=0)
        self._estimate = sentence(sizing_mode="stretch_width")
        self._where = control(pn.widgets.Select, "Where to run", options=_places(), width=250)
        self._workers = control(pn.widgets.IntInput, "Workers there (0: none)", value=0, start=0, width=170)
        self._elsewhere = pn.Row(self._where, self._workers, margin=0, visible=len(self._where.options) > 1)
        self._run = button("Run", self._clicked_run, role="primary", width=110)
        self._cancel = button("Cancel", self._clicked_cancel, role="danger", width=110, disabled=True)
        self._resume = button("Resume", self._clicked_resume, width=110, visible=False)
        self._progress = pn.indicators.Progress(value=0, max=100, width=260, visible=False, align="center")
        self._state = sentence(sizing_mode="stretch_width")
        self._problem = sentence(sizing_mode="stretch_width")
        self._told = pn.Column(sizing_mode="stretch_width", margin=0)
        self._log = pn.pane.HTML("", sizing_mode="stretch_width")
        self._log_card = fold("Log of the run", self._log, visible=False, sizing_mode="stretch_width")
        self._result = pn.Column(sizing_mode="stretch_width", min_height=60, css_classes=["phidias-result"])
        self._download = download("Download the product", self._product_file, "product.nc", visible=False, width=220)
        self._for_centres = download(
            "Download as SeaDataNet NetCDF", self._seadatanet_file, "field.nc", visible=False, width=270
        )
        self._recent = control(pn.widgets.Select, "Earlier runs (times are UTC)", options={}, width=420)
        self._open = button("Open", self._clicked_open, width=90, align="end")
        self._again = button("Refresh the list", self.list_runs, width=130, align="end")
        self._link = pn.pane.HTML("", sizing_mode="stretch_width")
        self._order_file = download("Download the order", self._order_stream, "order.json", width=180)
        self._copy = button("Copy the order", width=150)
        self._text = control(
            pn.widgets.TextAreaInput,
            "This order; another one may be pasted here",
            rows=12,
            max_length=200_000,
            sizing_mode="stretch_width",
            stylesheets=["textarea { font-family: monospace; }"],
        )
        self._load = button("Show the pasted order", self._clicked_load, width=150)
        self._copy.js_on_click(args={"source": self._text}, code="navigator.clipboard.writeText(source.value)")
        share = fold(
            "This order as JSON: copy, share, load",
            pn.Row(self._copy, self._order_file, self._load, margin=0),
            self._link,
            self._text,
            sizing_mode="stretch_width",
        )
        side = pn.Column(self._chain, self._about, self._inputs, self._form, width=_SIDE, margin=(0, 15, 0, 0))
        main = pn.Column(
            self._elsewhere,
            pn.Row(self._run, self._cancel, self._resume, self._progress, margin=0),
            self._estimate,
            self._state,
            self._problem,
            self._told,
            self._log_card,
            self._result,
            pn.Row(self._download, self._for_centres, margin=0),
            pn.Row(self._recent, self._open, self._again, margin=0),
            share,
            sizing_mode="stretch_width",
        )
        self._layout = pn.Row(side, main, sizing_mode="stretch_width", css_classes=["phidias-workbench"])

    # What is asked for ------------------------------------------------------------------------------------------

    @property
    def chain_id(self) -> str:
        return self.form.chain.id

    def choose(self, chain_id: str) -> None:
        """Show another chain with its defaults."""
        chain = registry.chain(chain_id)
        self._loading = True
        try:
            self._chain.value = chain_id
            say(self._about, chain.describe()["summary"])
            self.form = Form(chain)
            self.inputs = {name: InputChooser(name, wanted, self._ordered) for name, wanted in chain.inputs.items()}
            self._inputs.objects = list(self.inputs.values())
            self._form.objects = [self.form]
        finally:
            self._loading = False
        self.form.param.watch(lambda event: self._described(), "changes")
        self._ordered()

    @property
    def references(self) -> dict[str, dict]:
        """The inputs as an order names them."""
        found = {name: chooser.reference for name, chooser in self.inputs.items()}
        return {name: ref for name, ref in found.items() if ref is not None}

    @property
    def order(self) -> Order:
        """The order that the page shows; raises the first problem."""
        return self.form.order(self.references)

    @property
    def link(self) -> str | None:
        """An address, relative to this page, that shows the same order; None when it would be too long."""
        document = json.dumps(self.order.document(), separators=(",", ":"), sort_keys=True)
        made = f"?chain={quote(self.chain_id)}&order={quote(document)}"
        return made if len(made) <= LONGEST_LINK else None

    def load(self, order: str | Path | Mapping | Order) -> None:
        """Show an order: its chain, inputs and parameters. One that cannot be used changes nothing."""
        if isinstance(order, Path):
            order = orders.load(order)
        elif isinstance(order, str):
            order = orders.loads(order)
        elif not isinstance(order, Order):
            order = orders.from_document(order)
        chain = registry.chain(order.chain)
        if order.version and order.version != chain.version:
            raise ParameterError(
                f"The order asks for version {order.version!r} of {order.chain}; version {chain.version!r} is installed. "
                "Install the package that has it, or change the version in the order after reading what changed."
            )
        chain(**order.parameters)
        for name in order.inputs:
            if name not in chain.inputs:
                raise ParameterError(
                    f"{order.chain} has no input {name!r}. It has {', '.join(chain.inputs) or 'none'}."
                )
        self.choose(order.chain)
        for name, chooser in self.inputs.items():
            if name in order.inputs:
                chooser.set(order.inputs[name])
        self.form.set(order.parameters)

    def load_query(self, arguments: Mapping[str, list[bytes]]) -> None:
        """Show what the address of the page asks for; what cannot be shown is said on the page."""
        try:
            texts = {k: v[0].decode("utf-8") for k, v in arguments.items() if k in ("chain", "order", "run") and v}
            if sum(map(len, texts.values())) > LONGEST_LINK:
                raise ParameterError("The address of this page is too long for an order. Paste the order's JSON below.")
            if "run" in texts:
                self.open(texts["run"])
            elif "order" in texts:
                self.load(texts["order"])
            elif "chain" in texts:
                self.choose(texts["chain"])
        except UnicodeDecodeError:
            self._complain("The address of this page holds an order that is not text. Paste the order's JSON below.")
        except PhidiasError as error:
            self._complain(str(error))

    def estimate(self) -> Resources:
        """What the run needs, from the declaration and the sizes of the chosen inputs."""
        return self.form.chain.resources.grown(self._sizes, self.form.values)

    # What happens -----------------------------------------------------------------------------------------------

    def start(self, **how: Any) -> Run:
        """Run what the page shows; `how` goes to `phidias_lab.run`, for example output and format."""
        if "on" not in how and self._where.value != LOCAL:
            how = {"on": self._where.value, "workers": self._workers.value, **how}
        self.follow(flow.run(self.order, **how))
        self.list_runs()
        return self.run

    def follow(self, run: Run) -> None:
        """Watch a run, or show an ended one."""
        self.run, self.result, self._shown = run, None, None
        self._result.objects = []
        self._told.objects = []
        self._download.visible = self._for_centres.visible = False
        self._complain("")
        self.refresh()
        if run.status not in ENDED:
            self._tick(True)

    def open(self, run: str | Run) -> None:
        """Show an earlier run: its order in the form as it was asked, its state, its result."""
        run = runs.find(run) if isinstance(run, str) else run
        asked = run.folder / "asked.json"
        # What the chain resolved ('auto', all levels) is left open again, so that another input may be chosen.
        self.load(asked if asked.is_file() else run.order)
        self.follow(run)

    def cancel(self) -> str | None:
        """Stop the run and wait until it has stopped; gives the state."""
        state = None if self.run is None else self.run.cancel()
        self.refresh()
        return state

    def resume(self) -> Run:
        """Go on with the run that the page shows, if it was cancelled, interrupted or failed; finished pieces stay."""
        if self.run is None:
            raise ParameterError("No run is shown here. Open one of the earlier runs first.")
        self.follow(self.run.resume())
        self.list_runs()
        return self.run

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the run as a script does; gives the state."""
        if self.run is None:
            raise ParameterError("Nothing runs here yet. Call start() first.")
        state = self.run.wait(timeout)
        self.refresh()
        return state

    def refresh(self) -> None:
        """Let the page agree with the run."""
        if self.run is None:
            return
        status, progress = self.run.status, self.run.progress
        busy = status not in ENDED
        self._run.disabled, self._cancel.disabled = busy or not self._usable, not busy
        self._resume.visible = status in ENDED and status != DONE
        self._progress.visible = busy
        self._progress.value = round(100 * progress.fraction)
        left = ""
        if progress.seconds_left is not None:
            left = f", about {timedelta(seconds=round(progress.seconds_left))} left"
        words = f"{progress.fraction:.0%}, {progress.message}{left}" if busy else ""
        again = " Resume goes on from its finished pieces." if self._resume.visible else ""
        say(self._state, f"Run {self.run.id}: {status}{', ' + words if words else ''}.{again}")
        if busy or self._shown == status:
            return
        self._shown = status
        self._tick(False)
        self._show_told()
        self._show_log()
        self.list_runs()
        if status == DONE:
            self._show_result()
        elif self.run.error:
            self._complain(self.run.error)

    def list_runs(self) -> None:
        """Read the list of earlier runs again."""
        found = runs.runs()[:RECENT]
        self._recent.options = {
            f"{r.created:%Y-%m-%d %H:%M:%S} {r.order.chain}: {r.status} ({r.id[-6:]})": r.id for r in found
        }
        known = list(self._recent.options.values())
        if self.run is not None and self.run.id in known:
            self._recent.value = self.run.id
        elif self._recent.value not in known:
            self._recent.value = known[0] if known else None
        self._open.disabled = not found

    # How the page follows ---------------------------------------------------------------------------------------

    _sizes: Mapping[str, Mapping[str, int]] = {}
    _usable = False

    def _ordered(self) -> None:
        """An input changed: look at what it holds, without reading its values."""
        if self._loading:
            return
        sizes = {}
        for name, chooser in self.inputs.items():
            names, sizes[name] = chooser.look()
            self.form.offer(name, names)
        self._sizes = sizes
        self._described()

    def _described(self) -> None:
        """The order changed: say what it would need, and write it out."""
        if self._loading:
            return
        try:
            text, link, need = self.order.dumps(), self.link, self.estimate()
        except PhidiasError as error:
            self._usable = False
            say(self._estimate, f"Cannot run yet: {error}", problem=True)
            self._link.object = ""
        else:
            self._usable = True
            self._text.value = text
            if link is None:
                self._link.object = "This order is too long for a link; share its JSON."
            else:
                self._link.object = f'<a href="{_escaped(link)}">Link to this order</a>'
            free = psutil.virtual_memory().available
            words = (
                f"Needs about {show_memory(need.memory_bytes)} of memory and {need.cores} cores, "
                f"at most {timedelta(seconds=need.walltime_seconds)} of time. {show_memory(free)} are free here."
            )
            short = need.memory_bytes > free
            say(self._estimate, words + (" It may not fit: choose a smaller region." if short else ""), problem=short)
        self._run.disabled = not self._usable or (self.run is not None and self.run.status not in ENDED)

    def _complain(self, text: str) -> None:
        say(self._problem, text, problem=True)

    def _show_told(self) -> None:
        """What the run said beside its result: what was left out, warnings, and where it computed."""
        document = self.run.record.get("said") or {}
        counts, warnings = said.lines_of({**document, "warnings": ()}), document.get("warnings") or ()
        self._told.objects = [
            *(sentence(f"{line[:1].upper()}{line[1:].rstrip('.')}.", sizing_mode="stretch_width") for line in counts),
            *(sentence(f"Warning: {text}", problem=True, sizing_mode="stretch_width") for text in warnings),
        ]

    def _show_log(self) -> None:
        log = self.run.log[-100_000:]
        self._log.object = f'<pre style="white-space: pre-wrap">{_escaped(log)}</pre>'
        self._log_card.visible = bool(log.strip())

    def _show_result(self) -> None:
        try:
            self.result = self.run.result()
            self._result.objects = [view(self.run)]
        except Exception as error:  # noqa: BLE001 - whatever drawing raises is said on the page, where the user looks
            kind = "" if isinstance(error, PhidiasError) else f"The result cannot be drawn: {type(error).__name__}: "
            self._complain(f"{kind}{error}")
        path = self.run.product.path
        self._download.filename = path.name if path.is_file() else f"{path.name}.zip"
        self._download.visible = True
        self._for_centres.filename = f"{path.stem}-seadatanet.nc"
        with contextlib.suppress(PhidiasError):  # of another kind of product, which is downloaded as it is
            seadatanet.check(self.run.product)
            self._for_centres.visible = True

    def _product_file(self) -> Any:
        path = self.run.product.path
        if path.is_file():
            return str(path)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                archive.write(file, Path(path.name) / file.relative_to(path))
        packed.seek(0)
        return packed

    def _seadatanet_file(self) -> io.BytesIO:
        self._complain("")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self._for_centres.filename
            try:
                self._complain(" ".join(flow.export(self.run, path)))
            except PhidiasError as error:
                self._complain(str(error))
                raise
            return io.BytesIO(path.read_bytes())

    def _order_stream(self) -> io.StringIO:
        return io.StringIO(self.order.dumps())

    def _tick(self, on: bool) -> None:
        """Look at the run every now and then, as long as it runs and somebody has the page open."""
        if self._clock is not None:
            self._clock.stop()
            self._clock = None
        if on and live():
            self._clock = pn.state.add_periodic_callback(self.refresh, period=PERIOD)

    # What the buttons call: the methods above, with errors on the page -------------------------------------------

    def _chain_chosen(self, event: Any) -> None:
        if not self._loading:
            self._said(lambda: self.choose(event.new))

    def _said(self, action) -> None:
        self._complain("")
        try:
            action()
        except PhidiasError as error:
            self._complain(str(error))

    def _clicked_run(self) -> None:
        self._said(self.start)

    def _clicked_cancel(self) -> None:
        self._cancel.disabled = True
        say(self._state, f"Run {self.run.id}: stopping.")
        threading.Thread(target=self.run.cancel, daemon=True).start()

    def _clicked_resume(self) -> None:
        self._said(self.resume)

    def _clicked_open(self) -> None:
        self._said(lambda: self.open(self._recent.value))

    def _clicked_load(self) -> None:
        self._said(lambda: self.load(self._text.value))


def _places() -> dict[str, str]:
    """The places of the site by their titles; this machine alone where the site file cannot be read."""
    try:
        found = requests.places(site.current())
    except PhidiasError:
        return {"This machine": LOCAL}
    return dict(sorted(found.items(), key=lambda item: item[1] != LOCAL))


def _titles() -> dict[str, str]:
    """Titles of the chains with their ids; a chain that cannot be imported keeps its id."""
    found = {}
    for chain_id in registry.chains():
        try:
            found[f"{chain_id}: {registry.chain(chain_id).title}".removesuffix(": ")] = chain_id
        except ParameterError:
            found[chain_id] = chain_id
    return found


def _escaped(text: str) -> str:
    import html

    return html.escape(text, quote=True)
