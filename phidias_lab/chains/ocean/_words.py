"""What a gridding says in words: periods, degrees, and where there is no observation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from phidias_lab.methods.time_windows import Window


def in_words(start: pd.Timestamp, end: pd.Timestamp, exact: bool) -> str:
    """A period in years, or in days where it was given and is no whole number of years."""
    whole = (start.month, start.day, end.month, end.day) == (1, 1, 12, 31)
    words = (start.year, end.year) if whole or not exact else (f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}")
    return (" to " if exact and not whole else "–").join(dict.fromkeys(map(str, words)))


def degrees(value: float, sides: str) -> str:
    """-20 as 20°W, where `sides` names the positive and the negative one."""
    if sides == "EW":
        value = (value + 180.0) % 360.0 - 180.0
    return f"{abs(value):g}°{'' if value == 0 else sides[int(value < 0)]}"


def empty_places(empty: np.ndarray, depth: np.ndarray, spans: list[Window], tied: bool) -> list[str]:
    """Sentences about the windows and levels (time, depth) without an observation; what is alike is said once."""
    days = [w.label for w in spans]
    whole = np.flatnonzero(empty.all(axis=1))
    said = []
    if whole.size and len(spans) > 1 and whole.size < len(spans):
        said.append(f"No observation is used in {_few([days[k] for k in whole])}: the analysis is empty there.")
    left = np.setdiff1d(np.arange(len(spans)), whole) if whole.size < len(spans) else np.arange(len(spans))
    same: dict[tuple, list[float]] = {}
    for k, level in enumerate(depth):
        gaps = tuple(int(t) for t in left if empty[t, k])
        if gaps:
            same.setdefault(gaps, []).append(float(level))
    outcome = (
        "the analysis there comes from other levels" if tied and not empty.all() else "the analysis is empty there"
    )
    for gaps, levels in same.items():
        when = "" if len(gaps) == len(left) else f" in {_few([days[k] for k in gaps])}"
        said.append(f"No observation is used at {_few([f'{v:g} m' for v in levels])}{when}: {outcome}.")
    return said


def _few(texts: list[str], most: int = 6) -> str:
    if len(texts) <= most:
        return ", ".join(texts)
    return f"{', '.join(texts[:most])} and {len(texts) - most} more"
