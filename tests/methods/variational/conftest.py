"""Problems on small grids, and the two programs beside this one: a dense one in `dense`, octave-divand in `octave`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


def make_problem(shape, *, land=True, varying=True, cyclic=False, flow=False, count=12, seed=0) -> dict:
    """Arguments of `analyse`: an island, uneven metrics, lengths that differ by dimension and node, noise each.

    Observations keep a cell away from land and edges, where octave-divand has other conventions.
    """
    rng = np.random.default_rng(seed)
    n = len(shape)
    lines = [np.linspace(0, 1, size) for size in shape]
    mask = np.ones(shape, bool)
    if land:
        mask[tuple(slice(int(0.7 * size), int(0.7 * size) + 1) for size in shape[:2])] = False
    uneven = 0.2 * varying
    problem = {
        "mask": mask,
        "metrics": [(size - 1) * (1 + uneven * rng.random(shape)) for size in shape],
        "coords": lines,
        "obs_coords": list(rng.uniform(0.02, 0.45, (n, count))),
        "values": rng.standard_normal(count),
        "length": [(0.2 + 0.06 * i) * (1 + uneven * rng.random(shape)) for i in range(n)],
        "noise": rng.uniform(0.1, 1.0, count),
    }
    if cyclic:
        # The last dimension closes: its period is one step longer than its nodes reach.
        problem["cyclic"] = [0.0] * (n - 1) + [shape[-1] / (shape[-1] - 1)]
    if flow:
        problem["velocity"] = [0.3 * rng.standard_normal(shape) for _ in shape]
    return problem


@pytest.fixture
def problem():
    """The factory of problems."""
    return make_problem


@pytest.fixture
def difference():
    """Largest difference of two fields relative to the largest value; land must agree too."""

    def relative(a, b) -> float:
        assert np.array_equal(np.isnan(a), np.isnan(b))
        return float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(b)))

    return relative
