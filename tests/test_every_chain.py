"""Every installed chain, ours and a third party's, answers every question."""

from __future__ import annotations

import pytest

import phidias_lab
from phidias_lab.testing import questions

CHAINS = [chain_id for chain_id in phidias_lab.chains() if not chain_id.startswith("probe.")]
#: The other probe chains are made to fail, sleep or be killed.
CHAINS += ["probe.cube", "probe.table"]


@pytest.mark.parametrize("chain_id", CHAINS)
@pytest.mark.parametrize("question", questions.QUESTIONS)
def test_a_chain(question, chain_id, tmp_path):
    questions.ask(question, chain_id, tmp_path)


def test_the_questions_are_asked_of_every_chain_that_is_installed():
    assert set(CHAINS) == {c for c in phidias_lab.chains() if not c.startswith("probe.")} | {
        "probe.cube",
        "probe.table",
    }
    assert "ocean.gridding" in CHAINS
    assert len(questions.QUESTIONS) >= 9
