"""The digest of the code that answers depend on: rows of different programs are not mixed."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from extrap.config.outside import Outside, digest_of, imports
from extrap.config.varied import flat

ROOT = Path(__file__).parents[2]
# as it was when this process began, which is what it runs, whatever becomes of the files since
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8", "replace")
    for path in sorted(ROOT.glob("extrap/**/*.py"))
    if path.is_file() and path.stem.isidentifier() and path.stem != "__init__"  # editors leave other things beside
}


def reached(modules: Iterable[str], sources: Mapping[str, str]) -> set[str]:
    """These modules and all of `sources` that they import in the end."""
    found: set[str] = set()
    ahead = {*modules}
    while ahead:
        found |= ahead
        ahead = {name for module in ahead for name in imports(sources[module])} & sources.keys() - found
    return found


# all that stands between a config and its rows, but for how these are written and errors told, and for the schemes that are
# not part of an extension
NO_ANSWERS = re.compile(r"extrap\.(results\..*|errors|files|runs\.digest)")
MODULES = reached(
    ["extrap.runs.run", "extrap.objectives", *(name for name in SOURCES if re.match(r"extrap\.(data|extensions)\.", name))],
    {name: source for name, source in SOURCES.items() if not NO_ANSWERS.fullmatch(name)},
)


def program_digest() -> str:
    """Of all that every run goes through."""
    return digest_of({module: SOURCES[module] for module in MODULES})


PROGRAM = program_digest()  # once, and not again in each worker that is forked from a process that knows it


def probe_digest(name: str) -> str:
    """Of all that a probe goes through: what it found as it was before is not what it finds today."""
    return digest_of({module: SOURCES[module] for module in reached([f"extrap.probes.{name}"], SOURCES)})


def scheme_digest(position: dict[str, Any]) -> str:
    """Of the modules of one scheme: whoever edits a scheme leaves the runs of others valid."""
    return digest_of(scheme_sources(position))


def scheme_sources(position: dict[str, Any]) -> dict[str, str]:
    """The sources of its classes, and of what they import of extrap.positions that is not part of every run.

    Of classes from outside also what they import that is nowhere installed.
    """
    targets = [value for option, value in flat(position) if option.rpartition(".")[2] == "_target_"]
    own = {at: SOURCES[at] for at in (str(target).rpartition(".")[0] for target in targets) if at in SOURCES}
    for at in targets:
        if isinstance(at, Outside):
            own |= {f"{at}:{name}": source for name, source in at.sources().items()}
    schemes = {name: source for name, source in SOURCES.items() if name.startswith("extrap.positions.")}
    sources = {name: source for name, source in schemes.items() if name not in MODULES} | own
    return {name: sources[name] for name in reached(own, sources)}
