"""Every entry of every catalogue opens, through plain intake and through the lab, with every value it allows."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import intake
import pandas as pd
import pytest
import xarray as xr
import yaml

from phidias_lab import settings
from phidias_lab.errors import InputError, ParameterError, PhidiasError, UnknownNameError
from phidias_lab.lake import catalog

CATALOGS = Path(__file__).parents[2] / "catalogs"
FILES = sorted(CATALOGS.glob("*.yaml"))


def every_entry():
    """(address, parameters) of every entry, once for each combination of allowed values."""
    for file in FILES:
        for name, entry in (yaml.safe_load(file.read_text())["sources"] or {}).items():
            if entry["driver"] == "yaml_file_cat":
                continue
            declared = entry.get("parameters", {})
            lists = [[(n, v) for v in p["allowed"]] for n, p in declared.items() if "allowed" in p]
            for values in itertools.product(*lists):
                yield f"{file.stem}.{name}", dict(values)


EVERY = list(every_entry())


def label(case):
    return case if isinstance(case, str) else ",".join(map(str, case.values())) or "-"


def test_there_are_catalogues_for_three_compartments_and_an_entrance():
    assert [f.name for f in FILES] == ["atmosphere.yaml", "land.yaml", "ocean.yaml", "phidias.yaml"]
    assert len(EVERY) > 10


@pytest.mark.parametrize(("address", "parameters"), EVERY, ids=label)
def test_an_entry_opens_as_it_is_described(demo_lake, address, parameters):
    data, identity = catalog.open_entry(address, parameters)
    told = catalog.describe(address)
    assert identity["entry"] == address
    assert identity["checksum"].startswith("sha256:")
    assert identity["bytes"] > 1000
    chosen = parameters.get("variable", "all")
    expected = set(told["variables"]) if chosen == "all" else {chosen}
    if told["kind"] == "cube":
        assert isinstance(data, xr.Dataset)
        # Spectra, and what is learnt from them, hold much beside their leading variables, small parts of it in memory.
        some = address.startswith("atmosphere.")
        assert set(data.data_vars) >= expected if some else set(data.data_vars) == expected
        assert all(v.chunks is not None or (some and v.nbytes < 2**20) for v in data.data_vars.values())
        for name in expected:
            assert data[name].attrs["units"] == told["units"][name]
            assert data[name].attrs.get("standard_name") == told["variables"][name].get("standard_name")
        assert set(told["dims"]) <= set(data.dims)
        assert data.attrs["synthetic"] == "true"
    else:
        assert expected <= set(data.columns)
        assert not (set(told["variables"]) - expected) & set(data.columns)
        for name in expected:
            assert data.attrs["columns"][name]["units"] == told["units"][name]
        loaded = data.partitions[0].compute()
        assert list(loaded.columns) == list(data.columns)
        assert loaded.attrs["synthetic"] == "true"


@pytest.mark.filterwarnings("ignore:Shell command not executed")
@pytest.mark.parametrize(("address", "parameters"), EVERY, ids=label)
def test_plain_intake_opens_the_same(demo_lake, address, parameters):
    compartment, name = address.split(".")
    source = intake.open_catalog(str(CATALOGS / "phidias.yaml"))[compartment][name](**parameters)
    plain, ours = source.to_dask(), catalog.open_entry(address, parameters)[0]
    assert source.metadata["phidias"]["compartment"] == compartment
    if isinstance(ours, xr.Dataset):
        assert ours.identical(plain)
    else:
        pd.testing.assert_frame_equal(plain.partitions[0].compute(), ours.partitions[0].compute())


def test_every_entry_says_what_it_is_without_being_opened():
    """No lake is there at all, and yet everything is listed."""
    assert not Path(settings.lake_root()).exists()
    told = catalog.entries()
    assert {e["address"] for e in told} == {address for address, _ in EVERY}
    for entry in told:
        assert entry["description"]
        assert entry["kind"] in ("cube", "table")
        assert entry["licence"]
        assert "synthetic" in entry["source"]
        assert entry["synthetic"] is True
        assert entry["compartment"] == entry["address"].split(".")[0]
        assert all(v.get("units") for v in entry["variables"].values())
        # CF has no names for scores, bases and radiances in moles.
        assert entry["compartment"] == "atmosphere" or all(v.get("standard_name") for v in entry["variables"].values())
        assert all(p["description"] for p in entry["parameters"].values())


def test_data_of_an_entry_that_is_synthetic_say_so_even_where_the_file_does_not(tmp_path, monkeypatch):
    pd.DataFrame({"value": [1.0]}).to_csv(tmp_path / "made.csv", index=False)
    entry = {"driver": "lake_table", "args": {"path": str(tmp_path / "made.csv")}}
    entry["metadata"] = {"phidias": {"synthetic": True, "licence": "CC0-1.0"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"sources": {"made": entry}}))
    monkeypatch.setenv("PHIDIAS_CATALOGS", str(tmp_path))
    data, identity = catalog.open_entry("other.made")
    assert data.attrs["synthetic"] == "true"
    assert identity["synthetic"] is True


def test_no_warning_of_intake_reaches_the_user(demo_lake):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        catalog.open_entry("ocean.baltic")
        catalog.entries()


class TestAsking:
    def test_a_misspelt_entry_is_refused_with_the_nearest(self):
        with pytest.raises(UnknownNameError, match=r"'ocean\.observations'"):
            catalog.resolve("ocean.observation")

    def test_a_catalogue_is_no_entry(self):
        with pytest.raises(UnknownNameError, match=r"is a catalogue.*ocean\.baltic"):
            catalog.resolve("ocean")

    def test_a_misspelt_parameter_is_refused_and_not_swallowed(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'region'"):
            catalog.open_entry("ocean.observations", {"regoin": "0,50,10,60"})

    def test_a_value_that_is_not_allowed_is_refused_with_those_that_are(self):
        with pytest.raises(ParameterError, match=r"variable='salt'.*salinity"):
            catalog.open_entry("ocean.observations", {"variable": "salt"})

    @pytest.mark.parametrize("region", ["1,2,3", "0,60,10,50", "a,b,c,d", "0,0,inf,1", [1, 2]])
    def test_a_region_that_is_none_is_refused(self, region):
        with pytest.raises(ParameterError, match="region"):
            catalog.open_entry("ocean.observations", {"region": region})

    @pytest.mark.parametrize("time", ["2012-01-01/2011-01-01", "yesterday/today", "2010-13/2011-01"])
    def test_a_period_that_is_none_is_refused(self, time):
        with pytest.raises(ParameterError, match="time"):
            catalog.open_entry("ocean.truth_baltic", {"time": time})

    def test_without_a_lake_it_is_said_how_to_get_one(self):
        with pytest.raises(InputError, match="phidias lake build-demo"):
            catalog.open_entry("ocean.observations")


class TestPlaces:
    def test_a_catalogue_named_by_the_user_stands_beside_the_compartments(self, tmp_path, monkeypatch):
        (tmp_path / "cruise.yaml").write_text(
            "sources:\n  ctd:\n    driver: phidias_lab.lake.drivers.Table\n    args: {path: '{{ CATALOG_DIR }}/ctd.csv'}\n"
        )
        (tmp_path / "ctd.csv").write_text("longitude,latitude,temperature\n1,50,10.5\n2,51,11\n")
        monkeypatch.setenv("PHIDIAS_CATALOGS", str(tmp_path / "cruise.yaml"))
        assert catalog.source("cruise.ctd").read()["temperature"].tolist() == [10.5, 11]
        assert "ocean.observations" in [e["address"] for e in catalog.entries()]
        monkeypatch.setenv("PHIDIAS_CATALOGS", str(tmp_path))
        assert catalog.resolve("cruise.ctd")

    @pytest.mark.filterwarnings("ignore:Shell command not executed")
    def test_the_entrance_of_an_installation_is_found_without_a_checkout(self, tmp_path, monkeypatch, demo_lake):
        monkeypatch.setattr(settings, "checkout_root", lambda: None)
        monkeypatch.setattr("sys.prefix", str(tmp_path))
        with pytest.raises(InputError, match="PHIDIAS_CATALOGS"):
            catalog.open_catalog()
        folder = tmp_path / "share" / "phidias_lab" / "catalogs"
        folder.mkdir(parents=True)
        for file in FILES:
            (folder / file.name).write_text(file.read_text())
        assert list(catalog.open_catalog()) == ["atmosphere", "land", "ocean"]
        assert catalog.open_catalog().ocean.baltic.to_dask().sizes["depth"] == 9

    @pytest.mark.parametrize("text", ["sources: [1, 2", "sources: 3", "- a\n- b", "sources:\n  x: 5", ""])
    def test_a_broken_catalogue_is_named(self, tmp_path, text):
        (tmp_path / "broken.yaml").write_text(text)
        with pytest.raises(InputError, match=r"broken\.yaml is not a catalogue"):
            catalog.open_catalog(tmp_path / "broken.yaml")

    def test_an_entry_with_an_unknown_driver_is_refused_by_name(self, tmp_path):
        (tmp_path / "odd.yaml").write_text("sources:\n  x: {driver: nope, args: {}}\n")
        with pytest.raises(PhidiasError, match="x"):
            catalog.source("x", catalog=catalog.open_catalog(tmp_path / "odd.yaml"))

    def test_a_missing_catalogue_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"nowhere\.yaml does not exist"):
            catalog.open_catalog(tmp_path / "nowhere.yaml")


class TestMine:
    @pytest.fixture
    def field(self, tmp_path):
        data = xr.Dataset(
            {"sst": (("latitude", "longitude"), [[1.0, 2.0], [3.0, 4.0]], {"units": "degree_Celsius"})},
            coords={"latitude": [50.0, 51.0], "longitude": [0.0, 1.0]},
        )
        data.to_netcdf(tmp_path / "My field.nc", engine="netcdf4")
        data.to_zarr(tmp_path / "field.zarr", zarr_format=3, consolidated=False)
        frame = pd.DataFrame({"longitude": [0.5, 9.0], "latitude": [50.0, 60.0], "sst": [1.5, 7.0]})
        frame.to_parquet(tmp_path / "points.parquet")
        frame.to_csv(tmp_path / "points.csv", index=False)
        return tmp_path

    @pytest.mark.parametrize("file", ["My field.nc", "field.zarr", "points.parquet", "points.csv"])
    def test_a_file_of_ones_own_becomes_an_entry(self, field, file):
        address = catalog.add(field / file, "sea" if " " not in file else None)
        assert address == ("mine.my_field" if " " in file else "mine.sea")
        data, identity = catalog.open_entry(address)
        assert float(data["sst"].max()) in (4.0,) if isinstance(data, xr.Dataset) else len(data) == 2
        assert identity["path"] == str(field / file)
        assert len(identity["checksum"]) == len("sha256:") + 64
        described = catalog.describe(address)
        assert described["kind"] == ("cube" if isinstance(data, xr.Dataset) else "table")
        assert "sst" in described["variables"]
        assert getattr(catalog.open_catalog().mine, address.split(".")[1]) is not None

    def test_licence_and_source_come_with_the_data(self, field):
        catalog.add(field / "points.csv", "p", licence="CC-BY-4.0", source="a cruise")
        _, identity = catalog.open_entry("mine.p")
        assert (identity["license"], identity["source"]) == ("CC-BY-4.0", "a cruise")
        assert "synthetic" not in identity

    def test_the_identity_follows_the_content(self, field):
        catalog.add(field / "points.csv", "p")
        before = catalog.identity("mine.p")["checksum"]
        assert catalog.identity("mine.p")["checksum"] == before
        (field / "points.csv").write_text((field / "points.csv").read_text().replace("7.0", "8.0"))
        assert catalog.identity("mine.p")["checksum"] != before

    def test_a_name_is_not_taken_twice_unless_asked(self, field):
        catalog.add(field / "points.csv", "p")
        with pytest.raises(ParameterError, match=r"mine\.p.*--replace"):
            catalog.add(field / "field.zarr", "p")
        catalog.add(field / "field.zarr", "p", replace=True)
        assert catalog.describe("mine.p")["kind"] == "cube"

    @pytest.fixture
    def casts(self, tmp_path):
        frame = pd.DataFrame(
            {
                "lon": [0.5, 9.0],
                "lat": [50.0, 60.0],
                "DATE": ["2012-05-31T12:00", "2013-01-01"],
                "TEMP": [288.65, 280.15],
            }
        )
        frame.to_csv(tmp_path / "casts.csv", index=False)
        frame.assign(DATE=pd.to_datetime(frame["DATE"], format="ISO8601")).to_parquet(tmp_path / "casts.parquet")
        return tmp_path

    WORDS = {
        "columns": {"lon": "longitude", "lat": "latitude", "DATE": "time", "TEMP": "temperature"},
        "units": {"temperature": "K"},
        "standard_names": {"temperature": "sea_water_temperature"},
    }

    @pytest.mark.parametrize("file", ["casts.csv", "casts.parquet"])
    def test_an_entry_says_what_its_columns_are_called_and_in_which_units(self, casts, file):
        catalog.add(casts / file, "p", **self.WORDS)
        data, identity = catalog.open_entry("mine.p")
        assert list(data.columns) == ["longitude", "latitude", "time", "temperature"]
        told = {"units": "K", "standard_name": "sea_water_temperature"}
        assert data.attrs["columns"]["temperature"] == told
        assert catalog.describe("mine.p")["variables"]["temperature"] == told
        assert identity["read_as"] == self.WORDS
        assert list(data["time"].compute()) == [pd.Timestamp("2012-05-31T12:00"), pd.Timestamp("2013-01-01")]
        assert list(data["temperature"].compute()) == [
            288.65,
            280.15,
        ]  # one column alone is read by its name in the file
        assert len(catalog.open_catalog().mine.p.read()) == 2
        cut = catalog._FILES["table"](
            path=str(casts / file), region="0,49,1,51", time="2012-01-01/2012-12-31", **self.WORDS
        )
        assert cut.read()["temperature"].tolist() == [288.65]
        assert cut.to_dask().compute()["temperature"].tolist() == [288.65]

    def test_a_cube_is_renamed_and_given_units_too(self, field):
        catalog.add(field / "My field.nc", "f", columns={"sst": "temperature"}, units={"temperature": "K"})
        data, _ = catalog.open_entry("mine.f")
        assert data["temperature"].attrs["units"] == "K"
        assert "sst" not in data

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ({"columns": {"lno": "longitude"}}, "no column 'lno'.*Did you mean 'lon'"),
            ({"columns": {"lon": "lat"}}, "two columns 'lat': lon and lat"),
            ({"units": {"temp": "K"}}, "no column 'temp' to give units of"),
            ({"columns": {"TEMP": "temperature"}, "units": {"TEMP": "K"}}, "It is 'temperature' here"),
            ({"standard_names": {"temp": "sea_water_temperature"}}, "'temp' to give the standard name of"),
            ({"units": {"TEMP": "degrees of warmth"}}, "'degrees of warmth' is no unit"),
        ],
    )
    @pytest.mark.parametrize("file", ["casts.csv", "casts.parquet"])
    def test_words_about_columns_that_are_not_there_are_refused(self, casts, file, words, said):
        with pytest.raises(ParameterError, match=said):
            catalog.add(casts / file, "p", **words)
        with pytest.raises(UnknownNameError):
            catalog.resolve("mine.p")

    def test_a_time_that_is_none_is_said_with_its_row(self, casts):
        (casts / "casts.csv").write_text("time,value\n2012-05-31,1\nsoon,2\n")
        with pytest.raises(InputError, match="column 'time' holds 'soon' in row 2"):
            catalog.add(casts / "casts.csv")

    def test_what_was_added_can_be_removed_and_the_file_stays(self, field):
        catalog.add(field / "points.csv", "p")
        catalog.remove("mine.p")
        assert (field / "points.csv").is_file()
        with pytest.raises(UnknownNameError):
            catalog.resolve("mine.p")
        with pytest.raises(UnknownNameError):
            catalog.remove("p")

    def test_entries_added_at_the_same_time_are_all_kept(self, field):
        import subprocess
        import sys

        code = "import sys; from phidias_lab.lake import catalog; catalog.add(sys.argv[1], sys.argv[2])"
        started = [
            subprocess.Popen([sys.executable, "-c", code, str(field / "points.csv"), f"p{n}"], cwd=CATALOGS.parent)
            for n in range(3)
        ]
        assert [p.wait(60) for p in started] == [0, 0, 0]
        assert {e["address"] for e in catalog.entries()} >= {"mine.p0", "mine.p1", "mine.p2"}

    @pytest.mark.parametrize("name", ["a.b", "1st", "", "sea ice", "../x", "a" * 80, "größe"])
    def test_a_name_that_is_none_is_refused(self, field, name):
        with pytest.raises(ParameterError, match="letters"):
            catalog.add(field / "points.csv", name)

    def test_a_file_that_is_not_there_or_not_known_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            catalog.add(tmp_path / "none.nc")
        (tmp_path / "x.doc").write_text("x")
        with pytest.raises(InputError, match=r"\.nc"):
            catalog.add(tmp_path / "x.doc")
        assert not settings.user_catalog_file().exists()

    def test_a_broken_catalogue_of_ones_own_is_not_overwritten(self, field):
        target = settings.user_catalog_file()
        target.parent.mkdir(parents=True)
        target.write_text("sources: [1")
        with pytest.raises(InputError, match=r"mine\.yaml"):
            catalog.add(field / "points.csv", "p")
        assert target.read_text() == "sources: [1"

    def test_a_path_with_single_braces_is_opened_as_it_is_written(self, field):
        odd = field / "a {b}.csv"
        odd.write_text((field / "points.csv").read_text())
        catalog.add(odd, "odd")
        assert len(catalog.source("mine.odd").read()) == 2

    @pytest.mark.parametrize("name", ["a {{ b }}.csv", "{% endraw %}{{ 7 * 7 }}{% raw %}.csv", "{# b #}.csv"])
    def test_a_path_that_intake_would_run_is_refused(self, field, name):
        odd = field / name
        odd.write_text((field / "points.csv").read_text())
        with pytest.raises(InputError, match="Rename the file"):
            catalog.add(odd, "odd")
        assert not settings.user_catalog_file().exists()

    def test_an_attribute_that_intake_would_run_is_not_registered(self, field):
        xr.Dataset({"a": ("x", [1.0], {"long_name": "{{ 7 * 7 }}"})}).to_netcdf(field / "sly.nc")
        with pytest.raises(InputError, match=r"sly\.nc.*metadata has a template"):
            catalog.add(field / "sly.nc", "sly")
        assert not settings.user_catalog_file().exists()


RUNS = "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}"
TABLE = "driver: lake_table"
SLY = {
    "a path": f'{{{TABLE}, args: {{path: "/{RUNS}.csv"}}}}',
    "an address within braces": f'{{{TABLE}, args: {{path: "{{{{{{ CATALOG_DIR }}}}{RUNS[1:]}"}}}}',
    "a statement": f'{{{TABLE}, args: {{path: "{{% if 1 %}}a.csv{{% endif %}}"}}}}',
    "the environment": f'{{{TABLE}, args: {{path: "/{{{{ env(HOME) }}}}/a.csv"}}}}',
    "a filter": f'{{{TABLE}, args: {{path: "{{{{ CATALOG_DIR | upper }}}}/a.csv"}}}}',
    "a name of no parameter": f'{{{TABLE}, args: {{path: "{{{{ cycler }}}}/a.csv"}}}}',
    "metadata": f'{{{TABLE}, args: {{path: a.csv}}, metadata: {{more: ["{RUNS}"]}}}}',
    "a default": f"{{{TABLE}, args: {{path: a.csv}}, parameters: {{p: {{description: p, type: str, "
    'default: "env(HOME)"}}}',
    "a module": "{driver: evilm.Foo, args: {}}",
    "several drivers": "{driver: {a: {class: evilm.Foo}}, args: {}}",
    "a class": "{cls: evilm.Foo, args: [], kwargs: {}}",
    "a nested text": "{driver: yaml_file_cat, args: {path: a.yaml, text: 'sources: {}'}}",
    "a nested pattern": '{driver: yaml_file_cat, args: {path: "{{ CATALOG_DIR }}/*.yaml"}}',
    "a nested address": '{driver: yaml_file_cat, args: {path: "memory://a.yaml"}}',
    "a nested protocol": '{driver: yaml_file_cat, args: {path: "file:/a.yaml"}}',
}


class TestTrust:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "evilm.py").write_text("open('PWNED', 'w').close()\nclass Foo: pass\n")
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.syspath_prepend(tmp_path / "here")
        yield
        assert not (tmp_path / "here" / "PWNED").exists()

    @pytest.mark.parametrize("entry", SLY.values(), ids=SLY)
    @pytest.mark.parametrize("nested", [False, True])
    def test_an_entry_that_could_run_something_is_refused_by_file_and_name(self, tmp_path, monkeypatch, entry, nested):
        folder = tmp_path / "places"
        folder.mkdir()
        inner = tmp_path / "inner.yaml" if nested else folder / "cruise.yaml"
        inner.write_text(f"sources:\n  sly: {entry}\n")
        if nested:
            (folder / "outer.yaml").write_text(
                'sources:\n  n: {driver: yaml_file_cat, args: {path: "{{ CATALOG_DIR }}/../inner.yaml"}}\n'
            )
        monkeypatch.setenv("PHIDIAS_CATALOGS", str(folder))
        with pytest.raises(InputError, match=rf"{inner.stem}\.yaml.*'sly'|\.yaml' has one of"):
            catalog.open_catalog()

    @pytest.mark.parametrize(
        "text", ["plugins: {source: [{module: evilm}]}\nsources: {}", "sources: {}\nname: !template x"]
    )
    def test_a_catalogue_that_imports_is_refused(self, tmp_path, text):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(InputError, match=r"odd\.yaml.*[Tt]ake"):
            catalog.open_catalog(tmp_path / "odd.yaml")

    def test_a_folder_that_intake_would_run_is_refused(self, tmp_path):
        folder = tmp_path / "{{ 7 * 7 }}"
        folder.mkdir()
        (folder / "c.yaml").write_text("sources: {}\n")
        with pytest.raises(InputError, match="the folder that is called so"):
            catalog.open_catalog(folder / "c.yaml")

    def test_a_catalogue_that_contains_itself_is_refused(self, tmp_path):
        (tmp_path / "c.yaml").write_text(
            'sources:\n  n: {driver: yaml_file_cat, args: {path: "{{ CATALOG_DIR }}/c.yaml"}}\n'
        )
        with pytest.raises(InputError, match="contains itself"):
            catalog.open_catalog(tmp_path / "c.yaml")

    @pytest.mark.parametrize("value", [RUNS, "env(HOME)", "{% if 1 %}"])
    def test_a_value_that_is_a_template_is_refused(self, tmp_path, monkeypatch, value):
        (tmp_path / "cruise.yaml").write_text(
            "sources:\n  ctd:\n    driver: lake_table\n    args: {path: '{{CATALOG_DIR}}/{{ p }}.csv'}\n"
            "    parameters: {p: {description: p, type: str, default: a}}\n"
        )
        monkeypatch.setenv("PHIDIAS_CATALOGS", str(tmp_path / "cruise.yaml"))
        assert catalog.source("cruise.ctd", {"p": "b"}).address.endswith("/b.csv")
        with pytest.raises(ParameterError, match="plain value"):
            catalog.source("cruise.ctd", {"p": value})
