"""The labels are those of the published steps, followed literally, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from phidias_lab.methods import s5p_pca
from phidias_lab.methods.s5p_pca import detected, gridded, plume_labels

# cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)) of OpenCV 4 and 5: half widths of the rows.
HALF = [0, 4, 5, 6, 6, 7, 7, 7, 7, 7, 6, 6, 5, 4, 0]


def spread(image, over):
    """`over` (any or all) of the cells of the ellipse around each cell, as far as they are in the image."""
    height, width = image.shape
    made = np.zeros_like(image)
    for r in range(height):
        for c in range(width):
            cells = [
                image[r + dy, c + dx]
                for dy in range(-7, 8)
                if 0 <= r + dy < height
                for dx in range(-HALF[dy + 7], HALF[dy + 7] + 1)
                if 0 <= c + dx < width
            ]
            made[r, c] = over(cells)
    return made


def numbered(image):
    """Regions of 8-connected cells, numbered in the order of their first cell, row by row."""
    label, number = np.zeros(image.shape, int), 0
    for r, c in np.argwhere(image):
        if label[r, c]:
            continue
        number += 1
        todo = [(r, c)]
        while todo:
            y, x = todo.pop()
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] and image[y, x] and not label[y, x]:
                label[y, x] = number
                todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return label


def literally(detection, co_1, co_2, closing=lambda image: spread(spread(image, any), all), number=numbered):
    """The seven steps that the module tells."""
    height, width = detection.shape
    copy = np.concatenate([detection, detection[:, :1]], axis=1)
    label = number(closing(np.concatenate([copy] * 3, axis=1)))
    left, middle, right = label[:, : width + 1], label[:, width + 1 : 2 * width + 2], label[:, 2 * width + 2 :]
    merged = {}
    for c in range(min(10, width)):
        for r in range(height):
            a, b = left[r, c], middle[r, -(c + 1)]
            if a and b and a != b:
                merged[max(a, b)] = min(a, b)
    for c in range(min(10, width)):
        for r in range(height):
            a, b = middle[r, c], right[r, c]
            if a and b and a != b:
                merged[max(a, b)] = min(a, b)
    groups = {}
    for r in range(height):
        for c in range(width):
            root = middle[r, c]
            while root in merged:
                root = merged[root]
            if root:
                groups.setdefault(root, []).append((r, c))
    plumes = [groups[k] for k in sorted(groups) if len(groups[k]) >= 70]
    made = np.zeros(detection.shape, int)
    for k, cells in enumerate(plumes):
        made[tuple(np.transpose(cells))] = k + 1
    of_plumes = [(r, c) for r in range(height) for c in range(width) if made[r, c]]
    final, next_one = made.copy(), 100
    for k in sorted(groups):
        cells = groups[k]
        if len(cells) >= 70:
            continue
        one, two = (np.mean([s[cell] for cell in cells if not np.isnan(s[cell])] or [0.0]) for s in (co_1, co_2))
        if not (one >= 0.9 or two >= 0.9 if len(cells) == 1 else one >= 0.4 and two >= 0.4):
            continue
        pairs = [((y - r) ** 2 + (x - c) ** 2, (y, x)) for r, c in cells for y, x in of_plumes]
        nearest = min(pairs, key=lambda pair: pair[0], default=(np.inf, None))
        if nearest[0] <= 20**2:
            final[tuple(np.transpose(cells))] = made[nearest[1]]
        else:
            final[tuple(np.transpose(cells))] = next_one
            next_one += 1
    return final


def scene(seed, height=40, width=70, share=0.05):
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(height, width)), 2.0, mode=("nearest", "wrap"))
    detection = (field > np.quantile(field, 1 - share)) & (random.random(field.shape) < 0.6)
    detection |= random.random(field.shape) < 0.002
    scores = [np.where(detection, random.uniform(0.3, 1.0, field.shape), np.nan) for _ in range(2)]
    return detection, *scores


@pytest.mark.parametrize("seed", range(6))
def test_labels_are_those_of_the_published_steps(seed):
    drawn = scene(seed, share=(0.02, 0.05)[seed % 2])
    expected = literally(*drawn)
    assert np.array_equal(plume_labels(*drawn), expected)


def test_scenes_hold_what_the_steps_tell_apart():
    seen = np.concatenate([np.unique(plume_labels(*scene(s, share=(0.02, 0.05)[s % 2]))) for s in range(6)])
    assert {0, 1, 2, 100, 101} <= set(seen.tolist())


def blocks(*where, shape=(60, 200)):
    """Cells of the given rectangles (row, column, rows, columns), all with scores of 0.5."""
    detection = np.zeros(shape, bool)
    for r, c, rows, columns in where:
        detection[r : r + rows, c : c + columns] = True
    score = np.where(detection, 0.5, np.nan)
    return detection, score, score


def test_seventy_cells_are_a_plume_and_sixty_nine_a_group():
    labels = plume_labels(*blocks((10, 20, 7, 10), (10, 120, 3, 23)))
    assert (labels[10:17, 20:30] == 1).all()
    assert (labels[10:13, 120:143] == 100).all()
    assert np.count_nonzero(labels) == 70 + 69


def test_a_group_within_twenty_cells_belongs_to_the_plume():
    # The plume ends in column 29; closing fills nothing between them.
    for first, label in ((49, 1), (50, 100)):
        labels = plume_labels(*blocks((10, 20, 8, 10), (12, first, 2, 2)))
        assert (labels[12:14, first : first + 2] == label).all()


def test_a_group_between_two_plumes_belongs_to_the_nearer_one():
    # 17 cells to the one and 19 to the other.
    for first, label in ((46, 1), (48, 2)):
        labels = plume_labels(*blocks((10, 20, 12, 10), (10, 68, 12, 10), (14, first, 4, 4)))
        assert labels.max() == 2
        assert (labels[14:18, first : first + 4] == label).all()


def test_small_groups_need_high_scores():
    detection, one, two = blocks((10, 20, 1, 1), (10, 60, 1, 1), (10, 100, 1, 2), (10, 140, 1, 2), (40, 60, 1, 1))
    two = two.copy()
    two[10, 20], two[10, 60], two[10, 140:142] = 0.90, 0.89, (0.5, 0.29)
    two[40, 60] = np.nan
    labels = plume_labels(detection, one, two)
    assert labels[10, 20] == 100  # one score of at least 0.9
    assert labels[10, 60] == 0
    assert (labels[10, 100:102] == 101).all()  # both means at least 0.4
    assert (labels[10, 140:142] == 0).all()  # the mean of CO_2 is 0.395
    assert labels[40, 60] == 0


def test_closing_joins_what_is_near_and_a_plume_crosses_the_date_line():
    labels = plume_labels(*blocks((10, 0, 8, 8), (10, 192, 8, 8)))
    assert (labels[10:18, :8] == 1).all()
    assert (labels[10:18, 192:] == 1).all()
    assert labels.max() == 1
    # 13 empty columns are closed, 15 are not.
    for gap, number in ((13, 1), (15, 2)):
        labels = plume_labels(*blocks((20, 50, 15, 15), (20, 65 + gap, 15, 15)))
        assert labels.max() == number


def test_numbers_of_groups_follow_those_of_very_many_plumes():
    many = [(r, c, 9, 9) for r in range(0, 520, 40) for c in range(20, 380, 40)]
    labels = plume_labels(*blocks(*many, (550, 200, 2, 2), shape=(600, 400)))
    assert labels.max() == len(many) + 1 == 118
    assert (labels[550:552, 200:202] == 118).all()


def test_two_of_three_scores_make_a_detection():
    low, high = np.array(s5p_pca.THRESHOLDS), np.array(s5p_pca.THRESHOLDS) + 0.01
    rows = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    scores = np.array([[(low, high)[one][k] for k, one in enumerate(row)] for row in rows]).T
    found = detected(scores, np.zeros(8, int))
    # (1 and 2) or (3 and (1 or 2))
    assert found.tolist() == [bool((a and b) or (c and (a or b))) for a, b, c in rows]
    assert not detected(scores, np.array([1, 2, 4, 8, 16, 1, 1, 1])).any()
    assert not detected([[np.nan], [1.0], [0.1]], np.zeros(1)).any()


def test_the_grid_holds_mean_and_count_of_the_nearest_pixels():
    random = np.random.default_rng(0)
    lat, lon, value = random.uniform(-90, 90, 4000), random.uniform(-180, 180, 4000), random.normal(size=4000)
    lat[:3], lon[:3], value[3] = (90, -90, 0), (180, 179.99, -180), np.nan
    found = gridded(lat, lon, value, width=36)
    assert found.mean.shape == found.count.shape == (18, 36)
    assert found.count.sum() == 3999
    expected = {}
    for y, x, v in zip(lat, lon, value, strict=True):
        if np.isnan(v):
            continue
        row = np.argmin(np.abs(found.latitude - y))
        away = np.abs(found.longitude - x)
        column = np.argmin(np.minimum(away, 360 - away))
        expected.setdefault((row, column), []).append(v)
    for cell, values in expected.items():
        assert found.count[cell] == len(values)
        assert found.mean[cell] == pytest.approx(np.mean(values))
    assert np.isnan(found.mean[found.count == 0]).all()


def test_the_published_grid_has_its_size():
    found = gridded(np.zeros(1), np.zeros(1), np.ones(1))
    assert found.mean.shape == (1636, 3272)
    assert found.longitude[0] == -180
    assert found.latitude[[0, -1]].tolist() == [-90, 90]
