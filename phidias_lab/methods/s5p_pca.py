"""The published rules of S5P-PCA, the operational screening at AERIS/ICARE: which pixels are detections of CO, their grid,
and the labels of plumes on it.

Facts and numbers are those of the post-processing that HYGEOS published (github.com/hygeos: wekeo_s5p_pca_l3 at 08b2c43c,
wekeo_plumes_post_process at 157f683c). Plumes are labelled on a grid in these steps:

1. Cells with a detection; the first column is appended once more, and three such copies stand side by side.
2. Morphological closing with an ellipse of 15 x 15 cells; 8-connected regions get labels.
3. Column by column and row by row, ten columns beside the date line are compared: column c of the left copy with the column
   c before the end of the middle one, then column c of the middle with that of the right copy. Of two different labels the
   larger becomes the smaller one (of several that a label meets, the last), and so on down to the root.
4. Labels of the middle copy with 70 cells or more are plumes.
5. Of the others, a single cell is kept if its score CO_1 or CO_2 is at least 0.90, and more cells if the means of both
   are at least 0.4.
6. A kept group at most 20 cells from a plume gets the label of the nearest one.
7. Plumes are 1, 2, ..., other groups 100, 101, ..., each in the order of their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

#: Of score_CO_1 to 3, for July 2022.
THRESHOLDS = (0.352, 0.351, 0.315)
#: Columns of the equirectangular grid, 0.11 degrees wide; half as many rows.
WIDTH = 3272
#: Cells of a plume at least, and numbers of the groups that are none.
PLUME, FIRST_GROUP = 70, 100
#: Mean scores CO_1 and CO_2 of smaller groups that are kept: one cell (either of the two), more cells (both).
ONE, SOME = 0.90, 0.4
#: Cells to the nearest plume within which a group belongs to it.
NEAR = 20
#: Columns beside the date line that are compared.
BESIDE = 10


def detected(scores: Sequence[np.ndarray], flag: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """Pixels where at least two of the three scores are above their thresholds, and the processing flag is 0."""
    above = sum((np.asarray(score) > least).astype(np.uint8) for score, least in zip(scores, thresholds, strict=True))
    return (above >= 2) & (np.asarray(flag) == 0)


class Gridded(NamedTuple):
    latitude: np.ndarray
    longitude: np.ndarray
    mean: np.ndarray  # NaN where there is none
    count: np.ndarray


def gridded(latitude: np.ndarray, longitude: np.ndarray, values: np.ndarray, width: int = WIDTH) -> Gridded:
    """Mean and count of the pixels whose nearest grid point this is. Rows go from pole to pole, both included; columns
    from -180 on."""
    height = width // 2
    lat, lon, values = (np.asarray(part, float).ravel() for part in (latitude, longitude, values))
    good = np.isfinite(lat) & np.isfinite(lon) & np.isfinite(values)
    row = np.round((lat[good] + 90.0) * ((height - 1) / 180.0)).astype(np.int64)
    column = np.round((lon[good] + 180.0) * (width / 360.0)).astype(np.int64) % width
    cell = row * width + column
    count = np.bincount(cell, minlength=height * width).reshape(height, width)
    total = np.bincount(cell, weights=values[good], minlength=height * width).reshape(height, width)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Gridded(np.linspace(-90, 90, height), np.linspace(-180, 180, width, endpoint=False), mean, count)


def plume_labels(detection: np.ndarray, co_1: np.ndarray, co_2: np.ndarray) -> np.ndarray:
    """Labels of the cells of a grid: plumes 1, 2, ..., groups that are none 100, 101, ... (from the number of plumes on
    where there are as many).

    `detection` tells the cells with a detection, `co_1` and `co_2` are mean scores, NaN where there is none.
    """
    middle = _closed_and_labelled(np.asarray(detection, bool))
    cells = np.argwhere(middle)
    label = middle[tuple(cells.T)]
    order = np.argsort(label, kind="stable")
    parts = np.split(cells[order], np.flatnonzero(np.diff(label[order])) + 1) if cells.size else []
    plumes = [part for part in parts if len(part) >= PLUME]
    made = np.zeros(middle.shape, np.int32)
    for number, part in enumerate(plumes, start=1):
        made[tuple(part.T)] = number
    of_plumes = np.argwhere(made)
    alone = max(FIRST_GROUP, len(plumes) + 1)
    for part in parts:
        if len(part) >= PLUME or not _is_kept(part, co_1, co_2):
            continue
        # Only plume cells so near can count.
        near = (of_plumes >= part.min(axis=0) - NEAR) & (of_plumes <= part.max(axis=0) + NEAR)
        near = of_plumes[near.all(axis=1)]
        apart = np.square(part[:, None] - near[None]).sum(axis=-1)
        if apart.size and apart.min() <= NEAR**2:
            made[tuple(part.T)] = made[tuple(near[np.argmin(apart) % len(near)])]
        else:
            made[tuple(part.T)] = alone
            alone += 1
    return made


def _closed_and_labelled(image: np.ndarray) -> np.ndarray:
    """The labels of the closed image, put together across the date line."""
    width = image.shape[1]
    once = np.concatenate([image, image[:, :1]], axis=1)
    thrice = np.concatenate([once, once, once], axis=1)
    # Beyond the edges nothing is, for the dilation, and all is, for the erosion.
    wide = ndimage.binary_dilation(thrice, ELLIPSE)
    closed = ndimage.binary_erosion(wide, ELLIPSE, border_value=1)
    labels, many = ndimage.label(closed, np.ones((3, 3)))
    left, middle, right = np.split(labels, 3, axis=1)
    smaller = np.arange(many + 1)
    for one, other in ((middle[:, ::-1], left), (middle, right)):
        for column in range(min(BESIDE, width)):
            a, b = one[:, column], other[:, column]
            differ = (a > 0) & (b > 0) & (a != b)
            # Row by row: of several that a label meets, the last one counts.
            for low, high in zip(np.minimum(a, b)[differ].tolist(), np.maximum(a, b)[differ].tolist(), strict=True):
                smaller[high] = low
    while (smaller != smaller[smaller]).any():
        smaller = smaller[smaller]
    return smaller[middle[:, :width]]


def _is_kept(cells: np.ndarray, co_1: np.ndarray, co_2: np.ndarray) -> bool:
    means = []
    for score in (co_1, co_2):
        mine = np.asarray(score, float)[tuple(cells.T)]
        mine = mine[~np.isnan(mine)]
        means.append(float(mine.mean()) if mine.size else 0.0)
    return max(means) >= ONE if len(cells) == 1 else min(means) >= SOME


def _ellipse(size: int) -> np.ndarray:
    """The disc in a square of an odd size, its widths rounded as by OpenCV's getStructuringElement."""
    radius = size // 2
    down = np.arange(size) - radius
    return np.abs(down)[None, :] <= np.rint(np.sqrt(radius**2 - np.square(down)))[:, None]


ELLIPSE = _ellipse(15)
