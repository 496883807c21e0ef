"""The digest of the code that answers depend on: rows of different programs are not mixed."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from extrap.config.outside import Outside, digest_of, imports

NO_ANSWERS = ("extrap.errors", "extrap.files", "extrap.runs.digest")
ROOT = Path(__file__).parents[2]
# as it was when this process began, which is what it runs, whatever becomes of the files since
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8", "replace")
    for path in sorted(ROOT.glob("extrap/**/*.py"))
    if path.is_file() and path.stem.isidentifier() and path.stem != "__init__"  # editors leave other things beside
}


def reached(modules: Iterable[str], sources: Mapping[str, str], counts: Callable[[str], bool]) -> set[str]:
    """These modules and all that they import of the program, in the end, and that counts."""
    found: set[str] = set()
    ahead = {*modules}
    while ahead:
        found |= ahead
        named = {name for module in ahead for name in imports(sources[module])}
        ahead = {name for name in named & SOURCES.keys() if counts(name)} - found
    return found


def _answers_depend_on(module: str) -> bool:
    """All but how results are written, how errors are told, the version, and this."""
    return not module.startswith("extrap.results") and module not in NO_ANSWERS


# all that stands between a config and its rows, but for the schemes that are not part of an extension
MODULES = reached(
    ["extrap.runs.run", "extrap.objectives", *(name for name in SOURCES if re.match(r"extrap\.(data|extensions)\.", name))],
    SOURCES,
    _answers_depend_on,
)


def program_digest() -> str:
    """Of all that every run goes through."""
    return digest_of({module: SOURCES[module] for module in MODULES})


def scheme_digest(position: dict[str, Any]) -> str:
    """Of the modules of one scheme: whoever edits a scheme leaves the runs of others valid."""
    return digest_of(_outside(position) | {module: SOURCES[module] for module in scheme_modules(position)})


def scheme_modules(position: dict[str, Any]) -> set[str]:
    """Those of its classes, and what they import of extrap.positions that is not part of every run."""
    outside = _outside(position)
    named = {str(spec["_target_"]).rpartition(".")[0] for spec in _specs(position)} & SOURCES.keys()
    modules = reached(
        {*named, *outside}, SOURCES | outside, lambda name: name.startswith("extrap.positions.") and name not in MODULES
    )
    return modules & SOURCES.keys()


def _outside(position: dict[str, Any]) -> dict[str, str]:
    """The sources of schemes from outside, with what they import."""
    targets = [spec["_target_"] for spec in _specs(position)]
    return {f"{at}:{name}": source for at in targets if isinstance(at, Outside) for name, source in at.sources().items()}


def _specs(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec
    for value in spec.values():
        if isinstance(value, dict):
            yield from _specs(value)
