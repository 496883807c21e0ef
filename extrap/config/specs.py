"""Specs: `_target_`, a class of this package, and its arguments. From a spec to its object, and to its name in rows.

A scheme may be of another file, if the command line names it: then `_target_` is an Outside, which no config can make.
"""

import collections.abc
import contextlib
import importlib
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from extrap.config.outside import Outside
from extrap.errors import UserError, nearest, one_line

# how rows name what nobody has trained, by its kind; no scheme may be called so
REFERENCES = {"unigram": "unigram", "floor": "floor", "window_floor": "floor, last {train_len}", "plateau": "symbol counts",
              "rate": "rate", "byte": "{unit} alone", "neighbours": "two neighbours"}  # fmt: skip
REPEATED = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)  # *args and **kwargs, which have no name to be set by


def target(spec: dict[str, Any], option: str, package: str) -> type:
    """The class that a spec names, which must be one of this package: a config cannot name any other code."""
    path = spec.get("_target_")
    if isinstance(path, Outside):
        return path.load()
    module, _, name = str(path).rpartition(".")
    cls = None
    if re.fullmatch(rf"{re.escape(package)}(\.[a-z]\w*)*", module, re.ASCII):
        with contextlib.suppress(ModuleNotFoundError):
            cls = getattr(importlib.import_module(module), name, None)
    if not inspect.isclass(cls) or not _is_of(package, cls):  # but one that the module has imported from elsewhere
        raise UserError(f"{option}._target_: expected a class of {package}, found {path}")
    return cls


def build(spec: dict[str, Any], option: str, package: str, kind: Any = object, **facts: Any) -> Any:
    """The object that a spec names; specs within it are built too, and `facts` go wherever a class asks for them.

    Raises UserError for an argument that the class does not have or of another type than its signature says, and for an
    object of another kind than is expected.
    """
    cls = target(spec, option, package)
    parameters = parameters_of(cls, option)
    arguments = {key: value for key, value in facts.items() if key in parameters}
    for key, value in spec.items():
        if key == "_target_":
            continue
        if key not in parameters or key in facts:
            raise UserError(
                f"{option}.{key}: no such option; {nearest(str(key), [name for name in parameters if name not in facts])}"
            )
        inner = parameters[key].annotation
        if isinstance(value, dict) and inspect.isclass(inner) and _is_of(package, inner):
            arguments[key] = build(value, f"{option}.{key}", package, inner, **facts)
        else:
            arguments[key] = _typed(value, inner, f"{option}.{key}")
    for key, parameter in parameters.items():
        if key not in arguments and parameter.default is parameter.empty:
            unasked = [fact for fact in facts if fact not in parameters]
            if unasked and isinstance(spec["_target_"], Outside):
                init = f"def __init__(self, {unasked[0]}, ...)"
                raise UserError(f"{option}: {cls.__name__} asks for {key} and not for {unasked[0]}; expected {init}")
            raise UserError(f"{option}.{key}: is missing; {cls.__name__} needs it")
    outside = spec["_target_"] if isinstance(spec["_target_"], Outside) else None
    refusals = (Exception, SystemExit) if outside else (ValueError, RuntimeError)  # torch's own of sizes that cannot be
    try:
        made = cls(**arguments)
    except refusals as error:
        told = f"{outside}: {type(error).__name__}: {error}" if outside else str(error)
        raise UserError(one_line(f"{option}: {told}")) from error
    if outside and (lost := [key for key, value in facts.items() if getattr(made, key, None) is not value]):
        init = f"def __init__(self, {lost[0]}, ...), and super().__init__({lost[0]}) in it"
        raise UserError(f"{option}: {outside} keeps no {lost[0]}; expected {init}")
    if not isinstance(made, kind):
        raise UserError(f"{option}._target_: expected {getattr(kind, '__name__', kind)}, found {spec['_target_']}")
    return made


def parameters_of(cls: type, option: str) -> Mapping[str, Parameter]:
    """The arguments of a class that have a name, their types as types. Raises UserError where a type cannot be read."""
    try:
        parameters = inspect.signature(cls, eval_str=True).parameters
    except Exception as error:  # whatever evaluating somebody's annotations raises
        raise UserError(one_line(f"{option}: the types of {cls.__name__}'s arguments cannot be read: {error}")) from error
    return {key: parameter for key, parameter in parameters.items() if parameter.kind not in REPEATED}


def _is_of(package: str, cls: type) -> bool:
    return f"{cls.__module__}.".startswith(f"{package}.")


def _typed(value: Any, annotation: Any, option: str) -> Any:
    """The value as its type says: 500000 as a float, a list as a tuple. Raises UserError for one of another type."""
    try:
        return _fitted(value, annotation, option)
    except TypeError as error:
        plain = inspect.isclass(annotation) and not typing.get_args(annotation)
        name = annotation.__name__ if plain else str(annotation).replace("typing.", "")
        hint = "; in brackets also when it is but one" if typing.get_origin(annotation) in (list, tuple) else ""
        raise UserError(f"{option}: expected {name}, found {value!r}{hint}") from error


def _fitted(value: Any, annotation: Any, option: str) -> Any:
    """Raises TypeError for another type than is meant, UserError for a number that is none."""
    if annotation in (Parameter.empty, Any, object):
        return value
    kind, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind is typing.Annotated:
        return _fitted(value, inner[0], option)
    if kind in (typing.Union, types.UnionType):
        for one in inner:
            try:
                return _fitted(value, one, option)
            except TypeError:
                continue
    elif kind is typing.Literal:
        if any(type(value) is type(one) and value == one for one in inner):
            return value
    elif kind in (list, tuple, collections.abc.Sequence) and isinstance(value, list | tuple):
        many = kind is not tuple or inner[1:] == (...,) or not inner
        each = [inner[0] if inner else Any] * len(value) if many else list(inner)
        if len(each) == len(value):
            fitted = [_fitted(item, one, option) for item, one in zip(value, each, strict=True)]
            return fitted if kind is list else tuple(fitted)
    elif kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)  # 500000 and 500000.0 are one base
    elif type(value) is kind or (kind is None and value is None):
        if (kind is float and not math.isfinite(value)) or (kind is int and abs(value) >= 2**31):
            raise UserError(f"{option}: expected a finite number, below 2**31 where it is a whole one; found {value}")
        return value
    raise TypeError


def without_defaults(spec: dict[str, Any], option: str, package: str) -> dict[str, Any]:
    """The spec without the arguments that are what they are if not told: with a new option, an old config is what it was."""
    parameters = parameters_of(target(spec, option, package), option)
    return {key: value for key, value in spec.items() if key not in parameters or value != parameters[key].default}


def label(spec: dict[str, Any], option: str = "position", package: str = "extrap.positions") -> str:
    """How rows name a scheme or an extension: the class, the schemes within it, and every argument that is not its default.

    For example rope, rope(base=500000.0), local(rope), local(alibi, window=32).
    """
    cls = target(spec, option, package)
    parameters = parameters_of(cls, option)
    shown = [label(value) for value in spec.values() if isinstance(value, dict)]
    for key, value in spec.items():
        if key in parameters and not isinstance(value, dict):
            typed = _typed(value, parameters[key].annotation, f"{option}.{key}")
            if typed != parameters[key].default:
                shown.append(f"{key}={typed}")
    return cls.__name__.lower() + (f"({', '.join(shown)})" if shown else "")


def written(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec as files hold it: every class by its name."""
    return {key: written(value) if isinstance(value, dict) else value for key, value in spec.items()} | {
        "_target_": str(spec["_target_"])
    }
