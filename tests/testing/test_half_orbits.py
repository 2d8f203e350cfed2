"""The half orbits of the demo lake: something happens where it is said to, and nothing in those to learn from."""

from __future__ import annotations

import numpy as np

from phidias_lab.testing.scenes import half_orbits


def test_four_things_happen_in_sunlight_each_within_its_place_and_none_in_the_orbits_of_the_day_before():
    scene = half_orbits.happening(0)
    truth, ground = scene.truth(), scene.ground()
    assert [event.name for event in scene.events] == ["fire", "pollution", "unknown gas", "flare"]
    for number, event in enumerate(scene.events, 1):
        mine = truth["event"] == number
        assert 20 < mine.sum() < 100
        assert (ground["solar_zenith_angle"][mine] < 60).all()
        north = ground["latitude"][mine] - event.latitude
        east = (ground["longitude"][mine] - event.longitude) * np.cos(np.radians(event.latitude))
        assert (np.hypot(north, east) * 111.2 < event.length + 4 * event.width).all()
        assert truth[f"enhancement_{event.changes}"][mine].max() > 0.5 * event.strength
    learning = half_orbits.learning(0)
    assert all(not each.events for each in learning)
    assert scene.start - learning[1].start > np.timedelta64(20, "h")


def test_pixels_are_as_wide_as_long():
    longitude, latitude = (half_orbits.happening(0).ground(112, 114)[name] for name in ("longitude", "latitude"))
    turn = np.cos(np.radians(latitude[0, 24]))
    along = 111.2 * np.hypot(latitude[1, 24] - latitude[0, 24], (longitude[1, 24] - longitude[0, 24]) * turn)
    across = 111.2 * np.hypot(latitude[0, 25] - latitude[0, 24], (longitude[0, 25] - longitude[0, 24]) * turn)
    assert 50 < along < 60
    assert 0.5 < across / along < 1.1  # the swath is wider at its edges
