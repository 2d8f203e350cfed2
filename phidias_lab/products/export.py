"""A run as a Python script or a notebook that makes the same product again.

What comes from the order is written as Python literals by `repr`, or as one-line comments and Markdown text with its
control characters removed; nothing from an order can become code. The documents depend on nothing but their arguments.

An input that was data in memory is stored with its run (`{"stored": ..., "sha256": ...}`). An order that leaves the lab
cannot refer to it, so the caller names the folder that holds it (`inputs_folder`, the run's `inputs/`) and the script
reads the file from there; without that folder such an order is refused.
"""

from __future__ import annotations

import hashlib
import json
import pprint
from pathlib import Path
from typing import Any

from phidias_lab.contract.order import Order
from phidias_lab.errors import ParameterError


def _line(text: Any) -> str:
    """Text that stays on its line: whitespace of every kind becomes one space, control characters go."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())


def _markdown(text: Any) -> str:
    """Text in which Markdown and HTML have no meaning."""
    line = _line(text)
    return "".join(
        f"\\{c}" if c in "\\`*_{}[]()#+!|~$" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, c) for c in line
    )


def _literal(value: Any) -> str:
    return pprint.pformat(value, width=100, sort_dicts=False)


def _inputs(order: Order, inputs_folder: str | Path | None) -> tuple[dict[str, dict], list[str]]:
    """Input references that hold anywhere on this machine, and what to say about them."""
    references, notes = {}, []
    for name, reference in order.inputs.items():
        reference = dict(reference)
        if "stored" in reference:
            if inputs_folder is None:
                raise ParameterError(
                    f"The input {name!r} was given in memory and is stored with its run, so the order cannot be "
                    "exported alone. Export the run itself, or write the data to a file and order with that file."
                )
            notes.append(
                f"The input {name} was data in memory; this is the copy stored with the run"
                + (f", sha256 {reference['sha256']}." if reference.get("sha256") else ".")
            )
            reference = {"file": str(Path(inputs_folder) / reference["stored"])}
        elif "file" in reference:
            notes.append(f"The input {name} is a file: it must be at this path.")
        else:
            notes.append(f"The input {name} is the catalogue entry {reference['entry']}: it must be in your lake.")
        references[name] = reference
    return references, notes


def _needs() -> str:
    from phidias_lab import __version__

    return f"Needs phidias_lab {__version__} or a later version with the same chain version."


_RUN = [
    "order = {",
    '    "phidias_order": 1,',
    '    "chain": chain,',
    '    "version": version,',
    '    "parameters": parameters,',
    '    "inputs": inputs,',
    "}",
]


def _assignments(order: Order, references: dict[str, dict]) -> list[str]:
    return [
        f"chain = {order.chain!r}",
        f"version = {order.version!r}",
        f"parameters = {_literal(dict(order.parameters))}",
    ]


def _inputs_assignment(references: dict[str, dict], notes: list[str]) -> list[str]:
    return [*(f"# {_line(note)}" for note in notes), f"inputs = {_literal(references)}"]


def script(order: Order, inputs_folder: str | Path | None = None) -> str:
    """A Python script that runs the order again and prints the checksum of each variable."""
    references, notes = _inputs(order, inputs_folder)
    lines = [
        f"# {_line(order.title or order.chain)}",
        f"# Chain {_line(order.chain)}, version {_line(order.version)}. {_needs()}",
        "# Two runs of this script on the same inputs print the same checksums.",
        "",
        "import phidias_lab",
        "",
        *_assignments(order, references),
        "",
        *_inputs_assignment(references, notes),
        "",
        *_RUN,
        "",
        # A run starts a worker process; the guard keeps that process from running this script again.
        'if __name__ == "__main__":',
        "    run = phidias_lab.run(order)",
        "    result = run.result()",
        "    print(result)",
        "    for name, checksum in run.product.checksums.items():",
        "        print(name, checksum)",
    ]
    return "\n".join(lines) + "\n"


def notebook(order: Order, inputs_folder: str | Path | None = None) -> str:
    """The same as a notebook (nbformat 4.5), with a parameters cell."""
    references, notes = _inputs(order, inputs_folder)
    cells = [
        _cell(
            "markdown",
            [
                f"# {_markdown(order.title or order.chain)}",
                "",
                f"Chain {_markdown(order.chain)}, version {_markdown(order.version)}. {_needs()}",
                "Two runs of this notebook on the same inputs show the same checksums.",
            ],
        ),
        _cell("code", ["import phidias_lab"]),
        _cell("code", _assignments(order, references), tags=["parameters"]),
        _cell("code", _inputs_assignment(references, notes)),
        _cell("code", [*_RUN, "run = phidias_lab.run(order)", "result = run.result()", "result"]),
        _cell("markdown", ["The checksum of the values of each variable:"]),
        _cell("code", ["run.product.checksums"]),
    ]
    for number, cell in enumerate(cells):
        content = f"{number}:{''.join(cell['source'])}"
        cell["id"] = hashlib.sha256(content.encode()).hexdigest()[:12]
    document = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def _cell(kind: str, lines: list[str], tags: list[str] | None = None) -> dict[str, Any]:
    # A literal may span lines; the notebook format wants one entry per line with its line end.
    text = "\n".join(lines)
    cell: dict[str, Any] = {
        "cell_type": kind,
        "metadata": {"tags": tags} if tags else {},
        "source": text.splitlines(keepends=True),
    }
    if kind == "code":
        cell.update(execution_count=None, outputs=[])
    return cell
