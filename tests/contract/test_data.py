"""The check of inputs at the door: kinds, variables, dimensions, units."""

from __future__ import annotations

import shlex
import subprocess
import sys

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from phidias_lab.contract.data import (
    Input,
    Var,
    check_input,
    choose_variable,
    column_attributes,
    converter,
    explanation,
    flags,
    same_units,
    with_attributes,
)
from phidias_lab.errors import InputError, ParameterError


def cube(units="degree_Celsius", **more) -> xr.Dataset:
    values = da.from_array(np.array([[0.0, 10.0, np.nan]]), chunks=(1, 2))
    return xr.Dataset(
        {"temperature": (("time", "longitude"), values, {"units": units, "standard_name": "t"})},
        coords={"longitude": ("longitude", [0.0, 1.0, 2.0], {"units": "degreeE"}), "time": [0]},
        **more,
    )


WARM = Input("cube", dims=("time", "longitude"), variables={"temperature": Var("K", doc="the water's")})


def test_temperatures_are_converted_with_their_offset_and_stay_lazy():
    given_ = cube()
    checked = check_input("field", WARM, given_)
    assert checked["temperature"].chunks == ((1,), (2, 1))
    np.testing.assert_allclose(checked["temperature"], [[273.15, 283.15, np.nan]])
    assert checked["temperature"].attrs == {"units": "K", "standard_name": "t"}
    assert given_["temperature"].attrs["units"] == "degree_Celsius"
    np.testing.assert_array_equal(given_["temperature"], [[0.0, 10.0, np.nan]])


@pytest.mark.parametrize(
    ("given_", "declared", "value", "expected"),
    [
        ("degF", "degree_Celsius", 212.0, 100.0),
        ("K", "degC", 273.15, 0.0),
        ("km", "m", 2.0, 2000.0),
        ("m s-1", "cm s-1", 1.5, 150.0),
        ("mg m-3", "kg m-3", 1.0, 1e-6),
        ("umol kg-1", "mol kg-1", 2.0, 2e-6),
        ("W m-2", "mW m^-2", 1.0, 1000.0),
        ("kg m-2 s-1", "g m-2 h-1", 1.0, 3.6e6),
        ("m2", "cm2", 1.0, 1e4),
        ("%", "1", 50.0, 0.5),
        ("g kg-1", "1e-3", 35.0, 35.0),
        ("1", "1e-3", 0.035, 35.0),
        ("dbar", "Pa", 1.0, 1e4),
        ("hPa", "Pa", 1013.0, 101300.0),
    ],
)
def test_units_convert_as_udunits_writes_them(given_, declared, value, expected):
    assert converter(given_, declared)(value) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("a", "b"),
    [("PSU", "1e-3"), ("degree_east", "degrees_east"), ("metres", "m"), ("", "1"), (" m ", "m"), ("°C", "°C")],
)
def test_spellings_of_the_same_unit_need_no_conversion(a, b):
    assert same_units(a, b)
    assert converter(a, b) is None


@pytest.mark.parametrize(
    ("given_", "declared"),
    [
        ("m", "s"),
        ("???", "m"),
        ("degrees_north", "m"),
        ("days since 1950-01-01", "s"),
        ("2 m", "m"),
        ("(", "m"),
        ("K", "nonsense"),
        ("Gm99", "m99"),
    ],
)
def test_units_that_do_not_convert_are_refused(given_, declared):
    with pytest.raises(InputError, match="units"):
        converter(given_, declared)


@pytest.mark.parametrize(
    "units",
    [
        "9**9**9**9 m",
        "9^9^9^9 m",
        "(((9**99)**99)**99)**99 m",
        "9⁹⁹⁹⁹⁹⁹⁹⁹⁹ m",
        "9**(9**9**9) m",
        "9**999999999 m",
        "((((((9**99 cubed) cubed) cubed) cubed) cubed) cubed) m",
        "9 ** + 9 ** 9 m",
        "m" + " m m-1" * 5000,
        "Gm99 Gm-98",
    ],
)
def test_powers_that_no_unit_has_are_refused_before_they_are_computed(units):
    # In a process of its own, which can be stopped: Python computes a power in one step that no signal interrupts.
    program = (
        "import sys\nfrom phidias_lab.contract.data import converter\nfrom phidias_lab.errors import InputError\n"
        "try:\n    print(converter(sys.argv[1], 's'))\nexcept InputError as error:\n    print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, units], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("refused: units"), done.stderr
    assert len(done.stdout) < 250


@pytest.mark.parametrize("units", ["kg m-2 s-1", "(m s-1)^2", "m²", "mol m^-3", "Hz**0.5", "degC2 m-1"])
def test_powers_that_units_have_are_read(units):
    with pytest.raises(InputError, match="do not convert"):
        converter(units, "mol")


@given(st.text(max_size=12))
def test_whatever_stands_in_a_units_attribute_is_converted_or_refused(units):
    try:
        convert = converter(units, "m")
        assert convert is None or np.isfinite(convert(1.0))
    except InputError:
        pass


def test_wrong_units_of_a_file_name_the_input_and_the_variable():
    with pytest.raises(InputError, match=r"'field', variable 'temperature': units 'm' .*Correct its units"):
        check_input("field", WARM, cube("m"))


def test_units_of_a_coordinate_are_checked_and_it_stays_a_coordinate():
    wanted = Input("cube", variables={"longitude": Var("radian")})
    given_ = cube().assign_coords(longitude=("longitude", [0.0, 90.0, 180.0], {"units": "degree"}))
    checked = check_input("field", wanted, given_)
    assert "longitude" in checked.coords
    np.testing.assert_allclose(checked["longitude"], [0, np.pi / 2, np.pi])
    assert checked.indexes["longitude"][1] == pytest.approx(np.pi / 2)


def test_dates_with_units_in_their_attributes_are_left_alone():
    wanted = Input("cube", variables={"time": Var("s")})
    times = cube().assign_coords(time=pd.to_datetime(["2010-01-01"]))
    times["time"].attrs["units"] = "somehow"
    assert check_input("field", wanted, times)["time"].dtype.kind == "M"


def test_a_missing_variable_offers_the_nearest_name():
    with pytest.raises(
        InputError, match=r"'field' has no variable 'temperature'.*the water's.*Did you mean 'temperatur'"
    ):
        check_input("field", WARM, cube().rename(temperature="temperatur"))


def test_an_optional_variable_may_be_missing():
    wanted = Input("cube", variables={"quality": Var("1", optional=True)})
    assert check_input("field", wanted, cube()).identical(cube())


def test_a_missing_or_empty_dimension_is_named():
    with pytest.raises(InputError, match=r"no dimension 'time'; it has longitude"):
        check_input("field", WARM, cube().isel(time=0))
    with pytest.raises(InputError, match=r"'field' is empty along 'longitude'"):
        check_input("field", WARM, cube().isel(longitude=slice(0, 0)))


def test_an_array_is_the_cube_of_its_one_variable():
    checked = check_input("field", WARM, cube()["temperature"].rename(None))
    np.testing.assert_allclose(checked["temperature"][0, 1], 283.15)


@pytest.mark.parametrize(
    "wrong", [pd.DataFrame({"temperature": [1.0]}), [1, 2], "text", np.zeros(3)], ids=lambda w: type(w).__name__
)
def test_what_is_no_cube_is_refused_by_its_type(wrong):
    with pytest.raises(InputError, match=f"'field' must be a cube .* but is a {type(wrong).__name__}"):
        check_input("field", WARM, wrong)


ROWS = Input("table", variables={"temperature": Var("K", doc="the water's"), "quality": Var("1", optional=True)})


def table(**more) -> pd.DataFrame:
    rows = pd.DataFrame({"temperature": [0.0, 10.0], "depth": [1, 2], **more})
    rows.attrs["columns"] = {"temperature": {"units": "degree_Celsius", "standard_name": "t"}, "depth": {"units": "m"}}
    return rows


@pytest.mark.parametrize("partitions", [None, 2])
def test_columns_are_converted_and_keep_the_attributes_of_all_columns(partitions):
    given_ = table()
    if partitions:
        attrs = given_.attrs
        given_ = dd.from_pandas(given_, npartitions=partitions)
        given_.attrs = attrs
    checked = check_input("rows", ROWS, given_)
    assert hasattr(checked, "compute") is bool(partitions)
    assert list(checked["temperature"]) == [273.15, 283.15]
    assert column_attributes(checked) == {"temperature": {"units": "K", "standard_name": "t"}, "depth": {"units": "m"}}
    assert column_attributes(given_)["temperature"]["units"] == "degree_Celsius"
    assert list(given_["temperature"]) == [0.0, 10.0]


def test_a_table_without_units_is_taken_as_declared():
    plain = pd.DataFrame({"temperature": [1.0]})
    assert check_input("rows", ROWS, plain).equals(plain)


def test_a_missing_column_offers_the_nearest_name():
    with pytest.raises(InputError, match=r"'rows' has no column 'temperature'.*Did you mean 'temprature'"):
        check_input("rows", ROWS, table().rename(columns={"temperature": "temprature"}))


PLACES = Input(
    "table",
    variables={
        "longitude": Var("degrees_east", standard_name="longitude"),
        "latitude": Var("degrees_north", standard_name="latitude"),
        "time": Var(standard_name="time"),
    },
)


@pytest.mark.parametrize(
    ("longitude", "latitude", "time"),
    [
        ("lon", "lat", "TIME"),
        ("Longitude", "LATITUDE", "date"),
        ("x", "y", "Date/Time"),
        ("Longitude [deg]", "Lat", "t"),
    ],
)
def test_a_column_under_another_name_is_not_guessed_but_the_option_is_given(longitude, latitude, time):
    rows = pd.DataFrame({longitude: [1.0], latitude: [50.0], time: [pd.Timestamp("2012-05-31")]})
    with_attributes(rows, {"columns": {"t": {"standard_name": "time"}}})
    with pytest.raises(InputError, match="no column 'longitude'") as refused:
        check_input("places", PLACES, rows)
    said = str(refused.value)
    words = shlex.split(said[said.index("FILE") : said.index("  and give that entry.")])
    assert words == [
        "FILE",
        *("--column", f"{longitude}=longitude"),
        *("--column", f"{latitude}=latitude"),
        *("--column", f"{time}=time"),
    ]


def test_a_variable_under_another_name_is_offered_too():
    with pytest.raises(
        InputError, match=r"no such variable.*'TEMP' looks like 'temperature'.*--column TEMP=temperature"
    ):
        choose_variable("variable", "temperature", "rows", pd.DataFrame({"TEMP": [1.0]}))


@pytest.mark.parametrize("partitions", [None, 1, 2])
def test_times_that_are_texts_are_taken_as_utc(partitions):
    rows = pd.DataFrame({"longitude": [1.0, 2.0], "latitude": [50.0, 51.0]})
    rows["time"] = ["2012-05-31", "2012-05-31T12:00:00+02:00"]
    given_ = dd.from_pandas(rows, npartitions=partitions) if partitions else rows
    checked = check_input("places", PLACES, given_)
    assert checked.dtypes["time"].kind == "M"
    assert list(checked["time"]) == [pd.Timestamp("2012-05-31"), pd.Timestamp("2012-05-31T10:00")]
    assert list(rows["time"]) == ["2012-05-31", "2012-05-31T12:00:00+02:00"]


@pytest.mark.parametrize("wrong", ["yesterday", "31.05.2012", 20120531])
def test_a_time_that_is_none_is_refused_with_its_row(wrong):
    rows = pd.DataFrame({"longitude": [1.0, 2.0], "latitude": [50.0, 51.0]})
    rows["time"] = ["2012-05-31", wrong] if isinstance(wrong, str) else [wrong, wrong]
    row = 2 if isinstance(wrong, str) else 1
    for given_ in (rows, dd.from_pandas(rows, npartitions=1)):
        with pytest.raises(InputError, match=rf"column 'time' holds '{wrong}' in row {row}"):
            list(check_input("places", PLACES, given_)["time"])


def test_a_column_of_texts_is_refused_where_numbers_are_needed():
    with pytest.raises(InputError, match=r"column 'temperature' holds .*numbers in K"):
        check_input("rows", ROWS, table(temperature=["a", "b"]))


def test_numbers_that_may_be_missing_are_numbers():
    rows = table()
    rows["temperature"] = pd.array([1, None], dtype="Int64")
    assert check_input("rows", ROWS, rows)["temperature"][0] == pytest.approx(274.15)


def test_wrong_units_of_a_column_name_the_input_and_the_column():
    rows = table()
    rows.attrs["columns"]["temperature"]["units"] = "m"
    with pytest.raises(InputError, match=r"'rows', column 'temperature': units 'm'"):
        check_input("rows", ROWS, rows)


@pytest.mark.parametrize("wrong", [cube(), [1, 2], {"temperature": [1.0]}], ids=lambda w: type(w).__name__)
def test_what_is_no_table_is_refused_by_its_type(wrong):
    with pytest.raises(InputError, match=f"'rows' must be a table .* but is a {type(wrong).__name__}"):
        check_input("rows", ROWS, wrong)


def test_a_kind_that_does_not_exist_is_refused_where_it_is_declared():
    with pytest.raises(ParameterError, match="not 'cubes'"):
        Input("cubes")


def test_only_measured_numbers_can_be_the_variable_that_a_chain_works_on():
    import numpy as np
    import pandas as pd
    import xarray as xr

    from phidias_lab.contract.data import measured

    table = pd.DataFrame(
        {
            **{name: [1, 2] for name in ("observation_id", "salinity_qc", "no2_flag", "good", "tile")},
            **{name: [1.0, 2.0] for name in ("longitude", "lat", "depth", "salinity", "leaf_area_index", "place_x")},
            **{"time": pd.to_datetime(["2012-01-01"] * 2), "platform": ["a", "b"], "id": [1, 2]},
        }
    )
    table.attrs["columns"] = {
        "good": {"standard_name": "sea_water_salinity status_flag"},
        "place_x": {"standard_name": "projection_x_coordinate"},
    }
    assert measured(table) == ["salinity", "leaf_area_index"]
    cube = xr.Dataset({"v": ("time", [1.0]), "v_qc": ("time", [1]), "time_bounds": (("time", "two"), np.zeros((1, 2)))})
    assert measured(cube) == ["v"]


@pytest.mark.parametrize(("asked", "said"), [("salinty", "no such variable"), ("salinity_qc", "no measurements")])
def test_a_variable_that_cannot_be_meant_is_refused_with_the_measured_ones(asked, said):
    import pandas as pd

    from phidias_lab.contract.data import choose_variable

    table = pd.DataFrame({"salinity": [35.0], "salinity_qc": [1], "observation_id": [7]})
    choose_variable("variable", "salinity", "observations", table)
    with pytest.raises(InputError, match=said) as caught:
        choose_variable("variable", asked, "observations", table)
    assert str(caught.value).endswith("Did you mean 'salinity'?")


def test_the_standard_error_of_a_variable_is_the_one_that_says_so():
    from phidias_lab.contract.data import standard_error_of

    def cube(**attributes):
        made = {name: ("x", np.ones(2), told) for name, told in attributes.items()}
        return xr.Dataset({"v": ("x", np.ones(2), {"standard_name": "sst"}), **made})

    modifier = {"standard_name": "sst standard_error"}
    assert standard_error_of(cube(), "v") is None
    assert standard_error_of(cube(deviation={"standard_name": "sst"}, error_of_all={}), "v") is None
    assert standard_error_of(cube(v_error={}), "v") == "v_error"
    assert standard_error_of(cube(sigma=modifier, deviation={}), "v") == "sigma"
    two = cube(sigma=modifier, other=modifier)
    assert standard_error_of(two, "v") is None, "which of the two, nobody says"
    two["v"].attrs["ancillary_variables"] = "count other"
    assert standard_error_of(two, "v") == "other"
    other = cube(sigma=modifier)
    other["sigma"] = ("y", np.ones(3), modifier)
    assert standard_error_of(other, "v") is None, "of another grid"


def test_what_explains_a_residual_is_read_from_its_attribute():
    written = "amplitude: strength template: signature snr: strength_snr"
    terms = {"amplitude": "strength", "template": "signature", "snr": "strength_snr"}
    assert explanation({"explained_by": written}) == terms
    assert explanation({"explained_by": "amplitude: strength"}) == {}
    assert explanation({}) == {}


@pytest.mark.parametrize("values", [np.array([0, 2], np.int8), [0, 2], "0 2"])
def test_flags_are_read_as_cf_writes_them(values):
    assert flags({"flag_values": values, "flag_meanings": "good not_good"}) == {0: "good", 2: "not_good"}


def test_what_is_not_one_meaning_for_each_value_is_no_flag():
    assert flags({"flag_values": np.int8(1), "flag_meanings": "good"}) == {1: "good"}
    assert flags({"flag_values": [1, 2], "flag_meanings": "good"}) == {}
    assert flags({"flag_values": [1, 2], "flag_masks": [1, 2], "flag_meanings": "night glint"}) == {}
    assert flags({"flag_values": "AB", "flag_meanings": "good"}) == {}
    bits = {"flag_masks": np.array([1, 2], np.uint8), "flag_meanings": "night glint"}
    assert flags(bits) == {}
    assert flags(bits, "flag_masks") == {1: "night", 2: "glint"}
    assert flags({}) == {}
