"""Depth and pressure, against the check values of the Gibbs SeaWater toolbox."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phidias_lab.methods import seawater

#: gsw_z_from_p of the toolbox (teos-10.org, its documentation's example: latitude 4), with the sign of a depth.
PRESSURE = np.array([10.0, 50.0, 125.0, 250.0, 600.0, 1000.0])
DEPTH = np.array(
    [9.9445834469453, 49.7180897012550, 124.2726219409978, 248.4700576548589, 595.8253480356214, 992.0919060719987]
)
#: The same function in version 3.6.23 of the toolbox for Python, at latitude 45.
DEEP = {1000.0: 989.50005896, 5000.0: 4902.18951758, 10000.0: 9700.92070278}


def test_depth_is_that_of_the_toolbox():
    np.testing.assert_allclose(seawater.depth(PRESSURE, 4.0), DEPTH, rtol=0, atol=1e-10)
    np.testing.assert_allclose(seawater.depth(np.array(list(DEEP)), 45.0), list(DEEP.values()), rtol=0, atol=1e-8)


@given(st.floats(-2, 11_500), st.floats(-90, 90))
def test_pressure_is_the_inverse_of_depth(pressure, latitude):
    back = seawater.pressure(seawater.depth(np.array(pressure), latitude), latitude)
    assert abs(back - pressure) <= 1e-9 * max(1.0, abs(pressure))


def test_a_missing_pressure_has_no_depth():
    assert np.isnan(seawater.depth(np.array([np.nan]), 10.0)).all()
