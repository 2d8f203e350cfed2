"""What a run says beside its result: what was left out of an input, what the user should know, and where it computed.

A chain speaks through `self.counted(...)`, `self.warn(...)` and `self.found(...)` while `run` prepares its result. What was
said stands in the run's log and record, at the end of `phidias run`, and in the product's global attributes. Remarks come
from the flow, when the work is done; they are of the run and not of the values, so the product's attributes lack them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phidias_lab.errors import ParameterError


@dataclass
class Said:
    """Counts of the parts of each input that were used and left out, what was found, and warnings, in their order."""

    counts: dict[str, dict] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def counted(self, what: str, total: int, left_out: Mapping[str, int]) -> None:
        reasons = {str(reason): int(number) for reason, number in left_out.items() if number}
        used = int(total) - sum(reasons.values())
        if used < 0 or min(reasons.values(), default=0) < 0:
            raise ParameterError(
                f"Of {total} {what} {sum(reasons.values())} were counted as left out; count each once."
            )
        self.counts[what] = {"total": int(total), "used": used, "left_out": reasons}

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def remark(self, sentence: str) -> None:
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    def __bool__(self) -> bool:
        return bool(self.counts or self.warnings or self.found)

    def document(self) -> dict:
        """As JSON: {"counts": {what: {"total", "used", "left_out": {reason: number}}}, "warnings": [sentence]}.

        Beside them stand "found" and "remarks": [sentence] where there are any.
        """
        more = {"found": self.found, "remarks": self.remarks}
        return {"counts": self.counts, "warnings": self.warnings} | {name: said for name, said in more.items() if said}

    def attributes(self, comment: str = "") -> dict[str, str]:
        """Global attributes: CF's `comment` for people, `phidias_said` for programs."""
        if not self:
            return {}
        lines = [comment, *lines_of(self.document())] if comment else lines_of(self.document())
        return {"comment": "\n".join(lines), "phidias_said": json.dumps(self.document(), ensure_ascii=False)}


def is_document(value: Any) -> bool:
    """Whether this is what `Said.document` gives: a record may have been damaged since."""
    if not isinstance(value, dict) or set(value) - {"found", "remarks"} != {"counts", "warnings"}:
        return False
    counts, sentences = value["counts"], (value["warnings"], value.get("found", []), value.get("remarks", []))
    return (
        isinstance(counts, dict)
        and all(map(_is_count, counts.values()))
        and all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in sentences)
    )


def _is_count(value: Any) -> bool:
    def whole(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool)

    return (
        isinstance(value, dict)
        and set(value) == {"total", "used", "left_out"}
        and whole(value["total"])
        and whole(value["used"])
        and isinstance(value["left_out"], dict)
        and all(map(whole, value["left_out"].values()))
    )


def lines_of(document: Mapping) -> list[str]:
    """A line for each count, each finding, each warning and each remark."""
    lines = [counts_line(what, **count) for what, count in (document.get("counts") or {}).items()]
    lines += list(document.get("found") or ())
    lines += [f"Warning: {sentence}" for sentence in document.get("warnings") or ()]
    return lines + list(document.get("remarks") or ())


def counts_line(what: str, total: int, used: int, left_out: Mapping[str, int]) -> str:
    """'observations used 390 of 400; left out: 7 duplicate, 3 flag not accepted'"""
    # JSON objects have no order of their own, so the commonest reason goes first.
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{number} {reason}" for reason, number in ordered)
    return f"{what} used {used} of {total}" + (f"; left out: {reasons}" if reasons else "")
