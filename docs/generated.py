"""Pages that are read off the declarations: one per chain, the command line, settings, exit codes."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from phidias_lab import errors, settings
from phidias_lab.contract import registry
from phidias_lab.contract.data import in_words
from phidias_lab.contract.resources import show_memory
from phidias_lab.services import command_line

#: Packages on which the numbers and pictures of a notebook depend most.
_TOLD = ("phidias-lab", "numpy", "scipy", "xarray", "zarr", "panel", "holoviews")


def versions() -> str:
    """With what the notebooks of these pages ran, in one line."""
    found = [f"{name} {version(name)}" for name in _TOLD]
    return f"Python {platform.python_version()}, {', '.join(found)}"


def write(docs: Path) -> None:
    """Write all generated pages below the documentation's folder; what an earlier build left is removed."""
    for folder in ("chains", "commands"):
        shutil.rmtree(docs / folder, ignore_errors=True)
        (docs / folder).mkdir()
    chains = registry.chains()
    for chain_id in chains:
        _save(docs / "chains" / f"{chain_id}.md", chain_page(registry.chain(chain_id).describe()))
    _save(docs / "chains" / "index.md", chains_page(chains))
    _save(docs / "commands" / "index.md", commands_page())
    _save(docs / "commands" / "settings.md", settings_page())
    _save(docs / "commands" / "exit-codes.md", exit_codes_page())


def _save(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(head: list[str], rows: Iterable[list[Any]]) -> list[str]:
    """A table in Markdown."""

    def line(cells):
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows), ""]


def _code(value: Any) -> str:
    return f"`{value}`" if value not in (None, "") else ""


def _named(value: Any) -> str:
    """A unit or name as it stands in a file; in words where it comes from what the user chooses."""
    return in_words(value) if value and "{" in value else _code(value)


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def chain_page(chain: dict) -> list[str]:
    """The page of a chain, from `Chain.describe()` and nothing else."""
    page = [f"# {chain['id']}", "", f"**{chain['title']}**, version {chain['version']}, gives a {chain['kind']}.", ""]
    page += [chain["description"], ""]
    page += ["```console", f"$ phidias run {chain['id']}", "```", ""]
    for level, title in (("user", "Parameters"), ("expert", "Expert parameters")):
        found = [p for p in chain["parameters"].values() if p["level"] == level]
        if found:
            page += [f"## {title}", ""]
            page += table(
                ["name", "what it says", "default", "units", "accepted"],
                ([_code(p["name"]), p["doc"], _shown(p["default"]), p["units"] or "", p["expected"]] for p in found),
            )
    page += ["## Inputs", ""]
    for name, wanted in chain["inputs"].items():
        facts = f"`{name}`: a {wanted['kind']}{', optional' if wanted['optional'] else ''}. {wanted['doc']}".rstrip(
            ". "
        )
        page += [facts + ".", ""]
        if wanted["dims"]:
            page += [f"Dimensions: {', '.join(map(_code, wanted['dims']))}.", ""]
        if wanted["default"]:
            page += [f"Without another choice: the catalogue entry `{wanted['default']}`.", ""]
        if wanted["variables"]:
            page += table(
                ["variable", "units", "standard name", "remark"],
                (
                    [
                        _code(variable),
                        _code(v.get("units")),
                        _code(v.get("standard_name")),
                        "; ".join(filter(None, [v["doc"], "optional" if v["optional"] else ""])),
                    ]
                    for variable, v in wanted["variables"].items()
                ),
            )
    page += ["## Outputs", ""]
    page += table(
        ["variable", "meaning", "units", "standard name", "dimensions"],
        (
            [
                _code(name),
                in_words("; ".join(filter(None, [v.get("long_name"), v["doc"]]))),
                _named(v.get("units")),
                _named(v.get("standard_name")),
                ", ".join(map(_code, v["dims"] or ())),
            ]
            for name, v in chain["outputs"].items()
        ),
    )
    need = chain["resources"]
    grows = "; they grow with the input" if need["grows_with_input"] else ""
    minutes = need["walltime_seconds"] / 60
    page += ["## Resources", ""]
    page += [
        f"{need['cores']} cores, {show_memory(need['memory_bytes'])} of memory, {need['gpus']} GPUs, "
        f"{minutes:g} minutes{grows}.",
        "",
    ]
    if chain["references"]:
        page += ["## References", "", *(f"- {reference}" for reference in chain["references"]), ""]
    return page


def chains_page(chains: list[str]) -> list[str]:
    titles = {c: registry.chain(c).title for c in chains}
    page = ["# Chains", "", "Every chain that is installed, read off its declaration.", ""]
    page += table(["chain", "what it does"], ([f"[{c}]({c}.md)", title] for c, title in titles.items()))
    return [*page, "```{toctree}", ":hidden:", *chains, "```"]


def commands_page() -> list[str]:
    page = ["# Command line", "", "What `phidias COMMAND --help` says, for every command.", ""]
    root = click.Context(command_line.phidias, info_name="phidias", terminal_width=100)
    page += ["```text", command_line.phidias.get_help(root), "```", ""]
    for name in command_line.phidias.list_commands(root):
        page += _command(command_line.phidias.get_command(root, name), name, root, 2)
    return page


def _command(command: click.Command, name: str, parent: click.Context, depth: int) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100)
    page = [f"{'#' * depth} {context.command_path}", "", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group) and name != "run" and name != "rerun":
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            page += _command(found, inner, context, depth + 1)
    return page


def settings_page() -> list[str]:
    text = (settings.__doc__ or "").strip()
    where = f"The settings file is `{settings.APP}/settings.yaml` in the user's configuration folder."
    return ["# Settings", "", "```text", text, "```", "", where]


def _kinds(kind: type) -> list[type]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in _kinds(below))]


def exit_codes_page() -> list[str]:
    rows = [[0, "", "done"]]
    for kind in sorted(_kinds(errors.PhidiasError), key=lambda k: (k.exit_code, k.__name__)):
        if kind.__module__ == errors.__name__:
            rows.append([kind.exit_code, _code(kind.__name__), (kind.__doc__ or "").split("\n")[0]])
    rows.append([command_line.DIFFERS, "", "a product that was run again differs"])
    rows.append([command_line.DEFECT, "", "a defect of the lab or of a chain; `--debug` shows where"])
    page = [
        "# Errors and exit codes",
        "",
        "Every error that a user can cause is one sentence: what was given, what was",
    ]
    page += ["expected, what to do next. In Python it is a `phidias_lab.PhidiasError`; on the command line it goes to"]
    page += ["stderr, and the exit code tells its kind.", ""]
    return page + table(["exit code", "in Python", "meaning"], rows)
