"""Files of level 1B are screened: what is kept becomes files again, to the bit, and no cut of an orbit changes an event."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
import xarray as xr
from click.testing import CliRunner
from scipy import stats

from phidias_lab import flow
from phidias_lab.chains.atmosphere import _basis, _scenes
from phidias_lab.chains.atmosphere.screening import Screening
from phidias_lab.contract import Order
from phidias_lab.errors import InputError, ProductError
from phidias_lab.lake import events as lake
from phidias_lab.methods.formats import l1b
from phidias_lab.products import Product, stac, writing
from phidias_lab.products.l1b import selected, write
from phidias_lab.services.commands.export import command as export
from phidias_lab.sources import l1b as source
from phidias_lab.testing.scenes import spectra as scenes

FACTS = {"run": "20221128T120000-screening", "ended": "2022-11-28T12:00:00Z", "versions": {"phidias_lab": "1"}}


@pytest.fixture(scope="module")
def basis():
    return _scenes._learnt()[1]


def written(folder: Path, scene: scenes.Scene, encoding: str = "f4") -> Path:
    """The file of a scene, and beside it that of the Sun."""
    folder.mkdir(exist_ok=True)
    sun = l1b.Name(
        "TEST", "IR_SIR", scene.start - np.timedelta64(1, "D"), scene.start, scene.orbit, 1, "000000", scene.start
    )
    sun = dataclasses.replace(
        sun, start=sun.start.astype("M8[s]"), stop=sun.stop.astype("M8[s]"), created=sun.created.astype("M8[s]")
    )
    if not (folder / str(sun)).exists():
        write(scenes.irradiance(scene), folder / str(sun))
    path = folder / scenes.name(scene)
    write(scenes.granule(scene, encoding), path)
    return path


def screened(paths: list[Path], basis: xr.Dataset, **parameters) -> xr.Dataset:
    return Screening(**parameters)(spectra=source.open_spectra(paths), basis=basis)


def product(result: xr.Dataset, folder: Path) -> Product:
    chain = {**Screening.describe(), "id": "atmosphere.screening"}
    inputs = {"spectra": {"file": "/data/spectra"}, "basis": {"file": "/data/basis.nc"}}
    order = Order("atmosphere.screening", Screening.version, {}, inputs)
    return writing.write(result, folder, chain=chain, order=order, facts=FACTS)


def read(made: Product) -> xr.Dataset:
    with made.open() as data:
        return data.load()


def burning(scanlines: int, *fires: tuple[int, int], orbit: int = 1) -> scenes.Scene:
    """A granule with fires at some scanlines and rows."""
    plain = _scenes.granule(orbit, scanlines)
    events = [
        scenes.Event(f"fire {n}", "fire", *plain.place(*at), 8.0, length=120.0, width=25.0)
        for n, at in enumerate(fires)
    ]
    return dataclasses.replace(plain, events=tuple(events))


@pytest.fixture(scope="module", params=["f4", "u2"])
def kept(request, basis, tmp_path_factory):
    """Two granules with a fire in each and one of the night between them, and the product of their screening."""
    folder = tmp_path_factory.mktemp("files")
    first = burning(64, (30, 20))
    paths = [written(folder, first, request.param), written(folder, burning(40, (20, 40), orbit=2), request.param)]
    paths.append(written(folder, _scenes.granule(1.5, 20), request.param))
    return paths, product(screened(paths, basis, rate=1e-6, most=0.1), folder / "product")


def test_what_was_selected_becomes_files_that_are_equal_to_the_bit(kept, tmp_path):
    paths, made = kept
    said = flow.export(made, tmp_path / "selected", "l1b")
    data = read(made)
    files = sorted((tmp_path / "selected").iterdir())
    assert len(files) == len(said) == 2, "the granule of the night makes no file"
    for number, path, file in zip([0, 2], [paths[0], paths[1]], files, strict=True):
        mine = data["selected_granule"].values == number
        line, row = data["selected_scanline_number"].values[mine], data["selected_ground_pixel"].values[mine]
        assert line.size > 3
        before, after = source.granule(path), source.granule(file)
        at = np.searchsorted(after["scanline"], line)
        assert after["scanline"].tolist() == np.unique(line).tolist()
        pixels = np.zeros((np.unique(line).size, before.sizes()["ground_pixel"]), bool)
        pixels[at, row] = True
        np.testing.assert_array_equal(after["selected"][0], pixels)
        assert after.arrays.keys() == before.arrays.keys() | {"selected"}
        for name, stored in l1b.RADIANCE.items():
            if name not in before or name in ("scanline", "selected"):
                continue
            one, other = np.asarray(before[name]), np.asarray(after[name])
            assert one.dtype == other.dtype
            if "ground_pixel" in stored.dims and "scanline" in stored.dims:
                assert one[0, line, row].tobytes() == other[0, at, row].tobytes(), name
                empty = {"spectral_channel_quality": 1, "ground_pixel_quality": 32}.get(name, before.fill(name))
                assert (other[0][~pixels] == np.array(empty, one.dtype)).all(), name
            elif "scanline" in stored.dims:
                assert one[0, line].tobytes() == other[0, at].tobytes(), name
            else:
                assert one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize(
    "told", ["[['a', '<i4']]", "__import__('os')", '[["a", "O"]]', '[["a", "<i4"]]', '[["a"]]', "7"]
)
def test_a_product_that_says_it_holds_other_types_is_refused_in_a_sentence(kept, tmp_path, told):
    data = read(kept[1])
    held = [name for name, array in data.variables.items() if "stored_dtype" in array.attrs]
    assert held
    for name in held:
        data[name].attrs["stored_dtype"] = told
    with pytest.raises(InputError, match=r"of this product is said to hold .*The product was changed or is damaged"):
        selected(data)


@pytest.mark.parametrize("kept", ["f4"], indirect=True)
def test_a_file_of_selected_spectra_is_named_and_described_after_its_granule(kept, tmp_path):
    paths, made = kept
    words = [str(made.folder), "--as", "l1b", "--output", str(tmp_path), "--attribute", "institution=a centre"]
    done = CliRunner().invoke(export, words)
    assert done.exit_code == 0, done.output
    assert done.output.count("spectra in ") == 2
    assert done.output.endswith(f"Wrote {tmp_path}\n")
    for path, file in zip(paths, sorted(tmp_path.iterdir()), strict=False):
        before, after = l1b.parse_name(path.name), l1b.parse_name(file.name)
        assert (after.orbit, after.product, after.stream) == (before.orbit, before.product, before.stream)
        assert before.start <= after.start < after.stop <= before.stop
        assert str(after.created) == "2022-11-28T12:00:00"
        cube = source.open_spectra(file)
        assert str(cube["time"].values[0].astype("M8[s]")) == str(after.start)
        told = json.loads(str(cube["granule_attributes"].values[0]))
        assert told["selected_from"] == path.name
        assert told["selected_by"] == FACTS["run"]
        assert (told["synthetic"], told["institution"]) == ("true", "a centre")


@pytest.mark.parametrize("kept", ["f4"], indirect=True)
def test_selected_spectra_are_screened_to_the_same_scores(kept, basis, tmp_path):
    paths, made = kept
    flow.export(made, tmp_path, "l1b")
    for sun in paths[0].parent.glob("*_IR_SIR_*"):
        (tmp_path / sun.name).write_bytes(sun.read_bytes())
    again = screened(sorted(tmp_path.glob("*_RA_*")), basis)
    data = read(made)
    rate = again["false_alarm_rate"].values
    assert np.isfinite(rate).sum() == data.sizes["selected"]
    np.testing.assert_allclose(rate[np.isfinite(rate)], data["selected_false_alarm_rate"].values, rtol=1e-3)


@pytest.mark.parametrize("kept", ["f4"], indirect=True)
def test_files_that_are_there_are_not_replaced_unless_asked(kept, tmp_path):
    made = kept[1]
    flow.export(made, tmp_path, "l1b")
    first, *_ = sorted(tmp_path.iterdir())
    before = first.read_bytes()
    (tmp_path / sorted(p.name for p in tmp_path.iterdir())[1]).unlink()
    with pytest.raises(ProductError, match=r"exists already\. Choose another folder"):
        flow.export(made, tmp_path, "l1b")
    assert [p.name for p in tmp_path.iterdir()] == [first.name], "nothing was written, nothing left behind"
    flow.export(made, tmp_path, "l1b", overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert first.stat().st_size == len(before)


def test_what_cannot_be_a_file_of_level_1b_is_refused_in_a_sentence(basis, tmp_path):
    inputs = _scenes.screening()["inputs"]
    cube = inputs["spectra"].load()
    lake = product(Screening()(spectra=cube, basis=basis), tmp_path / "lake")
    with pytest.raises(InputError, match=r"do not come with what files of level 1B hold .*Its own file holds them all"):
        flow.export(lake, tmp_path / "selected", "l1b")
    quiet = product(screened([written(tmp_path / "q", burning(20))], basis, rate=1e-9, grow=1e-9), tmp_path / "quiet")
    with pytest.raises(InputError, match="No spectrum was selected, so there is none to write"):
        flow.export(quiet, tmp_path / "selected", "l1b")
    assert not (tmp_path / "selected").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ProductError, match="is a file, and a folder of files is to be written"):
        flow.export(quiet, file, "l1b")


@pytest.mark.parametrize("kept", ["f4"], indirect=True)
def test_an_event_tells_all_that_is_known_of_it_in_the_table_in_geoparquet_and_as_a_stac_item(kept, basis, tmp_path):
    paths, made = kept
    found, data = flow.events(made), read(made)
    assert len(found) >= 2
    lake.append(found, str(tmp_path))
    stored = lake.read(root=str(tmp_path)).to_dict("records")
    lake.write(found, tmp_path / "events.parquet")
    texts = pq.read_table(tmp_path / "events.parquet", columns=["id", "properties"]).to_pylist()
    texts = {row["id"]: json.loads(row["properties"]) for row in texts}
    for event in stored:
        told = event["properties"]
        assert told == texts[event["id"]]
        mine = data.isel(selected=data["selected_event"].values == told["event"])
        assert (event["time"], event["time_end"]) == tuple(
            pd.Timestamp(t(mine["selected_time"].values)).floor("us") for t in (np.min, np.max)
        )
        assert event["kind"] in ("CO", "CH4", "unknown")
        assert {f"{what}_{gas}" for what in ("snr", "amplitude") for gas in ("CO", "CH4")} <= told.keys()
        assert 0 <= event["quality"] <= 1
        assert event["synthetic"]
        gas = mine["selected_snr"].sel(gas=event["kind"]).values if event["kind"] in ("CO", "CH4") else None
        peak = int(np.argmin(mine["selected_false_alarm_rate"].values) if gas is None else np.argmax(gas))
        place = [float(mine[f"selected_{name}"].values[peak]) for name in ("longitude", "latitude")]
        assert [told["peak_longitude"], told["peak_latitude"]] == place
        assert event["geometry"].buffer(1e-4).contains(shapely.Point(place))
        # The signature is the mean residual, on the wavelengths of the basis.
        np.testing.assert_allclose(told["wavelength"], basis["wavelength"].values, atol=1e-4)
        np.testing.assert_allclose(told["signature"], np.nanmean(mine["residual"].values, axis=0), atol=1e-3)
        assert told["granules"] == list(
            dict.fromkeys(paths[{0: 0, 2: 1}[n]].name for n in mine["selected_granule"].values)
        )
        facts = json.loads(basis.attrs["screening_basis"])
        assert told["basis"] == {"sha256": _basis.provenance(basis)["sha256"]}
        assert told["learnt_from"]["spectra"] == facts["spectra"] > 1000
        assert told["learnt_from"]["granules"] == len(facts["learning_set"])
        assert told["learnt_from"]["names"] == facts["learning_set"][:10]
        item = stac.event(event)
        pystac.Item.from_dict(item).validate()
        assert item["properties"]["phidias:run"] == FACTS["run"]
        assert item["properties"]["phidias:properties"] == told
        product_link, basis_link = item["links"]
        assert product_link["rel"] == basis_link["rel"] == "derived_from"
        assert product_link["href"] == made.path.as_uri()
        assert (basis_link["phidias:input"], basis_link["href"]) == (
            "basis",
            f"urn:phidias_lab:sha256:{told['basis']['sha256']}",
        )
    assert max(event["properties"]["snr_CO"] for event in stored if event["kind"] == "CO") > 4


def test_a_basis_is_known_by_its_values_wherever_it_lies(basis, tmp_path):
    told = _basis.provenance(basis)
    basis.assign_attrs(id="a run", product_version="1.0", date_created="2022-11-28T12:00:00Z").to_netcdf(
        tmp_path / "basis.nc"
    )
    again = _basis.provenance(xr.load_dataset(tmp_path / "basis.nc"))
    assert again == {**told, "id": "a run", "version": "1.0", "created": "2022-11-28T12:00:00Z"}
    other = basis.assign(mean=basis["mean"] * (1 + 1e-12))
    assert _basis.provenance(other)["sha256"] != told["sha256"]
    assert told["learnt_from"]["names"] == json.loads(basis.attrs["screening_basis"])["learning_set"]


@pytest.mark.parametrize("kept", ["f4"], indirect=True)
def test_channels_with_unusual_extremes_are_told_for_each_block_and_stand_with_its_events(kept, basis):
    data = read(kept[1])
    facts = json.loads(basis.attrs["screening_basis"])
    rate, first = data["false_alarm_rate"].values, [*data["block_scanline"].values, data.sizes["scanline"]]
    assert first == [0, 64, 84, 124]
    number = [np.isfinite(rate[a:b]).sum() for a, b in itertools.pairwise(first)]
    assert number[1] == 0, "the night"
    more = np.log(np.maximum(number, 1)[:, None] / facts["extremes_of"])
    # In units of the noise the largest of a thousand and more residuals is about three to either side.
    assert (abs(basis["extreme_mode"] - 4) < 1.5).mean() > 0.95
    found = np.zeros((3, 480), int)
    for bit, side, extreme in ((1, "highest", data["highest_residual"]), (2, "lowest", -data["lowest_residual"])):
        mode, scale = (basis[f"extreme_{n}"].sel(side=side).values for n in ("mode", "scale"))
        found += bit * (extreme.values > stats.gumbel_r(mode + more * scale, scale).isf(0.01 / 960))
    np.testing.assert_array_equal(data["unusual_channel"].values, found)
    assert not found[1].any()
    fire = flow.events(kept[1]).iloc[0]
    assert fire["kind"] == "CO"
    told = fire["properties"]["unusual_channels"]
    assert told == np.round(basis["wavelength"].values, 4)[found[0] > 0].tolist()
    # The strongest lines of CO are among them.
    strongest = basis["wavelength"].values[np.argmin(basis["signature"].sel(gas="CO").values)]
    assert min(abs(np.array(told) - strongest)) < 0.2
