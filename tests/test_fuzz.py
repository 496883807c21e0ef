"""Whatever is broken, in a config or a file, is told in one line before anything is written; whatever may be meant is not.

Broken values are drawn for every option that the composed configs hold, so that a new option is covered as it is.
"""

import functools
import io
import os
import shutil
import signal
import socket
import tempfile
from collections import namedtuple
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from enum import Enum
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marks import slow

from extrap.config.compose import CONF, compose_grid
from extrap.data.text import Text
from extrap.sweep import checks
from extrap.sweep import sweep as run
from extrap.sweep.sweep import main

TINY = ["experiment=smoke", "position=rope", "seed=0", "data=markov", "objective=causal"]
SECONDS = 300  # after which a case counts as hanging, on a busy machine too
HUGE = 2**31

torch.set_num_threads(1)


class NotRefused(Exception):
    """A sweep would begin."""


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch):
    def begin(*_):
        raise NotRefused

    monkeypatch.setattr(run, "_run_and_report", begin)
    monkeypatch.setattr(checks, "physical_memory", lambda: 16 * 2**30)  # sizes are too large on any machine
    for name in ("EXTRAP_CORPORA", "NOT_SET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def place():
    """A folder that must stay as it is, with two good texts, and a name in it where results would go."""
    with tempfile.TemporaryDirectory() as name:
        for part in ("train", "valid"):
            Path(name, f"{part}.txt").write_text(f"All happy families are alike in {part}. " * 200)
        yield Path(name)


def hangs(*_):
    raise TimeoutError("it hangs")


def refusal(place: Path, *overrides: str) -> str:
    """The one line that the command says."""
    before, out, err = sorted(place.rglob("*")), io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*TINY, f"runtime.results_dir={place}/results", *overrides])
    finally:
        signal.alarm(0)
    assert (code, out.getvalue()) == (2, "")
    assert_one_line(err.getvalue())
    assert sorted(place.rglob("*")) == before, "nothing is written"
    return err.getvalue()


def assert_one_line(text: str) -> None:
    assert text.startswith("error: ")
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert len(text) > len("error: x\n")


listed = str.split

# what is broken by construction: strategies of Hydra overrides


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


WORDS = st.text("abcdefghijklmnopqrstuvwxyzXYZ_", min_size=3, max_size=12).map(lambda word: f"qx{word}")
ODD = st.sampled_from(["null", "[]", "[1]", "[[1]]", "{}", "{a: 1}", "{_target_: os.system}", "", "''", "a b", "'${nope}'"])
UNICODE = st.text(min_size=1, max_size=20).map(lambda text: f"qx{text}")
NO_NUMBERS = st.one_of(
    WORDS, ODD, st.sampled_from(["true", "nan", "inf", "-inf", "1e999", "--1", "1_", "0x1g", "١x", "1;2", "x" * 300]),
    UNICODE.map(quoted),
)  # fmt: skip
BELOW = st.integers(-(10**30), -1).map(str)
BROKEN_INTEGERS = st.one_of(
    NO_NUMBERS, BELOW, st.integers(HUGE, 10**30).map(str), st.floats(0.01, 0.99).map("7{:.3f}".format)
)
BROKEN_FLOATS = st.one_of(
    NO_NUMBERS, BELOW, st.floats(max_value=-1e-9, allow_infinity=False).map(str), st.just("1" + 400 * "0")
)
NO_NAMES = st.one_of(
    st.sampled_from(["..", ".", "...", "runs", "claims", "papers", "speed", "[a]", "{a: b}", "''"]),
    st.text("abc.-_", min_size=101, max_size=300),
    st.tuples(WORDS, st.sampled_from("/\\ \n\r\t:*?|<>&%$#~é位\u202e\u2028\0"), WORDS).map(
        lambda part: quoted("".join(part))
    ),
)
NO_FOLDERS = st.sampled_from(["''", "' '", "~qxqx/a", "[a]", "{a: b}", "x" * 300, "'a\0b'", "/proc/nothing", "/dev/null/x"])
INTERPOLATIONS = st.sampled_from([
    "${nope}", "${oc.env:NOT_SET}", "${oc.env}", "${", "${}", "${oc.decode:'['}", "${qx:1}", "${train.qx}", "${.qx}", "$${",
    "${oc.env:NOT_SET,${nope}}", "${oc.select:1:2}", "${name}${", "'${nope}'", "'${'", "'${oc.env:}'",
])  # fmt: skip
FOREIGN = listed("""os.system subprocess.Popen builtins.eval builtins.dict torch.load torch.nn.Linear pathlib.Path hydra.main
    extrap.runs.prepare.prepare extrap.errors.UserError extrap.config.schema.Config extrap.sweep.sweep.main""")
PACKAGES = {"position": "extrap.positions", "data": "extrap.data", "objective": "extrap.objectives"}


def broken_targets(package: str) -> st.SearchStrategy[str]:
    there = st.sampled_from(listed("base.Any base.NamedTuple base.__class__ base.__loader__ base.__dict__ base. .."))
    return st.one_of(
        st.sampled_from(FOREIGN), ODD, WORDS, there.map(f"{package}.".__add__), WORDS.map(f"{package}.".__add__),
        WORDS.map(lambda word: f"{package}.{word}.{word.title()}"), WORDS.map(lambda word: quoted(f"{package}\n.{word}")),
    )  # fmt: skip


def broken_lists(good: list[object]) -> st.SearchStrategy[str]:
    """No list, an empty one, one that has an element twice, or one with a wrong element at any place."""
    if isinstance(good[0], int):
        wrong = st.one_of(BROKEN_INTEGERS.filter(lambda text: text not in ("", "''")), st.just("0"))
    else:
        wrong = st.one_of(WORDS, st.sampled_from(["null", "[none]", "{none: none}", "1", "none.", "'${nope}'", "' '"]))
    one_wrong = st.tuples(st.permutations([str(item) for item in good]), st.integers(0, len(good)), wrong).map(
        lambda drawn: f"[{','.join([*drawn[0][: drawn[1]], drawn[2], *drawn[0][drawn[1] :]])}]"
    )
    return st.one_of(one_wrong, WORDS, st.sampled_from(["[]", "null", "{a: 1}", "", str(good[0]), f"[{good[0]},{good[0]}]"]))


def broken_values(key: str, value: object) -> st.SearchStrategy[str]:
    """Values that an option with this one cannot have, whatever it means."""
    if key.endswith("._target_"):
        return broken_targets(PACKAGES[key.split(".")[0]])
    if key == "name":
        return NO_NAMES
    if key == "runtime.results_dir":
        return NO_FOLDERS
    if isinstance(value, bool):
        return st.one_of(WORDS, ODD.filter(bool), UNICODE.map(quoted))
    if isinstance(value, int):
        return BROKEN_INTEGERS
    if isinstance(value, float):
        return BROKEN_FLOATS
    if isinstance(value, Enum):
        return st.one_of(WORDS, ODD, UNICODE.map(quoted), st.integers(4, 10**30).map(str))
    if isinstance(value, list):
        return broken_lists(value)
    if isinstance(value, str):  # is text as typed, 1e3 and null too
        return st.sampled_from(["[a]", "{a: b}"])
    raise AssertionError(f"{key}={value!r}: write here what such an option cannot be")


@functools.cache
def options() -> dict[str, tuple[list[str], object]]:
    """Every option of every scheme, source and objective: what has to be chosen for it, and its value."""
    text = ["data=text", "data.train=[PLACE/train.txt]", "data.valid=[PLACE/valid.txt]"]
    found = {}
    for choice in ["", *(f"{group}={path.stem}" for group in PACKAGES for path in (CONF / group).glob("*.yaml"))]:
        chosen = text if choice == "data=text" else [choice] if choice else []
        composed = asdict(compose_grid([*TINY, *chosen])[0])
        del composed["vary"]  # names of the others
        composed["eval"] |= {"extensions": [*composed["eval"]["extensions"]], "multiples": [1.0, 2.0]}  # as they are given
        for key, value in flat(composed):
            found.setdefault(key, (chosen, value))
    return found


def flat(node: dict, prefix: str = ""):
    for key, value in node.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def broken_option(key: str) -> st.SearchStrategy[list[str]]:
    chosen, value = options()[key]
    return broken_values(key, value).map(lambda broken: [*chosen, f"{key}={broken}"])


def of_any(make) -> st.SearchStrategy[list[str]]:
    """make(key) -> a strategy of one override."""
    return st.deferred(lambda: st.sampled_from(sorted(options()))).flatmap(
        lambda key: make(key).map(lambda override: [*options()[key][0], override])
    )


def misspelt(key: str) -> st.SearchStrategy[str]:
    at = st.integers(0, len(key) - 1)
    typos = st.one_of(
        st.tuples(at, st.sampled_from("qxz_")).map(lambda t: key[: t[0]] + t[1] + key[t[0] :]),
        at.filter(lambda i: key[i] != ".").map(lambda i: key[:i] + key[i + 1 :]),
        st.just(key.upper()),
        WORDS.map(lambda word: f"{key}.{word}"),
    )
    return st.tuples(st.sampled_from(["", "+", "++", "~"]), typos.filter(lambda typo: typo not in options())).map(
        lambda drawn: drawn[0] + drawn[1] + ("" if drawn[0] == "~" else "=1")
    )


GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("scale", "extension", "hydra"))
NO_CHOICES = [
    "null",
    "5",
    "true",
    "''",
    "",
    "[qx]",
    "../config",
    "../../README",
    "/etc/passwd",
    "'a\nb'",
    "1.5",
    "small.yaml",
]
BROKEN_GROUPS = st.tuples(
    st.sampled_from(GROUPS), st.one_of(WORDS, UNICODE.map(quoted), st.sampled_from([*NO_CHOICES, "x" * 300]))
).map(lambda drawn: ["{}={}".format(*drawn)])
BROKEN_PACKAGES = st.tuples(
    st.sampled_from(["", "+", "++", "~"]),
    st.sampled_from(GROUPS),
    st.one_of(WORDS, st.sampled_from(listed("hydra hydra.callbacks.x hydra.launcher model.d_model train.lr a@b _qx_"))),
    st.sampled_from(["rope", "small", "default", "markov"]),
).map(lambda drawn: ["{}{}@{}={}".format(*drawn)])
DELETIONS = st.sampled_from(
    listed("""name seed model.d_model train.lr eval.lengths runtime.threads model train eval runtime position data objective
    position._target_ data._target_ objective._target_ data.alpha experiment hydra nope hydra/launcher""")
).map(lambda key: [f"~{key}"])
NO_KEYS = ["", "=", "@", "$", ".", "train.", "..", "\n", "é", "[", "train..lr", "\0", "\ud800", "+", "++", ":"]
NO_VALUES = ["[", "{", "'", '"', "(", "[1", "a,", ",", "\\", "1=2", "${", "f(1)", "[1,", "{a:", "a\nb", "é", "\ud800"]
GARBAGE = st.one_of(
    st.text(max_size=40).filter(lambda text: "=" not in text and not text.startswith("~")),
    st.tuples(st.sampled_from(NO_KEYS), st.sampled_from(["=", "=1", "=="])).map("".join),
    st.tuples(st.sampled_from(["train.lr=", "name=", "seed="]), st.sampled_from(NO_VALUES)).map("".join),
).map(lambda text: [text])
FLAGS = st.sampled_from(
    listed("""--config-dir=/tmp --config-path=/tmp -cd -cn=x --config-name=x --multirun -m --run -r --cfg=job
    --hydra-help --info --resolve --package=x --shell-completion --experimental-rerun=x.pickle --version - --""")
).map(lambda flag: [flag])
DOORS = st.tuples(
    st.sampled_from(["", "+", "++", "~"]),
    st.one_of(
        st.sampled_from(
            listed("""hydra hydra.qx hydra.mode hydra.verbose hydra.output_subdir hydra.searchpath hydra.run.dir
            hydra.sweep.dir hydra.sweep.subdir hydra.launcher hydra.launcher._target_ hydra.launcher.x._target_
            hydra.launcher._args_
            hydra.sweeper hydra.sweeper._target_ hydra.sweeper.params.seed hydra.sweeper.max_batch_size hydra.callbacks
            hydra.callbacks.x hydra.callbacks.x._target_ hydra.job.env_set hydra.job.env_set.LD_PRELOAD hydra.job.env_copy
            hydra.job.name hydra.job.chdir hydra.hydra_logging hydra.job_logging hydra.job_logging.handlers
            hydra.overrides.hydra hydra.runtime.output_dir hydra/job_logging hydra/hydra_logging hydra/callbacks
            hydra/sweeper hydra/env hydra/output hydra/help hydra/launcher@hydra.callbacks""")
        ),
        WORDS.map(lambda word: f"hydra.{word}._target_"),
    ),
    st.sampled_from(["os.system", "[os.system]", "{_target_: os.system}", "{x: {_target_: os.system}}", "{class: os.system}",
                     "default", "/tmp", "null", "1"]),
).map(lambda drawn: ["{}{}={}".format(*drawn)])  # fmt: skip
SWEEPS = st.one_of(
    BROKEN_INTEGERS.filter(lambda text: text not in ("", "''")).map(lambda last: f"seed=0,1,{last}"),
    WORDS.map(lambda last: f"position=rope,alibi,{last}"),
    st.sampled_from(
        listed("""seed=0,0 seed=range(0,0) seed=range(5,3) seed=range(0,1,0) seed=range(0,3000000000) seed=range(0,2.5,0.5)
        seed=range(0,nan) seed=choice() seed=interval(0,1) seed=glob(*) seed=tag(a,0) seed=shuffle(0,qx) seed=sort(1,qx)
        position=glob(qx*) position=rope,rope position.base=1,2,qx train.lr=0.1,qx model.d_model=32,-1
        eval.lengths=[32],[64] runtime.threads=1,2 runtime.results_dir=a,b name=a,b experiment=smoke,main data=markov,qx
        objective=causal,qx
        hydra/launcher=local,local hydra.launcher.n_jobs=1,2""")
    ),
).map(lambda override: [override])


# broken files


def loop(path: Path) -> None:
    path.symlink_to(path)


def escaping_folder(path: Path) -> None:
    path.symlink_to("/etc")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


BAD_FILES = {
    "missing": lambda path: None,
    "empty": Path.touch,
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "nul": lambda path: path.write_bytes(b"text\0text" * 9000),
    "latin-1": lambda path: path.write_bytes("naïve ".encode("latin-1") * 9000),
    "cut": lambda path: path.write_bytes(("é" * 9000).encode()[:-1]),
    "utf-16": lambda path: path.write_text("text" * 9000, encoding="utf-16"),
    "short": lambda path: path.write_text("s"),
    "fifo": os.mkfifo,
    "socket": listening,
    "loop": loop,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "empty folder": Path.mkdir,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/proc/self/mem": lambda path: path.symlink_to("/proc/self/mem"),
    "\n": lambda path: path.write_bytes(b"\xff"),
}
WITHIN_FOLDERS = {  # in a folder beside a good text
    **{kind: make for kind, make in BAD_FILES.items() if kind not in ("missing", "short", "empty", "empty folder")},
    "out": lambda path: path.symlink_to("/etc/hostname"),
    "up": lambda path: path.symlink_to(".."),
    "out to a folder": escaping_folder,
    "sideways": lambda path: path.symlink_to("../../train.txt"),
}


def broken_file(place: Path, part: str, kind: str, within: bool) -> list[str]:
    """Makes one, and the overrides that name it."""
    folder = Path(tempfile.mkdtemp(dir=place))
    name = {"\n": "two\nli\u202enes\r.txt"}.get(kind, "bad.txt")
    (WITHIN_FOLDERS if within else BAD_FILES)[kind](folder / name)
    if within:
        (folder / "good.txt").write_text(f"{folder} and its good text. " * 2000)
    given = folder if within else folder / name
    other = {"train": "valid", "valid": "train"}[part]
    return ["data=text", f"data.{part}=[{quoted(str(given))}]", f"data.{other}=[{place}/{other}.txt]"]


BROKEN_FILES = st.tuples(
    st.sampled_from(["train", "valid"]),
    st.sampled_from([(kind, False) for kind in BAD_FILES] + [(kind, True) for kind in WITHIN_FOLDERS]),
)


KINDS = {
    "options": st.deferred(lambda: st.sampled_from(sorted(options()))).flatmap(broken_option),
    "interpolations": of_any(lambda key: INTERPOLATIONS.map(lambda value: f"{key}={value}")),
    "typos": of_any(misspelt),
    "groups": BROKEN_GROUPS,
    "packages": BROKEN_PACKAGES,
    "deletions": DELETIONS,
    "garbage": GARBAGE,
    "flags": FLAGS,
    "doors": DOORS,
    "sweeps": SWEEPS,
}


def all_refused(strategy: st.SearchStrategy[list[str]], place: Path, n_cases: int) -> None:
    @settings(max_examples=n_cases, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def check(overrides):
        refusal(place, *(override.replace("PLACE", str(place)) for override in overrides))

    check()


def test_what_is_broken_is_refused(place):
    for kind in (KINDS["flags"], KINDS["sweeps"]):  # of the others there are cases in test_bad_input
        all_refused(kind, place, 1)


@pytest.mark.slow
def test_every_option_refuses_what_it_cannot_be(place):
    for key in options():
        all_refused(broken_option(key), place, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_of_what_is_broken_is_refused(place, kind):
    all_refused(KINDS[kind], place, 30)


@pytest.mark.parametrize("n_cases", [4, pytest.param(80, marks=pytest.mark.slow)])
def test_broken_files_are_refused(place, monkeypatch, n_cases):
    monkeypatch.chdir(place)
    all_refused(BROKEN_FILES.map(lambda drawn: broken_file(place, drawn[0], *drawn[1])), place, n_cases)


# what may be meant


@pytest.mark.parametrize(
    "overrides",
    [
        [], ["name=12e4567"], ["seed=0,1,2,3,4"], ["position={}"], ["data=markov,stdlib", "objective=causal,mlm"],
        *slow(["train.lr=1e30"], [f"train.max_steps={HUGE - 1}"], ["position.base=1e300"], [f"seed={HUGE - 1}"],
        ["train.lr=1e-300"],
        ["position=t5", "position.max_distance=1000000000"], ["position=local", f"position.window={HUGE - 1}"],
        ["name=a.b-c_1"], ["name=12"], ["name=null"], ["name=-1"],
        ["model.dropout=0.999"], ["train.lr='1'"], ["~position.base"],
        ["runtime.results_dir='PLACE/位置 und\nmehr'"], [f"runtime.checkpoint_every={HUGE - 1}"], ["hydra/launcher=basic"],
        ["hydra.launcher.n_jobs=7"], ["position=glob(*,exclude=zzz)"], ["eval.lengths=[128,32,64]"],
        ["train.weight_decay=0"], ["train.lr=0.1,0.2", "model.d_model=32,64"]),
    ],
)  # fmt: skip
def test_what_may_be_meant_is_not_refused(place, tmp_path, overrides):
    before = sorted(place.rglob("*"))
    told = [override.replace("PLACE", str(tmp_path)) for override in overrides]
    with pytest.raises(NotRefused):
        main([*TINY, f"runtime.results_dir={tmp_path}/results", *told])
    assert sorted(place.rglob("*")) == before


def test_links_and_hidden_files_that_stay_within_a_corpus_may_be_there(tmp_path):
    corpus, valid = tmp_path / "corpus", tmp_path / "valid.txt"
    (corpus / "deep").mkdir(parents=True)
    (corpus / "b.txt").write_text("B")
    valid.write_text("V")
    (corpus / "a-link.txt").symlink_to("b.txt")
    (corpus / "deep" / "circle").symlink_to("..")
    (corpus / ".git").symlink_to("/etc")
    assert list(Text([str(corpus)], [str(valid)]).train) == ["corpus/b.txt"], "the file itself, wherever its links stand"
    (tmp_path / "given").symlink_to(corpus)
    assert list(Text([str(tmp_path / "given")], [str(valid)]).train) == ["corpus/b.txt"], "a link that is given is a choice"


# the whole grid, before the first run


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["position=nope,alibi,rope", "model.n_heads=32"], "even head_dim, found 1"),
        (
            ["position=nope,alibi,sinusoidal", "model.d_model=33", "model.n_heads=1", "model.d_ff=8"],
            "even d_model, found 33",
        ),
        (["position=nope,alibi,learned", "model.d_model=32768"], "GiB"),
        (["position=alibi,qx"], "no such position"),
        (["seed=0,1,2,-1"], "seed: expected 0"),
        (["seed=0,1,2,2"], "share the run folder"),
        (["seed=0,1", "eval.protocols=[nonoverlap,qx]"], "no protocol qx"),
        (["seed=0,1", "runtime.device=cuda"], "no CUDA device"),
    ],
)
def test_a_bad_run_in_the_last_place_is_found_at_the_start(place, monkeypatch, overrides, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(checks, "physical_memory", lambda: 68_800_000_000)  # the table of learned is too much
    assert told in refusal(place, *overrides)


def test_a_disk_without_room_is_told_before_anything_is_written(place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Room", "total free")(2**30, 1))
    assert "MiB free; make room" in refusal(place)


def test_a_run_folder_of_another_config_in_the_last_place_is_found_at_the_start(place, tmp_path):
    results = f"runtime.results_dir={tmp_path}"
    last = tmp_path / "runs" / "smoke" / "rope-seed2"
    last.mkdir(parents=True)
    (last / "config.yaml").write_text("seed: 7\n")
    assert f"{last} holds a run with another config" in refusal(place, results, "seed=0,1,2")
    assert [path.name for path in last.parent.iterdir()] == ["rope-seed2"]
