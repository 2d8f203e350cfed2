"""Comparisons are shown by what the data say of themselves: pairs, statistics of groups, names along a dimension."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import pairs, suitable, view

prepare()


def compared(number=500, synthetic=False) -> xr.Dataset:
    random = np.random.default_rng(1)
    observed = random.normal(35, 1, number)
    data = xr.Dataset(
        {
            "seen": ("here", observed, {"units": "1e-3", "long_name": "salinity as observed"}),
            "made": ("here", observed + 0.5 + 0.1 * random.normal(size=number), {"compared_with": "seen"}),
            "correlation": ("part", [0.9, 0.6, -0.5, np.nan]),
            "deviation_ratio": ("part", [1.0, 0.5, 2.0, 1.0]),
            "bias": ("part", [0.2, -0.4, 0.0, 0.0]),
            "bias_low": ("part", [0.1, np.nan, -0.1, 0.0]),
            "bias_high": ("part", [0.4, np.nan, 0.3, 0.0]),
            "deviation": ("part", [0.6, 0.3, 0.5, np.nan]),
            "observed_deviation": ("part", [2.0, 1.0, 1.0, 1.0]),
        },
        coords={"name": ("part", np.array(["all", "summer", "winter", "one"], dtype=object))},
    )
    data.attrs["synthetic"] = str(synthetic).lower()
    return data


def parts(figure, kind):
    return figure.traverse(lambda part: part, [kind])


def test_what_data_say_of_themselves_decides_how_they_are_shown():
    data = compared()
    assert suitable(data) == ["scatter", "taylor", "target", "groups"]
    assert suitable(data.drop_vars("made")) == ["taylor", "target", "groups"]
    assert suitable(data.drop_vars("name")) == ["scatter", "taylor", "target"]
    assert suitable(data[["seen", "made"]]) == ["scatter"]
    assert suitable(data[["correlation", "deviation_ratio"]]) == ["taylor", "groups"]
    elsewhere = data["made"].rename(here="there")
    assert "scatter" not in suitable(data.drop_vars("made").assign(made=elsewhere))
    assert "scatter" not in suitable(data.assign(made=data["made"].assign_attrs(compared_with="nothing")))


def test_few_pairs_are_drawn_one_by_one_and_many_as_their_number_in_each_cell():
    few = pairs.ScatterView(compared(500)).figure
    (points,) = parts(few, hv.Points)
    assert len(points) == 500
    many = pairs.ScatterView(compared(50_000)).figure
    (cells,) = parts(many, hv.Image)
    counted = np.nansum(cells.dimension_values("n"))
    assert 0.99 * 50_000 < counted <= 50_000
    # A value lies where it belongs: the field is half a unit above the observations.
    x, y, n = (cells.dimension_values(name) for name in ("x", "y", "n"))
    assert np.nansum((y - x) * n) / counted == pytest.approx(0.5, abs=0.01)


def test_the_words_beside_a_scatter_are_the_statistics_of_its_pairs():
    data = compared(50_000)
    shown = pairs.ScatterView(data)
    difference = (data["made"] - data["seen"]).values
    assert f"50,000 pairs; mean difference {difference.mean():.3g}" in shown.note.object
    assert f"RMSD {np.sqrt((difference**2).mean()):.3g}" in shown.note.object
    assert "lie outside the frame" in shown.note.object
    nothing = data.assign(made=data["made"] * np.nan)
    nothing["made"].attrs["compared_with"] = "seen"
    assert "No pair has both values" in pairs.ScatterView(nothing).note.object


def marks(figure):
    """Names, x and y of the dots that stand for groups."""
    (dots,) = [p for p in parts(figure, hv.Points) if "name" in [d.name for d in p.dimensions()]]
    return {name: (x, y) for name, x, y in zip(*(dots.dimension_values(d) for d in ("name", "x", "y")), strict=True)}


def test_in_the_taylor_diagram_distances_are_standard_deviations_and_centred_rmsd():
    data = compared()
    found = marks(pairs.TaylorView(data).figure)
    assert set(found) == {"all", "summer", "winter"}, "what has no correlation has no place"
    for k, (x, y) in enumerate(found[name] for name in ("all", "summer", "winter")):
        ratio, correlation = float(data["deviation_ratio"][k]), float(data["correlation"][k])
        assert np.hypot(x, y) == pytest.approx(ratio)
        assert np.hypot(x - 1, y) ** 2 == pytest.approx(1 + ratio**2 - 2 * ratio * correlation)  # Taylor 2001
    assert found["winter"][0] < 0


def test_in_the_target_diagram_the_distance_is_the_rmsd_and_the_side_tells_who_varies_more():
    data = compared()
    shown = pairs.TargetView(data)
    found = marks(shown.figure)
    assert found["all"] == pytest.approx((0.3, 0.1))
    assert found["summer"] == pytest.approx((-0.3, -0.4))
    (bars,) = parts(shown.figure, hv.ErrorBars)
    assert bars.dimension_values("below") == pytest.approx([0.05, 0.1])
    assert bars.dimension_values("above") == pytest.approx([0.1, 0.3])


def test_dots_are_told_apart_by_numbers_that_a_key_names():
    shown = pairs.TargetView(compared())
    numbers = [p for p in parts(shown.figure, hv.Labels)][-1].dimension_values(2).tolist()
    assert numbers == ["1", "2", "3"]
    assert "1 all · 2 summer · 3 winter" in shown.key.object


def test_what_has_names_is_a_table_with_units():
    shown = pairs.GroupsView(compared())
    grid = shown._body[0][1]
    assert grid.value["name"].tolist() == ["all", "summer", "winter", "one"]
    assert "correlation" in grid.value.columns
    assert "seen" not in grid.value.columns


def test_a_second_dimension_with_names_makes_columns_and_names_with_nothing_along_them_no_table():
    data = xr.Dataset(
        {
            "threshold": (("detector", "stratum"), [[3.0, 4.0], [5.0, 6.0]], {"units": "K"}),
            "signature": (("gas", "channel"), np.zeros((1, 5))),
            "number": ("stratum", [7, 8]),
        },
        {"detector": ["CO", "all"], "stratum": ["dark", "bright"], "gas": ["CO"]},
    )
    shown = pairs.GroupsView(data)
    assert list(shown.choice.options) == ["detector", "stratum"]
    shown.choice.value = "stratum"
    table = shown._body[0][1].value
    assert table["threshold CO [K]"].tolist() == [3.0, 4.0]
    assert table["threshold all [K]"].tolist() == [5.0, 6.0]
    assert table["number"].tolist() == [7, 8]
    assert "groups" not in pairs.suitable(data[["signature"]])
    many = xr.Dataset({"a": (("x", "y"), np.zeros((2, 30)))}, {"x": ["p", "q"], "y": [f"n{k}" for k in range(30)]})
    assert pairs.tabulated(many) == ["y"]


@pytest.mark.parametrize("kind", ["scatter", "taylor", "target"])
def test_figures_of_synthetic_data_say_so_and_can_be_drawn(kind):
    for synthetic in (True, False):
        shown = pairs.VIEWS[kind](compared(3000, synthetic))
        title = hv.render(shown.figure).title.text
        assert ("Synthetic data" in title) is synthetic
    assert view(compared(), kind=kind) is not None
