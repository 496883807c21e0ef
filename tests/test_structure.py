"""The shape of the project: imports run one way, a report needs no torch, experiments open with their commands."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml
from marks import slow

from extrap.config.compose import CONF, compose_grid
from extrap.runs.digest import MODULES

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "extrap").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
# in the order of the data, as extrap/README.md draws them: a room imports what stands before it
ROOMS = ["errors", "files", "config", "data", "positions", "extensions", "model", "objectives", "testing", "train",
         "results", "score", "runs", "probes", "stats", "report", "sweep", "__main__"]  # fmt: skip
OF_ROWS = ("extrap.errors", "extrap.files", "extrap.results", "extrap.stats", "extrap.report")  # what a report may know


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text(), str(path)) for path in FILES}


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
        assert_no_circles(IMPORTS | {"extrap.errors": {"extrap.config.schema"}})


def room(module: str) -> str:
    return module.removeprefix("extrap.").split(".")[0]


def test_rooms_follow_the_order_of_the_data():
    assert {room(name) for name in TREES if name.startswith("extrap.")} == {*ROOMS}
    for name in TREES:
        if name.startswith("extrap."):
            later = ROOMS[ROOMS.index(room(name)) + 1 :]
            assert not {other for other in IMPORTS[name] if other.startswith("extrap.") and room(other) in later}, name


def test_the_library_does_not_know_its_commands_and_sources_know_no_config():
    for name, found in IMPORTS.items():
        if name.startswith("extrap"):
            assert not any(other.startswith("experiments") for other in found), name
        if name.startswith("extrap.data"):
            known = {
                f"extrap.data.{part}" for part in ("base", "bpe", "cloze", "corpora", "documents", "overlap", "reading")
            } | {
                "extrap.errors",
                "extrap.files",
            }
            assert {other for other in found if other.startswith("extrap")} <= known, name
        if name.startswith("extrap.positions"):
            assert {other for other in found if other.startswith("extrap")} <= {"extrap.errors"} | {
                other for other in TREES if other.startswith("extrap.positions.")
            }, name


def reporting() -> set[str]:
    """All that makes tables, figures and claims of rows."""
    studies = ("experiments.claims", "experiments.papers", "experiments.page")
    speed = {f"experiments.speed.{name}" for name in ("evidence", "figure", "report", "timings")}
    return {name for name in TREES if name.startswith((*OF_ROWS, *studies))} | speed | {"extrap.config.varied"}


def test_reporting_knows_rows_alone():
    for name in reporting() | {"experiments.report"}:
        known = reporting() | {"extrap.sweep.door"}
        assert {other for other in IMPORTS[name] if other.startswith(("extrap.", "experiments."))} <= known, name


def without_torch() -> list[str]:
    """The files that say of themselves that they import no torch."""
    return [name for name, tree in TREES.items() if "mports no torch" in (ast.get_docstring(tree) or "")]


def test_who_says_to_import_no_torch_imports_none():
    said = without_torch()
    rooms = {f"extrap.{name}" for name in ("config", "data", "results", "stats", "report")}
    assert {*said} >= rooms | {"extrap.objectives", "extrap.score.protocols", "experiments.report"}
    of_rooms = {name for name in TREES if name.startswith(tuple(rooms))}
    for name in {*said} | reporting() | of_rooms:
        assert not any(other.split(".")[0] == "torch" for other in reached_from(name)), name


def test_a_report_starts_without_torch():
    modules = ["experiments.report", "extrap.data.text", "extrap.data.markov", "extrap.objectives", "extrap.score.protocols"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.slow
def test_the_parameters_of_a_sweep_are_counted_without_the_compiler_of_torch(tmp_path):
    code = """
import sys
from extrap.config.compose import compose_grid
from extrap.sweep.checks import prepare_grid
prepare_grid(compose_grid(sys.argv[1:]))
sys.exit("torch._dynamo.symbolic_convert" in sys.modules)
"""
    grid = ["experiment=smoke", "position=rope,local,alibi,sinusoidal,learned,nope", f"runtime.results_dir={tmp_path}"]
    assert subprocess.run([sys.executable, "-c", code, *grid], cwd=ROOT, timeout=120).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_file_is_about_one_thing(path):
    assert not {"utils", "util", "common", "helpers", "helper", "misc"} & set(path.relative_to(ROOT).with_suffix("").parts)
    tree = TREES[module_name(path)]
    if path.stat().st_size:
        assert ast.get_docstring(tree), "opens with a sentence on what it is"
    for node in ast.walk(tree):  # a table kept between runs would leak from one into the next
        if isinstance(node, ast.FunctionDef):
            assert not any("cache" in ast.unparse(d) for d in node.decorator_list if ast.unparse(d) != "cached_property")
        assert not isinstance(node, ast.Global)


def test_hydra_and_omegaconf_stay_at_the_door():
    for name, found in IMPORTS.items():
        if name not in ("extrap.config.compose", "extrap.config.door", "extrap.sweep.sweep"):
            assert not any(other.split(".")[0] in ("hydra", "omegaconf") for other in found), name


def test_the_digest_of_the_code_is_of_all_that_rows_depend_on():
    """All that a run imports, but for what answers do not depend on; schemes have a digest of their own."""
    named = {name for name in TREES if name.startswith("extrap.extensions.")}  # by configs
    ends = {"extrap.runs.run", *named}
    reached = {*ends}.union(*map(reached_from, ends)) & TREES.keys()
    reached = {name for name in reached if "." in name.removeprefix("extrap.")}
    others = {name for name in TREES if name.startswith("extrap.results.")} | {"extrap.runs.digest"}
    sources = {name for name in TREES if name.startswith("extrap.data.")}
    assert (reached | sources | {"extrap.runs.run", "extrap.objectives"}) - others == MODULES


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


@pytest.mark.parametrize("path", [*EXPERIMENTS[:2], *slow(*EXPERIMENTS[2:])], ids=lambda path: path.stem)
def test_an_experiment_composes(path, monkeypatch):
    monkeypatch.setenv("EXTRAP_CORPORA", "corpora")
    cells = compose_grid([f"experiment={path.stem}", "seed=0,1", "position=rope,learned"])
    found = [(cell.name, cell.seed, cell.scheme, cell.setting) for cell in cells]
    settings = {setting for *_, setting in found}
    assert len(found) == len({*found}) == 4 * len(settings)
    assert {*found} == {
        (path.stem, seed, scheme, setting) for scheme in ("rope", "learned") for seed in (0, 1) for setting in settings
    }


def test_warnings_are_errors(pytestconfig):
    assert pytestconfig.getini("filterwarnings")[0] == "error"
