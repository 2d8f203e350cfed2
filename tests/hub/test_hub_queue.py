"""The queue as the hub sees it: what Slurm says, what a hostile comment says, and a queue that says nothing."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from phidias_hub.queue import (
    Job,
    Mark,
    Queue,
    QueueSilent,
    end_in_words,
    never,
    read_exit,
    read_jobs,
    read_nodes,
    refusal_in_words,
    why_waiting,
)

T = "0123456789abcdef"


def test_an_answer_of_squeue_is_read():
    text = (
        f"{T}|12|alice|RUNNING|None|gpu1|1795260824|1795260844|phidias hub=h user=alice server= start=s\n"
        f"{T}|13|bob|PENDING|Resources|n/a|N/A|N/A|(null)\n"
    )
    jobs = read_jobs(text, T)
    assert jobs["12"].node == "gpu1"
    assert jobs["12"].start == 1795260824
    assert jobs["13"].pending
    assert jobs["13"].start is None
    assert jobs["13"].node == ""
    assert Mark.read(jobs["12"].comment) == Mark("h", "alice", "", "s")
    assert Mark.read(jobs["13"].comment) is None


def test_a_line_that_a_user_forged_in_a_comment_is_not_believed():
    """A comment may hold a newline; what follows looks like the end of somebody else's job."""
    text = (
        f"{T}|12|alice|RUNNING|None|cpu1|1|2|x\n"
        f"{T}|13|bob|RUNNING|None|cpu1|1|2|innocent\n12|alice|FAILED|None|cpu1|1|2|x\n|12|alice|FAILED|None|cpu1|1|2|x\n"
    )
    jobs = read_jobs(text, T)
    assert jobs.keys() == {"12", "13"}
    assert jobs["12"].state == "RUNNING"


def test_a_mark_survives_any_name_of_a_server():
    for name in ("", "my server", "a=b user=root", "né|w\nline", "%20"):
        mark = Mark("h", "alice", name, "s")
        assert Mark.read(str(mark)) == mark
        assert "\n" not in str(mark)
        assert "|" not in str(mark)


def test_an_answer_of_sinfo_is_read():
    nodes = read_nodes(
        "cpu1|cpu*|idle|0/8/0/8|16000|0|(null)|gpu:0|\n"
        "gpu1|gpu|mix|2/6/0/8|16000|4000|gpu:a100:2(S:0-1),shard:4|gpu:a100:1(IDX:0),shard:0|\n"
        "gpu2|gpu|down*|0/0/8/8|16000|0|gpu:2|gpu:0|\n"
        "gpu3|gpu|drain|0/8/0/8|16000|0|gpu:2|gpu:0|\nnonsense\n"
    )
    assert [(n.name, n.usable, n.cores_free, n.gpus, n.gpus_free) for n in nodes] == [
        ("cpu1", True, 8, 0, 0),
        ("gpu1", True, 6, 2, 1),
        ("gpu2", False, 0, 2, 2),
        ("gpu3", False, 8, 2, 2),
    ]
    assert nodes[0].partition == "cpu"
    assert nodes[1].memory_free_mib == 12000


def test_why_a_job_waits_is_said_in_plain_words():
    job = Job("1", "a", "PENDING", "Resources", start=1_700_000_600.0)
    assert "no node has enough room free now" in why_waiting(job)
    assert "expected to start at" in why_waiting(job, 1_700_000_000)
    assert "out of service" in why_waiting(Job("1", "a", "PENDING", "ReqNodeNotAvail, UnavailableNodes:gpu1"))
    assert "'Strange'" in why_waiting(Job("1", "a", "PENDING", "Strange"))
    assert never(job) is None
    assert "fewer hours" in never(Job("1", "a", "PENDING", "PartitionTimeLimit"))


def test_how_a_job_ended_is_said_in_plain_words():
    assert end_in_words(Job("1", "a", "OUT_OF_MEMORY"), None).startswith("it needed more memory")
    assert "Python of the environment is missing" in end_in_words(Job("1", "a", "FAILED"), 77)
    assert "longer knows" in end_in_words(None, None)
    said = refusal_in_words("sbatch: error: Batch job submission failed: Requested node configuration is not available")
    assert "ask for less" in said
    assert "sbatch:" not in said


def test_an_exit_code_is_read_as_a_shell_says_it():
    assert [read_exit(told) for told in ("0|\n", "19712|", "9", "77:0", "0:15", "", "n/a")] == [
        0,
        77,
        137,
        77,
        143,
        None,
        None,
    ]


FAKE = """#!/usr/bin/python3
import json, sys, time
folder = {folder!r}
with open(folder + "/asked", "a") as file:
    file.write("x")
say = json.load(open(folder + "/say.json"))
time.sleep(say.get("sleep", 0))
if say.get("fail"):
    sys.exit(say["fail"])
token = sys.argv[sys.argv.index("-o") + 1].split("|")[0]
for number, user, state in say["jobs"]:
    print(f"{{token}}|{{number}}|{{user}}|{{state}}|None|n1|1|2|x")
"""


@pytest.fixture
def fake(tmp_path):
    """A program that answers as squeue does; what it says stands in a file."""
    (tmp_path / "squeue").write_text(FAKE.format(folder=str(tmp_path)))
    (tmp_path / "squeue").chmod(0o755)

    def say(**what):
        (tmp_path / "new").write_text(json.dumps({"jobs": [], **what}))
        (tmp_path / "new").rename(tmp_path / "say.json")

    say()
    asked = lambda: len((tmp_path / "asked").read_text()) if (tmp_path / "asked").exists() else 0  # noqa: E731
    site = {"slurm": {"programs": str(tmp_path), "poll_seconds": 0.2, "query_timeout": 1}}
    return site, say, asked


def test_500_servers_cost_one_question(fake):
    site, say, asked = fake
    say(jobs=[(number, f"user{number}", "RUNNING") for number in range(1, 501)])

    async def look():
        queue = Queue(site)
        queue.start()
        queue.start()

        async def server(number):
            while not queue.asked:
                await queue.news(1)
            await queue.news(1)
            return queue.jobs[str(number)].state

        states = await asyncio.gather(*(server(number) for number in range(1, 501)))
        queue._task.cancel()
        return states, queue.questions

    states, questions = asyncio.run(look())
    assert states == ["RUNNING"] * 500
    assert questions <= 4
    assert asked() == questions


def test_a_machine_without_a_slurm_configuration_is_told_in_plain_words(fake, caplog):
    site, say, _ = fake
    say(
        fail="squeue: error: fetch_config: DNS SRV lookup failed\nsqueue: fatal: Could not establish a configuration source"
    )
    queue = Queue(site)
    asyncio.run(queue.ask())
    assert queue.silent.startswith("no Slurm is set up for this machine")
    assert "The queue does not answer: no Slurm is set up for this machine" in caplog.text
    assert "DNS" not in caplog.text


def test_500_servers_that_hurry_still_share_the_questions(fake):
    site, say, asked = fake
    say(jobs=[(1, "a", "RUNNING")])

    async def look():
        queue = Queue(site)
        begun = time.monotonic()
        for who in range(500):
            queue.hurry(who)
        while time.monotonic() - begun < 1:
            for who in range(500):
                queue.hurry(who)
            await queue.news(0.2)
        queue._task.cancel()

    asyncio.run(look())
    assert asked() <= 6


@pytest.mark.parametrize("silence", [{"fail": 1}, {"sleep": 3}], ids=["fails", "hangs"])
def test_a_queue_that_fails_or_hangs_makes_jobs_unknown_and_not_gone(fake, silence):
    site, say, _ = fake
    say(jobs=[(7, "alice", "RUNNING")])

    async def look():
        queue = Queue(site)
        queue.watch_for("7")
        await queue.ask()
        say(**silence)
        for _ in range(2):
            await queue.ask()
        return queue

    queue = asyncio.run(look())
    assert queue.silent
    assert not queue.absent("7")
    assert queue.jobs["7"].state == "RUNNING"


def test_a_job_is_gone_only_after_two_answers_without_it(fake):
    site, say, _ = fake

    async def look():
        queue, seen = Queue(site), []
        for jobs in ([(7, "alice", "RUNNING")], [], [(7, "alice", "RUNNING")], [], []):
            say(jobs=jobs)
            await queue.ask()
            seen.append(queue.absent("7"))
        return seen

    assert asyncio.run(look()) == [False, False, False, False, True]


def test_a_program_that_is_missing_is_a_silent_queue(tmp_path):
    queue = Queue({"slurm": {"programs": str(tmp_path)}})
    with pytest.raises(QueueSilent, match="cannot be started"):
        asyncio.run(queue.run([queue.program("squeue")]))


def test_a_hub_that_is_late_itself_does_not_call_the_queue_silent(fake):
    site, _, _ = fake

    async def look():
        question = asyncio.ensure_future(Queue(site).run(["/bin/sh", "-c", "sleep 0.5; echo answered"]))
        await asyncio.sleep(0.3)
        time.sleep(1.5)  # a crowd of log-ins, longer than the queue may take
        return await question

    assert asyncio.run(look()) == "answered\n"


@pytest.fixture
def without_sudo(monkeypatch):
    monkeypatch.setattr("phidias_hub.queue.sudo", lambda user, command: command)


def test_of_many_programs_under_accounts_a_few_run_at_once_and_the_rest_take_turns(tmp_path, without_sudo):
    program = tmp_path / "scancel"
    # Each notes at its start how many there are.
    program.write_text(
        f"#!/bin/sh\ncd {tmp_path}\necho >now-$$\nls | grep -c now- >>seen\nsleep 0.2\nrm now-$$\n", encoding="ascii"
    )
    program.chmod(0o755)

    async def cancel():
        queue = Queue({"slurm": {"programs": str(tmp_path)}})
        everybody = [asyncio.ensure_future(queue.cancel("alice", str(number))) for number in range(30)]
        await asyncio.sleep(0.1)
        crowded = queue.crowded
        await asyncio.gather(*everybody)
        return crowded, queue.crowded

    assert asyncio.run(cancel()) == (True, False)
    seen = [int(number) for number in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 30
    assert 2 <= max(seen) <= Queue.AT_ONCE


def test_who_waits_for_a_turn_hears_of_a_silent_queue_at_once(fake, without_sudo):
    site, say, _ = fake
    say(sleep=30)

    async def look():
        queue, begun = Queue(site), time.monotonic()
        asked = [queue.as_user("alice", str(number)) for number in range(40)]
        told = await asyncio.gather(queue.ask(), *asked, return_exceptions=True)
        return told[1:], time.monotonic() - begun

    told, seconds = asyncio.run(look())
    assert [type(answer) for answer in told] == [QueueSilent] * 40
    # Five turns one after the other would be five times the site's query_timeout of 1 s.
    assert seconds < 3.5


def test_nodes_are_asked_for_once_however_many_want_to_know(tmp_path):
    program = tmp_path / "sinfo"
    line = "cpu1|cpu*|idle|0/8/0/8|16000|0|(null)|gpu:0|"
    program.write_text(f"#!/bin/sh\necho asked >>{tmp_path}/asked\nsleep 0.2\necho '{line}'\n")
    program.chmod(0o755)

    async def look():
        queue = Queue({"slurm": {"programs": str(tmp_path)}})
        return await asyncio.gather(*(queue.nodes() for _ in range(500)))

    assert {nodes[0].name for nodes in asyncio.run(look())} == {"cpu1"}
    assert (tmp_path / "asked").read_text() == "asked\n"
