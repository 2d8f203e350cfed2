"""python -m slurm_lab COMMAND"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

from . import Refused, __doc__, deployment, environment, people
from .slurm import FOLDER, Lab, Settings


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m slurm_lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--folder", type=Path, default=FOLDER, help=f"where Slurm keeps everything (default {FOLDER})")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser("start", help="start Slurm, wait until its nodes are idle")
    shown = Settings()
    start.add_argument("--nodes", nargs="+", metavar="NAME", help="gpu... have GPUs (default cpu1 gpu1 gpu2)")
    start.add_argument("--gpus", type=int, help=f"GPUs of each gpu node (default {shown.gpus})")
    start.add_argument("--cpus", type=int, help=f"cores that each node claims (default {shown.cpus})")
    start.add_argument("--memory", type=int, help=f"MiB that each node claims (default {shown.memory})")
    start.add_argument("--port", type=int, help=f"first of its ports (default {shown.port})")
    start.add_argument("--users", nargs="+", metavar="NAME", help="who may submit jobs (default root)")
    start.add_argument("--operators", nargs="+", metavar="NAME", help="who sees everybody's jobs, as the hub has to")
    start.add_argument(
        "--no-accounting",
        dest="accounting",
        action="store_false",
        default=None,
        help="no MariaDB, no sacct, no private jobs",
    )
    stop = commands.add_parser(
        "stop",
        help="stop the daemons, end the jobs, and the hub and proxy of a lab that was killed; what is on disk stays",
    )
    commands.add_parser("status", help="one line per node")
    commands.add_parser("env", help="the line that Slurm's clients need: eval it")
    for name, what in {
        "kill-node": "the node dies, connections are closed",
        "freeze-node": "the node falls silent, no connection is closed",
        "thaw-node": "the node goes on after freeze-node",
        "start-node": "the node comes back after kill-node",
    }.items():
        commands.add_parser(name, help=what).add_argument("node")
    users = commands.add_parser("users", help="create the accounts of a demonstration, or remove what was created")
    act = users.add_mutually_exclusive_group(required=True)
    act.add_argument(
        "--create", nargs="*", metavar="NAME", help="the users (default alice bob), their group, the hub's account"
    )
    act.add_argument("--remove", action="store_true", help="remove exactly what was created here")
    make = commands.add_parser("environment", help="make what the users' servers run in, and the demo lake")
    make.add_argument("--environment", type=Path, default=environment.FOLDER, help="its folder (default %(default)s)")
    make.add_argument(
        "--lake", type=Path, default=environment.LAKE, help="the demo lake's folder (default %(default)s)"
    )
    make.add_argument("--source", type=Path, help="an environment whose packages may be copied (default .venv)")
    lab = commands.add_parser("lab", help="Slurm, users, environment, proxy and hub; SYSTEM=1 lets it create users")
    gone = commands.add_parser(
        "remove",
        help="stop everything and remove what the lab made: users, Slurm, hub; the environment and the lake stay",
    )
    for command in (stop, lab, gone):
        command.add_argument("--site", type=Path, default=deployment.SITE, help="site file (default %(default)s)")
    lab.add_argument("--port", type=int, default=shown.port, help="first of Slurm's ports (default %(default)s)")
    return top


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    lab = Lab(options.folder)
    try:
        if options.command == "start":
            given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Settings)}
            changed = {k: v for k, v in given.items() if v is not None}
            took = lab.start(dataclasses.replace(lab.settings, **changed))
            print(f"Slurm is idle after {took:.1f} s; its clients need: {_export(lab)}")
        elif options.command == "stop":
            _stop(lab, options.site)
        elif options.command == "remove":
            _remove(options.site)
        elif options.command == "status":
            print(lab.status(), end="")
        elif options.command == "env":
            print(_export(lab))
        elif options.command == "users":
            _users(options)
        elif options.command == "environment":
            seconds = environment.build(options.environment, source=options.source)
            lake = environment.build_lake(options.lake, environment=options.environment)
            print(f"{options.environment} is ready ({seconds:.1f} s), the lake {options.lake} too ({lake:.1f} s).")
        elif options.command == "lab":
            whole = deployment.Deployment(
                options.site, password=os.environ.get("PHIDIAS_DEMO_PASSWORD"), port=options.port
            )
            return deployment.lab(whole, create=os.environ.get("SYSTEM") == "1")
        else:
            act = {"kill-node": lab.kill_node, "freeze-node": lab.freeze_node}.get(options.command, lab.thaw_node)
            act(options.node)
    except Refused as refusal:
        print(f"Error: {refusal}", file=sys.stderr)
        return 1
    return 0


def _users(options: argparse.Namespace) -> None:
    if options.remove:
        with deployment.Deployment().alone():  # not under a lab that runs
            created = people.created()
            removed = people.remove()
        print("Removed:" if removed else "Nothing was removed.", *(f"{k} {n[0]};" for k, *n in removed))
        if left := [entry for entry in created if entry not in removed]:
            print("Left to other labs of this host, which use them:", *(f"{k} {n[0]};" for k, *n in left))
        return
    names = people.Names(options.create) if options.create else people.Names()
    entries = people.create(names)
    print("Created here so far:" if entries else "All were there.", *(f"{k} {n[0]};" for k, *n in entries))


def _stop(lab: Lab, site: Path) -> None:
    whole = deployment.Deployment(site)
    if lab.folder not in (FOLDER, whole.slurm.folder):
        lab.stop()  # a Slurm alone
        return
    with whole.alone():
        whole.end_left()
        whole.slurm.stop()


def _remove(site: Path) -> None:
    whole = deployment.Deployment(site)
    with whole.alone():
        removed = whole.remove()
    print("Removed:" if removed else "Nothing of a lab is here.", "; ".join(removed))
    left = [str(p) for p in (whole.environment, whole.site.get("lake")) if p and Path(p).exists()]
    if left:
        print(f"Left, because other labs of this host may use them; to remove them: rm -r {' '.join(left)}")


def _export(lab: Lab) -> str:
    return "export " + " ".join(f"{k}={shlex.quote(v)}" for k, v in lab.environment().items())


if __name__ == "__main__":
    sys.exit(main())
