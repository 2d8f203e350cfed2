"""Where arrays live: numpy on the processor, cupy or torch on a GPU, behind one namespace.

    place = on("auto")              # a GPU where one is visible and a library for it is installed, else the processor
    with place.active():            # of several GPUs, the one of this thread
        x = place.put(values)       # in
        y = place.xp.sqrt(x)        # the functions of the array API standard, by array-api-compat
        result = place.get(y)       # out, as a numpy array
    place.sentence                  # "No GPU is visible here, so it runs on the processor."

What a method needs from a place is this namespace, its operators, and `matrix` for sparse matrices; then the same code
runs in all three.  Neither cupy nor torch is imported before a place on them is asked for.

The visible GPUs are those that the driver shows to this process: where Slurm gave it some, CUDA_VISIBLE_DEVICES names
exactly these.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module, util
from typing import Any

import numpy as np
from scipy import sparse

from phidias_lab.errors import MissingExtraError, ParameterError, nearest

DEVICES = ("auto", "cpu", "cuda")
LIBRARIES = ("numpy", "cupy", "torch")
#: The extra that brings a library; the sentence about a missing one names it.
EXTRAS = {"cupy": "gpu", "torch": "torch"}
#: What stands on a GPU is computed with the first of these that is installed.
ON_GPU = ("cupy", "torch")


@dataclass(frozen=True)
class Place:
    """A device, the library that computes there, and one sentence that says where and why."""

    device: str
    library: str
    sentence: str
    xp: Any = field(repr=False)
    put: Callable[[Any], Any] = field(repr=False)
    get: Callable[[Any], np.ndarray] = field(repr=False)
    matrix: Callable[[sparse.csr_array], Any] = field(repr=False)
    wait: Callable[[], None] = field(repr=False)
    active: Callable[[], AbstractContextManager] = field(repr=False)


class _Unusable(Exception):
    """A library that is installed but cannot be used for what was asked; the text goes on after "but"."""


_used: dict[str, None] = {}


def used() -> list[str]:
    """Where this process has computed so far, each place in its sentence."""
    return list(_used)


def on(device: str = "auto", library: str | None = None) -> Place:
    """The place for a device: "auto", "cpu" or "cuda".  A `library` is named only to compare them."""
    place = _on(device, library)
    _used[place.sentence] = None
    return place


def _on(device: str, library: str | None) -> Place:
    if device not in DEVICES:
        raise ParameterError(f"There is no device {device!r}. {nearest(str(device), DEVICES)}")
    if library is not None and library not in LIBRARIES:
        raise ParameterError(f"There is no array library {library!r}. {nearest(str(library), LIBRARIES)}")
    if device == "cpu":
        return _on_processor(library or "numpy", "The processor was asked for, so it runs there.")
    if library == "numpy":
        return _on_processor("numpy", "numpy was asked for, so it runs on the processor.")
    if not visible_gpus():
        if device == "cuda":
            raise ParameterError(
                "A GPU was asked for, but none is visible here. Choose the device 'auto' or 'cpu', or a place with GPUs."
            )
        return _on_processor(library or "numpy", "No GPU is visible here, so it runs on the processor.")
    installed = [name for name in ([library] if library else ON_GPU) if util.find_spec(name)]
    unusable = []
    for name in installed:
        try:
            return _on_gpu(name)
        except _Unusable as error:
            unusable.append(str(error))
    if device == "cuda" and not installed:
        raise MissingExtraError("A GPU", EXTRAS[library or "cupy"])
    why = " and ".join(unusable) or "neither cupy nor torch is installed (pip install 'phidias-lab[gpu]')"
    if device == "cuda":
        raise ParameterError(f"A GPU was asked for and is visible here, but {why}. Choose the device 'auto' or 'cpu'.")
    return _on_processor(library or "numpy", f"A GPU is visible here, but {why}, so it runs on the processor.")


@functools.cache
def visible_gpus() -> int:
    """How many GPUs the driver shows to this process; asked once, without cupy or torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


_turns = itertools.count()
_local = threading.local()


def _number() -> int:
    """The GPU of this thread: where a process was given several, its threads take turns."""
    if not hasattr(_local, "number"):
        _local.number = next(_turns)
    return _local.number % visible_gpus()


def _on_processor(library: str, sentence: str) -> Place:
    if library == "torch":
        if util.find_spec("torch") is None or util.find_spec("array_api_compat") is None:
            raise MissingExtraError("Computing with torch", EXTRAS["torch"])
        return _torch("cpu", sentence)
    if library == "cupy":
        raise ParameterError("cupy computes on a GPU only, and none is used here. Name numpy or torch.")
    return Place("cpu", "numpy", sentence, np, np.asarray, np.asarray, sparse.csr_array, lambda: None, nullcontext)


def _on_gpu(library: str) -> Place:
    number = _number()
    return _cupy(number) if library == "cupy" else _torch(f"cuda:{number}")


def _namespace(library: str) -> Any:
    try:
        return import_module(f"array_api_compat.{library}")
    except ImportError as error:
        raise _Unusable(f"{library} cannot be used ({error})") from None


def _cupy(number: int) -> Place:
    xp = _namespace("cupy")
    import cupy
    from cupyx.scipy import sparse as on_gpu

    try:
        with cupy.cuda.Device(number):
            name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
            cupy.zeros(1).get()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise _Unusable(f"cupy cannot use it ({error})") from None

    def matrix(given: sparse.csr_array) -> Any:
        parts = (given.data, given.indices.astype(np.int32), given.indptr.astype(np.int32))
        return on_gpu.csr_matrix(tuple(map(cupy.asarray, parts)), shape=given.shape)

    return Place(
        "cuda",
        "cupy",
        f"It runs on the GPU ({name}) by cupy.",
        xp,
        cupy.asarray,
        cupy.asnumpy,
        matrix,
        lambda: cupy.cuda.Device(number).synchronize(),
        lambda: cupy.cuda.Device(number),
    )


def _torch(device: str, sentence: str = "") -> Place:
    xp = _namespace("torch")
    import torch

    on_gpu = device != "cpu"
    if on_gpu:
        try:
            torch.zeros(1, device=device).cpu()
        except (RuntimeError, AssertionError) as error:
            raise _Unusable(f"torch cannot use it ({str(error).splitlines()[0]})") from None
        sentence = f"It runs on the GPU ({torch.cuda.get_device_name(device)}) by torch."

    def put(values: Any) -> Any:
        return torch.as_tensor(np.asarray(values), device=device)

    def matrix(given: sparse.csr_array) -> Any:
        parts = (given.indptr.astype(np.int32), given.indices.astype(np.int32), given.data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            return torch.sparse_csr_tensor(*map(put, parts), size=given.shape, check_invariants=False)

    return Place(
        "cuda" if on_gpu else "cpu",
        "torch",
        sentence,
        xp,
        put,
        lambda values: values.cpu().numpy(),
        matrix,
        (lambda: torch.cuda.synchronize(device)) if on_gpu else (lambda: None),
        (lambda: torch.cuda.device(device)) if on_gpu else nullcontext,
    )
