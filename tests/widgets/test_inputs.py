"""Choosing an input in a form: what may be written for files is said, and is opened."""

from __future__ import annotations

import numpy as np
import spectra_files

from phidias_lab.contract import Input
from phidias_lab.widgets.inputs import InputChooser


def test_several_files_of_a_format_are_one_input_by_a_pattern(tmp_path):
    for number in range(2):
        start = spectra_files.FIRST + np.timedelta64(number, "h")
        content, _ = spectra_files.granule(orbit=100 + number, start=start, seed=number)
        spectra_files.written(tmp_path, content, start)
    chooser = InputChooser("spectra", Input("cube", doc="spectra"))
    assert "S5P_????_L1B_RA_BD?_*.nc" in chooser.file.description
    chooser.set(str(tmp_path / "S5P_*_RA_BD7_*"))
    assert chooser.reference == {"file": str(tmp_path / "S5P_*_RA_BD7_*")}
    names, sizes = chooser.look()
    assert "radiance" in names
    assert (sizes["granule"], sizes["scanline"]) == (2, 24)
    chooser.file.value = str(tmp_path / "S5P_*_RA_BD8_*")
    assert chooser.look() == (None, {})
    assert f"No file in {tmp_path} is called S5P_*_RA_BD8_*. Check the pattern." in chooser.note.object
    assert "S5P" not in InputChooser("rows", Input("table", doc="rows")).file.description
