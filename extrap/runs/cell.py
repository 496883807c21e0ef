"""Cells of a sweep, each with all that its config names, checked before anything is trained."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from extrap.config.schema import Config
from extrap.config.specs import build
from extrap.data.base import HeldOut, Source
from extrap.data.documents import Documents, Stored, store
from extrap.errors import UserError, nearest
from extrap.extensions.controls import EXTENSIONS
from extrap.model.encoder import n_parameters
from extrap.objectives import Objective
from extrap.positions.base import Geometry, PositionScheme
from extrap.results.folders import refuse_changed, refuse_mixed, refuse_other_config
from extrap.results.provenance import Run, refuse_to_lose
from extrap.results.rows import GROUP
from extrap.runs.digest import program_digest, scheme_digest
from extrap.score.protocols import PROTOCOLS
from extrap.score.references import labels
from extrap.testing import check_scheme
from extrap.train import distributed
from extrap.train.device import physical_memory, pick_device, pick_precision


class Cell(NamedTuple):
    """A config, the objects that it names, all that the answers depend on, the digest of the data included, and what of the
    data it uses and holds back.
    """

    config: Config
    source: Source
    objective: Objective
    identity: dict[str, Any]
    used: dict[str, Any]
    held_back: HeldOut | None  # of the training text, to choose on among what varies; nothing where nothing does

    @property
    def is_finished(self) -> bool:
        return (self.config.folder / "eval.csv").exists() or self.has_diverged

    @property
    def has_diverged(self) -> bool:
        return (self.config.folder / "diverged.txt").exists()


def prepare(config: Config, *, stored: bool = False) -> Cell:
    """The objects that a config names; `stored`: with the documents that store_documents left for the runs.

    Raises UserError for what they refuse.
    """
    objective = build(config.objective, "objective", "extrap.objectives")
    if not isinstance(objective, Objective):
        raise UserError(f"objective._target_: expected an objective, found {config.objective['_target_']}")
    sizes = _sizes(config, objective)
    source = (_stored(config, sizes) if stored else None) or build(config.data, "data", "extrap.data")
    if not isinstance(source, Source):
        raise UserError(f"data._target_: expected a source of tokens, found {config.data['_target_']}")
    source.check(**sizes)
    identity = _identity(config, source.describe(), program_digest())
    used = source.usage(**sizes)
    held_back: HeldOut | None = None
    if config.vary:
        n_scored = config.eval.n_segments * max(config.eval.lengths)
        held_back = source.hold_back(sizes["train_len"], -(-n_scored // config.train.train_len))
        used |= {"held_back_tokens": held_back.tokens.size if held_back else 0}
    return Cell(config, source, objective, identity, used, held_back)


def _sizes(config: Config, objective: Objective) -> dict[str, int]:
    """Of what is asked of a source, in tokens: the training sequences and the held-out segments."""
    extra = objective.extra_tokens
    return {
        "train_len": config.train.train_len + extra,
        "seg_len": max(config.eval.lengths) + extra,
        "n_segments": config.eval.n_segments,
    }


def _store(config: Config) -> Path:
    return config.folder.parent / "data"


def _stored(config: Config, sizes: dict[str, int]) -> Stored | None:
    try:
        return Stored(_store(config), config.data | sizes)
    except (OSError, LookupError):  # data that are no documents, or a run that no sweep has started
        return None


def _identity(config: Config, data: dict[str, Any], code: str) -> dict[str, Any]:
    """All that answers depend on: the digests of data and code and the precision of this machine included."""
    identity = config.identity() | {"code": code, "scheme_code": scheme_digest(config.position)}
    identity["data"] |= data
    identity["train"]["precision"] = pick_precision(config.train.precision, pick_device(config.runtime.device)).value
    return identity


def prepare_grid(configs: list[Config]) -> list[Cell]:
    """All cells, each of them checked. Raises UserError for the first thing that is wrong anywhere."""
    _check_names(configs)
    cells: list[Cell] = []
    prepared: dict[str, Cell] = {}  # data are read once
    for config in configs:
        key = repr((config.data, config.objective, config.train.train_len, config.eval))
        if key not in prepared:
            prepared[key] = prepare(config)
        known = prepared[key]
        identity = _identity(config, known.identity["data"], known.identity["code"])
        cells.append(Cell(config, known.source, known.objective, identity, known.used, known.held_back))
    for cell in cells:
        _check(cell)
    _check_schemes(cells)
    refuse_mixed(configs[0].folder.parent, {cell.config.run: cell.identity for cell in cells})
    refuse_to_lose(configs[0].results, cells[0].identity, {_labelled(config) for config in configs})
    _check_disk(cells)
    _check_writable(configs[0])
    return cells


def _labelled(config: Config) -> Run:
    columns = labels(config)
    return config.scheme, *(columns[column] for column in GROUP), config.seed


def store_documents(cell: Cell) -> None:
    """Writes the documents for the runs of a sweep, which then need not read the data again."""
    if isinstance(cell.source, Documents):
        of = cell.config.data | _sizes(cell.config, cell.objective)
        store(cell.source, cell.used, _store(cell.config), of)


def _check_names(configs: list[Config]) -> None:
    seen: dict[str, Config] = {}
    for config in configs:
        if config.results != configs[0].results:
            raise UserError(
                "a sweep has one report: expected one name and runtime.results_dir for all its cells, found "
                f"{configs[0].results} and {config.results}"
            )
        try:
            config.folder.exists()
        except OSError as error:
            raise UserError(f"{config.folder}: no folder can have this name ({error.strerror})") from error
        other = seen.setdefault(config.run, config)
        if other is not config:
            raise UserError(
                f"two cells of this sweep would share the run folder {config.folder}: nothing that rows would show "
                "tells them apart; give each value once, or a sweep of its own, with another name=..."
            )


def _check(cell: Cell) -> None:
    config = cell.config
    for protocol in config.eval.protocols:
        if protocol not in PROTOCOLS:
            raise UserError(f"eval.protocols: no protocol {protocol}; {nearest(protocol, PROTOCOLS)}")
    if "pseudo" in config.eval.protocols and cell.objective.causal:
        raise UserError("eval.protocols: pseudo masks tokens one at a time; expected objective=mlm, found a causal one")
    longest, train_len = max(config.eval.lengths), config.train.train_len
    if "position" in config.eval.protocols and not cell.objective.causal and longest < 2 * train_len:
        raise UserError(
            "eval.lengths: position counts tokens from the nearer end of the longest; to reach the training length "
            f"expected at least 2 * train.train_len={2 * train_len} among them, found {config.eval.lengths}"
        )
    for extension in config.eval.extensions:
        if extension not in EXTENSIONS:
            raise UserError(f"eval.extensions: no extension {extension}; {nearest(extension, EXTENSIONS)}")
    n_scored = cell.objective.scored_share * config.eval.n_targets * config.eval.n_segments
    if "same_targets" in config.eval.protocols and n_scored < 10:
        raise UserError(
            f"eval.n_targets: {config.eval.n_targets} targets in each of {config.eval.n_segments} segments come to about "
            f"{n_scored:.0f} scored tokens, expected at least 10: raise eval.n_targets or eval.n_segments"
        )
    if config.train.batch_size < distributed.n_processes():
        raise UserError(
            f"train.batch_size: expected at least one sequence a process, found {config.train.batch_size} for "
            f"{distributed.n_processes()} processes; start fewer"
        )
    _check_memory(cell)
    refuse_other_config(config.folder, cell.identity)
    if cell.is_finished:
        refuse_changed(config.folder)


def _check_schemes(cells: list[Cell]) -> None:
    """Each scheme once in each setting, unless all its runs are over."""
    checked: set[Run] = set()
    for cell in cells:
        config = cell.config
        if (labelled := _labelled(config)[:-1]) not in checked and not cell.is_finished:
            checked.add(labelled)
            check_scheme(partial(build_scheme, config, cell.objective.causal), max(config.eval.lengths))


def _n_params(cell: Cell) -> int:
    """Without the memory for them. Raises UserError for what the scheme refuses."""
    config, source, objective, *_ = cell
    try:
        with torch.device("meta"):  # sizes alone
            scheme = build_scheme(config, objective.causal)
    except UserError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
        scheme = build_scheme(config, objective.causal)  # it may look at numbers while it is built
    n_params = n_parameters(config.model, objective.n_inputs(source.vocab_size), source.vocab_size)
    return n_params + sum(parameter.numel() for parameter in scheme.parameters())


def _check_memory(cell: Cell) -> None:
    """Only what plainly cannot fit is refused: weights and tokens, without all that is computed from them."""
    config, n_params = cell.config, _n_params(cell)
    on_gpu = pick_device(config.runtime.device).type != "cpu"  # where gradients and the two moments of AdamW are then
    batch, held_out = config.train.batch_size * config.train.train_len, config.eval.n_segments * max(config.eval.lengths)
    memory = physical_memory()
    for option, what, size in (
        ("model", f"{n_params:,} parameters", n_params * (4 if on_gpu else 16)),
        ("train.batch_size", f"batches of {batch:,} tokens", 8 * batch),
        ("eval.n_segments", f"{held_out:,} held-out tokens", 8 * held_out),
    ):
        if size > memory:
            raise UserError(
                f"{option}: {what} take {size / 2**30:,.0f} GiB and more, this machine has {memory / 2**30:,.0f} GiB"
            )


def _check_writable(config: Config) -> None:
    for folder in (config.results, config.folder.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".writable-{os.getpid()}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise UserError(f"runtime.results_dir: cannot write to {folder} ({error.strerror})") from error


def _check_disk(cells: list[Cell]) -> None:
    """Weights of all runs to come, and of one at least a checkpoint while it replaces the one before."""
    sizes = [4 * _n_params(cell) for cell in cells if not cell.is_finished]
    needed = sum(sizes) + 6 * max(sizes, default=0)
    place = next(folder for folder in cells[0].config.folder.parents if folder.exists())
    disk = shutil.disk_usage(place)
    if disk.free < needed and disk.total:  # what has no size is no disk
        raise UserError(
            f"runtime.results_dir: weights and checkpoints take {needed / 2**20:,.0f} MiB, {place} has "
            f"{disk.free / 2**20:,.0f} MiB free; make room or choose another place"
        )


def build_scheme(config: Config, causal: bool) -> PositionScheme:
    """Raises UserError for sizes or arguments that the scheme refuses."""
    geometry = Geometry(config.model.d_model, config.model.n_heads, config.train.train_len, causal)
    scheme = build(config.position, "position", "extrap.positions", geometry=geometry)
    if not isinstance(scheme, PositionScheme):
        raise UserError(f"position._target_: expected a position scheme, found {config.position['_target_']}")
    return scheme
