"""Accounts for a demonstration: a group, users with closed homes, the hub's own system user and what it may do by sudo.

What is created is written down before it is created, so `remove` takes away exactly that, also after a kill; users that
were there before stay.
"""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from . import Refused

MANIFEST = Path("/srv/phidias/created.json")
_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclasses.dataclass
class Names:
    """Who and what a demonstration needs on this machine."""

    users: list[str] = dataclasses.field(default_factory=lambda: ["alice", "bob"])
    group: str = "phidias"
    hub: str = "phidias-hub"
    state: Path = Path("/srv/phidias/hub")
    sudoers: Path = Path("/etc/sudoers.d/phidias-lab")
    #: Folder of sbatch, squeue and scancel.
    programs: Path = Path("/usr/bin")


def sudoers(names: Names) -> str:
    """The hub may submit, look at and cancel jobs as a member of the group, and nothing else."""
    # The hub's name, since sudo knows all files of all labs on this host at once.
    alias = "PHIDIAS_" + names.hub.upper().replace("-", "_")
    commands = ", ".join(f"{names.programs}/{name}" for name in ("sbatch", "squeue", "scancel"))
    return (
        f"Cmnd_Alias {alias} = {commands}\n"
        f"{names.hub} ALL=(%{names.group}) NOPASSWD:SETENV: {alias}\n"
        f"Defaults:{names.hub} !requiretty\n"
    )


def missing(names: Names) -> list[str]:
    """What would be created, in words."""
    found = [f"the group {names.group}"] if not _group(names.group) else []
    found += [f"the user {u} with the home /home/{u}" for u in names.users if not _user(u)]
    members = set(_group(names.group).gr_mem) if _group(names.group) else set()
    found += [f"{u} as a member of {names.group}" for u in names.users if _user(u) and u not in members]
    found += [f"the system user {names.hub} with the home {names.state}"] if not _user(names.hub) else []
    if not names.sudoers.exists() or names.sudoers.read_text() != sudoers(names):
        found.append(f"{names.sudoers}: {names.hub} may run sbatch, squeue and scancel as members of {names.group}")
    return found


def create(names: Names, manifest: Path = MANIFEST) -> list[list[str]]:
    """Create what is missing; what was created by this or an earlier call is returned."""
    if os.geteuid() != 0:
        raise Refused("Creating users needs root. Run the same command as root (sudo).")
    if shutil.which("sudo") is None:
        raise Refused("The hub submits jobs by sudo, which is not installed. Install it: apt-get install sudo")
    ours = _created(manifest, "file", str(names.sudoers))
    if not ours and names.sudoers.exists() and names.sudoers.read_text() != sudoers(names):
        raise Refused(f"{names.sudoers} is there and is not this lab's. Move it elsewhere.")
    if not _group(names.group):
        _note(manifest, "group", names.group)
        _do("groupadd", names.group)
    for user in names.users:
        if not _user(user):
            _note(manifest, "user", user)
            _do("useradd", "--create-home", "--user-group", "--groups", names.group, "--shell", "/bin/bash", user)
            Path(pwd.getpwnam(user).pw_dir).chmod(0o700)
        elif user not in grp.getgrnam(names.group).gr_mem:
            _note(manifest, "member", user, names.group)
            _do("usermod", "--append", "--groups", names.group, user)
    if not _user(names.hub):
        _note(manifest, "user", names.hub)
        _do(
            "useradd",
            "--system",
            "--user-group",
            "--home-dir",
            str(names.state),
            "--shell",
            "/usr/sbin/nologin",
            names.hub,
        )
    if not names.state.exists():
        _note(manifest, "folder", str(names.state))
        names.state.mkdir(parents=True)
    account = pwd.getpwnam(names.hub)
    os.chown(names.state, account.pw_uid, account.pw_gid)
    names.state.chmod(0o700)
    _write_sudoers(names, manifest)
    return _entries(manifest)


def remove(manifest: Path = MANIFEST) -> list[list[str]]:
    """Take away what `create` created, and nothing else; what was taken away is returned."""
    entries = _entries(manifest)
    for entry in reversed(entries):
        kind, name, *more = entry
        if kind == "file":
            Path(name).unlink(missing_ok=True)
        elif kind == "folder":
            shutil.rmtree(name, ignore_errors=True)
        elif kind == "member" and _user(name) and _group(more[0]) and name in _group(more[0]).gr_mem:
            _do("gpasswd", "--delete", name, more[0])
        elif kind == "user" and _user(name):
            home = Path(pwd.getpwnam(name).pw_dir)
            _end_processes(pwd.getpwnam(name).pw_uid)
            _do("userdel", name)
            if home.is_relative_to("/home"):
                shutil.rmtree(home, ignore_errors=True)
            if _group(name):
                _do("groupdel", name)
        elif kind == "group" and _group(name):
            _do("groupdel", name)
    manifest.unlink(missing_ok=True)
    return entries


def _write_sudoers(names: Names, manifest: Path) -> None:
    """Looked at by visudo before it is put in place: a faulty file would close sudo for everybody."""
    if names.sudoers.exists() and names.sudoers.read_text() == sudoers(names):
        return
    with tempfile.NamedTemporaryFile("w", suffix=".sudoers") as file:
        file.write(sudoers(names))
        file.flush()
        _do("visudo", "--check", "--quiet", f"--file={file.name}")
    _note(manifest, "file", str(names.sudoers))
    # sudo leaves out files whose name holds a dot, so an unfinished one is never read.
    new = names.sudoers.with_name(names.sudoers.name + ".new")
    new.touch(0o440)
    new.write_text(sudoers(names))
    new.chmod(0o440)
    new.replace(names.sudoers)


def _end_processes(uid: int, seconds: float = 10) -> None:
    """End what still runs under an account that is going away."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + seconds / 2
        first = True
        while running := _processes(uid):
            if first:
                for pid in running:
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        continue
                first = False
            if time.monotonic() > end:
                break
            time.sleep(0.1)


def _processes(uid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if alive and entry.stat().st_uid == uid:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _entries(manifest: Path) -> list[list[str]]:
    try:
        return json.loads(manifest.read_text())
    except FileNotFoundError:
        return []


def _created(manifest: Path, *entry: str) -> bool:
    return list(entry) in _entries(manifest)


def _note(manifest: Path, *entry: str) -> None:
    if _created(manifest, *entry):
        return
    manifest.parent.mkdir(parents=True, exist_ok=True)
    new = manifest.with_name(manifest.name + ".new")
    new.write_text(json.dumps([*_entries(manifest), list(entry)], indent=1))
    new.replace(manifest)


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def _do(*command: str) -> None:
    program = shutil.which(command[0], path=_SEARCH)
    if program is None:
        raise Refused(f"The program {command[0]} is missing, which every Debian has. Install it.")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Refused(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
