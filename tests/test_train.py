"""Training: the start, the same bits twice, resuming, pairing by seed."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from marks import slow
from torch import nn

from extrap.config.choices import Precision
from extrap.config.compose import compose_grid
from extrap.model.encoder import Encoder
from extrap.positions.absolute import Learned
from extrap.results.rows import collect_missing
from extrap.runs.prepare import Run
from extrap.runs.run import build_encoder, execute
from extrap.sweep.checks import prepare_grid
from extrap.train import loop as training
from extrap.train.optimizer import make_optimizers

TINY = [
    "experiment=smoke", "seed=0", "data=stdlib", "train.train_len=16", "train.max_steps=12", "train.batch_size=2",
    "eval.lengths=[16,48]", "eval.n_segments=10", "eval.n_targets=8", "runtime.checkpoint_every=5",
]  # fmt: skip


def cell(results: Path, *overrides: str) -> Run:
    return prepare_grid(compose_grid([*TINY, f"runtime.results_dir={results}", "position=rope", *overrides]))[0]


def loss_on_random_tokens(c: Run, encoder: Encoder) -> float:
    """Text repeats itself, which favours the token that was read; random tokens do not."""
    rng = np.random.default_rng(0)
    batch = c.objective.batch(rng.integers(256, size=(64, 17)), c.source, rng)
    index = np.flatnonzero(batch.scored)
    parts = (np.ascontiguousarray(batch.inputs), index, batch.targets.ravel()[index])
    return training.TrainingLoss(encoder, Precision.fp32)(*map(torch.from_numpy, parts)).item()


def test_a_look_in_pieces_is_the_look_in_one(tmp_path, monkeypatch):
    c = cell(tmp_path)
    encoder, read = build_encoder(c), []
    held_out = training.held_out_sequences(c.source, c.objective, c.config.train)
    whole = training.loss_on(encoder, held_out, len(held_out.inputs))
    real = training.TrainingLoss.forward
    monkeypatch.setattr(training.TrainingLoss, "forward", lambda *a: read.append(len(a[1])) or real(*a))
    assert training.loss_on(encoder, held_out, 24) == pytest.approx(whole, rel=1e-6)
    assert sum(read) == len(held_out.inputs) == 64
    assert max(read) <= 24


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)["model"]


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_step_of_every_seed_draws_numbers_of_its_own(tmp_path, one_thread, monkeypatch):
    drawn, train_step = [], training.train_step

    def noted(*given):
        drawn.append(torch.rand(1).item())
        return train_step(*given)

    monkeypatch.setattr(training, "train_step", noted)
    for seed in (0, 1):
        execute(cell(tmp_path, f"seed={seed}"))
    assert len(drawn) == len(set(drawn)) == 2 * 12


@pytest.mark.parametrize("objective", ["mlm", "causal"])
@pytest.mark.parametrize("output", ["tied", *slow("untied", "tied_head")])
@pytest.mark.parametrize("d_model", [128, *slow(32, 1024)])
def test_loss_at_the_start_is_log_v(tmp_path, objective, output, d_model):
    c = cell(tmp_path, f"objective={objective}", f"model.output={output}", f"model.d_model={d_model}")
    assert loss_on_random_tokens(c, build_encoder(c)) == pytest.approx(math.log(256), abs=0.12)


@pytest.mark.slow
def test_a_tied_table_that_is_not_scaled_down_would_start_far_above_log_v(tmp_path):
    # the mutant of the test above
    c = cell(tmp_path, "objective=causal", "model.output=tied", "model.d_model=1024", "train.batch_size=8")
    encoder = build_encoder(c)
    encoder.embedding.write = 1.0
    # the logit of the token that was read is D * s; it is seldom the one to predict
    assert loss_on_random_tokens(c, encoder) > math.log(256) + 1


@pytest.mark.parametrize("name", ["checkpoint.pt", *slow("model.pt")])
def test_a_run_that_goes_on_with_other_arithmetic_is_told(tmp_path, one_thread, monkeypatch, capsys, name):
    c = cell(tmp_path)
    with monkeypatch.context() as elsewhere:
        before = {"torch": "2.0.0", "device": "cpu", "instructions": "AVX0", "threads": 7}
        elsewhere.setattr("extrap.train.checkpoint.arithmetic", lambda device: before)
        elsewhere.setattr("extrap.runs.run.arithmetic", lambda device: before)
        elsewhere.setattr(Path, "unlink", lambda *a, **k: None)  # its checkpoint stays
        execute(c)
    assert "goes on" not in capsys.readouterr().err
    c.folder.rows.unlink()
    if name == "checkpoint.pt":
        c.folder.weights.unlink()
    execute(c)
    told = capsys.readouterr().err
    stage = "step 10" if name == "checkpoint.pt" else "its trained weights"
    assert told.startswith(f"{c.config.run} goes on from {stage} with torch 2.0.0 -> {torch.__version__}, ")
    assert c.folder.load_meta()["began_on"] == [before]  # and what it ends on stands beside it, as of any run
    assert f"instructions AVX0 -> {torch.backends.cpu.get_cpu_capability()}" in told
    assert "threads 7 -> 1" in told
    assert "from the eighth digit on" in told
    assert told.count("\n") == 1
    c.folder.rows.unlink()
    if name == "checkpoint.pt":  # trained to its end here, in one piece as far as its weights know
        execute(c)
        assert capsys.readouterr().err == ""


def test_a_run_without_a_number_at_the_training_length_is_over_with_its_reason(tmp_path, one_thread, monkeypatch):
    c = cell(tmp_path)
    real = Encoder.logits
    monkeypatch.setattr(Encoder, "logits", lambda self, x: real(self, x) * (1 if self.training else math.nan))
    execute(c)
    assert c.folder.is_finished
    assert not c.folder.rows.exists()
    missing = collect_missing(c.config.folder.parent)
    assert set(missing["reason"]) == {"not a number at the training length"}
    assert set(missing["eval_len"]) >= set(c.config.eval.lengths)
    assert c.folder.divergence.read_text().startswith("not a number at the training length: ")


def test_meta_tells_what_rounding_hangs_on(tmp_path, one_thread):
    c = cell(tmp_path)
    execute(c)
    meta = json.loads(c.folder.meta.read_text())
    assert meta["threads"] == 1
    assert meta["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert meta["torch"] == torch.__version__


@pytest.mark.slow
def test_schemes_of_a_seed_share_batches_and_all_weights_but_their_own(tmp_path):
    cells = prepare_grid(compose_grid([*TINY, f"runtime.results_dir={tmp_path}", "position=nope,learned,t5,rope"]))
    encoders = [build_encoder(c) for c in cells]
    plain = encoders[0].state_dict()
    for encoder in encoders[1:]:
        shared = {k: v for k, v in encoder.state_dict().items() if not k.startswith("scheme.")}
        assert same_bits(plain, shared)
    first, second = (training.training_batch(c.source, c.objective, c.config.train, 3, 7) for c in cells[:2])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_seeds_and_steps_differ(tmp_path):
    c = cell(tmp_path)
    inputs = {
        (seed, step): training.training_batch(c.source, c.objective, c.config.train, seed, step)[0]
        for seed in (0, 1) for step in (0, 1)
    }  # fmt: skip
    assert len({x.numpy().tobytes() for x in inputs.values()}) == 4
    other = cell(tmp_path, "seed=1")
    assert not torch.equal(build_encoder(c).embedding.weight, build_encoder(other).embedding.weight)


@pytest.mark.parametrize(
    "overrides",
    [["model.dropout=0.2"], *slow([], ["train.precision=fp32"], ["position=learned"])],
)
def test_the_same_run_twice_has_the_same_bits(tmp_path, one_thread, overrides):
    a, b = cell(tmp_path / "a", *overrides), cell(tmp_path / "b", *overrides)
    execute(a)
    torch.rand(5)  # what ran before in the process must not matter
    execute(cell(tmp_path / "c", "position=t5", "seed=4"))
    execute(b)
    assert same_bits(weights(a.config.folder), weights(b.config.folder))
    assert a.folder.rows.read_bytes() == b.folder.rows.read_bytes()


@pytest.mark.parametrize(("stop_at", "output"), [(6, "tied_head"), *slow((3, "untied"), (5, "tied"), (11, "untied"))])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path, one_thread, monkeypatch, stop_at, output):
    changes = ("model.dropout=0.1", f"model.output={output}")
    whole, broken = (cell(tmp_path / name, *changes) for name in ("whole", "broken"))
    execute(whole)
    real = training.training_batch

    def until(source, objective, config, seed, step):
        if step == stop_at:
            raise KeyboardInterrupt
        return real(source, objective, config, seed, step)

    with monkeypatch.context() as patched:
        patched.setattr(training, "training_batch", until)
        with pytest.raises(KeyboardInterrupt):
            execute(broken)
    assert not broken.folder.weights.exists()
    steps = []
    monkeypatch.setattr(training, "training_batch", lambda *a: steps.append(a[-1]) or real(*a))
    execute(broken)
    assert steps[0] == 5 * (stop_at // 5), "it goes on from the last checkpoint"
    assert same_bits(weights(whole.config.folder), weights(broken.config.folder))
    assert whole.folder.rows.read_bytes() == broken.folder.rows.read_bytes()
    without_seconds = [[line.rpartition(",")[0] for line in c.folder.log.read_text().splitlines()] for c in (whole, broken)]
    assert without_seconds[0] == without_seconds[1]


@pytest.mark.slow
def test_a_run_killed_while_evaluating_does_not_train_again(tmp_path, one_thread, monkeypatch):
    c = cell(tmp_path)
    execute(c)
    rows = c.folder.rows.read_bytes()
    c.folder.rows.unlink()
    monkeypatch.setattr("extrap.runs.run.train", None)
    execute(c)
    assert c.folder.rows.read_bytes() == rows


@pytest.mark.slow
def test_a_log_that_was_changed_comes_back_with_the_weights(tmp_path, one_thread):
    c = cell(tmp_path)
    execute(c)
    log = c.folder.log.read_bytes()
    c.folder.log.write_bytes(log.replace(b",", b";"))
    c.folder.rows.unlink()
    execute(c)
    assert c.folder.log.read_bytes() == log


@pytest.mark.parametrize("name", ["checkpoint.pt", *slow("model.pt")])
def test_weights_of_another_run_are_told_and_not_read(tmp_path, one_thread, monkeypatch, capsys, name):
    """Copied over, as by a slip of the hand: their shapes fit and each is whole."""
    own, other = cell(tmp_path / "own"), cell(tmp_path / "other", "seed=1")
    execute(own)
    rows = own.folder.rows.read_bytes()
    own.folder.rows.unlink()
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: None)  # its checkpoint stays
    execute(other)
    monkeypatch.undo()
    own.folder.weights.unlink()
    shutil.copy(other.config.folder / name, own.config.folder / name)
    execute(own)
    assert f"{name} is damaged or of another run" in capsys.readouterr().err
    assert own.folder.rows.read_bytes() == rows


def explode_at(monkeypatch, step):
    """The loss of this step, and of no other, is infinite."""
    real = training.TrainingLoss.forward
    calls = []

    def explode(loss, *batch):
        calls.extend([1] if loss.encoder.training else [])  # it is also asked about held-out text
        return real(loss, *batch) * (math.inf if len(calls) == step + 1 else 1.0)

    monkeypatch.setattr(training.TrainingLoss, "forward", explode)


def test_divergence_is_told_with_its_step(tmp_path, monkeypatch):
    c = cell(tmp_path)
    explode_at(monkeypatch, 7)
    execute(c)
    assert c.folder.divergence.read_text().startswith("diverged at step 7: loss inf")
    assert c.folder.is_finished
    assert not c.folder.rows.exists()
    missing = collect_missing(c.config.folder.parent)
    assert set(missing["reason"]) == {"diverged at step 7"}
    assert set(missing["eval_len"]) >= set(c.config.eval.lengths)


@pytest.mark.parametrize("step", [3, 4, *slow(0, 5, 9, 10, 11)])
def test_no_checkpoint_is_of_a_run_that_has_diverged(tmp_path, monkeypatch, step):
    """Steps are looked at before 5 and 10 are saved, 10 and 12 logged."""
    saved = []
    monkeypatch.setattr(training, "save_checkpoint", lambda path, state, *rest: saved.append(state["step"]))
    c = cell(tmp_path)
    explode_at(monkeypatch, step)
    execute(c)
    assert c.folder.divergence.read_text().startswith(f"diverged at step {step}: loss inf")
    assert saved == [done for done in (5, 10) if done <= step]


def test_a_gradient_that_is_no_number_leaves_weights_numbers(tmp_path):
    c = cell(tmp_path)
    encoder = build_encoder(c)
    model, optimizers = training.TrainingLoss(encoder, Precision.fp32), make_optimizers(encoder, c.config.train)
    batch = training.training_batch(c.source, c.objective, c.config.train, 0, 0)
    for weight in (math.inf, math.nan, 1e30):  # of the last the norm alone is infinite
        _, grad_norm = training.train_step(model, optimizers, batch, 1.0, weight)
        assert not math.isfinite(grad_norm)
        assert all(value.isfinite().all() for value in encoder.state_dict().values())
        assert math.isfinite(training.train_step(model, optimizers, batch, 1.0)[1])


def test_the_first_step_that_diverged_is_told():
    losses, norms = torch.tensor([1.0, 2.5, math.nan]), torch.tensor([1.0, math.inf, math.nan])
    with pytest.raises(training.Diverged, match=r"^diverged at step 8: loss 2.5, gradient norm inf$"):
        training.refuse_diverged(losses, norms, done=10)
    training.refuse_diverged(losses[:1], norms[:1], done=10)


@pytest.mark.slow
def test_learned_biases_train(tmp_path, one_thread):
    c = cell(tmp_path, "position=t5", "train.max_steps=12")
    execute(c)
    assert weights(c.config.folder)["scheme.bias"].abs().max() > 0


@pytest.mark.slow
def test_positions_are_not_rounded_by_bf16(tmp_path):
    c = cell(tmp_path, "position=sinusoidal")
    encoder = build_encoder(c)
    seen = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.zeros(1, 16, dtype=torch.int64))
    assert seen[0].dtype == torch.float32
    assert isinstance(encoder.norm, nn.LayerNorm)


def test_the_data_do_not_depend_on_the_scheme_module(tmp_path):
    # drawing a scheme's own weights must not move any other draw
    c = cell(tmp_path, "position=learned")
    state = build_encoder(c).embedding.weight
    torch.manual_seed(0)
    Learned(build_encoder(c).scheme.geometry)
    assert torch.equal(state, build_encoder(c).embedding.weight)
