"""The door to Hydra: overrides to configs, and its errors to one line. Nothing else touches OmegaConf."""

import re
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from extrap.config import Config
from extrap.errors import UserError, nearest, one_line

CONF = Path(__file__).parents[1] / "conf"
ConfigStore.instance().store(name="schema", node=Config)


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
    with _composing(overrides) as (parser, hydra):
        swept = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
        cells = BasicSweeper.split_arguments(parser.parse_overrides(swept + overrides), None)[0]
        return [parse(compose("config", overrides=list(cell))) for cell in cells]


def compose_launcher(overrides: list[str]) -> dict[str, Any]:
    """The engine that these overrides ask for, as a spec. Raises UserError."""
    with _composing(overrides) as (_, hydra):
        return typing.cast(dict[str, Any], OmegaConf.to_container(hydra.launcher))


@contextmanager
def _composing(overrides: list[str]) -> Iterator[tuple[OverridesParser, DictConfig]]:
    """Hydra made ready, with its own settings as these overrides make them; its errors become a UserError."""
    try:
        with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
            parser = OverridesParser.create()
            fixed = [str(o.input_line) for o in parser.parse_overrides(overrides) if not o.is_sweep_override()]
            yield parser, compose("config", overrides=fixed, return_hydra_config=True).hydra
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


def _one_line(error: BaseException) -> str:
    return one_line(str(error).split("full_key")[0])
