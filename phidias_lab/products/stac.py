"""A product as a STAC 1.1 Item.

Fields that STAC extensions define (`file:checksum`, `processing:software`, `cube:dimensions`, `table:columns`) are
written under their names, but no extension is declared in `stac_extensions`: a declaration promises validity against a
schema that lives on the web, and an item must be checkable without a network. The core item is valid by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from phidias_lab.contract.order import Order
from phidias_lab.contract.parameters import region_bounds
from phidias_lab.errors import ProductError
from phidias_lab.products import cf, checksum

MEDIA = {
    ".nc": "application/netcdf",
    ".zarr": "application/vnd.zarr; version=3",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".json": "application/json",
}


def west_east(longitudes: np.ndarray) -> tuple[float, float]:
    """The smallest interval in -180..180 that holds all points; west is larger than east across the date line."""
    turned = np.unique((np.asarray(longitudes, dtype=float) + 180.0) % 360.0 - 180.0)
    if turned.size == 1:
        # +180 and -180 are the same meridian; a point keeps the sign it was given.
        only = float(longitudes[0])
        return (only, only) if -180 <= only <= 180 else (float(turned[0]), float(turned[0]))
    low, high = float(np.min(longitudes)), float(np.max(longitudes))
    if low >= -180 and high <= 180 and high - low < 360:
        return low, high
    gaps = np.diff(np.append(turned, turned[0] + 360.0))
    widest = int(np.argmax(gaps))
    # A grid around the globe has no gap wider than its step.
    if gaps[widest] <= 1.5 * float(np.median(gaps)):
        return -180.0, 180.0
    return float(turned[(widest + 1) % turned.size]), float(turned[widest])


def box_geometry(west: float, south: float, east: float, north: float) -> dict:
    """A bounding box as GeoJSON; a box across the date line is cut there (RFC 7946, 3.1.9)."""

    def ring(w: float, e: float) -> list:
        return [[w, south], [e, south], [e, north], [w, north], [w, south]]

    if west == east and south == north:
        return {"type": "Point", "coordinates": [west, south]}
    if west == east or south == north:
        return {"type": "LineString", "coordinates": [[west, south], [east, north]]}
    if west > east:
        return {"type": "MultiPolygon", "coordinates": [[ring(west, 180.0)], [ring(-180.0, east)]]}
    return {"type": "Polygon", "coordinates": [ring(west, east)]}


def declared_value(chain: Mapping, order: Order, kind: str) -> Any:
    """The value the order gives to the chain's first parameter of this kind, or None."""
    for name, parameter in (chain.get("parameters") or {}).items():
        if parameter.get("kind") == kind and order.parameters.get(name) is not None:
            return order.parameters[name]
    return None


def dimensions(data: Any) -> dict[str, dict]:
    """`cube:dimensions` of a Dataset."""
    found = {}
    for name in map(str, data.dims):
        kind = {"longitude": "spatial", "latitude": "spatial", "depth": "spatial", "time": "temporal"}.get(
            name, "other"
        )
        entry: dict[str, Any] = {"type": kind}
        axis = {"longitude": "x", "latitude": "y", "depth": "z"}.get(name)
        if axis:
            entry["axis"] = axis
        if name in data.variables and data[name].size:
            if data[name].dtype.kind == "M":
                values = data[name].values
                entry["extent"] = [cf.iso(values.min()), cf.iso(values.max())]
            elif data[name].dtype.kind in "iuf":
                entry["extent"] = list(cf.extent(data, name) or (None, None))
            if data[name].attrs.get("units"):
                entry["unit"] = str(data[name].attrs["units"])
        elif kind == "other":
            entry["values"] = list(range(data.sizes[name])) if data.sizes[name] <= 100 else []
        found[name] = entry
    return found


def variables(data: Any) -> dict[str, dict]:
    """`cube:variables` of a Dataset."""
    bounds = cf.bounds_names(data)
    found = {}
    for name, array in data.data_vars.items():
        entry = {"dimensions": [str(d) for d in array.dims], "type": "auxiliary" if name in bounds else "data"}
        for field, attribute in (("description", "long_name"), ("unit", "units")):
            if array.attrs.get(attribute):
                entry[field] = str(array.attrs[attribute])
        found[str(name)] = entry
    return found


def cube_place_and_time(data: Any) -> tuple[list[float] | None, tuple | None]:
    """Bounding box [west, south, east, north] and time coverage of a Dataset."""
    latitudes, box = cf.extent(data, "latitude"), None
    if latitudes and cf.extent(data, "longitude"):
        longitudes = np.asarray(data["longitude"].values, dtype=float).ravel()
        west, east = west_east(longitudes[np.isfinite(longitudes)])
        box = [west, latitudes[0], east, latitudes[1]]
    return box, cf.time_coverage(data)


def asset(path: Path, role: str, title: str) -> dict:
    """One file of the product, with size and checksum; a store of many files has neither of its own."""
    entry: dict[str, Any] = {"href": f"./{path.name}", "title": title, "roles": [role]}
    if path.suffix in MEDIA:
        entry["type"] = MEDIA[path.suffix]
    if path.is_file():
        entry["file:size"] = path.stat().st_size
        entry["file:checksum"] = checksum.multihash(path)
    return entry


def _is_identifier(licence: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence) is not None


def derived_from(order: Order, facts: Mapping) -> list[dict]:
    """A link to each input: an entry by its address in the catalogues, a file by its place, stored data beside the run."""
    links = []
    for name in dict.fromkeys([*order.inputs, *(facts.get("inputs") or {})]):
        reference = order.inputs.get(name) or {}
        identity = (facts.get("inputs") or {}).get(name) or {}
        if "entry" in reference:
            href = f"urn:phidias_lab:entry:{quote(reference['entry'])}"
        elif "file" in reference:
            href = reference["file"] if "://" in reference["file"] else Path(reference["file"]).as_uri()
        elif "stored" in reference:
            href = f"../inputs/{quote(reference['stored'])}"
        else:
            continue
        link = {"rel": "derived_from", "href": href, "title": cf.describe_input(name, order, facts)}
        told = {f"phidias:{k}": identity[k] for k in ("license", "source", "checksum", "synthetic") if identity.get(k)}
        links.append({**link, "phidias:input": name, **told})
    return links


def item(
    *,
    chain: Mapping,
    order: Order,
    facts: Mapping,
    data: Mapping[str, Path],
    documents: Mapping[str, Path],
    box: list[float] | None,
    times: tuple | None,
    more: Mapping[str, Any],
    result: Any = None,
) -> dict:
    """The Item of a product: `data` and `documents` are its files by asset name, `more` further properties.

    `result` is what was written, for what it says of itself.
    """
    import pystac

    made = facts.get("ended") or facts.get("started")
    properties: dict[str, Any] = {
        "title": cf.title(result, chain, order, facts),
        "phidias:chain": chain["id"],
        "phidias:chain_version": chain["version"],
        "processing:lineage": cf.source(chain, order, facts),
        **more,
    }
    if chain.get("summary"):
        properties["description"] = chain["summary"]
    if cf.software(facts):
        properties["processing:software"] = cf.software(facts)
    if made:
        properties["created"] = made
    told = cf.origin(result)
    if told.get("synthetic"):
        properties["phidias:synthetic"] = True
    if told.get("synthetic_inputs"):
        properties["phidias:synthetic_inputs"] = told["synthetic_inputs"].split(", ")
    said = (getattr(result, "attrs", None) or {}).get("phidias_said")
    if said:
        properties["phidias:said"] = json.loads(said)
    known = cf.licence(order, facts)
    if known:
        # STAC: an SPDX identifier, or "other" where several licences or words of one's own stand.
        properties["license"] = known if _is_identifier(known) else "other"

    # Place and time come from the data; where they have none, from the order; a date last from the run itself.
    if box is None:
        asked = declared_value(chain, order, "region")
        if asked is not None:
            west, south, east, north = region_bounds(asked)
            box = [*(west_east(np.array([west, east])) if east - west < 360 else (-180.0, 180.0))]
            box = [box[0], south, box[1], north]
    period = declared_value(chain, order, "period")
    if times is None and period:
        times = (np.datetime64(period[0]), np.datetime64(period[1]) + np.timedelta64(1, "D") - np.timedelta64(1, "s"))
    if times is not None:
        start, end = (cf.iso(t) for t in times)
        properties["datetime"] = start if start == end else None
        properties["start_datetime"], properties["end_datetime"] = start, end
    elif made:
        properties["datetime"] = made
    else:
        raise ProductError(
            "A product needs a date: neither the data nor the order nor the facts of the run hold one. "
            "Pass facts with 'ended', an ISO 8601 time."
        )
    entry = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": str(facts.get("run") or f"{chain['id']}-{order.digest()[:12]}"),
        "geometry": box_geometry(*box) if box else None,
        "properties": properties,
        "links": derived_from(order, facts),
        "assets": {
            **{name: asset(path, "data", name) for name, path in data.items()},
            **{name: asset(path, "metadata", name) for name, path in documents.items()},
        },
    }
    if box:
        entry["bbox"] = box
    # pystac reads and writes the item once, so what it cannot understand is found here and not by a catalogue client.
    checked = pystac.Item.from_dict(json.loads(json.dumps(entry, allow_nan=False)))
    return checked.to_dict(include_self_link=False, transform_hrefs=False)


def event(found: Mapping[str, Any]) -> dict:
    """An event of the lake's table as a STAC Item, which is a GeoJSON Feature too."""
    import pystac
    import shapely

    start, end = cf.iso(np.datetime64(found["time"])), cf.iso(np.datetime64(found["time_end"]))
    title = f"{found['kind']} (synthetic)" if found["synthetic"] else found["kind"]
    properties: dict[str, Any] = {
        "datetime": start if start == end else None,
        "start_datetime": start,
        "end_datetime": end,
        "title": title,
        "phidias:kind": found["kind"],
        "phidias:chain": found["chain"],
        "phidias:run": found["run"],
        "phidias:source": found["source"],
        "phidias:synthetic": bool(found["synthetic"]),
        "phidias:properties": dict(found["properties"]),
    }
    links = []
    if Path(found["product"]).is_absolute():
        links.append(_derived(Path(found["product"]).as_uri(), f"product of run {found['run']}"))
    for name, made in found["properties"].items():
        # A property that tells a checksum is another product that the event rests on.
        if isinstance(made, Mapping) and made.get("sha256"):
            whose = f"run:{quote(str(made['id']))}" if made.get("id") else f"sha256:{made['sha256']}"
            link = _derived(f"urn:phidias_lab:{whose}", f"{name} {made.get('id') or ''}".strip())
            links.append({**link, "phidias:input": name, "phidias:checksum": f"sha256:{made['sha256']}"})
    for name in ("quality", "false_alarm_rate"):
        if np.isfinite(found[name]):
            properties[f"phidias:{name}"] = float(found[name])
    entry = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": found["id"],
        "geometry": json.loads(shapely.to_geojson(found["geometry"])),
        "bbox": _box_of(found["geometry"]),
        "properties": properties,
        "links": links,
        "assets": {},
    }
    checked = pystac.Item.from_dict(json.loads(json.dumps(entry, allow_nan=False)))
    return checked.to_dict(include_self_link=False, transform_hrefs=False)


def _derived(href: str, title: str) -> dict:
    return {"rel": "derived_from", "href": href, "title": title}


def _box_of(shape: Any) -> list[float]:
    """The bounding box; of what was cut at the date line it goes across (RFC 7946, 5.2)."""
    west, south, east, north = shape.bounds
    if west == -180 and east == 180 and shape.geom_type.startswith("Multi"):
        parts = [part.bounds for part in shape.geoms]
        left = [p for p in parts if p[0] >= 0]
        right = [p for p in parts if p[2] <= 0]
        if len(left) + len(right) == len(parts):
            west, east = min(p[0] for p in left), max(p[2] for p in right)
    return [west, south, east, north]
