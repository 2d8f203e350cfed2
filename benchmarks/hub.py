"""The hub's goals, measured on the one-host Slurm: how long people wait, and that nothing fails meanwhile.

    SYSTEM=1 python benchmarks/hub.py                       # as root, where the tests of the hub may run
    SYSTEM=1 python benchmarks/hub.py slurm restart --times 3
    SYSTEM=1 python benchmarks/hub.py visitors --visitors 50

It works below /srv/phidias-benchmark with an account of its own, and removes what it created. `visitors` and `crowd` start
light servers: what is measured is the hub, not JupyterLab. `crowd` stands in for Slurm's programs and for sudo with scripts
that keep the jobs in a folder, because a host that runs 500 servers is none of 2 cores. Results: benchmarks/results/hub.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "hub-config"), str(ROOT / "tests" / "hub"), str(ROOT / "tests/packages/probe")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests/packages/probe")])
PLACE = Path("/srv/phidias-benchmark")
#: Goals of the hub: seconds, for the median and for 95 of 100.
GOALS = {"overhead": (3.0, 6.0), "cluster": (None, 5.0), "gap": (None, 3.0), "slurm": (None, 20.0)}


def figures(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return {"n": len(ordered), "median": statistics.median(ordered), "p95": high, "worst": ordered[-1]}


def waited(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> float:
    """Seconds until a condition holds; an error where it does not in time."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"Not within {seconds:g} s.")
        time.sleep(pause)
    return time.monotonic() - begun


class Bench:
    """A deployment with two users, and one measurement per method."""

    def __init__(self, asked: argparse.Namespace):
        from slurm_lab.deployment import SITE, Deployment

        self.asked, self.results = asked, {}
        PLACE.mkdir(mode=0o755, exist_ok=True)
        site = SITE.read_text()
        for old, new in {
            'url = "http://127.0.0.1:8000"': 'url = "http://127.0.0.1:28100"\ninternal_port = 28101\nproxy_api_port = 28102',
            '"/srv/phidias/hub"': f'"{PLACE}/hub"',
            '"/srv/phidias/slurm/': f'"{PLACE}/slurm/',
        }.items():
            assert site.count(old) == 1, f"{SITE} no longer says {old}."
            site = site.replace(old, new)
        (PLACE / "site.toml").write_text(site)
        self.hub = Deployment(PLACE / "site.toml", manifest=PLACE / "created.json", port=28000)
        self.hub.names.hub = "phidias-bench"
        self.hub.names.sudoers = Path("/etc/sudoers.d/phidias-benchmark")

    def __enter__(self) -> Bench:
        from slurm_lab import people

        people.create(self.hub.names, self.hub.manifest)
        self.hub.make_environment()
        return self

    def __exit__(self, *_) -> None:
        from slurm_lab import people

        self.hub.stop()
        people.remove(self.hub.manifest)
        shutil.rmtree(PLACE, ignore_errors=True)

    def running(self) -> None:
        if not self.hub.slurm.running():
            self.hub.start_slurm()
        if "hub" not in self.hub.processes:
            self.hub.start_proxy()
            self.hub.start_hub()

    def user(self, name: str):
        from tests.hub.slurm.hub_user import HubUser

        return HubUser(self.hub.address, name, self.hub.password)

    # One by one -----------------------------------------------------------------------------------------------------

    def slurm(self) -> dict:
        """Slurm from nothing to idle nodes: the first time with a new database, then with the one that is there."""
        times = []
        for _ in range(self.asked.times):
            self.hub.slurm.stop()
            shutil.rmtree(self.hub.slurm.folder, ignore_errors=True)
            begun = time.monotonic()
            self.hub.start_slurm()
            times.append(time.monotonic() - begun)
        return figures(times)

    def overhead(self) -> dict:
        """A server's start less that of a bare job of the same size, one after the other."""
        from slurm_lab.slurm import run_as

        self.running()
        alice = self.user("alice")
        marks = Path(tempfile.mkdtemp(prefix="marks-", dir=PLACE))
        marks.chmod(0o777)
        bare, server = [], []
        for number in range(self.asked.times):
            mark = marks / str(number)
            words = ["sbatch", "-p", "cpu", "-c", "1", "--mem=2G", "-t", "60", "-o", "/dev/null", "--export=NONE"]
            begun = time.time()
            run_as("alice", [*words, "--wrap", f"date +%s.%N >{mark}.new; mv {mark}.new {mark}"], self.hub.slurm.environment())
            waited(mark.exists, 60)
            bare.append(float(mark.read_text()) - begun)
            begun = time.monotonic()
            alice.start()
            server.append(time.monotonic() - begun)
            alice.ask("DELETE", "/hub/api/users/alice/server")
            waited(lambda: not alice.server(), 60)
        return {
            "bare": figures(bare),
            "server": figures(server),
            "overhead": figures([s - b for s, b in zip(server, bare, strict=True)]),
        }

    def restart(self) -> dict:
        """How long the hub's API is away when it is killed and started, and what a working user notices."""
        self.running()
        alice = self.user("alice")
        alice.start()
        gaps, good, bad, over = [], 0, [], threading.Event()

        def browse() -> None:
            nonlocal good
            while not over.wait(0.02):
                try:
                    answer = alice.ask("GET", "/user/alice/api/status", seconds=20)
                    good += answer.status_code == 200
                    if answer.status_code != 200:
                        bad.append(str(answer.status_code))
                except OSError as error:
                    bad.append(repr(error))

        browser = threading.Thread(target=browse)
        browser.start()
        try:
            for _ in range(self.asked.times):
                self.hub.end("hub", signal.SIGKILL)
                begun = time.monotonic()
                self.hub.start_hub()
                gaps.append(time.monotonic() - begun)
        finally:
            over.set()
            browser.join()
        self.hub.slurm.cancel_jobs()
        waited(lambda: not alice.server(), 60)
        return {"gap": figures(gaps), "requests": good, "failed": len(bad), "failures": bad[:5]}

    def cluster(self) -> dict:
        """A cluster over TLS with two workers ready, as jobs of Slurm."""
        import phidias_lab

        self._at_the_site()
        times = []
        for _ in range(self.asked.times):
            begun = time.monotonic()
            with phidias_lab.cluster("slurm-gpu", workers=2) as cluster:
                cluster.wait_for_workers(timeout=60)
                times.append(time.monotonic() - begun)
            waited(lambda: not self._jobs(), 30)
        return figures(times)

    def nodes(self) -> dict:
        """A node killed, and a node frozen, under a computation of two workers: is the result right, and when."""
        import phidias_lab

        site = self._at_the_site()
        told = {}
        for fault in ("kill_node", "freeze_node"):
            times, wrong = [], []
            for _ in range(self.asked.times):
                with phidias_lab.cluster("slurm-gpu", workers=2, cores=4) as cluster:
                    cluster.wait_for_workers(timeout=90)
                    futures = cluster.client.map(_square, range(16), pure=False)
                    time.sleep(1)
                    node = cluster.workers[0].node
                    begun = time.monotonic()
                    getattr(self.hub.slurm, fault)(node)
                    try:
                        if cluster.client.gather(futures) != [i * i for i in range(16)]:
                            wrong.append(node)
                        times.append(time.monotonic() - begun)
                    finally:
                        self.hub.slurm.thaw_node(node)
                waited(lambda: not self._jobs(), 60)
                self.hub.slurm._wait_until_idle()
            told[fault] = figures(times) | {"wrong": len(wrong), "limit": site["silent"] + 15}
        return told

    def visitors(self) -> dict:
        """Many people log in and start servers at the same moment, on the real Slurm."""
        return self._visit(self.asked.visitors, mocked=False)

    def crowd(self) -> dict:
        """Hundreds do, before programs that stand in for Slurm's."""
        return self._visit(self.asked.crowd, mocked=True)

    # Parts ----------------------------------------------------------------------------------------------------------

    def _at_the_site(self) -> dict:
        """This process at the site, where a worker counts as lost after the site's own time."""
        if not self.hub.slurm.running():
            self.hub.start_slurm()
        text = (PLACE / "site.toml").read_text()
        os.environ |= {"PHIDIAS_SITE": str(PLACE / "site.toml"), **self.hub.slurm.environment()}
        from phidias_lab.compute import site

        return {"silent": site.read(PLACE / "site.toml")["clusters"]["slurm-gpu"].get("silent_seconds", 30), "text": text}

    def _jobs(self) -> str:
        return self.hub.slurm._client("squeue", "-h", "-o", "%i")

    def _visit(self, number: int, *, mocked: bool) -> dict:
        from benchmarks_crowd import Crowd

        with Crowd(self.hub, number, PLACE / ("crowd" if mocked else "visitors"), mocked=mocked) as crowd:
            begun = time.monotonic()
            with ThreadPoolExecutor(number) as pool:
                told = list(pool.map(crowd.visit, crowd.names))
            seconds = time.monotonic() - begun
            failures = [words for words, _ in told if words]
            return {
                "visitors": number,
                "failed": len(failures),
                "failures": failures[:5],
                "all": seconds,
                "each": figures([took for _, took in told]),
            }


def _square(i: int) -> int:
    time.sleep(0.5)
    return i * i


MEASUREMENTS = ("slurm", "overhead", "restart", "cluster", "nodes")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[], help=f"of {', '.join(MEASUREMENTS)}; all of them by default")
    parser.add_argument("--times", type=int, default=20, help="how often each is measured")
    asked = parser.parse_args(words)
    if unknown := set(asked.what) - set(MEASUREMENTS):
        parser.error(f"{', '.join(sorted(unknown))} cannot be measured; choose of {', '.join(MEASUREMENTS)}")
    file = Path(__file__).parent / "results" / "hub.json"
    file.parent.mkdir(exist_ok=True)
    with Bench(asked) as bench:
        for name in asked.what or MEASUREMENTS:
            told = getattr(bench, name)()
            print(f"{name}: {json.dumps(told)}", flush=True)
            with contextlib.suppress(FileNotFoundError):
                bench.results = json.loads(file.read_text()) | bench.results
            bench.results[name] = told
            file.write_text(json.dumps(bench.results, indent=2))


if __name__ == "__main__":
    main()
