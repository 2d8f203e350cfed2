"""`phidias places`: where runs and clusters may go, with the most that each place gives."""

from __future__ import annotations

import json
import os

import pytest

SITE = """
name = "trial"
[clusters.slurm-gpu]
title = "GPU nodes"
partition = "gpu"
workers = { max = 4 }
memory_gib = { max = 64 }
gpus = { max = 2 }
hours = { max = 12 }
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    return {"PHIDIAS_SITE": str(tmp_path / "site.toml")}


def test_the_places_are_listed_with_the_most_that_each_gives(command, site):
    done = command("places", "--json", **site)
    assert (done.returncode, done.stderr) == (0, "")
    here, there = json.loads(done.stdout)
    assert (here["name"], here["title"], here["cores"]) == ("local", "This machine", os.cpu_count())
    assert (here["gpus"], here["hours"]) == (0, None)
    assert 0 < here["memory_gib"] < 2**20
    assert there == {
        "name": "slurm-gpu",
        "title": "GPU nodes",
        "workers": 4,
        "cores": None,
        "memory_gib": 64,
        "gpus": 2,
        "hours": 12,
    }
    table = command("places", **site).stdout
    assert "slurm-gpu" in table
    assert "GPU nodes" in table
    assert "as Slurm allows" in table


def test_the_command_is_named_where_it_is_looked_for(command):
    assert "'phidias places' lists" in " ".join(command("run", "ocean.gridding", "--help").stdout.split())
    for word in ("clusters", "cluster", "place"):
        assert "Did you mean 'places'" in command(word).stderr, word
