"""What the views of one cube share: the place that was chosen, and the line that was drawn on its map."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import param

from phidias_lab.errors import InputError

Vertex = tuple[float, float]


class Spot(param.Parameterized):
    """Longitude and latitude in degrees; who looks at them follows."""

    place = param.Parameter(None, doc="the place, or None")
    line = param.Parameter((), doc="the vertices of the line")


def written(vertices: Sequence[Vertex]) -> str:
    """'-20 45; -12.5 50': longitude and latitude of each vertex."""
    return "; ".join(f"{round(lon, 3):g} {round(lat, 3):g}" for lon, lat in vertices)


def read(text: str, least: int = 1, most: int | None = None) -> tuple[Vertex, ...]:
    """The vertices that a text like '-20 45; -12.5 50' names; an empty one names none."""
    parts = [part for part in text.split(";") if part.strip()]
    try:
        found = [tuple(float(number) for number in re.split(r"[\s,]+", part.strip())) for part in parts]
    except ValueError:
        found = [()]
    good = all(len(vertex) == 2 and np.isfinite(vertex).all() and abs(vertex[1]) <= 90 for vertex in found)
    if not good or (found and not least <= len(found) <= (most or len(found))):
        wanted = "one place" if most == 1 else f"{least} places or more, with semicolons between them"
        raise InputError(
            f"{text.strip()!r} was given for {wanted}. Write longitude and latitude in degrees, such as "
            f"{'-20 45' if most == 1 else '-20 45; -12.5 50'}."
        )
    return tuple(found)
