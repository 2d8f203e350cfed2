"""The benchmarks run, small: they measure what they say and write what they print."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))  # where a script finds what stands beside it
        spec.loader.exec_module(module)
    return module


def test_gridding_is_compared_with_octave_divand_on_the_same_problem(needs, tmp_path, capsys):
    needs("octave-cli", "octave-divand")
    report = load("ocean_gridding").main(["20x18", "--solvers", "splu", "--results", str(tmp_path)])
    assert json.loads((tmp_path / "ocean_gridding.json").read_text())["results"] == report["results"]
    (result,) = report["results"]
    ours, peer = result["runs"]
    assert (ours["solver"], peer["solver"]) == ("splu", "octave-divand")
    assert ours["difference"] <= 1e-9
    assert ours["times_faster"] == pytest.approx(peer["seconds"] / ours["seconds"])
    assert "20x18" in capsys.readouterr().out


def test_without_octave_divand_the_table_says_that_nothing_was_compared(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    (result,) = load("ocean_gridding").main(["20x18", "--solvers", "splu", "--results", str(tmp_path)])["results"]
    assert [run["solver"] for run in result["runs"]] == ["splu"]
    assert "octave-divand is not installed, so nothing stands beside ours" in capsys.readouterr().out


def test_the_limit_counts_the_operations_of_a_banded_factor_exactly():
    # In one dimension B^-1 reaches two neighbours on either side, and a good order fills nothing in: 3 a column.
    factor = load("ocean_gridding").measure_factor((50,))
    sea = factor["nodes"]
    assert sea == 45
    assert sea <= factor["nnz_l"] <= 3 * sea
    assert 2 * factor["nnz_l"] < factor["operations"] <= 9 * sea
    assert factor["limit_seconds"] == pytest.approx(factor["operations"] / factor["matmul_per_second"])


def test_match_ups_are_compared_with_trees_that_find_the_same(tmp_path, capsys):
    report = load("ocean_match_ups").main(["40000", "--results", str(tmp_path)])
    assert json.loads((tmp_path / "ocean_match_ups.json").read_text())["results"] == report["results"]
    (result,) = report["results"]
    assert [run["program"] for run in result["runs"]] == ["ours", "one tree", "tree per day"]
    assert all(run["same_answer"] for run in result["runs"])
    assert result["match_ups"] > 100
    assert "tree per day" in capsys.readouterr().out


def test_copies_of_a_synthetic_archive_are_found_and_others_are_none(tmp_path, capsys):
    report = load("ocean_duplicates").main(["60000", "--results", str(tmp_path)])
    assert json.loads((tmp_path / "ocean_duplicates.json").read_text())["results"] == report["results"]
    (result,) = report["results"]
    assert result["copies"] > 1000
    assert result["found"] >= 0.99
    assert result["false"] <= 0.001
    assert "found %" in capsys.readouterr().out


def test_estimates_are_counted_by_whether_they_hold_the_truth(tmp_path, capsys):
    report = load("ocean_parameters").main(["--seeds", "2", "--months", "--results", str(tmp_path)])
    assert json.loads((tmp_path / "ocean_parameters.json").read_text())["coverage"] == report["coverage"]
    assert [row["method"] for row in report["coverage"]] == ["likelihood", "cross-validation", "covariance"]
    likelihood = report["coverage"][0]
    assert (likelihood["decided"], likelihood["length_held"], likelihood["noise_held"]) == (2, 2, 1), (
        "seed 1: 0.06 to 0.3"
    )
    assert report["calibration"] is None
    assert "cross-validation" in capsys.readouterr().out


def test_errors_at_observations_that_were_held_back_are_as_large_as_was_claimed():
    """Of some 300 observations of the small scene: a variance is known to 8 % then, so within 0.8 and 1.2 with 98 %."""
    from phidias_lab.testing.scenes import ocean

    inputs = ocean.gridding()["inputs"]
    table = inputs["observations"]
    good = table[(table["depth"] == 0) & (table["temperature_qc"] == 1)].reset_index(drop=True)
    good.attrs = table.attrs
    found = load("ocean_parameters").held_back(good, inputs["domain"], 3, variable="temperature", depths=[0])
    assert found.size > 280
    assert 0.8 < (found**2).mean() < 1.2
    assert abs(found.mean()) < 0.15


def test_reading_spectra_is_compared_with_inflating_them_alone(tmp_path, capsys):
    report = load("atmosphere_reading").main(["3", "--repeat", "1", "--results", str(tmp_path)])
    assert json.loads((tmp_path / "atmosphere_reading.json").read_text())["results"] == report["results"]
    assert [(r["encoding"], r["program"], r["scanlines"]) for r in report["results"]] == [
        (encoding, program, 3)
        for encoding in ("float", "integer")
        for program in ("NetCDF, inflating only", "1 thread", "2 threads")
    ]
    for peer, *ours in (report["results"][:3], report["results"][3:]):
        assert [run["times_faster"] for run in ours] == [
            pytest.approx(peer["seconds"] / run["seconds"]) for run in ours
        ]
    assert "spectra/s" in capsys.readouterr().out


def test_components_and_scores_are_compared_with_scikit_learn_and_the_machines_limits(monkeypatch, tmp_path, capsys):
    benchmark = load("atmosphere_screening")
    monkeypatch.setattr(benchmark, "SCORED", (10, 40))
    report = benchmark.main(["6000x64", "--repeats", "1", "--results", str(tmp_path)])
    assert json.loads((tmp_path / "atmosphere_screening.json").read_text())["results"] == report["results"]
    (result,) = report["results"]
    learning = {run["program"]: run for run in result["learning"]}
    assert list(learning) == ["ours", "bare product", *benchmark.SOLVERS]
    assert learning["ours"]["eigenvalue_error"] < learning["covariance_eigh"]["eigenvalue_error"] < 1e-3
    assert learning["ours"]["angle"] < 1e-4
    assert learning["full"]["eigenvalue_error"] < 1e-4
    for components, scoring in zip((10, 40), result["scoring"], strict=True):
        basis = 64 * (2 * components + 8)
        bytes_read = 4 * (64 + basis / (6000 // 215))
        roof = min(scoring["product_gflops"] * 1e9 / (2 * basis), scoring["read_gb_per_second"] * 1e9 / bytes_read)
        assert scoring["share_of_roof"] == pytest.approx(scoring["spectra_per_second"] / roof)
        assert scoring["times_faster_than_scikit_learn"] > 0
        assert scoring["difference"] < 2e-3
    assert "scikit-learn/ours" in capsys.readouterr().out


def test_without_scikit_learn_the_table_says_that_nothing_was_compared(monkeypatch, tmp_path, capsys):
    benchmark = load("atmosphere_screening")
    found = benchmark.importlib.util.find_spec
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None if name == "sklearn" else found(name))
    monkeypatch.setattr(benchmark, "SCORED", ())
    (result,) = benchmark.main(["6000x64", "--repeats", "1", "--results", str(tmp_path)])["results"]
    assert [run["program"] for run in result["learning"]] == ["ours", "bare product"]
    assert "scikit-learn is not installed, so nothing stands beside ours" in capsys.readouterr().out
