"""Specs: `_target_`, a class of this package, and its arguments. From a spec to its object, and to its name in rows."""

import importlib
import inspect
import re
import typing
from typing import Any

from extrap.errors import UserError, nearest


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
