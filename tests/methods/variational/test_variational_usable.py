"""Which observations count can be asked before anything is solved."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.methods.variational import analyse, usable


@pytest.mark.parametrize("cyclic", [(), (0.0, 10.0)])
@pytest.mark.parametrize("stretch", [False, True])
def test_the_observations_that_count_are_those_the_analysis_uses(cyclic, stretch):
    rng = np.random.default_rng(2)
    mask = np.ones((8, 10), bool)
    mask[2:6, 3:7] = False
    metrics, coords = [np.ones(mask.shape)] * 2, [np.arange(8.0), np.arange(10.0)]
    places = [rng.uniform(-1, 8, 200), rng.uniform(-1, 11, 200)]
    counted = usable(mask, metrics, coords, places, 2.0, cyclic=cyclic, edge_stretch=stretch)
    result = analyse(mask, metrics, coords, places, np.ones(200), 2.0, 1.0, cyclic=cyclic, edge_stretch=stretch)
    assert 0 < counted.sum() < 200
    assert (counted == result.observations_used).all()
