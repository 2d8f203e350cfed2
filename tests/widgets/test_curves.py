"""Curves are drawn of what names the quantity it is drawn against, whatever chain or file it comes from."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import curves, suitable, view

prepare()


def fitted() -> xr.Dataset:
    distance = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, np.nan, np.nan], [np.nan] * 4])
    data = xr.Dataset(
        {
            "covariance": (("fit", "bin"), 1 / distance, {"drawn_against": "distance", "drawn_with": "kernel"}),
            "covariance_error": (("fit", "bin"), 0.1 * distance),
            "kernel": (("fit", "bin"), np.exp(-distance)),
            "distance": (("fit", "bin"), 1000 * distance, {"units": "m", "long_name": "distance of pairs"}),
            "ratio": (("profile", "step"), [[5.0, 0.0, 4.0]], {"drawn_against": "length", "drawn_limit": 3.84}),
            "length": (("profile", "step"), [[1.0, 3.0, 9.0]], {"units": "m"}),
        },
        coords={"fit_name": ("fit", np.array(["near", "far", "nothing"], dtype=object))},
    )
    return data


def parts(figure, kind):
    return figure.traverse(lambda part: part, [kind])


def test_each_row_with_two_values_is_a_curve_under_its_name():
    assert list(curves.curves(fitted())) == ["covariance: near", "covariance: far", "ratio: 1"]
    assert "curves" in suitable(fitted())
    assert "curves" not in suitable(fitted().drop_vars(["distance", "length"]))
    elsewhere = fitted()[["ratio"]].assign(length=("step", [1.0, 3.0, 9.0]))
    assert curves.curves(elsewhere) == {}


def test_bins_have_their_errors_and_the_fitted_curve():
    shown = curves.CurvesView(fitted())
    shown.choice.value = ("covariance", 1)
    (bars,) = parts(shown.figure, hv.ErrorBars)
    np.testing.assert_allclose(bars.dimension_values("error"), [0.5, 0.6])
    np.testing.assert_allclose(bars.dimension_values("y"), [1 / 5, 1 / 6])
    (curve,) = parts(shown.figure, hv.Curve)
    np.testing.assert_allclose(curve.dimension_values("y"), np.exp([-5.0, -6.0]))
    assert curve.kdims[0].label == "distance of pairs [m]"
    hv.render(shown.figure)


def test_a_profile_has_its_limit_and_a_logarithmic_axis_where_it_spans_much():
    shown = curves.CurvesView(fitted())
    shown.choice.value = ("ratio", 0)
    (line,) = parts(shown.figure, hv.HLine)
    assert line.data == pytest.approx(3.84)
    assert "3.84" in str(shown.note.object)
    assert "Log" in type(hv.render(shown.figure).x_scale).__name__


def test_curves_are_reached_by_the_one_way_to_show_data():
    assert view(fitted(), kind="curves") is not None
