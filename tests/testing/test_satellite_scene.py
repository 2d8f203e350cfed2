"""The synthetic satellites differ from the true ocean by the errors they declare, where the truth is known by itself."""

from __future__ import annotations

import numpy as np
import pytest

from phidias_lab.lake import catalog
from phidias_lab.testing.scenes import ocean, satellite


@pytest.fixture(scope="module")
def stores(demo_lake_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIDIAS_LAKE", str(demo_lake_folder))
        names = (
            "smos_10_day",
            "smos_monthly",
            "ocean_colour",
            "model_salinity",
            *(f"truth_{sea}" for sea in ocean.SEAS),
        )
        return {name: catalog.source(f"ocean.{name}").read() for name in names}


def true_at(truth, name, cube):
    """The true surface values at the cells of a cube, linear between four sea nodes, of each step's month."""
    lat, lon = (next(cube[c] for c in pair if c in cube.coords) for pair in (("lat", "latitude"), ("lon", "longitude")))
    surface = truth[name].isel(depth=0).interp(latitude=lat.values, longitude=lon.values)
    month = cube["time"].values.astype("datetime64[M]")
    position = (month - truth["time"].values[0].astype("datetime64[M]")).astype(int)
    return surface.values[position]


@pytest.mark.parametrize("name", ["smos_10_day", "smos_monthly"])
def test_smos_differs_from_the_truth_by_its_bias_and_independent_errors(stores, name):
    cube = stores[name]
    wrong = cube["Sea_Surface_Salinity"].values - true_at(stores["truth_north_east_atlantic"], "salinity", cube)
    error = ((wrong - satellite.BIAS) / cube["Sea_Surface_Salinity_Error"].values).astype(float)
    number = np.isfinite(error).sum()
    assert number > 150_000
    assert abs(np.nanmean(error)) < 5 / np.sqrt(number) + 0.005
    assert abs(np.nanstd(error) - 1) < 5 / np.sqrt(2 * number) + 0.005
    for shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        product = (
            error[shift[0] :, shift[1] :, shift[2] :]
            * error[: -shift[0] or None, : -shift[1] or None, : -shift[2] or None]
        )
        assert abs(np.nanmean(product)) < 5 / np.sqrt(number) + 0.001


def test_steps_follow_each_other_without_gap(stores):
    for name, steps in (("smos_10_day", 36), ("smos_monthly", 24), ("ocean_colour", 46), ("model_salinity", 24)):
        bounds = stores[name]["time_bounds"].values
        assert bounds.shape == (steps, 2)
        assert (bounds[1:, 0] == bounds[:-1, 1]).all()
        assert (bounds[:, 0] < stores[name]["time"].values).all()
        assert (stores[name]["time"].values < bounds[:, 1]).all()


def test_ocean_colour_is_log_normal_with_gaps_and_from_north_to_south(stores):
    cube = stores["ocean_colour"]
    true = true_at(stores["truth_baltic"], "chlorophyll", cube)
    seen = cube["CHL"].values
    assert cube["lat"].values[0] > cube["lat"].values[-1]
    error = np.log(seen / true / satellite.FACTOR).astype(float)
    number = np.isfinite(error).sum()
    assert number > 30_000
    assert abs(np.nanmean(error)) < 5 * satellite.LOG_ERROR / np.sqrt(number) + 0.002
    assert abs(np.nanstd(error) / satellite.LOG_ERROR - 1) < 0.02
    summer = np.isfinite(true) & (np.abs(np.arange(46) - 22) < 5)[:, None, None]
    assert np.isfinite(seen)[summer].mean() == pytest.approx(1 - satellite.CLOUDY, abs=0.1)
    assert not np.isfinite(seen[0][cube["lat"].values > 60]).any(), "January is dark in the north"


def test_the_model_follows_the_truth_too_little_and_its_errors_are_smooth_and_its_own(stores):
    cube, smos = stores["model_salinity"], stores["smos_monthly"]
    true = true_at(stores["truth_north_east_atlantic"], "salinity", cube).astype(float)
    wrong = cube["sea_surface_salinity"].values - 35 - satellite.SLOPE * (true - 35)
    assert np.nanstd(wrong) == pytest.approx(satellite.MODEL_ERROR, rel=0.05)
    assert np.nanmean(wrong[:, 1:] * wrong[:, :-1]) > 0.5 * satellite.MODEL_ERROR**2
    other = smos["Sea_Surface_Salinity"].interp(lat=cube["latitude"].values, lon=cube["longitude"].values).values - true
    assert abs(np.nanmean(wrong * (other - np.nanmean(other)))) < 0.05 * satellite.MODEL_ERROR * np.nanstd(other)
