"""The config of one run as dataclasses, which check what can be checked without the data."""

import dataclasses
import re
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from extrap.config.choices import Device, Optimizer, Output, Precision, Schedule
from extrap.config.specs import label, without_defaults, written
from extrap.config.varied import SWEPT, TOLD, flat, named, slug, values_of, varied
from extrap.errors import UserError
from extrap.files import as_path

MOST = 2**31 - 1  # of any count: beyond it, products of two counts leave the whole numbers of 64 bits
NO_EXPERIMENTS = ("runs", "claims", "papers", "speed", "speed_schemes")  # what else stands below results/


# Values stand in conf/ alone: a field without a default is one that conf/ must give.


@dataclass
class ModelConfig:
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    dropout: float
    output: Output  # where the output table comes from

    def __post_init__(self) -> None:
        _at_least(1, "model", self, "d_model", "n_layers", "n_heads", "d_ff")
        if self.d_model % self.n_heads:
            raise UserError(f"model.n_heads: {self.n_heads} heads do not divide model.d_model={self.d_model}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout: expected a share from 0 to below 1, found {self.dropout}")


@dataclass
class TrainConfig:
    train_len: int  # tokens
    batch_size: int  # sequences a step
    max_steps: int
    mask_rate: float  # of tokens, hidden while a masked language model is trained; the objective has that of scoring
    optimizer: Optimizer
    lr: float  # AdamW's, at its peak
    muon_ratio: float  # of Muon's rate to lr
    schedule: Schedule
    warmup_steps: int
    weight_decay: float  # of linear weights that are AdamW's
    grad_clip: float  # largest gradient norm
    precision: Precision

    def __post_init__(self) -> None:
        _at_least(1, "train", self, "batch_size", "max_steps")
        _at_least(2, "train", self, "train_len")
        _at_least(0, "train", self, "warmup_steps", "weight_decay")
        if not 0 < self.mask_rate < 1:
            raise UserError(f"train.mask_rate: expected a share between 0 and 1, found {self.mask_rate}")
        for field in ("lr", "muon_ratio", "grad_clip"):
            if not 0 < getattr(self, field) < float("inf"):
                raise UserError(f"train.{field}: expected a positive number, found {getattr(self, field)}")
        if self.warmup_steps >= self.max_steps:
            raise UserError(
                f"train.warmup_steps: expected less than train.max_steps={self.max_steps}, found {self.warmup_steps}"
            )


@dataclass
class EvalConfig:
    protocols: list[str]
    extensions: Any  # conf/ names them, with arguments or without; in a config that is parsed, specs by label
    lengths: list[int]  # tokens
    windows: list[int]  # tokens: the lengths of `sliding`
    stride: int  # tokens, of `sliding`
    n_segments: int
    whole_every: int  # every k-th segment is read by all protocols, the others by same_targets and pseudo alone
    n_targets: int  # scored by same_targets at each of its places
    n_pseudo: int  # of the targets in the centre, masked one at a time by `pseudo`
    multiples: list[float] = dataclasses.field(default_factory=list)  # of train.train_len; parsed, they are lengths
    # beyond the training length extensions are scored at these multiples of it and at the longest length; none: everywhere
    extension_multiples: list[float] = dataclasses.field(default_factory=list)
    probes: list[str] = dataclasses.field(default_factory=list)  # what finished runs are looked into for; no row changes

    def __post_init__(self) -> None:
        _at_least(1, "eval", self, "n_segments", "whole_every", "n_targets", "stride", "n_pseudo")
        for name in ("lengths", "windows"):
            if not all(type(n) is int and 1 <= n <= MOST for n in getattr(self, name)):
                raise UserError(f"eval.{name}: expected numbers of tokens from 1 to 2**31 - 1, found {getattr(self, name)}")
        if not all(1 < multiple <= MOST for multiple in self.extension_multiples):
            raise UserError(
                f"eval.extension_multiples: expected multiples above 1 of train.train_len, found {self.extension_multiples}"
            )
        for name in ("protocols", "extensions", "probes"):
            if not all(type(n) is str for n in getattr(self, name)):
                raise UserError(f"eval.{name}: expected names, found {getattr(self, name)}")
        for name in ("protocols", "extensions", "lengths", "windows"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise UserError(f"eval.{name}: expected at least one, and each of them once, found {given}")
        if "none" not in self.extensions:
            raise UserError(
                f"eval.extensions: expected 'none' (no extension) among them, to compare with; found {self.extensions}"
            )
        if self.protocols == ["position"]:  # whose lengths are places in a text: no table could be made of them alone
            raise UserError(
                "eval.protocols: expected one of nonoverlap, same_targets, sliding, pseudo among them, "
                f"found {self.protocols}"
            )
        if {"same_targets", "pseudo", "recall"} & {*self.protocols, *self.probes} and min(self.lengths) < self.n_targets:
            raise UserError(
                f"eval.n_targets: {self.n_targets} targets do not fit into the shortest length scored, {min(self.lengths)} "
                "(eval.multiples, eval.lengths)"
            )
        if "pseudo" in self.protocols and self.n_pseudo > self.n_targets:
            raise UserError(f"eval.n_pseudo: expected at most eval.n_targets={self.n_targets}, found {self.n_pseudo}")
        if "sliding" in self.protocols and not self.stride <= min(self.windows) <= max(self.windows) <= max(self.lengths):
            raise UserError(
                f"eval.windows: expected each from eval.stride={self.stride} to the longest length scored, "
                f"{max(self.lengths)} (eval.multiples, eval.lengths); found {self.windows}"
            )

    def extended(self, eval_len: int, train_len: int) -> bool:
        """Whether extensions are scored at a length beyond the training length; always at the longest."""
        among = any(round(multiple * train_len, 6) == eval_len for multiple in self.extension_multiples)
        return among or not self.extension_multiples or eval_len == max(self.lengths)


@dataclass
class RuntimeConfig:
    """What changes speed and places, and answers by rounding alone: other threads and devices add up in another order."""

    device: Device
    threads: int  # of one run
    checkpoint_every: int  # steps
    results_dir: str

    def __post_init__(self) -> None:
        _at_least(1, "runtime", self, "threads", "checkpoint_every")
        if not self.results_dir.strip() or "\0" in self.results_dir:
            raise UserError(f"runtime.results_dir: expected a folder, found {self.results_dir!r}")
        self.results_dir = str(as_path(self.results_dir))


@dataclass
class Config:
    """The options of one run. position, data and objective are specs: see extrap/config/specs.py."""

    name: str  # of the experiment: the folder below results/
    seed: int
    model: ModelConfig
    position: dict[str, Any]
    data: dict[str, Any]
    objective: dict[str, Any]
    train: TrainConfig
    eval: EvalConfig
    runtime: RuntimeConfig
    vary: list[str]  # options beside position and seed in which the runs of this name differ

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MOST:
            raise UserError(f"seed: expected 0 to 2**31 - 1, found {self.seed}")
        if not re.fullmatch(r"[\w.-]{1,100}", self.name, re.ASCII) or not self.name.strip("."):
            raise UserError(f"name: expected 1 to 100 letters, digits, '_', '.' or '-', found {self.name!r}")
        if self.name in NO_EXPERIMENTS:
            raise UserError(
                f"name: expected a name other than {', '.join(NO_EXPERIMENTS)}, which are reserved; found {self.name!r}"
            )
        known = dict(flat(asdict(self)))
        for key in self.vary:  # which options data and objectives have depends on the choice
            if not re.match(r"(data|objective)($|\.)", key) and not (key in known and key.partition(".")[0] in SWEPT):
                raise UserError(f"vary: expected options of {', '.join(SWEPT)}, as train.lr; found {key}")
        for name in ("lengths", "windows") if "sliding" in self.eval.protocols else ("lengths",):
            if self.train.train_len not in (given := getattr(self.eval, name)):
                raise UserError(f"eval.{name}: expected train.train_len={self.train.train_len} among them, found {given}")

    @property
    def scheme(self) -> str:
        return label(self.position)

    @property
    def run(self) -> str:
        """The run's name: for people, and unique within an experiment."""
        return "-".join(filter(None, [slug(self.scheme), slug(named(self.varied)), f"seed{self.seed}"]))

    @property
    def varied(self) -> dict[str, Any]:
        """The options that vary in this sweep beside position and seed, and their values here."""
        return values_of(asdict(self), self.vary)

    @property
    def setting(self) -> str:
        """What rows say of them: lr=0.002, n_layers=4; what columns tell anyway is left out."""
        return named({key: value for key, value in self.varied.items() if key not in TOLD})

    @property
    def references(self) -> Path:
        """The folder of the rows of the references, which stands among those of the runs."""
        return self.folder.with_name("-".join(filter(None, ["reference", slug(named(self.varied))])))

    @property
    def documents(self) -> Path:
        """The folder of the documents as the runs map them; one for each where the sweep varies what they are."""
        of_data = {key: value for key, value in self.varied.items() if key.startswith("data")}
        return self.folder.with_name("-".join(filter(None, ["data", slug(named(of_data))])))

    @property
    def results(self) -> Path:
        return Path(self.runtime.results_dir) / self.name

    @property
    def folder(self) -> Path:
        return Path(self.runtime.results_dir) / "runs" / self.name / self.run

    def identity(self) -> dict[str, Any]:
        """All of the config that answers depend on."""
        plain = asdict(self) | {
            "position": written(self.position),
            "data": without_defaults(self.data, "data", "extrap.data"),
        }
        del plain["eval"]["multiples"]  # its lengths say it
        del plain["eval"]["probes"]  # of which no row knows
        for part in ("model", "train"):
            plain[part] = {key: value.value if isinstance(value, Enum) else value for key, value in plain[part].items()}
        plain["eval"]["extensions"] = [*self.eval.extensions]  # a label says all that is not the default
        keys = ("seed", "model", "position", "data", "objective", "train", "eval")
        return {key: plain[key] for key in (*keys, *(["vary"] if self.vary else []))}


def with_varied(configs: list[Config]) -> list[Config]:
    """The configs of a sweep, each told what they differ in, beside what it was told already."""
    vary = sorted({*varied([asdict(config) for config in configs]), *(key for config in configs for key in config.vary)})
    return [dataclasses.replace(config, vary=vary) for config in configs]


def in_tokens(multiples: list[float], train_len: int) -> list[int]:
    """These multiples of the training length. Raises UserError where one is no whole number of tokens."""
    lengths = []
    for multiple in multiples:
        tokens = round(multiple * train_len, 6)  # in decimals, as it was written
        if not 1 <= tokens <= MOST or tokens % 1:
            raise UserError(
                f"eval.multiples: {multiple:g} x train.train_len={train_len} is {multiple * train_len:g} tokens; expected a "
                "whole number from 1 to 2**31 - 1 (eval.lengths takes tokens)"
            )
        lengths.append(int(tokens))
    return lengths


def _at_least(bound: int, group: str, config: object, *fields: str) -> None:
    for field in fields:
        if not bound <= (value := getattr(config, field)) <= MOST:
            raise UserError(f"{group}.{field}: expected at least {bound} and at most 2**31 - 1, found {value}")
