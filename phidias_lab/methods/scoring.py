"""The loops of `screening.Scorer.score`, compiled: a spectrum is read once, and all else happens in the caches of a core.

Vectors of 16 channels are written out (llvmlite makes the code, numba the loops around it), because the sums of a product
must stay in registers: so products of few columns run as fast as large ones of the library. Spectra are in units of the
noise here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Channels side by side in a vector, and its bytes.
_LANES, _BYTES = 16, 64
#: Lines of a tile, which fits the innermost cache with what it is multiplied with at a time.
_TILE = 8
#: Lines, columns and vectors whose sums the registers hold: those of AVX-512 hold a vector each, and there are 32.
_LINES = 4
_COLUMNS, _VECTORS = (6, 3) if llvmlite.binding.get_host_cpu_features().get("avx512f") else (1, 1)
#: What numbers of columns and channels are filled up to, on any machine.
_PANEL, _WHOLE = 6, 3 * _LANES
#: Sums may be taken in any order. Missing numbers are still told from others.
_FAST = ("contract", "nsz", "reassoc")


class Tables(NamedTuple):
    """A scorer's numbers per row, laid out for vectors; channels are filled up with zeros."""

    mean: np.ndarray  # (rows, m)
    scale: np.ndarray  # (rows, m) one over the noise
    dead: np.ndarray  # (d,) dead channels, row after row
    dead_from: np.ndarray  # (rows + 1,) where those of a row begin
    analysis: np.ndarray  # (rows, panels, vectors, _PANEL, _LANES) x to c, a, and a by S
    shapes: np.ndarray  # (rows, vectors, k, _LANES) c to x
    start: np.ndarray  # (rows, w + 1) where the vectors of each sum over channels begin: all channels, then windows
    stop: np.ndarray
    vector: np.ndarray  # (v,)
    mask: np.ndarray  # (v, _LANES) which of the vector's channels belong to it
    inverse: np.ndarray  # (k,) one over the variance of the scores


class Norms(NamedTuple):
    """What sums are measured by, per row or per spectrum."""

    freedom: np.ndarray  # (n,) observed channels less components
    window: np.ndarray  # (n, w) one over the expected sum of squares
    gram: np.ndarray  # (n, g, g) K'K
    length: np.ndarray  # (n, g) one over |K|
    deviation: np.ndarray  # (n, g) one over the amplitude's

    @classmethod
    def of(cls, freedom, window, gram, deviation) -> Norms:
        length = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = (freedom, 1 / window, gram, 1 / length, 1 / deviation)
        return cls(*(np.ascontiguousarray(value, np.float32) for value in values))


class Found(NamedTuple):
    """Scores per spectrum (lines, rows); those that were not judged are NaN."""

    reconstruction: np.ndarray
    hotelling: np.ndarray
    unexplained: np.ndarray
    windows: np.ndarray  # (lines, rows, w)
    amplitude: np.ndarray  # (lines, rows, g)
    snr: np.ndarray
    cosine: np.ndarray
    components: np.ndarray  # (lines, rows, k)


class Extremes(NamedTuple):
    """Per channel, filled up, the highest and lowest residual so far, and its spectrum as line * rows + row."""

    high: np.ndarray
    low: np.ndarray
    high_at: np.ndarray
    low_at: np.ndarray

    @classmethod
    def none(cls, channels: int) -> Extremes:
        size = _up(channels, _WHOLE)
        limits = (np.full(size, limit, np.float32) for limit in (-np.inf, np.inf))
        return cls(*limits, *np.full((2, size), -1, np.int32))


def _vectors(weights: np.ndarray) -> np.ndarray:
    """Weights (rows, m, n) as (rows, vectors, n, _LANES)."""
    rows, m, n = weights.shape
    filled = np.zeros((rows, _up(m, _WHOLE), n), np.float32)
    filled[:, :m] = weights
    return filled.reshape(rows, -1, _LANES, n).swapaxes(2, 3)


class Space(NamedTuple):
    """Where a thread works on a tile."""

    x: np.ndarray  # (_TILE, m) spectra in units of the noise, then residuals; channels are filled up
    c: np.ndarray  # (_TILE, columns)
    sums: np.ndarray  # (_TILE, w + 1)

    @classmethod
    def of(cls, tables: Tables) -> Space:
        _, panels, vectors, _, _ = tables.analysis.shape
        sizes = (vectors * _LANES, panels * _PANEL, tables.start.shape[1])
        return cls(*(_aligned(np.zeros((_TILE, size), np.float32)) for size in sizes))


def _panels(weights: np.ndarray) -> np.ndarray:
    """Weights (rows, m, n) as (rows, panels, vectors, _PANEL, _LANES)."""
    rows, m, n = weights.shape
    filled = np.zeros(
        (rows, m, max(_up(n, _PANEL), _PANEL)), np.float32
    )  # one at least tells whether a channel is missing
    filled[..., :n] = weights
    laid = _vectors(filled)
    return laid.reshape(rows, laid.shape[1], -1, _PANEL, _LANES).swapaxes(1, 2)


def tables(mean, noise, dead, analysis, shapes, windows, values) -> Tables:
    """From arrays (rows, m, ...) and the variances of the scores; `windows` are masks."""
    rows, m, _ = windows.shape
    masks = _vectors(np.concatenate([np.ones((rows, m, 1), bool), windows], axis=2)).swapaxes(1, 2)
    some = masks.any(axis=3)
    number = some.sum(axis=2)
    stop = number.cumsum().reshape(number.shape)
    found = (stop - number, stop, np.nonzero(some)[2], masks[some], (1 / values).astype(np.float32))
    dead_from = np.concatenate([[0], dead.sum(axis=1).cumsum()])
    scale = (1 / noise).astype(np.float32)
    found = (mean, scale, np.nonzero(dead)[1], dead_from, _panels(analysis), _vectors(shapes), *found)
    return Tables(*map(_aligned, found))


def constant(given):
    """An array, or a tuple of arrays, that is never written to: so loops are compiled for one kind, whatever is given."""
    if isinstance(given, tuple):
        return type(given)(*map(constant, given))
    view = given.view()
    view.flags.writeable = False
    return view


def _aligned(array: np.ndarray) -> np.ndarray:
    """In one line, with no vector across the border of two lines of the cache."""
    space = np.empty(array.nbytes + _BYTES, np.uint8)
    start = -space.ctypes.data % _BYTES
    found = space[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def _up(number: int, whole: int) -> int:
    return -(-number // whole) * whole


# Vectors ----------------------------------------------------------------------------------------------------------------

_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_INT = ir.IntType(32)


class _Code:
    """Writes what a call of an intrinsic does; arguments are arrays, taken as one line of numbers, and integers."""

    def __init__(self, context, builder, signature, arguments):
        self.builder = builder
        self.arguments = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

    def place(self, pointer, offset, number: int = 0, stride=None):
        """`number` strides beyond an offset; a stride is a vector if it is not given."""
        step = ir.Constant(offset.type, number * _LANES)
        if stride is not None:
            step = self.builder.mul(stride, ir.Constant(offset.type, number))
        return self.builder.gep(pointer, [self.builder.add(offset, step)])

    def load(self, place, kind: ir.Type = _VECTOR):
        return self.builder.load(self.builder.bitcast(place, kind.as_pointer()), align=4)

    def store(self, value, place) -> None:
        self.builder.store(value, self.builder.bitcast(place, value.type.as_pointer()), align=4)

    def held(self, value=None):
        """A vector that changes, in a register."""
        return cgutils.alloca_once_value(self.builder, ir.Constant(_VECTOR, [0.0] * _LANES) if value is None else value)

    def add(self, x, y, to) -> None:
        product = self.builder.fmul(x, y, flags=_FAST)
        self.builder.store(self.builder.fadd(self.builder.load(to), product, flags=_FAST), to)

    def shuffle(self, x, y, order: range | list[int]):
        kind = ir.VectorType(_INT, len(order))
        return self.builder.shuffle_vector(x, y, ir.Constant(kind, list(order)))

    def spread(self, value):
        """A number in all lanes."""
        empty = ir.Constant(ir.VectorType(value.type, _LANES), ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(_INT, 0))
        return self.shuffle(first, empty, [0] * _LANES)

    def totals(self, held: list) -> list:
        """The sum of each vector; neighbours are added in pairs, of many vectors at once."""
        found = []
        while held:
            number = min(_LANES, 1 << (len(held).bit_length() - 1))
            some, held = [self.builder.load(one) for one in held[:number]], held[number:]
            pairs = list(zip(some[::2], some[1::2], strict=False))
            width = _LANES
            while pairs:
                some = [self._pairwise(x, y, width) for x, y in pairs]
                pairs = list(zip(some[::2], some[1::2], strict=False))
            while width > number:
                width //= 2
                some = [self._pairwise(some[0], some[0], width)]
            found += [self.builder.extract_element(some[0], ir.Constant(_INT, lane)) for lane in range(number)]
        return found

    def _pairwise(self, x, y, width: int):
        even, odd = (self.shuffle(x, y, range(first, 2 * width, 2)) for first in (0, 1))
        return self.builder.fadd(even, odd, flags=_FAST)


def _intrinsic(write: Callable) -> Callable:
    """A function for compiled code, which `write` writes."""

    def typed(_, *given):
        if any(kind.layout != "C" for kind in given if isinstance(kind, types.Array)):
            raise numba.TypingError("Numbers must lie in one line.")

        def code(context, builder, signature, arguments):
            made = _Code(context, builder, signature, arguments)
            write(made, *made.arguments)
            return context.get_dummy_value()

        return types.void(*[kind if isinstance(kind, types.Array) else types.intp for kind in given]), code

    typed.__name__, typed.__signature__ = write.__name__, inspect.signature(write)
    return intrinsic(typed)


@_intrinsic
def _normalise(code, block, at, mean, scale, number, x, x_at):
    """x = (block - mean) scale for some vectors."""
    with cgutils.for_range(code.builder, number) as loop:
        here = code.builder.mul(loop.index, ir.Constant(number.type, _LANES))
        spectrum = code.load(code.place(code.place(block, at), here))
        less = code.builder.fsub(spectrum, code.load(code.place(mean, here)))
        code.store(code.builder.fmul(less, code.load(code.place(scale, here))), code.place(code.place(x, x_at), here))


@_intrinsic
def _products(code, x, x_at, x_line, weights, at, vector, number, out, out_at, out_line):
    """out[line, column] = sum of x[line] weights[column] for some lines and columns."""
    held = [[code.held() for _ in range(_COLUMNS)] for _ in range(_LINES)]
    lines = [code.place(x, x_at, line, x_line) for line in range(_LINES)]
    with cgutils.for_range(code.builder, number) as loop:
        here = code.builder.mul(loop.index, ir.Constant(number.type, _LANES))
        values = [code.load(code.place(line, here)) for line in lines]
        start = code.builder.add(at, code.builder.mul(loop.index, vector))
        for column in range(_COLUMNS):
            weight = code.load(code.place(weights, start, column))
            for line, value in enumerate(values):
                code.add(value, weight, held[line][column])
    totals = iter(code.totals([one for line in held for one in line]))
    for line in range(_LINES):
        place = code.place(out, out_at, line, out_line)
        for column in range(_COLUMNS):
            code.store(next(totals), code.builder.gep(place, [ir.Constant(_INT, column)]))


@_intrinsic
def _residuals(
    code, x, x_at, x_line, shapes, at, vector, k, c, c_at, c_line, high, low, high_at, low_at, m_at, first, step
):
    """x[line] -= sum of c[line, j] shapes[j] for some lines and vectors, and the extremes with it; the lines' spectra are
    first, first + step ...
    """
    builder = code.builder
    lines = [code.place(x, x_at, line, x_line) for line in range(_LINES)]
    held = [[code.held(code.load(code.place(one, m_at, v))) for v in range(_VECTORS)] for one in lines]
    scores = [code.place(c, c_at, line, c_line) for line in range(_LINES)]
    with cgutils.for_range(builder, k) as loop:
        start = builder.add(at, builder.mul(loop.index, ir.Constant(k.type, _LANES)))
        some = [code.load(code.place(shapes, start, v, vector)) for v in range(_VECTORS)]
        for line in range(_LINES):
            score = code.spread(builder.fneg(builder.load(builder.gep(scores[line], [loop.index]))))
            for v in range(_VECTORS):
                code.add(score, some[v], held[line][v])
    for v in range(_VECTORS):
        places = [code.place(array, m_at, v) for array in (high, low, high_at, low_at)]
        kinds = (_VECTOR, _VECTOR, *[ir.VectorType(_INT, _LANES)] * 2)
        extremes = [code.load(place, kind) for place, kind in zip(places, kinds, strict=True)]
        for line in range(_LINES):
            spectrum = builder.add(first, builder.mul(step, ir.Constant(step.type, line)))
            spectrum = code.spread(builder.trunc(spectrum, _INT))
            residual = builder.load(held[line][v])
            code.store(residual, code.place(lines[line], m_at, v))
            for i, beyond in enumerate("><"):  # a missing number is neither
                more = builder.fcmp_ordered(beyond, residual, extremes[i])
                extremes[i] = builder.select(more, residual, extremes[i])
                extremes[i + 2] = builder.select(more, spectrum, extremes[i + 2])
        for value, place in zip(extremes, places, strict=True):
            code.store(value, place)


@_intrinsic
def _squares(code, x, x_line, vector, mask, start, stop, out, out_at, out_line):
    """out[line] = sum of squares of x[line] over some vectors, where the mask is one, for a tile."""
    builder = code.builder
    held = [code.held() for _ in range(_TILE)]
    with cgutils.for_range(builder, stop, start=start) as loop:
        here = builder.mul(builder.load(builder.gep(vector, [loop.index])), ir.Constant(start.type, _LANES))
        some = code.load(code.place(mask, builder.mul(loop.index, ir.Constant(start.type, _LANES))))
        for line in range(_TILE):
            value = code.load(code.place(x, here, line, x_line))
            code.add(builder.fmul(value, value), some, held[line])
    for line, total in enumerate(code.totals(held)):
        code.store(total, code.place(out, out_at, line, out_line))


@_intrinsic
def _prefetch(code, x, at):
    """Some numbers will be asked for soon."""
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), _INT, _INT, _INT])
    prefetch = cgutils.get_or_insert_function(code.builder.module, kind, "llvm.prefetch.p0")
    code.builder.call(prefetch, [code.builder.gep(x, [at]), *(ir.Constant(_INT, number) for number in (0, 3, 1))])


# Loops ------------------------------------------------------------------------------------------------------------------


def _compiled(function: Callable) -> Callable:
    """Compiled once for a machine, and in every process where no folder for that can be written to."""
    options = {"nogil": True, "fastmath": set(_FAST), "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:
        return numba.njit(function, **options)


@_compiled
def _load(block, line, row, size, tables, x):
    """A tile's spectra in units of the noise."""
    m, mean, scale = block.shape[2], tables.mean[row], tables.scale[row]
    for t in range(size):
        at = ((line + t) * block.shape[1] + row) * m
        _normalise(block, at, mean, scale, m // _LANES, x, t * x.shape[1])
        for i in range(m // _LANES * _LANES, m):
            x[t, i] = (block[line + t, row, i] - mean[i]) * scale[i]
        for i in range(m, x.shape[1]):
            x[t, i] = 0
    for t in range(size, _TILE):  # of no spectrum
        for i in range(x.shape[1]):
            x[t, i] = np.nan
    _kill(tables, row, x, np.float32(0))


@_compiled
def _kill(tables, row, x, value):
    for n in range(tables.dead_from[row], tables.dead_from[row + 1]):
        for t in range(_TILE):
            x[t, tables.dead[n]] = value


@_compiled
def _look(tables, row, size, first, step, x, c, extremes):
    """Residuals of a tile's lines in place of x, and the extremes."""
    shapes = tables.shapes
    k, numbers = shapes.shape[2], shapes[0].size
    vector = k * _LANES
    high, low, high_at, low_at = extremes
    for m_at in range(0, x.shape[1], _VECTORS * _LANES):
        at = row * numbers + m_at * k
        for t in range(0, size, _LINES):
            x_at, c_at, spectrum = t * x.shape[1], t * c.shape[1], first + t * step
            _residuals(
                x, x_at, x.shape[1], shapes, at, vector, k, c, c_at, c.shape[1],
                high, low, high_at, low_at, m_at, spectrum, step,
            )  # fmt: skip


@_compiled
def _sum(tables, row, x, sums):
    """Sums of a tile's squares over all channels and each window."""
    for w in range(sums.shape[1]):
        start, stop = tables.start[row, w], tables.stop[row, w]
        _squares(x, x.shape[1], tables.vector, tables.mask, start, stop, sums, w, sums.shape[1])


@_compiled
def _derive(c, sums, inverse, norms, n, line, row, size, found):
    """The scores of a tile's spectra from their fits and sums of squares, with the norms at n."""
    k, g = len(inverse), norms.gram.shape[1]
    zero, one = np.float32(0), np.float32(1)
    window, gram, lengths, deviation = norms.window[n], norms.gram[n], norms.length[n], norms.deviation[n]
    each, without = one / norms.freedom[n], one / (norms.freedom[n] - np.float32(g))
    reconstruction, hotelling, unexplained, windows, amplitude, snr, cosine, components = found
    for t in range(size):
        at = line + t
        total = zero
        for j in range(k):
            total += c[t, j] * c[t, j] * inverse[j]
        hotelling[at, row] = total
        for j in range(k):
            components[at, row, j] = c[t, j]
        square, explained = sums[t, 0], zero
        over = one / np.sqrt(square)
        for i in range(g):
            along = zero  # K'r
            for j in range(g):
                along += gram[i, j] * c[t, k + j]
            explained += along * c[t, k + i]
            cosine[at, row, i] = along * lengths[i] * over
            amplitude[at, row, i] = c[t, k + g + i]
            snr[at, row, i] = c[t, k + g + i] * deviation[i]
        left = square - explained
        reconstruction[at, row] = np.sqrt(square * each)
        unexplained[at, row] = np.sqrt((zero if left < 0 else left) * without)
        for w in range(len(window)):
            windows[at, row, w] = np.sqrt(sums[t, 1 + w] * window[w])


@_compiled
def _after(line, row, lines):
    """Where the tile begins that comes next."""
    return (line + _TILE, row) if line + _TILE < lines[1] else (lines[0], row + 1)


@_compiled
def whole(block, lines, rows, tables, norms, space, found, extremes, missing):
    """Score the spectra (lines, rows, m) of some lines and rows; how many channels those with gaps lack is told as well, and
    they are left to `gapped`.
    """
    x, c, sums = space
    step, m, analysis = block.shape[1], block.shape[2], tables.analysis
    numbers, panel, columns = analysis[0].size, analysis.shape[2] * _PANEL, analysis.shape[1] * _PANEL
    for row in range(*rows):
        for line in range(lines[0], lines[1], _TILE):
            size = min(lines[1] - line, _TILE)
            _load(block, line, row, size, tables, x)
            line_after, row_after = _after(line, row, lines)
            for column in range(0, columns, _COLUMNS):
                begin, end = column * m // columns, (column + _COLUMNS) * m // columns
                at = row * numbers + (column // _PANEL * panel + column % _PANEL) * _LANES
                for t in range(0, size, _LINES):
                    out_at = t * columns + column
                    _products(
                        x,
                        t * x.shape[1],
                        x.shape[1],
                        analysis,
                        at,
                        _PANEL * _LANES,
                        analysis.shape[2],
                        c,
                        out_at,
                        columns,
                    )
                    if row_after < rows[1]:
                        for other in range(line_after + t, min(line_after + t + _LINES, lines[1])):
                            for i in range(begin, end, _LANES):
                                _prefetch(block, (other * step + row_after) * m + i)
            for t in range(size):
                number = 0
                if not np.isfinite(c[t, 0]):  # what is missing spreads into every column
                    for i in range(m):
                        number += not np.isfinite(x[t, i])
                missing[line + t, row] = number
                if number:
                    for i in range(m):
                        x[t, i] = np.nan
                    for j in range(columns):
                        c[t, j] = np.nan
            _kill(tables, row, x, np.float32(np.nan))  # such a channel has no extremes
            _look(tables, row, size, line * step + row, step, x, c, extremes)
            _kill(tables, row, x, np.float32(0))
            _sum(tables, row, x, sums)
            _derive(c, sums, tables.inverse, norms, row, line, row, size, found)


@_compiled
def gapped(block, line, row, fits, tables, norms, space, found, extremes):
    """Score some spectra that lack channels, with fits and norms of their own."""
    x, c, sums = space
    m, one = block.shape[2], np.int64(1)  # no literal, for which all would be compiled again
    for n in range(len(line)):
        _load(block, line[n], row[n], one, tables, x)
        for i in range(m):
            if not np.isfinite(x[0, i]):
                x[0, i] = np.nan
        _kill(tables, row[n], x, np.float32(np.nan))
        for j in range(fits.shape[1]):
            c[0, j] = fits[n, j]
        _look(tables, row[n], one, line[n] * block.shape[1] + row[n], one, x, c, extremes)
        for i in range(m):
            if np.isnan(x[0, i]):
                x[0, i] = 0
        _sum(tables, row[n], x, sums)
        _derive(c, sums, tables.inverse, norms, n, line[n], row[n], one, found)
