"""What a person would train with instead: other libraries' models of the same shape, in their default and best settings."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from experiments.speed.nano import Nano
from experiments.speed.steps import (
    VOCAB,
    Batch,
    Loss,
    Setting,
    count_logits,
    labelled_loss,
    runs,
    scored_loss,
    shifted_loss,
    stepper,
)
from extrap.config.schema import ModelConfig
from extrap.errors import UserError


class Peer(NamedTuple):
    """A peer in one setting; `step` is one step of training, `logits` the rows of logits that it computes."""

    name: str
    setting: str
    scheme: str
    objective: str
    step: Callable[[Batch], None]
    params: int
    logits: int
    precision: str


class Kind(NamedTuple):
    """A model of a library: how it is built for a setting, its loss, and whether its attention is flash unless told."""

    name: str
    scheme: str
    objective: str
    build: Callable[[Setting], nn.Module]
    loss: Loss
    default_flash: bool
    either: bool = True  # can do without what is its default


def peers(
    model: ModelConfig, batches: Mapping[str, Batch], device: torch.device, bf16: bool, compiled: bool
) -> Iterator[Peer]:
    """Every peer in every setting, for the objectives of `batches`. Raises UserError where a library is missing.

    The first setting of each is its default: float32, the optimizer as it comes. The others are what it can be brought to:
    autocast where the machine has units for it, the fused optimizer, either attention, and if asked, torch.compile.
    """
    for kind in kinds(model, next(iter(batches.values()))[0].shape[1]):
        if kind.objective not in batches:
            continue
        settings = [Setting(kind.default_flash)]
        for flash in (True, False) if kind.either else (kind.default_flash,):
            settings.append(Setting(flash, True, bf16))
        if compiled:  # takes most of a minute each: with the attention that it is made for
            settings.append(Setting(True, True, bf16, compiled=True))
        for setting in settings:
            network = kind.build(setting).to(device).train()
            name = f"{'best' if setting.tuned else 'default'}: {setting}"
            params = sum(parameter.numel() for parameter in network.parameters())
            step = stepper(network, kind.loss, setting)
            logits = count_logits(network, kind.loss, batches[kind.objective])
            precision = "bf16" if setting.bf16 else "fp32"
            if setting.compiled and not runs(step, batches[kind.objective], kind.name):
                continue
            yield Peer(kind.name, name, kind.scheme, kind.objective, step, params, logits, precision)


def kinds(model: ModelConfig, length: int) -> Iterator[Kind]:
    """The models, all of the same shape and without dropout."""
    xt, tf = libraries()
    width, depth, heads = model.d_model, model.n_layers, model.n_heads
    for objective, layers in (("mlm", xt.Encoder), ("causal", xt.Decoder)):
        for scheme, option in (("rope", "rotary_pos_emb"), ("alibi", "alibi_pos_bias")):

            def x_transformer(setting: Setting, layers: Any = layers, option: str = option) -> nn.Module:
                attention = {option: True, "attn_flash": setting.flash, "attn_dim_head": width // heads}
                blocks = layers(dim=width, depth=depth, heads=heads, **attention)
                network: nn.Module = xt.TransformerWrapper(
                    num_tokens=VOCAB, max_seq_len=length, use_abs_pos_emb=False, attn_layers=blocks
                )
                return network

            yield Kind("x-transformers", scheme, objective, x_transformer, scored_loss, default_flash=False)

        def nano(setting: Setting, causal: bool = objective == "causal") -> nn.Module:
            return Nano(VOCAB, length, width, depth, heads, causal)

        yield Kind("nanoGPT-like", "learned", objective, nano, scored_loss, default_flash=True, either=False)
    shape = {
        "vocab_size": VOCAB, "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "max_position_embeddings": length, **{f"{kind}_token_id": VOCAB - 1 for kind in ("pad", "bos", "eos", "cls", "sep")},
    }  # fmt: skip
    # a gated feed-forward has three matrices: of two thirds of the width it has as many parameters, a few less here
    gated = shape | {"intermediate_size": 32 * (2 * model.d_ff // 96)}
    plain = shape | {"intermediate_size": model.d_ff, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def hugging_face(config: Any, network: Any, options: dict[str, Any], offers: str = "") -> Callable[[Setting], nn.Module]:
        def build(setting: Setting) -> nn.Module:
            tuned = {offers: True} if offers and setting.tuned else {}
            attention = "sdpa" if setting.flash else "eager"
            model: nn.Module = network(config(**options, **tuned, attn_implementation=attention))
            return model

        return build

    bert = hugging_face(tf.BertConfig, tf.BertForMaskedLM, plain)
    encoder = hugging_face(tf.ModernBertConfig, tf.ModernBertForMaskedLM, gated, offers="sparse_prediction")
    decoder = hugging_face(tf.ModernBertDecoderConfig, tf.ModernBertDecoderForCausalLM, gated)
    yield Kind("BERT", "learned", "mlm", bert, labelled_loss, default_flash=True)
    yield Kind("ModernBERT", "rope", "mlm", encoder, labelled_loss, default_flash=True)
    yield Kind("ModernBERT", "rope", "causal", decoder, shifted_loss, default_flash=True)


def libraries() -> tuple[Any, Any]:
    """x_transformers and transformers, imported here alone. Raises UserError where one of them is missing."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # models are built from a config, nothing is downloaded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their deprecations are theirs
        try:
            import transformers
            import x_transformers
        except ImportError as error:
            raise UserError(
                f"the benchmark needs {error.name}, of the optional extra 'bench': `make bench` installs it"
            ) from error
    transformers.logging.set_verbosity_error()
    return x_transformers, transformers
