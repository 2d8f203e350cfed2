"""`phidias run` in a process of its own: what it prints, what it leaves, and how it is stopped."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest


def workers(environment):
    """Worker processes of this test's runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if "phidias_lab.flow" in process.cmdline() and environment["PHIDIAS_RUNS"] in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"It did not come about within {seconds} s.")


def test_a_run_prints_where_its_product_is_and_what_it_took(command, environment):
    done = command("run", "toy.waves", "--shape", "square", "--title-text", "a remark", "--wait", "0.5")
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith(" "))
    assert Path(facts["Product"]).is_file()
    assert "peak memory" in facts["Took"]
    assert "sha256" not in done.stdout
    order = json.loads((Path(environment["PHIDIAS_RUNS"]) / facts["Run"] / "order.json").read_text())
    assert order["parameters"]["shape"] == "square"
    assert order["parameters"]["title_text"] == "a remark"
    assert order["parameters"]["amplitude"] == 2.0
    # Progress goes to stderr, as plain lines because this is no terminal.
    assert "toy.waves: " in done.stderr
    assert "%" in done.stderr
    assert "\x1b" not in done.stderr


def test_checksums_are_printed_when_they_are_asked_for(command):
    done = command("run", "toy.waves", "--verbose", "--quiet")
    assert "height  sha256 " in done.stdout
    assert "height  sha256 " in command("runs", "show", "last").stdout


def test_what_a_run_left_out_and_warned_of_stands_at_its_end_in_its_log_and_its_record(command):
    done = command("run", "toy.talking", "--quiet")
    assert done.returncode == 0, done.stderr
    line = "crests used 5 of 8; left out: 2 too low, 1 broken"
    assert f"Used     {line}\n" in done.stdout
    assert "Warning  The sea is calm.\n" in done.stdout
    log = command("runs", "log", "last").stdout
    assert line in log
    assert "Warning: The sea is calm." in log
    shown = command("runs", "show", "last").stdout
    assert line in shown
    assert "The sea is calm." in shown
    record = json.loads(command("runs", "show", "last", "--json").stdout)["record"]
    assert record["said"]["counts"]["crests"] == {"total": 8, "used": 5, "left_out": {"too low": 2, "broken": 1}}


def test_json_gives_scripts_the_checksums_and_nothing_else(command):
    done = command("run", "toy.waves", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert len(facts["checksums"]["height"]) == 64
    assert facts["status"] == "done"
    assert facts["peak_memory_bytes"] > 0
    assert done.stderr == ""


def test_an_order_file_gives_the_same_bytes_and_options_override_it(run, command, tmp_path):
    (tmp_path / "order.json").write_text(command("describe", "toy.waves", "--order").stdout)
    ordered = json.loads(command("run", "--order", "order.json", "--json").stdout)
    higher = json.loads(command("run", "--order", "order.json", "--json", "--amplitude", "5").stdout)
    assert ordered["checksums"] == run["checksums"]
    assert higher["checksums"]["height"] != run["checksums"]["height"]
    refused = command("run", "ocean.gridding", "--order", "order.json")
    assert refused.returncode == 2
    assert "is for the chain 'toy.waves'" in refused.stderr


def test_a_product_is_put_where_it_was_asked_and_not_over_another(command, tmp_path):
    assert command("run", "toy.waves", "--output", "waves.nc").returncode == 0
    assert (tmp_path / "waves.nc").is_file()
    again = command("run", "toy.waves", "--output", "waves.nc")
    assert again.returncode == 4
    assert "exists already" in again.stderr
    assert command("run", "toy.waves", "--output", "waves.nc", "--overwrite").returncode == 0


def test_a_chain_that_fails_gives_its_sentence_and_code_5(command):
    done = command("run", "toy.waves", "--fail", "defect", "--quiet")
    assert done.returncode == 5
    assert "the toy was told to fail" in done.stderr
    assert "phidias runs log" in done.stderr
    assert "Traceback" not in done.stderr
    assert "the toy was told to fail" in command("runs", "log", "last").stdout


def test_what_only_the_worker_can_find_out_keeps_its_own_exit_code(command):
    done = command("run", "toy.waves", "--fail", "input", "--quiet")
    assert done.returncode == 3
    assert "The wind has no sails. Give it some." in done.stderr


def test_a_worker_that_dies_without_a_word_is_said_to_be_interrupted(start, environment):
    process = start("run", "toy.waves", "--pieces", "100", "--wait", "0.3")
    worker = until(lambda: workers(environment))[0]
    until(lambda: list(Path(environment["PHIDIAS_RUNS"]).glob("*/work/*")) or None)
    worker.kill()
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 5
    assert "is interrupted: its process ended without a word" in said
    assert "phidias runs resume" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_and_leaves_nothing_half_written(number, code, start, environment, command, tmp_path):
    process = start("run", "toy.waves", "--pieces", "100", "--wait", "0.3", "--output", "waves.nc")
    until(lambda: list(Path(environment["PHIDIAS_RUNS"]).glob("*/work/*")) or None)
    assert workers(environment)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert "is cancelled; no product was written" in said
    assert "Traceback" not in said
    until(lambda: not workers(environment), 5)
    assert [p.name for p in tmp_path.iterdir() if "waves" in p.name] == []
    assert list(Path(environment["PHIDIAS_RUNS"]).glob("*/product*")) == []
    listed = json.loads(command("runs", "list", "--json").stdout)
    assert [run["status"] for run in listed] == ["cancelled"]


def test_a_detached_run_goes_on_when_the_command_has_ended(command):
    begun = json.loads(command("run", "toy.waves", "--detach", "--json", "--wait", "0.5").stdout)
    assert begun["status"] in ("waiting", "running")

    def state():
        return json.loads(command("runs", "show", begun["run"], "--json").stdout)["status"]

    until(lambda: state() == "done")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_whose_streams_are_closed_goes_to_its_end(environment, tmp_path, closed):
    words = f"{shlex.quote(sys.executable)} -m phidias_lab run toy.waves {closed}"
    done = subprocess.run(
        ["bash", "-c", words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ("Product" in done.stdout) == (closed == "2>&-")
    assert len(list(Path(environment["PHIDIAS_RUNS"]).glob("*/product/toy.waves.nc"))) == 1
    listed = subprocess.run(
        ["bash", "-c", f"{shlex.quote(sys.executable)} -m phidias_lab runs {closed}"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (listed.returncode, listed.stderr) == (0, "")


@pytest.mark.parametrize("words", [["--order", ""], ["--order="], ["--output", ""], ["--output", " "]])
@pytest.mark.parametrize("chain", [["toy.waves"], []])
def test_an_empty_order_or_output_is_refused_and_nothing_runs(command, environment, chain, words):
    done = command("run", *chain, *words)
    assert done.returncode == 2
    if chain or words[0].startswith("--order"):
        assert f"{words[0].strip('=')} was given an empty text" in done.stderr
    assert not list(Path(environment["PHIDIAS_RUNS"]).glob("*/order.json"))
