"""Animation of a cube along one of its other dimensions: on a live page, and as a page of its own that needs no lab.

>>> film = animation(run, along="time")     # doctest: +SKIP
>>> film.save("seasons.html")               # doctest: +SKIP
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.core.templates import FILE
from bokeh.core.validation import silenced
from bokeh.core.validation.warnings import FIXED_SIZING_MODE
from bokeh.document import Document
from bokeh.models import UIElement
from bokeh.resources import INLINE
from panel.io.embed import embed_state
from panel.io.notebook import patch_inline_stylesheets, render_model
from panel.io.resources import Resources, set_resource_mode
from panel.io.save import file_html
from pyviz_comms import Comm

from phidias_lab.compute.runs import Run, write_text
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.products import Product
from phidias_lab.widgets.accessible import SpokenNames
from phidias_lab.widgets.controls import Wrap, control, download, live, prepare, tick
from phidias_lab.widgets.views import axes

PLAY = "Play"
#: Milliseconds from one figure to the next.
PACES = {"slow": 1500, "medium": 700, "fast": 300}
#: A view that nobody looks at any more stops after so many rounds; nothing tells a notebook's kernel that it has been left.
ROUNDS = 20
#: More numbers than this do not go into one page, which holds each of them in 11 characters.
MOST_NUMBERS = 5_000_000
MOST_FRAMES = 500


class Player:
    """The controls by which a view goes through one of its sliders, and hands the animation over as a file."""

    def __init__(self, view: Any):
        self.view = view
        self.along = control(pn.widgets.Select, "Play along", options=[], width=110)
        self.pace = control(pn.widgets.Select, "Pace", options=PACES, value=PACES["medium"], width=90)
        # A box to tick, since a screen reader says whether it is ticked, and it keeps the focus.
        self.playing = tick(PLAY)
        self.file = download("Save the animation", self._stream, "animation.html", width=150)
        self.playing.param.watch(lambda event: self._play(), "value")
        self.pace.param.watch(lambda event: self._clock is not None and self._run(), "value")
        self.along.param.watch(lambda event: self._fit(), "value")
        # Away from the view's other controls, which are made anew when something is drawn otherwise.
        self.row = Wrap(align_items="end", margin=0)
        self._clock: Any = None
        self._left = 0

    def follow(self) -> None:
        """Show the controls for what there is to play along now; none where nothing changes."""
        options = playable(self.view)
        if self.along.options != options:
            self.along.param.update(options=options, value=_first(self.view.array, options, self.along.value))
            several = [self.along] if len(options) > 1 else []
            self.row.objects = [self.playing, *several, self.pace, self.file] if options else []
        self._fit()

    def _play(self) -> None:
        """Go on from where the slider stands, again and again, with the same colours for all; or pause."""
        self._stop()
        if self.playing.on and live():  # a script has nobody who looks
            self._left = ROUNDS * self.view.array.sizes[self.along.value]
            self.view.steady()
            self._run()

    def step(self) -> None:
        """The next figure, and after the last one the first."""
        slider = self.view.sliders.get(self.along.value)
        if slider is None:  # another variable was chosen that does not have this dimension
            self.playing.on = False
            return
        try:
            slider.value = (slider.value + 1) % self.view.array.sizes[self.along.value]
        except Exception:  # what cannot be drawn is told once, not again and again
            self.playing.on = False
            raise
        self._left -= 1
        if self._left == 0:
            self.playing.on = False

    def _run(self) -> None:
        self._stop()
        self._clock = pn.state.add_periodic_callback(self.step, period=self.pace.value)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.stop()
            self._clock = None

    def _fit(self) -> None:
        self.file.visible = self.along.value in playable(self.view) and _too_much(self.view, self.along.value) is None

    def _stream(self) -> io.StringIO:
        return io.StringIO(Animation(self.view, self.along.value, self.pace.value).html())


class Animation:
    """The figures of a view along one dimension, all of them inside one page that plays them."""

    def __init__(self, view: Any, along: str, pace: int = PACES["medium"]):
        problem = _too_much(view, along)
        if problem:
            raise InputError(problem)
        # A view of its own, since all figures are drawn once and the one that is looked at should stay as it is.
        places = {dim: slider.value for dim, slider in view.sliders.items() if dim != along}
        known = along in view.array.coords
        self.view = view.part(places, **({} if known else {along: range(view.array.sizes[along])}))
        self.view.steady()
        self.along, self.pace = along, pace

    def html(self) -> str:
        """The page: figures, scripts and styles in one text that asks no other host."""
        doc, _ = self._embedded()
        title = f"{axes.short_name(self.view.array)} along {self.along}"
        with set_resource_mode("inline"), silenced(FIXED_SIZING_MODE):
            # Panel's own template names icons on another host.
            return file_html(doc, Resources.from_bokeh(INLINE, absolute=True), title, template=FILE)

    def save(self, path: str | Path) -> Path:
        """Write the page, in one step."""
        path = Path(path).expanduser()
        if path.suffix.lower() not in (".html", ".htm"):
            raise ParameterError(
                f"An animation is a page, and {path.name!r} does not end with .html. Give such a name."
            )
        text = self.html()
        try:
            write_text(path, text)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise InputError(f"The animation could not be written to {path}: {reason}. Give another path.") from None
        return path

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        _, model = self._embedded()
        with silenced(FIXED_SIZING_MODE):
            return render_model(model)

    def _embedded(self) -> tuple[Document, Any]:
        from phidias_lab.widgets.views import of_synthetic

        slider, view = self.view.sliders[self.along], self.view
        playing = tick(PLAY)
        (inner,) = slider.select(pn.widgets.IntSlider)
        playing.jscallback(args={"slider": inner}, value=_STEPS % self.pace)
        words = of_synthetic(view.data, figures=True)
        page = pn.Column(pn.Row(playing, slider, margin=0), *([] if words is None else [words]), view.figures)
        page.append(SpokenNames())
        doc = Document()
        with set_resource_mode("inline"), pn.config.set(embed=True):
            model = page.get_root(doc, Comm())
            count = view.array.sizes[self.along]
            embed_state(page, model, doc, max_states=count, progress=False, states={slider: list(range(count))})
        for part in model.select({"type": UIElement}):
            patch_inline_stylesheets(part)
        return doc, model


#: What ticking the box of the page does; `cb_obj` is the box, and keeps its clock.
_STEPS = """
clearInterval(cb_obj.clock)
const next = () => { slider.value = slider.value < slider.end ? slider.value + 1 : slider.start }
if (cb_obj.active.length) cb_obj.clock = setInterval(next, %d)
"""


def animation(
    data: Any, along: str | None = None, *, kind: str | None = None, variable: str | None = None, pace: str = "medium"
) -> Animation:
    """The figures of a cube along a dimension that they do not show, in one page.

    `data` are a Dataset, a run or a product; `kind` is one of its views (a map, a section, ...), the first one that has
    such a dimension unless given. Along time where there are several times, else along depth, unless told otherwise. What
    is long in other dimensions is shown at one place of it: choose it before, `animation(result.sel(depth=50))`.
    """
    from phidias_lab.widgets.views import of_cubes, suitable

    prepare()
    if pace not in PACES:
        raise ParameterError(f"The pace {pace!r} is not known. Give one of {', '.join(PACES)}.")
    if isinstance(data, Run | Product):
        data = data.result() if isinstance(data, Run) else data.open()
    if hasattr(data, "to_dataset") and not hasattr(data, "data_vars"):
        data = data.to_dataset(name=data.name or "value")
    if not hasattr(data, "data_vars"):
        raise InputError(f"A {type(data).__name__} cannot be animated. Give a run, a product or an xarray Dataset.")
    views = of_cubes()
    kinds = [name for name in suitable(data) if name in views and kind in (None, name)]
    found = [views[name](data, variable=variable) for name in kinds]
    found = [view for view in found if playable(view) and along in (None, *playable(view))]
    if not found:
        what = f"the view {kind!r}" if kind else "any view"
        raise InputError(
            f"There is nothing to animate: {what} of these data that leaves out "
            f"{'a dimension of several places' if along is None else repr(along)} is missing. "
            f"They have {', '.join(f'{dim} ({size})' for dim, size in data.sizes.items()) or 'no dimension'}."
        )
    view = found[0]
    return Animation(view, along or _first(view.array, playable(view)), PACES[pace])


def playable(view: Any) -> list[str]:
    """The dimensions that a view can be played along: those with an order, which names have not."""
    return [dim for dim, slider in view.sliders.items() if not isinstance(slider, pn.widgets.Select)]


def _first(array: Any, options: list[str], before: str | None = None) -> str | None:
    """What is played along unless told otherwise: what was, else time, else depth."""
    if before in options or not options:
        return before if options else None
    roles = axes.roles(array)
    return next((roles[letter] for letter in "tz" if roles.get(letter) in options), options[0])


def _too_much(view: Any, along: str) -> str | None:
    """Why an animation does not fit into one page, if it does not."""
    array = view.array
    frames = array.sizes[along]
    others = [dim for dim in view.sliders if dim != along]
    numbers = array.size // math.prod(array.sizes[dim] for dim in others) * (1 if view.error is None else 2)
    if frames <= MOST_FRAMES and numbers <= MOST_NUMBERS:
        return None
    return (
        f"An animation of {frames} figures with {numbers:,} numbers does not fit into one page, which takes {MOST_FRAMES} "
        f"figures and {MOST_NUMBERS:,} numbers. Choose a smaller region, or fewer places along {along!r}."
    )
