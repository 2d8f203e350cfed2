"""Learning and scoring of spectra beside scikit-learn and beside this machine's limits, as ratios of one run.

    python benchmarks/atmosphere_screening.py 100000x480

Every program runs alone in a process of its own, so that its memory is its own: what it takes beyond the spectra, with the
import of its library and without. Learning is compared with the solvers of scikit-learn's PCA and with the bare product X'X,
which no covariance can do without; how far eigenvalues and the leading directions are from double precision stands beside.
Scoring (reconstruction score, T2, 8 windows, 4 gases, residual extrema) is compared with scikit-learn's transform, inverse
transform and root mean square of what remains, in batches, which is a reconstruction score alone.

The roof is the slower of two limits measured in the same process with as many threads: the rate of large matrix products,
for what no residual and no gas can do without (c, a and a by S from the spectrum and the residual from c, in the words of
`methods/screening.py`: 2 m (2 k + 2 g) operations), and the rate at which memory is read, for the spectra and, once for
each block, the basis of each of its rows. What else is done with every residual (extrema, windows) is not in it. Seconds of
different machines or hours cannot be compared, only the ratios of one run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import _alone
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
KEPT = 60
SCORED = (10, 60)
GASES, WINDOWS = 4, 8
#: Lines and rows of a block of scored spectra.
LINES, ROWS = 100, 215
BATCH = 10_000


def synthetic_spectra(number: int, channels: int, seed: int = 0) -> np.ndarray:
    """Forty decaying directions and unit noise, in single precision."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(99).standard_normal((40, channels)).astype(np.float32)
    weights = (10 * 0.8 ** np.arange(40)).astype(np.float32)
    x = np.empty((number, channels), np.float32)
    for start in range(0, number, 1000):  # so few that what is left behind is no room for others
        some = x[start : start + 1000]
        scores = random.standard_normal((len(some), 40), np.float32) * weights
        np.matmul(scores, directions, out=some)
        some += random.standard_normal(some.shape, np.float32)
    return x


# Learning ---------------------------------------------------------------------------------------------------------------


def ours(x: np.ndarray):
    from phidias_lab.methods import pca

    return pca.fit(x, KEPT)


def bare_product(x: np.ndarray) -> None:
    x.T @ x


def by_scikit_learn(solver: str) -> Callable:
    def learn(x: np.ndarray):
        from sklearn.decomposition import PCA, IncrementalPCA

        if solver == "IncrementalPCA":
            model = IncrementalPCA(KEPT, batch_size=5000)
        else:
            model = PCA(KEPT, svd_solver=solver, random_state=0)
        model.fit(x)
        return model.mean_, model.explained_variance_ * ((len(x) - 1) / len(x)), model.components_.T

    return learn


SOLVERS = ("covariance_eigh", "full", "randomized", "IncrementalPCA")
LEARNING = {"ours": ours, "bare product": bare_product} | {solver: by_scikit_learn(solver) for solver in SOLVERS}


def accuracy(x: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> dict:
    """How far eigenvalues and the span of the 20 leading directions are from those in double precision."""
    gram, total = np.zeros((x.shape[1],) * 2), np.zeros(x.shape[1])
    for start in range(0, len(x), BATCH):
        some = x[start : start + BATCH].astype(float)
        gram += some.T @ some
        total += some.sum(axis=0)
    w, v = np.linalg.eigh(gram / len(x) - np.outer(total, total) / len(x) ** 2)
    w, v = w[::-1][: len(values)], v[:, ::-1][:, : min(20, len(values))]
    q, _ = np.linalg.qr(np.asarray(vectors, float)[:, : v.shape[1]])
    sine = np.linalg.norm(q - v @ (v.T @ q), 2)
    return {
        "eigenvalue_error": float(np.abs(np.asarray(values) / w - 1).max()),
        "angle": float(np.arcsin(min(sine, 1.0))),
    }


def measure_learning(program: str, number: int, channels: int) -> dict:
    x = synthetic_spectra(number, channels)
    bare = _peak()
    LEARNING[program](x[:5000])  # imports, and the threads of the BLAS
    ready = _peak()
    seconds, found = _timed(lambda: LEARNING[program](x))
    run = {"program": program, "seconds": seconds, "more_mib": _peak() - bare, "without_import_mib": _peak() - ready}
    return run | (accuracy(x, *found[1:]) if found else {})


# Scoring ----------------------------------------------------------------------------------------------------------------


def scorer(x: np.ndarray, components: int, rows: int):
    """Ours, with wavelengths that differ from row to row."""
    from phidias_lab.methods import pca, screening

    channels = x.shape[1]
    wavelength = np.linspace(2305, 2343, channels)
    random = np.random.default_rng(1)
    gases = {f"gas {i}": random.standard_normal(channels) for i in range(GASES)}
    windows = {f"window {i}": np.arange(channels) * WINDOWS // channels == i for i in range(WINDOWS)}
    moments = pca.Moments(channels).add(x[:20_000])
    basis = screening.learn(moments, wavelength, np.ones(channels), components, gases, windows, constant=False)
    step = wavelength[1] - wavelength[0]
    return screening.Scorer(basis, wavelength + step / 2 * np.linspace(0, 1, rows)[:, None] ** 2)


def measure_scoring(components: int, number: int, channels: int, repeats: int = 5) -> dict:
    """Ours, scikit-learn and the limits in turn, so that what else the machine does meets all of them alike."""
    from phidias_lab.methods import threads

    x = synthetic_spectra(number, channels)
    rows = min(ROWS, max(number // 20, 1))
    lines = min(LINES, number // rows)
    blocks = [x[i : i + lines * rows] for i in range(0, number - lines * rows + 1, lines * rows)]
    blocks = [block.reshape(lines, rows, channels) for block in blocks]
    ready = scorer(x, components, rows)
    peer = _peer(x, components)
    size = 3000
    a, b = (np.random.default_rng(i).random((size, size), np.float32) for i in (0, 1))
    product, memory = np.empty_like(a), np.ones(2**26, np.float32)
    readers = ThreadPoolExecutor(threads.cores())
    acts = {
        "ours": lambda: [ready.score(block) for block in blocks],
        "product": lambda: np.matmul(a, b, out=product),
        "read": lambda: list(readers.map(np.sum, np.array_split(memory, threads.cores()))),
    }
    if peer:
        acts["scikit-learn"] = lambda: [_by_peer(peer, x[i : i + BATCH]) for i in range(0, number, BATCH)]
    ready.score(blocks[0])  # compiled, where this machine has not done so before
    best = dict.fromkeys(acts, np.inf)
    for _ in range(repeats):
        for name, act in acts.items():
            best[name] = min(best[name], _timed(act)[0])
    scored = len(blocks) * lines * rows
    rate, product_rate, read_rate = scored / best["ours"], 2 * size**3 / best["product"], memory.nbytes / best["read"]
    numbers = channels * (2 * components + 2 * GASES)  # of a row's basis
    roof = min(product_rate / (2 * numbers), read_rate / (4 * (channels + numbers / lines)))
    result = {
        "components": components,
        "spectra_per_second": rate,
        "product_gflops": product_rate / 1e9,
        "read_gb_per_second": read_rate / 1e9,
        "share_of_roof": rate / roof,
        "times_faster_than_scikit_learn": rate * best["scikit-learn"] / number if peer else None,
    }
    return result | {"difference": _difference(ready, blocks[0])}


def _peer(x: np.ndarray, components: int):
    if importlib.util.find_spec("sklearn") is None:
        return None
    from sklearn.decomposition import PCA

    return PCA(components, svd_solver="covariance_eigh").fit(x[:20_000])


def _by_peer(model, batch: np.ndarray) -> np.ndarray:
    residual = batch - model.inverse_transform(model.transform(batch))
    return np.sqrt((residual * residual).mean(axis=1))


def _difference(ready, block: np.ndarray) -> float:
    """The largest difference of reconstruction scores and SNR to those computed one by one in double precision."""
    found, _ = ready.score(block)
    worst = 0.0
    for row in range(0, block.shape[1], 20):
        alone = ready.examine(block[:, row], np.full(len(block), row))
        freedom = block.shape[2] - ready.k
        reconstruction = np.sqrt(np.square(alone.residual.astype(float)).sum(axis=1) / freedom)
        worst = max(worst, np.abs(found.reconstruction[:, row] - reconstruction).max())
        worst = max(worst, np.abs(found.snr[:, row] - alone.amplitude / alone.deviation).max())
    return float(worst)


# ------------------------------------------------------------------------------------------------------------------------


def _timed(act: Callable):
    start = time.perf_counter()
    found = act()
    return time.perf_counter() - start, found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(kind: str, what: str, number: int, channels: int) -> dict:
    return _alone.in_own_process(__file__, f"{number}x{channels}", "--only", kind, what)


def compare(number: int, channels: int, repeats: int) -> dict:
    """All programs on the same spectra, the fastest of some repeats each."""
    with_peer = importlib.util.find_spec("sklearn") is not None
    tries: dict[str, list[dict]] = {}
    for _ in range(repeats):
        for program in LEARNING:
            if with_peer or program not in SOLVERS:
                tries.setdefault(program, []).append(in_own_process("learning", program, number, channels))
    learning = [min(found, key=lambda run: run["seconds"]) for found in tries.values()]
    for run in learning:
        run["times_the_time_of_ours"] = run["seconds"] / learning[0]["seconds"]
        run["times_the_memory_of_ours"] = run["more_mib"] / max(learning[0]["more_mib"], 1.0)
    scoring = [in_own_process("scoring", str(components), number, channels) for components in SCORED]
    return {"spectra": number, "channels": channels, "peer": with_peer, "learning": learning, "scoring": scoring}


def table(results: list[dict]) -> str:
    def cell(value, form: str, width: int) -> str:
        return f"{'-':>{width}}" if value is None else f"{value:{width}{form}}"

    rows = []
    for result in results:
        rows.append(f"{result['spectra']} spectra of {result['channels']} channels, {KEPT} components learnt")
        rows.append(
            f"{'learning':>16} {'seconds':>8} {'MiB more':>9} {'no import':>10} {'time/ours':>10} {'memory/ours':>12} "
            f"{'eigenvalues':>12} {'angle':>9}"
        )
        for run in result["learning"]:
            rows.append(
                f"{run['program']:>16} {run['seconds']:8.3f} {run['more_mib']:9.1f} {run['without_import_mib']:10.1f} "
                f"{run['times_the_time_of_ours']:10.2f} "
                f"{run['times_the_memory_of_ours']:12.1f} {cell(run.get('eigenvalue_error'), '.1e', 12)} "
                f"{cell(run.get('angle'), '.1e', 9)}"
            )
        rows.append(
            f"{'scoring with':>16} {'spectra/s':>10} {'GFLOP/s':>8} {'read GB/s':>10} {'share of roof':>14} "
            f"{'scikit-learn/ours':>18} {'difference':>11}"
        )
        for run in result["scoring"]:
            rows.append(
                f"{run['components']:>16} {run['spectra_per_second']:10.0f} {run['product_gflops']:8.0f} "
                f"{run['read_gb_per_second']:10.1f} {run['share_of_roof']:14.2f} "
                f"{cell(run['times_faster_than_scikit_learn'], '.1f', 18)} {run['difference']:11.1e}"
            )
        if not result["peer"]:
            rows.append("scikit-learn is not installed, so nothing stands beside ours.")
    return "\n".join(rows)


def size(text: str) -> tuple[int, int]:
    number, _, channels = text.partition("x")
    return int(number), int(channels)


def main(arguments: list[str] | None = None) -> dict:
    """Run the comparison for sizes such as 100000x480; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=size, default=[(100_000, 480)], help="spectra x channels")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        kind, what = options.only
        number, channels = options.sizes[0]
        measured = (
            measure_learning(what, number, channels)
            if kind == "learning"
            else measure_scoring(int(what), number, channels)
        )
        print(json.dumps(measured))
        return measured
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "results": [compare(*one, options.repeats) for one in options.sizes],
    }
    print(table(report["results"]))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "atmosphere_screening.json").write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    main()
