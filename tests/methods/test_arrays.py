"""One namespace for numpy, cupy and torch: the place that is chosen, and why."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from phidias_lab.errors import MissingExtraError, ParameterError
from phidias_lab.methods import arrays


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(arrays, "visible_gpus", lambda: 0)


def test_without_a_gpu_the_processor_is_taken_and_the_place_says_so(no_gpu):
    place = arrays.on("auto")
    assert (place.device, place.library) == ("cpu", "numpy")
    assert place.sentence == "No GPU is visible here, so it runs on the processor."


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(no_gpu):
    with pytest.raises(ParameterError, match=r"asked for, but none is visible here. Choose the device 'auto'"):
        arrays.on("cuda")


def test_a_gpu_without_a_library_for_it_is_said_and_the_processor_taken(monkeypatch):
    monkeypatch.setattr(arrays, "visible_gpus", lambda: 1)
    monkeypatch.setattr(arrays.util, "find_spec", lambda name: None)
    place = arrays.on("auto")
    assert place.device == "cpu"
    assert "A GPU is visible here, but neither cupy nor torch is installed (pip install" in place.sentence
    with pytest.raises(MissingExtraError, match=r"phidias-lab\[gpu\]"):
        arrays.on("cuda")


def test_unknown_devices_and_libraries_are_refused_with_the_nearest_name():
    with pytest.raises(ParameterError, match=r"'gpu'.*'cpu'"):
        arrays.on("gpu")
    with pytest.raises(ParameterError, match=r"'numpi'.*'numpy'"):
        arrays.on("cpu", "numpi")


def test_what_was_used_is_remembered_once(no_gpu, monkeypatch):
    monkeypatch.setattr(arrays, "_used", {})
    assert arrays.used() == []
    arrays.on("auto")
    arrays.on("auto")
    arrays.on("cpu")
    assert arrays.used() == [
        "No GPU is visible here, so it runs on the processor.",
        "The processor was asked for, so it runs there.",
    ]


def test_arrays_and_matrices_go_in_and_come_out_unchanged():
    place = arrays.on("cpu")
    given = np.arange(6.0)
    matrix = sparse.csr_array(np.eye(6) * 3)
    with place.active():
        result = place.get(place.matrix(matrix) @ place.put(given) + place.xp.sqrt(place.put(given)))
    np.testing.assert_array_equal(result, 3 * given + np.sqrt(given))


def test_neither_torch_nor_cupy_is_imported_with_the_package_or_for_the_processor():
    code = (
        "import sys, phidias_lab; from phidias_lab.methods import arrays; arrays.on('auto') if not arrays.visible_gpus() "
        "else arrays.on('cpu'); phidias_lab.chains(); sys.exit(bool({'torch', 'cupy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
