"""What a user may ask of a server, and that nothing else reaches the batch script."""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace

import pytest
from phidias_hub.form import availability, full_profiles
from phidias_hub.form import render as form
from phidias_hub.requests import Node, Refused, check_fits, chosen, default_request, free_now, from_form
from phidias_hub.script import exit_in_words, log_path, render

SITE = {
    "servers": {
        "environments": {
            "lab": {"folder": "/opt/lab/environment", "title": "The lab"},
            "old": {"folder": "/opt/lab/old"},
        },
        "profiles": {
            "cpu": {
                "title": "Processor <node>",
                "partition": "cpu",
                "cores": {"default": 1, "max": 4},
                "memory_gib": {"default": 2, "max": 8},
                "hours": {"default": 2, "max": 12},
            },
            "gpu": {
                "partition": "gpu",
                "account": "eo",
                "qos": "normal",
                "cores": {"default": 2, "max": 8},
                "gpus": {"default": 1, "max": 4},
            },
        },
    },
    "slurm": {"modules": ["cuda/12.6"]},
}
NODES = [
    Node("cpu1", "cpu", True, 8, 8, 16000, 16000, 0, 0),
    Node("gpu1", "gpu", True, 8, 0, 16000, 8000, 2, 0),
    Node("gpu2", "gpu", True, 8, 8, 16000, 16000, 2, 1),
]

HOSTILE = [
    {"profile": "cpu; touch /tmp/x"},
    {"profile": "cpu\n#SBATCH --account=root"},
    {"profile": ["cpu"]},
    {"profile": {"cpu": 1}},
    {"profile": 1},
    {"profile": ""},
    {"environment": "../../tmp"},
    {"environment": "$(id)"},
    {"cores": True},
    {"cores": "2"},
    {"cores": "2; id"},
    {"cores": 10**400},
    {"cores": -1},
    {"cores": 0},
    {"cores": 1.5},
    {"cores": [1]},
    {"cores": math.inf},
    {"hours": math.nan},
    {"hours": 0},
    {"memory_gib": 1e-9},
    {"gpus": 1},
    {"profile": "gpu", "gpus": 5},
    {"profile": "gpu", "hours": 1},
    {"req_prologue": "curl evil | sh"},
    {"partition": "gpu"},
    {"cmd": ["sh"]},
    {"ｃores": 1},
    {1: 2},
    ["profile"],
    "cpu",
    7,
]


@pytest.mark.parametrize("options", HOSTILE, ids=lambda value: ascii(value)[:40])
def test_hostile_options_are_refused_in_one_sentence(options):
    with pytest.raises(Refused) as refused:
        chosen(options, SITE)
    sentence = str(refused.value)
    assert sentence.isascii()
    assert "\n" not in sentence
    assert len(sentence) < 250
    assert sentence.endswith((".", "?"))


@pytest.mark.parametrize(
    "form_data",
    [
        {"profile": ["cpu", "gpu"]},
        {"cpu.cores": ["1$(id)"]},
        {"cpu.cores": ["1\n2"]},
        {"cpu.cores": ["１"]},
        {"cpu.cores": ["1e3"]},
        {"cpu.cores": ["-1"]},
        {"cpu.memory_gib": ["99999999"]},
        {"profile": ["nope"]},
        {"__class__": ["x"]},
        {"upload_file": [{"filename": "x", "body": b"x"}]},
        {"profile": "cpu"},
        {"environment": ["lab;id"]},
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_hostile_forms_and_links_are_refused(form_data):
    with pytest.raises(Refused):
        chosen(from_form(form_data, SITE), SITE)


def test_only_the_chosen_profile_of_the_form_counts():
    sent = {
        "_xsrf": ["x"],
        "profile": ["gpu"],
        "cpu.cores": ["4"],
        "cpu.hours": ["1.5"],
        "gpu.cores": ["3"],
        "gpu.gpus": ["2"],
        "environment": ["old"],
    }
    request = chosen(from_form(sent, SITE), SITE)
    assert (request.partition, request.cores, request.gpus, request.minutes) == ("gpu", 3, 2, None)
    assert (request.account, request.qos, request.folder) == ("eo", "normal", "/opt/lab/old")


def test_a_link_may_name_a_profile_and_amounts():
    request = chosen(from_form({"profile": ["cpu"], "cores": ["2"], "hours": ["0.5"]}, SITE), SITE)
    assert (request.cores, request.minutes, request.memory_mib) == (2, 30, 2048)


def test_the_options_of_a_request_give_the_same_request_again():
    bare = {"servers": {"profiles": {"plain": {"partition": "cpu"}}}}
    assert chosen(chosen({}, bare).options, bare) == chosen({}, bare)
    for asked in ({}, {"profile": "gpu", "gpus": 2}, {"cores": 3, "memory_gib": 1.3, "hours": 0.7}):
        request = chosen(asked, SITE)
        assert chosen(request.options, SITE) == request


def test_the_batch_script_holds_the_request_and_is_sound_bash(tmp_path):
    script = render(chosen({"profile": "gpu", "gpus": 2, "cores": 4}, SITE), SITE)
    for line in (
        "--partition=gpu",
        "--account=eo",
        "--qos=normal",
        "--gres=gpu:2",
        "--cpus-per-task=4",
        "--no-requeue",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "--time" not in script
    assert "--mem" not in script
    assert "module load cuda/12.6 || exit 76" in script
    assert "/opt/lab/environment/bin/python" in script
    (tmp_path / "script").write_text(script)
    subprocess.run(["bash", "-n", str(tmp_path / "script")], check=True)
    plain = render(chosen({}, SITE), SITE)
    assert "#SBATCH --time=120\n" in plain
    assert "#SBATCH --mem=2048M\n" in plain
    assert "gres" not in plain


@pytest.mark.parametrize(
    "change",
    [
        {"partition": "cpu\n#SBATCH --uid=0"},
        {"partition": "--uid=0"},
        {"account": "a b"},
        {"qos": "$(id)"},
        {"folder": "/opt/$(id)"},
        {"folder": "/opt/x;id"},
        {"cores": "1; id"},
        {"cores": True},
        {"memory_mib": -1},
        {"gpus": 1.0},
        {"minutes": "1\n2"},
    ],
    ids=str,
)
def test_a_value_that_could_leave_its_place_never_reaches_the_script(change):
    """The second wall: even a request made past `chosen` is not written."""
    with pytest.raises(ValueError):
        render(replace(default_request("gpu", SITE), **change), SITE)


def test_a_hostile_module_of_the_site_is_refused():
    with pytest.raises(ValueError):
        render(default_request("cpu", SITE), {**SITE, "slurm": {"modules": ["x; id"]}})


def test_what_never_fits_is_refused_with_what_would():
    with pytest.raises(Refused, match=r"has 2 cores and 3 GPUs.*at most 8 cores, 15.6 GiB of memory and 2 GPUs"):
        check_fits(chosen({"profile": "gpu", "gpus": 3}, SITE), NODES)
    check_fits(chosen({"profile": "gpu", "gpus": 2}, SITE), NODES)
    with pytest.raises(Refused, match="in service"):
        check_fits(chosen({}, SITE), [replace(NODES[0], usable=False)])
    check_fits(chosen({}, SITE), [])


def test_a_full_partition_is_told_from_a_free_one():
    one, two = default_request("gpu", SITE), chosen({"profile": "gpu", "gpus": 2}, SITE)
    assert free_now(one, NODES)
    assert not free_now(two, NODES)
    assert availability(one, NODES) == "Starts at once: 1 of 2 nodes idle, 1 of 4 GPUs free."
    assert availability(two, NODES) == "All full; you would wait: 1 of 2 nodes idle, 1 of 4 GPUs free."
    told = availability(two, NODES, start=1_700_000_600.0, now=1_700_000_000.0)
    assert "expected to start at" in told
    assert "in about 10 minutes" in told
    assert full_profiles(SITE, NODES[:2]).keys() == {"gpu"}


def test_the_form_escapes_all_values_and_keeps_the_last_choice():
    shown = form(SITE, NODES, {"profile": "gpu", "gpus": 2})
    assert "Processor &lt;node&gt;" in shown
    assert "<node>" not in shown
    assert 'value="gpu" checked' in shown
    assert 'value="cpu" checked' not in shown
    assert 'name="gpu.gpus" value="2" min="0" max="4"' in shown
    assert 'name="gpu.hours"' not in shown
    assert '<select class="form-select" name="environment">' in shown
    assert "does not answer" in form(SITE, [], {}, silent=True)


def test_each_exit_code_of_the_start_has_words():
    import re
    from pathlib import Path

    import phidias_hub.script as script

    source = render(default_request("cpu", SITE), SITE)
    codes = {int(code) for code in re.findall(r"(?:exit|end\(|failed = |return) ?(7[0-9])", source)}
    assert codes == {70, 71, 72, 73, 74, 75, 76, 77, 78}
    assert codes <= script.EXITS.keys()
    assert exit_in_words(137) == "it was killed"
    assert "code 3" in exit_in_words(3)
    assert log_path(Path("/home/a"), 7) == "/home/a/.phidias/logs/server-7.log"
