"""Quality control: every decision is seen, has a reason and can be undone; nothing is deleted, no flag is overwritten."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phidias_lab.chains.ocean.gridding import Gridding
from phidias_lab.chains.ocean.quality import Quality, decisions
from phidias_lab.errors import InputError, ParameterError
from phidias_lab.testing.scenes import ocean


@pytest.fixture(scope="module")
def scene():
    return ocean.quality()


@pytest.fixture(scope="module")
def result(scene):
    return Quality()(**scene["inputs"])


def test_nothing_is_deleted_and_what_was_delivered_stays_as_it_was(scene, result):
    given = scene["inputs"]["observations"]
    pd.testing.assert_frame_equal(result[list(given.columns)], given, check_flags=False)
    assert (result["temperature_qc"] == 1).all()


def test_what_the_scene_has_wrong_is_found_and_nothing_else(scene, result):
    truth = scene["truth"]
    assert ((result["duplicate_of"] >= 0) == (truth["copy_of"] >= 0)).all()
    copies = result[truth["copy_of"] >= 0]
    numbers = result["observation_id"].to_numpy()
    assert (copies["duplicate_of"].to_numpy() == numbers[truth["copy_of"][copies.index]]).all()
    wrong = result["temperature_added_qc"]
    assert set(result.index[wrong == 4]) == set(truth.index[truth["impossible"]])
    assert set(result.index[wrong == 3]) == set(truth.index[truth["spike"]])
    assert (wrong[~truth["spike"] & ~truth["impossible"]] == 1).all()
    assert (result["salinity_added_qc"] == 1).all()


def test_each_decision_has_a_name_and_a_reason_and_a_profile_that_came_twice_is_one(scene, result):
    table = decisions(result)
    truth = scene["truth"]
    copies = table[table["test"] == "duplicate"]
    assert len(copies) == 12
    assert (copies["observations"] == 10).all()
    assert copies["reason"].iloc[0].startswith("10 observations came twice: other-small-cast-")
    spikes = table[table["test"] == "spike"]
    assert spikes["observations"].sum() == truth["spike"].sum()
    assert "sticks out of its profile by 1" in spikes["reason"].iloc[0]
    assert "outside -2.5 to 40" in table[table["test"] == "range"]["reason"].iloc[0]
    assert table["decision"].is_unique
    assert not table["undone"].any()


def test_a_decision_that_is_undone_is_still_seen_and_the_others_hold(scene, result):
    table = decisions(result)
    one = table[table["test"] == "duplicate"]["decision"].iloc[0]
    spike = table[table["test"] == "spike"]["decision"].iloc[0]
    again = Quality(undo=f"{one}, {spike}")(**scene["inputs"])
    assert (again["duplicate_of"] >= 0).sum() == (result["duplicate_of"] >= 0).sum() - 10
    rows = result["decisions"].str.contains(spike)
    assert (again["temperature_added_qc"][rows] == 1).all()
    assert (result["temperature_added_qc"][rows] == 3).all()
    after = decisions(again).set_index("decision")
    assert set(after.index) == set(table["decision"])
    assert set(after.index[after["undone"]]) == {one, spike}


def test_a_whole_test_can_be_undone_and_a_name_that_is_none_is_refused(scene):
    again = Quality(undo="duplicate")(**scene["inputs"])
    assert (again["duplicate_of"] == -1).all()
    assert decisions(again)["undone"].sum() == 12
    with pytest.raises(InputError, match="'spike-000000000000', which is no decision"):
        Quality(undo="spike-000000000000")(**scene["inputs"])


def test_names_of_decisions_do_not_depend_on_the_order_of_the_table_nor_on_other_tests(scene, result):
    given = scene["inputs"]["observations"]
    mixed = given.sample(frac=1, random_state=1).reset_index(drop=True)
    mixed.attrs = given.attrs
    other = Quality(test_ranges=False)(observations=mixed)
    before = set(decisions(result)["decision"])
    after = set(decisions(other)["decision"])
    assert {name for name in before if not name.startswith("range")} <= after


def test_gridding_honours_what_was_added_and_what_was_undone(scene, result):
    domain = ocean.gridding()["inputs"]["domain"]
    grid = Gridding(variable="temperature", value_range=[-1e6, 1e6], depths=[0.0, 50.0], solver="splu", error="none")

    def used(table):
        return int(grid(observations=table, domain=domain)["observations_used"].sum())

    truth = scene["truth"]
    clean = scene["inputs"]["observations"][~(truth["copy_of"] >= 0) & ~truth["spike"] & ~truth["impossible"]]
    clean.attrs = result.attrs
    assert used(result) == used(clean)
    undone = Quality(undo="duplicate, spike, range")(**scene["inputs"])
    assert used(undone) == used(scene["inputs"]["observations"].assign(duplicate_of=-1)) > used(result)


def test_observations_that_contradict_those_around_them_are_found_where_a_domain_is_given():
    scene = ocean.gridding()
    table, domain = scene["inputs"]["observations"], scene["inputs"]["domain"]
    table = table[(table["temperature_qc"] == 1).to_numpy()].reset_index(drop=True)
    table.attrs = scene["inputs"]["observations"].attrs
    wrong = np.random.default_rng(0).choice(len(table), 10, replace=False)
    table.loc[wrong, "temperature"] += 9.0
    control = Quality(variables="temperature", windows="whole", find_copies=False)
    found = control(observations=table, domain=domain)
    marked = set(found.index[found["temperature_added_qc"] == 3])
    assert len(marked & set(wrong)) >= 9
    assert len(marked - set(wrong)) <= 1
    reason = decisions(found)["reason"].iloc[0]
    assert "standard deviations from" in reason
    assert "the observations around say" in reason
    assert (control(observations=table)["temperature_added_qc"] == 1).all()
    # Too few observations to be judged by each other.
    alone = Quality(variables="temperature", windows="monthly", least_number=500)(observations=table, domain=domain)
    assert (alone["temperature_added_qc"] == 1).all()


def test_a_copy_does_not_vouch_for_its_original():
    scene = ocean.gridding()
    table, domain = scene["inputs"]["observations"], scene["inputs"]["domain"]
    table = table[(table["temperature_qc"] == 1).to_numpy()].reset_index(drop=True)
    table.loc[20, "temperature"] += 3.0  # so little that two of them would agree with each other
    copy = table.loc[[20]].assign(platform="other")
    twice = pd.concat([table, copy], ignore_index=True)
    twice.attrs = scene["inputs"]["observations"].attrs
    found = Quality(variables="temperature", windows="whole")(observations=twice, domain=domain)
    pair = found.loc[[20, len(table)]]
    assert sorted(pair["duplicate_of"] >= 0) == [False, True]
    assert (pair["temperature_added_qc"][pair["duplicate_of"] < 0] == 3).all()


def test_a_value_that_stands_out_is_told_once(scene):
    domain = ocean.gridding()["inputs"]["domain"]
    found = Quality(variables="temperature", windows="whole")(**scene["inputs"], domain=domain)
    flagged = found["decisions"][scene["truth"]["spike"] | scene["truth"]["impossible"]]
    assert (flagged.str.count("spike-") + flagged.str.count("range-") == 1).all()
    assert not flagged.str.contains("residual-").any()


def test_values_that_came_with_a_bad_flag_are_neither_judged_again_nor_compared_with(scene):
    given = scene["inputs"]["observations"]
    spikes = scene["truth"]["spike"]
    table = given.assign(temperature_qc=np.where(spikes, 4, 1).astype(np.int8))
    table.attrs = given.attrs
    found = Quality(find_copies=False)(observations=table)
    assert not found["reasons"].str.contains("sticks out").any()
    assert (found["temperature_added_qc"][spikes] == 0).all()
    impossible = given.assign(temperature_qc=np.where(scene["truth"]["impossible"], 4, 1).astype(np.int8))
    impossible.attrs = given.attrs
    assert not Quality()(observations=impossible)["reasons"].str.contains("outside").any()


def test_limits_go_into_the_units_of_the_column_and_unknown_ones_are_told(scene):
    given = scene["inputs"]["observations"]
    kelvin = given.assign(temperature=given["temperature"] + 273.15)
    kelvin.attrs = {
        "columns": {**given.attrs["columns"], "temperature": {"units": "K", "standard_name": "sea_water_temperature"}}
    }
    found = Quality()(observations=kelvin)
    assert (found["temperature_added_qc"] == Quality()(observations=given)["temperature_added_qc"]).all()
    strange = given.copy()
    strange.attrs = {
        "columns": {**given.attrs["columns"], "temperature": {"units": "m", "standard_name": "sea_water_temperature"}}
    }
    found = Quality()(observations=strange)
    assert (found["temperature_added_qc"] == 0).all()
    assert "were not tested" in found.attrs["comment"]


def test_mistakes_are_told_in_a_sentence(scene, result):
    given = scene["inputs"]["observations"]
    with pytest.raises(
        ParameterError, match=r"'temprature', which the observations do not hold as a measurement\. Did you mean"
    ):
        Quality(variables="temprature")(observations=given)
    with pytest.raises(InputError, match="have a column 'duplicate_of' already"):
        Quality()(observations=result)
    places = given[["longitude", "latitude", "depth", "time"]]
    with pytest.raises(InputError, match="no measured column"):
        Quality()(observations=places)


def test_an_empty_table_gives_an_empty_one(scene):
    given = scene["inputs"]["observations"]
    empty = given.iloc[:0]
    empty.attrs = given.attrs
    found = Quality()(observations=empty)
    assert len(found) == 0
    assert "duplicate_of" in found
