"""Scores of blocks are those of the formulas in double precision, spectrum by spectrum, with and without gaps."""

from __future__ import annotations

import copy
import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.interpolate import BSpline

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import pca, scoring, screening

M = 96
GRID = np.linspace(2305.0, 2314.5, M)
MASKS = {"blue": GRID < 2308, "middle": np.abs(GRID - 2310) < 1.2, "two parts": (GRID < 2306) | (GRID > 2313.5)}


def lines(at: np.ndarray, seed: int, number: int = 12, width: float = 0.35) -> np.ndarray:
    """A synthetic absorption spectrum, smooth at the sampling of the grid."""
    random = np.random.default_rng(seed)
    places, strengths = random.uniform(2304, 2316, number), random.gamma(1.0, 1.0, number)
    return np.exp(-0.5 * ((np.asarray(at)[..., None] - places) / width) ** 2) @ strengths


def truth(at: np.ndarray = GRID) -> dict[str, np.ndarray]:
    """Mean, noise, usual directions and gases at some wavelengths, in units of y."""
    x = (np.asarray(at) - 2310) / 5
    usual = [0.05 * lines(at, 1), 0.03 * np.sin(2 * x), 0.02 * x**2, 0.02 * lines(at, 2) * x]
    return {
        "mean": -0.3 * lines(at, 3),
        "noise": 0.01 * (1 + 0.3 * x + 0.1 * x**2),
        "usual": np.stack(usual, axis=-1),
        "gases": np.stack([-0.2 * lines(at, 4), -0.05 * lines(at, 5)], axis=-1),
    }


NATURAL = (0.15, 0.05)


def draw(shape: tuple[int, ...], at: np.ndarray = GRID, seed: int = 0, gas: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Synthetic spectra y of given wavelengths, which broadcast against the shape."""
    random = np.random.default_rng(seed)
    here = truth(at)
    y = here["mean"] + np.einsum("...mk,...k->...m", here["usual"], random.standard_normal((*shape, 4)))
    amounts = np.array(gas) + np.array(NATURAL) * random.standard_normal((*shape, 2))
    y += np.einsum("...mk,...k->...m", here["gases"], amounts)
    return (y + here["noise"] * random.standard_normal((*shape, np.shape(at)[-1]))).astype(np.float32)


@pytest.fixture(scope="module")
def basis() -> screening.Basis:
    return learnt()


def learnt(number: int | None = 5, **given) -> screening.Basis:
    here = truth()
    moments = pca.Moments(M).add(draw((30_000,), seed=1))
    gases = dict(zip(("CO", "CH4"), here["gases"].T, strict=True))
    return screening.learn(moments, GRID, here["noise"], number, gases, MASKS, **given)


# The formulas, in double precision and one spectrum at a time -----------------------------------------------------------


def at_row(basis: screening.Basis, wavelength: np.ndarray) -> screening.Basis:
    """The basis on other wavelengths, by the interpolating polynomials of pieces: a spline of another kind of code."""
    knots = np.r_[[GRID[0]] * 8, GRID[4:-4], [GRID[-1]] * 8]

    def basis_splines(x):
        x = np.clip(x, GRID[0], GRID[-1])
        return BSpline.design_matrix(x, knots, 7).toarray()

    def smooth(values):
        return basis_splines(wavelength) @ np.linalg.solve(basis_splines(basis.wavelength), values)

    nearest = np.abs(wavelength[:, None] - basis.wavelength).argmin(axis=1)
    arrays = {name: np.interp(wavelength, GRID, getattr(basis, name)) for name in ("noise", "white")}
    arrays["mean"] = np.where((wavelength >= GRID[0]) & (wavelength <= GRID[-1]), smooth(basis.mean), np.nan)
    for name in ("shapes", "signatures", "factors"):
        arrays[name] = smooth(getattr(basis, name) * basis.noise[:, None]) / arrays["noise"][:, None]
    return dataclasses.replace(basis, wavelength=wavelength, channels=basis.channels[nearest], **arrays)


def dense(basis: screening.Basis, y: np.ndarray) -> dict[str, np.ndarray]:
    """All scores of one spectrum with NaN where a channel is missing."""
    o = np.isfinite(y - basis.mean)
    x = ((y - basis.mean) / basis.noise)[o]
    f, kernels = basis.shapes[o], basis.signatures[o]
    k, g = f.shape[1], kernels.shape[1]
    design = np.column_stack([f, kernels])
    fit = np.linalg.solve(design.T @ design, design.T @ x)
    r = x - f @ fit[:k]
    covariance = basis.factors[o] @ basis.factors[o].T + np.diag(basis.white[o])
    inverse = np.linalg.inv(covariance)
    normal = np.linalg.inv(kernels.T @ inverse @ kernels)
    by_s = normal @ kernels.T @ inverse @ x
    left = x - design @ np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ x)
    # Expected squares of r where every channel is there, less those that are missing.
    whole = np.column_stack([basis.shapes, basis.signatures])
    take = np.eye(len(y)) - basis.shapes @ np.linalg.solve(whole.T @ whole, whole.T)[:k]
    expected = np.diag(take @ (basis.factors @ basis.factors.T + np.diag(basis.white)) @ take.T)
    residual = np.full(len(y), np.nan)
    residual[o] = r
    in_window = basis.channels & o[:, None]
    deviation = np.sqrt(np.diag(normal))
    return {
        "reconstruction": np.sqrt(r @ r / (o.sum() - k)),
        "hotelling": np.sum(fit[:k] ** 2 / basis.values),
        "unexplained": np.sqrt(np.sum((r - kernels @ fit[k:]) ** 2) / (o.sum() - k - g)),
        "windows": np.sqrt(np.nansum(in_window.T * residual**2, axis=1) / (in_window.T @ expected)),
        "amplitude": by_s,
        "snr": by_s / deviation,
        "cosine": kernels.T @ r / np.linalg.norm(kernels, axis=0) / np.linalg.norm(r),
        "components": fit[:k],
        "missing": (~o).sum(),
        "residual": residual,
        "deviation": deviation,
        "chi2": left @ inverse @ left,
        "freedom": o.sum() - k - g,
    }


NAMES = screening.Scores._fields
#: Single precision: leading scores are near 100, and what is unexplained is a hundredth of what is explained.
ATOL = {"components": 3e-4, "unexplained": 3e-4}


def same(found: screening.Scores, line: int, row: int, wanted: dict, tolerance: float = 1e-4) -> None:
    for name in NAMES:
        np.testing.assert_allclose(
            getattr(found, name)[line, row], wanted[name], rtol=tolerance, atol=ATOL.get(name, 1e-4), err_msg=name
        )


def smile(rows: int) -> np.ndarray:
    return GRID + 0.05 * np.linspace(-1, 1, rows)[:, None] ** 2 + 0.01


@pytest.mark.parametrize("shape", [(5, 3), (130, 2), (1, 1)])
def test_scores_on_one_grid_are_those_of_the_formulas(basis, shape):
    y = draw(shape, seed=2, gas=(1.0, 0.5))
    found, _ = screening.Scorer(basis).score(y)
    for line in range(0, shape[0], 13):
        for row in range(shape[1]):
            same(found, line, row, dense(basis, y[line, row].astype(float)))
    assert found.windows.shape == (*shape, 3)
    assert found.snr.shape == found.cosine.shape == (*shape, 2)


def test_scores_on_the_grids_of_rows_are_those_of_a_basis_on_each(basis):
    wavelength = smile(4)
    y = draw((70, 4), wavelength, seed=3, gas=(0.5, 0))
    found, _ = screening.Scorer(basis, wavelength).score(y)
    for row in range(4):
        here = at_row(basis, wavelength[row])
        for line in (0, 20, 64, 69):
            same(found, line, row, dense(here, y[line, row].astype(float)))


def test_a_basis_on_a_rows_grid_says_what_interpolated_spectra_say(basis):
    """Lines as wide as 3.5 samples (standard deviation) are known in between, so spectra without noise, of 5 to 30 noise
    units, give equal scores within some hundredths. The fifth component is noise, and has no values in between."""
    wavelength = smile(3)
    here, there = truth(wavelength), truth(GRID)
    random = np.random.default_rng(4)
    amounts, gas = random.standard_normal((40, 3, 4)), 1 + random.random((40, 3, 2))

    def clear(at):
        return (
            at["mean"]
            + np.einsum("...mk,...k->...m", at["usual"], amounts)
            + np.einsum("...mk,...k->...m", at["gases"], gas)
        )

    exact, moved = clear(there), clear(here)
    interpolated = np.stack([screening.curve(wavelength[r], moved[:, r], axis=1)(GRID) for r in range(3)], axis=1)
    assert np.abs(interpolated - exact)[..., 2:-2].max() < 0.02 * there["noise"].min()
    on_rows, _ = screening.Scorer(basis, wavelength).score(moved.astype(np.float32))
    on_grid, _ = screening.Scorer(basis).score(exact.astype(np.float32))
    np.testing.assert_allclose(on_rows.components[..., :4], on_grid.components[..., :4], atol=0.1)
    np.testing.assert_allclose(on_rows.amplitude, on_grid.amplitude, atol=0.02)
    # Rows do not have all the channels of the grid.
    np.testing.assert_allclose(on_rows.reconstruction, on_grid.reconstruction, rtol=0.02)


def with_gaps(y: np.ndarray, seed: int = 5) -> np.ndarray:
    """A third of the spectra lack some channels, one lacks a run of thirty; infinities count as missing."""
    random = np.random.default_rng(seed)
    y = y.copy()
    flat = y.reshape(-1, y.shape[-1])
    for i in random.permutation(len(flat))[: len(flat) // 3]:
        flat[i, random.permutation(y.shape[-1])[: random.integers(1, 12)]] = np.nan
    flat[1, 20:50] = np.nan
    flat[2, 7] = np.inf
    return y


@pytest.mark.parametrize("per_row", [False, True])
def test_missing_channels_equal_the_formulas_over_the_others(basis, per_row):
    wavelength = smile(3) if per_row else None
    y = with_gaps(draw((80, 3), smile(3) if per_row else GRID, seed=6, gas=(1, 0)))
    found, _ = screening.Scorer(basis, wavelength).score(y)
    y[~np.isfinite(y)] = np.nan
    assert np.isnan(y).any(axis=2).sum() > 70
    for line in range(80):
        for row in range(3):
            here = at_row(basis, wavelength[row]) if per_row else basis
            same(found, line, row, dense(here, y[line, row].astype(float)), 3e-4)


@pytest.mark.parametrize("per_row", [False, True])
def test_a_dead_channel_counts_for_nothing_whatever_it_says(basis, per_row):
    rows = 3 if per_row else 1
    dead = np.random.default_rng(7).random((rows, M)) < 0.05
    wavelength = smile(3) if per_row else GRID[None]
    y = with_gaps(draw((50, rows), wavelength, seed=8, gas=(1, 0)))
    y[:, dead] = 1e6
    y[::2, dead] = np.nan
    found, extrema = screening.Scorer(basis, wavelength, dead).score(y)
    y[~np.isfinite(y)] = np.nan
    y[:, dead] = np.nan
    for line in range(50):
        for row in range(rows):
            here = at_row(basis, wavelength[row])
            wanted = dense(here, y[line, row].astype(float))
            # What a window is expected to have follows from the channels of the row.
            alive = ~dead[row]
            part = dataclasses.replace(
                here,
                **{
                    name: getattr(here, name)[alive]
                    for name in ("mean", "noise", "shapes", "signatures", "factors", "white")
                },
                channels=here.channels[alive],
            )
            wanted["windows"] = dense(part, y[line, row, alive].astype(float))["windows"]
            same(found, line, row, wanted, 3e-4)
    never = dead.all(axis=0)
    assert np.isnan(extrema.high[never]).all()
    assert (extrema.low_at[never] == -1).all()
    assert never.any() != per_row


def test_missing_channels_give_the_conditional_expectation_of_the_scores(basis):
    """With a wide prior for all scores and none for noise, it is the regression of the scores on the others."""
    y = draw((1, 1), seed=9)
    y[0, 0, 30:40] = np.nan
    found, _ = screening.Scorer(basis).score(y)
    o = np.isfinite(y[0, 0])
    design = np.column_stack([basis.shapes, basis.signatures])
    prior = 1e8 * np.eye(design.shape[1])
    inner = design[o] @ prior @ design[o].T + np.eye(o.sum())
    x = ((y[0, 0] - basis.mean) / basis.noise)[o]
    expected = prior @ design[o].T @ np.linalg.solve(inner, x)
    np.testing.assert_allclose(found.components[0, 0], expected[: basis.shapes.shape[1]], atol=2e-3)


def test_spectra_without_enough_channels_are_not_judged_and_say_nothing_of_others(basis):
    y = draw((40, 2), seed=10)
    whole, extrema = screening.Scorer(basis).score(y)
    holed = y.copy()
    holed[3, 1] = np.nan
    holed[20, 0, : M // 2 + 1] = np.nan
    found, _ = screening.Scorer(basis).score(holed)
    for name in NAMES[:-1]:
        values = getattr(found, name)
        assert np.isnan(values[3, 1]).all()
        assert np.isnan(values[20, 0]).all()
        others = np.ones((40, 2), bool)
        others[[3, 20], [1, 0]] = False
        np.testing.assert_allclose(values[others], getattr(whole, name)[others], rtol=1e-5, atol=1e-5)
    assert found.missing[3, 1] == M
    assert np.isfinite(extrema.high).all()


def test_a_row_without_enough_channels_is_not_judged_and_the_rest_is(basis):
    dead = np.zeros((3, M), bool)
    dead[1, : M - 5] = True
    y = draw((20, 3), smile(3), seed=11)
    found, extrema = screening.Scorer(basis, smile(3), dead).score(y)
    assert np.isnan(found.reconstruction[:, 1]).all()
    assert np.isfinite(found.reconstruction[:, [0, 2]]).all()
    assert not set(extrema.high_at % 3) & {1}


def test_channels_beyond_the_basis_are_left_out(basis):
    wavelength = GRID + np.array([[0.0], [0.35]])
    found, _ = screening.Scorer(basis, wavelength).score(draw((5, 2), wavelength, seed=12))
    np.testing.assert_array_equal(found.missing, np.tile([0, 4], (5, 1)))


# Extrema ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(37, 5), (100, 3), (1, 4), (16, 1), (129, 2)])
@pytest.mark.parametrize("per_row", [False, True])
def test_extrema_are_those_that_a_search_of_all_residuals_finds(basis, shape, per_row):
    wavelength = np.tile(GRID, (shape[1], 1)) if per_row else None
    y = draw(shape, seed=13)
    y = with_gaps(y) if y.size > 10 * M else y
    found, extrema = screening.Scorer(basis, wavelength).score(y)
    residual = np.full(y.shape, np.nan)
    for line, row in np.ndindex(shape):
        spectrum = np.where(np.isfinite(y[line, row]), y[line, row], np.nan)
        residual[line, row] = dense(basis, spectrum.astype(float))["residual"]
    residual = residual.reshape(-1, M)
    for best, at, fill, sign in (
        (extrema.high, extrema.high_at, -np.inf, 1),
        (extrema.low, extrema.low_at, np.inf, -1),
    ):
        searched = np.where(np.isnan(residual), fill, residual)
        if len(residual) > 10:
            np.testing.assert_array_equal(at, (sign * searched).argmax(axis=0))
        some = at >= 0
        np.testing.assert_allclose(best[some], searched[at[some], np.flatnonzero(some)], rtol=1e-3, atol=1e-3)
        assert np.isnan(best[~some]).all()
    assert found.missing.sum() == (~np.isfinite(y)).sum()


def test_how_many_threads_work_changes_nothing(basis):
    y = with_gaps(draw((150, 7), smile(7), seed=14))
    scorer = screening.Scorer(basis, smile(7))
    one, four = scorer.score(y, cores=1), scorer.score(y, cores=4)
    for a, b in zip(one, four, strict=True):
        for name, values in a._asdict().items():
            np.testing.assert_array_equal(values, getattr(b, name), err_msg=name)


@pytest.mark.parametrize("channels", [23, 48, 49, 95])
def test_any_number_of_channels_will_do_and_gaps_stay_in_their_spectra(channels):
    """Spectra fill vectors and tiles or do not, and a spectrum with gaps stands among whole ones."""
    grid = GRID[:channels]
    here = truth(grid)
    moments = pca.Moments(channels).add(draw((5000,), grid, seed=1))
    gases = dict(zip(("CO", "CH4"), here["gases"].T, strict=True))
    masks = {"odd": np.arange(channels) % 2 == 1, "last": np.arange(channels) >= channels - 3}
    found = screening.learn(moments, grid, here["noise"], 4, gases, masks)
    y = draw((29, 2), grid, seed=27)
    y[[0, 9, 17], 0, 5], y[12, 1, channels - 1] = np.nan, np.inf
    scores, extrema = screening.Scorer(found).score(y)
    y[~np.isfinite(y)] = np.nan
    wanted = {place: dense(found, y[place].astype(float)) for place in np.ndindex(29, 2)}
    for place, one in wanted.items():
        same(scores, *place, one, 1e-3)
    residual = np.array([one["residual"] for one in wanted.values()])
    np.testing.assert_array_equal(extrema.high_at, np.nanargmax(residual, axis=0))
    np.testing.assert_array_equal(extrema.low_at, np.nanargmin(residual, axis=0))
    np.testing.assert_allclose(extrema.low, np.nanmin(residual, axis=0), atol=1e-3)


def test_a_missing_channel_is_no_extreme_even_where_all_others_are_to_one_side(basis):
    y = draw((30, 2), seed=28)
    y[..., 40] += 1
    y[..., 41] -= 1
    y[3:9, :, 40:42] = np.nan
    y[9] = np.nan
    dead = np.zeros((2, M), bool)
    dead[1, 40:42] = True
    found, extrema = screening.Scorer(basis, np.tile(GRID, (2, 1)), dead).score(y)
    alone = np.array([dense(basis, one.astype(float))["residual"] for one in np.delete(y, 9, 0)[:, 0]])
    assert extrema.low[40] == pytest.approx(np.nanmin(alone[:, 40]), rel=1e-3)
    assert extrema.high[41] == pytest.approx(np.nanmax(alone[:, 41]), rel=1e-3)
    assert extrema.low[40] > 1
    assert extrema.high[41] < -1
    np.testing.assert_array_equal(found.missing[[0, 3, 9]], [[0, 2], [2, 2], [M, M]])


def test_threads_of_the_caller_do_not_disturb_each_other(basis):
    scorer = screening.Scorer(basis, smile(7))
    blocks = [draw((900, 7), smile(7), seed=seed) for seed in range(30, 34)] * 4
    alone = [scorer.score(block, cores=1) for block in blocks]
    with ThreadPoolExecutor(4) as executor:
        together = list(executor.map(lambda block: scorer.score(block, cores=1), blocks))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rows", [1, 4])
def test_spectra_may_lie_in_any_order_or_be_read_only_and_nothing_is_compiled_again(basis, rows):
    scorer = screening.Scorer(basis, None if rows == 1 else smile(rows))
    y = with_gaps(draw((20, 4), smile(4), seed=29))
    whole = scorer.score(y)
    turned = np.asfortranarray(y)
    y.flags.writeable = False
    for given, by in ((y, scorer), (turned, scorer), (y, copy.deepcopy(scorer))):
        for a, b in zip([*whole[0], *whole[1]], [*by.score(given)[0], *by.score(given)[1]], strict=True):
            np.testing.assert_array_equal(a, b)
    assert [len(loop.signatures) for loop in (scoring.whole, scoring.gapped)] == [1, 1]


def test_loops_that_cannot_be_kept_on_disk_are_compiled_all_the_same():
    scope = {}
    exec("def more(number):\n    return number + 1", scope)  # has no file, beside which a folder could be
    assert scoring._compiled(scope["more"])(1) == 2


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_no_spectra_have_no_scores_and_no_extrema(basis, shape):
    found, extrema = screening.Scorer(basis).score(np.empty((*shape, M), np.float32))
    assert found.snr.shape == (*shape, 2)
    assert np.isnan(extrema.high).all()


@pytest.mark.parametrize("per_row", [False, True])
def test_a_basis_may_have_neither_windows_nor_gases(per_row):
    bare = screening.learn(pca.Moments(M).add(draw((5000,), seed=1)), GRID, truth()["noise"], 6, constant=False)
    y = with_gaps(draw((70, 2), seed=26))
    found, _ = screening.Scorer(bare, np.tile(GRID, (2, 1)) if per_row else None).score(y)
    assert found.windows.shape == found.snr.shape == (70, 2, 0)
    wanted = dense(bare, np.where(np.isfinite(y[9, 1]), y[9, 1], np.nan).astype(float))
    assert found.reconstruction[9, 1] == pytest.approx(wanted["reconstruction"], rel=1e-4)
    np.testing.assert_allclose(found.unexplained, found.reconstruction, rtol=1e-5)


def test_an_error_in_one_thread_ends_the_work(basis, monkeypatch):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(screening._Work, "_gapped", broken)
    with pytest.raises(MemoryError):
        screening.Scorer(basis).score(np.full((3000, 10, M), np.nan), cores=1)


# What the numbers mean --------------------------------------------------------------------------------------------------


def test_snr_has_unit_variance_on_usual_spectra_with_and_without_gaps(basis):
    y = draw((3000, 4), seed=15)
    scorer = screening.Scorer(basis)
    for spectra in (y, with_gaps(y[:1500])):
        snr = scorer.score(spectra)[0].snr
        share = 4 / math.sqrt(2 * spectra.shape[0] * spectra.shape[1])
        np.testing.assert_allclose(snr.reshape(-1, 2).var(axis=0), 1, atol=share)
        np.testing.assert_allclose(snr.reshape(-1, 2).mean(axis=0), 0, atol=0.05)


def test_the_amplitude_is_the_amount_of_gas(basis):
    found, _ = screening.Scorer(basis).score(draw((2000, 2), seed=16, gas=(1.0, -0.5)))
    np.testing.assert_allclose(found.amplitude.reshape(-1, 2).mean(axis=0), [1.0, -0.5], atol=0.02)
    assert (found.cosine[..., 0] > 0.2).mean() > 0.9


def test_usual_spectra_have_reconstruction_and_window_scores_of_one(basis):
    found, _ = screening.Scorer(basis).score(draw((3000, 2), seed=17))
    assert np.mean(found.unexplained**2) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose((found.windows**2).reshape(-1, 3).mean(axis=0), 1, atol=0.05)
    assert found.hotelling.mean() == pytest.approx(5, rel=0.05)


def test_what_an_unknown_gas_does_is_unexplained_and_what_a_known_one_does_is_not(basis):
    usual = draw((500, 1), seed=18)
    scorer = screening.Scorer(basis)
    known, unknown = usual + 3 * truth()["gases"][:, 0], usual - 0.1 * lines(GRID, 6).astype(np.float32)
    levels = [np.median(scorer.score(y.astype(np.float32))[0].unexplained) for y in (usual, known, unknown)]
    assert levels[1] == pytest.approx(levels[0], rel=1e-3)
    assert levels[2] > 1.5 * levels[0]
    assert np.median(scorer.score(known.astype(np.float32))[0].reconstruction) > 2


@pytest.mark.parametrize("per_row", [False, True])
def test_an_examination_has_residual_and_chi_square_of_the_formulas(basis, per_row):
    wavelength = smile(3) if per_row else None
    y = with_gaps(draw((30, 3), smile(3) if per_row else GRID, seed=19, gas=(1, 0)))
    y[4, 1] = np.nan
    row = np.tile(np.arange(3), 30)
    found = screening.Scorer(basis, wavelength).examine(y.reshape(-1, M), row)
    y = np.where(np.isfinite(y), y, np.nan).reshape(-1, M)
    for i in np.flatnonzero(np.isfinite(y).any(axis=1)):
        wanted = dense(at_row(basis, wavelength[row[i]]) if per_row else basis, y[i].astype(float))
        np.testing.assert_allclose(found.residual[i], wanted["residual"], atol=2e-4)
        for name in ("amplitude", "deviation", "chi2", "freedom"):
            np.testing.assert_allclose(getattr(found, name)[i], wanted[name], rtol=2e-4, atol=1e-4, err_msg=name)
    assert np.isnan(found.chi2[13])
    assert np.isnan(found.residual[13]).all()


def test_chi_square_of_usual_spectra_is_its_degrees_of_freedom(basis):
    y = draw((2000,), seed=20)
    found = screening.Scorer(basis).examine(y, np.zeros(2000, int))
    share = found.chi2 / found.freedom
    assert share.mean() == pytest.approx(1, abs=0.02)
    assert share.var() * found.freedom[0] / 2 == pytest.approx(1, abs=0.15)


# Learning ---------------------------------------------------------------------------------------------------------------


def auc(null: np.ndarray, event: np.ndarray) -> float:
    rank = np.argsort(np.argsort(np.concatenate([null, event])))
    return (rank[len(null) :].mean() - rank[: len(null)].mean()) / len(rank) + 0.5


def test_gas_stays_visible_for_any_number_of_components_and_a_naive_choice_turns_blind():
    here = truth()
    noise = here["noise"]
    null, event = draw((2000, 1), seed=21), draw((2000, 1), seed=22, gas=(0.25, 0))
    moments = pca.Moments(M).add(draw((30_000,), seed=1))
    usual = np.column_stack([here["usual"], here["gases"] * NATURAL]) / noise[:, None]
    signature = here["gases"][:, 0] / noise
    matched = np.linalg.solve(usual @ usual.T + np.eye(M), signature)
    ideal = auc((null / noise)[:, 0] @ matched, (event / noise)[:, 0] @ matched)
    assert 0.8 < ideal < 0.9
    naive = pca.components(moments.covariance / np.outer(noise, noise)).vectors
    for number in (3, 5, 8, 20, 60):
        scorer = screening.Scorer(learnt(number, constant=False))
        found = [scorer.score(y)[0].snr[..., 0].ravel() for y in (null, event)]
        assert auc(*found) == pytest.approx(ideal, abs=0.012), number
        e = naive[:, :number]
        target = signature - e @ (e.T @ signature)
        blind = auc((null / noise)[:, 0] @ target, (event / noise)[:, 0] @ target)
        if number >= 8:
            assert blind < 0.6, number


def test_the_number_of_components_is_that_above_the_noise_and_none_of_the_gases():
    found = learnt(None)
    assert found.shapes.shape[1] == 4 + 1  # and the constant
    assert found.values[-1] == np.inf
    assert found.gases == ("CO", "CH4")
    assert found.windows == tuple(MASKS)
    assert found.spectra == 30_000


def test_what_is_left_has_the_variance_that_spectra_show(basis):
    """The model's variance of every channel's residual is that of spectra that were not learnt from."""
    y = draw((8000, 1), seed=23)
    residual = screening.Scorer(learnt(constant=False)).examine(y[:, 0], np.zeros(8000, int)).residual
    found = learnt(constant=False)
    design = np.column_stack([found.shapes, found.signatures])
    take = np.eye(M) - found.shapes @ np.linalg.solve(design.T @ design, design.T)[: found.shapes.shape[1]]
    model = take @ (found.factors @ found.factors.T + np.diag(found.white)) @ take.T
    np.testing.assert_allclose(residual.var(axis=0), np.diag(model), rtol=0.08)


def test_a_shift_of_all_channels_changes_nothing_where_the_basis_has_a_constant(basis):
    y = draw((10, 1), seed=24)
    one, other = (screening.Scorer(basis).score(spectra)[0] for spectra in (y, y + np.float32(0.05)))
    np.testing.assert_allclose(one.snr, other.snr, atol=1e-3)
    np.testing.assert_allclose(one.reconstruction, other.reconstruction, rtol=1e-3)
    np.testing.assert_allclose(one.hotelling, other.hotelling, rtol=2e-3)


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (
            lambda b: screening.Scorer(b).score(np.zeros((3, 4, 90))),
            InputError,
            r"\(3, 4, 90\).*1 rows and 96 channels",
        ),
        (lambda b: screening.Scorer(b, smile(3)).score(np.zeros((3, 4, M))), InputError, "3 rows and 96 channels"),
        (lambda b: screening.Scorer(b, smile(3), np.zeros(M)), InputError, r"Dead channels of shape \(1, 96\)"),
        (lambda b: learnt(95), ParameterError, "95 components were asked for of 96 channels"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(basis, act, error, sentence):
    with pytest.raises(error, match=sentence):
        act(basis)


# Spectra ----------------------------------------------------------------------------------------------------------------


def test_reflectance_of_a_white_surface_is_one():
    # Radiance of a Lambertian surface that reflects all: E0 cos(theta) / (pi d^2).
    irradiance = np.full((1, 3, 5), 2.0)
    zenith, distance = np.array([[0.0, 60.0, 75.0]]), 0.983
    radiance = irradiance * np.cos(np.deg2rad(zenith))[..., None] / np.pi / distance**2
    found = screening.reflectance(radiance.astype(np.float32), irradiance.astype(np.float32), distance, zenith)
    np.testing.assert_allclose(found, 1, rtol=1e-6)
    assert found.dtype == np.float32
