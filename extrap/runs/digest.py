"""The digest of the code that answers depend on: rows of different programs are not mixed."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extrap.config.specs import target

# all that stands between a config and its rows, but for the schemes that are not part of an extension
MODULES = (
    "config.schema", "config.specs", "config.varied", "data.base", "data.documents", "data.markov", "data.overlap",
    "data.reading", "data.text", "data.usage", "extensions.controls", "model.attention", "model.encoder", "model.relative",
    "objectives", "positions.absolute", "positions.base", "positions.local", "runs.cell", "runs.run", "score.evaluate",
    "score.protocols", "score.references", "train.device", "train.distributed", "train.loop",
)  # fmt: skip
PACKAGE = Path(__file__).parents[1]
# as it was when this process began, which is what it runs, whatever becomes of the files since
SOURCES = {
    ".".join(["extrap", *path.relative_to(PACKAGE).with_suffix("").parts]): path.read_text("utf-8", errors="replace")
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.is_file() and path.stem.isidentifier()  # editors leave other things beside
}


def program_digest() -> str:
    """Of all that every run goes through."""
    return _digest([f"extrap.{module}" for module in MODULES])


def scheme_digest(position: dict[str, Any]) -> str:
    """Of the modules of one scheme: whoever edits a scheme leaves the runs of others valid."""
    return _digest(scheme_modules(position))


def scheme_modules(position: dict[str, Any]) -> list[str]:
    """Those of its classes, and what they import of extrap.positions that is not part of every run."""
    shared = {f"extrap.{module}" for module in MODULES}
    found: set[str] = set()
    ahead = {cls.__module__ for cls in _classes(position)}
    while ahead:
        found |= ahead
        named = {name for module in ahead for name in _imports(SOURCES[module])}
        ahead = {name for name in named & SOURCES.keys() if name.startswith("extrap.positions.")} - found - shared
    return sorted(found)


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _classes(spec: dict[str, Any]) -> Iterator[type]:
    yield target(spec, "position", "extrap.positions")
    for value in spec.values():
        if isinstance(value, dict):
            yield from _classes(value)


def _digest(modules: list[str]) -> str:
    digest = hashlib.sha256()
    for module in modules:
        digest.update(f"{module}\0{meaning(SOURCES[module])}\0".encode())
    return digest.hexdigest()[:16]


def meaning(source: str) -> str:
    """The source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)
