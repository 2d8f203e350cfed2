"""An event as a message of the Common Alerting Protocol 1.2 (OASIS, CAP-v1.2, 1 July 2010)."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"


def alert(event: Mapping[str, Any], sender: str, sent: Any) -> bytes:
    """The message of an event of the lake's table, as UTF-8 XML.

    What a program screened is likely, not observed; how urgent and severe it is nobody knows yet. What was made of synthetic
    data has the status Test ("technical testing only, all recipients disregard", 3.2.1).
    """
    xml.register_namespace("", NAMESPACE)
    synthetic = bool(event["synthetic"])
    title = f"{event['kind']}{' (synthetic)' if synthetic else ''}"
    root = xml.Element(_name("alert"))
    _add(root, "identifier", event["id"])
    _add(root, "sender", sender)
    _add(root, "sent", _moment(sent))
    _add(root, "status", "Test" if synthetic else "Actual")
    _add(root, "msgType", "Alert")
    _add(root, "source", f"phidias_lab, {event['chain']}")
    _add(root, "scope", "Public")
    if synthetic:
        _add(root, "note", "This event was found in synthetic data. It is no real event.")
    info = _add(root, "info")
    _add(info, "language", "en")
    _add(info, "category", "Env")
    _add(info, "event", title)
    _add(info, "urgency", "Unknown")
    _add(info, "severity", "Unknown")
    _add(info, "certainty", "Likely")
    _add(info, "onset", _moment(event["time"]))
    _add(info, "headline", title)
    _add(info, "description", in_words(event))
    for name, value in facts(event).items():
        parameter = _add(info, "parameter")
        _add(parameter, "valueName", name)
        _add(parameter, "value", value)
    area = _add(info, "area")
    _add(area, "areaDesc", place(event["geometry"]))
    for shape in getattr(event["geometry"], "geoms", [event["geometry"]]):
        if shape.geom_type == "Polygon":  # CAP knows no holes; the outline holds them
            _add(area, "polygon", " ".join(f"{y:.5f},{x:.5f}" for x, y in shape.exterior.coords))
        else:
            x, y = shape.centroid.coords[0]
            _add(area, "circle", f"{y:.5f},{x:.5f} 0")
    return xml.tostring(root, encoding="UTF-8", xml_declaration=True)


def in_words(event: Mapping[str, Any]) -> str:
    """One sentence or two that a person reads."""
    start, end = (np.datetime_as_string(np.datetime64(event[n]), "s") for n in ("time", "time_end"))
    when = f"{start}Z" if start == end else f"between {start}Z and {end}Z"
    found = f"{event['chain']} found {event['kind']} {place(event['geometry'])}, {when}, in {event['source']}."
    return f"Synthetic data, no real event. {found}" if event["synthetic"] else found


def place(shape: Any) -> str:
    """'near 45.00 N, 12.50 W'."""
    longitude, latitude = shape.representative_point().coords[0]
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"near {abs(latitude):.2f} {north}, {abs(longitude):.2f} {east}"


def facts(event: Mapping[str, Any]) -> dict[str, str]:
    """What is known of an event beside its place and time, as texts; spectra and the like stay in the table."""
    found = {n: f"{event[n]:g}" for n in ("quality", "false_alarm_rate") if np.isfinite(event[n])}
    found |= {
        n: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, sort_keys=True)
        for n, v in event["properties"].items()
        if not _is_series(v)
    }
    return {**found, "run": event["run"], "synthetic": "true" if event["synthetic"] else "false"}


def _is_series(value: Any) -> bool:
    """Whether a value is a spectrum or the like, which is no text for a message."""
    return isinstance(value, list) and len(value) > 20


def _name(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"


def _add(parent: xml.Element, tag: str, text: str | None = None) -> xml.Element:
    element = xml.SubElement(parent, _name(tag))
    if text is not None:
        # XML 1.0 (2.2) has no place for most control characters.
        element.text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    return element


def _moment(time: Any) -> str:
    """A time in UTC as CAP wants it: with a zone in digits, and -00:00 for UTC (3.3.2)."""
    return f"{np.datetime_as_string(np.datetime64(time), 's')}-00:00"
