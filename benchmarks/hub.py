"""The hub's goals, measured on the one-host Slurm: how long people wait, and that nothing fails meanwhile.

    SYSTEM=1 python benchmarks/hub.py                       # as root, where the tests of the hub may run
    SYSTEM=1 python benchmarks/hub.py slurm restart --times 3
    SYSTEM=1 python benchmarks/hub.py visitors --visitors 50
    SYSTEM=1 python benchmarks/hub.py crowd --crowd 500

It works below /srv/phidias-benchmark with accounts of its own, and removes what it created. The servers of `visitors` are
light: they answer with their user's name, so that the hub is measured and not 50 times JupyterLab on one host. For `crowd`
Slurm is pretended as well (`_pretended_slurm`), while hub, proxy, log-in, sudo and the accounts are real: sudo takes no
account from elsewhere than the machine. Creating and removing 500 takes a few minutes. Results: benchmarks/results/hub.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import requests

ROOT = Path(__file__).parents[1]
sys.path[:0] = [
    *(str(Path(__file__).parent), str(ROOT), str(ROOT / "hub-config")),
    *(str(ROOT / "tests" / "hub"), str(ROOT / "tests" / "hub" / "slurm")),
]
PLACE = Path("/srv/phidias-benchmark")
#: A server that tells the hub its port and answers every request with its user's name.
LIGHT = """
import http.server, json, os, urllib.request
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6")
        self.end_headers()
        self.wfile.write(os.environ["JUPYTERHUB_USER"].encode())
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
told = urllib.request.Request(
    os.environ["JUPYTERHUB_API_URL"] + "/phidias/port", data=json.dumps({"port": server.server_port}).encode(),
    headers={"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"})
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(told, timeout=60)
server.serve_forever()
"""


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


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """The right to use the one place and the one set of accounts on this host."""
    with open(f"{PLACE}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("Error: another run of this benchmark uses this host. Wait for its end, or end it.")
        yield


class Bench:
    """A deployment with two users, and one measurement per method."""

    def __init__(self, asked: argparse.Namespace):
        from slurm_lab.deployment import SITE, Deployment

        self.asked, self.results = asked, {}
        PLACE.mkdir(mode=0o755, exist_ok=True)
        site = SITE.read_text()
        for old, new in {
            'url = "http://127.0.0.1:8000"': 'url = "http://127.0.0.1:28100"\ninternal_port = 28101\nproxy_api_port = 28102',
            'group = "phidias"': 'group = "phidias-guests"',
            '"/srv/phidias/hub"': f'"{PLACE}/hub"',
            '"/srv/phidias/slurm/': f'"{PLACE}/slurm/',
        }.items():
            assert site.count(old) == 1, f"{SITE} no longer says {old}."
            site = site.replace(old, new)
        what = asked.what or MEASUREMENTS
        others = max([getattr(asked, name) for name in ("visitors", "crowd") if name in what], default=0)
        many = ["alice", "bob", *(f"phidias-v{number:03d}" for number in range(others))]
        site = site.replace('["alice", "bob"]', json.dumps(many))
        light = f'[servers.environments.light]\ntitle = "Light servers"\nfolder = "{PLACE}/light"\n\n'
        site = site.replace("[servers.profiles.cpu]", light + "[servers.profiles.cpu]")
        (PLACE / "light" / "bin").mkdir(parents=True, exist_ok=True)
        (PLACE / "light" / "server.py").write_text(LIGHT)
        python = PLACE / "light" / "bin" / "python"
        python.write_text(f"#!/bin/sh\nexec /usr/bin/python3 {PLACE}/light/server.py\n")
        python.chmod(0o755)
        (PLACE / "site.toml").write_text(site)
        self.hub = Deployment(PLACE / "site.toml", manifest=PLACE / "created.json", port=28000)
        self.hub.names.hub = "phidias-bench"
        self.hub.names.sudoers = Path("/etc/sudoers.d/phidias-benchmark")

    def __enter__(self) -> Bench:
        from slurm_lab import people

        try:
            people.create(self.hub.names, self.hub.manifest)
            self.hub.make_environment()
        except BaseException:
            self.__exit__()
            raise
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
        from hub_user import HubUser

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
            words += ["--wrap", f"date +%s.%N >{mark}.new; mv {mark}.new {mark}"]
            begun = time.time()
            run_as("alice", words, self.hub.slurm.environment())
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
        """How long the hub's API is away when it is killed and started, and what people at their server notice.

        Known ones the server has seen just before. About new ones, a token or a browser's cookie each time in another
        session, it has to ask the hub with each request.
        """
        self.running()
        alice = self.user("alice")
        alice.start()
        alice.browser.look("/user/alice/lab")
        cookies = {c.name: c.value for c in alice.browser.cookies if c.path in ("/", "/user/alice/")}
        kinds = {"known": (1, 0), "token": (4, 1), "cookie": (4, 1)}
        good, bad, gaps, over = Counter(), [], [], threading.Event()

        def browse(kind: str, new: bool) -> None:
            while not over.wait(0.02):
                session = {"jupyterhub-session-id": secrets.token_hex(8)} if new else {}
                sent = {"cookies": cookies | session} if kind == "cookie" else {"cookies": session, "headers": headers}
                try:
                    answer = requests.get(address, timeout=60, **sent)
                    if answer.status_code != 200:
                        bad.append(f"{kind}: {answer.status_code}")
                    good[kind] += answer.status_code == 200
                except OSError as error:
                    bad.append(f"{kind}: {error!r}")

        address, headers = f"{self.hub.address}/user/alice/api/me", {"Authorization": f"token {alice.token}"}
        people = [
            threading.Thread(target=browse, args=(kind, bool(new)))
            for kind, (n, new) in kinds.items()
            for _ in range(n)
        ]
        for person in people:
            person.start()
        try:
            waited(lambda: all(good[kind] > 20 for kind in kinds), 60)
            for _ in range(self.asked.times):
                self.hub.end("hub", signal.SIGKILL)
                begun = time.monotonic()
                self.hub.start_hub()
                gaps.append(time.monotonic() - begun)
                before = good.copy()
                try:
                    waited(lambda before=before: all(good[kind] > before[kind] + 5 for kind in kinds), 60)
                except TimeoutError:
                    bad.append(f"no answers after a restart: had {dict(before)}, have {dict(good)}")
                    break
        finally:
            over.set()
            for person in people:
                person.join()
        self.hub.slurm.cancel_jobs()
        waited(lambda: not alice.server(), 60)
        return {"gap": figures(gaps), "requests": dict(good), "failed": len(bad), "failures": bad[-5:]}

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
                        print(f"{fault} {node}: {times[-1]:.1f} s", file=sys.stderr, flush=True)
                    finally:
                        self.hub.slurm.thaw_node(node)
                waited(lambda: not self._jobs(), 120)
                waited(self._idle, 180, 1)  # Slurm takes its time with a node that was lost; that is not measured
            told[fault] = figures(times) | {"wrong": len(wrong), "limit": site["silent"] + 15}
        return told

    def visitors(self) -> dict:
        """Many people log in and start a server at the same moment, on the real Slurm."""
        from slurm_lab.slurm import Settings

        self.hub.stop()
        names = self.hub.names
        self.hub.slurm.start(Settings(port=28000, cpus=128, memory=512000, users=names.users, operators=[names.hub]))
        self.running()

        def visit(name: str) -> tuple[str, float]:
            begun = time.monotonic()
            try:
                person = self.user(name)
                path, options = f"/hub/api/users/{name}/server", {"environment": "light"}
                # The hub asks to come again when more than so many servers start at once.
                while (answer := person.ask("POST", path, options)).status_code == 429:
                    time.sleep(1)
                assert answer.status_code in (201, 202), f"{answer.status_code}: {answer.text[:300]}"
                waited(lambda: person.server().get("ready", False), 120, 0.5)
                assert person.ask("GET", f"/user/{name}/").text == name
            except (AssertionError, OSError, KeyError, ValueError) as error:
                return f"{name}: {error!r}", time.monotonic() - begun
            return "", time.monotonic() - begun

        everybody = names.users[2 : 2 + self.asked.visitors]
        begun = time.monotonic()
        with ThreadPoolExecutor(len(everybody)) as pool:
            told = list(pool.map(visit, everybody))
        seconds = time.monotonic() - begun
        failures = [words for words, _ in told if words]
        self.hub.stop()
        return {
            "visitors": len(everybody),
            "failed": len(failures),
            "failures": failures[:5],
            "all": seconds,
            "each": figures([took for _, took in told]),
        }

    def crowd(self) -> dict:
        """More people than one host can serve log in and start a server at the same moment, before a pretended Slurm."""
        with self.pretended(self.asked.crowd) as slurm:
            return asyncio.run(self._crowd(slurm))

    # Parts ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def pretended(self, room: int) -> Iterator[Path]:
        """Hub and proxy before a pretended Slurm with room for so many servers; gives the socket at which it answers."""
        from slurm_lab import people

        self.hub.stop()
        names, folder, site = self.hub.names, PLACE / "pretended", PLACE / "site.toml"
        shutil.rmtree(self.hub.state, ignore_errors=True)
        names.programs = folder / "bin"
        people.create(names, self.hub.manifest)
        before = site.read_text()
        site.write_text(before.replace("[slurm]\n", f'[slurm]\nprograms = "{names.programs}"\n'))
        program = Path(__file__).with_name("_pretended_slurm.py")
        slurm = subprocess.Popen([sys.executable, program, folder, str(room)], stdout=subprocess.PIPE, text=True)
        try:
            slurm.stdout.readline()
            self.hub.start_proxy()
            self.hub.start_hub()
            yield folder / "socket"
        finally:
            self.hub.stop()
            slurm.terminate()
            slurm.wait()
            slurm.stdout.close()
            site.write_text(before)
            names.programs = Path("/usr/bin")
            people.create(names, self.hub.manifest)

    async def _crowd(self, slurm: Path) -> dict:
        from _browsers import Browser, failures

        names = self.hub.names.users[2 : 2 + self.asked.crowd]
        async with contextlib.AsyncExitStack() as opened:
            browsers = [Browser(self.hub.address, name, self.hub.password, patience=900) for name in names]
            for browser in browsers:
                await opened.enter_async_context(browser)

            def took(step: str) -> dict:
                return figures([browser.seconds[step] for browser in browsers if step in browser.seconds] or [0.0])

            hub = psutil.Process(self.hub.processes["hub"].pid)
            told = {"people": len(names), "memory_before": hub.memory_info().rss / 2**20}
            with Meter(hub, slurm) as meter:
                failed = await failures(browsers, "visit")
            told |= {"failed": len(failed), "failures": failed[:5], "login": took("login"), "all": took("all")}
            told |= {"coming": meter.told(), "memory": hub.memory_info().rss / 2**20}
            # All are at work, and nobody starts or stops: how often is the queue asked, and what does that cost?
            with Meter(hub, slurm) as meter:
                await asyncio.sleep(self.asked.watch)
            told["at_work"] = meter.told()
            await asyncio.to_thread(self.hub.end, "hub", signal.SIGKILL)
            begun = time.monotonic()
            await asyncio.to_thread(self.hub.start_hub)
            told["restart"] = time.monotonic() - begun
            failed = await failures(browsers, "come_again")
            told |= {"lost_by_restart": len(failed), "lost": failed[:5]}
            hub = psutil.Process(self.hub.processes["hub"].pid)
            with Meter(hub, slurm) as meter:
                failed = await failures(browsers, "stop")
                while tally(slurm)["running"]:
                    await asyncio.sleep(0.2)
            told |= {"not_stopped": len(failed), "stop_failures": failed[:5], "stopping": meter.told()}
        return told

    def _at_the_site(self) -> dict:
        """This process at the site, where a worker counts as lost after the site's own time."""
        if not self.hub.slurm.running():
            self.hub.start_slurm()
        os.environ |= {"PHIDIAS_SITE": str(PLACE / "site.toml"), **self.hub.slurm.environment()}
        from phidias_lab.compute import site

        return {"silent": site.read(PLACE / "site.toml")["clusters"]["slurm-gpu"].get("silent_seconds", 30)}

    def _idle(self) -> bool:
        from slurm_lab import Refused

        try:
            self.hub.slurm._wait_until_idle()
        except Refused:
            return False
        return True

    def _jobs(self) -> str:
        return self.hub.slurm._client("squeue", "-h", "-o", "%i")


class Meter:
    """What the hub used and asked while something went on."""

    def __init__(self, hub: psutil.Process, slurm: Path):
        self.hub, self.slurm, self.files = hub, slurm, 0

    def __enter__(self) -> Meter:
        self.begun, self.asked, self.used = time.monotonic(), tally(self.slurm), self.hub.cpu_times()
        self.over = threading.Event()
        self.watch = threading.Thread(target=self._watch)
        self.watch.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.5):
            self.files = max(self.files, self.hub.num_fds())

    def __exit__(self, *_) -> None:
        self.over.set()
        self.watch.join()
        self.seconds, asked, used = time.monotonic() - self.begun, tally(self.slurm), self.hub.cpu_times()
        self.processor = used.user + used.system - self.used.user - self.used.system
        self.questions = {name: asked[name] - self.asked.get(name, 0) for name in asked if name != "running"}

    def told(self) -> dict:
        """Seconds, the hub's seconds of a processor, its most open files, and how often which program was asked."""
        return {"seconds": self.seconds, "processor": self.processor, "files": self.files, **self.questions}


def tally(slurm: Path) -> dict[str, int]:
    """How often each program of the pretended Slurm was asked, and how many jobs run."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(slurm))
        line.sendall(b'{"program": "tally"}\n')
        return json.loads(line.makefile().read())


def _square(i: int) -> int:
    time.sleep(0.5)
    return i * i


MEASUREMENTS = ("slurm", "overhead", "restart", "cluster", "nodes", "visitors", "crowd")


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[], help=f"of {', '.join(MEASUREMENTS)}; all of them by default")
    parser.add_argument("--times", type=int, default=20, help="how often each is measured")
    parser.add_argument("--visitors", type=int, default=50, help="how many people come at once")
    parser.add_argument("--crowd", type=int, default=500, help="how many people come at once before a pretended Slurm")
    parser.add_argument("--watch", type=float, default=20, help="for how many seconds the crowd at work is watched")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of hub.json")
    asked = parser.parse_args(words)
    if unknown := set(asked.what) - set(MEASUREMENTS):
        parser.error(f"{', '.join(sorted(unknown))} cannot be measured; choose of {', '.join(MEASUREMENTS)}")
    return asked


def main(words: list[str] | None = None) -> None:
    os.environ["PYTHONPATH"] = str(ROOT)  # of the workers of clusters
    asked = parsed(words)
    file = asked.results / "hub.json"
    file.parent.mkdir(exist_ok=True)
    with alone(), Bench(asked) as bench:
        for name in asked.what or MEASUREMENTS:
            told = getattr(bench, name)()
            print(f"{name}: {json.dumps(told)}", flush=True)
            with contextlib.suppress(FileNotFoundError):
                bench.results = json.loads(file.read_text()) | bench.results
            bench.results[name] = told
            file.write_text(json.dumps(bench.results, indent=2))


if __name__ == "__main__":
    main()
