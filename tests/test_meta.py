"""What a GPU needs, proven without one: training and evaluation wait for no value on the device, and mix no devices.

On PyTorch's meta device tensors have sizes alone, so that a question for a value is an error.
"""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from marks import slow
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from extrap.config.choices import Precision
from extrap.config.compose import CONF, compose_grid, extension_specs
from extrap.extensions.base import extensions_of
from extrap.model import decay, relative
from extrap.objectives import Causal, Mlm
from extrap.runs.run import build_encoder
from extrap.score.reads import token_nll
from extrap.sweep.checks import prepare_grid
from extrap.train.loop import TrainingBatch, TrainingLoss, train_step, training_batch
from extrap.train.optimizer import make_optimizers
from extrap.train.stacked import stacked

EXTENSIONS = extensions_of(extension_specs(["none", *(file.stem for file in sorted((CONF / "extension").glob("*.yaml")))]))
SHORT, LONG = 12, 45  # on either side of attention.DENSE_MAX and relative.WHOLE under the fixture `small`


class OneDevice(TorchDispatchMode):
    """Refuses what mixes devices, but for single numbers; counts the tensors that the host copies."""

    copied = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor) and part.dim()]
        devices = {tensor.device.type for tensor in tensors}
        if len(devices) > 1:
            raise AssertionError(f"{func} mixes devices")
        self.copied += func is torch.ops.aten._to_copy.default and devices == {"cpu"}
        return func(*args, **(kwargs or {}))


class NoConstants(TorchFunctionMode):
    """Refuses tensors made of numbers of the host: each is a copy that waits for all that the device is at."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor):
            raise AssertionError(f"{func.__name__} copies numbers of the host to the device")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_device(small, monkeypatch):
    """A context in which only the device computes; what it hands back at the end are zeros."""

    @contextlib.contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patched, NoConstants(), OneDevice() as mode:
            patched.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # which meta has not
            patched.setattr(Tensor, "cpu", lambda self: torch.zeros(self.shape, dtype=self.dtype))
            yield mode

    return context


def batch_of(causal, seq_len):
    objective = Causal() if causal else Mlm()
    tokens = np.random.default_rng(0).integers(10, size=(2, seq_len + objective.extra_tokens))
    return objective.batch(tokens, SimpleNamespace(vocab_size=10), np.random.default_rng(0))


def training_batch_of(batch):
    index = np.flatnonzero(batch.scored)
    inputs = np.ascontiguousarray(batch.inputs)
    return TrainingBatch(*map(torch.from_numpy, (inputs, index, batch.targets.ravel()[index])))


@pytest.mark.parametrize("seq_len", [SHORT, *slow(LONG)])
def test_a_step_of_training_waits_for_nothing(kind, causal, seq_len, scheme_of, encoder_of, on_device, monkeypatch):
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda groups, lr, **_: torch.optim.SGD(groups, lr)
    )  # it has no fused step here
    model = TrainingLoss(encoder_of(scheme_of(kind, causal, train_len=seq_len)), Precision.fp32).to("meta").train()
    config = compose_grid(["experiment=smoke", "seed=0", "position=rope", "train.optimizer=muon"])[0].train
    optimizers = make_optimizers(model.encoder, config)
    batch = training_batch_of(batch_of(causal, seq_len))
    with on_device() as watched:
        loss, grad_norm = train_step(model, optimizers, batch.to(torch.device("meta")), config.grad_clip)
    assert watched.copied == len(batch)
    assert {part.device.type for part in (loss, grad_norm, *model.parameters())} == {"meta"}
    assert loss.shape == grad_norm.shape == ()


@pytest.mark.parametrize("of", ["objective=electra", "model.output=tied_head"])
def test_a_step_of_two_networks_or_behind_a_head_waits_for_nothing(tmp_path, on_device, monkeypatch, of):
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, lr, **_: torch.optim.SGD(groups, lr))
    overrides = ["experiment=smoke", "seed=0", "position=rope", of, "train.optimizer=muon"]
    (run,) = prepare_grid(compose_grid([*overrides, f"runtime.results_dir={tmp_path}"]))
    model = TrainingLoss(build_encoder(run), Precision.fp32).to("meta").train()
    optimizers = make_optimizers(model.encoder, run.config.train)
    batch = training_batch(run.source, run.objective, run.config.train, 0, 0)
    with on_device() as watched:
        train_step(model, optimizers, batch.to(torch.device("meta")), run.config.train.grad_clip)
    assert watched.copied == len(batch)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in EXTENSIONS if name != "none"])
@pytest.mark.parametrize("case", ["rope", "alibi", "learned"])
def test_an_extension_waits_for_nothing(case, name, scheme_of, encoder_of, on_device, monkeypatch):
    monkeypatch.setattr(relative, "reaches", reads_everything)
    extended = EXTENSIONS[name](scheme_of(case, causal=True, train_len=SHORT), LONG)
    if extended is not None:
        encoder = encoder_of(extended).to("meta").eval()
        with on_device() as watched:
            encoder(torch.zeros(2, LONG, dtype=torch.int64, device="meta"))
        assert watched.copied == 0


def test_several_models_as_one_wait_for_nothing(causal, scheme_of, encoder_of, on_device):
    encoders = [encoder_of(scheme_of("kerple", causal, train_len=SHORT)).to("meta") for _ in range(2)]
    stack, gradients_of = stacked([TrainingLoss(encoder.train(), Precision.fp32) for encoder in encoders])
    part = training_batch_of(batch_of(causal, SHORT)).to(torch.device("meta"))
    batch = TrainingBatch(*(torch.stack([one, one]) for one in part))
    with on_device() as watched:
        gradients, losses = gradients_of({name: value.detach() for name, value in stack.named_parameters()}, batch)
    assert watched.copied == 0
    assert losses.shape == (2,)
    assert {name: value.shape for name, value in gradients.items()} == {n: p.shape for n, p in stack.named_parameters()}


def reads_everything(bias, q, k):
    """In place of relative.reaches, which has to ask."""
    widths = [q.shape[2] - 1] * q.shape[1]
    return widths, widths


def reads_every_key(c, q, k):
    """In place of decay.first_keys, likewise."""
    return [[0] * -(-q.shape[2] // decay.BLOCK)] * q.shape[1]


@torch.no_grad()
@pytest.mark.parametrize("seq_len", [LONG, *slow(SHORT)])
@pytest.mark.parametrize("names", [["none"], *slow([*EXTENSIONS])], ids=["as trained", "extended"])
def test_an_evaluation_waits_for_its_losses_alone(
    kind, causal, names, seq_len, scheme_of, encoder_of, on_device, monkeypatch
):
    monkeypatch.setattr(relative, "reaches", reads_everything)
    monkeypatch.setattr(decay, "first_keys", reads_every_key)
    scheme = scheme_of(kind, causal, train_len=SHORT)
    encoder = encoder_of(scheme).to("meta").eval()
    batch = batch_of(causal, seq_len)
    columns = [slice(seq_len // 2, None)]
    for name in names:
        extended = scheme if name == "none" else EXTENSIONS[name](scheme, seq_len)
        if extended is None or (extended.max_len is not None and extended.max_len < seq_len):
            continue
        encoder.scheme = extended.to("meta")
        with on_device() as watched:
            nll, scored = token_nll(encoder, batch, columns)
        assert watched.copied == 4, name  # inputs, places and which of them count, targets
        assert (nll == 0).all()
        assert scored.any()


class Questions(TorchFunctionMode):
    """Counts how often the host asks for values."""

    ASKS = (Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__,
            Tensor.cpu, Tensor.numpy, Tensor.nonzero, torch.nonzero)  # fmt: skip
    asked = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.asked += func in self.ASKS
        return func(*args, **(kwargs or {}))


def reads_a_band(scheme, seq_len):
    """Whether attention leaves out what is too far to matter: in a single pass, by decay or, if long, by distance."""
    branch, *others = scheme.branches(scheme.positions(seq_len))
    if others or branch.content or scheme.weights():
        return False
    if branch.decay:
        return scheme.geometry.causal and not (branch.score_mod or branch.mask_mod)
    return seq_len > relative.WHOLE and branch.relative and bool(branch.score_mod or branch.mask_mod)


@torch.no_grad()
def test_a_long_evaluation_asks_once_a_layer_how_far_to_read(kind, causal, scheme_of, encoder_of, small):
    scheme = scheme_of(kind, causal, train_len=LONG)
    encoder = encoder_of(scheme).eval()
    layers = scheme.layers(len(encoder.blocks))
    for seq_len in (SHORT, LONG):
        times = sum(reads_a_band(layer, seq_len) for layer in layers)
        with Questions() as questions:
            encoder(torch.zeros(2, seq_len, dtype=torch.int64))
        assert questions.asked == times


@pytest.mark.parametrize("ask", [
    lambda x: x + torch.zeros(3), lambda x: x[torch.arange(3)], lambda x: x * torch.tensor([1.0, 2.0, 3.0]),
    lambda x: x[x > 0], lambda x: x.sum().item(), lambda x: x if x.sum() > 0 else -x, lambda x: x.tolist(),
    lambda x: torch.bucketize(x, torch.arange(3)),
])  # fmt: skip
def test_what_would_wait_or_mix_devices_is_refused_here(ask, on_device):
    x = torch.zeros(3, device="meta")
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), on_device():
        ask(x)


def test_what_ends_is_told_on_any_device_before_it_computes(encoder_of, scheme_of):
    encoder = encoder_of(scheme_of("learned", causal=True, train_len=SHORT)).to("meta")
    with pytest.raises(ValueError, match="positions of Learned end at 12, the input has 13 tokens"):
        encoder(torch.zeros(1, SHORT + 1, dtype=torch.int64, device="meta"))
