"""Specs: `_target_`, a class of this package, and its arguments. From a spec to its object, and to its name in rows."""

import importlib
import inspect
import math
import re
import sys
import typing
from typing import Any

from extrap.errors import UserError, nearest, one_line


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
    if not inspect.isclass(cls) or not _is_of(package, cls):  # but one that the module has imported from elsewhere
        raise UserError(f"{option}._target_: expected a class of {package}, found {path}")
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
            raise UserError(
                f"{option}.{key}: no such option; {nearest(str(key), [name for name in parameters if name not in facts])}"
            )
        if isinstance(value, dict) and inspect.isclass(kind := parameters[key].annotation) and _is_of(package, kind):
            arguments[key] = build(value, f"{option}.{key}", package, **facts)
            if not isinstance(arguments[key], kind):
                raise UserError(f"{option}.{key}._target_: expected a {kind.__name__}, found {value['_target_']}")
        else:
            arguments[key] = _typed(value, parameters[key].annotation, f"{option}.{key}")
    for key, parameter in parameters.items():
        if key not in arguments and parameter.default is parameter.empty:
            raise UserError(f"{option}.{key}: is missing; {cls.__name__} needs it")
    try:
        return cls(**arguments)
    except (ValueError, RuntimeError) as error:  # torch's own of sizes that cannot be
        raise UserError(one_line(f"{option}: {error}")) from error


def _is_of(package: str, cls: type) -> bool:
    return f"{cls.__module__}.".startswith(f"{package}.")


def _typed(value: Any, annotation: Any, option: str) -> Any:
    if annotation is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)  # 500000 and 500000.0 are one base
    wanted = typing.get_origin(annotation) or annotation
    items = typing.get_args(annotation)
    fits = type(value) is wanted and (wanted is not list or all(type(item) is items[0] for item in value))
    if not fits:
        name, hint = (str(annotation), "; in brackets also when it is but one") if items else (wanted.__name__, "")
        raise UserError(f"{option}: expected {name}, found {value!r}{hint}")
    if (type(value) is float and not math.isfinite(value)) or (type(value) is int and abs(value) >= 2**31):
        raise UserError(f"{option}: expected a finite number, below 2**31 where it is a whole one; found {value}")
    return value


def without_defaults(spec: dict[str, Any], option: str, package: str) -> dict[str, Any]:
    """The spec without the arguments that are what they are if not told: with a new option, an old config is what it was."""
    parameters = inspect.signature(target(spec, option, package)).parameters
    return {key: value for key, value in spec.items() if key not in parameters or value != parameters[key].default}


def label(spec: dict[str, Any], option: str = "position", package: str = "extrap.positions") -> str:
    """How rows name a scheme or an extension: the class, the schemes within it, and every argument that is not its default.

    For example rope, rope(base=500000.0), local(rope), local(alibi, window=32).
    """
    cls = target(spec, option, package)
    parameters = inspect.signature(cls).parameters
    shown = [label(value) for value in spec.values() if isinstance(value, dict)]
    for key, value in spec.items():
        if key in parameters and not isinstance(value, dict) and value != parameters[key].default:
            shown.append(f"{key}={_typed(value, parameters[key].annotation, f'{option}.{key}')}")
    return cls.__name__.lower() + (f"({', '.join(shown)})" if shown else "")
