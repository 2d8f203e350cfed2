"""ocean.gridding in tiles: equal to the gridding in one, and no finished tile is lost.

The halo is as wide in correlation lengths as a user's, so the domains are some 20 lengths wide and the tiles overlap much.
"""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import phidias_lab
from phidias_lab.chains.ocean import _levels, _tiles
from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods.variational import norm, solvers, tiles

DOMAIN = ("depth", "latitude", "longitude")


def domain(rows=44, columns=64, depth=(10.0,), cyclic=False, step=0.25) -> xr.Dataset:
    """A sea with an island, a coast, a strait, and a corner that is all land."""
    latitude = 30.0 + step * np.arange(rows)
    longitude = np.arange(columns) * 360.0 / columns if cyclic else -20.0 + step * np.arange(columns)
    mask = np.ones((len(depth), rows, columns), np.int8)
    mask[:, 20:30, 18:22] = 0
    strait = columns * 2 // 3
    mask[:, 10:34, strait] = 0
    mask[:, 22, strait] = 1
    mask[:, -14:, -18:] = 0
    if len(depth) > 1:
        mask[-1, :12] = 0  # the last level is shallower than the sea there
    coords = {"depth": list(depth), "latitude": latitude, "longitude": longitude}
    return xr.Dataset({"mask": (DOMAIN, mask)}, coords)


def observations(of: xr.Dataset, number=260, seed=4) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    lat, lon = of["latitude"].values, of["longitude"].values
    table = pd.DataFrame(
        {
            "longitude": rng.uniform(lon[0], lon[-1], number),
            "latitude": rng.uniform(lat[0], lat[-1], number),
            "depth": rng.choice(of["depth"].values, number),
            "time": pd.Timestamp("2010-01-01") + pd.to_timedelta(rng.uniform(0, 58, number), unit="D"),
        }
    )
    table["temperature"] = (
        12 + np.sin(table["longitude"]) + np.cos(table["latitude"]) + 0.1 * rng.standard_normal(number)
    )
    table.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "sea_water_temperature"}}
    return table


def grid(table: pd.DataFrame, of: xr.Dataset, **more) -> xr.Dataset:
    """A gridding; the tiles that it was told to have were made, or none if it was told none."""
    inputs = {name: more.pop(name) for name in ("previous", "currents") if name in more}
    chain, said = Gridding(**{"length": 30e3, **more}), []
    chain.report = lambda _, message="": said.append(message)
    result = chain(observations=table, domain=of, **inputs).compute()
    assert any("tiles agree" in line for line in said) == bool(more.get("tile"))
    return result


def check_equal(table: pd.DataFrame, of: xr.Dataset, tile: int, **more) -> None:
    """In tiles and in one they are equal within 1e-6 of the spread of the field, and of each error."""
    one, many = grid(table, of, **more), grid(table, of, tile=tile, **more)
    assert one.sizes == many.sizes
    assert dict(one.attrs) == dict(many.attrs)
    for name in one.data_vars:
        assert one[name].dtype == many[name].dtype
        there, here = one[name].values, many[name].values
        assert np.array_equal(np.isnan(there), np.isnan(here)), name
        size = np.nanstd(one["analysis"].values) if name.startswith(("analysis", "background_f")) else np.abs(there)
        size = np.abs(there) if name == "analysis_error" else size
        assert np.nanmax(np.abs(here - there) / np.where(size == 0, 1, size)) < 1e-6, name


def test_a_domain_with_coasts_is_the_same_in_tiles():
    check_equal(observations(domain()), domain(), 24)


def test_without_rim_error_and_even_variance_too():
    more = {
        "edge_stretch": 0.0,
        "error": "none",
        "unit_variance": False,
        "windows": "monthly",
        "solver": "multifrontal",
    }
    check_equal(observations(domain()), domain(), 24, **more)


def test_around_the_globe_too():
    of = domain(rows=30, columns=120, cyclic=True, step=1.0)
    table = observations(of, 400)
    table.loc[:9, "longitude"] = np.linspace(357.1, 359.9, 10)  # across the seam
    table.loc[10:19, "longitude"] -= 360.0
    check_equal(table, of, 40, length=100e3)


def test_levels_of_their_own_lengths_and_shapes_too():
    of = domain(depth=(0.0, 10.0, 30.0))
    latitude = of["latitude"]
    of["anisotropy"] = 1 + 0.5 * np.sin(latitude) + 0 * of["longitude"]
    of["length_factor"] = 0.7 + 0.3 * np.cos(of["longitude"]) ** 2 + 0 * latitude
    table = observations(of)
    table = table[table["depth"] != 10.0]  # a level of which nothing is known
    check_equal(table, of, 30, lengths=[20e3, 30e3, 40e3], anisotropy=1.2, background="plane")


def test_levels_that_are_analysed_together_too():
    of = domain(rows=26, columns=40, depth=(0.0, 10.0, 30.0))
    check_equal(observations(of), of, 20, length=22e3, vertical_length=15.0, background="profile")


def test_currents_a_transform_and_an_earlier_field_too():
    of = domain()
    across = 0.1 * np.sin(2 * of["latitude"]) + 0.0 * of["longitude"]
    currents = xr.Dataset(
        {
            f"{way}_sea_water_velocity": across.assign_attrs(standard_name=f"{way}_sea_water_velocity", units="m s-1")
            for way in ("eastward", "northward")
        }
    )
    previous = xr.Dataset({"temperature": (12 + across).assign_attrs(units="degree_Celsius")})
    check_equal(
        observations(of),
        of,
        30,
        advection=2.0,
        error="none",
        currents=currents,
        background="previous",
        previous=previous,
        transform="log",
        transform_bounds=[5.0],
    )


@pytest.mark.parametrize("more", [{"length": 1e3}, {"length": 5e3}, {"anisotropy": 20.0}])
def test_a_length_near_the_spacing_or_below_too(more):
    of = domain()
    check_equal(observations(of, 900), of, 16, noise=1e-3, **more)


def test_an_error_along_currents_is_not_told_in_tiles():
    of = domain()
    currents = xr.Dataset({"u": of["mask"].isel(depth=0) * 1.0})
    with pytest.raises(ParameterError, match="advection 2 d and tile 24; along currents"):
        Gridding(tile=24, advection=2.0)(observations=observations(of), domain=of, currents=currents)


def test_many_observations_of_a_large_grid_are_looked_at_in_parts(monkeypatch):
    of = domain()
    chain, table = Gridding(length=30e3), observations(of)
    plan, group = chain.resolved({"observations": table, "domain": of})._plan(of, of["depth"].values), slice(0, 1)
    mask = of["mask"].values.astype(bool)
    whole = _tiles.usable(plan, group, mask, table)
    monkeypatch.setattr(_tiles, "AT_ONCE", 20)
    assert 0 < whole.sum() < len(table)
    assert np.array_equal(_tiles.usable(plan, group, mask, table), whole)


def test_what_does_not_fit_is_cut_and_the_user_is_told(monkeypatch):
    of = domain()
    table, whole = observations(of), solvers.memory("multifrontal", (46, 66))
    monkeypatch.setattr(solvers, "free_memory", lambda: whole * 1.95)  # two are solved at a time
    chain, said = Gridding(length=12e3), []
    chain.report = lambda _, message="": said.append(message)
    result = chain(observations=table, domain=of).compute()
    assert "3036 nodes are solved in" in said[0]
    assert "tiles of up to" in said[0]
    monkeypatch.undo()
    assert np.nanmax(np.abs(result["analysis"] - grid(table, of, length=12e3)["analysis"])) < 1e-6


def test_what_fits_not_even_in_tiles_is_refused(monkeypatch):
    of = domain()
    monkeypatch.setattr(solvers, "free_memory", lambda: 1e6)
    with pytest.raises(InputError, match=r"3036 nodes, which do not fit .* smallest tile .* Choose a shorter"):
        Gridding(length=30e3)(observations=observations(of), domain=of)


def test_bounds_are_not_kept_in_tiles():
    of = domain()
    with pytest.raises(ParameterError, match="an analysis_range and tile 24"):
        Gridding(tile=24, analysis_range=[0.0, 20.0])(observations=observations(of), domain=of)


def test_a_tile_of_a_few_nodes_is_refused():
    of = domain()
    with pytest.raises(ParameterError, match="'tile' was given 3; a tile has 16 nodes a side at least"):
        Gridding(tile=3)(observations=observations(of), domain=of)


def test_a_run_of_a_large_domain_asks_for_what_its_tiles_take():
    sizes = {"domain": {"latitude": 4000, "longitude": 4000, "depth": 1}}
    parameters = Gridding().parameters

    def asked(**changed):
        return Gridding.resources.grown(sizes, {**parameters, **changed}).memory_bytes / 2**30

    assert asked() == 16
    assert asked(analysis_range=[0.0, 1.0]) > 80
    assert asked(tile=300) == pytest.approx(2 * solvers.memory("multifrontal", (900, 900)) / 2**30)


def test_every_node_lies_in_one_core_and_its_halo_is_as_wide_as_it_should():
    of = domain()
    plan = (
        Gridding(length=30e3).resolved({"observations": observations(of), "domain": of})._plan(of, of["depth"].values)
    )
    tiling = _tiles.cut(plan, 24)
    count, mask = np.zeros((46, 66), int), of["mask"].values > 0
    for row in tiling.tiles:
        for tile in row:
            count[tile.core] += 1
            part = _tiles.part_of(plan, mask, slice(0, 1), tile.outer, (30e3, 30e3))
            assert np.shares_memory(part.mask, mask)  # thousands of tasks hold such parts
            assert _levels.geometry(part.plan, slice(0, 1), part.mask, part_rows(), part.ends)[0][0].shape == tuple(
                one.stop - one.start for one in tile.outer
            )
            for core, window in zip(tile.core, tile.window, strict=True):
                # 30 km are more than a node of 0.25 degrees, so ten of them are more than ten nodes.
                assert window.start == 0 or core.start - window.start >= 11
    assert (count == 1).all()


def part_rows() -> pd.DataFrame:
    return pd.DataFrame({name: np.zeros(0) for name in DOMAIN})


def test_the_halo_leaves_what_its_sentence_says():
    for ndim, halo in tiles.HALO.items():
        order = norm.coefficients(None, ndim).size - 1
        assert 1e-4 < norm.kernel(halo, ndim, order) < 3e-4


def test_what_is_to_come_of_a_linear_convergence():
    errors = 0.01 ** np.arange(4.0)
    changes = -np.diff(errors)
    assert tiles.to_come(changes[1], changes[0]) == pytest.approx(errors[2])
    assert tiles.to_come(0.0, 1.0) == 0
    assert tiles.to_come(1.0, 1.0) == np.inf


# Killed and resumed ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    of = domain()
    of.to_netcdf(tmp_path / "domain.nc")
    table = observations(of)
    table.to_parquet(tmp_path / "observations.parquet")
    return {"observations": str(tmp_path / "observations.parquet"), "domain": str(tmp_path / "domain.nc")}


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.01)


def pieces(run, stage: str) -> dict[str, int]:
    """The finished pieces of a stage and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (run.folder / "work" / stage).glob("piece-*.npz")}


def start(files, **more):
    return phidias_lab.run("ocean.gridding", inputs=files, length=30e3, tile=16, **more)


def test_a_killed_run_goes_on_from_its_finished_tiles_and_gives_the_same_bytes(files):
    run = start(files)
    until(lambda: len(pieces(run, "pass-1")) >= 2 or run.status == "failed")
    assert run.progress.message.endswith("(pass-1)")
    os.kill(run.record["worker"]["pid"], signal.SIGKILL)
    assert run.wait(60) == "interrupted"
    first, second = pieces(run, "variance"), pieces(run, "pass-1")
    assert len(first) == 15
    assert len(second) >= 2
    run.resume()
    until(lambda: pieces(run, "pass-2") or run.status in ("done", "failed"))
    kept = {**pieces(run, "variance"), **pieces(run, "pass-1")}
    assert run.wait(120) == "done", run.log
    if kept:  # a quick machine may have ended before they were looked at
        assert {name: kept[name] for name in second if name not in first} == {
            name: when for name, when in second.items() if name not in first
        }
    assert "finished pieces were found" in run.log
    unbroken = start(files)
    assert unbroken.wait(120) == "done", unbroken.log
    assert run.product.checksums == unbroken.product.checksums


def test_a_worker_of_a_cluster_that_is_killed_costs_no_finished_tile(files, tmp_path, monkeypatch):
    monkeypatch.setenv("PHIDIAS_SITE", str(tmp_path / "site.toml"))
    site = '[clusters.local]\nkind = "local"\nworkers = { default = 2, max = 4 }\nshared_folder = "SHARED"\n'
    (tmp_path / "site.toml").write_text(f'name = "trial"\n{site.replace("SHARED", str(tmp_path))}')
    with phidias_lab.cluster("local", workers=2) as cluster:
        cluster.wait_for_workers(timeout=90)
        run = start(files, on=cluster)
        until(lambda: len(pieces(run, "pass-1")) >= 2 or run.status == "failed")
        processes = [member.process for member in cluster.dask.workers.values()]
        processes[0].kill()
        assert run.wait(180) == "done", run.log
    plain = start(files)
    assert plain.wait(120) == "done", plain.log
    assert run.product.checksums == plain.product.checksums
