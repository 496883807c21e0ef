"""What every position scheme promises, tried on a small encoder before anything is trained."""

import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from extrap.errors import UserError, one_line, raised_in
from extrap.extensions.base import Extension
from extrap.model.attention import additive_bias, prepare
from extrap.model.seed import seed_generators
from extrap.positions.base import Branch, Geometry, PositionScheme, are_consecutive
from extrap.testing.case import TOLERANCE, Case, apart, heads
from extrap.testing.measures import Measure, again, batch, future, not_finite, unregistered

ROWS = 48  # queries whose scores are looked at
BLOCK = 3  # of them, whose keys are asked for together
ROUNDED = 1e-5  # of the largest bias
FUNCTIONS = ("rotate", "score_mod", "mask_mod", "content", "decay", "keys")  # of a branch
N_SCORES = 2**22  # of a head: of up to 161 tokens each is changed, of more so many that these come of it
FINITE = "is not finite: {}; look for 0/0, log, sqrt and exp"
PROMISES: dict[Measure, str] = {
    unregistered: "trains {} that is no parameter of it, which no optimizer moves; use nn.Parameter and nn.ModuleList",
    again: "gives two outputs for one input: {}; keep nothing between calls (tables, counters), draw in training alone",
    batch: "mixes the sequences of a batch: {}; let nothing look across dimension 0",
    future: "sees the future: {}; let every hook use what stands at a token and before it alone",
}


def check_scheme(build: Callable[[], PositionScheme], longest: int) -> None:
    """Raises UserError, in one line, for the first promise of extrap/positions/base.py that a scheme does not keep.

    One block of the encoder, or all of them where layers differ, reads random tokens: 7, the training length, a length
    between and, if `longest` is more, twice the training length and a length beyond it.

    - At the training length outputs and gradients are finite; what is no number beyond it is a result, not an error.
    - What backpropagation reaches is a parameter.
    - A causal model sees no future and no sequence of a batch another, in training as in evaluation.
    - In evaluation the same input gives the same output, whatever was read between, and from what is built again, too.
    - Positions increase, hooks keep shapes, masks leave every query a key and no pair to two branches, and what a scheme
      or branch states is so: embed reads a table where it is `tabular`, score_mod adds, a `window` ends where it says, a
      `relative` branch depends on the distance alone.

    But for the first, parameters are moved away from 0: a gate that is nearly closed hides what it lets through. Draws
    outside, from PyTorch's generator, are what they would be without all this.
    """
    with torch.random.fork_rng(devices=[]):
        seed_generators(0)
        scheme = build()
        try:
            fault = next(_faults(scheme, longest), None) or next(_faults_of_draws(build), None)
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever somebody's code raises
            hint = "; if it ends where a table does, state max_len" if isinstance(error, IndexError) else ""
            fault = f"fails before any training: {raised_in(type(scheme), error)}{hint}"
    if fault:
        cls = type(scheme)
        module = re.sub(r"^outside_\d+\.", "", cls.__module__)  # of a file that the command line names
        raise UserError(one_line(f"position: {cls.__name__} ({module.replace('.', '/')}.py) {fault}"))


@torch.no_grad()
def check_extensions(scheme: PositionScheme, extensions: dict[str, Extension]) -> None:
    """Raises UserError, in one line, for the first of them that fails one token beyond the training length."""
    geometry, n = scheme.geometry, scheme.geometry.train_len + 1
    with torch.random.fork_rng(devices=[]):
        (q, k, v), x = (part.float() for part in heads(geometry, n, n_batch=1)), torch.randn(1, n, geometry.d_model)
        for label, extension in extensions.items():
            try:
                extended = extension(scheme.eval(), n)
                if extended is None or (extended.max_len is not None and extended.max_len < n):
                    continue
                pos = extended.positions(n)
                extended.embed(x, pos)
                for layer in dict.fromkeys(extended.layers(geometry.n_layers)):
                    prepare(layer, pos, training=False)(q, k, v, x)
            except (Exception, SystemExit) as error:  # whatever somebody's code raises
                raise UserError(
                    f"eval.extensions: {label} fails on {type(scheme).__name__}: {raised_in(type(scheme), error)}; leave it "
                    "out, or let hooks take positions that are real numbers, as by .round().long()"
                ) from error


def _faults(scheme: PositionScheme, longest: int) -> Iterator[str]:
    case, train_len = Case(scheme, longest, N_SCORES), scheme.geometry.train_len
    if scheme.max_len is not None and scheme.max_len < train_len:
        yield f"has max_len={scheme.max_len}; expected the training length {train_len} or more"
    yield from _faults_of_hooks(scheme, train_len)  # a mask that leaves nothing says more than what comes of it
    yield from _broken(not_finite, FINITE, case)
    case.move_parameters()
    for measure, told in PROMISES.items():
        yield from _broken(measure, told, case)
    for seq_len in case.lengths:
        yield from _faults_of_hooks(scheme, seq_len)


@torch.no_grad()
def _faults_of_draws(build: Callable[[], PositionScheme]) -> Iterator[str]:
    """Of two that are built alike."""
    outputs = []
    for _ in range(2):
        seed_generators(0)
        scheme = build()
        outputs.append(Case(scheme, scheme.geometry.train_len).read(scheme.geometry.train_len))
    if apart(*outputs) > 0:
        yield "differs when it is built again: draw from PyTorch's generator alone, which every run seeds"


def _broken(measure: Measure, told: str, case: Case) -> Iterator[str]:
    return (told.format(where) for value, where in measure(case) if value > TOLERANCE)


@torch.no_grad()
def _faults_of_hooks(scheme: PositionScheme, seq_len: int) -> Iterator[str]:
    """Of positions, shapes, and the facts that a scheme and its branches state."""
    geometry = scheme.geometry
    pos = scheme.positions(seq_len)
    if pos.dtype != torch.int64 or pos.shape != (seq_len,) or not (pos.diff() > 0).all():
        yield f"has positions that are not {seq_len} growing whole numbers (int64); see PositionScheme.positions"
    if are_consecutive(pos) and not (pos.diff() == 1).all():
        yield "changes positions in place; compute others of them, for these are marked as neighbours"
    x = torch.randn(2, seq_len, geometry.d_model)
    given, there = x.clone(), pos.clone()
    embedded: object = scheme.embed(given, pos)
    if not isinstance(embedded, Tensor):
        yield f"embeds x as {type(embedded).__name__}; embed returns a tensor like x"
    elif embedded.shape != x.shape or embedded.dtype != x.dtype:
        yield f"embeds {_kind(x)} as {_kind(embedded)}; embed keeps shape and type, as by .to(x.dtype)"
    if not torch.equal(given, x) or not torch.equal(pos, there):
        yield f"changes {'pos' if torch.equal(given, x) else 'x'} in place in embed; make another tensor, as by x + ..."
    if scheme.tabular and _differ(scheme.embed(0 * x, pos.flip(0)), scheme.embed(0 * x, pos).flip(1)).any():
        yield "states tabular and embeds other than by x + table[pos]"
    layers = scheme.layers(geometry.n_layers)
    if len(layers) != geometry.n_layers:
        yield f"has layers({geometry.n_layers}) that gives {len(layers)} schemes; expected one for each layer"
    for layer in dict.fromkeys(layers):
        yield from _faults_of_passes(layer, pos)
    if not torch.equal(pos, there):
        yield "changes pos in place; make another tensor, as by pos + 1"


def _kind(x: Tensor) -> str:
    return f"{(*x.shape,)} of {str(x.dtype).removeprefix('torch.')}"


def _faults_of_passes(scheme: PositionScheme, pos: Tensor) -> Iterator[str]:
    geometry, seq_len = scheme.geometry, len(pos)
    heads = torch.randn(2, 2, geometry.n_heads, seq_len, geometry.head_dim)
    i = torch.linspace(0, seq_len - 1, min(ROWS, seq_len)).to(torch.int64)[:, None]
    j = torch.arange(seq_len)
    passes = torch.zeros(1, geometry.n_heads, len(i), seq_len)
    for branch in scheme.branches(pos):
        for hook in FUNCTIONS:
            if (found := getattr(branch, hook)) is not None and not callable(found):
                yield f"has a {hook} that gives {type(found).__name__}; expected a function"
                return
        if branch.rotate:
            *shape, head_dim = heads[0].shape
            queries, keys = branch.rotate(*heads)
            turned = queries.shape
            if turned != keys.shape or [*turned[:-1]] != shape or turned[-1] < head_dim:
                yield "rotates queries or keys to another shape; expected (B, H, T, K or more) of both"
            if {queries.dtype, keys.dtype} != {heads.dtype}:
                yield f"rotates {_kind(heads[0])} to {_kind(queries)}; a rotation keeps the type, as by .to(q.dtype)"
        yield from _faults_of_facts(branch, geometry, i, j)
        passes += _bias(branch._replace(score_mod=None), geometry, i, j) == 0
    if (passes > 1).any():
        yield "has branches that overlap: a query and key in two of them; mask_mods must be disjoint"
    if not (scheme.weights() or passes.any(dim=-1).all()):
        yield f"leaves a token of {seq_len} without any key to attend to; let mask_mod keep the token itself"


def _bias(branch: Branch, geometry: Geometry, i: Tensor, j: Tensor) -> Tensor:
    """As attention computes it, (1, H, R, S): -inf where a query may not attend."""
    bias = additive_bias(branch, geometry, i, j)
    bias = torch.zeros(1) if bias is None else bias
    return bias.to(torch.float64).expand(1, geometry.n_heads, *(i - j).shape)


def _faults_of_facts(branch: Branch, geometry: Geometry, i: Tensor, j: Tensor) -> Iterator[str]:
    shape = (2, geometry.n_heads, len(i), len(j))
    b, h = torch.arange(2).view(2, 1, 1, 1), torch.arange(geometry.n_heads).view(-1, 1, 1)
    if branch.mask_mod:
        mask = branch.mask_mod(b, h, i, j).expand(shape)
        if mask.dtype != torch.bool:
            yield f"has a mask_mod of {mask.dtype}; expected torch.bool, True where a query may attend"
        if (mask[0] != mask[1]).any():
            yield "has a mask_mod that depends on b; a mask is the same for every sequence"
    if branch.score_mod:
        of_one = branch.score_mod(torch.zeros(1, geometry.n_heads, 1, 1), b[:1], h, i[:1], j[:1]).shape
        if of_one[-2:] != (1, 1):
            yield f"has a score_mod that gives {(*of_one,)} for one query and key; index what it adds by q_idx and kv_idx"
            return
    bias = _bias(branch, geometry, i, j)
    scale = 1 + bias.where(bias.isfinite(), 0.0).abs().amax()
    if branch.score_mod:
        score = 10 * torch.randn(shape, dtype=torch.float64)
        added = torch.where(bias.isfinite(), branch.score_mod(score, b, h, i, j) - score, bias)
        if _differ(added / scale, bias / scale).any():
            yield "has a score_mod that does more than add a bias of h, q_idx and kv_idx; what else counts is Branch.content"
    if branch.window is not None and not bias[..., (i - j).abs() >= branch.window].isneginf().all():
        yield f"states window={branch.window} and attends beyond it; let mask_mod be False where abs(i - j) >= window"
    yield from _faults_of_keys(branch, bias, i[:, 0].tolist())
    if branch.relative:
        nearest = _bias(branch, geometry, (i - j).clamp(min=0), (j - i).clamp(min=0))  # the first pair so far apart
        if _differ(nearest / scale, bias / scale).any():
            yield "states relative and depends on more than the distance of tokens; set relative = False"


def _faults_of_keys(branch: Branch, bias: Tensor, queries: list[int]) -> Iterator[str]:
    if not branch.keys:
        return
    for rows in (slice(first, first + BLOCK) for first in range(0, len(queries), BLOCK)):
        start, stop = queries[rows][0], queries[rows][-1] + 1
        first, last = branch.keys(start, stop)
        unseen = torch.cat([bias[..., rows, : max(0, first)], bias[..., rows, max(0, last) :]], dim=-1)
        if not unseen.isneginf().all():
            yield f"states keys({start}, {stop}) = ({first}, {last}) and attends to others; let mask_mod be False there"
            return


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors are not the same to rounding; two that are both no number are."""
    return ((a.nan_to_num() - b.nan_to_num()).abs() > ROUNDED) | (a.isnan() != b.isnan())
