"""The synthetic spectra are what they declare: geometry, physics, noise, faults, variability and truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phidias_lab.errors import ParameterError, UnknownNameError
from phidias_lab.methods import spectroscopy
from phidias_lab.testing.scenes import spectra as s

SMALL = replace(s.TROPOMI_BAND_7, rows=9)
HEAT = replace(s.IASI_LIKE, rows=3, channels=61, first=1e7 / 2158)
NOON = np.datetime64("2022-06-28T10:21:00")  # over the North Atlantic, the sun high
ORBIT = s.Scene(SMALL, "2022-06-28T00:00:00", 7300)


@pytest.fixture(scope="module")
def day():
    """A sunlit granule of the small instrument with nothing unusual in it."""
    scene = s.Scene(SMALL, NOON, 160, seed=3)
    return scene, *scene.block()


def _apart(lon0, lat0, lon1, lat1):
    """Great-circle distance in km (haversine), an independent way."""
    lon0, lat0, lon1, lat1 = (np.radians(np.asarray(v, float)) for v in (lon0, lat0, lon1, lat1))
    h = np.sin((lat1 - lat0) / 2) ** 2 + np.cos(lat0) * np.cos(lat1) * np.sin((lon1 - lon0) / 2) ** 2
    return 2 * s.EARTH_RADIUS * np.arcsin(np.sqrt(h))


# Sun and orbit -----------------------------------------------------------------------------------------------------


def test_the_sun_stands_where_the_almanac_has_it():
    # Solstice, equinox and perihelion of 2022 (Astronomical Almanac): to the formulas' 0.01 degrees and a little more.
    assert s.sun(np.datetime64("2022-06-21T09:14"))[1] == pytest.approx(23.44, abs=0.01)
    assert s.sun(np.datetime64("2022-03-20T15:33"))[1] == pytest.approx(0.0, abs=0.01)
    assert s.sun(np.datetime64("2022-01-04T06:55"))[2] == pytest.approx(0.98334, abs=2e-4)
    # The equation of time is largest on 3 November: the sun is 16.4 minutes early, so at 12 h UTC it is 4.1 degrees west.
    assert s.sun(np.datetime64("2022-11-03T12:00"))[0] == pytest.approx(-4.11, abs=0.03)


def test_the_satellite_crosses_the_equator_at_its_local_time_orbit_after_orbit():
    of = SMALL
    around = of.period / of.line_time
    node = np.arange(0, 15 * around, around)
    place, _ = s._track(of, node)
    lon, lat = s._degrees(place)
    assert lat == pytest.approx(0, abs=1e-6)
    hour = node * of.line_time / 3600
    assert np.mod(hour + lon / 15, 24) == pytest.approx(of.local_time, abs=1e-6)
    assert of.period / 60 == pytest.approx(101.2, abs=0.3)  # Sentinel-5P: 101 minutes
    place, _ = s._track(of, np.arange(0, around, 10.0))
    assert np.abs(s._degrees(place)[1]).max() == pytest.approx(180 - of.inclination, abs=0.02)


def test_the_swath_is_as_wide_as_declared_and_wider_pixels_lie_outside():
    of = s.TROPOMI_BAND_7
    ground = s.Scene(of, NOON, 1).ground()
    lon, lat = ground["longitude_bounds"][0], ground["latitude_bounds"][0]
    assert _apart(lon[0, 0], lat[0, 0], lon[-1, 1], lat[-1, 1]) == pytest.approx(2600, abs=1)
    width = _apart(lon[:, 0], lat[:, 0], lon[:, 1], lat[:, 1])
    assert width[107] == pytest.approx(7.5, abs=0.5)
    assert width[0] > 3 * width[107]
    view = ground["viewing_zenith_angle"][0]
    assert view[107] < 0.5
    assert 60 < view[0] < 70
    assert view[:108].tolist() == sorted(view[:108], reverse=True)


def test_zenith_angles_are_those_between_the_place_and_the_sun(day):
    scene, measured, _ = day
    lon, lat, _ = s.sun(measured["time"])
    away = _apart(measured["longitude"], measured["latitude"], lon[:, None], lat[:, None]) / s.EARTH_RADIUS
    assert measured["solar_zenith_angle"] == pytest.approx(np.degrees(away), abs=1e-3)
    # Seen from the pixel, the satellite stands over its own ground point.
    below = _apart(
        measured["longitude"],
        measured["latitude"],
        measured["satellite_longitude"][:, None],
        measured["satellite_latitude"][:, None],
    ) / (s.EARTH_RADIUS)
    radius = s.EARTH_RADIUS + scene.instrument.altitude
    view = np.arctan2(radius * np.sin(below), radius * np.cos(below) - s.EARTH_RADIUS)
    assert measured["viewing_zenith_angle"] == pytest.approx(np.degrees(view), abs=2e-3)


def test_azimuths_point_to_the_sun_and_to_the_satellite(day):
    _, measured, _ = day
    k = 40
    for name, lon, lat in (
        ("solar", *(v[k] for v in s.sun(measured["time"])[:2])),
        ("viewing", measured["satellite_longitude"][k], measured["satellite_latitude"][k]),
    ):
        for row in (0, 8):
            bearing = np.radians(float(measured[f"{name}_azimuth_angle"][k, row]))
            x, y = float(measured["longitude"][k, row]), float(measured["latitude"][k, row])
            # A step of 20 km along the bearing comes nearer by 20 km.
            step = 20 / s.EARTH_RADIUS
            north = y + np.degrees(step * np.cos(bearing))
            east = x + np.degrees(step * np.sin(bearing)) / np.cos(np.radians(y))
            assert _apart(x, y, lon, lat) - _apart(east, north, lon, lat) == pytest.approx(20, abs=0.1)


def test_neighbouring_pixels_share_their_corners_also_across_granules(day):
    scene, measured, _ = day
    for name in ("longitude_bounds", "latitude_bounds"):
        corner = measured[name]
        assert np.array_equal(corner[:, :-1, 1], corner[:, 1:, 0])
        assert np.array_equal(corner[:-1, :, 3], corner[1:, :, 0])
        assert np.array_equal(corner[:-1, :, 2], corner[1:, :, 1])
        after = scene.next().ground(0, 1)[name]
        assert np.array_equal(corner[-1, :, 3], after[0, :, 0])
    # Counted south-west, south-east, north-east, north-west the corners run counterclockwise around the centre.
    x, y = measured["longitude_bounds"][3], measured["latitude_bounds"][3]
    area = (x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)
    assert np.all(area > 0)
    assert np.all((y.min(1) < measured["latitude"][3]) & (measured["latitude"][3] < y.max(1)))


def test_pixels_across_the_date_line_are_flagged_and_those_beside_it_are_not():
    wide = ORBIT.ground()  # a whole orbit
    crossing = (wide["ground_pixel_quality"] & 16) > 0
    assert 30 < crossing.sum() < 3000
    lon, lat = wide["longitude"], wide["latitude"]
    near_pole = np.abs(lat) > 80
    beside = 180 - np.abs(lon)
    assert np.all(beside[crossing & ~near_pole] < 15)
    assert not crossing[beside > 60][~near_pole[beside > 60]].any()
    # On each line that meets the date line outside the polar caps, the pixel that holds it is flagged.
    jumps = np.abs(np.diff(lon, axis=1)) > 180
    rows = np.argwhere(jumps & ~near_pole[:, :-1] & ~near_pole[:, 1:])
    assert len(rows) > 20
    assert np.mean([crossing[k, r : r + 2].any() for k, r in rows]) > 0.98


# Spectra -----------------------------------------------------------------------------------------------------------


def test_wavelengths_smile_by_as_much_as_declared():
    of = s.TROPOMI_BAND_7
    grid = of.wavelengths()
    assert grid.shape == (215, 480)
    moved = grid - np.linspace(2305, 2343, 480)
    assert moved[107] == pytest.approx(-0.05, abs=1e-9)
    assert moved[[0, 214]] == pytest.approx(0.05, abs=1e-9)
    assert np.all(s.IASI_LIKE.wavelengths() == s.IASI_LIKE.wavelengths()[0])
    assert np.diff(1e7 / s.IASI_LIKE.wavelengths()[0]) == pytest.approx(-0.25, abs=1e-9)


def _clear(made: s.Spectra, **changes) -> dict[str, np.ndarray]:
    state = {gas: 2.5 for gas in spectroscopy.COLUMNS} | {"unknown": 0.0, "warmer": 0.0, "shift": 0.0, "surface": 288.0}
    return {name: np.full((1, made.instrument.rows), value) for name, value in (state | changes).items()}


@pytest.mark.parametrize("gas", list(spectroscopy.COLUMNS))
def test_the_forward_model_answers_to_a_gas_as_the_dictionary_says(gas):
    made, step = s.spectra_of(SMALL), 0.2
    up, down = made(_clear(made, **{gas: 2.5 + 2.5 * step}))[0], made(_clear(made, **{gas: 2.5 - 2.5 * step}))[0]
    answer = spectroscopy.dictionary([gas], made.wavelength, SMALL.fwhm, artefacts=())[gas]
    # The dictionary has no lines of the sun, and the polynomial a curve of its own: 6 % of the largest response.
    assert (up - down) / (2 * step) == pytest.approx(answer, abs=0.06 * np.abs(answer).max())
    assert np.corrcoef(((up - down) / (2 * step)).ravel(), answer.ravel())[0, 1] > 0.995


def test_the_forward_model_moves_with_its_wavelengths():
    made = s.spectra_of(SMALL)
    moved = (made(_clear(made, shift=0.005))[0] - made(_clear(made, shift=-0.005))[0]) / 0.01
    answer = spectroscopy.dictionary([], made.wavelength, SMALL.fwhm, artefacts=["shift"])["shift"]
    # The sun's own lines move too, and the dictionary leaves them out.
    assert np.corrcoef(moved.ravel(), answer.ravel())[0, 1] > 0.97


def _exact(made: s.Spectra, scaled, wavelength, surface) -> np.ndarray:
    """ln of a spectrum, line by line."""
    if not made.instrument.thermal:
        return made.exact(scaled, wavelength)[0]
    passed, own = made.exact(scaled, wavelength)
    return np.log(np.exp(passed) * s.planck(wavelength, surface) / s.planck(wavelength, 280.0) + own)


@pytest.mark.parametrize("of", [SMALL, HEAT], ids=["sunlit", "thermal"])
def test_polynomials_stand_for_spectra_line_by_line(of):
    made = s.spectra_of(of)
    random = np.random.default_rng(5)
    count = 40
    state = {gas: random.uniform(*((0.8, 3) if of.thermal else (1, 8)), (count, 1)) for gas in spectroscopy.COLUMNS}
    state |= {"unknown": random.uniform(0, 2, (count, 1)), "warmer": random.uniform(-12, 12, (count, 1))}
    state |= {"shift": random.uniform(-0.005, 0.005, (count, 1)), "surface": random.uniform(240, 315, (count, 1))}
    scaled = np.stack([x[:, 0] for x in made.scaled(state)], 1)
    row = of.rows // 2
    exact = _exact(made, scaled, made.wavelength[row], state["surface"])
    every = {name: np.repeat(values, of.rows, 1) for name, values in state.items()}
    error = made(every)[:, row] - exact
    assert np.sqrt(np.square(error).mean()) < (3e-3 if of.thermal else 6e-4)  # far below the noise of a dark pixel
    assert exact.std() > 0.05


def test_line_by_line_is_what_the_formula_says():
    made = s.spectra_of(SMALL)
    state = _clear(made, CO=4.0, H2O=3.0, unknown=0.5)
    scaled = np.stack([x[0, :1] for x in made.scaled(state)], 1)
    some = np.array([2311.3, 2324.0, 2331.7])
    got = made.exact(scaled, some)[0][0]
    low, high = made.grid[0], made.grid[-1]
    grid = spectroscopy.wavenumbers(low, high)
    depth = sum(
        float(state[g][0, 0]) * n * spectroscopy.column_cross_section(g, low, high)
        for g, n in spectroscopy.COLUMNS.items()
    )
    extra = np.exp(-0.5 * ((grid - grid.mean()) / (0.08 * np.ptp(grid))) ** 2)
    depth = depth + 0.5 * s.UNKNOWN_COLUMN * spectroscopy.column_cross_section("unknown", low, high) * extra
    light, fine = s._solar(grid), 1e7 / grid
    for k, centre in enumerate(some):
        weight = np.exp(-4 * np.log(2) * ((fine - centre) / SMALL.fwhm) ** 2)
        seen = np.trapezoid(weight * light * np.exp(-depth), fine) / np.trapezoid(weight * light, fine)
        assert got[k] == pytest.approx(np.log(seen), abs=5e-4)


def test_a_layer_as_warm_as_the_ground_leaves_no_lines_in_heat():
    # Kirchhoff: in an atmosphere of one temperature with its ground the radiance is that of a black body.
    made = s.spectra_of(HEAT)
    with pytest.MonkeyPatch.context() as patch:
        layers = spectroscopy.layers()
        patch.setattr(spectroscopy, "layers", lambda number=8: (layers[0], np.full(number, 285.0), layers[2]))
        scaled = np.stack([x[0, :1] for x in made.scaled(_clear(made, CO=5.0))], 1)
        got = _exact(made, scaled, made.wavelength[0], 285.0)[0]
    expected = np.log(s.planck(made.wavelength[0], 285.0) / s.planck(made.wavelength[0], 280.0))
    assert got == pytest.approx(expected, abs=2e-3)


def test_heat_comes_from_each_layer_through_those_above_it():
    made = s.spectra_of(HEAT)
    state = _clear(made, CO=1.5, CH4=1.2, H2O=2.0, HDO=1.0, unknown=0.3)
    scaled = np.stack([x[0, :1] for x in made.scaled(state)], 1)
    some = made.wavelength[0][[5, 23, 48]]
    got = _exact(made, scaled, some, 300.0)[0]
    low, high, fine = made.grid[0], made.grid[-1], 1e7 / made.grid
    temperature = spectroscopy.layers()[1]
    extra = np.exp(-0.5 * ((made.grid - made.grid.mean()) / (0.08 * np.ptp(made.grid))) ** 2)
    light, passed = 0.0, np.ones_like(fine)
    for k in reversed(range(temperature.size)):  # from space down
        depth = 0.3 * s.UNKNOWN_COLUMN * extra * spectroscopy.layer_cross_sections("unknown", low, high)[k] / 8
        for gas, column in spectroscopy.COLUMNS.items():
            share = spectroscopy.profile(gas)[k] * column * float(state[gas][0, 0])
            depth = depth + share * spectroscopy.layer_cross_sections(gas, low, high)[k]
        light = light + s.planck(fine, temperature[k]) * passed * -np.expm1(-depth)
        passed = passed * np.exp(-depth)
    light = light + s.planck(fine, 300.0) * passed
    for k, centre in enumerate(some):
        weight = np.exp(-4 * np.log(2) * ((fine - centre) / HEAT.fwhm) ** 2)
        seen = np.trapezoid(weight * light, fine) / np.trapezoid(weight, fine)
        assert got[k] == pytest.approx(np.log(seen / s.planck(centre, 280.0)), abs=2e-3)


def test_the_sun_gives_what_it_gives():
    # Gueymard (2004), Solar Energy 76, 423: about 62 mW m-2 nm-1 at 2.32 micrometres, a black body of 5772 K within 5 %.
    light = s._irradiance(SMALL, 0.0)
    moles = 0.062 * 2.324e-6 / (s.PLANCK * s.LIGHT * spectroscopy.AVOGADRO)
    assert np.median(light) == pytest.approx(moles, rel=0.08, abs=0)
    assert light.min() < 0.95 * np.median(light)  # its lines


# Noise and faults --------------------------------------------------------------------------------------------------


def test_noise_is_as_declared_in_the_dark_and_grows_with_the_root_of_light():
    dark = s.dark_radiance(SMALL).astype(np.float32)
    assert dark / s.noise_deviation(SMALL, dark) == pytest.approx(100, rel=1e-4)
    assert s.noise_deviation(SMALL, 0 * dark) == pytest.approx(dark / 100 * np.sqrt(0.3), rel=1e-4, abs=0)
    ratio = 1e6 * dark / s.noise_deviation(SMALL, 1e6 * dark)
    assert ratio == pytest.approx(100 * np.sqrt(1e6 / 0.7), rel=1e-4)


def test_the_noise_that_is_drawn_is_the_noise_that_is_told(day):
    scene, measured, _ = day
    # The same scene through a detector without noise: what is left is noise alone.
    quiet = replace(scene, instrument=replace(SMALL, snr=1e7)).block()[0]
    used = (measured["spectral_channel_quality"] == 0) & ~s._detector(SMALL).flickering
    z = (measured["radiance"] - quiet["radiance"])[used] / measured["radiance_noise"][used]
    number = z.size
    assert number > 500_000
    assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(number))
    assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * number))
    assert (np.abs(z) > 3).mean() == pytest.approx(0.0027, abs=0.0003)


def test_the_true_signal_to_noise_ratio_is_that_of_the_file(day):
    _, measured, truth = day
    told = np.nanmean(measured["radiance"] / measured["radiance_noise"], axis=-1)
    assert told == pytest.approx(truth["signal_to_noise"], rel=0.05)


def test_dead_and_flickering_channels_are_as_many_as_declared():
    of = s.TROPOMI_BAND_7
    detector = s._detector(of)
    assert detector.dead.mean() == pytest.approx(0.01, abs=0.001)
    assert detector.flickering.mean() == pytest.approx(0.003, abs=0.0006)
    assert detector.known.sum() / detector.flickering.sum() == pytest.approx(0.8, abs=0.08)
    assert not (detector.dead & detector.flickering).any()
    assert detector.gain.std() == pytest.approx(0.002, rel=0.02)


def test_a_flickering_channel_jumps_between_two_levels():
    of = replace(SMALL, flickering=0.03)
    scene = s.Scene(of, "2022-06-28T00:05:00", 600, seed=1)
    detector = s._detector(of)
    row, channel = np.argwhere(detector.flickering & detector.known & (detector.slot < 25))[0]
    measured, _ = scene.block()
    quiet = replace(scene, instrument=replace(of, flickering=0.0)).block()[0]
    step = (measured["radiance"] - quiet["radiance"])[:, row, channel] / s.dark_radiance(of)[channel]
    step = step[np.isfinite(step)]  # some scanlines were lost
    up = step > 0.025
    high = 10 * np.sqrt(of.reading) / of.snr
    assert step[up] == pytest.approx(high, rel=0.05)
    assert step[~up] == pytest.approx(0, abs=1e-3 * high)
    assert 5 < np.abs(np.diff(up.astype(int))).sum() < 150  # it stays for some scanlines
    assert np.all(measured["spectral_channel_quality"][:, row, channel] & 64)


def test_dead_channels_are_missing_and_flagged(day):
    _, measured, _ = day
    dead = s._detector(SMALL).dead
    assert dead.any()
    assert np.isnan(measured["radiance"][:, dead]).all()
    assert np.all(measured["spectral_channel_quality"][:, dead] & 2)
    rest = np.isfinite(measured["radiance"]) == ((measured["spectral_channel_quality"] & 3) == 0)
    assert rest.all()


def test_lost_scanlines_are_missing_as_a_whole():
    ground = s.Scene(SMALL, "2022-06-28T00:00:00", 7300, seed=2).ground()
    lost = ground["measurement_quality"] > 0
    assert lost.mean() == pytest.approx(0.002, abs=0.0016)
    k = int(np.flatnonzero(lost)[0])
    measured, _ = s.Scene(SMALL, "2022-06-28T00:00:00", 7300, seed=2).block(k, k + 1)
    assert np.isnan(measured["radiance"]).all()
    assert np.all(measured["spectral_channel_quality"] & 1)


def test_at_night_there_is_noise_of_either_sign_and_a_flag():
    orbit = ORBIT
    ground = orbit.ground()
    night = (ground["ground_pixel_quality"] & 8) > 0
    assert np.array_equal(night, ground["solar_zenith_angle"] > 90)
    k = int(np.flatnonzero(night.all(axis=1))[100])
    measured, _ = orbit.block(k, k + 8)
    value = measured["radiance"][np.isfinite(measured["radiance"]) & (measured["spectral_channel_quality"] == 0)]
    assert (value < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(value).max() < 0.2 * s.dark_radiance(SMALL).min()


def test_spikes_strike_in_the_south_atlantic_alone():
    of = replace(SMALL, dead=0.0, flickering=0.0)
    orbits = s.Scene(of, "2022-06-28T00:00:00", 14 * 7240)
    ground = orbits.ground(0, 30_000)
    inside = s.in_anomaly(ground["longitude"], ground["latitude"])
    assert s.in_anomaly(np.array([-30.0, 30.0]), np.array([-25.0, 45.0])).tolist() == [True, False]
    k = int(np.flatnonzero(inside.all(axis=1))[20])
    measured, _ = orbits.block(k, k + 64)
    here = inside[k : k + 64]
    struck = (measured["spectral_channel_quality"] & 32) > 0
    assert struck[here].mean() == pytest.approx(0.7 * 0.003, rel=0.15)
    assert not struck[~here].any()
    quiet = replace(orbits, instrument=replace(of, snr=1e7)).block(k, k + 64)[0]
    high = ((measured["radiance"] - quiet["radiance"]) / measured["radiance_noise"])[struck]
    assert np.nanmean(high) == pytest.approx(20, rel=0.15)


def test_descending_and_glint_are_flagged_where_they_are():
    ground = ORBIT.ground()
    descending = (ground["ground_pixel_quality"][:, 4] & 4) > 0
    falls = np.diff(ground["satellite_latitude"]) < 0
    assert (descending[1:] == falls).mean() > 0.999
    glint = (ground["ground_pixel_quality"] & 2) > 0
    assert 0.01 < glint.mean() < 0.3
    # Towards the glint the view is as slanted as the sun, to within the declared 30 degrees.
    difference = np.abs(ground["solar_zenith_angle"] - ground["viewing_zenith_angle"])
    assert difference[glint].max() < s.GLINT
    assert not glint[ground["solar_zenith_angle"] > 120].any()


def test_the_moon_takes_the_light_away(day):
    scene, plain, _ = day
    lon, lat = scene.place(80, 4)
    dim = replace(scene, eclipse=(lon, lat, 300.0)).block(60, 100)[0]
    flagged = (dim["ground_pixel_quality"] & 1) > 0
    away = _apart(dim["longitude"], dim["latitude"], lon, lat)
    assert np.array_equal(flagged, away < 300)
    ratio = np.nanmean(dim["radiance"], -1) / np.nanmean(plain["radiance"][60:100], -1)
    assert ratio[flagged] == pytest.approx(np.clip(away[flagged] / 300, 0.02, 1), abs=0.02)
    assert ratio[~flagged] == pytest.approx(1)


# Variability and events --------------------------------------------------------------------------------------------


def test_gases_vary_as_much_as_declared():
    random = np.random.default_rng(0)
    co, sine, water = [], [], []
    for seed in range(3):
        lines = s.Scene(SMALL, "2022-01-01", 1).first + random.integers(0, 14 * 7240 * 365, 2000)
        geometry = s._geometry(SMALL, lines)
        state = s._state(SMALL, seed, geometry)
        # Polar places are met more often than their area says.
        weight = np.abs(geometry["latitude"]) < 60
        co.append(state["co_mixing"][weight])
        sine.append(np.sin(np.radians(geometry["latitude"][weight])))
        water.append(np.log(state["column"]["H2O"])[weight])
        pressure = state["column"]["CO"] / state["co_mixing"]
        methane = (state["column"]["CH4"] / pressure)[weight]
        assert methane.std() == pytest.approx(s.CH4_DEVIATION, rel=0.15)
        assert methane.mean() == pytest.approx(1, abs=0.005)
    co, sine, water = (np.concatenate(v) for v in (co, sine, water))
    free = co - 0.15 * 0.5 * np.sqrt(3) * sine
    assert free.std() == pytest.approx(0.15 * np.sqrt(0.75), rel=0.1)
    assert np.polyfit(sine, co, 1)[0] == pytest.approx(0.15 * 0.5 * np.sqrt(3), rel=0.15)
    assert co.mean() == pytest.approx(1, abs=0.03)
    assert 0.4 < water.std() < 1.2


def test_fields_are_smooth_across_the_date_line():
    fields = s.Fields(7)
    lat = np.linspace(-80, 80, 50)
    west, east = s._unit(np.full(50, -179.999), lat), s._unit(np.full(50, 179.999), lat)
    a, b = (fields.at(v[:, None], np.zeros(50)) for v in (west, east))
    for name in a:
        assert a[name] == pytest.approx(b[name], abs=0.02)
        assert a[name].std() > 0.3


def test_a_plume_holds_as_much_gas_as_its_puffs_also_across_the_date_line():
    of = replace(s.TROPOMI_BAND_7)
    # A granule whose middle lies near the date line.
    whole = s.Scene(replace(of, rows=9), "2022-06-28T00:00:00", 7300)
    middle = whole.ground()["longitude"][:, 4]
    lit = np.abs(whole.ground()["latitude"][:, 4]) < 40
    k = int(np.flatnonzero((np.abs(np.abs(middle) - 180) < 2) & lit)[0])
    scene = s.Scene(of, whole.start + (k - 100) * np.timedelta64(of.line_ns, "ns"), 200)
    _, lat = scene.place(100, 107)
    event = s.Event("east", "fire", 179.6, lat, strength=1.5, length=120.0, width=30.0)
    lines = scene.first + np.arange(200)
    geometry = s._geometry(of, lines)
    added, number = replace(scene, events=(event,))._enhanced(geometry)
    gas = added["CO"]
    lons = geometry["longitude"][number > 0]
    assert lons.max() > 179.5
    assert lons.min() < -179.5
    bounds = s._bounds(of, lines)
    corner = s._unit(*bounds)
    # The area of a pixel: two triangles of vectors, small against the Earth.
    one = np.linalg.norm(
        np.cross(corner[..., 1, :] - corner[..., 0, :], corner[..., 2, :] - corner[..., 0, :]), axis=-1
    )
    two = np.linalg.norm(
        np.cross(corner[..., 2, :] - corner[..., 0, :], corner[..., 3, :] - corner[..., 0, :]), axis=-1
    )
    total = (gas * (one + two) / 2).sum() * s.EARTH_RADIUS**2
    centres, width, height = event.puffs()
    squared = (2 - 2 * centres @ centres.T) * s.EARTH_RADIUS**2
    top = (np.exp(-0.5 * squared / width**2) * height).sum(-1).max()
    assert total == pytest.approx(1.5 / top * (2 * np.pi * width**2 * height).sum(), rel=0.01)
    assert gas.max() == pytest.approx(1.5, rel=0.05)


def test_a_plume_goes_on_in_the_next_granule():
    scene = s.Scene(SMALL, NOON, 64)
    event = s.Event("border", "leak", *scene.place(60, 4), strength=0.5, length=200.0, width=60.0, direction=350.0)
    first, second = (replace(g, events=(event,)) for g in (scene, scene.next()))
    one, two = first.block(60, 64)[1], second.block(0, 4)[1]
    whole = replace(first, scanlines=128).block(60, 68)[1]
    assert (one["event"] == 1).any()
    assert (two["event"] == 1).any()
    for name in ("event", "enhancement_CH4"):
        assert np.array_equal(np.concatenate([one[name], two[name]]), whole[name])


def test_an_event_lasts_from_its_start_to_its_stop():
    scene = s.Scene(SMALL, NOON, 40)
    event = s.Event("brief", "fire", *scene.place(20, 4), strength=1.0, length=400.0, width=150.0)
    brief = replace(event, start=scene.start + np.timedelta64(20 * SMALL.line_ns, "ns"))
    always, late = (replace(scene, events=(e,)).block()[1]["enhancement_CO"] for e in (event, brief))
    assert np.all(late[:20] == 0)
    assert np.array_equal(late[20:], always[20:])
    assert always[:20].max() > 0.5


@pytest.mark.parametrize("kind", list(s.KINDS))
def test_an_event_changes_the_spectra_as_the_truth_says(kind):
    of = replace(SMALL, snr=1e6)
    scene = s.Scene(of, NOON, 64, seed=3)
    event = s.Event("one", kind, *scene.place(32, 5), strength=1.0, length=60.0, width=100.0)
    plain, _ = scene.block()
    measured, truth = replace(scene, events=(event,)).block()
    amount = truth[f"enhancement_{event.changes}"]
    assert all(np.all(truth[f"enhancement_{c}"] == 0) for c in s.CHANGES if c != event.changes)
    changed = np.log(measured["radiance"]) - np.log(plain["radiance"])
    assert np.abs(changed[amount < 1e-6]).max(where=np.isfinite(changed[amount < 1e-6]), initial=0) < 1e-3
    clear = np.argwhere((amount > 0.5) & (truth["cloud_fraction"] == 0))
    assert len(clear)
    k, row = clear[0]
    difference = np.nan_to_num(changed[k, row])
    if kind == "flare":
        assert np.all(difference > -1e-3)
        added = np.nanmedian((measured["radiance"] - plain["radiance"])[k, row] / s.dark_radiance(of))
        assert added == pytest.approx(amount[k, row], rel=0.2)  # its light passes the air once
    elif kind == "unknown":
        near = np.abs(of.wavelengths()[row] - 2324) < 6
        assert difference[near].min() < -0.03
        assert np.abs(difference[~near]).max() < 0.5 * np.abs(difference).max()
    else:
        answer = spectroscopy.dictionary([event.changes], of.wavelengths()[row], of.fwhm,
                                         air_mass=float(truth["air_mass"][k, row]), artefacts=())[event.changes]  # fmt: skip
        shape = np.where(np.isfinite(changed[k, row]), answer, 0)
        assert difference @ shape / (shape @ shape) == pytest.approx(amount[k, row], rel=0.25)
        assert np.corrcoef(difference, shape)[0, 1] > 0.95


def test_a_bright_flare_fills_the_detector():
    scene = s.Scene(SMALL, NOON, 32)
    event = s.Event("flare", "flare", *scene.place(16, 4), strength=60.0, width=40.0)
    measured, truth = replace(scene, events=(event,)).block()
    full = (measured["spectral_channel_quality"] & 16) > 0
    assert full[truth["enhancement_flare"] > 50].any()
    assert np.nanmax(measured["radiance"] / s.dark_radiance(SMALL)) == pytest.approx(s.SATURATION, rel=1e-5)
    assert not full[truth["enhancement_flare"] < 0.1].any()


# Repeatable ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_however_a_granule_is_cut(day):
    scene, measured, truth = day
    pieces = list(scene.blocks(23))
    assert [first for first, _, _ in pieces] == list(range(0, 160, 23))
    for name, whole in measured.items():
        assert np.concatenate([m[name] for _, m, _ in pieces]).tobytes() == whole.tobytes(), name
    for name, whole in truth.items():
        assert np.concatenate([t[name] for _, _, t in pieces]).tobytes() == whole.tobytes(), name
    later = s.Scene(SMALL, scene.start + 50 * np.timedelta64(SMALL.line_ns, "ns"), 10, seed=3).block()[0]
    assert later["radiance"].tobytes() == measured["radiance"][50:60].tobytes()
    assert scene.ground(40, 50)["latitude"].tobytes() == measured["latitude"][40:50].tobytes()


def test_another_seed_is_another_world(day):
    scene, measured, truth = day
    other, other_truth = replace(scene, seed=4).block(0, 8)
    assert np.array_equal(other["latitude"], measured["latitude"][:8])
    assert not np.allclose(other_truth["co_column"], truth["co_column"][:8])
    # At night noise is all there is, and it is another one too.
    k = int(np.flatnonzero((ORBIT.ground()["solar_zenith_angle"] > 100).all(axis=1))[50])
    one, two = (replace(ORBIT, seed=n).block(k, k + 4)[0]["radiance"].ravel() for n in (3, 4))
    both = np.isfinite(one) & np.isfinite(two)
    assert abs(np.corrcoef(one[both], two[both])[0, 1]) < 0.05


# Cube --------------------------------------------------------------------------------------------------------------


def test_a_cube_holds_granules_lazily_with_what_is_bad_left_out():
    scene = s.Scene(SMALL, NOON, 50, seed=3)
    cube = s.cube([scene, scene.next(30)], lines=20)
    assert cube.sizes == {
        "scanline": 80, "ground_pixel": 9, "spectral_channel": 480, "granule": 2, "corner": 4,
    }  # fmt: skip
    assert cube["radiance"].chunks[0] == (20, 20, 10, 20, 10)
    assert cube["granule"].values.tolist() == [0] * 50 + [1] * 30
    assert cube["orbit"].dtype == np.int32
    assert cube["radiance"].dtype == cube["radiance_noise"].dtype == np.float32
    measured, _ = scene.block()
    loaded = cube.isel(scanline=slice(0, 50)).load()
    bad = (measured["spectral_channel_quality"] & (1 | 2 | 4 | 16 | 32 | 64)) > 0
    assert np.array_equal(np.isnan(loaded["radiance"]), bad)
    assert np.array_equal(loaded["radiance"].values[~bad], measured["radiance"][~bad])
    assert np.all(np.diff(cube["time"].values) == np.timedelta64(840, "ms"))
    assert cube.attrs["synthetic"] == "true"
    assert "synthetic" in cube.attrs["title"]
    # Reflectance of sunlit ground is of the order of its albedo.
    sun = np.cos(np.radians(cube["solar_zenith_angle"].isel(scanline=10)))
    rho = np.pi * cube["radiance"].isel(scanline=10) / sun / cube["irradiance"].isel(granule=0)
    assert 0.005 < float(np.nanmax(rho.values)) < 0.8


def test_the_truth_of_a_cube_lies_on_its_pixels(day):
    scene, _, expected = day
    scene = s.with_events(replace(scene, scanlines=48), 8, seed=1)
    assert [e.kind for e in scene.events] == [*s.KINDS, *s.KINDS]
    told = s.truth([scene, scene.next(40)])
    assert told.sizes == {"scanline": 88, "ground_pixel": 9}
    _, block = scene.block()
    for name, values in block.items():
        assert np.array_equal(told[name].values[:48], values), name
    assert np.array_equal(block["co_column"], expected["co_column"][:48])
    assert told["event"].attrs["flag_meanings"].split()[1] == "fire_1"
    ids = np.unique(told["event"])
    assert len(ids) > 4  # small ones may lie between pixels
    with pytest.raises(ParameterError, match="same events"):
        s.truth([scene, replace(scene, events=())])


def test_an_instrument_of_heat_sees_at_night_and_has_no_sun():
    of = HEAT
    scene = s.Scene(of, NOON, 40)
    cube = s.cube(scene)
    assert "irradiance" not in cube
    assert cube.sizes["spectral_channel"] == 61
    night = (cube["ground_pixel_quality"].values & 8) > 0
    kept = cube["measurement_quality"].values == 0
    brightness = cube["radiance"].values[kept].mean(-1) / s.dark_radiance(of).mean()
    assert night.any()
    assert np.all((brightness > 0.05) & (brightness < 8))
    with pytest.raises(ParameterError, match="one instrument"):
        s.cube([scene, s.Scene(SMALL, NOON, 10)])


# Files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "sense"), [("f4", 1), ("u2", -1)])
def test_a_scene_in_a_file_is_read_as_the_cube_it_is(tmp_path, encoding, sense):
    from phidias_lab.products.l1b import write
    from phidias_lab.sources.l1b import open_spectra

    scene = s.Scene(SMALL, NOON, 40, seed=3)
    write(s.granule(scene, encoding, sense), tmp_path / s.name(scene))
    sun = tmp_path / s.name(scene).replace("RA_BD7", "IR_SIR")
    write(s.irradiance(scene), sun)
    read, made = open_spectra(tmp_path / s.name(scene), sun).load(), s.cube(scene).load()
    value, expected = read["radiance"].values, made["radiance"].values
    assert np.array_equal(np.isnan(value), np.isnan(expected))
    # 16 bits of the largest radiance of a spectrum, or all there is.
    step = np.nanmax(np.abs(np.nan_to_num(expected)), axis=-1, keepdims=True) / 65534
    assert np.nanmax(np.abs(value - expected) / np.maximum(step, 1e-30)) <= (0.51 if encoding == "u2" else 0.0)
    ratio = read["radiance_noise"].values / made["radiance_noise"].values
    assert np.nanmax(np.abs(10 * np.log10(ratio))) < 0.52  # whole decibels
    for name in ("latitude", "longitude_bounds", "solar_zenith_angle", "ground_pixel_quality", "time"):
        assert np.array_equal(read[name].values, made[name].values), name
    assert np.allclose(read["wavelength"], made["wavelength"], atol=2e-4)  # stored in float32
    # Read off wavelengths of its own, what is left is its noise of 1e-4.
    sun = read["irradiance"].values / made["irradiance"].values - 1
    assert np.sqrt(np.nanmean(np.square(sun))) < 2e-4
    assert read["orbit"].item() == made["orbit"].item() == scene.orbit
    assert read.attrs["synthetic"] == "true"


def test_a_long_granule_is_made_when_it_is_asked_for():
    scene = s.Scene(SMALL, NOON, s.IN_MEMORY + 40, seed=3)
    long = s.granule(scene, "u2")
    assert long.sizes()["scanline"] == s.IN_MEMORY + 40
    assert not isinstance(long["radiance_int16"], np.ndarray)
    piece = np.asarray(long["radiance_int16"][0, 100:110])
    short = s.granule(replace(scene, start=scene.start + 100 * np.timedelta64(SMALL.line_ns, "ns"), scanlines=10), "u2")
    assert np.array_equal(piece, short["radiance_int16"][0])


# The ideal observer ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def observer():
    return s.Observer(ORBIT, rows=[1, 4], spectra=200, least_signal_to_noise=100)


def test_the_observer_weighs_as_the_dense_formula_does(observer):
    values, noise, keep = observer._plain
    raised, natural = observer._spectra("CO", 0.5)[0], 0.3
    radiance = np.exp(values[:5])
    assert noise[:5] == pytest.approx(s.noise_deviation(SMALL, radiance) / radiance, rel=1e-4)
    k = np.flatnonzero(keep[:, 1])[:3]
    change = (raised[k, 1] - values[k, 1]).astype(float)
    weights, q = observer._filter("CO", 1, change, noise[k, 1], natural)
    _, basis, variance = (part[1] for part in observer._nature("CO"))
    used = observer._used[1]
    for n in range(3):
        covariance = basis.T @ np.diag(variance) @ basis + np.diag(noise[k[n], 1].astype(float) ** 2)
        covariance += natural**2 * np.outer(change[n], change[n])
        dense = np.linalg.solve(covariance[np.ix_(used, used)], change[n, used])
        assert q[n] == pytest.approx(np.sqrt(change[n, used] @ dense), rel=1e-4)
        assert weights[n, used] == pytest.approx(dense / q[n], rel=1e-3, abs=1e-3 * np.abs(dense / q[n]).max())
        assert np.all(weights[n, ~used] == 0)


def test_the_observer_scores_have_the_statistics_it_claims(observer):
    seen = observer.detect("CO", 0.5)
    assert seen.null.size > 300
    assert seen.null.std() == pytest.approx(1, abs=0.2)
    assert seen.null.mean() == pytest.approx(0, abs=0.2)
    assert (seen.event - seen.null).mean() == pytest.approx(seen.signal_to_noise.mean(), rel=0.1)
    assert seen.auc == pytest.approx(seen.expected_auc, abs=0.02)
    assert observer.detect("CO", 0.25).auc < seen.auc < observer.detect("CO", 1.0).auc
    assert seen.probability(1e-2) > 0.5


def test_the_observer_is_asked_about_given_scenes(observer):
    scenes = [s.Scene(SMALL, NOON, 40), s.Scene(SMALL, NOON, 40).next()]
    seen = observer.detect("CO", 0.5, scenes=scenes)
    bright = [scene.truth()["signal_to_noise"][:, [1, 4]] >= 100 for scene in scenes]
    assert 0 < seen.null.size == np.sum(bright) < np.size(bright)
    assert (seen.event - seen.null).mean() == pytest.approx(seen.signal_to_noise.mean(), rel=0.1)


def test_more_noise_is_less_to_see(observer):
    louder = s.Observer(replace(ORBIT, instrument=replace(SMALL, snr=30)), rows=[1, 4], spectra=200)
    assert louder.detect("CO", 0.25).auc < observer.detect("CO", 0.25).auc - 0.05


def test_natural_variability_bounds_what_can_be_seen(observer):
    q = observer.detect("CO", 2.0).signal_to_noise
    assert q.max() < 2.0 / (0.15 * 0.7)  # where the air is thinnest
    assert np.median(q) > 0.8 * 2.0 / 0.15


def test_the_observer_tells_the_signal_of_a_scenes_events(observer):
    scene = s.Scene(SMALL, NOON, 64)
    event = s.Event("one", "fire", *scene.place(32, 4), strength=1.0, length=60.0, width=100.0)
    one = observer.signal_to_noise(replace(scene, events=(event,)))
    two = observer.signal_to_noise(replace(scene, events=(replace(event, strength=0.5),)))
    assert one.shape == (64, 2)
    assert one[:, 1].max() > 3
    strong = one > 1
    assert one[strong] / two[strong] == pytest.approx(2, rel=0.1)
    assert np.all(observer.signal_to_noise(scene) == 0)


def test_the_ideal_observer_in_one_call():
    seen = s.ideal_observer(ORBIT, "unknown", 0.3, rows=[4], spectra=100)
    assert seen.auc > 0.9


# What a user gets wrong ---------------------------------------------------------------------------------------------


def test_mistakes_are_told_in_a_sentence():
    with pytest.raises(ParameterError, match="at least one scanline"):
        s.Scene(SMALL, NOON, 0)
    with pytest.raises(ParameterError, match="begin on 2018-05-01"):
        s.Scene(SMALL, "2017-01-01", 5)
    with pytest.raises(ParameterError, match="scanlines 0 to 5"):
        s.Scene(SMALL, NOON, 5).block(2, 9)
    with pytest.raises(UnknownNameError, match="fire"):
        s.Event("x", "fires", 0.0, 0.0, 1.0)
    with pytest.raises(ParameterError, match="rising wavelengths"):
        replace(SMALL, first=2400.0)
    with pytest.raises(UnknownNameError, match="encoded as 'i2'"):
        s.granule(s.Scene(SMALL, NOON, 2), "i2")
    with pytest.raises(ParameterError, match="sense of decibels"):
        s.granule(s.Scene(SMALL, NOON, 2), sense=0)
    with pytest.raises(ParameterError, match="bands 1 to 8 of TROPOMI, not band CO of IASI-like"):
        s.granule(s.Scene(HEAT, NOON, 2))
    with pytest.raises(ParameterError, match="are needed"):
        s.Observer(s.Scene(SMALL, NOON, 4), rows=[4], spectra=2, least_signal_to_noise=1e6)
