"""What columns of files are called in the lab."""

from __future__ import annotations

import pytest

from phidias_lab.methods.formats import vocabulary
from phidias_lab.testing.scenes import ocean


@pytest.mark.parametrize(
    ("label", "units", "code", "standard", "name", "ours"),
    [
        ("Temperature [degC]", "degC", "SDN:P01::TEMPPR01", "", "temperature", "degree_Celsius"),
        ("Temperature [C]", "C", "", "", "temperature", "degree_Celsius"),
        ("Water body salinity [per mille]", "per mille", "", "", "salinity", "1e-3"),
        ("Salinity", "dimensionless", "SDN:P01::PSLTZZ01", "", "salinity", "1e-3"),
        ("PSAL", "psu", "", "sea_water_salinity", "salinity", "1e-3"),
        ("DOXY", "micromole/kg", "", "moles_of_oxygen_per_unit_mass_in_sea_water", "oxygen", "umol kg-1"),
        ("Oxygen", "umol/l", "SDN:P01::DOXYZZXX", "", "oxygen_concentration", "umol L-1"),
        # Neither is converted when it is read, so the units are part of the name.
        ("Oxygen", "mg/l", "SDN:P01::DOXYZZXX", "", "oxygen_concentration_mg_l", "mg L-1"),
        ("Temperature", "K", "", "", "temperature_k", "K"),
        # Nothing is taken for what it is only called alike.
        ("Temperature of the air", "degC", "SDN:P01::CDTASS01", "", "temperature_of_the_air", "degree_Celsius"),
    ],
)
def test_a_column_is_known_by_code_standard_name_or_label(label, units, code, standard, name, ours):
    found, attributes = vocabulary.name_and_attributes(label, units, code, standard)
    assert (found, attributes["units"]) == (name, ours)


def test_a_code_that_is_a_standard_deviation_is_no_value_whatever_else_is_said():
    found, attributes = vocabulary.name_and_attributes(
        "Oxygen",
        "micromoles per kilogram",
        "SDN:P01::DOXMSDXX",
        "moles_of_oxygen_per_unit_mass_in_sea_water",
        "Concentration standard deviation of oxygen",
    )
    assert found == "oxygen_standard_deviation"
    assert "standard_name" not in attributes


def test_units_that_nobody_said_are_not_made_up():
    assert "units" not in vocabulary.name_and_attributes("Temperature", "")[1]


@pytest.mark.parametrize("name", ocean.VARIABLES)
def test_files_and_the_demo_lake_have_the_same_names_and_units(name):
    ours, demo = vocabulary.BY_NAME[name], ocean.VARIABLES[name]
    assert (ours.units, ours.standard_name) == (demo["units"], demo["standard_name"])
