"""Read level 1B spectra of Sentinel-5P: as one lazy cube, and block by block as fast as they can be inflated.

Inflating is the limit. HDF5 does it one chunk after the other under a lock and with zlib; here the library is asked once
where each chunk lies, and the chunks are then read, inflated with libdeflate and unshuffled in as many threads as there are.
Real files have no checksum of HDF5 (fletcher32); deflate's own (adler32) is what finds damage. A variable that is stored in
another way is read by the library.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deflate
import numpy as np
from numpy.lib.recfunctions import repack_fields

from phidias_lab.errors import InputError
from phidias_lab.methods.formats import l1b
from phidias_lab.methods.formats.observations import NotReadable
from phidias_lab.sources.netcdf import Trial, try_each

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

#: Scanlines of a block: 64 of band 7 are 26 MB.
LINES = 64
#: A chunk that holds more scanlines makes the block larger, up to this many bytes.
LARGEST_BLOCK = 2**28
#: Without these a file of radiances or of irradiances says nothing.
_NEEDED = {
    "RADIANCE": ("time", "delta_time", "latitude", "longitude", "solar_zenith_angle", "nominal_wavelength"),
    "IRRADIANCE": ("irradiance", "calibrated_wavelength"),
}
#: Numbers of HDF5's filters.
_DEFLATE, _SHUFFLE = 1, 2
#: NetCDF keeps the length of a dimension in a data set of its name, which says this where it is no variable.
_DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable"
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Variable:
    """Where a variable lies: `offsets` and `sizes` of its chunks, or None where only the library can read it."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fill: Any
    chunk: tuple[int, ...] = ()
    deflated: bool = False
    shuffled: bool = False
    offsets: np.ndarray | None = None
    sizes: np.ndarray | None = None


@dataclass(frozen=True)
class File:
    """What a file says of itself before a spectrum is read: one band of radiances or irradiances."""

    path: Path
    band: int
    kind: str
    sizes: dict[str, int]
    variables: dict[str, Variable]
    attributes: dict[str, Any]
    #: Size and time of change: a file that is replaced while it is read must not give a mixture.
    stamp: tuple[int, int]
    name: l1b.Name | None

    @property
    def layout(self) -> dict[str, l1b.Stored]:
        return l1b.RADIANCE if self.kind == "RADIANCE" else l1b.IRRADIANCE

    def __contains__(self, name: str) -> bool:
        return name in self.variables


def _not_read(path: Path, why: object) -> InputError:
    return InputError(f"{path} cannot be read: {why}")


def index(path: str | Path, band: int | None = None) -> File:
    """Look into a file; `NotReadable` says in a sentence why it is none of level 1B. No spectrum is read."""
    import h5py

    path = Path(path)
    try:
        name = l1b.parse_name(path.name)
    except NotReadable:
        name = None  # a file may have been renamed: what it holds counts
    try:
        with open(path, "rb") as file:
            start = file.read(len(_HDF5))
            stat = os.fstat(file.fileno())
        if not start:
            raise NotReadable("it is empty.")
        if start != _HDF5:
            raise NotReadable("it is no NetCDF-4 file.")
        with h5py.File(path, "r") as data:
            return _index(data, path, band, name, stat)
    except NotReadable:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        said = str(getattr(error, "strerror", None) or error).splitlines()
        raise NotReadable(
            f"it is damaged or cut off ({said[0] if said else type(error).__name__}). Fetch it again."
        ) from None


def _index(data: Any, path: Path, band: int | None, name: l1b.Name | None, stat: os.stat_result) -> File:
    held = {int(m[1]): m[2] for m in (re.fullmatch(r"BAND([1-8])_(RADIANCE|IRRADIANCE)", key) for key in data) if m}
    if not held:
        raise NotReadable(
            "it holds neither radiances nor irradiances of Sentinel-5P (no group BAND7_RADIANCE or the like)."
        )
    if name and not set(name.bands) & held.keys():
        raise NotReadable(f"its name says band {name.bands[0]}, and it holds band {min(held)}.")
    band = min(held) if band is None else band
    if band not in held:
        raise NotReadable(f"it holds band {', '.join(map(str, sorted(held)))}, not band {band}.")
    kind = held[band]
    layout = l1b.RADIANCE if kind == "RADIANCE" else l1b.IRRADIANCE
    top = f"BAND{band}_{kind}/{l1b.MODE}"
    variables: dict[str, Variable] = {}
    sizes: dict[str, int] = {}
    spans = []
    for key, stored in layout.items():
        where = f"{top}/{stored.group}/{key}"
        if where not in data:
            continue
        found = data[where]
        if _plain(found.attrs.get("NAME", "")).startswith(_DIMENSION_ONLY):
            continue
        if len(found.shape) != len(stored.dims):
            raise NotReadable(f"its {key} has {len(found.shape)} dimensions, not {len(stored.dims)}.")
        for dim, size in zip(stored.dims, found.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise NotReadable(f"its {key} is {size} long in {dim}, and other variables {sizes[dim]}.")
        if stored.dtype and found.dtype.kind not in ("iu" if np.dtype(stored.dtype).kind in "iu" else "f"):
            raise NotReadable(f"its {key} is of type {found.dtype}, not {np.dtype(stored.dtype)}.")
        variables[key], chunks = _variable(found, where, stored)
        spans += chunks
    _whole(spans, stat.st_size)
    missing = [key for key in _NEEDED[kind] if key not in variables]
    if kind == "RADIANCE" and "radiance" not in variables:
        missing += [key for key in ("radiance_int16", "radiance_scaling") if key not in variables]
    if missing:
        raise NotReadable(f"it has no {missing[0]} in {top}.")
    if sizes["time"] != 1:
        raise NotReadable(f"it has {sizes['time']} reference times, not one.")
    if not all(sizes.values()):
        raise NotReadable("it holds no spectrum.")
    attributes = {key: _plain(value) for key, value in data.attrs.items() if not key.startswith("_NC")}
    return File(path, band, kind, sizes, variables, attributes, (stat.st_size, stat.st_mtime_ns), name)


def _variable(found: Any, where: str, stored: l1b.Stored) -> tuple[Variable, list[tuple[int, int]]]:
    fill = found.attrs.get("_FillValue")
    fill = stored.fill if fill is None else np.asarray(fill).reshape(-1)[0]
    plain = Variable(where, found.shape, found.dtype, fill)
    known = found.dtype.isnative and stored.dtype and found.chunks and found.chunks[0] == 1 and found.shape[0] == 1
    made = found.id.get_create_plist()
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if not known or len(found.shape) < 2 or filters not in ([], [_DEFLATE], [_SHUFFLE], [_SHUFFLE, _DEFLATE]):
        return plain, []
    grid = tuple(-(-size // chunk) for size, chunk in zip(found.shape, found.chunks, strict=True))
    offsets, sizes = np.full(grid, -1, "i8"), np.zeros(grid, "i8")
    skipped = []

    def take(chunk: Any) -> None:
        at = tuple(o // c for o, c in zip(chunk.chunk_offset, found.chunks, strict=True))
        offsets[at], sizes[at] = chunk.byte_offset, chunk.size
        skipped.append(chunk.filter_mask)

    found.id.chunk_iter(take)
    if any(skipped):
        return plain, []
    there = offsets >= 0
    return Variable(
        where, found.shape, found.dtype, fill, found.chunks, _DEFLATE in filters, _SHUFFLE in filters, offsets, sizes
    ), list(zip(offsets[there].tolist(), sizes[there].tolist(), strict=True))


def _whole(spans: list[tuple[int, int]], size: int) -> None:
    """Chunks lie within the file and beside each other; an index that was damaged points elsewhere."""
    end = 0
    for start, length in sorted(spans):
        if start < end:
            raise NotReadable("it is damaged: parts of it lie upon each other. Fetch it again.")
        end = start + length
    if end > size:
        raise NotReadable(f"it is cut off: it has {size} bytes and describes {end}. Fetch it again.")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.size == 1:
        return value.reshape(-1)[0]
    return value


def stored(file: File, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """A variable exactly as it is stored, without the dimension of one time; of one with scanlines those from start to stop.

    `InputError` names the file where a part of it is damaged.
    """
    if name not in file:
        raise _not_read(file.path, f"it has no {name}.")
    variable = file.variables[name]
    along = file.layout[name].dims[1:2] == ("scanline",)
    if not along:
        start, stop = 0, None
    stop = (variable.shape[1] if len(variable.shape) > 1 else 1) if stop is None else stop
    try:
        if variable.offsets is None:
            return _by_library(file, variable, start, stop)
        handle = os.open(file.path, os.O_RDONLY)
        try:
            if _stamp(os.fstat(handle)) != file.stamp:
                raise InputError(f"{file.path} was changed while it was read. Open it again.")
            return _chunks(handle, variable, start, stop)
        finally:
            os.close(handle)
    except (OSError, RuntimeError, deflate.DeflateError, _Short) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{file.path} is no longer there. Put it back, or leave it out.") from None
        what = f"its {name} of scanlines {start} to {stop - 1} is damaged" if along else f"its {name} is damaged"
        raise _not_read(file.path, f"{what}. Fetch it again.") from None


class _Short(Exception):
    """A chunk that holds fewer bytes than its shape asks for."""


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _by_library(file: File, variable: Variable, start: int, stop: int) -> np.ndarray:
    import h5py

    with h5py.File(file.path, "r") as data:
        found = data[variable.path]
        values = found[0, start:stop] if found.ndim > 1 else found[...]
    # The library pads the fields of a compound type.
    return repack_fields(values) if values.dtype.names else values


def _chunks(handle: int, variable: Variable, start: int, stop: int) -> np.ndarray:
    shape, chunk = (stop - start, *variable.shape[2:]), variable.chunk[1:]
    out = np.empty(shape, variable.dtype)
    bytes_of_chunk = int(np.prod(chunk)) * variable.dtype.itemsize
    # Places count from the first scanline asked for, so a chunk may begin before it.
    ranges = [range(start // chunk[0], -(-stop // chunk[0])), *(range(n) for n in variable.offsets.shape[2:])]
    shift = (start, *(0 for _ in chunk[1:]))
    packed = bytearray(int(variable.sizes[0, ranges[0].start : ranges[0].stop].max(initial=0)))
    for at in product(*ranges):
        place = [i * c - s for i, c, s in zip(at, chunk, shift, strict=True)]
        inside = tuple(slice(max(p, 0), min(p + c, n)) for p, c, n in zip(place, chunk, shape, strict=True))
        target = out[inside]
        offset, size = int(variable.offsets[0, *at]), int(variable.sizes[0, *at])
        if offset < 0:  # never written
            target[...] = 0 if variable.fill is None else variable.fill
            continue
        part = memoryview(packed)[:size]
        if os.preadv(handle, [part], offset) != size:
            raise _Short
        whole = deflate.zlib_decompress(part, bytes_of_chunk) if variable.deflated else part
        if len(whole) != bytes_of_chunk:
            raise _Short
        if target.shape == chunk and target.flags.c_contiguous:
            _unshuffled(whole, variable, target)
        else:
            values = np.empty(chunk, variable.dtype)
            _unshuffled(whole, variable, values)
            target[...] = values[tuple(slice(i.start - p, i.stop - p) for i, p in zip(inside, place, strict=True))]
    return out


def _unshuffled(whole: Any, variable: Variable, out: np.ndarray) -> None:
    """Undo HDF5's shuffle, which puts the first bytes of all values first, then the second bytes, and so on."""
    size = out.dtype.itemsize
    if not variable.shuffled or size == 1:
        out.reshape(-1)[:] = np.frombuffer(whole, out.dtype)
        return
    planes = np.frombuffer(whole, "u1").reshape(size, -1)
    if size not in (2, 4, 8):
        out.reshape(-1).view("u1").reshape(-1, size)[...] = planes.T
        return
    # By shifts it is twice as fast as by copying bytes.
    word = np.dtype(f"u{size}")
    words = out.reshape(-1).view(word)
    order = range(size) if word.str[0] != ">" and np.little_endian else range(size)[::-1]
    first, *others = order
    words[:] = planes[first]
    for shift, plane in enumerate(others, 1):
        words |= np.left_shift(planes[plane], 8 * shift, dtype=word)


def lines_of(file: File, lines: int = LINES) -> int:
    """Scanlines of a block: about `lines`, in whole chunks so that none is inflated twice."""
    spectral = [file.variables[n] for n in ("radiance", "radiance_int16") if n in file.variables]
    if not spectral or spectral[0].offsets is None:
        return lines
    variable = spectral[0]
    own = min(variable.chunk[1], variable.shape[1])
    if own <= lines:
        return lines // own * own
    return own if own * int(np.prod(variable.shape[2:])) * 4 <= LARGEST_BLOCK else lines


@lru_cache(256)
def _sense(path: Path, stamp: tuple[int, int], band: int) -> int:
    file = index(path, band)
    # A few sunlit scanlines from all along the file tell.
    sun = _floats(stored(file, "solar_zenith_angle"), file.variables["solar_zenith_angle"].fill)
    with np.errstate(invalid="ignore"):
        lit = sun < 80
    lines = np.flatnonzero(lit.any(axis=1))
    values = []
    for line in lines[np.linspace(0, lines.size - 1, 8).astype(int)] if lines.size else ():
        part = stored(file, "radiance_noise", line, line + 1)[0]
        good = (part != file.variables["radiance_noise"].fill) & lit[line][:, None]
        if "spectral_channel_quality" in file:
            good &= stored(file, "spectral_channel_quality", line, line + 1)[0] & l1b.BAD_CHANNEL == 0
        values.append(part[good])
    return l1b.decibel_sense(np.concatenate(values)) if values else 0


def decibel_sense(file: File) -> int:
    """`methods.formats.l1b.decibel_sense` of a file, by a few sunlit scanlines: 0 where it has none, or does not tell."""
    return _sense(file.path, file.stamp, file.band) if "radiance_noise" in file else 0


def _floats(values: np.ndarray, fill: Any) -> np.ndarray:
    if values.dtype.kind == "f" and fill is not None:
        np.copyto(values, np.nan, where=values == fill)
    return values


def read(
    file: File | str | Path, names: Sequence[str] = ("radiance",), start: int = 0, stop: int | None = None
) -> dict[str, np.ndarray]:
    """Variables of the cube for the scanlines from start to stop, without the dimension of time; nothing else is inflated.

    `radiance` and `radiance_noise` are decoded, NaN where a channel is missing or bad; other numbers are NaN where filled;
    `time` is of moments.
    """
    if not isinstance(file, File):
        file = _indexed(file)
    stop = file.sizes["scanline"] if stop is None else stop
    found: dict[str, np.ndarray] = {}
    if "radiance" in names or "radiance_noise" in names:
        found["radiance"] = _radiance(file, start, stop)
    for name in names:
        if name == "radiance_noise":
            decibel = stored(file, name, start, stop)
            fill = file.variables[name].fill
            found[name] = l1b.decode_noise(found["radiance"], decibel, decibel_sense(file), int(fill))
        elif name == "time":
            found[name] = l1b.times(stored(file, "time"), stored(file, "delta_time", start, stop))
        elif name != "radiance":
            found[name] = _floats(stored(file, name, start, stop), file.variables[name].fill)
    return {name: found[name] for name in names}


def _radiance(file: File, start: int, stop: int) -> np.ndarray:
    quality = stored(file, "spectral_channel_quality", start, stop) if "spectral_channel_quality" in file else None
    floats = "radiance" in file
    variable = file.variables["radiance" if floats else "radiance_int16"]
    if floats:
        radiance = stored(file, "radiance", start, stop).astype("f4", copy=False)
        step = 1
    else:
        radiance = np.empty((stop - start, *variable.shape[2:]), "f4")
        scaling = stored(file, "radiance_scaling", start, stop).astype("f4", copy=False)
        scaling = _floats(scaling, file.variables["radiance_scaling"].fill)[..., None]
        step = lines_of(file, 1)
    fill = variable.dtype.type(variable.fill)
    # A few scanlines at a time, because a whole block does not fit into the processor's cache.
    for first in range(start, stop, step):
        lines = slice(first - start, min(first + step, stop) - start)
        part = radiance[lines]
        if floats:
            bad = part == fill
        else:
            counts = stored(file, "radiance_int16", first, lines.stop + start)
            part[...] = counts
            part *= scaling[lines]
            bad = counts == fill
        if quality is not None:
            bad |= quality[lines] & l1b.BAD_CHANNEL != 0
        # All bits set are NaN; this is twice as fast as an assignment where `bad`.
        part.view("u4")[...] |= np.negative(bad.view("i1")).astype("i4").view("u4")
    return radiance


class _Refused:
    """Where reasons go: into what the caller gave, or to the caller as an error."""

    def __init__(self, given: dict[Path, str] | None):
        self.given = given

    def __contains__(self, path: Path) -> bool:
        return path in (self.given or ())

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (NotReadable, InputError) as error:
            told = error if isinstance(error, InputError) else _not_read(path, error)
            if self.given is None:
                raise told from None
            self.given[path] = str(told)


@dataclass(frozen=True)
class Block:
    """Some scanlines of a file."""

    file: File
    start: int
    stop: int
    arrays: dict[str, np.ndarray]


def blocks(
    files: Iterable[File | str | Path],
    names: Sequence[str] = ("radiance",),
    *,
    lines: int = LINES,
    threads: int | None = None,
    refused: dict[Path, str] | None = None,
) -> Iterator[Block]:
    """The files block by block, in order, read ahead by some threads; memory is that of `threads` + 2 blocks.

    With `refused`, files that cannot be read are put there with the reason, also where damage is met late, and the others go
    on; blocks of such a file that came before were right. Without, an `InputError` names the file. A path is opened in a
    process of its own first, a `File` was opened already.
    """
    threads = threads or min(8, os.cpu_count() or 1)

    reasons = _Refused(refused)

    def parts() -> Iterator[tuple[File, int, int]]:
        with Trial(index) as trial:
            for given in files:
                file = given if isinstance(given, File) else None
                if file is None:
                    with reasons.of(Path(given)):
                        file = trial.read(given)
                        _fits(file, None, None)
                if file is None:
                    continue
                step, count = lines_of(file, lines), file.sizes["scanline"]
                for start in range(0, count, step):
                    if file.path in reasons:
                        break
                    yield file, start, min(start + step, count)

    ahead: deque[tuple[tuple[File, int, int], Future]] = deque()
    todo = parts()
    with ThreadPoolExecutor(threads, thread_name_prefix="l1b") as pool:
        try:
            while True:
                while len(ahead) <= threads and (part := next(todo, None)):
                    file, start, stop = part
                    ahead.append((part, pool.submit(read, file, names, start, stop)))
                if not ahead:
                    return
                (file, start, stop), future = ahead.popleft()
                arrays = None
                if file.path not in reasons:
                    with reasons.of(file.path):
                        arrays = future.result()
                del future
                if arrays is not None:
                    yield Block(file, start, stop, arrays)
                del arrays
        finally:
            todo.close()
            for _, future in ahead:
                future.cancel()


def _indexed(path: str | Path, band: int | None = None) -> File:
    try:
        return index(path, band)
    except NotReadable as error:
        raise _not_read(Path(path), error) from None


class _Lazy:
    """An array of a cube that is read when it is asked for; Dask cuts it into blocks of scanlines.

    A compound type becomes bytes, in one dimension more."""

    def __init__(self, file: File, name: str, dtype: Any, raw: bool = False):
        self.file, self.name, self.raw = file, name, raw
        stored = file.variables["radiance_int16" if name == "radiance" and name not in file else name]
        self.shape, self.dtype = stored.shape[1:], np.dtype(dtype)
        if stored.dtype.names:
            self.shape, self.dtype = (*self.shape, repack_fields(stored.dtype).itemsize), np.dtype("u1")
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        lines, rest = key[0] if key else slice(None), key[1:]
        if isinstance(lines, slice):
            start, stop, step = lines.indices(self.shape[0])
            lines = slice(None, None, step)
        else:
            start, stop, lines = int(lines), int(lines) + 1, 0
        get = (
            stored(self.file, self.name, start, stop)
            if self.raw
            else read(self.file, (self.name,), start, stop)[self.name]
        )
        if get.dtype.names:
            get = get.view("u1").reshape(*get.shape, get.dtype.itemsize)
        return get[(lines, *rest)]


def _dask(file: File, name: str, dtype: Any, raw: bool = False) -> da.Array:
    import dask.array as da
    from dask.base import tokenize

    lazy = _Lazy(file, name, dtype, raw)
    chunks = (lines_of(file), *lazy.shape[1:])
    token = tokenize(str(file.path.absolute()), file.stamp, file.band, name, raw)
    return da.from_array(
        lazy, chunks, name=f"l1b-{name}-{token}", asarray=False, meta=np.empty((0,) * lazy.ndim, lazy.dtype)
    )


def granule(path: str | Path, band: int | None = None) -> l1b.Granule | l1b.Irradiance:
    """One band of a file as it is stored: spectral arrays lazy, others read. What the layout does not name is left out."""
    file = _indexed(path, band)
    arrays, fills = {}, {}
    for name, variable in file.variables.items():
        lazy = file.layout[name].spectral and file.kind == "RADIANCE"
        array = _dask(file, name, variable.dtype, raw=True) if lazy else stored(file, name)
        arrays[name] = array if file.layout[name].dims[0] != "time" or len(variable.shape) == 1 else array[None]
        if variable.fill != file.layout[name].fill:
            fills[name] = variable.fill
    kind = l1b.Granule if file.kind == "RADIANCE" else l1b.Irradiance
    return kind(file.band, arrays, file.attributes, fills)


def interpolated_irradiance(file: File, wavelength: np.ndarray) -> np.ndarray:
    """The irradiance on wavelengths (row, channel): a cubic spline of each row from its calibrated wavelengths.

    NaN where the nearest channel of the irradiance is missing or bad, and more than a channel outside of its wavelengths.
    """
    from scipy.interpolate import CubicSpline

    irradiance = _floats(stored(file, "irradiance"), file.variables["irradiance"].fill).astype("f8")
    if "spectral_channel_quality" in file:
        irradiance[stored(file, "spectral_channel_quality") & l1b.BAD_CHANNEL != 0] = np.nan
    known = np.isfinite(irradiance)
    count = known.sum(axis=0)
    irradiance = np.divide(
        np.where(known, irradiance, 0).sum(axis=0), count, where=count > 0, out=np.full(count.shape, np.nan)
    )
    grid = _floats(stored(file, "calibrated_wavelength"), file.variables["calibrated_wavelength"].fill).astype("f8")
    if irradiance.shape[0] != wavelength.shape[0]:
        raise NotReadable(f"it has {irradiance.shape[0]} rows, the radiances have {wavelength.shape[0]}.")
    out = np.full(wavelength.shape, np.nan, "f4")
    for row, wanted in enumerate(wavelength.astype("f8")):
        placed = np.isfinite(grid[row])
        x, y = grid[row, placed], irradiance[row, placed]
        order = np.argsort(x)
        x, y = x[order], y[order]
        good = np.isfinite(y)
        if good.sum() < 4 or (np.diff(x) <= 0).any():
            continue
        step = np.median(np.diff(x))
        nearest = np.clip(np.searchsorted((x[1:] + x[:-1]) / 2, wanted), 0, x.size - 1)
        usable = np.isfinite(wanted) & good[nearest] & (wanted > x[0] - step) & (wanted < x[-1] + step)
        out[row, usable] = CubicSpline(x[good], y[good])(wanted[usable])
    return out


def _begins(file: File) -> np.datetime64:
    return file.name.start if file.name else read(file, ("time",), 0, 1)["time"][0]


def irradiances_before(file: File) -> list[Path]:
    """Files of irradiances of the band in the same folder that begin at or before the radiances, the latest first."""
    found = []
    for path in file.path.parent.iterdir():
        try:
            name = l1b.parse_name(path.name)
        except NotReadable:
            continue
        if name.product.startswith("IR") and file.band in name.bands and name.start <= _begins(file):
            found.append((name.start, name.created, path))
    return [path for *_, path in sorted(found, reverse=True)]


#: The variables of the cube that lie along scanline and ground_pixel, beside radiances and noise.
_PLACES = (
    "latitude", "longitude", "latitude_bounds", "longitude_bounds", "solar_zenith_angle", "solar_azimuth_angle",
    "viewing_zenith_angle", "viewing_azimuth_angle", "ground_pixel_quality", "spectral_channel_quality", "selected",
)  # fmt: skip
_DIMS = {"ncorner": "corner", "pixel": "ground_pixel"}
#: What the cube has of the files exactly as it is stored, so that a selection of pixels can be written as a file again;
#: of compound types the bytes, since no cube holds such.
_AS_STORED = {
    "radiance": "radiance_stored", "radiance_int16": "radiance_stored", "radiance_scaling": "radiance_scaling",
    "radiance_noise": "radiance_noise_stored", "radiance_error": "radiance_error_stored", "quality_level": "quality_level",
    "delta_time": "delta_time", "satellite_latitude": "satellite_latitude", "satellite_longitude": "satellite_longitude",
    "satellite_altitude": "satellite_altitude", "instrument_configuration": "instrument_configuration",
}  # fmt: skip
#: CF's names of what has one.
_STANDARD = {
    "latitude": "latitude", "longitude": "longitude", "solar_zenith_angle": "solar_zenith_angle",
    "solar_azimuth_angle": "solar_azimuth_angle", "viewing_zenith_angle": "sensor_zenith_angle",
    "viewing_azimuth_angle": "sensor_azimuth_angle", "time": "time", "wavelength": "radiation_wavelength",
}  # fmt: skip


def open_spectra(
    paths: str | Path | Iterable[str | Path],
    irradiance: str | Path | None = None,
    *,
    band: int | None = None,
    refused: dict[Path, str] | None = None,
) -> xr.Dataset:
    """Files of radiances as one lazy cube of spectra, one after the other in order of time along `scanline`.

    Blocks of about 64 scanlines never hold two files. `irradiance` is a file of irradiances; without it the latest that
    begins at or before the radiances is taken from their folder. All files are of one band and one number of rows and
    channels: `band`, or that of the first. With `refused`, files that cannot be read are put there with the reason and the
    others go on; without, an `InputError` names the first. Damage within spectra is met when they are read, and names its
    file too.
    """
    paths = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    reasons = _Refused(refused)
    parts: list[_Part] = []
    with Trial(index) as trial:
        for path in paths:
            with reasons.of(path):
                file = trial.read(path)
                first = parts[0].file if parts else None
                _fits(file, band if first is None else first.band, first)
                parts.append(_part(file))
        if not parts:
            raise InputError("No file of radiances is left to read. Name at least one (S5P_OFFL_L1B_RA_BD7_...).")
        parts.sort(key=lambda part: part.time[0])
        suns = _Suns(trial, reasons, None if irradiance is None else Path(irradiance))
        return _cube(parts, [suns.of(part) for part in parts])


def _fits(file: File, band: int | None, first: File | None) -> None:
    if file.kind != "RADIANCE":
        raise NotReadable("it holds irradiances, not radiances. Give it as the irradiance.")
    if band not in (None, file.band):
        raise NotReadable(f"it holds band {file.band}, and band {band} is read. Read it apart.")
    for dim, what in (("ground_pixel", "rows"), ("spectral_channel", "channels")):
        if first and file.sizes[dim] != first.sizes[dim]:
            raise NotReadable(
                f"it has {file.sizes[dim]} {what}, and {first.path.name} has {first.sizes[dim]}. Read it apart."
            )


@dataclass(frozen=True)
class _Part:
    """A file with what is small enough to be read when a cube is opened."""

    file: File
    time: np.ndarray
    scanline: np.ndarray
    wavelength: np.ndarray
    distance: float


def _part(file: File) -> _Part:
    count = file.sizes["scanline"]
    numbers = stored(file, "scanline") if "scanline" in file else np.arange(count)
    wavelength = _floats(stored(file, "nominal_wavelength"), file.variables["nominal_wavelength"].fill)
    distance = float(stored(file, "earth_sun_distance")[0]) if "earth_sun_distance" in file else np.nan
    return _Part(file, read(file, ("time",))["time"], numbers, wavelength.astype("f4", copy=False), distance)


class _Suns:
    """The irradiance of each file, on its wavelengths; each file of irradiances is read and interpolated once."""

    def __init__(self, trial: Trial, reasons: _Refused, given: Path | None):
        self.trial, self.reasons, self.given = trial, reasons, given
        self.known: dict[tuple[Path, bytes], np.ndarray | None] = {}

    def of(self, part: _Part) -> np.ndarray | None:
        for path in [self.given] if self.given else irradiances_before(part.file):
            key = (path, part.wavelength.tobytes())
            if key not in self.known:
                self.known[key] = None
                # One that was asked for by name is not replaced by another.
                with _Refused(None).of(path) if self.given else self.reasons.of(path):
                    self.trial.read(path)
                    file = index(path, part.file.band)
                    if file.kind != "IRRADIANCE":
                        raise NotReadable("it holds no irradiances.")
                    self.known[key] = interpolated_irradiance(file, part.wavelength)
            if self.known[key] is not None:
                return self.known[key]
        return None


def _cube(parts: list[_Part], suns: list[np.ndarray | None]) -> xr.Dataset:
    import dask.array as da
    import xarray as xr

    files = [part.file for part in parts]
    channels = ("scanline", "ground_pixel", "spectral_channel")
    radiances = [_dask(file, "radiance", "f4") for file in files]
    data: dict[str, Any] = {
        "radiance": (channels, da.concatenate(radiances), l1b.RADIANCE["radiance"].attributes("radiance"))
    }
    if all("radiance_noise" in file for file in files):
        noises = [
            da.map_blocks(
                _noise, r, _dask(f, "radiance_noise", f.variables["radiance_noise"].dtype, raw=True), f, dtype="f4"
            )
            for r, f in zip(radiances, files, strict=True)
        ]
        words = {
            "long_name": "standard deviation of the noise of the radiance",
            "units": l1b.RADIANCE["radiance"].units,
            "comment": "missing where the decibels of a file do not tell of what they are, signal to noise or noise",
        }
        data["radiance_noise"] = (channels, da.concatenate(noises), words)
    for name in _PLACES:
        if all(name in file for file in files):
            stored_as = l1b.RADIANCE[name]
            dims = tuple(_DIMS.get(dim, dim) for dim in stored_as.dims[1:])
            arrays = [_dask(file, name, stored_as.dtype) for file in files]
            data[name] = (dims, da.concatenate(arrays), stored_as.attributes(name))
    for name, called in _AS_STORED.items():
        if (variable := _alike(files, name)) is None:
            continue
        dims, words = _described(name, variable)
        lines = da.concatenate([_dask(file, name, variable.dtype, raw=True) for file in files])
        data[called] = (dims, lines, words)
    name = "instrument_settings"
    if (variable := _alike(files, name)) is not None and len({f.variables[name].shape for f in files}) == 1:
        dims, words = _described(name, variable)
        settings = da.stack([_dask(file, name, variable.dtype, raw=True) for file in files])
        data[name] = (("granule", *dims), settings, words)
    if all("measurement_quality" in file for file in files):
        quality = np.concatenate([stored(file, "measurement_quality") for file in files])
        data["measurement_quality"] = (
            "scanline",
            quality,
            l1b.RADIANCE["measurement_quality"].attributes("measurement_quality"),
        )
    data["time"] = ("scanline", np.concatenate([part.time for part in parts]), {"long_name": "time of the measurement"})
    data["scanline_number"] = (
        "scanline", np.concatenate([part.scanline for part in parts]).astype("i4"),
        {"long_name": "number of the scanline in the orbit"},
    )  # fmt: skip
    counts = [file.sizes["scanline"] for file in files]
    data["granule"] = ("scanline", np.repeat(np.arange(len(files), dtype="i4"), counts), {"long_name": "which file"})
    rows = ("granule", *channels[1:])
    words = {"long_name": "nominal wavelength of each row", "units": "nm"}
    data["wavelength"] = (rows, np.stack([part.wavelength for part in parts]), words)
    if any(sun is not None for sun in suns):
        none = np.full(parts[0].wavelength.shape, np.nan, "f4")
        words = {"long_name": "spectral photon irradiance on wavelength", "units": l1b.IRRADIANCE["irradiance"].units}
        data["irradiance"] = (rows, np.stack([none if sun is None else sun for sun in suns]), words)
    words = l1b.RADIANCE["earth_sun_distance"].attributes("earth_sun_distance")
    data["earth_sun_distance"] = ("granule", np.array([part.distance for part in parts], "f4"), words)
    for name, standard in _STANDARD.items():
        if name in data:
            data[name][2]["standard_name"] = standard
    orbits = [int(f.attributes.get("orbit", f.name.orbit if f.name else -1)) for f in files]
    coords = {
        "granule_name": ("granule", [f.path.name for f in files]),
        "orbit": ("granule", np.array(orbits, "i4")),
        "granule_attributes": (
            "granule", [json.dumps(f.attributes, default=_of_numpy) for f in files],
            {"long_name": "global attributes of the file, as JSON"},
        ),
    }  # fmt: skip
    synthetic = any(str(f.attributes.get("synthetic", "")).lower() == "true" for f in files)
    attributes = {
        "title": f"{'Synthetic level' if synthetic else 'Level'} 1B spectra of Sentinel-5P/TROPOMI, band {files[0].band}",
        "instrument": "TROPOMI",
        "band": files[0].band,
        "source": "Sentinel-5P/TROPOMI level 1B",
    }
    return xr.Dataset(data, coords, attributes | ({"synthetic": "true"} if synthetic else {}))


def _alike(files: list[File], name: str) -> Variable | None:
    """A variable that all files have and store in the same way; None where they do not."""
    ways = {(f.variables[name].dtype, str(f.variables[name].fill)) if name in f else None for f in files}
    variable = files[0].variables.get(name)
    return variable if variable and len(ways) == 1 and not variable.dtype.hasobject else None


def _described(name: str, variable: Variable) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Dimensions in a cube and attributes of what is there as it is stored."""
    stored_as = l1b.RADIANCE[name]
    dims = tuple(_DIMS.get(dim, dim) for dim in stored_as.dims[1:])
    words = stored_as.attributes(name) | ({} if variable.fill is None else {"stored_fill": variable.fill})
    if not variable.dtype.names:
        return dims, words
    return (*dims, f"{name}_byte"), {**words, "stored_dtype": json.dumps(repack_fields(variable.dtype).descr)}


def _of_numpy(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _noise(radiance: np.ndarray, decibel: np.ndarray, file: File) -> np.ndarray:
    return l1b.decode_noise(radiance, decibel, decibel_sense(file), int(file.variables["radiance_noise"].fill))


if __name__ == "__main__":
    try_each(index)


class Spectra:
    """Radiances as the catalogue opens them: files by name, all of one band (see `lake.readers`)."""

    pattern = "S5P_????_L1B_RA_BD?_*.nc"
    companions = "S5P_????_L1B_IR_*.nc"

    def open(self, paths: list[str]) -> xr.Dataset:
        """The cube of these files. Those that cannot be read are passed over and named in the attribute `refused`; where
        none is left, the first is the error."""
        bands = {l1b.parse_name(Path(path).name).bands[0] for path in paths}
        if len(bands) > 1:
            folder, several = Path(paths[0]).parent, ", ".join(map(str, sorted(bands)))
            raise InputError(
                f"{folder} holds radiances of the bands {several}, and one is read at a time. Give a pattern of names "
                f"instead of the folder, such as {folder / f'S5P_*_L1B_RA_BD{min(bands)}_*'}."
            )
        refused: dict[Path, str] = {}
        try:
            found = open_spectra(paths, refused=refused)
        except InputError:
            if not refused:
                raise
            raise InputError(next(iter(refused.values()))) from None
        return found.assign_attrs(refused="\n".join(refused.values())) if refused else found

    def beside(self, paths: list[str]) -> list[str]:
        """The files of irradiances in the folders of the radiances."""
        folders = sorted({Path(path).parent for path in paths})
        return [str(path) for folder in folders for path in sorted(folder.glob(self.companions))]

    def period(self, name: str) -> tuple[np.datetime64, np.datetime64] | None:
        """The first and the last moment of a file, which stand in its name."""
        try:
            told = l1b.parse_name(name)
        except NotReadable:
            return None
        return told.start, told.stop


FORMAT = Spectra()
