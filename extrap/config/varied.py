"""What the runs of a sweep differ in beside position and seed, and how rows and folders name it."""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

SWEPT = ("model", "data", "objective", "train")  # what a sweep may vary beside position and seed
TOLD = ("data", "data.name", "data.bpe", "objective", "train.train_len")  # by columns of their own
# option -> options whose values follow from its value
FOLLOWS = {
    "train.train_len": ("eval.lengths", "eval.windows"),
    "data": tuple(f"data.{of}" for of in (
        "sha256", "revision", "tokenizer_sha256", "tokens_sha256", "settings", "train_documents", "train_bytes",
        "valid_documents", "valid_bytes",
    )),
}  # fmt: skip


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option by its dotted name."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def varied(configs: Sequence[dict[str, Any]]) -> list[str]:
    """The options in which configs differ: train.lr, model.n_layers; `data` alone where its class does."""
    values = [dict(flat({group: config[group] for group in SWEPT})) for config in configs]
    keys = [
        key for key in dict.fromkeys(key for one in values for key in one) if len({repr(one.get(key)) for one in values}) > 1
    ]
    choices = [key.removesuffix("._target_") for key in keys if key.endswith("._target_")]
    return [*choices, *(key for key in keys if key.partition(".")[0] not in choices)]


def values_of(config: dict[str, Any], vary: Sequence[str]) -> dict[str, Any]:
    """Of the options that vary, those that this config has; of a choice, the class."""
    known = dict(flat(config))
    found = {key: known.get(key, known.get(f"{key}._target_")) for key in vary}
    return {key: value for key, value in found.items() if value is not None}


def named(values: dict[str, Any]) -> str:
    """lr=0.002, n_layers=4: the last part of each name, the whole where two share it."""
    last = [key.rpartition(".")[2] for key in values]
    names = [part if last.count(part) == 1 else key for key, part in zip(values, last, strict=True)]
    return ", ".join(f"{name}={_shown(value)}" for name, value in zip(names, values.values(), strict=True))


def options_in(setting: str) -> dict[str, str]:
    """The names and values of a text that `named` has made."""
    return {key: value for key, _, value in (part.partition("=") for part in setting.split(", ") if part)}


def _shown(value: Any) -> str:
    text = str(value.value if isinstance(value, Enum) else value)
    if isinstance(value, list):  # of paths
        text = "+".join(Path(str(item)).name for item in value)
    elif text.startswith("extrap."):
        text = text.rpartition(".")[2].lower()
    return text.replace(", ", ",")  # which stands between options


def slug(text: str) -> str:
    """The same as part of a file's name."""
    return re.sub(r"[^\w.=]+", "-", text).strip("-")


def shared(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what its sweep varies and what follows from that: the same in all settings."""
    vary = config.get("vary", [])
    follows = [option for of, those in FOLLOWS.items() if any(_is_of(key, [of]) for key in vary) for option in those]
    return _without(config, [*vary, *follows])


def _is_of(option: str, groups: Sequence[str]) -> bool:
    """Whether it is one of these options, or of one of these groups."""
    return any(f"{option}.".startswith(f"{group}.") for group in groups)


def _without(node: dict[str, Any], loose: Sequence[str], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, loose, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if isinstance(value, dict) or not _is_of(prefix + key, loose)
    }
