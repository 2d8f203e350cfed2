"""An order in, a product out: the whole system on one page.

`run` takes an order from any door, checks what is cheap to check, writes a run folder and starts a worker process.
`execute` is what the worker does: open the inputs, check them, call the chain, finish the pieces, write the product and
rename it into place. Nothing else makes a product, so every product can be run again from the order inside it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import inspect
import json
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phidias_lab import settings
from phidias_lab.compute import runs
from phidias_lab.compute.runs import CANCELLED, DONE, FAILED, RUNNING, Run
from phidias_lab.contract import order as orders
from phidias_lab.contract import registry, said
from phidias_lab.contract.chain import Chain
from phidias_lab.contract.data import Needs
from phidias_lab.contract.order import Order
from phidias_lab.errors import (
    InputError,
    ParameterError,
    PhidiasError,
    ProductError,
    UnknownNameError,
    as_sentence,
    kind_of,
    nearest,
)

if TYPE_CHECKING:
    from phidias_lab.products import Product


#: What a run can be exported as: a text, one file, or a folder of files.
TEXTS = ("notebook", "script")
FORMS = (*TEXTS, "seadatanet", "l1b")


def run(
    what: str | Path | Mapping | Order | Chain | type[Chain],
    *,
    inputs: Mapping[str, Any] | None = None,
    title: str | None = None,
    output: str | Path | None = None,
    format: str | None = None,
    overwrite: bool = False,
    on: Any = None,
    workers: int | None = None,
    **parameters: Any,
) -> Run:
    """Ask for a run and return at once.

    `what` is a chain's id, its class or a configured instance, an Order, an order's JSON object, or the path of an order
    file. Inputs are catalogue addresses, files, or data in memory; those not given take the chain's default entry.
    `on` is a place of the site ("slurm", "slurm-gpu", ...), where the run becomes a job, with `workers` for its pieces if
    that is not 0; or a `phidias_lab.cluster`, whose workers compute the pieces. Without it the run is a process here.
    """
    prepared = prepare(
        what, inputs=inputs, title=title, output=output, format=format, overwrite=overwrite, **parameters
    )
    return begin(prepared, on=on, workers=workers)


def begin(
    prepared: tuple[Order, dict[str, Any], str | None],
    *,
    on: Any = None,
    workers: int | None = None,
    noted: Callable[[Run], None] = lambda run: None,
    launch: Callable[[Run, dict | None], None] | None = None,
) -> Run:
    """Start the run of what `prepare` gave; `noted` is told of it before anything of it is there (see `runs.create`).

    `launch` starts its worker, where that is not a process or a job of its own (compute/tasks.py).
    """
    order, memory, headline = prepared
    where = None
    if on is not None or workers is not None:
        from phidias_lab.compute import batch

        where = batch.where(on, registry.chain(order.chain).resources, workers)
    started = runs.create(order, order, title=headline, noted=noted)
    try:
        _reserve(order, started)
        if memory:
            order = order.with_(inputs={**order.inputs, **_store(started, memory)})
            runs.write_text(started.folder / "asked.json", order.dumps())
            runs.write_text(started.folder / "order.json", order.dumps())
        (launch or runs.launch)(started, where)
    except BaseException as error:
        started.clear_output(os.getpid())
        shutil.rmtree(started.folder, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, PhidiasError):
            raise runs.unwritable(started.folder, error) from None
        raise
    return started


def prepare(what: Any, *, inputs=None, title=None, output=None, format=None, overwrite=False, **parameters):
    """The complete order, the inputs that are in memory, and the title of a run to which none was given.

    Refuses what cannot work, as far as parameters and the metadata of the inputs tell; no data are read.
    """
    order = _order(what)
    chain_class = registry.chain(order.chain)
    _same_version(order, chain_class)
    chain = chain_class(**{**order.parameters, **parameters})
    references, memory = {}, {}
    given = {**order.inputs, **(inputs or {})}
    for name in given:
        if name not in chain_class.inputs:
            raise UnknownNameError(f"{order.chain} has no input {name!r}. {nearest(name, chain_class.inputs)}")
    for name, wanted in chain_class.inputs.items():
        value = given.get(name, wanted.default)
        if value is None:
            if wanted.optional:
                continue
            raise InputError(
                f"{order.chain} needs the input {name!r} ({wanted.kind}: {wanted.doc}). "
                "Give a catalogue entry, a file or data in memory."
            )
        if hasattr(value, "columns") or hasattr(value, "data_vars") or hasattr(value, "coords"):
            memory[name] = value
        else:
            references[name] = _settled(orders.reference(value, f"The input {name!r}"), name, _home(what))
    destination = dict(order.output)
    if output is not None:
        destination["path"] = str(output)
    if format is not None:
        destination["format"] = format
    if overwrite:
        destination["overwrite"] = True
    destination = _destination(destination, chain_class.kind)
    headline = _checked(chain, references, memory, _home(what))
    complete = Order(
        chain=order.chain,
        version=chain_class.version,
        parameters=chain.parameters,
        inputs=references,
        output=destination,
        title=title or order.title,
    )
    return complete, memory, headline


def _checked(chain: Chain, references: Mapping[str, dict], memory: Mapping[str, Any], home: Path | None) -> str | None:
    """Open the inputs lazily and check them, so that what metadata tell is refused now; gives the run's own title."""
    try:
        opened = dict(memory)
        for name, reference in references.items():
            from phidias_lab.lake import catalog

            opened[name] = catalog.look(_openable(reference, home))
        checked = chain.checked(opened)
        return chain.titled(checked)
    except PhidiasError:
        raise
    except Exception:  # noqa: BLE001 - a defect of a chain or driver: the worker meets it again and records it with its log
        return None


def tells(source: Run | Product, what: str) -> bool:
    """Whether `places` or `influences` can be asked of a run or product: its chain tells them, and its inputs open here."""
    from phidias_lab.lake import catalog

    try:
        order = source.order
        chain_class = registry.chain(order.chain)
        _same_version(order, chain_class)
        if getattr(chain_class, what) is getattr(Chain, what):
            return False
        for reference in order.inputs.values():
            catalog.look(_openable(reference, source.folder))
    except (PhidiasError, OSError):
        return False
    return True


def places(source: Run | Product) -> Any:
    """Where the values lie that a run used (see `Chain.places`); inputs that are no longer the same are refused."""
    return _asked_again(source, lambda chain, inputs: chain.places(inputs))


def observed(source: Run | Product, *more: str) -> Any:
    """The observations that a run used (see `Chain.observed`); inputs that are no longer the same are refused."""
    return _asked_again(source, lambda chain, inputs: chain.observed(inputs, *more), more)


def events(source: Run | Product) -> Any | None:
    """The events that the result of a run tells of, in the form of the lake's events table, or None where its chain tells
    of none (see `Chain.events`). `phidias_lab.lake.events.append` puts them there."""
    from phidias_lab.lake import events as table

    product = source.product if isinstance(source, Run) else source
    order, item = product.order, product.item
    chain = registry.chain(order.chain)(**order.parameters)
    tells = type(chain).events is not Chain.events or chain.kind == "events"
    found = chain.events(product.open()) if tells else None
    if found is None:
        return None
    return table.shaped(
        found,
        chain=order.chain,
        run=str(item["id"]),
        product=str(product.path),
        source=_measured(chain, order),
        synthetic=bool(item["properties"].get("phidias:synthetic")),
    )


def _measured(chain: Chain, order: Order) -> str:
    """The names of what an order's values come from: an event is named after the granule it was found in."""
    found = []
    for name, reference in order.inputs.items():
        if chain.inputs[name].role == "values":
            address = next(reference[kind] for kind in orders.REFERENCES if kind in reference)
            found.append(address.rsplit("/", 1)[-1] if "file" in reference else address)
    return ", ".join(found)


def influences(source: Run | Product, *, report: Callable[[float, str], None] | None = None, **cell: Any) -> Any:
    """What weighs in one cell of the result of a run (see `Chain.influences`), the weightiest first.

    >>> phidias_lab.influences(run, latitude=45, longitude=-12, depth=0, time="2010-02-15")    # doctest: +SKIP

    `report` is told how far it is. Inputs that are no longer the same are refused.
    """

    def ask(chain: Chain, inputs: dict) -> Any:
        chain.report = report or chain.report
        try:
            asked = inspect.signature(chain.influences).bind(inputs, **cell)
        except TypeError as error:
            raise InputError(
                f"A cell of {source.order.chain} is not named by {', '.join(cell) or 'nothing'}: {error}. Give a "
                "coordinate for each dimension of the result, such as latitude=45."
            ) from None
        return chain.influences(*asked.args, **asked.kwargs)

    found = _asked_again(source, ask)
    if found is None:
        raise InputError(
            f"{source.order.chain} does not tell what its values weigh. Ask a chain that declares influences."
        )
    return found


def _asked_again(source: Run | Product, ask: Callable[[Chain, dict], Any], more: tuple[str, ...] = ()) -> Any:
    """What the chain of a run says of its inputs, which are opened again, with `more` columns of its tables."""
    from phidias_lab.lake.unreadable import errors_of_reading

    order = source.order
    chain_class = registry.chain(order.chain)
    _same_version(order, chain_class)
    chain, checked, identities = _opened(chain_class(**order.parameters), order, source.folder, more)
    recorded = _recorded_inputs(source)
    for name, identity in identities.items():
        before = (recorded.get(name) or {}).get("checksum")
        if before and before != identity.get("checksum"):
            raise InputError(
                f"The input {name!r} has changed since this run, so it is not known any more which of its values were "
                "used. Run the order again."
            )
    with errors_of_reading("An input"):
        return ask(chain, checked)


def _recorded_inputs(source: Run | Product) -> Mapping[str, Mapping]:
    """What is recorded of the inputs that a run had: by the run, else in the history of its product."""
    if isinstance(source, Run):
        return source.record.get("inputs") or {}
    from phidias_lab.products import provenance

    return {} if source.folder is None else provenance.inputs(runs.read_json(source.folder / "provenance.json"))


def known_form(form: str) -> None:
    if form not in FORMS:
        raise UnknownNameError(f"A run is not exported as {form!r}. {nearest(form, FORMS)}")


def exported(source: Run | Product, form: str) -> str:
    """A "notebook" or "script" that makes the product of this run again, as text."""
    from phidias_lab.products import export as texts

    return getattr(texts, form)(source.order, source.folder / "inputs" if isinstance(source, Run) else None)


def export(
    source: Run | Product,
    path: str | Path,
    form: str = "seadatanet",
    *,
    attributes: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a run or product into a file; returns what there is to say of it, one sentence each.

    `form` is "notebook" or "script", which make the product again, or "seadatanet": a gridded field with its error, masks,
    counts and observations as one NetCDF file in SeaDataNet's manner, or "l1b": selected spectra as files of level 1B of
    Sentinel-5P, one for each granule they are from, in the folder `path`. `attributes` are added to files as global ones.
    """
    from phidias_lab.products import Product

    if not isinstance(source, Run | Product):
        raise ParameterError(
            f"A run or a product is exported, and {kind_of(source)} was given. phidias_lab.runs() lists runs, and what "
            "run() gives is one."
        )
    known_form(form)
    try:
        path = Path(path).expanduser()
        path.resolve().exists()
    except (OSError, ValueError, TypeError) as error:
        said = as_sentence(error)
        raise ProductError(f"{path!r:.120} cannot be the name of a file: {said} Choose another.") from None
    files = form == "l1b"
    if path.is_dir() and not files:
        raise ProductError(f"{path} is a folder, and a file is to be written. Name a file in it.")
    if files and path.is_file():
        raise ProductError(f"{path} is a file, and a folder of files is to be written. Name a folder.")
    if path.exists() and not (path.is_file() or files):
        raise ProductError(f"{path} is no regular file, and would be replaced by one. Name another.")
    _check_apart(path, source.folder if isinstance(source, Run) else source.path)
    if path.exists() and not overwrite and not files:
        raise ProductError(
            f"{path} exists already. Choose another name, or allow it to be replaced (--overwrite, overwrite=True)."
        )
    if not path.parent.is_dir():
        raise ProductError(f"The folder {path.parent} does not exist. Make it, or choose another place.")
    if form in TEXTS:
        if attributes:
            raise ParameterError(f"Attributes are those of a NetCDF file; a {form} has none. Leave them out.")
        try:
            path.write_text(exported(source, form), encoding="utf-8")
        except OSError as error:
            raise ProductError(f"{path} cannot be written: {error.strerror}. Choose another place.") from None
        return []
    from phidias_lab.products import l1b, seadatanet

    product = source.product if isinstance(source, Run) else source
    _check_apart(path, product.path)
    if files:
        return l1b.export(product, path, attributes, overwrite)
    seadatanet.check(product, attributes)
    remarks, uses = [], None
    try:
        uses = seadatanet.Uses(product.open(), observed(source, *seadatanet.IDENTITIES))
    except (PhidiasError, OSError) as error:
        remarks.append(f"The file is without the observations and their counts in each cell: {as_sentence(error)}")
    seadatanet.write(product, path, uses, attributes)
    return remarks


def _check_apart(path: Path, exported: Path) -> None:
    if path.resolve().is_relative_to(Path(exported).resolve()):
        raise ProductError(f"{path} is, or lies in, what is exported, and that would be lost. Name a file elsewhere.")


def _openable(reference: Mapping, home: Path | None) -> Mapping:
    """A reference that the catalogue opens; what is stored with a run is a file like any other."""
    return {"file": str(_stored_file(reference, home))} if "stored" in reference else reference


def _opened(
    chain: Chain, order: Order, home: Path | None, more: tuple[str, ...] = ()
) -> tuple[Chain, dict[str, Any], dict[str, dict]]:
    """The chain with every open choice made, its checked inputs with what it needs of them, and their identities.

    Of the columns in `more` a table has those that there are, beside what the chain needs.
    """
    opened, identities = {}, {}
    for name, reference in order.inputs.items():
        opened[name], identities[name] = _open(reference, home)
    checked = chain.checked(opened)
    needs = chain.needs(checked)
    for name, needed in needs.items():
        there = [column for column in more if column in opened[name].columns]
        needed = needed.unconverted(opened[name], checked[name]).with_columns(there)
        opened[name], _ = _open(order.inputs[name], home, needed)
    if needs:
        checked = chain.checked(opened)
    return chain.resolved(checked), checked, identities


def _same_version(order: Order, chain_class: type[Chain]) -> None:
    if order.version and order.version != chain_class.version:
        raise ParameterError(
            f"The order asks for version {order.version!r} of {order.chain}; version {chain_class.version!r} is installed. "
            f'Install the package that has {order.version!r}, or set "version": "{chain_class.version}" in the order '
            "after reading what changed."
        )


def _order(what: Any) -> Order:
    if isinstance(what, Order):
        return orders.from_document(what.document())
    if isinstance(what, Chain):
        return Order(_registered(type(what)), what.version, what.parameters)
    if isinstance(what, type) and issubclass(what, Chain):
        return Order(_registered(what), what.version)
    if isinstance(what, Mapping):
        return orders.from_document(what)
    if isinstance(what, Path) or (isinstance(what, str) and what.endswith(".json")):
        return orders.load(what)
    if isinstance(what, str):
        return Order(what, "")
    raise ParameterError(
        f"A run is asked for by a chain's id, a chain, an order or an order file; got {kind_of(what)}."
    )


def _registered(cls: type[Chain]) -> str:
    chain_id = registry.id_of(cls)
    if chain_id is not None:
        return chain_id
    raise ParameterError(
        f"{cls.__name__} is not registered, so no worker could find it. Declare it in the entry-point group "
        f"{registry.GROUP!r} of a package (docs/do/add-a-chain.md); or call the chain itself, which records no run."
    )


def _home(what: Any) -> Path | None:
    """Where stored inputs of an order file lie: beside it."""
    if isinstance(what, Path) or (isinstance(what, str) and what.endswith(".json")):
        return Path(what).absolute().parent
    return None


def _settled(reference: dict, name: str, home: Path | None) -> dict:
    """A reference that means the same from any folder; what does not exist is refused now and not in the worker."""
    if "entry" in reference:
        from phidias_lab.lake import catalog

        catalog.checked_parameters(reference["entry"], reference.get("parameters") or {})
    elif "file" in reference and "://" not in reference["file"]:
        from phidias_lab.lake import readers

        path = Path(reference["file"]).expanduser().absolute()
        if not path.exists() and not (readers.is_pattern(path.name) and readers.find(str(path))):
            raise InputError(
                f"The input {name!r} names the file {path}, which does not exist. Check the path; a catalogue entry is "
                "written like ocean.observations."
            )
        reference = {"file": str(path)}
    elif "stored" in reference:
        _stored_file(reference, home)
    return reference


def _stored_file(reference: Mapping, home: Path | None = None) -> Path:
    """The file of data that were in memory: beside its order, else in any run that holds the same checksum."""
    stored, digest = Path(reference["stored"]).name, reference.get("sha256")
    places = [home / "inputs"] if home else []
    places += [run.folder / "inputs" for run in runs.runs()]
    for place in places:
        if (place / stored).is_file() and (digest is None or _sha256(place / stored) == digest):
            return place / stored
    raise InputError(
        f"The order's input {stored!r} was in memory when the order was made and is stored with its run, which is not "
        f"found below {settings.runs_root()}. Give the run's folder back, or name another input."
    )


def _store(run: Run, memory: Mapping[str, Any]) -> dict[str, dict]:
    """Keep inputs that are in memory with the run, under their checksum, so that the order stays complete."""
    from phidias_lab.lake import memory as in_memory

    folder = run.folder / "inputs"
    references = {}
    try:
        folder.mkdir(exist_ok=True)
        for name, value in memory.items():
            written = in_memory.store(value, folder, name)
            digest = _sha256(written)
            final = written.with_name(f"{name}-{digest[:12]}{written.suffix}")
            os.replace(written, final)
            references[name] = {"stored": final.name, "sha256": digest}
    except OSError as error:
        if isinstance(error, PhidiasError):
            raise
        raise runs.unwritable(run.folder, error) from None
    return references


def _sha256(path: Path) -> str:
    import hashlib

    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Where the product goes ---------------------------------------------------------------------------------------------


def _destination(output: dict, kind: str) -> dict:
    from phidias_lab import products

    formats = products.formats(kind)
    path = output.get("path")
    if path is not None:
        if not str(path).strip():
            raise ProductError(
                "The output path is empty; it must name a file or a folder. Name one, or leave the output out."
            )
        try:
            path = output["path"] = str(Path(path).expanduser().absolute())
        except RuntimeError:  # ~nobody
            raise ProductError(f"{path} names a home folder that does not exist. Choose another output path.") from None
        if not Path(path).name:
            raise ProductError(f"{path} is where all files are, and no product. Choose another output path.")
    if path is not None and output.get("format") is None:
        suffix = Path(path).suffix.lower()
        output["format"] = next((f for f in formats if products.SUFFIXES.get(f) == suffix), None)
    if output.get("format") is None:
        output["format"] = formats[0]
    if output["format"] not in formats:
        raise ParameterError(
            f"The format {output['format']!r} does not suit a product of kind {kind}. "
            f"{nearest(output['format'], formats)}"
        )
    return output


def _reserve(order: Order, run: Run) -> None:
    """Claim the path a product is to appear at, so that two runs never write the same one."""
    if not order.output.get("path"):
        return
    path = Path(order.output["path"])
    for name, reference in order.inputs.items():
        if reference.get("file") and Path(reference["file"]).resolve() == path.resolve():
            raise ProductError(
                f"{path} is the input {name!r} of this run and is not replaced. Choose another output path."
            )
    try:
        _may_appear(path, bool(order.output.get("overwrite")))
        if not path.parent.is_dir():
            raise ProductError(f"The folder {path.parent} does not exist. Make it, or choose another output path.")
        with runs.alone_in(path.parent):  # else two could take over the same stale claim
            claim = runs.claim_of(path)
            owner = runs.owner_of(claim)
            if owner is not None and owner != run and owner.status in (runs.WAITING, RUNNING):
                raise ProductError(
                    f"Another run ({owner.id}) is writing {path} at this moment. "
                    "Wait for it, cancel it, or choose another output path."
                )
            _clear_after_the_dead(path)
            _may_appear(path, bool(order.output.get("overwrite")))
            runs.write_text(claim, str(run.folder))
    except OSError as error:
        if isinstance(error, PhidiasError):
            raise
        raise ProductError(f"{path} cannot be written: {error.strerror}. Choose another output path.") from None


def _exists_already(path: Path) -> ProductError:
    return ProductError(f"{path} exists already. Choose another name, or allow it to be replaced (overwrite).")


def _may_appear(path: Path, overwrite: bool) -> None:
    """Refuse a path that is taken. Only a product or a plain file is ever replaced: overwrite is no leave to delete."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not overwrite:
        raise _exists_already(path)
    if stat.S_ISREG(mode):
        return
    if not stat.S_ISDIR(mode):
        raise ProductError(f"{path} is neither a file nor a folder, so it is not replaced. Choose another output path.")
    # Where somebody stands or keeps everything is no product, whatever files lie in it.
    for kept in (Path.cwd(), Path.home(), settings.runs_root()):
        if path.resolve() in (kept.resolve(), *kept.resolve().parents):
            raise ProductError(
                f"{path} holds more than a product ({kept}) and is not replaced. Choose another output path."
            )
    if not _is_product(path):
        raise ProductError(
            f"{path} is a folder that is no product, and only a product folder (item.json and order.json) or a .zarr store "
            "is replaced. Choose another output path."
        )


def _is_product(folder: Path) -> bool:
    if folder.suffix.lower() == ".zarr":
        return (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()
    item, order = (runs.read_json(folder / name) for name in ("item.json", "order.json"))
    return item.get("type") == "Feature" and "stac_version" in item and "chain" in order


def _clear_after_the_dead(path: Path) -> None:
    """What a worker left beside its output when it was killed while it published; nobody else is at this path now."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.old-[0-9]*"):
        if path.exists():
            runs.remove_path(old)
        else:  # it was about to be replaced
            os.replace(old, path)
    for partial in path.parent.glob(f".{glob.escape(path.name)}.partial-[0-9]*"):
        runs.remove_path(partial)


def _publish(order: Order, product_folder: Path) -> None:
    """Copy the product to the path that was asked for, in one step as seen from outside."""
    path = order.output.get("path")
    if not path:
        return
    from phidias_lab.products import Product

    target = Path(path)
    source = Product(product_folder).path if target.suffix else product_folder
    temporary = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        # Again: much may have appeared there since the run was asked for.
        _may_appear(target, bool(order.output.get("overwrite")))
        if not order.output.get("overwrite"):
            _put(temporary, target)
        elif target.exists() and (target.is_dir() or temporary.is_dir()):
            old = target.with_name(f".{target.name}.old-{os.getpid()}")
            os.replace(target, old)
            try:
                os.replace(temporary, target)
            except BaseException:
                os.replace(old, target)
                raise
            runs.remove_path(old)
        else:
            os.replace(temporary, target)
    except (OSError, PhidiasError):
        runs.remove_path(temporary)
        raise


def _put(temporary: Path, target: Path) -> None:
    """Rename, but never onto something: unlike a rename, a link and a new folder fail where a name is taken."""
    try:
        if temporary.is_dir():
            target.mkdir()
            os.replace(temporary, target)
            return
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(temporary, target)
        else:
            temporary.unlink()
    except FileExistsError:
        raise _exists_already(target) from None


# What the worker does -----------------------------------------------------------------------------------------------


#: Bytes that a run keeps so that on a full disk there is room to record why it failed.
_SPARE = 65536
_STORAGE = tuple(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EIO", "ENOTDIR", "EISDIR", "ENOTEMPTY")
)


class _Watch(threading.Thread):
    """Sign of life, progress on disk, and an ear for the request to stop."""

    def __init__(self, run: Run):
        super().__init__(daemon=True)
        self.run_ = run
        self.lock = threading.Lock()
        self.latest: dict[str, Any] = {"fraction": 0.0, "message": "starting"}
        self.written: dict[str, Any] = {}
        self.over = threading.Event()
        self.too_late = False  # to stop: the product is in place

    def report(self, fraction: float, message: str = "") -> None:
        with self.lock:
            # What is done stays done: a chain that counts its own steps may start again from nothing.
            if message and message != self.latest["message"] and not message.startswith("piece "):
                print(runs.now(), message, flush=True)  # into the run's log
            self.latest = {
                **self.latest,
                "fraction": min(1.0, max(self.latest["fraction"], float(fraction))),
                "message": str(message)[:200],
            }

    def begin_pieces(self, fraction: float) -> None:
        with self.lock:
            self.latest = {**self.latest, "pieces_since": time.time(), "pieces_from": fraction}

    def run(self) -> None:
        beat = 0.0
        while not self.over.wait(0.1):
            if (self.run_.folder / "cancel").exists():
                self.stop()
            with contextlib.suppress(OSError):
                if self.latest != self.written:
                    self.written = self.latest
                    runs.write_json(self.run_.folder / "progress.json", self.written)
                if time.time() - beat > 5:
                    (self.run_.folder / "heartbeat").touch()
                    beat = time.time()

    def stop(self) -> None:
        """Leave at once, whatever the chain is doing: what is finished stays, what is half written goes."""
        with self.lock:
            if self.too_late:
                return
            for _ in range(50):  # another thread may still be writing there
                self.run_.clear_unfinished()
                if not (self.run_.folder / "product.partial").exists():
                    break
            self.run_.clear_output(os.getpid())
            (self.run_.folder / "spare").unlink(missing_ok=True)
            self.run_.add_state(CANCELLED, measures=_measures(self.run_))
            os._exit(130)


def execute(run: Run) -> str:
    """Do a run in this process and record it; gives the state."""
    from phidias_lab.compute import batch, environment

    if not run.record.get("states"):
        run.add_state(runs.WAITING, at=runs.read_json(run.folder / "launched.json").get("asked"))
    run.add_state(RUNNING, worker=environment.worker(), lab=os.environ.get("PHIDIAS_LAB"), **batch.facts(run))
    spare = run.folder / "spare"
    with contextlib.suppress(OSError):
        spare.write_bytes(os.urandom(_SPARE))
    watch = _Watch(run)
    watch.start()
    try:
        _produce(run, watch)
        state, more = DONE, {}
    except PhidiasError as error:
        state, more = FAILED, {"error": _failure(error)}
        _log_traceback(error)
    except MemoryError as error:
        sentence = (
            f"The chain ran out of memory ({error}). Choose a smaller region or period, or a machine with more memory."
        )
        state, more = FAILED, {"error": {"sentence": sentence, "kind": "MemoryError", "exit_code": 5}}
        _log_traceback(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a chain raises is recorded and said, never lost
        if isinstance(error, OSError) and error.errno in _STORAGE:
            state, more = FAILED, {"error": _failure(runs.unwritable(_place(run, error), error))}
        else:
            log = f"The run's log ('phidias runs log {run.id}') tells where."
            sentence = f"{type(error).__name__} in the chain: {as_sentence(error)} {log}"
            state, more = FAILED, {"error": {"sentence": sentence, "kind": type(error).__name__, "exit_code": 5}}
        _log_traceback(error)
    watch.over.set()
    watch.join()
    with watch.lock:
        if state != DONE:
            run.clear_unfinished()
        spare.unlink(missing_ok=True)
        run.clear_output(os.getpid())
        run.add_state(state, measures=_measures(run), **more)
    return state


def _failure(error: PhidiasError) -> dict:
    return {"sentence": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}


def _log_traceback(error: BaseException) -> None:
    import traceback

    with contextlib.suppress(OSError):  # the disk may be full of which the error speaks
        traceback.print_exception(error)


def _place(run: Run, error: OSError) -> Path:
    """What could not be written: the file the error names, where it names one, else the run's folder."""
    named = error.filename2 or error.filename
    return Path(os.fsdecode(named)) if isinstance(named, str | bytes) else run.folder


def _measures(run: Run) -> dict:
    from phidias_lab.compute import environment

    return environment.measures(run.record)


def _produce(run: Run, watch: _Watch) -> None:
    from phidias_lab import products
    from phidias_lab.compute import batch, environment, pieces, worker
    from phidias_lab.lake.unreadable import errors_of_reading

    facts = environment.facts(settings.checkout_root())
    order = orders.load(run.folder / "order.json")
    chain_class = registry.chain(order.chain)
    _same_version(order, chain_class)
    _reserve(order, run)  # again: a run that is resumed gave its claim back
    watch.report(0.01, "opening the inputs")
    chain, checked, identities = _opened(chain_class(**order.parameters), order, run.folder)
    headline = chain.titled(checked)
    order = order.with_(parameters=chain.parameters)
    runs.write_text(run.folder / "order.json", order.dumps())
    seeds = {n: v for n, v in chain.parameters.items() if n == "seed" or n.endswith("_seed")}
    record = run.record
    record.update(facts=facts, inputs=identities, seeds=seeds, order_sha256=order.digest(), title=headline)
    runs.write_json(run.folder / "record.json", record)

    threads = max(1, min(chain_class.resources.cores, environment.cores()))
    chain.report = lambda fraction, message="": watch.report(0.02 + 0.08 * fraction, message)
    watch.report(0.02, "preparing")
    if chain_class.kind == "cube":
        _same_work(run.folder / "work", order, identities)
    share = _Shares(watch)
    with errors_of_reading("An input"), contextlib.ExitStack() as ended:
        known = 0

        def finish(cube: Any, folder: Path, report: Callable[[float, str], None]) -> Any:
            nonlocal known
            found, there = pieces.finish(cube, folder, report, threads, crew())
            known += there
            return found

        @functools.cache
        def crew() -> batch.Crew | None:
            return ended.enter_context(batch.crew(run, lambda text: watch.report(0.0, text)))

        def keep(name: str, cube: Any) -> Any:
            tell = share.next()
            return finish(cube, run.folder / "work" / name, lambda done, text: tell(done, f"{text} ({name})"))

        if chain_class.kind == "cube":
            chain.keep = keep
        result = chain.stamped(chain.run(**checked), checked)
        record = run.record
        record["said"] = chain.said.document()
        runs.write_json(run.folder / "record.json", record)
        for line in said.lines_of(record["said"]):
            print(runs.now(), line, flush=True)
        if chain_class.kind == "cube":
            result, workers = finish(result, run.folder / "work", share.last()), crew()
            devices = [worker.devices()] if workers is None else workers.devices()
            for sentence in (sentence for device in devices for sentence in device["computed"]):
                chain.said.remark(sentence)
            if workers is not None:
                record["where"] = {**(run.record.get("where") or {}), "devices": devices}
            record["said"] = chain.said.document()
            runs.write_json(run.folder / "record.json", record)
            for sentence in chain.said.remarks:
                print(runs.now(), sentence, flush=True)
            if known:
                print(f"{known} finished pieces were found and are used again")
        elif hasattr(result, "compute"):
            attrs = dict(getattr(result, "attrs", None) or {})
            result = result.compute()
            result.attrs = {**attrs, **result.attrs}
    watch.report(0.92, "writing the product")
    partial = run.folder / "product.partial"
    shutil.rmtree(partial, ignore_errors=True)
    states = run.record["states"]
    facts = {
        **facts,
        "run": run.id,
        "title": headline,
        "started": next(s["time"] for s in reversed(states) if s["state"] == RUNNING),
        "ended": runs.now(),
        "inputs": identities,
        "seeds": seeds,
    }
    partial.mkdir()
    product = products.write(
        result, partial, chain=chain_class.describe(), order=order, facts=facts, format=order.output.get("format")
    )
    record = run.record
    record["checksums"] = product.checksums
    with watch.lock:  # from here on a request to stop comes too late
        shutil.rmtree(run.folder / "product", ignore_errors=True)  # of an attempt that was killed just here
        os.replace(partial, run.folder / "product")
        try:
            _publish(order, run.folder / "product")
            runs.write_json(run.folder / "record.json", record)
        except BaseException:
            os.replace(run.folder / "product", partial)
            raise
        watch.too_late = True
        shutil.rmtree(run.folder / "work", ignore_errors=True)
    watch.report(1.0, "done")


class _Shares:
    """Which part of the progress bar each stage of a run's pieces fills, when nobody knows how many stages will come."""

    def __init__(self, watch: _Watch):
        self.watch, self.at = watch, 0.1

    def next(self) -> Callable[[float, str], None]:
        return self._filling(self.at + (0.9 - self.at) / 4)

    def last(self) -> Callable[[float, str], None]:
        return self._filling(0.9)

    def _filling(self, end: float) -> Callable[[float, str], None]:
        start, self.at = self.at, end
        self.watch.begin_pieces(start)
        return lambda fraction, text: self.watch.report(start + (end - start) * fraction, text)


def _same_work(work: Path, order: Order, identities: Mapping[str, dict]) -> None:
    """Finished pieces are used again only for the same order (its chain's version in it) and the same input data."""
    import hashlib

    made_of = {"order": order.digest(), "inputs": {name: dict(found) for name, found in identities.items()}}
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    note = work / "key.json"
    if work.is_dir() and runs.read_json(note).get("key") != key:
        if any(work.rglob("piece-*")):
            print("the order or the data of an input changed, so the finished pieces are removed and computed again")
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    runs.write_json(note, {"key": key})


def _open(reference: Mapping, home: Path | None, needs: Needs | None = None) -> tuple[Any, dict]:
    from phidias_lab.lake import catalog

    if "entry" in reference:
        return catalog.open_entry(reference["entry"], reference.get("parameters") or {}, needs)
    if "stored" in reference:
        path = _stored_file(reference, home)
        data, identity = catalog.open_file(str(path), needs)
        return data, {**identity, "stored": reference["stored"], "checksum": reference.get("sha256")}
    return catalog.open_file(reference["file"], needs)


def main(argv: list[str]) -> int:
    run = Run(argv[0])
    with runs.sole_worker(run) as alone:
        if not alone:
            print(runs.now(), "another process works on this run; this one leaves it alone", flush=True)
            return 1
        return 0 if execute(run) == DONE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
