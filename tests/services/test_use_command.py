"""`phidias use` says what was used and what is left."""

from __future__ import annotations

import json
import stat

import pytest

SACCT = r"""#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
case $0 in
*sacctmgr) echo "cpu=60000,gres/gpu=1200" ;;
*) echo "RUNNING|3600|billing=4,cpu=4,gres/gpu=2,mem=4G,node=1"
   echo "COMPLETED|1800|billing=2,cpu=2,mem=4G,node=1"
   echo "CANCELLED by 1000|0|" ;;
esac
"""


@pytest.fixture
def accounting(tmp_path):
    """Programs that print lines as Slurm's accounting prints them, and a site that names them."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sacct", "sacctmgr"):
        (folder / name).write_text(SACCT)
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
    site = tmp_path / "site.toml"
    site.write_text(
        f'name = "centre"\n[slurm]\nprograms = "{folder}"\nquery_timeout = 2\n[clusters.far]\npartition = "p"\n'
    )
    return folder, site


def test_hours_come_from_slurms_accounting_and_count_what_was_reserved(command, accounting):
    folder, site = accounting
    answer = command("use", "--json", "--since", "2026-11-01", PHIDIAS_SITE=str(site))
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["jobs"] == 3
    assert found["running"] == 1
    assert found["cpu_hours"] == pytest.approx(4 * 1 + 2 * 0.5)
    assert found["gpu_hours"] == pytest.approx(2)
    assert found["limits"] == {"cpu_hours": 1000, "gpu_hours": 20}
    assert "-S 2026-1" in (folder / "asked").read_text()
    shown = command("use", PHIDIAS_SITE=str(site))
    assert "processor hours" in shown.stdout
    assert "1000" in shown.stdout


def test_without_slurm_the_runs_are_counted(command, environment):
    before = json.loads(command("use", "--json").stdout)
    assert command("run", "toy.waves").returncode == 0
    after = json.loads(command("use", "--json").stdout)
    assert after["jobs"] == before["jobs"] + 1
    assert after["cpu_hours"] > before["cpu_hours"]
    runs = next(place for place in after["storage"] if place["place"] == "runs")
    assert runs["bytes"] > 0
    assert runs["free"] > 0


def test_an_accounting_that_does_not_answer_is_said(command, accounting):
    folder, site = accounting
    (folder / "sacct").write_text("#!/bin/sh\nexec sleep 30\n")
    silent = command("use", PHIDIAS_SITE=str(site))
    assert silent.returncode == 3
    assert "did not answer within 2 s" in silent.stderr
    (folder / "sacct").write_text("#!/bin/sh\necho 'sacct: error: no association' >&2; exit 1\n")
    assert "no association" in command("use", PHIDIAS_SITE=str(site)).stderr
    (folder / "sacct").unlink()
    assert "Set slurm.programs" in command("use", PHIDIAS_SITE=str(site)).stderr


def test_a_day_that_is_none_is_refused(command):
    answer = command("use", "--since", "yesterday")
    assert answer.returncode == 2
    assert "Write it as year-month-day" in answer.stderr
