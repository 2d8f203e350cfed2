"""What the ocean chains take in alike: a table of observations, and a grid that says where it is sea."""

from __future__ import annotations

from phidias_lab.contract import Var

#: Columns that every table of observations has.
OBSERVATIONS = {
    "longitude": Var("degrees_east", standard_name="longitude"),
    "latitude": Var("degrees_north", standard_name="latitude"),
    "depth": Var("m", standard_name="depth", doc="positive downwards"),
    "time": Var(standard_name="time"),
}
#: Variables of a domain, over these dimensions.
DOMAIN_DIMS = ("depth", "latitude", "longitude")
DOMAIN = {
    "mask": Var("1", standard_name="sea_binary_mask", doc="1 at sea, 0 on land and below the sea floor"),
    "longitude": Var("degrees_east", standard_name="longitude"),
    "latitude": Var("degrees_north", standard_name="latitude"),
    "depth": Var("m", standard_name="depth"),
}
