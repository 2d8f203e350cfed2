"""Product: what was written, opened again. From its folder, from its data file, or from a data file moved elsewhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phidias_lab.contract import order as orders
from phidias_lab.contract.order import Order
from phidias_lab.errors import ProductError
from phidias_lab.products import cf, checksum

ITEM, ORDER, PROVENANCE = "item.json", "order.json", "provenance.json"
_SUFFIXES = (".nc", ".zarr", ".parquet", ".csv", ".tif")
# What readers raise on damaged files; pyarrow's, rasterio's and zarr's own errors derive from these. The readers
# look up attributes and dimensions by what the file says, so a damaged name is an AttributeError or a LookupError.
_UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def _is_data(asset: dict) -> bool:
    return "data" in (asset.get("roles") or ())


def _plain_name(href: Any) -> str | None:
    """The name of a file or store in the product's folder; None where the text leads elsewhere or is no name."""
    name = href.removeprefix("./") if isinstance(href, str) else ""
    plain = (
        name not in ("", ".", "..")
        and name.isprintable()
        and not re.search(r"[/\\]", name)
        and len(os.fsencode(name)) <= 255
    )
    return name if plain else None


def _what_is_wrong(item: Any) -> str | None:
    """What a product's item has in another shape than it was written with; None when all that is used is there."""
    if not isinstance(item, dict):
        return "it is no object"
    for part in ("assets", "properties"):
        if not isinstance(item.get(part), dict):
            return f"{part!r} is no object"
    for name, asset in item["assets"].items():
        if not isinstance(asset, dict) or not isinstance(asset.get("roles") or [], list):
            return f"the asset {name!r} is no object with a list of roles"
        if _is_data(asset) and _plain_name(asset.get("href")) is None:
            return f"the asset {name!r} has href {asset.get('href')!r:.80}, which is no file in its folder"
    sums = item["properties"].get("phidias:checksums") or {}
    if not isinstance(sums, dict) or not all(isinstance(v, str) for v in sums.values()):
        return "'phidias:checksums' is no object of texts"
    columns = item["properties"].get("table:columns") or []
    if not isinstance(columns, list) or not all(
        isinstance(c, dict) and isinstance(c.get("name"), str) for c in columns
    ):
        return "'table:columns' is no list of columns with names"
    return None


class Product:
    """A product folder, or a data file of one.

    A data file that was copied away from its folder still opens and still knows its order; its item and its checksums
    stay with the folder.
    """

    def __init__(self, place: str | Path):
        place = Path(place).expanduser()
        self._item: dict | None = None
        self.folder: Path | None = None
        if (place / ITEM).is_file():
            self.folder = place
        elif place.exists() and (place.parent / ITEM).is_file() and place.suffix in _SUFFIXES:
            self.folder = place.parent
        if self.folder is not None:
            self._item = self._read(self.folder / ITEM)
            self.files = self._data_files()
            if place != self.folder and place.name not in {f.name for f in self.files}:
                # A foreign file that happens to lie beside a product.
                self.folder, self._item, self.files = None, None, [place]
        elif place.suffix in _SUFFIXES and place.exists():
            self.files = [place]
        elif place.is_dir():
            raise ProductError(
                f"{place} is not a product: it has no {ITEM}. Give the product folder of a run, or a data file such as "
                "one ending in .nc or .parquet."
            )
        elif place.exists():
            raise ProductError(
                f"{place} is not a product: data files end in {', '.join(_SUFFIXES)}. Give the folder or the data file."
            )
        else:
            raise ProductError(f"There is no product at {place}. Check the path; 'phidias runs' lists your runs.")

    def __repr__(self) -> str:
        return f"<Product {self.path}>"

    @staticmethod
    def _read(path: Path) -> dict:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ProductError(
                f"{path} cannot be read as JSON ({error}). The product is damaged; run it again."
            ) from None
        wrong = _what_is_wrong(document)
        if wrong:
            raise ProductError(
                f"{path} is not a STAC Item written with a product: {wrong}. Give the folder of a product, or run its "
                "order again."
            )
        return document

    def _data_files(self) -> list[Path]:
        files = [self.folder / _plain_name(a["href"]) for a in self.item["assets"].values() if _is_data(a)]
        missing = [f.name for f in files if not f.exists()]
        if missing or not files:
            raise ProductError(
                f"The product in {self.folder} lacks its data ({', '.join(missing) or 'none is named'}). "
                "Copy the whole folder, or run its order again."
            )
        return files

    @property
    def path(self) -> Path:
        """The data file or store; the folder where the data are several files."""
        return self.files[0] if len(self.files) == 1 else self.folder

    @property
    def item(self) -> dict:
        """The STAC Item."""
        if self._item is None:
            raise ProductError(f"{self.path} lies alone: its {ITEM} stayed in the product's folder.")
        return self._item

    @property
    def order(self) -> Order:
        """The order that made the product: from its folder, or from inside the data file."""
        if self.folder is not None and (self.folder / ORDER).is_file():
            return orders.load(self.folder / ORDER)
        with self.reading():
            text = self._order_inside()
        return orders.loads(text, f"The order in {self.path}")

    def _order_inside(self) -> str:
        path, text = self.files[0], None
        if path.suffix in (".nc", ".zarr"):
            data = self._open(lazy=False)
            text = data.attrs.get("phidias_order")
            data.close()
        elif path.suffix == ".parquet":
            from phidias_lab.products import tables

            text = tables.order_inside(path)
        elif path.suffix == ".tif":
            from phidias_lab.products import raster

            text = raster.order_inside(path)
        if not text:
            raise ProductError(f"{path} holds no order: it was not written by phidias_lab, or its words were stripped.")
        return text

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the decoded values of each variable (of each file, for a model), as they were when written."""
        return dict(self.item["properties"].get("phidias:checksums") or {})

    def open(self) -> Any:
        """The data: a lazy Dataset, a DataFrame, or the folder of a model."""
        with self.reading():
            return self._open(lazy=True)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What readers raise on damaged files, as a ProductError."""
        try:
            yield
        except ProductError:
            raise
        except _UNREADABLE as error:
            raise ProductError(
                f"{self.path} cannot be opened ({type(error).__name__}: {error}). The file is damaged or incomplete; "
                "copy it again or run its order again."
            ) from error

    def _open(self, lazy: bool) -> Any:
        suffix = self.files[0].suffix
        if suffix in (".nc", ".zarr"):
            return cf.open_cube(self.files[0], lazy=lazy)
        if suffix == ".tif":
            from phidias_lab.products import raster

            return raster.open_rasters(self.files)
        if suffix in (".parquet", ".csv"):
            from phidias_lab.products import tables

            return tables.open_table(self.files[0], self._columns())
        return self.files[0]

    def _columns(self) -> list[dict] | None:
        return self._item["properties"].get("table:columns") if self._item else None

    def verify(self) -> list[str]:
        """Names of the variables whose values are not those that were written; empty when all is well.

        Variables that are missing, unreadable or new count as different.
        """
        wanted, found = self.checksums, self._sums()
        return sorted(n for n in {*wanted, *found} if wanted.get(n) != found.get(n))

    def _sums(self) -> dict[str, str | None]:
        suffix = self.files[0].suffix
        found: dict[str, str | None] = {}
        if suffix in (".parquet", ".csv"):
            from phidias_lab.products import tables

            for name in self.checksums:
                try:
                    found.update(tables.checksums(self.files[0], self._columns(), only=name))
                except _UNREADABLE:
                    found[name] = None
            return found
        if suffix not in (".nc", ".zarr", ".tif"):
            try:
                return dict(checksum.of_tree(self.files[0]))
            except _UNREADABLE:
                return found
        try:
            data = self._open(lazy=False)
        except (ProductError, *_UNREADABLE):
            return found
        for name in map(str, data.variables):
            try:
                found[name] = checksum.of_array(name, data.variables[name])
            except _UNREADABLE:
                found[name] = None
        data.close()
        return found
