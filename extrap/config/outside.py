"""Schemes from outside: a class in a Python file that the command line names, as path/to/mine.py:Mine(alpha=2).

A config file cannot name one: what it says is text, and only the command line makes an Outside of it.
"""

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from extrap.config.overrides import items
from extrap.errors import UserError, one_line
from extrap.files import as_path

PACKAGE = "extrap"
INSTALLED = {"site-packages", "dist-packages"}  # folders whose modules are somebody else's


class Outside:
    """A class of a file, and the digest of the file and of all that it imports that is nowhere installed.

    The identity of a run names the file without its folder: what it says counts, not where it lies.
    """

    def __init__(self, path: Path, name: str, digest: str) -> None:
        self.path, self.name, self.digest = path, name, digest

    def __str__(self) -> str:
        return f"{self.path.name}:{self.name}"

    def load(self) -> type:
        """The class, in any process. Raises UserError where the file is not what it was when the command began."""
        if (self.path, self.digest) not in LOADED and _load(self.path) != self.digest:
            raise UserError(
                f"{self.path} or what it imports has changed since the sweep began: restore it and run the same "
                "command again, or run the new version under another name=..."
            )
        cls: type = getattr(LOADED[self.path, self.digest].module, self.name)
        return cls

    def sources(self) -> dict[str, str]:
        """The file and what it imports that is nowhere installed, by the names of modules."""
        self.load()
        return LOADED[self.path, self.digest].sources


class _Loaded(NamedTuple):
    module: ModuleType
    sources: dict[str, str]


LOADED: dict[tuple[Path, str], _Loaded] = {}  # as sys.modules is, but a file that was edited is another module


def named(text: str) -> list[tuple[str, dict[str, Any]]]:
    """'a.py b.py:Mine(alpha=2)' -> [('a.py', {}), ('b.py:Mine', {'alpha': 2})]. Raises UserError."""
    found = []
    for item in filter(None, items(text, between=", \t\n")):
        place, bracket, arguments = item.partition("(")
        try:
            call = ast.parse(f"f({arguments}" if bracket else "f()", mode="eval").body
            assert isinstance(call, ast.Call)
            assert not call.args
            found.append((place.strip("'\" "), {str(word.arg): _literal(word.value) for word in call.keywords}))
        except (SyntaxError, ValueError, AssertionError) as error:
            raise UserError(f"{item}: expected FILE.py:Class(option=value, ...)") from error
    if not found:
        raise UserError("scheme: expected FILE.py, FILE.py:Class or FILE.py:Class(option=value, ...), found nothing")
    return found


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Name):  # a word needs no quotes, and these are as in a file of conf/
        return {"true": True, "false": False, "null": None}.get(node.id, node.id)
    return ast.literal_eval(node)


def find(place: str) -> Outside:
    """The scheme of 'path/to/mine.py:Mine', or of 'path/to/mine.py' if it holds but one. Raises UserError."""
    file, _, name = place.partition(":")
    path, digest = _loaded(file)
    module = LOADED[path, digest].module
    own = [key for key, value in vars(module).items() if _is_scheme(value) and value.__module__ == module.__name__]
    name = name or (own[0] if len(own) == 1 else "")
    if not _is_scheme(getattr(module, name, None)):
        there = " or ".join(f"{file}:{key}" for key in own) or "none"
        raise UserError(f"{place}: expected one subclass of extrap.positions.base.PositionScheme; there is {there}")
    tree = ast.parse(LOADED[path, digest].sources[path.stem])
    lines = [str(node.lineno) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(lines) > 1:
        raise UserError(f"{file} has {len(lines)} classes {name}, in lines {', '.join(lines)}; rename all but one")
    return Outside(path, name, digest)


def function(place: str) -> Callable[..., Any]:
    """The function of 'path/to/file.py:name'. Raises UserError."""
    file, _, name = place.partition(":")
    found: Callable[..., Any] | None = getattr(LOADED[_loaded(file)].module, name, None)
    if not callable(found):
        raise UserError(f"{place}: expected FILE.py:function, and a function of that name in the file")
    return found


def _loaded(file: str) -> tuple[Path, str]:
    path = as_path(file).resolve()
    if not path.is_file():
        raise UserError(f"{file}: there is no such file")
    return path, _load(path)


def _is_scheme(cls: object) -> bool:
    return inspect.isclass(cls) and any(
        (base.__module__, base.__name__) == ("extrap.positions.base", "PositionScheme") for base in cls.__mro__
    )


def _load(path: Path) -> str:
    """Runs a file as a module of its own, whose folder comes first where it imports; the digest of what was run."""
    folder = ModuleType(f"outside_{len(LOADED)}")  # so that `from . import helper` finds what is beside the file, too
    folder.__path__ = [str(path.parent)]
    module = ModuleType(f"{folder.__name__}.{path.stem}")
    module.__file__, module.__package__ = str(path), folder.__name__
    named = {folder.__name__: folder, module.__name__: module}
    before, writes = {*sys.modules}, sys.dont_write_bytecode
    sys.modules.update(named)
    sys.path.insert(0, str(path.parent))
    sys.dont_write_bytecode = True  # whose clock has seconds: an edit within one would be passed over
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))  # noqa: S102  code that the user has named
        files = {name: getattr(sys.modules[name], "__file__", None) for name in sys.modules.keys() - before}
        beside = [name for name, file in files.items() if file and Path(file).is_relative_to(path.parent)]
        sources = dict(_sources(module, beside))
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path} imports {error.name}, which is neither beside it nor installed where extrap is; "
            f"{sys.executable} -m pip install {str(error.name).partition('.')[0]} may do that"
        ) from error
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        raise UserError(one_line(f"{path} cannot be imported: {type(error).__name__}: {error}")) from error
    finally:
        with contextlib.suppress(ValueError):  # it may have seen to that itself
            sys.path.remove(str(path.parent))
        sys.dont_write_bytecode = writes
        added = sys.modules.keys() - before  # the next file may have a helper of the same name
        # all are asked before any goes: the place of a module in a folder without __init__.py is asked of that folder
        for name in [one for one in added if one in named or _is_own(getattr(sys.modules[one], "__spec__", None))]:
            del sys.modules[name]
    digest = digest_of(sources)
    if (path, digest) not in LOADED:
        LOADED[path, digest] = _Loaded(module, sources)
        sys.modules.update(named)
    return digest


def _sources(module: ModuleType, ahead: list[str]) -> Iterator[tuple[str, str]]:
    """The source of a module and of all that it imports that is nowhere installed, imports within functions too."""
    seen = set()
    while ahead:
        name = ahead.pop()
        known = sys.modules.get(name)
        if name in seen or not known or not (known is module or _is_own(getattr(known, "__spec__", None))):
            continue
        seen.add(name)
        if not (file := getattr(known, "__file__", None)):  # a folder without __init__.py
            continue
        source = Path(file).read_text("utf-8", errors="replace")
        yield name.removeprefix(f"{module.__package__}."), source
        for other in imports(source, known.__package__):
            with contextlib.suppress(Exception):  # what is imported for types alone, or the name of no module
                top = other.partition(".")[0]
                if top == module.__package__ or _is_own(importlib.util.find_spec(top)):
                    importlib.import_module(other)
            ahead += [other[: at.start()] for at in re.finditer(r"\.|$", other)]


def _is_own(spec: ModuleSpec | None) -> bool:
    """Whether a module is neither installed, nor of this package, nor the script of the command."""
    if not spec:
        return False
    path = Path(spec.origin or next(iter(spec.submodule_search_locations or []), "built-in"))
    installed = INSTALLED & {*path.parts} or path.is_relative_to(sysconfig.get_path("stdlib"))
    ours = spec.name.startswith("__") or spec.name.partition(".")[0] == PACKAGE
    return path.is_absolute() and path.suffix in ("", ".py") and not installed and not ours


def imports(source: str, package: str | None = None) -> Iterator[str]:
    """The names that a module imports, of which those of `from a import b` may be modules or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            module = node.module or ""
            if node.level:
                module = importlib.util.resolve_name("." * node.level + module, package)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def digest_of(sources: dict[str, str]) -> str:
    """Of what modules mean, whatever their comments and layout."""
    digest = hashlib.sha256()
    for name, source in sorted(sources.items()):
        digest.update(f"{name}\0{meaning(source)}\0".encode())
    return digest.hexdigest()[:16]


def meaning(source: str) -> str:
    """The source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)
