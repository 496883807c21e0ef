"""Overrides to the configs of a sweep, and what can be chosen. With the door to Hydra, all that touches OmegaConf."""

import re
import textwrap
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from extrap.config.door import NOT_COMPOSED, Door, as_line, explained, of_runs, split
from extrap.config.outside import find, named
from extrap.config.overrides import items
from extrap.config.scales import names
from extrap.config.schema import MOST, Config, in_tokens, with_varied
from extrap.config.specs import REFERENCES, label, parameters_of
from extrap.config.varied import flat
from extrap.errors import UserError, nearest

PACKAGE = Path(__file__).parents[1]
CONF = (PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent) / "conf"  # installed, or in a checkout
ConfigStore.instance().store(name="schema", node=Config)


def parse(composed: DictConfig) -> Config:
    """A composed config as dataclasses. Raises UserError for a value of the wrong type or size."""
    try:
        with open_dict(composed):
            composed.pop("hydra", None)
        if not OmegaConf.is_list(composed.eval.extensions):
            raise UserError(f"eval.extensions: expected a list of names, found {composed.eval.extensions}")
        multiples, lengths = composed.eval.multiples, composed.eval.lengths
        if multiples and lengths:
            raise UserError(
                f"eval.lengths, eval.multiples: expected one of them, found {lengths}, {multiples}; set one to []"
            )
        if multiples and 1 <= (train_len := composed.train.train_len) <= MOST:  # or that is what is told
            composed.eval.lengths = in_tokens(multiples, train_len)
            composed.eval.multiples = []
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        if found := re.search(r"Environment variable '(\w+)' not found", str(error)):
            needs = f"{found[1]} is not set, and this experiment needs it: {found[1]}=... make ..."
            raise UserError(f"{needs}; the head of its file in conf/experiment says what it is") from error
        raise UserError(as_line(error)) from error
    assert isinstance(config, Config)
    for prefix, part in (("", config), *((f"{f.name}.", getattr(config, f.name)) for f in fields(config))):
        if is_dataclass(part) and (extra := set(vars(part)) - {f.name for f in fields(part)}):
            raise UserError(f"{prefix}{min(extra)}: no such option; {nearest(min(extra), [f.name for f in fields(part)])}")
    config.eval.extensions = extension_specs(config.eval.extensions)
    return config


def extension_specs(given: list[str]) -> dict[str, dict[str, Any]]:
    """By their labels the specs of what conf/extension names, with arguments or without; of `a+b` b after a.

    Raises UserError.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        called, spec = "none", dict[str, Any]()
        if text != "none":
            parts = [_extension(part, text) for part in items(text, between="+")]
            called, spec = "+".join(name for name, _ in parts), parts[0][1]
            for _, other in parts[1:]:
                spec = {"_target_": "extrap.extensions.base.Then", "first": spec, "second": other}
        if called in found:
            raise UserError(f"eval.extensions: expected each once, found {called} twice")
        found[called] = spec
    return found


def _extension(part: str, text: str) -> tuple[str, dict[str, Any]]:
    """Label and spec of one extension, NAME or NAME(option=value), of those that are asked for one after the other."""
    try:
        [(name, arguments)] = named(part)
    except (UserError, ValueError) as error:
        raise UserError(f"eval.extensions: expected NAME or NAME(option=value), found {text}") from error
    if name == "none":
        raise UserError(f"eval.extensions: {text}: none stands for no extension, and beside no other in a name")
    if name not in (there := names(CONF, "extension")):
        raise UserError(f"eval.extensions: no extension {name}; {nearest(name, ['none', *there])}")
    spec = yaml.safe_load((CONF / "extension" / f"{name}.yaml").read_text()) | arguments
    return label(spec, f"extension.{name}", "extrap.extensions"), spec


class Grid(NamedTuple):
    """What overrides ask for."""

    configs: list[Config]  # of every run, in Hydra's order
    launcher: dict[str, Any]  # the engine, as a spec
    overrides: list[str]  # as Hydra itself has to be told them


def compose_grid(overrides: list[str]) -> list[Config]:
    """The config of every run that these Hydra overrides ask for, in Hydra's order. Raises UserError."""
    return compose_sweep(overrides).configs


def compose_sweep(overrides: list[str]) -> Grid:
    """The same with the engine. Raises UserError."""
    with _composing(overrides) as door:
        chosen = door.chosen()
        swept = door.planned(chosen)
        told = {o.get_key_element() for o in swept}  # by the experiment, whatever the scale
        sized = [o for o in door.sized(chosen) if o.get_key_element() not in told]
        composed = [door.compose(run) for run in of_runs([*sized, *swept, *door.given])]
        launcher = typing.cast(dict[str, Any], OmegaConf.to_container(composed[0].hydra.launcher, resolve=True))
        return Grid(with_varied([*map(parse, composed)]), launcher, [str(o.input_line) for o in (*sized, *door.given)])


def with_schemes(overrides: list[str], beside: bool = True) -> list[str]:
    """The same for Hydra: what scheme=FILE.py:Class(option=value) names is one more choice of position, or the only one.

    Raises UserError for what is no scheme, or has the name of another in rows.
    """
    ConfigStore.instance().repo.pop("position", None)  # what an earlier call in this process has named
    given = [override for override in overrides if not override.startswith("scheme=")]
    places = [part for override in overrides if override not in given for part in named(override.partition("=")[2])]
    if not places:
        return given
    if not beside:
        return [f"position={','.join(_choices(places))}", *given]
    with _composing(given) as door:
        composed = door.chosen()
        chosen = [str(composed.hydra.runtime.choices["position"])]
        for o in [*door.planned(composed), *door.given]:
            if o.get_key_element() == "position":
                chosen = [*o.sweep_string_iterator()] if o.is_sweep_override() else [o.get_value_element_as_str()]
    there = {choice.strip("'\"") for choice in chosen}  # what stands in the sweep already stays what it is
    more = [choice for choice in _choices(places) if choice not in there]
    return [*given, f"position={','.join([*chosen, *more])}"]


def _choices(places: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Names of position for schemes of the project and for those of other files, which Hydra is told of."""
    ours = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "position").glob("*.yaml"))}
    targets = [str(spec["_target_"]) for spec in ours.values() if "_target_" in spec]  # others are options of one of these
    called = {target.rpartition(".")[2].lower(): f"that of {target}" for target in targets}
    called |= {choice: f"the choice position={choice}" for choice in ours if choice not in called}  # Hydra would take that
    called |= dict.fromkeys(REFERENCES.values(), "a reference")
    choices = []
    for place, arguments in places:
        if not re.search(r"\.py(:|$)", place):
            if place not in ours:
                raise UserError(f"scheme={place}: expected FILE.py:Class or a scheme of the project; {nearest(place, ours)}")
            if arguments:
                raise UserError(f"scheme={place}(...): options of a scheme of the project go into position.OPTION=VALUE")
            choices.append(place)
            continue
        scheme = find(place)
        name = scheme.name.lower()
        if (other := called.setdefault(name, own := f"that of {scheme.path}")) != own:
            raise UserError(f"scheme={place}: rows would call it {name}, as they call {other}; rename the class")
        choice = name if name not in choices else f"{name}-{len(choices)}"
        parameters = parameters_of(scheme.load(), f"scheme={place}")
        plain = {key: p.default for key, p in parameters.items() if _is_plain(p.default)}
        content: dict[Any, Any] = {"_target_": scheme} | plain | arguments
        node = DictConfig(content, flags={"allow_objects": True})  # which no file can have
        ConfigStore.instance().store(group="position", name=choice, node=node)
        choices.append(choice)
    return [*dict.fromkeys(choices)]


def _is_plain(value: object) -> bool:
    """Whether a config can say it."""
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, int | float | str | None)


def _one_of_lengths(overrides: list[str]) -> list[str]:
    """The overrides of which the one of eval.lengths and eval.multiples that is given takes the place of the other."""
    both = {"eval.lengths", "eval.multiples"}
    given = both & {line.lstrip("+").partition("=")[0] for line in overrides}
    return [f"{option}=[]" for option in both - given if given] + overrides


@contextmanager
def _composing(overrides: list[str]) -> Iterator[Door]:
    """Hydra made ready. Raises UserError for whatever it does not read or compose."""
    for override in overrides:
        if re.fullmatch(r"-.*|.*,|[\w./-]+", override, re.DOTALL):
            raise UserError(
                f"{override}: expected option=value, lists without spaces (option=a,b), and none of Hydra's flags"
            )
    with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
        try:
            yield Door(_one_of_lengths(overrides), CONF)
        except NOT_COMPOSED as error:
            raise UserError(explained(error, overrides, CONF)) from error


def described(overrides: list[str]) -> str:
    """What can be chosen, and every option with the value that it has with these overrides and otherwise."""
    with _composing(overrides) as door:
        composed = door.compose([*split(door.sized(door.chosen()))[0], *door.fixed()])
    groups = [group for group in composed.hydra.runtime.choices if "@" not in group and not group.startswith("hydra/")]
    lines = ["what can be chosen:"]
    lines += [f"  {group}={' | '.join(names(CONF, group))}" for group in [*groups, "hydra/launcher"]]
    lines.append(f"  experiment=NAME_{' | NAME_'.join(names(CONF, 'scale'))}   NAME at the sizes of conf/scale")
    lines.append(f"  eval.extensions=[none,NAME,NAME(option=value),NAME+NAME]   NAME={' | '.join(names(CONF, 'extension'))}")
    lines.append("every option, and what it is with these choices:")
    for key, value in flat(OmegaConf.to_container(composed, enum_to_str=True)):
        shown = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
        lines += [f"  {key}={shown}"] if not key.startswith("hydra.") else []
    return "\n".join(textwrap.fill(line, 125, subsequent_indent="    ") for line in lines)
