"""The digest of the code that answers depend on: rows of different programs are not mixed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extrap.config.outside import Outside, digest_of, imports

# all that stands between a config and its rows, but for the schemes that are not part of an extension
MODULES = (
    "config.outside", "config.overrides", "config.schema", "config.specs", "data.base", "data.documents", "data.markov",
    "data.overlap", "data.reading", "data.text", "data.usage", "extensions.base", "extensions.controls", "model.attention",
    "model.encoder", "model.relative", "objectives", "positions.absolute", "positions.base", "positions.local", "runs.cell",
    "runs.run", "score.evaluate", "score.protocols", "score.references", "train.device", "train.distributed", "train.loop",
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
    return digest_of({f"extrap.{module}": SOURCES[f"extrap.{module}"] for module in MODULES})


def scheme_digest(position: dict[str, Any]) -> str:
    """Of the modules of one scheme: whoever edits a scheme leaves the runs of others valid."""
    return digest_of(_outside(position) | {module: SOURCES[module] for module in scheme_modules(position)})


def scheme_modules(position: dict[str, Any]) -> list[str]:
    """Those of its classes, and what they import of extrap.positions that is not part of every run."""
    shared = {f"extrap.{module}" for module in MODULES}
    sources = SOURCES | _outside(position)
    found: set[str] = set()
    ahead = {str(spec["_target_"]).rpartition(".")[0] for spec in _specs(position)} & SOURCES.keys() | {*_outside(position)}
    while ahead:
        found |= ahead
        named = {name for module in ahead for name in imports(sources[module])}
        ahead = {name for name in named & SOURCES.keys() if name.startswith("extrap.positions.")} - found - shared
    return sorted(found & SOURCES.keys())


def _outside(position: dict[str, Any]) -> dict[str, str]:
    """The sources of schemes from outside, with what they import."""
    targets = [spec["_target_"] for spec in _specs(position)]
    return {f"{at}:{name}": source for at in targets if isinstance(at, Outside) for name, source in at.sources().items()}


def _specs(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec
    for value in spec.values():
        if isinstance(value, dict):
            yield from _specs(value)
