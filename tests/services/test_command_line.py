"""What every command has in common: what it imports, what it says when something is wrong, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from phidias_lab.services.command_line import main

HEAVY = ("numpy", "xarray", "pandas", "dask", "zarr", "intake", "panel", "shapely", "toy_waves")


@pytest.mark.parametrize("words", [["chains"], ["--help"], ["chains", "--json"]])
def test_listing_imports_no_chain_and_nothing_heavy(words, environment):
    program = (
        "import json, sys\n"
        "from phidias_lab.services.command_line import main\n"
        f"code = main({words!r})\n"
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    code, imported = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert imported == []
    assert ("toy.waves" in done.stdout) == (words[0] == "chains")


def test_chains_of_all_packages_are_listed_with_their_package(command):
    done = command("chains", "--json")
    assert done.returncode == 0
    found = {row["id"]: row["package"] for row in json.loads(done.stdout)}
    assert found["toy.waves"] == "toy-waves"
    assert found["ocean.gridding"] == "phidias-lab"


def test_a_broken_chain_is_shown_with_its_package_and_hides_no_other(command):
    done = command("chains", "--long")
    assert done.returncode == 0
    assert "Toy waves" in done.stdout
    assert "Variational gridding" in done.stdout
    broken = next(line for line in done.stderr.splitlines() if line.startswith("Broken:"))
    assert "toy.broken" in broken
    assert "toy-waves" in broken
    assert "a_module_that_nobody_has" in broken


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["chians"], 2, "Did you mean 'chains'?"),
        (["run", "ocean.griding"], 2, "Did you mean 'ocean.gridding'"),
        (["run"], 2, "phidias chains"),
        (["run", "toy.broken"], 2, "'toy-waves' cannot be imported"),
        (["run", "toy.waves", "--amplitud", "3"], 2, "Did you mean '--amplitude'"),
        (["run", "toy.waves", "--amplitude", "41"], 2, "from 0.5 to 40 m"),
        (["run", "toy.waves", "--amplitude", "nan"], 2, "expected a finite number"),
        (["run", "toy.waves", "--amplitude"], 2, "--amplitude"),
        (["run", "toy.waves", "--shape", "squar"], 2, "Did you mean 'square'?"),
        (["run", "toy.waves", "--input", "wind"], 2, "NAME=ENTRY"),
        (["run", "toy.waves", "--input", "wind=a.b"], 2, "There is no input 'wind'"),
        (["run", "toy.waves", "another"], 2, "another"),
        (["run", "--order", "nowhere.json"], 2, "nowhere.json cannot be read"),
        (["run", "toy.waves", "--output", "no/such/folder/waves.nc"], 4, "does not exist. Make it"),
        (["describe", "toy.wave"], 2, "Did you mean 'toy.waves'"),
        (["runs", "show", "nothing"], 2, "There is no run 'nothing'"),
        (["runs", "prune", "--older-than", "soon"], 2, "as in 30d"),
        (["rerun"], 2, "phidias rerun last"),
        (["rerun", "."], 4, "is not a product"),
        (["rerun", "no/such/folder"], 4, "There is no product at no/such/folder"),
        (["export", "last", "--as", "script"], 2, "There is no run yet"),
        (["export", "last"], 2, "--as"),
        (["lab", "--port", "99999"], 2, "65535"),
    ],
)
def test_bad_input_gets_one_sentence_and_an_exit_code(words, code, said, inside, capsys):
    assert main(words) == code
    shown = capsys.readouterr()
    assert shown.err.startswith("Error: ")
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["chians"], 2),
        (["run", "toy.waves", "--amplitude", "41"], 2),
        (["rerun", "no/such/folder"], 4),
        (["runs", "--help"], 0),
        (["describe", "toy.odd"], 70),
    ],
)
def test_the_shell_sees_the_exit_code(words, code, command, environment, tmp_path):
    whole = [sys.executable, "-m", "phidias_lab", *words]
    done = subprocess.run(whole, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == code
    # What the other tests see comes from a process that has imported everything before.
    seen = command(*words)
    assert (seen.returncode, seen.stdout, seen.stderr) == (code, done.stdout, done.stderr)


def test_a_command_that_does_not_end_is_killed_and_its_output_kept(command):
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        command("run", "toy.waves", "--pieces", "100", "--wait", "0.5", timeout=10)
    assert "toy.waves" in caught.value.stderr
    assert "is cancelled" in command("runs", "cancel", "last").stdout
    assert command("chains", timeout=60).returncode == 0


@pytest.mark.parametrize("words", [["--debug", "describe", "toy.broken"], ["describe", "toy.broken", "--debug"]])
def test_debug_shows_where_an_error_came_from(words, command):
    done = command(*words)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_a_defect_is_one_sentence_and_code_70(command):
    done = command("describe", "toy.odd")
    assert done.returncode == 70
    assert done.stderr.startswith("Error: phidias_lab met ZeroDivisionError")
    assert "Traceback" not in done.stderr
    assert "--debug" in done.stderr


def test_a_full_disk_is_said_and_is_no_defect(environment):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "phidias_lab", "chains"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_gets_no_complaint(environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "phidias_lab", "describe", "toy.waves"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 141
    assert said == ""


def test_the_order_that_describe_prints_holds_every_default(command):
    done = command("describe", "toy.waves", "--order")
    order = json.loads(done.stdout)
    assert order["chain"] == "toy.waves"
    assert order["version"] == "2.0"
    assert order["parameters"]["amplitude"] == 2.0
    assert order["parameters"]["fail"] == "no"


def test_describe_tells_parameters_outputs_and_needs(command):
    said = command("describe", "toy.waves").stdout
    for word in ("amplitude", "from 0.5 to 40 m", "Height of a crest", "height of the surface", "1.0 GiB"):
        assert word in said
    declared = json.loads(command("describe", "toy.waves", "--json").stdout)
    assert declared["parameters"]["wait"]["level"] == "expert"
    assert json.loads(command("describe", "toy.waves", "--schema").stdout)["properties"]["amplitude"]["maximum"] == 40.0


@pytest.mark.parametrize("columns", ["80", "120", "", "5000"])
def test_a_declaration_is_as_wide_as_the_terminal_and_no_word_of_it_is_cut(command, columns):
    said = command("describe", "ocean.gridding", COLUMNS=columns).stdout
    widest = {"": 80, "5000": 120}.get(columns, int(columns or 0))
    assert max(map(len, said.splitlines())) <= widest
    declared = json.loads(command("describe", "ocean.gridding", "--json").stdout)
    plain = " ".join(said.split())
    for part in ("parameters", "inputs", "outputs"):
        for name in declared[part]:
            assert f"\n{name} " in said
    for word in ("'probably_good'", "200000.0 m", "ocean.north_east_atlantic", "[degrees_north]"):
        assert word in plain
    words = set(plain.split())
    for parameter in declared["parameters"].values():
        assert set(parameter["doc"].split()) <= words, parameter["name"]
    assert "{" not in said
    assert "the units of the variable chosen" in command("describe", "ocean.gridding", COLUMNS="120").stdout


@pytest.mark.parametrize("words", [[], ["catalog"], ["lake"]])
def test_a_group_named_alone_says_what_it_can_do(command, words):
    done = command(*words)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: phidias")
    assert "Commands:" in done.stdout
    assert done.stderr == ""
