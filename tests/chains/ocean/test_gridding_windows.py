"""ocean.gridding over windows of time: climatologies, windows that slide and windows of a list."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import phidias_lab
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import ParameterError

LON, LAT = np.arange(-12.0, -3.9, 1.0), np.arange(44.0, 50.1, 1.0)
DOMAIN = xr.Dataset(
    {"mask": (("depth", "latitude", "longitude"), np.ones((1, LAT.size, LON.size), np.int8))},
    coords={"depth": [0.0], "latitude": LAT, "longitude": LON},
)


def observations(first="2010-01-01", last="2012-12-31", each=3, seed=3) -> pd.DataFrame:
    """`each` observations a day, whose value is the number of their month."""
    rng = np.random.default_rng(seed)
    time = pd.date_range(first, last).repeat(each)
    places = {"longitude": rng.uniform(LON[0], LON[-1], len(time)), "latitude": rng.uniform(LAT[0], LAT[-1], len(time))}
    table = pd.DataFrame({**places, "depth": 0.0, "time": time})
    table["temperature"] = table["time"].dt.month.astype(float)
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    return table


def grid(table, **parameters):
    return Gridding(**{"error": "none", **parameters})(observations=table, domain=DOMAIN).compute()


def said(result) -> dict:
    return json.loads(result.attrs["phidias_said"])


def test_all_januaries_go_into_one_map_and_no_other_month_does():
    table = observations()
    result = grid(table, windows="climatological_months")
    assert result.sizes["time"] == 12
    for k in range(12):
        np.testing.assert_allclose(result["analysis"].values[k], k + 1.0, atol=1e-9)
    np.testing.assert_array_equal(
        result["observations_used"].values[:, 0], table.groupby(table["time"].dt.month).size().to_numpy()
    )


def test_a_season_of_all_years_is_the_map_of_its_months_alone():
    table = observations(each=1)
    table["temperature"] += np.sin(table["longitude"])
    winter = grid(table, windows="climatological_seasons").isel(time=0)
    alone = table[table["time"].dt.month.isin([12, 1, 2])]
    alone.attrs = table.attrs
    np.testing.assert_allclose(winter["analysis"], grid(alone)["analysis"].isel(time=0), rtol=1e-12)


@pytest.fixture(scope="module")
def products(tmp_path_factory) -> dict:
    """The files of a climatology and of the seasons one by one."""
    folder = tmp_path_factory.mktemp("products")
    inputs = {"observations": observations("2010-01-01", "2011-12-31", each=1), "domain": DOMAIN}
    paths = {}
    for windows in ("climatological_seasons", "seasonal"):
        paths[windows] = folder / f"{windows}.nc"
        asked = {"windows": windows, "period": "2010/2011", "error": "none", "output": str(paths[windows])}
        phidias_lab.run("ocean.gridding", inputs=inputs, **asked).result()
    return paths


def test_a_climatology_says_so_in_the_words_of_the_conventions(products):
    product, plain = (xr.open_dataset(products[name]) for name in ("climatological_seasons", "seasonal"))
    assert product["time"].attrs["climatology"] == "climatology_bounds"
    assert "bounds" not in product["time"].attrs
    bounds = product["climatology_bounds"].values
    assert bounds.dtype.kind == "M"  # a reader that knows nothing of climatologies sees dates too
    assert [str(b)[:10] for b in bounds[0]] == ["2009-12-01", "2012-03-01"]
    assert [str(b)[:10] for b in bounds[2]] == ["2010-06-01", "2011-09-01"]
    assert [str(t)[:10] for t in product["time"].values] == ["2010-01-15", "2010-04-16", "2010-07-17", "2010-10-16"]
    assert product["analysis"].attrs["cell_methods"] == "time: mean within years time: mean over years"
    assert (plain["time"].attrs.get("bounds") or plain["time"].encoding["bounds"]) == "time_bounds"
    assert plain["analysis"].attrs["cell_methods"] == "time: mean"


def cf_findings(path, folder) -> set[str]:
    """What the IOOS compliance checker has against a file, by the CF conventions."""
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    CheckSuite.load_all_available_checkers()
    report = folder / "report.json"
    ComplianceChecker.run_checker(
        str(path), ["cf:1.11"], 0, "normal", output_filename=str(report), output_format="json"
    )
    found = json.loads(report.read_text())["cf:1.11"]
    return {m for level in ("high_priorities", "medium_priorities") for check in found[level] for m in check["msgs"]}


@pytest.mark.filterwarnings("ignore")
def test_the_compliance_checker_finds_no_more_in_a_climatology_than_in_seasons(products, tmp_path):
    plain = cf_findings(products["seasonal"], tmp_path)
    assert cf_findings(products["climatological_seasons"], tmp_path) <= plain
    # The counter-check: it does look at climatologies.
    broken = xr.open_dataset(products["climatological_seasons"], decode_times=False)
    broken["analysis"].attrs["cell_methods"] = "time: mean over years"
    broken["climatology_bounds"] = broken["climatology_bounds"].isel(bounds=0)
    broken.to_netcdf(tmp_path / "broken.nc")
    assert any("limatolog" in finding for finding in cf_findings(tmp_path / "broken.nc", tmp_path) - plain)


def test_windows_that_overlap_count_each_observation_once():
    table = observations("2010-01-01", "2010-12-31", each=1)
    result = grid(table, windows="sliding", window_width=60, window_step=30)
    assert result.sizes["time"] == 11
    counts = said(result)["counts"]["observations"]
    # 11 windows reach 360 days far; the last five days of the year lie in none.
    assert counts["left_out"] == {"in no window": 5}
    assert counts["used"] == 360 < int(result["observations_used"].sum()) == 11 * 60


def test_a_list_of_windows_is_analysed_as_written_and_the_rest_is_counted():
    table = observations("2010-01-01", "2010-12-31", each=1)
    result = grid(table, windows="custom", window_list="2010-02, 2010-06/2010-07")
    np.testing.assert_allclose(result["observations_used"].values[:, 0], [28, 61])
    np.testing.assert_allclose(result["analysis"].values[0], 2.0, atol=1e-9)
    assert said(result)["counts"]["observations"]["left_out"] == {"in no window": 365 - 28 - 61}


def test_the_months_of_a_climatology_that_have_no_observation_are_named():
    table = observations("2010-01-01", "2011-12-31", each=1)
    table = table[table["time"].dt.month != 4]
    result = grid(table, windows="climatological_months", period="2010/2011")
    assert said(result)["warnings"] == ["No observation is used in April of 2010 to 2011: the analysis is empty there."]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"windows": "custom"}, "windows 'custom' and no 'window_list'"),
        ({"window_list": "2010"}, "windows 'whole' and a 'window_list'"),
        ({"windows": "custom", "window_list": "spring"}, "given 'spring' as a window"),
        ({"windows": "sliding", "window_width": 5000}, "the period has 1096"),
    ],
)
def test_windows_that_cannot_be_are_refused_in_a_sentence(parameters, said):
    with pytest.raises(ParameterError, match=said):
        grid(observations(each=1), **parameters)
