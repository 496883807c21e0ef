"""The door to Hydra: overrides to configs, and its errors to one line. Nothing else touches OmegaConf."""

import math
import re
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from extrap.config import Config
from extrap.errors import UserError, nearest, one_line

CONF = Path(__file__).parents[1] / "conf"
ConfigStore.instance().store(name="schema", node=Config)
MOST_CELLS = 10_000  # more are a slip
# what Hydra itself writes down about a command
TOLD_BY_HYDRA = re.compile(r"overrides\.task$|runtime\.choices\.|job\.override_dirname$|sweeper\.params(\.|$)")
# what composing raises besides its own errors: broken YAML, names that no file can have, choices that are no names
NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, LookupError, ArithmeticError,
                RecursionError)  # fmt: skip


def parse(composed: DictConfig) -> Config:
    """A composed config as dataclasses. Raises UserError for a value of the wrong type or size."""
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        if found := re.search(r"Environment variable '(\w+)' not found", str(error)):
            raise UserError(
                f"{found[1]} is not set, and this experiment needs it: {found[1]}=... make ...; what it is says the head "
                "of the experiment's file in conf/experiment"
            ) from error
        raise UserError(_one_line(error)) from error
    assert isinstance(config, Config)
    for prefix, part in (("", config), *((f"{f.name}.", getattr(config, f.name)) for f in fields(config))):
        if is_dataclass(part) and (extra := set(vars(part)) - {f.name for f in fields(part)}):
            raise UserError(f"{prefix}{min(extra)}: no such option; {nearest(min(extra), [f.name for f in fields(part)])}")
    return config


def compose_grid(overrides: list[str]) -> list[Config]:
    """Every cell of the sweep that these Hydra overrides ask for, in Hydra's order. Raises UserError."""
    with _composing(overrides) as (parser, given, hydra, allowed):
        params = hydra.sweeper.params or {}
        swept = _checked(parser.parse_overrides([f"{key}={value}" for key, value in params.items()]), launcher=False)
        configs = []
        for cell in _cells([*swept, *given]):
            composed = compose("config", overrides=cell, return_hydra_config=True)
            _refuse_foreign(composed.hydra, allowed, cell)
            with open_dict(composed):
                del composed["hydra"]
            configs.append(parse(composed))
        return configs


def compose_launcher(overrides: list[str]) -> dict[str, Any]:
    """The engine that these overrides ask for, as a spec. Raises UserError."""
    with _composing(overrides) as (_, _, hydra, _):
        return typing.cast(dict[str, Any], OmegaConf.to_container(hydra.launcher, resolve=True))


@contextmanager
def _composing(overrides: list[str]) -> Iterator[tuple[OverridesParser, list[Override], DictConfig, dict[str, Any]]]:
    """Hydra made ready: the overrides read, Hydra's own section as they make it, and as they may; errors as UserError.

    An experiment may come from a stranger, and Hydra calls whatever class that section names: it has to be the project's,
    but for what is swept, which launcher it is, and options of the launcher.
    """
    for override in overrides:
        if override.startswith("-"):
            raise UserError(f"{override}: expected option=value, found a flag; none of Hydra's are taken")
    try:
        with _hydra() as loader:
            parser = OverridesParser.create(config_loader=loader)
            given = _checked(parser.parse_overrides(overrides))
            fixed = [str(o.input_line) for o in given if not o.is_sweep_override()]
            hydra = compose("config", overrides=fixed, return_hydra_config=True).hydra
            allowed = _allowed(hydra.runtime.choices["hydra/launcher"], fixed)
            _refuse_foreign(hydra, allowed, fixed)
            yield parser, given, hydra, allowed
    except NOT_COMPOSED as error:
        raise UserError(_explain(error, overrides)) from error


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def _checked(overrides: list[Override], launcher: bool = True) -> list[Override]:
    """Raises UserError for an override of Hydra itself: only the launcher may be chosen, once for all cells."""
    for o in overrides:
        if (CONF / o.key_or_group).is_dir() and not (
            o.is_delete() or isinstance(o.value(), str | list | dict | Sweep | Glob)
        ):
            raise UserError(f"{o.input_line}: expected a name out of conf/{o.key_or_group}")
        options = re.fullmatch(r"hydra/launcher|hydra\.launcher(\.[A-Za-z]\w*)+", o.key_or_group)
        fine = launcher and options and not o.package and not o.is_sweep_override()
        if (re.match(r"hydra\b", o.key_or_group) and not fine) or re.match(r"hydra\b", o.package or ""):
            raise UserError(f"{o.input_line}: of hydra only hydra/launcher=NAME and hydra.launcher.OPTION=VALUE can be set")
    return overrides


def _cells(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every cell, in Hydra's order. Raises UserError for none, and for more than anybody means."""
    n_cells = math.prod(map(_n_values, {o.get_key_element(): o for o in overrides}.values()))
    if not 1 <= n_cells <= MOST_CELLS:
        raise UserError(f"expected a sweep of 1 to {MOST_CELLS:,} runs, found {n_cells:,}")
    return [list(cell) for cell in BasicSweeper.split_arguments(overrides, None)[0]]


def _n_values(override: Override) -> int:
    values = override.value()
    if isinstance(values, RangeSweep):  # which may be too long to be listed
        if not values.step:
            raise UserError(f"{override.input_line}: expected a step other than 0")
        return max(0, math.ceil((values.stop - values.start) / values.step))  # type: ignore[operator]
    return sum(1 for _ in override.sweep_string_iterator()) if override.is_discrete_sweep() else 1


def _allowed(launcher: str, overrides: list[str]) -> dict[str, Any]:
    """Hydra's own section as the project and these overrides make it, whatever an experiment says."""
    plain = ["~experiment", f"hydra/launcher={launcher}", *_of_hydra(overrides)]
    return dict(_dotted(OmegaConf.to_container(compose("config", overrides=plain, return_hydra_config=True).hydra)))


def _of_hydra(overrides: list[str]) -> list[str]:
    return [line for line in overrides if re.match(r"[+~]*hydra\b", line)]


def _refuse_foreign(hydra: DictConfig, allowed: dict[str, Any], overrides: list[str]) -> None:
    """Raises UserError where a config makes more of Hydra than choosing a launcher and giving numbers to its options."""
    found = dict(_dotted(OmegaConf.to_container(hydra)))
    allowed = allowed | {"overrides.hydra": _of_hydra(overrides)}  # Hydra applies this list to every cell
    for key in {**allowed, **found}:
        number = key.startswith("launcher.") and type(found.get(key)) in (bool, int, float)
        if found.get(key) != allowed.get(key) and not number and not TOLD_BY_HYDRA.match(key):
            raise UserError(
                f"hydra.{key}: found {found.get(key)!r}; of hydra an experiment may set sweeper.params, the launcher, and "
                "numbers for its options"
            )
    for key, _ in _dotted(OmegaConf.to_container(hydra.launcher, resolve=True)):
        if "._" in key:  # Hydra would call what it names
            raise UserError(f"hydra.launcher.{key}: an option of a launcher is a plain value")


def _explain(error: Exception, overrides: list[str]) -> str:
    text = _one_line(error).partition(" See https://hydra.cc")[0]
    if unreadable := text.partition("LexerNoViableAltException: ")[2].rstrip("^ "):
        return (
            f"cannot read {unreadable}; a value with spaces or other signs takes quotes of its own, as in 'name=\"a value\"'"
        )
    if found := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, option = found.groups()
        with _hydra() as loader:
            names = loader.get_group_options(group)
        if names:
            return f"{group}={option}: no such {group}; {nearest(option, names)}"
    if "'hydra/launcher/submitit_" in text:
        return (
            "hydra/launcher=slurm: hydra-submitit-launcher is not installed; make sweep LAUNCHER=slurm does that, "
            "and without make: pip install -c constraints.txt -e '.[slurm]'"
        )
    if found := re.search(r"Could not override '(hydra\.launcher\.[^']+)'", text):
        return f"{found[1]}: this launcher has no such option; conf/hydra/launcher/NAME.yaml shows those that each has"
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]}: no such option; {nearest(found[1], _options())}"
    if error.__cause__ and "rror merging" in text:
        text = text.partition("rror merging override ")[2] + ": " + one_line(str(error.__cause__).partition("full_key")[0])
    return text


def _options() -> list[str]:
    """Every option of the default config, dotted, and the groups."""
    with _hydra():
        composed = OmegaConf.to_container(compose("config"))
    return [*(key for key, _ in _dotted(composed)), *(path.name for path in CONF.iterdir() if path.is_dir())]


def _dotted(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        yield from _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def _one_line(error: BaseException) -> str:
    text, _, place = str(error).partition("full_key: ")
    key = place.split("\n")[0]
    return one_line(text if key in text else f"{key}: {text}") or type(error).__name__
