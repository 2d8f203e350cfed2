"""Turn a TopoJSON file of land into the compressed rings this folder holds.

    python -m phidias_lab.methods.coastlines.make land-50m.json land_50m.npz

A TopoJSON arc is a list of integer steps on a grid: position = cumulative sum x scale + translate. A ring names its arcs
by number; ~n stands for arc n walked backwards (TopoJSON specification, sections 2.1.3 to 2.1.5).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def rings_of(topology: dict) -> tuple[list[np.ndarray], list[int]]:
    """Closed rings as integer grid positions (n, 2), and for each the number of its polygon; the outer ring comes first."""
    arcs = [np.cumsum(np.asarray(arc, np.int64), axis=0) for arc in topology["arcs"]]
    rings, polygon_of = [], []
    polygons = [p for shape in topology["objects"]["land"]["geometries"] for p in shape["arcs"]]
    for number, polygon in enumerate(polygons):
        for ring in polygon:
            parts = [arcs[a] if a >= 0 else arcs[~a][::-1] for a in ring]
            # Neighbouring arcs share their end point; it is kept once.
            points = np.concatenate([parts[0], *(p[1:] for p in parts[1:])])
            if np.ptp(points[:, 1]) == 0:
                continue
            rings.append(points)
            polygon_of.append(number)
    return rings, polygon_of


def make(source: Path, target: Path) -> None:
    """Write the rings of a TopoJSON file as a compressed archive of integer steps."""
    topology = json.loads(Path(source).read_text())
    rings, polygon_of = rings_of(topology)
    points = np.concatenate(rings)
    np.savez_compressed(
        target,
        steps=np.diff(points, axis=0, prepend=np.zeros((1, 2), np.int64)).astype(np.int32),
        starts=np.cumsum([0, *map(len, rings)]).astype(np.int32),
        polygon=np.asarray(polygon_of, np.int32),
        scale=np.asarray(topology["transform"]["scale"]),
        translate=np.asarray(topology["transform"]["translate"]),
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
