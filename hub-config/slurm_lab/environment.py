"""What the users' servers and workers run in: a Python environment that every user can read, and a demo lake.

The environment is made with a Python that every user can start (one below a home folder of mode 0700 would end each job at
once) and holds a copy of phidias_lab, since the checkout may be closed to others. Packages that the checkout's own .venv
holds already in the tested versions are copied from there, which takes a quarter of the time; pip then looks at every
requirement in either case and brings what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import Refused

FOLDER = Path("/srv/phidias/environment")
LAKE = Path("/srv/phidias/lake")
CHECKOUT = Path(__file__).resolve().parents[2]
PYTHONS = ("/usr/bin/python3.11", "/usr/local/bin/python3.11", "/usr/bin/python3", "/usr/local/bin/python3")
EXTRAS = "hub"
_STAMP = "made-of.json"
Say = Callable[[str], None]


def build(folder: Path = FOLDER, *, checkout: Path = CHECKOUT, source: Path | None = None, say: Say = print) -> float:
    """Make the environment, or as much of it anew as has changed; the seconds it took."""
    begun = time.monotonic()
    source = source or checkout / ".venv"
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = os.open(folder.parent, os.O_RDONLY)
    before = os.umask(0o022)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        wanted, found = state(checkout), _stamp(folder)
        if found == wanted:
            return time.monotonic() - begun
        (folder / _STAMP).unlink(missing_ok=True)
        if not found or found.keys() != wanted.keys() or found | {"code": ""} != wanted | {"code": ""}:
            say(f"Making the users' environment {folder} ...")
            # What is there already is mended by pip, which is quicker than beginning anew; another Python is not.
            if not found or found.get("python") != wanted["python"]:
                _make(folder, source)
            _pip(folder, "-c", str(checkout / "constraints.txt"), f"{checkout}[{EXTRAS}]")
            _leave_out_the_rest(folder)
        else:
            _pip(folder, "--no-deps", "--force-reinstall", str(checkout))
        _open_to_all(folder)
        (folder / _STAMP).write_text(json.dumps(wanted))
    finally:
        os.umask(before)
        os.close(holder)
    return time.monotonic() - begun


def build_lake(folder: Path = LAKE, *, environment: Path = FOLDER) -> float:
    """The demo lake, which users can read and root alone can write; the seconds it took."""
    begun = time.monotonic()
    code = "import os, sys; os.umask(0o022); from phidias_lab.demo import build_demo; build_demo(root=sys.argv[1])"
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([environment / "bin" / "python", "-c", code, folder], cwd="/", capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"The demo lake {folder} could not be built: {done.stderr.strip().splitlines()[-1:]}")
    return time.monotonic() - begun


def state(checkout: Path) -> dict[str, str]:
    """What an environment depends on: its packages, and the code of phidias_lab."""
    packages, code = hashlib.sha256(), hashlib.sha256()
    for name in ("constraints.txt", "pyproject.toml"):
        packages.update((checkout / name).read_bytes() + b"\0")
    packages.update(EXTRAS.encode())
    python = readable_python()
    for top in ("phidias_lab", "catalogs"):
        for file in sorted((checkout / top).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                code.update(str(file.relative_to(checkout)).encode() + b"\0" + file.read_bytes() + b"\0")
    version = _said([python, "-c", "import sys; print(sys.version)"])
    return {"python": f"{python} {version}", "packages": packages.hexdigest(), "code": code.hexdigest()}


def readable_python(candidates: tuple[str, ...] = PYTHONS) -> str:
    """A Python of version 3.11 or newer that the user nobody can start."""
    test = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    for python in candidates:
        if os.access(python, os.X_OK):
            account = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
            if subprocess.run([python, "-c", test], cwd="/", capture_output=True, **account).returncode == 0:
                return python
    raise Refused(
        "No Python 3.11 was found that all users can start: one below somebody's home does not do. Install the system's: "
        "apt-get install python3.11 python3.11-venv"
    )


def _stamp(folder: Path) -> dict[str, str] | None:
    try:
        return json.loads((folder / _STAMP).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _make(folder: Path, source: Path) -> None:
    if folder.exists():
        if not (folder / "pyvenv.cfg").exists():
            raise Refused(f"{folder} is in the way and is no Python environment. Move it elsewhere.")
        shutil.rmtree(folder)
    python = readable_python()
    version = _said([python, "-c", "import sys; print('python{}.{}'.format(*sys.version_info))"])
    packages = Path("lib") / version / "site-packages"
    head_start = (source / packages / "pip").is_dir()
    _said([python, "-m", "venv", *(["--without-pip"] if head_start else []), str(folder)])
    if not head_start:
        return
    for part in (packages, Path("share"), Path("etc")):
        if (source / part).is_dir():
            (folder / part).mkdir(parents=True, exist_ok=True)
            _said(["cp", "-a", "--reflink=auto", f"{source / part}/.", str(folder / part)])
    for file in (source / "bin").iterdir():
        if file.is_symlink() or not file.is_file() or (folder / "bin" / file.name).exists():
            continue
        first, newline, rest = file.read_bytes().partition(b"\n")
        if first.startswith(b"#!/") and Path(os.fsdecode(first[2:])).parent.resolve() == (source / "bin").resolve():
            first = b"#!" + os.fsencode(folder / "bin" / "python")
        elif first.startswith(b"#") or not first.startswith(b"\x7f"):
            continue  # activate and its like speak of their own folder
        (folder / "bin" / file.name).write_bytes(first + newline + rest)
        (folder / "bin" / file.name).chmod(0o755)


def _pip(folder: Path, *words: str) -> None:
    python = folder / "bin" / "python"
    builds = subprocess.run([python, "-c", "import hatchling"], cwd="/", capture_output=True).returncode == 0
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PIP_CONSTRAINT")}
    _said(
        [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
        + (["--no-build-isolation"] if builds else [])
        + list(words),
        env=environment,
    )


#: Names the installed packages that neither phidias_lab with the extras given nor pip needs; run in the environment.
#: hatchling stays, because it builds phidias_lab anew without a network when its code has changed.
_SUPERFLUOUS = """
import sys
from importlib.metadata import distributions, PackageNotFoundError, distribution
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

needed, ahead = set(), [Requirement(text) for text in sys.argv[1:]]
while ahead:
    wanted = ahead.pop()
    for extra in wanted.extras | {""}:
        if (canonicalize_name(wanted.name), extra) in needed:
            continue
        try:
            requires = distribution(wanted.name).requires or []
        except PackageNotFoundError:
            continue
        needed.add((canonicalize_name(wanted.name), extra))
        for line in map(Requirement, requires):
            if line.marker is None or line.marker.evaluate({"extra": extra}):
                ahead.append(line)
kept = {name for name, _ in needed}
print(*sorted({canonicalize_name(d.name) for d in distributions()} - kept))
"""


def _leave_out_the_rest(folder: Path) -> None:
    """Remove what came along from the checkout's own environment and is for developers alone."""
    python = str(folder / "bin" / "python")
    needed = [f"phidias-lab[{EXTRAS}]", "pip", "setuptools", "hatchling"]
    superfluous = _said([python, "-c", _SUPERFLUOUS, *needed]).split()
    if superfluous:
        _said([python, "-m", "pip", "uninstall", "--quiet", "--yes", "--disable-pip-version-check", *superfluous])


def _open_to_all(folder: Path) -> None:
    _said(["chmod", "-R", "a+rX,go-w", str(folder)])


def _said(command: list[str], **options) -> str:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        last = (done.stderr + done.stdout).strip()[-600:]
        raise Refused(f"{' '.join(command[:4])} ... failed: {last}. Mend that and run the same command again.")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit("This is a part of slurm_lab: python -m slurm_lab environment")
