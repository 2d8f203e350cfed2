"""The synthetic ocean is what it says it is: its statistics, its errors and its copies are the declared ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special

from phidias_lab.errors import UnknownNameError
from phidias_lab.lake import catalog
from phidias_lab.testing.scenes import ocean

SEAS = list(ocean.SEAS.values())


@pytest.fixture(scope="module")
def tables(demo_lake_folder):
    """Observations and the truth about them, row by row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIDIAS_LAKE", str(demo_lake_folder))
        seen = catalog.source("ocean.observations").read().set_index("observation_id").sort_index()
        true = catalog.source("ocean.observations_truth").read().set_index("observation_id").sort_index()
    return seen, true


@pytest.fixture(scope="module")
def truths(demo_lake_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIDIAS_LAKE", str(demo_lake_folder))
        return {sea.name: catalog.source(f"ocean.truth_{sea.name}").read() for sea in SEAS}


def sea_of(seen):
    return np.where(seen["longitude"] < 5, "north_east_atlantic", "baltic")


def standardised(seen, true, name):
    """(observed - true) over the declared noise, of the observations that were measured in `name`; NaN elsewhere."""
    depth = seen["depth"].to_numpy(float)
    sd = np.select([sea_of(seen) == s.name for s in SEAS], [s.noise_sd(name, depth) for s in SEAS])
    if name == "chlorophyll":
        return (np.log(seen[name].astype(float)) - np.log(true[f"{name}_true"].astype(float))) / sd
    return (seen[name].astype(float) - true[f"{name}_true"].astype(float)) / sd


def test_there_are_at_least_200_000_observations_of_three_kinds_in_two_seas(tables):
    seen, true = tables
    assert len(seen) == len(true) >= 200_000
    assert seen.index.is_unique
    assert seen.index.equals(true.index)
    assert (seen["kind"].value_counts()[list(ocean.KINDS)] > 40_000).all()
    assert (pd.Series(sea_of(seen)).value_counts() > 80_000).all()


def test_profiles_have_many_levels_and_moorings_long_series(tables):
    seen, true = tables
    profiles = seen[seen["kind"] == "profile"].groupby("cast").size()
    assert profiles.median() >= 8
    series = seen[(seen["kind"] == "time_series") & (true["duplicate_of"] < 0)].groupby("cast")["time"].nunique()
    assert series.min() > 700
    assert (seen[seen["kind"] == "underway"]["depth"] == 4).all()


@pytest.mark.parametrize("name", ocean.VARIABLES)
def test_observations_differ_from_the_truth_by_the_declared_noise(tables, name):
    seen, true = tables
    good = (~true[f"{name}_outlier"] & (true["duplicate_of"] < 0)).to_numpy()
    error = standardised(seen, true, name)[good].dropna()
    # Of n independent errors, mean and standard deviation vary by 1/sqrt(n) and 1/sqrt(2n); five of these are allowed,
    # and half a per cent for rounding.
    assert abs(error.mean()) < 5 / np.sqrt(len(error)) + 0.005
    assert abs(error.std() - 1) < 5 / np.sqrt(2 * len(error)) + 0.005
    assert len(error) > 50_000


@pytest.mark.parametrize("name", ocean.VARIABLES)
def test_outliers_are_gross_and_as_many_as_declared(tables, name):
    seen, true = tables
    outlier = true[f"{name}_outlier"]
    measured = seen[name].notna()
    assert not (outlier & ~measured).any()
    share = outlier.sum() / measured.sum()
    assert abs(share - ocean.OUTLIER_SHARE) < 5 * np.sqrt(ocean.OUTLIER_SHARE / measured.sum()) + 0.0005
    # Copies are rounded, which moves small chlorophyll values by more than noise; originals are judged.
    originals = outlier & (true["duplicate_of"] < 0)
    assert standardised(seen, true, name)[originals].abs().quantile(0.02) > 4


@pytest.mark.parametrize("name", ocean.VARIABLES)
def test_most_outliers_are_flagged_and_few_good_values_are(tables, name):
    seen, true = tables
    flag, outlier, measured = seen[f"{name}_qc"], true[f"{name}_outlier"], seen[name].notna()
    assert set(flag.unique()) <= set(ocean.FLAGS)
    assert ((flag == 9) == ~measured).all()
    bad = flag.isin([3, 4])
    n = outlier.sum()
    assert abs(bad[outlier].mean() - ocean.OUTLIER_FLAGGED) < 5 * np.sqrt(0.16 / n) + 0.01
    good = measured & ~outlier
    assert abs(bad[good].mean() - ocean.GOOD_FLAGGED_BAD) < 5 * np.sqrt(0.003 / good.sum()) + 0.0005


def test_copies_are_close_to_their_originals_in_all_but_name(tables):
    seen, true = tables
    copies = true.index[true["duplicate_of"] >= 0]
    originals = true.loc[copies, "duplicate_of"]
    assert 1000 < len(copies) < 0.05 * len(seen)
    assert originals.is_unique
    assert (true.loc[originals, "duplicate_of"] == -1).all()
    a, b = seen.loc[copies].reset_index(drop=True), seen.loc[originals].reset_index(drop=True)
    assert ((a["longitude"] - b["longitude"]).abs() <= 0.00501).all()
    assert ((a["time"] - b["time"]).abs() <= pd.Timedelta("1min")).all()
    assert (a["depth"] == b["depth"]).all()
    assert (a["platform"] != b["platform"]).all()
    for name in ocean.VARIABLES:
        assert (a[name].isna() == b[name].isna()).all()
        assert (a[name] - b[name]).abs().max() <= 0.00501


def test_the_true_values_are_read_from_the_true_fields(tables, truths):
    """Trilinear interpolation where all eight nodes are sea, by xarray's own interpolation."""
    seen, true = tables
    original = (true["duplicate_of"] < 0).to_numpy()
    for sea in SEAS:
        rows = np.flatnonzero(original & (sea_of(seen) == sea.name))[::97]
        some, field = seen.iloc[rows], truths[sea.name]
        month = some["time"].to_numpy().astype("datetime64[M]") - np.datetime64("2010-01", "M")
        places = {c: ("row", some[c].to_numpy(float)) for c in ("depth", "latitude", "longitude")}
        for name in ocean.VARIABLES:
            values = field[name].isel(time=("row", month.astype(int)))
            every = range(0, len(rows), 80)
            expected = np.array(
                [values.isel(row=i).interp({c: v[1][i] for c, v in places.items()}).item() for i in every]
            )
            given = true[f"{name}_true"].to_numpy(float)[rows][every]
            whole = np.isfinite(expected)
            assert whole.sum() > 5
            np.testing.assert_allclose(given[whole], expected[whole], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sea", SEAS, ids=lambda s: s.name)
def test_anomalies_have_the_declared_correlation_length(sea):
    """The covariance of many drawn fields at known distances against (r/L) K1(r/L)."""
    random = np.random.Generator(np.random.PCG64(7))
    lon, lat = np.meshgrid(sea.longitude, sea.latitude)
    x, y = ocean.equal_area(lon.ravel(), lat.ravel(), (float(sea.longitude.mean()), float(sea.latitude.mean())))
    fields = ocean.random_fields(random, 300, x, y, sea.length)
    assert fields.mean() == pytest.approx(0, abs=0.02)
    # Reading a plane of step L/8 linearly costs at most two per cent of the variance.
    assert 0.95 < fields.var() < 1.02
    middle = (len(sea.latitude) // 2) * len(sea.longitude) + len(sea.longitude) // 2
    r = np.hypot(x - x[middle], y - y[middle]) / sea.length
    correlation = (fields * fields[:, [middle]]).mean(axis=0) / fields.var()
    estimates = []
    for low, high in ((0.4, 0.6), (0.9, 1.1), (1.8, 2.2)):
        ring = (r > low) & (r < high)
        assert ring.sum() > 4
        expected = (r[ring] * special.k1(r[ring])).mean()
        # A correlation of 300 pairs has a standard error of 0.06; neighbours on the ring hardly lessen it.
        assert correlation[ring].mean() == pytest.approx(expected, abs=0.15)
        estimates.append(abs(correlation[ring].mean() - expected))
    assert np.mean(estimates) < 0.09


def test_the_correlation_length_can_be_read_off_the_fields():
    """A least-squares fit of the covariance recovers L within a tenth: 300 fields of about 40 independent patches."""
    sea = ocean.NORTH_EAST_ATLANTIC
    random = np.random.Generator(np.random.PCG64(11))
    x, y = (v.ravel() for v in np.meshgrid(np.arange(24) * 50e3, np.arange(24) * 50e3))
    fields = ocean.random_fields(random, 300, x, y, sea.length).reshape(300, 24, 24)
    lags = np.arange(1, 12)
    found = np.array([(fields[:, :, :-k] * fields[:, :, k:]).mean() for k in lags]) / fields.var()
    lengths = np.linspace(100e3, 400e3, 301)
    misfit = [((found - lags * 50e3 / w * special.k1(lags * 50e3 / w)) ** 2).sum() for w in lengths]
    assert lengths[np.argmin(misfit)] == pytest.approx(sea.length, rel=0.1)


@pytest.mark.parametrize("sea", SEAS, ids=lambda s: s.name)
def test_anomalies_fade_from_month_to_month_and_with_depth_as_declared(sea):
    drawn = ocean.anomalies(sea, "temperature", np.random.Generator(np.random.PCG64(3)), 72)
    following = (drawn[1:] * drawn[:-1]).mean() / drawn.var()
    assert following == pytest.approx(np.exp(-1 / ocean.CORRELATION_MONTHS), abs=0.08)
    angle = ocean._mixing_angle(sea, sea.depth)
    between = (drawn[:, 0] * drawn[:, 3]).mean() / drawn.var()
    assert between == pytest.approx(np.cos(angle[3] - angle[0]), abs=0.15)


@pytest.mark.parametrize("sea", SEAS, ids=lambda s: s.name)
def test_the_mask_follows_the_coast_and_shrinks_with_depth(sea):
    shape = ocean.domain(sea)
    nodes = shape["mask"].sum(("latitude", "longitude")).values
    assert (np.diff(nodes) <= 0).all()
    assert nodes[0] > nodes[-1] > 50
    lon, lat = np.meshgrid(shape["longitude"], shape["latitude"])
    assert not ocean.is_land(lon, lat)[shape["mask"].values[0] == 1].any()
    assert (shape["mask"].values[1:] <= shape["mask"].values[:-1]).all()


def test_real_places_are_in_the_right_element():
    atlantic, baltic = (ocean.domain(sea)["mask"].isel(depth=0) for sea in SEAS)
    assert atlantic.sel(longitude=-20, latitude=47) == 1
    assert atlantic.sel(longitude=-4, latitude=40) == 0  # Madrid
    assert atlantic.sel(longitude=-8, latitude=53) == 0  # Ireland
    assert baltic.sel(longitude=20, latitude=57.25) == 1  # Gotland Deep
    assert baltic.sel(longitude=25, latitude=61.5) == 0  # Finland


def test_the_baltic_is_brackish_and_the_atlantic_is_not(truths):
    baltic = truths["baltic"]["salinity"].isel(depth=0).mean("time")
    assert baltic.sel(longitude=22.5, latitude=64.75) < 6
    assert 5 < baltic.sel(longitude=19.5, latitude=56) < 10
    assert truths["north_east_atlantic"]["salinity"].isel(depth=0).mean() > 34.5
    deep = truths["baltic"]["salinity"].sel(longitude=20, latitude=57.25).mean("time")
    assert deep.sel(depth=100) > deep.sel(depth=30) + 2  # halocline


def test_the_water_is_physically_possible(truths):
    for field in truths.values():
        assert field["temperature"].min() >= -1
        assert field["temperature"].max() < 32
        assert field["salinity"].min() > 0
        assert field["oxygen"].min() > 0
        assert field["chlorophyll"].min() > 0
    summer = truths["north_east_atlantic"]["temperature"].sel(time="2012-08").mean(("time", "latitude", "longitude"))
    winter = truths["north_east_atlantic"]["temperature"].sel(time="2012-02").mean(("time", "latitude", "longitude"))
    assert summer[0] > winter[0] + 4
    assert abs(summer.sel(depth=1000) - winter.sel(depth=1000)) < 0.5
    assert summer[0] > summer.sel(depth=100) + 2  # thermocline


def test_observations_lie_in_the_water_of_their_month(tables):
    seen, true = tables
    assert not ocean.is_land(seen["longitude"], seen["latitude"])[(true["duplicate_of"] < 0).to_numpy()].any()
    assert seen["time"].min() >= pd.Timestamp("2010-01-01")
    assert seen["time"].max() < pd.Timestamp("2016-01-01")
    assert true[[f"{name}_true" for name in ocean.VARIABLES]].notna().all().all()


def test_everything_says_that_it_is_synthetic(tables, truths):
    for data in (*tables, *truths.values(), *(ocean.domain(sea) for sea in SEAS)):
        assert data.attrs["synthetic"] == "true"
        assert "not measured" in data.attrs["source"]
        assert data.attrs["licence"] == "CC0-1.0"


def test_an_unknown_sea_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="baltic"):
        ocean.sea("balitc")


class TestSmallScene:
    def test_it_is_the_same_for_the_same_seed_and_another_for_another(self):
        one, same, other = ocean.gridding(), ocean.gridding(), ocean.gridding(seed=1)
        pd.testing.assert_frame_equal(one["inputs"]["observations"], same["inputs"]["observations"])
        assert one["truth"].identical(same["truth"])
        assert not one["truth"].equals(other["truth"])

    def test_it_has_the_declared_size(self):
        scene = ocean.gridding()
        assert len(scene["inputs"]["observations"]) == 600
        assert dict(scene["inputs"]["domain"].sizes) == {"depth": 2, "latitude": 20, "longitude": 24}
        counts = scene["inputs"]["domain"]["mask"].sum(("latitude", "longitude")).values
        assert counts[0] > counts[1] > 200

    def test_good_observations_are_near_the_truth_and_flagged_ones_are_not(self):
        scene = ocean.gridding()
        table, true = scene["inputs"]["observations"], scene["truth"]
        at = {c: xr.DataArray(table[c].to_numpy(float), dims="row") for c in ("depth", "latitude", "longitude")}
        error = table["temperature"] - true["temperature"].sel(at).values
        sd = ocean.SMALL.noise_sd("temperature", table["depth"])
        good = table["temperature_qc"] == 1
        assert (error / sd)[good].std() == pytest.approx(1, abs=0.12)
        assert (error[~good].abs() > 10).all()
        assert 3 < (~good).sum() < 40

    def test_columns_say_their_units(self):
        columns = ocean.gridding()["inputs"]["observations"].attrs["columns"]
        assert columns["temperature"]["units"] == "degree_Celsius"
        assert columns["depth"]["units"] == "m"
