"""The door: Hydra composes, dataclasses travel. The one place that touches OmegaConf and turns names into objects."""

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from extrap.errors import UserError

CONF = Path(__file__).parents[1] / "conf"


class Precision(Enum):
    """Of matrix products while training; positions, softmax and losses are float32 or better in any case."""

    auto = "auto"  # bf16 where the machine has units for it, else fp32
    fp32 = "fp32"
    bf16 = "bf16"


class Device(Enum):
    auto = "auto"  # cuda where there is one
    cpu = "cpu"
    cuda = "cuda"


# Values stand in conf/ alone: a field without a default is one that conf/ must give.


@dataclass
class ModelConfig:
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    dropout: float
    tie: bool  # the output table is the input table

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
    lr: float  # at its peak
    warmup_steps: int
    weight_decay: float  # of linear weights only
    grad_clip: float  # largest gradient norm
    precision: Precision

    def __post_init__(self) -> None:
        _at_least(1, "train", self, "batch_size", "max_steps")
        _at_least(2, "train", self, "train_len")
        _at_least(0, "train", self, "warmup_steps", "weight_decay")
        for field in ("lr", "grad_clip"):
            if not 0 < getattr(self, field) < float("inf"):
                raise UserError(f"train.{field}: expected a positive number, found {getattr(self, field)}")
        if self.warmup_steps >= self.max_steps:
            raise UserError(
                f"train.warmup_steps: expected less than train.max_steps={self.max_steps}, found {self.warmup_steps}"
            )


@dataclass
class EvalConfig:
    protocols: list[str]
    lengths: list[int]  # tokens
    n_segments: int
    n_targets: int  # scored by same_targets in each segment

    def __post_init__(self) -> None:
        _at_least(1, "eval", self, "n_segments", "n_targets")
        if not self.protocols or not self.lengths:
            raise UserError("eval: expected at least one of eval.protocols and one of eval.lengths")
        if len(set(self.lengths)) < len(self.lengths) or len(set(self.protocols)) < len(self.protocols):
            raise UserError("eval: expected every one of eval.protocols and eval.lengths once, found one twice")
        if min(self.lengths) < self.n_targets:
            raise UserError(
                f"eval.n_targets: {self.n_targets} targets do not fit into the shortest of eval.lengths, {min(self.lengths)}"
            )


@dataclass
class RuntimeConfig:
    """What changes speed and places, not answers."""

    device: Device
    threads: int  # of one run
    checkpoint_every: int  # steps
    results_dir: str

    def __post_init__(self) -> None:
        _at_least(1, "runtime", self, "threads", "checkpoint_every")


@dataclass
class Config:
    """One cell. position, data and objective are specs: `_target_`, a class of this package, and its arguments."""

    name: str  # of the experiment: the folder below results/
    seed: int
    model: ModelConfig
    position: dict[str, Any]
    data: dict[str, Any]
    objective: dict[str, Any]
    train: TrainConfig
    eval: EvalConfig
    runtime: RuntimeConfig

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed: expected 0 to 2**31 - 1, found {self.seed}")
        if not re.fullmatch(r"[\w.-]{1,100}", self.name, re.ASCII) or not self.name.strip(".") or self.name == "runs":
            raise UserError(f"name: expected letters, digits, '_', '.' or '-' (and not 'runs'), found {self.name!r}")
        if self.train.train_len not in self.eval.lengths:
            raise UserError(
                f"eval.lengths: expected train.train_len={self.train.train_len} among them, to compare with; "
                f"found {self.eval.lengths}"
            )

    @property
    def scheme(self) -> str:
        return label(self.position)

    @property
    def run(self) -> str:
        """The run's name: for people, and unique within an experiment."""
        scheme = re.sub(r"[^\w.=]+", "-", self.scheme).strip("-")
        return f"{scheme}-seed{self.seed}"

    @property
    def results(self) -> Path:
        return Path(self.runtime.results_dir) / self.name

    @property
    def folder(self) -> Path:
        return Path(self.runtime.results_dir) / "runs" / self.name / self.run

    def identity(self) -> dict[str, Any]:
        """All of the config that answers depend on."""
        plain = asdict(self)
        return {key: plain[key] for key in ("seed", "model", "position", "data", "objective", "train", "eval")}


def _at_least(bound: int, group: str, config: object, *fields: str) -> None:
    for field in fields:
        if not getattr(config, field) >= bound:
            raise UserError(f"{group}.{field}: expected at least {bound}, found {getattr(config, field)}")


ConfigStore.instance().store(name="schema", node=Config)


def parse(composed: DictConfig) -> Config:
    """A composed config as dataclasses. Raises UserError for a value of the wrong type or size."""
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from error
    assert isinstance(config, Config)
    for prefix, part in (("", config), *((f"{f.name}.", getattr(config, f.name)) for f in fields(config))):
        if is_dataclass(part) and (extra := set(vars(part)) - {f.name for f in fields(part)}):
            raise UserError(f"{prefix}{min(extra)}: no such option; {nearest(min(extra), [f.name for f in fields(part)])}")
    return config


def compose_grid(overrides: list[str]) -> list[Config]:
    """Every cell of the sweep that these Hydra overrides ask for, in Hydra's order. Raises UserError."""
    try:
        with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
            parser = OverridesParser.create()
            fixed = [str(o.input_line) for o in parser.parse_overrides(overrides) if not o.is_sweep_override()]
            hydra = compose("config", overrides=fixed, return_hydra_config=True).hydra
            swept = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
            cells = BasicSweeper.split_arguments(parser.parse_overrides(swept + overrides), None)[0]
            return [parse(compose("config", overrides=list(cell))) for cell in cells]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error


def _explain(error: Exception, overrides: list[str]) -> str:
    text = _one_line(error)
    if found := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, option = found.groups()
        names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"{group}={option}: no such {group}; {nearest(option, names)}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]}: no such option; {nearest(found[1], _options())}"
    if error.__cause__ and "rror merging" in text:
        text = f"{_one_line(error).removeprefix('Error merging override ')}: {_one_line(error.__cause__)}"
    return text


def _options() -> list[str]:
    """Every option of the default config, dotted, and the groups."""

    def dotted(node: dict[str, Any], prefix: str = "") -> Iterable[str]:
        for key, value in node.items():
            yield from dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config"))
    assert isinstance(composed, dict)
    return [*dotted(typing.cast(dict[str, Any], composed)), *(path.name for path in CONF.iterdir() if path.is_dir())]


def nearest(name: str, names: Iterable[str]) -> str:
    """'did you mean ...?' or the whole choice, whichever helps."""
    names = list(names)
    if close := difflib.get_close_matches(name, names, n=3):
        return f"did you mean {' or '.join(close)}?"
    return f"expected one of {', '.join(names)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split("full_key")[0].split())


def target(spec: dict[str, Any], option: str, package: str) -> type:
    """The class that a spec names, which must be one of this package: a config cannot name any other code."""
    path = spec.get("_target_")
    module, _, name = str(path).rpartition(".")
    if not re.fullmatch(rf"{re.escape(package)}(\.[a-z]\w*)*", module, re.ASCII):
        raise UserError(f"{option}._target_: expected a class of {package}, found {path}")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{option}._target_: there is no {path}") from error
    if not inspect.isclass(cls):
        raise UserError(f"{option}._target_: expected a class, found {path}")
    return cls


def build(spec: dict[str, Any], option: str, package: str, **facts: Any) -> Any:
    """The object that a spec names; specs within it are built too, and `facts` go wherever a class asks for them.

    Raises UserError for an argument that the class does not have or of another type than its signature says.
    """
    cls = target(spec, option, package)
    parameters = inspect.signature(cls).parameters
    arguments = {key: value for key, value in facts.items() if key in parameters}
    for key, value in spec.items():
        if key == "_target_":
            continue
        if key not in parameters or key in facts:
            raise UserError(f"{option}.{key}: no such option; {nearest(key, set(parameters) - set(facts))}")
        if isinstance(value, dict):
            arguments[key] = build(value, f"{option}.{key}", package, **facts)
        else:
            arguments[key] = _typed(value, parameters[key].annotation, f"{option}.{key}")
    for key, parameter in parameters.items():
        if key not in arguments and parameter.default is parameter.empty:
            raise UserError(f"{option}.{key}: is missing; {cls.__name__} needs it")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def _typed(value: Any, annotation: Any, option: str) -> Any:
    if annotation is float and type(value) is int:
        value = float(value)
    wanted = typing.get_origin(annotation) or annotation
    items = typing.get_args(annotation)
    fits = type(value) is wanted and (wanted is not list or all(type(item) is items[0] for item in value))
    if not fits:
        name = wanted.__name__ if not items else str(annotation)
        raise UserError(f"{option}: expected {name}, found {value!r}")
    return value


def label(spec: dict[str, Any]) -> str:
    """How rows name a scheme: the class, the schemes within it, and every argument that is not its default.

    For example rope, rope(base=500000.0), local(rope), local(alibi, window=32).
    """
    cls = target(spec, "position", "extrap.positions")
    parameters = inspect.signature(cls).parameters
    shown = [label(value) for value in spec.values() if isinstance(value, dict)]
    for key, value in spec.items():
        if key in parameters and not isinstance(value, dict) and value != parameters[key].default:
            # 500000 and 500000.0 are one base
            shown.append(f"{key}={float(value) if parameters[key].annotation is float and type(value) is int else value}")
    return cls.__name__.lower() + (f"({', '.join(shown)})" if shown else "")
