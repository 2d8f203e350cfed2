"""Events do not depend on where on the globe they lie, nor on how an orbit was cut into files."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from phidias_lab.chains.atmosphere import _scenes
from phidias_lab.chains.atmosphere.screening import Screening
from phidias_lab.methods import clusters
from phidias_lab.methods.formats import l1b
from phidias_lab.products.l1b import write
from phidias_lab.sources import l1b as source
from phidias_lab.testing.scenes import spectra as scenes

LINES, LINE, ROW = 70, 35, 30
#: Longitude and latitude to which the middle of the fire is turned.
PLACES = {
    "a plain place": (100.0, 10.0),
    "the date line": (180.0, 10.0),
    "north pole": (0.0, 90.0),
    "south pole": (0.0, -90.0),
}


@pytest.fixture(scope="module")
def burning() -> tuple[scenes.Scene, l1b.Granule]:
    """A fire and a gas that no dictionary has, some scanlines apart."""
    plain = _scenes.granule(1, LINES)
    fire = scenes.Event("fire", "fire", *plain.place(LINE, ROW), 8.0, length=120.0, width=25.0)
    other = scenes.Event("gas", "unknown", *plain.place(LINE, 10), 3.0, length=120.0, width=25.0)
    scene = dataclasses.replace(plain, events=(fire, other))
    return scene, scenes.granule(scene)


def screened(burning, folder: Path, place: str, cuts: tuple[int, ...] = ()):
    """The scene turned as a whole so that the fire lies at a place, as files cut before some scanlines: the number of the
    event of each pixel, and the events."""
    scene, granule = burning
    arrays, numbers = dict(granule.arrays), (0, *cuts, LINES)
    middle, wanted = (clusters.on_sphere(lat, lon) for lon, lat in (scene.place(LINE, ROW), PLACES[place]))
    turn = Rotation.align_vectors(
        [wanted, np.cross(wanted, [0.6, 0.0, 0.8])], [middle, np.cross(middle, [0.6, 0.0, 0.8])]
    )[0]
    for end in ("", "_bounds"):
        lat, lon = arrays[f"latitude{end}"], arrays[f"longitude{end}"]
        points = turn.apply(clusters.on_sphere(lat, lon).reshape(-1, 3))
        arrays[f"latitude{end}"] = np.degrees(np.arcsin(points[:, 2])).astype("f4").reshape(lat.shape)
        arrays[f"longitude{end}"] = np.degrees(np.arctan2(points[:, 1], points[:, 0])).astype("f4").reshape(lat.shape)
    sun = l1b.Name(
        "TEST", "IR_SIR", *(np.datetime64("2018-04-30", "s"),) * 2, 1, 1, "000000", np.datetime64("2018-05-01", "s")
    )
    write(scenes.irradiance(scene), folder / str(sun))
    paths = []
    for first, last in itertools.pairwise(numbers):
        part = {
            name: array.take(range(first, last), l1b.RADIANCE[name].dims.index("scanline"))
            if "scanline" in l1b.RADIANCE[name].dims else array
            for name, array in arrays.items()
        }  # fmt: skip
        name = l1b.parse_name(scenes.name(scene))
        name = dataclasses.replace(name, start=name.start + np.timedelta64(first, "s"))
        write(l1b.Granule(7, part, granule.attributes), folder / str(name))
        paths.append(folder / str(name))
    chain = Screening(rate=1e-6, grow=1e-4, most=0.2)
    result = chain(spectra=source.open_spectra(paths), basis=_scenes._learnt()[1]).load()
    return result["event"].values, chain.events(result)


def pixels(event: np.ndarray) -> set[frozenset]:
    return {
        frozenset(zip(*map(np.ndarray.tolist, np.nonzero(event == n)), strict=True))
        for n in np.unique(event[event > 0])
    }


@pytest.fixture(scope="module")
def plain(burning, tmp_path_factory):
    return screened(burning, tmp_path_factory.mktemp("plain"), "a plain place")


def at(table: pd.DataFrame, event: np.ndarray) -> pd.Series:
    """The event in the middle of the fire."""
    return table[table["event"] == event[LINE, ROW]].iloc[0]


@pytest.mark.parametrize(("place", "cuts"), [("the date line", (36,)), ("north pole", (34,)), ("south pole", (20, 36))])
def test_the_same_pixels_are_the_same_events_at_the_date_line_and_the_poles_and_in_files_cut_anywhere(
    burning, plain, tmp_path, place, cuts
):
    one, table = plain
    other, turned = screened(burning, tmp_path, place, cuts)
    assert one[LINE, ROW] > 0
    assert len(pixels(one)) >= 2
    assert pixels(other) == pixels(one)
    fire, again = at(table, one), at(turned, other)
    assert len(again["granules"]) == 2, "the fire lies on both sides of a cut"
    assert (again["kind"], again["pixels"], again["time"], again["time_end"]) == (
        fire["kind"], fire["pixels"], fire["time"], fire["time_end"],
    )  # fmt: skip
    assert (again["peak_scanline"], again["peak_ground_pixel"]) == (fire["peak_scanline"], fire["peak_ground_pixel"])
    np.testing.assert_allclose(again["signature"], fire["signature"], atol=2e-3)
    np.testing.assert_allclose(clusters.area(again.geometry), clusters.area(fire.geometry), rtol=0.01)
    assert again.geometry.is_valid
    west, south, east, north = again.geometry.bounds
    assert -180 <= west < east <= 180
    if place == "the date line":
        assert (west, east) == (-180, 180)
        assert all(part.bounds[2] - part.bounds[0] < 30 for part in again.geometry.geoms)
    else:
        assert {"north pole": north, "south pole": -south}[place] == 90


def test_a_cut_into_files_leaves_the_outline_as_it_is(burning, plain, tmp_path):
    _, table = plain
    _, cut = screened(burning, tmp_path, "a plain place", (7, 36))
    for whole, again in zip(table.itertuples(), cut.itertuples(), strict=True):
        assert (again.kind, again.time, again.pixels) == (whole.kind, whole.time, whole.pixels)
        assert again.geometry.equals(whole.geometry)
