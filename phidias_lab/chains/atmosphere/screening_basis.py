"""atmosphere.screening_basis: what spectra usually look like, and how often they look otherwise."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import median_filter
from scipy.stats import norm

from phidias_lab.chains.atmosphere import _scoring, _spectra
from phidias_lab.chains.atmosphere._basis import BESIDE, COMBINED, Learnt, detected, to_dataset
from phidias_lab.chains.atmosphere._spectra import SPECTRA, Level, Strata
from phidias_lab.contract import Chain, Input, Resources, Var, choice, count, number, text
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods import alarms, pca, screening, spectroscopy, strata
from phidias_lab.methods.reservoir import Coverage, Reservoir

#: Spectra of the learning set are spread over these classes: latitude and the Sun's zenith angle in degrees.
_LATITUDES, _ZENITHS = (-90.0, -30.0, 30.0, 90.0), (0.0, 40.0, 60.0, 90.0)
#: Spectra that are added, or scored, at once.
_AT_ONCE = 20_000
#: With fewer spectra than channels times this a covariance is too uncertain.
_LEAST = 5
#: How often unusual spectra are taken out and the noise is estimated anew.
_ROUNDS = 3
#: Fewer spectra of a row tell nothing of what it adds to the mean.
_ENOUGH = 50
#: A channel of a row that stands out alone in a larger share of its spectra, and ten times as often as most of the row's do,
#: flickers, and is taken for dead.
_FLICKERS = 0.01
#: The noise of a channel is half of the median of so many around it at least.
_NEIGHBOURS = 15
#: Pixels of so many lines and rows depend on each other: they are the clusters of the thresholds' intervals.
_TOGETHER = 10
_PIXEL = ("scanline", "ground_pixel")


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    spectra = sizes.get("spectra", {})
    return {"memory": 2**30 + 16 * parameters["learning_size"] * spectra.get("spectral_channel", 480)}


class ScreeningBasis(Chain):
    """Learn what the spectra of an instrument usually look like.

    A learning set is drawn from all parts of the data alike, principal components are found that hide none of the gases that
    are looked for, unusual spectra are taken out of the set and the components found again. Then all spectra are scored, and
    for each kind of pixel it is learnt how often a clean one has which score. The result is what atmosphere.screening needs.
    """

    title = "Basis for the screening of spectra"
    version = "1.0"
    inputs = {
        "spectra": dataclasses.replace(SPECTRA, default="atmosphere.learning_spectra"),
        "absorption": Input(
            "cube",
            doc="cross-sections of your own: a variable for each gas (cm2 per molecule) over `wavelength` in nm; they go "
            "before those that are built in, of which only CO is real and CH4, H2O and HDO are pseudo-lines",
            optional=True,
            role="support",
        ),
    }
    outputs = {
        "mean": Var(
            "1", long_name="mean of ln reflectance less its mean over the channels", dims=("spectral_channel",)
        ),
        "noise": Var("1", long_name="standard deviation of the noise of ln reflectance", dims=("spectral_channel",)),
        "shape": Var("1", long_name="shapes of the components, in units of the noise"),
        "variance": Var("1", long_name="variance of the scores of the components; -1 for one that is only taken out"),
        "signature": Var("1", long_name="signature of one standard column more of each gas, in units of the noise"),
        "factor": Var("1", long_name="leading shapes of what varies in usual spectra, as standard deviations"),
        "white": Var("1", long_name="variance of the rest of each channel", dims=("spectral_channel",)),
        "window_channels": Var("1", long_name="channels of each window (1)", dims=("window", "spectral_channel")),
        "dead": Var("1", long_name="channels that a row never has (1)", dims=("ground_pixel", "spectral_channel")),
        "stripe": Var("1", long_name="what each row adds to the mean", dims=("ground_pixel", "spectral_channel")),
        "snr_deviation": Var(
            "1",
            long_name="standard deviation of the SNR of usual spectra, by which it is divided",
            dims=("gas", "stratum"),
        ),
        "snr_middle": Var(
            "1", long_name="median of the SNR of usual spectra, which is taken off", dims=("gas", "stratum")
        ),
        "extreme_mode": Var(
            "1", long_name="most frequent highest residual, and lowest with its sign changed, of a block"
        ),
        "extreme_scale": Var("1", long_name="scale of the Gumbel distribution of the extremes of a block"),
        "curve_score": Var("1", long_name="scores of the curves from score to false-alarm rate"),
        "curve_rate": Var("1", long_name="false-alarm rates of the curves from score to false-alarm rate"),
        "curve_tail": Var("1", long_name="generalised Pareto distribution behind each curve"),
        "curve_number": Var("1", long_name="clean spectra behind each curve"),
        "residual_deviation": Var("1", long_name="standard deviation of the residuals, in units of the noise"),
        "threshold": Var("1", long_name="score that clean pixels exceed at a rate of 1e-4"),
        "learnt_from": Var("1", long_name="spectra of the learning set"),
        "available": Var("1", long_name="spectra there were"),
    }
    resources = Resources(cores=2, memory="4GiB", walltime="02:00:00", grows=_grows)
    scene = "phidias_lab.chains.atmosphere._scenes:screening_basis"
    references = (
        "Jolliffe, Principal Component Analysis, doi:10.1007/b98835",
        "Vu Van et al. 2023, Atmos. Meas. Tech. 16, 2107-2126, doi:10.5194/amt-16-2107-2023",
    )

    learning_size = count(
        100_000,
        bounds=(1000, 5_000_000),
        scale="log",
        doc="How many spectra are learnt from, of all kinds of pixels alike",
    )
    gases = text(
        "CO, CH4",
        doc="Gases that are looked for, with commas between them; no component hides what they look like",
    )
    components = count(
        None, bounds=(0, 300), doc="How many components are taken for usual; empty chooses them by 'choose'"
    )
    choose = choice(
        "noise edge",
        ["noise edge", "coherence"],
        doc="How the number of components is chosen: those of more variance than noise has in so many spectra, or up to the "
        "last one whose scores are alike in neighbouring pixels",
        level="expert",
    )
    windows = text(
        "8",
        max_length=2000,
        doc="Windows with scores of their own: a number of equal ones, or names with wavelengths in nm such as "
        "'CO_1: 2311-2318, CO_2: 2321-2330'",
        level="expert",
    )
    quantity = choice(
        "reflectance", ["reflectance", "radiance"], doc="What is screened; radiance needs no irradiance", level="expert"
    )
    accuracy = number(
        0.003, bounds=(0, 0.1), level="expert",
        doc="Relative accuracy of the radiances; what is smaller in spectra of little noise is not told from noise, which "
        "keeps the number of components low",
    )  # fmt: skip
    clean = number(
        0.01, bounds=(0, 0.2), doc="Share of the learning set, the most unusual, that is taken out before learning again",
        level="expert",
    )  # fmt: skip
    null = choice(
        "mirrored",
        ["mirrored", "upper"],
        doc="Which scores of a gas tell of clean pixels: those of too little of it with the sign changed, in which no event "
        "is, or those of too much",
        level="expert",
    )
    row_strata = count(3, bounds=(1, 8), doc="Parts of the swath with thresholds of their own", level="expert")
    brightness_strata = count(
        4, bounds=(1, 8), doc="Classes of brightness with thresholds of their own", level="expert"
    )
    largest_zenith = number(
        80.0, bounds=(20, 90), units="degree", doc="Pixels under a lower sun are left out", level="expert"
    )
    response = number(
        None,
        bounds=(0.001, 50),
        units="nm",
        scale="log",
        doc="Width (FWHM) of the instrument's response, for the signatures; empty takes that of the data, else 2.5 times "
        "the distance of the channels",
        level="expert",
    )
    air_mass = number(2.5, bounds=(1, 10), doc="Air mass at which the gases' signatures are computed", level="expert")
    seed = count(0, bounds=(0, 2**31), doc="Of the draw of the learning set", level="expert")

    def check(self, inputs: Mapping[str, Any]) -> None:
        spectra = inputs["spectra"]
        _spectra.check(spectra)
        if self.quantity == "reflectance" and "irradiance" not in spectra:
            raise InputError(
                "The input 'spectra' has no irradiance, so there are no reflectances. Put the file of irradiances "
                "(S5P_..._L1B_IR_...) into the same folder, or set 'quantity' to radiance."
            )
        _masks(self.windows, np.linspace(1.0, 2.0, 100) if self.windows.strip().isdigit() else None)
        if not self._gases():
            raise ParameterError("Parameter 'gases' names no gas. Name one at least, such as CO.")

    def resolve(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.response is not None:
            return {}
        spectra = inputs["spectra"]
        told = spectra.attrs.get("response_fwhm")
        if told is not None:
            return {"response": float(told)}
        wavelength = _spectra.light(spectra, 0, True).wavelength
        return {"response": float(np.round(2.5 * np.median(np.abs(np.diff(wavelength, axis=1))), 6))}

    def headline(self, inputs: Mapping[str, Any]) -> str:
        spectra = inputs["spectra"]
        whose = " ".join(str(spectra.attrs[n]) for n in ("instrument", "band") if n in spectra.attrs) or "spectra"
        return f"Screening basis of {whose}, {self.learning_size} spectra"

    def run(self, spectra: xr.Dataset, absorption: xr.Dataset | None = None) -> xr.Dataset:
        self._light = spectra[["wavelength", "radiance"]].isel(scanline=slice(0, 1))
        self._wavelength = _spectra.light(spectra, 0, True).wavelength
        self._stripe = np.zeros(self._wavelength.shape, np.float32)
        self.report(0.0, "choosing the learning set")
        kept, coverage = self._drawn(spectra)
        grid = _grid(spectra)
        y = self._gathered(spectra, kept)
        self._mean = self._first_mean(y, grid)
        brightness = y["brightness"].values
        signatures = self._signatures(grid, absorption)
        use, level, dead = np.isfinite(brightness), Level((0.0,), (1.0,)), y["dead"].values > 0
        basis = self._learn(y, level, use, grid, signatures, first=True)
        for round_ in range(_ROUNDS):
            self.report(0.3 + 0.1 * round_, "taking unusual spectra out of the learning set")
            use, level = self._usual(y, level, basis)
            noise = self._noise(y, level, use, basis)
            dead = self._detector(y, level, use, basis, y["dead"].values > 0)
            basis = self._learn(y, level, use, grid, signatures, noise=noise, first=round_ < _ROUNDS - 1)
        if self.components is None and self.choose == "coherence":
            basis = self._by_coherence(spectra, y, level, use, grid, signatures, noise, dead)
        # Onto one grid white noise is interpolated, which lowers it; on the rows' own grids it is whole.
        some = np.unique(np.linspace(0, len(self._wavelength) - 1, 9).round().astype(int))
        lost = np.mean([_spectra.lost(wavelength, grid) for wavelength in self._wavelength[some]])
        basis = dataclasses.replace(basis, white=basis.white / (1 - lost))
        edges = np.quantile(brightness[np.isfinite(brightness)], np.linspace(0, 1, self.brightness_strata + 1))
        edges = np.maximum.accumulate(edges + 1e-6 * np.arange(edges.size))
        cut = Strata(_spectra.equal_rows(spectra.sizes["ground_pixel"], self.row_strata), tuple(map(float, edges)))
        usual, extremes, rates = self._calibrated(spectra, basis, level, cut, dead)
        facts = {
            "gases": list(self._gases()),
            "largest_zenith": self.largest_zenith,
            "response": self.response,
            "learning_set": _spectra.names(spectra)[:1000],
            "taken_out": int((~use).sum()),
        }
        learnt = Learnt(basis, level, cut, usual, rates, dead, self._stripe, extremes, self.quantity, facts)
        return self._told(learnt, coverage, y)

    # The learning set ---------------------------------------------------------------------------------------------------

    def _axes(self, rows: int) -> list[strata.Axis]:
        return [
            strata.Axis("rows", _spectra.equal_rows(rows, self.row_strata)),
            strata.Axis("latitude", _LATITUDES, units="degree"),
            strata.Axis("solar zenith", _ZENITHS, units="degree"),
        ]

    def _kinds(self, spectra: xr.Dataset, axes: list[strata.Axis]) -> Iterator[tuple[_spectra.Block, np.ndarray]]:
        """The stratum of each pixel (lines, rows) of a block, -1 where it is not used."""
        for block, places in _spectra.iterate(spectra, _scoring.PLACES):
            good = _spectra.usable(places, self.largest_zenith)
            rows = np.broadcast_to(np.arange(good.shape[1]), good.shape)
            zenith = places["solar_zenith_angle"].values if "solar_zenith_angle" in places else np.zeros(good.shape)
            kind = strata.assign(axes, rows, places["latitude"].values, np.clip(zenith, 0, 90))
            yield block, np.where(good, kind, -1)

    def _drawn(self, spectra: xr.Dataset) -> tuple[Any, list[Coverage]]:
        axes = self._axes(spectra.sizes["ground_pixel"])
        names = strata.names(axes)
        there = np.zeros(len(names), np.int64)
        for _, kind in self._kinds(spectra, axes):
            there += np.bincount(kind[kind >= 0], minlength=there.size)
        channels = spectra.sizes["spectral_channel"]
        if there.sum() < _LEAST * channels:
            raise InputError(
                f"There are {there.sum()} pixels in sunlight with known places in the input 'spectra', and at least "
                f"{_LEAST * channels} are needed to learn {channels} channels. Give more granules."
            )
        if there.sum() < self.learning_size:
            self.warn(
                f"The learning set has all {there.sum()} spectra that can be used, of {self.learning_size} "
                "that were asked for."
            )
        draw = Reservoir(_shared(there, self.learning_size), self.seed)
        granule_names = _spectra.names(spectra)
        for block, kind in self._kinds(spectra, axes):
            line, row = np.nonzero(kind >= 0)
            draw.add(granule_names[block.granule], line + block.lines.start, row, kind[line, row])
        return draw.kept(), draw.coverage(names)

    def _gathered(self, spectra: xr.Dataset, kept: Any) -> xr.Dataset:
        """The spectra of the learning set on the grids of their rows, read block by block."""
        radiances = self.quantity == "radiance"
        order = np.lexsort((kept.row, kept.line))
        line, row = kept.line[order], kept.row[order]
        noisy = "radiance_noise" in spectra
        parts: dict[str, list[Any]] = {n: [] for n in ("y", "brightness", "noise", "gaps")}
        m, rows = spectra.sizes["spectral_channel"], spectra.sizes["ground_pixel"]
        lights: dict[int, _spectra.Light] = {}
        for block in _spectra.blocks(spectra):
            mine = slice(*np.searchsorted(line, [block.lines.start, block.lines.stop]))
            if mine.start == mine.stop:
                continue
            if block.granule not in lights:
                lights = {block.granule: _spectra.light(spectra, block.granule, radiances)}
            values = [
                _block(spectra[name], block.lines) for name in ("radiance", *(["radiance_noise"] if noisy else []))
            ]
            found = dask.delayed(_gather, pure=False)(
                line[mine] - block.lines.start, row[mine], lights[block.granule], rows, *values
            )
            n = mine.stop - mine.start
            parts["y"].append(da.from_delayed(found["y"], (n, m), np.float32))
            parts["brightness"].append(da.from_delayed(found["brightness"], (n,), np.float32))
            parts["noise"].append(da.from_delayed(found["noise"], (1, m), float))
            parts["gaps"].append(da.from_delayed(found["gaps"], (1, 2, rows, m), np.int32))
        some = {name: da.concatenate(arrays) for name, arrays in parts.items() if arrays}
        channel = "spectral_channel"
        gathered = self.keep(
            "learning",
            xr.Dataset(
                {
                    "y": (("learning", channel), some["y"]),
                    "brightness": ("learning", some["brightness"]),
                    "noise": (("block", channel), some["noise"]),
                    "gaps": (("block", "gap", "ground_pixel", channel), some["gaps"]),
                }
            ),
        )
        gaps = gathered["gaps"].data.sum(axis=0)
        gaps = np.asarray(gaps.compute() if hasattr(gaps, "compute") else gaps)
        dead = (gaps[0] > 0.5 * gaps[1]) & (gaps[1] >= 3)
        # Medians, since the relative noise of dark spectra has no bound.
        noise = np.nanmedian(gathered["noise"].values, axis=0) if noisy else np.full(m, np.nan)
        return gathered.assign(
            noise=(channel, noise), dead=(("ground_pixel", channel), dead), row=("learning", row)
        ).drop_vars("gaps")

    # Learning -----------------------------------------------------------------------------------------------------------

    def _gases(self) -> list[str]:
        return list(dict.fromkeys(name.strip() for name in self.gases.split(",") if name.strip()))

    def _signatures(self, grid: np.ndarray, absorption: xr.Dataset | None) -> dict[str, np.ndarray]:
        tables = {}
        if absorption is not None:
            if "wavelength" not in absorption.variables:
                raise InputError(
                    "The input 'absorption' has no 'wavelength'. Give cross-sections over a wavelength in nm."
                )
            x = absorption["wavelength"].values.astype(float)
            tables = {
                str(name): (x, array.values.astype(float))
                for name, array in absorption.data_vars.items()
                if array.ndim == 1 and array.size == x.size and str(name) in self._gases()
            }
        found = spectroscopy.dictionary(
            self._gases(), grid, self.response, air_mass=self.air_mass, tables=tables, artefacts=()
        )
        return {name: answer - answer.mean() for name, answer in found.items()}

    def _stored(self, y: xr.Dataset) -> Iterator[tuple[slice, np.ndarray]]:
        """The learning set, some spectra at a time, as it was measured but without stripes."""
        for start in range(0, y.sizes["learning"], _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, y.sizes["learning"]))
            yield part, y["y"][part].values - self._stripe[y["row"].values[part]]

    def _first_mean(self, y: xr.Dataset, grid: np.ndarray) -> np.ndarray:
        """The middle of spectra of the rows that are nearest to the grid, bridged where these rows have gaps."""
        near = np.argsort(np.abs(self._wavelength - grid).max(axis=1), kind="stable")
        _, values = next(self._stored(y))
        row = y["row"].values[: len(values)]
        for number_ in range(1, near.size + 1):
            some = values[np.isin(row, near[:number_])]
            if np.isfinite(some).sum(axis=0).min(initial=0) >= _ENOUGH:
                break
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            mean = np.nanmedian(some, axis=0)
        good = np.isfinite(mean)
        return np.interp(grid, grid[good], mean[good])

    def _parts(self, y: xr.Dataset, level: Level, grid: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """The learning set on one grid, some spectra at a time, with the same noise for all."""
        for part, values in self._stored(y):
            row, held = y["row"].values[part], np.empty((part.stop - part.start, grid.size), np.float32)
            for one in np.unique(row):
                held[row == one] = _spectra.on_grid(values[row == one], self._wavelength[one], grid, self._mean)
            yield part, level.even(held, self._mean, y["brightness"].values[part])

    def _detector(
        self, y: xr.Dataset, level: Level, use: np.ndarray, basis: screening.Basis, dead: np.ndarray
    ) -> np.ndarray:
        """Learn what each row adds to the mean, the median of its residuals; gives the channels that flicker about it.

        Both are told of channels of which a row has enough spectra."""
        rows = _scoring.Rows(self._light, basis, dead, self._stripe, True)
        light, scorer = rows.light(0), rows.scorer(0).compute()
        noise = np.interp(light.wavelength, basis.wavelength, basis.noise)
        left = np.full((y.sizes["learning"], basis.wavelength.size), np.nan, np.float32)
        levels = level.of(y["brightness"].values)
        for part, values in self._stored(y):
            row = y["row"].values[part]
            values = level.even(values, light.mean[row], y["brightness"].values[part])
            left[part] = scorer.residual(values, _scoring.some(scorer, values, row).components, row)
            left[part] *= levels[part, None]
        stripe, flickers = self._stripe.copy(), np.zeros(dead.shape, bool)
        for one in np.unique(y["row"].values):
            mine = y["row"].values == one
            there = np.isfinite(left[mine]).sum(axis=0)
            enough = there >= _ENOUGH
            middle = np.zeros(left.shape[1], np.float32)
            middle[enough] = np.nanmedian(left[use & mine][:, enough], axis=0)
            stripe[one] += middle * noise[one]
            hit = _scoring.hits((left[mine] - middle) / levels[mine, None]).sum(axis=0)
            share = np.where(enough, hit / np.maximum(there, 1), 0)
            flickers[one] = share > max(_FLICKERS, 10 * np.median(share))
        self._stripe = stripe
        return dead | flickers

    def _learn(
        self,
        y: xr.Dataset,
        level: Level,
        use: np.ndarray,
        grid: np.ndarray,
        signatures: dict[str, np.ndarray],
        number: int | None = None,
        noise: np.ndarray | None = None,
        first: bool = False,
    ) -> screening.Basis:
        moments = pca.Moments(grid.size)
        for part, values in self._parts(y, level, grid):
            moments.add(values[use[part]])
        windows = _masks(self.windows, grid)
        if noise is None:
            noise = y["noise"].values
            if not (np.isfinite(noise).all() and (noise > 0).all()):
                noise = np.sqrt(np.diag(moments.covariance))
        number = self.components if number is None else number
        # How many there are is not asked before the noise is known.
        number = min(30, grid.size // 4) if number is None and first else number
        return screening.learn(moments, grid, noise, number, signatures, windows)

    def _noise(self, y: xr.Dataset, level: Level, use: np.ndarray, basis: screening.Basis) -> np.ndarray:
        """The noise of each channel: 1.4826 times the median distance of what neither components nor gases explain."""
        part, values = next(self._parts(y, level, basis.wavelength))
        scorer, values = screening.Scorer(basis), values[use[part]]
        row = np.zeros(len(values), int)
        found = _scoring.some(scorer, values, row)
        left = scorer.residual(values, found.components, row) - found.amplitude @ basis.signatures.T
        away = np.nanmedian(np.abs(left - np.nanmedian(left, axis=0)), axis=0)
        noise = basis.noise * 1.4826 * away
        # A channel that few rows have is bridged in the others, and would be trusted ever more if it were taken for quiet.
        return np.maximum(noise, 0.5 * median_filter(noise, _NEIGHBOURS, mode="nearest"))

    def _usual(self, y: xr.Dataset, level: Level, basis: screening.Basis) -> tuple[np.ndarray, Level]:
        """Which spectra are not among the most unusual ones, and how noisy spectra are by their brightness."""
        scorer = screening.Scorer(basis)
        worst, left = np.full((2, y.sizes["learning"]), np.nan)
        brightness = y["brightness"].values
        for part, values in self._parts(y, level, basis.wavelength):
            found = _scoring.some(scorer, values, np.zeros(len(values), int))
            worst[part] = _rank_score(detected(found))
            left[part] = found.unexplained * level.of(brightness[part])
        use = np.isfinite(brightness)
        return use & (worst <= np.quantile(worst[use], 1 - self.clean)), Level.learnt(
            brightness, left, self.accuracy / float(np.median(basis.noise))
        )

    def _by_coherence(self, spectra, y, level, use, grid, signatures, noise, dead) -> screening.Basis:
        """The number of components whose scores are alike side by side, from a few whole blocks."""
        most = min(150, grid.size // 4)
        wide = self._learn(y, level, use, grid, signatures, most, noise)
        rows = _scoring.Rows(spectra, wide, dead, self._stripe, self.quantity == "radiance")
        some = [
            (b, p)
            for b, p in _spectra.iterate(spectra, _scoring.PLACES)
            if _spectra.usable(p, self.largest_zenith).any()
        ]
        scores, lines, columns = [], [], []
        for block, places in some[:: max(1, len(some) // 4)][:4]:
            radiance = np.asarray(_block(spectra["radiance"], block.lines, True))
            pixels = _scoring.Pixels(_spectra.usable(places, self.largest_zenith), _spectra.in_anomaly(places))
            scorer = rows.scorer(block.granule).compute()
            found, *_ = _scoring.scores(radiance, pixels, rows.light(block.granule), scorer, level)
            at = np.nonzero(np.isfinite(found.reconstruction))
            scores.append(found.components[at][:, :most])
            lines.append(at[0] + 2 * block.lines.start)
            columns.append(at[1])
        alike = pca.coherence(np.concatenate(scores), np.concatenate(lines), np.concatenate(columns))
        return self._learn(y, level, use, grid, signatures, pca.coherent(alike), noise)

    # False alarms -------------------------------------------------------------------------------------------------------

    def _calibrated(
        self, spectra: xr.Dataset, basis: screening.Basis, level: Level, cut: Strata, dead: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[alarms.Gumbel, alarms.Gumbel], dict[str, alarms.Calibrated]]:
        """Score all spectra, and learn how often each detector gives which score in each stratum, and which extremes blocks
        have."""
        names, g = [*basis.gases, *BESIDE], len(basis.gases)
        rows = _scoring.Rows(spectra, basis, dead, self._stripe, self.quantity == "radiance")

        def score(radiance, pixels, light, scorer):
            found, extrema, brightness = _scoring.scores(radiance, pixels, light, scorer, level)
            stratum = np.where(np.isfinite(found.unexplained), cut.of(brightness, pixels.anomaly), -1)
            return {
                "score": detected(found).astype(np.float32),
                "stratum": stratum.astype(np.int16),
                "extreme": np.stack([extrema.high, -extrema.low])[None].astype(np.float32),
            }

        outputs = {
            "score": ((*_PIXEL, "detector"), {"detector": len(names)}, np.float32),
            "stratum": (_PIXEL, {}, np.int16),
            "extreme": (
                ("block", "side", "spectral_channel"),
                {"side": 2, "spectral_channel": spectra.sizes["spectral_channel"]},
                np.float32,
            ),
        }
        scored = self.keep(
            "scores",
            _scoring.lazy(spectra, rows, score, outputs, lambda places: _spectra.usable(places, self.largest_zenith)),
        )
        blocks = _spectra.blocks(spectra)

        def parts() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            for block in blocks:
                part = scored.isel(scanline=block.lines)
                values, stratum = part["score"].values, part["stratum"].values.astype(int)
                line = np.arange(block.lines.start, block.lines.stop)[:, None] // _TOGETHER
                where = line * (1 + values.shape[1] // _TOGETHER) + np.arange(values.shape[1]) // _TOGETHER
                yield values, stratum, where

        usual = _usual_snr(parts(), len(cut.names), g)
        learnt = [alarms.Scores(len(cut.names)) for _ in names]
        sign = np.where(np.arange(len(names)) < g, -1.0 if self.null == "mirrored" else 1.0, 1.0)
        for values, stratum, where in parts():
            values[..., :g] = _scoring.snr(values[..., :g], usual, stratum)
            for i, one in enumerate(learnt):
                one.add(sign[i] * values[..., i], stratum, where)
        rates = {name: alarms.calibrate(one) for name, one in zip(names, learnt, strict=True)}
        together = alarms.Scores(len(cut.names))
        for values, stratum, where in parts():
            values[..., :g] = _scoring.snr(values[..., :g], usual, stratum)
            each = [rates[name].false_alarm_rate(sign[i] * values[..., i], stratum) for i, name in enumerate(names)]
            together.add(np.where(stratum < 0, np.nan, alarms.combined(np.stack(each, axis=-1))), stratum, where)
        number = np.array([int((scored["stratum"].isel(scanline=b.lines).values >= 0).sum()) for b in blocks])
        extremes = tuple(alarms.Gumbel.learnt(scored["extreme"].isel(side=side).values, number) for side in (0, 1))
        return usual, extremes, {**rates, COMBINED: alarms.calibrate(together)}

    def _told(self, learnt: Learnt, coverage: list[Coverage], y: xr.Dataset) -> xr.Dataset:
        found = to_dataset(learnt)
        basis = learnt.basis
        thresholds = [[t.score.value for t in learnt.rates[str(n)].thresholds(1e-4)] for n in found["detector"].values]
        together = [
            learnt.rates[str(n)].together.threshold(1e-4, 0.95, "").score.value for n in found["detector"].values
        ]
        names = [c.stratum for c in coverage]
        self.found(
            f"{len(basis.values)} components of {basis.wavelength.size} channels from {basis.spectra} spectra; "
            f"{learnt.facts['taken_out']} unusual ones were left out."
        )
        deviation = np.sqrt(np.square(basis.factors).sum(axis=1) + basis.white)
        return found.assign(
            residual_deviation=("spectral_channel", deviation),
            threshold=(("detector", "stratum"), np.column_stack([np.array(thresholds), together])),
            learnt_from=("kind", np.array([c.kept for c in coverage])),
            available=("kind", np.array([c.seen for c in coverage])),
        ).assign_coords(kind=names)


def _usual_snr(
    parts: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], strata_: int, gases: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each gas and stratum the middle and the standard deviation of the SNR of usual spectra.

    The deviation is that of the lower half, in which no event is. The middle is not 0: how bright a pixel is goes with how
    far light went, and so with columns."""
    values, stratum = [], []
    for some, where, _ in parts:
        good = where >= 0
        values.append(some[good][::7, :gases])
        stratum.append(where[good][::7])
    values, stratum = np.concatenate(values), np.concatenate(stratum)
    middle, deviation = np.zeros((gases, strata_)), np.ones((gases, strata_))
    for s in range(strata_):
        mine = values[stratum == s]
        if len(mine) >= 30:
            low, middle[:, s] = np.quantile(mine, [norm.cdf(-1), 0.5], axis=0)
            deviation[:, s] = np.maximum(middle[:, s] - low, 1e-6)
    return middle, deviation


def _block(array: xr.DataArray, lines: slice, now: bool = False) -> Any:
    values = array.isel(scanline=lines).data
    if not hasattr(values, "rechunk"):
        return values
    return values.compute() if now else values.rechunk(-1).to_delayed(optimize_graph=False).item()


def _gather(line, row, light, rows, radiance, noise=None) -> dict[str, np.ndarray]:
    """Chosen spectra of a block on the grids of their rows."""
    some = np.asarray(radiance)[line, row]
    y, brightness = _spectra.shapes(some, None if light.sun is None else light.sun[row])
    relative = np.full((1, y.shape[1]), np.nan)
    if noise is not None:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            relative = np.nanmedian(np.asarray(noise)[line, row] / some, axis=0)[None]
    gaps = np.zeros((1, 2, rows, y.shape[1]), np.int32)
    np.add.at(gaps[0, 0], row, ~np.isfinite(y))
    np.add.at(gaps[0, 1], row, 1)
    return {"y": y, "brightness": brightness, "noise": relative, "gaps": gaps}


def _grid(spectra: xr.Dataset) -> np.ndarray:
    """The common grid of wavelengths: that of the middle row of the first granule."""
    wavelength = _spectra.light(spectra, 0, True).wavelength
    return np.sort(wavelength[wavelength.shape[0] // 2])


def _shared(there: np.ndarray, size: int) -> np.ndarray:
    """How many of each stratum: equal shares, and what one has too little for goes to the others."""
    shares, left = np.zeros(there.size, np.int64), min(size, int(there.sum()))
    while left > 0:
        open_ = np.flatnonzero(shares < there)
        each = max(left // open_.size, 1)
        for s in open_:
            more = min(each, int(there[s] - shares[s]), left)
            shares[s] += more
            left -= more
    return shares


def _rank_score(scores: np.ndarray) -> np.ndarray:
    """The largest of the detectors' scores of each spectrum, each in robust deviations from its median."""
    scores = np.where(np.isfinite(scores), scores, np.inf)
    middle = np.median(scores, axis=0)
    spread = 1.4826 * np.median(np.abs(scores - middle), axis=0)
    return ((scores - middle) / np.where(spread > 0, spread, 1)).max(axis=1)


def _masks(windows: str, grid: np.ndarray | None) -> dict[str, np.ndarray]:
    """The windows as masks of the channels of a grid; names and limits are checked without one."""
    text_ = windows.strip()
    if text_.isdigit():
        many = int(text_)
        if not 1 <= many <= 64:
            raise ParameterError(
                f"Parameter 'windows' was given {many}; expected 1 to 64 windows, or names with limits."
            )
        edges = np.linspace(grid[0], grid[-1], many + 1)
        at = np.clip(np.searchsorted(edges, grid, "right") - 1, 0, many - 1)
        digits = 0 if np.ptp(grid) > 20 else 2
        return {f"{edges[i]:.{digits}f}-{edges[i + 1]:.{digits}f} nm": at == i for i in range(many)}
    found = {}
    for part in text_.split(","):
        match = re.fullmatch(r"\s*([A-Za-z]\w*)\s*:\s*([0-9.]+)\s*-\s*([0-9.]+)\s*", part, re.ASCII)
        limits = [float(match[2]), float(match[3])] if match and match[2].count(".") < 2 > match[3].count(".") else []
        if not limits or limits[0] >= limits[1] or match[1] in found:
            raise ParameterError(
                f"Parameter 'windows' has the part {part.strip()!r}; expected a name of its own with rising wavelengths, "
                "such as 'CO_1: 2311-2318', or one number of equal windows for all."
            )
        found[match[1]] = limits if grid is None else (grid >= limits[0]) & (grid <= limits[1])
        if grid is not None and not found[match[1]].any():
            raise ParameterError(
                f"Parameter 'windows': {match[1]} holds no channel; the spectra cover {grid[0]:.1f} to {grid[-1]:.1f} nm."
            )
    return found
