"""Lengths in multiples of the training length, and experiments at the sizes of a scale."""

import shutil
from pathlib import Path

import pytest

from extrap.config import compose
from extrap.config.compose import compose_grid, compose_sweep
from extrap.config.scales import at_scale, experiments, sizes
from extrap.config.schema import in_tokens
from extrap.errors import UserError

ONE = ["position=rope", "seed=0"]


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of conf/ to add files to."""
    monkeypatch.setattr(compose, "CONF", Path(shutil.copytree(compose.CONF, tmp_path / "conf")))
    return compose.CONF


# multiples


def test_multiples_are_whole_tokens():
    assert in_tokens([1, 1.5, 2, 1.296875], 128) == [128, 192, 256, 166]
    assert in_tokens([1.1, 0.3], 10) == [11, 3], "in decimals, as they were written"


@pytest.mark.parametrize("multiple", [1.5, 0.0, -1.0, float("nan"), float("inf"), 1e300, 2.0**31])
def test_a_multiple_that_is_no_number_of_tokens_is_told(multiple):
    with pytest.raises(UserError, match=rf"eval\.multiples: {multiple:g} x train\.train_len=37 is ".replace("+", r"\+")):
        in_tokens([1.0, multiple], 37)


def lengths(*overrides: str) -> list[int]:
    return compose_grid(["experiment=smoke", *ONE, *overrides])[0].eval.lengths


@pytest.mark.slow
def test_lengths_follow_the_training_length_unless_they_are_given():
    assert lengths() == [32, 64, 128]
    assert lengths("train.train_len=40") == [40, 80, 160]
    assert lengths("eval.multiples=[1,1.5]") == [32, 48]
    assert lengths("eval.lengths=[32,33]") == lengths("++eval.lengths=[32,33]") == [32, 33]


def test_lengths_are_the_same_run_however_they_are_told():
    given = ["experiment=smoke", *ONE]
    [told], [multiples] = (compose_grid([*given, more]) for more in ("eval.lengths=[32,64]", "eval.multiples=[1,2]"))
    assert told.identity() == multiples.identity()
    assert "multiples" not in told.identity()["eval"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["eval.lengths=[32]", "eval.multiples=[1]"], "eval.lengths, eval.multiples: expected one of them"),
        (["eval.multiples=[1,1.3]"], "1.3 x train.train_len=32 is 41.6 tokens"),
        (["eval.multiples=[2,4]"], "expected train.train_len=32 among them, found [64, 128]"),
        (["eval.multiples=[]"], "eval.lengths: expected at least one"),
        (["eval.multiples=[1,one]"], "eval.multiples"),
        (["eval.multiples=2"], "eval.multiples"),
        (["train.train_len=0"], "train.train_len: expected at least 2"),
    ],
)
def test_what_is_wrong_about_lengths_is_told(overrides, told):
    with pytest.raises(UserError) as error:
        lengths(*overrides)
    assert told in str(error.value)


@pytest.mark.slow
def test_a_file_that_gives_both_is_refused(conf):
    text = "# @package _global_\ndefaults: [smoke, _self_]\nname: mine\neval:\n  lengths: [32, 48]\n"
    (conf / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"expected one of them, found \[32, 48\], \[1.*\]; set one to \[\]"):
        compose_grid(["experiment=mine", *ONE])
    (conf / "experiment" / "mine.yaml").write_text(f"{text}  multiples: []\n")
    assert compose_grid(["experiment=mine", *ONE])[0].eval.lengths == [32, 48]
    assert compose_grid(["experiment=mine", *ONE, "eval.multiples=[1,2]"])[0].eval.lengths == [32, 64]


# scales


def test_the_end_of_a_name_is_a_scale(conf):
    gpu = conf / "scale" / "gpu.yaml"
    assert at_scale(["seed=0", "experiment=main_gpu"], conf) == (["name=main_gpu", "seed=0", "experiment=main"], gpu)
    assert at_scale(["experiment='causal_64_gpu'"], conf) == (["name=causal_64_gpu", "experiment=causal_64"], gpu)
    for other in ("main", "main_tpu", "nothing_gpu", "gpu", "_gpu"):
        assert at_scale([f"experiment={other}"], conf) == ([f"experiment={other}"], None)
    assert at_scale(["experiment=main_gpu", "experiment=main"], conf)[1] is None, "the last one counts"
    (conf / "scale" / "tiny.yaml").write_text("train: {max_steps: 60}\n")
    assert {"main", "main_gpu", "main_tiny", "causal_64_tiny"} <= {*experiments(conf)}
    [config] = compose_grid(["experiment=main_tiny", *ONE])
    assert (config.name, config.train.max_steps, config.train.train_len) == ("main_tiny", 60, 128)


def test_an_experiment_of_its_own_is_no_scale(conf):
    (conf / "experiment" / "smoke_gpu.yaml").write_text("# @package _global_\ndefaults: [smoke, _self_]\nname: mine\n")
    assert compose_grid(["experiment=smoke_gpu", *ONE])[0].name == "mine"


def test_a_scale_sets_and_multiplies(tmp_path):
    scale = tmp_path / "large.yaml"
    scale.write_text("a: {b: 1.0e-3, c: [x]}\ntimes: {d: {n: 4, half: 0.5, many: 2, none: 2, follows: 2}}\n")
    composed = {"d": {"n": 32, "half": 8, "many": [1, 2], "none": [], "follows": ["${d.n}"]}}
    assert sizes(scale, composed) == ["a.b=0.001", 'a.c=["x"]', "d.n=128", "d.half=4", "d.many=[2, 4]"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("times: {train: {train_length: 4}}", "times.train.train_length: no such option; did you mean train.train_len"),
        ("times: 4", "times.: no such option"),
        ("- train", "mine.yaml: expected options and their values"),
        ("times: {train: {train_len: x}}", "times.train.train_len: expected a number, found x"),
        ("train: [", "mine.yaml: expected options and their values"),
    ],
)
def test_a_broken_scale_is_told(tmp_path, text, told):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        sizes(tmp_path / "mine.yaml", {"train": {"train_len": 32}})
    assert told in str(error.value)


@pytest.mark.slow
def test_a_scale_is_what_could_be_typed(conf):
    for text, told in (
        ("train: {max_step: 4}", "train.max_step: no such option; did you mean train.max_steps"),
        ("hydra: {callbacks: {x: {_target_: os.mkdir}}}", "of hydra only"),
    ):
        (conf / "scale" / "mine.yaml").write_text(text)
        with pytest.raises(UserError, match=told):
            compose_grid(["experiment=smoke_mine", *ONE])


@pytest.mark.slow
def test_what_is_typed_counts_before_what_an_experiment_sweeps_and_that_before_the_scale(conf):
    text = "hydra: {sweeper: {params: {eval.stride: 2}}}\n"
    (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\ndefaults: [smoke, _self_]\nname: mine\n{text}")
    given = ["experiment=mine_gpu", *ONE]
    [config] = compose_grid(given)
    assert (config.name, config.train.train_len, config.eval.stride) == ("mine_gpu", 128, 2)
    [config] = compose_grid([*given, "name=other", "train.train_len=64", "eval.stride=16"])
    assert (config.name, config.train.train_len, config.eval.stride) == ("other", 64, 16)
    assert config.eval.lengths == [64, 128, 256]
    grid = compose_sweep(["experiment=mine_gpu", "train.lr=1e-4"])
    assert "train.train_len=128" in grid.overrides, "for launchers that compose again"
    assert not [line for line in grid.overrides if "stride" in line or "_gpu" in line.partition("=")[0]]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("experiment=main_gpuu", "no such experiment; did you mean main_gpu"),
        ("experiment=maiin_gpu", "no such experiment; did you mean main_gpu"),
        ("experiment=smoke_tpu", "no such experiment; did you mean smoke_gpu"),
        ("scale=gpu", "a scale ends the name of an experiment (experiment=main_gpu)"),
        ("+scale=gpu", "a scale ends the name"),
        ("extension=window", "extensions stand in eval.extensions"),
    ],
)
def test_what_is_no_scale_is_told_with_the_nearest(override, told):
    with pytest.raises(UserError) as error:
        compose_grid([override, *ONE])
    assert told in str(error.value)
