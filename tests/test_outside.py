"""Schemes of other files: what they are called, what they are, and each slip told in a line before any training."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sweeps import ROOT

from extrap.config.compose import compose_grid, with_schemes
from extrap.config.outside import LOADED, Outside, find, function, named
from extrap.config.specs import build, label, target
from extrap.errors import UserError
from extrap.positions.base import Geometry
from extrap.runs.digest import scheme_digest
from extrap.runs.prepare import build_scheme
from extrap.sweep.checks import prepare_grid

MINE = """
from __future__ import annotations

from typing import Literal

from extrap.positions.base import Geometry, PositionScheme
from helper import falls


class Mine(PositionScheme):
    relative = True

    def __init__(
        self, geometry: Geometry, alpha: float = 1.0, window: int | None = None, sizes: tuple[int, ...] = (1, 2),
        pair: tuple[int, float] = (1, 2.0), names: list[str] = ["a"], kind: Literal["log", "root"] = "log", free=None,
    ) -> None:
        super().__init__(geometry)
        self.given = alpha, window, sizes, pair, names, kind, free
        self.alpha = alpha

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score - self.alpha * falls(pos[i] - pos[j])
"""
HELPER = "def falls(distance):\n    return distance.abs().sqrt()\n"
PLAIN = "from extrap.positions.base import PositionScheme\n\n\nclass {}(PositionScheme):\n    pass\n"


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def grid(*overrides):
    return compose_grid(with_schemes(["experiment=smoke", "seed=0", *overrides]))


def the(place):
    """The config of one scheme from outside, the last of its sweep."""
    return grid("position=nope", f"scheme={place}")[-1]


def made(place):
    """What a scheme is built as, without what Hydra does between."""
    [(file, arguments)] = named(str(place))
    spec = {"_target_": find(file), **arguments}
    label(spec)
    return build(spec, "position", "extrap.positions", geometry=Geometry(32, 4, 16, causal=True))


def test_it_stands_beside_the_schemes_of_the_experiment_or_the_command(mine):
    two = f"scheme={mine}:Mine(alpha=2, sizes=(3, 4)) {mine},kerple"
    schemes = ["nope", "rope", "mine(alpha=2.0, sizes=(3, 4))", "mine", "kerple"]
    found = grid("position=glob([nop*,rope])", two, "seed=0,1")
    assert [(cell.scheme, cell.seed) for cell in found] == [(scheme, seed) for scheme in schemes for seed in (0, 1)]
    with_two = with_schemes(["experiment=quick", f"scheme={mine}", f"scheme={mine}(alpha=3)"])
    assert with_two == ["experiment=quick", "position='rope','local','alibi','sinusoidal','learned','nope',mine,mine-1"]
    with_rope = with_schemes(["experiment=quick", "position=nope,'rope'", "scheme=rope,alibi,alibi"])
    assert with_rope[-1] == "position='nope','rope',alibi", "each once"


def test_arguments_are_what_their_types_say(mine):
    scheme = made(f"{mine}(alpha=2,window=5,sizes=[3],pair=[1,2],names=[b,'c d'],kind=root,free=[1])")
    assert scheme.given == (2.0, 5, (3,), (1, 2.0), ["b", "c d"], "root", [1])
    assert type(scheme.given[0]) is type(scheme.given[3][1]) is float
    assert build_scheme(the(mine), True).given == (1.0, None, (1, 2), (1, 2.0), ["a"], "log", None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("alpha=big", "position.alpha: expected float, found 'big'"),
        ("alpha=1e999", "position.alpha: expected a finite number"),
        ("window=2.5", "position.window: expected int | None, found 2.5"),
        ("window=True", "position.window: expected int | None, found True"),
        ("sizes=3", "position.sizes: expected tuple[int, ...], found 3; in brackets also when it is but one"),
        ("sizes=[a]", "position.sizes: expected tuple[int, ...]"),
        ("pair=[1]", "position.pair: expected tuple[int, float]"),
        ("names=a", "position.names: expected list[str], found 'a'"),
        ("kind=square", "position.kind: expected Literal['log', 'root'], found 'square'"),
        ("alfa=2", "position.alfa: no such option; did you mean alpha?"),
        ("geometry=2", "position.geometry: expected Geometry, found 2"),
        ("2", "expected FILE.py:Class(option=value, ...)"),
        ("alpha=1+", "expected FILE.py:Class(option=value, ...)"),
        ("alpha=open(1)", "expected FILE.py:Class(option=value, ...)"),
    ],
)
def test_an_argument_of_another_type_is_told(mine, arguments, told):
    with pytest.raises(UserError) as error:
        made(f"{mine}:Mine({arguments})")
    assert told in str(error.value)


BODY = PLAIN.format("Mine").replace("    pass", "    def __init__(self{}):\n        {}")
BAD = {
    "class Mine(:\n": r"mine.py cannot be imported: SyntaxError: .* \(mine.py, line 1\)",
    "import no_such_module\n": r"mine.py imports no_such_module, which is neither beside it nor installed",
    "from extrap.positions.base import Nothing\n": "mine.py cannot be imported: ImportError: cannot import name 'Nothing'",
    "1 / 0\n": r"mine.py cannot be imported: ZeroDivisionError: division by zero",
    "import sys\nsys.exit(0)\n": r"mine.py cannot be imported: SystemExit: 0",
    "x = 1\n": r"mine.py: expected one subclass of extrap.positions.base.PositionScheme; there is none",
    PLAIN.format("One") + PLAIN.format("Two"): r"mine.py: expected one subclass .*; there is .*mine.py:One or .*mine.py:Two",
    PLAIN.format("Mine") + PLAIN.format("Mine"): r"mine.py has 2 classes Mine, in lines 4, 9; rename all but one",
    BODY.format(
        "", "super().__init__(None)"
    ): r"mine.py:Mine keeps no geometry; expected def __init__\(self, geometry, ...\)",
    BODY.format(", geometry", "pass"): r"mine.py:Mine keeps no geometry; .* super\(\).__init__\(geometry\) in it",
    BODY.format(", geometry", "self.x = undefined"): r"mine.py:Mine: NameError: name 'undefined' is not defined",
    BODY.format(", geometry, /", "pass"): r"mine.py:Mine: TypeError: .*positional-only",
    BODY.format(", geometry, size", "pass"): r"position.size: is missing; Mine needs it",
    BODY.format(
        ", g", "super().__init__(g)"
    ): r"Mine asks for g and not for geometry; expected def __init__\(self, geometry, ",
    BODY.format(", geometry", "raise SystemExit(0)"): r"mine.py:Mine: SystemExit: 0",
    BODY.format(", geometry, size: 'Nothing' = 1", "pass"): r"the types of Mine's arguments cannot be read: .*Nothing",
}


@pytest.mark.parametrize("source", BAD)
def test_a_file_that_is_no_scheme_is_told_in_a_line(tmp_path, source):
    (tmp_path / "mine.py").write_text(source)
    before = {*sys.modules}
    with pytest.raises(UserError, match=BAD[source]) as error:
        made(tmp_path / "mine.py")
    assert "\n" not in str(error.value)
    assert sys.modules.keys() - before <= {name for name in sys.modules if name.startswith("outside_")}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("{}/gone.py", "gone.py: there is no such file"),
        ("{}", "expected FILE.py:Class or a scheme of the project"),
        ("{}/mine.py:Your", "mine.py:Your: expected one subclass"),
        ("{}/mine.py:Geometry", "mine.py:Geometry: expected one subclass"),
        ("rop", "did you mean rope or prope?"),
        ("rope(base=2)", "options of a scheme of the project go into position.OPTION=VALUE"),
        ("", "expected FILE.py, FILE.py:Class or FILE.py:Class(option=value, ...), found nothing"),
    ],
)
def test_a_slip_in_its_name_is_told(mine, place, told):
    with pytest.raises(UserError) as error:
        the(place.format(mine.parent))
    assert told in str(error.value)


def test_two_classes_of_one_name_are_told(mine, tmp_path):
    (tmp_path / "rope.py").write_text(PLAIN.format("Rope"))
    for preset in ("ModernBert", "Alibi_Two"):  # Hydra would take the file of that name
        (tmp_path / "preset.py").write_text(PLAIN.format(preset))
        told = f"rows would call it {preset.lower()}, as they call the choice position={preset.lower()}; rename the class"
        with pytest.raises(UserError, match=told):
            the(tmp_path / "preset.py")
    with pytest.raises(UserError, match=r"rows would call it rope, as they call that of extrap.positions.rope.Rope; rename"):
        the(tmp_path / "rope.py")
    (tmp_path / "other.py").write_text(PLAIN.format("MINE"))
    with pytest.raises(UserError, match=r"other.py: rows would call it mine, as they call that of .*mine.py; rename"):
        the(f"{mine} {tmp_path / 'other.py'}")


@pytest.mark.parametrize("name", ["Unigram", "Floor"])
def test_a_scheme_that_is_called_as_a_reference_is_told(tmp_path, name):
    (tmp_path / "mine.py").write_text(PLAIN.format(name))
    with pytest.raises(UserError, match=rf"rows would call it {name.lower()}, as they call a reference; rename the class"):
        the(tmp_path / "mine.py")


def test_a_config_file_cannot_name_one(mine):
    for named_in_file in (f"{mine}:Mine", str(mine), "mine.Mine"):
        with pytest.raises(UserError, match=r"position._target_: expected a class of extrap.positions, found"):
            target({"_target_": named_in_file}, "position", "extrap.positions")
    with pytest.raises(UserError, match=r"position._target_: expected a class of extrap.positions, found"):
        print(grid("position=nope", f"position._target_='{mine}:Mine'")[0].scheme)


def digests(mine):
    return scheme_digest({"_target_": find(str(mine))})


def test_the_digest_is_of_the_file_and_of_what_it_imports(mine, tmp_path):
    first = digests(mine)
    mine.write_text(MINE + "# a remark\n")
    assert digests(mine) == first
    mine.write_text(MINE.replace("alpha: float = 1.0", "alpha: float = 3.0"))
    changed = digests(mine)
    mine.write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER.replace("sqrt", "log1p"))
    assert len({first, changed, digests(mine)}) == 3
    (tmp_path / "helper.py").write_text(HELPER)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("mine.py", "helper.py"):
        (elsewhere / name).write_text((tmp_path / name).read_text())
    assert digests(elsewhere / "mine.py") == first, "where it lies does not matter"
    assert "helper" not in sys.modules


@pytest.mark.parametrize(
    "importing",
    [
        "from . import helper\nfalls = helper.falls",
        "from .helper import falls",
        "import parts.helper\nfalls = parts.helper.falls",
        "from parts import helper\nfalls = helper.falls",
        "def falls(distance):\n    import helper\n    return helper.falls(distance)",
        "def falls(distance):\n    from . import helper\n    return helper.falls(distance)",
        "def falls(distance):\n    from .helper import falls as of\n    return of(distance)",
        "import importlib\nfalls = importlib.import_module('helper').falls",
    ],
)
def test_every_form_of_import_counts(mine, tmp_path, importing):
    (tmp_path / "parts").mkdir()
    mine.write_text(MINE.replace("from helper import falls", importing))
    seen = []
    for text in (HELPER, HELPER.replace("sqrt", "log1p")):
        for place in (tmp_path / "helper.py", tmp_path / "parts" / "helper.py"):
            place.write_text(text)
        seen.append(digests(mine))
    assert seen[0] != seen[1]


def test_two_files_have_each_the_helper_beside_it(mine, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "yours.py").write_text(MINE.replace("Mine", "Yours"))
    (other / "helper.py").write_text(HELPER.replace("sqrt", "log1p"))
    found = [LOADED[scheme.path, scheme.digest].module for scheme in (find(str(mine)), find(str(other / "yours.py")))]
    assert [module.falls.__code__.co_filename for module in found] == [str(tmp_path / "helper.py"), str(other / "helper.py")]


@pytest.mark.slow
def test_a_worker_has_the_same_code_or_none(mine):
    config = the(mine)
    sent = pickle.dumps(config)
    code = "import pickle, sys; c = pickle.load(sys.stdin.buffer); print(c.scheme, c.identity()['position']['_target_'])"

    def worker():
        return subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, cwd=ROOT, timeout=60)

    assert worker().stdout.decode().split() == ["mine", "mine.py:Mine"]
    mine.write_text(MINE.replace("1.0", "2.0"))
    assert b"mine.py or what it imports has changed since the sweep began" in worker().stderr


@pytest.mark.slow
def test_the_config_of_a_run_says_what_it_was_and_an_edited_file_is_refused(mine, tmp_path):
    def runs():
        options = ["position=nope", "data=markov", "objective=causal", f"runtime.results_dir={tmp_path / 'results'}"]
        return prepare_grid(grid(*options, f"scheme={mine}(alpha=2)"))

    run = runs()[-1]
    run.folder.claim(run.identity)
    written = yaml.safe_load((run.config.folder / "config.yaml").read_text())
    assert written["position"] == {
        "_target_": "mine.py:Mine", "alpha": 2, "window": None, "sizes": [1, 2], "pair": [1, 2.0], "names": ["a"],
        "kind": "log", "free": None,
    }  # fmt: skip
    assert written["scheme_code"] == scheme_digest(run.config.position)
    run.folder.refuse_other_config(run.identity)
    (tmp_path / "helper.py").write_text(HELPER.replace("sqrt", "log1p"))
    with pytest.raises(UserError, match=r"mine-alpha=2.0-seed0 holds a run of another version of its scheme: scheme_code"):
        runs()


def test_a_table_that_is_shorter_than_the_longest_input_is_told_before_training(tmp_path):
    """It ends beyond what is checked of every scheme, and nothing says so."""
    short = PLAIN.format("Short").replace(
        "pass", "rows = 50\n\n    def embed(self, x, pos):\n        return x + {}[pos][:, None]"
    )
    (tmp_path / "short.py").write_text(f"import torch\n{short.format('torch.zeros(self.rows)')}")
    options = [
        f"scheme={tmp_path / 'short.py'}",
        "position=nope",
        "data=markov",
        "objective=causal",
        f"runtime.results_dir={tmp_path / 'results'}",
    ]
    ends = [*options, "train.train_len=16"]
    with pytest.raises(
        UserError, match=r"Short fails on 128 tokens, the longest input that is scored: .*; .* states its max_len"
    ):
        prepare_grid(configs := grid(*ends, "eval.multiples=[1,8]"))
    prepare_grid([replace(config, eval=replace(config.eval, lengths=[16, 32])) for config in configs])


def test_a_scheme_of_ours_can_be_within_and_around(mine, tmp_path):
    (tmp_path / "around.py").write_text(
        "from extrap.positions.base import PositionScheme\n\n\nclass Around(PositionScheme):\n"
        "    def __init__(self, geometry, inner: PositionScheme):\n"
        "        super().__init__(geometry)\n        self.inner = inner\n"
    )
    spec = {"_target_": find(str(tmp_path / "around.py")), "inner": {"_target_": find(str(mine)), "alpha": 2}}
    assert label(spec) == "around(mine(alpha=2.0))"
    around = build(spec, "position", "extrap.positions", geometry=Geometry(32, 4, 16, causal=True))
    assert around.inner.alpha == 2
    spec = {"_target_": "extrap.positions.local.Local", "inner": {"_target_": find(str(mine))}, "window": 4}
    assert label(spec) == "local(mine, window=4)"


def test_a_name_is_read_as_labels_are_written():
    assert named("a.py b/c.py:C(x=1, y=(2, 3)),\n'my files/d.py'(z=[a, 'b, c'])") == [
        ("a.py", {}), ("b/c.py:C", {"x": 1, "y": [2, 3]}), ("my files/d.py", {"z": ["a", "b, c"]}),
    ]  # fmt: skip


def test_paths_are_as_they_are_typed(mine, monkeypatch):
    monkeypatch.setenv("HOME", str(mine.parent))
    monkeypatch.chdir(mine.parent)
    assert [find(place).path for place in ("mine.py", "~/mine.py", "./mine.py:Mine")] == [mine.resolve()] * 3
    assert str(Outside(Path("/a/mine.py"), "Mine", "")) == "mine.py:Mine"


@pytest.mark.slow
def test_a_scheme_named_once_is_no_choice_of_the_next_sweep(mine):
    grid(f"scheme={mine}(alpha=2)")
    assert not [run.scheme for run in grid("position=glob(*)") if "mine" in run.scheme]


def test_helpers_in_folders_without_an_init_file_leave_in_any_order(tmp_path):
    """Where a module stands is asked of the folder above it, which may have gone: by the order of a set of names."""
    (tmp_path / "parts" / "more").mkdir(parents=True)
    for name in "abcdefgh":
        (tmp_path / "parts" / "more" / f"{name}.py").write_text("slope = 0.5\n")
    lines = [f"from parts.more.{name} import slope" for name in "abcdefgh"]
    (tmp_path / "formula.py").write_text("\n".join([*lines, "def zero(q):", "    return slope * q @ q.mT", ""]))
    assert callable(function(f"{tmp_path}/formula.py:zero"))
