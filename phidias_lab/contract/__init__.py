"""What a chain declares, and the order that asks for a run of it."""

from phidias_lab.contract.chain import Chain
from phidias_lab.contract.data import Input, Var
from phidias_lab.contract.order import Order
from phidias_lab.contract.parameters import (
    choice,
    count,
    file,
    flag,
    number,
    numbers,
    period,
    region,
    text,
    variable,
)
from phidias_lab.contract.resources import Resources

__all__ = [
    "Chain",
    "Input",
    "Order",
    "Resources",
    "Var",
    "choice",
    "count",
    "file",
    "flag",
    "number",
    "numbers",
    "period",
    "region",
    "text",
    "variable",
]
