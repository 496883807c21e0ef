"""Scales: main_gpu is the experiment main at the sizes of conf/scale/gpu.yaml. Imports no torch."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from extrap.config.varied import flat
from extrap.errors import UserError, nearest


def at_scale(overrides: list[str], conf: Path) -> tuple[list[str], Path | None]:
    """The overrides with an experiment that conf/ holds, named as it was asked for, and the file of its scale, if any."""
    chosen = [i for i, line in enumerate(overrides) if re.match(r"experiment=", line)]
    name = overrides[chosen[-1]].partition("=")[2].strip("'\"") if chosen else ""
    for scale in names(conf, "scale"):
        experiment = name.removesuffix(f"_{scale}")
        if name not in names(conf, "experiment") and experiment != name and experiment in names(conf, "experiment"):
            lines = [f"experiment={experiment}" if i == chosen[-1] else line for i, line in enumerate(overrides)]
            return [f"name={name}", *lines], conf / "scale" / f"{scale}.yaml"
    return overrides, None


def experiments(conf: Path) -> list[str]:
    """The name of every experiment, at every scale."""
    return [
        name + end for end in ("", *(f"_{scale}" for scale in names(conf, "scale"))) for name in names(conf, "experiment")
    ]


def names(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def sizes(scale: Path, composed: Any) -> list[str]:
    """What a scale sets, as overrides: values, and under `times` factors for what the experiment sets.

    What follows from other values of the experiment (an interpolation, an empty list) goes on to follow from them.
    """
    try:
        values = dict(flat(yaml.safe_load(scale.read_text())))
    except (yaml.YAMLError, AttributeError) as error:
        raise UserError(f"conf/scale/{scale.name}: expected options and their values") from error
    found = dict(flat(composed))
    for key in [key for key in values if key.split(".")[0] == "times"]:
        factor, key = values.pop(key), key.partition(".")[2]
        if key not in found or type(factor) not in (int, float):
            what = f"expected a number, found {factor}" if key in found else f"no such option; {nearest(key, found)}"
            raise UserError(f"conf/scale/{scale.name}: times.{key}: {what}")
        items = found[key] if isinstance(found[key], list) else [found[key]]
        if items and all(type(item) in (int, float) for item in items):
            scaled = [_whole(item * factor) for item in items]
            values[key] = scaled if isinstance(found[key], list) else scaled[0]
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
