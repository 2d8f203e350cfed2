"""What hub-config/slurm_lab writes and refuses; what it starts is tested in tests/hub/slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_lab import deployment, people
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
