"""A basis of spectra as a product: what was learnt, and how often clean spectra have which score."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from phidias_lab.chains.atmosphere._spectra import Level, Strata
from phidias_lab.errors import InputError
from phidias_lab.methods import alarms, screening

#: Detectors beside the gases: what no gas explains in the whole spectrum, and in the window where it is most.
BESIDE = ("unexplained", "window")
#: All of them as one.
COMBINED = "combined"
#: Points that a curve from score to false-alarm rate is kept at, even in the logarithm of the rate.
POINTS = 256
_TAIL = alarms.Tail._fields


@dataclass(frozen=True)
class Learnt:
    """A basis, the strata it tells apart, and for each detector the false-alarm rate of a score."""

    basis: screening.Basis
    level: Level
    strata: Strata
    usual: tuple[np.ndarray, np.ndarray]  # (gas, stratum) middle and standard deviation of the SNR of usual spectra
    rates: dict[str, alarms.Calibrated]
    dead: np.ndarray  # (rows, m) channels that a row never has
    stripe: np.ndarray  # (rows, m) what a row adds to the mean
    extremes: tuple[
        alarms.Gumbel, alarms.Gumbel
    ]  # of the highest residual of a block, and of the lowest with its sign changed
    quantity: str
    facts: dict[str, Any]

    @property
    def detectors(self) -> tuple[str, ...]:
        return (*self.basis.gases, *BESIDE)


def detected(found: screening.Scores) -> np.ndarray:
    """The scores of all detectors (..., detector), those of the gases first."""
    window = np.where(np.isfinite(found.windows), found.windows, -np.inf).max(axis=-1, initial=-np.inf)
    window[~np.isfinite(window)] = np.nan
    return np.concatenate([found.snr, found.unexplained[..., None], window[..., None]], axis=-1)


def to_dataset(learnt: Learnt) -> xr.Dataset:
    """All that is learnt, as labelled arrays."""
    basis, channel = learnt.basis, "spectral_channel"
    names = [*learnt.strata.names, "all"]
    detectors = [*learnt.detectors, COMBINED]
    curves = [[*learnt.rates[name].curves, learnt.rates[name].together] for name in detectors]
    none = np.full(len(basis.gases), np.nan)
    packed = [[_packed(curve) for curve in row] for row in curves]
    found = {
        "mean": (channel, basis.mean),
        "noise": (channel, basis.noise),
        "shape": ((channel, "component"), basis.shapes),
        "variance": ("component", np.where(np.isfinite(basis.values), basis.values, -1.0)),
        "signature": (("gas", channel), basis.signatures.T),
        "window_channels": (("window", channel), basis.channels.T.astype(np.int8)),
        "factor": ((channel, "factor_number"), basis.factors),
        "white": (channel, basis.white),
        "snr_middle": (("gas", "stratum"), np.column_stack([learnt.usual[0], none])),
        "snr_deviation": (("gas", "stratum"), np.column_stack([learnt.usual[1], none])),
        "dead": (("ground_pixel", channel), learnt.dead.astype(np.int8)),
        "stripe": (("ground_pixel", channel), learnt.stripe),
        "extreme_mode": (("side", channel), np.stack([law.mode for law in learnt.extremes])),
        "extreme_scale": (("side", channel), np.stack([law.scale for law in learnt.extremes])),
        "curve_score": (("detector", "stratum", "point"), np.array([[c[0] for c in row] for row in packed])),
        "curve_rate": (("detector", "stratum", "point"), np.array([[c[1] for c in row] for row in packed])),
        "curve_tail": (("detector", "stratum", "tail"), np.array([[c[2] for c in row] for row in packed])),
        "curve_number": (("detector", "stratum"), np.array([[c[3] for c in row] for row in packed])),
    }
    coords = {
        "wavelength": (channel, basis.wavelength, {"units": "nm", "standard_name": "radiation_wavelength"}),
        "gas": list(basis.gases),
        "window": list(basis.windows),
        "detector": detectors,
        "stratum": names,
        "tail": list(_TAIL),
        "side": ["highest", "lowest"],
    }
    facts = {
        "spectra": basis.spectra,
        "rows": list(learnt.strata.rows),
        "brightness": list(learnt.strata.brightness),
        "level": [list(learnt.level.brightness), list(learnt.level.level)],
        "quantity": learnt.quantity,
        "extremes_of": learnt.extremes[0].number,
        **learnt.facts,
    }
    return xr.Dataset(found, coords, {"screening_basis": json.dumps(facts, sort_keys=True)})


def of_dataset(data: xr.Dataset) -> Learnt:
    """What `to_dataset` wrote; an InputError for anything else."""
    try:
        facts = json.loads(data.attrs["screening_basis"])
        data = data.load()
        gases, windows = (tuple(map(str, np.atleast_1d(data[n].values))) for n in ("gas", "window"))
        variance = data["variance"].values
        basis = screening.Basis(
            wavelength=data["wavelength"].values.astype(float),
            mean=data["mean"].values.astype(float),
            noise=data["noise"].values.astype(float),
            shapes=data["shape"].transpose("spectral_channel", "component").values.astype(float),
            values=np.where(variance < 0, np.inf, variance),
            gases=gases,
            signatures=data["signature"].transpose("spectral_channel", "gas").values.astype(float),
            windows=windows,
            channels=data["window_channels"].transpose("spectral_channel", "window").values.astype(bool),
            factors=data["factor"].transpose("spectral_channel", "factor_number").values.astype(float),
            white=data["white"].values.astype(float),
            spectra=int(facts.pop("spectra")),
        )
        strata = Strata(tuple(facts.pop("rows")), tuple(facts.pop("brightness")))
        level = Level(*map(tuple, facts.pop("level")))
        usual = tuple(data[f"snr_{n}"].transpose("gas", "stratum").values[:, :-1] for n in ("middle", "deviation"))
        rates = {str(name): _calibrated(data.sel(detector=name)) for name in data["detector"].values}
        of = facts.pop("extremes_of")
        extremes = tuple(
            alarms.Gumbel(*(data[f"extreme_{n}"].values[i] for n in ("mode", "scale")), of) for i in (0, 1)
        )
        return Learnt(
            basis,
            level,
            strata,
            usual,
            rates,
            data["dead"].values.astype(bool),
            data["stripe"].values,
            extremes,
            facts.pop("quantity"),
            facts,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"The input 'basis' is no basis of spectra ({type(error).__name__}: {error}). Give a product of "
            "atmosphere.screening_basis."
        ) from None


def provenance(data: xr.Dataset) -> dict[str, Any]:
    """What a result says of its basis: the run and version it is from, a checksum that follows from its values alone, and
    what it was learnt from."""
    facts = json.loads(data.attrs["screening_basis"])
    digest = hashlib.sha256(data.attrs["screening_basis"].encode())
    for name in sorted(map(str, data.variables)):
        values = np.asarray(data[name].values)
        number = values.dtype.kind in "biuf"
        # Labels come as text of fixed or of any length, by how they were stored.
        content = values.tobytes() if number else json.dumps(list(map(str, values.ravel()))).encode()
        digest.update(f"{name}{data[name].dims}{values.dtype.kind if number else ''}{values.shape}".encode() + content)
    told = {"id": "id", "version": "product_version", "created": "date_created"}
    return {
        **{name: str(data.attrs[attribute]) for name, attribute in told.items() if attribute in data.attrs},
        "sha256": digest.hexdigest(),
        "learnt_from": {
            "spectra": facts["spectra"],
            "taken_out": facts["taken_out"],
            "granules": len(facts["learning_set"]),
            "names": facts["learning_set"],
        },
    }


def _packed(curve: alarms.Curve | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    if curve is None:
        none = np.full(POINTS, np.nan)
        return none, none, np.full(len(_TAIL), np.nan), 0
    rates = np.geomspace(1.0, max(curve.rates[-1], alarms.TINY), POINTS)
    order = np.argsort(curve.rates, kind="stable")
    scores = np.interp(np.log(rates), np.log(curve.rates[order]), curve.scores[order])
    return np.maximum.accumulate(scores), rates, np.array(curve.tail, float), curve.number


def _calibrated(one: xr.Dataset) -> alarms.Calibrated:
    curves = []
    for s in range(one.sizes["stratum"]):
        number = int(one["curve_number"].values[s])
        if not number:
            curves.append(None)
            continue
        tail = alarms.Tail(*one["curve_tail"].values[s].tolist())
        tail = tail._replace(excesses=int(tail.excesses))
        curves.append(alarms.Curve(number, one["curve_score"].values[s], one["curve_rate"].values[s], tail))
    return alarms.Calibrated(curves[:-1], curves[-1])
