"""Every input that cannot be analysed is refused with a sentence that names it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from phidias_lab.errors import InputError, ParameterError
from phidias_lab.methods.variational import analyse

SHAPE = (5, 4)
SEA = 20


def pieces() -> dict:
    return {
        "mask": np.ones(SHAPE, bool),
        "metrics": [np.full(SHAPE, 4.0), np.full(SHAPE, 3.0)],
        "coords": [np.linspace(0, 1, 5), np.linspace(0, 1, 4)],
        "obs_coords": [np.array([0.2, 0.6, 0.7]), np.array([0.3, 0.4, 0.8])],
        "values": np.array([1.0, -1.0, 0.5]),
        "length": 0.3,
        "noise": 0.1,
    }


def with_entry(value, shape=SHAPE):
    array = np.ones(shape)
    array.flat[3] = value
    return array


REFUSED = [
    ({"mask": np.zeros(SHAPE, bool)}, InputError, "no sea node"),
    ({"mask": np.full(SHAPE, 0.5)}, InputError, "not boolean"),
    ({"mask": True}, InputError, "single value"),
    ({"metrics": [np.ones(SHAPE)]}, InputError, "1 metrics were given for a mask of 2"),
    ({"metrics": [np.ones(SHAPE), np.ones((4, 5))]}, InputError, r"metric of dimension 1 has the shape \(4, 5\)"),
    ({"metrics": [np.ones(SHAPE), with_entry(-1)]}, InputError, "metric of dimension 1 is not positive"),
    ({"metrics": [with_entry(np.nan), 1.0]}, InputError, "metric of dimension 0 is not positive"),
    ({"length": 0.3 - 0.6}, ParameterError, "length of dimension 0 is not positive"),
    ({"length": [0.3, with_entry(0)]}, ParameterError, "length of dimension 1 is not positive"),
    ({"length": [0.3, with_entry(np.nan)]}, ParameterError, "length of dimension 1 is not positive"),
    ({"length": [0.3, np.inf]}, ParameterError, "length of dimension 1 is not positive"),
    ({"length": [0.3]}, InputError, "1 lengths were given for a mask of 2"),
    ({"length": np.ones((3, 3))}, InputError, "3 lengths were given"),
    ({"length": [0.3, np.ones((3, 3))]}, InputError, "length of dimension 1 has the shape"),
    ({"coords": [np.linspace(0, 1, 5)]}, InputError, "1 coordinates were given"),
    ({"coords": [np.linspace(0, 1, 6), np.linspace(0, 1, 4)]}, InputError, "coordinate of dimension 0 has the shape"),
    ({"coords": [np.array([0, 1, 1, 2, 3]), np.linspace(0, 1, 4)]}, InputError, "neither rises nor falls"),
    ({"coords": [np.linspace(0, 1, 5), np.array([0, np.nan, 2, 3])]}, InputError, "neither rises nor falls"),
    ({"coords": [np.random.default_rng(0).random(SHAPE), np.arange(4)]}, InputError, "changes along other dimensions"),
    ({"obs_coords": [np.ones(3)]}, InputError, "Observations have 1 coordinates"),
    ({"obs_coords": [np.ones(3), np.ones(2)]}, InputError, "vectors of equal length"),
    ({"obs_coords": [np.ones(3), [0.1, np.nan, 0.2]]}, InputError, "1 of 3 entries of observation coordinate 1"),
    ({"values": np.ones(2)}, InputError, "vectors of equal length"),
    ({"values": [1.0, np.nan, np.inf]}, InputError, "2 of 3 entries of values are not finite"),
    ({"noise": 0.0}, ParameterError, "not positive"),
    ({"noise": [0.1, -0.1, 0.1]}, ParameterError, "not positive"),
    ({"noise": np.nan}, ParameterError, "not positive"),
    ({"noise": [0.1, 0.1]}, ParameterError, "noise has 2 values, but 3 are needed"),
    ({"noise": np.eye(2)}, ParameterError, "matrix of 3 x 3"),
    ({"noise": np.ones((3, 3, 3))}, ParameterError, "matrix of 3 x 3"),
    ({"noise": sparse.eye_array(4)}, ParameterError, "matrix of 3 x 3"),
    ({"noise": np.diag([1, np.inf, 1])}, ParameterError, "not finite"),
    ({"noise": np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]])}, ParameterError, "not symmetric"),
    ({"noise": np.diag([1.0, -1.0, 1.0])}, ParameterError, "not positive on its diagonal"),
    ({"noise": np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1.0]])}, ParameterError, "not positive definite"),
    ({"alpha": [1, -2, 1]}, ParameterError, "from 0 up"),
    ({"alpha": []}, ParameterError, "from 0 up"),
    ({"alpha": [0, 0, 0]}, ParameterError, "from 0 up"),
    ({"alpha": [1, np.nan, 1]}, ParameterError, "from 0 up"),
    ({"alpha": [1, 1, 0]}, ParameterError, "no finite variance"),
    ({"alpha": [0, 2, 1], "obs_coords": [[9.0] * 3, [9.0] * 3]}, InputError, "1 of 1 areas have no observation"),
    ({"cyclic": [1.0]}, ParameterError, "a period for each dimension"),
    ({"cyclic": [-1.0, 0]}, ParameterError, "a period for each dimension"),
    ({"cyclic": [1.0, 0]}, InputError, "not less than its period"),
    ({"velocity": np.ones(SHAPE)}, InputError, "velocity needs one array per dimension"),
    ({"velocity": 1.0}, InputError, "velocity needs one array per dimension"),
    ({"velocity": [np.ones(SHAPE), np.ones(3)]}, InputError, "velocity along dimension 1 has the shape"),
    ({"velocity": [np.ones(SHAPE), with_entry(np.nan)]}, InputError, "dimension 1 is not finite on 1 sea nodes"),
    ({"constraints": 3}, InputError, "constraints is not a list"),
    ({"constraints": [(np.ones((1, SEA)), 1.0)]}, InputError, r"not a triple \(C, Q, z\)"),
    ({"constraints": [("words", 1.0, 0)]}, InputError, "C is not a matrix"),
    ({"constraints": [(np.ones((1, SEA - 1)), 1.0, 0)]}, InputError, "20 sea nodes"),
    ({"constraints": [(np.ones((2, SEA)), 1.0, [1, 2, 3])]}, InputError, "z has the shape"),
    ({"constraints": [(np.ones((2, SEA)), 1.0, np.nan)]}, InputError, "not finite"),
    ({"constraints": [(np.full((2, SEA), np.inf), 1.0, 0)]}, InputError, "not finite"),
    (
        {"constraints": [(np.ones((2, SEA)), 0.0, 0)]},
        ParameterError,
        "Constraint 0: Q has values that are not positive",
    ),
    ({"edge_stretch": -1}, ParameterError, "edge_stretch is -1"),
    ({"edge_stretch": "wide"}, ParameterError, "edge_stretch is 'wide'"),
    ({"error": "cpme"}, ParameterError, "no error estimate 'cpme'.*exact"),
]


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"), REFUSED, ids=[f"{i}-{r[2][:32]}" for i, r in enumerate(REFUSED)]
)
def test_what_cannot_be_analysed_is_refused(changes, kind, sentence):
    with pytest.raises(kind, match=sentence) as caught:
        analyse(**(pieces() | changes))
    # What was given or expected, and what to do next: at least two sentences.
    assert str(caught.value).rstrip(".").count(". ") >= 1


def test_the_pieces_themselves_can_be_analysed():
    assert np.isfinite(analyse(**pieces()).field).all()


def test_the_seminorm_is_refused_where_one_of_two_seas_has_no_observation():
    p = pieces() | {"alpha": [0, 2, 1], "obs_coords": [[0.0] * 3, [0.3, 0.4, 0.8]]}
    p["mask"] = p["mask"].copy()
    p["mask"][2] = False
    with pytest.raises(InputError, match="1 of 2 areas"):
        analyse(**p)
    # A flow sees gradients only, so it fixes no level either; a constraint on a value does.
    with pytest.raises(InputError, match="1 of 2 areas"):
        analyse(**p, velocity=[np.random.default_rng(0).standard_normal(SHAPE)] * 2)
    mean = np.zeros((1, 16))
    mean[0, 8:] = 1 / 8
    assert analyse(**p, constraints=[(mean, 1e-9, 7.0)]).field[4, 0] == pytest.approx(7.0, abs=1e-3)
