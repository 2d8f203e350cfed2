"""Views in executed notebooks name scripts and styles on Panel's own host; the built pages carry them themselves."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_HOSTED = re.compile(r"https://cdn\.holoviz\.org/panel/[^/\s\"']+/dist/([^\"'\s\\)?]+)")


def keep_at_home(html: Path) -> list[str]:
    """Let every page below the folder fetch Panel's files from `_static/panel` beside it; returns the copied files."""
    import panel

    dist = Path(panel.__file__).parent / "dist"
    copied: set[str] = set()
    for page in sorted(html.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        home = os.path.relpath(html / "_static" / "panel", page.parent)

        def at_home(match: re.Match, home: str = home) -> str:
            name = match[1]
            if not (dist / name).is_file():
                return match[0]
            place = html / "_static" / "panel" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(dist / name, place)
            copied.add(name)
            return f"{home}/{name}"

        changed = _HOSTED.sub(at_home, text)
        if changed != text:
            page.write_text(changed, encoding="utf-8")
    return sorted(copied)
