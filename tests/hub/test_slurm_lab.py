"""What hub-config/slurm_lab writes and refuses; what it starts is tested in tests/hub/slurm."""

from __future__ import annotations

import http.server
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from slurm_lab import Refused, deployment, people
from slurm_lab.deployment import HUB_CONFIG, SITE, Deployment
from slurm_lab.slurm import DEVICES, Lab, Settings, gres_conf, slurm_conf


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_each_node_has_a_port_of_its_own_and_gpu_nodes_have_gpus(lab):
    lab.settings = Settings(nodes=["cpu1", "gpu1", "gpu2"], gpus=2, port=30000)
    nodes = lines(slurm_conf(lab), "NodeName")
    assert [word for line in nodes for word in line.split() if word.startswith("Port=")] == [
        "Port=30011",
        "Port=30012",
        "Port=30013",
    ]
    assert ["Gres=gpu:2" in line for line in nodes] == [False, True, True]
    assert gres_conf(lab.settings).count("NodeName=gpu1 Name=gpu File=/dev/") == 2


def test_gpus_are_character_devices_because_slurm_counts_no_others():
    assert all(Path(device).is_char_device() for device in DEVICES)


def test_two_labs_on_one_host_have_different_names_in_their_tasks():
    assert Settings(port=17000).cluster != Settings(port=18000).cluster


def test_jobs_are_private_only_where_there_are_operators_who_see_them(lab):
    assert lines(slurm_conf(lab), "PrivateData=jobs")
    lab.settings = Settings(accounting=False)
    assert not lines(slurm_conf(lab), "PrivateData")
    assert not lines(slurm_conf(lab), "Accounting")


def test_the_hub_may_run_three_programs_for_members_of_the_group_and_nothing_for_root():
    text = people.sudoers(people.Names())
    assert "Cmnd_Alias PHIDIAS_PHIDIAS_HUB = /usr/bin/sbatch, /usr/bin/squeue, /usr/bin/scancel\n" in text
    assert "phidias-hub ALL=(%phidias) NOPASSWD:SETENV: PHIDIAS_PHIDIAS_HUB\n" in text
    assert "ALL=(ALL" not in text


def test_the_shipped_site_says_all_that_one_host_needs():
    shipped = Deployment(SITE)
    assert shipped.names.users == ["alice", "bob"]
    assert str(shipped.slurm.configuration) == str(shipped.slurm_conf)


def test_hub_config_is_copied_again_over_an_earlier_copy_with_the_links_of_npm(tmp_path, monkeypatch):
    source = tmp_path / "hub-config"
    (source / "proxy" / "node_modules" / ".bin").mkdir(parents=True)
    (source / "proxy" / "node_modules" / ".bin" / "a-program").symlink_to("../a-program/program.js")
    (source / "jupyterhub_config.py").write_text("first")
    monkeypatch.setattr(deployment, "HUB_CONFIG", source)
    moved = Deployment(SITE)
    moved.place, moved.log = tmp_path / "place", tmp_path / "log"
    moved._copy_configuration()
    (source / "jupyterhub_config.py").write_text("second")
    moved._copy_configuration()
    assert (moved.place / "jupyterhub_config.py").read_text() == "second"


def start(*words: str, **options) -> subprocess.CompletedProcess:
    """The command as somebody who is not root would call it; the folder is copied where such a one can read it."""
    return subprocess.run(
        [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-B", "-m", "slurm_lab", *words],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def test_who_is_not_root_is_told_so_and_what_to_do_instead(tmp_path):
    place = Path("/tmp") / f"slurm-lab-{os.getpid()}"
    shutil.copytree(HUB_CONFIG, place, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    place.chmod(0o755)
    account = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        done = start("lab", cwd=place, **account)
        assert done.returncode == 1
        assert "needs root" in done.stderr
        assert "Without root, for one person on this machine: make lab" in done.stderr
        done = start("start", cwd=place, **account)
        assert done.returncode == 1
        assert "needs root" in done.stderr
    finally:
        shutil.rmtree(place)


def test_a_lab_that_was_never_started_is_told_at_once(tmp_path):
    for words in (["status"], ["kill-node", "gpu1"]):
        done = start("--folder", str(tmp_path), *words, cwd=HUB_CONFIG)
        assert done.returncode == 1
        assert f"There is no Slurm in {tmp_path}. Start one" in done.stderr


@pytest.mark.parametrize(
    "place", ["/", "/srv", "/var", "/etc/phidias", "/usr/share/phidias", "/home/somebody", "hub", "HOME"]
)
def test_a_place_of_the_system_and_a_home_are_no_place_for_the_hub(place):
    place = next(a.pw_dir for a in pwd.getpwall() if a.pw_uid == os.geteuid()) if place == "HOME" else place
    with pytest.raises(Refused, match=r"that is (a place of the system|a home)\. Name one of its own in the site file"):
        people.check_state(people.Names(state=Path(place)))


def test_a_folder_with_files_of_others_is_not_taken_for_the_hub_s_and_an_empty_or_new_one_is(tmp_path):
    names = people.Names(hub="phidias-none-such", state=tmp_path / "hub")
    people.check_state(names)
    names.state.mkdir()
    people.check_state(names)
    (names.state / "thesis.txt").write_text("years")
    with pytest.raises(Refused, match="that folder holds files and does not belong to phidias-none-such"):
        people.check_state(names)
    owner = pwd.getpwuid(names.state.stat().st_uid).pw_name
    people.check_state(people.Names(hub=owner, state=names.state))  # its own, from an earlier start


def moved(folder: Path, *changes: tuple[str, str]) -> Path:
    """The shipped site with its places below a folder."""
    text = SITE.read_text().replace('"/srv/phidias/', f'"{folder}/')
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "site.toml").write_text(text)
    return folder / "site.toml"


@pytest.mark.parametrize("key", ["url", "internal_port", "proxy_api_port"])
def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path, key):
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        here.listen()
        port = here.getsockname()[1]
        ports = {"url": 27400, "internal_port": 27401, "proxy_api_port": 27402} | {key: port}
        url = f"http://127.0.0.1:{ports.pop('url')}"
        words = "".join(f"{k} = {v}\n" for k, v in ports.items())
        lab = Deployment(moved(tmp_path, ('url = "http://127.0.0.1:8000"\n', f'url = "{url}"\n{words}')))
        with pytest.raises(
            Refused, match=rf"Port {port} on 127\.0\.0\.1 is taken, and the lab needs it \(hub\.{key} of"
        ):
            lab.check(create=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site.toml"]


def test_ports_that_a_site_does_not_name_are_those_of_its_schema():
    schema = yaml.safe_load((HUB_CONFIG.parent / "phidias_lab" / "compute" / "site.schema.yaml").read_text())
    hub = schema["properties"]["hub"]["properties"]
    assert {key: hub[key]["default"] for key in deployment.PORTS} == deployment.PORTS


class OtherHub(http.server.BaseHTTPRequestHandler):
    """A hub of somebody else: it answers, and knows no token of ours."""

    def do_GET(self):
        self.send_response(200 if self.path == "/hub/api/" else 403)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_another_hub_at_the_address_is_not_taken_for_this_lab_s(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), OtherHub) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            lab = Deployment(moved(tmp_path, ("http://127.0.0.1:8000", f"http://127.0.0.1:{other.server_port}")))
            assert not lab.answers()
        finally:
            other.shutdown()


def test_a_lab_holds_its_places_until_its_process_ends_however_it_ends(tmp_path, set_up):
    if os.geteuid() != 0:
        reason = "not run: a Slurm lab needs root"
        pytest.fail(reason) if set_up.in_ci() else pytest.skip(reason)
    site = moved(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from slurm_lab.deployment import Deployment\n"
        "with Deployment(Path(sys.argv[1])).alone(): print('held', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, site], cwd=HUB_CONFIG, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        refused = rf"A lab runs in {tmp_path}/hub already, as process {first.pid}\. .* kill {first.pid}$"
        with pytest.raises(Refused, match=refused), Deployment(site).alone():
            pass
        for words in (["lab"], ["stop"], ["remove"]):
            done = start(*words, "--site", str(site), cwd=HUB_CONFIG)
            assert done.returncode == 1
            assert f"as process {first.pid}." in done.stderr
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    with Deployment(site).alone():
        pass
    for lock in deployment.LOCKS.glob(f"phidias-lab{str(tmp_path).replace('/', '-')}-*.lock"):
        lock.unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site.toml"]


def test_each_lab_of_a_host_writes_down_what_it_created_where_the_others_look(tmp_path):
    one, two = Deployment(SITE), Deployment(moved(tmp_path))
    assert one.manifest == people.MANIFEST
    assert two.manifest != one.manifest
    assert two.manifest.parent == one.manifest.parent
    assert two.manifest.match("created*.json")
