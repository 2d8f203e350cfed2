"""Level 1B spectra read beside what merely inflating them costs with the NetCDF library, in one run: ratio and memory.

    python benchmarks/atmosphere_reading.py 1000
    python benchmarks/atmosphere_reading.py 4173 --level 3

Each number of scanlines is written twice in the real layout (215 rows, 480 channels), with radiances as floats and as
integers with a scale per spectrum; the values are synthetic: smooth spectra with noise in all bits. The peer reads the same
variables with the NetCDF library in one thread, block by block, and does nothing with them. Ours gives radiances that are
decoded and NaN where a channel is bad. Every measurement has a process of its own, and the best of the repeats counts.
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
from datetime import UTC, datetime
from pathlib import Path

import _alone
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ROWS, CHANNELS = 215, 480
ENCODINGS = ("float", "integer")


def synthetic_file(path: Path, encoding: str, scanlines: int, level: int) -> None:
    """A file of band 7 whose radiances have the size and the smoothness of real ones."""
    import dask.array as da

    from phidias_lab.methods.formats import l1b
    from phidias_lab.products.l1b import write

    shapes = np.random.default_rng(0).standard_normal((20, CHANNELS)).astype("f4")

    def spectra(block_info=None) -> np.ndarray:
        (start, stop) = block_info[None]["array-location"][1]
        random = np.random.default_rng(start)
        weights = random.standard_normal((stop - start, ROWS, 20), "f4") * 0.05
        noise = random.standard_normal((stop - start, ROWS, CHANNELS), "f4") * 0.05
        return ((5 + weights @ shapes + noise) * np.float32(1e-7))[None]

    lines = tuple(min(100, scanlines - start) for start in range(0, scanlines, 100))
    chunks = ((1,), lines, (ROWS,), (CHANNELS,))
    radiance = da.map_blocks(spectra, chunks=chunks, dtype="f4", meta=np.empty((0,) * 4, "f4"))
    moments = np.datetime64("2022-06-28T18:58:06") + np.arange(scanlines) * np.timedelta64(840, "ms")
    seconds, milliseconds = l1b.encode_times(moments)
    place = np.zeros((1, scanlines, ROWS), "f4")
    arrays = {
        "time": seconds,
        "delta_time": milliseconds,
        "radiance_noise": da.full(radiance.shape, 20, dtype="i1", chunks=chunks),
        "spectral_channel_quality": da.zeros(radiance.shape, dtype="u1", chunks=chunks),
        "latitude": place,
        "longitude": place,
        "solar_zenith_angle": place + np.float32(40),
        "nominal_wavelength": np.broadcast_to(2300 + 0.1 * np.arange(CHANNELS, dtype="f4"), (1, ROWS, CHANNELS)),
    }
    if encoding == "float":
        arrays["radiance"] = radiance
    else:
        scaling = radiance.max(axis=-1) / np.float32(l1b.MISSING - 1)
        arrays["radiance_int16"] = da.rint(radiance / scaling[..., None]).astype("u2")
        arrays["radiance_scaling"] = scaling.astype("f4").compute()
    write(l1b.Granule(7, arrays, {"synthetic": "true"}), path, level=level)


def names_of(encoding: str) -> tuple[str, ...]:
    radiance = ("radiance",) if encoding == "float" else ("radiance_int16", "radiance_scaling")
    return (*radiance, "spectral_channel_quality")


def measure(path: Path, encoding: str, threads: int, repeat: int) -> dict:
    """Seconds to read all blocks in this process; no thread means the peer."""
    from phidias_lab.sources import l1b

    def peer() -> int:
        import netCDF4

        done = 0
        with netCDF4.Dataset(path) as data:
            group = data["BAND7_RADIANCE/STANDARD_MODE/OBSERVATIONS"]
            group.set_auto_maskandscale(False)
            for start in range(0, len(group.dimensions["scanline"]), 100):
                parts = [group[name][:, start : start + 100] for name in names_of(encoding)]
                done += parts[0].shape[1]
        return done

    def ours() -> int:
        return sum(block.stop - block.start for block in l1b.blocks([l1b.index(path)], threads=threads))

    run, best, cpu = (ours if threads else peer), np.inf, np.inf
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        lines = run()
        best = min(best, time.perf_counter() - start)
        cpu = min(cpu, time.process_time() - start_cpu)
    return {
        "program": f"{threads} thread{'s' * (threads > 1)}" if threads else "NetCDF, inflating only",
        "encoding": encoding,
        "scanlines": lines,
        "seconds": best,
        "cpu_seconds": cpu,
        "spectra_per_second": lines * ROWS / best,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }


def in_own_process(*given: object) -> dict:
    return _alone.in_own_process(__file__, "--alone", *given, OPENBLAS_NUM_THREADS="1")


def table(results: list[dict]) -> str:
    rows = [
        f"{'scanlines':>9} {'encoding':>8}  {'program':<22} {'seconds':>8} {'CPU s':>7} {'spectra/s':>10} "
        f"{'times':>6} {'MiB':>5}"
    ]
    for run in results:
        rows.append(
            f"{run['scanlines']:>9} {run['encoding']:>8}  {run['program']:<22} {run['seconds']:8.3f} "
            f"{run['cpu_seconds']:7.3f} {run['spectra_per_second']:10.0f} {run['times_faster']:6.2f} {run['peak_mib']:5.0f}"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> dict:
    """Measure numbers of scanlines such as 4173 (an orbit); returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scanlines", nargs="*", type=int, default=[500])
    parser.add_argument("--level", type=int, default=3, help="of deflate")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--alone", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone:
        what, path, encoding, *numbers = options.alone
        answer = {"write": synthetic_file, "read": measure}[what](Path(path), encoding, *map(int, numbers))
        print(json.dumps(answer))
        return answer
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for scanlines in options.scanlines:
            for encoding in ENCODINGS:
                path = Path(folder) / f"{encoding}_{scanlines}.nc"
                in_own_process("write", path, encoding, scanlines, options.level)
                peer, *ours = (in_own_process("read", path, encoding, n, options.repeat) for n in [0, *options.threads])
                for run in [peer, *ours]:
                    results.append(run | {"times_faster": peer["seconds"] / run["seconds"]})
                path.unlink()
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "level": options.level,
        "results": results,
    }
    print(table(results))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "atmosphere_reading.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
