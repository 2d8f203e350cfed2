"""`phidias events`: what chains found, from the lake's events table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from phidias_lab.errors import ProductError, nearest
from phidias_lab.services.commands.options import not_empty
from phidias_lab.services.commands.show import print_json, print_table

#: How the name of a file ends, and what it then holds.
FORMS = {".geojson": "GeoJSON, each feature a STAC Item", ".parquet": "GeoParquet", ".csv": "the table as text"}


@click.command("events")
@click.option("--period", metavar="START/END", callback=not_empty, help="Only events that touch this period.")
@click.option("--region", metavar="W,S,E,N", callback=not_empty, help="Only events that touch this region.")
@click.option("--kind", "kinds", multiple=True, help="Only events of this kind; may be given again.")
@click.option("--chain", help="Only events that this chain found.")
@click.option("--output", metavar="FILE", callback=not_empty, help="Write them into FILE: .geojson, .parquet or .csv.")
@click.option("--overwrite", is_flag=True, help="Replace FILE when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print them as GeoJSON, each feature a STAC Item.")
def command(
    period: str | None,
    region: str | None,
    kinds: tuple[str, ...],
    chain: str | None,
    output: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """List the events that chains found, the oldest first; or write them into a file.

    \b
    phidias events --period 2022-06-01/2022-06-30 --region=-20,40,0,55
    phidias events --kind fire --output fires.geojson
    """
    from phidias_lab.lake import events

    if output:
        path = _free(Path(output).expanduser(), overwrite)
    found = events.read(period, region, kinds or None, chain)
    if output:
        _write(found, path)
        click.echo(f"Wrote {len(found)} events into {output}")
    elif as_json:
        print_json(collection(found))
    elif not len(found):
        click.echo("There is no such event. 'phidias watch FOLDER --chain CHAIN' finds some.")
    else:
        print_table(
            ["time (UTC)", "kind", "place", "quality", "chain", "source", "id"], [_row(e) for e in _rows(found)]
        )


def _rows(found: Any) -> list[dict]:
    return found.to_dict("records")


def _row(event: dict) -> list[str]:
    from phidias_lab.products import cap

    quality = "" if event["quality"] != event["quality"] else f"{event['quality']:.3g}"
    kind = f"{event['kind']} (synthetic)" if event["synthetic"] else event["kind"]
    place = cap.place(event["geometry"]).removeprefix("near ")
    return [f"{event['time']:%Y-%m-%d %H:%M:%S}", kind, place, quality, event["chain"], event["source"], event["id"]]


def collection(found: Any) -> dict:
    from phidias_lab.products import stac

    return {"type": "FeatureCollection", "features": [stac.event(event) for event in _rows(found)]}


def _free(path: Path, overwrite: bool) -> Path:
    """The path, if it may be written; else a sentence."""
    suffix = path.suffix.lower()
    if suffix not in FORMS:
        raise ProductError(f"Events are not written as {path.name!r}. {nearest(suffix, FORMS)}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise ProductError(f"{path} exists already. Choose another name, or allow it to be replaced (--overwrite).")
    if not path.parent.is_dir():
        raise ProductError(f"The folder {path.parent} does not exist. Make it, or choose another place.")
    return path


def _write(found: Any, path: Path) -> None:
    import json
    import os

    from phidias_lab.lake import events

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix.lower() == ".parquet":
            events.write(found, temporary)
        elif path.suffix.lower() == ".csv":
            import shapely

            texts = found.assign(
                geometry=shapely.to_wkt(found["geometry"].to_numpy(dtype=object), rounding_precision=-1)
            )
            texts["properties"] = [json.dumps(p, sort_keys=True) for p in found["properties"]]
            texts.to_csv(temporary, index=False)
        else:
            temporary.write_text(json.dumps(collection(found), ensure_ascii=False, allow_nan=False), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ProductError(f"{path} cannot be written: {error.strerror}. Choose another place.") from None
