"""Spectra are drawn against their own wavelengths, with what explains them where the data say it."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from bokeh.models import GlyphRenderer
from bokeh.models.glyphs import HBar, Line
from screened import synthetic

from phidias_lab.widgets.controls import prepare
from phidias_lab.widgets.views import spectrum, suitable, swath, view
from phidias_lab.widgets.views.spot import Spot

prepare()


@pytest.fixture(autouse=True)
def as_in_a_script(monkeypatch):
    from phidias_lab.widgets import controls
    from phidias_lab.widgets.views import cube

    for module in (cube, controls):
        monkeypatch.setattr(module, "live", lambda: False)


def drawn(figure, glyph: type) -> list:
    return [r for r in hv.render(figure).renderers if isinstance(r, GlyphRenderer) and isinstance(r.glyph, glyph)]


def lines(figure) -> list[tuple[np.ndarray, np.ndarray]]:
    """The curves of a figure, in the order in which they are drawn."""
    found = [r.data_source.data for r in drawn(figure, Line)]
    return [(np.asarray(each["w"]), np.asarray(each[next(k for k in each if k != "w")])) for each in found]


def figures(shown) -> list:
    """The figures with the sliders as they stand."""
    found = [pane.object for pane in shown._figures]
    return [each[()] if isinstance(each, hv.DynamicMap) else each for each in found]


def test_what_has_wavelengths_is_a_spectrum_by_its_attributes_alone():
    data = synthetic()
    assert suitable(data) == ["swath", "spectrum"]
    other = xr.Dataset(
        {"flux": ("band", np.arange(3.0))},
        {"nu": ("band", [1.0, 2, 3], {"standard_name": "sensor_band_central_radiation_wavenumber", "units": "cm-1"})},
    )
    assert suitable(other) == ["spectrum"]
    (figure,) = figures(spectrum.SpectrumView(other))
    ((x, y),) = lines(figure)
    np.testing.assert_array_equal([x, y], [[1, 2, 3], [0, 1, 2]])
    assert "[cm-1]" in hv.render(figure).below[0].axis_label
    del other["nu"].attrs["standard_name"]
    assert suitable(other) == ["table"]


def test_the_first_spectrum_is_a_measured_one_in_the_order_of_the_data():
    channel = "channel"
    data = xr.Dataset(
        {
            "dead": (channel, np.zeros(3, np.int8)),
            "mean": (channel, np.arange(3.0)),
            "factor": (channel, np.arange(3.0)),
        },
        {"wavelength": (channel, [1.0, 2, 3], {"standard_name": "radiation_wavelength", "units": "nm"})},
    )
    assert spectrum.SpectrumView.drawable(data) == ["mean", "factor", "dead"]
    data["dead"].attrs["explained_by"] = "amplitude: a template: b"
    assert spectrum.SpectrumView.drawable(data)[0] == "dead"


def test_a_residual_is_drawn_with_what_was_fitted_and_with_what_is_left():
    data = synthetic()
    shown = spectrum.SpectrumView(data)
    assert shown.choice.value == "residual"
    shown.at(selected=3)
    main, rest, _ = figures(shown)
    residual = data["residual"].values[3]
    shares = data["amplitude"].values[3][:, None] * data["template"].values
    (x, seen), *parts, (_, whole) = lines(main)
    np.testing.assert_array_equal(x, data["wavelength"])
    np.testing.assert_allclose(seen, residual)
    np.testing.assert_allclose([y for _, y in parts], shares)
    np.testing.assert_allclose(whole, shares.sum(axis=0))
    ((_, left),) = lines(rest)
    np.testing.assert_allclose(left, residual - shares.sum(axis=0))
    mean_square = np.mean((residual - shares.sum(axis=0)) ** 2)
    assert f"mean square {mean_square:.3g} of {np.mean(residual**2):.3g}" in hv.render(rest).title.text
    assert "Synthetic data" in hv.render(main).title.text


def test_the_bars_tell_the_signal_to_noise_ratio_of_each_gas_in_the_colour_of_its_curve():
    data = synthetic()
    shown = spectrum.SpectrumView(data)
    shown.at(selected=5)
    main, _, bars = figures(shown)
    (bar,) = drawn(bars, HBar)
    source = bar.data_source.data
    snr = data["selected_snr"].values[5]
    np.testing.assert_allclose(source["snr"][::-1], snr)
    assert list(source["component"])[::-1] == [f"{g} {v:.1f}" for g, v in zip(data["gas"].values, snr, strict=True)]
    colours = [r.glyph.line_color for r in drawn(main, Line)]
    assert list(source["color"])[::-1] == colours[1:-1]


def test_bands_of_one_and_three_standard_deviations_lie_behind_what_is_in_them():
    main, rest, _ = figures(spectrum.SpectrumView(synthetic()))
    for figure in (main, rest):
        spans = figure.traverse(lambda part: tuple(part.data), [hv.HSpan])
        assert spans == [(-3, 3), (-1, 1)]


def test_without_what_explains_it_a_spectrum_is_one_curve():
    data = synthetic()
    assert len(figures(spectrum.SpectrumView(data, "selected_radiance"))) == 1
    assert len(figures(spectrum.SpectrumView(data.drop_vars("selected_snr")))) == 1  # what is named is not all there
    data["residual"].attrs["explained_by"] = "amplitude: amplitude template: template"
    assert len(figures(spectrum.SpectrumView(data))) == 2


def test_the_map_and_the_spectra_choose_for_each_other():
    data, spot = synthetic(), Spot()
    page, shown = swath.SwathView(data, "score", spot=spot), spectrum.SpectrumView(data, spot=spot)
    places = np.stack([data["selected_longitude"], data["selected_latitude"]], axis=1).astype(float)
    page.click(*places[7])
    assert shown.sliders["selected"].value == 7
    assert not shown.elsewhere.visible
    title = hv.render(figures(shown)[0]).title.text.replace("\n", " ")
    assert f"{abs(places[7][1]):.2f}".rstrip("0") in title
    assert "2022-06-28 19:0" in title
    found = set()
    for line, pixel in ((100, 5), (200, 35)):
        place = tuple(float(data[name].values[line, pixel]) for name in ("longitude", "latitude"))
        page.click(*place)
        assert "km from the place that was chosen" in shown.elsewhere.object
        assert spot.place == place  # the pixel stays chosen though its spectrum was not kept
        found.add(shown.sliders["selected"].value)
    assert len(found) == 2
    shown.at(selected=2 if shown.sliders["selected"].value != 2 else 4)
    assert spot.place == tuple(places[shown.sliders["selected"].value])
    assert page.place.value.startswith(f"{round(spot.place[0], 3):g}")
    assert not shown.elsewhere.visible


def test_each_pixel_has_the_wavelengths_of_its_row_in_its_file():
    lines_, pixels, channels = 6, 4, 20
    lat, lon = np.meshgrid(np.linspace(0, 5, lines_), np.linspace(10, 13, pixels), indexing="ij")
    nominal = np.linspace(2305, 2385, channels)
    own = nominal + 0.01 * np.arange(pixels)[:, None] + 5 * np.arange(2)[:, None, None]
    dims = ("scanline", "ground_pixel", "spectral_channel")
    random = np.random.default_rng(0).random((lines_, pixels, channels))
    data = xr.Dataset(
        {
            "radiance": (dims, random, {"units": "mol m-2 s-1 nm-1 sr-1"}),
            "granule": ("scanline", [0, 0, 0, 1, 1, 1]),
            "wavelength": (("granule", *dims[1:]), own, {"units": "nm"}),
        },
        {"latitude": (dims[:2], lat), "longitude": (dims[:2], lon)},
    )
    assert suitable(data) == ["swath", "spectrum"]
    assert spectrum.SpectrumView(data).choice.options == ["radiance"]
    shown, page = spectrum.SpectrumView(data, spot=(spot := Spot())), swath.SwathView(data, spot=spot)
    assert {dim: slider.value for dim, slider in shown.sliders.items()} == {"scanline": 3, "ground_pixel": 2}
    page.click(10.1, 1.1)
    ((x, y),) = lines(figures(shown)[0])
    np.testing.assert_allclose(x, own[0, 0])
    np.testing.assert_allclose(y, random[1, 0])
    page.click(13, 4)
    np.testing.assert_allclose(lines(figures(shown)[0])[0][0], own[1, 3])


def test_a_product_of_screening_is_shown_by_the_one_way_to_show_data(tmp_path):
    path = tmp_path / "screening.nc"
    synthetic().to_netcdf(path)
    with xr.open_dataset(path, chunks={}) as data:
        page = view(data)
        assert page._names == ["Swath", "Spectrum"]
        page.get_root()
