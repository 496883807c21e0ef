"""The door to Hydra: overrides to configs, and its errors to one line. Nothing else touches OmegaConf."""

import math
import re
import textwrap
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

from extrap.config.overrides import as_typed, texts
from extrap.config.schema import Config, with_varied
from extrap.config.varied import SWEPT
from extrap.errors import UserError, nearest, one_line

CONF = Path(__file__).parents[2] / "conf"
ConfigStore.instance().store(name="schema", node=Config)
MOST_CELLS = 10_000  # more are a slip
# what Hydra itself writes down about a command
TOLD_BY_HYDRA = re.compile(r"overrides\.task$|runtime\.choices\.|job\.override_dirname$|sweeper\.params(\.|$)")
# options of a scheme, a source, an objective: which there are depends on the choice
OF_A_CHOICE = re.compile(r"(position|data|objective)[.@]")
COMPARED = re.compile(rf"seed$|(position|{'|'.join(SWEPT)})($|[.@])")  # by one report
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
        planned = as_typed([f"{key}={value}" for key, value in params.items()], CONF)
        swept = _checked(parser.parse_overrides(planned), launcher=False)
        configs = []
        for cell in _cells([*swept, *given]):
            try:
                composed = compose("config", overrides=cell, return_hydra_config=True)
            except NOT_COMPOSED as error:
                raise UserError(_explain(error, cell)) from error
            _refuse_foreign(composed.hydra, allowed, cell)
            with open_dict(composed):
                del composed["hydra"]
            configs.append(parse(composed))
        return with_varied(configs)


def compose_launcher(overrides: list[str]) -> dict[str, Any]:
    """The engine that these overrides ask for, as a spec. Raises UserError."""
    with _composing(overrides) as (_, _, hydra, _):
        launcher = typing.cast(dict[str, Any], OmegaConf.to_container(hydra.launcher, resolve=True))
    if type(n_jobs := launcher.get("n_jobs", -1)) is not int:
        raise UserError(
            f"hydra.launcher.n_jobs, which is JOBS of make: expected how many runs side by side, or -1 for as many as there "
            f"is room for; found {n_jobs!r}"
        )
    return launcher


@contextmanager
def _composing(overrides: list[str]) -> Iterator[tuple[OverridesParser, list[Override], DictConfig, dict[str, Any]]]:
    """Hydra made ready: the overrides read, Hydra's own section as they make it, and as they may; errors as UserError.

    An experiment may come from a stranger, and Hydra calls whatever class that section names: it has to be the project's,
    but for what is swept, which launcher it is, and options of the launcher.
    """
    for override in overrides:
        if override.startswith("-"):
            raise UserError(f"{override}: expected option=value, found a flag; none of Hydra's are taken")
        if override.endswith(","):
            raise UserError(f"{override}: ends with a comma; expected values without spaces between them: option=a,b")
        if re.fullmatch(r"[\w./-]+", override):
            raise UserError(f"{override}: expected option=value; a list takes no spaces: option=a,b")
    try:
        with _hydra() as loader:
            parser = OverridesParser.create(config_loader=loader)
            given = _checked(parser.parse_overrides(as_typed(overrides, CONF)))
            fixed = [str(o.input_line) for o in given if not o.is_sweep_override()]
            # whether a scheme has an option is known in each cell
            of_all = [line for line in fixed if not OF_A_CHOICE.match(line.lstrip("+~"))]
            hydra = compose("config", overrides=of_all, return_hydra_config=True).hydra
            _refuse_misread(hydra.runtime.choices["experiment"])
            allowed = _allowed(hydra.runtime.choices["hydra/launcher"], fixed)
            _refuse_foreign(hydra, allowed, of_all)
            yield parser, given, hydra, allowed
    except NOT_COMPOSED as error:
        raise UserError(_explain(error, overrides)) from error


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    if GlobalHydra.instance().is_initialized():  # by whoever explains an error of his own
        yield GlobalHydra.instance().config_loader()
        return
    with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def _checked(overrides: list[Override], launcher: bool = True) -> list[Override]:
    """Raises UserError for an override of Hydra itself: only the launcher may be chosen, once for all cells."""
    for o in overrides:
        if (CONF / o.key_or_group).is_dir() and not (
            o.is_delete() or (o.value() and isinstance(o.value(), str)) or isinstance(o.value(), dict | Sweep | Glob)
        ):
            names = sorted(path.stem for path in (CONF / o.key_or_group).glob("*.yaml"))
            raise UserError(
                f"{o.input_line}: expected {o.key_or_group}=NAME, or names with commas and no brackets; "
                f"there are {', '.join(names)}"
            )
        options = re.fullmatch(r"hydra/launcher|hydra\.launcher(\.[A-Za-z]\w*)+", o.key_or_group)
        fine = launcher and options and not o.package and not o.is_sweep_override()
        if (re.match(r"hydra\b", o.key_or_group) and not fine) or re.match(r"hydra\b", o.package or ""):
            raise UserError(f"{o.input_line}: of hydra only hydra/launcher=NAME and hydra.launcher.OPTION=VALUE can be set")
    return overrides


def _cells(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every cell, in Hydra's order.

    Raises UserError for none, for more than anybody means, and for a sweep over what rows do not tell.
    """
    last = {o.get_key_element(): o for o in overrides}
    for key, o in last.items():
        if o.is_sweep_override() and not COMPARED.match(key.lstrip("+")):
            raise UserError(
                f"{o.input_line}: a sweep is over seed, position, {', '.join(SWEPT)} and their options; anything else takes "
                "a sweep for each value, under a name of its own: name=..."
            )
    n_cells = math.prod(map(_n_values, last.values()))
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


def described(overrides: list[str]) -> str:
    """What can be chosen, and every option with the value that it has with these overrides and otherwise."""
    with _composing(overrides), _hydra() as loader:
        composed = compose("config", overrides=as_typed(overrides, CONF), return_hydra_config=True)
        groups = [group for group in composed.hydra.runtime.choices if not group.startswith("hydra/")]
        names = {group: loader.get_group_options(group) for group in [*groups, "hydra/launcher"] if "@" not in group}
    with open_dict(composed):
        del composed["hydra"]
    lines = ["what can be chosen:", *(f"  {group}={' | '.join(choices)}" for group, choices in names.items())]
    lines.append("every option, and what it is with these choices:")
    for key, value in _dotted(OmegaConf.to_container(composed, enum_to_str=True)):
        shown = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
        lines.append(f"  {key}={shown}")
    return "\n".join(textwrap.fill(line, 125, subsequent_indent="    ") for line in lines)


def _refuse_misread(experiment: str) -> None:
    """Raises UserError where YAML reads something else than what an experiment's file shows: 1e3 as 1000.0."""
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    for key in texts(CONF):
        node = yaml.compose(text)
        for part in key.split("."):
            node = next((value for name, value in _pairs(node) if name.value == part), None)
        for leaf in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(leaf, yaml.ScalarNode) and leaf.style is None and "${" not in leaf.value:
                read = OmegaConf.create(f"x: {leaf.value}").x
                if str(read) != leaf.value:
                    raise UserError(
                        f"conf/experiment/{experiment}.yaml: {key}: {leaf.value} is {read} in YAML; put it in quotes"
                    )


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


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
        return _no_such_option(found[1], overrides)
    if error.__cause__ and "rror merging" in text:
        text = text.partition("rror merging override ")[2] + ": " + one_line(str(error.__cause__).partition("full_key")[0])
    return text


def _no_such_option(key: str, overrides: list[str]) -> str:
    """The line about an option that none of these choices has."""
    with _hydra() as loader:
        chosen = [line for line in overrides if re.match(r"\w+=", line) and (CONF / line.partition("=")[0]).is_dir()]
        composed = compose("config", overrides=chosen, return_hydra_config=True)
        choices = composed.hydra.runtime.choices
        group, _, option = key.partition(".")
        if not option or not OF_A_CHOICE.match(key):
            return f"{key}: no such option; {nearest(key, options(composed))}"
        has = {name: OmegaConf.load(CONF / group / f"{name}.yaml") for name in loader.get_group_options(group)}
        told = f"{key}: {group}={choices[group]} has no such option; "
        if others := [name for name, spec in has.items() if option.partition(".")[0] in spec]:
            return told + f"{' and '.join(f'{group}={name}' for name in others)} {'have' if others[1:] else 'has'}"
        known = [f"{group}.{name}" for name, _ in _dotted(OmegaConf.to_container(composed[group])) if name != "_target_"]
        return told + (nearest(key, known) if known else "it takes none")


def options(composed: DictConfig) -> list[str]:
    """Every option of a composed config, dotted, and the groups."""
    keys = [key for key, _ in _dotted(OmegaConf.to_container(composed)) if not key.startswith("hydra.")]
    return [*keys, *sorted(path.name for path in CONF.iterdir() if path.is_dir())]


def _dotted(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        yield from _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def _one_line(error: BaseException) -> str:
    text, _, place = str(error).partition("full_key: ")
    key = place.split("\n")[0]
    return one_line(text if key in text else f"{key}: {text}") or type(error).__name__
