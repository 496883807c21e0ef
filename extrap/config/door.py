"""The door to Hydra: what it composes, what a config may make of it, and its errors in one line."""

import math
import pickle
import re
import typing
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from extrap.config.overrides import as_typed, texts
from extrap.config.scales import at_scale, experiments, names, sizes
from extrap.config.varied import SWEPT, flat
from extrap.errors import UserError, nearest, one_line

MOST_RUNS = 10_000  # more are a slip
# options of before, and what to say now
RENAMED = {"model.tie": "is model.output now, untied where it was false, tied or tied_head where it was true"}
# what Hydra itself writes down about a command
TOLD_BY_HYDRA = re.compile(r"overrides\.task$|runtime\.choices\.|job\.override_dirname$|sweeper\.params(\.|$)")
# options of a scheme, a source, an objective: which there are depends on the choice
OF_A_CHOICE = re.compile(r"(position|data|objective)[.@]")
COMPARED = re.compile(rf"seed$|(position|{'|'.join(SWEPT)})($|[.@])")  # by one report
# what composing raises besides its own errors: broken YAML, names that no file can have, choices that are no names
NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, LookupError, ArithmeticError,
                RecursionError)  # fmt: skip


class Door:
    """Hydra made ready for some overrides.

    An experiment may come from a stranger, and Hydra calls whatever class its own section names: it has to be the project's,
    but for what is swept, which launcher it is, and options of the launcher.
    """

    def __init__(self, overrides: list[str], conf: Path) -> None:
        self.conf, self.parser = conf, OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        told, self.scale = at_scale(overrides, conf)
        self.bases: dict[tuple[str, ...], bytes] = {}
        self.allowed: dict[str, Any] = {}
        self.texts = texts(conf)
        self.given = self.read(told)

    def read(self, overrides: list[str], launcher: bool = True) -> list[Override]:
        """Raises UserError for an override of Hydra itself: only the launcher may be chosen, once for all runs."""
        found = self.parser.parse_overrides([as_typed(override, self.texts) for override in overrides])
        for o in found:
            if (self.conf / o.key_or_group).is_dir() and not (
                o.is_delete() or (o.value() and isinstance(o.value(), str)) or isinstance(o.value(), dict | Sweep | Glob)
            ):
                raise UserError(
                    f"{o.input_line}: expected {o.key_or_group}=NAME, or names with commas and no brackets; "
                    f"there are {', '.join(names(self.conf, o.key_or_group))}"
                )
            if told := RENAMED.get(o.key_or_group):
                raise UserError(f"{o.input_line}: {told}")
            if o.key_or_group in ("scale", "extension"):
                told = "a scale ends the name of an experiment (experiment=main_gpu), extensions stand in eval.extensions"
                raise UserError(f"{o.input_line}: {told}")
            options = re.fullmatch(r"hydra/launcher|hydra\.launcher(\.[A-Za-z]\w*)+", o.key_or_group)
            fine = launcher and options and not o.package and not o.is_sweep_override()
            if (re.match(r"hydra\b", o.key_or_group) and not fine) or re.match(r"hydra\b", o.package or ""):
                raise UserError(
                    f"{o.input_line}: of hydra only hydra/launcher=NAME and hydra.launcher.OPTION=VALUE can be set"
                )
        return found

    def fixed(self) -> list[str]:
        """What is given for all runs."""
        return split([o for o in self.given if not o.is_sweep_override()])[0]

    def chosen(self) -> DictConfig:
        """The config with what is chosen for all runs, before any value is set."""
        of_all = [line for line in self.fixed() if not OF_A_CHOICE.match(line.lstrip("+~"))]
        return self.compose([line for line in of_all if self._is_choice(self.parser.parse_override(line))])

    def sized(self, chosen: DictConfig) -> list[Override]:
        """What the scale of the experiment sets."""
        return self.read(sizes(self.scale, OmegaConf.to_container(chosen))) if self.scale else []

    def planned(self, chosen: DictConfig) -> list[Override]:
        """What the experiment sweeps."""
        return self.read([f"{key}={value}" for key, value in (chosen.hydra.sweeper.params or {}).items()], launcher=False)

    def compose(self, lines: list[str]) -> DictConfig:
        """The config of a run, Hydra's section in it: composed once for all that choose the same. Raises UserError."""
        composed: DictConfig | None = None
        try:
            overrides = self.parser.parse_overrides(lines)
            choices = [str(o.input_line) for o in overrides if self._is_choice(o)]
            if (key := tuple(sorted(choices))) not in self.bases:
                base = compose("config", overrides=choices, return_hydra_config=True)
                self._refuse_foreign(base.hydra, [line for line in choices if re.match(r"[+~]*hydra\b", line)])
                self.bases[key] = pickle.dumps(base)  # loaded in a third of the time of a deep copy
            composed = pickle.loads(self.bases[key])  # noqa: S301  its own
            ConfigLoaderImpl._apply_overrides_to_config([o for o in overrides if not self._is_choice(o)], composed)
            return composed
        except NOT_COMPOSED as error:
            raise UserError(explained(error, lines, self.conf, composed)) from error

    def _is_choice(self, override: Override) -> bool:
        """Of a file of conf/, or of Hydra itself."""
        is_group = (self.conf / override.key_or_group).is_dir() and not isinstance(override.value(), dict)
        return is_group or re.match(r"hydra\b", override.key_or_group) is not None

    def _refuse_foreign(self, hydra: DictConfig, of_hydra: list[str]) -> None:
        """Raises UserError where a config makes more of Hydra than choosing a launcher and giving numbers to its options."""
        if not self.allowed:  # Hydra's own section as the project and these overrides make it, whatever an experiment says
            choices = hydra.runtime.choices
            file = self.conf / "experiment" / f"{choices['experiment']}.yaml"
            if not isinstance(name := OmegaConf.to_container(OmegaConf.load(file)).get("name", ""), str):  # type: ignore[union-attr]
                raise UserError(f"conf/experiment/{file.name}: name is {name} in YAML; put it in quotes")
            plain = [f"~{group}" for group in choices if not re.search("[@/]", group)]
            plain += [f"hydra/launcher={choices['hydra/launcher']}", *of_hydra]
            alone = compose("config", overrides=plain, return_hydra_config=True).hydra
            self.allowed = dict(flat(OmegaConf.to_container(alone)))
        found = dict(flat(OmegaConf.to_container(hydra)))
        allowed = self.allowed | {"overrides.hydra": of_hydra}  # Hydra applies this list to every run
        for key in {**allowed, **found}:
            number = key.startswith("launcher.") and type(found.get(key)) in (bool, int, float)
            if found.get(key) != allowed.get(key) and not number and not TOLD_BY_HYDRA.match(key):
                raise UserError(
                    f"hydra.{key}: found {found.get(key)!r}; of hydra an experiment may set sweeper.params, the launcher, "
                    "and numbers for its options"
                )
            if re.match(r"launcher\..*\._", key):  # Hydra would call what it names
                raise UserError(f"hydra.{key}: an option of a launcher is a plain value")


def of_runs(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every run, in Hydra's order.

    Raises UserError for none, for more than anybody means, and for a sweep over what rows do not tell.
    """
    last = {o.get_key_element(): o for o in overrides}
    for key, o in last.items():
        if o.is_sweep_override() and not COMPARED.match(key.lstrip("+")):
            raise UserError(
                f"{o.input_line}: a sweep is over seed, position, {', '.join(SWEPT)} and their options; anything else takes "
                "a sweep for each value, under a name of its own: name=..."
            )
    swept = [o.sweep_string_iterator() for o in last.values() if o.is_discrete_sweep()]
    n_runs = math.prod(len([*islice(values, MOST_RUNS + 1)]) for values in swept)
    if not 1 <= n_runs <= MOST_RUNS:
        raise UserError(f"expected a sweep of 1 to {MOST_RUNS:,} runs, found {'more' if n_runs else 'none'}")
    return split(overrides)


def split(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every run, each option once."""
    return [list(run) for run in BasicSweeper.split_arguments(overrides, None)[0]]


def explained(error: Exception, overrides: list[str], conf: Path, composed: DictConfig | None = None) -> str:
    """One line on what Hydra has refused; `composed` is the config of these choices, in which it was to set values."""
    text = as_line(error).partition(" See https://hydra.cc")[0]
    if unreadable := text.partition("LexerNoViableAltException: ")[2].rstrip("^ "):
        return (
            f"cannot read {unreadable}; a value with spaces or other signs takes quotes of its own, as in 'name=\"a value\"'"
        )
    if (found := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)) and (there := names(conf, found[1])):
        group, option = found.groups()
        asked = group == "experiment" and any(line.startswith("experiment=") and option in line for line in overrides)
        return f"{group}={option}: no such {group}; {nearest(option, experiments(conf) if asked else there)}"
    if "'hydra/launcher/submitit_" in text:
        return (
            "hydra/launcher=slurm: hydra-submitit-launcher is not installed; make sweep LAUNCHER=slurm does that, "
            "and without make: pip install -c constraints.txt -e '.[slurm]'"
        )
    if found := re.search(r"Could not override '(hydra\.launcher\.[^']+)'", text):
        return f"{found[1]}: this launcher has no such option; conf/hydra/launcher/NAME.yaml shows those that each has"
    if found := re.match(r"(.+?): In '(.+?)': ConfigKeyError", text):
        return f"{found[1]} in conf/{found[2]}.yaml: {RENAMED.get(found[1], 'no such option')}"
    if (found := re.search(r"Could not override '([^']+)'", text)) and composed is not None:
        return _no_such_option(found[1], conf, composed)
    if error.__cause__ and "rror merging" in text:
        text = text.partition("rror merging override ")[2] + ": " + one_line(str(error.__cause__).partition("full_key")[0])
    return text


def _no_such_option(key: str, conf: Path, composed: DictConfig) -> str:
    """The line about an option that none of these choices has."""
    choices, plain = composed.hydra.runtime.choices, typing.cast(dict[str, Any], OmegaConf.to_container(composed))
    group, _, option = key.partition(".")
    if not option or not OF_A_CHOICE.match(key):
        known = [name for name, _ in flat(plain) if not name.startswith("hydra.")]
        return f"{key}: no such option; {nearest(key, [*known, *(choice for choice in choices if '/' not in choice)])}"
    has = {name: OmegaConf.load(conf / group / f"{name}.yaml") for name in names(conf, group)}
    told = f"{key}: {group}={choices[group]} has no such option; "
    if others := [name for name, spec in has.items() if option.partition(".")[0] in spec]:
        *most, last = others
        return told + (f"{group}={', '.join(most)} and {last} have" if most else f"{group}={last} has")
    known = [f"{group}.{name}" for name, _ in flat(plain[group]) if name != "_target_"]
    return told + (nearest(key, known) if known else "it takes none")


def as_line(error: BaseException) -> str:
    text, _, place = str(error).partition("full_key: ")
    key = place.split("\n")[0]
    return one_line(text if key in text else f"{key}: {text}") or type(error).__name__
