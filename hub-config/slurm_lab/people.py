"""Accounts for a demonstration: a group, users with closed homes, the hub's own system user and what it may do by sudo.

What is created is written down before it is created, so `remove` takes away exactly that, also after a kill; users that
were there before stay. What was there and is used is written down too: what another deployment of this host still uses is
left by `remove` and passes to that one, so the last one takes it away.
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

#: What a deployment created. All of this host are /srv/*/created*.json; there they find each other.
MANIFEST = Path("/srv/phidias/created.json")
#: Nothing of these is ever a hub's.
SYSTEM = [Path("/", name) for name in ("bin", "boot", "dev", "etc", "lib", "proc", "root", "run", "sbin", "sys", "usr")]
_USES = "uses"
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


def check_state(names: Names) -> None:
    """Refuse a folder that is no place for the hub's files, since it is going to be closed to all others."""
    state = names.state.resolve()
    what = f"hub.state is {names.state}, and"
    instead = f"Name one of its own in the site file, which need not be there yet, for example {MANIFEST.parent}/hub."
    if not names.state.is_absolute() or state.parent == Path("/") or any(state.is_relative_to(p) for p in SYSTEM):
        raise Refused(f"{what} that is a place of the system. {instead}")
    homes = {Path(account.pw_dir).resolve(): account.pw_name for account in pwd.getpwall()}
    if state.parent == Path("/home") or homes.get(state, names.hub) != names.hub:
        raise Refused(f"{what} that is a home. {instead}")
    if not state.exists():
        return
    if not state.is_dir():
        raise Refused(f"{what} that is no folder. {instead}")
    hub = _user(names.hub)
    if any(state.iterdir()) and (hub is None or state.stat().st_uid != hub.pw_uid):
        raise Refused(f"{what} that folder holds files and does not belong to {names.hub}. {instead}")


def found(names: Names, manifest: Path = MANIFEST) -> list[str]:
    """The accounts that are there and that this deployment did not create."""
    return [u for u in [*names.users, names.hub] if _user(u) and not _created(manifest, "user", u)]


def created(manifest: Path = MANIFEST) -> list[list[str]]:
    """What this deployment has to take away."""
    return [entry for entry in _entries(manifest) if entry[0] != _USES]


def create(names: Names, manifest: Path = MANIFEST) -> list[list[str]]:
    """Create what is missing; what was created by this or an earlier call is returned."""
    if os.geteuid() != 0:
        raise Refused("Creating users needs root. Run the same command as root (sudo).")
    if shutil.which("sudo") is None:
        raise Refused("The hub submits jobs by sudo, which is not installed. Install it: apt-get install sudo")
    check_state(names)
    ours = _created(manifest, "file", str(names.sudoers))
    if not ours and names.sudoers.exists() and names.sudoers.read_text() != sudoers(names):
        raise Refused(f"{names.sudoers} is there and is not this lab's. Move it elsewhere.")
    for user in names.users:
        home = Path("/home") / user
        if not _user(user) and home.exists() and not _created(manifest, "user", user):
            raise Refused(f"{home} is there without an account {user}: somebody's files. Move it elsewhere.")
    if not _group(names.group):
        _note(manifest, "group", names.group)
        _do("groupadd", names.group)
    _note_use(manifest, "group", names.group)
    for user in names.users:
        if not _user(user):
            _note(manifest, "user", user)
            _do("useradd", "--create-home", "--user-group", "--groups", names.group, "--shell", "/bin/bash", user)
            Path(pwd.getpwnam(user).pw_dir).chmod(0o700)
            continue
        _note_use(manifest, "user", user)
        if user not in grp.getgrnam(names.group).gr_mem:
            _note(manifest, "member", user, names.group)
            _do("usermod", "--append", "--groups", names.group, user)
        _note_use(manifest, "member", user, names.group)
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
    _note_use(manifest, "user", names.hub)
    if not names.state.exists():
        _note(manifest, "folder", str(names.state))
        names.state.mkdir(parents=True)
    account = pwd.getpwnam(names.hub)
    os.chown(names.state, account.pw_uid, account.pw_gid)
    names.state.chmod(0o700)
    _write_sudoers(names, manifest)
    _note_use(manifest, "file", str(names.sudoers))
    return created(manifest)


def remove(manifest: Path = MANIFEST) -> list[list[str]]:
    """Take away what `create` created and no other deployment uses, and nothing else; what was taken away is returned."""
    removed = []
    for entry in reversed(created(manifest)):
        kind, name, *more = entry
        if _handed_over(manifest, entry):
            continue
        if kind == "file":
            Path(name).unlink(missing_ok=True)
        elif kind == "folder":
            shutil.rmtree(name, ignore_errors=True)
        elif kind == "member" and _user(name) and _group(more[0]) and name in _group(more[0]).gr_mem:
            _do("gpasswd", "--delete", name, more[0])
        elif kind == "user" and _user(name):
            home = Path(pwd.getpwnam(name).pw_dir)
            _end_processes(pwd.getpwnam(name).pw_uid)
            # The home first: an account without one is still known as ours after a kill, a home without one is nobody's.
            if home.is_relative_to("/home"):
                shutil.rmtree(home, ignore_errors=True)
            _do("userdel", name)
            if _group(name):
                _do("groupdel", name)
        elif kind == "group" and _group(name):
            _do("groupdel", name)
        removed.insert(0, entry)
    manifest.unlink(missing_ok=True)
    return removed


def _others(manifest: Path) -> list[Path]:
    """The manifests of this host's other deployments."""
    near = {*MANIFEST.parents[1].glob("*/created*.json"), *manifest.parent.glob("created*.json")}
    return sorted(other for other in near if other.resolve() != manifest.resolve())


def _handed_over(manifest: Path, entry: list[str]) -> bool:
    """Whether another deployment uses what this one created; it takes it away from now on."""
    for other in _others(manifest):
        if [_USES, *entry] in (entries := _entries(other)):
            _keep(other, [entry if e == [_USES, *entry] else e for e in entries])
            return True
    return False


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
    # It may have been used, removed by somebody, and is now to be created here.
    _keep(manifest, [*(e for e in _entries(manifest) if e != [_USES, *entry]), list(entry)])


def _note_use(manifest: Path, *entry: str) -> None:
    if not _created(manifest, *entry):
        _note(manifest, _USES, *entry)


def _keep(manifest: Path, entries: list[list[str]]) -> None:
    manifest.parent.mkdir(parents=True, exist_ok=True)
    new = manifest.with_name(manifest.name + ".new")
    new.write_text(json.dumps(entries, indent=1))
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
