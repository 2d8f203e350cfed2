"""From level 1B files to events, beside what merely inflating them costs with the NetCDF library, in one run.

    python benchmarks/atmosphere_events.py 500
    python benchmarks/atmosphere_events.py 1000 4000 --level 3

Granules of band 7 (215 rows, 480 channels) are written in the real layout from synthetic spectra with a fire in them, and a
basis is learnt from short granules of the days around. `atmosphere.screening` then takes the file as a notebook would:
opened by its name, with all scores, events and selected spectra as the result. The peer reads the radiances and their flags
with the NetCDF library, block by block, and does nothing with them: in one thread, and in two processes, half of them each.
Every measurement has a process of its own, and the best of the repeats counts; what compiled code needs to be loaded is in
the first repeat only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import _alone
import numpy as np
import xarray as xr

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("radiance", "spectral_channel_quality")
LINES = 100


def learn(folder: Path, learning_size: int) -> dict:
    """A basis of synthetic granules that are spread over 32 days' orbits."""
    from phidias_lab.chains.atmosphere import _scenes
    from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis
    from phidias_lab.testing.scenes import spectra

    cube = spectra.cube(_scenes.spread(spectra.TROPOMI_BAND_7, scanlines=32))
    start = time.perf_counter()
    basis = ScreeningBasis(learning_size=learning_size)(spectra=cube)
    basis.to_netcdf(folder / "basis.nc")
    return {"components": basis.sizes["component"], "seconds": time.perf_counter() - start}


def write(folder: Path, scanlines: int, level: int) -> dict:
    """The file to be screened, and that of irradiances beside it."""
    from phidias_lab.chains.atmosphere import _scenes
    from phidias_lab.products import l1b
    from phidias_lab.testing.scenes import spectra

    of = spectra.TROPOMI_BAND_7
    plain = _scenes.granule(1, scanlines, of=of)
    fire = spectra.Event("fire", "fire", *plain.place(min(60, scanlines // 2), 100), 6.0, length=150.0, width=25.0)
    scene = _scenes.granule(1, scanlines, (fire,), of=of)
    path = folder / spectra.name(scene)
    l1b.write(spectra.granule(scene), path, level=level)
    sun = spectra.irradiance(scene)
    l1b.write(sun, folder / path.name.replace("_RA_BD7_", "_IR_SIR_"), level=level)
    return {"path": str(path), "bytes": path.stat().st_size}


def inflate(path: str, part: tuple[float, float] = (0, 1)) -> int:
    """How many scanlines of a part of the file were read with the NetCDF library."""
    import netCDF4

    done = 0
    with netCDF4.Dataset(path) as data:
        group = data["BAND7_RADIANCE/STANDARD_MODE/OBSERVATIONS"]
        group.set_auto_maskandscale(False)
        first, last = (round(share * len(group.dimensions["scanline"])) for share in part)
        for start in range(first, last, LINES):
            read = [group[name][:, start : min(start + LINES, last)] for name in NAMES]
            done += read[0].shape[1]
    return done


def measure(folder: Path, path: str, program: str, repeat: int) -> dict:
    events = kept = None
    if program == "screening":
        from phidias_lab.chains.atmosphere.screening import Screening
        from phidias_lab.sources.l1b import FORMAT

        basis = xr.load_dataset(folder / "basis.nc")

    def run() -> int:
        nonlocal events, kept
        if program == "inflating":
            return inflate(path)
        if program == "inflating twice":
            with ProcessPoolExecutor(2) as two:
                return sum(two.map(inflate, [path, path], [(0, 0.5), (0.5, 1)]))
        chain = Screening()
        result = chain(spectra=FORMAT.open([path]), basis=basis)
        events, kept = len(chain.events(result)), result.sizes["selected"]
        return result.sizes["scanline"]

    best, cpu = np.inf, np.inf
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        lines = run()
        best = min(best, time.perf_counter() - start)
        cpu = min(cpu, time.process_time() - start_cpu)
    words = {
        "screening": "atmosphere.screening",
        "inflating": "NetCDF, inflating only, 1 thread",
        "inflating twice": "the same in 2 processes",
    }
    return {
        "program": words[program],
        "scanlines": lines,
        "seconds": best,
        "cpu_seconds": cpu,
        "spectra_per_second": lines * 215 / best,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "events": events,
        "kept": kept,
    }


def in_own_process(*given: object) -> dict:
    return _alone.in_own_process(__file__, "--alone", *given, OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore")


def table(results: list[dict]) -> str:
    rows = [
        f"{'scanlines':>9}  {'program':<33} {'seconds':>8} {'CPU s':>7} {'spectra/s':>10} {'times':>6} {'MiB':>5} events"
    ]
    for run in results:
        rows.append(
            f"{run['scanlines']:>9}  {run['program']:<33} {run['seconds']:8.3f} {run['cpu_seconds']:7.3f} "
            f"{run['spectra_per_second']:10.0f} {run['of_inflating']:6.2f} {run['peak_mib']:5.0f} "
            + ("" if run["events"] is None else f"{run['events']}, {run['kept']} spectra kept")
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> dict:
    """Measure numbers of scanlines such as 4173 (an orbit); returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scanlines", nargs="*", type=int, default=[500])
    parser.add_argument("--level", type=int, default=3, help="of deflate")
    parser.add_argument("--learning-size", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        what, folder, *rest = options.alone
        if what == "measure":
            answer = measure(Path(folder), rest[0], rest[1], int(rest[2]))
        else:
            answer = {"learn": learn, "write": write}[what](Path(folder), *map(int, rest))
        print(json.dumps(answer))
        return answer
    results = []
    with tempfile.TemporaryDirectory() as folder:
        basis = in_own_process("learn", folder, options.learning_size)
        print(f"Basis of {basis['components']} components, learnt in {basis['seconds']:.0f} s")
        for scanlines in options.scanlines:
            place = Path(folder) / str(scanlines)
            place.mkdir()
            (place / "basis.nc").hardlink_to(Path(folder) / "basis.nc")
            path = in_own_process("write", place, scanlines, options.level)["path"]
            programs = ("inflating", "inflating twice", "screening")
            runs = [in_own_process("measure", place, path, program, options.repeat) for program in programs]
            results += [run | {"of_inflating": runs[0]["seconds"] / run["seconds"]} for run in runs]
            Path(path).unlink()
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "level": options.level,
        "basis": basis,
        "results": results,
    }
    print(table(results))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "atmosphere_events.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
