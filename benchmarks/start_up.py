"""How long one waits before anything happens: import, list of chains, help. Each in a fresh process, best of five.

    python benchmarks/start_up.py

The limit beside them is the bare interpreter with the same entry-point look-up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ACTS = {
    "bare interpreter": ["-c", "pass"],
    "entry-point look-up": [
        "-c",
        "from importlib.metadata import entry_points; entry_points(group='phidias_lab.chains')",
    ],
    "import phidias_lab": ["-c", "import phidias_lab"],
    "phidias_lab.chains()": ["-c", "import phidias_lab; phidias_lab.chains()"],
    "phidias chains": ["-m", "phidias_lab", "chains"],
    "phidias --help": ["-m", "phidias_lab", "--help"],
    "phidias run ocean.gridding --help": ["-m", "phidias_lab", "run", "ocean.gridding", "--help"],
}


def measure(repeat: int = 5) -> dict[str, float]:
    """Best wall time of each act, seconds."""
    found = {}
    for name, arguments in ACTS.items():
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        found[name] = min(times)
    return found


def main() -> None:
    found = measure()
    base = found["entry-point look-up"]
    for name, seconds in found.items():
        print(f"{name:36s} {seconds:6.2f} s   {seconds / base:5.1f} x the look-up")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "start_up.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
