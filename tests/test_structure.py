"""The shape of the project: imports run one way, a report needs no torch, every experiment says what it expects."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from extrap.code import MODULES
from extrap.compose import CONF, compose_grid

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "extrap").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
REPORT = {"extrap.errors", "extrap.files", "extrap.run_folders", "extrap.results",
          "extrap.stats", "extrap.null", "extrap.pairs", "extrap.typesetting", "extrap.scored",
          "extrap.tables", "extrap.answer", "extrap.latex", "extrap.drawing",
          "extrap.curves", "extrap.figures", "extrap.pairs_report", "extrap.quantities", "extrap.claims",
          "experiments.claims.places", "experiments.claims.press", "experiments.claims.later",
          "experiments.claims.registry", "experiments.claims.published", "experiments.claims.verdicts",
          "experiments.claims.words", "experiments.claims.page", "experiments.claims.figure", "experiments.claims.report",
          "experiments.overlay", "experiments.remake",
          "experiments.speed.timings", "experiments.speed.figure", "experiments.speed.report"}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text(), str(path)) for path in FILES}


PAPERS = {name for name in TREES if name.startswith("experiments.papers")}


def imports(tree: ast.Module) -> set[str]:
    """Every module that a file imports anywhere, in a function too; `from a import b` is a.b where that is a module."""
    found = set()
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    never_run = {inner for outer in for_types for inner in ast.walk(outer)}
    for node in set(ast.walk(tree)) - never_run:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & TREES.keys() or {str(node.module)}
    return found


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}


def reached_from(name: str) -> set[str]:
    """All that importing a module imports in the end, from outside the project too."""
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        new = IMPORTS.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


def assert_no_circles(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_imports_run_one_way():
    assert_no_circles({name: found & TREES.keys() for name, found in IMPORTS.items()})
    with pytest.raises(AssertionError, match="extrap"):
        assert_no_circles(IMPORTS | {"extrap.errors": {"extrap.config"}})


# from the door to the rows; nobody imports what stands to the right of him
ORDER = ["extrap.errors", "extrap.specs", "extrap.config", "extrap.data.base", "extrap.objectives", "extrap.protocols",
         "extrap.cells", "extrap.train", "extrap.evaluate", "extrap.runs", "experiments.run"]  # fmt: skip


def test_imports_follow_the_order_of_data():
    assert set(ORDER) <= TREES.keys()
    for i, name in enumerate(ORDER):
        assert not reached_from(name) & set(ORDER[i + 1 :]), name


def test_the_library_does_not_know_its_commands_and_sources_know_no_config():
    for name, found in IMPORTS.items():
        if name.startswith("extrap"):
            assert not any(other.startswith("experiments") for other in found), name
        if name.startswith("extrap.data"):
            known = {f"extrap.data.{part}" for part in ("base", "documents", "overlap", "reading", "usage")} | {
                "extrap.errors",
                "extrap.files",
            }
            assert {other for other in found if other.startswith("extrap")} <= known, name
        if name.startswith("extrap.positions"):
            assert {other for other in found if other.startswith("extrap")} <= {"extrap.errors"} | {
                other for other in TREES if other.startswith("extrap.positions.")
            }, name


def test_reporting_knows_rows_alone():
    for name in REPORT | PAPERS | {"experiments.report"}:
        known = REPORT | PAPERS | {"experiments.door"}
        assert {other for other in IMPORTS[name] if other.startswith(("extrap", "experiments"))} <= known, name


def without_torch() -> list[str]:
    """The files that say of themselves that they import no torch."""
    return [name for name, tree in TREES.items() if "mports no torch" in (ast.get_docstring(tree) or "")]


def test_who_says_to_import_no_torch_imports_none():
    said = without_torch()
    assert set(said) >= (REPORT - {"extrap.errors"}) | {
        "extrap.data",
        "extrap.objectives",
        "extrap.protocols",
        "experiments.report",
    }
    for name in [*said, *PAPERS, *(name for name in TREES if name.startswith("extrap.data")), "extrap.compose"]:
        assert not any(other.split(".")[0] == "torch" for other in reached_from(name)), name


def test_a_report_starts_without_torch():
    modules = ["experiments.report", "extrap.data.text", "extrap.data.markov", "extrap.objectives", "extrap.protocols"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_file_is_about_one_thing(path):
    assert not {"utils", "util", "common", "helpers", "helper", "misc"} & set(path.relative_to(ROOT).with_suffix("").parts)
    tree = TREES[module_name(path)]
    if path.stat().st_size:
        assert ast.get_docstring(tree), "opens with a sentence on what it is"
    for node in ast.walk(tree):  # a table kept between runs would leak from one into the next
        if isinstance(node, ast.FunctionDef):
            assert not any("cache" in ast.unparse(decorator) for decorator in node.decorator_list)
        assert not isinstance(node, ast.Global)


def test_hydra_and_omegaconf_stay_at_the_door():
    for name, found in IMPORTS.items():
        if name not in ("extrap.compose", "experiments.run"):
            assert not any(other.split(".")[0] in ("hydra", "omegaconf") for other in found), name


def test_the_digest_of_the_code_is_of_all_that_rows_depend_on():
    """All that a run imports, but for what answers do not depend on; schemes have a digest of their own."""
    reached = reached_from("extrap.runs") & TREES.keys()
    others = {
        f"extrap.{name}" for name in ("code", "errors", "files", "results", "run_folders", "scheme_checks", "data")
    } | {"extrap"}
    sources = {name for name in TREES if name.startswith("extrap.data.")}
    assert {f"extrap.{name}" for name in MODULES} == (reached | sources | {"extrap.runs"}) - others


# experiments


EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_opens_with_what_it_is_and_its_command(path):
    first, *lines = path.read_text().splitlines()
    assert first == "# @package _global_"
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("# "))]
    assert len(header) >= 2
    assert re.fullmatch(rf"# (EXTRAP_CORPORA=PATH )?make (sweep EXPERIMENT={path.stem}|{path.stem})", header[-1])
    assert yaml.safe_load(path.read_text())["name"] == path.stem  # or its results would overwrite another's


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_composes(path, monkeypatch):
    monkeypatch.setenv("EXTRAP_CORPORA", "corpora")
    cells = compose_grid([f"experiment={path.stem}", "seed=0,1", "position=rope,learned"])
    assert [(cell.name, cell.seed, cell.scheme) for cell in cells] == [
        (path.stem, seed, scheme) for scheme in ("rope", "learned") for seed in (0, 1)
    ]


def test_warnings_are_errors(pytestconfig):
    assert pytestconfig.getini("filterwarnings")[0] == "error"
