"""How much longer a server takes than a bare job: sbatch of an empty job and a server's start, one after the other.

Run as root where the tests of the hub may run: SYSTEM=1 python benchmarks/hub_spawn.py [TIMES]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "hub-config")]


def bare(hub, mark: Path) -> float:
    """Seconds from sbatch to the first line of a job like a server's."""
    begun = time.time()
    hub.slurm(
        "sbatch", "-p", "cpu", "-c", "1", "--mem=1G", "-t", "60", "-o", "/dev/null", "-D", "/tmp",
        "--export=NONE", "--wrap", f"date +%s.%N >{mark}", user="alice",
    )  # fmt: skip
    while not mark.exists() or not mark.read_text():
        time.sleep(0.02)
    return float(mark.read_text()) - begun


def server(alice) -> float:
    """Seconds from the request to a server that is ready."""
    begun = time.monotonic()
    alice.ask({"profile": "cpu"})
    while alice.server().get("pending"):
        time.sleep(0.05)
    assert alice.server().get("ready"), alice.server()
    return time.monotonic() - begun


def main(times: int) -> None:
    from tests.hub.test_hub_servers import Deployed

    folder = Path(tempfile.mkdtemp(prefix="phidias-hub-", dir="/srv"))
    folder.chmod(0o755)
    marks = folder / "marks"
    marks.mkdir(mode=0o777)
    marks.chmod(0o777)
    hub = Deployed(folder)
    bares, servers, stops = [], [], []
    try:
        hub.start()
        alice = hub.user("alice")
        server(alice)
        alice.end()
        for number in range(times):
            bares.append(bare(hub, marks / str(number)))
            servers.append(server(alice))
            begun = time.monotonic()
            alice.end()
            stops.append(time.monotonic() - begun)
    finally:
        hub.stop()
    over = sorted(s - b for s, b in zip(servers, bares, strict=True))
    for name, values in (("bare job", bares), ("server", servers), ("stop", stops), ("overhead", over)):
        values = sorted(values)
        high = values[min(len(values) - 1, round(0.95 * len(values)))]
        print(f"{name}: median {statistics.median(values):.2f} s, 95 % {high:.2f} s, n = {len(values)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
