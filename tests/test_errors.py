"""What a user is told when something is wrong."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

import phidias_lab
from phidias_lab.errors import ParameterError


def test_a_notebook_shows_the_sentence_and_no_traceback(capsys):
    shell = InteractiveShell()
    shell.run_cell("import phidias_lab\nphidias_lab.run('ocean.griding')")
    shown = capsys.readouterr().out
    assert "UnknownNameError: There is no chain 'ocean.griding'. Did you mean 'ocean.gridding'" in shown
    assert "Traceback" not in shown
    assert "registry.py" not in shown
    shell.run_cell("1 / 0")  # other errors are shown as ever
    assert "Traceback" in capsys.readouterr().out


def test_what_a_value_is_has_the_right_article():
    with pytest.raises(ParameterError, match=r"got an int\.$"):
        phidias_lab.run(5)
    with pytest.raises(ParameterError, match=r"got a list\.$"):
        phidias_lab.run([])
