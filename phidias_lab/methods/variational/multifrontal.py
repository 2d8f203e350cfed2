"""A Cholesky factor of a sparse matrix over a grid, by dense fronts, and its selected inverse.

The multifrontal method (Duff and Reid 1983, doi:10.1145/356044.356047): the nodes of a front of the dissection are
eliminated together, in a dense matrix over them and their boundary, which are the nodes still to be eliminated that
they are coupled with.  What the elimination leaves on the boundary is handed to the parent.  All arithmetic is LAPACK's
on dense blocks.

The selected inverse Z = A^-1 at the entries where A has any, by the recursion of Takahashi et al. (1973; Erisman and
Tinney 1975, doi:10.1145/360680.360704) in its blocked form (Lin et al. 2011, doi:10.1145/1916461.1916464): with the
factor's blocks L_JJ on the own nodes J of a front and L_SJ below them on its boundary S, and G = L_SJ L_JJ^-1,

    Z_SJ = - Z_SS G                 Z_JJ = (L_JJ L_JJ')^-1 - G' Z_SJ

where Z_SS is a part of what the parent has computed.  It costs about three times the factorisation, whatever the number
of nodes; a solve per node would cost thousands.

The BLAS works with one thread; several cores share subtrees, then tiles of the top fronts.  So the rounding, and every
byte of the result, is the same on any number of cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse
from scipy.linalg import blas, lapack

from phidias_lab.methods import threads
from phidias_lab.methods.variational.dissection import Dissection, dissect

TILE = 384
"""Size of the tiles in which large fronts are computed."""
_SHARES = 24
"""A subtree with less than this share of all operations is one task."""

Run = tuple[int, int, int]


class Structure:
    """Which entries the factor has: the fronts with their boundaries, and where the matrix's entries go.

    It costs little and no memory to speak of, and tells what the factorisation will cost.
    """

    def __init__(self, matrix: sparse.csr_array, places: np.ndarray, reach: np.ndarray):
        row, column = _pairs(matrix)
        self._order(dissect(places, reach), row, column)
        if self._broken(row, column):
            self._order(dissect(places, reach, _far(row, column, places, reach)), row, column)
        row, column = self.position[row], self.position[column]
        self.lower = np.flatnonzero(row >= column).astype(row.dtype if row.size < 2**31 else np.int64)
        row, column = row[self.lower], column[self.lower]
        front = self.front[column]
        order = np.argsort(front, kind="stable")
        self.lower, self.row, self.column = self.lower[order], row[order], column[order]
        self.entries = np.searchsorted(front[order], np.arange(self.count + 1))
        self.boundary = self._boundaries()

    def _order(self, tree: Dissection, row: np.ndarray, column: np.ndarray) -> None:
        self.order, self.start, self.parent = tree.order, tree.start, tree.parent
        self.count = self.parent.size
        self.nodes = self.order.size
        self.position = np.empty(self.nodes, np.int32)
        self.position[self.order] = np.arange(self.nodes, dtype=np.int32)
        self.front = np.repeat(np.arange(self.count, dtype=np.int32), np.diff(self.start))
        self.children: list[list[int]] = [[] for _ in range(self.count)]
        #: The first front of the subtree below each front; the subtree is the fronts from there to itself.
        self.first = np.arange(self.count)
        for front, parent in enumerate(self.parent.tolist()):
            if parent >= 0:
                self.children[parent].append(front)
                self.first[parent] = min(self.first[parent], self.first[front])

    def _broken(self, row: np.ndarray, column: np.ndarray) -> bool:
        """Whether an entry couples nodes of which neither stands in a front above the other's."""
        one, other = self.position[row], self.position[column]
        below, above = np.minimum(one, other), np.maximum(one, other)
        return bool((self.start[self.first[self.front[above]]] > below).any())

    def _boundaries(self) -> list[np.ndarray]:
        """Per front the positions after its own that it is coupled with, sorted."""
        found: list[np.ndarray] = []
        for front in range(self.count):
            end = self.start[front + 1]
            row = self.row[self.entries[front] : self.entries[front + 1]]
            parts = [row[row >= end], *(_from(found[child], end) for child in self.children[front])]
            found.append(np.unique(np.concatenate(parts)))
        return found

    @functools.cached_property
    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Per front the number of its own nodes and of its boundary's."""
        return np.diff(self.start).astype(float), np.array([part.size for part in self.boundary], float)

    @functools.cached_property
    def operations(self) -> np.ndarray:
        """Floating-point operations of each front's elimination."""
        own, boundary = self.sizes
        return own**3 / 3 + own**2 * boundary + own * boundary**2

    @property
    def factor_bytes(self) -> float:
        """Memory of the factor."""
        own, boundary = self.sizes
        return float(8 * (own * (own + boundary)).sum())

    @functools.cached_property
    def peak_bytes(self) -> float:
        """Memory while the factor is computed: what is done of it, and what waits to be handed to parents."""
        own, boundary = self.sizes
        done = waiting = peak = 0.0
        for front in range(self.count):
            done += own[front] * (own[front] + boundary[front])
            peak = max(peak, done + waiting + boundary[front] ** 2)
            waiting += boundary[front] ** 2 - sum(boundary[child] ** 2 for child in self.children[front])
        return 8 * peak

    @functools.cached_property
    def subtrees(self) -> list[range]:
        """Disjoint subtrees, each small enough to be one task; the fronts outside them are the top."""
        total = np.cumsum(np.concatenate([[0], self.operations]))
        found, open_fronts = [], [self.count - 1]
        while open_fronts:
            front = open_fronts.pop()
            subtree = range(self.first[front], front + 1)
            if total[subtree.stop] - total[subtree.start] <= total[-1] / _SHARES or not self.children[front]:
                found.append(subtree)
            else:
                open_fronts += self.children[front]
        return sorted(found, key=lambda subtree: total[subtree.start] - total[subtree.stop])

    @functools.cached_property
    def top(self) -> list[int]:
        inside = {front for subtree in self.subtrees for front in subtree}
        return [front for front in range(self.count) if front not in inside]

    def runs(self, child: int, front: int) -> tuple[list[Run], list[Run]]:
        """Where a child's boundary lies in the parent's front: in its own nodes, and in its boundary."""
        start, end = self.start[front], self.start[front + 1]
        inner = self.boundary[child]
        split = int(np.searchsorted(inner, end))
        return (
            _runs(inner[:split] - start, 0),
            _runs(np.searchsorted(self.boundary[front], inner[split:]), split),
        )

    def places_in(self, front: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The matrix's entries of a front: row (in the own nodes or in the boundary), column, which rows are own nodes."""
        part = slice(self.entries[front], self.entries[front + 1])
        row, start, end = self.row[part], self.start[front], self.start[front + 1]
        own = row < end
        place = np.where(own, row - start, 0)
        place[~own] = np.searchsorted(self.boundary[front], row[~own])
        return place, self.column[part] - start, own


class Multifrontal:
    """The factor L of a symmetric positive definite matrix A = L L', reordered."""

    name = "multifrontal"

    def __init__(
        self,
        matrix: sparse.csr_array,
        places: np.ndarray,
        reach: np.ndarray,
        *,
        structure: Structure | None = None,
        cores: int | None = None,
        progress: Callable[[float], None] | None = None,
    ):
        """Factorise. `LinAlgError` where the matrix is not positive definite to working precision.

        places : per node its place on the grid, as whole numbers.
        reach : per dimension, how far the matrix couples nodes; couplings beyond it are allowed, and cost more.
        progress : is told the share of the operations that are done.
        """
        self.structure = structure or Structure(matrix, places, reach)
        self.cores = cores or threads.cores()
        self.data = matrix.data
        #: Per front L_JJ (its lower triangle; above the diagonal stands anything) and L_SJ.
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = [(_NONE, _NONE)] * self.structure.count
        #: What a front leaves on its boundary, lower triangle, until its parent takes it.
        self._left: list[np.ndarray | None] = [None] * self.structure.count
        with threads.crew(self.cores) as crew:
            _run_up(self.structure, crew, self._eliminate, progress)
        del self.data, self._left

    def _eliminate(self, front: int, tiles: Tiles) -> None:
        structure = self.structure
        own, boundary = (int(size[front]) for size in structure.sizes)
        inner, below = np.zeros((own, own), order="F"), np.zeros((boundary, own), order="F")
        left = np.zeros((boundary, boundary), order="F")
        row, column, within = structure.places_in(front)
        data = self.data[structure.lower[structure.entries[front] : structure.entries[front + 1]]]
        inner[row[within], column[within]] = data[within]
        below[row[~within], column[~within]] = data[~within]
        for child in structure.children[front]:
            handed, self._left[child] = self._left[child], None
            mine, further = structure.runs(child, front)
            _add(inner, handed, mine, mine)
            _add(below, handed, further, mine)
            _add(left, handed, further, further)
        self.blocks[front] = tiles.eliminate(inner, below, left)
        self._left[front] = left

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve A x = b for one right-hand side or a block of them (columns)."""
        x = self._ordered(right)
        with threads.one_blas_thread():
            for front, (inner, below) in enumerate(self.blocks):
                if not inner.size:
                    continue
                own = slice(self.structure.start[front], self.structure.start[front + 1])
                x[own] = blas.dtrsm(1.0, inner, x[own].T, side=1, lower=1, trans_a=1).T
                if below.size:
                    x[self.structure.boundary[front]] -= below @ x[own]
            self._backward(x)
        return self._back(x, right)

    def colour(self, white: np.ndarray) -> np.ndarray:
        """Solve L' x = b: of independent standard normal numbers it makes a sample with the covariance A^-1."""
        x = self._ordered(white)
        with threads.one_blas_thread():
            self._backward(x)
        return self._back(x, white)

    def _backward(self, x: np.ndarray) -> None:
        for front in range(self.structure.count - 1, -1, -1):
            inner, below = self.blocks[front]
            if not inner.size:
                continue
            own = slice(self.structure.start[front], self.structure.start[front + 1])
            if below.size:
                x[own] -= below.T @ x[self.structure.boundary[front]]
            x[own] = blas.dtrsm(1.0, inner, x[own].T, side=1, lower=1, trans_a=0).T

    def _ordered(self, right: np.ndarray) -> np.ndarray:
        right = np.asarray(right, float)
        return np.ascontiguousarray(right.reshape(right.shape[0], -1)[self.structure.order])

    def _back(self, x: np.ndarray, right: np.ndarray) -> np.ndarray:
        result = np.empty_like(x)
        result[self.structure.order] = x
        return result.reshape(np.shape(right))

    @property
    def log_determinant(self) -> float:
        """log det A."""
        return 2 * float(sum(np.log(inner.diagonal()).sum() for inner, _ in self.blocks))

    def selected_inverse(self, progress: Callable[[float], None] | None = None) -> Selected:
        """The entries of A^-1 where A has any."""
        return Selected(self, progress)


class Selected:
    """The entries of the inverse of a factorised matrix at the places where the matrix has any.

    diagonal : the diagonal of the inverse, per node.
    """

    def __init__(self, factor: Multifrontal, progress: Callable[[float], None] | None = None):
        self.structure = structure = factor.structure
        self._values = np.empty(structure.lower.size)
        self._diagonal = np.empty(structure.nodes)
        self._factor = factor
        #: Z_SS of each front, lower triangle, from the time its parent is done until it is done itself.
        self._known: list[np.ndarray | None] = [None] * structure.count
        self._known[-1] = _NONE
        with threads.crew(factor.cores) as crew:
            _run_down(structure, crew, self._invert, progress)
        del self._factor, self._known
        self.diagonal = np.empty(structure.nodes)
        self.diagonal[structure.order] = self._diagonal

    def _invert(self, front: int, tiles: Tiles) -> None:
        structure = self.structure
        known, self._known[front] = self._known[front], None
        inner, below = tiles.invert(*self._factor.blocks[front], known)
        self._diagonal[structure.start[front] : structure.start[front + 1]] = inner.diagonal()
        row, column, within = structure.places_in(front)
        values = self._values[structure.entries[front] : structure.entries[front + 1]]
        values[within] = inner[row[within], column[within]]
        values[~within] = below[row[~within], column[~within]]
        for child in structure.children[front]:
            size = structure.boundary[child].size
            part = np.zeros((size, size), order="F")
            mine, further = structure.runs(child, front)
            _take(part, inner, mine, mine)
            _take(part, below, further, mine)
            _take(part, known, further, further)
            self._known[child] = part

    def matrix(self) -> sparse.csr_array:
        """The selected entries as a symmetric sparse matrix with the pattern of the factorised one."""
        structure = self.structure
        row, column = structure.order[structure.row], structure.order[structure.column]
        off = row != column
        shape = (structure.nodes, structure.nodes)
        return sparse.csr_array(
            (
                np.concatenate([self._values, self._values[off]]),
                (np.concatenate([row, column[off]]), np.concatenate([column, row[off]])),
            ),
            shape=shape,
        )


_NONE = np.zeros((0, 0), order="F")


# Fronts: dense algebra ------------------------------------------------------------------------------------------------


class Tiles:
    """The dense algebra of one front; in tiles, which a crew shares, where the front is large.

    A front has no nodes of its own where land alone separates two sides.
    """

    def __init__(self, share: Callable[[Iterable[Callable[[], None]]], None] | None = None):
        self.share = share

    def eliminate(self, inner: np.ndarray, below: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L_JJ and L_SJ; `left` becomes the matrix of the boundary less L_SJ L_SJ' (lower triangle)."""
        if not inner.size:
            return inner, below
        if self.share is None or max(inner.shape[0], left.shape[0]) <= TILE:
            inner = _cholesky(inner)
            if below.size:
                below = blas.dtrsm(1.0, inner, below, side=1, lower=1, trans_a=1, overwrite_b=1)
                blas.dsyrk(-1.0, below, beta=1.0, c=left, lower=1, overwrite_c=1)
            return inner, below
        whole = np.concatenate([inner, below]).T.copy().T  # in Fortran order
        own, size = inner.shape[0], whole.shape[0]
        for here in _tiles(0, own):
            whole[here, here] = _cholesky(np.asfortranarray(whole[here, here]))
            pivot = np.asfortranarray(whole[here, here])
            self.share([functools.partial(_divide, whole, pivot, rows, here) for rows in _tiles(here.stop, size)])
            self.share(
                [
                    functools.partial(_subtract, whole, whole, whole, rows, columns, here)
                    for columns in _tiles(here.stop, own)
                    for rows in _tiles(columns.start, size)
                ]
            )
        inner, below = np.asfortranarray(whole[:own]), np.asfortranarray(whole[own:])
        self.share(
            [
                functools.partial(_subtract, left, below, below, rows, columns, slice(0, own))
                for columns in _tiles(0, left.shape[0])
                for rows in _tiles(columns.start, left.shape[0])
            ]
        )
        return inner, below

    def invert(self, inner: np.ndarray, below: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Z_JJ and Z_SJ (lower triangle) from the factor's blocks and Z_SS."""
        if not inner.size:
            return inner, below
        inverse, failed = lapack.dpotri(inner, lower=1)
        if failed:
            raise np.linalg.LinAlgError("The factor has a zero on its diagonal.")
        if not below.size:
            return inverse, below
        if self.share is None or max(inner.shape[0], below.shape[0]) <= TILE:
            ratio = blas.dtrsm(1.0, inner, below, side=1, lower=1)
            across = blas.dsymm(-1.0, known, ratio, lower=1)
            return blas.dgemm(-1.0, ratio, across, beta=1.0, c=inverse, trans_a=1, overwrite_c=1), across
        own, size = inner.shape[0], below.shape[0]
        ratio, across = np.empty_like(below, order="F"), np.empty_like(below, order="F")

        def divide(rows: slice) -> None:
            ratio[rows] = blas.dtrsm(1.0, inner, np.asfortranarray(below[rows]), side=1, lower=1, overwrite_b=1)

        def multiply(rows: slice) -> None:
            square = known[rows, rows]
            square = np.tril(square) + np.tril(square, -1).T
            across[rows] = -(square @ ratio[rows])
            across[rows] -= known[rows, : rows.start] @ ratio[: rows.start]
            across[rows] -= known[rows.stop :, rows].T @ ratio[rows.stop :]

        def complete(rows: slice, columns: slice) -> None:
            inverse[rows, columns] -= ratio[:, rows].T @ across[:, columns]

        self.share([functools.partial(divide, rows) for rows in _tiles(0, size)])
        self.share([functools.partial(multiply, rows) for rows in _tiles(0, size)])
        self.share(
            [
                functools.partial(complete, rows, columns)
                for columns in _tiles(0, own)
                for rows in _tiles(columns.start, own)
            ]
        )
        return inverse, across


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    lower, failed = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("The matrix is not positive definite to working precision.")
    return lower


def _divide(whole: np.ndarray, pivot: np.ndarray, rows: slice, columns: slice) -> None:
    block = np.asfortranarray(whole[rows, columns])
    whole[rows, columns] = blas.dtrsm(1.0, pivot, block, side=1, lower=1, trans_a=1, overwrite_b=1)


def _subtract(
    target: np.ndarray, left: np.ndarray, right: np.ndarray, rows: slice, columns: slice, inner: slice
) -> None:
    target[rows, columns] -= left[rows, inner] @ right[columns, inner].T


def _tiles(start: int, stop: int) -> list[slice]:
    return [slice(at, min(at + TILE, stop)) for at in range(start, stop, TILE)]


# Between fronts -------------------------------------------------------------------------------------------------------


def _runs(places: np.ndarray, offset: int) -> list[Run]:
    """A rising sequence of places as runs (from, to, at): the entries from:to go to the places from `at` on."""
    if not places.size:
        return []
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    begin = np.concatenate([[0], breaks])
    end = np.concatenate([breaks, [places.size]])
    return list(zip((begin + offset).tolist(), (end + offset).tolist(), places[begin].tolist(), strict=True))


def _add(target: np.ndarray, source: np.ndarray, rows: list[Run], columns: list[Run]) -> None:
    """Adds what a child left to a block of its parent, at the lower triangle of the child's matrix."""
    for begin, end, at in rows:
        for first, last, to in columns:
            if first <= begin:
                target[at : at + end - begin, to : to + last - first] += source[begin:end, first:last]


def _take(target: np.ndarray, source: np.ndarray, rows: list[Run], columns: list[Run]) -> None:
    """The reverse: fills the lower triangle of a child's matrix from a block of its parent."""
    for begin, end, at in rows:
        for first, last, to in columns:
            if first <= begin:
                target[begin:end, first:last] = source[at : at + end - begin, to : to + last - first]


def _from(positions: np.ndarray, least: int) -> np.ndarray:
    return positions[np.searchsorted(positions, least) :]


def _pairs(matrix: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every entry of a matrix."""
    row = np.repeat(np.arange(matrix.shape[0], dtype=matrix.indices.dtype), np.diff(matrix.indptr))
    return row, matrix.indices


def _far(row: np.ndarray, column: np.ndarray, places: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries that couple nodes beyond the reach."""
    beyond = np.zeros(row.size, bool)
    for axis, far in enumerate(reach):
        beyond |= np.abs(places[row, axis] - places[column, axis]) > far
    beyond &= row < column
    return row[beyond], column[beyond]


# Cores ----------------------------------------------------------------------------------------------------------------


def _share(crew: ThreadPoolExecutor, tasks: Iterable[Callable[[], None]]) -> None:
    """Run tasks on all cores, and wait; the first error is raised when all have ended."""
    for waiting in [crew.submit(task) for task in tasks]:
        waiting.result()


def _run_up(structure: Structure, crew: ThreadPoolExecutor, act: Callable[[int, Tiles], None], progress) -> None:
    """Act on every front after its children."""
    told = _Told(structure, progress)
    small, large = Tiles(), Tiles(functools.partial(_share, crew))
    _share(crew, [functools.partial(_each, act, subtree, small, told) for subtree in structure.subtrees])
    _each(act, structure.top, large, told)


def _run_down(structure: Structure, crew: ThreadPoolExecutor, act: Callable[[int, Tiles], None], progress) -> None:
    """Act on every front after its parent."""
    told = _Told(structure, progress)
    small, large = Tiles(), Tiles(functools.partial(_share, crew))
    _each(act, structure.top[::-1], large, told)
    _share(crew, [functools.partial(_each, act, subtree[::-1], small, told) for subtree in structure.subtrees])


def _each(act: Callable[[int, Tiles], None], fronts: Iterable[int], tiles: Tiles, told: _Told) -> None:
    for front in fronts:
        act(front, tiles)
        told(front)


class _Told:
    """Tells the share of the operations that are done, a hundred times at most."""

    def __init__(self, structure: Structure, progress: Callable[[float], None] | None):
        self.operations, self.total = structure.operations, float(structure.operations.sum())
        self.progress, self.done, self.said = progress, 0.0, 0.0

    def __call__(self, front: int) -> None:
        self.done += self.operations[front]
        if self.progress is not None and self.done - self.said >= 0.01 * self.total:
            self.said = self.done
            self.progress(min(1.0, self.done / self.total))
