"""The Slurm itself: munge, MariaDB, slurmdbd, slurmctld and several slurmd on 127.0.0.1, without systemd.

Everything lives in one folder. Debian's build allows several slurmd on one host, each a node with its own port. The GPUs are
devices without computing power: Slurm counts them and hands them out. There are no control groups, so neither memory nor
devices are kept apart; say nothing about either from what is seen here.

The daemons run in the foreground as children of their own session; their pid and the moment they were started are written
down, and only a process that fits both is ever signalled. Why each setting is there stands beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import Refused

FOLDER = Path("/srv/phidias/slurm")
PROGRAMS = {
    "munge": ["munged", "munge"],
    "slurm-wlm": ["slurmctld", "slurmd", "sinfo", "scontrol", "sbatch"],
    "slurmdbd": ["slurmdbd", "sacctmgr"],
    "mariadb-server": ["mariadbd", "mariadb-install-db", "mariadb", "mariadb-admin"],
}
#: gres.conf needs character devices: with plain files CUDA_VISIBLE_DEVICES is not set, without files the count is 0 and the
#: node invalid. Slurm opens none of them, so those of every system will do, the same ones on every node.
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
#: The kernel's limit is 107 bytes; munged appends ".lock" to its own.
LONGEST_SOCKET = 100
#: Seconds in which a process that was killed has closed its sockets.
PORT_PATIENCE = 5
_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
_AT_WORK = ("idle", "mix", "alloc", "comp")


@dataclasses.dataclass
class Settings:
    """What a lab is made of. `start` writes it down; the other commands read it."""

    nodes: list[str] = dataclasses.field(default_factory=lambda: ["cpu1", "gpu1", "gpu2"])
    gpus: int = 2
    cpus: int = 8
    memory: int = 16000
    port: int = 17000
    accounting: bool = True
    users: list[str] = dataclasses.field(default_factory=lambda: ["root"])
    operators: list[str] = dataclasses.field(default_factory=list)

    @property
    def cluster(self) -> str:
        """Two labs on one host differ in the port, so a task says whose it is."""
        return f"lab{self.port}"


class Lab:
    """One Slurm in one folder."""

    def __init__(self, folder: Path | str = FOLDER):
        self.folder = Path(folder).absolute()
        self.etc, self.run = self.folder / "etc", self.folder / "run"
        self.log, self.spool = self.folder / "log", self.folder / "spool"
        self.configuration = self.etc / "slurm.conf"
        self.munge_socket = self.run / "munge" / "munge.sock"
        self.database_socket = self.run / "mysql" / "sql.sock"
        self.settings = Settings()
        with contextlib.suppress(FileNotFoundError):
            self.settings = Settings(**json.loads((self.folder / "lab.json").read_text()))

    # What people call ------------------------------------------------------------------------------------------------

    def start(self, settings: Settings) -> float:
        """Start all that does not run yet, wait until every node is idle or at work; the seconds it took."""
        begun = time.monotonic()
        self._check(settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        with self._alone():
            self.settings = settings
            self._write_configuration()
            try:
                self._start_munge()
                if settings.accounting:
                    self._start_accounting()
                self._daemon("slurmctld", ["slurmctld", "-D", "-f", self.configuration])
                for node in settings.nodes:
                    self._start_slurmd(node)
                self._wait_until_idle()
            except BaseException:
                self._stop_all()
                raise
        return time.monotonic() - begun

    def stop(self) -> None:
        """End the jobs' processes and stop the daemons. Jobs, accounts and node states stay on disk."""
        if self.folder.is_dir():
            with self._alone():
                self._stop_all()

    def cancel_jobs(self, seconds: float = 15) -> None:
        """Cancel everybody's jobs and wait for their end: what is only stopped would be there again at the next start."""
        if not self._running("slurmctld"):
            return

        def gone() -> bool:
            done = self._try(["squeue", "-h", "-o", "%A"], 5)
            found = sorted(set(done.stdout.split()))
            if found:  # again each time: a busy Slurm may not have heard it, and a job may have come since
                self._try(["scancel", *found], 10)
            return done.returncode == 0 and not found

        until(seconds, gone)

    def status(self) -> str:
        self._must_exist()
        return self._client("sinfo", "-N", "-o", "%N %P %t %C %G")

    def environment(self) -> dict[str, str]:
        """What every client of this Slurm needs in its environment, the hub and the users' jobs too."""
        return {"SLURM_CONF": str(self.configuration)}

    def kill_node(self, node: str) -> None:
        """The node dies with its whole process tree: slurmd, the step daemons and the tasks. Connections are closed."""
        self._known(node)
        self._signal_node(node, signal.SIGKILL)
        self._forget(f"slurmd.{node}")

    def freeze_node(self, node: str) -> None:
        """The node falls silent as after a power cut: its processes stand still and no connection is closed."""
        self._known(node)
        self._signal_node(node, signal.SIGSTOP)

    def thaw_node(self, node: str) -> None:
        """The node goes on after `freeze_node`, or comes back after `kill_node`."""
        self._known(node)
        if self._running(f"slurmd.{node}"):
            self._signal_node(node, signal.SIGCONT)
        else:
            self._start_slurmd(node)

    def admit(self, users: list[str], operators: list[str] = ()) -> None:
        """Give people an account in a Slurm that runs, and operators the right to see everybody's jobs."""
        self._must_exist()
        with self._alone():
            self.settings.users = list(dict.fromkeys([*self.settings.users, *users]))
            self.settings.operators = list(dict.fromkeys([*self.settings.operators, *operators]))
            if self.settings.accounting:
                self._associate()
            self._write(self.folder / "lab.json", json.dumps(dataclasses.asdict(self.settings), indent=1))

    def running(self) -> bool:
        return self._running("slurmctld")

    # Before the start ------------------------------------------------------------------------------------------------

    def _check(self, settings: Settings) -> None:
        if os.geteuid() != 0:
            raise Refused(
                "A Slurm on this host needs root, because it starts daemons and jobs under several accounts. Run the same "
                "command as root (sudo)."
            )
        wanted = PROGRAMS if settings.accounting else {k: PROGRAMS[k] for k in ("munge", "slurm-wlm")}
        missing = [p for p, names in wanted.items() if not all(shutil.which(n, path=_SEARCH) for n in names)]
        if missing:
            raise Refused(
                f"Slurm needs packages that are not installed. Install them: apt-get install {' '.join(missing)}"
            )
        if not settings.nodes or len(set(settings.nodes)) != len(settings.nodes):
            raise Refused(
                f"The nodes {settings.nodes} are none or have a name twice. Give each a name: --nodes cpu1 gpu1"
            )
        if not 0 <= settings.gpus <= len(DEVICES):
            raise Refused(f"{settings.gpus} GPUs per node were asked for; there can be 0 to {len(DEVICES)}.")
        if len(os.fsencode(self.munge_socket)) > LONGEST_SOCKET:
            raise Refused(
                f"The path of a socket holds at most {LONGEST_SOCKET} letters, and {self.munge_socket} is longer. Choose "
                "a shorter folder: --folder FOLDER"
            )
        self._check_reach()
        at_work = [name for name in self._pids() if self._running(name)]
        if self.settings.port != settings.port and at_work:
            raise Refused(f"A Slurm runs in {self.folder} at port {self.settings.port}. Stop it before you move it.")
        ports = {"slurmctld": settings.port}
        if settings.accounting:
            ports["slurmdbd"] = settings.port + 1
        ports |= {f"slurmd.{node}": settings.port + 11 + number for number, node in enumerate(settings.nodes)}
        for name, port in ports.items():
            # What runs already has its own port, and what was just killed gives it back in a moment.
            if name not in at_work and not until(PORT_PATIENCE, lambda port=port: not taken(port)):
                raise Refused(f"Port {port} on 127.0.0.1 is taken. Choose others: --port {settings.port + 1000}")

    def _check_reach(self) -> None:
        """Daemons and users have to reach the folder: not below a home of mode 0700, and munged refuses one for all."""
        above = next(p for p in [self.folder, *self.folder.parents] if p.is_dir())
        for place in [above, *above.parents]:
            mode = place.stat().st_mode
            if not mode & 0o001:
                raise Refused(
                    f"Other users cannot pass {place}, so {self.folder} is no place for Slurm. Choose one below /srv."
                )
            if (mode & 0o022 and not mode & 0o1000) or place.stat().st_uid != 0:
                raise Refused(
                    f"Others than root can write to {place}, and munged refuses to work below it. Choose one below /srv."
                )

    def _write_configuration(self) -> None:
        for folder in (self.etc, self.run, self.log, self.spool):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        owned = {
            self.run / "munge": "munge",
            self.run / "slurm": "slurm",
            self.spool / "ctld": "slurm",
            self.log: "slurm",
        }
        if self.settings.accounting:
            owned |= {self.run / "mysql": "mysql", self.spool / "mysql": "mysql"}
        for folder, owner in owned.items():  # munged wants every folder above its socket to be root's or its own
            folder.mkdir(exist_ok=True)
            shutil.chown(folder, owner, pwd.getpwnam(owner).pw_gid)
            folder.chmod(0o755)
        for node in self.settings.nodes:
            (self.spool / f"d.{node}").mkdir(exist_ok=True)
        key = self.etc / "munge.key"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(os.urandom(1024))
        shutil.chown(key, "munge", "munge")
        key.chmod(0o400)
        self._write(self.configuration, slurm_conf(self))
        self._write(self.etc / "gres.conf", gres_conf(self.settings))
        if self.settings.accounting:
            database = self.etc / "slurmdbd.conf"
            self._write(database, slurmdbd_conf(self))
            shutil.chown(database, "slurm", "slurm")
            database.chmod(0o600)
        self._write(self.folder / "lab.json", json.dumps(dataclasses.asdict(self.settings), indent=1))

    @staticmethod
    def _write(path: Path, text: str) -> None:
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(path)

    # The daemons -----------------------------------------------------------------------------------------------------

    def _start_munge(self) -> None:
        if self._running("munged"):
            return
        place = self.run / "munge"
        for name in ("munge.sock", "munge.sock.lock"):
            (place / name).unlink(missing_ok=True)
        files = [f"--{kind}-file={place}/munged.{kind}" for kind in ("pid", "log", "seed")]
        command = [
            "munged",
            "--foreground",
            f"--key-file={self.etc}/munge.key",
            f"--socket={self.munge_socket}",
            *files,
        ]
        self._daemon("munged", command, user="munge")
        self._wait("munge", 15, lambda: self._answers("munge", "-n", "-S", str(self.munge_socket)))

    def _start_accounting(self) -> None:
        data = self.spool / "mysql"
        # A lab's accounts may be lost in a power cut, so the database need not wait for the disk: seconds at the start.
        careless = ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0"]
        careless += ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--skip-networking"]
        if not self._running("mariadbd"):
            if not (data / "installed").exists():
                shutil.rmtree(data)
                data.mkdir()
                shutil.chown(data, "mysql", "mysql")
                make = ["mariadb-install-db", "--no-defaults", "--user=mysql", "--skip-test-db"]
                make += ["--auth-root-authentication-method=normal"]
                done = self._try(
                    [*make, f"--datadir={data}", *careless],
                    60,
                )
                if done.returncode:
                    raise Refused(f"MariaDB could not make its tables: {(done.stdout + done.stderr).strip()[-400:]}")
                (data / "installed").touch()
            files = [f"--datadir={data}", f"--socket={self.database_socket}", f"--pid-file={self.run}/mysql/mysqld.pid"]
            self._daemon("mariadbd", ["mariadbd", "--no-defaults", *files, *careless], user="mysql")
            ask = ["mariadb-admin", "--no-defaults", "-S", str(self.database_socket), "ping"]
            self._wait("MariaDB", 30, lambda: self._answers(*ask))
            # The socket says who asks (unix_socket), so there is no password anywhere.
            grant = "grant all on slurm_acct.* to 'slurm'@'localhost'"
            # MariaDB's own beginning is a root without a password, open to every user of the host.
            closed = "alter user 'root'@'localhost' identified via unix_socket"
            self._client(
                *("mariadb", "--no-defaults", "-S", str(self.database_socket), "-e"),
                "create database if not exists slurm_acct; create user if not exists 'slurm'@'localhost' identified via "
                f"unix_socket; {grant}; {closed};",
            )
        self._daemon("slurmdbd", ["slurmdbd", "-D"], user="slurm", MYSQL_UNIX_PORT=str(self.database_socket))
        self._wait("slurmdbd", 30, lambda: self._answers("sacctmgr", "-n", "show", "cluster"))
        self._associate()

    def _associate(self) -> None:
        """Users without an association are refused by Slurm; with PrivateData only an operator sees everybody's jobs."""

        def lines(*words: str) -> set[str]:
            return set(self._client("sacctmgr", "-nP", *words).split("\n"))

        if self.settings.cluster not in lines("show", "cluster", "format=cluster"):
            self._client("sacctmgr", "-i", "add", "cluster", self.settings.cluster)
        if "lab" not in lines("show", "account", "format=account"):
            self._client("sacctmgr", "-i", "add", "account", "lab", "Description=lab", "Organization=lab")
        people = [*self.settings.users, *self.settings.operators]
        new = sorted(set(people) - lines("show", "assoc", "account=lab", "format=user"))
        if new:
            self._client("sacctmgr", "-i", "add", "user", f"name={','.join(new)}", "account=lab")
        operators = {
            line.partition("|")[0] for line in lines("show", "user", "format=user,adminlevel") if "|Op" in line
        }
        new = sorted(set(self.settings.operators) - operators)
        if new:
            self._client(
                "sacctmgr", "-i", "modify", "user", "where", f"name={','.join(new)}", "set", "adminlevel=Operator"
            )
        missing = sorted(set(people) - lines("show", "assoc", "account=lab", "format=user"))
        if missing:
            raise Refused(f"Slurm has no association for {', '.join(missing)}. Look into {self.log}/slurmdbd.log.")

    def _start_slurmd(self, node: str) -> None:
        self._daemon(f"slurmd.{node}", ["slurmd", "-D", "-f", self.configuration, "-N", node])

    def _wait_until_idle(self) -> None:
        def idle() -> bool:
            if not self._running("slurmctld"):
                raise Refused(f"slurmctld ended: {self._tail('slurmctld')}")
            done = self._try(["sinfo", "-h", "-N", "-o", "%N %t"], 5)
            states = dict(line.split() for line in done.stdout.splitlines()) if done.returncode == 0 else {}
            for node, state in states.items():
                if state.startswith(("drain", "drng", "inval", "down")) and "*" not in state:
                    self._try(
                        ["scontrol", "update", f"nodename={node}", "state=resume"], 5
                    )  # a drain outlives a restart
            return len(states) == len(self.settings.nodes) and all(s in _AT_WORK for s in states.values())

        self._wait("the nodes", 30, idle)

    def _stop_all(self) -> None:
        for name in [n for n in self._pids() if n.startswith("slurmd.")]:
            node = name.removeprefix("slurmd.")
            self._halt(name, 10, before=signal.SIGCONT)
            for pid in self._step_processes(node):
                send(pid, signal.SIGKILL)
        for name, seconds in (("slurmctld", 15), ("slurmdbd", 15), ("mariadbd", 30), ("munged", 5)):
            self._halt(name, seconds)

    def _daemon(self, name: str, command: list, user: str | None = None, **more: str) -> None:
        if self._running(name):
            return
        account = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        # The daemons write here who has which job, so it is not for everybody.
        with open(self.log / f"{name}.out", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            os.fchmod(stream.fileno(), 0o600)
            process = subprocess.Popen(
                [shutil.which(command[0], path=_SEARCH), *map(str, command[1:])],
                cwd="/",
                env=_ENVIRONMENT | self.environment() | more,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                **account,
            )
        pids = self._pids()
        pids[name] = [process.pid, started(process.pid)]
        self._write(self.run / "pids.json", json.dumps(pids))

    def _pids(self) -> dict[str, list[int]]:
        try:
            return json.loads((self.run / "pids.json").read_text())
        except FileNotFoundError:
            return {}

    def _forget(self, name: str) -> None:
        self._write(self.run / "pids.json", json.dumps({k: v for k, v in self._pids().items() if k != name}))

    def _running(self, name: str) -> bool:
        entry = self._pids().get(name)
        return entry is not None and alive(*entry)

    def _halt(self, name: str, seconds: float, before: int | None = None) -> None:
        entry = self._pids().get(name)
        if entry is None:
            return
        if before is not None and alive(*entry):
            send(entry[0], before)
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5)):
            if alive(*entry):
                send(entry[0], number)
                until(patience, lambda: not alive(*entry))
        self._forget(name)

    # A node's processes ----------------------------------------------------------------------------------------------

    def _known(self, node: str) -> None:
        self._must_exist()
        if node not in self.settings.nodes:
            raise Refused(f"There is no node {node!r} here; the nodes are {', '.join(self.settings.nodes)}.")

    def _signal_node(self, node: str, number: int) -> None:
        if not self._running(f"slurmd.{node}"):
            raise Refused(f"The node {node} is not running. Start it: python -m slurm_lab start-node {node}")
        send(self._pids()[f"slurmd.{node}"][0], number)  # first, so that it cannot tell the end of its jobs
        for pid in self._step_processes(node):
            send(pid, number)

    def _step_processes(self, node: str) -> list[int]:
        """The step daemons of a node, which hold its log open, and all that their tasks have started."""
        log, found, parents = str(self.log / f"slurmd.{node}.log"), set(), {}
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CLUSTER_NAME={self.settings.cluster}".encode()}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                pid, name = int(entry.name), (entry / "comm").read_text().strip()
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if name == "slurmstepd":
                    if any(os.readlink(fd) == log for fd in (entry / "fd").iterdir()):
                        found.add(pid)
                elif marks <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.add(pid)
        while True:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            if not more:
                return sorted(found)
            found |= more

    # Small tools -----------------------------------------------------------------------------------------------------

    def _must_exist(self) -> None:
        # A client without slurm.conf looks for one for a minute.
        if not self.configuration.exists():
            raise Refused(
                f"There is no Slurm in {self.folder}. Start one: python -m slurm_lab --folder {self.folder} start"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One start or stop at a time. The folder itself is locked, so nothing is left behind."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _try(self, command: list[str], seconds: float) -> subprocess.CompletedProcess:
        """A client, given up after some seconds; one that hangs counts as failed."""
        program = shutil.which(command[0], path=_SEARCH) or command[0]
        environment = _ENVIRONMENT | self.environment()
        try:
            return subprocess.run(
                [program, *command[1:]], env=environment, capture_output=True, text=True, timeout=seconds, cwd="/"
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:.0f} s")

    def _client(self, *command: str) -> str:
        done = self._try(list(command), 30)
        if done.returncode:
            raise Refused(f"{' '.join(command[:4])} failed: {(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def _answers(self, *command: str) -> bool:
        return self._try(list(command), 5).returncode == 0

    def _wait(self, what: str, seconds: float, condition: Callable[[], bool]) -> None:
        if not until(seconds, condition):
            raise Refused(f"No answer from {what} within {seconds:.0f} s. The logs are in {self.log}.")

    def _tail(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.log / f"{name}.out").read_text(errors="replace").strip()[-300:]
        return "no log"


def run_as(user: str, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a command under an account of this host, in its home, with its groups."""
    account = pwd.getpwnam(user)
    surroundings = _ENVIRONMENT | {"HOME": account.pw_dir, "USER": user, "LOGNAME": user} | environment
    return subprocess.run(
        command,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(user, account.pw_gid),
        cwd=account.pw_dir,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=60,
    )


def own_address() -> str:
    """What the host's own name stands for: the loopback on a usual Debian. Slurm's NoInAddrAny listens there alone."""
    try:
        return socket.gethostbyname(socket.gethostname().partition(".")[0])
    except OSError:
        return "127.0.0.1"


# The files ------------------------------------------------------------------------------------------------------------


def slurm_conf(lab: Lab) -> str:
    settings, host = lab.settings, socket.gethostname().partition(".")[0]
    lines = [
        f"ClusterName={settings.cluster}",
        # The name has to be the host's own, the address may be the loopback.
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={settings.port}",
        "SlurmUser=slurm",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        # cred_expire is also how long a requeued job waits; its default is 120 s.
        f"AuthInfo=socket={lab.munge_socket},cred_expire=20",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
        f"StateSaveLocation={lab.spool}/ctld",
        f"SlurmdSpoolDir={lab.spool}/d.%n",
        f"SlurmctldPidFile={lab.run}/slurm/slurmctld.pid",
        f"SlurmdPidFile={lab.run}/slurm/slurmd.%n.pid",
        f"SlurmctldLogFile={lab.log}/slurmctld.log",
        f"SlurmdLogFile={lab.log}/slurmd.%n.log",
        "SlurmctldTimeout=30",
        # A node's death is seen in seconds rather than minutes, and a node that comes back is used again.
        "SlurmdTimeout=20",
        "ReturnToService=2",
        "JobRequeue=1",
        "KillWait=5",
        "MinJobAge=300",
        # A node may claim more cores and memory than the host has.
        "SlurmdParameters=config_overrides",
        "SchedulerType=sched/backfill",
        # Without batch_sched_delay=0 a batch job waits up to 3 s on an idle cluster.
        "SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=5,bf_interval=5",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        # What works without control groups.
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=5",
        "MpiDefault=none",
        "GresTypes=gpu",
        "DefMemPerCPU=1000",
    ]
    if settings.accounting:
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            f"AccountingStorageHost={own_address()}",
            f"AccountingStoragePort={settings.port + 1}",
            # The clients of slurmdbd take munge's socket from here; AuthInfo is not enough.
            f"AccountingStoragePass={lab.munge_socket}",
            "AccountingStorageTRES=gres/gpu",
            "AccountingStorageEnforce=associations",
            # Nobody sees another's jobs. Operators do, and there are operators only with accounts.
            "PrivateData=jobs,usage",
        ]
    for number, node in enumerate(settings.nodes):
        gpus = f" Gres=gpu:{settings.gpus}" if node.startswith("gpu") and settings.gpus else ""
        lines.append(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={settings.port + 11 + number} "
            f"CPUs={settings.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={settings.cpus} ThreadsPerCore=1 "
            f"RealMemory={settings.memory}{gpus} State=UNKNOWN"
        )
    gpu = [node for node in settings.nodes if node.startswith("gpu")]
    cpu = [node for node in settings.nodes if node not in gpu]
    if cpu:
        lines.append(f"PartitionName=cpu Nodes={','.join(cpu)} Default=YES MaxTime=12:00:00 State=UP")
    if gpu:
        lines.append(f"PartitionName=gpu Nodes={','.join(gpu)} MaxTime=12:00:00 State=UP")
    return "\n".join(lines) + "\n"


def gres_conf(settings: Settings) -> str:
    gpu = [node for node in settings.nodes if node.startswith("gpu")]
    return "".join(f"NodeName={node} Name=gpu File={device}\n" for node in gpu for device in DEVICES[: settings.gpus])


def slurmdbd_conf(lab: Lab) -> str:
    return "\n".join(
        [
            "AuthType=auth/munge",
            f"AuthInfo=socket={lab.munge_socket}",
            # The host's own name; 127.0.0.1 does not work here.
            f"DbdHost={socket.gethostname().partition('.')[0]}",
            # DbdAddr is for the clients alone. What slurmdbd listens on is every address, or with this the host's own.
            f"DbdAddr={own_address()}",
            "CommunicationParameters=NoInAddrAny",
            f"DbdPort={lab.settings.port + 1}",
            "SlurmUser=slurm",
            # Said here too: the accounts are asked for past the controller.
            "PrivateData=jobs,usage",
            f"LogFile={lab.log}/slurmdbd.log",
            f"PidFile={lab.run}/slurm/slurmdbd.pid",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            "StorageUser=slurm",
            "StorageLoc=slurm_acct",
            "",
        ]
    )


# Processes ------------------------------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def started(pid: int) -> int:
    """When a process was started, in clock ticks after the boot: with the pid, its identity."""
    return int(_stat(pid)[19])


def alive(pid: int, since: int) -> bool:
    """It is still the one that was started, and no zombie: a container's first process may reap nothing."""
    try:
        fields = _stat(pid)
    except (OSError, IndexError):
        return False
    return int(fields[19]) == since and fields[0] not in "ZX"


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def taken(port: int) -> bool:
    """Whether something listens at a port of this host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def until(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition came true in time; bound by the clock, since one look may take seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
