"""What a person would train with instead: other libraries' models of the same shape, in their default and best settings."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.speed.ours import batches_of, columns_of, in_turn
from experiments.speed.rounds import Contestant, Row, if_it_compiles
from extrap.config.choices import Precision
from extrap.errors import UserError
from extrap.runs.prepare import Run
from extrap.train.device import pick_precision
from extrap.train.loop import TrainingBatch, autocast

VOCAB = 257  # bytes and a mask token
Loss = Callable[[nn.Module, TrainingBatch], Tensor]


class Setting(NamedTuple):
    """How a peer is run.

    `flash`: F.scaled_dot_product_attention, not plain matrix products. `tuned`: fused AdamW and all that the model offers.
    """

    flash: bool
    tuned: bool = False
    precision: Precision = Precision.fp32
    compiled: bool = False

    def __str__(self) -> str:
        optimizer, attention = "fused" if self.tuned else "unfused", "SDPA" if self.flash else "matmul"
        told = f"{self.precision.value}, {optimizer}, {attention}{', compiled' if self.compiled else ''}"
        return f"{'best' if self.tuned else 'default'}: {told}"


class Kind(NamedTuple):
    """A model of a library: how it is built for a setting, and its loss."""

    name: str
    scheme: str
    build: Callable[[Setting], nn.Module]
    loss: Loss
    flash: tuple[bool, ...]  # what its attention can be, its default first


def peers(run: Run, device: torch.device, compiled: bool) -> Iterator[Contestant]:
    """A step of training of every peer in every setting, on the batches of a run of ours.

    The first setting of each is its default: float32, the optimizer as it comes. The others are what it can be brought to:
    autocast where the machine has units for it, the fused optimizer, either attention, and if asked, torch.compile.
    Raises UserError where a library is missing.
    """
    batches = batches_of(run, device)
    precision = pick_precision(Precision.auto, device)
    for kind in kinds(run):
        settings = [Setting(kind.flash[0])]
        settings += [Setting(flash, True, precision) for flash in sorted(kind.flash, reverse=True)]
        if compiled:  # takes most of a minute each: with the attention that it is made for
            settings.append(Setting(True, True, precision, compiled=True))
        for setting in settings:
            network = kind.build(setting).to(device).train()
            columns: Row = {"name": kind.name, "setting": str(setting), "scheme": kind.scheme}
            columns |= {"logits": count_logits(network, kind.loss, batches[0])}
            columns |= columns_of(run, network, setting.precision, batches[0])
            contestant = Contestant(columns, in_turn(stepper(network, kind.loss, setting), batches))
            yield from if_it_compiles(contestant) if setting.compiled else [contestant]


def stepper(network: nn.Module, loss_of: Loss, setting: Setting) -> Callable[[TrainingBatch], None]:
    """One step of training as in every library: loss, gradient, clipped to norm 1, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=setting.tuned or None)
    run: Any = torch.compile(network) if setting.compiled else network

    def step(batch: TrainingBatch) -> None:
        with autocast(batch.inputs.device, setting.precision):
            loss = loss_of(run, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def count_logits(network: nn.Module, loss_of: Loss, batch: TrainingBatch) -> int:
    """Rows of logits in a step, counted at the linear map to the vocabulary."""
    rows: list[int] = []
    last = [module for module in network.modules() if isinstance(module, nn.Linear) and module.out_features == VOCAB]
    hook = last[-1].register_forward_hook(lambda module, args, output: rows.append(output.numel() // VOCAB))
    with torch.no_grad():
        loss_of(network, batch)
    hook.remove()
    return sum(rows)


def scored_loss(network: nn.Module, batch: TrainingBatch) -> Tensor:
    """For a network that maps tokens to logits: all logits are computed, the scored ones count."""
    return F.cross_entropy(network(batch.inputs).flatten(0, 1)[batch.scored], batch.targets)


def labelled_loss(network: nn.Module, batch: TrainingBatch) -> Tensor:
    """For a model of transformers, which takes a label for every position, -100 where it does not count."""
    wanted = torch.full_like(batch.inputs, -100)
    wanted.view(-1)[batch.scored] = batch.targets
    loss: Tensor = network(input_ids=batch.inputs, labels=wanted).loss
    return loss


def shifted_loss(network: nn.Module, batch: TrainingBatch) -> Tensor:
    """For a causal model of transformers: its labels can be given as they are, the next token of each."""
    shifted = batch.targets.view_as(batch.inputs)
    loss: Tensor = network(input_ids=batch.inputs, labels=batch.inputs, shift_labels=shifted, use_cache=False).loss
    return loss


class NanoBlock(nn.Module):
    """Pre-norm attention by F.scaled_dot_product_attention, then a feed-forward four times as wide."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_2(x))
        return out


class Nano(nn.Module):
    """The plain baseline, after nanoGPT: tokens (B, T) -> logits (B, T, V); learned positions, tied tables, its start."""

    def __init__(self, vocab: int, length: int, width: int, depth: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(NanoBlock(width, heads, causal) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith(("proj.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if into_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def kinds(run: Run) -> Iterator[Kind]:
    """The models, all of the same shape and without dropout."""
    xt, tf = libraries()
    length, model, causal = run.config.train.train_len, run.config.model, run.objective.causal
    width, depth, heads = model.d_model, model.n_layers, model.n_heads

    def x_transformer(option: str, setting: Setting) -> nn.Module:
        attention = {option: True, "attn_flash": setting.flash, "attn_dim_head": width // heads}
        blocks = (xt.Decoder if causal else xt.Encoder)(dim=width, depth=depth, heads=heads, **attention)
        network: nn.Module = xt.TransformerWrapper(
            num_tokens=VOCAB, max_seq_len=length, use_abs_pos_emb=False, attn_layers=blocks
        )
        return network

    for scheme, option in (("rope", "rotary_pos_emb"), ("alibi", "alibi_pos_bias")):
        yield Kind("x-transformers", scheme, partial(x_transformer, option), scored_loss, (False, True))
    yield Kind("nanoGPT-like", "learned", lambda _: Nano(VOCAB, length, width, depth, heads, causal), scored_loss, (True,))
    shape = {
        "vocab_size": VOCAB, "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "max_position_embeddings": length, **{f"{kind}_token_id": VOCAB - 1 for kind in ("pad", "bos", "eos", "cls", "sep")},
    }  # fmt: skip
    # a gated feed-forward has three matrices: of two thirds of the width it has as many parameters, a few less here
    gated = shape | {"intermediate_size": 32 * (2 * model.d_ff // 96)}
    plain = shape | {"intermediate_size": model.d_ff, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def hugging_face(config: Any, network: Any, options: dict[str, Any], setting: Setting) -> nn.Module:
        model: nn.Module = network(config(**options, attn_implementation="sdpa" if setting.flash else "eager"))
        return model

    def modern_bert(setting: Setting) -> nn.Module:
        offered = {"sparse_prediction": True} if setting.tuned else {}
        return hugging_face(tf.ModernBertConfig, tf.ModernBertForMaskedLM, gated | offered, setting)

    if causal:
        decoder = partial(hugging_face, tf.ModernBertDecoderConfig, tf.ModernBertDecoderForCausalLM, gated)
        yield Kind("ModernBERT", "rope", decoder, shifted_loss, (True, False))
    else:
        bert = partial(hugging_face, tf.BertConfig, tf.BertForMaskedLM, plain)
        yield Kind("BERT", "learned", bert, labelled_loss, (True, False))
        yield Kind("ModernBERT", "rope", modern_bert, labelled_loss, (True, False))


def libraries() -> tuple[Any, Any]:
    """x_transformers and transformers, imported here alone. Raises UserError where one of them is missing."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # models are built from a config, nothing is downloaded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their deprecations are theirs
        try:
            import transformers
            import x_transformers
        except ImportError as error:
            raise UserError(f"the benchmark needs {error.name}: `make bench` installs it") from error
    transformers.logging.set_verbosity_error()
    return x_transformers, transformers
