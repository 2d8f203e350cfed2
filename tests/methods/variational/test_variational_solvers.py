"""The solvers by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from phidias_lab.errors import InputError, MissingExtraError, ParameterError
from phidias_lab.methods.variational import analyse, grid, solvers, variance


def test_every_installed_solver_gives_the_same_field_and_error(problem, difference):
    p = problem((12, 11), flow=True)
    reference = analyse(**p, error="exact", solver="splu")
    for name in solvers.available():
        result = analyse(**p, error="exact", solver=name)
        assert result.solver == name
        assert difference(result.field, reference.field) < 1e-9
        assert difference(result.error_variance, reference.error_variance) < 1e-9


def test_two_independent_solvers_are_always_there():
    assert {"multifrontal", "splu"} <= set(solvers.available())


PLENTY = 1e15


def test_the_error_takes_our_own_factor_and_says_what_it_needs():
    found = solvers.choose((500, 500), room=PLENTY)
    assert found.name == "multifrontal"
    # What the whole process took beyond its start at this size (docs/decisions/0012).
    assert found.memory == pytest.approx(620e6, rel=0.25)
    assert "250000 nodes are solved at once by multifrontal" in found.sentence
    assert "may not fit" not in found.sentence
    tight = solvers.choose((500, 500), room=1e8)
    assert tight.name == "multifrontal"
    assert "It may not fit: choose a smaller region" in tight.sentence
    assert "the field without its error takes about 0.3" in tight.sentence


def test_the_field_alone_takes_the_fastest_direct_solver_that_fits_and_else_none(monkeypatch):
    monkeypatch.setattr(solvers.arrays, "visible_gpus", lambda: 0)
    monkeypatch.setattr(solvers, "available", lambda: ("multifrontal", "splu", "iterative"))
    assert solvers.choose((500, 500), exact=False, room=PLENTY).name == "multifrontal"
    assert solvers.choose((500, 500), exact=False, room=5e8).name == "iterative"
    monkeypatch.setattr(solvers, "available", lambda: ("multifrontal", "splu", "pardiso", "iterative"))
    assert solvers.choose((500, 500), exact=False, room=PLENTY).name == "pardiso"
    monkeypatch.setattr(solvers.arrays, "visible_gpus", lambda: 1)
    monkeypatch.setattr(solvers, "find_spec", lambda name: name == "torch" or None)
    assert solvers.choose((500, 500), exact=False, room=PLENTY).name == "iterative"
    assert solvers.choose((50, 50), exact=False, room=PLENTY).name == "pardiso"


def test_the_memory_that_is_predicted_grows_as_the_factor_does():
    plane, space = solvers.memory("multifrontal", (1000, 1000)), solvers.memory("multifrontal", (60, 60, 20))
    assert 4 < plane / solvers.memory("multifrontal", (500, 500)) < 5
    assert space == pytest.approx(2.5e9, rel=0.25)
    assert solvers.memory("iterative", (1000, 1000)) < plane / 1.5


def test_what_a_control_group_leaves_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(solvers, "_GROUPS", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert solvers.free_memory() == 2e6
    (tmp_path / "memory.max").write_text("max\n")
    assert solvers.free_memory() > 2e6


def test_superlu_solves_on_one_thread_of_the_blas():
    factor = solvers.SuperLU(sparse.eye_array(4).tocsr())
    factorised, seen = factor.lu, []

    class Watched:
        def solve(self, right):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return factorised.solve(right)

    factor.lu = Watched()
    with threadpool_limits(2):
        np.testing.assert_array_equal(factor.solve(np.ones(4)), np.ones(4))
    assert set(seen) == {1}


def test_an_unknown_solver_is_refused_with_the_nearest_name(problem):
    with pytest.raises(ParameterError, match=r"no solver 'spul'.*'splu'"):
        analyse(**problem((5, 4)), solver="spul")


def test_a_solver_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(solvers, "available", lambda: ("splu",))
    with pytest.raises(MissingExtraError, match=r"phidias-lab\[ocean\]"):
        solvers.check("pardiso")
    with pytest.raises(ParameterError, match=r"needs the package 'scikit-sparse<0.5'"):
        solvers.check("cholmod")


@pytest.mark.parametrize("name", solvers.available())
def test_a_singular_system_is_refused(name):
    # Free level: rows sum to zero.
    chain = sparse.diags_array([[-1.0] * 4, [1.0, 2, 2, 2, 1], [-1.0] * 4], offsets=[-1, 0, 1]).tocsr()
    line, right = grid.build(np.ones(5, bool), [1.0], [1.0], ()), np.ones(5)
    with pytest.raises(InputError, match="no unique solution"):
        solvers.solve(solvers.factorise(chain, solvers.Places(line, np.array([1])), name), chain, right)


def test_the_error_variance_does_not_depend_on_the_size_of_a_block(problem, monkeypatch):
    p = problem((9, 8))
    whole = analyse(**p, error="exact", solver="splu").error_variance
    monkeypatch.setattr(variance, "BLOCK_BYTES", 8 * 71 * 7)
    np.testing.assert_allclose(analyse(**p, error="exact", solver="splu").error_variance, whole, rtol=1e-13)
