"""atmosphere.screening: which spectra tell of something unusual, where, and of what."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import chi2, norm

from phidias_lab.chains.atmosphere import _scoring, _spectra
from phidias_lab.chains.atmosphere._basis import COMBINED, Learnt, detected, of_dataset, provenance
from phidias_lab.chains.atmosphere._spectra import SPECTRA
from phidias_lab.contract import Chain, Input, Resources, Var, choice, count, number, period, region
from phidias_lab.errors import InputError, OutsideError
from phidias_lab.methods import alarms, clusters, screening

PIXEL, CHANNEL = ("scanline", "ground_pixel"), "spectral_channel"
#: What a pixel is, beside the gases, which follow from 4 on. Pixels alone, or of a group that is no event, are unusual.
NOT_SCREENED, USUAL, ALONE, UNKNOWN = 0, 1, 2, 3
#: Local components of the residuals that are kept: what new signatures look like (EUMETSAT's hybrid compression keeps 5).
LOCAL = 5
#: Whether no gas explains an event: its mean residual, less the gases, has a chi-square that noise has this seldom.
_UNEXPLAINED = 1e-4
#: Share of a spectrum's noise variance that a mean of many keeps: so well factors describe usual spectra.
_VAGUE = 0.1
#: Share of what a gas adds by which it may differ from the gas's signature.
_SATURATED = 0.15
#: Channels that may flicker in a row of the detector.
_FLICKERING = 3
#: Of so many granules that a basis was learnt from the names stand with each event; the product has all.
_NAMED = 10


def _grows(sizes: Mapping, parameters: Mapping) -> Mapping:
    spectra = sizes.get("spectra", {})
    pixels = spectra.get("scanline", 0) * spectra.get("ground_pixel", 0)
    return {"memory": 2 * 2**30 + pixels * 400}


#: What is kept of a selected pixel as it was delivered, where it was: units and names.
KEPT = {
    "radiance": (None, "radiance as it was delivered"),
    "radiance_noise": (None, "standard deviation of the noise of the radiance"),
    "radiance_stored": (None, "radiance as the file stores it, of bad channels too"),
    "radiance_scaling": (None, "factor of a radiance that is stored in whole numbers"),
    "radiance_noise_stored": (None, "noise of the radiance as the file stores it"),
    "radiance_error_stored": (None, "systematic error of the radiance as the file stores it"),
    "quality_level": ("1", "quality level of each channel, 0 to 100"),
    "spectral_channel_quality": ("1", "quality of each channel, in bits"),
    "ground_pixel_quality": ("1", "quality of the pixel, in bits"),
    "measurement_quality": ("1", "quality of the measurement, in bits"),
    "latitude": ("degrees_north", "latitude of the middle of the pixel"),
    "longitude": ("degrees_east", "longitude of the middle of the pixel"),
    "latitude_bounds": ("degrees_north", "latitudes of the corners of the pixel"),
    "longitude_bounds": ("degrees_east", "longitudes of the corners of the pixel"),
    "solar_zenith_angle": ("degree", "zenith angle of the Sun"),
    "solar_azimuth_angle": ("degree", "azimuth angle of the Sun"),
    "viewing_zenith_angle": ("degree", "zenith angle of the instrument"),
    "viewing_azimuth_angle": ("degree", "azimuth angle of the instrument"),
    "satellite_latitude": ("degrees_north", "latitude below the satellite"),
    "satellite_longitude": ("degrees_east", "longitude below the satellite"),
    "satellite_altitude": ("m", "altitude of the satellite"),
    "instrument_configuration": (None, "configuration of the instrument as the bytes of the file"),
    "time": (None, "time of the measurement"),
    "delta_time": (None, "time of the measurement since the reference time of its file"),
    "granule": ("1", "number of the granule"),
    "scanline_number": ("1", "number of the scanline in its granule"),
}
#: What is kept of the granules that selected pixels are from, by its name in the cube.
OF_GRANULES = {
    "wavelength": "nominal_wavelength", "earth_sun_distance": "earth_sun_distance", "granule_name": "granule_name",
    "orbit": "orbit", "granule_attributes": "granule_attributes", "instrument_settings": "instrument_settings",
}  # fmt: skip


class Screening(Chain):
    """Find the few spectra that tell of an unusual event, and say which gas it is.

    Each spectrum is compared with what a basis knows as usual: its residual as a whole, in windows, and along the signature
    of each gas. The scores become one false-alarm rate. Unusual pixels side by side are an event; it is given to the gas
    that explains its mean residual, or called unknown where none does. The unusual spectra are kept as they were measured.
    """

    title = "Screening of spectra for unusual events"
    version = "1.0"
    inputs = {
        "spectra": SPECTRA,
        "basis": Input(
            "cube",
            doc="what spectra of this instrument and band usually look like: a product of atmosphere.screening_basis",
            default="atmosphere.screening_basis",
            role="support",
        ),
    }
    outputs = {
        "false_alarm_rate": Var(
            "1",
            long_name="share of usual pixels that are as unusual as this one",
            dims=PIXEL,
            doc="all detectors together",
        ),
        "snr": Var(
            "1", long_name="amplitude of each gas over its standard deviation in usual spectra", dims=("gas", *PIXEL)
        ),
        "amplitude": Var("1", long_name="enhancement of each gas, in standard columns", dims=("gas", *PIXEL)),
        "detection_limit": Var(
            "1",
            long_name="enhancement of each gas that is found half of the time, in standard columns",
            dims=("gas", *PIXEL),
        ),
        "reconstruction_score": Var("1", long_name="root mean square of the residual over the noise", dims=PIXEL),
        "unexplained_score": Var(
            "1", long_name="root mean square of what neither components nor gases explain, over the noise", dims=PIXEL
        ),
        "window_score": Var(
            "1", long_name="root mean square of the residual over the usual one", dims=("window", *PIXEL)
        ),
        "class": Var(long_name="what is in the pixel", dims=PIXEL),
        "event": Var("1", long_name="number of the event, 0 for none", dims=PIXEL),
        "selected_scanline": Var("1", long_name="scanline of each spectrum that is kept", dims=("selected",)),
        "selected_ground_pixel": Var("1", long_name="row of each spectrum that is kept", dims=("selected",)),
        "selected_event": Var("1", long_name="number of the event of each spectrum that is kept", dims=("selected",)),
        "selected_false_alarm_rate": Var(
            "1", long_name="false-alarm rate of each spectrum that is kept", dims=("selected",)
        ),
        "selected_amplitude": Var(
            "1", long_name="enhancement of each gas, in standard columns", dims=("selected", "gas")
        ),
        "selected_snr": Var(
            "1", long_name="amplitude of each gas over its standard deviation", dims=("selected", "gas")
        ),
        "event_class": Var(long_name="what the event is", dims=("event_number",)),
        "event_snr": Var("1", long_name="SNR of each gas in the mean of the event", dims=("event_number", "gas")),
        "event_amplitude": Var(
            "1",
            long_name="enhancement of each gas in the mean of the event, in standard columns",
            dims=("event_number", "gas"),
        ),
        "event_residual": Var(
            "1",
            long_name="mean residual of the spectra of the event that are kept, over the noise",
            dims=("event_number", CHANNEL),
        ),
        "event_unexplained": Var(
            "1",
            long_name="chance that usual spectra differ as much from what the gases explain",
            dims=("event_number",),
        ),
        **{f"selected_{name}": Var(units, long_name=words, optional=True) for name, (units, words) in KEPT.items()},
        "nominal_wavelength": Var(
            "nm", long_name="wavelengths of each row of the spectra that are kept", optional=True
        ),
        "earth_sun_distance": Var(long_name="distance of the Earth from the Sun", optional=True),
        "instrument_settings": Var(long_name="settings of the instrument as the bytes of the file", optional=True),
        "residual": Var(
            "1", long_name="residual of each spectrum that is kept, over the noise", dims=("selected", CHANNEL)
        ),
        "signature": Var("1", long_name="what one standard column more of each gas adds, over the noise"),
        "local_component": Var(
            "1", long_name="leading shapes of the residuals that are kept", dims=("local", CHANNEL), optional=True
        ),
        "unusual_channel": Var(long_name="channels of a block with unusual extremes", dims=("block", CHANNEL)),
        "block_scanline": Var("1", long_name="first scanline of each block", dims=("block",)),
        "highest_residual": Var("1", long_name="highest residual of each channel in a block", dims=("block", CHANNEL)),
        "lowest_residual": Var("1", long_name="lowest residual of each channel in a block", dims=("block", CHANNEL)),
    }
    resources = Resources(cores=2, memory="2GiB", walltime="01:00:00", grows=_grows)
    scene = "phidias_lab.chains.atmosphere._scenes:screening"
    references = (
        "Vu Van et al. 2023, Atmos. Meas. Tech. 16, 2107-2126, doi:10.5194/amt-16-2107-2023",
        "Walker, Dudhia and Carboni 2011, Atmos. Meas. Tech. 4, 1567-1580, doi:10.5194/amt-4-1567-2011",
        "Rodgers 2000, Inverse Methods for Atmospheric Sounding, doi:10.1142/3171",
    )

    rate = number(
        1e-4,
        bounds=(1e-9, 0.1),
        scale="log",
        doc="Share of usual pixels that may be taken for unusual (false-alarm rate)",
    )
    region = region(doc="Where pixels are screened; empty is everywhere")
    period = period(doc="When pixels are screened; empty is always")
    least_neighbours = count(
        2, bounds=(0, 8), doc="An event needs a pixel with so many others of it beside", level="user"
    )
    grow = number(
        1e-2, bounds=(1e-9, 0.5), scale="log", level="expert",
        doc="Pixels beside an unusual one belong to its event where they are as unusual as this share of usual pixels",
    )  # fmt: skip
    keep_alone = choice(
        "no", ["no", "yes"], doc="Whether unusual pixels that belong to no event are kept as well", level="expert"
    )
    most = number(
        0.01, bounds=(1e-6, 1), scale="log", level="expert",
        doc="Share of the spectra that is kept at most; of more the most unusual ones are",
    )  # fmt: skip
    extreme_rate = number(
        0.01, bounds=(1e-6, 0.5), scale="log", level="expert",
        doc="Share of usual blocks of scanlines that may have a channel whose highest or lowest residual is called unusual",
    )  # fmt: skip
    largest_zenith = number(
        80.0, bounds=(20, 90), units="degree", doc="Pixels under a lower sun are left out", level="expert"
    )

    def check(self, inputs: Mapping[str, Any]) -> None:
        spectra, basis = inputs["spectra"], inputs["basis"]
        _spectra.check(spectra)
        if "screening_basis" not in basis.attrs:
            raise InputError("The input 'basis' is no basis of spectra. Give a product of atmosphere.screening_basis.")
        self._within(spectra)

    def headline(self, inputs: Mapping[str, Any]) -> str:
        spectra = inputs["spectra"]
        whose = " ".join(str(spectra.attrs[n]) for n in ("instrument", "band") if n in spectra.attrs) or "spectra"
        times = np.asarray(spectra["time"].values)
        return f"Screening of {whose}, {str(times.min())[:16]} to {str(times.max())[:16]}"

    def run(self, spectra: xr.Dataset, basis: xr.Dataset) -> xr.Dataset:
        learnt = of_dataset(basis)
        spectra = self._within(_with_corners(spectra))
        rows = _scoring.Rows(spectra, learnt.basis, learnt.dead, learnt.stripe, learnt.quantity == "radiance")
        scored = self.keep("scores", self._scored(spectra, rows, learnt))
        self.report(0.0, "putting pixels together to events")
        rate = scored["false_alarm_rate"].values
        if not np.isfinite(rate).any():
            raise OutsideError(
                "No pixel of the input 'spectra' can be screened: none is in sunlight, in this region and period. Choose "
                "another 'region' or 'period', or other granules."
            )
        event = self._events(spectra, rate)
        told = json.dumps(provenance(basis), sort_keys=True)
        return self._told(spectra, rows, learnt, scored, rate, event).assign_attrs(basis=told)

    # Scores -------------------------------------------------------------------------------------------------------------

    def _within(self, spectra: xr.Dataset) -> xr.Dataset:
        """The scanlines of the period that have a pixel in the region."""
        times = np.asarray(spectra["time"].values)
        wanted = np.ones(times.size, bool)
        if self.period is not None:
            start, end = (np.datetime64(t) for t in self.period)
            end = end + (np.timedelta64(1, "D") if len(self.period[1]) == 10 else np.timedelta64(0, "s"))
            wanted &= (times >= start) & (times < end)
        if self.region is not None:
            for block, places in _spectra.iterate(spectra, ("latitude", "longitude")):
                wanted[block.lines] &= _spectra.usable(places, 90.0, self.region).any(axis=1)
        if not wanted.any():
            raise OutsideError(
                f"The input 'spectra' reaches from {str(times.min())[:16]} to {str(times.max())[:16]} and has no scanline "
                "in this region and period. Choose others, or other granules."
            )
        return spectra if wanted.all() else spectra.isel(scanline=np.flatnonzero(wanted))

    def _scored(self, spectra: xr.Dataset, rows: _scoring.Rows, learnt: Learnt) -> xr.Dataset:
        gases, windows, m = learnt.basis.gases, learnt.basis.windows, spectra.sizes[CHANNEL]

        def score(radiance, pixels, light, scorer):
            found, extrema, brightness = _scoring.scores(radiance, pixels, light, scorer, learnt.level)
            stratum = learnt.strata.of(brightness, pixels.anomaly)
            stratum = np.where(np.isfinite(found.reconstruction), stratum, -1)
            level = learnt.level.of(brightness)[..., None]
            with np.errstate(invalid="ignore", divide="ignore"):
                deviation = np.abs(found.amplitude / found.snr) * level
            found = found._replace(
                snr=_scoring.snr(found.snr, learnt.usual, stratum), amplitude=found.amplitude * level
            )

            def first(values):
                return np.moveaxis(values, -1, 0).astype(np.float32)

            return {
                "false_alarm_rate": _scoring.judged(detected(found), stratum, learnt).astype(np.float32),
                "snr": first(found.snr),
                "amplitude": first(found.amplitude),
                "deviation": first(deviation * np.where(stratum[..., None] < 0, np.nan, learnt.usual[1].T[stratum])),
                "reconstruction_score": found.reconstruction.astype(np.float32),
                "unexplained_score": found.unexplained.astype(np.float32),
                "window_score": first(found.windows),
                "stratum": stratum.astype(np.int16),
                "highest_residual": extrema.high[None].astype(np.float32),
                "lowest_residual": extrema.low[None].astype(np.float32),
            }

        gas, window, channel = {"gas": len(gases)}, {"window": len(windows)}, {CHANNEL: m}
        outputs = {
            "false_alarm_rate": (PIXEL, {}, np.float32),
            **{name: (("gas", *PIXEL), gas, np.float32) for name in ("snr", "amplitude", "deviation")},
            "reconstruction_score": (PIXEL, {}, np.float32),
            "unexplained_score": (PIXEL, {}, np.float32),
            "window_score": (("window", *PIXEL), window, np.float32),
            "stratum": (PIXEL, {}, np.int16),
            **{name: (("block", CHANNEL), channel, np.float32) for name in ("highest_residual", "lowest_residual")},
        }
        return _scoring.lazy(
            spectra, rows, score, outputs, lambda places: _spectra.usable(places, self.largest_zenith, self.region)
        )

    # Events -------------------------------------------------------------------------------------------------------------

    def _events(self, spectra: xr.Dataset, rate: np.ndarray) -> np.ndarray:
        """The number of the event of each pixel, 0 for none."""
        with np.errstate(divide="ignore"):
            score = -np.log10(np.maximum(rate, alarms.TINY))
        rules = clusters.Rules(-np.log10(self.rate), -np.log10(max(self.grow, self.rate)), self.least_neighbours)
        at = np.nonzero(score >= rules.grow)
        found = clusters.Clusters(rules)
        pixels = _pixels(spectra, at, score[at])
        found.add(pixels)
        event = np.zeros(rate.shape, np.int32)
        labels = np.full(at[0].size, -1)
        labels[_taken(pixels, rules)] = found.labels()
        event[at] = labels + 1
        return event

    def _told(
        self,
        spectra: xr.Dataset,
        rows: _scoring.Rows,
        learnt: Learnt,
        scored: xr.Dataset,
        rate: np.ndarray,
        event: np.ndarray,
    ) -> xr.Dataset:
        basis = learnt.basis
        alone = (rate <= self.rate) & (event == 0)
        keep = event > 0 if self.keep_alone == "no" else (event > 0) | alone
        screened = int(np.isfinite(rate).sum())
        room = max(int(self.most * screened), 1)
        if keep.sum() > room:
            self.warn(
                f"{int(keep.sum())} of {screened} spectra are unusual, more than the share of {self.most:g} that is kept; "
                f"the {room} most unusual ones are. Either the basis does not fit these spectra, or 'rate' is too high."
            )
            at = np.flatnonzero(keep)
            keep.flat[at[np.argsort(rate.flat[at], kind="stable")[room:]]] = False
        line, row = np.nonzero(keep)
        selected = _selected(spectra, line, row)
        residual, looked = _looked_at(rows, learnt, scored["stratum"].values.astype(int), spectra, selected, line, row)
        kinds, facts = self._attributed(learnt, residual, looked["level"], event[line, row])
        event[~np.isin(event, list(kinds))] = 0
        stay = np.flatnonzero(event[line, row] > 0) if self.keep_alone == "no" else np.arange(line.size)
        line, row, residual = line[stay], row[stay], residual[stay]
        looked = {name: values[stay] for name, values in looked.items()}
        selected = {name: (dims, values[stay], attributes) for name, (dims, values, attributes) in selected.items()}
        kind = np.where(np.isfinite(rate), USUAL, NOT_SCREENED).astype(np.int8)
        for number_, code in kinds.items():
            kind[event == number_] = code
        kind[(rate <= self.rate) & (event == 0)] = ALONE
        self.counted("spectra", rate.size, {"not in sunlight, or out of the region": int(rate.size - screened)})
        self.counted("spectra that are kept", screened, {"usual": screened - int(line.size)})
        names = [*basis.gases]
        told = pd.Series([["unknown", *names][code - UNKNOWN] for code in kinds.values()], dtype=object).value_counts()
        what = ", ".join(f"{n} {name}" for name, n in told.items())
        self.found(
            f"{len(kinds)} events{f' ({what})' if what else ''} in {screened} spectra; {line.size} of them are kept "
            f"({100 * line.size / screened:.3f} %)."
        )
        outputs = scored.drop_vars(["deviation", "stratum"])
        limit = self._limit(learnt, scored)
        meanings = "not_screened usual unusual_alone unknown_event " + " ".join(names)
        flags = {"flag_values": np.arange(4 + len(names), dtype=np.int8), "flag_meanings": meanings}
        made = outputs.assign(
            {
                "detection_limit": (("gas", *PIXEL), limit),
                **self._extremes(spectra, learnt, scored, rate),
                "false_alarm_rate": scored["false_alarm_rate"].assign_attrs(drawn_on="logarithm"),
                "class": (PIXEL, kind, flags),
                "event": (PIXEL, event, {"label_of": "event"}),
                "selected_scanline": ("selected", line.astype(np.int32)),
                "selected_ground_pixel": ("selected", row.astype(np.int32)),
                "selected_event": ("selected", event[line, row]),
                "selected_false_alarm_rate": ("selected", rate[line, row]),
                "residual": (
                    ("selected", CHANNEL),
                    residual,
                    {"explained_by": "amplitude: selected_amplitude template: signature snr: selected_snr"},
                ),
                "signature": (("gas", CHANNEL), basis.signatures.T.astype(np.float32)),
                "selected_amplitude": (("selected", "gas"), looked["amplitude"]),
                "selected_snr": (("selected", "gas"), looked["snr"]),
                "event_class": ("event_number", np.array([kinds[n] for n in sorted(kinds)], np.int8), flags),
                "event_snr": (("event_number", "gas"), facts["snr"]),
                "event_amplitude": (("event_number", "gas"), facts["amplitude"]),
                "event_residual": (("event_number", CHANNEL), _means(residual, event[line, row], sorted(kinds))),
                "event_unexplained": ("event_number", facts["unexplained"]),
                **selected,
            }
        )
        if line.size >= LOCAL:
            made["local_component"] = (("local", CHANNEL), _local(residual))
        granules = _of_granules(spectra, line)
        made = made.assign(granules.data_vars).assign_coords(granules.coords)
        coords = {
            name: (PIXEL, np.asarray(spectra[name].values), dict(spectra[name].attrs))
            for name in ("latitude", "longitude")
        }
        return made.assign_coords(
            **coords,
            time=("scanline", np.asarray(spectra["time"].values), {"standard_name": "time"}),
            wavelength=(CHANNEL, basis.wavelength, {"units": "nm", "standard_name": "radiation_wavelength"}),
            gas=names,
            window=list(basis.windows),
            event_number=(
                "event_number",
                np.array(sorted(kinds), np.int32),
                {"long_name": "number of the event", "units": "1"},
            ),
        ).assign_attrs({n: spectra.attrs[n] for n in ("instrument", "band") if n in spectra.attrs})

    def _extremes(self, spectra: xr.Dataset, learnt: Learnt, scored: xr.Dataset, rate: np.ndarray) -> dict[str, Any]:
        """Which channels of each block have unusual extremes, and where the blocks begin."""
        blocks = _spectra.blocks(spectra)
        number = np.array([int(np.isfinite(rate[b.lines]).sum()) for b in blocks])
        high, low = (scored[f"{n}_residual"].values for n in ("highest", "lowest"))
        bits = {"flag_masks": np.array([1, 2], np.int8), "flag_meanings": "highest_residual lowest_residual"}
        return {
            "unusual_channel": (
                ("block", CHANNEL), alarms.unusual_channels(high, low, number, learnt.extremes, self.extreme_rate), bits
            ),
            "block_scanline": ("block", np.array([b.lines.start for b in blocks], np.int32)),
        }  # fmt: skip

    def _limit(self, learnt: Learnt, scored: xr.Dataset) -> np.ndarray:
        """Amplitude at which a gas alone brings a pixel to the requested rate, in the middle of its distribution."""
        stratum = scored["stratum"].values.astype(int)
        level = [t.score.value for t in learnt.rates[COMBINED].thresholds(self.rate)]
        limit = np.full(scored["deviation"].shape, np.nan, np.float32)
        for g, name in enumerate(learnt.basis.gases):
            wanted = np.array(
                [learnt.rates[name].thresholds(min(10.0**-score, 0.5))[s].score.value for s, score in enumerate(level)]
            )
            limit[g] = np.where(stratum >= 0, wanted[stratum] * scored["deviation"].values[g], np.nan)
        return limit

    def _attributed(
        self, learnt: Learnt, residual: np.ndarray, level: np.ndarray, event: np.ndarray
    ) -> tuple[dict[int, int], dict[str, np.ndarray]]:
        """What each event is: the gas that explains its mean residual, or unknown where none explains all of it.

        The noise of a mean of n spectra has an n-th of its variance; the natural variability, which neighbours share, keeps
        all of it. What a strong plume adds differs from the gases' signatures, since its lines saturate. Groups of pixels
        that are neither are no events: usual variation that several pixels share, or a detector channel that flickers.
        """
        basis, kinds = learnt.basis, {}
        g = len(basis.gases)
        facts: dict[str, list[Any]] = {"snr": [], "amplitude": [], "unexplained": []}
        least = norm.isf(self.rate)
        for number_ in np.unique(event[event > 0]):
            mine = event == number_
            mean = np.nanmean(residual[mine], axis=0)
            white = basis.white / mine.sum() + _VAGUE * np.mean(basis.white)
            first = _mean_of(dataclasses.replace(basis, white=white), mean)
            strong = np.square(_SATURATED * (basis.signatures @ np.nan_to_num(first.amplitude[0])))
            quiet = dataclasses.replace(basis, white=white + strong)
            of_mean = _mean_of(quiet, mean)
            snr = of_mean.amplitude[0] / of_mean.deviation[0]
            best = int(np.argmax(snr))
            excess = max(of_mean.chi2[0] - of_mean.freedom[0], 0.0)
            unexplained = float(chi2.sf(of_mean.chi2[0], of_mean.freedom[0]))
            if snr[best] >= least and (unexplained >= _UNEXPLAINED or snr[best] ** 2 > 2 * excess):
                kinds[int(number_)] = UNKNOWN + 1 + best
            elif unexplained < _UNEXPLAINED and self._broad(quiet, mean):
                kinds[int(number_)] = UNKNOWN
            else:
                continue
            facts["snr"].append(snr)
            # Residuals are over the level of their pixels, so this is a mean that brighter pixels weigh more in.
            facts["amplitude"].append(of_mean.amplitude[0] / np.mean(1 / level[mine]))
            facts["unexplained"].append(unexplained)
        return kinds, {
            "snr": np.array(facts["snr"], float).reshape(-1, g),
            "amplitude": np.array(facts["amplitude"], float).reshape(-1, g),
            "unexplained": np.array(facts["unexplained"], float),
        }

    @staticmethod
    def _broad(basis: screening.Basis, mean: np.ndarray) -> bool:
        """Whether a mean residual is unusual without its most unusual channels too: those flicker, no gas is so narrow."""
        away = np.square(mean) / basis.white
        some = mean.copy()
        some[np.argsort(away)[-_FLICKERING:]] = np.nan
        looked = _mean_of(basis, some)
        return bool(chi2.sf(looked.chi2[0], looked.freedom[0]) < _UNEXPLAINED)

    def events(self, result: xr.Dataset) -> pd.DataFrame:
        """One row for each event: when, where, which gas, and what tells of it."""
        number_ = result["selected_event"].values
        names = ["unknown", *map(str, result["gas"].values)]
        basis = json.loads(result.attrs["basis"])
        learnt = basis.pop("learnt_from")
        learnt["names"] = learnt["names"][:_NAMED]
        wavelength = np.round(result["wavelength"].values, 4).tolist()
        granules = result["granule_name"].to_series() if "granule_name" in result.coords else None
        first, unusual = result["block_scanline"].values, result["unusual_channel"].values
        rows = []
        for i, event in enumerate(result["event_number"].values):
            mine = np.flatnonzero(number_ == event)
            if not mine.size:
                continue
            some = result.isel(selected=mine)
            line, row = some["selected_scanline"].values, some["selected_ground_pixel"].values
            rate = some["selected_false_alarm_rate"].values
            time = some["selected_time"].values
            bounds = [some[f"selected_{name}_bounds"].values for name in ("latitude", "longitude")]
            kind = int(result["event_class"].values[i]) - UNKNOWN
            peak = int(np.nanargmax(some["selected_snr"].values[:, kind - 1]) if kind else np.argmin(rate))
            snr = result["event_snr"].values[i]
            rows.append(
                {
                    "time": pd.Timestamp(time.min(), tz="UTC"),
                    "time_end": pd.Timestamp(time.max(), tz="UTC"),
                    "kind": names[kind],
                    "geometry": clusters.outline(*bounds),
                    "quality": float(np.clip(result["event_unexplained"].values[i] / 0.05, 0, 1)),
                    "false_alarm_rate": float(rate.min()),
                    "pixels": int(mine.size),
                    "peak_scanline": int(line[peak]),
                    "peak_ground_pixel": int(row[peak]),
                    "peak_latitude": float(some["selected_latitude"].values[peak]),
                    "peak_longitude": float(some["selected_longitude"].values[peak]),
                    **{f"snr_{name}": float(snr[j]) for j, name in enumerate(names[1:])},
                    **{
                        f"amplitude_{name}": float(result["event_amplitude"].values[i, j])
                        for j, name in enumerate(names[1:])
                    },
                    "event": int(event),
                    **(
                        {"granules": granules[some["selected_granule"].values].unique().tolist()}
                        if granules is not None
                        else {}
                    ),
                    "unusual_channels": [
                        wavelength[c] for c in np.flatnonzero(unusual[np.searchsorted(first, line[peak], "right") - 1])
                    ],
                    "wavelength": wavelength,
                    "signature": np.round(result["event_residual"].values[i].astype(float), 3).tolist(),
                    "basis": basis,
                    "learnt_from": learnt,
                }
            )
        columns = ["time", "time_end", "kind", "geometry", "quality", "false_alarm_rate", "pixels"]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def _mean_of(basis: screening.Basis, residual: np.ndarray) -> screening.Examination:
    """A mean residual, in units of the noise, as one spectrum."""
    return screening.Scorer(basis).examine((residual * basis.noise + basis.mean)[None], np.zeros(1, int))


def _pixels(spectra: xr.Dataset, at: tuple[np.ndarray, np.ndarray], score: np.ndarray) -> clusters.Pixels:
    """Some pixels as `clusters` takes them."""
    latitude, longitude = (np.asarray(spectra[n].values, float) for n in ("latitude", "longitude"))
    bounds = [np.asarray(spectra[f"{n}_bounds"].values, float)[at] for n in ("latitude", "longitude")]
    return clusters.Pixels(np.asarray(spectra["time"].values)[at[0]], latitude[at], longitude[at], score, *bounds)


def _taken(pixels: clusters.Pixels, rules: clusters.Rules) -> np.ndarray:
    """Which pixels `Clusters.add` takes in."""
    good = (np.asarray(pixels.score) >= rules.grow) & np.isfinite(pixels.latitude_bounds + pixels.longitude_bounds).all(
        axis=1
    )
    return good & np.isfinite(pixels.latitude + pixels.longitude) & ~np.isnat(pixels.time)


def _with_corners(spectra: xr.Dataset) -> xr.Dataset:
    """Spectra whose pixels have corners; where none were delivered, pixels are as large as they lie apart."""
    if "latitude_bounds" in spectra and "longitude_bounds" in spectra:
        return spectra
    latitude, longitude = (np.asarray(spectra[n].values, float) for n in ("latitude", "longitude"))
    turned = np.rad2deg(np.unwrap(np.unwrap(np.deg2rad(longitude), axis=1), axis=0))
    bounds = {"latitude": _corners(latitude), "longitude": _corners(turned)}
    return spectra.assign({f"{n}_bounds": ((*PIXEL, "corner"), values) for n, values in bounds.items()})


def _corners(middle: np.ndarray) -> np.ndarray:
    """Corners (..., 4) of cells from their middles (lines, rows), half-way to the neighbours."""
    padded = (
        np.pad(middle, 1, mode="reflect", reflect_type="odd")
        if min(middle.shape) > 1
        else np.pad(middle, 1, mode="edge")
    )
    corner = (padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]) / 4
    return np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], axis=-1)


def _spans(lines: np.ndarray) -> Any:
    """Rising numbers as a slice, where they follow each other."""
    if lines.size and lines[-1] - lines[0] == lines.size - 1:
        return slice(int(lines[0]), int(lines[-1]) + 1)
    return lines


def _selected(spectra: xr.Dataset, line: np.ndarray, row: np.ndarray) -> dict[str, Any]:
    """What the cube has of some pixels, in the order of their scanlines, as it was delivered; no other scanline is read."""
    names = [name for name in KEPT if name in spectra and spectra[name].dims[:1] == ("scanline",)]
    cube = xr.Dataset({f"selected_{name}": spectra[name].variable for name in names})
    # The scanlines of a block are read together, so that memory stays bounded.
    block = np.digitize(line, [b.lines.start for b in _spectra.blocks(spectra)])
    parts = []
    for run in np.split(np.arange(line.size), np.flatnonzero(np.diff(block) > 0) + 1):
        lines, which = np.unique(line[run], return_inverse=True)
        read = cube.isel(scanline=_spans(lines)).compute()
        at = {"scanline": ("selected", which), "ground_pixel": ("selected", row[run])}
        parts.append(read.isel(at, missing_dims="ignore"))
    found = xr.concat(parts, "selected", data_vars="all")
    return {str(name): (array.dims, array.values, dict(array.attrs)) for name, array in found.data_vars.items()}


def _means(residual: np.ndarray, event: np.ndarray, numbers: list[int]) -> np.ndarray:
    """The mean residual of each event; NaN in channels that none of its spectra has."""
    found = np.full((len(numbers), residual.shape[1]), np.nan, np.float32)
    for i, number_ in enumerate(numbers):
        mine = residual[event == number_]
        there = np.isfinite(mine)
        np.divide(np.where(there, mine, 0).sum(axis=0), there.sum(axis=0), out=found[i], where=there.any(axis=0))
    return found


#: What readers do not always say of what belongs to a granule.
_WORDS = {
    "granule_name": {"long_name": "name of the file of the granule"},
    "orbit": {"long_name": "number of the orbit", "units": "1"},
}


def _of_granules(spectra: xr.Dataset, line: np.ndarray) -> xr.Dataset:
    """What the cube has of the granules of some scanlines."""
    if "granule" not in spectra or spectra["granule"].dims != ("scanline",):
        return xr.Dataset()
    used = np.unique(_spectra.granules(spectra)[line])
    found = {new: spectra[old].variable for old, new in OF_GRANULES.items() if old in spectra}
    found = {name: array.isel(granule=used) for name, array in found.items() if array.dims[:1] == ("granule",)}
    for name, words in _WORDS.items():
        if name in found and not found[name].attrs.get("long_name"):
            found[name] = xr.Variable(found[name].dims, found[name].values, {**found[name].attrs, **words})
    told = xr.Dataset(found).set_coords(
        [name for name in ("granule_name", "orbit", "granule_attributes") if name in found]
    )
    return told.assign_coords(
        granule=("granule", used.astype(np.int32), {"long_name": "number of the granule", "units": "1"})
    )


def _looked_at(
    rows: _scoring.Rows,
    learnt: Learnt,
    stratum: np.ndarray,
    spectra: xr.Dataset,
    selected: dict,
    line: np.ndarray,
    row: np.ndarray,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Residuals of the selected spectra on the basis' grid, amplitudes of gases and their SNR."""
    grid, g = learnt.basis.wavelength, len(learnt.basis.gases)
    residual = np.full((line.size, grid.size), np.nan, np.float32)
    levels = np.full(line.size, np.nan, np.float32)
    amplitude, snr = np.full((2, line.size, g), np.nan, np.float32)
    granule = _spectra.granules(spectra)[line]
    radiance = selected["selected_radiance"][1]
    for one in np.unique(granule):
        mine = np.flatnonzero(granule == one)
        light = rows.light(int(one))
        y, brightness = _spectra.shapes(radiance[mine], None if light.sun is None else light.sun[row[mine]])
        stripe = None if light.stripe is None else light.stripe[row[mine]]
        y = learnt.level.even(y, light.mean[row[mine]], brightness, stripe)
        scorer = rows.scorer(int(one)).compute()
        shapes = _scoring.some(scorer, y, row[mine]).components
        y[_scoring.hits(scorer.residual(y, shapes, row[mine], without_gases=True))] = np.nan
        found = scorer.examine(y, row[mine])
        levels[mine] = learnt.level.of(brightness)
        amplitude[mine] = found.amplitude * levels[mine, None]
        snr[mine] = _scoring.snr(found.amplitude / found.deviation, learnt.usual, stratum[line[mine], row[mine]])
        for i, values in zip(mine, found.residual, strict=True):
            good = np.isfinite(values)
            if good.any():
                residual[i] = np.interp(grid, light.wavelength[row[i]][good], values[good])
    return residual, {"amplitude": amplitude, "snr": snr, "level": levels}


def _local(residual: np.ndarray) -> np.ndarray:
    """The leading right singular vectors of the residuals, largest first, each with its largest channel positive."""
    some = residual[np.isfinite(residual).all(axis=1)]
    found = np.full((LOCAL, residual.shape[1]), np.nan, np.float32)
    if len(some):
        axes = np.linalg.svd(some.astype(float), full_matrices=False)[2][:LOCAL]
        sign = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
        found[: len(axes)] = axes * sign[:, None]
    return found
