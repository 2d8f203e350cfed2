"""Solvers of the sparse symmetric positive definite system, by name.

`multifrontal` is our own (see `multifrontal`); `choose` tells what `auto` stands for on a grid.  `iterative` makes no
factor: it needs a fraction of the memory, and runs on a GPU where there is one.  The others are independent of both: `splu`
(SuperLU inside scipy) is always there, `pardiso` is oneMKL's by way of pypardiso, and `cholmod` (scikit-sparse) has GPL
parts, so it is imported only when it is asked for by name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import math
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from packaging.specifiers import SpecifierSet
from scipy import sparse
from scipy.sparse import linalg
from threadpoolctl import ThreadpoolController

from phidias_lab.errors import MissingExtraError, ParameterError, nearest
from phidias_lab.methods import arrays
from phidias_lab.methods.variational import norm
from phidias_lab.methods.variational.dissection import cost
from phidias_lab.methods.variational.grid import Grid
from phidias_lab.methods.variational.iterative import Iterative, singular
from phidias_lab.methods.variational.multifrontal import Multifrontal


@dataclass(frozen=True)
class Places:
    """The grid whose sea nodes a matrix is over, and how far the matrix couples them.

    reach : per dimension, the greatest distance of coupled nodes; couplings beyond it may exist, and cost more.
    """

    grid: Grid
    reach: np.ndarray

    @property
    def nodes(self) -> np.ndarray:
        """Per node, its place along each dimension as whole numbers."""
        return np.argwhere(self.grid.mask)


Progress = Callable[[float], None]


class Factor(Protocol):
    """A factorised matrix."""

    name: str

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve for one right-hand side or for a block of them (columns)."""


@dataclass(frozen=True)
class Solver:
    """A way to factorise: its name, the package it needs with its versions, the extra that brings it, and how."""

    name: str
    package: str
    versions: str
    extra: str | None
    factorise: Callable[[sparse.csr_array, Places, Progress | None], Factor]


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


class SuperLU:
    """LU in symmetric mode: minimum degree on A + A' and pivots on the diagonal, which a definite matrix allows.

    SuperLU hands the BLAS many small dense blocks: with several threads they wait for each other (ten times the
    processor time on a busy machine), and the rounding would depend on their number.  So one thread.
    """

    name = "splu"

    def __init__(self, matrix: sparse.csr_array):
        # By symmetry the rows are the columns: no copy is needed for the order of storage that SuperLU wants.
        columns = sparse.csc_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
        try:
            with _threads().limit(limits=1, user_api="blas"):
                self.lu = linalg.splu(
                    columns, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
                )
        except RuntimeError as error:
            raise singular() from error

    def solve(self, right: np.ndarray) -> np.ndarray:
        with _threads().limit(limits=1, user_api="blas"):
            return self.lu.solve(right)


class Pardiso:
    """Cholesky by oneMKL PARDISO, in its reproducible mode: same input, same bytes, whatever the threads."""

    name = "pardiso"

    def __init__(self, matrix: sparse.csr_array):
        from pypardiso import PyPardisoSolver
        from pypardiso.pardiso_wrapper import PyPardisoError

        self.upper = sparse.csr_matrix(sparse.triu(matrix, format="csr"))
        self.upper.sort_indices()
        self.pardiso = PyPardisoSolver(mtype=2)
        self.pardiso.set_iparm(1, 1)  # the values below are ours, not the defaults
        self.pardiso.set_iparm(2, 2)  # nested dissection
        self.pardiso.set_iparm(34, 1)  # conditional numerical reproducibility
        try:
            self.pardiso.factorize(self.upper)
        except PyPardisoError as error:
            raise singular() from error

    def solve(self, right: np.ndarray) -> np.ndarray:
        return self.pardiso.solve(self.upper, np.asfortranarray(right))

    def __del__(self):
        if hasattr(self, "pardiso"):
            self.pardiso.free_memory(everything=True)


class Cholmod:
    """Supernodal Cholesky by CHOLMOD (GPL), by the interface of scikit-sparse 0.4."""

    name = "cholmod"

    def __init__(self, matrix: sparse.csr_array):
        from sksparse import cholmod

        try:
            self.factor = cholmod.cholesky(sparse.csc_matrix(matrix), ordering_method="default")
        except cholmod.CholmodNotPositiveDefiniteError as error:
            raise singular() from error

    def solve(self, right: np.ndarray) -> np.ndarray:
        return self.factor(right)


def _multifrontal(matrix: sparse.csr_array, places: Places, progress: Progress | None) -> Multifrontal:
    try:
        return Multifrontal(matrix, places.nodes, places.reach, progress=progress)
    except np.linalg.LinAlgError as error:
        raise singular() from error


SOLVERS = {
    "multifrontal": Solver("multifrontal", "scipy", "", None, _multifrontal),
    "splu": Solver("splu", "scipy", "", None, lambda matrix, *_: SuperLU(matrix)),
    "pardiso": Solver("pardiso", "pypardiso", "", "ocean", lambda matrix, *_: Pardiso(matrix)),
    # Version 0.5 of scikit-sparse has another interface to CHOLMOD.
    "cholmod": Solver("cholmod", "scikit-sparse", "<0.5", None, lambda matrix, *_: Cholmod(matrix)),
    "iterative": Solver("iterative", "scipy", "", None, lambda matrix, places, _: Iterative(matrix, places.grid)),
}


def available() -> tuple[str, ...]:
    """Names of the solvers whose package is installed in a version that fits (looked up, not imported)."""
    return tuple(name for name, solver in SOLVERS.items() if _installed(solver.package, solver.versions))


def _installed(package: str, versions: str) -> bool:
    try:
        return SpecifierSet(versions).contains(importlib.metadata.version(package), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


@dataclass(frozen=True)
class Choice:
    """A solver for a grid, the bytes that it is predicted to take, and a sentence that says both."""

    name: str
    memory: float
    sentence: str


#: What a factor and its computation take in all over its own bytes, and beside that per node, by the number of dimensions
#: (measured at 500 x 500 and 60 x 60 x 20); and what solvers without a prediction take per node.
_PEAK, _BESIDE = {1: 1.1, 2: 1.1, 3: 1.5, 4: 2.0}, {1: 500.0, 2: 750.0, 3: 5_000.0, 4: 20_000.0}
_PER_NODE = {
    "iterative": {1: 800.0, 2: 1_400.0, 3: 7_000.0, 4: 30_000.0},
    "splu": {1: 2_000.0, 2: 5_600.0, 3: 60_000.0, 4: 400_000.0},
}
_WORTH = 50_000
"""Nodes from which on a GPU saves more than bringing the system there costs."""


def memory(name: str, shape: Sequence[int]) -> float:
    """Bytes that a solver is predicted to take for a grid of this shape, all of it sea."""
    shape = [size for size in shape if size > 1] or [1]
    nodes, ndim = math.prod(shape), min(len(shape), 4)
    if name in _PER_NODE:
        return nodes * _PER_NODE[name][ndim]
    reach = norm.coefficients(None, len(shape)).size - 1
    return _PEAK[ndim] * cost(shape, [reach] * len(shape)).bytes + _BESIDE[ndim] * nodes


def choose(shape: Sequence[int], *, exact: bool = True, room: float | None = None) -> Choice:
    """The solver that `auto` stands for on a grid of this shape.

    exact : whether the error at every node is wanted, which takes our own factor.
    room : bytes that may be taken; what is free here unless given.

    For the field alone: a GPU where one is visible and the grid is large, else the direct solver that is the fastest of
    those installed, else, where its factor does not fit, the iterative one.
    """
    room = free_memory() if room is None else room
    nodes = math.prod(shape)
    name = "multifrontal"
    if not exact:
        on_gpu = nodes >= _WORTH and arrays.visible_gpus() and any(map(find_spec, arrays.ON_GPU))
        if on_gpu or memory(name, shape) > room:
            name = "iterative"
        elif "pardiso" in available():
            name = "pardiso"
    needed = memory(name, shape)
    said = f"{nodes} nodes are solved at once by {name}; that takes about {_gib(needed)}, and {_gib(room)} are free."
    if needed > room:
        said += " It may not fit: choose a smaller region or fewer levels at once"
        said += f"; the field without its error takes about {_gib(memory('iterative', shape))}." if exact else "."
    return Choice(name, needed, said)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2g} GiB"


def free_memory() -> float:
    """Bytes that this process may still take: what the machine has free, or what its control group or ulimit leaves it."""
    free = float(psutil.virtual_memory().available)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free = min(free, max(limit - psutil.Process().memory_info().vms, 0.0))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            most, taken = (float((_GROUPS / name).read_text()) for name in (limit, used))
            free = min(free, max(most - taken, 0.0))
    return free


_GROUPS = Path("/sys/fs/cgroup")


def check(solver: str) -> str:
    """The name of a solver that exists, or `auto`; others are refused with a sentence."""
    if solver != "auto" and solver not in SOLVERS:
        raise ParameterError(f"There is no solver {solver!r}. {nearest(str(solver), ['auto', *SOLVERS])}")
    if solver != "auto" and solver not in available():
        if extra := SOLVERS[solver].extra:
            raise MissingExtraError(f"The solver {solver!r}", extra)
        package = SOLVERS[solver].package + SOLVERS[solver].versions
        raise ParameterError(
            f"The solver {solver!r} needs the package {package!r}, which is not installed here. "
            f"Use one of {', '.join(['auto', *available()])}, or install that package."
        )
    return solver


def factorise(
    matrix: sparse.csr_array, places: Places, solver: str = "auto", progress: Progress | None = None
) -> Factor:
    """Factorise a symmetric positive definite matrix over the nodes of a grid; our own factor tells its progress."""
    name = check(solver)
    return SOLVERS["multifrontal" if name == "auto" else name].factorise(matrix, places, progress)


def solve(factor: Factor, matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray:
    """Solve one system and check the residual, so that a breakdown is never taken for a field."""
    solution = factor.solve(right)
    residual = np.abs(matrix @ solution - right).max()
    # Rounding of the product leaves eps |matrix| |solution|: against the right-hand side that is eps times the
    # condition that matters here.  Near 1 nothing of the solution is certain; a NaN fails the comparison too.
    if not residual <= 1e-3 * np.abs(right).max():
        raise singular()
    return solution
