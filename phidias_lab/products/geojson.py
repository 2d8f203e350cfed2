"""Tables with shapes as GeoJSON (RFC 7946): what crosses the date line is cut there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from phidias_lab.contract.data import is_synthetic
from phidias_lab.products.tables import GEOMETRY


def dumps(table: pd.DataFrame) -> str:
    """The rows as a FeatureCollection; that they are synthetic is said beside the features, which RFC 7946 (6.1) allows."""
    features = [
        {"type": "Feature", "geometry": _geometry(shape), "properties": properties}
        for shape, properties in zip(table[GEOMETRY], _properties(table), strict=True)
    ]
    said = {"synthetic": True} if is_synthetic(table) else {}
    return json.dumps({"type": "FeatureCollection", **said, "features": features}, allow_nan=False)


def _geometry(shape: Any) -> dict | None:
    import shapely

    return None if shape is None or shape.is_empty else json.loads(shapely.to_geojson(cut(shape)))


def cut(shape: Any) -> Any:
    """A shape whose longitudes go on beyond 180 degrees, with the parts beyond in their own turn."""
    import shapely

    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180:
        return shape
    globe = shapely.box(-180, -90, 180, 90)
    first, last = (int(np.floor((end + 180) / 360)) for end in (west, east))
    turned = [shapely.transform(shape, lambda c, turn=turn: c - [360.0 * turn, 0.0]) for turn in range(first, last + 1)]
    return shapely.union_all([part.intersection(globe) for part in turned])


def _properties(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.drop(columns=[GEOMETRY])
    return [{str(name): _value(value) for name, value in row.items()} for row in plain.to_dict("records")]


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        return [_value(each) for each in value]
    if value is None or value is pd.NaT or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return None
    if isinstance(value, pd.Timestamp | np.datetime64):
        time = pd.Timestamp(value)
        return (time.tz_convert("UTC").tz_localize(None) if time.tzinfo else time).isoformat() + "Z"
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)
