"""Spectra are screened: what happened is found, named and kept, and where nothing happened nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from phidias_lab.chains.atmosphere import _basis, _scenes
from phidias_lab.chains.atmosphere.screening import Screening
from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.testing.scenes import spectra as scenes


@pytest.fixture(scope="module")
def learnt():
    """A basis of two granules, and the cube it was learnt from."""
    cube, basis = _scenes._learnt()
    return cube, basis


@pytest.fixture(scope="module")
def happened(learnt):
    """A granule in which three things happen, the truth, and its screening."""
    plain = _scenes.granule(1, 240)
    events = (
        scenes.Event("fire", "fire", *plain.place(40, 20), 6.0, length=150.0, width=25.0),
        scenes.Event("gas", "unknown", *plain.place(120, 45), 2.0, length=150.0, width=25.0),
        scenes.Event("flare", "flare", *plain.place(200, 30), 20.0, width=25.0),
    )
    scene = dataclasses.replace(plain, events=events)
    cube = scenes.cube(scene).load()
    chain = Screening()
    return cube, scene.block()[1], chain(spectra=cube, basis=learnt[1]), chain


def test_a_fire_is_told_by_its_gas_and_what_no_gas_explains_is_called_unknown(happened):
    _, truth, result, chain = happened
    table = chain.events(result)
    found = {}
    for kind, line, row in zip(table["kind"], table["peak_scanline"], table["peak_ground_pixel"], strict=True):
        found[int(truth["event"][line, row])] = kind
    assert found == {1: "CO", 2: "unknown", 3: "unknown"}
    assert (table["false_alarm_rate"] < 1e-4).all()
    fire = table[table["kind"] == "CO"].iloc[0]
    assert fire["snr_CO"] > 4
    assert fire.geometry.is_valid
    assert result.attrs["synthetic"] == "true"


def test_what_is_kept_is_what_was_measured_to_the_bit(happened):
    cube, _, result, _ = happened
    line, row = result["selected_scanline"].values, result["selected_ground_pixel"].values
    assert 0 < line.size <= 0.01 * np.isfinite(result["false_alarm_rate"].values).sum()
    for name in ("radiance", "radiance_noise", "latitude_bounds", "ground_pixel_quality"):
        np.testing.assert_array_equal(result[f"selected_{name}"].values, cube[name].values[line, row])
    np.testing.assert_array_equal(result["selected_time"].values, cube["time"].values[line])


def test_where_nothing_happens_nothing_is_found_and_alarms_are_as_rare_as_asked_for(learnt):
    cube = scenes.cube(_scenes.granule(2, 120)).load()
    chain = Screening(rate=1e-2, grow=1e-2)
    result = chain(spectra=cube, basis=learnt[1])
    rate = result["false_alarm_rate"].values
    share = np.mean(rate[np.isfinite(rate)] <= 1e-2)
    assert share < 3e-2  # of another orbit than those learnt from, and pixels depend on each other
    assert chain.events(Screening()(spectra=cube, basis=learnt[1])).empty


def test_a_cut_into_granules_changes_no_event(happened, learnt):
    cube, _, whole, chain = happened
    parts = cube.assign(granule=("scanline", (np.arange(cube.sizes["scanline"]) >= 43).astype(np.int32)))
    two = [name for name in ("wavelength", "irradiance") if name in cube]
    parts = parts.drop_vars([*two, "earth_sun_distance", "granule_name", "orbit"])
    parts = parts.assign({name: (cube[name].dims, np.repeat(cube[name].values, 2, axis=0)) for name in two})
    cut = chain(spectra=parts, basis=learnt[1])
    np.testing.assert_array_equal(cut["event"].values, whole["event"].values)


def test_spectra_without_corners_have_the_same_events_of_about_the_same_outlines(happened, learnt):
    cube, _, whole, chain = happened
    bare = chain(spectra=cube.drop_vars(["latitude_bounds", "longitude_bounds"]), basis=learnt[1])
    np.testing.assert_array_equal(bare["event"].values > 0, whole["event"].values > 0)
    one, other = (chain.events(result) for result in (bare, whole))
    for mine, theirs in zip(one["geometry"], other["geometry"], strict=True):
        assert mine.intersection(theirs).area > 0.9 * mine.union(theirs).area


def test_a_region_and_a_period_cut_what_is_screened(happened, learnt):
    cube, *_ = happened
    south = float(cube["latitude"].values[100].mean())
    part = Screening(region=[-180, south, 180, 90])(spectra=cube, basis=learnt[1])
    inside = part["latitude"].values >= south
    assert np.isfinite(part["false_alarm_rate"].values[inside]).mean() > 0.9
    assert not np.isfinite(part["false_alarm_rate"].values[~inside]).any()
    with pytest.raises(InputError, match=r"has no scanline in this region and period\. Choose others"):
        Screening(period=["2001-01-01", "2001-01-02"])(spectra=cube, basis=learnt[1])


def test_another_input_than_a_basis_or_a_basis_of_another_band_is_refused(happened, learnt):
    cube, basis = happened[0], learnt[1]
    with pytest.raises(InputError, match="The input 'basis' is no basis of spectra"):
        Screening()(spectra=cube, basis=xr.Dataset({"a": ("x", [1.0])}))
    with pytest.raises(InputError, match=r"and the basis 2305 to 2343 nm\. Give a basis of their band"):
        Screening()(spectra=cube.assign(wavelength=cube["wavelength"] + 60), basis=basis)
    with pytest.raises(InputError, match="No pixel of the input 'spectra' can be screened: none is in sunlight"):
        Screening()(spectra=cube.assign(solar_zenith_angle=cube["solar_zenith_angle"] * 0 + 95), basis=basis)


def test_a_basis_is_read_back_as_it_was_written(learnt, tmp_path):
    path = tmp_path / "basis.nc"
    learnt[1].to_netcdf(path)
    one, other = (_basis.of_dataset(data) for data in (learnt[1], xr.load_dataset(path)))
    for field in dataclasses.fields(one.basis):
        np.testing.assert_array_equal(getattr(one.basis, field.name), getattr(other.basis, field.name))
    score = np.linspace(-2, 30, 500)
    for name in (*one.detectors, _basis.COMBINED):
        for stratum in range(len(one.strata.names)):
            np.testing.assert_allclose(
                *(b.rates[name].false_alarm_rate(score, np.full(500, stratum)) for b in (one, other))
            )


def test_no_channel_of_a_basis_is_far_quieter_than_those_around_it(learnt):
    noise = learnt[1]["noise"].values
    around = np.median(np.lib.stride_tricks.sliding_window_view(noise, 15), axis=1)
    assert (noise[7:-7] > 0.45 * around).all()


def test_a_basis_has_one_checksum_however_its_labels_are_stored(learnt):
    stored = learnt[1].assign_coords(gas=("gas", learnt[1]["gas"].values.astype(np.dtypes.StringDType())))
    other = learnt[1].assign(white=learnt[1]["white"] * 1.01)
    one, same, changed = (_basis.provenance(data)["sha256"] for data in (learnt[1], stored, other))
    assert one == same != changed


@pytest.mark.parametrize("instrument", ["uvns_like", "iasi_like"])
def test_other_instruments_are_screened_by_the_same_chains(instrument):
    of = dataclasses.replace(scenes.INSTRUMENTS[instrument], rows=32)
    plain = _scenes.granule(1, 100, of=of)
    event = scenes.Event("gas", "unknown", *plain.place(60, 12), 5.0, length=300.0, width=40.0)
    parameters = {**_scenes.PARAMETERS, "quantity": "radiance" if of.thermal else "reflectance", "gases": "CO"}
    basis = ScreeningBasis(**parameters)(spectra=scenes.cube(_scenes.spread(of)).load())
    assert basis.sizes["spectral_channel"] == of.channels
    scene = dataclasses.replace(plain, events=(event,))
    chain = Screening()
    result = chain(spectra=scenes.cube(scene).load(), basis=basis)
    truth = scene.block()[1]["event"]
    kinds = [
        kind
        for kind, line, row in zip(
            *(chain.events(result)[n] for n in ("kind", "peak_scanline", "peak_ground_pixel")), strict=True
        )
        if truth[line, row] == 1
    ]
    assert kinds == ["unknown"]


def test_bad_windows_and_gases_are_refused_by_name():
    cube = scenes.cube(_scenes.granule(1, 20))
    for windows in ("CO: 2311", "CO: 2318-2311", "a: 1-2, a: 3-4", "0", "1: 2-3"):
        with pytest.raises(ParameterError, match="Parameter 'windows'"):
            ScreeningBasis(windows=windows)(spectra=cube)
    with pytest.raises(ParameterError, match="Parameter 'gases' names no gas"):
        ScreeningBasis(gases=" , ")(spectra=cube)
    with pytest.raises(InputError, match="has no irradiance, so there are no reflectances"):
        ScreeningBasis()(spectra=cube.drop_vars("irradiance"))
    with pytest.raises(InputError, match="and at least 2400 are needed to learn 480 channels"):
        ScreeningBasis(**_scenes.PARAMETERS)(spectra=cube)
