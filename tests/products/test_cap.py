"""Events as CAP 1.2 messages, held against the rules of the standard, and as STAC Items."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml

import pandas as pd
import pystac
import pytest
import shapely

from phidias_lab.products import cap, stac

#: OASIS CAP-v1.2, section 3.2 and the schema of 3.4: the elements in their order, with how often each may stand.
ALERT = [
    ("identifier", 1, 1), ("sender", 1, 1), ("sent", 1, 1), ("status", 1, 1), ("msgType", 1, 1), ("source", 0, 1),
    ("scope", 1, 1), ("restriction", 0, 1), ("addresses", 0, 1), ("code", 0, 99), ("note", 0, 1), ("references", 0, 1),
    ("incidents", 0, 1), ("info", 0, 99),
]  # fmt: skip
INFO = [
    ("language", 0, 1), ("category", 1, 99), ("event", 1, 1), ("responseType", 0, 99), ("urgency", 1, 1),
    ("severity", 1, 1), ("certainty", 1, 1), ("audience", 0, 1), ("eventCode", 0, 99), ("effective", 0, 1),
    ("onset", 0, 1), ("expires", 0, 1), ("senderName", 0, 1), ("headline", 0, 1), ("description", 0, 1),
    ("instruction", 0, 1), ("web", 0, 1), ("contact", 0, 1), ("parameter", 0, 99), ("resource", 0, 99), ("area", 0, 99),
]  # fmt: skip
PARAMETER = [("valueName", 1, 1), ("value", 1, 1)]
AREA = [
    ("areaDesc", 1, 1), ("polygon", 0, 99), ("circle", 0, 99), ("geocode", 0, 99), ("altitude", 0, 1), ("ceiling", 0, 1),
]  # fmt: skip
VALUES = {
    "status": {"Actual", "Exercise", "System", "Test", "Draft"},
    "msgType": {"Alert", "Update", "Cancel", "Ack", "Error"},
    "scope": {"Public", "Restricted", "Private"},
    "category": {
        "Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other",
    },
    "urgency": {"Immediate", "Expected", "Future", "Past", "Unknown"},
    "severity": {"Extreme", "Severe", "Moderate", "Minor", "Unknown"},
    "certainty": {"Observed", "Likely", "Possible", "Unlikely", "Unknown"},
}  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d")


def held(message: bytes) -> dict[str, list[str]]:
    """The texts of a message by the name of their element, once it was found to keep the rules."""
    texts: dict[str, list[str]] = {}

    def check(element, rules):
        names = []
        for child in element:
            assert child.tag.startswith("{urn:oasis:names:tc:emergency:cap:1.2}"), child.tag
            assert not child.attrib
            names.append(child.tag.partition("}")[2])
        order = [name for name, _, _ in rules]
        assert set(names) <= set(order), set(names) - set(order)
        assert names == sorted(names, key=order.index)
        for name, least, most in rules:
            assert least <= names.count(name) <= most, name
        for name, child in zip(names, element, strict=True):
            below = {"info": INFO, "area": AREA, "parameter": PARAMETER}.get(name)
            if below:
                check(child, below)
                continue
            assert len(child) == 0
            texts.setdefault(name, []).append(child.text or "")

    root = xml.fromstring(message)
    assert root.tag == "{urn:oasis:names:tc:emergency:cap:1.2}alert"
    check(root, ALERT)
    for name, allowed in VALUES.items():
        assert set(texts.get(name, ())) <= allowed, name
    for name in ("sent", "onset"):
        assert all(MOMENT.fullmatch(text) for text in texts[name])  # which also bars the Z
    for name in ("identifier", "sender"):
        assert not re.search(r"[\s,<&]", texts[name][0])
    for polygon in texts.get("polygon", ()):
        pairs = [tuple(map(float, pair.split(","))) for pair in polygon.split(" ")]
        assert len(pairs) >= 4
        assert pairs[0] == pairs[-1]
        assert all(-90 <= latitude <= 90 and -180 <= longitude <= 180 for latitude, longitude in pairs)
    for circle in texts.get("circle", ()):
        assert re.fullmatch(r"-?\d+(\.\d+)?,-?\d+(\.\d+)? \d+(\.\d+)?", circle)
    assert message.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    return texts


def event(**more):
    return {
        "id": "0123456789abcdef0123456789abcdef",
        "time": pd.Timestamp("2022-06-01T12:00:00.25"),
        "time_end": pd.Timestamp("2022-06-01T12:05:00"),
        "geometry": shapely.Polygon([(10, 40), (12, 40), (12, 43), (10, 43)]),
        "kind": "fire",
        "chain": "atmosphere.screening",
        "run": "run-1",
        "product": "/p",
        "source": "granule.nc",
        "quality": 0.75,
        "false_alarm_rate": float("nan"),
        "synthetic": False,
        "recorded": pd.Timestamp("2022-06-01T13:00:00"),
        "properties": {"CO": 12.5, "gases": ["CO"], "note": "a < b & c \x07 é"},
        **more,
    }


def test_a_message_keeps_the_rules_of_cap_and_tells_the_event():
    said = held(cap.alert(event(), "duty@example.org", pd.Timestamp("2022-06-01T13:00:00")))
    assert said["identifier"] == ["0123456789abcdef0123456789abcdef"]
    assert said["status"] == ["Actual"]
    assert said["sent"] == ["2022-06-01T13:00:00-00:00"]
    assert said["onset"] == ["2022-06-01T12:00:00-00:00"]
    assert said["polygon"] == [
        "40.00000,10.00000 40.00000,12.00000 43.00000,12.00000 43.00000,10.00000 40.00000,10.00000"
    ]
    told = dict(zip(said["valueName"], said["value"], strict=True))
    assert told["CO"] == "12.5"
    assert told["gases"] == '["CO"]'
    assert told["note"] == "a < b & c   é"
    assert told["quality"] == "0.75"
    assert "false_alarm_rate" not in told
    assert "granule.nc" in said["description"][0]


def test_an_event_in_synthetic_data_is_a_test_and_says_so():
    said = held(cap.alert(event(synthetic=True), "duty@example.org", pd.Timestamp("2022-06-01T13:00:00")))
    assert said["status"] == ["Test"]
    assert "synthetic" in said["note"][0]
    assert "(synthetic)" in said["headline"][0]
    assert said["description"][0].startswith("Synthetic data, no real event.")


@pytest.mark.parametrize(
    ("shape", "polygons", "circles"),
    [
        (shapely.Point(-12.5, -45), 0, ["-45.00000,-12.50000 0"]),
        (shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]), 2, []),
        (shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 4, 4)), 1, []),
        (shapely.MultiPoint([(1, 2), (3, 4)]), 0, ["2.00000,1.00000 0", "4.00000,3.00000 0"]),
    ],
)
def test_every_form_of_a_place_is_told(shape, polygons, circles):
    said = held(cap.alert(event(geometry=shape), "duty@example.org", pd.Timestamp("2022-06-01T13:00:00")))
    assert len(said.get("polygon", [])) == polygons
    assert said.get("circle", []) == circles


def test_an_event_is_a_valid_stac_item():
    item = stac.event(event())
    pystac.Item.from_dict(item).validate()
    assert item["bbox"] == [10, 40, 12, 43]
    assert item["properties"]["datetime"] is None
    assert item["properties"]["start_datetime"] == "2022-06-01T12:00:00.25Z"
    assert item["properties"]["phidias:properties"]["CO"] == 12.5
    assert "phidias:false_alarm_rate" not in item["properties"]
    point = stac.event(
        event(geometry=shapely.Point(1, 2), time_end=pd.Timestamp("2022-06-01T12:00:00.25"), synthetic=True)
    )
    pystac.Item.from_dict(point).validate()
    assert pd.Timestamp(point["properties"]["datetime"]) == pd.Timestamp("2022-06-01T12:00:00.25Z")
    assert point["properties"]["title"] == "fire (synthetic)"
    across = stac.event(
        event(geometry=shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 2, -178, 3)]))
    )
    pystac.Item.from_dict(across).validate()
    assert across["bbox"] == [179, 0, -178, 3]


def test_an_item_names_what_an_event_was_made_from():
    basis = {"id": "20220501T000000-basis", "version": "1.0", "sha256": "ab" * 32}
    item = stac.event(event(product="/runs/one/product/a b.nc", properties={"basis": basis, "gases": {"CO": 1.0}}))
    pystac.Item.from_dict(item).validate()
    assert [(link["rel"], link["href"]) for link in item["links"]] == [
        ("derived_from", "file:///runs/one/product/a%20b.nc"),
        ("derived_from", "urn:phidias_lab:run:20220501T000000-basis"),
    ]
    assert item["links"][1]["phidias:checksum"] == f"sha256:{'ab' * 32}"
    assert stac.event(event(product="", properties={}))["links"] == []


def test_a_message_leaves_spectra_to_the_table():
    said = cap.facts(event(properties={"CO": 12.5, "signature": [0.5] * 480, "granules": ["one", "two"]}))
    assert (said["CO"], said["granules"]) == ("12.5", '["one", "two"]')
    assert "signature" not in said
