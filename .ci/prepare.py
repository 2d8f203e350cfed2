"""Set up this checkout, then run one command of it. `make` calls this file; nobody else needs to.

    python3 .ci/prepare.py hub -- -m phidias_lab lab --hub    the extra 'hub', then python -m phidias_lab lab --hub
    python3 .ci/prepare.py dev --system -- -m pytest          the same for tests, with a look at system packages

It uses the standard library alone and is written so that an old Python can read it far enough to say that it is too
old. What it has done is stamped in .venv, so the second time takes a moment.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)
#: Other interpreters to look for when the one that was started is too old, the tested one first.
OTHERS = ("python3.11", "python3.12", "python3.13")
#: GiB that the environment with all extras and pip's own unpacking need (measured: 3.0 GiB when it is done).
SPACE = 5.0
#: An extra that holds another one.
HOLDS = {"lab": ("lab", "hub", "dev"), "hub": ("hub", "dev"), "dev": ("dev",)}
#: The extras that bring the hub, and with it its proxy.
WITH_PROXY = ("hub", "dev")


class Refused(Exception):
    """The set-up cannot go on; the message says what to do."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def in_ci(environment=None):
    """Whether this is continuous integration, where nothing may be left out."""
    value = (os.environ if environment is None else environment).get("CI", "")
    return value.strip().lower() not in ("", "0", "false", "no")


# The machine ------------------------------------------------------------------------------------------------------


def check_python(version):
    """Refuse a Python that is too old."""
    if tuple(version[:2]) < OLDEST:
        raise Refused(
            "This is Python {}.{}, and the lab needs {}.{} or newer. Install it (Debian 12: apt install python3.11 "
            "python3.11-venv), then name it: make PYTHON=python3.11".format(version[0], version[1], *OLDEST)
        )


def newer_python(version):
    """Another interpreter on the path that is new enough, or None when this one is or there is none."""
    if tuple(version[:2]) >= OLDEST:
        return None
    return next((found for found in map(shutil.which, OTHERS) if found and is_new_enough(found)), None)


def is_new_enough(python, also=""):
    """Whether an interpreter starts, is not too old, and can import the modules named in `also`."""
    code = f"import sys {also}; sys.exit(sys.version_info[:2] < {OLDEST!r})"
    try:
        return subprocess.call([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def check_space(folder, needed=SPACE, usage=shutil.disk_usage):
    """Refuse a disk that would be full before the environment is there."""
    free = usage(folder).free / 2.0**30
    if free < needed:
        raise Refused(
            f"The set-up needs about {needed:.0f} GiB, and only {free:.1f} GiB are free on the disk of {folder}. "
            "Free some space there, or clone the repository to another disk."
        )


def cannot_write(error, place):
    """The sentence for a file or folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {place} is full. Free about {SPACE:.0f} GiB there and run the same command again."
    return (
        f"{place} cannot be written ({error.strerror or error}). Use a clone in a folder of your own, or mend the "
        "permissions."
    )


# The environment --------------------------------------------------------------------------------------------------


def fingerprint(root, extra):
    """What an installation depends on: when it changes, the set-up is done again."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(root, name), "rb") as stream:
            digest.update(stream.read() + b"\0")
    digest.update(json.dumps([os.path.abspath(root), extra]).encode())
    return digest.hexdigest()


def stamp_path(root, extra):
    return os.path.join(root, ".venv", ".installed-" + extra)


def is_prepared(root, extra):
    """Whether the environment holds this extra as the files of the checkout ask for it."""
    if not os.access(environment_python(root), os.X_OK):
        return False
    for holder in HOLDS.get(extra, (extra,)):
        with contextlib.suppress(OSError), open(stamp_path(root, holder)) as stream:
            if stream.read().strip() == fingerprint(root, holder):
                return True
    return False


def environment_python(root):
    return os.path.join(root, ".venv", "bin", "python")


def make_environment(root):
    """.venv: kept when it works in this place, made anew when it was moved or its Python is gone."""
    folder, python = os.path.join(root, ".venv"), environment_python(root)
    marker = os.path.join(folder, ".place")
    place = ""
    with contextlib.suppress(OSError), open(marker) as stream:
        place = stream.read().strip()
    if is_new_enough(python, also=", pip") and place in ("", root):
        return
    if os.path.isdir(folder) and os.listdir(folder):
        if not os.path.isfile(os.path.join(folder, "pyvenv.cfg")):
            raise Refused(f"{folder} is in the way and is no virtual environment. Move it elsewhere.")
        say("The environment .venv does not work in this place and is made anew.")
        shutil.rmtree(folder)
    say("Making the virtual environment .venv with Python {}.{} ...".format(*sys.version_info[:2]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "venv", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise Refused(why_no_environment(done.stdout, folder))
        with open(marker, "w") as stream:
            stream.write(root)
    except OSError as error:
        raise Refused(cannot_write(error, folder)) from None


def why_no_environment(output, folder):
    """The sentence for a `python -m venv` that failed."""
    if "No space left" in output or "Errno 28" in output:
        return cannot_write(OSError(errno.ENOSPC, "no space"), folder)
    if "ensurepip" in output or "No module named venv" in output:
        version = "{}.{}".format(*sys.version_info[:2])
        return (
            "This Python cannot make virtual environments: its package venv is missing. Install it "
            f"(Debian: apt install python3-venv, or python{version}-venv) and run the same command again."
        )
    last = (output.strip().splitlines() or ["no message"])[-1]
    return f"The virtual environment {folder} cannot be made: {last}. Mend that and run the same command again."


_NETWORK = (
    "NewConnectionError|Temporary failure in name resolution|Name or service not known|Connection refused|ConnectTimeout|"
    "ReadTimeout|Read timed out|Network is unreachable|No route to host|ProxyError|Max retries exceeded|SSLError|"
    "Connection aborted|Connection broken|IncompleteRead|Could not fetch URL|HTTP error 5"
)


def why_pip_failed(output, log):
    """The sentence for a pip that failed, by what it said."""
    if "No space left on device" in output or "Errno 28" in output:
        why = f"the disk is full. Free about {SPACE:.0f} GiB (also in the folder for temporary files)"
    elif re.search(_NETWORK, output):
        why = (
            "the package index cannot be reached. Check the network, and the proxy if there is one (HTTPS_PROXY, or "
            "'pip config list')"
        )
    elif "from versions: none" in output:
        wanted = re.findall(r"No matching distribution found for (\S+)", output)
        why = (
            f"the package index cannot be reached, or does not know {' and '.join(wanted) or 'a package'}. Check the "
            "network, and which index pip uses ('pip config list')"
        )
    elif "No matching distribution found" in output or "Could not find a version" in output:
        wanted = re.findall(r"No matching distribution found for (\S+)", output)
        why = (
            "the package index has no {} for Python {}.{}. The versions in constraints.txt are tested with "
            "Python {}.{}: use that one (make PYTHON=python3.11)".format(
                " and no ".join(wanted) or "package that fits", *(tuple(sys.version_info[:2]) + OLDEST)
            )
        )
    elif "Permission denied" in output or "Read-only file system" in output:
        why = "a file cannot be written. Mend the permissions of the clone and of pip's cache (pip cache dir)"
    else:
        errors = (
            re.findall(r"^ERROR: (.*)$", output, re.MULTILINE) or output.strip().splitlines()[-1:] or ["no message"]
        )
        why = "pip said: {} Mend that".format(errors[0].rstrip(".") + ".")
    return f"The packages could not be installed: {why}; then run the same command again. All of pip's words: {log}"


def install(root, extra):
    """The checkout with one extra, in the versions of constraints.txt."""
    log = os.path.join(root, ".venv", "install.log")
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PYTHONUNBUFFERED="1")
    environment.setdefault("PIP_RETRIES", "2")
    constraints = os.path.join(root, "constraints.txt")
    if " " not in constraints:
        # Also the packages that build ours come in tested versions. The variable is a list separated by blanks.
        environment["PIP_CONSTRAINT"] = constraints
    command = [environment_python(root), "-m", "pip", "install", "-c", constraints, "-e", f"{root}[{extra}]"]
    say(f"Installing the packages of the extra '{extra}'; the first time takes some minutes ...")
    lines, count = [], 0
    try:
        with open(log, "w") as stream:
            process = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                universal_newlines=True,
            )
            try:
                for line in process.stdout:
                    stream.write(line)
                    lines.append(line)
                    if line.startswith(("Collecting ", "Obtaining ")):
                        count += 1
                    show_progress(count, line)
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if code:
            raise Refused(why_pip_failed("".join(lines), log))
        with open(stamp_path(root, extra), "w") as stream:
            stream.write(fingerprint(root, extra))
    except OSError as error:
        raise Refused(cannot_write(error, os.path.join(root, ".venv"))) from None
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
    say("The environment is ready.")


def show_progress(count, line):
    """One line that is written over, on a terminal only."""
    if not sys.stderr.isatty():
        return
    words = line.split()
    text = f"{words[0]} {words[1]}" if len(words) > 1 else ""
    if line.startswith("Installing collected packages"):
        text = "writing the packages to .venv"
    sys.stderr.write(f"\r\033[K  {count:3d}  {text[:60]}")
    sys.stderr.flush()


def prepare(root, extra):
    """The environment with one extra. One at a time: a second `make` waits for the first."""
    if is_prepared(root, extra) and proxy_is_prepared(root, extra):
        return
    # The folder itself is locked, so nothing is left behind.
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("Another set-up of this checkout is running; waiting for it ...")
            fcntl.flock(folder, fcntl.LOCK_EX)
        if not is_prepared(root, extra):
            if not is_new_enough(environment_python(root), also=", pip"):
                check_space(root)
            make_environment(root)
            install(root, extra)
        if not proxy_is_prepared(root, extra):
            install_proxy(root)
    finally:
        os.close(folder)


# The hub's proxy --------------------------------------------------------------------------------------------------


def proxy_fingerprint(root):
    """What the proxy depends on; empty where the checkout has none."""
    try:
        with open(os.path.join(root, "hub-config", "proxy", "package-lock.json"), "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return ""


def proxy_is_prepared(root, extra):
    """Whether the proxy of the lock file is there, or not wanted."""
    wanted = proxy_fingerprint(root)
    if extra not in WITH_PROXY or not wanted:
        return True
    folder = os.path.join(root, "hub-config", "proxy", "node_modules")
    with contextlib.suppress(OSError), open(os.path.join(folder, ".installed")) as stream:
        return stream.read().strip() == wanted
    return False


def install_proxy(root):
    """The packages of the proxy, by the npm that the environment holds: no Node.js of the system is needed."""
    say("Installing the hub's proxy ...")
    folder = os.path.join(root, "hub-config")
    done = subprocess.run(
        [environment_python(root), "-m", "phidias_hub.proxy", "install"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["The proxy could not be installed; nothing was said."])[-1]
        raise Refused(re.sub("^Error: ", "", last))
    with open(os.path.join(folder, "proxy", "node_modules", ".installed"), "w") as stream:
        stream.write(proxy_fingerprint(root))


# System packages --------------------------------------------------------------------------------------------------


def system_packages(root=ROOT):
    """The table of system-packages.txt: [{"package", "sign", "what"}]; a sign is a program or an absolute path."""
    found = []
    with open(os.path.join(root, "system-packages.txt")) as stream:
        for line in stream:
            words, _, what = line.partition("#")
            if words.strip():
                package, sign = words.split()
                found.append({"package": package, "sign": sign, "what": what.strip()})
    return found


def present(sign):
    """Where a program or path is found, or None."""
    if os.path.isabs(sign):
        return next(iter(sorted(glob.glob(sign))), None)
    return shutil.which(sign)


def missing_packages(root=ROOT):
    return [entry["package"] for entry in system_packages(root) if not present(entry["sign"])]


def system(root, environment=None):
    """System packages for the tests: installed where that is wanted (root in CI, or SYSTEM=1), listed elsewhere."""
    environment = os.environ if environment is None else environment
    missing = missing_packages(root)
    if not missing:
        return
    root_user = os.geteuid() == 0
    wanted = environment.get("SYSTEM") == "1"
    if not (wanted or (root_user and in_ci(environment))):
        say(
            "Some tests need system packages that are not installed here: {}. They will not be run; "
            "'make test SYSTEM=1' installs them (apt-get install {}).".format(", ".join(missing), " ".join(missing))
        )
        return
    if not shutil.which("apt-get"):
        raise Refused(
            "The tests need {}, and this system has no apt-get to install them. Install them by its own means, or run "
            "without SYSTEM=1 to leave their tests out.".format(", ".join(missing))
        )
    before = []
    if not root_user:
        if not shutil.which("sudo"):
            raise Refused(
                "Installing {} needs the administrator. Run as root: apt-get install {}".format(
                    ", ".join(missing), " ".join(missing)
                )
            )
        before = ["sudo"]
    say("Installing system packages: {} ...".format(", ".join(missing)))
    quiet = dict(environment, DEBIAN_FRONTEND="noninteractive")
    for act in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        if subprocess.call([*before, "apt-get", "-q", *act], env=quiet, stdout=sys.stderr):
            raise Refused(
                "apt-get {} failed; its words stand above. Check the network and the disk, or install by hand: {}".format(
                    act[0], " ".join(missing)
                )
            )
    left = missing_packages(root)
    if left:
        raise Refused(
            "apt-get installed {}, but they are not found as system-packages.txt says.".format(", ".join(left))
        )


# The command ------------------------------------------------------------------------------------------------------


def main(arguments):
    other = newer_python(sys.version_info)
    if other:
        os.execv(other, [other, os.path.abspath(__file__), *arguments])
    split = arguments.index("--") if "--" in arguments else len(arguments)
    words, command = arguments[:split], arguments[split + 1 :]
    # A `kill` of the set-up stops pip as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        check_python(sys.version_info)
        if "--system" in words:
            system(ROOT)
        prepare(ROOT, words[0])
    except Refused as refusal:
        say(f"Error: {refusal}")
        return 1
    except OSError as error:
        say(f"Error: {cannot_write(error, error.filename or ROOT)}")
        return 1
    except KeyboardInterrupt:
        say("\nStopped. The same command goes on from here.")
        return 130
    if command:
        # The command takes this process's place, so that make's Ctrl-C and SIGTERM reach it and nothing in between.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        python = environment_python(ROOT)
        os.execv(python, [python, *command])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
