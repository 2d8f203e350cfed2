"""Events are the same wherever on the globe they lie and however they came, and their outlines are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from phidias_lab.errors import InputError
from phidias_lab.methods.clusters import (
    Clusters,
    Pixels,
    Rules,
    area,
    diagonal,
    false_objects,
    outline,
)

RADIUS = 6371.0088  # km
START = np.datetime64("2021-08-01T12:00:00", "ns")
PLACES = [(0.0, 0.0), (45.0, 10.0), (-30.0, 180.0), (72.0, -179.9), (89.9, 0.0), (-90.0, 0.0), (89.0, 123.0)]


def seen_from(lat0, lon0, x, y):
    """Latitude and longitude of a place x km along and y km across from another, on great circles, turned by 20 degrees."""
    away, heading = np.hypot(x, y) / RADIUS, np.arctan2(x, y) + np.deg2rad(20)
    p, q = np.deg2rad(lat0), np.deg2rad(lon0)
    up = np.array([np.cos(p) * np.cos(q), np.cos(p) * np.sin(q), np.sin(p)])
    north = np.array([-np.sin(p) * np.cos(q), -np.sin(p) * np.sin(q), np.cos(p)])
    east = np.array([-np.sin(q), np.cos(q), 0.0])
    away, heading = np.asarray(away)[..., None], np.asarray(heading)[..., None]
    point = np.cos(away) * up + np.sin(away) * (np.cos(heading) * north + np.sin(heading) * east)
    lat = np.arctan2(point[..., 2], np.hypot(point[..., 0], point[..., 1]))
    return np.rad2deg(lat), np.rad2deg(np.arctan2(point[..., 1], point[..., 0]))


def swath(lat0, lon0, lines=12, rows=10, size=(7.0, 5.5), score=None):
    """Pixels side by side around a place, line after line; corners as files hold them, in single precision."""
    i, j = np.arange(lines + 1) - lines / 2, np.arange(rows + 1) - rows / 2
    lat, lon = seen_from(lat0, lon0, *np.meshgrid(i * size[0], j * size[1], indexing="ij"))
    lat, lon = lat.astype(np.float32), lon.astype(np.float32)
    corners = [(slice(None, -1), slice(None, -1)), (slice(1, None), slice(None, -1)), (slice(1, None), slice(1, None))]
    corners.append((slice(None, -1), slice(1, None)))
    bounds = [np.stack([part[c] for c in corners], axis=-1).reshape(-1, 4) for part in (lat, lon)]
    middle = seen_from(lat0, lon0, *np.meshgrid((i[1:] - 0.5) * size[0], (j[1:] - 0.5) * size[1], indexing="ij"))
    time = START + np.repeat(np.arange(lines), rows) * np.timedelta64(840, "ms")
    score = np.ones(lines * rows) if score is None else np.ravel(score)
    return Pixels(time, *(part.ravel() for part in middle), score, *bounds)


def together(*parts):
    return Pixels(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def haversine(a, b):
    """The great-circle distance in km of two places in degrees."""
    lat1, lon1, lat2, lon2 = (math.radians(part) for part in (*a, *b))
    h = math.sin((lat1 - lat2) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon1 - lon2) / 2) ** 2
    return 2 * RADIUS * math.asin(min(math.sqrt(h), 1.0))


def one_by_one(pixels, rules):
    """The sets of pixels of the events, from all pairs."""
    n = len(pixels.time)
    place = list(zip(pixels.latitude, pixels.longitude, strict=True))
    corner = [
        list(zip(a, o, strict=True)) for a, o in zip(pixels.latitude_bounds, pixels.longitude_bounds, strict=True)
    ]
    size = [max(haversine(c[0], c[2]), haversine(c[1], c[3])) for c in corner]
    root, degree = list(range(n)), [0] * n

    def of(k):
        while root[k] != k:
            k = root[k]
        return k

    for a in range(n):
        for b in range(a):
            lag = abs((pixels.time[a] - pixels.time[b]) / np.timedelta64(1, "s"))
            if min(pixels.score[a], pixels.score[b]) < rules.grow or lag > rules.seconds:
                continue
            if haversine(place[a], place[b]) <= rules.length * (size[a] + size[b]) / 2:
                root[of(a)] = of(b)
                degree[a] += 1
                degree[b] += 1
    seeds = {of(k) for k in range(n) if pixels.score[k] >= rules.seed and degree[k] >= rules.neighbours}
    groups = {}
    for k in range(n):
        if of(k) in seeds:
            groups.setdefault(of(k), set()).add(identity(pixels, k))
    return {frozenset(group) for group in groups.values()}


def identity(pixels, k):
    return (int(pixels.time[k].astype(np.int64)), float(pixels.latitude[k]), float(pixels.longitude[k]))


def groups(clusters):
    label = clusters.labels()
    return {
        frozenset(identity(clusters.pixels, k) for k in np.flatnonzero(label == one)) for one in range(label.max() + 1)
    }


def noisy(place, seed, lines=12, rows=10, size=(7.0, 5.5)):
    random = np.random.default_rng(seed)
    field = (
        ndimage.gaussian_filter(random.normal(size=(lines, rows)), 0.8) * 2.5 + random.normal(size=(lines, rows)) * 0.7
    )
    return swath(*place, lines, rows, size, field)


@pytest.mark.parametrize("place", PLACES)
def test_events_are_those_found_from_all_pairs(place):
    rules, number = Rules(seed=1.5, grow=0.8, length=1.1), 0
    for seed in range(3):
        pixels = noisy(place, seed)
        if seed:  # pixels of two sizes beside each other
            pixels = together(pixels, noisy((place[0] - 0.1, place[1] + 0.3), 9, 8, 6, (15.0, 6.0)))
        found = Clusters(rules)
        found.add(pixels)
        assert groups(found) == one_by_one(pixels, rules)
        number += found.labels().max() + 1
    assert number > 3


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(PLACES), st.integers(0, 5), st.lists(st.integers(0, 23), max_size=6), st.randoms(), st.booleans()
)
def test_cuts_into_granules_and_their_order_do_not_matter(place, seed, cuts, random, resumed):
    # Two swaths of the same region, the second one orbit later and a little aside.
    rules = Rules(seed=1.5, grow=0.8, seconds=6100.0)
    first, second = noisy(place, seed), noisy((place[0] - 0.1, place[1] + 0.3), seed + 50)
    second = second._replace(time=second.time + np.timedelta64(6090, "s"))
    pixels = together(first, second)
    whole = Clusters(rules)
    whole.add(pixels)
    expected = [(event.id, frozenset(identity(whole.pixels, k) for k in event.rows)) for event in whole.events()]
    line = np.arange(240) // 10
    pieces = [np.flatnonzero(np.searchsorted(sorted(cuts), line, "right") == k) for k in range(len(cuts) + 1)]
    random.shuffle(pieces)
    parts = Clusters(rules)
    for rows in pieces:
        parts.add(pixels.take(rows))
        parts.events()
        if resumed:
            parts = Clusters.of(rules, parts.state())
    made = parts.events()
    assert [(event.id, frozenset(identity(parts.pixels, k) for k in event.rows)) for event in made] == expected
    for one, other in zip(whole.events(), made, strict=True):
        assert shapely.equals(one.geometry, other.geometry)
        assert one[4:8] == pytest.approx(other[4:8], rel=1e-9)


def test_two_swaths_of_one_place_are_one_event_only_within_the_time():
    first = swath(10, 20, 3, 3)
    second = first._replace(time=first.time + np.timedelta64(6000, "s"))
    for seconds, number in ((6010.0, 1), (5990.0, 2)):
        found = Clusters(Rules(1, 1, seconds=seconds))
        found.add(together(first, second))
        assert len(found.events()) == number


def test_an_event_needs_a_seed_with_neighbours_and_grows_to_weaker_pixels():
    rules = Rules(seed=5, grow=3, neighbours=2)

    def number_of_pixels(score):
        found = Clusters(rules)
        found.add(swath(45, 10, *np.shape(score), score=score))
        return [event.rows.size for event in found.events()]

    assert number_of_pixels([[3, 5, 3, 0, 3, 3, 3]]) == [3]
    assert number_of_pixels([[0, 5, 3, 0, 0, 0, 0]]) == []  # one neighbour is too few
    assert number_of_pixels([[5, 3, 3, 3, 4.9, 2.9, 9]]) == []  # the seed has one neighbour; 9 has none
    assert number_of_pixels([[3, 5, 3, 3, 3, 3, 2.9]]) == [6]
    # Pixels that touch at a corner are neighbours, whatever their shape.
    assert number_of_pixels(np.diag([4, 6, 4.0])) == [3]
    found = Clusters(rules)
    found.add(swath(45, 10, 3, 3, size=(5.5, 25.0), score=np.diag([4, 6, 4.0])))
    assert [event.rows.size for event in found.events()] == [3]


def test_a_longer_link_bridges_a_gap():
    score = np.ones((3, 9))
    score[:, 4] = 0
    for length, number in ((1.1, 2), (1.6, 1)):
        found = Clusters(Rules(1, 1, length=length))
        found.add(swath(45, 180, 3, 9, score=score))
        assert len(found.events()) == number


def test_pixels_without_place_or_score_are_left_out():
    pixels = swath(45, 10, 3, 3)
    for column, value in (("score", np.nan), ("latitude", np.nan), ("longitude_bounds", np.nan)):
        changed = getattr(pixels, column).astype(float).copy()
        changed[4] = value
        found = Clusters(Rules(1, 1))
        found.add(pixels._replace(**{column: changed}))
        assert found.labels().tolist() == [0] * 8
    found = Clusters(Rules(1, 1))
    found.add(pixels.take(np.empty(0, int)))
    assert found.events() == []
    with pytest.raises(InputError, match="Choose a growing threshold that is not above"):
        Clusters(Rules(seed=1, grow=2))


def test_events_that_turn_out_to_be_one_say_which_they_replace():
    pixels = swath(45, 10, 3, 9)
    column = np.arange(27) % 9
    found = Clusters(Rules(1, 1))
    found.add(pixels.take(np.flatnonzero(column != 4)))
    west, east = found.events()
    assert west.replaces == east.replaces == ()
    found.add(pixels.take(np.flatnonzero(column == 4)))
    found = Clusters.of(found.rules, found.state())
    (both,) = found.events()
    assert {both.id} | set(both.replaces) == {west.id, east.id}
    (again,) = found.events()
    assert again.replaces == ()


def test_the_id_tells_time_and_place_of_the_first_pixel():
    found = Clusters(Rules(1, 1))
    found.add(swath(-45.25, 181.5, 3, 3))
    (event,) = found.events()
    first = found.pixels.take(event.rows[:1])
    assert event.id == f"20210801T120000Z_{-first.latitude[0]:06.3f}S_{-first.longitude[0]:07.3f}W"
    assert (event.start, event.end) == (START, START + np.timedelta64(1680, "ms"))


def test_what_is_told_of_an_event_is_that_of_its_pixels():
    score = np.array([[1, 2, 1], [2, 8, 2], [1, 2, 1.0]])
    for place in PLACES:
        found = Clusters(Rules(2, 1))
        found.add(swath(*place, 3, 3, score=score))
        (event,) = found.events()
        assert event.rows.size == 9
        assert found.pixels.score[event.peak] == 8
        assert event.score == pytest.approx(20 / 3)
        assert haversine((event.latitude, event.longitude), place) < 0.05
        assert event.area == pytest.approx(9 * 7 * 5.5, rel=2e-3)


def test_groups_that_nothing_can_reach_any_more_are_released():
    rules = Rules(1, 1, seconds=100)
    early, late = swath(10, 10, 3, 3), swath(20, 20, 3, 3)
    late = late._replace(time=late.time + np.timedelta64(150, "s"))
    found = Clusters(rules)
    found.add(together(early, late))
    found.release(START + np.timedelta64(101, "s"))
    assert len(found.events()) == 2  # the last pixel of the early one came 1.7 s after its first
    found.release(START + np.timedelta64(102, "s"))
    (left,) = found.events()
    assert left.latitude == pytest.approx(20, abs=0.01)
    found.add(late._replace(time=late.time + np.timedelta64(50, "s")))
    (left,) = found.events()
    assert left.rows.size == 18


# Outlines --------------------------------------------------------------------------------------------------------------


def box_area(south, north, degrees):
    return RADIUS**2 * np.deg2rad(degrees) * (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south)))


def checked(geometry):
    assert geometry.is_valid
    west, south, east, north = geometry.bounds
    assert west >= -180
    assert east <= 180
    assert south >= -90
    assert north <= 90
    for part in shapely.get_parts([geometry]):
        assert part.geom_type == "Polygon"
        assert part.exterior.is_ccw
        assert not any(ring.is_ccw for ring in part.interiors)
    return geometry


def test_areas_are_those_of_boxes_and_caps():
    assert area(shapely.box(-20, 10, 35, 60)) == pytest.approx(box_area(10, 60, 55), rel=1e-12)
    assert area(shapely.box(-180, -90, 180, 90)) == pytest.approx(4 * np.pi * RADIUS**2, rel=1e-12)
    hole = shapely.box(-20, 10, 35, 60).difference(shapely.box(0, 20, 10, 30))
    assert area(hole) == pytest.approx(box_area(10, 60, 55) - box_area(20, 30, 10), rel=1e-12)
    both = shapely.union(shapely.box(-20, 10, 35, 60), shapely.box(100, -60, 110, -50))
    assert area(both) == pytest.approx(box_area(10, 60, 55) + box_area(-60, -50, 10), rel=1e-12)
    # Long edges, straight in the two coordinates: the integral of cos(lat) (1 - lat / 60) from 0 to 60 degrees.
    triangle = shapely.Polygon([(0, 0), (40, 0), (0, 60)])
    top = np.deg2rad(60)
    assert area(triangle) == pytest.approx(RADIUS**2 * np.deg2rad(40) * (1 - np.cos(top)) / top, rel=1e-12)
    # A cap of 500 km around a place: 2 pi R^2 (1 - cos(r / R)).
    turn = np.linspace(0, 2 * np.pi, 2001)
    lat, lon = seen_from(40, 20, 500 * np.cos(turn), 500 * np.sin(turn))
    cap = 2 * np.pi * RADIUS**2 * (1 - np.cos(500 / RADIUS))
    assert area(shapely.Polygon(np.column_stack([lon, lat]))) == pytest.approx(cap, rel=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_the_outline_of_a_swath_is_whole_and_has_its_area(place):
    pixels = swath(*place, 30, 20)
    geometry = checked(outline(pixels.latitude_bounds, pixels.longitude_bounds))
    assert area(geometry) == pytest.approx(30 * 20 * 7 * 5.5, rel=1e-3)
    assert sum(len(part.interiors) for part in shapely.get_parts([geometry])) == 0
    across = abs(place[1]) > 179 or abs(place[0]) > 89.5
    assert geometry.geom_type == ("MultiPolygon" if across and abs(place[0]) < 89 else "Polygon")
    points = shapely.points(pixels.longitude, pixels.latitude)
    assert (shapely.distance(geometry, points) < 1e-4).all()
    # A hole is where a pixel is missing, and a place outside is outside.
    lacking = outline(*(np.delete(part, 310, axis=0) for part in (pixels.latitude_bounds, pixels.longitude_bounds)))
    assert area(lacking) == pytest.approx(599 * 7 * 5.5, rel=1e-3)
    assert not lacking.contains(shapely.Point(pixels.longitude[310], pixels.latitude[310]))
    for x, y in ((110, 0), (0, 60), (-110, 0), (0, -60)):
        lat, lon = seen_from(*place, x, y)
        assert not geometry.contains(shapely.Point(lon, lat))


def test_pixels_around_a_pole_that_none_holds_leave_it_out():
    pixels = swath(-90, 0, 11, 11)
    # The middle one of an odd number of pixels holds the pole.
    centre = 5 * 11 + 5
    whole = checked(outline(pixels.latitude_bounds, pixels.longitude_bounds))
    ring = checked(
        outline(*(np.delete(part, centre, axis=0) for part in (pixels.latitude_bounds, pixels.longitude_bounds)))
    )
    assert whole.bounds[1] == -90
    assert ring.bounds[1] > -90
    assert area(whole) - area(ring) == pytest.approx(7 * 5.5, rel=0.01)
    alone = checked(outline(pixels.latitude_bounds[[centre]], pixels.longitude_bounds[[centre]]))
    assert area(alone) == pytest.approx(7 * 5.5, rel=0.01)


def test_one_pixel_across_the_date_line_is_two_polygons():
    geometry = checked(outline(np.array([[10, 10, 11, 11.0]]), np.array([[179.5, -179.5, -179.5, 179.5]])))
    assert geometry.geom_type == "MultiPolygon"
    expected = shapely.multipolygons([shapely.box(179.5, 10, 180, 11), shapely.box(-180, 10, -179.5, 11)])
    assert shapely.equals(geometry, expected)
    for turn in ([179.5, 180.5, 180.5, 179.5], [-180.5, -179.5, -179.5, -180.5]):
        assert shapely.equals(outline(np.array([[10, 10, 11, 11.0]]), np.array([turn])), expected)
    beyond = outline(np.array([[10, 10, 11, 11.0]]), np.array([[200, 201, 201, 200.0]]))
    assert shapely.equals(beyond, shapely.box(-160, 10, -159, 11))


def test_corners_in_either_direction_and_crossed_ones_make_a_valid_outline():
    lat, lon = np.array([[10, 10, 11, 11.0]]), np.array([[20, 21, 21, 20.0]])
    assert shapely.equals(outline(lat, lon), checked(outline(lat[:, ::-1], lon[:, ::-1])))
    checked(outline(lat[:, [0, 2, 1, 3]], lon[:, [0, 2, 1, 3]]))


def test_pixels_without_area_have_an_empty_outline():
    for longitude in (20.0, 180.0):
        empty = outline(np.full((2, 4), 10.0), np.full((2, 4), longitude))
        assert empty.is_empty
        assert area(empty) == 0


def test_a_pixel_around_a_pole_or_with_a_corner_there_has_its_area():
    # Great circles between the four corners: 4 triangles, nearly plane ones.
    edge = RADIUS * np.deg2rad(0.1)
    around = checked(outline(np.full((1, 4), -89.9), np.array([[0, 90, 180, 270.0]])))
    assert area(around) == pytest.approx(2 * edge**2, rel=2e-3)
    corner = checked(outline(np.array([[89.9, 89.9, 90, 90]]), np.array([[0, 90, 90, 0.0]])))
    assert area(corner) == pytest.approx(edge**2 / 2, rel=2e-3)


def test_diagonals_are_those_of_great_circles():
    for place in PLACES:
        pixels = swath(*place, 2, 2)
        assert diagonal(pixels.latitude_bounds, pixels.longitude_bounds) == pytest.approx(
            1e3 * np.hypot(7, 5.5), rel=2e-3
        )


# False objects ---------------------------------------------------------------------------------------------------------


def test_false_objects_are_foretold_by_the_negative_side():
    random = np.random.default_rng(0)
    rules = Rules(seed=2.0, grow=1.2, neighbours=2)
    shape, found = (60, 40), {1: [], -1: []}
    for _ in range(40):
        field = stats.zscore(ndimage.gaussian_filter(random.standard_t(6, size=shape), 0.6), axis=None)
        for sign in found:
            clusters = Clusters(rules)
            clusters.add(swath(20, 20, *shape, score=sign * field))
            found[sign] += [(e.rows.size, clusters.pixels.score[e.peak]) for e in clusters.events()]
    screened = 40 * 60 * 40
    sizes, peaks = np.array(found[-1]).T
    for size, peak in ((1, 0.0), (4, 0.0), (4, 3.0), (8, 2.5)):
        told = false_objects(sizes, peaks, screened, size, peak)
        real = sum(n >= size and p >= peak for n, p in found[1])
        null = round(told.value * screened / 1e6)
        assert null > 10
        # Two Poisson numbers of one mean: conditional on their sum a binomial one.
        assert stats.binomtest(real, real + null, 0.5).pvalue > 0.01


def test_the_interval_of_false_objects_is_that_of_a_poisson_number():
    told = false_objects([3, 5, 9, 2], [4, 4, 6, 9.0], 2_000_000, size=3, level=0.9)
    assert told.value == 1.5
    assert stats.poisson.sf(2, told.low * 2) == pytest.approx(0.05)
    assert stats.poisson.cdf(3, told.high * 2) == pytest.approx(0.05)
    none = false_objects([], [], 1_000_000)
    assert (none.value, none.low) == (0, 0)
    assert np.exp(-none.high) == pytest.approx(0.025)
