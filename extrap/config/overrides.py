"""What people type for an option that takes text, as Hydra has to be told it."""

import re
from pathlib import Path

import yaml

CALLS = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|extend_list|int|float|str|bool|json_str)\(")  # of Hydra


def as_typed(override: str, known: dict[str, bool]) -> str:
    """The same override with quotes around what an option takes as text, of which Hydra would read 12e4567 as a number.

    Names, choices and paths then are what was typed: 1e3, 1_0, true, null, ~/a, a(1).txt. Left alone are quotes that are
    there already, brackets, interpolations, Hydra's own functions, and values with a backslash. `known`: of texts.
    """
    key, given, value = override.partition("=")
    is_list = known.get(key.lstrip("+").partition("@")[0])
    if not given or is_list is None or (is_list and not re.fullmatch(r"\[.*\]", value, re.DOTALL)):
        return override
    quoted = ",".join(map(_quoted, items(value[1:-1] if is_list else value)))
    return f"{key}=[{quoted}]" if is_list else f"{key}={quoted}"


def texts(conf: Path) -> dict[str, bool]:
    """The options that take text, names of files of conf/ among it, and whether they take a list of it."""
    found = {"name": False} | {folder.relative_to(conf).as_posix(): False for folder in conf.glob("**/*") if folder.is_dir()}
    for path in sorted(path for path in conf.glob("*/*.yaml") if path.parent.name not in ("experiment", "scale")):
        for key, value in (yaml.safe_load(path.read_text()) or {}).items():
            items = value if isinstance(value, list) else [value]
            if key not in ("_target_", "defaults") and all(isinstance(item, str) for item in items):
                found[f"{path.parent.name}.{key}"] = isinstance(value, list)
    return found


def items(text: str, between: str = ",") -> list[str]:
    """What stands between commas, those within quotes and brackets apart."""
    found, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote and not found[-1].endswith("\\") else quote
        elif c in "'\"" and not found[-1].strip():
            quote = c
        elif c in between and not depth:
            found.append("")
            continue
        else:
            depth += (c in "([{") - (c in ")]}")
        found[-1] += c
    return [item.strip() for item in found]


def _quoted(item: str) -> str:
    if not item or item[0] in "'\"[{" or "${" in item or "\\" in item or CALLS.match(item):
        return item
    return "'" + item.replace("'", r"\'") + "'"
