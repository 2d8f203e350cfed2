"""What leaves the lab: data in open formats, and the words that go with them.

    product = products.write(result, folder, chain=..., order=..., facts=...)
    products.Product(folder).open()

A product is a folder: the data (`<chain id>.nc`, `.zarr`, `.parquet`, ...), `item.json` (STAC), `order.json` (what was
asked; enough to make the product again) and `provenance.json` (PROV).
"""

from __future__ import annotations

from phidias_lab.products.product import Product
from phidias_lab.products.writing import SUFFIXES, formats, write

__all__ = ["SUFFIXES", "Product", "formats", "write"]
