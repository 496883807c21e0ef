"""A run: its config and all that this names."""

import contextlib
from typing import Any, NamedTuple

from extrap.config.schema import Config
from extrap.config.specs import build
from extrap.data.base import HeldOut, Source
from extrap.data.documents import Documents
from extrap.data.stored import Stored, kept_tokens, store
from extrap.objectives import Objective
from extrap.positions.base import Geometry, PositionScheme
from extrap.results.folders import RunFolder
from extrap.runs.digest import PROGRAM, scheme_digest
from extrap.train.device import pick_device, pick_precision


class Run(NamedTuple):
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
    def n_tokens(self) -> tuple[int, int]:
        """How many tokens can be read, and how many, or how many classes, are predicted."""
        return self.objective.n_inputs(self.source.vocab_size), self.objective.n_outputs(self.source.vocab_size)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.folder)


def prepare(config: Config, *, stored: bool = False) -> Run:
    """The run of a config; `stored`: with the documents that store_documents left for the runs of a sweep.

    Raises UserError for what the classes that the config names refuse.
    """
    objective: Objective = build(config.objective, "objective", "extrap.objectives", Objective)
    sizes = _sizes(config, objective)
    source: Source | None = None
    if stored:
        with contextlib.suppress(OSError, LookupError):  # data that are no documents, or a run that no sweep has started
            source = Stored(config.documents, config.data | sizes)
    source = source or build(config.data, "data", "extrap.data", Source, kept=kept_tokens(config.documents))
    used = source.usage(**sizes)
    held_back: HeldOut | None = None
    if config.vary:
        n_scored = config.eval.n_segments * max(config.eval.lengths)
        held_back = source.hold_back(sizes["train_len"], -(-n_scored // config.train.train_len))
        used |= {"held_back_tokens": held_back.tokens.size if held_back else 0}
    return Run(config, source, objective, _identity(config, source.describe()), used, held_back)


def prepare_all(configs: list[Config]) -> list[Run]:
    """The runs of a sweep; their data are read once."""
    runs, prepared = [], dict[str, Run]()
    for config in configs:
        key = repr((config.data, config.objective, config.train.train_len, config.eval))
        known = prepared.get(key) or prepared.setdefault(key, prepare(config))
        runs.append(known._replace(config=config, identity=_identity(config, known.identity["data"])))
    return runs


def _sizes(config: Config, objective: Objective) -> dict[str, int]:
    """Of what is asked of a source, in tokens: the training sequences and the held-out segments."""
    extra = objective.extra_tokens
    return {
        "train_len": config.train.train_len + extra,
        "seg_len": max(config.eval.lengths) + extra,
        "n_segments": config.eval.n_segments,
    }


def store_documents(run: Run) -> None:
    """Writes the documents for the runs of a sweep, which then need not read the data again."""
    if isinstance(run.source, Documents):
        store(run.source, run.used, run.config.documents, run.config.data | _sizes(run.config, run.objective))


def _identity(config: Config, data: dict[str, Any]) -> dict[str, Any]:
    """All that answers depend on: the digests of data and code and the precision of this machine included."""
    identity = config.identity() | {"code": PROGRAM, "scheme_code": scheme_digest(config.position)}
    identity["data"] |= data
    identity["train"]["precision"] = pick_precision(config.train.precision, pick_device(config.runtime.device)).value
    return identity


def build_scheme(config: Config, causal: bool) -> PositionScheme:
    """Raises UserError for sizes or arguments that the scheme refuses."""
    sizes = geometry(config, causal)
    scheme: PositionScheme = build(config.position, "position", "extrap.positions", PositionScheme, geometry=sizes)
    return scheme


def geometry(config: Config, causal: bool) -> Geometry:
    sizes = config.model
    return Geometry(sizes.d_model, sizes.n_heads, config.train.train_len, causal, sizes.n_layers)
