"""What every position scheme promises, tried on a small encoder before anything is trained."""

import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from extrap.config.schema import ModelConfig
from extrap.errors import UserError, one_line
from extrap.model.encoder import Encoder
from extrap.positions.base import Branch, PositionScheme

SHORT, BEYOND = 7, 129  # tokens: an odd length, and how far beyond the training length at most
VOCAB = 16
ROWS = 48  # queries whose scores are looked at
MOVED = 0.5  # by up to this much a parameter is moved away from 0
TOLERANCE = 1e-5  # of hidden states, which are about 1: a hundred roundings of float32, a hundredth of a leak of 0.001


def check_scheme(build: Callable[[], PositionScheme], longest: int) -> None:
    """Raises UserError, in one line, for the first promise of extrap/positions/base.py that a scheme does not keep.

    One block of the encoder, or all of them where layers differ, reads random tokens: 7, the training length and, if
    `longest` is more, a length beyond it.

    - At the training length outputs and gradients are finite; what is no number beyond it is a result, not an error.
    - A causal model sees no future and no sequence of a batch another, in training as in evaluation.
    - In evaluation the same input gives the same output, whatever was read between.
    - Positions increase, hooks keep shapes, masks leave every query a key and no pair to two branches, and what a branch
      states is so: score_mod adds, a `window` ends where it says, a `relative` branch depends on the distance alone.

    But for the first, parameters are moved away from 0: a gate that is nearly closed hides what it lets through. Draws
    outside, from PyTorch's generator, are what they would be without all this.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scheme = build()
        try:
            fault = next(_faults(scheme, longest), None)
        except Exception as error:  # noqa: BLE001  whatever somebody's code raises
            fault = f"fails before any training: {type(error).__name__}: {error}"
    if fault:
        cls = type(scheme)
        module = re.sub(r"^outside_\d+\.", "", cls.__module__)  # of a file that the command line names
        raise UserError(one_line(f"position: {cls.__name__} ({module.replace('.', '/')}.py) {fault}"))


def _faults(scheme: PositionScheme, longest: int) -> Iterator[str]:
    geometry = scheme.geometry
    train_len = geometry.train_len
    end = min(longest, 2 * train_len + 1, train_len + BEYOND)
    if scheme.max_len is not None:
        end = min(end, scheme.max_len)
        if scheme.max_len < train_len:
            yield f"has max_len={scheme.max_len}; expected the training length {train_len} or more"
    layers = scheme.layers(geometry.n_layers)
    n_layers = 1 if len({*layers}) == 1 else geometry.n_layers
    sizes = ModelConfig(geometry.d_model, n_layers, geometry.n_heads, geometry.d_model, dropout=0.0, tie=False)
    encoder = Encoder(sizes, scheme, VOCAB, VOCAB)
    tokens = torch.randint(VOCAB, (2, max(end, train_len)))
    with torch.no_grad():
        yield from _faults_of_hooks(scheme, train_len)  # a mask that leaves nothing says more than what comes of it
    yield from _no_numbers(encoder, tokens[:, :train_len])
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.add_(torch.where(parameter < 0, -MOVED, MOVED) * torch.rand_like(parameter))
        yield from _faults_of_outputs(encoder, tokens[:, :train_len])
        encoder.eval()
        trained = encoder(tokens[:, :train_len])
        for seq_len in sorted({min(SHORT, train_len), train_len, max(end, train_len)}):
            yield from _faults_of_hooks(scheme, seq_len)
            yield from _faults_of_outputs(encoder, tokens[:, :seq_len])
        if _differ(encoder(tokens[:, :train_len]), trained).any():
            yield "gives another output after it has read another length; keep nothing between calls (tables, counters)"


def _no_numbers(encoder: Encoder, tokens: Tensor) -> Iterator[str]:
    at = f"for {tokens.shape[1]} tokens, the training length"
    for training in (False, True):
        hidden = encoder.train(training)(tokens)
        if not hidden.isfinite().all():
            yield f"gives outputs that are no numbers {at}; look for 0/0, log and exp"
    (hidden * torch.randn_like(hidden)).sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            yield f"makes the gradient of {name} no number {at}; look for 0/0, log and sqrt"


def _faults_of_outputs(encoder: Encoder, tokens: Tensor) -> Iterator[str]:
    """Of hidden states: the same input twice, and inputs that differ in one token of the second sequence."""
    seq_len = tokens.shape[1]

    def read(tokens: Tensor) -> Tensor:
        torch.manual_seed(1)  # what is drawn in training is drawn alike
        hidden: Tensor = encoder(tokens)
        return hidden

    whole = read(tokens)
    if _differ(read(tokens), whole).any():
        yield "gives two outputs for one input; keep nothing between calls (tables, counters)"
    if not encoder.training and _differ(encoder(tokens), whole).any():
        yield "draws at random in evaluation; draw where self.training alone"
    for t in sorted({1, seq_len // 2, seq_len - 1}, reverse=True):
        changed = tokens.clone()
        changed[1, t] = (changed[1, t] + 1) % VOCAB
        moved = _differ(read(changed), whole)
        if moved[0].any():
            yield "mixes the sequences of a batch: one changes what another gives; let nothing look across dimension 0"
        if encoder.causal and moved[1, :t].any():
            seen = int(moved[1].any(dim=-1).nonzero()[0])
            yield (
                f"sees the future: of {seq_len} tokens, token {t} changes what a causal model gives at token {seen}; let "
                "every hook use what stands at a token and before it alone"
            )


def _faults_of_hooks(scheme: PositionScheme, seq_len: int) -> Iterator[str]:
    """Of positions, shapes, and the facts that branches state."""
    geometry = scheme.geometry
    pos = scheme.positions(seq_len)
    if pos.dtype != torch.int64 or pos.shape != (seq_len,) or not (pos.diff() > 0).all():
        yield f"has positions that are not {seq_len} growing whole numbers (int64); see PositionScheme.positions"
    x = torch.randn(2, seq_len, geometry.d_model)
    if (embedded := scheme.embed(x, pos)).shape != x.shape:
        yield f"embeds {(*x.shape,)} as {(*embedded.shape,)}; embed keeps the shape"
    for layer in dict.fromkeys(scheme.layers(geometry.n_layers)):
        yield from _faults_of_passes(layer, pos)


def _faults_of_passes(scheme: PositionScheme, pos: Tensor) -> Iterator[str]:
    geometry, seq_len = scheme.geometry, len(pos)
    heads = torch.randn(2, 2, geometry.n_heads, seq_len, geometry.head_dim)
    b, h = torch.arange(2).view(2, 1, 1, 1), torch.arange(geometry.n_heads).view(-1, 1, 1)
    i = torch.linspace(0, seq_len - 1, min(ROWS, seq_len)).to(torch.int64)[:, None]
    j = torch.arange(seq_len)
    causal = j <= i if geometry.causal else torch.ones_like(j <= i)
    passes = torch.zeros(2, geometry.n_heads, len(i), seq_len)
    for branch in scheme.branches(pos):
        if branch.rotate and any(turned.shape != heads[0].shape for turned in branch.rotate(*heads)):
            yield "rotates queries or keys to another shape; a rotation keeps (B, H, T, K)"
        yield from _faults_of_facts(branch, b, h, i, j, causal)
        passes += causal & branch.mask_mod(b, h, i, j) if branch.mask_mod else causal
    if (passes > 1).any():
        yield "has branches that overlap: a query and key in two of them; mask_mods must be disjoint"
    if not (scheme.weights() or passes.any(dim=-1).all()):
        yield f"leaves a token of {seq_len} without any key to attend to; let mask_mod keep the token itself"


def _faults_of_facts(branch: Branch, b: Tensor, h: Tensor, i: Tensor, j: Tensor, causal: Tensor) -> Iterator[str]:
    shape = (len(b), len(h), *causal.shape)

    def bias(score: Tensor, step: int = 0) -> Tensor:
        """What score_mod adds, where it counts."""
        assert branch.score_mod is not None
        return torch.where(causal, branch.score_mod(score, b, h, i + step, j + step) - score, 0.0).expand(shape)

    inner = (slice(None), slice(None), i[:, 0] < len(j) - 1, slice(None, -1))  # pairs with a pair one further on
    if branch.score_mod:
        zero = torch.zeros(1, 1, 1, 1)
        plain = bias(zero)
        scale = 1 + plain[plain.isfinite()].abs().amax() if plain.isfinite().any() else 1
        if _differ(bias(10 * torch.randn(shape)) / scale, plain / scale).any():
            yield "has a score_mod that does more than add to the score; return score + bias, the bias not made of the score"
        if _differ(plain[:1] / scale, plain[1:] / scale).any():
            yield "has a score_mod that depends on b; what depends on the sequence belongs into Branch.content"
    if branch.mask_mod:
        mask = branch.mask_mod(b, h, i, j).expand(shape)
        if mask.dtype != torch.bool:
            yield f"has a mask_mod of {mask.dtype}; expected torch.bool, True where a query may attend"
            return
        if (mask[0] != mask[1]).any():
            yield "has a mask_mod that depends on b; a mask is the same for every sequence"
    if branch.window is not None:
        beyond = causal & ((i - j).abs() >= branch.window)
        if (beyond & branch.mask_mod(b, h, i, j) if branch.mask_mod else beyond).any():
            yield f"states window={branch.window} and attends beyond it; let mask_mod be False where abs(i - j) >= window"
    if branch.relative:
        i, j, causal = i[inner[2]], j[inner[3]], causal[inner[2:]]
        shape = (len(b), len(h), *causal.shape)
        differs = bool(branch.score_mod) and _differ(bias(zero) / scale, bias(zero, 1) / scale).any()
        if branch.mask_mod:
            moved = branch.mask_mod(b, h, i, j) != branch.mask_mod(b, h, i + 1, j + 1)
            differs = differs or (causal & moved).any()
        if differs:
            yield "states relative and depends on more than the distance of tokens; set relative = False"


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors are not the same to rounding; two that are both no number are."""
    return ((a.nan_to_num() - b.nan_to_num()).abs() > TOLERANCE) | (a.isnan() != b.isnan())
