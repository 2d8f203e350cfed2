"""What a run of a chain needs: cores, memory, GPUs, wall time, and how they grow with the input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from phidias_lab.errors import ParameterError

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_memory(text: str | int) -> int:
    """Bytes of '8GiB'. Only binary units are accepted: a Slurm 'G' is a GiB, and '8GB' would be read two ways."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(B|KiB|MiB|GiB|TiB)\s*", str(text))
    if not match:
        raise ParameterError(
            f"{text!r} is not an amount of memory. Write a number and a unit such as '8GiB' or '512MiB'."
        )
    return int(float(match[1]) * _UNITS[match[2]])


def show_memory(size: float) -> str:
    """'1.5 GiB' of a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_walltime(text: str | int) -> int:
    """Seconds of 'hh:mm:ss' or 'd-hh:mm:ss', Slurm's own forms."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"(?:(\d+)-)?(\d{1,3}):(\d{2}):(\d{2})", str(text))
    if not match or int(match[3]) > 59 or int(match[4]) > 59:
        raise ParameterError(f"{text!r} is not a wall time. Write hh:mm:ss or d-hh:mm:ss, for example '00:30:00'.")
    days, hours, minutes, seconds = (int(g or 0) for g in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@dataclass(frozen=True)
class Resources:
    """The need of a small run, and a rule for larger ones.

    `grows(sizes, parameters)` gets the size of each input as {"name": {"bytes": ..., "dimension": length, ...}} and the
    parameters, and returns the entries that differ from the base: {"memory": bytes, "walltime": seconds, ...}.
    """

    cores: int = 1
    memory: str | int = "2GiB"
    gpus: int = 0
    walltime: str | int = "00:30:00"
    grows: Callable[[Mapping, Mapping], Mapping] | None = field(default=None, compare=False)

    def __post_init__(self):
        if self.cores < 1 or self.gpus < 0:
            raise ParameterError(
                f"Resources need at least one core and no negative GPUs; got {self.cores}, {self.gpus}."
            )
        parse_memory(self.memory)
        parse_walltime(self.walltime)

    @property
    def memory_bytes(self) -> int:
        return parse_memory(self.memory)

    @property
    def walltime_seconds(self) -> int:
        return parse_walltime(self.walltime)

    def grown(self, sizes: Mapping, parameters: Mapping) -> Resources:
        """The need for inputs of these sizes; never below the base."""
        if self.grows is None:
            return self
        asked = self.grows(sizes, parameters)
        return replace(
            self,
            cores=max(self.cores, int(asked.get("cores", 0))),
            memory=max(self.memory_bytes, math.ceil(asked.get("memory", 0))),
            gpus=max(self.gpus, int(asked.get("gpus", 0))),
            walltime=max(self.walltime_seconds, math.ceil(asked.get("walltime", 0))),
        )

    def describe(self) -> dict:
        return {
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "gpus": self.gpus,
            "walltime_seconds": self.walltime_seconds,
            "grows_with_input": self.grows is not None,
        }
