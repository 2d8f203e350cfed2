"""The demo lake: the synthetic scenes written as the lake keeps real data, so that everything can be tried at once.

A build happens in a folder beside its place and is renamed at the end: a build that is stopped leaves the lake as it
was, and what it leaves behind is removed by the next. Two builds give the same bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phidias_lab import settings
from phidias_lab.errors import InputError, ProductError, UnknownNameError, nearest
from phidias_lab.lake import manifest, stores
from phidias_lab.lake.locks import lock

if TYPE_CHECKING:
    from phidias_lab.testing.scenes.spectra import Scene

#: Raised when a scene or a layout changes: a lake of another version is built anew.
VERSION = "4"
SEED = 0
PARTS = ("ocean", "atmosphere")
_CHUNKS = {"time": 6}
_UNFINISHED = ".building-"

Progress = Callable[[float, str], None]


def stores_of(part: str) -> dict[str, str]:
    """The stores of a part of the demo lake: entry -> path below the lake's root."""
    return {
        "ocean": {
            "ocean.north_east_atlantic": "ocean/north_east_atlantic.zarr",
            "ocean.baltic": "ocean/baltic.zarr",
            "ocean.truth_north_east_atlantic": "ocean/truth_north_east_atlantic.zarr",
            "ocean.truth_baltic": "ocean/truth_baltic.zarr",
            "ocean.observations": "ocean/observations.parquet",
            "ocean.observations_truth": "ocean/observations_truth.parquet",
            "ocean.smos_10_day": "ocean/smos_10_day.zarr",
            "ocean.smos_monthly": "ocean/smos_monthly.zarr",
            "ocean.ocean_colour": "ocean/ocean_colour.zarr",
            "ocean.model_salinity": "ocean/model_salinity.zarr",
        },
        "atmosphere": {
            "atmosphere.spectra": "atmosphere/spectra",
            "atmosphere.learning_spectra": "atmosphere/learning_spectra",
            "atmosphere.truth_spectra": "atmosphere/truth_spectra.zarr",
            "atmosphere.screening_basis": "atmosphere/screening_basis.zarr",
        },
    }[part]


def build_demo(
    only: str | Iterable[str] | None = None,
    progress: Progress | None = None,
    root: str | Path | None = None,
    rebuild: bool = False,
) -> dict[str, dict]:
    """Build the demo lake, or the parts named in `only`; what is there and intact is left as it is.

    `progress(fraction, text)` is told how far it is. Returns for each entry {"path", "bytes", "files", "checksum"}.
    """
    parts = list(PARTS) if only is None else [only] if isinstance(only, str) else list(only)
    for part in parts:
        if part not in PARTS:
            raise UnknownNameError(f"The demo lake has no part {part!r}. {nearest(part, PARTS)}")
    where = settings.lake_root() if root is None else str(root)
    if "://" in where:
        raise ProductError(f"The demo lake is built in a folder; {where} is not one. Set PHIDIAS_LAKE to a folder.")
    base = Path(where).expanduser().absolute()
    tell = progress or (lambda fraction, text: None)
    built = {}
    for number, part in enumerate(parts):

        def within(fraction: float, text: str, number: int = number) -> None:
            tell((number + fraction) / len(parts), text)

        with lock(base / f".{part}.lock", what="The demo lake"):
            known = None if rebuild else _intact(base, part)
            if known is None:
                try:
                    _build(base, part, within)
                except OSError as error:
                    raise _refused(base, error) from error
                known = _intact(base, part)
            built |= known
    tell(1.0, "The demo lake is ready.")
    return built


def _intact(base: Path, part: str) -> dict[str, dict] | None:
    """What is in a part that was built by this version and misses nothing; None when it has to be built."""
    found = {}
    for entry, path in stores_of(part).items():
        address = str(base / path)
        try:
            known = manifest.read(address)
            if known is None or known.get("version") != VERSION:
                return None
            manifest.check_sizes(address, known)
        except InputError:
            return None
        found[entry] = {
            "path": address,
            "bytes": known["bytes"],
            "files": len(known["files"]),
            "checksum": known["checksum"],
        }
    return found


def _refused(base: Path, error: OSError) -> ProductError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProductError(
            f"The disk of {base} is full. Free about 150 MB, or set PHIDIAS_LAKE to a folder with more space."
        )
    return ProductError(
        f"The lake {base} cannot be written ({error.strerror or error}). Set PHIDIAS_LAKE to a folder you may write to."
    )


def _build(base: Path, part: str, tell: Progress) -> None:
    for left in base.glob(f"{_UNFINISHED}{part}-*"):
        shutil.rmtree(left, ignore_errors=True)
    work = base / f"{_UNFINISHED}{part}-{uuid.uuid4().hex[:8]}"
    work.mkdir()
    try:
        {"ocean": _ocean, "atmosphere": _atmosphere}[part](work, tell)
        for path in stores_of(part).values():
            target, old = base / path, None
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                old = work / f"old-{target.name}"
                os.rename(target, old)
            os.rename(work / path, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _ocean(folder: Path, tell: Progress) -> None:
    from phidias_lab.testing.scenes import ocean, satellite

    paths = stores_of("ocean")
    (folder / "ocean").mkdir()
    shapes, fields = {}, {}
    for number, (name, sea) in enumerate(ocean.SEAS.items()):
        tell(0.05 + 0.3 * number, f"{sea.title}: coast, sea floor and true fields (synthetic)")
        shapes[name] = ocean.domain(sea)
        fields[name] = ocean.truth(sea, SEED, shape=shapes[name])
        for data, entry in ((shapes[name], f"ocean.{name}"), (fields[name], f"ocean.truth_{name}")):
            stores.write_cube(data, folder / paths[entry], entry=entry, chunks=_CHUNKS, version=VERSION)
    tell(0.6, "Satellite fields (synthetic)")
    atlantic, baltic = ocean.NORTH_EAST_ATLANTIC, ocean.BALTIC
    for data, entry in (
        (
            satellite.surface_salinity(atlantic, fields[atlantic.name], satellite.decades(2015), SEED),
            "ocean.smos_10_day",
        ),
        (
            satellite.surface_salinity(atlantic, fields[atlantic.name], satellite.months("2014-01", "2016-01"), SEED),
            "ocean.smos_monthly",
        ),
        (satellite.ocean_colour(baltic, fields[baltic.name], satellite.eights(2015), SEED), "ocean.ocean_colour"),
        (
            satellite.model_salinity(atlantic, fields[atlantic.name], satellite.months("2014-01", "2016-01"), SEED),
            "ocean.model_salinity",
        ),
    ):
        stores.write_cube(data, folder / paths[entry], entry=entry, chunks=_CHUNKS, version=VERSION)
    tell(0.65, "Observations (synthetic)")
    tables = ocean.observations(fields, shapes, SEED)
    for table, entry in zip(tables, ("ocean.observations", "ocean.observations_truth"), strict=True):
        tell(0.85, f"Writing {entry}")
        stores.write_table(table, folder / paths[entry], entry=entry, version=VERSION)


def _atmosphere(folder: Path, tell: Progress) -> None:
    from phidias_lab.chains.atmosphere.screening_basis import ScreeningBasis
    from phidias_lab.sources.l1b import open_spectra
    from phidias_lab.testing.scenes import half_orbits, spectra

    paths = {entry: folder / path for entry, path in stores_of("atmosphere").items()}
    happening, learning = half_orbits.happening(SEED), half_orbits.learning(SEED)
    tell(0.02, "Spectra to learn from (synthetic)")
    files = _level_1b(learning, paths["atmosphere.learning_spectra"], "atmosphere.learning_spectra")
    tell(0.2, "Spectra in which something happens (synthetic)")
    _level_1b([happening], paths["atmosphere.spectra"], "atmosphere.spectra")
    truth, ground = spectra.truth(happening), happening.ground()
    places = {
        name: (("scanline", "ground_pixel"), ground[name], {"standard_name": name, "units": f"degrees_{direction}"})
        for name, direction in (("latitude", "north"), ("longitude", "east"))
    }
    truth = truth.assign_coords({**places, "time": ("scanline", ground["time"], {"standard_name": "time"})})
    tell(0.3, "The basis of usual spectra")
    basis = ScreeningBasis(**half_orbits.LEARNT)(spectra=open_spectra(files)).load()
    for data, entry in ((truth, "atmosphere.truth_spectra"), (basis, "atmosphere.screening_basis")):
        stores.write_cube(data, paths[entry], entry=entry, chunks={}, version=VERSION)


def _level_1b(scenes: list[Scene], folder: Path, entry: str) -> list[Path]:
    """Write granules, and the irradiances that were taken before them, as level 1B files; returns those of the granules."""
    from phidias_lab.methods.formats.l1b import parse_name
    from phidias_lab.products import l1b
    from phidias_lab.testing.scenes import spectra

    folder.mkdir(parents=True)
    files = [folder / spectra.name(scene) for scene in scenes]
    for scene, file in zip(scenes, files, strict=True):
        made = spectra.granule(scene, "u2")
        # HDF5 keeps the time at which a compound type was made, and two builds give the same bytes.
        arrays = {name: array for name, array in made.arrays.items() if array.dtype.names is None}
        l1b.write(replace(made, arrays=arrays), file)
    light = replace(parse_name(files[0].name), product="IR_SIR")
    l1b.write(spectra.irradiance(scenes[0]), folder / str(light))
    manifest.write(folder, entry=entry, kind="cube", version=VERSION)
    return files
