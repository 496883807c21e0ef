"""Schemes and extensions beside implementations that others wrote: x-transformers and transformers (the extra `bench`)."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from extrap.extensions.angles import Llama3, Ntk, Pi, Yarn
from extrap.model.definition import attend_reference
from extrap.positions.alibi import Alibi
from extrap.positions.base import Geometry
from extrap.positions.cope import Cope
from extrap.positions.cpb import Cpb
from extrap.positions.deberta import Deberta
from extrap.positions.fox import Fox
from extrap.positions.nope import Nope
from extrap.positions.pope import Pope
from extrap.positions.rope import PartialRope, PRope, Rope
from extrap.positions.sinks import Sinks
from extrap.positions.t5 import T5
from extrap.positions.xl import TransformerXL
from extrap.positions.xpos import Xpos

xt = pytest.importorskip("x_transformers.x_transformers", reason="the extra bench is not installed")
pytest.importorskip("transformers", reason="the extra bench is not installed")

from transformers import DebertaV2Config, LlamaConfig, T5Config, XLNetConfig, XLNetModel  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention  # noqa: E402
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward  # noqa: E402
from transformers.models.gptj import modeling_gptj  # noqa: E402
from transformers.models.t5.modeling_t5 import T5Attention  # noqa: E402

B, H, K, D, L, T = 2, 4, 32, 128, 128, 200
CAUSAL, ENCODER = (Geometry(D, H, L, causal, n_layers=2) for causal in (True, False))
PAST = torch.ones(T, T, dtype=torch.bool).tril()


def softmax(scores, causal=True):
    return scores.masked_fill(~PAST, -math.inf).softmax(-1) if causal else scores.softmax(-1)


def scaled(q, k):
    return q @ k.mT / math.sqrt(K)


def rotated_as_gptj(inv_freq, factor=1.0):
    """Scores of neighbouring pairs that turn by these frequencies, cosines and sines times a factor."""
    angles = torch.arange(T)[:, None] * inv_freq.double()
    sin, cos = (factor * table(angles).float()[None] for table in (torch.sin, torch.cos))

    def weights(q, k, x):
        q, k = (modeling_gptj.apply_rotary_pos_emb(of.transpose(1, 2), sin, cos).transpose(1, 2) for of in (q, k))
        return softmax(scaled(q, k))

    return weights


def rotated_as_xt(emb):
    freqs, scale = emb.forward_from_seq_len(T)

    def weights(q, k, x):
        q, k = (xt.apply_rotary_pos_emb(of, freqs, to) for of, to in ((q, scale), (k, scale**-1)))
        return softmax(scaled(q, k))

    return weights


def biased(bias, causal=True):
    return lambda q, k, x: softmax(scaled(q, k) + bias, causal)


# ---- each: our scheme of the first layer, and the attention weights that others make of (q, k, x)


def rope():
    sin, cos = (table[None] for table in modeling_gptj.create_sinusoidal_positions(T, K).chunk(2, dim=1))

    def weights(q, k, x):
        q, k = (modeling_gptj.apply_rotary_pos_emb(of.transpose(1, 2), sin, cos).transpose(1, 2) for of in (q, k))
        return softmax(scaled(q, k))

    return Rope(CAUSAL), weights


def partial_rope():
    return PartialRope(CAUSAL, 0.25), rotated_as_xt(xt.RotaryEmbedding(K // 4))


def prope():
    given = LlamaConfig(hidden_size=D, num_attention_heads=H, max_position_embeddings=L, rope_parameters={
        "rope_type": "proportional", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5})  # fmt: skip
    return PRope(CAUSAL, 0.5), rotated_as_gptj(ROPE_INIT_FUNCTIONS["proportional"](given)[0])


def xpos():
    return Xpos(CAUSAL, scale_base=64.0), rotated_as_xt(xt.RotaryEmbedding(K, use_xpos=True, scale_base=64))


def pope():
    emb, scheme = xt.PolarEmbedding(K, H), Pope(CAUSAL)
    scheme.delta.data = -torch.rand(H, K)
    emb.learned_bias.data = scheme.delta.data[:, None]

    def weights(q, k, x):
        freqs, bias = emb(torch.arange(T))
        q, k = xt.apply_polar_pos_emb(q, freqs), xt.apply_polar_pos_emb(k, freqs + bias)
        return softmax(scaled(q, k))

    return scheme, weights


def alibi():
    return Alibi(ENCODER), biased(xt.AlibiPositionalBias(H)(T, T), causal=False)


def t5(geometry):
    attention = T5Attention(T5Config(d_model=D, d_kv=K, num_heads=H, is_decoder=geometry.causal), True, layer_idx=0)
    scheme = T5(geometry)
    scheme.bias.data = attention.relative_attention_bias.weight.data.mT / math.sqrt(K)
    return scheme, biased(attention.compute_bias(T, T), geometry.causal)


def t5_causal():
    return t5(CAUSAL)


def t5_encoder():
    return t5(ENCODER)


def cpb(log_distance=False):
    theirs, scheme = xt.DynamicPositionBias(D // 4, heads=H, depth=2, log_distance=log_distance), Cpb(ENCODER, log_distance)
    first, second, last = theirs.mlp[0][0], theirs.mlp[1][0], theirs.mlp[2]
    for ours, parameter in (
        (scheme.first, first.weight), (scheme.first_bias, first.bias), (scheme.second, second.weight),
        (scheme.second_bias, second.bias), (scheme.last, last.weight),
    ):  # fmt: skip
        ours.data = parameter.data
    return scheme, biased(theirs(T, T), causal=False)


def cpb_log():
    return cpb(log_distance=True)


def fox():
    theirs, scheme = xt.DataDependentAlibi(D, H, bias_init=0.0), Fox(CAUSAL)
    linear, gates = theirs.to_forget_gates[0], scheme.gates[0]
    gates.weight.data, gates.bias.data = linear.weight.data[None], linear.bias.data[None]
    return scheme, lambda q, k, x: softmax(scaled(q, k) + theirs(x))


def cope():
    theirs, scheme = xt.CoPE(K, H, 64), Cope(CAUSAL)
    theirs.pos_emb.data = scheme.counted[0].table.data = torch.randn(64, K)

    def weights(q, k, x):  # a sum of 200 gates looks up a table of steep steps
        scores = scaled(q.double(), k.double()).masked_fill(~PAST, -math.inf)
        return softmax(scores + theirs.double()(q.double(), scores))

    return scheme, weights


def deberta():
    given = DebertaV2Config(hidden_size=D, num_attention_heads=H, relative_attention=True, position_buckets=64,
                            max_relative_positions=T, pos_att_type=["c2p", "p2c"])  # fmt: skip
    theirs, scheme = DisentangledSelfAttention(given).eval(), Deberta(ENCODER, max_distance=T)
    for ours, linear in ((scheme.to_key, theirs.pos_key_proj), (scheme.to_query, theirs.pos_query_proj)):
        linear.bias.data.zero_()
        ours[0].data = linear.weight.data.view(H, K, D).mT
    table = F.layer_norm(scheme.table.data, (D,))

    def weights(q, k, x):
        flat_q, flat_k = q.reshape(B * H, T, K), k.reshape(B * H, T, K)
        bias = theirs.disentangled_attention_bias(flat_q, flat_k, None, table, scale_factor=3)
        return softmax((flat_q @ flat_k.mT / math.sqrt(3 * K) + bias).view(B, H, T, T), causal=False)

    return scheme, weights


def transformer_xl():
    model, scheme = XLNetModel(XLNetConfig(d_model=D, n_head=H, n_layer=1, vocab_size=11)).eval(), TransformerXL(ENCODER)
    theirs, ours = model.layer[0].rel_attn, scheme.sinusoids[0]
    torch.nn.init.normal_(theirs.r, std=D**-0.5)
    torch.nn.init.normal_(theirs.r_w_bias)
    torch.nn.init.normal_(theirs.r_r_bias)
    ours.u.data, ours.v.data, ours.weight.data = theirs.r_w_bias.data, theirs.r_r_bias.data, theirs.r.data.permute(1, 2, 0)

    def weights(q, k, x):
        q, k = (of.permute(2, 0, 1, 3) for of in (q, k))
        r = torch.einsum("ibh,hnd->ibnd", model.relative_positional_encoding(T, T, bsz=B), theirs.r)
        return theirs.rel_attn_core(q, k, k, r, output_attentions=True)[1].permute(2, 3, 0, 1)

    return scheme, weights


def sinks():
    scheme = Sinks(CAUSAL, Nope(CAUSAL))
    scheme.sinks[0].data = torch.randn(H)
    module = SimpleNamespace(sinks=scheme.sinks[0], num_key_value_groups=1, training=False)
    mask = torch.zeros(T, T).masked_fill(~PAST, -math.inf)
    return scheme, lambda q, k, x: eager_attention_forward(module, q, k, k, mask, scaling=K**-0.5)[1]


@torch.no_grad()
@pytest.mark.parametrize(
    "beside",
    [
        rope,
        partial_rope,
        prope,
        xpos,
        pope,
        alibi,
        t5_causal,
        t5_encoder,
        cpb,
        cpb_log,
        fox,
        cope,
        deberta,
        transformer_xl,
        sinks,
    ],
)
def test_a_scheme_has_the_logits_of_others(beside):
    """Up to a constant of each query, which no softmax sees: logarithms of attention weights."""
    scheme, theirs = beside()
    check(scheme.eval(), theirs)


def check(scheme, theirs):
    q, k = torch.randn(2, B, H, T, K)
    x, each = torch.randn(B, T, D), torch.eye(T).expand(B, H, T, T)
    layer = copy.deepcopy(scheme).double().layers(2)[0]
    exact = [of.double() for of in (q, k, each, x)]
    found, expected = attend_reference(layer, layer.positions(T), *exact), theirs(q, k, x).double()
    seen = PAST.expand_as(found) if scheme.geometry.causal else torch.ones_like(found, dtype=torch.bool)
    assert not found[~seen].any()
    seen = seen & (expected > 1e-12)  # smaller ones hold no digits of the difference of logits
    assert_close(found[seen].log(), expected[seen].log(), rtol=0, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("extension", "told"),
    [
        (Pi(), {"rope_type": "linear", "factor": T / L}),
        (Ntk(), {"rope_type": "dynamic", "factor": 1.0}),
        (Yarn(), {"rope_type": "yarn", "factor": T / L, "original_max_position_embeddings": L}),
        (
            Llama3(),
            {"rope_type": "llama3", "factor": T / L, "original_max_position_embeddings": L, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0},
        ),
    ],
    ids=["pi", "ntk", "yarn", "llama3"],
)  # fmt: skip
def test_an_extension_has_the_logits_of_others(extension, told):
    given = LlamaConfig(hidden_size=D, num_attention_heads=H, max_position_embeddings=L,
                        rope_parameters={"rope_theta": 10_000.0} | told)  # fmt: skip
    inv_freq, factor = ROPE_INIT_FUNCTIONS[told["rope_type"]](given, seq_len=T)
    check(extension(Rope(CAUSAL), T).eval(), rotated_as_gptj(inv_freq, factor))
