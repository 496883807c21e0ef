"""The digest of the code that answers depend on: rows of different programs are not mixed."""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from extrap.config.specs import target

NO_ANSWERS = ("extrap", "extrap.errors", "extrap.files", "extrap.runs.digest")
ROOT = Path(__file__).parents[2]
# as it was when this process began, which is what it runs, whatever becomes of the files since
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text("utf-8", "replace")
    for path in sorted(ROOT.glob("extrap/**/*.py"))
    if path.is_file() and path.stem.isidentifier()  # editors leave other things beside
}


def reached(modules: Iterable[str], counts: Callable[[str], bool]) -> set[str]:
    """These modules and all that they import of the program, in the end, and that counts."""
    found: set[str] = set()
    ahead = {*modules}
    while ahead:
        found |= ahead
        named = {name for module in ahead for name in _imports(SOURCES[module])}
        ahead = {name for name in named & SOURCES.keys() if counts(name)} - found
    return found


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & SOURCES.keys()
            yield from inner or {str(node.module)}


def _answers_depend_on(module: str) -> bool:
    """All but how results are written, how errors are told, the version, and this."""
    return not module.startswith("extrap.results") and module not in NO_ANSWERS


# all that stands between a config and its rows, but for the schemes that are not part of an extension
MODULES = reached(
    ["extrap.runs.run", "extrap.objectives", *(name for name in SOURCES if name.startswith("extrap.data."))],
    _answers_depend_on,
)


def program_digest() -> str:
    """Of all that every run goes through."""
    return _digest(MODULES)


def scheme_digest(position: dict[str, Any]) -> str:
    """Of the modules of one scheme: whoever edits a scheme leaves the runs of others valid."""
    return _digest(scheme_modules(position))


def scheme_modules(position: dict[str, Any]) -> set[str]:
    """Those of its classes, and what they import of extrap.positions that is not part of every run."""
    classes = {cls.__module__ for cls in _classes(position)}
    return reached(classes, lambda name: name.startswith("extrap.positions.") and name not in MODULES)


def _classes(spec: dict[str, Any]) -> Iterator[type]:
    yield target(spec, "position", "extrap.positions")
    for value in spec.values():
        if isinstance(value, dict):
            yield from _classes(value)


def _digest(modules: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(f"{module}\0{meaning(SOURCES[module])}\0".encode())
    return digest.hexdigest()[:16]


def meaning(source: str) -> str:
    """The source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)
