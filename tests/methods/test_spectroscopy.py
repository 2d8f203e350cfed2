"""Lines, shapes and responses, against published values, against sums that must hold and against differences."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.errors import ParameterError, UnknownNameError
from phidias_lab.methods import spectroscopy as s

FWHM = 0.25
WAVELENGTH = np.linspace(2305.0, 2343.0, 480)


def _position(upper: int, branch: str, j: int) -> float:
    of = s.co_lines(upper)
    middle = of.position.size // 2  # P(1) stands just before it, R(0) just after
    return of.position[middle + j] if branch == "R" else of.position[middle - j]


@pytest.mark.parametrize(
    ("branch", "j", "published"),
    # A. Maki, Infrared and far-infrared absorption frequency standards, CRC Handbook of Chemistry and Physics, table of the
    # band 1-0 of CO: known to 1e-6 cm-1.
    [
        ("R", 0, 2147.081132), ("R", 1, 2150.856006), ("R", 2, 2154.595581), ("R", 3, 2158.299710),
        ("P", 1, 2139.426071), ("P", 2, 2135.546178), ("P", 3, 2131.631574), ("P", 4, 2127.682404),
    ],
)  # fmt: skip
def test_lines_of_the_fundamental_of_co_stand_where_they_were_measured(branch, j, published):
    # The constants reproduce their own measurements with 1e-5 cm-1 (Farrenq et al. 1991).
    assert _position(1, branch, j) == pytest.approx(published, abs=1e-5)


@pytest.mark.parametrize(
    ("branch", "j", "published"),
    # HITRAN, band 2-0, to the three decimals of the calibration lines of the NOMAD instrument on ExoMars.
    [
        ("R", 0, 4263.837), ("R", 1, 4267.542), ("R", 2, 4271.177), ("R", 3, 4274.741), ("R", 6, 4285.009),
        ("R", 9, 4294.638), ("R", 12, 4303.623), ("P", 1, 4256.217), ("P", 3, 4248.318), ("P", 8, 4227.354),
    ],
)  # fmt: skip
def test_lines_of_the_first_overtone_of_co_stand_where_hitran_has_them(branch, j, published):
    # Three decimals, one of them rounded two ways in the source: 1e-3, a two-hundredth of the instrument's response.
    assert _position(2, branch, j) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize(("j", "published"), [(0, 9.48e-20), (5, 4.34e-19)])
def test_strengths_of_single_lines_are_those_of_hitran(j, published):
    # HITRAN, band 1-0, R(0) and R(5) at 296 K, weighted by the abundance 0.98654 of 12C16O. The band's intensity is known
    # to 0.7 %, HITRAN's to 2 %, and the Herman-Wallis factor left out is below 1 % here.
    of = s.co_lines(1)
    assert 0.98654 * of.strength[of.position.size // 2 + j] == pytest.approx(published, rel=0.03, abs=0)


def test_a_band_keeps_its_sum_when_it_gets_colder():
    # Molecules change their level, not their number: without emission the sum of strengths does not depend on temperature.
    of = s.co_lines(2)
    for temperature in (200.0, 250.0, 320.0):
        assert of.strength_at(temperature).sum() == pytest.approx(7.532e-20, rel=0.01, abs=0)
    assert of.strength_at(200.0)[0] < 0.05 * of.strength[0]  # the far end of the P branch starts from hot levels


def test_line_shapes_have_unit_area_and_the_voigt_line_has_its_width():
    x = np.linspace(-200, 200, 400_001)
    assert np.trapezoid(s.lorentz(x, 0.05), x) == pytest.approx(1 - 2 * 0.05 / (np.pi * 200), abs=1e-6)
    for deviation, half in ((0.05, 0.01), (0.01, 0.05), (0.03, 0.03)):
        line = s.voigt(x, deviation, half)
        assert np.trapezoid(line, x) == pytest.approx(1 - 2 * half / (np.pi * 200), abs=1e-5)
        # Olivero and Longbothum (1977), J. Quant. Spectrosc. Radiat. Transfer 17, 233, eq. 5: to 0.02 %.
        gauss, lorentz = deviation * np.sqrt(8 * np.log(2)), 2 * half
        expected = 0.5346 * lorentz + np.sqrt(0.2166 * lorentz**2 + gauss**2)
        inside = x[line > line.max() / 2]
        assert np.ptp(inside) == pytest.approx(expected, abs=2.1e-3)


def test_the_doppler_width_is_the_textbook_one():
    # As HITRAN documents it: half width at half maximum = 3.581163e-7 nu sqrt(T/M).
    deviation = s.doppler_deviation(4300.0, 280.0, 28.0101)
    assert deviation * np.sqrt(2 * np.log(2)) == pytest.approx(3.581163e-7 * 4300 * np.sqrt(280 / 28.0101), rel=1e-5)


@pytest.mark.parametrize("pressure", [900.0, 60.0])
def test_a_cross_section_holds_the_strengths_of_its_lines(pressure):
    of = s.co_lines(2)
    grid = np.arange(3900.0, 4600.0, 0.004)
    total = np.trapezoid(s.cross_section(of, grid, pressure, 250.0), grid)
    assert total == pytest.approx(
        of.strength_at(250.0).sum(), rel=2e-3, abs=0
    )  # the wings beyond the grid are some 1e-4


def test_the_atmosphere_is_the_standard_one():
    pressure, temperature, height = s.layers(20_000)
    # U.S. Standard Atmosphere 1976: geopotential height (km), temperature (K), pressure (hPa).
    table = (
        (0.0, 288.15, 1013.25), (5.0, 255.65, 540.20), (11.0, 216.65, 226.32), (20.0, 216.65, 54.749),
        (25.0, 221.65, 25.110),
    )  # fmt: skip
    for h, t, p in table:
        k = np.abs(pressure - p).argmin()
        assert height[k] == pytest.approx(h, abs=0.02)
        assert temperature[k] == pytest.approx(t, abs=0.1)
    for gas in s.COLUMNS:
        assert s.profile(gas).sum() == pytest.approx(1)
    assert s.profile("H2O")[0] > 3 * s.profile("CO")[0]  # water is low down


def test_the_response_is_a_gaussian_of_the_declared_width():
    low, high = s.fine_window(2310, 2320, FWHM)
    grid = s.wavenumbers(low, high)
    channels = np.arange(2310.0, 2320.0, 0.01)
    see = s.response(grid, channels, FWHM)
    assert np.asarray(see.sum(axis=1)).ravel() == pytest.approx(1, abs=1e-12)
    one = np.zeros(grid.size)
    one[np.abs(grid - 1e7 / 2315).argmin()] = 1.0
    seen = see @ one
    assert channels[seen.argmax()] == pytest.approx(2315, abs=0.011)
    assert np.ptp(channels[seen > seen.max() / 2]) == pytest.approx(FWHM, abs=0.02)


def _spectrum(wavelength: np.ndarray, more: dict[str, float], air_mass: float = 2.5) -> np.ndarray:
    """ln R by another way: the response by quadrature, channel by channel."""
    low, high = s.fine_window(2304, 2344, FWHM)
    grid = s.wavenumbers(low, high)
    depth = sum(n * (1 + more.get(g, 0.0)) * s.column_cross_section(g, low, high) for g, n in s.COLUMNS.items())
    fine, through = (1e7 / grid)[::-1], np.exp(-air_mass * depth)[::-1]
    found = []
    for centre in wavelength:
        weight = np.exp(-4 * np.log(2) * ((fine - centre) / FWHM) ** 2)
        found.append(np.trapezoid(weight * through, fine) / np.trapezoid(weight, fine))
    return np.log(found)


@pytest.mark.parametrize("gas", list(s.COLUMNS))
def test_the_response_to_a_gas_is_the_difference_of_two_spectra(gas):
    channels = np.arange(0, 480, 17)
    answer = s.dictionary([gas], WAVELENGTH, FWHM, artefacts=())[gas]
    step = 1e-3
    expected = (_spectrum(WAVELENGTH[channels], {gas: step}) - _spectrum(WAVELENGTH[channels], {gas: -step})) / (
        2 * step
    )
    # A cubic on a sixth of the response's width holds it to some 1e-4 of its largest value.
    assert answer[channels] == pytest.approx(expected, abs=5e-4 * np.abs(answer).max())
    assert np.all(answer < 1e-9)  # more of a gas is less light
    assert np.abs(answer).max() > 1e-3


def test_responses_that_are_no_gas_are_differences_too():
    channels, step = np.arange(3, 480, 23), 1e-4
    answers = s.dictionary([], WAVELENGTH, FWHM)
    some = WAVELENGTH[channels]
    place = (some - 2324.0) / 19.0
    for name, moved in (("shift", np.full(some.size, step)), ("stretch", step * place)):
        expected = (_spectrum(some + moved, {}) - _spectrum(some - moved, {})) / (2 * step)
        assert answers[name][channels] == pytest.approx(expected, abs=2e-3 * np.abs(answers[name]).max())
    plain = np.exp(_spectrum(some, {}))
    offset = (np.log(plain + step) - np.log(plain - step)) / (2 * step)
    assert answers["offset"][channels] == pytest.approx(offset, rel=1e-3)
    assert answers["slope"][channels] == pytest.approx(place)


def test_each_row_has_its_own_wavelengths():
    rows = WAVELENGTH + np.array([[-0.05], [0.0], [0.05]])
    many = s.dictionary(["CO"], rows, FWHM)["CO"]
    assert many.shape == (3, 480)
    alone = s.dictionary(["CO"], rows[2], FWHM)["CO"]
    assert many[2] == pytest.approx(alone, abs=2e-4 * np.abs(alone).max())
    assert np.abs(many[2] - many[0]).max() > 0.2 * np.abs(alone).max()


def test_a_table_of_ones_own_takes_the_place_of_lines():
    low, high = s.fine_window(2300, 2350, FWHM)
    grid = s.wavenumbers(low, high)
    table = (1e7 / grid[::-1], s.column_cross_section("CO", low, high)[::-1])
    own = s.dictionary(["mine"], WAVELENGTH, FWHM, tables={"mine": table}, columns={"mine": s.COLUMNS["CO"]})["mine"]
    bundled = s.dictionary(["CO"], WAVELENGTH, FWHM)["CO"]
    # The two windows differ in the lines beyond their ends, whose far wings are below 1e-3.
    assert own == pytest.approx(bundled, abs=2e-3 * np.abs(bundled).max())


def test_what_a_user_gets_wrong_is_told_in_a_sentence():
    table = (np.array([2300.0, 2350.0]), np.array([1e-21, 1e-21]))
    with pytest.raises(UnknownNameError, match="cross-section in tables"):
        s.dictionary(["SO2"], WAVELENGTH, FWHM)
    with pytest.raises(ParameterError, match="counts as one is missing"):
        s.dictionary(["SO2"], WAVELENGTH, FWHM, tables={"SO2": table})
    with pytest.raises(ParameterError, match="covers 2310 to 2350 nm"):
        s.dictionary(["CO"], WAVELENGTH, FWHM, tables={"CO": (np.array([2310.0, 2350.0]), table[1])})
    with pytest.raises(ParameterError, match="rising wavelengths"):
        s.dictionary(["CO"], WAVELENGTH, FWHM, tables={"CO": (table[0][::-1], table[1])})
    with pytest.raises(UnknownNameError, match="shift"):
        s.dictionary([], WAVELENGTH, FWHM, artefacts=["shft"])
    with pytest.raises(ParameterError, match="positive numbers in nm"):
        s.dictionary([], np.array([np.nan, 2310.0]), FWHM)


def test_pseudo_lines_are_the_same_in_every_window():
    wide, narrow = s.pseudo_lines("CH4", 4200, 4400), s.pseudo_lines("CH4", 4283.3, 4311.7)
    inside = (wide.position >= 4283.3) & (wide.position <= 4311.7)
    assert np.sort(wide.position[inside]) == pytest.approx(np.sort(narrow.position), abs=0)
    assert narrow.position.size > 60
    assert set(s.PSEUDO) == {"CH4", "H2O", "HDO", "unknown"}
    with pytest.raises(UnknownNameError, match="pseudo-lines of 'CO'"):
        s.pseudo_lines("CO", 4200, 4300)


def test_co_is_weak_beside_methane_and_water():
    answers = s.dictionary(s.COLUMNS, WAVELENGTH, FWHM, artefacts=())
    deepest = {gas: np.abs(values).max() for gas, values in answers.items()}
    assert 0.02 < deepest["CO"] < 0.05
    assert min(deepest["CH4"], deepest["H2O"]) > 5 * deepest["CO"]
