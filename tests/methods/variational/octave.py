"""Run octave-divand on a problem of ours, as a separate process that talks through files.

octave-divand is a GPL program: nothing of it is imported, linked or shipped.  Arrays are ours (C order, index "ij").
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat

DRIVER = Path(__file__).with_name("octave_divand.m")


def installed() -> bool:
    """Whether Octave is here and knows the package divand."""
    if not shutil.which("octave-cli"):
        return False
    done = subprocess.run(["octave-cli", "--norc", "--quiet", "--eval", "pkg load divand"], capture_output=True)
    return done.returncode == 0


def _cells(arrays, shape) -> np.ndarray:
    cells = np.empty((1, len(arrays)), object)
    for i, array in enumerate(arrays):
        cells[0, i] = np.broadcast_to(np.asarray(array, float), shape)
    return cells


def divand(
    mask, metrics, coords, obs_coords, values, length, noise, *, alpha=None, cyclic=(), velocity=None, error=False
) -> dict:
    """The peer's field, exact error variance where asked for, seconds, and peak memory in MiB (NaN if unknown)."""
    # A vector is a column in Octave.
    shape = mask.shape if mask.ndim > 1 else (mask.size, 1)
    if np.isscalar(length):
        length = [length] * mask.ndim

    def on_grid(array):
        return np.broadcast_to(np.asarray(array, float), mask.shape).reshape(shape)

    problem = {
        "mask": on_grid(mask),
        "metrics": _cells([on_grid(each) for each in metrics], shape),
        "coords": _cells([on_grid(each) for each in np.meshgrid(*coords, indexing="ij")], shape),
        "lengths": _cells([on_grid(each) for each in length], shape),
        "positions": np.column_stack(obs_coords),
        "values": np.asarray(values, float).reshape(-1, 1),
        "noise": np.broadcast_to(np.asarray(noise, float), (len(values),)).reshape(-1, 1),
        "alpha": np.zeros((0, 0)) if alpha is None else np.asarray(alpha, float).reshape(1, -1),
        "period": np.asarray(cyclic, float).reshape(1, -1) if len(cyclic) else np.zeros((0, 0)),
        "velocity": np.zeros((0, 0)) if velocity is None else _cells([on_grid(each) for each in velocity], shape),
        "want_error": float(error),
    }
    with tempfile.TemporaryDirectory() as folder:
        question, answer, usage = (Path(folder, name) for name in ("question.mat", "answer.mat", "usage.txt"))
        savemat(question, problem)
        command = ["octave-cli", "--norc", "--quiet", str(DRIVER), str(question), str(answer)]
        if measure := shutil.which("time"):
            command = [measure, "-v", "-o", str(usage), *command]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        wall = time.perf_counter() - start
        if done.returncode or not answer.exists():
            raise RuntimeError(f"octave-divand stopped with {done.returncode}: {done.stderr[-2000:]}")
        result = loadmat(answer)
        peak = np.nan
        if usage.exists() and (found := re.search(r"Maximum resident set size \(kbytes\): (\d+)", usage.read_text())):
            peak = int(found[1]) / 1024
    return {
        "field": result["field"].reshape(mask.shape),
        "error_variance": result["variance"].reshape(mask.shape) if error else None,
        "seconds": float(result["seconds"].item()),
        "process_seconds": wall,
        "peak_mib": peak,
    }
