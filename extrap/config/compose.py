"""The door to Hydra: overrides to configs, and its errors to one line. Nothing else touches OmegaConf."""

import copy
import math
import re
import textwrap
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from extrap.config.overrides import as_typed, texts
from extrap.config.scales import at_scale, dotted, experiments, names, sizes
from extrap.config.schema import Config, in_tokens
from extrap.errors import UserError, nearest, one_line

CONF = Path(__file__).parents[2] / "conf"
ConfigStore.instance().store(name="schema", node=Config)
MOST_CELLS = 10_000  # more are a slip
# what Hydra itself writes down about a command
TOLD_BY_HYDRA = re.compile(r"overrides\.task$|runtime\.choices\.|job\.override_dirname$|sweeper\.params(\.|$)")
# options of a scheme, a source, an objective: which there are depends on the choice
OF_A_CHOICE = re.compile(r"(position|data|objective)[.@]")
COMPARED = re.compile(r"seed$|position($|[.@])")  # by one table
# what composing raises besides its own errors: broken YAML, names that no file can have, choices that are no names
NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, LookupError, ArithmeticError,
                RecursionError)  # fmt: skip


def parse(composed: DictConfig) -> Config:
    """A composed config as dataclasses. Raises UserError for a value of the wrong type or size."""
    try:
        multiples, lengths = composed.eval.multiples, composed.eval.lengths
        if multiples and lengths:
            raise UserError(
                f"eval.lengths and eval.multiples: expected one of them, found {lengths} and {multiples}; set the other to []"
            )
        if multiples:
            composed.eval.lengths = in_tokens(multiples, composed.train.train_len)
            composed.eval.multiples = []
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


class Grid(NamedTuple):
    """What overrides ask for."""

    configs: list[Config]  # of every cell, in Hydra's order
    launcher: dict[str, Any]  # the engine, as a spec
    overrides: list[str]  # as Hydra itself has to be told them


def compose_grid(overrides: list[str]) -> list[Config]:
    """Every cell of the sweep that these Hydra overrides ask for, in Hydra's order. Raises UserError."""
    return compose_sweep(overrides).configs


def compose_sweep(overrides: list[str]) -> Grid:
    """The same with the engine. Raises UserError."""
    with _composing(overrides) as door:
        chosen = door.chosen()
        planned = as_typed([f"{key}={value}" for key, value in (chosen.hydra.sweeper.params or {}).items()], CONF)
        swept = _checked(door.parser.parse_overrides(planned), launcher=False)
        fixed = {o.get_key_element() for o in swept}  # by the experiment, whatever the scale
        scaled = [line for line in door.sizes(chosen) if line.partition("=")[0] not in fixed]
        composed = [door.compose(cell) for cell in _cells([*door.read(scaled), *swept, *door.given])]
        launcher = typing.cast(dict[str, Any], OmegaConf.to_container(composed[0].hydra.launcher, resolve=True))
        if type(n_jobs := launcher.get("n_jobs", -1)) is not int:
            raise UserError(
                "hydra.launcher.n_jobs, which is JOBS of make: expected how many runs side by side, or -1 for as many as "
                f"there is room for; found {n_jobs!r}"
            )
        return Grid([*map(_parsed, composed)], launcher, [*scaled, *(str(o.input_line) for o in door.given)])


def _parsed(composed: DictConfig) -> Config:
    with open_dict(composed):
        del composed["hydra"]
    return parse(composed)


class _Door:
    """Hydra made ready for some overrides.

    An experiment may come from a stranger, and Hydra calls whatever class its own section names: it has to be the project's,
    but for what is swept, which launcher it is, and options of the launcher.
    """

    def __init__(self, overrides: list[str]) -> None:
        lines, self.scale = at_scale(_one_of_lengths(overrides), CONF)
        self.parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        self.given = self.read(as_typed(lines, CONF))
        self.bases: dict[tuple[str, ...], DictConfig] = {}
        self.allowed: dict[str, Any] = {}

    def read(self, lines: list[str]) -> list[Override]:
        return _checked(self.parser.parse_overrides(lines))

    def chosen(self) -> DictConfig:
        """The config with what is chosen for all cells, before any value is set."""
        return self.compose([line for line in self.fixed() if not OF_A_CHOICE.match(line.lstrip("+~"))], values=False)

    def fixed(self) -> list[str]:
        """What is the same for all cells."""
        return _split([o for o in self.given if not o.is_sweep_override()])[0]

    def sizes(self, chosen: DictConfig) -> list[str]:
        """What the scale sets, as overrides."""
        return sizes(self.scale, typing.cast(dict[str, Any], OmegaConf.to_container(chosen))) if self.scale else []

    def compose(self, lines: list[str], values: bool = True) -> DictConfig:
        """The config of a cell, Hydra's section in it: composed once for all that choose the same. Raises UserError."""
        base = None
        try:
            overrides = self.parser.parse_overrides(lines)
            choices = [str(o.input_line) for o in overrides if _is_choice(o)]
            base = self.bases.get(key := tuple(sorted(choices)))
            if base is None:
                base = compose("config", overrides=choices, return_hydra_config=True)
                self._refuse_foreign(base.hydra, [line for line in choices if re.match(r"[+~]*hydra\b", line)])
                self.bases[key] = base
            composed = copy.deepcopy(base)
            if values:
                ConfigLoaderImpl._apply_overrides_to_config([o for o in overrides if not _is_choice(o)], composed)
            return composed
        except NOT_COMPOSED as error:
            raise UserError(_explain(error, lines, base)) from error

    def _refuse_foreign(self, hydra: DictConfig, of_hydra: list[str]) -> None:
        """Raises UserError where a config makes more of Hydra than choosing a launcher and giving numbers to its options."""
        if not self.allowed:  # Hydra's own section as the project and these overrides make it, whatever an experiment says
            plain = ["~experiment", f"hydra/launcher={hydra.runtime.choices['hydra/launcher']}", *of_hydra]
            _refuse_misread(hydra.runtime.choices["experiment"])
            alone = compose("config", overrides=plain, return_hydra_config=True).hydra
            self.allowed = dict(dotted(OmegaConf.to_container(alone)))
        found = dict(dotted(OmegaConf.to_container(hydra)))
        allowed = self.allowed | {"overrides.hydra": of_hydra}  # Hydra applies this list to every cell
        for key in {**allowed, **found}:
            number = key.startswith("launcher.") and type(found.get(key)) in (bool, int, float)
            if found.get(key) != allowed.get(key) and not number and not TOLD_BY_HYDRA.match(key):
                raise UserError(
                    f"hydra.{key}: found {found.get(key)!r}; of hydra an experiment may set sweeper.params, the launcher, and "
                    "numbers for its options"
                )
        if called := next((key for key in found if key.startswith("launcher.") and "._" in key[len("launcher") + 1 :]), None):
            raise UserError(f"hydra.{called}: an option of a launcher is a plain value")  # Hydra would call what it names


@contextmanager
def _composing(overrides: list[str]) -> Iterator[_Door]:
    """Raises UserError for whatever Hydra does not read or compose."""
    for override in overrides:
        if override.startswith("-"):
            raise UserError(f"{override}: expected option=value, found a flag; none of Hydra's are taken")
        if override.endswith(","):
            raise UserError(f"{override}: ends with a comma; expected values without spaces between them: option=a,b")
        if re.fullmatch(r"[\w./-]+", override):
            raise UserError(f"{override}: expected option=value; a list takes no spaces: option=a,b")
    with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
        try:
            yield _Door(overrides)
        except NOT_COMPOSED as error:
            raise UserError(_explain(error, overrides, None)) from error


def _one_of_lengths(overrides: list[str]) -> list[str]:
    """The overrides of which the one of eval.lengths and eval.multiples that is given takes the place of the other."""
    given = {line.lstrip("+").partition("=")[0] for line in overrides} & {"eval.lengths", "eval.multiples"}
    if len(given) > 1:
        raise UserError("eval.lengths and eval.multiples: expected one of them, in tokens or in multiples of train.train_len")
    return [f"{option}=[]" for option in {"eval.lengths", "eval.multiples"} - given if given] + overrides


def _is_choice(override: Override) -> bool:
    """Of a file of conf/, or of Hydra itself."""
    is_group = (CONF / override.key_or_group).is_dir() and not isinstance(override.value(), dict)
    return is_group or override.key_or_group.startswith("hydra")


def _checked(overrides: list[Override], launcher: bool = True) -> list[Override]:
    """Raises UserError for an override of Hydra itself: only the launcher may be chosen, once for all cells."""
    for o in overrides:
        if (CONF / o.key_or_group).is_dir() and not (
            o.is_delete() or (o.value() and isinstance(o.value(), str)) or isinstance(o.value(), dict | Sweep | Glob)
        ):
            raise UserError(
                f"{o.input_line}: expected {o.key_or_group}=NAME, or names with commas and no brackets; "
                f"there are {', '.join(names(CONF, o.key_or_group))}"
            )
        options = re.fullmatch(r"hydra/launcher|hydra\.launcher(\.[A-Za-z]\w*)+", o.key_or_group)
        fine = launcher and options and not o.package and not o.is_sweep_override()
        if (re.match(r"hydra\b", o.key_or_group) and not fine) or re.match(r"hydra\b", o.package or ""):
            raise UserError(f"{o.input_line}: of hydra only hydra/launcher=NAME and hydra.launcher.OPTION=VALUE can be set")
    return overrides


def _cells(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every cell, in Hydra's order.

    Raises UserError for none, for more than anybody means, and for a sweep over what one table does not compare.
    """
    last = {o.get_key_element(): o for o in overrides}
    for key, o in last.items():
        if o.is_sweep_override() and not COMPARED.match(key.lstrip("+")):
            raise UserError(
                f"{o.input_line}: a sweep is over position, its options and seed, which one table compares; anything else "
                "takes a sweep for each value, under a name of its own: name=..."
            )
    n_cells = math.prod(map(_n_values, last.values()))
    if not 1 <= n_cells <= MOST_CELLS:
        raise UserError(f"expected a sweep of 1 to {MOST_CELLS:,} runs, found {n_cells:,}")
    return _split(overrides)


def _split(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every cell, each option once."""
    return [list(cell) for cell in BasicSweeper.split_arguments(overrides, None)[0]]


def _n_values(override: Override) -> int:
    values = override.value()
    if isinstance(values, RangeSweep):  # which may be too long to be listed
        if not values.step:
            raise UserError(f"{override.input_line}: expected a step other than 0")
        return max(0, math.ceil((values.stop - values.start) / values.step))  # type: ignore[operator]
    return sum(1 for _ in override.sweep_string_iterator()) if override.is_discrete_sweep() else 1


def described(overrides: list[str]) -> str:
    """What can be chosen, and every option with the value that it has with these overrides and otherwise."""
    with _composing(overrides) as door:
        sized = door.sizes(door.chosen())
        composed = door.compose(_split(door.read([*sized, *door.fixed()]))[0])
    groups = [group for group in composed.hydra.runtime.choices if "@" not in group and not group.startswith("hydra/")]
    lines = ["what can be chosen:"]
    lines += [f"  {group}={' | '.join(names(CONF, group))}" for group in [*groups, "hydra/launcher"]]
    lines.append(f"  experiment=NAME_{' | NAME_'.join(names(CONF, 'scale'))}: any of them at the sizes of conf/scale")
    lines.append("every option, and what it is with these choices:")
    with open_dict(composed):
        del composed["hydra"]
    for key, value in dotted(OmegaConf.to_container(composed, enum_to_str=True)):
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


def _explain(error: Exception, overrides: list[str], base: DictConfig | None) -> str:
    """One line on what Hydra has refused; `base` is the config before values were set in it."""
    text = _one_line(error).partition(" See https://hydra.cc")[0]
    if unreadable := text.partition("LexerNoViableAltException: ")[2].rstrip("^ "):
        return (
            f"cannot read {unreadable}; a value with spaces or other signs takes quotes of its own, as in 'name=\"a value\"'"
        )
    if (found := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)) and (there := names(CONF, found[1])):
        group, option = found.groups()
        asked = group == "experiment" and any(line.startswith("experiment=") and option in line for line in overrides)
        return f"{group}={option}: no such {group}; {nearest(option, experiments(CONF) if asked else there)}"
    if "'hydra/launcher/submitit_" in text:
        return (
            "hydra/launcher=slurm: hydra-submitit-launcher is not installed; make sweep LAUNCHER=slurm does that, "
            "and without make: pip install -c constraints.txt -e '.[slurm]'"
        )
    if found := re.search(r"Could not override '(hydra\.launcher\.[^']+)'", text):
        return f"{found[1]}: this launcher has no such option; conf/hydra/launcher/NAME.yaml shows those that each has"
    if (found := re.search(r"Could not override '([^']+)'", text)) and base is not None:
        return _no_such_option(found[1], base)
    if error.__cause__ and "rror merging" in text:
        text = text.partition("rror merging override ")[2] + ": " + one_line(str(error.__cause__).partition("full_key")[0])
    return text


def _no_such_option(key: str, base: DictConfig) -> str:
    """The line about an option that none of these choices has."""
    choices, plain = base.hydra.runtime.choices, typing.cast(dict[str, Any], OmegaConf.to_container(base))
    group, _, option = key.partition(".")
    if not option or not OF_A_CHOICE.match(key):
        known = [name for name, _ in dotted(plain) if not name.startswith("hydra.")]
        return f"{key}: no such option; {nearest(key, [*known, *(choice for choice in choices if '/' not in choice)])}"
    has = {name: OmegaConf.load(CONF / group / f"{name}.yaml") for name in names(CONF, group)}
    told = f"{key}: {group}={choices[group]} has no such option; "
    if others := [name for name, spec in has.items() if option.partition(".")[0] in spec]:
        return told + f"{' and '.join(f'{group}={name}' for name in others)} {'have' if others[1:] else 'has'}"
    known = [f"{group}.{name}" for name, _ in dotted(plain[group]) if name != "_target_"]
    return told + (nearest(key, known) if known else "it takes none")


def _one_line(error: BaseException) -> str:
    text, _, place = str(error).partition("full_key: ")
    key = place.split("\n")[0]
    return one_line(text if key in text else f"{key}: {text}") or type(error).__name__
