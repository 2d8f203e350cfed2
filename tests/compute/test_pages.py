"""Dask's pages of a cluster: on a socket file of the owner's, on no port, and gone with the cluster."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

import phidias_lab
from phidias_lab.compute import pages, slurm
from phidias_lab.errors import PhidiasError, RunFailedError

ROOT = Path(__file__).parents[2]
NAME = "phidias-0123456789ab"
SITE = """
name = "trial"
[clusters.local]
kind = "local"
workers = { default = 1, max = 2 }
shared_folder = "SHARED"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    file = tmp_path / "site.toml"
    file.write_text(SITE.replace("SHARED", str(tmp_path / "shared")))
    monkeypatch.setenv("PHIDIAS_SITE", str(file))
    monkeypatch.delenv(pages.VARIABLE, raising=False)


@pytest.fixture
def offered(here, monkeypatch):
    """The folder that a Jupyter server offers to its kernels; this process stands for both."""
    monkeypatch.setenv(pages.VARIABLE, "")  # so that it is put back afterwards
    return pages.offer("/user/me/")


class OnSocket(HTTPConnection):
    def __init__(self, file: Path):
        super().__init__("localhost", timeout=20)
        self.file = file

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.file))


def asked(connection: HTTPConnection, path: str) -> tuple[int, str]:
    connection.request("GET", path)
    answer = connection.getresponse()
    told = answer.status, answer.read().decode(errors="replace")
    connection.close()
    return told


def gone(path: Path, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while os.path.lexists(path) and time.monotonic() < end:
        time.sleep(0.05)
    return not os.path.lexists(path)


def test_pages_are_served_when_asked_for_to_the_owner_alone_and_end_with_the_cluster(offered):
    with phidias_lab.cluster("local", workers=1) as cluster:
        file = offered / cluster.name
        assert not file.exists()
        assert cluster.client.dashboard_link == ""
        address = cluster.dashboard()
        assert address == f"/user/me/phidias-dask/{cluster.name}/status"
        assert cluster.dashboard() is address
        assert f'href="{address}"' in cluster._repr_html_()
        assert address in repr(cluster)
        assert cluster.client.dashboard_link == address
        assert file.is_socket()
        assert file.stat().st_mode & 0o077 == 0
        assert offered.stat().st_mode & 0o077 == 0
        status, text = asked(OnSocket(file), "/status")
        assert (status, 'href="info"' in text) == (200, True)
        cluster.wait_for_workers(timeout=90)
        status, text = asked(OnSocket(file), "/info/main/workers.html")
        assert (status, "worker-0" in text) == (200, True)
    assert not file.exists()
    assert not cluster.folder.exists()
    with pytest.raises(RunFailedError, match="is closed"):
        cluster.dashboard()


def listening() -> set[int]:
    """The ports that this process and those it started listen on."""
    me = psutil.Process()
    return {
        c.laddr.port
        for process in (me, *me.children(recursive=True))
        for c in process.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }


def test_no_port_serves_them_nor_leads_elsewhere(offered):
    others = listening()  # servers of other tests
    with phidias_lab.cluster("local", workers=1) as cluster:
        cluster.wait_for_workers(timeout=90)
        cluster.dashboard()
        assert asked(OnSocket(offered / cluster.name), "/status")[0] == 200
        ports = listening() - others
        scheduler = cluster.dask.scheduler
        assert scheduler.http_server.port in ports
        answers = []
        for port in ports:
            for path in ("/status", "/info/main/workers.html", "/json/counts.json", "/statics/css/base.css"):
                try:
                    answers.append(asked(HTTPConnection("127.0.0.1", port, timeout=5), path)[0])
                except (OSError, HTTPException):  # it speaks something else
                    break
        assert answers
        assert set(answers) == {404}
        # Dask's own proxy would fetch a page of any port that this process reaches.
        with socket.create_server(("127.0.0.1", 0)) as other:
            other.settimeout(1)
            path = f"/proxy/{other.getsockname()[1]}/127.0.0.1/status"
            status, text = asked(OnSocket(offered / cluster.name), path)
            assert (status, "Workers serve no pages" in text) == (404, True)
            with pytest.raises(TimeoutError):
                other.accept()


def test_several_clusters_of_a_process_have_pages_of_their_own(offered):
    with phidias_lab.cluster("local", workers=1) as one, phidias_lab.cluster("local", workers=1) as other:
        one.wait_for_workers(timeout=90)
        one.dashboard(), other.dashboard()
        assert asked(OnSocket(offered / one.name), "/info/main/workers.html")[1].count("worker-0") > 0
        one.close()
        assert asked(OnSocket(offered / other.name), "/status")[0] == 200
        assert not (offered / one.name).exists()


def test_of_an_owner_that_is_killed_no_socket_is_left(offered):
    code = (
        "import phidias_lab, sys\n"
        "cluster = phidias_lab.cluster('local', workers=0)\n"
        "print(cluster.name, cluster.folder, cluster.dashboard(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        name, folder, _ = owner.stdout.readline().split()
        assert (offered / name).is_socket()
    finally:
        owner.kill()
        owner.wait()
        owner.stdin.close()
        owner.stdout.close()
    assert gone(offered / name)
    assert gone(Path(folder))


def test_without_a_jupyter_server_a_sentence_says_what_to_do(here, tmp_path, monkeypatch):
    with phidias_lab.cluster("local", workers=0) as cluster:
        with pytest.raises(PhidiasError, match=r"no such server started this process.*cluster\.table\(\)"):
            cluster.dashboard()
        # A folder that others can enter, and one that is gone, are no server's.
        (tmp_path / "open").mkdir(mode=0o755)
        (tmp_path / "open" / "address").write_text("/user/me/phidias-dask")
        for place in (tmp_path / "open", tmp_path / "none", Path("relative")):
            monkeypatch.setenv(pages.VARIABLE, str(place))
            with pytest.raises(PhidiasError, match="no such server started this process"):
                cluster.dashboard()
        (tmp_path / "open").chmod(0o700)
        monkeypatch.setenv(pages.VARIABLE, str(tmp_path / "open"))
        assert cluster.dashboard().startswith("/user/me/")
        (tmp_path / "open").chmod(0o755)


def test_a_place_where_no_socket_can_be_made_is_named_and_another_try_may_succeed(offered):
    with phidias_lab.cluster("local", workers=0) as cluster:
        (offered / cluster.name).mkdir()
        with pytest.raises(PhidiasError, match=rf"socket of the pages, {offered}/{cluster.name}, cannot be made"):
            cluster.dashboard()
        (offered / cluster.name).rmdir()
        assert cluster.dashboard()
    assert not (offered / cluster.name).exists()


def test_only_a_socket_of_ones_own_with_the_name_of_a_cluster_is_found(tmp_path):
    def listen(name: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        before = os.getcwd()
        os.chdir(tmp_path)  # the path of pytest may be too long for a socket
        try:
            made.bind(name)
        finally:
            os.chdir(before)
        return made

    with listen(NAME), listen("phidias-000000000001"), listen("elsewhere"):
        assert pages.socket_file(tmp_path, NAME) == str(tmp_path / NAME)
        assert pages.socket_file(tmp_path, "phidias-ffffffffffff") is None
        (tmp_path / "phidias-000000000002").symlink_to(tmp_path / NAME)
        (tmp_path / "phidias-000000000003").touch()
        (tmp_path / "phidias-000000000004").mkdir()
        os.mkfifo(tmp_path / "phidias-000000000005")
        for number in range(2, 6):
            assert pages.socket_file(tmp_path, f"phidias-00000000000{number}") is None
        inside = tmp_path / "phidias-000000000004"
        for name in (f"../{NAME}", "elsewhere", f"./{NAME}", f"{NAME}\n", f"{NAME}/", "", ".", "..", NAME.upper()):
            assert pages.socket_file(tmp_path, name) is None
            assert pages.socket_file(inside, name) is None
        if os.geteuid() == 0:
            os.chown(tmp_path / "phidias-000000000001", 65534, 65534)
            assert pages.socket_file(tmp_path, "phidias-000000000001") is None


def test_a_cluster_without_pages_loads_nothing_for_them(here):
    code = (
        "import sys, json; from phidias_lab.compute import pages; light = 'distributed' not in sys.modules\n"
        "import phidias_lab\n"
        "with phidias_lab.cluster('local', workers=0) as cluster: cluster.client\n"
        "print(json.dumps([light, sorted({'bokeh', 'jupyter_server_proxy'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert json.loads(done.stdout.splitlines()[-1]) == [True, []], done.stderr


def test_no_job_hears_of_the_pages_of_this_node(here, monkeypatch):
    monkeypatch.setenv(pages.VARIABLE, "/tmp/somewhere")
    monkeypatch.setenv("PHIDIAS_LAKE", "/lake")
    from phidias_lab.compute import site

    passed = slurm.Slurm(site.current()).passed()
    assert "PHIDIAS_LAKE" in passed
    assert pages.VARIABLE not in passed
